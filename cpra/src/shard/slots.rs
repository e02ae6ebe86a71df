//! The servers of the queueing model: in-flight slots, each with a permanent socket, a generation and one timer.
//!
//! ```text
//!          take             judged, wait for FIN          FIN or bound            completed, quiet
//!  Free ─────────▶ Flight ─────────────────────▶ Lingering ──────────▶ Leaving ─────────────────▶ Free
//!   ▲               │  ▲ │                                              ▲   │
//!   │        failed,│  │ │ judged ───────────────────────────────────────┘   │ with a check waiting: its
//!   │  attempts left│  │ │                                                   │ next attempt
//!   │               ▼  │ └──────▶ Idle (kept connection) ──────────────▶─────┘
//!   └──────────── Paused
//!
//!  Flight ── a redirect ──▶ Hopping ── quiet, and the address known ──▶ Flight
//! ```
//! **A slot is reused only when it is quiet**: when every operation submitted on it has completed for good. An
//! operation of the old connection would otherwise answer for the next target (see [`crate::ring`]).
//!
//! A slot has one deadline at a time and at most one entry on the timer wheel that counts; moving the deadline later
//! leaves the entry where it is, and it is laid out again when it comes up. So a check that takes a millisecond under
//! a timeout of seconds costs the wheel nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::classes::{Busy, Class};
use super::hops::Leg;
use crate::domain::Policy;
use crate::probe::{Kept, Probe};
use crate::ring::{Family, OpKind};
use crate::schedule::wheel::{Owner, TickClock};
use crate::schedule::{Tick, Wheel};
use crate::units::limits::KEEP_ALIVE_PER_ORIGIN_MAX;
use crate::units::planted::{self, Bug};
use crate::units::{Generation, Instant, Slot, Span};

/// A check on its slot.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) monitor: u32,
    /// By which it was begun, and is ended, whatever a reload makes of it meanwhile.
    pub(super) policy: Arc<Policy>,
    pub(super) due: Tick,
    /// Whose worker it holds, and since when: that is later than `slotted` where the check is overdue.
    pub(super) class: Class,
    pub(super) seated: Instant,
    /// When it took its slot.
    pub(super) slotted: Instant,
    /// When the first attempt began: its name was asked for, or its slot taken. Waiting for a slot is not part of it.
    pub(super) started: Instant,
    pub(super) attempt_started: Instant,
    /// When the attempt, or its last leg, asked for its connect or its echo request.
    pub(super) asked: Instant,
    /// How long this process took to send what it was asked to, and to look at what came for it, as far as the kernel
    /// tells: the target, and the way to it, had no part in that.
    pub(super) ours: Span,
    /// When the attempt's time is up; the slot's own deadline may be earlier, where the probe wished to be woken.
    pub(super) deadline: Instant,
    /// Counts from 1.
    pub(super) attempt: u8,
    /// Where a redirect has led this attempt, or is leading it.
    pub(super) leg: Option<Box<Leg>>,
    /// On a kept connection: a failure there is no verdict yet.
    pub(super) reused: bool,
    /// The loop stood still meanwhile.
    pub(super) stalled: bool,
    /// It makes whole connections only: half of one met silence, or its monitor is not up.
    pub(super) whole: bool,
    /// Where the attempts begin; see `leg`.
    pub(super) address: SocketAddr,
    /// How long names took; part of the attempt.
    pub(super) resolve: Span,
    pub(super) probe: Probe,
}

/// Whose connection it is: only a check of the same may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    /// It leads to a proxy, which is spoken to otherwise than a server.
    pub(super) proxied: bool,
    /// How and for whom it is secured ([`crate::probe::identity`]); 0 without TLS.
    pub(super) identity: u128,
}

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) origin: Origin,
    pub(super) kept: Option<Box<Kept>>,
}

#[derive(Debug)]
pub(super) enum State {
    Free,
    Flight(Flight),
    /// Between two attempts; the next one begins when the deadline has passed and the slot is quiet.
    Paused(Flight),
    /// Between two connections of one attempt, the `leg` before it; the attempt's time goes on.
    Hopping(Flight),
    /// A kept connection that nobody uses.
    Idle(Idle),
    /// Judged; the peer was asked to close.
    Lingering,
    /// Disconnecting.
    Leaving,
}

