//! The sockets that echo requests leave by, one pair per shard and owned by its thread.
//!
//! A raw socket where this process may have one (CAP_NET_RAW), else an unprivileged *ping socket*
//! (`net.ipv4.ping_group_range`), whose identifier is the kernel's: nothing here depends on it. Both carry the requests
//! of all targets; what comes back is told apart by its cookie ([`crate::wire::icmp`]).
//!
//! # What comes in
//! - Replies. A raw socket is offered every reply that comes to this host, also those to somebody's `ping`: a type
//!   filter and a packet filter on our tag keep all others in the kernel.
//! - ICMP errors that quote a request, by the socket's error queue: the kernel has taken the quote apart already, and
//!   the same queue serves both kinds of socket. It also makes the kernel say when its own queues drop a request, which
//!   it keeps to itself otherwise. The price is that an error waits at the socket for whoever calls next: a request that
//!   seems to fail is tried again, after the queue has been emptied.
//!
//! Where there are signals ([`super::ebpf`]), programs in the kernel take the answers that they know before they get here,
//! and what they leave comes in as without them: late and double answers, those to an older request of the same check.
//!
//! Round trips end with the kernel's receive time, not with ours: how long a packet waited for this thread is not the
//! target's.
//!
//! # Full
//! A request that the kernel does not take is told as unsent, and its check is void. Replies that find no room in the
//! socket are counted by the kernel; the shard hears of it with the other losses of this host ([`Pinger::dropped`]),
//! and what timed out meanwhile is void as well.
//!
//! Not here: timeouts, retries, who waits for what. A reply that nobody waits for any more names an old generation.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
    setsockopt, socket, sockopt,
};

use super::clock::Clock;
use super::ebpf::{Expected, Kind, ShardSignals};
use super::{address_of, errno};
use crate::probe::errand::Echo;
use crate::ring::{Errno, Family};
use crate::shard::Event;
use crate::shard::protocol::EchoStats;
use crate::units::limits::{
    ECHO_BATCH, ECHO_ERRORS_PER_TURN_MAX, ECHO_RECEIVE_BUFFER, ECHO_SEND_BUFFER, ECHOES_PER_TURN_MAX,
};
use crate::units::{Generation, Instant, Slot, Span};
use crate::wire::icmp::{self, Cookie, Echoed, Key};

pub(super) mod batch;
mod filter;

use batch::{Arrivals, Departure};

/// One echo request to send.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub slot: Slot,
    pub generation: Generation,
    pub address: IpAddr,
    pub sequence: u16,
}

/// By what echo requests of a family leave this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    Raw,
    /// Unprivileged.
    Datagram,
    None(Errno),
}

impl std::fmt::Display for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Raw => f.write_str("raw socket"),
            Self::Datagram => f.write_str("ping socket"),
            Self::None(errno) => write!(f, "no socket ({errno})"),
        }
    }
}

/// By what echo requests would leave if they were to now.
pub fn means(family: Family) -> Means {
    open(family).map_or_else(Means::None, |(_, means)| means)
}

/// A shard's sockets for echo requests.
pub struct Pinger {
    key: Key,
    doors: [Door; 2],
    queue: Vec<Ping>,
    /// Of the batch that is being sent; the memory stays.
    departures: Vec<Departure>,
    arrivals: Box<Arrivals>,
    stats: EchoStats,
}

struct Door {
    family: Family,
    /// `None` until it is tried.
    socket: Option<Result<(OwnedFd, Means), Errno>>,
    /// Something has left by it: until then nothing can come back, and no turn need look.
    used: bool,
    /// The kernel's count of drops when it was last looked at; 32 bits wide, and it wraps.
    drops: u32,
}

impl Door {
    const fn new(family: Family) -> Self {
        Self { family, socket: None, used: false, drops: 0 }
    }

    fn socket(&self) -> Option<(BorrowedFd<'_>, Means)> {
        let (socket, means) = self.socket.as_ref()?.as_ref().ok()?;
        Some((socket.as_fd(), *means))
    }
}

