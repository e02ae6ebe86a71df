//! What the kernel does with operations, and the network with packets.

use std::net::SocketAddr;

use super::{Armed, Done, Happening, Link, Observed, Opened, SimRing, Submission};
use crate::ring::{Errno, Handshake, Op, OpKind};
use crate::sim::network::{Fate, Wire, varied};
use crate::sim::server;
use crate::units::{Instant, Slot, Span};

use super::Attempt;

const EISCONN: Errno = Errno(106);
const ENOTCONN: Errno = Errno(107);

/// The most that one completion of a receive carries.
const BUFFER: usize = 64 * 1024;

/// How close an answer must be to race with a disconnect.
const RACE: Span = Span::from_millis(20);

impl SimRing {
    fn schedule(&mut self, after: Span, happening: Happening) {
        let key = (self.now + after, self.number());
        self.agenda.insert(key, happening);
    }

    /// How long a completion takes to become visible.
    fn delay(&mut self) -> Span {
        let late = self.weather.late.as_nanos();
        match self.rng.u8(..) {
            _ if late > 0 && self.rng.bool() => {
                self.counts.late += 1;
                Span::from_nanos(self.rng.u64(0..=late))
            }
            0..200 => Span::from_nanos(self.rng.u64(500..30_000)),
            200..250 => Span::from_nanos(self.rng.u64(30_000..1_000_000)),
            _ => Span::from_nanos(self.rng.u64(1_000_000..5_000_000)),
        }
    }

    /// Makes a completion; answers when it will be there.
    fn complete(&mut self, done: Done, in_order: bool) -> Instant {
        let mut at = self.now + self.delay();
        if in_order {
            let socket = &mut self.sockets[done.slot.index()];
            at = at.max(socket.floor);
            socket.floor = at;
        }
        if let Some(attempt) = done.shows {
            let attempt = &mut self.attempts[attempt];
            let shown = if done.is_connection() { &mut attempt.connected } else { &mut attempt.settled };
            // The first of our own errors decides; of an answer, its last byte.
            *shown = Some(match (*shown, attempt.fate) {
                (Some(before), Fate::Ours(..)) => before.min(at),
                (Some(before), _) => before.max(at),
                (None, _) => at,
            });
        }
        let number = self.number();
        if self.ready.last_key_value().is_some_and(|((last, _), _)| *last > at) {
            self.counts.reordered += 1;
        }
        self.ready.insert((at, number), done);
        at
    }

    fn finish(&mut self, slot: Slot, armed: Armed, result: Result<u32, Errno>, local: bool, shows: Option<usize>) {
        let Armed { kind, generation, .. } = armed;
        let done =
            Done { slot, generation, kind, result, more: false, local, data: Vec::new(), handshake: None, shows };
        self.complete(done, kind == OpKind::Recv);
    }

    /// Takes out all unfinished operations of a kind: more than one only where the contract was broken.
    fn disarm(&mut self, slot: Slot, kind: OpKind) -> Vec<Armed> {
        let socket = &mut self.sockets[slot.index()];
        let (out, kept) = socket.armed.drain(..).partition(|armed| armed.kind == kind);
        socket.armed = kept;
        out
    }

    pub(super) fn execute(&mut self, Submission { slot, generation, op, bytes }: Submission) {
        let armed = Armed { kind: op.kind(), generation, woken: false };
        match self.sockets[slot.index()].opened {
            Opened::As(_) => {}
            // Nothing is what it was before.
            Opened::Never | Opened::Refused(_) if op == Op::Disconnect => {
                self.leave(slot);
                self.finish(slot, armed, Ok(0), false, None);
                return;
            }
            Opened::Never => {
                self.finish(slot, armed, Err(Errno::EIO), true, None);
                return;
            }
            Opened::Refused(errno) => {
                let attempt = if let Op::Connect(address) = op {
                    Some(self.begin(slot, address, Fate::Ours(errno, true), false))
                } else {
                    None
                };
                self.finish(slot, armed, Err(errno), true, attempt);
                return;
            }
        }
        match op {
            Op::Connect(address) => self.connect(slot, armed, address),
            Op::Send => self.send(slot, armed, &bytes),
            Op::Recv => {
                self.sockets[slot.index()].armed.push(armed);
                if self.sockets[slot.index()].link == Link::Idle {
                    self.disarm(slot, OpKind::Recv);
                    self.finish(slot, armed, Err(ENOTCONN), false, None);
                } else if let Some(errno) = self.transfer_fault() {
                    self.disarm(slot, OpKind::Recv);
                    let attempt = self.ours(slot, errno);
                    self.finish(slot, armed, Err(errno), true, attempt);
                } else {
                    self.pump(slot);
                }
            }
            Op::Disconnect => self.disconnect(slot, armed),
        }
    }

