//! The desk's word.

use super::Core;
use super::protocol::{Command, CommandKind, Effects};
use crate::domain::Health;
use crate::domain::health::Phase;
use crate::units::Instant;
use crate::units::planted::{self, Bug};
use crate::world::{Components, Place};

impl Core {
    pub(super) fn obey(&mut self, c: &mut Components<'_>, command: Command, now: Instant, effects: &mut Effects) {
        let index = command.monitor.index();
        if command.monitor.shard() != self.shard || !self.knows(index) {
            return;
        }
        let disabled = c.health(index).phase() == Phase::Disabled;
        match command.kind {
            CommandKind::Disable { epoch } => {
                let forgotten = planted::is(Bug::DisabledIsChecked) && c.timing(index).place == Place::Wheel;
                if !disabled && !forgotten {
                    self.withdraw(c, &[index], now, effects);
                    self.enabled -= 1;
                    self.kept.remove(&index);
                }
                let before = *c.health(index);
                c.health_mut(index).disable(epoch);
                self.recount(before, *c.health(index));
            }
            CommandKind::Enable { epoch } => {
                self.watch(c, index, now, |health| health.enable(epoch));
            }
            CommandKind::Resume { epoch, resumed } => {
                self.watch(c, index, now, |health| health.resume(epoch, resumed));
            }
            CommandKind::Obscure => {
                let before = *c.health(index);
                c.health_mut(index).obscure();
                self.recount(before, *c.health(index));
            }
            CommandKind::CheckNow => {
                // There is nobody to ask where a job calls in by itself.
                if !self.pushes.await_call_of(index) && c.timing(index).place == Place::Wheel {
                    self.wheel.cancelled();
                    let due = self.clock.due(now);
                    let timing = c.timing_mut(index);
                    timing.due = due.low();
                    timing.off_phase = true;
                    timing.place = Place::Ready;
                    let class = self.class_of(c, index);
                    self.classes.arrived(class, index, now);
                }
            }
        }
    }

    /// It is watched, from there on. A check that waits or is in flight counts for what it is now.
    fn watch(&mut self, c: &mut Components<'_>, index: u32, now: Instant, from: impl FnOnce(&mut Health)) {
        let before = *c.health(index);
        from(c.health_mut(index));
        self.recount(before, *c.health(index));
        if before.phase() == Phase::Disabled {
            self.enabled += 1;
            let company = self.newcomers.one();
            self.admit(c, index, company, now);
        }
    }

    /// Takes monitors (ascending) from wherever they are. Checks in flight are broken off and count for nothing.
    pub(super) fn withdraw(&mut self, c: &mut Components<'_>, leaving: &[u32], now: Instant, effects: &mut Effects) {
        let leaves = |index: u32| leaving.binary_search(&index).is_ok();
        // What holds them is walked through once for all of them.
        let mut held_by = [false; Place::COUNT];
        for &index in leaving {
            let place = std::mem::take(&mut c.timing_mut(index).place);
            held_by[place as usize] = true;
            if place == Place::Wheel {
                self.wheel.cancelled();
            }
        }
        let is_held_by = |place: Place| held_by[place as usize];
        if is_held_by(Place::Ready) {
            self.classes.forget_ready(leaves);
        }
        if is_held_by(Place::Resolving) {
            self.classes.forget_resolved(leaves);
            self.names.forget(leaves);
        }
        if is_held_by(Place::Judging) {
            self.judging.retain(|timed_out| !leaves(timed_out.monitor));
            self.pushes.forget(leaves);
        }
        if is_held_by(Place::Flight) || is_held_by(Place::Pause) {
            for slot in self.slots.held_by(leaves) {
                self.leave(slot, effects);
                // Of an echo request nothing is pending, and nothing would come to free the slot.
                self.settle(c, slot, now, effects);
            }
        }
    }
}
