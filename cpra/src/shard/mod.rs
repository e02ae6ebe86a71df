//! A shard: one part of the monitors, from due time to judged outcome.
//!
//! ```text
//!   wheel ──due──▶ ready ──slot──▶ flight ◀──▶ pause (re-try)        an enabled monitor is in exactly one place
//!     ▲              │               │
//!     │              └─▶ resolving ──┘ judged, or timed out ──▶ judging (did this host drop packets?)
//!     └───────────────────────── health, next due ◀──────────────────┘
//! ```
//! A pure step function: time and events come in, effects and the next deadline go out. It reads no clock, opens no
//! socket and starts no thread; the drivers do ([`crate::os`], [`crate::sim`]). One step:
//!
//! 1. notes whether the loop stood still: checks that overlap that count for nothing when they fail;
//! 2. takes the events: completions first of all, so that a timeout is judged only after a drain of completions that
//!    began after its deadline;
//! 3. lets those go who waited for a name and have its answer; expires deadlines, then judges timed-out checks for
//!    which the host's drop counters are known;
//! 4. judges the jobs that should have called in (`push`); moves what else is due to the ready list, and starts as many
//!    checks as there are slots;
//! 5. once a second, audits the ledger: the places must sum to the enabled monitors.
//!
//! The next due time derives from the due time, never from the finish. Full is a value everywhere: without a slot a
//! check waits in the ready list, and the due times that pass meanwhile are counted as missed; likewise when no more packets
//! may leave in this second.
//!
//! What it does not do: episodes, notices, repairs. Those are the desk's, which hears of transitions only.

mod bounds;
mod classes;
mod command;
mod flight;
mod hops;
mod host;
mod launch;
mod names;
pub mod protocol;
mod push;
mod reload;
mod slots;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::VecDeque;
use std::sync::Arc;

pub use bounds::Rates;
use hashbrown::HashMap;
pub use protocol::{Effect, Effects, Event, Reload, ShardStats};
use rustc_hash::FxBuildHasher;

use self::bounds::Bounds;
use self::classes::{Class, Classes, Next};
use self::hops::Strangers;
use self::host::HostDrops;
use self::names::{Names, Resolved};
use self::protocol::MonitorState;
use self::push::Pushes;
use self::reload::{Definitions, Newcomers};
use self::slots::{Slots, State};
use crate::domain::health::Phase;
use crate::domain::monitor::CheckKind;
use crate::domain::{Health, Latency, Outcome, Policy};
use crate::probe::Ops;
use crate::queueing::Setup;
use crate::queueing::recording::Recording;
use crate::schedule::wheel::{Owner, TickClock};
use crate::schedule::{Tick, Wheel};
use crate::units::limits::{
    FLIGHT_WAIT_MAX, HANDSHAKES_PER_STEP_MAX, LEDGER_EVERY, READ_AHEAD, STALL, STARTS_PER_STEP_MAX,
};
use crate::units::planted::{self, Bug};
use crate::units::{Generation, Instant, MonitorId, Slot, Span};
use crate::wire::tls::{Contexts, Unloaded};
use crate::world::catalog::phase_of;
use crate::world::{Catalog, Components, Place, World};

/// How a shard is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of the catalog's rosters is this shard's.
    pub shard: u8,
    /// How many checks may be in flight: this shard's part of the pipeline's.
    pub sizing: Setup,
    /// For jitter; nothing else is drawn.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Shard {
    world: World,
    core: Core,
}

/// All of a shard but its world, so that both can be borrowed for a step.
#[derive(Debug)]
struct Core {
    shard: u8,
    definitions: Definitions,
    /// Who is to be watched from now on, after a reload.
    newcomers: Newcomers,
    clock: TickClock,
    wheel: Wheel,
    classes: Classes,
    bounds: Bounds,
    slots: Slots,
    names: Names,
    /// Names that redirects led to.
    strangers: Strangers,
    judging: VecDeque<TimedOut>,
    pushes: Pushes,
    host: HostDrops,
    /// Steps of handshakes that this step may still make.
    handshakes_left: usize,
    /// Flights with something that was put off, oldest first. One may stand here more than once, or have ended.
    behind: VecDeque<(Slot, Generation)>,
    kept: HashMap<u32, Kept, FxBuildHasher>,
    rng: fastrand::Rng,
    stats: ShardStats,
    recording: Recording,
    enabled: usize,
    last_step: Instant,
    next_audit: Instant,
    /// The ready list may hold more than one step started.
    starved: bool,
    desk_full: bool,
    draining: bool,
    /// Whether half-open checks can be had.
    half_open: bool,
    ops: Ops,
    expired: Vec<Slot>,
}

