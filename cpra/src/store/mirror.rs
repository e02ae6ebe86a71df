//! What a destination looks like in the store: JSON with every secret in it, since whoever was told must be told of the
//! end, whatever the files say by then. The domain does not serialise itself; these are its shapes, field by field, so that
//! a field that is added there does not compile here until it is kept.
//!
//! Paths are kept as text: they come out of files that are UTF-8.

use serde::{Deserialize, Serialize};

use crate::domain::destination::{
    Alertmanager, Authorization, Destination, Email, MailSecurity, Pace, PagerDuty, Provider, Script, Severity, Slack,
    Sms, SmsSender, Transport, Webhook, Wording, Words,
};
use crate::domain::monitor::{About, Secret};
use crate::domain::{Color, Notice};
use crate::units::Span;

type Text = Box<str>;
type Pairs = Vec<(Text, Text)>;

/// # Errors
/// In words, when it is not what [`written`] wrote.
pub(super) fn read(json: &str) -> Result<Destination, String> {
    let kept: Kept = serde_json::from_str(json).map_err(|error| error.to_string())?;
    kept.restored()
}

pub(super) fn written(destination: &Destination) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Kept::of(destination))
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: Text,
    provider: KeptProvider,
    pace: KeptPace,
    transport: KeptTransport,
    wording: Vec<KeptWords>,
}

#[derive(Serialize, Deserialize)]
struct KeptPace {
    concurrency: u32,
    every_ns: u64,
    burst: u32,
    raises_per_minute: u32,
}

#[derive(Serialize, Deserialize)]
struct KeptTransport {
    timeout_ns: u64,
    ca_file: Option<String>,
    proxy: Option<Text>,
}

