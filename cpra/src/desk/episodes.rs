//! What a transition makes of an episode, and what people at the terminal read about it.
//!
//! The rules are those of [`episode::step`]; here its acts become records and notices. Yellow and red come at most once
//! in an episode, whatever the table asks for.

use std::sync::Arc;

use super::protocol::{Effect, EpisodeRecord, Record, StoryKind, Told};
use super::{Desk, Episode, Monitor};
use crate::domain::episode::{self, Act, State};
use crate::domain::health::TransitionKind;
use crate::domain::monitor::Dispatch;
use crate::domain::notice::EpisodeId;
use crate::domain::{Code, Color, Destination, Outcome, Policy, Raise};
use crate::shard::protocol::Transition;
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

/// What a notice is about, gathered once per transition.
pub(super) struct Subject<'a> {
    pub(super) monitor: MonitorId,
    pub(super) policy: &'a Policy,
    pub(super) event: episode::Event,
    pub(super) at: Instant,
    pub(super) outcome: Option<&'a Outcome>,
}

impl Episode {
    fn new(id: EpisodeId, opened: Timestamp, cause: Box<str>) -> Self {
        let told = Vec::new();
        Self { id, opened, cause, yellow: false, red: false, reminders: 0, told, reminder: None, refresh: None }
    }

    pub(super) fn record(&self, monitor: MonitorId, state: State, catalog: &Catalog) -> EpisodeRecord {
        EpisodeRecord {
            id: self.id,
            monitor: Some(catalog.name(monitor).into()),
            definition: catalog.definition(monitor),
            state,
            opened: self.opened,
            cause: self.cause.clone(),
            yellow: self.yellow,
            red: self.red,
            reminders: self.reminders,
            told: if planted::is(Bug::ToldNotRecorded) { Vec::new() } else { self.told.clone() },
        }
    }
}

impl Desk {
    pub(super) fn take_transition(&mut self, transition: &Transition, effects: &mut Vec<Effect>) {
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

    /// One step of the table, and all that follows from it.
    pub(super) fn advance(
        &mut self,
        monitor: MonitorId,
        event: episode::Event,
        at: Instant,
        outcome: Option<&Outcome>,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.state(monitor);
        let (after, acts) = episode::step(before, event);
        if matches!(event, episode::Event::Disabled | episode::Event::Redefined) {
            self.seen.remove(monitor);
        }
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
            && let Some(mut closed) = episode.take()
        {
            self.repeats.forget(monitor, &mut closed);
            self.records.push(Record::EpisodeClosed { episode: closed.id, at: self.wall_of(at) });
            self.open.remove(&(closed.opened, monitor));
            self.stats.episodes_open -= 1;
        }
        if let Some(episode) = &mut episode {
            self.plan_repeats(monitor, after, episode, at);
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
                *episode = Some(Episode::new(id, opened, cause));
            }
            (Act::SeenOk, _) if !self.seen.insert(subject.monitor) => {}
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
                let lone = Episode::new(id, opened, Box::default());
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
            let bundle = self.join(color, destination, subject, episode);
            if bundle.is_none() {
                self.send(color, raise, destination, subject, episode);
            }
            episode.told.push(Told { destination: Arc::clone(destination), color, bundle });
        }
    }

    /// Tells the end: everyone who got a raise, and the color's own destinations, each once. Nobody, if nobody was
    /// told of the beginning and it is a green.
    fn resolve(&mut self, color: Color, raise: Raise, subject: &Subject<'_>, episode: &Episode) {
        if episode.told.is_empty() && color == Color::Green {
            return;
        }
        self.leave_bundles(&episode.told, episode.id, subject.at);
        let mut destinations: Vec<&Arc<Destination>> = Vec::new();
        let own = subject.policy.codes.destinations(color);
        // Who was told by bundles alone hears of the end by them, too.
        let bundled = episode.told.iter().filter(|told| told.bundle.is_some());
        let bundled: Vec<&Arc<Destination>> = bundled.map(|told| &told.destination).collect();
        let own = own.iter().filter(|destination| !bundled.contains(destination));
        let told = episode.told.iter().filter(|told| told.bundle.is_none()).map(|told| &told.destination);
        for destination in told.chain(own) {
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

    pub(super) fn tell_story(
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
}

/// One line for the notice.
pub(super) fn summary(color: Color, name: &str, subject: &Subject<'_>, lasted: Span) -> String {
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
fn whom(told: &[Told], color: Color) -> String {
    let mut providers: Vec<&str> = Vec::new();
    for Told { destination, .. } in told.iter().filter(|told| told.color == color) {
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
