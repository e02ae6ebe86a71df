//! Another catalog, while checks go on.
//!
//! ```text
//!  Reloaded ──▶ the new catalog counts at once for all that did not change
//!          └──▶ changes, a slice per step: until its own is applied, a monitor is what it was before
//! ```
//! So at any moment there is one definition of each monitor, and an index that is nobody's in one of the two catalogs is
//! never looked up there. A check in flight ends by the policy that it began with, unless its monitor is another one from
//! now on: then it is broken off, and counts for nothing.
//!
//! | change | what becomes of the monitor |
//! | --- | --- |
//! | removed | it is taken from wherever it is, and nothing remains of it |
//! | added | its first check comes soon, spread over a window that grows with the number of newcomers |
//! | redefined | it is taken from wherever it is, and waits for the desk's word: what is known of an episode is known there |
//! | adjusted | streaks stay; another interval has it found its phase there |
//!
//! Whether a file has a monitor watched is the desk's business as well: a person's word may be against it.
//!
//! When full: a slice is bounded ([`CHANGES_PER_STEP_MAX`]), and the step after it begins at once. Another reload before
//! the end of this one has the rest of it applied in one step; drivers wait for the end instead.

use std::sync::Arc;

use super::protocol::{Effects, Reload};
use super::{Core, state_index, verdict};
use crate::domain::{Cadence, Check, Health, Policy, TargetRef};
use crate::schedule::Tick;
use crate::units::limits::{CHANGES_PER_STEP_MAX, NAMES_UNUSED_MAX};
use crate::units::{Instant, MonitorId};
use crate::wire::tls::Contexts;
use crate::world::{Catalog, Change, Changes, Components, LastOutcome, Place, What};

/// What monitors are.
#[derive(Clone, Debug)]
struct Version {
    catalog: Arc<Catalog>,
    contexts: Arc<dyn Contexts>,
}

/// What this shard's monitors are by now, each for itself.
#[derive(Debug)]
pub(super) struct Definitions {
    shard: u8,
    current: Version,
    changing: Option<Changing>,
}

/// The way from one catalog to the next.
#[derive(Debug)]
struct Changing {
    before: Version,
    changes: Arc<Changes>,
    /// The first of them that is not applied yet.
    next: usize,
}

impl Definitions {
    pub(super) fn new(shard: u8, catalog: Arc<Catalog>, contexts: Arc<dyn Contexts>) -> Self {
        Self { shard, current: Version { catalog, contexts }, changing: None }
    }

    pub(super) fn secured_by(&mut self, contexts: Arc<dyn Contexts>) {
        self.current.contexts = contexts;
    }

    /// The newest catalog: in part what is to be.
    pub(super) const fn current(&self) -> &Arc<Catalog> {
        &self.current.catalog
    }

    /// The catalog that all monitors are as.
    pub(super) fn generation(&self) -> u64 {
        self.changing.as_ref().map_or(&self.current, |changing| &changing.before).catalog.generation()
    }

    pub(super) const fn are_changing(&self) -> bool {
        self.changing.is_some()
    }

    fn version(&self, index: u32) -> &Version {
        match &self.changing {
            Some(changing) if changing.awaits(self.shard, index) => &changing.before,
            _ => &self.current,
        }
    }

    /// The catalog in which a monitor is to be looked up.
    pub(super) fn catalog(&self, index: u32) -> &Arc<Catalog> {
        &self.version(index).catalog
    }

    /// What the monitor's TLS is made from.
    pub(super) fn contexts(&self, index: u32) -> &Arc<dyn Contexts> {
        &self.version(index).contexts
    }

    pub(super) fn knows(&self, index: u32) -> bool {
        self.catalog(index).roster(self.shard).knows(index)
    }

    pub(super) fn policy(&self, index: u32) -> &Arc<Policy> {
        self.catalog(index).policy(MonitorId::new(self.shard, index))
    }

    pub(super) fn target(&self, index: u32) -> TargetRef<'_> {
        self.catalog(index).target(MonitorId::new(self.shard, index))
    }

    pub(super) fn name(&self, index: u32) -> &str {
        self.catalog(index).name(MonitorId::new(self.shard, index))
    }

    fn change(&mut self, reload: &Reload) {
        let next = Version { catalog: Arc::clone(&reload.catalog), contexts: Arc::clone(&reload.contexts) };
        let before = std::mem::replace(&mut self.current, next);
        let changes = Arc::clone(&reload.changes);
        let any = !changes.of_shard(self.shard).is_empty();
        self.changing = any.then_some(Changing { before, changes, next: 0 });
    }

    /// The next changes, which are not applied yet.
    fn slice(&self) -> Vec<Change> {
        let Some(Changing { changes, next, .. }) = &self.changing else { return Vec::new() };
        changes.of_shard(self.shard)[*next..].iter().take(CHANGES_PER_STEP_MAX).copied().collect()
    }

    /// From here on the next `count` changes count.
    fn applied(&mut self, count: usize) {
        let Some(changing) = &mut self.changing else { return };
        changing.next += count;
        if changing.next >= changing.changes.of_shard(self.shard).len() {
            self.changing = None;
        }
    }
}

impl Changing {
    /// Whether a monitor's change is still to come.
    fn awaits(&self, shard: u8, index: u32) -> bool {
        self.changes.of_shard(shard)[self.next..].binary_search_by_key(&index, |change| change.index).is_ok()
    }
}

