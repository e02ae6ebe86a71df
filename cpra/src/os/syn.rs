//! The sockets that the SYNs of half-open checks leave by, one per family and shard, owned by its thread.
//!
//! They only send: a raw socket of the protocol RAW takes whole packets and is offered none (raw(7)). What comes back goes
//! to the kernel, which resets it, since no socket of its own has asked ([`ports`]); that it came is told by the
//! programs that saw it pass ([`super::ebpf`]). Without those there are no half-open checks.
//!
//! A packet that is sent whole has its source address in it, and its checksum covers that. Which address it is to be, a
//! second socket is asked for each SYN: it connects, which for a raw socket sends nothing, and says what it is connected
//! from. So the answer is the one that a connect of that moment would get, and costs some 1.5 µs each.
//!
//! # Full
//! A SYN that the kernel does not take, or has no way for, is told as unsent, and its check is void.
//!
//! Not here: timeouts, when a SYN is sent again, who waits for what.

mod ports;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrLike as _, SockaddrStorage, getsockname, setsockopt,
    socket, sockopt,
};

pub use self::ports::Ports;
use super::clock::Clock;
use super::ebpf::{Expected, Kind, ShardSignals};
use super::ping::batch::{self, Departure};
use super::{address_of, errno};
use crate::probe::errand::Echo;
use crate::ring::{Errno, Family};
use crate::shard::Event;
use crate::units::limits::{ECHO_BATCH, ECHO_SEND_BUFFER};
use crate::units::{Generation, Slot};
use crate::wire::syn::{self, Key, Mark, PACKET_MAX, TICKETS_MAX};

/// One SYN to send.
#[derive(Clone, Copy, Debug)]
pub struct Knock {
    pub slot: Slot,
    pub generation: Generation,
    pub address: SocketAddr,
    pub attempt: u16,
}

/// A shard's sockets for SYNs.
pub struct Knocker {
    key: Key,
    doors: [Result<Door, Errno>; 2],
    queue: Vec<Knock>,
    sent: u64,
}

struct Door {
    socket: OwnedFd,
    /// Never sends: it is asked for source addresses.
    asked: OwnedFd,
}

impl Door {
    fn open(family: Family) -> Result<Self, Errno> {
        let domain = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let raw = || socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::Raw);
        let door = Self { socket: raw().map_err(errno)?, asked: raw().map_err(errno)? };
        // The kernel says when its own queues drop a packet, which it keeps to itself otherwise.
        match family {
            Family::V4 => setsockopt(&door.socket, sockopt::Ipv4RecvErr, &true),
            Family::V6 => setsockopt(&door.socket, sockopt::Ipv6RecvErr, &true),
        }
        .map_err(errno)?;
        if setsockopt(&door.socket, sockopt::SndBufForce, &ECHO_SEND_BUFFER).is_err() {
            let _ = setsockopt(&door.socket, sockopt::SndBuf, &ECHO_SEND_BUFFER);
        }
        Ok(door)
    }

    /// From which address of this host packets to `target` leave now.
    fn source_for(&self, target: IpAddr) -> Result<IpAddr, Errno> {
        let fd = self.asked.as_raw_fd();
        // A port would be taken for a protocol.
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        // SAFETY: the address lives until after the call, with its true length.
        let connected = unsafe { libc::connect(fd, address.as_ptr(), address.len()) };
        if connected != 0 {
            return Err(errno(nix::errno::Errno::last()));
        }
        let source = getsockname::<SockaddrStorage>(fd).map_err(errno);
        // The address sticks until it is disconnected.
        let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        // SAFETY: as above.
        unsafe { libc::connect(fd, &raw const nobody, size_of_val(&nobody) as libc::socklen_t) };
        address_of(&source?).ok_or(Errno::EINVAL)
    }
}

impl Knocker {
    /// With sockets, or without where there are none to be had: SYNs of that family then say why.
    ///
    /// # Errors
    /// When the kernel has no random bytes for the key.
    pub fn open() -> io::Result<Self> {
        let doors = [Family::V4, Family::V6].map(Door::open);
        Ok(Self { key: Key::new(&super::ping::seed()?), doors, queue: Vec::new(), sent: 0 })
    }

