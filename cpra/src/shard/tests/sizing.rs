//! A shard whose targets answer after times that a test chooses: how many workers it takes, and who has to wait.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::protocol::{Command, CommandKind, HostSample};
use super::super::{Effect, Effects, Event, Settings, Shard};
use crate::domain::monitor::ScriptCheck;
use crate::domain::{Check, Host, Monitor, Policy, Target, TcpCheck};
use crate::probe::errand::{ErrandEnd, Exit};
use crate::queueing::{Bounds, Report, Setup};
use crate::ring::{Completion, Errno, Op, OpKind};
use crate::units::{Generation, Instant, Slot, Span};
use crate::world::Catalog;

const BEGIN: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Span = Span::from_secs(1);
const TIMEOUT: Span = Span::from_secs(5);
/// What a target does that never answers.
const NEVER: Span = Span::MAX;

/// Something that will have happened.
enum Happening {
    Completed { slot: Slot, generation: Generation, kind: OpKind, is_ok: bool },
    Returned { slot: Slot, generation: Generation, is_ok: bool },
}

struct Scene {
    now: Instant,
    shard: Shard,
    catalog: Arc<Catalog>,
    /// How long targets take, by the last 16 bits of their address.
    takes: Box<dyn FnMut(u32) -> Span>,
    coming: BTreeMap<(Instant, u64), Happening>,
    number: u64,
    connecting: BTreeMap<u32, Generation>,
    errands: BTreeMap<u32, Generation>,
    events: Vec<Event<'static>>,
    in_flight_max: usize,
    turns: u64,
}

fn tcp(index: u32, interval: Span) -> Monitor {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + index);
    let policy = Policy {
        retry_interval: SECOND,
        ..Policy::new(Check::Tcp(TcpCheck::default()), interval, TIMEOUT.min(interval))
    };
    let target = Target { host: Host::Literal(address.into()), port: 80, path: "".into() };
    Monitor { name: format!("tcp/{index}").into(), enabled: true, target, policy }
}

fn script(index: u32, interval: Span) -> Monitor {
    let target = Target { host: Host::Literal(Ipv4Addr::LOCALHOST.into()), port: 0, path: "".into() };
    let check = ScriptCheck { argv: ["/bin/true".into()].into(), env: Box::default(), cwd: None };
    let policy = Policy::new(Check::Script(check), interval, interval);
    Monitor { name: format!("script/{index}").into(), enabled: true, target, policy }
}

fn sized(min: u32, max: u32) -> Setup {
    Setup { bounds: Bounds { min, max, headroom: 150 }, ..Setup::default() }
}

impl Scene {
    fn new(monitors: Vec<Monitor>, sizing: Setup, takes: impl FnMut(u32) -> Span + 'static) -> Self {
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        Self {
            now: BEGIN,
            shard: Shard::new(&Settings { shard: 0, sizing, seed: 1 }, catalog.clone(), BEGIN),
            catalog,
            takes: Box::new(takes),
            coming: BTreeMap::new(),
            number: 0,
            connecting: BTreeMap::new(),
            errands: BTreeMap::new(),
            events: Vec::new(),
            in_flight_max: 0,
            turns: 0,
        }
    }

    fn switch(&mut self, names: impl Iterator<Item = String>, on: bool, epoch: u8) {
        for name in names {
            let monitor = self.catalog.find(&name).expect("it is there");
            let kind = if on { CommandKind::Enable { epoch } } else { CommandKind::Disable { epoch } };
            self.events.push(Event::Command(Command { monitor, kind }));
        }
    }

    fn will(&mut self, at: Instant, happening: Happening) {
        self.number += 1;
        self.coming.insert((at, self.number), happening);
    }