impl State {
    /// The check that holds the slot.
    const fn flight(&self) -> Option<&Flight> {
        match self {
            Self::Flight(flight) | Self::Paused(flight) | Self::Hopping(flight) => Some(flight),
            Self::Free | Self::Idle(_) | Self::Lingering | Self::Leaving => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) generation: Generation,
    /// A bit per [`OpKind`] that has not completed for good, and [`ERRAND`].
    pending: u8,
    /// The attempt uses the slot's socket.
    pub(super) wired: bool,
    /// The family of its socket; `None` when it has none.
    pub(super) family: Option<Family>,
    deadline: Option<Instant>,
    /// Where its entry on the timer wheel lies.
    armed: Option<Tick>,
}

/// The bit of an errand that has not returned.
const ERRAND: u8 = 1 << 7;

impl Entry {
    pub(super) fn is_quiet(&self) -> bool {
        if planted::is(Bug::SlotReusedEarly) {
            return !self.is_pending(OpKind::Connect) && !self.is_pending(OpKind::Disconnect);
        }
        self.pending == 0
    }

    pub(super) const fn is_pending(&self, kind: OpKind) -> bool {
        self.pending & 1 << kind as u8 != 0
    }

    pub(super) const fn has_errand(&self) -> bool {
        self.pending & ERRAND != 0
    }

    pub(super) fn sent_off(&mut self) {
        debug_assert!(!self.has_errand() || planted::is(Bug::SlotReusedEarly), "one errand at a time");
        self.pending |= ERRAND;
    }

    pub(super) fn returned(&mut self) {
        self.pending &= !ERRAND;
    }

    pub(super) const fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    pub(super) fn submitted(&mut self, kind: OpKind) {
        debug_assert!(!self.is_pending(kind) || planted::is(Bug::SlotReusedEarly), "one {kind:?} at a time");
        self.pending |= 1 << kind as u8;
    }

    pub(super) fn completed(&mut self, kind: OpKind) {
        self.pending &= !(1 << kind as u8);
    }
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    pub(super) flights: usize,
    /// Between two attempts, or two connections of one.
    pub(super) paused: usize,
    pub(super) idle: usize,
    /// Disconnecting: free before long.
    pub(super) leaving: usize,
    /// Checks that hold a slot, by class.
    pub(super) busy: Busy,
}

#[derive(Debug)]
pub(super) struct Slots {
    entries: Vec<Entry>,
    /// Quiet slots with a socket of the family; the lowest number first, so that the sockets of a burst stay unused.
    free: [BinaryHeap<Reverse<u32>>; 2],
    /// Quiet slots without a socket.
    bare: BinaryHeap<Reverse<u32>>,
    idle: HashMap<Origin, Vec<u32>, FxBuildHasher>,
    max: u32,
    clock: TickClock,
    timers: Wheel,
    census: Census,
    /// A bit per slot that is idle or lingers: a search looks at 64 of them at a time.
    spare: Vec<u64>,
    /// The word in which the last search ended.
    spare_hand: usize,
}

/// A slot to use, and whether its socket has to be made, perhaps after giving up one of the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Ready(Slot),
    Open(Slot),
    Reopen(Slot),
}

