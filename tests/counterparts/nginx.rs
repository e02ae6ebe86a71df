//! nginx, with one location for every kind of answer.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, listen_addresses, program};

/// | path | answer |
/// | --- | --- |
/// | `/ok` | 200, `fine` |
/// | `/status/404`, `/status/500`, `/status/503` | that status, with words in the body |
/// | `/redirect` | 301 to `/ok` |
/// | `/chunked` | 200, chunked |
/// | `/unframed` | 200, ended by closing |
/// | `/empty` | 204 |
/// | `/large` | 200, 2 MB |
/// | `/keepalive` | 200, on a connection that serves two requests and idles for one second |
/// | `/slow` | 200, 8 kB at 1 kB/s |
/// | `/post` | 200 for POST only, else 405 |
#[derive(Debug)]
pub struct Nginx {
    // Dropped in this order: the process goes before its directory.
    _process: ServerProcess,
    _directory: TempDir,
    port: u16,
}

pub const LARGE: usize = 2 * 1024 * 1024;

impl Nginx {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let program = program("nginx")?;
        Some(with_free_ports("nginx", || {
            let directory = TempDir::with_prefix("cpra-nginx-").expect("a temporary directory");
            let root = directory.path();
            let port = free_port();
            let listens = listen_addresses(port);
            let configuration = root.join("nginx.conf");
            let log = root.join("output.log");
            fs::write(&configuration, configuration_text(&listens)).expect("the configuration is written");
            fs::write(root.join("chunked"), "<!--# set var=\"x\" value=\"y\" -->in chunks\n").expect("a file");
            fs::write(root.join("large"), vec![b'x'; LARGE]).expect("a file");
            fs::write(root.join("slow"), vec![b'x'; 8 * 1024]).expect("a file");
            let root = root.to_str().expect("a plain path");
            let arguments = ["-p", root, "-c", configuration.to_str().expect("a plain path"), "-e", "error.log"];
            match ServerProcess::start(&program, &arguments, &listens, &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, port }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()
                    + &fs::read_to_string(directory.path().join("error.log")).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self, loopback: IpAddr) -> SocketAddr {
        SocketAddr::new(loopback, self.port)
    }
}

/// Paths are relative to the prefix, which is the server's own directory. One process, no master: a kill ends it all.
fn configuration_text(listens: &[SocketAddr]) -> String {
    let mut listen = String::new();
    for address in listens {
        writeln!(listen, "        listen {address};").expect("a string takes every line");
    }
    format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path tmp-body;
    proxy_temp_path tmp-proxy;
    fastcgi_temp_path tmp-fastcgi;
    uwsgi_temp_path tmp-uwsgi;
    scgi_temp_path tmp-scgi;
    default_type text/html;
    server {{
{listen}        root .;
        location = /ok {{ return 200 "fine\n"; }}
        location = /status/404 {{ return 404 "nothing here\n"; }}
        location = /status/500 {{ return 500 "broken\n"; }}
        location = /status/503 {{ return 503; }}
        location = /redirect {{ return 301 /ok; }}
        location = /empty {{ return 204; }}
        location = /chunked {{ ssi on; }}
        location = /unframed {{ ssi on; chunked_transfer_encoding off; try_files /chunked =404; }}
        location = /large {{ }}
        location = /slow {{ limit_rate 1k; }}
        location = /keepalive {{ keepalive_timeout 1s; keepalive_requests 2; return 200 "kept\n"; }}
        location = /post {{ if ($request_method != POST) {{ return 405; }} return 200 "taken\n"; }}
    }}
}}
"#
    )
}
