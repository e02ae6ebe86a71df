//! A provider's settings into complete [`Destination`]s: `[providers.NAME]` of the daemon file, or `config` of a rule.
//!
//! Both are read by the same rules, but for secrets: in the daemon file they stand in files or in variables, never in the
//! text. No message holds a secret, nor the address of a hook, which is one.

mod kinds;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::diagnostic::{Severity, is_unprintable, quoted};
use super::folders::Folders;
use super::node::{Findings, Kind, Node};
use super::providers::ProviderKind;
use super::section::{Field, Section};
use super::{address, http, secret, suggestion, value};
use crate::domain::destination::{Pace, Provider, Transport, Wording, Words};
use crate::domain::monitor::Secret;
use crate::domain::{Color, Destination};
use crate::units::limits::{
    DELIVERIES_AT_ONCE_MAX, DELIVERY_BURST_MAX, DELIVERY_TIMEOUTS, PATH_MAX, RAISES_PER_MINUTE_MAX, SECRET_FILE_MAX,
    TEMPLATE_MAX, TEMPLATES_SHARED_MAX,
};
use crate::wording;

pub(super) use self::values::web_address;

/// Where a provider's settings stand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// `[providers.NAME]`, with what the variables hold that it names.
    Declared(&'a BTreeMap<Box<str>, Secret>),
    /// `config` of a rule.
    Rule,
}

/// Settings that are being read.
pub(super) struct Form<'f, 'a> {
    pub(super) name: &'f str,
    pub(super) kind: ProviderKind,
    pub(super) section: Section<'a>,
    pub(super) place: Place<'f>,
    /// Nothing is missing without which nobody is reached. Otherwise the form of single values is judged, and no more.
    pub(super) is_complete: bool,
    pub(super) folders: &'f Folders,
    pub(super) secrets: &'f mut secret::SecretFiles,
    pub(super) templates: &'f mut Templates,
    pub(super) findings: &'f mut Findings,
}

/// Templates by color.
type ByColor = Vec<(Color, Box<str>)>;

