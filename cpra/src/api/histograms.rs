//! `POST /api/v1/histograms/dump`: write down now what the pipelines have measured.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::App;
use super::access::Actor;
use super::failure::{Failure, answered_within};
use super::view::{DumpView, SeriesView};
use crate::os::histograms::Dump;
use crate::units::limits::HISTOGRAM_DUMP_WAIT;

pub(super) const DUMP: &str = "/api/v1/histograms/dump";

pub(super) async fn dump(
    State(app): State<Arc<App>>,
    actor: Option<Extension<Actor>>,
) -> Result<Json<DumpView>, Failure> {
    let Some(Extension(actor)) = actor else {
        // The guard lets nobody through whom it does not know.
        return Err(Failure::new(StatusCode::FORBIDDEN, "it is not known who asks", "see docs/api.md"));
    };
    tracing::info!(action = "dump histograms", actor = &*actor.0, "audit: a person changes something");
    let asked = app.source.dump_histograms();
    let answer = answered_within(HISTOGRAM_DUMP_WAIT, "the writer of histograms", asked).await?;
    let Dump { file, texts, from, length, series, silent } = answer.map_err(|error| {
        let remedy = "make room there and let the daemon's user write, or name another folder with [histograms] dir";
        Failure::unavailable(error.to_string(), remedy)
    })?;
    let shown = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    Ok(Json(DumpView {
        file: file.map(shown),
        texts: texts.into_iter().map(shown).collect(),
        from: from.to_string(),
        seconds: length.as_secs_f64(),
        series: series.into_iter().map(|(tag, count)| SeriesView { tag, count }).collect(),
        silent_shards: silent,
    }))
}
