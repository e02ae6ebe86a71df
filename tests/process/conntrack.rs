//! A host whose connection tracking is full: live targets look dead, and nobody may be told that they are.
//!
//! It happens in a network namespace that lives as long as the test's thread and the daemon. The size of the table is
//! the whole host's and is left alone; the table is filled over netlink with established connections that never were,
//! which takes seconds (as many real ones would take half a minute), and is emptied in the same way.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

use super::counterparts::support;
use super::daemon::{PATIENCE, Setup, eventually};
use super::targets::{Targets, file, http, tcp};

/// Beyond this the filling would take too long.
const TABLE_MAX: usize = 1_500_000;
const MONITORS: usize = 40;

#[test]
fn a_full_connection_table_is_our_own_fault() {
    // A thread of its own: it leaves the network of the others.
    let outcome = thread::spawn(inside).join().expect("the test itself");
    if let Err(reason) = outcome {
        support::skip("a_full_connection_table_is_our_own_fault", &reason);
    }
}

/// `Err` says what this machine lacks.
fn inside() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root for a network namespace".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
    run("ip", &["link", "set", "lo", "up"], "")?;
    let setup = Setup::new();
    let port = setup.api().port();
    // Connections are tracked from the first rule that asks for their state; those to the daemon's own API are not, so
    // that the test can look on.
    let rules = format!(
        "table inet cpra_test {{\n\
           chain out {{ type filter hook output priority raw; policy accept; tcp dport {port} notrack; tcp sport {port} notrack; }}\n\
           chain in {{ type filter hook prerouting priority raw; policy accept; tcp dport {port} notrack; tcp sport {port} notrack; }}\n\
           chain states {{ type filter hook output priority filter; policy accept; ct state new accept; }}\n\
         }}\n"
    );
    run("nft", &["-f", "-"], &rules)?;
    let max = read("nf_conntrack_max")?;
    if max == 0 || max > TABLE_MAX {
        return Err(format!("its connection table holds {max} entries"));
    }
    let mut table = Table::open().map_err(|error| format!("no netlink access to connection tracking: {error}"))?;

    let targets = Targets::start(4, Duration::ZERO);
    let mut monitors = String::new();
    for n in 0..MONITORS {
        let address = targets.addresses[n % 4];
        let _ = monitors.write_str(&if n % 2 == 0 {
            http(&format!("m/{n}"), address)
        } else {
            tcp(&format!("m/{n}"), address)
        });
    }
    let pulse = "interval: 1s, timeout: 500ms, unhealthy_threshold: 1, healthy_threshold: 1";
    let mut cpra = setup.monitors(&file(pulse, &monitors)).run();
    eventually("all are up", || cpra.metrics().state("up") == MONITORS as f64);

    let began = Instant::now();
    table.fill(max);
    println!("{} of {max} entries after {:?}", read("nf_conntrack_count")?, began.elapsed());
    let began = Instant::now();
    let seen = |outcome: &str| cpra.metrics().outcomes(outcome);
    while seen("VOID:CONNTRACK") < 3.0 * MONITORS as f64 {
        assert!(began.elapsed() < PATIENCE, "no timeouts: {:?}", cpra.metrics());
        thread::sleep(Duration::from_millis(200));
        // What the daemon left behind before expires by and by, and makes room for a connection.
        table.fill(max);
    }
    let void = seen("VOID:CONNTRACK");
    assert_eq!(cpra.metrics().failures(), [], "{}", cpra.said());
    assert_eq!(cpra.metrics().state("up"), MONITORS as f64, "what cannot be judged keeps its state");

    table.clear();
    let good = || seen("L4OK") + seen("L7OK");
    let before = good();
    eventually("targets are seen again", || good() >= before + 2.0 * MONITORS as f64);
    let metrics = cpra.metrics();
    println!("void {void}, then {} good; {} void in all", good() - before, metrics.outcomes("VOID:CONNTRACK"));
    assert_eq!((metrics.failures(), metrics.state("up"), metrics.notices()), (vec![], MONITORS as f64, 0.0));
    assert!(!cpra.path("notices.jsonl").exists(), "{}", cpra.text("notices.jsonl"));
    let story = cpra.stdout();
    assert!(!story.contains("RED") && !story.contains("YELLOW"), "{story}");

    // With room in the table a dead target is dead: nothing was learnt that forgives everything.
    drop(targets);
    eventually("the dead are down", || cpra.metrics().state("down") == MONITORS as f64);
    assert!(cpra.is_running());
    Ok(())
}

