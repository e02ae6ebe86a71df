//! The kinds of checks and where their settings stand: in `config`, or in a block named after the type.

use super::diagnostic::{Severity, quoted};
use super::duration;
use super::node::{Findings, Node};
use super::scope::Scope;
use super::section::{Field, Keys, Section, Switch};
use super::{address, dns, http, push, script, tls, value};
use crate::domain::monitor::{CheckKind, IcmpCheck, MaxLatency, TcpMode, TlsPolicy};
use crate::domain::{Check, Host, Target, TcpCheck};
use crate::units::Span;
use crate::units::limits::{ASSERTION_TEXT_MAX, ECHO_COUNT_MAX, INTERVAL_MAX, REQUEST_MAX, RETRIES_MAX, TIMEOUT_MIN};

const TCP_KEYS: Keys<'static> = Keys {
    known: &["host", "port", "retries", "mode", "tls", "starttls", "send", "expect", "max_latency"],
    without_effect: &[],
    refused: &[],
};
const ICMP_KEYS: Keys<'static> = Keys {
    known: &["host", "count", "max_loss", "max_rtt", "retries", "ignore_privilege", "max_latency"],
    without_effect: &[],
    refused: &[],
};
const TCP_MODES: [(&str, TcpMode); 2] = [("connect", TcpMode::Connect), ("syn", TcpMode::Syn)];
const LATENCY_KEYS: Keys<'static> = Keys { known: &["limit", "action"], without_effect: &[], refused: &[] };

/// As files name the types; `https` is http whose address must say so.
const KINDS: [(&str, Kind); 7] = [
    ("http", Kind { check: CheckKind::Http, is_https: false }),
    ("https", Kind { check: CheckKind::Http, is_https: true }),
    ("tcp", Kind { check: CheckKind::Tcp, is_https: false }),
    ("icmp", Kind { check: CheckKind::Icmp, is_https: false }),
    ("script", Kind { check: CheckKind::Script, is_https: false }),
    ("dns", Kind { check: CheckKind::Dns, is_https: false }),
    ("push", Kind { check: CheckKind::Push, is_https: false }),
];

#[derive(Clone, Copy)]
struct Kind {
    check: CheckKind,
    is_https: bool,
}

/// The names of a kind's settings.
pub(super) const fn blocks(kind: CheckKind) -> &'static [&'static str] {
    match kind {
        CheckKind::Http => &["config", "http", "https"],
        CheckKind::Tcp => &["config", "tcp"],
        CheckKind::Icmp => &["config", "icmp"],
        CheckKind::Script => &["config", "script"],
        CheckKind::Dns => &["config", "dns"],
        CheckKind::Push => &["config", "push"],
    }
}

pub(super) const fn keys(kind: CheckKind) -> Keys<'static> {
    match kind {
        CheckKind::Http => http::KEYS,
        CheckKind::Tcp => TCP_KEYS,
        CheckKind::Icmp => ICMP_KEYS,
        CheckKind::Script => script::KEYS,
        CheckKind::Dns => dns::KEYS,
        CheckKind::Push => push::KEYS,
    }
}

/// A check whose settings are sound.
pub(super) struct Sound {
    pub(super) check: Check,
    pub(super) target: Target,
    pub(super) retries: u8,
}

/// The type that is written, if it is one.
pub(super) fn kind(pulse: &Section<'_>) -> Option<CheckKind> {
    let field = pulse.find(&mut Findings::default(), &["type"])?;
    value::choice(&KINDS)(field.value).ok().map(|kind| kind.check)
}

