//! From the ready list to a slot: whose turn it is, names, taking slots.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Core;
use super::classes::Class;
use super::flight::{keeps_alive, origin};
use super::names::{Answer, Resolved, Waiting};
use super::protocol::{Effect, Effects, Resolution};
use super::slots::{Flight, State, Taken};
use crate::domain::{Cadence, Check, Code, HostRef, Outcome, VoidReason};
use crate::probe::{Ops, Probe, Request, dialled};
use crate::ring::Family;
use crate::schedule::Tick;
use crate::units::limits::{NAMED_PER_STEP_MAX, SPARED_PER_STEP_MAX};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Slot, Span};
use crate::world::{Components, Place};

impl Core {
    /// Starts the check of a monitor that has just been taken off the ready list; `false` when there is no slot.
    pub(super) fn start_due(
        &mut self,
        c: &mut Components<'_>,
        class: Class,
        index: u32,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        let catalog = Arc::clone(self.definitions.catalog(index));
        let (host, _) = dialled(catalog.policy(self.id(index)), catalog.target(self.id(index)));
        let due = Tick::from_low(c.timing(index).due, self.clock.passed(now));
        let waiting = Waiting { monitor: index, due, left: now };
        let address = match host {
            HostRef::Literal(address) => address,
            HostRef::Name(name) => match self.names.address(name, now) {
                Some(address) => {
                    if self.names.wants_refresh(name, now) {
                        effects.list.push(Effect::Resolve { name: name.into() });
                    }
                    address
                }
                None => {
                    c.timing_mut(index).place = Place::Resolving;
                    if self.names.wait(name, waiting) {
                        effects.list.push(Effect::Resolve { name: name.into() });
                    }
                    return true;
                }
            },
        };
        self.launch(c, class, &Resolved { waiting, address, took: Span::ZERO }, now, effects)
    }

    /// A check has started, or was judged without: how late is it, and what did its monitor miss meanwhile?
    fn left_waiting(&mut self, c: &Components<'_>, class: Class, waiting: &Waiting, started: Instant) {
        let late = started.since(self.clock.instant(waiting.due));
        let policy = self.policy(waiting.monitor);
        let every = match c.health(waiting.monitor).cadence() {
            Cadence::Interval => policy.interval,
            Cadence::Retry => policy.retry_interval,
        };
        let held = self.bounds.kept_waiting(&policy.check, late);
        self.stats.missed += late.as_nanos() / every.as_nanos().max(1);
        self.stats.lag.record(late);
        if let Some(packet) = held {
            self.stats.held[packet] += 1;
        }
        self.classes.started(class, late);
    }

    /// Who waited for a name whose answer has come goes on, or is judged. A bounded number per step, since each may
    /// be a transition; and while the desk can take no more of those, nobody.
    pub(super) fn let_named_go(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        for _ in 0..NAMED_PER_STEP_MAX {
            if self.desk_full {
                return;
            }
            let Some((waiting, answer)) = self.names.let_go() else { return };
            self.let_go(c, waiting, &answer, now, effects);
        }
    }

    fn let_go(
        &mut self,
        c: &mut Components<'_>,
        waiting: Waiting,
        answer: &Answer,
        now: Instant,
        effects: &mut Effects,
    ) {
        let name = &answer.name;
        let took = answer.at.since(waiting.left);
        let mut outcome = match &answer.resolution {
            Resolution::Found { addresses, .. } if let Some(&address) = addresses.first() => {
                if took < self.policy(waiting.monitor).timeout {
                    let class = self.class_of(c, waiting.monitor);
                    self.classes.resolved(class, Resolved { waiting, address, took });
                    return;
                }
                Outcome::of(Code::Void(VoidReason::Resolver))
                    .with_evidence(&format!("{name}: its address was known too late"))
            }
            Resolution::Found { .. } | Resolution::NotFound => {
                Outcome::of(Code::L4Dns).with_evidence(&format!("{name}: no such name"))
            }
            Resolution::Failed(_) if planted::is(Bug::ResolverFailureIsVerdict) => Outcome::of(Code::L4Dns),
            Resolution::Failed(why) => Outcome::of(Code::Void(VoidReason::Resolver))
                .with_evidence(&format!("{name}: the resolver failed: {why}")),
        };
        outcome.latency.resolve = took;
        outcome.latency.total = took;
        let class = self.class_of(c, waiting.monitor);
        self.left_waiting(c, class, &waiting, waiting.left);
        self.judge(c, waiting.monitor, waiting.due, waiting.left, outcome, now, effects);
    }

