//! The rules of `codes`: who is told at which color.
//!
//! A red that nobody can receive (no rule, switched off, or only providers that this version does not speak to) goes to
//! the fallback, and is counted: the one notice that must not be lost is the one about what is down.
//!
//! A destination is one value for all colors of a monitor that reach the same place, with the texts of all of them: where
//! each color had its own, the one who was raised at by one color and resolved by another would be two.

use std::sync::Arc;

use super::destinations::{Form, Place};
use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Kind, Node};
use super::providers::ProviderKind;
use super::scope::Scope;
use super::section::{Field, Keys, Section, expect_map};
use super::{suggestion, value};
use crate::domain::destination::{Provider, Wording, Words};
use crate::domain::monitor::{CodeRule, Dispatch};
use crate::domain::{Codes, Color, Destination};

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
    let mut rules: Vec<Rule> = Vec::new();
    if let Some(section) = monitor.section(findings, &["codes"]) {
        for (color, own, default) in colors(&section, findings) {
            let Some(field) = own.or(default) else { continue };
            let merged = default.filter(|_| own.is_some());
            let before = findings.0.len();
            rules.extend(rule(color, field, merged, scope, findings));
            // Several receivers read one `config`: what is wrong with it is said once.
            let mut said = findings.0.split_off(before);
            for finding in said.drain(..) {
                if !findings.0[before..].contains(&finding) {
                    findings.0.push(finding);
                }
            }
            if let Some(other) = paged_twice(&rules) {
                let message = format!(
                    "{color} pages the service of {other} with other settings, so that it has two incidents for one: write \
                     the same config at both, or the settings into [providers.NAME]"
                );
                findings.0.push(field.finding(Severity::Warning, field.at, message));
            }
        }
    }
    let red_reaches =
        rules.iter().any(|rule| rule.color == Color::Red && rule.reaches && rule.dispatch != Dispatch::Off);
    let mut codes = Codes::default();
    for (color, rule) in put_together(rules, scope) {
        codes.set(color, rule);
    }
    if !red_reaches {
        // The rule stays as it is where it sends to the fallback anyway: `always` means something there, too.
        let dispatch = match codes.rule(Color::Red).map(|rule| rule.dispatch) {
            Some(Dispatch::Always) => Dispatch::Always,
            Some(Dispatch::On | Dispatch::Off) | None => Dispatch::On,
        };
        codes.set(Color::Red, CodeRule { dispatch, notify: Box::new([Arc::clone(&scope.fallback)]) });
    }
    Told { codes, red_to_fallback: !red_reaches }
}

/// One color's rule.
struct Rule {
    color: Color,
    dispatch: Dispatch,
    /// Where it goes, without what the rule says of the texts, and that.
    notify: Vec<(Arc<Destination>, Words)>,
    /// Somebody who is named in it can be reached.
    reaches: bool,
}

/// The color of an earlier rule that pages the same service as the last one, but as another destination.
fn paged_twice(rules: &[Rule]) -> Option<Color> {
    let (last, earlier) = rules.split_last()?;
    let pagers = |rule: &Rule| -> Vec<Arc<Destination>> {
        let is_pager = |destination: &Destination| matches!(destination.provider, Provider::PagerDuty(_));
        let all = rule.notify.iter().map(|(destination, _)| Arc::clone(destination));
        if rule.dispatch == Dispatch::Off { Vec::new() } else { all.filter(|one| is_pager(one)).collect() }
    };
    let is_same = |one: &Destination, other: &Destination| match (&one.provider, &other.provider) {
        (Provider::PagerDuty(a), Provider::PagerDuty(b)) => {
            (&a.routing_key, &a.url) == (&b.routing_key, &b.url) && one != other
        }
        _ => false,
    };
    let mine = pagers(last);
    let twice = |rule: &&Rule| pagers(rule).iter().any(|theirs| mine.iter().any(|mine| is_same(mine, theirs)));
    earlier.iter().find(twice).map(|rule| rule.color)
}

