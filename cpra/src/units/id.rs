//! Identifiers. Each is a plain number with a type of its own, so that one cannot be passed for another.

use std::fmt;

/// A monitor: the shard that owns it in the upper 8 bits, its index in that shard in the lower 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(u32);

/// An in-flight slot of one shard: the *server* of the queueing model, and an entry of the driver's socket pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// How often a slot has been taken. A completion that names an older one is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// An interned policy: everything about a check that many monitors share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

impl MonitorId {
    const INDEX_BITS: u32 = 24;
    /// Monitors that one shard can own.
    pub const PER_SHARD_MAX: usize = 1 << Self::INDEX_BITS;

    /// # Panics
    /// If `index` does not fit 24 bits; loading refuses such a number of monitors first.
    pub const fn new(shard: u8, index: u32) -> Self {
        assert!((index as usize) < Self::PER_SHARD_MAX, "a shard holds at most 2^24 monitors");
        Self((shard as u32) << Self::INDEX_BITS | index)
    }

    pub const fn shard(self) -> u8 {
        (self.0 >> Self::INDEX_BITS) as u8
    }

    pub const fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }
}

impl Slot {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Generation {
    /// Bits of a generation that travel through the kernel in `user_data`.
    pub const BITS: u32 = 24;

    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1) & ((1 << Self::BITS) - 1))
    }
}

impl fmt::Display for MonitorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard(), self.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitor_id_keeps_both_parts() {
        let id = MonitorId::new(7, 0x00AB_CDEF);
        assert_eq!((id.shard(), id.index()), (7, 0x00AB_CDEF));
    }

    #[test]
    fn generation_wraps_within_its_bits() {
        assert_eq!(Generation((1 << 24) - 1).next(), Generation(0));
    }
}
