//! What one seed is about: a catalog, targets with a life of their own, and a schedule of faults.
//!
//! A run has two parts. In the *storm* targets flap and this host fails itself in every way there is; in the *calm*
//! everything but the targets that stay down for good has recovered, for long enough that the daemon must have said
//! all there is to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;

use super::errand::script_address;
use super::fault::{Fault, Ground, Scheduled};
use super::network::{Behaviour, Target};
use super::resolver::Name;
use super::server::{Framing, Keeps, Server};
use crate::domain::destination::{Alertmanager, Pace, PagerDuty, Provider, Slack, Sms, SmsSender, Webhook};
use crate::domain::monitor::{
    About, CheckKind, CodeRule, Dispatch, DnsCheck, IcmpCheck, MaxLatency, PushCheck, RecordType, ScriptCheck, Secret,
    TcpMode,
};
use crate::domain::{Check, Codes, Color, Destination, Host, HttpCheck, Monitor, Policy, StatusSet, TcpCheck};
use crate::queueing::{Bounds, Setup};
use crate::shard::Rates;
use crate::shard::protocol::PACKETS;
use crate::units::limits::{INTERVAL_MIN, RESOLVE_MAX, RETRY_PAUSE, VOID_PATIENCE};
use crate::units::{Instant, Span};

/// What a target does over a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Up from the beginning to the end: nobody must ever hear of it.
    Rock,
    /// Up and down in the storm, up in the calm.
    Flapping,
    /// Up and down in the storm, down in the calm.
    Grave,
}

/// A monitor, and what is behind it.
#[derive(Clone, Debug)]
pub struct Planned {
    pub name: Box<str>,
    pub policy: Policy,
    pub enabled: bool,
    pub host: Host,
    pub port: u16,
    pub path: Box<str>,
    /// Where its target can be reached.
    pub addresses: Vec<SocketAddr>,
    pub nature: Nature,
    /// Shares its origin with others: who of them connects cannot be told from outside.
    pub shared: bool,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub start: Instant,
    pub storm_ends: Instant,
    pub ends: Instant,
    pub shards: u8,
    /// Per shard.
    pub slots_max: u32,
    /// As many from the beginning; or what the shard thinks it needs.
    pub workers_min: u32,
    /// Packets a second, per shard, where they are bounded so that it is felt: echo requests, SYNs.
    pub packet_rates: [Option<u32>; PACKETS.len()],
    pub queue_capacity: usize,
    /// Transitions that may wait for the desk before the shards have to stop.
    pub desk_room: usize,
    pub monitors: Vec<Planned>,
    pub targets: Vec<(Vec<SocketAddr>, Target)>,
    pub names: BTreeMap<Box<str>, Name>,
    pub faults: Vec<Scheduled>,
    /// Ends in the middle of the storm.
    pub abrupt: bool,
    /// Who can be told, and how often they are reminded.
    pub destinations: [Arc<Destination>; DESTINATIONS],
    pub repeat_interval: Option<Span>,
}

/// How many can be told.
pub const DESTINATIONS: usize = 7;

