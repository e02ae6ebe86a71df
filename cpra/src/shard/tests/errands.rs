//! Checks that a driver does beside the ring: whose time it is that passes.

use super::*;
use crate::domain::monitor::{IcmpCheck, ScriptCheck};
use crate::probe::errand::{ErrandEnd, Exit};

fn script(name: &str) -> Monitor {
    let argv = Box::new(["/opt/look".into()]);
    let check = Check::Script(ScriptCheck { argv, env: Box::default(), cwd: None });
    monitor(name, check, Host::Literal("0.0.0.0".parse().expect("an address")))
}

impl Bench {
    fn begun(&mut self, at: Instant) {
        let generation = *self.errands.last().expect("one was asked for");
        self.step(vec![Event::Begun { slot: Slot(0), generation, at }]);
    }

    fn returned(&mut self, generation: Generation, end: ErrandEnd) {
        self.step(vec![Event::Returned { slot: Slot(0), generation, end: Box::new(end) }]);
    }

    fn exited(&mut self, code: u8) {
        let generation = *self.errands.last().expect("one was asked for");
        self.returned(generation, ErrandEnd::Exited { status: Exit::Code(code), output: "".into() });
    }
}

#[test]
fn an_errands_end_is_judged_and_frees_its_slot() {
    let mut bench = Bench::new(vec![script("a"), script("b")]);
    bench.check("a");
    bench.check("b");
    assert_eq!(bench.errands.len(), 1, "there is one slot");
    bench.begun(bench.now);
    bench.exited(0);
    assert_eq!(bench.outcome("a"), Some(Code::ProcOk));
    assert_eq!(bench.errands.len(), 2);
    bench.exited(2);
    assert_eq!(bench.outcome("b"), Some(Code::ProcErr), "whether or not its begin was told");
    assert_eq!(bench.recalls, []);
}

#[test]
fn an_attempt_begins_when_its_errand_does() {
    let mut bench = Bench::new(vec![script("a")]);
    bench.check("a");
    bench.pass(Span::from_secs(4));
    bench.begun(bench.now);
    bench.pass(Span::from_secs(4));
    assert_eq!(bench.outcome("a"), None, "it has five seconds of its own");
    bench.pass(Span::from_secs(1));
    assert_eq!(bench.outcome("a"), Some(Code::ProcTout));
    assert_eq!(bench.recalls, bench.errands);
}

#[test]
fn what_has_not_begun_in_time_is_no_failure() {
    let mut bench = Bench::new(vec![script("a")]);
    bench.check("a");
    bench.pass(TIMEOUT);
    assert_eq!(bench.outcome("a"), Some(Code::Void(VoidReason::Stall)));
    let first = bench.errands[0];
    assert_eq!(bench.recalls, [first]);
    // The slot is the old errand's until that has returned, whatever is told about it.
    bench.check("a");
    bench.begun(bench.now);
    assert_eq!(bench.errands.len(), 1);
    bench.returned(first, ErrandEnd::Recalled);
    assert_eq!(bench.errands.len(), 2);
    // News of the old one are none of the new one.
    bench.step(vec![Event::Begun { slot: Slot(0), generation: first, at: bench.now }]);
    bench.returned(first, ErrandEnd::Exited { status: Exit::Code(0), output: "".into() });
    assert_eq!(bench.outcome("a"), Some(Code::Void(VoidReason::Stall)));
    bench.exited(0);
    assert_eq!(bench.outcome("a"), Some(Code::ProcOk));
}

#[test]
fn a_retry_is_an_errand_of_its_own() {
    let mut retried = script("a");
    retried.policy.retries = 1;
    let mut bench = Bench::new(vec![retried]);
    bench.check("a");
    bench.begun(bench.now);
    bench.exited(2);
    assert_eq!((bench.outcome("a"), bench.errands.len()), (None, 1));
    bench.pass(Span::from_millis(100));
    assert_eq!(bench.errands.len(), 2);
    bench.pass(TIMEOUT);
    assert_eq!(bench.outcome("a"), Some(Code::Void(VoidReason::Stall)), "the second one did not begin");
}

/// Of an echo request nothing is pending that would free the slot later on.
#[test]
fn a_monitor_that_is_disabled_between_two_echoes_leaves_its_slot() {
    let check = Check::Icmp(IcmpCheck { count: 2, max_loss: 0, max_rtt: None });
    let echo = monitor("echo", check, Host::Literal("10.0.0.9".parse().expect("an address")));
    let mut bench = Bench::new(vec![echo, tcp("next")]);
    bench.check("echo");
    assert_eq!(bench.shard.in_flight(), 1);
    bench.command("echo", CommandKind::Disable { epoch: 2 });
    assert_eq!(bench.shard.in_flight(), 0);
    bench.check("next");
    bench.pass(Span::from_millis(1));
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("next"), Some(Code::L4Ok), "there is one slot, and it is free");
}
