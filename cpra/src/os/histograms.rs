//! The writer of histograms: thread `cpra-histogram`.
//!
//! ```text
//!  shards ──Exchange──┐
//!  code ──────────────┴─▶ Gathered ──every interval, or when asked──▶ interval log (and texts, when asked)
//! ```
//! Every interval it asks the shards for what they have recorded and puts it together. With a folder in the settings
//! that is appended to a log there; without one it is kept until somebody wants it (SIGUSR1, the API), and is then
//! written to the state folder. A dump that somebody wants ends the interval: nothing is in two of them.
//!
//! What cannot be written is kept, and is part of the next dump. A shard that does not answer is left out; its answer
//! is part of the next dump, too. Only this thread waits for the disk: one that hangs costs dumps, and nothing else.
//!
//! When full: wishes beyond [`QUEUE_DUMPS`] are refused. Logs end by age and size, and the oldest are removed
//! ([`folder`]).

mod folder;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use self::folder::Folder;
use super::clock::Clock;
use super::shard_loop::{Exchange, ShardBoard};
use crate::domain::Provider;
use crate::pipeline::Sender;
use crate::queueing::recording::{Gathered, Measure, Recording, header};
use crate::shard::Shard;
use crate::units::limits::{FAULT_REPORT_EVERY, HISTOGRAM_GATHER_MAX, HISTOGRAM_SHARD_WAIT, QUEUE_DUMPS};
use crate::units::{Instant, Span, Timestamp};

/// The writer's thread.
pub const THREAD: &str = "cpra-histogram";
/// Where dumps go that nobody has named a folder for: below the state folder.
const FOLDER: &str = "histograms";

#[derive(Clone, Debug)]
pub struct Settings {
    /// Where a log is written to all the time; without it only when somebody wants a dump.
    pub dir: Option<PathBuf>,
    pub interval: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { dir: None, interval: Span::from_secs(60) }
    }
}

impl Settings {
    /// Where a dump goes.
    pub fn folder(&self, state_dir: &std::path::Path) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| state_dir.join(FOLDER))
    }
}

/// The way to a shard's recording.
pub struct Source {
    pub exchanges: Sender<Exchange>,
    /// Where the last one is, when the shard has ended.
    pub board: Arc<ShardBoard>,
}

/// A recording of a pipeline that has few jobs: a lock costs it nothing.
#[derive(Clone, Debug)]
pub struct SharedRecording(Arc<Mutex<Recording>>);

impl SharedRecording {
    /// For what notices take, by the type of their destination.
    pub fn of_notices() -> Self {
        Self(Arc::new(Mutex::new(Recording::new("code", Provider::NAMES))))
    }

    /// See [`Recording::record`].
    pub fn record(&self, class: usize, measure: Measure, time: Span) {
        if let Ok(mut recording) = self.0.lock() {
            recording.record(class, measure, time);
        }
    }
}

/// What somebody gets who wanted a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The log; none when nothing had been recorded.
    pub file: Option<PathBuf>,
    /// What of it is written as text beside it.
    pub texts: Vec<PathBuf>,
    pub from: Timestamp,
    pub length: Span,
    /// Each series by its tag, and how many times it holds.
    pub series: Vec<(String, u64)>,
    /// Shards that did not answer.
    pub silent: Vec<usize>,
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {}: {error}", folder.display())]
pub struct DumpError {
    pub folder: PathBuf,
    pub error: io::Error,
}

/// Where an answer goes.
pub type Reply = Box<dyn FnOnce(Result<Dump, DumpError>) + Send>;

enum Request {
    Dump(Reply),
    End,
}

/// Dumps by how they went.
#[derive(Debug, Default)]
pub struct DumpBoard {
    pub written: AtomicU64,
    pub failed: AtomicU64,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub struct Writer {
    requests: SyncSender<Request>,
    pub board: Arc<DumpBoard>,
}

/// Why a wish was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    Ended,
}

impl Writer {
    /// Wants a dump now.
    ///
    /// # Errors
    /// When too many others do, or when the writer has ended.
    pub fn dump(&self, reply: Reply) -> Result<(), Refused> {
        self.requests.try_send(Request::Dump(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Ended,
        })
    }

