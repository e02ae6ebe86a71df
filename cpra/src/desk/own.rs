//! What is wrong with the daemon itself: episodes of its own, told to the fallback.
//!
//! They are kept in the store like others, by their kind, so that the next process can end them; at most one of a kind is
//! open.
//!
//! | kind | raised | resolved |
//! | --- | --- | --- |
//! | void | monitors could not be judged for too long | all can be judged; after a restart: for as long |
//! | store damaged | the store was damaged, and put aside | a later start finds nothing wrong |
//! | store silent | no answer to a commit for [`COMMIT_PATIENCE`] | it answers again |
//! | outbox large | more than [`OUTBOX_MEMORY_MAX`] notices wait | fewer than half of them do |

use std::sync::Arc;

use super::Desk;
use super::notices::Draft;
use super::protocol::{Effect, EpisodeRecord, Record, StoryKind, Told};
use super::void::Due;
use crate::domain::episode::{DownWhy, State};
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Raise};
use crate::shard::protocol::{Command, CommandKind};
use crate::units::limits::{COMMIT_PATIENCE, OUTBOX_MEMORY_MAX};
use crate::units::{Instant, Span, Timestamp};

/// The daemon's name where a monitor's would be.
pub(super) const SELF: &str = "cpra";

/// Kept in the place of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Void = 1,
    StoreDamaged = 2,
    StoreSilent = 3,
    OutboxLarge = 4,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Void, Self::StoreDamaged, Self::StoreSilent, Self::OutboxLarge];

    const fn color(self) -> Color {
        match self {
            Self::StoreDamaged => Color::Red,
            Self::Void | Self::StoreSilent | Self::OutboxLarge => Color::Yellow,
        }
    }
}

#[derive(Debug)]
pub(super) struct Own {
    pub(super) id: EpisodeId,
    kind: Kind,
    pub(super) opened: Timestamp,
    pub(super) cause: Box<str>,
    pub(super) told: Vec<Told>,
    pub(super) refresh: Option<Instant>,
}

impl Own {
    pub(super) fn record(&self) -> EpisodeRecord {
        let red = self.kind.color() == Color::Red;
        EpisodeRecord {
            id: self.id,
            monitor: None,
            definition: self.kind as u64,
            state: State::Down(DownWhy::Exhausted),
            opened: self.opened,
            cause: self.cause.clone(),
            yellow: !red,
            red,
            reminders: 0,
            told: self.told.clone(),
        }
    }
}

impl Desk {
    pub(super) fn watch_void(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(due) = self.void.due(now) {
            match due {
                Due::Obscure(monitor) => {
                    effects.push(Effect::Command(Command { monitor, kind: CommandKind::Obscure }));
                }
                Due::Raise { count, reason } => {
                    self.void.raised();
                    let monitors = if count == 1 { "1 monitor".to_owned() } else { format!("{count} monitors") };
                    self.raise_own(Kind::Void, &format!("cannot check {monitors}: {reason}"), now, effects);
                }
                Due::Resolve => self.resolve_own(Kind::Void, "all monitors can be checked again", now, effects),
            }
        }
    }

