//! The table of verdicts, over shard and desk together: checks are answered by hand, and what is counted is what a
//! person would see: the state, and the notices that leave.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use cpra::desk::{self, Desk, protocol as desk_protocol};
use cpra::domain::monitor::{CodeRule, Dispatch, MaxLatency};
use cpra::domain::{Check, Codes, Color, Destination, Host, Monitor, Policy, Target, TcpCheck};
use cpra::queueing::Setup;
use cpra::ring::{Completion, Errno, Op, OpKind};
use cpra::shard::{self, Effects, Shard, protocol as shard_protocol};
use cpra::units::{Generation, Instant, MonitorId, Slot, Span, Timestamp};
use cpra::world::Catalog;

/// What the next check meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    Up,
    Refusal,
    /// Up, but it takes its time.
    Slow,
    /// A fault of our own.
    NoPorts,
    Silence,
}

use Meets::{NoPorts, Refusal, Silence, Slow, Up};

const INTERVAL: Span = Span::from_secs(10);
const RETRY: Span = Span::from_secs(2);
const LATENCY_MAX: Span = Span::from_millis(100);
const SLOW: Span = Span::from_millis(180);

/// One monitor, its shard and the desk, with a network that does as it is told.
struct Bench {
    now: Instant,
    shard: Shard,
    desk: Desk,
    monitor: MonitorId,
    notices: Vec<(Color, Box<str>)>,
    /// When each check started.
    starts: Vec<Instant>,
    completions: VecDeque<(Slot, Generation, OpKind, Result<u32, Errno>)>,
    connecting: Option<(Slot, Generation)>,
    commands: Vec<shard_protocol::Command>,
    transitions: VecDeque<Box<shard_protocol::Transition>>,
    drops: u64,
    /// How many deliveries fail before the next one is taken.
    failing: u32,
}

impl Bench {
    fn new(unhealthy: u8, healthy: u8, colors: &[(Color, Dispatch)]) -> Self {
        Self::with(true, unhealthy, healthy, colors, None)
    }

    /// With a limit of latency.
    fn hasty(fails: bool) -> Self {
        let colors = [(Color::Yellow, Dispatch::On), (Color::Red, Dispatch::On), (Color::Green, Dispatch::On)];
        Self::with(true, 3, 2, &colors, Some(MaxLatency { limit: LATENCY_MAX, fails })).settled()
    }

    fn with(
        enabled: bool,
        unhealthy: u8,
        healthy: u8,
        colors: &[(Color, Dispatch)],
        max_latency: Option<MaxLatency>,
    ) -> Self {
        let log = Arc::new(Destination::log(None));
        let mut codes = Codes::default();
        for &(color, dispatch) in colors {
            codes.set(color, CodeRule { dispatch, notify: Box::new([log.clone()]) });
        }
        let policy = Policy {
            retry_interval: RETRY,
            unhealthy_threshold: unhealthy,
            healthy_threshold: healthy,
            max_latency,
            codes,
            ..Policy::new(Check::Tcp(TcpCheck::default()), INTERVAL, Span::from_secs(1))
        };
        let address: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let target = Target { host: Host::Literal(address.ip()), port: address.port(), path: "".into() };
        let monitor = Monitor { name: "shop/web".into(), enabled, target, policy };
        let catalog = Arc::new(Catalog::build([monitor], 1).expect("one monitor fits"));
        let now = Instant::from_nanos(1_000_000_000_000);
        let shard_settings = shard::Settings { shard: 0, sizing: Setup::fixed(4), seed: 1 };
        let desk_settings = desk::Settings {
            instance: "test".into(),
            queue_capacity: 16,
            fallback: log,
            repeat_interval: None,
            merges: false,
            seed: 1,
        };
        let mut bench = Self {
            now,
            shard: Shard::new(&shard_settings, catalog.clone(), now),
            desk: Desk::new(
                desk_settings,
                catalog.clone(),
                desk_protocol::Stored { is_new: true, ..desk_protocol::Stored::default() },
                now,
            ),
            monitor: catalog.find("shop/web").expect("it is there"),
            notices: Vec::new(),
            starts: Vec::new(),
            completions: VecDeque::new(),
            connecting: None,
            commands: Vec::new(),
            transitions: VecDeque::new(),
            drops: 0,
            failing: 0,
        };
        bench.tell_desk(vec![desk_protocol::Event::Wall { at: now, shows: Timestamp::from_micros(0) }]);
        bench
    }

    /// Both kinds of alert, and green.
    fn usual() -> Self {
        Self::new(3, 2, &[(Color::Yellow, Dispatch::On), (Color::Red, Dispatch::On), (Color::Green, Dispatch::On)])
    }

