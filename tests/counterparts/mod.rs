//! Counterparts: the real servers, and a few bad ones, that checks are tried on.
//!
//! Each listens on free loopback ports, lives as long as its value, and leaves nothing behind. A counterpart whose
//! package is missing is skipped aloud, and its `start` gives `None`.

#![allow(dead_code, reason = "each test that includes this uses its own part of it")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

pub mod alertmanager;
pub mod authority;
pub mod dns;
pub mod engine;
pub mod exporter;
pub mod haproxy;
pub mod mailhost;
pub mod net;
pub mod nginx;
pub mod nsd;
pub mod postbox;
pub mod process;
pub mod programs;
pub mod provider;
pub mod raw;
pub mod responder;
pub mod secured;
pub mod site;
pub mod tinyproxy;
pub mod vendors;

#[path = "../support/mod.rs"]
pub mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use support::skip;

/// A program of a Debian package, or a skip.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = find_program(name);
    if found.is_none() {
        skip(name, "not installed");
    }
    found
}

fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"]
        .into_iter()
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| path.exists())
}

/// The loopback addresses of this host.
pub fn loopbacks() -> Vec<IpAddr> {
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    both.into_iter().filter(|&address| TcpListener::bind((address, 0)).is_ok()).collect()
}

/// `::1`, or a skip.
pub fn loopback_v6() -> Option<IpAddr> {
    let found = loopbacks().into_iter().find(IpAddr::is_ipv6);
    if found.is_none() {
        skip("::1", "this host has no IPv6 loopback");
    }
    found
}

/// A port on which nobody listens, on any loopback address.
///
/// Not one of the kernel's own choice: those are source ports, too. A client that polls such a port before the server
/// listens can end up connected to itself, and keeps the server from binding.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let addresses = loopbacks();
    // Test processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|&port| addresses.iter().all(|&address| TcpListener::bind(SocketAddr::new(address, port)).is_ok()))
        .expect("a free port among twenty thousand")
}

/// `127.0.0.1:80`, `[::1]:80`, as the configuration files of servers want them.
pub fn listen_addresses(port: u16) -> Vec<SocketAddr> {
    loopbacks().into_iter().map(|address| SocketAddr::new(address, port)).collect()
}
