//! NSD, an authoritative name server, with one zone for every kind of answer.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, listen_addresses, program};

/// `example.test` and `2.0.192.in-addr.arpa` are served, `broken.test` is configured and has no zone file (SERVFAIL),
/// nothing else is (REFUSED).
#[derive(Debug)]
pub struct Nsd {
    // Dropped in this order: the process goes before its directory.
    _process: ServerProcess,
    _directory: TempDir,
    port: u16,
}

impl Nsd {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let program = program("nsd")?;
        Some(with_free_ports("nsd", || {
            let directory = TempDir::with_prefix("cpra-nsd-").expect("a temporary directory");
            let root = directory.path();
            let port = free_port();
            let listens = listen_addresses(port);
            let configuration = root.join("nsd.conf");
            let log = root.join("output.log");
            let root_text = root.to_str().expect("a plain path");
            fs::write(&configuration, configuration_text(root_text, &listens)).expect("the configuration is written");
            fs::write(root.join("example.zone"), zone_text()).expect("a zone is written");
            fs::write(root.join("reverse.zone"), REVERSE).expect("a zone is written");
            let arguments = ["-d", "-c", configuration.to_str().expect("a plain path")];
            match ServerProcess::start(&program, &arguments, &listens, &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, port }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self, loopback: IpAddr) -> SocketAddr {
        SocketAddr::new(loopback, self.port)
    }
}

/// No user, no root directory of its own, nothing outside the test's directory.
fn configuration_text(root: &str, listens: &[SocketAddr]) -> String {
    let mut listen = String::new();
    for address in listens {
        writeln!(listen, "    ip-address: {}@{}", address.ip(), address.port()).expect("a string takes every line");
    }
    format!(
        r#"server:
{listen}    server-count: 1
    username: ""
    chroot: ""
    database: ""
    zonesdir: "{root}"
    pidfile: "{root}/nsd.pid"
    xfrdfile: "{root}/xfrd.state"
    xfrdir: "{root}"
    zonelistfile: "{root}/zone.list"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: example.test
    zonefile: example.zone
zone:
    name: 2.0.192.in-addr.arpa
    zonefile: reverse.zone
zone:
    name: broken.test
    zonefile: missing.zone
"#
    )
}

fn zone_text() -> String {
    let mut zone = String::from(ZONE);
    for number in 0..60 {
        writeln!(zone, "big TXT \"{number:03} {}\"", "x".repeat(180)).expect("a string takes every line");
    }
    for number in 0..250 {
        writeln!(zone, "many A 127.0.1.{number}").expect("a string takes every line");
    }
    zone
}

const ZONE: &str = r#"$ORIGIN example.test.
$TTL 300
@ SOA NS1 host\.master 2026010101 3600 600 86400 60
@ NS ns1
@ NS ns2
@ CAA 0 issue "letsencrypt.org"
@ MX 10 Mail
@ MX 20 mail.backup.test.
@ TXT "v=spf1 -all"
@ TXT "one" "two \"quoted\""
ns1 A 127.0.0.1
ns2 AAAA ::1
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
alias CNAME other
other CNAME www
dangling CNAME nothing.example.test.
here A 127.0.0.1
_sip._tcp SRV 10 60 5060 Sip
*.wild A 192.0.2.77
"#;

const REVERSE: &str = "$ORIGIN 2.0.192.in-addr.arpa.
$TTL 300
@ SOA ns1.example.test. hostmaster.example.test. 1 3600 600 86400 60
@ NS ns1.example.test.
1 PTR WWW.example.test.
";
