//! Many packets by one call: `sendmmsg` and `recvmmsg`, which a system call per packet would double the cost of.

use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use nix::libc;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use crate::ring::Errno;
use crate::units::limits::ECHO_BATCH;
use crate::wire::icmp::MESSAGE;

/// A message on its way out.
pub(in crate::os) struct Departure<const N: usize = MESSAGE> {
    address: SockaddrStorage,
    message: [u8; N],
    length: usize,
}

impl<const N: usize> Departure<N> {
    pub(in crate::os) fn new(address: IpAddr, message: [u8; N]) -> Self {
        Self::cut(address, message, N)
    }

    /// Of the message the first `length` bytes.
    pub(in crate::os) fn cut(address: IpAddr, message: [u8; N], length: usize) -> Self {
        Self { address: SocketAddr::new(address, 0).into(), message, length: length.min(N) }
    }
}

/// Hands over the first of the messages, at most [`ECHO_BATCH`] and at least one; answers how many the kernel took. An
/// error is about the first one.
pub(in crate::os) fn send<'a, const N: usize>(
    socket: BorrowedFd<'_>,
    departures: impl IntoIterator<Item = &'a Departure<N>>,
) -> Result<usize, Errno> {
    // SAFETY: both are C structures of numbers and pointers, for which zero is a value: nothing, of length 0.
    let (mut slices, mut headers): ([libc::iovec; ECHO_BATCH], [libc::mmsghdr; ECHO_BATCH]) = unsafe { zeroed() };
    let mut named = 0;
    for ((slice, header), departure) in slices.iter_mut().zip(&mut headers).zip(departures) {
        // The kernel only reads what it sends.
        slice.iov_base = departure.message.as_ptr().cast_mut().cast();
        slice.iov_len = departure.length;
        header.msg_hdr.msg_name = departure.address.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = departure.address.len();
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        named += 1;
    }
    loop {
        // SAFETY: the first `named` headers name addresses, which live as long as the borrowed departures, and slices of
        // messages there, which live in `slices` until after the call, all with their true lengths; no control data is
        // named.
        let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), named, libc::MSG_DONTWAIT) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count.max(1)),
            Err(_) if nix::errno::Errno::last() == nix::errno::Errno::EINTR => {}
            Err(_) => return Err(crate::os::errno(nix::errno::Errno::last())),
        }
    }
}

/// What leaves is never cut into fragments, and so needs no identification (RFC 6864 §4.1): the kernel would draw one for
/// every packet, a twentieth of all that a check costs. No link is too narrow for a request.
pub(super) fn unfragmented(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: the kernel reads as many bytes as the value has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(crate::os::errno(nix::errno::Errno::last())) }
}

/// A longest IPv4 header and a reply are 96 bytes; what is longer is none of ours, and may be cut.
const PACKET_MAX: usize = 128;
/// A receive time: a `cmsghdr` and a `timespec`, with their padding, fit.
const CONTROL_MAX: usize = 64;

/// Room for one batch of received packets, reused from call to call.
pub(in crate::os) struct Arrivals {
    packets: [[u8; PACKET_MAX]; ECHO_BATCH],
    /// As `u64`, because control messages want alignment.
    controls: [[u64; CONTROL_MAX / 8]; ECHO_BATCH],
    names: [MaybeUninit<libc::sockaddr_in6>; ECHO_BATCH],
    lengths: [usize; ECHO_BATCH],
    name_lengths: [libc::socklen_t; ECHO_BATCH],
    control_lengths: [usize; ECHO_BATCH],
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            packets: [[0; PACKET_MAX]; ECHO_BATCH],
            controls: [[0; CONTROL_MAX / 8]; ECHO_BATCH],
            names: [MaybeUninit::zeroed(); ECHO_BATCH],
            lengths: [0; ECHO_BATCH],
            name_lengths: [0; ECHO_BATCH],
            control_lengths: [0; ECHO_BATCH],
        }
    }
}

