//! Whom notices can be sent to: the types of providers with their keys, and the ones that the daemon file declares.
//!
//! What a declared provider says is judged by each load of the monitors files, not when the daemon file is read: its
//! secrets are read anew by a reload, and a command that only wants the path of the socket needs none of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::domain::monitor::Secret;

/// A type of provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    Log,
    PagerDuty,
    Slack,
    Email,
    Sms,
    Webhook,
    Alertmanager,
    Script,
    Opsgenie,
    Telegram,
    Discord,
    Teams,
}

/// How fast, how many at a time.
const PACE: [&str; 3] = ["rate", "burst", "concurrency"];
/// How it is reached.
const REACH: [&str; 2] = ["timeout", "ca_file"];
const PROXY: [&str; 2] = ["proxy", "proxy_file"];
/// What is said.
const WORDS: [&str; 2] = ["title", "text"];

impl ProviderKind {
    /// As files spell them; some have two names.
    pub const NAMES: [(&'static str, Self); 14] = [
        ("log", Self::Log),
        ("pagerduty", Self::PagerDuty),
        ("slack", Self::Slack),
        ("email", Self::Email),
        ("smtp", Self::Email),
        ("sms", Self::Sms),
        ("twilio", Self::Sms),
        ("webhook", Self::Webhook),
        ("alertmanager", Self::Alertmanager),
        ("script", Self::Script),
        ("opsgenie", Self::Opsgenie),
        ("telegram", Self::Telegram),
        ("discord", Self::Discord),
        ("teams", Self::Teams),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, kind)| kind)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::PagerDuty => "pagerduty",
            Self::Slack => "slack",
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
            Self::Script => "script",
            Self::Opsgenie => "opsgenie",
            Self::Telegram => "telegram",
            Self::Discord => "discord",
            Self::Teams => "teams",
        }
    }

    /// Whether this version sends to it.
    pub const fn is_available(self) -> bool {
        !matches!(self, Self::Opsgenie | Self::Telegram | Self::Discord | Self::Teams)
    }

    /// The keys of its `config` in a monitors file.
    pub fn keys(self) -> Vec<&'static str> {
        let mut keys = self.own_keys().to_vec();
        match self {
            Self::Log => {}
            Self::PagerDuty | Self::Slack | Self::Sms | Self::Webhook | Self::Alertmanager => {
                keys.extend(REACH.into_iter().chain(PROXY).chain(PACE).chain(WORDS));
            }
            Self::Email => keys.extend(REACH.into_iter().chain(PACE).chain(WORDS)),
            Self::Script => keys.extend(["timeout"].into_iter().chain(PACE)),
            Self::Opsgenie | Self::Telegram | Self::Discord | Self::Teams => {}
        }
        if !matches!(self, Self::Log | Self::Script) {
            keys.push("payload");
        }
        keys
    }

    /// The keys of its table in the daemon file: no secrets, and no text that belongs to a monitor.
    pub(super) fn declared_keys(self) -> Vec<&'static str> {
        let mut keys = self.keys();
        keys.retain(|key| !self.secrets().contains(key) && *key != "payload");
        keys.extend(self.variables());
        keys
    }

    const fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Log => &["file"],
            Self::PagerDuty => &["routing_key", "routing_key_file", "url", "severity", "raises_per_minute"],
            Self::Slack => &["hook", "hook_file", "url", "channel", "username"],
            Self::Email => &[
                "to",
                "cc",
                "from",
                "host",
                "server",
                "port",
                "security",
                "tls",
                "username",
                "password",
                "password_file",
                "subject",
            ],
            Self::Sms => {
                &["to", "from", "url", "account_sid", "auth_token", "auth_token_file", "messaging_service_sid"]
            }
            Self::Webhook => {
                &["url", "url_file", "method", "headers", "secret", "secrets", "secret_file", "secret_files"]
            }
            Self::Alertmanager => &[
                "url",
                "username",
                "password",
                "password_file",
                "bearer_token",
                "bearer_token_file",
                "labels",
                "annotations",
                "generator_url",
            ],
            Self::Script => &["command", "path", "script", "args", "env"],
            Self::Opsgenie => &["api_key", "api_key_file", "url", "priority", "team", "tags"],
            Self::Telegram => &["bot_token", "bot_token_file", "chat_id", "url"],
            Self::Discord => &["hook", "hook_file", "url", "username"],
            Self::Teams => &["hook", "hook_file", "url"],
        }
    }

    /// Keys that are secrets. In the daemon file they stand in files of their own (`KEY_file`), or in variables.
    pub(super) const fn secrets(self) -> &'static [&'static str] {
        match self {
            Self::Log | Self::Script => &[],
            Self::PagerDuty => &["routing_key"],
            // The address of a hook is its password.
            Self::Slack | Self::Discord | Self::Teams => &["hook", "url"],
            Self::Email => &["password"],
            Self::Sms => &["auth_token"],
            Self::Webhook => &["secret", "secrets"],
            Self::Alertmanager => &["password", "bearer_token"],
            Self::Opsgenie => &["api_key"],
            Self::Telegram => &["bot_token"],
        }
    }

    /// The keys by which the daemon file names variables that hold secrets.
    const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Log | Self::Script => &[],
            Self::PagerDuty => &["routing_key_env", "proxy_env"],
            Self::Slack => &["hook_env", "proxy_env"],
            Self::Email => &["password_env"],
            Self::Sms => &["auth_token_env", "proxy_env"],
            Self::Webhook => &["url_env", "secret_env", "proxy_env"],
            Self::Alertmanager => &["password_env", "bearer_token_env", "proxy_env"],
            Self::Discord | Self::Teams => &["hook_env"],
            Self::Opsgenie => &["api_key_env"],
            Self::Telegram => &["bot_token_env"],
        }
    }

    /// Without one key of each row it reaches nobody.
    pub(super) const fn required(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Log => &[],
            Self::PagerDuty => &[&["routing_key", "routing_key_file", "routing_key_env"]],
            Self::Slack | Self::Discord | Self::Teams => &[&["hook", "hook_file", "hook_env", "url"]],
            Self::Email => &[&["to"], &["from"], &["host", "server"]],
            Self::Sms => &[
                &["to"],
                &["account_sid"],
                &["auth_token", "auth_token_file", "auth_token_env"],
                &["from", "messaging_service_sid"],
            ],
            Self::Webhook => &[&["url", "url_file", "url_env"]],
            Self::Alertmanager => &[&["url"]],
            Self::Script => &[&["command", "path", "script"]],
            Self::Opsgenie => &[&["api_key", "api_key_file", "api_key_env"]],
            Self::Telegram => &[&["bot_token", "bot_token_file", "bot_token_env"], &["chat_id"]],
        }
    }

    /// What a rule may say otherwise than the provider that it names: whom it is for, and how it is put. Where it goes and
    /// with whose credentials is the daemon file's.
    pub(super) const fn overrides(self) -> &'static [&'static str] {
        match self {
            Self::PagerDuty => &["severity", "title", "text"],
            Self::Slack => &["channel", "username", "title", "text"],
            Self::Email => &["to", "cc", "subject", "title", "text"],
            Self::Sms => &["to", "title", "text"],
            Self::Webhook => &["title", "text"],
            Self::Alertmanager => &["labels", "annotations", "generator_url", "title", "text"],
            Self::Log | Self::Script | Self::Opsgenie | Self::Telegram | Self::Discord | Self::Teams => &[],
        }
    }
}

/// The providers that a daemon file declares, as it has them; nothing where it declares none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The file as it was named, and its text.
    pub(super) file: Arc<str>,
    pub(super) text: Arc<str>,
    /// The names, each with its type, if that is one.
    pub(super) names: Vec<(Box<str>, Option<ProviderKind>)>,
    /// What the variables hold that its `KEY_env` keys name.
    pub(super) environment: BTreeMap<Box<str>, Secret>,
}

impl Declared {
    /// The names of the providers, sound or not.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(|(name, _)| &**name)
    }
}

/// The text may hold what somebody put there by mistake.
impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared").field("file", &self.file).field("names", &self.names).finish_non_exhaustive()
    }
}
