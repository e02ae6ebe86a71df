//! Addresses of names, as this shard knows them, and who waits for them.
//!
//! One question per name, however many monitors wait for the answer: a million monitors of ten names ask ten times.
//! A name that is used shortly before its time is up is asked for ahead, and the old address serves meanwhile: no
//! check of a busy name waits for it twice.
//!
//! Bounded by the names in the catalog (after reloads, by twice as many and a few), and by its monitors as far as they wait. The resolver behind it always answers
//! (see [`super::protocol::Event::Resolved`]), so nobody waits for ever. An answer may let a million checks go: it is
//! kept with those who waited for it, and each step lets go as many as it can bear.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::protocol::Resolution;
use crate::schedule::Tick;
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};

/// A check that has left the ready list and waits for an address, or for a slot once it has that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) monitor: u32,
    pub(super) due: Tick,
    /// When it left the ready list.
    pub(super) left: Instant,
}

/// A check whose address is known and that waits for a slot. It keeps the address that it was given: asking again,
/// because the answer expired meanwhile, could go on for as long as slots are short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    pub(super) waiting: Waiting,
    pub(super) address: IpAddr,
    /// How long the name took.
    pub(super) took: Span,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    fresh_until: Option<Instant>,
    /// From here on a check that uses it has it asked for again.
    refresh_from: Instant,
    asked: bool,
    waiting: VecDeque<Waiting>,
}

/// What the resolver said, and when.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) name: Box<str>,
    pub(super) resolution: Resolution,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<String, Name, FxBuildHasher>,
    /// Who waited for an answer that has come, and has not been let go yet.
    answered: VecDeque<(Arc<Answer>, VecDeque<Waiting>)>,
    /// Those who wait for an answer, and those of `answered`.
    waiting: usize,
}

/// An address is asked for again when only this part of its time is left.
const REFRESH_PART: u64 = 8;

impl Names {
    pub(super) fn new() -> Self {
        Self { known: HashMap::with_hasher(FxBuildHasher), answered: VecDeque::new(), waiting: 0 }
    }

    /// Checks that wait for an answer, or to be let go after it.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether someone can be let go.
    pub(super) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    /// The preferred address, if one is known and still holds.
    pub(super) fn address(&self, name: &str, now: Instant) -> Option<IpAddr> {
        let known = self.known.get(name)?;
        known.fresh_until.filter(|until| *until > now || planted::is(Bug::ExpiredAddressUsed))?;
        known.addresses.first().copied()
    }

