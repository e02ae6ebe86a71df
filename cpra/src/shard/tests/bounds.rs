//! More echo requests than may leave: who waits, for how long, and that nobody fails by it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::protocol::HostSample;
use super::super::{Effect, Effects, Event, Rates, Settings, Shard};
use crate::domain::monitor::IcmpCheck;
use crate::domain::{Check, Code, Host, Monitor, Policy, Target, Verdict};
use crate::probe::errand::Echo;
use crate::queueing::Setup;
use crate::units::{Generation, Instant, Slot, Span};
use crate::world::Catalog;

const BEGIN: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Span = Span::from_secs(1);

fn icmp(index: u32, count: u8, retries: u8) -> Monitor {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + index);
    let check = Check::Icmp(IcmpCheck { count, max_loss: 0, max_rtt: None });
    let policy = Policy { retries, retry_interval: SECOND, ..Policy::new(check, SECOND, Span::from_millis(400)) };
    let target = Target { host: Host::Literal(address.into()), port: 0, path: "".into() };
    Monitor { name: format!("icmp/{index}").into(), enabled: true, target, policy }
}

struct Scene {
    now: Instant,
    shard: Shard,
    /// When requests left.
    left: Vec<Instant>,
    /// Those that are answered a moment later.
    answers: Vec<(Slot, Generation, u16)>,
    well: bool,
}

impl Scene {
    fn new(monitors: Vec<Monitor>, echo: u32) -> Self {
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        let settings = Settings { shard: 0, sizing: Setup::fixed(2_000), seed: 1 };
        let shard = Shard::new(&settings, catalog, BEGIN).bounded_by(Rates { echo, ..Rates::default() });
        Self { now: BEGIN, shard, left: Vec::new(), answers: Vec::new(), well: true }
    }

    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut events = Vec::new();
        let mut steps = 0_u64;
        while self.now < until {
            let next = self.shard.next_deadline().unwrap_or(until).min(until);
            self.now = if events.is_empty() && self.answers.is_empty() { self.now.max(next) } else { self.now }
                + Span::from_micros(50);
            steps += 1;
            assert!(steps < 50 * span.as_millis(), "it spins");
            let answers = self.answers.drain(..).map(|(slot, generation, sequence)| Event::Echoed {
                slot,
                generation,
                sequence,
                echo: Echo::Reply { rtt: Span::from_micros(50) },
            });
            events.extend(answers);
            let mut effects = Effects::default();
            self.shard.step(self.now, &events, &mut effects);
            events.clear();
            for effect in effects.list {
                match effect {
                    Effect::Ping { slot, generation, sequence, .. } => {
                        self.left.push(self.now);
                        if self.well {
                            self.answers.push((slot, generation, sequence));
                        }
                    }
                    Effect::SampleHost => {
                        events.push(Event::HostSampled(HostSample { taken: self.now, drops: 0, table_full: false }));
                    }
                    _ => {}
                }
            }
        }
    }

    fn busiest_second(&self) -> usize {
        let within = |&first: &Instant| {
            let from = self.left.partition_point(|at| *at < first);
            self.left.partition_point(|at| *at < first + SECOND) - from
        };
        self.left.iter().map(within).max().unwrap_or_default()
    }

    fn judged(&self, wanted: impl Fn(Code) -> bool) -> u64 {
        let counts = self.shard.stats().checks.iter().flat_map(|counts| Code::ALL.into_iter().zip(counts));
        counts.filter(|(code, _)| wanted(*code)).map(|(_, count)| count).sum()
    }
}

fn fails(code: Code) -> bool {
    crate::domain::Outcome::of(code).verdict() == Verdict::Fail
}

#[test]
fn checks_beyond_the_bound_are_late_and_well() {
    // Twice as many as may leave.
    let mut scene = Scene::new((0..400).map(|index| icmp(index, 1, 0)).collect(), 200);
    scene.pass(Span::from_secs(20));
    let (busiest, all) = (scene.busiest_second(), scene.left.len());
    assert!(busiest <= 200, "{busiest} in a second");
    assert!(all > 20 * 165, "{all} in twenty seconds: the bound is used");
    let stats = scene.shard.stats();
    assert!(stats.held[0] > 1_000 && stats.missed > 1_000, "{} held, {} missed", stats.held[0], stats.missed);
    assert_eq!(scene.judged(fails), 0);
    assert_eq!(scene.judged(|code| code == Code::L3Ok), scene.judged(|_| true));
}

#[test]
fn an_outage_with_its_retries_stays_within_the_bound() {
    let mut scene = Scene::new((0..100).map(|index| icmp(index, 1, 2)).collect(), 150);
    scene.pass(Span::from_secs(5));
    assert_eq!(scene.shard.stats().held[0], 0, "100 a second are within it");
    scene.well = false;
    scene.pass(Span::from_secs(10));
    assert!(scene.busiest_second() <= 150, "{} in a second", scene.busiest_second());
    assert!(scene.judged(|code| code == Code::L3Tout) > 100, "the outage is seen all the same");
    scene.well = true;
    scene.pass(Span::from_secs(10));
    assert_eq!(scene.shard.stats().monitors[1], 100, "and its end");
}

#[test]
fn a_request_that_was_kept_back_was_not_lost() {
    // Each check wants to send three within 200 ms, and there is no room for that.
    let mut scene = Scene::new((0..200).map(|index| icmp(index, 3, 0)).collect(), 60);
    scene.pass(Span::from_secs(20));
    assert!(scene.busiest_second() <= 60, "{} in a second", scene.busiest_second());
    assert_eq!(scene.judged(fails), 0, "every request that left was answered");
    assert!(scene.judged(|code| code == Code::L3Ok) > 100, "{}", scene.judged(|code| code == Code::L3Ok));
}

#[test]
fn without_a_bound_that_is_felt_nobody_waits() {
    let mut scene = Scene::new((0..400).map(|index| icmp(index, 2, 0)).collect(), 200_000);
    scene.pass(Span::from_secs(5));
    assert_eq!((scene.shard.stats().held, scene.shard.stats().missed), ([0; 2], 0));
    assert_eq!(scene.judged(|code| code == Code::L3Ok), scene.judged(|_| true));
}
