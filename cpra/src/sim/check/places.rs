//! Where the monitors are, and when they are checked.

use super::{Answered, Calls, Checker};
use crate::domain::health::Phase;
use crate::domain::monitor::CheckKind;
use crate::domain::{Code, TransitionKind};
use crate::domain::{Outcome, Verdict};
use crate::shard::Shard;
use crate::shard::protocol::{CommandKind, Effect, Event, MonitorState, Transition};
use crate::sim::coverage::{PLACES, Section, TRANSITIONS};
use crate::sim::errand::SimDriver;
use crate::sim::host::SimHost;
use crate::sim::jobs::{SimJobs, says};
use crate::sim::plan::settling;
use crate::sim::ring::SimRing;
use crate::units::limits::{RESOLVE_MAX, RETRY_PAUSE, STALL, TICK};
use crate::units::{Instant, Span};
use crate::world::Place;

/// How late an actor may wake.
const WAKE_LATE: Span = Span::from_millis(50);
/// How long two readings of the host's counters may take, one that is under way and the one that counts.
const READING_SLOW: Span = Span::from_millis(3_500);

/// What a step left behind, for the checkers.
pub(in crate::sim) struct Stepped<'a> {
    pub(in crate::sim) shard: u8,
    pub(in crate::sim) now: Instant,
    pub(in crate::sim) machine: &'a Shard,
    pub(in crate::sim) effects: &'a [Effect],
    /// As it was before the step's effects.
    pub(in crate::sim) ring: &'a SimRing,
    pub(in crate::sim) host: &'a SimHost,
    pub(in crate::sim) driver: &'a SimDriver,
    pub(in crate::sim) jobs: &'a SimJobs,
}

impl Checker {
    /// What a shard is about to hear of.
    pub(in crate::sim) fn shard_hears(&mut self, shard: u8, event: &Event<'_>, now: Instant) {
        let log = &mut self.shards[usize::from(shard)];
        match event {
            Event::Completed(_)
            | Event::OpenFailed { .. }
            | Event::Read { .. }
            | Event::Begun { .. }
            | Event::Returned { .. }
            | Event::Echoed { .. }
            | Event::Reloaded(_)
            | Event::HalfOpen(_) => {}
            Event::Pushed { index, ok, .. } => {
                let watch = log.first + *index as usize;
                self.called(watch, *ok, now);
            }
            Event::Resolved { name, result } => {
                let answered = Answered::from(result);
                if let Answered::Found { addresses, ttl } = &answered {
                    log.located.insert(name.clone(), (addresses.clone(), now + (*ttl).max(TICK)));
                }
                let mine = log.first..log.first + log.len;
                for seen in &mut self.watches[mine] {
                    if seen.place == Place::Resolving && seen.name.as_ref() == Some(name) {
                        seen.resolve = seen.resolve.or(seen.check_started.map(|started| now.since(started)));
                        // The first one lets it go, though perhaps only in a later step.
                        seen.answered.get_or_insert_with(|| answered.clone());
                    }
                }
            }
            Event::HostSampled(sample) => log.readings.push(sample.taken),
            Event::DeskFull(full) => {
                if *full {
                    self.coverage.hit(Section::Turn, "the desk was full");
                }
                log.desk_full = *full;
                log.excused = now;
            }
            Event::Drain => log.draining = true,
            Event::Command(command) => {
                let watch = log.first + command.monitor.index() as usize;
                let seen = &mut self.watches[watch];
                if matches!(command.kind, CommandKind::Disable { .. } | CommandKind::Enable { .. }) {
                    seen.switched_at = Some(now);
                }
                match command.kind {
                    CommandKind::Disable { epoch } => {
                        seen.enabled = false;
                        seen.epoch = epoch;
                        seen.streak = super::Streak::new(false);
                        seen.void_since = None;
                        seen.forget_attempts();
                        seen.check_started = None;
                        seen.due = None;
                        seen.calls = Calls::default();
                    }
                    CommandKind::Enable { epoch } => {
                        let was_enabled = std::mem::replace(&mut seen.enabled, true);
                        seen.asked_now = false;
                        seen.epoch = epoch;
                        seen.streak = super::Streak::new(true);
                        seen.alive = now;
                        seen.due = None;
                        // It is laid anew: forget where it was.
                        seen.place = Place::Nowhere;
                        if !was_enabled {
                            self.awaits_call(watch, now);
                        }
                    }
                    CommandKind::Resume { epoch, resumed } => {
                        let was_enabled = std::mem::replace(&mut seen.enabled, true);
                        seen.epoch = epoch;
                        seen.streak = super::Streak::resumed(resumed);
                        if !was_enabled {
                            seen.asked_now = false;
                            seen.alive = now;
                            seen.due = None;
                            seen.place = Place::Nowhere;
                            self.awaits_call(watch, now);
                        }
                    }
                    CommandKind::CheckNow => {
                        seen.asked_at = Some(now);
                        seen.asked_now |= seen.enabled && matches!(seen.place, Place::Nowhere | Place::Wheel);
                    }
                    CommandKind::Obscure => self.coverage.hit(Section::Turn, "a monitor was obscured"),
                }
            }
        }
    }

