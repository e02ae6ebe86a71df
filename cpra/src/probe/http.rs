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

mod content;
pub mod redirect;
#[cfg(test)]
mod tests;
mod words;

use self::content::{Body, Search};
pub use self::redirect::Hop;
pub(super) use self::words::led;
use super::{Judgement, Ops, Request, Then, connect};
use crate::domain::monitor::Secret;
use crate::domain::{Check, Code, HostRef, HttpCheck, Latency, Outcome};
use crate::ring::{Completion, Errno, Op, OpKind};
use crate::units::limits::{EVIDENCE_MAX, RESPONSE_BODY_MAX};
use crate::units::{Instant, Span};
use crate::wire::http::{self as wire, Part, Progress, ResponseReader, Stage};

#[derive(Debug)]
pub struct HttpProbe {
    /// The connect was asked for; on a kept connection, the request.
    began: Instant,
    /// How long it took until the connection stood; zero on a kept one.
    connect: Span,
    /// The request was handed over.
    asked: Instant,
    first_byte: Span,
    reader: ResponseReader,
    /// Only attempts that will fail, that look at the content, or that are led elsewhere have them.
    notes: Option<Box<Notes>>,
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

/// What is kept of an answer until it is complete.
#[derive(Debug, Default)]
struct Notes {
    /// The send was reset.
    unsent: Option<Errno>,
    /// Of a status that was not expected.
    reason: Box<str>,
    /// Where a redirect leads.
    location: Option<Box<str>>,
    /// For the assertions, or its first bytes as evidence.
    body: Option<Body>,
    search: Search,
    /// Of the head.
    fault: Option<String>,
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
            connect: Span::ZERO,
            asked: now,
            first_byte: Span::ZERO,
            reader: reader(request),
            notes: None,
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
                self.connect = connect::took(completion, self.began, now);
                self.asked = now;
                self.phase = Phase::Sending;
                render(request, ops);
                ops.list.push(Op::Recv);
                None
            }
            (OpKind::Connect, Err(errno)) => {
                let outcome = connect::failed(request, completion.local, errno, now.since(self.began));
                let outcome = words::in_full(request, outcome);
                Some(Judgement { outcome, then: Then::Disconnect })
            }
            (OpKind::Send, Ok(_)) => {
                self.phase = Phase::Sent;
                None
            }
            (OpKind::Send, Err(errno @ (Errno::ECONNRESET | Errno::EPIPE))) => {
                self.notes.get_or_insert_default().unsent = Some(errno);
                None
            }
            (OpKind::Send | OpKind::Recv, Err(errno)) => Some(self.broken(request, errno)),
            (OpKind::Recv, Ok(0)) => self.closed(request, ops),
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
        let check = check(request);
        let notes = &mut self.notes;
        let mut keep = |part: Part<'_>| match part {
            Part::Head { status, reason, fields } => note_head(check, notes, status, reason, &fields),
            Part::Body(content) => {
                if let Some(notes) = notes
                    && let Some(body) = &mut notes.body
                {
                    body.push(content);
                }
            }
        };
        match self.reader.read(completion.data, &mut keep) {
            Ok(Progress::Complete) => self.answered(request, completion.more, ops),
            Ok(Progress::NeedMore) if self.is_settled(check) => {
                // The rest is none of the check's business; the peer is let finish, if it is quick.
                let then = if completion.more { Then::AwaitFin } else { Then::Disconnect };
                Some(Judgement { outcome: self.outcome(Code::L7Ok), then })
            }
            Ok(Progress::NeedMore) => {
                if !completion.more {
                    ops.list.push(Op::Recv);
                }
                None
            }
            Err(error) => Some(self.end(request, Code::L7Rsp, &error.to_string())),
        }
    }

    /// Whether nothing that is yet to come can change the verdict: an expected answer whose body only has to contain
    /// something, and does.
    fn is_settled(&mut self, check: &HttpCheck) -> bool {
        if !self.reader.status().is_some_and(|status| check.expected.contains(status)) {
            return false;
        }
        match self.notes.as_deref_mut() {
            Some(Notes { body: Some(body), search, fault: None, location: None, .. }) if check.wants_body() => {
                body.is_sound() && search.is_done(&check.assertions, body.bytes())
            }
            _ => false,
        }
    }

    /// The answer is complete.
    fn answered(&mut self, request: &Request<'_>, receiving: bool, ops: &mut Ops) -> Option<Judgement> {
        let check = check(request);
        let status = self.reader.status().unwrap_or_default();
        if check.redirects > 0
            && let Some(location) = self.notes.as_mut().and_then(|notes| notes.location.take())
        {
            match redirect::follow(request, status, &location) {
                Ok(hop) => {
                    ops.hop = Some(Box::new(hop));
                    return None;
                }
                Err(why) => {
                    let outcome = words::discreet(request, self.outcome(Code::L7Rsp).with_evidence(&why));
                    return Some(Judgement { outcome, then: Then::Disconnect });
                }
            }
        }
        let outcome = if !check.expected.contains(status) {
            let notes = self.notes.take().unwrap_or_default();
            let text = words::unexpected(check, status, &notes.reason, notes.location.as_deref(), notes.body);
            self.outcome(Code::L7Sts).with_evidence(&text)
        } else if let Some(why) = self.content_fault(check) {
            self.outcome(Code::L7Rsp).with_evidence(&why)
        } else {
            self.outcome(Code::L7Ok)
        };
        let keeps = keeps(request);
        let then = if !receiving || !self.reader.is_clean() {
            Then::Disconnect
        } else if keeps && self.reader.is_reusable() && self.phase == Phase::Sent {
            Then::Keep
        } else if !keeps || self.reader.will_close() {
            Then::AwaitFin
        } else {
            Then::Disconnect
        };
        Some(Judgement { outcome: words::in_full(request, outcome), then })
    }

    /// Why the complete answer is not what the assertions say.
    fn content_fault(&mut self, check: &HttpCheck) -> Option<String> {
        let notes = self.notes.as_mut()?;
        if notes.fault.is_some() {
            return notes.fault.take();
        }
        let body = notes.body.as_mut()?;
        if notes.search.is_done(&check.assertions, body.bytes()) && body.is_sound() {
            return None;
        }
        if self.reader.is_over() {
            return Some(content::BodyFault::TooLarge(check.body_max as usize).to_string());
        }
        match body.finish() {
            Ok(body) => content::body_fault(&check.assertions, body),
            Err(fault) => Some(fault.to_string()),
        }
    }

    /// The peer's FIN.
    fn closed(&mut self, request: &Request<'_>, ops: &mut Ops) -> Option<Judgement> {
        match self.reader.eof(&mut |_| {}) {
            Ok(()) => self.answered(request, false, ops),
            // The kernel tells an error once: after the send has had the reset, the receive sees a plain end.
            Err(error) => Some(match self.unsent() {
                Some(errno) => self.broken(request, errno),
                None => self.end(request, Code::L7Rsp, &error.to_string()),
            }),
        }
    }

    /// The connection failed under an answer that was not complete.
    fn broken(&self, request: &Request<'_>, errno: Errno) -> Judgement {
        let place = match self.reader.stage() {
            Stage::Silent if self.unsent().is_some() => "while the request was sent".into(),
            Stage::Silent | Stage::Complete => "before an answer".into(),
            Stage::Head { bytes } => format!("after {bytes} bytes of the head"),
            Stage::Body { bytes, of: None } => format!("after {bytes} bytes of the body"),
            Stage::Body { bytes, of: Some(total) } => format!("after {bytes} of {total} bytes of the body"),
        };
        self.end(request, Code::of_transfer_error(errno), &format!("{errno} {place}"))
    }

    fn unsent(&self) -> Option<Errno> {
        self.notes.as_ref().and_then(|notes| notes.unsent)
    }

    fn end(&self, request: &Request<'_>, code: Code, evidence: &str) -> Judgement {
        let outcome = words::in_full(request, self.outcome(code).with_evidence(evidence));
        Judgement { outcome, then: Then::Disconnect }
    }

    fn outcome(&self, code: Code) -> Outcome {
        let latency = Latency { connect: self.connect, first_byte: self.first_byte, ..Latency::default() };
        Outcome { status: self.reader.status(), latency, ..Outcome::of(code) }
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let (address, waited) = (request.address, now.since(self.began));
        if self.phase == Phase::Connecting {
            return words::in_full(request, connect::expired(request, waited));
        }
        // A reset is more than silence, even if the receive has kept it to itself.
        if let Some(errno) = self.unsent() {
            return self.broken(request, errno).outcome;
        }
        let evidence = match self.reader.stage() {
            Stage::Silent if self.phase == Phase::Sending => format!("request not taken by {address} in {waited}"),
            Stage::Silent if self.resumed => format!("no answer on a kept connection to {address} in {waited}"),
            Stage::Silent | Stage::Complete => format!("no answer after connecting to {address} in {waited}"),
            Stage::Head { bytes } => format!("head incomplete after {bytes} bytes in {waited}"),
            Stage::Body { bytes, of: None } => format!("body: {bytes} bytes without an end in {waited}"),
            Stage::Body { bytes, of: Some(total) } => format!("body: {bytes} of {total} bytes in {waited}"),
        };
        words::in_full(request, self.outcome(Code::L7Tout).with_evidence(&evidence))
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

/// Whether the connection is to be kept. One that a redirect led to is not: the next check begins elsewhere.
fn keeps(request: &Request<'_>) -> bool {
    check(request).keep_alive && request.hop.is_none()
}

/// The `Host` that the monitor overrides, where it holds.
fn host_field<'a>(request: &Request<'a>) -> Option<&'a str> {
    match request.hop {
        Some(hop) => hop.host_field(),
        None => {
            let configured = check(request).headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Host"));
            configured.map(|(_, value)| &**value)
        }
    }
}

