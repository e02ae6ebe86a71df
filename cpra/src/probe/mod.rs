//! Sans-io state machines, one per kind of check: completions in, operations and a judgement out.
//!
//! A probe drives *one attempt* on one slot. It knows nothing of timeouts, retries or monitors: the shard owns
//! those. It never allocates unless the attempt fails (evidence) or an answer's head arrives in pieces.

mod connect;
pub mod http;
pub mod tcp;

use std::net::SocketAddr;

use crate::domain::{Check, Outcome, Policy, TargetRef};
use crate::ring::{Completion, Op};
use crate::units::Instant;

/// What an attempt is about; put together anew for each call, from what the catalog and the slot already hold.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub policy: &'a Policy,
    pub target: TargetRef<'a>,
    pub address: SocketAddr,
}

/// Operations that a probe wants submitted on its slot, in order. At most one of them sends.
#[derive(Debug, Default)]
pub struct Ops {
    pub list: Vec<Op>,
    /// What `Op::Send` sends.
    pub bytes: Vec<u8>,
}

impl Ops {
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }
}

/// The end of an attempt.
#[derive(Debug)]
pub struct Judgement {
    /// `latency.total`, `latency.resolve` and `attempts` are the shard's to fill in.
    pub outcome: Outcome,
    pub then: Then,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Disconnect,
    /// The peer was asked to close: give it a moment to do so. A `Recv` is pending.
    AwaitFin,
    /// Keep it for the next check of this origin. A `Recv` is pending.
    Keep,
}

#[derive(Debug)]
pub enum Probe {
    Tcp(tcp::TcpProbe),
    Http(http::HttpProbe),
}

impl Probe {
    /// Begins on a slot without a connection: asks for the connect.
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        match &request.policy.check {
            Check::Tcp => Self::Tcp(tcp::TcpProbe::start(request, now, ops)),
            Check::Http(_) => Self::Http(http::HttpProbe::start(request, now, ops)),
        }
    }

    /// Begins on a kept connection, on which a `Recv` is pending. Only for checks that keep connections.
    pub fn resume(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        Self::Http(http::HttpProbe::resume(request, now, ops))
    }

    /// Takes a completion of this attempt. After the judgement it must not be called again.
    pub fn on(
        &mut self,
        request: &Request<'_>,
        completion: &Completion<'_>,
        now: Instant,
        ops: &mut Ops,
    ) -> Option<Judgement> {
        match self {
            Self::Tcp(probe) => probe.on(request, completion, now),
            Self::Http(probe) => probe.on(request, completion, now, ops),
        }
    }

    /// The attempt's time is up: which layer was it that did not answer?
    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        match self {
            Self::Tcp(probe) => probe.expire(request, now),
            Self::Http(probe) => probe.expire(request, now),
        }
    }
}
