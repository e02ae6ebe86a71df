//! `cargo xtask bench icmp`: what an echo check costs, beside others who send echo requests.
//!
//! | prober | what it does |
//! | --- | --- |
//! | send only | `sendmmsg` every millisecond, and nobody looks at what comes back: for reference |
//! | bare loop | the same, and `recvmmsg`: the least that a prober on sockets can do |
//! | cpra, socket | the daemon without eBPF |
//! | cpra, ebpf | the daemon with it |
//! | fping, spread | Debian's `fping`, its requests evenly over the second as the daemon's are (`-i`) |
//! | fping, at once | the same with `-i 0`: all targets in one go, then a pause |
//!
//! Each is a process of its own; all of one rate and network run in turn, round by round. What counts is the processor
//! time of the whole process, user and system, and that of the kernel's `ksoftirqd` beside it. On the loopback and on a
//! veth pair (to a second network namespace) the kernel makes the answer while the request is sent, in the softirq of
//! whoever sends: its work for the target is on every prober's account alike.
//!
//! Then the error of round trips with a saturated core ([`rtt`]), and the memory per target ([`memory`]).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cpra::daemon::{self, Plan};
use cpra::domain::monitor::IcmpCheck;
use cpra::domain::{Check, Host, Monitor, Policy, Target};
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use serde_json::{Value, json};

use super::child::{self, Process};
use super::far::{self, Far};
use super::pace::Account;
use super::pulse;

mod bare;
mod fping;
pub(crate) mod rtt;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs every prober once at every rate
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Echo checks per second
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 50_000])]
    rates: Vec<u32>,
    /// Measured seconds of a run
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Where the targets are [default: both]
    #[arg(long, value_enum, value_delimiter = ',')]
    networks: Vec<Network>,
    /// Who is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    probers: Vec<Prober>,
    /// Only the error of round trips
    #[arg(long)]
    only_rtt: bool,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

/// Where the targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    Lo,
    Veth,
}

impl Network {
    const ALL: [Self; 2] = [Self::Lo, Self::Veth];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Lo => "lo",
            Self::Veth => "veth",
        }
    }

    /// Different targets, so that nothing is cached by chance.
    fn target(self, index: u32) -> Ipv4Addr {
        match self {
            Self::Lo => Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + index),
            Self::Veth => far::target(index),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Prober {
    SendOnly,
    Bare,
    Socket,
    FpingSpread,
    FpingAtOnce,
}

impl Prober {
    const ALL: [Self; 5] = [Self::SendOnly, Self::Bare, Self::Socket, Self::FpingSpread, Self::FpingAtOnce];

    /// The daemon.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Socket)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::SendOnly => "send-only",
            Self::Bare => "bare",
            Self::Socket => "socket",
            Self::FpingSpread => "fping-spread",
            Self::FpingAtOnce => "fping-at-once",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::SendOnly => "send only",
            Self::Bare => "bare loop",
            Self::Socket => "cpra, socket",
            Self::FpingSpread => "fping, spread",
            Self::FpingAtOnce => "fping, at once",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: u32,
    #[arg(long, value_enum)]
    network: Network,
    #[arg(long, value_enum)]
    prober: Prober,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    let namespace = pulse::enter_namespace();
    println!("machine: {}; network: {}", pulse::machine(), namespace.as_deref().unwrap_or("a namespace of its own"));
    let networks: &[Network] = if options.networks.is_empty() { &Network::ALL } else { &options.networks };
    let probers: &[Prober] = if options.probers.is_empty() { &Prober::ALL } else { &options.probers };
    if !options.only_rtt {
        compare(options, networks, probers)?;
    }
    rtt::compare(networks, probers, options.rates[0], options.seconds)
}

/// What a check costs each prober.
fn compare(options: &Options, networks: &[Network], probers: &[Prober]) -> anyhow::Result<()> {
    for &network in networks {
        let _far = if network == Network::Veth { Some(Far::join()?) } else { None };
        for &rate in &options.rates {
            let mut costs = vec![Vec::new(); probers.len()];
            for round in 1..=options.rounds {
                for (&prober, costs) in probers.iter().zip(&mut costs) {
                    let load = Load { rate, seconds: options.seconds, network, prober };
                    let cost = load.measure().with_context(|| format!("{} at {rate}/s", prober.words()))?;
                    println!("  round {round} {} {rate}/s {}: {cost}", network.as_str(), prober.words());
                    costs.push(cost);
                }
            }
            let costs = costs.into_iter().map(median).collect::<Vec<_>>();
            print_table(network, rate, probers, &costs);
        }
    }
    Ok(())
}

/// What a run came to.
#[derive(Clone, Copy)]
struct Cost {
    /// Microseconds of processor time per check.
    each: f64,
    /// Checks per second that it came to.
    rate: f64,
    /// Percent of the checks that the backend named did.
    share: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} µs each at {:.0}/s, {:.1} % by this backend", self.each, self.rate, self.share)
    }
}

/// The run whose cost is the middle one.
fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.each.total_cmp(&b.each));
    costs[costs.len() / 2]
}

