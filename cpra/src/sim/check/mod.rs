//! The checkers: what must hold at every step, judged by what the simulated world knows to be true.
//!
//! | file | what it watches | by what |
//! | --- | --- | --- |
//! | [`places`] | one place per monitor, never early, nobody forgotten | the wire, the clock |
//! | [`truth`] | each outcome against what the attempt met | the network's own record |
//! | [`trips`] | the same for checks that need no socket | the record of who was sent off |
//! | [`calls`] | jobs that call in, and those that do not | the calls as they arrived |
//! | [`streak`] | each transition against the outcomes before it | a model of its own |
//! | [`notices`] | each notice once, raise before resolve, nothing missing, over restarts | transitions as the desk heard them, and what arrived |
//! | [`leaving`] | commits before deliveries, one after the other, at the destinations' pace | records, and what the lane says |
//! | [`verdicts`] | what people were told in the end against what the targets did | targets and arrivals only |
//!
//! None of them believes the desk's own records or the shard's own counters without a second witness.

mod calls;
mod leaving;
mod notices;
mod places;
mod streak;
mod trips;
mod truth;
mod verdicts;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::calls::Calls;
pub(super) use self::notices::Notices;
pub(super) use self::places::Stepped;
use self::streak::Streak;
use super::coverage::{Coverage, Section};
use super::plan::{Plan, Planned};
use crate::desk::protocol::Stored;
use crate::domain::monitor::CheckKind;
use crate::domain::{Code, HostRef};
use crate::shard::protocol::{PACKETS, Resolution};
use crate::units::{Instant, MonitorId, Span};
use crate::world::{Catalog, Place};

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which checker.
    pub checker: &'static str,
    pub at: Instant,
    /// One sentence.
    pub text: String,
}

/// What the resolver last told a shard about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Found { addresses: Vec<IpAddr>, ttl: Span },
    NotFound,
    Failed,
}

impl From<&Resolution> for Answered {
    fn from(resolution: &Resolution) -> Self {
        match resolution {
            Resolution::Found { addresses, ttl } => Self::Found { addresses: addresses.clone(), ttl: *ttl },
            Resolution::NotFound => Self::NotFound,
            Resolution::Failed(_) => Self::Failed,
        }
    }
}

/// One monitor, as seen from outside.
#[derive(Debug)]
struct Watch {
    id: MonitorId,
    planned: usize,
    kind: CheckKind,
    name: Option<Box<str>>,
    /// As its shard has been told.
    enabled: bool,
    epoch: u8,
    /// Told to be watched, or not to be.
    switched_at: Option<Instant>,
    /// Told to check at once: in this step, or and it was on the wheel.
    asked_at: Option<Instant>,
    asked_now: bool,
    place: Place,
    /// The last outcome, and the due time beside it: a judgement changes one or the other.
    last: Option<(Code, Instant)>,
    shown_due: Option<Instant>,
    /// The due time of the coming check, or of the current one.
    due: Option<Instant>,
    check_started: Option<Instant>,
    /// How long the name took in this check.
    resolve: Option<Span>,
    /// What the resolver said to this check.
    answered: Option<Answered>,
    /// The current check's, by their numbers in the ring, or among the trips.
    attempts: Vec<usize>,
    /// Whether those are trips; and how many there were before them that went the other way. Only a half-open check has
    /// both.
    travels: bool,
    former: usize,
    /// When the last of them ended, if its judgement waits for something else.
    ended: Option<Instant>,
    /// The last sign of being looked after.
    alive: Instant,
    streak: Streak,
    void_since: Option<Instant>,
    /// Failures in a row: now, and at most so far.
    fails: u8,
    most_fails: u8,
    /// Whether the last outcome was a warning.
    warned: bool,
    /// Warned as often in a row as its threshold says, at least once.
    was_degraded: bool,
    calls: Calls,
}

impl Watch {
    /// The check's attempts are forgotten.
    fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.former = 0;
    }

    /// The attempts of the way that the last one went. None where that was the other one.
    fn attempts_by(&self, travels: bool) -> &[usize] {
        if self.travels == travels { &self.attempts } else { &[] }
    }

    /// Attempts of the check so far, all of them.
    fn tries(&self) -> usize {
        self.former + self.attempts.len()
    }
}

/// What is known of one shard.
#[derive(Debug)]
struct ShardLog {
    /// Its first monitor among all.
    first: usize,
    len: usize,
    last_step: Instant,
    in_flight: usize,
    /// Gaps of the loop that were longer than a stall.
    stalls: Vec<(Instant, Instant)>,
    /// Gaps in which calls of jobs may have been left unread.
    stood_still: Vec<(Instant, Instant)>,
    /// When the host's counters were read.
    readings: Vec<Instant>,
    /// Nobody can be blamed for not having been checked before.
    excused: Instant,
    desk_full: bool,
    draining: bool,
    /// Until when the last address of a name holds.
    located: BTreeMap<Box<str>, (Vec<IpAddr>, Instant)>,
    missed: u64,
    overdue: u64,
    held: u64,
    /// When the packets of the last second left, by kind.
    packets: [VecDeque<Instant>; PACKETS.len()],
}

#[derive(Debug)]
pub(super) struct Checker {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    watches: Vec<Watch>,
    shards: Vec<ShardLog>,
    by_address: BTreeMap<SocketAddr, Vec<usize>>,
    /// When the process started.
    born: Instant,
    pub(super) notices: Notices,
    pub(super) coverage: Coverage,
    /// How long any monitor has been impossible to judge at a stretch.
    longest_void_ever: Span,
    failure: Option<Failure>,
}

