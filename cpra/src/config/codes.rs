//! The rules of `codes`: who is told at which color.
//!
//! A red that nobody can receive (no rule, switched off, or only providers that this version does not speak to) goes to
//! the fallback, and is counted: the one notice that must not be lost is the one about what is down.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Severity, quoted};
use super::folders::{Folders, log_path_allowed};
use super::node::{Findings, Kind, Node};
use super::providers::ProviderKind;
use super::scope::Scope;
use super::section::{Field, Keys, Section, expect_map};
use super::{address, suggestion, value};
use crate::domain::monitor::{CodeRule, Dispatch};
use crate::domain::{Codes, Color, Destination};
use crate::units::Span;
use crate::units::limits::INTERVAL_MAX;

const RULE_KEYS: Keys<'static> = Keys { known: &["dispatch", "notify", "config"], without_effect: &[], refused: &[] };

const DISPATCH: [(&str, Dispatch); 4] =
    [("true", Dispatch::On), ("false", Dispatch::Off), ("failure", Dispatch::On), ("always", Dispatch::Always)];

/// Destinations of one color.
const RECEIVERS_MAX: usize = 16;

/// The codes of a monitor, and whether its red goes to the fallback.
pub(super) struct Told {
    pub(super) codes: Codes,
    pub(super) red_to_fallback: bool,
}

pub(super) fn codes(monitor: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings) -> Told {
    let mut codes = Codes::default();
    let mut red_reaches = false;
    if let Some(section) = monitor.section(findings, &["codes"]) {
        for (color, own, default) in colors(&section, findings) {
            let Some(field) = own.or(default) else { continue };
            let merged = default.filter(|_| own.is_some());
            if let Some((rule, reaches)) = rule(color, field, merged, scope, findings) {
                red_reaches |= color == Color::Red && reaches && rule.dispatch != Dispatch::Off;
                codes.set(color, rule);
            }
        }
    }
    if !red_reaches {
        // The rule stays as it is where it sends to the fallback anyway: `always` means something there, too.
        let dispatch = match codes.rule(Color::Red).map(|rule| rule.dispatch) {
            Some(Dispatch::Always) => Dispatch::Always,
            Some(Dispatch::On | Dispatch::Off) | None => Dispatch::On,
        };
        codes.set(Color::Red, CodeRule { dispatch, notify: Box::new([fallback()]) });
    }
    Told { codes, red_to_fallback: !red_reaches }
}

fn fallback() -> Arc<Destination> {
    Arc::new(Destination::log(None))
}

/// The keys of `defaults.codes`.
pub(super) fn check_keys(defaults: &Section<'_>, findings: &mut Findings) {
    let Some(section) = defaults.section(findings, &["codes"]) else { return };
    for (_, own, _) in colors(&section, findings) {
        let Some(field) = own else { continue };
        if expect_map(&field, findings) {
            let rule = Section::new(field.value, None, field.at);
            rule.check_keys(findings, RULE_KEYS);
            // Whom it is for may stand at the monitor.
            if rule.find(findings, &["notify"]).is_none()
                && let Some(config) = rule.section(findings, &["config"])
            {
                let every = ProviderKind::NAMES.map(|(_, kind)| kind);
                config.check_keys(findings, Keys { known: &keys_of(&every), ..Keys::default() });
            }
        }
    }
}

fn keys_of(kinds: &[ProviderKind]) -> Vec<&'static str> {
    let mut keys: Vec<&str> = Vec::new();
    for key in kinds.iter().flat_map(|kind| kind.keys()) {
        if !keys.contains(key) {
            keys.push(key);
        }
    }
    keys
}

type Colored<'a> = (Color, Option<Field<'a>>, Option<Field<'a>>);

/// The colors that are there, each with its own rule and the default one. Colors are spelled in any case.
fn colors<'a>(section: &Section<'a>, findings: &mut Findings) -> Vec<Colored<'a>> {
    let mut found: Vec<Colored<'a>> = Vec::new();
    for field in section.fields() {
        let Some(color) = Color::ALL.into_iter().find(|color| color.as_str().eq_ignore_ascii_case(field.key)) else {
            // What `defaults` has wrong is said there.
            if !field.inherited {
                let names = Color::ALL.map(Color::as_str);
                let remedy = suggestion::did_you_mean(field.key, names)
                    .unwrap_or_else(|| format!(": the colors are {}", names.join(", ")));
                findings.error(field.at, format!("unknown color {}{remedy}", quoted(field.key)));
            }
            continue;
        };
        let index = found.iter().position(|(known, ..)| *known == color).unwrap_or_else(|| {
            found.push((color, None, None));
            found.len() - 1
        });
        let place = if field.inherited { &mut found[index].2 } else { &mut found[index].1 };
        match place {
            Some(first) if !field.inherited => {
                let message = format!("\"{}\" and \"{}\" are one color: remove one of them", first.key, field.key);
                findings.error(field.at, message);
            }
            _ => *place = Some(field),
        }
    }
    // A color spelled alike in both places hides the default from `fields`.
    for (color, own, default) in &mut found {
        if own.is_some() && default.is_none() {
            *default = section.default_field(|key| color.as_str().eq_ignore_ascii_case(key));
        }
    }
    found
}

