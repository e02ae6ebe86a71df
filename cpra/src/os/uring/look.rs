//! A look into a socket's error queue, after a connect.
//!
//! On IPv4 the kernel puts an ICMP error that meets a connecting socket into the socket's error queue, whether anybody has
//! asked for it (`IP_RECVERR`) or not, and a disconnect leaves it there. io_uring takes whatever is in that queue for the
//! end of a connect, asks for the socket's error, is told that there is none, and completes with success. Such is the case
//! for every later connect of that socket, and for the first when the error is there before the connect's call has returned
//! (a target on the same host, a rule that rejects what goes out): then the kernel keeps the error for later, and goes on
//! sending SYNs.
//!
//! So a connect has ended when the queue was looked at: empty, and what the connect said is true; or not, and what was found
//! there is what the network said. The look is one more operation on the same socket, and belongs to the connect: the slot
//! is not quiet before it has ended. It never waits, so it ends while it is handed over.
//!
//! # Invariants
//! - A connect begins with an empty queue. One that was refused leaves it empty, for the looks go on until it is; a socket
//!   that still connects when its error is found is *spent*: who wants to connect next is given another.
//! - IPv6 fills no queue, but sockets for IPv6 connect to IPv4 too (mapped addresses), so all are looked at alike.
//!
//! Not here: connects whose handshake the kernel has stamped. They stood; what else they may have met is not asked for.

use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::{cqueue, opcode, squeue, types};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

use super::seat::{Seat, Seats, Socket};
use super::token::Token;
use super::unit::Unit;
use crate::os::errno;
use crate::ring::{Completion, Errno};
use crate::units::{Generation, Slot};

/// What the operation says when there is nothing in the queue.
const EMPTY: i32 = -libc::EAGAIN;

/// What the kernel writes about one error. The sender's address is not looked at, but wants its room.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    error: libc::sock_extended_err,
    sender: libc::sockaddr_in6,
}

/// One look, at an address that does not change until it has ended.
pub(super) struct Look {
    /// What the connect itself said.
    said: Result<u32, Errno>,
    message: libc::msghdr,
    control: Control,
}

/// What a look makes of its connect.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// There was an error, and there may be more: to be looked again.
    More,
    /// So it has ended.
    Known {
        result: Result<u32, Errno>,
        /// Whether the look itself failed, and nobody knows.
        is_blind: bool,
        /// Whether the queue may hold errors when the next connect begins.
        is_spent: bool,
    },
}

impl Look {
    pub(super) fn new(said: Result<u32, Errno>) -> Box<Self> {
        // SAFETY: numbers and pointers, of which zero is a value: no address, no buffers.
        let (message, control) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Box::new(Self { said, message, control })
    }

    /// The entry for it, on a socket of the table. It points at `self`.
    fn entry(&mut self, place: u32) -> squeue::Entry {
        self.message.msg_control = (&raw mut self.control).cast();
        self.message.msg_controllen = size_of::<Control>() as _;
        opcode::RecvMsg::new(types::Fixed(place), &raw mut self.message)
            .flags((libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) as u32)
            .build()
    }

    /// The operation has completed with `result`.
    fn end(&self, result: i32) -> Ending {
        let blind = |errno| Ending::Known { result: Err(errno), is_blind: true, is_spent: true };
        match (self.said, result) {
            (said, EMPTY) => Ending::Known { result: said, is_blind: false, is_spent: false },
            // It connects no more, so that nothing is added to the queue, and taking out what is there empties it.
            (Err(_), 0..) => Ending::More,
            (said @ Err(_), _) => Ending::Known { result: said, is_blind: false, is_spent: true },
            // It still connects, and may meet more errors until it is disconnected.
            (Ok(_), 0..) => self.found().map_or_else(blind, |errno| Ending::Known {
                result: Err(errno),
                is_blind: false,
                is_spent: true,
            }),
            (Ok(_), _) => blind(Errno(-result)),
        }
    }

