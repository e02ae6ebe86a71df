//! Reloads, one after the other, while checks are in the air: nobody is lost, nobody is in two places, and who did not change
//! notices nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::health::Phase;
use crate::shard::Reload;
use crate::units::MonitorId;
use crate::units::limits::{CHANGES_PER_STEP_MAX, LEDGER_EVERY};
use crate::wire::tls::Unloaded;
use crate::world::catalog::{CatalogBuilder, phase_of};
use crate::world::{Changes, What};

/// What a file says of a monitor: its port, its interval in seconds, how often it must fail, whether it is watched.
type Said = (u16, u64, u8, bool);
type File = BTreeMap<u32, Said>;

fn name(number: u32) -> String {
    format!("m{number:05}")
}

fn builder(file: &File) -> CatalogBuilder {
    let mut builder = CatalogBuilder::new(1);
    for (&number, &(port, seconds, unhealthy_threshold, enabled)) in file {
        let interval = Span::from_secs(seconds);
        let policy = Policy::new(Check::Tcp(TcpCheck::default()), interval, Span::from_millis(900));
        let policy = Policy { unhealthy_threshold, ..policy };
        let target = Target { host: Host::Literal([10, 0, 0, 1].into()), port, path: "".into() };
        builder.add(Monitor { name: name(number).into(), enabled, target, policy }).expect("it fits");
    }
    builder
}

/// A shard with a network that answers when it is told to, and a desk that gives its word at once.
struct Fleet {
    now: Instant,
    shard: Shard,
    catalog: Arc<Catalog>,
    /// Operations without a completion: slot, its generation, kind.
    pending: Vec<(Slot, Generation, OpKind)>,
    sample: bool,
    /// What the desk has told each monitor; absent is 0.
    epochs: BTreeMap<u32, u8>,
    transitions: Vec<(u32, u8)>,
}

impl Fleet {
    fn new(file: &File, workers: u32) -> Self {
        let catalog = Arc::new(builder(file).finish().expect("it builds"));
        let settings = Settings { shard: 0, sizing: Setup::fixed(workers), seed: 7 };
        let shard = Shard::new(&settings, Arc::clone(&catalog), BEGIN);
        let (pending, transitions) = (Vec::new(), Vec::new());
        Self { now: BEGIN, shard, catalog, pending, sample: false, epochs: BTreeMap::new(), transitions }
    }

    fn step(&mut self, mut events: Vec<Event<'_>>) {
        if std::mem::take(&mut self.sample) {
            events.push(Event::HostSampled(HostSample { taken: self.now, drops: 0, table_full: false }));
        }
        let mut effects = Effects::default();
        self.shard.step(self.now, &events, &mut effects);
        for effect in effects.list {
            match effect {
                Effect::Submit { slot, generation, op, .. } => self.pending.push((slot, generation, op.kind())),
                Effect::SampleHost => self.sample = true,
                Effect::Transition(transition) => {
                    self.transitions.push((transition.monitor.index(), transition.epoch));
                }
                _ => {}
            }
        }
    }

    /// Completes the oldest of what is pending, a connect well or not.
    fn complete(&mut self, count: usize, well: bool) {
        for _ in 0..count.min(self.pending.len()) {
            let (slot, generation, kind) = self.pending.remove(0);
            let leaves = self.pending.iter().any(|other| (other.0, other.2) == (slot, OpKind::Disconnect));
            let result = match kind {
                OpKind::Connect if leaves => Err(Errno::ECANCELED),
                OpKind::Connect if !well => Err(Errno::ECONNREFUSED),
                _ => Ok(0),
            };
            let completion =
                Completion { slot, generation, kind, result, more: false, local: false, data: &[], handshake: None };
            self.step(vec![Event::Completed(completion)]);
        }
    }

