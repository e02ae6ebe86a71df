//! Sans-io state machines, one per kind of check: completions in, operations and a judgement out.
//!
//! A probe drives *one attempt* on one slot. It knows nothing of timeouts, retries or monitors: the shard owns
//! those. It never allocates unless the attempt fails (evidence) or an answer's head arrives in pieces.

mod connect;
pub mod dns;
pub mod errand;
pub mod http;
pub mod icmp;
pub mod script;
mod secure;
pub mod syn;
pub mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;

use self::errand::{Echo, Errand, ErrandEnd};
pub use self::http::Hop;
pub(crate) use self::secure::identity;
pub use self::secure::{Kept, SecureProbe};
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::domain::{Check, Host, HostRef, HttpCheck, Outcome, Policy, TargetRef};
use crate::ring::{Completion, Op};
use crate::units::{Instant, Span};
use crate::wire::tls::Contexts;

/// What an attempt is about; put together anew for each call, from what the catalog and the slot already hold.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub policy: &'a Arc<Policy>,
    /// The monitor's own.
    pub target: TargetRef<'a>,
    /// What the slot's socket is connected to: the destination's, or its proxy's.
    pub address: SocketAddr,
    /// Where a redirect has led the attempt.
    pub hop: Option<&'a Hop>,
    /// What TLS is made from, where there is some.
    pub contexts: &'a dyn Contexts,
}

impl<'a> Request<'a> {
    /// Who is asked: the monitor's target, or the one that a redirect named.
    pub fn destination(&self) -> TargetRef<'a> {
        self.hop.map_or(self.target, Hop::target)
    }

    /// The TLS layer below the check's own protocol, if this connection has one.
    pub fn tls(&self) -> Option<Secured<'a>> {
        /// Of an https address that a monitor of an http one was led to.
        static PLAIN: TlsPolicy = TlsPolicy {
            server_name: None,
            ca_file: None,
            client: None,
            insecure_skip_verify: false,
            min_days_left: None,
            starttls: None,
        };
        let policy = match self.hop {
            Some(hop) if !hop.is_secure() => None,
            Some(_) => Some(self.policy.check.tls().unwrap_or(&PLAIN)),
            None => self.policy.check.tls(),
        };
        let is_own = !self.hop.is_some_and(Hop::is_foreign);
        policy.map(|policy| Secured { policy, host: self.destination().host, is_own })
    }
}

/// How a connection is secured.
#[derive(Clone, Copy, Debug)]
pub struct Secured<'a> {
    pub policy: &'a TlsPolicy,
    host: HostRef<'a>,
    /// It is the origin that the policy was written for.
    is_own: bool,
}

impl<'a> Secured<'a> {
    /// Whom the certificate must name.
    pub fn server_name(&self) -> HostRef<'a> {
        match &self.policy.server_name {
            Some(name) if self.is_own => name.parse().map_or(HostRef::Name(name), HostRef::Literal),
            _ => self.host,
        }
    }

    /// The certificate to show when asked for one: to nobody but the monitor's own target.
    pub fn client(&self) -> Option<&'a ClientCertificate> {
        self.policy.client.as_ref().filter(|_| self.is_own)
    }
}

/// Whom a socket is connected to for the sake of a target: the target itself, or the check's proxy.
pub fn dialled<'a>(policy: &'a Policy, target: TargetRef<'a>) -> (HostRef<'a>, u16) {
    match &policy.check {
        Check::Http(HttpCheck { proxy: Some(proxy), .. }) => match &proxy.host {
            Host::Literal(address) => (HostRef::Literal(*address), proxy.port),
            Host::Name(name) => (HostRef::Name(name), proxy.port),
        },
        _ => (target.host, target.port),
    }
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
    /// The number of a SYN to the request's address and port: a half-open check's first one, or that again.
    pub syn: Option<u16>,
    /// How many of these may leave now.
    pub quota: Quota,
    /// When to call [`Probe::woken`], if nothing comes before. It replaces an earlier wish.
    pub wake: Option<Instant>,
    /// The answer named another place to ask: the attempt begins anew there, on another connection, within what is left
    /// of its time.
    pub hop: Option<Box<Hop>>,
}

impl Ops {
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.errand = None;
        self.pings.clear();
        self.syn = None;
        self.quota = Quota::default();
        self.wake = None;
        self.hop = None;
    }
}

/// What a host lets out is bounded: how many packets may leave now, and when there may be more.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    pub left: u32,
    pub next: Instant,
    /// One was kept back.
    pub is_short: bool,
}

impl Default for Quota {
    /// No bound.
    fn default() -> Self {
        Self { left: u32::MAX, next: Instant::ZERO, is_short: false }
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
    /// A TCP check that makes half a connection.
    Syn(syn::SynProbe),
    Http(http::HttpProbe),
    Icmp(icmp::IcmpProbe),
    Script(script::ScriptProbe),
    Dns(dns::DnsProbe),
    /// One of those with a socket, over TLS.
    Secure(Box<SecureProbe>),
}

impl Probe {
    /// Begins on a slot without a connection: asks for the connect.
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        let probe = Self::plain(request, now, ops);
        if request.tls().is_none() { probe } else { Self::Secure(Box::new(SecureProbe::around(probe, now))) }
    }

    /// Begins without a connection, and makes half of one only. Only for checks that ask for it.
    pub fn start_half_open(now: Instant, ops: &mut Ops) -> Self {
        Self::Syn(syn::SynProbe::start(now, ops))
    }

    /// Whether it waits for what answers a SYN of a half-open check.
    pub const fn is_half_open(&self) -> bool {
        matches!(self, Self::Syn(_))
    }