fn reader(request: &Request<'_>) -> ResponseReader {
    let check = check(request);
    let method = request.hop.map_or(&*check.method, Hop::method);
    if !check.wants_body() {
        return ResponseReader::of(method);
    }
    // Framing counts there, too: without room for it a body of many small chunks would not fit.
    ResponseReader::bounded(method, check.body_max.saturating_mul(2).max(RESPONSE_BODY_MAX as u32))
}

/// Notes what the head says, if anything of it matters later on.
fn note_head(check: &HttpCheck, notes: &mut Option<Box<Notes>>, status: u16, reason: &str, fields: &wire::Fields<'_>) {
    if redirect::redirects(status)
        && (check.redirects > 0 || !check.expected.contains(status))
        && let Some(location) = fields.first("location")
    {
        let notes = notes.get_or_insert_default();
        notes.location = Some(location.into());
        if check.redirects > 0 {
            return;
        }
    }
    if !check.expected.contains(status) {
        let notes = notes.get_or_insert_default();
        notes.reason = reason.into();
        notes.body = Some(Body::of(fields, EVIDENCE_MAX));
    } else if !check.assertions.is_empty() {
        let notes = notes.get_or_insert_default();
        notes.fault = content::head_fault(&check.assertions, fields);
        if notes.fault.is_none() && check.wants_body() {
            notes.body = Some(Body::of(fields, check.body_max as usize));
        }
    }
}

fn render(request: &Request<'_>, ops: &mut Ops) {
    let check = check(request);
    let destination = request.destination();
    let host = match destination.host {
        HostRef::Name(name) => wire::Host::Name(name),
        HostRef::Literal(address) => wire::Host::Literal(address),
    };
    let secure = redirect::is_secure(request);
    let carry = request.hop.map_or_else(wire::Carry::default, Hop::carry);
    let form = match &check.proxy {
        // Through TLS the proxy hears nothing but its CONNECT.
        Some(proxy) if !secure => {
            wire::Form::Absolute { authorization: proxy.authorization.as_ref().map(Secret::expose) }
        }
        _ => wire::Form::Origin,
    };
    let rendered = wire::Request {
        method: request.hop.map_or(&*check.method, Hop::method),
        host,
        port: destination.port,
        secure,
        path: destination.path,
        form,
        host_field: host_field(request),
        headers: &check.headers,
        carry,
        authorization: check.authorization.as_ref().filter(|_| !carry.foreign).map(Secret::expose),
        gzip: check.wants_body(),
        body: if carry.bodiless { &[] } else { &check.body },
        keep_alive: keeps(request),
    };
    rendered.render(&mut ops.bytes);
    ops.list.push(Op::Send);
}
