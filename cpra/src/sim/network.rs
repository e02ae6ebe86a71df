//! The simulated network's other side: who listens where, how they behave when, and what they send.
//!
//! A target's behaviour is a function of time (its phases) and, for a half-alive one, of a draw per connection. What
//! an attempt truly met is kept as a [`Fate`]: the checkers judge by it, never by what the daemon made of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fastrand::Rng;

use super::server::{self, Server};
use crate::ring::Errno;
use crate::units::{Instant, Span};

/// What a target does with those who come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Accepts; to a request it answers as its [`Server`] says.
    Up,
    Refused,
    /// A router says that there is no way.
    Unreachable,
    /// Nothing comes back, ever.
    Blackhole,
    /// Nothing comes back, and the kernel gives up after this long.
    GivenUp(Span),
    /// Accepts, then resets at once.
    Slams,
    /// Accepts and reads, and never answers.
    Tarpit,
    /// Accepts and does not even read: the request does not fit its window.
    Deaf,
    /// Begins an answer and goes on with a byte now and then, for ever.
    Trickle,
    /// Answers with another status.
    Status(u16),
    /// Answers with what is not HTTP.
    Garbage,
    /// Closes in the middle of the answer.
    CutShort,
    /// Resets in the middle of the answer.
    ResetMidway,
    /// The whole answer, in pieces this far apart.
    Pieces(Span),
    /// Sends this as soon as it has accepted, then nothing.
    Banner(&'static [u8]),
    /// As `Banner`, then closes.
    BannerFin(&'static [u8]),
    /// Sends back what it gets.
    Echo,
    /// Waits for a byte, sends this, then resets.
    Half(&'static [u8]),
    /// Answers each HTTP request with exactly this, and keeps the connection.
    Replies(&'static [u8]),
    /// Reads a length (8 bytes, little endian) and so many bytes, and answers with their sum (the same, wrapping).
    Sum,
    /// Each connection meets one of `Up`, `Slams`, `Tarpit`, `Blackhole`.
    HalfAlive,
}

/// One listener, or the lack of one.
#[derive(Clone, Debug)]
pub struct Target {
    /// From when it behaves how; the first entry holds before it as well.
    pub phases: Vec<(Instant, Behaviour)>,
    /// One way and back.
    pub latency: Span,
    pub server: Server,
}

impl Target {
    /// Behaves the same for ever, half a millisecond away.
    pub fn always(behaviour: Behaviour) -> Self {
        Self { phases: vec![(Instant::ZERO, behaviour)], latency: Span::from_micros(500), server: Server::default() }
    }

    pub fn behaviour(&self, now: Instant) -> &Behaviour {
        let after = self.phases.partition_point(|(from, _)| *from <= now);
        &self.phases[after.saturating_sub(1)].1
    }
}

/// What an attempt truly met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing that would decide a check has come back yet.
    Silent,
    /// Refused or unreachable: no connection stood.
    Refused,
    /// The kernel said ETIMEDOUT.
    GivenUp,
    /// A connection stands; nothing was asked yet.
    Accepted,
    /// Accepted and reset; which of the two a connect sees is a race.
    Slammed,
    /// A whole answer.
    Answered(u16),
    /// Not an answer, or not a whole one; the status where the head was whole.
    Broken(Option<u16>),
    /// The connection was closed or reset before an answer began: on a kept connection this is no verdict.
    Closed,
    /// This host's own refusal.
    Ours(Errno, bool),
}

/// Something that travels to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// How a connect will end, and when.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) after: Span,
    /// `None`: never.
    pub(super) answer: Option<Result<(), Errno>>,
    pub(super) fate: Fate,
    pub(super) peer: Peer,
}

/// The far end of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    address: Option<SocketAddr>,
    /// What a half-alive target drew for this connection.
    drawn: Option<Behaviour>,
    /// Received, but not a whole request yet.
    inbound: Vec<u8>,
    /// Will not answer on this connection any more.
    pub(super) done: bool,
}

/// What the far end does about what it received.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) wires: Vec<(Span, Wire)>,
    /// What this request meets; `None` while it is not whole, or when nothing will decide it.
    pub(super) fate: Option<Fate>,
    /// Which of the wires decides the check.
    pub(super) decisive: Option<usize>,
    /// The path that was asked for; `None` while the request is not whole.
    pub(super) path: Option<String>,
    /// How the far end gives up the connection, if nothing more is asked.
    pub(super) idle: Option<(Span, Vec<Wire>)>,
    /// The request does not leave this host: the send stays pending.
    pub(super) stuck: bool,
}

/// Everything that can be reached.
#[derive(Clone, Debug, Default)]
pub struct Network {
    targets: Vec<Target>,
    addresses: BTreeMap<SocketAddr, usize>,
}

impl Network {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a target behind one or several addresses.
    pub fn add(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, target: Target) {
        let number = self.targets.len();
        self.targets.push(target);
        self.addresses.extend(addresses.into_iter().map(|address| (address, number)));
    }

    pub fn target(&self, address: &SocketAddr) -> Option<&Target> {
        self.addresses.get(address).map(|&number| &self.targets[number])
    }

