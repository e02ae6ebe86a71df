//! The io_uring driver: a pool of permanent direct sockets.
//!
//! Allocating and closing a socket costs more than everything else in a check, so a slot's socket is made once, put
//! into the ring's table of direct sockets, and used for one target after another: `CONNECT`, talk,
//! `CONNECT(AF_UNSPEC)`, `CONNECT` to the next. The disconnect sends a reset and leaves no TIME_WAIT behind.
//!
//! # Invariants
//! - A socket is installed only where none is, or a spent one: the kernel would replace an occupied one silently.
//! - No connect is told to have ended before something proves how: the kernel's stamp of the handshake, or a look into the
//!   socket's error queue ([`look`]).
//! - A slot connects only while quiet (see [`crate::ring`]); [`Seat::begin`] asserts it.
//! - What the kernel reads (addresses, bytes to send) lies in a seat, which never moves and does not change while the
//!   operation is pending.
//! - A receive that the kernel ended for its own reasons (no buffer left, a multishot that ran out) is submitted again
//!   here; the shard sees one receive from first to last. So does a send that was cut short.
//!
//! # Several units
//! The table is capped by the soft limit of open files per io_uring instance, not in sum. Slots are dense from 0, so
//! the first unit is where the work is; the others come into being when the pool outgrows it. We sleep in the first
//! unit only. The others signal one eventfd, which the first polls. Polling their ring descriptors instead does not
//! work: with deferred task work that poll is woken by posted completions, and nobody posts any while we sleep;
//! the eventfd is signalled as soon as there is work to run.
//!
//! # Full
//! A full submission queue is handed over in the middle; a full completion queue makes the kernel keep the rest
//! (NODROP), which [`Ring::reap`] fetches. Nothing is dropped.
//!
//! Not here: timeouts (the shard disconnects), TLS, names, UDP.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::{cqueue, opcode, squeue, types};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use super::ebpf::Connects;
use super::errno;
use crate::ring::{Completion, Errno, Family, Op, OpKind, Ring, Wait};
use crate::units::{Generation, Slot, Span};

mod buffers;
mod look;
mod probe;
mod seat;
mod token;
mod unit;

pub use probe::RingError;

use buffers::{BufferRing, GROUP};
use look::Look;
use seat::{Address, Seat, Seats, Socket};
use token::Token;
use unit::Unit;

/// The longest wait for a batch while other units have operations in flight: their completions count for one.
const OTHERS_WAIT_MAX: Span = Span::from_millis(2);

/// `sockaddr` of family AF_UNSPEC: connecting to it disconnects.
static NOWHERE: libc::sockaddr = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };

/// How a ring is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Slots of one io_uring instance; the soft limit of open files caps it.
    pub unit_slots: u32,
    /// Most operations handed to the kernel at a time, rounded up to a power of two.
    pub batch: u32,
    /// `SO_MARK` of every socket, so that a packet filter rule can tell checks from other traffic.
    pub mark: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { unit_slots: 16_384, batch: 2048, mark: None }
    }
}

/// Lets so many operations on files block at the same time, for every ring of this thread, made before or after. The
/// kernel allows four for each core, or as many as a ring has entries if those are fewer.
///
/// # Errors
/// Where io_uring is forbidden.
pub fn raise_file_workers(count: usize) -> io::Result<()> {
    // The pool of workers is the thread's own, and comes into being with its first ring. A zero leaves the other kind, of
    // sockets, as it is.
    let ring = io_uring::IoUring::new(1)?;
    ring.submitter().register_iowq_max_workers(&mut [u32::try_from(count).unwrap_or(u32::MAX / 2), 0])
}

/// [`Ring`] on io_uring. Belongs to the thread that made it: the kernel refuses any other.
pub struct UringRing {
    // Units go first when dropped: they know memory of the seats.
    units: Vec<Unit>,
    seats: Seats,
    options: Options,
    /// Signalled by the units above the first; made with the second unit.
    others: Option<Watch>,
    /// Completions that the kernel had no part in.
    ready: VecDeque<Ready>,
    /// Receives and sends to be submitted again at the next enter.
    again: Vec<(Slot, OpKind)>,
    /// Connects of a unit whose error queues are to be looked at; empty but within [`Ring::reap`].
    looks: Vec<(Slot, Generation)>,
    /// Signalled by other threads.
    waker: Option<Watch>,
    woken: bool,
    /// Sockets outside the pool.
    doors: Vec<Watch>,
    /// Whether they may end the sleep.
    doors_open: bool,
    /// What the kernel tells of handshakes.
    connects: Option<Connects>,
    thread: PhantomData<*const ()>,
}

