//! `/metrics`: snapshots of the daemon's plain counters in the OpenMetrics text format.
//!
//! Nothing is kept here: a scrape takes one snapshot of the shards, the desk and the process, and encodes it. There
//! are no series per monitor, so the size of an answer does not depend on what is loaded.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use super::reload;
use super::source::{PINGS, Pipeline, Source};
use crate::desk::DeskStats;
use crate::desk::protocol::{DeliveryResult, OutboxState};
use crate::domain::monitor::CheckKind;
use crate::domain::{Code, Color, Provider};
use crate::os::resolve::ResolverStats;
use crate::queueing::Report;
use crate::queueing::meter::Percentiles;
use crate::shard::ShardStats;
use crate::shard::protocol::{BUCKETS_US, EchoStats, Histogram, PACKETS, STATES};
use crate::store::StoreStats;
use crate::units::Instant;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole exposition.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new(source: Arc<dyn Source>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot { source }));
        Self { registry }
    }

    /// # Errors
    /// Never in practice: a `String` takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut buffer = String::with_capacity(16 * 1024);
        text::encode(&mut buffer, &self.registry)?;
        Ok(buffer)
    }
}

struct Snapshot {
    source: Arc<dyn Source>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page { encoder };
        let shards = self.source.shard_stats();
        let desk = self.source.desk_stats();
        monitors(&mut page, &shards)?;
        checks(&mut page, &shards)?;
        notices(&mut page, &desk)?;
        outbox(&mut page, &desk, self.source.now())?;
        store(&mut page, &self.source.store_stats())?;
        names(&mut page, &self.source.resolver_stats())?;
        pipelines(&mut page, &self.source.pipelines())?;
        echoes(&mut page, &shards.echoes)?;
        page.counters(
            "cpra_syn_packets",
            "SYNs of half-open checks that left, and what came back for them (SYN-ACKs, resets, errors)",
            [([("direction", "out")], shards.syns.sent), ([("direction", "in")], shards.syns.answered)],
        )?;
        let results = ["written", "failed"].into_iter().zip(self.source.dump_stats());
        page.counters(
            "cpra_histogram_dumps",
            "Dumps of histograms by result; what could not be written is part of the next one",
            results.map(|(result, count)| ([("result", result)], count)),
        )?;
        reloads(&mut page, &self.source.reloads())?;
        page.counters(
            "cpra_watchdog_pings",
            "Pings of the dead man's switch by result; withheld are those that were due while the daemon was not healthy",
            PINGS.into_iter().zip(self.source.pings()).map(|(result, count)| ([("result", result)], count)),
        )?;
        page.counter("cpra_stalls", "Times a shard's loop stood still for more than 250 ms", shards.stalls)?;
        page.info("cpra_build", "The running version", &[("version", env!("CARGO_PKG_VERSION"))])?;
        let started = self.source.wall_of(self.source.started());
        process(&mut page, Process::read(), started.as_micros() as f64 / 1e6)
    }
}

fn reloads(page: &mut Page<'_>, reloads: &reload::Board) -> fmt::Result {
    page.counters(
        "cpra_reloads",
        "Times that the files were read again, by what came of it; a dry run is none",
        reload::Outcome::ALL
            .into_iter()
            .zip(reloads.counts)
            .map(|(outcome, count)| ([("result", outcome.as_str())], count)),
    )?;
    page.gauge(
        "cpra_config_last_reload_successful",
        "1: what runs is what the files said when they were read last; 0: they were refused",
        u64::from(reloads.is_current()),
    )?;
    let Some(at) = reloads.last_success else { return Ok(()) };
    page.gauge_in(
        "cpra_config_last_reload",
        "When the files that run now were read, since 1970; absent until there was a reload",
        &Unit::Seconds,
        &(at.as_micros() as f64 / 1e6),
    )
}

fn monitors(page: &mut Page<'_>, shards: &ShardStats) -> fmt::Result {
    page.gauges(
        "cpra_monitors",
        "Monitors by their exclusive state; sums to all that are loaded",
        STATES.into_iter().zip(shards.monitors).map(|(state, count)| ([("state", state)], count)),
    )?;
    page.gauges(
        "cpra_monitors_overlay",
        "Monitors with a property beside their state",
        [([("overlay", "degraded")], shards.degraded)],
    )?;
    page.gauge(
        "cpra_monitors_lost",
        "Enabled monitors that the last audit could not find; anything but 0 is a defect",
        shards.lost,
    )
}

