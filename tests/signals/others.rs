//! Other programs at the same interfaces, other daemons, and the host's own echo requests.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use cpra::os::ebpf::Hook;
use cpra_common::Count;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::counterparts::engine::Backend;
use super::counterparts::net::{Net, isolated, nft, tc};
use super::counterparts::program;
use super::counterparts::programs::{CLSACT, NONE, Ours, TCX, XDP, filters, ours};
use super::{assert_code, assert_heard, await_targets, count, engine};

const TARGETS: [&str; 4] = ["10.78.0.1", "fd78::1", "127.0.0.1", "::1"];

/// Each takes what is its own, and nothing of the other's.
#[test]
fn two_daemons_on_a_host_do_not_meet() {
    isolated("two_daemons_on_a_host_do_not_meet", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        // XDP has room for one: the second one's way in is the other hook.
        let second_beside_xdp = Ours { tcx: 3, ..XDP };
        for (hooks, at) in [
            ([Hook::Auto, Hook::Auto], Ours { tcx: 4, ..NONE }),
            ([Hook::Auto, Hook::Clsact], Ours { clsact: 2, ..TCX }),
            ([Hook::Clsact, Hook::Auto], Ours { clsact: 2, ..TCX }),
            ([Hook::Clsact, Hook::Clsact], Ours { clsact: 4, ..NONE }),
            ([Hook::Xdp, Hook::Auto], second_beside_xdp),
            ([Hook::Xdp, Hook::Xdp], second_beside_xdp),
        ] {
            let [mut first, mut second] = hooks.map(|hook| engine(hook, &TARGETS));
            assert_eq!(ours("a0"), Some(at), "{hooks:?}");
            for _ in 0..3 {
                assert_heard(&mut first);
                assert_heard(&mut second);
            }
            for engine in [&first, &second] {
                assert_eq!((count(engine, Count::Returned), count(engine, Count::Strange)), (12, 0), "{hooks:?}");
                assert_eq!(engine.pinger.stats().received, 0, "{hooks:?}");
            }
            drop(first);
            assert_heard(&mut second);
        }
        Ok(())
    });
}

/// Takes everything, so that no filter behind it is asked.
const LAST_WORD: &str = "bpf bytecode \"1,6 0 0 4294967295\" flowid 1:1";

/// Somebody's clsact with filters, before us and after us. They stay as they are, and we do not need them to be gone.
#[test]
fn filters_of_others_stay() {
    isolated("filters_of_others_stay", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        let ping = program("ping").ok_or("no ping")?;
        let theirs = || filters("a0").lines().filter(|line| line.contains("flowid 1:1")).count();
        tc("qdisc add dev a0 clsact")?;
        tc(&format!(
            "filter add dev a0 ingress protocol all prio 5 {LAST_WORD}
             filter add dev a0 egress protocol all prio 5 {LAST_WORD}"
        ))?;
        for (hook, at) in [(Hook::Auto, TCX), (Hook::Clsact, CLSACT), (Hook::Xdp, XDP)] {
            let mut engine = engine(hook, &["10.78.0.1", "fd78::1"]);
            println!("{hook:?}");
            await_targets(&mut engine);
            assert_eq!((ours("a0"), theirs()), (Some(at), 2), "{hook:?}: {}", filters("a0"));
            assert_heard(&mut engine);
            tc(&format!("filter add dev a0 ingress protocol all prio 1 {LAST_WORD}"))?;
            if hook == Hook::Clsact {
                // It wanted to be in front of us, and so nothing is heard: the sockets tell.
                let (answers, heard) = (engine.answers(), engine.heard());
                for outcome in engine.check_all() {
                    assert_code(&outcome, "L3OK");
                }
                assert_eq!((engine.answers(), engine.heard()), (answers + 2, heard));
            } else {
                assert_heard(&mut engine);
            }
            let output =
                Command::new(&ping).args(["-q", "-f", "-c", "200", "10.78.0.1"]).output().expect("it is there");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(" 0% packet loss"), "{hook:?}: {said}");
            drop(engine);
            assert_eq!((ours("a0"), theirs()), (Some(NONE), 3), "{hook:?}: {}", filters("a0"));
            tc("filter del dev a0 ingress protocol all prio 1")?;
        }
        Ok(())
    });
}

