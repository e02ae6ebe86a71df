//! What is said more than once: reminders for people, and refreshes for those who would forget.
//!
//! - **Reminders** (row 26): while a monitor is down, those who got its red get it again, under the same incident key and
//!   with the next number in the delivery key. They are notices like others, with a row in the store. Never to those who
//!   keep an incident open by themselves, and not where one of this line is still to be delivered: who takes nothing
//!   collects no reminders. They are due at multiples of the interval since the episode was opened, so that a restart
//!   neither repeats nor delays one; the first comes at least half an interval after the red.
//! - **Refreshes**: a raise that the other side forgets ([`Provider::wants_refresh`](crate::domain::Provider::wants_refresh))
//!   is sent again every [`REFRESH_EVERY`] or a little sooner while its episode is open, under the raise's own key, and its
//!   resolve [`RESOLVE_REPEATS`] times more. They have no row in the store, and one that fails is gone: the next one does
//!   as well. None follows a resolve, and a destination that is not well gets one
//!   at a time, as a probe, and only where nothing else waits for it. The repeats of a resolve end
//!   where a new episode begins.
//!
//! While the desk drains, nothing is said again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::notices::Draft;
use super::own::{Own, SELF};
use super::protocol::{Record, Told};
use super::{Desk, Episode};
use crate::domain::episode::State;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Notice, Raise};
use crate::units::limits::{REFRESH_EVERY, REFRESHES_PER_STEP_MAX, RESOLVE_REPEATS};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId, Span};

#[derive(Debug, Default)]
pub(super) struct Repeats {
    reminders: BTreeSet<(Instant, MonitorId)>,
    refreshes: BTreeSet<(Instant, Whose)>,
    /// Resolves that are sent again so often.
    ends: BTreeMap<(Instant, u64), (Box<Notice>, u32)>,
    /// For the order of those that are due at the same time.
    count: u64,
}

/// What is refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Monitor(MonitorId),
    Own(EpisodeId),
}

impl Repeats {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let reminder = self.reminders.first().map(|(at, _)| *at);
        let refresh = self.refreshes.first().map(|(at, _)| *at);
        let end = self.ends.first_key_value().map(|((at, _), _)| *at);
        [reminder, refresh, end].into_iter().flatten().min()
    }

    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    /// The episode is over.
    pub(super) fn forget(&mut self, monitor: MonitorId, episode: &mut Episode) {
        self.forget_reminder(monitor, episode);
        if let Some(at) = episode.refresh.take() {
            self.refreshes.remove(&(at, Whose::Monitor(monitor)));
        }
    }

    fn forget_reminder(&mut self, monitor: MonitorId, episode: &mut Episode) {
        if let Some(at) = episode.reminder.take() {
            self.reminders.remove(&(at, monitor));
        }
    }
}

impl Desk {
    /// What is to be said again of an episode as it is now.
    pub(super) fn plan_repeats(&mut self, monitor: MonitorId, state: State, episode: &mut Episode, now: Instant) {
        if self.draining {
            return;
        }
        if !matches!(state, State::Down(_)) {
            self.repeats.forget_reminder(monitor, episode);
        } else if episode.reminder.is_none()
            && episode.told.iter().any(is_reminded)
            && let Some(interval) = self.settings.repeat_interval
        {
            let at = now + self.until_reminder(episode, interval, now);
            episode.reminder = Some(at);
            self.repeats.reminders.insert((at, monitor));
        }
        if episode.refresh.is_none() && episode.told.iter().any(is_refreshed) {
            let at = now + self.until_refresh();
            episode.refresh = Some(at);
            self.repeats.refreshes.insert((at, Whose::Monitor(monitor)));
        }
    }

    pub(super) fn plan_refresh_of_own(&mut self, now: Instant) {
        for at in 0..self.own.len() {
            let own = &self.own[at];
            if own.refresh.is_none() && own.told.iter().any(is_refreshed) && !self.draining {
                let id = own.id;
                let due = now + self.until_refresh();
                self.own[at].refresh = Some(due);
                self.repeats.refreshes.insert((due, Whose::Own(id)));
            }
        }
    }

