//! The least number of workers with which an SLO is met.
//!
//! The model is G/G/c, first come, first served. Who waits at all is Erlang C's answer; how long, is exponential. Its mean
//! is what Allen and Cunneen give to those who wait, `1/(cμ - λ) · (Ca² + Cs²)/2` (A. O. Allen, *Probability, Statistics,
//! and Queueing Theory*, 2nd ed. 1990, §5.3; exact for M/M/c and for the mean of M/G/1). With many workers a wait is
//! short beside a service, and what ends it is the *first* of all running services; so the mean is bent by what Boxma,
//! Cohen and Huffels found for M/G/c (`Queue::bend`), which is 1 for exponential services. The time of a result is
//! that wait plus a service, whose measured distribution is taken as it is.
//!
//! How far this is from a simulated queue, `cargo xtask bench sizing` prints. Nothing that is passed in makes it panic or
//! run on: what is not a number counts as nothing, and where nothing suffices the answer is [`WORKERS_MAX`].

use super::erlang::ErlangB;
use crate::units::Span;

/// What a pipeline promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slo {
    /// From when a job was due until its result ...
    pub within: Span,
    /// ... for this many in a hundred.
    pub percentile: u8,
    /// What as many may wait for a worker, where the service alone takes longer than `within`.
    pub wait: Span,
}

impl Slo {
    /// The share of jobs that may take longer. All of them, or none, is nothing to aim at.
    pub fn late(&self) -> f64 {
        1.0 - f64::from(self.percentile.clamp(1, 99)) / 100.0
    }
}

/// What a pipeline may have, whatever it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: u32,
    pub max: u32,
    /// Thousandths on top of what is needed.
    pub headroom: u16,
}

impl Bounds {
    /// As many as are wanted, as far as they may be had. What there may be at most is the stronger word.
    pub fn hold(&self, wanted: u32) -> u32 {
        let most = self.max.max(1);
        wanted.clamp(self.min.clamp(1, most), most)
    }

    /// What is needed, with headroom, as far as it may be had.
    pub fn with_headroom(&self, needed: f64) -> u32 {
        self.hold((needed * (1.0 + f64::from(self.headroom) / 1_000.0)).ceil() as u32)
    }
}

/// What arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Jobs a second: λ.
    pub rate: f64,
    /// Ca².
    pub scv: f64,
}

/// How long a worker is busy with one job, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub mean: f64,
    /// Cs².
    pub scv: f64,
    /// The distribution, as values with weights that sum to 1, ascending.
    pub points: Vec<(f64, f64)>,
}

impl Service {
    /// An exponential one: what is assumed as long as nothing is known but a mean.
    pub fn exponential(mean: f64) -> Self {
        let weight = 1.0 / f64::from(POINTS);
        let point = |index| (-mean * (1.0 - (f64::from(index) + 0.5) * weight).ln(), weight);
        Self { mean, scv: 1.0, points: (0..POINTS).map(point).collect() }
    }

    /// How long it takes in the mean until the first of so many busy workers is done: ∫(1 - Bₑ(t))ᶜ dt, where Bₑ is the
    /// distribution of what is left of a running service.
    fn first_of(&self, workers: f64) -> f64 {
        // The distribution has steps, so 1 - Bₑ is a chain of straight lines, and each has a closed integral.
        let (mut from, mut left, mut longer, mut power) = (0.0, 1.0_f64, 1.0, 1.0);
        let mut sum = 0.0;
        for &(value, weight) in &self.points {
            left = (left - longer * (value - from) / self.mean).max(0.0);
            let next = left.powf(workers + 1.0);
            sum += (power - next) * self.mean / ((workers + 1.0) * longer);
            (from, power) = (value, next);
            longer -= weight;
            // The rest is no more than rounding.
            if next < 1e-12 || longer < 1e-12 {
                break;
            }
        }
        sum
    }

    /// The share of the jobs that take longer than this.
    pub fn beyond(&self, seconds: f64) -> f64 {
        self.points.iter().rev().take_while(|(value, _)| *value > seconds).map(|(_, weight)| weight).sum()
    }
}

const POINTS: u32 = 64;

