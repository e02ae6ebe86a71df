//! One test per row of what can become of an HTTP check, driven by completions made by hand.

mod content;
mod redirect;

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::domain::{Policy, StatusSet, TargetRef, Verdict, VoidReason};
use crate::units::{Generation, Slot};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn policy(change: impl FnOnce(&mut HttpCheck)) -> Policy {
    let mut check = HttpCheck::default();
    change(&mut check);
    Policy::new(Check::Http(check), Span::from_secs(10), Span::from_secs(5))
}

/// A probe in the shard's hands: one millisecond passes before each completion.
struct Attempt {
    policy: Arc<Policy>,
    address: SocketAddr,
    now: Instant,
    ops: Ops,
    probe: HttpProbe,
}

impl Attempt {
    fn begin(policy: Policy, begin: fn(&Request<'_>, Instant, &mut Ops) -> HttpProbe) -> Self {
        let policy = Arc::new(policy);
        let address = SocketAddr::from(([192, 0, 2, 1], 8080));
        let mut ops = Ops::default();
        let probe = begin(&request(&policy, address), Instant::ZERO, &mut ops);
        Self { policy, address, now: Instant::ZERO, ops, probe }
    }

    fn start(policy: Policy) -> Self {
        let attempt = Self::begin(policy, HttpProbe::start);
        assert_eq!(attempt.ops.list, [Op::Connect(attempt.address)]);
        attempt
    }

    /// Connected, and the request sent.
    fn asked(policy: Policy) -> Self {
        let mut attempt = Self::start(policy);
        assert!(attempt.on(OpKind::Connect, Ok(0)).is_none());
        assert_eq!(attempt.ops.list, [Op::Send, Op::Recv]);
        let sent = u32::try_from(attempt.ops.bytes.len()).expect("small");
        assert!(attempt.on(OpKind::Send, Ok(sent)).is_none());
        attempt
    }

    fn plain() -> Self {
        Self::asked(policy(|_| {}))
    }

    fn complete(&mut self, kind: OpKind, result: Result<u32, Errno>, more: bool, data: &[u8]) -> Option<Judgement> {
        self.now += Span::from_millis(1);
        self.ops.clear();
        let completion = Completion {
            slot: Slot(0),
            generation: Generation(0),
            kind,
            result,
            more,
            local: false,
            data,
            handshake: None,
        };
        self.probe.on(&request(&self.policy, self.address), &completion, self.now, &mut self.ops)
    }

    fn on(&mut self, kind: OpKind, result: Result<u32, Errno>) -> Option<Judgement> {
        self.complete(kind, result, false, b"")
    }

    fn receive(&mut self, data: &str) -> Option<Judgement> {
        self.complete(OpKind::Recv, Ok(u32::try_from(data.len()).expect("small")), true, data.as_bytes())
    }

    fn fin(&mut self) -> Option<Judgement> {
        self.on(OpKind::Recv, Ok(0))
    }

    fn expire(&self) -> Outcome {
        self.probe.expire(&request(&self.policy, self.address), Instant::ZERO + Span::from_secs(5))
    }
}

fn request(policy: &Arc<Policy>, address: SocketAddr) -> Request<'_> {
    let target = TargetRef { host: HostRef::Literal(address.ip()), port: address.port(), path: "/health" };
    Request { policy, target, address, hop: None, contexts: &crate::wire::tls::Unloaded }
}

#[track_caller]
fn assert_judged(judgement: Option<Judgement>, code: Code, evidence: &str, then: Then) -> Outcome {
    let Judgement { outcome, then: found } = judgement.expect("judged");
    assert_eq!((outcome.code, outcome.evidence.as_deref().unwrap_or(""), found), (code, evidence, then));
    outcome
}

#[test]
fn an_expected_answer_is_ok_and_has_its_latencies() {
    let mut attempt = Attempt::plain();
    assert!(attempt.receive("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").is_none());
    let outcome = assert_judged(attempt.receive("hi"), Code::L7Ok, "", Then::AwaitFin);
    assert_eq!((outcome.verdict(), outcome.status), (Verdict::Ok, Some(200)));
    assert_eq!(outcome.latency.connect, Span::from_millis(1));
    // The request went out with the connect's completion; sending and the head took one each.
    assert_eq!(outcome.latency.first_byte, Span::from_millis(2));
}

