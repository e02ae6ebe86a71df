//! An Alertmanager: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>.
//!
//! An alert there is known by its labels and forgotten unless it is told again: while an episode lasts, the desk sends
//! its raise again every minute, and each says that it ends in four. A resolve says that it ends now.
//!
//! The severity is a label, since routes are made of it, so yellow and red are two alerts. A yellow that became red is
//! not told again, and ends by itself; the resolve ends both. Whoever does not want two gives every alert of the
//! destination one `severity` in its `labels`.
//!
//! One request holds a whole batch. A server that refuses one takes the sound ones of it all the same, and does not say
//! which those were: the batch is halved until the bad one stands alone, and what arrived twice is what was there.
//!
//! Nothing is sent for cyan: the resolve that follows it says that all is well.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::exchange::{Exchange, words};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::{Alertmanager, Authorization};
use crate::domain::{Code, Color, Destination, Notice, Raise};
use crate::os::clock::Clock;
use crate::os::web::{Again, Answer, Request, Web};
use crate::units::limits::{ALERTMANAGER_BODY_MAX, ALERTMANAGER_ENDS_AFTER, ALERTMANAGER_REQUESTS_MAX};
use crate::units::{Span, Timestamp};
use crate::wording::{Rendered, TEST_TITLE, line, render};

const PATH: &str = "/api/v2/alerts";

#[derive(Debug)]
pub struct AlertmanagerOutlet {
    settings: Alertmanager,
    url: String,
    exchange: Exchange,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<&'a str>,
}

impl AlertmanagerOutlet {
    pub fn new(settings: &Alertmanager, destination: &Destination, web: &Web) -> Self {
        let base = settings.url.trim_end_matches('/');
        let url = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
        let authorization = settings.authorization.as_ref().map(authorization);
        let password = settings.authorization.as_ref().map(|authorization| match authorization {
            Authorization::Basic { password, .. } => password.expose(),
            Authorization::Bearer(token) => token.expose(),
        });
        let secrets = authorization.as_deref().into_iter().chain(password);
        Self { settings: settings.clone(), url, exchange: Exchange::new(destination, web, Again::Known, secrets) }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        self.exchange.begin();
        let now = Clock.wall();
        let alerts: Vec<String> = notices.iter().map(|notice| alerts(notice, &self.settings, now)).collect();
        let mut results = vec![Delivered::from(DeliveryResult::Failed); notices.len()];
        let mut waiting = requests(&alerts);
        let mut sent = 0;
        while let Some(range) = waiting.pop_front() {
            let delivered = if let Some(trouble) = self.exchange.trouble() {
                trouble
            } else if sent == ALERTMANAGER_REQUESTS_MAX {
                Delivered::new(DeliveryResult::Failed, "not tried: too many of the batch were refused")
            } else {
                sent += 1;
                match self.send(&alerts[range.clone()]).await {
                    Err(delivered) => delivered,
                    // About what is in it; any other status is about the request as such.
                    Ok(answer) if matches!(answer.status, 400 | 413 | 422) && range.len() > 1 => {
                        let middle = range.start + range.len() / 2;
                        waiting.push_front(middle..range.end);
                        waiting.push_front(range.start..middle);
                        continue;
                    }
                    Ok(answer) => self.exchange.usual(&answer, words(&answer)),
                }
            };
            results[range].fill(delivered);
        }
        results
    }

    async fn send(&self, alerts: &[String]) -> Result<Answer, Delivered> {
        let alerts: Vec<&str> = alerts.iter().map(String::as_str).filter(|alert| !alert.is_empty()).collect();
        if alerts.is_empty() {
            return Err(Delivered::new(DeliveryResult::Sent, "Alertmanager is told nothing of a repair"));
        }
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(self.settings.authorization.as_ref().map(|by| ("authorization", authorization(by))));
        let body = format!("[{}]", alerts.join(",")).into_bytes();
        self.exchange.send(Request { method: "POST", url: &self.url, headers, body }).await
    }
}

