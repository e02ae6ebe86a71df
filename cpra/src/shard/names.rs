//! Addresses of names, as this shard knows them, and who waits for them.
//!
//! One question per name, however many monitors wait for the answer: a million monitors of ten names ask ten times.
//! Bounded by the names in the catalog. The resolver behind it always answers (see
//! [`super::protocol::Event::Resolved`]), so nobody waits for ever.

use std::net::IpAddr;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::protocol::Resolution;
use crate::schedule::Tick;
use crate::units::{Instant, Span};

/// A check that has left the ready list and waits for an address, or for a slot once it has that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) monitor: u32,
    pub(super) due: Tick,
    /// When it left the ready list.
    pub(super) left: Instant,
}

/// A check whose address is known and that waits for a slot. It keeps the address that it was given: asking again,
/// because the answer expired meanwhile, could go on for as long as slots are short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    pub(super) waiting: Waiting,
    pub(super) address: IpAddr,
    /// How long the name took.
    pub(super) took: Span,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    fresh_until: Option<Instant>,
    asked: bool,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<String, Name, FxBuildHasher>,
    waiting: usize,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { known: HashMap::with_hasher(FxBuildHasher), waiting: 0 }
    }

    /// Checks that wait for an answer.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The preferred address, if one is known and still holds.
    pub(super) fn address(&self, name: &str, now: Instant) -> Option<IpAddr> {
        let known = self.known.get(name)?;
        known.fresh_until.filter(|until| *until > now)?;
        known.addresses.first().copied()
    }

    /// Lets a check wait; answers whether the question has to be asked.
    pub(super) fn wait(&mut self, name: &str, waiting: Waiting) -> bool {
        let known = self.known.entry_ref(name).or_default();
        known.waiting.push(waiting);
        self.waiting += 1;
        !std::mem::replace(&mut known.asked, true)
    }

    /// Takes an answer, and hands out who waited for it. A failure leaves what was known before to expire.
    pub(super) fn answer(&mut self, name: &str, resolution: &Resolution, now: Instant) -> Vec<Waiting> {
        let Some(known) = self.known.get_mut(name) else { return Vec::new() };
        known.asked = false;
        if let Resolution::Found { addresses, ttl } = resolution {
            known.addresses.clone_from(addresses);
            // An answer that does not hold at all still serves those who wait for it, and the current tick.
            known.fresh_until = Some(now + (*ttl).max(Span::from_millis(1)));
        }
        let waiting = std::mem::take(&mut known.waiting);
        self.waiting -= waiting.len();
        waiting
    }

    /// Takes one check out: its monitor is watched no more.
    pub(super) fn forget(&mut self, name: &str, monitor: u32) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        let before = known.waiting.len();
        known.waiting.retain(|waiting| waiting.monitor != monitor);
        let gone = before - known.waiting.len();
        self.waiting -= gone;
        gone > 0
    }
}
