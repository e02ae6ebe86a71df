//! From a slot to a judgement: driving probes, attempts, ending connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::classes::Class;
use super::hops::Leg;
use super::protocol::{Effect, Effects};
use super::reload::Definitions;
use super::slots::{Flight, Idle, Origin, State};
use super::{Core, TimedOut};
use crate::domain::{Check, Code, HostRef, HttpCheck, Outcome, Policy, Verdict, VoidReason};
use crate::probe::errand::{Echo, ErrandEnd};
use crate::probe::{Judgement, Ops, Probe, Request, Then, dialled, identity};
use crate::queueing::recording::Measure;
use crate::ring::{Completion, Family, Op, OpKind};
use crate::units::limits::{FIN_WAIT, KEEP_ALIVE_IDLE, RETRY_PAUSE};
use crate::units::planted::{self, Bug};
use crate::units::{Generation, Instant, Slot, Span};
use crate::world::{Components, Place};

impl Core {
    /// The next attempt of a paused check, on the same slot, which is quiet by now.
    fn relaunch(&mut self, c: &mut Components<'_>, slot: Slot, now: Instant, effects: &mut Effects) {
        let entry = self.slots.entry(slot);
        if !planted::is(Bug::StaleToken) {
            entry.generation = entry.generation.next();
        }
        let State::Paused(mut flight) = self.slots.change(slot, State::Leaving) else {
            unreachable!("only paused checks are relaunched")
        };
        let policy = Arc::clone(&flight.policy);
        self.slots.entry(slot).wired = self.is_wired(&policy.check, flight.whole);
        self.fit_socket(slot, &flight.address, effects);
        let target = self.definitions.target(flight.monitor);
        let (address, contexts) = (flight.address, &**self.definitions.contexts(flight.monitor));
        let request = Request { policy: &policy, target, address, hop: None, contexts };
        let mut ops = std::mem::take(&mut self.ops);
        ops.quota = self.bounds.quota(&policy.check);
        flight.leg = None;
        flight.probe = self.begin(&request, flight.whole, now, &mut ops);
        flight.attempt_started = now;
        flight.reused = false;
        flight.resolve = Span::ZERO;
        c.timing_mut(flight.monitor).place = Place::Flight;
        self.slots.change(slot, State::Flight(flight));
        self.set_out(slot, now, now + policy.timeout, &mut ops, effects);
        self.ops = ops;
    }

    /// Gives a quiet slot a socket for the address, if it has none that fits and its check needs one.
    pub(super) fn fit_socket(&mut self, slot: Slot, address: &SocketAddr, effects: &mut Effects) {
        let entry = self.slots.entry(slot);
        let family = Family::of(address);
        if !entry.wired || entry.family == Some(family) {
            return;
        }
        if entry.family.replace(family).is_some() {
            effects.list.push(Effect::Close { slot });
        }
        effects.list.push(Effect::Open { slot, family });
    }

    /// An attempt begins, or goes on elsewhere.
    pub(super) fn set_out(
        &mut self,
        slot: Slot,
        now: Instant,
        deadline: Instant,
        ops: &mut Ops,
        effects: &mut Effects,
    ) {
        if let State::Flight(flight) = &mut self.slots.entry(slot).state {
            flight.asked = now;
            flight.deadline = deadline;
        }
        self.slots.set_deadline(slot, Some(deadline));
        self.submit_all(slot, ops, effects);
    }

    /// A slot's errand is under way: the attempt's time counts from then. Until now it may have waited for the driver,
    /// which is ours to answer for.
    pub(super) fn begun(&mut self, slot: Slot, generation: Generation, at: Instant) {
        let Some(entry) = self.slots.get(slot) else { return };
        if entry.generation != generation || !entry.has_errand() {
            return;
        }
        let State::Flight(flight) = &mut entry.state else { return };
        flight.probe.begun();
        flight.attempt_started = at;
        flight.deadline = at + flight.policy.timeout;
        let deadline = flight.deadline;
        self.slots.set_deadline(slot, Some(deadline));
    }

