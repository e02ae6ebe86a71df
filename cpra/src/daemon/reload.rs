//! Thread `cpra-load`: reads the files again, and has the daemon go over to what they say.
//!
//! ```text
//!  SIGHUP, POST /api/v1/reload ──▶ wish ──▶ read ──▶ compare ──▶ refuse? ──▶ shards ──▶ desk ──▶ API
//!                                            └ an error, or too much would go: the running monitors stay
//! ```
//! One reload at a time, and the next one begins only when every shard and the desk have let go of the catalog before:
//! that is what makes it safe to give an index to another monitor ([`crate::world::catalog`]). The order is part of it. The
//! shards come first, and say when nothing by the old catalog comes from them any more; then the desk, which takes what
//! they have said before it takes the new catalog; then the API, whose questions are about monitors that all of them know.
//!
//! What it does not do: it never ends or restarts anything. A wish that cannot be met is refused with the place and the
//! remedy, and what runs goes on.
//!
//! Full: [`RELOADS_WAITING_MAX`] wishes wait, more are refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use super::shards::ShardHandle;
use crate::api;
use crate::api::reload::{Board, Outcome, Report, Wish};
use crate::domain::Destination;
use crate::os::clock::Clock;
use crate::os::desk_loop::{self, DeskBoard};
use crate::os::shard_loop::ShardBoard;
use crate::pipeline::Sender;
use crate::shard;
use crate::units::limits::{
    FAULT_REPORT_EVERY, RELOAD_NAMES_MAX, RELOAD_REMOVED_MAX, RELOAD_REMOVED_PERCENT_MAX, RELOADS_WAITING_MAX,
};
use crate::units::{Instant, Span};
use crate::wire::tls::Contexts;
use crate::world::{Catalog, Changes, Counts, Tokens, What};

/// Where monitors come from: read at the start, and again when somebody wishes it.
pub trait Files: Send {
    /// Reads all of it anew, as what follows `running`.
    ///
    /// # Errors
    /// When there is anything wrong with it.
    fn read(&mut self, running: &Catalog) -> Result<Fresh, Refused>;
}

/// What the files say now.
pub struct Fresh {
    pub catalog: Catalog,
    pub contexts: Arc<dyn Contexts>,
    /// Who can be told by name, and who hears of the daemon itself.
    pub providers: Vec<Arc<Destination>>,
    pub fallback: Arc<Destination>,
    /// Where this host is near its limits with it.
    pub findings: Vec<api::Finding>,
    /// What is worth knowing: warnings, keys that count from the next start on.
    pub notes: Vec<String>,
}

/// Why the files cannot be what runs.
#[derive(Debug, Default)]
pub struct Refused {
    pub errors: Vec<String>,
    pub remedy: String,
}

/// What was loaded, as the API sees it.
pub(super) struct Loaded {
    pub(super) catalog: Arc<Catalog>,
    /// Of the catalog.
    pub(super) tokens: Tokens,
    key: [u64; 2],
    /// `[providers.NAME]`: those that people can ask for by name.
    pub(super) providers: Vec<Arc<Destination>>,
    pub(super) findings: Vec<api::Finding>,
}

/// A wish, and who wants to hear what came of it.
pub(super) struct Order {
    pub(super) wish: Wish,
    pub(super) reply: Option<Box<dyn FnOnce(Report) + Send>>,
}

/// Where a new catalog goes.
pub(super) struct Ends {
    pub(super) shards: Vec<Sender<shard::Reload>>,
    pub(super) desk: Sender<desk_loop::Reload>,
    pub(super) desk_board: Arc<DeskBoard>,
}

/// What the thread shares with those who wish, and with those who look.
#[derive(Clone)]
pub(super) struct Reloads {
    /// What runs: replaced by a reload, and held by each request for as long as it takes.
    loaded: Arc<Mutex<Arc<Loaded>>>,
    board: Arc<Mutex<Board>>,
    orders: mpsc::SyncSender<Order>,
}

/// The body of the thread.
pub(super) struct Loader {
    files: Option<Box<dyn Files>>,
    orders: mpsc::Receiver<Order>,
    ends: Ends,
    shards: Vec<Arc<ShardBoard>>,
    loaded: Arc<Mutex<Arc<Loaded>>>,
    board: Arc<Mutex<Board>>,
    stopping: Arc<AtomicBool>,
}

