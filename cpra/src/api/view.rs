//! The JSON that the API speaks. The only place of the API that names serde; what the domain holds is converted here.
//!
//! Points in time are RFC 3339 in UTC, lengths of time are seconds, everything unknown is `null`.

mod history;
mod outbox;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::history::{ClosedView, DeliveryView, HistoryQuery, HistoryView};
pub use self::outbox::{
    DestinationView, DestinationsView, NoticeView, OutboxChangedView, OutboxCount, OutboxListView, OutboxQuery,
    QueuedView, StoreView, TestQuery,
};
use super::source::{Finding, Pipeline, Readiness, Source, Tightness};
use crate::desk::protocol::{Change, EpisodeView as Episode, StoryKind};
use crate::domain::health::Phase;
use crate::domain::monitor::About;
use crate::domain::{Check, HostRef, Latency, TargetRef};
use crate::queueing::meter::Percentiles;
use crate::queueing::{Goal, Report, Setup};
use crate::shard::protocol::MonitorState;
use crate::units::{MonitorId, Span};
use crate::world::Catalog;

/// The query of `/demo/flaky`.
#[derive(Deserialize)]
pub struct Phases {
    pub up: Option<String>,
    pub down: Option<String>,
}

/// The query of `/api/v1/monitors`.
#[derive(Deserialize)]
pub struct PageQuery {
    pub limit: Option<usize>,
    /// The last name of the page before.
    pub cursor: Option<String>,
    /// Part of the name.
    pub q: Option<String>,
    /// One of the states of `cpra_monitors`.
    pub state: Option<String>,
    /// The name of a group.
    pub group: Option<String>,
}

/// The query of `/api/v1/push/{token}`.
#[derive(Deserialize)]
pub struct PushQuery {
    /// `ok` or `fail`.
    pub status: Option<String>,
    /// The job's own words; else the first line of the body.
    pub msg: Option<String>,
}

#[derive(Serialize)]
pub struct PushView {
    pub monitor: String,
    /// `ok` or `fail`.
    pub taken: &'static str,
}

/// The answer to a change.
#[derive(Serialize)]
pub struct ChangedView {
    pub monitor: String,
    /// `check`, `disable` or `enable`.
    pub done: &'static str,
}

/// The answer to a wish for a dump of histograms.
#[derive(Serialize)]
pub struct DumpView {
    /// The log that they were appended to; `null` when nothing had been recorded.
    pub file: Option<String>,
    /// The same as texts, one for each series.
    pub texts: Vec<String>,
    /// What is in it has been recorded from then on, ...
    pub from: String,
    /// ... for this long.
    pub seconds: f64,
    pub series: Vec<SeriesView>,
    /// Shards that did not answer in time: theirs are in the next dump.
    pub silent_shards: Vec<usize>,
}

#[derive(Serialize)]
pub struct SeriesView {
    pub tag: String,
    pub count: u64,
}

/// The query of `/debug/pprof/profile`.
#[derive(Deserialize)]
pub struct ProfileQuery {
    pub seconds: Option<u64>,
}

#[derive(Serialize)]
pub struct FailureView<'a> {
    pub error: &'a str,
    pub remedy: &'a str,
}

#[derive(Serialize)]
pub struct ReadinessView {
    pub ready: bool,
    pub reasons: Vec<String>,
    pub findings: Vec<FindingView>,
}

#[derive(Serialize)]
pub struct FindingView {
    pub subject: String,
    pub text: String,
    pub remedy: String,
}

impl From<Readiness> for ReadinessView {
    fn from(readiness: Readiness) -> Self {
        let findings = readiness
            .findings
            .into_iter()
            .map(|Finding { subject, text, remedy }| FindingView { subject, text, remedy })
            .collect();
        Self { ready: readiness.ready, reasons: readiness.reasons, findings }
    }
}

#[derive(Serialize)]
pub struct StatusView {
    pub version: &'static str,
    pub instance: String,
    pub now: String,
    pub started: String,
    pub uptime_seconds: f64,
    pub readiness: ReadinessView,
    pub monitors: MonitorsCount,
    pub checks: ChecksCount,
    /// From leaving the waiting room back to the due time, over all checks since the start.
    pub lag_seconds: Quantiles,
    /// From the due time until judged.
    pub latency_seconds: Quantiles,
    pub queues: BTreeMap<&'static str, u64>,
    pub pipelines: Vec<PipelineBrief>,
    pub notices: NoticesCount,
    pub outbox: OutboxCount,
    pub store: StoreView,
    pub episodes_open: u64,
    /// The oldest ones; `null` when the desk did not answer.
    pub episodes: Option<Vec<EpisodeView>>,
    /// The last ones, newest first; `null` when the desk did not answer.
    pub changes: Option<Vec<ChangeView>>,
    /// Why something above is `null`.
    pub faults: Vec<String>,
    pub api: ApiCount,
}

