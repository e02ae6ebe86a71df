//! The monitors as entities of a specs world: the only room that names specs.
//!
//! An entity's index is the monitor's index in its shard's roster; entities are created in that order, at the start and
//! when a reload brings more monitors than there ever were, and never deleted (a disabled monitor keeps its entity, and a
//! removed one's waits for the next who gets its index), so that an index can be turned into an entity without a look-up. What many monitors share, and what never changes, is not here but in the [`catalog`].
//!
//! | component | bytes | changes |
//! | --- | --- | --- |
//! | [`Timing`] | 8 | at each check |
//! | [`Health`] | 8 | at each judgement |
//! | [`LastOutcome`] | 8 | at each judgement |
//!
//! All storages are plain vectors (`VecStorage`); flagged or dense ones cost 40 bytes and more per entity.

pub mod catalog;
mod changes;
mod tokens;

pub use catalog::Catalog;
pub use changes::{Change, Changes, Counts, What};
use specs::prelude::*;
use specs::storage::VecStorage;
pub use tokens::Tokens;

use crate::domain::{Code, Health};
use crate::schedule::Tick;

/// Where an enabled monitor is; it is in exactly one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Place {
    /// Watched by nobody: on no list.
    #[default]
    Nowhere,
    /// Waiting for its due time.
    Wheel,
    /// Due, waiting for a slot.
    Ready,
    /// Waiting for the address of its name.
    Resolving,
    /// Being checked on a slot.
    Flight,
    /// Between two attempts of one check, or two connections of one attempt, on its slot.
    Pause,
    /// Timed out, waiting to hear whether this host dropped the packets.
    Judging,
}

impl Place {
    pub const COUNT: usize = 7;
}

/// When the next check is due, in the lower bits of a tick, and where the monitor is until then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The due time: of the coming check on the wheel, of the current one elsewhere.
    pub due: u32,
    pub place: Place,
    /// An early first check still has to find the stable phase.
    pub off_phase: bool,
}

/// What the last check found, packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastOutcome {
    /// When it was judged, in the lower bits of a tick.
    at: u32,
    /// [`Code::index`] + 1; 0 before the first check.
    code: u8,
}

const _: () = assert!(size_of::<Timing>() == 8);
const _: () = assert!(size_of::<Health>() == 8);
const _: () = assert!(size_of::<LastOutcome>() == 8);

impl LastOutcome {
    pub fn new(code: Code, at: Tick) -> Self {
        Self { at: at.low(), code: code.index() as u8 + 1 }
    }

    pub fn code(self) -> Option<Code> {
        Code::ALL.get(usize::from(self.code).checked_sub(1)?).copied()
    }

    /// When, if it was within 24 days.
    pub fn at(self, now: Tick) -> Option<Tick> {
        (self.code != 0).then(|| Tick::from_low(self.at, now))
    }
}

impl Component for Timing {
    type Storage = VecStorage<Self>;
}

impl Component for Health {
    type Storage = VecStorage<Self>;
}

impl Component for LastOutcome {
    type Storage = VecStorage<Self>;
}

/// The world of one shard.
pub struct World {
    specs: specs::World,
    len: u32,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The components, borrowed for one step.
pub struct Components<'a> {
    entities: Entities<'a>,
    pub timing: WriteStorage<'a, Timing>,
    pub health: WriteStorage<'a, Health>,
    pub last: WriteStorage<'a, LastOutcome>,
}

impl World {
    /// `len` entities with default components.
    pub fn new(len: u32) -> Self {
        let mut specs = specs::World::new();
        specs.register::<Timing>();
        specs.register::<Health>();
        specs.register::<LastOutcome>();
        let mut world = Self { specs, len: 0 };
        world.grow(len);
        world
    }

    /// Makes entities with default components until there are `len`. Those that are there stay as they are.
    pub fn grow(&mut self, len: u32) {
        let (first, more) = (self.len, len.saturating_sub(self.len));
        let entities = self.specs.create_iter().take(more as usize);
        (first..).zip(entities).for_each(|(index, entity)| {
            assert_eq!(entity.id(), index, "nobody else makes entities, and none is deleted");
        });
        self.len += more;
        let mut components = self.components();
        for index in first..first + more {
            let entity = components.entities.entity(index);
            let fresh = "a fresh entity has no component and is alive";
            components.timing.insert(entity, Timing::default()).expect(fresh);
            components.health.insert(entity, Health::default()).expect(fresh);
            components.last.insert(entity, LastOutcome::default()).expect(fresh);
        }
    }

    pub const fn len(&self) -> u32 {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn components(&self) -> Components<'_> {
        let (entities, timing, health, last) = self.specs.system_data();
        Components { entities, timing, health, last }
    }
}

const ALIVE: &str = "every index below the roster's length is an entity with all components";

impl Components<'_> {
    pub fn timing(&self, index: u32) -> &Timing {
        self.timing.get(self.entities.entity(index)).expect(ALIVE)
    }

    pub fn timing_mut(&mut self, index: u32) -> &mut Timing {
        self.timing.get_mut(self.entities.entity(index)).expect(ALIVE)
    }

    pub fn health(&self, index: u32) -> &Health {
        self.health.get(self.entities.entity(index)).expect(ALIVE)
    }

    pub fn health_mut(&mut self, index: u32) -> &mut Health {
        self.health.get_mut(self.entities.entity(index)).expect(ALIVE)
    }

    pub fn last(&self, index: u32) -> LastOutcome {
        *self.last.get(self.entities.entity(index)).expect(ALIVE)
    }

    pub fn set_last(&mut self, index: u32, last: LastOutcome) {
        *self.last.get_mut(self.entities.entity(index)).expect(ALIVE) = last;
    }

    /// Every monitor's place, in the order of their indices. For audits and tests: it walks the whole world.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        (&self.timing).join().map(|timing| timing.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_by_index() {
        let world = World::new(3);
        let mut components = world.components();
        components.timing_mut(2).place = Place::Ready;
        components.set_last(1, LastOutcome::new(Code::L7Sts, Tick(42)));
        assert_eq!(components.places().collect::<Vec<_>>(), [Place::Nowhere, Place::Nowhere, Place::Ready]);
        assert_eq!(components.last(1).code(), Some(Code::L7Sts));
        assert_eq!(components.last(1).at(Tick(50)), Some(Tick(42)));
        assert_eq!(components.last(0).code(), None);
    }

    #[test]
    fn a_world_that_grows_keeps_what_it_has() {
        let mut world = World::new(2);
        world.components().timing_mut(1).place = Place::Ready;
        world.grow(1);
        world.grow(4);
        let mut components = world.components();
        components.timing_mut(3).place = Place::Flight;
        let places = [Place::Nowhere, Place::Ready, Place::Nowhere, Place::Flight];
        assert_eq!(components.places().collect::<Vec<_>>(), places);
    }
}
