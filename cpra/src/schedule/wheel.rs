//! A timing wheel: which ids are due by now?
//!
//! One level of 65,536 slots of one [`TICK`](crate::units::limits::TICK) each (65.5 s), each slot a `Vec<u32>` that
//! is emptied whole. An id that is due later than one turn lies in the slot of its tick and stays there when the hand
//! passes too early; at the longest interval that is a look every 65.5 s.
//!
//! The wheel does not know when an id is due: the caller does, and is asked. An entry *counts* only while its owner
//! still has a due time that falls into the entry's slot. That makes cancelling free (the owner forgets or changes
//! the time, and says [`Wheel::cancelled`]) and costs nothing per id beyond the four bytes in the slot. The
//! alternative, an intrusive list, was measured at thirty times the cost per fire, for its cache misses.
//!
//! A slot's memory is given back as soon as it is much larger than what it held, so that a burst leaves no mark.

use crate::units::limits::TICK;
use crate::units::{Instant, Span};

const SLOTS: usize = 1 << 16;
const WORDS: usize = SLOTS / 64;
const KEEP_CAPACITY_MIN: usize = 16;

/// A point in time in whole ticks since the wheel's origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The lower 32 bits: what a monitor keeps.
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The tick nearest to `near` with these lower bits.
    pub const fn from_low(low: u32, near: Self) -> Self {
        let ahead = low.wrapping_sub(near.0 as u32).cast_signed();
        Self(near.0.saturating_add_signed(ahead as i64))
    }

    const fn slot(self) -> usize {
        self.0 as usize % SLOTS
    }
}

/// Ticks since an origin: instants are rounded up, so that nothing fires early.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    origin: Instant,
}

impl TickClock {
    pub const fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// The first tick that is not before `instant`.
    pub const fn due(self, instant: Instant) -> Tick {
        Tick(instant.since(self.origin).as_nanos().div_ceil(TICK.as_nanos()))
    }

    /// The last tick that has passed at `now`.
    pub const fn passed(self, now: Instant) -> Tick {
        Tick(now.since(self.origin).as_nanos() / TICK.as_nanos())
    }

    pub fn instant(self, tick: Tick) -> Instant {
        self.origin + Span::from_nanos(tick.0.saturating_mul(TICK.as_nanos()))
    }
}

/// Who knows when the ids of a wheel are due.
pub trait Owner {
    /// The due time that [`Wheel::insert`] returned; `None` for what is not on the wheel (any more).
    fn due(&self, id: u32) -> Option<Tick>;

    /// The id is due. From here on, [`Owner::due`] must not answer with the same time again.
    fn fire(&mut self, id: u32);
}

#[derive(Debug)]
pub struct Wheel {
    slots: Box<[Vec<u32>]>,
    /// One bit per slot that holds anything.
    occupied: Box<[u64]>,
    /// The last tick that was handed out.
    hand: Tick,
    /// Entries that count.
    live: usize,
}

