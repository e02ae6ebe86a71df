//! Where a check goes: hosts, ports and `http` URLs.
//!
//! Parsed here, strictly, instead of by a browser's rules: those drop tabs and newlines, turn `\` into `/` and read
//! `http://2130706433` as 127.0.0.1. A monitor that quietly checks something else is worse than an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::diagnostic::quoted;
use super::secret::without_user;
use crate::domain::{Host, Target};
use crate::units::limits::{HOST_MAX, PATH_MAX};

const LABEL_MAX: usize = 63;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A target, and whether a `#fragment` was left out of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) target: Target,
    pub(super) is_https: bool,
    pub(super) has_fragment: bool,
}

/// `http[s]://host[:port][/path][?query]`.
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
        let text = without_user(text);
        return Err(format!(
            "{} has no scheme: write \"http://{}\"",
            quoted(&text),
            text.trim_start_matches('/').chars().take(80).collect::<String>()
        ));
    };
    let is_https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => {
            return Err(format!(
                "{} has the unknown scheme {}: write http:// or https://",
                quoted(text),
                quoted(scheme)
            ));
        }
    };
    let authority_end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(authority_end);
    if authority.contains('@') {
        return Err("contains a user or password: move it to basic_auth: {username: ..., password: ...}".to_owned());
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
    let port = port.unwrap_or(if is_https { HTTPS_PORT } else { HTTP_PORT });
    Ok(Url { target: Target { host, port, path: path.into() }, is_https, has_fragment })
}

/// `host`, `host:port`, `[IPv6]:port`, or an address alone.
///
/// # Errors
/// In words that follow the key.
pub(super) fn host_port(text: &str) -> Result<(Host, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Host::Literal(address), None));
    }
    if text.contains("//") || text.contains('@') {
        return Err(format!("{} is no host: write it like \"db\" or \"db:5432\"", quoted(text)));
    }
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Err(format!("{} is no address: write an IPv6 one with a port like \"[::1]:53\"", quoted(text)));
    }
    let (host_text, port) = split_port(text)?;
    let host = match host_text.strip_prefix('[') {
        Some(literal) => ipv6(literal.strip_suffix(']').unwrap_or(literal))?,
        None => host(host_text)?,
    };
    Ok((host, port))
}

/// Where a proxy is, and `user:password` as written.
pub(super) struct ProxyAddress {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) user: Option<String>,
}

/// `http://[user:password@]host:port`. No message holds the user or the password.
///
/// # Errors
/// In words that follow the key.
pub(super) fn proxy(text: &str) -> Result<ProxyAddress, String> {
    const REMEDY: &str = "write it like \"http://proxy.example.com:3128\"";
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(format!("has the scheme {}: a proxy is spoken to in plain http, {REMEDY}", quoted(scheme)));
        }
        None => return Err(format!("has no scheme: {REMEDY}")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, authority) = match rest.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, rest),
    };
    if authority.contains(['/', '?', '#']) {
        return Err(format!("has a path, and a proxy has none: {REMEDY}"));
    }
    let (host, port) = host_port(authority)?;
    let port = port.ok_or_else(|| format!("has no port: {REMEDY}"))?;
    let user = match user {
        None => None,
        Some(user) if user.contains('%') || user.contains(':') => {
            let decoded = percent_encoding::percent_decode_str(user).decode_utf8();
            let decoded = decoded.map_err(|_| "has a user or password that is not UTF-8".to_owned())?;
            if decoded.chars().any(char::is_control) {
                return Err("has a control character in its user or password: remove it".to_owned());
            }
            Some(decoded.into_owned())
        }
        Some(_) => return Err("has a user without a password: write user:password@".to_owned()),
    };
    Ok(ProxyAddress { host, port, user })
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
            ("https://h", "h", 443, "/"),
            ("https://h:8443/x", "h", 8443, "/x"),
        ] {
            assert_eq!(parts(text), (host.to_owned(), port, path.to_owned()), "{text}");
        }
        assert!(url("http://h/#x").is_ok_and(|url| url.has_fragment && !url.is_https));
        assert!(url("HTTPS://h/").is_ok_and(|url| url.is_https));
    }

    #[test]
    fn hosts_with_ports_come_apart() {
        let name = |text: &str| Host::Name(text.into());
        let literal = |text: &str| Host::Literal(text.parse().expect("an address"));
        for (text, expected) in [
            ("db", (name("db"), None)),
            ("DB.:5432", (name("db"), Some(5432))),
            ("10.0.0.1", (literal("10.0.0.1"), None)),
            ("10.0.0.1:53", (literal("10.0.0.1"), Some(53))),
            ("::1", (literal("::1"), None)),
            ("[::1]", (literal("::1"), None)),
            ("[::1]:53", (literal("::1"), Some(53))),
        ] {
            assert_eq!(host_port(text), Ok(expected), "{text}");
        }
        for (text, message) in [
            ("http://db", "\"http://db\" is no host: write it like \"db\" or \"db:5432\""),
            ("a:b:c", "\"a:b:c\" is no address: write an IPv6 one with a port like \"[::1]:53\""),
            ("db:0", "has the port \"0\": write a number from 1 to 65535"),
            ("[x]:1", "has \"x\" between brackets, which is no IPv6 address"),
            ("", "has no host: write a name or an address"),
        ] {
            assert_eq!(host_port(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn proxies_come_apart_and_their_passwords_are_in_no_message() {
        let parts = |text: &str| proxy(text).map(|proxy| (proxy.host, proxy.port, proxy.user));
        let host = Host::Name("p".into());
        assert_eq!(parts("http://p:3128"), Ok((host.clone(), 3128, None)));
        assert_eq!(parts("http://me:a%40b@p:3128/"), Ok((host, 3128, Some("me:a@b".to_owned()))));
        for text in
            ["me:hush@p:1", "https://me:hush@p:1", "http://me:hush@p", "http://me:hush@p:1/x", "http://hush@p:1"]
        {
            let message = parts(text).expect_err(text);
            assert!(!message.contains("hush"), "{message}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, message) in [
            ("example.com/health", "\"example.com/health\" has no scheme: write \"http://example.com/health\""),
            ("ftp://h/", "\"ftp://h/\" has the unknown scheme \"ftp\": write http:// or https://"),
            ("http://", "has no host: write a name or an address"),
            ("http:///path", "has no host: write a name or an address"),
            ("http://u:p@h/", "contains a user or password: move it to basic_auth: {username: ..., password: ...}"),
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