impl Checker {
    pub(super) fn new(plan: &Arc<Plan>, catalog: &Arc<Catalog>, stored: &Stored) -> Self {
        let mut checker = Self {
            plan: Arc::clone(plan),
            catalog: Arc::clone(catalog),
            watches: Vec::new(),
            shards: Vec::new(),
            by_address: BTreeMap::new(),
            born: plan.start,
            notices: Notices::new(plan, catalog),
            coverage: Coverage::default(),
            longest_void_ever: Span::ZERO,
            failure: None,
        };
        checker.start(stored, plan.start);
        checker
    }

    /// A packet leaves, of the `kind`th of [`PACKETS`]: no second may have more than the bound, wherever it begins.
    pub(super) fn packet_left(&mut self, shard: u8, kind: usize, now: Instant) {
        const SECOND: Span = Span::from_secs(1);
        let rates = self.plan.rates();
        let most = [rates.echo, rates.syn][kind] as usize;
        let packets = &mut self.shards[usize::from(shard)].packets[kind];
        packets.push_back(now);
        while packets.front().is_some_and(|first| *first + SECOND <= now) {
            packets.pop_front();
        }
        let count = packets.len();
        if count > most {
            self.fail("bounds", now, format!("{count} {} packets in a second, at most {most}", PACKETS[kind]));
        }
    }

    /// A process starts: nothing is known of anyone but what the store held.
    pub(super) fn start(&mut self, stored: &Stored, now: Instant) {
        self.born = now;
        // What a target did, people may hear of from the next process.
        let blamed: Vec<_> = self.watches.iter().map(|seen| (seen.most_fails, seen.was_degraded)).collect();
        self.watches.clear();
        self.shards.clear();
        self.by_address.clear();
        let (plan, catalog) = (Arc::clone(&self.plan), Arc::clone(&self.catalog));
        for shard in 0..catalog.shards() {
            let roster = catalog.roster(shard);
            let log = ShardLog {
                first: self.watches.len(),
                len: roster.len(),
                last_step: now,
                in_flight: 0,
                stalls: Vec::new(),
                stood_still: Vec::new(),
                readings: Vec::new(),
                excused: now,
                desk_full: false,
                draining: false,
                located: BTreeMap::new(),
                missed: 0,
                overdue: 0,
                held: 0,
                packets: Default::default(),
            };
            self.shards.push(log);
            for index in 0..roster.len() as u32 {
                let id = MonitorId::new(shard, index);
                let position = plan.monitors.iter().position(|planned| *planned.name == *roster.name(index));
                let planned = position.expect("the catalog was made of the plan");
                let target = catalog.target(id);
                for address in &plan.monitors[planned].addresses {
                    self.by_address.entry(*address).or_default().push(self.watches.len());
                }
                let enabled = roster.is_enabled(index);
                self.watches.push(Watch {
                    id,
                    planned,
                    kind: plan.monitors[planned].policy.check.kind(),
                    name: if let HostRef::Name(name) = target.host { Some(name.into()) } else { None },
                    enabled,
                    epoch: 0,
                    switched_at: None,
                    asked_at: None,
                    asked_now: false,
                    place: Place::Nowhere,
                    last: None,
                    shown_due: None,
                    due: None,
                    check_started: None,
                    resolve: None,
                    answered: None,
                    attempts: Vec::new(),
                    travels: false,
                    former: 0,
                    ended: None,
                    alive: now,
                    streak: Streak::new(enabled),
                    void_since: None,
                    fails: 0,
                    most_fails: blamed.get(self.watches.len()).map_or(0, |(fails, _)| *fails),
                    warned: false,
                    was_degraded: blamed.get(self.watches.len()).is_some_and(|(_, degraded)| *degraded),
                    calls: Calls::default(),
                });
                self.awaits_call(self.watches.len() - 1, now);
            }
        }
        self.notices.start(stored, now, &mut self.coverage);
    }

    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.failure.take().or_else(|| self.notices.failure.take())
    }

    pub(super) fn fail(&mut self, checker: &'static str, at: Instant, text: String) {
        self.failure.get_or_insert(Failure { checker, at, text });
    }

    /// The process stands still until then: nobody can be blamed for what was not done meanwhile.
    pub(super) fn excuse(&mut self, until: Instant) {
        for log in &mut self.shards {
            log.excused = log.excused.max(until);
        }
    }

    /// An attempt begins: the next one of its way, or the first after those that went the other way.
    fn note_attempt(&mut self, watch: usize, number: usize, travels: bool) {
        let seen = &mut self.watches[watch];
        if std::mem::replace(&mut seen.travels, travels) != travels {
            seen.former += seen.attempts.len();
            if !seen.attempts.is_empty() && !travels {
                self.coverage.hit(Section::Turn, "a half-open check was tried again by a connect");
            }
            seen.attempts.clear();
        }
        seen.attempts.push(number);
    }

    fn planned(&self, watch: usize) -> &Planned {
        &self.plan.monitors[self.watches[watch].planned]
    }

    /// Who a failure is about.
    fn who(&self, watch: usize) -> String {
        format!("{} ({})", self.planned(watch).name, self.watches[watch].id)
    }
}
