//! Checks without a socket against what their trips truly met: programs, name servers, echoes.

use super::Checker;
use crate::domain::monitor::CheckKind;
use crate::domain::{Check, Code, Outcome, Verdict, VoidReason};
use crate::probe::errand::Echo;
use crate::sim::coverage::Section;
use crate::sim::errand::{Met, SimDriver, Trip, script_address};
use crate::units::limits::RETRY_PAUSE;
use crate::units::{Instant, Span};
use crate::world::Place;

impl Checker {
    /// What went out after a step.
    pub(in crate::sim) fn sent_off(&mut self, begun: &[usize], driver: &SimDriver, now: Instant) {
        for &number in begun {
            self.trip_began(number, &driver.trips()[number], driver, now);
        }
        if let Some(violation) = driver.violations().first() {
            self.fail("errands", now, violation.clone());
        }
    }

    fn trip_began(&mut self, number: usize, trip: &Trip, driver: &SimDriver, now: Instant) {
        let life = trip.address.or(trip.script.map(script_address));
        let Some(&[watch]) = life.and_then(|life| self.by_address.get(&life)).map(Vec::as_slice) else {
            return self.fail("truth", now, format!("an errand went to {life:?}, where no monitor looks"));
        };
        let who = self.who(watch);
        let retries = usize::from(self.planned(watch).policy.retries);
        let seen = &self.watches[watch];
        if seen.place != Place::Flight && seen.switched_at == Some(now) {
            return;
        }
        if (seen.id.shard(), seen.kind, seen.place) != (trip.shard, trip.kind, Place::Flight) {
            return self.fail("places", now, format!("{who} was sent off as {trip:?} while it is {:?}", seen.place));
        }
        if seen.tries() > retries {
            let text = format!("{who} got attempt {} with {retries} retries", seen.tries() + 1);
            return self.fail("second check", now, text);
        }
        if let Some(&before) = seen.attempts_by(true).last() {
            let before = &driver.trips()[before];
            if matches!(before.kind, CheckKind::Script | CheckKind::Dns) && before.back.is_none_or(|back| back > now) {
                return self.fail("second check", now, format!("{who} is sent off again before it is back"));
            }
            if now < before.started + RETRY_PAUSE {
                return self.fail("never early", now, format!("{who} was sent off again at once"));
            }
            self.coverage.hit(Section::Turn, "an errand was sent again");
        }
        self.note_attempt(watch, number, true);
        self.watches[watch].ended = None;
    }

    pub(super) fn weigh_trip(
        &mut self,
        watch: usize,
        code: Code,
        driver: &SimDriver,
        now: Instant,
        is_lossy: impl Fn(Instant) -> bool,
    ) -> Result<(), String> {
        let seen = &self.watches[watch];
        let policy = &self.plan.monitors[seen.planned].policy;
        let log = &self.shards[usize::from(seen.id.shard())];
        let started = seen.check_started.ok_or("without having been started")?;
        let (Some(&first), Some(&last)) = (seen.attempts.first(), seen.attempts.last()) else {
            return Err("without having been sent off".into());
        };
        let (trip, first) = (&driver.trips()[last], &driver.trips()[first]);
        let resolve = if seen.tries() == 1 { seen.resolve.unwrap_or_default() } else { Span::ZERO };
        let begun = trip.begun.filter(|begun| *begun <= now).unwrap_or(trip.started);
        let deadline = begun + (policy.timeout - resolve);
        // What stood still afterwards, while the host's counters were waited for, changes nothing any more.
        let ended = seen.ended.unwrap_or(now);
        let overlaps = |from: Instant| log.stalls.iter().any(|stall| stall.0 < ended && stall.1 > from);
        let begins = if seen.former > 0 { started } else { first.started };
        let (stalled, stalled_before) = (overlaps(trip.started), overlaps(begins));
        let named = resolve + resolve > policy.timeout;
        let fails = Outcome::of(code).verdict() == Verdict::Fail;
        let what = || format!("; it met {trip:?}, its time is up at {deadline:?}");
        if fails && stalled {
            return Err("but the loop stood still meanwhile".into());
        }
        let holds = match code {
            Code::Void(VoidReason::Stall) => {
                let waited = trip.begun.is_none_or(|begun| begun > now) && now >= deadline;
                if waited && !stalled_before {
                    self.coverage.hit(Section::Turn, "a script was not started in time");
                }
                stalled_before || trip.kind == CheckKind::Script && waited
            }
            Code::Void(VoidReason::Resolver) => named && now >= deadline,
            // What this host dropped may be an echo that is missing, too.
            Code::Void(VoidReason::HostDrops) => (now >= deadline || trip.kind == CheckKind::Icmp) && is_lossy(started),
            // Some of its requests were kept back until its time was up.
            Code::Void(VoidReason::Memory)
                if self.plan.packet_rates[0].is_some()
                    && now >= deadline
                    && trip.pings.len() < requests_of(&policy.check) =>
            {
                true
            }
            // Unless what came back had decided before the time was up.
            _ if code.is_timeout() && named && ended >= deadline => {
                return Err("but its name had taken most of the time".into());
            }
            _ => match trip.kind {
                CheckKind::Icmp => echoes_hold(code, trip, &policy.check, deadline, now),
                CheckKind::Tcp => knock_holds(code, trip, now),
                _ => errand_holds(code, trip, deadline, now),
            },
        };
        if !holds {
            return Err(format!("but that is not what it met{}", what()));
        }
        if fails
            && seen.tries() <= usize::from(policy.retries)
            && now + RETRY_PAUSE + policy.timeout <= started + policy.interval
        {
            return Err(format!("after {} attempts, with time for another", seen.tries()));
        }
        self.watches[watch].warned = code == Code::ProcOk && trip.met == Met::Warns;
        Ok(())
    }
}

