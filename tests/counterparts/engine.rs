//! The engine that runs a probe in the daemon, a shard on io_uring, turned by hand so that a test gets each outcome
//! whole and sees what became of the connection.
//!
//! What is left out is the desk and the queues: the answers to a shard's effects come from here, at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use cpra::domain::monitor::About;
use cpra::domain::monitor::TlsPolicy;
use cpra::domain::{Check, Codes, Host, HttpCheck, Monitor, Outcome, Policy, StatusSet, Target, TcpCheck};
use cpra::os::clock::Clock;
use cpra::os::tls;
use cpra::os::uring::{Options, UringRing};
use cpra::ring::{OpKind, Ring as _, Wait};
use cpra::shard::protocol::{Command, CommandKind, HostSample, Resolution};
use cpra::shard::{Effect, Effects, Event, Settings, Shard};
use cpra::units::{MonitorId, Slot, Span};
use cpra::world::Catalog;

/// One check, as a monitor would have it.
#[derive(Clone, Debug)]
pub struct Monitored {
    pub address: SocketAddr,
    pub host: Host,
    pub path: Box<str>,
    pub policy: Policy,
}

impl Monitored {
    /// `GET path`, expecting 200 to 299 within two seconds.
    pub fn get(address: SocketAddr, path: &str) -> Self {
        let check = HttpCheck {
            method: "GET".into(),
            headers: Box::new([]),
            body: Box::new([]),
            expected: StatusSet::success(),
            keep_alive: false,
            ..HttpCheck::default()
        };
        let policy = Policy {
            check: Check::Http(check),
            interval: Span::from_secs(10),
            timeout: Span::from_secs(2),
            retry_interval: Span::from_secs(10),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            retries: 0,
            max_latency: None,
            about: About::default(),
            groups: Box::new([]),
            codes: Codes::default(),
        };
        Self { address, host: Host::Literal(address.ip()), path: path.into(), policy }
    }

    /// A connection, and what is said on it, within two seconds.
    pub fn tcp(address: SocketAddr, check: TcpCheck) -> Self {
        let mut monitored = Self::get(address, "");
        monitored.policy.check = Check::Tcp(check);
        monitored
    }

    /// A TLS handshake within two seconds.
    pub fn tls(address: SocketAddr, tls: TlsPolicy) -> Self {
        Self::tcp(address, TcpCheck { tls: Some(tls), ..TcpCheck::default() })
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut HttpCheck)) -> Self {
        if let Check::Http(check) = &mut self.policy.check {
            change(check);
        }
        self
    }

    #[must_use]
    pub fn kept(self) -> Self {
        self.with(|check| check.keep_alive = true)
    }

    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.policy.timeout = Span::from_nanos(u64::try_from(timeout.as_nanos()).expect("a short time"));
        self
    }

    #[must_use]
    pub fn retried(mut self, retries: u8) -> Self {
        self.policy.retries = retries;
        self
    }

    fn monitor(&self, name: &str) -> Monitor {
        let target = Target { host: self.host.clone(), port: self.address.port(), path: self.path.clone() };
        Monitor { name: name.into(), enabled: false, target, policy: self.policy.clone() }
    }
}

/// The monitors of one test on one shard with a ring of its own. Nothing is checked unless it is asked for.
pub struct Engine {
    shard: Shard,
    ring: UringRing,
    ids: Vec<MonitorId>,
    mail: Vec<Event<'static>>,
    effects: Effects,
    epoch: u8,
    /// What the resolver says; of other names, what this host's says.
    pub names: BTreeMap<Box<str>, Resolution>,
    /// Slots on which the peer's FIN came after the connect.
    fins: BTreeSet<Slot>,
    /// Connects that were tried.
    pub connects: u32,
    /// Requests that were sent, or tried to.
    pub requests: u32,
    /// Whether the peer had closed the connection that was given up last.
    pub fin_came: bool,
}

/// More than any test needs.
const PATIENCE: Span = Span::from_secs(60);