    /// Where nobody was put, nobody answers with a reset, as on a live host.
    pub(super) fn dial(&self, address: SocketAddr, now: Instant, rng: &mut Rng) -> Dial {
        let peer = Peer { address: Some(address), ..Peer::default() };
        let Some(target) = self.target(&address) else {
            return Dial {
                after: Span::from_micros(50),
                answer: Some(Err(Errno::ECONNREFUSED)),
                fate: Fate::Refused,
                peer,
            };
        };
        let behaviour = target.behaviour(now);
        let drawn = (*behaviour == Behaviour::HalfAlive).then(|| {
            [Behaviour::Up, Behaviour::Slams, Behaviour::Tarpit, Behaviour::Blackhole][rng.usize(0..4)].clone()
        });
        let after = varied(target.latency, rng);
        let (after, answer, fate) = match drawn.as_ref().unwrap_or(behaviour) {
            Behaviour::Refused => (after, Some(Err(Errno::ECONNREFUSED)), Fate::Refused),
            Behaviour::Unreachable => {
                let errno = if rng.bool() { Errno::EHOSTUNREACH } else { Errno::ENETUNREACH };
                (after, Some(Err(errno)), Fate::Refused)
            }
            Behaviour::Blackhole => (after, None, Fate::Silent),
            Behaviour::GivenUp(after) => (*after, Some(Err(Errno::ETIMEDOUT)), Fate::GivenUp),
            Behaviour::Slams if rng.u8(0..4) == 0 => (after, Some(Err(Errno::ECONNRESET)), Fate::Slammed),
            Behaviour::Slams => (after, Some(Ok(())), Fate::Slammed),
            _ => (after, Some(Ok(())), Fate::Accepted),
        };
        // Who slams does so even if the target changes its ways before it has answered.
        let drawn = drawn.or_else(|| (fate == Fate::Slammed).then_some(Behaviour::Slams));
        Dial { after, answer, fate, peer: Peer { drawn, ..peer } }
    }

    /// What comes with the acceptance, before anything was sent.
    pub(super) fn greet(&self, peer: &mut Peer, now: Instant, rng: &mut Rng) -> Vec<(Span, Wire)> {
        let Some(target) = peer.address.and_then(|address| self.target(&address)) else { return Vec::new() };
        match peer.drawn.as_ref().unwrap_or_else(|| target.behaviour(now)) {
            Behaviour::Slams => {
                peer.done = true;
                vec![(varied(Span::from_micros(30), rng), Wire::Reset)]
            }
            Behaviour::Banner(bytes) => vec![(Span::from_micros(20), Wire::Bytes(bytes.to_vec()))],
            Behaviour::BannerFin(bytes) => {
                vec![(Span::from_micros(20), Wire::Bytes(bytes.to_vec())), (Span::from_micros(40), Wire::Fin)]
            }
            _ => Vec::new(),
        }
    }

    /// The far end receives.
    pub(super) fn receive(&self, peer: &mut Peer, bytes: &[u8], now: Instant, rng: &mut Rng) -> Reply {
        let Some(target) = peer.address.and_then(|address| self.target(&address)) else { return Reply::default() };
        let behaviour = match (target.behaviour(now), &peer.drawn) {
            (Behaviour::HalfAlive, Some(drawn)) => drawn.clone(),
            (behaviour, _) => behaviour.clone(),
        };
        let after = varied(target.latency, rng);
        let plain = |wires: Vec<(Span, Wire)>| Reply { wires, ..Reply::default() };
        match behaviour {
            Behaviour::Deaf => return Reply { stuck: true, path: path_of(bytes), ..Reply::default() },
            Behaviour::Echo => return plain(vec![(after, Wire::Bytes(bytes.to_vec()))]),
            Behaviour::Half(half) => {
                return plain(vec![(after, Wire::Bytes(half.to_vec())), (after + after, Wire::Reset)]);
            }
            _ => {}
        }
        peer.inbound.extend_from_slice(bytes);
        if behaviour == Behaviour::Sum {
            return plain(
                sum(&peer.inbound).map(|sum| (after, Wire::Bytes(sum.to_le_bytes().to_vec()))).into_iter().collect(),
            );
        }
        let Some(request) = server::request(&peer.inbound) else { return Reply::default() };
        peer.inbound.drain(..request.length);
        let path = Some(request.path.clone());
        if let Behaviour::Replies(bytes) = behaviour {
            return plain(vec![(after, Wire::Bytes(bytes.to_vec()))]);
        }
        if peer.done {
            let wires = vec![(varied(target.latency, rng), Wire::Reset)];
            return Reply { path, wires, fate: Some(Fate::Closed), decisive: Some(0), ..Reply::default() };
        }
        let answer = server::answer(&target.server, &behaviour, &request, after, rng);
        peer.done = answer.last;
        let idle = if answer.last { None } else { server::idle(&target.server) };
        Reply { wires: answer.wires, fate: answer.fate, decisive: answer.decisive, path, idle, stuck: false }
    }
}

fn path_of(bytes: &[u8]) -> Option<String> {
    server::request(bytes).map(|request| request.path)
}

/// Once everything is there.
fn sum(inbound: &[u8]) -> Option<u64> {
    let (length, rest) = inbound.split_first_chunk::<8>()?;
    (rest.len() as u64 >= u64::from_le_bytes(*length))
        .then(|| rest.iter().fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte))))
}

/// A latency as the network makes it: mostly the usual, sometimes several times as long.
pub(super) fn varied(usual: Span, rng: &mut Rng) -> Span {
    match rng.u8(..) {
        0..200 => usual.scaled(rng.u64(80..120), 100),
        200..250 => usual.scaled(rng.u64(100..300), 100),
        _ => usual.scaled(rng.u64(300..800), 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_hold_from_their_beginning() {
        let at = |secs| Instant::ZERO + Span::from_secs(secs);
        let target = Target {
            phases: vec![(at(1), Behaviour::Up), (at(5), Behaviour::Refused), (at(9), Behaviour::Up)],
            ..Target::always(Behaviour::Up)
        };
        let seen = [0, 1, 4, 5, 8, 9, 100].map(|secs| target.behaviour(at(secs)) == &Behaviour::Up);
        assert_eq!(seen, [true, true, true, false, false, true, true]);
    }
}
