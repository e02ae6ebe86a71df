//! How many packets may leave in a second, where nothing but this host keeps them back.
//!
//! A connection has a peer that answers before the next packet leaves; an echo request and the SYN of a half-open check
//! have none, and a file with a short interval, or an outage with its retries and verifications, could make this host a
//! flood. So each such packet is counted here when it is asked for, whatever it is asked for by: first attempts, retries,
//! second requests of one check.
//!
//! Full: checks wait where they are (in the ready list, or in the pause before a retry). They are late, which is counted as
//! lag and, beyond the next due time, as missed; they never fail by it. How many waited is counted, and said at most once a
//! minute.

use super::protocol::PACKETS;
use crate::domain::Check;
use crate::probe::Quota;
use crate::schedule::Allowance;
use crate::units::limits::{FAULT_REPORT_EVERY, HELD_PAUSE, PACKET_RATE};
use crate::units::{Instant, Span};

/// At most so many packets in any second: a shard's share of what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub echo: u32,
    pub syn: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { echo: PACKET_RATE, syn: PACKET_RATE }
    }
}

impl Rates {
    /// One of `shards` equal shares.
    #[must_use]
    pub fn shared_by(self, shards: u32) -> Self {
        let shards = shards.max(1);
        Self { echo: self.echo / shards, syn: self.syn / shards }
    }
}

/// A kind of packet, by its place in [`PACKETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Echo,
    #[expect(dead_code, reason = "half-open checks come with the next commit")]
    Syn,
}

/// What a check sends, if that is bounded.
const fn packet_of(check: &Check) -> Option<Packet> {
    match check {
        Check::Icmp(_) => Some(Packet::Echo),
        Check::Tcp(_) | Check::Http(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => None,
    }
}

#[derive(Debug)]
pub(super) struct Bounds {
    now: Instant,
    bounds: [Bound; PACKETS.len()],
    /// When somebody who waits should look again.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Bound {
    allowance: Allowance,
    most: u32,
    /// When it last kept somebody waiting.
    full_at: Option<Instant>,
    told_at: Option<Instant>,
}

impl Bounds {
    pub(super) fn new(rates: Rates, now: Instant) -> Self {
        let bound =
            |most| Bound { allowance: Allowance::per_second(most), most, full_at: None, told_at: None };
        Self { now, bounds: [bound(rates.echo), bound(rates.syn)], until: None }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = now;
    }

    /// Nobody is known to wait.
    pub(super) fn forget_waiting(&mut self) {
        self.until = None;
    }

    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// What a check may send now.
    pub(super) fn quota(&self, check: &Check) -> Quota {
        let Some(packet) = packet_of(check) else { return Quota::default() };
        let allowance = &self.bounds[packet as usize].allowance;
        Quota { left: allowance.left(self.now), next: allowance.next(self.now).max(self.now + HELD_PAUSE) }
    }

    pub(super) fn sent(&mut self, packet: Packet, count: usize) {
        if count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.bounds[packet as usize].allowance.take(count, self.now);
        }
    }

    /// When a check may begin that must not now.
    pub(super) fn held_until(&mut self, check: &Check) -> Option<Instant> {
        let packet = packet_of(check)?;
        let Quota { left, next } = self.quota(check);
        if left > 0 {
            return None;
        }
        let bound = &mut self.bounds[packet as usize];
        bound.full_at = Some(self.now);
        if bound.told_at.is_none_or(|told| self.now.since(told) >= FAULT_REPORT_EVERY) {
            bound.told_at = Some(self.now);
            let (name, most) = (PACKETS[packet as usize], bound.most);
            tracing::warn!(
                "checks wait: this shard sends {most} {name} packets a second at most; raise [pulse] max_{name}_rate, or \
                 lengthen intervals"
            );
        }
        self.until = Some(self.until.map_or(next, |until| until.min(next)));
        Some(next)
    }

    /// A check begins, or is judged without, that has waited for so long. Answers by the place in [`PACKETS`] of what kept it
    /// waiting, if a bound did meanwhile.
    pub(super) fn kept_waiting(&self, check: &Check, late: Span) -> Option<usize> {
        let packet = packet_of(check)? as usize;
        let full_at = self.bounds[packet].full_at?;
        (self.now.since(full_at) < late).then_some(packet)
    }
}
