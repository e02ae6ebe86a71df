//! The desk: the one place that decides what people are told.
//!
//! It hears of transitions only, owns the episodes, and lets nothing leave before it is durable:
//!
//! ```text
//!  transition ──▶ domain::episode::step ──▶ records ──Commit──▶ store ──Durable──▶ outbox ──Deliver──▶ code lane
//!                        │                                                                                 │
//!                        └──▶ commands to the shards            done for good ◀──────────Delivered─────────┘
//! ```
//! A pure step function like the shard: no clock, no I/O. What is not durable when the process dies is not sent
//! either; what was sent is under keys that do not change (see [`DeliveryKey`]).
//!
//! Memory: one record per open episode, per disabled monitor and per monitor that cannot be judged; the outbox holds
//! what has not been delivered. Healthy monitors cost nothing here.

mod outbox;
pub mod protocol;
mod reload;
mod void;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
pub use protocol::{DeskStats, Effect, Event};
use rustc_hash::FxBuildHasher;

use self::outbox::{Durability, Outbox};
use self::protocol::{
    Answer, Batch, Change, Delivered, EpisodeRecord, EpisodeView, Question, Record, Stored, Story, StoryKind,
};
use self::void::{Due, VoidWatch};
use crate::domain::episode::{self, Act, State};
use crate::domain::health::TransitionKind;
use crate::domain::monitor::{About, Dispatch};
use crate::domain::notice::EpisodeId;
use crate::domain::{Code, Color, DeliveryKey, Destination, Incident, Notice, Outcome, Policy, Raise};
use crate::shard::protocol::{Command, CommandKind, Transition};
use crate::units::limits::{RAISE_HOLD_MAX, RECENT_CHANGES_MAX};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

/// How the desk is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every incident key.
    pub instance: Box<str>,
    /// Most notices handed to the code lane at a time.
    pub queue_capacity: usize,
    /// Who hears of the daemon itself.
    pub fallback: Arc<Destination>,
    /// For the random part of ULIDs.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    catalog: Arc<Catalog>,
    rng: fastrand::Rng,
    started: Instant,
    wall: (Instant, Timestamp),
    /// Absent is what has no episode, is watched, and never was switched: nearly all of them.
    monitors: HashMap<MonitorId, Monitor, FxBuildHasher>,
    /// Those with an open episode, oldest first: a question must not walk them all while alerts wait.
    open: BTreeSet<(Timestamp, MonitorId)>,
    void: VoidWatch,
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
}

/// The record of an episode while it is open.
#[derive(Debug)]
struct Episode {
    id: EpisodeId,
    opened: Timestamp,
    cause: Box<str>,
    yellow: bool,
    red: bool,
    /// Who got a raise: they get the resolve, whatever the configuration says by then.
    told: Vec<(Arc<Destination>, Color)>,
}

impl Episode {
    fn record(&self, monitor: MonitorId, state: State, catalog: &Catalog) -> EpisodeRecord {
        EpisodeRecord {
            id: self.id,
            monitor: Some(catalog.name(monitor).into()),
            definition: catalog.definition(monitor),
            state,
            opened: self.opened,
            cause: self.cause.clone(),
            yellow: self.yellow,
            red: self.red,
            reminders: 0,
            told: self.told.clone(),
        }
    }
}

/// What a notice is about, gathered once per transition.
struct Subject<'a> {
    monitor: MonitorId,
    policy: &'a Policy,
    event: episode::Event,
    at: Instant,
    outcome: Option<&'a Outcome>,
}

impl Desk {
    /// With what the store held.
    pub fn new(settings: Settings, catalog: Arc<Catalog>, _stored: Stored, now: Instant) -> Self {
        let rng = fastrand::Rng::with_seed(settings.seed);
        Self {
            settings,
            catalog,
            rng,
            started: now,
            wall: (now, Timestamp::default()),
            monitors: HashMap::with_hasher(FxBuildHasher),
            open: BTreeSet::new(),
            void: VoidWatch::default(),
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
        self.commit(now, effects);
        self.deliver(now, effects);
        self.stats.outstanding = self.outbox.outstanding() as u64;
        self.stats.waiting = self.outbox.waiting() as u64;
    }

    /// When the next step is due, were nothing to happen before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let outbox = self.outbox.next_deadline(self.durability(), self.settings.queue_capacity);
        [self.void.next_deadline(), outbox].into_iter().flatten().min()
    }

    /// After [`Event::Drain`]: whether everything is delivered and durable.
    pub fn is_drained(&self) -> bool {
        self.draining && self.outbox.waiting() == 0 && self.outbox.outstanding() == 0 && self.commits.is_empty()
    }