    pub(super) fn forget_refresh_of_own(&mut self, own: &Own) {
        if let Some(at) = own.refresh {
            self.repeats.refreshes.remove(&(at, Whose::Own(own.id)));
        }
    }

    /// A notice has arrived. If it is an end that may be forgotten, it is told again.
    pub(super) fn repeat_end(&mut self, mut notice: Box<Notice>, now: Instant) {
        let ends = matches!(notice.key.raise, Raise::Resolve | Raise::Gray);
        if !ends || notice.test || self.draining || !notice.key.destination.provider.wants_refresh() {
            return;
        }
        if planted::is(Bug::RefreshAfterResolve) {
            (notice.key.raise, notice.color) = (Raise::Red, Color::Red);
        }
        self.plan_end(notice, RESOLVE_REPEATS, now);
    }

    fn plan_end(&mut self, notice: Box<Notice>, left: u32, now: Instant) {
        if left > 0 {
            self.repeats.count += 1;
            self.repeats.ends.insert((now + REFRESH_EVERY, self.repeats.count), (notice, left));
        }
    }

    /// Says again what is due.
    pub(super) fn repeat(&mut self, now: Instant) {
        while let Some(&(at, monitor)) = self.repeats.reminders.first() {
            if at > now {
                break;
            }
            self.repeats.reminders.pop_first();
            self.with_episode(monitor, |desk, state, episode| {
                episode.reminder = None;
                desk.remind(monitor, state, episode, now);
                desk.plan_repeats(monitor, state, episode, now);
            });
        }
        for _ in 0..REFRESHES_PER_STEP_MAX {
            let Some(&(at, whose)) = self.repeats.refreshes.first() else { break };
            if at > now {
                break;
            }
            self.repeats.refreshes.pop_first();
            match whose {
                Whose::Monitor(monitor) => self.with_episode(monitor, |desk, state, episode| {
                    episode.refresh = None;
                    desk.refresh(monitor, episode, now);
                    desk.plan_repeats(monitor, state, episode, now);
                }),
                Whose::Own(id) => self.refresh_own(id, now),
            }
        }
        while let Some(end) = self.repeats.ends.first_entry() {
            if end.key().0 > now {
                break;
            }
            let (notice, left) = end.remove();
            let open = notice.monitor.and_then(|monitor| self.monitors.get(&monitor));
            if open.is_none_or(|known| known.episode.is_none()) && self.outbox.pass(notice.clone(), now) {
                self.plan_end(notice, left - 1, now);
            }
        }
    }

    /// With a monitor's episode taken out, and put back.
    fn with_episode(&mut self, monitor: MonitorId, act: impl FnOnce(&mut Self, State, &mut Episode)) {
        let Some(known) = self.monitors.get_mut(&monitor) else { return };
        let state = known.state;
        let Some(mut episode) = known.episode.take() else { return };
        act(self, state, &mut episode);
        if let Some(known) = self.monitors.get_mut(&monitor) {
            known.episode = Some(episode);
        }
    }

    fn remind(&mut self, monitor: MonitorId, state: State, episode: &mut Episode, now: Instant) {
        let catalog = Arc::clone(&self.catalog);
        let name = catalog.name(monitor);
        let told: Vec<Arc<Destination>> = distinct(episode.told.iter().filter(|told| is_reminded(told)));
        let told: Vec<_> = told.iter().filter(|destination| !self.outbox.is_under_way(destination, name)).collect();
        if told.is_empty() || !matches!(state, State::Down(_)) {
            return;
        }
        episode.reminders += 1;
        for destination in told {
            let notice = self.raise_again(monitor, episode, Color::Red, episode.reminders, destination, now);
            self.queue(notice, now, now);
        }
        self.records.push(Record::Episode(Box::new(episode.record(monitor, state, &catalog))));
    }

