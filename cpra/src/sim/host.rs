//! This host's own drop counters, and the reading of them.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::shard::protocol::HostSample;
use crate::units::{Instant, Span};

#[derive(Debug)]
pub struct SimHost {
    rng: Rng,
    /// How many packets were lost by when.
    drops: Vec<(Instant, u64)>,
    /// Stretches of time in which the table is full.
    full: Vec<(Instant, Instant)>,
    readings: BTreeMap<(Instant, u64), (u8, HostSample)>,
    asked: u64,
    /// Readings take up to this long.
    pub slow: Span,
}

impl SimHost {
    /// `base` packets were lost before anyone looked.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let base = rng.u64(0..100);
        Self {
            rng,
            drops: vec![(Instant::ZERO, base)],
            full: Vec::new(),
            readings: BTreeMap::new(),
            asked: 0,
            slow: Span::from_micros(500),
        }
    }

    /// A packet was lost.
    pub fn drop_packet(&mut self, at: Instant) {
        let before = self.drops.last().map_or(0, |(_, drops)| *drops);
        self.drops.push((at, before + self.rng.u64(1..4)));
    }

    pub fn fill_table(&mut self, from: Instant, until: Instant) {
        self.full.push((from, until));
    }

    fn drops_at(&self, at: Instant) -> u64 {
        let after = self.drops.partition_point(|(when, _)| *when <= at);
        self.drops[after.saturating_sub(1)].1
    }

    /// Whether this host lost anything, or may have, within a stretch of time.
    pub fn lossy(&self, from: Instant, until: Instant) -> bool {
        self.drops_at(from.before(Span::from_nanos(1))) != self.drops_at(until)
            || self.full.iter().any(|&(full, calm)| full <= until && calm >= from)
    }

    /// A shard wants a reading.
    pub fn ask(&mut self, shard: u8, now: Instant) {
        let wait = Span::from_nanos(self.rng.u64(0..=self.slow.as_nanos()));
        let taken = now + wait;
        let there = taken + Span::from_micros(self.rng.u64(20..300));
        self.asked += 1;
        // The counters are read when it is taken: later than now, so the values are filled in by `reading`.
        let sample = HostSample { taken, drops: 0, table_full: false };
        self.readings.insert((there, self.asked), (shard, sample));
    }

    pub fn next(&self) -> Option<Instant> {
        self.readings.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next reading that is there by `now`, and for which shard.
    pub fn reading(&mut self, now: Instant) -> Option<(u8, HostSample)> {
        let first = self.readings.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (shard, sample) = first.remove();
        let drops = self.drops_at(sample.taken);
        let table_full = self.full.iter().any(|&(from, until)| (from..until).contains(&sample.taken));
        Some((shard, HostSample { drops, table_full, ..sample }))
    }

    pub fn crash(&mut self) {
        self.readings.clear();
    }
}
