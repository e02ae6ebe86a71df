//! What a pipeline measures of itself: arrivals, waits and services, in windows that forget.
//!
//! Time is cut into slices. The *recent* window is the last whole slice and the one that is filling; the *short* one
//! covers [`SLICES`] of them. What comes too seldom for either is taken from a *long* one of one to two minutes.
//!
//! The variability of arrivals is their index of dispersion: the variance over the mean of how many are due within one
//! mean service time. A count per tick would measure the tick.

use hdrhistogram::Histogram;

use super::solver::{Load, Service};
use crate::units::limits::TICK;
use crate::units::{Instant, Span};

/// One slice, and how many of them are looked back on.
pub const SLICE: Span = Span::from_millis(500);
const SLICES: usize = 8;
/// Half of the least that the long window covers.
const LONG: Span = Span::from_secs(60);
/// Fewer than these say little.
const SAMPLES_MIN: u64 = 64;
/// So many standard errors are no chance. Two windows a second are compared all day, so that three would be one.
const CHANCE: f64 = 4.0;
/// Bins of arrivals that a dispersion is made from, at least.
const BINS_MIN: u64 = 32;
/// A measured dispersion beyond this is a burst that has passed, not a property of what arrives.
const DISPERSION_MAX: f64 = 16.0;
/// A distribution is handed to the solver as points that weigh no more than this, nor than ...
const POINT_WEIGHT_MAX: f64 = 1.0 / 64.0;
/// ... this part of all that is longer: the tail is what an SLO is about.
const POINT_OF_TAIL: f64 = 1.0 / 12.0;
/// Less than this need not be told apart.
const POINT_WEIGHT_MIN: f64 = 1e-4;
/// Microseconds of the longest time that is told from longer ones.
const TIME_MAX: u64 = 3_600_000_000;

/// A distribution of times with two digits, and its exact moments.
#[derive(Clone, Debug)]
struct Times {
    /// Microseconds.
    histogram: Histogram<u32>,
    sum: f64,
    squares: f64,
    /// How many of the moments are not in the histogram: they were broken off, and would have been longer.
    held: u64,
    held_sum: f64,
}

impl Times {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, TIME_MAX, 2).expect("bounds that fit");
        Self { histogram, sum: 0.0, squares: 0.0, held: 0, held_sum: 0.0 }
    }

    fn record(&mut self, time: Span) {
        self.histogram.saturating_record(time.as_nanos().div_ceil(1_000).max(1));
        let seconds = time.as_secs_f64();
        self.sum += seconds;
        self.squares += seconds * seconds;
    }

    fn hold(&mut self, time: Span) {
        let seconds = time.as_secs_f64();
        self.sum += seconds;
        self.squares += seconds * seconds;
        self.held += 1;
        self.held_sum += seconds;
    }

    fn count(&self) -> u64 {
        self.histogram.len() + self.held
    }

    fn clear(&mut self) {
        if !self.histogram.is_empty() {
            self.histogram.reset();
        }
        self.sum = 0.0;
        self.squares = 0.0;
        self.held = 0;
        self.held_sum = 0.0;
    }

    fn add(&mut self, other: &Self) {
        if other.count() == 0 {
            return;
        }
        self.histogram.add(&other.histogram).expect("equal bounds");
        self.sum += other.sum;
        self.squares += other.squares;
        self.held += other.held;
        self.held_sum += other.held_sum;
    }

    fn percentile(&self, percent: f64) -> Span {
        Span::from_micros(self.histogram.value_at_percentile(percent))
    }

    fn service(&self) -> Service {
        let count = self.count() as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        let mut points: Vec<(f64, f64)> = Vec::new();
        // Neighbours are put together until they weigh enough.
        let (mut weight, mut value) = (0.0, 0.0);
        let mut longer = 1.0;
        for step in self.histogram.iter_recorded() {
            let share = f64::from(step.count_at_value()) / count;
            weight += share;
            value += share * self.histogram.median_equivalent(step.value_iterated_to()) as f64 / 1e6;
            let enough = (longer * POINT_OF_TAIL).clamp(POINT_WEIGHT_MIN, POINT_WEIGHT_MAX);
            if weight >= enough {
                points.push((value / weight, weight));
                longer -= weight;
                (weight, value) = (0.0, 0.0);
            }
        }
        if weight > 0.0 {
            points.push((value / weight, weight));
        }
        if self.held > 0 {
            points.push((self.held_sum / self.held as f64, self.held as f64 / count));
            points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        }
        Service { mean, scv: if mean > 0.0 { variance / (mean * mean) } else { 0.0 }, points }
    }
}

/// How many were due in each stretch of one mean service time.
#[derive(Clone, Copy, Debug, Default)]
struct Bins {
    count: u64,
    sum: u64,
    squares: u64,
}