    /// Whether an address that is still good has to be asked for ahead; after `true` it counts as asked for.
    pub(super) fn wants_refresh(&mut self, name: &str, now: Instant) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        let wants = !known.asked && known.refresh_from <= now;
        known.asked |= wants;
        wants
    }

    /// The address after `current`, of its family, for another attempt; `None` if there is no other.
    pub(super) fn address_after(&self, name: &str, current: IpAddr) -> Option<IpAddr> {
        let addresses = &self.known.get(name)?.addresses;
        let position = addresses.iter().position(|address| *address == current)?;
        let others = addresses[position + 1..].iter().chain(&addresses[..position]);
        others.copied().find(|other| other.is_ipv4() == current.is_ipv4())
    }

    /// Lets a check wait; answers whether the question has to be asked.
    pub(super) fn wait(&mut self, name: &str, waiting: Waiting) -> bool {
        let known = self.known.entry_ref(name).or_default();
        known.waiting.push_back(waiting);
        self.waiting += 1;
        !std::mem::replace(&mut known.asked, true)
    }

    /// Takes an answer; who waited for it can be let go. A failure leaves what was known before to expire.
    pub(super) fn answer(&mut self, name: &str, resolution: &Resolution, now: Instant) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.asked = false;
        match (resolution, known.fresh_until) {
            (Resolution::Found { addresses, ttl }, _) => {
                known.addresses.clone_from(addresses);
                // An answer that does not hold at all still serves those who wait for it, and the current tick.
                let ttl = (*ttl).max(Span::from_millis(1));
                known.fresh_until = Some(now + ttl);
                known.refresh_from = now + ttl.scaled(REFRESH_PART - 1, REFRESH_PART);
            }
            // Once is enough: the next question is that of a check which needs the answer.
            (Resolution::NotFound | Resolution::Failed(_), Some(until)) => known.refresh_from = until,
            (Resolution::NotFound | Resolution::Failed(_), None) => {}
        }
        if known.waiting.is_empty() {
            return;
        }
        let answer = Answer { name: name.into(), resolution: resolution.clone(), at: now };
        self.answered.push_back((Arc::new(answer), std::mem::take(&mut known.waiting)));
    }

    /// The next one to be let go, and the answer that it waited for. The order is that of the answers.
    pub(super) fn let_go(&mut self) -> Option<(Waiting, Arc<Answer>)> {
        let (answer, waiting) = self.answered.front_mut()?;
        let first = waiting.pop_front();
        let answer = Arc::clone(answer);
        if waiting.is_empty() {
            self.answered.pop_front();
        }
        self.waiting -= usize::from(first.is_some());
        Some((first?, answer))
    }

    /// Takes checks out: their monitors are watched no more.
    pub(super) fn forget(&mut self, leaves: impl Fn(u32) -> bool) {
        let known = self.known.values_mut().map(|known| &mut known.waiting);
        for waiting in known.chain(self.answered.iter_mut().map(|(_, waiting)| waiting)) {
            let before = waiting.len();
            waiting.retain(|waiting| !leaves(waiting.monitor));
            self.waiting -= before - waiting.len();
        }
        self.answered.retain(|(_, waiting)| !waiting.is_empty());
    }

    /// If there are more names than `most`, those go whose time is up and whom nobody waits for: where one of them is
    /// still in use, it is asked for again.
    pub(super) fn forget_unused(&mut self, most: usize, now: Instant) {
        if self.known.len() <= most {
            return;
        }
        let holds = |name: &Name| name.fresh_until.is_some_and(|until| until > now);
        self.known.retain(|_, name| name.asked || !name.waiting.is_empty() || holds(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Span::from_secs(seconds)
    }

    fn waiting(monitor: u32) -> Waiting {
        Waiting { monitor, due: Tick(0), left: Instant::ZERO }
    }

    fn found(addresses: &[&str], ttl: u64) -> Resolution {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Resolution::Found { addresses, ttl: Span::from_secs(ttl) }
    }

    #[test]
    fn one_question_serves_all_who_wait_and_they_go_one_by_one() {
        let mut names = Names::new();
        assert!(names.wait("a", waiting(1)));
        assert!(!names.wait("a", waiting(2)) && !names.wait("a", waiting(3)));
        assert!(names.wait("b", waiting(4)));
        assert!(names.let_go().is_none() && !names.has_answered());
        names.answer("a", &found(&["192.0.2.1"], 80), at(1));
        assert_eq!(names.waiting(), 4, "until they are let go");
        names.forget(|monitor| monitor == 2 || monitor == 7);
        names.answer("b", &Resolution::NotFound, at(2));
        names.answer("nobody asked", &Resolution::NotFound, at(2));
        let gone: Vec<_> = std::iter::from_fn(|| names.let_go()).collect();
        let gone: Vec<_> = gone.iter().map(|(waiting, answer)| (waiting.monitor, &*answer.name, answer.at)).collect();
        assert_eq!(gone, [(1, "a", at(1)), (3, "a", at(1)), (4, "b", at(2))]);
        assert_eq!((names.waiting(), names.has_answered()), (0, false));
        assert_eq!(names.address("a", at(2)), "192.0.2.1".parse().ok());
        assert_eq!(names.address("a", at(81)), None);
        // The last one of an answer may be taken out, too.
        names.wait("b", waiting(5));
        names.answer("b", &Resolution::NotFound, at(3));
        names.forget(|monitor| monitor == 5);
        assert_eq!((names.waiting(), names.has_answered()), (0, false));
    }

    #[test]
    fn names_that_nobody_uses_any_more_are_forgotten_when_there_are_too_many() {
        let mut names = Names::new();
        for (name, ttl) in [("old", 10), ("fresh", 100)] {
            names.wait(name, waiting(1));
            names.answer(name, &found(&["192.0.2.1"], ttl), at(0));
        }
        names.wait("asked", waiting(2));
        names.forget_unused(3, at(50));
        assert_eq!(names.known.len(), 3);
        names.forget_unused(2, at(50));
        let mut left: Vec<&str> = names.known.keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["asked", "fresh"]);
    }

    #[test]
    fn a_name_in_use_is_asked_for_ahead_once() {
        let mut names = Names::new();
        names.wait("a", waiting(1));
        assert!(!names.wants_refresh("a", at(0)), "it is asked for already");
        names.answer("a", &found(&["192.0.2.1"], 80), at(0));
        assert!(!names.wants_refresh("a", at(69)));
        assert!(names.wants_refresh("a", at(70)));
        assert!(!names.wants_refresh("a", at(71)));
        names.answer("a", &Resolution::Failed("down".into()), at(72));
        assert!(!names.wants_refresh("a", at(73)), "the resolver is down: not with every check");
        assert_eq!(names.address("a", at(79)), "192.0.2.1".parse().ok());
        assert!(names.wait("a", waiting(1)), "its time is up");
        names.answer("a", &found(&["192.0.2.2"], 80), at(81));
        assert!(names.wants_refresh("a", at(151)));
        assert!(!names.wants_refresh("unknown", at(0)));
    }

    #[test]
    fn other_attempts_take_other_addresses_of_the_family() {
        let mut names = Names::new();
        names.wait("a", waiting(1));
        names.answer("a", &found(&["192.0.2.1", "2001:db8::1", "192.0.2.2"], 80), at(0));
        let after = |address: &str| names.address_after("a", address.parse().unwrap()).map(|next| next.to_string());
        assert_eq!(after("192.0.2.1").as_deref(), Some("192.0.2.2"));
        assert_eq!(after("192.0.2.2").as_deref(), Some("192.0.2.1"));
        assert_eq!(after("2001:db8::1"), None);
        assert_eq!(after("198.51.100.1"), None, "it is not one of the name's");
    }
}
