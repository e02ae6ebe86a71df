//! Where notices go: a provider with all that is needed to reach it, read once from the files.
//!
//! A destination is a value, never a connection: it is compared, kept with the episode that it was told of, and written
//! into the store, so that the one who got the raise gets the resolve, whatever the files say by then.

use std::path::PathBuf;

use super::monitor::Secret;
use super::notice::Color;
use crate::units::Span;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `[providers.NAME]`, else the name of the type: `slack`.
    pub name: Box<str>,
    pub provider: Provider,
    pub pace: Pace,
    pub transport: Transport,
    pub wording: Wording,
}

/// What is on the other side. Each contract is in `docs/providers.md`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// JSON Lines, appended to the file, else to stderr.
    Log {
        file: Option<PathBuf>,
    },
    PagerDuty(PagerDuty),
    Slack(Slack),
    Email(Box<Email>),
    Webhook(Webhook),
    Sms(Box<Sms>),
    Alertmanager(Alertmanager),
    Script(Script),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PagerDuty {
    pub routing_key: Secret,
    /// Used as given.
    pub url: Box<str>,
    /// Instead of the color's own.
    pub severity: Option<Severity>,
}

/// What PagerDuty knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Critical,
    Error,
    Warning,
    Info,
}

/// An incoming webhook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slack {
    /// The address of a hook is its password.
    pub hook: Secret,
    pub channel: Option<Box<str>>,
    pub username: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email {
    pub host: Box<str>,
    pub port: u16,
    pub security: MailSecurity,
    pub username: Option<Box<str>>,
    pub password: Option<Secret>,
    pub from: Box<str>,
    /// At least one.
    pub to: Box<[Box<str>]>,
    pub cc: Box<[Box<str>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MailSecurity {
    /// Plain at first; without STARTTLS nothing is sent.
    StartTls,
    /// From the first byte (port 465).
    Tls,
    /// None at all: for a server on this host.
    Plain,
}

/// Standard Webhooks, signed where there is a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Webhook {
    /// It may hold a token. Used as given.
    pub url: Secret,
    pub method: Box<str>,
    pub headers: Box<[(Box<str>, Secret)]>,
    /// `whsec_...`; several while they are rotated, and each signs.
    pub secrets: Box<[Secret]>,
}

/// Twilio, and whoever speaks its API. One destination for each number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sms {
    /// Of the API: `https://api.twilio.com`.
    pub url: Box<str>,
    pub account_sid: Box<str>,
    pub auth_token: Secret,
    pub sender: SmsSender,
    pub to: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SmsSender {
    Number(Box<str>),
    /// A messaging service's SID.
    Service(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alertmanager {
    /// Of the server; `/api/v2/alerts` is added unless it is there.
    pub url: Box<str>,
    pub authorization: Option<Authorization>,
    /// Added to the monitor's, and before them.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub annotations: Box<[(Box<str>, Box<str>)]>,
    pub generator_url: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authorization {
    Basic { username: Box<str>, password: Secret },
    Bearer(Secret),
}

/// A program that is given the notice as JSON on its standard input. Never a shell unless it is named here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Script {
    /// The program (an absolute path) and its arguments.
    pub argv: Box<[Box<str>]>,
    /// Added to the cleared environment, sorted by name.
    pub env: Box<[(Box<str>, Secret)]>,
}

/// How fast and how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pace {
    /// On their way at the same time.
    pub concurrency: u32,
    /// Between two of them, in the long run; zero: as fast as they go.
    pub every: Span,
    /// That many may follow each other at once after a pause.
    pub burst: u32,
    /// Pagers: beyond so many raises a minute, one incident stands for a group.
    pub raises_per_minute: u32,
}

/// How an address of the web, or a mail server, is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transport {
    /// Of one attempt.
    pub timeout: Span,
    /// PEM, trusted beside the system's store.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy; without it the environment says (`HTTPS_PROXY`, `NO_PROXY`). It may hold a password.
    pub proxy: Option<Secret>,
}

/// Templates instead of the built-in texts, by color.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wording(Box<[(Color, Words)]>);

/// Templates of one color; absent is the built-in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Words {
    /// Also the subject of a mail.
    pub title: Option<Box<str>>,
    pub text: Option<Box<str>>,
}

/// Whether notices may be put together when there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// Programs read it, or it groups by itself.
    Never,
    /// People read it: what is too much at once becomes a digest.
    Digest,
    /// It wakes people: what is too much at once becomes one incident for a group.
    GroupIncident,
}

