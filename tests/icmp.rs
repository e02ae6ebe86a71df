//! Echo requests through networks good and bad: the engine itself, on real sockets, in namespaces that the tests make.
//!
//! Each case is tried twice: with sockets alone, and with programs in the kernel that take the answers. What is told must
//! be the same, and must have come by the way that the test names.

mod counterparts;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use cpra::daemon::{self, Plan};
use cpra::domain::monitor::IcmpCheck;
use cpra::domain::{Check, Host, Monitor, Outcome, Target, Verdict};
use cpra::os::clock::Clock;
use cpra::os::ebpf::{Demand, Mode, Settings, Signals};
use cpra::os::ping::Means;
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;

use cpra_common::Count;
use nix::sys::socket::{setsockopt, sockopt};

use counterparts::engine::{Backend, Engine, Monitored};
use counterparts::net::{Net, ip, isolated, nft, sysctl, unsendable};
use counterparts::program;
use counterparts::responder::{HONEST, Manner, Responder};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ping(to: &str) -> Monitored {
    Monitored::ping(address(to))
}

const SOON: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_outcome(outcome: &Outcome, code: &str, evidence: &str) {
    let words = outcome.evidence.as_deref().unwrap_or("");
    // How long was waited in vain is measured, and not the timeout alone.
    let told = if evidence.ends_with(" in") { words.starts_with(evidence) } else { words == evidence };
    assert!(outcome.code.as_str() == code && told, "{} {words:?}, not {code} {evidence:?}", outcome.code);
    let verdict = match code {
        "L3OK" => Verdict::Ok,
        _ if code.starts_with("VOID") => Verdict::Void,
        _ => Verdict::Fail,
    };
    assert_eq!(outcome.verdict(), verdict, "{code}");
}

fn engine_of(backend: Backend, monitored: &[&Monitored]) -> Engine {
    Engine::by(backend, monitored, 8)
}

#[track_caller]
fn assert_check(backend: Backend, monitored: &Monitored, code: &str, evidence: &str) {
    let mut engine = engine_of(backend, &[monitored]);
    assert_outcome(&engine.check(0), code, evidence);
    if !code.ends_with("TOUT") && !code.starts_with("VOID") {
        engine.assert_backend(backend);
    }
}

/// Each case as two tests.
macro_rules! by_both_ways {
    ($($case:ident,)*) => {
        mod sockets {
            $(
                #[test]
                fn $case() {
                    super::$case(super::Backend::Sockets, concat!("sockets::", stringify!($case)));
                }
            )*
        }

        mod signals {
            $(
                #[test]
                fn $case() {
                    super::$case(super::Backend::SIGNALS, concat!("signals::", stringify!($case)));
                }
            )*
        }
    };
}

by_both_ways! {
    what_a_network_says_is_what_is_told,
    what_this_host_does_not_send_says_nothing,
    losses_count_by_their_share,
    requests_without_room_are_this_hosts_own_fault,
    a_slow_answer_and_a_double_one_are_told_apart,
    a_late_answer_is_not_the_next_checks,
    what_is_made_up_counts_for_nothing,
    answers_without_room_are_this_hosts_own_fault,
    the_hosts_own_ping_is_not_disturbed,
    ten_thousand_targets_in_a_second,
    the_daemon_pings,
}

