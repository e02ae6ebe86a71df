//! What the driver keeps for each slot, at addresses that never move.
//!
//! The kernel reads a connect's address and a send's bytes where they lie. Both therefore live in the slot's seat,
//! seats live in boxed rows, and rows are only ever added. A look has a box of its own, as few are under way at a time.

use std::net::SocketAddr;

use nix::libc;
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike};

use super::look::Look;
use crate::ring::{Errno, OpKind};
use crate::units::{Generation, Slot};

/// Send buffers beyond this are given back after use; smaller ones keep their capacity for the next send.
const KEPT_MAX: usize = 16 * 1024;

const ROW: usize = 1024;

/// A slot's socket address as the kernel wants it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    V4(SockaddrIn),
    V6(SockaddrIn6),
}

impl Address {
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(address) => address.as_ptr(),
            Self::V6(address) => address.as_ptr(),
        }
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        match self {
            Self::V4(address) => address.len(),
            Self::V6(address) => address.len(),
        }
    }

    pub(super) fn to_std(self) -> SocketAddr {
        match self {
            Self::V4(address) => SocketAddr::V4(address.into()),
            Self::V6(address) => SocketAddr::V6(address.into()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address.into()),
            SocketAddr::V6(address) => Self::V6(address.into()),
        }
    }
}

/// Whether a slot has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Open,
    /// One whose error queue may hold what an earlier connect was answered: the next is to have another.
    Spent,
    /// None, and what to say to who uses it all the same.
    None(Errno),
}

/// One slot.
pub(super) struct Seat {
    pub(super) socket: Socket,
    /// Kinds of operations not yet completed, as bits.
    pending: u8,
    /// Target of the pending or last connect.
    pub(super) address: Address,
    /// Between a connect's own completion and the end that is told.
    pub(super) look: Option<Box<Look>>,
    /// Generations of the operations that the driver may have to submit again by itself.
    pub(super) send_generation: Generation,
    pub(super) recv_generation: Generation,
    pub(super) bytes: Vec<u8>,
    /// How many of `bytes` the kernel has taken.
    pub(super) sent: usize,
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            socket: Socket::None(Errno(libc::EBADF)),
            pending: 0,
            address: Address::from(SocketAddr::from(([0, 0, 0, 0], 0))),
            look: None,
            send_generation: Generation(0),
            recv_generation: Generation(0),
            bytes: Vec::new(),
            sent: 0,
        }
    }
}

impl Seat {
    pub(super) const fn is_quiet(&self) -> bool {
        self.pending == 0
    }

    pub(super) const fn has_pending(&self, kind: OpKind) -> bool {
        self.pending & 1 << kind as u8 != 0
    }

    /// Marks an operation as submitted, holding the caller to the ring's contract.
    ///
    /// # Panics
    /// When the contract is broken: a slot that is not quiet would let one target answer for another.
    pub(super) fn begin(&mut self, slot: Slot, kind: OpKind) {
        assert!(!self.has_pending(kind), "{kind:?} submitted twice on slot {}", slot.0);
        assert!(kind != OpKind::Connect || self.is_quiet(), "slot {} is not quiet, but was told to connect", slot.0);
        self.pending |= 1 << kind as u8;
    }

    pub(super) fn end(&mut self, kind: OpKind) {
        self.pending &= !(1 << kind as u8);
        if kind == OpKind::Send && self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// All seats, by slot.
#[derive(Default)]
pub(super) struct Seats {
    rows: Vec<Box<[Seat]>>,
}

impl Seats {
    /// The seat of a slot, made when there is none yet.
    pub(super) fn make(&mut self, slot: Slot) -> &mut Seat {
        while self.rows.len() * ROW <= slot.index() {
            self.rows.push((0..ROW).map(|_| Seat::default()).collect());
        }
        &mut self.rows[slot.index() / ROW][slot.index() % ROW]
    }

    /// # Panics
    /// If the slot was never made.
    #[inline]
    pub(super) fn get(&mut self, slot: Slot) -> &mut Seat {
        &mut self.rows[slot.index() / ROW][slot.index() % ROW]
    }
}