    pub const fn stats(&self) -> &DeskStats {
        &self.stats
    }

    fn take_event(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        match event {
            Event::Transition(transition) => self.take_transition(&transition, effects),
            Event::Durable(sequence) => {
                self.durable = self.durable.max(sequence);
                while self.commits.front().is_some_and(|(first, _)| *first <= self.durable) {
                    self.commits.pop_front();
                }
            }
            Event::Delivered { notice, delivered } => self.delivered(notice, delivered, now),
            Event::Disable(monitor) => self.switch(monitor, episode::Event::Disabled, now, effects),
            Event::Enable(monitor) => self.switch(monitor, episode::Event::Enabled, now, effects),
            Event::Reloaded { catalog, changes, who } => self.reloaded(catalog, &changes, who, now, effects),
            Event::Wall { at, shows } => self.wall = (at, shows),
            Event::Drain => {
                self.draining = true;
                self.outbox.release_all();
            }
            // With the outbox of the next change.
            Event::Outbox { token, .. } | Event::Test { token, .. } => {
                effects.push(Effect::Report { token, answer: Answer::Changed(0) });
            }
            Event::Read { token, question } => {
                let answer = self.answer(question, now);
                effects.push(Effect::Report { token, answer });
            }
        }
    }

    fn take_transition(&mut self, transition: &Transition, effects: &mut Vec<Effect>) {
        let Transition { monitor, epoch, kind, at, ref outcome } = *transition;
        let known = self.monitors.get(&monitor);
        if known.map_or(0, |known| known.epoch) != epoch {
            self.stats.stale_transitions += 1;
            if !planted::is(Bug::StaleEpochAccepted) {
                return;
            }
        }
        self.stats.transitions += 1;
        let event = match kind {
            TransitionKind::FirstOk => episode::Event::FirstOk,
            TransitionKind::Fail1 => episode::Event::Fail1,
            TransitionKind::Threshold => episode::Event::Threshold,
            TransitionKind::Rise => episode::Event::Rise,
            TransitionKind::Degraded => episode::Event::Warned,
            TransitionKind::Clean => episode::Event::Clean,
            TransitionKind::VoidBegan => {
                self.void.began(monitor, at, outcome.cause());
                episode::Event::Void
            }
            TransitionKind::VoidEnded => {
                self.void.ended(monitor);
                episode::Event::Void
            }
        };
        self.advance(monitor, event, at, Some(outcome), effects);
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
        known.epoch = known.epoch.checked_add(1).unwrap_or(1);
        let epoch = known.epoch;
        self.advance(monitor, event, now, None, effects);
        self.void.ended(monitor);
        let kind = if disable { CommandKind::Disable { epoch } } else { CommandKind::Enable { epoch } };
        effects.push(Effect::Command(Command { monitor, kind }));
        let name = self.catalog.name(monitor).into();
        self.records.push(Record::Switched { monitor: name, enabled: !disable });
    }

    fn knows(&self, monitor: MonitorId) -> bool {
        self.catalog.knows(monitor)
    }

    fn state(&self, monitor: MonitorId) -> State {
        match self.monitors.get(&monitor) {
            Some(known) => known.state,
            None if self.catalog.roster(monitor.shard()).is_enabled(monitor.index()) => State::Unknown,
            None => State::Disabled,
        }
    }

    /// One step of the table, and all that follows from it.
    fn advance(
        &mut self,
        monitor: MonitorId,
        event: episode::Event,
        at: Instant,
        outcome: Option<&Outcome>,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.state(monitor);
        let (after, acts) = episode::step(before, event);
        if after == before && acts.is_empty() {
            return;
        }
        let catalog = Arc::clone(&self.catalog);
        let policy = catalog.policy(monitor);
        let subject = Subject { monitor, policy, event, at, outcome };
        let known = self.monitors.entry(monitor).or_insert(Monitor { state: before, epoch: 0, episode: None });
        known.state = after;
        let mut episode = known.episode.take();
        for act in acts {
            self.act(*act, &subject, &mut episode);
        }
        self.tell_story(before, after, event, &subject, episode.as_ref(), effects);
        if acts.contains(&Act::Close)
            && let Some(closed) = episode.take()
        {
            self.records.push(Record::EpisodeClosed { episode: closed.id, at: self.wall_of(at) });
            self.open.remove(&(closed.opened, monitor));
            self.stats.episodes_open -= 1;
        }
        if let Some(episode) = &episode {
            self.records.push(Record::Episode(Box::new(episode.record(monitor, after, &catalog))));
        }
        if let Some(known) = self.monitors.get_mut(&monitor) {
            known.episode = episode;
            if known.is_ordinary() {
                self.monitors.remove(&monitor);
            }
        }
    }

