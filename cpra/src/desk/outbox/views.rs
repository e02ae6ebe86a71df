//! What can be seen of the outbox: nothing here changes it.

use super::{Entry, Outbox, Place, is_passing};
use crate::desk::protocol::{NoticeId, OutboxState, Selection};
use crate::units::Instant;

impl Outbox {
    /// Those that are meant, oldest first.
    pub(in crate::desk) fn selected(&self, selection: &Selection) -> Box<dyn Iterator<Item = (NoticeId, &Entry)> + '_> {
        let alive = self.entries.iter().filter(|(id, _)| !is_passing(**id)).map(|(id, entry)| (*id, entry));
        let dead = self.dead.iter().map(|(id, entry)| (*id, entry));
        match selection {
            Selection::All => Box::new(merged(alive, dead)),
            Selection::Dead => Box::new(dead),
            Selection::One(id) => {
                let known = self.entries.get(id).or_else(|| self.dead.get(id)).filter(|_| !is_passing(*id));
                Box::new(known.map(|entry| (*id, entry)).into_iter())
            }
            Selection::To(name) => {
                let name = name.clone();
                Box::new(merged(alive, dead).filter(move |(_, entry)| entry.notice.key.destination.name == name))
            }
        }
    }

    /// One that is not done, else one that was done not long ago.
    pub(in crate::desk) fn find(&self, id: NoticeId) -> Option<(&Entry, Option<OutboxState>)> {
        let entry = self.entries.get(&id).or_else(|| self.dead.get(&id));
        match entry {
            Some(entry) => Some((entry, Some(entry.state()))),
            None => self.finished.iter().rev().find(|(known, _)| *known == id).map(|(_, entry)| (entry, None)),
        }
    }

    /// When it leaves, as far as its own pause and its destination's pace are concerned.
    pub(in crate::desk) fn next_attempt(&self, entry: &Entry, now: Instant) -> Option<Instant> {
        let opens = self.posts[entry.post].pacer.opens();
        match entry.place {
            Place::Held(until) | Place::Pausing(until) => Some(until.max(opens)),
            Place::Ready => Some(opens).filter(|opens| *opens > now),
            Place::Behind | Place::Outstanding | Place::Dead => None,
        }
    }

    /// How many are in which state, in the order of [`OutboxState::ALL`].
    pub(in crate::desk) fn counts(&self) -> [u64; OutboxState::ALL.len()] {
        [self.waiting() - self.pausing, self.outstanding, self.pausing, self.dead.len()].map(|count| count as u64)
    }

    /// Since when the oldest one that is not dead is to be delivered.
    pub(in crate::desk) fn oldest(&self) -> Option<Instant> {
        self.entries.first_key_value().filter(|(id, _)| !is_passing(**id)).map(|(_, entry)| entry.since)
    }
}

/// Two lists in the order of their numbers as one.
fn merged<'a>(
    one: impl Iterator<Item = (NoticeId, &'a Entry)>,
    other: impl Iterator<Item = (NoticeId, &'a Entry)>,
) -> impl Iterator<Item = (NoticeId, &'a Entry)> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some((mine, _)), Some((theirs, _))) if theirs < mine => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}
