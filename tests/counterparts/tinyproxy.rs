//! A forward proxy.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, program};

#[derive(Debug)]
pub struct Tinyproxy {
    _process: ServerProcess,
    _directory: TempDir,
    address: SocketAddr,
}

impl Tinyproxy {
    /// Or a skip. With a name and a password, nobody else may use it.
    pub fn start(login: Option<(&str, &str)>) -> Option<Self> {
        let program = program("tinyproxy")?;
        Some(with_free_ports("tinyproxy", || {
            let directory = TempDir::with_prefix("cpra-tinyproxy-").expect("a temporary directory");
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
            let inside = |name: &str| directory.path().join(name);
            let login = login.map_or_else(String::new, |(name, password)| format!("BasicAuth {name} {password}\n"));
            let text = format!(
                "Port {}\nListen 127.0.0.1\nTimeout 10\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Connect\n\
                 LogFile \"{}\"\nPidFile \"{}\"\n{login}",
                address.port(),
                inside("tinyproxy.log").display(),
                inside("tinyproxy.pid").display(),
            );
            let configuration = inside("tinyproxy.conf");
            fs::write(&configuration, text).expect("the configuration is written");
            let log = inside("output.log");
            // -d: in the foreground.
            let arguments = ["-d", "-c", configuration.to_str().expect("a plain path")];
            match ServerProcess::start(&program, &arguments, &[address], &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, address }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
