//! What the desk may send, and when: each notice once, after its commit, the raise before its resolve.
//!
//! The model hears the same transitions as the desk and writes down, per episode and destination, what has to arrive
//! in which order. What arrives is held against that at once; what is missing shows in the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Failure;
use crate::desk::protocol::{Answer, Batch, DeliveryResult, DeskStats, NoticeId, Record};
use crate::domain::monitor::Dispatch;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, DeliveryKey, Destination, Notice, Raise, TransitionKind};
use crate::shard::protocol::{Command, CommandKind, Transition};
use crate::sim::coverage::{Coverage, Section};
use crate::sim::plan::{Plan, fallback};
use crate::units::limits::{COMMIT_PATIENCE, OUTSTANDING_SHARE, RAISE_HOLD_MAX};
use crate::units::{Instant, MonitorId};
use crate::world::Catalog;

/// An episode as it should be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) monitor: MonitorId,
    pub(super) id: Option<EpisodeId>,
    /// Who got a raise.
    destinations: BTreeSet<Arc<Destination>>,
    yellow: bool,
    red: bool,
    /// What has to arrive where, and has not.
    awaited: BTreeMap<Arc<Destination>, VecDeque<Raise>>,
}

/// One monitor as the desk should see it.
#[derive(Debug)]
struct Desired {
    enabled: bool,
    epoch: u8,
    /// Its open episode.
    episode: Option<usize>,
    /// Opened, and the desk has not said under which number.
    unnamed: VecDeque<usize>,
    /// "No longer watched", outside of any episode.
    lone_grays: BTreeMap<Arc<Destination>, u32>,
}

/// A delivery that has arrived.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Arrival {
    pub(in crate::sim) process: u32,
    pub(in crate::sim) monitor: Option<MonitorId>,
    pub(in crate::sim) key: DeliveryKey,
}

#[derive(Debug)]
pub(in crate::sim) struct Notices {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    pub(super) process: u32,
    born: Instant,
    draining: bool,
    desired: BTreeMap<MonitorId, Desired>,
    pub(super) told: Vec<Told>,
    by_id: BTreeMap<EpisodeId, usize>,
    /// When each commit was handed over, and which is durable.
    commits: BTreeMap<u64, Instant>,
    durable: u64,
    queued: BTreeMap<NoticeId, (u64, DeliveryKey)>,
    outstanding: BTreeSet<NoticeId>,
    done: BTreeSet<NoticeId>,
    nondurable: u64,
    stale: u64,
    commands: VecDeque<Command>,
    daemon_raised: Option<EpisodeId>,
    daemon_speaks: bool,
    /// Questions for the open episodes, and what they should be answered.
    asked: VecDeque<BTreeSet<MonitorId>>,
    keys: BTreeSet<DeliveryKey>,
    pub(in crate::sim) arrivals: Vec<Arrival>,
    pub(super) failure: Option<Failure>,
}

impl Notices {
    pub(super) fn new(plan: &Arc<Plan>, catalog: &Arc<Catalog>) -> Self {
        Self {
            plan: Arc::clone(plan),
            catalog: Arc::clone(catalog),
            process: 0,
            born: plan.start,
            draining: false,
            desired: BTreeMap::new(),
            told: Vec::new(),
            by_id: BTreeMap::new(),
            commits: BTreeMap::new(),
            durable: 0,
            queued: BTreeMap::new(),
            outstanding: BTreeSet::new(),
            done: BTreeSet::new(),
            nondurable: 0,
            stale: 0,
            commands: VecDeque::new(),
            daemon_raised: None,
            daemon_speaks: false,
            asked: VecDeque::new(),
            keys: BTreeSet::new(),
            arrivals: Vec::new(),
            failure: None,
        }
    }

