//! stub
pub mod protocol;
use crate::units::Instant;
use crate::world::Catalog;
pub use protocol::{Effect, Effects, Event, ShardStats};
use std::sync::Arc;

/// How a shard is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of the catalog's rosters is this shard's.
    pub shard: u8,
    /// Most checks in flight (`[pulse] max_workers`, divided by the shards).
    pub slots_max: u32,
    /// For jitter; nothing else is drawn.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Shard {}
impl Shard {
    pub fn new(_settings: &Settings, _catalog: Arc<Catalog>, _now: Instant) -> Self {
        Self {}
    }
    pub fn step(&mut self, _now: Instant, _events: &[Event<'_>], _effects: &mut Effects) {}
    /// When the next step is due, were nothing to happen before.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
    pub fn in_flight(&self) -> usize {
        0
    }
    pub fn is_drained(&self) -> bool {
        true
    }
    pub fn stats(&self) -> &ShardStats {
        unimplemented!()
    }
}
