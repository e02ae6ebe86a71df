//! `/api/v1/monitors/{name}/history`: what happened to a monitor, who was told, and what came back. Newest first.
//!
//! The store's file is read on a thread of its own, of which there are few at a time; what is open and what is still to be
//! delivered the desk says. What one of them does not answer is missing, and named.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use tokio::sync::Semaphore;

use super::App;
use super::failure::{Failure, answered};
use super::monitors::unknown;
use super::view::{ClosedView, DeliveryView, EpisodeView, HistoryQuery, HistoryView, NoticeView};
use crate::desk::protocol::{Answer, Question, Selection};
use crate::os::lane::aside;
use crate::store::{ClosedEpisode, Deliveries, DeliveryRow, Reader};
use crate::units::limits::{API_HISTORY_DEFAULT, API_HISTORY_READERS_MAX, API_PAGE_MAX};

const SUFFIX: &str = "/history";

/// How many may read the store's file at the same time.
#[derive(Debug)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(API_HISTORY_READERS_MAX)))
    }
}

/// The name, still encoded, of a path whose last part as it was sent says that the history is meant.
pub(super) fn split(path: &str) -> Option<&str> {
    path.strip_prefix(super::change::PREFIX)?.strip_suffix(SUFFIX).filter(|name| !name.is_empty())
}

pub(super) async fn history(
    app: &App,
    name: &str,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryView>, Failure> {
    let Query(HistoryQuery { limit }) =
        query.map_err(|error| Failure::bad_request(error.body_text(), "use ?limit=50, or nothing"))?;
    let limit = limit.unwrap_or(API_HISTORY_DEFAULT);
    if !(1..=API_PAGE_MAX).contains(&limit) {
        let error = format!("limit={limit} is not from 1 to {API_PAGE_MAX}");
        return Err(Failure::bad_request(error, "what is older is in the store's file"));
    }
    let source = &*app.source;
    let catalog = source.catalog();
    let id = catalog.find(name);
    let mut faults = Vec::new();
    let past = match source.history() {
        None => None,
        Some(reader) => match past(&app.readers, reader, name, limit).await {
            Ok(past) => Some(past),
            Err(fault) => {
                faults.push(fault);
                None
            }
        },
    };
    let is_kept = past.is_some();
    let (closed, deliveries) = past.unwrap_or_default();
    if id.is_none() && closed.is_empty() && deliveries.is_empty() {
        return Err(unknown(&catalog, name).await);
    }
    let mut open = None;
    if let Some(id) = id {
        match answered("the desk", source.desk(Question::Monitor(id))).await {
            Ok(Answer::Monitor(episode)) => open = episode.map(|episode| EpisodeView::of(&episode, &catalog)),
            Ok(_) => {}
            Err(failure) => faults.push(failure.error),
        }
    }
    let mut undelivered = Vec::new();
    match answered("the desk", source.desk(Question::Outbox(Selection::All, API_PAGE_MAX))).await {
        Ok(Answer::Outbox(notices)) => {
            let now = source.wall_of(source.now());
            let ours = notices.iter().filter(|notice| *notice.monitor == *name);
            undelivered.extend(ours.map(|notice| NoticeView::of(notice, now)));
            if notices.len() == API_PAGE_MAX {
                faults.push(format!("only the oldest {API_PAGE_MAX} notices of the outbox were looked at"));
            }
        }
        Ok(_) => {}
        Err(failure) => faults.push(failure.error),
    }
    faults.dedup();
    Ok(Json(HistoryView {
        monitor: name.to_owned(),
        is_loaded: id.is_some(),
        is_kept,
        open,
        undelivered,
        closed: closed.iter().map(|episode| ClosedView::of(episode, source.instance())).collect(),
        deliveries: deliveries.iter().map(DeliveryView::of).collect(),
        faults,
    }))
}

/// What the store has of a monitor, or why it cannot be read.
async fn past(
    readers: &Readers,
    reader: Reader,
    name: &str,
    limit: usize,
) -> Result<(Vec<ClosedEpisode>, Vec<DeliveryRow>), String> {
    let Ok(permit) = Arc::clone(&readers.0).try_acquire_owned() else {
        return Err("too many read the store at the same time: ask again".to_owned());
    };
    let name: Box<str> = name.into();
    let read = move || {
        let _permit = permit;
        let closed = reader.closed_episodes(Some(&name), None, limit);
        let deliveries = reader.deliveries(&Deliveries::OfMonitor(name), None, limit);
        Ok(closed.and_then(|closed| deliveries.map(|deliveries| (closed, deliveries))))
    };
    match aside(read).await {
        Ok(Ok(past)) => Ok(past),
        Ok(Err(fault)) => Err(format!("the store cannot be read: {fault}; {}", fault.remedy())),
        Err(error) => Err(format!("the store cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_last_part_as_it_was_sent_means_the_history() {
        assert_eq!(split("/api/v1/monitors/shop/web/history"), Some("shop/web"));
        assert_eq!(split("/api/v1/monitors/history/history"), Some("history"));
        for none in ["/api/v1/monitors/history", "/api/v1/monitors/a%2Fhistory", "/api/v1/monitors//history/"] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
