//! Notices between the decision to send them and the destination's answer.
//!
//! ```text
//!  hold (after the start) ──▶ queue ──durable, room──▶ outstanding ──▶ done
//!                             ▲   │                       ▲ │
//!                             │   └──▶ parked ──its turn──┘ │
//!                             └──── failed: later again ◀───┘
//! ```
//! Nothing is ever dropped, and nothing leaves before its commit is durable, but for a store that has been silent for
//! [`COMMIT_PATIENCE`]: an alert that waits for a dead disk is a lost alert.
//!
//! Order matters within one monitor and destination only: the raise before its resolve, and the resolve before the next
//! episode's raise, or the last that people hear is wrong for ever. So only one notice of these is on its way at a time,
//! and the next one waits *behind* it until it is done. The lane's order is not enough: a raise that nobody took comes
//! again later, and its resolve would have overtaken it. News does not wait out such a pause: both are tried at once.
//!
//! A destination that takes nothing must not use up the room of the others. It may have a part of the room that is
//! *left*: so the first one that hangs leaves most of it, and every further one takes less. What is beyond its share is
//! *parked* and passed by. Only the end of one of its own gives a parked destination its turn; as it has at least one
//! outstanding, that end comes. Nothing is scanned: a notice moves once into the parking place and once out of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::protocol::{DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice, Raise};
use crate::units::limits::{COMMIT_PATIENCE, OUTSTANDING_SHARE};
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
    /// How many of the outstanding ones each destination has; none are left out.
    shares: BTreeMap<Arc<Destination>, usize>,
    /// What would be too much for its destination, in order. Never an empty one.
    parked: BTreeMap<Arc<Destination>, Parked>,
    parked_notices: usize,
    /// The parked destinations whose turn it is. The others each have something outstanding.
    turns: VecDeque<Arc<Destination>>,
    /// One for each notice on its way (held, queued or outstanding): what waits behind it, and until when at least.
    lines: BTreeMap<Line, VecDeque<(Instant, Entry)>>,
    behind: usize,
    /// Where in `held` the first of a line is since it failed; it may be on its way again.
    pauses: BTreeMap<Line, (Instant, NoticeId)>,
}

#[derive(Debug, Default)]
struct Parked {
    entries: VecDeque<Entry>,
    /// Whether it is in `turns`.
    has_turn: bool,
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

    /// Whether a notice may leave, and if so, whether its commit is durable.
    fn lets_out(self, entry: &Entry, now: Instant) -> Option<bool> {
        let durable = entry.sequence <= self.durable || planted::is(Bug::ActionWithoutCommit);
        (durable || self.is_stuck(now)).then_some(durable)
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
        let room = capacity.checked_sub(self.outstanding.len()).filter(|room| *room > 0)?;
        let share = (room / OUTSTANDING_SHARE).max(1);
        // First those that have been passed by.
        while let Some(destination) = self.turns.front() {
            if self.held_by(destination) < share {
                return self.depart_parked(now, durability);
            }
            // Not before another one of its own has ended.
            if let Some(parked) = self.turns.pop_front().and_then(|destination| self.parked.get_mut(&destination)) {
                parked.has_turn = false;
            }
        }
        loop {
            let durable = durability.lets_out(self.queue.front()?, now)?;
            let entry = self.queue.pop_front()?;
            let destination = &entry.notice.key.destination;
            if !self.parked.contains_key(destination) && self.held_by(destination) < share {
                return Some(self.leave(entry, durable));
            }
            self.parked_notices += 1;
            self.parked.entry(Arc::clone(destination)).or_default().entries.push_back(entry);
        }
    }

    /// The first one of the destination whose turn it is.
    fn depart_parked(&mut self, now: Instant, durability: Durability) -> Option<Departure> {
        let destination = self.turns.front()?;
        let parked = self.parked.get_mut(destination)?;
        // Once more: it may have been parked while the store was silent, and the store speaks again.
        let durable = durability.lets_out(parked.entries.front()?, now)?;
        let entry = parked.entries.pop_front()?;
        self.parked_notices -= 1;
        if parked.entries.is_empty() {
            self.parked.remove(destination);
            self.turns.pop_front();
        }
        Some(self.leave(entry, durable))
    }

    fn leave(&mut self, entry: Entry, durable: bool) -> Departure {
        *self.shares.entry(Arc::clone(&entry.notice.key.destination)).or_default() += 1;
        let departure = Departure { id: entry.id, notice: entry.notice.clone(), durable };
        self.outstanding.insert(entry.id, entry);
        departure
    }

    fn held_by(&self, destination: &Arc<Destination>) -> usize {
        self.shares.get(destination).copied().unwrap_or(0)
    }