    fn refresh(&mut self, monitor: MonitorId, episode: &Episode, now: Instant) {
        for destination in distinct(episode.told.iter().filter(|told| is_refreshed(told))) {
            let last = episode.told.iter().rfind(|told| told.destination == destination).map(|told| told.color);
            let notice = self.raise_again(monitor, episode, last.unwrap_or(Color::Red), 0, &destination, now);
            self.outbox.pass(notice, now);
        }
    }

    fn refresh_own(&mut self, id: EpisodeId, now: Instant) {
        let Some(own) = self.own.iter_mut().find(|own| own.id == id) else { return };
        own.refresh = None;
        let (opened, cause) = (own.opened, own.cause.clone());
        let told: Vec<Told> = own.told.iter().filter(|told| is_refreshed(told)).cloned().collect();
        for Told { destination, color, .. } in told {
            let draft = Draft {
                monitor: None,
                name: SELF,
                episode: id,
                raise: raise_of(color),
                n: 0,
                color,
                summary: cause.clone(),
                outcome: None,
                at: self.wall_of(now),
                lasted: self.wall_of(now).since(opened),
            };
            let notice = self.notice(&draft, &destination);
            self.outbox.pass(notice, now);
        }
        self.plan_refresh_of_own(now);
    }

    /// What was raised, as it is by now.
    pub(super) fn raise_again(
        &self,
        monitor: MonitorId,
        episode: &Episode,
        color: Color,
        n: u32,
        destination: &Arc<Destination>,
        now: Instant,
    ) -> Box<Notice> {
        let name = self.catalog.name(monitor);
        let lasted = self.wall_of(now).since(episode.opened);
        let summary = match color {
            Color::Red => format!("{name} is still down after {lasted}: {}", episode.cause),
            _ => format!("{name}, since {lasted}: {}", episode.cause),
        };
        let draft = Draft {
            monitor: Some(monitor),
            name,
            episode: episode.id,
            raise: raise_of(color),
            n,
            color,
            summary: summary.into(),
            outcome: None,
            at: self.wall_of(now),
            lasted,
        };
        self.notice(&draft, destination)
    }

    /// Until the next multiple of the interval since the episode was opened that is at least half of one away.
    fn until_reminder(&self, episode: &Episode, interval: Span, now: Instant) -> Span {
        let interval = interval.as_micros().max(1);
        let passed = self.wall_of(now).since(episode.opened).as_micros();
        let number = (passed + interval / 2).div_ceil(interval).max(1);
        Span::from_micros((number * interval).saturating_sub(passed))
    }

    /// Spread, so that what was raised at once is not refreshed at once.
    fn until_refresh(&mut self) -> Span {
        let quarter = REFRESH_EVERY.scaled(1, 4);
        REFRESH_EVERY - Span::from_nanos(self.rng.u64(0..=quarter.as_nanos()))
    }
}

fn is_reminded(told: &Told) -> bool {
    let keeps_open = told.destination.provider.has_lifecycle() && !planted::is(Bug::ReminderToPager);
    told.color == Color::Red && told.bundle.is_none() && !keeps_open
}

fn is_refreshed(told: &Told) -> bool {
    told.destination.provider.wants_refresh() && told.bundle.is_none()
}

const fn raise_of(color: Color) -> Raise {
    match color {
        Color::Yellow => Raise::Yellow,
        Color::Red => Raise::Red,
        Color::Cyan => Raise::Cyan,
        Color::Green => Raise::Resolve,
        Color::Gray => Raise::Gray,
    }
}

/// Each destination once.
fn distinct<'a>(told: impl Iterator<Item = &'a Told>) -> Vec<Arc<Destination>> {
    let mut destinations: Vec<Arc<Destination>> = Vec::new();
    for told in told {
        if !destinations.contains(&told.destination) {
            destinations.push(Arc::clone(&told.destination));
        }
    }
    destinations
}