impl Pinger {
    /// Without sockets: [`Self::open`] makes them, where somebody needs them.
    ///
    /// # Errors
    /// When the kernel has no random bytes for the key.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            key: Key::new(&seed()?),
            doors: [Door::new(Family::V4), Door::new(Family::V6)],
            queue: Vec::new(),
            departures: Vec::with_capacity(ECHO_BATCH),
            arrivals: Box::default(),
            stats: EchoStats::default(),
        })
    }

    /// With requests that the programs in the kernel know. Before [`Self::open`].
    pub fn tag(&mut self, tag: u32) {
        self.key = self.key.clone().tagged(tag);
    }

    /// Makes the sockets, and says by what means they send. What cannot be had is told to each check that needs it.
    pub fn open(&mut self) -> [Means; 2] {
        let Self { doors, key, .. } = self;
        let [v4, v6] = doors;
        [v4, v6].map(|door| {
            let opened = door.socket.get_or_insert_with(|| {
                let (socket, means) = open(door.family)?;
                prepare(&socket, door.family, means, key)?;
                Ok((socket, means))
            });
            match opened {
                Ok((_, means)) => *means,
                Err(errno) => Means::None(*errno),
            }
        })
    }

    /// The open sockets, to be watched.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.doors.iter().filter_map(|door| door.socket().map(|(socket, _)| socket))
    }

    /// Queues a request for [`Self::send`].
    pub fn push(&mut self, ping: Ping) {
        self.queue.push(ping);
    }

    /// Sends what is queued, and tells what could not be sent. Between batches it takes what has come back: on the
    /// loopback, replies are there before the call returns.
    pub fn send(&mut self, signals: &mut Option<ShardSignals>, heard: &mut Vec<Event<'static>>) {
        if self.queue.is_empty() {
            return;
        }
        let queue = std::mem::take(&mut self.queue);
        for family in [Family::V4, Family::V6] {
            let mut batch: Vec<Ping> = Vec::with_capacity(ECHO_BATCH.min(queue.len()));
            let of_family = queue.iter().filter(|ping| ping.address.is_ipv4() == (family == Family::V4));
            for &ping in of_family {
                batch.push(ping);
                if batch.len() == ECHO_BATCH {
                    self.send_batch(family, &batch, signals, heard);
                    if let Some(signals) = signals {
                        signals.hear(heard);
                    }
                    self.receive(heard);
                    batch.clear();
                }
            }
            self.send_batch(family, &batch, signals, heard);
        }
        self.queue = queue;
        self.queue.clear();
    }

    fn send_batch(
        &mut self,
        family: Family,
        pings: &[Ping],
        signals: &mut Option<ShardSignals>,
        heard: &mut Vec<Event<'static>>,
    ) {
        if pings.is_empty() {
            return;
        }
        let unsent = |ping: &Ping, errno| event(ping.slot, ping.generation, ping.sequence, Echo::Unsent(errno));
        let Self { key, doors, departures, stats, .. } = self;
        let door = &mut doors[family as usize];
        door.used = true;
        let Some((socket, _)) = door.socket() else {
            let errno = door.socket.as_ref().and_then(|opened| opened.as_ref().err()).copied();
            // One that was never tried would be our own mistake.
            let echo = Echo::NoSocket(errno.unwrap_or(Errno::EINVAL));
            heard.extend(pings.iter().map(|ping| event(ping.slot, ping.generation, ping.sequence, echo)));
            return;
        };
        // One time for all, see ECHO_BATCH.
        let sent = Clock.now();
        departures.clear();
        departures.extend(pings.iter().map(|ping| {
            let &Ping { slot, generation, address, sequence } = ping;
            let request = icmp::request(key, address, sequence, &Cookie { slot, generation, sent });
            if let Some(signals) = signals {
                let cookie = icmp::proof(&request);
                signals.expect(&Expected { kind: Kind::Echo, slot, generation, sequence, address, cookie, sent });
            }
            Departure::new(address, request)
        }));
        let mut gone = 0;
        let mut tries = 0;
        while gone < pings.len() {
            match batch::send(socket, &departures[gone..]) {
                Ok(count) => {
                    stats.sent += count as u64;
                    gone += count;
                    tries = 0;
                }
                Err(errno @ (Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)) => {
                    // There is no room for the others either.
                    heard.extend(pings[gone..].iter().map(|ping| unsent(ping, errno)));
                    return;
                }
                // It may have been another request's ICMP error that waited at the socket for the next call.
                Err(_) if tries < TRIES_MAX => {
                    tries += 1;
                    hear_errors(socket, family, key, stats, heard);
                }
                Err(errno) => {
                    heard.push(unsent(&pings[gone], errno));
                    gone += 1;
                    tries = 0;
                }
            }
        }
    }

    /// Takes replies and errors that are there. What comes faster than it is taken waits for the next call.
    pub fn receive(&mut self, heard: &mut Vec<Event<'static>>) {
        let Self { key, doors, arrivals, stats, .. } = self;
        for door in doors.iter().filter(|door| door.used) {
            let Some((socket, means)) = door.socket() else { continue };
            let mut taken = 0;
            let mut tries = 0;
            while taken < ECHOES_PER_TURN_MAX {
                let count = match batch::receive(socket, arrivals) {
                    Ok(count) => count,
                    Err(Errno::EAGAIN) => {
                        // The kernel may have told of the errors by another call already.
                        if taken == 0 {
                            hear_errors(socket, door.family, key, stats, heard);
                        }
                        break;
                    }
                    // As long as ICMP errors wait, each call fails with one of them.
                    Err(_) if tries < TRIES_MAX => {
                        tries += 1;
                        hear_errors(socket, door.family, key, stats, heard);
                        continue;
                    }
                    Err(_) => break,
                };
                let clocks = Clocks::read();
                for arrival in arrivals.take(count) {
                    let message = match (door.family, means) {
                        (Family::V4, Means::Raw) => icmp::within_ipv4(arrival.bytes),
                        _ => Some(arrival.bytes),
                    };
                    let Some(echoed) = message.and_then(|message| icmp::reply(message, door.family)) else { continue };
                    let Some(cookie) = arrival.from.and_then(|from| opened(echoed, key, from, stats)) else { continue };
                    stats.received += 1;
                    let rtt = clocks.monotonic_of(arrival.wall_nanos).since(cookie.sent);
                    heard.push(event(cookie.slot, cookie.generation, echoed.sequence, Echo::Reply { rtt }));
                }
                taken += count;
                if count < ECHO_BATCH {
                    break;
                }
            }
        }
    }

    /// Replies that the sockets had no room for so far; read anew.
    pub fn dropped(&mut self) -> u64 {
        for door in &mut self.doors {
            let Some(drops) = door.socket().and_then(|(socket, _)| batch::drops(socket)) else { continue };
            self.stats.dropped += u64::from(drops.wrapping_sub(door.drops));
            door.drops = drops;
        }
        self.stats.dropped
    }

    pub const fn stats(&self) -> EchoStats {
        self.stats
    }
}

