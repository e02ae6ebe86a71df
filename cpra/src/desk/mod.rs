//! The desk: the one place that decides what people are told.
//!
//! It hears of transitions only, owns the episodes, and lets nothing leave before it is durable:
//!
//! ```text
//!  transition ──▶ domain::episode::step ──▶ records ──Commit──▶ store ──Durable──▶ outbox ──Deliver──▶ code lane
//!                        │                                                                                 │
//!                        └──▶ commands to the shards            done for good ◀──────────Delivered─────────┘
//! ```
//! A pure step function like the shard: no clock, no I/O. What was sent is under keys that do not change (see
//! [`DeliveryKey`](crate::domain::DeliveryKey)), and what was not is found in the store by the next process ([`restore`]).
//!
//! Rooms: [`episodes`] (from a transition to records, notices and the story), [`notices`] (what is written into them, and what
//! becomes of them), [`outbox`] (when they leave), [`repeats`] (reminders, and what would be forgotten), [`own`] (what
//! is wrong with the daemon itself), [`void`] (who cannot be judged), [`wishes`] (what people want), [`questions`].
//!
//! Memory: one record per open episode, per disabled monitor and per monitor that cannot be judged; the outbox holds
//! what has not been delivered. Healthy monitors cost one bit here.

mod bundles;
mod episodes;
mod merging;
mod notices;
mod outbox;
mod own;
pub mod protocol;
mod questions;
mod reload;
mod repeats;
mod restore;
mod seen;
mod stored;
#[cfg(test)]
mod tests;
mod void;
mod wishes;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
pub use protocol::{DeskStats, Effect, Event};
use rustc_hash::FxBuildHasher;

use self::bundles::Bundles;
use self::outbox::{Durability, Outbox};
use self::own::Own;
use self::protocol::{Answer, Batch, Change, Record, Stored, Told};
use self::repeats::Repeats;
use self::seen::Seen;
use self::void::VoidWatch;
use crate::domain::Destination;
use crate::domain::episode::{self, State};
use crate::domain::notice::EpisodeId;
use crate::shard::protocol::{Command, CommandKind};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

/// How the desk is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every incident key.
    pub instance: Box<str>,
    /// Most notices handed to the code lane at a time.
    pub queue_capacity: usize,
    /// Who hears of the daemon itself, and of what others did not take.
    pub fallback: Arc<Destination>,
    /// How often people are reminded of what is still down; `None`: not at all.
    pub repeat_interval: Option<Span>,
    /// Whether many raises at one destination are told together where people read or are woken.
    pub merges: bool,
    /// For the random part of ULIDs, and for pauses.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    catalog: Arc<Catalog>,
    rng: fastrand::Rng,
    started: Instant,
    wall: (Instant, Timestamp),
    /// What the store held, until the wall clock is known.
    stored: Option<Box<Stored>>,
    /// Whether raises wait for a moment after the start.
    holds: bool,
    seen: Seen,
    /// Absent is what has no episode, is watched, and never was switched: nearly all of them.
    monitors: HashMap<MonitorId, Monitor, FxBuildHasher>,
    /// Those with an open episode, oldest first: a question must not walk them all while alerts wait.
    open: BTreeSet<(Timestamp, MonitorId)>,
    own: Vec<Own>,
    void: VoidWatch,
    repeats: Repeats,
    bundles: Bundles,
    outbox: Outbox,
    records: Vec<Record>,
    sequence: u64,
    durable: u64,
    /// Commits without an answer, and when each was handed over.
    commits: VecDeque<(u64, Instant)>,
    recent: VecDeque<Change>,
    draining: bool,
    stats: DeskStats,
}

#[derive(Debug)]
struct Monitor {
    state: State,
    epoch: u8,
    episode: Option<Episode>,
}

impl Monitor {
    /// Whether absence says the same.
    const fn is_ordinary(&self) -> bool {
        matches!(self.state, State::Unknown | State::Up) && self.episode.is_none() && self.epoch == 0
    }

