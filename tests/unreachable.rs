//! ICMP errors and the pool's sockets: an error that meets a connect is its end, and not the next one's success.
//!
//! The kernel keeps such errors in a queue of the socket, where io_uring takes them for a connection. Here they come early
//! (before the connect's call has returned, as on links within one host) and late, by the dozen, and with black holes after
//! them on the same slots.

mod counterparts;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use cpra::domain::TcpCheck;
use cpra::os::clock::Clock;
use cpra::os::ebpf::{Demand, Interfaces, Loaded, Mode, Settings, Signals};
use cpra::os::uring::{Options, UringRing};
use cpra::ring::{Errno, Family, Op, OpKind, Ring as _, Wait};
use cpra::units::{Generation, Slot, Span};

use counterparts::engine::{Engine, Monitored};
use counterparts::net::{Net, ip, isolated, nft};

const PORT: u16 = 8_080;
/// Where all is well.
const GOOD: [&str; 2] = ["10.78.0.1", "fd78::1"];
/// From where nothing comes.
const SILENT: [&str; 2] = ["10.78.0.2", "fd78::2"];

/// Whom an error speaks of, as what it is taken for by a connect over IPv4 or IPv6, and what a check says to it.
const UNREACHABLE: [(&str, Errno, &str); 12] = [
    // By the router, while we are still in the call.
    ("10.78.0.3", Errno::EHOSTUNREACH, "L4CON"),
    ("10.78.0.4", Errno::EHOSTUNREACH, "L4CON"),
    ("10.78.0.5", Errno::ECONNREFUSED, "L4CON"),
    ("10.78.0.6", Errno::ENETUNREACH, "L4CON"),
    // By the target's host.
    ("10.78.0.7", Errno::EHOSTUNREACH, "L4CON"),
    // By this host, on the way out.
    ("10.78.0.8", Errno::EHOSTUNREACH, "L4CON"),
    ("10.78.0.9", Errno::ECONNREFUSED, "L4CON"),
    // By the router, when it has looked for a neighbour in vain.
    ("10.78.0.99", Errno::EHOSTUNREACH, "L4CON"),
    ("fd78::99", Errno::EHOSTUNREACH, "L4CON"),
    // By the router at once: here the kernel takes note only of what comes to the next SYN.
    ("fd78::3", Errno::EACCES, "VOID:EPERM"),
    ("fd78::4", Errno::EHOSTUNREACH, "L4CON"),
    ("fd78::5", Errno::ECONNREFUSED, "L4CON"),
];

fn rules(net: &Net) -> Result<(), String> {
    let forwarded = "table inet t {
       chain forward {
         type filter hook forward priority 0; policy accept;
         ip daddr 10.78.0.2 drop
         ip6 daddr fd78::2 drop
         ip daddr 10.78.0.3 reject with icmp type host-unreachable
         ip daddr 10.78.0.4 reject with icmp type admin-prohibited
         ip daddr 10.78.0.5 reject with icmp type port-unreachable
         ip daddr 10.78.0.6 reject with icmp type net-unreachable
         ip6 daddr fd78::3 reject with icmpv6 type admin-prohibited
         ip6 daddr fd78::4 reject with icmpv6 type addr-unreachable
         ip6 daddr fd78::5 reject with icmpv6 type port-unreachable
       }
     }";
    let received = "table inet t {
       chain input {
         type filter hook input priority 0; policy accept;
         ip daddr 10.78.0.7 reject with icmp type admin-prohibited
       }
     }";
    let sent = "table inet t {
       chain output {
         type filter hook output priority 0; policy accept;
         ip daddr 10.78.0.8 reject with icmp type host-unreachable
         ip daddr 10.78.0.9 reject with icmp type port-unreachable
       }
     }";
    net.router.within(|| nft(forwarded))?;
    net.target.within(|| nft(received))?;
    nft(sent)
}

fn address(host: &str) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), PORT)
}

fn listen(net: &Net) -> TcpListener {
    // One for both families.
    let listener = net.target.within(|| TcpListener::bind(("::", PORT)).expect("the port is free"));
    listener.set_nonblocking(true).expect("a listener can be asked");
    listener
}

/// Slots of a ring, told what to connect to.
struct Pool {
    ring: UringRing,
    generation: u32,
    /// Connects whose connection the kernel has told of.
    stamped: usize,
    _loaded: Option<Box<Loaded>>,
}

impl Pool {
    /// With few slots to an io_uring instance.
    fn new(slots: u32, family: Family) -> Self {
        let ring = UringRing::new(Options { unit_slots: 24, ..Options::default() }).expect("io_uring works here");
        let mut this = Self { ring, generation: 0, stamped: 0, _loaded: None };
        this.open(slots, family);
        this
    }

