//! Notices, destinations and what is asked about them, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::source::Source;
use crate::desk::DeskStats;
use crate::desk::protocol::{Delivered, OutboxState, OutboxView};
use crate::domain::Destination;
use crate::store::StoreStats;
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

/// What keeps the past, and what must survive.
#[derive(Serialize)]
pub struct StoreView {
    /// What is committed now survives this process.
    pub durable: bool,
    pub last_commit: Option<String>,
    /// Since when something waits that is not committed.
    pub waiting_seconds: Option<f64>,
    /// What is wrong with it, and what to do.
    pub trouble: Option<String>,
}

impl StoreView {
    pub fn of(store: &StoreStats, source: &dyn Source) -> Self {
        Self {
            durable: store.is_durable,
            last_commit: store.last_commit.map(|at| source.wall_of(at).to_string()),
            waiting_seconds: store.waiting_since.map(|since| source.now().since(since).as_secs_f64()),
            trouble: store.trouble.as_deref().map(str::to_owned),
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
    /// How many go by this name. Where it is not `named`, and more than one, none of them can be asked for.
    pub same_name: usize,
}

impl DestinationView {
    pub fn of(destination: &Destination, named: bool, same_name: usize) -> Self {
        Self { name: destination.name.to_string(), provider: destination.provider.as_str(), named, same_name }
    }
}

/// The answer to a test: `/api/v1/notices/{id}` tells what becomes of each.
#[derive(Serialize)]
pub struct QueuedView {
    /// More than one where the name stands for several: a number for each person, say.
    pub notices: Vec<u64>,
    pub destination: String,
    pub provider: &'static str,
}