    /// Runs until the next check has been judged.
    fn check(&mut self, meets: Meets) -> &mut Self {
        let judged_before = self.judged();
        for _ in 0..10_000 {
            if self.judged() > judged_before {
                return self;
            }
            self.turn(meets);
        }
        panic!("no check was judged");
    }

    fn checks(&mut self, all: &[Meets]) -> &mut Self {
        for &meets in all {
            self.check(meets);
        }
        self
    }

    fn judged(&self) -> u64 {
        self.shard.stats().checks.iter().flatten().sum()
    }

    /// One turn of the loop: what is there is delivered, else time goes on to the next deadline.
    fn turn(&mut self, meets: Meets) {
        if let Some(at) = self.connecting.take() {
            match meets {
                Up => self.completions.push_back((at.0, at.1, OpKind::Connect, Ok(0))),
                Slow => {
                    self.now += SLOW;
                    self.completions.push_back((at.0, at.1, OpKind::Connect, Ok(0)));
                }
                Refusal => self.completions.push_back((at.0, at.1, OpKind::Connect, Err(Errno::ECONNREFUSED))),
                NoPorts => self.completions.push_back((at.0, at.1, OpKind::Connect, Err(Errno::EADDRNOTAVAIL))),
                Silence => self.connecting = Some(at),
            }
        }
        let commands = std::mem::take(&mut self.commands);
        if self.completions.is_empty() && commands.is_empty() {
            let deadlines = [self.shard.next_deadline(), self.desk.next_deadline()];
            let next = deadlines.into_iter().flatten().min().expect("something is due");
            self.now = next.max(self.now);
        }
        let completions: Vec<_> = self.completions.drain(..).collect();
        let mut events: Vec<_> = completions
            .iter()
            .map(|&(slot, generation, kind, result)| {
                let (more, local, data) = (false, false, &[][..]);
                shard_protocol::Event::Completed(Completion {
                    slot,
                    generation,
                    kind,
                    result,
                    more,
                    local,
                    data,
                    handshake: None,
                })
            })
            .chain(commands.into_iter().map(shard_protocol::Event::Command))
            .collect();
        events.push(shard_protocol::Event::HostSampled(shard_protocol::HostSample {
            taken: self.now,
            drops: self.drops,
            table_full: false,
        }));
        let mut effects = Effects::default();
        self.shard.step(self.now, &events, &mut effects);
        for effect in effects.list {
            self.carry_out(effect);
        }
        let transitions = std::mem::take(&mut self.transitions);
        self.tell_desk(transitions.into_iter().map(desk_protocol::Event::Transition).collect());
    }

    fn carry_out(&mut self, effect: shard_protocol::Effect) {
        match effect {
            shard_protocol::Effect::Submit { slot, generation, op: Op::Connect(_), .. } => {
                self.starts.push(self.now);
                self.connecting = Some((slot, generation));
            }
            shard_protocol::Effect::Submit { slot, generation, op: Op::Disconnect, .. } => {
                if self.connecting.take().is_some() {
                    self.completions.push_back((slot, generation, OpKind::Connect, Err(Errno::ECONNRESET)));
                }
                self.completions.push_back((slot, generation, OpKind::Disconnect, Ok(0)));
            }
            shard_protocol::Effect::Transition(transition) => self.transitions.push_back(transition),
            _ => {}
        }
    }

    /// Lets the desk step, with a store and a lane that answer at once.
    fn tell_desk(&mut self, mut events: Vec<desk_protocol::Event>) {
        loop {
            let mut effects = Vec::new();
            self.desk.step(self.now, std::mem::take(&mut events), &mut effects);
            for effect in effects {
                match effect {
                    desk_protocol::Effect::Commit(batch) => events.push(desk_protocol::Event::Durable(batch.sequence)),
                    desk_protocol::Effect::Deliver { id, notice } => {
                        let result = match self.failing.checked_sub(1) {
                            Some(left) => {
                                self.failing = left;
                                desk_protocol::DeliveryResult::Failed
                            }
                            None => {
                                self.notices.push((notice.color, notice.summary.clone()));
                                desk_protocol::DeliveryResult::Sent
                            }
                        };
                        events.push(desk_protocol::Event::Delivered { notice: id, delivered: result.into() });
                    }
                    desk_protocol::Effect::Command(command) => self.commands.push(command),
                    _ => {}
                }
            }
            if events.is_empty() {
                return;
            }
        }
    }