/// What the router of the test's network makes of some destinations.
fn router_rules() -> Result<(), String> {
    ip("route add blackhole 10.99.1.0/24
        route add unreachable 10.99.2.0/24
        route add prohibit 10.99.3.0/24
        route add 10.99.4.0/24 via 10.78.0.1
        route add blackhole fd99:1::/64
        route add unreachable fd99:2::/64
        route add prohibit fd99:3::/64
        route add fd99:4::/64 via fd78::1")?;
    nft("table inet t {
           chain forward {
             type filter hook forward priority 0; policy accept;
             ip daddr 10.78.0.2 drop
             ip6 daddr fd78::2 drop
             ip daddr 10.78.0.3 reject with icmp type admin-prohibited
             ip6 daddr fd78::3 reject with icmpv6 type admin-prohibited
             ip daddr 10.78.0.5 numgen inc mod 2 0 drop
             ip6 daddr fd78::5 numgen inc mod 2 0 drop
           }
         }")
}

/// And the target itself.
fn target_rules() -> Result<(), String> {
    nft("table inet t {
           chain input {
             type filter hook input priority 0; policy accept;
             ip daddr 10.78.0.4 reject with icmp type port-unreachable
             ip6 daddr fd78::4 reject with icmpv6 type port-unreachable
             ip daddr 10.78.0.6 reject with icmp type net-unreachable
             ip6 daddr fd78::6 reject with icmpv6 type no-route
           }
         }")
}

/// Destination, code, reason. A request takes at most half a second.
type Row = (&'static str, &'static str, &'static str);

const NETWORK: [Row; 24] = [
    ("10.78.0.1", "L3OK", ""),
    ("10.77.0.254", "L3OK", ""),
    ("10.77.0.1", "L3OK", ""),
    ("10.78.0.2", "L3TOUT", "no answer from 10.78.0.2 to 1 echo request in"),
    ("10.99.1.1", "L3TOUT", "no answer from 10.99.1.1 to 1 echo request in"),
    ("10.78.0.3", "L3CON", "10.78.0.3 unreachable: administratively prohibited, says 10.77.0.254"),
    ("10.78.0.4", "L3CON", "10.78.0.4 unreachable: port unreachable, says 10.78.0.4"),
    ("10.78.0.6", "L3CON", "10.78.0.6 unreachable: network unreachable, says 10.78.0.6"),
    ("10.78.0.99", "L3CON", "10.78.0.99 unreachable: host unreachable, says 10.77.0.254"),
    ("10.77.0.99", "L3CON", "10.77.0.99 unreachable: host unreachable, says 10.77.0.1"),
    ("10.99.0.1", "L3CON", "10.99.0.1 unreachable: network unreachable, says 10.77.0.254"),
    ("10.99.2.1", "L3CON", "10.99.2.1 unreachable: host unreachable, says 10.77.0.254"),
    ("10.99.3.1", "L3CON", "10.99.3.1 unreachable: administratively prohibited, says 10.77.0.254"),
    ("fd78::1", "L3OK", ""),
    ("fd77::254", "L3OK", ""),
    ("fd78::2", "L3TOUT", "no answer from fd78::2 to 1 echo request in"),
    ("fd99:1::1", "L3TOUT", "no answer from fd99:1::1 to 1 echo request in"),
    ("fd78::3", "L3CON", "fd78::3 unreachable: administratively prohibited, says fd77::254"),
    ("fd78::4", "L3CON", "fd78::4 unreachable: port unreachable, says fd78::4"),
    ("fd78::6", "L3CON", "fd78::6 unreachable: network unreachable, says fd78::6"),
    ("fd78::99", "L3CON", "fd78::99 unreachable: host unreachable, says fd77::254"),
    ("fd99::1", "L3CON", "fd99::1 unreachable: network unreachable, says fd77::254"),
    ("fd99:2::1", "L3CON", "fd99:2::1 unreachable: network unreachable, says fd77::254"),
    ("fd99:3::1", "L3CON", "fd99:3::1 unreachable: administratively prohibited, says fd77::254"),
];

/// Runs the table on one engine at the same time, and the odd cases one by one.
fn judge_network(backend: Backend) {
    let monitored: Vec<Monitored> =
        NETWORK.iter().map(|(to, _, _)| ping(to).within(Duration::from_millis(500))).collect();
    let mut engine = Engine::by(backend, &monitored.iter().collect::<Vec<_>>(), 64);
    println!("{:?}", engine.means());
    for round in 0..2 {
        // For what a router is slow to say again.
        engine.idle(Duration::from_secs(round));
        for ((to, code, evidence), outcome) in NETWORK.iter().zip(engine.check_all()) {
            println!("{round} {to}: {} {:?} {:?}", outcome.code, outcome.evidence, outcome.latency);
            assert_outcome(&outcome, code, evidence);
            if *code == "L3OK" {
                let mean = outcome.latency.first_byte;
                assert!(mean > Span::ZERO && mean <= outcome.latency.total, "{:?}", outcome.latency);
            }
        }
    }
    assert_eq!(engine.pinger.stats().forged, 0);
    engine.assert_backend(backend);
    // In a loop between router and target either of them sees the last hop.
    for to in ["10.99.4.1", "fd99:4::1"] {
        let mut engine = engine_of(backend, &[&ping(to)]);
        let outcome = engine.check(0);
        engine.assert_backend(backend);
        let expected = format!("{to} unreachable: time to live exceeded (a routing loop?), says ");
        assert_eq!(outcome.code.as_str(), "L3CON");
        assert!(outcome.cause().starts_with(&expected), "{:?}", outcome.evidence);
    }
}

fn what_a_network_says_is_what_is_told(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        net.router.within(router_rules)?;
        net.target.within(target_rules)?;
        let means = engine_of(backend, &[&ping("10.78.0.1")]).means();
        assert_eq!(means, [Means::Raw; 2]);
        judge_network(backend);
        Ok(())
    });
}