fn checks(page: &mut Page<'_>, shards: &ShardStats) -> fmt::Result {
    page.counters(
        "cpra_checks",
        "Judged checks by type and outcome",
        CheckKind::ALL.into_iter().zip(&shards.checks).flat_map(|(kind, by_code)| {
            Code::ALL
                .into_iter()
                .zip(by_code)
                .map(move |(code, &count)| ([("type", kind.as_str()), ("outcome", code.as_str())], count))
        }),
    )?;
    page.counter(
        "cpra_checks_missed",
        "Due times that passed while the monitor waited for a free worker",
        shards.missed,
    )?;
    page.counters(
        "cpra_checks_skipped",
        "Due times that passed while the monitor's check was still in flight",
        [([("reason", "busy")], shards.skipped_busy)],
    )?;
    page.counter(
        "cpra_checks_overdue",
        "Checks that took so much longer than their type that they were moved to the suspects' workers",
        shards.overdue,
    )?;
    page.counters(
        "cpra_checks_held",
        "Checks that waited because no more echo requests (or SYNs of half-open checks) may leave in a second",
        PACKETS.into_iter().zip(shards.held).map(|(packet, count)| ([("bound", packet)], count)),
    )?;
    page.histogram("cpra_schedule_lag", "From the due time until the check left the waiting room", &shards.lag)?;
    page.histogram("cpra_pulse_latency", "From the due time until the check was judged", &shards.latency)?;
    page.histograms(
        "cpra_check_duration",
        "The attempts themselves, by type",
        CheckKind::ALL
            .into_iter()
            .zip(&shards.duration)
            .map(|(kind, histogram)| ([("type", kind.as_str())], histogram)),
    )?;
    page.histogram(
        "cpra_connect_rtt",
        "From the SYN until the connection stood, by the kernel's clock, of the connects that it was known of",
        &shards.connect_rtt,
    )
}

fn pipelines(page: &mut Page<'_>, pipelines: &[Pipeline]) -> fmt::Result {
    let by_pipeline = |count: fn(&Pipeline) -> u64| {
        pipelines.iter().map(move |pipeline| ([("pipeline", pipeline.name)], count(pipeline)))
    };
    page.gauges("cpra_queue_depth", "What waits, by pipeline", by_pipeline(|pipeline| pipeline.waiting))?;
    page.gauges(
        "cpra_inflight",
        "What has been started and has not ended, by pipeline",
        by_pipeline(|pipeline| pipeline.in_flight),
    )?;
    page.gauges(
        "cpra_slo_unreachable",
        "1 while what is promised is not kept with all the workers that there may be",
        by_pipeline(|pipeline| u64::from(pipeline.is_unreachable())),
    )?;
    // A class is a type of checks or one of few others: the labels have no end of values.
    let classes = || {
        pipelines.iter().flat_map(|pipeline| {
            pipeline.classes.iter().map(|report| ([("pipeline", pipeline.name), ("class", report.class)], report))
        })
    };
    page.gauges(
        "cpra_pipeline_workers",
        "The workers that there are: jobs that may run at the same time",
        classes().map(|(labels, report)| (labels, u64::from(report.workers))),
    )?;
    page.gauges(
        "cpra_pipeline_arrival_rate",
        "Jobs a second",
        classes().map(|(labels, report)| (labels, report.arrivals.rate)),
    )?;
    page.gauges(
        "cpra_pipeline_utilization",
        "The share of the workers that the jobs keep busy",
        classes().map(|(labels, report)| (labels, report.utilisation())),
    )?;
    page.gauges(
        "cpra_pipeline_scv",
        "Squared coefficients of variation of arrivals and services",
        classes().flat_map(|(labels, Report { arrivals, answer, .. })| {
            [("arrivals", arrivals.scv), ("service", answer.service_scv)]
                .map(|(of, scv)| (with(labels, ("of", of)), scv))
        }),
    )?;
    page.gauges_in(
        "cpra_pipeline_service_time",
        "How long a worker is busy with one job, over the last seconds",
        &Unit::Seconds,
        classes().flat_map(|(labels, report)| {
            let mean = (with(labels, ("stat", "mean")), report.answer.service);
            std::iter::once(mean).chain(percentiles(labels, &report.service_times))
        }),
    )?;
    page.gauges_in(
        "cpra_pipeline_predicted_wait",
        "How long a job waits for a worker by the model; missing where the queue would have no end",
        &Unit::Seconds,
        classes().flat_map(|(labels, Report { answer, .. })| {
            [("mean", answer.mean_wait), ("slo", answer.wait)]
                .map(|(stat, wait)| (with(labels, ("stat", stat)), wait))
                .into_iter()
                .filter(|(_, wait)| wait.is_finite())
        }),
    )?;
    page.gauges_in(
        "cpra_pipeline_measured_wait",
        "How long jobs have waited for a worker, over the last seconds",
        &Unit::Seconds,
        classes().flat_map(|(labels, report)| percentiles(labels, &report.waits)),
    )
}

