//! Monitors that nobody asks: the job calls in, or it is missed.
//!
//! ```text
//!            deadline = last call (or start) + interval + grace
//!  wheel ────────────────────────▶ judging ──▶ missed: PUSHTOUT, the next deadline is an interval later
//!    ▲  │ call
//!    └──┴──▶ PUSHOK or PUSHERR, judged at once; the deadline is laid anew
//! ```
//! Such a monitor takes no slot and is never in the ready list, so that it is judged also when no slot is free. What is
//! expected again and again counts once per interval, however often `retry_interval` would have it.
//!
//! Our own fault is not the job's: when the loop stood still, calls may lie unread in the listeners' queues. A miss is
//! judged [`PUSH_SETTLE`] after that at the earliest, and one whose deadline passed meanwhile is void.
//!
//! Memory: one entry per monitor of this kind. Full (the desk is behind): misses wait, and a call that comes after all
//! takes its monitor out.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Core;
use super::protocol::Effects;
use crate::domain::{Check, Code, Outcome, Policy, VoidReason};
use crate::units::limits::{INTERVAL_MAX, LEDGER_EVERY, PUSH_SETTLE, PUSH_STOPS_MAX, STALL, STARTS_PER_STEP_MAX};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};
use crate::world::{Components, Place};

/// What is known of the calls of one monitor.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// The last call, or since when one is waited for.
    since: Instant,
    called: bool,
    /// When the next call is missed.
    deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Pushes {
    waits: HashMap<u32, Wait, FxBuildHasher>,
    /// Their deadline has passed, and they are not judged yet.
    missed: VecDeque<u32>,
    /// When the loop stood still: the last time, and those before it that had not settled when it came.
    stood_still: Vec<(Instant, Instant)>,
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self { waits: HashMap::with_hasher(FxBuildHasher), missed: VecDeque::new(), stood_still: Vec::new() }
    }

    /// Whether the monitor is one that calls in.
    pub(super) fn await_call_of(&self, index: u32) -> bool {
        // Most shards have none of them, and every due monitor is asked about.
        !self.waits.is_empty() && self.waits.contains_key(&index)
    }

    /// A deadline has passed.
    pub(super) fn fire(&mut self, index: u32) {
        self.missed.push_back(index);
    }

    pub(super) fn missed(&self) -> usize {
        self.missed.len()
    }

    pub(super) fn forget(&mut self, leaves: impl Fn(u32) -> bool) {
        self.missed.retain(|missed| !leaves(*missed));
    }

    /// It is not one that calls in any more, or is nobody.
    pub(super) fn give_up(&mut self, index: u32) {
        self.waits.remove(&index);
    }

    /// A step comes at least with every audit; one that comes much later was kept from running.
    pub(super) fn note_step(&mut self, last: Instant, now: Instant) {
        if !self.waits.is_empty() && now.since(last) > LEDGER_EVERY + STALL {
            if self.settles().is_some_and(|settled| settled <= last) {
                self.stood_still.clear();
            }
            let full = self.stood_still.len() == PUSH_STOPS_MAX;
            match self.stood_still.last_mut() {
                // A process that does little but stand still: the times in between count as well.
                Some(gap) if full => gap.1 = now,
                _ => self.stood_still.push((last, now)),
            }
        }
    }

    /// Until when calls may still lie in a listener's queue.
    fn settles(&self) -> Option<Instant> {
        self.stood_still.last().map(|&(_, until)| until + PUSH_SETTLE)
    }

    fn stood_still_at(&self, deadline: Instant) -> bool {
        let stood_still = self.stood_still.iter().any(|&(from, until)| (from..=until).contains(&deadline));
        stood_still && !planted::is(Bug::MissWhileStoppedCounts)
    }
}

impl Core {
    /// Lays a monitor that calls in onto the wheel, as if it had called just now; `false` for any other.
    pub(super) fn await_first_call(&mut self, c: &mut Components<'_>, index: u32, now: Instant) -> bool {
        let Some(patience) = patience(self.policy(index)) else { return false };
        let deadline = now + patience;
        self.pushes.waits.insert(index, Wait { since: now, called: false, deadline });
        self.lay(c, index, self.clock.due(deadline), false);
        true
    }

