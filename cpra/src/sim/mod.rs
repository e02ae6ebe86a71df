//! The other driver of shard and desk: a simulated kernel, network, store, code lane, resolver and clock, nastier than
//! the real ones, on one thread, in an order drawn from one seed; and checkers that watch every step.
//!
//! ```text
//!            plan (seed) ──▶ catalog, targets' lives, faults
//!                                  │
//!   network ◀──▶ ring ◀──effects── run ──events──▶ shard, desk          the same machines as in the daemon
//!   store, lane, resolver, host ◀──┤
//!                                  └──▶ check: places · truth · streak · notices · verdicts
//! ```
//! A seed replays a run, event for event. A run has two parts, a storm and a calm (see [`plan`]). What the daemon tells
//! people is judged by what the targets did and what arrived, never by the daemon's own records. [`coverage`] counts
//! what was reached; a sweep that missed something has not tested it and fails.
//!
//! That the checkers find what they are there to find is itself tested: [`crate::units::planted`] holds deliberate
//! defects, and each must be found.
//!
//! Not simulated: SQLite, TLS, the kernel's real timing, the drivers in [`crate::os`]; those meet the real things.

pub mod check;
pub mod coverage;
mod errand;
pub mod fault;
pub mod host;
mod jobs;
pub mod lane;
pub mod network;
pub mod plan;
pub mod resolver;
pub mod ring;
mod run;
pub mod server;
pub mod store;
mod story;
pub mod trace;

pub use self::check::Failure;
pub use self::coverage::Coverage;
pub use self::run::Report;
use crate::units::Span;

/// What several seeds came to.
#[derive(Debug, Default)]
pub struct Sweep {
    pub seeds: u64,
    pub events: u64,
    pub lasted: Span,
    /// The run with the fewest events.
    pub events_min: Option<u64>,
    pub coverage: Coverage,
    /// The first run that failed; the sweep ended with it.
    pub failed: Option<Report>,
}

impl Sweep {
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.lasted = self.lasted + other.lasted;
        self.events_min = [self.events_min, other.events_min].into_iter().flatten().min();
        self.coverage.merge(&other.coverage);
        let first = |a: Report, b: Report| if a.seed <= b.seed { a } else { b };
        self.failed = match (self.failed.take(), other.failed) {
            (Some(a), Some(b)) => Some(first(a, b)),
            (a, b) => a.or(b),
        };
    }
}

/// Seeds of which this share is run twice, to see that one seed is one story.
const TWICE_EVERY: u64 = 16;

/// Runs seeds until one fails.
pub fn sweep(seeds: impl IntoIterator<Item = u64>) -> Sweep {
    let mut sweep = Sweep::default();
    for seed in seeds {
        let mut report = run::run(seed, false);
        if report.failure.is_none() && seed % TWICE_EVERY == 0 {
            let again = run::run(seed, false);
            if again.hash != report.hash {
                let text = format!("the same seed gave {:x} and {:x}", report.hash, again.hash);
                let at = crate::units::Instant::ZERO + report.lasted;
                report.failure = Some(Failure { checker: "replay", at, text });
            }
        }
        sweep.seeds += 1;
        sweep.events += report.events;
        sweep.lasted = sweep.lasted + report.lasted;
        sweep.events_min = Some(sweep.events_min.map_or(report.events, |least| least.min(report.events)));
        sweep.coverage.merge(&report.coverage);
        if report.failure.is_some() {
            sweep.failed = Some(report);
            break;
        }
    }
    sweep
}

/// Runs one seed and tells its story.
pub fn replay(seed: u64) -> Report {
    run::run(seed, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sweeps proper are `cargo xtask sim`; these few show that nothing is broken outright.
    #[test]
    fn a_few_seeds_hold() {
        let sweep = sweep(1..=12);
        assert_eq!((sweep.seeds, sweep.failed.and_then(|report| report.failure)), (12, None));
        assert!(sweep.events_min.is_some_and(|events| events >= 5_000));
    }

    #[test]
    fn one_seed_is_one_story() {
        let (told, silent) = (replay(3), run::run(3, false));
        assert_eq!((told.hash, told.events), (silent.hash, silent.events));
        assert!(told.lines.len() as u64 > told.events && silent.lines.is_empty());
        assert_ne!(run::run(4, false).hash, told.hash);
    }
}
