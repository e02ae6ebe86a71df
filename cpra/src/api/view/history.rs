//! A monitor's past, as JSON.

use serde::{Deserialize, Serialize};

use super::{EpisodeView, NoticeView};
use crate::store::{ClosedEpisode, DeliveryRow};

/// The query of `/api/v1/monitors/{name}/history`.
#[derive(Deserialize)]
pub struct HistoryQuery {
    pub limit: Option<usize>,
}

#[derive(Serialize)]
pub struct HistoryView {
    pub monitor: String,
    /// There is such a monitor now.
    pub is_loaded: bool,
    /// A store has the past; without one only what is open is known.
    pub is_kept: bool,
    pub open: Option<EpisodeView>,
    /// Oldest first.
    pub undelivered: Vec<NoticeView>,
    /// Newest first.
    pub closed: Vec<ClosedView>,
    /// Every attempt to tell somebody, newest first.
    pub deliveries: Vec<DeliveryView>,
    /// What is missing above, and why.
    pub faults: Vec<String>,
}

/// An incident that is over.
#[derive(Serialize)]
pub struct ClosedView {
    pub incident: String,
    pub opened: String,
    pub closed: String,
    pub lasted_seconds: f64,
    pub cause: String,
    /// What was raised.
    pub yellow: bool,
    pub red: bool,
    pub reminders: u32,
}

impl ClosedView {
    pub fn of(closed: &ClosedEpisode, instance: &str) -> Self {
        let ClosedEpisode { number: _, episode, monitor, opened, closed, cause, yellow, red, reminders } = closed;
        Self {
            incident: format!("{instance}/{}/{episode}", monitor.as_deref().unwrap_or_default()),
            opened: opened.to_string(),
            closed: closed.to_string(),
            lasted_seconds: closed.since(*opened).as_secs_f64(),
            cause: cause.to_string(),
            yellow: *yellow,
            red: *red,
            reminders: *reminders,
        }
    }
}

/// An attempt to tell somebody.
#[derive(Serialize)]
pub struct DeliveryView {
    pub at: String,
    pub notice: u64,
    /// The first one is 1.
    pub attempt: u32,
    pub incident: String,
    pub destination: String,
    pub provider: String,
    pub color: String,
    pub summary: String,
    /// `sent`, `fallback`, `failed`, `unsure` or `refused`.
    pub result: String,
    pub said: String,
}

impl DeliveryView {
    pub fn of(row: &DeliveryRow) -> Self {
        Self {
            at: row.at.to_string(),
            notice: row.notice,
            attempt: row.attempt,
            incident: row.incident.to_string(),
            destination: row.destination.to_string(),
            provider: row.provider.to_string(),
            color: row.color.to_string(),
            summary: row.summary.to_string(),
            result: row.result.to_string(),
            said: row.said.to_string(),
        }
    }
}