    /// Wants a dump now, and its result in the log.
    pub fn dump_and_tell(&self) {
        let reply = |dump: Result<Dump, DumpError>| match dump {
            Ok(Dump { file: Some(file), series, .. }) => {
                tracing::info!(file = %file.display(), series = series.len(), "histograms are written");
            }
            Ok(_) => tracing::info!("no histograms are written: nothing has ended since the last time"),
            // The writer has told it.
            Err(_) => {}
        };
        match self.dump(Box::new(reply)) {
            Ok(()) | Err(Refused::Ended) => {}
            Err(Refused::Full) => tracing::warn!("too many dumps of histograms are wanted: this one is left out"),
        }
    }

    /// Writes what is there, if there is a log, and ends. It does so as well when the last way to it is gone.
    pub fn end(&self) {
        // Full of wishes, it is not waited for.
        let _ = self.requests.try_send(Request::End);
    }
}

/// Starts the writer.
///
/// # Errors
/// When the thread cannot be had.
pub fn spawn(
    settings: &Settings,
    folder: PathBuf,
    instance: &str,
    shards: Vec<Source>,
    code: SharedRecording,
) -> io::Result<(Writer, JoinHandle<()>)> {
    let (requests, receiver) = mpsc::sync_channel(QUEUE_DUMPS);
    let board = Arc::new(DumpBoard::default());
    let writer = format!("cpra {}, instance {instance}", env!("CARGO_PKG_VERSION"));
    let gatherer = Gatherer::new(shards, code);
    let state = WriterLoop {
        requests: receiver,
        is_periodic: settings.dir.is_some(),
        interval: settings.interval,
        gatherer,
        folder: Folder::new(folder, Box::new(move |start| header(&writer, start))),
        since: (Clock.now(), Clock.wall()),
        told: None,
        board: Arc::clone(&board),
    };
    let thread = thread::Builder::new().name(THREAD.into()).spawn(move || state.run())?;
    Ok((Writer { requests, board }, thread))
}

/// Asks the shards.
struct Gatherer {
    shards: Vec<Source>,
    code: SharedRecording,
    /// Who has been asked and has not answered.
    asked: Vec<bool>,
    /// Emptied, with their memory, for the next exchange.
    spare: Vec<Recording>,
    answers: (mpsc::Sender<Answer>, Receiver<Answer>),
    gathered: Gathered,
}

type Answer = (usize, Recording);

impl Gatherer {
    fn new(shards: Vec<Source>, code: SharedRecording) -> Self {
        Self {
            asked: vec![false; shards.len()],
            shards,
            code,
            spare: Vec::new(),
            answers: mpsc::channel(),
            gathered: Gathered::default(),
        }
    }

    /// Takes what all have recorded since the last time. Answers with the shards that did not answer.
    fn gather(&mut self) -> Vec<usize> {
        let deadline = Clock.now() + HISTOGRAM_SHARD_WAIT;
        while let Ok(answer) = self.answers.1.try_recv() {
            self.take(answer);
        }
        for shard in 0..self.shards.len() {
            self.ask(shard);
        }
        while self.asked.contains(&true) {
            let left = deadline.since(Clock.now());
            let Ok(answer) = self.answers.1.recv_timeout(left.into()) else { break };
            self.take(answer);
        }
        if let Ok(mut recording) = self.code.0.lock() {
            self.gathered.take(&mut recording);
        }
        let silent: Vec<usize> = (0..self.shards.len()).filter(|shard| self.asked[*shard]).collect();
        if !silent.is_empty() {
            tracing::warn!(shards = ?silent, "histograms of shards that did not answer are part of the next dump");
        }
        silent
    }

    fn ask(&mut self, shard: usize) {
        let Source { exchanges, board } = &mut self.shards[shard];
        if exchanges.is_closed() {
            // What it was asked for is gone with it, or is there already.
            self.asked[shard] = false;
            let last = board.last_recording.lock().ok().and_then(|mut last| last.take());
            if let Some(mut last) = last {
                self.gathered.take(&mut last);
            }
            return;
        }
        if self.asked[shard] {
            return;
        }
        let sender = self.answers.0.clone();
        let reply = Box::new(move |recording| drop(sender.send((shard, recording))));
        let empty = self.spare.pop().unwrap_or_else(Shard::empty_recording);
        // The queue holds one, and the one before has been answered.
        self.asked[shard] = exchanges.send(Exchange { empty, reply }).is_ok();
    }

