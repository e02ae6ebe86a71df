//! `targets`: one definition, many monitors.
//!
//! Each target becomes a tree of its own, made of the definition's keys and of what the target says beside or instead
//! of them; the values keep their places in the file, so that a fault is shown where it was written. A fault of the
//! definition itself is met by each of its targets, and said once.

use std::rc::Rc;

use super::check;
use super::diagnostic::quoted;
use super::monitor::{MONITOR_KEYS, PULSE, PULSE_KEYS};
use super::node::{Entry, Finding, Findings, Kind, Mark, Node};
use super::section::Section;
use super::{address, value};
use crate::domain::Host;
use crate::domain::monitor::CheckKind;
use crate::units::limits::TARGETS_MAX;

/// One of them, as if it were written out.
pub(super) struct Target {
    pub(super) node: Rc<Node>,
    pub(super) at: Mark,
}

/// The targets of a definition; `None` where it is a monitor itself.
pub(super) fn expand(
    own: &Rc<Node>,
    defaults: Option<&Node>,
    at: Mark,
    findings: &mut Findings,
) -> Option<Vec<Target>> {
    let section = Section::new(own, None, at);
    let field = section.find(findings, &["targets"])?;
    let Kind::Map(entries) = &own.kind else { return None };
    let items = match &field.value.kind {
        Kind::List(items) if items.len() > TARGETS_MAX => {
            let message =
                format!("targets has {} values: at most {TARGETS_MAX}, write several definitions", items.len());
            findings.error(field.value.at, message);
            return Some(vec![]);
        }
        Kind::List(items) if items.is_empty() => {
            findings.error(field.value.at, "targets is an empty list: write a target, or remove the key");
            return Some(vec![]);
        }
        Kind::List(items) => items,
        Kind::Broken => return Some(vec![]),
        _ => {
            let message = format!("targets takes a list, this is {}", field.value.description());
            findings.error(field.value.at, message);
            return Some(vec![]);
        }
    };
    let name = section.find(findings, &["name"]).and_then(|name| value::text(name.value).ok());
    let whole = Section::new(own, defaults, at);
    let pulse = whole.section(&mut Findings::default(), &PULSE);
    let kind = pulse.as_ref().and_then(check::kind);
    let base: Vec<Entry> = entries.iter().filter(|entry| !matches!(&*entry.key, "targets" | "name")).cloned().collect();
    let block = pulse.as_ref().and_then(|pulse| {
        kind.and_then(|kind| pulse.find(&mut Findings::default(), check::blocks(kind)).map(|field| field.key))
    });
    let template = Template { name, base, kind, block: block.unwrap_or("config") };
    Some(items.iter().filter_map(|item| template.target(item, findings)).collect())
}

struct Template<'a> {
    name: Option<&'a str>,
    base: Vec<Entry>,
    kind: Option<CheckKind>,
    /// Where the settings of the check stand.
    block: &'a str,
}

