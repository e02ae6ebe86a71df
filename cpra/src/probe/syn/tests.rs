//! What a half-open check makes of what comes back, as a table; and when it asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::domain::monitor::TcpMode;
use crate::domain::{Check, HostRef, Policy, TargetRef, TcpCheck, Verdict};

const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 254));

/// A probe in the shard's hands.
struct Attempt {
    policy: Arc<Policy>,
    address: SocketAddr,
    ops: Ops,
    probe: SynProbe,
}

fn request(policy: &Arc<Policy>, address: SocketAddr) -> Request<'_> {
    let target = TargetRef { host: HostRef::Literal(address.ip()), port: address.port(), path: "" };
    Request { policy, target, address, hop: None, contexts: &crate::wire::tls::Unloaded }
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Span::from_millis(millis)
}

impl Attempt {
    fn start(address: &str) -> Self {
        let check = Check::Tcp(TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() });
        let policy = Arc::new(Policy::new(check, Span::from_secs(10), Span::from_secs(5)));
        let mut ops = Ops::default();
        let probe = SynProbe::start(Instant::ZERO, &mut ops);
        Self { policy, address: address.parse().expect("an address"), ops, probe }
    }

    /// Is woken as it wishes, until a time; answers when each SYN left.
    fn until(&mut self, millis: u64) -> Vec<(u16, u64)> {
        let mut left: Vec<_> = self.ops.syn.take().map(|number| (number, 0)).into_iter().collect();
        while let Some(wake) = self.ops.wake.take().filter(|&wake| wake <= at(millis)) {
            self.probe.woken(wake, &mut self.ops);
            left.extend(self.ops.syn.take().map(|number| (number, wake.since(Instant::ZERO).as_millis())));
        }
        left
    }

    fn echo(&mut self, number: u16, echo: Echo) -> Option<Outcome> {
        let judgement = self.probe.echoed(&request(&self.policy, self.address), number, echo)?;
        assert_eq!(judgement.then, Then::Disconnect);
        Some(judgement.outcome)
    }
}

const fn ack(millis: u64) -> Echo {
    Echo::Reply { rtt: Span::from_millis(millis) }
}

const fn refusal(millis: u64) -> Echo {
    Echo::Refused { rtt: Span::from_millis(millis) }
}

const fn error(kind: u8, code: u8, from: Option<IpAddr>) -> Echo {
    Echo::Error { kind, code, from }
}

#[test]
fn syns_leave_when_the_kernels_would() {
    let times = [(0, 0), (1, 1_000), (2, 3_000), (3, 7_000), (4, 15_000), (5, 31_000), (6, 63_000)];
    let mut attempt = Attempt::start("192.0.2.1:80");
    assert_eq!(attempt.until(200_000), times);
    assert_eq!((attempt.ops.syn, attempt.ops.wake), (None, None), "no more than that");
    attempt.probe.woken(at(200_000), &mut attempt.ops);
    assert_eq!((attempt.ops.syn, attempt.ops.wake), (None, None), "whoever wakes it");
    assert_eq!(Attempt::start("192.0.2.1:80").until(999), times[..1]);
    assert_eq!(Attempt::start("192.0.2.1:80").until(3_000), times[..3]);
}

#[test]
fn after_a_stall_one_syn_leaves_and_gets_its_time() {
    let mut attempt = Attempt::start("192.0.2.1:80");
    attempt.ops.clear();
    attempt.probe.woken(at(4_500), &mut attempt.ops);
    assert_eq!((attempt.ops.syn, attempt.ops.wake), (Some(1), Some(at(6_500))));
}

