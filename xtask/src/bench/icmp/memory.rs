//! What a target costs in memory: the daemon's resident memory and the kernel's tables, with few targets and with many.
//! The difference is per target; what stands once (code, rings, tickets for every slot) falls out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use cpra::units::Span;
use serde_json::{Value, json};

use super::{Network, Prober};
use crate::bench::child::{self, Process};

#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    targets: u32,
    #[arg(long, value_enum)]
    prober: Prober,
}

const FEW: u32 = 50_000;
const MANY: u32 = 200_000;
const INTERVAL_SECONDS: u64 = 10;

pub(super) fn compare(probers: &[Prober]) -> anyhow::Result<()> {
    println!("memory with {FEW} and with {MANY} targets, each every {INTERVAL_SECONDS} s:\n");
    println!("| backend | resident | in the kernel's tables | bytes per target | of these in tables |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for &prober in probers.iter().filter(|prober| prober.is_ours()) {
        let run = |targets: u32| {
            let targets = targets.to_string();
            let arguments = ["icmp-memory", "--targets", &targets, "--prober", prober.as_str()];
            let line = Process::own(&arguments.map(str::to_owned))?.last_line()?;
            let result: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            let number = |key: &str| result[key].as_f64().with_context(|| format!("no {key}: {line}"));
            anyhow::Ok((number("resident")?, number("tables")?))
        };
        let (few, many) = (run(FEW)?, run(MANY)?);
        let each = |few: f64, many: f64| (many - few) / f64::from(MANY - FEW);
        let megabytes = |few: f64, many: f64| format!("{:.1} → {:.1} MB", few / 1e6, many / 1e6);
        println!(
            "| {} | {} | {} | {:.0} | {:.0} |",
            prober.words(),
            megabytes(few.0, many.0),
            megabytes(few.1, many.1),
            each(few.0, many.0) + each(few.1, many.1),
            each(few.1, many.1),
        );
    }
    println!();
    Ok(())
}

/// One run, in a process of its own.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let monitors = super::monitors(Network::Lo, load.targets, Span::from_secs(INTERVAL_SECONDS));
    let (_daemon, api) = monitors.start(load.prober == Prober::Ebpf)?;
    // Everything has been checked at least once.
    std::thread::sleep(Duration::from_secs(INTERVAL_SECONDS + 5));
    let up = api.page()?.sample("cpra_monitors{state=\"up\"}")?;
    ensure!(up >= f64::from(load.targets) * 0.99, "only {up} of {} are up", load.targets);
    let resident = child::resident_bytes(std::process::id())?;
    println!("{}", json!({ "resident": resident, "tables": tables()? }));
    // What remains ends with the process, which only the figures were wanted of.
    std::process::exit(0);
}

/// What the kernel keeps for the eBPF tables of this process, each counted once.
fn tables() -> anyhow::Result<u64> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(bytes)) = (number("map_id"), number("memlock")) {
            sizes.insert(id, bytes);
        }
    }
    Ok(sizes.values().sum())
}
