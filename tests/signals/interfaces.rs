//! Interfaces of every kind, that come and go.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpra::os::ebpf::Hook;
use cpra_common::Count;

use super::counterparts::engine::{Backend, Engine};
use super::counterparts::net::{Net, ip, isolated, nft};
use super::counterparts::program;
use super::counterparts::programs::{CLSACT, NONE, Ours, TCX, XDP, ours};
use super::{assert_code, assert_heard, await_targets, count, engine};

/// Each hook, and what is at an interface then.
const HOOKS: [(Hook, Ours); 3] = [(Hook::Auto, TCX), (Hook::Clsact, CLSACT), (Hook::Xdp, XDP)];

fn is_whole(engine: &Engine) -> bool {
    engine.signals.as_ref().expect("it has programs").is_whole()
}

/// What becomes so by another thread's doing, within a second.
#[track_caller]
fn within_a_second(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(1), "not within a second: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    println!("{what} after {:?}", began.elapsed());
}

#[test]
fn every_hook_does_the_same_work() {
    isolated("every_hook_does_the_same_work", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        net.target.within(|| {
            nft("table inet t {
                   chain input {
                     type filter hook input priority 0; policy accept;
                     ip daddr 10.78.0.4 reject with icmp type port-unreachable
                     ip6 daddr fd78::4 reject with icmpv6 type port-unreachable
                   }
                 }")
        })?;
        for (hook, expected) in HOOKS {
            let mut fine = engine(hook, &["127.0.0.1", "::1", "10.78.0.1", "fd78::1"]);
            for interface in ["lo", "a0"] {
                assert_eq!(ours(interface), Some(expected), "{hook:?} at {interface}");
            }
            assert!(is_whole(&fine), "{hook:?}");
            assert_heard(&mut fine);
            assert_eq!((count(&fine, Count::Sent), count(&fine, Count::Strange)), (4, 0), "{hook:?}");
            // XDP has room for one at an interface.
            drop(fine);
            let mut unreachable = engine(hook, &["10.78.0.4", "fd78::4"]);
            for outcome in unreachable.check_all() {
                assert_code(&outcome, "L3CON");
            }
            assert_eq!(unreachable.heard(), 2, "{hook:?}");
        }
        assert_eq!((ours("lo"), ours("a0")), (Some(NONE), Some(NONE)), "they are gone with the engines");
        Ok(())
    });
}

/// Tags, and tags in tags.
#[test]
fn answers_by_vlans_are_taken() {
    isolated("answers_by_vlans_are_taken", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let ends = |device: &str, host: u8| {
            ip(&format!(
                "link add link {device} name {device}.7 type vlan id 7
                 link add link {device}.7 name {device}.7.8 type vlan id 8
                 addr add 10.79.7.{host}/24 dev {device}.7
                 addr add fd79:7::{host}/64 dev {device}.7 nodad
                 addr add 10.79.8.{host}/24 dev {device}.7.8
                 link set {device}.7 up
                 link set {device}.7.8 up"
            ))
        };
        ends("a0", 1)?;
        net.router.within(|| ends("a1", 254))?;
        for (hook, expected) in HOOKS {
            let mut engine = engine(hook, &["10.79.7.254", "fd79:7::254", "10.79.8.254", "10.77.0.254"]);
            await_targets(&mut engine);
            assert_heard(&mut engine);
            assert_eq!((ours("a0.7"), ours("a0.7.8")), (Some(expected), Some(expected)), "{hook:?}");
            assert_eq!(count(&engine, Count::Strange), 0, "{hook:?}");
        }
        Ok(())
    });
}

