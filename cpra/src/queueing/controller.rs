//! How many workers a class of jobs has by now: up at once, down slowly.
//!
//! Every [`ADJUST_EVERY`] the solver is asked with what the meter reads. More than there are is granted at once; fewer
//! only when for [`HOLD`] nobody wanted as many, and then step by step. A difference of less than a tenth is left alone, so that
//! a steady load leaves the number where it is.
//!
//! The model has its limits, and three terms stand for what it cannot know. Workers that wait for us alone, and not for what
//! they serve, are added to its own. What waits already is to be gone within a
//! second: it counts as arrivals. And where somebody has waited far longer than the goal while all workers are busy,
//! the model is wrong at this moment, and workers are added to those that are busy, whatever it says.

use super::meter::{Meter, Percentiles, Reading};
use super::solver::{Answer, Bounds, Goal, Load, Service, Slo, solve};
use crate::units::{Instant, Span};

/// How often the number of workers is thought about.
pub const ADJUST_EVERY: Span = Span::from_millis(100);
/// Fewer workers only when this long nobody wanted more.
pub const HOLD: Span = Span::from_secs(10);
const HOLD_SECONDS: usize = HOLD.as_secs() as usize;
/// What waits is to be gone within this.
const DRAIN_SECONDS: f64 = 1.0;
/// Somebody who waits for this many times the goal shows that the model is wrong.
const PATIENCE: u64 = 4;

/// How a pipeline is to be sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub slo: Slo,
    pub bounds: Bounds,
    /// How long one job is assumed to take, until it is measured.
    pub service_time: Span,
}

impl Setup {
    /// Always this many workers, whatever is measured: for tests, and for those who look at single checks.
    pub fn fixed(workers: u32) -> Self {
        Self { bounds: Bounds { min: workers, max: workers, headroom: 0 }, ..Self::default() }
    }

    /// The part of one of several queues that share the bounds.
    #[must_use]
    pub fn shared_by(self, queues: u32) -> Self {
        let Bounds { min, max, headroom } = self.bounds;
        let max = (max / queues).max(1);
        Self { bounds: Bounds { min: min.div_ceil(queues).min(max), max, headroom }, ..self }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            slo: Slo { within: Span::from_millis(100), percentile: 95, wait: Span::from_millis(10) },
            bounds: Bounds { min: 64, max: 50_000, headroom: 150 },
            service_time: Span::from_millis(20),
        }
    }
}

/// What the pipeline sees at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Workers with a job.
    pub busy: u32,
    /// Jobs without a worker.
    pub waiting: u32,
    /// How long the first of them has waited.
    pub longest_wait: Span,
}

/// Another number of workers, and what led to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    pub before: u32,
    pub workers: u32,
    pub answer: Answer,
    pub demand: Demand,
    pub slo: Slo,
    /// The model was overruled: somebody waits far too long.
    pub overruled: bool,
}

#[derive(Debug)]
pub struct Controller {
    setup: Setup,
    /// Jobs a second, as far as it is known before it is measured.
    rate: f64,
    meter: Meter,
    reading: Reading,
    answer: Answer,
    workers: u32,
    next: Instant,
    /// The most that was wanted in each of the last seconds.
    peaks: [u32; HOLD_SECONDS],
    second: u64,
}

impl Controller {
    /// `rate`: jobs a second, as far as it is known.
    pub fn new(setup: Setup, rate: f64, now: Instant) -> Self {
        let load = Load { rate, scv: 1.0 };
        let service = Service::exponential(setup.service_time.as_secs_f64());
        let answer = solve(load, &service, &setup.slo, &setup.bounds);
        let mut peaks = [0; HOLD_SECONDS];
        let second = now.as_nanos() / SECOND;
        peaks[(second % HOLD_SECONDS as u64) as usize] = answer.workers;
        Self {
            setup,
            rate,
            meter: Meter::new(now),
            reading: Reading::default(),
            answer,
            workers: answer.workers,
            next: now + ADJUST_EVERY,
            peaks,
            second,
        }
    }

