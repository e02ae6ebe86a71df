//! What the jobs of a pipeline took, as histograms with three digits: what is written down for later.
//!
//! ```text
//!  shard ──Recording (of this interval)──▶ Gathered (of all shards, until it is written) ──▶ interval log, texts
//! ```
//! A [`Recording`] belongs to the thread that records; it is exchanged for an empty one as a whole, so that nothing is
//! copied or locked. Its histograms are made when the first job of their class ends, and are emptied and used again. A
//! record costs two writes and no allocation.
//!
//! [`crate::queueing::meter`] measures the same to size the pipeline, in windows that forget. This forgets nothing until it
//! has been written. Nothing here does I/O: a log is bytes.
//!
//! When full: times of more than an hour count as an hour, and a count stops at what its type holds.

mod distribution;
mod log;

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;

pub use self::distribution::Distribution;
pub use self::log::{Log, LogError, LogFault, header, read};
use crate::units::{Span, Timestamp};

/// Microseconds of the longest time that is told from longer ones.
const TIME_MAX: u64 = 3_600_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

/// Which time of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// From when it got a worker until that was free again.
    Service,
    /// From when it was due until then.
    Result,
}

impl Measure {
    pub const ALL: [Self; 2] = [Self::Service, Self::Result];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Result => "result",
        }
    }
}

/// The name of a series, in logs: `pulse-http-service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub pipeline: &'static str,
    /// Of jobs that take alike.
    pub class: &'static str,
    pub measure: Measure,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.pipeline, self.class, self.measure.as_str())
    }
}

/// The times of one thread's jobs since it was exchanged.
#[derive(Debug)]
pub struct Recording {
    pipeline: &'static str,
    classes: Box<[Class]>,
}

#[derive(Debug)]
struct Class {
    name: &'static str,
    /// By [`Measure`]; none before the first job of the class. Four bytes a count keep what is touched small; they are
    /// taken before there are more jobs than they hold.
    times: Option<Box<[Histogram<u32>; Measure::ALL.len()]>>,
}

impl Recording {
    /// An empty one. `classes` are what [`Recording::record`] counts through.
    pub fn new(pipeline: &'static str, classes: impl IntoIterator<Item = &'static str>) -> Self {
        Self { pipeline, classes: classes.into_iter().map(|name| Class { name, times: None }).collect() }
    }

    /// Notes a time, of the class with this number. Those of a class that there is not are left out.
    #[inline]
    pub fn record(&mut self, class: usize, measure: Measure, time: Span) {
        let Some(class) = self.classes.get_mut(class) else { return };
        let times = class.times.get_or_insert_with(|| Box::new(Measure::ALL.map(|_| empty())));
        // Rounded up, and what took no time took the least that can be told.
        times[measure as usize].saturating_record(time.as_nanos().div_ceil(1_000).max(1));
    }

    pub fn is_empty(&self) -> bool {
        self.classes.iter().filter_map(|class| class.times.as_deref()).flatten().all(Histogram::is_empty)
    }
}

fn empty<C: hdrhistogram::Counter>() -> Histogram<C> {
    Histogram::new_with_bounds(1, TIME_MAX, DIGITS).expect("bounds that fit")
}

/// The times of all threads since they were last written.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<Tag, Distribution>);

impl Gathered {
    /// Takes everything out of a recording, which is empty afterwards and keeps its memory.
    pub fn take(&mut self, recording: &mut Recording) {
        let pipeline = recording.pipeline;
        for class in &mut recording.classes {
            let Some(times) = class.times.as_deref_mut() else { continue };
            for (measure, times) in Measure::ALL.into_iter().zip(times) {
                if times.is_empty() {
                    continue;
                }
                let tag = Tag { pipeline, class: class.name, measure };
                self.0.entry(tag).or_insert_with(|| Distribution::of(empty())).take(times);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything: it has been written.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn series(&self) -> impl Iterator<Item = (Tag, &Distribution)> {
        self.0.iter().map(|(tag, distribution)| (*tag, distribution))
    }

    /// The lines of an interval log, one for each series: what was recorded from `start` on for this long.
    pub fn log_lines(&self, start: Timestamp, length: Span) -> String {
        self.0.iter().map(|(tag, distribution)| log::line(&tag.to_string(), start, length, distribution)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 2] = ["tcp", "http"];

    #[test]
    fn what_does_not_occur_takes_no_room_and_no_line() {
        let mut recording = Recording::new("pulse", KINDS);
        let mut gathered = Gathered::default();
        gathered.take(&mut recording);
        assert!(recording.is_empty() && gathered.is_empty());
        assert_eq!(gathered.log_lines(Timestamp::default(), Span::from_secs(1)), "");
        recording.record(1, Measure::Service, Span::from_millis(3));
        recording.record(7, Measure::Service, Span::from_millis(3));
        assert!(recording.classes[0].times.is_none() && !recording.is_empty());
        gathered.take(&mut recording);
        let tags: Vec<_> = gathered.series().map(|(tag, times)| (tag.to_string(), times.count())).collect();
        assert_eq!(tags, [("pulse-http-service".to_owned(), 1)]);
        assert!(recording.is_empty() && recording.classes[1].times.is_some(), "it keeps its memory");
    }

    #[test]
    fn intervals_and_threads_add_up_value_by_value() {
        let mut gathered = Gathered::default();
        let mut all = empty::<u64>();
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..4 {
            let mut recording = Recording::new("pulse", KINDS);
            for _ in 0..1_000 {
                let micros = 1 << rng.u32(0..31) | rng.u64(0..1_000);
                recording.record(0, Measure::Result, Span::from_micros(micros));
                all.record(micros).expect("less than an hour");
            }
            gathered.take(&mut recording);
        }
        let (_, distribution) = gathered.series().next().expect("one series");
        assert_eq!(*distribution, Distribution::of(all));
    }

    #[test]
    fn no_time_is_too_short_or_too_long() {
        let mut recording = Recording::new("pulse", KINDS);
        for time in [Span::ZERO, Span::from_nanos(1), Span::MAX] {
            recording.record(0, Measure::Service, time);
        }
        let mut gathered = Gathered::default();
        gathered.take(&mut recording);
        let (_, distribution) = gathered.series().next().expect("one series");
        assert_eq!(distribution.count(), 3);
        assert_eq!(distribution.percentile(50.0), 0.001);
        assert!((distribution.max() - 3_600_000.0).abs() / 3_600_000.0 < 0.001, "{}", distribution.max());
    }
}
