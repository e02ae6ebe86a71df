//! Where a check goes: hosts, ports and `http` URLs.
//!
//! Parsed here, strictly, instead of by a browser's rules: those drop tabs and newlines, turn `\` into `/` and read
//! `http://2130706433` as 127.0.0.1. A monitor that quietly checks something else is worse than an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::diagnostic::quoted;
use crate::domain::{Host, Target};
use crate::units::limits::{HOST_MAX, PATH_MAX};

const LABEL_MAX: usize = 63;
const HTTP_PORT: u16 = 80;

/// A target, and whether a `#fragment` was left out of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) target: Target,
    pub(super) has_fragment: bool,
}

/// `http://host[:port][/path][?query]`.
///
/// # Errors
/// In words that follow the key.
pub(super) fn url(text: &str) -> Result<Url, String> {
    if let Some(found) = text.chars().find(|&c| c.is_control() || c.is_whitespace()) {
        let remedy = if found == ' ' { "write %20" } else { "remove it" };
        return Err(format!(
            "{} contains {}: {remedy}",
            quoted(text),
            if found == ' ' { "a space" } else { "a control character" }
        ));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!(
            "{} has no scheme: write \"http://{}\"",
            quoted(text),
            text.trim_start_matches('/').chars().take(80).collect::<String>()
        ));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return Err(format!(
                "{} is https: TLS comes with a later version, this one checks http:// only (a tcp check of its port works now)",
                quoted(text)
            ));
        }
        _ => return Err(format!("{} has the unknown scheme {}: write http://", quoted(text), quoted(scheme))),
    }
    let authority_end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(authority_end);
    if authority.contains('@') {
        return Err("contains a user or password: remove it, and send an \"Authorization\" header instead".to_owned());
    }
    let (host_text, port) = split_port(authority)?;
    let host = match host_text.strip_prefix('[') {
        Some(literal) => ipv6(literal.strip_suffix(']').unwrap_or(literal))?,
        None => host(host_text)?,
    };
    let (rest, has_fragment) = match rest.split_once('#') {
        Some((before, _)) => (before, true),
        None => (rest, false),
    };
    let path = path(rest)?;
    Ok(Url { target: Target { host, port: port.unwrap_or(HTTP_PORT), path: path.into() }, has_fragment })
}

/// `host[:port]`, where the host may be an IPv6 literal in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.rfind(']') {
        Some(end) if authority.starts_with('[') => {
            (&authority[..=end], authority[end + 1..].strip_prefix(':').or((end + 1 < authority.len()).then_some("?")))
        }
        _ => match authority.split_once(':') {
            Some((_, after)) if after.contains(':') => {
                return Err(format!(
                    "has the IPv6 address {} without brackets: write \"http://[{authority}]/\"",
                    quoted(authority)
                ));
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, Some(port))),
            _ => Err(format!("has the port {}: write a number from 1 to 65535", quoted(digits))),
        },
    }
}

fn ipv6(literal: &str) -> Result<Host, String> {
    if literal.contains('%') {
        return Err(format!(
            "has the scoped address {}: scopes (%) are not supported, use a global address",
            quoted(literal)
        ));
    }
    literal
        .parse::<Ipv6Addr>()
        .map(|address| Host::Literal(IpAddr::V6(address)))
        .map_err(|_| format!("has {} between brackets, which is no IPv6 address", quoted(literal)))
}

/// An address, or a name for the resolver.
///
/// # Errors
/// In words that follow the key.
pub(super) fn host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Err("has no host: write a name or an address".to_owned());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Literal(address));
    }
    if text.contains(':') || text.starts_with('[') {
        if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return ipv6(literal);
        }
        return Err(format!(
            "has the host {}, which is no address: a port goes to \"port\", a URL to \"url\"",
            quoted(text)
        ));
    }
    name(text)
}