/// One received packet.
pub(in crate::os) struct Arrival<'a> {
    pub(in crate::os) bytes: &'a [u8],
    pub(in crate::os) from: Option<IpAddr>,
    /// When the kernel received it, on the wall clock.
    pub(in crate::os) wall_nanos: Option<i64>,
}

impl Arrivals {
    /// The first `count` packets of the last call.
    pub(in crate::os) fn take(&self, count: usize) -> impl Iterator<Item = Arrival<'_>> {
        (0..count.min(ECHO_BATCH)).map(|index| Arrival {
            bytes: &self.packets[index][..self.lengths[index].min(PACKET_MAX)],
            from: self.from(index),
            wall_nanos: self.wall_nanos(index),
        })
    }

    fn from(&self, index: usize) -> Option<IpAddr> {
        let name = self.names[index].as_ptr();
        // SAFETY: the memory was zeroed when it was made and is the size of the largest address that these sockets have;
        // the length is what the kernel wrote of it. nix looks at the family before it reads the rest.
        let address = unsafe { SockaddrStorage::from_raw(name.cast(), Some(self.name_lengths[index])) }?;
        crate::os::address_of(&address)
    }

    /// The control messages hold at most a receive time.
    fn wall_nanos(&self, index: usize) -> Option<i64> {
        let control = &self.controls[index];
        let length = self.control_lengths[index].min(CONTROL_MAX);
        if length < size_of::<libc::cmsghdr>() + size_of::<libc::timespec>() {
            return None;
        }
        // SAFETY: the buffer is aligned for it, long enough for header and time (checked above), and was zeroed when it
        // was made, so that all of it is initialised. Any bits are a value of these structures.
        let (header, time) = unsafe {
            let header = control.as_ptr().cast::<libc::cmsghdr>();
            let data = header.add(1).cast::<libc::timespec>();
            (header.read(), data.read_unaligned())
        };
        let is_time = header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_TIMESTAMPNS;
        is_time.then(|| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
    }
}

/// Takes at most [`ECHO_BATCH`] packets that are there; answers how many.
pub(in crate::os) fn receive(socket: BorrowedFd<'_>, arrivals: &mut Arrivals) -> Result<usize, Errno> {
    // SAFETY: both are C structures of numbers and pointers, for which zero is a value: nothing, of length 0.
    let (mut slices, mut headers): ([libc::iovec; ECHO_BATCH], [libc::mmsghdr; ECHO_BATCH]) = unsafe { zeroed() };
    for (index, (slice, header)) in slices.iter_mut().zip(&mut headers).enumerate() {
        slice.iov_base = arrivals.packets[index].as_mut_ptr().cast();
        slice.iov_len = PACKET_MAX;
        header.msg_hdr.msg_name = arrivals.names[index].as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = arrivals.controls[index].as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = CONTROL_MAX as _;
    }
    let count = loop {
        // SAFETY: every header names its own packet, address and control buffer in `arrivals`, with their true
        // lengths, and its own slice; all of them live until after the call, and nothing else uses them meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                ECHO_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => break count,
            Err(_) if nix::errno::Errno::last() == nix::errno::Errno::EINTR => {}
            Err(_) => return Err(crate::os::errno(nix::errno::Errno::last())),
        }
    };
    for (index, header) in headers.iter().take(count).enumerate() {
        arrivals.lengths[index] = header.msg_len as usize;
        arrivals.name_lengths[index] = header.msg_hdr.msg_namelen;
        #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
        let control = header.msg_hdr.msg_controllen as usize;
        arrivals.control_lengths[index] = control;
    }
    Ok(count)
}

/// Packets that the socket had no room for, as the kernel counts them; `None` where it does not tell.
pub(in crate::os) fn drops(socket: BorrowedFd<'_>) -> Option<u32> {
    /// `SK_MEMINFO_DROPS` of linux/sock_diag.h: the last of nine.
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `numbers`, and says how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of_val(&numbers)).then_some(numbers[DROPS])
}