/// A descriptor, mostly an eventfd, that the first unit polls.
struct Watch {
    fd: OwnedFd,
    armed: bool,
}

impl Watch {
    const fn new(fd: OwnedFd) -> Self {
        Self { fd, armed: false }
    }

    /// Has `unit` poll it, once. A multishot poll would complete once for every write.
    fn arm(&mut self, unit: &mut Unit, token: Token) {
        if !self.armed {
            self.armed = true;
            let poll = opcode::PollAdd::new(types::Fd(self.fd.as_raw_fd()), libc::POLLIN as u32).build();
            // SAFETY: the entry points to nothing, and the kernel holds a reference to the file itself.
            unsafe { unit.push(poll.user_data(token.encode())) };
        }
    }

    /// The poll of an eventfd has completed: resets the counter.
    fn fired(&mut self) {
        self.armed = false;
        // It may have been reset already; being woken once too often is no harm.
        let _ = nix::unistd::read(&self.fd, &mut [0; 8]);
    }
}

struct Ready {
    slot: Slot,
    generation: Generation,
    kind: OpKind,
    result: Result<u32, Errno>,
}

impl UringRing {
    /// Makes the first unit, after looking whether this kernel can do what is needed.
    ///
    /// # Errors
    /// Each names its remedy.
    pub fn new(mut options: Options) -> Result<Self, RingError> {
        probe::allowed()?;
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            options.unit_slots = options.unit_slots.min(u32::try_from(soft).unwrap_or(u32::MAX));
        }
        options.unit_slots = options.unit_slots.max(1);
        let unit = Unit::new(options.unit_slots, options.batch).map_err(RingError::from_setup)?;
        probe::capable(unit.ring())?;
        Ok(Self {
            units: vec![unit],
            seats: Seats::default(),
            options,
            ready: VecDeque::new(),
            again: Vec::new(),
            looks: Vec::new(),
            others: None,
            waker: None,
            woken: false,
            doors: Vec::new(),
            doors_open: true,
            connects: None,
            thread: PhantomData,
        })
    }

    /// Slots per io_uring instance, after the limit of open files had its say.
    pub fn unit_slots(&self) -> u32 {
        self.options.unit_slots
    }

    /// io_uring instances so far.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// Operations that have not completed for the last time.
    pub fn in_flight(&self) -> usize {
        self.units.iter().map(|unit| unit.in_flight as usize).sum::<usize>() + self.ready.len()
    }

    /// Lets a nonblocking eventfd end the sleep in [`Ring::enter`]: other threads write to it.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    ///
    /// # Panics
    /// On the second call.
    pub fn watch(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        assert!(self.waker.is_none(), "one eventfd is watched, for the life of the ring");
        self.waker = Some(Watch::new(eventfd.try_clone_to_owned()?));
        Ok(())
    }

    /// Whether the eventfd was written to since the last call. It has been reset.
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    /// Lets a socket that is not of the pool end the sleep in [`Ring::enter`] while it has something to be read, errors
    /// included.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub fn watch_socket(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.doors.push(Watch::new(socket.try_clone_to_owned()?));
        Ok(())
    }

    /// Lets the kernel tell of handshakes, of sockets that are made from now on.
    pub fn time_connects(&mut self, connects: Option<Connects>) {
        self.connects = connects;
    }

    /// Whether watched sockets may end the next sleeps. Each packet would wake us; when many come, looking often is
    /// cheaper. One that is being polled still ends one sleep.
    pub fn heed_sockets(&mut self, heed: bool) {
        self.doors_open = heed;
    }

    fn place(&self, slot: Slot) -> (usize, u32) {
        ((slot.0 / self.options.unit_slots) as usize, slot.0 % self.options.unit_slots)
    }

    fn make_socket(&self, family: Family) -> Result<OwnedFd, Errno> {
        let family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None).map_err(errno)?;
        // A request is one small write; waiting for the answer to it (Nagle) would only delay.
        // TCP_SYNCNT stays unset: its ETIMEDOUT would look like the target's answer.
        setsockopt(&socket, sockopt::TcpNoDelay, &true).map_err(errno)?;
        if let Some(mark) = self.options.mark {
            setsockopt(&socket, sockopt::Mark, &mark).map_err(errno)?;
        }
        Ok(socket)
    }

    fn try_open(&mut self, slot: Slot, family: Family) -> Result<(), Errno> {
        let (index, place) = self.place(slot);
        while self.units.len() <= index {
            self.add_unit().map_err(|error| io_errno(&error))?;
        }
        let socket = self.make_socket(family)?;
        // The table holds a reference of its own; the descriptor is closed on return.
        self.units[index].install(place, socket.as_fd()).map_err(|error| io_errno(&error))?;
        // While there is a descriptor: what is in the table only cannot be asked who it is.
        if let Some(connects) = &mut self.connects {
            connects.adopt(slot, socket.as_fd());
        }
        Ok(())
    }

    /// Sees to it that a slot's connect, the seat of which has the address, can be told from all earlier ones.
    fn prepare(&mut self, slot: Slot) -> Result<(), Errno> {
        let seat = self.seats.get(slot);
        if seat.socket == Socket::Spent {
            let family = Family::of(&seat.address.to_std());
            self.try_open(slot, family)?;
            self.seats.get(slot).socket = Socket::Open;
        }
        if let Some(connects) = &self.connects {
            connects.begin(slot);
        }
        Ok(())
    }

    /// The entry for an operation on a seat that holds what it needs.
    fn entry(&mut self, slot: Slot, generation: Generation, kind: OpKind) -> squeue::Entry {
        let (_, place) = self.place(slot);
        let socket = types::Fixed(place);
        let seat = self.seats.get(slot);
        let entry = match kind {
            OpKind::Connect => opcode::Connect::new(socket, seat.address.as_ptr(), seat.address.len()).build(),
            OpKind::Send => {
                let rest = &seat.bytes[seat.sent..];
                let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                opcode::Send::new(socket, rest.as_ptr(), length)
                    // The kernel itself goes on after a short write.
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            OpKind::Recv => opcode::RecvMulti::new(socket, GROUP).build(),
            OpKind::Disconnect => {
                let length = size_of::<libc::sockaddr>() as libc::socklen_t;
                opcode::Connect::new(socket, &raw const NOWHERE, length).build()
            }
        };
        entry.user_data(Token::Op { slot, generation, kind }.encode())
    }

    fn push(&mut self, slot: Slot, generation: Generation, kind: OpKind) {
        let (index, _) = self.place(slot);
        if kind == OpKind::Recv
            && let Err(error) = self.units[index].want_buffers()
        {
            self.finish(slot, generation, kind, Err(io_errno(&error)));
            return;
        }
        let entry = self.entry(slot, generation, kind);
        self.units[index].in_flight += 1;
        // SAFETY: the entry points into the slot's seat or at a static. Seats never move. `Seat::begin` admits one
        // operation of a kind at a time, so address and bytes stay as they are until the terminal completion; both
        // outlive the units (declaration order).
        unsafe { self.units[index].push(entry) };
    }

    /// Completes an operation that never reached the kernel.
    fn finish(&mut self, slot: Slot, generation: Generation, kind: OpKind, result: Result<u32, Errno>) {
        self.ready.push_back(Ready { slot, generation, kind, result });
    }

    fn resubmit(&mut self) {
        let mut again = std::mem::take(&mut self.again);
        for (slot, kind) in again.drain(..) {
            let seat = self.seats.get(slot);
            let generation = if kind == OpKind::Send { seat.send_generation } else { seat.recv_generation };
            self.push(slot, generation, kind);
        }
        self.again = again;
    }

    /// Makes another unit, which signals that it has work.
    fn add_unit(&mut self) -> io::Result<()> {
        let unit = Unit::new(self.options.unit_slots, self.options.batch)?;
        if self.others.is_none() {
            let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
            self.others = Some(Watch::new(eventfd.into()));
        }
        if let Some(Watch { fd, .. }) = &self.others {
            unit.ring().submitter().register_eventfd(fd.as_raw_fd())?;
        }
        self.units.push(unit);
        Ok(())
    }

    /// Enters the units above the first without waiting.
    fn enter_others(&mut self) -> io::Result<Others> {
        let mut others = Others::Idle;
        for unit in &mut self.units[1..] {
            if !unit.is_busy() {
                continue;
            }
            unit.enter(0, Span::ZERO)?;
            if unit.has_completions() {
                others = Others::Ready;
            } else if others == Others::Idle {
                others = Others::Waiting;
            }
        }
        Ok(others)
    }
}