impl Bins {
    fn close(&mut self, due: u64, empty: u64) {
        self.count += 1 + empty;
        self.sum += due;
        self.squares += due * due;
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// 1, as Poisson's arrivals have it, where there is too little to tell.
    fn dispersion(self) -> f64 {
        if self.count < BINS_MIN || self.sum == 0 {
            return 1.0;
        }
        let count = self.count as f64;
        let mean = self.sum as f64 / count;
        ((self.squares as f64 / count - mean * mean) / mean).clamp(0.0, DISPERSION_MAX)
    }
}

#[derive(Clone, Debug)]
struct Slice {
    /// When it began to fill: at a reading, so that what it holds is of this time.
    since: Instant,
    arrived: u64,
    bins: Bins,
    service: Times,
    wait: Times,
    /// From due to result.
    result: Times,
    /// Seconds that workers were held by our own delays, beside services.
    delays: f64,
}

impl Slice {
    fn new(since: Instant) -> Self {
        Self {
            since,
            arrived: 0,
            bins: Bins::default(),
            service: Times::new(),
            wait: Times::new(),
            result: Times::new(),
            delays: 0.0,
        }
    }

    fn clear(&mut self) {
        self.arrived = 0;
        self.bins = Bins::default();
        self.delays = 0.0;
        for times in [&mut self.service, &mut self.wait, &mut self.result] {
            times.clear();
        }
    }

    fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.bins.add(other.bins);
        self.service.add(&other.service);
        self.wait.add(&other.wait);
        self.result.add(&other.result);
        self.delays += other.delays;
    }
}

/// Arrivals and services of the long window: what there is too little of for a whole slice.
#[derive(Clone, Debug)]
struct Half {
    since: Instant,
    arrived: u64,
    service: Times,
}

#[derive(Clone, Debug)]
pub struct Meter {
    /// The slice that is filling.
    at: usize,
    slices: Box<[Slice]>,
    halves: [Half; 2],
    /// Where readings are added up.
    sum: Box<Slice>,
    bin_width: Span,
    /// The bin that is filling, as its number since time zero, and how many were due in it.
    bin: (u64, u64),
}

/// Times of one kind as people read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: Span,
    pub p95: Span,
    pub p99: Span,
    pub p999: Span,
}

