//! Echo requests by the bare loop.

use std::os::fd::AsRawFd as _;

use anyhow::ensure;
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::Load;
use crate::bench::beside::Window;
use crate::bench::raw;

/// As long as the daemon's.
const MESSAGE: usize = 36;

/// Answers are taken and counted, or never reach the socket.
pub(super) fn probe(load: &Load, hears: bool) -> anyhow::Result<Window> {
    let socket = raw::open(SockProtocol::Icmp)?;
    // A bit that is set blocks its type (`ICMP_FILTER` of linux/icmp.h). On the loopback requests come in as well.
    let filter = if hears { !1_u32 } else { !0 };
    // SAFETY: the value is four readable bytes.
    let filtered = unsafe { libc::setsockopt(socket.as_raw_fd(), 255, 1, (&raw const filter).cast(), 4) };
    ensure!(filtered == 0, "ICMP_FILTER");
    // Type 8, and a checksum that is right for it alone: the rest is zero.
    let mut message = [0_u8; MESSAGE];
    (message[0], message[2], message[3]) = (8, 0xF7, 0xFF);
    raw::probe(&socket, load.rate, load.seconds, hears, |number| (load.network.target(number), message))
}