    /// A shard has made a step; its effects have not been carried out yet.
    pub(in crate::sim) fn stepped(&mut self, step: &Stepped<'_>) {
        let &Stepped { shard, now, machine, effects, .. } = step;
        self.note_gap(shard, now);
        let log = &mut self.shards[usize::from(shard)];
        if log.in_flight > 0 && now.since(log.last_step) > STALL {
            log.stalls.push((log.last_step, now));
            log.excused = now;
        }
        let (first, len) = (log.first, log.len);
        let mut transitions: Vec<&Transition> = effects
            .iter()
            .filter_map(|effect| if let Effect::Transition(transition) = effect { Some(&**transition) } else { None })
            .collect();
        let places = machine.places();
        if places.len() != len {
            let text = format!("shard {shard} has {} places for {len} monitors", places.len());
            return self.fail("places", now, text);
        }
        for (index, &place) in places.iter().enumerate() {
            if self.watches[first + index].kind == CheckKind::Push {
                self.look_at_calls(step, first + index, place, &mut transitions);
            } else {
                self.look_at(step, first + index, place, &mut transitions);
            }
        }
        if let Some(stray) = transitions.first() {
            let text = format!("{} changed by {:?} without having been judged", stray.monitor, stray.kind);
            self.fail("streak", now, text);
        }
        self.take_census(step, &places);
        self.look_at_handshakes(step);
        let log = &mut self.shards[usize::from(shard)];
        log.last_step = now;
        log.in_flight = machine.in_flight();
    }

    /// Only what the kernel told truly is counted. Some of that may be too old by now to be anyone's.
    fn look_at_handshakes(&mut self, step: &Stepped<'_>) {
        let (counted, told) = (&step.machine.stats().connect_rtt, step.ring.counts());
        if counted.count() > told.stamped || counted.sum > told.stamped_sum {
            let text = format!("{} handshakes of {} in sum, but {told:?}", counted.count(), counted.sum);
            self.fail("handshakes", step.now, text);
        }
    }

