//! Source ports that nobody else on this host uses, and no socket ever listens on.
//!
//! A SYN that no socket has sent needs a source port at which the kernel finds nobody: then it answers the peer's SYN-ACK
//! with a reset, which is what ends our half-open connections. So the ports are bound, which keeps others from them, and
//! outside the range from which the kernel gives ports to those who connect. Nothing of the host's settings is changed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, setsockopt, socket, sockopt,
};

use crate::units::limits::SYN_PORTS;

/// Below it ports are for those who may.
const UNPRIVILEGED: u16 = 1_024;
/// Where the kernel says it nowhere.
const USUAL_RANGE: (u16, u16) = (32_768, 60_999);

/// The ports, for as long as this lives.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    /// Bound, and never used.
    _sockets: Vec<OwnedFd>,
}

impl Ports {
    /// Takes the first run of free ports above the range of those who connect, or else below it.
    ///
    /// # Errors
    /// When there is none; the kernel's last word about it.
    pub fn reserve() -> io::Result<Self> {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let range = range.as_deref().and_then(parse).unwrap_or(USUAL_RANGE);
        let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
        for first in runs(range) {
            match (0..SYN_PORTS).map(|n| bound(first + n)).collect::<io::Result<Vec<_>>>() {
                Ok(sockets) => return Ok(Self { first, _sockets: sockets.into_iter().flatten().collect() }),
                // Others may have some of the next run as well, but not all.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// The first, and how many.
    pub const fn range(&self) -> (u16, u16) {
        (self.first, SYN_PORTS)
    }
}

/// `32768 60999`.
fn parse(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// First ports of runs outside a range: the highest one first, as far as possible from what has a name.
fn runs((lowest, highest): (u16, u16)) -> impl Iterator<Item = u16> {
    let run = u32::from(SYN_PORTS);
    let of = move |begin: u32, end: u32| (0..end.saturating_sub(begin) / run).map(move |n| end - (n + 1) * run);
    let above = of(u32::from(highest) + 1, 1 << u16::BITS);
    let below = of(u32::from(UNPRIVILEGED), u32::from(lowest));
    above.chain(below).filter_map(|first| u16::try_from(first).ok())
}

/// One port in both families; in one where the host has no IPv6.
fn bound(port: u16) -> io::Result<Vec<OwnedFd>> {
    let v4 = bound_in(AddressFamily::Inet, &SockaddrIn::new(0, 0, 0, 0, port))?;
    match bound_in(AddressFamily::Inet6, &SockaddrIn6::from(std::net::SocketAddrV6::new([0; 16].into(), port, 0, 0))) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(error) if has_no_family(&error) => Ok(vec![v4]),
        Err(error) => Err(error),
    }
}

fn bound_in(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), address)?;
    Ok(socket)
}

fn has_no_family(error: &io::Error) -> bool {
    use nix::errno::Errno::{EADDRNOTAVAIL, EAFNOSUPPORT};
    error.raw_os_error().is_some_and(|errno| errno == EAFNOSUPPORT as i32 || errno == EADDRNOTAVAIL as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lie_outside_the_range() {
        let first_of = |range| runs(range).next();
        assert_eq!(first_of((32_768, 60_999)), Some(65_520));
        assert_eq!(first_of((1_024, 65_535)), None, "all ports are given to those who connect");
        assert_eq!(first_of((32_768, 65_535)), Some(32_752));
        assert_eq!(first_of((32_768, 65_520)), Some(32_752), "fifteen are too few");
        assert_eq!(first_of((32_768, 65_519)), Some(65_520));
        for range in [(32_768, 60_999), (1_100, 65_000), (1, 2_000), (20_000, 65_535)] {
            for first in runs(range) {
                let last = first + (SYN_PORTS - 1);
                assert!(first >= UNPRIVILEGED && (last < range.0 || first > range.1), "{first} of {range:?}");
            }
        }
    }

    #[test]
    fn a_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(parse("32768"), None);
        assert_eq!(parse("a b"), None);
    }

    #[test]
    fn what_is_reserved_is_nobody_elses() {
        let mine = Ports::reserve().expect("there are free ports");
        let (first, count) = mine.range();
        for port in (0..count).map(|n| first + n) {
            assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err(), "{port}");
            let refused = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused), "nobody listens on {port}");
        }
        let other = Ports::reserve().expect("there are more");
        assert!(other.range().0.abs_diff(first) >= count, "{other:?} beside {mine:?}");
        drop((mine, other));
    }
}
