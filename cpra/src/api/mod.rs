//! The interface: status, monitors, health and metrics over HTTP, jobs' calls, a few changes, and the profiling listener.
//!
//! ```text
//! TcpListener ──┬─▶ door (how many, how long) ─▶ guard (Host, method, body, who) ─▶ route ─▶ Source (snapshots, questions)
//! unix socket ──┘
//! ```
//! It all runs on one thread, `cpra-control`, which the daemon spawns and which is given to [`run`]. A request never
//! touches a shard's memory: counters are snapshots, names come from the shared catalog, and states are asked for in
//! slices through bounded queues. A question that is not answered in time is a 503 that says so.
//!
//! Whoever may read is decided by the address it listens on, who may change something by [`access`]. It tells no
//! secrets. What is full (connections, questions) is refused and counted, never queued without end.

pub mod access;
mod change;
mod demo;
pub mod door;
pub mod failure;
pub mod guard;
mod histograms;
mod history;
pub mod listen;
pub mod metrics;
mod monitors;
mod nearness;
mod notify;
mod outbox;
mod page;
mod pipelines;
pub mod process;
pub mod profile;
mod push;
pub mod reload;
pub mod source;
mod status;
#[cfg(test)]
mod tests;
pub mod view;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::{oneshot, watch};

use self::access::{Strangers, Token};
use self::door::{Bounds, Door, Gate};
use self::failure::Failure;
use self::guard::{Guard, Hosts};
use self::metrics::Metrics;
pub use self::source::{AskError, Asked, Finding, Pipeline, Readiness, Source, Tightness};
use crate::os::local::LocalSocket;

/// What every route can reach.
pub(crate) struct App {
    source: Arc<dyn Source>,
    metrics: Metrics,
    door: Arc<Door>,
    readers: history::Readers,
    strangers: Strangers,
}

/// What the API listens on.
#[derive(Debug)]
pub struct Listeners {
    /// See [`listen::bind`].
    pub api: TcpListener,
    /// See [`profile::bind`].
    pub profile: Option<TcpListener>,
    /// Names to answer to beside the loopback ones and the address: the host of `external_url`, the host's own.
    pub names: Vec<String>,
    /// See [`crate::os::local`]. Its file is removed with it.
    pub local: Option<LocalSocket>,
    /// What has to be shown to change something over TCP; without it TCP is read-only.
    pub token: Option<Token>,
}

/// The body of the thread `cpra-control`: answers until `stop` is sent or dropped.
///
/// # Errors
/// When the runtime cannot be built or a listener cannot be registered.
pub fn run(listeners: Listeners, source: Arc<dyn Source>, stop: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listeners, source, stop))
}

async fn serve(listeners: Listeners, source: Arc<dyn Source>, stop: oneshot::Receiver<()>) -> io::Result<()> {
    let Listeners { api, profile, names, local, token } = listeners;
    let (stopping, stopped) = watch::channel(false);
    let door = Arc::new(Door::new(Bounds::API));
    let hosts = Hosts::new(api.local_addr()?, names.clone());
    let routes = routes(source, door.clone());
    let guard = Guard { hosts: Some(hosts), token, strangers: Strangers::default() };
    let local_gate = match &local {
        Some(local) => Some((
            local_gate(local)?,
            guarded(routes.clone(), Guard { hosts: None, token: None, strangers: Strangers::default() }),
        )),
        None => None,
    };
    let router = guarded(routes, guard);
    let api = Gate::Tcp(tokio_listener(api)?);
    let profile = match profile {
        Some(profile) => {
            let hosts = Hosts::new(profile.local_addr()?, names);
            let guard = Guard { hosts: Some(hosts), token: None, strangers: Strangers::default() };
            Some((Gate::Tcp(tokio_listener(profile)?), guarded(profile::routes(), guard)))
        }
        None => None,
    };
    let profiling = async {
        if let Some((gate, router)) = profile {
            Door::new(Bounds::PROFILE).serve(gate, router, stopped.clone()).await;
        }
    };
    let beside = async {
        if let Some((gate, router)) = local_gate {
            Door::new(Bounds::LOCAL).serve(gate, router, stopped.clone()).await;
        }
    };
    let end = async {
        let _ = stop.await;
        stopping.send_replace(true);
    };
    tokio::join!(door.serve(api, router, stopped.clone()), profiling, beside, end);
    Ok(())
}

fn local_gate(local: &LocalSocket) -> io::Result<Gate> {
    let listener = local.listener()?;
    listener.set_nonblocking(true)?;
    Ok(Gate::Local(tokio::net::UnixListener::from_std(listener)?))
}

fn tokio_listener(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn routes(source: Arc<dyn Source>, door: Arc<Door>) -> Router {
    let metrics = Metrics::new(source.clone());
    Router::new()
        .route("/", get(page::front))
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::readiness))
        .route("/metrics", get(status::metrics))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/pipelines", get(pipelines::pipelines))
        .route("/api/v1/monitors", get(monitors::page))
        .route("/api/v1/monitors/{*name}", get(monitors::one).post(change::change))
        .route("/api/v1/outbox", get(outbox::list))
        .route(outbox::RETRY, post(outbox::retry))
        .route(outbox::DROP, post(outbox::drop))
        .route("/api/v1/notices/{id}", get(outbox::notice))
        .route("/api/v1/destinations", get(notify::destinations))
        .route(notify::TEST, post(notify::test))
        .route(histograms::DUMP, post(histograms::dump))
        .route(reload::PATH, get(reload::last).post(reload::reload))
        .route("/api/v1/push/{*token}", post(push::call))
        .route("/demo/flaky", get(demo::flaky))
        .fallback(nothing)
        .with_state(Arc::new(App {
            source,
            metrics,
            door,
            readers: history::Readers::default(),
            strangers: Strangers::default(),
        }))
}

fn guarded(routes: Router, guard: Guard) -> Router {
    routes.layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
}

async fn nothing(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", guard::shortened(uri.path())), "see /")
}

/// The address as people type it into a browser.
pub fn url_of(listen: SocketAddr) -> String {
    let loopback: std::net::IpAddr = std::net::Ipv4Addr::LOCALHOST.into();
    let ip = if listen.ip().is_unspecified() { loopback } else { listen.ip() };
    format!("http://{}/", SocketAddr::new(ip, listen.port()))
}