/// Who drops every echo reply behind us takes none of ours away, and all of the host's.
#[test]
fn a_firewall_behind_us_sees_only_the_hosts_own() {
    isolated("a_firewall_behind_us_sees_only_the_hosts_own", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        let ping = program("ping").ok_or("no ping")?;
        nft("table netdev t {
               chain ingress {
                 type filter hook ingress device a0 priority 0; policy accept;
                 icmp type echo-reply drop
                 icmpv6 type echo-reply drop
               }
             }")?;
        for hook in [Hook::Auto, Hook::Clsact, Hook::Xdp] {
            let mut engine = engine(hook, &["10.78.0.1", "fd78::1"]);
            await_targets(&mut engine);
            assert_heard(&mut engine);
            let output = Command::new(&ping).args(["-q", "-c1", "-W1", "10.78.0.1"]).output().expect("it is there");
            assert!(String::from_utf8_lossy(&output.stdout).contains(" 100% packet loss"), "{hook:?}");
        }
        Ok(())
    });
}

/// A message as long as ours, with our tag, a number and something that is no cookie of ours.
fn impostor(request: u8, tag: u32, slot: u32) -> [u8; 36] {
    let mut message = [0x5A; 36];
    message[..8].copy_from_slice(&[request, 0, 0, 0, 0x12, 0x34, 0, 1]);
    message[8..12].copy_from_slice(&tag.to_be_bytes());
    message[12..16].copy_from_slice(&slot.to_be_bytes());
    if request == 8 {
        let sum: u32 = message.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = (sum & 0xFFFF) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xFFFF) + (sum >> 16)).expect("folded");
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn raw(address: IpAddr) -> OwnedFd {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("root may have it");
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).expect("a time");
    socket
}

/// Whether an echo reply with this message comes to it.
fn is_answered(socket: &OwnedFd, message: &[u8; 36]) -> bool {
    let answer = if message[0] == 8 { 0 } else { 129 };
    let mut buffer = [0; 256];
    for _ in 0..100 {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, None, MsgFlags::empty());
        let Ok(length) = received.map(|received| received.bytes) else { return false };
        let packet = &buffer[..length];
        let received = packet.len().checked_sub(36).map(|at| &packet[at..]);
        if received.is_some_and(|received| received[0] == answer && received[4..] == message[4..]) {
            return true;
        }
    }
    false
}

/// Requests of somebody who uses our tag: their answers are theirs, whatever they hold.
#[test]
fn answers_to_others_with_our_tag_are_theirs() {
    isolated("answers_to_others_with_our_tag_are_theirs", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        for hook in [Hook::Auto, Hook::Clsact, Hook::Xdp] {
            let mut engine = engine(hook, &TARGETS);
            await_targets(&mut engine);
            let tag = engine.signals.as_ref().expect("it has programs").tag();
            let before = (count(&engine, Count::Returned), count(&engine, Count::Strange));
            let mut strange = 0;
            for to in TARGETS {
                let address: IpAddr = to.parse().expect("an address");
                let socket = raw(address);
                // Slots that were used, one that was not, one that there is none of, and shards that there are none of.
                for (tag, slot, known) in [(tag, 0, 1), (tag, 7, 1), (tag, 8, 0), (tag, u32::MAX, 0), (tag ^ 15, 0, 1)]
                {
                    let message = impostor(if address.is_ipv4() { 8 } else { 128 }, tag, slot);
                    let to = SockaddrStorage::from(SocketAddr::new(address, 0));
                    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&message)], &[], MsgFlags::empty(), Some(&to))
                        .expect("it can be sent");
                    assert!(is_answered(&socket, &message), "{hook:?} {to}: {tag:x} {slot}");
                    strange += known;
                }
            }
            let after = (count(&engine, Count::Returned), count(&engine, Count::Strange));
            println!("{hook:?}: {before:?} {after:?}");
            assert_eq!(after, (before.0, before.1 + strange), "{hook:?}");
            assert_heard(&mut engine);
        }
        Ok(())
    });
}

/// As fast as they come back, while checks are made: none of either kind is lost.
#[test]
fn a_flood_of_the_hosts_own_is_not_touched() {
    isolated("a_flood_of_the_hosts_own_is_not_touched", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        let ping = program("ping").ok_or("no ping")?;
        for hook in [Hook::Clsact, Hook::Xdp] {
            let mut engine = engine(hook, &TARGETS);
            await_targets(&mut engine);
            for to in TARGETS {
                let flood = Command::new(&ping)
                    .args(["-f", "-q", "-c", "2000", "-s", "28", to])
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("it is there");
                for _ in 0..20 {
                    assert_heard(&mut engine);
                }
                let output = flood.wait_with_output().expect("it ends");
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(said.contains("2000 received, 0% packet loss"), "{hook:?} {to}: {said}");
            }
            assert_eq!(count(&engine, Count::Strange), 0, "{hook:?}");
        }
        Ok(())
    });
}
