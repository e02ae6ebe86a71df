//! From an outcome to health, the desk's ear, and the next due time.

use std::sync::Arc;

use super::protocol::{Effect, Effects, MonitorState, Transition};
use super::{Core, Kept, state_index};
use crate::domain::{Cadence, Code, Outcome, Verdict, VoidReason};
use crate::schedule::Tick;
use crate::units::limits::{EVIDENCE_ENTRIES_MAX, TICK};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};
use crate::world::catalog::phase_of;
use crate::world::{Components, LastOutcome};

impl Core {
    /// Judges the timed-out checks for which a reading of the host's counters began after their deadline.
    pub(super) fn judge_timed_out(&mut self, c: &mut Components<'_>, now: Instant, effects: &mut Effects) {
        while let Some(first) = self.judging.front() {
            let Some(lossy) = self.host.overlap(first.started, first.deadline) else { return };
            let Some(mut timed_out) = self.judging.pop_front() else { return };
            if planted::is(Bug::EvidenceOfOther)
                && let Some(other) = self.judging.front_mut()
            {
                std::mem::swap(&mut timed_out.outcome, &mut other.outcome);
            }
            let mut outcome = timed_out.outcome;
            if lossy && !planted::is(Bug::ForgottenVoid) {
                let evidence = format!("this host dropped packets meanwhile: {}", outcome.cause());
                outcome = Outcome { code: Code::Void(VoidReason::HostDrops), ..outcome }.with_evidence(&evidence);
            }
            self.judge(c, timed_out.monitor, timed_out.due, timed_out.started, outcome, now, effects);
        }
    }

    /// The end of a check: it counts.
    #[expect(clippy::too_many_arguments, reason = "a check's identity and its result; a struct would only rename them")]
    pub(super) fn judge(
        &mut self,
        c: &mut Components<'_>,
        index: u32,
        due: Tick,
        started: Instant,
        outcome: Outcome,
        now: Instant,
        effects: &mut Effects,
    ) {
        let kind = self.policy(index).check.kind() as usize;
        self.stats.latency.record(now.since(self.clock.instant(due)));
        self.stats.duration[kind].record(outcome.latency.total);
        let void = outcome.verdict() == Verdict::Void;
        let cadence = self.conclude(c, index, outcome, now, effects);
        self.lay_next(c, index, due, started, cadence, void, now);
    }

    /// What an outcome does to health, to those who hear of it, and to what is remembered.
    pub(super) fn conclude(
        &mut self,
        c: &mut Components<'_>,
        index: u32,
        outcome: Outcome,
        now: Instant,
        effects: &mut Effects,
    ) -> Cadence {
        let policy = Arc::clone(self.policy(index));
        self.stats.checks[policy.check.kind() as usize][outcome.code.index()] += 1;
        c.set_last(index, LastOutcome::new(outcome.code, self.clock.passed(now)));

        let health = c.health_mut(index);
        let before = *health;
        let verdict = match outcome.verdict() {
            Verdict::Warn if planted::is(Bug::WarningCountsAsFailure) => Verdict::Fail,
            verdict => verdict,
        };
        let judged = health.judge(verdict, &policy);
        let after = *health;
        self.recount(before, after);
        let monitor = self.id(index);
        for kind in [judged.void, judged.transition].into_iter().flatten() {
            let transition = Transition { monitor, epoch: after.epoch(), kind, at: now, outcome: outcome.clone() };
            effects.list.push(Effect::Transition(Box::new(transition)));
        }
        if after.is_troubled() {
            self.keep(index, outcome);
        } else {
            self.kept.remove(&index);
        }
        judged.cadence
    }

    pub(super) fn recount(&mut self, before: crate::domain::Health, after: crate::domain::Health) {
        self.stats.monitors[state_index(&before)] -= 1;
        self.stats.monitors[state_index(&after)] += 1;
        self.stats.degraded -= u64::from(before.is_degraded());
        self.stats.degraded += u64::from(after.is_degraded());
    }

