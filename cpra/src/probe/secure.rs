//! TLS between a slot's socket and a probe that knows nothing of it.
//!
//! ```text
//! start ─▶ Connecting ─▶ [Preamble: CONNECT, then or STARTTLS] ─▶ Handshake ─▶ Open: the inner probe talks
//!              │                │                              │            └▶ Parting: nothing to say; was our side taken?
//!              └ as without TLS └ L4CON, L6RSP, L6TOUT           └ L6CERT, L6RSP, L6TOUT
//! ```
//! The layer takes the ring's completions, and gives the inner probe completions of its own: the connect stands once the
//! handshake is done, what is received is plaintext, what is sent was sent once its ciphertext was. Both sides of it obey
//! the ring's contract: one send at a time, one receive that stays.
//!
//! Three ends have to be told apart. A peer that says `close_notify` has said everything. A FIN without it may be
//! someone cutting the answer short, so an answer that only its end completes is then none (L7RSP). And in TLS 1.3 a
//! handshake is done for us before the server has looked at our certificate: a check that has nothing to say waits a
//! moment for its refusal ([`TLS_REFUSAL_WAIT`]).
//!
//! A handshake costs as much as a thousand other completions. So the shard may put one off ([`SecureProbe::put_off`]);
//! what is received meanwhile waits here, bounded by [`HANDSHAKE_UNREAD_MAX`], and the time is our own, not the target's.

mod identity;
#[cfg(test)]
mod tests;

pub(crate) use self::identity::identity;
use self::identity::spelled;
use super::http::led;
use super::{Judgement, Ops, Probe, Request, Then, connect};
use crate::domain::monitor::Secret;
use crate::domain::{Check, Code, HostRef, HttpCheck, Outcome, VoidReason};
use crate::ring::{Completion, Errno, Handshake, Op, OpKind};
use crate::units::limits::{HANDSHAKE_UNREAD_MAX, TLS_JUDGED_MAX, TLS_REFUSAL_WAIT};
use crate::units::{Generation, Instant, Slot, Span, Timestamp};
use crate::wire::preamble::{Preamble, Step};
use crate::wire::tls::{self, Blame, Failure, Session};

#[derive(Debug)]
pub struct SecureProbe {
    inner: Probe,
    stage: Stage,
    session: Option<Box<dyn Session>>,
    began: Instant,
    /// How long it took until the connection stood.
    connect: Span,
    /// That it stood was taken: from here on we have to do.
    connected: Instant,
    /// The handshake was done.
    secured: Instant,
    /// Sent once what is being sent was.
    outbox: Vec<u8>,
    sending: bool,
    receiving: bool,
    /// The inner probe waits for the end of a send.
    speaking: bool,
    /// The inner probe was told the end of what it receives.
    told_end: bool,
    /// The judgement is the inner probe's own.
    inner_judged: bool,
    /// On a kept connection.
    resumed: bool,
    /// Something came in answer to our side of the handshake.
    heard: bool,
    /// The send was reset: the receive brings the reason, or the end.
    unsent: Option<Errno>,
    behind: Option<Box<Behind>>,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Preamble(Preamble),
    Handshake,
    Open,
    Parting,
}

/// What is kept with a kept connection.
#[derive(Debug)]
pub struct Kept(Box<dyn Session>);

impl Kept {
    /// Takes what came while nobody used the connection; whether it is of further use. TLS 1.3 brings its tickets
    /// whenever it likes: they are no reason to give it up.
    pub fn hears(&mut self, completion: &Completion<'_>) -> bool {
        if completion.kind != OpKind::Recv || !matches!(completion.result, Ok(1..)) {
            return false;
        }
        let (mut said, mut answer) = (Vec::new(), Vec::new());
        let read = self.0.read(completion.data, &mut said);
        self.0.drain(&mut answer);
        read.is_ok() && said.is_empty() && answer.is_empty() && !self.0.is_closed()
    }
}

fn is_tunnelled(request: &Request<'_>) -> bool {
    matches!(&request.policy.check, Check::Http(HttpCheck { proxy: Some(_), .. }))
}

