//! The rules of an http check's `config`.

use super::diagnostic::{Severity, quoted};
use super::monitor::retries;
use super::node::{Findings, Kind, Node};
use super::section::{Keys, Section};
use super::{address, value};
use crate::domain::{Check, HttpCheck, StatusSet, Target};
use crate::units::limits::REQUEST_MAX;

pub(super) const KEYS: Keys<'static> = Keys {
    known: &["url", "method", "headers", "body", "expected_status", "retries", "keep_alive"],
    without_effect: &[],
    refused: &["contains", "tls", "max_latency", "follow_redirects"],
};

const METHODS: [&str; 12] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "PURGE", "QUERY"];

/// The probe frames messages and ends connections itself; a second opinion would be a broken request.
const OWNED: [&str; 7] = ["connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// A field name longer than this is refused by most servers.
const HEADER_NAME_MAX: usize = 256;

/// Request line and the header lines that the probe adds.
const REQUEST_OVERHEAD: usize = 512;

const STATUS_MIN: u16 = 100;
const STATUS_MAX: u16 = 599;

pub(super) fn http(config: &Section<'_>, findings: &mut Findings) -> Option<(Check, Target, u8)> {
    config.check_keys(findings, KEYS);
    let url = config.required(findings, &["url"], "add \"url: http://...\" to config", |node| {
        value::text(node).and_then(address::url)
    });
    if url.as_ref().is_some_and(|url| url.has_fragment)
        && let Some(field) = config.find(findings, &["url"])
    {
        let message = "url has a fragment (#), which is never sent: it is dropped".to_owned();
        findings.0.push(field.finding(Severity::Warning, field.value.at, message));
    }
    let method = config.value(findings, &["method"], method).unwrap_or("GET");
    let headers = headers(config, findings);
    let body = config.value(findings, &["body"], |node| value::text(node).map(str::to_owned)).unwrap_or_default();
    let expected = expected_status(config, findings);
    let keep_alive = config.value(findings, &["keep_alive"], value::boolean).unwrap_or(false);
    let retries = retries(config, findings);
    let target = url?.target;
    let size = target.path.len()
        + body.len()
        + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
        + REQUEST_OVERHEAD;
    if size > REQUEST_MAX {
        findings.error(
            config.at,
            format!("the request is {size} bytes long: at most {REQUEST_MAX}, shorten body or headers"),
        );
    }
    let check = HttpCheck {
        method: method.into(),
        headers: headers.into(),
        body: body.into_bytes().into(),
        expected,
        keep_alive,
        ..HttpCheck::default()
    };
    Some((Check::Http(check), target, retries))
}

fn method(node: &Node) -> Result<&'static str, String> {
    let written = value::text(node)?;
    if written.eq_ignore_ascii_case("CONNECT") {
        return Err("\"CONNECT\" asks for a tunnel, which is no check: write GET".to_owned());
    }
    let known = METHODS.iter().find(|known| known.eq_ignore_ascii_case(written));
    known.copied().ok_or_else(|| value::unknown(written, METHODS.iter().copied()))
}

fn headers(config: &Section<'_>, findings: &mut Findings) -> Vec<(Box<str>, Box<str>)> {
    let mut headers: Vec<(Box<str>, Box<str>)> = Vec::new();
    let Some(section) = config.section(findings, &["headers"]) else { return headers };
    for field in section.fields() {
        let same = headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(field.key));
        if same && field.inherited {
            continue;
        }
        let mut refuse = |at, message: String| findings.0.push(field.finding(Severity::Error, at, message));
        if let Some(message) = name_fault(field.key) {
            refuse(field.at, message);
        } else if same {
            refuse(field.at, format!("the header {} is there twice: remove one of them", quoted(field.key)));
        } else {
            match header_value(field.value) {
                Ok(text) => headers.push((field.key.into(), text.into())),
                Err(message) => refuse(field.value.at, format!("the header {} {message}", quoted(field.key))),
            }
        }
    }
    headers
}

/// RFC 9110, 5.6.2: a field name is a token.
fn name_fault(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > HEADER_NAME_MAX || !name.bytes().all(is_token) {
        return Some(format!("{} is no header name: use letters, digits and \"-\"", quoted(name)));
    }
    let owned = OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name));
    owned.then(|| format!("the header {} is set by the check itself: remove it", quoted(name)))
}

fn header_value(node: &Node) -> Result<&str, String> {
    if matches!(node.kind, Kind::Scalar { .. }) && node.is_null() {
        return Err("has no value: write \"\" for an empty one".to_owned());
    }
    let text = value::text(node)?.trim_matches([' ', '\t']);
    match text.chars().find(|&c| c.is_control() && c != '\t') {
        Some('\r' | '\n') => Err("contains a line break: write it on one line".to_owned()),
        Some(found) => Err(format!("contains the control character U+{:04X}: remove it", u32::from(found))),
        None => Ok(text),
    }
}

fn expected_status(config: &Section<'_>, findings: &mut Findings) -> StatusSet {
    let Some(field) = config.find(findings, &["expected_status"]) else { return StatusSet::success() };
    if matches!(field.value.kind, Kind::Broken) {
        return StatusSet::success();
    }
    let mut refuse =
        |at, message: String| findings.0.push(field.finding(Severity::Error, at, format!("expected_status {message}")));
    let mut ranges = Vec::new();
    match value::items(field.value) {
        Ok(items) => {
            for item in &items {
                match status_range(item) {
                    Ok(range) => ranges.push(range),
                    Err(message) => refuse(item.at, message),
                }
            }
            if items.is_empty() {
                refuse(field.value.at, "is an empty list: write a status, or remove the key".to_owned());
            }
        }
        Err(message) => refuse(field.value.at, message),
    }
    if ranges.is_empty() { StatusSet::success() } else { StatusSet::new(ranges) }
}

/// `200` or `200-299`.
fn status_range(node: &Node) -> Result<(u16, u16), String> {
    let text = value::text(node)?;
    let wrong = || format!("{} is no status: write a number like 200, or a range like \"200-299\"", quoted(text));
    let status = |digits: &str| {
        let digits = digits.trim();
        let number =
            (digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse::<u16>().ok());
        number.flatten().ok_or_else(wrong)
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (status(low)?, status(high)?),
        None => (status(text)?, status(text)?),
    };
    if low < STATUS_MIN || high > STATUS_MAX {
        return Err(format!("{text} is out of range: {STATUS_MIN} to {STATUS_MAX}"));
    }
    if low > high {
        return Err(format!("{} runs downwards: write \"{high}-{low}\"", quoted(text)));
    }
    Ok((low, high))
}