    /// The interval of a monitor on the wheel is another one. Nobody is late by a rule that came after the fact.
    pub(super) fn await_call_anew(&mut self, c: &mut Components<'_>, index: u32, now: Instant) {
        let (Some(patience), Some(&wait)) = (patience(self.policy(index)), self.pushes.waits.get(&index)) else {
            return;
        };
        let since_the_last = wait.since + patience;
        let deadline = if since_the_last > now { since_the_last } else { now + patience };
        self.pushes.waits.insert(index, Wait { deadline, ..wait });
        self.wheel.cancelled();
        self.lay(c, index, self.clock.due(deadline), false);
    }

    /// A job has called. Calls for what is not watched are dropped.
    pub(super) fn called(
        &mut self,
        c: &mut Components<'_>,
        index: u32,
        ok: bool,
        message: &str,
        now: Instant,
        effects: &mut Effects,
    ) {
        if !self.pushes.await_call_of(index) {
            return;
        }
        match c.timing(index).place {
            Place::Wheel => self.wheel.cancelled(),
            Place::Judging => self.pushes.forget(|missed| missed == index),
            Place::Nowhere | Place::Ready | Place::Resolving | Place::Flight | Place::Pause => return,
        }
        let Some(patience) = patience(self.policy(index)) else { return };
        let deadline = now + patience;
        self.pushes.waits.insert(index, Wait { since: now, called: true, deadline });
        let outcome = match (ok, message.is_empty()) {
            (true, true) => Outcome::of(Code::PushOk),
            (true, false) => Outcome::of(Code::PushOk).with_evidence(message),
            (false, true) => Outcome::of(Code::PushErr).with_evidence("the job said that it failed"),
            (false, false) => Outcome::of(Code::PushErr).with_evidence(message),
        };
        self.conclude(c, index, outcome, now, effects);
        self.lay(c, index, self.clock.due(deadline), false);
    }

    /// Judges those whose deadline has passed.
    pub(super) fn judge_missed(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        for _ in 0..STARTS_PER_STEP_MAX {
            if self.desk_full || self.draining {
                return;
            }
            let Some(index) = self.pushes.missed.pop_front() else { return };
            self.judge_miss(c, index, now, effects);
        }
    }

    fn judge_miss(&mut self, c: &mut Components<'_>, index: u32, now: Instant, effects: &mut Effects) {
        let policy = Arc::clone(self.policy(index));
        let (Check::Push(check), Some(&wait)) = (&policy.check, self.pushes.waits.get(&index)) else { return };
        if let Some(settles) = self.pushes.settles().filter(|settles| *settles > now) {
            self.lay(c, index, self.clock.due(settles), false);
            return;
        }
        let (every, grace) = (said(policy.interval), said(check.grace));
        let outcome = if self.pushes.stood_still_at(wait.deadline) {
            let evidence = "this process stood still when the job's call was due";
            Outcome::of(Code::Void(VoidReason::Stall)).with_evidence(evidence)
        } else {
            let waited = said(now.since(wait.since));
            let none = if wait.called { format!("no call for {waited}") } else { format!("no call yet, for {waited}") };
            Outcome::of(Code::PushTout).with_evidence(&format!("{none}, expected every {every} with {grace} grace"))
        };
        if !planted::is(Bug::MissedCallForgotten) {
            self.conclude(c, index, outcome, now, effects);
        }
        // From the deadline, not from now; the ones that passed while the process stood still are not made up for.
        let interval = policy.interval.as_nanos().max(1);
        let passed = now.since(wait.deadline).as_nanos() / interval;
        self.stats.missed += passed;
        let deadline = wait.deadline + Span::from_nanos((passed + 1).saturating_mul(interval));
        self.pushes.waits.insert(index, Wait { deadline, ..wait });
        self.lay(c, index, self.clock.due(deadline), false);
    }

    /// Whether the next step has misses to judge.
    pub(super) fn has_missed(&self) -> bool {
        self.pushes.missed() > 0 && !self.desk_full && !self.draining
    }
}

/// How long a call may be away; `None` where nobody calls.
fn patience(policy: &Policy) -> Option<Span> {
    match &policy.check {
        Check::Push(check) => Some(policy.interval + check.grace.min(INTERVAL_MAX)),
        Check::Tcp(_) | Check::Http(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) => None,
    }
}

/// `5 m`, where a measured span would be `5 m 0 s`.
fn said(span: Span) -> String {
    let text = span.to_string();
    let round = text.strip_suffix(" 0 s").or_else(|| text.strip_suffix(" 0 m")).or_else(|| text.strip_suffix(".0 ms"));
    match round {
        Some(round) if text.ends_with("ms") => format!("{round} ms"),
        Some(round) => round.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
