//! Notices, destinations and what is asked about them, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::desk::DeskStats;
use crate::desk::protocol::{Delivered, OutboxState, OutboxView};
use crate::domain::Destination;
use crate::units::{Instant, Timestamp};

/// The query of `/api/v1/outbox` and what stands below it.
#[derive(Debug, Default, Deserialize)]
pub struct OutboxQuery {
    pub id: Option<u64>,
    pub dead: Option<bool>,
    /// The name of a destination.
    pub to: Option<String>,
    pub all: Option<bool>,
    pub limit: Option<usize>,
}

/// The query of `/api/v1/notify/test`.
#[derive(Deserialize)]
pub struct TestQuery {
    pub to: Option<String>,
    pub color: Option<String>,
}

#[derive(Serialize)]
pub struct OutboxListView {
    pub outbox: OutboxCount,
    /// Oldest first.
    pub notices: Vec<NoticeView>,
    /// There are more than these.
    pub more: bool,
}

/// What is in the outbox, in numbers.
#[derive(Serialize)]
pub struct OutboxCount {
    pub states: BTreeMap<&'static str, u64>,
    /// All that are not dead.
    pub undelivered: u64,
    /// How long the oldest of these has been to be delivered; `null` where there is none.
    pub oldest_seconds: Option<f64>,
}

impl OutboxCount {
    pub fn of(desk: &DeskStats, now: Instant) -> Self {
        let states = OutboxState::ALL.into_iter().map(|state| (state.as_str(), desk.outbox[state as usize])).collect();
        let alive = OutboxState::ALL.into_iter().filter(|state| *state != OutboxState::Dead);
        Self {
            states,
            undelivered: alive.map(|state| desk.outbox[state as usize]).sum(),
            oldest_seconds: desk.oldest_notice.map(|since| now.since(since).as_secs_f64()),
        }
    }
}

/// One message to one destination.
#[derive(Serialize)]
pub struct NoticeView {
    pub id: u64,
    pub destination: String,
    pub provider: &'static str,
    pub monitor: String,
    pub incident: String,
    pub color: &'static str,
    pub summary: String,
    /// When what it tells of happened, and how long ago that is.
    pub at: String,
    pub age_seconds: f64,
    /// `waiting`, `outstanding`, `pausing`, `dead` or `done`.
    pub state: &'static str,
    pub attempts: u32,
    /// What came of the last attempt of this process; `null` before it.
    pub last: Option<DeliveredView>,
    /// When it is tried again, where that is known.
    pub next: Option<String>,
}

/// What came of an attempt.
#[derive(Serialize)]
pub struct DeliveredView {
    /// `sent`, `fallback`, `failed`, `unsure` or `refused`.
    pub result: &'static str,
    pub said: String,
    /// For how long nothing at all is wanted there.
    pub after_seconds: Option<f64>,
}

impl DeliveredView {
    pub fn of(delivered: &Delivered) -> Self {
        Self {
            result: delivered.result.as_str(),
            said: delivered.said.to_string(),
            after_seconds: delivered.after.map(crate::units::Span::as_secs_f64),
        }
    }
}

impl NoticeView {
    pub fn of(notice: &OutboxView, now: Timestamp) -> Self {
        Self {
            id: notice.id.0,
            destination: notice.destination.to_string(),
            provider: notice.provider,
            monitor: notice.monitor.to_string(),
            incident: notice.incident.to_string(),
            color: notice.color.as_str(),
            summary: notice.summary.to_string(),
            at: notice.at.to_string(),
            age_seconds: now.since(notice.at).as_secs_f64(),
            state: notice.state.map_or("done", OutboxState::as_str),
            attempts: notice.attempts,
            last: notice.last.as_ref().map(DeliveredView::of),
            next: notice.next.map(|next| next.to_string()),
        }
    }
}

/// The answer to a change of the outbox.
#[derive(Serialize)]
pub struct OutboxChangedView {
    /// `retry` or `drop`.
    pub done: &'static str,
    /// To so many notices.
    pub notices: u64,
}

#[derive(Serialize)]
pub struct DestinationsView {
    pub destinations: Vec<DestinationView>,
}

#[derive(Serialize)]
pub struct DestinationView {
    pub name: String,
    pub provider: &'static str,
    /// It has a name of its own in `[providers.NAME]`.
    pub named: bool,
    /// How many different ones go by this name: more than one only where monitors say by themselves where to.
    pub same_name: usize,
}

impl DestinationView {
    pub fn of(destination: &Destination, named: bool, same_name: usize) -> Self {
        Self { name: destination.name.to_string(), provider: destination.provider.as_str(), named, same_name }
    }
}

/// The answer to a test: `/api/v1/notices/{notice}` tells what becomes of it.
#[derive(Serialize)]
pub struct QueuedView {
    pub notice: u64,
    pub destination: String,
    pub provider: &'static str,
}