fn read(name: &str) -> Result<usize, String> {
    // Of the namespace of the thread that asks.
    let text =
        fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).map_err(|error| format!("no {name}: {error}"))?;
    text.trim().parse().map_err(|error| format!("{name}: {error}"))
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    child.stdin.take().expect("it is a pipe").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The connection table of this thread's network namespace, over netlink (linux/netfilter/nfnetlink_conntrack.h).
struct Table {
    socket: OwnedFd,
    next: u32,
}

const NEW: u16 = 0x0100;
const DELETE: u16 = 0x0102;
/// `NLM_F_REQUEST`, `_ACK`, `_EXCL`, `_CREATE`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

impl Table {
    fn open() -> nix::Result<Self> {
        let table = Self { socket: netlink()?, next: 1 };
        acknowledged(&table.socket, &message(NEW, REQUEST | ACK | EXCLUSIVE | CREATE, &connection(0)))?;
        acknowledged(&table.socket, &message(DELETE, REQUEST | ACK, &[]))?;
        Ok(table)
    }

    /// Adds entries until there is no room. They count as assured, so that none is given up for a newcomer.
    fn fill(&mut self, max: usize) {
        while let count = read("nf_conntrack_count").expect("it was there before")
            && count < max
        {
            assert!(self.next < 1 << 24, "the table does not fill");
            let mut batch = Vec::with_capacity(64 * 1024);
            // The last few one by one: what does not fit is answered, and answers cost.
            for _ in 0..(max - count).min(400) {
                batch.extend(message(NEW, REQUEST | EXCLUSIVE | CREATE, &connection(self.next)));
                self.next += 1;
            }
            socket::send(self.socket.as_raw_fd(), &batch, MsgFlags::empty()).expect("netlink takes a batch");
        }
    }

    fn clear(&mut self) {
        // Answers to what did not fit may lie before the acknowledgement: a fresh socket has none.
        self.socket = netlink().expect("it could be had before");
        acknowledged(&self.socket, &message(DELETE, REQUEST | ACK, &[])).expect("all can be deleted");
    }
}

fn netlink() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a message that asks for an acknowledgement, and waits for it.
fn acknowledged(socket: &OwnedFd, message: &[u8]) -> nix::Result<()> {
    socket::send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0; 4_096];
    let count = socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // After the header, an error number; 0 is an acknowledgement.
    let errno = answer[..count].get(16..20).map_or(0, |bytes| i32::from_ne_bytes(bytes.try_into().expect("four")));
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw(-errno)) }
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).expect("a short message");
    let mut bytes = Vec::with_capacity(20 + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    // The family, the version, a number nobody needs.
    bytes.extend([if attributes.is_empty() { 0 } else { 2 }, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + data.len());
    bytes.extend(u16::try_from(4 + data.len()).expect("a short attribute").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An established TCP connection, number `n`, that stays for ten minutes.
fn connection(n: u32) -> Vec<u8> {
    let [_, a, b, c] = n.to_be_bytes();
    let (near, far) = ([10, 9, 8, 7], [10, 200, a, b]);
    let (low, high) = ([0, 80], [c, 1]);
    let tuple = |kind: u16, source: [u8; 4], to: [u8; 4], from_port: [u8; 2], to_port: [u8; 2]| {
        let addresses = [attribute(1, &source), attribute(2, &to)].concat();
        let ports = [attribute(1, &[6]), attribute(2, &from_port), attribute(3, &to_port)].concat();
        attribute(kind | NESTED, &[attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &ports)].concat())
    };
    let established = attribute(1 | NESTED, &attribute(1, &[3]));
    [
        tuple(1, near, far, high, low),
        tuple(2, far, near, low, high),
        // Seen in both directions, assured, confirmed.
        attribute(3, &0b1110_u32.to_be_bytes()),
        attribute(7, &600_u32.to_be_bytes()),
        attribute(4 | NESTED, &established),
    ]
    .concat()
}
