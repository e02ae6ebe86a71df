//! What people read of an attempt that failed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::content::Body;
use super::{Request, check, redirect};
use crate::domain::monitor::Secret;
use crate::domain::{Check, HttpCheck, Outcome};

/// Shorter ones are no secrets, and a shorter end of a text is no part of one, as far as anybody can tell.
const SECRET_PART_MIN: usize = 4;

/// A status that was not expected: `503 Service Unavailable, expected 200-299: <the body's start>`.
pub(super) fn unexpected(
    check: &HttpCheck,
    status: u16,
    reason: &str,
    location: Option<&str>,
    body: Option<Body>,
) -> String {
    let space = if reason.is_empty() { "" } else { " " };
    let expected = &check.expected;
    if let Some(location) = location {
        // The page that comes with it says the same with more words.
        return format!("{status}{space}{reason} to {}, expected {expected}", redirect::shown_location(location));
    }
    let mut body = body;
    let excerpt = body.as_mut().map_or(&[][..], |body| {
        // Whether it is sound does not matter here, only what came out of it.
        let _ = body.finish();
        body.bytes()
    });
    let excerpt = text(excerpt);
    let colon = if excerpt.trim().is_empty() { "" } else { ": " };
    format!("{status}{space}{reason}, expected {expected}{colon}{excerpt}")
}

/// The evidence of a failure with what led to it: the proxy, and the address that redirects have led to.
pub(super) fn in_full(request: &Request<'_>, outcome: Outcome) -> Outcome {
    let evidence = outcome.evidence.as_ref();
    let by_proxy = evidence.filter(|_| check(request).proxy.is_some() && outcome.status.is_none());
    match by_proxy.map(|evidence| format!("by proxy {}: {evidence}", request.address)) {
        Some(text) => led(request, outcome.with_evidence(&text)),
        None => led(request, outcome),
    }
}

/// The same without the proxy; of the layers below, too.
pub(in crate::probe) fn led(request: &Request<'_>, outcome: Outcome) -> Outcome {
    let (Check::Http(_), Some(evidence)) = (&request.policy.check, &outcome.evidence) else { return outcome };
    let Some(hop) = request.hop else { return discreet(request, outcome) };
    let count = hop.count();
    let s = if count == 1 { "" } else { "s" };
    let text = format!("{} (after {count} redirect{s}): {evidence}", hop.url());
    discreet(request, outcome.with_evidence(&text))
}

/// The outcome without secrets, which servers may well send back.
pub(super) fn discreet(request: &Request<'_>, outcome: Outcome) -> Outcome {
    let Some(evidence) = &outcome.evidence else { return outcome };
    let check = check(request);
    let mut text = evidence.clone().into_string();
    let of_proxy = check.proxy.as_ref().and_then(|proxy| proxy.authorization.as_ref());
    for secret in [check.authorization.as_ref(), of_proxy].into_iter().flatten() {
        hide(&mut text, secret);
    }
    if *text == **evidence { outcome } else { outcome.with_evidence(&text) }
}

/// Takes a secret out of a text: whole, without its scheme, and what it says in plain where it is `Basic`.
fn hide(text: &mut String, secret: &Secret) {
    let whole = secret.expose();
    hide_text(text, whole);
    let Some((scheme, bare)) = whole.split_once(' ') else { return };
    let bare = bare.trim();
    hide_text(text, bare);
    let plain = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(bare).ok()).flatten();
    if let Some(plain) = plain.and_then(|plain| String::from_utf8(plain).ok()) {
        hide_text(text, &plain);
        hide_text(text, plain.split_once(':').map_or("", |(_, password)| password));
    }
}

/// Also where the text ends in the middle of it.
fn hide_text(text: &mut String, secret: &str) {
    if secret.len() < SECRET_PART_MIN {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, "(secret)");
    }
    let end = text.trim_end_matches('…').len();
    let part = (SECRET_PART_MIN..secret.len().min(end))
        .rev()
        .find(|&length| secret.get(..length).is_some_and(|start| text[..end].ends_with(start)));
    if let Some(length) = part {
        text.replace_range(end - length.., "(secret)");
    }
}

/// The excerpt, if it is text; a character that the cut fell into is left out.
fn text(excerpt: &[u8]) -> &str {
    let text = match std::str::from_utf8(excerpt) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&excerpt[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    if text.chars().any(|character| character.is_control() && !character.is_whitespace()) { "" } else { text }
}
