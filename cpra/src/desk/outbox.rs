//! Notices between the decision to send them and the destination's answer.
//!
//! ```text
//!  hold (after the start) ──▶ queue ──durable, room──▶ outstanding ──▶ done
//!                               ▲                          │
//!                               └── failed: later again ◀──┘
//! ```
//! Nothing is ever dropped, and nothing leaves before its commit is durable, but for a store that has been silent for
//! [`COMMIT_PATIENCE`]: an alert that waits for a dead disk is a lost alert.
//!
//! Order matters within one monitor and destination only: the raise before its resolve, and the resolve before the next
//! episode's raise, or the last that people hear is wrong for ever. So only one notice of these is on its way at a time,
//! and the next one waits *behind* it until it is done. The lane's order is not enough: a raise that nobody took comes
//! again later, and its resolve would have overtaken it. News does not wait out such a pause: both are tried at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::protocol::{DeliveryResult, NoticeId};
use crate::domain::{Color, Destination, Notice, Raise};
use crate::units::limits::COMMIT_PATIENCE;
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId, Span};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: NoticeId,
    pub(super) notice: Box<Notice>,
    /// The commit that it is part of.
    sequence: u64,
    failures: u32,
}

/// Within which order matters; without a monitor: what is about the daemon itself.
type Line = (Option<MonitorId>, Arc<Destination>);

#[derive(Debug, Default)]
pub(super) struct Outbox {
    next_id: u64,
    held: BTreeMap<(Instant, NoticeId), Entry>,
    queue: VecDeque<Entry>,
    outstanding: BTreeMap<NoticeId, Entry>,
    /// One for each notice on its way (held, queued or outstanding): what waits behind it, and until when at least.
    lines: BTreeMap<Line, VecDeque<(Instant, Entry)>>,
    behind: usize,
    /// Where in `held` the first of a line is since it failed; it may be on its way again.
    pauses: BTreeMap<Line, (Instant, NoticeId)>,
}

/// A notice that may leave now.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) id: NoticeId,
    pub(super) notice: Box<Notice>,
    pub(super) durable: bool,
}

/// How far the store has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durability {
    pub(super) durable: u64,
    /// When the oldest commit without an answer was handed over.
    pub(super) silent_since: Option<Instant>,
}

impl Durability {
    fn is_stuck(&self, now: Instant) -> bool {
        self.silent_since.is_some_and(|since| now.since(since) >= COMMIT_PATIENCE)
    }
}

impl Outbox {
    /// Takes a notice whose record is part of commit `sequence`; it leaves `not_before`.
    pub(super) fn add(&mut self, notice: Box<Notice>, sequence: u64, not_before: Instant, now: Instant) -> NoticeId {
        self.next_id += 1;
        let id = NoticeId(self.next_id);
        let entry = Entry { id, notice, sequence, failures: 0 };
        if planted::is(Bug::ResolveBeforeRaise) && entry.notice.key.raise == Raise::Resolve {
            self.queue.push_front(entry);
            return id;
        }
        let line = line_of(&entry);
        if let Some(behind) = self.lines.get_mut(&line) {
            behind.push_back((not_before, entry));
            self.behind += 1;
            let paused = self.pauses.remove(&line).and_then(|pause| self.held.remove(&pause));
            self.queue.extend(paused);
        } else {
            self.lines.insert(line, VecDeque::new());
            self.set_out(not_before, entry, now);
        }
        id
    }

    fn set_out(&mut self, not_before: Instant, entry: Entry, now: Instant) {
        if not_before > now {
            self.held.insert((not_before, entry.id), entry);
        } else {
            if planted::is(Bug::OverwrittenNotice) {
                self.queue.pop_back();
            }
            self.queue.push_back(entry);
        }
    }

    /// The next notice that may leave, while fewer than `capacity` are outstanding.
    pub(super) fn depart(&mut self, now: Instant, durability: Durability, capacity: usize) -> Option<Departure> {
        self.release(now);
        let first = self.queue.front()?;
        let durable = first.sequence <= durability.durable || planted::is(Bug::ActionWithoutCommit);
        if self.outstanding.len() >= capacity || !durable && !durability.is_stuck(now) {
            return None;
        }
        let entry = self.queue.pop_front()?;
        let departure = Departure { id: entry.id, notice: entry.notice.clone(), durable };
        self.outstanding.insert(entry.id, entry);
        Some(departure)
    }

    fn release(&mut self, now: Instant) {
        while let Some(first) = self.held.first_entry() {
            if first.key().0 > now {
                return;
            }
            self.queue.push_back(first.remove());
        }
    }

    /// Ends every hold: there is no later.
    pub(super) fn release_all(&mut self) {
        self.queue.extend(std::mem::take(&mut self.held).into_values());
        for (not_before, _) in self.lines.values_mut().flatten() {
            *not_before = Instant::ZERO;
        }
    }

    /// The lane has finished with a notice; answers with it when it is done for good. A notice that neither its
    /// destination nor the fallback took comes again, each time a little later.
    pub(super) fn finished(&mut self, id: NoticeId, result: DeliveryResult, now: Instant) -> Option<Box<Notice>> {
        let mut entry = self.outstanding.remove(&id)?;
        match result {
            DeliveryResult::Sent | DeliveryResult::Fallback => {
                self.follow(&line_of(&entry), now);
                Some(entry.notice)
            }
            DeliveryResult::Failed if planted::is(Bug::FailedDeliveryForgotten) => {
                self.follow(&line_of(&entry), now);
                Some(entry.notice)
            }
            DeliveryResult::Failed => {
                let until = now + Span::from_secs(1 << entry.failures.min(8));
                entry.failures += 1;
                self.pauses.insert(line_of(&entry), (until, id));
                self.held.insert((until, id), entry);
                None
            }
        }
    }

