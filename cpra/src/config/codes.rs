//! The rules of `codes`: who is told at which color.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Severity, quoted};
use super::folders::{Folders, log_path_allowed};
use super::node::{Findings, Kind};
use super::section::{Field, Keys, Section, expect_map};
use super::suggestion;
use super::value;
use crate::domain::monitor::{CodeRule, Dispatch};
use crate::domain::{Codes, Color, Destination};

const RULE_KEYS: Keys<'static> = Keys { known: &["dispatch", "notify", "config"], without_effect: &[], refused: &[] };
const LOG_KEYS: Keys<'static> = Keys { known: &["file"], without_effect: &[], refused: &[] };

const DISPATCH: [(&str, Dispatch); 4] =
    [("true", Dispatch::On), ("false", Dispatch::Off), ("failure", Dispatch::On), ("always", Dispatch::Always)];

/// Provider types that other versions know.
const LATER: [&str; 12] = [
    "pagerduty",
    "slack",
    "email",
    "sms",
    "webhook",
    "alertmanager",
    "opsgenie",
    "telegram",
    "discord",
    "teams",
    "twilio",
    "smtp",
];

pub(super) fn codes(monitor: &Section<'_>, folders: &Folders, findings: &mut Findings) -> Codes {
    let mut codes = Codes::default();
    let Some(section) = monitor.section(findings, &["codes"]) else { return codes };
    for (color, own, default) in colors(&section, findings) {
        let Some(field) = own.or(default) else { continue };
        let merged = default.filter(|_| own.is_some());
        if let Some(rule) = rule(field, merged, folders, findings) {
            codes.set(color, rule);
        }
    }
    codes
}

/// Whether somebody is told at yellow, and nobody at red.
pub(super) fn only_yellow(codes: &Codes) -> bool {
    !codes.destinations(Color::Yellow).is_empty() && codes.destinations(Color::Red).is_empty()
}

/// The keys of `defaults.codes`.
pub(super) fn check_keys(defaults: &Section<'_>, findings: &mut Findings) {
    let Some(section) = defaults.section(findings, &["codes"]) else { return };
    for (_, own, _) in colors(&section, findings) {
        let Some(field) = own else { continue };
        if expect_map(&field, findings) {
            let rule = Section::new(field.value, None, field.at);
            rule.check_keys(findings, RULE_KEYS);
            if let Some(config) = rule.section(findings, &["config"]) {
                config.check_keys(findings, LOG_KEYS);
            }
        }
    }
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

fn rule(field: Field<'_>, default: Option<Field<'_>>, folders: &Folders, findings: &mut Findings) -> Option<CodeRule> {
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
    let file = rule.section(findings, &["config"]).and_then(|config| {
        config.check_keys(findings, LOG_KEYS);
        config.value(findings, &["file"], |node| {
            let file = value::line(4096)(node)?;
            log_path_allowed(Path::new(file), folders).map_err(|error| format!("{} {error}", quoted(file)))
        })
    });
    // Without `notify`, notices go to the fallback, which is the log.
    if let Some(notify) = rule.find(findings, &["notify"])
        && !matches!(notify.value.kind, Kind::Broken)
    {
        check_providers(&notify, findings);
    }
    Some(CodeRule { dispatch, notify: Box::new([Arc::new(Destination::Log { file })]) })
}

fn check_providers(notify: &Field<'_>, findings: &mut Findings) {
    let mut refuse =
        |at, message: String| findings.0.push(notify.finding(Severity::Error, at, format!("notify {message}")));
    let items = match value::items(notify.value) {
        Ok(items) => items,
        Err(message) => return refuse(notify.value.at, message),
    };
    if items.is_empty() {
        refuse(notify.value.at, "is an empty list: write log, or \"dispatch: false\" to tell nobody".to_owned());
    }
    for item in items {
        match value::text(item) {
            _ if item.is_null() => refuse(item.at, "has no value: write log".to_owned()),
            Ok("log") => {}
            Ok(name) if LATER.contains(&name) => {
                refuse(item.at, format!("{} comes with a later version: write log", quoted(name)));
            }
            Ok(name) => {
                let remedy = suggestion::did_you_mean(name, ["log"])
                    .unwrap_or_else(|| ": named providers come with a later version, write log".to_owned());
                refuse(item.at, format!("{} is unknown{remedy}", quoted(name)));
            }
            Err(message) => refuse(item.at, message),
        }
    }
}