/// What a meter says at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub load: Load,
    /// How many workers our own delays hold in the mean, beside those that services do: the erlangs of [`Meter::delayed`].
    pub delayed: f64,
    /// `None` before anything was served.
    pub service: Option<Service>,
    pub service_times: Percentiles,
    pub waits: Percentiles,
    pub results: Percentiles,
    /// How many of the waits the reading is made from.
    pub waited: u64,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        let half = Half { since: now, arrived: 0, service: Times::new() };
        Self {
            at: 0,
            slices: vec![Slice::new(now); SLICES].into_boxed_slice(),
            halves: [half.clone(), half],
            sum: Box::new(Slice::new(now)),
            bin_width: TICK,
            bin: (0, 0),
        }
    }

    /// A job was due.
    pub fn arrived(&mut self, due: Instant) {
        self.slices[self.at].arrived += 1;
        self.halves[0].arrived += 1;
        let bin = due.as_nanos() / self.bin_width.as_nanos();
        let (open, count) = self.bin;
        if bin <= open {
            self.bin.1 += 1;
            return;
        }
        if open > 0 {
            self.slices[self.at].bins.close(count, bin - open - 1);
        }
        self.bin = (bin, 1);
    }

    /// A job got its worker.
    pub fn started(&mut self, wait: Span) {
        self.slices[self.at].wait.record(wait);
    }

    /// A worker is done with a job: how long it was busy with it, and how long ago the job was due.
    pub fn ended(&mut self, service: Span, result: Span) {
        let slice = &mut self.slices[self.at];
        slice.service.record(service);
        slice.result.record(result);
        self.halves[0].service.record(service);
    }

    /// A worker was busy with a job for this long, and then gave it up unfinished. It counts for the load, and not among
    /// the percentiles of services: else what hangs would look like a longer service by and by.
    pub fn held(&mut self, service: Span) {
        self.slices[self.at].service.hold(service);
        self.halves[0].service.hold(service);
    }

    /// A worker was held this long by nothing but our own delay, before or after a service.
    pub fn delayed(&mut self, delay: Span) {
        self.slices[self.at].delays += delay.as_secs_f64();
    }

    /// Moves on to the slice that `now` is in.
    fn roll(&mut self, now: Instant) {
        let passed = now.since(self.slices[self.at].since).as_nanos() / SLICE.as_nanos();
        for _ in 0..passed.min(SLICES as u64) {
            self.at = (self.at + 1) % SLICES;
            self.slices[self.at].clear();
            self.slices[self.at].since = now;
        }
        if now.since(self.halves[0].since) >= LONG {
            self.halves.swap(0, 1);
            let half = &mut self.halves[0];
            half.since = now;
            half.arrived = 0;
            half.service.clear();
        }
    }

    /// What is known at `now`.
    pub fn read(&mut self, now: Instant) -> Reading {
        self.roll(now);
        let before = (self.at + SLICES - 1) % SLICES;
        self.sum.clear();
        self.sum.add(&self.slices[before]);
        self.sum.add(&self.slices[self.at]);
        let recent_length = now.since(self.slices[before].since);
        let recent = self.window(recent_length);
        let recently_delayed = self.sum.delays / recent_length.max(SLICE).as_secs_f64();
        for offset in 1..SLICES - 1 {
            self.sum.add(&self.slices[(self.at + offset) % SLICES]);
        }
        let length = now.since(self.slices[(self.at + 1) % SLICES].since);
        let short = self.window(length);
        let dispersion = self.sum.bins.dispersion();
        let seen = self.sum.arrived as f64 / length.as_secs_f64().max(SLICE.as_secs_f64());
        let mut long = None;
        let (rate, service) = match (recent, short) {
            (Some(recent), Some(short)) => recent.or_rather(short, dispersion),
            (None, Some(window)) | (Some(window), None) => (window.rate, Some(window.service)),
            (None, None) => match self.long_window(long.insert(self.long_times()), now) {
                // Jobs may begin long before the first of them ends.
                Some((rate, service)) if self.sum.arrived >= SAMPLES_MIN => (rate.max(seen), Some(service)),
                Some((rate, service)) => (rate, Some(service)),
                None => (seen, None),
            },
        };
        if let Some(service) = &service {
            self.measure_by(service.mean);
        }
        Reading {
            load: Load { rate, scv: dispersion },
            delayed: recently_delayed.max(self.sum.delays / length.max(SLICE).as_secs_f64()),
            service,
            service_times: percentiles(long.as_ref().unwrap_or(&self.sum.service)),
            waits: percentiles(&self.sum.wait),
            results: percentiles(&self.sum.result),
            waited: self.sum.wait.count(),
        }
    }

    /// What this many in a hundred waited at most, and took from due to result, in the window of the last reading;
    /// `None` where those are too few to tell.
    pub fn at(&self, percentile: u8) -> Option<(Span, Span)> {
        let percent = f64::from(percentile);
        let enough = self.sum.wait.count() >= SAMPLES_MIN && self.sum.result.count() >= SAMPLES_MIN;
        enough.then(|| (self.sum.wait.percentile(percent), self.sum.result.percentile(percent)))
    }

    /// What `sum` says about a window of this length, if it holds enough.
    fn window(&self, length: Span) -> Option<Window> {
        let services = self.sum.service.count();
        let length_seconds = length.as_secs_f64();
        (services >= SAMPLES_MIN && length >= SLICE).then(|| Window {
            length: length_seconds,
            rate: self.sum.arrived as f64 / length_seconds,
            services: services as f64,
            service: self.sum.service.service(),
        })
    }

    fn long_times(&self) -> Times {
        let [half, other] = &self.halves;
        let mut times = half.service.clone();
        times.add(&other.service);
        times
    }

    fn long_window(&self, service: &Times, now: Instant) -> Option<(f64, Service)> {
        let [half, other] = &self.halves;
        let length = now.since(other.since).as_secs_f64().max(SLICE.as_secs_f64());
        let rate = (half.arrived + other.arrived) as f64 / length;
        (service.count() > 0).then(|| (rate, service.service()))
    }

    /// Bins as wide as one mean service, but not narrower than the ticks that due times are rounded to, nor so wide
    /// that a window has but a few of them.
    fn measure_by(&mut self, mean: f64) {
        let width = Span::from_nanos((mean * 1e9) as u64).max(TICK).min(SLICE.scaled(1, 8));
        let (old, new) = (self.bin_width.as_nanos(), width.as_nanos());
        if new * 4 > old * 5 || new * 5 < old * 4 {
            self.bin_width = width;
            self.bin = (0, 0);
            for slice in &mut *self.slices {
                slice.bins = Bins::default();
            }
        }
    }
}

struct Window {
    /// Seconds.
    length: f64,
    rate: f64,
    services: f64,
    service: Service,
}

impl Window {
    /// What grows shows at once, unless it may be chance; what shrinks, when the longer window has forgotten it.
    fn or_rather(self, longer: Self, dispersion: f64) -> (f64, Option<Service>) {
        let rate_error = (self.rate * dispersion.max(1.0) / self.length).sqrt();
        let mean_error = self.service.mean * (self.service.scv / self.services).sqrt();
        let rate = if self.rate > longer.rate + CHANCE * rate_error { self.rate } else { longer.rate };
        let is_slower = self.service.mean > longer.service.mean + CHANCE * mean_error;
        (rate, Some(if is_slower { self.service } else { longer.service }))
    }
}

fn percentiles(times: &Times) -> Percentiles {
    if times.histogram.is_empty() {
        return Percentiles::default();
    }
    Percentiles {
        p50: times.percentile(50.0),
        p95: times.percentile(95.0),
        p99: times.percentile(99.0),
        p999: times.percentile(99.9),
    }
}

#[cfg(test)]
mod tests;
