//! The code lane: takes notices to their destinations, each at its own pace and with its own faults.
//!
//! Whether a notice *arrives* and what its attempt is *said* to have come to are two things: an acknowledgement can be lost
//! on its way back, and with the process everything can.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::desk::protocol::{Delivered, DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice, Provider};
use crate::units::{Instant, Span};

/// How a destination behaves at the moment: of 256 attempts so many end like that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mood {
    /// Added to each delivery.
    pub slow: Span,
    /// Of a log: standard error has it.
    pub fallback: u8,
    /// Nothing has arrived.
    pub failed: u8,
    /// It may have arrived; half of them have.
    pub unsure: u8,
    /// It has arrived, and the answer says otherwise.
    pub unheard: u8,
    pub refused: u8,
    /// Too much: nothing is wanted for that long.
    pub throttled: u8,
    pub after: Span,
}

/// What happens at a destination, or to an attempt.
#[derive(Debug)]
pub enum Happening {
    Arrived { id: NoticeId, notice: Box<Notice> },
    Ended { id: NoticeId, notice: Box<Notice>, delivered: Delivered },
}

#[derive(Debug)]
pub struct SimLane {
    rng: Rng,
    /// The last one counts; without a destination's name, for all.
    moods: Vec<(Option<Box<str>>, Mood)>,
    /// What will happen, by when and in which order it was begun.
    coming: BTreeMap<(Instant, u64), Happening>,
    begun: u64,
}

impl SimLane {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), moods: Vec::new(), coming: BTreeMap::new(), begun: 0 }
    }

    pub fn set_moods(&mut self, moods: Vec<(Option<Box<str>>, Mood)>) {
        self.moods = moods;
    }

    fn mood_of(&self, destination: &Destination) -> Mood {
        let is_meant = |who: &Option<Box<str>>| who.as_ref().is_none_or(|name| *name == destination.name);
        self.moods.iter().rev().find(|(who, _)| is_meant(who)).map_or_else(Mood::default, |(_, mood)| *mood)
    }

    pub fn deliver(&mut self, id: NoticeId, notice: Box<Notice>, now: Instant) {
        let mood = self.mood_of(&notice.key.destination);
        let is_log = matches!(notice.key.destination.provider, Provider::Log { .. });
        let (arrives, delivered) = self.draw(mood, is_log);
        let took = mood.slow
            + match self.rng.u8(..) {
                0..180 => Span::from_micros(self.rng.u64(50..3_000)),
                180..245 => Span::from_millis(self.rng.u64(3..100)),
                _ => Span::from_millis(self.rng.u64(100..1_500)),
            };
        self.begun += 2;
        if arrives {
            let at = now + took.scaled(self.rng.u64(20..=100), 100);
            self.coming.insert((at, self.begun), Happening::Arrived { id, notice: notice.clone() });
        }
        self.coming.insert((now + took, self.begun + 1), Happening::Ended { id, notice, delivered });
    }

    /// Whether it arrives, and what is said of it.
    fn draw(&mut self, mood: Mood, is_log: bool) -> (bool, Delivered) {
        let mut left = self.rng.u8(..);
        let mut is = |share: u8| match left.checked_sub(share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        };
        if is(mood.failed) {
            return (false, DeliveryResult::Failed.into());
        }
        if is_log {
            let fallback = is(mood.fallback);
            return (true, if fallback { DeliveryResult::Fallback } else { DeliveryResult::Sent }.into());
        }
        if is(mood.unsure) {
            return (self.rng.bool(), DeliveryResult::Unsure.into());
        }
        if is(mood.unheard) {
            return (true, DeliveryResult::Failed.into());
        }
        if is(mood.refused) {
            return (false, Delivered::new(DeliveryResult::Refused, "no such channel"));
        }
        if is(mood.throttled) {
            return (false, Delivered { after: Some(mood.after), ..DeliveryResult::Failed.into() });
        }
        (true, DeliveryResult::Sent.into())
    }

    pub fn next(&self) -> Option<Instant> {
        self.coming.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing that has happened by `now`.
    pub fn happened(&mut self, now: Instant) -> Option<Happening> {
        self.next().filter(|at| *at <= now)?;
        self.coming.pop_first().map(|(_, happening)| happening)
    }

    /// The process dies, and nobody will hear of what was under way. Some of it was out already, and arrives.
    pub fn crash(&mut self) -> Vec<(NoticeId, Box<Notice>)> {
        let mut arrived = Vec::new();
        for happening in std::mem::take(&mut self.coming).into_values() {
            if let Happening::Arrived { id, notice } = happening
                && self.rng.bool()
            {
                arrived.push((id, notice));
            }
        }
        arrived
    }
}
