//! Errors as the API's clients see them: `{"error": "...", "remedy": "..."}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::source::{AskError, Asked};
use super::view::FailureView;
use crate::units::Span;
use crate::units::limits::API_ASK_MAX;

/// A request that is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    pub error: String,
    pub remedy: String,
}

impl Failure {
    pub fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, error: error.into(), remedy: remedy.into() }
    }

    pub fn bad_request(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, remedy)
    }

    pub fn unavailable(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, remedy)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(FailureView { error: &self.error, remedy: &self.remedy })).into_response()
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Full => Self::unavailable(error.to_string(), "ask again in a second"),
            AskError::Stopping => Self::unavailable(error.to_string(), "ask again when it has been started"),
        }
    }
}

/// Waits for an answer of a shard or the desk (`whom`), but not for long.
pub async fn answered<T>(whom: &str, asked: Asked<T>) -> Result<T, Failure> {
    answered_within(API_ASK_MAX, whom, asked).await
}

/// As [`answered`], of somebody who may take this long.
pub async fn answered_within<T>(bound: Span, whom: &str, asked: Asked<T>) -> Result<T, Failure> {
    match timeout(bound.into(), asked?).await {
        Ok(Ok(answer)) => Ok(answer),
        // The other side dropped the question: it does so only when it stops.
        Ok(Err(_)) => Err(AskError::Stopping.into()),
        Err(_) => Err(Failure::unavailable(
            format!("{whom} did not answer within {bound}"),
            "ask again; if it stays like this, see /healthz and cpra_schedule_lag_seconds in /metrics",
        )),
    }
}