fn name(text: &str) -> Result<Host, String> {
    let bad = |why: &str| Err(format!("has the host {}, {why}", quoted(text)));
    let bare = text.strip_suffix('.').unwrap_or(text);
    if !bare.is_ascii() {
        return bad("which is not ASCII: write its \"xn--\" form");
    }
    if bare.len() > HOST_MAX {
        return bad(&format!("which is longer than {HOST_MAX} characters"));
    }
    for label in bare.split('.') {
        if label.is_empty() {
            return bad("which has an empty part between its dots");
        }
        if label.len() > LABEL_MAX {
            return bad(&format!("which has a part longer than {LABEL_MAX} characters"));
        }
        if let Some(found) = label.chars().find(|&c| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
            return bad(&format!(
                "in which {} cannot stand: use letters, digits, \"-\" and \".\"",
                quoted(&found.to_string())
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return bad("in which a part begins or ends with \"-\"");
        }
    }
    // The last part of a name is never a number; what looks like one is a slip, or an address in disguise (127.1).
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let is_hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_hex || last.bytes().all(|byte| byte.is_ascii_digit()) {
        if bare.parse::<Ipv4Addr>().is_ok() {
            return bad("an address with a dot behind it: remove the dot");
        }
        return bad("which is no IPv4 address: write four numbers from 0 to 255, without leading zeros");
    }
    Ok(Host::Name(bare.to_ascii_lowercase().into()))
}

/// Path and query as sent. What may not stand in a request line is percent-encoded, as every client does.
fn path(text: &str) -> Result<String, String> {
    let mut path = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        path.push('/');
    }
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' => return Err("contains \"\\\": write \"/\", or %5C for a backslash".to_owned()),
            b'%' if !bytes[at + 1..].get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => {
                return Err(
                    "contains \"%\" without two hexadecimal digits behind it: write %25 for a percent sign".to_owned()
                );
            }
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                path.push('%');
                path.push(char::from(HEX[usize::from(byte >> 4)]));
                path.push(char::from(HEX[usize::from(byte & 15)]));
            }
            _ => path.push(char::from(byte)),
        }
    }
    if path.len() > PATH_MAX {
        return Err(format!("has a path of {} bytes: at most {PATH_MAX}", path.len()));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (String, u16, String) {
        let url = url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let host = match url.target.host {
            Host::Literal(address) => format!("={address}"),
            Host::Name(name) => name.into(),
        };
        (host, url.target.port, url.target.path.into())
    }

    #[test]
    fn urls_come_apart() {
        for (text, host, port, path) in [
            ("http://example.com", "example.com", 80, "/"),
            ("HTTP://Example.COM.:8080/A?b=C", "example.com", 8080, "/A?b=C"),
            ("http://example.com?x=1", "example.com", 80, "/?x=1"),
            ("http://example.com:/", "example.com", 80, "/"),
            ("http://127.0.0.1:9860/demo/flaky?up=15s&down=12s", "=127.0.0.1", 9860, "/demo/flaky?up=15s&down=12s"),
            ("http://[::1]:8080/x", "=::1", 8080, "/x"),
            ("http://[2001:DB8::1]", "=2001:db8::1", 80, "/"),
            ("http://web_1/health#top", "web_1", 80, "/health"),
            ("http://h/q?query=up{job=\"x\"}", "h", 80, "/q?query=up%7Bjob=%22x%22%7D"),
            ("http://h/grün", "h", 80, "/gr%C3%BCn"),
            ("http://h/a%20b", "h", 80, "/a%20b"),
        ] {
            assert_eq!(parts(text), (host.to_owned(), port, path.to_owned()), "{text}");
        }
        assert!(url("http://h/#x").is_ok_and(|url| url.has_fragment));
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, message) in [
            ("example.com/health", "\"example.com/health\" has no scheme: write \"http://example.com/health\""),
            (
                "https://h/",
                "\"https://h/\" is https: TLS comes with a later version, this one checks http:// only (a tcp check of its port works now)",
            ),
            ("ftp://h/", "\"ftp://h/\" has the unknown scheme \"ftp\": write http://"),
            ("http://", "has no host: write a name or an address"),
            ("http:///path", "has no host: write a name or an address"),
            ("http://u:p@h/", "contains a user or password: remove it, and send an \"Authorization\" header instead"),
            ("http://h:0/", "has the port \"0\": write a number from 1 to 65535"),
            ("http://h:65536/", "has the port \"65536\": write a number from 1 to 65535"),
            ("http://h:+80/", "has the port \"+80\": write a number from 1 to 65535"),
            ("http://::1/", "has the IPv6 address \"::1\" without brackets: write \"http://[::1]/\""),
            ("http://[::1]x/", "has the port \"?\": write a number from 1 to 65535"),
            ("http://[::1/", "has the IPv6 address \"[::1\" without brackets: write \"http://[[::1]/\""),
            (
                "http://[fe80::1%eth0]/",
                "has the scoped address \"fe80::1%eth0\": scopes (%) are not supported, use a global address",
            ),
            (
                "http://256.1.1.1/",
                "has the host \"256.1.1.1\", which is no IPv4 address: write four numbers from 0 to 255, without leading zeros",
            ),
            (
                "http://2130706433/",
                "has the host \"2130706433\", which is no IPv4 address: write four numbers from 0 to 255, without leading zeros",
            ),
            (
                "http://0x7f.1/",
                "has the host \"0x7f.1\", which is no IPv4 address: write four numbers from 0 to 255, without leading zeros",
            ),
            ("http://a..b/", "has the host \"a..b\", which has an empty part between its dots"),
            ("http://-a/", "has the host \"-a\", in which a part begins or ends with \"-\""),
            (
                "http://a%2fb/",
                "has the host \"a%2fb\", in which \"%\" cannot stand: use letters, digits, \"-\" and \".\"",
            ),
            ("http://bücher.de/", "has the host \"bücher.de\", which is not ASCII: write its \"xn--\" form"),
            ("http://h\\x", "contains \"\\\": write \"/\", or %5C for a backslash"),
            ("http://h/100%", "contains \"%\" without two hexadecimal digits behind it: write %25 for a percent sign"),
            ("http://h/a b", "\"http://h/a b\" contains a space: write %20"),
            ("http://h/a\tb", "\"http://h/a\\tb\" contains a control character: remove it"),
        ] {
            assert_eq!(url(text), Err(message.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_accepted_can_be_sent(text in "(http://)?[\\PC\\s]{0,40}") {
            if let Ok(url) = url(&text) {
                prop_assert!(url.target.path.starts_with('/'));
                prop_assert!(url.target.path.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            let _ = host(&text);
        }
    }
}
