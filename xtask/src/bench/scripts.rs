//! `cargo xtask bench scripts`: scripts per second through the daemon, as many as it can, beside a bare loop of posix_spawn(3)
//! and waitpid(2) with the same program and as many at a time.
//!
//! The bare loop has no pipes, no users, no limits and no timeouts: what a program costs when only the kernel is paid. Both
//! run alternately, each as a process of its own; CPU time is the kernel's account of it and of all its children.
//!
//! The rates mean something only where nothing else wants the processors: every script waits for one several times, and more
//! often than in the bare loop. `chrt -r 1 cargo xtask bench scripts` puts both before whatever else runs.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cpra::daemon::{self, Plan};
use cpra::domain::monitor::ScriptCheck;
use cpra::domain::{Check, Host, Monitor, Policy, Target};
use cpra::os::limits::NofileLimit;
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitStatus, wait};
use serde_json::{Value, json};

use super::child::{self, Process};
use super::{daemon::metrics_of, pulse};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs both once
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measured seconds of a run
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Scripts at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 64])]
    concurrency: Vec<u32>,
    /// The program that is run
    #[arg(long, default_value = "/bin/true")]
    program: String,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

/// What one of the two is to do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    program: String,
    #[arg(long)]
    concurrency: u32,
    #[arg(long)]
    seconds: f64,
    /// In which each monitor is checked for the first time, which is news to the desk
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
}

