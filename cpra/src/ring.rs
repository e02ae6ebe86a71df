//! The one trait between the shard and the network: operations go in, completions come out.
//!
//! A ring owns one socket per [`Slot`] and keeps it for many checks: connect, talk, disconnect, connect to the
//! next target. Three drivers implement it: io_uring ([`crate::os::uring`]) and the simulator ([`crate::sim`]),
//! held to one contract by `tests/io_contract.rs`.
//!
//! # The contract
//! - Every submitted operation completes exactly once with [`Completion::more`] false. A `Recv` may complete with
//!   data and `more` true any number of times before that (it is a multishot receive).
//! - A `Connect` that completes without an error was answered: the connection stands, or stood.
//! - `Send` and `Recv` are submitted after the slot's `Connect` has succeeded. (One that is pending beside a connect
//!   could take the error that ends the connect; the kernel would then start the connect again.)
//! - At most one operation of each kind is pending on a slot. `Disconnect` may be submitted while others are
//!   pending: it ends them (a pending `Connect` or `Recv` then completes with an error or with 0).
//! - A slot is *quiet* when nothing is pending on it. `Connect` is submitted on quiet slots only. An operation of
//!   the old connection would otherwise see the new one: measured, a pending receive got the next target's bytes,
//!   and a pending connect to a blackhole completed with success because the *next* target was alive.
//! - Data is lent until the next call of any method.

use std::fmt;
use std::net::SocketAddr;

use crate::units::limits::STALL;
use crate::units::{Generation, Instant, Slot, Span};

/// Which kind of address a slot's socket can connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// One operation on a slot's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Connect(SocketAddr),
    /// Sends all of the bytes that accompany the submission.
    Send,
    /// Receives until the peer's FIN, an error, or a disconnect.
    Recv,
    /// Back to an unconnected socket, by reset: no TIME_WAIT is left behind.
    Disconnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    Connect = 0,
    Send = 1,
    Recv = 2,
    Disconnect = 3,
}

impl Op {
    pub const fn kind(&self) -> OpKind {
        match self {
            Self::Connect(_) => OpKind::Connect,
            Self::Send => OpKind::Send,
            Self::Recv => OpKind::Recv,
            Self::Disconnect => OpKind::Disconnect,
        }
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    pub slot: Slot,
    /// The generation that the operation was submitted with.
    pub generation: Generation,
    pub kind: OpKind,
    /// Bytes sent or received (0 from `Recv`: the peer's FIN), 0 for the others; or the error.
    pub result: Result<u32, Errno>,
    /// Whether the same operation will complete again.
    pub more: bool,
    /// Whether an error was this host's own refusal (no route for the address), and not the network's answer.
    pub local: bool,
    /// What `Recv` received.
    pub data: &'a [u8],
    /// Of a `Connect` that succeeded, where something in the kernel has seen it. Nobody may depend on it.
    pub handshake: Option<Handshake>,
}

/// When a connection came to stand, as the kernel saw it: without the time that we took to hand the connect over and to
/// take its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The SYN was about to leave.
    pub sent: Instant,
    /// The SYN-ACK was there.
    pub stood: Instant,
}

impl Handshake {
    pub const fn took(self) -> Span {
        self.stood.since(self.sent)
    }

    /// Whether it can be the handshake of a connect that was asked for at `asked` and whose completion was drained in
    /// the turn that began at `now`: what was stamped for another, or by a clock gone wrong, is none. It may have stood
    /// a little after `now`, which is read before the drain.
    pub fn fits(self, asked: Instant, now: Instant) -> bool {
        asked <= self.sent && self.sent <= self.stood && self.stood <= now + STALL
    }

    /// The same, as if all of it had been later.
    #[must_use]
    pub fn later(self, by: Span) -> Self {
        Self { sent: self.sent + by, stood: self.stood + by }
    }
}

/// How long [`Ring::enter`] may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Return when this many completions are there (0: do not wait) ...
    pub batch: u32,
    /// ... or when this long has passed.
    pub bound: Span,
}

impl Wait {
    pub const NONE: Self = Self { batch: 0, bound: Span::ZERO };
}

/// A source of sockets and completions. See the module's contract.
pub trait Ring {
    /// Makes the socket of a slot that has none.
    ///
    /// # Errors
    /// What the kernel said: `EMFILE`, `ENOBUFS`, `EAFNOSUPPORT`, ... The slot stays without a socket.
    fn open(&mut self, slot: Slot, family: Family) -> Result<(), Errno>;

    /// Gives up the socket of a quiet slot.
    fn close(&mut self, slot: Slot);

    /// Queues an operation; `bytes` are what a `Send` sends, copied before this returns.
    fn submit(&mut self, slot: Slot, generation: Generation, op: &Op, bytes: &[u8]);

