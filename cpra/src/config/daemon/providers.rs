//! `[providers.NAME]`: destinations with a name. Their secrets stand in files or in variables, never in the file itself.
//!
//! When the daemon file is read, only the names are taken; each load of monitors reads the rest ([`Declared`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::destinations::{Form, Place};
use super::super::diagnostic::{Diagnostics, quoted};
use super::super::node::{Findings, Mark, Node};
use super::super::providers::{Declared, ProviderKind};
use super::super::scope::{Named, Scope};
use super::super::section::{Field, Section, expect_map};
use super::super::{suggestion, value};
use super::{diagnostic, toml_root};
use crate::domain::Destination;
use crate::domain::monitor::Secret;

/// Named destinations.
const PROVIDERS_MAX: usize = 1_000;

impl Declared {
    /// What `root` declares, the whole of a file called `name`.
    pub(super) fn of(name: &str, text: &str, root: &Section<'_>, environment: impl Fn(&str) -> Option<String>) -> Self {
        let Some(section) = root.section(&mut Findings::default(), &["providers"]) else { return Self::default() };
        let mut declared = Self { file: name.into(), text: text.into(), ..Self::default() };
        for field in section.fields().take(PROVIDERS_MAX) {
            let provider = Section::new(field.value, None, field.at);
            declared.names.push((field.key.into(), kind(&provider, &mut Findings::default())));
            collect_variables(field.value, &environment, &mut declared.environment);
        }
        declared
    }

    /// Whether `[code] fallback` can be `name`; else why not, with the remedy.
    pub(super) fn judge_fallback(&self, name: &str) -> Option<String> {
        if name == FALLBACK {
            return None;
        }
        match self.names.iter().find(|(known, _)| **known == *name) {
            None => {
                let known = self.names().chain([FALLBACK]);
                let remedy = suggestion::did_you_mean(name, known)
                    .unwrap_or_else(|| ": write log, or the name of a [providers.NAME]".to_owned());
                Some(format!("[code] fallback {} is unknown{remedy}", quoted(name)))
            }
            Some((_, Some(kind))) if !kind.is_available() => Some(format!(
                "[code] fallback {} is of type {}, which comes with a later version: name another one",
                quoted(name),
                kind.as_str()
            )),
            Some(_) => None,
        }
    }
}

/// The fallback that needs no provider.
pub const FALLBACK: &str = "log";

fn kind(provider: &Section<'_>, findings: &mut Findings) -> Option<ProviderKind> {
    provider.required(findings, &["type"], "add \"type = \\\"slack\\\"\", or another", |node| {
        let written = value::text(node)?;
        let names = ProviderKind::NAMES.iter().map(|(name, _)| *name);
        ProviderKind::named(written).ok_or_else(|| value::unknown(written, names))
    })
}

/// What the variables hold that `KEY_env = "NAME"` and `{ env = "NAME" }` name, wherever they stand in a provider.
fn collect_variables(
    node: &Node,
    environment: &impl Fn(&str) -> Option<String>,
    found: &mut BTreeMap<Box<str>, Secret>,
) {
    for field in Section::new(node, None, node.at).fields() {
        let names_one = field.key == "env" || field.key.ends_with("_env");
        match value::text(field.value) {
            Ok(name) if names_one => {
                let held = environment(name).filter(|held| !held.trim().is_empty());
                found.extend(held.map(|held| (name.into(), Secret::new(held))));
            }
            Ok(_) => {}
            Err(_) => collect_variables(field.value, environment, found),
        }
    }
}

/// Reads every declared provider into `scope`. What is faulty is said, and known by its name alone.
pub(in super::super) fn read(declared: &Declared, scope: &mut Scope<'_>) -> Diagnostics {
    let mut findings = Findings::default();
    // What is no TOML was said when the file was read for its other keys.
    let root = toml_root(&declared.text, &mut Findings::default());
    if let Some(section) = Section::new(&root, None, Mark::default()).section(&mut findings, &["providers"]) {
        for (count, field) in section.fields().enumerate() {
            if count == PROVIDERS_MAX {
                findings.error(field.at, format!("more than {PROVIDERS_MAX} providers: remove some"));
                break;
            }
            let Some(destinations) = provider(&field, declared, scope, &mut findings) else { continue };
            let destinations = destinations.into_iter().map(|destination| scope.destination(destination)).collect();
            let at = field.at;
            scope.providers.insert(field.key.into(), Named { destinations, at, is_used: false });
        }
    }
    judge_fallback(declared, scope, &mut findings);
    said(declared, findings)
}

