//! Sockets of the daemon's pool: when their SYN left, and when the connection stood.

use core::ptr;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use cpra_common::{Count, Ticket};

use crate::tickets::{TICKETS, count};

/// The ticket of a socket, by the socket's cookie. The loader makes room for as many as there are slots.
#[map]
static SOCKETS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[inline(always)]
fn ticket(cookie: u64) -> Option<*mut Ticket> {
    let number = SOCKETS.get_ptr(cookie)?;
    // SAFETY: entries are freed only when no program looks at them any more.
    TICKETS.get_ptr_mut(unsafe { *number })
}

/// The socket is about to send its SYN. What its slot awaited before is awaited no more.
#[inline(always)]
pub fn asks(cookie: u64) -> Option<()> {
    let ticket = ticket(cookie)?;
    // SAFETY: the map's entries live as long as the program, and these fields are numbers.
    unsafe {
        ptr::write_volatile(&raw mut (*ticket).cookie, 0);
        ptr::write_volatile(&raw mut (*ticket).returned, 0);
        ptr::write_volatile(&raw mut (*ticket).sent, bpf_ktime_get_ns());
    }
    Some(())
}

/// The connection stands.
#[inline(always)]
pub fn stands(cookie: u64) -> Option<()> {
    let ticket = ticket(cookie)?;
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut (*ticket).returned, bpf_ktime_get_ns()) };
    count(Count::Connected);
    Some(())
}