    /// Whether half-open checks can be had now: SYNs can leave, as far as this host has the family at all, and all that
    /// answers them is seen.
    pub fn can_knock(&self, signals: &ShardSignals) -> bool {
        let [v4, v6] = &self.doors;
        let has_sockets = v4.is_ok() && (v6.is_ok() || v6.as_ref().is_err_and(|&errno| errno == Errno::EAFNOSUPPORT));
        has_sockets && signals.ports().1 > 0 && signals.numbers_end() <= TICKETS_MAX && signals.is_whole()
    }

    /// SYNs that have left.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Queues a SYN for [`Self::send`].
    pub fn push(&mut self, knock: Knock) {
        self.queue.push(knock);
    }

    /// Sends what is queued, and tells what could not be sent.
    pub fn send(&mut self, signals: &mut ShardSignals, heard: &mut Vec<Event<'static>>) {
        if self.queue.is_empty() {
            return;
        }
        let queue = std::mem::take(&mut self.queue);
        for family in [Family::V4, Family::V6] {
            let mut batch: Vec<(Knock, Departure<PACKET_MAX>)> = Vec::with_capacity(ECHO_BATCH.min(queue.len()));
            for &knock in queue.iter().filter(|knock| Family::of(&knock.address) == family) {
                match self.departure(&knock, signals) {
                    Ok(departure) => batch.push((knock, departure)),
                    Err(echo) => heard.push(event(&knock, echo)),
                }
                if batch.len() == ECHO_BATCH {
                    self.send_batch(family, &batch, heard);
                    signals.hear(heard);
                    batch.clear();
                }
            }
            self.send_batch(family, &batch, heard);
        }
        self.queue = queue;
        self.queue.clear();
    }

    /// Makes a SYN and its ticket.
    fn departure(&self, knock: &Knock, signals: &mut ShardSignals) -> Result<Departure<PACKET_MAX>, Echo> {
        let &Knock { slot, generation, address, attempt } = knock;
        let address = SocketAddr::new(destination(address.ip()), address.port());
        let door = self.doors[Family::of(&address) as usize].as_ref().map_err(|&errno| Echo::NoSocket(errno))?;
        let source = door.source_for(address.ip()).map_err(Echo::Unsent)?;
        let ticket =
            signals.number(slot).filter(|&ticket| ticket < TICKETS_MAX).ok_or(Echo::NoSocket(Errno::ENOBUFS))?;
        let mark = Mark::new(&self.key, ticket, generation, address, signals.ports());
        signals.expect(&Expected {
            kind: Kind::Syn,
            slot,
            generation,
            sequence: attempt,
            address: address.ip(),
            cookie: mark.cookie(address.port()),
            sent: Clock.now(),
        });
        let (packet, length) = syn::packet(source, address, mark);
        Ok(Departure::cut(address.ip(), packet, length))
    }

    fn send_batch(
        &mut self,
        family: Family,
        batch: &[(Knock, Departure<PACKET_MAX>)],
        heard: &mut Vec<Event<'static>>,
    ) {
        let Ok(door) = &self.doors[family as usize] else { return };
        let mut left = batch;
        while !left.is_empty() {
            match batch::send(door.socket.as_fd(), left.iter().map(|(_, departure)| departure)) {
                Ok(count) => {
                    self.sent += count as u64;
                    left = &left[count.min(left.len())..];
                }
                Err(errno @ (Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)) => {
                    // There is no room for the others either.
                    heard.extend(left.iter().map(|(knock, _)| event(knock, Echo::Unsent(errno))));
                    return;
                }
                Err(errno) => {
                    heard.push(event(&left[0].0, Echo::Unsent(errno)));
                    left = &left[1..];
                }
            }
        }
    }
}

fn event(knock: &Knock, echo: Echo) -> Event<'static> {
    Event::Echoed { slot: knock.slot, generation: knock.generation, sequence: knock.attempt, echo }
}

/// Who is meant by an address, as a connect understands it: nobody in particular is this host.
const fn destination(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    }
}
