//! The least number of workers with which an SLO is met.
//!
//! The model is G/G/c. Who waits at all is Erlang C's answer; how long, is exponential, with the mean that Allen and
//! Cunneen give to those who wait: `1/(cμ - λ) · (Ca² + Cs²)/2` (A. O. Allen, *Probability, Statistics, and Queueing
//! Theory*, 2nd ed. 1990, §5.3; exact for M/M/c). The result's time is that wait plus a service, whose measured
//! distribution is taken as it is.

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
    /// The share of jobs that may take longer.
    pub fn late(&self) -> f64 {
        1.0 - f64::from(self.percentile) / 100.0
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
    let offered = load.rate * service.mean;
    let late = slo.late();
    let within = slo.within.as_secs_f64();
    let goal = if service.beyond(within) > late { Goal::Wait(slo.wait) } else { Goal::Result(slo.within) };
    let queue = Queue { load, service, offered };
    let suffices = |erlang: ErlangB| {
        erlang.servers() > 0
            && match goal {
                Goal::Wait(most) => queue.waits_beyond(erlang, most.as_secs_f64()) <= late,
                Goal::Result(most) => queue.takes_beyond(erlang, most.as_secs_f64()) <= late,
            }
    };
    let needed = if offered > 0.0 { least(offered, suffices) } else { 1 };
    let ample = (f64::from(needed) * (1.0 + f64::from(bounds.headroom) / 1_000.0)).ceil() as u32;
    let workers = ample.clamp(bounds.min.max(1), bounds.max.max(bounds.min).max(1));
    let erlang = ErlangB::new(offered).grown_to(workers);
    Answer {
        load,
        service: service.mean,
        service_scv: service.scv,
        offered,
        goal,
        workers,
        needed,
        utilisation: offered / f64::from(workers),
        mean_wait: queue.mean_wait(erlang),
        wait: queue.percentile(late, |seconds| queue.waits_beyond(erlang, seconds)),
        result: queue.percentile(late, |seconds| queue.takes_beyond(erlang, seconds)),
    }
}

/// The least servers above the offered load that suffice: doubling the distance, then bisection.
fn least(offered: f64, suffices: impl Fn(ErlangB) -> bool) -> u32 {
    // Above the load by as little as a server can be: at the load itself the queue has no end.
    let first = (offered.floor() as u32).saturating_add(1);
    let mut low = ErlangB::new(offered).grown_to(first);
    if suffices(low) {
        return first;
    }
    let mut step = 1_u32;
    let mut high = low.grown_to(first.saturating_add(step));
    while !suffices(high) {
        low = high;
        step = step.saturating_mul(2);
        if high.servers() >= WORKERS_MAX {
            return high.servers();
        }
        high = high.grown_to(high.servers().saturating_add(step));
    }
    // `low` does not suffice, `high` does.
    while high.servers() - low.servers() > 1 {
        let middle = low.grown_to(low.servers() + (high.servers() - low.servers()) / 2);
        if suffices(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high.servers()
}

/// No pipeline has more.
const WORKERS_MAX: u32 = 1 << 26;

struct Queue<'a> {
    load: Load,
    service: &'a Service,
    offered: f64,
}

impl Queue<'_> {
    /// Those who wait, wait this long in the mean.
    fn patience(&self, erlang: ErlangB) -> f64 {
        let spare = f64::from(erlang.servers()) - self.offered;
        if spare <= 0.0 {
            return f64::INFINITY;
        }
        self.service.mean / spare * (self.load.scv + self.service.scv) / 2.0
    }

    fn mean_wait(&self, erlang: ErlangB) -> f64 {
        if self.offered <= 0.0 {
            return 0.0;
        }
        erlang.waits() * self.patience(erlang)
    }

    fn waits_beyond(&self, erlang: ErlangB, seconds: f64) -> f64 {
        if self.offered <= 0.0 {
            return 0.0;
        }
        if seconds < 0.0 {
            return 1.0;
        }
        let patience = self.patience(erlang);
        if patience <= 0.0 {
            return 0.0;
        }
        erlang.waits() * (-seconds / patience).exp()
    }

    fn takes_beyond(&self, erlang: ErlangB, seconds: f64) -> f64 {
        let points = self.service.points.iter();
        points.map(|(value, weight)| weight * self.waits_beyond(erlang, seconds - value)).sum()
    }

    /// The time that only the share `late` exceeds.
    fn percentile(&self, late: f64, beyond: impl Fn(f64) -> f64) -> f64 {
        if beyond(0.0) <= late {
            return 0.0;
        }
        let mut high = self.service.mean.max(1e-6);
        while beyond(high) > late {
            high *= 2.0;
            if high > 1e9 {
                return f64::INFINITY;
            }
        }
        let mut low = 0.0;
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if beyond(middle) > late {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}
