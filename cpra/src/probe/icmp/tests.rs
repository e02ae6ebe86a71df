//! What an ICMP check makes of what comes back, as a table; and when it asks and ends.

use super::*;
use crate::domain::{HostRef, Policy, TargetRef, Verdict};
use std::sync::Arc;

fn policy(count: u8, max_loss: u8, max_rtt: Option<u64>) -> Policy {
    Policy::new(
        Check::Icmp(IcmpCheck { count, max_loss, max_rtt: max_rtt.map(Span::from_millis) }),
        Span::from_secs(10),
        Span::from_secs(1),
    )
}

/// A probe in the shard's hands.
struct Attempt {
    policy: Arc<Policy>,
    now: Instant,
    ops: Ops,
    probe: IcmpProbe,
}

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 254));

fn request(policy: &Arc<Policy>) -> Request<'_> {
    let target = TargetRef { host: HostRef::Literal(ADDRESS), port: 0, path: "" };
    Request { policy, target, address: (ADDRESS, 0).into(), hop: None, contexts: &crate::wire::tls::Unloaded }
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Span::from_millis(millis)
}

impl Attempt {
    fn start(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        let mut ops = Ops::default();
        let probe = IcmpProbe::start(&request(&policy), Instant::ZERO, &mut ops);
        Self { policy, now: Instant::ZERO, ops, probe }
    }

    /// Goes on to a time, being woken as asked for; answers when each request left.
    fn until(&mut self, millis: u64) -> Vec<(u16, u64)> {
        let mut left: Vec<_> = self.ops.pings.drain(..).map(|sequence| (sequence, self.now)).collect();
        while let Some(wake) = self.ops.wake.take().filter(|&wake| wake <= at(millis)) {
            self.now = wake;
            assert!(self.probe.woken(&request(&self.policy), wake, &mut self.ops).is_none());
            left.extend(self.ops.pings.drain(..).map(|sequence| (sequence, wake)));
        }
        self.now = at(millis);
        left.into_iter().map(|(sequence, at)| (sequence, at.since(Instant::ZERO).as_millis())).collect()
    }

    fn echo(&mut self, sequence: u16, echo: Echo) -> Option<Outcome> {
        let judgement = self.probe.echoed(&request(&self.policy), sequence, echo, self.now)?;
        assert_eq!(judgement.then, Then::Disconnect);
        Some(judgement.outcome)
    }

    fn expire(&self) -> Outcome {
        self.probe.expire(&request(&self.policy), at(1_000))
    }
}

const fn reply(millis: u64) -> Echo {
    Echo::Reply { rtt: Span::from_millis(millis) }
}

const HOST: Echo = Echo::Error { kind: 3, code: 1, from: Some(ROUTER) };

#[track_caller]
fn assert_outcome(outcome: &Outcome, code: Code, evidence: &str) {
    assert_eq!((outcome.code, outcome.evidence.as_deref().unwrap_or("")), (code, evidence));
}

#[test]
fn requests_leave_evenly_over_half_of_the_timeout() {
    assert_eq!(Attempt::start(policy(1, 0, None)).until(999), [(0, 0)]);
    assert_eq!(Attempt::start(policy(3, 0, None)).until(999), [(0, 0), (1, 166), (2, 333)]);
    let mut long = policy(3, 0, None);
    long.timeout = Span::from_secs(60);
    assert_eq!(Attempt::start(long).until(999), [(0, 0), (1, 200), (2, 400)]);
    let many = Attempt::start(policy(255, 0, None)).until(500);
    assert_eq!((many.len(), many[254]), (255, (254, 498)));
}

#[test]
fn after_a_stall_what_is_late_leaves_at_once() {
    let mut attempt = Attempt::start(policy(5, 0, None));
    attempt.ops.clear();
    attempt.probe.woken(&request(&attempt.policy), at(350), &mut attempt.ops);
    assert_eq!((&attempt.ops.pings[..], attempt.ops.wake), (&[1, 2, 3][..], Some(at(400))));
}

/// Count, loss, limit of the mean; what comes back; the outcome, and whether it is known before the time is up.
type Row<'a> = (u8, u8, Option<u64>, &'a [(u16, Echo)], Code, &'a str, bool);

