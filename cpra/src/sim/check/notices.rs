//! What has to be told to whom, over any number of processes: each notice once, the raise before its resolve, nothing
//! missing, nothing under a second key.
//!
//! The model hears the same transitions as the desk and writes down, per monitor and destination (a *line*), what has to
//! arrive in which order. What is queued is held against that with each commit, what arrives at once; what is missing shows
//! in the end. After every commit the fold of all records must be what the model knows: it is what the next process begins
//! with, and so the model of the next process is made of it.

mod episodes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Failure;
use super::leaving::{Leaving, Line, is_passing, line_of};
use crate::desk::protocol::{
    Answer, Batch, Delivered, DeliveryResult, DeskStats, EpisodeRecord, NoticeId, OutboxChange, Record, Selection,
    Stored,
};
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, DeliveryKey, Destination, Notice, Raise};
use crate::shard::protocol::{Command, CommandKind};
use crate::sim::coverage::{Coverage, Section};
use crate::sim::plan::Plan;
use crate::units::limits::{COMMIT_PATIENCE, RAISE_HOLD_MAX};
use crate::units::{Instant, MonitorId};
use crate::world::Catalog;

/// An episode as it should be told.
#[derive(Debug)]
pub(super) struct Told {
    /// `None`: the daemon's own.
    pub(super) monitor: Option<MonitorId>,
    pub(super) id: Option<EpisodeId>,
    /// Who got a raise.
    destinations: BTreeSet<Arc<Destination>>,
    yellow: bool,
    red: bool,
    /// The end, as it is told.
    ended: Option<Raise>,
    reminders: u32,
    reminded_at: Option<Instant>,
    threshold_at: Option<Instant>,
}

/// What has to arrive.
#[derive(Clone, Debug)]
struct Due {
    episode: usize,
    raise: Raise,
    n: u32,
    queued: bool,
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
    /// Whether it has been disabled: it may be another one now.
    was_disabled: bool,
}

/// A delivery that has arrived.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Arrival {
    /// Counts the stores that were lost.
    pub(in crate::sim) era: u32,
    pub(in crate::sim) monitor: Option<MonitorId>,
    pub(in crate::sim) key: DeliveryKey,
    pub(in crate::sim) summary: Box<str>,
}

/// How often a key has arrived, and when last.
#[derive(Debug)]
struct Known {
    process: u32,
    era: u32,
    /// By a lost acknowledgement or a retry of the dead: it may come once more.
    copies: u32,
}

#[derive(Debug)]
pub(in crate::sim) struct Notices {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    process: u32,
    pub(super) era: u32,
    born: Instant,
    /// Raises wait for a moment after the start.
    holds: bool,
    draining: bool,
    desired: BTreeMap<MonitorId, Desired>,
    told: Vec<Told>,
    by_id: BTreeMap<EpisodeId, usize>,
    lines: BTreeMap<Line, VecDeque<Due>>,
    /// What arrived last of each line.
    last: BTreeMap<Line, DeliveryKey>,
    leaving: Leaving,
    /// All records, durable or not.
    folded: Stored,
    stale: u64,
    commands: VecDeque<Command>,
    /// What has to be said to the shards of what the store held.
    resumes: BTreeMap<MonitorId, VecDeque<CommandKind>>,
    /// When the oldest commit without an answer was handed over.
    commits: BTreeMap<u64, Instant>,
    /// The daemon's own open episodes, by their kind.
    own: BTreeMap<EpisodeId, u64>,
    /// The store had to be put aside, and nobody has been told.
    trouble: bool,
    /// Tests that a person has asked for.
    tests: VecDeque<(Arc<Destination>, Color)>,
    awaited_tests: BTreeSet<DeliveryKey>,
    /// Questions for the open episodes, and what they should be answered.
    asked: VecDeque<BTreeSet<MonitorId>>,
    keys: BTreeMap<DeliveryKey, Known>,
    /// Where an end may be missing: what was raised there was never recorded, or was given up, or dropped by a person.
    pub(super) excused: BTreeSet<(EpisodeId, Arc<Destination>)>,
    /// Under which commit each key was queued, in this process.
    queued_in: Vec<(u64, DeliveryKey)>,
    pub(in crate::sim) arrivals: Vec<Arrival>,
    pub(super) failure: Option<Failure>,
}