#[derive(Serialize, Deserialize)]
struct KeptWords {
    color: Text,
    title: Option<Text>,
    text: Option<Text>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptProvider {
    Log {
        file: Option<String>,
    },
    PagerDuty {
        routing_key: Text,
        url: Text,
        severity: Option<Text>,
    },
    Slack {
        hook: Text,
        channel: Option<Text>,
        username: Option<Text>,
    },
    Email {
        host: Text,
        port: u16,
        security: KeptSecurity,
        username: Option<Text>,
        password: Option<Text>,
        from: Text,
        to: Vec<Text>,
        cc: Vec<Text>,
    },
    Webhook {
        url: Text,
        method: Text,
        headers: Pairs,
        secrets: Vec<Text>,
    },
    Sms {
        url: Text,
        account_sid: Text,
        auth_token: Text,
        sender: KeptSender,
        to: Text,
    },
    Alertmanager {
        url: Text,
        authorization: Option<KeptAuthorization>,
        labels: Pairs,
        annotations: Pairs,
        generator_url: Option<Text>,
    },
    Script {
        argv: Vec<Text>,
        env: Pairs,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptSecurity {
    StartTls,
    Tls,
    Plain,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptSender {
    Number(Text),
    Service(Text),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptAuthorization {
    Basic { username: Text, password: Text },
    Bearer(Text),
}

impl Kept {
    fn of(destination: &Destination) -> Self {
        let Destination { name, provider, pace, transport, wording } = destination;
        let Pace { concurrency, every, burst, raises_per_minute } = *pace;
        let Transport { timeout, ca_file, proxy } = transport;
        let words = |(color, Words { title, text }): &(Color, Words)| KeptWords {
            color: color.as_str().into(),
            title: title.clone(),
            text: text.clone(),
        };
        Self {
            name: name.clone(),
            provider: KeptProvider::of(provider),
            pace: KeptPace { concurrency, every_ns: every.as_nanos(), burst, raises_per_minute },
            transport: KeptTransport {
                timeout_ns: timeout.as_nanos(),
                ca_file: ca_file.as_deref().map(|path| path.to_string_lossy().into_owned()),
                proxy: proxy.as_ref().map(exposed),
            },
            wording: wording.iter().map(words).collect(),
        }
    }

    fn restored(self) -> Result<Destination, String> {
        let Self { name, provider, pace, transport, wording } = self;
        let KeptPace { concurrency, every_ns, burst, raises_per_minute } = pace;
        let KeptTransport { timeout_ns, ca_file, proxy } = transport;
        let words = wording
            .into_iter()
            .map(|KeptWords { color, title, text }| Ok((named_color(&color)?, Words { title, text })));
        Ok(Destination {
            name,
            provider: provider.restored()?,
            pace: Pace { concurrency, every: Span::from_nanos(every_ns), burst, raises_per_minute },
            transport: Transport {
                timeout: Span::from_nanos(timeout_ns),
                ca_file: ca_file.map(Into::into),
                proxy: proxy.map(Secret::new),
            },
            wording: Wording::new(words.collect::<Result<Vec<_>, String>>()?),
        })
    }
}

impl KeptProvider {
    fn of(provider: &Provider) -> Self {
        match provider {
            Provider::Log { file } => {
                Self::Log { file: file.as_deref().map(|path| path.to_string_lossy().into_owned()) }
            }
            Provider::PagerDuty(PagerDuty { routing_key, url, severity }) => Self::PagerDuty {
                routing_key: exposed(routing_key),
                url: url.clone(),
                severity: severity.map(|severity| severity.as_str().into()),
            },
            Provider::Slack(Slack { hook, channel, username }) => {
                Self::Slack { hook: exposed(hook), channel: channel.clone(), username: username.clone() }
            }
            Provider::Email(email) => {
                let Email { host, port, security, username, password, from, to, cc } = &**email;
                Self::Email {
                    host: host.clone(),
                    port: *port,
                    security: match security {
                        MailSecurity::StartTls => KeptSecurity::StartTls,
                        MailSecurity::Tls => KeptSecurity::Tls,
                        MailSecurity::Plain => KeptSecurity::Plain,
                    },
                    username: username.clone(),
                    password: password.as_ref().map(exposed),
                    from: from.clone(),
                    to: to.to_vec(),
                    cc: cc.to_vec(),
                }
            }
            Provider::Webhook(Webhook { url, method, headers, secrets }) => Self::Webhook {
                url: exposed(url),
                method: method.clone(),
                headers: exposed_pairs(headers),
                secrets: secrets.iter().map(exposed).collect(),
            },
            Provider::Sms(sms) => {
                let Sms { url, account_sid, auth_token, sender, to } = &**sms;
                Self::Sms {
                    url: url.clone(),
                    account_sid: account_sid.clone(),
                    auth_token: exposed(auth_token),
                    sender: match sender {
                        SmsSender::Number(number) => KeptSender::Number(number.clone()),
                        SmsSender::Service(service) => KeptSender::Service(service.clone()),
                    },
                    to: to.clone(),
                }
            }
            Provider::Alertmanager(Alertmanager { url, authorization, labels, annotations, generator_url }) => {
                Self::Alertmanager {
                    url: url.clone(),
                    authorization: authorization.as_ref().map(|authorization| match authorization {
                        Authorization::Basic { username, password } => {
                            KeptAuthorization::Basic { username: username.clone(), password: exposed(password) }
                        }
                        Authorization::Bearer(token) => KeptAuthorization::Bearer(exposed(token)),
                    }),
                    labels: labels.to_vec(),
                    annotations: annotations.to_vec(),
                    generator_url: generator_url.clone(),
                }
            }
            Provider::Script(Script { argv, env }) => Self::Script { argv: argv.to_vec(), env: exposed_pairs(env) },
        }
    }

    fn restored(self) -> Result<Provider, String> {
        Ok(match self {
            Self::Log { file } => Provider::Log { file: file.map(Into::into) },
            Self::PagerDuty { routing_key, url, severity } => Provider::PagerDuty(PagerDuty {
                routing_key: Secret::new(routing_key),
                url,
                severity: severity.map(|name| named_severity(&name)).transpose()?,
            }),
            Self::Slack { hook, channel, username } => {
                Provider::Slack(Slack { hook: Secret::new(hook), channel, username })
            }
            Self::Email { host, port, security, username, password, from, to, cc } => {
                Provider::Email(Box::new(Email {
                    host,
                    port,
                    security: match security {
                        KeptSecurity::StartTls => MailSecurity::StartTls,
                        KeptSecurity::Tls => MailSecurity::Tls,
                        KeptSecurity::Plain => MailSecurity::Plain,
                    },
                    username,
                    password: password.map(Secret::new),
                    from,
                    to: to.into(),
                    cc: cc.into(),
                }))
            }
            Self::Webhook { url, method, headers, secrets } => Provider::Webhook(Webhook {
                url: Secret::new(url),
                method,
                headers: hidden_pairs(headers),
                secrets: secrets.into_iter().map(Secret::new).collect(),
            }),
            Self::Sms { url, account_sid, auth_token, sender, to } => Provider::Sms(Box::new(Sms {
                url,
                account_sid,
                auth_token: Secret::new(auth_token),
                sender: match sender {
                    KeptSender::Number(number) => SmsSender::Number(number),
                    KeptSender::Service(service) => SmsSender::Service(service),
                },
                to,
            })),
            Self::Alertmanager { url, authorization, labels, annotations, generator_url } => {
                Provider::Alertmanager(Alertmanager {
                    url,
                    authorization: authorization.map(|authorization| match authorization {
                        KeptAuthorization::Basic { username, password } => {
                            Authorization::Basic { username, password: Secret::new(password) }
                        }
                        KeptAuthorization::Bearer(token) => Authorization::Bearer(Secret::new(token)),
                    }),
                    labels: labels.into(),
                    annotations: annotations.into(),
                    generator_url,
                })
            }
            Self::Script { argv, env } => Provider::Script(Script { argv: argv.into(), env: hidden_pairs(env) }),
        })
    }
}

fn exposed(secret: &Secret) -> Text {
    secret.expose().into()
}

fn exposed_pairs(pairs: &[(Text, Secret)]) -> Pairs {
    pairs.iter().map(|(name, secret)| (name.clone(), exposed(secret))).collect()
}

fn hidden_pairs(pairs: Pairs) -> Box<[(Text, Secret)]> {
    pairs.into_iter().map(|(name, secret)| (name, Secret::new(secret))).collect()
}

pub(super) fn named_color(name: &str) -> Result<Color, String> {
    Color::ALL.into_iter().find(|color| color.as_str() == name).ok_or_else(|| format!("no color is called {name:?}"))
}

fn named_severity(name: &str) -> Result<Severity, String> {
    let known = Severity::ALL.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, severity)| severity).ok_or_else(|| format!("no severity is called {name:?}"))
}

/// What of a notice nobody looks for in the store, as one column.
#[derive(Serialize, Deserialize)]
pub(super) struct Rest {
    groups: Vec<Text>,
    labels: Pairs,
    description: Option<Text>,
    runbook: Option<Text>,
    test: bool,
}

impl Rest {
    pub(super) fn of(notice: &Notice) -> Self {
        let About { labels, description, runbook } = &notice.about;
        Self {
            groups: notice.groups.to_vec(),
            labels: labels.to_vec(),
            description: description.clone(),
            runbook: runbook.clone(),
            test: notice.test,
        }
    }

    /// Groups, what people wrote, and whether it is a test.
    pub(super) fn restored(self) -> (Box<[Text]>, About, bool) {
        let Self { groups, labels, description, runbook, test } = self;
        (groups.into(), About { labels: labels.into(), description, runbook }, test)
    }
}
