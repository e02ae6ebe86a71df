//! What a raw ICMP socket is spared: the kernel offers it every ICMP packet that comes to this host.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

use crate::ring::{Errno, Family};
use crate::wire::icmp::TAG_AT;

/// `ICMP_FILTER` of linux/icmp.h and `ICMPV6_FILTER` of linux/icmpv6.h, which libc does not name.
const ICMP_FILTER: libc::c_int = 1;
const ICMPV6_FILTER: libc::c_int = 1;
const SOL_RAW: libc::c_int = 255;

const ECHO_REPLY: u32 = 0;
const ECHO_REPLY_V6: usize = 129;

/// Lets echo replies through only. A set bit blocks its type.
pub(super) fn types(socket: BorrowedFd<'_>, family: Family) -> Result<(), Errno> {
    match family {
        Family::V4 => set(socket, SOL_RAW, ICMP_FILTER, &!(1_u32 << ECHO_REPLY)),
        Family::V6 => {
            let mut blocked = [u32::MAX; 8];
            blocked[ECHO_REPLY_V6 / 32] &= !(1 << (ECHO_REPLY_V6 % 32));
            set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
        }
    }
}

/// Lets packets with our tag through only, by a classic BPF program. A load beyond a packet's end drops it.
pub(super) fn tag(socket: BorrowedFd<'_>, family: Family, tag: u32) -> Result<(), Errno> {
    let at = TAG_AT as u32;
    let load = match family {
        // The packet begins with its IP header, whose length goes into X.
        Family::V4 => [
            step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0),
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 0, at),
        ],
        // It begins with the ICMP header. The first step is there for the same length.
        Family::V6 => {
            [step(libc::BPF_LDX | libc::BPF_IMM, 0, 0), step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, at)]
        }
    };
    let [first, second] = load;
    let mut program = [
        first,
        second,
        // Unless it is our tag, past the next step.
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, tag),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // The kernel copies the program during the call.
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

const fn step(code: u32, otherwise: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k }
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: `value` is valid for reads of its own size during the call, and what it may point to (a BPF program)
    // lives in the caller until the call has returned.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(crate::os::errno(nix::errno::Errno::last())) }
}