    /// The same, and the kernel tells of handshakes.
    fn timed(slots: u32, family: Family) -> Result<Self, String> {
        let mut this = Self::new(0, family);
        let settings = Settings { mode: Mode::Require, interfaces: Interfaces::default(), ..Settings::default() };
        let demand = Demand { shards: 1, slots, ports: (0, 0), seed: 0x5EED_0001 };
        let mut loaded = match Signals::start(&settings, demand) {
            Ok(Signals::On(loaded)) => loaded,
            Ok(other) => return Err(format!("no eBPF programs: {other}")),
            Err(error) => return Err(error.to_string()),
        };
        let connects = loaded.shards().into_iter().next().and_then(|mut signals| signals.connects());
        this.ring.time_connects(Some(connects.ok_or("the tracepoint has no program")?));
        this._loaded = Some(loaded);
        this.open(slots, family);
        Ok(this)
    }

    fn open(&mut self, slots: u32, family: Family) {
        (0..slots).for_each(|slot| self.ring.open(Slot(slot), family).expect("a socket"));
    }

    /// Connects each of some slots, disconnects those that take longer than `patience`, and then the others: what became of
    /// each connect, none if our own disconnect ended it.
    fn connect(&mut self, targets: &[(u32, &str)], patience: Span) -> BTreeMap<u32, Option<Result<u32, Errno>>> {
        self.generation += 1;
        for (slot, host) in targets {
            self.ring.submit(Slot(*slot), Generation(self.generation), &Op::Connect(address(host)), &[]);
        }
        let mut ends = BTreeMap::new();
        let until = Clock.now() + patience;
        while ends.len() < targets.len() && Clock.now() < until {
            self.turn(&mut |slot, kind, result| {
                assert_eq!(kind, OpKind::Connect);
                ends.insert(slot, Some(result));
            });
        }
        let mut disconnects = 0;
        for (slot, _) in targets {
            self.ring.submit(Slot(*slot), Generation(self.generation), &Op::Disconnect, &[]);
        }
        while ends.len() < targets.len() || disconnects < targets.len() {
            self.turn(&mut |slot, kind, result| match kind {
                OpKind::Connect => {
                    assert!(result.is_err(), "{slot}: {result:?}");
                    ends.insert(slot, None);
                }
                _ => disconnects += 1,
            });
        }
        assert_eq!(self.ring.in_flight(), 0, "every slot is quiet");
        ends
    }

    fn turn(&mut self, take: &mut dyn FnMut(u32, OpKind, Result<u32, Errno>)) {
        self.ring.enter(Wait { batch: 1, bound: Span::from_millis(10) }).expect("the ring works");
        let (generation, stamped) = (self.generation, &mut self.stamped);
        self.ring.reap(&mut |completion| {
            assert_eq!(completion.generation, Generation(generation), "{completion:?}");
            assert!(!completion.local, "this host has a way to all of them: {completion:?}");
            *stamped += usize::from(completion.handshake.is_some());
            take(completion.slot.0, completion.kind, completion.result);
        });
    }