/// The destination that `[code] fallback` names.
fn judge_fallback(declared: &Declared, scope: &mut Scope<'_>, findings: &mut Findings) {
    let name = &*scope.folders.fallback;
    let Some(named) = scope.providers.get_mut(name) else { return };
    named.is_used = true;
    match &named.destinations[..] {
        // Faulty, and that was said.
        [] => {}
        [fallback] => scope.fallback = Arc::clone(fallback),
        [_, ..] => {
            let at = named.at;
            let message = format!("{} is the [code] fallback, which has one number: leave one in \"to\"", quoted(name));
            findings.error(at, message);
        }
    }
    debug_assert!(declared.names().any(|known| known == name), "it was read from there");
}

/// Providers that no rule names.
pub(in super::super) fn unused(declared: &Declared, scope: &Scope<'_>) -> Diagnostics {
    let mut findings = Findings::default();
    for (name, named) in scope.providers.iter().filter(|(_, named)| !named.is_used) {
        findings.warning(named.at, format!("no monitor notifies {}: name it in a rule, or remove it", quoted(name)));
    }
    said(declared, findings)
}

fn said(declared: &Declared, findings: Findings) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    for finding in findings.0 {
        diagnostics.push(diagnostic(&declared.file, &declared.text, finding));
    }
    diagnostics.sort();
    diagnostics
}

fn provider(
    field: &Field<'_>,
    declared: &Declared,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Vec<Destination>> {
    let before = findings.0.len();
    if !expect_map(field, findings) {
        return None;
    }
    if ProviderKind::named(field.key).is_some() {
        let message = format!("{} is the name of a type: give the provider a name of its own", quoted(field.key));
        findings.error(field.at, message);
    }
    let name = value::line(255)(&Node::scalar(field.at, field.key.into(), true)).map(drop);
    if let Err(message) = name {
        findings.error(field.at, format!("the name of the provider {message}"));
    }
    let section = Section::new(field.value, None, field.at);
    let kind = kind(&section, findings)?;
    let known = kind.declared_keys();
    for key in section.fields().filter(|key| key.key != "type" && !known.contains(&key.key)) {
        if kind.secrets().contains(&key.key) {
            let file = match key.key {
                "url" => "hook_file".to_owned(),
                "secrets" => "secret_files".to_owned(),
                key => format!("{key}_file"),
            };
            let message = format!(
                "{} is a secret, and does not stand here: put it into a file, and name that with {file}",
                key.key
            );
            findings.error(key.at, message);
        } else {
            let remedy = suggestion::did_you_mean(key.key, known.iter().copied())
                .unwrap_or_else(|| format!(": the keys of {} are {}", kind.as_str(), known.join(", ")));
            findings.error(key.at, format!("unknown key {}{remedy}", quoted(key.key)));
        }
    }
    let mut is_complete = true;
    for row in kind.required() {
        if !section.fields().any(|key| row.contains(&key.key)) {
            let row: Vec<&str> = row.iter().copied().filter(|key| known.contains(key)).collect();
            section.missing(findings, row[0], &format!("{} needs {}", kind.as_str(), row.join(" or ")));
            is_complete = false;
        }
    }
    // What stands where no secret may is not read on from.
    let is_readable = !section.fields().any(|key| kind.secrets().contains(&key.key));
    let Scope { folders, secrets, templates, .. } = scope;
    let form = Form {
        name: field.key,
        kind,
        section,
        place: Place::Declared(&declared.environment),
        is_complete,
        folders,
        secrets,
        templates,
        findings,
    };
    let destinations = if is_readable { form.destinations() } else { Vec::new() };
    let is_sound = !findings.0[before..].iter().any(|finding| finding.severity == super::Severity::Error);
    if is_sound && !kind.is_available() {
        let message = format!("{} is not in this version: no effect, notices go to the fallback", kind.as_str());
        findings.warning(field.at, message);
    }
    Some(if is_sound { destinations } else { Vec::new() })
}