    /// What comes with an older epoch does not count any more.
    fn begin_epoch(&mut self) -> u8 {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.epoch
    }
}

/// The record of an episode while it is open.
#[derive(Debug)]
struct Episode {
    id: EpisodeId,
    opened: Timestamp,
    cause: Box<str>,
    yellow: bool,
    red: bool,
    /// The number of the last reminder.
    reminders: u32,
    /// Who got a raise: they get the resolve, whatever the configuration says by then.
    told: Vec<Told>,
    /// When people are reminded, and when it is refreshed for those who would forget it.
    reminder: Option<Instant>,
    refresh: Option<Instant>,
}

impl Desk {
    /// With what the store held; it is taken up when the wall clock is first told ([`Event::Wall`]).
    pub fn new(settings: Settings, catalog: Arc<Catalog>, stored: Stored, now: Instant) -> Self {
        let rng = fastrand::Rng::with_seed(settings.seed);
        Self {
            settings,
            catalog,
            rng,
            started: now,
            wall: (now, Timestamp::default()),
            holds: stored.is_new,
            stored: Some(Box::new(stored)),
            seen: Seen::default(),
            monitors: HashMap::with_hasher(FxBuildHasher),
            open: BTreeSet::new(),
            own: Vec::new(),
            void: VoidWatch::default(),
            repeats: Repeats::default(),
            bundles: Bundles::default(),
            outbox: Outbox::default(),
            records: Vec::new(),
            sequence: 0,
            durable: 0,
            commits: VecDeque::new(),
            recent: VecDeque::new(),
            draining: false,
            stats: DeskStats::default(),
        }
    }

    pub fn step(&mut self, now: Instant, events: Vec<Event>, effects: &mut Vec<Effect>) {
        for event in events {
            self.take_event(event, now, effects);
        }
        self.watch_void(now, effects);
        self.watch_store(now, effects);
        self.watch_outbox(now, effects);
        self.repeat(now);
        self.tell_together(now);
        self.commit(now, effects);
        self.deliver(now, effects);
        self.stats.outstanding = self.outbox.outstanding() as u64;
        self.stats.waiting = self.outbox.waiting() as u64;
        self.stats.outbox = self.outbox.counts();
        self.stats.oldest_notice = self.outbox.oldest();
    }