/// Who can be told: one of each kind, and faster than they are, since time is.
fn destinations() -> [Arc<Destination>; DESTINATIONS] {
    let secret = || Secret::new("https://example/secret");
    let named = |name: &str, provider, pace: Option<(u32, u64, u32)>| {
        let mut destination = Destination::new(name, provider);
        if let Some((concurrency, every, burst)) = pace {
            let every = Span::from_millis(every);
            destination.pace = Pace { concurrency, every, burst, ..destination.pace };
        }
        Arc::new(destination)
    };
    let pager = PagerDuty { routing_key: secret(), url: "https://pager/".into(), severity: None };
    let chat = Slack { hook: secret(), channel: None, username: None };
    let hook = Webhook { url: secret(), method: "POST".into(), headers: Box::default(), secrets: Box::default() };
    let sms = Sms {
        url: "https://sms/".into(),
        account_sid: "AC".into(),
        auth_token: secret(),
        sender: SmsSender::Service("MG".into()),
        to: "+1".into(),
    };
    let alertmanager = Alertmanager {
        url: "https://alertmanager/".into(),
        authorization: None,
        labels: Box::default(),
        annotations: Box::default(),
        generator_url: None,
    };
    [
        named("log", Provider::Log { file: None }, None),
        named("file", Provider::Log { file: Some("/log/a".into()) }, None),
        named("pager", Provider::PagerDuty(pager), Some((2, 30, 4))),
        named("chat", Provider::Slack(chat), Some((1, 50, 3))),
        named("hook", Provider::Webhook(hook), Some((3, 0, 1))),
        named("sms", Provider::Sms(Box::new(sms)), Some((1, 60, 1))),
        named("alertmanager", Provider::Alertmanager(alertmanager), None),
    ]
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let patient = rng.u8(0..25) == 0;
        let count = if patient { rng.usize(5..8) } else { rng.usize(5..61) };
        // Enough to do that a run is long in events and short in time.
        let rate = if patient { 6 } else { rng.u64(40..300) };
        let base = Span::from_millis(count as u64 * 2_500 / rate).max(INTERVAL_MIN).min(Span::from_secs(4));
        // Ticks are kept in 32 bits: some runs cross their wrap.
        let start = Instant::ZERO
            + match rng.u8(0..4) {
                0 => Span::from_millis((1 << 32) - rng.u64(0..60_000)),
                1 => Span::from_micros(rng.u64(0..1_000)),
                _ => Span::from_micros(rng.u64(0..1_000_000_000_000)),
            };
        let tight = rng.u8(0..6) == 0;
        let abrupt = !patient && rng.u8(0..12) == 0;
        let mut draft = Draft { rng, monitors: Vec::new(), targets: Vec::new(), names: BTreeMap::new() };
        while draft.monitors.len() < count {
            draft.add(base, tight);
        }
        let least = if patient { VOID_PATIENCE + Span::from_secs(90) } else { Span::from_secs(2) };
        let storm = time_for(if abrupt { 2 * EVENTS } else { EVENTS }, &draft.monitors).max(least);
        let storm_ends = start + storm;
        draft.live(start, storm_ends);
        let Draft { mut rng, monitors, targets, names } = draft;
        let calm = monitors.iter().map(|monitor| settling(&monitor.policy)).max().unwrap_or_default();
        let shortest = monitors.iter().map(|monitor| monitor.policy.timeout).min().unwrap_or_default();
        let ground = Ground { from: start, until: storm_ends, monitors: monitors.len(), late: shortest.scaled(1, 8) };
        let faults = ground.draw(&mut rng, patient);
        let aftermath = faults.iter().map(|scheduled| match scheduled.fault {
            // A question of the storm may be answered in the calm, a notice be tried again.
            Fault::SlowResolver | Fault::DeadResolver if !names.is_empty() => RESOLVE_MAX,
            Fault::Lane(_, mood) if mood.failed > 0 => Span::from_secs(10),
            _ => Span::ZERO,
        });
        let stopped = faults.iter().filter(|scheduled| scheduled.fault == Fault::Stop).map(|scheduled| scheduled.until);
        let last = stopped.max().unwrap_or(storm_ends).max(storm_ends);
        let ends = last + calm + aftermath.max().unwrap_or_default();
        let slots_max = if tight { rng.u32(1..6) } else { 2 * count as u32 };
        Self {
            seed,
            start,
            storm_ends,
            ends,
            shards: if rng.u8(0..5) == 0 { 2 } else { 1 },
            slots_max,
            workers_min: if rng.bool() { slots_max } else { 1 },
            packet_rates: packet_rates(seed, &monitors),
            queue_capacity: if rng.u8(0..4) == 0 { rng.usize(1..4) } else { 1_000 },
            desk_room: if rng.u8(0..4) == 0 { rng.usize(1..6) } else { 1_000 },
            monitors,
            targets,
            names,
            faults,
            abrupt,
            destinations: destinations(),
            repeat_interval: seed.is_multiple_of(2).then(|| Span::from_secs(2 + seed % 17)),
        }
    }

    /// Who hears of the daemon itself, and of what others did not take.
    pub fn fallback(&self) -> Arc<Destination> {
        let provider = Provider::Log { file: Some("/log/fallback".into()) };
        Arc::new(Destination::new("fallback", provider))
    }

    pub fn catalog(&self) -> impl Iterator<Item = Monitor> + '_ {
        self.monitors.iter().map(|planned| Monitor {
            name: planned.name.clone(),
            enabled: planned.enabled,
            target: crate::domain::Target {
                host: planned.host.clone(),
                port: planned.port,
                path: planned.path.clone(),
            },
            policy: planned.policy.clone(),
        })
    }

    pub fn sizing(&self) -> Setup {
        let bounds = Bounds { min: self.workers_min, max: self.slots_max, headroom: 150 };
        Setup { bounds, ..Setup::default() }
    }

    /// Whether a monitor may wait long for a slot, or for its packets.
    pub fn is_tight(&self) -> bool {
        (self.slots_max as usize) < self.monitors.len() || self.packet_rates.iter().any(Option::is_some)
    }

    pub fn rates(&self) -> Rates {
        let default = Rates::default();
        let [echo, syn] = self.packet_rates;
        Rates { echo: echo.unwrap_or(default.echo), syn: syn.unwrap_or(default.syn) }
    }
}

