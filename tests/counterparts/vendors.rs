//! The rules of those who take alerts, as their documentation has them; what they answer in their own words.
//!
//! | path | who |
//! | --- | --- |
//! | `/v2/enqueue` | PagerDuty, Events API v2 |
//! | `/services/...` | Slack, incoming webhooks |
//! | `/2010-04-01/Accounts/SID/Messages.json` | Twilio |
//! | `/api/v2/alerts` | Alertmanager |
//! | `/hook...` | a receiver of Standard Webhooks |

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cpra::os::clock::Clock;
use cpra::units::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::provider::Request;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// The rule that the request breaks.
    pub breaks: Option<String>,
}

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into(), breaks: None }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    fn breaking(mut self, rule: impl Into<String>) -> Self {
        self.breaks = Some(rule.into());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} It\r\nContent-Type: {}\r\n", self.status, self.content_type);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + &format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body)).into_bytes()
    }
}

/// Which of them a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    PagerDuty,
    Slack,
    Twilio,
    Alertmanager,
    Webhook,
}

/// All of them, with what they remember.
pub struct Vendors {
    pub account_sid: String,
    pub auth_token: String,
    /// `whsec_...`: one of them must have signed.
    pub secrets: Vec<String>,
    /// Slack's, about one a second.
    pub slack_every: Duration,
    pub slack_burst: u32,
    /// What was processed.
    pub taken: Vec<Request>,
    /// PagerDuty's open alerts, by routing key and dedup key.
    open: Vec<(String, String)>,
    /// Under which key something was sent: the same thing may not come under another one.
    keys: BTreeMap<String, String>,
    slack_ready: Option<Instant>,
}

impl Default for Vendors {
    fn default() -> Self {
        Self {
            account_sid: "AC00000000000000000000000000000001".into(),
            auth_token: "twilio-auth-token".into(),
            secrets: Vec::new(),
            slack_every: Duration::from_secs(1),
            slack_burst: 3,
            taken: Vec::new(),
            open: Vec::new(),
            keys: BTreeMap::new(),
            slack_ready: None,
        }
    }
}

pub const HOOK: &str = "/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx";
pub const BODY_MAX: usize = 512 * 1024;

impl Vendors {
    pub fn messages_path(&self) -> String {
        format!("/2010-04-01/Accounts/{}/Messages.json", self.account_sid)
    }

    /// Whether it keeps the rules; else what the vendor says to it.
    pub fn look(&mut self, request: &Request) -> Result<(), Answer> {
        let vendor =
            vendor(request).ok_or_else(|| Answer::new(404, "text/plain", "no such path").breaking("no such path"))?;
        if request.method != "POST" && vendor != Vendor::Webhook {
            return Err(Answer::new(405, "text/plain", "method not allowed").breaking("POST alone is allowed"));
        }
        match vendor {
            Vendor::PagerDuty => self.pagerduty(request),
            Vendor::Slack => self.slack(request),
            Vendor::Twilio => self.twilio(request),
            Vendor::Alertmanager => alertmanager(request),
            Vendor::Webhook => self.webhook(request),
        }
    }

    /// Takes it. It keeps the rules.
    pub fn process(&mut self, request: &Request) -> Answer {
        self.taken.push(request.clone());
        match vendor(request) {
            Some(Vendor::PagerDuty) => {
                let event = request.json();
                let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                let alert = (text("routing_key"), text("dedup_key"));
                self.open.retain(|known| *known != alert);
                if text("event_action") != "resolve" {
                    self.open.push(alert);
                }
                let said = json!({"status": "success", "message": "Event processed", "dedup_key": text("dedup_key")});
                Answer::json(202, &said)
            }
            Some(Vendor::Slack) => Answer::new(200, "text/html", "ok"),
            Some(Vendor::Twilio) => {
                let number = self.taken.len();
                let said = json!({"sid": format!("SM{number:032x}"), "status": "queued", "error_code": null,
                    "error_message": null, "account_sid": self.account_sid});
                Answer::json(201, &said)
            }
            Some(Vendor::Alertmanager) => Answer::new(200, "text/plain", ""),
            Some(Vendor::Webhook) | None => Answer::new(204, "text/plain", ""),
        }
    }

    /// What it says when it is not well.
    pub fn failure(&self, request: &Request, status: u16) -> Answer {
        match (vendor(request), status) {
            (Some(Vendor::PagerDuty), 429) => Answer::json(
                429,
                &json!({"status": "throttle exceeded",
                    "message": "Requests for this service are arriving too quickly.  Please retry later."}),
            ),
            (Some(Vendor::Slack), 429) => Answer::new(429, "text/plain", "rate_limited"),
            (Some(Vendor::Twilio), 429) => twilio_error(429, 20429, "Too Many Requests"),
            (Some(Vendor::Slack), 404) => Answer::new(404, "text/plain", "no_service"),
            (Some(Vendor::Slack), 410) => Answer::new(410, "text/plain", "channel_is_archived"),
            _ => Answer::new(status, "text/plain", "something is wrong here"),
        }
    }