    /// Lets time pass.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        loop {
            let next = self.coming.first_key_value().map(|((at, _), _)| *at);
            let due = [next, self.shard.next_deadline()].into_iter().flatten().min();
            if self.events.is_empty() {
                let Some(at) = due.filter(|&at| at <= until) else { break };
                self.now = self.now.max(at);
            }
            // A loop takes what is there a moment later, and all of it at once.
            self.now += Span::from_micros(50);
            self.turn();
        }
        self.now = self.now.max(until);
    }

    fn turn(&mut self) {
        self.turns += 1;
        let mut events = std::mem::take(&mut self.events);
        while let Some(first) = self.coming.first_entry()
            && first.key().0 <= self.now
        {
            match first.remove() {
                Happening::Completed { slot, generation, kind, is_ok } => {
                    if kind == OpKind::Connect && self.connecting.remove(&slot.0) != Some(generation) {
                        continue;
                    }
                    let result = if is_ok { Ok(0) } else { Err(Errno::ECONNRESET) };
                    let (more, local) = (false, false);
                    let done = Completion { slot, generation, kind, result, more, local, data: &[], handshake: None };
                    events.push(Event::Completed(done));
                }
                Happening::Returned { slot, generation, is_ok } => {
                    if self.errands.remove(&slot.0) == Some(generation) {
                        let ended = ErrandEnd::Exited { status: Exit::Code(0), output: Box::default() };
                        let end = Box::new(if is_ok { ended } else { ErrandEnd::Recalled });
                        events.push(Event::Returned { slot, generation, end });
                    }
                }
            }
        }
        let mut effects = Effects::default();
        self.shard.step(self.now, &events, &mut effects);
        for effect in effects.list {
            self.carry_out(&effect);
        }
        self.in_flight_max = self.in_flight_max.max(self.shard.in_flight());
    }

    fn carry_out(&mut self, effect: &Effect) {
        match *effect {
            Effect::Submit { slot, generation, op: Op::Connect(address), .. } => {
                let std::net::IpAddr::V4(ip) = address.ip() else { unreachable!("all are IPv4") };
                let takes = (self.takes)(ip.to_bits() & 0xff_ffff);
                self.connecting.insert(slot.0, generation);
                if takes != NEVER {
                    let kind = OpKind::Connect;
                    self.will(self.now + takes, Happening::Completed { slot, generation, kind, is_ok: true });
                }
            }
            Effect::Submit { slot, generation, op: Op::Disconnect, .. } => {
                if let Some(generation) = self.connecting.get(&slot.0).copied() {
                    let kind = OpKind::Connect;
                    self.will(self.now, Happening::Completed { slot, generation, kind, is_ok: false });
                }
                let kind = OpKind::Disconnect;
                self.will(self.now, Happening::Completed { slot, generation, kind, is_ok: true });
            }
            Effect::Errand { slot, generation, .. } => {
                let takes = (self.takes)(u32::MAX);
                self.errands.insert(slot.0, generation);
                self.events.push(Event::Begun { slot, generation, at: self.now });
                if takes != NEVER {
                    self.will(self.now + takes, Happening::Returned { slot, generation, is_ok: true });
                }
            }
            Effect::Recall { slot, generation } => {
                self.will(self.now, Happening::Returned { slot, generation, is_ok: false });
            }
            Effect::SampleHost => {
                let sample = HostSample { taken: self.now, drops: 0, table_full: false };
                self.events.push(Event::HostSampled(sample));
            }
            _ => {}
        }
    }

    fn report(&self, class: &str) -> Option<&Report> {
        self.shard.stats().sizing.iter().find(|report| report.class == class)
    }

    fn of(&self, class: &str) -> &Report {
        self.report(class).unwrap_or_else(|| panic!("{class} has nothing to do"))
    }
}

fn names(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|index| format!("tcp/{index}"))
}

#[test]
fn workers_follow_the_rate_up_at_once_and_down_slowly() {
    let monitors = (0..20_000).map(|index| Monitor { enabled: index < 1_000, ..tcp(index, SECOND) }).collect();
    let mut scene = Scene::new(monitors, sized(1, 50_000), |_| Span::from_millis(20));
    scene.pass(Span::from_secs(12));
    let before = scene.of("tcp").workers;
    // 20 erlangs.
    assert!((21..=40).contains(&before), "{:?}", scene.of("tcp"));
    scene.switch(names(1_000..20_000), true, 1);
    scene.pass(Span::from_secs(5));
    let missed = scene.shard.stats().missed;
    scene.pass(Span::from_secs(5));
    let report = scene.of("tcp").clone();
    assert!((390..=520).contains(&report.answer.needed), "{report:?}");
    assert!(report.results.p95 <= Span::from_millis(100), "{report:?}");
    assert_eq!(scene.shard.stats().missed, missed);
    scene.pass(Span::from_secs(10));
    let settled = scene.of("tcp").workers;
    for _ in 0..20 {
        scene.pass(SECOND);
        let now = scene.of("tcp").workers;
        assert!(now.abs_diff(settled) <= settled / 10, "{now} after {settled}");
    }
    scene.switch(names(1_000..20_000), false, 2);
    scene.pass(Span::from_secs(5));
    assert!(scene.of("tcp").workers >= settled / 2, "not yet: {:?}", scene.of("tcp"));
    scene.pass(Span::from_secs(25));
    assert!(scene.of("tcp").workers <= 2 * before, "{:?}", scene.of("tcp"));
    assert_eq!(scene.shard.stats().lost, 0);
}

#[test]
fn workers_follow_the_service_time() {
    let takes = std::rc::Rc::new(std::cell::Cell::new(Span::from_millis(1)));
    let told = takes.clone();
    let monitors = (0..2_000).map(|index| tcp(index, SECOND)).collect();
    let mut scene = Scene::new(monitors, sized(1, 50_000), move |_| told.get());
    scene.pass(Span::from_secs(15));
    let before = scene.of("tcp").workers;
    assert!(before <= 8, "two erlangs: {:?}", scene.of("tcp"));
    takes.set(Span::from_millis(200));
    scene.pass(Span::from_secs(5));
    let wait = |scene: &Scene| scene.of("tcp").waits.p95;
    scene.pass(Span::from_secs(3));
    let slow = scene.of("tcp").clone();
    assert!(slow.workers >= 400 && wait(&scene) <= Span::from_millis(10), "{slow:?}");
    scene.pass(Span::from_secs(17));
    let slow = scene.of("tcp").clone();
    assert!((400..=600).contains(&slow.workers), "{slow:?}");
    takes.set(Span::from_millis(1));
    scene.pass(Span::from_secs(40));
    assert!(scene.of("tcp").workers <= 2 * before, "{:?}", scene.of("tcp"));
    assert!(wait(&scene) <= Span::from_millis(10));
    assert_eq!(scene.shard.stats().missed, 0, "nobody waited for a whole interval");
}

