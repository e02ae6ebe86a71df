//! One destination's pace: how many at a time, how fast, and when not at all.
//!
//! - **Rate**: the generic cell rate algorithm, in integers. One instant says when the next notice would be due without any
//!   burst; nothing has to be refilled, and the time to wait is exact.
//! - **Pause**: `Delivered.after` closes the whole destination, at most for [`PAUSE_MAX`]. Zero means that it is too much and
//!   nobody said for how long: [`THROTTLE_PAUSE_MIN`], twice as long each time in a row.
//! - **Doubt**: after [`PROBE_AFTER`] failures in a row only one notice at a time leaves, as a probe, and between two probes
//!   lies a pause that grows. The first success ends it. News may go out as a probe at once, but not within
//!   [`PROBE_GAP_MIN`] of the last one: an alert should not wait for minutes because an older one could not be delivered.

use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::Provider;
use crate::domain::destination::Pace;
use crate::units::limits::{
    DELIVERY_PAUSE_MAX, DELIVERY_PAUSE_MIN, DELIVERY_PAUSE_MIN_PAGER, PAUSE_MAX, PROBE_AFTER, PROBE_GAP_MIN,
    THROTTLE_PAUSE_MIN,
};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};

#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    /// The first pause after a failure.
    pause_min: Span,
    /// When the next one would be due, were there no burst.
    due: Instant,
    closed_until: Instant,
    /// Too much, in a row, and nobody said for how long.
    throttled: u32,
    /// Attempts that failed, in a row.
    failures: u32,
    /// Probes that failed, and attempts that had left before the doubt: what a whole batch of them meets is one failure.
    probes: u32,
    stale: usize,
    next_probe: Instant,
    last_end: Instant,
}

impl Pacer {
    pub(super) fn new(pace: Pace, provider: &Provider) -> Self {
        let pause_min =
            if matches!(provider, Provider::PagerDuty(_)) { DELIVERY_PAUSE_MIN_PAGER } else { DELIVERY_PAUSE_MIN };
        Self {
            pace,
            pause_min,
            due: Instant::ZERO,
            closed_until: Instant::ZERO,
            throttled: 0,
            failures: 0,
            probes: 0,
            stale: 0,
            next_probe: Instant::ZERO,
            last_end: Instant::ZERO,
        }
    }

    fn in_doubt(&self) -> bool {
        self.failures >= PROBE_AFTER
    }

    /// Whether it takes what it is given, as far as anyone knows.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.failures == 0 && self.closed_until <= now
    }

    /// How many may be on their way.
    pub(super) fn limit(&self) -> usize {
        let beyond = usize::from(planted::is(Bug::ConcurrencyIgnored));
        if self.in_doubt() { 1 } else { (self.pace.concurrency.max(1) as usize).saturating_add(beyond) }
    }

    /// When the next one may leave; not later than `now` is now.
    pub(super) fn opens(&self) -> Instant {
        let burst = u64::from(self.pace.burst.max(1)) - 1;
        let rate = self.due.before(Span::from_nanos(self.pace.every.as_nanos().saturating_mul(burst)));
        let rate = if planted::is(Bug::RateIgnored) { Instant::ZERO } else { rate };
        let closed = if planted::is(Bug::RetryAfterIgnored) { Instant::ZERO } else { self.closed_until };
        let probe = if self.in_doubt() { self.next_probe } else { Instant::ZERO };
        rate.max(closed).max(probe)
    }

    pub(super) fn left(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.pace.every;
    }

    /// An attempt has ended, with so many others on their way; answers whether the destination is out of doubt by it.
    pub(super) fn ended(
        &mut self,
        delivered: &Delivered,
        others: usize,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> bool {
        self.last_end = now;
        let taken = !matches!(delivered.result, DeliveryResult::Failed | DeliveryResult::Unsure);
        let doubted = self.in_doubt();
        if let Some(after) = delivered.after {
            let after = if after == Span::ZERO {
                // Those that had left before it closed say the same thing, not a new one.
                self.throttled = self.throttled.saturating_add(u32::from(self.closed_until <= now));
                doubled(THROTTLE_PAUSE_MIN, self.throttled, PAUSE_MAX)
            } else {
                after
            };
            self.closed_until = self.closed_until.max(now + after.min(PAUSE_MAX));
        } else if taken {
            self.throttled = 0;
        }
        if taken {
            self.failures = 0;
        } else if delivered.after.is_none() {
            self.failures = self.failures.saturating_add(1);
            if !doubted {
                (self.probes, self.stale) = (0, others);
            } else if let Some(stale) = self.stale.checked_sub(1) {
                self.stale = stale;
                return false;
            }
            if self.in_doubt() {
                self.probes = self.probes.saturating_add(1);
                self.next_probe = now + self.pause(self.probes, rng);
            }
        }
        doubted && taken
    }

    /// The pause after so many failures in a row; up to a quarter longer, so that many do not come back as one.
    pub(super) fn pause(&self, failures: u32, rng: &mut fastrand::Rng) -> Span {
        let pause = doubled(self.pause_min, failures, DELIVERY_PAUSE_MAX);
        pause + Span::from_nanos(rng.u64(0..=pause.as_nanos() / 4))
    }

    /// Something new is to be delivered.
    pub(super) fn news(&mut self, now: Instant) {
        self.next_probe = self.next_probe.min(now.max(self.last_end + PROBE_GAP_MIN));
    }

    /// A person wants it tried now.
    pub(super) fn forgive(&mut self) {
        self.closed_until = Instant::ZERO;
        self.next_probe = Instant::ZERO;
    }
}