#[test]
fn a_bridge_has_the_programs_and_its_ports_have_none() {
    isolated("a_bridge_has_the_programs_and_its_ports_have_none", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let engine_of = |hook| engine(hook, &["10.80.0.254", "fd80::254"]);
        ip(&format!("link add p0 type veth peer name p1 netns {}", net.router.pid()))?;
        ip("link add br0 type bridge
            addr add 10.80.0.1/24 dev br0
            addr add fd80::1/64 dev br0 nodad
            link set p0 up
            link set br0 up")?;
        net.router.within(|| {
            ip("addr add 10.80.0.254/24 dev p1
                addr add fd80::254/64 dev p1 nodad
                link set p1 up")
        })?;
        for (hook, expected) in HOOKS {
            let mut engine = engine_of(hook);
            assert_eq!((ours("br0"), ours("p0")), (Some(expected), Some(expected)), "{hook:?}: it is no port yet");
            ip("link set p0 master br0")?;
            within_a_second("a port has none", || ours("p0") == Some(NONE));
            await_targets(&mut engine);
            assert_heard(&mut engine);
            assert!(is_whole(&engine) && ours("br0") == Some(expected), "{hook:?}");
            ip("link set p0 nomaster")?;
            within_a_second("it is no port any more", || ours("p0") == Some(expected));
        }
        Ok(())
    });
}

/// An interface at which a program answers.
struct Tunnel(Child);

impl Tunnel {
    fn start(mode: &str) -> Result<Self, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/signals/tunnel.py");
        let mut command = Command::new(program("python3").ok_or("python3 is not installed")?);
        let child = command.args([script, mode, "t0"]).stdout(Stdio::piped()).spawn();
        let mut this = Self(child.map_err(|error| error.to_string())?);
        let said = this.0.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0; 5]);
        said.map_err(|_| "no /dev/net/tun".to_owned())?;
        ip("addr add 10.81.0.1/24 dev t0
            addr add fd81::1/64 dev t0 nodad
            link set t0 up")?;
        Ok(this)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Packets without an Ethernet header.
#[test]
fn answers_by_a_tunnel_are_taken() {
    isolated("answers_by_a_tunnel_are_taken", || {
        Backend::SIGNALS.is_there()?;
        let _tunnel = Tunnel::start("tun")?;
        for (hook, expected) in HOOKS {
            println!("{hook:?}");
            // XDP would look for one.
            let expected = if hook == Hook::Xdp { TCX } else { expected };
            let mut engine = engine(hook, &["10.81.0.2", "fd81::2"]);
            await_targets(&mut engine);
            assert_eq!(ours("t0"), Some(expected), "{hook:?}");
            assert!(is_whole(&engine), "{hook:?}");
            assert_heard(&mut engine);
        }
        Ok(())
    });
}

/// A tag that only says how urgent the frame is: it belongs to no VLAN, and every host takes it.
#[test]
fn answers_with_a_priority_are_taken() {
    isolated("answers_with_a_priority_are_taken", || {
        Backend::SIGNALS.is_there()?;
        let _tunnel = Tunnel::start("tap")?;
        ip("neigh add 10.81.0.2 lladdr 02:00:00:00:00:02 dev t0
            neigh add fd81::2 lladdr 02:00:00:00:00:02 dev t0")?;
        for (hook, expected) in HOOKS {
            println!("{hook:?}");
            let mut engine = engine(hook, &["10.81.0.2", "fd81::2"]);
            await_targets(&mut engine);
            assert_eq!(ours("t0"), Some(expected), "{hook:?}");
            assert_heard(&mut engine);
        }
        Ok(())
    });
}

fn addresses(device: &str) -> Result<(), String> {
    ip(&format!(
        "addr replace 10.77.0.1/24 dev {device}
         addr replace fd77::1/64 dev {device} nodad
         link set {device} up"
    ))
}

#[test]
fn an_interface_may_go_and_come_again() {
    isolated("an_interface_may_go_and_come_again", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        for (hook, expected) in HOOKS {
            let mut engine = engine(hook, &["10.77.0.254", "fd77::254"]);
            await_targets(&mut engine);
            assert_heard(&mut engine);
            ip("link set a0 down")?;
            for outcome in engine.check_all() {
                assert_code(&outcome, "VOID:ENETUNREACH");
            }
            addresses("a0")?;
            assert_eq!(ours("a0"), Some(expected), "{hook:?}: it kept them");
            await_targets(&mut engine);
            assert_heard(&mut engine);
            // Another one of the same name, and the same number.
            let number = std::fs::read_to_string("/proc/thread-self/net/igmp").expect("it is there");
            let number = number.lines().find_map(|line| line.split_once("\ta0 ")?.0.parse::<u32>().ok());
            let number = number.expect("it is up");
            ip(&format!("link del a0\nlink add a0 index {number} type veth peer name a1 netns {}", net.router.pid()))?;
            addresses("a0")?;
            net.router.within(|| {
                ip("addr add 10.77.0.254/24 dev a1
                    addr add fd77::254/64 dev a1 nodad
                    link set a1 up")
            })?;
            within_a_second("the new one has them", || ours("a0") == Some(expected));
            await_targets(&mut engine);
            assert!(is_whole(&engine), "{hook:?}");
            assert_heard(&mut engine);
        }
        Ok(())
    });
}

/// Down and up and anew again and again, while checks are made.
#[test]
fn checks_outlast_interfaces_in_trouble() {
    isolated("checks_outlast_interfaces_in_trouble", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let mut engine = engine(Hook::Auto, &["10.77.0.254", "fd77::254", "127.0.0.1"]);
        let over = AtomicBool::new(false);
        let codes = thread::scope(|scope| {
            let troubles = scope.spawn(|| {
                for _ in 0..8 {
                    ip("link set a0 down")?;
                    thread::sleep(Duration::from_millis(40));
                    addresses("a0")?;
                    thread::sleep(Duration::from_millis(40));
                    ip(&format!("link del a0\nlink add a0 type veth peer name a1 netns {}", net.router.pid()))?;
                    addresses("a0")?;
                    // The router's thread has a namespace of its own.
                    net.router.within(|| {
                        ip("addr add 10.77.0.254/24 dev a1\naddr add fd77::254/64 dev a1 nodad\nlink set a1 up")
                    })?;
                }
                over.store(true, Ordering::Relaxed);
                Ok::<(), String>(())
            });
            let mut codes = Vec::new();
            while !over.load(Ordering::Relaxed) && !troubles.is_finished() {
                let outcomes = engine.check_all();
                // Nothing happens to the loopback.
                assert_code(&outcomes[2], "L3OK");
                codes.extend(outcomes[..2].iter().map(|outcome| outcome.code.as_str().to_owned()));
            }
            troubles.join().expect("it only runs programs").map(|()| codes)
        })?;
        let with = |code: &str| codes.iter().filter(|known| known.starts_with(code)).count();
        println!("{} checks: {} OK, {} void", codes.len(), with("L3OK"), with("VOID"));
        await_targets(&mut engine);
        within_a_second("all interfaces have them", || is_whole(&engine) && ours("a0") == Some(TCX));
        assert_heard(&mut engine);
        Ok(())
    });
}

#[test]
fn an_interface_that_comes_later_gets_the_programs() {
    isolated("an_interface_that_comes_later_gets_the_programs", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let mut engine = engine(Hook::Auto, &["10.82.0.2"]);
        for outcome in engine.check_all() {
            // There is a way, by the router, which knows none.
            assert_code(&outcome, "L3CON");
        }
        ip(&format!("link add c0 type veth peer name c1 netns {}", net.target.pid()))?;
        within_a_second("it has them", || ours("c0") == Some(TCX));
        ip("addr add 10.82.0.1/24 dev c0\nlink set c0 up")?;
        net.target.within(|| ip("addr add 10.82.0.2/24 dev c1\nlink set c1 up"))?;
        await_targets(&mut engine);
        assert_heard(&mut engine);
        // Thirty at once.
        let pairs = (0..15).map(|n| [format!("d{n}"), format!("e{n}")]);
        ip(&pairs
            .clone()
            .map(|[one, other]| format!("link add {one} type veth peer name {other}\n"))
            .collect::<String>())?;
        for name in pairs.flatten() {
            within_a_second(&format!("{name} has them"), || ours(&name) == Some(TCX));
        }
        assert!(is_whole(&engine));
        Ok(())
    });
}
