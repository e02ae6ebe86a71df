//! Monitors whose jobs call in: judged by each call, and by the deadline alone when there was none.
//!
//! The deadline is reckoned here a second time, from the calls that the shard has heard. A miss must be judged in the
//! step in which its deadline has passed, and only if no call had arrived at this host by then.

use super::{Checker, Stepped};
use crate::domain::monitor::CheckKind;
use crate::domain::{Check, Code, VoidReason};
use crate::shard::protocol::Transition;
use crate::sim::coverage::{PLACES, Section};
use crate::units::limits::{LEDGER_EVERY, PUSH_SETTLE, STALL, TICK};
use crate::units::{Instant, Span};
use crate::world::Place;

/// A gap between steps that is longer than this was a stop; a shorter one may delay what has arrived by as much.
const GAP: Span = Span::from_nanos(LEDGER_EVERY.as_nanos() + STALL.as_nanos());

/// What the listener needs at most for the calls that a pause just below that has left it: it is no faster than the shard.
const BACKLOG: Span = Span::from_millis(500);

/// What is known of the calls for one monitor.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// When the next one is missed.
    deadline: Instant,
    /// Heard in this step.
    heard: Vec<bool>,
}

/// The first tick that is not before `at`.
fn tick(at: Instant) -> Instant {
    Instant::ZERO + Span::from_nanos(at.as_nanos().div_ceil(TICK.as_nanos()) * TICK.as_nanos())
}

impl Checker {
    /// A call is waited for from now on.
    pub(super) fn awaits_call(&mut self, watch: usize, now: Instant) {
        let policy = &self.plan.monitors[self.watches[watch].planned].policy;
        let Check::Push(check) = &policy.check else { return };
        let deadline = now + policy.interval + check.grace;
        self.watches[watch].calls = Calls { deadline, heard: Vec::new() };
    }

    /// The shard is about to hear of a call.
    pub(super) fn called(&mut self, watch: usize, ok: bool, now: Instant) {
        if self.watches[watch].kind != CheckKind::Push {
            let text = format!("{} was called for", self.who(watch));
            return self.fail("calls", now, text);
        }
        if self.watches[watch].enabled {
            let heard = std::mem::take(&mut self.watches[watch].calls.heard);
            self.awaits_call(watch, now);
            self.watches[watch].calls.heard = heard;
            self.watches[watch].calls.heard.push(ok);
        }
    }

    /// A shard has made a step: what has become of a monitor whose job calls in?
    pub(super) fn look_at_calls(
        &mut self,
        step: &Stepped<'_>,
        watch: usize,
        place: Place,
        transitions: &mut Vec<&Transition>,
    ) {
        let &Stepped { shard, now, machine, .. } = step;
        let log = &self.shards[usize::from(shard)];
        let waits = log.desk_full || log.draining;
        let who = self.who(watch);
        let seen = &mut self.watches[watch];
        let heard = std::mem::take(&mut seen.calls.heard);
        let holds = match place {
            Place::Nowhere => !seen.enabled,
            Place::Wheel => seen.enabled,
            // Missed, and the desk cannot hear of it.
            Place::Judging => seen.enabled && waits && seen.calls.deadline <= now,
            Place::Ready | Place::Resolving | Place::Flight | Place::Pause => false,
        };
        if !holds {
            let text = format!("{who} is {place:?}, enabled: {}, and its job calls in", seen.enabled);
            return self.fail("places", now, text);
        }
        let state = machine.monitor_state(seen.id.index(), now);
        let last = state.last.zip(state.last_at);
        let switched = seen.switched_at == Some(now);
        let missed = place != Place::Nowhere && heard.is_empty() && last != seen.last && !switched;
        let moved = place != seen.place;
        (seen.place, seen.last, seen.due, seen.alive) = (place, last, state.next_due, now);
        if switched {
            // What was judged before the word was heard.
            let (id, epoch) = (seen.id, seen.epoch);
            transitions.retain(|transition| transition.monitor != id || transition.epoch == epoch);
        }
        if moved {
            self.coverage.hit(Section::Place, PLACES[place as usize]);
        }
        if place == Place::Nowhere {
            return;
        }
        let mut codes: Vec<(Code, bool)> =
            heard.iter().map(|&ok| (if ok { Code::PushOk } else { Code::PushErr }, false)).collect();
        if missed && let Some((code, _)) = last {
            if let Err(why) = self.weigh_miss(step, watch, code) {
                return self.fail("calls", now, format!("{who} was judged {code}: {why}"));
            }
            codes.push((code, false));
        }
        if !codes.is_empty() {
            for (code, _) in &codes {
                self.coverage.hit(Section::Code, code.as_str());
            }
            if waits && !heard.is_empty() {
                self.coverage.hit(Section::Turn, "a job called while the desk was full");
            }
            self.follow(watch, &state, &codes, now, transitions);
        }
        if place == Place::Wheel {
            self.is_due_with_its_call(watch, shard, state.next_due, now);
        }
    }

    /// Nobody called, says the shard. The next deadline is an interval after this one that has not passed.
    fn weigh_miss(&mut self, step: &Stepped<'_>, watch: usize, code: Code) -> Result<(), String> {
        let &Stepped { shard, now, jobs, .. } = step;
        let log = &self.shards[usize::from(shard)];
        let planned = self.watches[watch].planned;
        let deadline = self.watches[watch].calls.deadline;
        if now < deadline {
            return Err(format!("but a call is missed only at {deadline:?}"));
        }
        if log.stood_still.iter().any(|(_, until)| (*until..*until + PUSH_SETTLE).contains(&now)) {
            return Err("but calls may still lie unread".into());
        }
        let stood_still = log.stood_still.iter().any(|(from, until)| (*from..=*until).contains(&deadline));
        match code {
            Code::PushTout if stood_still => return Err("but the loop stood still at the deadline".into()),
            Code::PushTout => {
                if let Some(unread) = jobs.unread(planned).filter(|unread| *unread + GAP + BACKLOG < deadline) {
                    return Err(format!("but a call has lain unread since {unread:?}"));
                }
            }
            Code::Void(VoidReason::Stall) if stood_still => {
                self.coverage.hit(Section::Turn, "a call was missed while the loop stood still");
            }
            _ => return Err(format!("but nobody has called, and its deadline was {deadline:?}")),
        }
        let interval = self.plan.monitors[planned].policy.interval;
        let passed = now.since(deadline).as_nanos() / interval.as_nanos();
        self.watches[watch].calls.deadline = deadline + interval.scaled(passed + 1, 1);
        Ok(())
    }

    fn is_due_with_its_call(&mut self, watch: usize, shard: u8, due: Option<Instant>, now: Instant) {
        let deadline = self.watches[watch].calls.deadline;
        // What came due while the loop stood still waits for what may lie unread.
        let settles = self.shards[usize::from(shard)].stood_still.iter().map(|(_, until)| tick(*until + PUSH_SETTLE));
        let mut times = settles.filter(|_| deadline <= now).chain([tick(deadline)]);
        if !due.is_some_and(|due| times.any(|time| time == due)) {
            let text = format!("{} is due at {due:?}, and its call at {deadline:?}", self.who(watch));
            self.fail("calls", now, text);
        }
    }

    /// Remembers that a shard made no step for longer than it ever does by itself.
    pub(super) fn note_gap(&mut self, shard: u8, now: Instant) {
        let log = &mut self.shards[usize::from(shard)];
        if now.since(log.last_step) > GAP {
            log.stood_still.push((log.last_step, now));
        }
    }
}