/// Completions that were put off.
#[derive(Debug)]
struct Behind {
    since: Instant,
    slot: Slot,
    generation: Generation,
    connected: bool,
    handshake: Option<Handshake>,
    received: Vec<u8>,
    /// The peer's FIN, or an error.
    end: Option<Result<u32, Errno>>,
}

impl Behind {
    fn completion<'a>(&self, kind: OpKind, result: Result<u32, Errno>, more: bool, data: &'a [u8]) -> Completion<'a> {
        let (slot, generation) = (self.slot, self.generation);
        Completion { slot, generation, kind, result, more, local: false, data, handshake: None }
    }
}

impl SecureProbe {
    /// `inner` has just asked for the connect.
    pub(super) const fn around(inner: Probe, now: Instant) -> Self {
        Self {
            inner,
            stage: Stage::Connecting,
            session: None,
            began: now,
            connect: Span::ZERO,
            connected: now,
            secured: now,
            outbox: Vec::new(),
            sending: false,
            receiving: false,
            speaking: false,
            told_end: false,
            inner_judged: false,
            resumed: false,
            heard: false,
            unsent: None,
            behind: None,
        }
    }

    /// `inner` has just spoken on the kept connection.
    pub(super) fn resume(inner: Probe, kept: Kept, now: Instant, said: &mut Ops, ops: &mut Ops) -> Self {
        let Kept(session) = kept;
        let mut probe = Self {
            stage: Stage::Open,
            session: Some(session),
            receiving: true,
            resumed: true,
            heard: true,
            ..Self::around(inner, now)
        };
        // What cannot be said is noticed by the time without an answer; it takes a session that is closed already.
        let _ = probe.relay(said, ops);
        probe.flush(ops);
        probe
    }

    /// What of this is kept with the connection.
    pub(super) fn into_kept(self) -> Option<Box<Kept>> {
        self.session.map(|session| Box::new(Kept(session)))
    }

    pub(super) fn is_costly(&self, completion: &Completion<'_>) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Preamble(_) | Stage::Handshake)
            && matches!(completion.kind, OpKind::Connect | OpKind::Recv)
            && completion.result.is_ok()
    }

    pub(super) fn put_off(&mut self, completion: &Completion<'_>, now: Instant) -> bool {
        let waiting = self.behind.as_ref().map_or(0, |behind| behind.received.len());
        let opens = completion.kind == OpKind::Connect && completion.result.is_ok();
        let received = completion.kind == OpKind::Recv;
        if !(opens || received) || waiting + completion.data.len() > HANDSHAKE_UNREAD_MAX {
            return false;
        }
        let behind = self.behind.get_or_insert_with(|| {
            let Completion { slot, generation, .. } = *completion;
            let received = Vec::with_capacity(completion.data.len());
            let (connected, handshake) = (false, None);
            Box::new(Behind { since: now, slot, generation, connected, handshake, received, end: None })
        });
        behind.connected |= opens;
        behind.handshake = behind.handshake.or(completion.handshake);
        behind.received.extend_from_slice(completion.data);
        if received {
            self.receiving = completion.more;
            if !matches!(completion.result, Ok(1..)) {
                behind.end = Some(completion.result);
            }
        }
        true
    }

    pub(super) fn behind_since(&self) -> Option<Instant> {
        self.behind.as_ref().map(|behind| behind.since)
    }

    pub(super) fn catch_up(
        &mut self,
        request: &Request<'_>,
        now: Instant,
        held: Span,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        let behind = self.behind.take()?;
        self.began += held;
        self.connected += held;
        if behind.connected {
            let handshake = behind.handshake.map(|handshake| handshake.later(held));
            let completion = Completion { handshake, ..behind.completion(OpKind::Connect, Ok(0), false, &[]) };
            if let Some(judgement) = self.on(request, &completion, now, ops) {
                return Some(judgement);
            }
        }
        if !behind.received.is_empty() {
            let more = self.receiving || behind.end.is_some();
            let completion = behind.completion(OpKind::Recv, Ok(behind.received.len() as u32), more, &behind.received);
            if let Some(judgement) = self.on(request, &completion, now, ops) {
                // Where the peer has closed, there is nothing to keep and nobody to wait for.
                let then = if behind.end.is_some() { Then::Disconnect } else { judgement.then };
                return Some(Judgement { then, ..judgement });
            }
        }
        let end = behind.end?;
        let completion = behind.completion(OpKind::Recv, end, false, &[]);
        self.on(request, &completion, now, ops)
    }

