//! Notices between the decision to send them and the destination's answer.
//!
//! ```text
//!  hold (after the start) ──▶ ready ──durable, room, pace──▶ outstanding ──▶ done
//!                              ▲ ▲                              │   │
//!             behind ──follows─┘ └──── pausing ◀──── failed ────┘   └──▶ dead (a person may bring it back)
//! ```
//! Nothing is ever dropped but by a person, and nothing leaves before its commit is durable, but for a store that has been
//! silent for [`COMMIT_PATIENCE`]: an alert that waits for a dead disk is a lost alert.
//!
//! **Order** matters within one monitor (by its name, which outlives its number) and destination only, the *line*: the
//! raise before its resolve, and the resolve before the next episode's raise, or the last that people hear is wrong for
//! ever. So only one notice of these is on its way at a time, and the next one waits *behind* it until it is done or dead.
//! News does not wait out the pause of the one before it: both are tried at once.
//!
//! **Room**: a destination that takes nothing must not use up the room of the others. It may have a part of the room that is
//! *left*: so the first one that hangs leaves most of it, and every further one takes less.
//!
//! Each destination is a *post* with a queue of its own, and in exactly one stance: idle; having its turn; full, until one
//! of its own comes back; asleep, until its pace lets it go on ([`pacer`]); or waiting for the store. Turns go round. So
//! nobody holds up another, nothing is scanned, and [`Outbox::next_deadline`] is exact.
//!
//! **Failures**: a notice pauses, from a second (ten, for pagers) to five minutes, doubling, and up to a quarter more by
//! chance; the destination's first success after a doubt ends the pauses of all its notices. Dead at once: what was refused.
//! Dead later: what may have arrived [`UNSURE_MAX`] times, and what has failed for [`DEAD_LETTER_AGE`] in this process.
//! What waits behind a dead one goes its way.
//!
//! **Passing** notices refresh what a destination would forget. They have no row in the store and numbers of their own, and
//! one that fails is gone. They keep to their line, so none is ever sent after a resolve that follows it.
//!
//! Memory: each notice is here whole. Beyond [`OUTBOX_MEMORY_MAX`](crate::units::limits::OUTBOX_MEMORY_MAX) the desk says
//! so; nothing is refused, since the store has them anyway.

mod pacer;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::pacer::Pacer;
use super::protocol::{Delivered, DeliveryResult, NoticeId, OutboxState};
use crate::domain::{Destination, Notice, Raise};
use crate::units::limits::{COMMIT_PATIENCE, DEAD_LETTER_AGE, FINISHED_NOTICES_MAX, OUTSTANDING_SHARE, UNSURE_MAX};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};

/// Numbers from here on are of passing notices, and of this process alone.
const PASSING: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) notice: Box<Notice>,
    post: usize,
    /// The commit that it is part of.
    sequence: u64,
    not_before: Instant,
    place: Place,
    since: Instant,
    pub(super) attempts: u32,
    /// Attempts that may have arrived.
    unsure: u32,
    failing_since: Option<Instant>,
    pub(super) last: Option<Delivered>,
    /// A person wants no more of it, and it is on its way.
    dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Another one of its line is on its way.
    Behind,
    Held(Instant),
    Ready,
    Outstanding,
    Pausing(Instant),
    Dead,
}

/// A destination.
#[derive(Debug)]
struct Post {
    pacer: Pacer,
    stance: Stance,
    /// Who may leave as far as their lines are concerned. What was dropped since is passed over.
    ready: VecDeque<NoticeId>,
    outstanding: usize,
    pausing: BTreeMap<NoticeId, Instant>,
    lines: BTreeMap<Box<str>, Line>,
}

#[derive(Debug)]
struct Line {
    /// On its way: held, ready, outstanding or pausing.
    first: NoticeId,
    behind: VecDeque<NoticeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    Idle,
    Turn,
    /// It has its share, or as many as it takes, and so at least one outstanding.
    Full,
    Asleep(Instant),
    /// The store has not yet what is next.
    Gated,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    next_id: u64,
    next_passing: u64,
    /// All that are not done and not dead.
    entries: BTreeMap<NoticeId, Entry>,
    dead: BTreeMap<NoticeId, Entry>,
    /// The last that were done, for those who ask what became of them.
    finished: VecDeque<(NoticeId, Entry)>,
    held: BTreeSet<(Instant, NoticeId)>,
    posts: Vec<Post>,
    post_of: BTreeMap<Arc<Destination>, usize>,
    turns: VecDeque<usize>,
    asleep: BTreeSet<(Instant, usize)>,
    gated: Vec<usize>,
    /// What the store had said when the gated ones were last looked at.
    gate: Option<(u64, bool)>,
    outstanding: usize,
    pausing: usize,
}

