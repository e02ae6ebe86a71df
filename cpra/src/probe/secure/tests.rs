//! The layer over a transformer that changes nothing: it is established by `+`, and closed by `!`.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::domain::{HostRef, Policy, TargetRef, TcpCheck};
use crate::wire::tls::Contexts;

const BEGIN: Instant = Instant::from_nanos(1_000_000_000);
const DAY: i64 = 24 * 3600 * 1_000_000;

#[derive(Debug)]
struct Plain {
    late: bool,
}

#[derive(Debug, Default)]
struct Through {
    outgoing: Vec<u8>,
    established: bool,
    closed: bool,
    late: bool,
}

impl Contexts for Plain {
    fn begin(
        &self,
        _: &TlsPolicy,
        _: Option<&ClientCertificate>,
        _: HostRef<'_>,
        _: SocketAddr,
    ) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(Through { outgoing: b"hello".to_vec(), late: self.late, ..Through::default() }))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_micros(100 * DAY)
    }
}

impl Session for Through {
    fn read(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Failure> {
        for &byte in ciphertext {
            match byte {
                b'+' if !self.established => {
                    self.established = true;
                    self.outgoing.extend_from_slice(b"finished,");
                }
                b'?' => return Err(Failure::new(Blame::Protocol, "refused")),
                b'!' => self.closed = true,
                // A ticket.
                b'~' => {}
                _ => plaintext.push(byte),
            }
        }
        Ok(())
    }

    fn write(&mut self, plaintext: &[u8]) -> Result<(), Failure> {
        self.outgoing.extend_from_slice(plaintext);
        Ok(())
    }

    fn close(&mut self) {
        self.outgoing.extend_from_slice(b"bye");
    }

    fn drain(&mut self, ciphertext: &mut Vec<u8>) {
        ciphertext.append(&mut self.outgoing);
    }

    fn is_established(&self) -> bool {
        self.established
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn may_be_refused(&self) -> bool {
        self.late
    }

    fn certificate_end(&self) -> Option<Timestamp> {
        Some(Timestamp::from_micros(110 * DAY))
    }

    fn judged_at(&self) -> Timestamp {
        Timestamp::from_micros(100 * DAY)
    }
}

struct Attempt {
    policy: Arc<Policy>,
    contexts: Plain,
    probe: Probe,
    now: Instant,
    /// What was sent, and how often.
    sent: Vec<String>,
    receives: usize,
    wake: Option<Instant>,
}

fn policy(check: TcpCheck) -> Arc<Policy> {
    let second = Span::from_secs(1);
    Arc::new(Policy::new(Check::Tcp(check), second, second))
}

fn request<'a>(policy: &'a Arc<Policy>, contexts: &'a Plain) -> Request<'a> {
    let address: SocketAddr = "10.0.0.1:443".parse().expect("an address");
    let target = TargetRef { host: HostRef::Literal(address.ip()), port: 443, path: "" };
    Request { policy, target, address, hop: None, contexts }
}

fn completion(kind: OpKind, result: Result<u32, Errno>, data: &[u8]) -> Completion<'_> {
    let more = !data.is_empty();
    Completion {
        slot: Slot(0),
        generation: Generation::default(),
        kind,
        result,
        more,
        local: false,
        data,
        handshake: None,
    }
}

impl Attempt {
    fn begin(check: TcpCheck, late: bool) -> Self {
        let (policy, contexts) = (policy(check), Plain { late });
        let mut ops = Ops::default();
        let probe = Probe::start(&request(&policy, &contexts), BEGIN, &mut ops);
        assert!(matches!(ops.list.as_slice(), [Op::Connect(_)]));
        Self { policy, contexts, probe, now: BEGIN, sent: Vec::new(), receives: 0, wake: None }
    }