    pub(super) fn on(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        if completion.kind == OpKind::Recv {
            self.receiving = completion.more;
        }
        let judgement = match (completion.kind, completion.result) {
            (OpKind::Connect, Ok(_)) => {
                self.connect = connect::took(completion, self.began, now);
                self.connected = now;
                self.opened(request, now, ops)
            }
            (OpKind::Connect, Err(_)) => {
                self.inner_judged = true;
                self.inner.on(request, completion, now, ops)
            }
            (OpKind::Send, Ok(_)) => self.sent(request, completion, now, ops),
            (OpKind::Send, Err(errno)) => {
                self.sending = false;
                self.not_sent(request, completion, errno, now, ops)
            }
            (OpKind::Recv, Ok(0)) => self.ended(request, completion, now, ops),
            (OpKind::Recv, Ok(_)) => self.received(request, completion, now, ops),
            (OpKind::Recv, Err(errno)) => self.broken(request, completion, errno, now, ops),
            (OpKind::Disconnect, _) => None,
        };
        match judgement {
            Some(judgement) => Some(self.finish(request, judgement, ops)),
            None => {
                self.flush(ops);
                let listens = !matches!(self.stage, Stage::Connecting) && !self.told_end;
                if listens && !self.receiving && !ended_now(completion) {
                    self.receiving = true;
                    ops.list.push(Op::Recv);
                }
                None
            }
        }
    }

    /// The connect stands: what is said first?
    fn opened(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        let secured = request.tls()?;
        if is_tunnelled(request) {
            let destination = request.destination();
            let authority = match destination.host {
                HostRef::Literal(std::net::IpAddr::V6(address)) => format!("[{address}]:{}", destination.port),
                host => format!("{}:{}", spelled(host), destination.port),
            };
            let authorization = match &request.policy.check {
                Check::Http(HttpCheck { proxy: Some(proxy), .. }) => proxy.authorization.as_ref(),
                _ => None,
            };
            let (preamble, said) = Preamble::connect(&authority, authorization.map(Secret::expose));
            self.outbox.extend_from_slice(&said);
            self.stage = Stage::Preamble(preamble);
            return None;
        }
        if let Some(protocol) = secured.policy.starttls {
            let (preamble, said) = Preamble::starttls(protocol);
            self.outbox.extend_from_slice(said);
            self.stage = Stage::Preamble(preamble);
            return None;
        }
        self.shake_hands(request, &[], now, ops)
    }

    /// TLS begins; `first` has been received already.
    fn shake_hands(&mut self, request: &Request<'_>, first: &[u8], now: Instant, ops: &mut Ops) -> Option<Judgement> {
        let secured = request.tls()?;
        self.stage = Stage::Handshake;
        match request.contexts.begin(secured.policy, secured.client(), secured.server_name(), request.address) {
            Ok(session) => self.session = Some(session),
            Err(failure) => return Some(self.failed(&failure)),
        }
        if first.is_empty() { None } else { self.deciphered(request, first, now, ops) }
    }

    fn received(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        let Stage::Preamble(preamble) = &mut self.stage else {
            return self.deciphered(request, completion.data, now, ops);
        };
        match preamble.take(completion.data) {
            Ok(Step::Listen) => None,
            Ok(Step::Say(words)) => {
                self.outbox.extend_from_slice(words);
                None
            }
            Ok(Step::Done(first)) => self.shake_hands(request, &first, now, ops),
            Err(words) => {
                let code = if preamble.is_tunnel() { Code::L4Con } else { Code::L6Rsp };
                Some(disconnect(code, &words))
            }
        }
    }