    /// Another rate than the one that was known before.
    pub fn expect(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// See [`Meter::arrived`].
    pub fn arrived(&mut self, due: Instant) {
        self.meter.arrived(due);
    }

    /// See [`Meter::started`].
    pub fn started(&mut self, wait: Span) {
        self.meter.started(wait);
    }

    /// See [`Meter::ended`].
    pub fn ended(&mut self, service: Span, result: Span) {
        self.meter.ended(service, result);
    }

    /// See [`Meter::held`].
    pub fn held(&mut self, service: Span) {
        self.meter.held(service);
    }

    /// See [`Meter::delayed`].
    pub fn delayed(&mut self, delay: Span) {
        self.meter.delayed(delay);
    }

    /// The workers that there may be.
    pub const fn workers(&self) -> u32 {
        self.workers
    }

    /// What the last adjustment was made from.
    pub const fn answer(&self) -> &Answer {
        &self.answer
    }

    pub const fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Whether the goal is missed by what was measured, whatever the model says.
    pub fn is_late(&self) -> bool {
        let Some((wait, result)) = self.meter.at(self.setup.slo.percentile) else { return false };
        match self.answer.goal {
            Goal::Wait(goal) => wait > goal,
            Goal::Result(goal) => result > goal,
        }
    }

    pub const fn next_adjustment(&self) -> Instant {
        self.next
    }

    /// Thinks about the number of workers, if it is time to.
    pub fn adjust(&mut self, now: Instant, demand: Demand) -> Option<Decision> {
        if now < self.next {
            return None;
        }
        self.next = now + ADJUST_EVERY;
        self.reading = self.meter.read(now);
        let prior;
        let service = match &self.reading.service {
            Some(service) => service,
            None => {
                prior = Service::exponential(self.setup.service_time.as_secs_f64());
                &prior
            }
        };
        let measured = self.reading.load;
        let rate = if self.reading.service.is_some() { measured.rate } else { measured.rate.max(self.rate) };
        let load = Load { rate: rate + f64::from(demand.waiting) / DRAIN_SECONDS, ..measured };
        self.answer = solve(load, service, &self.setup.slo, &self.setup.bounds);
        let goal = match self.answer.goal {
            Goal::Wait(goal) | Goal::Result(goal) => goal,
        };
        let overruled = demand.busy >= self.workers && demand.longest_wait > goal.scaled(PATIENCE, 1);
        let needed = f64::from(self.answer.needed) + self.reading.delayed;
        let mut wanted = self.setup.bounds.with_headroom(needed);
        if overruled {
            let more = demand.busy.saturating_add(demand.waiting.max(demand.busy / 2));
            wanted = wanted.max(more).min(self.setup.bounds.max);
        }
        let before = self.workers;
        self.workers = self.settle(now, wanted);
        (self.workers != before).then_some(Decision {
            before,
            workers: self.workers,
            answer: self.answer,
            demand,
            slo: self.setup.slo,
            overruled,
        })
    }

    /// Up at once, down slowly.
    fn settle(&mut self, now: Instant, wanted: u32) -> u32 {
        let second = now.as_nanos() / SECOND;
        for passed in self.second + 1..=second.min(self.second + HOLD_SECONDS as u64) {
            self.peaks[(passed % HOLD_SECONDS as u64) as usize] = 0;
        }
        let moved = second != self.second;
        self.second = second;
        let peak = &mut self.peaks[(second % HOLD_SECONDS as u64) as usize];
        *peak = wanted.max(*peak);
        let workers = self.workers.min(self.setup.bounds.max);
        if wanted > workers {
            return wanted;
        }
        let peak = self.peaks.into_iter().max().unwrap_or(wanted).min(self.setup.bounds.max);
        // Once a second, and by half of what is too much.
        if !moved || peak >= workers - workers / 10 {
            return workers;
        }
        peak.max(workers - (workers - peak).div_ceil(2))
    }
}

const SECOND: u64 = 1_000_000_000;

/// What people read about one class of jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub class: &'static str,
    pub workers: u32,
    pub demand: Demand,
    /// As measured; what the answer is made from counts those who wait as well.
    pub arrivals: Load,
    pub answer: Answer,
    pub service_times: Percentiles,
    pub waits: Percentiles,
    pub results: Percentiles,
    /// Whether the goal was missed with what there may be.
    pub unreachable: bool,
}

#[cfg(test)]
mod tests;
