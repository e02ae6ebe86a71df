//! The seam between the API and the running daemon: everything the API may know, and nothing else.
//!
//! Snapshots (counters, queues, readiness) are plain reads. Questions go to a shard or to the desk through a bounded
//! queue and come back through a oneshot channel; a full queue is [`AskError::Full`], never a wait.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::reload;
use crate::desk::DeskStats;
use crate::desk::protocol::{Answer, OutboxChange, Question, Selection};
use crate::domain::{Color, Destination};
use crate::os::histograms::{Dump, DumpError};
use crate::os::resolve::ResolverStats;
use crate::queueing::{Goal, Report, Setup};
use crate::shard::ShardStats;
use crate::shard::protocol::{MonitorState, SUSPECTS};
use crate::store::{Reader, StoreStats};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

/// What became of pings: answered, not, or not sent because the daemon was not healthy.
pub const PINGS: [&str; 3] = ["answered", "failed", "withheld"];

/// A question on its way; the API waits [`crate::units::limits::API_ASK_MAX`] for the answer.
pub type Asked<T> = Result<oneshot::Receiver<T>, AskError>;

/// What the API needs from the daemon. Called on the API's thread; nothing here may block.
pub trait Source: Send + Sync + 'static {
    /// The daemon's name: part of every incident key.
    fn instance(&self) -> &str;
    /// What is loaded now. A reload swaps it; a request holds on to the one it began with.
    fn catalog(&self) -> Arc<Catalog>;
    /// The counters of all shards, merged.
    fn shard_stats(&self) -> ShardStats;
    fn desk_stats(&self) -> DeskStats;
    fn resolver_stats(&self) -> ResolverStats;
    fn store_stats(&self) -> StoreStats;
    /// Where the past can be read, if anything is kept of it. A question there blocks for a disk: not on the API's thread.
    fn history(&self) -> Option<Reader>;
    /// How the pipelines are sized and what they do: `pulse`, `code`.
    fn pipelines(&self) -> Vec<Pipeline>;
    /// Whether the shards and the desk advance, else what stands still and since when.
    ///
    /// # Errors
    /// In words for people.
    fn alive(&self) -> Result<(), String>;
    fn readiness(&self) -> Readiness;
    /// When the daemon started.
    fn started(&self) -> Instant;
    fn now(&self) -> Instant;
    fn wall_of(&self, instant: Instant) -> Timestamp;
    /// The states of some monitors of one shard (indices of [`Source::catalog`]), in any order. At most
    /// [`crate::units::limits::REPORT_SLICE_MAX`] at a time.
    ///
    /// # Errors
    /// When the question cannot even be asked.
    fn states(&self, shard: u8, indices: Vec<u32>) -> Asked<Vec<MonitorState>>;
    /// # Errors
    /// When the question cannot even be asked.
    fn desk(&self, question: Question) -> Asked<Answer>;
    /// Has notices of the outbox tried again or dropped; `who` is for the audit. Answered by [`Answer::Changed`].
    ///
    /// # Errors
    /// When the wish cannot even be handed over.
    fn change_outbox(&self, change: OutboxChange, selection: Selection, who: &str) -> Asked<Answer>;
    /// Sends a marked notice through the outbox. Answered by [`Answer::Queued`].
    ///
    /// # Errors
    /// When the wish cannot even be handed over.
    fn test(&self, destination: Arc<Destination>, color: Color, who: &str) -> Asked<Answer>;
    /// Pings of the dead man's switch, in the order of [`PINGS`].
    fn pings(&self) -> [u64; PINGS.len()];
    /// `[providers.NAME]`, whether or not a monitor names them.
    fn providers(&self) -> Vec<Arc<Destination>>;
    /// Writes the histograms down now.
    ///
    /// # Errors
    /// When the wish cannot even be handed over.
    fn dump_histograms(&self) -> Asked<Result<Dump, DumpError>>;
    /// Dumps of histograms that were written, and that could not be.
    fn dump_stats(&self) -> [u64; 2];
    /// The monitor whose job calls with this token.
    fn push_target(&self, token: &str) -> Option<MonitorId>;
    /// A job has called. It is judged by the shard, soon after.
    ///
    /// # Errors
    /// When the call cannot be handed over.
    fn push(&self, monitor: MonitorId, ok: bool, message: Box<str>) -> Result<(), AskError>;
    /// Check this monitor now instead of at its next due time.
    ///
    /// # Errors
    /// When the wish cannot be handed over.
    fn check_now(&self, monitor: MonitorId) -> Result<(), AskError>;
    /// Reads the files again, after those who wished it before.
    ///
    /// # Errors
    /// When the wish cannot be handed over.
    fn reload(&self, wish: reload::Wish) -> Asked<reload::Report>;
    /// What came of it so far.
    fn reloads(&self) -> reload::Board;
    /// Watch this monitor, or do not. Done before the desk answers what it is asked afterwards.
    ///
    /// # Errors
    /// When the wish cannot be handed over.
    fn switch(&self, monitor: MonitorId, enabled: bool) -> Result<(), AskError>;
}

