//! The rules of one monitor: keys, defaults, bounds, and what goes together.

use super::codes;
use super::diagnostic::quoted;
use super::duration;
use super::folders::Folders;
use super::http;
use super::node::{Findings, Kind, Mark, Node};
use super::section::{Keys, Section};
use super::{address, value};
use crate::domain::monitor::{About, PushCheck};
use crate::domain::{Check, Monitor, Policy, Target, TcpCheck};
use crate::units::Span;
use crate::units::limits::{INTERVAL_MAX, INTERVAL_MIN, MONITOR_NAME_MAX, RETRIES_MAX, THRESHOLD_MAX, TIMEOUT_MIN};

const UNHEALTHY_DEFAULT: u8 = 3;
const HEALTHY_DEFAULT: u8 = 2;
const GROUPS_MAX: usize = 64;
const GROUP_MAX: usize = 255;

const PULSE: [&str; 2] = ["pulse", "pulse_check"];
const UNHEALTHY: [&str; 2] = ["unhealthy_threshold", "max_failures"];

const MONITOR_KEYS: Keys<'static> = Keys {
    known: &["name", "enabled", "groups", "pulse", "pulse_check", "codes"],
    without_effect: &["labels", "metadata", "description", "runbook", "depends_on", "intervention", "repair_unseen"],
    refused: &["targets"],
};
const PULSE_KEYS: Keys<'static> = Keys {
    known: &[
        "type",
        "interval",
        "timeout",
        "unhealthy_threshold",
        "max_failures",
        "healthy_threshold",
        "retry_interval",
        "groups",
        "config",
    ],
    without_effect: &[],
    refused: &["max_latency"],
};
const TCP_KEYS: Keys<'static> = Keys { known: &["host", "port", "retries"], without_effect: &[], refused: &["tls"] };

const PUSH_KEYS: Keys<'static> = Keys { known: &["token", "grace"], without_effect: &[], refused: &["token_file"] };
const PUSH_TOKEN: std::ops::RangeInclusive<usize> = 16..=128;

#[derive(Clone, Copy)]
enum Kinds {
    Tcp,
    Http,
    Push,
    Later,
}

const KINDS: [(&str, Kinds); 7] = [
    ("http", Kinds::Http),
    ("tcp", Kinds::Tcp),
    ("icmp", Kinds::Later),
    ("script", Kinds::Later),
    ("dns", Kinds::Later),
    ("push", Kinds::Push),
    ("https", Kinds::Later),
];

/// The monitor's name and where it stands; it is read first, since every diagnostic carries it.
pub(super) fn name<'a>(section: &Section<'a>, findings: &mut Findings) -> Option<(&'a str, Mark)> {
    let Some(field) = section.find(findings, &["name"]) else {
        section.missing(findings, "name", "add \"name: ...\"");
        return None;
    };
    // A faulty name is no subject; the fault is found again by the rule itself.
    section.value(findings, &["name"], |node| value::line(MONITOR_NAME_MAX)(node).map(drop))?;
    value::text(field.value).ok().map(|name| (name, field.value.at))
}

/// The monitor, unless `findings` got an error.
pub(super) fn monitor(
    section: &Section<'_>,
    name: Option<&str>,
    folders: &Folders,
    findings: &mut Findings,
) -> Option<Monitor> {
    section.check_keys(findings, MONITOR_KEYS);
    let enabled = section.value(findings, &["enabled"], value::boolean).unwrap_or(true);
    let mut groups = Vec::new();
    read_groups(section, findings, &mut groups);
    let codes = codes::codes(section, folders, findings);
    let Some(pulse) = section.section(findings, &PULSE) else {
        let remedy = "add \"pulse: {type: http, interval: 30s, timeout: 5s, config: {url: ...}}\"";
        section.missing(findings, "pulse", remedy);
        return None;
    };
    pulse.check_keys(findings, PULSE_KEYS);
    read_groups(&pulse, findings, &mut groups);
    let cadence = cadence(&pulse, findings);
    let check = check(&pulse, findings);
    if cadence.unhealthy_threshold == 1 && codes::only_yellow(&codes) {
        let remedy = "with a threshold of 1 no yellow is ever sent, and red is not configured: nobody will be told";
        findings.warning(section.at, remedy);
    }
    if findings.has_errors() {
        return None;
    }
    let (check, target, retries) = check?;
    Some(Monitor {
        name: name?.into(),
        enabled,
        target,
        policy: Policy {
            check,
            interval: cadence.interval,
            timeout: cadence.timeout,
            retry_interval: cadence.retry_interval,
            unhealthy_threshold: cadence.unhealthy_threshold,
            healthy_threshold: cadence.healthy_threshold,
            retries,
            max_latency: None,
            groups: groups.into_boxed_slice(),
            about: About::default(),
            codes,
        },
    })
}

