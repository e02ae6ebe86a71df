//! A host to be checked that has as many addresses as one likes: a network namespace of its own at the other end of a veth
//! pair. It is a process that does nothing: the kernel answers, in the softirq of whoever sends, and so on the prober's
//! account, as on the loopback.

use std::io::BufRead as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

use super::child::{self, Process};

/// Our end of the pair, and its addresses.
pub(crate) const INTERFACE: &str = "near";
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NEAR_MAC: &str = "02:00:00:00:00:01";
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const GATEWAY_MAC: &str = "02:00:00:00:00:02";
/// All of these are the other end's.
pub(crate) const TARGETS: &str = "10.64.0.0/12";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Something listens on this port of each of them, and nothing on the next one.
pub(crate) const PORT: u16 = 7001;

/// The address of a target.
pub(crate) fn target(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + index)
}

/// The other end, for as long as this value lives.
pub(crate) struct Far {
    _process: Process,
}

impl Far {
    /// Joins a new namespace to the one that this process is in.
    ///
    /// # Errors
    /// Without the right to make namespaces and links.
    pub(crate) fn join() -> anyhow::Result<Self> {
        let mut process = Process::own(&["far".to_owned()])?;
        ensure!(process.line()? == "made", "the other end has no namespace of its own");
        let id = process.id();
        ip(&format!(
            "link add {INTERFACE} address {NEAR_MAC} type veth peer name far address {GATEWAY_MAC} netns {id}"
        ))?;
        process.tell("joined")?;
        ensure!(process.line()? == "ready", "the other end is not ready");
        ip(&format!("address add {NEAR}/30 dev {INTERFACE}"))?;
        ip(&format!("link set {INTERFACE} up"))?;
        ip(&format!("neighbour replace {GATEWAY} lladdr {GATEWAY_MAC} nud permanent dev {INTERFACE}"))?;
        ip(&format!("route add {TARGETS} via {GATEWAY}"))?;
        Ok(Self { _process: process })
    }
}

/// The other end itself.
pub(crate) fn run() -> anyhow::Result<()> {
    child::die_with_parent()?;
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    println!("made");
    let mut lines = std::io::stdin().lock().lines();
    ensure!(lines.next().transpose()?.as_deref() == Some("joined"), "nobody joined us");
    ip("link set lo up")?;
    ip(&format!("address add {GATEWAY}/30 dev far"))?;
    ip("link set far up")?;
    ip(&format!("neighbour replace {NEAR} lladdr {NEAR_MAC} nud permanent dev far"))?;
    ip(&format!("route add local {TARGETS} dev lo"))?;
    // Nobody accepts: half-open checks come to no connection.
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    println!("ready");
    for line in lines {
        line?;
    }
    Ok(())
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("ip (package iproute2)")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
