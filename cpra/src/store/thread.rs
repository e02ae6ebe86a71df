//! The thread `cpra-store`: takes batches from its queue, makes them durable, and answers with the last number.
//!
//! Everything that waits when it looks is one commit (group commit): while the disk syncs, more gathers, and so the commits
//! get larger instead of later. What cannot be committed stays in the [`Backlog`] and is tried again; nothing is answered
//! until it is durable, and the desk has its own patience.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use super::backlog::Backlog;
use super::database::Database;
use super::fault::Fault;
use super::{Opened, Store};
use crate::desk::protocol::{Batch, Stored};
use crate::os::clock::Clock;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Gauge, Receiver, Sender, bounded};
use crate::shard::protocol::Histogram;
use crate::units::limits::{
    COMMIT_PATIENCE, FAULT_REPORT_EVERY, STORE_HOUSEKEEPING_EVERY, STORE_PRUNE_PAUSE, STORE_RETRY_PAUSE_MAX,
    STORE_RETRY_PAUSE_MIN,
};
use crate::units::{Instant, Span};

/// How soon an answer is offered again to a desk that had no room for it.
const ANSWER_PAUSE: Span = Span::from_millis(10);

/// The desk's side of the store. Dropping `batches` ends it, once it has committed what it was given.
#[derive(Debug)]
pub struct StoreThread {
    pub batches: Sender<Batch>,
    /// Everything up to and including this commit is durable. Several commits may share one answer.
    pub durable: Receiver<u64>,
    pub thread: thread::JoinHandle<()>,
    pub board: Arc<StoreBoard>,
}

/// What the rest of the daemon may read of the store at any time.
#[derive(Debug, Default)]
pub struct StoreBoard {
    stats: Mutex<StoreStats>,
    queue: Option<Gauge>,
}

impl StoreBoard {
    pub fn stats(&self) -> StoreStats {
        let mut stats = self.stats.lock().map(|stats| stats.clone()).unwrap_or_default();
        stats.queued = self.queue.as_ref().map_or(0, Gauge::depth) as u64;
        stats
    }

    fn change(&self, change: impl FnOnce(&mut StoreStats)) {
        if let Ok(mut stats) = self.stats.lock() {
            change(&mut stats);
        }
    }
}

/// What the store has done since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Transactions; each may hold many batches.
    pub commits: u64,
    /// How long they took, from the first record until the disk had it.
    pub commit: Histogram,
    /// Attempts to commit, or to keep the file in order, that failed.
    pub failures: u64,
    /// What is committed survives this process: it is a file, and the last attempt succeeded.
    pub is_durable: bool,
    /// Of the file and its log.
    pub bytes: u64,
    pub last_commit: Option<Instant>,
    /// Since when something waits that is not committed.
    pub waiting_since: Option<Instant>,
    /// Records that wait, and batches in the queue before them.
    pub waiting: u64,
    pub queued: u64,
    /// Records of history that were dropped, because the file could not be written for long.
    pub dropped: u64,
    /// What people have to be told about it, in words.
    pub trouble: Option<Box<str>>,
}

impl StoreStats {
    /// Whether commits succeed soon enough: what waits has not waited longer than notices wait for it.
    pub fn keeps_up(&self, now: Instant) -> bool {
        self.waiting_since.is_none_or(|since| now.since(since) <= COMMIT_PATIENCE)
    }
}

/// Starts the thread. `durable_bell` is that of the thread that will read the answers.
///
/// # Errors
/// When a descriptor or the thread cannot be had.
pub fn spawn(opened: &Stored, store: Store, capacity: usize, durable_bell: Bell) -> io::Result<StoreThread> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let (batches, receiver) = bounded(capacity, bell.clone());
    let (sender, durable) = bounded(capacity, durable_bell);
    let stats = StoreStats {
        is_durable: matches!(store, Store::File(_)),
        trouble: opened.trouble.clone(),
        ..StoreStats::default()
    };
    let board = Arc::new(StoreBoard { stats: Mutex::new(stats), queue: Some(batches.gauge()) });
    let episodes = opened.episodes.iter().map(|episode| episode.id);
    let bundles = opened.bundles.iter().map(|bundle| bundle.id);
    let backlog = Backlog::new(episodes, bundles, opened.outbox.iter().map(|notice| notice.id));
    let keeper = Keeper {
        store,
        backlog,
        receiver,
        sender,
        unanswered: None,
        retry: None,
        next_housekeeping: Instant::ZERO,
        next_report: Instant::ZERO,
        board: Arc::clone(&board),
    };
    let thread = thread::Builder::new().name("cpra-store".into()).spawn(move || keeper.run(&door, &bell))?;
    Ok(StoreThread { batches, durable, thread, board })
}