    /// Alerts that PagerDuty has open, by their dedup key.
    pub fn open(&self) -> Vec<String> {
        self.open.iter().map(|(_, key)| key.clone()).collect()
    }

    /// The same thing under the same key, as often as it comes.
    fn is_stable(&mut self, content: String, key: &str) -> bool {
        self.keys.entry(content).or_insert_with(|| key.to_owned()) == key
    }

    fn pagerduty(&mut self, request: &Request) -> Result<(), Answer> {
        let invalid = |error: String| {
            let said = json!({"status": "invalid event", "message": "Event object is invalid", "errors": [&error]});
            Err(Answer::json(400, &said).breaking(error))
        };
        if request.body.len() > BODY_MAX {
            return Err(Answer::new(413, "text/plain", "Request Entity Too Large").breaking("at most 512 KB"));
        }
        let Ok(event) = serde_json::from_slice::<Value>(&request.body) else {
            return invalid("JSON parse error".into());
        };
        if !is_json(request) {
            return invalid("the content type is not JSON".into());
        }
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let (routing_key, action, key) = (text("routing_key"), text("event_action"), text("dedup_key"));
        if routing_key.chars().count() != 32 {
            return invalid("Length of 'routing_key' is incorrect (should be 32 characters)".into());
        }
        if !["trigger", "acknowledge", "resolve"].contains(&action) {
            return invalid("'event_action' is missing, or no action".into());
        }
        if key.chars().count() > 255 {
            return invalid("'dedup_key' is too long (maximum is 255 characters)".into());
        }
        if action != "trigger" && key.is_empty() {
            return invalid("'dedup_key' is missing or blank".into());
        }
        if action == "trigger" {
            let payload = &event["payload"];
            for name in ["summary", "source", "severity"] {
                if payload[name].as_str().is_none_or(str::is_empty) {
                    return invalid(format!("'payload.{name}' is missing or blank"));
                }
            }
            if payload["summary"].as_str().is_some_and(|summary| summary.chars().count() > 1_024) {
                return invalid("'payload.summary' is too long (maximum is 1024 characters)".into());
            }
            if !["critical", "error", "warning", "info"].iter().any(|severity| payload["severity"] == *severity) {
                return invalid(
                    "'payload.severity' is invalid (must be one of: critical, warning, error, info)".into(),
                );
            }
            if !payload["timestamp"].is_null()
                && payload["timestamp"].as_str().is_none_or(|time| time.parse::<jiff::Timestamp>().is_err())
            {
                return invalid("'payload.timestamp' is invalid".into());
            }
            if !self.is_stable(format!("pagerduty {routing_key} {payload}"), key) {
                return invalid("the same event came under another dedup_key".into());
            }
        } else if !self.open.iter().any(|(routing, open)| routing == routing_key && open == key) {
            // The real one says 202 and does nothing. Here it is a resolve that overtook its trigger, or has another key.
            let was = self.taken.iter().any(|one| one.text().contains(key));
            if !was {
                return invalid(format!("{action} of what was never triggered"));
            }
        }
        Ok(())
    }

