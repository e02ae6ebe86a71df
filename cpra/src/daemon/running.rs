//! What the API sees of the daemon: the other side of [`api::Source`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::reload::{Loaded, Order, Reloads};
use super::watchdog::health::Inputs;
use super::watchdog::{Patient, WatchdogBoard};
use crate::api::view::OutboxCount;
use crate::api::{self, Source as _, reload};
use crate::desk::DeskStats;
use crate::desk::protocol::{Answer, OutboxChange, Question, Selection};
use crate::domain::{Color, Destination};
use crate::notify::lane;
use crate::os::clock::Clock;
use crate::os::desk_loop::{self, DeskBoard};
use crate::os::histograms::{self, Dump, DumpError, Refused};
use crate::os::resolve::{ResolverBoard, ResolverStats};
use crate::os::shard_loop::{self, ShardBoard};
use crate::pipeline::{Gauge, Sender};
use crate::queueing::Setup;
use crate::shard::ShardStats;
use crate::shard::protocol::{MonitorState, STATES, SUSPECTS};
use crate::store::{Reader, StoreBoard, StoreStats};
use crate::units::limits::HEARTBEAT_MAX;
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

pub(super) struct Running {
    pub(super) instance: Box<str>,
    /// Whether a monitors file was read.
    pub(super) found: bool,
    /// What runs, and how to change it.
    pub(super) reloads: Reloads,
    pub(super) started: Instant,
    pub(super) pulse_setup: Setup,
    pub(super) code_setup: Setup,
    pub(super) queue_capacity: usize,
    pub(super) shards: Vec<Arc<ShardBoard>>,
    pub(super) shard_asks: Vec<Mutex<Sender<shard_loop::Ask>>>,
    pub(super) shard_calls: Vec<Mutex<Sender<shard_loop::Call>>>,
    pub(super) desk: Arc<DeskBoard>,
    pub(super) resolver: Arc<ResolverBoard>,
    pub(super) desk_asks: Mutex<Sender<desk_loop::Ask>>,
    pub(super) code_depth: Gauge,
    pub(super) code: Arc<lane::CodeBoard>,
    pub(super) store: Arc<StoreBoard>,
    /// `None`: nothing is kept.
    pub(super) history: Option<Reader>,
    pub(super) dumps: histograms::Writer,
    pub(super) watchdog: Arc<WatchdogBoard>,
    pub(super) stopping: Arc<AtomicBool>,
}

