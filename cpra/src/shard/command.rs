//! The desk's word.

use super::Core;
use super::protocol::{Command, CommandKind, Effects};
use super::slots::State;
use crate::domain::health::Phase;
use crate::domain::{Health, HostRef};
use crate::probe::dialled;
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
                    self.withdraw(c, index, now, effects);
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
            self.admit(c, index, 1, now);
        }
    }

    /// Takes a monitor from wherever it is. A check in flight is broken off and counts for nothing.
    fn withdraw(&mut self, c: &mut Components<'_>, index: u32, now: Instant, effects: &mut Effects) {
        match std::mem::take(&mut c.timing_mut(index).place) {
            Place::Nowhere => {}
            Place::Wheel => self.wheel.cancelled(),
            Place::Ready => self.classes.forget_ready(index),
            Place::Resolving => {
                self.classes.forget_resolved(index);
                let id = self.id(index);
                if let (HostRef::Name(name), _) = dialled(self.catalog.policy(id), self.catalog.target(id)) {
                    self.names.forget(name, index);
                }
            }
            Place::Flight | Place::Pause => {
                let slot = self.slots.iter_mut().find_map(|(slot, entry)| match &entry.state {
                    State::Flight(flight) | State::Paused(flight) | State::Hopping(flight)
                        if flight.monitor == index =>
                    {
                        Some(slot)
                    }
                    _ => None,
                });
                if let Some(slot) = slot {
                    self.leave(slot, effects);
                    // Of an echo request nothing is pending, and nothing would come to free the slot.
                    self.settle(c, slot, now, effects);
                }
            }
            Place::Judging => {
                self.judging.retain(|timed_out| timed_out.monitor != index);
                self.pushes.forget(index);
            }
        }
    }
}