    fn act(&mut self, act: Act, subject: &Subject<'_>, episode: &mut Option<Episode>) {
        match (act, episode) {
            (Act::Open, episode) => {
                let id = self.new_episode_id(subject.at);
                let cause = subject.outcome.map_or("", Outcome::cause).into();
                let opened = self.wall_of(subject.at);
                self.open.insert((opened, subject.monitor));
                self.stats.episodes_open += 1;
                *episode = Some(Episode { id, opened, cause, yellow: false, red: false, told: Vec::new() });
            }
            (Act::SeenOk, _) => {
                let (monitor, definition) =
                    (self.catalog.name(subject.monitor).into(), self.catalog.definition(subject.monitor));
                self.records.push(Record::SeenOk { monitor, definition });
            }
            (Act::Yellow, Some(episode)) if !episode.yellow => {
                episode.yellow = true;
                self.raise(Color::Yellow, subject, episode);
            }
            (Act::Red, Some(episode)) if !episode.red || planted::is(Bug::DoubledRed) => {
                episode.red = true;
                self.raise(Color::Red, subject, episode);
            }
            (Act::RedIfAlways, Some(episode)) if !episode.red => {
                let rule = subject.policy.codes.rule(Color::Red);
                if rule.is_some_and(|rule| rule.dispatch == Dispatch::Always) {
                    episode.red = true;
                    self.raise(Color::Red, subject, episode);
                }
            }
            (Act::Resolve, Some(episode)) => self.resolve(Color::Green, Raise::Resolve, subject, episode),
            (Act::Gray, Some(episode)) => self.resolve(Color::Gray, Raise::Gray, subject, episode),
            (Act::Gray, None) => {
                let (id, opened) = (self.new_episode_id(subject.at), self.wall_of(subject.at));
                let lone = Episode { id, opened, cause: "".into(), yellow: false, red: false, told: Vec::new() };
                for destination in subject.policy.codes.destinations(Color::Gray) {
                    self.send(Color::Gray, Raise::Gray, destination, subject, &lone);
                }
            }
            (Act::Close, _) | (Act::Yellow | Act::Red | Act::RedIfAlways | Act::Resolve, _) => {}
        }
    }

    fn raise(&mut self, color: Color, subject: &Subject<'_>, episode: &mut Episode) {
        let raise = if color == Color::Red { Raise::Red } else { Raise::Yellow };
        for destination in subject.policy.codes.destinations(color) {
            self.send(color, raise, destination, subject, episode);
            episode.told.push((Arc::clone(destination), color));
        }
    }

    /// Tells the end: everyone who got a raise, and the color's own destinations, each once. Nobody, if nobody was
    /// told of the beginning and it is a green.
    fn resolve(&mut self, color: Color, raise: Raise, subject: &Subject<'_>, episode: &Episode) {
        if episode.told.is_empty() && color == Color::Green {
            return;
        }
        let mut destinations: Vec<&Arc<Destination>> = Vec::new();
        let own = subject.policy.codes.destinations(color);
        for destination in episode.told.iter().map(|(destination, _)| destination).chain(own) {
            if !destinations.contains(&destination) {
                destinations.push(destination);
            }
        }
        if planted::is(Bug::LostGreen) && color == Color::Green {
            destinations.pop();
        }
        for destination in destinations {
            self.send(color, raise, destination, subject, episode);
        }
    }

    fn send(
        &mut self,
        color: Color,
        raise: Raise,
        destination: &Arc<Destination>,
        subject: &Subject<'_>,
        episode: &Episode,
    ) {
        let catalog = Arc::clone(&self.catalog);
        let name = catalog.name(subject.monitor);
        let lasted = self.wall_of(subject.at).since(episode.opened);
        let notice = Notice {
            key: DeliveryKey { episode: episode.id, raise, destination: Arc::clone(destination), n: 0 },
            incident: Incident::new(&self.settings.instance, name, episode.id),
            monitor: Some(subject.monitor),
            monitor_name: name.into(),
            color,
            summary: summary(color, name, subject, lasted).into(),
            outcome: subject.outcome.map(|outcome| outcome.code),
            at: self.wall_of(subject.at),
            lasted,
            groups: subject.policy.groups.clone(),
            about: subject.policy.about.clone(),
            test: false,
        };
        // Without stored state everything that is down raises at once after a start: give it a moment.
        let hold = self.started + subject.policy.interval.min(RAISE_HOLD_MAX);
        let not_before = if self.draining { subject.at } else { hold };
        self.queue(Box::new(notice), not_before, subject.at);
    }

