//! A shard whose completions are given by hand, on one slot: what happens when more than one check wants it.

mod bounds;
mod errands;
mod half_open;
mod handshakes;
mod kernel;
mod recording;
mod reload;
mod sizing;

use std::sync::Arc;

use super::protocol::{Command, CommandKind, HostSample, Resolution};
use super::{Effect, Effects, Event, Settings, Shard};
use crate::domain::monitor::CheckKind;
use crate::domain::{Check, Code, Host, HttpCheck, Monitor, Policy, Target, TcpCheck, VoidReason};
use crate::queueing::Setup;
use crate::ring::{Completion, Errno, OpKind};
use crate::units::limits::{FIN_WAIT, HOP_FIN_WAIT, KEEP_ALIVE_IDLE, NAMED_PER_STEP_MAX};
use crate::units::{Generation, Instant, Slot, Span};
use crate::world::{Catalog, Place};

const BEGIN: Instant = Instant::from_nanos(1_000_000_000_000);
const INTERVAL: Span = Span::from_secs(1_000);
const RETRY: Span = Span::from_secs(1);
const TIMEOUT: Span = Span::from_secs(5);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

type Answer = (OpKind, Result<u32, Errno>, &'static [u8]);

struct Bench {
    now: Instant,
    shard: Shard,
    catalog: Arc<Catalog>,
    generation: Generation,
    /// A receive that has not ended.
    receiving: bool,
    connecting: bool,
    /// What was submitted, and when.
    submitted: Vec<(Instant, OpKind)>,
    disconnected: bool,
    /// Errands and recalls, by their slots' generations.
    errands: Vec<Generation>,
    recalls: Vec<Generation>,
    /// SYNs: when, for which generation of the slot, which attempt.
    syns: Vec<(Instant, Generation, u16)>,
    /// Sockets that were asked for.
    opened: usize,
    host_asked: bool,
    /// Packets that this host has dropped.
    drops: u64,
    /// Names that were asked for.
    asked: Vec<Box<str>>,
}

fn monitor(name: &str, check: Check, host: Host) -> Monitor {
    let policy = Policy { retry_interval: RETRY, ..Policy::new(check, INTERVAL, TIMEOUT) };
    Monitor { name: name.into(), enabled: false, target: Target { host, port: 80, path: "/".into() }, policy }
}

fn tcp(name: &str) -> Monitor {
    monitor(name, Check::Tcp(TcpCheck::default()), Host::Literal("10.0.0.1".parse().expect("an address")))
}

fn http(name: &str, keep_alive: bool) -> Monitor {
    let check = HttpCheck { keep_alive, ..HttpCheck::default() };
    monitor(name, Check::Http(check), Host::Literal("10.0.0.2".parse().expect("an address")))
}

impl Bench {
    fn new(monitors: Vec<Monitor>) -> Self {
        let names: Vec<_> = monitors.iter().map(|monitor| monitor.name.clone()).collect();
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        let settings = Settings { shard: 0, sizing: Setup::fixed(1), seed: 1 };
        let mut bench = Self {
            now: BEGIN,
            shard: Shard::new(&settings, catalog.clone(), BEGIN),
            catalog,
            generation: Generation::default(),
            receiving: false,
            connecting: false,
            submitted: Vec::new(),
            disconnected: false,
            errands: Vec::new(),
            recalls: Vec::new(),
            syns: Vec::new(),
            opened: 0,
            host_asked: false,
            drops: 0,
            asked: Vec::new(),
        };
        // In order, so that they are due in order.
        for name in &names {
            bench.command(name, CommandKind::Enable { epoch: 1 });
        }
        bench
    }

    fn command(&mut self, name: &str, kind: CommandKind) {
        let monitor = self.catalog.find(name).expect("it is there");
        self.step(vec![Event::Command(Command { monitor, kind })]);
    }

    fn check(&mut self, name: &str) {
        self.command(name, CommandKind::CheckNow);
    }

    fn answer(&mut self, answers: &[Answer]) {
        let events = answers.iter().map(|&(kind, result, data)| {
            let more = !data.is_empty();
            let (slot, generation, local) = (Slot(0), self.generation, false);
            Event::Completed(Completion { slot, generation, kind, result, more, local, data, handshake: None })
        });
        self.step(events.collect());
    }

    /// Lets time pass; nothing happens but what the shard itself has asked for.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut steps = 0;
        while let Some(deadline) = self.shard.next_deadline().filter(|&deadline| deadline <= until) {
            steps += 1;
            assert!(steps < 100_000, "a deadline that has passed makes the loop spin");
            self.now = self.now.max(deadline);
            self.step(Vec::new());
        }
        self.now = until;
        self.step(Vec::new());
    }

    fn step(&mut self, mut events: Vec<Event<'_>>) {
        loop {
            if std::mem::take(&mut self.host_asked) {
                let sample = HostSample { taken: self.now, drops: self.drops, table_full: false };
                events.push(Event::HostSampled(sample));
            }
            let mut effects = Effects::default();
            for event in &events {
                if let Event::Completed(Completion { kind, more: false, .. }) = event {
                    self.receiving &= *kind != OpKind::Recv;
                    self.connecting &= *kind != OpKind::Connect;
                }
            }
            self.shard.step(self.now, &events, &mut effects);
            for effect in effects.list {
                match effect {
                    Effect::Submit { op, generation, .. } => {
                        self.generation = generation;
                        self.submitted.push((self.now, op.kind()));
                        self.receiving |= op.kind() == OpKind::Recv;
                        self.connecting |= op.kind() == OpKind::Connect;
                        self.disconnected |= op.kind() == OpKind::Disconnect;
                    }
                    Effect::Errand { generation, .. } => self.errands.push(generation),
                    Effect::Recall { generation, .. } => self.recalls.push(generation),
                    Effect::Syn { generation, attempt, .. } => self.syns.push((self.now, generation, attempt)),
                    Effect::Open { .. } => self.opened += 1,
                    Effect::SampleHost => self.host_asked = true,
                    Effect::Resolve { name } => self.asked.push(name),
                    _ => {}
                }
            }
            if !self.disconnected && !self.host_asked {
                return;
            }
            // The kernel answers a disconnect at once, and ends what it ends.
            let mut ended = Vec::new();
            if std::mem::take(&mut self.disconnected) {
                if self.connecting {
                    ended.push((OpKind::Connect, Err(Errno::ECONNRESET)));
                }
                if self.receiving {
                    ended.push((OpKind::Recv, Ok(0)));
                }
                ended.push((OpKind::Disconnect, Ok(0)));
            }
            let (slot, generation) = (Slot(0), self.generation);
            let completions = ended.into_iter().map(|(kind, result)| {
                Event::Completed(Completion {
                    slot,
                    generation,
                    kind,
                    result,
                    more: false,
                    local: false,
                    data: &[],
                    handshake: None,
                })
            });
            events = completions.collect();
        }
    }

    fn last(&self, kind: OpKind) -> Option<Instant> {
        self.submitted.iter().rev().find(|(_, submitted)| *submitted == kind).map(|(at, _)| *at)
    }

    fn count(&self, kind: OpKind) -> usize {
        self.submitted.iter().filter(|(_, submitted)| *submitted == kind).count()
    }

    fn outcome(&self, name: &str) -> Option<Code> {
        let monitor = self.catalog.find(name).expect("it is there");
        self.shard.monitor_state(monitor.index(), self.now).last
    }
}