impl api::Source for Running {
    fn instance(&self) -> &str {
        &self.instance
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.loaded().catalog)
    }

    fn shard_stats(&self) -> ShardStats {
        let mut sum = ShardStats::default();
        for board in &self.shards {
            if let Ok(stats) = board.stats.lock() {
                sum.merge(&stats);
            }
        }
        sum
    }

    fn desk_stats(&self) -> DeskStats {
        self.desk.stats.lock().map(|stats| stats.clone()).unwrap_or_default()
    }

    fn resolver_stats(&self) -> ResolverStats {
        self.resolver.stats()
    }

    fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn history(&self) -> Option<Reader> {
        self.history.clone()
    }

    fn pipelines(&self) -> Vec<api::Pipeline> {
        let (shards, desk) = (self.shard_stats(), self.desk_stats());
        let pulse = api::Pipeline {
            name: "pulse",
            setup: self.pulse_setup,
            in_flight: shards.in_flight,
            waiting: shards.ready,
            // A monitor waits once at most.
            capacity: self.loaded().catalog.len(),
            classes: shards.sizing,
        };
        let code = api::Pipeline {
            name: "code",
            setup: self.code_setup,
            in_flight: desk.outstanding.saturating_sub(self.code_depth.depth() as u64),
            waiting: desk.waiting + self.code_depth.depth() as u64,
            capacity: self.queue_capacity,
            classes: self.code.report().into_iter().collect(),
        };
        vec![pulse, code]
    }

    fn alive(&self) -> Result<(), String> {
        match self.heartbeats(Clock.now()).into_iter().find(|(_, idle)| *idle > HEARTBEAT_MAX) {
            Some((who, idle)) => Err(format!("{who} has stood still for {idle}")),
            None => Ok(()),
        }
    }

    fn readiness(&self) -> api::Readiness {
        let mut reasons = Vec::new();
        if !self.found {
            reasons.push("no monitors are loaded: start with --yaml FILE".to_owned());
        }
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the daemon is stopping".to_owned());
        }
        reasons.extend(self.alive().err());
        let mut findings = self.loaded().findings.clone();
        let reloads = self.reloads();
        // What runs does its work, so that it is ready; but it is not what the files say.
        if let Some(last) = reloads.last.filter(|last| last.outcome == reload::Outcome::Refused) {
            let text = format!("refused at {}, older monitors run: {}", last.at, last.errors.join("; "));
            findings.push(api::Finding { subject: "the last reload".to_owned(), text, remedy: last.remedy });
        }
        api::Readiness { ready: reasons.is_empty(), reasons, findings }
    }

    fn started(&self) -> Instant {
        self.started
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn wall_of(&self, instant: Instant) -> Timestamp {
        let (now, wall) = (Clock.now(), Clock.wall());
        let ahead = instant.since(now).as_micros().cast_signed() - now.since(instant).as_micros().cast_signed();
        Timestamp::from_micros(wall.as_micros().saturating_add(ahead))
    }

    fn states(&self, shard: u8, indices: Vec<u32>) -> api::Asked<Vec<MonitorState>> {
        let asks = self.shard_asks.get(usize::from(shard)).ok_or(api::AskError::Stopping)?;
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |states| drop(sender.send(states)));
        ask(asks, shard_loop::Ask { indices, reply })?;
        Ok(receiver)
    }

    fn desk(&self, question: Question) -> api::Asked<Answer> {
        self.ask_desk(|reply| desk_loop::Ask::Question { question, reply })
    }

    fn change_outbox(&self, change: OutboxChange, selection: Selection, who: &str) -> api::Asked<Answer> {
        self.ask_desk(|reply| desk_loop::Ask::Outbox { change, selection, who: who.into(), reply })
    }

    fn test(&self, destination: Arc<Destination>, color: Color, who: &str) -> api::Asked<Answer> {
        self.ask_desk(|reply| desk_loop::Ask::Test { destination, color, who: who.into(), reply })
    }

    fn pings(&self) -> [u64; 3] {
        self.watchdog.counts()
    }

    fn providers(&self) -> Vec<Arc<Destination>> {
        self.loaded().providers.clone()
    }

    fn dump_histograms(&self) -> api::Asked<Result<Dump, DumpError>> {
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |dump| drop(sender.send(dump)));
        self.dumps.dump(reply).map_err(|refused| match refused {
            Refused::Full => api::AskError::Full,
            Refused::Ended => api::AskError::Stopping,
        })?;
        Ok(receiver)
    }

    fn dump_stats(&self) -> [u64; 2] {
        let histograms::DumpBoard { written, failed } = &*self.dumps.board;
        [written, failed].map(|count| count.load(Ordering::Relaxed))
    }

    fn push_target(&self, token: &str) -> Option<MonitorId> {
        let loaded = self.loaded();
        loaded.tokens.find(&loaded.catalog, token)
    }

    fn push(&self, monitor: MonitorId, ok: bool, message: Box<str>) -> Result<(), api::AskError> {
        self.call(monitor, shard_loop::Call::Pushed { index: monitor.index(), ok, message })
    }

    fn check_now(&self, monitor: MonitorId) -> Result<(), api::AskError> {
        self.call(monitor, shard_loop::Call::CheckNow(monitor))
    }

    fn reload(&self, wish: reload::Wish) -> api::Asked<reload::Report> {
        let (sender, receiver) = oneshot::channel();
        let reply: Box<dyn FnOnce(reload::Report) + Send> = Box::new(move |report| drop(sender.send(report)));
        self.reloads.order(Order { wish, reply: Some(reply) })?;
        Ok(receiver)
    }

    fn reloads(&self) -> reload::Board {
        self.reloads.board()
    }

    fn switch(&self, monitor: MonitorId, enabled: bool) -> Result<(), api::AskError> {
        let switch = if enabled { desk_loop::Ask::Enable(monitor) } else { desk_loop::Ask::Disable(monitor) };
        ask(&self.desk_asks, switch)
    }
}

