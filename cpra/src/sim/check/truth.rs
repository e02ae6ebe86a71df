//! Each outcome against what its attempts truly met.

use super::{Answered, Checker, Stepped, Watch};
use crate::domain::monitor::CheckKind;
use crate::domain::{Check, Code, Outcome, Verdict, VoidReason};
use crate::sim::coverage::Section;
use crate::sim::host::SimHost;
use crate::sim::network::Fate;
use crate::sim::ring::{Attempt, Observed, SimRing};
use crate::units::limits::RETRY_PAUSE;
use crate::units::{Instant, Span};
use crate::world::Place;

/// What decides an outcome, beside the attempt itself.
struct Circumstances {
    now: Instant,
    deadline: Instant,
    /// The name took most of the time.
    named: bool,
    /// The loop stood still during the last attempt; during any of the check's.
    stalled: bool,
    stalled_before: bool,
    /// This host lost packets, or may have, meanwhile.
    lossy: bool,
    /// It lost one of this check's.
    lost: bool,
}

/// Whether nothing more is to come of an attempt.
fn is_over(kind: CheckKind, attempt: &Attempt) -> bool {
    attempt.left.is_some() || attempt.settled_seen || kind == CheckKind::Tcp && attempt.connected_seen
}

/// Whether an attempt that ended badly costs no retry: on a kept connection only an unexpected answer is a verdict, or
/// an expected one that was too slow.
fn is_free(check: &Check, attempt: &Attempt) -> bool {
    let answered = matches!(attempt.fate, Fate::Answered(status) if !expects(check, status) || attempt.settled_seen);
    let in_time = attempt.settled.is_some_and(|settled| attempt.left.is_none_or(|left| settled <= left));
    attempt.reused && !(answered && in_time)
}

fn expects(check: &Check, status: u16) -> bool {
    match check {
        Check::Tcp(_) => true,
        Check::Http(http) => http.expected.contains(status),
        Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => unreachable!("these meet no sockets"),
    }
}

/// When the attempt's fate could be known, if it ever could.
fn decided(kind: CheckKind, attempt: &Attempt) -> Option<Instant> {
    match (kind, attempt.fate) {
        (CheckKind::Tcp, Fate::Ours(..)) => attempt.connected.or(attempt.settled),
        (CheckKind::Tcp, _) if attempt.connected.is_some() => attempt.connected,
        (CheckKind::Tcp | CheckKind::Http, _) => attempt.settled,
        (CheckKind::Icmp | CheckKind::Script | CheckKind::Dns | CheckKind::Push, _) => None,
    }
}

impl Checker {
    /// What went out on the wire after a step.
    pub(in crate::sim) fn wire(&mut self, shard: u8, observed: &[Observed], ring: &SimRing, now: Instant) {
        for &event in observed {
            match event {
                Observed::Began(number) => self.began(shard, number, ring, now),
                Observed::Asked(_) => {}
                Observed::Lost(_) => self.coverage.hit(Section::Turn, "a packet was lost by this host"),
            }
        }
        if let Some(violation) = ring.violations().first() {
            self.fail("ring contract", now, violation.clone());
        }
    }

    fn began(&mut self, shard: u8, number: usize, ring: &SimRing, now: Instant) {
        let attempt = &ring.attempts()[number];
        if attempt.reused {
            self.coverage.hit(Section::Turn, "a connection was reused");
        }
        let Some(candidates) = self.by_address.get(&attempt.address) else {
            let text = format!("connected to {}, where no monitor looks", attempt.address);
            return self.fail("truth", now, text);
        };
        let &[watch] = candidates.as_slice() else { return };
        let who = self.who(watch);
        let log = &self.shards[usize::from(shard)];
        let check = &self.planned(watch).policy.check;
        let retries = usize::from(self.planned(watch).policy.retries);
        let seen = &self.watches[watch];
        if seen.id.shard() != shard {
            return self.fail("truth", now, format!("{who} was checked by shard {shard}"));
        }
        if let Some(name) = &seen.name
            && seen.attempts.is_empty()
            && let Some(started) = seen.check_started
            && !log
                .located
                .get(name)
                .is_some_and(|(addresses, until)| *until > started && addresses.contains(&attempt.address.ip()))
        {
            let text = format!("{who} went to {}, which is not where {name} is (any more)", attempt.address);
            return self.fail("truth", now, text);
        }
        if seen.place != Place::Flight && seen.switched_at == Some(now) {
            // It went out, and the word came within the same step.
            return;
        }
        if seen.place != Place::Flight {
            let text = format!("{who} went on the wire while its place was {:?}", seen.place);
            return self.fail("places", now, text);
        }
        let before = seen.attempts_by(false);
        let open = before.iter().find(|&&earlier| !is_over(seen.kind, &ring.attempts()[earlier]));
        if open.is_some() {
            return self.fail("second check", now, format!("{who} has two attempts on the wire at a time"));
        }
        let free = before.iter().filter(|&&earlier| is_free(check, &ring.attempts()[earlier])).count();
        // Half a connection that met silence is asked once more by a whole one.
        let doubted = usize::from(check.is_half_open());
        if seen.tries() > retries + free.min(1) + doubted {
            let text = format!("{who} got attempt {} with {retries} retries", seen.tries() + 1);
            return self.fail("second check", now, text);
        }
        if let Some(&before) = before.last() {
            let before = &ring.attempts()[before];
            let turn = if is_free(check, before) {
                "a reused connection failed and a fresh one was tried"
            } else {
                let ended = [before.left, decided(seen.kind, before)].into_iter().flatten().min().unwrap_or(now);
                if now < ended + RETRY_PAUSE {
                    let text = format!("{who} was tried again {} after the attempt before", now.since(ended));
                    return self.fail("never early", now, text);
                }
                "an attempt was retried"
            };
            self.coverage.hit(Section::Turn, turn);
        }
        self.note_attempt(watch, number, false);
    }