    fn begin(&mut self, slot: Slot, address: SocketAddr, fate: Fate, reused: bool) -> usize {
        let number = self.attempts.len();
        let attempt = Attempt {
            slot,
            address,
            started: self.now,
            asked: None,
            path: None,
            reused,
            fate,
            connected: None,
            connected_seen: false,
            settled: None,
            settled_seen: false,
            left: None,
            lost: None,
            broken: false,
        };
        self.attempts.push(attempt);
        self.sockets[slot.index()].attempt = Some(number);
        self.observed.push(Observed::Began(number));
        number
    }

    fn connect(&mut self, slot: Slot, armed: Armed, address: SocketAddr) {
        let socket = &self.sockets[slot.index()];
        if socket.link != Link::Idle {
            let attempt = self.begin(slot, address, Fate::Ours(EISCONN, true), false);
            self.finish(slot, armed, Err(EISCONN), true, Some(attempt));
            return;
        }
        if let Some((errno, local, share)) = self.weather.connect
            && self.rng.u8(..) < share
        {
            self.counts.local_errors += 1;
            let attempt = self.begin(slot, address, Fate::Ours(errno, local), false);
            self.finish(slot, armed, Err(errno), local, Some(attempt));
            return;
        }
        let mut dial = self.network.dial(address, self.now, &mut self.rng);
        let attempt = self.begin(slot, address, dial.fate, false);
        if self.loses(attempt) {
            dial.answer = None;
        }
        let now = self.now;
        let socket = &mut self.sockets[slot.index()];
        socket.connection += 1;
        let connection = socket.connection;
        socket.link = Link::Connecting;
        socket.peer = dial.peer;
        socket.requests = 0;
        socket.decisive = false;
        socket.told = false;
        socket.floor = now;
        socket.armed.push(armed);
        if let Some(result) = dial.answer {
            self.schedule(dial.after, Happening::Answer { slot, connection, result });
        }
    }

    /// Whether this host drops the attempt's next packet on its way out.
    fn loses(&mut self, attempt: usize) -> bool {
        if self.weather.lossy == 0 || self.rng.u8(..) >= self.weather.lossy {
            return false;
        }
        let attempt_now = &mut self.attempts[attempt];
        attempt_now.lost = Some(self.now);
        attempt_now.fate = Fate::Silent;
        self.observed.push(Observed::Lost(attempt));
        true
    }

    fn transfer_fault(&mut self) -> Option<Errno> {
        let (errno, share) = self.weather.transfer?;
        if self.rng.u8(..) >= share {
            return None;
        }
        self.counts.local_errors += 1;
        Some(errno)
    }

    /// The attempt on this slot failed of this host's own fault.
    fn ours(&mut self, slot: Slot, errno: Errno) -> Option<usize> {
        let attempt = self.sockets[slot.index()].attempt?;
        self.attempts[attempt].fate = Fate::Ours(errno, true);
        Some(attempt)
    }