#[test]
fn half_of_what_is_needed_does_not_keep_the_slo() {
    let monitors = || (0..2_000).map(|index| tcp(index, SECOND)).collect();
    let mut free = Scene::new(monitors(), sized(1, 50_000), |_| Span::from_millis(50));
    free.pass(Span::from_secs(20));
    let report = free.of("tcp").clone();
    assert!(report.results.p95 <= Span::from_millis(100) && !report.unreachable, "{report:?}");
    let half = report.answer.needed / 2;
    let mut short = Scene::new(monitors(), sized(1, half), |_| Span::from_millis(50));
    short.pass(Span::from_secs(20));
    let report = short.of("tcp").clone();
    assert!(report.results.p95 > Span::from_millis(100) && report.unreachable, "{report:?}");
    assert!(!report.answer.is_met());
    assert!(short.in_flight_max <= half as usize);
    assert!(short.shard.stats().missed > 0);
}

#[test]
fn scripts_that_hang_hold_no_other_checks_worker() {
    let hangs = std::rc::Rc::new(std::cell::Cell::new(false));
    let told = hangs.clone();
    let monitors = (0..1_000).map(|index| tcp(index, SECOND));
    let scripts = (0..500).map(|index| script(index, Span::from_secs(30)));
    let takes = move |target| match target {
        u32::MAX if told.get() => NEVER,
        u32::MAX => Span::from_millis(5),
        _ => Span::from_millis(2),
    };
    let mut scene = Scene::new(monitors.chain(scripts).collect(), sized(1, 1_000), takes);
    scene.pass(Span::from_secs(40));
    let before = scene.of("tcp").clone();
    hangs.set(true);
    scene.pass(Span::from_secs(40));
    let after = scene.of("tcp").clone();
    assert!(after.waits.p99 <= before.waits.p99.max(Span::from_millis(2)), "{before:?} then {after:?}");
    assert_eq!(scene.shard.stats().missed, 0, "there is room for all of them");
    assert!(scene.of("suspects").demand.busy > 250, "{:?}", scene.of("suspects"));
    assert!(scene.of("script").workers < 50, "{:?}", scene.of("script"));
}

#[test]
fn in_a_mass_outage_the_healthy_keep_their_lag_and_the_suspects_are_spaced_out() {
    let out = std::rc::Rc::new(std::cell::Cell::new(false));
    let told = out.clone();
    let monitors = (0..10_000).map(|index| tcp(index, Span::from_secs(10))).collect();
    let takes = move |target| if told.get() && target >= 2_000 { NEVER } else { Span::from_millis(2) };
    // All suspects at once would take 4,000 workers: 800 a second for five seconds each.
    let mut scene = Scene::new(monitors, sized(1, 1_000), takes);
    scene.pass(Span::from_secs(20));
    out.set(true);
    // Until each has failed once nobody can tell the healthy from the others.
    scene.pass(Span::from_secs(60));
    let missed = scene.shard.stats().missed;
    scene.pass(Span::from_secs(30));
    let (healthy, suspects) = (scene.of("tcp").clone(), scene.of("suspects").clone());
    assert!(healthy.waits.p99 <= Span::from_millis(10), "{healthy:?}");
    assert!((500..=1_000).contains(&suspects.demand.busy), "{suspects:?}");
    assert!(suspects.demand.waiting > 1_000, "they wait for each other: {suspects:?}");
    assert!(scene.shard.stats().missed > missed, "and that is counted");
    assert_eq!(scene.shard.stats().monitors[1], 2_000);
    out.set(false);
    scene.pass(Span::from_secs(60));
    assert_eq!(scene.shard.stats().monitors[1], 10_000, "all of them are up again");
    assert_eq!((scene.shard.stats().lost, scene.shard.stats().ready), (0, 0));
}

#[test]
fn workers_that_all_hang_leave_nothing_to_do_but_wait() {
    let monitors = (0..200).map(|index| tcp(index, Span::from_secs(10))).collect();
    let mut scene = Scene::new(monitors, sized(1, 4), |_| NEVER);
    scene.pass(Span::from_secs(60));
    assert_eq!(scene.in_flight_max, 4);
    // Ten adjustments a second for each, a few events for each of 48 checks, a look every 100 ms.
    assert!(scene.turns < 60 * 300, "{} turns", scene.turns);
    assert_eq!((scene.shard.stats().lost, scene.of("suspects").demand.busy >= 1), (0, true));
    assert!(scene.shard.stats().missed > 50);
}
