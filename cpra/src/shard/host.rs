//! Whether this host lost packets of its own while a check waited in vain.
//!
//! A full connection-tracking table drops packets and says nothing to the socket: the check just times out, and a
//! live target looks dead. The counters tell. They are read before the first check begins, about once a second from then
//! on, and soon after a timeout: that timeout is judged only by a reading that began after its deadline.

use super::protocol::HostSample;
use crate::units::limits::HOST_SAMPLE_EVERY;
use crate::units::{Instant, Span};

const SAMPLE_CALM: Span = Span::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct HostDrops {
    last: Option<HostSample>,
    /// The last stretch of time, between two readings, in which packets were lost.
    lossy: Option<(Instant, Instant)>,
    asked: Option<Instant>,
}

impl HostDrops {
    pub(super) fn sampled(&mut self, sample: HostSample) {
        self.asked = None;
        let before = self.last.replace(sample);
        let grew = before.is_some_and(|before| sample.drops > before.drops);
        if grew || sample.table_full {
            let since = before.map_or(sample.taken, |before| before.taken);
            self.lossy = Some(match self.lossy {
                // Without a calm reading in between it is one stretch.
                Some((from, until)) if until >= since => (from, sample.taken),
                _ => (since, sample.taken),
            });
        }
    }

    /// Whether a reading is wanted now; `urgent` when timed-out checks wait.
    pub(super) fn wants_sample(&mut self, now: Instant, urgent: bool) -> bool {
        if self.next_sample(urgent).is_none_or(|next| now < next) {
            return false;
        }
        self.asked = Some(now);
        true
    }

    /// Whether there is a reading to hold later ones against. What was lost before the first one nobody can know, so no
    /// check begins before it.
    pub(super) const fn has_base(&self) -> bool {
        self.last.is_some()
    }

    /// When the next reading is due; `None` while one is under way, which is no reason to wake up.
    pub(super) fn next_sample(&self, urgent: bool) -> Option<Instant> {
        if self.asked.is_some() {
            return None;
        }
        let every = if urgent { HOST_SAMPLE_EVERY } else { SAMPLE_CALM };
        Some(self.last.map_or(Instant::ZERO, |last| last.taken + every))
    }

    /// Whether packets were lost between `started` and `deadline`; `None` while that is not known yet.
    pub(super) fn overlap(&self, started: Instant, deadline: Instant) -> Option<bool> {
        let last = self.last.filter(|last| last.taken >= deadline)?;
        debug_assert!(last.taken >= deadline);
        Some(self.lossy.is_some_and(|(from, until)| until >= started && from <= deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Span::from_millis(millis)
    }

    fn sample(millis: u64, drops: u64) -> HostSample {
        HostSample { taken: at(millis), drops, table_full: false }
    }

    #[test]
    fn a_timeout_is_judged_by_a_reading_after_its_deadline() {
        let mut drops = HostDrops::default();
        drops.sampled(sample(0, 7));
        drops.sampled(sample(4_000, 7));
        assert_eq!(drops.overlap(at(1_000), at(5_000)), None);
        drops.sampled(sample(5_000, 7));
        assert_eq!(drops.overlap(at(1_000), at(5_000)), Some(false), "the first reading is the base, not a loss");
    }

    #[test]
    fn a_reading_under_way_is_no_reason_to_wake_up() {
        let mut drops = HostDrops::default();
        assert!(drops.wants_sample(at(0), false) && !drops.wants_sample(at(50), true));
        assert_eq!((drops.next_sample(true), drops.has_base()), (None, false));
        drops.sampled(sample(10, 0));
        assert_eq!((drops.next_sample(true), drops.has_base()), (Some(at(15)), true));
    }

    #[test]
    fn only_losses_within_the_attempt_count() {
        let mut drops = HostDrops::default();
        drops.sampled(sample(0, 0));
        drops.sampled(sample(1_000, 5));
        drops.sampled(sample(9_000, 5));
        assert_eq!(drops.overlap(at(500), at(8_000)), Some(true));
        assert_eq!(drops.overlap(at(2_000), at(8_000)), Some(false));
        let full = HostSample { taken: at(10_000), drops: 5, table_full: true };
        drops.sampled(full);
        assert_eq!(drops.overlap(at(9_500), at(9_900)), Some(true), "a full table counts without a counter");
    }
}
