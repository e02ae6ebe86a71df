//! The rules of an http check's `config`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{Sound, retries};
use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Kind, Node};
use super::scope::Scope;
use super::section::{Field, Keys, Section, Switch};
use super::{address, assertions, tls, value};
use crate::domain::monitor::{Proxy, Secret, TlsPolicy};
use crate::domain::{Check, HttpCheck, StatusSet};
use crate::units::limits::{REDIRECTS_MAX, REQUEST_MAX, RESPONSE_BODY_MAX};

pub(super) const KEYS: Keys<'static> = Keys {
    known: &[
        "url",
        "method",
        "headers",
        "body",
        "expected_status",
        "retries",
        "keep_alive",
        "tls",
        "follow_redirects",
        "contains",
        "not_contains",
        "regex",
        "not_regex",
        "json",
        "expected_headers",
        "body_max",
        "basic_auth",
        "bearer_token",
        "bearer_token_file",
        "host",
        "proxy",
        "max_latency",
    ],
    without_effect: &[],
    refused: &[],
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

const BASIC_KEYS: Keys<'static> =
    Keys { known: &["username", "password", "password_file"], without_effect: &[], refused: &[] };

/// The keys that say who asks; each of them alone is enough.
const CREDENTIALS: [&str; 3] = ["basic_auth", "bearer_token", "bearer_token_file"];

/// The most characters of a password or token.
const CREDENTIAL_MAX: usize = 4096;

/// `is_https`: the type says so. `has_shared_defaults`: the defaults behind `config` are those of every type.
pub(super) fn http(
    config: &Section<'_>,
    is_https: bool,
    has_shared_defaults: bool,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Sound> {
    config.check_keys(findings, KEYS);
    let url = config.required(findings, &["url"], "add \"url: https://...\" to config", |node| {
        let url = value::text(node).and_then(address::url)?;
        if is_https && !url.is_https {
            return Err("begins with http://, and type is https: write https://, or \"type: http\"".to_owned());
        }
        Ok(url)
    });
    if url.as_ref().is_some_and(|url| url.has_fragment)
        && let Some(field) = config.find(&mut Findings::default(), &["url"])
    {
        let message = "url has a fragment (#), which is never sent: it is dropped".to_owned();
        findings.0.push(field.finding(Severity::Warning, field.value.at, message));
    }
    let tls = layer(config, url.as_ref().map(|url| url.is_https), scope, findings);
    let method = config.value(findings, &["method"], method).unwrap_or("GET");
    let (mut headers, authorization) = headers(config, findings);
    let authorization = credentials(config, authorization, scope, findings);
    host(config, has_shared_defaults, &mut headers, findings);
    let body = config.value(findings, &["body"], |node| value::text(node).map(str::to_owned)).unwrap_or_default();
    let expected = expected_status(config, findings);
    let keep_alive = config.value(findings, &["keep_alive"], value::boolean).unwrap_or(false);
    let redirects = config.value(findings, &["follow_redirects"], redirects).unwrap_or(0);
    let assertions = assertions::assertions(config, scope, findings);
    let body_max = config.value(findings, &["body_max"], size).unwrap_or(RESPONSE_BODY_MAX as u32);
    let proxy = config.value(findings, &["proxy"], proxy);
    let check = HttpCheck {
        method: method.into(),
        headers: headers.into(),
        authorization,
        body: body.into_bytes().into(),
        expected,
        keep_alive,
        tls,
        redirects,
        assertions: assertions.into(),
        body_max,
        proxy,
    };
    if method == "HEAD" && check.wants_body() {
        let field = assertions::OF_BODY.iter().find_map(|key| config.find(&mut Findings::default(), &[key]));
        if let Some(field) = field {
            let message = format!("{} is about the body, and an answer to HEAD has none: write GET", field.key);
            findings.0.push(field.finding(Severity::Error, field.at, message));
        }
    }
    let retries = retries(config, findings);
    let target = url?.target;
    let size = target.path.len()
        + check.body.len()
        + check.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
        + check.authorization.as_ref().map_or(0, |secret| secret.expose().len())
        + REQUEST_OVERHEAD;
    if size > REQUEST_MAX {
        findings.error(
            config.at,
            format!("the request is {size} bytes long: at most {REQUEST_MAX}, shorten body or headers"),
        );
    }
    Some(Sound { check: Check::Http(check), target, retries })
}

/// TLS, where the address asks for it. `is_https` is `None` when the address is faulty: the keys are judged all the same.
fn layer(
    config: &Section<'_>,
    is_https: Option<bool>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<TlsPolicy> {
    let refuse = |field: Field<'_>, message: &str, findings: &mut Findings| {
        // What `defaults` says about TLS concerns those that use it.
        if !field.inherited {
            findings.0.push(field.finding(Severity::Error, field.at, message.to_owned()));
        }
    };
    match config.switch(findings, &["tls"]) {
        Switch::Absent => (is_https == Some(true)).then(TlsPolicy::default),
        Switch::Off(field) => {
            if is_https == Some(true) {
                refuse(field, "tls is off, and url begins with https://: write http://", findings);
            }
            (is_https == Some(true)).then(TlsPolicy::default)
        }
        Switch::On(field, _) if is_https == Some(false) => {
            refuse(field, "tls goes with an https address: write https:// in url, or remove tls", findings);
            None
        }
        Switch::On(_, section) => {
            let policy = tls::policy(&section, scope, findings);
            (is_https == Some(true)).then_some(policy)
        }
    }
}

fn method(node: &Node) -> Result<&'static str, String> {
    let written = value::text(node)?;
    if written.eq_ignore_ascii_case("CONNECT") {
        return Err("\"CONNECT\" asks for a tunnel, which is no check: write GET".to_owned());
    }
    let known = METHODS.iter().find(|known| known.eq_ignore_ascii_case(written));
    known.copied().ok_or_else(|| value::unknown(written, METHODS.iter().copied()))
}

