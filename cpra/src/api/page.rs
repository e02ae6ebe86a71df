//! `/`: what this is, how it is, and where the rest is. Small on purpose; it takes no questions and no scripts.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::App;
use super::source::Tightness;
use super::view::OutboxCount;
use crate::desk::protocol::OutboxState;
use crate::shard::protocol::STATES;
use crate::units::Span;

const LINKS: [(&str, &str); 7] = [
    ("/api/v1/status", "status: counts, open incidents, last changes"),
    ("/api/v1/monitors", "monitors, by name; /api/v1/monitors/NAME shows one"),
    ("/api/v1/pipelines", "pipelines: workers, and what is measured of them"),
    ("/api/v1/outbox", "outbox: alerts that are still to be delivered, or could not be"),
    ("/metrics", "metrics for Prometheus"),
    ("/healthz", "whether checks and alerts advance"),
    ("/readyz", "whether all of it works, and what was found at the start"),
];

pub(super) async fn front(State(app): State<Arc<App>>) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")];
    (policy, Html(text(&app).unwrap_or_default())).into_response()
}

fn text(app: &App) -> Result<String, fmt::Error> {
    use fmt::Write;
    let source = &*app.source;
    let (shards, desk, readiness) = (source.shard_stats(), source.desk_stats(), source.readiness());
    let count = |state: &str| {
        STATES.into_iter().zip(shards.monitors).find(|(name, _)| *name == state).map_or(0, |(_, count)| count)
    };
    let total: u64 = shards.monitors.iter().sum();
    let instance = Escaped(source.instance());
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cpra {instance}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em}}</style>\
         <h1>{} of {total} up, {} down</h1>",
        count("up"),
        count("down"),
    )?;
    let uptime = source.now().since(source.started());
    write!(
        page,
        "<p>cpra {} on {instance}, running for {uptime}. Open incidents: {}. As of {}; reload for news.</p><p>",
        Escaped(env!("CARGO_PKG_VERSION")),
        desk.episodes_open,
        source.wall_of(source.now()),
    )?;
    let states = STATES.into_iter().zip(shards.monitors).filter(|&(_, count)| count > 0);
    let states: Vec<_> = states.map(|(state, count)| format!("{state} {count}")).collect();
    write!(page, "{}</p>", if states.is_empty() { "No monitors are loaded.".to_owned() } else { states.join(", ") })?;
    if !readiness.ready {
        write!(page, "<p><strong>Not ready:</strong> {}</p>", Escaped(&readiness.reasons.join("; ")))?;
    }
    let OutboxCount { undelivered, states, oldest_seconds } = OutboxCount::of(&desk, source.now());
    let dead = states.get(OutboxState::Dead.as_str()).copied().unwrap_or(0);
    match oldest_seconds.filter(|_| undelivered > 0) {
        Some(seconds) => {
            let oldest = Span::from_millis((seconds * 1e3) as u64);
            write!(page, "<p>alerts: {undelivered} undelivered, the oldest for {oldest}")?;
        }
        None => write!(page, "<p>alerts: {undelivered} undelivered")?,
    }
    if dead > 0 {
        write!(page, "; <strong><a href=\"/api/v1/outbox?dead=true\">{dead} could not be delivered</a></strong>")?;
    }
    page.push_str("</p>");
    let store = source.store_stats();
    page.push_str("<p>store: ");
    match store.last_commit {
        Some(at) => write!(page, "last commit {} ago", source.now().since(at))?,
        None => page.push_str("nothing committed so far"),
    }
    if !store.is_durable {
        page.push_str("; <strong>what happens now does not survive a restart</strong>");
    }
    if let Some(trouble) = &store.trouble {
        write!(page, "; <strong>{}</strong>", Escaped(trouble))?;
    }
    page.push_str("</p>");
    for pipeline in source.pipelines() {
        write!(page, "<p>{}: {} of {} workers busy", pipeline.name, pipeline.busy(), pipeline.workers())?;
        write!(page, ", {} waiting", pipeline.waiting)?;
        if let Some(Tightness { class, is_wait, percentile, measured, goal }) = pipeline.tightest() {
            let what = if is_wait { "waiting " } else { "" };
            write!(page, "; {class} {what}{percentile} {measured}, promised {goal}")?;
        }
        if pipeline.is_unreachable() {
            page.push_str("; <strong>the promise is more than its workers can keep</strong>");
        }
        page.push_str("</p>");
    }
    page.push_str("<ul>");
    for (path, what) in LINKS {
        write!(page, "<li><a href=\"{path}\">{path}</a> {what}</li>")?;
    }
    page.push_str("</ul></html>\n");
    Ok(page)
}

/// Text from outside, for HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => fmt::Write::write_char(f, other)?,
            }
        }
        Ok(())
    }
}