    /// Lets time pass, with nothing but what the shard itself asks for.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.step(Vec::new());
        }
        self.now = until;
        self.step(Vec::new());
    }

    fn reload(&mut self, file: &File) -> Arc<Changes> {
        let catalog = Arc::new(builder(file).finish_after(&self.catalog).expect("it builds"));
        let changes = Arc::new(Changes::between(&self.catalog, &catalog));
        let (old, before) = (Arc::clone(&self.catalog), self.unchanged(&catalog, &changes));
        let reload =
            Reload { catalog: Arc::clone(&catalog), changes: Arc::clone(&changes), contexts: Arc::new(Unloaded) };
        self.step(vec![Event::Reloaded(reload)]);
        let steps = (0..).take_while(|_| {
            let settled = self.shard.generation() == catalog.generation();
            if !settled {
                assert_eq!(self.shard.next_deadline(), Some(self.now), "it goes on at once");
                self.step(Vec::new());
            }
            !settled
        });
        assert!(steps.count() <= changes.len() / CHANGES_PER_STEP_MAX + 1, "by slices");
        self.catalog = Arc::clone(&catalog);
        for (index, state) in before {
            assert_eq!(self.state(index), state, "{} did not change", catalog.name(MonitorId::new(0, index)));
        }
        self.transitions.clear();
        self.desk_says(&old, &changes);
        changes
    }

    /// The desk's word after a reload.
    fn desk_says(&mut self, old: &Catalog, changes: &Changes) {
        for change in changes.of_shard(0) {
            let is = |catalog: &Catalog| catalog.roster(0).is_enabled(change.index);
            let epoch = self.epochs.get(&change.index).map_or(1, |epoch| epoch % 200 + 1);
            let kind = match change.what {
                What::Removed => {
                    self.epochs.remove(&change.index);
                    continue;
                }
                What::Added => continue,
                _ if is(old) && !is(&self.catalog) => CommandKind::Disable { epoch },
                What::Redefined if is(&self.catalog) => CommandKind::Enable { epoch },
                _ if !is(old) && is(&self.catalog) => CommandKind::Enable { epoch },
                _ => continue,
            };
            self.epochs.insert(change.index, epoch);
            self.step(vec![Event::Command(Command { monitor: MonitorId::new(0, change.index), kind })]);
        }
    }

    /// Streak, phase and due time.
    fn state(&self, index: u32) -> (Phase, u8, u8, Option<Instant>) {
        let state = self.shard.monitor_state(index, self.now);
        (state.phase, state.fails, state.oks, state.next_due)
    }

    /// Who is not to notice anything, and how they are. What is due at this moment goes on.
    fn unchanged(&self, new: &Catalog, changes: &Changes) -> BTreeMap<u32, (Phase, u8, u8, Option<Instant>)> {
        let changed: BTreeSet<u32> = changes.of_shard(0).iter().map(|change| change.index).collect();
        let places = self.shard.places();
        let stays = |index: &u32| !changed.contains(index) && places[*index as usize] == Place::Wheel;
        let waits = |index: &u32| self.state(*index).3.is_some_and(|due| due > self.now);
        new.roster(0).indices().filter(stays).filter(waits).map(|index| (index, self.state(index))).collect()
    }

    /// Every monitor is where it should be, and what is said of them is said by their own epoch.
    fn audit(&mut self) {
        self.pass(LEDGER_EVERY);
        let (roster, stats) = (self.catalog.roster(0), self.shard.stats());
        assert_eq!(stats.lost, 0);
        assert_eq!(stats.monitors.iter().sum::<u64>(), roster.len() as u64);
        let disabled = roster.indices().filter(|&index| !roster.is_enabled(index)).count() as u64;
        assert_eq!(stats.monitors[8], disabled);
        for (index, place) in (0..).zip(self.shard.places()) {
            let watched = roster.knows(index) && roster.is_enabled(index);
            assert_eq!(place != Place::Nowhere, watched, "index {index}");
        }
        for (index, epoch) in self.transitions.drain(..) {
            assert_eq!(epoch, self.epochs.get(&index).copied().unwrap_or(0), "index {index}");
        }
    }
}

fn file(numbers: std::ops::Range<u32>, said: Said) -> File {
    numbers.map(|number| (number, said)).collect()
}

#[test]
fn who_goes_comes_stays_or_is_another() {
    let watched = (80, 10, 3, true);
    let mut before = file(0..100, watched);
    before.insert(7, (80, 10, 3, false));
    let mut fleet = Fleet::new(&before, 16);
    // Some are up, some suspect, some in the air, the rest wait.
    fleet.pass(Span::from_secs(2));
    fleet.complete(12, true);
    fleet.complete(9, false);
    fleet.pass(Span::from_millis(20));
    assert!(fleet.shard.in_flight() > 0);
    let mut after = before.clone();
    after.retain(|number, _| number % 10 != 0);
    after.extend(file(200..205, watched));
    after.extend(file(31..35, (81, 10, 3, true)));
    after.extend(file(41..45, (80, 30, 2, true)));
    after.insert(7, watched);
    after.insert(8, (80, 10, 3, false));
    let changes = fleet.reload(&after);
    let counts = changes.counts;
    assert_eq!((counts.removed, counts.added, counts.redefined, counts.adjusted), (10, 5, 4, 4));
    assert_eq!((counts.enabled, counts.disabled), (1, 1));
    fleet.audit();
    // Another interval has its own phase.
    let id = fleet.catalog.find(&name(41)).expect("it is there");
    for _ in 0..150 {
        fleet.complete(1_000, true);
        fleet.pass(Span::from_millis(500));
    }
    assert_eq!(fleet.state(id.index()).0, Phase::Up);
    let due = fleet.state(id.index()).3.expect("it is watched");
    let phase = phase_of(&name(41), Span::from_secs(30)).as_millis();
    assert_eq!(due.since(Instant::ZERO).as_millis() % 30_000, phase);
    // Those who come next take the places of those who went.
    let end = fleet.catalog.roster(0).index_end();
    after.extend(file(300..310, watched));
    fleet.reload(&after);
    assert_eq!(fleet.catalog.roster(0).index_end(), end);
    fleet.audit();
}

