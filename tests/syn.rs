//! Half-open checks through networks good and bad: the engine itself, with its programs in the kernel, in namespaces that
//! the tests make.

mod counterparts;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cpra::daemon::{self, Plan};
use cpra::domain::{Check, Host, Monitor, Outcome, Target, TcpCheck, Verdict};
use cpra::os::clock::Clock;
use cpra::os::ebpf::{self, Demand, Interfaces, Loaded, Mode, ShardSignals, Signals};
use cpra::os::syn::Ports;
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use cpra_common::Count;

use counterparts::engine::{Engine, Monitored};
use counterparts::net::{Net, ip, isolated, nft, unsendable};
use counterparts::support::eventually;

const OPEN: u16 = 8_080;
const CLOSED: u16 = 8_081;

fn to(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

fn knock(host: &str, port: u16) -> Monitored {
    Monitored::half_open(to(host, port))
}

/// The same check by a connect.
fn connect(monitored: &Monitored) -> Monitored {
    let mut monitored = monitored.clone();
    monitored.policy.check = Check::Tcp(TcpCheck::default());
    monitored
}

/// Programs at the interfaces that there are, and the ports that they look for.
struct Eyes {
    ports: Ports,
    _loaded: Box<Loaded>,
    signals: Option<ShardSignals>,
}

impl Eyes {
    fn open(slots: u32) -> Result<Self, String> {
        Self::at(slots, Interfaces::default())
    }

    fn at(slots: u32, interfaces: Interfaces) -> Result<Self, String> {
        let ports = Ports::reserve().map_err(|error| format!("no source ports: {error}"))?;
        let settings = ebpf::Settings { mode: Mode::Require, interfaces, ..ebpf::Settings::default() };
        let demand = Demand { shards: 1, slots, ports: ports.range(), seed: 0x5EED_0000 };
        match Signals::start(&settings, demand) {
            Ok(Signals::On(mut loaded)) => {
                let signals = loaded.shards().into_iter().next();
                Ok(Self { ports, _loaded: loaded, signals })
            }
            Ok(other) => Err(format!("no eBPF programs: {other}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn engine(&mut self, monitored: &[Monitored], slots: u32) -> Engine {
        let signals = self.signals.take().expect("there is one engine");
        Engine::on(&monitored.iter().collect::<Vec<_>>(), slots).seeing(signals)
    }
}

/// Who listens in a namespace, on both families.
fn listen() -> [TcpListener; 2] {
    let v6 = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet6,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    );
    let v6 = v6.expect("there is IPv6");
    nix::sys::socket::setsockopt(&v6, nix::sys::socket::sockopt::Ipv6V6Only, &true).expect("it is not bound yet");
    let address = nix::sys::socket::SockaddrIn6::from(std::net::SocketAddrV6::new([0; 16].into(), OPEN, 0, 0));
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&v6), &address).expect("the port is free");
    nix::sys::socket::listen(&v6, nix::sys::socket::Backlog::MAXCONN).expect("it is bound");
    let listeners = [TcpListener::bind(("0.0.0.0", OPEN)).expect("the port is free"), TcpListener::from(v6)];
    for listener in &listeners {
        listener.set_nonblocking(true).expect("a listener can be asked");
    }
    listeners
}

/// Connections in any state but listening, on ports of the listeners.
fn connections() -> String {
    let filter = format!("sport = :{OPEN} or sport = :{CLOSED}");
    let output = Command::new("ss").args(["-Htan", "exclude", "listening", &filter]).output().expect("ss can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn assert_outcome(outcome: &Outcome, code: &str, evidence: &str) {
    let words = outcome.evidence.as_deref().unwrap_or("");
    // How long was waited in vain is measured, and not the timeout alone.
    let told = if evidence.ends_with(" in") { words.starts_with(evidence) } else { words == evidence };
    assert!(outcome.code.as_str() == code && told, "{} {words:?}, not {code} {evidence:?}", outcome.code);
}

/// What the router makes of some destinations.
fn router_rules() -> Result<(), String> {
    ip("route add blackhole 10.99.1.0/24
        route add unreachable 10.99.2.0/24
        route add prohibit 10.99.3.0/24
        route add blackhole fd99:1::/64
        route add prohibit fd99:3::/64")?;
    nft("table inet t {
           chain forward {
             type filter hook forward priority 0; policy accept;
             ip daddr 10.78.0.2 drop
             ip6 daddr fd78::2 drop
             ip daddr 10.78.0.3 reject with icmp type admin-prohibited
             ip6 daddr fd78::3 reject with icmpv6 type admin-prohibited
             ip daddr 10.78.0.4 reject with tcp reset
             ip6 daddr fd78::4 reject with tcp reset
             ip daddr 10.78.0.5 tcp flags syn numgen inc mod 2 0 drop
             ip6 daddr fd78::5 tcp flags syn numgen inc mod 2 0 drop
           }
         }")
}

/// Destination, port, code, reason.
type Row = (&'static str, u16, &'static str, &'static str);

const NETWORK: [Row; 19] = [
    ("10.78.0.1", OPEN, "L4OK", ""),
    ("10.78.0.1", CLOSED, "L4CON", "connection refused 10.78.0.1:8081"),
    ("10.77.0.254", CLOSED, "L4CON", "connection refused 10.77.0.254:8081"),
    ("10.77.0.1", CLOSED, "L4CON", "connection refused 10.77.0.1:8081"),
    ("10.78.0.2", OPEN, "L4TOUT", "no answer from 10.78.0.2:8080 in"),
    ("10.99.1.1", OPEN, "L4TOUT", "no answer from 10.99.1.1:8080 in"),
    ("10.78.0.3", OPEN, "L4CON", "10.78.0.3:8080 unreachable: administratively prohibited, says 10.77.0.254"),
    ("10.78.0.4", OPEN, "L4CON", "connection refused 10.78.0.4:8080"),
    ("10.78.0.99", OPEN, "L4CON", "10.78.0.99:8080 unreachable: host unreachable, says 10.77.0.254"),
    ("10.99.0.1", OPEN, "L4CON", "10.99.0.1:8080 unreachable: network unreachable, says 10.77.0.254"),
    ("10.99.2.1", OPEN, "L4CON", "10.99.2.1:8080 unreachable: host unreachable, says 10.77.0.254"),
    ("fd78::1", OPEN, "L4OK", ""),
    ("fd78::1", CLOSED, "L4CON", "connection refused [fd78::1]:8081"),
    ("fd78::2", OPEN, "L4TOUT", "no answer from [fd78::2]:8080 in"),
    ("fd78::3", OPEN, "L4CON", "[fd78::3]:8080 unreachable: administratively prohibited, says fd77::254"),
    ("fd78::4", OPEN, "L4CON", "connection refused [fd78::4]:8080"),
    ("fd78::99", OPEN, "L4CON", "[fd78::99]:8080 unreachable: host unreachable, says fd77::254"),
    ("fd99::1", OPEN, "L4CON", "[fd99::1]:8080 unreachable: network unreachable, says fd77::254"),
    ("fd99:3::1", OPEN, "L4CON", "[fd99:3::1]:8080 unreachable: administratively prohibited, says fd77::254"),
];

#[test]
fn what_a_network_says_is_what_a_connect_is_told() {
    isolated("what_a_network_says_is_what_a_connect_is_told", || {
        let net = Net::new()?;
        net.router.within(router_rules)?;
        let listeners = net.target.within(listen);
        let mut eyes = Eyes::open(64)?;
        let monitored: Vec<Monitored> =
            NETWORK.iter().map(|(host, port, ..)| knock(host, *port).within(Duration::from_millis(700))).collect();
        let mut engine = eyes.engine(&monitored, 64);
        for ((host, port, code, evidence), outcome) in NETWORK.iter().zip(engine.check_all()) {
            println!("{host}:{port}: {} {:?} {:?}", outcome.code, outcome.evidence, outcome.latency);
            assert_outcome(&outcome, code, evidence);
            let connect = outcome.latency.connect;
            let is_measured = connect > Span::ZERO && connect < Span::from_millis(200);
            assert_eq!(is_measured, evidence.is_empty() || evidence.starts_with("connection refused"), "{connect}");
        }
        let silent = NETWORK.iter().filter(|row| row.2 == "L4TOUT").count();
        assert_eq!((engine.syns as usize, engine.connects as usize), (NETWORK.len(), silent), "silence is asked again");
        assert_eq!(net.target.within(connections), "", "nothing is left at the target");
        for listener in &listeners {
            let accepted = listener.accept().map_err(|error| error.kind()).map(|_| ());
            assert_eq!(accepted, Err(std::io::ErrorKind::WouldBlock), "it has heard of nothing");
        }
        // Connects agree, but for one word of ICMPv6, which the kernel gives them as what this host itself forbids. Of ICMPv6
        // errors that are there before its call has returned, as on links within one host, it speaks only when it sends the
        // SYN again, after a second.
        let is_told = |row: &Row| !(row.3.contains("prohibited") && row.0.contains("::"));
        let rows: Vec<(&Row, Monitored)> = NETWORK
            .iter()
            .zip(&monitored)
            .filter(|(row, _)| is_told(row))
            .map(|(row, monitored)| (row, connect(monitored).within(Duration::from_millis(2_500))))
            .collect();
        let mut engine = Engine::on(&rows.iter().map(|(_, connect)| connect).collect::<Vec<_>>(), 64);
        for ((host, port, code, _), outcome) in rows.iter().map(|(row, _)| row).zip(engine.check_all()) {
            assert_eq!(outcome.code.as_str(), *code, "{host}:{port} {:?}", outcome.evidence);
        }
        assert_eq!(engine.syns, 0);
        Ok(())
    });
}

#[test]
fn what_this_host_does_not_send_says_nothing() {
    isolated("what_this_host_does_not_send_says_nothing", || {
        unsendable()?;
        let rows = [
            ("10.50.0.1", "VOID:ENETUNREACH", "network unreachable"),
            ("10.99.1.1", "VOID:INTERNAL", "it takes the address for invalid (a blackhole route?)"),
            ("10.99.2.1", "VOID:ENETUNREACH", "host unreachable"),
            ("10.99.3.1", "VOID:EPERM", "forbidden by this host"),
            ("10.77.0.2", "VOID:EPERM", "forbidden by this host"),
            ("fd50::1", "VOID:ENETUNREACH", "network unreachable"),
            ("fd99:2::1", "VOID:ENETUNREACH", "host unreachable"),
            ("fd99:3::1", "VOID:EPERM", "forbidden by this host"),
            ("fd77::2", "VOID:EPERM", "forbidden by this host"),
        ];
        let _listeners = listen();
        let good = ["127.0.0.1", "10.77.0.1", "::1", "fd77::1", "0.0.0.0", "::"];
        let hosts = rows.iter().map(|row| row.0).chain(good);
        let monitored: Vec<_> = hosts.map(|host| knock(host, OPEN).within(Duration::from_millis(500))).collect();
        let mut eyes = Eyes::open(64)?;
        let mut engine = eyes.engine(&monitored, 64);
        let outcomes = engine.check_all();
        for ((host, code, why), outcome) in rows.iter().zip(&outcomes) {
            println!("{host}: {} {:?}", outcome.code, outcome.evidence);
            assert_outcome(outcome, code, &format!("this host sends no SYN to {}: {why}", to(host, OPEN)));
            assert_eq!(outcome.verdict(), Verdict::Void);
        }
        for (host, outcome) in good.iter().zip(&outcomes[rows.len()..]) {
            println!("{host}");
            assert_outcome(outcome, "L4OK", "");
        }
        assert_eq!(connections(), "");
        Ok(())
    });
}

#[test]
fn a_lost_syn_is_sent_again() {
    isolated("a_lost_syn_is_sent_again", || {
        let net = Net::new()?;
        net.router.within(router_rules)?;
        let _listeners = net.target.within(listen);
        // Every second one is dropped, beginning with the first.
        let monitored = [knock("10.78.0.5", OPEN), knock("fd78::5", OPEN)];
        let mut eyes = Eyes::open(8)?;
        let mut engine = eyes.engine(&monitored, 8);
        for outcome in engine.check_all() {
            assert_outcome(&outcome, "L4OK", "");
            let (connect, total) = (outcome.latency.connect, outcome.latency.total);
            assert!(total >= Span::from_secs(1) && total < Span::from_millis(1_500), "{total}");
            assert!(connect < Span::from_millis(200), "the answer's own time: {connect}");
        }
        assert_eq!(engine.syns, 4);
        assert_eq!(net.target.within(connections), "");
        Ok(())
    });
}

#[test]
fn where_an_interface_has_no_programs_a_connect_is_made() {
    isolated("where_an_interface_has_no_programs_a_connect_is_made", || {
        let net = Net::new()?;
        let _listeners = net.target.within(listen);
        // Not at the loopback.
        let mut eyes = Eyes::at(8, Interfaces::named(["a0".into()]))?;
        let monitored = [knock("10.78.0.1", OPEN), knock("fd78::1", CLOSED)];
        let mut engine = eyes.engine(&monitored, 8);
        let outcomes = engine.check_all();
        assert_outcome(&outcomes[0], "L4OK", "");
        assert_outcome(&outcomes[1], "L4CON", "connection refused [fd78::1]:8081");
        assert_eq!((engine.syns, engine.connects), (0, 2));
        Ok(())
    });
}

/// More targets than 16 bits number, on fewer slots.
#[test]
fn seventy_thousand_targets() {
    isolated("seventy_thousand_targets", || {
        const COUNT: u32 = 70_000;
        const SLOTS: u32 = 4_096;
        let first = u32::from(std::net::Ipv4Addr::new(127, 1, 0, 1));
        let monitored: Vec<Monitored> = (0..COUNT)
            .map(|n| {
                let host = IpAddr::from(std::net::Ipv4Addr::from(first + n));
                Monitored::half_open(SocketAddr::new(host, if n % 7 == 0 { CLOSED } else { OPEN }))
            })
            .collect();
        let _listeners = listen();
        let mut eyes = Eyes::open(SLOTS)?;
        let (first_port, count) = eyes.ports.range();
        assert!(count == 16 && !(32_768..=60_999).contains(&first_port), "{first_port}");
        let mut engine = eyes.engine(&monitored, SLOTS);
        let began = Clock.now();
        let outcomes = engine.check_all();
        println!("{COUNT} targets in {}", Clock.now().since(began));
        for (n, outcome) in outcomes.iter().enumerate() {
            let code = if n % 7 == 0 { "L4CON" } else { "L4OK" };
            assert_eq!(outcome.code.as_str(), code, "{n}: {:?}", outcome.evidence);
        }
        // A busy machine drops some on its loopback; those are sent again.
        assert!((COUNT..COUNT + COUNT / 10).contains(&engine.syns), "{}", engine.syns);
        assert_eq!(engine.connects, 0);
        let signals = engine.signals.as_ref().expect("it has them");
        let returned = signals.count(Count::Returned);
        assert!(returned >= u64::from(COUNT) && returned <= u64::from(engine.syns), "{returned}");
        assert_eq!(connections(), "", "nothing is left half-open");
        Ok(())
    });
}

/// The daemon itself, with a thousand targets five times a second: the loop that sleeps, wakes and batches.
#[test]
fn the_daemon_knocks() {
    isolated("the_daemon_knocks", || {
        const COUNT: u32 = 1_000;
        const SLOTS: u32 = 2_048;
        let folder = tempfile::tempdir().expect("a directory");
        let first = u32::from(std::net::Ipv4Addr::new(127, 1, 0, 1));
        let monitors = (0..COUNT).map(|n| {
            let host = IpAddr::from(std::net::Ipv4Addr::from(first + n));
            let mut policy = knock(&host.to_string(), OPEN).within(Duration::from_millis(150)).policy;
            policy.interval = Span::from_millis(200);
            policy.retry_interval = Span::from_millis(200);
            let target = Target { host: Host::Literal(host), port: OPEN, path: "".into() };
            Monitor { name: host.to_string().into(), enabled: true, target, policy }
        });
        let listeners = listen();
        let ports = Ports::reserve().map_err(|error| format!("no source ports: {error}"))?;
        let demand = Demand { shards: 1, slots: SLOTS, ports: ports.range(), seed: 0x5EED_0000 };
        let settings = ebpf::Settings { mode: Mode::Require, ..ebpf::Settings::default() };
        let signals = Signals::start(&settings, demand).map_err(|error| error.to_string())?;
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = api.local_addr().expect("it is bound");
        let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
        let plan = Plan {
            pulse: Setup::fixed(SLOTS),
            signals,
            syn_ports: Some(ports),
            ..Plan::new(catalog, api, folder.path().to_owned())
        };
        let daemon = daemon::start(plan).expect("the daemon starts");
        let metric = |sample: &str| metric(at, sample);
        let outcome = |code: &str| metric(&format!("cpra_checks_total{{type=\"tcp\",outcome=\"{code}\"}}"));
        let all = f64::from(COUNT);
        eventually("all are up", || metric("cpra_monitors{state=\"up\"}") == all);
        eventually("they are checked again and again", || outcome("L4OK") > 10.0 * all);
        let syns = metric("cpra_syn_packets_total{direction=\"out\"}");
        assert!(syns >= 10.0 * all && metric("cpra_syn_packets_total{direction=\"in\"}") >= 10.0 * all, "{syns}");
        for never in ["L4TOUT", "L4CON"] {
            assert_eq!(outcome(never), 0.0, "{never}");
        }
        // Some are under way at any time: the kernel's reset follows in microseconds.
        eventually("nothing is left half-open", || connections().is_empty());
        drop(listeners);
        eventually("the closed are down", || metric("cpra_monitors{state=\"down\"}") == all);
        // One more interface is seen as soon as it is there.
        ip("link add c0 type veth peer name c1
            link set c0 up
            link set c1 up")?;
        let listeners = listen();
        // Who is down gets whole connections, which somebody has to take.
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    listeners.iter().for_each(|listener| while listener.accept().is_ok() {});
                    thread::sleep(Duration::from_millis(1));
                }
            });
            eventually("all are up again", || metric("cpra_monitors{state=\"up\"}") == all);
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(metric("cpra_monitors_lost"), 0.0);
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
