//! The loop that does nothing but send and receive: what a tick makes due goes out by `sendmmsg`, what has come back is
//! taken by `recvmmsg`, and then it sleeps until the next tick.

use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::{Load, Network, Window};
use crate::bench::pace::Account;

const BATCH: usize = 64;
const MESSAGE: usize = 36;

/// Answers are taken and counted, or never reach the socket.
pub(super) fn probe(load: &Load, hears: bool) -> anyhow::Result<Window> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).context("a raw socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
    // A bit that is set blocks its type (`ICMP_FILTER` of linux/icmp.h). On the loopback requests come in as well.
    let filter = if hears { !1_u32 } else { !0 };
    // SAFETY: the value is four readable bytes.
    let filtered = unsafe { libc::setsockopt(socket.as_raw_fd(), 255, 1, (&raw const filter).cast(), 4) };
    ensure!(filtered == 0, "ICMP_FILTER");
    let start = Instant::now();
    let warm_up = Duration::from_secs(1);
    let end = warm_up + Duration::from_secs(load.seconds.into());
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut opened = None;
    loop {
        let now = start.elapsed();
        if now >= end {
            break;
        }
        if opened.is_none() && now >= warm_up {
            opened = Some((Account::of_all(), now, sent, received));
        }
        let due = now.as_millis() as u64 * u64::from(load.rate) / 1_000;
        while sent < due {
            let first = sent % u64::from(load.rate);
            let count = (due - sent).min(BATCH as u64).min(u64::from(load.rate) - first);
            send(&socket, load.network, first as u32, count as usize)?;
            sent += count;
            received += if hears { receive(&socket)? } else { 0 };
        }
        received += if hears { receive(&socket)? } else { 0 };
        let next = Duration::from_millis(now.as_millis() as u64 + 1);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let (account, began, sent_before, received_before) = opened.context("the window opened")?;
    let (cpu, seconds) = (account.spent(), (start.elapsed() - began).as_secs_f64());
    ensure!(!hears || sent - received < sent / 100, "{received} replies to {sent} requests");
    let checks = if hears { received - received_before } else { sent - sent_before } as f64;
    Ok(Window { checks, named: checks, seconds, cpu })
}

fn send(socket: &OwnedFd, network: Network, first: u32, count: usize) -> anyhow::Result<()> {
    // Type 8, and a checksum that is right for it alone: the rest is zero.
    let mut message = [0_u8; MESSAGE];
    (message[0], message[2], message[3]) = (8, 0xF7, 0xFF);
    // SAFETY: C structures of numbers and pointers, for which zero is a value.
    let (mut names, mut headers): ([libc::sockaddr_in; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
    let mut slice = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: MESSAGE };
    for (index, (name, header)) in names.iter_mut().zip(&mut headers).take(count).enumerate() {
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_addr.s_addr = u32::from(network.target(first + index as u32)).to_be();
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_hdr.msg_iov = &raw mut slice;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers name addresses and a slice that live until after the call.
    let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, 0) };
    ensure!(done == count as i32, "sendmmsg: {done} of {count}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Takes what is there.
fn receive(socket: &OwnedFd) -> anyhow::Result<u64> {
    let mut total = 0;
    loop {
        let mut packets = [[0_u8; 128]; BATCH];
        // SAFETY: C structures of numbers and pointers, for which zero is a value.
        let (mut slices, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
        for ((packet, slice), header) in packets.iter_mut().zip(&mut slices).zip(&mut headers) {
            *slice = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header names its own slice, which names its own packet; all live until after the call.
        let count = unsafe {
            let none = std::ptr::null_mut();
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as libc::c_uint, libc::MSG_DONTWAIT, none)
        };
        let error = std::io::Error::last_os_error();
        match u64::try_from(count) {
            Ok(count) => total += count,
            Err(_) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(total),
            Err(_) => bail!("recvmmsg: {error}"),
        }
        if count < BATCH as i32 {
            return Ok(total);
        }
    }
}
