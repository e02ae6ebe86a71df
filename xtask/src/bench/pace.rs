//! When checks are due, and what a measured window of them cost: shared by the reference loops.

use std::time::{Duration, Instant as Clock};

use cpra::units::limits::TICK;
use cpra::units::{Instant, Span};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde_json::json;

use super::Load;

/// Checks evenly spread at a rate, each due at the next tick: as the daemon's wheel has them. Without a rate, as many as
/// there is room for.
pub(crate) struct Pace {
    start: Instant,
    rate: Option<u32>,
    started: u64,
}

impl Pace {
    pub(crate) const fn new(start: Instant, rate: Option<u32>) -> Self {
        Self { start, rate, started: 0 }
    }

    /// Takes the next check if it is due and returns when it was.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next().unwrap_or(now);
        (due <= now).then(|| {
            self.started += 1;
            due
        })
    }

    /// When the next check is due; `None` without a rate.
    pub(crate) fn next(&self) -> Option<Instant> {
        let rate = u64::from(self.rate?);
        let exact = Span::from_secs(1).scaled(self.started, rate).as_nanos();
        Some(self.start + Span::from_nanos(exact.next_multiple_of(TICK.as_nanos())))
    }
}

/// The clock of a loop, as the units that the daemon uses.
pub(crate) struct Stopwatch(Clock);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Clock::now())
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.0.elapsed().as_nanos() as u64)
    }
}

/// User and system time of this process.
pub(crate) fn cpu() -> Duration {
    used(UsageWho::RUSAGE_SELF)
}

/// ... and of the processes that it has started and waited for.
pub(crate) fn cpu_of_children() -> Duration {
    used(UsageWho::RUSAGE_CHILDREN)
}

fn used(by: UsageWho) -> Duration {
    let usage = getrusage(by).expect("the kernel knows this process");
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// User and system time of a process, all of its threads.
pub(crate) fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(process as i32))?;
    Ok(clock.now()?.into())
}

/// Processor time since some moment: perhaps this process's, and in any case that of the threads in which the kernel
/// handles packets when it does not do so within the call that sent them.
pub(crate) struct Account {
    own: Option<Duration>,
    kernel: Duration,
}

impl Account {
    pub(crate) fn of_all() -> Self {
        let kernel = softirqs();
        Self { own: Some(cpu()), kernel }
    }

    pub(crate) fn of_kernel() -> Self {
        Self { own: None, kernel: softirqs() }
    }

    pub(crate) fn spent(&self) -> Duration {
        let own = self.own.map_or(Duration::ZERO, |before| cpu().saturating_sub(before));
        own + softirqs().saturating_sub(self.kernel)
    }
}

/// What all `ksoftirqd` threads have used.
fn softirqs() -> Duration {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    let is_one = |id: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{id}/comm"));
        name.is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    let ids = processes.filter_map(|process| process.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(is_one).filter_map(|id| cpu_of(id).ok()).sum()
}

/// Counts of a run, and of the window that is measured.
pub(crate) struct Meter {
    opens: Instant,
    closes: Instant,
    /// CPU time and completed checks when the window opened, and when it closed.
    opened: Option<(Instant, Duration, u64)>,
    closed: Option<(Instant, Duration, u64)>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) enters: u64,
    /// Start − due, in microseconds, within the window.
    lags: Vec<u32>,
}

impl Meter {
    pub(crate) fn new(load: &Load, now: Instant) -> Self {
        let opens = now + Span::from_micros((load.warm_up * 1e6) as u64);
        let closes = opens + Span::from_micros((load.seconds * 1e6) as u64);
        let expected = f64::from(load.rate.unwrap_or(0)) * load.seconds;
        Self {
            opens,
            closes,
            opened: None,
            closed: None,
            completed: 0,
            failed: 0,
            enters: 0,
            lags: Vec::with_capacity(expected as usize + 1024),
        }
    }

    /// Opens and closes the window as time goes on; `false` once it has closed.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        if self.opened.is_none() && now >= self.opens {
            self.opened = Some((now, cpu(), self.completed));
        }
        if self.closed.is_none() && now >= self.closes {
            self.closed = Some((now, cpu(), self.completed));
        }
        self.closed.is_none()
    }

    pub(crate) const fn closes(&self) -> Instant {
        self.closes
    }

    pub(crate) fn started(&mut self, now: Instant, due: Instant) {
        if self.opened.is_some() && self.closed.is_none() {
            self.lags.push(u32::try_from(now.since(due).as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// One line for the driver; `run` is how long the loop ran in all.
    pub(crate) fn print(mut self, run: Span) {
        let (opened, cpu_before, before) = self.opened.unwrap_or_default();
        let (closed, cpu_after, after) = self.closed.unwrap_or_default();
        self.lags.sort_unstable();
        let lag = |share: f64| {
            let index = (self.lags.len() as f64 * share) as usize;
            self.lags.get(index.min(self.lags.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        println!(
            "{}",
            json!({
                "checks": after - before,
                "checks_all": self.completed,
                "failed": self.failed,
                "run_s": run.as_secs_f64(),
                "window_s": closed.since(opened).as_secs_f64(),
                "cpu_us": (cpu_after.saturating_sub(cpu_before)).as_micros() as u64,
                "enters": self.enters,
                "lag_p50_us": lag(0.50),
                "lag_p99_us": lag(0.99),
                "lag_max_us": lag(1.0),
            })
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_spread_evenly_and_never_early() {
        let start = Instant::from_nanos(5_000_000_000);
        let mut pace = Pace::new(start, Some(2_500));
        let mut counts = Vec::new();
        for tick in 0..5_u64 {
            let now = start + Span::from_millis(tick);
            counts.push(std::iter::from_fn(|| pace.take(now)).count());
        }
        assert_eq!(counts, [1, 2, 3, 2, 3], "2.5 a tick, rounded up to the tick after");
        assert_eq!(pace.next(), Some(start + Span::from_millis(5)));
    }

    #[test]
    fn without_a_rate_everything_is_due() {
        let now = Instant::from_nanos(7);
        let mut pace = Pace::new(now, None);
        assert_eq!((pace.take(now), pace.take(now), pace.next()), (Some(now), Some(now), None));
    }
}