/// A notice that may leave now.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) id: NoticeId,
    pub(super) notice: Box<Notice>,
    pub(super) durable: bool,
}

/// What an attempt has led to.
#[derive(Debug)]
pub(super) enum End {
    Done(Box<Notice>),
    Again,
    Dead { notice: Box<Notice>, why: Box<str> },
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
    fn lets_out(self, sequence: u64, now: Instant) -> Option<bool> {
        let durable = sequence <= self.durable || planted::is(Bug::ActionWithoutCommit);
        (durable || self.is_stuck(now)).then_some(durable)
    }
}

/// Whether a notice has no row in the store.
pub(super) const fn is_passing(id: NoticeId) -> bool {
    id.0 >= PASSING
}

impl Outbox {
    /// Goes on with the numbers of an older process.
    pub(super) fn count_on_from(&mut self, next: u64) {
        self.next_id = self.next_id.max(next.saturating_sub(1));
    }

    /// Takes a notice whose record is part of commit `sequence`; it leaves `not_before`.
    pub(super) fn add(&mut self, notice: Box<Notice>, sequence: u64, not_before: Instant, now: Instant) -> NoticeId {
        self.next_id += 1;
        let id = NoticeId(self.next_id);
        self.take(id, notice, sequence, not_before, 0, now);
        id
    }

    /// Takes one that the store held, under its old number.
    pub(super) fn restore(
        &mut self,
        id: NoticeId,
        notice: Box<Notice>,
        attempts: u32,
        dead: Option<Box<str>>,
        now: Instant,
    ) {
        let Some(why) = dead else { return self.take(id, notice, 0, now, attempts, now) };
        let post = self.post(&notice.key.destination);
        let mut entry = Entry::new(notice, post, 0, now, attempts, now);
        entry.place = Place::Dead;
        entry.last = Some(Delivered::new(DeliveryResult::Refused, why));
        self.dead.insert(id, entry);
    }

    /// The same destination, as it is known here: what comes from a store has one of its own for each notice.
    pub(super) fn known(&mut self, destination: &Arc<Destination>) -> Arc<Destination> {
        self.post(destination);
        self.post_of.get_key_value(destination).map_or_else(|| Arc::clone(destination), |(known, _)| Arc::clone(known))
    }

    /// Takes one that refreshes what was sent before, if there is nothing in its way: nothing of its line, and nothing
    /// at all where the destination is not well.
    pub(super) fn pass(&mut self, notice: Box<Notice>, now: Instant) -> bool {
        let post = self.post(&notice.key.destination);
        let post = &self.posts[post];
        // Who is not well is probed by one of these where there is nothing else.
        let is_empty = post.lines.is_empty();
        if post.lines.contains_key(&*notice.monitor_name) || !is_empty && !post.pacer.is_well(now) {
            return false;
        }
        self.next_passing += 1;
        self.take(NoticeId(PASSING + self.next_passing), notice, 0, now, 0, now);
        true
    }

    /// Whether something of this line is still to be delivered.
    pub(super) fn is_under_way(&self, destination: &Arc<Destination>, name: &str) -> bool {
        self.post_of.get(destination).is_some_and(|post| self.posts[*post].lines.contains_key(name))
    }

    fn take(
        &mut self,
        id: NoticeId,
        notice: Box<Notice>,
        sequence: u64,
        not_before: Instant,
        attempts: u32,
        now: Instant,
    ) {
        let at = self.post(&notice.key.destination);
        let entry = Entry::new(notice, at, sequence, not_before, attempts, now);
        self.line_up(id, entry, now);
    }

    fn line_up(&mut self, id: NoticeId, mut entry: Entry, now: Instant) {
        let at = entry.post;
        let post = &mut self.posts[at];
        post.pacer.news(now);
        if planted::is(Bug::ResolveBeforeRaise) && entry.notice.key.raise == Raise::Resolve {
            entry.place = Place::Ready;
            post.ready.push_front(id);
            self.entries.insert(id, entry);
            return self.nudge(at);
        }
        if let Some(line) = post.lines.get_mut(&*entry.notice.monitor_name) {
            line.behind.push_back(id);
            let first = line.first;
            self.entries.insert(id, entry);
            self.end_pause(first);
            // Another probe may leave earlier.
            return self.nudge(at);
        }
        post.lines.insert(entry.notice.monitor_name.clone(), Line { first: id, behind: VecDeque::new() });
        self.entries.insert(id, entry);
        self.set_out(id, now);
    }

