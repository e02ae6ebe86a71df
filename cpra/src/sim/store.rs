//! A store that acknowledges late, in groups, and sometimes not for seconds; what it has not acknowledged is gone
//! after a crash. It reorders nothing: a commit is durable only with all before it.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::desk::protocol::Batch;
use crate::units::{Instant, Span};

#[derive(Debug)]
pub struct SimStore {
    rng: Rng,
    /// Sequences that are written and not yet durable, and when they will be.
    pending: VecDeque<(u64, Instant)>,
    /// Nothing becomes durable before this.
    stuck_until: Instant,
    last: u64,
}

impl SimStore {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), pending: VecDeque::new(), stuck_until: Instant::ZERO, last: 0 }
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// In words, when the numbers do not count up by one.
    pub fn commit(&mut self, batch: &Batch, now: Instant) -> Result<(), String> {
        if batch.sequence != self.last + 1 {
            return Err(format!("commit {} follows commit {}", batch.sequence, self.last));
        }
        self.last = batch.sequence;
        let took = match self.rng.u8(..) {
            0..200 => Span::from_micros(self.rng.u64(100..2_000)),
            200..250 => Span::from_millis(self.rng.u64(2..50)),
            _ => Span::from_millis(self.rng.u64(50..400)),
        };
        let at = (now + took).max(self.stuck_until).max(self.pending.back().map_or(Instant::ZERO, |(_, at)| *at));
        self.pending.push_back((batch.sequence, at));
        Ok(())
    }

    /// The disk stands still until then.
    pub fn stick(&mut self, until: Instant) {
        self.stuck_until = until;
        for (_, at) in &mut self.pending {
            *at = (*at).max(until);
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.pending.front().map(|(_, at)| *at)
    }

    /// The newest commit that is durable by `now`, if that is news.
    pub fn durable(&mut self, now: Instant) -> Option<u64> {
        let mut newest = None;
        while let Some(&(sequence, at)) = self.pending.front() {
            if at > now {
                break;
            }
            newest = Some(sequence);
            self.pending.pop_front();
        }
        newest
    }

    /// The process dies: what was not durable never was. The next process counts from 1 again.
    pub fn crash(&mut self) -> usize {
        let lost = self.pending.len();
        self.pending.clear();
        self.last = 0;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sequence: u64) -> Batch {
        Batch { sequence, records: Vec::new() }
    }

    #[test]
    fn durable_in_order_and_lost_at_a_crash() {
        let mut store = SimStore::new(1);
        let late = Instant::ZERO + Span::from_secs(60);
        for sequence in 1..=10 {
            store.commit(&batch(sequence), Instant::ZERO).expect("in order");
        }
        assert!(store.commit(&batch(12), Instant::ZERO).is_err());
        let first = store.next().expect("something is pending");
        assert!(store.durable(first).is_some_and(|newest| newest >= 1));
        store.stick(late);
        assert_eq!(store.durable(late.before(Span::from_nanos(1))), None);
        assert!(store.crash() > 0);
        assert_eq!(store.durable(late), None);
        store.commit(&batch(1), late).expect("another process counts anew");
    }
}