#[test]
fn the_request_names_its_target() {
    let mut attempt = Attempt::start(policy(|_| {}));
    attempt.on(OpKind::Connect, Ok(0));
    let text = String::from_utf8(attempt.ops.bytes.clone()).expect("text");
    assert!(text.starts_with("GET /health HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n"), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
}

#[test]
fn another_status_is_a_failure_with_the_start_of_the_body() {
    let down = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 14\r\n\r\ndatabase\r\nis d";
    let judgement = Attempt::plain().receive(down);
    let evidence = "503 Service Unavailable, expected 200-299: database is d";
    let outcome = assert_judged(judgement, Code::L7Sts, evidence, Then::AwaitFin);
    assert_eq!(outcome.status, Some(503));

    let table = [
        ("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n".to_owned(), "404, expected 200-299"),
        ("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\na\0b".into(), "500 No, expected 200-299"),
        ("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\n \r\n".into(), "500 No, expected 200-299"),
    ];
    for (answer, evidence) in table {
        assert_judged(Attempt::plain().receive(&answer), Code::L7Sts, evidence, Then::AwaitFin);
    }
    let long = format!("HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n{}", "ä".repeat(4_500));
    let evidence = Attempt::plain().receive(&long).expect("judged").outcome.evidence.expect("some");
    assert!(evidence.len() <= EVIDENCE_MAX && evidence.starts_with("500 No, expected 200-299: ää"));
}

#[test]
fn what_is_expected_is_the_monitors_choice() {
    let mut attempt = Attempt::asked(policy(|check| check.expected = StatusSet::new(vec![(301, 302)])));
    let moved = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    assert_judged(attempt.receive(moved), Code::L7Ok, "", Then::AwaitFin);
    let mut attempt = Attempt::asked(policy(|check| check.expected = StatusSet::new(vec![(301, 302)])));
    assert_judged(attempt.receive(OK), Code::L7Sts, "200 OK, expected 301-302: hi", Then::AwaitFin);
}

#[test]
fn a_head_request_waits_for_no_body() {
    let mut attempt = Attempt::asked(policy(|check| check.method = "HEAD".into()));
    assert_judged(attempt.receive("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), Code::L7Ok, "", Then::AwaitFin);
}

#[test]
fn an_unframed_body_ends_with_the_connection() {
    let mut attempt = Attempt::plain();
    assert!(attempt.receive("HTTP/1.0 200 OK\r\n\r\nhi").is_none());
    assert_judged(attempt.fin(), Code::L7Ok, "", Then::Disconnect);
}

#[test]
fn a_connection_is_kept_only_if_both_want_it_and_nothing_is_left() {
    let kept = || Attempt::asked(policy(|check| check.keep_alive = true));
    assert_judged(kept().receive(OK), Code::L7Ok, "", Then::Keep);
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_judged(kept().receive(closing), Code::L7Ok, "", Then::AwaitFin);
    assert_judged(kept().receive(&format!("{OK}!")), Code::L7Ok, "", Then::Disconnect);
    // The receive has ended: nothing would tell when the peer closes.
    let ended = kept().complete(OpKind::Recv, Ok(OK.len() as u32), false, OK.as_bytes());
    assert_judged(ended, Code::L7Ok, "", Then::Disconnect);
    // An answer before the request was all sent.
    let mut early = Attempt::start(policy(|check| check.keep_alive = true));
    early.on(OpKind::Connect, Ok(0));
    assert_judged(early.receive(OK), Code::L7Ok, "", Then::Disconnect);
}

#[test]
fn a_kept_connection_is_asked_again_without_a_connect() {
    let mut attempt = Attempt::begin(policy(|check| check.keep_alive = true), HttpProbe::resume);
    assert_eq!(attempt.ops.list, [Op::Send]);
    assert!(String::from_utf8_lossy(&attempt.ops.bytes).contains("\r\nConnection: keep-alive\r\n"));
    assert!(attempt.on(OpKind::Send, Ok(1)).is_none());
    let outcome = assert_judged(attempt.receive(OK), Code::L7Ok, "", Then::Keep);
    assert_eq!((outcome.latency.connect, outcome.latency.first_byte), (Span::ZERO, Span::from_millis(2)));
}

#[test]
fn a_kept_connection_that_the_peer_has_closed_is_no_answer() {
    let mut attempt = Attempt::begin(policy(|check| check.keep_alive = true), HttpProbe::resume);
    assert_judged(attempt.fin(), Code::L7Rsp, "closed without an answer", Then::Disconnect);
}

#[test]
fn a_receive_that_ended_early_is_asked_for_again() {
    let mut attempt = Attempt::plain();
    assert!(attempt.complete(OpKind::Recv, Ok(4), false, b"HTTP").is_none());
    assert_eq!(attempt.ops.list, [Op::Recv]);
    assert!(attempt.receive("/1.1 204 No\r\n").is_none());
    assert!(attempt.ops.list.is_empty());
}

#[test]
fn connect_errors_are_those_of_a_tcp_check() {
    let connect = |errno| Attempt::start(policy(|_| {})).on(OpKind::Connect, Err(errno));
    let refused =
        assert_judged(connect(Errno::ECONNREFUSED), Code::L4Con, "connection refused 192.0.2.1:8080", Then::Disconnect);
    assert_eq!(refused.latency.connect, Span::from_millis(1));
    let ports = Code::Void(VoidReason::Ports);
    assert_judged(connect(Errno::EADDRNOTAVAIL), ports, "no free source port 192.0.2.1:8080", Then::Disconnect);
}

#[test]
fn what_is_no_answer_is_a_broken_response() {
    let judge = |pieces: &[&str], end: Result<u32, Errno>| {
        let mut attempt = Attempt::plain();
        pieces.iter().find_map(|piece| attempt.receive(piece)).or_else(|| attempt.on(OpKind::Recv, end))
    };
    let reset = Err(Errno::ECONNRESET);
    let framed = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let table: &[(&[&str], Result<u32, Errno>, &str)] = &[
        (&[], Ok(0), "closed without an answer"),
        (&["HTTP/1.1 2"], Ok(0), "cut off in the head after 10 bytes"),
        (&[framed, "abc"], Ok(0), "cut off in the body after 3 of 500 bytes"),
        (&[chunked, "5\r\nabc"], Ok(0), "cut off in the body after 6 bytes"),
        (&[], reset, "connection reset before an answer"),
        (&["HTTP/1.1 2"], reset, "connection reset after 10 bytes of the head"),
        (&[framed, "abc"], reset, "connection reset after 3 of 500 bytes of the body"),
        (&["HTTP/1.1 200 OK\r\n\r\nabc"], reset, "connection reset after 3 bytes of the body"),
        (&["SSH-2.0-x\r\n"], Ok(0), "not an HTTP/1 answer: begins with \"SSH-2.0-x\\r\\n\""),
        (&["HTTP/1.1 200 OK\r\nA\0:"], Ok(0), "malformed head: bad field name"),
        (&[chunked, "zz\r\n"], Ok(0), "malformed body: malformed chunk size"),
    ];
    for &(pieces, end, evidence) in table {
        assert_judged(judge(pieces, end), Code::L7Rsp, evidence, Then::Disconnect);
    }
    let cut = judge(&[framed], Ok(0)).expect("judged").outcome;
    assert_eq!((cut.status, cut.verdict()), (Some(200), Verdict::Fail));
}

#[test]
fn errors_of_this_host_are_void() {
    let judgement = Attempt::plain().on(OpKind::Recv, Err(Errno::ENOBUFS));
    let outcome = assert_judged(
        judgement,
        Code::Void(VoidReason::Memory),
        "out of memory for sockets before an answer",
        Then::Disconnect,
    );
    assert_eq!(outcome.verdict(), Verdict::Void);
    let mut sending = Attempt::start(policy(|_| {}));
    sending.on(OpKind::Connect, Ok(0));
    let judgement = sending.on(OpKind::Send, Err(Errno::ENOMEM)).expect("judged");
    assert_eq!(judgement.outcome.code, Code::Void(VoidReason::Memory));
}

#[test]
fn a_reset_send_leaves_the_word_to_the_receive() {
    let begin = || {
        let mut attempt = Attempt::start(policy(|check| check.method = "POST".into()));
        attempt.on(OpKind::Connect, Ok(0));
        assert!(attempt.on(OpKind::Send, Err(Errno::EPIPE)).is_none());
        attempt
    };
    let refused = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    assert_judged(begin().receive(refused), Code::L7Sts, "413 Too Large, expected 200-299", Then::AwaitFin);
    let words = "connection reset while the request was sent";
    assert_judged(begin().fin(), Code::L7Rsp, words, Then::Disconnect);
    assert_judged(begin().on(OpKind::Recv, Err(Errno::ECONNRESET)), Code::L7Rsp, words, Then::Disconnect);
    let late = begin().expire();
    assert_eq!((late.code, late.evidence.as_deref()), (Code::L7Rsp, Some(words)));
}

#[test]
fn a_body_beyond_the_bound_is_not_waited_for() {
    let mut attempt = Attempt::plain();
    assert!(attempt.receive("HTTP/1.1 200 OK\r\n\r\n").is_none());
    let piece = "x".repeat(64 * 1024);
    let judgement = (0..=16).find_map(|_| attempt.receive(&piece));
    assert_judged(judgement, Code::L7Ok, "", Then::Disconnect);
}

#[test]
fn a_timeout_says_what_was_waited_for() {
    let after = |pieces: &[&str]| {
        let mut attempt = Attempt::plain();
        assert!(pieces.iter().all(|piece| attempt.receive(piece).is_none()));
        attempt.expire()
    };
    let mut sending = Attempt::start(policy(|_| {}));
    sending.on(OpKind::Connect, Ok(0));
    let mut resumed = Attempt::begin(policy(|check| check.keep_alive = true), HttpProbe::resume);
    resumed.on(OpKind::Send, Ok(1));
    let table = [
        (Attempt::start(policy(|_| {})).expire(), Code::L4Tout, "no answer from 192.0.2.1:8080 in 5 s"),
        (sending.expire(), Code::L7Tout, "request not taken by 192.0.2.1:8080 in 5 s"),
        (after(&[]), Code::L7Tout, "no answer after connecting to 192.0.2.1:8080 in 5 s"),
        (resumed.expire(), Code::L7Tout, "no answer on a kept connection to 192.0.2.1:8080 in 5 s"),
        (after(&["HTTP/1.1 200"]), Code::L7Tout, "head incomplete after 12 bytes in 5 s"),
        (after(&["HTTP/1.1 200 OK\r\n\r\nabc"]), Code::L7Tout, "body: 3 bytes without an end in 5 s"),
        (
            after(&["HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "abc"]),
            Code::L7Tout,
            "body: 3 of 500 bytes in 5 s",
        ),
    ];
    for (outcome, code, evidence) in table {
        assert_eq!((outcome.code, outcome.evidence.as_deref()), (code, Some(evidence)));
    }
}
