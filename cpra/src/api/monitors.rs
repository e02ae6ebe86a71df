//! `/api/v1/monitors` and `/api/v1/monitors/{name}`.
//!
//! Names and settings come from the catalog, which nobody has to be asked for; states are asked for shard by shard, in
//! slices that a step can answer. A search looks at a bounded number of names before it lets other requests in, and ends
//! after [`API_SCAN_MAX`] of them ([`API_STATES_SCAN_MAX`] where the shards have to be asked for states) with what it has
//! found and a cursor that goes on from there: a page may be empty and not the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::task::yield_now;

use super::App;
use super::failure::{Failure, answered};
use super::guard::shortened;
use super::source::Source;
use super::view::{
    AboutView, EpisodeView, HistoryQuery, MonitorDetailView, MonitorView, PageQuery, PageView, state_name,
};
use super::{change, history, nearness};
use crate::config::nearest;
use crate::desk::protocol::{Answer, Question};
use crate::shard::protocol::{MonitorState, STATES};
use crate::units::MonitorId;
use crate::units::limits::{
    API_PAGE_DEFAULT, API_PAGE_MAX, API_SCAN_MAX, API_SCAN_SLICE, API_STATES_SCAN_MAX, REPORT_SLICE_MAX,
};
use crate::world::Catalog;

pub(super) async fn page(
    State(app): State<Arc<App>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<PageView>, Failure> {
    let Query(query) = query.map_err(|error| {
        let remedy = "use ?state=down&group=shop&q=part-of-name&limit=100&cursor=last-name, or a part of these";
        Failure::bad_request(error.body_text(), remedy)
    })?;
    let limit = query.limit.unwrap_or(API_PAGE_DEFAULT);
    if !(1..=API_PAGE_MAX).contains(&limit) {
        return Err(Failure::bad_request(
            format!("limit={limit} is not from 1 to {API_PAGE_MAX}"),
            "ask for a page, and for the next one with its cursor",
        ));
    }
    let filter = Filter {
        part: query.q.as_deref().unwrap_or(""),
        group: query.group.as_deref().filter(|group| !group.is_empty()),
        state: state(query.state.as_deref())?,
    };
    let source = &*app.source;
    let catalog = source.catalog();
    let cursor = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let found = match filter.state {
        None => matching(source, &catalog, cursor, &filter, limit).await?,
        Some(state) => in_state(source, &catalog, cursor, &filter, state, limit).await?,
    };
    let Found { ids, states, scanned, next } = found;
    let next_cursor = next.map(|id| catalog.name(id).to_owned());
    let monitors = ids.iter().map(|&id| MonitorView::of(id, &catalog, states.get(&id), source)).collect();
    Ok(Json(PageView { monitors, total: catalog.len(), scanned, next_cursor }))
}

/// What a page is asked for.
struct Filter<'a> {
    part: &'a str,
    group: Option<&'a str>,
    state: Option<&'static str>,
}

impl Filter<'_> {
    /// By what the catalog knows.
    fn takes(&self, catalog: &Catalog, id: MonitorId) -> bool {
        let in_group = |group: &str| catalog.policy(id).groups.iter().any(|of| **of == *group);
        catalog.name(id).contains(self.part) && self.group.is_none_or(in_group)
    }
}

/// A page.
struct Found {
    /// In the order of their names.
    ids: Vec<MonitorId>,
    states: BTreeMap<MonitorId, MonitorState>,
    /// Names looked at.
    scanned: usize,
    /// After whom the next page begins; `None` on the last one.
    next: Option<MonitorId>,
}

fn state(written: Option<&str>) -> Result<Option<&'static str>, Failure> {
    let Some(written) = written.filter(|written| !written.is_empty()) else { return Ok(None) };
    if let Some(known) = STATES.into_iter().find(|known| *known == written) {
        return Ok(Some(known));
    }
    let meant = nearest(written, STATES).map(|meant| format!(", did you mean {meant}?")).unwrap_or_default();
    Err(Failure::bad_request(
        format!("state={} is unknown{meant}", shortened(written)),
        format!("use one of {}", STATES.join(", ")),
    ))
}