/// SYNs by the time of what comes, the number that it names; the code (none: not heard), the time of the connect in
/// milliseconds, the evidence.
type Row<'a> = (&'a str, u64, u16, Echo, Option<(Code, u64, &'a str)>);

#[test]
fn the_verdicts() {
    const V4: &str = "192.0.2.1:80";
    const V6: &str = "[2001:db8::1]:443";
    let router6 = Some("2001:db8::ff".parse().expect("an address"));
    let unreachable = |evidence| Some((Code::L4Con, 0, evidence));
    let table: &[Row<'_>] = &[
        (V4, 0, 0, ack(5), Some((Code::L4Ok, 5, ""))),
        (V6, 0, 0, ack(5), Some((Code::L4Ok, 5, ""))),
        (V4, 0, 0, ack(0), Some((Code::L4Ok, 0, ""))),
        (V4, 0, 0, refusal(7), Some((Code::L4Con, 7, "connection refused 192.0.2.1:80"))),
        (V6, 0, 0, refusal(7), Some((Code::L4Con, 7, "connection refused [2001:db8::1]:443"))),
        // An answer to any of them; one to what was never sent is none.
        (V4, 3_000, 0, ack(3_100), Some((Code::L4Ok, 3_100, ""))),
        (V4, 3_000, 2, ack(5), Some((Code::L4Ok, 5, ""))),
        (V4, 3_000, 3, ack(5), None),
        (V4, 0, 1, ack(5), None),
        (V4, 0, u16::MAX, refusal(5), None),
        (V4, 0, 1, error(3, 1, None), None),
        (V4, 0, 0, error(3, 0, None), unreachable("192.0.2.1:80 unreachable: network unreachable")),
        (
            V4,
            1_000,
            1,
            error(3, 1, Some(ROUTER)),
            unreachable("192.0.2.1:80 unreachable: host unreachable, says 192.0.2.254"),
        ),
        (
            V4,
            0,
            0,
            error(3, 3, Some(ROUTER)),
            unreachable("192.0.2.1:80 unreachable: port unreachable, says 192.0.2.254"),
        ),
        (V4, 0, 0, error(3, 13, None), unreachable("192.0.2.1:80 unreachable: administratively prohibited")),
        (
            V4,
            0,
            0,
            error(11, 0, Some(ROUTER)),
            unreachable("192.0.2.1:80 unreachable: time to live exceeded (a routing loop?), says 192.0.2.254"),
        ),
        (
            V6,
            0,
            0,
            error(1, 3, router6),
            unreachable("[2001:db8::1]:443 unreachable: host unreachable, says 2001:db8::ff"),
        ),
        (V6, 0, 0, error(3, 0, None), {
            unreachable("[2001:db8::1]:443 unreachable: time to live exceeded (a routing loop?)")
        }),
        // The packet's size, a redirect, a quench, what nobody knows.
        (V4, 0, 0, error(3, 4, Some(ROUTER)), None),
        (V6, 0, 0, error(2, 0, router6), None),
        (V4, 0, 0, error(5, 1, Some(ROUTER)), None),
        (V4, 0, 0, error(4, 0, Some(ROUTER)), None),
        (V4, 0, 0, error(77, 7, Some(ROUTER)), None),
    ];
    for (row, &(address, millis, number, echo, expected)) in table.iter().enumerate() {
        let mut attempt = Attempt::start(address);
        attempt.until(millis);
        let outcome = attempt.echo(number, echo);
        let found = outcome.as_ref().map(|outcome| {
            let Latency { connect, resolve, tls, first_byte, total } = outcome.latency;
            assert_eq!([resolve, tls, first_byte, total], [Span::ZERO; 4], "row {row}");
            (outcome.code, connect.as_millis(), outcome.evidence.as_deref().unwrap_or(""))
        });
        assert_eq!(found, expected, "row {row}");
    }
}

#[test]
fn silence_is_a_timeout_in_the_words_of_a_connect() {
    let mut attempt = Attempt::start("192.0.2.1:80");
    attempt.until(4_999);
    let outcome = attempt.probe.expire(&request(&attempt.policy, attempt.address), at(5_000));
    assert_eq!((outcome.code, outcome.verdict()), (Code::L4Tout, Verdict::Fail));
    assert_eq!(outcome.cause(), "no answer from 192.0.2.1:80 in 5 s");
}

#[test]
fn what_this_host_does_not_send_says_nothing_about_the_target() {
    let to = "192.0.2.1:80";
    let cases = [
        (
            Echo::Unsent(Errno::ENETUNREACH),
            "VOID:ENETUNREACH",
            format!("this host sends no SYN to {to}: network unreachable"),
        ),
        (Echo::Unsent(Errno::EPERM), "VOID:EPERM", format!("this host sends no SYN to {to}: forbidden by this host")),
        (Echo::Unsent(Errno::ENOBUFS), "VOID:ENOBUFS", format!("this host sends no SYN to {to}: its queues are full")),
        (Echo::Unsent(Errno::EAGAIN), "VOID:ENOBUFS", format!("this host sends no SYN to {to}: its queues are full")),
        (
            Echo::NoSocket(Errno::EACCES),
            "VOID:EPERM",
            "no socket for half-open checks (forbidden by this host)".to_owned(),
        ),
        (
            Echo::NoSocket(Errno::EMFILE),
            "VOID:EMFILE",
            "no socket for half-open checks (too many open files)".to_owned(),
        ),
    ];
    for (echo, code, evidence) in cases {
        for number in [0, 1] {
            let mut attempt = Attempt::start(to);
            attempt.until(1_000);
            let outcome = attempt.echo(number, echo).expect("it is known at once");
            assert_eq!((outcome.code.as_str(), outcome.verdict()), (code, Verdict::Void));
            assert_eq!(outcome.cause(), evidence);
        }
    }
}
