//! The drivers of errands and echo requests: programs, name servers and hosts that answer, err, or say nothing.
//!
//! What a [`Trip`] truly met is kept; the checkers judge by it. An errand is answered exactly once, also when it was
//! recalled; an echo request whenever its host sees fit: late, twice, or never.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;

use super::network::{Behaviour, Network, varied};
use super::ring::Weather;
use crate::domain::Check;
use crate::domain::monitor::CheckKind;
use crate::probe::errand::{DnsAnswer, DnsTrouble, Echo, Errand, ErrandEnd, Exit};
use crate::ring::Errno;
use crate::shard::Event;
use crate::units::{Generation, Instant, Slot, Span};

/// What an errand met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Well,
    /// Works, says the program, but...
    Warns,
    /// The program or the server says no.
    Ails,
    /// The program does not know.
    Vague,
    /// The program cannot be run.
    Unrunnable,
    /// An answer that is none.
    Malformed,
    /// The port is closed.
    Closed,
    /// Nothing, for ever.
    Silent,
    /// This host's own fault.
    Ours(Errno),
}

/// One echo request, or SYN, of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) sequence: u16,
    /// What comes back first, and when it is there; `None`: nothing ever.
    pub(super) back: Option<(Instant, Echo)>,
}

/// One attempt.
#[derive(Clone, Debug)]
pub(super) struct Trip {
    pub(super) shard: u8,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) kind: CheckKind,
    /// Where it went; a script has none.
    pub(super) address: Option<SocketAddr>,
    /// Which script, by the number in its arguments.
    pub(super) script: Option<usize>,
    pub(super) started: Instant,
    /// When the program was started: its time counts from then. A question has begun as soon as it was asked.
    pub(super) begun: Option<Instant>,
    pub(super) met: Met,
    /// When its end is there.
    pub(super) back: Option<Instant>,
    pub(super) pings: Vec<Ping>,
}

/// Something on its way to a shard.
#[derive(Debug)]
enum Letter {
    Begun(usize),
    Returned(usize, ErrandEnd),
    Echoed { trip: usize, sequence: u16, echo: Echo },
}

#[derive(Debug)]
pub(super) struct SimDriver {
    rng: Rng,
    network: Network,
    weather: Weather,
    trips: Vec<Trip>,
    /// The first trip of this process: slots and generations begin anew with each.
    born: usize,
    /// Errands that have not returned, by shard and slot.
    away: BTreeMap<(u8, u32), usize>,
    letters: BTreeMap<(Instant, u64), Letter>,
    sent: u64,
    /// Trips that have begun since they were last asked for.
    begun: Vec<usize>,
    violations: Vec<String>,
    /// Nobody sees what answers SYNs.
    blind: bool,
    /// What each shard heard last of that, and when: whether half-open checks can be had.
    told: BTreeMap<u8, (bool, Instant)>,
    pub(super) recalled: u64,
    pub(super) echoed_late: u64,
    pub(super) syns_again: u64,
    pub(super) unseen: u64,
}

/// The argument of a simulated script that says which it is.
pub(super) fn script_number(argv: &[Box<str>]) -> Option<usize> {
    argv.last()?.parse().ok()
}

/// Where the life of a script is kept among the targets.
pub(super) fn script_address(number: usize) -> SocketAddr {
    let low = number as u16;
    SocketAddr::from(([0, 0, (low >> 8) as u8, low as u8], 1))
}