/// Monitors of one reload whose first checks are to be spread. They come one by one, the redefined ones with the desk's word.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    company: u64,
    left: u64,
}

impl Newcomers {
    fn of(changes: &[Change]) -> Self {
        let comes = |change: &&Change| matches!(change.what, What::Added | What::Redefined);
        let company = changes.iter().filter(comes).count() as u64;
        Self { company, left: company }
    }

    /// One more is here; answers how many there are about this time.
    pub(super) fn one(&mut self) -> u64 {
        if self.left == 0 {
            return 1;
        }
        self.left -= 1;
        self.company
    }
}

impl Core {
    /// The files were read again.
    pub(super) fn reloaded(&mut self, c: &mut Components<'_>, reload: &Reload, now: Instant, effects: &mut Effects) {
        while self.definitions.are_changing() {
            self.apply_changes(c, now, effects);
        }
        self.newcomers = Newcomers::of(reload.changes.of_shard(self.shard));
        self.definitions.change(reload);
        self.classes.expect(&reload.catalog.check_rates(self.shard));
        // Their certificates were judged by what the files said before.
        for slot in self.slots.kept_secured() {
            self.leave(slot, effects);
            self.settle(c, slot, now, effects);
        }
        self.names.forget_unused(2 * reload.catalog.host_names() + NAMES_UNUSED_MAX, now);
    }

    /// A slice of what a reload has changed.
    pub(super) fn apply_changes(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        let slice = self.definitions.slice();
        if slice.is_empty() {
            return;
        }
        let goes = |change: &&Change| matches!(change.what, What::Removed | What::Redefined);
        let leaving: Vec<u32> = slice.iter().filter(goes).map(|change| change.index).collect();
        self.withdraw(c, &leaving, now, effects);
        let adjusted = slice.iter().filter(|change| change.what == What::Adjusted);
        let adjusted: Vec<_> =
            adjusted.map(|change| (change.index, Arc::clone(self.definitions.policy(change.index)))).collect();
        self.definitions.applied(slice.len());
        for (index, before) in adjusted {
            self.adjust(c, index, &before, now);
        }
        for Change { index, what, .. } in slice {
            match what {
                What::Removed => self.remove(c, index),
                What::Added => self.introduce(c, index, now),
                What::Redefined => self.redefine(c, index),
                What::Adjusted | What::Same => {}
            }
        }
    }

    /// Nothing remains of it; the index may become another one's.
    fn remove(&mut self, c: &mut Components<'_>, index: u32) {
        self.forget(c, index);
        let health = std::mem::take(c.health_mut(index));
        self.enabled -= usize::from(!health.is_disabled());
        self.stats.monitors[state_index(&health)] -= 1;
        self.stats.degraded -= u64::from(health.is_degraded());
        *c.timing_mut(index) = Default::default();
    }

    fn introduce(&mut self, c: &mut Components<'_>, index: u32, now: Instant) {
        let watched = self.definitions.current().roster(self.shard).is_enabled(index);
        if !watched {
            c.health_mut(index).disable(0);
        }
        self.stats.monitors[state_index(c.health(index))] += 1;
        let company = self.newcomers.one();
        if watched {
            self.enabled += 1;
            self.admit(c, index, company, now);
        }
    }

    /// It is watched again when the desk says so.
    fn redefine(&mut self, c: &mut Components<'_>, index: u32) {
        self.forget(c, index);
        let before: Health = *c.health(index);
        self.enabled -= usize::from(!before.is_disabled());
        c.health_mut(index).disable(before.epoch());
        self.recount(before, *c.health(index));
    }

    /// What was found out about it.
    fn forget(&mut self, c: &mut Components<'_>, index: u32) {
        self.kept.remove(&index);
        self.pushes.give_up(index);
        c.set_last(index, LastOutcome::default());
    }

    /// The same monitor, by other rules.
    fn adjust(&mut self, c: &mut Components<'_>, index: u32, before: &Policy, now: Instant) {
        let policy = Arc::clone(self.policy(index));
        let degraded = c.health(index).is_degraded();
        c.health_mut(index).adjust(&policy);
        debug_assert_eq!(degraded, c.health(index).is_degraded(), "what is counted elsewhere stays");
        let other_interval = policy.interval != before.interval;
        if !other_interval && policy.retry_interval == before.retry_interval {
            return;
        }
        let timing = *c.timing(index);
        if timing.place != Place::Wheel {
            // Its phase is looked for when it is laid back on the wheel. A job's next deadline comes from its next call.
            c.timing_mut(index).off_phase |= other_interval && timing.place != Place::Nowhere;
            return;
        }
        if matches!(policy.check, Check::Push(_)) {
            if other_interval {
                self.await_call_anew(c, index, now);
            }
            return;
        }
        let passed = self.clock.passed(now);
        let coming = Tick::from_low(timing.due, passed);
        let (next, off_phase) = match c.health(index).cadence() {
            Cadence::Interval if !other_interval => return,
            Cadence::Interval => {
                let interval = verdict::ticks(policy.interval);
                let on_phase = self.next_on_phase(index, interval, Tick(passed.0.saturating_sub(interval)), passed);
                // A first check that was to come early still does.
                if timing.off_phase && coming < on_phase { (coming, true) } else { (on_phase, false) }
            }
            Cadence::Retry => (coming.min(self.clock.due(now + policy.retry_interval)), true),
        };
        self.wheel.cancelled();
        self.lay(c, index, next, off_phase);
    }
}
