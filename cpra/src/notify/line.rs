//! A notice as one line of JSON.

use serde::{Serialize, Serializer};

use crate::domain::{Code, DeliveryKey, Notice};
use crate::wording::TEST_TITLE;

/// The fields in the order in which people read them. Names are a promise: scripts of operators parse them.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    timestamp: String,
    monitor: &'a str,
    color: &'static str,
    status: &'static str,
    severity: &'static str,
    title: String,
    summary: &'a str,
    incident: &'a str,
    outcome: Option<&'static str>,
    groups: &'a [Box<str>],
    /// A map of texts.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runbook: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// Equal on every re-send, so that a reader can drop duplicates.
    delivery: String,
    lasted_seconds: f64,
    /// Nothing has happened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    test: bool,
}

impl<'a> Line<'a> {
    pub(super) fn of(notice: &'a Notice) -> Self {
        let mark = if notice.test { TEST_TITLE } else { "" };
        Self {
            timestamp: notice.at.to_string(),
            monitor: &notice.monitor_name,
            color: notice.color.as_str(),
            status: notice.color.status(),
            severity: notice.color.severity(),
            title: format!("{mark}{}", notice.color.title()),
            summary: &notice.summary,
            incident: &notice.incident.0,
            outcome: notice.outcome.map(Code::as_str),
            groups: &notice.groups,
            labels: Labels(&notice.about.labels),
            description: notice.about.description.as_deref(),
            runbook: notice.about.runbook.as_deref(),
            instance: notice.instance(),
            delivery: delivery(&notice.key),
            lasted_seconds: notice.lasted.as_secs_f64(),
            test: notice.test,
        }
    }
}

struct Labels<'a>(&'a [(Box<str>, Box<str>)]);

impl Labels<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Appends the notice and a newline. JSON escapes newlines in texts, so that the line is one line.
pub fn encode(notice: &Notice, text: &mut Vec<u8>) {
    serde_json::to_writer(&mut *text, &Line::of(notice)).expect("strings and numbers, written into memory");
    text.push(b'\n');
}

/// `ULID/red/0`: unique within a destination, constant over every re-send.
pub fn delivery(key: &DeliveryKey) -> String {
    format!("{}/{}/{}", key.episode, key.raise.as_str(), key.n)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::domain::monitor::About;
    use crate::domain::notice::EpisodeId;
    use crate::domain::{Color, Destination, Incident, Raise};
    use crate::units::{MonitorId, Span, Timestamp};

    /// Number `n` for a file, or for stderr.
    pub(crate) fn notice(n: u32, file: Option<&Path>) -> Notice {
        let episode = EpisodeId(42);
        Notice {
            key: DeliveryKey {
                episode,
                raise: Raise::Red,
                destination: Arc::new(Destination::log(file.map(Into::into))),
                n,
            },
            incident: Incident::new("mon-1", "shop/web", episode),
            monitor: Some(MonitorId::new(0, 1)),
            monitor_name: "shop/web".into(),
            color: Color::Red,
            summary: "503 Service\nUnavailable \"x\" \u{1b}[31m".into(),
            outcome: Some(Code::L7Sts),
            at: Timestamp::from_micros(1_795_316_400_000_042),
            lasted: Span::from_millis(6_500),
            groups: ["shop".into(), "frontend".into()].into(),
            about: About::default(),
            test: false,
        }
    }

    #[test]
    fn a_line_says_everything_and_is_one_line() {
        let mut text = vec![];
        let mut notice = notice(3, None);
        notice.about = About {
            labels: [("cost centre".into(), "\u{1f6d2}".into()), ("team".into(), "shop".into())].into(),
            description: Some("The shop's\nfront door".into()),
            runbook: Some("https://wiki.example.com/shop-web".into()),
        };
        encode(&notice, &mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"timestamp":"2026-11-22T03:00:00.000042Z","monitor":"shop/web","color":"red","#,
                r#""status":"FAILED","severity":"critical","title":"CRITICAL ALERT","#,
                r#""summary":"503 Service\nUnavailable \"x\" \u001b[31m","#,
                r#""incident":"mon-1/shop/web/0000000000000000000000001A","outcome":"L7STS","#,
                r#""groups":["shop","frontend"],"labels":{"cost centre":"🛒","team":"shop"},"#,
                r#""description":"The shop's\nfront door","runbook":"https://wiki.example.com/shop-web","#,
                r#""instance":"mon-1","#,
                r#""delivery":"0000000000000000000000001A/red/3","lasted_seconds":6.5}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_test_is_marked() {
        let mut text = vec![];
        encode(&Notice { test: true, ..notice(0, None) }, &mut text);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&value["title"], &value["test"]), (&"[TEST] CRITICAL ALERT".into(), &true.into()));
    }

    #[test]
    fn what_is_not_there_is_null_or_left_out() {
        let mut notice = notice(0, None);
        notice.outcome = None;
        notice.incident = Incident("01ARZ".into());
        let mut text = vec![];
        encode(&notice, &mut text);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(value["outcome"].is_null());
        for key in ["instance", "labels", "description", "runbook", "test"] {
            assert!(value.get(key).is_none(), "{key}");
        }
    }
}
