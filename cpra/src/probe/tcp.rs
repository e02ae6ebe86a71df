//! A TCP check: can a connection be made?

use super::{Judgement, Ops, Request, Then, connect};
use crate::domain::{Code, Latency, Outcome};
use crate::ring::{Completion, Op, OpKind};
use crate::units::Instant;

#[derive(Debug)]
pub struct TcpProbe {
    started: Instant,
}

impl TcpProbe {
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        ops.list.push(Op::Connect(request.address));
        Self { started: now }
    }

    pub fn on(&mut self, request: &Request<'_>, completion: &Completion<'_>, now: Instant) -> Option<Judgement> {
        if completion.kind != OpKind::Connect {
            return None;
        }
        let waited = now.since(self.started);
        let outcome = match completion.result {
            Ok(_) => Outcome { latency: Latency { connect: waited, ..Latency::default() }, ..Outcome::of(Code::L4Ok) },
            Err(errno) => connect::failed(request, completion, errno, waited),
        };
        Some(Judgement { outcome, then: Then::Disconnect })
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        connect::expired(request, now.since(self.started))
    }
}
