//! Prometheus' blackbox exporter: another prober, which is asked for its verdict.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, program};

const NAME: &str = "prometheus-blackbox-exporter";

#[derive(Debug)]
pub struct Exporter {
    _process: ServerProcess,
    _directory: TempDir,
    address: SocketAddr,
}

/// What it found.
#[derive(Debug)]
pub struct Probed {
    pub success: bool,
    /// What it wrote down meanwhile, and its metrics.
    pub told: String,
}

impl Exporter {
    /// With this configuration file; or a skip.
    pub fn start(configuration: &str) -> Option<Self> {
        let program = program(NAME)?;
        Some(with_free_ports(NAME, || {
            let directory = TempDir::with_prefix("cpra-exporter-").expect("a temporary directory");
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
            let file = directory.path().join("blackbox.yml");
            fs::write(&file, configuration).expect("the configuration is written");
            let log = directory.path().join("output.log");
            let file = format!("--config.file={}", file.display());
            let listen = format!("--web.listen-address={address}");
            let arguments = [&file, &listen].map(String::as_str);
            match ServerProcess::start(&program, &arguments, &[address], &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, address }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    /// Asks it to probe a target by one of its modules.
    pub fn probe(&self, module: &str, target: &str) -> Probed {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let path = format!("/probe?debug=true&module={}&target={}", encoded(module), encoded(target));
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        // 1.0, so that the answer comes in one piece and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it reads");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("an answer in text");
        let success = told.lines().find_map(|line| line.strip_prefix("probe_success "));
        let success = success.unwrap_or_else(|| panic!("{module} of {target} has no result: {told}")) == "1";
        Probed { success, told }
    }
}

/// What it has against a configuration file; `Ok` if it would run with it, and `None` is a skip.
pub fn judge(configuration: &Path) -> Option<Result<(), String>> {
    let program = program(NAME)?;
    let file = format!("--config.file={}", configuration.display());
    let output = Command::new(program).args(["--config.check", &file]).output().expect("it can be started");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(words) })
}