    /// Puts a check on a slot; `false` when there is none.
    pub(super) fn launch(
        &mut self,
        c: &mut Components<'_>,
        class: Class,
        resolved: &Resolved,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        let &Resolved { waiting, address, took } = resolved;
        let catalog = Arc::clone(self.definitions.catalog(waiting.monitor));
        let contexts = Arc::clone(self.definitions.contexts(waiting.monitor));
        let id = self.id(waiting.monitor);
        let policy = Arc::clone(self.policy(waiting.monitor));
        let (_, port) = dialled(&policy, catalog.target(id));
        let address = SocketAddr::new(address, port);
        // Who is not up gets the check that misses nothing.
        let whole = class == Class::SUSPECTS;
        let wired = self.is_wired(&policy.check, whole);
        let target = catalog.target(id);
        let request = Request { policy: &policy, target, address, hop: None, contexts: &*contexts };
        let idle = if keeps_alive(&policy) { self.slots.take_idle(&origin(&request)) } else { None };
        let reused = idle.is_some();
        let family = wired.then(|| Family::of(&address));
        let (slot, kept) = match idle {
            Some(idle) => idle,
            None => match self.take_slot(family, effects) {
                Some(slot) => (slot, None),
                None => return false,
            },
        };
        self.slots.entry(slot).wired = wired;
        let mut ops = std::mem::take(&mut self.ops);
        ops.quota = self.bounds.quota(&policy.check);
        let probe = if reused {
            Probe::resume(&request, kept, now, &mut ops)
        } else {
            let entry = self.slots.entry(slot);
            entry.generation = entry.generation.next();
            self.begin(&request, whole, now, &mut ops)
        };
        // The name's time counts to the timeout, but not the time without a slot: that was ours.
        let started = now.before(took);
        let timeout = policy.timeout;
        let flight = Flight {
            monitor: waiting.monitor,
            policy,
            due: waiting.due,
            class,
            seated: now,
            slotted: now,
            started,
            attempt_started: started,
            asked: now,
            ours: Span::ZERO,
            deadline: started + timeout,
            attempt: 1,
            leg: None,
            reused,
            stalled: false,
            whole,
            address,
            resolve: took,
            probe,
        };
        self.left_waiting(c, class, &waiting, started);
        self.classes.seated(class, slot, now);
        c.timing_mut(waiting.monitor).place = Place::Flight;
        self.slots.change(slot, State::Flight(flight));
        let begins = if planted::is(Bug::TimeoutFromQueue) { self.clock.instant(waiting.due) } else { started };
        self.set_out(slot, now, begins + timeout, &mut ops, effects);
        self.ops = ops;
        true
    }

    /// Whether an attempt that begins now uses its slot's socket; `whole` is [`Flight::whole`].
    pub(super) fn is_wired(&self, check: &Check, whole: bool) -> bool {
        Probe::uses_socket(check) && !self.goes_half_open(check, whole)
    }

    fn goes_half_open(&self, check: &Check, whole: bool) -> bool {
        check.is_half_open() && !whole && (self.half_open || planted::is(Bug::HalfOpenWithoutEyes))
    }

    /// Begins an attempt without a connection, by what [`Self::is_wired`] says.
    pub(super) fn begin(&self, request: &Request<'_>, whole: bool, now: Instant, ops: &mut Ops) -> Probe {
        if self.goes_half_open(&request.policy.check, whole) {
            Probe::start_half_open(now, ops)
        } else {
            Probe::start(request, now, ops)
        }
    }

    /// A slot with a socket of the family, or for a check that needs none.
    fn take_slot(&mut self, family: Option<Family>, effects: &mut Effects) -> Option<Slot> {
        let Some(family) = family else {
            let slot = self.slots.take_bare();
            if slot.is_none() {
                self.spare_slots(effects);
            }
            return slot;
        };
        match self.slots.take(family) {
            Some(Taken::Ready(slot)) => Some(slot),
            Some(Taken::Open(slot)) => {
                effects.list.push(Effect::Open { slot, family });
                Some(slot)
            }
            Some(Taken::Reopen(slot)) => {
                effects.list.push(Effect::Close { slot });
                effects.list.push(Effect::Open { slot, family });
                Some(slot)
            }
            None => {
                self.spare_slots(effects);
                None
            }
        }
    }

    /// Gives up slots that are held for courtesy only, as many as wait for one: a kept connection and a graceful end
    /// are favours, a due check is a duty. Slots that are on their way to be free anyway serve the first who wait.
    fn spare_slots(&mut self, effects: &mut Effects) {
        // The one that has just been refused is on neither list.
        let waiting = 1 + self.classes.ready() + self.classes.resolved_waiting();
        let wanted = waiting.saturating_sub(self.slots.census().leaving).min(SPARED_PER_STEP_MAX);
        for _ in 0..wanted {
            let Some(slot) = self.slots.spare() else { return };
            self.leave(slot, effects);
        }
    }
}