/// The rule of a color, and whether somebody who is named in it can be reached.
fn rule(
    color: Color,
    field: Field<'_>,
    default: Option<Field<'_>>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<(CodeRule, bool)> {
    if !expect_map(&field, findings) {
        return None;
    }
    let rule = if field.inherited {
        Section::inherited(field.value, field.at)
    } else {
        Section::new(field.value, default.map(|default| &**default.value), field.at)
    };
    rule.check_keys(findings, RULE_KEYS);
    let dispatch = rule.value(findings, &["dispatch"], value::choice(&DISPATCH)).unwrap_or(Dispatch::On);
    let notify = rule.find(findings, &["notify"]).filter(|notify| !matches!(notify.value.kind, Kind::Broken));
    let receivers = notify.map_or_else(Vec::new, |notify| receivers(&notify, scope.folders, findings));
    // Without `notify`, notices go to the log.
    let mut kinds: Vec<ProviderKind> = receivers.iter().map(|receiver| receiver.kind).collect();
    if kinds.is_empty() {
        kinds.push(ProviderKind::Log);
    }
    let config = rule.section(findings, &["config"]);
    let mut file = None;
    if let Some(config) = &config {
        config.check_keys(findings, Keys { known: &keys_of(&kinds), ..Keys::default() });
        for config_field in config.fields().filter(|field| keys_of(&kinds).contains(&field.key)) {
            match config_field.key {
                "file" => file = config.value(findings, &["file"], |node| log_file(node, scope.folders)),
                _ => setting(&config_field, config, &kinds, scope, findings),
            }
        }
    }
    let mut destinations = Vec::new();
    let mut reaches = false;
    for receiver in &receivers {
        if receiver.kind.is_available() {
            let file = receiver.file.clone().or_else(|| file.clone());
            destinations.push(Arc::new(Destination::log(file)));
            reaches = true;
        } else {
            destinations.push(fallback());
            if let Some(notify) = &notify {
                let message = format!("{color}: {}", unavailable(receiver, config.as_ref()));
                findings.0.push(notify.finding(Severity::Warning, receiver.item.at, message));
            }
        }
    }
    if destinations.is_empty() {
        reaches = file.is_some();
        destinations.push(Arc::new(Destination::log(file)));
    }
    Some((CodeRule { dispatch, notify: destinations.into() }, reaches))
}

/// Somebody who is told.
struct Receiver<'a> {
    name: &'a str,
    /// Of `[providers.NAME]`: its address stands there.
    is_named: bool,
    kind: ProviderKind,
    file: Option<PathBuf>,
    item: &'a Node,
}

fn unavailable(receiver: &Receiver<'_>, config: Option<&Section<'_>>) -> String {
    let (name, kind) = (quoted(receiver.name), receiver.kind.as_str());
    let has = |key: &str| config.is_some_and(|config| config.fields().any(|field| field.key == key));
    let missing = receiver.kind.required().iter().find(|keys| !receiver.is_named && !keys.iter().any(|key| has(key)));
    match missing {
        Some(_) if receiver.kind == ProviderKind::PagerDuty => {
            "no routing key is known for \"pagerduty\" (a url alone names no service): add routing_key_file; its notices go \
             to the fallback log"
                .to_owned()
        }
        Some(keys) => format!(
            "notify {name} has no {}: add it to config; its notices go to the fallback log",
            keys.join(" or ")
        ),
        None if receiver.is_named => {
            format!("notify {name} is of type {kind}, which comes with a later version: its notices go to the fallback log")
        }
        None => format!("notify {name} comes with a later version: its notices go to the fallback log"),
    }
}

