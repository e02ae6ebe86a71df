//! What was measured, as a table for people, as JSON and as Markdown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Kind;

/// One run of one variant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) checks: u64,
    pub(crate) failed: u64,
    /// Checks per second by the prober's count.
    pub(crate) rate: f64,
    /// Connections (requests, for HTTP) per second by the target's count.
    pub(crate) target_rate: f64,
    /// User and system time of the prober per completed check.
    pub(crate) cpu_us: f64,
    pub(crate) lag_p50_us: f64,
    pub(crate) lag_p99_us: f64,
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    Ring,
    Epoll,
    Daemon,
}

impl Variant {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "(a) io_uring loop",
            Self::Epoll => "(b) tokio epoll",
            Self::Daemon => "(c) cpra",
        }
    }
}

/// What is compared: the same kind of check at the same pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// `None`: as fast as possible.
    pub(crate) rate: Option<u32>,
}

impl Scenario {
    fn pace(self) -> String {
        self.rate.map_or_else(|| "saturated".into(), |rate| format!("{rate}/s"))
    }
}

/// All runs, in the order of scenario and variant.
#[derive(Default)]
pub(crate) struct Report {
    runs: BTreeMap<(Scenario, Variant), Vec<Figures>>,
    /// Runs that gave no figures.
    failures: Vec<String>,
}

/// How far the daemon's rate and the target's may lie apart: the daemon's metrics are up to a quarter of a second old.
/// The reference loops' counts have been held against the target's one by one.
const COUNTS_APART_MAX: f64 = 0.05;

/// (a) is what (b) is not: lean. Should it cost nearly as much, then something else was measured.
const SANITY_MAX: f64 = 0.65;

impl Report {
    pub(crate) fn add(&mut self, scenario: Scenario, variant: Variant, figures: Figures) {
        self.runs.entry((scenario, variant)).or_default().push(figures);
    }

    fn median(&self, scenario: Scenario, variant: Variant, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.get(&(scenario, variant))?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    /// CPU per check relative to the leanest loop at the same pace.
    fn ratio(&self, scenario: Scenario, variant: Variant) -> Option<f64> {
        let cpu = |variant| self.median(scenario, variant, |figures| figures.cpu_us);
        Some(cpu(variant)? / cpu(Variant::Ring)?)
    }

    pub(crate) fn fail(&mut self, scenario: Scenario, variant: Variant, error: &anyhow::Error) {
        self.failures.push(format!("{} {} {}: {error:#}", scenario.kind, scenario.pace(), variant.as_str()));
    }

    /// Why the figures must not be used, or not all of them.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.failures.clone();
        let saturated = Scenario { kind: Kind::Tcp, rate: None };
        if let Some(ratio) = self.ratio(saturated, Variant::Epoll).map(|ratio| 1.0 / ratio)
            && ratio > SANITY_MAX
        {
            faults.push(format!(
                "VOID: TCP saturated, (a) costs {ratio:.2} of (b), more than {SANITY_MAX}: the loops or the machine are off"
            ));
        }
        for (&(scenario, variant), runs) in self.runs.iter().filter(|((_, variant), _)| *variant == Variant::Daemon) {
            let apart = |figures: &&Figures| (figures.target_rate / figures.rate - 1.0).abs() > COUNTS_APART_MAX;
            if let Some(Figures { rate, target_rate, .. }) = runs.iter().find(apart) {
                let (pace, variant) = (scenario.pace(), variant.as_str());
                faults.push(format!(
                    "{} {pace} {variant}: {rate:.0} checks/s, but the target saw {target_rate:.0}",
                    scenario.kind
                ));
            }
        }
        faults
    }

