//! The only reader of clocks. Everything else gets time as a value, so that a run can be replayed.

use nix::time::{ClockId, clock_gettime};

use crate::units::{Instant, Timestamp};

/// The clocks of this machine. Monotonic time orders and measures; wall time is only shown to people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// `CLOCK_MONOTONIC`, in nanoseconds: the clock of the kernel's own timeouts, so that both agree. It stands
    /// still while the machine is suspended.
    pub fn now(self) -> Instant {
        // The call cannot fail for a clock that every Linux has; zero would be a visible nonsense, not a crash.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
        Instant::from_nanos(time.0.unsigned_abs() * 1_000_000_000 + time.1.unsigned_abs())
    }

    /// `CLOCK_REALTIME`, in microseconds since the Unix epoch. May jump.
    pub fn wall(self) -> Timestamp {
        let time = clock_gettime(ClockId::CLOCK_REALTIME).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
        Timestamp::from_micros(time.0 * 1_000_000 + time.1 / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let readings: Vec<_> = (0..1_000).map(|_| Clock.now()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Instant::ZERO);
    }

    #[test]
    fn wall_time_is_after_this_was_written() {
        assert!(Clock.wall() > Timestamp::from_micros(1_700_000_000_000_000));
    }
}