/// What is being aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The time from due to result.
    Result(Span),
    /// The wait for a worker: the service alone takes longer than the SLO allows.
    Wait(Span),
}

/// How many workers, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    pub load: Load,
    /// Seconds.
    pub service: f64,
    pub service_scv: f64,
    /// a, in erlangs.
    pub offered: f64,
    pub goal: Goal,
    /// With headroom, and within the bounds: c.
    pub workers: u32,
    /// What the goal takes, without headroom and bounds.
    pub needed: u32,
    /// ρ with `workers`.
    pub utilisation: f64,
    /// Seconds that a job waits in the mean with `workers`; infinite where they do not suffice.
    pub mean_wait: f64,
    /// Seconds that the SLO's percentile of the jobs wait at most ...
    pub wait: f64,
    /// ... and from due to result.
    pub result: f64,
}

impl Answer {
    /// Whether the workers suffice.
    pub const fn is_met(&self) -> bool {
        self.workers >= self.needed
    }
}

/// The least workers that keep the SLO.
pub fn solve(load: Load, service: &Service, slo: &Slo, bounds: &Bounds) -> Answer {
    let load = Load { rate: sound(load.rate), scv: sound(load.scv) };
    let queue = Queue { load, service, offered: sound(load.rate * service.mean) };
    let late = slo.late();
    let goal =
        if service.beyond(slo.within.as_secs_f64()) > late { Goal::Wait(slo.wait) } else { Goal::Result(slo.within) };
    let needed = queue.least(|tail| match goal {
        Goal::Wait(most) => tail.waits_beyond(most.as_secs_f64()) <= late,
        Goal::Result(most) => tail.takes_beyond(service, most.as_secs_f64()) <= late,
    });
    let workers = bounds.with_headroom(f64::from(needed));
    let erlang = ErlangB::new(queue.offered).grown_to(workers);
    let tail = queue.tail(erlang);
    Answer {
        load,
        service: service.mean,
        service_scv: service.scv,
        offered: queue.offered,
        goal,
        workers,
        needed,
        utilisation: queue.offered / f64::from(workers),
        mean_wait: if tail.waits > 0.0 { tail.waits * queue.patience(workers) } else { 0.0 },
        wait: tail.wait(late),
        result: tail.result(service, late),
    }
}

/// What is not a number, or less than nothing, counts as nothing.
fn sound(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// No pipeline has more: as many as a shard can have monitors.
pub const WORKERS_MAX: u32 = 1 << 24;

/// Cs² up to which the mean wait is bent in full.
const BENT_SCV_MAX: f64 = 4.0;

struct Queue<'a> {
    load: Load,
    service: &'a Service,
    offered: f64,
}

