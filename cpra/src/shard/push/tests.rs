//! A shard without a network: time passes, jobs call or do not.

use super::*;
use crate::domain::monitor::PushCheck;
use crate::domain::{Host, Monitor, Target, TransitionKind};
use crate::queueing::Setup;
use crate::shard::protocol::{Command, CommandKind, MonitorState, Transition};
use crate::shard::{Effect, Event, Settings, Shard};
use crate::units::MonitorId;
use crate::world::Catalog;

const BEGIN: Instant = Instant::from_nanos(1_000_000_000_000);
const INTERVAL: Span = Span::from_secs(300);
const GRACE: Span = Span::from_secs(60);

fn monitor(name: &str, unhealthy: u8) -> Monitor {
    let policy = Policy {
        retry_interval: Span::from_secs(1),
        unhealthy_threshold: unhealthy,
        healthy_threshold: 1,
        ..Policy::new(Check::Push(PushCheck { grace: GRACE }), INTERVAL, Span::from_secs(1))
    };
    let host = Host::Literal("127.0.0.1".parse().expect("an address"));
    Monitor { name: name.into(), enabled: true, target: Target { host, port: 0, path: name.into() }, policy }
}

struct Bench {
    shard: Shard,
    now: Instant,
    told: Vec<Transition>,
    effects: Effects,
}

impl Bench {
    fn of(monitors: Vec<Monitor>) -> Self {
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        let settings = Settings { shard: 0, sizing: Setup::fixed(1), seed: 1 };
        let shard = Shard::new(&settings, catalog, BEGIN);
        Self { shard, now: BEGIN, told: Vec::new(), effects: Effects::default() }
    }

    fn new(unhealthy: u8) -> Self {
        Self::of(vec![monitor("job", unhealthy)])
    }

    fn step(&mut self, events: &[Event<'_>]) {
        self.shard.step(self.now, events, &mut self.effects);
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Transition(transition) => self.told.push(*transition),
                Effect::SampleHost | Effect::Report { .. } => {}
                other => panic!("nothing else is wanted: {other:?}"),
            }
        }
    }

    /// Lets time pass as the loop would: each deadline in its turn.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut steps = 0;
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= until) {
            steps += 1;
            assert!(steps < 100_000, "a deadline that has passed makes the loop spin");
            self.now = self.now.max(deadline);
            self.step(&[]);
            self.sound();
        }
        self.now = until;
        self.step(&[]);
        self.sound();
    }

    /// Time in which the loop does not run.
    fn stand_still(&mut self, span: Span) {
        self.now += span;
        self.step(&[]);
    }

    fn call(&mut self, index: u32, ok: bool, message: &str) {
        self.step(&[Event::Pushed { index, ok, message: message.into() }]);
        self.sound();
    }

    fn command(&mut self, kind: CommandKind) {
        self.step(&[Event::Command(Command { monitor: MonitorId::new(0, 0), kind })]);
    }

    fn sound(&self) {
        let core = &self.shard.core;
        assert_eq!(core.ledger().iter().sum::<usize>(), core.enabled, "{:?}", core.ledger());
        let nowhere = self.shard.places().into_iter().filter(|place| *place == Place::Nowhere).count();
        assert_eq!(self.shard.places().len() - nowhere, core.enabled);
    }

    fn state(&self) -> MonitorState {
        self.shard.monitor_state(0, self.now)
    }

    fn count(&self, code: Code) -> u64 {
        self.shard.stats().checks.iter().map(|kind| kind[code.index()]).sum()
    }

    fn last(&self) -> (TransitionKind, Code, String) {
        let last = self.told.last().expect("something was told");
        (last.kind, last.outcome.code, last.outcome.cause().to_owned())
    }
}

#[test]
fn a_job_that_calls_in_time_is_up_and_stays_so() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.state().last, None);
    for _ in 0..5 {
        bench.pass(INTERVAL + GRACE - Span::from_millis(1));
        bench.call(0, true, "");
        assert_eq!(bench.state().next_due, Some(bench.now + INTERVAL + GRACE));
    }
    assert_eq!((bench.count(Code::PushOk), bench.count(Code::PushTout)), (5, 0));
    assert_eq!(bench.told.len(), 1);
    assert_eq!(bench.last().0, TransitionKind::FirstOk);
    assert_eq!(bench.shard.stats().missed, 0);
}

#[test]
fn a_missed_call_counts_once_per_interval() {
    let mut bench = Bench::new(3);
    bench.pass(Span::from_secs(10));
    bench.call(0, true, "");
    bench.pass(INTERVAL + GRACE - Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 0, "not early");
    bench.pass(Span::from_millis(1));
    let text = "no call for 6 m, expected every 5 m with 1 m grace";
    assert_eq!(bench.last(), (TransitionKind::Fail1, Code::PushTout, text.to_owned()));
    bench.pass(INTERVAL - Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 1);
    bench.pass(Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 2);
    bench.pass(INTERVAL);
    let text = "no call for 16 m, expected every 5 m with 1 m grace";
    assert_eq!(bench.last(), (TransitionKind::Threshold, Code::PushTout, text.to_owned()));
    // A late call is a call.
    bench.pass(Span::from_secs(7));
    bench.call(0, true, "");
    assert_eq!((bench.last().0, bench.last().1), (TransitionKind::Rise, Code::PushOk));
    bench.pass(INTERVAL + GRACE - Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 3, "the old deadlines are forgotten");
    assert_eq!(bench.shard.stats().missed, 0);
}