    /// When the store will have been silent for too long.
    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        let silent = self.durability().silent_since.filter(|_| !self.draining && !self.is_raised(Kind::StoreSilent));
        silent.map(|since| since + COMMIT_PATIENCE)
    }

    /// Decision 5: alerts go out all the same, and people know that they might come twice.
    pub(super) fn watch_store(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let silent = self.durability().silent_since.is_some_and(|since| now.since(since) >= COMMIT_PATIENCE);
        let raised = self.is_raised(Kind::StoreSilent);
        if silent && !raised && !self.draining {
            let text = "the store does not take commits: alerts leave all the same, and may come again after a restart";
            self.raise_own(Kind::StoreSilent, text, now, effects);
        } else if raised && !silent && self.durable > 0 {
            self.resolve_own(Kind::StoreSilent, "the store takes commits again", now, effects);
        }
    }

    pub(super) fn watch_outbox(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let waiting = self.outbox.waiting();
        let raised = self.is_raised(Kind::OutboxLarge);
        if waiting > OUTBOX_MEMORY_MAX && !raised {
            let text = format!("{waiting} notices wait to be delivered, each in memory");
            self.raise_own(Kind::OutboxLarge, &text, now, effects);
        } else if raised && waiting < OUTBOX_MEMORY_MAX / 2 {
            self.resolve_own(Kind::OutboxLarge, &format!("{waiting} notices wait to be delivered"), now, effects);
        }
    }

    fn is_raised(&self, kind: Kind) -> bool {
        self.own.iter().any(|own| own.kind == kind)
    }

    pub(super) fn raise_own(&mut self, kind: Kind, text: &str, now: Instant, effects: &mut Vec<Effect>) {
        if self.is_raised(kind) {
            return;
        }
        let (id, color) = (self.new_episode_id(now), kind.color());
        let fallback = Arc::clone(&self.settings.fallback);
        let raise = if color == Color::Red { Raise::Red } else { Raise::Yellow };
        self.send_own(id, color, raise, &fallback, text, Span::ZERO, now);
        let told = vec![Told { destination: fallback, color, bundle: None }];
        let opened = self.wall_of(now);
        let own = Own { id, kind, opened, cause: text.into(), told, refresh: None };
        self.records.push(Record::Episode(Box::new(own.record())));
        self.own.push(own);
        self.plan_refresh_of_own(now);
        self.narrate(None, now, StoryKind::Color(color), text, effects);
    }

    pub(super) fn resolve_own(&mut self, kind: Kind, text: &str, now: Instant, effects: &mut Vec<Effect>) {
        let Some(at) = self.own.iter().position(|own| own.kind == kind) else { return };
        let own = self.own.swap_remove(at);
        self.forget_refresh_of_own(&own);
        let lasted = self.wall_of(now).since(own.opened);
        let mut told: Vec<&Arc<Destination>> = Vec::new();
        for Told { destination, .. } in &own.told {
            if !told.contains(&destination) {
                told.push(destination);
            }
        }
        for destination in told {
            self.send_own(own.id, Color::Green, Raise::Resolve, destination, text, lasted, now);
        }
        self.records.push(Record::EpisodeClosed { episode: own.id, at: self.wall_of(now) });
        self.narrate(None, now, StoryKind::Color(Color::Green), text, effects);
    }

    /// One that an older process has opened.
    pub(super) fn take_up_own(&mut self, record: EpisodeRecord, now: Instant) {
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u64 == record.definition);
        let Some(kind) = kind.filter(|kind| !self.is_raised(*kind)) else {
            // Of another version, say: nobody would ever end it.
            for told in &record.told {
                let lasted = self.wall_of(now).since(record.opened);
                let text = format!("no longer known: {}", record.cause);
                self.send_own(record.id, Color::Green, Raise::Resolve, &told.destination, &text, lasted, now);
            }
            return self.records.push(Record::EpisodeClosed { episode: record.id, at: self.wall_of(now) });
        };
        if kind == Kind::Void {
            self.void.take_up(now);
        }
        let EpisodeRecord { id, opened, cause, told, .. } = record;
        self.own.push(Own { id, kind, opened, cause, told, refresh: None });
        self.plan_refresh_of_own(now);
    }

    /// A notice about the daemon itself.
    #[expect(clippy::too_many_arguments, reason = "what makes one of these different from another is just this much")]
    fn send_own(
        &mut self,
        episode: EpisodeId,
        color: Color,
        raise: Raise,
        destination: &Arc<Destination>,
        text: &str,
        lasted: Span,
        now: Instant,
    ) {
        let draft = Draft {
            monitor: None,
            name: SELF,
            episode,
            raise,
            n: 0,
            color,
            summary: text.into(),
            outcome: None,
            at: self.wall_of(now),
            lasted,
        };
        let notice = self.notice(&draft, destination);
        self.queue(notice, now, now);
    }
}