/// The rules with one destination for each place, which has the texts of all colors.
fn put_together(rules: Vec<Rule>, scope: &mut Scope<'_>) -> Vec<(Color, CodeRule)> {
    type Worded = (Arc<Destination>, Vec<(Color, Words)>);
    let mut places: Vec<Worded> = Vec::new();
    for (color, destination, words) in
        rules.iter().flat_map(|rule| rule.notify.iter().map(|(destination, words)| (rule.color, destination, words)))
    {
        if *words == Words::default() {
            continue;
        }
        match places.iter_mut().find(|(known, _)| known == destination) {
            Some((_, all)) => all.push((color, words.clone())),
            None => places.push((Arc::clone(destination), vec![(color, words.clone())])),
        }
    }
    let reworded: Vec<(Arc<Destination>, Arc<Destination>)> = places
        .into_iter()
        .map(|(place, all)| {
            let own = all.into_iter().map(|(color, words)| {
                let known = place.wording.of(color).cloned().unwrap_or_default();
                (color, Words { title: words.title.or(known.title), text: words.text.or(known.text) })
            });
            let wording = Wording::new(place.wording.iter().cloned().chain(own));
            let reworded = scope.destination(Destination { wording, ..(*place).clone() });
            (place, reworded)
        })
        .collect();
    let of = |destination: Arc<Destination>| {
        let found = reworded.iter().find(|(place, _)| *place == destination).map(|(_, reworded)| Arc::clone(reworded));
        found.unwrap_or(destination)
    };
    let rule = |Rule { color, dispatch, notify, .. }: Rule| {
        let notify = notify.into_iter().map(|(destination, _)| of(destination)).collect();
        (color, CodeRule { dispatch, notify })
    };
    rules.into_iter().map(rule).collect()
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
                config.check_keys(findings, Keys { known: &keys_of(every), ..Keys::default() });
            }
        }
    }
}

fn keys_of(kinds: impl IntoIterator<Item = ProviderKind>) -> Vec<&'static str> {
    let mut keys: Vec<&str> = Vec::new();
    for key in kinds.into_iter().flat_map(ProviderKind::keys) {
        if !keys.contains(&key) {
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

fn rule(
    color: Color,
    field: Field<'_>,
    default: Option<Field<'_>>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Rule> {
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
    let receivers = notify.map_or_else(Vec::new, |notify| receivers(&notify, scope, findings));
    let config = rule.section(findings, &["config"]).unwrap_or_else(|| Section::empty(field.at));
    // Without `notify`, notices go to the log.
    let kinds: Vec<ProviderKind> = match &receivers[..] {
        [] => vec![ProviderKind::Log],
        some => some.iter().map(|receiver| receiver.kind).collect(),
    };
    config.check_keys(findings, Keys { known: &keys_of(kinds), ..Keys::default() });
    judge_overrides(&config, &receivers, findings);
    if let Some(payload) = config.find(findings, &["payload"]) {
        judge_payload(&payload, findings);
    }
    let mut told = Rule { color, dispatch, notify: Vec::new(), reaches: false };
    for receiver in &receivers {
        if !tell(&mut told, receiver, &config, scope, findings) {
            told.notify.push((Arc::clone(&scope.fallback), Words::default()));
            if let (Some(notify), Some(why)) = (&notify, unavailable(receiver, &config)) {
                findings.0.push(notify.finding(Severity::Warning, receiver.item.at, format!("{color}: {why}")));
            }
        }
    }
    if receivers.is_empty() {
        let log = Node::scalar(field.at, "log".into(), false);
        let log = Receiver { name: "log", is_named: false, kind: ProviderKind::Log, item: &log };
        tell(&mut told, &log, &config, scope, findings);
        // Said of nobody in particular, it is there for whom nobody else can be told.
        told.reaches = config.find(&mut Findings::default(), &["file"]).is_some();
    }
    Some(told)
}

/// Adds whom `receiver` stands for; answers whether there is anybody.
fn tell(
    told: &mut Rule,
    receiver: &Receiver<'_>,
    config: &Section<'_>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> bool {
    let Receiver { name, is_named, kind, .. } = *receiver;
    let named = match scope.providers.get_mut(name) {
        Some(named) if is_named => {
            named.is_used = true;
            named.destinations.clone()
        }
        _ => Vec::new(),
    };
    let is_complete = is_named || missing(receiver, config).is_empty();
    let Scope { folders, secrets, templates, .. } = scope;
    let name = if is_named { name } else { kind.as_str() };
    let place = Place::Rule;
    let mut form = Form { name, kind, section: *config, place, is_complete, folders, secrets, templates, findings };
    let words = form.words();
    let is_changed = |key: &&str| !matches!(*key, "title" | "subject" | "text") && config.holds(key);
    let found: Vec<Arc<Destination>> = if !is_named {
        let found = form.destinations();
        found.into_iter().map(|destination| scope.destination(destination)).collect()
    } else if kind.overrides().iter().any(is_changed) {
        let found = form.overridden(&named);
        found.into_iter().map(|destination| scope.destination(destination)).collect()
    } else {
        named
    };
    // What is wrong with the settings is an error, and was said.
    told.reaches |= !found.is_empty();
    let is_told = !found.is_empty() || (kind.is_available() && is_complete);
    if told.dispatch != Dispatch::Off {
        for destination in &found {
            scope.tell(destination);
        }
    }
    told.notify.extend(found.into_iter().map(|destination| (destination, words.clone())));
    is_told
}

/// A key that belongs to the provider that a rule names, and that nobody else in it takes.
fn judge_overrides(config: &Section<'_>, receivers: &[Receiver<'_>], findings: &mut Findings) {
    for field in config.fields().filter(|field| !field.inherited && field.key != "payload") {
        let takes = |receiver: &&Receiver<'_>| {
            if receiver.is_named {
                receiver.kind.overrides().contains(&field.key)
            } else {
                receiver.kind.keys().contains(&field.key)
            }
        };
        let owner = receivers.iter().find(|receiver| receiver.is_named && receiver.kind.keys().contains(&field.key));
        if let Some(owner) = owner.filter(|_| !receivers.iter().any(|receiver| takes(&receiver))) {
            let name = quoted(owner.name);
            let message = match owner.kind.overrides() {
                [] => format!("{} belongs to {name}: say it in the daemon file, and remove it here", field.key),
                keys => format!(
                    "{} belongs to {name}: say it in the daemon file, and remove it here; a rule may say {}",
                    field.key,
                    keys.join(", ")
                ),
            };
            findings.error(field.at, message);
        }
    }
}

