//! `POST /api/v1/monitors/{name}/check`, `.../disable`, `.../enable`: what people change.
//!
//! Who did it goes into the log, before it is done. The action is the last part of the path as it was sent: a name may
//! hold slashes and may end like an action, and is told apart from it only before it is decoded.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::App;
use super::access::Actor;
use super::failure::{Failure, answered};
use super::monitors::{states_of, unknown};
use super::view::ChangedView;
use crate::desk::protocol::Question;
use crate::domain::Check;
use crate::domain::health::Phase;

pub(super) const PREFIX: &str = "/api/v1/monitors/";

/// What can be done to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Disable,
    Enable,
}

impl Action {
    const ALL: [(&'static str, Self); 3] =
        [("check", Self::Check), ("disable", Self::Disable), ("enable", Self::Enable)];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Disable => "disable",
            Self::Enable => "enable",
        }
    }
}

/// The name, still encoded, and the action of a path that has both.
pub(super) fn split(path: &str) -> Option<(&str, Action)> {
    let (name, last) = path.strip_prefix(PREFIX)?.rsplit_once('/')?;
    let (_, action) = Action::ALL.into_iter().find(|(word, _)| *word == last)?;
    (!name.is_empty()).then_some((name, action))
}

/// Percent-decoded, if that is UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
    uri: Uri,
) -> Result<Json<ChangedView>, Failure> {
    let (Some((name, action)), Some(Extension(actor))) = (split(uri.path()), actor) else {
        // The guard lets nothing through that is not both.
        return Err(Failure::new(StatusCode::NOT_FOUND, "there is nothing to change here", "see docs/api.md"));
    };
    let Some(name) = decoded(name) else {
        let remedy = "percent-encode the bytes of the UTF-8 name";
        return Err(Failure::bad_request("the name in the path is not UTF-8", remedy));
    };
    let source = &*app.source;
    let catalog = source.catalog();
    let Some(id) = catalog.find(&name) else { return Err(unknown(&catalog, &name).await) };
    if action == Action::Check {
        if matches!(catalog.policy(id).check, Check::Push(_)) {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                format!("\"{name}\" cannot be checked: nobody is asked, its job calls in"),
                "run the job",
            ));
        }
        let state = states_of(source, &[id]).await?;
        if state.get(&id).is_some_and(|state| state.phase == Phase::Disabled) {
            let error = format!("\"{name}\" is disabled");
            return Err(Failure::new(StatusCode::CONFLICT, error, "enable it first"));
        }
    }
    tracing::info!(monitor = name, action = action.as_str(), actor = &*actor.0, "audit: a person changes something");
    match action {
        Action::Check => source.check_now(id)?,
        Action::Disable | Action::Enable => {
            source.switch(id, action == Action::Enable)?;
            // The desk takes what it is told in order: with this answer the change is made.
            answered("the desk", source.desk(Question::Monitor(id))).await?;
        }
    }
    Ok(Json(ChangedView { monitor: name, done: action.as_str() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_as_it_was_sent_is_the_action() {
        let path = |rest: &str| format!("/api/v1/monitors/{rest}");
        assert_eq!(split(&path("shop/web/check")), Some(("shop/web", Action::Check)));
        assert_eq!(split(&path("a%2Fdisable/enable")), Some(("a%2Fdisable", Action::Enable)));
        assert_eq!(split(&path("disable/disable")), Some(("disable", Action::Disable)));
        for none in ["", "check", "/check", "a%2Fcheck", "a/check/", "a/Check", "a/checks"] {
            assert_eq!(split(&path(none)), None, "{none}");
        }
        assert_eq!(split("/api/v1/status/check"), None);
        assert_eq!(decoded("a%2Fb%20%E2%98%95").as_deref(), Some("a/b ☕"));
        assert_eq!(decoded("%FF"), None);
    }
}
