//! The request as it goes out.

use std::io::Write;
use std::net::IpAddr;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
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
    /// Over TLS: decides which port goes without saying.
    pub secure: bool,
    /// Path and query: the origin-form of RFC 9112 §3.2.1.
    pub path: &'a str,
    pub form: Form<'a>,
    /// In the place of the `Host` that follows from host and port.
    pub host_field: Option<&'a str>,
    /// Sent in order, but for those that `carry` leaves out. `User-Agent`, `Accept` and `Accept-Encoding` replace the
    /// ones that would be sent otherwise. `Host` is not sent from here (see `host_field`), nor `Authorization` where
    /// there is one below.
    pub headers: &'a [(Box<str>, Box<str>)],
    pub carry: Carry,
    /// The value of `Authorization`.
    pub authorization: Option<&'a str>,
    /// Whether an answer may come compressed with gzip.
    pub gzip: bool,
    pub body: &'a [u8],
    /// Whether the connection should outlive the answer.
    pub keep_alive: bool,
}

/// Whom the start line speaks to.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// The server itself.
    Origin,
    /// A proxy: the start line has the whole address (RFC 9112 §3.2.2). With the value of `Proxy-Authorization`.
    Absolute { authorization: Option<&'a str> },
}

/// Which of the configured fields go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// Another origin hears nothing that it has no business with: only what every browser tells everyone.
    pub foreign: bool,
    /// The content was dropped, and so are the fields that describe it.
    pub bodiless: bool,
}

/// Fields that say nothing about who asks.
const HARMLESS: [&str; 6] = ["accept", "accept-encoding", "accept-language", "cache-control", "pragma", "user-agent"];

impl Carry {
    pub fn takes(self, name: &str) -> bool {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        let of_content = || {
            const PREFIX: &str = "content-";
            let described = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
            described || is("digest") || is("last-modified")
        };
        !(self.foreign && !HARMLESS.into_iter().any(is) || self.bodiless && of_content())
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    Name(&'a str),
    Literal(IpAddr),
}

impl Request<'_> {
    /// Appends the request to `out`, which is the only thing that may allocate.
    pub fn render(&self, out: &mut Vec<u8>) {
        put(out, &[self.method, " "]);
        if let Form::Absolute { .. } = self.form {
            put(out, &[if self.secure { "https://" } else { "http://" }]);
            self.put_authority(out);
        }
        put(out, &[self.path, " HTTP/1.1\r\nHost: "]);
        // Host comes first, where RFC 9110 §7.2 wants it.
        match self.host_field {
            Some(value) => put(out, &[value]),
            None => self.put_authority(out),
        }
        put(out, &["\r\n"]);
        if !self.is_configured("User-Agent") {
            put(out, &["User-Agent: ", USER_AGENT, "\r\n"]);
        }
        if !self.is_configured("Accept") {
            put(out, &["Accept: */*\r\n"]);
        }
        if self.gzip && !self.is_configured("Accept-Encoding") {
            put(out, &["Accept-Encoding: gzip\r\n"]);
        }
        if let Some(value) = self.authorization {
            put(out, &["Authorization: ", value, "\r\n"]);
        }
        if let Form::Absolute { authorization: Some(value) } = self.form {
            put(out, &["Proxy-Authorization: ", value, "\r\n"]);
        }
        for (name, value) in self.carried() {
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

    fn carried(&self) -> impl Iterator<Item = &(Box<str>, Box<str>)> {
        self.headers.iter().filter(|(name, _)| {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let replaced = is("Host")
                || self.authorization.is_some() && is("Authorization")
                || matches!(self.form, Form::Absolute { authorization: Some(_) }) && is("Proxy-Authorization");
            !replaced && self.carry.takes(name)
        })
    }

    fn is_configured(&self, wanted: &str) -> bool {
        self.carried().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    }

    /// Host and port, as `Host` and the absolute form have them.
    fn put_authority(&self, out: &mut Vec<u8>) {
        match self.host {
            Host::Name(name) => put(out, &[name]),
            Host::Literal(IpAddr::V4(address)) => put_display(out, format_args!("{address}")),
            Host::Literal(IpAddr::V6(address)) => put_display(out, format_args!("[{address}]")),
        }
        if self.port != if self.secure { HTTPS_PORT } else { HTTP_PORT } {
            put_number(out, ":", u64::from(self.port));
        }
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
