//! `/api/v1/monitors` and `/api/v1/monitors/{name}`.
//!
//! Names and settings come from the catalog, which nobody has to be asked for; states are asked for shard by shard, in
//! slices that a step can answer. A search looks at a bounded number of names before it lets other requests in.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use tokio::task::yield_now;

use super::App;
use super::failure::{Failure, answered};
use super::guard::shortened;
use super::nearness;
use super::source::Source;
use super::view::{AboutView, EpisodeView, MonitorDetailView, MonitorView, PageQuery, PageView};
use crate::desk::protocol::{Answer, Question};
use crate::shard::protocol::MonitorState;
use crate::units::MonitorId;
use crate::units::limits::{API_PAGE_DEFAULT, API_PAGE_MAX, API_SCAN_SLICE, REPORT_SLICE_MAX};
use crate::world::Catalog;

pub(super) async fn page(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<PageView>, Failure> {
    let Query(query) = query
        .map_err(|error| Failure::bad_request(error.body_text(), "use ?limit=100&cursor=last-name&q=part-of-name"))?;
    let limit = query.limit.unwrap_or(API_PAGE_DEFAULT);
    if !(1..=API_PAGE_MAX).contains(&limit) {
        return Err(Failure::bad_request(
            format!("limit={limit} is not from 1 to {API_PAGE_MAX}"),
            "ask for a page, and for the next one with its cursor",
        ));
    }
    let source = &*app.source;
    let catalog = source.catalog();
    let cursor = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let (ids, more) = matching(&catalog, cursor, query.q.as_deref().unwrap_or(""), limit).await;
    let states = states_of(source, &ids).await?;
    let next_cursor = ids.last().filter(|_| more).map(|&last| catalog.name(last).to_owned());
    let monitors = ids.iter().map(|&id| MonitorView::of(id, &catalog, states.get(&id), source)).collect();
    Ok(Json(PageView { monitors, total: catalog.len(), next_cursor }))
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<MonitorDetailView>, Failure> {
    let Path(name) = name.map_err(|_| {
        Failure::bad_request("the name in the path is not UTF-8", "percent-encode the bytes of the UTF-8 name")
    })?;
    let source = &*app.source;
    let catalog = source.catalog();
    let Some(id) = catalog.find(&name) else { return Err(unknown(&catalog, &name).await) };
    let states = states_of(source, &[id]).await?;
    let episode = match answered("the desk", source.desk(Question::Monitor(id))).await? {
        Answer::Monitor(Some(episode)) => Some(EpisodeView::of(&episode, &catalog)),
        Answer::Monitor(None) | Answer::Episodes(_) | Answer::Recent(_) => None,
    };
    let monitor = MonitorView::of(id, &catalog, states.get(&id), source);
    let about = AboutView::of(&catalog.policy(id).about);
    Ok(Json(MonitorDetailView { monitor, about, episode }))
}

async fn unknown(catalog: &Catalog, name: &str) -> Failure {
    let near = nearness::nearest(catalog, name).await;
    let remedy = match near.as_slice() {
        [] => "see /api/v1/monitors?q=part-of-name".to_owned(),
        names => {
            let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("did you mean {}?", quoted.join(" or "))
        }
    };
    Failure::new(StatusCode::NOT_FOUND, format!("there is no monitor \"{}\"", shortened(name)), remedy)
}

/// The ids of a page, in the order of names, and whether another one follows.
async fn matching(catalog: &Catalog, cursor: Option<&str>, part: &str, limit: usize) -> (Vec<MonitorId>, bool) {
    let mut page = Vec::with_capacity(limit.min(catalog.len()));
    for (looked_at, id) in catalog.ids_after(cursor).enumerate() {
        if looked_at % API_SCAN_SLICE == API_SCAN_SLICE - 1 {
            yield_now().await;
        }
        if !catalog.name(id).contains(part) {
            continue;
        }
        if page.len() == limit {
            return (page, true);
        }
        page.push(id);
    }
    (page, false)
}

async fn states_of(source: &dyn Source, ids: &[MonitorId]) -> Result<BTreeMap<MonitorId, MonitorState>, Failure> {
    let mut by_shard: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    for id in ids {
        by_shard.entry(id.shard()).or_default().push(id.index());
    }
    let mut states = BTreeMap::new();
    for (shard, indices) in by_shard {
        for slice in indices.chunks(REPORT_SLICE_MAX) {
            let answer = answered(&format!("shard {shard}"), source.states(shard, slice.to_vec())).await?;
            states.extend(answer.into_iter().map(|state| (state.monitor, state)));
        }
    }
    Ok(states)
}