    /// What a slot's errand came to.
    pub(super) fn returned(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        generation: Generation,
        end: &ErrandEnd,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.slots.get(slot) else { return };
        if entry.generation != generation || !entry.has_errand() {
            return;
        }
        entry.returned();
        if let State::Flight(flight) = &mut entry.state {
            let request =
                request(&self.definitions, flight.monitor, &flight.policy, flight.address, flight.leg.as_deref());
            let judgement = flight.probe.returned(&request, end, now);
            self.attempt_ended(c, slot, judgement, now, effects);
        }
        self.settle(c, slot, now, effects);
    }

    /// What came back for an echo request or a SYN.
    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn echoed(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        generation: Generation,
        sequence: u16,
        echo: Echo,
        now: Instant,
        effects: &mut Effects,
    ) {
        let current = self.slots.get(slot).is_some_and(|entry| entry.generation == generation);
        if current {
            self.note_echo(slot, echo, now);
        }
        if current || planted::is(Bug::LateEchoAccepted) {
            self.drive(c, slot, now, effects, |probe, request, ops| probe.echoed(request, sequence, echo, now, ops));
        }
    }

    /// What of an echo check's time was ours. Only where there is one request: between several of them there are gaps that
    /// we leave on purpose, and a worker is busy with them.
    fn note_echo(&mut self, slot: Slot, echo: Echo, now: Instant) {
        let Echo::Reply { rtt } = echo else { return };
        let State::Flight(flight) = &mut self.slots.entry(slot).state else { return };
        if matches!(&flight.policy.check, Check::Icmp(check) if check.count == 1) {
            flight.ours = flight.ours + (now.since(flight.asked) - rtt);
        }
    }