/// In one of three runs: enough for all packets that there can be, if they left one after the other (they do not, and those
/// that meet once meet each time), and for those of one check to leave at once: of so little, half is the burst.
fn packet_rates(seed: u64, monitors: &[Planned]) -> [Option<u32>; PACKETS.len()] {
    let mut rng = Rng::with_seed(seed ^ 0xb0bd);
    let echoes = |check: &Check| if let Check::Icmp(check) = check { check.count } else { 0 };
    let syns = |check: &Check| if check.is_half_open() { SYNS_MAX } else { 0 };
    [&echoes as &dyn Fn(&Check) -> u8, &syns].map(|packets| {
        let most = |Planned { policy, .. }: &Planned| {
            let each = f64::from(packets(&policy.check)) * (f64::from(policy.retries) + 1.0);
            each / policy.interval.min(policy.retry_interval).as_secs_f64()
        };
        let most: f64 = monitors.iter().map(most).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of monitors")]
        let rate = (most * 1.4).ceil() as u32;
        let burst = monitors.iter().map(|planned| u32::from(packets(&planned.policy.check))).max().unwrap_or(0);
        (rate > 0 && rng.u8(0..3) == 0).then_some(rate.max(2 * burst).max(4))
    })
}

/// Timeouts are too short for more of one attempt.
const SYNS_MAX: u8 = 3;

/// How long it takes at most until a monitor has settled, whatever it was doing before.
pub fn settling(policy: &Policy) -> Span {
    // All attempts fit into the interval, but for the one that follows a failure on a kept connection.
    let attempts = u64::from(policy.retries) + 1;
    let check = (policy.timeout + RETRY_PAUSE).scaled(attempts, 1).min(policy.interval) + policy.timeout;
    let every = policy.interval.max(policy.retry_interval.scaled(3, 2) + check);
    let checks = u64::from(policy.unhealthy_threshold.max(policy.healthy_threshold)) + 2;
    let grace = if let Check::Push(check) = &policy.check { check.grace.scaled(2, 1) } else { Span::ZERO };
    every.scaled(checks, 1) + grace + Span::from_secs(4)
}

/// Long enough for a target that is near, whatever the completions' delays.
const TIMEOUT_LEAST: Span = Span::from_millis(80);

/// What a storm should bring; the calm brings more.
const EVENTS: u64 = 4_000;

/// How long it takes until checks have brought so many events, about: a connect and its end, and an exchange.
fn time_for(events: u64, monitors: &[Planned]) -> Span {
    let per_hour = |monitor: &Planned| {
        let each = if monitor.policy.check.kind() == CheckKind::Http { 5 } else { 2 };
        if monitor.enabled { each * 3_600_000 / monitor.policy.interval.as_millis() } else { 0 }
    };
    let per_hour: u64 = monitors.iter().map(per_hour).sum();
    Span::from_millis(events * 3_600_000 / per_hour.max(1))
}

struct Draft {
    rng: Rng,
    monitors: Vec<Planned>,
    targets: Vec<(Vec<SocketAddr>, Target)>,
    names: BTreeMap<Box<str>, Name>,
}