    /// The error that was in the queue, if it was one.
    fn found(&self) -> Result<Errno, Errno> {
        let Control { header, error, .. } = &self.control;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) if error.ee_errno != 0 => {
                Ok(Errno(error.ee_errno.cast_signed()))
            }
            _ => Err(Errno::EIO),
        }
    }
}

/// Begins the looks into the error queues of a unit's connects.
pub(super) fn begin(unit: &mut Unit, seats: &mut Seats, looks: &mut Vec<(Slot, Generation)>, unit_slots: u32) {
    for (slot, generation) in looks.drain(..) {
        let Some(look) = &mut seats.get(slot).look else { continue };
        let entry = look.entry(slot.0 % unit_slots).user_data(Token::Look { slot, generation }.encode());
        // SAFETY: the entry points into the look, which is boxed, and stays in its seat until it has ended.
        unsafe { unit.push(entry) };
    }
    unit.submit();
}

/// What the look that has ended makes of its connect, or nothing if it is to be looked again.
pub(super) fn conclude<'a>(
    entry: &cqueue::Entry,
    blank: Completion<'a>,
    seat: &mut Seat,
    mark: Option<u32>,
) -> Option<Completion<'a>> {
    let look = seat.look.as_ref().expect("what has ended had begun");
    let Ending::Known { result, is_blind, is_spent } = look.end(entry.result()) else { return None };
    seat.look = None;
    if is_spent {
        seat.socket = Socket::Spent;
    }
    let local = is_blind || result.is_err_and(|errno| is_own(errno, seat.address.to_std(), mark));
    Some(Completion { result, local, ..blank })
}

/// Whether a connect's error is this host's own refusal.
fn is_own(errno: Errno, address: SocketAddr, mark: Option<u32>) -> bool {
    matches!(errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) && is_unroutable(address, mark)
}

/// Whether this host itself has no way to an address: a datagram socket, which sends nothing on connecting, is
/// refused as well. A router or a neighbour that is not there does not make it fail.
fn is_unroutable(address: SocketAddr, mark: Option<u32>) -> bool {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let Ok(socket) = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else { return false };
    if let Some(mark) = mark {
        // Routes may depend on the mark.
        let _ = setsockopt(&socket, sockopt::Mark, &mark);
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address))
        .is_err_and(|error| matches!(errno(error), Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: i32 = 0;

    fn ended(said: Result<u32, Errno>, result: i32, (level, kind): (i32, i32), errno: i32) -> Ending {
        let mut look = Look::new(said);
        look.control.header.cmsg_level = level;
        look.control.header.cmsg_type = kind;
        look.control.error.ee_errno = errno.cast_unsigned();
        look.end(result)
    }

    #[test]
    fn a_connect_ends_as_its_queue_says() {
        let there = Errno::EHOSTUNREACH;
        let [refused, memory, other] = [Errno::ECONNREFUSED, Errno::ENOMEM, Errno::EIO].map(Err);
        let [nothing, ip, ipv6] = [(0, 0), (libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)];
        let known = |result, is_blind, is_spent| Ending::Known { result, is_blind, is_spent };
        for (said, result, kind, errno, wanted) in [
            // Nothing is there.
            (Ok(0), EMPTY, nothing, 0, known(Ok(0), false, false)),
            (refused, EMPTY, nothing, 0, known(refused, false, false)),
            // An error is there: it is believed rather than a success, and no more than another error.
            (Ok(0), WRITTEN, ip, there.0, known(Err(there), false, true)),
            (Ok(0), WRITTEN, ipv6, there.0, known(Err(there), false, true)),
            (refused, WRITTEN, ip, there.0, Ending::More),
            // Nobody knows.
            (Ok(0), -libc::ENOMEM, nothing, 0, known(memory, true, true)),
            (refused, -libc::ENOMEM, nothing, 0, known(refused, false, true)),
            (Ok(0), WRITTEN, nothing, 0, known(other, true, true)),
            (Ok(0), WRITTEN, ip, 0, known(other, true, true)),
        ] {
            assert_eq!(ended(said, result, kind, errno), wanted, "{said:?} {result} {kind:?} {errno}");
        }
    }
}