/// Which of the batch go together: in order, each request within its bound.
fn requests(alerts: &[String]) -> VecDeque<Range<usize>> {
    let mut ranges = VecDeque::new();
    let (mut start, mut size) = (0, 0);
    for (at, alert) in alerts.iter().enumerate() {
        // With its comma or bracket.
        let more = alert.len() + 1;
        if at > start && size + more >= ALERTMANAGER_BODY_MAX {
            ranges.push_back(start..at);
            (start, size) = (at, 0);
        }
        size += more;
    }
    if start < alerts.len() {
        ranges.push_back(start..alerts.len());
    }
    ranges
}

fn authorization(by: &Authorization) -> String {
    match by {
        Authorization::Basic { username, password } => {
            format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))
        }
        Authorization::Bearer(token) => format!("Bearer {}", token.expose()),
    }
}

/// The alerts of one notice as JSON, with commas between them; nothing where there is nothing to tell.
fn alerts(notice: &Notice, settings: &Alertmanager, now: Timestamp) -> String {
    let ends_at = match notice.key.raise {
        Raise::Yellow | Raise::Red => {
            Timestamp::from_micros(now.as_micros().saturating_add(micros(ALERTMANAGER_ENDS_AFTER)))
        }
        Raise::Resolve | Raise::Gray => now,
        Raise::Cyan => return String::new(),
    };
    // Never after its end, whatever the clock was set to meanwhile.
    let starts_at = Timestamp::from_micros(notice.at.as_micros().saturating_sub(micros(notice.lasted))).min(now);
    let severities = match notice.key.raise {
        Raise::Resolve | Raise::Gray => vec![Color::Yellow.severity(), Color::Red.severity()],
        _ => vec![notice.color.severity()],
    };
    let annotations = annotations(notice, settings);
    let mut alerts: Vec<Alert<'_>> = severities
        .into_iter()
        .map(|severity| Alert {
            labels: labels(notice, settings, severity),
            annotations: annotations.clone(),
            starts_at: starts_at.to_string(),
            ends_at: ends_at.to_string(),
            generator_url: settings.generator_url.as_deref(),
        })
        .collect();
    alerts.dedup_by(|a, b| a.labels == b.labels);
    let json = alerts.iter().map(|alert| serde_json::to_string(alert).expect("strings, written into memory"));
    json.collect::<Vec<_>>().join(",")
}

fn micros(span: Span) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What is said last holds: the monitor's labels, ours, the destination's.
fn labels(notice: &Notice, settings: &Alertmanager, severity: &str) -> BTreeMap<String, String> {
    let monitor = notice.about.labels.iter().map(|(name, value)| (&**name, &**value));
    let groups = notice.groups.join(",");
    let own = [
        ("alertname", "MonitorFailing"),
        ("monitor", &*notice.monitor_name),
        ("instance", notice.instance().unwrap_or_default()),
        ("severity", severity),
        ("groups", &groups),
        ("test", if notice.test { "true" } else { "" }),
    ];
    let named = settings.labels.iter().map(|(name, value)| (&**name, &**value));
    let all = monitor.chain(own).chain(named).map(|(name, value)| (label_name(name), line(value)));
    // An empty label is none.
    let mut labels: BTreeMap<String, String> = all.collect();
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn annotations(notice: &Notice, settings: &Alertmanager) -> BTreeMap<String, String> {
    let Rendered { title, text } = render(notice, &notice.key.destination);
    let mark = if notice.test { TEST_TITLE } else { "" };
    let mut annotations = BTreeMap::from([
        ("title".to_owned(), title),
        ("summary".to_owned(), format!("{mark}{}", line(&notice.summary))),
        ("description".to_owned(), text),
        ("incident".to_owned(), line(&notice.incident.0)),
    ]);
    annotations.extend(notice.outcome.map(|outcome: Code| ("outcome".to_owned(), outcome.as_str().to_owned())));
    annotations.extend(notice.about.runbook.as_ref().map(|runbook| ("runbook_url".to_owned(), line(runbook))));
    annotations.extend(settings.annotations.iter().map(|(name, value)| (label_name(name), line(value))));
    annotations
}

/// As names of labels are: letters, digits and `_`, and no digit first.
fn label_name(name: &str) -> String {
    let mut sound: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if sound.starts_with(|c: char| c.is_ascii_digit()) || sound.is_empty() {
        sound.insert(0, '_');
    }
    sound
}