    fn colors(&self) -> Vec<Color> {
        self.notices.iter().map(|(color, _)| *color).collect()
    }

    fn state(&self) -> &'static str {
        let monitors = self.shard.stats().monitors;
        let held: Vec<_> = monitors.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(held.len(), 1, "one monitor has one state: {monitors:?}");
        shard_protocol::STATES[held[0].0]
    }

    /// Between the last two starts.
    fn gap(&self) -> Span {
        let [.., before, last] = self.starts[..] else { panic!("two checks must have started") };
        last.since(before)
    }

    /// Past the hold after the start.
    fn settled(mut self) -> Self {
        self.checks(&[Up, Up]);
        self.notices.clear();
        self
    }
}

#[test]
fn row_1_unknown_becomes_up_silently() {
    let mut bench = Bench::usual();
    assert_eq!(bench.check(Up).state(), "up");
    assert!(bench.notices.is_empty());
}

#[test]
fn row_2_the_first_failure_is_yellow_and_is_looked_at_again_soon() {
    let mut bench = Bench::usual().settled();
    bench.check(Refusal);
    assert_eq!(bench.state(), "suspect");
    assert_eq!(bench.notices, [(Color::Yellow, "shop/web: connection refused 127.0.0.1:80 (1 of 3)".into())]);
    bench.check(Refusal);
    assert_eq!(bench.gap(), RETRY);
}

#[test]
fn row_2_without_stored_state_raises_wait_for_an_interval() {
    let mut bench = Bench::usual();
    bench.check(Refusal);
    let failed = bench.now;
    assert!(bench.notices.is_empty(), "held");
    while bench.notices.is_empty() {
        bench.turn(Refusal);
    }
    assert_eq!(bench.colors()[0], Color::Yellow, "the raises leave in their order");
    assert!(bench.now.since(failed) <= INTERVAL);
}

#[test]
fn row_3_with_a_threshold_of_one_there_is_no_yellow() {
    let colors = [(Color::Yellow, Dispatch::On), (Color::Red, Dispatch::On)];
    let mut bench = Bench::new(1, 1, &colors).settled();
    bench.check(Refusal);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Red]));
}

#[test]
fn row_4_more_failures_below_the_threshold_say_nothing() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal, Refusal]);
    assert_eq!((bench.state(), bench.colors()), ("suspect", vec![Color::Yellow]));
}

#[test]
fn row_5_one_ok_ends_a_suspicion() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal, Refusal, Up]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow, Color::Green]));
    bench.checks(&[Refusal, Refusal]);
    assert_eq!(bench.state(), "suspect", "the streak began anew");
}

#[test]
fn row_6_the_threshold_is_red_once() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal, Refusal, Refusal]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]));
    assert_eq!(&*bench.notices[1].1, "shop/web is down: connection refused 127.0.0.1:80 (3 of 3)");
}

#[test]
fn row_22_more_failures_while_down_say_nothing() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal; 12]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]));
    assert_eq!(bench.gap(), RETRY);
}

#[test]
fn row_23_oks_below_the_healthy_threshold_do_not_end_it() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal, Refusal, Refusal, Up, Refusal, Up]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]));
}

#[test]
fn row_24_oks_in_a_row_end_it_with_one_green() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[Refusal, Refusal, Refusal, Up, Up]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow, Color::Red, Color::Green]));
    bench.checks(&[Up, Up]);
    assert_eq!(bench.gap(), INTERVAL, "back in its phase");
}

#[test]
fn decision_1_green_follows_a_raise_and_nothing_else() {
    let mut bench = Bench::new(3, 2, &[(Color::Green, Dispatch::On)]).settled();
    bench.checks(&[Refusal, Refusal, Refusal, Up, Up]);
    assert!(bench.notices.is_empty(), "nothing was raised");
    let mut bench = Bench::new(3, 2, &[(Color::Red, Dispatch::On)]).settled();
    bench.checks(&[Refusal, Refusal, Refusal, Up, Up]);
    assert_eq!(bench.colors(), [Color::Red, Color::Green], "whoever got a red hears of its end");
}

#[test]
fn decision_1_the_end_never_overtakes_a_raise_that_failed() {
    let mut bench = Bench::new(1, 1, &[(Color::Red, Dispatch::On)]).settled();
    // At once, and after a second: the third attempt is due two seconds later, and the recovery comes before it.
    bench.failing = 2;
    bench.checks(&[Refusal, Up]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Red, Color::Green]));
}

