//! The text is read back line by line, as a scraper would.

use std::collections::BTreeMap;

use super::fake::{Fake, Running, class};
use crate::domain::monitor::CheckKind;
use crate::domain::{Code, VoidReason};
use crate::units::Span;

type Labels = BTreeMap<String, String>;

struct Exposition {
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

fn parsed(text: &str) -> Exposition {
    let mut exposition = Exposition { types: BTreeMap::new(), helps: BTreeMap::new(), samples: Vec::new() };
    assert!(text.ends_with("\n# EOF\n"), "it has an end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, value) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
            match what {
                Some("HELP") => assert!(exposition.helps.insert(name.into(), value.into()).is_none(), "{name} twice"),
                Some("TYPE") => assert!(exposition.types.insert(name.into(), value.into()).is_none(), "{name} twice"),
                Some("UNIT") => assert!(name.ends_with(value), "{line}"),
                Some("EOF") => {}
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels_of(labels.strip_suffix('}').expect("a closing brace"))),
            None => (series, Labels::new()),
        };
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        exposition.samples.push((name.to_owned(), labels, value));
    }
    exposition
}

fn labels_of(text: &str) -> Labels {
    text.split(',')
        .map(|label| {
            let (key, value) = label.split_once('=').expect("a key and a value");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

impl Exposition {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |with: &Labels| {
            with.len() == labels.len() && labels.iter().all(|(key, value)| with.get(*key).is_some_and(|v| v == value))
        };
        let found: Vec<_> = self.samples.iter().filter(|(n, with, _)| n == name && matches(with)).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].2
    }
}

fn scraped() -> Exposition {
    let running = Running::new(Fake::small());
    {
        let mut shards = running.fake.shards.lock().expect("no test panics with it");
        shards.monitors[1] = 13;
        shards.degraded = 2;
        shards.checks[0][Code::L4Ok.index()] = 40;
        shards.checks[1][Code::Void(VoidReason::Internal).index()] = 3;
        shards.missed = 5;
        shards.skipped_busy = 6;
        shards.overdue = 7;
        shards.held = [8, 9];
        shards.stalls = 1;
        shards.in_flight = 9;
        shards.sizing = vec![class("http", 500.0, 1_000), class("suspects", 100.0, 1)];
        for micros in [10, 50, 51, 3_000, 60_000_000] {
            shards.lag.record(Span::from_micros(micros));
            shards.connect_rtt.record(Span::from_micros(micros));
            shards.duration[1].record(Span::from_micros(micros));
        }
    }
    let reply = running.get("/metrics");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", reply.head);
    let browser =
        running.raw("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n");
    assert!(browser.head.contains("text/plain; charset=utf-8"), "{}", browser.head);
    parsed(reply.text())
}

#[test]
fn every_metric_is_there_under_its_name() {
    let page = scraped();
    for (name, labels, value) in [
        ("cpra_monitors", &[("state", "up")][..], 13.0),
        ("cpra_monitors", &[("state", "disabled")], 0.0),
        ("cpra_monitors_overlay", &[("overlay", "degraded")], 2.0),
        ("cpra_monitors_lost", &[], 0.0),
        ("cpra_checks_total", &[("type", "tcp"), ("outcome", "L4OK")], 40.0),
        ("cpra_checks_total", &[("type", "http"), ("outcome", "VOID:INTERNAL")], 3.0),
        ("cpra_checks_missed_total", &[], 5.0),
        ("cpra_checks_skipped_total", &[("reason", "busy")], 6.0),
        ("cpra_checks_overdue_total", &[], 7.0),
        ("cpra_checks_held_total", &[("bound", "echo")], 8.0),
        ("cpra_checks_held_total", &[("bound", "syn")], 9.0),
        ("cpra_schedule_lag_seconds_count", &[], 5.0),
        ("cpra_pulse_latency_seconds_count", &[], 0.0),
        ("cpra_check_duration_seconds_count", &[("type", "http")], 5.0),
        ("cpra_check_duration_seconds_count", &[("type", "tcp")], 0.0),
        ("cpra_connect_rtt_seconds_count", &[], 5.0),
        ("cpra_notices_total", &[("color", "red"), ("provider", "log"), ("result", "sent")], 7.0),
        ("cpra_notices_total", &[("color", "gray"), ("provider", "log"), ("result", "failed")], 0.0),
        ("cpra_notices_nondurable_total", &[], 4.0),
        ("cpra_outbox", &[("state", "pausing")], 1.0),
        ("cpra_outbox", &[("state", "outstanding")], 0.0),
        ("cpra_outbox_oldest_seconds", &[], 30.0),
        ("cpra_watchdog_pings_total", &[("result", "withheld")], 23.0),
        ("cpra_resolver_queries_total", &[("result", "found")], 5.0),
        ("cpra_resolver_queries_total", &[("result", "failed")], 1.0),
        ("cpra_resolver_stale_total", &[], 9.0),
        ("cpra_resolver_latency_seconds_count", &[], 1.0),
        ("cpra_queue_depth", &[("pipeline", "pulse")], 3.0),
        ("cpra_inflight", &[("pipeline", "pulse")], 9.0),
        ("cpra_inflight", &[("pipeline", "code")], 2.0),
        ("cpra_queue_depth", &[("pipeline", "code")], 1.0),
        ("cpra_slo_unreachable", &[("pipeline", "pulse")], 1.0),
        ("cpra_slo_unreachable", &[("pipeline", "code")], 0.0),
        ("cpra_pipeline_workers", &[("pipeline", "pulse"), ("class", "suspects")], 1.0),
        ("cpra_pipeline_arrival_rate", &[("pipeline", "pulse"), ("class", "http")], 500.0),
        ("cpra_pipeline_utilization", &[("pipeline", "pulse"), ("class", "suspects")], 2.0),
        ("cpra_pipeline_scv", &[("pipeline", "pulse"), ("class", "http"), ("of", "arrivals")], 1.5),
        ("cpra_pipeline_scv", &[("pipeline", "pulse"), ("class", "http"), ("of", "service")], 1.0),
        ("cpra_pipeline_service_time_seconds", &[("pipeline", "pulse"), ("class", "http"), ("stat", "mean")], 0.02),
        ("cpra_pipeline_service_time_seconds", &[("pipeline", "pulse"), ("class", "http"), ("stat", "p999")], 0.138),
        ("cpra_pipeline_measured_wait_seconds", &[("pipeline", "pulse"), ("class", "http"), ("stat", "p95")], 0.003),
        ("cpra_histogram_dumps_total", &[("result", "written")], 3.0),
        ("cpra_histogram_dumps_total", &[("result", "failed")], 1.0),
        ("cpra_reloads_total", &[("result", "applied")], 1.0),
        ("cpra_reloads_total", &[("result", "refused")], 1.0),
        ("cpra_config_last_reload_successful", &[], 0.0),
        ("cpra_config_last_reload_seconds", &[], 1.5),
        ("cpra_stalls_total", &[], 1.0),
        ("cpra_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ("cpra_episodes_open", &[], 1.0),
        ("process_start_time_seconds", &[], 1_000.0),
    ] {
        assert_eq!(page.value(name, labels), value, "{name} {labels:?}");
    }
    assert!(page.value("process_resident_memory_bytes", &[]) > 1e5);
    assert!(page.value("process_open_fds", &[]) >= 3.0);
    assert!(page.value("process_cpu_seconds_total", &[]) >= 0.0);
    assert!(page.samples.iter().all(|(_, _, value)| value.is_finite()));
    let predicted = |class: &str| {
        page.samples
            .iter()
            .filter(|(name, labels, _)| name == "cpra_pipeline_predicted_wait_seconds" && labels["class"] == class)
            .map(|(_, labels, wait)| (labels["stat"].as_str(), *wait))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(predicted("http").keys().copied().collect::<Vec<_>>(), ["mean", "slo"]);
    assert_eq!(predicted("suspects").len(), 0, "a queue without an end has no wait");
}

#[test]
fn every_sample_belongs_to_a_described_family() {
    let page = scraped();
    for (name, _, _) in &page.samples {
        let family = page.types.iter().find(|(family, kind)| {
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                "info" => &["_info"],
                "gauge" => &[""],
                other => panic!("{other}"),
            };
            name.strip_prefix(family.as_str()).is_some_and(|suffix| suffixes.contains(&suffix))
        });
        let (family, _) = family.unwrap_or_else(|| panic!("{name} has no type"));
        assert!(page.helps.get(family).is_some_and(|help| !help.is_empty()), "{family} has no help");
    }
    for family in page.types.keys() {
        assert!(page.samples.iter().any(|(name, ..)| name.starts_with(family.as_str())), "{family} is never written");
    }
}

#[test]
fn histograms_are_cumulative_and_count_what_they_hold() {
    let page = scraped();
    let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for (name, labels, value) in &page.samples {
        let Some(family) = name.strip_suffix("_bucket") else { continue };
        let mut labels = labels.clone();
        let bound = labels.remove("le").expect("a bound").parse().expect("a number or +Inf");
        buckets.entry((family.to_owned(), labels)).or_default().push((bound, *value));
    }
    let others = ["lag", "latency", "names", "handshakes", "commits"];
    assert_eq!(buckets.len(), others.len() + CheckKind::ALL.len(), "{others:?} and a duration for each type");
    for ((family, labels), buckets) in &buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {buckets:?}");
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let (bound, most) = *buckets.last().expect("there are some");
        assert!(bound == f64::INFINITY && page.value(&format!("{family}_count"), &labels) == most, "{family}");
        let sum = page.value(&format!("{family}_sum"), &labels);
        assert!(if most > 0.0 { (60.0..60.1).contains(&sum) } else { sum == 0.0 }, "{family} {sum}");
    }
    let lag = &buckets[&("cpra_schedule_lag_seconds".to_owned(), Labels::new())];
    assert_eq!(lag[0], (0.000_05, 2.0), "what equals a bound is below it");
    assert_eq!(lag[lag.len() - 2], (30.0, 4.0));
}
