//! `cargo xtask bench`: figures, and the loops that they are compared with.
//!
//! Every loop is a process of its own, so that its CPU time is the kernel's account and not an estimate. All of it runs
//! on loopback, in a network namespace of its own where that is allowed: no conntrack, no neighbour's ports, no leftovers.

mod beside;
mod child;
mod daemon;
mod epoll;
mod far;
mod icmp;
mod pace;
mod pulse;
mod raw;
mod reload;
mod report;
mod ring;
mod scripts;
mod sizing;
mod steps;
mod store;
mod syn;
mod target;
mod tls;
mod whole;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// CPU per check: the daemon beside the leanest loop that io_uring allows and a plain tokio prober
    Pulse(pulse::Options),
    /// CPU per echo check: the daemon beside a loop of `sendmmsg` and `recvmmsg`, and fping
    Icmp(icmp::Options),
    /// One run of either (started by `icmp`)
    #[command(hide = true)]
    IcmpLoad(icmp::Load),
    /// CPU per half-open check of a port: the daemon beside a bare loop, and masscan
    Syn(syn::Options),
    /// One run of either (started by `syn`)
    #[command(hide = true)]
    SynLoad(syn::Load),
    /// One run of round trips (started by `icmp`)
    #[command(hide = true)]
    IcmpRtt(icmp::rtt::Load),
    /// One run of the memory per target (started by `icmp`)
    #[command(hide = true)]
    IcmpMemory(icmp::memory::Load),
    /// Uses a core up (started by `icmp`)
    #[command(hide = true)]
    Spin,
    /// A host with many addresses in a network of its own (started by `icmp` and `syn`)
    #[command(hide = true)]
    Far,
    /// HTTPS checks per CPU second, with and without resumption, beside a bare loop over rustls
    Tls(tls::Options),
    /// The server that is checked (started by `tls`)
    #[command(hide = true)]
    TlsTarget,
    /// The bare loop, or the daemon's shard (started by `tls`)
    #[command(hide = true)]
    TlsLoop(tls::Load),
    /// Scripts per second: the daemon beside a bare loop of posix_spawn
    Scripts(scripts::Options),
    /// The solver's workers beside the least that suffice in a simulated queue
    Sizing(sizing::Options),
    /// Pulse sizes itself: through steps of the rate and of the time that answers take, with a plot
    Steps(steps::Options),
    /// How long a commit of the store takes beside a bare fdatasync, and how fast a storm is written
    Store(store::Options),
    /// Lag and missed checks while the files change and are read again
    Reload(reload::Options),
    /// The server that is checked (started by `pulse`)
    #[command(hide = true)]
    Target(target::Options),
    /// The leanest loop: pooled direct sockets in io_uring (started by `pulse`)
    #[command(hide = true)]
    Ring(Load),
    /// The plain loop: tokio on epoll, one thread (started by `pulse`)
    #[command(hide = true)]
    Epoll(Load),
    /// posix_spawn and waitpid, and nothing else (started by `scripts`)
    #[command(hide = true)]
    SpawnLoop(scripts::Load),
    /// The daemon, with nothing but scripts to run (started by `scripts`)
    #[command(hide = true)]
    SpawnDaemon(scripts::Load),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Pulse(options) => pulse::run(options),
        Bench::Icmp(options) => icmp::run(options),
        Bench::IcmpLoad(load) => icmp::load(load),
        Bench::Syn(options) => syn::run(options),
        Bench::SynLoad(load) => syn::load(load),
        Bench::IcmpRtt(load) => icmp::rtt::load(load),
        Bench::IcmpMemory(load) => icmp::memory::load(load),
        Bench::Spin => icmp::rtt::spin(),
        Bench::Far => far::run(),
        Bench::Tls(options) => tls::run(options),
        Bench::TlsTarget => tls::target(),
        Bench::TlsLoop(load) => tls::check(load),
        Bench::Scripts(options) => scripts::run(options),
        Bench::Reload(options) => reload::run(options),
        Bench::Steps(options) => steps::run(options),
        Bench::Store(options) => store::run(options),
        Bench::SpawnLoop(load) => scripts::spawn_loop(load),
        Bench::SpawnDaemon(load) => scripts::spawn_daemon(load),
        Bench::Sizing(options) => sizing::run(options),
        Bench::Target(options) => target::run(options),
        Bench::Ring(load) => ring::run(load),
        Bench::Epoll(load) => epoll::run(load),
    }
}

/// What one check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Connect and disconnect.
    Tcp,
    /// Connect, one request, its response, the server's FIN.
    Http,
    /// One request and its response on a standing connection.
    KeepAlive,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Http, Self::KeepAlive];

    /// As the command line spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::KeepAlive => "keep-alive",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
            Self::KeepAlive => "HTTP keep-alive",
        })
    }
}

/// The sockets that the target listens on: every port on every address. Many of them, so that source ports suffice.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Destinations {
    /// Addresses, from 127.0.1.1 on
    #[arg(long, default_value_t = 32)]
    addresses: u16,
    /// Ports on each address
    #[arg(long, default_value_t = 8)]
    ports: u16,
    /// The first port
    #[arg(long, default_value_t = 7001)]
    first_port: u16,
}

impl Destinations {
    pub(crate) const DEFAULT: Self = Self { addresses: 32, ports: 8, first_port: 7001 };

    pub(crate) fn len(self) -> usize {
        usize::from(self.addresses) * usize::from(self.ports)
    }

    /// Neighbours in this order have different addresses.
    pub(crate) fn all(self) -> impl Iterator<Item = SocketAddrV4> {
        (0..self.ports).flat_map(move |port| {
            (0..self.addresses).map(move |address| {
                let [high, low] = (256 + address / 200 * 256 + 1 + address % 200).to_be_bytes();
                SocketAddrV4::new(Ipv4Addr::new(127, 0, high, low), self.first_port + port)
            })
        })
    }

    fn arguments(self) -> Vec<String> {
        [("--addresses", self.addresses), ("--ports", self.ports), ("--first-port", self.first_port)]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value.to_string()])
            .collect()
    }
}

/// What a reference loop is to do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Load {
    #[arg(long, value_enum)]
    kind: Kind,
    /// Checks per second, evenly spread; without it as many as possible
    #[arg(long)]
    rate: Option<u32>,
    /// Checks in flight at most, and the standing connections of keep-alive
    #[arg(long, default_value_t = 1000)]
    concurrency: u32,
    /// Measured time
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Time before it
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    #[command(flatten)]
    destinations: Destinations,
}

impl Load {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--kind".into(), self.kind.as_str().into()];
        if let Some(rate) = self.rate {
            arguments.extend(["--rate".into(), rate.to_string()]);
        }
        arguments.extend(["--concurrency".into(), self.concurrency.to_string()]);
        arguments.extend(["--seconds".into(), self.seconds.to_string()]);
        arguments.extend(["--warm-up".into(), self.warm_up.to_string()]);
        arguments.extend(self.destinations.arguments());
        arguments
    }
}

/// The requests that all probers send, byte for byte.
pub(crate) const REQUEST_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
pub(crate) const REQUEST_KEEP: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_distinct_and_on_loopback() {
        let destinations = Destinations { addresses: 450, ports: 3, first_port: 9 };
        let all: std::collections::BTreeSet<SocketAddrV4> = destinations.all().collect();
        assert_eq!(all.len(), destinations.len());
        assert!(all.iter().all(|address| address.ip().is_loopback() && ![0, 255].contains(&address.ip().octets()[3])));
        assert_eq!(destinations.all().next(), Some("127.0.1.1:9".parse().expect("an address")));
    }
}
