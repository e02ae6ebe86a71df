//! How long a loop sleeps in its ring: batches when there is plenty, at once when there is little.
//!
//! Entering the kernel costs about as much as a whole check when each enter brings one completion, so under load we
//! wait for a batch. But a batch that fills slowly delays everyone in it: measured, waiting for 256 with a bound of
//! 5 ms added 1 ms to the mean connect. So the batch is what the recent rate fills within [`DELAY_MAX`], and a rate
//! that fills no batch in that time gets no batching at all.
//!
//! Pure: the daemon's loop and the reference loop of the benchmarks both ask it, so that they compare alike.

use crate::ring::Wait;
use crate::units::limits::{FLIGHT_WAIT_MAX, TURN_MAX};
use crate::units::{Instant, Span};

/// The longest that batching may hold back a completion.
pub const DELAY_MAX: Span = Span::from_millis(1);
const _: () = assert!(2 * DELAY_MAX.as_nanos() <= TURN_MAX.as_nanos());
/// Beyond this, larger batches gain nothing (64 to 4096 measured flat).
pub const BATCH_MAX: u32 = 256;
/// With nothing in flight and nothing due, the loop still turns this often.
pub const IDLE_MAX: Span = Span::from_secs(1);

/// Time over which the rate is averaged: short enough to leave batching soon after a burst.
const MEMORY: Span = Span::from_millis(20);

/// The recent rate of completions, and what to do about it.
#[derive(Clone, Debug)]
pub struct WaitPolicy {
    /// Completions per nanosecond, an exponentially weighted average over [`MEMORY`].
    rate: f64,
    /// Completions since `counted`.
    pending: u64,
    counted: Instant,
}

impl WaitPolicy {
    pub const fn new(now: Instant) -> Self {
        Self { rate: 0.0, pending: 0, counted: now }
    }

    /// Tells how many completions the last round brought.
    #[expect(clippy::cast_precision_loss, reason = "an average of small counts over short times")]
    pub fn observe(&mut self, now: Instant, completions: usize) {
        self.pending += completions as u64;
        let elapsed = now.since(self.counted).as_nanos() as f64;
        // Rounds that follow each other within microseconds are one observation.
        if elapsed < DELAY_MAX.as_nanos() as f64 / 4.0 {
            return;
        }
        let weight = 1.0 - (-elapsed / MEMORY.as_nanos() as f64).exp();
        self.rate += weight * (self.pending as f64 / elapsed - self.rate);
        self.pending = 0;
        self.counted = now;
    }

    /// Completions per second, as averaged.
    pub fn rate_per_second(&self) -> f64 {
        self.rate * 1e9
    }

    /// What to wait for, with `in_flight` operations pending and the next thing to do at `deadline`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by BATCH_MAX before the cast")]
    #[expect(clippy::cast_precision_loss, reason = "a millisecond of nanoseconds is exact")]
    pub fn wait(&self, now: Instant, in_flight: usize, deadline: Option<Instant>) -> Wait {
        let longest = if in_flight > 0 { FLIGHT_WAIT_MAX } else { IDLE_MAX };
        let bound = deadline.map_or(longest, |deadline| deadline.since(now).min(longest));
        if bound == Span::ZERO {
            return Wait::NONE;
        }
        let filled = (self.rate * DELAY_MAX.as_nanos() as f64).min(f64::from(BATCH_MAX)) as u32;
        let batch = filled.min(u32::try_from(in_flight).unwrap_or(u32::MAX));
        // One completion is awaited without a bound of its own: it returns as soon as it is there.
        if batch < 2 { Wait { batch: 1, bound } } else { Wait { batch, bound: bound.min(DELAY_MAX) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_rate(per_millisecond: usize) -> (WaitPolicy, Instant) {
        let mut now = Instant::from_nanos(5_000_000_000);
        let mut policy = WaitPolicy::new(now);
        for _ in 0..500 {
            now += Span::from_millis(1);
            policy.observe(now, per_millisecond);
        }
        (policy, now)
    }

    #[test]
    fn the_batch_is_what_the_rate_fills_within_the_delay() {
        let far = Span::from_secs(10);
        let cases = [
            // completions per ms, in flight, next deadline in → batch, bound
            (0, 0, far, 1, IDLE_MAX),
            (0, 5, far, 1, FLIGHT_WAIT_MAX),
            (1, 1_000, far, 1, FLIGHT_WAIT_MAX),
            (1, 1_000, Span::from_micros(300), 1, Span::from_micros(300)),
            (30, 1_000, far, 30, DELAY_MAX),
            (30, 1_000, Span::from_micros(300), 30, Span::from_micros(300)),
            (30, 7, far, 7, DELAY_MAX),
            (30, 1, far, 1, FLIGHT_WAIT_MAX),
            (5_000, 100_000, far, BATCH_MAX, DELAY_MAX),
            (30, 1_000, Span::ZERO, 0, Span::ZERO),
        ];
        for (rate, in_flight, until, batch, bound) in cases {
            let (policy, now) = after_rate(rate);
            let wait = policy.wait(now, in_flight, Some(now + until));
            // The average approaches its value from below.
            assert!(wait.batch == batch || (batch > 1 && wait.batch + 1 == batch), "{rate}/ms: {wait:?}, not {batch}");
            assert_eq!(wait.bound, bound, "{rate}/ms, {in_flight} in flight, due in {until}");
        }
    }

    #[test]
    fn a_burst_is_soon_forgotten() {
        let (mut policy, mut now) = after_rate(100);
        assert!(policy.wait(now, 1_000, None).batch > 50);
        for _ in 0..10 {
            now += Span::from_millis(20);
            policy.observe(now, 0);
        }
        assert_eq!(policy.wait(now, 1_000, None).batch, 1);
    }

    #[test]
    fn rounds_in_quick_succession_are_one_observation() {
        let (mut policy, mut now) = after_rate(10);
        let before = policy.rate_per_second();
        for _ in 0..100 {
            now += Span::from_micros(10);
            policy.observe(now, 0);
        }
        let (mut alike, later) = after_rate(10);
        alike.observe(later + Span::from_millis(1), 0);
        assert!(policy.rate_per_second() < before);
        assert!((policy.rate_per_second() - alike.rate_per_second()).abs() < before * 0.01);
    }
}