    fn queue(&mut self, notice: Box<Notice>, not_before: Instant, now: Instant) {
        let recorded = notice.clone();
        let id = self.outbox.add(notice, self.sequence + 1, not_before, now);
        self.records.push(Record::NoticeQueued { id, notice: recorded });
    }

    fn delivered(&mut self, id: protocol::NoticeId, delivered: Delivered, now: Instant) {
        let Some(notice) = self.outbox.outstanding_notice(id) else { return };
        let provider = notice.key.destination.provider.index();
        let result = delivered.result;
        self.stats.notices[notice.color as usize][provider][result as usize] += 1;
        let at = self.wall_of(now);
        self.records.push(Record::NoticeTried { id, at, delivered });
        if self.outbox.finished(id, result, now).is_some() {
            self.records.push(Record::NoticeDone { id, at });
        }
    }

    fn watch_void(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(due) = self.void.due(now) {
            match due {
                Due::Obscure(monitor) => {
                    effects.push(Effect::Command(Command { monitor, kind: CommandKind::Obscure }));
                }
                Due::Raise { count, reason } => {
                    let id = self.new_episode_id(now);
                    self.void.raised(id);
                    let monitors = if count == 1 { "1 monitor".to_owned() } else { format!("{count} monitors") };
                    self.send_own(Color::Yellow, Raise::Yellow, id, &format!("cannot check {monitors}: {reason}"), now);
                    self.narrate(
                        None,
                        now,
                        StoryKind::Color(Color::Yellow),
                        &format!("cannot check {monitors}: {reason}"),
                        effects,
                    );
                }
                Due::Resolve(id) => {
                    self.send_own(Color::Green, Raise::Resolve, id, "all monitors can be checked again", now);
                    self.narrate(
                        None,
                        now,
                        StoryKind::Color(Color::Green),
                        "all monitors can be checked again",
                        effects,
                    );
                }
            }
        }
    }

    /// A notice about the daemon itself.
    fn send_own(&mut self, color: Color, raise: Raise, id: EpisodeId, text: &str, now: Instant) {
        let notice = Notice {
            key: DeliveryKey { episode: id, raise, destination: Arc::clone(&self.settings.fallback), n: 0 },
            incident: Incident::new(&self.settings.instance, "cpra", id),
            monitor: None,
            monitor_name: "cpra".into(),
            color,
            summary: text.into(),
            outcome: None,
            at: self.wall_of(now),
            lasted: Span::ZERO,
            groups: Box::default(),
            about: About::default(),
            test: false,
        };
        self.queue(Box::new(notice), now, now);
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
        let random = u128::from(self.rng.u64(..)) << 64 | u128::from(self.rng.u64(..));
        EpisodeId(ulid::Ulid::from_parts(self.wall_of(at).as_millis_unsigned(), random).into())
    }

    fn wall_of(&self, at: Instant) -> Timestamp {
        let (known, shows) = self.wall;
        let ahead = at.since(known).as_micros().cast_signed() - known.since(at).as_micros().cast_signed();
        Timestamp::from_micros(shows.as_micros().saturating_add(ahead))
    }

    fn tell_story(
        &mut self,
        before: State,
        after: State,
        event: episode::Event,
        subject: &Subject<'_>,
        episode: Option<&Episode>,
        effects: &mut Vec<Effect>,
    ) {
        let threshold = subject.policy.unhealthy_threshold;
        let cause = subject.outcome.map_or("", Outcome::cause);
        let lasted = episode.map_or(Span::ZERO, |episode| self.wall_of(subject.at).since(episode.opened));
        let (what, text) = match (after, event) {
            (State::Up, episode::Event::FirstOk) => (StoryKind::Up, subject.outcome.map(found).unwrap_or_default()),
            (State::Suspect, _) => (StoryKind::Color(Color::Yellow), format!("{cause} (1 of {threshold})")),
            (State::Degraded, _) => {
                (StoryKind::Color(Color::Yellow), format!("degraded: {cause}{}", in_a_row(threshold)))
            }
            (State::Down(_), _) => {
                let whom = episode.map_or_else(String::new, |episode| whom(&episode.told, Color::Red));
                (StoryKind::Color(Color::Red), format!("{cause} ({threshold} of {threshold}) -> {whom}"))
            }
            (State::Up, episode::Event::Clean) => {
                (StoryKind::Color(Color::Green), format!("no longer degraded after {lasted}"))
            }
            (State::Up, _) if before.is_open() => (StoryKind::Color(Color::Green), format!("up again after {lasted}")),
            (State::Disabled, _) => (StoryKind::Color(Color::Gray), "no longer watched".to_owned()),
            _ => return,
        };
        self.narrate(Some(subject.monitor), subject.at, what, &text, effects);
    }

