//! The names seen so far with their places: bytes in one arena, found by hash.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::diagnostic::Position;

#[derive(Default)]
pub(super) struct Names {
    arena: String,
    table: HashTable<Name>,
    hasher: FxBuildHasher,
}

#[derive(Clone, Copy)]
struct Name {
    /// Into the arena; 4 GiB of names are more than any list that fits in memory.
    offset: u32,
    length: u8,
    place: Place,
}

/// A place in one of the files of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u16,
    pub(super) position: Position,
}

impl Names {
    pub(super) fn find(&self, name: &str) -> Option<Place> {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |entry| entry.text(&self.arena) == name).map(|entry| entry.place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.table.iter().map(|entry| entry.text(&self.arena))
    }

    /// # Errors
    /// The place at which the name was defined before.
    pub(super) fn add(&mut self, name: &str, place: Place) -> Result<(), Place> {
        if let Some(first) = self.find(name) {
            return Err(first);
        }
        let (Ok(offset), Ok(length)) = (u32::try_from(self.arena.len()), u8::try_from(name.len())) else {
            return Ok(());
        };
        let (arena, hasher) = (&self.arena, self.hasher);
        let entry = Name { offset, length, place };
        self.table.insert_unique(hasher.hash_one(name), entry, |entry| hasher.hash_one(entry.text(arena)));
        self.arena.push_str(name);
        Ok(())
    }
}

impl Name {
    fn text(self, arena: &str) -> &str {
        &arena[self.offset as usize..self.offset as usize + usize::from(self.length)]
    }
}