    fn send(&mut self, slot: Slot, armed: Armed, bytes: &[u8]) {
        let now = self.now;
        let socket = &self.sockets[slot.index()];
        let Some(before) = socket.attempt else {
            self.finish(slot, armed, Err(ENOTCONN), false, None);
            return;
        };
        // On a kept connection it is another attempt.
        let attempt = if socket.requests > 0 {
            let address = self.attempts[before].address;
            self.begin(slot, address, Fate::Silent, true)
        } else {
            before
        };
        let socket = &mut self.sockets[slot.index()];
        socket.requests += 1;
        self.attempts[attempt].asked = Some(now);
        match socket.link {
            Link::Up => {}
            Link::Reset | Link::Connecting | Link::Idle => {
                let errno = if self.rng.bool() { Errno::EPIPE } else { Errno::ECONNRESET };
                self.attempts[attempt].path = server::request(bytes).map(|request| request.path);
                self.observed.push(Observed::Asked(attempt));
                self.attempts[attempt].fate = Fate::Closed;
                self.attempts[attempt].broken = true;
                self.sockets[slot.index()].told = true;
                self.finish(slot, armed, Err(errno), false, Some(attempt));
                return;
            }
        }
        if let Some(errno) = self.transfer_fault() {
            self.attempts[attempt].path = server::request(bytes).map(|request| request.path);
            self.observed.push(Observed::Asked(attempt));
            let attempt = self.ours(slot, errno);
            self.finish(slot, armed, Err(errno), true, attempt);
            return;
        }
        if self.loses(attempt) {
            self.attempts[attempt].path = server::request(bytes).map(|request| request.path);
            self.observed.push(Observed::Asked(attempt));
            self.finish(slot, armed, Ok(bytes.len() as u32), false, None);
            return;
        }
        let socket = &mut self.sockets[slot.index()];
        let reply = self.network.receive(&mut socket.peer, bytes, now, &mut self.rng);
        let connection = socket.connection;
        if reply.path.is_some() {
            self.attempts[attempt].path = reply.path;
            self.observed.push(Observed::Asked(attempt));
        }
        // Accepted only: from here on an answer is awaited.
        self.attempts[attempt].fate = match (self.attempts[attempt].fate, reply.fate) {
            (fate @ (Fate::Slammed | Fate::Ours(..)), _) => fate,
            (_, Some(fate)) => fate,
            (_, None) => Fate::Silent,
        };
        if reply.stuck {
            self.sockets[slot.index()].armed.push(armed);
        } else {
            self.finish(slot, armed, Ok(bytes.len() as u32), false, None);
        }
        let mut last = Span::ZERO;
        for (position, (after, wire)) in reply.wires.into_iter().enumerate() {
            last = last.max(after);
            let decisive = Some(position) == reply.decisive;
            self.schedule(after, Happening::Arrive { slot, connection, wire, decisive });
        }
        if let Some((idle, wires)) = reply.idle {
            let requests = self.sockets[slot.index()].requests;
            let idle = varied(idle, &mut self.rng);
            self.schedule(last + idle, Happening::Idle { slot, connection, requests, wires });
        }
    }

    fn disconnect(&mut self, slot: Slot, armed: Armed) {
        let now = self.now;
        let connection = self.sockets[slot.index()].connection;
        // A connect that is about to be answered may still win.
        let answer =
            self.agenda.iter().take_while(|((at, _), _)| at.since(now) <= RACE).find_map(|(key, happening)| {
                match happening {
                    Happening::Answer { slot: of, connection: on, .. } if *of == slot && *on == connection => {
                        Some(*key)
                    }
                    _ => None,
                }
            });
        if let Some(key) = answer {
            if self.rng.bool() {
                self.counts.connect_won += 1;
                let happening = self.agenda.remove(&key).expect("it was there");
                self.happen(happening);
            } else {
                self.counts.connect_lost += 1;
            }
        }
        let socket = &mut self.sockets[slot.index()];
        socket.connection += 1;
        socket.link = Link::Idle;
        socket.inbox.clear();
        socket.fin = false;
        for other in &mut socket.armed {
            other.woken = true;
        }
        self.leave(slot);
        self.finish(slot, armed, Ok(0), false, None);
    }

    /// The attempt on this slot is over, as far as its user is concerned.
    fn leave(&mut self, slot: Slot) {
        let now = self.now;
        if let Some(attempt) = self.sockets[slot.index()].attempt {
            self.attempts[attempt].left.get_or_insert(now);
        }
    }

    /// What a disconnect has woken looks at its socket, now that the submission is through.
    pub(super) fn wake(&mut self, slot: Slot) {
        let socket = &mut self.sockets[slot.index()];
        if socket.link != Link::Idle {
            // The socket is on its way to somebody else: the old operations wait on, for that one's answer.
            for armed in &mut socket.armed {
                armed.woken = false;
            }
            return;
        }
        let woken: Vec<Armed> = socket.armed.drain(..).collect();
        for armed in woken {
            let result = match (armed.kind, self.rng.u8(0..3)) {
                (OpKind::Recv, 0) => Ok(0),
                (OpKind::Recv, 1) => Err(ENOTCONN),
                (OpKind::Send, 0) => Err(Errno::EPIPE),
                _ => Err(Errno::ECONNRESET),
            };
            self.finish(slot, armed, result, false, None);
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Answer { slot, connection, result } => self.answer(slot, connection, result),
            Happening::Arrive { slot, connection, wire, decisive } => {
                let socket = &mut self.sockets[slot.index()];
                if socket.connection == connection && socket.link == Link::Up {
                    match wire {
                        Wire::Bytes(bytes) => socket.inbox.extend(bytes),
                        Wire::Fin => socket.fin = true,
                        Wire::Reset => socket.link = Link::Reset,
                    }
                    socket.decisive |= decisive;
                    self.pump(slot);
                }
            }
            Happening::Idle { slot, connection, requests, wires } => {
                let socket = &mut self.sockets[slot.index()];
                if socket.connection == connection && socket.requests == requests {
                    socket.peer.done = true;
                    // On its way: a request may cross it.
                    let after = varied(Span::from_micros(200), &mut self.rng);
                    self.counts.scolded += u64::from(wires.len() > 1);
                    for wire in wires {
                        self.schedule(after, Happening::Arrive { slot, connection, wire, decisive: false });
                    }
                }
            }
        }
    }