/// The keys of `defaults`, once; its values are judged where a monitor uses them.
pub(super) fn check_defaults(defaults: &Node, at: Mark, findings: &mut Findings) {
    match &defaults.kind {
        Kind::Map(_) | Kind::Broken => {}
        _ if defaults.is_null() => {}
        _ => findings.error(defaults.at, format!("defaults takes a map of keys, this is {}", defaults.description())),
    }
    let section = Section::new(defaults, None, at);
    if let Some(name) = section.find(findings, &["name"]) {
        findings.error(name.at, "a name cannot be a default: every monitor has its own");
    }
    section.check_keys(findings, MONITOR_KEYS);
    codes::check_keys(&section, findings);
    if let Some(pulse) = section.section(findings, &PULSE) {
        pulse.check_keys(findings, PULSE_KEYS);
        if let Some(config) = pulse.section(findings, &["config"]) {
            let known: Vec<&str> = http::KEYS.known.iter().chain(TCP_KEYS.known).copied().collect();
            config.check_keys(findings, Keys { known: &known, ..http::KEYS });
        }
    }
}

fn read_groups(section: &Section<'_>, findings: &mut Findings, groups: &mut Vec<Box<str>>) {
    let Some(field) = section.find(findings, &["groups"]) else { return };
    if field.value.is_null() {
        return;
    }
    let items = match value::items(field.value) {
        Ok(items) => items,
        Err(message) => {
            return findings.0.push(field.finding(super::Severity::Error, field.value.at, format!("groups {message}")));
        }
    };
    for item in items {
        match value::line(GROUP_MAX)(item) {
            Ok(group) if groups.iter().any(|known| **known == *group) => {}
            Ok(_) if groups.len() == GROUPS_MAX => {
                findings.0.push(field.finding(
                    super::Severity::Error,
                    item.at,
                    format!("groups has more than {GROUPS_MAX} names: remove some"),
                ));
                return;
            }
            Ok(group) => groups.push(group.into()),
            Err(message) => {
                findings.0.push(field.finding(super::Severity::Error, item.at, format!("a group {message}")));
            }
        }
    }
}

struct Cadence {
    interval: Span,
    timeout: Span,
    retry_interval: Span,
    unhealthy_threshold: u8,
    healthy_threshold: u8,
}

fn cadence(pulse: &Section<'_>, findings: &mut Findings) -> Cadence {
    let intervals = INTERVAL_MIN..=INTERVAL_MAX;
    let interval =
        pulse.required(findings, &["interval"], "add \"interval: 30s\" to pulse", value::span(intervals.clone()));
    let timeout =
        pulse.required(findings, &["timeout"], "add \"timeout: 5s\" to pulse", value::span(TIMEOUT_MIN..=INTERVAL_MAX));
    let interval_known = interval.unwrap_or(INTERVAL_MAX);
    let mut timeout = timeout.unwrap_or(TIMEOUT_MIN);
    if timeout > interval_known {
        if let Some(field) = pulse.find(&mut Findings::default(), &["timeout"]) {
            let (long, short) = (duration::written(timeout), duration::written(interval_known));
            let message = format!(
                "timeout {long} is longer than the interval: {short} is used, a check ends before the next one is due"
            );
            findings.0.push(super::node::Finding {
                severity: super::Severity::Warning,
                at: field.value.at,
                message,
                inherited: false,
            });
        }
        timeout = interval_known;
    }
    let threshold = value::integer(1..=u64::from(THRESHOLD_MAX));
    let narrow = |count: u64| u8::try_from(count).unwrap_or(THRESHOLD_MAX);
    Cadence {
        interval: interval_known,
        timeout,
        retry_interval: pulse.value(findings, &["retry_interval"], value::span(intervals)).unwrap_or(interval_known),
        unhealthy_threshold: pulse.value(findings, &UNHEALTHY, &threshold).map_or(UNHEALTHY_DEFAULT, narrow),
        healthy_threshold: pulse.value(findings, &["healthy_threshold"], &threshold).map_or(HEALTHY_DEFAULT, narrow),
    }
}