    /// One after another on the same slot, so that what is left of each meets the next.
    fn one_slot(&mut self, family: Family) {
        let (good, silent) = (GOOD[family as usize], SILENT[family as usize]);
        let [short, long] = [Span::from_millis(300), Span::from_secs(5)];
        let mut one = |host, patience| self.connect(&[(0, host)], patience)[&0];
        assert_eq!(one(good, long), Some(Ok(0)));
        let of_family = |host: &&(&'static str, Errno, &str)| Family::of(&address(host.0)) == family;
        for (host, errno, _) in UNREACHABLE.iter().filter(of_family) {
            assert_eq!(one(host, long), Some(Err(*errno)), "{host}");
            assert_eq!(one(silent, short), None, "the black hole after {host}");
            // Two in a row, the second of which has no time for an answer that is not there yet.
            assert_eq!(one(host, long), Some(Err(*errno)), "{host}");
            let hasty = one(host, Span::ZERO);
            assert!(hasty.is_none_or(|result| result == Err(*errno)), "{host} at once: {hasty:?}");
            assert_eq!(one(silent, short), None, "the black hole after {host}");
            assert_eq!(one(good, long), Some(Ok(0)), "after {host}");
        }
    }

    /// All of them at once and in each order, on slots of several io_uring instances.
    fn many_slots(&mut self, slots: u32, listener: &TcpListener) {
        let rows: Vec<(&str, Option<Result<u32, Errno>>)> = UNREACHABLE
            .iter()
            .filter(|(host, ..)| address(host).is_ipv4())
            .map(|(host, errno, _)| (*host, Some(Err(*errno))))
            .chain([(GOOD[0], Some(Ok(0))), (SILENT[0], None), (GOOD[0], Some(Ok(0))), (SILENT[0], None)])
            .collect();
        for round in 0..6 {
            let row = |slot: u32| rows[((slot + round) * (1 + slot / 12) + round * round) as usize % rows.len()];
            let targets: Vec<(u32, &str)> = (0..slots).map(|slot| (slot, row(slot).0)).collect();
            for (slot, end) in self.connect(&targets, Span::from_secs(1)) {
                assert_eq!(end, row(slot).1, "{} on {slot} in round {round}", row(slot).0);
            }
            // What is not taken would fill its queue.
            while listener.accept().is_ok() {}
        }
    }
}

#[test]
fn an_error_ends_its_own_connect_and_no_other() {
    isolated("an_error_ends_its_own_connect_and_no_other", || {
        let net = Net::new()?;
        rules(&net)?;
        let listener = listen(&net);
        for family in [Family::V4, Family::V6] {
            Pool::new(1, family).one_slot(family);
        }
        Pool::new(60, Family::V4).many_slots(60, &listener);
        Ok(())
    });
}

#[test]
fn the_kernels_word_on_handshakes_changes_nothing() {
    isolated("the_kernels_word_on_handshakes_changes_nothing", || {
        let net = Net::new()?;
        rules(&net)?;
        let listener = listen(&net);
        for family in [Family::V4, Family::V6] {
            let mut pool = Pool::timed(1, family)?;
            pool.one_slot(family);
            let good = 1 + UNREACHABLE.iter().filter(|(host, ..)| Family::of(&address(host)) == family).count();
            assert_eq!(pool.stamped, good, "sockets made anew are known to the program");
        }
        // The last slots have no ticket.
        let mut pool = Pool::timed(40, Family::V4)?;
        pool.many_slots(40, &listener);
        assert!(pool.stamped > 0);
        Ok(())
    });
}

/// An IPv6 socket speaks IPv4 as well, and its error queue then fills as that of an IPv4 socket does.
#[test]
fn mapped_addresses_are_no_exception() {
    isolated("mapped_addresses_are_no_exception", || {
        let net = Net::new()?;
        rules(&net)?;
        let _listener = listen(&net);
        let mut pool = Pool::new(1, Family::V6);
        for _ in 0..3 {
            let [gone, silent, good] = ["::ffff:10.78.0.3", "::ffff:10.78.0.2", "::ffff:10.78.0.1"];
            for (host, end) in [(gone, Some(Err(Errno::EHOSTUNREACH))), (silent, None), (good, Some(Ok(0)))] {
                assert_eq!(pool.connect(&[(0, host)], Span::from_millis(300))[&0], end, "{host}");
            }
        }
        Ok(())
    });
}

/// The checks themselves.
#[test]
fn verdicts_are_those_of_the_errors() {
    isolated("verdicts_are_those_of_the_errors", || {
        let net = Net::new()?;
        rules(&net)?;
        // This host has no way there, and says so itself.
        ip("route add unreachable 10.99.2.0/24")?;
        let _listener = listen(&net);
        let own = [("10.99.2.1", Errno::EHOSTUNREACH, "VOID:ENETUNREACH")];
        for (host, errno, code) in UNREACHABLE.iter().chain(&own) {
            let silent = if address(host).is_ipv4() { SILENT[0] } else { SILENT[1] };
            let good = if address(host).is_ipv4() { GOOD[0] } else { GOOD[1] };
            let check = |host, patience| Monitored::tcp(address(host), TcpCheck::default()).within(patience);
            let monitored = [
                check(host, Duration::from_secs(5)),
                check(silent, Duration::from_millis(300)),
                check(good, Duration::from_secs(5)),
            ];
            let mut engine = Engine::on(&monitored.iter().collect::<Vec<_>>(), 1);
            for (n, code) in [(0, *code), (1, "L4TOUT"), (0, *code), (0, *code), (1, "L4TOUT"), (2, "L4OK")] {
                let outcome = engine.check(n);
                engine.rest();
                assert_eq!(outcome.code.as_str(), code, "{host} {n}: {:?}", outcome.evidence);
                if n == 0 {
                    let words = format!("{errno} {}", address(host));
                    assert_eq!(outcome.evidence.as_deref(), Some(&*words));
                }
            }
        }
        Ok(())
    });
}
