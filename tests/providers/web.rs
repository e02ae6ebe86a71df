//! Destinations of the web, and what their outlets are tried on.

use std::path::Path;
use std::sync::Arc;

use cpra::domain::destination::{Alertmanager, PagerDuty, Slack, Sms, SmsSender, Webhook};
use cpra::domain::monitor::Secret;
use cpra::domain::{Destination, Provider as Kind};
use cpra::units::Span;

use super::counterparts::provider::Provider;
use super::counterparts::vendors::HOOK;

pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";
pub const TO: &str = "+15550100";
pub const FROM: &str = "+15550199";
/// Both are valid: they are being rotated.
pub const SECRETS: [&str; 2] =
    ["whsec_bmV3IHNlY3JldCBvZiB0aGUgcmVjZWl2ZXI=", "whsec_b2xkIHNlY3JldCBvZiB0aGUgcmVjZWl2ZXI="];

/// Who speaks to the fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    PagerDuty,
    Slack,
    Sms,
    Webhook,
    Alertmanager,
}

impl Who {
    pub const ALL: [Self; 5] = [Self::PagerDuty, Self::Slack, Self::Sms, Self::Webhook, Self::Alertmanager];

    pub fn at(self, fake: &Provider, ca_file: Option<&Path>) -> Destination {
        let kind = match self {
            Self::PagerDuty => Kind::PagerDuty(PagerDuty {
                routing_key: Secret::new(ROUTING_KEY),
                url: fake.url("/v2/enqueue").into(),
                severity: None,
            }),
            Self::Slack => Kind::Slack(Slack { hook: Secret::new(fake.url(HOOK)), channel: None, username: None }),
            Self::Sms => {
                let (sid, token) = fake.vendors(|vendors| (vendors.account_sid.clone(), vendors.auth_token.clone()));
                Kind::Sms(Box::new(Sms {
                    url: fake.url("").into(),
                    account_sid: sid.into(),
                    auth_token: Secret::new(token),
                    sender: SmsSender::Number(FROM.into()),
                    to: TO.into(),
                }))
            }
            Self::Webhook => {
                fake.vendors(|vendors| vendors.secrets = vec![SECRETS[0].to_owned()]);
                Kind::Webhook(Webhook {
                    url: Secret::new(fake.url("/hook/x")),
                    method: "POST".into(),
                    headers: [("x-team".into(), Secret::new("shop"))].into(),
                    secrets: SECRETS.map(Secret::new).into(),
                })
            }
            Self::Alertmanager => alertmanager(&fake.url("")),
        };
        let mut destination = Destination::new(format!("{self:?}").to_lowercase(), kind);
        destination.transport.ca_file = ca_file.map(Path::to_owned);
        destination.transport.timeout = Span::from_secs(10);
        destination
    }

    pub fn told(self, fake: &Provider) -> Arc<Destination> {
        Arc::new(self.at(fake, None))
    }

    /// Whether the other side knows a second one as the same.
    pub const fn knows_again(self) -> bool {
        matches!(self, Self::PagerDuty | Self::Webhook | Self::Alertmanager)
    }
}

pub fn alertmanager(url: &str) -> Kind {
    Kind::Alertmanager(Alertmanager {
        url: url.into(),
        authorization: None,
        labels: [("region".into(), "eu".into())].into(),
        annotations: [].into(),
        generator_url: Some("http://cpra.shop.example/".into()),
    })
}