/// One pipeline, over all of its threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    pub name: &'static str,
    pub setup: Setup,
    /// Jobs that have been started and have not ended.
    pub in_flight: u64,
    /// Jobs that wait, wherever they do so.
    pub waiting: u64,
    /// The most that may wait.
    pub capacity: usize,
    /// What has workers of its own.
    pub classes: Vec<Report>,
}

impl Pipeline {
    /// The workers that there are, with a job or without one.
    pub fn workers(&self) -> u64 {
        self.classes.iter().map(|class| u64::from(class.workers)).sum()
    }

    /// The workers with a job.
    pub fn busy(&self) -> u64 {
        self.classes.iter().map(|class| u64::from(class.demand.busy)).sum()
    }

    pub fn is_unreachable(&self) -> bool {
        self.classes.iter().any(|class| class.unreachable)
    }

    /// What is nearest to breaking the promise, or farthest beyond it. Only what was measured counts, and suspects do not:
    /// they wait for one another.
    pub fn tightest(&self) -> Option<Tightness> {
        let of = |class: &Report| {
            let (percentile, measured, goal, is_wait) = match class.answer.goal {
                Goal::Result(goal) => {
                    let (percentile, measured) = class.results.at_least(self.setup.slo.percentile);
                    (percentile, measured, goal, false)
                }
                Goal::Wait(goal) => {
                    let (percentile, measured) = class.waits.at_least(self.setup.slo.percentile);
                    (percentile, measured, goal, true)
                }
            };
            let counts = class.class != SUSPECTS && class.results.known().is_some();
            counts.then_some(Tightness { class: class.class, is_wait, percentile, measured, goal })
        };
        let used = |tightness: &Tightness| tightness.measured.as_secs_f64() / tightness.goal.as_secs_f64();
        self.classes.iter().filter_map(of).max_by(|a, b| used(a).total_cmp(&used(b)))
    }
}

/// What was measured of a class, against what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tightness {
    pub class: &'static str,
    /// Of the wait for a worker, instead of the time until the result.
    pub is_wait: bool,
    /// The percentile that was measured: the promised one, or the next that is kept.
    pub percentile: &'static str,
    pub measured: Span,
    pub goal: Span,
}

/// Whether the daemon does its work in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// What the preflight found: worth knowing, also when ready.
    pub findings: Vec<Finding>,
}

/// One line of the preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `RLIMIT_NOFILE`, `io_uring`.
    pub subject: String,
    pub text: String,
    /// What a person can do about it; empty when nothing has to be done.
    pub remedy: String,
}

/// Why a question was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("too many questions are waiting for an answer")]
    Full,
    #[error("the daemon is stopping")]
    Stopping,
}