#[test]
fn decision_1_the_end_never_overtakes_a_raise_that_was_held_after_the_start() {
    let mut bench = Bench::new(1, 1, &[(Color::Red, Dispatch::On)]);
    let hold = bench.now + INTERVAL;
    bench.check(Refusal);
    while bench.connecting.is_none() {
        bench.turn(Silence);
    }
    // A desk that slept through the end of the hold hears of the recovery in the same step.
    bench.now = hold + Span::from_millis(1);
    bench.turn(Up);
    assert_eq!(bench.colors(), [Color::Red, Color::Green]);
}

#[test]
fn a_red_does_not_wait_for_the_retry_of_its_yellow() {
    let mut bench = Bench::new(8, 1, &[(Color::Yellow, Dispatch::On), (Color::Red, Dispatch::On)]).settled();
    // Tried after 0, 1, 3, and 7 s; the next time would be after 15. The red comes after 14.
    bench.failing = 4;
    bench.checks(&[Refusal; 8]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]));
}

#[test]
fn decision_16_always_is_red_at_the_first_failure_and_only_once() {
    let mut bench = Bench::new(3, 2, &[(Color::Red, Dispatch::Always)]).settled();
    bench.check(Refusal);
    assert_eq!(bench.state(), "suspect");
    assert_eq!(bench.notices, [(Color::Red, "shop/web failed: connection refused 127.0.0.1:80 (1 of 3)".into())]);
    bench.checks(&[Refusal, Refusal, Refusal]);
    assert_eq!(bench.colors(), [Color::Red]);
}

#[test]
fn a_color_that_is_switched_off_moves_the_state_all_the_same() {
    let mut bench = Bench::new(2, 1, &[(Color::Red, Dispatch::Off)]).settled();
    bench.checks(&[Refusal, Refusal]);
    assert_eq!(bench.state(), "down");
    assert!(bench.notices.is_empty());
}

#[test]
fn row_27_warnings_in_a_row_are_one_yellow_and_never_red() {
    let mut bench = Bench::hasty(false);
    bench.checks(&[Slow, Slow]);
    assert_eq!((bench.state(), bench.shard.stats().degraded), ("up", 0));
    bench.check(Up);
    bench.checks(&[Slow, Slow]);
    assert!(bench.notices.is_empty(), "the streak began anew");
    bench.check(Slow);
    assert_eq!((bench.state(), bench.shard.stats().degraded), ("up", 1));
    let words = "shop/web is degraded: took 180 ms, more than 100 ms (3 times in a row)";
    assert_eq!(bench.notices, [(Color::Yellow, words.into())]);
    bench.checks(&[Slow; 12]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow]), "never red");
    assert_eq!(bench.gap().as_secs(), INTERVAL.as_secs(), "nothing is suspected");
}

#[test]
fn row_27_clean_oks_end_it() {
    let mut bench = Bench::hasty(false);
    bench.checks(&[Slow, Slow, Slow, Up, Slow, Up]);
    assert_eq!((bench.colors(), bench.shard.stats().degraded), (vec![Color::Yellow], 1), "two clean ones in a row");
    bench.check(Up);
    assert_eq!((bench.state(), bench.shard.stats().degraded), ("up", 0));
    assert_eq!(bench.colors(), [Color::Yellow, Color::Green]);
    assert!(bench.notices[1].1.starts_with("shop/web is no longer degraded, after "), "{:?}", bench.notices[1]);
}

#[test]
fn row_27_elsewhere_a_warning_is_an_ok() {
    let mut bench = Bench::hasty(false);
    bench.checks(&[Refusal, Slow]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow, Color::Green]));
    let mut bench = Bench::hasty(false);
    bench.checks(&[Refusal, Refusal, Refusal, Slow, Slow]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow, Color::Red, Color::Green]));
}

#[test]
fn row_27_a_degraded_monitor_that_fails_goes_on_to_red_under_one_key() {
    let mut bench = Bench::hasty(false);
    bench.checks(&[Slow, Slow, Slow, Refusal, Refusal, Refusal]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]), "one yellow");
    bench.checks(&[Up, Up]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![Color::Yellow, Color::Red, Color::Green]));
}

#[test]
fn slow_is_a_failure_where_the_monitor_says_so() {
    let mut bench = Bench::hasty(true);
    bench.checks(&[Slow, Slow, Slow]);
    assert_eq!((bench.state(), bench.shard.stats().degraded), ("down", 0));
    let words = [
        "shop/web: took 180 ms, more than 100 ms (1 of 3)",
        "shop/web is down: took 180 ms, more than 100 ms (3 of 3)",
    ];
    assert_eq!(bench.notices, [(Color::Yellow, words[0].into()), (Color::Red, words[1].into())]);
}