impl Notices {
    pub(super) fn new(plan: &Arc<Plan>, catalog: &Arc<Catalog>) -> Self {
        Self {
            plan: Arc::clone(plan),
            catalog: Arc::clone(catalog),
            process: 0,
            era: 0,
            born: plan.start,
            holds: false,
            draining: false,
            desired: BTreeMap::new(),
            told: Vec::new(),
            by_id: BTreeMap::new(),
            lines: BTreeMap::new(),
            last: BTreeMap::new(),
            leaving: Leaving::default(),
            folded: Stored::default(),
            stale: 0,
            commands: VecDeque::new(),
            resumes: BTreeMap::new(),
            commits: BTreeMap::new(),
            own: BTreeMap::new(),
            trouble: false,
            tests: VecDeque::new(),
            awaited_tests: BTreeSet::new(),
            asked: VecDeque::new(),
            keys: BTreeMap::new(),
            excused: BTreeSet::new(),
            queued_in: Vec::new(),
            arrivals: Vec::new(),
            failure: None,
        }
    }

    /// The process has died; its store holds what it did up to a commit. What had left beyond that was never recorded.
    pub(in crate::sim) fn crashed(&mut self, kept: u64) {
        let lost = self.queued_in.iter().filter(|(sequence, _)| *sequence > kept);
        let orphans = lost.filter(|(_, key)| self.keys.contains_key(key));
        self.excused.extend(orphans.map(|(_, key)| (key.episode, Arc::clone(&key.destination))));
    }