#[test]
fn a_named_check_that_waits_for_a_slot_keeps_its_timeout() {
    let mut bench =
        Bench::new(vec![tcp("holder"), monitor("named", Check::Tcp(TcpCheck::default()), Host::Name("db".into()))]);
    bench.check("holder");
    bench.check("named");
    bench.pass(Span::from_secs(1));
    let addresses = vec!["10.0.0.3".parse().expect("an address")];
    bench.step(vec![Event::Resolved {
        name: "db".into(),
        result: Resolution::Found { addresses, ttl: Span::from_millis(1) },
    }]);
    // The holder's time is up, and the slot is the named one's, long after its answer has expired.
    bench.pass(TIMEOUT);
    assert_eq!(bench.outcome("holder"), Some(Code::L4Tout));
    assert_eq!(bench.count(OpKind::Connect), 2);
    let started = bench.last(OpKind::Connect).expect("it connects");
    // It spent a second on its name and has four left.
    bench.pass(started.since(bench.now) + TIMEOUT - Span::from_millis(2_500));
    assert_eq!(bench.outcome("named"), None, "the wait for a slot was not its target's");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("named"), Some(Code::L4Ok));
    // Two seconds late at least: the lag of the named check has its wait in it.
    assert!(bench.shard.stats().lag.sum >= Span::from_secs(3), "{:?}", bench.shard.stats().lag);
}

