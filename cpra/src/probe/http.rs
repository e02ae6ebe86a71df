//! An HTTP check: does the server answer, and with a status that is expected?
//!
//! ```text
//! start ─▶ Connecting ──ok──▶ Sending ──sent──▶ Sent        (resume begins at Sending)
//!              │                 └──── data ─────┴─▶ reader ─▶ complete: L7OK, L7STS
//!              └─ error: L4CON, void             error, FIN, malformed: L7RSP
//! ```
//! Whichever comes first decides: an error or a complete answer. There is one exception. A server may answer before
//! it has read the whole request, then close; the rest of the request is met by a reset, and the send fails while the
//! answer lies in the receive buffer. So a send that was reset only takes a note; the pending receive, which such a
//! connection ends at once, brings either the answer or the end.

#[cfg(test)]
mod tests;

use super::{Judgement, Ops, Request, Then, connect};
use crate::domain::{Check, Code, HostRef, HttpCheck, Latency, Outcome};
use crate::ring::{Completion, Errno, Op, OpKind};
use crate::units::limits::EVIDENCE_MAX;
use crate::units::{Instant, Span};
use crate::wire::http::{self as wire, Part, Progress, ResponseReader, Stage};

#[derive(Debug)]
pub struct HttpProbe {
    /// The connect was asked for; on a kept connection, the request.
    began: Instant,
    /// The request was handed over.
    asked: Instant,
    first_byte: Span,
    reader: ResponseReader,
    /// Only attempts that will fail have one.
    trouble: Option<Box<Trouble>>,
    phase: Phase,
    resumed: bool,
    /// `first_byte` is known.
    heard: bool,
}

// A probe lives in every slot in flight.
const _: () = assert!(size_of::<HttpProbe>() <= 128);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    Sent,
}

/// What is kept as evidence.
#[derive(Debug, Default)]
struct Trouble {
    /// The send was reset.
    unsent: Option<Errno>,
    /// Of a status that was not expected.
    reason: Box<str>,
    /// The body's first bytes.
    excerpt: Vec<u8>,
}