fn print_table(network: Network, rate: u32, probers: &[Prober], costs: &[Cost]) {
    let of = |wanted| probers.iter().zip(costs).find(|(prober, _)| **prober == wanted).map(|(_, cost)| cost.each);
    let ratio = |of: Option<f64>, cost: &Cost| of.map_or("–".into(), |of| format!("{:.2} ×", of / cost.each));
    println!(
        "\n{}, {rate} checks/s:\n\n| prober | CPU per check | per CPU second | of the bare loop | of fping, spread | checks/s | \
         by this backend |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        network.as_str()
    );
    for (prober, cost) in probers.iter().zip(costs) {
        println!(
            "| {} | {:.2} µs | {:.0} | {} | {} | {:.0} | {:.1} % |",
            prober.words(),
            cost.each,
            1e6 / cost.each,
            ratio(of(Prober::Bare), cost),
            ratio(of(Prober::FpingSpread), cost),
            cost.rate,
            cost.share,
        );
    }
    println!();
}

impl Load {
    /// Starts it as a process, and reads what it says in the end.
    fn measure(&self) -> anyhow::Result<Cost> {
        if matches!(self.prober, Prober::FpingSpread | Prober::FpingAtOnce) {
            return fping::measure(self);
        }
        let (rate, seconds) = (self.rate.to_string(), self.seconds.to_string());
        let arguments =
            ["icmp-load", "--rate", &rate, "--seconds", &seconds, "--network", self.network.as_str(), "--prober"];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.push(self.prober.as_str().to_owned());
        let mut process = Process::own(&arguments)?;
        // The daemon tells its story on the same output.
        let line = loop {
            let line = process.line()?;
            if line.starts_with('{') {
                break line;
            }
        };
        let result: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let number = |key: &str| result[key].as_f64().with_context(|| format!("no {key}: {line}"));
        let (checks, named) = (number("checks")?, number("named")?);
        let rate = checks / number("seconds")?;
        ensure!((rate / f64::from(self.rate) - 1.0).abs() < 0.03, "{rate:.0} checks/s, not about {}", self.rate);
        ensure!(named >= checks * 0.99, "only {named} of {checks} verdicts came from the backend named: {line}");
        Ok(Cost { each: number("cpu_us")? / checks, rate, share: named / checks * 100.0 })
    }
}

/// One run, in a process of its own.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let figures = match load.prober {
        Prober::Bare => bare::probe(load, true)?,
        Prober::SendOnly => bare::probe(load, false)?,
        Prober::Socket => whole(load)?,
        Prober::FpingSpread | Prober::FpingAtOnce => bail!("fping is a program of its own"),
    };
    let Window { checks, named, seconds, cpu } = figures;
    println!("{}", json!({ "checks": checks, "named": named, "seconds": seconds, "cpu_us": cpu.as_micros() as u64 }));
    // What remains ends with the process, which only the figures were wanted of.
    std::process::exit(0);
}

/// What happened while it was measured.
struct Window {
    checks: f64,
    /// Of these, what the backend named did.
    named: f64,
    seconds: f64,
    cpu: Duration,
}

fn whole(load: &Load) -> anyhow::Result<Window> {
    let monitors = (0..load.rate).map(|index| {
        let policy = Policy::new(
            Check::Icmp(IcmpCheck { count: 1, max_loss: 0, max_rtt: None }),
            Span::from_secs(1),
            Span::from_millis(500),
        );
        let target = Target { host: Host::Literal(load.network.target(index).into()), port: 0, path: "".into() };
        Monitor { name: format!("m/{index}").into(), enabled: true, target, policy }
    });
    let api = TcpListener::bind("127.0.0.1:0")?;
    let at = api.local_addr()?;
    let folder = std::env::temp_dir();
    let catalog = Catalog::build(monitors, daemon::shards_for(2))?;
    let plan = Plan { pulse: Setup::fixed(16_384), batch_size: 2048, ..Plan::new(catalog, api, folder) };
    let _daemon = daemon::start(plan)?;
    // The first checks are spread over up to five seconds; then everything is up.
    let patience = Instant::now() + Duration::from_secs(20);
    while Page::of(at)?.sample("cpra_monitors{state=\"up\"}")? < f64::from(load.rate) {
        if Instant::now() > patience {
            bail!("not all are up");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    let (before, account, began) = (Page::of(at)?, Account::of_all(), Instant::now());
    std::thread::sleep(Duration::from_secs(load.seconds.into()));
    let (cpu, seconds, after) = (account.spent(), began.elapsed().as_secs_f64(), Page::of(at)?);
    let grown = |sample: &str| anyhow::Ok(after.sample(sample)? - before.sample(sample)?);
    let checks = grown("cpra_checks_total{type=\"icmp\",outcome=\"L3OK\"}")?;
    ensure!(grown("cpra_checks_missed_total")? == 0.0, "checks were missed");
    let named = checks;
    Ok(Window { checks, named, seconds, cpu })
}

/// A page of metrics.
struct Page(String);

impl Page {
    fn of(api: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(api)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(Self(page))
    }

    /// By name and labels as printed; what is not there has not happened.
    fn sample(&self, name: &str) -> anyhow::Result<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0.0), |value| value.trim().parse().context("a number"))
    }
}