#[test]
fn a_name_that_takes_most_of_the_time_leaves_nothing_to_blame_its_target_for() {
    for (asked_for, code) in [(4, Code::Void(VoidReason::Resolver)), (1, Code::L4Tout)] {
        let mut bench = Bench::new(vec![monitor("named", Check::Tcp(TcpCheck::default()), Host::Name("db".into()))]);
        bench.check("named");
        bench.pass(Span::from_secs(asked_for));
        let addresses = vec!["10.0.0.3".parse().expect("an address")];
        let result = Resolution::Found { addresses, ttl: Span::from_secs(60) };
        bench.step(vec![Event::Resolved { name: "db".into(), result }]);
        bench.pass(TIMEOUT);
        assert_eq!(bench.outcome("named"), Some(code), "after {asked_for} s of {TIMEOUT}");
    }
}

#[test]
fn a_scolding_for_idleness_is_no_answer_to_the_next_request() {
    const SCOLDING: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let scolding = (OpKind::Recv, Ok(SCOLDING.len() as u32), SCOLDING);
    let mut bench = Bench::new(vec![http("web", true)]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    // It crosses the next request on its way.
    bench.check("web");
    bench.answer(&[(OpKind::Send, Ok(100), b""), scolding]);
    bench.pass(Span::from_millis(1));
    assert_eq!((bench.outcome("web"), bench.count(OpKind::Connect)), (Some(Code::L7Ok), 2));
    // On a fresh connection it is an answer, and not the expected one.
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), scolding]);
    assert_eq!(bench.outcome("web"), Some(Code::L7Sts));
}

#[test]
fn no_check_begins_before_there_is_a_reading_to_hold_others_against() {
    let catalog = Arc::new(Catalog::build([Monitor { enabled: true, ..tcp("web") }], 1).expect("it fits"));
    let mut shard = Shard::new(&Settings { shard: 0, sizing: Setup::fixed(1), seed: 1 }, catalog, BEGIN);
    let now = BEGIN + INTERVAL;
    let mut effects = Effects::default();
    shard.step(now, &[], &mut effects);
    assert!(matches!(effects.list[..], [Effect::SampleHost]), "{effects:?}");
    assert!(shard.next_deadline().is_none_or(|deadline| deadline > now), "waiting for it is no reason to spin");
    effects.clear();
    let sample = HostSample { taken: now, drops: 7, table_full: false };
    shard.step(now, &[Event::HostSampled(sample)], &mut effects);
    assert!(effects.list.iter().any(|effect| matches!(effect, Effect::Submit { .. })), "{effects:?}");
}

