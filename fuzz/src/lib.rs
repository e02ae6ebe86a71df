//! What the targets share: policies, an attempt of a probe that is fed with bytes which somebody else chose, and what
//! must be true of whatever comes of it.

use std::sync::Arc;

use cpra::domain::monitor::About;
use cpra::domain::{Check, Code, Codes, HostRef, Outcome, Policy, TargetRef, Verdict};
use cpra::probe::{Hop, Judgement, Ops, Probe, Request, Then};
use cpra::ring::{Completion, Errno, OpKind};
use cpra::units::limits::EVIDENCE_MAX;
use cpra::units::{Generation, Instant, Slot, Span};
use cpra::wire::tls::Unloaded;

pub fn policy(check: Check) -> Arc<Policy> {
    Arc::new(Policy::new(check, Span::from_secs(10), Span::from_secs(1)))
}

/// What holds for every outcome, whatever somebody else said: its words are few and fit for a terminal, a warning stands
/// beside an OK only, and what is not OK has a reason.
pub fn assert_sound(outcome: &Outcome) {
    assert_fit(outcome.cause(), EVIDENCE_MAX);
    assert!(!outcome.warn || outcome.verdict() == Verdict::Warn, "{outcome:?} warns without being ok");
    let explains = outcome.evidence.as_ref().is_some_and(|evidence| !evidence.is_empty());
    assert!(explains || outcome.verdict() == Verdict::Ok, "{outcome:?} has no reason");
}

/// Text that people and terminals are shown.
pub fn assert_fit(text: &str, max: usize) {
    assert!(text.len() <= max, "{} bytes, at most {max}: {text:?}", text.len());
    assert!(!text.chars().any(char::is_control), "a control character in {text:?}");
}

pub const fn is_ok(code: Code) -> bool {
    matches!(code, Code::L4Ok | Code::L6Ok | Code::L7Ok)
}

/// A completion of the one slot.
pub fn done(kind: OpKind, result: Result<u32, Errno>, more: bool, data: &[u8]) -> Completion<'_> {
    Completion { slot: Slot(0), generation: Generation::default(), kind, result, more, local: false, data, handshake: None }
}

/// Bytes that are taken off the front.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a>(pub &'a [u8]);

impl<'a> Feed<'a> {
    /// 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// At most `count`.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece whose size its own first byte chooses.
    pub fn piece(&mut self) -> &'a [u8] {
        let size = self.0.first().map_or(0, |&first| usize::from(first) * 7 + 1);
        self.take(size)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum End {
    Judged(Judgement),
    /// It goes on elsewhere.
    Led(Box<Hop>),
}

/// An attempt without TLS, from its connect on, or on a kept connection. The peer says what `feed` has, in pieces, and
/// then ends the connection: in order or, when `reset` says so, with a reset. What a kept connection leaves of the feed is
/// what the peer says next.
pub fn attempt(policy: &Arc<Policy>, hop: Option<&Hop>, resumes: bool, reset: bool, feed: &mut Feed<'_>) -> End {
    let address = "127.0.0.1:80".parse().expect("an address");
    let target = TargetRef { host: HostRef::Name("fuzz.example"), port: 80, path: "/" };
    let request = Request { policy, target, address, hop, contexts: &Unloaded };
    let mut ops = Ops::default();
    let mut now = Instant::ZERO;
    let mut pending = Vec::new();
    let mut probe = if resumes {
        let probe = Probe::resume(&request, None, now, &mut ops);
        pending.push(done(OpKind::Send, Ok(ops.bytes.len() as u32), false, &[]));
        probe
    } else {
        pending.push(done(OpKind::Connect, Ok(0), false, &[]));
        Probe::start(&request, now, &mut ops)
    };
    loop {
        now += Span::from_micros(10);
        let completion = match pending.pop() {
            Some(completion) => completion,
            None if feed.is_empty() && reset => done(OpKind::Recv, Err(Errno::ECONNRESET), false, &[]),
            None if feed.is_empty() => done(OpKind::Recv, Ok(0), false, &[]),
            None => {
                let piece = feed.piece();
                done(OpKind::Recv, Ok(piece.len() as u32), true, piece)
            }
        };
        let ended = completion.kind == OpKind::Recv && !completion.more;
        ops.clear();
        if let Some(judgement) = probe.on(&request, &completion, now, &mut ops) {
            assert!(!ended || judgement.then != Then::Keep, "what has ended cannot be kept");
            return End::Judged(judgement);
        }
        if let Some(hop) = ops.hop.take() {
            return End::Led(hop);
        }
        // At any time, the time may be up.
        assert_sound(&probe.expire(&request, now));
        let sends = ops.list.iter().filter(|op| op.kind() == OpKind::Send).count();
        assert!(sends <= 1, "one at a time");
        if sends == 1 {
            pending.push(done(OpKind::Send, Ok(ops.bytes.len() as u32), false, &[]));
        }
        assert!(!ended, "an end ends the attempt");
    }
}