    fn look_at(&mut self, step: &Stepped<'_>, watch: usize, place: Place, transitions: &mut Vec<&Transition>) {
        let &Stepped { shard, now, machine, .. } = step;
        let seen = &self.watches[watch];
        let before = seen.place;
        if seen.enabled == (place == Place::Nowhere) {
            let text = format!("{} is {place:?}, enabled: {}", self.who(watch), seen.enabled);
            return self.fail("places", now, text);
        }
        let rests = |place| matches!(place, Place::Nowhere | Place::Wheel);
        if place == before && rests(place) {
            return;
        }
        self.coverage.hit(Section::Place, PLACES[place as usize]);
        let state = machine.monitor_state(seen.id.index(), now);
        let last = state.last.zip(state.last_at);
        let judged = !rests(before) && (last != seen.last || state.next_due != seen.shown_due);
        if (before, place) == (Place::Flight, Place::Judging) {
            self.watches[watch].ended = Some(now);
        }
        self.watches[watch].shown_due = state.next_due;
        self.watches[watch].place = place;
        self.watches[watch].last = last;
        if self.watches[watch].switched_at == Some(now) {
            // Judged before or after the word was heard, within one step: both are right.
            let id = self.watches[watch].id;
            transitions.retain(|transition| transition.monitor != id);
        } else if judged && let Some((code, _)) = last {
            self.judged(step, watch, code);
            let warned = std::mem::take(&mut self.watches[watch].warned);
            self.follow(watch, &state, &[(code, warned)], now, transitions);
            let seen = &mut self.watches[watch];
            seen.forget_attempts();
            seen.check_started = None;
            seen.alive = now;
        }
        if place != Place::Nowhere && (judged || before == Place::Nowhere) {
            self.laid(watch, state.next_due, now, judged);
        }
        let begins = matches!(place, Place::Resolving | Place::Flight);
        if begins && (judged || matches!(before, Place::Nowhere | Place::Wheel | Place::Ready)) {
            self.check_begins(shard, watch, now);
        }
        // Judged and asked for again within one step.
        self.watches[watch].asked_now |= place == Place::Ready && self.watches[watch].asked_at == Some(now);
        if place == Place::Nowhere {
            self.watches[watch].forget_attempts();
        }
    }

    /// Transitions, state and evidence must follow from the outcomes: of each the code, and whether it was a warning.
    pub(super) fn follow(
        &mut self,
        watch: usize,
        state: &MonitorState,
        outcomes: &[(Code, bool)],
        now: Instant,
        transitions: &mut Vec<&Transition>,
    ) {
        let id = self.watches[watch].id;
        let (mine, others): (Vec<&Transition>, Vec<_>) =
            transitions.drain(..).partition(|transition| transition.monitor == id);
        *transitions = others;
        let Some(&(code, _)) = outcomes.last() else { return };
        let planned = self.watches[watch].planned;
        let policy = &self.plan.monitors[planned].policy;
        let seen = &mut self.watches[watch];
        let mut expected = Vec::new();
        for &(code, warn) in outcomes {
            let verdict = Outcome { warn, ..Outcome::of(code) }.verdict();
            let tells = seen.streak.judge(verdict, policy, &mut self.coverage);
            expected.extend(tells.into_iter().map(|kind| (kind, code)));
            seen.void_since = if verdict == Verdict::Void { seen.void_since.or(Some(now)) } else { None };
            match verdict {
                Verdict::Fail => seen.fails = seen.fails.saturating_add(1),
                Verdict::Ok | Verdict::Warn => seen.fails = 0,
                Verdict::Void => {}
            }
            seen.most_fails = seen.most_fails.max(seen.fails);
            seen.was_degraded |= seen.streak.degraded;
        }
        let (streak, epoch) = (seen.streak, seen.epoch);
        for transition in &mine {
            self.coverage.hit(Section::Transition, name_of(transition.kind));
        }
        let heard: Vec<_> = mine.iter().map(|transition| (transition.kind, transition.outcome.code)).collect();
        if heard != expected || state.last != Some(code) {
            let text = format!("{} is {code}, tells {heard:?}, should tell {expected:?}", self.who(watch));
            return self.fail("streak", now, text);
        }
        let shown = (state.phase, state.fails, state.oks, state.degraded);
        if shown != (streak.phase, streak.fails, streak.oks, streak.degraded) {
            let text = format!("{} is shown as {state:?}, should be {streak:?}", self.who(watch));
            return self.fail("streak", now, text);
        }
        for transition in mine {
            if transition.epoch != epoch || transition.at != now {
                let text = format!("{} is {code} in epoch {epoch}, tells {transition:?}", self.who(watch));
                return self.fail("streak", now, text);
            }
            let evidence = transition.outcome.evidence.as_deref().unwrap_or_default();
            if evidence.starts_with("job ") && !evidence.starts_with(&says(planned)) {
                let text = format!("{} has what another job said: {evidence}", self.who(watch));
                return self.fail("truth", now, text);
            }
            let foreign = evidence.contains("10.0.") || evidence.contains("2001:db8:");
            let addresses = &self.planned(watch).addresses;
            let names = |address: &std::net::SocketAddr| match address.port() {
                0 | 53 => evidence.contains(&address.ip().to_string()),
                _ => evidence.contains(&address.to_string()),
            };
            if foreign && !addresses.iter().any(names) {
                let text = format!("{} has the evidence of another: {evidence}", self.who(watch));
                return self.fail("truth", now, text);
            }
        }
    }

