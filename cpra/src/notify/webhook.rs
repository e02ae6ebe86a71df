//! `webhook`: JSON to an address of one's own, as Standard Webhooks has it:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! The body is a promise, documented in `docs/providers.md`, and says its version. `webhook-id` is the same for every
//! attempt of one notice, over restarts too, so that the other side can drop what it has; `webhook-timestamp` is that of
//! the attempt, and signed with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use super::exchange::{Exchange, words};
use super::line::{Line, delivery};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::Webhook;
use crate::domain::monitor::Secret;
use crate::domain::{Destination, Notice};
use crate::os::clock::Clock;
use crate::os::web::{Again, Answer, Request, Web};
use crate::units::Timestamp;
use crate::wording::{Rendered, render};

/// Of the body. Fields may be added within a version, and none is taken away.
const VERSION: u32 = 1;
const SECRET_PREFIX: &str = "whsec_";

#[derive(Debug)]
pub struct WebhookOutlet {
    settings: Webhook,
    exchange: Exchange,
}

#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    /// `notice.red`.
    r#type: String,
    /// When it happened.
    timestamp: String,
    title: String,
    text: String,
    data: Line<'a>,
}

impl WebhookOutlet {
    pub fn new(settings: &Webhook, destination: &Destination, web: &Web) -> Self {
        let headers = settings.headers.iter().map(|(_, value)| value);
        let secrets = std::iter::once(&settings.url).chain(headers).chain(&settings.secrets);
        let secrets = secrets.map(Secret::expose);
        Self { settings: settings.clone(), exchange: Exchange::new(destination, web, Again::Known, secrets) }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        self.exchange.each(notices, |notice| self.deliver_one(notice)).await
    }

    async fn deliver_one(&self, notice: &Notice) -> Delivered {
        let (id, body) = (delivery(&notice.key), body(notice));
        let Some(signed) = headers(&self.settings, &id, Clock.wall(), &body) else {
            return Delivered::new(DeliveryResult::Refused, "a secret is not whsec_ and base64");
        };
        // Ours last: they hold whatever a file says.
        let own = self.settings.headers.iter().map(|(name, value)| (&**name, value.expose().to_owned()));
        let json = ("content-type", "application/json".to_owned());
        let headers = std::iter::once(json).chain(own).chain(signed).collect();
        let request = Request { method: &self.settings.method, url: self.settings.url.expose(), headers, body };
        match self.exchange.send(request).await {
            Ok(answer) => self.judge(&answer),
            Err(delivered) => delivered,
        }
    }

    fn judge(&self, answer: &Answer) -> Delivered {
        match answer.status {
            410 => self.exchange.said(DeliveryResult::Refused, answer, "the endpoint wants no more of them"),
            _ => self.exchange.usual(answer, words(answer)),
        }
    }
}

fn body(notice: &Notice) -> Vec<u8> {
    let Rendered { title, text } = render(notice, &notice.key.destination);
    let body = Body {
        version: VERSION,
        r#type: format!("notice.{}", notice.color),
        timestamp: notice.at.to_string(),
        title,
        text,
        data: Line::of(notice),
    };
    serde_json::to_vec(&body).expect("strings and numbers, written into memory")
}

/// `None` where a secret is none.
fn headers(settings: &Webhook, id: &str, now: Timestamp, body: &[u8]) -> Option<Vec<(&'static str, String)>> {
    let seconds = (now.as_millis_unsigned() / 1_000).to_string();
    let signatures: Option<Vec<String>> =
        settings.secrets.iter().map(|secret| sign(secret.expose(), id, &seconds, body)).collect();
    let signatures = signatures?.join(" ");
    let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds)];
    if !signatures.is_empty() {
        headers.push(("webhook-signature", signatures));
    }
    Some(headers)
}

fn sign(secret: &str, id: &str, seconds: &str, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}
