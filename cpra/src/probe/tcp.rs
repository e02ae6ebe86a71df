//! A TCP check: can a connection be made, and does what answers say what it should?
//!
//! ```text
//! start ─▶ Connecting ──ok──▶ nothing to say or to hear: L4OK, under TLS L6OK
//!              │                 └─ send, receive ─▶ Listening ──expected──▶ L7OK
//!              └─ error: L4CON, void                     └─ FIN, error, too much without it: L7RSP
//! ```

use super::{Judgement, Ops, Request, Then, connect};
use crate::domain::{Check, Code, Latency, Outcome, TcpCheck};
use crate::ring::{Completion, Errno, Op, OpKind};
use crate::units::limits::{EVIDENCE_MAX, EXPECT_WINDOW_MAX};
use crate::units::{Instant, Span};

#[derive(Debug)]
pub struct TcpProbe {
    started: Instant,
    /// Only checks that say or hear something have one.
    talk: Option<Box<Talk>>,
}

#[derive(Debug)]
struct Talk {
    /// How long it took until the connection stood.
    connect: Span,
    /// The peer's turn: what is to be sent was handed over, or, where nothing is, the connection stood.
    began: Instant,
    first_byte: Span,
    /// Everything up to the window's end: the expected may lie across two receipts.
    heard: Vec<u8>,
    /// The send was reset; an answer may lie there all the same.
    unsent: Option<Errno>,
}

