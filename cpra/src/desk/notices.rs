//! Notices: what is written into them, and what becomes of them.
//!
//! A notice that is given up is a *dead letter*: it stays where people see it, the store has why, and the fallback gets a
//! copy under the same incident and the same key but for the destination. Who got the copy of a raise also gets the end of
//! the episode: the one who is woken by it must not wait for ever. The fallback's own dead letters, and tests, go nowhere.

use std::sync::Arc;

use super::episodes::{Subject, summary};
use super::outbox::{End, is_passing};
use super::protocol::{Delivered, Effect, NoticeId, Record, StoryKind, Told};
use super::{Desk, Episode};
use crate::domain::monitor::About;
use crate::domain::notice::EpisodeId;
use crate::domain::{Code, Color, DeliveryKey, Destination, Incident, Notice, Outcome, Raise};
use crate::units::limits::RAISE_HOLD_MAX;
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId, Span, Timestamp};

/// What is told, whoever is told it.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// `None`: about the daemon itself, or about a monitor that is gone.
    pub(super) monitor: Option<MonitorId>,
    pub(super) name: &'a str,
    pub(super) episode: EpisodeId,
    pub(super) raise: Raise,
    pub(super) n: u32,
    pub(super) color: Color,
    pub(super) summary: Box<str>,
    pub(super) outcome: Option<Code>,
    pub(super) at: Timestamp,
    pub(super) lasted: Span,
}

impl Desk {
    pub(super) fn notice(&self, draft: &Draft<'_>, destination: &Arc<Destination>) -> Box<Notice> {
        let policy = draft.monitor.map(|monitor| self.catalog.policy(monitor));
        let key = DeliveryKey {
            episode: draft.episode,
            raise: draft.raise,
            destination: Arc::clone(destination),
            n: draft.n,
        };
        Box::new(Notice {
            key,
            incident: Incident::new(&self.settings.instance, draft.name, draft.episode),
            monitor: draft.monitor,
            monitor_name: draft.name.into(),
            color: draft.color,
            summary: draft.summary.clone(),
            outcome: draft.outcome,
            at: draft.at,
            lasted: draft.lasted,
            groups: policy.map(|policy| policy.groups.clone()).unwrap_or_default(),
            about: policy.map_or_else(About::default, |policy| policy.about.clone()),
            test: false,
        })
    }

    pub(super) fn send(
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
        let draft = Draft {
            monitor: Some(subject.monitor),
            name,
            episode: episode.id,
            raise,
            n: 0,
            color,
            summary: summary(color, name, subject, lasted).into(),
            outcome: subject.outcome.map(|outcome: &Outcome| outcome.code),
            at: self.wall_of(subject.at),
            lasted,
        };
        let notice = self.notice(&draft, destination);
        // Without stored state everything that is down raises at once after a start: give it a moment.
        let hold = self.started + subject.policy.interval.min(RAISE_HOLD_MAX);
        let not_before = if self.draining || !self.holds { subject.at } else { hold };
        self.queue(notice, not_before, subject.at);
    }

    pub(super) fn queue(&mut self, notice: Box<Notice>, not_before: Instant, now: Instant) -> NoticeId {
        let recorded = notice.clone();
        let id = self.outbox.add(notice, self.sequence + 1, not_before, now);
        self.records.push(Record::NoticeQueued { id, notice: recorded });
        id
    }

    pub(super) fn delivered(&mut self, id: NoticeId, delivered: Delivered, now: Instant, effects: &mut Vec<Effect>) {
        let Some(notice) = self.outbox.outstanding_notice(id) else { return };
        let provider = notice.key.destination.provider.index();
        self.stats.notices[notice.color as usize][provider][delivered.result as usize] += 1;
        let at = self.wall_of(now);
        if !is_passing(id) {
            self.records.push(Record::NoticeTried { id, at, delivered: delivered.clone() });
        }
        match self.outbox.finished(id, delivered, now, &mut self.rng) {
            Some(End::Done(notice)) if !is_passing(id) => {
                self.records.push(Record::NoticeDone { id, at });
                self.repeat_end(notice, now);
            }
            Some(End::Dead { notice, why }) => {
                self.records.push(Record::NoticeDead { id, at, why: why.clone() });
                self.pass_on(&notice, &why, now, effects);
            }
            Some(End::Done(_) | End::Again) | None => {}
        }
    }

    /// A notice is given up: somebody else has to hear of it.
    fn pass_on(&mut self, notice: &Notice, why: &str, now: Instant, effects: &mut Vec<Effect>) {
        let Notice { key, color, .. } = notice;
        let text = format!("not delivered to {}: {why}", key.destination.name);
        self.narrate(notice.monitor, now, StoryKind::Color(*color), &text, effects);
        let fallback = Arc::clone(&self.settings.fallback);
        if notice.test || key.destination == fallback || planted::is(Bug::DeadLetterForgotten) {
            return;
        }
        self.copy_to(&fallback, notice, &text, now);
        if !matches!(key.raise, Raise::Yellow | Raise::Red) {
            return;
        }
        if self.has_open(notice.monitor, key.episode) {
            self.tell_also(notice.monitor, key.episode, &fallback, *color);
        } else if let Some(end) = self.outbox.resolve_behind(notice).cloned() {
            self.copy_to(&fallback, &end, &text, now);
        }
    }

    fn copy_to(&mut self, fallback: &Arc<Destination>, notice: &Notice, why: &str, now: Instant) {
        let mut copy = Box::new(notice.clone());
        copy.key.destination = Arc::clone(fallback);
        copy.summary = format!("{} ({why})", notice.summary).into();
        self.queue(copy, now, now);
    }

    /// Whether the episode is still the open one of this monitor, or of the daemon, or a bundle.
    pub(super) fn has_open(&self, monitor: Option<MonitorId>, id: EpisodeId) -> bool {
        let open = monitor.and_then(|monitor| self.monitors.get(&monitor)).and_then(|known| known.episode.as_ref());
        open.is_some_and(|episode| episode.id == id)
            || self.own.iter().any(|own| own.id == id)
            || self.bundles.record(id).is_some()
    }

    /// One more who hears of the end.
    fn tell_also(&mut self, monitor: Option<MonitorId>, id: EpisodeId, destination: &Arc<Destination>, color: Color) {
        let told = Told { destination: Arc::clone(destination), color, bundle: None };
        let is_known =
            |all: &[Told]| all.iter().any(|known| known.destination == told.destination && known.bundle.is_none());
        if let Some(own) = self.own.iter_mut().find(|own| own.id == id) {
            if !is_known(&own.told) {
                own.told.push(told);
                let record = own.record();
                self.records.push(Record::Episode(Box::new(record)));
            }
            return;
        }
        let catalog = Arc::clone(&self.catalog);
        let Some((monitor, known)) = monitor.and_then(|monitor| Some((monitor, self.monitors.get_mut(&monitor)?)))
        else {
            return;
        };
        let state = known.state;
        if let Some(episode) = &mut known.episode
            && !is_known(&episode.told)
        {
            episode.told.push(told);
            let record = episode.record(monitor, state, &catalog);
            self.records.push(Record::Episode(Box::new(record)));
        }
    }
}
