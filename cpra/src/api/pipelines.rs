//! `/api/v1/pipelines`: how many workers there are, why, and whether they keep what is promised.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::App;
use super::view::{PipelineView, PipelinesView};

pub(super) async fn pipelines(State(app): State<Arc<App>>) -> Json<PipelinesView> {
    let pipelines = app.source.pipelines();
    Json(PipelinesView { pipelines: pipelines.iter().map(PipelineView::of).collect() })
}