impl Draft {
    /// One monitor, or a few that share an origin.
    fn add(&mut self, base: Span, tight: bool) {
        let number = self.monitors.len();
        let rng = &mut self.rng;
        let kind = match rng.u8(0..23) {
            0..8 => CheckKind::Http,
            8..14 => CheckKind::Tcp,
            14..16 => CheckKind::Script,
            16..18 => CheckKind::Dns,
            18..20 => CheckKind::Icmp,
            _ => CheckKind::Push,
        };
        let http = kind == CheckKind::Http;
        let sharing = if http && rng.u8(0..10) == 0 { rng.usize(2..4) } else { 1 };
        let port = match kind {
            CheckKind::Http => 80,
            CheckKind::Dns => 53,
            CheckKind::Icmp | CheckKind::Script | CheckKind::Push => 0,
            CheckKind::Tcp => rng.u16(1_000..1_010),
        };
        let nature = match rng.u8(0..8) {
            0 | 1 => Nature::Rock,
            2 if !tight => Nature::Grave,
            _ => Nature::Flapping,
        };
        let (host, addresses) = if matches!(kind, CheckKind::Script | CheckKind::Push) {
            (Host::Literal(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), vec![script_address(number)])
        } else {
            self.host(number, port)
        };
        let mut policy = self.policy(base, kind, number);
        if let Check::Push(check) = &mut policy.check {
            // A job that is never late must be heard in time also by a process that stops for a moment.
            check.grace = match (nature, self.rng.u8(0..4)) {
                (Nature::Rock, _) | (_, 0) => Span::from_secs(3),
                (_, 1) => Span::ZERO,
                _ => policy.interval.scaled(self.rng.u64(1..=100), 100),
            };
        }
        let keep_alive = sharing > 1 || self.rng.u8(0..3) == 0;
        let server = self.server(&policy, keep_alive, tight);
        let latency = self.latency(&policy, tight || nature == Nature::Rock);
        let timed = sharing == 1 && matches!(kind, CheckKind::Http | CheckKind::Tcp) && !policy.check.is_half_open();
        if timed && nature != Nature::Rock && latency <= policy.timeout.scaled(1, 80) && self.rng.u8(0..3) == 0 {
            // Only an answer in pieces, or this host's own lateness, takes as long as that.
            policy.max_latency = Some(MaxLatency { limit: policy.timeout.scaled(4, 5), fails: self.rng.bool() });
        }
        for position in 0..sharing {
            let rng = &mut self.rng;
            if http {
                policy.check = check(rng, keep_alive, &server);
            }
            let name = format!("{}{number:02}.{position}", ["web", "db", "ü", "a/b"][rng.usize(0..4)]).into();
            let path = match kind {
                CheckKind::Http => format!("/{position}").into(),
                CheckKind::Dns => "name.example.".into(),
                CheckKind::Push => format!("token{number}").into(),
                _ => "".into(),
            };
            let enabled = rng.u8(0..12) > 0;
            let codes = codes(rng);
            let policy = Policy { codes, ..policy.clone() };
            let shared = sharing > 1;
            let (host, addresses) = (host.clone(), addresses.clone());
            self.monitors.push(Planned { name, policy, enabled, host, port, path, addresses, nature, shared });
        }
        self.targets.push((addresses, Target { phases: Vec::new(), latency, server }));
    }

    /// Gives targets and names their lives.
    fn live(&mut self, start: Instant, storm_ends: Instant) {
        for number in 0..self.targets.len() {
            let Some(planned) = self.monitors.iter().find(|planned| planned.addresses == self.targets[number].0) else {
                continue;
            };
            let (nature, policy, host) = (planned.nature, planned.policy.clone(), planned.host.clone());
            self.targets[number].1.phases = self.phases(nature, &policy, start, storm_ends);
            let Host::Name(name) = host else { continue };
            let Some(name) = self.names.get_mut(&name) else { continue };
            name.patience = policy.timeout;
            if nature != Nature::Rock && self.rng.u8(0..4) == 0 {
                let storm = storm_ends.since(start);
                let from = start + storm.scaled(self.rng.u64(10..60), 100);
                name.gone.push((from, from + storm.scaled(self.rng.u64(5..30), 100)));
            }
        }
    }