/// The test runs itself again as another user, in the namespace that it has made.
fn again_unprivileged(test: &str) {
    let mut again = Command::new(std::env::current_exe().expect("it runs"));
    let output = again.args([test, "--exact", "--nocapture"]).env(UNPRIVILEGED, "1").uid(65_534).gid(65_534).output();
    let output = output.expect("it can be run by everyone");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}", output.status);
}

const UNPRIVILEGED: &str = "CPRA_TEST_UNPRIVILEGED";

fn is_unprivileged() -> bool {
    std::env::var_os(UNPRIVILEGED).is_some()
}

#[test]
fn an_unprivileged_user_sees_the_same() {
    if is_unprivileged() {
        assert_eq!(Engine::of(&[&ping("10.78.0.1")]).means(), [Means::Datagram; 2]);
        return judge_network(Backend::Sockets);
    }
    isolated("an_unprivileged_user_sees_the_same", || {
        let net = Net::new()?;
        net.router.within(router_rules)?;
        net.target.within(target_rules)?;
        sysctl("ipv4/ping_group_range 0 2147483647")?;
        again_unprivileged("an_unprivileged_user_sees_the_same");
        Ok(())
    });
}

#[test]
fn without_any_socket_nothing_is_known() {
    if is_unprivileged() {
        let evidence = "no socket for echo requests (forbidden by this host): give the daemon CAP_NET_RAW, or its group \
                        a place in net.ipv4.ping_group_range";
        for to in ["127.0.0.1", "::1"] {
            assert_check(Backend::Sockets, &ping(to).counted(3, 100), "VOID:EPERM", evidence);
        }
        return;
    }
    isolated("without_any_socket_nothing_is_known", || {
        sysctl("ipv4/ping_group_range 1 0")?;
        again_unprivileged("without_any_socket_nothing_is_known");
        Ok(())
    });
}

