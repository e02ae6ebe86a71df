//! Single values of destinations: addresses, numbers, rates. What could be a secret is in no message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::address;
use super::super::diagnostic::quoted;
use super::super::node::Node;
use super::super::value;
use crate::domain::Host;
use crate::units::Span;

/// An http(s) address as written.
pub(in super::super) struct WebAddress<'a> {
    pub(in super::super) text: &'a str,
    /// Who is on the way may read what is sent.
    pub(in super::super) is_open: bool,
}

/// An http(s) address of a provider: often a password itself, and so in no message.
///
/// # Errors
/// In words that follow the key.
pub(in super::super) fn web_address(text: &str) -> Result<WebAddress<'_>, String> {
    if text.trim() != text || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("has a space or a line break in it: remove it".to_owned());
    }
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest).split(['/', '?', '#']).next();
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err("has a user or a password in it: say who asks with the keys for that".to_owned());
    }
    let hidden = |_| "is no http or https address: write it like \"https://example.com/path\"".to_owned();
    let url = address::url(text).map_err(hidden)?;
    Ok(WebAddress { text, is_open: !url.is_https && !is_here(&url.target.host) })
}

pub(super) fn is_here(host: &Host) -> bool {
    match host {
        Host::Literal(address) => address.is_loopback(),
        Host::Name(name) => &**name == "localhost",
    }
}

/// Parts of a mail address (RFC 5321, 4.5.3.1).
const LOCAL_PART_MAX: usize = 64;

/// `ops@example.com`, or `Operations <ops@example.com>`. Stricter than the standard: no comments, no quotes, ASCII.
pub(super) fn mailbox(node: &Node) -> Result<Box<str>, String> {
    let text = value::line(998)(node)?.trim();
    let wrong = || format!("{} is no mail address: write it like \"ops@example.com\"", quoted(text));
    let bare = match text.strip_suffix('>').map(|text| text.split_once('<')) {
        Some(Some((name, bare))) => {
            if name.contains(['<', '>', '"', '\\', ',', ';', ':', '(', ')', '@']) {
                return Err(format!("{} has a sign in the name that cannot stand there: remove it", quoted(text)));
            }
            bare
        }
        Some(None) => return Err(wrong()),
        None => text,
    };
    let (local, domain) = bare.rsplit_once('@').ok_or_else(wrong)?;
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let is_local =
        local.len() <= LOCAL_PART_MAX && local.split('.').all(|part| !part.is_empty() && part.bytes().all(is_atom));
    let is_domain = matches!(address::host(domain), Ok(Host::Name(_))) && !domain.ends_with('.');
    if is_local && is_domain { Ok(text.into()) } else { Err(wrong()) }
}

/// A telephone number in the form of E.164.
pub(super) fn phone(node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    if is_phone(text) {
        Ok(text.into())
    } else {
        Err(format!("{} is no telephone number: write it like \"+15550100123\", in quotes", quoted(text)))
    }
}

fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Who a short message is from: a number, a short code, or up to eleven letters and digits.
pub(super) fn sender(node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    let is_code = (3..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = (1..=11).contains(&text.len())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-' | b'_' | b'+' | b'&'));
    if is_phone(text) || is_code || is_word {
        Ok(text.into())
    } else {
        Err(format!(
            "{} is no sender: write a number like \"+15550100123\", or up to 11 letters and digits",
            quoted(text)
        ))
    }
}

/// `AC` or `MG` and what follows, as Twilio names things.
pub(super) fn sid(node: &Node) -> Result<Box<str>, String> {
    let text = value::line(64)(node)?;
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.into())
    } else {
        Err(format!("{} is no SID: write letters and digits, like \"AC0123456789\"", quoted(text)))
    }
}

/// The key of a service: it goes into JSON, and every known one has 32 letters and digits.
pub(super) fn routing_key(text: &str) -> Result<(), String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("has a space or a letter beyond ASCII in it: copy the key of the integration again".to_owned())
    }
}

/// `whsec_` and the key in base64, as Standard Webhooks has it.
pub(super) fn signing_secret(text: &str) -> Result<(), String> {
    const REMEDY: &str = "write \"whsec_\" and what \"openssl rand -base64 32\" says";
    let Some(key) = text.strip_prefix("whsec_") else {
        return Err(format!("does not begin with \"whsec_\": {REMEDY}"));
    };
    match STANDARD.decode(key) {
        Ok(key) if (16..=64).contains(&key.len()) => Ok(()),
        Ok(key) => Err(format!("is a key of {} bytes, of 16 to 64: {REMEDY}", key.len())),
        Err(_) => Err(format!("is not base64 behind \"whsec_\": {REMEDY}")),
    }
}

