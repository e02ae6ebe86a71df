//! TLS as a transformer of bytes: ciphertext in, plaintext and ciphertext out. Pure; rustls does the protocol.
//!
//! A [`Session`] is one connection's TLS. [`Contexts`] makes them; it holds what is loaded once: trusted roots, client
//! certificates, sessions that may be resumed. Both are traits, so that a simulation can put another transformer below
//! the same probes. What reads files and clocks for them is [`crate::os::tls`].
//!
//! **Resumption saves the expensive half of a handshake, and with it the judgement of the certificate.** So a session is
//! only resumed within [`TLS_JUDGED_MAX`](crate::units::limits::TLS_JUDGED_MAX) of the full handshake in which its
//! certificate was judged, however often it was resumed in between; and the certificate's end is looked at every time.
//!
//! Bounded: tickets in sum and per peer, records and handshake messages by rustls, the words of a failure by
//! [`crate::domain::Outcome::with_evidence`].

mod client;
mod judge;
#[cfg(test)]
mod tests;
mod tickets;
mod words;

use std::fmt::Debug;
use std::net::SocketAddr;

pub use client::{Context, Trust};
pub use judge::Judge;
pub use tickets::Tickets;

use crate::domain::HostRef;
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::units::Timestamp;

/// Whatever can begin TLS.
pub trait Contexts: Debug + Send + Sync {
    /// A session of a client that is about to speak first, and shows `client` if it is asked for a certificate.
    ///
    /// # Errors
    /// [`Blame::Ours`]: the policy was not loaded, or the name cannot stand in a certificate.
    fn begin(
        &self,
        policy: &TlsPolicy,
        client: Option<&ClientCertificate>,
        name: HostRef<'_>,
        peer: SocketAddr,
    ) -> Result<Box<dyn Session>, Failure>;

    /// What the wall clock shows: certificates end by it.
    fn wall(&self) -> Timestamp;
}

/// Nothing was loaded: every check with TLS is void.
#[derive(Debug)]
pub struct Unloaded;

impl Contexts for Unloaded {
    fn begin(
        &self,
        _: &TlsPolicy,
        _: Option<&ClientCertificate>,
        _: HostRef<'_>,
        _: SocketAddr,
    ) -> Result<Box<dyn Session>, Failure> {
        Err(Failure::new(Blame::Ours, "TLS was not loaded"))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }
}

/// One connection's TLS.
pub trait Session: Debug + Send {
    /// Takes what was received, appends what it says.
    ///
    /// # Errors
    /// The connection is of no more use; `plaintext` has what came before.
    fn read(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Failure>;

    /// Takes what is to be said; only once the handshake is done.
    ///
    /// # Errors
    /// As with `read`.
    fn write(&mut self, plaintext: &[u8]) -> Result<(), Failure>;

    /// Says that nothing more will be said.
    fn close(&mut self);

    /// Appends what is to be sent.
    fn drain(&mut self, ciphertext: &mut Vec<u8>);

    /// The handshake is done.
    fn is_established(&self) -> bool;

    /// The peer has said that it will say nothing more.
    fn is_closed(&self) -> bool;

    /// The handshake is done for us, but the peer may still refuse what it was sent last (TLS 1.3: our certificate).
    fn may_be_refused(&self) -> bool;

    /// When the peer's certificate ends; `None` when it is not judged at all.
    fn certificate_end(&self) -> Option<Timestamp>;

    /// When the certificate was last judged in whole.
    fn judged_at(&self) -> Timestamp;
}

/// Why a session failed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub blame: Blame,
    pub words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The peer's protocol, or its refusal.
    Protocol,
    /// The peer's certificate.
    Certificate,
    /// This host: what the target is like was not found out.
    Ours,
}

impl Failure {
    pub fn new(blame: Blame, words: impl Into<String>) -> Self {
        Self { blame, words: words.into() }
    }
}

/// Why a connection that others drive failed.
pub fn failure(error: &rustls::Error) -> Failure {
    words::failure(error, &[], false)
}

/// A certificate that has ended by `now`, in words.
pub fn ended(end: Timestamp, now: Timestamp) -> Option<String> {
    (end < now).then(|| format!("certificate expired on {} ({})", words::date(end), words::ago(end, now)))
}

/// A certificate that ends within `days`, in words.
pub fn ends_within(days: u32, end: Timestamp, now: Timestamp) -> Option<String> {
    let left = words::days_between(now, end);
    (left < i64::from(days)).then(|| {
        let days = match left {
            0 => "less than a day".to_owned(),
            1 => "1 day".to_owned(),
            left => format!("{left} days"),
        };
        format!("certificate ends in {days}, on {}", words::date(end))
    })
}
