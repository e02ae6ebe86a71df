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
//! there is what the network said. The look is one more operation on the same socket. It never waits, so it ends while it is
//! handed over.

use std::mem;

use io_uring::{opcode, squeue, types};
use nix::libc;

use crate::ring::Errno;

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

/// How a connect has ended, by what it said and by what was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) result: Result<u32, Errno>,
    /// Whether the look itself failed, and nobody knows.
    pub(super) is_blind: bool,
    /// Whether there may be more in the queue.
    pub(super) is_spent: bool,
}

impl Look {
    pub(super) fn new(said: Result<u32, Errno>) -> Box<Self> {
        // SAFETY: numbers and pointers, of which zero is a value: no address, no buffers.
        let (message, control) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Box::new(Self { said, message, control })
    }

    /// The entry for it, on a socket of the table. It points at `self`.
    pub(super) fn entry(&mut self, place: u32) -> squeue::Entry {
        self.message.msg_control = (&raw mut self.control).cast();
        self.message.msg_controllen = size_of::<Control>() as _;
        opcode::RecvMsg::new(types::Fixed(place), &raw mut self.message)
            .flags((libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) as u32)
            .build()
    }

    /// The operation has completed with `result`.
    pub(super) fn end(&self, result: i32) -> Ending {
        if result == -libc::EAGAIN {
            return Ending { result: self.said, is_blind: false, is_spent: false };
        }
        let found = if result < 0 { Err(Errno(-result)) } else { self.found() };
        let (Ok(errno) | Err(errno)) = found;
        let is_blind = self.said.is_ok() && found.is_err();
        Ending { result: self.said.and(Err(errno)), is_blind, is_spent: true }
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

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: i32 = 0;

    fn ended(
        said: Result<u32, Errno>,
        result: i32,
        level: i32,
        kind: i32,
        errno: i32,
    ) -> (Result<u32, Errno>, bool, bool) {
        let mut look = Look::new(said);
        look.control.header.cmsg_level = level;
        look.control.header.cmsg_type = kind;
        look.control.error.ee_errno = errno.cast_unsigned();
        let Ending { result, is_blind, is_spent } = look.end(result);
        (result, is_blind, is_spent)
    }

    #[test]
    fn a_connect_ends_as_its_queue_says() {
        let (here, there) = (Errno::ENOMEM, Errno::EHOSTUNREACH);
        let refused = Err(Errno::ECONNREFUSED);
        let ip = (libc::SOL_IP, libc::IP_RECVERR);
        let ipv6 = (libc::SOL_IPV6, libc::IPV6_RECVERR);
        for (said, result, (level, kind), errno, wanted) in [
            // Nothing is there.
            (Ok(0), -libc::EAGAIN, (0, 0), 0, (Ok(0), false, false)),
            (refused, -libc::EAGAIN, (0, 0), 0, (refused, false, false)),
            // An error is there: it is believed rather than a success, and no more than another error.
            (Ok(0), WRITTEN, ip, there.0, (Err(there), false, true)),
            (Ok(0), WRITTEN, ipv6, there.0, (Err(there), false, true)),
            (refused, WRITTEN, ip, there.0, (refused, false, true)),
            // Nobody knows.
            (Ok(0), -here.0, (0, 0), 0, (Err(here), true, true)),
            (refused, -here.0, (0, 0), 0, (refused, false, true)),
            (Ok(0), WRITTEN, (0, 0), 0, (Err(Errno::EIO), true, true)),
            (Ok(0), WRITTEN, ip, 0, (Err(Errno::EIO), true, true)),
        ] {
            assert_eq!(ended(said, result, level, kind, errno), wanted, "{said:?} {result} {level} {kind} {errno}");
        }
    }
}