fn kind(node: &Node) -> Result<Kinds, String> {
    match value::choice(&KINDS)(node)? {
        Kinds::Later => Err(format!("{} is not run by this version yet: it runs http and tcp", node.description())),
        kind => Ok(kind),
    }
}

fn check(pulse: &Section<'_>, findings: &mut Findings) -> Option<(Check, Target, u8)> {
    let kind = pulse.required(findings, &["type"], "add \"type: http\" or \"type: tcp\" to pulse", kind);
    let config = pulse.section(findings, &["config"]).unwrap_or_else(|| Section::empty(pulse.at));
    match kind? {
        Kinds::Http => http::http(&config, findings),
        Kinds::Tcp => tcp(&config, findings),
        Kinds::Push => push(&config, findings),
        Kinds::Later => None,
    }
}

fn tcp(config: &Section<'_>, findings: &mut Findings) -> Option<(Check, Target, u8)> {
    config.check_keys(findings, TCP_KEYS);
    let host = config.required(findings, &["host"], "add \"host: ...\" to config", |node| {
        value::text(node).and_then(address::host).map_err(|error| error.replacen("has the host ", "", 1))
    });
    let port =
        config.required(findings, &["port"], "add \"port: ...\" to config", value::integer(1..=u64::from(u16::MAX)));
    let retries = retries(config, findings);
    let port = u16::try_from(port?).ok()?;
    Some((Check::Tcp(TcpCheck::default()), Target { host: host?, port, path: Box::default() }, retries))
}

/// Nobody is dialled: the job calls, with its token.
fn push(config: &Section<'_>, findings: &mut Findings) -> Option<(Check, Target, u8)> {
    config.check_keys(findings, PUSH_KEYS);
    let grace = config.value(findings, &["grace"], value::span(Span::ZERO..=INTERVAL_MAX));
    let token = config.required(findings, &["token"], "add \"token: ...\" with at least 16 letters", |node| {
        let text = value::text(node)?;
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'));
        if PUSH_TOKEN.contains(&text.len()) && fits {
            Ok(Box::<str>::from(text))
        } else {
            let (low, high) = (PUSH_TOKEN.start(), PUSH_TOKEN.end());
            Err(format!(
                "takes {low} to {high} letters, digits, \"-\" and \"_\": `openssl rand -hex 16` makes such a text"
            ))
        }
    });
    let host = crate::domain::Host::Literal(std::net::Ipv4Addr::UNSPECIFIED.into());
    let check = Check::Push(PushCheck { grace: grace.unwrap_or(Span::from_secs(60)) });
    Some((check, Target { host, port: 0, path: token? }, 0))
}

/// Attempts within one check after the first.
pub(super) fn retries(config: &Section<'_>, findings: &mut Findings) -> u8 {
    let count = config.value(findings, &["retries"], value::integer(0..=u64::from(RETRIES_MAX)));
    count.and_then(|count| u8::try_from(count).ok()).unwrap_or(0)
}

/// How a monitor without a usable name is called in a diagnostic.
pub(super) fn shown_name(name: &str) -> String {
    let shown = quoted(name);
    // Without the quotes, as long as nothing had to be escaped.
    match &shown[1..shown.len() - 1] {
        bare if bare == name => bare.to_owned(),
        _ => shown,
    }
}
