//! The profiling listener: `/debug/pprof/profile` in the format and under the path that `go tool pprof` expects.
//!
//! It has an address of its own (localhost by default), since a profile costs time on the CPUs that check and tells
//! about the inside of the process. One profile at a time: the sampling signal's timer is the process's only one.
//! Sampling happens in signal handlers of whichever thread burns CPU; waiting and symbols happen on a thread of their
//! own, `cpra-profile`, which lives as long as the request, so that the other routes go on. A client that goes away
//! ends its profile.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos::Message;
use tokio::sync::oneshot;

use super::failure::Failure;
use super::listen;
use super::view::ProfileQuery;
use crate::units::limits::{PROFILE_HERTZ, PROFILE_SECONDS_DEFAULT, PROFILE_SECONDS_MAX};

const INDEX: &str = "cpra profiles\n\n\
    /debug/pprof/profile?seconds=N   CPU profile over N seconds (1 to 300, default 30)\n\n\
    go tool pprof http://ADDRESS/debug/pprof/profile?seconds=10\n";

/// The flag that moves the profiles elsewhere.
const FLAG: &str = "--pprof.addr";

/// Listens for profilers, where the port is free. The daemon works without it.
pub fn bind(address: SocketAddr) -> Option<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let owner = (error.kind() == io::ErrorKind::AddrInUse).then(|| listen::owner_of(address)).flatten();
            let why = owner.map_or_else(|| error.to_string(), |owner| format!("{owner} has the port"));
            tracing::warn!(
                "no profiles: cannot listen on {address}: {why}; choose another address with {FLAG} HOST:PORT, or none \
                 with --pprof=false"
            );
            None
        }
    }
}

pub(super) fn routes() -> Router {
    Router::new()
        .route("/debug/pprof/", get(async || INDEX))
        .route("/debug/pprof", get(async || INDEX))
        .route("/debug/pprof/profile", get(profile))
        .fallback(super::nothing)
}

async fn profile(query: Result<Query<ProfileQuery>, QueryRejection>) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::bad_request(error.body_text(), "use ?seconds=30"))?;
    let seconds = query.seconds.unwrap_or(PROFILE_SECONDS_DEFAULT);
    if !(1..=PROFILE_SECONDS_MAX).contains(&seconds) {
        return Err(Failure::bad_request(
            format!("seconds={seconds} is not from 1 to {PROFILE_SECONDS_MAX}"),
            "use ?seconds=30",
        ));
    }
    let claim = Claim::take()
        .ok_or_else(|| Failure::new(StatusCode::CONFLICT, "a profile is being taken", "try again when it has ended"))?;
    // Dropped with this request, which wakes the thread up.
    let (_present, presence) = mpsc::channel::<()>();
    let (result, taken) = oneshot::channel();
    thread::Builder::new()
        .name("cpra-profile".to_owned())
        .spawn(move || {
            let profile = take(Duration::from_secs(seconds), &presence);
            // Before the answer, so that whoever has it can ask for the next one.
            drop(claim);
            let _ = result.send(profile);
        })
        .map_err(|error| broken(&error.to_string()))?;
    let bytes = taken.await.map_err(|_| broken("its thread ended early"))?.map_err(|error| broken(&error))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"profile.pb.gz\""),
    ];
    Ok((headers, bytes).into_response())
}

fn broken(why: &str) -> Failure {
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the profile could not be taken: {why}"),
        "perf record -g -p PID takes one from outside",
    )
}

/// Samples for `length`, or until the other end of `presence` is gone.
fn take(length: Duration, presence: &mpsc::Receiver<()>) -> Result<Vec<u8>, String> {
    // libgcc's unwinder must not be entered while it unwinds, and the vDSO cannot be unwound everywhere. The libc is
    // not on this list although pprof's manual puts it there: with it the time in system calls, which is most of what
    // this daemon does, would vanish; and what made it dangerous, the lock of `dl_iterate_phdr`, is not taken by the
    // unwinder since glibc 2.35 and is recursive before.
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(PROFILE_HERTZ)
        .blocklist(&["libgcc", "vdso"])
        .build()
        .map_err(|error| error.to_string())?;
    if presence.recv_timeout(length) == Err(mpsc::RecvTimeoutError::Disconnected) {
        return Err("the client has gone".to_owned());
    }
    let report = guard.report().build().map_err(|error| error.to_string())?;
    drop(guard);
    let profile = report.pprof().map_err(|error| error.to_string())?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&profile.encode_to_vec()).map_err(|error| error.to_string())?;
    gzip.finish().map_err(|error| error.to_string())
}

/// The right to sample: there is one.
struct Claim;

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl Claim {
    fn take() -> Option<Self> {
        (!CLAIMED.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.store(false, Ordering::Release);
    }
}
