//! Whom notices can be sent to: the types of providers with their keys, and the ones that the daemon file names.
//!
//! This version delivers to the log. The other types are known with all their keys, so that a file for a later version
//! is checked today; what is addressed to them goes to the fallback, and a warning says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
    Opsgenie,
    Telegram,
    Discord,
    Teams,
}

impl ProviderKind {
    /// As files spell them; some have two names.
    pub const NAMES: [(&'static str, Self); 13] = [
        ("log", Self::Log),
        ("pagerduty", Self::PagerDuty),
        ("slack", Self::Slack),
        ("email", Self::Email),
        ("smtp", Self::Email),
        ("sms", Self::Sms),
        ("twilio", Self::Sms),
        ("webhook", Self::Webhook),
        ("alertmanager", Self::Alertmanager),
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
            Self::Opsgenie => "opsgenie",
            Self::Telegram => "telegram",
            Self::Discord => "discord",
            Self::Teams => "teams",
        }
    }

    /// Whether this version sends to it.
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Log)
    }

    /// The keys of its `config`.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Log => &["file"],
            Self::PagerDuty => &["routing_key", "routing_key_file", "url", "severity", "payload"],
            Self::Slack => &["hook", "hook_file", "url", "channel", "username", "payload"],
            Self::Email => &[
                "to",
                "cc",
                "from",
                "host",
                "server",
                "port",
                "username",
                "password",
                "password_file",
                "tls",
                "subject",
                "payload",
            ],
            Self::Sms => &[
                "to",
                "from",
                "url",
                "account_sid",
                "auth_token",
                "auth_token_file",
                "messaging_service_sid",
                "payload",
            ],
            Self::Webhook => &["url", "url_file", "method", "headers", "secret", "secret_file", "timeout", "payload"],
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
                "payload",
            ],
            Self::Opsgenie => &["api_key", "api_key_file", "url", "priority", "team", "tags", "payload"],
            Self::Telegram => &["bot_token", "bot_token_file", "chat_id", "url", "payload"],
            Self::Discord => &["hook", "hook_file", "url", "username", "payload"],
            Self::Teams => &["hook", "hook_file", "url", "payload"],
        }
    }

    /// Keys that are secrets. In the daemon file they stand in files of their own (`KEY_file`).
    pub(super) const fn secrets(self) -> &'static [&'static str] {
        match self {
            Self::Log => &[],
            Self::PagerDuty => &["routing_key"],
            // The address of a hook is its password.
            Self::Slack | Self::Discord | Self::Teams => &["hook", "url"],
            Self::Email => &["password"],
            Self::Sms => &["auth_token"],
            Self::Webhook => &["secret"],
            Self::Alertmanager => &["password", "bearer_token"],
            Self::Opsgenie => &["api_key"],
            Self::Telegram => &["bot_token"],
        }
    }

    /// Without one key of each row it reaches nobody.
    pub(super) const fn required(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Log => &[],
            Self::PagerDuty => &[&["routing_key", "routing_key_file"]],
            Self::Slack | Self::Discord | Self::Teams => &[&["hook", "hook_file", "url"]],
            Self::Email => &[&["to"]],
            Self::Sms => &[&["to"]],
            Self::Webhook => &[&["url", "url_file"]],
            Self::Alertmanager => &[&["url"]],
            Self::Opsgenie => &[&["api_key", "api_key_file"]],
            Self::Telegram => &[&["bot_token", "bot_token_file"], &["chat_id"]],
        }
    }
}

/// One `[providers.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub kind: ProviderKind,
    /// Of a log: the file, allowed and absolute.
    pub file: Option<PathBuf>,
}

/// The providers that the daemon file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Providers(BTreeMap<Box<str>, Provider>);

impl Providers {
    /// A name that is there already gets the new provider.
    pub fn insert(&mut self, name: &str, provider: Provider) {
        self.0.insert(name.into(), provider);
    }

    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(|name| &**name)
    }
}