    /// A check was judged: was it right?
    pub(super) fn judged(&mut self, step: &Stepped<'_>, watch: usize, code: Code) {
        let &Stepped { shard, now, ring, host, driver, .. } = step;
        self.coverage.hit(Section::Code, code.as_str());
        if code.is_timeout() {
            self.coverage.hit(Section::Turn, "a timeout was judged");
        }
        if self.planned(watch).shared {
            return;
        }
        let by_name = matches!(code, Code::L4Dns | Code::Void(VoidReason::Resolver));
        if self.watches[watch].travels && (!by_name || !self.watches[watch].attempts.is_empty()) {
            let read = |started: Instant| {
                let log = &self.shards[usize::from(shard)];
                log.readings.iter().rev().find(|read| **read <= started).copied().unwrap_or(self.born)
            };
            let since = read(self.watches[watch].check_started.unwrap_or(now));
            let lossy = host.lossy(since, now);
            if let Err(why) = self.weigh_trip(watch, code, driver, now, |_| lossy) {
                self.fail("truth", now, format!("{} was judged {code}: {why}", self.who(watch)));
            }
            return;
        }
        if let Err(why) = self.weigh(shard, watch, code, ring, host, now) {
            let seen = &self.watches[watch];
            let attempts: Vec<&Attempt> = seen.attempts.iter().map(|&number| &ring.attempts()[number]).collect();
            let text = format!("{} was judged {code}: {why}; what it met: {attempts:?}", self.who(watch));
            self.fail("truth", now, text);
        }
    }

    fn weigh(
        &mut self,
        shard: u8,
        watch: usize,
        code: Code,
        ring: &SimRing,
        host: &SimHost,
        now: Instant,
    ) -> Result<(), String> {
        let policy = &self.plan.monitors[self.watches[watch].planned].policy;
        let log = &self.shards[usize::from(shard)];
        let seen = &self.watches[watch];
        let started = seen.check_started.ok_or("without having been started")?;
        // A name that took most of the time leaves too little to blame the target.
        let most = seen.tries() == 1 && seen.resolve.is_some_and(|resolve| resolve + resolve > policy.timeout);
        // So does one without which the answer would have been soon enough.
        let strict = policy.max_latency.is_some_and(|most| most.fails);
        let on_the_wire = (most || strict) && !seen.attempts.is_empty();
        if code == Code::L4Dns || code == Code::Void(VoidReason::Resolver) && !on_the_wire {
            return self.weigh_name(watch, code);
        }
        let Some(&last) = seen.attempts.last() else { return Err("without having been on the wire".into()) };
        let attempt = &ring.attempts()[last];
        let first = if seen.former > 0 { started } else { ring.attempts()[seen.attempts[0]].started };
        // The name's resolution is part of the first attempt; a wait for a slot is not.
        let resolve = if seen.tries() == 1 { seen.resolve.unwrap_or_default() } else { Span::ZERO };
        let ended = attempt.left.unwrap_or(now);
        let overlaps = |from: Instant| log.stalls.iter().any(|stall| stall.0 < ended && stall.1 > from);
        let read = log.readings.iter().rev().find(|read| **read <= started).copied().unwrap_or(self.born);
        let circumstances = Circumstances {
            now,
            deadline: attempt.started + (policy.timeout - resolve),
            named: most,
            stalled: overlaps(attempt.started),
            stalled_before: overlaps(first),
            lossy: host.lossy(read, now),
            lost: seen.attempts.iter().any(|&number| ring.attempts()[number].lost.is_some()),
        };
        if code == Code::Void(VoidReason::Resolver) {
            self.coverage.hit(Section::Turn, "a name took most of the time");
        }
        if circumstances.stalled {
            self.coverage.hit(Section::Turn, "a stall overlapped a check");
        }
        // What is beyond the limit is slow, unless this process was: then nobody knows.
        let own = now.since(attempt.started);
        let took = own + resolve;
        let slow = policy.max_latency.filter(|most| took > most.limit && !circumstances.stalled_before);
        let found = match (code, slow) {
            (Code::Slow, Some(most)) if most.fails && own > most.limit => well(seen.kind),
            (Code::Void(VoidReason::Resolver), Some(most))
                if most.fails && own <= most.limit && now < circumstances.deadline =>
            {
                well(seen.kind)
            }
            (Code::L4Ok | Code::L7Ok, Some(most)) if most.fails => return Err(format!("but it took {took}")),
            (code, _) => code,
        };
        is_true(found, seen, attempt, &policy.check, &circumstances)?;
        let warned = slow.is_some_and(|most| !most.fails) && matches!(code, Code::L4Ok | Code::L7Ok);
        let paid = seen.attempts.iter().filter(|&&number| !is_free(&policy.check, &ring.attempts()[number])).count();
        let tries = seen.former + paid;
        let more = tries <= usize::from(policy.retries);
        if Outcome::of(code).verdict() == Verdict::Fail
            && more
            && now + RETRY_PAUSE + policy.timeout <= started + policy.interval
        {
            return Err(format!("after {tries} attempts, with time for another"));
        }
        self.watches[watch].warned = warned;
        Ok(())
    }