impl SimDriver {
    pub(super) fn new(network: Network, seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            network,
            weather: Weather::default(),
            trips: Vec::new(),
            born: 0,
            away: BTreeMap::new(),
            letters: BTreeMap::new(),
            sent: 0,
            begun: Vec::new(),
            violations: Vec::new(),
            blind: false,
            told: BTreeMap::new(),
            recalled: 0,
            echoed_late: 0,
            syns_again: 0,
            unseen: 0,
        }
    }

    pub(super) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(super) fn trips(&self) -> &[Trip] {
        &self.trips
    }

    /// Trips that have begun since the last call.
    pub(super) fn begun(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.begun)
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A socket operation on a slot: it must have no errand.
    pub(super) fn socket_used(&mut self, shard: u8, slot: Slot) {
        if self.away.contains_key(&(shard, slot.0)) {
            self.violations.push(format!("the socket of slot {} is used while its errand is away", slot.0));
        }
    }

    pub(super) fn send(&mut self, shard: u8, slot: Slot, generation: Generation, errand: &Errand, now: Instant) {
        let (kind, address, script) = match errand {
            Errand::Script(policy) => {
                let Check::Script(check) = &policy.check else {
                    return self.violations.push("a script that is none was sent".into());
                };
                (CheckKind::Script, None, script_number(&check.argv))
            }
            Errand::Dns { server, .. } => (CheckKind::Dns, Some(*server), None),
        };
        if self.away.contains_key(&(shard, slot.0)) {
            return self.violations.push(format!("slot {} has two errands at a time", slot.0));
        }
        let life = address.or(script.map(script_address));
        let (met, after) = self.meet(kind, life, now);
        let begun = match (kind, met) {
            (CheckKind::Script, Met::Ours(_) | Met::Unrunnable) => None,
            // The thread that starts programs has others to start.
            (CheckKind::Script, _) if self.rng.u8(0..48) == 0 => {
                Some(now + Span::from_micros(self.rng.u64(..3_000_000)))
            }
            (CheckKind::Script, _) => Some(now + Span::from_micros(self.rng.u64(5..2_000))),
            _ => Some(now),
        };
        let back = after.map(|after| begun.unwrap_or(now) + after);
        let number = self.trips.len();
        let (started, pings) = (now, Vec::new());
        let trip = Trip { shard, slot, generation, kind, address, script, started, begun, met, back, pings };
        let end = self.end(kind, met);
        self.trips.push(trip);
        self.begun.push(number);
        self.away.insert((shard, slot.0), number);
        if let Some(begun) = begun.filter(|_| kind == CheckKind::Script) {
            self.post(begun, Letter::Begun(number));
        }
        if let Some(back) = back {
            self.post(back, Letter::Returned(number, end));
        }
    }

    /// What an attempt meets that goes out now, and how long until its end is there.
    fn meet(&mut self, kind: CheckKind, life: Option<SocketAddr>, now: Instant) -> (Met, Option<Span>) {
        if let Some((errno, _, share)) = self.weather.connect
            && self.rng.u8(..) < share
        {
            return (Met::Ours(errno), Some(Span::from_micros(self.rng.u64(1..200))));
        }
        let Some(target) = life.and_then(|address| self.network.target(&address)) else {
            self.violations.push(format!("an errand went to {life:?}, where nobody is"));
            return (Met::Silent, None);
        };
        let script = kind == CheckKind::Script;
        let usual = varied(target.latency, &mut self.rng);
        let met = match target.behaviour(now) {
            Behaviour::Up => Met::Well,
            Behaviour::Pieces(_) if script => Met::Warns,
            Behaviour::HalfAlive => {
                let any = [Met::Well, Met::Ails, Met::Silent, Met::Vague, Met::Unrunnable, Met::Warns];
                let any = if script { &any[..] } else { &any[..3] };
                any[self.rng.usize(0..any.len())]
            }
            Behaviour::Blackhole => Met::Silent,
            Behaviour::Unreachable if !script => Met::Closed,
            Behaviour::Slams if !script => Met::Malformed,
            _ => Met::Ails,
        };
        (met, (met != Met::Silent).then_some(usual))
    }

    fn end(&mut self, kind: CheckKind, met: Met) -> ErrandEnd {
        let script = |status| ErrandEnd::Exited { status, output: "10.9.9.9 said\u{7}so".into() };
        let answer = |rcode: &str, records: &[&str]| {
            let records = records.iter().map(|record| (*record).into()).collect();
            ErrandEnd::Answered(DnsAnswer { rcode: rcode.into(), records })
        };
        match (met, kind) {
            (Met::Ours(errno), _) => ErrandEnd::Refused(errno),
            (Met::Well, CheckKind::Script) => script(Exit::Code(0)),
            (Met::Warns, _) => script(Exit::Code(1)),
            (Met::Vague, _) => script(Exit::Code(3)),
            (Met::Ails, CheckKind::Script) if self.rng.bool() => script(Exit::Signal(11)),
            (Met::Ails, CheckKind::Script) => script(Exit::Code([2, 4, 127, 255][self.rng.usize(0..4)])),
            (Met::Unrunnable, _) => ErrandEnd::NotStarted(Errno::EACCES),
            (Met::Well, _) => answer("NOERROR", &["192.0.2.1"]),
            (Met::Ails, _) => answer(["NXDOMAIN", "SERVFAIL", "REFUSED"][self.rng.usize(0..3)], &[]),
            (Met::Malformed, _) => match self.rng.u8(0..3) {
                0 => ErrandEnd::Unanswered(DnsTrouble::Malformed("not DNS".into())),
                1 => answer("NOERROR", &[]),
                _ => answer("NOERROR", &["192.0.2.9"]),
            },
            (Met::Closed, _) => ErrandEnd::Unanswered(DnsTrouble::Failed(Errno::ECONNREFUSED)),
            (Met::Silent, _) => ErrandEnd::Recalled,
        }
    }

    /// The shard has lost interest. Saying it twice, or after the end, is harmless.
    pub(super) fn recall(&mut self, shard: u8, slot: Slot, generation: Generation, now: Instant) {
        let Some(&number) = self.away.get(&(shard, slot.0)) else { return };
        if self.trips[number].generation != generation {
            self.violations.push(format!("slot {} recalls what it has not sent", slot.0));
        }
        self.recalled += 1;
        // A program that does not heed its TERM takes a while to be killed.
        let after = Span::from_micros(if self.rng.u8(0..8) == 0 {
            self.rng.u64(20_000..400_000)
        } else {
            self.rng.u64(20..5_000)
        });
        if self.trips[number].back.is_none_or(|back| back > now + after) {
            let is_stale = |letter: &Letter| match letter {
                Letter::Begun(other) | Letter::Returned(other, _) => *other == number,
                Letter::Echoed { .. } => false,
            };
            self.letters.retain(|_, letter| !is_stale(letter));
            if self.trips[number].begun.is_some_and(|begun| begun > now) {
                self.trips[number].begun = None;
            }
            self.trips[number].back = Some(now + after);
            self.post(now + after, Letter::Returned(number, ErrandEnd::Recalled));
        }
    }

    pub(super) fn ping(
        &mut self,
        shard: u8,
        slot: Slot,
        generation: Generation,
        address: IpAddr,
        sequence: u16,
        now: Instant,
    ) {
        let address = SocketAddr::new(address, 0);
        let trip = self.trip_of(CheckKind::Icmp, (shard, slot, generation), address, now);
        if self.trips[trip].pings.iter().any(|ping| ping.sequence == sequence) {
            self.violations.push(format!("slot {} sends the echo request {sequence} twice", slot.0));
        }
        let back = self.echo(address, now);
        self.await_echo(trip, sequence, back);
    }

    /// The trip that a request is the first of, or goes on with.
    fn trip_of(
        &mut self,
        kind: CheckKind,
        (shard, slot, generation): (u8, Slot, Generation),
        address: SocketAddr,
        now: Instant,
    ) -> usize {
        let current = self.trips[self.born..]
            .iter()
            .rposition(|trip| (trip.shard, trip.slot, trip.generation, trip.kind) == (shard, slot, generation, kind));
        current.map(|position| self.born + position).unwrap_or_else(|| {
            self.trips.push(Trip {
                shard,
                slot,
                generation,
                kind,
                address: Some(address),
                script: None,
                started: now,
                begun: Some(now),
                met: Met::Silent,
                back: None,
                pings: Vec::new(),
            });
            self.begun.push(self.trips.len() - 1);
            self.trips.len() - 1
        })
    }

    fn await_echo(&mut self, trip: usize, sequence: u16, back: Option<(Instant, Echo)>) {
        self.trips[trip].pings.push(Ping { sequence, back });
        let Some((at, echo)) = back else { return };
        self.post(at, Letter::Echoed { trip, sequence, echo });
        if self.rng.u8(0..16) == 0 {
            // The network doubled it, or it comes when nobody waits any more.
            let again = at + Span::from_micros(self.rng.u64(1..3_000_000));
            self.echoed_late += 1;
            self.post(again, Letter::Echoed { trip, sequence, echo });
        }
    }

    /// Whether anybody sees what answers SYNs from now on; answers what held before.
    pub(super) fn set_blind(&mut self, blind: bool) -> bool {
        std::mem::replace(&mut self.blind, blind)
    }

    pub(super) const fn is_blind(&self) -> bool {
        self.blind
    }

    /// A shard hears whether half-open checks can be had.
    pub(super) fn told(&mut self, shard: u8, can: bool, now: Instant) {
        self.told.insert(shard, (can, now));
    }

    pub(super) fn syn(
        &mut self,
        shard: u8,
        slot: Slot,
        generation: Generation,
        address: SocketAddr,
        attempt: u16,
        now: Instant,
    ) {
        let trip = self.trip_of(CheckKind::Tcp, (shard, slot, generation), address, now);
        // What was in the air when the word came goes on.
        if attempt == 0 && !self.told.get(&shard).is_some_and(|&(can, since)| can || since == now) {
            self.violations.push(format!("slot {} sends a SYN whose answer nobody would see", slot.0));
        }
        if usize::from(attempt) != self.trips[trip].pings.len() {
            self.violations.push(format!("slot {} sends SYN {attempt} out of turn", slot.0));
        }
        self.syns_again += u64::from(attempt > 0);
        let back = self.knock(address, now);
        self.await_echo(trip, attempt, back);
    }

    /// What a SYN meets.
    fn knock(&mut self, address: SocketAddr, now: Instant) -> Option<(Instant, Echo)> {
        if let Some((errno, _, share)) = self.weather.connect
            && self.rng.u8(..) < share
        {
            return Some((now, Echo::Unsent(errno)));
        }
        let Some(target) = self.network.target(&address) else {
            self.violations.push(format!("a SYN went to {address}, where nobody is"));
            return None;
        };
        let rtt = varied(target.latency, &mut self.rng);
        let at = now + rtt;
        match target.behaviour(now) {
            // Each SYN anew: the next one may get through where this one was lost.
            Behaviour::HalfAlive if self.rng.bool() => None,
            Behaviour::Blackhole | Behaviour::GivenUp(_) => None,
            Behaviour::Refused => Some((at, Echo::Refused { rtt })),
            Behaviour::Slams if self.rng.bool() => Some((at, Echo::Refused { rtt })),
            Behaviour::Unreachable => {
                let (kind, code) = if address.is_ipv4() { (3, self.rng.u8(0..2)) } else { (1, 3) };
                Some((at, Echo::Error { kind, code, from: None }))
            }
            _ => Some((at, Echo::Reply { rtt })),
        }
    }

    fn echo(&mut self, address: SocketAddr, now: Instant) -> Option<(Instant, Echo)> {
        if let Some((errno, _, share)) = self.weather.connect
            && self.rng.u8(..) < share
        {
            return Some((now, Echo::Unsent(errno)));
        }
        let Some(target) = self.network.target(&address) else {
            self.violations.push(format!("an echo request went to {address}, where nobody is"));
            return None;
        };
        let rtt = varied(target.latency, &mut self.rng);
        let up = match target.behaviour(now) {
            Behaviour::Up => true,
            Behaviour::HalfAlive => self.rng.bool(),
            Behaviour::Unreachable | Behaviour::Refused => {
                return Some((now + rtt, Echo::Error { kind: 3, code: 1, from: None }));
            }
            _ => false,
        };
        up.then(|| (now + rtt, Echo::Reply { rtt }))
    }

    fn post(&mut self, at: Instant, letter: Letter) {
        self.sent += 1;
        self.letters.insert((at, self.sent), letter);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.letters.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing that is there by `now`, and for which shard.
    pub(super) fn letter(&mut self, now: Instant) -> Option<(u8, Event<'static>)> {
        self.miss_unseen(now);
        let first = self.letters.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(match first.remove() {
            Letter::Begun(number) => {
                let Trip { shard, slot, generation, begun, .. } = self.trips[number];
                (shard, Event::Begun { slot, generation, at: begun.unwrap_or(now) })
            }
            Letter::Returned(number, end) => {
                let Trip { shard, slot, generation, .. } = self.trips[number];
                self.away.remove(&(shard, slot.0));
                (shard, Event::Returned { slot, generation, end: Box::new(end) })
            }
            Letter::Echoed { trip, sequence, echo } => {
                let Trip { shard, slot, generation, .. } = self.trips[trip];
                (shard, Event::Echoed { slot, generation, sequence, echo })
            }
        })
    }

    /// Answers to SYNs that come while nobody looks are as good as never sent.
    fn miss_unseen(&mut self, now: Instant) {
        while self.blind
            && let Some(first) = self.letters.first_entry().filter(|entry| entry.key().0 <= now)
            && let &Letter::Echoed { trip, sequence, echo } = first.get()
            && self.trips[trip].kind == CheckKind::Tcp
            && !matches!(echo, Echo::Unsent(_))
        {
            let (at, _) = *first.key();
            first.remove();
            self.unseen += 1;
            let mut pings = self.trips[trip].pings.iter_mut();
            if let Some(ping) = pings.find(|ping| ping.sequence == sequence)
                && ping.back.is_some_and(|(back, _)| back == at)
            {
                ping.back = None;
            }
        }
    }

    /// The process dies, and its programs with it.
    pub(super) fn crash(&mut self) {
        self.letters.clear();
        self.away.clear();
        self.begun.clear();
        self.told.clear();
        self.born = self.trips.len();
    }
}
