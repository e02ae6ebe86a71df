//! The simulated kernel: sockets, operations and completions on a virtual clock, all drawn from one seed.
//!
//! It obeys the contract of [`crate::ring`] and *punishes* its breach the way the real kernel was measured to: with a
//! receive pending, a disconnect and a connect in one submission hand the next target's bytes to the old receive;
//! with a connect to a blackhole pending, they complete the old connect with success. Every breach is written down as
//! well ([`SimRing::violations`]), since the punishment alone might strike where nobody looks.
//!
//! Completions come in an order drawn from the seed: reordered between slots and between the kinds of one slot (the
//! bytes of a receive stay in order), late, in batches, cut at arbitrary points. It never drops one. Some connects come with
//! their handshake's times, some with times that cannot be.

mod kernel;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fastrand::Rng;

use super::network::{Fate, Network, Peer, Wire};
use crate::ring::{Completion, Errno, Family, Handshake, Op, OpKind, Ring, Wait};
use crate::units::{Generation, Instant, Slot, Span};

/// What this host does to itself at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Connects fail with this error, this many in 256; the flag is [`Completion::local`].
    pub connect: Option<(Errno, bool, u8)>,
    /// Transfers fail with this error, this many in 256.
    pub transfer: Option<(Errno, u8)>,
    /// No sockets are made.
    pub open: Option<Errno>,
    /// Completions take up to this long, instead of microseconds.
    pub late: Span,
    /// This host loses what it sends, this many in 256.
    pub lossy: u8,
}

/// One attempt as the kernel saw it: a connect, or a request on a kept connection.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub slot: Slot,
    pub address: SocketAddr,
    pub started: Instant,
    /// When the request left, and for which path.
    pub asked: Option<Instant>,
    pub path: Option<String>,
    pub reused: bool,
    pub fate: Fate,
    /// When the connect's success is there to be reaped.
    pub connected: Option<Instant>,
    /// The same has been reaped.
    pub connected_seen: bool,
    /// When the completion that shows the rest of the fate is there to be reaped.
    pub settled: Option<Instant>,
    /// The same has been reaped.
    pub settled_seen: bool,
    /// When the slot was disconnected.
    pub left: Option<Instant>,
    /// When this host lost a packet of it.
    pub lost: Option<Instant>,
    /// The peer has ended the connection, whatever else happened.
    pub broken: bool,
}

/// What happened at this ring since the last look, for the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The attempt of this number began.
    Began(usize),
    /// The request of this attempt has left, or failed to, and its path is known.
    Asked(usize),
    /// This host lost a packet of this attempt.
    Lost(usize),
}

/// Hash and trace want to know what was delivered; so does the coverage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    pub submitted: u64,
    pub completed: u64,
    pub short_reads: u64,
    pub local_errors: u64,
    pub opens_refused: u64,
    pub connect_won: u64,
    pub connect_lost: u64,
    pub reordered: u64,
    pub late: u64,
    pub scolded: u64,
    /// Handshakes that were told of truly, how long they took in sum, and those that were told wrongly.
    pub stamped: u64,
    pub stamped_sum: Span,
    pub misstamped: u64,
}

#[derive(Debug)]
struct Submission {
    slot: Slot,
    generation: Generation,
    op: Op,
    bytes: Vec<u8>,
}