    fn host(&mut self, number: usize, port: u16) -> (Host, Vec<SocketAddr>) {
        let rng = &mut self.rng;
        let low = number as u16;
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, (low >> 8) as u8, low as u8));
        let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low + 1));
        if rng.u8(0..4) > 0 {
            let address = if rng.u8(0..5) == 0 { v6 } else { v4 };
            return (Host::Literal(address), vec![SocketAddr::new(address, port)]);
        }
        let name: Box<str> = format!("host{number}.internal").into();
        let addresses = match rng.u8(0..4) {
            0 => vec![v6, v4],
            1 => vec![v6],
            _ => vec![v4],
        };
        let ttl = [Span::ZERO, Span::from_millis(300), Span::from_secs(5), Span::from_secs(60)][rng.usize(0..4)];
        self.names
            .insert(name.clone(), Name { addresses: addresses.clone(), ttl, patience: RESOLVE_MAX, gone: Vec::new() });
        (Host::Name(name), addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn policy(&mut self, base: Span, kind: CheckKind, number: usize) -> Policy {
        let rng = &mut self.rng;
        let interval = base.scaled([2, 2, 2, 3, 4][rng.usize(0..5)], 2).min(Span::from_secs(10));
        let interval = Span::from_millis(interval.as_millis());
        let timeout = interval.scaled(rng.u64(20..=100), 100).max(TIMEOUT_LEAST).min(Span::from_secs(5));
        let retry_interval = if rng.bool() { interval } else { interval.scaled(rng.u64(20..100), 100) };
        Policy {
            check: check_of(kind, rng, number),
            interval,
            timeout,
            retry_interval,
            unhealthy_threshold: rng.u8(1..=5),
            healthy_threshold: rng.u8(1..=3),
            retries: if rng.u8(0..3) == 0 { rng.u8(1..=2) } else { 0 },
            max_latency: None,
            groups: Box::default(),
            about: About::default(),
            codes: Codes::default(),
        }
    }

    /// Well below the timeout for most, and close to it for some.
    fn latency(&mut self, policy: &Policy, near: bool) -> Span {
        let micros = policy.timeout.as_micros();
        Span::from_micros(match self.rng.u8(0..8) {
            // Eight times that, there and back, is still in time.
            0 if !near => self.rng.u64(micros / 40..micros / 24),
            1 => self.rng.u64(20..100),
            _ => self.rng.u64(100..5_000).min(micros / 80),
        })
    }

    fn server(&mut self, policy: &Policy, keep_alive: bool, tight: bool) -> Server {
        let rng = &mut self.rng;
        let idle = policy.interval.scaled(rng.u64(50..400), 100);
        Server {
            framing: [Framing::Length, Framing::Length, Framing::Chunked, Framing::Unframed][rng.usize(0..4)],
            keeps: match rng.u8(0..6) {
                0 => Keeps::Never,
                1 => Keeps::Rudely,
                2 => Keeps::For(idle),
                3 => Keeps::Forgets(idle),
                4 if keep_alive => Keeps::Scolds(idle),
                // Its slots wait for a FIN that does not come.
                4 if !tight && policy.interval > Span::from_millis(600) => Keeps::Stubbornly,
                _ => Keeps::For(Span::from_secs(120)),
            },
            status: [200, 200, 200, 204, 301][rng.usize(0..5)],
            body: if rng.u8(0..8) == 0 { rng.usize(0..20_000) } else { rng.usize(0..300) },
            interim: rng.u8(0..12) == 0,
        }
    }

    /// Up and down through the storm; each down is of another kind.
    fn phases(
        &mut self,
        nature: Nature,
        policy: &Policy,
        start: Instant,
        storm_ends: Instant,
    ) -> Vec<(Instant, Behaviour)> {
        let rng = &mut self.rng;
        let kind = policy.check.kind();
        let (http, program) = (kind == CheckKind::Http, kind == CheckKind::Script);
        let up_at_first = nature == Nature::Rock || rng.u8(0..5) > 0;
        let first = if up_at_first { Behaviour::Up } else { down(rng, policy) };
        let mut phases = vec![(Instant::ZERO, first)];
        if nature == Nature::Rock {
            return phases;
        }
        let interval = policy.interval.as_micros();
        let storm = storm_ends.since(start).as_micros();
        // A dozen changes at most: short blips, and outages beyond the threshold.
        let long = (interval * 10).max(storm / 6);
        let mut at = start + Span::from_micros(rng.u64(0..long));
        while at < storm_ends {
            let is_up = matches!(phases.last(), Some((_, Behaviour::Up | Behaviour::Pieces(_))));
            // The whole answer, late; of a program, a warning.
            let behaviour = match (is_up, (http || program) && rng.u8(0..if http { 6 } else { 2 }) == 0) {
                (true, _) => down(rng, policy),
                (false, true) => Behaviour::Pieces(policy.timeout.scaled(rng.u64(1..20), 100)),
                (false, false) => Behaviour::Up,
            };
            phases.push((at, behaviour));
            let longest = if rng.bool() { 2 * interval } else { long };
            at += Span::from_micros(rng.u64(interval / 4..longest));
        }
        let last = match nature {
            Nature::Grave => lasting(rng, kind),
            Nature::Rock | Nature::Flapping => Behaviour::Up,
        };
        phases.push((storm_ends, last));
        phases
    }
}

