//! A TCP check: can a connection be made?

use super::{Judgement, Ops, Request, Then};
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
        let mut outcome = match completion.result {
            Ok(_) => Outcome::of(Code::L4Ok),
            Err(errno) => Outcome::of(Code::of_connect_error(errno, completion.local))
                .with_evidence(&format!("{errno} {}", request.address)),
        };
        outcome.latency = Latency { connect: now.since(self.started), ..Latency::default() };
        Some(Judgement { outcome, then: Then::Disconnect })
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let waited = now.since(self.started);
        Outcome::of(Code::L4Tout).with_evidence(&format!("no answer from {} in {waited}", request.address))
    }
}