/// A monitor, or its history. Where a monitor's name ends in `/history`, it has to be percent-encoded if there is also a
/// monitor that is called like the rest.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    uri: Uri,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Path(name) = name.map_err(|_| {
        Failure::bad_request("the name in the path is not UTF-8", "percent-encode the bytes of the UTF-8 name")
    })?;
    let source = &*app.source;
    let catalog = source.catalog();
    if let Some(before) = history::split(uri.path()).and_then(change::decoded)
        && (catalog.find(&before).is_some() || catalog.find(&name).is_none())
    {
        return Ok(history::history(&app, &before, query).await?.into_response());
    }
    let Some(id) = catalog.find(&name) else { return Err(unknown(&catalog, &name).await) };
    let states = states_of(source, &[id]).await?;
    let episode = match answered("the desk", source.desk(Question::Monitor(id))).await? {
        Answer::Monitor(Some(episode)) => Some(EpisodeView::of(&episode, &catalog)),
        _ => None,
    };
    let monitor = MonitorView::of(id, &catalog, states.get(&id), source);
    let about = AboutView::of(&catalog.policy(id).about);
    Ok(Json(MonitorDetailView { monitor, about, episode }).into_response())
}

/// The answer to a name that nobody has.
pub(super) async fn unknown(catalog: &Catalog, name: &str) -> Failure {
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

/// A page by what the catalog knows; the shards are asked for its monitors only.
async fn matching(
    source: &dyn Source,
    catalog: &Catalog,
    cursor: Option<&str>,
    filter: &Filter<'_>,
    limit: usize,
) -> Result<Found, Failure> {
    let mut ids: Vec<MonitorId> = Vec::with_capacity(limit.min(catalog.len()));
    let (mut scanned, mut next, mut last) = (0, None, None);
    for id in catalog.ids_after(cursor) {
        if scanned == API_SCAN_MAX {
            next = last;
            break;
        }
        scanned += 1;
        if scanned.is_multiple_of(API_SCAN_SLICE) {
            yield_now().await;
        }
        if filter.takes(catalog, id) {
            if ids.len() == limit {
                next = ids.last().copied();
                break;
            }
            ids.push(id);
        }
        last = Some(id);
    }
    let states = states_of(source, &ids).await?;
    Ok(Found { ids, states, scanned, next })
}

/// A page of those in one state: the shards are asked for all that could be on it, slice by slice.
async fn in_state(
    source: &dyn Source,
    catalog: &Catalog,
    cursor: Option<&str>,
    filter: &Filter<'_>,
    wanted: &'static str,
    limit: usize,
) -> Result<Found, Failure> {
    let mut found = Found { ids: Vec::new(), states: BTreeMap::new(), scanned: 0, next: None };
    let mut names = catalog.ids_after(cursor).peekable();
    let mut slice: Vec<MonitorId> = Vec::with_capacity(REPORT_SLICE_MAX);
    let mut asked = 0;
    while names.peek().is_some() {
        let mut last = None;
        while slice.len() < REPORT_SLICE_MAX
            && found.scanned < API_SCAN_MAX
            && let Some(id) = names.next()
        {
            last = Some(id);
            found.scanned += 1;
            if found.scanned.is_multiple_of(API_SCAN_SLICE) {
                yield_now().await;
            }
            if filter.takes(catalog, id) {
                slice.push(id);
            }
        }
        asked += slice.len();
        let mut states = states_of(source, &slice).await?;
        for id in slice.drain(..) {
            let Some(state) = states.remove(&id).filter(|state| state_name(state) == wanted) else { continue };
            if found.ids.len() == limit {
                found.next = found.ids.last().copied();
                return Ok(found);
            }
            found.ids.push(id);
            found.states.insert(id, state);
        }
        if (found.scanned >= API_SCAN_MAX || asked >= API_STATES_SCAN_MAX) && names.peek().is_some() {
            found.next = last;
            break;
        }
    }
    Ok(found)
}

/// What the shards know of some monitors.
pub(super) async fn states_of(
    source: &dyn Source,
    ids: &[MonitorId],
) -> Result<BTreeMap<MonitorId, MonitorState>, Failure> {
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
