//! When a notice may leave: after its commit, in its turn, at its destination's pace, and never once it is dead.
//!
//! Each row of the outbox is followed from its record to its end. What it says to people is not looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desk::protocol::{Delivered, DeliveryResult, NoticeId, Selection, Stored};
use crate::domain::{DeliveryKey, Destination, Notice, Raise};
use crate::sim::coverage::{Coverage, Section};
use crate::units::limits::{COMMIT_PATIENCE, OUTSTANDING_SHARE, PAUSE_MAX, THROTTLE_PAUSE_MIN, UNSURE_MAX};
use crate::units::{Instant, Span};

/// Numbers from here on are of notices that only refresh: they have no row.
const PASSING: u64 = 1 << 63;

/// A finding: which checker, and one sentence.
pub(super) type Found = Result<(), (&'static str, String)>;

/// Within which order matters.
pub(super) type Line = (Box<str>, Arc<Destination>);

pub(super) fn line_of(notice: &Notice) -> Line {
    (notice.monitor_name.clone(), Arc::clone(&notice.key.destination))
}

/// Whether it has no row, and only refreshes what was sent before.
pub(super) const fn is_passing(id: NoticeId) -> bool {
    id.0 >= PASSING
}

#[derive(Debug)]
struct Row {
    key: DeliveryKey,
    line: Line,
    /// Its commit.
    sequence: u64,
    /// A dead one is brought back behind all that came after it.
    position: u64,
    outstanding: bool,
    dead: bool,
    dropped: bool,
    /// It was queued in the step in which a person dropped others: before that word, or after it.
    may_be_dropped: bool,
    unsure: u32,
    /// What came of the last attempt, whether or not the desk has heard.
    last: Option<Delivered>,
    /// Some attempt may have told people, and nobody knows.
    doubted: bool,
}

#[derive(Debug, Default)]
struct Post {
    outstanding: usize,
    /// When the next one would be due, were there no burst.
    due: Instant,
    closed_until: Instant,
    throttled: u32,
}

#[derive(Debug, Default)]
pub(super) struct Leaving {
    rows: BTreeMap<NoticeId, Row>,
    /// Rows and others that are on their way, and where to.
    outstanding: BTreeMap<NoticeId, Arc<Destination>>,
    posts: BTreeMap<Arc<Destination>, Post>,
    /// Dropped while they were on their way.
    called_off: BTreeSet<NoticeId>,
    /// What a person has dropped in this step, also of what is queued in it.
    drops: Vec<Selection>,
    next_id: u64,
    positions: u64,
    /// When each commit was handed over, and which is durable.
    commits: BTreeMap<u64, Instant>,
    durable: u64,
    pub(super) nondurable: u64,
    /// Passing notices that are on their way, and what came of them.
    passing: BTreeMap<NoticeId, (Line, Option<Delivered>)>,
}

impl Leaving {
    /// A process goes on with what the store held.
    pub(super) fn restored(stored: &Stored) -> Self {
        let mut leaving = Self { next_id: stored.next_notice, ..Self::default() };
        for stored in &stored.outbox {
            leaving.insert(stored.id, &stored.notice, 0);
            if let Some(row) = leaving.rows.get_mut(&stored.id) {
                row.dead = stored.dead.is_some();
                // Nobody knows what came of the attempts of an older process.
                row.unsure = stored.attempts.min(UNSURE_MAX - 1);
            }
        }
        leaving
    }

    fn insert(&mut self, id: NoticeId, notice: &Notice, sequence: u64) {
        self.positions += 1;
        let row = Row {
            key: notice.key.clone(),
            line: line_of(notice),
            sequence,
            position: self.positions,
            outstanding: false,
            dead: false,
            dropped: false,
            may_be_dropped: false,
            unsure: 0,
            last: None,
            doubted: false,
        };
        self.rows.insert(id, row);
    }

    pub(super) fn committed(&mut self, sequence: u64, now: Instant) {
        self.commits.insert(sequence, now);
    }

    /// The desk has heard that everything up to here is durable.
    pub(super) fn durable(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence);
    }

    /// It is in a commit; answers whether it was there before.
    pub(super) fn queued(
        &mut self,
        id: NoticeId,
        notice: &Notice,
        sequence: u64,
    ) -> Result<bool, (&'static str, String)> {
        let known = self.rows.get(&id).map(|row| (row.dead, row.key == notice.key));
        match known {
            None if id.0 >= self.next_id && !is_passing(id) => self.next_id = id.0 + 1,
            Some((true, true)) => {}
            _ => return Err(("exactly once", format!("two notices are {id:?}"))),
        }
        self.insert(id, notice, sequence);
        if let Some(row) = self.rows.get_mut(&id) {
            row.doubted = known.is_some();
            row.may_be_dropped = self.drops.iter().any(|selection| is_meant(selection, id, row));
        }
        Ok(known.is_some())
    }

    /// The record says that nothing is left to do; answers with the key where nobody has got it.
    pub(super) fn done(&mut self, id: NoticeId) -> Result<Option<(Line, DeliveryKey)>, (&'static str, String)> {
        let Some(row) = self.rows.remove(&id) else {
            // Dropped on its way, and now it has come back.
            if self.called_off.remove(&id) {
                return Ok(None);
            }
            return Err(("nothing lost", format!("{id:?} is done, and was not to be delivered")));
        };
        let taken = !row.outstanding && row.last.as_ref().is_some_and(|last| is_taken(last.result));
        let dropped = row.dropped || row.may_be_dropped;
        if row.outstanding && dropped {
            self.called_off.insert(id);
        } else if !taken && !dropped {
            return Err(("nothing lost", format!("{:?} of {:?} is done, and nobody got it", row.key.raise, row.line)));
        }
        Ok((!taken).then_some((row.line, row.key)))
    }

    /// The record says that it is given up.
    pub(super) fn dead(&mut self, id: NoticeId) -> Result<(Line, DeliveryKey), (&'static str, String)> {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.dead && !row.outstanding) else {
            return Err(("dead letters", format!("{id:?} is dead, and was not to be delivered")));
        };
        row.dead = true;
        let result = row.last.as_ref().map(|last| last.result);
        let is_due = result == Some(DeliveryResult::Refused)
            || result == Some(DeliveryResult::Unsure) && row.unsure >= UNSURE_MAX;
        if !is_due {
            return Err((
                "dead letters",
                format!("{:?} of {:?} is given up after {result:?}", row.key.raise, row.line),
            ));
        }
        Ok((row.line.clone(), row.key.clone()))
    }

    /// Hands a notice to the lane.
    pub(super) fn leaves(
        &mut self,
        id: NoticeId,
        notice: &Notice,
        now: Instant,
        capacity: usize,
        coverage: &mut Coverage,
    ) -> Found {
        let what =
            format!("{id:?}, {:?} of {} to {}", notice.key.raise, notice.monitor_name, notice.key.destination.name);
        let line = line_of(notice);
        // One that passes holds its line as soon as it is made, and of that there is no record.
        let position = if is_passing(id) {
            0
        } else {
            self.row_leaves(id, notice, now, &what, coverage)?;
            self.rows[&id].position
        };
        // A row that is dead holds up nobody.
        let before = self.rows.iter().find(|(other, row)| {
            **other != id && row.line == line && !row.dead && (row.position < position || row.outstanding)
        });
        if let Some((other, row)) = before {
            return Err(("order", format!("{what} leaves before {other:?}, {:?}", row.key.raise)));
        }
        if let Some(other) = self.passing.iter().find(|(_, (other, _))| *other == line).map(|(id, _)| *id) {
            return Err(("order", format!("{what} leaves while {other:?} is on its way")));
        }
        if is_passing(id) {
            self.passing.insert(id, (line, None));
        }
        if self.outstanding.insert(id, Arc::clone(&notice.key.destination)).is_some() {
            return Err(("exactly once", format!("{what} leaves twice")));
        }
        if let Some(row) = self.rows.get_mut(&id) {
            row.outstanding = true;
        }
        self.keeps_its_pace(notice, now, &what, coverage)?;
        if self.outstanding.len() > capacity {
            return Err(("bounds", format!("{} notices are outstanding", self.outstanding.len())));
        }
        let held = self.posts[&notice.key.destination].outstanding;
        let room = capacity + 1 - self.outstanding.len();
        if held > (room / OUTSTANDING_SHARE).max(1) {
            return Err(("bounds", format!("{what} is the {held}th there, with room for {room} left")));
        }
        if held > 1 {
            coverage.hit(Section::Turn, "a destination had several notices on their way");
        }
        Ok(())
    }

    fn row_leaves(
        &mut self,
        id: NoticeId,
        notice: &Notice,
        now: Instant,
        what: &str,
        coverage: &mut Coverage,
    ) -> Found {
        let Some(row) = self.rows.get(&id) else {
            return Err(("durability", format!("{what} leaves without ever having been committed, or after its end")));
        };
        if row.key != notice.key {
            return Err(("exactly once", format!("{what} is not what was committed as {id:?}")));
        }
        if row.dead {
            return Err(("dead letters", format!("{what} leaves although it is dead")));
        }
        if row.unsure >= UNSURE_MAX && row.last.as_ref().is_some_and(|last| last.result == DeliveryResult::Unsure) {
            return Err(("dead letters", format!("{what} leaves, and may have arrived {} times", row.unsure)));
        }
        if row.sequence > self.durable {
            // The oldest commit without an answer decides whether the store is silent.
            let silent = self.commits.range(self.durable + 1..).next().map(|(_, since)| now.since(*since));
            if silent.is_none_or(|silent| silent < COMMIT_PATIENCE) {
                let text = format!("{what} leaves before commit {} is durable, silent for {silent:?}", row.sequence);
                return Err(("durability", text));
            }
            self.nondurable += 1;
            coverage.hit(Section::Turn, "a notice left before it was durable");
        }
        Ok(())
    }

    fn keeps_its_pace(&mut self, notice: &Notice, now: Instant, what: &str, coverage: &mut Coverage) -> Found {
        let pace = notice.key.destination.pace;
        let post = self.posts.entry(Arc::clone(&notice.key.destination)).or_default();
        post.outstanding += 1;
        if post.outstanding > pace.concurrency.max(1) as usize {
            return Err(("pace", format!("{what} is the {}th there at a time", post.outstanding)));
        }
        let early = pace.every.scaled(u64::from(pace.burst.max(1)) - 1, 1);
        if now + early < post.due {
            return Err(("pace", format!("{what} leaves {} too early", post.due.since(now + early))));
        }
        if now < post.due {
            coverage.hit(Section::Turn, "a burst was used");
        }
        // As soon as it might, or as soon as somebody woke up after that.
        if pace.every > Span::ZERO && now + early < post.due + Span::from_millis(1) && post.due > Instant::ZERO + early
        {
            coverage.hit(Section::Turn, "a notice waited for its destination's pace");
        }
        post.due = post.due.max(now) + pace.every;
        if now < post.closed_until {
            let left = post.closed_until.since(now);
            return Err(("pace", format!("{what} leaves, and nothing is wanted there for another {left}")));
        }
        Ok(())
    }

    /// An attempt has ended, as the lane says.
    pub(super) fn ended(&mut self, id: NoticeId, delivered: &Delivered) {
        if is_passing(id) {
            if let Some((_, came_of)) = self.passing.get_mut(&id) {
                *came_of = Some(delivered.clone());
            }
        } else if let Some(row) = self.rows.get_mut(&id) {
            row.unsure += u32::from(delivered.result == DeliveryResult::Unsure);
            row.doubted |= !is_taken(delivered.result);
            row.last = Some(delivered.clone());
        }
    }

    /// The desk hears of that.
    pub(super) fn heard_back(&mut self, id: NoticeId, now: Instant, coverage: &mut Coverage) {
        let Some(destination) = self.outstanding.remove(&id) else { return };
        let passing = self.passing.remove(&id);
        let row = self.rows.get_mut(&id);
        let last = match row {
            Some(row) => {
                row.outstanding = false;
                row.last.clone()
            }
            None => passing.and_then(|(_, came_of)| came_of),
        };
        let post = self.posts.entry(destination).or_default();
        post.outstanding = post.outstanding.saturating_sub(1);
        let Some(last) = last else { return };
        match last.after {
            Some(Span::ZERO) => {
                coverage.hit(Section::Turn, "a destination wanted nothing, and did not say for how long");
                // Those that had left before say the same thing, not a new one.
                post.throttled += u32::from(post.closed_until <= now);
                let pause = THROTTLE_PAUSE_MIN.scaled(1 << post.throttled.saturating_sub(1).min(7), 1).min(PAUSE_MAX);
                post.closed_until = post.closed_until.max(now + pause);
            }
            Some(after) => {
                coverage.hit(Section::Turn, "a destination wanted nothing for a while");
                post.closed_until = post.closed_until.max(now + after.min(PAUSE_MAX));
            }
            None if !matches!(last.result, DeliveryResult::Failed | DeliveryResult::Unsure) => post.throttled = 0,
            None => {}
        }
    }

    /// A person wants these tried now: whatever pause there is.
    pub(super) fn retried(&mut self, selection: &Selection, coverage: &mut Coverage) {
        for (id, row) in &self.rows {
            if !is_meant(selection, *id, row) {
                continue;
            }
            if row.dead {
                coverage.hit(Section::Turn, "a person brought back what was dead");
            }
            if let Some(post) = self.posts.get_mut(&row.line.1) {
                post.closed_until = Instant::ZERO;
            }
        }
    }

    /// A person wants these never.
    pub(super) fn dropped(&mut self, selection: &Selection, coverage: &mut Coverage) {
        self.drops.push(selection.clone());
        for (id, row) in &mut self.rows {
            if is_meant(selection, *id, row) {
                row.dropped = true;
                coverage.hit(Section::Turn, "a person dropped a notice");
            }
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Numbers of rows, for those who ask for one of them.
    pub(super) fn ids(&self) -> BTreeSet<NoticeId> {
        self.rows.keys().copied().collect()
    }

    /// Whether the last attempt may have told people, and nobody knows.
    pub(super) fn may_come_again(&self, key: &DeliveryKey) -> bool {
        let of_key = self.rows.values().find(|row| row.key == *key);
        of_key.is_none_or(|row| row.doubted)
    }

    /// Whether a person wanted no more of it when it had left.
    pub(super) fn is_called_off(&self, id: NoticeId) -> bool {
        self.called_off.contains(&id)
    }

    /// Whether an end in this line is still to be delivered.
    pub(super) fn is_to_end(&self, line: &Line) -> bool {
        self.rows.values().any(|row| row.line == *line && row.key.raise == Raise::Resolve && !row.dead)
    }

    /// Whether a row of this line is to be delivered or was given up.
    pub(super) fn waits(&self, line: &Line, raise: Raise) -> bool {
        self.rows.values().any(|row| row.line == *line && row.key.raise == raise)
    }

    /// Those that are neither done nor dead.
    pub(super) fn left(&self) -> Option<String> {
        let (id, row) = self.rows.iter().find(|(_, row)| !row.dead)?;
        Some(format!("{id:?}, {:?} of {} to {}, is still to be delivered", row.key.raise, row.line.0, row.line.1.name))
    }

    /// After a step: what a person has dropped is gone, but for what is on its way.
    pub(super) fn dropped_and_there(&mut self) -> Option<NoticeId> {
        self.drops.clear();
        let left = self.rows.iter().find(|(_, row)| row.dropped && !row.outstanding);
        left.map(|(id, _)| *id)
    }
}

const fn is_taken(result: DeliveryResult) -> bool {
    matches!(result, DeliveryResult::Sent | DeliveryResult::Fallback)
}

fn is_meant(selection: &Selection, id: NoticeId, row: &Row) -> bool {
    match selection {
        Selection::All => true,
        Selection::Dead => row.dead,
        Selection::One(one) => *one == id,
        Selection::To(name) => *name == row.line.1.name,
    }
}