    /// Keeps a handshake only if it can be that of the attempt's connect, and notes what of the time was ours.
    fn note_handshake<'a>(&mut self, completion: &Completion<'a>, now: Instant) -> Completion<'a> {
        let mut noted = *completion;
        let Some(handshake) = noted.handshake.take() else { return noted };
        let State::Flight(flight) = &mut self.slots.entry(completion.slot).state else { return noted };
        let is_its = completion.kind == OpKind::Connect && completion.result.is_ok();
        if is_its && handshake.fits(flight.asked, now) {
            flight.ours = flight.ours + (now.since(flight.asked) - handshake.took());
            self.stats.connect_rtt.record(handshake.took());
            noted.handshake = Some(handshake);
        }
        noted
    }

    /// Lets the probe of a slot in flight take something, does what it wants, and ends the attempt if it is judged.
    fn drive(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        now: Instant,
        effects: &mut Effects,
        take: impl FnOnce(&mut Probe, &Request<'_>, &mut Ops) -> Option<Judgement>,
    ) {
        let State::Flight(flight) = &mut self.slots.entry(slot).state else { return };
        let request = request(&self.definitions, flight.monitor, &flight.policy, flight.address, flight.leg.as_deref());
        let mut ops = std::mem::take(&mut self.ops);
        ops.quota = self.bounds.quota(&request.policy.check);
        let judgement = take(&mut flight.probe, &request, &mut ops);
        self.went_on(c, slot, judgement, ops, now, effects);
        self.settle(c, slot, now, effects);
    }

    /// Does what a probe wants; then its attempt goes on, here or elsewhere, or has ended.
    fn went_on(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        judgement: Option<Judgement>,
        mut ops: Ops,
        now: Instant,
        effects: &mut Effects,
    ) {
        let hop = ops.hop.take();
        self.submit_all(slot, &mut ops, effects);
        self.ops = ops;
        if let Some(judgement) = judgement {
            self.attempt_ended(c, slot, judgement, now, effects);
        } else if let Some(hop) = hop {
            self.follow(c, slot, *hop, now, effects);
        }
    }

    /// A completion, for whatever the slot is doing by now.
    pub(super) fn completed(
        &mut self,
        c: &mut Components<'_>,
        completion: &Completion<'_>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let slot = completion.slot;
        let Some(entry) = self.slots.get(slot) else { return };
        if entry.generation != completion.generation {
            return;
        }
        if !completion.more {
            entry.completed(completion.kind);
        }
        let receiving = entry.is_pending(OpKind::Recv);
        let completion = &self.note_handshake(completion, now);
        match &mut self.slots.entry(slot).state {
            State::Flight(flight) => {
                let costly = flight.probe.is_costly(completion);
                let late = flight.probe.behind_since().is_some() || costly && self.handshakes_left == 0;
                if late && flight.probe.put_off(completion, now) {
                    self.behind.push_back((slot, completion.generation));
                    return;
                }
                self.handshakes_left = self.handshakes_left.saturating_sub(usize::from(costly));
                let leg = flight.leg.as_deref();
                let request = request(&self.definitions, flight.monitor, &flight.policy, flight.address, leg);
                let mut ops = std::mem::take(&mut self.ops);
                let judgement = flight.probe.on(&request, completion, now, &mut ops);
                self.went_on(c, slot, judgement, ops, now, effects);
            }
            State::Hopping(_) if !receiving => self.part(slot, effects),
            State::Idle(Idle { kept, .. }) => {
                if !kept.as_mut().is_some_and(|kept| kept.hears(completion)) {
                    // The peer closed a kept connection, or spoke unasked: either way it is of no more use.
                    self.leave(slot, effects);
                } else if !receiving {
                    self.submit(slot, Op::Recv, &[], effects);
                }
            }
            State::Lingering if !receiving => self.leave(slot, effects),
            State::Lingering | State::Free | State::Leaving | State::Paused(_) | State::Hopping(_) => {}
        }
        self.settle(c, slot, now, effects);
    }

    /// Makes steps of handshakes that earlier steps have put off, oldest first.
    pub(super) fn catch_up(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        while self.handshakes_left > 0
            && let Some((slot, generation)) = self.behind.pop_front()
        {
            if self.slots.entry(slot).generation == generation {
                self.handshakes_left -= 1;
                self.catch_up_with(c, slot, now, effects);
            }
        }
    }

    /// Lets a probe take what was put off. The time that it lay here was ours: the attempt's time is longer by it, as far
    /// as the next due time allows; beyond that the check says nothing about its target.
    fn catch_up_with(&mut self, c: &mut Components<'_>, slot: Slot, now: Instant, effects: &mut Effects) {
        let State::Flight(flight) = &mut self.slots.entry(slot).state else { return };
        let Some(since) = flight.probe.behind_since() else { return };
        let held = now.since(since);
        let latest = flight.deadline.max(flight.started + flight.policy.interval);
        let deadline = (flight.deadline + held).min(latest);
        flight.stalled |= deadline < flight.deadline + held;
        flight.deadline = deadline;
        flight.attempt_started += held;
        self.slots.set_deadline(slot, Some(deadline));
        self.drive(c, slot, now, effects, |probe, request, ops| probe.catch_up(request, now, held, ops));
    }

    /// What a slot does once it is quiet.
    pub(super) fn settle(&mut self, c: &mut Components<'_>, slot: Slot, now: Instant, effects: &mut Effects) {
        let entry = self.slots.entry(slot);
        if !entry.is_quiet() {
            return;
        }
        match &entry.state {
            State::Leaving => {
                self.slots.set_deadline(slot, None);
                self.slots.change(slot, State::Free);
            }
            // The pause is over, and only the old connection was in the way.
            State::Paused(flight) if flight.attempt_started <= now => {
                match self.bounds.retry_held_until(&flight.policy.check) {
                    Some(until) => self.hold(slot, until),
                    None => self.relaunch(c, slot, now, effects),
                }
            }
            State::Hopping(_) => self.land(c, slot, now, effects),
            State::Paused(_) | State::Free | State::Flight(_) | State::Idle(_) | State::Lingering => {}
        }
    }

    /// The pause before a slot's next attempt is longer.
    fn hold(&mut self, slot: Slot, until: Instant) {
        if let State::Paused(flight) = &mut self.slots.entry(slot).state {
            flight.attempt_started = until;
        }
        self.slots.set_deadline(slot, Some(until));
    }

    /// Slots whose deadline has passed.
    pub(super) fn expire(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        let mut expired = std::mem::take(&mut self.expired);
        self.slots.expire(now, &mut expired);
        for slot in expired.drain(..) {
            if self.slots.entry(slot).has_deadline() {
                // Found by an early look; meanwhile a completion gave it something else to wait for.
                continue;
            }
            if let State::Flight(flight) = &self.slots.entry(slot).state
                && flight.probe.behind_since().is_some()
            {
                // What it waits for may lie with us.
                self.catch_up_with(c, slot, now, effects);
                continue;
            }
            match &self.slots.entry(slot).state {
                State::Flight(flight) if now < flight.deadline => {
                    // Not the end of the attempt: the probe wished to be woken.
                    let deadline = flight.deadline;
                    self.slots.set_deadline(slot, Some(deadline));
                    self.drive(c, slot, now, effects, |probe, request, ops| probe.woken(request, now, ops));
                    continue;
                }
                State::Flight(flight) => {
                    let leg = flight.leg.as_deref();
                    let request = request(&self.definitions, flight.monitor, &flight.policy, flight.address, leg);
                    let outcome = flight.probe.expire(&request, now);
                    let judgement = Judgement { outcome, then: Then::Disconnect };
                    self.attempt_ended(c, slot, judgement, now, effects);
                }
                State::Hopping(_) => self.hop_expired(c, slot, now, effects),
                State::Lingering | State::Idle(_) => self.leave(slot, effects),
                State::Paused(_) | State::Leaving | State::Free => {}
            }
            self.settle(c, slot, now, effects);
        }
        self.expired = expired;
    }

    /// An attempt is over: again, on a fresh connection, or judge the check.
    pub(super) fn attempt_ended(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        judgement: Judgement,
        now: Instant,
        effects: &mut Effects,
    ) {
        let (State::Flight(mut flight) | State::Hopping(mut flight)) = self.slots.change(slot, State::Leaving) else {
            unreachable!("an attempt ends in flight")
        };
        let Judgement { mut outcome, then } = judgement;
        outcome.latency.resolve = flight.resolve;
        outcome.latency.total = now.since(flight.attempt_started);
        outcome.attempts = flight.attempt;
        let policy = Arc::clone(&flight.policy);
        if let Some(most) = policy.max_latency
            && !flight.stalled
        {
            outcome = most.judged(outcome);
        }
        let silent = flight.probe.is_half_open() && outcome.code == Code::L4Tout;
        if silent && !planted::is(Bug::HalfOpenSilenceIsVerdict) {
            flight.whole = true;
        }
        if let Some(again) = next_attempt(&flight, &outcome, &policy, now) {
            // Until it begins, this says when it may.
            flight.attempt_started = match again {
                Again::Fresh => now,
                Again::Retry => {
                    flight.attempt += 1;
                    if let Some(other) = self.other_address(&flight) {
                        flight.address.set_ip(other);
                    }
                    now + RETRY_PAUSE
                }
            };
            let begins = flight.attempt_started;
            c.timing_mut(flight.monitor).place = Place::Pause;
            self.disconnect(slot, effects);
            self.slots.change(slot, State::Paused(flight));
            self.slots.set_deadline(slot, Some(begins));
            return;
        }
        self.worker_ended(&flight, &policy, outcome.verdict(), now);
        let (address, contexts) = (flight.address, &**self.definitions.contexts(flight.monitor));
        let target = self.definitions.target(flight.monitor);
        let request = Request { policy: &policy, target, address, hop: None, contexts };
        let origin = keeps_alive(&policy).then(|| origin(&request));
        self.end_connection(slot, then, origin, flight.probe, now, effects);
        if outcome.verdict() == Verdict::Fail && flight.stalled && !planted::is(Bug::StallCountsAsFailure) {
            let evidence = format!("this process stood still meanwhile ({})", outcome.cause());
            outcome = Outcome { code: Code::Void(VoidReason::Stall), ..outcome }.with_evidence(&evidence);
        }
        let expired = outcome.code.is_timeout() && outcome.latency.total >= policy.timeout;
        if expired && flight.resolve + flight.resolve > policy.timeout {
            // A slow resolver is no more the target's fault than a dead one.
            let evidence = format!("the name took {} of {}: {}", flight.resolve, policy.timeout, outcome.cause());
            outcome = Outcome { code: Code::Void(VoidReason::Resolver), ..outcome }.with_evidence(&evidence);
        }
        if outcome.code.is_timeout() {
            c.timing_mut(flight.monitor).place = Place::Judging;
            self.judging.push_back(TimedOut {
                monitor: flight.monitor,
                due: flight.due,
                started: flight.started,
                deadline: now,
                outcome,
            });
            return;
        }
        self.judge(c, flight.monitor, flight.due, flight.started, outcome, now, effects);
    }

    /// A worker is free again. Whose times were these? Those of a check that was overdue and ended well are its kind's,
    /// which was slower than it used to be; one that was overdue and failed held its kind's worker until it was found so.
    ///
    /// What the kernel knows to have been our own delay is no part of a service: were it, a busy processor would look like
    /// slow targets, be answered with more workers, and be busier still. A worker is held by it all the same, for as long as
    /// a turn of the loop takes, and so much is added to what the services need.
    fn worker_ended(&mut self, flight: &Flight, policy: &Policy, verdict: Verdict, now: Instant) {
        let result = now.since(self.clock.instant(flight.due));
        let service = now.since(flight.slotted) - flight.ours;
        let kind = policy.check.kind();
        // For people, all checks of a kind are alike.
        self.recording.record(kind as usize, Measure::Service, service);
        self.recording.record(kind as usize, Measure::Result, result);
        let kind = Class::of(kind);
        let was_overdue = flight.seated != flight.slotted;
        if was_overdue && matches!(verdict, Verdict::Ok | Verdict::Warn) {
            self.classes.ended(kind, service, result);
        } else if was_overdue {
            self.classes.ended(flight.class, now.since(flight.seated), result);
            self.classes.held(kind, flight.seated.since(flight.slotted));
        } else {
            self.classes.ended(flight.class, service, result);
            self.classes.delayed(flight.class, flight.ours);
        }
    }

    /// One attempt tries one address; the next attempt the next one of its name, if that has several.
    fn other_address(&self, flight: &Flight) -> Option<IpAddr> {
        match dialled(&flight.policy, self.definitions.target(flight.monitor)) {
            (HostRef::Name(name), _) => self.names.address_after(name, flight.address.ip()),
            (HostRef::Literal(_), _) => None,
        }
    }

    fn end_connection(
        &mut self,
        slot: Slot,
        then: Then,
        origin: Option<Origin>,
        probe: Probe,
        now: Instant,
        effects: &mut Effects,
    ) {
        let receiving = self.slots.entry(slot).is_pending(OpKind::Recv);
        match then {
            Then::Keep if let Some(origin) = origin.filter(|origin| receiving && self.slots.may_keep(origin)) => {
                self.slots.change(slot, State::Idle(Idle { origin, kept: probe.into_kept() }));
                self.slots.set_deadline(slot, Some(now + KEEP_ALIVE_IDLE));
            }
            Then::AwaitFin if receiving => {
                self.slots.change(slot, State::Lingering);
                self.slots.set_deadline(slot, Some(now + FIN_WAIT));
            }
            Then::Keep | Then::AwaitFin | Then::Disconnect => self.leave(slot, effects),
        }
    }

    /// Disconnects; the slot is free once everything on it has completed.
    pub(super) fn leave(&mut self, slot: Slot, effects: &mut Effects) {
        self.slots.change(slot, State::Leaving);
        self.slots.set_deadline(slot, None);
        self.disconnect(slot, effects);
    }

    /// Brings what is pending on a slot to an end.
    pub(super) fn disconnect(&mut self, slot: Slot, effects: &mut Effects) {
        let entry = self.slots.entry(slot);
        if !entry.wired {
            if entry.has_errand() {
                effects.list.push(Effect::Recall { slot, generation: entry.generation });
                if planted::is(Bug::ErrandForgotten) {
                    entry.returned();
                }
            }
            return;
        }
        if !self.slots.entry(slot).is_pending(OpKind::Disconnect) {
            self.submit(slot, Op::Disconnect, &[], effects);
        }
    }

    fn submit_all(&mut self, slot: Slot, ops: &mut Ops, effects: &mut Effects) {
        for op in ops.list.drain(..) {
            let bytes: &[u8] = if op == Op::Send { &ops.bytes } else { &[] };
            self.submit(slot, op, bytes, effects);
        }
        let entry = self.slots.entry(slot);
        let generation = entry.generation;
        if let Some(errand) = ops.errand.take() {
            entry.sent_off();
            effects.list.push(Effect::Errand { slot, generation, errand });
        }
        if let State::Flight(flight) = &entry.state {
            let (address, deadline) = (flight.address.ip(), flight.deadline);
            let packets = ops.pings.len() + usize::from(ops.syn.is_some());
            if packets > 0 || ops.quota.is_short {
                self.bounds.sent(&flight.policy.check, packets, ops.quota);
            }
            let pings = ops.pings.drain(..);
            effects.list.extend(pings.map(|sequence| Effect::Ping { slot, generation, address, sequence }));
            let (address, syn) = (flight.address, ops.syn.take());
            effects.list.extend(syn.map(|attempt| Effect::Syn { slot, generation, address, attempt }));
            if let Some(wake) = ops.wake {
                self.slots.set_deadline(slot, Some(wake.min(deadline)));
            }
        }
        debug_assert!(ops.hop.is_none(), "an attempt does not begin with a hop");
        ops.clear();
    }

    fn submit(&mut self, slot: Slot, op: Op, bytes: &[u8], effects: &mut Effects) {
        let entry = self.slots.entry(slot);
        entry.submitted(op.kind());
        let start = effects.bytes.len() as u32;
        effects.bytes.extend_from_slice(bytes);
        let generation = entry.generation;
        effects.list.push(Effect::Submit { slot, generation, op, bytes: start..effects.bytes.len() as u32 });
    }
}

