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

use std::net::Ipv4Addr;

use anyhow::bail;
use cpra::domain::Check;
use cpra::domain::monitor::IcmpCheck;
use cpra::units::Span;

use super::beside::{self, Cost, Window};
use super::far::{self, Far};
use super::whole::Alike;
use super::{child, pulse};

mod bare;
mod fping;
pub(crate) mod memory;
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
    /// What is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Processor time per check
    Cost,
    /// The error of round trips with a saturated core
    Rtt,
    /// Bytes per target
    Memory,
}

impl Part {
    const ALL: [Self; 3] = [Self::Cost, Self::Rtt, Self::Memory];
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
    Ebpf,
    FpingSpread,
    FpingAtOnce,
}

impl Prober {
    const ALL: [Self; 6] = [Self::SendOnly, Self::Bare, Self::Socket, Self::Ebpf, Self::FpingSpread, Self::FpingAtOnce];

    /// The daemon.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Socket | Self::Ebpf)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::SendOnly => "send-only",
            Self::Bare => "bare",
            Self::Socket => "socket",
            Self::Ebpf => "ebpf",
            Self::FpingSpread => "fping-spread",
            Self::FpingAtOnce => "fping-at-once",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::SendOnly => "send only",
            Self::Bare => "bare loop",
            Self::Socket => "cpra, socket",
            Self::Ebpf => "cpra, ebpf",
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
    let parts: &[Part] = if options.parts.is_empty() { &Part::ALL } else { &options.parts };
    for part in parts {
        match part {
            Part::Cost => compare(options, networks, probers)?,
            Part::Rtt => rtt::compare(networks, probers, options.rates[0], options.seconds)?,
            Part::Memory => memory::compare(probers)?,
        }
    }
    Ok(())
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
                    match load.measure() {
                        Ok(cost) => {
                            println!("  round {round} {} {rate}/s {}: {cost}", network.as_str(), prober.words());
                            costs.push(cost);
                        }
                        // A busy machine may be too slow for one of the runs.
                        Err(error) => println!(
                            "  round {round} {} {rate}/s {}: left out: {error:#}",
                            network.as_str(),
                            prober.words()
                        ),
                    }
                }
            }
            let rows =
                probers.iter().zip(costs).filter_map(|(prober, costs)| Some((prober.words(), beside::median(costs)?)));
            let rows: Vec<_> = rows.collect();
            println!("\n{}, {rate} checks/s:\n", network.as_str());
            beside::print_table(&rows, &[Prober::Bare.words(), Prober::FpingSpread.words()]);
        }
    }
    Ok(())
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
        Cost::of_run(&arguments, self.rate)
    }
}

/// One run, in a process of its own.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let figures = match load.prober {
        Prober::Bare => bare::probe(load, true)?,
        Prober::SendOnly => bare::probe(load, false)?,
        Prober::Socket | Prober::Ebpf => whole(load)?,
        Prober::FpingSpread | Prober::FpingAtOnce => bail!("fping is a program of its own"),
    };
    figures.print();
    // What remains ends with the process, which only the figures were wanted of.
    std::process::exit(0);
}

fn whole(load: &Load) -> anyhow::Result<Window> {
    let is_signalled = load.prober == Prober::Ebpf;
    let done = "cpra_checks_total{type=\"icmp\",outcome=\"L3OK\"}";
    monitors(load.network, load.rate, Span::from_secs(1)).measure(
        is_signalled,
        load.seconds,
        done,
        |checks, before, after| {
            let signalled = after.since(before, "cpra_icmp_signalled_total")?;
            Ok(if is_signalled { signalled } else { checks - signalled })
        },
    )
}

/// One echo request for each check.
fn monitors(network: Network, count: u32, interval: Span) -> Alike<impl Fn(u32) -> Ipv4Addr> {
    let check = Check::Icmp(IcmpCheck { count: 1, max_loss: 0, max_rtt: None });
    Alike { check, count, interval, address: move |index| network.target(index), port: 0 }
}