fn what_this_host_does_not_send_says_nothing(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        unsendable()?;
        let network = "network unreachable";
        let rows = [
            ("10.50.0.1", "VOID:ENETUNREACH", network),
            ("10.99.1.1", "VOID:INTERNAL", "it takes the address for invalid (a blackhole route?)"),
            ("10.99.2.1", "VOID:ENETUNREACH", "host unreachable"),
            ("10.99.3.1", "VOID:EPERM", "forbidden by this host"),
            ("10.77.0.2", "VOID:EPERM", "forbidden by this host"),
            ("10.77.0.255", "VOID:EPERM", "forbidden by this host"),
            ("fd50::1", "VOID:ENETUNREACH", network),
            ("fd99:1::1", "VOID:INTERNAL", "it takes the address for invalid (a blackhole route?)"),
            ("fd99:2::1", "VOID:ENETUNREACH", "host unreachable"),
            ("fd99:3::1", "VOID:EPERM", "forbidden by this host"),
            ("fd77::2", "VOID:EPERM", "forbidden by this host"),
        ];
        // On one engine: what becomes of one must not become another's.
        let good = ["127.0.0.1", "10.77.0.1", "::1", "fd77::1"];
        let monitored: Vec<_> = rows.iter().map(|row| row.0).chain(good).map(|to| ping(to).within(SOON)).collect();
        let mut engine = Engine::by(backend, &monitored.iter().collect::<Vec<_>>(), 64);
        let outcomes = engine.check_all();
        for ((to, code, why), outcome) in rows.iter().zip(&outcomes) {
            println!("{to}: {} {:?}", outcome.code, outcome.evidence);
            assert_outcome(outcome, code, &format!("this host sends no echo request to {to}: {why}"));
        }
        for outcome in &outcomes[rows.len()..] {
            assert_outcome(outcome, "L3OK", "");
        }
        engine.assert_backend(backend);
        Ok(())
    });
}

fn losses_count_by_their_share(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        net.router.within(router_rules)?;
        // Every second request to this address is dropped.
        for to in ["10.78.0.5", "fd78::5"] {
            let four = || ping(to).within(Duration::from_millis(600));
            assert_check(backend, &four().counted(4, 50), "L3OK", "");
            assert_check(backend, &four().counted(4, 20), "L3RSP", "2 of 4 lost, at most 20 %");
            assert_check(backend, &four().counted(4, 0), "L3RSP", "2 of 4 lost, at most 0 %");
            assert_check(backend, &four().counted(2, 99), "L3OK", "");
        }
        for to in ["10.78.0.1", "fd78::1"] {
            let mut engine = engine_of(backend, &[&ping(to).counted(5, 0)]);
            let outcome = engine.check(0);
            assert_outcome(&outcome, "L3OK", "");
            assert_eq!(engine.pings, 5);
            // The last of five left after four gaps of 200 ms.
            let total = outcome.latency.total;
            assert!(total >= Span::from_millis(790) && total < Span::from_millis(1_500), "{total}");
            assert!(outcome.latency.first_byte < Span::from_millis(100), "{:?}", outcome.latency);
            engine.assert_backend(backend);
        }
        for to in ["10.78.0.2", "fd78::2"] {
            let evidence = format!("no answer from {to} to 3 echo requests in");
            assert_check(backend, &ping(to).counted(3, 100).within(Duration::from_millis(600)), "L3TOUT", &evidence);
        }
        Ok(())
    });
}

fn requests_without_room_are_this_hosts_own_fault(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let _net = Net::new()?;
        // They wait for neighbours that are not there, and hold the room that the socket has: three of each, which are
        // more than a socket has room for by default.
        let dead = |n: u32| ping(&format!("10.77.0.{n}")).within(Duration::from_millis(600));
        let targets: Vec<Monitored> = (2..252).map(|n| dead(n).counted(3, 0)).collect();
        for outcome in Engine::by(backend, &targets.iter().collect::<Vec<_>>(), 256).check_all() {
            assert_eq!(outcome.code.as_str(), "L3CON", "{:?}", outcome.evidence);
        }
        let targets: Vec<Monitored> = (2..252).map(dead).collect();
        let mut engine = Engine::by(backend, &targets.iter().collect::<Vec<_>>(), 256);
        for socket in engine.pinger.sockets() {
            setsockopt(&socket, sockopt::SndBuf, &0).expect("less is always to be had");
        }
        let outcomes = engine.check_all();
        let dead = outcomes.iter().take_while(|outcome| outcome.code.as_str() == "L3CON").count();
        assert!((1..20).contains(&dead), "{dead} had room");
        for (outcome, n) in outcomes.iter().zip(2..).skip(dead) {
            let evidence = format!("this host sends no echo request to 10.77.0.{n}: its queues are full");
            assert_outcome(outcome, "VOID:ENOBUFS", &evidence);
        }
        Ok(())
    });
}

