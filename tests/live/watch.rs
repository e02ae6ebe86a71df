//! What a running daemon says of itself, noted ten times a second, and what follows from it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cpra::api::Source;
use cpra::os::clock::Clock;
use cpra::queueing::{Goal, Report};
use cpra::shard::ShardStats;
use cpra::shard::protocol::{BUCKETS_US, Histogram};
use cpra::units::{Instant, Span};

const EVERY: Duration = Duration::from_millis(100);

/// The counters at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    pub stats: ShardStats,
}

impl Sample {
    pub fn class(&self, class: &str) -> Option<&Report> {
        self.stats.sizing.iter().find(|report| report.class == class)
    }

    /// The workers of all classes, and how many of those are busy.
    pub fn workers(&self) -> (u32, u32) {
        let reports = self.stats.sizing.iter();
        reports.fold((0, 0), |(all, busy), report| (all + report.workers, busy + report.demand.busy))
    }
}

/// Takes samples until it is asked for them.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Watch {
    pub fn start(source: Arc<dyn Source>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let stats = source.shard_stats();
                samples.push(Sample { at: Clock.now(), stats });
                thread::sleep(EVERY);
            }
            samples
        });
        Self { stop, thread }
    }

    /// # Panics
    /// If the daemon's counters cannot be had.
    pub fn end(self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        Log(self.thread.join().expect("it only reads"))
    }
}

/// What a pipeline has promised: this share of what is counted lies within the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// From due to result.
    Result(Span),
    /// From due to start.
    Wait(Span),
}

impl From<Goal> for Promise {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Result(within) => Self::Result(within),
            Goal::Wait(within) => Self::Wait(within),
        }
    }
}

/// Samples in the order of time.
#[derive(Clone, Debug)]
pub struct Log(pub Vec<Sample>);

impl Log {
    fn within(&self, time: &Range<Instant>) -> impl DoubleEndedIterator<Item = &Sample> {
        self.0.iter().filter(move |sample| time.contains(&sample.at))
    }

    /// What was counted within a stretch of time: from due to start, and from due to result.
    pub fn counted(&self, time: &Range<Instant>) -> Counted {
        let mut samples = self.within(time);
        let (Some(first), Some(last)) = (samples.next(), samples.next_back()) else { return Counted::default() };
        Counted {
            seconds: last.at.since(first.at).as_secs_f64(),
            wait: minus(&last.stats.lag, &first.stats.lag),
            result: minus(&last.stats.latency, &first.stats.latency),
        }
    }

    /// After which time the promise was kept in every window of half a second until the end.
    pub fn held_after(&self, time: &Range<Instant>, promise: Promise, share: f64) -> Span {
        let window = Span::from_millis(500);
        let mut missed = self.within(time).filter(|sample| {
            let counted = self.counted(&(sample.at.before(window)..sample.at + Span::from_nanos(1)));
            counted.share(promise).is_some_and(|kept| kept < share)
        });
        missed.next_back().map_or(Span::ZERO, |sample| sample.at.since(time.start))
    }

    /// The fewest and the most workers, and how often their number rose and fell.
    pub fn workers(&self, time: &Range<Instant>) -> Workers {
        let counts: Vec<u32> = self.within(time).map(|sample| sample.workers().0).collect();
        Workers {
            least: counts.iter().copied().min().unwrap_or(0),
            most: counts.iter().copied().max().unwrap_or(0),
            rises: counts.windows(2).filter(|pair| pair[0] < pair[1]).count(),
            falls: counts.windows(2).filter(|pair| pair[0] > pair[1]).count(),
        }
    }

    /// What the solver said last within a stretch of time, of one class.
    pub fn answer(&self, time: &Range<Instant>, class: &str) -> Option<cpra::queueing::Answer> {
        Some(self.last_of(time, class)?.answer)
    }

    /// What a class said last within a stretch of time.
    pub fn last_of(&self, time: &Range<Instant>, class: &str) -> Option<&Report> {
        self.within(time).next_back()?.class(class)
    }

    /// The largest percentile of the wait that a class reported.
    pub fn worst_wait_p99(&self, time: &Range<Instant>, class: &str) -> Option<Span> {
        self.within(time).filter_map(|sample| Some(sample.class(class)?.waits.p99)).max()
    }

    /// The middle one of a class's percentiles of the wait as they were reported: a pause of the machine is in few of them.
    pub fn wait_p99(&self, time: &Range<Instant>, class: &str) -> Option<Span> {
        let mut waits: Vec<Span> =
            self.within(time).filter_map(|sample| Some(sample.class(class)?.waits.p99)).collect();
        waits.sort_unstable();
        waits.get(waits.len() / 2).copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    pub least: u32,
    pub most: u32,
    pub rises: usize,
    pub falls: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Counted {
    pub seconds: f64,
    pub wait: Histogram,
    pub result: Histogram,
}

impl Counted {
    /// Checks that ended, per second.
    pub fn rate(&self) -> f64 {
        self.result.count() as f64 / self.seconds.max(1e-3)
    }

    /// The share that kept the promise, whose bound is one of the histograms'; `None` where hardly anything was counted.
    pub fn share(&self, promise: Promise) -> Option<f64> {
        let (histogram, within) = match promise {
            Promise::Result(within) => (&self.result, within),
            Promise::Wait(within) => (&self.wait, within),
        };
        let buckets = BUCKETS_US.iter().take_while(|&&bound| bound <= within.as_micros()).count();
        let kept: u64 = histogram.counts[..buckets].iter().sum();
        (histogram.count() >= COUNTED_MIN).then(|| kept as f64 / histogram.count() as f64)
    }
}

/// Fewer than these say nothing about a share.
const COUNTED_MIN: u64 = 20;

/// A percentile in seconds, interpolated within its bucket.
pub fn percentile(histogram: &Histogram, share: f64) -> Option<f64> {
    let wanted = histogram.count() as f64 * share;
    let mut below = 0.0;
    for (index, &count) in histogram.counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= wanted {
            let low = if index == 0 { 0 } else { BUCKETS_US[index - 1] } as f64;
            let high = BUCKETS_US.get(index).map_or(low * 2.0, |&bound| bound as f64);
            return Some((low + (high - low) * (wanted - below) / count) / 1e6);
        }
        below += count;
    }
    None
}

fn minus(after: &Histogram, before: &Histogram) -> Histogram {
    let mut difference = after.clone();
    for (count, earlier) in difference.counts.iter_mut().zip(&before.counts) {
        *count -= earlier;
    }
    difference.sum = difference.sum - before.sum;
    difference
}
