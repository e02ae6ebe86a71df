//! Reloads under load: many monitors, of which a part is another one every few seconds.
//!
//! Hypothesis: the checks of those that do not change notice nothing. No due time is missed, and the lag's 99th percentile stays
//! below 50 ms while files of a hundred thousand monitors are read on the thread beside. Of each round's monitors a third is
//! replaced by new names, a third is redefined (another path), and a third adjusted (another threshold).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::child::{self, Process};
use super::daemon::{API, Folder, Metrics, metrics};
use super::pulse::{enter_namespace, run_release, start_target};
use super::{Destinations, Kind};
use crate::target_folder;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Another daemon than the one built for release
    #[arg(long)]
    binary: Option<PathBuf>,
    /// This program is the release build
    #[arg(long, hide = true)]
    built: bool,
    #[arg(long, default_value_t = 100_000)]
    monitors: usize,
    /// Seconds between two checks of a monitor
    #[arg(long, default_value_t = 60)]
    interval: u32,
    /// Monitors in a hundred that change with each reload
    #[arg(long, default_value_t = 1.0)]
    percent: f64,
    /// Seconds between two reloads
    #[arg(long, default_value_t = 5.0)]
    every: f64,
    /// Seconds of reloads
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
}

/// What may not be exceeded.
const LAG_P99_MAX: f64 = 0.050;
const START: Duration = Duration::from_secs(120);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built && options.binary.is_none() {
        return run_release();
    }
    let network = enter_namespace();
    println!("network: {}", network.as_deref().unwrap_or("a namespace of its own"));
    child::raise_open_files()?;
    let binary = options.binary.clone().map_or_else(|| Ok(target_folder()?.join("release/cpra")), anyhow::Ok)?;
    let binary = std::fs::canonicalize(&binary).with_context(|| binary.display().to_string())?;
    let mut target = start_target(Kind::Tcp, Destinations::DEFAULT)?;
    let folder = Folder::make()?;
    let file = folder.0.join("monitors.yaml");
    std::fs::write(&file, text(options, 0))?;
    let log = std::fs::File::create(folder.0.join("output.txt"))?;
    let mut command = of(&binary, &folder.0);
    command.arg("--yaml").arg(&file).args(["--api.listen", API, "--pprof=false"]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut daemon = Process::start(&mut command)?;
    let result = observe(options, &binary, &folder.0, &mut daemon);
    let output = std::fs::read_to_string(folder.0.join("output.txt")).unwrap_or_default();
    daemon.end();
    let _ = target.tell("reset");
    result.with_context(|| output.lines().rev().take(5).collect::<Vec<_>>().join(" / "))
}

fn of(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).env("STATE_DIRECTORY", folder).env("RUNTIME_DIRECTORY", folder);
    command
}

fn observe(options: &Options, binary: &Path, folder: &Path, daemon: &mut Process) -> anyhow::Result<()> {
    let began = Instant::now();
    let up = |metrics: &Metrics| metrics.passed() >= options.monitors as f64;
    while !metrics().is_ok_and(|metrics| up(&metrics)) {
        ensure!(daemon.is_running(), "the daemon ended");
        ensure!(began.elapsed() < START + Duration::from_secs(u64::from(options.interval)), "not all were checked");
        std::thread::sleep(Duration::from_millis(200));
    }
    let before = metrics()?;
    let (began, mut round, mut took) = (Instant::now(), 0_u32, Vec::new());
    while began.elapsed().as_secs_f64() < options.seconds {
        round += 1;
        let next = folder.join("next.yaml");
        std::fs::write(&next, text(options, round))?;
        std::fs::rename(&next, folder.join("monitors.yaml"))?;
        let asked = Instant::now();
        let output = of(binary, folder).arg("reload").output()?;
        took.push(asked.elapsed());
        if !output.status.success() {
            bail!("reload: {}", String::from_utf8_lossy(&output.stderr));
        }
        if round == 1 {
            print!("the first: {}", String::from_utf8_lossy(&output.stdout));
        }
        let due = began + Duration::from_secs_f64(options.every * f64::from(round));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let after = metrics()?;
    let grown = |name: &str| after.sum(name).unwrap_or(f64::NAN) - before.sum(name).unwrap_or(f64::NAN);
    let (missed, lost) = (grown("cpra_checks_missed_total"), after.sum("cpra_monitors_lost").unwrap_or(f64::NAN));
    let lag = |share| after.quantile(&before, "cpra_schedule_lag", share);
    took.sort_unstable();
    println!(
        "{} monitors, every {} s, {} % other ones every {} s: {round} reloads of {:.2} s each (the longest {:.2} s)",
        options.monitors,
        options.interval,
        options.percent,
        options.every,
        took[took.len() / 2].as_secs_f64(),
        took[took.len() - 1].as_secs_f64(),
    );
    println!(
        "checks {}, missed {missed}, busy {}, lost {lost}; lag p50 <= {:.1} ms, p99 <= {:.1} ms, p99.9 <= {:.1} ms; RSS {} MiB",
        grown("cpra_checks_total"),
        grown("cpra_checks_skipped_total"),
        lag(0.50) * 1e3,
        lag(0.99) * 1e3,
        lag(0.999) * 1e3,
        child::resident_bytes(daemon.id())? >> 20,
    );
    ensure!(missed == 0.0 && lost == 0.0, "monitors were missed or lost");
    ensure!(lag(0.99) <= LAG_P99_MAX, "checks were late");
    Ok(())
}

/// The file of a round. Each round changes other monitors than the one before.
fn text(options: &Options, round: u32) -> String {
    let changed = (options.monitors as f64 * options.percent / 100.0) as usize;
    let addresses: Vec<_> = Destinations::DEFAULT.all().collect();
    let mut text = format!("defaults:\n  pulse: {{interval: {}s, timeout: 1s}}\nmonitors:\n", options.interval);
    for number in 0..options.monitors {
        // How often this one was among those that change, and what has come of it.
        let turns = options.monitors.div_ceil(changed.max(1));
        let turn = number / changed.max(1);
        let times = (0..=round as usize).filter(|round| *round > 0 && (round - 1) % turns == turn).count();
        let address = addresses[(number + if number % 3 == 1 { times } else { 0 }) % addresses.len()];
        let name = if number % 3 == 0 { times } else { 0 };
        let threshold = if number % 3 == 2 { 3 + times % 2 } else { 3 };
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            text,
            "  - name: bench/{number:07}-{name}\n    pulse: {{type: tcp, unhealthy_threshold: {threshold}, config: \
             {{host: {ip}, port: {port}}}}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_changes_as_many_as_it_should() {
        let options =
            Options { binary: None, built: true, monitors: 900, interval: 60, percent: 1.0, every: 5.0, seconds: 1.0 };
        let [first, second, third] = [0, 1, 2].map(|round| text(&options, round));
        let differ = |a: &str, b: &str| a.split("  - ").zip(b.split("  - ")).filter(|(a, b)| a != b).count();
        assert_eq!((differ(&first, &second), differ(&second, &third)), (9, 9));
    }
}
