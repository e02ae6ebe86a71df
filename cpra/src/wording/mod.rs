//! What a notice says to people: a title and a text, built in or by a person's template.
//!
//! Both are plain text. Each provider escapes them for where it sends them to, so that nothing a target answered becomes
//! markup, and nothing of it is ever template: evidence goes in as data, with its control characters taken out. The title
//! is one line. Both are bounded; what is longer is cut at a character's end, with an ellipsis.
//!
//! A notice is never lost to its template: one that fails when it is used, or says nothing at all, gives way to the
//! built-in words, and a failure is noted below them. A test is marked as one, whatever a template makes of it.
//!
//! [`template`] is the only place that names minijinja. What templates may use is in `docs/templates.md`.

mod template;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

pub use template::check;

use crate::domain::{Code, Color, Destination, Notice};
use crate::units::Timestamp;
use crate::units::limits::{WORDING_TEXT_MAX, WORDING_TITLE_MAX};

/// A notice in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line, never empty.
    pub title: String,
    /// Lines, never empty, without one at the end that is.
    pub text: String,
}

/// What the title of a test begins with, also where there is no other word of ours.
pub const TEST_TITLE: &str = "[TEST] ";
const TEST_TEXT: &str = "TEST: nothing has happened; somebody wants to see whether this arrives.\n";

/// The words of this destination for this notice.
pub fn render(notice: &Notice, destination: &Destination) -> Rendered {
    let data = Data::of(notice);
    let words = destination.wording.of(notice.color);
    let mut faults = Vec::new();
    let mut own = |template: Option<&str>, what: &str| match template::render(template?, &data) {
        Ok(said) => Some(said).filter(|said| !said.trim().is_empty()),
        Err(fault) => {
            faults.push(format!("\n(the template of the {what} for {} failed: {fault})", notice.color));
            None
        }
    };
    let title = own(words.and_then(|words| words.title.as_deref()), "title");
    let text = own(words.and_then(|words| words.text.as_deref()), "text");
    let (mut title, mut text) = (title.unwrap_or_else(|| data.title()), text.unwrap_or_else(|| data.text()));
    if notice.test {
        title.insert_str(0, TEST_TITLE);
        text.insert_str(0, TEST_TEXT);
    }
    let mut text = paragraphs(&text).trim_end().to_owned();
    text.push_str(&faults.concat());
    Rendered { title: cut(line(title.trim()), WORDING_TITLE_MAX), text: cut(text, WORDING_TEXT_MAX) }
}

/// What templates may use. The names are a promise; what is not there has no value, and prints as nothing.
#[derive(Clone, Debug, Serialize)]
struct Data {
    monitor: String,
    color: &'static str,
    title: &'static str,
    status: &'static str,
    severity: &'static str,
    summary: String,
    incident: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lasted: Option<String>,
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runbook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    test: bool,
}

impl Data {
    fn of(notice: &Notice) -> Self {
        let about = &notice.about;
        Self {
            monitor: line(&notice.monitor_name),
            color: notice.color.as_str(),
            title: notice.color.title(),
            status: notice.color.status(),
            severity: notice.color.severity(),
            summary: line(&notice.summary),
            incident: line(&notice.incident.0),
            outcome: notice.outcome.map(Code::as_str),
            at: to_the_second(notice.at),
            lasted: (notice.lasted.as_nanos() > 0).then(|| notice.lasted.to_string()),
            groups: notice.groups.iter().map(|group| line(group)).collect(),
            labels: about.labels.iter().map(|(name, value)| (line(name), line(value))).collect(),
            description: about.description.as_deref().map(paragraphs),
            runbook: about.runbook.as_deref().map(line),
            instance: notice.instance().map(line),
            test: notice.test,
        }
    }

    fn title(&self) -> String {
        format!("{}: {}", self.title, self.monitor)
    }

    /// The same as the template in `docs/templates.md`, which a test holds beside it; but this cannot fail.
    fn text(&self) -> String {
        let mut text = format!("{}\nStatus: {} ({})", self.summary, self.status, self.severity);
        let mut add = |what: &str, said: Option<Cow<'_, str>>| {
            if let Some(said) = said {
                text.push_str(what);
                text.push_str(&said);
            }
        };
        add(", ", self.outcome.map(Cow::from));
        add("\nAt: ", Some(Cow::from(&self.at)));
        add(", after ", self.lasted.as_ref().map(Cow::from));
        add("\nGroups: ", (!self.groups.is_empty()).then(|| self.groups.join(", ").into()));
        let labels =
            || self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
        add("\nLabels: ", (!self.labels.is_empty()).then(|| labels().into()));
        add("\n", self.description.as_ref().map(Cow::from));
        add("\nRunbook: ", self.runbook.as_ref().map(Cow::from));
        add("\nIncident: ", Some(Cow::from(&self.incident)));
        text
    }

    /// What may come, at its fullest and at its barest, so that a template can be tried.
    fn samples(color: Color) -> [Self; 2] {
        let bare = Self {
            monitor: "shop/web".into(),
            color: color.as_str(),
            title: color.title(),
            status: color.status(),
            severity: color.severity(),
            summary: "shop/web is down: 503 Service Unavailable (3 of 3)".into(),
            incident: "mon-1/shop/web/01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            outcome: None,
            at: to_the_second(Timestamp::from_micros(0)),
            lasted: None,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            description: None,
            runbook: None,
            instance: None,
            test: false,
        };
        let full = Self {
            outcome: Some("L7STS"),
            lasted: Some("6.5 s".into()),
            groups: vec!["shop".into(), "frontend".into()],
            labels: BTreeMap::from([("team".into(), "shop".into())]),
            description: Some("The shop's front door".into()),
            runbook: Some("https://wiki.example.com/shop-web".into()),
            instance: Some("mon-1".into()),
            test: true,
            ..bare.clone()
        };
        [full, bare]
    }
}

/// `2026-11-22T03:00:00Z`: nobody reads microseconds.
fn to_the_second(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(second, _)| format!("{second}Z"))
}

/// What does not show, and moves what does: control characters, and those that turn the direction of text.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As one line: whatever does not show is a space.
pub fn line(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect()
}

/// As lines: the same, but for the ends of lines.
fn paragraphs(text: &str) -> String {
    text.replace("\r\n", "\n").chars().map(|c| if c != '\n' && is_hidden(c) { ' ' } else { c }).collect()
}

/// At most so many bytes of UTF-8, in whole characters; what is cut off is three dots.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    const DOTS: char = '…';
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(DOTS.len_utf8())));
        text.push(DOTS);
    }
    text
}

#[cfg(test)]
mod tests;
