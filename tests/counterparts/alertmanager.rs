//! Prometheus' Alertmanager of the Debian package.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, program};

const NAME: &str = "prometheus-alertmanager";

pub struct Alertmanager {
    _process: ServerProcess,
    _directory: TempDir,
    address: SocketAddr,
}

impl Alertmanager {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let program = program(NAME)?;
        Some(with_free_ports(NAME, || {
            let directory = TempDir::with_prefix("cpra-alertmanager-").expect("a temporary directory");
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
            let file = directory.path().join("alertmanager.yml");
            fs::write(&file, "route:\n  receiver: nobody\n  group_by: [group]\nreceivers:\n- name: nobody\n")
                .expect("a file");
            let log = directory.path().join("output.log");
            let arguments = [
                format!("--config.file={}", file.display()),
                format!("--web.listen-address={address}"),
                format!("--storage.path={}", directory.path().join("data").display()),
                "--cluster.listen-address=".to_owned(),
            ];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match ServerProcess::start(&program, &arguments, &[address], &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, address }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says of `/api/v2/alerts` and what follows: `?active=true`, `/groups`.
    pub fn ask(&self, rest: &str) -> serde_json::Value {
        let (status, body) = self.request("GET", &format!("/api/v2/alerts{rest}"), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// By hand: the status and the body of the answer.
    pub fn post(&self, body: &str) -> (u16, String) {
        self.request("POST", "/api/v2/alerts", body)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        // 1.0, so that the answer comes in one piece and ends with the connection.
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in text");
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a whole head").1.to_owned())
    }
}
