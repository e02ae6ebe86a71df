//! How much may leave in a second: a rate, and a small burst beyond it.
//!
//! A bucket of tokens, kept as the time at which all that was taken is paid for (the generic cell rate algorithm): one
//! packet costs a fixed time, and as many may be taken in advance as a twentieth of a second's are, or the requests of one
//! check if that is more: a check whose requests never fit would never be judged. The rate is what is left of the bound when
//! the burst is taken off, so that no second whatever, wherever it begins, has more than the bound.
//!
//! Time comes in. What is not taken is lost but for the burst: an idle hour buys nothing.

use crate::units::{Instant, Span};

/// One part in so many of a second's may leave at once.
const BURST: u32 = 20;
/// And so many, as far as they are no more than half of a second's.
const BURST_MIN: u32 = 32;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Of one.
    cost: Span,
    /// How far what was taken may be ahead of the time.
    ahead: Span,
    paid_until: Instant,
}

impl Allowance {
    /// At most `most` in any second, and two at least.
    pub fn per_second(most: u32) -> Self {
        let most = most.max(2);
        let burst = (most / BURST).max(BURST_MIN.min(most / 2));
        let cost = Span::from_nanos(SECOND.div_ceil(u64::from(most - burst)));
        Self { cost, ahead: cost.scaled(u64::from(burst), 1), paid_until: Instant::ZERO }
    }

    /// How many may be taken now.
    pub fn left(&self, now: Instant) -> u32 {
        let owed = self.paid_until.since(now);
        let room = self.ahead.as_nanos().saturating_sub(owed.as_nanos());
        u32::try_from(room / self.cost.as_nanos().max(1)).unwrap_or(u32::MAX)
    }

    /// When there will be one to be taken.
    pub fn next(&self, now: Instant) -> Instant {
        now.max((self.paid_until + self.cost).before(self.ahead))
    }

    /// Takes as many. Whoever takes more than is left owes it, and the others wait for it.
    pub fn take(&mut self, count: u32, now: Instant) {
        self.paid_until = self.paid_until.max(now) + self.cost.scaled(u64::from(count), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_bound_however_they_are_asked_for() {
        for most in [2, 3, 7, 64, 100, 1_000, 33_333] {
            let mut rng = fastrand::Rng::with_seed(u64::from(most));
            let mut allowance = Allowance::per_second(most);
            let mut now = Instant::ZERO + Span::from_secs(9);
            let mut left: Vec<u64> = Vec::new();
            for _ in 0..8 * most.max(1_000) {
                // Idle at times, and greedy at others.
                now += Span::from_nanos(match rng.u32(0..4 * most) {
                    0 => rng.u64(0..2 * SECOND),
                    _ => rng.u64(0..2 * SECOND / u64::from(most)),
                });
                let count = allowance.left(now).min(rng.u32(0..8));
                allowance.take(count, now);
                left.extend((0..count).map(|_| now.as_nanos()));
            }
            let mut first = 0;
            let mut busiest = 0;
            for (last, &at) in left.iter().enumerate() {
                while left[first] + SECOND <= at {
                    first += 1;
                }
                busiest = busiest.max(last + 1 - first);
            }
            assert!(busiest <= most as usize, "{busiest} in a second, at most {most}");
            assert!(busiest * 10 >= most as usize * 8 || most < 10, "{busiest} in a second, of {most}");
        }
    }

    #[test]
    fn whoever_waits_is_told_for_how_long() {
        let mut allowance = Allowance::per_second(1_000);
        let now = Instant::ZERO + Span::from_secs(1);
        assert_eq!((allowance.left(now), allowance.next(now)), (50, now), "a twentieth at once");
        allowance.take(50, now);
        assert_eq!(allowance.left(now), 0);
        let next = allowance.next(now);
        assert!(next > now && next.since(now) < Span::from_micros(1_100), "{next:?}");
        assert_eq!((allowance.left(next), allowance.left(next.before(Span::from_nanos(1)))), (1, 0));
        // A long rest buys no more than the burst.
        assert_eq!(allowance.left(now + Span::from_secs(3_600)), 50);
    }

    #[test]
    fn the_requests_of_one_check_fit_however_little_there_is() {
        let now = Instant::ZERO + Span::from_secs(1);
        for (most, burst) in [(2, 1), (10, 5), (64, 32), (200, 32), (640, 32), (1_000, 50)] {
            assert_eq!(Allowance::per_second(most).left(now), burst, "{most}");
        }
    }
}