#[test]
fn the_verdicts() {
    use Code::{L3Con, L3Ok, L3Rsp, L3Tout};
    const LOST: &[(u16, Echo)] = &[];
    const PROHIBITED: Echo = Echo::Error { kind: 3, code: 13, from: None };
    const UNKNOWN: Echo = Echo::Error { kind: 77, code: 7, from: Some(ROUTER) };
    let table: &[Row<'_>] = &[
        (1, 0, None, &[(0, reply(5))], L3Ok, "", true),
        (1, 0, Some(5), &[(0, reply(5))], L3Ok, "", true),
        (1, 0, Some(5), &[(0, reply(6))], L3Rsp, "mean round trip 6.0 ms, at most 5.0 ms", true),
        (1, 0, None, LOST, L3Tout, "no answer from 192.0.2.1 to 1 echo request in 1 s", false),
        (3, 0, None, LOST, L3Tout, "no answer from 192.0.2.1 to 3 echo requests in 1 s", false),
        // All may be lost, but then there is nobody.
        (3, 100, None, LOST, L3Tout, "no answer from 192.0.2.1 to 3 echo requests in 1 s", false),
        (3, 100, None, &[(2, reply(5))], L3Ok, "", true),
        (3, 255, None, &[(2, reply(5))], L3Ok, "", true),
        (3, 0, None, &[(2, reply(5)), (0, reply(6)), (1, reply(7))], L3Ok, "", true),
        (3, 20, None, &[(0, reply(5))], L3Rsp, "2 of 3 lost, at most 20 %", false),
        (3, 20, None, &[(0, reply(5)), (1, reply(5))], L3Rsp, "1 of 3 lost, at most 20 %", false),
        (3, 34, None, &[(0, reply(5)), (1, reply(5))], L3Ok, "", true),
        (5, 20, None, &[(0, reply(5)), (1, reply(5)), (3, reply(5)), (4, reply(5))], L3Ok, "", true),
        // A mean is of all that come back.
        (2, 50, Some(100), &[(0, reply(90))], L3Ok, "", false),
        (2, 50, Some(100), &[(0, reply(90)), (1, reply(330))], L3Rsp, "mean round trip 210 ms, at most 100 ms", true),
        // Duplicates count once, and so do replies after an error and the other way round.
        (2, 0, None, &[(0, reply(5)), (0, reply(5))], L3Rsp, "1 of 2 lost, at most 0 %", false),
        (2, 0, Some(9), &[(0, reply(5)), (0, reply(99)), (1, reply(5))], L3Ok, "", true),
        (2, 50, Some(9), &[(0, HOST), (0, reply(5)), (1, reply(5))], L3Ok, "", true),
        // What was never asked.
        (
            2,
            0,
            None,
            &[(2, reply(5)), (255, reply(5)), (u16::MAX, HOST)],
            L3Tout,
            "no answer from 192.0.2.1 to 2 echo requests in 1 s",
            false,
        ),
        (1, 0, None, &[(0, HOST)], L3Con, "192.0.2.1 unreachable: host unreachable, says 192.0.2.254", true),
        (1, 0, None, &[(0, PROHIBITED)], L3Con, "192.0.2.1 unreachable: administratively prohibited", true),
        (1, 0, None, &[(0, UNKNOWN)], L3Con, "192.0.2.1 unreachable: ICMP type 77 code 7, says 192.0.2.254", true),
        // Once too few can be answered, the rest is not waited for; the first error speaks.
        (3, 20, None, &[(1, HOST)], L3Con, "192.0.2.1 unreachable: host unreachable, says 192.0.2.254", true),
        (
            3,
            100,
            None,
            &[(1, HOST), (2, PROHIBITED)],
            L3Con,
            "192.0.2.1 unreachable: host unreachable, says 192.0.2.254",
            false,
        ),
        (
            3,
            20,
            None,
            &[(0, reply(5)), (1, HOST)],
            L3Rsp,
            "2 of 3 lost, at most 20 % (host unreachable, says 192.0.2.254)",
            true,
        ),
        (3, 40, None, &[(0, reply(5)), (1, HOST), (2, reply(5))], L3Ok, "", true),
    ];
    for (row, &(count, max_loss, max_rtt, echoes, code, evidence, early)) in table.iter().enumerate() {
        let mut attempt = Attempt::start(policy(count, max_loss, max_rtt));
        attempt.until(700);
        let mut outcome = None;
        for &(sequence, echo) in echoes {
            assert_eq!(outcome, None, "row {row} ends too early");
            outcome = attempt.echo(sequence, echo);
        }
        assert_eq!(outcome.is_some(), early, "row {row}: {outcome:?}");
        println!("row {row}");
        assert_outcome(&outcome.unwrap_or_else(|| attempt.expire()), code, evidence);
    }
}

#[test]
fn the_mean_is_the_latency() {
    let mut attempt = Attempt::start(policy(2, 0, None));
    attempt.until(700);
    assert!(attempt.echo(1, reply(10)).is_none());
    let outcome = attempt.echo(0, reply(5)).expect("all are back");
    assert_eq!(outcome.latency, Latency { first_byte: Span::from_micros(7_500), ..Latency::default() });
}

#[test]
fn an_error_before_the_last_request_left_decides_when_it_has() {
    let mut attempt = Attempt::start(policy(2, 0, None));
    assert!(attempt.echo(0, HOST).is_none(), "the other way may be better");
    let judgement = attempt.probe.woken(&request(&attempt.policy), at(250), &mut attempt.ops);
    assert_eq!(judgement.map(|judgement| judgement.outcome.code), Some(Code::L3Con));
}

#[test]
fn what_this_host_does_not_send_says_nothing_about_the_target() {
    let remedy = "give the daemon CAP_NET_RAW, or its group a place in net.ipv4.ping_group_range";
    let cases = [
        (
            Echo::Unsent(Errno::ENETUNREACH),
            "VOID:ENETUNREACH",
            "this host sends no echo request to 192.0.2.1: network unreachable".to_owned(),
        ),
        (
            Echo::Unsent(Errno::EPERM),
            "VOID:EPERM",
            "this host sends no echo request to 192.0.2.1: forbidden by this host".to_owned(),
        ),
        (
            Echo::Unsent(Errno::ENOBUFS),
            "VOID:ENOBUFS",
            "this host sends no echo request to 192.0.2.1: its queues are full".to_owned(),
        ),
        (
            Echo::Unsent(Errno::EAGAIN),
            "VOID:ENOBUFS",
            "this host sends no echo request to 192.0.2.1: its queues are full".to_owned(),
        ),
        (
            Echo::NoSocket(Errno::EACCES),
            "VOID:EPERM",
            format!("no socket for echo requests (forbidden by this host): {remedy}"),
        ),
        (Echo::NoSocket(Errno::EMFILE), "VOID:EMFILE", "no socket for echo requests (too many open files)".to_owned()),
    ];
    for (echo, code, evidence) in cases {
        let mut attempt = Attempt::start(policy(3, 100, None));
        let outcome = attempt.echo(0, echo).expect("it is known at once");
        assert_eq!((outcome.code.as_str(), outcome.verdict()), (code, Verdict::Void));
        assert_eq!(outcome.cause(), evidence);
    }
}
