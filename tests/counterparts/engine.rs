//! The engine that runs a probe in the daemon, a shard on io_uring, turned by hand so that a test gets each outcome
//! whole and sees what became of the connection.
//!
//! What is left out is the desk and the queues: the answers to a shard's effects come from here, at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use cpra::domain::monitor::{IcmpCheck, ScriptCheck, TcpMode, TlsPolicy};
use cpra::domain::{Check, Host, HttpCheck, Monitor, Outcome, Policy, Target, TcpCheck};
use cpra::os::clock::Clock;
use cpra::os::ebpf::{Demand, Follower, Hook, Kind, Mode, Settings as Wanted, ShardSignals, Signals};
use cpra::os::ping::{Means, Ping, Pinger};
use cpra::os::resolve::{self, Resolver, Return};
use cpra::os::spawn::{self, News, Scripts, Want};
use cpra::os::syn::{Knock, Knocker};
use cpra::os::tls;
use cpra::os::uring::{Options, UringRing};
use cpra::pipeline::Bell;
use cpra::probe::errand::{Echo, Errand};
use cpra::queueing::Setup;
use cpra::ring::{OpKind, Ring as _, Wait};
use cpra::shard::protocol::{Command, CommandKind, HostSample, Resolution};
use cpra::shard::{Effect, Effects, Event, Settings, Shard};
use cpra::units::{Generation, MonitorId, Slot, Span};
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
        let check = HttpCheck::default();
        Self::of(Check::Http(check), address, path)
    }

    /// Runs a program, which has two seconds.
    pub fn script(argv: &[&str]) -> Self {
        let argv = argv.iter().map(|&argument| argument.into()).collect();
        let check = ScriptCheck { argv, env: Box::default(), cwd: None };
        Self::of(Check::Script(check), SocketAddr::from(([0, 0, 0, 0], 0)), "")
    }

    fn of(check: Check, address: SocketAddr, path: &str) -> Self {
        let policy = Policy::new(check, Span::from_secs(10), Span::from_secs(2));
        Self { address, host: Host::Literal(address.ip()), path: path.into(), policy }
    }

    /// A connection, and what is said on it, within two seconds.
    pub fn tcp(address: SocketAddr, check: TcpCheck) -> Self {
        let mut monitored = Self::get(address, "");
        monitored.policy.check = Check::Tcp(check);
        monitored
    }

    /// Half a connection, within two seconds.
    pub fn half_open(address: SocketAddr) -> Self {
        Self::tcp(address, TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() })
    }

    /// A TLS handshake within two seconds.
    pub fn tls(address: SocketAddr, tls: TlsPolicy) -> Self {
        Self::tcp(address, TcpCheck { tls: Some(tls), ..TcpCheck::default() })
    }

    /// One echo request, within two seconds.
    pub fn ping(address: IpAddr) -> Self {
        let mut monitored = Self::get((address, 0).into(), "");
        monitored.policy.check = Check::Icmp(IcmpCheck { count: 1, max_loss: 0, max_rtt: None });
        monitored
    }

    /// So many, of which so many per cent may get lost.
    #[must_use]
    pub fn counted(mut self, requests: u8, lost: u8) -> Self {
        if let Check::Icmp(check) = &mut self.policy.check {
            check.count = requests;
            check.max_loss = lost;
        }
        self
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut HttpCheck)) -> Self {
        if let Check::Http(check) = &mut self.policy.check {
            change(check);
        }
        self
    }

    #[must_use]
    pub fn script_with(mut self, change: impl FnOnce(&mut ScriptCheck)) -> Self {
        if let Check::Script(script) = &mut self.policy.check {
            change(script);
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

/// Who tells of the answers to echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sockets,
    /// Programs in the kernel, of the namespace that the engine is made in, and the sockets for what these leave.
    Signals(Hook),
}

impl Backend {
    /// Programs where the kernel likes them best.
    pub const SIGNALS: Self = Self::Signals(Hook::Auto);

    /// Loads the programs for one shard; `None` for sockets alone. The error is for a skip.
    pub fn start(self, slots: u32) -> Result<Option<(ShardSignals, Programs)>, String> {
        let Self::Signals(hook) = self else { return Ok(None) };
        let wanted = Wanted { mode: Mode::Require, hook, ..Wanted::default() };
        let demand = Demand { shards: 1, slots, ports: (0, 0), seed: fastrand::u32(..) };
        let Signals::On(mut loaded) = Signals::start(&wanted, demand).map_err(|error| error.to_string())? else {
            return Err("there are no signals".to_owned());
        };
        let signals = loaded.shards().pop().expect("of one shard");
        Ok(Some((signals, Programs(Some(loaded.follow().expect("a thread can be made"))))))
    }

    /// Whether this machine has it; the error is for a skip.
    pub fn is_there(self) -> Result<(), String> {
        self.start(1).map(drop)
    }
}

/// Programs at the interfaces, which leave them with it.
pub struct Programs(Option<Follower>);

impl Drop for Programs {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Follower::stop);
    }
}