    /// Outcomes without an attempt: all that is known is what the resolver said.
    fn weigh_name(&self, watch: usize, code: Code) -> Result<(), String> {
        let seen = &self.watches[watch];
        seen.name.as_ref().ok_or("but it has an address")?;
        if !seen.attempts.is_empty() {
            return Err("after it had been on the wire".into());
        }
        let answered = seen.answered.as_ref();
        let late = seen.resolve.is_some_and(|resolve| resolve >= self.planned(watch).policy.timeout);
        match (code, answered) {
            (Code::L4Dns, Some(Answered::NotFound)) | (Code::Void(_), Some(Answered::Failed)) => Ok(()),
            (Code::Void(_), _) if late => Ok(()),
            (_, answered) => Err(format!("but the resolver said {answered:?}")),
        }
    }
}

/// The code of a check that found all well.
const fn well(kind: CheckKind) -> Code {
    match kind {
        CheckKind::Tcp => Code::L4Ok,
        _ => Code::L7Ok,
    }
}

/// Whether `code` is a true account of the check's last attempt.
fn is_true(
    code: Code,
    seen: &Watch,
    attempt: &Attempt,
    check: &Check,
    circumstances: &Circumstances,
) -> Result<(), String> {
    let &Circumstances { now, deadline, named, stalled, stalled_before, lossy, lost } = circumstances;
    let decided = decided(seen.kind, attempt);
    let by = |moment: Option<Instant>, limit: Instant| moment.is_some_and(|moment| moment <= limit);
    let tcp = seen.kind == CheckKind::Tcp;
    let well = match attempt.fate {
        Fate::Answered(status) => expects(check, status),
        _ => tcp && attempt.connected.is_some(),
    };
    let fails = Outcome::of(code).verdict() == Verdict::Fail;
    if fails && stalled {
        return Err("but the loop stood still meanwhile".into());
    }
    if fails && attempt.reused && code != Code::L7Sts {
        return Err("but a failure on a kept connection is no verdict".into());
    }
    if well && by(decided, deadline) && !matches!(code, Code::L4Ok | Code::L7Ok) {
        return Err(format!("but the answer was there at {decided:?}, before the deadline {deadline:?}"));
    }
    let holds = match code {
        Code::L4Ok => tcp && well && by(decided, now),
        Code::L7Ok => !tcp && well && by(decided, now),
        Code::L7Sts => {
            !tcp && matches!(attempt.fate, Fate::Answered(status) if !expects(check, status)) && by(decided, now)
        }
        Code::L4Con => {
            matches!(attempt.fate, Fate::Refused | Fate::Slammed) && attempt.connected.is_none() && by(decided, now)
        }
        Code::L7Rsp => {
            // A reset and an error of our own may come together; the first to be heard of decides.
            let both = matches!(attempt.fate, Fate::Ours(..)) && attempt.broken;
            !tcp && (both || matches!(attempt.fate, Fate::Broken(_) | Fate::Closed | Fate::Slammed))
        }
        Code::L4Tout if attempt.fate == Fate::GivenUp && by(decided, now) => true,
        Code::L4Tout | Code::L7Tout => {
            if lost {
                return Err("but this host had lost a packet of it".into());
            }
            if named {
                return Err("but its name had taken most of the time".into());
            }
            if now < deadline {
                return Err(format!("but its time was up only at {deadline:?}"));
            }
            let connected = attempt.reused || by(attempt.connected, deadline);
            !by(decided, deadline) && (code == Code::L7Tout || !connected)
        }
        Code::Void(VoidReason::Resolver) => named && now >= deadline && !by(decided, deadline),
        Code::Void(VoidReason::Stall) => stalled_before,
        Code::Void(VoidReason::HostDrops) => lossy && (now >= deadline || attempt.fate == Fate::GivenUp),
        Code::Void(_) => matches!(attempt.fate, Fate::Ours(..)) && by(decided, now),
        Code::L4Dns | Code::L6Ok | Code::L6Tout | Code::L6Rsp | Code::L6Cert | Code::Slow => false,
        Code::L3Ok | Code::L3Con | Code::L3Tout | Code::L3Rsp => false,
        Code::ProcOk | Code::ProcErr | Code::ProcTout | Code::PushOk | Code::PushErr | Code::PushTout => false,
    };
    if holds { Ok(()) } else { Err("but that is not what it met".into()) }
}