#[test]
fn row_28_our_own_fault_counts_for_nothing() {
    let mut bench = Bench::usual().settled();
    bench.checks(&[NoPorts; 5]);
    assert_eq!((bench.state(), bench.colors()), ("up", vec![]));
    assert!(bench.gap() >= RETRY && bench.gap() <= RETRY.scaled(3, 2) + Span::from_millis(2), "{}", bench.gap());
    bench.checks(&[Refusal, NoPorts, Refusal, NoPorts]);
    assert_eq!(bench.state(), "suspect", "counters are untouched");
    bench.check(Refusal);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Yellow, Color::Red]));
}

#[test]
fn row_28_what_cannot_be_checked_for_long_is_told_once() {
    let mut bench = Bench::usual().settled();
    let began = bench.now;
    while bench.now.since(began) < Span::from_secs(660) {
        bench.check(NoPorts);
    }
    assert_eq!(bench.state(), "unknown");
    assert_eq!(bench.notices, [(Color::Yellow, "cannot check 1 monitor: no free source port 127.0.0.1:80".into())]);
    bench.check(Up);
    assert_eq!(bench.state(), "up");
    while bench.notices.len() < 2 {
        bench.turn(Up);
    }
    assert_eq!(bench.notices[1], (Color::Green, "all monitors can be checked again".into()));
}

#[test]
fn row_28_a_timeout_while_this_host_drops_packets_is_void() {
    let mut bench = Bench::usual().settled();
    let judged = bench.judged();
    while bench.judged() == judged {
        if bench.connecting.is_some() {
            bench.drops += 1;
        }
        bench.turn(Silence);
    }
    assert_eq!((bench.state(), bench.colors()), ("up", vec![]));
    bench.checks(&[Silence, Silence, Silence]);
    assert_eq!(
        (bench.state(), bench.colors()),
        ("down", vec![Color::Yellow, Color::Red]),
        "silence alone is a failure"
    );
}

#[test]
fn row_39_a_disabled_monitor_is_gray_never_green_and_is_checked_no_more() {
    let colors = [(Color::Red, Dispatch::On), (Color::Gray, Dispatch::On), (Color::Green, Dispatch::On)];
    let mut bench = Bench::new(1, 1, &colors).settled();
    bench.check(Refusal);
    let monitor = bench.monitor;
    bench.tell_desk(vec![desk_protocol::Event::Disable(monitor)]);
    bench.turn(Up);
    assert_eq!((bench.state(), bench.colors()), ("disabled", vec![Color::Red, Color::Gray]));
    assert_eq!(&*bench.notices[1].1, "shop/web is no longer watched");
    // A timer that a finished check left behind may still come up, and find nothing.
    for _ in 0..3 {
        if bench.shard.next_deadline().is_some() {
            bench.turn(Up);
        }
    }
    assert_eq!(bench.shard.next_deadline(), None, "nothing is due any more");
    bench.tell_desk(vec![desk_protocol::Event::Enable(monitor)]);
    assert_eq!(bench.check(Up).state(), "up");
    assert_eq!(bench.colors(), [Color::Red, Color::Gray]);
}

#[test]
fn row_39_a_check_in_flight_when_it_is_disabled_counts_for_nothing() {
    let mut bench = Bench::new(1, 1, &[(Color::Red, Dispatch::On)]).settled();
    while bench.connecting.is_none() {
        bench.turn(Silence);
    }
    let (monitor, judged) = (bench.monitor, bench.judged());
    bench.tell_desk(vec![desk_protocol::Event::Disable(monitor)]);
    for _ in 0..10 {
        if bench.shard.next_deadline().is_none() {
            break;
        }
        bench.turn(Silence);
    }
    assert_eq!((bench.state(), bench.judged()), ("disabled", judged));
    assert!(bench.notices.is_empty());
}

#[test]
fn row_39_a_monitor_that_the_file_disables_alerts_once_it_is_enabled() {
    let mut bench = Bench::with(false, 1, 1, &[(Color::Red, Dispatch::On)], None);
    let monitor = bench.monitor;
    for _ in 0..300 {
        bench.tell_desk(vec![desk_protocol::Event::Enable(monitor)]);
        bench.turn(Up);
        bench.tell_desk(vec![desk_protocol::Event::Disable(monitor)]);
        bench.turn(Up);
    }
    bench.tell_desk(vec![desk_protocol::Event::Enable(monitor)]);
    bench.checks(&[Up, Up, Refusal]);
    assert_eq!((bench.state(), bench.colors()), ("down", vec![Color::Red]));
}
