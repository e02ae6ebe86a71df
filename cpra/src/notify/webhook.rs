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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::exchange::tests::{deliver, means, of};
    use super::*;
    use crate::domain::{Color, Provider};
    use crate::os::web::tests::answer;

    /// From the specification's own examples.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn settings(url: &str, secrets: &[&str]) -> Webhook {
        Webhook {
            url: Secret::new(url),
            method: "PUT".into(),
            headers: [("X-Team".into(), Secret::new("shop")), ("webhook-id".into(), Secret::new("mine"))].into(),
            secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect(),
        }
    }

    #[test]
    fn a_signature_is_as_the_specification_has_it() {
        let signed = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!((sign("MfKQ9r8G", "a", "1", b""), sign("whsec_!", "a", "1", b"")), (None, None));
    }

    #[test]
    fn the_body_is_documented_and_the_headers_sign_it() {
        let provider = |url: String| Provider::Webhook(settings(&format!("{url}/in?a"), &[SECRET, "whsec_bmV3ZXI="]));
        let before = Clock.wall().as_millis_unsigned() / 1_000;
        let (delivered, seen) = deliver(provider, |_, _| answer(200, "", ""), vec![of(Color::Red)]);
        assert_eq!(delivered, [Delivered::new(DeliveryResult::Sent, "200")]);
        let seen = &seen[0];
        assert!(seen.head.starts_with("PUT /in?a HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!((seen.header("x-team"), seen.header("content-type")), (Some("shop"), Some("application/json")));
        let id = seen.header("webhook-id").unwrap();
        assert_eq!(id, "0000000000000000000000001A/red/0", "a file cannot set it");
        let timestamp = seen.header("webhook-timestamp").unwrap();
        assert!((before..before + 10).contains(&timestamp.parse().unwrap()), "{timestamp}");
        let signatures: Vec<String> =
            [SECRET, "whsec_bmV3ZXI="].iter().map(|secret| sign(secret, id, timestamp, &seen.body).unwrap()).collect();
        assert_eq!(seen.header("webhook-signature"), Some(&*signatures.join(" ")));
        let body = seen.json();
        let expected = json!({
            "version": 1,
            "type": "notice.red",
            "timestamp": "2026-11-22T03:00:00.000042Z",
            "title": "CRITICAL ALERT: shop/web",
            "text": render(&of(Color::Red), &Destination::log(None)).text,
            "data": {
                "timestamp": "2026-11-22T03:00:00.000042Z",
                "monitor": "shop/web",
                "color": "red",
                "status": "FAILED",
                "severity": "critical",
                "title": "CRITICAL ALERT",
                "summary": "shop/web is down: <503> & \"more\"",
                "incident": "mon-1/shop/web/0000000000000000000000001A",
                "outcome": "L7STS",
                "groups": ["shop", "frontend"],
                "labels": {"cost centre": "7", "team": "shop"},
                "description": "The shop's\nfront door",
                "runbook": "https://wiki.example.com/shop-web",
                "instance": "mon-1",
                "delivery": "0000000000000000000000001A/red/0",
                "lasted_seconds": 6.5,
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn without_a_secret_nothing_is_signed_and_with_a_broken_one_nothing_is_sent() {
        let plain = |url: String| Provider::Webhook(settings(&url, &[]));
        let mut test = of(Color::Green);
        test.test = true;
        let (_, seen) = deliver(plain, |_, _| answer(200, "", ""), vec![test]);
        assert!(seen[0].header("webhook-signature").is_none() && seen[0].header("webhook-id").is_some());
        let body = seen[0].json();
        assert_eq!((&body["type"], &body["data"]["test"]), (&json!("notice.green"), &json!(true)));
        assert!(body["title"].as_str().unwrap().starts_with("[TEST] "), "{body}");
        let broken = |url: String| Provider::Webhook(settings(&url, &[SECRET, "sesame"]));
        let (delivered, seen) = deliver(broken, |_, _| answer(200, "", ""), vec![of(Color::Red)]);
        let said = Delivered::new(DeliveryResult::Refused, "a secret is not whsec_ and base64");
        assert_eq!((&delivered[..], seen.len()), (&[said][..], 0));
    }

    #[test]
    fn an_endpoint_that_is_gone_says_so() {
        let plain = |url: String| Provider::Webhook(settings(&url, &[]));
        let said = "410 the endpoint wants no more of them".to_owned();
        assert_eq!(means(plain, answer(410, "", "x")), (DeliveryResult::Refused, said, None));
    }
}