/// A check that nothing answered, until the host's counters are known.
#[derive(Debug)]
struct TimedOut {
    monitor: u32,
    due: Tick,
    started: Instant,
    deadline: Instant,
    outcome: Outcome,
}

/// What is remembered of a monitor that is not ok.
#[derive(Debug)]
struct Kept {
    status: Option<u16>,
    latency: Latency,
    evidence: Option<Box<str>>,
}

impl Shard {
    pub fn new(settings: &Settings, catalog: Arc<Catalog>, now: Instant) -> Self {
        // Counted from the boot, so that a monitor keeps its phase over a restart of the daemon.
        let clock = TickClock::new(Instant::ZERO);
        let len = catalog.roster(settings.shard).index_end();
        let rates = catalog.check_rates(settings.shard);
        let mut shard = Self {
            world: World::new(len),
            core: Core {
                shard: settings.shard,
                definitions: Definitions::new(settings.shard, catalog, Arc::new(Unloaded)),
                newcomers: Newcomers::default(),
                clock,
                wheel: Wheel::new(clock.passed(now)),
                classes: Classes::new(settings.sizing, &rates, now),
                bounds: Bounds::new(Rates::default(), now),
                slots: Slots::new(settings.sizing.bounds.max.max(1), clock, now),
                names: Names::new(),
                strangers: Strangers::default(),
                judging: VecDeque::new(),
                pushes: Pushes::new(),
                host: HostDrops::default(),
                handshakes_left: HANDSHAKES_PER_STEP_MAX,
                behind: VecDeque::new(),
                kept: HashMap::with_hasher(FxBuildHasher),
                rng: fastrand::Rng::with_seed(settings.seed),
                stats: ShardStats::default(),
                recording: Self::empty_recording(),
                enabled: 0,
                last_step: now,
                next_audit: now + LEDGER_EVERY,
                starved: false,
                desk_full: false,
                draining: false,
                half_open: false,
                ops: Ops::default(),
                expired: Vec::new(),
            },
        };
        let Self { world, core } = &mut shard;
        core.admit_all(&mut world.components(), now);
        shard
    }

    /// With what TLS is made from; without it every check that needs TLS is void.
    #[must_use]
    pub fn secured_by(mut self, contexts: Arc<dyn Contexts>) -> Self {
        self.core.definitions.secured_by(contexts);
        self
    }

    /// With other bounds of packets than the default ones.
    #[must_use]
    pub fn bounded_by(mut self, rates: Rates) -> Self {
        self.core.bounds = Bounds::new(rates, self.core.last_step);
        self
    }

    /// Takes what has happened until `now`, which must be read *before* the completions among `events` were drained.
    pub fn step(&mut self, now: Instant, events: &[Event<'_>], effects: &mut Effects) {
        let Self { world, core } = self;
        for event in events {
            if let Event::Reloaded(reload) = event {
                world.grow(reload.catalog.roster(core.shard).index_end());
            }
        }
        let mut components = world.components();
        core.step(&mut components, now, events, effects);
    }

    /// The catalog that all of its monitors are as by now: see [`Event::Reloaded`].
    pub fn generation(&self) -> u64 {
        self.core.definitions.generation()
    }

    /// When the next step is due, were nothing to happen before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline()
    }

    /// Whether a slot's deadline has come by `now`: the driver then asks the kernel once more before it steps, since
    /// the answer may lie there already. Only looks: what has expired is dealt with by the next step, unless a
    /// completion saves it.
    pub fn expires_by(&mut self, now: Instant) -> bool {
        self.core.slots.expire(now, &mut self.core.expired);
        !self.core.expired.is_empty()
    }

    /// Checks that hold a slot.
    pub fn in_flight(&self) -> usize {
        let census = self.core.slots.census();
        census.flights + census.paused
    }

    /// After [`Event::Drain`]: whether the last check has ended.
    pub fn is_drained(&self) -> bool {
        self.core.draining && self.in_flight() == 0 && self.core.judging.is_empty()
    }

    pub const fn stats(&self) -> &ShardStats {
        &self.core.stats
    }

    /// For what the checks of one interval took, by their kind.
    pub fn empty_recording() -> Recording {
        Recording::new("pulse", CheckKind::ALL.map(CheckKind::as_str))
    }

    /// What the checks took since the last time, for an empty recording. It is no event, because nothing here depends on
    /// what has been recorded.
    pub fn exchange_recording(&mut self, empty: Recording) -> Recording {
        std::mem::replace(&mut self.core.recording, empty)
    }

