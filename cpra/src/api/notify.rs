//! `/api/v1/destinations` and `/api/v1/notify/test`: who can be told, and whether that works.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use tokio::task::yield_now;

use super::App;
use super::access::Actor;
use super::failure::{Failure, answered};
use super::guard::shortened;
use super::outbox::strange;
use super::source::Source;
use super::view::{DestinationView, DestinationsView, QueuedView, TestQuery};
use crate::config::nearest;
use crate::desk::protocol::{Answer, NoticeId};
use crate::domain::{Color, Destination};
use crate::units::limits::{API_DESTINATIONS_MAX, API_SCAN_MAX, API_SCAN_SLICE};

pub(super) const TEST: &str = "/api/v1/notify/test";

pub(super) async fn destinations(State(app): State<Arc<App>>) -> Json<DestinationsView> {
    let known = known(&*app.source).await;
    let mut names: Vec<&str> = known.iter().map(|(destination, _)| &*destination.name).collect();
    names.dedup();
    let destinations = names.into_iter().filter_map(|name| {
        let (meant, named) = meant(&known, name);
        Some(DestinationView::of(meant.first()?, named, meant.len()))
    });
    Json(DestinationsView { destinations: destinations.collect() })
}

pub(super) async fn test(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
    query: Result<Query<TestQuery>, QueryRejection>,
) -> Result<Json<QueuedView>, Failure> {
    let Some(Extension(Actor(who))) = actor else {
        // The guard lets nobody through whom it does not know.
        return Err(Failure::new(StatusCode::FORBIDDEN, "it is not known who asks", "see docs/api.md"));
    };
    let Query(TestQuery { to, color }) =
        query.map_err(|error| Failure::bad_request(error.body_text(), "use ?to=DESTINATION&color=red"))?;
    let source = &*app.source;
    let known = known(source).await;
    let color = color_of(color.as_deref())?;
    let Some(to) = to.filter(|to| !to.is_empty()) else {
        return Err(Failure::bad_request("it is not said whom to tell", names(&known)));
    };
    let (meant, named) = meant(&known, &to);
    let (name, provider) = match meant.as_slice() {
        [] => {
            let near = nearest(&to, known.iter().map(|(destination, _)| &*destination.name));
            let remedy = near.map_or_else(|| names(&known), |near| format!("did you mean \"{near}\"?"));
            let error = format!("there is no destination \"{}\"", shortened(&to));
            return Err(Failure::new(StatusCode::NOT_FOUND, error, remedy));
        }
        [_, _, ..] if !named => {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                format!("several destinations are called \"{}\"", shortened(&to)),
                "give the one you mean a name in the daemon file, [providers.NAME], and let monitors name it",
            ));
        }
        [first, ..] => (first.name.to_string(), first.provider.as_str()),
    };
    tracing::info!(
        action = "notify test",
        destination = name,
        color = color.as_str(),
        actor = &*who,
        "audit: a person changes something"
    );
    let mut notices = Vec::with_capacity(meant.len());
    for destination in meant {
        match answered("the desk", source.test(destination, color, &who)).await? {
            Answer::Queued(NoticeId(notice)) => notices.push(notice),
            _ => return Err(strange()),
        }
    }
    Ok(Json(QueuedView { notices, destination: name, provider }))
}

/// Those that go by this name: what the daemon file calls so (one for each number, of some types), else what monitors say
/// by themselves. And whether it is the former: monitors may say a part of it otherwise.
fn meant(known: &BTreeSet<(Arc<Destination>, bool)>, name: &str) -> (Vec<Arc<Destination>>, bool) {
    let of = |wanted| {
        let called = known.iter().filter(move |(destination, named)| *named == wanted && *destination.name == *name);
        called.map(|(destination, _)| Arc::clone(destination)).collect::<Vec<_>>()
    };
    let named = of(true);
    if named.is_empty() { (of(false), false) } else { (named, true) }
}

fn color_of(written: Option<&str>) -> Result<Color, Failure> {
    let Some(written) = written.filter(|written| !written.is_empty()) else { return Ok(Color::Red) };
    let names = Color::ALL.map(Color::as_str);
    Color::ALL.into_iter().find(|color| color.as_str() == written).ok_or_else(|| {
        let meant = nearest(written, names).map(|meant| format!(", did you mean {meant}?")).unwrap_or_default();
        Failure::bad_request(
            format!("color={} is unknown{meant}", shortened(written)),
            format!("use one of {}", names.join(", ")),
        )
    })
}

fn names(known: &BTreeSet<(Arc<Destination>, bool)>) -> String {
    let mut names: Vec<&str> = known.iter().map(|(destination, _)| &*destination.name).collect();
    names.dedup();
    match names.as_slice() {
        [] => "no destination is configured: see docs/config.md".to_owned(),
        names => format!("use one of {}", names.join(", ")),
    }
}

/// All that have a name in the daemon file (`true`), and all that monitors tell: of those at most
/// [`API_DESTINATIONS_MAX`], found among the first [`API_SCAN_MAX`] policies. By name.
async fn known(source: &dyn Source) -> BTreeSet<(Arc<Destination>, bool)> {
    let mut known: BTreeSet<Arc<Destination>> = BTreeSet::new();
    let named: BTreeSet<Arc<Destination>> = source.providers().into_iter().collect();
    let catalog = source.catalog();
    for (looked_at, policy) in catalog.policies().iter().take(API_SCAN_MAX).enumerate() {
        if looked_at % API_SCAN_SLICE == API_SCAN_SLICE - 1 {
            yield_now().await;
        }
        for rule in Color::ALL.into_iter().filter_map(|color| policy.codes.rule(color)) {
            for destination in &rule.notify {
                if known.len() < API_DESTINATIONS_MAX && !named.contains(destination) {
                    known.insert(Arc::clone(destination));
                }
            }
        }
    }
    let others = known.into_iter().map(|destination| (destination, false));
    named.into_iter().map(|destination| (destination, true)).chain(others).collect()
}