/// The first time `least`, then twice as long each time.
fn doubled(least: Span, times: u32, most: Span) -> Span {
    least.scaled(1 << times.saturating_sub(1).min(16), 1).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Destination;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Span::from_secs(1_000) + Span::from_millis(millis)
    }

    fn pacer(concurrency: u32, every: Span, burst: u32) -> Pacer {
        let log = Destination::log(None);
        Pacer::new(Pace { concurrency, every, burst, ..log.pace }, &log.provider)
    }

    /// When the first notices leave, if as many as may do so at once.
    fn departures(pacer: &mut Pacer, mut now: Instant, count: usize) -> Vec<u64> {
        let mut left = Vec::new();
        while left.len() < count {
            now = now.max(pacer.opens());
            pacer.left(now);
            left.push(now.since(at(0)).as_millis());
        }
        left
    }

    #[test]
    fn the_rate_holds_in_the_long_run_and_a_pause_saves_up_one_burst() {
        let mut slack = pacer(1, Span::from_secs(1), 3);
        assert_eq!(departures(&mut slack, at(0), 6), [0, 0, 0, 1_000, 2_000, 3_000]);
        assert_eq!(departures(&mut slack, at(60_500), 5), [60_500, 60_500, 60_500, 61_500, 62_500]);
        assert_eq!(departures(&mut pacer(1, Span::ZERO, 1), at(0), 3), [0, 0, 0]);
    }

    #[test]
    fn a_pause_is_for_the_whole_destination_and_bounded() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut pacer = pacer(8, Span::ZERO, 1);
        let throttled = |after| Delivered { after: Some(after), ..DeliveryResult::Failed.into() };
        pacer.ended(&throttled(Span::from_secs(17)), 0, at(0), &mut random);
        assert_eq!((pacer.opens(), pacer.limit()), (at(17_000), 8), "nothing has failed");
        pacer.news(at(1));
        assert_eq!(pacer.opens(), at(17_000), "news has to wait, too");
        pacer.ended(&throttled(Span::from_secs(5)), 0, at(0), &mut random);
        assert_eq!(pacer.opens(), at(17_000), "the longer one counts");
        pacer.ended(&throttled(Span::MAX), 0, at(0), &mut random);
        assert_eq!(pacer.opens(), at(0) + PAUSE_MAX);
        pacer.forgive();
        assert!(pacer.opens() <= at(0));
        let mut now = at(0);
        for seconds in [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            // All of a batch say the same.
            for _ in 0..40 {
                pacer.ended(&throttled(Span::ZERO), 0, now, &mut random);
            }
            assert_eq!(pacer.opens(), now + Span::from_secs(seconds));
            now = pacer.opens();
        }
        pacer.ended(&DeliveryResult::Sent.into(), 0, at(0), &mut random);
        pacer.forgive();
        pacer.ended(&throttled(Span::ZERO), 0, at(0), &mut random);
        assert_eq!(pacer.opens(), at(30_000), "in a row only");
    }

    #[test]
    fn who_takes_nothing_is_probed_and_one_success_ends_it() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut pacer = pacer(8, Span::ZERO, 1);
        let failed: Delivered = DeliveryResult::Failed.into();
        for _ in 1..PROBE_AFTER {
            assert!(!pacer.ended(&failed, 0, at(0), &mut random));
            assert_eq!((pacer.limit(), pacer.opens()), (8, Instant::ZERO));
        }
        let mut pause = DELIVERY_PAUSE_MIN;
        for _ in 0..12 {
            assert!(!pacer.ended(&failed, 0, at(0), &mut random));
            assert_eq!(pacer.limit(), 1);
            assert!(pacer.opens() >= at(0) + pause && pacer.opens() <= at(0) + pause.scaled(5, 4));
            pause = pause.scaled(2, 1).min(DELIVERY_PAUSE_MAX);
        }
        pacer.news(at(10));
        assert_eq!(pacer.opens(), at(0) + PROBE_GAP_MIN, "news is a probe, and not the next one at once");
        assert!(pacer.ended(&DeliveryResult::Sent.into(), 0, at(5), &mut random));
        assert_eq!((pacer.limit(), pacer.opens()), (8, Instant::ZERO));
    }

    #[test]
    fn a_batch_that_fails_as_one_is_one_failure_of_many() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut pacer = pacer(1_024, Span::ZERO, 1);
        for others in (0..500).rev() {
            assert!(!pacer.ended(&DeliveryResult::Failed.into(), others, at(0), &mut random));
        }
        assert_eq!(pacer.limit(), 1);
        assert!(pacer.opens() <= at(0) + DELIVERY_PAUSE_MIN.scaled(5, 4), "the next probe is not minutes away");
        pacer.ended(&DeliveryResult::Failed.into(), 0, at(2_000), &mut random);
        assert!(pacer.opens() >= at(2_000) + DELIVERY_PAUSE_MIN.scaled(2, 1));
    }
}