    /// Where every monitor of the roster is, by index. It walks the whole world: for tests and the simulator.
    pub fn places(&self) -> Vec<Place> {
        self.world.components().places().collect()
    }

    /// One monitor's state. Slices of these answer the API.
    pub fn monitor_state(&self, index: u32, now: Instant) -> MonitorState {
        self.core.monitor_state(&self.world.components(), index, now)
    }
}

impl Core {
    fn step(&mut self, c: &mut Components<'_>, now: Instant, events: &[Event<'_>], effects: &mut Effects) {
        self.note_stall(now);
        self.bounds.begin(now);
        self.handshakes_left = HANDSHAKES_PER_STEP_MAX;
        self.pushes.note_step(self.last_step, now);
        self.catch_up(c, now, effects);
        for event in events {
            self.take_event(c, event, now, effects);
        }
        self.apply_changes(c, now, effects);
        self.let_named_go(c, now, effects);
        self.expire(c, now, effects);
        self.judge_timed_out(c, now, effects);
        self.collect_due(c, now);
        self.judge_missed(c, now, effects);
        self.find_overdue(now);
        self.start_checks(c, now, effects);
        self.size(c, now);
        // While nothing is in flight, with the audit: a loss in a long quiet time before a check must not void it.
        let audits = now >= self.next_audit || !self.host.has_base();
        let watches = self.slots.census().flights > 0 || audits && self.enabled > 0;
        if watches && self.host.wants_sample(now, false)
            || !self.judging.is_empty() && self.host.wants_sample(now, true)
        {
            effects.list.push(Effect::SampleHost);
        }
        self.audit(now);
        self.publish();
        self.last_step = now;
    }

    fn take_event(&mut self, c: &mut Components<'_>, event: &Event<'_>, now: Instant, effects: &mut Effects) {
        match event {
            Event::Completed(completion) => self.completed(c, completion, now, effects),
            Event::Begun { slot, generation, at } => self.begun(*slot, *generation, *at),
            Event::Returned { slot, generation, end } => self.returned(c, *slot, *generation, end, now, effects),
            Event::Echoed { slot, generation, sequence, echo } => {
                self.echoed(c, *slot, *generation, *sequence, *echo, now, effects);
            }
            Event::OpenFailed { slot, errno } => {
                tracing::debug!(slot = slot.0, %errno, "no socket for a slot");
                if let Some(entry) = self.slots.get(*slot) {
                    entry.family = None;
                }
            }
            Event::Resolved { name, result } => {
                self.names.answer(name, result, now);
                self.stranger_resolved(c, name, result, now, effects);
            }
            Event::HostSampled(sample) => self.host.sampled(*sample),
            Event::Pushed { index, ok, message } => self.called(c, *index, *ok, message, now, effects),
            Event::Command(command) => self.obey(c, *command, now, effects),
            Event::Read { token, indices } => {
                let states = indices.iter().filter(|&&index| self.knows(index));
                let states = states.map(|&index| self.monitor_state(c, index, now)).collect();
                effects.list.push(Effect::Report { token: *token, states });
            }
            Event::HalfOpen(can) => self.half_open = *can,
            Event::Reloaded(reload) => self.reloaded(c, reload, now, effects),
            Event::DeskFull(full) => self.desk_full = *full,
            Event::Drain => self.draining = true,
        }
    }

    /// A loop that did not run although it was due cannot tell a slow target from its own sleep.
    fn note_stall(&mut self, now: Instant) {
        let census = self.slots.census();
        if census.flights + census.paused == 0 || now.since(self.last_step) <= STALL {
            return;
        }
        self.stats.stalls += 1;
        for (_, entry) in self.slots.iter_mut() {
            if let State::Flight(flight) | State::Paused(flight) | State::Hopping(flight) = &mut entry.state {
                flight.stalled = true;
            }
        }
    }

    fn collect_due(&mut self, c: &mut Components<'_>, now: Instant) {
        let mut to = self.clock.passed(now);
        if planted::is(Bug::EarlyFire) {
            to.0 += 1;
        }
        let (definitions, clock) = (&self.definitions, self.clock);
        let (classes, pushes) = (&mut self.classes, &mut self.pushes);
        let mut due = Due { components: c, definitions, clock, classes, pushes, to };
        self.wheel.advance(to, &mut due);
    }

    /// Whether no check may start, whoever waits.
    fn is_held(&self) -> bool {
        let desk_full = self.desk_full && !planted::is(Bug::FullDeskIgnored);
        desk_full || self.draining || !self.host.has_base()
    }

    /// The class whose worker a monitor's next check gets.
    fn class_of(&self, c: &Components<'_>, index: u32) -> Class {
        class_of(c, self.policy(index), index)
    }

    /// Checks that take far longer than their kind are the suspects' business from now on.
    fn find_overdue(&mut self, now: Instant) {
        for class in Class::kinds() {
            while let Some((slot, slotted)) = {
                let flies = |slot, slotted| self.slots.flies(slot, slotted);
                self.classes.next_overdue(class, &self.slots.census().busy, now, flies)
            } {
                self.slots.make_suspect(slot, slotted, now);
                self.classes.became_suspect(now);
                self.stats.overdue += 1;
            }
        }
    }

    /// How many workers each class has.
    fn size(&mut self, c: &Components<'_>, now: Instant) {
        let (clock, passed) = (self.clock, self.clock.passed(now));
        let waited = |resolved: Option<&Resolved>, ready: Option<u32>| match (resolved, ready) {
            (Some(resolved), _) => now.since(clock.instant(resolved.waiting.due) + resolved.took),
            (None, Some(index)) => now.since(clock.instant(Tick::from_low(c.timing(index).due, passed))),
            (None, None) => Span::ZERO,
        };
        if self.classes.adjust(now, &self.slots.census().busy, waited) {
            self.classes.reports(now, &mut self.stats.sizing);
            // Who waits for one of them need not wait for something to happen.
            self.starved |= !self.is_held() && self.classes.may_any_start(&self.slots.census().busy);
        }
    }

    /// Class by class: first what waited for an address, then the ready list, oldest first, while there are workers.
    fn start_checks(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        self.starved = false;
        self.bounds.forget_waiting();
        if self.is_held() {
            return;
        }
        let mut budget = STARTS_PER_STEP_MAX;
        'classes: for class in self.classes.in_turn() {
            if class == Class::SUSPECTS && planted::is(Bug::SuspectsForgotten) {
                continue;
            }
            while budget > 0
                && let Some(next) = self.classes.next(class, &self.slots.census().busy)
            {
                if budget.is_multiple_of(READ_AHEAD) {
                    let roster = self.definitions.current().roster(self.shard);
                    roster.read_ahead(self.classes.ahead(class).take(READ_AHEAD));
                }
                let index = match &next {
                    Next::Resolved(resolved) => resolved.waiting.monitor,
                    Next::Ready(index) => *index,
                };
                if self.bounds.held_until(&self.definitions.policy(index).check).is_some() {
                    // It looks again when the bound has room; other classes need not wait for that.
                    self.classes.put_back(class, next);
                    continue 'classes;
                }
                let started = match &next {
                    Next::Resolved(resolved) => self.launch(c, class, resolved, now, effects),
                    Next::Ready(index) => self.start_due(c, class, *index, now, effects),
                };
                if !started {
                    self.classes.put_back(class, next);
                    return;
                }
                budget -= 1;
            }
            self.starved |= self.classes.may_start(class, &self.slots.census().busy);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.starved || !self.behind.is_empty() || self.has_missed() || self.definitions.are_changing() {
            return Some(self.last_step);
        }
        let census = self.slots.census();
        let in_flight = census.flights + census.paused > 0;
        let lets_go = self.names.has_answered() && !self.desk_full;
        let candidates = [
            lets_go.then_some(self.last_step),
            self.wheel.next().map(|tick| self.clock.instant(tick)),
            self.slots.next_deadline(),
            self.bounds.until(),
            self.classes.next_deadline(&census.busy),
            in_flight.then(|| self.last_step + FLIGHT_WAIT_MAX),
            // As `step` asks for readings: a deadline that no step acts on would make the loop spin.
            if census.flights > 0 { self.host.next_sample(false) } else { None },
            if self.judging.is_empty() { None } else { self.host.next_sample(true) },
            (self.enabled > 0).then_some(self.next_audit),
        ];
        candidates.into_iter().flatten().min()
    }

    /// The places, each counted by what holds the monitors there, must sum to the enabled monitors.
    fn audit(&mut self, now: Instant) {
        if now < self.next_audit {
            return;
        }
        self.next_audit = now + LEDGER_EVERY;
        let lost = self.enabled.abs_diff(self.ledger().iter().sum());
        if lost > 0 {
            tracing::error!(lost, ledger = ?self.ledger(), enabled = self.enabled, "monitors are not where they should be");
        }
        self.stats.lost = lost as u64;
    }

    /// How many monitors each place holds: wheel, ready, resolving, flight, pause, judging.
    fn ledger(&self) -> [usize; 6] {
        let census = self.slots.census();
        [
            self.wheel.len(),
            self.classes.ready(),
            self.names.waiting() + self.classes.resolved_waiting(),
            census.flights,
            census.paused,
            self.judging.len() + self.pushes.missed(),
        ]
    }

    fn publish(&mut self) {
        let census = self.slots.census();
        self.stats.ready = self.classes.ready() as u64;
        self.stats.in_flight = (census.flights + census.paused) as u64;
        self.stats.slots = self.slots.len() as u64;
        self.stats.idle_connections = census.idle as u64;
    }

    /// Lays every enabled monitor on the wheel, the first checks spread evenly over a short while.
    fn admit_all(&mut self, c: &mut Components<'_>, now: Instant) {
        let catalog = Arc::clone(self.definitions.current());
        let roster = catalog.roster(self.shard);
        let enabled = roster.indices().filter(|&index| roster.is_enabled(index)).count() as u64;
        for index in roster.indices() {
            if roster.is_enabled(index) {
                self.enabled += 1;
                self.stats.monitors[state_index(c.health(index))] += 1;
                self.admit(c, index, enabled, now);
            } else {
                c.health_mut(index).disable(0);
                self.stats.monitors[state_index(c.health(index))] += 1;
            }
        }
    }

    /// Lays one monitor on the wheel, its first check within a window that grows with `company`.
    fn admit(&mut self, c: &mut Components<'_>, index: u32, company: u64, now: Instant) {
        if self.await_first_call(c, index, now) {
            return;
        }
        let interval = self.policy(index).interval;
        let window = interval.min(Span::from_secs(5).max(Span::from_millis(company.saturating_mul(10))));
        if window == interval {
            let passed = self.clock.passed(now);
            let interval = verdict::ticks(interval);
            let first = self.next_on_phase(index, interval, Tick(passed.0.saturating_sub(interval)), passed);
            self.lay(c, index, first, false);
            return;
        }
        let name = self.definitions.name(index);
        let first = self.clock.due(now + phase_of(name, window));
        self.lay(c, index, first, true);
    }

    fn lay(&mut self, c: &mut Components<'_>, index: u32, due: Tick, off_phase: bool) {
        let due = if planted::is(Bug::LostFromWheel) && due.0.is_multiple_of(64) {
            // Into another slot than the one that its due time says: it counts for ever, and never comes out.
            self.wheel.insert(index, Tick(due.0 + 7));
            due
        } else {
            self.wheel.insert(index, due)
        };
        let timing = c.timing_mut(index);
        timing.due = due.low();
        timing.place = Place::Wheel;
        timing.off_phase = off_phase;
    }

    fn id(&self, index: u32) -> MonitorId {
        MonitorId::new(self.shard, index)
    }

    fn knows(&self, index: u32) -> bool {
        self.definitions.knows(index)
    }

    fn policy(&self, index: u32) -> &Arc<Policy> {
        self.definitions.policy(index)
    }
}

