//! The code lane: takes notices to their destinations, each destination's in order, at its own pace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use crate::desk::protocol::{DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice};
use crate::units::{Instant, Span};

/// How destinations behave at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mood {
    /// Added to each delivery.
    pub slow: Span,
    /// In 256: refused by the destination and taken by the fallback.
    pub fallback: u8,
    /// In 256: taken by neither.
    pub failed: u8,
}

/// The end of a delivery.
#[derive(Debug)]
pub struct Delivery {
    pub id: NoticeId,
    pub notice: Box<Notice>,
    pub result: DeliveryResult,
}

#[derive(Debug)]
pub struct SimLane {
    rng: Rng,
    mood: Mood,
    queues: BTreeMap<Arc<Destination>, VecDeque<(Instant, Delivery)>>,
}

impl SimLane {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), mood: Mood::default(), queues: BTreeMap::new() }
    }

    pub fn set_mood(&mut self, mood: Mood) {
        self.mood = mood;
    }

    pub fn deliver(&mut self, id: NoticeId, notice: Box<Notice>, now: Instant) {
        let took = match self.rng.u8(..) {
            0..180 => Span::from_micros(self.rng.u64(50..3_000)),
            180..245 => Span::from_millis(self.rng.u64(3..100)),
            _ => Span::from_millis(self.rng.u64(100..1_500)),
        };
        let result = match self.rng.u8(..) {
            draw if draw < self.mood.failed => DeliveryResult::Failed,
            draw if draw < self.mood.failed.saturating_add(self.mood.fallback) => DeliveryResult::Fallback,
            _ => DeliveryResult::Sent,
        };
        let queue = self.queues.entry(notice.key.destination.clone()).or_default();
        let begins = queue.back().map_or(now, |(at, _)| now.max(*at));
        queue.push_back((begins + took + self.mood.slow, Delivery { id, notice, result }));
    }

    pub fn next(&self) -> Option<Instant> {
        self.queues.values().filter_map(|queue| queue.front().map(|(at, _)| *at)).min()
    }

    /// What has ended by `now`; of several destinations in an order of its own.
    pub fn ended(&mut self, now: Instant) -> Vec<Delivery> {
        let mut ended = Vec::new();
        for queue in self.queues.values_mut() {
            while queue.front().is_some_and(|(at, _)| *at <= now) {
                ended.extend(queue.pop_front().map(|(_, delivery)| delivery));
            }
        }
        if ended.len() > 1 && self.rng.bool() {
            // A stable rotation by destination keeps each one's order.
            let first = ended[self.rng.usize(0..ended.len())].notice.key.destination.clone();
            ended.sort_by_key(|delivery| delivery.notice.key.destination != first);
        }
        ended
    }

    /// The process dies, and with it what was under way.
    pub fn crash(&mut self) {
        self.queues.clear();
    }
}
