//! Handshakes by the kernel's clock, on real sockets: what a program stamps is what happened, however late we look.
//!
//! Needs the right to load programs; skips aloud without.

mod support;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use cpra::os::clock::Clock;
use cpra::os::ebpf::{Demand, Interfaces, Loaded, Mode, Settings, Signals};
use cpra::os::uring::{Options, UringRing};
use cpra::ring::{Errno, Family, Handshake, Op, Ring, Wait};
use cpra::units::{Generation, Instant, Slot, Span};

/// Slots with a ticket.
const TICKETS: u32 = 4;

/// The programs at the loopback and at the tracepoint, or a skip.
fn loaded(name: &str) -> Option<Box<Loaded>> {
    if !nix::unistd::geteuid().is_root() {
        support::skip(name, "only root may load eBPF programs");
        return None;
    }
    if !std::fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        support::skip(name, "this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)");
        return None;
    }
    let interfaces = Interfaces::named([Box::from("lo")]);
    let settings = Settings { mode: Mode::Require, interfaces, ..Settings::default() };
    let demand = Demand { shards: 2, slots: TICKETS, ports: (0, 0), seed: 0x5EED_1234 };
    match Signals::start(&settings, demand) {
        Ok(Signals::On(loaded)) => Some(loaded),
        Ok(_) => panic!("they are required"),
        Err(error) => panic!("{error}"),
    }
}

/// Rings of two shards.
fn rings(loaded: &mut Loaded) -> [UringRing; 2] {
    let mut signals = loaded.shards().into_iter();
    [(); 2].map(|()| {
        let mut ring = UringRing::new(Options::default()).expect("io_uring works here");
        let connects = signals.next().and_then(|mut signals| signals.connects());
        ring.time_connects(Some(connects.expect("the program is attached")));
        ring
    })
}

fn listening(on: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(on)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// What came of an operation that is looked at only after `late`, and how long it took until then.
fn done(ring: &mut UringRing, slot: Slot, op: &Op, late: Duration) -> (Result<u32, Errno>, Option<Handshake>, Instant) {
    ring.submit(slot, Generation(1), op, &[]);
    ring.enter(Wait::NONE).expect("the ring works");
    thread::sleep(late);
    let mut end = None;
    while end.is_none() {
        ring.enter(Wait { batch: 1, bound: Span::from_secs(5) }).expect("the ring works");
        ring.reap(&mut |completion| {
            if completion.kind == op.kind() {
                end = Some((completion.result, completion.handshake));
            }
        });
    }
    let (result, handshake) = end.expect("it has ended");
    (result, handshake, Clock.now())
}

const LATE: Duration = Duration::from_millis(50);

fn assert_quick(asked: Instant, handshake: Option<Handshake>, now: Instant) -> Handshake {
    let handshake = handshake.expect("it was stamped");
    assert!(asked <= handshake.sent && handshake.sent < handshake.stood && handshake.stood <= now, "{handshake:?}");
    assert!(now.since(asked) >= Span::from_millis(50), "by our own clock");
    assert!(handshake.took() < Span::from_millis(5), "on the loopback: {handshake:?}");
    handshake
}

#[test]
fn who_looks_late_is_told_when_it_was() {
    let Some(mut loaded) = loaded("who_looks_late_is_told_when_it_was") else { return };
    let [mut ring, mut other] = rings(&mut loaded);
    let (_listener, address) = listening("127.0.0.1:0").expect("room for a socket");
    let (shut, nobody) = listening("127.0.0.1:0").expect("room for a socket");
    drop(shut);
    let slot = Slot(1);
    for ring in [&mut ring, &mut other] {
        ring.open(slot, Family::V4).expect("a socket");
        let mut before = None;
        // The same socket, again and again.
        for _ in 0..3 {
            let asked = Clock.now();
            let (result, handshake, now) = done(ring, slot, &Op::Connect(address), LATE);
            assert_eq!(result, Ok(0));
            let handshake = assert_quick(asked, handshake, now);
            assert_ne!(before.replace(handshake), Some(handshake));
            assert_eq!(done(ring, slot, &Op::Disconnect, Duration::ZERO).1, None, "it is no connect");
        }
        let (result, handshake, _) = done(ring, slot, &Op::Connect(nobody), Duration::ZERO);
        assert_eq!((result, handshake), (Err(Errno::ECONNREFUSED), None));
        assert_eq!(done(ring, slot, &Op::Disconnect, Duration::ZERO).0, Ok(0));
    }
}

#[test]
fn a_slot_keeps_its_handshakes_when_its_socket_is_another() {
    let Some(mut loaded) = loaded("a_slot_keeps_its_handshakes_when_its_socket_is_another") else { return };
    let [mut ring, _] = rings(&mut loaded);
    let (_listener, address) = listening("127.0.0.1:0").expect("room for a socket");
    let Ok((_listener_v6, address_v6)) = listening("[::1]:0") else {
        return support::skip("a_slot_keeps_its_handshakes_when_its_socket_is_another", "this host has no IPv6");
    };
    let slot = Slot(0);
    for address in [address, address_v6, address] {
        ring.open(slot, Family::of(&address)).expect("a socket");
        let asked = Clock.now();
        let (result, handshake, now) = done(&mut ring, slot, &Op::Connect(address), LATE);
        assert_eq!(result, Ok(0));
        assert_quick(asked, handshake, now);
        assert_eq!(done(&mut ring, slot, &Op::Disconnect, Duration::ZERO).0, Ok(0));
        ring.close(slot);
    }
}

#[test]
fn slots_beyond_the_tickets_go_without() {
    let Some(mut loaded) = loaded("slots_beyond_the_tickets_go_without") else { return };
    let [mut ring, _] = rings(&mut loaded);
    let (_listener, address) = listening("127.0.0.1:0").expect("room for a socket");
    for (slot, is_stamped) in [(Slot(TICKETS - 1), true), (Slot(TICKETS), false)] {
        ring.open(slot, Family::V4).expect("a socket");
        let (result, handshake, _) = done(&mut ring, slot, &Op::Connect(address), Duration::ZERO);
        assert_eq!((result, handshake.is_some()), (Ok(0), is_stamped), "{slot:?}");
    }
}