type Label = (&'static str, &'static str);

fn with([first, second]: [Label; 2], third: Label) -> [Label; 3] {
    [first, second, third]
}

fn percentiles(labels: [Label; 2], percentiles: &Percentiles) -> impl Iterator<Item = ([Label; 3], f64)> + use<> {
    percentiles.known().into_iter().flat_map(move |Percentiles { p50, p95, p99, p999 }| {
        [("p50", p50), ("p95", p95), ("p99", p99), ("p999", p999)]
            .map(|(stat, time)| (with(labels, ("stat", stat)), time.as_secs_f64()))
    })
}

fn echoes(page: &mut Page<'_>, echoes: &EchoStats) -> fmt::Result {
    page.counters(
        "cpra_icmp_packets",
        "Echo requests that left, and what came back for them (replies and errors)",
        [([("direction", "out")], echoes.sent), ([("direction", "in")], echoes.received)],
    )?;
    page.counter(
        "cpra_icmp_signalled",
        "Of what came back for echo requests, what eBPF programs measured and told; sockets took the others",
        echoes.signalled,
    )?;
    page.counter(
        "cpra_signals_strange",
        "Answers that name a request of ours and are none to it: double, late or made up; left to the host",
        echoes.strange,
    )?;
    page.counter(
        "cpra_signals_overflowed",
        "Answers for which the ring between eBPF programs and us had no room; found otherwise",
        echoes.overflowed,
    )?;
    page.counter("cpra_icmp_forged", "Packets made up to look like answers to our echo requests", echoes.forged)?;
    page.counter(
        "cpra_icmp_dropped",
        "Echo replies that this host dropped for want of room; what timed out meanwhile is void",
        echoes.dropped,
    )
}

fn notices(page: &mut Page<'_>, desk: &DeskStats) -> fmt::Result {
    let by_provider = Color::ALL.into_iter().zip(&desk.notices).flat_map(|(color, by_provider)| {
        Provider::NAMES.into_iter().zip(by_provider).map(move |(provider, by_result)| (color, provider, by_result))
    });
    // Providers that nobody uses would be lines without end; the log is there from the beginning.
    let used = by_provider.filter(|(_, provider, by_result)| *provider == "log" || by_result.iter().any(|&n| n > 0));
    page.counters(
        "cpra_notices",
        "Attempts to deliver notices by color, provider and result",
        used.flat_map(|(color, provider, by_result)| {
            DeliveryResult::ALL.into_iter().zip(by_result).map(move |(result, &count)| {
                ([("color", color.as_str()), ("provider", provider), ("result", result.as_str())], count)
            })
        }),
    )?;
    page.counter(
        "cpra_notices_nondurable",
        "Notices that left before they were durable, because the store did not answer",
        desk.nondurable,
    )?;
    page.gauge("cpra_episodes_open", "Episodes that have been opened and not closed", desk.episodes_open)
}