    /// Hands what is queued to the kernel and waits as told.
    ///
    /// # Errors
    /// Only when the ring itself is broken: nothing sensible can follow but ending the process.
    fn enter(&mut self, wait: Wait) -> std::io::Result<()>;

    /// Gives every completion that is there to `sink`, oldest first.
    fn reap<'a>(&'a mut self, sink: &mut dyn FnMut(Completion<'a>));
}

/// An error number of the Linux kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

#[rustfmt::skip]
impl Errno {
    pub const EPERM: Self = Self(1);
    pub const ENOENT: Self = Self(2);
    pub const EINTR: Self = Self(4);
    pub const EIO: Self = Self(5);
    pub const ENOEXEC: Self = Self(8);
    pub const EAGAIN: Self = Self(11);
    pub const ENOMEM: Self = Self(12);
    pub const EACCES: Self = Self(13);
    pub const ENOTDIR: Self = Self(20);
    pub const EINVAL: Self = Self(22);
    pub const ENFILE: Self = Self(23);
    pub const EMFILE: Self = Self(24);
    pub const EPIPE: Self = Self(32);
    pub const EAFNOSUPPORT: Self = Self(97);
    pub const EADDRNOTAVAIL: Self = Self(99);
    pub const ENETDOWN: Self = Self(100);
    pub const ENETUNREACH: Self = Self(101);
    pub const ECONNABORTED: Self = Self(103);
    pub const ECONNRESET: Self = Self(104);
    pub const ENOBUFS: Self = Self(105);
    pub const ETIMEDOUT: Self = Self(110);
    pub const ECONNREFUSED: Self = Self(111);
    pub const EHOSTUNREACH: Self = Self(113);
    pub const ECANCELED: Self = Self(125);

    /// The symbol, for those that a check meets.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::EPERM => "EPERM",
            Self::ENOENT => "ENOENT",
            Self::EINTR => "EINTR",
            Self::EIO => "EIO",
            Self::ENOEXEC => "ENOEXEC",
            Self::EAGAIN => "EAGAIN",
            Self::ENOMEM => "ENOMEM",
            Self::EACCES => "EACCES",
            Self::ENOTDIR => "ENOTDIR",
            Self::EINVAL => "EINVAL",
            Self::ENFILE => "ENFILE",
            Self::EMFILE => "EMFILE",
            Self::EPIPE => "EPIPE",
            Self::EAFNOSUPPORT => "EAFNOSUPPORT",
            Self::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            Self::ENETDOWN => "ENETDOWN",
            Self::ENETUNREACH => "ENETUNREACH",
            Self::ECONNABORTED => "ECONNABORTED",
            Self::ECONNRESET => "ECONNRESET",
            Self::ENOBUFS => "ENOBUFS",
            Self::ETIMEDOUT => "ETIMEDOUT",
            Self::ECONNREFUSED => "ECONNREFUSED",
            Self::EHOSTUNREACH => "EHOSTUNREACH",
            Self::ECANCELED => "ECANCELED",
            _ => return None,
        })
    }
}

/// In words: `connection refused`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Self::ECONNREFUSED => "connection refused",
            Self::ECONNRESET | Self::EPIPE => "connection reset",
            Self::ECONNABORTED => "connection aborted",
            Self::ETIMEDOUT => "connection timed out",
            Self::EHOSTUNREACH => "host unreachable",
            Self::ENETUNREACH => "network unreachable",
            Self::ENETDOWN => "network down",
            Self::EADDRNOTAVAIL => "no free source port",
            Self::EMFILE | Self::ENFILE => "too many open files",
            Self::ENOBUFS | Self::ENOMEM => "out of memory for sockets",
            Self::EPERM | Self::EACCES => "forbidden by this host",
            other => return write!(f, "{}", std::io::Error::from_raw_os_error(other.0)),
        };
        f.write_str(words)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_lies_between_the_asking_and_now() {
        let at = |nanos| Instant::from_nanos(nanos);
        let (asked, now) = (at(1_000), at(9_000));
        for (sent, stood, fits) in [
            (1_000, 9_000, true),
            (2_000, 2_000, true),
            // The clock is read before completions are drained ...
            (2_000, 9_000 + STALL.as_nanos(), true),
            // ... but not that long before.
            (2_000, 9_001 + STALL.as_nanos(), false),
            (999, 2_000, false),
            (3_000, 2_000, false),
            (0, 0, false),
            (u64::MAX, u64::MAX, false),
        ] {
            let handshake = Handshake { sent: at(sent), stood: at(stood) };
            assert_eq!(handshake.fits(asked, now), fits, "{handshake:?}");
        }
    }
}
