//! The request as it goes out.

use std::io::Write;
use std::net::IpAddr;

const HTTP_PORT: u16 = 80;
const USER_AGENT: &str = concat!("cpra/", env!("CARGO_PKG_VERSION"));

/// A request without framing surprises: one start line, fields, and a body of known length.
///
/// The parts are written as they are. Whoever reads them from a file refuses line ends and other control characters
/// first.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A token; upper case, because methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    pub host: Host<'a>,
    pub port: u16,
    /// Path and query: the origin-form of RFC 9112 §3.2.1.
    pub path: &'a str,
    /// Sent in order; `Host`, `User-Agent` and `Accept` replace the ones that would be sent otherwise.
    pub headers: &'a [(Box<str>, Box<str>)],
    pub body: &'a [u8],
    /// Whether the connection should outlive the answer.
    pub keep_alive: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    Name(&'a str),
    Literal(IpAddr),
}

impl Request<'_> {
    /// Appends the request to `out`, which is the only thing that may allocate.
    pub fn render(&self, out: &mut Vec<u8>) {
        put(out, &[self.method, " ", self.path, " HTTP/1.1\r\n"]);
        // Host comes first, where RFC 9110 §7.2 wants it.
        match self.configured("Host") {
            Some(value) => put(out, &["Host: ", value, "\r\n"]),
            None => self.put_host(out),
        }
        if self.configured("User-Agent").is_none() {
            put(out, &["User-Agent: ", USER_AGENT, "\r\n"]);
        }
        if self.configured("Accept").is_none() {
            put(out, &["Accept: */*\r\n"]);
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Host")) {
            put(out, &[name, ": ", value, "\r\n"]);
        }
        put(out, &["Connection: ", if self.keep_alive { "keep-alive" } else { "close" }, "\r\n"]);
        // A method that expects content says that there is none (RFC 9110 §8.6): some servers answer 411 otherwise.
        if !self.body.is_empty() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            put_number(out, "Content-Length: ", self.body.len() as u64);
            put(out, &["\r\n"]);
        }
        put(out, &["\r\n"]);
        out.extend_from_slice(self.body);
    }

    fn configured(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| &**value)
    }

    fn put_host(&self, out: &mut Vec<u8>) {
        match self.host {
            Host::Name(name) => put(out, &["Host: ", name]),
            Host::Literal(IpAddr::V4(address)) => put_display(out, format_args!("Host: {address}")),
            Host::Literal(IpAddr::V6(address)) => put_display(out, format_args!("Host: [{address}]")),
        }
        if self.port != HTTP_PORT {
            put_number(out, ":", u64::from(self.port));
        }
        put(out, &["\r\n"]);
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, before: &str, number: u64) {
    put_display(out, format_args!("{before}{number}"));
}

fn put_display(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}