pub(super) fn seed<const N: usize>() -> io::Result<[u8; N]> {
    let mut seed = [0; N];
    // SAFETY: the buffer is writable for its own length. Up to 256 bytes come whole once the kernel has any.
    let count = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if usize::try_from(count) == Ok(seed.len()) { Ok(seed) } else { Err(io::Error::last_os_error()) }
}

/// How often a call that fails is tried again, since the failure may have been another request's.
const TRIES_MAX: u32 = 3;

fn event(slot: Slot, generation: Generation, sequence: u16, echo: Echo) -> Event<'static> {
    Event::Echoed { slot, generation, sequence, echo }
}

/// Counts what only looks like ours.
fn opened(echoed: Echoed<'_>, key: &Key, address: IpAddr, stats: &mut EchoStats) -> Option<Cookie> {
    let cookie = echoed.open(key, address);
    if cookie.is_none() && echoed.has_tag_of(key) {
        stats.forged += 1;
    }
    cookie
}

/// Empties the error queue.
fn hear_errors(
    socket: BorrowedFd<'_>,
    family: Family,
    key: &Key,
    stats: &mut EchoStats,
    heard: &mut Vec<Event<'static>>,
) {
    // The quote, from its ICMP header on, perhaps with extensions that are of no interest.
    let mut quote = [0; 256];
    let mut control = [0; 512];
    for _ in 0..ECHO_ERRORS_PER_TURN_MAX {
        let mut slices = [IoSliceMut::new(&mut quote)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) else {
            return;
        };
        let (length, to) = (message.bytes, message.address.as_ref().and_then(address_of));
        let Ok(controls) = message.cmsgs() else { continue };
        let error = controls.filter_map(|control| icmp_error(&control)).next();
        let (Some(to), Some((kind, code, from))) = (to, error) else { continue };
        let Some(echoed) = icmp::quoted(&quote[..length.min(quote.len())], family) else { continue };
        let Some(cookie) = opened(echoed, key, to, stats) else { continue };
        stats.received += 1;
        heard.push(event(cookie.slot, cookie.generation, echoed.sequence, Echo::Error { kind, code, from }));
    }
}