impl Wheel {
    /// A wheel on which everything up to `now` has passed.
    pub fn new(now: Tick) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS].into_boxed_slice(),
            occupied: vec![0; WORDS].into_boxed_slice(),
            hand: now,
            live: 0,
        }
    }

    /// Entries that count.
    pub const fn len(&self) -> usize {
        self.live
    }

    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Lays an id into the slot of its due time; what is due by now comes out at the next tick. Returns the due time
    /// that the caller must answer with when asked.
    pub fn insert(&mut self, id: u32, due: Tick) -> Tick {
        let due = due.max(Tick(self.hand.0 + 1));
        let slot = due.slot();
        let entries = &mut self.slots[slot];
        if entries.len() == entries.capacity() {
            // Doubling would leave half of a million small vectors unused.
            entries.reserve_exact((entries.len() / 4).max(4));
        }
        entries.push(id);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.live += 1;
        due
    }

    /// An entry no longer counts: its owner forgot the due time, or has another one.
    pub const fn cancelled(&mut self) {
        self.live -= 1;
    }

    /// Moves the hand to `to` and fires what is due, in the order of the ticks.
    pub fn advance(&mut self, to: Tick, owner: &mut impl Owner) {
        if to <= self.hand {
            return;
        }
        // After more than one turn each slot needs a single look.
        let turns = (to.0 - self.hand.0).min(SLOTS as u64);
        let first = Tick(to.0 - turns + 1);
        let mut offset = 0;
        while offset < turns {
            let slot = Tick(first.0 + offset).slot();
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word == 0 {
                offset += 64 - (slot % 64) as u64;
                continue;
            }
            let skip = u64::from(word.trailing_zeros());
            if skip > 0 {
                offset += skip;
                continue;
            }
            self.empty_slot(slot, to, owner);
            offset += 1;
        }
        self.hand = to;
    }

    fn empty_slot(&mut self, slot: usize, to: Tick, owner: &mut impl Owner) {
        let entries = &mut self.slots[slot];
        let held = entries.len();
        let mut live = self.live;
        entries.retain(|&id| match owner.due(id) {
            Some(due) if due.slot() == slot && due > to => true,
            Some(due) if due.slot() == slot => {
                live -= 1;
                owner.fire(id);
                false
            }
            _ => false,
        });
        self.live = live;
        if entries.is_empty() {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        if entries.capacity() > KEEP_CAPACITY_MIN.max(2 * held) {
            entries.shrink_to(held.max(KEEP_CAPACITY_MIN));
        }
    }

    /// The next tick at which something may come out; never later than the first that does.
    pub fn next(&self) -> Option<Tick> {
        if self.live == 0 {
            return None;
        }
        let start = Tick(self.hand.0 + 1);
        let mut offset = 0_u64;
        while offset < SLOTS as u64 {
            let slot = Tick(start.0 + offset).slot();
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                return Some(Tick(start.0 + offset + u64::from(word.trailing_zeros())));
            }
            offset += 64 - (slot % 64) as u64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_never_fire_early() {
        let clock = TickClock::new(Instant::from_nanos(500));
        let due = clock.due(Instant::from_nanos(1_000_501));
        assert_eq!(due, Tick(2));
        assert!(clock.instant(due) >= Instant::from_nanos(1_000_501));
        assert_eq!(clock.passed(Instant::from_nanos(2_000_499)), Tick(1));
    }

    #[test]
    fn low_bits_find_their_way_back_over_the_wrap() {
        let near = Tick((7 << 32) - 10);
        for ahead in [-1_000_000_i64, -1, 0, 5, 100, 1 << 30] {
            let tick = Tick(near.0.saturating_add_signed(ahead));
            assert_eq!(Tick::from_low(tick.low(), near), tick);
        }
    }

    struct Model {
        due: BTreeMap<u32, Tick>,
        fired: Vec<Tick>,
    }

    impl Owner for Model {
        fn due(&self, id: u32) -> Option<Tick> {
            self.due.get(&id).copied()
        }

        fn fire(&mut self, id: u32) {
            self.fired.push(self.due.remove(&id).expect("fired twice"));
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Insert { id: u32, ahead: u64 },
        Cancel { id: u32 },
        Advance { by: u64 },
    }

    fn action() -> impl Strategy<Value = Action> {
        let ahead = prop_oneof![0_u64..50, 0_u64..70_000, 0_u64..700_000];
        let by = prop_oneof![0_u64..20, 0_u64..3_000, 0_u64..200_000];
        prop_oneof![
            4 => (0_u32..40, ahead).prop_map(|(id, ahead)| Action::Insert { id, ahead }),
            1 => (0_u32..40).prop_map(|id| Action::Cancel { id }),
            3 => by.prop_map(|by| Action::Advance { by }),
        ]
    }

    proptest! {
        /// Against a sorted map: the same ids at the same hands, never early, never twice, never lost.
        #[test]
        fn behaves_like_a_sorted_map(actions in proptest::collection::vec(action(), 1..200), start in 0_u64..200_000) {
            let mut hand = Tick(start);
            let mut wheel = Wheel::new(hand);
            let mut model = BTreeMap::new();
            for action in actions {
                match action {
                    Action::Insert { id, ahead } => {
                        if model.remove(&id).is_some() {
                            wheel.cancelled();
                        }
                        let due = wheel.insert(id, Tick(hand.0 + ahead));
                        prop_assert_eq!(due, Tick(hand.0 + ahead.max(1)));
                        model.insert(id, due);
                    }
                    Action::Cancel { id } => {
                        if model.remove(&id).is_some() {
                            wheel.cancelled();
                        }
                    }
                    Action::Advance { by } => {
                        let to = Tick(hand.0 + by);
                        if let Some(first) = model.values().min() {
                            prop_assert!(wheel.next().expect("it is not empty") <= *first);
                        }
                        let mut owner = Model { due: model, fired: Vec::new() };
                        wheel.advance(to, &mut owner);
                        prop_assert!(owner.fired.iter().all(|due| *due <= to));
                        model = owner.due;
                        prop_assert!(model.values().all(|due| *due > to), "something was left behind");
                        hand = to;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if model.is_empty() {
                    prop_assert_eq!(wheel.next(), None);
                }
            }
        }
    }
}