fn slower_than(mut monitored: Monitored, millis: u64) -> Monitored {
    if let Check::Icmp(IcmpCheck { max_rtt, .. }) = &mut monitored.policy.check {
        *max_rtt = Some(Span::from_millis(millis));
    }
    monitored
}

fn a_slow_answer_and_a_double_one_are_told_apart(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        for to in ["10.78.0.1", "fd78::1"] {
            responder.set(HONEST);
            assert_check(backend, &slower_than(ping(to), 50), "L3OK", "");
            responder.set(Manner::Replies { copies: 1, after: Duration::from_millis(60) });
            let mut engine = engine_of(backend, &[&slower_than(ping(to), 50)]);
            let outcome = engine.check(0);
            engine.assert_backend(backend);
            assert_eq!((outcome.code.as_str(), outcome.verdict()), ("L3RSP", Verdict::Fail));
            let (cause, mean) = (outcome.cause(), outcome.latency.first_byte);
            assert!(cause.starts_with("mean round trip ") && cause.ends_with(" ms, at most 50 ms"), "{cause}");
            assert!(mean >= Span::from_millis(60) && mean < Span::from_millis(250), "{mean}");
            // Duplicates do not make up for losses.
            responder.set(Manner::Replies { copies: 5, after: Duration::ZERO });
            assert_check(backend, &ping(to).counted(3, 0), "L3OK", "");
        }
        Ok(())
    });
}

fn a_late_answer_is_not_the_next_checks(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        for to in ["10.78.0.1", "fd78::1"] {
            let evidence = format!("no answer from {to} to 1 echo request in");
            let mut engine = engine_of(backend, &[&ping(to).within(SOON)]);
            responder.set(Manner::Replies { copies: 1, after: Duration::from_millis(450) });
            assert_outcome(&engine.check(0), "L3TOUT", &evidence);
            // Its answer comes while the next one waits.
            responder.set(Manner::Silent);
            let received = engine.pinger.stats().received;
            assert_outcome(&engine.check(0), "L3TOUT", &evidence);
            assert_eq!(engine.pinger.stats().received, received + 1, "{to}");
            responder.set(HONEST);
            assert_outcome(&engine.check(0), "L3OK", "");
        }
        Ok(())
    });
}

fn what_is_made_up_counts_for_nothing(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        // Slot, hash, tag and sender changed; how many of them are seen through by the socket, and by the programs.
        let table = [
            // No such slot, and one that waits for nothing.
            (Manner::Tampered(4), 1, 0),
            (Manner::Tampered(7), 1, 1),
            (Manner::Tampered(27), 1, 1),
            // The tag: the kernel keeps it out already.
            (Manner::Tampered(0), 0, 0),
            (Manner::FromElsewhere, 1, 1),
            (Manner::Truncated, 0, 0),
            (Manner::Padded, 0, 0),
            (Manner::Mirrored, 0, 0),
            (Manner::Silent, 0, 0),
        ];
        for to in ["10.78.0.1", "fd78::1"] {
            let evidence = format!("no answer from {to} to 1 echo request in");
            let mut engine = engine_of(backend, &[&ping(to).within(SOON)]);
            responder.set(HONEST);
            assert_outcome(&engine.check(0), "L3OK", "");
            let seen_through = |engine: &Engine| {
                let stats = engine.pinger.stats();
                let strange = engine.signals.as_ref().map_or(0, |signals| signals.count(Count::Strange));
                (stats.forged, strange, stats.received + engine.heard())
            };
            for (manner, forged, strange) in table {
                responder.set(manner);
                let before = seen_through(&engine);
                println!("{to} {manner:?}");
                assert_outcome(&engine.check(0), "L3TOUT", &evidence);
                let after = seen_through(&engine);
                let strange = if backend == Backend::Sockets { 0 } else { strange };
                let expected = (before.0 + forged, before.1 + strange, before.2);
                assert_eq!(after, expected, "{manner:?}");
            }
            // Generation and time: the hash covers them, and is not computed again in the kernel. It knows the request by
            // it, and whoever sends it has seen that request.
            for at in [11, 15] {
                responder.set(Manner::Tampered(at));
                let forged = engine.pinger.stats().forged;
                let outcome = engine.check(0);
                if backend == Backend::Sockets {
                    assert_outcome(&outcome, "L3TOUT", &evidence);
                    assert_eq!(engine.pinger.stats().forged, forged + 1, "{at}");
                } else {
                    assert_outcome(&outcome, "L3OK", "");
                }
            }
            // The identifier means nothing.
            responder.set(Manner::OtherIdent);
            assert_outcome(&engine.check(0), "L3OK", "");
            engine.assert_backend(backend);
        }
        Ok(())
    });
}

