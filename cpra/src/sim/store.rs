//! A store that acknowledges late, in groups, and sometimes not for seconds; what it has not acknowledged may be gone
//! after a crash. It reorders nothing: a commit is durable only with all before it.
//!
//! What it holds is the fold of its commits ([`Stored::apply`]), and that is what the next process is given. A disk that is
//! full keeps nothing of what waits when the process dies; one that was merely slow may have kept some of it, although
//! nobody was told. A file that turns out to be damaged is put aside: the next process begins with nothing.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::desk::protocol::{Batch, Stored};
use crate::units::{Instant, Span};

#[derive(Debug)]
pub struct SimStore {
    rng: Rng,
    held: Stored,
    /// Up to which commit.
    kept: u64,
    /// Commits that are written and not yet durable, and when they will be.
    pending: VecDeque<(Batch, Instant)>,
    /// Nothing becomes durable before this.
    stuck_until: Instant,
    /// Nor is anything written.
    full_until: Instant,
    last: u64,
}

/// What is left of one process's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// They hold up to this one.
    pub kept: u64,
    pub lost: usize,
    /// Kept, and the process has not been told.
    pub untold: usize,
}

impl SimStore {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            held: Stored::new(),
            kept: 0,
            pending: VecDeque::new(),
            stuck_until: Instant::ZERO,
            full_until: Instant::ZERO,
            last: 0,
        }
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// In words, when the numbers do not count up by one.
    pub fn commit(&mut self, batch: Batch, now: Instant) -> Result<(), String> {
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
        self.pending.push_back((batch, at));
        Ok(())
    }

    /// The disk stands still until then.
    pub fn stick(&mut self, until: Instant) {
        self.stuck_until = self.stuck_until.max(until);
        for (_, at) in &mut self.pending {
            *at = (*at).max(until);
        }
    }

    /// The disk is full until then: commits fail, and are tried again.
    pub fn fill(&mut self, until: Instant) {
        self.full_until = self.full_until.max(until);
        self.stick(until);
    }

    pub fn next(&self) -> Option<Instant> {
        self.pending.front().map(|(_, at)| *at)
    }

    /// The newest commit that is durable by `now`, if that is news.
    pub fn durable(&mut self, now: Instant) -> Option<u64> {
        let before = self.kept;
        while self.next().is_some_and(|at| at <= now) {
            self.keep_first();
        }
        (self.kept > before).then_some(self.kept)
    }

    fn keep_first(&mut self) {
        let Some((batch, _)) = self.pending.pop_front() else { return };
        for record in &batch.records {
            self.held.apply(record);
        }
        self.kept = batch.sequence;
    }

    /// The process dies. The next one counts from 1 again.
    pub fn crash(&mut self, now: Instant) -> Left {
        let most = if self.full_until > now { 0 } else { self.pending.len() };
        let untold = if self.rng.bool() { self.rng.usize(0..=most) } else { 0 };
        for _ in 0..untold {
            self.keep_first();
        }
        let left = Left { kept: self.kept, lost: self.pending.len(), untold };
        self.pending.clear();
        (self.last, self.kept) = (0, 0);
        left
    }

    /// The file cannot be read any more, between two processes.
    pub fn damage(&mut self) {
        self.held = Stored { trouble: Some("the store was damaged and has been put aside".into()), ..Stored::new() };
    }

    /// What a process that starts now is given.
    pub fn open(&mut self) -> Stored {
        let stored = self.held.clone();
        self.held.trouble = None;
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::protocol::Record;

    fn batch(sequence: u64) -> Batch {
        let monitor = sequence.to_string().into();
        Batch { sequence, records: vec![Record::SeenOk { monitor, definition: 0 }] }
    }

    fn filled(seed: u64) -> SimStore {
        let mut store = SimStore::new(seed);
        for sequence in 1..=10 {
            store.commit(batch(sequence), Instant::ZERO).expect("in order");
        }
        store
    }

    #[test]
    fn durable_in_order_and_lost_at_a_crash() {
        let mut store = filled(1);
        assert!(store.commit(batch(12), Instant::ZERO).is_err());
        let late = Instant::ZERO + Span::from_secs(60);
        let first = store.next().expect("something is pending");
        let durable = store.durable(first).expect("it is due");
        store.fill(late);
        assert_eq!(store.durable(late.before(Span::from_nanos(1))), None);
        let left = store.crash(first);
        assert_eq!(left, Left { kept: durable, lost: 10 - durable as usize, untold: 0 }, "a full disk keeps nothing");
        assert_eq!(store.durable(late), None);
        assert_eq!(store.open().seen_ok.len() as u64, durable);
        store.commit(batch(1), late).expect("another process counts anew");
    }

    #[test]
    fn a_process_that_dies_may_not_know_what_was_kept() {
        let left: Vec<Left> = (0..50).map(|seed| filled(seed).crash(Instant::ZERO)).collect();
        assert!(left.iter().all(|left| left.kept as usize == left.untold && left.untold + left.lost == 10));
        assert!(left.iter().any(|left| left.untold > 0) && left.iter().any(|left| left.lost == 10));
    }

    #[test]
    fn a_damaged_store_is_new_and_says_so_once() {
        let mut store = filled(1);
        store.crash(Instant::ZERO);
        store.damage();
        let stored = store.open();
        assert!(stored.is_new && stored.trouble.is_some() && stored.seen_ok.is_empty());
        assert_eq!(store.open(), Stored::new());
    }
}
