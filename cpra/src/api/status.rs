//! `/healthz`, `/readyz`, `/metrics` and `/api/v1/status`: how the daemon itself is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{self, HeaderMap};
use axum::http::{StatusCode, header::ACCEPT};
use axum::response::{IntoResponse, Response};

use super::App;
use super::failure::{Failure, answered};
use super::metrics::CONTENT_TYPE;
use super::view::{
    ApiCount, ChangeView, ChecksCount, EpisodeView, MonitorsCount, NoticesCount, OutboxCount, PipelineBrief, Quantiles,
    ReadinessView, StatusView, StoreView,
};
use crate::desk::DeskStats;
use crate::desk::protocol::{Answer, DeliveryResult, Question};
use crate::shard::ShardStats;
use crate::shard::protocol::{BUCKETS_US, Histogram, STATES};
use crate::units::limits::API_STATUS_LIST_MAX;
use crate::world::Catalog;

pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.source.alive() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

pub(super) async fn readiness(State(app): State<Arc<App>>) -> Response {
    let view = ReadinessView::from(app.source.readiness());
    let status = if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view)).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    let text = app.metrics.text().map_err(|_| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written", "report this as a defect")
    })?;
    // A browser would save the proper type to a file. No scraper asks for HTML.
    let browser = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|a| a.contains("text/html"));
    let content_type = if browser { "text/plain; charset=utf-8" } else { CONTENT_TYPE };
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Json<StatusView> {
    let source = &*app.source;
    let catalog = source.catalog();
    let mut faults = Vec::new();
    // Asked together: a desk that stands still costs one patience, not two. And what else is known is still told.
    let (episodes, changes) = tokio::join!(
        answered("the desk", source.desk(Question::Episodes(API_STATUS_LIST_MAX))),
        answered("the desk", source.desk(Question::Recent(API_STATUS_LIST_MAX))),
    );
    let episodes = kept(episodes, &mut faults, |answer| episode_views(answer, &catalog));
    let changes = kept(changes, &mut faults, |answer| change_views(answer, &catalog));
    let (shards, desk, pipelines) = (source.shard_stats(), source.desk_stats(), source.pipelines());
    Json(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        instance: source.instance().to_owned(),
        now: source.wall_of(source.now()).to_string(),
        started: source.wall_of(source.started()).to_string(),
        uptime_seconds: source.now().since(source.started()).as_secs_f64(),
        readiness: source.readiness().into(),
        monitors: monitors_count(&shards),
        checks: ChecksCount {
            total: shards.checks.iter().flatten().sum(),
            missed: shards.missed,
            skipped_busy: shards.skipped_busy,
            in_flight: shards.in_flight,
            slots: shards.slots,
        },
        lag_seconds: quantiles(&shards.lag),
        latency_seconds: quantiles(&shards.latency),
        queues: pipelines.iter().map(|pipeline| (pipeline.name, pipeline.waiting)).collect(),
        pipelines: pipelines.iter().map(PipelineBrief::of).collect(),
        notices: notices_count(&desk),
        outbox: OutboxCount::of(&desk, source.now()),
        store: StoreView::of(&source.store_stats(), source),
        episodes_open: desk.episodes_open,
        episodes,
        changes,
        faults,
        api: ApiCount { connections: app.door.connections(), refused: app.door.refused() },
    })
}

fn kept<T>(
    answer: Result<Answer, Failure>,
    faults: &mut Vec<String>,
    view: impl FnOnce(&Answer) -> Option<T>,
) -> Option<T> {
    match answer {
        Ok(answer) => view(&answer),
        Err(failure) => {
            if !faults.contains(&failure.error) {
                faults.push(failure.error);
            }
            None
        }
    }
}

fn episode_views(answer: &Answer, catalog: &Catalog) -> Option<Vec<EpisodeView>> {
    let Answer::Episodes(episodes) = answer else { return None };
    Some(episodes.iter().take(API_STATUS_LIST_MAX).map(|episode| EpisodeView::of(episode, catalog)).collect())
}

fn change_views(answer: &Answer, catalog: &Catalog) -> Option<Vec<ChangeView>> {
    let Answer::Recent(changes) = answer else { return None };
    Some(changes.iter().take(API_STATUS_LIST_MAX).map(|change| ChangeView::of(change, catalog)).collect())
}

fn monitors_count(shards: &ShardStats) -> MonitorsCount {
    MonitorsCount {
        total: shards.monitors.iter().sum(),
        states: STATES.into_iter().zip(shards.monitors).collect(),
        degraded: shards.degraded,
        lost: shards.lost,
    }
}

fn notices_count(desk: &DeskStats) -> NoticesCount {
    let total = |result: usize| desk.notices.iter().flatten().map(|by_result| by_result[result]).sum();
    NoticesCount {
        results: DeliveryResult::ALL.into_iter().enumerate().map(|(at, result)| (result.as_str(), total(at))).collect(),
        nondurable: desk.nondurable,
        outstanding: desk.outstanding,
        waiting: desk.waiting,
    }
}

fn quantiles(histogram: &Histogram) -> Quantiles {
    Quantiles { p50: quantile(histogram, 0.50), p99: quantile(histogram, 0.99) }
}

/// As Prometheus' `histogram_quantile`: linear within the bucket, and the greatest bound for all that lies above it.
fn quantile(histogram: &Histogram, share: f64) -> Option<f64> {
    let count = histogram.count();
    if count == 0 {
        return None;
    }
    let rank = share * count as f64;
    let mut below = 0.0;
    for (at, &bound) in BUCKETS_US.iter().enumerate() {
        let within = histogram.counts[at] as f64;
        if within > 0.0 && below + within >= rank {
            let lower = if at == 0 { 0.0 } else { BUCKETS_US[at - 1] as f64 };
            return Some((lower + (bound as f64 - lower) * (rank - below) / within) / 1e6);
        }
        below += within;
    }
    BUCKETS_US.last().map(|&bound| bound as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(quantile(&histogram, 0.5), None);
        for _ in 0..99 {
            histogram.record(Span::from_micros(80));
        }
        histogram.record(Span::from_millis(15));
        assert!(quantile(&histogram, 0.5).is_some_and(|p50| (0.000_05..=0.000_1).contains(&p50)));
        assert_eq!(quantile(&histogram, 0.99), Some(0.000_1));
        assert_eq!(quantile(&histogram, 1.0), Some(0.02));
        histogram.counts = Default::default();
        histogram.record(Span::from_secs(100));
        assert_eq!(quantile(&histogram, 0.5), Some(30.0));
    }
}