#[derive(Serialize)]
pub struct MonitorsCount {
    pub total: u64,
    pub states: BTreeMap<&'static str, u64>,
    pub degraded: u64,
    pub lost: u64,
}

#[derive(Serialize)]
pub struct ChecksCount {
    pub total: u64,
    pub missed: u64,
    pub skipped_busy: u64,
    pub in_flight: u64,
    pub slots: u64,
}

/// Estimates from histogram buckets; `null` before the first check.
#[derive(Serialize)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Serialize)]
pub struct PipelinesView {
    pub pipelines: Vec<PipelineView>,
}

#[derive(Serialize)]
pub struct PipelineView {
    #[serde(flatten)]
    pub brief: PipelineBrief,
    pub slo: SloView,
    pub workers_min: u32,
    /// Jobs that may wait at the same time.
    pub queue_capacity: usize,
    pub classes: Vec<ClassView>,
}

/// One pipeline at a glance.
#[derive(Serialize)]
pub struct PipelineBrief {
    pub pipeline: &'static str,
    pub workers: u64,
    pub workers_max: u32,
    /// Workers with a job.
    pub busy: u64,
    /// Jobs that have been started and have not ended.
    pub in_flight: u64,
    pub waiting: u64,
    /// What is nearest to the promise, or farthest beyond it; `null` before anything was measured.
    pub tightest: Option<TightestView>,
    /// The promise is not kept with all the workers that there may be.
    pub unreachable: bool,
}

#[derive(Serialize)]
pub struct TightestView {
    pub class: &'static str,
    /// `result` or `wait`.
    pub of: &'static str,
    /// `p50`, `p95` or `p99`.
    pub percentile: &'static str,
    pub measured_seconds: f64,
    pub goal_seconds: f64,
}

#[derive(Serialize)]
pub struct SloView {
    pub within_seconds: f64,
    pub percentile: u8,
    /// What as many may wait, where the service alone takes longer.
    pub wait_seconds: f64,
}

/// What has workers of its own: a type of checks, suspects.
#[derive(Serialize)]
pub struct ClassView {
    pub class: &'static str,
    pub workers: u32,
    pub busy: u32,
    pub waiting: u32,
    pub longest_wait_seconds: f64,
    /// λ.
    pub arrival_rate: f64,
    /// Ca².
    pub arrival_scv: f64,
    /// Cs².
    pub service_scv: f64,
    pub service_seconds: ServiceView,
    pub wait_seconds: PercentilesView,
    /// From when it was due.
    pub result_seconds: PercentilesView,
    /// a = λ/μ, in erlangs.
    pub offered_load: f64,
    /// ρ.
    pub utilization: f64,
    pub goal: GoalView,
    /// What the goal takes, without headroom and bounds.
    pub workers_needed: u32,
    pub met: bool,
    pub unreachable: bool,
}

#[derive(Serialize)]
pub struct ServiceView {
    /// What is assumed, until something was measured.
    pub mean: f64,
    #[serde(flatten)]
    pub percentiles: PercentilesView,
}

#[derive(Serialize)]
pub struct PercentilesView {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
}

/// What is aimed at and what the model says of it; `null` where the workers do not suffice, and the queue grows.
#[derive(Serialize)]
pub struct GoalView {
    /// `result` or `wait`.
    pub of: &'static str,
    pub seconds: f64,
    pub predicted_mean_wait_seconds: f64,
    /// At the promised percentile.
    pub predicted_wait_seconds: f64,
    pub predicted_result_seconds: f64,
}

impl PipelineView {
    pub fn of(pipeline: &Pipeline) -> Self {
        let Setup { slo, bounds, .. } = pipeline.setup;
        Self {
            brief: PipelineBrief::of(pipeline),
            slo: SloView {
                within_seconds: slo.within.as_secs_f64(),
                percentile: slo.percentile,
                wait_seconds: slo.wait.as_secs_f64(),
            },
            workers_min: bounds.min,
            queue_capacity: pipeline.capacity,
            classes: pipeline.classes.iter().map(ClassView::of).collect(),
        }
    }
}

impl PipelineBrief {
    pub fn of(pipeline: &Pipeline) -> Self {
        let tightest =
            pipeline.tightest().map(|Tightness { class, is_wait, percentile, measured, goal }| TightestView {
                class,
                of: if is_wait { "wait" } else { "result" },
                percentile,
                measured_seconds: measured.as_secs_f64(),
                goal_seconds: goal.as_secs_f64(),
            });
        Self {
            pipeline: pipeline.name,
            workers: pipeline.workers(),
            workers_max: pipeline.setup.bounds.max,
            busy: pipeline.busy(),
            in_flight: pipeline.in_flight,
            waiting: pipeline.waiting,
            tightest,
            unreachable: pipeline.is_unreachable(),
        }
    }
}