/// An operation that the kernel has not finished.
#[derive(Clone, Copy, Debug)]
struct Armed {
    kind: OpKind,
    generation: Generation,
    /// A disconnect has woken it; it looks at the socket once the submission is through.
    woken: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Idle,
    Connecting,
    Up,
    /// Reset by the peer.
    Reset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Opened {
    #[default]
    Never,
    As(Family),
    Refused(Errno),
}

#[derive(Debug, Default)]
struct Socket {
    opened: Opened,
    link: Link,
    /// Raised by every connect and disconnect: packets of an older connection find nobody.
    connection: u64,
    peer: Peer,
    armed: Vec<Armed>,
    inbox: Vec<u8>,
    fin: bool,
    /// Requests sent on this connection.
    requests: u32,
    /// A send has been told that the peer has reset the connection; an error is told once.
    told: bool,
    /// The completion in the inbox's end shows the attempt's fate.
    decisive: bool,
    /// Receives complete in order.
    floor: Instant,
    attempt: Option<usize>,
    // What the user of the ring may know.
    outstanding: [bool; 4],
    connected: bool,
    /// Told to disconnect since the last connect.
    left: bool,
    connect_generation: Option<Generation>,
}

#[derive(Debug)]
enum Happening {
    Answer { slot: Slot, connection: u64, result: Result<(), Errno> },
    Arrive { slot: Slot, connection: u64, wire: Wire, decisive: bool },
    Idle { slot: Slot, connection: u64, requests: u32, wires: Vec<Wire> },
}

#[derive(Debug)]
struct Done {
    slot: Slot,
    generation: Generation,
    kind: OpKind,
    result: Result<u32, Errno>,
    more: bool,
    local: bool,
    data: Vec<u8>,
    handshake: Option<Handshake>,
    /// The attempt whose connection, or whose fate, this shows.
    shows: Option<usize>,
}

impl Done {
    fn is_connection(&self) -> bool {
        self.kind == OpKind::Connect && self.result.is_ok()
    }
}

#[derive(Debug)]
pub struct SimRing {
    now: Instant,
    rng: Rng,
    /// Draws for handshakes, so that telling of them changes nothing else.
    stamps: Rng,
    network: Network,
    weather: Weather,
    sockets: Vec<Socket>,
    queue: Vec<Submission>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    ready: BTreeMap<(Instant, u64), Done>,
    sequence: u64,
    lent: Vec<Done>,
    attempts: Vec<Attempt>,
    observed: Vec<Observed>,
    violations: Vec<String>,
    counts: RingCounts,
}

impl SimRing {
    /// A ring whose clock stands at zero; [`Ring::enter`] and [`SimRing::advance`] move it.
    pub fn new(network: Network, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            rng: Rng::with_seed(seed),
            stamps: Rng::with_seed(!seed),
            network,
            weather: Weather::default(),
            sockets: Vec::new(),
            queue: Vec::new(),
            agenda: BTreeMap::new(),
            ready: BTreeMap::new(),
            sequence: 0,
            lent: Vec::new(),
            attempts: Vec::new(),
            observed: Vec::new(),
            violations: Vec::new(),
            counts: RingCounts::default(),
        }
    }

    pub const fn now(&self) -> Instant {
        self.now
    }

    pub const fn counts(&self) -> &RingCounts {
        &self.counts
    }

    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Who can be reached.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Breaches of the contract so far, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What happened since the last call.
    pub fn observed(&mut self) -> Vec<Observed> {
        std::mem::take(&mut self.observed)
    }

    /// Lets the network's time pass, whether or not anyone looks.
    ///
    /// # Panics
    /// If time runs backwards.
    pub fn advance(&mut self, now: Instant) {
        assert!(now >= self.now, "time runs forwards");
        while let Some(entry) = self.agenda.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let happening = entry.remove();
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = now;
    }

    /// When the oldest completion that nobody has reaped was or will be there, as far as the network has got.
    pub fn next_ready(&self) -> Option<Instant> {
        self.ready.first_key_value().map(|((at, _), _)| *at)
    }