/// `true` for as many as there may be.
fn redirects(node: &Node) -> Result<u8, String> {
    if let Ok(follows) = value::boolean(node) {
        return Ok(if follows { REDIRECTS_MAX } else { 0 });
    }
    let count = value::integer(0..=u64::from(REDIRECTS_MAX))(node)
        .map_err(|message| message.replace("write one from", "write true, false or one from"))?;
    Ok(u8::try_from(count).unwrap_or(REDIRECTS_MAX))
}

/// Bytes: `65536`, `64KiB`, `1MiB`.
fn size(node: &Node) -> Result<u32, String> {
    let written = value::text(node)?;
    let lower = written.to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let scale = match unit.trim() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1024),
        "m" | "mb" | "mib" => Some(1024 * 1024),
        _ => None,
    };
    let bytes = scale.and_then(|scale: u64| digits.parse::<u64>().ok()?.checked_mul(scale));
    match bytes {
        Some(bytes) if (1..=RESPONSE_BODY_MAX).contains(&bytes) => Ok(bytes as u32),
        Some(_) => Err(format!("{written} is out of range: 1 to {RESPONSE_BODY_MAX} bytes")),
        None => Err(format!("{} is no size: write bytes like 65536, or 64KiB", quoted(written))),
    }
}

fn proxy(node: &Node) -> Result<Proxy, String> {
    let address = address::proxy(value::text(node)?)?;
    let authorization = address.user.map(|user| Secret::new(format!("Basic {}", STANDARD.encode(user))));
    Ok(Proxy { host: address.host, port: address.port, authorization })
}

/// `host`: what the request says instead of the address's host.
///
/// In `defaults.pulse.config` it is whom a tcp or icmp check of every monitor goes to, and not meant here.
fn host(
    config: &Section<'_>,
    has_shared_defaults: bool,
    headers: &mut Vec<(Box<str>, Box<str>)>,
    findings: &mut Findings,
) {
    let Some(field) = config.find(findings, &["host"]) else { return };
    if field.inherited && has_shared_defaults {
        return;
    }
    let host = config.value(findings, &["host"], |node| {
        let text = value::text(node)?;
        address::host_port(text).map_err(|message| message.replacen("has the host ", "", 1))?;
        Ok(Box::<str>::from(text))
    });
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let message = "host and the header \"Host\" say the same thing: remove one of them".to_owned();
        findings.0.push(field.finding(Severity::Error, field.at, message));
    } else if let Some(host) = host {
        headers.push(("Host".into(), host));
    }
}

