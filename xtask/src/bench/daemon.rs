//! The daemon itself under measure: configured for a rate, warmed up, then watched from outside (CPU time by thread from
//! /proc, accepts at the target) and asked (its metrics).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::child::{self, Process};
use super::report::Figures;
use super::{Destinations, Kind};

/// Below the probers' source ports: one of those in TIME_WAIT would keep the daemon from listening.
pub(super) const API: &str = "127.0.0.1:9860";
const PATIENCE: Duration = Duration::from_secs(30);

/// One run of the daemon.
pub(crate) struct Run<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) kind: Kind,
    pub(crate) rate: u32,
    /// Seconds between two checks of a monitor: there are `rate × interval` monitors.
    pub(crate) interval: u32,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) destinations: Destinations,
}

impl Run<'_> {
    pub(crate) fn measure(&self, target: &mut Process) -> anyhow::Result<Figures> {
        let folder = Folder::make()?;
        let monitors = folder.0.join("monitors.yaml");
        let config = folder.0.join("cpra.toml");
        std::fs::write(&monitors, self.monitors())?;
        std::fs::write(&config, format!("[api]\nlisten = \"{API}\"\n"))?;
        let log = std::fs::File::create(folder.0.join("output.txt"))?;
        let mut command = Command::new(self.binary);
        command.arg("--yaml").arg(&monitors).arg("--config").arg(&config).current_dir(&folder.0);
        command.env("STATE_DIRECTORY", &folder.0).env("RUNTIME_DIRECTORY", &folder.0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut daemon = Process::start(&mut command)?;
        let result = self.observe(&mut daemon, target);
        daemon.end();
        result.with_context(|| {
            let output = std::fs::read_to_string(folder.0.join("output.txt")).unwrap_or_default();
            let tail: Vec<&str> = output.lines().rev().take(5).collect();
            format!("the daemon said last: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" / "))
        })
    }

    fn observe(&self, daemon: &mut Process, target: &mut Process) -> anyhow::Result<Figures> {
        let patience = Instant::now() + PATIENCE;
        while metrics().is_err() {
            if !daemon.is_running() {
                bail!("the daemon ended");
            }
            if Instant::now() > patience {
                bail!("no metrics at http://{API}/metrics after {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs_f64(self.warm_up));
        target.tell("reset")?;
        let before = Sample::take(daemon, target, self.kind)?;
        std::thread::sleep(Duration::from_secs_f64(self.seconds));
        let after = Sample::take(daemon, target, self.kind)?;
        Ok(self.figures(&before, &after, daemon.id()))
    }

    fn figures(&self, before: &Sample, after: &Sample, pid: u32) -> Figures {
        let window = (after.at - before.at).as_secs_f64();
        let grown = |name: &str| Some(after.metrics.sum(name)? - before.metrics.sum(name)?);
        // A metric that is not there is not a zero.
        let shown = |value: Option<f64>| value.map_or_else(|| "ABSENT".into(), |value| value.to_string());
        // By the target's count, which is of the same moment as the CPU time: the daemon's metrics are up to a quarter of
        // a second old.
        let served = after.served - before.served;
        let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6;
        let checks = grown("cpra_checks_total").unwrap_or(0.0);
        let mut notes = vec![
            format!("missed {}", shown(grown("cpra_checks_missed_total"))),
            format!("busy {}", shown(grown("cpra_checks_skipped_total"))),
            format!("lost {}", shown(after.metrics.sum("cpra_monitors_lost"))),
            format!("longest gap of a target {:.0} ms", after.gap_ms_max),
            format!("RSS {} MiB", child::resident_bytes(pid).unwrap_or(0) >> 20),
        ];
        for (name, time) in &after.threads {
            let earlier =
                before.threads.iter().find(|(known, _)| known == name).map_or(Duration::ZERO, |(_, time)| *time);
            let share = (*time - earlier.min(*time)).as_secs_f64() / window * 100.0;
            if share >= 0.05 {
                notes.push(format!("{name} {share:.1} %"));
            }
        }
        Figures {
            checks: checks as u64,
            failed: (checks - after.metrics.passed() + before.metrics.passed()) as u64,
            rate: checks / window,
            target_rate: served / window,
            cpu_us: cpu / served.max(1.0),
            lag_p50_us: after.metrics.quantile(&before.metrics, "cpra_schedule_lag", 0.50) * 1e6,
            lag_p99_us: after.metrics.quantile(&before.metrics, "cpra_schedule_lag", 0.99) * 1e6,
            notes,
        }
    }

    fn monitors(&self) -> String {
        let mut text = String::from("monitors:\n");
        let addresses: Vec<_> = self.destinations.all().collect();
        for number in 0..self.rate as usize * self.interval as usize {
            let address = addresses[number % addresses.len()];
            let (ip, port) = (address.ip(), address.port());
            let pulse = match self.kind {
                Kind::Tcp => format!("type: tcp, config: {{host: {ip}, port: {port}}}"),
                Kind::Http => format!("type: http, config: {{url: \"http://{ip}:{port}/\"}}"),
                Kind::KeepAlive => format!("type: http, config: {{url: \"http://{ip}:{port}/\", keep_alive: true}}"),
            };
            let interval = self.interval;
            text.push_str(&format!(
                "  - name: bench/{number:07}\n    pulse: {{{pulse}, interval: {interval}s, timeout: 1s}}\n"
            ));
        }
        text
    }
}

struct Sample {
    at: Instant,
    cpu: Duration,
    threads: Vec<(String, Duration)>,
    metrics: Metrics,
    /// Connections or requests that the target counted.
    served: f64,
    gap_ms_max: f64,
}

impl Sample {
    fn take(daemon: &Process, target: &mut Process, kind: Kind) -> anyhow::Result<Self> {
        let counts = target.snapshot()?;
        let served = if kind == Kind::Tcp { "accepted" } else { "requests" };
        Ok(Self {
            metrics: metrics()?,
            threads: child::thread_times(daemon.id())?,
            cpu: child::process_time(daemon.id())?,
            at: Instant::now(),
            served: counts[served].as_f64().unwrap_or(0.0),
            gap_ms_max: counts["gap_ms_max"].as_f64().unwrap_or(0.0),
        })
    }
}

/// The daemon's metrics: name, labels, value.
#[derive(Default)]
pub(super) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

pub(super) fn metrics() -> anyhow::Result<Metrics> {
    metrics_of(API.parse()?)
}

pub(super) fn metrics_of(address: SocketAddr) -> anyhow::Result<Metrics> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("/metrics: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(Metrics::parse(&answer))
}

impl Metrics {
    /// Lines of the text format; whatever is none (headers, chunk sizes, comments) is passed over.
    fn parse(text: &str) -> Self {
        let parse = |line: &str| {
            let (series, value) = line.trim().rsplit_once(' ')?;
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.trim_end_matches('}')),
                None => (series, ""),
            };
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect();
            let is_name = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
            is_name.then_some((name.to_owned(), labels, value.parse().ok()?))
        };
        Self(text.lines().filter_map(parse).collect())
    }

    /// The sum over all labels, if there is any.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        self.0.iter().filter(|(known, _, _)| known == name).map(|(_, _, value)| *value).reduce(|sum, value| sum + value)
    }

    /// Checks whose outcome is an OK of any layer.
    pub(super) fn passed(&self) -> f64 {
        let is_ok = |labels: &BTreeMap<String, String>| labels.get("outcome").is_some_and(|code| code.ends_with("OK"));
        self.0.iter().filter(|(name, labels, _)| name == "cpra_checks_total" && is_ok(labels)).map(|(_, _, v)| v).sum()
    }

    /// The upper bound, in seconds, of the bucket that holds a quantile of what came since `before`. The histogram's name
    /// is given without its unit.
    pub(super) fn quantile(&self, before: &Self, histogram: &str, share: f64) -> f64 {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (metrics, sign) in [(self, 1.0), (before, -1.0)] {
            for (name, labels, value) in &metrics.0 {
                let Some(bound) = labels.get("le").filter(|_| name.starts_with(histogram) && name.ends_with("_bucket"))
                else {
                    continue;
                };
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                match buckets.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += sign * value,
                    None => buckets.push((bound, sign * value)),
                }
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        buckets.iter().find(|(_, count)| *count >= total * share).map_or(f64::NAN, |(bound, _)| *bound)
    }
}

/// A folder of this run, gone with it.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn make() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("cpra-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n# TYPE x counter\n\
        cpra_checks_total{type=\"tcp\",outcome=\"L4OK\"} 90\ncpra_checks_total{type=\"tcp\",outcome=\"L4CON\"} 10\n\
        cpra_schedule_lag_seconds_bucket{le=\"0.001\"} 50\ncpra_schedule_lag_seconds_bucket{le=\"0.002\"} 98\n\
        cpra_schedule_lag_seconds_bucket{le=\"+Inf\"} 100\n# EOF\n";

    #[test]
    fn metrics_are_read() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("cpra_checks_total"), Some(100.0));
        assert_eq!(metrics.sum("cpra_absent"), None);
        assert_eq!(metrics.passed(), 90.0);
        assert_eq!(metrics.quantile(&Metrics::default(), "cpra_schedule_lag", 0.50), 0.001);
        assert_eq!(metrics.quantile(&Metrics::default(), "cpra_schedule_lag", 0.51), 0.002);
        assert_eq!(metrics.quantile(&Metrics::default(), "cpra_schedule_lag", 0.99), f64::INFINITY);
        assert!(metrics.quantile(&metrics, "cpra_absent", 0.5).is_nan());
    }
}
