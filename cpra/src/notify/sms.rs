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

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::{deliver, means, of};
    use super::*;
    use crate::domain::destination::{Wording, Words};
    use crate::domain::monitor::Secret;
    use crate::domain::{Color, Provider};
    use crate::os::web::tests::{Reply, answer};
    use crate::units::Span;

    fn settings(url: String) -> Sms {
        Sms {
            url: url.into(),
            account_sid: "AC0".into(),
            auth_token: Secret::new("tellnobody"),
            sender: SmsSender::Number("+15550001".into()),
            to: "+15550002".into(),
        }
    }

    fn provider(url: String) -> Provider {
        Provider::Sms(settings(url).into())
    }

    fn form(body: &[u8]) -> Vec<(String, String)> {
        form_urlencoded::parse(body).into_owned().collect()
    }

    #[test]
    fn a_message_is_a_form_with_basic_authentication() {
        let (delivered, seen) = deliver(provider, |_, _| answer(201, "", r#"{"sid":"SM7"}"#), vec![of(Color::Red)]);
        assert_eq!(delivered, [Delivered::new(DeliveryResult::Sent, "201 SM7")]);
        let seen = &seen[0];
        assert!(seen.head.starts_with("POST /2010-04-01/Accounts/AC0/Messages.json HTTP/1.1"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), Some("Basic QUMwOnRlbGxub2JvZHk="));
        assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
        let message = "CRITICAL ALERT: shop/web: shop/web is down: <503> & \"more\"";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(form(&seen.body), [pair("To", "+15550002"), pair("From", "+15550001"), pair("Body", message)]);
        let service = Sms { sender: SmsSender::Service("MG9".into()), ..settings(String::new()) };
        assert_eq!(form(&body(&of(Color::Red), &service))[1], pair("MessagingServiceSid", "MG9"));
    }

    #[test]
    fn a_persons_text_is_all_there_is() {
        let mut notice = of(Color::Red);
        notice.test = true;
        let words = Words { title: None, text: Some("{{ monitor }}!".into()) };
        let destination = Destination { wording: Wording::new([(Color::Red, words)]), ..Destination::log(None) };
        notice.key.destination = destination.into();
        let message = &form(&body(&notice, &settings(String::new())))[2].1;
        assert!(message.starts_with("TEST: nothing has happened") && message.ends_with("\nshop/web!"), "{message}");
    }

    #[test]
    fn a_message_has_four_parts_at_most() {
        let exact = "x".repeat(SMS_SEPTETS_MAX);
        assert_eq!(fitted(&exact), exact);
        assert_eq!(fitted(&format!("{exact}x")), format!("{}...", &exact[3..]));
        assert_eq!(fitted(&"€".repeat(300)).chars().count(), 238 + 3, "two septets each, and the dots");
        let exact = "🛒".repeat(SMS_UNITS_MAX / 2);
        assert_eq!(fitted(&exact), exact);
        let cut = fitted(&format!("{exact}x"));
        assert_eq!((cut.encode_utf16().count(), cut.ends_with("🛒...")), (263, true), "whole characters only");
        assert!(septets('ç').is_none() && septets('`').is_none() && septets('\t').is_none());
    }

    #[test]
    fn answers_mean_what_the_contract_says() {
        use DeliveryResult::{Failed, Refused, Sent, Unsure};
        let cases = [
            (answer(201, "", r#"{"sid":"SM7","status":"queued"}"#), Sent, "201 SM7", None),
            (answer(200, "", r#"{"sid":"SM7"}"#), Sent, "200 SM7", None),
            (answer(201, "", ""), Sent, "201 without a SID", None),
            (answer(200, "", "<html>log in"), Failed, "200 without a SID: not Twilio's answer", None),
            (
                answer(400, "", r#"{"code":21211,"message":"The 'To' number is not valid","status":400}"#),
                Refused,
                "400 21211 The 'To' number is not valid",
                None,
            ),
            (answer(401, "", r#"{"code":20003,"message":"Authenticate"}"#), Refused, "401 20003 Authenticate", None),
            (
                answer(429, "Retry-After: 2\r\n", r#"{"code":20429,"message":"Too Many Requests"}"#),
                Failed,
                "429 20429 too many requests",
                Some(Span::from_secs(2)),
            ),
            (answer(503, "", "tellnobody"), Failed, "503 (secret)", None),
            (answer(500, "", ""), Unsure, "500", None),
            (answer(502, "", ""), Unsure, "502", None),
        ];
        for (reply, result, said, after) in cases {
            assert_eq!(means(provider, reply), (result, said.to_owned(), after));
        }
        assert_eq!(means(provider, Reply::Last(String::new())).0, Unsure);
    }
}