impl Engine {
    pub fn of(monitored: &[&Monitored]) -> Self {
        let names: Vec<String> = (0..monitored.len()).map(|index| format!("monitor-{index}")).collect();
        let monitors = monitored.iter().zip(&names).map(|(monitored, name)| monitored.monitor(name));
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("the monitors are sound"));
        let ids = names.iter().map(|name| catalog.find(name).expect("it is there")).collect();
        let settings = Settings { shard: 0, slots_max: 8, seed: 1 };
        let mut loader = tls::Loader::default();
        for monitored in monitored {
            loader.add(&monitored.policy).expect("the files of its TLS are sound");
        }
        Self {
            shard: Shard::new(&settings, catalog, Clock.now()).secured_by(loader.finish()),
            ring: UringRing::new(Options { unit_slots: 8, ..Options::default() }).expect("this host has io_uring"),
            ids,
            mail: Vec::new(),
            effects: Effects::default(),
            epoch: 0,
            names: BTreeMap::new(),
            fins: BTreeSet::new(),
            connects: 0,
            requests: 0,
            fin_came: false,
        }
    }

    /// Checks a monitor now, and waits for the outcome. Its connection may still be on its way out afterwards.
    pub fn check(&mut self, index: usize) -> Outcome {
        self.epoch += 1;
        // Only changes of health are told, and to a monitor just enabled every outcome is one.
        self.command(index, CommandKind::Enable { epoch: self.epoch });
        self.command(index, CommandKind::CheckNow);
        let until = Clock.now() + PATIENCE;
        let outcome = loop {
            assert!(Clock.now() < until, "no outcome of monitor {index}");
            if let Some(outcome) = self.turn() {
                break outcome;
            }
        };
        self.epoch += 1;
        self.command(index, CommandKind::Disable { epoch: self.epoch });
        self.turn();
        outcome
    }

    /// Turns until nothing is left but kept connections, and answers how many those are.
    pub fn rest(&mut self) -> u64 {
        let until = Clock.now() + PATIENCE;
        loop {
            self.turn();
            let idle = self.shard.stats().idle_connections;
            // On a kept connection a receive waits for its end.
            if self.ring.in_flight() as u64 == idle {
                return idle;
            }
            assert!(Clock.now() < until, "an operation never ends");
        }
    }

    /// Turns for this long.
    pub fn idle(&mut self, duration: Duration) {
        let until = Clock.now() + Span::from_nanos(u64::try_from(duration.as_nanos()).expect("a short time"));
        while Clock.now() < until {
            self.turn();
        }
    }

    fn command(&mut self, index: usize, kind: CommandKind) {
        self.mail.push(Event::Command(Command { monitor: self.ids[index], kind }));
    }

    /// One turn of the loop, as `os::shard_loop` does it.
    fn turn(&mut self) -> Option<Outcome> {
        let now = Clock.now();
        if self.shard.expires_by(now) {
            self.ring.enter(Wait::NONE).expect("the ring is whole");
        }
        let mut events = Vec::new();
        let fins = &mut self.fins;
        self.ring.reap(&mut |completion| {
            match (completion.kind, completion.result) {
                (OpKind::Connect, _) => {
                    fins.remove(&completion.slot);
                }
                (OpKind::Recv, Ok(0)) => {
                    fins.insert(completion.slot);
                }
                _ => {}
            }
            events.push(Event::Completed(completion));
        });
        events.append(&mut lend(std::mem::take(&mut self.mail)));
        self.shard.step(now, &events, &mut self.effects);
        drop(events);
        let outcome = self.carry_out();
        let now = Clock.now();
        let bound = Span::from_millis(20);
        let bound = self.shard.next_deadline().map_or(bound, |deadline| deadline.since(now).min(bound));
        let wait = if self.mail.is_empty() && bound > Span::ZERO { Wait { batch: 1, bound } } else { Wait::NONE };
        self.ring.enter(wait).expect("the ring is whole");
        outcome
    }

    fn carry_out(&mut self) -> Option<Outcome> {
        let Effects { list, bytes } = &mut self.effects;
        let mut outcome = None;
        for effect in list.drain(..) {
            match effect {
                Effect::Open { slot, family } => self.ring.open(slot, family).expect("a socket can be made"),
                Effect::Close { slot } => self.ring.close(slot),
                Effect::Submit { slot, generation, op, bytes: range } => {
                    match op.kind() {
                        OpKind::Connect => self.connects += 1,
                        OpKind::Send => self.requests += 1,
                        OpKind::Disconnect => self.fin_came = self.fins.contains(&slot),
                        OpKind::Recv => {}
                    }
                    self.ring.submit(slot, generation, &op, &bytes[range.start as usize..range.end as usize]);
                }
                Effect::Resolve { name } if let Some(result) = self.names.get(&name) => {
                    self.mail.push(Event::Resolved { name, result: result.clone() });
                }
                Effect::Resolve { name } => {
                    let found = (&*name, 0).to_socket_addrs().expect("the name is known here");
                    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
                    addresses.sort_unstable();
                    let result = Resolution::Found { addresses, ttl: Span::from_secs(30) };
                    self.mail.push(Event::Resolved { name, result });
                }
                Effect::SampleHost => {
                    let sample = HostSample { taken: Clock.now(), drops: 0, table_full: false };
                    self.mail.push(Event::HostSampled(sample));
                }
                Effect::Transition(transition) => outcome = Some(transition.outcome),
                Effect::Errand { .. } | Effect::Recall { .. } | Effect::Ping { .. } => {
                    unreachable!("only checks of sockets run here")
                }
                Effect::Report { .. } => unreachable!("nobody asks"),
            }
        }
        bytes.clear();
        outcome
    }
}

/// Events that lend nothing may stand beside those that do.
fn lend<'a>(events: Vec<Event<'static>>) -> Vec<Event<'a>> {
    events
}
