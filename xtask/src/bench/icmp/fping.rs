//! Debian's `fping`, at as many targets in the same time.
//!
//! `fping -q -s -b 28 -p 1000 -i … -c … -f targets`: messages as long as the daemon's, one to each target a second.
//!
//! One process cannot do more than 6,500 a second: it runs out of sequence numbers, of which it keeps each for ten seconds.
//! Nor can several share the work well, since each is shown the answers to all. So it gets as many targets as one process
//! can do, which is the kindest to it.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Load, Prober};
use crate::bench::beside::Cost;
use crate::bench::child;
use crate::bench::pace::{Account, cpu_of};

/// Bytes of a message without its ICMP header.
const DATA: &str = "28";
/// Targets that are sent to all at once ...
const AT_ONCE_MAX: u32 = 6_000;
/// ... and with pauses in between, each of which takes longer than it is meant to.
const SPREAD_MAX: u32 = 4_000;
const WARM_UP: Duration = Duration::from_secs(2);

pub(super) fn measure(load: &Load) -> anyhow::Result<Cost> {
    let count = load.rate.min(if load.prober == Prober::FpingSpread { SPREAD_MAX } else { AT_ONCE_MAX });
    let mut targets = String::new();
    for index in 0..count {
        let _ = writeln!(targets, "{}", load.network.target(index));
    }
    let file = std::env::temp_dir().join(format!("cpra-bench-{}.targets", std::process::id()));
    std::fs::write(&file, targets).with_context(|| file.display().to_string())?;
    let outcome = probe(load, count, &file);
    let _ = std::fs::remove_file(&file);
    outcome
}

fn probe(load: &Load, count: u32, file: &std::path::Path) -> anyhow::Result<Cost> {
    // Milliseconds from one request to the next.
    let gap = match load.prober {
        Prober::FpingSpread => 1_000.0 / f64::from(count),
        _ => 0.0,
    };
    let rounds = load.seconds + 2 * WARM_UP.as_secs() as u32;
    let mut command = Command::new("fping");
    command.args(["-q", "-s", "-b", DATA, "-p", "1000", "-i", &format!("{gap:.3}"), "-c", &rounds.to_string(), "-f"]);
    // One line for each target, and then the sums, on the standard error.
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    child::end_with_parent(&mut command);
    let process = command.spawn().context("fping (package fping)")?;
    std::thread::sleep(WARM_UP);
    let (id, account) = (process.id(), Account::of_kernel());
    let before = cpu_of(id)?;
    std::thread::sleep(Duration::from_secs(load.seconds.into()));
    let cpu = cpu_of(id)?.saturating_sub(before) + account.spent();
    let output = process.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let number = |words: &str| {
        let line = text.lines().find(|line| line.contains(words));
        let line = line.with_context(|| format!("fping ({}) says no {words}: {:.200}", output.status, text.trim()))?;
        line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).with_context(|| line.to_owned())
    };
    let (sent, received) = (number("ICMP Echos sent")?, number("ICMP Echo Replies received")?);
    let elapsed = number("sec (elapsed real time)")?;
    ensure!(received >= sent * 0.99, "fping lost {} of {sent}", sent - received);
    // A round takes a second, or longer where it cannot keep up; of the last one it may do everything at once.
    let rate = sent / elapsed.max(f64::from(rounds));
    Ok(Cost { each: cpu.as_secs_f64() * 1e6 / (rate * f64::from(load.seconds)), rate, share: received / sent })
}