    /// Another process: keys that were used stay used, all else begins anew.
    pub(super) fn start(&mut self, now: Instant) {
        let (plan, catalog) = (Arc::clone(&self.plan), Arc::clone(&self.catalog));
        let (keys, arrivals) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.arrivals));
        let failure = self.failure.take();
        *self = Self { process: self.process + 1, born: now, keys, arrivals, failure, ..Self::new(&plan, &catalog) };
        for shard in 0..catalog.shards() {
            let roster = catalog.roster(shard);
            for index in 0..roster.len() as u32 {
                let desired = Desired {
                    enabled: roster.is_enabled(index),
                    epoch: 0,
                    episode: None,
                    unnamed: VecDeque::new(),
                    lone_grays: BTreeMap::new(),
                };
                self.desired.insert(MonitorId::new(shard, index), desired);
            }
        }
    }

    fn fail(&mut self, checker: &'static str, at: Instant, text: String) {
        self.failure.get_or_insert(Failure { checker, at, text });
    }

    fn name(&self, monitor: MonitorId) -> &str {
        self.catalog.name(monitor)
    }

    pub(super) fn is_enabled(&self, monitor: MonitorId) -> bool {
        self.desired[&monitor].enabled
    }

    /// The desk is about to hear of a transition.
    pub(in crate::sim) fn hears(&mut self, transition: &Transition, coverage: &mut Coverage) {
        let monitor = transition.monitor;
        let catalog = Arc::clone(&self.catalog);
        let codes = &catalog.policy(monitor).codes;
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if transition.epoch != desired.epoch || !desired.enabled {
            self.stale += 1;
            coverage.hit(Section::Turn, "a transition was stale");
            return;
        }
        match transition.kind {
            TransitionKind::FirstOk | TransitionKind::VoidBegan | TransitionKind::VoidEnded => {}
            TransitionKind::Fail1 => {
                let episode = self.open(monitor);
                self.raise(episode, Color::Yellow);
                if codes.rule(Color::Red).is_some_and(|rule| rule.dispatch == Dispatch::Always) {
                    self.raise(episode, Color::Red);
                }
            }
            TransitionKind::Threshold => {
                let episode = self.open(monitor);
                self.raise(episode, Color::Red);
            }
            TransitionKind::Degraded => {
                let episode = self.open(monitor);
                self.raise(episode, Color::Yellow);
            }
            TransitionKind::Rise | TransitionKind::Clean => {
                if let Some(episode) = self.close(monitor)
                    && !self.told[episode].destinations.is_empty()
                {
                    self.end(episode, Color::Green, Raise::Resolve);
                }
            }
        }
    }

    /// The open episode, or a new one.
    fn open(&mut self, monitor: MonitorId) -> usize {
        let number = self.told.len();
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if let Some(open) = desired.episode {
            return open;
        }
        desired.episode = Some(number);
        desired.unnamed.push_back(number);
        self.told.push(Told {
            monitor,
            id: None,
            destinations: BTreeSet::new(),
            yellow: false,
            red: false,
            awaited: BTreeMap::new(),
        });
        number
    }

    fn close(&mut self, monitor: MonitorId) -> Option<usize> {
        self.desired.get_mut(&monitor).expect("every monitor is known").episode.take()
    }

    fn raise(&mut self, episode: usize, color: Color) {
        let told = &mut self.told[episode];
        let (once, raise) = match color {
            Color::Red => (&mut told.red, Raise::Red),
            _ => (&mut told.yellow, Raise::Yellow),
        };
        if std::mem::replace(once, true) {
            return;
        }
        let destinations: BTreeSet<_> =
            self.catalog.policy(told.monitor).codes.destinations(color).iter().cloned().collect();
        for destination in destinations {
            told.awaited.entry(Arc::clone(&destination)).or_default().push_back(raise);
            told.destinations.insert(destination);
        }
    }

    /// Everyone who got a raise, and the color's own destinations.
    fn end(&mut self, episode: usize, color: Color, raise: Raise) {
        let told = &mut self.told[episode];
        let mut destinations = told.destinations.clone();
        destinations.extend(self.catalog.policy(told.monitor).codes.destinations(color).iter().cloned());
        for destination in destinations {
            told.awaited.entry(destination).or_default().push_back(raise);
        }
    }

    /// The desk is about to hear a person's word.
    pub(in crate::sim) fn switched(&mut self, monitor: MonitorId, enable: bool, coverage: &mut Coverage) {
        let catalog = Arc::clone(&self.catalog);
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if desired.enabled == enable {
            return;
        }
        desired.enabled = enable;
        desired.epoch = desired.epoch.checked_add(1).unwrap_or(1);
        let epoch = desired.epoch;
        let kind = if enable { CommandKind::Enable { epoch } } else { CommandKind::Disable { epoch } };
        self.commands.push_back(Command { monitor, kind });
        if enable {
            return;
        }
        match self.close(monitor) {
            Some(episode) => {
                coverage.hit(Section::Row, "39 with an episode");
                self.end(episode, Color::Gray, Raise::Gray);
            }
            None => {
                coverage.hit(Section::Row, "39 without one");
                let own: BTreeSet<_> =
                    catalog.policy(monitor).codes.destinations(Color::Gray).iter().cloned().collect();
                let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
                for destination in own {
                    *desired.lone_grays.entry(destination).or_default() += 1;
                }
            }
        }
    }

    pub(in crate::sim) fn drains(&mut self) {
        self.draining = true;
    }

    /// The desk commands a shard.
    pub(in crate::sim) fn commanded(&mut self, command: Command, now: Instant) {
        if matches!(command.kind, CommandKind::Obscure | CommandKind::CheckNow) {
            return;
        }
        let expected = self.commands.pop_front();
        if expected != Some(command) {
            self.fail("commands", now, format!("the desk commands {command:?}, should command {expected:?}"));
        }
    }

    /// The desk hands over a commit.
    pub(in crate::sim) fn committed(&mut self, batch: &Batch, now: Instant) {
        self.commits.insert(batch.sequence, now);
        for record in &batch.records {
            match record {
                Record::Episode(record) if !self.by_id.contains_key(&record.id) => {
                    let (episode, Some(name)) = (record.id, &record.monitor) else { continue };
                    let monitor = self.catalog.find(name).expect("episodes are of monitors that are known");
                    let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
                    let Some(number) = desired.unnamed.pop_front() else {
                        let text = format!("an episode of {} was opened without a cause", self.name(monitor));
                        return self.fail("episodes", now, text);
                    };
                    self.told[number].id = Some(episode);
                    self.by_id.insert(episode, number);
                }
                Record::NoticeQueued { id, notice } => {
                    if self.queued.insert(*id, (batch.sequence, notice.key.clone())).is_some() {
                        self.fail("exactly once", now, format!("two notices are {id:?}"));
                    }
                    if notice.monitor.is_none() {
                        self.daemon_speaks = notice.key.raise == Raise::Yellow;
                    }
                }
                Record::SeenOk { .. }
                | Record::Episode(_)
                | Record::EpisodeClosed { .. }
                | Record::Bundle(_)
                | Record::BundleClosed { .. }
                | Record::NoticeTried { .. }
                | Record::NoticeDone { .. }
                | Record::NoticeDead { .. }
                | Record::Switched { .. }
                | Record::SwitchForgotten { .. }
                | Record::Audit(_) => {}
            }
        }
    }

    /// The desk has heard that everything up to here is durable.
    pub(in crate::sim) fn durable(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence);
    }

    /// The desk hands a notice to the lane.
    pub(in crate::sim) fn delivers(&mut self, id: NoticeId, notice: &Notice, now: Instant, coverage: &mut Coverage) {
        let what = format!("{} of {} to {:?}", notice.color, notice.monitor_name, notice.key.destination);
        let Some((sequence, key)) = self.queued.get(&id) else {
            return self.fail("durability", now, format!("{what} leaves without ever having been committed"));
        };
        if *key != notice.key {
            return self.fail("exactly once", now, format!("{what} is not what was committed as {id:?}"));
        }
        if *sequence > self.durable {
            // The oldest commit without an answer decides whether the store is silent.
            let silent = self.commits.range(self.durable + 1..).next().map(|(_, since)| now.since(*since));
            if silent.is_none_or(|silent| silent < COMMIT_PATIENCE) {
                let text = format!("{what} leaves before commit {sequence} is durable, silent for {silent:?}");
                return self.fail("durability", now, text);
            }
            self.nondurable += 1;
            coverage.hit(Section::Turn, "a notice left before it was durable");
        }
        if self.done.contains(&id) || !self.outstanding.insert(id) {
            return self.fail("exactly once", now, format!("{what} leaves twice"));
        }
        if self.outstanding.len() > self.plan.queue_capacity {
            return self.fail("bounds", now, format!("{} notices are outstanding", self.outstanding.len()));
        }
        let (held, room) = self.held_by(&notice.key.destination);
        if held > (room / OUTSTANDING_SHARE).max(1) {
            return self.fail("bounds", now, format!("{what} is the {held}th there, with room for {room} left"));
        }
        if held > 1 {
            coverage.hit(Section::Turn, "a destination had several notices on their way");
        }
        if let Some(monitor) = notice.monitor {
            let hold = self.catalog.policy(monitor).interval.min(RAISE_HOLD_MAX);
            if now < self.born + hold && !self.draining {
                return self.fail("hold", now, format!("{what} leaves {} after the start", now.since(self.born)));
            }
            if now < self.born + hold + hold {
                coverage.hit(Section::Turn, "a notice was held after the start");
            }
        }
    }

    /// How many notices are on their way to this destination with the one that has just left, and how much room there
    /// was before it left.
    fn held_by(&self, destination: &Destination) -> (usize, usize) {
        let is_there = |id: &&NoticeId| self.queued.get(id).is_some_and(|(_, key)| *key.destination == *destination);
        let held = self.outstanding.iter().filter(is_there).count();
        (held, self.plan.queue_capacity + 1 - self.outstanding.len())
    }

    /// The lane has finished with a notice.
    pub(in crate::sim) fn ended(
        &mut self,
        id: NoticeId,
        notice: &Notice,
        result: DeliveryResult,
        now: Instant,
        coverage: &mut Coverage,
    ) {
        match result {
            DeliveryResult::Sent => {}
            DeliveryResult::Fallback => coverage.hit(Section::Turn, "a notice went to the fallback"),
            DeliveryResult::Failed | DeliveryResult::Unsure | DeliveryResult::Refused => {
                return coverage.hit(Section::Turn, "a notice was taken by nobody and tried again");
            }
        }
        self.done.insert(id);
        let key = &notice.key;
        let what = format!("{:?} of {} ({}) to {:?}", key.raise, notice.monitor_name, key.episode, key.destination);
        if !self.keys.insert(key.clone()) {
            return self.fail("exactly once", now, format!("{what} arrives twice"));
        }
        let arrival = Arrival { process: self.process, monitor: notice.monitor, key: key.clone() };
        self.arrivals.push(arrival);
        let Some(monitor) = notice.monitor else {
            coverage.hit(Section::Turn, "the daemon raised its own notice");
            return self.own_arrived(notice, now);
        };
        if *notice.monitor_name != *self.name(monitor) || notice.color != color_of(key.raise) {
            return self.fail("truth", now, format!("{what} is a {} about {monitor}", notice.color));
        }
        let Some(&number) = self.by_id.get(&key.episode) else {
            let lone = self.desired.get_mut(&monitor).and_then(|desired| desired.lone_grays.get_mut(&key.destination));
            match lone {
                Some(count) if *count > 0 && key.raise == Raise::Gray => *count -= 1,
                _ => self.fail("no more than due", now, format!("{what} is of an episode that never was")),
            }
            return;
        };
        let waits = |told: &Told| told.awaited.get(&key.destination).is_some_and(|raises| !raises.is_empty());
        if self.told[..number].iter().any(|earlier| earlier.monitor == monitor && waits(earlier)) {
            return self.fail("order", now, format!("{what} arrives before what is due of an earlier episode"));
        }
        let told = &mut self.told[number];
        let awaited = told.awaited.entry(Arc::clone(&key.destination)).or_default();
        if told.monitor != monitor || awaited.front() != Some(&key.raise) {
            let text = format!("{what} arrives where {awaited:?} was awaited");
            let checker = if awaited.contains(&key.raise) { "order" } else { "no more than due" };
            return self.fail(checker, now, text);
        }
        awaited.pop_front();
    }

    /// The desk hears of that.
    pub(in crate::sim) fn heard_back(&mut self, id: NoticeId) {
        self.outstanding.remove(&id);
    }

    fn own_arrived(&mut self, notice: &Notice, now: Instant) {
        let key = &notice.key;
        let expected = match self.daemon_raised.take() {
            None => {
                self.daemon_raised = Some(key.episode);
                key.raise == Raise::Yellow
            }
            Some(raised) => key.raise == Raise::Resolve && key.episode == raised,
        };
        if !expected || key.destination != fallback() {
            self.fail("daemon notices", now, format!("{:?} of the daemon to {:?}", key.raise, key.destination));
        }
    }

    /// Whether the daemon's own notice is raised, sent or still waiting.
    pub(super) fn daemon_speaks(&self) -> bool {
        self.daemon_speaks
    }

    /// The desk is about to be asked for the open episodes.
    pub(in crate::sim) fn asked(&mut self) {
        let open = self.desired.iter().filter(|(_, desired)| desired.episode.is_some());
        self.asked.push_back(open.map(|(monitor, _)| *monitor).collect());
    }

    pub(in crate::sim) fn answered(&mut self, answer: &Answer, now: Instant) {
        let Answer::Episodes(episodes) = answer else { return };
        let answer: BTreeSet<MonitorId> = episodes.iter().map(|episode| episode.monitor).collect();
        let expected = self.asked.pop_front();
        if expected.as_ref() != Some(&answer) {
            self.fail("episodes", now, format!("open are {expected:?}; the desk says {answer:?}"));
        }
    }

    /// What must agree after each step of the desk.
    pub(in crate::sim) fn counted(&mut self, stats: &DeskStats, now: Instant) {
        let open = self.desired.values().filter(|desired| desired.episode.is_some()).count() as u64;
        let mine = (open, self.outstanding.len() as u64, self.nondurable, self.stale);
        let desks = (stats.episodes_open, stats.outstanding, stats.nondurable, stats.stale_transitions);
        if mine != desks {
            let text = format!("episodes, outstanding, nondurable, stale are {mine:?}; the desk says {desks:?}");
            self.fail("counts", now, text);
        }
        if let Some(command) = self.commands.front() {
            self.fail("commands", now, format!("the desk should have commanded {command:?}"));
        }
    }

    /// Everything has settled: nothing may be missing.
    pub(in crate::sim) fn settled(&mut self, now: Instant) {
        let missing = self.told.iter().find_map(|told| {
            let (destination, raises) = told.awaited.iter().find(|(_, raises)| !raises.is_empty())?;
            Some(format!("{raises:?} of {} never arrived at {destination:?}", self.name(told.monitor)))
        });
        let lone = self.desired.iter().find_map(|(monitor, desired)| {
            let (destination, _) = desired.lone_grays.iter().find(|(_, count)| **count > 0)?;
            Some(format!("the gray of {} never arrived at {destination:?}", self.name(*monitor)))
        });
        if let Some(text) = missing.or(lone) {
            self.fail("nothing lost", now, text);
        }
    }
}

const fn color_of(raise: Raise) -> Color {
    match raise {
        Raise::Yellow => Color::Yellow,
        Raise::Red => Color::Red,
        Raise::Resolve => Color::Green,
        Raise::Cyan => Color::Cyan,
        Raise::Gray => Color::Gray,
    }
}