    /// A monitor was laid on the wheel.
    fn laid(&mut self, watch: usize, due: Option<Instant>, now: Instant, judged: bool) {
        let policy = &self.plan.monitors[self.watches[watch].planned].policy;
        let (interval, retry) = (policy.interval, policy.retry_interval);
        let before = self.watches[watch].due;
        let asked_now = self.watches[watch].asked_now || self.watches[watch].asked_at == Some(now);
        let Some(due) = due else {
            let text = format!("{} is watched and never due", self.who(watch));
            return self.fail("places", now, text);
        };
        if let Some(before) = before.filter(|_| judged && !asked_now) {
            let least = interval.scaled(1, 2).min(retry);
            if due < before + least {
                let text = format!("{} is due {} after the due time before", self.who(watch), due.since(before));
                return self.fail("never early", now, text);
            }
        }
        let longest = interval.max(retry).scaled(3, 2) + TICK + TICK;
        if due > now + longest {
            let text = format!("{} is due only in {}", self.who(watch), due.since(now));
            return self.fail("liveness", now, text);
        }
        let seen = &mut self.watches[watch];
        seen.due = Some(due);
        seen.asked_now &= !judged;
    }

    fn check_begins(&mut self, shard: u8, watch: usize, now: Instant) {
        let log = &self.shards[usize::from(shard)];
        if log.desk_full || log.draining {
            let text = format!("{} was started while the desk was full or the shard drained", self.who(watch));
            return self.fail("no start", now, text);
        }
        let seen = &mut self.watches[watch];
        seen.asked_now |= seen.asked_at == Some(now);
        if let Some(due) = seen.due.filter(|due| *due > now && !seen.asked_now) {
            let text = format!("{} was started {} before it was due", self.who(watch), due.since(now));
            return self.fail("never early", now, text);
        }
        let seen = &mut self.watches[watch];
        seen.check_started = Some(now);
        seen.resolve = None;
        seen.answered = None;
        seen.alive = now;
    }