fn receivers<'a>(notify: &Field<'a>, folders: &Folders, findings: &mut Findings) -> Vec<Receiver<'a>> {
    let mut refuse =
        |at, message: String| findings.0.push(notify.finding(Severity::Error, at, format!("notify {message}")));
    let mut receivers: Vec<Receiver<'a>> = Vec::new();
    let items: Vec<&'a Node> = match &notify.value.kind {
        Kind::List(items) => items.iter().map(std::rc::Rc::as_ref).collect(),
        Kind::Scalar { .. } => vec![notify.value],
        _ => {
            refuse(notify.value.at, format!("takes one value or a list, this is {}", notify.value.description()));
            return receivers;
        }
    };
    if items.is_empty() {
        refuse(notify.value.at, "is an empty list: write log, or \"dispatch: false\" to tell nobody".to_owned());
    }
    if items.len() > RECEIVERS_MAX {
        refuse(notify.value.at, format!("has {} values: at most {RECEIVERS_MAX}", items.len()));
    }
    for item in items.into_iter().take(RECEIVERS_MAX) {
        match value::text(item) {
            _ if item.is_null() => refuse(item.at, "has no value: write log".to_owned()),
            Ok(name) => {
                if let Some(provider) = folders.providers.get(name) {
                    let (kind, file) = (provider.kind, provider.file.clone());
                    receivers.push(Receiver { name, is_named: true, kind, file, item });
                } else if let Some(kind) = ProviderKind::named(name) {
                    receivers.push(Receiver { name, is_named: false, kind, file: None, item });
                } else {
                    let types = ProviderKind::NAMES.map(|(name, _)| name);
                    let known = types.into_iter().chain(folders.providers.names());
                    let remedy = suggestion::did_you_mean(name, known).unwrap_or_else(|| {
                        format!(": define [providers.{}] in the daemon file, or write log", bare(name))
                    });
                    refuse(item.at, format!("{} is unknown{remedy}", quoted(name)));
                }
            }
            Err(_) if matches!(item.kind, Kind::Broken) => {}
            Err(message) => refuse(item.at, message),
        }
    }
    receivers
}

/// A name as a table of TOML, as far as it may be one without quotes.
fn bare(name: &str) -> String {
    let is_bare = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { name.to_owned() } else { "NAME".to_owned() }
}

fn log_file(node: &Node, folders: &Folders) -> Result<PathBuf, String> {
    let file = value::line(4096)(node)?;
    log_path_allowed(Path::new(file), folders).map_err(|error| format!("{} {error}", quoted(file)))
}

/// A key of a provider that this version does not speak to: its form is judged, and no message holds a secret.
fn setting(
    field: &Field<'_>,
    config: &Section<'_>,
    kinds: &[ProviderKind],
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) {
    const LINE_MAX: usize = 4096;
    let key = [field.key];
    let line = value::line(LINE_MAX);
    match field.key {
        "payload" | "labels" | "annotations" | "headers" => {
            if field.value.is_null() || (field.key == "payload" && matches!(field.value.kind, Kind::Scalar { .. })) {
                return;
            }
            expect_map(field, findings);
        }
        // The original takes anything here, even a name.
        "url" if kinds.contains(&ProviderKind::PagerDuty) => {
            config.value(findings, &key, |node| line(node).map(drop));
        }
        "url" | "hook" | "generator_url" => {
            config.value(findings, &key, web_address);
        }
        "port" => {
            config.value(findings, &key, value::integer(1..=u64::from(u16::MAX)));
        }
        "timeout" => {
            config.value(findings, &key, value::span(Span::from_millis(1)..=INTERVAL_MAX));
        }
        "tls" => {
            config.switch(findings, &key);
        }
        "to" | "cc" | "tags" => {
            config.list(findings, &key, 64, |node| line(node).map(drop));
        }
        "severity" => {
            let levels = [("critical", ()), ("error", ()), ("warning", ()), ("info", ())];
            config.value(findings, &key, value::choice(&levels));
        }
        file if file.ends_with("_file") => {
            let read = |node: &Node| scope.secrets.read(value::text(node)?, scope.folders).map(drop);
            config.value(findings, &key, read);
        }
        _ => {
            config.value(findings, &key, |node| line(node).map(drop));
        }
    }
}

/// An http(s) address of a provider: often a password itself, and so in no message.
pub(super) fn web_address(node: &Node) -> Result<(), String> {
    let text = value::text(node)?;
    let hidden = |_| "is no http or https address: write it like \"https://example.com/path\"".to_owned();
    address::url(text).map(drop).map_err(hidden)
}
