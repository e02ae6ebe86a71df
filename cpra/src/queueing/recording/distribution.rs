//! One histogram, as people and tools read it: milliseconds, percentiles, and the text that HdrHistogram's plotter takes.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Microseconds in the unit that is shown.
const SHOWN: f64 = 1_000.0;
/// Steps of the text for each halving of the distance to 100 %, as the standard tools have it.
const TICKS: u32 = 5;

/// Times by how often they occurred. Recorded in microseconds, shown in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution(Histogram<u64>);

/// How much of a distribution is at most so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From 0 to 1.
    pub quantile: f64,
    pub millis: f64,
    /// How many, up to here.
    pub count: u64,
}

impl Distribution {
    pub(super) const fn of(histogram: Histogram<u64>) -> Self {
        Self(histogram)
    }

    pub(super) const fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Takes everything out of a histogram of smaller counts.
    pub(super) fn take(&mut self, other: &mut Histogram<u32>) {
        for step in other.iter_recorded() {
            self.0.saturating_record_n(step.value_iterated_to(), u64::from(step.count_at_value()));
        }
        other.reset();
    }

    /// Adds what another one holds; longer times than this one knew of make it grow.
    pub fn add(&mut self, other: &Self) {
        self.0.auto(true);
        // Only a histogram that may not grow refuses.
        let _ = self.0.add(&other.0);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds, as everything here.
    pub fn mean(&self) -> f64 {
        self.0.mean() / SHOWN
    }

    pub fn max(&self) -> f64 {
        self.0.max() as f64 / SHOWN
    }

    /// What so many in a hundred do not exceed.
    pub fn percentile(&self, percent: f64) -> f64 {
        // One step down, as the reference implementation does it: 99.9 / 100 is a little more than 0.999, and of a thousand
        // times the 999th is meant.
        self.0.value_at_quantile((percent / 100.0).next_down()) as f64 / SHOWN
    }

    /// Every recorded time in microseconds, and how often it occurred.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    /// Finer and finer towards 100 %.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        let mut count = 0;
        self.0.iter_quantiles(TICKS).map(move |step| {
            count += step.count_since_last_iteration();
            Step { quantile: step.quantile_iterated_to(), millis: step.value_iterated_to() as f64 / SHOWN, count }
        })
    }

    /// The percentile distribution as HdrHistogram writes it (`.hgrm`), in milliseconds.
    pub fn text(&self) -> String {
        let mut text =
            format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
        for Step { quantile, millis, count } in self.steps() {
            let _ = write!(text, "{millis:12.3} {quantile:2.12} {count:10}");
            // Of all of them, none is beyond.
            if quantile < 1.0 {
                let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        let (mean, deviation) = (self.mean(), self.0.stdev() / SHOWN);
        let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
        let _ = writeln!(text, "#[Max     = {:12.3}, Total count    = {:12}]", self.max(), self.count());
        let (buckets, sub_buckets) = self.buckets();
        let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
        text
    }

    /// How the standard counts a histogram's buckets: each covers twice as much as the one before, in equal parts.
    fn buckets(&self) -> (u32, u64) {
        let parts = (2 * 10_u64.pow(u32::from(self.0.sigfig()))).next_power_of_two();
        let covered = self.0.high() / (parts.saturating_mul(self.0.low().next_power_of_two())).max(1);
        (64 - covered.leading_zeros() + 1, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Distribution {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds that fit");
        for micros in 1..=1_000 {
            histogram.record(micros * 10).expect("in bounds");
        }
        Distribution(histogram)
    }

    #[test]
    fn the_text_has_the_shape_that_the_standard_tools_read() {
        let text = sample().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       0.010 0.000000000000          1           1.00");
        let last = lines.iter().rfind(|line| !line.starts_with('#')).expect("there are some");
        assert_eq!(*last, "      10.007 1.000000000000       1000", "the last one has three columns");
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "#[Mean    =        5.006, StdDeviation   =        2.887]",
                "#[Max     =       10.007, Total count    =         1000]",
                "#[Buckets =           22, SubBuckets     =         2048]"
            ]
        );
        let values = |column: usize| {
            lines[2..].iter().filter(|line| !line.starts_with('#')).filter_map(move |line| {
                line.split_whitespace().nth(column).map(|number| number.parse::<f64>().expect("a number"))
            })
        };
        assert_eq!(
            [50.0, 99.9, 99.91, 100.0].map(|percent| sample().percentile(percent)),
            [5.003, 9.991, 10.007, 10.007]
        );
        assert_eq!(sample().percentile(0.0), 0.01);
        assert!(values(0).is_sorted() && values(1).is_sorted() && values(2).is_sorted());
    }

    #[test]
    fn a_wider_one_is_added_as_it_is() {
        let mut narrow = Distribution(Histogram::new_with_bounds(1, 1_000, 3).expect("bounds that fit"));
        narrow.add(&sample());
        assert!(narrow.recorded().eq(sample().recorded()));
        assert_eq!(narrow.count(), 1_000);
    }
}