    /// When the next step is due, were nothing to happen before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let outbox = self.outbox.next_deadline(self.durability(), self.settings.queue_capacity);
        let others = [
            self.void.next_deadline(),
            self.silence_deadline(),
            self.repeats.next_deadline(),
            self.bundles.next_deadline(),
        ];
        others.into_iter().chain([outbox]).flatten().min()
    }

    /// After [`Event::Drain`]: whether everything is delivered and durable. What is not, when nobody waits any longer, is in
    /// the store, and the next process has it.
    pub fn is_drained(&self) -> bool {
        self.draining && self.outbox.waiting() == 0 && self.outbox.outstanding() == 0 && self.commits.is_empty()
    }

    pub const fn stats(&self) -> &DeskStats {
        &self.stats
    }

    fn take_event(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        if let Event::Wall { at, shows } = event {
            self.wall = (at, shows);
        }
        if let Some(stored) = self.stored.take() {
            self.restore(*stored, now, effects);
        }
        match event {
            Event::Transition(transition) => self.take_transition(&transition, effects),
            Event::Durable(sequence) => {
                self.durable = self.durable.max(sequence);
                while self.commits.front().is_some_and(|(first, _)| *first <= self.durable) {
                    self.commits.pop_front();
                }
            }
            Event::Delivered { notice, delivered } => self.delivered(notice, delivered, now, effects),
            Event::Disable(monitor) => self.switch(monitor, episode::Event::Disabled, now, effects),
            Event::Enable(monitor) => self.switch(monitor, episode::Event::Enabled, now, effects),
            Event::Reloaded { catalog, changes, fallback, who } => {
                self.reloaded(catalog, &changes, fallback, who, now, effects);
            }
            Event::Wall { .. } => {}
            Event::Drain => {
                self.draining = true;
                self.repeats.forget_all();
                self.bundles.hurry(now);
                self.outbox.release_all();
            }
            Event::Outbox { token, change, selection, who } => {
                let changed = self.change_outbox(change, &selection, who, now);
                effects.push(Effect::Report { token, answer: Answer::Changed(changed) });
            }
            Event::Test { token, destination, color, who } => {
                let id = self.test(&destination, color, who, now);
                effects.push(Effect::Report { token, answer: Answer::Queued(id) });
            }
            Event::Read { token, question } => {
                let answer = self.answer(question, now);
                effects.push(Effect::Report { token, answer });
            }
        }
    }

    /// A person's or the reload's word: watch it, or do not.
    fn switch(&mut self, monitor: MonitorId, event: episode::Event, now: Instant, effects: &mut Vec<Effect>) {
        if !self.knows(monitor) {
            return;
        }
        let before = self.state(monitor);
        let disable = event == episode::Event::Disabled;
        if disable == (before == State::Disabled) {
            return;
        }
        // Before the step: a record of epoch 0 may be dropped by it, and its new state with it.
        let known = self.monitors.entry(monitor).or_insert(Monitor { state: before, epoch: 0, episode: None });
        let epoch = known.begin_epoch();
        self.advance(monitor, event, now, None, effects);
        self.void.ended(monitor);
        let kind = if disable { CommandKind::Disable { epoch } } else { CommandKind::Enable { epoch } };
        effects.push(Effect::Command(Command { monitor, kind }));
        let name = self.catalog.name(monitor).into();
        // Who says what the file says has nothing to say any more: the file may change its mind.
        let is_word = disable == self.is_enabled_by_file(monitor);
        self.records.push(if is_word {
            Record::Switched { monitor: name, enabled: !disable }
        } else {
            Record::SwitchForgotten { monitor: name }
        });
    }

    fn knows(&self, monitor: MonitorId) -> bool {
        self.catalog.knows(monitor)
    }

    fn is_enabled_by_file(&self, monitor: MonitorId) -> bool {
        self.catalog.roster(monitor.shard()).is_enabled(monitor.index())
    }

    fn state(&self, monitor: MonitorId) -> State {
        match self.monitors.get(&monitor) {
            Some(known) => known.state,
            None if self.is_enabled_by_file(monitor) => State::Unknown,
            None => State::Disabled,
        }
    }

    fn commit(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.records.is_empty() {
            return;
        }
        self.sequence += 1;
        self.stats.commits += 1;
        self.commits.push_back((self.sequence, now));
        effects.push(Effect::Commit(Batch { sequence: self.sequence, records: std::mem::take(&mut self.records) }));
    }

    fn deliver(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let durability = self.durability();
        while let Some(departure) = self.outbox.depart(now, durability, self.settings.queue_capacity) {
            self.stats.nondurable += u64::from(!departure.durable);
            effects.push(Effect::Deliver { id: departure.id, notice: departure.notice });
        }
    }

    fn durability(&self) -> Durability {
        Durability { durable: self.durable, silent_since: self.commits.front().map(|(_, since)| *since) }
    }

    fn new_episode_id(&mut self, at: Instant) -> EpisodeId {
        episode_id(self.wall_of(at), &mut self.rng)
    }

    fn wall_of(&self, at: Instant) -> Timestamp {
        let (known, shows) = self.wall;
        let ahead = at.since(known).as_micros().cast_signed() - known.since(at).as_micros().cast_signed();
        Timestamp::from_micros(shows.as_micros().saturating_add(ahead))
    }
}

/// A ULID of this time.
fn episode_id(at: Timestamp, rng: &mut fastrand::Rng) -> EpisodeId {
    let random = u128::from(rng.u64(..)) << 64 | u128::from(rng.u64(..));
    EpisodeId(ulid::Ulid::from_parts(at.as_millis_unsigned(), random).into())
}
