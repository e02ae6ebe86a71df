//! Text messages, by Twilio's API and whoever speaks it: <https://www.twilio.com/docs/messaging/api/message-resource>.
//!
//! One request is one message, which costs money and wakes somebody, and there is no key by which a second one would be
//! known. So no connection is kept; 429 was never processed and comes again; and what went unanswered is
//! [`DeliveryResult::Unsure`].
//!
//! A message is bounded to four parts: an error page that found its way into a summary must not become a long bill.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::form_urlencoded;

use super::exchange::{Exchange, words};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::{Sms, SmsSender};
use crate::domain::{Destination, Notice};
use crate::os::web::{Again, Answer, Request, Web};
use crate::units::limits::{SMS_SEPTETS_MAX, SMS_UNITS_MAX};
use crate::wording::{Rendered, line, render};

/// Too many requests: this one was not processed.
const TOO_MANY: u64 = 20_429;

#[derive(Debug)]
pub struct SmsOutlet {
    settings: Box<Sms>,
    exchange: Exchange,
}

/// What is of interest of an answer, whichever it is.
#[derive(Default, Deserialize)]
struct Said {
    sid: Option<String>,
    code: Option<u64>,
    message: Option<String>,
}

impl SmsOutlet {
    pub fn new(settings: &Sms, destination: &Destination, web: &Web) -> Self {
        let credentials = credentials(settings);
        let secrets = [settings.auth_token.expose(), &credentials];
        Self { settings: settings.clone().into(), exchange: Exchange::new(destination, web, Again::Doubled, secrets) }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        self.exchange.each(notices, |notice| self.deliver_one(notice)).await
    }

    async fn deliver_one(&self, notice: &Notice) -> Delivered {
        let Sms { url, account_sid, .. } = &*self.settings;
        let account = utf8_percent_encode(account_sid, NON_ALPHANUMERIC);
        let url = format!("{}/2010-04-01/Accounts/{account}/Messages.json", url.trim_end_matches('/'));
        let headers = vec![
            ("content-type", "application/x-www-form-urlencoded".into()),
            ("authorization", format!("Basic {}", credentials(&self.settings))),
        ];
        let request = Request { method: "POST", url: &url, headers, body: body(notice, &self.settings) };
        match self.exchange.send(request).await {
            Ok(answer) => self.judge(&answer),
            Err(delivered) => delivered,
        }
    }

    fn judge(&self, answer: &Answer) -> Delivered {
        let said: Said = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, said) {
            (200 | 201, Said { sid: Some(sid), .. }) => self.exchange.said(DeliveryResult::Sent, answer, &sid),
            // Created, by its own word.
            (201, _) => self.exchange.said(DeliveryResult::Sent, answer, "without a SID"),
            (200, _) if answer.is_cut => {
                self.exchange.said(DeliveryResult::Unsure, answer, "and then the connection was closed")
            }
            // Something that is not Twilio says so to everything.
            (200..=299, _) => self.exchange.said(DeliveryResult::Failed, answer, "without a SID: not Twilio's answer"),
            (_, Said { code: Some(TOO_MANY), .. }) => self.exchange.again(answer, "20429 too many requests"),
            // What became of the request is not known there either.
            (500 | 502 | 504, _) => {
                Delivered { result: DeliveryResult::Unsure, ..self.exchange.again(answer, words(answer)) }
            }
            (_, Said { code, message: Some(message), .. }) => {
                let code = code.map_or_else(String::new, |code| format!("{code} "));
                self.exchange.usual(answer, &format!("{code}{message}"))
            }
            _ => self.exchange.usual(answer, words(answer)),
        }
    }
}

fn credentials(settings: &Sms) -> String {
    STANDARD.encode(format!("{}:{}", settings.account_sid, settings.auth_token.expose()))
}

fn body(notice: &Notice, settings: &Sms) -> Vec<u8> {
    let Rendered { title, text } = render(notice, &notice.key.destination);
    let own_text = notice.key.destination.wording.of(notice.color).is_some_and(|words| words.text.is_some());
    // The built-in text is for a page.
    let message = if own_text { text } else { format!("{title}: {}", line(&notice.summary)) };
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("To", &settings.to);
    match &settings.sender {
        SmsSender::Number(number) => form.append_pair("From", number),
        SmsSender::Service(sid) => form.append_pair("MessagingServiceSid", sid),
    };
    form.append_pair("Body", &fitted(&message));
    form.finish().into_bytes()
}

/// The phones' own alphabet (3GPP TS 23.038): of one septet, and of two. One character that is in neither makes the whole
/// message one of UTF-16.
const SEPTET: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
                      abcdefghijklmnopqrstuvwxyzäöñüà";
const TWO_SEPTETS: &str = "^{}\\[~]|€";

fn septets(c: char) -> Option<usize> {
    if SEPTET.contains(c) { Some(1) } else { TWO_SEPTETS.contains(c).then_some(2) }
}

/// As much as four parts hold, in whole characters.
fn fitted(message: &str) -> String {
    // Three of these, and not one ellipsis: that is not in the phones' alphabet.
    const DOTS: &str = "...";
    let is_plain = message.chars().all(|c| septets(c).is_some());
    let (weigh, max): (fn(char) -> usize, usize) = match is_plain {
        true => (|c| septets(c).unwrap_or(1), SMS_SEPTETS_MAX),
        false => (char::len_utf16, SMS_UNITS_MAX),
    };
    if message.chars().map(weigh).sum::<usize>() <= max {
        return message.to_owned();
    }
    let mut left = max - DOTS.len();
    let fits = message.chars().take_while(|&c| {
        let weight = weigh(c);
        let room = weight <= left;
        left = left.saturating_sub(weight);
        room
    });
    fits.chain(DOTS.chars()).collect()
}
