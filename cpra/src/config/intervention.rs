//! The rules of `intervention`: what would be done about a monitor that is down.
//!
//! This version repairs nothing. The keys are judged in full all the same, so that a file is right before it is needed,
//! and a warning says that nothing is run.

use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Kind, Node};
use super::scope::Scope;
use super::section::{Field, Keys, Section};
use super::{destinations, script, secret, value};
use crate::units::Span;
use crate::units::limits::{INTERVAL_MAX, TIMEOUT_MIN};

const KEYS: Keys<'static> = Keys {
    known: &[
        "action",
        "type",
        "retries",
        "max_failures",
        "config",
        "target",
        "verify",
        "mode",
        "command",
        "path",
        "script",
        "args",
        "env",
        "cwd",
        "timeout",
    ],
    without_effect: &[],
    refused: &[],
};
const VERIFY_KEYS: Keys<'static> =
    Keys { known: &["settle", "interval", "deadline"], without_effect: &[], refused: &[] };

/// The keys of a script, which stand beside `action` or in `config`.
const SCRIPT: [&str; 6] = ["command", "path", "script", "args", "env", "cwd"];

/// Immediate re-tries and attempts per episode.
const RETRIES_MAX: u64 = 10;
const ATTEMPTS_MAX: u64 = 100;
const REPLICAS_MAX: u64 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Docker,
    Systemd,
    Kubernetes,
    Scale,
    Script,
    Webhook,
}

const ACTIONS: [(&str, Action); 6] = [
    ("docker", Action::Docker),
    ("systemd", Action::Systemd),
    ("kubernetes", Action::Kubernetes),
    ("scale", Action::Scale),
    ("script", Action::Script),
    ("webhook", Action::Webhook),
];

/// Units on which everything else rests, and ourselves.
const UNTOUCHABLE: [&str; 5] = ["cpra", "dbus", "dbus-broker", "sshd", "ssh"];

pub(super) fn check(monitor: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings) {
    let unseen = monitor.value(findings, &["repair_unseen"], value::boolean);
    let Some(field) = monitor.find(findings, &["intervention"]) else {
        if unseen.is_some()
            && let Some(field) = monitor.find(&mut Findings::default(), &["repair_unseen"])
            && !field.inherited
        {
            let message = "repair_unseen has no effect: there is no intervention".to_owned();
            findings.0.push(field.finding(Severity::Warning, field.at, message));
        }
        return;
    };
    // The original's `intervention:` with nothing behind it is none.
    if field.value.is_null() {
        return;
    }
    let Some(section) = monitor.section(findings, &["intervention"]) else { return };
    section.check_all_keys(findings, KEYS);
    section.value(findings, &["retries"], value::integer(0..=RETRIES_MAX));
    section.value(findings, &["max_failures"], value::integer(1..=ATTEMPTS_MAX));
    section.value(findings, &["mode"], value::choice(&[("auto", ()), ("approve", ()), ("dry-run", ())]));
    section.value(findings, &["timeout"], span());
    verify(&section, findings);
    let remedy = "add \"action: docker\", or systemd, kubernetes, scale, script or webhook, to intervention";
    let action = section.required(findings, &["action", "type"], remedy, value::choice(&ACTIONS));
    if let Some(action) = action {
        let config = section.section(findings, &["config", "target"]);
        settings(action, &section, config, scope, findings);
    }
    let message = "intervention comes with a later version: it is not run".to_owned();
    findings.0.push(field.finding(Severity::Warning, field.at, message));
}

fn span() -> impl Fn(&Node) -> Result<Span, String> {
    value::span(TIMEOUT_MIN..=INTERVAL_MAX)
}

fn verify(section: &Section<'_>, findings: &mut Findings) {
    let Some(verify) = section.section(findings, &["verify"]) else { return };
    verify.check_all_keys(findings, VERIFY_KEYS);
    let settle = verify.value(findings, &["settle"], value::span(Span::ZERO..=INTERVAL_MAX));
    verify.value(findings, &["interval"], span());
    let deadline = verify.value(findings, &["deadline"], span());
    if let (Some(settle), Some(deadline)) = (settle, deadline)
        && settle >= deadline
        && let Some(field) = verify.find(&mut Findings::default(), &["deadline"])
    {
        let message = "deadline is over before settle is: raise it".to_owned();
        findings.0.push(field.finding(Severity::Error, field.value.at, message));
    }
}

const fn keys(action: Action) -> &'static [&'static str] {
    match action {
        Action::Docker => &["type", "container", "action", "timeout"],
        Action::Systemd => &["type", "unit", "action", "timeout"],
        Action::Kubernetes => {
            &["type", "kind", "name", "namespace", "action", "replicas", "context", "kubeconfig", "timeout"]
        }
        Action::Scale => &["type", "provider", "kind", "name", "namespace", "replicas", "by", "min", "max", "timeout"],
        Action::Script => &["type", "command", "path", "script", "args", "env", "cwd", "timeout"],
        Action::Webhook => &["type", "url", "method", "headers", "body", "payload", "secret", "secret_file", "timeout"],
    }
}