impl ClassView {
    fn of(report: &Report) -> Self {
        let Report { class, workers, demand, arrivals, answer, service_times, waits, results, unreachable } = report;
        let (of, goal) = match answer.goal {
            Goal::Result(goal) => ("result", goal),
            Goal::Wait(goal) => ("wait", goal),
        };
        Self {
            class,
            workers: *workers,
            busy: demand.busy,
            waiting: demand.waiting,
            longest_wait_seconds: demand.longest_wait.as_secs_f64(),
            arrival_rate: arrivals.rate,
            arrival_scv: arrivals.scv,
            service_scv: answer.service_scv,
            service_seconds: ServiceView { mean: answer.service, percentiles: service_times.into() },
            wait_seconds: waits.into(),
            result_seconds: results.into(),
            offered_load: answer.offered,
            utilization: report.utilisation(),
            goal: GoalView {
                of,
                seconds: goal.as_secs_f64(),
                predicted_mean_wait_seconds: answer.mean_wait,
                predicted_wait_seconds: answer.wait,
                predicted_result_seconds: answer.result,
            },
            workers_needed: answer.needed,
            met: report.is_met(),
            unreachable: *unreachable,
        }
    }
}

impl From<&Percentiles> for PercentilesView {
    fn from(percentiles: &Percentiles) -> Self {
        let seconds = |of: fn(Percentiles) -> Span| percentiles.known().map(|known| of(known).as_secs_f64());
        Self {
            p50: seconds(|known| known.p50),
            p95: seconds(|known| known.p95),
            p99: seconds(|known| known.p99),
            p999: seconds(|known| known.p999),
        }
    }
}

#[derive(Serialize)]
pub struct NoticesCount {
    pub results: BTreeMap<&'static str, u64>,
    pub nondurable: u64,
    pub outstanding: u64,
    pub waiting: u64,
}

#[derive(Serialize)]
pub struct ApiCount {
    pub connections: usize,
    /// Turned away since the start because there were too many.
    pub refused: u64,
}

#[derive(Serialize)]
pub struct EpisodeView {
    pub monitor: String,
    pub incident: String,
    pub state: &'static str,
    pub opened: String,
    pub lasted_seconds: f64,
    pub cause: String,
    pub raised: Vec<RaisedView>,
}

#[derive(Serialize)]
pub struct RaisedView {
    pub color: &'static str,
    pub destinations: usize,
}

impl EpisodeView {
    pub fn of(episode: &Episode, catalog: &Catalog) -> Self {
        Self {
            monitor: name_of(catalog, episode.monitor).to_owned(),
            incident: episode.incident.to_string(),
            state: episode.state,
            opened: episode.opened.to_string(),
            lasted_seconds: episode.lasted.as_secs_f64(),
            cause: episode.cause.to_string(),
            raised: episode
                .raised
                .iter()
                .map(|&(color, destinations)| RaisedView { color: color.as_str(), destinations })
                .collect(),
        }
    }
}

#[derive(Serialize)]
pub struct ChangeView {
    pub at: String,
    /// `null`: about the daemon itself.
    pub monitor: Option<String>,
    /// `up`, or the color that was raised.
    pub what: &'static str,
    pub text: String,
}

impl ChangeView {
    pub fn of(change: &Change, catalog: &Catalog) -> Self {
        Self {
            at: change.at.to_string(),
            monitor: change.monitor.map(|monitor| name_of(catalog, monitor).to_owned()),
            what: what_name(change.what),
            text: change.text.to_string(),
        }
    }
}

