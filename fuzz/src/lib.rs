//! What the targets share: an attempt of a probe, fed with bytes that somebody else chose.

use cpra::domain::{HostRef, Policy, TargetRef};
use cpra::probe::{Judgement, Ops, Probe, Request};
use cpra::ring::{Completion, OpKind};
use cpra::units::{Generation, Instant, Slot, Span};

/// Connects, lets the request out, and gives `bytes` to the probe in pieces whose sizes the bytes themselves choose, then
/// the peer's end. Answers with the judgement; the probe must come to one.
pub fn attempt(policy: &Policy, bytes: &[u8]) -> Judgement {
    let address = "127.0.0.1:80".parse().expect("an address");
    let target = TargetRef { host: HostRef::Name("fuzz.example"), port: 80, path: "/" };
    let request = Request { policy, target, address };
    let mut ops = Ops::default();
    let mut now = Instant::ZERO;
    let mut probe = Probe::start(&request, now, &mut ops);
    let done = |kind, result, more, data| Completion {
        slot: Slot(0),
        generation: Generation::default(),
        kind,
        result,
        more,
        local: false,
        data,
    };
    let mut pending = vec![done(OpKind::Connect, Ok(0), false, &[][..])];
    let mut rest = bytes;
    loop {
        now = now + Span::from_micros(10);
        let completion = match pending.pop() {
            Some(completion) => completion,
            None if rest.is_empty() => done(OpKind::Recv, Ok(0), false, &[]),
            None => {
                let size = (usize::from(rest[0]) * 7 + 1).min(rest.len());
                let (piece, after) = rest.split_at(size);
                rest = after;
                done(OpKind::Recv, Ok(piece.len() as u32), true, piece)
            }
        };
        let ended = completion.kind == OpKind::Recv && completion.result == Ok(0);
        ops.clear();
        if let Some(judgement) = probe.on(&request, &completion, now, &mut ops) {
            return judgement;
        }
        for op in &ops.list {
            if op.kind() == OpKind::Send {
                pending.push(done(OpKind::Send, Ok(ops.bytes.len() as u32), false, &[]));
            }
        }
        assert!(!ended, "an end ends the attempt");
    }
}