/// The monitors of one test on one shard with a ring of its own. Nothing is checked unless it is asked for.
pub struct Engine {
    shard: Shard,
    ring: UringRing,
    pub pinger: Pinger,
    /// Programs in the kernel, and who sends what only they see answered.
    pub signals: Option<ShardSignals>,
    _programs: Option<Programs>,
    knocker: Option<Knocker>,
    half_open: bool,
    /// SYNs that were to be sent.
    pub syns: u32,
    /// What echo requests were answered, by whatever way.
    answered: BTreeSet<(Slot, Generation, u16)>,
    ids: Vec<MonitorId>,
    mail: Vec<Event<'static>>,
    /// Without one, names are looked up on the spot, and no dns check can be made.
    resolver: Option<Resolver>,
    effects: Effects,
    scripts: Option<(Scripts, spawn::Handle)>,
    script_settings: spawn::Settings,
    epoch: u8,
    /// What the resolver says; of other names, what this host's says.
    pub names: BTreeMap<Box<str>, Resolution>,
    /// Slots on which the peer's FIN came after the connect.
    fins: BTreeSet<Slot>,
    /// What the last turn judged.
    judged: Vec<(MonitorId, Outcome)>,
    /// Echo requests that were to be sent.
    pub pings: u32,
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
        Self::on(monitored, 8)
    }

    /// With so many slots.
    pub fn on(monitored: &[&Monitored], slots_max: u32) -> Self {
        Self::by(Backend::Sockets, monitored, slots_max)
    }

    /// With so many slots, and answers by this way.
    pub fn by(backend: Backend, monitored: &[&Monitored], slots_max: u32) -> Self {
        let names: Vec<String> = (0..monitored.len()).map(|index| format!("monitor-{index}")).collect();
        let monitors = monitored.iter().zip(&names).map(|(monitored, name)| monitored.monitor(name));
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("the monitors are sound"));
        let ids = names.iter().map(|name| catalog.find(name).expect("it is there")).collect();
        let settings = Settings { shard: 0, sizing: Setup::fixed(slots_max), seed: 1 };
        let mut ring =
            UringRing::new(Options { unit_slots: slots_max, ..Options::default() }).expect("this host has io_uring");
        let mut pinger = Pinger::new().expect("there are random bytes");
        let (signals, programs) = backend.start(slots_max).expect("the kernel takes the programs").unzip();
        if let Some(signals) = &signals {
            ring.watch_socket(signals.ring()).expect("a ring can be watched");
            signals.heed(true);
            pinger.tag(signals.tag());
        }
        pinger.open();
        pinger.sockets().for_each(|socket| ring.watch_socket(socket).expect("a socket can be watched"));
        let mut loader = tls::Loader::default();
        for monitored in monitored {
            loader.add(&monitored.policy).expect("the files of its TLS are sound");
        }
        Self {
            shard: Shard::new(&settings, catalog, Clock.now()).secured_by(loader.finish()),
            ring,
            pinger,
            signals,
            _programs: programs,
            knocker: None,
            half_open: false,
            syns: 0,
            answered: BTreeSet::new(),
            ids,
            mail: Vec::new(),
            resolver: None,
            effects: Effects::default(),
            scripts: None,
            script_settings: spawn::Settings::default(),
            epoch: 0,
            names: BTreeMap::new(),
            fins: BTreeSet::new(),
            judged: Vec::new(),
            pings: 0,
            connects: 0,
            requests: 0,
            fin_came: false,
        }
    }

    /// With programs in the kernel, before the first check.
    #[must_use]
    pub fn seeing(mut self, signals: ShardSignals) -> Self {
        self.ring.watch_socket(signals.ring()).expect("a ring can be watched");
        self.signals = Some(signals);
        self.knocker = Some(Knocker::open().expect("there are random bytes"));
        self
    }

    /// Before the first script.
    #[must_use]
    pub fn with_scripts(mut self, settings: spawn::Settings) -> Self {
        self.script_settings = settings;
        self
    }

    /// With the daemon's own resolver.
    #[must_use]
    pub fn resolving(mut self, settings: resolve::Settings) -> Self {
        let started = resolve::spawn(settings, 1024, vec![Bell::mute()]).expect("a thread can be made");
        self.resolver = started.resolvers.into_iter().next();
        self
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

    /// Checks each of the monitors once, all at the same time.
    pub fn check_all(&mut self) -> Vec<Outcome> {
        self.begin_all();
        self.end_all()
    }

    /// Wants each of them checked once, from the next turn on.
    pub fn begin_all(&mut self) {
        self.epoch += 1;
        for index in 0..self.ids.len() {
            self.command(index, CommandKind::Enable { epoch: self.epoch });
            self.command(index, CommandKind::CheckNow);
        }
    }

    /// What those came to.
    pub fn end_all(&mut self) -> Vec<Outcome> {
        let until = Clock.now() + PATIENCE;
        let mut outcomes = BTreeMap::new();
        while outcomes.len() < self.ids.len() {
            assert!(Clock.now() < until, "outcomes of {} monitors of {}", outcomes.len(), self.ids.len());
            self.turn();
            outcomes.extend(self.judged.drain(..));
        }
        self.epoch += 1;
        for index in 0..self.ids.len() {
            self.command(index, CommandKind::Disable { epoch: self.epoch });
        }
        self.turn();
        self.ids.iter().filter_map(|id| outcomes.remove(id)).collect()
    }

    /// Answered requests, each counted once, by whatever way and however often that came.
    pub fn answers(&self) -> u64 {
        self.answered.len() as u64
    }

    /// What programs in the kernel told of; nothing without them.
    pub fn heard(&self) -> u64 {
        self.signals.as_ref().map_or(0, |signals| signals.heard(Kind::Echo))
    }

    /// There were answers, and 99 in a hundred of them came by this way.
    #[track_caller]
    pub fn assert_backend(&self, backend: Backend) {
        let (answers, heard) = (self.answers(), self.heard());
        let share = match backend {
            Backend::Sockets => heard == 0,
            Backend::Signals(_) => heard <= answers && heard * 100 >= answers * 99,
        };
        assert!(answers > 0 && share, "{heard} of {answers} answers by signals, and {backend:?} was to tell");
    }

    /// By what echo requests leave.
    pub fn means(&mut self) -> [Means; 2] {
        self.pinger.open()
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
    pub fn turn(&mut self) -> Option<Outcome> {
        let now = Clock.now();
        if self.shard.expires_by(now) {
            self.ring.enter(Wait::NONE).expect("the ring is whole");
        }
        if let Some(signals) = &mut self.signals {
            signals.hear(&mut self.mail);
            let can = self.knocker.as_ref().is_some_and(|knocker| knocker.can_knock(signals));
            if std::mem::replace(&mut self.half_open, can) != can {
                self.mail.push(Event::HalfOpen(can));
            }
        }
        self.pinger.receive(&mut self.mail);
        self.answered.extend(self.mail.iter().filter_map(|event| match *event {
            Event::Echoed { slot, generation, sequence, echo: Echo::Reply { .. } | Echo::Error { .. } } => {
                Some((slot, generation, sequence))
            }
            _ => None,
        }));
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
        if let Some(resolver) = &mut self.resolver {
            while let Some((name, result)) = resolver.answers.recv() {
                self.mail.push(Event::Resolved { name, result });
            }
            while let Some(Return { slot, generation, end }) = resolver.returns.recv() {
                self.mail.push(Event::Returned { slot, generation, end });
            }
        }
        events.append(&mut lend(std::mem::take(&mut self.mail)));
        if let Some((scripts, _)) = &mut self.scripts {
            events.extend(std::iter::from_fn(|| scripts.news.recv()).map(|news| match news {
                News::Begun { slot, generation, at } => Event::Begun { slot, generation, at },
                News::Returned { slot, generation, end } => Event::Returned { slot, generation, end },
            }));
        }
        self.shard.step(now, &events, &mut self.effects);
        drop(events);
        let outcome = self.carry_out();
        let now = Clock.now();
        // What scripts and the resolver have to say does not end a sleep in the ring.
        let bound = Span::from_millis(if self.scripts.is_some() || self.resolver.is_some() { 1 } else { 20 });
        let bound = self.shard.next_deadline().map_or(bound, |deadline| deadline.since(now).min(bound));
        let wait = if self.mail.is_empty() && bound > Span::ZERO { Wait { batch: 1, bound } } else { Wait::NONE };
        self.ring.enter(wait).expect("the ring is whole");
        outcome
    }

    fn carry_out(&mut self) -> Option<Outcome> {
        let Effects { list, bytes } = &mut self.effects;
        self.judged.clear();
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
                Effect::Resolve { name } if let Some(resolver) = &mut self.resolver => {
                    resolver.requests.send(name).expect("there is room");
                }
                Effect::Errand { slot, generation, errand: Errand::Dns { policy, server, name } }
                    if let Some(resolver) = &mut self.resolver =>
                {
                    let order = resolve::Order::Ask { slot, generation, policy, server, name };
                    resolver.orders.send(order).expect("there is room");
                }
                Effect::Recall { slot, generation } if let Some(resolver) = &mut self.resolver => {
                    resolver.orders.send(resolve::Order::Recall { slot, generation }).expect("there is room");
                }
                Effect::Resolve { name } => {
                    let found = (&*name, 0).to_socket_addrs().expect("the name is known here");
                    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
                    addresses.sort_unstable();
                    let result = Resolution::Found { addresses, ttl: Span::from_secs(30) };
                    self.mail.push(Event::Resolved { name, result });
                }
                Effect::SampleHost => {
                    let sample = HostSample { taken: Clock.now(), drops: self.pinger.dropped(), table_full: false };
                    self.mail.push(Event::HostSampled(sample));
                }
                Effect::Transition(transition) => self.judged.push((transition.monitor, transition.outcome)),
                Effect::Ping { slot, generation, address, sequence } => {
                    self.pings += 1;
                    self.pinger.push(Ping { slot, generation, address, sequence });
                }
                Effect::Syn { slot, generation, address, attempt } => {
                    self.syns += 1;
                    let knocker = self.knocker.as_mut().expect("it was never said that there are half-open checks");
                    knocker.push(Knock { slot, generation, address, attempt });
                }
                Effect::Errand { slot, generation, errand: Errand::Script(policy) } => {
                    let (scripts, _) = self.scripts.get_or_insert_with(|| {
                        let settings = self.script_settings.clone();
                        let (mut scripts, handle) =
                            spawn::spawn(settings, 64, vec![Bell::mute()]).expect("a thread can be had");
                        (scripts.remove(0), handle)
                    });
                    scripts
                        .orders
                        .send(spawn::Order { slot, generation, want: Want::Run(policy) })
                        .expect("there is room");
                }
                Effect::Recall { slot, generation } => {
                    let (scripts, _) = self.scripts.as_mut().expect("only scripts are recalled");
                    scripts.orders.send(spawn::Order { slot, generation, want: Want::Recall }).expect("there is room");
                }
                Effect::Errand { .. } => unreachable!("no driver here does that"),
                Effect::Report { .. } => unreachable!("nobody asks"),
            }
        }
        bytes.clear();
        self.pinger.send(&mut self.signals, &mut self.mail);
        if let Some(signals) = &mut self.signals {
            if let Some(knocker) = &mut self.knocker {
                knocker.send(signals, &mut self.mail);
            }
            signals.hear(&mut self.mail);
        }
        self.judged.last().map(|(_, outcome)| outcome.clone())
    }
}

/// Events that lend nothing may stand beside those that do.
fn lend<'a>(events: Vec<Event<'static>>) -> Vec<Event<'a>> {
    events
}