impl Loaded {
    /// `key` must not be known outside of the process.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        providers: Vec<Arc<Destination>>,
        findings: Vec<api::Finding>,
        key: [u64; 2],
    ) -> Self {
        let tokens = Tokens::of(&catalog, key);
        Self { catalog, tokens, key, providers, findings }
    }
}

impl Reloads {
    pub(super) fn loaded(&self) -> Arc<Loaded> {
        // It is replaced whole, so that a thread that panicked with it has left it sound.
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn board(&self) -> Board {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn order(&self, order: Order) -> Result<(), api::AskError> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => api::AskError::Full,
            mpsc::TrySendError::Disconnected(_) => api::AskError::Stopping,
        })
    }
}

impl Loader {
    pub(super) fn new(
        files: Option<Box<dyn Files>>,
        first: Loaded,
        ends: Ends,
        shards: &[ShardHandle],
        stopping: Arc<AtomicBool>,
    ) -> (Self, Reloads) {
        let (sender, orders) = mpsc::sync_channel(RELOADS_WAITING_MAX);
        let (loaded, board) = (Arc::new(Mutex::new(Arc::new(first))), Arc::<Mutex<Board>>::default());
        let reloads = Reloads { loaded: Arc::clone(&loaded), board: Arc::clone(&board), orders: sender };
        let shards = shards.iter().map(|shard| Arc::clone(&shard.board)).collect();
        (Self { files, orders, ends, shards, loaded, board, stopping }, reloads)
    }

    /// Does what is wished, until nobody can wish anything any more: in the daemon, until the process ends.
    pub(super) fn run(mut self) {
        while let Ok(Order { wish, reply }) = self.orders.recv() {
            let report = self.reload(&wish);
            tell(&report);
            self.board.lock().unwrap_or_else(PoisonError::into_inner).note(&report);
            if let Some(reply) = reply {
                reply(report);
            }
        }
    }

    fn reload(&mut self, wish: &Wish) -> Report {
        let began = Clock.now();
        let mut report = Report {
            at: Clock.wall(),
            who: wish.who.clone(),
            dry_run: wish.dry_run,
            outcome: Outcome::Refused,
            counts: None,
            examples: Vec::new(),
            errors: Vec::new(),
            remedy: String::new(),
            notes: Vec::new(),
            took: Span::ZERO,
        };
        if let Err(Refused { errors, remedy }) = self.try_reload(wish, &mut report) {
            (report.errors, report.remedy) = (errors, remedy);
        }
        report.took = Clock.now().since(began);
        report
    }

    fn try_reload(&mut self, wish: &Wish, report: &mut Report) -> Result<(), Refused> {
        let Some(files) = &mut self.files else {
            return Err(refused("no monitors file was named at the start", "start the daemon with --yaml FILE"));
        };
        let old = Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner).catalog);
        let mut fresh = files.read(&old)?;
        let notes = std::mem::take(&mut fresh.notes);
        let catalog = &fresh.catalog;
        let changes = Changes::between(&old, catalog);
        report.notes = notes;
        report.counts = Some(changes.counts);
        report.examples = examples(&old, catalog, &changes);
        if !wish.force {
            judge(&changes.counts, old.len(), catalog.len())?;
        }
        report.outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Applied };
        if wish.dry_run {
            return Ok(());
        }
        // Also without a change: what the files of TLS hold may be another thing now.
        self.go_over(fresh, changes, &wish.who)
    }

    /// Has everybody take the new catalog, in order.
    fn go_over(&mut self, fresh: Fresh, changes: Changes, who: &str) -> Result<(), Refused> {
        let Fresh { catalog, contexts, providers, fallback, findings, notes: _ } = fresh;
        if self.stopping.load(Ordering::Relaxed) {
            return Err(stopping());
        }
        let (catalog, changes) = (Arc::new(catalog), Arc::new(changes));
        let generation = catalog.generation();
        for shard in &mut self.ends.shards {
            let reload = shard::Reload {
                catalog: Arc::clone(&catalog),
                changes: Arc::clone(&changes),
                contexts: Arc::clone(&contexts),
            };
            // It has room: the one before was taken long ago.
            if shard.send(reload).is_err() {
                return Err(refused("a shard takes no new monitors", "restart the daemon"));
            }
        }
        let (shards, stopping) = (&self.shards, &self.stopping);
        let has = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Acquire) >= generation;
        wait("a shard", stopping, || shards.iter().all(|shard| has(&shard.generation)))?;
        let reload = desk_loop::Reload { catalog: Arc::clone(&catalog), changes, fallback, who: who.into() };
        if self.ends.desk.send(reload).is_err() {
            return Err(refused("the desk takes no new monitors", "restart the daemon"));
        }
        wait("the desk", stopping, || has(&self.ends.desk_board.generation))?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded = Arc::new(Loaded::new(catalog, providers, findings, loaded.key));
        Ok(())
    }
}