/// A monitor that is suspect or down is checked among the suspects.
fn class_of(c: &Components<'_>, policy: &Policy, index: u32) -> Class {
    match c.health(index).phase() {
        Phase::Suspect | Phase::Failing | Phase::Unproven => Class::SUSPECTS,
        Phase::Unknown | Phase::Up | Phase::Disabled => Class::of(policy.check.kind()),
    }
}

/// Where a monitor counts in [`protocol::STATES`].
const fn state_index(health: &Health) -> usize {
    if health.is_obscured() {
        return 0;
    }
    match health.phase() {
        Phase::Unknown | Phase::Unproven => 0,
        Phase::Up => 1,
        Phase::Suspect => 2,
        Phase::Failing => 6,
        Phase::Disabled => 8,
    }
}

/// What the wheel asks and tells.
struct Due<'a, 'c> {
    components: &'a mut Components<'c>,
    definitions: &'a Definitions,
    clock: TickClock,
    classes: &'a mut Classes,
    pushes: &'a mut Pushes,
    to: Tick,
}

impl Owner for Due<'_, '_> {
    fn due(&self, id: u32) -> Option<Tick> {
        let timing = self.components.timing(id);
        (timing.place == Place::Wheel).then(|| Tick::from_low(timing.due, self.to))
    }

    fn fire(&mut self, id: u32) {
        if self.pushes.await_call_of(id) {
            self.components.timing_mut(id).place = Place::Judging;
            return self.pushes.fire(id);
        }
        let timing = self.components.timing_mut(id);
        timing.place = Place::Ready;
        let due = self.clock.instant(Tick::from_low(timing.due, self.to));
        self.classes.arrived(class_of(self.components, self.definitions.policy(id), id), id, due);
    }
}