    /// The next one in a line sets out.
    fn follow(&mut self, line: &Line, now: Instant) {
        self.pauses.remove(line);
        match self.lines.get_mut(line).and_then(VecDeque::pop_front) {
            Some((not_before, entry)) => {
                self.behind -= 1;
                self.set_out(not_before, entry, now);
            }
            None => {
                self.lines.remove(line);
            }
        }
    }

    /// The color of a notice that the lane has in hand.
    pub(super) fn color(&self, id: NoticeId) -> Option<Color> {
        self.outstanding.get(&id).map(|entry| entry.notice.color)
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.held.len() + self.behind
    }

    /// When something may leave that may not now. Without room the store's silence is no reason to wake up.
    pub(super) fn next_deadline(&self, durability: Durability, capacity: usize) -> Option<Instant> {
        let hold = self.held.first_key_value().map(|((until, _), _)| *until);
        let waits = !self.queue.is_empty() && self.outstanding.len() < capacity;
        let patience = durability.silent_since.filter(|_| waits).map(|since| since + COMMIT_PATIENCE);
        [hold, patience].into_iter().flatten().min()
    }
}

fn line_of(entry: &Entry) -> Line {
    (entry.notice.monitor, Arc::clone(&entry.notice.key.destination))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::monitor::About;
    use crate::domain::notice::EpisodeId;
    use crate::domain::{DeliveryKey, Incident};
    use crate::units::Timestamp;

    const DURABLE: Durability = Durability { durable: u64::MAX, silent_since: None };

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Span::from_secs(secs)
    }

    fn notice(monitor: u32, episode: u128, raise: Raise) -> Box<Notice> {
        let episode = EpisodeId(episode);
        let destination = Arc::new(Destination::Log { file: None });
        Box::new(Notice {
            key: DeliveryKey { episode, raise, destination, n: 0 },
            incident: Incident::new("test", "web", episode),
            monitor: Some(MonitorId::new(0, monitor)),
            monitor_name: "web".into(),
            color: if raise == Raise::Resolve { Color::Green } else { Color::Red },
            summary: "".into(),
            outcome: None,
            at: Timestamp::default(),
            lasted: Span::ZERO,
            groups: Box::default(),
            about: About::default(),
        })
    }

    fn leaving(outbox: &mut Outbox, now: Instant) -> Vec<NoticeId> {
        std::iter::from_fn(|| outbox.depart(now, DURABLE, 100)).map(|departure| departure.id).collect()
    }

    #[test]
    fn a_resolve_never_overtakes_the_raise_that_nobody_took() {
        let mut outbox = Outbox::default();
        let raise = outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
        assert_eq!(leaving(&mut outbox, at(0)), [raise]);
        let resolve = outbox.add(notice(0, 1, Raise::Resolve), 2, at(0), at(0));
        let other = outbox.add(notice(1, 2, Raise::Red), 2, at(0), at(0));
        assert_eq!(leaving(&mut outbox, at(0)), [other], "another monitor need not wait");
        assert!(outbox.finished(raise, DeliveryResult::Failed, at(0)).is_none());
        assert_eq!((leaving(&mut outbox, at(0)), outbox.waiting()), (vec![], 2));
        assert_eq!(leaving(&mut outbox, at(1)), [raise]);
        assert!(outbox.finished(raise, DeliveryResult::Failed, at(1)).is_none());
        // News ends the pause, but not the order: not even of another episode.
        let again = outbox.add(notice(0, 3, Raise::Red), 3, at(1), at(1));
        assert_eq!(leaving(&mut outbox, at(1)), [raise]);
        for (done, next) in [(raise, resolve), (resolve, again)] {
            assert!(outbox.finished(done, DeliveryResult::Sent, at(1)).is_some());
            assert_eq!(leaving(&mut outbox, at(1)), [next]);
        }
    }

    #[test]
    fn a_resolve_waits_for_a_raise_that_is_held() {
        let mut outbox = Outbox::default();
        let raise = outbox.add(notice(0, 1, Raise::Red), 1, at(10), at(1));
        // The hold is over, and nobody has looked since.
        let resolve = outbox.add(notice(0, 1, Raise::Resolve), 2, at(10), at(11));
        assert_eq!(leaving(&mut outbox, at(11)), [raise]);
        assert!(outbox.finished(raise, DeliveryResult::Sent, at(11)).is_some());
        assert_eq!(leaving(&mut outbox, at(11)), [resolve]);
        assert!(outbox.finished(resolve, DeliveryResult::Sent, at(11)).is_some());
        assert!(outbox.lines.is_empty(), "what is done leaves nothing behind");
    }

    #[test]
    fn a_silent_store_is_no_reason_to_wake_up_without_room() {
        let mut outbox = Outbox::default();
        let stuck = Durability { durable: 0, silent_since: Some(at(0)) };
        outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
        outbox.add(notice(1, 2, Raise::Red), 1, at(0), at(0));
        assert_eq!(outbox.next_deadline(stuck, 1), Some(at(0) + COMMIT_PATIENCE));
        assert!(outbox.depart(at(5), stuck, 1).is_some_and(|departure| !departure.durable));
        assert!(outbox.depart(at(5), stuck, 1).is_none());
        assert_eq!(outbox.next_deadline(stuck, 1), None);
    }
}