impl Destination {
    /// With the type's own pace and nothing else said.
    pub fn new(name: impl Into<Box<str>>, provider: Provider) -> Self {
        let pace = provider.pace();
        Self { name: name.into(), provider, pace, transport: Transport::default(), wording: Wording::default() }
    }

    pub fn log(file: Option<PathBuf>) -> Self {
        Self::new("log", Provider::Log { file })
    }
}

impl Provider {
    pub const COUNT: usize = 8;
    /// As metrics name them, in the order of [`Self::index`].
    pub const NAMES: [&'static str; Self::COUNT] =
        ["log", "pagerduty", "slack", "email", "webhook", "sms", "alertmanager", "script"];

    pub const fn index(&self) -> usize {
        match self {
            Self::Log { .. } => 0,
            Self::PagerDuty(_) => 1,
            Self::Slack(_) => 2,
            Self::Email(_) => 3,
            Self::Webhook(_) => 4,
            Self::Sms(_) => 5,
            Self::Alertmanager(_) => 6,
            Self::Script(_) => 7,
        }
    }

    pub const fn as_str(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Whether the other side keeps an incident that must be closed, whatever `codes.green` says.
    pub const fn has_lifecycle(&self) -> bool {
        matches!(self, Self::PagerDuty(_) | Self::Alertmanager(_))
    }

    /// Whether it forgets what it is not told again while it lasts.
    pub const fn wants_refresh(&self) -> bool {
        matches!(self, Self::Alertmanager(_))
    }

    pub const fn merging(&self) -> Merging {
        match self {
            Self::Log { .. } | Self::Webhook(_) | Self::Alertmanager(_) | Self::Script(_) => Merging::Never,
            Self::Slack(_) | Self::Email(_) | Self::Sms(_) => Merging::Digest,
            Self::PagerDuty(_) => Merging::GroupIncident,
        }
    }

    /// What the other side takes, as far as is known.
    pub const fn pace(&self) -> Pace {
        const fn pace(concurrency: u32, every: Span, burst: u32) -> Pace {
            Pace { concurrency, every, burst, raises_per_minute: 20 }
        }
        match self {
            // Written in batches.
            Self::Log { .. } => pace(u32::MAX, Span::ZERO, 1),
            // One request holds many.
            Self::Alertmanager(_) => pace(1_024, Span::ZERO, 1),
            Self::PagerDuty(_) => pace(4, Span::from_millis(100), 20),
            // About one message a second.
            Self::Slack(_) => pace(1, Span::from_secs(1), 3),
            Self::Email(_) => pace(2, Span::from_millis(200), 10),
            Self::Sms(_) => pace(1, Span::from_secs(1), 3),
            Self::Webhook(_) => pace(8, Span::ZERO, 1),
            Self::Script(_) => pace(4, Span::ZERO, 1),
        }
    }
}

impl Severity {
    pub const ALL: [(&'static str, Self); 4] =
        [("critical", Self::Critical), ("error", Self::Error), ("warning", Self::Warning), ("info", Self::Info)];

    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self { timeout: Span::from_secs(20), ca_file: None, proxy: None }
    }
}

impl Wording {
    /// A color that comes twice has the last one's words.
    pub fn new(words: impl IntoIterator<Item = (Color, Words)>) -> Self {
        let mut known: Vec<(Color, Words)> = Vec::new();
        for (color, words) in words {
            known.retain(|(other, _)| *other != color);
            known.push((color, words));
        }
        known.sort();
        Self(known.into_boxed_slice())
    }

    pub fn of(&self, color: Color) -> Option<&Words> {
        self.0.iter().find(|(known, _)| *known == color).map(|(_, words)| words)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Color, Words)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_color_are_its_words() {
        let words = |text: &str| Words { text: Some(text.into()), title: None };
        let wording = Wording::new([(Color::Red, words("a")), (Color::Yellow, words("b")), (Color::Red, words("c"))]);
        assert_eq!(wording.of(Color::Red), Some(&words("c")));
        assert_eq!((wording.of(Color::Green), wording.iter().count()), (None, 2));
    }

    #[test]
    fn no_secret_is_shown() {
        let slack = Slack { hook: Secret::new("https://hooks.example/T0/B0/xyz"), channel: None, username: None };
        let shown = format!("{:?}", Destination::new("chat", Provider::Slack(slack)));
        assert!(shown.contains("chat") && !shown.contains("xyz"), "{shown}");
    }
}