    fn plain(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        match &request.policy.check {
            Check::Tcp(_) => Self::Tcp(tcp::TcpProbe::start(request, now, ops)),
            Check::Http(_) => Self::Http(http::HttpProbe::start(request, now, ops)),
            Check::Icmp(_) => Self::Icmp(icmp::IcmpProbe::start(request, now, ops)),
            Check::Script(_) => Self::Script(script::ScriptProbe::start(request, ops)),
            Check::Dns(_) => Self::Dns(dns::DnsProbe::start(request, now, ops)),
            Check::Push(_) => unreachable!("nobody is asked"),
        }
    }

    /// Begins on a kept connection, on which a `Recv` is pending. Only for checks that keep connections.
    pub fn resume(request: &Request<'_>, kept: Option<Box<Kept>>, now: Instant, ops: &mut Ops) -> Self {
        let Some(kept) = kept else { return Self::Http(http::HttpProbe::resume(request, now, ops)) };
        let mut said = Ops::default();
        let probe = Self::Http(http::HttpProbe::resume(request, now, &mut said));
        Self::Secure(Box::new(SecureProbe::resume(probe, *kept, now, &mut said, ops)))
    }

    /// What has to be kept with a connection beside its socket. The attempt is over.
    pub fn into_kept(self) -> Option<Box<Kept>> {
        match self {
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Script(_) | Self::Dns(_) => None,
            Self::Secure(probe) => probe.into_kept(),
        }
    }

    /// Whether taking this costs so much that the shard does only some of it in one step (see [`Probe::put_off`]).
    pub fn is_costly(&self, completion: &Completion<'_>) -> bool {
        match self {
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Script(_) | Self::Dns(_) => false,
            Self::Secure(probe) => probe.is_costly(completion),
        }
    }

    /// Keeps a completion for [`Probe::catch_up`]; what follows it waits behind it. Answers whether it did.
    pub fn put_off(&mut self, completion: &Completion<'_>, now: Instant) -> bool {
        match self {
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Script(_) | Self::Dns(_) => false,
            Self::Secure(probe) => probe.put_off(completion, now),
        }
    }

    /// Since when something waits that was put off.
    pub fn behind_since(&self) -> Option<Instant> {
        match self {
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Script(_) | Self::Dns(_) => None,
            Self::Secure(probe) => probe.behind_since(),
        }
    }

    /// Takes what was put off.
    pub fn catch_up(&mut self, request: &Request<'_>, now: Instant, held: Span, ops: &mut Ops) -> Option<Judgement> {
        match self {
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Script(_) | Self::Dns(_) => None,
            Self::Secure(probe) => probe.catch_up(request, now, held, ops),
        }
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
            Self::Tcp(probe) => probe.on(request, completion, now, ops),
            Self::Http(probe) => probe.on(request, completion, now, ops),
            Self::Secure(probe) => probe.on(request, completion, now, ops),
            Self::Icmp(_) | Self::Syn(_) => unreachable!("these have no socket of their own"),
            Self::Script(_) => unreachable!("a script has no socket"),
            Self::Dns(_) => unreachable!("the driver has the socket"),
        }
    }

    /// Whether this kind of check uses its slot's socket, but for [`Probe::start_half_open`].
    pub const fn uses_socket(check: &Check) -> bool {
        match check {
            Check::Tcp(_) | Check::Http(_) => true,
            Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => false,
        }
    }

    /// The errand that the attempt asked for is under way.
    pub fn begun(&mut self) {
        match self {
            Self::Script(probe) => probe.begun(),
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Dns(_) | Self::Secure(_) => {}
        }
    }

    /// The errand that the attempt asked for came to an end.
    pub fn returned(&mut self, request: &Request<'_>, end: &ErrandEnd, now: Instant) -> Judgement {
        match self {
            Self::Script(probe) => probe.returned(request, end),
            Self::Dns(probe) => probe.returned(request, end, now),
            Self::Tcp(_) | Self::Syn(_) | Self::Http(_) | Self::Icmp(_) | Self::Secure(_) => {
                unreachable!("these run no errands")
            }
        }
    }

    /// Something came back for an echo request, or a SYN of a half-open check.
    pub fn echoed(
        &mut self,
        request: &Request<'_>,
        sequence: u16,
        echo: Echo,
        now: Instant,
        _ops: &mut Ops,
    ) -> Option<Judgement> {
        match self {
            Self::Icmp(probe) => probe.echoed(request, sequence, echo, now),
            Self::Syn(probe) => probe.echoed(request, sequence, echo),
            Self::Tcp(_) | Self::Http(_) | Self::Script(_) | Self::Dns(_) | Self::Secure(_) => None,
        }
    }

    /// The time has come that the probe wished to be woken at.
    pub fn woken(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        match self {
            Self::Icmp(probe) => probe.woken(request, now, ops),
            Self::Syn(probe) => {
                probe.woken(now, ops);
                None
            }
            Self::Secure(probe) => probe.woken(request, now, ops),
            Self::Tcp(_) | Self::Http(_) | Self::Script(_) | Self::Dns(_) => None,
        }
    }

    /// The attempt's time is up: which layer was it that did not answer?
    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        match self {
            Self::Tcp(probe) => probe.expire(request, now),
            Self::Http(probe) => probe.expire(request, now),
            Self::Secure(probe) => probe.expire(request, now),
            Self::Icmp(probe) => probe.expire(request, now),
            Self::Syn(probe) => probe.expire(request, now),
            Self::Script(probe) => probe.expire(request),
            Self::Dns(probe) => probe.expire(request, now),
        }
    }
}
