//! `/api/v1/outbox`: the notices that are still to be delivered or could not be, and what people do with them.
//!
//! `retry` and `drop` want to be told which ones: a query without a selection changes nothing. Who did it goes into the
//! log, and by the desk into the store's audit.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;

use super::App;
use super::access::Actor;
use super::failure::{Failure, answered};
use super::guard::shortened;
use super::view::{NoticeView, OutboxChangedView, OutboxCount, OutboxListView, OutboxQuery};
use crate::desk::protocol::{Answer, NoticeId, OutboxChange, Question, Selection};
use crate::units::limits::{API_PAGE_DEFAULT, API_PAGE_MAX};

pub(super) const RETRY: &str = "/api/v1/outbox/retry";
pub(super) const DROP: &str = "/api/v1/outbox/drop";

pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<OutboxQuery>, QueryRejection>,
) -> Result<Json<OutboxListView>, Failure> {
    let query = read(query)?;
    let limit = query.limit.unwrap_or(API_PAGE_DEFAULT);
    if !(1..=API_PAGE_MAX).contains(&limit) {
        let error = format!("limit={limit} is not from 1 to {API_PAGE_MAX}");
        return Err(Failure::bad_request(error, "ask for the oldest ones; more come up when these are done"));
    }
    let selection = selection(query)?.unwrap_or(Selection::All);
    let source = &*app.source;
    // One more than is shown says whether there are more.
    let answer = answered("the desk", source.desk(Question::Outbox(selection, limit + 1))).await?;
    let Answer::Outbox(found) = answer else { return Err(strange()) };
    let now = source.wall_of(source.now());
    Ok(Json(OutboxListView {
        outbox: OutboxCount::of(&source.desk_stats(), source.now()),
        notices: found.iter().take(limit).map(|notice| NoticeView::of(notice, now)).collect(),
        more: found.len() > limit,
    }))
}

pub(super) async fn notice(
    State(app): State<Arc<App>>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<NoticeView>, Failure> {
    let Path(id) =
        id.map_err(|_| Failure::bad_request("that is no number of a notice", "take it from /api/v1/outbox"))?;
    let source = &*app.source;
    match answered("the desk", source.desk(Question::Notice(NoticeId(id)))).await? {
        Answer::Notice(Some(notice)) => Ok(Json(NoticeView::of(&notice, source.wall_of(source.now())))),
        Answer::Notice(None) => Err(unknown(id)),
        _ => Err(strange()),
    }
}

pub(super) async fn retry(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
    query: Result<Query<OutboxQuery>, QueryRejection>,
) -> Result<Json<OutboxChangedView>, Failure> {
    change(&app, OutboxChange::Retry, actor, query).await
}

pub(super) async fn drop(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
    query: Result<Query<OutboxQuery>, QueryRejection>,
) -> Result<Json<OutboxChangedView>, Failure> {
    change(&app, OutboxChange::Drop, actor, query).await
}

async fn change(
    app: &App,
    change: OutboxChange,
    actor: Option<Extension<Actor>>,
    query: Result<Query<OutboxQuery>, QueryRejection>,
) -> Result<Json<OutboxChangedView>, Failure> {
    let Some(Extension(Actor(who))) = actor else {
        // The guard lets nobody through whom it does not know.
        return Err(Failure::new(StatusCode::FORBIDDEN, "it is not known who asks", "see docs/api.md"));
    };
    let done = match change {
        OutboxChange::Retry => "retry",
        OutboxChange::Drop => "drop",
    };
    let Some(selection) = selection(read(query)?)? else {
        let error = format!("it is not said which notices to {done}");
        return Err(Failure::bad_request(error, "add ?id=NUMBER, ?dead=true, ?to=DESTINATION or ?all=true"));
    };
    tracing::info!(
        action = format!("outbox {done}"),
        notices = ?selection,
        actor = &*who,
        "audit: a person changes something"
    );
    let asked = app.source.change_outbox(change, selection.clone(), &who);
    let Answer::Changed(notices) = answered("the desk", asked).await? else { return Err(strange()) };
    match selection {
        Selection::One(id) if notices == 0 => Err(refused(app, id).await),
        _ => Ok(Json(OutboxChangedView { done, notices })),
    }
}

/// Why nothing was done to one notice.
async fn refused(app: &App, id: NoticeId) -> Failure {
    match answered("the desk", app.source.desk(Question::Notice(id))).await {
        Ok(Answer::Notice(Some(notice))) if notice.state.is_some() => Failure::new(
            StatusCode::CONFLICT,
            format!("notice {} cannot be tried again: its incident is over, and nobody would close it there", id.0),
            "drop it",
        ),
        Ok(_) => unknown(id.0),
        Err(failure) => failure,
    }
}

fn read(query: Result<Query<OutboxQuery>, QueryRejection>) -> Result<OutboxQuery, Failure> {
    let Query(query) = query.map_err(|error| {
        let remedy = "use one of ?id=NUMBER, ?dead=true, ?to=DESTINATION and ?all=true";
        Failure::bad_request(error.body_text(), remedy)
    })?;
    Ok(query)
}

/// The one selection that a query may make.
fn selection(query: OutboxQuery) -> Result<Option<Selection>, Failure> {
    let OutboxQuery { id, dead, to, all, limit: _ } = query;
    let made = [
        id.map(|id| Selection::One(NoticeId(id))),
        (dead == Some(true)).then_some(Selection::Dead),
        to.filter(|to| !to.is_empty()).map(|to| Selection::To(to.into())),
        (all == Some(true)).then_some(Selection::All),
    ];
    let mut made = made.into_iter().flatten();
    match (made.next(), made.next()) {
        (one, None) => Ok(one),
        _ => Err(Failure::bad_request(
            "more than one selection: it is not clear which notices are meant",
            "use one of id, dead, to and all",
        )),
    }
}

fn unknown(id: u64) -> Failure {
    let id = id.to_string();
    Failure::new(
        StatusCode::NOT_FOUND,
        format!("there is no notice {} in the outbox", shortened(&id)),
        "see `cpra outbox list` for those that are; what was delivered is in `cpra incident MONITOR`",
    )
}

/// The desk answers with what it was asked for, or this is a defect.
pub(super) fn strange() -> Failure {
    Failure::unavailable("the desk gave an answer to another question", "report this as a defect")
}
