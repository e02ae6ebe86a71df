//! How many workers a pipeline begins with: from what will be due, before anything has been measured.

use super::Setup;
use super::solver::{Bounds, Goal, Load, Service, Slo, solve};
use crate::units::Span;

/// What is known before the start, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Presize {
    pub slo: Slo,
    pub goal: Goal,
    /// Jobs a second, over all queues.
    pub rate: f64,
    /// What a job is assumed to take.
    pub service_time: Span,
    /// Erlangs.
    pub offered: f64,
    /// With headroom, without bounds.
    pub needed: u32,
    /// Within the bounds.
    pub workers: u32,
}

impl Presize {
    /// `rates`: jobs a second of each queue. Queues do not share their workers, so that many small ones need more than
    /// a large one does.
    pub fn new(setup: &Setup, rates: impl IntoIterator<Item = f64>) -> Self {
        let Setup { slo, bounds, service_time } = *setup;
        let service = Service::exponential(service_time.as_secs_f64());
        let free = Bounds { min: 1, max: u32::MAX, ..bounds };
        let idle = solve(Load { rate: 0.0, scv: 1.0 }, &service, &slo, &free);
        let mut presize = Self { slo, goal: idle.goal, rate: 0.0, service_time, offered: 0.0, needed: 0, workers: 0 };
        for rate in rates.into_iter().filter(|rate| *rate > 0.0) {
            let answer = solve(Load { rate, scv: 1.0 }, &service, &slo, &free);
            presize.rate += rate;
            presize.offered += answer.offered;
            presize.needed = presize.needed.saturating_add(answer.workers);
        }
        presize.workers = bounds.hold(presize.needed);
        presize
    }

    /// Whether the bounds allow what is needed.
    pub const fn is_met(&self) -> bool {
        self.workers >= self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_sized_by_what_will_be_due() {
        let setup = Setup::default();
        let presize = Presize::new(&setup, [300.0, 0.0, 33.0]);
        assert_eq!((presize.workers, presize.is_met()), (64, true));
        assert!(presize.needed > 7 && presize.needed < 30, "{presize:?}");
        assert_eq!(presize.to_string(), "64 workers for 95 % within 100 ms (333/s at 20 ms each: 6.7 erlangs)");
        assert_eq!(Presize::new(&setup, []).to_string(), "64 workers for 95 % within 100 ms");
        // One queue needs less than many that share the load.
        let [one, many] = [vec![1_000.0], vec![100.0; 10]].map(|rates| Presize::new(&setup, rates).needed);
        assert!(one < many && many < 2 * one, "{one} {many}");
    }

    #[test]
    fn bounds_that_do_not_suffice_are_told() {
        let setup = Setup { bounds: Bounds { min: 1, max: 2_000, headroom: 0 }, ..Setup::default() };
        let presize = Presize::new(&setup, [250_000.0]);
        assert!(!presize.is_met() && presize.workers == 2_000);
        assert!((5_000..5_200).contains(&presize.needed), "{presize:?}");
        let short = Setup { slo: Slo { within: Span::from_millis(10), ..setup.slo }, ..setup };
        let text = Presize::new(&short, [1.0]).to_string();
        assert!(text.contains("95 % waiting 10 ms at most (1.0/s at 20 ms each"), "{text}");
    }
}