impl TcpProbe {
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        ops.list.push(Op::Connect(request.address));
        Self { started: now, talk: None }
    }

    pub fn on(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        let check = check(request);
        match (completion.kind, completion.result) {
            (OpKind::Connect, Ok(_)) if check.send.is_empty() && check.expect.is_empty() => {
                Some(self.connected(request, connect::took(completion, self.started, now)))
            }
            (OpKind::Connect, Ok(_)) => {
                let (heard, first_byte) = (Vec::new(), Span::ZERO);
                let connect = connect::took(completion, self.started, now);
                let stood = completion.handshake.map_or(now, |handshake| handshake.stood);
                let began = if check.send.is_empty() { stood } else { now };
                self.talk = Some(Box::new(Talk { connect, began, first_byte, heard, unsent: None }));
                if !check.send.is_empty() {
                    ops.bytes.extend_from_slice(&check.send);
                    ops.list.push(Op::Send);
                }
                if !check.expect.is_empty() {
                    ops.list.push(Op::Recv);
                }
                None
            }
            (OpKind::Connect, Err(errno)) => {
                let outcome = connect::failed(request, completion.local, errno, now.since(self.started));
                Some(Judgement { outcome, then: Then::Disconnect })
            }
            (OpKind::Send, Ok(_)) if check.expect.is_empty() => {
                let talk = self.talk.as_ref()?;
                Some(self.connected(request, talk.connect))
            }
            (OpKind::Send, Ok(_)) | (OpKind::Disconnect, _) => None,
            (OpKind::Send, Err(errno @ (Errno::ECONNRESET | Errno::EPIPE))) if !check.expect.is_empty() => {
                self.talk.as_mut()?.unsent = Some(errno);
                None
            }
            (OpKind::Send | OpKind::Recv, Err(errno)) => Some(self.broken(errno)),
            // Under TLS there is always something that receives: what nobody waits for is no answer, nor is its end.
            (OpKind::Recv, Ok(_)) if check.expect.is_empty() => None,
            (OpKind::Recv, Ok(0)) => Some(self.closed(check)),
            (OpKind::Recv, Ok(_)) => self.received(check, completion, now, ops),
        }
    }

    fn connected(&self, request: &Request<'_>, waited: Span) -> Judgement {
        let code = if request.tls().is_some() { Code::L6Ok } else { Code::L4Ok };
        let outcome = Outcome { latency: Latency { connect: waited, ..Latency::default() }, ..Outcome::of(code) };
        Judgement { outcome, then: Then::Disconnect }
    }

    fn received(
        &mut self,
        check: &TcpCheck,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        let talk = self.talk.as_mut()?;
        if talk.heard.is_empty() {
            talk.first_byte = now.since(talk.began);
        }
        let searched = talk.heard.len().saturating_sub(check.expect.len() - 1);
        let room = EXPECT_WINDOW_MAX - talk.heard.len();
        talk.heard.extend_from_slice(&completion.data[..completion.data.len().min(room)]);
        if talk.heard[searched..].windows(check.expect.len()).any(|window| *window == *check.expect) {
            return Some(self.end(Code::L7Ok, None));
        }
        if talk.heard.len() >= EXPECT_WINDOW_MAX {
            let expected = check.expect.escape_ascii();
            return Some(self.end(Code::L7Rsp, Some(&format!("{EXPECT_WINDOW_MAX} bytes without \"{expected}\""))));
        }
        if !completion.more {
            ops.list.push(Op::Recv);
        }
        None
    }

    fn closed(&self, check: &TcpCheck) -> Judgement {
        // The kernel tells an error once: after the send has had the reset, the receive sees a plain end.
        if let Some(errno) = self.talk.as_ref().and_then(|talk| talk.unsent) {
            return self.broken(errno);
        }
        let words = match self.heard() {
            [] => "closed without an answer".to_owned(),
            heard => format!("closed after {} without {}", bytes(heard), contrast(check, heard)),
        };
        self.end(Code::L7Rsp, Some(&words))
    }

    fn broken(&self, errno: Errno) -> Judgement {
        let words = match self.heard() {
            [] => format!("{errno} before an answer"),
            heard => format!("{errno} after {}", bytes(heard)),
        };
        self.end(Code::of_transfer_error(errno), Some(&words))
    }

    fn heard(&self) -> &[u8] {
        self.talk.as_ref().map_or(&[], |talk| &talk.heard)
    }

    fn end(&self, code: Code, words: Option<&str>) -> Judgement {
        Judgement { outcome: self.outcome(code, words), then: Then::Disconnect }
    }

    fn outcome(&self, code: Code, words: Option<&str>) -> Outcome {
        let latency = self.talk.as_ref().map_or_else(Latency::default, |talk| Latency {
            connect: talk.connect,
            first_byte: talk.first_byte,
            ..Latency::default()
        });
        let outcome = Outcome { latency, ..Outcome::of(code) };
        match words {
            Some(words) => outcome.with_evidence(words),
            None => outcome,
        }
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let waited = now.since(self.started);
        let Some(talk) = &self.talk else { return connect::expired(request, waited) };
        let (check, address) = (check(request), request.address);
        if let Some(errno) = talk.unsent {
            return self.broken(errno).outcome;
        }
        let words = if check.expect.is_empty() {
            format!("what is to be sent was not taken by {address} in {waited}")
        } else if talk.heard.is_empty() {
            format!("no answer after connecting to {address} in {waited}")
        } else {
            format!("{} from {address} in {waited} without {}", bytes(&talk.heard), contrast(check, &talk.heard))
        };
        self.outcome(Code::L7Tout, Some(&words))
    }
}

fn bytes(heard: &[u8]) -> String {
    if heard.len() == 1 { "1 byte".into() } else { format!("{} bytes", heard.len()) }
}

/// What was to come, and the begin of what came.
fn contrast(check: &TcpCheck, heard: &[u8]) -> String {
    let excerpt = &heard[..heard.len().min(EVIDENCE_MAX / 2)];
    let expected = &check.expect[..check.expect.len().min(EVIDENCE_MAX / 4)];
    format!("\"{}\": \"{}\"", expected.escape_ascii(), excerpt.escape_ascii())
}

fn check<'a>(request: &Request<'a>) -> &'a TcpCheck {
    match &request.policy.check {
        Check::Tcp(check) => check,
        Check::Http(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => {
            unreachable!("a TCP probe is made for TCP checks only")
        }
    }
}