fn answers_without_room_are_this_hosts_own_fault(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        for to in ["10.78.0.1", "fd78::1"] {
            let mut engine = engine_of(backend, &[&ping(to).counted(2, 0).within(SOON)]);
            for socket in engine.pinger.sockets() {
                // The least that the kernel allows: a few packets.
                setsockopt(&socket, sockopt::RcvBuf, &0).expect("less is always to be had");
            }
            responder.set(HONEST);
            assert_outcome(&engine.check(0), "L3OK", "");
            responder.set(Manner::Once { copies: 5_000 });
            let outcome = engine.check(0);
            assert!(engine.pinger.dropped() > 0);
            assert_outcome(&outcome, "VOID:CONNTRACK", "this host dropped packets meanwhile: 1 of 2 lost, at most 0 %");
        }
        Ok(())
    });
}

fn the_hosts_own_ping_is_not_disturbed(backend: Backend, name: &str) {
    let Some(program) = program("ping") else { return };
    isolated(name, move || {
        backend.is_there()?;
        let _net = Net::new()?;
        for to in ["10.78.0.1", "fd78::1"] {
            let other = Command::new(&program)
                .args(["-f", "-q", "-c", "20000", to])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("it can be run");
            let mut engine = engine_of(backend, &[&ping(to)]);
            let mut checks = 0;
            let until = Clock.now() + Span::from_millis(400);
            while Clock.now() < until {
                assert_outcome(&engine.check(0), "L3OK", "");
                checks += 1;
            }
            let stats = engine.pinger.stats();
            assert_eq!((stats.sent, stats.received + engine.heard(), stats.forged), (checks, checks, 0));
            engine.assert_backend(backend);
            let output = other.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stdout);
            println!("{checks} checks beside {said}");
            assert!(output.status.success() && said.contains(" 0% packet loss"), "{said}");
        }
        Ok(())
    });
}

fn ten_thousand_targets_in_a_second(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        const COUNT: u32 = 10_000;
        let first = u32::from(std::net::Ipv4Addr::new(127, 1, 0, 1));
        let targets: Vec<Monitored> =
            (0..COUNT).map(|n| Monitored::ping(std::net::Ipv4Addr::from(first + n).into())).collect();
        let mut engine = Engine::by(backend, &targets.iter().collect::<Vec<_>>(), COUNT);
        let began = Clock.now();
        let outcomes = engine.check_all();
        let took = Clock.now().since(began);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.verdict() == Verdict::Ok).count(), COUNT as usize);
        let stats = engine.pinger.stats();
        let received = stats.received + engine.heard();
        assert_eq!((stats.sent, received, stats.forged, stats.dropped), (10_000, 10_000, 0, 0));
        engine.assert_backend(backend);
        println!("{COUNT} targets in {took}");
        // Nothing is optimised here, and others use the machine.
        assert!(took < Span::from_secs(2), "{took}");
        Ok(())
    });
}