impl<'a> Form<'_, 'a> {
    /// Everything that the settings come to: several where a key names several, none where something is wrong.
    pub(super) fn destinations(mut self) -> Vec<Destination> {
        let before = self.findings.0.len();
        let providers = self.providers();
        let transport = self.transport();
        let wording = match self.place {
            Place::Declared(_) => self.wording(),
            // Of a rule they are put together with those of the monitor's other rules.
            Place::Rule => Wording::default(),
        };
        let pace = providers.first().map(|provider| self.pace(provider.pace()));
        let is_sound = !self.findings.0[before..].iter().any(|finding| finding.severity == Severity::Error);
        let Some(pace) = pace.filter(|_| is_sound && self.is_complete) else { return Vec::new() };
        let name: Box<str> = self.name.into();
        let destination = |provider| Destination {
            name: name.clone(),
            provider,
            pace,
            transport: transport.clone(),
            wording: wording.clone(),
        };
        providers.into_iter().map(destination).collect()
    }

    /// What a rule makes of a provider that it names.
    pub(super) fn overridden(mut self, named: &[Arc<Destination>]) -> Vec<Destination> {
        let numbers = (self.kind == ProviderKind::Sms && self.has("to")).then(|| self.numbers());
        let templates: Vec<&Destination> = match (&numbers, named.first()) {
            (Some(numbers), Some(first)) => numbers.iter().map(|_| &**first).collect(),
            _ => named.iter().map(|destination| &**destination).collect(),
        };
        let mut numbers = numbers.into_iter().flatten();
        let mut changed: Vec<Destination> = templates.into_iter().cloned().collect();
        for destination in &mut changed {
            match &mut destination.provider {
                Provider::PagerDuty(pager) => pager.severity = self.severity().or(pager.severity),
                Provider::Slack(slack) => {
                    slack.channel = self.line("channel").or(slack.channel.take());
                    slack.username = self.line("username").or(slack.username.take());
                }
                Provider::Email(email) => {
                    for (key, list) in [("to", &mut email.to), ("cc", &mut email.cc)] {
                        if self.has(key) {
                            *list = self.mailboxes(key);
                        }
                    }
                }
                Provider::Sms(sms) => sms.to = numbers.next().unwrap_or_else(|| std::mem::take(&mut sms.to)),
                Provider::Alertmanager(manager) => {
                    for (key, known) in [("labels", &mut manager.labels), ("annotations", &mut manager.annotations)] {
                        *known = merged(known, self.label_map(key));
                    }
                    manager.generator_url = self.web("generator_url").or(manager.generator_url.take());
                }
                Provider::Log { .. } | Provider::Webhook(_) | Provider::Script(_) => {}
            }
        }
        changed
    }

    /// What a rule says otherwise than the built-in texts.
    pub(super) fn words(&mut self) -> Words {
        let Self { section, kind, findings, templates, .. } = self;
        if !kind.keys().contains(&"title") {
            return Words::default();
        }
        let title = section.value(findings, title_keys(*kind), |node| templates.title(node));
        Words { title, text: section.value(findings, &["text"], |node| templates.text(node)) }
    }

    fn has(&self, key: &str) -> bool {
        self.section.find(&mut Findings::default(), &[key]).is_some()
    }

    fn value<T>(&mut self, keys: &[&str], parse: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        self.section.value(self.findings, keys, parse)
    }

    fn line(&mut self, key: &str) -> Option<Box<str>> {
        self.value(&[key], |node| value::line(LINE_MAX)(node).map(Box::from))
    }

    fn web(&mut self, key: &str) -> Option<Box<str>> {
        self.value(&[key], |node| web_address(value::text(node)?).map(|address| address.text.into()))
    }

    fn say(&mut self, severity: Severity, field: &Field<'_>, message: String) {
        self.findings.0.push(field.finding(severity, field.value.at, message));
    }

    /// A text that must not be shown: behind the first of `names` that is there, or in the file (`KEY_file`) or the
    /// variable (`KEY_env`) that it names.
    fn secret(&mut self, names: &[&str], judge: impl Fn(&str) -> Result<(), String>) -> Option<Secret> {
        let field = self.section.find(self.findings, names)?;
        let Self { section, place, folders, secrets, findings, .. } = self;
        section.value(findings, &[field.key], |node| {
            let secret = match field.key {
                key if key.ends_with("_file") => secret_file(node, *place, folders, secrets)?,
                key if key.ends_with("_env") => variable(node, *place)?,
                _ => credential(node).map(Secret::new)?,
            };
            judge(secret.expose())?;
            Ok(secret)
        })
    }

    /// Several of them: inline, or by files.
    fn secrets(&mut self, inline: &str, files: &str, judge: impl Fn(&str) -> Result<(), String>) -> Vec<Secret> {
        let Self { section, place, folders, secrets, findings, .. } = self;
        let given = section.list(findings, &[inline], SECRETS_MAX, |node| {
            let secret = credential(node)?;
            judge(secret)?;
            Ok(Secret::new(secret))
        });
        let read = section.list(findings, &[files], SECRETS_MAX, |node| {
            let secret = secret_file(node, *place, folders, secrets)?;
            judge(secret.expose())?;
            Ok(secret)
        });
        given.into_iter().chain(read).flatten().collect()
    }

    /// Names with values that may be secrets: a text each, or `{file: ...}`, or in the daemon file `{env: ...}`.
    fn secret_map(
        &mut self,
        key: &str,
        what: &str,
        name_fault: impl Fn(&str) -> Option<String>,
        text: impl Fn(&Node) -> Result<&str, String>,
    ) -> Vec<(Box<str>, Secret)> {
        let mut pairs: Vec<(Box<str>, Secret)> = Vec::new();
        let Some(section) = self.section.section(self.findings, &[key]) else { return pairs };
        for field in section.fields() {
            let shown = quoted(field.key);
            if let Some(fault) = name_fault(field.key) {
                self.findings.0.push(field.finding(Severity::Error, field.at, fault));
                continue;
            }
            if pairs.len() == SECRETS_MAX {
                let message = format!("{key} has more than {SECRETS_MAX} values: remove some");
                self.findings.0.push(field.finding(Severity::Error, field.at, message));
                break;
            }
            let place = self.place;
            let found = match &field.value.kind {
                Kind::Map(_) => {
                    let section = Section::of(&field);
                    let known = super::section::Keys { known: &["file", "env"], ..Default::default() };
                    section.check_all_keys(self.findings, known);
                    let Self { folders, secrets, findings, .. } = self;
                    match section.find(findings, &["file", "env"]).map(|field| field.key) {
                        Some("file") => {
                            section.value(findings, &["file"], |node| secret_file(node, place, folders, secrets))
                        }
                        Some(_) => section.value(findings, &["env"], |node| variable(node, place)),
                        None => {
                            section.missing(findings, "file", &format!("say where the {what} {shown} is to be read"));
                            None
                        }
                    }
                }
                _ if matches!(place, Place::Declared(_)) && secret::is_secret(field.key) => {
                    let message = format!(
                        "the {what} {shown} is a secret, and does not stand here: write {{ file = \"/etc/cpra/...\" }}, or \
                         {{ env = \"NAME\" }}"
                    );
                    self.findings.0.push(field.finding(Severity::Error, field.at, message));
                    None
                }
                _ => match text(field.value) {
                    Ok(text) => Some(Secret::new(text)),
                    Err(message) => {
                        let message = format!("the {what} {shown} {message}");
                        self.say(Severity::Error, &field, message);
                        None
                    }
                },
            };
            pairs.extend(found.map(|secret| (field.key.into(), secret)));
        }
        pairs
    }

    /// Names with texts.
    fn label_map(&mut self, key: &str) -> Vec<(Box<str>, Box<str>)> {
        let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
        let Some(section) = self.section.section(self.findings, &[key]) else { return pairs };
        for field in section.fields() {
            let mut refuse = |at, message: String| self.findings.0.push(field.finding(Severity::Error, at, message));
            if !values::is_label(field.key) {
                let shown = quoted(field.key);
                refuse(
                    field.at,
                    format!("{shown} is no name of a label: use letters, digits and \"_\", no digit first"),
                );
            } else if pairs.len() == LABELS_MAX {
                refuse(field.at, format!("{key} has more than {LABELS_MAX} values: remove some"));
                break;
            } else {
                match value::line(LINE_MAX)(field.value) {
                    Ok(text) => pairs.push((field.key.into(), text.into())),
                    Err(message) => refuse(field.value.at, format!("the label {} {message}", quoted(field.key))),
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    fn transport(&mut self) -> Transport {
        let mut transport = Transport::default();
        if self.kind == ProviderKind::Log {
            return transport;
        }
        if let Some(timeout) = self.value(&["timeout"], value::span(DELIVERY_TIMEOUTS)) {
            transport.timeout = timeout;
        }
        if self.kind == ProviderKind::Script {
            return transport;
        }
        let folders = self.folders;
        transport.ca_file =
            self.value(&["ca_file"], |node| secret::pem(value::line(PATH_MAX)(node)?, "CERTIFICATE", folders));
        if self.kind != ProviderKind::Email {
            let is_declared = matches!(self.place, Place::Declared(_));
            let field = self.section.find(&mut Findings::default(), &["proxy"]);
            transport.proxy = self.secret(&["proxy", "proxy_file", "proxy_env"], |text| {
                let proxy = address::proxy(text)?;
                match proxy.user {
                    Some(_) if is_declared && field.is_some() => {
                        Err("has a password in it, which does not stand here: \
                                                                      put the address into a file, and name that with \
                                                                      proxy_file"
                            .to_owned())
                    }
                    _ => Ok(()),
                }
            });
        }
        transport
    }

    fn pace(&mut self, mut pace: Pace) -> Pace {
        if self.kind == ProviderKind::Log {
            return pace;
        }
        if let Some(every) = self.value(&["rate"], values::rate) {
            pace.every = every;
        }
        let mut counts = vec![
            ("burst", DELIVERY_BURST_MAX, &mut pace.burst),
            ("concurrency", DELIVERIES_AT_ONCE_MAX, &mut pace.concurrency),
        ];
        if self.kind == ProviderKind::PagerDuty {
            counts.push(("raises_per_minute", RAISES_PER_MINUTE_MAX, &mut pace.raises_per_minute));
        }
        for (key, most, place) in counts {
            if let Some(count) = self.value(&[key], value::integer(1..=u64::from(most))) {
                *place = u32::try_from(count).unwrap_or(most);
            }
        }
        pace
    }

    /// `title` and `text`, each for every color or by color.
    fn wording(&mut self) -> Wording {
        if !self.kind.keys().contains(&"title") {
            return Wording::default();
        }
        let titles = self.by_color(title_keys(self.kind), Templates::title);
        let texts = self.by_color(&["text"], Templates::text);
        let of = |templates: &ByColor, color| {
            templates.iter().find(|(known, _)| *known == color).map(|(_, template)| template.clone())
        };
        let words = Color::ALL.map(|color| (color, Words { title: of(&titles, color), text: of(&texts, color) }));
        Wording::new(words.into_iter().filter(|(_, words)| *words != Words::default()))
    }

    fn by_color(&mut self, keys: &[&str], parse: fn(&mut Templates, &Node) -> Result<Box<str>, String>) -> ByColor {
        let Self { section, findings, templates, .. } = self;
        let Some(field) = section.find(findings, keys) else { return Vec::new() };
        if !matches!(field.value.kind, Kind::Map(_)) {
            let template = section.value(findings, &[field.key], |node| parse(templates, node));
            return template.map_or_else(Vec::new, |template| Color::ALL.map(|color| (color, template.clone())).into());
        }
        let mut found = ByColor::new();
        for own in Section::of(&field).fields() {
            let Some(color) = Color::ALL.into_iter().find(|color| color.as_str().eq_ignore_ascii_case(own.key)) else {
                let names = Color::ALL.map(Color::as_str);
                let remedy = suggestion::did_you_mean(own.key, names)
                    .unwrap_or_else(|| format!(": the colors are {}", names.join(", ")));
                findings.error(own.at, format!("unknown color {}{remedy}", quoted(own.key)));
                continue;
            };
            match parse(templates, own.value) {
                Ok(template) => found.push((color, template)),
                Err(message) => {
                    let message = format!("{}.{} {message}", field.key, own.key);
                    findings.0.push(own.finding(Severity::Error, own.value.at, message));
                }
            }
        }
        found
    }
}

/// Templates that were judged so far: a million monitors may have one text, and each is tried on notices of all colors.
#[derive(Debug, Default)]
pub(super) struct Templates(HashMap<Box<str>, Result<(), String>, FxBuildHasher>);

impl Templates {
    fn title(&mut self, node: &Node) -> Result<Box<str>, String> {
        self.judged(value::line(TEMPLATE_MAX)(node)?)
    }

    fn text(&mut self, node: &Node) -> Result<Box<str>, String> {
        let text = value::text(node)?;
        if let Some(found) = text.chars().find(|&c| is_unprintable(c) && !matches!(c, '\n' | '\t')) {
            return Err(format!("contains the control character U+{:04X}: remove it", u32::from(found)));
        }
        self.judged(text)
    }

    fn judged(&mut self, text: &str) -> Result<Box<str>, String> {
        if text.trim().is_empty() {
            return Err("is empty: write a text, or remove the key".to_owned());
        }
        if let Some(known) = self.0.get(text) {
            return known.clone().map(|()| text.into());
        }
        let judged = wording::check(text).map_err(|why| format!("is no template that can be used: {why}"));
        if self.0.len() < TEMPLATES_SHARED_MAX {
            self.0.insert(text.into(), judged.clone());
        }
        judged.map(|()| text.into())
    }
}

/// One value of a provider.
const LINE_MAX: usize = 4_096;
/// Labels that are added to a monitor's own.
const LABELS_MAX: usize = 64;
/// Secrets and headers of one destination.
const SECRETS_MAX: usize = 64;

const fn title_keys(kind: ProviderKind) -> &'static [&'static str] {
    if matches!(kind, ProviderKind::Email) { &["title", "subject"] } else { &["title"] }
}

/// `more` over `known`, by name.
fn merged(known: &[(Box<str>, Box<str>)], more: Vec<(Box<str>, Box<str>)>) -> Box<[(Box<str>, Box<str>)]> {
    let mut pairs: BTreeMap<Box<str>, Box<str>> = known.iter().cloned().collect();
    pairs.extend(more);
    pairs.into_iter().collect()
}

/// A text of a secret. What is wrong is said without it.
fn credential(node: &Node) -> Result<&str, String> {
    let text = value::text(node).map_err(|_| "takes one text".to_owned())?;
    if text.trim().is_empty() || text.len() as u64 > SECRET_FILE_MAX {
        return Err(format!("is {} bytes long: 1 to {SECRET_FILE_MAX}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character or a line break: remove it".to_owned());
    }
    Ok(text)
}

fn secret_file(
    node: &Node,
    place: Place<'_>,
    folders: &Folders,
    secrets: &mut secret::SecretFiles,
) -> Result<Secret, String> {
    let file = value::line(PATH_MAX)(node)?;
    if matches!(place, Place::Declared(_)) && !is_whole(file) {
        return Err(format!("{} is not absolute: write the whole path, without \"..\"", quoted(file)));
    }
    secrets.read(file, folders)
}

fn is_whole(file: &str) -> bool {
    Path::new(file).is_absolute() && !file.split('/').any(|part| part == "..")
}

fn variable(node: &Node, place: Place<'_>) -> Result<Secret, String> {
    let name = value::line(LINE_MAX)(node)?;
    let Place::Declared(environment) = place else { return Err("belongs into the daemon file".to_owned()) };
    match environment.get(name) {
        Some(secret) if secret.expose().chars().any(char::is_control) => {
            Err(format!("names the variable {}, in which there is a line break or a control character", quoted(name)))
        }
        Some(secret) => Ok(secret.clone()),
        None => Err(format!("names the variable {}, which is empty or not set: set it for the daemon", quoted(name))),
    }
}

/// Headers that the delivery sets itself.
const HEADERS_OWNED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

fn header_fault(name: &str) -> Option<String> {
    http::token_fault(name).or_else(|| {
        let is_owned = HEADERS_OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name));
        is_owned.then(|| format!("the header {} is set by the delivery itself: remove it", quoted(name)))
    })
}