/// Type and code of an ICMP error, and who sent it; `None` for what this host itself had to say.
fn icmp_error(control: &ControlMessageOwned) -> Option<(u8, u8, Option<IpAddr>)> {
    const ORIGIN_ICMP: u8 = 2;
    const ORIGIN_ICMP6: u8 = 3;
    let (error, from) = match control {
        ControlMessageOwned::Ipv4RecvErr(error, from) => {
            let from = from.filter(|from| i32::from(from.sin_family) == libc::AF_INET);
            (error, from.map(|from| IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes())))
        }
        ControlMessageOwned::Ipv6RecvErr(error, from) => {
            let from = from.filter(|from| i32::from(from.sin6_family) == libc::AF_INET6);
            (error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
        }
        _ => return None,
    };
    matches!(error.ee_origin, ORIGIN_ICMP | ORIGIN_ICMP6).then_some((error.ee_type, error.ee_code, from))
}

/// Both clocks at one time, to translate the kernel's receive times.
struct Clocks {
    now: Instant,
    wall_nanos: i64,
}

/// A packet is not taken from its socket later than this; what seems older comes of a wall clock that was set.
const AGE_MAX: Span = Span::from_secs(1);

impl Clocks {
    fn read() -> Self {
        Self { now: Clock.now(), wall_nanos: Clock.wall().as_micros().saturating_mul(1_000) }
    }

    fn monotonic_of(&self, wall_nanos: Option<i64>) -> Instant {
        let age = wall_nanos.map_or(0, |nanos| self.wall_nanos.saturating_sub(nanos));
        let age = Span::from_nanos(u64::try_from(age).unwrap_or(0));
        if age > AGE_MAX { self.now } else { self.now.before(age) }
    }
}

/// A raw socket, or else a ping socket.
fn open(family: Family) -> Result<(OwnedFd, Means), Errno> {
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = match socket(domain, SockType::Raw, flags, protocol) {
        Err(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => {
            socket(domain, SockType::Datagram, flags, protocol).map(|socket| (socket, Means::Datagram))
        }
        made => made.map(|socket| (socket, Means::Raw)),
    };
    made.map_err(errno)
}

fn prepare(socket: &OwnedFd, family: Family, means: Means, key: &Key) -> Result<(), Errno> {
    if means == Means::Raw {
        // Before anything else: what came in before the filters stood is read, and thrown away by its cookie.
        filter::types(socket.as_fd(), family)?;
        filter::tag(socket.as_fd(), family, key.tag())?;
    }
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    }
    .map_err(errno)?;
    if family == Family::V4 {
        batch::unfragmented(socket.as_fd())?;
    }
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).map_err(errno)?;
    // Beyond the host's usual limit where that is allowed, else as far as it goes.
    if setsockopt(socket, sockopt::RcvBufForce, &ECHO_RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &ECHO_RECEIVE_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &ECHO_SEND_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &ECHO_SEND_BUFFER);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