struct Keeper {
    store: Store,
    backlog: Backlog,
    receiver: Receiver<Batch>,
    sender: Sender<u64>,
    /// The last number says all: what waits for room is replaced, never piled up.
    unanswered: Option<u64>,
    retry: Option<Retry>,
    next_housekeeping: Instant,
    next_report: Instant,
    board: Arc<StoreBoard>,
}

/// After an attempt that failed.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    pause: Span,
    since: Instant,
}

impl Keeper {
    fn run(mut self, door: &WakeFd, bell: &Bell) {
        loop {
            self.take_mail();
            let now = Clock.now();
            if !self.backlog.is_empty() && self.retry.is_none_or(|retry| now >= retry.at) {
                self.commit(now);
            }
            self.answer();
            let now = Clock.now();
            if now >= self.next_housekeeping {
                self.keep_in_order(now);
            }
            if self.receiver.is_finished() && self.is_done() {
                self.finish();
                return;
            }
            let timeout = self.wait_until().map(|at| at.since(Clock.now()));
            let Self { receiver, .. } = &self;
            let may_end = self.is_done();
            bell.sleep(
                || receiver.is_empty() && (!may_end || !receiver.is_closed()),
                || {
                    door.wait(timeout);
                },
            );
        }
    }

    /// Whether nothing is left to do for the desk. What cannot be committed at the end is lost with the process: the desk
    /// has waited for it, as long as it wanted to.
    fn is_done(&self) -> bool {
        (self.backlog.is_empty() || self.retry.is_some()) && (self.unanswered.is_none() || self.sender.is_closed())
    }

    /// At most what the queue holds, so that a fast desk cannot keep it from committing.
    fn take_mail(&mut self) {
        for _ in 0..self.receiver.capacity() {
            let Some(batch) = self.receiver.recv() else { break };
            if self.backlog.is_empty() {
                let now = Clock.now();
                self.board.change(|stats| stats.waiting_since = Some(now));
            }
            self.backlog.push(batch);
        }
        if self.retry.is_some() {
            self.backlog.keep_within_bounds();
        }
    }

    fn commit(&mut self, now: Instant) {
        let batches = self.backlog.next();
        let count = batches.len();
        let mut result = self.store.commit(batches);
        if let (Err(fault), Store::File(file)) = (&result, &mut self.store)
            && let Some(replaced) = mended(file, fault)
        {
            result = replaced.and_then(|trouble| {
                if let Some(trouble) = trouble {
                    tracing::error!("{trouble}");
                    self.board.change(|stats| stats.trouble = Some(trouble));
                }
                file.commit(batches)
            });
        }
        match result {
            Ok(()) => {
                let sequence = self.backlog.committed(count);
                self.unanswered = Some(sequence);
                self.note_commit(now);
            }
            Err(fault) => self.note_failure(&fault, now),
        }
    }

    fn note_commit(&mut self, began: Instant) {
        let now = Clock.now();
        let is_durable = matches!(self.store, Store::File(_));
        if let Some(retry) = self.retry.take() {
            tracing::info!(after = %now.since(retry.since), "the store is written again: everything that waited is durable");
        }
        let (waiting, dropped) = (self.backlog.len() as u64, self.backlog.dropped);
        self.board.change(|stats| {
            stats.commits += 1;
            stats.commit.record(now.since(began));
            stats.is_durable = is_durable;
            stats.last_commit = Some(now);
            stats.waiting_since = (waiting > 0).then_some(now);
            stats.waiting = waiting;
            stats.dropped = dropped;
        });
    }

    fn note_failure(&mut self, fault: &Fault, began: Instant) {
        let now = Clock.now();
        let pause = self.retry.map_or(STORE_RETRY_PAUSE_MIN, |retry| {
            Span::from_nanos(retry.pause.as_nanos().saturating_mul(2)).min(STORE_RETRY_PAUSE_MAX)
        });
        let since = self.retry.map_or(began, |retry| retry.since);
        self.retry = Some(Retry { at: now + pause, pause, since });
        let (waiting, dropped) = (self.backlog.len() as u64, self.backlog.dropped);
        self.board.change(|stats| {
            stats.failures += 1;
            stats.is_durable = false;
            stats.waiting = waiting;
            stats.dropped = dropped;
        });
        self.report(fault, now);
    }