fn outbox(page: &mut Page<'_>, desk: &DeskStats, now: Instant) -> fmt::Result {
    page.gauges(
        "cpra_outbox",
        "Notices that are to be delivered or could not be, by where they are; sums to all of them",
        OutboxState::ALL.into_iter().zip(desk.outbox).map(|(state, count)| ([("state", state.as_str())], count)),
    )?;
    let oldest = desk.oldest_notice.map_or(0.0, |since| now.since(since).as_secs_f64());
    page.gauge_in(
        "cpra_outbox_oldest",
        "How long the oldest notice that is not dead has been to be delivered; 0 when there is none",
        &Unit::Seconds,
        &oldest,
    )
}

fn store(page: &mut Page<'_>, store: &StoreStats) -> fmt::Result {
    page.counter("cpra_store_commits", "Transactions of the store; each may hold many changes", store.commits)?;
    page.histogram("cpra_store_commit", "From the first record of a transaction until the disk had it", &store.commit)?;
    page.counter("cpra_store_failures", "Attempts to write the store that failed; they are repeated", store.failures)?;
    page.gauge(
        "cpra_store_durable",
        "1 while what is committed survives this process, 0 while the store cannot be written, or is in memory",
        u64::from(store.is_durable),
    )?;
    page.gauge(
        "cpra_store_waiting",
        "Records that are not committed, and groups of them in the queue before",
        store.waiting + store.queued,
    )?;
    page.counter(
        "cpra_store_dropped",
        "Records of history that were given up, because the store could not be written for long",
        store.dropped,
    )?;
    page.gauge_in("cpra_store", "The store's file and its log", &Unit::Bytes, &store.bytes)
}

fn names(page: &mut Page<'_>, resolver: &ResolverStats) -> fmt::Result {
    page.counters(
        "cpra_resolver_queries",
        "Names looked up by asking name servers, by result",
        [("found", resolver.found), ("not_found", resolver.not_found), ("failed", resolver.failed)]
            .into_iter()
            .map(|(result, count)| ([("result", result)], count)),
    )?;
    page.counter(
        "cpra_resolver_stale",
        "Answers with addresses whose time was up, because the name servers failed or were slow",
        resolver.stale,
    )?;
    page.histogram("cpra_resolver_latency", "Looking a name up, waiting for its turn included", &resolver.latency)
}

/// Under the names that every exporter uses for them.
fn process(page: &mut Page<'_>, process: Process, started: f64) -> fmt::Result {
    if let Some(bytes) = process.resident_bytes {
        page.gauge_in("process_resident_memory", "Resident memory", &Unit::Bytes, &bytes)?;
    }
    if let Some(bytes) = process.virtual_bytes {
        page.gauge_in("process_virtual_memory", "Virtual memory", &Unit::Bytes, &bytes)?;
    }
    if let Some(count) = process.open_fds {
        page.gauge("process_open_fds", "Open file descriptors", count)?;
    }
    if let Some(count) = process.max_fds {
        page.gauge("process_max_fds", "Most file descriptors that may be open", count)?;
    }
    if let Some(count) = process.threads {
        page.gauge("process_threads", "Threads", count)?;
    }
    if let Some(seconds) = process.cpu_seconds {
        page.encoder
            .encode_descriptor("process_cpu", "User and system time spent", Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
    }
    page.gauge_in("process_start_time", "Start of the process since the Unix epoch", &Unit::Seconds, &started)
}

/// The encoder with one method per shape of a metric. Names come without the `_total` that the format demands.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauge_in(&mut self, name: &str, help: &str, unit: &Unit, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?.encode_gauge(value)
    }

    fn gauges<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([Label; N], V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauges_in<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        series: impl IntoIterator<Item = ([Label; N], f64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), histogram.count(), &buckets(histogram), None)
    }

    fn histograms<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([(&'static str, &'static str); N], &'a Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, histogram) in series {
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum.as_secs_f64(),
                histogram.count(),
                &buckets(histogram),
                None,
            )?;
        }
        Ok(())
    }
}

/// Upper bounds in seconds with what fell between; the encoder adds them up.
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    // Division by a power of ten gives the float nearest to the decimal bound; multiplication by 1e-6 does not.
    let bounds = BUCKETS_US.iter().map(|&micros| micros as f64 / 1e6).chain([f64::INFINITY]);
    bounds.zip(histogram.counts).collect()
}
