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
            200..=299 => {
                self.exchange.said(DeliveryResult::Failed, answer, &format!("without the word ok: {said}"))
            }
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