#[test]
fn a_job_that_never_called_is_missed_from_the_start_on() {
    let mut bench = Bench::new(1);
    bench.pass(INTERVAL + GRACE);
    let text = "no call yet, for 6 m, expected every 5 m with 1 m grace";
    assert_eq!(bench.last(), (TransitionKind::Threshold, Code::PushTout, text.to_owned()));
}

#[test]
fn a_job_may_say_that_it_failed() {
    let mut bench = Bench::new(1);
    bench.call(0, false, "disk\u{7} full");
    assert_eq!(bench.last(), (TransitionKind::Threshold, Code::PushErr, "disk full".to_owned()));
    assert_eq!(bench.state().evidence.as_deref(), Some("disk full"));
    bench.call(0, true, "");
    bench.call(0, false, "");
    assert_eq!(bench.last().2, "the job said that it failed");
}

#[test]
fn many_calls_leave_one_monitor_in_one_place() {
    let mut bench = Bench::new(3);
    for round in 0..2_000_u64 {
        bench.call(0, true, "");
        if round % 3 == 0 {
            bench.pass(Span::from_millis(round % 7));
        }
    }
    bench.pass(INTERVAL + GRACE);
    assert_eq!((bench.count(Code::PushOk), bench.count(Code::PushTout)), (2_000, 1));
}

#[test]
fn what_is_not_watched_takes_no_calls_and_misses_none() {
    let mut bench = Bench::new(1);
    bench.command(CommandKind::Disable { epoch: 1 });
    bench.call(0, true, "");
    bench.pass(INTERVAL + INTERVAL);
    assert_eq!((bench.count(Code::PushOk), bench.count(Code::PushTout)), (0, 0));
    bench.command(CommandKind::Enable { epoch: 2 });
    bench.pass(INTERVAL + GRACE - Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 0, "the wait begins anew");
    bench.pass(Span::from_millis(1));
    assert_eq!(bench.count(Code::PushTout), 1);
    // Nobody can be asked, and no monitor of another kind is here.
    bench.command(CommandKind::CheckNow);
    bench.call(7, true, "");
    bench.sound();
}

#[test]
fn a_desk_that_is_behind_keeps_misses_waiting_and_a_call_takes_them_back() {
    let mut bench = Bench::of(vec![monitor("a", 1), monitor("b", 1)]);
    bench.step(&[Event::DeskFull(true)]);
    bench.pass(INTERVAL + GRACE);
    assert_eq!(bench.count(Code::PushTout), 0);
    assert_eq!(bench.shard.places(), [Place::Judging, Place::Judging]);
    bench.call(0, true, "");
    bench.step(&[Event::DeskFull(false)]);
    assert_eq!((bench.count(Code::PushOk), bench.count(Code::PushTout)), (1, 1));
    bench.step(&[Event::DeskFull(true)]);
    bench.pass(INTERVAL);
    bench.command(CommandKind::Disable { epoch: 1 });
    bench.sound();
}

#[test]
fn while_the_process_stood_still_nobody_missed_anything() {
    let mut bench = Bench::new(1);
    bench.call(0, true, "");
    bench.pass(INTERVAL);
    bench.stand_still(INTERVAL + INTERVAL);
    bench.pass(PUSH_SETTLE - Span::from_millis(1));
    assert_eq!(bench.told.len(), 1, "calls may lie unread");
    bench.pass(Span::from_millis(1));
    assert_eq!((bench.last().0, bench.last().1), (TransitionKind::VoidBegan, Code::Void(VoidReason::Stall)));
    // The deadlines were at 6, 11 and 16 minutes; the one that is to come counts.
    assert_eq!(bench.shard.stats().missed, 1);
    assert_eq!(bench.state().next_due, Some(BEGIN + INTERVAL.scaled(3, 1) + GRACE));
    bench.pass(Span::from_secs(60));
    assert_eq!(bench.last().1, Code::PushTout);

    // A deadline that comes soon after: the call may have come before it.
    let mut bench = Bench::new(1);
    bench.call(0, true, "");
    bench.pass(INTERVAL);
    bench.stand_still(GRACE - Span::from_millis(10));
    bench.pass(Span::from_secs(1));
    assert_eq!(bench.told.len(), 1);
    bench.call(0, true, "");
    bench.pass(Span::from_secs(60));
    assert_eq!(bench.count(Code::PushTout), 0);
}

#[test]
fn lengths_of_time_are_said_without_zeroes() {
    for (span, text) in [
        (Span::from_secs(300), "5 m"),
        (Span::from_secs(301), "5 m 1 s"),
        (Span::from_secs(7_200), "2 h"),
        (Span::from_secs(60), "1 m"),
        (Span::from_secs(10), "10 s"),
        (Span::from_millis(1), "1 ms"),
        (Span::from_millis(500), "500 ms"),
        (Span::ZERO, "0 ms"),
    ] {
        assert_eq!(said(span), text);
    }
}
