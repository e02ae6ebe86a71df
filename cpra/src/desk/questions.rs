//! What people ask, and what is remembered for them.

use super::Desk;
use super::outbox::Entry;
use super::protocol::{
    Answer, Change, Effect, EpisodeView, NoticeId, OutboxState, OutboxView, Question, Story, StoryKind,
};
use crate::domain::{Color, Incident};
use crate::units::limits::RECENT_CHANGES_MAX;
use crate::units::{Instant, MonitorId};

impl Desk {
    pub(super) fn narrate(
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

    pub(super) fn answer(&self, question: Question, now: Instant) -> Answer {
        match question {
            Question::Monitor(monitor) => Answer::Monitor(self.view(monitor, now)),
            Question::Episodes(most) => {
                let oldest = self.open.iter().take(most);
                Answer::Episodes(oldest.filter_map(|&(_, monitor)| self.view(monitor, now)).collect())
            }
            Question::Outbox(selection, most) => {
                let selected = self.outbox.selected(&selection).take(most);
                Answer::Outbox(
                    selected.map(|(id, entry)| self.outbox_view(id, entry, Some(entry.state()), now)).collect(),
                )
            }
            Question::Notice(id) => {
                let found = self.outbox.find(id);
                Answer::Notice(found.map(|(entry, state)| self.outbox_view(id, entry, state, now)))
            }
            Question::Recent(most) => Answer::Recent(self.recent.iter().take(most).cloned().collect()),
        }
    }

    fn outbox_view(&self, id: NoticeId, entry: &Entry, state: Option<OutboxState>, now: Instant) -> OutboxView {
        let destination = &entry.notice.key.destination;
        OutboxView {
            id,
            destination: destination.name.clone(),
            provider: destination.provider.as_str(),
            monitor: entry.notice.monitor_name.clone(),
            incident: entry.notice.incident.0.clone(),
            color: entry.notice.color,
            summary: entry.notice.summary.clone(),
            at: entry.notice.at,
            state,
            attempts: entry.attempts,
            last: entry.last.clone(),
            next: self.outbox.next_attempt(entry, now).filter(|_| state.is_some()).map(|at| self.wall_of(at)),
        }
    }

    fn view(&self, monitor: MonitorId, now: Instant) -> Option<EpisodeView> {
        let known = self.monitors.get(&monitor)?;
        let episode = known.episode.as_ref()?;
        let raised = [Color::Yellow, Color::Red].into_iter().filter_map(|color| {
            let told = episode.told.iter().filter(|told| told.color == color).count();
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
