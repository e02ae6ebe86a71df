//! A map as the rules read it: its own keys, and behind them those of `defaults`.

use std::rc::Rc;

use super::diagnostic::{Severity, quoted};
use super::node::{Entry, Finding, Findings, Kind, Mark, Node};
use super::suggestion;

/// Keys that other versions know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keys<'a> {
    pub(super) known: &'a [&'a str],
    /// Loads without them: a warning says that they do nothing here.
    pub(super) without_effect: &'a [&'a str],
    /// Would change what is checked: refused by name.
    pub(super) refused: &'a [&'a str],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    own: &'a [Entry],
    defaults: &'a [Entry],
    /// Where to point when something is missing.
    pub(super) at: Mark,
    /// There is something else where the map should be; that was said, and nothing is missing besides.
    broken: bool,
}

/// A value that was found, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a Rc<Node>,
    pub(super) at: Mark,
    pub(super) inherited: bool,
}

impl Field<'_> {
    pub(super) fn finding(&self, severity: Severity, at: Mark, message: String) -> Finding {
        Finding { severity, at, message, inherited: self.inherited }
    }
}

fn entries(node: &Node) -> &[Entry] {
    match &node.kind {
        Kind::Map(entries) => entries,
        _ => &[],
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(own: &'a Node, defaults: Option<&'a Node>, at: Mark) -> Self {
        Self { own: entries(own), defaults: defaults.map_or(&[], entries), at, broken: false }
    }

    pub(super) const fn empty(at: Mark) -> Self {
        Self { own: &[], defaults: &[], at, broken: false }
    }

    /// A map that stands in `defaults` and is used as it is.
    pub(super) fn inherited(defaults: &'a Node, at: Mark) -> Self {
        Self { own: &[], defaults: entries(defaults), at, broken: false }
    }

    /// The default of a key, whether or not the map has the key itself.
    pub(super) fn default_field(&self, is_key: impl Fn(&str) -> bool) -> Option<Field<'a>> {
        let entry = self.defaults.iter().find(|entry| is_key(&entry.key))?;
        Some(Field { key: &entry.key, value: &entry.value, at: entry.at, inherited: true })
    }

    /// The value of a key or of one of its other names. The map's own goes before the defaults', whatever the name.
    /// Two names of one thing in one map are a contradiction, and reported.
    pub(super) fn find(&self, findings: &mut Findings, names: &[&str]) -> Option<Field<'a>> {
        for (layer, inherited) in [(self.own, false), (self.defaults, true)] {
            let mut found: Option<&Entry> = None;
            for entry in layer.iter().filter(|entry| names.contains(&&*entry.key)) {
                match found {
                    Some(first) if first.merged != entry.merged => {
                        if first.merged {
                            found = Some(entry);
                        }
                    }
                    Some(first) => {
                        let message = format!(
                            "\"{}\" and \"{}\" are two names of one key: remove one of them",
                            first.key, entry.key
                        );
                        findings.0.push(Finding { severity: Severity::Error, at: entry.at, message, inherited });
                    }
                    None => found = Some(entry),
                }
            }
            if let Some(entry) = found {
                return Some(Field { key: &entry.key, value: &entry.value, at: entry.at, inherited });
            }
        }
        None
    }

    /// A key's value, read by `parse`; what `parse` refuses is reported as `key ...` at the value.
    pub(super) fn value<T>(
        &self,
        findings: &mut Findings,
        names: &[&str],
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let field = self.find(findings, names)?;
        read(&field, findings, parse)
    }

    /// A key that must be there.
    pub(super) fn required<T>(
        &self,
        findings: &mut Findings,
        names: &[&str],
        remedy: &str,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        match self.find(findings, names) {
            Some(field) => read(&field, findings, parse),
            None => {
                self.missing(findings, names[0], remedy);
                None
            }
        }
    }

    /// Says that a key is missing, unless it is there with a typing error: that is one mistake, and reported by its key.
    pub(super) fn missing(&self, findings: &mut Findings, name: &str, remedy: &str) {
        let is_mistyped = |entry: &Entry| &*entry.key != name && suggestion::nearest(&entry.key, [name]).is_some();
        if !self.broken && !self.own.iter().any(is_mistyped) {
            findings.error(self.at, format!("{name} is missing: {remedy}"));
        }
    }

    /// A map below a key, its defaults behind it. `None` when the key is nowhere; nothing behind the key is an empty map.
    pub(super) fn section(&self, findings: &mut Findings, names: &[&str]) -> Option<Section<'a>> {
        let field = self.find(findings, names)?;
        if !expect_map(&field, findings) {
            return Some(Section { broken: true, ..Section::empty(field.at) });
        }
        let own = if field.inherited { &[][..] } else { entries(field.value) };
        // The other names count as well: `pulse_check` inherits from `defaults.pulse`.
        let defaults = self
            .defaults
            .iter()
            .find(|entry| names.contains(&&*entry.key))
            .map_or(&[][..], |entry| entries(&entry.value));
        let at = if field.inherited { self.at } else { field.at };
        Some(Section { own, defaults, at, broken: false })
    }

    /// Every key, the map's own first, each once.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        let field =
            |inherited| move |entry: &'a Entry| Field { key: &entry.key, value: &entry.value, at: entry.at, inherited };
        let own = self.own;
        let inherited = self.defaults.iter().filter(move |entry| !own.iter().any(|mine| mine.key == entry.key));
        self.own.iter().map(field(false)).chain(inherited.map(field(true)))
    }

    /// Reports every key of the map itself that `keys` does not name.
    pub(super) fn check_keys(&self, findings: &mut Findings, keys: Keys<'_>) {
        for entry in self.own {
            let key = &*entry.key;
            if keys.known.contains(&key) {
                continue;
            }
            if keys.without_effect.contains(&key) {
                findings.warning(entry.at, format!("\"{key}\" is not in this version: no effect"));
            } else if keys.refused.contains(&key) {
                findings.error(entry.at, format!("\"{key}\" comes with a later version: remove it"));
            } else {
                let all = keys.known.iter().chain(keys.without_effect).chain(keys.refused).copied();
                let remedy = suggestion::did_you_mean(key, all)
                    .unwrap_or_else(|| format!(": the keys here are {}", keys.known.join(", ")));
                findings.error(entry.at, format!("unknown key {}{remedy}", quoted(key)));
            }
        }
    }
}

fn read<T>(field: &Field<'_>, findings: &mut Findings, parse: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
    if matches!(field.value.kind, Kind::Broken) {
        return None;
    }
    if field.value.is_null() {
        findings.0.push(field.finding(
            Severity::Error,
            field.at,
            format!("{} has no value: write one, or remove the key", field.key),
        ));
        return None;
    }
    parse(field.value)
        .map_err(|message| {
            findings.0.push(field.finding(Severity::Error, field.value.at, format!("{} {message}", field.key)));
        })
        .ok()
}

/// Whether there is a map (or nothing) behind the key; anything else is reported.
pub(super) fn expect_map(field: &Field<'_>, findings: &mut Findings) -> bool {
    match &field.value.kind {
        Kind::Map(_) => true,
        Kind::Broken => false,
        _ if field.value.is_null() => true,
        _ => {
            let message = format!("{} takes a map of keys, this is {}", field.key, field.value.description());
            findings.0.push(field.finding(Severity::Error, field.value.at, message));
            false
        }
    }
}
