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
                    Ok(answer) => self.exchange.usual_of_machines(&answer, words(&answer)),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::exchange::tests::{deliver, means, of};
    use super::super::line::tests::notice;
    use super::*;
    use crate::domain::Provider;
    use crate::domain::monitor::Secret;
    use crate::os::web::tests::{Reply, Seen, answer};

    fn settings(url: String) -> Alertmanager {
        Alertmanager {
            url: url.into(),
            authorization: Some(Authorization::Bearer(Secret::new("tellnobody"))),
            labels: [("team".into(), "ops".into()), ("9 lives".into(), "x".into())].into(),
            annotations: [("dashboard".into(), "https://d.example".into())].into(),
            generator_url: Some("https://cpra.example".into()),
        }
    }

    fn provider(url: String) -> Provider {
        Provider::Alertmanager(settings(url))
    }

    fn told(notice: &Notice, settings: &Alertmanager) -> serde_json::Value {
        serde_json::from_str(&format!("[{}]", alerts(notice, settings, NOW))).expect("it is JSON")
    }

    const NOW: Timestamp = Timestamp::from_micros(1_795_316_500_000_000);

    #[test]
    fn a_raise_is_an_alert_that_ends_soon() {
        let notice = of(Color::Red);
        let labels = json!({
            "alertname": "MonitorFailing", "monitor": "shop/web", "instance": "mon-1", "severity": "critical",
            "groups": "shop,frontend", "team": "ops", "cost_centre": "7", "_9_lives": "x",
        });
        let annotations = json!({
            "title": "CRITICAL ALERT: shop/web", "summary": "shop/web is down: <503> & \"more\"",
            "description": render(&notice, &notice.key.destination).text, "outcome": "L7STS",
            "incident": "mon-1/shop/web/0000000000000000000000001A",
            "runbook_url": "https://wiki.example.com/shop-web", "dashboard": "https://d.example",
        });
        let expected = json!([{
            "labels": labels, "annotations": annotations,
            "startsAt": "2026-11-22T02:59:53.500042Z", "endsAt": "2026-11-22T03:05:40.000000Z",
            "generatorURL": "https://cpra.example",
        }]);
        assert_eq!(told(&notice, &settings(String::new())), expected);
    }

    #[test]
    fn a_resolve_ends_both_severities_and_a_fixed_one_once() {
        let mut resolve = of(Color::Green);
        let both = told(&resolve, &settings(String::new()));
        let severity = |alert: &serde_json::Value| alert["labels"]["severity"].as_str().unwrap().to_owned();
        let alerts = both.as_array().unwrap();
        assert_eq!(alerts.iter().map(severity).collect::<Vec<_>>(), ["warning", "critical"]);
        assert!(alerts.iter().all(|alert| alert["endsAt"] == "2026-11-22T03:01:40.000000Z"), "{both}");
        let page = [("severity".into(), "page".into())].into();
        let fixed = Alertmanager { labels: page, ..settings(String::new()) };
        assert_eq!(told(&resolve, &fixed).as_array().unwrap().len(), 1);
        // Set back: an alert does not end before it began.
        resolve.at = Timestamp::from_micros(NOW.as_micros() + 60_000_000);
        let alert = &told(&resolve, &fixed)[0];
        assert_eq!(alert["startsAt"], alert["endsAt"]);
        resolve.test = true;
        let alert = &told(&resolve, &fixed)[0];
        assert_eq!(
            (&alert["labels"]["test"], alert["annotations"]["summary"].as_str().unwrap().get(..6)),
            (&json!("true"), Some("[TEST]"))
        );
        assert_eq!(told(&of(Color::Cyan), &fixed), json!([]));
    }

    #[test]
    fn one_request_holds_a_batch() {
        let url = |url: String| provider(format!("{url}/am/"));
        let notices = vec![of(Color::Red), of(Color::Cyan), of(Color::Green)];
        let (delivered, seen) = deliver(url, |_, _| answer(200, "", ""), notices);
        assert!(delivered.iter().all(|delivered| delivered.result == DeliveryResult::Sent), "{delivered:?}");
        let [seen] = &seen[..] else { panic!("one request") };
        assert!(seen.head.starts_with("POST /am/api/v2/alerts HTTP/1.1"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), Some("Bearer tellnobody"));
        assert_eq!(seen.json().as_array().unwrap().len(), 3);
        let whole = |url: String| provider(format!("{url}/api/v2/alerts"));
        let (_, seen) = deliver(whole, |_, _| answer(200, "", ""), vec![of(Color::Red)]);
        assert!(seen[0].head.starts_with("POST /api/v2/alerts HTTP/1.1"), "{}", seen[0].head);
        let basic = Authorization::Basic { username: "me".into(), password: Secret::new("pw") };
        assert_eq!(authorization(&basic), "Basic bWU6cHc=");
        let (delivered, seen) = deliver(provider, |_, _| answer(200, "", ""), vec![of(Color::Cyan)]);
        assert_eq!((delivered[0].result, seen.len()), (DeliveryResult::Sent, 0));
    }

    fn refuses_bad(_: usize, seen: &Seen) -> Reply {
        match String::from_utf8_lossy(&seen.body).contains("bad") {
            true => answer(400, "", "start time must be before end time"),
            false => answer(200, "", ""),
        }
    }

    #[test]
    fn a_bad_one_is_found_and_the_others_arrive() {
        let mut notices: Vec<Notice> = (0..9).map(|n| notice(n, None)).collect();
        notices[6].summary = "bad".into();
        let (delivered, seen) = deliver(provider, refuses_bad, notices);
        for (at, delivered) in delivered.iter().enumerate() {
            let expected = if at == 6 { DeliveryResult::Refused } else { DeliveryResult::Sent };
            assert_eq!(delivered.result, expected, "{at}: {}", delivered.said);
        }
        assert!(seen.len() <= 9, "{} requests", seen.len());
        // Where most are bad, it ends all the same; those that were not looked at come again.
        let mut all: Vec<Notice> = (0..200).map(|n| notice(n, None)).collect();
        all.iter_mut().for_each(|notice| notice.summary = "bad".into());
        let (delivered, seen) = deliver(provider, refuses_bad, all);
        assert_eq!(seen.len(), ALERTMANAGER_REQUESTS_MAX);
        let of = |result| delivered.iter().filter(|delivered| delivered.result == result).count();
        assert!(of(DeliveryResult::Refused) > 10, "{delivered:?}");
        assert_eq!(of(DeliveryResult::Refused) + of(DeliveryResult::Failed), 200);
    }

    #[test]
    fn what_is_about_the_request_is_not_looked_for_in_the_batch() {
        let (delivered, seen) =
            deliver(provider, |_, _| answer(401, "", "who is tellnobody"), vec![of(Color::Red), of(Color::Red)]);
        assert_eq!(seen.len(), 1);
        assert!(delivered.iter().all(|told| *told == Delivered::new(DeliveryResult::Refused, "401 who is (secret)")));
        assert_eq!(means(provider, answer(503, "", "")).0, DeliveryResult::Failed);
        assert_eq!(means(provider, Reply::Last(String::new())).0, DeliveryResult::Failed, "told again, it is the same");
    }

    #[test]
    fn a_request_is_bounded() {
        let alerts: Vec<String> = (0..10).map(|_| "x".repeat(ALERTMANAGER_BODY_MAX / 4)).collect();
        let ranges = requests(&alerts);
        assert!(ranges.iter().all(|range| range.len() == 3 || range.end == 10), "{ranges:?}");
        assert_eq!((ranges[0].start, ranges.back().unwrap().end), (0, 10));
        let alone = requests(&["x".repeat(2 * ALERTMANAGER_BODY_MAX)]);
        assert_eq!(alone, std::slice::from_ref(&(0..1)), "alone it goes all the same");
        assert!(requests(&[]).is_empty());
    }
}
