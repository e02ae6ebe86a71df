//! The doors to the operating system: everything that reads a clock, opens a socket or asks the kernel something.
//!
//! `shard_loop` and `desk_loop` drive the two machines; `solo` lets the first make single checks without the second.
//! `uring` is the network of the shards, `wait` says how long a shard may sleep in it, `ping` carries its echo requests,
//! `ebpf` is what the kernel itself sees of them,
//! `wake` is the door that queues knock at, `lane` runs the futures that deliver notices, `web` speaks HTTP for them, `resolve` turns names into
//! addresses, `spawn` runs scripts, `clock` is the only reader of clocks, `host` counts what this machine itself does to
//! packets, `histograms` writes down what the pipelines measure, `limits` and `preflight` say before the start what it can
//! bear, `privilege` keeps of root's powers what is needed, `user` knows whom a name stands for, `ebpf` are programs in the
//! kernel, `local` is the unix socket of the command line, `logging`, `story` and `stream` write to people. `unsafe` lives
//! here and nowhere above.

pub mod clock;
pub mod desk_loop;
pub mod ebpf;
pub mod histograms;
pub mod host;
pub mod lane;
pub mod limits;
pub mod local;
pub mod logging;
pub mod ping;
pub mod preflight;
pub mod privilege;
pub mod resolve;
pub mod shard_loop;
pub mod signals;
pub mod solo;
pub mod spawn;
pub mod story;
pub mod stream;
pub mod supervisor;
pub mod syn;
pub mod tls;
pub mod uring;
pub mod user;
pub mod wait;
pub mod wake;
pub mod web;

use std::net::IpAddr;

use nix::sys::socket::SockaddrStorage;

use crate::ring::Errno;

/// As the rooms below know it.
fn errno(error: nix::errno::Errno) -> Errno {
    Errno(error as i32)
}

fn address_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}
