//! The daemon as a prober, with many monitors that are alike.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cpra::daemon::{self, Daemon, Plan};
use cpra::domain::{Check, Host, Monitor, Policy, Target};
use cpra::os::ebpf::{Demand, Mode, Settings, Signals};
use cpra::os::syn::Ports;
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;

use super::beside::Window;
use super::pace::Account;

/// Checks that may be under way at a time.
pub(crate) const SLOTS: u32 = 16_384;

/// What programs in the kernel do for somebody; with `ports` also for SYNs.
pub(crate) fn signals(wanted: bool, ports: Option<&Ports>) -> anyhow::Result<Signals> {
    let mode = if wanted { Mode::Require } else { Mode::Off };
    let ports = ports.map_or((0, 0), Ports::range);
    let demand = Demand { shards: daemon::shards_for(2), slots: SLOTS, ports, seed: daemon::seed() as u32 };
    Ok(Signals::start(&Settings { mode, ..Settings::default() }, demand)?)
}

/// Monitors that differ by their addresses.
pub(crate) struct Alike<F> {
    pub(crate) check: Check,
    pub(crate) count: u32,
    pub(crate) interval: Span,
    pub(crate) address: F,
    pub(crate) port: u16,
}

impl<F: Fn(u32) -> Ipv4Addr> Alike<F> {
    /// A daemon that runs them, with its API.
    pub(crate) fn start(&self, signalled: bool) -> anyhow::Result<(Daemon, Api)> {
        let policy = Policy::new(self.check.clone(), self.interval, Span::from_millis(500));
        let monitors = (0..self.count).map(|index| {
            let host = Host::Literal((self.address)(index).into());
            let target = Target { host, port: self.port, path: "".into() };
            Monitor { name: format!("m/{index}").into(), enabled: true, target, policy: policy.clone() }
        });
        let catalog = Catalog::build(monitors, daemon::shards_for(2))?;
        let syn_ports = if self.check.is_half_open() { Some(Ports::reserve()?) } else { None };
        let signals = signals(signalled, syn_ports.as_ref())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let api = Api(listener.local_addr()?);
        let plan = Plan {
            pulse: Setup::fixed(SLOTS),
            batch_size: 2048,
            signals,
            syn_ports,
            ..Plan::new(catalog, listener, std::env::temp_dir())
        };
        Ok((daemon::start(plan)?, api))
    }

    /// What the checks of `seconds` cost, once all is up. `done` counts them, `named` those that the backend named did.
    pub(crate) fn measure(
        &self,
        signalled: bool,
        seconds: u32,
        done: &str,
        named: impl Fn(f64, &Page, &Page) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Window> {
        let (_daemon, api) = self.start(signalled)?;
        // The first checks are spread over up to five seconds; then everything is up.
        let patience = Instant::now() + Duration::from_secs(20);
        while api.page()?.sample("cpra_monitors{state=\"up\"}")? < f64::from(self.count) {
            if Instant::now() > patience {
                bail!("not all are up");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(2));
        let (before, account, began) = (api.page()?, Account::of_all(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds.into()));
        let (cpu, seconds, after) = (account.spent(), began.elapsed().as_secs_f64(), api.page()?);
        // The counters are up to a tenth of a second old; where nothing is missed, the interval says how many there were.
        let counted = after.since(&before, done)?;
        let checks = f64::from(self.count) * seconds / self.interval.as_secs_f64();
        ensure!((counted / checks - 1.0).abs() < 0.05, "{counted} checks, not about {checks:.0}");
        ensure!(after.since(&before, "cpra_checks_missed_total")? == 0.0, "checks were missed");
        let named = named(counted, &before, &after)? * checks / counted;
        Ok(Window { checks, named, seconds, cpu })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Api(SocketAddr);

impl Api {
    pub(crate) fn page(self) -> anyhow::Result<Page> {
        let mut stream = TcpStream::connect(self.0)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(Page(page))
    }
}

/// A page of metrics.
pub(crate) struct Page(String);

impl Page {
    /// By name and labels as printed; what is not there has not happened.
    pub(crate) fn sample(&self, name: &str) -> anyhow::Result<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0.0), |value| value.trim().parse().context("a number"))
    }

    /// By how much a counter has grown.
    pub(crate) fn since(&self, before: &Self, name: &str) -> anyhow::Result<f64> {
        Ok(self.sample(name)? - before.sample(name)?)
    }
}