    /// One of this destination's is no longer outstanding.
    fn give_back(&mut self, destination: &Arc<Destination>) {
        if let Some(held) = self.shares.get_mut(destination) {
            *held -= 1;
            if *held == 0 {
                self.shares.remove(destination);
            }
        }
        if let Some(parked) = self.parked.get_mut(destination)
            && !parked.has_turn
            && !planted::is(Bug::ParkedNoticeForgotten)
        {
            parked.has_turn = true;
            self.turns.push_back(Arc::clone(destination));
        }
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
        self.give_back(&entry.notice.key.destination);
        match result {
            DeliveryResult::Sent | DeliveryResult::Fallback => {
                self.follow(&line_of(&entry), now);
                Some(entry.notice)
            }
            DeliveryResult::Failed | DeliveryResult::Unsure | DeliveryResult::Refused
                if planted::is(Bug::FailedDeliveryForgotten) =>
            {
                self.follow(&line_of(&entry), now);
                Some(entry.notice)
            }
            DeliveryResult::Failed | DeliveryResult::Unsure | DeliveryResult::Refused => {
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

    /// A notice that the lane has in hand.
    pub(super) fn outstanding_notice(&self, id: NoticeId) -> Option<&Notice> {
        self.outstanding.get(&id).map(|entry| &*entry.notice)
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.held.len() + self.behind + self.parked_notices
    }

    /// When something may leave that may not now. Without room the store's silence is no reason to wake up.
    pub(super) fn next_deadline(&self, durability: Durability, capacity: usize) -> Option<Instant> {
        let hold = self.held.first_key_value().map(|((until, _), _)| *until);
        let waits = !(self.queue.is_empty() && self.turns.is_empty()) && self.outstanding.len() < capacity;
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
    use crate::domain::{Color, DeliveryKey, Incident};
    use crate::units::Timestamp;

    const DURABLE: Durability = Durability { durable: u64::MAX, silent_since: None };

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Span::from_secs(secs)
    }

    fn notice(monitor: u32, episode: u128, raise: Raise) -> Box<Notice> {
        notice_for(None, monitor, episode, raise)
    }

    fn notice_for(file: Option<u32>, monitor: u32, episode: u128, raise: Raise) -> Box<Notice> {
        let episode = EpisodeId(episode);
        let destination = Arc::new(Destination::log(file.map(|file| file.to_string().into())));
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
            test: false,
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

    /// Leaves with this capacity, by destination.
    fn leaving_for(outbox: &mut Outbox, capacity: usize) -> BTreeMap<Arc<Destination>, Vec<NoticeId>> {
        let mut left: BTreeMap<_, Vec<_>> = BTreeMap::new();
        while let Some(departure) = outbox.depart(at(0), DURABLE, capacity) {
            left.entry(Arc::clone(&departure.notice.key.destination)).or_default().push(departure.id);
        }
        left
    }

    #[test]
    fn those_that_take_nothing_leave_room_for_the_others() {
        const CAPACITY: usize = 1_000;
        let mut outbox = Outbox::default();
        let mut monitor = 0;
        let mut add = |outbox: &mut Outbox, file: u32, count: usize| {
            for _ in 0..count {
                monitor += 1;
                outbox.add(notice_for(Some(file), monitor, 1, Raise::Red), 1, at(0), at(0));
            }
        };
        // Sixty hang, one after the other, each with more than there is room for altogether.
        for file in 0..60 {
            add(&mut outbox, file, 2_000);
            let left = leaving_for(&mut outbox, CAPACITY);
            assert_eq!(left.len(), 1, "each gets something");
            assert!(left.values().all(|ids| ids.len() <= CAPACITY / OUTSTANDING_SHARE));
        }
        let hung = outbox.outstanding();
        assert!(hung < CAPACITY, "{hung}");
        // Another one has all of its notices taken, in order, round by round, and nothing of the hung ones is looked at.
        add(&mut outbox, 99, 5_000);
        let mut taken = Vec::new();
        for _ in 0..5_000 {
            let left = leaving_for(&mut outbox, CAPACITY);
            for id in left.into_values().flatten() {
                taken.push(id);
                assert!(outbox.finished(id, DeliveryResult::Sent, at(0)).is_some());
            }
        }
        assert_eq!((taken.len(), outbox.outstanding()), (5_000, hung));
        assert!(taken.is_sorted());

        // They take again, in any order: each of them has its notices in order, and nothing remains.
        let mut seen: BTreeMap<Arc<Destination>, Vec<NoticeId>> = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(4);
        while outbox.outstanding() > 0 {
            let ids: Vec<NoticeId> = outbox.outstanding.keys().copied().collect();
            for id in ids.into_iter().filter(|_| random.bool()) {
                seen.entry(Arc::clone(&outbox.outstanding[&id].notice.key.destination)).or_default().push(id);
                assert!(outbox.finished(id, DeliveryResult::Sent, at(0)).is_some());
            }
            leaving_for(&mut outbox, CAPACITY);
            assert!(outbox.outstanding() <= CAPACITY);
        }
        assert_eq!((seen.values().map(Vec::len).sum::<usize>(), outbox.waiting()), (60 * 2_000, 0));
        assert!(outbox.parked.is_empty() && outbox.shares.is_empty() && outbox.turns.is_empty());
    }

    #[test]
    fn what_was_parked_passes_the_gate_again() {
        let mut outbox = Outbox::default();
        let stuck = Durability { durable: 0, silent_since: Some(at(0)) };
        for monitor in 0..3 {
            outbox.add(notice(monitor, 1, Raise::Red), 1 + u64::from(monitor), at(0), at(0));
        }
        // One at a time with so little room; the other two are parked while the store is silent.
        let first = outbox.depart(at(5), stuck, 4).map(|departure| departure.id);
        assert!(first.is_some() && outbox.depart(at(5), stuck, 4).is_none());
        assert_eq!(outbox.waiting(), 2);
        assert!(outbox.finished(first.unwrap(), DeliveryResult::Sent, at(5)).is_some());
        // The store speaks again, and is behind: nothing leaves that is not durable.
        let behind = Durability { durable: 1, silent_since: Some(at(5)) };
        assert!(outbox.depart(at(6), behind, 4).is_none());
        assert_eq!(outbox.next_deadline(behind, 4), Some(at(5) + COMMIT_PATIENCE), "it is waited for");
        let caught_up = Durability { durable: 2, silent_since: None };
        assert!(outbox.depart(at(6), caught_up, 4).is_some_and(|departure| departure.durable));
    }
}
