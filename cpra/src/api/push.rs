//! `POST /api/v1/push/{token}` and `/api/v1/push/{token}/fail`: a job calls in.
//!
//! The token is the job's secret and needs no other one beside it: it is good for one monitor and for nothing else. It is
//! never logged.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, Uri};
use tokio::time::timeout;

use super::App;
use super::change::decoded;
use super::door::Peer;
use super::failure::Failure;
use super::guard::shortened;
use super::view::{PushQuery, PushView};
use crate::config::nearest;
use crate::units::limits::{API_HEAD_WAIT, API_PUSH_BODY_MAX, EVIDENCE_MAX};

pub(super) const PREFIX: &str = "/api/v1/push/";

pub(super) async fn call(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    query: Result<Query<PushQuery>, QueryRejection>,
    body: Body,
) -> Result<Json<PushView>, Failure> {
    let rest = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let (token, fails) = rest.strip_suffix("/fail").map_or((rest, false), |token| (token, true));
    let found = decoded(token).and_then(|token| app.source.push_target(&token));
    let Some(monitor) = found else {
        if let Some(count) = app.strangers.count(app.source.now()) {
            tracing::warn!(count, last = %peer, "calls with a push token that no monitor has");
        }
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "no monitor has this token",
            "compare it with the token of the monitor's pulse; a removed monitor takes its token with it",
        ));
    };
    let Query(query) =
        query.map_err(|error| Failure::bad_request(error.body_text(), "use ?status=ok&msg=TEXT, or no query"))?;
    let ok = match query.status.as_deref() {
        None => !fails,
        Some("ok") if fails => {
            return Err(Failure::bad_request("the path says fail and the query says ok", "say one of them"));
        }
        Some("ok") => true,
        Some("fail") => false,
        Some(other) => {
            let meant = nearest(other, ["ok", "fail"]).map(|meant| format!(", did you mean {meant}?"));
            return Err(Failure::bad_request(
                format!("status={} is neither ok nor fail{}", shortened(other), meant.unwrap_or_default()),
                "use ?status=ok or ?status=fail",
            ));
        }
    };
    let said = spoken(body).await?;
    let message = query.msg.as_deref().map_or_else(|| first_line(&said), bounded);
    app.source.push(monitor, ok, message)?;
    let catalog = app.source.catalog();
    Ok(Json(PushView { monitor: catalog.name(monitor).to_owned(), taken: if ok { "ok" } else { "fail" } }))
}

/// The body, within its bounds of length and time.
async fn spoken(body: Body) -> Result<Vec<u8>, Failure> {
    match timeout(API_HEAD_WAIT.into(), to_bytes(body, API_PUSH_BODY_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_)) => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body ended early, or has more than {API_PUSH_BODY_MAX} bytes"),
            "send less: only its first line is kept",
        )),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {API_HEAD_WAIT}"),
            "send it at once, or none",
        )),
    }
}

/// The first line with anything in it.
fn first_line(body: &[u8]) -> Box<str> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default();
    bounded(&String::from_utf8_lossy(first))
}

fn bounded(text: &str) -> Box<str> {
    crate::domain::outcome::bounded_text(text, EVIDENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_words_are_its_first_line() {
        assert_eq!(&*first_line(b"\r\n  \n disk full \nat /backup\n"), "disk full");
        assert_eq!(&*first_line(b""), "");
        assert_eq!(&*first_line(b"a\x1b[31m\xff"), "a [31m\u{fffd}");
        assert!(first_line(&[b'x'; 10_000]).len() <= EVIDENCE_MAX);
    }
}