    fn report(&mut self, fault: &Fault, now: Instant) {
        if now < self.next_report {
            return;
        }
        self.next_report = now + FAULT_REPORT_EVERY;
        let Store::File(file) = &self.store else { return };
        tracing::error!(
            path = %file.path().display(),
            error = %fault,
            remedy = fault.remedy(),
            waiting = self.backlog.len(),
            "the store cannot be written: incidents and notices are kept in memory, and would not survive a restart"
        );
    }

    fn answer(&mut self) {
        if let Some(sequence) = self.unanswered
            && (self.sender.send(sequence).is_ok() || self.sender.is_closed())
        {
            self.unanswered = None;
        }
    }

    /// Between commits: each of it takes a few milliseconds, or is put off while there is something to commit.
    fn keep_in_order(&mut self, now: Instant) {
        let Store::File(file) = &mut self.store else {
            self.next_housekeeping = now + FAULT_REPORT_EVERY;
            return;
        };
        let busy = !self.receiver.is_empty() || !self.backlog.is_empty();
        let mut pause = STORE_HOUSEKEEPING_EVERY;
        let mut result = file.checkpoint(busy);
        if !busy && result.is_ok() {
            result = if file.is_there() {
                file.prune(Clock.wall()).map(|more| {
                    if more {
                        pause = STORE_PRUNE_PAUSE;
                    }
                })
            } else {
                Err(Fault::corrupt("it was removed, or another file is in its place"))
            };
        }
        let bytes = file.bytes();
        let mended = result.as_ref().err().and_then(|fault| mended(file, fault));
        self.board.change(|stats| stats.bytes = bytes);
        self.next_housekeeping = now + pause;
        match (result, mended) {
            (Ok(()), _) => {}
            (Err(_), Some(Ok(Some(trouble)))) => {
                tracing::error!("{trouble}");
                self.board.change(|stats| stats.trouble = Some(trouble));
            }
            (Err(fault), Some(Ok(None)) | None) | (Err(_), Some(Err(fault))) => {
                self.board.change(|stats| stats.failures += 1);
                self.report(&fault, now);
            }
        }
    }

    fn wait_until(&self) -> Option<Instant> {
        let answer = self.unanswered.map(|_| Clock.now() + ANSWER_PAUSE);
        let retry = self.retry.filter(|_| !self.backlog.is_empty()).map(|retry| retry.at);
        // Without a retry what is left is committed at once.
        let rest = (!self.backlog.is_empty() && self.retry.is_none()).then_some(Instant::ZERO);
        let order = matches!(self.store, Store::File(_)).then_some(self.next_housekeeping);
        [answer, retry, rest, order].into_iter().flatten().min()
    }

    fn finish(mut self) {
        if !self.backlog.is_empty() {
            tracing::error!(
                records = self.backlog.len(),
                "the store could not be written until the end: a restart does not know of the last incidents and notices"
            );
        }
        if let Store::File(file) = &mut self.store
            && let Err(fault) = file.finish()
        {
            // What is in the log is durable as well; the next start reads it from there.
            tracing::debug!(error = %fault, "the log of the store stays as it is");
        }
    }
}

/// What can be done about a fault at once: another file instead of a damaged one (answers what people have to know), or the
/// same one opened anew. `None`: only time helps.
fn mended(file: &mut Database, fault: &Fault) -> Option<Result<Option<Box<str>>, Fault>> {
    use super::FaultKind::{Busy, Corrupt, Denied, Full, Io, Other, ReadOnly};
    match fault.kind {
        Corrupt => Some(file.replace(fault).map(Some)),
        _ if !file.is_there() => Some(file.replace(fault).map(Some)),
        Io | ReadOnly | Denied | Other => Some(file.reopen().map(|()| None)),
        Full | Busy => None,
    }
}

impl Store {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), Fault> {
        match self {
            Self::Memory => Ok(()),
            Self::File(file) => file.commit(batches),
        }
    }
}

impl Opened {
    /// Starts the thread; see [`spawn`].
    ///
    /// # Errors
    /// When a descriptor or the thread cannot be had.
    pub fn spawn(self, capacity: usize, durable_bell: Bell) -> io::Result<(StoreThread, Stored)> {
        let Self { store, stored } = self;
        Ok((spawn(&stored, store, capacity, durable_bell)?, stored))
    }
}
