//! `cargo xtask bench pulse`: the variants interleaved over several rounds, so that what the machine does meanwhile hits
//! all of them alike, and one table of medians.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::child::{self, Process};
use super::report::{Figures, Report, Scenario, Variant};
use super::{Destinations, Kind, Load, daemon};
use crate::steps::{cargo, execute};
use crate::target_folder;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of a reference loop's run
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Kinds of checks [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Paces besides saturation, in checks per second
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    rates: Vec<u32>,
    /// Checks in flight at most, for the reference loops
    #[arg(long, default_value_t = 1000)]
    concurrency: u32,
    /// Leaves the daemon out
    #[arg(long)]
    no_daemon: bool,
    /// Only the daemon and the loops paced like it
    #[arg(long)]
    no_saturation: bool,
    /// Measured seconds of a daemon's run
    #[arg(long, default_value_t = 6.0)]
    daemon_seconds: f64,
    /// Seconds that the daemon gets to settle
    #[arg(long, default_value_t = 3.0)]
    daemon_warm_up: f64,
    /// The monitors' interval in seconds: there are rate × interval of them
    #[arg(long, default_value_t = 1)]
    interval: u32,
    /// No run starts after this many seconds
    #[arg(long, default_value_t = 285)]
    budget: u64,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

const DAEMON: &str = "release/cpra";

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return run_release();
    }
    child::raise_open_files()?;
    let namespace = enter_namespace();
    println!("machine: {}; network: {}", machine(), namespace.as_deref().unwrap_or("a namespace of its own"));
    let daemon = if options.no_daemon { None } else { Some(target_folder()?.join(DAEMON)) };
    let report = measure(options, daemon.as_deref())?;
    println!("\n{}", report.text());
    let faults = report.faults();
    let whole = json!({ "machine": machine(), "faults": faults, "results": report.json() });
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{whole:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        let text = format!("{}\n\n{}", machine(), report.markdown());
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}

/// Figures of an unoptimised build are of no use: builds for release and hands over to it.
pub(super) fn run_release() -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "xtask", "--package", "cpra"]);
    execute(&mut build).context("cargo build --release")?;
    let program = target_folder()?.join("release/xtask");
    let mut command = Command::new(&program);
    // The same arguments, and the mark.
    command.args(std::env::args_os().skip(1)).arg("--built");
    let status = command.status().with_context(|| program.display().to_string())?;
    if !status.success() {
        bail!("bench: {status}");
    }
    Ok(())
}

/// A network of our own: no conntrack, all ports. Returns why there is none.
pub(super) fn enter_namespace() -> Option<String> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        return Some(format!("the host's ({errno}; conntrack and other traffic may show)"));
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.is_ok_and(|status| status.success()) {
        return Some("NONE: `ip link set lo up` failed (package iproute2)".into());
    }
    // All ports for the probers; the namespace's own setting ends with it.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000");
    None
}

pub(super) fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!("Linux {}, {cores} cores, {}", kernel.trim(), model.trim_start_matches([' ', '\t', ':']))
}

fn measure(options: &Options, daemon: Option<&Path>) -> anyhow::Result<Report> {
    let ends = Instant::now() + Duration::from_secs(options.budget);
    let kinds: &[Kind] = if options.kinds.is_empty() { &Kind::ALL } else { &options.kinds };
    let destinations = Destinations::DEFAULT;
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for &kind in kinds {
            // A fresh target for each kind and round, so that none inherits another's leftovers.
            let mut target = start_target(kind, destinations)?;
            let saturated = (!options.no_saturation).then_some(None);
            for rate in saturated.into_iter().chain(options.rates.iter().copied().map(Some)) {
                let scenario = Scenario { kind, rate };
                let load = Load {
                    kind,
                    rate,
                    concurrency: options.concurrency,
                    seconds: options.seconds,
                    warm_up: 0.5,
                    destinations,
                };
                for variant in [Variant::Ring, Variant::Epoll, Variant::Daemon] {
                    if Instant::now() > ends {
                        println!("the budget of {} s is spent in round {round}", options.budget);
                        return Ok(report);
                    }
                    let figures = match (variant, rate, daemon) {
                        (Variant::Ring, _, _) => reference("ring", &load, &mut target)?,
                        (Variant::Epoll, _, _) => reference("epoll", &load, &mut target)?,
                        (Variant::Daemon, Some(rate), Some(binary)) => {
                            let run = daemon::Run {
                                binary,
                                kind,
                                rate,
                                interval: options.interval,
                                seconds: options.daemon_seconds,
                                warm_up: options.daemon_warm_up,
                                destinations,
                            };
                            match run.measure(&mut target) {
                                Ok(figures) => figures,
                                Err(error) => {
                                    println!("round {round} {kind} {rate}/s {variant:?}: {error:#}");
                                    report.fail(scenario, variant, &error);
                                    continue;
                                }
                            }
                        }
                        (Variant::Daemon, _, _) => continue,
                    };
                    println!(
                        "round {round} {kind} {} {variant:?}: {:.0}/s, {:.1} µs, {} failed",
                        rate.map_or("saturated".into(), |rate| format!("{rate}/s")),
                        figures.rate,
                        figures.cpu_us,
                        figures.failed
                    );
                    report.add(scenario, variant, figures);
                }
            }
        }
    }
    Ok(report)
}

pub(super) fn start_target(kind: Kind, destinations: Destinations) -> anyhow::Result<Process> {
    let mut arguments = vec!["target".to_owned()];
    if kind != Kind::Tcp {
        arguments.push("--http".into());
    }
    arguments.extend(destinations.arguments());
    let mut target = Process::own(&arguments)?;
    let line = target.line().context("target")?;
    if line != "ready" {
        bail!("the target says {line}");
    }
    Ok(target)
}

/// Runs a reference loop and holds its count against the target's.
fn reference(name: &str, load: &Load, target: &mut Process) -> anyhow::Result<Figures> {
    let served = |counts: &Value| counts[if load.kind == Kind::Tcp { "accepted" } else { "requests" }].as_u64();
    let before = served(&target.snapshot()?).context("no count")?;
    let mut arguments = vec![name.to_owned()];
    arguments.extend(load.arguments());
    let mut prober = Process::own(&arguments)?;
    let line = prober.line().with_context(|| format!("{name} {}", load.kind))?;
    let result: Value = serde_json::from_str(&line).with_context(|| format!("{name} says {line}"))?;
    let number = |key: &str| result[key].as_f64().unwrap_or(0.0);
    // The last accepts may still be under way.
    std::thread::sleep(Duration::from_millis(20));
    let counted = (served(&target.snapshot()?).context("no count")? - before) as f64;
    let checks_all = number("checks_all");
    if (counted - checks_all).abs() > checks_all * 0.01 + 10.0 {
        bail!("{name} {} claims {checks_all} checks, the target counted {counted}", load.kind);
    }
    Ok(Figures {
        checks: number("checks") as u64,
        failed: number("failed") as u64,
        rate: number("checks") / number("window_s"),
        target_rate: counted / number("run_s"),
        cpu_us: number("cpu_us") / number("checks").max(1.0),
        lag_p50_us: number("lag_p50_us"),
        lag_p99_us: number("lag_p99_us"),
        notes: Vec::new(),
    })
}
