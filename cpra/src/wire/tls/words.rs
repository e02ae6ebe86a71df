//! What went wrong with TLS, in the words of people who run servers.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::{Blame, Failure};
use crate::units::Timestamp;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// A certificate's fault, carried through rustls by [`rustls::OtherError`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(pub(super) String);

/// `heard` is what the server said first; `certified` whether we have a certificate of our own.
pub(super) fn failure(error: &Error, heard: &[u8], certified: bool) -> Failure {
    let (blame, words) = match error {
        Error::InvalidCertificate(fault) => (Blame::Certificate, certificate(fault)),
        Error::NoCertificatesPresented => (Blame::Certificate, "server presented no certificate".into()),
        Error::AlertReceived(alert) => (Blame::Protocol, refusal(*alert, certified)),
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord | Error::InappropriateMessage { .. }
            if !is_tls(heard) =>
        {
            (Blame::Protocol, format!("server speaks no TLS (first bytes: \"{}\")", heard.escape_ascii()))
        }
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            (Blame::Protocol, "server answered with a protocol version that is unknown".into())
        }
        Error::InvalidMessage(fault) => (Blame::Protocol, format!("broken TLS message from the server: {fault:?}")),
        Error::PeerSentOversizedRecord => (Blame::Protocol, "server sent a record larger than TLS allows".into()),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => (Blame::Protocol, "server speaks neither TLS 1.2 nor TLS 1.3".into()),
        Error::PeerIncompatible(fault) => (Blame::Protocol, format!("no common ground with the server: {fault:?}")),
        Error::PeerMisbehaved(fault) => (Blame::Protocol, format!("server broke the TLS protocol: {fault:?}")),
        Error::DecryptError => (Blame::Protocol, "a record of the server could not be decrypted".into()),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            (Blame::Protocol, format!("server broke the TLS protocol: {error}"))
        }
        Error::NoApplicationProtocol => (Blame::Protocol, "no common application protocol with the server".into()),
        _ => (Blame::Ours, format!("TLS failed on this host: {error}")),
    };
    Failure::new(blame, words)
}

/// Whether these may be the first bytes of a TLS record: its type, and the major version.
fn is_tls(heard: &[u8]) -> bool {
    matches!(heard.first(), None | Some(0x14..=0x17)) && matches!(heard.get(1), None | Some(3))
}

fn certificate(fault: &CertificateError) -> String {
    if let CertificateError::Other(other) = fault
        && let Some(Reason(words)) = other.0.downcast_ref()
    {
        return words.clone();
    }
    // What the chain's judge did not see: the signature over the handshake.
    match fault {
        CertificateError::BadSignature => "server does not hold the key of its certificate (bad signature)".into(),
        other => format!("certificate refused: {other}"),
    }
}

fn refusal(alert: AlertDescription, certified: bool) -> String {
    let (name, code) = (alert_name(alert), u8::from(alert));
    let hint = match alert {
        AlertDescription::ProtocolVersion => ": it takes neither TLS 1.2 nor TLS 1.3",
        AlertDescription::HandshakeFailure if certified => ": no common cipher, or it does not take our certificate",
        AlertDescription::HandshakeFailure => ": no common cipher, or it wants a client certificate",
        AlertDescription::CertificateRequired => ": it wants a client certificate",
        AlertDescription::UnrecognisedName => ": it does not know this server name",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
            if certified =>
        {
            ": it does not take our certificate"
        }
        _ => "",
    };
    format!("server refused: {name} alert ({code}){hint}")
}

/// `HandshakeFailure` reads as `handshake failure`, the words of RFC 8446.
fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => return "unknown CA".into(),
        AlertDescription::Unknown(_) => return "unknown".into(),
        _ => {}
    }
    let mut words = String::new();
    for character in format!("{alert:?}").chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

/// `2026-12-01`.
pub(super) fn date(moment: Timestamp) -> String {
    let mut text = moment.to_string();
    text.truncate(text.find('T').unwrap_or(text.len()));
    text
}

/// Whole days from one to the other, rounded down.
pub(super) const fn days_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_micros().saturating_sub(from.as_micros()).div_euclid(DAY_MICROS)
}

/// `3 days ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    match days_between(then, now) {
        ..1 => "less than a day ago".into(),
        1 => "1 day ago".into(),
        days => format!("{days} days ago"),
    }
}

/// `in 3 days`.
pub(super) fn ahead(then: Timestamp, now: Timestamp) -> String {
    match days_between(now, then) {
        ..1 => "in less than a day".into(),
        1 => "in 1 day".into(),
        days => format!("in {days} days"),
    }
}
