//! The accept loop: connections come in here, bounded in number, in silence and in age.
//!
//! axum's own loop accepts without end; whoever opens connections and says nothing would take the file descriptors
//! that checks need. Here a connection beyond the limit is told so and closed (and counted), one that does not
//! complete a request head in time is closed, and none lives longer than its limit, however slowly it reads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::units::Span;
use crate::units::limits::{
    API_CONNECTION_GRACE, API_CONNECTION_LIFE, API_CONNECTIONS_MAX, API_FAREWELLS_MAX, API_HEAD_WAIT,
    API_REQUEST_HEAD_MAX, API_REQUEST_HEADERS_MAX, LOCAL_CONNECTIONS_MAX, PROFILE_CONNECTION_LIFE,
    PROFILE_CONNECTIONS_MAX,
};

/// Who is at the other end of the connection. An extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// On the unix socket, as the kernel knows it.
    Local {
        uid: u32,
        pid: Option<i32>,
    },
}

impl Peer {
    pub fn is_on_this_host(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Local { .. } => true,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Local { uid, .. } => write!(f, "uid {uid}"),
        }
    }
}

/// What a door is a door to.
#[derive(Debug)]
pub enum Gate {
    Tcp(TcpListener),
    Local(UnixListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Gate {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Peer::Tcp(peer)))
            }
            Self::Local(listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                Ok((Box::new(stream), Peer::Local { uid: credentials.uid(), pid: credentials.pid() }))
            }
        }
    }
}

/// The bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    /// To complete a request head; also how long a kept-alive connection may idle.
    pub head_wait: Span,
    pub life: Span,
    pub keep_alive: bool,
}

impl Bounds {
    pub const API: Self = Self {
        connections: API_CONNECTIONS_MAX,
        head_wait: API_HEAD_WAIT,
        life: API_CONNECTION_LIFE,
        keep_alive: true,
    };
    /// The unix socket.
    pub const LOCAL: Self = Self { connections: LOCAL_CONNECTIONS_MAX, ..Self::API };
    pub const PROFILE: Self = Self {
        connections: PROFILE_CONNECTIONS_MAX,
        head_wait: API_HEAD_WAIT,
        life: PROFILE_CONNECTION_LIFE,
        // One request per connection, so that a profile never meets the end of its connection's life.
        keep_alive: false,
    };
}

/// One listener's connections.
#[derive(Debug)]
pub struct Door {
    bounds: Bounds,
    free: Arc<Semaphore>,
    /// Refused connections that are seen off with a word; beyond these they are just closed.
    farewells: Arc<Semaphore>,
    refused: AtomicU64,
}

impl Door {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            free: Arc::new(Semaphore::new(bounds.connections)),
            farewells: Arc::new(Semaphore::new(API_FAREWELLS_MAX)),
            refused: AtomicU64::new(0),
        }
    }

    pub fn connections(&self) -> usize {
        self.bounds.connections - self.free.available_permits()
    }

    /// Turned away since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Accepts until `stop` is set or its sender is gone, then waits for the connections to end.
    pub async fn serve(&self, gate: Gate, router: Router, mut stop: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(router);
        loop {
            let accepted = tokio::select! {
                accepted = gate.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => match self.free.clone().try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(hold(stream, peer, service.clone(), self.bounds, permit, stop.clone()));
                    }
                    Err(_) => self.refuse(stream),
                },
                Err(error) => {
                    // Out of descriptors, or the peer was gone already. Never a reason to stop, nor to spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(gate);
        let all = u32::try_from(self.bounds.connections).unwrap_or(u32::MAX);
        let _ = timeout(Duration::from(API_CONNECTION_GRACE) * 2, self.free.acquire_many(all)).await;
    }

    fn refuse(&self, stream: Box<dyn Stream>) {
        if let Ok(permit) = self.farewells.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _ = timeout(API_CONNECTION_GRACE.into(), farewell(stream)).await;
                drop(permit);
            });
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed);
        if refused.is_multiple_of(1_000) {
            tracing::warn!(limit = self.bounds.connections, refused = refused + 1, "too many connections to the API");
        }
    }
}

/// Says why, and reads what was sent until the peer has closed: closing with bytes unread would reset the connection
/// and could take the answer away from the peer.
async fn farewell(mut stream: Box<dyn Stream>) -> io::Result<()> {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
        Content-Length: 80\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
        {\"error\":\"too many connections\",\"remedy\":\"close some, or try again in a moment\"}";
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn hold(
    stream: Box<dyn Stream>,
    peer: Peer,
    service: TowerToHyperService<Router>,
    bounds: Bounds,
    permit: OwnedSemaphorePermit,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from(bounds.head_wait))
        .max_header_size(API_REQUEST_HEAD_MAX)
        // A head that is somewhat too long is still read to its end, so that its sender gets to see the answer.
        .max_buf_size(2 * API_REQUEST_HEAD_MAX)
        .max_headers(API_REQUEST_HEADERS_MAX)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What goes wrong on a connection is its peer's business.
        _ = connection.as_mut() => return drop(permit),
        () = sleep(bounds.life.into()) => {}
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(API_CONNECTION_GRACE.into(), connection).await;
    drop(permit);
}