/// The status of a server that has waited in vain for a request.
const REQUEST_TIMEOUT: u16 = 408;

pub(super) fn keeps_alive(policy: &Policy) -> bool {
    matches!(&policy.check, Check::Http(http) if http.keep_alive)
}

/// What a flight is about.
pub(super) fn request<'a>(
    definitions: &'a Definitions,
    monitor: u32,
    policy: &'a Arc<Policy>,
    address: SocketAddr,
    leg: Option<&'a Leg>,
) -> Request<'a> {
    let (target, contexts) = (definitions.target(monitor), &**definitions.contexts(monitor));
    let address = leg.and_then(|leg| leg.address).unwrap_or(address);
    Request { policy, target, address, hop: leg.map(|leg| &leg.hop), contexts }
}

/// Which kept connections would do for an attempt.
pub(super) fn origin(request: &Request<'_>) -> Origin {
    let proxied = matches!(&request.policy.check, Check::Http(HttpCheck { proxy: Some(_), .. }));
    Origin { address: request.address, proxied, identity: identity(request) }
}

enum Again {
    /// At once, on a fresh connection: a failure on a kept one is no verdict, the peer may close it at any time.
    Fresh,
    /// After a pause, as `retries` allow.
    Retry,
}

/// Whether there is to be another attempt. All of them end before the next due time, counted from the first's start.
fn next_attempt(flight: &Flight, outcome: &Outcome, policy: &Policy, now: Instant) -> Option<Again> {
    if outcome.verdict() != Verdict::Fail {
        return None;
    }
    // A 408 was meant for the idle connection, not for this request (RFC 9110 §15.5.9).
    let answered = matches!(outcome.code, Code::L7Sts | Code::Slow) && outcome.status != Some(REQUEST_TIMEOUT);
    if flight.reused && !answered && !planted::is(Bug::KeepAliveFailureIsVerdict) {
        return Some(Again::Fresh);
    }
    // An answer may have come unseen: by another interface, past a filter that stands before ours. A connect misses none.
    if flight.whole && flight.probe.is_half_open() {
        return Some(Again::Fresh);
    }
    let ends = now + RETRY_PAUSE + policy.timeout;
    (flight.attempt <= policy.retries && ends <= flight.started + policy.interval).then_some(Again::Retry)
}