/// The aim: this share of the bare loop's rate.
const AIM: f64 = 0.7;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    println!("machine: {}; {} at a time: {}", pulse::machine(), options.program, list(&options.concurrency));
    let mut results = vec![];
    let mut short = vec![];
    for &concurrency in &options.concurrency {
        let (mut bare, mut ours) = (vec![], vec![]);
        for round in 1..=options.rounds {
            for (name, runs) in [("spawn-loop", &mut bare), ("spawn-daemon", &mut ours)] {
                let figures = measure(name, options, concurrency)?;
                println!(
                    "round {round} {concurrency} at a time, {name}: {:.0}/s, {:.0} µs of CPU",
                    figures.rate, figures.cpu_us
                );
                runs.push(figures);
            }
        }
        let of = |runs: &[Figures], value: fn(&Figures) -> f64| median(runs.iter().map(value).collect());
        let (bare_rate, our_rate) = (of(&bare, |run| run.rate), of(&ours, |run| run.rate));
        let (bare_cpu, our_cpu) = (of(&bare, |run| run.cpu_us), of(&ours, |run| run.cpu_us));
        let ratio = our_rate / bare_rate;
        println!(
            "{concurrency} at a time: {our_rate:.0}/s of {bare_rate:.0}/s = {ratio:.2} (aim {AIM}); CPU {our_cpu:.0} of {bare_cpu:.0} µs"
        );
        if ratio < AIM {
            short.push(format!("{concurrency} at a time: {ratio:.2}, less than {AIM}"));
        }
        results.push(json!({
            "concurrency": concurrency, "bare_rate": bare_rate, "rate": our_rate, "ratio": ratio,
            "bare_cpu_us": bare_cpu, "cpu_us": our_cpu, "rounds": options.rounds,
        }));
    }
    if let Some(path) = &options.json {
        let whole = json!({ "machine": pulse::machine(), "program": options.program, "results": results });
        std::fs::write(path, format!("{whole:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !short.is_empty() {
        bail!(short.join("\n"));
    }
    Ok(())
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Figures {
    rate: f64,
    cpu_us: f64,
}

fn measure(name: &str, options: &Options, concurrency: u32) -> anyhow::Result<Figures> {
    let arguments = [
        name.to_owned(),
        "--program".to_owned(),
        options.program.clone(),
        "--concurrency".to_owned(),
        concurrency.to_string(),
        "--seconds".to_owned(),
        options.seconds.to_string(),
    ];
    let mut process = Process::own(&arguments)?;
    // The daemon tells its story, too.
    let line = loop {
        let line = process.line().with_context(|| name.to_owned())?;
        if line.starts_with('{') {
            break line;
        }
    };
    let result: Value = serde_json::from_str(&line).with_context(|| format!("{name} says {line}"))?;
    let number = |key: &str| result[key].as_f64().with_context(|| format!("{name} says {line}"));
    let (scripts, failed) = (number("scripts")?, number("failed")?);
    if scripts == 0.0 || failed > 0.0 {
        bail!("{name}: {failed} failed beside {scripts}");
    }
    Ok(Figures { rate: scripts / number("window_s")?, cpu_us: number("cpu_us")? / scripts })
}

/// User and system time of this process, and of its children that have been waited for.
fn cpu() -> Duration {
    let of = |who| {
        let usage = getrusage(who).expect("the kernel knows this process");
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

fn tell(scripts: u64, failed: u64, window: Duration, spent: Duration) {
    let (window_s, cpu_us) = (window.as_secs_f64(), spent.as_micros() as u64);
    println!("{}", json!({ "scripts": scripts, "failed": failed, "window_s": window_s, "cpu_us": cpu_us }));
}

/// The bare loop.
pub(crate) fn spawn_loop(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    let program = std::ffi::CString::new(load.program.as_str())?;
    let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    let nothing: [std::ffi::CString; 0] = [];
    let spawn = || posix_spawn(program.as_c_str(), &actions, &attributes, &[&program], &nothing);
    let opens = Instant::now() + Duration::from_secs_f64(load.warm_up);
    let mut opened = None;
    let (mut scripts, mut failed) = (0, 0);
    for _ in 0..load.concurrency {
        spawn()?;
    }
    loop {
        let is_ok = matches!(wait()?, WaitStatus::Exited(_, 0));
        let now = Instant::now();
        match opened {
            None if now >= opens => opened = Some((now, cpu())),
            None => {}
            Some((since, before)) => {
                scripts += 1;
                failed += u64::from(!is_ok);
                if (now - since).as_secs_f64() >= load.seconds {
                    tell(scripts, failed, now - since, cpu().saturating_sub(before));
                    break;
                }
            }
        }
        spawn()?;
    }
    while wait().is_ok() {}
    Ok(())
}

/// Monitors that are due more often than anybody can run their scripts, so that every place is taken all the time.
const MONITORS: usize = 1_000;
const INTERVAL: Span = Span::from_millis(100);

/// The daemon, in this process: its threads, its machines and its queues, with as many slots as scripts at a time.
pub(crate) fn spawn_daemon(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    NofileLimit::raise()?;
    let policy = Policy::new(
        Check::Script(ScriptCheck { argv: Box::new([load.program.as_str().into()]), env: Box::default(), cwd: None }),
        INTERVAL,
        Span::from_secs(1),
    );
    let target = Target { host: Host::Literal(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port: 0, path: "".into() };
    let monitors = (0..MONITORS).map(|number| Monitor {
        name: format!("bench/{number}").into(),
        enabled: true,
        target: target.clone(),
        policy: policy.clone(),
    });
    let api = TcpListener::bind("127.0.0.1:0")?;
    let address = api.local_addr()?;
    let folder = std::env::temp_dir();
    let plan = Plan { pulse: Setup::fixed(load.concurrency), ..Plan::new(Catalog::build(monitors, 1)?, api, folder) };
    let daemon = daemon::start(plan)?;
    std::thread::sleep(Duration::from_secs_f64(load.warm_up));
    let counts = || -> anyhow::Result<(f64, f64)> {
        let metrics = metrics_of(address)?;
        Ok((metrics.sum("cpra_checks_total").unwrap_or(0.0), metrics.passed()))
    };
    let (since, cpu_before, (all_before, passed_before)) = (Instant::now(), cpu(), counts()?);
    std::thread::sleep(Duration::from_secs_f64(load.seconds));
    let (window, spent, (all, passed)) = (since.elapsed(), cpu().saturating_sub(cpu_before), counts()?);
    let (scripts, passed) = (all - all_before, passed - passed_before);
    daemon.stop();
    tell(scripts as u64, (scripts - passed) as u64, window, spent);
    Ok(())
}