impl Patient for Running {
    fn inputs(&self, now: Instant) -> Inputs {
        let mut heartbeats = self.heartbeats(now);
        heartbeats.push(("the code lane".to_owned(), idle(now, &self.code.turned)));
        let classes = self.shard_stats().sizing;
        let lag =
            classes.iter().filter(|report| report.class != SUSPECTS).map(|report| report.demand.longest_wait).max();
        let since = self.desk.uncommitted_since.load(Ordering::Relaxed);
        Inputs {
            heartbeats,
            lag: lag.unwrap_or(Span::ZERO),
            uncommitted: (since > 0).then(|| now.since(Instant::from_nanos(since))),
            oldest_notice: self.desk_stats().oldest_notice.map(|since| now.since(since)),
        }
    }

    fn advances(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.alive().is_ok()
    }

    fn status(&self) -> String {
        let (shards, desk) = (self.shard_stats(), self.desk_stats());
        let count = |state: &str| {
            STATES.into_iter().zip(shards.monitors).find(|(name, _)| *name == state).map_or(0, |(_, count)| count)
        };
        let total: u64 = shards.monitors.iter().sum();
        let OutboxCount { undelivered, .. } = OutboxCount::of(&desk, Clock.now());
        let (up, down) = (count("up"), count("down"));
        format!("{up} of {total} monitors up, {down} down; {undelivered} alerts undelivered")
    }
}

impl Running {
    fn loaded(&self) -> Arc<Loaded> {
        self.reloads.loaded()
    }

    /// Reads the files again; what comes of it is told by who does it.
    pub(super) fn reload_by(&self, who: &str) {
        let wish = reload::Wish { who: who.into(), ..reload::Wish::default() };
        if let Err(error) = self.reloads.order(Order { wish, reply: None }) {
            tracing::warn!("{who}: no reload: {error}");
        }
    }

    /// How long ago each shard and the desk last turned. Without the desk checks go on, and nobody is told what they find.
    fn heartbeats(&self, now: Instant) -> Vec<(String, Span)> {
        let shards = self.shards.iter().enumerate();
        let shards = shards.map(|(index, board)| (format!("shard {index}"), idle(now, &board.turned)));
        shards.chain([("the desk".to_owned(), idle(now, &self.desk.turned))]).collect()
    }

    fn ask_desk(&self, wish: impl FnOnce(desk_loop::Reply) -> desk_loop::Ask) -> api::Asked<Answer> {
        let (sender, receiver) = oneshot::channel();
        ask(&self.desk_asks, wish(Box::new(move |answer| drop(sender.send(answer)))))?;
        Ok(receiver)
    }

    fn call(&self, monitor: MonitorId, call: shard_loop::Call) -> Result<(), api::AskError> {
        ask(self.shard_calls.get(usize::from(monitor.shard())).ok_or(api::AskError::Stopping)?, call)
    }
}

fn idle(now: Instant, turned: &AtomicU64) -> Span {
    now.since(Instant::from_nanos(turned.load(Ordering::Relaxed)))
}

fn ask<T>(queue: &Mutex<Sender<T>>, question: T) -> Result<(), api::AskError> {
    let mut queue = queue.lock().map_err(|_| api::AskError::Stopping)?;
    if queue.is_closed() {
        return Err(api::AskError::Stopping);
    }
    queue.send(question).map_err(|_| api::AskError::Full)
}
