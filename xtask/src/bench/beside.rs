//! Probers that are measured in turn, each in a process of its own: what a run came to, and the table of their medians.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::child::Process;

/// What happened while it was measured.
pub(crate) struct Window {
    pub(crate) checks: f64,
    /// Of these, what the backend named did.
    pub(crate) named: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu: Duration,
}

impl Window {
    /// One line for the driver.
    pub(crate) fn print(&self) {
        let &Self { checks, named, seconds, cpu } = self;
        println!(
            "{}",
            json!({ "checks": checks, "named": named, "seconds": seconds, "cpu_us": cpu.as_micros() as u64 })
        );
    }
}

/// What a run came to.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// Microseconds of processor time per check.
    pub(crate) each: f64,
    /// Checks per second that it came to.
    pub(crate) rate: f64,
    /// The share of the checks that came to a verdict, by the backend named.
    pub(crate) share: f64,
}

impl Cost {
    /// Of a run of this program, which prints a [`Window`] and must keep up with the rate.
    pub(crate) fn of_run(arguments: &[String], wanted: u32) -> anyhow::Result<Self> {
        let line = Process::own(arguments)?.last_line()?;
        let result: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let number = |key: &str| result[key].as_f64().with_context(|| format!("no {key}: {line}"));
        let (checks, named) = (number("checks")?, number("named")?);
        let rate = checks / number("seconds")?;
        ensure!((rate / f64::from(wanted) - 1.0).abs() < 0.03, "{rate:.0} checks/s, not about {wanted}: {line}");
        ensure!(named >= checks * 0.99, "only {named} of {checks} verdicts came from the backend named: {line}");
        Ok(Self { each: number("cpu_us")? / checks, rate, share: named / checks })
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} µs each at {:.0}/s, {:.1} % told by it", self.each, self.rate, self.share * 100.0)
    }
}

/// The run whose cost is the middle one; `None` where every one was left out.
pub(crate) fn median(mut costs: Vec<Cost>) -> Option<Cost> {
    costs.sort_by(|a, b| a.each.total_cmp(&b.each));
    costs.get(costs.len() / 2).copied()
}

/// A row for each prober; its checks per processor second also as a multiple of those of the `references`.
pub(crate) fn print_table(rows: &[(&str, Cost)], references: &[&str]) {
    let present: Vec<_> = rows.iter().filter(|(name, _)| references.contains(name)).collect();
    print!("| prober | CPU per check | per CPU second |");
    present.iter().for_each(|(name, _)| print!(" of {name} |"));
    println!(" checks/s | told by it |");
    println!("| --- | ---: | ---: |{} ---: | ---: |", " ---: |".repeat(present.len()));
    for (name, cost) in rows {
        print!("| {name} | {:.2} µs | {:.0} |", cost.each, 1e6 / cost.each);
        present.iter().for_each(|(_, reference)| print!(" {:.2} × |", reference.each / cost.each));
        println!(" {:.0} | {:.1} % |", cost.rate, cost.share * 100.0);
    }
    println!();
}
