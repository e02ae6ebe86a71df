//! What cpra does in the kernel: it sees its own requests leave and their answers come in, stamps both with the
//! kernel's clock, and leaves the round trip in the request's ticket (see `cpra_common`).
//!
//! | program | hook | what it does |
//! | --- | --- | --- |
//! | `cpra_out` | TCX or clsact, egress | stamps echo requests and SYNs that carry the cookie of a ticket |
//! | `cpra_in` | TCX or clsact, ingress | takes their answers: replies, SYN-ACKs, RSTs, ICMP errors |
//! | `cpra_in_xdp` | XDP, where it is configured | the same, earlier |
//! | `cpra_connect` | tracepoint `inet_sock_set_state` | stamps when a socket of the pool asks for a connection, and when that stands |
//!
//! **They interfere with nothing.** The only packet ever dropped is an echo reply that carries our cookie and whose
//! return is in the ring already. SYN-ACKs are passed on, so that the kernel, which knows no such connection, answers
//! RST and the target forgets it. All else goes on its way, to other programs on the same hook as well.
//!
//! Not here: verdicts, timeouts, checksums (a packet whose cookie is right has not been garbled where it matters).
//! Fragments and IPv6 extension headers are left to the host.

#![no_std]
#![no_main]

mod packet;
mod sockets;
mod tickets;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{btf_tracepoint, classifier, xdp};
use aya_ebpf::programs::{BtfTracePointContext, TcContext, XdpContext};

use packet::{Frame, Segment};

/// Lets the next program look, and the host take it in the end.
const ON: i32 = TC_ACT_UNSPEC;

#[classifier]
pub fn cpra_out(context: TcContext) -> i32 {
    let _ = packet::outgoing(&Segment(&context));
    ON
}

#[classifier]
pub fn cpra_in(context: TcContext) -> i32 {
    if packet::incoming(&Segment(&context)) == Some(true) { TC_ACT_SHOT } else { ON }
}

#[xdp]
pub fn cpra_in_xdp(context: XdpContext) -> u32 {
    let taken = Frame::of(&context).and_then(|frame| packet::incoming(&frame));
    if taken == Some(true) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// States of a TCP socket, as the kernel numbers them.
mod state {
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const CLOSE: i32 = 7;
}

/// The tracepoint's arguments are the socket, its state before, and its state from now on.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn cpra_connect(context: BtfTracePointContext) -> i32 {
    // It is every socket's of this host: the states come first, and nearly all that is not ours ends here.
    let stands = match (context.arg::<i32>(1), context.arg::<i32>(2)) {
        (state::CLOSE, state::SYN_SENT) => false,
        (state::SYN_SENT, state::ESTABLISHED) => true,
        _ => return 0,
    };
    // SAFETY: the kernel itself says that this is a socket.
    let cookie = unsafe { bpf_get_socket_cookie(context.arg(0)) };
    let _ = if stands { sockets::stands(cookie) } else { sockets::asks(cookie) };
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the verifier would refuse the loop.
    loop {}
}
