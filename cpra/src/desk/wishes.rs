//! What people want done with notices: tried now, dropped, or one sent to see whether it arrives. Each is written down.

use std::sync::Arc;

use super::Desk;
use super::notices::Draft;
use super::own::SELF;
use super::protocol::{Audit, NoticeId, OutboxChange, OutboxState, Record, Selection};
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Notice, Raise};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};

impl Desk {
    /// Answers how many notices it was about.
    pub(super) fn change_outbox(
        &mut self,
        change: OutboxChange,
        selection: &Selection,
        who: Box<str>,
        now: Instant,
    ) -> u64 {
        let selected: Vec<(NoticeId, bool)> = self
            .outbox
            .selected(selection)
            .map(|(id, entry)| (id, self.would_reopen(entry.state(), &entry.notice)))
            .collect();
        let at = self.wall_of(now);
        let mut changed = 0;
        for (id, would_reopen) in selected {
            match change {
                OutboxChange::Drop => {
                    if self.outbox.drop_one(id, now) {
                        if planted::is(Bug::DroppedComesBack) {
                            continue;
                        }
                        self.records.push(Record::NoticeDone { id, at });
                        changed += 1;
                    }
                }
                OutboxChange::Retry if would_reopen => {}
                OutboxChange::Retry => {
                    if let Some(revived) = self.outbox.retry(id, self.sequence + 1, now) {
                        self.records.push(Record::NoticeQueued { id, notice: Box::new(revived.clone()) });
                    }
                    changed += 1;
                }
            }
        }
        let what = match change {
            OutboxChange::Retry => "outbox retry",
            OutboxChange::Drop => "outbox drop",
        };
        let which = match selection {
            Selection::All => "all".to_owned(),
            Selection::Dead => "the dead ones".to_owned(),
            Selection::One(NoticeId(id)) => format!("notice {id}"),
            Selection::To(destination) => format!("to {destination}"),
        };
        self.records.push(Record::Audit(Audit {
            at,
            who,
            what: what.into(),
            about: format!("{which}: {changed}").into(),
        }));
        changed
    }

    /// A raise that was given up, of an episode that is over: to one who keeps incidents open it would open one that nobody
    /// ever closes.
    fn would_reopen(&self, state: OutboxState, notice: &Notice) -> bool {
        state == OutboxState::Dead
            && notice.key.destination.provider.has_lifecycle()
            && matches!(notice.key.raise, Raise::Yellow | Raise::Red)
            && !self.has_open(notice.monitor, notice.key.episode)
    }

    /// One that says so, to this destination. Who would keep an incident open for it is told of its end at once.
    pub(super) fn test(
        &mut self,
        destination: &Arc<Destination>,
        color: Color,
        who: Box<str>,
        now: Instant,
    ) -> NoticeId {
        let episode = self.new_episode_id(now);
        let raise = match color {
            Color::Yellow => Raise::Yellow,
            Color::Red => Raise::Red,
            Color::Cyan => Raise::Cyan,
            Color::Green => Raise::Resolve,
            Color::Gray => Raise::Gray,
        };
        let id = self.send_test(episode, color, raise, destination, now);
        if matches!(raise, Raise::Yellow | Raise::Red) && destination.provider.has_lifecycle() {
            self.send_test(episode, Color::Green, Raise::Resolve, destination, now);
        }
        let about = format!("{color} to {}", destination.name).into();
        self.records.push(Record::Audit(Audit { at: self.wall_of(now), who, what: "notify test".into(), about }));
        id
    }

    fn send_test(
        &mut self,
        episode: EpisodeId,
        color: Color,
        raise: Raise,
        destination: &Arc<Destination>,
        now: Instant,
    ) -> NoticeId {
        let draft = Draft {
            monitor: None,
            name: SELF,
            episode,
            raise,
            n: 0,
            color,
            summary: format!("TEST of {color}: nothing has happened").into(),
            outcome: None,
            at: self.wall_of(now),
            lasted: Span::ZERO,
        };
        let mut notice = self.notice(&draft, destination);
        notice.test = true;
        self.queue(notice, now, now)
    }
}