    /// Another process: keys that were used stay used, all else is what the store holds.
    pub(super) fn start(&mut self, stored: &Stored, now: Instant, coverage: &mut Coverage) {
        let (plan, catalog) = (Arc::clone(&self.plan), Arc::clone(&self.catalog));
        let (keys, arrivals) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.arrivals));
        let excused = std::mem::take(&mut self.excused);
        let failure = self.failure.take();
        *self = Self {
            process: self.process + 1,
            era: self.era + u32::from(stored.is_new),
            born: now,
            holds: stored.is_new,
            keys,
            arrivals,
            excused,
            failure,
            leaving: Leaving::restored(stored),
            folded: stored.clone(),
            trouble: stored.trouble.is_some(),
            ..Self::new(&plan, &catalog)
        };
        self.folded.trouble = None;
        self.restore(stored, coverage);
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

    pub(in crate::sim) fn drains(&mut self) {
        self.draining = true;
    }

    /// The desk commands a shard.
    pub(in crate::sim) fn commanded(&mut self, command: Command, now: Instant) {
        if matches!(command.kind, CommandKind::Obscure | CommandKind::CheckNow) {
            return;
        }
        let resume = self.resumes.get_mut(&command.monitor).and_then(VecDeque::pop_front);
        let expected = match resume {
            Some(kind) => Some(Command { monitor: command.monitor, kind }),
            None => self.commands.pop_front(),
        };
        if expected != Some(command) {
            self.fail("commands", now, format!("the desk commands {command:?}, should command {expected:?}"));
        }
    }

    /// The desk hands over a commit.
    pub(in crate::sim) fn committed(&mut self, batch: &Batch, now: Instant, coverage: &mut Coverage) {
        self.commits.insert(batch.sequence, now);
        self.leaving.committed(batch.sequence, now);
        // Dead letters whose copy has not come yet, and what a copy may be of.
        let mut to_copy: Vec<DeliveryKey> = Vec::new();
        let mut given_up: Vec<DeliveryKey> = Vec::new();
        for record in &batch.records {
            let found = match record {
                Record::Episode(record) => self.episode_recorded(record, now),
                Record::EpisodeClosed { episode, .. } => {
                    self.own.remove(episode);
                    Ok(())
                }
                Record::NoticeQueued { id, notice } => {
                    let copied = to_copy.iter().position(|key| is_copy(&notice.key, key));
                    let is_copy = copied.is_some() || given_up.iter().any(|key| key.episode == notice.key.episode);
                    copied.map(|copied| to_copy.remove(copied));
                    self.queued(*id, notice, batch.sequence, is_copy && notice.key.destination == self.fallback(), now)
                }
                Record::NoticeDone { id, .. } => self.leaving.done(*id).map(|dropped| {
                    if let Some((line, key)) = dropped {
                        self.excuse(&line, &key);
                    }
                }),
                Record::NoticeDead { id, .. } => self.leaving.dead(*id).map(|(line, key)| {
                    coverage.hit(Section::Turn, "a notice was given up");
                    self.excuse(&line, &key);
                    self.awaited_tests.remove(&key);
                    // It may have arrived all the same, and is awaited no more.
                    let is_test = self.folded.outbox.iter().any(|stored| stored.id == *id && stored.notice.test);
                    if !is_test && key.destination != self.fallback() {
                        to_copy.push(key.clone());
                        given_up.push(key);
                    }
                }),
                Record::SeenOk { monitor, definition } => self.seen_ok(monitor, *definition),
                Record::NoticeTried { .. }
                | Record::Switched { .. }
                | Record::SwitchForgotten { .. }
                | Record::Bundle(_)
                | Record::BundleClosed { .. }
                | Record::Audit(_) => Ok(()),
            };
            self.folded.apply(record);
            if let Err((checker, text)) = found {
                return self.fail(checker, now, text);
            }
        }
        for key in to_copy {
            let copy = DeliveryKey { destination: self.fallback(), ..key };
            // Another dead letter may have brought it there already.
            if !self.keys.contains_key(&copy) && !self.folded.outbox.iter().any(|stored| stored.notice.key == copy) {
                let text = format!("{:?} of {} is given up, and the fallback has no copy", copy.raise, copy.episode);
                return self.fail("dead letters", now, text);
            }
        }
        if let Err((checker, text)) = self.agrees_with_fold() {
            self.fail(checker, now, text);
        }
    }

    fn fallback(&self) -> Arc<Destination> {
        self.plan.fallback()
    }

    /// It need not arrive.
    fn excuse(&mut self, line: &Line, key: &DeliveryKey) {
        self.excused.insert((key.episode, Arc::clone(&key.destination)));
        self.awaited_tests.remove(key);
        let episode = self.by_id.get(&key.episode).copied();
        if let Some(due) = self.lines.get_mut(line) {
            due.retain(|due| !(Some(due.episode) == episode && due.raise == key.raise && due.n == key.n && due.queued));
        }
    }

    /// A notice is recorded as one that is to be delivered.
    fn queued(
        &mut self,
        id: NoticeId,
        notice: &Notice,
        sequence: u64,
        is_copy: bool,
        now: Instant,
    ) -> Result<(), (&'static str, String)> {
        let key = &notice.key;
        let what = format!("{id:?}, {:?} {} of {} to {}", key.raise, key.n, notice.monitor_name, key.destination.name);
        let is_again = self.leaving.queued(id, notice, sequence)?;
        self.queued_in.push((sequence, key.clone()));
        let line = line_of(notice);
        if notice.test {
            let asked = self.tests.iter().position(|(to, color)| *to == key.destination && *color == notice.color);
            if asked.and_then(|asked| self.tests.remove(asked)).is_none() && !is_again {
                return Err(("no more than due", format!("{what} is a test that nobody asked for")));
            }
            self.awaited_tests.insert(key.clone());
            return Ok(());
        }
        let first = self.lines.get(&line).and_then(|due| due.iter().position(|due| !due.queued));
        if let Some(&number) = self.by_id.get(&key.episode) {
            if is_again || is_copy {
                if is_copy && matches!(key.raise, Raise::Yellow | Raise::Red) && self.told[number].ended.is_none() {
                    self.told[number].destinations.insert(Arc::clone(&key.destination));
                }
                let due = Due { episode: number, raise: key.raise, n: key.n, queued: true };
                self.lines.entry(line).or_default().push_back(due);
                return Ok(());
            }
            if key.n > 0 {
                return self
                    .reminds(number, line, notice, now)
                    .map_err(|text| ("reminders", format!("{what}: {text}")));
            }
        } else if notice.monitor.is_none() && *notice.monitor_name == *"cpra" {
            // Its episode's record follows.
            return self.own_queued(notice, line, now).map_err(|text| ("daemon notices", format!("{what}: {text}")));
        }
        if self.told_own(key.episode).is_some() {
            return self.own_queued(notice, line, now).map_err(|text| ("daemon notices", format!("{what}: {text}")));
        }
        let due = self.lines.get_mut(&line).and_then(|due| due.get_mut(first?));
        let Some(due) = due.filter(|due| due.raise == key.raise && due.n == key.n) else {
            return Err(("no more than due", format!("{what} is queued, and was not to be told")));
        };
        due.queued = true;
        let number = due.episode;
        self.bind(number, key.episode).map_err(|text| ("episodes", format!("{what}: {text}")))
    }

    /// The desk has heard that everything up to here is durable.
    pub(in crate::sim) fn durable(&mut self, sequence: u64) {
        self.leaving.durable(sequence);
        self.commits = self.commits.split_off(&(sequence + 1));
    }

    /// The desk hands a notice to the lane.
    pub(in crate::sim) fn delivers(&mut self, id: NoticeId, notice: &Notice, now: Instant, coverage: &mut Coverage) {
        let what = format!("{id:?}, {} of {} to {}", notice.color, notice.monitor_name, notice.key.destination.name);
        if let Err((checker, text)) = self.leaving.leaves(id, notice, now, self.plan.queue_capacity, coverage) {
            return self.fail(checker, now, text);
        }
        if is_passing(id)
            && let Err(text) = self.refreshes(notice, coverage)
        {
            return self.fail("refreshes", now, format!("{what}: {text}"));
        }
        if let Some(monitor) = notice.monitor.filter(|_| self.holds && !notice.test) {
            let hold = self.catalog.policy(monitor).interval.min(RAISE_HOLD_MAX);
            if now < self.born + hold && !self.draining {
                return self.fail("hold", now, format!("{what} leaves {} after the start", now.since(self.born)));
            }
            if now < self.born + hold + hold {
                coverage.hit(Section::Turn, "a notice was held after the start");
            }
        }
        if notice.monitor.is_none() && self.catalog.find(&notice.monitor_name).is_some() && !notice.test {
            self.fail("truth", now, format!("{what} is about nobody"));
        }
    }

    /// What only refreshes what was sent before.
    fn refreshes(&self, notice: &Notice, coverage: &mut Coverage) -> Result<(), String> {
        let key = &notice.key;
        if !key.destination.provider.wants_refresh() {
            return Err("refreshes what forgets nothing".into());
        }
        let Some(&number) = self.by_id.get(&key.episode) else { return Err("is of an unknown episode".into()) };
        let told = &self.told[number];
        match key.raise {
            Raise::Yellow | Raise::Red => {
                coverage.hit(Section::Turn, "a raise was refreshed");
                let is_told = told.destinations.contains(&key.destination);
                // The end may be waiting behind it.
                let is_open = told.ended.is_none_or(|end| self.leaving.waits(&line_of(notice), end));
                if !is_told || !is_open || !self.keys.contains_key(key) && !self.is_excused(key) {
                    return Err(format!("refreshes what is not so: told {is_told}, open {is_open}"));
                }
            }
            Raise::Resolve | Raise::Gray => {
                coverage.hit(Section::Turn, "a resolve was repeated");
                if told.ended != Some(key.raise) || !self.keys.contains_key(key) {
                    return Err(format!("repeats an end that is {:?}", told.ended));
                }
            }
            Raise::Cyan => {}
        }
        // Whatever waits behind it: the last that was said must be what is said again.
        match self.last.get(&line_of(notice)) {
            // The other episode is over as well, and its own end was given up.
            Some(last)
                if is_end(key.raise)
                    && self.by_id.get(&last.episode).is_some_and(|number| self.told[*number].ended.is_some()) =>
            {
                Ok(())
            }
            Some(last)
                if is_end(last.raise) != is_end(key.raise) || !is_end(key.raise) && last.episode != key.episode =>
            {
                Err(format!("says {:?} again after {:?} of {}", key.raise, last.raise, last.episode))
            }
            _ => Ok(()),
        }
    }

    fn is_excused(&self, key: &DeliveryKey) -> bool {
        self.excused.contains(&(key.episode, Arc::clone(&key.destination)))
    }

    /// It has arrived: people have read it.
    pub(in crate::sim) fn arrives(&mut self, id: NoticeId, notice: &Notice, now: Instant, coverage: &mut Coverage) {
        let key = &notice.key;
        let what = format!("{:?} {} of {} to {}", key.raise, key.n, notice.monitor_name, key.destination.name);
        if notice.color != color_of(key.raise) && !notice.test {
            return self.fail("truth", now, format!("{what} is a {}", notice.color));
        }
        if is_passing(id) {
            return;
        }
        let (process, era) = (self.process, self.era);
        let line = line_of(notice);
        let is_next = if notice.test {
            coverage.hit(Section::Turn, "a test arrived");
            self.awaited_tests.remove(key)
        } else {
            self.takes_its_turn(&line, key)
        };
        if key.n > 0 {
            coverage.hit(Section::Turn, "people were reminded");
        }
        if notice.monitor.is_none() && !notice.test {
            coverage.hit(Section::Turn, "the daemon raised its own notice");
        }
        let summary = notice.summary.clone();
        self.arrivals.push(Arrival { era, monitor: notice.monitor, key: key.clone(), summary });
        let copies = self.copies(notice);
        let known = self.keys.entry(key.clone()).or_insert(Known { process, era, copies: 0 });
        known.copies += 1;
        let (is_first, before) = (known.copies == 1, known.process);
        if known.era != era {
            return self.fail("exactly once", now, format!("{what}: its key was used before the store was lost"));
        }
        known.process = process;
        if self.leaving.is_called_off(id) {
            return coverage.hit(Section::Turn, "a notice arrived that a person had dropped");
        }
        if is_first && !is_next {
            let due = self.lines.get(&line);
            let waits = due.is_some_and(|due| due.iter().any(|due| due.raise == key.raise && due.n == key.n));
            let checker = if waits { "order" } else { "no more than due" };
            return self.fail(checker, now, format!("{what} arrives where {due:?} was awaited"));
        }
        if !is_first {
            let by_crash = before != process;
            let by_doubt = self.leaving.may_come_again(key) || copies;
            if by_crash {
                coverage.hit(Section::Turn, "a notice arrived again after a crash");
            } else if by_doubt {
                coverage.hit(Section::Turn, "a notice arrived again after a doubt");
            } else {
                return self.fail("exactly once", now, format!("{what} arrives twice"));
            }
            if !is_next && !notice.test && self.last.get(&line).is_some_and(|last| *last != *key) {
                return self.fail("order", now, format!("{what} arrives again after {:?}", self.last.get(&line)));
            }
        }
        self.last.insert(line, key.clone());
    }

    /// Whether the fallback has it by a dead letter, as it may more than once.
    fn copies(&self, notice: &Notice) -> bool {
        notice.key.destination == self.fallback() && notice.monitor.is_some()
    }

    fn takes_its_turn(&mut self, line: &Line, key: &DeliveryKey) -> bool {
        let number = self.by_id.get(&key.episode).copied();
        // What a person has brought back stands before or behind what happened in the same step.
        let was_dead = self.is_excused(key);
        let Some(due) = self.lines.get_mut(line) else { return false };
        let is_it = |due: &Due| Some(due.episode) == number && due.raise == key.raise && due.n == key.n && due.queued;
        let place = due.iter().position(is_it).filter(|place| *place == 0 || was_dead);
        place.is_some_and(|place| due.remove(place).is_some())
    }

    /// An attempt has ended.
    pub(in crate::sim) fn ended(&mut self, id: NoticeId, delivered: &Delivered, coverage: &mut Coverage) {
        self.leaving.ended(id, delivered);
        coverage.hit(
            Section::Turn,
            match delivered.result {
                DeliveryResult::Sent => return,
                DeliveryResult::Fallback => "a notice went to the fallback",
                DeliveryResult::Failed => "a notice was taken by nobody and tried again",
                DeliveryResult::Unsure => "nobody knew whether a notice had arrived",
                DeliveryResult::Refused => "a notice was refused",
            },
        );
    }

    /// The desk hears of that.
    pub(in crate::sim) fn heard_back(&mut self, id: NoticeId, now: Instant, coverage: &mut Coverage) {
        self.leaving.heard_back(id, now, coverage);
    }

    /// A person's word about the outbox is about to be heard.
    pub(in crate::sim) fn outbox_changes(
        &mut self,
        change: OutboxChange,
        selection: &Selection,
        coverage: &mut Coverage,
    ) {
        match change {
            OutboxChange::Retry => self.leaving.retried(selection, coverage),
            OutboxChange::Drop => self.leaving.dropped(selection, coverage),
        }
    }

    /// The row of the outbox with the greatest number.
    pub(in crate::sim) fn newest(&self) -> Option<NoticeId> {
        self.leaving.ids().pop_last()
    }

    /// A person wants to see whether notices arrive there.
    pub(in crate::sim) fn tests(&mut self, destination: &Arc<Destination>, color: Color) {
        self.tests.push_back((Arc::clone(destination), color));
        // An incident that is opened for it has to be closed.
        if matches!(color, Color::Yellow | Color::Red) && destination.provider.has_lifecycle() {
            self.tests.push_back((Arc::clone(destination), Color::Green));
        }
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
        let mine = (open, self.leaving.outstanding() as u64, self.leaving.nondurable, self.stale);
        let desks = (stats.episodes_open, stats.outstanding, stats.nondurable, stats.stale_transitions);
        if mine != desks {
            let text = format!("episodes, outstanding, nondurable, stale are {mine:?}; the desk says {desks:?}");
            self.fail("counts", now, text);
        }
        let resume = self.resumes.values().flatten().next();
        if let Some(kind) = self.commands.front().map(|command| &command.kind).or(resume) {
            self.fail("commands", now, format!("the desk should have commanded {kind:?}"));
        }
        if let Some(id) = self.leaving.dropped_and_there() {
            self.fail("outbox", now, format!("a person dropped {id:?}, and it is still there"));
        }
        if !self.tests.is_empty() {
            self.fail("outbox", now, format!("tests were asked for and not queued: {:?}", self.tests));
        }
        let silent = self.lines.iter().find_map(|(line, due)| Some((line, due.iter().find(|due| !due.queued)?)));
        if let Some((line, due)) = silent {
            let text = format!("{:?} of {} has not been queued for {}", due.raise, line.0, line.1.name);
            self.fail("nothing lost", now, text);
        }
    }

    /// Everything has settled: nothing may be missing.
    pub(in crate::sim) fn settled(&mut self, now: Instant) {
        let missing = self.lines.iter().find_map(|(line, due)| {
            let due = due.front()?;
            Some(format!("{:?} {} of {} never arrived at {}", due.raise, due.n, line.0, line.1.name))
        });
        let test = self.awaited_tests.first().map(|key| format!("a test never arrived at {}", key.destination.name));
        if let Some(text) = missing.or(test).or_else(|| self.leaving.left()) {
            return self.fail("nothing lost", now, text);
        }
        if self.trouble {
            self.fail("daemon notices", now, "the store was put aside, and nobody was told".into());
        }
    }
}

/// Whether the one is the other, for the fallback.
fn is_copy(key: &DeliveryKey, of: &DeliveryKey) -> bool {
    (key.episode, key.raise, key.n) == (of.episode, of.raise, of.n)
}

const fn is_end(raise: Raise) -> bool {
    matches!(raise, Raise::Resolve | Raise::Gray)
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