pub(super) fn method(node: &Node) -> Result<&'static str, String> {
    value::choice(&[("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH")])(node)
}

/// A label's name as Prometheus has it.
pub(super) fn is_label(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("__")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `1/s`, `20/m`, `100/h`: the time between two.
pub(super) fn rate(node: &Node) -> Result<Span, String> {
    const COUNT_MAX: u64 = 10_000;
    let text = value::text(node)?;
    let wrong = || format!("{} is no rate: write it like 1/s, 20/m or 100/h", quoted(text));
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let unit = match unit.trim() {
        "s" | "second" => Span::from_secs(1),
        "m" | "min" | "minute" => Span::from_secs(60),
        "h" | "hour" => Span::from_secs(3_600),
        _ => return Err(wrong()),
    };
    let count = count.trim();
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    match count.parse::<u64>() {
        Ok(count @ 1..=COUNT_MAX) if is_number => Ok(Span::from_nanos(unit.as_nanos() / count)),
        _ if is_number => {
            Err(format!("{} is out of range: 1 to {COUNT_MAX} in a second, minute or hour", quoted(text)))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::node::Mark;
    use super::*;

    fn node(text: &str) -> Node {
        Node::scalar(Mark::default(), text.into(), true)
    }

    #[test]
    fn rates_are_the_time_between_two() {
        for (text, expected) in
            [("1/s", 1_000_000_000), ("20/m", 3_000_000_000), ("100/h", 36_000_000_000), ("10 / s", 100_000_000)]
        {
            assert_eq!(rate(&node(text)), Ok(Span::from_nanos(expected)), "{text}");
        }
        for wrong in ["", "1", "1/", "/s", "-1/s", "0/s", "1/d", "1.5/s", "10001/s", "99999999999999999999/s", "1/s/s"]
        {
            assert!(rate(&node(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mail_addresses_are_plain_ones() {
        for fine in ["a@b", "ops+cpra@mail.example.com", "Operations <ops@example.com>", "a.b@x-y.example"] {
            assert_eq!(mailbox(&node(fine)).as_deref(), Ok(fine));
        }
        for wrong in [
            "",
            "a",
            "@b",
            "a@",
            "a@b.",
            "a b@c",
            "a..b@c",
            ".a@c",
            "a@b@c",
            "a@[1.2.3.4]",
            "a@1.2.3.4",
            "<a@b",
            "a@b>",
            "x, y <a@b>",
            "\"x\" <a@b>",
            "a@b\r\nBcc: c@d",
            "ä@b",
            "a@b <c@d>",
        ] {
            assert!(mailbox(&node(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_and_senders_have_their_forms() {
        for (text, number, from) in [
            ("+15550100", true, true),
            ("+491511234567890", true, true),
            ("+4915112345678901", false, false),
            ("+0123456", false, false),
            ("0151123", false, true),
            ("12345", false, true),
            ("CPRA", false, true),
            ("much too long", false, false),
            ("+49 151 123", false, false),
            ("", false, false),
        ] {
            assert_eq!((phone(&node(text)).is_ok(), sender(&node(text)).is_ok()), (number, from), "{text}");
        }
    }

    #[test]
    fn secrets_are_judged_without_being_shown() {
        assert!(signing_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_%%hush-hush-hush%%"] {
            let error = signing_secret(wrong).expect_err(wrong);
            assert!(!error.contains("hush") && !error.contains("MfKQ"), "{error}");
        }
        for (text, is_open) in [
            ("https://h/x", Some(false)),
            ("http://h/x", Some(true)),
            ("http://127.0.0.1/x", Some(false)),
            ("http://[::1]:1/x", Some(false)),
            ("http://localhost:8080/hush", Some(false)),
            ("ftp://h/hush", None),
            ("https://a:hush@h/", None),
            ("https://h/ hush", None),
            ("hush", None),
        ] {
            match web_address(text) {
                Ok(address) => assert_eq!((address.text, Some(address.is_open)), (text, is_open)),
                Err(error) => assert!(is_open.is_none() && !error.contains("hush"), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn labels_are_those_of_prometheus() {
        assert!(["a", "team_1", "_x"].into_iter().all(is_label));
        assert!(!["", "1a", "a-b", "__name__", "ä"].into_iter().any(is_label));
    }
}
