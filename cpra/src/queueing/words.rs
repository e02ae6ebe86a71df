//! Sizing in the words of log lines and of the start: one line each, with the numbers that led to it.

use std::fmt;

use super::presize::Presize;
use super::solver::{Answer, Goal, Slo};
use super::{Decision, Load};
use crate::units::Span;

/// `12 -> 18 workers: λ 900/s (Ca² 1.1), service 15 ms (Cs² 0.9), 13.5 erlangs, ρ 0.75, 95 % within 100 ms (predicted
/// 41 ms); 12 busy, 3 waiting for up to 2.0 ms`
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, workers, answer, demand, slo, overruled } = self;
        let Load { rate, scv } = answer.load;
        write!(f, "{} -> {} workers: λ {}/s (Ca² {scv:.1}), ", Grouped(*before), Grouped(*workers), Rate(rate))?;
        write!(f, "service {} (Cs² {:.1}), ", Seconds(answer.service), answer.service_scv)?;
        write!(f, "{} erlangs, ρ {:.2}, ", Rate(answer.offered), answer.utilisation)?;
        let predicted = match answer.goal {
            Goal::Result(_) => answer.result,
            Goal::Wait(_) => answer.wait,
        };
        match predicted.is_finite() {
            true => write!(f, "{} (predicted {})", Promise(slo, answer.goal), Seconds(predicted))?,
            false => write!(f, "{} (out of reach)", Promise(slo, answer.goal))?,
        }
        write!(f, "; {} busy", Grouped(demand.busy))?;
        if demand.waiting > 0 {
            write!(f, ", {} waiting for up to {}", Grouped(demand.waiting), demand.longest_wait)?;
        }
        if *overruled {
            f.write_str("; somebody waits far too long: more than the model says")?;
        }
        Ok(())
    }
}

/// `64 workers for 95 % within 100 ms (333/s at 20 ms each: 6.7 erlangs)`
impl fmt::Display for Presize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slo, goal, rate, service_time, offered, workers, .. } = self;
        let ending = if *workers == 1 { "" } else { "s" };
        write!(f, "{} worker{ending} for {}", Grouped(*workers), Promise(slo, *goal))?;
        if *rate > 0.0 {
            write!(f, " ({}/s at {service_time} each: {} erlangs)", Rate(*rate), Rate(*offered))?;
        }
        Ok(())
    }
}

/// A promise that cannot be kept with the workers that there may be.
#[derive(Clone, Copy, Debug)]
pub struct Unreachable<'a> {
    /// The section of the daemon file: `pulse`, `code`.
    pub pipeline: &'a str,
    pub slo: Slo,
    pub answer: &'a Answer,
    /// The most workers that it may have.
    pub workers: u32,
}

/// `95 % within 100 ms needs 5,120 workers (250,000/s at 20 ms each: 5,000 erlangs), and may have 2,000: raise [pulse]
/// max_workers`
impl fmt::Display for Unreachable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pipeline, slo, answer, workers } = self;
        write!(
            f,
            "{} needs {} workers ({}/s at {} each: {} erlangs), and may have {}: raise [{pipeline}] max_workers",
            Promise(slo, answer.goal),
            Grouped(answer.needed),
            Rate(answer.load.rate),
            Seconds(answer.service),
            Rate(answer.offered),
            Grouped(*workers),
        )
    }
}

/// `95 % within 100 ms`, or what is promised where the service alone takes longer.
struct Promise<'a>(&'a Slo, Goal);

impl fmt::Display for Promise<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(slo, goal) = self;
        match goal {
            Goal::Result(within) => write!(f, "{} % within {within}", slo.percentile),
            Goal::Wait(most) => write!(f, "{} % waiting {most} at most", slo.percentile),
        }
    }
}

/// With its thousands set apart.
struct Grouped(u32);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        match (number / 1_000_000, number / 1_000 % 1_000, number % 1_000) {
            (0, 0, ones) => write!(f, "{ones}"),
            (0, thousands, ones) => write!(f, "{thousands},{ones:03}"),
            (millions, thousands, ones) => write!(f, "{millions},{thousands:03},{ones:03}"),
        }
    }
}

/// A rate or a load, as exact as people want it.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        match value {
            100.0.. => write!(f, "{}", Grouped(value.round() as u32)),
            0.1..100.0 => write!(f, "{value:.1}"),
            _ => write!(f, "{value:.3}"),
        }
    }
}

/// Seconds of a model.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Span::from_nanos((self.0 * 1e9) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Demand, Service, Setup, solve};
    use super::*;

    fn answer(rate: f64, service: f64, setup: &Setup) -> Answer {
        solve(Load { rate, scv: 1.1 }, &Service::exponential(service), &setup.slo, &setup.bounds)
    }

    fn decision(answer: Answer, demand: Demand) -> Decision {
        Decision { before: 12, workers: answer.workers, answer, demand, slo: Setup::default().slo, overruled: false }
    }

    #[test]
    fn a_decision_is_one_line_with_its_inputs() {
        let setup = Setup { bounds: Bounds { min: 1, max: 50_000, headroom: 150 }, ..Setup::default() };
        let mut answer = answer(900.0, 0.015, &setup);
        (answer.workers, answer.utilisation, answer.result) = (18, 0.75, 0.041);
        let demand = Demand { busy: 12, waiting: 3, longest_wait: Span::from_millis(2) };
        let mut decision = decision(answer, demand);
        assert_eq!(
            decision.to_string(),
            "12 -> 18 workers: λ 900/s (Ca² 1.1), service 15 ms (Cs² 1.0), 13.5 erlangs, ρ 0.75, 95 % within 100 ms \
             (predicted 41 ms); 12 busy, 3 waiting for up to 2.0 ms"
        );
        decision.demand.waiting = 0;
        decision.overruled = true;
        let text = decision.to_string();
        assert!(text.ends_with("; 12 busy; somebody waits far too long: more than the model says"), "{text}");
    }

    #[test]
    fn where_the_service_alone_takes_longer_the_wait_is_told() {
        let setup = Setup { bounds: Bounds { min: 1, max: 50, headroom: 0 }, ..Setup::default() };
        let answer = answer(1_000.0, 5.0, &setup);
        let text = decision(answer, Demand::default()).to_string();
        assert!(text.contains("95 % waiting 10 ms at most (out of reach); 0 busy"), "{text}");
        let unreachable = Unreachable { pipeline: "pulse", slo: setup.slo, answer: &answer, workers: 50 };
        let needed = answer.needed;
        assert!(needed > 5_000, "{needed}");
        let needed = format!("{},{:03}", needed / 1_000, needed % 1_000);
        assert_eq!(
            unreachable.to_string(),
            format!(
                "95 % waiting 10 ms at most needs {needed} workers (1,000/s at 5 s each: 5,000 erlangs), and \
                 may have 50: raise [pulse] max_workers"
            )
        );
    }

    #[test]
    fn numbers_are_as_exact_as_people_want_them() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (50_012, "50,012"), (1_000_007, "1,000,007")] {
            assert_eq!(Grouped(number).to_string(), text);
        }
        for (rate, text) in [(0.0, "0.000"), (0.0167, "0.017"), (6.66, "6.7"), (333.3, "333"), (20_000.0, "20,000")] {
            assert_eq!(Rate(rate).to_string(), text);
        }
    }
}