    /// Ciphertext, before or after the handshake is done.
    fn deciphered(
        &mut self,
        request: &Request<'_>,
        ciphertext: &[u8],
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        self.heard = true;
        let session = self.session.as_mut()?;
        let mut plaintext = Vec::new();
        let read = session.read(ciphertext, &mut plaintext);
        let done = session.is_established() && matches!(self.stage, Stage::Handshake);
        if let Err(failure) = &read
            && (plaintext.is_empty() || !matches!(self.stage, Stage::Open))
        {
            return Some(self.failed(failure));
        }
        if done {
            self.secured = now;
            if self.parts_at_once(request) {
                return self.part(request, now, ops);
            }
            self.stage = Stage::Open;
            let connected = self.told(OpKind::Connect, Ok(0), false, &[]);
            if let Some(judgement) = self.tell(request, &connected, now, ops) {
                return Some(judgement);
            }
        }
        if matches!(self.stage, Stage::Parting) {
            return self.parted(request, now, ops);
        }
        if !plaintext.is_empty() {
            let more = self.receiving;
            let said = self.told(OpKind::Recv, Ok(plaintext.len() as u32), more, &plaintext);
            if let Some(judgement) = self.tell(request, &said, now, ops) {
                return Some(judgement);
            }
        }
        if let Err(failure) = read {
            return Some(self.failed(&failure));
        }
        if self.session.as_ref().is_some_and(|session| session.is_closed()) && !self.told_end {
            self.told_end = true;
            let end = self.told(OpKind::Recv, Ok(0), false, &[]);
            return self.tell(request, &end, now, ops);
        }
        None
    }

    /// A check that has nothing to say: that the connection is secured is all that it wants to know.
    fn parts_at_once(&self, request: &Request<'_>) -> bool {
        matches!(&request.policy.check, Check::Tcp(check) if check.send.is_empty() && check.expect.is_empty())
    }

    fn part(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        let session = self.session.as_mut()?;
        let waits = session.may_be_refused();
        session.close();
        self.stage = Stage::Parting;
        if !waits {
            return self.parted(request, now, ops);
        }
        ops.wake = Some(now + TLS_REFUSAL_WAIT);
        None
    }

    /// Our side of the handshake was taken.
    fn parted(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        let connected = self.told(OpKind::Connect, Ok(0), false, &[]);
        self.tell(request, &connected, now, ops)
    }

    pub(super) fn woken(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        if !matches!(self.stage, Stage::Parting) {
            return None;
        }
        let judgement = self.parted(request, now, ops)?;
        Some(self.finish(request, judgement, ops))
    }

    fn sent(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        self.sending = false;
        self.flush(ops);
        if self.sending || !std::mem::take(&mut self.speaking) {
            return None;
        }
        self.tell(request, completion, now, ops)
    }

    fn not_sent(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        errno: Errno,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        if matches!(self.stage, Stage::Open) && self.speaking {
            return self.tell(request, completion, now, ops);
        }
        if matches!(errno, Errno::ECONNRESET | Errno::EPIPE) {
            // Why it was reset may lie in the receive buffer: an alert, or a refusal in plain text.
            self.unsent = Some(errno);
            return None;
        }
        Some(self.cut(errno))
    }

    /// The peer's FIN.
    fn ended(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        match &self.stage {
            Stage::Connecting => None,
            Stage::Preamble(_) | Stage::Handshake => Some(match (self.unsent, &self.stage) {
                (Some(errno), _) => self.cut(errno),
                (None, Stage::Preamble(preamble)) => {
                    let code = if preamble.is_tunnel() { Code::L4Con } else { Code::L6Rsp };
                    disconnect(code, &format!("closed before an {}", preamble.awaited()).replace("an SMTP", "the SMTP"))
                }
                (None, _) if self.heard => disconnect(Code::L6Rsp, "closed in the middle of the TLS handshake"),
                (None, _) => disconnect(Code::L6Rsp, "closed without a word of TLS"),
            }),
            Stage::Parting => self.parted(request, now, ops),
            Stage::Open if self.told_end => None,
            Stage::Open => {
                self.told_end = true;
                let mut judgement = self.tell(request, completion, now, ops)?;
                // Only its end completed the answer, and anybody on the way can make an end.
                if judgement.outcome.code == Code::L7Ok {
                    let words = "the answer may be cut off: its end is a FIN without TLS's close_notify";
                    judgement.outcome = Outcome { code: Code::L7Rsp, ..judgement.outcome }.with_evidence(words);
                }
                Some(judgement)
            }
        }
    }