    pub(crate) fn markdown(&self) -> String {
        let mut table = String::from(
            "| check | pace | variant | checks | checks/s | at the target/s | CPU µs/check | spread | of (a) | lag p50 / p99 ms | failed |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (&(scenario, variant), runs) in &self.runs {
            let median = |of: fn(&Figures) -> f64| self.median(scenario, variant, of).unwrap_or(f64::NAN);
            let cpu = runs.iter().map(|figures| figures.cpu_us);
            let (low, high) = cpu.fold((f64::INFINITY, 0.0_f64), |(low, high), us| (low.min(us), high.max(us)));
            let lag = if scenario.rate.is_some() {
                format!("{:.2} / {:.2}", median(|f| f.lag_p50_us) / 1e3, median(|f| f.lag_p99_us) / 1e3)
            } else {
                "–".into()
            };
            table.push_str(&format!(
                "| {} | {} | {} | {} | {:.0} | {:.0} | {:.1} | {low:.1}–{high:.1} | {} | {lag} | {} |\n",
                scenario.kind,
                scenario.pace(),
                variant.as_str(),
                runs.iter().map(|figures| figures.checks).sum::<u64>(),
                median(|f| f.rate),
                median(|f| f.target_rate),
                median(|f| f.cpu_us),
                self.ratio(scenario, variant).map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")),
                runs.iter().map(|figures| figures.failed).sum::<u64>(),
            ));
        }
        table
    }

    /// The Markdown table with its columns aligned, and the notes of the daemon's runs.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .markdown()
            .lines()
            .filter(|line| !line.contains("---"))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Words to the left, numbers to the right.
                let cell = if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                text.push_str(&cell);
                text.push_str("  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for (&(scenario, variant), runs) in &self.runs {
            for figures in runs.iter().filter(|figures| !figures.notes.is_empty()) {
                let notes = figures.notes.join(", ");
                text.push_str(&format!("{} {} {}: {notes}\n", scenario.kind, scenario.pace(), variant.as_str()));
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let run = |figures: &Figures| {
            json!({
                "checks": figures.checks, "failed": figures.failed, "rate": figures.rate,
                "target_rate": figures.target_rate, "cpu_us": figures.cpu_us,
                "lag_p50_us": figures.lag_p50_us, "lag_p99_us": figures.lag_p99_us, "notes": figures.notes,
            })
        };
        self.runs
            .iter()
            .map(|(&(scenario, variant), runs)| {
                json!({
                    "kind": scenario.kind.as_str(),
                    "rate": scenario.rate,
                    "variant": format!("{variant:?}").to_lowercase(),
                    "cpu_us": self.median(scenario, variant, |figures| figures.cpu_us),
                    "ratio": self.ratio(scenario, variant),
                    "runs": runs.iter().map(run).collect::<Vec<_>>(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ring_us: f64, epoll_us: f64) -> Report {
        let mut report = Report::default();
        let scenario = Scenario { kind: Kind::Tcp, rate: None };
        for off in [-1.0, 5.0, 0.0] {
            report.add(scenario, Variant::Ring, Figures { cpu_us: ring_us + off, ..Figures::default() });
            report.add(scenario, Variant::Epoll, Figures { cpu_us: epoll_us + off, ..Figures::default() });
        }
        report
    }

    #[test]
    fn the_ratio_is_of_medians() {
        let scenario = Scenario { kind: Kind::Tcp, rate: None };
        assert_eq!(report(20.0, 50.0).ratio(scenario, Variant::Epoll), Some(2.5));
        assert_eq!(report(20.0, 50.0).ratio(scenario, Variant::Daemon), None);
    }

    #[test]
    fn a_loop_that_is_not_lean_voids_the_run() {
        assert_eq!(report(20.0, 50.0).faults(), [""; 0]);
        assert_eq!(report(40.0, 50.0).faults().len(), 1);
        assert_eq!(Report::default().faults(), [""; 0], "nothing was compared");
    }

    #[test]
    fn checks_that_the_target_did_not_see_are_a_fault() {
        let mut report = Report::default();
        let scenario = Scenario { kind: Kind::Tcp, rate: Some(1000) };
        report.add(scenario, Variant::Daemon, Figures { rate: 1000.0, target_rate: 960.0, ..Figures::default() });
        assert_eq!(report.faults(), [""; 0]);
        report.add(scenario, Variant::Daemon, Figures { rate: 1000.0, target_rate: 900.0, ..Figures::default() });
        assert_eq!(report.faults().len(), 1);
    }
}