/// The original's: of any shape, and not sent.
fn judge_payload(field: &Field<'_>, findings: &mut Findings) {
    let is_text = matches!(field.value.kind, Kind::Scalar { .. });
    if !is_text && !expect_map(field, findings) {
        return;
    }
    let message = "payload has no effect: write what is to be said into title and text".to_owned();
    findings.0.push(field.finding(Severity::Warning, field.at, message));
}

/// Somebody who is told.
struct Receiver<'a> {
    name: &'a str,
    /// Of `[providers.NAME]`: its address stands there.
    is_named: bool,
    kind: ProviderKind,
    item: &'a Node,
}

/// The first name of each key without which nobody is reached.
fn missing(receiver: &Receiver<'_>, config: &Section<'_>) -> Vec<&'static str> {
    let rows = receiver.kind.required().iter();
    rows.filter(|row| !row.iter().any(|key| config.holds(key))).map(|row| row[0]).collect()
}

/// Why nobody is reached; `None` where that is an error, and was said.
fn unavailable(receiver: &Receiver<'_>, config: &Section<'_>) -> Option<String> {
    const FATE: &str = "its notices go to the fallback";
    let (name, kind) = (quoted(receiver.name), receiver.kind);
    if receiver.is_named {
        let (is_later, kind) = (!kind.is_available(), kind.as_str());
        return is_later.then(|| format!("notify {name} is of type {kind}, which comes with a later version: {FATE}"));
    }
    match &missing(receiver, config)[..] {
        [] => Some(format!("notify {name} comes with a later version: {FATE}")),
        _ if kind == ProviderKind::PagerDuty => Some(format!(
            "no routing key is known for \"pagerduty\" (a url alone names no service): add routing_key_file; {FATE}"
        )),
        keys => {
            let keys = keys.join(", ");
            Some(format!("notify {name} lacks {keys}: add that to config, or name one of [providers]; {FATE}"))
        }
    }
}

fn receivers<'a>(notify: &Field<'a>, scope: &Scope<'_>, findings: &mut Findings) -> Vec<Receiver<'a>> {
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
                if receivers.iter().any(|known| known.name.eq_ignore_ascii_case(name)) {
                    continue;
                }
                let declared = scope.folders.providers.names.iter().find(|(known, _)| **known == *name);
                if let Some((_, kind)) = declared {
                    // Of a type that is none, all is said in the daemon file.
                    receivers.extend(kind.map(|kind| Receiver { name, is_named: true, kind, item }));
                } else if let Some(kind) = ProviderKind::named(name) {
                    receivers.push(Receiver { name, is_named: false, kind, item });
                } else {
                    let types = ProviderKind::NAMES.map(|(name, _)| name);
                    let known = types.into_iter().chain(scope.folders.providers.names());
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
