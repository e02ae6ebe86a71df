//! Sans-io state machines, one per kind of check: completions in, operations and a judgement out.
//!
//! A probe drives *one attempt* on one slot. It knows nothing of timeouts, retries or monitors: the shard owns
//! those. It never allocates unless the attempt fails (evidence) or an answer's head arrives in pieces.

mod connect;
pub mod dns;
pub mod errand;
pub mod http;
pub mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;

use self::errand::{Echo, Errand, ErrandEnd};
use crate::domain::{Check, Outcome, Policy, TargetRef};
use crate::ring::{Completion, Op};
use crate::units::Instant;

/// What an attempt is about; put together anew for each call, from what the catalog and the slot already hold.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub policy: &'a Arc<Policy>,
    pub target: TargetRef<'a>,
    pub address: SocketAddr,
}

/// What a probe wants done: operations on its slot's socket, in order, at most one of which sends; or work that no socket
/// does.
#[derive(Debug, Default)]
pub struct Ops {
    pub list: Vec<Op>,
    /// What `Op::Send` sends.
    pub bytes: Vec<u8>,
    /// Only as the first thing of an attempt.
    pub errand: Option<Errand>,
    /// Sequence numbers of echo requests to the request's address.
    pub pings: Vec<u16>,
    /// When to call [`Probe::woken`], if nothing comes before. It replaces an earlier wish.
    pub wake: Option<Instant>,
}

impl Ops {
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.errand = None;
        self.pings.clear();
        self.wake = None;
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
    Dns(dns::DnsProbe),
}

impl Probe {
    /// Begins on a slot without a connection: asks for the connect.
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        match &request.policy.check {
            Check::Tcp(_) => Self::Tcp(tcp::TcpProbe::start(request, now, ops)),
            Check::Http(_) => Self::Http(http::HttpProbe::start(request, now, ops)),
            Check::Dns(_) => Self::Dns(dns::DnsProbe::start(request, now, ops)),
            Check::Icmp(_) | Check::Script(_) => unreachable!("the files do not let these in yet"),
            Check::Push(_) => unreachable!("nobody is asked"),
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
            Self::Dns(_) => None,
        }
    }

    /// Whether this kind of check uses its slot's socket.
    pub const fn uses_socket(check: &Check) -> bool {
        match check {
            Check::Tcp(_) | Check::Http(_) => true,
            Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => false,
        }
    }

    /// The errand that the attempt asked for came to an end.
    pub fn returned(&mut self, request: &Request<'_>, end: &ErrandEnd, now: Instant) -> Judgement {
        match self {
            Self::Dns(probe) => probe.returned(request, end, now),
            Self::Tcp(_) | Self::Http(_) => unreachable!("sockets run no errands"),
        }
    }

    /// Something came back for an echo request.
    pub fn echoed(
        &mut self,
        _request: &Request<'_>,
        _sequence: u16,
        _echo: Echo,
        _now: Instant,
        _ops: &mut Ops,
    ) -> Option<Judgement> {
        match self {
            Self::Tcp(_) | Self::Http(_) | Self::Dns(_) => None,
        }
    }

    /// The time has come that the probe wished to be woken at.
    pub fn woken(&mut self, _request: &Request<'_>, _now: Instant, _ops: &mut Ops) -> Option<Judgement> {
        match self {
            Self::Tcp(_) | Self::Http(_) | Self::Dns(_) => None,
        }
    }

    /// The attempt's time is up: which layer was it that did not answer?
    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        match self {
            Self::Tcp(probe) => probe.expire(request, now),
            Self::Http(probe) => probe.expire(request, now),
            Self::Dns(probe) => probe.expire(request, now),
        }
    }
}