impl HttpProbe {
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        ops.list.push(Op::Connect(request.address));
        Self::new(request, now, Phase::Connecting)
    }

    /// Asks on a kept connection. Its `Recv` is still pending.
    pub fn resume(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        render(request, ops);
        Self { resumed: true, ..Self::new(request, now, Phase::Sending) }
    }

    fn new(request: &Request<'_>, now: Instant, phase: Phase) -> Self {
        Self {
            began: now,
            asked: now,
            first_byte: Span::ZERO,
            reader: ResponseReader::of(&check(request).method),
            trouble: None,
            phase,
            resumed: false,
            heard: false,
        }
    }

    pub fn on(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        match (completion.kind, completion.result) {
            (OpKind::Connect, Ok(_)) => {
                self.asked = now;
                self.phase = Phase::Sending;
                render(request, ops);
                ops.list.push(Op::Recv);
                None
            }
            (OpKind::Connect, Err(errno)) => {
                let outcome = connect::failed(request, completion, errno, now.since(self.began));
                Some(Judgement { outcome, then: Then::Disconnect })
            }
            (OpKind::Send, Ok(_)) => {
                self.phase = Phase::Sent;
                None
            }
            (OpKind::Send, Err(errno @ (Errno::ECONNRESET | Errno::EPIPE))) => {
                self.trouble.get_or_insert_default().unsent = Some(errno);
                None
            }
            (OpKind::Send | OpKind::Recv, Err(errno)) => Some(self.broken(errno)),
            (OpKind::Recv, Ok(0)) => Some(self.closed(request)),
            (OpKind::Recv, Ok(_)) => self.received(request, completion, now, ops),
            (OpKind::Disconnect, _) => None,
        }
    }

    fn received(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        if !self.heard {
            self.heard = true;
            self.first_byte = now.since(self.asked);
        }
        let expected = &check(request).expected;
        let trouble = &mut self.trouble;
        let mut keep = |part: Part<'_>| match part {
            Part::Head { status, reason } if !expected.contains(status) => {
                trouble.get_or_insert_default().reason = reason.into();
            }
            Part::Head { .. } => {}
            Part::Body(content) => {
                if let Some(trouble) = trouble {
                    let room = EVIDENCE_MAX - trouble.excerpt.len();
                    trouble.excerpt.extend_from_slice(&content[..content.len().min(room)]);
                }
            }
        };
        match self.reader.read(completion.data, &mut keep) {
            Ok(Progress::Complete) => Some(self.answered(request, completion.more)),
            Ok(Progress::NeedMore) => {
                if !completion.more {
                    ops.list.push(Op::Recv);
                }
                None
            }
            Err(error) => Some(self.end(Code::L7Rsp, &error.to_string())),
        }
    }

    /// The answer is complete.
    fn answered(&mut self, request: &Request<'_>, receiving: bool) -> Judgement {
        let check = check(request);
        let status = self.reader.status().unwrap_or_default();
        let outcome = if check.expected.contains(status) {
            self.outcome(Code::L7Ok)
        } else {
            let trouble = self.trouble.take().unwrap_or_default();
            let space = if trouble.reason.is_empty() { "" } else { " " };
            let excerpt = text(&trouble.excerpt);
            let colon = if excerpt.trim().is_empty() { "" } else { ": " };
            self.outcome(Code::L7Sts).with_evidence(&format!(
                "{status}{space}{}, expected {}{colon}{excerpt}",
                trouble.reason, check.expected
            ))
        };
        let then = if !receiving || !self.reader.is_clean() {
            Then::Disconnect
        } else if check.keep_alive && self.reader.is_reusable() && self.phase == Phase::Sent {
            Then::Keep
        } else if !check.keep_alive || self.reader.will_close() {
            Then::AwaitFin
        } else {
            Then::Disconnect
        };
        Judgement { outcome, then }
    }

    /// The peer's FIN.
    fn closed(&mut self, request: &Request<'_>) -> Judgement {
        match self.reader.eof(&mut |_| {}) {
            Ok(()) => self.answered(request, false),
            // The kernel tells an error once: after the send has had the reset, the receive sees a plain end.
            Err(error) => match self.unsent() {
                Some(errno) => self.broken(errno),
                None => self.end(Code::L7Rsp, &error.to_string()),
            },
        }
    }

    /// The connection failed under an answer that was not complete.
    fn broken(&self, errno: Errno) -> Judgement {
        let place = match self.reader.stage() {
            Stage::Silent if self.unsent().is_some() => "while the request was sent".into(),
            Stage::Silent | Stage::Complete => "before an answer".into(),
            Stage::Head { bytes } => format!("after {bytes} bytes of the head"),
            Stage::Body { bytes, of: None } => format!("after {bytes} bytes of the body"),
            Stage::Body { bytes, of: Some(total) } => format!("after {bytes} of {total} bytes of the body"),
        };
        self.end(Code::of_transfer_error(errno), &format!("{errno} {place}"))
    }

    fn unsent(&self) -> Option<Errno> {
        self.trouble.as_ref().and_then(|trouble| trouble.unsent)
    }

    fn end(&self, code: Code, evidence: &str) -> Judgement {
        Judgement { outcome: self.outcome(code).with_evidence(evidence), then: Then::Disconnect }
    }

    fn outcome(&self, code: Code) -> Outcome {
        // On a kept connection both are the same instant.
        let connect = self.asked.since(self.began);
        let latency = Latency { connect, first_byte: self.first_byte, ..Latency::default() };
        Outcome { status: self.reader.status(), latency, ..Outcome::of(code) }
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let (address, waited) = (request.address, now.since(self.began));
        if self.phase == Phase::Connecting {
            return connect::expired(request, waited);
        }
        // A reset is more than silence, even if the receive has kept it to itself.
        if let Some(errno) = self.unsent() {
            return self.broken(errno).outcome;
        }
        let evidence = match self.reader.stage() {
            Stage::Silent if self.phase == Phase::Sending => format!("request not taken by {address} in {waited}"),
            Stage::Silent if self.resumed => format!("no answer on a kept connection to {address} in {waited}"),
            Stage::Silent | Stage::Complete => format!("no answer after connecting to {address} in {waited}"),
            Stage::Head { bytes } => format!("head incomplete after {bytes} bytes in {waited}"),
            Stage::Body { bytes, of: None } => format!("body: {bytes} bytes without an end in {waited}"),
            Stage::Body { bytes, of: Some(total) } => format!("body: {bytes} of {total} bytes in {waited}"),
        };
        self.outcome(Code::L7Tout).with_evidence(&evidence)
    }
}

fn check<'a>(request: &Request<'a>) -> &'a HttpCheck {
    match &request.policy.check {
        Check::Http(check) => check,
        Check::Tcp(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => {
            unreachable!("an HTTP probe is made for HTTP checks only")
        }
    }
}

fn render(request: &Request<'_>, ops: &mut Ops) {
    let check = check(request);
    let host = match request.target.host {
        HostRef::Name(name) => wire::Host::Name(name),
        HostRef::Literal(address) => wire::Host::Literal(address),
    };
    let rendered = wire::Request {
        method: &check.method,
        host,
        port: request.target.port,
        path: request.target.path,
        headers: &check.headers,
        body: &check.body,
        keep_alive: check.keep_alive,
    };
    rendered.render(&mut ops.bytes);
    ops.list.push(Op::Send);
}

/// The excerpt, if it is text; a character that the cut fell into is left out.
fn text(excerpt: &[u8]) -> &str {
    let text = match std::str::from_utf8(excerpt) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&excerpt[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    if text.chars().any(|character| character.is_control() && !character.is_whitespace()) { "" } else { text }
}
