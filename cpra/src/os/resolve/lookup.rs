//! getaddrinfo(3) itself. The standard library's `ToSocketAddrs` calls it too, but tells "there is no such name" from
//! "the resolver did not answer" only in the text of its error; on that difference hangs whether a target is down.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use super::found;
use crate::shard::protocol::Resolution;

/// Glibc's, and missing in the libc crate: the name exists, but has no address.
const EAI_NODATA: libc::c_int = -5;

pub(super) fn look_up(name: &str) -> Resolution {
    let Ok(name) = CString::new(name) else { return Resolution::NotFound };
    // SAFETY: all zeroes is a valid addrinfo: integers, and null pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // Both families, whether or not this host has addresses of them now: it may have when the check runs. One
    // socket type, else each address would come three times.
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: the name ends with a zero, `hints` is as the call wants it, and both live until it returns.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    match code {
        0 => {}
        libc::EAI_NONAME | EAI_NODATA => return Resolution::NotFound,
        libc::EAI_SYSTEM => return Resolution::Failed(Errno::last().desc().into()),
        _ => {
            // SAFETY: gai_strerror returns a string that is never freed, for any number.
            let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
            return Resolution::Failed(text.to_string_lossy().into());
        }
    }
    let mut addresses = vec![];
    let mut next = list;
    // SAFETY: the call succeeded, so that `list` is a list of valid entries that ends with null and is ours until freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        addresses.extend(address(entry));
        next = entry.ai_next;
    }
    // SAFETY: the list came from getaddrinfo, is freed once, and nothing borrowed from it is left.
    unsafe { libc::freeaddrinfo(list) };
    if addresses.is_empty() { Resolution::NotFound } else { found(addresses) }
}

fn address(entry: &libc::addrinfo) -> Option<IpAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: the family says that the address is a sockaddr_in; it lives as long as its entry.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().as_ref() }?;
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().as_ref() }?;
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