impl Slots {
    pub(super) fn new(max: u32, clock: TickClock, now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            free: Default::default(),
            bare: BinaryHeap::new(),
            idle: HashMap::with_hasher(FxBuildHasher),
            max,
            clock,
            timers: Wheel::new(clock.passed(now)),
            census: Census::default(),
            spare: Vec::new(),
            spare_hand: 0,
        }
    }

    pub(super) fn entry(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.index()]
    }

    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.index())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn census(&self) -> Census {
        self.census
    }

    /// Slots with something of a check on them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Entry)> {
        self.entries.iter_mut().enumerate().map(|(index, entry)| (Slot(index as u32), entry))
    }

    /// The slots that checks of these monitors hold.
    pub(super) fn held_by(&self, monitors: impl Fn(u32) -> bool) -> Vec<Slot> {
        let held = |entry: &Entry| entry.state.flight().is_some_and(|flight| monitors(flight.monitor));
        (0..).map(Slot).zip(&self.entries).filter(|(_, entry)| held(entry)).map(|(slot, _)| slot).collect()
    }

    /// The slots of kept connections over TLS.
    pub(super) fn kept_secured(&self) -> Vec<Slot> {
        let secured = self.idle.iter().filter(|(origin, _)| origin.identity != 0);
        let mut slots: Vec<Slot> = secured.flat_map(|(_, kept)| kept.iter().map(|&index| Slot(index))).collect();
        slots.sort_unstable();
        slots
    }

    /// A quiet slot with a socket of `family`, if there is one or one can be made.
    pub(super) fn take(&mut self, family: Family) -> Option<Taken> {
        if let Some(Reverse(index)) = self.free[family as usize].pop() {
            return Some(Taken::Ready(Slot(index)));
        }
        if let Some(Reverse(index)) = self.bare.pop() {
            self.entries[index as usize].family = Some(family);
            return Some(Taken::Open(Slot(index)));
        }
        if let Some(slot) = self.grow(Some(family)) {
            return Some(Taken::Open(slot));
        }
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let Reverse(index) = self.free[other as usize].pop()?;
        self.entries[index as usize].family = Some(family);
        Some(Taken::Reopen(Slot(index)))
    }

    /// A quiet slot for a check that needs no socket; it may have one all the same.
    pub(super) fn take_bare(&mut self) -> Option<Slot> {
        if let Some(Reverse(index)) = self.bare.pop() {
            return Some(Slot(index));
        }
        if let Some(slot) = self.grow(None) {
            return Some(slot);
        }
        let Reverse(index) = self.free.iter_mut().find_map(BinaryHeap::pop)?;
        Some(Slot(index))
    }

    fn grow(&mut self, family: Option<Family>) -> Option<Slot> {
        let index = u32::try_from(self.entries.len()).ok().filter(|&index| index < self.max)?;
        self.entries.push(Entry {
            state: State::Free,
            generation: Generation::default(),
            pending: 0,
            wired: false,
            family,
            deadline: None,
            armed: None,
        });
        Some(Slot(index))
    }

    /// A kept connection to `origin`, to be used now. The origin's empty list stays: the connection is about to come
    /// back to it.
    pub(super) fn take_idle(&mut self, origin: &Origin) -> Option<(Slot, Option<Box<Kept>>)> {
        let index = self.idle.get_mut(origin)?.pop()?;
        let slot = Slot(index);
        self.census.idle -= 1;
        self.note_spare(slot, false);
        // Not idle any more, so that the next change of state does not look for it in the list.
        let before = std::mem::replace(&mut self.entries[slot.index()].state, State::Lingering);
        let State::Idle(Idle { kept, .. }) = before else { unreachable!("only idle slots are listed") };
        Some((slot, kept))
    }

    /// Whether one more connection to `origin` may be kept.
    pub(super) fn may_keep(&self, origin: &Origin) -> bool {
        self.idle.get(origin).is_none_or(|kept| kept.len() < KEEP_ALIVE_PER_ORIGIN_MAX)
    }

    /// A slot that is held for courtesy only, a kept connection or one that waits for the peer's FIN, to be given up
    /// for a check that has none. Successive searches go round.
    pub(super) fn spare(&mut self) -> Option<Slot> {
        let words = self.spare.len();
        let index =
            (0..words).map(|offset| (self.spare_hand + offset) % words).find(|&index| self.spare[index] != 0)?;
        self.spare_hand = index;
        Some(Slot((index * 64) as u32 + self.spare[index].trailing_zeros()))
    }

    fn note_spare(&mut self, slot: Slot, is_spare: bool) {
        let (word, bit) = (slot.index() / 64, 1 << (slot.index() % 64));
        if self.spare.len() <= word {
            self.spare.resize(word + 1, 0);
        }
        if is_spare {
            self.spare[word] |= bit;
        } else {
            self.spare[word] &= !bit;
        }
    }

    /// Puts a slot into another state and answers with the one before.
    pub(super) fn change(&mut self, slot: Slot, state: State) -> State {
        if let Some(flight) = state.flight() {
            self.census.busy[flight.class.index()] += 1;
        }
        match &state {
            State::Flight(_) => self.census.flights += 1,
            State::Paused(_) | State::Hopping(_) => self.census.paused += 1,
            State::Idle(Idle { origin, .. }) => {
                self.census.idle += 1;
                self.idle.entry(*origin).or_default().push(slot.0);
            }
            State::Free => {
                let entry = &self.entries[slot.index()];
                debug_assert!(entry.is_quiet(), "only a quiet slot is free");
                match entry.family {
                    Some(family) => self.free[family as usize].push(Reverse(slot.0)),
                    None => self.bare.push(Reverse(slot.0)),
                }
            }
            State::Lingering => {}
            State::Leaving => self.census.leaving += 1,
        }
        self.note_spare(slot, matches!(state, State::Idle(_) | State::Lingering));
        let before = std::mem::replace(&mut self.entries[slot.index()].state, state);
        if let Some(flight) = before.flight() {
            self.census.busy[flight.class.index()] -= 1;
        }
        match &before {
            State::Flight(_) => self.census.flights -= 1,
            State::Paused(_) | State::Hopping(_) => self.census.paused -= 1,
            State::Idle(Idle { origin, .. }) => {
                self.census.idle -= 1;
                // Not taken by `take_idle`: it leaves for another reason.
                if let Some(kept) = self.idle.get_mut(origin) {
                    kept.retain(|&index| index != slot.0);
                    if kept.is_empty() {
                        self.idle.remove(origin);
                    }
                }
            }
            State::Leaving => self.census.leaving -= 1,
            State::Free | State::Lingering => {}
        }
        before
    }

    /// Whether the check that took this slot at `slotted` is still there, and its kind's.
    pub(super) fn flies(&self, slot: Slot, slotted: Instant) -> bool {
        let flight = self.entries[slot.index()].state.flight();
        flight.is_some_and(|flight| flight.slotted == slotted && flight.class != Class::SUSPECTS)
    }

    /// Makes such a check one of the suspects'.
    pub(super) fn make_suspect(&mut self, slot: Slot, slotted: Instant, now: Instant) {
        debug_assert!(self.flies(slot, slotted), "only a flight of its kind becomes the suspects'");
        let (State::Flight(flight) | State::Paused(flight) | State::Hopping(flight)) =
            &mut self.entries[slot.index()].state
        else {
            return;
        };
        if !planted::is(Bug::OverdueKeepsWorker) {
            self.census.busy[flight.class.index()] -= 1;
        }
        self.census.busy[Class::SUSPECTS.index()] += 1;
        flight.class = Class::SUSPECTS;
        flight.seated = now;
    }

    /// Sets or clears the slot's one deadline.
    pub(super) fn set_deadline(&mut self, slot: Slot, deadline: Option<Instant>) {
        let entry = &mut self.entries[slot.index()];
        entry.deadline = deadline;
        let Some(deadline) = deadline else { return };
        let due = self.clock.due(deadline);
        match entry.armed {
            Some(armed) if armed <= due => {}
            Some(_) => {
                self.timers.cancelled();
                entry.armed = Some(self.timers.insert(slot.0, due));
            }
            None => entry.armed = Some(self.timers.insert(slot.0, due)),
        }
    }

    /// Collects the slots whose deadline has passed; each has none afterwards.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<Slot>) {
        let mut timers = Timers { entries: &mut self.entries, early: Vec::new(), expired, now };
        self.timers.advance(self.clock.passed(now), &mut timers);
        for slot in timers.early {
            let deadline = self.entries[slot.index()].deadline;
            self.set_deadline(slot, deadline);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next().map(|tick| self.clock.instant(tick))
    }
}

