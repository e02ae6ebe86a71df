//! A web site on nginx, as monitors meet it: an API with documents, packed pages, redirects, a login, and a second
//! origin beside it.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use super::process::{ServerProcess, with_free_ports};
use super::{free_port, listen_addresses, program};

#[derive(Debug)]
pub struct Site {
    _process: ServerProcess,
    _directory: TempDir,
    port: u16,
    other: u16,
}

impl Site {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let program = program("nginx")?;
        Some(with_free_ports("nginx", || {
            let directory = TempDir::with_prefix("cpra-site-").expect("a temporary directory");
            let (port, other) = (free_port(), free_port());
            let listens: Vec<SocketAddr> = [port, other].into_iter().flat_map(listen_addresses).collect();
            let page =
                |name: &str, text: String| fs::write(directory.path().join(name), text).expect("a page is written");
            page("page.html", format!("<p>all is fine</p>\n{}", "<!-- filling -->\n".repeat(2_000)));
            page("huge.html", format!("<p>all is fine</p>\n{}", " ".repeat(3 * 1024 * 1024)));
            page("people", "probe:{PLAIN}pass-phrase\n".into());
            let configuration = directory.path().join("nginx.conf");
            fs::write(&configuration, configuration_text(port, other)).expect("the configuration is written");
            let log = directory.path().join("output.log");
            let prefix = directory.path().to_str().expect("a plain path");
            let arguments = ["-p", prefix, "-c", configuration.to_str().expect("a plain path"), "-e", "error.log"];
            match ServerProcess::start(&program, &arguments, &listens, &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, port, other }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()
                    + &fs::read_to_string(directory.path().join("error.log")).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self) -> SocketAddr {
        self.on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    pub fn on(&self, loopback: IpAddr) -> SocketAddr {
        SocketAddr::new(loopback, self.port)
    }

    /// The second origin, which says what it was sent.
    pub fn other(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.other)
    }
}

fn configuration_text(port: u16, other: u16) -> String {
    let listen = |port| {
        let mut lines = String::new();
        for address in listen_addresses(port) {
            writeln!(lines, "        listen {address};").expect("a string takes every line");
        }
        lines
    };
    let echo = r#"return 200 "$request_method $uri as $host: authorization=$http_authorization cookie=$http_cookie key=$http_x_api_key length=$http_content_length via=$http_via\n";"#;
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
    default_type text/plain;
    absolute_redirect off;
    server {{
{here}        root .;
        location = /health {{ default_type application/json; add_header X-Version 7; return 200 '{{"status":"degraded","queue":{{"depth":120}},"nodes":[{{"up":true}}]}}'; }}
        location = /packed {{ default_type text/html; gzip on; gzip_types *; gzip_min_length 0; try_files /page.html =404; }}
        location = /page.html {{ default_type text/html; gzip on; gzip_min_length 0; }}
        location = /huge.html {{ default_type text/html; gzip on; gzip_min_length 0; }}
        location = /login {{ auth_basic "people"; auth_basic_user_file people; try_files /page.html =404; }}
        location = /echo {{ {echo} }}
        location = /moved {{ return 301 /echo; }}
        location = /see {{ return 303 /echo; }}
        location = /again {{ return 307 /echo; }}
        location = /relative {{ return 302 "echo?from=relative"; }}
        location = /one {{ return 302 /two; }}
        location = /two {{ return 302 /three; }}
        location = /three {{ return 308 /echo; }}
        location = /circle {{ return 302 /circle/2; }}
        location = /circle/2 {{ return 302 /circle; }}
        location = /away {{ return 302 http://127.0.0.1:{other}/echo; }}
        location = /named {{ return 302 http://other.example:{other}/echo; }}
        location = /six {{ return 302 http://[::1]:{port}/echo; }}
        location = /metadata {{ return 302 http://169.254.169.254/latest/meta-data/; }}
        location = /rebound {{ return 302 http://rebound.example:{other}/echo; }}
        location = /gone {{ return 302 http://127.0.0.1:1/; }}
        location = /lost {{ return 302 /no-such-page; }}
        location = /file {{ return 302 file:///etc/passwd; }}
    }}
    server {{
{there}        location = /echo {{ {echo} }}
        location = /back {{ return 302 http://127.0.0.1:{port}/echo; }}
    }}
}}
"#,
        here = listen(port),
        there = listen(other),
    )
}