/// The units above the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Idle,
    Waiting,
    /// Some have completions to be reaped: nobody sleeps now.
    Ready,
}

impl Ring for UringRing {
    fn open(&mut self, slot: Slot, family: Family) -> Result<(), Errno> {
        let seat = self.seats.make(slot);
        assert!(matches!(seat.socket, Socket::None(_)), "slot {} has a socket", slot.0);
        assert!(seat.is_quiet(), "slot {} is not quiet", slot.0);
        let result = self.try_open(slot, family);
        self.seats.get(slot).socket = match result {
            Ok(()) => Socket::Open,
            Err(errno) => Socket::None(errno),
        };
        result
    }

    fn close(&mut self, slot: Slot) {
        let seat = self.seats.make(slot);
        assert!(seat.is_quiet(), "slot {} is not quiet", slot.0);
        if !matches!(seat.socket, Socket::None(_)) {
            seat.socket = Socket::None(Errno(libc::EBADF));
            let (index, place) = self.place(slot);
            // Emptying an entry of the table that exists does not fail; were it to, the next `open` of this slot
            // would find the entry occupied, so it must not go unnoticed.
            if let Err(error) = self.units[index].remove(place) {
                panic!("emptying an entry of the socket table failed: {error}");
            }
            if let Some(connects) = &mut self.connects {
                connects.abandon(slot);
            }
        }
    }

