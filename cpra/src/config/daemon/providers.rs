//! `[providers.NAME]`: destinations with a name, and secrets only by the file that they are in.
//!
//! This version delivers to the log; the others are checked, so that a file for a later version can be written today.

use std::path::PathBuf;

use super::super::diagnostic::quoted;
use super::super::node::{Findings, Kind};
use super::super::providers::ProviderKind;
use super::super::section::{Field, Section, expect_map};
use super::super::{suggestion, value};

/// Named destinations.
const PROVIDERS_MAX: usize = 1_000;

/// One `[providers.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub name: Box<str>,
    pub kind: ProviderKind,
    /// `file` of a log.
    pub file: Option<PathBuf>,
    /// The keys that end in `_file`.
    pub secret_files: Vec<(Box<str>, PathBuf)>,
}

/// The keys that may stand here: no secrets, and no text that belongs to a monitor.
fn keys(kind: ProviderKind) -> Vec<&'static str> {
    let fits = |key: &&str| !kind.secrets().contains(key) && *key != "payload";
    kind.keys().iter().copied().filter(fits).collect()
}

/// Every provider of the daemon file. What is faulty is said, and left out.
pub(super) fn read(section: &Section<'_>, findings: &mut Findings) -> Vec<Provider> {
    let mut providers = Vec::new();
    for field in section.fields() {
        if providers.len() == PROVIDERS_MAX {
            findings.error(field.at, format!("more than {PROVIDERS_MAX} providers: remove some"));
            break;
        }
        if let Some(provider) = provider(&field, findings) {
            if !provider.kind.is_available() {
                let kind = provider.kind.as_str();
                let message = format!("{kind} is not in this version: no effect, notices go to the fallback");
                findings.warning(field.at, message);
            }
            providers.push(provider);
        }
    }
    providers
}

fn provider(field: &Field<'_>, findings: &mut Findings) -> Option<Provider> {
    let before = findings.0.len();
    if !expect_map(field, findings) {
        return None;
    }
    if ProviderKind::named(field.key).is_some() {
        let message = format!("{} is the name of a type: give the provider a name of its own", quoted(field.key));
        findings.error(field.at, message);
    }
    let section = Section::new(field.value, None, field.at);
    let kind = section.required(findings, &["type"], "add \"type = \\\"slack\\\"\", or another", |node| {
        let written = value::text(node)?;
        let names = ProviderKind::NAMES.iter().map(|(name, _)| *name);
        ProviderKind::named(written).ok_or_else(|| value::unknown(written, names))
    })?;
    let known = keys(kind);
    let mut provider = Provider { name: field.key.into(), kind, file: None, secret_files: Vec::new() };
    for key in section.fields().filter(|key| key.key != "type") {
        if kind.secrets().contains(&key.key) {
            let file = format!("{}_file", if key.key == "url" { "hook" } else { key.key });
            let message = format!(
                "{} is a secret, and does not stand here: put it into a file, and name that with {file}",
                key.key
            );
            findings.error(key.at, message);
        } else if !known.contains(&key.key) {
            let remedy = suggestion::did_you_mean(key.key, known.iter().copied())
                .unwrap_or_else(|| format!(": the keys of {} are {}", kind.as_str(), known.join(", ")));
            findings.error(key.at, format!("unknown key {}{remedy}", quoted(key.key)));
        } else if key.key == "file" || key.key.ends_with("_file") {
            let file = section.value(findings, &[key.key], |node| {
                let file = value::line(4096)(node)?;
                let is_whole = file.starts_with('/') && !file.split('/').any(|part| part == "..");
                is_whole
                    .then(|| PathBuf::from(file))
                    .ok_or_else(|| format!("{} is not absolute: write the whole path, without \"..\"", quoted(file)))
            });
            match file {
                Some(file) if key.key == "file" => provider.file = Some(file),
                Some(file) => provider.secret_files.push((key.key.into(), file)),
                None => {}
            }
        } else if !matches!(key.value.kind, Kind::Map(_) | Kind::List(_)) {
            section.value(findings, &[key.key], |node| value::line(2_048)(node).map(drop));
        }
    }
    for row in kind.required() {
        let row: Vec<&str> = row.iter().copied().filter(|key| known.contains(key)).collect();
        if !section.fields().any(|key| row.contains(&key.key)) {
            section.missing(findings, row[0], &format!("{} needs {}", kind.as_str(), row.join(" or ")));
        }
    }
    let is_sound = !findings.0[before..].iter().any(|finding| finding.severity == super::Severity::Error);
    is_sound.then_some(provider)
}