fn requests_of(check: &Check) -> usize {
    if let Check::Icmp(check) = check { usize::from(check.count) } else { 0 }
}

fn errand_holds(code: Code, trip: &Trip, deadline: Instant, now: Instant) -> bool {
    let back = trip.back.is_some_and(|back| back <= now);
    let script = trip.kind == CheckKind::Script;
    match code {
        // Its end was not there in time; what a recalled one met meanwhile does not matter.
        Code::ProcTout => script && now >= deadline && trip.back.is_none_or(|back| back > deadline),
        Code::L7Tout => !script && now >= deadline && trip.back.is_none_or(|back| back > deadline),
        Code::ProcOk => script && back && matches!(trip.met, Met::Well | Met::Warns),
        Code::ProcErr => script && back && trip.met == Met::Ails,
        Code::L7Ok => !script && back && trip.met == Met::Well,
        Code::L7Sts => !script && back && trip.met == Met::Ails,
        Code::L7Rsp => back && trip.met == Met::Malformed,
        Code::L4Con => back && trip.met == Met::Closed,
        Code::Void(VoidReason::Unknown) => back && trip.met == Met::Vague,
        Code::Void(VoidReason::NotRunnable) => back && trip.met == Met::Unrunnable,
        Code::Void(_) => back && matches!(trip.met, Met::Ours(_)),
        _ => false,
    }
}

/// Of a half-open check. Silence is no verdict: the answer may have come unseen, and a connect has to tell.
fn knock_holds(code: Code, trip: &Trip, now: Instant) -> bool {
    let back = |wanted: fn(&Echo) -> bool| {
        trip.pings.iter().filter_map(|ping| ping.back.as_ref()).any(|(at, echo)| *at <= now && wanted(echo))
    };
    match code {
        Code::L4Ok => back(|echo| matches!(echo, Echo::Reply { .. })),
        Code::L4Con => back(|echo| matches!(echo, Echo::Refused { .. } | Echo::Error { .. })),
        Code::Void(_) => back(|echo| matches!(echo, Echo::Unsent(_))),
        _ => false,
    }
}

fn echoes_hold(code: Code, trip: &Trip, check: &Check, deadline: Instant, now: Instant) -> bool {
    let Check::Icmp(check) = check else { return false };
    let back = |wanted: fn(&Echo) -> bool, by: Instant| {
        let came = |back: &(Instant, Echo)| back.0 <= by && wanted(&back.1);
        trip.pings.iter().filter(|ping| ping.back.as_ref().is_some_and(came)).count()
    };
    let is_reply = |echo: &Echo| matches!(echo, Echo::Reply { .. });
    let count = usize::from(check.count);
    let enough = |replies: usize| (count - replies.min(count)) * 100 <= usize::from(check.max_loss) * count;
    let replies = back(is_reply, now);
    if back(is_reply, deadline) == count && now < deadline && code != Code::L3Ok {
        return false;
    }
    match code {
        Code::L3Ok => enough(replies),
        Code::L3Con => replies == 0 && back(|echo| matches!(echo, Echo::Error { .. }), now) > 0,
        Code::L3Tout => replies == 0 && now >= deadline,
        Code::L3Rsp => replies > 0 && !enough(back(is_reply, deadline)),
        Code::Void(_) => back(|echo| matches!(echo, Echo::Unsent(_)), now) > 0,
        _ => false,
    }
}
