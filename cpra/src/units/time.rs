//! Time as values. `Instant` is monotonic, `Timestamp` is what a wall clock showed; nothing below the drivers
//! reads either of them from a clock.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A point on the monotonic clock (`CLOCK_MONOTONIC`), in nanoseconds since its own zero (boot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// A length of time in nanoseconds. Never negative: arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Wall-clock time in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Instant {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` until `self`; zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The same as `self - span`, stopping at zero.
    pub const fn before(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Add<Span> for Instant {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Instant {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Span {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Seconds as a float: the base unit of every metric.
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days; a metric needs no more")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This span, `numerator / denominator` of it, without overflow.
    pub const fn scaled(self, numerator: u64, denominator: u64) -> Self {
        let wide = self.0 as u128 * numerator as u128 / denominator as u128;
        Self(if wide > u64::MAX as u128 { u64::MAX } else { wide as u64 })
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// For people: `0.4 ms`, `41 ms`, `5 s`, `1 m 30 s`, `2 h 5 m`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.as_micros();
        match micros {
            0..10_000 => write!(f, "{}.{} ms", micros / 1_000, micros % 1_000 / 100),
            10_000..1_000_000 => write!(f, "{} ms", micros / 1_000),
            1_000_000..60_000_000 if micros % 1_000_000 >= 100_000 && micros < 10_000_000 => {
                write!(f, "{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000)
            }
            1_000_000..60_000_000 => write!(f, "{} s", micros / 1_000_000),
            60_000_000..3_600_000_000 => {
                write!(f, "{} m {} s", micros / 60_000_000, micros % 60_000_000 / 1_000_000)
            }
            _ => write!(f, "{} h {} m", micros / 3_600_000_000, micros % 3_600_000_000 / 60_000_000),
        }
    }
}

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, as a ULID wants them; zero before 1970.
    pub const fn as_millis_unsigned(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0 as u64 / 1_000 }
    }

    /// Zero if `earlier` is later: wall clocks are set back at times.
    pub const fn since(self, earlier: Self) -> Span {
        let micros = self.0.saturating_sub(earlier.0);
        if micros < 0 { Span::ZERO } else { Span::from_micros(micros as u64) }
    }
}

/// RFC 3339, UTC, microseconds, `Z`: `2026-11-22T03:00:00.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{timestamp:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_like_people_say_them() {
        let cases = [
            (Span::from_micros(400), "0.4 ms"),
            (Span::from_millis(41), "41 ms"),
            (Span::from_millis(6_000), "6 s"),
            (Span::from_millis(6_420), "6.4 s"),
            (Span::from_secs(30), "30 s"),
            (Span::from_secs(90), "1 m 30 s"),
            (Span::from_secs(7_500), "2 h 5 m"),
        ];
        for (span, text) in cases {
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc_with_microseconds() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(1_795_316_400_000_042).to_string(), "2026-11-22T03:00:00.000042Z");
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(5)), Span::ZERO);
        assert_eq!(Span::MAX + Span::from_secs(1), Span::MAX);
        assert_eq!(Span::from_secs(10).scaled(u64::MAX, u64::MAX), Span::from_secs(10));
    }
}