impl Queue<'_> {
    /// The least servers above the offered load that suffice: doubling the distance, then bisection.
    fn least(&self, suffices: impl Fn(Tail) -> bool) -> u32 {
        if self.offered <= 0.0 {
            return 1;
        }
        if self.offered >= f64::from(WORKERS_MAX) {
            return WORKERS_MAX;
        }
        // Above the load by as little as a server can be: at the load itself the queue has no end.
        let first = self.offered as u32 + 1;
        let mut low = ErlangB::new(self.offered).grown_to(first);
        if suffices(self.tail(low)) {
            return first;
        }
        let mut step = 1;
        let mut high = low.grown_to(first + step);
        while !suffices(self.tail(high)) {
            low = high;
            step *= 2;
            if high.servers() >= WORKERS_MAX {
                return WORKERS_MAX;
            }
            high = high.grown_to(high.servers() + step);
        }
        // `low` does not suffice, `high` does.
        while high.servers() - low.servers() > 1 {
            let middle = low.grown_to(u32::midpoint(low.servers(), high.servers()));
            if suffices(self.tail(middle)) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high.servers()
    }

    /// Those who wait, wait this long in the mean: Allen and Cunneen. Infinite where the servers do not suffice.
    fn patience(&self, servers: u32) -> f64 {
        let spare = f64::from(servers) - self.offered;
        if spare <= 0.0 {
            return f64::INFINITY;
        }
        self.service.mean / spare * (self.load.scv + sound(self.service.scv)) / 2.0
    }

    /// What that mean is multiplied by where there are several servers.
    ///
    /// O. J. Boxma, J. W. Cohen and N. Huffels, *Approximations of the mean waiting time in an M/G/s queueing system*,
    /// Operations Research 27 (1979) 1115-1127, over M/M/c and M/D/c; of the latter by G. P. Cosmetatos (INFOR 13, 1975),
    /// whose correction is bounded as W. Whitt has it (*Approximations for the GI/G/m queue*, POM 2, 1993, eq. 2.17).
    fn bend(&self, servers: u32) -> f64 {
        let servers = f64::from(servers);
        let first = self.service.first_of(servers);
        if servers < 2.0 || first <= 0.0 {
            return 1.0;
        }
        let used = self.offered / servers;
        let correction =
            (1.0 - used) * (servers - 1.0) * ((4.0 + 5.0 * servers).sqrt() - 2.0) / (16.0 * servers * used);
        // The mean waits of constant services, as a share of those of exponential ones.
        let constant = f64::midpoint(1.0, correction.min(0.24));
        let moment = (1.0 + sound(self.service.scv)) * self.service.mean / first;
        // 0 for constant services, 1 for exponential ones.
        let alpha = ((moment - servers - 1.0) / (servers - 1.0)).max(0.0);
        let bend = 2.0 * constant / (2.0 * alpha * constant + 1.0 - alpha);
        // Where a few services are far longer than the others, the first to be done is one of the short ones, and helps
        // little. Beyond the variability that the formula was made for, it counts less and less.
        1.0 + (bend - 1.0) * (BENT_SCV_MAX / sound(self.service.scv).max(BENT_SCV_MAX))
    }

    fn tail(&self, erlang: ErlangB) -> Tail {
        let servers = erlang.servers();
        let patience = self.patience(servers);
        if self.offered <= 0.0 || servers == 0 || patience <= 0.0 {
            return Tail { waits: 0.0, patience: 0.0 };
        }
        if patience.is_infinite() {
            return Tail { waits: 1.0, patience };
        }
        Tail { waits: erlang.waits(), patience: patience * self.bend(servers) }
    }
}

/// How long the jobs wait.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// The share that waits at all.
    waits: f64,
    /// How long those wait in the mean; what they wait is exponential.
    patience: f64,
}

impl Tail {
    /// The share that waits longer than this.
    fn waits_beyond(self, seconds: f64) -> f64 {
        if self.waits <= 0.0 { 0.0 } else { self.waits * (-seconds / self.patience).exp() }
    }

    /// The share whose wait and service together take longer than this.
    fn takes_beyond(self, service: &Service, seconds: f64) -> f64 {
        let beyond = |value: f64| if value > seconds { 1.0 } else { self.waits_beyond(seconds - value) };
        service.points.iter().map(|(value, weight)| weight * beyond(*value)).sum()
    }

    /// What only the share `late` waits longer than.
    fn wait(self, late: f64) -> f64 {
        if self.waits <= late { 0.0 } else { self.patience * (self.waits / late).ln() }
    }

    /// What wait and service together exceed for the share `late` only.
    fn result(self, service: &Service, late: f64) -> f64 {
        if self.patience.is_infinite() {
            return f64::INFINITY;
        }
        let decay = |seconds: f64| if self.waits <= 0.0 { 0.0 } else { (-seconds / self.patience).exp() };
        // Between two points the share is that of the longer services, and that of the waits, which decays. `waiting` is the
        // latter at `from`, as the sum over all shorter services.
        let (mut from, mut longer, mut waiting) = (0.0, 1.0, 0.0);
        for &(value, weight) in &service.points {
            if longer + waiting * decay(value - from) <= late {
                break;
            }
            waiting = waiting * decay(value - from) + weight * self.waits;
            longer -= weight;
            from = value;
        }
        // Whoever leaves the loop at the end has no longer services, but for rounding.
        let rest = late - longer.max(0.0);
        if waiting <= rest { from } else { from + self.patience * (waiting / rest).ln() }
    }
}

#[cfg(test)]
mod tests;