    fn submit(&mut self, slot: Slot, generation: Generation, op: &Op, bytes: &[u8]) {
        let kind = op.kind();
        let seat = self.seats.make(slot);
        seat.begin(slot, kind);
        match op {
            Op::Connect(address) => seat.address = Address::from(*address),
            Op::Send => {
                seat.bytes.clear();
                seat.bytes.extend_from_slice(bytes);
                seat.sent = 0;
                seat.send_generation = generation;
            }
            Op::Recv => seat.recv_generation = generation,
            Op::Disconnect => {}
        }
        if kind == OpKind::Connect
            && let Err(errno) = self.prepare(slot)
        {
            return self.finish(slot, generation, kind, Err(errno));
        }
        match (self.seats.get(slot).socket, kind) {
            (Socket::Open | Socket::Spent, _) => self.push(slot, generation, kind),
            (Socket::None(_), OpKind::Disconnect) => self.finish(slot, generation, kind, Ok(0)),
            (Socket::None(errno), _) => self.finish(slot, generation, kind, Err(errno)),
        }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        for unit in &mut self.units {
            unit.recycle();
        }
        self.resubmit();
        if let Some(waker) = &mut self.waker {
            waker.arm(&mut self.units[0], Token::Waker);
        }
        if self.doors_open {
            for (index, door) in (0..).zip(&mut self.doors) {
                door.arm(&mut self.units[0], Token::Door(index));
            }
        }
        // Work that comes after this enter of theirs signals the eventfd, which the first unit then polls.
        let others = self.enter_others()?;
        if let Some(watch) = &mut self.others {
            watch.arm(&mut self.units[0], Token::Others);
        }
        let mut batch = wait.batch;
        let mut bound = wait.bound;
        if others == Others::Ready || !self.ready.is_empty() || self.woken {
            batch = 0;
        } else if others == Others::Waiting && batch > 1 {
            bound = bound.min(OTHERS_WAIT_MAX);
        }
        self.units[0].enter(batch, bound)
    }