    fn post(&mut self, destination: &Arc<Destination>) -> usize {
        if let Some(post) = self.post_of.get(destination) {
            return *post;
        }
        self.posts.push(Post {
            pacer: Pacer::new(destination.pace, &destination.provider),
            stance: Stance::Idle,
            ready: VecDeque::new(),
            outstanding: 0,
            pausing: BTreeMap::new(),
            lines: BTreeMap::new(),
        });
        self.post_of.insert(Arc::clone(destination), self.posts.len() - 1);
        self.posts.len() - 1
    }

    /// The first of its line sets out.
    fn set_out(&mut self, id: NoticeId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.not_before > now {
            entry.place = Place::Held(entry.not_before);
            self.held.insert((entry.not_before, id));
            return;
        }
        if planted::is(Bug::OverwrittenNotice)
            && let Some(lost) = self.posts[entry.post].ready.pop_back()
        {
            self.entries.remove(&lost);
        }
        self.make_ready(id);
    }

    fn make_ready(&mut self, id: NoticeId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.place = Place::Ready;
        let post = entry.post;
        self.posts[post].ready.push_back(id);
        self.nudge(post);
    }

    /// It need not wait any longer, if it does.
    fn end_pause(&mut self, id: NoticeId) {
        let Some(&Entry { place: Place::Pausing(until), post, .. }) = self.entries.get(&id) else { return };
        self.posts[post].pausing.remove(&id);
        self.pausing -= 1;
        self.held.remove(&(until, id));
        self.make_ready(id);
    }

    /// Something may have changed for this post: it is looked at.
    fn nudge(&mut self, at: usize) {
        match self.posts[at].stance {
            Stance::Turn => return,
            Stance::Asleep(until) => {
                self.asleep.remove(&(until, at));
            }
            Stance::Gated => self.gated.retain(|gated| *gated != at),
            Stance::Idle | Stance::Full => {}
        }
        self.posts[at].stance = Stance::Turn;
        self.turns.push_back(at);
    }

    /// The next notice that may leave, while fewer than `capacity` are outstanding.
    pub(super) fn depart(&mut self, now: Instant, durability: Durability, capacity: usize) -> Option<Departure> {
        self.release(now, durability);
        let room = capacity.checked_sub(self.outstanding).filter(|room| *room > 0)?;
        let share = (room / OUTSTANDING_SHARE).max(1);
        while let Some(&at) = self.turns.front() {
            let stance = match self.next_of(at, share, now, durability) {
                Ok((id, durable)) => {
                    self.turns.rotate_left(1);
                    return self.leave(id, durable, now);
                }
                Err(stance) => stance,
            };
            self.turns.pop_front();
            self.posts[at].stance = stance;
            match stance {
                Stance::Asleep(until) => {
                    self.asleep.insert((until, at));
                }
                Stance::Gated => self.gated.push(at),
                Stance::Idle | Stance::Turn | Stance::Full => {}
            }
        }
        None
    }

    /// Which one of this post may leave now, else why none.
    fn next_of(
        &mut self,
        at: usize,
        share: usize,
        now: Instant,
        durability: Durability,
    ) -> Result<(NoticeId, bool), Stance> {
        let post = &mut self.posts[at];
        while post.ready.front().is_some_and(|id| self.entries.get(id).is_none_or(|entry| entry.place != Place::Ready))
        {
            post.ready.pop_front();
        }
        let next = post.ready.front().and_then(|id| Some((*id, self.entries.get(id)?.sequence)));
        let (id, sequence) = next.ok_or(Stance::Idle)?;
        if post.outstanding >= share.min(post.pacer.limit()) {
            return Err(Stance::Full);
        }
        let opens = post.pacer.opens();
        if opens > now {
            return Err(Stance::Asleep(opens));
        }
        let durable = durability.lets_out(sequence, now).ok_or(Stance::Gated)?;
        Ok((id, durable))
    }

    fn leave(&mut self, id: NoticeId, durable: bool, now: Instant) -> Option<Departure> {
        let entry = self.entries.get_mut(&id)?;
        entry.place = Place::Outstanding;
        let post = &mut self.posts[entry.post];
        post.ready.pop_front();
        post.outstanding += 1;
        post.pacer.left(now);
        self.outstanding += 1;
        Some(Departure { id, notice: entry.notice.clone(), durable })
    }

