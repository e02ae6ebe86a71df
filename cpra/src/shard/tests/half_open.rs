//! Half-open checks: with whom they go while somebody sees the answers, and what becomes of them when nobody does.

use super::*;
use crate::domain::monitor::TcpMode;
use crate::probe::errand::Echo;

fn half_open(name: &str) -> Monitor {
    let check = TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() };
    monitor(name, Check::Tcp(check), Host::Literal("10.0.0.7".parse().expect("an address")))
}

fn retried(name: &str) -> Monitor {
    let mut monitor = half_open(name);
    monitor.policy.retries = 1;
    monitor
}

const ACK: Echo = Echo::Reply { rtt: Span::from_millis(3) };

impl Bench {
    fn can(&mut self, can: bool) {
        self.step(vec![Event::HalfOpen(can)]);
    }

    /// For the last SYN's check.
    fn echoed(&mut self, attempt: u16, echo: Echo) {
        let (_, generation, _) = *self.syns.last().expect("one was sent");
        self.echoed_to(generation, attempt, echo);
    }

    fn echoed_to(&mut self, generation: Generation, sequence: u16, echo: Echo) {
        self.step(vec![Event::Echoed { slot: Slot(0), generation, sequence, echo }]);
    }

    fn syns(&self) -> Vec<(u16, u64)> {
        self.syns.iter().map(|&(at, _, attempt)| (attempt, at.since(BEGIN).as_millis())).collect()
    }
}

#[test]
fn a_half_open_check_has_no_socket() {
    let mut bench = Bench::new(vec![half_open("a"), half_open("b")]);
    bench.can(true);
    bench.check("a");
    bench.check("b");
    assert_eq!((bench.syns(), bench.shard.in_flight()), (vec![(0, 0)], 1), "there is one slot");
    bench.echoed(0, ACK);
    assert_eq!((bench.outcome("a"), bench.syns().len()), (Some(Code::L4Ok), 2), "and it is free at once");
    bench.echoed(0, Echo::Refused { rtt: Span::from_millis(1) });
    assert_eq!(bench.outcome("b"), Some(Code::L4Con));
    assert_eq!((bench.submitted.len(), bench.opened), (0, 0));
}

#[test]
fn a_syn_is_sent_again_until_the_time_is_up() {
    let mut bench = Bench::new(vec![half_open("a")]);
    bench.can(true);
    bench.check("a");
    bench.pass(TIMEOUT);
    assert_eq!(bench.syns(), [(0, 0), (1, 1_000), (2, 3_000)]);
}

#[test]
fn silence_is_asked_again_by_a_connect() {
    let mut bench = Bench::new(vec![half_open("a")]);
    bench.can(true);
    bench.check("a");
    assert_eq!(bench.count(OpKind::Connect), 0);
    bench.pass(TIMEOUT);
    assert_eq!((bench.outcome("a"), bench.count(OpKind::Connect), bench.opened), (None, 1, 1));
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Ok), "the answer had come unseen");
    let syns = bench.syns.len();
    bench.check("a");
    assert_eq!(bench.syns.len(), syns + 1, "it is up: half a connection will do");
    bench.pass(TIMEOUT);
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Con));
    let syns = bench.syns.len();
    bench.check("a");
    assert_eq!((bench.syns.len(), bench.count(OpKind::Connect)), (syns, 3), "who is not up gets a whole one at once");
}

#[test]
fn an_answer_to_an_older_attempt_is_none_of_this_one() {
    let mut bench = Bench::new(vec![half_open("a")]);
    bench.can(true);
    bench.check("a");
    let (_, first, _) = bench.syns[0];
    bench.pass(TIMEOUT);
    bench.echoed_to(first, 0, ACK);
    assert_eq!((bench.outcome("a"), bench.shard.in_flight()), (None, 1));
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Ok));
    bench.check("a");
    bench.echoed_to(first, 0, Echo::Refused { rtt: Span::ZERO });
    assert_eq!(bench.shard.in_flight(), 1);
    bench.echoed(0, ACK);
    assert_eq!(bench.shard.in_flight(), 0);
    // Twice.
    bench.echoed(0, Echo::Refused { rtt: Span::ZERO });
    assert_eq!(bench.outcome("a"), Some(Code::L4Ok));
}

#[test]
fn where_nobody_would_see_the_answer_a_connect_is_made() {
    let mut bench = Bench::new(vec![half_open("a")]);
    bench.check("a");
    assert_eq!((bench.syns.len(), bench.count(OpKind::Connect)), (0, 1), "nobody has said that there is more");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Ok));
    bench.can(true);
    bench.can(false);
    bench.check("a");
    assert_eq!((bench.syns.len(), bench.count(OpKind::Connect)), (0, 2));
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Con));
}

#[test]
fn what_is_seen_in_spite_of_all_counts() {
    for (echo, code) in [(ACK, Code::L4Ok), (Echo::Refused { rtt: Span::ZERO }, Code::L4Con)] {
        let mut bench = Bench::new(vec![half_open("a")]);
        bench.can(true);
        bench.check("a");
        bench.can(false);
        bench.echoed(0, echo);
        assert_eq!(bench.outcome("a"), Some(code));
    }
}

#[test]
fn a_retry_goes_the_way_that_there_is_by_then() {
    let mut bench = Bench::new(vec![retried("a")]);
    bench.can(true);
    bench.check("a");
    bench.can(false);
    bench.echoed(0, Echo::Refused { rtt: Span::ZERO });
    bench.pass(Span::from_millis(200));
    assert_eq!((bench.count(OpKind::Connect), bench.opened), (1, 1), "the slot gets the socket that it had not needed");
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    assert_eq!(bench.outcome("a"), Some(Code::L4Con));

    let mut bench = Bench::new(vec![retried("a")]);
    bench.check("a");
    bench.can(true);
    bench.answer(&[(OpKind::Connect, Err(Errno::ECONNREFUSED), b"")]);
    bench.pass(Span::from_millis(200));
    assert_eq!((bench.syns.len(), bench.count(OpKind::Connect)), (1, 1));
    bench.echoed(0, ACK);
    assert_eq!(bench.outcome("a"), Some(Code::L4Ok));
}

#[test]
fn a_monitor_that_is_disabled_in_flight_leaves_its_slot() {
    let mut bench = Bench::new(vec![half_open("a"), tcp("next")]);
    bench.can(true);
    bench.check("a");
    assert_eq!(bench.shard.in_flight(), 1);
    bench.command("a", CommandKind::Disable { epoch: 2 });
    assert_eq!(bench.shard.in_flight(), 0);
    bench.check("next");
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("next"), Some(Code::L4Ok));
}

#[test]
fn a_syn_that_may_not_leave_yet_leaves_later() {
    let mut bench = Bench::new((0..6).map(|n| half_open(&format!("m{n}"))).collect());
    bench.shard.core.bounds = super::super::Bounds::new(super::super::Rates { echo: 2, syn: 2 }, BEGIN);
    bench.can(true);
    for n in 0..6 {
        bench.check(&format!("m{n}"));
    }
    assert_eq!(bench.syns.len(), 1, "one at once, and one in a second");
    for n in 0..5 {
        bench.echoed(0, ACK);
        assert_eq!((bench.outcome(&format!("m{n}")), bench.syns.len()), (Some(Code::L4Ok), n + 1));
        bench.pass(Span::from_millis(1_001));
        assert_eq!(bench.syns.len(), n + 2);
    }
    assert_eq!(bench.shard.stats().held, [0, 5]);
}