/// The value of `Authorization`: from its header, or from one of the keys that make it.
fn credentials(
    config: &Section<'_>,
    header: Option<Secret>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Secret> {
    let mut quiet = Findings::default();
    let given: Vec<Field<'_>> = CREDENTIALS.iter().filter_map(|key| config.find(&mut quiet, &[key])).collect();
    // The monitor's own way replaces the one of `defaults`.
    let own = given.iter().filter(|field| !field.inherited).count();
    let chosen: Vec<&Field<'_>> =
        given.iter().filter(|field| !field.inherited || (own == 0 && header.is_none())).collect();
    if let [_, second, ..] = chosen.as_slice() {
        let first = chosen[0].key;
        let message = format!("{first} and {} are two ways to say who asks: remove one of them", second.key);
        findings.0.push(second.finding(Severity::Error, second.at, message));
    }
    let Some(field) = chosen.first() else { return header };
    if header.is_some() {
        let message = format!("{} and the header \"Authorization\" say the same thing: remove one of them", field.key);
        findings.0.push(field.finding(Severity::Error, field.at, message));
    }
    match field.key {
        "basic_auth" => {
            let section = config.section(findings, &["basic_auth"])?;
            section.check_all_keys(findings, BASIC_KEYS);
            let username = section.required(findings, &["username"], "add \"username: ...\" to basic_auth", |node| {
                let name = credential(node)?;
                if name.contains(':') {
                    return Err("holds a colon, which ends it: remove it".to_owned());
                }
                Ok(name.to_owned())
            });
            let password = password(&section, scope, findings);
            let (username, password) = (username?, password?);
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            Some(Secret::new(format!("Basic {pair}")))
        }
        key @ "bearer_token_file" => {
            let token = config.value(findings, &[key], |node| scope.secrets.read(value::text(node)?, scope.folders))?;
            Some(Secret::new(format!("Bearer {}", token.expose())))
        }
        key => {
            let token = config.value(findings, &[key], |node| credential(node).map(str::to_owned))?;
            Some(Secret::new(format!("Bearer {token}")))
        }
    }
}

fn password(section: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings) -> Option<Secret> {
    let field = section.find(findings, &["password", "password_file"]);
    match field.map(|field| field.key) {
        None => {
            section.missing(findings, "password", "add \"password_file: ...\", or \"password: ...\", to basic_auth");
            None
        }
        Some("password") => section.value(findings, &["password"], |node| credential(node).map(Secret::new)),
        Some(_) => {
            section.value(findings, &["password_file"], |node| scope.secrets.read(value::text(node)?, scope.folders))
        }
    }
}

/// A text of a secret. What is wrong is said without it.
fn credential(node: &Node) -> Result<&str, String> {
    let text = value::text(node)?;
    if text.is_empty() || text.len() > CREDENTIAL_MAX {
        return Err(format!("is {} bytes long: 1 to {CREDENTIAL_MAX}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character or a line break: remove it".to_owned());
    }
    Ok(text)
}

type Headers = Vec<(Box<str>, Box<str>)>;

/// The headers as sent, and apart from them the one that says who asks.
fn headers(config: &Section<'_>, findings: &mut Findings) -> (Headers, Option<Secret>) {
    let mut headers: Headers = Vec::new();
    let Some(section) = config.section(findings, &["headers"]) else { return (headers, None) };
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
    let secret = headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let secret = secret.map(|at| Secret::new(headers.remove(at).1));
    (headers, secret)
}

/// RFC 9110, 5.6.2: a field name is a token.
pub(super) fn token_fault(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_fine = !name.is_empty() && name.len() <= HEADER_NAME_MAX && name.bytes().all(is_token);
    (!is_fine).then(|| format!("{} is no header name: use letters, digits and \"-\"", quoted(name)))
}

fn name_fault(name: &str) -> Option<String> {
    token_fault(name).or_else(|| {
        let owned = OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name));
        owned.then(|| format!("the header {} is set by the check itself: remove it", quoted(name)))
    })
}

pub(super) fn header_value(node: &Node) -> Result<&str, String> {
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
