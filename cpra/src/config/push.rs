//! The rules of a push check: the token that the job calls with, and how late it may be.

use std::net::{IpAddr, Ipv4Addr};

use super::check::Sound;
use super::diagnostic::Severity;
use super::node::Findings;
use super::scope::Scope;
use super::section::{Keys, Section};
use super::value;
use crate::domain::monitor::PushCheck;
use crate::domain::{Check, Host, Target};
use crate::units::Span;
use crate::units::limits::{INTERVAL_MAX, TOKEN_MAX, TOKEN_MIN};

pub(super) const KEYS: Keys<'static> =
    Keys { known: &["token", "token_file", "grace"], without_effect: &[], refused: &[] };

/// Jobs begin on time and end when they end.
const GRACE_DEFAULT: Span = Span::from_secs(60);

pub(super) fn push(
    config: &Section<'_>,
    name: Option<&str>,
    scope: &mut Scope<'_>,
    findings: &mut Findings,
) -> Option<Sound> {
    config.check_keys(findings, KEYS);
    let grace = config.value(findings, &["grace"], value::span(Span::ZERO..=INTERVAL_MAX)).unwrap_or(GRACE_DEFAULT);
    let Some(field) = config.find(findings, &["token", "token_file"]) else {
        let remedy = "add \"token_file: ...\", or \"token: ...\" with at least 16 random characters, to config";
        config.missing(findings, "token", remedy);
        return None;
    };
    let token = config.value(findings, &[field.key], |node| {
        let text = value::text(node)?;
        match field.key {
            "token" => is_token(text).map(|()| Box::<str>::from(text)),
            _ => {
                let secret = scope.secrets.read(text, scope.folders)?;
                is_token(secret.expose()).map_err(|message| format!("names a file whose token {message}"))?;
                Ok(secret.expose().into())
            }
        }
    })?;
    if let Some(name) = name
        && let Err(owner) = scope.take_token(&token, name)
    {
        let message = format!(
            "{} is the one of the monitor {} already: every job has a token of its own",
            field.key,
            super::monitor::shown_name(&owner)
        );
        findings.0.push(field.finding(Severity::Error, field.at, message));
    }
    // Nobody is dialled: an address, so that no name is looked up.
    let host = Host::Literal(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(Sound { check: Check::Push(PushCheck { grace }), target: Target { host, port: 0, path: token }, retries: 0 })
}

/// A token is a part of an address, and must not be guessed.
fn is_token(text: &str) -> Result<(), String> {
    let count = text.chars().count();
    if !(TOKEN_MIN..=TOKEN_MAX).contains(&count) {
        return Err(format!("has {count} characters: {TOKEN_MIN} to {TOKEN_MAX}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')) {
        return Err("has a character that cannot stand in an address: use letters, digits, \"-\" and \"_\"".to_owned());
    }
    let mut different: Vec<u8> = text.bytes().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < 4 { Err("is easily guessed: write a random one".to_owned()) } else { Ok(()) }
}