    /// Sums, bounds, and nobody forgotten.
    fn take_census(&mut self, step: &Stepped<'_>, places: &[Place]) {
        let &Stepped { shard, now, machine, .. } = step;
        let count = |wanted: Place| places.iter().filter(|place| **place == wanted).count();
        let in_flight = count(Place::Flight) + count(Place::Pause);
        let (slots, stats) = (self.plan.slots_max as usize, machine.stats());
        if in_flight != machine.in_flight() || in_flight > slots {
            let text = format!("{in_flight} checks in flight, {} said, {slots} slots", machine.in_flight());
            return self.fail("places", now, text);
        }
        if stats.lost > 0 || stats.monitors.iter().sum::<u64>() != places.len() as u64 {
            let text = format!("{} lost, {:?} of {} monitors", stats.lost, stats.monitors, places.len());
            return self.fail("places", now, text);
        }
        if stats.ready != count(Place::Ready) as u64 {
            let text = format!("{} ready, {} said", count(Place::Ready), stats.ready);
            return self.fail("places", now, text);
        }
        let log = &mut self.shards[usize::from(shard)];
        self.coverage.add(Section::Turn, "a due time was missed", stats.missed - log.missed);
        log.missed = stats.missed;
        self.coverage.add(Section::Turn, "a check was overdue", stats.overdue - log.overdue);
        log.overdue = stats.overdue;
        let held = stats.held.iter().sum();
        self.coverage.add(Section::Turn, "a check waited for its packets", held - log.held);
        log.held = held;
        if stats.sizing.iter().any(|report| report.demand.waiting > 0 && report.demand.busy >= report.workers) {
            self.coverage.hit(Section::Turn, "a line was longer than its workers");
        }
        // In a storm without enough slots, being late is no defect; nor is it before the host's counters are known.
        let crowded = stats.ready > 0 && self.plan.is_tight() && now < self.plan.storm_ends;
        if log.desk_full || log.draining || crowded || log.readings.is_empty() {
            log.excused = now;
        }
        let (first, len, excused) = (log.first, log.len, log.excused);
        for watch in first..first + len {
            let seen = &self.watches[watch];
            let (since, patience) = self.patience(watch);
            let late = now.since(since.max(excused));
            if seen.enabled && late > patience {
                let text = format!("{} has been {:?} for {late} too long", self.who(watch), seen.place);
                return self.fail("liveness", now, text);
            }
        }
    }

    /// How long a monitor may be where it is, and from when on.
    fn patience(&self, watch: usize) -> (Instant, Span) {
        let seen = &self.watches[watch];
        let policy = &self.planned(watch).policy;
        let due = seen.due.unwrap_or(seen.alive);
        match seen.place {
            Place::Nowhere => (seen.alive, WAKE_LATE),
            Place::Wheel => (due, WAKE_LATE),
            Place::Ready if self.plan.is_tight() => (due, settling(policy)),
            Place::Ready => (due, Span::from_secs(1)),
            Place::Resolving | Place::Flight | Place::Pause | Place::Judging => {
                // One more than the retries: a failure on a kept connection costs none.
                let attempts = u64::from(policy.retries) + 2;
                let longest = (policy.timeout + RETRY_PAUSE).scaled(attempts, 1) + READING_SLOW;
                let name = if seen.name.is_some() { RESOLVE_MAX } else { Span::ZERO };
                let slot = if self.plan.is_tight() { settling(policy) } else { Span::ZERO };
                (seen.check_started.unwrap_or(seen.alive), longest + name + slot)
            }
        }
    }

    /// A shard answers what its monitors are doing: each once, in order, and all of them as they may be.
    pub(in crate::sim) fn reported(&mut self, shard: u8, states: &[MonitorState], now: Instant) {
        let log = &self.shards[usize::from(shard)];
        let watches = &self.watches[log.first..log.first + log.len];
        let same = states.len() == watches.len()
            && states.iter().zip(watches).all(|(state, seen)| {
                let watched = state.phase != Phase::Disabled;
                state.monitor == seen.id
                    && watched == state.next_due.is_some()
                    && state.last_at.is_none_or(|at| at <= now)
            });
        if !same {
            self.fail("places", now, format!("shard {shard} reports {states:?}"));
        }
    }

    /// How long some monitor has been impossible to judge.
    pub(in crate::sim) fn longest_void(&self, now: Instant) -> Span {
        self.watches.iter().filter_map(|seen| seen.void_since).map(|since| now.since(since)).max().unwrap_or_default()
    }
}

const fn name_of(kind: TransitionKind) -> &'static str {
    match kind {
        TransitionKind::FirstOk => TRANSITIONS[0],
        TransitionKind::Fail1 => TRANSITIONS[1],
        TransitionKind::Threshold => TRANSITIONS[2],
        TransitionKind::Rise => TRANSITIONS[3],
        TransitionKind::VoidBegan => TRANSITIONS[4],
        TransitionKind::VoidEnded => TRANSITIONS[5],
        TransitionKind::Degraded => TRANSITIONS[6],
        TransitionKind::Clean => TRANSITIONS[7],
    }
}