    fn take(&mut self, (shard, mut recording): Answer) {
        self.asked[shard] = false;
        self.gathered.take(&mut recording);
        self.spare.push(recording);
    }
}

struct WriterLoop {
    requests: Receiver<Request>,
    is_periodic: bool,
    interval: Span,
    gatherer: Gatherer,
    folder: Folder,
    /// Since when what is gathered has been recorded.
    since: (Instant, Timestamp),
    /// When people were last told that it cannot be written.
    told: Option<Instant>,
    board: Arc<DumpBoard>,
}

impl WriterLoop {
    fn run(mut self) {
        let gather_every = self.interval.min(HISTOGRAM_GATHER_MAX);
        let mut next = Clock.now() + gather_every;
        let mut next_write = Clock.now() + self.interval;
        loop {
            let left = next.since(Clock.now());
            match self.requests.recv_timeout(left.into()) {
                Ok(Request::Dump(reply)) => {
                    let silent = self.gatherer.gather();
                    reply(self.dump(silent));
                }
                Err(RecvTimeoutError::Timeout) => {
                    // After a hang the intervals that have passed are one.
                    let now = Clock.now();
                    next = now + gather_every;
                    self.gatherer.gather();
                    if self.is_periodic && now >= next_write {
                        next_write = now + self.interval;
                        let _ = self.write();
                    }
                }
                Ok(Request::End) | Err(RecvTimeoutError::Disconnected) => {
                    if self.is_periodic {
                        self.gatherer.gather();
                        let _ = self.write();
                    }
                    return;
                }
            }
        }
    }

    /// Writes what is gathered, and a text for each series beside it.
    fn dump(&mut self, silent: Vec<usize>) -> Result<Dump, DumpError> {
        let (at, from) = self.since;
        let length = Clock.now().since(at);
        let gathered = &self.gatherer.gathered;
        let series: Vec<_> = gathered.series().map(|(tag, times)| (tag.to_string(), times.count())).collect();
        let span = format!("#[From {from}, for {:.3} s; values are in milliseconds]\n", length.as_secs_f64());
        let texts: Vec<_> = gathered.series().map(|(tag, times)| (tag.to_string(), times.text() + &span)).collect();
        let file = self.write()?;
        let mut written = Vec::new();
        if file.is_some() {
            match self.folder.write_texts(Clock.wall(), &texts) {
                Ok(paths) => written = paths,
                Err(error) => self.tell(&error),
            }
        }
        Ok(Dump { file, texts: written, from, length, series, silent })
    }

    /// Appends what is gathered to the log, and forgets it. Nothing to write is no fault.
    fn write(&mut self) -> Result<Option<PathBuf>, DumpError> {
        let (now, wall) = (Clock.now(), Clock.wall());
        let (at, from) = self.since;
        let lines = self.gatherer.gathered.log_lines(from, now.since(at));
        if lines.is_empty() {
            self.since = (now, wall);
            return Ok(None);
        }
        match self.folder.append(wall, from, &lines) {
            Ok(path) => {
                self.gatherer.gathered.clear();
                self.since = (now, wall);
                self.told = None;
                self.board.written.fetch_add(1, Ordering::Relaxed);
                Ok(Some(path))
            }
            Err(error) => {
                self.board.failed.fetch_add(1, Ordering::Relaxed);
                self.tell(&error);
                Err(DumpError { folder: self.folder.path().to_owned(), error })
            }
        }
    }

    fn tell(&mut self, error: &io::Error) {
        let now = Clock.now();
        if self.told.is_some_and(|told| now.since(told) < FAULT_REPORT_EVERY) {
            return;
        }
        self.told = Some(now);
        tracing::warn!(
            folder = %self.folder.path().display(), %error,
            "histograms cannot be written, and are kept for the next dump: make room there and let this user write, \
             or name another folder with [histograms] dir"
        );
    }
}
