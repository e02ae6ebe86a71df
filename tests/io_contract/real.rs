//! The contract on the kernel, and what only the kernel's ring has.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use cpra::os::clock::Clock;
use cpra::os::uring::{Options, UringRing};
use cpra::ring::{Completion, Errno, Family, Op, OpKind, Ring, Wait};
use cpra::units::{Generation, Slot, Span};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::deck::Deck;
use crate::rig::{Behaviour, Rig, skip};
use crate::{contract, servers};

struct RealRig {
    ring: UringRing,
    nofile: Option<(u64, u64)>,
}

impl RealRig {
    fn new() -> Self {
        Self::with_units_of(Options::default().unit_slots)
    }

    fn with_units_of(unit_slots: u32) -> Self {
        let options = Options { unit_slots, ..Options::default() };
        Self { ring: UringRing::new(options).expect("io_uring works here"), nofile: None }
    }
}

impl Rig for RealRig {
    type Ring = UringRing;

    fn ring(&mut self) -> &mut UringRing {
        &mut self.ring
    }

    fn target(&mut self, family: Family, behaviour: Behaviour) -> Result<SocketAddr, String> {
        servers::start(family, behaviour).map_err(|error| error.to_string())
    }

    /// Only in a process of its own: the limit is the whole process's.
    fn starve(&mut self, on: bool) -> Result<(), String> {
        let set = |soft, hard| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|error| error.to_string());
        if on {
            let limits = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
            self.nofile = Some(limits);
            set(0, limits.1)
        } else {
            self.nofile.take().map_or(Ok(()), |(soft, hard)| set(soft, hard))
        }
    }
}

contract!(RealRig::new());

/// The same traffic with a few slots to each io_uring instance.
mod small_units {
    use super::*;

    contract!(@each RealRig::with_units_of(7),
        receive_pending_at_disconnect,
        disconnect_races_connect,
        blackholed,
        many_large_receives,
        mixed_traffic,
    );
}

#[test]
fn open_failing() {
    const CHILD: &str = "CPRA_IO_CONTRACT_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return crate::cases::open_failing(RealRig::new());
    }
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["real::open_failing", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .status()
        .expect("this test runs again");
    assert!(status.success());
}

/// How long a wait of up to 30 s took.
fn sleep_in(ring: &mut UringRing) -> Span {
    let start = Clock.now();
    ring.enter(Wait { batch: 1, bound: Span::from_secs(30) }).expect("the ring works");
    Clock.now().since(start)
}

#[test]
fn an_eventfd_ends_the_sleep() {
    let mut rig = RealRig::new();
    let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).expect("an eventfd");
    rig.ring.watch(eventfd.as_fd()).expect("watched");
    thread::scope(|scope| {
        for delay in [0, 200, 0, 200] {
            let eventfd = &eventfd;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(delay));
                eventfd.write(1).expect("written");
            });
            assert!(sleep_in(&mut rig.ring) < Span::from_secs(20));
            assert!(!rig.ring.take_woken());
            rig.ring.reap(&mut |completion| panic!("{completion:?}"));
            assert!(rig.ring.take_woken());
            assert!(!rig.ring.take_woken());
        }
    });
    // It was reset each time: without a write, the sleep lasts.
    let start = Clock.now();
    rig.ring.enter(Wait { batch: 1, bound: Span::from_secs(2) }).expect("the ring works");
    assert!(Clock.now().since(start) > Span::from_secs(1));
}

/// We sleep in the first unit; what happens in another one must end the sleep, time and again.
#[test]
fn a_completion_in_another_unit_ends_the_sleep() {
    let mut deck = Deck::new("a_completion_in_another_unit_ends_the_sleep", RealRig::with_units_of(4));
    let Some(echo) = deck.target(Behaviour::SlowEcho) else { return };
    (0..12).for_each(|slot| deck.open(slot));
    assert_eq!(deck.rig.ring.units(), 3);
    let start = Clock.now();
    for slot in [5, 11] {
        assert_eq!(deck.connect(slot, 1, echo), Ok(0));
        deck.submit(slot, 1, &Op::Recv, &[]);
    }
    for round in 1..=20 {
        for slot in [5, 11] {
            deck.submit(slot, 1, &Op::Send, b"ping");
            while deck.received(slot, 1).len() < round * 4 || deck.pending() > 2 {
                deck.turn(Wait { batch: 1, bound: Span::from_secs(30) });
            }
        }
    }
    assert!(Clock.now().since(start) < Span::from_secs(20));
    deck.disconnect(5, 1);
    deck.disconnect(11, 1);
}

/// More completions at once than the completion queue holds: the kernel keeps the rest, and none is lost.
#[test]
fn a_full_completion_queue_loses_nothing() {
    const SLOTS: u32 = 12_000;
    let mut deck = Deck::new("a_full_completion_queue_loses_nothing", RealRig::new());
    (0..SLOTS).for_each(|slot| deck.open(slot));
    for generation in 1..=2 {
        // All of these end at once, for want of a connection: 36,000 for a queue of 32,768.
        for slot in 0..SLOTS {
            deck.submit(slot, generation, &Op::Send, b"x");
            deck.submit(slot, generation, &Op::Recv, &[]);
            deck.submit(slot, generation, &Op::Disconnect, &[]);
        }
        deck.turn(Wait::NONE);
        assert_eq!((deck.pending(), deck.ends.len()), (0, 3 * SLOTS as usize), "one reap gives all that is there");
        deck.ends.clear();
    }
}

/// "No route" is told apart: ours when this host has none, the network's when a neighbour does not answer.
#[test]
fn unreachable_here_or_there() {
    let name = "unreachable_here_or_there";
    // Of this thread only, and gone with it.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(name, &format!("no network namespace ({error})"));
    }
    let ip = |arguments: &str| {
        let done = Command::new("ip").args(arguments.split(' ')).status();
        done.map_err(|error| error.to_string())
            .and_then(|status| if status.success() { Ok(()) } else { Err(arguments.to_owned()) })
    };
    let steps = [
        "link set lo up",
        "link add left type veth peer name right",
        "addr add 192.0.2.1/24 dev left",
        "link set left up",
        "link set right up",
    ];
    if let Err(reason) = steps.iter().try_for_each(|step| ip(step)) {
        return skip(name, &format!("ip {reason}"));
    }
    let mut ring = RealRig::new().ring;
    ring.open(Slot(0), Family::V4).expect("a socket");
    let cases = [
        ("198.51.100.1:80", Errno::ENETUNREACH, true),
        ("192.0.2.77:80", Errno::EHOSTUNREACH, false),
        ("198.51.100.1:80", Errno::ENETUNREACH, true),
    ];
    for (target, errno, local) in cases {
        ring.submit(Slot(0), Generation(1), &Op::Connect(target.parse().expect("an address")), &[]);
        let mut ends = Vec::new();
        for _ in 0..400 {
            if ends.is_empty() {
                ring.enter(Wait { batch: 1, bound: Span::from_millis(50) }).expect("the ring works");
                ring.reap(&mut |Completion { kind, result, local, .. }| ends.push((kind, result, local)));
            }
        }
        assert_eq!(ends, [(OpKind::Connect, Err(errno), local)], "{target}");
    }
}
