//! A map as the rules read it: its own keys, and behind them those of `defaults`.

use std::rc::Rc;

use super::diagnostic::{Severity, quoted};
use super::node::{Entry, Finding, Findings, Kind, Mark, Node};
use super::{secret, suggestion, value};

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

/// See [`Section::switch`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Switch<'a> {
    Absent,
    Off(Field<'a>),
    On(Field<'a>, Section<'a>),
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

    /// Whether the key is there, in the map itself or in its defaults.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.own.iter().chain(self.defaults).any(|entry| &*entry.key == key)
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
        let is_mistyped = |entry: &Entry| {
            &*entry.key != name
                && (suggestion::nearest(&entry.key, [name]).is_some()
                    || suggestion::elsewhere(&entry.key) == Some(name))
        };
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

    /// A map that may also be written `true` (all of its keys as they are) or `false`.
    pub(super) fn switch(&self, findings: &mut Findings, names: &[&str]) -> Switch<'a> {
        let Some(field) = self.find(findings, names) else { return Switch::Absent };
        if !matches!(field.value.kind, Kind::Scalar { .. }) || field.value.is_null() {
            return self.section(findings, names).map_or(Switch::Absent, |section| Switch::On(field, section));
        }
        match value::boolean(field.value) {
            Ok(false) => Switch::Off(field),
            Ok(true) => {
                let inherited = self.default_field(|key| names.contains(&key)).filter(|_| !field.inherited);
                let defaults = inherited.map_or(&[][..], |default| entries(default.value));
                Switch::On(field, Section { own: &[], defaults, at: field.at, broken: false })
            }
            Err(_) => {
                let message = format!("{} takes true, false or a map of keys", field.key);
                findings.0.push(field.finding(Severity::Error, field.value.at, message));
                Switch::On(field, Section { broken: true, ..Section::empty(field.at) })
            }
        }
    }

    /// One value, or a list of at most `max`, each read by `parse`. A fault is reported at its own value.
    pub(super) fn list<T>(
        &self,
        findings: &mut Findings,
        names: &[&str],
        max: usize,
        mut parse: impl FnMut(&'a Node) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let field = self.find(findings, names)?;
        if matches!(field.value.kind, Kind::Broken) {
            return None;
        }
        let mut refuse = |at, message: String| {
            findings.0.push(field.finding(Severity::Error, at, format!("{} {message}", field.key)));
        };
        if field.value.is_null() {
            refuse(field.at, "has no value: write one, or remove the key".to_owned());
            return None;
        }
        let items = match value::items(field.value) {
            Ok(items) => items,
            Err(message) => {
                refuse(field.value.at, message);
                return None;
            }
        };
        if items.is_empty() {
            refuse(field.value.at, "is an empty list: write a value, or remove the key".to_owned());
        }
        if items.len() > max {
            refuse(field.value.at, format!("has {} values: at most {max}", items.len()));
        }
        let mut values = Vec::with_capacity(items.len().min(max));
        for item in items.into_iter().take(max) {
            match parse(item) {
                Ok(value) => values.push(value),
                Err(_) if matches!(item.kind, Kind::Broken) => {}
                Err(message) => refuse(item.at, message),
            }
        }
        Some(values)
    }

    /// The map behind a key that was found, as it stands.
    pub(super) fn of(field: &Field<'a>) -> Self {
        if field.inherited { Self::inherited(field.value, field.at) } else { Self::new(field.value, None, field.at) }
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
        check_entries(self.own, false, findings, keys);
    }

    /// The same for the keys of `defaults` as well, where nothing else has looked at them.
    pub(super) fn check_all_keys(&self, findings: &mut Findings, keys: Keys<'_>) {
        check_entries(self.own, false, findings, keys);
        check_entries(self.defaults, true, findings, keys);
    }
}

fn check_entries(entries: &[Entry], inherited: bool, findings: &mut Findings, keys: Keys<'_>) {
    for entry in entries {
        let key = &*entry.key;
        if keys.known.contains(&key) {
            continue;
        }
        let (severity, message) = if keys.without_effect.contains(&key) {
            (Severity::Warning, format!("\"{key}\" is not in this version: no effect"))
        } else if keys.refused.contains(&key) {
            (Severity::Error, format!("\"{key}\" comes with a later version: remove it"))
        } else {
            let all = keys.known.iter().chain(keys.without_effect).chain(keys.refused).copied();
            let ours = suggestion::elsewhere(key).filter(|ours| keys.known.contains(ours));
            let remedy = ours
                .map(|ours| format!(": here it is called \"{ours}\""))
                .or_else(|| suggestion::did_you_mean(key, all))
                .unwrap_or_else(|| format!(": the keys here are {}", keys.known.join(", ")));
            (Severity::Error, format!("unknown key {}{remedy}", quoted(key)))
        };
        findings.0.push(Finding { severity, at: entry.at, message, inherited });
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
            let shown = if secret::is_secret(field.key) { "one value".to_owned() } else { field.value.description() };
            let message = format!("{} takes a map of keys, this is {shown}", field.key);
            findings.0.push(field.finding(Severity::Error, field.value.at, message));
            false
        }
    }
}
