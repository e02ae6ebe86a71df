//! The rules of a dns check: whom to ask for what, and the answers as master files write them (RFC 1035, 5.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address;
use super::check::{Sound, retries};
use super::diagnostic::quoted;
use super::node::{Findings, Node};
use super::section::{Keys, Section};
use super::value;
use crate::domain::monitor::{DnsCheck, RecordType};
use crate::domain::{Check, Host, Target};
use crate::units::limits::HOST_MAX;

pub(super) const KEYS: Keys<'static> = Keys {
    known: &["server", "name", "record", "expect", "retries", "max_latency"],
    without_effect: &[],
    refused: &[],
};

const DNS_PORT: u16 = 53;
const EXPECTED_MAX: usize = 64;
const LABEL_MAX: usize = 63;

pub(super) fn dns(config: &Section<'_>, findings: &mut Findings) -> Option<Sound> {
    config.check_keys(findings, KEYS);
    let server = config.required(findings, &["server"], "add \"server: 10.0.0.53\" to config", |node| {
        address::host_port(value::text(node)?).map_err(|message| message.replacen("has the host ", "", 1))
    });
    let record = config.value(findings, &["record"], value::choice(&RecordType::ALL)).unwrap_or(RecordType::A);
    let name = config.required(findings, &["name"], "add \"name: www.example.com\" to config", |node| {
        let text = value::line(HOST_MAX + 1)(node)?;
        match text.parse::<IpAddr>() {
            Ok(address) if record == RecordType::Ptr => Ok(reverse(address)),
            Ok(_) => Err(format!("{} is an address: only record PTR asks for one", quoted(text))),
            Err(_) => name(text),
        }
    });
    let expect = config.list(findings, &["expect"], EXPECTED_MAX, |node| expected(record, node)).unwrap_or_default();
    let retries = retries(config, findings);
    let (host, port): (Host, _) = server?;
    // Like every host: without the dot that ends it.
    let name = name?;
    let path = if &*name == "." { name } else { name.trim_end_matches('.').into() };
    let target = Target { host, port: port.unwrap_or(DNS_PORT), path };
    Some(Sound { check: Check::Dns(DnsCheck { record, expect: expect.into() }), target, retries })
}

/// A name, lower case, with the dot that ends it.
fn name(text: &str) -> Result<Box<str>, String> {
    let shown = || quoted(text);
    if text == "." {
        return Ok(".".into());
    }
    let bare = text.strip_suffix('.').unwrap_or(text);
    if !bare.is_ascii() {
        return Err(format!("{} is not ASCII: write its \"xn--\" form", shown()));
    }
    if bare.is_empty() || bare.len() > HOST_MAX {
        return Err(format!("{} is no name: write 1 to {HOST_MAX} characters", shown()));
    }
    for label in bare.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err(format!("{} has a part of {} characters: 1 to {LABEL_MAX}", shown(), label.len()));
        }
        if let Some(found) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '/')))
        {
            return Err(format!(
                "{} has {} in it: use letters, digits, \"-\" and \"_\"",
                shown(),
                quoted(&found.to_string())
            ));
        }
    }
    Ok(format!("{}.", bare.to_ascii_lowercase()).into())
}

/// The name under which an address is looked up (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(address: IpAddr) -> Box<str> {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.").into()
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(72);
            for byte in address.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", byte & 15, byte >> 4));
            }
            name.push_str("ip6.arpa.");
            name.into()
        }
    }
}

/// One answer that must be there.
fn expected(record: RecordType, node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    let shown = || quoted(text);
    let wrong = |form: &str| Err(format!("{} is no {} record: write it like {form}", shown(), record.as_str()));
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str, max: u32| word.parse::<u32>().ok().filter(|&number| number <= max);
    const SHORT: u32 = u16::MAX as u32;
    match record {
        RecordType::A => match text.trim().parse::<Ipv4Addr>() {
            Ok(address) => Ok(address.to_string().into()),
            Err(_) => wrong("\"10.0.0.1\""),
        },
        RecordType::Aaaa => match text.trim().parse::<Ipv6Addr>() {
            Ok(address) => Ok(address.to_string().into()),
            Err(_) => wrong("\"2001:db8::1\""),
        },
        RecordType::Cname | RecordType::Ns | RecordType::Ptr => match words[..] {
            [target] => name(target),
            _ => wrong("\"www.example.com.\""),
        },
        RecordType::Mx => match words[..] {
            [preference, host] => match number(preference, SHORT) {
                Some(preference) => Ok(format!("{preference} {}", name(host)?).into()),
                None => wrong("\"10 mail.example.com.\""),
            },
            _ => wrong("\"10 mail.example.com.\""),
        },
        RecordType::Srv => match words[..] {
            [priority, weight, port, host] => {
                match (number(priority, SHORT), number(weight, SHORT), number(port, SHORT)) {
                    (Some(priority), Some(weight), Some(port)) => {
                        Ok(format!("{priority} {weight} {port} {}", name(host)?).into())
                    }
                    _ => wrong("\"10 5 5060 sip.example.com.\""),
                }
            }
            _ => wrong("\"10 5 5060 sip.example.com.\""),
        },
        RecordType::Soa => {
            const FORM: &str = "\"ns.example.com. admin.example.com. 2026010100 3600 600 86400 300\"";
            let [primary, mailbox, numbers @ ..] = &words[..] else { return wrong(FORM) };
            let numbers: Option<Vec<String>> =
                numbers.iter().map(|word| number(word, u32::MAX).map(|number| number.to_string())).collect();
            match numbers {
                Some(numbers) if numbers.len() == 5 => {
                    Ok(format!("{} {} {}", name(primary)?, name(mailbox)?, numbers.join(" ")).into())
                }
                _ => wrong(FORM),
            }
        }
        RecordType::Txt => Ok(strings(text)?.into()),
        RecordType::Caa => {
            const FORM: &str = "'0 issue \"letsencrypt.org\"'";
            let [flags, tag, _, ..] = words[..] else { return wrong(FORM) };
            let Some(flags) = number(flags, 255) else { return wrong(FORM) };
            let after = text.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
            let value = after.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            Ok(format!("{flags} {} {}", tag.to_ascii_lowercase(), character_string(value)).into())
        }
    }
}

