//! `/demo/flaky`: something to watch in the first minute. Ok for `up`, then 503 for `down`, over and over from the
//! daemon's start. It keeps no state, and only this host may ask: nobody else has a use for it.

use std::sync::Arc;

use super::App;
use super::door::Peer;
use super::failure::Failure;
use super::guard::shortened;
use super::view::Phases;
use crate::units::Span;
use crate::units::limits::{DEMO_PHASE_MAX, DEMO_PHASE_MIN};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub(super) async fn flaky(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    phases: Result<Query<Phases>, QueryRejection>,
) -> Result<Response, Failure> {
    if !peer.is_on_this_host() {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "the demo answers only on the host it runs on",
            "ask through 127.0.0.1",
        ));
    }
    let Query(phases) = phases.map_err(|error| Failure::bad_request(error.body_text(), "use ?up=15s&down=12s"))?;
    let up = phase("up", phases.up.as_deref(), Span::from_secs(15))?;
    let down = phase("down", phases.down.as_deref(), Span::from_secs(12))?;
    let age = app.source.now().since(app.source.started());
    let place = Span::from_nanos(age.as_nanos() % (up + down).as_nanos());
    Ok(if place < up {
        format!("up for another {}\n", up - place).into_response()
    } else {
        let text = format!("down for another {}\n", up + down - place);
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    })
}

fn phase(name: &str, text: Option<&str>, default: Span) -> Result<Span, Failure> {
    let Some(text) = text else { return Ok(default) };
    span(text).filter(|span| (DEMO_PHASE_MIN..=DEMO_PHASE_MAX).contains(span)).ok_or_else(|| {
        Failure::bad_request(
            format!("{name}={} is not a duration from {DEMO_PHASE_MIN} to {DEMO_PHASE_MAX}", shortened(text)),
            "use a number and ms, s or m: ?up=15s&down=12s",
        )
    })
}

/// `500ms`, `15s`, `2m`.
fn span(text: &str) -> Option<Span> {
    let (digits, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit())?);
    let number: u64 = digits.parse().ok()?;
    let nanos = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return None,
    };
    Some(Span::from_nanos(number.checked_mul(nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(span("500ms"), Some(Span::from_millis(500)));
        assert_eq!(span("2m"), Some(Span::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "1h", "ü", "5ü", "99999999999999999999s", "99999999999999999m"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }
}