    /// The receive failed.
    fn broken(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        errno: Errno,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        match &self.stage {
            Stage::Open => self.tell(request, completion, now, ops),
            // It resets what it does not want to hear any more; a refusal would have come before.
            Stage::Parting if matches!(errno, Errno::ECONNRESET | Errno::EPIPE) => self.parted(request, now, ops),
            Stage::Connecting | Stage::Preamble(_) | Stage::Handshake | Stage::Parting => Some(self.cut(errno)),
        }
    }

    /// The connection failed before the inner probe's turn.
    fn cut(&self, errno: Errno) -> Judgement {
        let (code, place) = match &self.stage {
            Stage::Preamble(preamble) if preamble.is_tunnel() => (Code::L4Con, "by the proxy, before a tunnel"),
            Stage::Preamble(_) => (Code::L6Rsp, "before TLS"),
            _ => (Code::L6Rsp, "in the TLS handshake"),
        };
        let code = match Code::of_transfer_error(errno) {
            Code::L7Rsp => code,
            Code::L7Tout => Code::L6Tout,
            other => other,
        };
        disconnect(code, &format!("{errno} {place}"))
    }

    fn failed(&self, failure: &Failure) -> Judgement {
        let code = match failure.blame {
            Blame::Protocol => Code::L6Rsp,
            Blame::Certificate => Code::L6Cert,
            Blame::Ours => Code::Void(VoidReason::Internal),
        };
        disconnect(code, &failure.words)
    }

    /// Gives the inner probe a completion, and does what it wants.
    fn tell(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        if ops.hop.is_some() {
            // It has said its last word here: it goes on elsewhere.
            return None;
        }
        let mut wanted = Ops::default();
        let judgement = self.inner.on(request, completion, now, &mut wanted);
        self.inner_judged = judgement.is_some();
        let relayed = self.relay(&mut wanted, ops);
        if judgement.is_some() {
            return judgement;
        }
        relayed.err().map(|failure| self.failed(&failure))
    }

    fn relay(&mut self, wanted: &mut Ops, ops: &mut Ops) -> Result<(), Failure> {
        for op in wanted.list.drain(..) {
            match op {
                Op::Send => {
                    self.speaking = true;
                    if let Some(session) = &mut self.session {
                        session.write(&wanted.bytes)?;
                    }
                }
                Op::Recv if !self.receiving && !self.told_end => {
                    self.receiving = true;
                    ops.list.push(Op::Recv);
                }
                Op::Recv | Op::Connect(_) | Op::Disconnect => {}
            }
        }
        ops.wake = wanted.wake.or(ops.wake);
        if let Some(hop) = wanted.hop.take() {
            // The attempt goes on elsewhere; the peer is left in order, and nothing that it still says is for the probe.
            ops.hop = Some(hop);
            self.told_end = true;
            if let Some(session) = &mut self.session {
                session.close();
            }
        }
        Ok(())
    }

    /// Sends what there is to send, unless something is being sent.
    fn flush(&mut self, ops: &mut Ops) {
        if self.sending {
            return;
        }
        ops.bytes.append(&mut self.outbox);
        if let Some(session) = &mut self.session {
            session.drain(&mut ops.bytes);
        }
        if !ops.bytes.is_empty() {
            self.sending = true;
            ops.list.push(Op::Send);
        }
    }