struct Timers<'a> {
    entries: &'a mut Vec<Entry>,
    /// Came up, but the deadline has moved on.
    early: Vec<Slot>,
    expired: &'a mut Vec<Slot>,
    now: Instant,
}

impl Owner for Timers<'_> {
    fn due(&self, id: u32) -> Option<Tick> {
        self.entries[id as usize].armed
    }

    fn fire(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.armed = None;
        match entry.deadline {
            Some(deadline) if deadline > self.now => self.early.push(Slot(id)),
            Some(_) => {
                entry.deadline = None;
                self.expired.push(Slot(id));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max: u32) -> Slots {
        Slots::new(max, TickClock::new(Instant::ZERO), Instant::ZERO)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Span::from_millis(millis)
    }

    fn expired(slots: &mut Slots, millis: u64) -> Vec<u32> {
        let mut expired = Vec::new();
        slots.expire(at(millis), &mut expired);
        expired.into_iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn the_pool_grows_on_demand_and_changes_families_when_full() {
        let mut slots = slots(2);
        assert_eq!(slots.take(Family::V4), Some(Taken::Open(Slot(0))));
        assert_eq!(slots.take(Family::V4), Some(Taken::Open(Slot(1))));
        assert_eq!(slots.take(Family::V4), None);
        slots.change(Slot(1), State::Free);
        slots.change(Slot(0), State::Free);
        assert_eq!(slots.take(Family::V4), Some(Taken::Ready(Slot(0))), "the lowest first");
        assert_eq!(slots.take(Family::V6), Some(Taken::Reopen(Slot(1))));
    }

    #[test]
    fn a_deadline_that_moves_fires_once_at_its_last_place() {
        let mut slots = slots(1);
        slots.take(Family::V4).expect("there is room");
        slots.set_deadline(Slot(0), Some(at(10)));
        slots.set_deadline(Slot(0), Some(at(30)));
        assert!(expired(&mut slots, 20).is_empty());
        assert_eq!(slots.next_deadline(), Some(at(30)));
        slots.set_deadline(Slot(0), Some(at(25)));
        assert_eq!(expired(&mut slots, 25), [0]);
        assert!(expired(&mut slots, 100).is_empty());
        slots.set_deadline(Slot(0), Some(at(120)));
        slots.set_deadline(Slot(0), None);
        assert!(expired(&mut slots, 200).is_empty());
        assert_eq!(slots.next_deadline(), None);
    }

    #[test]
    fn kept_connections_are_found_by_origin_and_bounded() {
        let mut slots = slots(100);
        let origin = Origin { address: "10.0.0.1:80".parse().expect("an address"), proxied: false, identity: 0 };
        for index in 0..KEEP_ALIVE_PER_ORIGIN_MAX {
            slots.take(Family::V4).expect("there is room");
            assert!(slots.may_keep(&origin));
            slots.change(Slot(index as u32), State::Idle(Idle { origin, kept: None }));
        }
        assert!(!slots.may_keep(&origin));
        assert!(slots.take_idle(&Origin { proxied: true, ..origin }).is_none(), "a proxy's is another one");
        assert!(slots.take_idle(&Origin { identity: 1, ..origin }).is_none(), "and so is one that is secured");
        let (slot, _) = slots.take_idle(&origin).expect("one is kept");
        slots.change(slot, State::Leaving);
        assert_eq!(slots.census().idle, KEEP_ALIVE_PER_ORIGIN_MAX - 1);
        let other = slots.spare().expect("more are kept");
        slots.change(other, State::Leaving);
        assert_eq!(slots.census().idle, KEEP_ALIVE_PER_ORIGIN_MAX - 2);
        assert_eq!(slots.census().leaving, 2);
    }

    #[test]
    fn the_search_for_a_spare_slot_finds_what_idles_or_lingers() {
        let mut slots = slots(200);
        for index in 0..200 {
            slots.take(Family::V4).expect("there is room");
            slots.change(Slot(index), State::Leaving);
        }
        assert_eq!(slots.spare(), None);
        let origin = Origin { address: "10.0.0.1:80".parse().expect("an address"), proxied: false, identity: 0 };
        slots.change(Slot(130), State::Lingering);
        slots.change(Slot(199), State::Idle(Idle { origin, kept: None }));
        slots.change(Slot(7), State::Lingering);
        for found in [7, 130, 199] {
            assert_eq!(slots.spare(), Some(Slot(found)));
            slots.change(Slot(found), State::Leaving);
        }
        assert_eq!(slots.spare(), None);
    }
}
