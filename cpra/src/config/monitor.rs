//! The rules of one monitor: keys, defaults, bounds, and what goes together.

use super::check::{self, Sound};
use super::codes::{self, Told};
use super::diagnostic::quoted;
use super::duration;
use super::node::{Findings, Kind, Mark, Node};
use super::scope::Scope;
use super::section::{Keys, Section};
use super::{about, dependencies, intervention, value};
use crate::domain::monitor::CheckKind;
use crate::domain::{Color, Monitor, Policy};
use crate::units::Span;
use crate::units::limits::{
    HEALTHY_THRESHOLD_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, MONITOR_NAME_MAX, THRESHOLD_MAX, TIMEOUT_MIN,
    UNHEALTHY_THRESHOLD_DEFAULT,
};

const GROUPS_MAX: usize = 64;
const GROUP_MAX: usize = 255;

pub(super) const PULSE: [&str; 2] = ["pulse", "pulse_check"];
const UNHEALTHY: [&str; 2] = ["unhealthy_threshold", "max_failures"];

pub(super) const MONITOR_KEYS: Keys<'static> = Keys {
    known: &[
        "name",
        "enabled",
        "groups",
        "labels",
        "metadata",
        "description",
        "runbook",
        "depends_on",
        "pulse",
        "pulse_check",
        "targets",
        "intervention",
        "repair_unseen",
        "codes",
    ],
    without_effect: &[],
    refused: &[],
};
pub(super) const PULSE_KEYS: Keys<'static> = Keys {
    known: &[
        "type",
        "interval",
        "timeout",
        "unhealthy_threshold",
        "max_failures",
        "healthy_threshold",
        "retry_interval",
        "max_latency",
        "groups",
        "config",
        "http",
        "https",
        "tcp",
        "icmp",
        "script",
        "dns",
        "push",
    ],
    without_effect: &[],
    refused: &[],
};

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

/// What a definition gives beside the monitor itself.
pub(super) struct Defined<'a> {
    pub(super) monitor: Monitor,
    pub(super) parents: Vec<dependencies::Parent<'a>>,
    pub(super) red_to_fallback: bool,
}

/// The monitor, unless `findings` got an error.
pub(super) fn monitor<'a>(
    section: &Section<'a>,
    name: Option<&str>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Defined<'a>> {
    section.check_keys(findings, MONITOR_KEYS);
    let enabled = section.value(findings, &["enabled"], value::boolean).unwrap_or(true);
    let mut groups = Vec::new();
    read_groups(section, findings, &mut groups);
    let about = about::about(section, findings);
    let parents = dependencies::parents(section, findings);
    intervention::check(section, scope, findings);
    let Told { codes, red_to_fallback } = codes::codes(section, scope, findings);
    let Some(pulse) = section.section(findings, &PULSE) else {
        let remedy = "add \"pulse: {type: http, interval: 30s, timeout: 5s, config: {url: ...}}\"";
        section.missing(findings, "pulse", remedy);
        return None;
    };
    pulse.check_keys(findings, PULSE_KEYS);
    read_groups(&pulse, findings, &mut groups);
    let cadence = cadence(&pulse, check::kind(&pulse), findings);
    let check = check::check(&pulse, name, cadence.timeout, scope, findings);
    if cadence.unhealthy_threshold == 1 && red_to_fallback && !codes.destinations(Color::Yellow).is_empty() {
        let remedy =
            "with a threshold of 1 no yellow is ever sent, and red has nobody to tell: it goes to the fallback";
        findings.warning(section.at, remedy);
    }
    if findings.has_errors() {
        return None;
    }
    let (Sound { check, target, retries }, max_latency) = check?;
    let monitor = Monitor {
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
            max_latency,
            groups: groups.into_boxed_slice(),
            about,
            codes,
        },
    };
    Some(Defined { monitor, parents, red_to_fallback })
}

/// The keys of `defaults`, once; its values are judged where a monitor uses them.
pub(super) fn check_defaults(defaults: &Node, at: Mark, findings: &mut Findings) {
    match &defaults.kind {
        Kind::Map(_) | Kind::Broken => {}
        _ if defaults.is_null() => {}
        _ => findings.error(defaults.at, format!("defaults takes a map of keys, this is {}", defaults.description())),
    }
    let section = Section::new(defaults, None, at);
    for (key, why) in [
        ("name", "a name cannot be a default: every monitor has its own"),
        ("targets", "targets cannot be a default: a definition has its own"),
    ] {
        if let Some(field) = section.find(findings, &[key]) {
            findings.error(field.at, why);
        }
    }
    section.check_keys(findings, MONITOR_KEYS);
    codes::check_keys(&section, findings);
    if let Some(pulse) = section.section(findings, &PULSE) {
        pulse.check_keys(findings, PULSE_KEYS);
        check::check_defaults(&pulse, findings);
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

fn cadence(pulse: &Section<'_>, kind: Option<CheckKind>, findings: &mut Findings) -> Cadence {
    let intervals = INTERVAL_MIN..=INTERVAL_MAX;
    let interval =
        pulse.required(findings, &["interval"], "add \"interval: 30s\" to pulse", value::span(intervals.clone()));
    let interval_known = interval.unwrap_or(INTERVAL_MAX);
    let timeouts = value::span(TIMEOUT_MIN..=INTERVAL_MAX);
    let mut timeout = if kind == Some(CheckKind::Push) {
        // Nobody is waited for: one may be written, and need not.
        pulse.value(findings, &["timeout"], timeouts).unwrap_or(interval_known)
    } else {
        let timeout = pulse.required(findings, &["timeout"], "add \"timeout: 5s\" to pulse", timeouts);
        timeout.unwrap_or(interval_known)
    };
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
        unhealthy_threshold: pulse.value(findings, &UNHEALTHY, &threshold).map_or(UNHEALTHY_THRESHOLD_DEFAULT, narrow),
        healthy_threshold: pulse
            .value(findings, &["healthy_threshold"], &threshold)
            .map_or(HEALTHY_THRESHOLD_DEFAULT, narrow),
    }
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
