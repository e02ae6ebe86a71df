//! HAProxy, with one frontend for every way to treat a request.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, listen_addresses, program};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// 200, `fine`.
    Ok = 0,
    /// Holds the request for one second, then 500.
    Tarpit = 1,
    /// 503: no server in the backend.
    NoServer = 2,
    /// Closes without an answer.
    Reject = 3,
    /// Closes before a byte is read.
    RejectConnection = 4,
    /// 307 to itself, then 200 and a document.
    Moved = 5,
}

const RULES: [(&str, &str); 6] = [
    ("ok", r#"http-request return status 200 content-type text/plain string "fine""#),
    ("tarpit", "http-request tarpit"),
    ("no-server", "default_backend empty"),
    ("reject", "http-request reject"),
    ("reject-connection", "tcp-request connection reject"),
    (
        "moved",
        r#"http-request redirect location /there code 307 unless { path /there }
    http-request return status 200 content-type application/json hdr Cache-Control no-store string '{"status":"up"}'"#,
    ),
];

#[derive(Debug)]
pub struct Haproxy {
    _process: ServerProcess,
    _directory: TempDir,
    ports: [u16; RULES.len()],
}

impl Haproxy {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let program = program("haproxy")?;
        Some(with_free_ports("haproxy", || {
            let directory = TempDir::with_prefix("cpra-haproxy-").expect("a temporary directory");
            let ports = [(); RULES.len()].map(|()| free_port());
            let listens: Vec<SocketAddr> = ports.into_iter().flat_map(listen_addresses).collect();
            let configuration = directory.path().join("haproxy.cfg");
            let log = directory.path().join("output.log");
            fs::write(&configuration, configuration_text(ports)).expect("the configuration is written");
            // -db: in the foreground, one process.
            let arguments = ["-db", "-f", configuration.to_str().expect("a plain path")];
            match ServerProcess::start(&program, &arguments, &listens, &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, ports }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self, frontend: Frontend, loopback: IpAddr) -> SocketAddr {
        SocketAddr::new(loopback, self.ports[frontend as usize])
    }
}

fn configuration_text(ports: [u16; RULES.len()]) -> String {
    let mut text = String::from(
        "global
    maxconn 256
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    timeout tarpit 1s
backend empty
",
    );
    for ((name, rule), port) in RULES.into_iter().zip(ports) {
        writeln!(text, "frontend {name}").expect("a string takes every line");
        for address in listen_addresses(port) {
            writeln!(text, "    bind {address}").expect("a string takes every line");
        }
        writeln!(text, "    {rule}").expect("a string takes every line");
    }
    text
}