#[derive(Serialize)]
pub struct PageView {
    pub monitors: Vec<MonitorView>,
    /// Monitors loaded, whatever the filters say.
    pub total: usize,
    /// Names that were looked at for this page.
    pub scanned: usize,
    /// `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
pub struct MonitorDetailView {
    #[serde(flatten)]
    pub monitor: MonitorView,
    #[serde(flatten)]
    pub about: AboutView,
    pub episode: Option<EpisodeView>,
}

/// What people wrote about the monitor.
#[derive(Serialize)]
pub struct AboutView {
    pub labels: BTreeMap<String, String>,
    pub description: Option<String>,
    pub runbook: Option<String>,
}

impl AboutView {
    pub fn of(about: &About) -> Self {
        Self {
            labels: about.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            description: about.description.as_deref().map(str::to_owned),
            runbook: about.runbook.as_deref().map(str::to_owned),
        }
    }
}

#[derive(Serialize)]
pub struct MonitorView {
    pub name: String,
    /// One of the states of `cpra_monitors`; `null` when the shard knows nothing of it.
    pub state: Option<&'static str>,
    pub degraded: bool,
    pub enabled: bool,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub target: String,
    pub groups: Vec<String>,
    pub interval_seconds: f64,
    pub timeout_seconds: f64,
    pub fails: u8,
    pub unhealthy_threshold: u8,
    pub oks: u8,
    pub healthy_threshold: u8,
    pub last: Option<LastView>,
    pub next_due: Option<String>,
}

/// The last check.
#[derive(Serialize)]
pub struct LastView {
    pub outcome: &'static str,
    pub at: Option<String>,
    pub http_status: Option<u16>,
    /// Kept for monitors that are not ok.
    pub evidence: Option<String>,
    pub latency_seconds: Option<LatencyView>,
}

#[derive(Serialize)]
pub struct LatencyView {
    pub resolve: f64,
    pub connect: f64,
    pub tls: f64,
    pub first_byte: f64,
    pub total: f64,
}

impl From<Latency> for LatencyView {
    fn from(latency: Latency) -> Self {
        Self {
            resolve: latency.resolve.as_secs_f64(),
            connect: latency.connect.as_secs_f64(),
            tls: latency.tls.as_secs_f64(),
            first_byte: latency.first_byte.as_secs_f64(),
            total: latency.total.as_secs_f64(),
        }
    }
}

impl MonitorView {
    /// `id` is one of `catalog`'s.
    pub fn of(id: MonitorId, catalog: &Catalog, state: Option<&MonitorState>, source: &dyn Source) -> Self {
        let policy = catalog.policy(id);
        Self {
            name: catalog.name(id).to_owned(),
            state: state.map(state_name),
            degraded: state.is_some_and(|state| state.degraded),
            enabled: state.map_or_else(
                || catalog.roster(id.shard()).is_enabled(id.index()),
                |state| state.phase != Phase::Disabled,
            ),
            kind: policy.check.kind().as_str(),
            target: target_text(&policy.check, catalog.target(id)),
            groups: policy.groups.iter().map(ToString::to_string).collect(),
            interval_seconds: policy.interval.as_secs_f64(),
            timeout_seconds: policy.timeout.as_secs_f64(),
            fails: state.map_or(0, |state| state.fails),
            unhealthy_threshold: policy.unhealthy_threshold,
            oks: state.map_or(0, |state| state.oks),
            healthy_threshold: policy.healthy_threshold,
            last: state.and_then(|state| {
                Some(LastView {
                    outcome: state.last?.as_str(),
                    at: state.last_at.map(|at| source.wall_of(at).to_string()),
                    http_status: state.status,
                    evidence: state.evidence.as_deref().map(str::to_owned),
                    latency_seconds: state.latency.map(LatencyView::from),
                })
            }),
            next_due: state.and_then(|state| state.next_due).map(|due| source.wall_of(due).to_string()),
        }
    }
}

/// A monitor's name. An id can be of a newer catalog than the one in hand, for the length of a reload.
pub fn name_of(catalog: &Catalog, id: MonitorId) -> &str {
    if catalog.knows(id) { catalog.name(id) } else { "?" }
}

/// One of the states of `cpra_monitors`.
pub fn state_name(state: &MonitorState) -> &'static str {
    if state.obscured {
        return "unknown";
    }
    match state.phase {
        Phase::Unknown | Phase::Unproven => "unknown",
        Phase::Up => "up",
        Phase::Suspect => "suspect",
        Phase::Failing => "down",
        Phase::Disabled => "disabled",
    }
}

const fn what_name(what: StoryKind) -> &'static str {
    match what {
        StoryKind::Up => "up",
        StoryKind::Color(color) => color.as_str(),
    }
}

/// As a URL or `host:port`. The query is left out: that is where people put tokens.
fn target_text(check: &Check, target: TargetRef<'_>) -> String {
    let TargetRef { host, port, path } = target;
    let authority = match host {
        HostRef::Literal(std::net::IpAddr::V6(address)) => format!("[{address}]:{port}"),
        HostRef::Literal(std::net::IpAddr::V4(address)) => format!("{address}:{port}"),
        HostRef::Name(name) => format!("{name}:{port}"),
    };
    match check {
        Check::Tcp(_) => authority,
        Check::Http(http) => {
            let scheme = if http.tls.is_some() { "https" } else { "http" };
            match path.split_once('?') {
                Some((path, _)) => format!("{scheme}://{authority}{path}?…"),
                None => format!("{scheme}://{authority}{path}"),
            }
        }
        Check::Icmp(_) => match host {
            HostRef::Literal(address) => address.to_string(),
            HostRef::Name(name) => name.to_owned(),
        },
        // Arguments may hold passwords: the program has to do.
        Check::Script(script) => script.argv.first().map(ToString::to_string).unwrap_or_default(),
        Check::Dns(dns) => format!("{path} {} @{authority}", dns.record.as_str()),
        // The path is the secret that the job calls with.
        Check::Push(_) => "push".to_owned(),
    }
}