fn check_of(kind: CheckKind, rng: &mut Rng, number: usize) -> Check {
    match kind {
        CheckKind::Http => check(rng, false, &Server::default()),
        CheckKind::Tcp => {
            let mode = if rng.u8(0..5) < 2 { TcpMode::Syn } else { TcpMode::Connect };
            Check::Tcp(TcpCheck { mode, ..TcpCheck::default() })
        }
        CheckKind::Icmp => {
            let max_loss = [0, 34, 50][rng.usize(0..3)];
            Check::Icmp(IcmpCheck { count: rng.u8(1..=4), max_loss, max_rtt: None })
        }
        CheckKind::Script => {
            let argv = ["/bin/check".into(), number.to_string().into()];
            Check::Script(ScriptCheck { argv: argv.into(), env: Box::default(), cwd: None })
        }
        CheckKind::Dns => Check::Dns(DnsCheck { record: RecordType::A, expect: Box::new(["192.0.2.1".into()]) }),
        CheckKind::Push => Check::Push(PushCheck { grace: Span::from_secs(1) }),
    }
}

fn check(rng: &mut Rng, keep_alive: bool, server: &Server) -> Check {
    let expected = match rng.u8(0..3) {
        0 => StatusSet::new(vec![(server.status, server.status)]),
        _ if (200..300).contains(&server.status) => StatusSet::success(),
        _ => StatusSet::new(vec![(200, 204), (300, 399)]),
    };
    let (method, body): (&str, &[u8]) = match rng.u8(0..8) {
        0 => ("HEAD", b""),
        1 => ("POST", b"ping=1"),
        _ => ("GET", b""),
    };
    Check::Http(HttpCheck {
        method: method.into(),
        headers: Box::default(),
        body: body.into(),
        expected,
        keep_alive,
        ..HttpCheck::default()
    })
}

fn codes(rng: &mut Rng) -> Codes {
    let pool = destinations();
    let mut codes = Codes::default();
    for color in Color::ALL {
        let dispatch = match rng.u8(0..10) {
            0 | 1 => continue,
            2 => Dispatch::Off,
            3 => Dispatch::Always,
            _ => Dispatch::On,
        };
        let mut notify: Vec<_> = pool.iter().filter(|_| rng.u8(0..5) < 2).cloned().collect();
        if notify.is_empty() {
            notify.push(pool[rng.usize(0..pool.len())].clone());
        }
        if rng.u8(0..16) == 0 {
            notify.push(notify[0].clone());
        }
        codes.set(color, CodeRule { dispatch, notify: notify.into() });
    }
    codes
}

/// A way to be down that no check of this kind can take for up.
fn lasting(rng: &mut Rng, kind: CheckKind) -> Behaviour {
    let ways = match kind {
        CheckKind::Http => 11,
        CheckKind::Tcp => 4,
        CheckKind::Icmp | CheckKind::Script | CheckKind::Dns | CheckKind::Push => 2,
    };
    match rng.u8(0..ways) {
        0 => Behaviour::Refused,
        1 => Behaviour::Blackhole,
        2 => Behaviour::Unreachable,
        3 => Behaviour::GivenUp(Span::from_millis(rng.u64(1..3_000))),
        4 => Behaviour::Tarpit,
        5 => Behaviour::Deaf,
        6 => Behaviour::Trickle,
        7 => Behaviour::Status(503),
        8 => Behaviour::Garbage,
        9 => Behaviour::CutShort,
        _ => Behaviour::ResetMidway,
    }
}

fn down(rng: &mut Rng, policy: &Policy) -> Behaviour {
    let kind = policy.check.kind();
    let http = kind == CheckKind::Http;
    match rng.u8(0..6) {
        0 => Behaviour::HalfAlive,
        1 => Behaviour::Slams,
        2 if http => Behaviour::Pieces(policy.timeout.scaled(rng.u64(5..60), 100)),
        3 if matches!(kind, CheckKind::Dns | CheckKind::Icmp) => Behaviour::Unreachable,
        _ => lasting(rng, kind),
    }
}