    fn narrate(
        &mut self,
        monitor: Option<MonitorId>,
        at: Instant,
        what: StoryKind,
        text: &str,
        effects: &mut Vec<Effect>,
    ) {
        let change = Change { at: self.wall_of(at), monitor, what, text: text.into() };
        if self.recent.len() >= RECENT_CHANGES_MAX {
            self.recent.pop_back();
        }
        self.recent.push_front(change);
        effects.push(Effect::Story(Story { monitor, at, what, text: text.into() }));
    }

    fn answer(&self, question: Question, now: Instant) -> Answer {
        match question {
            Question::Monitor(monitor) => Answer::Monitor(self.view(monitor, now)),
            Question::Episodes(most) => {
                let oldest = self.open.iter().take(most);
                Answer::Episodes(oldest.filter_map(|&(_, monitor)| self.view(monitor, now)).collect())
            }
            Question::Outbox(..) => Answer::Outbox(Vec::new()),
            Question::Notice(_) => Answer::Notice(None),
            Question::Recent(most) => Answer::Recent(self.recent.iter().take(most).cloned().collect()),
        }
    }

    fn view(&self, monitor: MonitorId, now: Instant) -> Option<EpisodeView> {
        let known = self.monitors.get(&monitor)?;
        let episode = known.episode.as_ref()?;
        let raised = [Color::Yellow, Color::Red].into_iter().filter_map(|color| {
            let told = episode.told.iter().filter(|(_, raised)| *raised == color).count();
            (told > 0).then_some((color, told))
        });
        Some(EpisodeView {
            monitor,
            incident: Incident::new(&self.settings.instance, self.catalog.name(monitor), episode.id).0,
            state: known.state.as_str(),
            opened: episode.opened,
            lasted: self.wall_of(now).since(episode.opened),
            cause: episode.cause.clone(),
            raised: raised.collect(),
        })
    }
}

/// One line for the notice.
fn summary(color: Color, name: &str, subject: &Subject<'_>, lasted: Span) -> String {
    let threshold = subject.policy.unhealthy_threshold;
    let cause = subject.outcome.map_or("", Outcome::cause);
    match color {
        // Nothing has failed: it is no first step towards a red.
        Color::Yellow if subject.event == episode::Event::Warned => {
            format!("{name} is degraded: {cause}{}", in_a_row(threshold))
        }
        Color::Yellow => format!("{name}: {cause} (1 of {threshold})"),
        // `dispatch: always`: it may be a hiccup, and who is woken must not read otherwise.
        Color::Red if subject.event == episode::Event::Fail1 => format!("{name} failed: {cause} (1 of {threshold})"),
        Color::Red => format!("{name} is down: {cause} ({threshold} of {threshold})"),
        // It never was down.
        Color::Green if subject.event == episode::Event::Clean => {
            format!("{name} is no longer degraded, after {lasted}")
        }
        Color::Green => format!("{name} is up again after {lasted}"),
        Color::Cyan => format!("{name} was repaired"),
        Color::Gray => format!("{name} is no longer watched"),
    }
}

/// How often a warning came before it was told.
fn in_a_row(threshold: u8) -> String {
    if threshold > 1 { format!(" ({threshold} times in a row)") } else { String::new() }
}

/// Who was told of a color, for the story: `log`, `log, pagerduty`.
fn whom(told: &[(Arc<Destination>, Color)], color: Color) -> String {
    let mut providers: Vec<&str> = Vec::new();
    for (destination, _) in told.iter().filter(|(_, raised)| *raised == color) {
        if !providers.contains(&&*destination.name) {
            providers.push(&destination.name);
        }
    }
    if providers.is_empty() { "nobody (codes.red names no one)".to_owned() } else { providers.join(", ") }
}

/// A good outcome in words: `200 in 0.4 ms`.
fn found(outcome: &Outcome) -> String {
    let took = outcome.latency.total;
    match outcome.status {
        Some(status) => format!("{status} in {took}"),
        None if outcome.code == Code::L4Ok => format!("connected in {took}"),
        None if outcome.code == Code::PushOk => outcome
            .evidence
            .as_deref()
            .map_or_else(|| "the job called".to_owned(), |said| format!("the job called: {said}")),
        None => format!("ok in {took}"),
    }
}