    fn reap<'a>(&'a mut self, sink: &mut dyn FnMut(Completion<'a>)) {
        while let Some(Ready { slot, generation, kind, result }) = self.ready.pop_front() {
            self.seats.get(slot).end(kind);
            sink(Completion {
                slot,
                generation,
                kind,
                result,
                more: false,
                local: result.is_err(),
                data: &[],
                handshake: None,
            });
        }
        let Self { units, seats, again, looks, others, waker, woken, doors, options, connects, .. } = self;
        for unit in units {
            loop {
                unit.drain(|entry, buffers, in_flight| match Token::decode(entry.user_data()) {
                    Token::Op { slot, generation, kind } => {
                        let seat = seats.get(slot);
                        let completion = Completion { slot, generation, kind, ..EMPTY };
                        match conclude(&entry, completion, seat, buffers) {
                            Conclusion::Final(completion) => {
                                *in_flight -= 1;
                                seat.end(kind);
                                sink(completion);
                            }
                            Conclusion::Connect(result) => {
                                let stood = result.is_ok().then_some(connects.as_ref()).flatten();
                                if let Some(handshake) = stood.and_then(|connects| connects.handshake(slot)) {
                                    *in_flight -= 1;
                                    seat.end(kind);
                                    sink(Completion { handshake: Some(handshake), ..completion });
                                } else {
                                    seat.look = Some(Look::new(result));
                                    looks.push((slot, generation));
                                }
                            }
                            Conclusion::Part(completion) => sink(completion),
                            Conclusion::Again(part) => {
                                *in_flight -= 1;
                                again.push((slot, kind));
                                part.into_iter().for_each(&mut *sink);
                            }
                        }
                    }
                    Token::Look { slot, generation } => {
                        let seat = seats.get(slot);
                        let completion = Completion { slot, generation, ..EMPTY };
                        if let Some(completion) = look::conclude(&entry, completion, seat, options.mark) {
                            *in_flight -= 1;
                            seat.end(OpKind::Connect);
                            sink(completion);
                        } else {
                            looks.push((slot, generation));
                        }
                    }
                    Token::Waker => {
                        waker.iter_mut().for_each(Watch::fired);
                        *woken = true;
                    }
                    // Its owner looks at it after every sleep.
                    Token::Door(index) => doors[index as usize].armed = false,
                    // Their completions are taken in this same pass.
                    Token::Others => others.iter_mut().for_each(Watch::fired),
                });
                if looks.is_empty() {
                    break;
                }
                // They end while they are handed over. Any that the kernel does not take now is told of later.
                look::begin(unit, seats, looks, options.unit_slots);
            }
        }
    }
}

const EMPTY: Completion<'static> = Completion {
    slot: Slot(0),
    generation: Generation(0),
    kind: OpKind::Connect,
    result: Ok(0),
    more: false,
    local: false,
    data: &[],
    handshake: None,
};

/// What a completion queue entry means for its operation.
enum Conclusion<'a> {
    /// The last that is heard of it.
    Final(Completion<'a>),
    /// What a connect says, which is not always true.
    Connect(Result<u32, Errno>),
    /// More will come by itself.
    Part(Completion<'a>),
    /// The kernel has ended it too early: submit it again. The shard hears of data only.
    Again(Option<Completion<'a>>),
}

fn conclude<'a>(
    entry: &cqueue::Entry,
    blank: Completion<'a>,
    seat: &mut Seat,
    buffers: Option<&mut BufferRing>,
) -> Conclusion<'a> {
    let Ok(count) = u32::try_from(entry.result()) else {
        let errno = Errno(-entry.result());
        if blank.kind == OpKind::Recv && errno == Errno::ENOBUFS {
            return Conclusion::Again(None);
        }
        let result = Err(errno);
        return match blank.kind {
            OpKind::Connect => Conclusion::Connect(result),
            OpKind::Send | OpKind::Recv | OpKind::Disconnect => Conclusion::Final(Completion { result, ..blank }),
        };
    };
    match blank.kind {
        OpKind::Connect => Conclusion::Connect(Ok(0)),
        OpKind::Disconnect => Conclusion::Final(blank),
        OpKind::Send => {
            seat.sent += count as usize;
            // Nothing taken of something would go round for ever.
            if seat.sent < seat.bytes.len() && count > 0 {
                return Conclusion::Again(None);
            }
            Conclusion::Final(Completion { result: Ok(u32::try_from(seat.sent).unwrap_or(u32::MAX)), ..blank })
        }
        OpKind::Recv => {
            let lent = cqueue::buffer_select(entry.flags()).zip(buffers).map(|(id, buffers)| {
                // SAFETY: the kernel has just named this buffer, so that it is not lent; `'a` is the borrow of the
                // whole ring by `reap`, and recycling needs that borrow to have ended.
                unsafe { buffers.lend(id, count as usize) }
            });
            if count == 0 {
                return Conclusion::Final(blank);
            }
            let data = lent.expect("the kernel received bytes into a buffer of ours");
            let part = Completion { result: Ok(count), more: true, data, ..blank };
            if cqueue::more(entry.flags()) { Conclusion::Part(part) } else { Conclusion::Again(Some(part)) }
        }
    }
}

fn io_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno)
}
