//! PagerDuty, Events API v2: <https://developer.pagerduty.com/docs/events-api-v2/overview/>.
//!
//! An incident there is known by its `dedup_key`, which is ours. So yellow and red of one episode are one incident, of
//! which red raises the severity; green and gray resolve it; and what is sent twice is one.
//!
//! Nothing is sent for cyan: a page says that somebody is needed, and a repair that was verified is followed by the
//! resolve at once. A `trigger` with the severity `info` would open an incident for those who were never paged, and a
//! change event is for what was changed on purpose.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::exchange::{Exchange, words};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::{PagerDuty, Severity};
use crate::domain::{Code, Destination, Notice, Raise};
use crate::os::web::{Again, Answer, Request, Web};
use crate::units::limits::PAGERDUTY_SUMMARY_MAX;
use crate::wording::{Rendered, cut, line, render};

/// Of a key there, in characters; ours are bytes, which are no fewer.
const DEDUP_KEY_MAX: usize = 255;

#[derive(Debug)]
pub struct PagerDutyOutlet {
    settings: PagerDuty,
    exchange: Exchange,
}

impl PagerDutyOutlet {
    pub fn new(settings: &PagerDuty, destination: &Destination, web: &Web) -> Self {
        let secrets = [settings.routing_key.expose()];
        Self { settings: settings.clone(), exchange: Exchange::new(destination, web, Again::Known, secrets) }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        self.exchange.each(notices, |notice| self.deliver_one(notice)).await
    }

    async fn deliver_one(&self, notice: &Notice) -> Delivered {
        let Some(body) = body(notice, &self.settings) else {
            return Delivered::new(DeliveryResult::Sent, "PagerDuty is told nothing of a repair; the resolve follows");
        };
        let headers = vec![("content-type", "application/json".into())];
        let request = Request { method: "POST", url: &self.settings.url, headers, body };
        match self.exchange.send(request).await {
            Ok(answer) => self.exchange.usual(&answer, &said(&answer)),
            Err(delivered) => delivered,
        }
    }
}

/// `None`: there is nothing to tell.
fn body(notice: &Notice, settings: &PagerDuty) -> Option<Vec<u8>> {
    let dedup_key = dedup_key(&notice.incident.0);
    let resolve = json!({
        "routing_key": settings.routing_key.expose(),
        "event_action": "resolve",
        "dedup_key": dedup_key,
    });
    let event = match notice.key.raise {
        Raise::Yellow | Raise::Red => trigger(notice, settings, &dedup_key),
        Raise::Resolve | Raise::Gray => resolve,
        Raise::Cyan => return None,
    };
    Some(event.to_string().into_bytes())
}

fn trigger(notice: &Notice, settings: &PagerDuty, dedup_key: &str) -> serde_json::Value {
    let Rendered { title, text } = render(notice, &notice.key.destination);
    let about = &notice.about;
    let labels: serde_json::Map<String, serde_json::Value> =
        about.labels.iter().map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
    // The title by itself says that something is wrong; a summary should say what.
    let own_title = notice.key.destination.wording.of(notice.color).is_some_and(|words| words.title.is_some());
    let summary = if own_title { title } else { format!("{title}: {}", line(&notice.summary)) };
    let severity = settings.severity.map_or(notice.color.severity(), Severity::as_str);
    let mut event = json!({
        "routing_key": settings.routing_key.expose(),
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "cpra",
        "payload": {
            "summary": cut(summary, PAGERDUTY_SUMMARY_MAX),
            "source": notice.monitor_name,
            "severity": severity,
            "timestamp": notice.at.to_string(),
            "custom_details": {
                "monitor": notice.monitor_name,
                "color": notice.color.as_str(),
                "status": notice.color.status(),
                "outcome": notice.outcome.map(Code::as_str),
                "incident": notice.incident.0,
                "instance": notice.instance(),
                "groups": notice.groups,
                "labels": labels,
                "description": about.description,
                "lasted_seconds": notice.lasted.as_secs_f64(),
                "test": notice.test,
                "text": text,
            },
        },
    });
    if let Some(group) = notice.groups.first() {
        event["payload"]["group"] = json!(group);
    }
    if let Some(outcome) = notice.outcome {
        event["payload"]["class"] = json!(outcome.as_str());
    }
    if let Some(runbook) = &about.runbook {
        event["links"] = json!([{"href": runbook, "text": "Runbook"}]);
    }
    event
}

/// The incident's key, or what stands for it where it is too long.
fn dedup_key(incident: &str) -> String {
    if incident.len() <= DEDUP_KEY_MAX {
        return incident.to_owned();
    }
    let digest = Sha256::digest(incident.as_bytes());
    digest.iter().fold("cpra-".to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// `Event object is invalid: Length of 'routing_key' is incorrect`.
fn said(answer: &Answer) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
        #[serde(default)]
        errors: Vec<String>,
    }
    match serde_json::from_slice::<Said>(&answer.body) {
        Ok(Said { message, errors }) if errors.is_empty() => message,
        Ok(Said { message, errors }) => format!("{message}: {}", errors.join(", ")),
        Err(_) => words(answer).to_owned(),
    }
}
