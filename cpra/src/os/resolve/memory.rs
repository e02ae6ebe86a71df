//! What is remembered of names: answers for as long as they hold, and the last good addresses for a while longer.
//!
//! ```text
//!   found ──────── fresh ───────┬── about to expire ──┬─────── stale ───────┐ forgotten
//!                               │ (asked for again)   │ (for failures only) │
//!                            7/8 TTL                 TTL             TTL + STALE_MAX
//! ```
//! RFC 8767: an address that was right a moment ago is most likely right still, and a check of it is worth more than
//! none. A name that is known *not* to exist has no stale addresses.

use std::net::IpAddr;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::lookup::Finding;
use crate::shard::protocol::Resolution;
use crate::units::limits::{NAME_TTL_FAILURE, RESOLVE_MEMORY_MAX, STALE_MAX, STALE_TTL};
use crate::units::{Instant, Span};

#[derive(Debug)]
struct Entry {
    last: Finding,
    /// When `last` ends to hold.
    until: Instant,
    /// Before this, `last` is the answer.
    ask_from: Instant,
    good: Option<(Vec<IpAddr>, Instant)>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.until <= now && self.good.as_ref().is_none_or(|(_, until)| *until <= now)
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    names: HashMap<Box<str>, Entry, FxBuildHasher>,
    max: usize,
    /// When a full memory was searched for what is over.
    swept: Instant,
}

const SWEEP_EVERY: Span = Span::from_secs(1);

impl Memory {
    pub(super) fn new() -> Self {
        Self::of(RESOLVE_MEMORY_MAX)
    }

    fn of(max: usize) -> Self {
        Self { names: HashMap::with_hasher(FxBuildHasher), max, swept: Instant::ZERO }
    }

    /// The answer, if it need not be asked for.
    pub(super) fn answer(&self, name: &str, now: Instant) -> Option<Resolution> {
        let entry = self.names.get(name).filter(|entry| now < entry.ask_from)?;
        Some(match &entry.last {
            Finding::Found { addresses, .. } => {
                Resolution::Found { addresses: addresses.clone(), ttl: entry.until.since(now) }
            }
            Finding::NotFound { .. } => Resolution::NotFound,
            Finding::Failed(why) => Resolution::Failed(why.clone()),
        })
    }

    /// The last good addresses, for when the resolver fails.
    pub(super) fn stale(&self, name: &str, now: Instant) -> Option<Resolution> {
        let (addresses, _) = self.names.get(name)?.good.as_ref().filter(|(_, until)| now < *until)?;
        Some(Resolution::Found { addresses: addresses.clone(), ttl: STALE_TTL })
    }

    /// Whether the last question was in vain.
    pub(super) fn is_failing(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|entry| matches!(entry.last, Finding::Failed(_)))
    }

    pub(super) fn note(&mut self, name: &str, finding: &Finding, now: Instant) {
        let (until, ask_from) = match finding {
            Finding::Found { ttl, .. } => (now + *ttl, now + ttl.scaled(7, 8)),
            Finding::NotFound { ttl } => (now + *ttl, now + *ttl),
            Finding::Failed(_) => (now + NAME_TTL_FAILURE, now + NAME_TTL_FAILURE),
        };
        if !self.names.contains_key(name) && !self.has_room(now) {
            return;
        }
        let good = match finding {
            Finding::Found { addresses, ttl } => Some((addresses.clone(), now + *ttl + STALE_MAX)),
            Finding::NotFound { .. } => None,
            Finding::Failed(_) => self.names.remove(name).and_then(|entry| entry.good),
        };
        self.names.insert(name.into(), Entry { last: finding.clone(), until, ask_from, good });
    }

    /// All is to be asked for anew; the last good addresses stay.
    pub(super) fn expire(&mut self, now: Instant) {
        for entry in self.names.values_mut() {
            entry.until = entry.until.min(now);
            entry.ask_from = now;
        }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.names.len() >= self.max && now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.names.retain(|_, entry| !entry.is_over(now));
        }
        self.names.len() < self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Span::from_secs(seconds)
    }

    fn found(ttl: u64) -> Finding {
        Finding::Found { addresses: vec![[192, 0, 2, 1].into()], ttl: Span::from_secs(ttl) }
    }

    fn answer(ttl: Span) -> Resolution {
        Resolution::Found { addresses: vec![[192, 0, 2, 1].into()], ttl }
    }

    #[test]
    fn an_answer_holds_for_the_rest_of_its_time_and_is_asked_for_ahead() {
        let mut memory = Memory::new();
        assert_eq!(memory.answer("a", at(10)), None);
        memory.note("a", &found(80), at(10));
        assert_eq!(memory.answer("a", at(70)), Some(answer(Span::from_secs(20))));
        assert_eq!(memory.answer("a", at(80)), None, "an eighth is left: time to ask again");
        memory.note("b", &Finding::NotFound { ttl: Span::from_secs(5) }, at(10));
        assert_eq!((memory.answer("b", at(14)), memory.answer("b", at(15))), (Some(Resolution::NotFound), None));
        memory.expire(at(11));
        assert_eq!((memory.answer("a", at(11)), memory.answer("b", at(11))), (None, None));
        assert_eq!(memory.stale("a", at(11)), Some(answer(STALE_TTL)));
    }

    #[test]
    fn the_last_good_addresses_outlive_failures_but_not_the_name() {
        let mut memory = Memory::new();
        let failed = Finding::Failed("down".into());
        memory.note("a", &failed, at(0));
        assert_eq!((memory.is_failing("a"), memory.stale("a", at(0))), (true, None));
        assert_eq!(memory.answer("a", at(0)), Some(Resolution::Failed("down".into())), "not asked at once again");
        assert_eq!(memory.answer("a", at(1)), None);
        memory.note("a", &found(60), at(10));
        for second in [100, 200] {
            memory.note("a", &failed, at(second));
        }
        let last = 10 + 60 + STALE_MAX.as_secs();
        assert_eq!(memory.stale("a", at(last - 1)), Some(answer(STALE_TTL)));
        assert_eq!(memory.stale("a", at(last)), None);
        memory.note("a", &Finding::NotFound { ttl: Span::from_secs(1) }, at(300));
        assert_eq!((memory.is_failing("a"), memory.stale("a", at(300))), (false, None));
    }

    #[test]
    fn it_is_bounded_and_makes_room_for_what_is_over() {
        let mut memory = Memory::of(2);
        memory.note("a", &Finding::NotFound { ttl: Span::from_secs(1) }, at(10));
        memory.note("b", &found(60), at(10));
        memory.note("c", &found(60), at(10));
        assert_eq!(memory.answer("c", at(10)), None, "no room");
        memory.note("b", &found(80), at(12));
        assert_eq!(memory.answer("b", at(12)), Some(answer(Span::from_secs(80))), "what is known is kept up");
        memory.note("c", &found(60), at(12));
        assert_eq!(memory.answer("c", at(12)), Some(answer(Span::from_secs(60))), "the one that is over made room");
    }
}