    fn keep(&mut self, index: u32, outcome: Outcome) {
        if self.kept.len() >= EVIDENCE_ENTRIES_MAX && !self.kept.contains_key(&index) {
            self.stats.evidence_dropped += 1;
            return;
        }
        let Outcome { status, latency, evidence, .. } = outcome;
        self.kept.insert(index, Kept { status, latency, evidence });
    }

    /// Lays a monitor back on the wheel. The next due time derives from the last one; those that passed in between
    /// are not made up for.
    #[expect(clippy::too_many_arguments, reason = "what decides about a due time is just this much")]
    fn lay_next(
        &mut self,
        c: &mut Components<'_>,
        index: u32,
        due: Tick,
        started: Instant,
        cadence: Cadence,
        void: bool,
        now: Instant,
    ) {
        let policy = self.policy(index);
        let (interval, retry) = (ticks(policy.interval), ticks(policy.retry_interval));
        let every = if cadence == Cadence::Retry { retry } else { interval };
        let passed = self.clock.passed(now);
        let behind = passed.0.saturating_sub(due.0) / every;
        // Those that passed before the check started were counted as missed then.
        self.stats.skipped_busy += behind - self.clock.passed(started).0.saturating_sub(due.0) / every;
        if planted::is(Bug::RetryMakesSecondCheck) && behind > 0 {
            self.classes.arrived(self.class_of(c, index), index, now);
        }
        let off_phase = c.timing(index).off_phase;
        let next = Tick(due.0 + (behind + 1) * every);
        match cadence {
            Cadence::Retry if void => {
                // Our own trouble hits many at once: spread what comes after it.
                let spread = self.rng.u64(0..=retry / 2);
                self.lay(c, index, Tick(next.0 + spread), true);
            }
            Cadence::Retry => self.lay(c, index, next, off_phase || retry != interval),
            Cadence::Interval if off_phase => {
                let next = self.next_on_phase(index, interval, due, passed);
                self.lay(c, index, next, false);
            }
            Cadence::Interval => self.lay(c, index, next, false),
        }
    }

    /// The first tick of the monitor's own phase that has not passed and is at least half an interval after `due`.
    pub(super) fn next_on_phase(&self, index: u32, interval: u64, due: Tick, passed: Tick) -> Tick {
        let span = Span::from_nanos(interval * TICK.as_nanos());
        let phase = phase_of(self.definitions.name(index), span).as_nanos() / TICK.as_nanos();
        let earliest = (due.0 + interval.div_ceil(2)).max(passed.0 + 1);
        Tick(earliest.saturating_sub(phase).div_ceil(interval) * interval + phase)
    }

    pub(super) fn monitor_state(&self, c: &Components<'_>, index: u32, now: Instant) -> MonitorState {
        let health = *c.health(index);
        let timing = *c.timing(index);
        let last = c.last(index);
        let near = self.clock.passed(now);
        let kept = self.kept.get(&index);
        let watched = timing.place != crate::world::Place::Nowhere;
        MonitorState {
            monitor: self.id(index),
            phase: health.phase(),
            degraded: health.is_degraded(),
            obscured: health.is_obscured(),
            fails: health.fails(),
            oks: health.oks(),
            last: last.code(),
            last_at: last.at(near).map(|tick| self.clock.instant(tick)),
            next_due: watched.then(|| self.clock.instant(Tick::from_low(timing.due, near))),
            evidence: kept.and_then(|kept| kept.evidence.clone()),
            status: kept.and_then(|kept| kept.status),
            latency: kept.map(|kept| kept.latency),
        }
    }
}

/// A span in whole ticks, at least one, rounded up: nothing is due early.
pub(super) const fn ticks(span: Span) -> u64 {
    let ticks = span.as_nanos().div_ceil(TICK.as_nanos());
    if ticks == 0 { 1 } else { ticks }
}