pub(super) fn check(
    pulse: &Section<'_>,
    name: Option<&str>,
    timeout: Span,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<(Sound, Option<MaxLatency>)> {
    let remedy = "add \"type: http\", or tcp, icmp, script, dns or push, to pulse";
    let kind = pulse.required(findings, &["type"], remedy, value::choice(&KINDS))?;
    let names = blocks(kind.check);
    for (block, other) in KINDS {
        if names.contains(&block) {
            continue;
        }
        if let Some(stray) = pulse.find(&mut Findings::default(), &[block])
            && !stray.inherited
        {
            let kind = kind.check.as_str();
            let message =
                format!("the block \"{block}\" is for type {}, this is {kind}: remove it", other.check.as_str());
            findings.0.push(stray.finding(Severity::Error, stray.at, message));
        }
    }
    if kind.is_https
        && let Some(field) = pulse.find(&mut Findings::default(), &["type"])
    {
        let message = "type https is http: the address in url says that TLS is used".to_owned();
        findings.0.push(field.finding(Severity::Warning, field.value.at, message));
    }
    let config = pulse.section(findings, names).unwrap_or_else(|| Section::empty(pulse.at));
    let max_latency = max_latency(kind.check, pulse, &config, timeout, findings);
    let sound = match kind.check {
        CheckKind::Http => {
            let has_shared_defaults = pulse.default_field(|key| key == "config").is_some();
            http::http(&config, kind.is_https, has_shared_defaults, scope, findings)
        }
        CheckKind::Tcp => tcp(&config, scope, findings),
        CheckKind::Icmp => icmp(&config, timeout, findings),
        CheckKind::Script => script::script(&config, findings),
        CheckKind::Dns => dns::dns(&config, findings),
        CheckKind::Push => push::push(&config, name, scope, findings),
    };
    sound.map(|sound| (sound, max_latency))
}

/// The keys of `defaults.pulse`: `config` may be for every type, a block is for its own.
pub(super) fn check_defaults(pulse: &Section<'_>, findings: &mut Findings) {
    let kinds = CheckKind::ALL;
    for kind in kinds {
        if let Some(section) = pulse.section(findings, &blocks(kind)[1..]) {
            section.check_keys(findings, keys(kind));
        }
    }
    if pulse.find(findings, &["config"]).is_some() {
        for (name, _) in KINDS {
            if let Some(block) = pulse.find(findings, &[name]) {
                let message = format!("\"config\" and \"{name}\" are two names of one key: remove one of them");
                findings.error(block.at, message);
            }
        }
    }
    if let Some(config) = pulse.section(findings, &["config"]) {
        let known: Vec<&str> = kinds.iter().flat_map(|&kind| keys(kind).known).copied().collect();
        config.check_keys(findings, Keys { known: &known, ..Keys::default() });
    }
}

fn tcp(config: &Section<'_>, scope: &Scope<'_>, findings: &mut Findings) -> Option<Sound> {
    config.check_keys(findings, TCP_KEYS);
    let host = config.required(findings, &["host"], "add \"host: ...\" to config", host);
    let port =
        config.required(findings, &["port"], "add \"port: ...\" to config", value::integer(1..=u64::from(u16::MAX)));
    let mode = config.value(findings, &["mode"], value::choice(&TCP_MODES)).unwrap_or_default();
    let tls = tcp_layer(config, scope, findings);
    let bytes = |max: usize| {
        move |node: &Node| {
            let text = value::text(node)?;
            match text.len() {
                0 => Err("is empty: write a text, or remove the key".to_owned()),
                long if long > max => Err(format!("is {long} bytes long: at most {max}")),
                _ => Ok(Box::<[u8]>::from(text.as_bytes())),
            }
        }
    };
    let send = config.value(findings, &["send"], bytes(REQUEST_MAX)).unwrap_or_default();
    let expect = config.value(findings, &["expect"], bytes(ASSERTION_TEXT_MAX)).unwrap_or_default();
    if mode == TcpMode::Syn {
        refuse_talk(config, tls.is_some(), findings);
    }
    let retries = retries(config, findings);
    let port = u16::try_from(port?).ok()?;
    let check = Check::Tcp(TcpCheck { mode, tls, send, expect });
    Some(Sound { check, target: Target { host: host?, port, path: Box::default() }, retries })
}

/// Half a connection carries nothing.
fn refuse_talk(config: &Section<'_>, secured: bool, findings: &mut Findings) {
    let layers: &[&str] = if secured { &["starttls", "tls"] } else { &[] };
    for &key in layers.iter().chain(&["send", "expect"]) {
        let Some(field) = config.find(&mut Findings::default(), &[key]) else { continue };
        let message = format!("{key} needs a connection, and mode syn makes none: remove one of them");
        findings.0.push(field.finding(Severity::Error, field.at, message));
    }
}

/// `tls`, which `starttls` implies.
fn tcp_layer(config: &Section<'_>, scope: &Scope<'_>, findings: &mut Findings) -> Option<TlsPolicy> {
    let starttls = config.value(findings, &["starttls"], tls::starttls);
    let policy = match config.switch(findings, &["tls"]) {
        Switch::Absent => starttls.map(|_| TlsPolicy::default()),
        Switch::Off(field) => {
            if starttls.is_some() {
                let message = "tls is off, and starttls begins it: remove one of them".to_owned();
                findings.0.push(field.finding(Severity::Error, field.at, message));
            }
            None
        }
        Switch::On(_, section) => Some(tls::policy(&section, scope, findings)),
    };
    policy.map(|policy| TlsPolicy { starttls, ..policy })
}

fn icmp(config: &Section<'_>, timeout: Span, findings: &mut Findings) -> Option<Sound> {
    config.check_keys(findings, ICMP_KEYS);
    let host = config.required(findings, &["host"], "add \"host: ...\" to config", host);
    let count = config.value(findings, &["count"], value::integer(1..=u64::from(ECHO_COUNT_MAX)));
    let max_loss = config.value(findings, &["max_loss"], per_cent).unwrap_or(0);
    let max_rtt = config.value(findings, &["max_rtt"], value::span(TIMEOUT_MIN..=INTERVAL_MAX));
    if let Some(rtt) = max_rtt
        && rtt >= timeout
        && let Some(field) = config.find(&mut Findings::default(), &["max_rtt"])
    {
        let (rtt, timeout) = (duration::written(rtt), duration::written(timeout));
        let message = format!("max_rtt {rtt} is never reached: an echo counts as lost after the timeout, {timeout}");
        findings.0.push(field.finding(Severity::Warning, field.value.at, message));
    }
    if config.value(findings, &["ignore_privilege"], value::boolean).is_some()
        && let Some(field) = config.find(&mut Findings::default(), &["ignore_privilege"])
    {
        let message =
            "ignore_privilege has no effect: where raw sockets are not allowed, the kernel's ping socket is used \
                       by itself"
                .to_owned();
        findings.0.push(field.finding(Severity::Warning, field.at, message));
    }
    let retries = retries(config, findings);
    let count = count.and_then(|count| u8::try_from(count).ok()).unwrap_or(1);
    let check = Check::Icmp(IcmpCheck { count, max_loss, max_rtt });
    Some(Sound { check, target: Target { host: host?, port: 0, path: Box::default() }, retries })
}

/// `20` or `20%`; all of them lost would be no check.
fn per_cent(node: &Node) -> Result<u8, String> {
    const MAX: u8 = 99;
    let written = value::text(node)?;
    let bare = written.trim_end().trim_end_matches('%').trim_end();
    match bare.parse::<u8>() {
        Ok(share) if share <= MAX && bare.bytes().all(|byte| byte.is_ascii_digit()) => Ok(share),
        _ => Err(format!("{} is no share: write per cent from 0 to {MAX}", quoted(written))),
    }
}

pub(super) fn host(node: &Node) -> Result<Host, String> {
    value::text(node).and_then(address::host).map_err(|error| error.replacen("has the host ", "", 1))
}

/// Attempts within one check after the first.
pub(super) fn retries(config: &Section<'_>, findings: &mut Findings) -> u8 {
    let count = config.value(findings, &["retries"], value::integer(0..=u64::from(RETRIES_MAX)));
    count.and_then(|count| u8::try_from(count).ok()).unwrap_or(0)
}

/// `max_latency`, of the pulse or of the check: `500ms` warns, `{limit: 500ms, action: fail}` fails.
fn max_latency(
    kind: CheckKind,
    pulse: &Section<'_>,
    config: &Section<'_>,
    timeout: Span,
    findings: &mut Findings,
) -> Option<MaxLatency> {
    let name = ["max_latency"];
    let (outer, inner) = (pulse.find(findings, &name), config.find(findings, &name));
    if let (Some(outer), Some(inner)) = (outer, inner)
        && outer.inherited == inner.inherited
    {
        let message = "max_latency stands beside interval and in the check's settings: remove one of them".to_owned();
        findings.0.push(inner.finding(Severity::Error, inner.at, message));
    }
    let (field, section) = match (outer, inner) {
        (Some(outer), Some(inner)) if outer.inherited && !inner.inherited => (inner, config),
        (None, Some(inner)) => (inner, config),
        (Some(outer), _) => (outer, pulse),
        (None, None) => return None,
    };
    if kind == CheckKind::Push {
        if !field.inherited {
            let message = "max_latency has no meaning for push, which asks nobody: remove it".to_owned();
            findings.0.push(field.finding(Severity::Error, field.at, message));
        }
        return None;
    }
    let limits = value::span(TIMEOUT_MIN..=INTERVAL_MAX);
    let (limit, fails) = if matches!(field.value.kind, super::node::Kind::Map(_)) {
        let map = section.section(findings, &name)?;
        map.check_all_keys(findings, LATENCY_KEYS);
        let limit = map.required(findings, &["limit"], "add \"limit: 500ms\" to max_latency", limits);
        let fails = map.value(findings, &["action"], value::choice(&[("warn", false), ("fail", true)]));
        (limit?, fails.unwrap_or(false))
    } else {
        (section.value(findings, &name, limits)?, false)
    };
    if limit >= timeout {
        warn_unreachable(&field, limit, timeout, findings);
    }
    Some(MaxLatency { limit, fails })
}

fn warn_unreachable(field: &Field<'_>, limit: Span, timeout: Span, findings: &mut Findings) {
    let (limit, timeout) = (duration::written(limit), duration::written(timeout));
    let message = format!("max_latency {limit} is never reached: a check fails at its timeout, {timeout}");
    findings.0.push(field.finding(Severity::Warning, field.value.at, message));
}
