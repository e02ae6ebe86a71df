//! The store that remembers nothing: it acknowledges from memory, on the thread `cpra-store`.
//!
//! It stands in for the one on disk, at the same seam and on a thread of its own, so that commits already take the way
//! that they will take: through a queue, and back as an event. Records are dropped once their numbers are checked, so that
//! nothing grows; after a restart every monitor is unknown, and open episodes are forgotten.

use std::io;
use std::thread;

use crate::desk::protocol::Batch;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::units::Span;

/// How soon an answer is offered again to a desk that had no room for it.
const ANSWER_PAUSE: Span = Span::from_millis(10);

#[derive(Debug, Default)]
pub struct MemoryStore {
    /// The last commit's number.
    sequence: u64,
}

impl MemoryStore {
    /// Returns up to which number everything is durable.
    ///
    /// # Panics
    /// If a number was left out or came twice: then a commit is lost, and nothing may go on as if it were not.
    #[expect(clippy::needless_pass_by_value, reason = "the store on disk keeps what it is given; so does the seam")]
    pub fn commit(&mut self, batch: Batch) -> u64 {
        assert_eq!(batch.sequence, self.sequence + 1, "commits count up from 1 without gaps");
        self.sequence = batch.sequence;
        self.sequence
    }
}

/// The desk's side of the store. Dropping `batches` ends it, once it has committed what it was given.
#[derive(Debug)]
pub struct StoreThread {
    pub batches: Sender<Batch>,
    /// Everything up to and including this commit is durable. Several commits may share one answer.
    pub durable: Receiver<u64>,
    pub thread: thread::JoinHandle<()>,
}

/// Starts the thread. `durable_bell` is that of the thread that will read the answers.
///
/// # Errors
/// When a descriptor or the thread cannot be had.
pub fn spawn(capacity: usize, durable_bell: Bell) -> io::Result<StoreThread> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let (batches, mut receiver) = bounded(capacity, bell.clone());
    let (mut sender, durable) = bounded(capacity, durable_bell);
    let thread = thread::Builder::new().name("cpra-store".into()).spawn(move || {
        let mut store = MemoryStore::default();
        let mut unanswered = None;
        loop {
            while let Some(batch) = receiver.recv() {
                // The last number says all: what waits for room is replaced, never piled up.
                unanswered = Some(store.commit(batch));
            }
            if let Some(sequence) = unanswered
                && (sender.send(sequence).is_ok() || sender.is_closed())
            {
                unanswered = None;
            }
            if receiver.is_finished() && unanswered.is_none() {
                return;
            }
            let timeout = unanswered.map(|_| ANSWER_PAUSE);
            bell.sleep(
                || receiver.is_empty() && (unanswered.is_some() || !receiver.is_closed()),
                || {
                    door.wait(timeout);
                },
            );
        }
    })?;
    Ok(StoreThread { batches, durable, thread })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sequence: u64) -> Batch {
        Batch { sequence, records: vec![] }
    }

    #[test]
    #[should_panic(expected = "without gaps")]
    fn a_gap_is_a_defect() {
        let mut store = MemoryStore::default();
        assert_eq!(store.commit(batch(1)), 1);
        store.commit(batch(3));
    }

    #[test]
    fn every_commit_is_acknowledged_even_through_a_narrow_queue() {
        let mut store = spawn(2, Bell::mute()).unwrap();
        let mut last = 0;
        for sequence in 1..=1_000 {
            let mut waiting = batch(sequence);
            while let Err(back) = store.batches.send(waiting) {
                waiting = back;
                thread::yield_now();
            }
            if sequence % 3 == 0 {
                while let Some(durable) = store.durable.recv() {
                    assert!(durable > last && durable <= sequence);
                    last = durable;
                }
            }
        }
        drop(store.batches);
        while !store.durable.is_finished() {
            last = store.durable.recv().unwrap_or(last);
        }
        store.thread.join().unwrap();
        assert_eq!(last, 1_000);
    }
}
