//! stub
pub mod protocol;
use crate::domain::Destination;
use crate::units::Instant;
use crate::world::Catalog;
pub use protocol::{DeskStats, Effect, Event};
use std::sync::Arc;

/// How the desk is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every incident key.
    pub instance: Box<str>,
    /// Most notices handed to the code lane at a time.
    pub queue_capacity: usize,
    /// Who hears of the daemon itself, and of what nobody else could be told.
    pub fallback: Arc<Destination>,
    /// For the random part of ULIDs.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Desk {}
impl Desk {
    pub fn new(_settings: Settings, _catalog: Arc<Catalog>, _now: Instant) -> Self {
        Self {}
    }
    pub fn step(&mut self, _now: Instant, _events: Vec<Event>, _effects: &mut Vec<Effect>) {}
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
    pub fn is_drained(&self) -> bool {
        true
    }
    pub fn stats(&self) -> &DeskStats {
        unimplemented!()
    }
}