/// The daemon itself, with a thousand targets five times a second: the loop that sleeps, wakes and batches.
fn the_daemon_pings(backend: Backend, name: &str) {
    isolated(name, move || {
        backend.is_there()?;
        const COUNT: u32 = 1_000;
        let folder = tempfile::tempdir().expect("a directory");
        let first = u32::from(std::net::Ipv4Addr::new(127, 1, 0, 1));
        let addresses = (0..COUNT).map(|n| IpAddr::from(std::net::Ipv4Addr::from(first + n)));
        let monitors = addresses.chain([address("::1")]).map(|to| {
            let mut policy = Monitored::ping(to).within(Duration::from_millis(150)).policy;
            policy.interval = Span::from_millis(200);
            policy.retry_interval = Span::from_millis(200);
            let target = Target { host: Host::Literal(to), port: 0, path: "".into() };
            Monitor { name: to.to_string().into(), enabled: true, target, policy }
        });
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = api.local_addr().expect("it is bound");
        let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
        let signals = match backend {
            Backend::Sockets => Signals::Off,
            Backend::Signals(hook) => {
                let demand = Demand { shards: 1, slots: 2_048, ports: (0, 0), seed: fastrand::u32(..) };
                let wanted = Settings { mode: Mode::Require, hook, ..Settings::default() };
                Signals::start(&wanted, demand).map_err(|error| error.to_string())?
            }
        };
        let plan = Plan { pulse: Setup::fixed(2_048), signals, ..Plan::new(catalog, api, folder.path().to_owned()) };
        let daemon = daemon::start(plan).expect("the daemon starts");
        let metric = |sample: &str| metric(at, sample);
        let outcome = |code: &str| metric(&format!("cpra_checks_total{{type=\"icmp\",outcome=\"{code}\"}}"));
        let all = f64::from(COUNT + 1);
        eventually("all are up", || metric("cpra_monitors{state=\"up\"}") == all);
        eventually("they are checked again and again", || outcome("L3OK") > 20.0 * all);
        let began = Clock.now();
        let (before, enters) = (outcome("L3OK"), metric("cpra_icmp_packets_total{direction=\"out\"}"));
        std::thread::sleep(Duration::from_secs(2));
        let rate = (outcome("L3OK") - before) / Clock.now().since(began).as_secs_f64();
        println!("{rate:.0} checks/s, {} requests", metric("cpra_icmp_packets_total{direction=\"out\"}") - enters);
        // Of 5,000 a second; nothing is optimised here, and others use the machine.
        assert!(rate > 2_500.0, "{rate}");
        let quick = metric("cpra_check_duration_seconds_bucket{le=\"0.05\",type=\"icmp\"}");
        println!("{quick} of {} checks within 50 ms", outcome("L3OK"));
        for never in ["L3TOUT", "L3CON", "L3RSP"] {
            assert_eq!(outcome(never), 0.0, "{never}");
        }
        assert_eq!(metric("cpra_icmp_forged_total") + metric("cpra_icmp_dropped_total"), 0.0);

        sysctl("ipv4/icmp_echo_ignore_all 1")?;
        eventually("the silent are down", || metric("cpra_monitors{state=\"down\"}") == f64::from(COUNT));
        assert!(outcome("L3TOUT") >= f64::from(COUNT));
        assert_eq!(metric("cpra_monitors{state=\"up\"}"), 1.0, "the other family goes on");
        sysctl("ipv4/icmp_echo_ignore_all 0")?;
        eventually("all are up again", || metric("cpra_monitors{state=\"up\"}") == all);
        assert_eq!(metric("cpra_monitors_lost"), 0.0);
        let (all, signalled) =
            (metric("cpra_icmp_packets_total{direction=\"in\"}"), metric("cpra_icmp_signalled_total"));
        match backend {
            Backend::Sockets => assert_eq!(signalled, 0.0),
            Backend::Signals(_) => assert!(signalled >= 0.99 * all, "{signalled} of {all}"),
        }
        assert!(daemon.stop(), "it ends in order");
        Ok(())
    });
}

/// A sample of the metrics page, by name and labels as printed.
fn metric(api: SocketAddr, sample: &str) -> f64 {
    let mut stream = TcpStream::connect(api).expect("the API listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it takes requests");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..300 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 15 s: {what}");
}
