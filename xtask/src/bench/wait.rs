//! How long the reference loop sleeps in its ring, by the daemon's own rule: a comparison of loops that wait differently
//! compares the waiting.
//!
//! The batch is what the recent rate fills within [`DELAY_MAX`]; a rate that fills none in that time is not batched.
//! Kept to the shape of the daemon's `WaitPolicy`, so that it can stand in its place.

use cpra::ring::Wait;
use cpra::units::limits::FLIGHT_WAIT_MAX;
use cpra::units::{Instant, Span};

/// The longest that batching may hold back a completion.
const DELAY_MAX: Span = Span::from_millis(1);
/// Beyond this, larger batches gain nothing.
const BATCH_MAX: u32 = 256;
/// Time over which the rate is averaged.
const MEMORY: Span = Span::from_millis(20);

pub(crate) struct WaitPolicy {
    /// Completions per nanosecond, an exponentially weighted average over [`MEMORY`].
    rate: f64,
    /// Completions since `counted`.
    pending: u64,
    counted: Instant,
}

impl WaitPolicy {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { rate: 0.0, pending: 0, counted: now }
    }

    /// Tells how many completions the last round brought.
    pub(crate) fn observe(&mut self, now: Instant, completions: usize) {
        self.pending += completions as u64;
        let elapsed = now.since(self.counted).as_nanos() as f64;
        if elapsed < DELAY_MAX.as_nanos() as f64 / 4.0 {
            return;
        }
        let weight = 1.0 - (-elapsed / MEMORY.as_nanos() as f64).exp();
        self.rate += weight * (self.pending as f64 / elapsed - self.rate);
        self.pending = 0;
        self.counted = now;
    }

    /// What to wait for, with `in_flight` operations pending and the next thing to do at `deadline`.
    pub(crate) fn wait(&self, now: Instant, in_flight: usize, deadline: Option<Instant>) -> Wait {
        let bound = deadline.map_or(FLIGHT_WAIT_MAX, |deadline| deadline.since(now).min(FLIGHT_WAIT_MAX));
        if bound == Span::ZERO {
            return Wait::NONE;
        }
        let filled = (self.rate * DELAY_MAX.as_nanos() as f64).min(f64::from(BATCH_MAX)) as u32;
        let batch = filled.min(u32::try_from(in_flight).unwrap_or(u32::MAX));
        if batch < 2 { Wait { batch: 1, bound } } else { Wait { batch, bound: bound.min(DELAY_MAX) } }
    }
}