#[test]
fn due_times_that_pass_without_a_slot_are_missed_and_not_skipped() {
    let mut bench = Bench::new(vec![tcp("holder"), tcp("web")]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    bench.check("holder");
    // "web" is due again after a second, and waits for four.
    bench.pass(TIMEOUT + Span::from_millis(500));
    assert_eq!(bench.outcome("holder"), Some(Code::L4Tout));
    let skipped = bench.shard.stats().skipped_busy;
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    let stats = bench.shard.stats();
    assert_eq!((stats.missed, stats.skipped_busy - skipped), (4, 0));
}

#[test]
fn between_two_attempts_there_is_nothing_to_do() {
    let mut web = tcp("web");
    web.policy.retries = 1;
    let mut bench = Bench::new(vec![web]);
    bench.check("web");
    // Long enough for the last reading of the host's counters to be old.
    bench.pass(Span::from_millis(1_990));
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    bench.pass(Span::from_millis(20));
    assert!(bench.shard.next_deadline().expect("the next attempt") > bench.now);
    bench.pass(Span::from_millis(40));
    assert_eq!(bench.count(OpKind::Connect), 2);
}

#[test]
fn packets_lost_long_before_a_check_do_not_void_it() {
    let mut bench = Bench::new(vec![tcp("web")]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.pass(Span::from_secs(20));
    bench.drops += 1;
    bench.pass(Span::from_secs(20));
    bench.check("web");
    bench.pass(TIMEOUT + Span::from_millis(100));
    assert_eq!(bench.outcome("web"), Some(Code::L4Tout));
}

#[test]
fn a_lingering_connection_gives_way_to_a_due_check() {
    let mut bench = Bench::new(vec![http("web", false), tcp("next")]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    assert_eq!(bench.outcome("web"), Some(Code::L7Ok));
    bench.pass(Span::from_millis(50));
    assert_eq!(bench.count(OpKind::Disconnect), 0, "nobody needs the slot: the peer may close first");
    bench.check("next");
    assert_eq!((bench.count(OpKind::Disconnect), bench.count(OpKind::Connect)), (1, 2));
    assert!(bench.now < BEGIN + FIN_WAIT);
}

#[test]
fn a_kept_connection_ends_when_nobody_wants_it_for_long() {
    let mut bench = Bench::new(vec![http("web", true)]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    let kept = bench.now;
    bench.pass(Span::from_secs(60));
    assert_eq!(bench.shard.stats().idle_connections, 1);
    bench.pass(Span::from_secs(30));
    assert_eq!(bench.shard.stats().idle_connections, 0);
    let ended = bench.last(OpKind::Disconnect).expect("it was ended");
    assert_eq!(ended.since(kept), KEEP_ALIVE_IDLE);
}

const MOVED: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: http://next.example/\r\nContent-Length: 0\r\n\r\n";

/// One that follows redirects, in flight, and led to another name.
fn led(keep_alive: bool) -> Bench {
    let mut web = http("web", keep_alive);
    let Check::Http(check) = &mut web.policy.check else { unreachable!("it is one of HTTP") };
    check.redirects = 3;
    let mut bench = Bench::new(vec![web]);
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(MOVED.len() as u32), MOVED)]);
    assert_eq!(bench.asked, ["next.example".into()]);
    bench
}

fn found(bench: &mut Bench) {
    let addresses = vec!["10.0.0.9".parse().expect("an address")];
    let result = Resolution::Found { addresses, ttl: Span::from_secs(60) };
    bench.step(vec![Event::Resolved { name: "next.example".into(), result }]);
}

#[test]
fn a_hop_waits_for_the_old_connection_to_end() {
    let mut bench = led(false);
    found(&mut bench);
    assert_eq!((bench.count(OpKind::Connect), bench.count(OpKind::Disconnect)), (1, 0), "the peer may close first");
    assert_eq!(bench.shard.in_flight(), 1);
    bench.pass(HOP_FIN_WAIT + Span::from_millis(1));
    assert_eq!((bench.count(OpKind::Connect), bench.count(OpKind::Disconnect)), (2, 1), "but not for long");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    assert_eq!((bench.outcome("web"), bench.shard.stats().idle_connections), (Some(Code::L7Ok), 0), "not kept");
    assert_eq!(bench.shard.stats().lost, 0);
}

#[test]
fn a_hop_from_a_connection_that_nobody_closes_waits_for_nothing() {
    let mut bench = led(true);
    assert_eq!(bench.count(OpKind::Disconnect), 1);
    found(&mut bench);
    assert_eq!(bench.count(OpKind::Connect), 2);
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    assert_eq!((bench.outcome("web"), bench.shard.stats().idle_connections), (Some(Code::L7Ok), 0), "not kept");
}

#[test]
fn a_hop_waits_for_its_name_no_longer_than_the_attempt() {
    // The peer closes at once, and the resolver is silent.
    let mut bench = led(false);
    bench.answer(&[(OpKind::Recv, Ok(0), b"")]);
    assert_eq!((bench.count(OpKind::Disconnect), bench.shard.in_flight()), (1, 1), "the slot is held");
    bench.pass(TIMEOUT - Span::from_millis(100));
    assert_eq!((bench.outcome("web"), bench.shard.stats().lost), (None, 0), "the audits find it where it is");
    bench.pass(Span::from_millis(200));
    assert_eq!(bench.outcome("web"), Some(Code::Void(VoidReason::Resolver)), "the time was the resolver's");
    assert_eq!((bench.shard.in_flight(), bench.shard.stats().lost), (0, 0));
    // The answer comes too late for anyone.
    found(&mut bench);
    assert_eq!(bench.count(OpKind::Connect), 1);
    // The next check asks again: what was led to is not remembered.
    bench.check("web");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    bench.answer(&[(OpKind::Send, Ok(100), b""), (OpKind::Recv, Ok(MOVED.len() as u32), MOVED)]);
    assert_eq!(bench.asked.len(), 2);
}

#[test]
fn a_hop_keeps_the_deadline_of_its_attempt() {
    let mut bench = led(false);
    bench.pass(Span::from_secs(2));
    found(&mut bench);
    assert_eq!(bench.count(OpKind::Connect), 2);
    // Two of five seconds went to the name; the rest is the target's.
    bench.pass(TIMEOUT - Span::from_millis(2_100));
    assert_eq!(bench.outcome("web"), None);
    bench.pass(Span::from_millis(200));
    assert_eq!((bench.outcome("web"), bench.shard.stats().lost), (Some(Code::L4Tout), 0));
}

#[test]
fn a_monitor_that_is_disabled_between_two_connections_leaves_its_slot() {
    let mut bench = led(false);
    bench.command("web", CommandKind::Disable { epoch: 2 });
    bench.pass(Span::from_millis(1));
    assert_eq!((bench.shard.in_flight(), bench.count(OpKind::Disconnect)), (0, 1));
    found(&mut bench);
    bench.pass(Span::from_secs(3));
    assert_eq!((bench.count(OpKind::Connect), bench.shard.stats().lost, bench.outcome("web")), (1, 0, None));
}

/// What one step wants done, by kind: questions about names, transitions, connects.
fn tally(effects: &mut Effects) -> [usize; 3] {
    let mut tally = [0; 3];
    for effect in effects.list.drain(..) {
        match effect {
            Effect::Resolve { .. } => tally[0] += 1,
            Effect::Transition(_) => tally[1] += 1,
            Effect::Submit { .. } => tally[2] += 1,
            _ => {}
        }
    }
    effects.clear();
    tally
}

#[test]
fn a_name_that_many_wait_for_lets_them_go_step_by_step_and_loses_nobody() {
    const MANY: usize = 3 * NAMED_PER_STEP_MAX;
    let name = Host::Name("db".into());
    let named = |index: usize| {
        let monitor = monitor(&format!("{index}"), Check::Tcp(TcpCheck::default()), name.clone());
        Monitor { enabled: true, ..monitor }
    };
    let catalog = Arc::new(Catalog::build((0..MANY).map(named), 1).expect("they fit"));
    let mut shard = Shard::new(&Settings { shard: 0, sizing: Setup::fixed(1), seed: 1 }, catalog.clone(), BEGIN);
    let mut effects = Effects::default();
    let mut now = BEGIN;
    let sample = HostSample { taken: now, drops: 0, table_full: false };
    let mut events = vec![Event::HostSampled(sample)];
    events.extend((0..MANY).map(|index| {
        let monitor = catalog.find(&format!("{index}")).expect("it is there");
        Event::Command(Command { monitor, kind: CommandKind::CheckNow })
    }));
    let mut asked = 0;
    while shard.places().iter().filter(|place| **place == Place::Resolving).count() < MANY {
        shard.step(now, &std::mem::take(&mut events), &mut effects);
        asked += tally(&mut effects)[0];
        now += Span::from_millis(1);
    }
    assert_eq!(asked, 1, "one question for all");

    // The desk is full: the answer has to wait, and nobody spins for it.
    let gone = Event::Resolved { name: "db".into(), result: Resolution::NotFound };
    shard.step(now, &[Event::DeskFull(true), gone], &mut effects);
    assert_eq!(tally(&mut effects), [0, 0, 0]);
    assert!(shard.next_deadline() > Some(now));
    // One of them is not watched any more.
    let monitor = catalog.find("0").expect("it is there");
    let disable = Event::Command(Command { monitor, kind: CommandKind::Disable { epoch: 1 } });
    shard.step(now, &[disable], &mut effects);
    let mut left = MANY - 1;
    let mut events = vec![Event::DeskFull(false)];
    while left > 0 {
        shard.step(now, &std::mem::take(&mut events), &mut effects);
        let [_, transitions, _] = tally(&mut effects);
        assert_eq!(transitions, left.min(NAMED_PER_STEP_MAX));
        left -= transitions;
        let resolving = shard.places().iter().filter(|place| **place == Place::Resolving).count();
        assert_eq!(resolving, left);
        assert!(left == 0 || shard.next_deadline() <= Some(now), "the rest at once");
        now += Span::from_millis(1);
    }
    shard.step(now + Span::from_secs(2), &[], &mut effects);
    assert_eq!(shard.stats().lost, 0);
    let code = Code::L4Dns;
    assert_eq!(shard.stats().checks[CheckKind::Tcp as usize][code.index()], (MANY - 1) as u64);
}

#[test]
fn a_busy_name_is_asked_for_ahead_and_nobody_waits_for_it_again() {
    let mut bench = Bench::new(vec![monitor("a", Check::Tcp(TcpCheck::default()), Host::Name("db".into()))]);
    let found = |ttl| Resolution::Found { addresses: vec!["10.0.0.3".parse().unwrap()], ttl: Span::from_secs(ttl) };
    bench.check("a");
    assert_eq!(bench.asked.len(), 1);
    bench.step(vec![Event::Resolved { name: "db".into(), result: found(80) }]);
    bench.answer(&[(OpKind::Connect, Ok(0), &[])]);
    let connects = bench.count(OpKind::Connect);
    for (pass, asked) in [(60, 1), (12, 2), (1, 2)] {
        bench.pass(Span::from_secs(pass));
        bench.check("a");
        bench.answer(&[(OpKind::Connect, Ok(0), &[])]);
        assert_eq!(bench.asked.len(), asked, "after another {pass} s");
    }
    assert_eq!(bench.count(OpKind::Connect), connects + 3, "each with the address that was known");
    bench.step(vec![Event::Resolved { name: "db".into(), result: found(80) }]);
    bench.pass(Span::from_secs(60));
    bench.check("a");
    assert_eq!(bench.asked.len(), 2, "the new answer holds");
}
