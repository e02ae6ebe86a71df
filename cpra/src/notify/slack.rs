//! Slack, an incoming webhook: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>.
//!
//! A hook takes a message and cannot edit one: a resolve is a new message. It has no key either, so a second request is a
//! second message: a connection is never kept, and what went unanswered is [`DeliveryResult::Unsure`].

use serde::Serialize;

use super::exchange::{Exchange, words};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::Slack;
use crate::domain::{Destination, Notice};
use crate::os::web::{Again, Answer, Request, Web};
use crate::units::limits::SLACK_TEXT_MAX;
use crate::wording::{Rendered, cut, render};

#[derive(Debug)]
pub struct SlackOutlet {
    settings: Slack,
    exchange: Exchange,
}

#[derive(Serialize)]
struct Message<'a> {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

impl SlackOutlet {
    pub fn new(settings: &Slack, destination: &Destination, web: &Web) -> Self {
        let secrets = [settings.hook.expose()];
        Self { settings: settings.clone(), exchange: Exchange::new(destination, web, Again::Doubled, secrets) }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        self.exchange.each(notices, |notice| self.deliver_one(notice)).await
    }

    async fn deliver_one(&self, notice: &Notice) -> Delivered {
        let headers = vec![("content-type", "application/json".into())];
        let (url, body) = (self.settings.hook.expose(), body(notice, &self.settings));
        match self.exchange.send(Request { method: "POST", url, headers, body }).await {
            Ok(answer) => self.judge(&answer),
            Err(delivered) => delivered,
        }
    }

    fn judge(&self, answer: &Answer) -> Delivered {
        let said = words(answer);
        match answer.status {
            200 if said == "ok" => self.exchange.said(DeliveryResult::Sent, answer, said),
            200 if answer.is_cut => {
                self.exchange.said(DeliveryResult::Unsure, answer, "and then the connection was closed")
            }
            // Something that is not Slack says so to everything.
            200..=299 => self.exchange.said(DeliveryResult::Failed, answer, &format!("without the word ok: {said}")),
            // A gateway that does not know what became of the request.
            502 | 504 => Delivered { result: DeliveryResult::Unsure, ..self.exchange.again(answer, said) },
            _ => self.exchange.usual(answer, said),
        }
    }
}

fn body(notice: &Notice, settings: &Slack) -> Vec<u8> {
    let Rendered { title, text } = render(notice, &notice.key.destination);
    let text = format!("*{}*\n{}", escape(&title), escape(&cut(text, SLACK_TEXT_MAX)));
    let message = Message { text, channel: settings.channel.as_deref(), username: settings.username.as_deref() };
    serde_json::to_vec(&message).expect("strings, written into memory")
}

/// The three characters that Slack wants escaped: without them there is no link, no mention and no `<!channel>`.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::exchange::tests::{deliver, means, of};
    use super::*;
    use crate::domain::monitor::Secret;
    use crate::domain::{Color, Provider};
    use crate::os::web::tests::{Reply, answer};
    use crate::units::Span;

    #[expect(clippy::needless_pass_by_value, reason = "one signature for all providers")]
    fn provider(url: String) -> Provider {
        Provider::Slack(Slack { hook: Secret::new(format!("{url}/services/T0/B0/tellnobody")), ..named() })
    }

    fn named() -> Slack {
        Slack { hook: Secret::new(""), channel: Some("#ops".into()), username: Some("cpra".into()) }
    }

    #[test]
    fn a_message_is_escaped_text() {
        let mut notice = of(Color::Red);
        notice.summary = "<!channel> & <https://evil.example|click>".into();
        let (delivered, seen) = deliver(provider, |_, _| answer(200, "", "ok"), vec![notice.clone()]);
        assert_eq!(delivered, [Delivered::new(DeliveryResult::Sent, "200 ok")]);
        assert!(seen[0].head.starts_with("POST /services/T0/B0/tellnobody HTTP/1.1"));
        let text = "*CRITICAL ALERT: shop/web*\n\
                    &lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;\n\
                    Status: FAILED (critical), L7STS\n\
                    At: 2026-11-22T03:00:00Z, after 6.5 s\n\
                    Groups: shop, frontend\n\
                    Labels: cost centre=7, team=shop\n\
                    The shop's\nfront door\n\
                    Runbook: https://wiki.example.com/shop-web\n\
                    Incident: mon-1/shop/web/0000000000000000000000001A";
        assert_eq!(seen[0].json(), json!({"text": text, "channel": "#ops", "username": "cpra"}));
        notice.test = true;
        let plain = Slack { channel: None, username: None, ..named() };
        let message: serde_json::Value = serde_json::from_slice(&body(&notice, &plain)).unwrap();
        assert!(message["text"].as_str().unwrap().starts_with("*[TEST] CRITICAL ALERT: shop/web*\nTEST: nothing"));
        assert!(message.get("channel").is_none() && message.get("username").is_none());
    }

    #[test]
    fn each_color_has_its_title_and_a_long_text_its_bound() {
        for color in Color::ALL {
            let message: serde_json::Value = serde_json::from_slice(&body(&of(color), &named())).unwrap();
            let text = message["text"].as_str().unwrap();
            assert!(text.starts_with(&format!("*{}: shop/web*\n", color.title())), "{text}");
            assert!(text.contains(&format!("Status: {} ({})", color.status(), color.severity())), "{text}");
        }
        let mut notice = of(Color::Red);
        notice.about.description = Some("&".repeat(20_000).into());
        let message: serde_json::Value = serde_json::from_slice(&body(&notice, &named())).unwrap();
        let text = message["text"].as_str().unwrap();
        assert!(text.len() < 40_000 && text.ends_with("&amp;…"), "{}", text.len());
    }

    #[test]
    fn answers_mean_what_the_contract_says() {
        use DeliveryResult::{Failed, Refused, Sent, Unsure};
        let cases = [
            (answer(200, "", "ok"), Sent, "200 ok", None),
            (answer(200, "", "ok\n"), Sent, "200 ok", None),
            (answer(200, "", "<html>log in"), Failed, "200 without the word ok:", None),
            (answer(200, "", "no"), Failed, "200 without the word ok: no", None),
            (
                Reply::Last("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\no".into()),
                Unsure,
                "200 and then the connection was closed",
                None,
            ),
            (answer(400, "", "invalid_payload"), Refused, "400 invalid_payload", None),
            (answer(403, "", "action_prohibited"), Refused, "403 action_prohibited", None),
            (answer(404, "", "no_service"), Refused, "404 no_service", None),
            (answer(410, "", "channel_is_archived"), Refused, "410 channel_is_archived", None),
            (answer(429, "Retry-After: 30\r\n", "x"), Failed, "429 x", Some(Span::from_secs(30))),
            (answer(500, "", "rollup_error"), Failed, "500 rollup_error", None),
            (answer(503, "", ""), Failed, "503", None),
            (answer(502, "", ""), Unsure, "502", None),
            (answer(504, "", ""), Unsure, "504", None),
        ];
        for (reply, result, said, after) in cases {
            assert_eq!(means(provider, reply), (result, said.to_owned(), after));
        }
    }
}