    /// Lets go what has waited long enough.
    fn release(&mut self, now: Instant, durability: Durability) {
        while let Some(&(until, id)) = self.held.first() {
            if until > now {
                break;
            }
            self.end_pause(id);
            // Else it was the hold after the start.
            if self.held.remove(&(until, id)) {
                self.make_ready(id);
            }
        }
        while let Some(&(until, at)) = self.asleep.first() {
            if until > now {
                break;
            }
            self.nudge(at);
        }
        let gate = (durability.durable, durability.is_stuck(now));
        if self.gate.replace(gate) != Some(gate) {
            for at in std::mem::take(&mut self.gated) {
                self.nudge(at);
            }
        }
    }

    /// Ends every hold, and every pause of a notice: there is no later. Destinations still have their pace. What only
    /// refreshes is forgotten.
    pub(super) fn release_all(&mut self) {
        let waiting: Vec<NoticeId> = self.entries.keys().copied().collect();
        for id in waiting {
            if is_passing(id) {
                self.forget(id, Instant::ZERO);
                continue;
            }
            self.end_pause(id);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.not_before = Instant::ZERO;
                if let Place::Held(until) = entry.place {
                    self.held.remove(&(until, id));
                    self.make_ready(id);
                }
            }
        }
    }

    /// The lane has finished with a notice.
    pub(super) fn finished(
        &mut self,
        id: NoticeId,
        delivered: Delivered,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<End> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.place == Place::Outstanding)?;
        let at = entry.post;
        entry.attempts = entry.attempts.saturating_add(1);
        let post = &mut self.posts[at];
        post.outstanding -= 1;
        let recovered = post.pacer.ended(&delivered, post.outstanding, now, rng);
        self.outstanding -= 1;
        let why = entry.death(&delivered, now);
        let Delivered { result, after, .. } = delivered;
        entry.last = Some(delivered);
        let taken = matches!(result, DeliveryResult::Sent | DeliveryResult::Fallback);
        let done = taken || entry.dropped || is_passing(id) || planted::is(Bug::FailedDeliveryForgotten);
        if !planted::is(Bug::ParkedNoticeForgotten) {
            self.nudge(at);
        }
        if recovered {
            let pausing: Vec<NoticeId> = self.posts[at].pausing.keys().copied().collect();
            for id in pausing {
                self.end_pause(id);
            }
        }
        if done {
            let entry = self.take_out(id, now)?;
            let notice = entry.notice.clone();
            if !is_passing(id) {
                self.remember(id, entry);
            }
            return Some(End::Done(notice));
        }
        if let Some(why) = why {
            let mut entry = self.take_out(id, now)?;
            entry.place = Place::Dead;
            let notice = entry.notice.clone();
            self.dead.insert(id, entry);
            return Some(End::Dead { notice, why });
        }
        let entry = self.entries.get_mut(&id)?;
        // A whole destination that pauses is no reason for its notices to do so beyond that.
        let pause = if after.is_some() { Span::ZERO } else { self.posts[at].pacer.pause(entry.attempts, rng) };
        if pause == Span::ZERO {
            entry.place = Place::Ready;
            self.posts[at].ready.push_front(id);
            return Some(End::Again);
        }
        let until = now + pause;
        entry.place = Place::Pausing(until);
        self.posts[at].pausing.insert(id, until);
        self.pausing += 1;
        self.held.insert((until, id));
        Some(End::Again)
    }

    fn remember(&mut self, id: NoticeId, entry: Entry) {
        if self.finished.len() >= FINISHED_NOTICES_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back((id, entry));
    }

    /// It is on its way no more, and the next one in its line sets out.
    fn take_out(&mut self, id: NoticeId, now: Instant) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let post = &mut self.posts[entry.post];
        let Some(line) = post.lines.get_mut(&*entry.notice.monitor_name) else { return Some(entry) };
        if line.first != id {
            line.behind.retain(|behind| *behind != id);
            return Some(entry);
        }
        match line.behind.pop_front() {
            Some(next) => {
                line.first = next;
                self.set_out(next, now);
            }
            None => {
                post.lines.remove(&*entry.notice.monitor_name);
            }
        }
        Some(entry)
    }

    /// Takes it from wherever it waits. What is outstanding stays.
    fn forget(&mut self, id: NoticeId, now: Instant) -> Option<Entry> {
        let entry = self.entries.get(&id).filter(|entry| entry.place != Place::Outstanding)?;
        match entry.place {
            Place::Held(until) => {
                self.held.remove(&(until, id));
            }
            Place::Pausing(until) => {
                self.held.remove(&(until, id));
                self.posts[entry.post].pausing.remove(&id);
                self.pausing -= 1;
            }
            Place::Behind | Place::Ready | Place::Outstanding | Place::Dead => {}
        }
        self.take_out(id, now)
    }

    /// A person wants no more of it: whether that is news. What has left cannot be called back, but it is not tried again.
    pub(super) fn drop_one(&mut self, id: NoticeId, now: Instant) -> bool {
        let gone = self.dead.remove(&id).or_else(|| self.forget(id, now));
        if let Some(entry) = gone {
            self.remember(id, entry);
            return true;
        }
        self.entries.get_mut(&id).is_some_and(|entry| !std::mem::replace(&mut entry.dropped, true))
    }

    /// A person wants it tried now. Answers with the notice if it was dead: then it begins anew, as part of a commit.
    pub(super) fn retry(&mut self, id: NoticeId, sequence: u64, now: Instant) -> Option<&Notice> {
        if let Some(mut entry) = self.dead.remove(&id) {
            (entry.unsure, entry.failing_since, entry.sequence, entry.place) = (0, None, sequence, Place::Behind);
            self.posts[entry.post].pacer.forgive();
            self.line_up(id, entry, now);
            return self.entries.get(&id).map(|entry| &*entry.notice);
        }
        let entry = self.entries.get(&id)?;
        let at = entry.post;
        let post = &mut self.posts[at];
        post.pacer.forgive();
        let first = post.lines.get(&*entry.notice.monitor_name).map_or(id, |line| line.first);
        self.end_pause(first);
        self.nudge(at);
        None
    }

    /// The resolve of this episode that waits for this destination, if there is one.
    pub(super) fn resolve_behind(&self, raise: &Notice) -> Option<&Notice> {
        let post = &self.posts[*self.post_of.get(&raise.key.destination)?];
        let line = post.lines.get(&*raise.monitor_name)?;
        let all = std::iter::once(&line.first).chain(&line.behind);
        all.filter_map(|id| self.entries.get(id)).map(|entry| &*entry.notice).find(|notice| {
            notice.key.episode == raise.key.episode && matches!(notice.key.raise, Raise::Resolve | Raise::Gray)
        })
    }

    /// A notice that the lane has in hand.
    pub(super) fn outstanding_notice(&self, id: NoticeId) -> Option<&Notice> {
        self.entries.get(&id).filter(|entry| entry.place == Place::Outstanding).map(|entry| &*entry.notice)
    }

    pub(super) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Neither outstanding nor dead.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len() - self.outstanding
    }

    /// When something may leave that may not now. Without room the store's silence is no reason to wake up.
    pub(super) fn next_deadline(&self, durability: Durability, capacity: usize) -> Option<Instant> {
        let hold = self.held.first().map(|(until, _)| *until);
        let pace = self.asleep.first().map(|(until, _)| *until);
        let waits = !self.gated.is_empty() && self.outstanding < capacity;
        let patience = durability.silent_since.filter(|_| waits).map(|since| since + COMMIT_PATIENCE);
        [hold, pace, patience].into_iter().flatten().min()
    }
}