    fn drive(
        &mut self,
        take: impl FnOnce(&mut Probe, &Request<'_>, Instant, &mut Ops) -> Option<Judgement>,
    ) -> Option<Judgement> {
        let mut ops = Ops::default();
        self.now += Span::from_millis(1);
        let judgement = take(&mut self.probe, &request(&self.policy, &self.contexts), self.now, &mut ops);
        let sends = ops.list.iter().filter(|op| **op == Op::Send).count();
        assert!(sends <= 1, "one at a time");
        if sends == 1 {
            self.sent.push(String::from_utf8(ops.bytes).expect("text"));
        }
        self.receives += ops.list.iter().filter(|op| **op == Op::Recv).count();
        self.wake = ops.wake.or(self.wake);
        judgement
    }

    fn on(&mut self, kind: OpKind, result: Result<u32, Errno>, data: &[u8]) -> Option<Judgement> {
        let completion = completion(kind, result, data);
        self.drive(|probe, request, now, ops| probe.on(request, &completion, now, ops))
    }

    fn connected(&mut self) -> Option<Judgement> {
        self.on(OpKind::Connect, Ok(0), &[])
    }

    fn heard(&mut self, data: &[u8]) -> Option<Judgement> {
        self.on(OpKind::Recv, Ok(data.len() as u32), data)
    }

    fn sent(&mut self) -> Option<Judgement> {
        self.on(OpKind::Send, Ok(0), &[])
    }

    fn expire(&self) -> Outcome {
        self.probe.expire(&request(&self.policy, &self.contexts), self.now)
    }
}

fn tls() -> TcpCheck {
    TcpCheck { tls: Some(TlsPolicy::default()), ..TcpCheck::default() }
}

fn talks() -> TcpCheck {
    TcpCheck { send: b"ping".as_slice().into(), expect: b"pong".as_slice().into(), ..tls() }
}

#[test]
fn what_is_said_waits_for_what_is_being_sent() {
    let mut attempt = Attempt::begin(talks(), false);
    assert!(attempt.connected().is_none());
    assert_eq!((attempt.sent.concat().as_str(), attempt.receives), ("hello", 1));
    // The handshake is done before the ring has told that the hello was sent.
    assert!(attempt.heard(b"+").is_none());
    assert_eq!(attempt.sent, ["hello"]);
    assert!(attempt.sent().is_none());
    assert_eq!(attempt.sent, ["hello", "finished,ping"]);
    assert!(attempt.sent().is_none());
    assert!(attempt.heard(b"~po").is_none());
    let judgement = attempt.heard(b"ng").expect("it was expected");
    assert_eq!((judgement.outcome.code, judgement.then), (Code::L7Ok, Then::AwaitFin));
    assert_eq!((attempt.sent.last().map(String::as_str), attempt.receives), (Some("bye"), 1));
    assert!(judgement.outcome.latency.tls > Span::ZERO);
}

#[test]
fn a_server_that_may_still_refuse_is_waited_for() {
    for (heard, code) in [(&b"~"[..], Code::L6Ok), (b"!", Code::L6Ok), (b"?", Code::L6Rsp)] {
        let mut attempt = Attempt::begin(tls(), true);
        attempt.connected();
        attempt.sent();
        assert!(attempt.heard(b"+").is_none(), "not yet");
        assert_eq!(attempt.sent.last().map(String::as_str), Some("finished,bye"));
        assert_eq!(attempt.wake, Some(attempt.now + TLS_REFUSAL_WAIT));
        let judgement = attempt.heard(heard).expect("an answer");
        assert_eq!(judgement.outcome.code, code);
    }
    let mut silent = Attempt::begin(tls(), true);
    silent.connected();
    silent.heard(b"+");
    assert_eq!(silent.expire().code, Code::L6Ok, "there was no time to wait");
    let woken = silent.drive(Probe::woken);
    assert_eq!(woken.expect("long enough").outcome.code, Code::L6Ok);
}

#[test]
fn a_check_that_only_speaks_lets_the_server_speak_too() {
    let check = TcpCheck { send: b"ping".as_slice().into(), ..tls() };
    for heard in [&b"+220 ready"[..], b"+!"] {
        let mut attempt = Attempt::begin(check.clone(), true);
        attempt.connected();
        // The server's words, or its goodbye, are there before the ring has told that ours were sent.
        assert!(attempt.heard(heard).is_none());
        assert!(attempt.sent().is_none());
        let outcome = attempt.sent().expect("it was said").outcome;
        assert_eq!((outcome.code, attempt.sent.concat().as_str()), (Code::L6Ok, "hellofinished,pingbye"));
    }
}

#[test]
fn the_end_of_time_says_what_was_waited_for() {
    let mut attempt = Attempt::begin(talks(), false);
    assert_eq!(attempt.expire().code, Code::L4Tout);
    attempt.connected();
    let outcome = attempt.expire();
    assert_eq!(outcome.code, Code::L6Tout);
    assert!(outcome.cause().starts_with("no TLS answer from 10.0.0.1:443 in "), "{}", outcome.cause());
    attempt.heard(b"~");
    assert!(attempt.expire().cause().starts_with("TLS handshake with 10.0.0.1:443 not finished in "));
    attempt.heard(b"+");
    assert_eq!(attempt.expire().code, Code::L7Tout);
}

#[test]
fn what_was_put_off_is_taken_in_order_and_its_time_is_ours() {
    let mut attempt = Attempt::begin(talks(), false);
    let put_off = |attempt: &mut Attempt, completion: &Completion<'_>| {
        assert!(attempt.probe.is_costly(completion) || attempt.probe.behind_since().is_some());
        assert!(attempt.probe.put_off(completion, BEGIN));
    };
    put_off(&mut attempt, &completion(OpKind::Connect, Ok(0), &[]));
    assert_eq!(attempt.probe.behind_since(), Some(BEGIN));
    let held = Span::from_millis(300);
    attempt.now = BEGIN + held;
    assert!(attempt.drive(|probe, request, now, ops| probe.catch_up(request, now, held, ops)).is_none());
    assert_eq!((attempt.sent.concat().as_str(), attempt.receives), ("hello", 1));
    attempt.sent();
    put_off(&mut attempt, &completion(OpKind::Recv, Ok(1), b"+"));
    put_off(&mut attempt, &completion(OpKind::Recv, Ok(2), b"po"));
    put_off(&mut attempt, &completion(OpKind::Recv, Ok(2), b"ng"));
    put_off(&mut attempt, &completion(OpKind::Recv, Ok(0), &[]));
    let judgement = attempt.drive(|probe, request, now, ops| probe.catch_up(request, now, held, ops));
    let Judgement { outcome, then } = judgement.expect("it was expected");
    assert_eq!((outcome.code, then), (Code::L7Ok, Then::Disconnect), "the peer has closed already");
    assert!(outcome.latency.connect < held && outcome.latency.tls < held, "{:?}", outcome.latency);
    let flood = vec![b'x'; HANDSHAKE_UNREAD_MAX + 1];
    assert!(!attempt.probe.put_off(&completion(OpKind::Recv, Ok(1), &flood), BEGIN), "bounded");
}

#[test]
fn a_connect_that_was_put_off_took_what_the_kernel_says() {
    let handshake = Handshake { sent: BEGIN + Span::from_millis(2), stood: BEGIN + Span::from_millis(5) };
    let opened = Completion { handshake: Some(handshake), ..completion(OpKind::Connect, Ok(0), &[]) };
    for held in [None, Some(Span::from_millis(300))] {
        let mut attempt = Attempt::begin(talks(), false);
        attempt.now = BEGIN + Span::from_millis(40);
        match held {
            None => assert!(attempt.drive(|probe, request, now, ops| probe.on(request, &opened, now, ops)).is_none()),
            Some(held) => {
                assert!(attempt.probe.put_off(&opened, attempt.now));
                attempt.now += held;
                let taken = attempt.drive(|probe, request, now, ops| probe.catch_up(request, now, held, ops));
                assert!(taken.is_none());
            }
        }
        attempt.heard(b"+");
        let latency = attempt.heard(b"?").expect("it breaks off").outcome.latency;
        let (connect, tls) = (Span::from_millis(3), Span::from_millis(1));
        assert_eq!((latency.connect, latency.tls), (connect, tls), "{held:?}");
    }
}

#[test]
fn a_kept_connection_outlives_tickets_and_nothing_else() {
    let kept = || Kept(Box::new(Through { established: true, ..Through::default() }));
    assert!(kept().hears(&completion(OpKind::Recv, Ok(2), b"~~")));
    for (result, data) in
        [(Ok(1), &b"x"[..]), (Ok(1), b"!"), (Ok(1), b"?"), (Ok(0), b""), (Err(Errno::ECONNRESET), b"")]
    {
        assert!(!kept().hears(&completion(OpKind::Recv, result, data)), "{result:?} {data:?}");
    }
}

#[test]
fn who_is_secured_otherwise_has_another_identity() {
    let contexts = Plain { late: false };
    let named = |name: Option<&str>, insecure| {
        let tls =
            TlsPolicy { server_name: name.map(Into::into), insecure_skip_verify: insecure, ..TlsPolicy::default() };
        identity(&request(&policy(TcpCheck { tls: Some(tls), ..TcpCheck::default() }), &contexts))
    };
    let identities = [named(None, false), named(Some("a"), false), named(Some("b"), false), named(None, true)];
    for (index, one) in identities.iter().enumerate() {
        assert!(*one != 0 && !identities[index + 1..].contains(one));
    }
    assert_eq!(named(Some("a"), false), identities[1]);
    assert_eq!(identity(&request(&policy(TcpCheck::default()), &contexts)), 0);
}

#[test]
fn a_certificate_near_its_end_is_a_warning() {
    let check = TcpCheck { tls: Some(TlsPolicy { min_days_left: Some(14), ..TlsPolicy::default() }), ..tls() };
    let mut attempt = Attempt::begin(check, false);
    attempt.connected();
    let outcome = attempt.heard(b"+").expect("all that there is to know").outcome;
    assert_eq!((outcome.code, outcome.warn), (Code::L6Ok, true));
    assert_eq!(outcome.cause(), "certificate ends in 10 days, on 1970-04-21");
}
