//! One report from those of several shards.

use super::controller::Report;
use super::meter::Percentiles;
use super::solver::{Answer, Goal, Load};
use crate::units::Span;

impl Report {
    /// Adds what another shard says about the same class. Counts and rates sum up; means are weighed by what arrives; of
    /// percentiles, which cannot be added, the worst is kept.
    pub fn merge(&mut self, other: &Self) {
        let rates = (self.arrivals.rate, other.arrivals.rate);
        self.arrivals = Load { rate: rates.0 + rates.1, scv: mean(rates, (self.arrivals.scv, other.arrivals.scv)) };
        self.answer.merge(&other.answer);
        self.workers += other.workers;
        self.demand.busy += other.demand.busy;
        self.demand.waiting += other.demand.waiting;
        self.demand.longest_wait = self.demand.longest_wait.max(other.demand.longest_wait);
        self.service_times.merge(other.service_times);
        self.waits.merge(other.waits);
        self.results.merge(other.results);
        self.unreachable |= other.unreachable;
    }

    /// ρ: how much of the workers that there are the jobs keep busy.
    pub fn utilisation(&self) -> f64 {
        self.answer.offered / f64::from(self.workers.max(1))
    }

    /// Whether there are as many workers as the model wants.
    pub const fn is_met(&self) -> bool {
        self.workers >= self.answer.needed
    }

    /// Puts the reports of one shard to those of the others.
    pub fn merge_all(all: &mut Vec<Self>, more: &[Self]) {
        for report in more {
            match all.iter_mut().find(|known| known.class == report.class) {
                Some(known) => known.merge(report),
                None => all.push(report.clone()),
            }
        }
    }
}

impl Answer {
    fn merge(&mut self, other: &Self) {
        let rates = (self.load.rate, other.load.rate);
        let mix = |mine, theirs| mean(rates, (mine, theirs));
        // Of a mixture the second moments are mixed, not the variances.
        let second_moment = |answer: &Self| answer.service * answer.service * (1.0 + answer.service_scv);
        let service = mix(self.service, other.service);
        let mixed = mix(second_moment(self), second_moment(other));
        let service_scv = if service > 0.0 { (mixed / (service * service) - 1.0).max(0.0) } else { 0.0 };
        let workers = self.workers + other.workers;
        *self = Self {
            load: Load { rate: rates.0 + rates.1, scv: mix(self.load.scv, other.load.scv) },
            service,
            service_scv,
            offered: self.offered + other.offered,
            goal: if matches!(other.goal, Goal::Wait(_)) { other.goal } else { self.goal },
            workers,
            needed: self.needed.saturating_add(other.needed),
            utilisation: (self.offered + other.offered) / f64::from(workers.max(1)),
            mean_wait: mix(self.mean_wait, other.mean_wait),
            wait: self.wait.max(other.wait),
            result: self.result.max(other.result),
        };
    }
}

/// The mean of two values by their weights. What weighs nothing says nothing, even if it is infinite.
fn mean(weights: (f64, f64), (mine, theirs): (f64, f64)) -> f64 {
    match weights {
        (_, 0.0) => mine,
        (0.0, _) => theirs,
        (my_weight, their_weight) => (mine * my_weight + theirs * their_weight) / (my_weight + their_weight),
    }
}

impl Percentiles {
    /// `None` where nothing was measured: what was is never zero.
    pub fn known(&self) -> Option<Self> {
        (*self != Self::default()).then_some(*self)
    }

    /// The first of those that are kept which is not below this one, with its name.
    pub const fn at_least(&self, percentile: u8) -> (&'static str, Span) {
        match percentile {
            0..=50 => ("p50", self.p50),
            51..=95 => ("p95", self.p95),
            _ => ("p99", self.p99),
        }
    }

    fn merge(&mut self, other: Self) {
        self.p50 = self.p50.max(other.p50);
        self.p95 = self.p95.max(other.p95);
        self.p99 = self.p99.max(other.p99);
        self.p999 = self.p999.max(other.p999);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Demand, Service, Setup, solve};
    use super::*;

    fn report(class: &'static str, rate: f64, service: f64) -> Report {
        let setup = Setup::default();
        let answer = solve(Load { rate, scv: 1.0 }, &Service::exponential(service), &setup.slo, &setup.bounds);
        let p95 = Span::from_nanos((service * 3e9) as u64);
        Report {
            class,
            workers: answer.workers,
            demand: Demand { busy: 3, waiting: 2, longest_wait: p95 },
            arrivals: answer.load,
            answer,
            service_times: Percentiles { p95, ..Percentiles::default() },
            waits: Percentiles::default(),
            results: Percentiles { p95, ..Percentiles::default() },
            unreachable: rate > 1_000.0,
        }
    }

    #[test]
    fn counts_sum_up_means_are_weighed_and_the_worst_percentile_stays() {
        let mut all = vec![report("http", 300.0, 0.010)];
        Report::merge_all(&mut all, &[report("http", 100.0, 0.030), report("tcp", 1.0, 0.001)]);
        let [http, tcp] = &all[..] else { panic!("{all:?}") };
        assert_eq!((tcp.class, tcp.demand.busy), ("tcp", 3));
        assert_eq!((http.workers, http.demand.busy, http.demand.waiting), (128, 6, 4));
        assert_eq!(http.demand.longest_wait, Span::from_millis(90));
        assert_eq!(http.results.p95, Span::from_millis(90));
        assert!(!http.unreachable);
        let Answer { load, service, service_scv, offered, needed, .. } = http.answer;
        let utilisation = http.utilisation();
        assert_eq!((load.rate, load.scv, http.arrivals), (400.0, 1.0, load));
        assert!((service - 0.015).abs() < 1e-12 && (offered - 6.0).abs() < 1e-12, "{service} {offered}");
        assert!((utilisation - 6.0 / 128.0).abs() < 1e-12 && needed > 6, "{utilisation} {needed}");
        // E[S²] = ¾·2·0.010² + ¼·2·0.030² = 0.0006, over 0.015² and less 1.
        assert!((service_scv - (0.0006 / 0.000225 - 1.0)).abs() < 1e-9, "{service_scv}");
    }

    #[test]
    fn a_shard_with_nothing_to_do_changes_no_mean() {
        let mut busy = report("http", 300.0, 0.010);
        let expected = busy.answer.mean_wait;
        let mut idle = report("http", 0.0, 5.0);
        idle.answer.mean_wait = f64::INFINITY;
        busy.merge(&idle);
        assert_eq!((busy.answer.mean_wait, busy.answer.service), (expected, 0.010));
        let mut overrun = report("http", 100.0, 0.010);
        overrun.answer.mean_wait = f64::INFINITY;
        overrun.unreachable = true;
        busy.merge(&overrun);
        assert!(busy.answer.mean_wait.is_infinite() && busy.unreachable);
    }
}