/// Waits for as long as it takes: half of a reload cannot be taken back. Whoever hangs is told of, and the probes of
/// liveness see it as well.
fn wait(whom: &str, stopping: &AtomicBool, done: impl Fn() -> bool) -> Result<(), Refused> {
    const LOOK_EVERY: Span = Span::from_millis(2);
    let mut told: Instant = Clock.now();
    while !done() {
        if stopping.load(Ordering::Relaxed) {
            return Err(self::stopping());
        }
        if Clock.now().since(told) >= FAULT_REPORT_EVERY {
            told = Clock.now();
            tracing::warn!("the reload waits for {whom}, which does not take the new monitors: see /healthz");
        }
        thread::sleep(LOOK_EVERY.into());
    }
    Ok(())
}

fn stopping() -> Refused {
    refused("the daemon is stopping", "it reads the files when it starts")
}

fn refused(error: &str, remedy: &str) -> Refused {
    Refused { errors: vec![error.to_owned()], remedy: remedy.to_owned() }
}

/// Whether so much goes that somebody should have a second look.
fn judge(counts: &Counts, before: usize, after: usize) -> Result<(), Refused> {
    const REMEDY: &str = "look whether the file is whole; if it is meant so: cpra reload --force";
    if after == 0 && before > 0 {
        return Err(refused(&format!("no monitor is left of {before}"), REMEDY));
    }
    let removed = counts.removed;
    if removed > RELOAD_REMOVED_MAX && removed * 100 > before * RELOAD_REMOVED_PERCENT_MAX {
        let percent = removed * 100 / before.max(1);
        return Err(refused(&format!("{removed} of {before} monitors ({percent} %) would be removed"), REMEDY));
    }
    Ok(())
}

/// The first names of each kind of change.
fn examples(old: &Catalog, new: &Catalog, changes: &Changes) -> Vec<(&'static str, Vec<String>)> {
    let mut kinds = ["added", "removed", "redefined", "adjusted", "enabled", "disabled"].map(|kind| (kind, Vec::new()));
    let mut note = |kind: usize, name: &str| {
        let names: &mut Vec<String> = &mut kinds[kind].1;
        if names.len() < RELOAD_NAMES_MAX {
            names.push(name.to_owned());
        }
    };
    for (id, change) in changes.iter() {
        match change.what {
            What::Added => note(0, new.name(id)),
            What::Removed => note(1, old.name(id)),
            What::Redefined => note(2, new.name(id)),
            What::Adjusted => note(3, new.name(id)),
            What::Same => {}
        }
        if change.switched {
            note(if new.roster(id.shard()).is_enabled(id.index()) { 4 } else { 5 }, new.name(id));
        }
    }
    kinds.into_iter().filter(|(_, names)| !names.is_empty()).collect()
}

/// What came of it, for the log.
fn tell(report: &Report) {
    let Report { who, outcome, took, counts, errors, remedy, notes, dry_run, .. } = report;
    let counts = counts.map_or_else(String::new, |counts| counts.to_string());
    for note in notes {
        tracing::warn!("reload: {note}");
    }
    match outcome {
        Outcome::Refused => {
            for error in errors {
                tracing::error!("reload: {error}");
            }
            tracing::error!(by = &**who, "reload refused, the running monitors stay: {remedy}");
        }
        _ if *dry_run => tracing::info!(by = &**who, %took, "a reload would be: {counts}"),
        Outcome::Applied | Outcome::Unchanged => {
            tracing::info!(by = &**who, %took, result = outcome.as_str(), "reloaded: {counts}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_that_goes_wants_a_second_look() {
        let goes =
            |removed, before: usize| judge(&Counts { removed, ..Counts::default() }, before, before - removed).is_err();
        assert!(!goes(0, 0) && !goes(10, 11) && !goes(11, 55) && !goes(20_000, 100_000));
        assert!(goes(11, 54) && goes(20_001, 100_000), "more than ten, and more than a fifth");
        assert!(goes(1, 1) && goes(5, 5), "none at all is never by accident");
    }
}
