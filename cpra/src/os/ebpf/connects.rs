//! When the connections of one shard's pool came to stand, as the kernel saw it.
//!
//! Each socket of the pool has a cookie by which the kernel knows it for its life. The program looks it up among `SOCKETS`
//! and finds the ticket of the socket's slot, where it stamps the connect. Slots beyond the tickets, and sockets that the map
//! has no room for, are left without: their connects are timed by ourselves.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::Btf;
use aya::maps::{HashMap, Map, MapData};
use aya::programs::Program;
use aya::{Ebpf, EbpfError};
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};

use super::mapped::{Mapped, SharedTicket};
use super::{SignalError, fd};
use crate::ring::Handshake;
use crate::units::{Instant, Slot};

const PROGRAM: &str = "cpra_connect";
const TRACEPOINT: &str = "inet_sock_set_state";
pub(super) const SOCKETS: &str = "SOCKETS";

/// Starts the program. The kernel must describe its own types, which some do not.
pub(super) fn attach(ebpf: &mut Ebpf) -> Result<(), SignalError> {
    let Some(Program::BtfTracePoint(program)) = ebpf.program_mut(PROGRAM) else {
        return Err(SignalError::Refused(format!("program {PROGRAM} is not in the object")));
    };
    let kernel = Btf::from_sys_fs().map_err(EbpfError::from)?;
    program.load(TRACEPOINT, &kernel)?;
    program.attach()?;
    Ok(())
}

/// The handshakes of one shard.
pub struct Connects {
    sockets: HashMap<MapData, u64, u32>,
    tickets: Arc<Mapped<SharedTicket>>,
    /// The numbers of the shard's tickets.
    first: u32,
    slots: u32,
    /// By slot, the cookie of its socket in the map; 0 for none.
    cookies: Vec<u64>,
}

impl Connects {
    /// `sockets` is the map of all shards.
    pub(super) fn new(
        sockets: &MapData,
        tickets: Arc<Mapped<SharedTicket>>,
        shard: u8,
        slots: u32,
    ) -> Result<Self, SignalError> {
        let own =
            MapData::from_fd(fd(sockets).map_err(SignalError::Tables)?).map_err(|error| SignalError::of(&error))?;
        let sockets = HashMap::try_from(Map::HashMap(own)).map_err(|error| SignalError::of(&error))?;
        Ok(Self { sockets, tickets, first: u32::from(shard) * slots, slots, cookies: Vec::new() })
    }

    /// A slot has another socket now.
    pub fn adopt(&mut self, slot: Slot, socket: BorrowedFd<'_>) {
        self.abandon(slot);
        if slot.0 >= self.slots {
            return;
        }
        let Ok(cookie) = getsockopt(&socket, Cookie) else { return };
        if self.sockets.insert(cookie, self.first + slot.0, 0).is_err() {
            return;
        }
        if self.cookies.len() <= slot.index() {
            self.cookies.resize(slot.index() + 1, 0);
        }
        self.cookies[slot.index()] = cookie;
    }

    /// A slot's socket is gone.
    pub fn abandon(&mut self, slot: Slot) {
        if let Some(cookie) = self.cookies.get_mut(slot.index()).filter(|cookie| **cookie != 0) {
            // It is there, and were it not, nobody would miss it.
            let _ = self.sockets.remove(&std::mem::take(cookie));
        }
    }

    /// A slot is about to connect: what is stamped there is of something else.
    pub fn begin(&self, slot: Slot) {
        if let Some(ticket) = self.ticket(slot) {
            ticket.cookie.store(0, Ordering::SeqCst);
            ticket.returned.store(0, Ordering::Release);
        }
    }

    /// What was stamped for a slot since [`Self::begin`], whose connect has just succeeded: the connection stood. When its
    /// SYN left may be of an older one, if the program missed this one's: who knows when the connect was asked for can tell.
    pub fn handshake(&self, slot: Slot) -> Option<Handshake> {
        let ticket = self.ticket(slot)?;
        let stood = ticket.returned.load(Ordering::Acquire);
        let sent = ticket.sent.load(Ordering::Relaxed);
        let stamped = sent != 0 && stood != 0;
        stamped.then(|| Handshake { sent: Instant::from_nanos(sent), stood: Instant::from_nanos(stood) })
    }

    /// The ticket of a slot whose socket the program knows.
    fn ticket(&self, slot: Slot) -> Option<&SharedTicket> {
        self.cookies.get(slot.index()).filter(|cookie| **cookie != 0)?;
        self.tickets.get(self.first + slot.0)
    }
}

sockopt_impl!(
    /// A number that no other socket of this host has, for as long as it is there.
    Cookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_COOKIE,
    u64
);
