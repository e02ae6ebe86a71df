//! How many packets may leave in a second, where nothing but this host keeps them back.
//!
//! A connection has a peer that answers before the next packet leaves; an echo request and the SYN of a half-open check
//! have none, and a file with a short interval, or an outage with its retries and verifications, could make this host a
//! flood. So each such packet is counted here when it is asked for, whatever it is asked for by: first attempts, retries,
//! second requests of one check.
//!
//! What has begun goes first: while a check in flight waits for its next packet, or for its retry, none begins. Otherwise
//! each would send a part of its requests, and none come to a result.
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
enum Packet {
    Echo,
    Syn,
}

/// What a check sends, if that is bounded.
const fn packet_of(check: &Check) -> Option<Packet> {
    match check {
        Check::Icmp(_) => Some(Packet::Echo),
        // Also where it goes by a connection, since nobody sees the answers: then it takes nothing.
        check if check.is_half_open() => Some(Packet::Syn),
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
    /// Until when none begins, since others have not ended their waiting.
    reserved_until: Instant,
    /// When it last kept somebody waiting.
    full_at: Option<Instant>,
    told_at: Option<Instant>,
}

impl Bounds {
    pub(super) fn new(rates: Rates, now: Instant) -> Self {
        let bound = |most| Bound {
            allowance: Allowance::per_second(most),
            most,
            reserved_until: Instant::ZERO,
            full_at: None,
            told_at: None,
        };
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
        let next = allowance.next(self.now).max(self.now + HELD_PAUSE);
        Quota { left: allowance.left(self.now), next, is_short: false }
    }

    /// A check in flight has sent packets, and perhaps wanted to send more than its quota.
    pub(super) fn sent(&mut self, check: &Check, count: usize, quota: Quota) {
        let Some(packet) = packet_of(check) else { return };
        if count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.bounds[packet as usize].allowance.take(count, self.now);
        }
        if quota.is_short {
            self.kept_back(packet, quota.next);
        }
    }

    fn kept_back(&mut self, packet: Packet, next: Instant) {
        let bound = &mut self.bounds[packet as usize];
        bound.full_at = Some(self.now);
        // It is woken by a clock of its own, a moment after its time.
        bound.reserved_until = bound.reserved_until.max(next + HELD_PAUSE + HELD_PAUSE);
    }

    /// When a check may go on with its next attempt, if it must not now.
    pub(super) fn retry_held_until(&mut self, check: &Check) -> Option<Instant> {
        let packet = packet_of(check)?;
        let Quota { left, next, .. } = self.quota(check);
        (left == 0).then(|| {
            self.kept_back(packet, next);
            next
        })
    }

    /// When a check may begin, if it must not now.
    pub(super) fn held_until(&mut self, check: &Check) -> Option<Instant> {
        let packet = packet_of(check)?;
        let Quota { left, next, .. } = self.quota(check);
        let bound = &mut self.bounds[packet as usize];
        let next = next.max(bound.reserved_until);
        if left > 0 && bound.reserved_until <= self.now {
            return None;
        }
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