    fn slack(&mut self, request: &Request) -> Result<(), Answer> {
        let refused = |status, word: &str| Err(Answer::new(status, "text/plain", word).breaking(word));
        let parts: Vec<&str> = request.path.split('/').collect();
        if parts.len() != 5 || !parts[2].starts_with('T') || !parts[3].starts_with('B') {
            return refused(404, "no_service");
        }
        if request.path != HOOK {
            return refused(403, "invalid_token");
        }
        let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
            return refused(400, "invalid_payload");
        };
        if !is_json(request) || !message.is_object() {
            return refused(400, "invalid_payload");
        }
        let has_text = message["text"].as_str().is_some_and(|text| !text.trim().is_empty());
        if !has_text && message["blocks"].as_array().is_none_or(Vec::is_empty) {
            return refused(400, "no_text");
        }
        if message["text"].as_str().is_some_and(|text| text.chars().count() > 40_000) {
            return refused(400, "msg_too_long");
        }
        // A bucket: so many at once, and one more with every `slack_every`.
        let (now, every) = (Instant::now(), self.slack_every);
        let ready = self.slack_ready.map_or(now, |ready| ready.max(now));
        if ready.duration_since(now) > every * self.slack_burst.saturating_sub(1) {
            let mut answer = Answer::new(429, "text/plain", "rate_limited").breaking("one message a second");
            answer.headers.push(("Retry-After", "1".into()));
            return Err(answer);
        }
        self.slack_ready = Some(ready + every);
        Ok(())
    }

    fn twilio(&mut self, request: &Request) -> Result<(), Answer> {
        let refused = |status, code, why: &str| Err(twilio_error(status, code, why).breaking(why));
        let basic = BASE64_STANDARD.encode(format!("{}:{}", self.account_sid, self.auth_token));
        if request.header("authorization") != Some(&format!("Basic {basic}")) {
            return refused(401, 20003, "Authenticate");
        }
        if request.path != self.messages_path() {
            return refused(404, 20404, "The requested resource was not found");
        }
        let form = request.header("content-type").unwrap_or_default();
        if form.split(';').next() != Some("application/x-www-form-urlencoded") {
            return refused(400, 21604, "A 'To' phone number is required.");
        }
        let form: BTreeMap<String, String> = request.form().into_iter().collect();
        let text = |name: &str| form.get(name).map_or("", String::as_str);
        if text("To").is_empty() {
            return refused(400, 21604, "A 'To' phone number is required.");
        }
        if !text("To").starts_with('+') || !text("To")[1..].bytes().all(|byte| byte.is_ascii_digit()) {
            return refused(400, 21211, "Invalid 'To' Phone Number");
        }
        if text("From").is_empty() == text("MessagingServiceSid").is_empty() {
            return refused(400, 21603, "A 'From' phone number is required.");
        }
        if text("Body").is_empty() {
            return refused(400, 21602, "Message body is required.");
        }
        if text("Body").chars().count() > 1_600 {
            return refused(400, 21617, "The concatenated message body exceeds the 1600 character limit.");
        }
        Ok(())
    }

    fn webhook(&mut self, request: &Request) -> Result<(), Answer> {
        let refused = |why: &str| Err(Answer::json(401, &json!({"error": why})).breaking(why));
        let header = |name| request.header(name).unwrap_or_default();
        let (id, stamp, signatures) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
        if id.is_empty() || stamp.is_empty() {
            return refused("webhook-id or webhook-timestamp is missing");
        }
        let now = Clock.wall().as_micros() / 1_000_000;
        if !stamp.parse::<i64>().is_ok_and(|stamp| (stamp - now).abs() <= 300) {
            return refused("webhook-timestamp is no unix time of now");
        }
        let keys = self.secrets.iter().map(|secret| BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")));
        let expected: Vec<String> = keys
            .map(|key| {
                let mut mac = Hmac::<Sha256>::new_from_slice(&key.expect("a secret in base64")).expect("any length");
                mac.update(format!("{id}.{stamp}.").as_bytes());
                mac.update(&request.body);
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        if !expected.is_empty() && !signatures.split(' ').any(|signature| expected.iter().any(|it| it == signature)) {
            return refused("no signature of a known secret");
        }
        if request.body.is_empty() || serde_json::from_slice::<Value>(&request.body).is_err() {
            return refused("the body is no JSON");
        }
        if !self.is_stable(format!("webhook {}", request.text()), id) {
            return refused("the same event came under another webhook-id");
        }
        Ok(())
    }
}

fn vendor(request: &Request) -> Option<Vendor> {
    let known = [
        ("/v2/enqueue", Vendor::PagerDuty),
        ("/services/", Vendor::Slack),
        ("/2010-04-01/", Vendor::Twilio),
        ("/api/v2/alerts", Vendor::Alertmanager),
        ("/hook", Vendor::Webhook),
    ];
    known.into_iter().find(|(path, _)| request.path.starts_with(path)).map(|(_, vendor)| vendor)
}

fn is_json(request: &Request) -> bool {
    request.header("content-type").unwrap_or_default().split(';').next() == Some("application/json")
}

fn twilio_error(status: u16, code: u32, message: &str) -> Answer {
    let more = format!("https://www.twilio.com/docs/errors/{code}");
    Answer::json(status, &json!({"code": code, "message": message, "more_info": more, "status": status}))
}

/// As the one in Debian's package answers: its test compares both.
fn alertmanager(request: &Request) -> Result<(), Answer> {
    let refused =
        |status, code, why: &str| Err(Answer::json(status, &json!({"code": code, "message": why})).breaking(why));
    if !is_json(request) {
        return refused(415, 415, "unsupported media type: only application/json is allowed");
    }
    let Ok(Value::Array(alerts)) = serde_json::from_slice::<Value>(&request.body) else {
        return refused(400, 400, "parsing alerts body from \"\" failed");
    };
    for (index, alert) in alerts.iter().enumerate() {
        let Some(labels) = alert["labels"].as_object() else {
            return refused(422, 602, &format!("{index}.labels in body is required"));
        };
        if labels.values().all(|value| value.as_str().is_none_or(str::is_empty)) {
            return Err(Answer::json(400, &json!("at least one label pair required")).breaking("at least one label"));
        }
        let time = |name: &str| -> Result<Option<Timestamp>, Answer> {
            let Some(text) = alert[name].as_str() else { return Ok(None) };
            let parsed = text.parse::<jiff::Timestamp>().map(|time| Timestamp::from_micros(time.as_microsecond()));
            parsed.map(Some).or_else(|_| refused(400, 400, &format!("{name} is no time")).map(|()| None))
        };
        if let (Some(starts), Some(ends)) = (time("startsAt")?, time("endsAt")?)
            && ends < starts
        {
            return Err(
                Answer::json(400, &json!("start time must be before end time")).breaking("startsAt after endsAt")
            );
        }
    }
    Ok(())
}