    /// When something happens in the network next; may or may not complete an operation.
    pub fn next_happening(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    /// What was submitted and has not been reaped for good.
    pub fn outstanding(&self) -> usize {
        self.sockets.iter().map(|socket| socket.outstanding.iter().filter(|pending| **pending).count()).sum()
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn socket(&mut self, slot: Slot) -> &mut Socket {
        if self.sockets.len() <= slot.index() {
            self.sockets.resize_with(slot.index() + 1, Socket::default);
        }
        &mut self.sockets[slot.index()]
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn check(&mut self, slot: Slot, generation: Generation, op: &Op) {
        let now = self.now;
        let socket = self.socket(slot);
        let kind = op.kind();
        let breach = if socket.opened == Opened::Never {
            Some("on a slot that was not opened")
        } else if socket.outstanding[kind as usize] {
            Some("while one of its kind is pending")
        } else {
            match op {
                Op::Connect(_) if socket.outstanding.contains(&true) => Some("on a slot that is not quiet"),
                Op::Connect(_) if socket.connected => Some("on a slot that is connected"),
                Op::Connect(_) if socket.connect_generation == Some(generation) => Some("with the generation before"),
                Op::Connect(address) if matches!(socket.opened, Opened::As(family) if family != Family::of(address)) => {
                    Some("to an address of the other family")
                }
                Op::Send | Op::Recv if matches!(socket.opened, Opened::Refused(_)) => None,
                Op::Send | Op::Recv if !socket.connected => Some("on a slot that is not connected"),
                _ => None,
            }
        };
        socket.outstanding[kind as usize] = true;
        match op {
            Op::Connect(_) => {
                socket.connect_generation = Some(generation);
                socket.left = false;
            }
            Op::Disconnect => {
                socket.connected = false;
                socket.left = true;
            }
            Op::Send | Op::Recv => {}
        }
        if let Some(breach) = breach {
            self.violation(format!("{now:?}: {op:?} of slot {} submitted {breach}", slot.0));
        }
    }
}

impl Ring for SimRing {
    fn open(&mut self, slot: Slot, family: Family) -> Result<(), Errno> {
        let now = self.now;
        let weather = self.weather;
        let socket = self.socket(slot);
        let occupied = matches!(socket.opened, Opened::As(_));
        let quiet = !socket.outstanding.contains(&true);
        let result = weather.open.map_or(Ok(()), Err);
        socket.opened = match result {
            Ok(()) => Opened::As(family),
            Err(errno) => Opened::Refused(errno),
        };
        socket.link = Link::Idle;
        socket.connected = false;
        self.counts.opens_refused += u64::from(result.is_err());
        if occupied {
            self.violation(format!("{now:?}: slot {} opened twice", slot.0));
        }
        if !quiet {
            self.violation(format!("{now:?}: slot {} opened while operations are pending", slot.0));
        }
        result
    }

    fn close(&mut self, slot: Slot) {
        let now = self.now;
        let socket = self.socket(slot);
        let breach = if socket.opened == Opened::Never {
            Some("without having been opened")
        } else if socket.outstanding.contains(&true) {
            Some("while operations are pending")
        } else {
            None
        };
        socket.opened = Opened::Never;
        socket.link = Link::Idle;
        socket.connection += 1;
        socket.connected = false;
        if let Some(breach) = breach {
            self.violation(format!("{now:?}: slot {} closed {breach}", slot.0));
        }
    }

    fn submit(&mut self, slot: Slot, generation: Generation, op: &Op, bytes: &[u8]) {
        self.counts.submitted += 1;
        self.check(slot, generation, op);
        self.queue.push(Submission { slot, generation, op: op.clone(), bytes: bytes.to_vec() });
    }

    fn enter(&mut self, wait: Wait) -> std::io::Result<()> {
        let queue = std::mem::take(&mut self.queue);
        let mut woken: Vec<Slot> = Vec::new();
        for submission in queue {
            if submission.op == Op::Disconnect {
                woken.push(submission.slot);
            }
            self.execute(submission);
        }
        for slot in woken {
            self.wake(slot);
        }
        let bound = self.now + wait.bound;
        while wait.batch > 0 && self.now < bound {
            let batch = wait.batch as usize;
            if self.ready.range(..=(self.now, u64::MAX)).take(batch).count() >= batch {
                break;
            }
            let unripe = self.ready.range((self.now, u64::MAX)..).next().map(|((at, _), _)| *at);
            let next = [self.next_happening(), unripe].into_iter().flatten().min();
            self.advance(next.map_or(bound, |next| next.max(self.now).min(bound)));
        }
        self.advance(self.now);
        Ok(())
    }

    fn reap<'a>(&'a mut self, sink: &mut dyn FnMut(Completion<'a>)) {
        self.lent.clear();
        while let Some(entry) = self.ready.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let done = entry.remove();
            if let Some(attempt) = done.shows {
                let attempt = &mut self.attempts[attempt];
                let seen = if done.is_connection() { &mut attempt.connected_seen } else { &mut attempt.settled_seen };
                *seen = true;
            }
            let socket = &mut self.sockets[done.slot.index()];
            if !done.more {
                socket.outstanding[done.kind as usize] = false;
                socket.connected |= done.is_connection() && !socket.left;
            }
            self.counts.completed += 1;
            self.lent.push(done);
        }
        for done in &self.lent {
            sink(Completion {
                slot: done.slot,
                generation: done.generation,
                kind: done.kind,
                result: done.result,
                more: done.more,
                local: done.local,
                data: &done.data,
                handshake: done.handshake,
            });
        }
    }
}

#[cfg(test)]
mod tests;