fn settings(
    action: Action,
    section: &Section<'_>,
    config: Option<Section<'_>>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) {
    let beside = SCRIPT.iter().find_map(|key| section.find(&mut Findings::default(), &[key]));
    if let Some(stray) = beside
        && (action != Action::Script
            || config.is_some_and(|config| config.find(&mut Findings::default(), &SCRIPT).is_some()))
    {
        let message = if action == Action::Script {
            format!("{} stands beside config, which says the same: keep one of them", stray.key)
        } else {
            format!("{} is for the action script: remove it", stray.key)
        };
        findings.0.push(stray.finding(Severity::Error, stray.at, message));
    }
    let settings = match (beside, config) {
        (Some(_), None) => *section,
        (_, Some(config)) => {
            config.check_all_keys(findings, Keys { known: keys(action), ..Keys::default() });
            config.value(findings, &["timeout"], span());
            config
        }
        (None, None) => Section::empty(section.at),
    };
    let line = |node: &Node| value::line(255)(node).map(drop);
    match action {
        Action::Docker => {
            settings.required(findings, &["container"], "add \"config: {container: NAME}\"", line);
            let verbs = [("restart", ()), ("start", ()), ("stop", ()), ("kill", ()), ("unpause", ())];
            settings.value(findings, &["action"], value::choice(&verbs));
        }
        Action::Systemd => {
            settings.required(findings, &["unit"], "add \"config: {unit: NAME.service}\"", unit);
            let verbs = [("restart", ()), ("start", ()), ("stop", ()), ("reload", ()), ("reload-or-restart", ())];
            settings.value(findings, &["action"], value::choice(&verbs));
        }
        Action::Kubernetes => {
            settings.required(findings, &["name"], "add \"config: {kind: deployment, name: NAME}\"", line);
            kind(&settings, findings);
            let verbs = [("restart", ()), ("rollout-restart", ()), ("delete", ()), ("scale", ())];
            settings.value(findings, &["action"], value::choice(&verbs));
            settings.value(findings, &["replicas"], value::integer(0..=REPLICAS_MAX));
            for key in ["namespace", "context", "kubeconfig"] {
                settings.value(findings, &[key], line);
            }
        }
        Action::Scale => {
            settings.required(findings, &["name"], "add \"config: {name: NAME, replicas: 3}\"", line);
            kind(&settings, findings);
            settings.value(findings, &["namespace"], line);
            settings.value(findings, &["provider"], value::choice(&[("kubernetes", ()), ("docker", ())]));
            if settings.find(findings, &["replicas"]).is_none() && settings.find(findings, &["by"]).is_none() {
                settings.missing(findings, "replicas", "add \"replicas: 3\", or \"by: 1\", to config");
            }
            for key in ["replicas", "by", "min", "max"] {
                settings.value(findings, &[key], value::integer(0..=REPLICAS_MAX));
            }
        }
        Action::Script => {
            script::argv(&settings, findings);
            script::env(&settings, findings);
        }
        Action::Webhook => {
            settings.required(findings, &["url"], "add \"config: {url: https://...}\"", |node| {
                destinations::web_address(value::text(node)?).map(drop)
            });
            settings.value(findings, &["method"], value::choice(&[("POST", ()), ("PUT", ()), ("GET", ())]));
            for key in ["secret", "body"] {
                settings.value(findings, &[key], |node| value::text(node).map(drop));
            }
            settings.value(findings, &["secret_file"], |node| {
                scope.secrets.read(value::text(node)?, scope.folders).map(drop)
            });
            for key in ["headers", "payload"] {
                if let Some(field) = settings.find(findings, &[key]) {
                    map_or_text(&field, findings);
                }
            }
        }
    }
}

fn map_or_text(field: &Field<'_>, findings: &mut Findings) {
    let is_text = field.key == "payload" && matches!(field.value.kind, Kind::Scalar { .. });
    if !is_text && !matches!(field.value.kind, Kind::Map(_) | Kind::Broken) && !field.value.is_null() {
        let shown = if secret::is_secret(field.key) { "one value".to_owned() } else { field.value.description() };
        let message = format!("{} takes a map of keys, this is {shown}", field.key);
        findings.0.push(field.finding(Severity::Error, field.value.at, message));
    }
}

fn kind(settings: &Section<'_>, findings: &mut Findings) {
    let kinds =
        [("deployment", ()), ("statefulset", ()), ("daemonset", ()), ("replicaset", ()), ("pod", ()), ("service", ())];
    settings.value(findings, &["kind"], value::choice(&kinds));
}

/// A unit that may be restarted: never the ground that this process stands on.
fn unit(node: &Node) -> Result<(), String> {
    let text = value::line(255)(node)?;
    let is_unit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':' | '\\');
    if !text.chars().all(is_unit) || text.starts_with('-') {
        return Err(format!("{} is no unit: write it like nginx.service", quoted(text)));
    }
    let bare = text.split_once('.').map_or(text, |(bare, _)| bare);
    let bare = bare.split_once('@').map_or(bare, |(bare, _)| bare);
    if UNTOUCHABLE.contains(&bare) || bare.starts_with("systemd-") || bare == "systemd" {
        return Err(format!("{} is never acted on: this host, or this daemon, would be lost with it", quoted(text)));
    }
    Ok(())
}