    /// A completion for the inner probe.
    fn told<'a>(&self, kind: OpKind, result: Result<u32, Errno>, more: bool, data: &'a [u8]) -> Completion<'a> {
        let (slot, generation) = (Slot(0), Generation::default());
        Completion { slot, generation, kind, result, more, local: false, data, handshake: None }
    }

    /// Completes a judgement: where the time went, how the certificate is, and how the connection ends.
    fn finish(&mut self, request: &Request<'_>, mut judgement: Judgement, ops: &mut Ops) -> Judgement {
        self.time(&mut judgement.outcome);
        if !self.inner_judged {
            judgement.outcome = led(request, judgement.outcome);
        }
        let Some(session) = &mut self.session else { return judgement };
        let wall = request.contexts.wall();
        look_at_certificate(request, &**session, wall, &mut judgement.outcome);
        if matches!(judgement.outcome.code, Code::L6Ok | Code::L7Ok)
            && matches!(request.policy.check, Check::Tcp(_))
            && judgement.then == Then::Disconnect
        {
            judgement.then = Then::AwaitFin;
        }
        if judgement.then == Then::Keep {
            let stale = wall.as_micros().saturating_sub(session.judged_at().as_micros())
                >= TLS_JUDGED_MAX.as_micros().cast_signed();
            if stale || self.sending || session.is_closed() {
                judgement.then = Then::AwaitFin;
            }
        }
        match judgement.then {
            Then::AwaitFin if !self.receiving => judgement.then = Then::Disconnect,
            Then::AwaitFin => {
                session.close();
                self.flush(ops);
            }
            Then::Keep | Then::Disconnect => {}
        }
        judgement
    }

    fn time(&self, outcome: &mut Outcome) {
        if matches!(self.stage, Stage::Connecting) {
            return;
        }
        outcome.latency.connect = self.connect;
        if matches!(self.stage, Stage::Open | Stage::Parting) && !self.resumed {
            outcome.latency.tls = self.secured.since(self.connected);
        }
    }

    pub(super) fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let (address, waited) = (request.address, now.since(self.began));
        let (code, words) = match &self.stage {
            Stage::Connecting => return led(request, connect::expired(request, waited)),
            Stage::Preamble(preamble) => {
                let code = if preamble.is_tunnel() { Code::L4Tout } else { Code::L6Tout };
                (code, format!("no {} from {address} in {waited}", preamble.awaited()))
            }
            Stage::Handshake if self.heard => {
                (Code::L6Tout, format!("TLS handshake with {address} not finished in {waited}"))
            }
            Stage::Handshake => (Code::L6Tout, format!("no TLS answer from {address} in {waited}")),
            Stage::Open | Stage::Parting => {
                let mut outcome = match self.stage {
                    Stage::Parting => Outcome::of(Code::L6Ok),
                    _ => self.inner.expire(request, now),
                };
                self.time(&mut outcome);
                if let Some(session) = &self.session {
                    look_at_certificate(request, &**session, request.contexts.wall(), &mut outcome);
                }
                return outcome;
            }
        };
        let mut outcome = led(request, Outcome::of(code).with_evidence(&words));
        self.time(&mut outcome);
        outcome
    }
}

/// Nothing more will be received after this.
fn ended_now(completion: &Completion<'_>) -> bool {
    completion.kind == OpKind::Recv && !matches!(completion.result, Ok(1..))
}

fn disconnect(code: Code, words: &str) -> Judgement {
    Judgement { outcome: Outcome::of(code).with_evidence(words), then: Then::Disconnect }
}

/// Whether a certificate has ended, on a kept or resumed connection, or will soon: of what is ok otherwise.
fn look_at_certificate(request: &Request<'_>, session: &dyn Session, wall: Timestamp, outcome: &mut Outcome) {
    if !matches!(outcome.code, Code::L6Ok | Code::L7Ok) {
        return;
    }
    let (Some(end), Some(secured)) = (session.certificate_end(), request.tls()) else { return };
    if let Some(words) = tls::ended(end, wall) {
        *outcome = Outcome { code: Code::L6Cert, warn: false, ..outcome.clone() }.with_evidence(&words);
        return;
    }
    if let Some(words) = secured.policy.min_days_left.and_then(|days| tls::ends_within(days, end, wall)) {
        outcome.warn = true;
        let words = match &outcome.evidence {
            Some(evidence) => format!("{evidence}; {words}"),
            None => words,
        };
        *outcome = outcome.clone().with_evidence(&words);
    }
}
