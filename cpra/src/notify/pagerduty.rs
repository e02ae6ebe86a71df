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
            Ok(answer) => self.exchange.usual_of_machines(&answer, &said(&answer)),
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

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::{deliver, means, of};
    use super::*;
    use crate::domain::Color;
    use crate::domain::destination::{Provider, Wording, Words};
    use crate::domain::monitor::Secret;
    use crate::os::web::tests::{Reply, answer};
    use crate::units::Span;
    use crate::units::limits::WORDING_TITLE_MAX;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const INCIDENT: &str = "mon-1/shop/web/0000000000000000000000001A";

    #[expect(clippy::needless_pass_by_value, reason = "one signature for all providers")]
    fn provider(url: String) -> Provider {
        Provider::PagerDuty(settings(&format!("{url}/v2/enqueue")))
    }

    fn settings(url: &str) -> PagerDuty {
        PagerDuty { routing_key: Secret::new(KEY), url: url.into(), severity: None }
    }

    fn event(notice: &Notice) -> serde_json::Value {
        serde_json::from_slice(&body(notice, &settings("")).expect("an event")).expect("it is JSON")
    }

    #[test]
    fn a_red_is_a_trigger_that_says_everything() {
        let notice = of(Color::Red);
        let text = render(&notice, &notice.key.destination).text;
        let (delivered, seen) = deliver(provider, |_, _| answer(202, "", ACCEPTED), vec![notice]);
        assert_eq!(delivered, [Delivered::new(DeliveryResult::Sent, "202 Event processed")]);
        assert!(seen[0].head.starts_with("POST /v2/enqueue HTTP/1.1"), "{}", seen[0].head);
        assert_eq!(seen[0].header("content-type"), Some("application/json"));
        let expected = json!({
            "routing_key": KEY,
            "event_action": "trigger",
            "dedup_key": INCIDENT,
            "client": "cpra",
            "links": [{"href": "https://wiki.example.com/shop-web", "text": "Runbook"}],
            "payload": {
                "summary": "CRITICAL ALERT: shop/web: shop/web is down: <503> & \"more\"",
                "source": "shop/web",
                "severity": "critical",
                "timestamp": "2026-11-22T03:00:00.000042Z",
                "group": "shop",
                "class": "L7STS",
                "custom_details": {
                    "monitor": "shop/web",
                    "color": "red",
                    "status": "FAILED",
                    "outcome": "L7STS",
                    "incident": INCIDENT,
                    "instance": "mon-1",
                    "groups": ["shop", "frontend"],
                    "labels": {"cost centre": "7", "team": "shop"},
                    "description": "The shop's\nfront door",
                    "lasted_seconds": 6.5,
                    "test": false,
                    "text": text,
                },
            },
        });
        assert_eq!(seen[0].json(), expected);
    }

    const ACCEPTED: &str = r#"{"status":"success","message":"Event processed","dedup_key":"x"}"#;

    #[test]
    fn one_incident_is_raised_and_resolved_under_one_key() {
        let yellow = event(&of(Color::Yellow));
        assert_eq!((&yellow["event_action"], &yellow["dedup_key"]), (&json!("trigger"), &json!(INCIDENT)));
        assert_eq!(yellow["payload"]["severity"], "warning");
        for color in [Color::Green, Color::Gray] {
            let resolve = json!({"routing_key": KEY, "event_action": "resolve", "dedup_key": INCIDENT});
            assert_eq!(event(&of(color)), resolve, "{color}");
        }
        let (delivered, seen) = deliver(provider, |_, _| Reply::Last(String::new()), vec![of(Color::Cyan)]);
        assert_eq!((delivered[0].result, seen.len()), (DeliveryResult::Sent, 0), "there is nothing to tell");
        let severe = PagerDuty { severity: Some(Severity::Error), ..settings("") };
        let red: serde_json::Value = serde_json::from_slice(&body(&of(Color::Red), &severe).unwrap()).unwrap();
        assert_eq!(red["payload"]["severity"], "error");
    }

    #[test]
    fn what_is_too_long_is_cut_or_hashed() {
        let mut notice = of(Color::Red);
        notice.summary = "🛒".repeat(400).into();
        notice.incident.0 = "i".repeat(256).into();
        let long = event(&notice);
        let summary = long["payload"]["summary"].as_str().unwrap();
        assert!(summary.len() <= PAGERDUTY_SUMMARY_MAX && summary.ends_with("🛒…"), "{}", summary.len());
        let key = long["dedup_key"].as_str().unwrap().to_owned();
        assert_eq!((key.len(), &key[..5]), (69, "cpra-"));
        notice.incident.0 = "i".repeat(255).into();
        assert_eq!(event(&notice)["dedup_key"].as_str().unwrap().len(), 255);
        notice.incident.0 = format!("{}j", "i".repeat(255)).into();
        assert_ne!(event(&notice)["dedup_key"], key);
    }

    #[test]
    fn a_test_and_a_persons_words_are_seen() {
        let mut notice = of(Color::Red);
        notice.test = true;
        let words = Words { title: Some("{{ monitor }} broke{{ 'x' * 600 }}".into()), text: None };
        let destination = Destination { wording: Wording::new([(Color::Red, words)]), ..Destination::log(None) };
        notice.key.destination = destination.into();
        let event = event(&notice);
        let summary = event["payload"]["summary"].as_str().unwrap();
        assert!(summary.starts_with("[TEST] shop/web brokexx") && summary.len() == WORDING_TITLE_MAX, "{summary}");
        assert_eq!(event["payload"]["custom_details"]["test"], true);
    }

    #[test]
    fn answers_mean_what_the_contract_says() {
        let refusal = r#"{"status":"invalid event","message":"Event object is invalid","errors":["a","b"]}"#;
        let cases = [
            (answer(202, "", ACCEPTED), DeliveryResult::Sent, "202 Event processed"),
            (Reply::Last("HTTP/1.1 202 X\r\ncontent-length: 9\r\n\r\n{".into()), DeliveryResult::Sent, "202 {"),
            (answer(400, "", refusal), DeliveryResult::Refused, "400 Event object is invalid: a, b"),
            (answer(403, "", KEY), DeliveryResult::Refused, "403 (secret)"),
            (answer(500, "", "oops"), DeliveryResult::Failed, "500 oops"),
        ];
        for (reply, result, said) in cases {
            assert_eq!(means(provider, reply), (result, said.to_owned(), None));
        }
        let (result, said, after) = means(provider, answer(429, "", "slow down"));
        assert_eq!((result, &*said, after), (DeliveryResult::Failed, "429 slow down", Some(Span::ZERO)));
        let (result, said, _) = means(provider, Reply::Last(String::new()));
        assert_eq!(result, DeliveryResult::Failed, "{said}: the key tells a second one");
    }
}
