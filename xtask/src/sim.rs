//! `cargo xtask sim`: sweeps of the simulator, replays of one seed, and the hunt for planted defects.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use cpra::sim::{self, Sweep};

/// A sweep of at least this many seeds must have reached everything.
const COVERING: u64 = 200;
const LINES_LAST: usize = 40;

#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Replay this one seed and print every event and effect
    #[arg(long, conflicts_with_all = ["seeds", "first", "planted"])]
    seed: Option<u64>,
    /// Plant one defect after the other: each must be found within the seeds
    #[arg(long)]
    planted: bool,
    /// Only this planted defect; with --seed, replay with it
    #[arg(long)]
    bug: Option<String>,
    /// Threads; by default one per processor
    #[arg(long)]
    threads: Option<u64>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.planted || options.bug.is_some() {
        return planted::run(options);
    }
    match options.seed {
        Some(seed) => replay(seed),
        None => sweep(options),
    }
}

fn replay(seed: u64) -> anyhow::Result<()> {
    let report = sim::replay(seed);
    for line in &report.lines {
        println!("{line}");
    }
    println!("seed {seed}: {} events in {}, hash {:016x}", report.events, report.lasted, report.hash);
    match report.failure {
        Some(failure) => bail!("{}: {}", failure.checker, failure.text),
        None => Ok(()),
    }
}

fn sweep(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let sweep = on_all_processors(options, || {});
    if let Some(report) = &sweep.failed {
        return tell_failure(report.seed);
    }
    print!("{}", sweep.coverage);
    println!(
        "{} seeds, {} events (at least {} each) in {:.1} s; {} of virtual time",
        sweep.seeds,
        sweep.events,
        sweep.events_min.unwrap_or_default(),
        began.elapsed().as_secs_f64(),
        sweep.lasted
    );
    let missing = sweep.coverage.missing();
    if sweep.seeds >= COVERING && !missing.is_empty() {
        bail!("never reached: {missing:?}");
    }
    Ok(())
}

/// Runs the seed again, with words.
fn tell_failure(seed: u64) -> anyhow::Result<()> {
    let report = sim::replay(seed);
    let lines = &report.lines;
    for line in &lines[lines.len().saturating_sub(LINES_LAST)..] {
        println!("{line}");
    }
    let failure = report.failure.context("a failure that does not repeat: the simulator is not deterministic")?;
    bail!("seed {seed}: {}: {}\n  again with: cargo xtask sim --seed {seed}", failure.checker, failure.text)
}

/// Splits the seeds among the processors, interleaved; once one has failed, only lower ones are of interest.
fn on_all_processors(options: &Options, prepare: impl Fn() + Sync) -> Sweep {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let threads = options.threads.unwrap_or(processors).max(1);
    let mut whole = Sweep::default();
    let failed = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| {
                let (prepare, failed) = (&prepare, &failed);
                let seeds = (0..options.seeds)
                    .filter(move |number| number % threads == thread)
                    .map(|number| options.first + number)
                    .take_while(|seed| *seed < failed.load(Ordering::Relaxed));
                scope.spawn(move || {
                    prepare();
                    let sweep = sim::sweep(seeds);
                    if let Some(report) = &sweep.failed {
                        failed.fetch_min(report.seed, Ordering::Relaxed);
                    }
                    sweep
                })
            })
            .collect();
        for part in parts {
            whole.merge(part.join().expect("a sweep does not panic"));
        }
    });
    whole
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use cpra::units::planted::{Bug, plant};

    use super::{Instant, Options, bail, on_all_processors};

    pub(super) fn run(options: &Options) -> anyhow::Result<()> {
        let name = |bug: Bug| format!("{bug:?}");
        let bugs: Vec<Bug> = Bug::ALL
            .into_iter()
            .filter(|bug| options.bug.as_ref().is_none_or(|wanted| name(*bug).eq_ignore_ascii_case(wanted)))
            .collect();
        if bugs.is_empty() {
            bail!("no such defect; there are {:?}", Bug::ALL);
        }
        if let (Some(seed), &[bug]) = (options.seed, bugs.as_slice()) {
            plant(Some(bug));
            return super::replay(seed);
        }
        let mut hidden = Vec::new();
        for bug in bugs {
            let began = Instant::now();
            let sweep = on_all_processors(options, || plant(Some(bug)));
            let took = began.elapsed().as_secs_f64();
            match sweep.failed.as_ref().and_then(|report| Some((report.seed, report.failure.as_ref()?))) {
                Some((seed, failure)) => {
                    println!("{:<32} seed {seed:>4}  {:<18} {took:>5.1} s", name(bug), failure.checker);
                }
                None => {
                    println!("{:<32} not found in {} seeds, {took:.1} s", name(bug), sweep.seeds);
                    hidden.push(bug);
                }
            }
        }
        if hidden.is_empty() { Ok(()) } else { bail!("not found: {hidden:?}") }
    }
}

/// Without the feature the defects are not even compiled: build again with it.
#[cfg(not(feature = "planted-bugs"))]
mod planted {
    use super::{Options, bail};
    use crate::steps::cargo;

    pub(super) fn run(_: &Options) -> anyhow::Result<()> {
        let status = cargo()
            .args(["run", "--quiet", "--package", "xtask", "--features", "planted-bugs", "--"])
            .args(std::env::args_os().skip(1))
            .status()?;
        if status.success() { Ok(()) } else { bail!("the hunt for planted defects failed") }
    }
}