/// `"v=spf1 -all"`: a text with or without its quotes, or several strings in quotes.
fn strings(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if !trimmed.starts_with('"') {
        return if trimmed.is_empty() { Err("is empty: write a text".to_owned()) } else { Ok(character_string(text)) };
    }
    // Already in the form of a master file: one space between its strings.
    let (mut out, mut inside, mut escaped) = (String::new(), false, false);
    for found in trimmed.chars() {
        match found {
            _ if escaped => {
                out.push(found);
                escaped = false;
            }
            '\\' if inside => {
                out.push(found);
                escaped = true;
            }
            '"' => {
                if !inside && !out.is_empty() {
                    out.push(' ');
                }
                out.push(found);
                inside = !inside;
            }
            _ if inside => out.push(found),
            _ if found.is_whitespace() => {}
            _ => return Err(format!("{} has text outside of its quotes: put it within", quoted(text))),
        }
    }
    if inside { Err(format!("{} has a quote that does not end: add the second one", quoted(text))) } else { Ok(out) }
}

fn character_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::Mark;

    #[test]
    fn answers_are_written_in_one_way() {
        let node = |text: &str| Node::scalar(Mark::default(), text.into(), true);
        for (record, text, written) in [
            (RecordType::A, "10.0.0.1", Ok("10.0.0.1")),
            (RecordType::Aaaa, "2001:DB8:0::1", Ok("2001:db8::1")),
            (RecordType::Cname, "WWW.Example.com", Ok("www.example.com.")),
            (RecordType::Ns, "ns1.example.com.", Ok("ns1.example.com.")),
            (RecordType::Ptr, "host.example.com", Ok("host.example.com.")),
            (RecordType::Mx, "010  Mail.example.com", Ok("10 mail.example.com.")),
            (RecordType::Srv, "10 5 5060 sip.example.com", Ok("10 5 5060 sip.example.com.")),
            (RecordType::Soa, "ns.x adm.x. 1 2 3 4 5", Ok("ns.x. adm.x. 1 2 3 4 5")),
            (RecordType::Txt, "v=spf1 -all", Ok("\"v=spf1 -all\"")),
            (RecordType::Txt, "\"a b\"   \"c\"", Ok("\"a b\" \"c\"")),
            (RecordType::Txt, "say \"x\"", Ok("\"say \\\"x\\\"\"")),
            (RecordType::Caa, "0 ISSUE letsencrypt.org", Ok("0 issue \"letsencrypt.org\"")),
            (RecordType::Caa, "0 issue \"a; b=c\"", Ok("0 issue \"a; b=c\"")),
            (RecordType::A, "::1", Err("\"::1\" is no A record: write it like \"10.0.0.1\"")),
            (RecordType::Mx, "mail", Err("\"mail\" is no MX record: write it like \"10 mail.example.com.\"")),
            (RecordType::Srv, "1 2 x y", Err("\"1 2 x y\" is no SRV record")),
            (RecordType::Soa, "ns.x adm.x 1", Err("\"ns.x adm.x 1\" is no SOA record")),
            (RecordType::Txt, "\"a\" b", Err("\"\\\"a\\\" b\" has text outside of its quotes")),
            (RecordType::Txt, "\"a", Err("\"\\\"a\" has a quote that does not end")),
            (RecordType::Caa, "x issue y", Err("\"x issue y\" is no CAA record")),
            (RecordType::Ns, "a b", Err("\"a b\" is no NS record")),
            (RecordType::Ns, "a..b", Err("\"a..b\" has a part of 0 characters")),
        ] {
            match (expected(record, &node(text)), written) {
                (Ok(found), Ok(expected)) => assert_eq!(&*found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert_eq!(&*reverse(IpAddr::from([10, 0, 0, 53])), "53.0.0.10.in-addr.arpa.");
        let six = reverse("2001:db8::1".parse().expect("an address"));
        assert!(six.starts_with("1.0.0.0.") && six.ends_with("8.b.d.0.1.0.0.2.ip6.arpa."), "{six}");
    }
}
