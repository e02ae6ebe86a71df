//! `GET` and `POST /api/v1/reload`: what came of reading the files again, and the wish to do it now.
//!
//! The files are read by a thread of their own; a wish waits for those before it, and few of them may wait. The answer to
//! a `POST` is the report: 200 when it was done or would be (`?dry_run=true`), 409 when the files were refused and the
//! running monitors are what they were.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::access::Actor;
use super::failure::{Failure, answered_within};
use crate::units::limits::RELOAD_ANSWER_MAX;
use crate::units::{Span, Timestamp};
use crate::world::Counts;

pub(super) const PATH: &str = "/api/v1/reload";

/// What somebody wants of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Say what would change, and change nothing.
    pub dry_run: bool,
    /// Also when many monitors go.
    pub force: bool,
    pub who: Box<str>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub at: Timestamp,
    pub who: Box<str>,
    pub dry_run: bool,
    pub outcome: Outcome,
    /// `None` where the files could not be read.
    pub counts: Option<Counts>,
    /// The first names of each kind of change.
    pub examples: Vec<(&'static str, Vec<String>)>,
    /// Why it was refused, with the place in the file.
    pub errors: Vec<String>,
    pub remedy: String,
    /// What is worth knowing beside that: warnings, and keys that count from the next start on.
    pub notes: Vec<String>,
    /// Until the last shard had taken it.
    pub took: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Applied,
    /// The files say what they said before.
    Unchanged,
    Refused,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// What is remembered of reloads. A dry run is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    pub last: Option<Report>,
    /// By [`Outcome`].
    pub counts: [u64; Outcome::ALL.len()],
    /// When the files that run now were read; `None` for those of the start.
    pub last_success: Option<Timestamp>,
}

impl Board {
    pub fn note(&mut self, report: &Report) {
        if report.dry_run {
            return;
        }
        self.counts[report.outcome as usize] += 1;
        if report.outcome != Outcome::Refused {
            self.last_success = Some(report.at);
        }
        self.last = Some(report.clone());
    }

    /// Whether what runs is what the files said when they were read last.
    pub fn is_current(&self) -> bool {
        self.last.as_ref().is_none_or(|last| last.outcome != Outcome::Refused)
    }
}

#[derive(Serialize)]
struct ReportView {
    at: String,
    by: String,
    dry_run: bool,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<serde_json::Map<String, serde_json::Value>>,
    examples: serde_json::Map<String, serde_json::Value>,
    /// As every refusal of this API has one: all of `errors`.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    notes: Vec<String>,
    seconds: f64,
}

impl ReportView {
    fn of(report: Report) -> Self {
        let Report { at, who, dry_run, outcome, counts, examples, errors, remedy, notes, took } = report;
        Self {
            at: at.to_string(),
            by: who.into(),
            dry_run,
            result: outcome.as_str(),
            changes: counts.map(|counts| {
                counts.named().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
            }),
            examples: examples.into_iter().map(|(kind, names)| (kind.to_owned(), names.into())).collect(),
            error: errors.join("; "),
            errors,
            remedy,
            notes,
            seconds: took.as_secs_f64(),
        }
    }
}

#[derive(Serialize)]
struct StandView {
    generation: u64,
    last: Option<ReportView>,
    last_success: Option<String>,
}

/// How it stands.
pub(super) async fn last(State(app): State<Arc<App>>) -> Response {
    let board = app.source.reloads();
    let generation = app.source.catalog().generation();
    let last_success = board.last_success.map(|at| at.to_string());
    Json(StandView { generation, last: board.last.map(ReportView::of), last_success }).into_response()
}

pub(super) async fn reload(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let Some(Extension(actor)) = actor else {
        // The guard lets nobody through whom it does not know.
        return Err(Failure::new(StatusCode::FORBIDDEN, "it is not known who asks", "see docs/api.md"));
    };
    let mut wish = Wish { who: actor.0.to_string().into(), ..Wish::default() };
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let flag = match &*key {
            "dry_run" => &mut wish.dry_run,
            "force" => &mut wish.force,
            _ => return Err(Failure::bad_request("a reload has no such parameter", "there are dry_run and force")),
        };
        *flag = match &*value {
            "" | "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(Failure::bad_request(format!("{key} is true or false"), "leave it out, or write true")),
        };
    }
    tracing::info!(
        action = "reload",
        dry_run = wish.dry_run,
        force = wish.force,
        actor = &*wish.who,
        "audit: a person changes something"
    );
    let report = answered_within(RELOAD_ANSWER_MAX, "the reload", app.source.reload(wish)).await?;
    let status = if report.outcome == Outcome::Refused { StatusCode::CONFLICT } else { StatusCode::OK };
    Ok((status, Json(ReportView::of(report))).into_response())
}