    fn answer(&mut self, slot: Slot, connection: u64, result: Result<(), Errno>) {
        let now = self.now;
        let socket = &mut self.sockets[slot.index()];
        if socket.connection != connection {
            return;
        }
        let attempt = socket.attempt;
        socket.link = if result.is_ok() { Link::Up } else { Link::Idle };
        for Armed { kind, generation, .. } in self.disarm(slot, OpKind::Connect) {
            let handshake = if result.is_ok() { self.stamp(attempt) } else { None };
            let (result, data) = (result.map(|()| 0), Vec::new());
            let done =
                Done { slot, generation, kind, result, more: false, local: false, data, handshake, shows: attempt };
            self.complete(done, false);
        }
        if result.is_ok() {
            let socket = &mut self.sockets[slot.index()];
            socket.floor = socket.floor.max(now);
            for (after, wire) in self.network.greet(&mut socket.peer, now, &mut self.rng) {
                self.schedule(after, Happening::Arrive { slot, connection, wire, decisive: false });
            }
        }
    }

    /// What is told of the handshake that has just ended: nothing, the truth, or what cannot be.
    fn stamp(&mut self, attempt: Option<usize>) -> Option<Handshake> {
        let (sent, stood) = (self.attempts[attempt?].started, self.now);
        let told = match self.stamps.u8(..) {
            0..128 => return None,
            128..224 => {
                self.counts.stamped += 1;
                self.counts.stamped_sum = self.counts.stamped_sum + stood.since(sent);
                return Some(Handshake { sent, stood });
            }
            // Of an older connect, backwards, and in the future.
            224..235 => Handshake { sent: sent.before(Span::from_millis(1)), stood },
            235..246 => Handshake { sent, stood: sent.before(Span::from_nanos(1)) },
            _ => Handshake { sent, stood: stood + Span::from_secs(3_600) },
        };
        self.counts.misstamped += 1;
        Some(told)
    }

    /// Hands what has arrived to the receive that waits for it.
    fn pump(&mut self, slot: Slot) {
        let socket = &mut self.sockets[slot.index()];
        if socket.link == Link::Reset {
            let stuck = self.disarm(slot, OpKind::Send);
            for armed in stuck {
                self.finish(slot, armed, Err(Errno::ECONNRESET), false, None);
            }
        }
        let socket = &mut self.sockets[slot.index()];
        let Some(&armed) = socket.armed.iter().find(|armed| armed.kind == OpKind::Recv) else { return };
        let attempt = socket.attempt;
        let ends = socket.fin || socket.link == Link::Reset;
        let decisive = std::mem::take(&mut socket.decisive);
        let inbox = std::mem::take(&mut socket.inbox);
        let mut rest = &inbox[..];
        while !rest.is_empty() {
            let most = rest.len().min(BUFFER);
            let cut = if self.rng.u8(0..4) == 0 { self.rng.usize(1..=most) } else { most };
            let (piece, after) = rest.split_at(cut);
            self.counts.short_reads += u64::from(!after.is_empty());
            let shows = if decisive && !ends && after.is_empty() { attempt } else { None };
            let done = Done {
                slot,
                generation: armed.generation,
                kind: OpKind::Recv,
                result: Ok(cut as u32),
                more: true,
                local: false,
                data: piece.to_vec(),
                handshake: None,
                shows,
            };
            rest = after;
            let at = self.complete(done, true);
            if decisive && let Some(attempt) = attempt {
                self.attempts[attempt].settled.get_or_insert(at);
            }
        }
        if !ends {
            return;
        }
        let told = self.sockets[slot.index()].told && self.rng.bool();
        let result = if self.sockets[slot.index()].fin || told { Ok(0) } else { Err(Errno::ECONNRESET) };
        let open = attempt.filter(|&attempt| self.attempts[attempt].settled.is_none() || decisive);
        if let Some(attempt) = open
            && self.attempts[attempt].asked.is_some()
            && self.attempts[attempt].fate == Fate::Silent
        {
            self.attempts[attempt].fate = Fate::Closed;
        }
        if let Some(attempt) = attempt {
            self.attempts[attempt].broken = true;
        }
        for armed in self.disarm(slot, OpKind::Recv) {
            self.finish(slot, armed, result, false, open);
        }
    }
}
