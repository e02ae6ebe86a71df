//! What comes back, in every number and order.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use cpra::daemon::{self as root, Plan};
use cpra::domain::{Host, Monitor, Target};
use cpra::os::ebpf::{Demand, Hook, Mode, Settings, Signals};
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use cpra_common::{Count, Return};
use nix::sys::socket::{setsockopt, sockopt};

use super::counterparts::engine::{Backend, Engine, Monitored};
use super::counterparts::net::{Net, ip, isolated};
use super::counterparts::responder::{HONEST, Manner, Responder};
use super::daemon::{Metrics, get};
use super::{assert_code, assert_heard, count, engine, ping};

#[test]
fn double_and_late_answers_are_left_and_counted() {
    isolated("double_and_late_answers_are_left_and_counted", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        for to in ["10.78.0.1", "fd78::1"] {
            let mut engine = engine(Hook::Auto, &[to]);
            responder.set(Manner::Replies { copies: 5, after: Duration::ZERO });
            assert_code(&engine.check(0), "L3OK");
            engine.idle(Duration::from_millis(50));
            // The first one is taken, and the socket sees the four others.
            assert_eq!((engine.heard(), engine.answers(), engine.pinger.stats().received), (1, 1, 4), "{to}");
            assert_eq!((count(&engine, Count::Returned), count(&engine, Count::Strange)), (1, 4), "{to}");
            // One that comes while the next request of the same slot waits.
            responder.set(Manner::Replies { copies: 1, after: Duration::from_millis(450) });
            assert_code(&engine.check(0), "L3TOUT");
            responder.set(Manner::Silent);
            assert_code(&engine.check(0), "L3TOUT");
            assert_eq!((engine.heard(), engine.answers(), engine.pinger.stats().received), (1, 2, 5), "{to}");
            assert_eq!((count(&engine, Count::Returned), count(&engine, Count::Strange)), (1, 5), "{to}");
            responder.set(HONEST);
            assert_heard(&mut engine);
            assert_eq!(count(&engine, Count::Sent), 4, "every request was seen to leave");
        }
        Ok(())
    });
}

/// Returns that the ring has room for, each with eight bytes of the ring's own.
const ROOM: usize = (1 << 20) / (size_of::<Return>() + 8);

/// All answers come while nobody looks, and the sockets have no room either: the tickets tell.
#[test]
fn a_ring_that_is_full_loses_nothing() {
    isolated("a_ring_that_is_full_loses_nothing", || {
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        let responder = Responder::start(&net.target)?;
        let count_all = ROOM + 4_000;
        let monitored = ping("10.78.0.1").within(Duration::from_secs(30));
        let targets = vec![&monitored; count_all];
        let mut engine = Engine::by(Backend::SIGNALS, &targets, count_all as u32);
        for socket in engine.pinger.sockets() {
            setsockopt(&socket, sockopt::RcvBuf, &0).expect("less is always to be had");
        }
        let began = Instant::now();
        responder.set(Manner::Held);
        engine.begin_all();
        while (engine.pings as usize) < count_all {
            engine.turn();
        }
        // No signal is taken from here on until the end.
        responder.set(HONEST);
        while (count(&engine, Count::Returned) as usize) < count_all {
            assert!(began.elapsed() < Duration::from_secs(30), "{} returned", count(&engine, Count::Returned));
            std::thread::sleep(Duration::from_millis(10));
        }
        let overflowed = count(&engine, Count::Overflowed);
        println!("{count_all} answers, {overflowed} without room, after {:?}", began.elapsed());
        // Those of the first batches may have been taken.
        assert!(overflowed > 0 && overflowed as usize <= count_all - ROOM + 1_000, "{overflowed}");
        for outcome in engine.end_all() {
            assert_code(&outcome, "L3OK");
            assert!(outcome.latency.first_byte > Span::ZERO && outcome.latency.first_byte < Span::from_secs(30));
        }
        engine.assert_backend(Backend::SIGNALS);
        assert!(engine.pinger.dropped() > 0, "the sockets had room for all");
        println!("judged after {:?}", began.elapsed());
        Ok(())
    });
}

/// Two hundred thousand, each with an address of its own behind a router, by the daemon itself.
#[test]
fn two_hundred_thousand_targets() {
    isolated("two_hundred_thousand_targets", || {
        const COUNT: u32 = 200_000;
        Backend::SIGNALS.is_there()?;
        let net = Net::new()?;
        net.target.within(|| ip("route add local 10.128.0.0/14 dev lo"))?;
        net.router.within(|| ip("route add 10.128.0.0/14 via 10.78.0.1"))?;
        let folder = tempfile::tempdir().expect("a directory");
        let first = u32::from(Ipv4Addr::new(10, 128, 0, 1));
        let monitors = (0..COUNT).map(|n| {
            let to = IpAddr::from(Ipv4Addr::from(first + n));
            let mut policy = Monitored::ping(to).policy;
            policy.interval = Span::from_secs(10);
            let target = Target { host: Host::Literal(to), port: 0, path: "".into() };
            Monitor { name: to.to_string().into(), enabled: true, target, policy }
        });
        let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = api.local_addr().expect("it is bound");
        let demand = Demand { shards: 1, slots: 16_384, ports: (0, 0), seed: fastrand::u32(..) };
        let wanted = Settings { mode: Mode::Require, ..Settings::default() };
        let signals = Signals::start(&wanted, demand).map_err(|error| error.to_string())?;
        let plan = Plan { pulse: Setup::fixed(16_384), signals, ..Plan::new(catalog, api, folder.path().to_owned()) };
        let began = Instant::now();
        let daemon = root::start(plan).expect("the daemon starts");
        let metrics = || Metrics::read(&String::from_utf8_lossy(&get(at, "/metrics").expect("the API answers").1));
        loop {
            let metrics = metrics();
            if metrics.state("up") == f64::from(COUNT) {
                break;
            }
            let up = metrics.state("up");
            assert!(began.elapsed() < Duration::from_secs(90), "{up} are up: {metrics:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{COUNT} up after {:?}", began.elapsed());
        let metrics = metrics();
        let received = metrics.value("cpra_icmp_packets_total{direction=\"in\"}");
        let signalled = metrics.value("cpra_icmp_signalled_total");
        println!("{signalled} answers of {received} by programs");
        assert!(received >= f64::from(COUNT) && signalled >= 0.99 * received, "{signalled} of {received}");
        for never in ["L3TOUT", "L3CON", "L3RSP"] {
            assert_eq!(metrics.outcomes(never), 0.0, "{never}");
        }
        assert_eq!(metrics.value("cpra_monitors_lost"), 0.0);
        assert!(daemon.stop(), "it ends in order");
        Ok(())
    });
}