#[test]
fn a_large_change_is_made_in_slices_and_everybody_is_checked_afterwards() {
    let many = 4 * CHANGES_PER_STEP_MAX as u32;
    let mut fleet = Fleet::new(&file(0..many, (80, 60, 3, true)), 64);
    fleet.pass(Span::from_secs(5));
    let changes = fleet.reload(&file(0..many, (81, 60, 3, true)));
    assert_eq!(changes.counts.redefined, many as usize);
    fleet.audit();
    let first: Vec<Instant> = (0..many).filter_map(|index| fleet.state(index).3).collect();
    let late = first.iter().filter(|due| due.since(fleet.now) > Span::from_secs(15)).count();
    assert!(late > first.len() / 10, "first checks are spread over 10 ms for each");
}

#[test]
fn a_second_reload_before_the_end_of_the_first_finishes_that() {
    let many = 2 * CHANGES_PER_STEP_MAX as u32 + 1;
    let mut fleet = Fleet::new(&file(0..many, (80, 60, 3, true)), 4);
    let mut last = Arc::clone(&fleet.catalog);
    for wanted in [file(0..1, (80, 60, 3, true)), file(0..many, (80, 30, 3, true))] {
        let catalog = Arc::new(builder(&wanted).finish_after(&last).expect("it builds"));
        let changes = Arc::new(Changes::between(&last, &catalog));
        let contexts = Arc::new(Unloaded);
        fleet.step(vec![Event::Reloaded(Reload { catalog: Arc::clone(&catalog), changes, contexts })]);
        last = catalog;
    }
    fleet.pass(Span::ZERO);
    fleet.catalog = last;
    fleet.audit();
    assert_eq!(fleet.shard.generation(), 2);
}

#[test]
fn streaks_are_kept_by_new_thresholds() {
    let mut fleet = Fleet::new(&file(0..1, (80, 10, 3, true)), 1);
    for _ in 0..2 {
        let due = fleet.state(0).3.expect("it is watched");
        fleet.pass(due.since(fleet.now));
        fleet.complete(1, false);
        fleet.complete(1, true);
    }
    assert_eq!((fleet.state(0).0, fleet.state(0).1), (Phase::Suspect, 2));
    fleet.reload(&file(0..1, (80, 10, 2, true)));
    assert_eq!((fleet.state(0).0, fleet.state(0).1), (Phase::Suspect, 1), "one more decides");
    let due = fleet.state(0).3.expect("it is watched");
    fleet.pass(due.since(fleet.now));
    fleet.complete(1, false);
    assert_eq!(fleet.state(0).0, Phase::Failing);
}

fn files() -> impl Strategy<Value = Vec<(File, u8, u8, bool)>> {
    let said = (80..82_u16, 1..4_u64, 1..4_u8, prop::bool::weighted(0.8));
    let file = prop::collection::btree_map(0..40_u32, said, 0..40);
    prop::collection::vec((file, 0..60_u8, 0..40_u8, any::<bool>()), 2..10)
}

proptest! {
    #[test]
    fn nobody_is_lost_over_any_sequence_of_reloads(rounds in files()) {
        let mut rounds = rounds.into_iter();
        let (first, ..) = rounds.next().expect("there are two");
        let mut fleet = Fleet::new(&first, 3);
        for (file, tenths, completed, well) in rounds {
            fleet.pass(Span::from_millis(u64::from(tenths) * 100));
            fleet.complete(usize::from(completed), well);
            fleet.reload(&file);
            fleet.complete(usize::from(completed) / 2, !well);
            fleet.audit();
        }
        // Nothing that is pending belongs to anybody who is gone: all of it ends, and the slots are free again.
        for _ in 0..100 {
            fleet.complete(1_000, true);
            fleet.pass(Span::from_millis(100));
        }
        fleet.audit();
    }
}
