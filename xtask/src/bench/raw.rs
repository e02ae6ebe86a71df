//! The loop that does nothing but send and receive on a raw socket: what a tick makes due goes out by `sendmmsg`, what
//! has come back is taken by `recvmmsg`, and then it sleeps until the next tick.

use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::beside::Window;
use super::pace::Account;

const BATCH: usize = 64;

/// A raw socket that does not block.
pub(crate) fn open(protocol: SockProtocol) -> anyhow::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, protocol).context("a raw socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
    Ok(socket)
}

/// Sends `request`s number 0 to `rate` − 1 once a second, and counts what comes back where somebody `hears` it.
pub(crate) fn probe<const N: usize>(
    socket: &OwnedFd,
    rate: u32,
    seconds: u32,
    hears: bool,
    request: impl Fn(u32) -> (Ipv4Addr, [u8; N]),
) -> anyhow::Result<Window> {
    let rate = u64::from(rate);
    let start = Instant::now();
    let warm_up = Duration::from_secs(1);
    let end = warm_up + Duration::from_secs(seconds.into());
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
        let due = now.as_millis() as u64 * rate / 1_000;
        while sent < due {
            let count = (due - sent).min(BATCH as u64);
            let mut requests = [(Ipv4Addr::UNSPECIFIED, [0; N]); BATCH];
            for (number, place) in (sent..sent + count).zip(&mut requests) {
                *place = request((number % rate) as u32);
            }
            send(socket, &mut requests[..count as usize])?;
            sent += count;
            received += if hears { receive(socket)? } else { 0 };
        }
        received += if hears { receive(socket)? } else { 0 };
        let next = Duration::from_millis(now.as_millis() as u64 + 1);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let (account, began, sent_before, received_before) = opened.context("the window opened")?;
    let (cpu, seconds) = (account.spent(), (start.elapsed() - began).as_secs_f64());
    ensure!(!hears || sent - received < sent / 100, "{received} answers to {sent} requests");
    let checks = if hears { received - received_before } else { sent - sent_before } as f64;
    Ok(Window { checks, named: checks, seconds, cpu })
}

fn send<const N: usize>(socket: &OwnedFd, requests: &mut [(Ipv4Addr, [u8; N])]) -> anyhow::Result<()> {
    // SAFETY: C structures of numbers and pointers, for which zero is a value.
    let (mut names, mut headers): ([libc::sockaddr_in; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
    // SAFETY: as above.
    let mut slices: [libc::iovec; BATCH] = unsafe { zeroed() };
    let count = requests.len().min(BATCH);
    let places = names.iter_mut().zip(&mut slices).zip(&mut headers);
    for ((to, message), ((name, slice), header)) in requests.iter_mut().zip(places) {
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_addr.s_addr = u32::from(*to).to_be();
        *slice = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: N };
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers name addresses and slices, and these messages, that live until after the call.
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