impl Template<'_> {
    fn target(&self, item: &Rc<Node>, findings: &mut Findings) -> Option<Target> {
        let mut monitor: Vec<Entry> = Vec::new();
        let mut pulse: Vec<Entry> = Vec::new();
        let mut config: Vec<Entry> = Vec::new();
        let mut name = None;
        match &item.kind {
            Kind::Broken => return None,
            Kind::Map(entries) => {
                for entry in entries {
                    match &*entry.key {
                        "name" => name = Some(entry.value.clone()),
                        "targets" => findings.error(entry.at, "a target has no targets of its own: remove the key"),
                        key if MONITOR_KEYS.known.contains(&key) => monitor.push(entry.clone()),
                        key if PULSE_KEYS.known.contains(&key) && is_of_pulse(entry) => {
                            pulse.push(entry.clone());
                        }
                        _ => config.push(entry.clone()),
                    }
                }
                if name.is_none() {
                    name = self.named_by_settings(item, &config);
                    if name.is_none() {
                        findings.error(item.at, "a target without a host or url needs a name: add \"name: ...\" to it");
                        return None;
                    }
                }
            }
            Kind::List(_) => {
                findings.error(item.at, "a target is a host, an address or a map of keys, this is a list");
                return None;
            }
            Kind::Scalar { .. } => match value::line(4096)(item).and_then(|text| self.settings(text, item)) {
                Ok(settings) => {
                    config = settings;
                    name = value::text(item).ok().map(|text| self.name_node(text, item.at));
                }
                Err(message) => {
                    findings.error(item.at, format!("a target {message}"));
                    return None;
                }
            },
        }
        let entry = |key: &str, value: Rc<Node>| Entry { key: key.into(), at: item.at, value, merged: false };
        let map = |entries: Vec<Entry>| Rc::new(Node::new(item.at, Kind::Map(entries)));
        if !config.is_empty() {
            put(&mut pulse, entry(self.block, map(config)));
        }
        let mut entries = self.base.clone();
        if !pulse.is_empty() {
            let key =
                entries.iter().find(|entry| PULSE.contains(&&*entry.key)).map_or("pulse".into(), |e| e.key.clone());
            put(&mut entries, entry(&key, map(pulse)));
        }
        for own in monitor {
            put(&mut entries, own);
        }
        entries.push(entry("name", name?));
        Some(Target { node: map(entries), at: item.at })
    }

    /// `definition/target`
    fn name_node(&self, target: &str, at: Mark) -> Rc<Node> {
        let name = match self.name {
            Some(name) => format!("{name}/{target}"),
            None => target.to_owned(),
        };
        Rc::new(Node::scalar(at, name.into(), true))
    }

    fn named_by_settings(&self, item: &Node, config: &[Entry]) -> Option<Rc<Node>> {
        let text = |key: &str| config.iter().find(|e| &*e.key == key).and_then(|e| value::text(&e.value).ok());
        let port = text("port").map_or_else(String::new, |port| format!(":{port}"));
        let named = text("url").or_else(|| text("server")).map(str::to_owned);
        let named = named.or_else(|| text("host").map(|host| format!("{host}{port}")))?;
        Some(self.name_node(&named, item.at))
    }

    /// What a target that is one value stands for.
    fn settings(&self, text: &str, item: &Rc<Node>) -> Result<Vec<Entry>, String> {
        let entry = |key: &str, value: Rc<Node>| Entry { key: key.into(), at: item.at, value, merged: false };
        let scalar = |text: String| Rc::new(Node::scalar(item.at, text.into(), false));
        match self.kind {
            Some(CheckKind::Http) => Ok(vec![entry("url", item.clone())]),
            Some(CheckKind::Icmp) => Ok(vec![entry("host", item.clone())]),
            Some(CheckKind::Dns) => Ok(vec![entry("server", item.clone())]),
            Some(CheckKind::Tcp) => {
                let (host, port) =
                    address::host_port(text).map_err(|message| message.replacen("has the host ", "", 1))?;
                let host = match host {
                    Host::Literal(address) => address.to_string(),
                    Host::Name(name) => name.into(),
                };
                let mut entries = vec![entry("host", scalar(host))];
                entries.extend(port.map(|port| entry("port", scalar(port.to_string()))));
                Ok(entries)
            }
            Some(kind @ (CheckKind::Script | CheckKind::Push)) => Err(format!(
                "of type {} is a map: write {{name: {}, ...}}",
                kind.as_str(),
                quoted(text).trim_matches('"')
            )),
            None => Err("needs a type that says what it is: add \"type: ...\" to pulse".to_owned()),
        }
    }
}

/// `script: /path` is the original's word for the program, `script: {...}` a block of settings.
fn is_of_pulse(entry: &Entry) -> bool {
    &*entry.key != "script" || matches!(entry.value.kind, Kind::Map(_))
}

/// Puts a key over the one that is there: maps are merged, everything else is replaced.
fn put(entries: &mut Vec<Entry>, over: Entry) {
    let mut value = over.value.clone();
    if let Some(under) = entries.iter().find(|entry| entry.key == over.key)
        && let (Kind::Map(under), Kind::Map(over)) = (&under.value.kind, &over.value.kind)
    {
        let mut merged = under.clone();
        for entry in over {
            put(&mut merged, entry.clone());
        }
        value = Rc::new(Node::new(value.at, Kind::Map(merged)));
    }
    entries.retain(|entry| entry.key != over.key);
    entries.push(Entry { value, ..over });
}

/// The findings of several targets: each once, with whether it is of one target alone.
#[derive(Default)]
pub(super) struct Shared(
    Vec<(Finding, Box<str>, usize)>,
    hashbrown::HashMap<(Mark, String), usize, rustc_hash::FxBuildHasher>,
);

impl Shared {
    pub(super) fn add(&mut self, name: &str, findings: Findings) {
        for finding in findings.0 {
            let key = (finding.at, finding.message.clone());
            if let Some(&index) = self.1.get(&key) {
                self.0[index].2 += 1;
            } else {
                self.1.insert(key, self.0.len());
                self.0.push((finding, name.into(), 1));
            }
        }
    }

    /// Each finding, with the name of the target whose alone it is.
    pub(super) fn into_findings(self) -> impl Iterator<Item = (Option<Box<str>>, Finding)> {
        self.0.into_iter().map(|(finding, name, count)| ((count == 1).then_some(name), finding))
    }
}

/// A definition's name for messages.
pub(super) fn definition_name<'a>(section: &Section<'a>) -> Option<&'a str> {
    let field = section.find(&mut Findings::default(), &["name"])?;
    value::text(field.value).ok()
}