impl Entry {
    fn new(notice: Box<Notice>, post: usize, sequence: u64, not_before: Instant, attempts: u32, now: Instant) -> Self {
        Self {
            notice,
            post,
            sequence,
            not_before,
            place: Place::Behind,
            since: now,
            attempts,
            // Nobody knows what came of those of an older process.
            unsure: attempts.min(UNSURE_MAX - 1),
            failing_since: None,
            last: None,
            dropped: false,
        }
    }

    /// Why it is not tried again after this, if it is not.
    fn death(&mut self, delivered: &Delivered, now: Instant) -> Option<Box<str>> {
        match delivered.result {
            DeliveryResult::Sent | DeliveryResult::Fallback => return None,
            DeliveryResult::Refused => return Some(delivered.said.clone()),
            DeliveryResult::Unsure => self.unsure += 1,
            DeliveryResult::Failed => {}
        }
        let failing = now.since(*self.failing_since.get_or_insert(now));
        let is_enough = self.unsure >= UNSURE_MAX && !planted::is(Bug::UnsureForEver);
        if is_enough && delivered.result == DeliveryResult::Unsure {
            return Some(format!("it may have arrived, {} times: {}", self.unsure, delivered.said).into());
        }
        (failing >= DEAD_LETTER_AGE).then(|| format!("failed for {failing}: {}", delivered.said).into())
    }

    pub(super) const fn state(&self) -> OutboxState {
        match self.place {
            Place::Behind | Place::Held(_) | Place::Ready => OutboxState::Waiting,
            Place::Outstanding => OutboxState::Outstanding,
            Place::Pausing(_) => OutboxState::Pausing,
            Place::Dead => OutboxState::Dead,
        }
    }
}
