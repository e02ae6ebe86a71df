//! HTTP towards the providers of notices: one request, one answer, or why there is none. The only place that names
//! `reqwest`.
//!
//! Every request has an end: the destination's timeout covers the name, the connection, TLS, the request and the whole
//! answer, of which [`WEB_BODY_MAX`] bytes are read. Nothing is followed and nothing is repeated, with one exception: a
//! request that died on a connection kept from before goes out once more on a new one, if the other side can tell a
//! second one from the first. Where it cannot, no connection is kept.
//!
//! A name is looked up on a thread, since the system's resolver may take as long as it likes; each destination has one
//! such thread at most, so that a name nobody answers for holds up its own destination only. The thread outlives the
//! request that gave up: [`Web::is_quiet`] says when none is left.
//!
//! Addresses of hooks are secrets: nothing here says more of an address than its origin.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use nix::errno::Errno;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, Client, Method, Proxy, Response, Url, redirect, retry};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::Position;

use super::clock::Clock;
use super::lane::aside;
use super::tls::{self, Roots};
use crate::domain::destination::Transport;
use crate::units::limits::{RETRY_AFTER_MAX, WEB_BODY_MAX, WEB_IDLE, WEB_KEPT_MAX};
use crate::units::{Span, Timestamp};

const USER_AGENT: &str = concat!("cpra/", env!("CARGO_PKG_VERSION"));

/// What all destinations share.
#[derive(Clone, Debug, Default)]
pub struct Web {
    roots: Arc<Roots>,
    lookups: Arc<AtomicUsize>,
}

impl Web {
    /// Whether no thread of ours is looking up a name.
    pub fn is_quiet(&self) -> bool {
        self.lookups.load(Ordering::Acquire) == 0
    }
}

/// What happens when the other side gets a request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It knows it by its key.
    Known,
    /// It takes it for another one.
    Doubled,
}

#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Used as given.
    pub url: &'a str,
    pub headers: Vec<(&'a str, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// For how long nothing is wanted, whichever way it was said; bounded by [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Span>,
    /// The origin of where it would rather have the request: its path may be a secret.
    pub elsewhere: Option<String>,
    /// The first [`WEB_BODY_MAX`] bytes.
    pub body: Vec<u8>,
    /// The connection broke, or time was up, before the body's end.
    pub is_cut: bool,
}

/// Why there is no answer, in words without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request cannot be made like this, now or later.
    Unusable(String),
    /// Nothing of it has left.
    NotSent(String),
    /// It may have arrived.
    Unanswered(String),
}

/// The connections to one destination.
#[derive(Debug)]
pub struct Connections {
    web: Web,
    transport: Transport,
    again: Again,
    turn: Arc<Semaphore>,
    clients: OnceCell<Clients>,
    /// When there was an answer on a connection that may be kept.
    answered: Cell<Option<Instant>>,
}

struct Clients {
    kept: Option<Client>,
    new: Client,
}

/// Theirs would show the proxy, which may hold a password.
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

/// How an attempt ended without an answer.
struct Broken {
    /// While the request or the answer's head was under way on a connection that stood.
    is_midway: bool,
    words: String,
}

impl Connections {
    pub fn new(web: &Web, transport: &Transport, again: Again) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        let transport = transport.clone();
        Self { web: web.clone(), transport, again, turn, clients: OnceCell::new(), answered: Cell::new(None) }
    }

    /// # Errors
    /// See [`Fault`].
    pub async fn send(&self, request: &Request<'_>) -> Result<Answer, Fault> {
        let parts = Parts::of(request)?;
        let origin = parts.url.origin().ascii_serialization();
        let begun = Arc::new(AtomicBool::new(false));
        let limit = self.transport.timeout;
        let deadline = Instant::now() + limit.into();
        let fault = match timeout_at(deadline, self.exchange(&parts, &begun, deadline)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(words)) => words,
            Err(_) if begun.load(Ordering::Acquire) => format!("no answer within {limit}"),
            Err(_) => format!("no connection within {limit}"),
        };
        let fault = format!("{origin}: {fault}");
        Err(if begun.load(Ordering::Acquire) { Fault::Unanswered(fault) } else { Fault::NotSent(fault) })
    }

    async fn exchange(&self, parts: &Parts, begun: &Arc<AtomicBool>, deadline: Instant) -> Result<Answer, String> {
        let clients = self.clients.get_or_try_init(|| self.build()).await?;
        let Some(kept) = &clients.kept else {
            return attempt(&clients.new, parts, begun, deadline).await.map_err(|broken| broken.words);
        };
        let may_be_stale = self.answered.get().is_some_and(|at| at.elapsed() < Duration::from(WEB_IDLE));
        let answer = match attempt(kept, parts, begun, deadline).await {
            Err(broken) if broken.is_midway && may_be_stale => attempt(&clients.new, parts, begun, deadline).await,
            answer => answer,
        };
        if answer.is_ok() {
            self.answered.set(Some(Instant::now()));
        }
        answer.map_err(|broken| broken.words)
    }

    /// Not kept when it fails: a file that is missing may be there the next time.
    async fn build(&self) -> Result<Clients, String> {
        let (roots, ca_file) = (Arc::clone(&self.web.roots), self.transport.ca_file.clone());
        let config = aside(move || Ok(roots.client(ca_file.as_deref()))).await.map_err(|error| error.to_string())?;
        let config = config.map_err(|fault| fault.to_string())?;
        let client = |idle_max: usize| {
            let builder = Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::none())
                .referer(false)
                .retry(retry::never())
                .http1_only()
                .connect_timeout(self.transport.timeout.into())
                .pool_idle_timeout(Duration::from(WEB_IDLE))
                .pool_max_idle_per_host(idle_max)
                .dns_resolver(Lookup { turn: Arc::clone(&self.turn), lookups: Arc::clone(&self.web.lookups) })
                .tls_backend_preconfigured(config.clone());
            let builder = match &self.transport.proxy {
                // In place of what the environment says.
                Some(proxy) => builder.proxy(Proxy::all(proxy.expose())?),
                None => builder,
            };
            builder.build()
        };
        // What they say would name the proxy, which may hold a password.
        let fault = |_| "the proxy's address or TLS cannot be used".to_owned();
        let kept = (self.again == Again::Known).then(|| client(WEB_KEPT_MAX)).transpose().map_err(fault)?;
        Ok(Clients { kept, new: client(0).map_err(fault)? })
    }
}

/// A request whose parts have been looked at.
struct Parts {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Parts {
    fn of(request: &Request<'_>) -> Result<Self, Fault> {
        let unusable = |words: String| Fault::Unusable(words);
        let url = address(request.url).map_err(|words| unusable(words.into()))?;
        let method = Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|_| unusable("the method is not one of HTTP".into()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let fault = || unusable(format!("the header {:?} cannot be sent", name));
            let value = HeaderValue::from_str(value).map_err(|_| fault())?;
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?, value);
        }
        Ok(Self { method, url, headers, body: request.body.clone().into() })
    }
}

/// An address as it will be sent. What the rules for addresses would change on its way is refused: it would be another
/// one.
///
/// # Errors
/// In words that do not hold the address.
pub fn address(given: &str) -> Result<Url, &'static str> {
    let url = Url::parse(given).map_err(|_| "the address is not one of HTTP")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("the address is not one of HTTP");
    }
    let (_, rest) = given.split_once("://").ok_or("the address has no //")?;
    let path = rest.find(['/', '?', '#', '\\']).map_or("", |at| &rest[at..]);
    let path = path.split('#').next().unwrap_or_default();
    let sent = &url[Position::BeforePath..Position::AfterQuery];
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let (given, sent) = (decoded(path), decoded(sent));
    let is_same =
        sent == given || sent.strip_prefix(b"/").is_some_and(|sent| sent == given && !given.starts_with(b"/"));
    is_same.then_some(url).ok_or("the address would be another one on its way; write its path without . and \\")
}

async fn attempt(client: &Client, parts: &Parts, begun: &Arc<AtomicBool>, deadline: Instant) -> Result<Answer, Broken> {
    // A request without a body gives no sign when it leaves: it counts as sent.
    let body = if parts.body.is_empty() {
        begun.store(true, Ordering::Release);
        Body::from(Bytes::new())
    } else {
        Body::wrap(Outgoing { bytes: Some(parts.body.clone()), begun: Arc::clone(begun) })
    };
    let request = client.request(parts.method.clone(), parts.url.clone()).headers(parts.headers.clone()).body(body);
    match request.send().await {
        Ok(response) => Ok(read(response, deadline).await),
        Err(error) => {
            let is_midway = begun.load(Ordering::Acquire) && !error.is_connect();
            Err(Broken { is_midway, words: in_words(&error) })
        }
    }
}

async fn read(mut response: Response, deadline: Instant) -> Answer {
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: header(RETRY_AFTER).and_then(|value| retry_after(value, Clock.wall())),
        elsewhere: header(LOCATION)
            .and_then(|value| response.url().join(value).ok())
            .map(|url| url.origin().ascii_serialization()),
        ..Answer::default()
    };
    loop {
        // The status has come and counts, however long the body takes.
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = WEB_BODY_MAX - answer.body.len();
                answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if answer.body.len() == WEB_BODY_MAX {
                    return answer;
                }
            }
            Ok(Ok(None)) => return answer,
            Ok(Err(_)) | Err(_) => {
                answer.is_cut = true;
                return answer;
            }
        }
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Span> {
    let span = match value.trim().parse::<u64>() {
        Ok(seconds) => Span::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
            Timestamp::from_micros(until.as_microsecond()).since(now)
        }
    };
    Some(span.min(RETRY_AFTER_MAX))
}

/// A body that notes when the connection asks for it: before that nothing of the request has left.
struct Outgoing {
    bytes: Option<Bytes>,
    begun: Arc<AtomicBool>,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.begun.store(true, Ordering::Release);
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The system's resolver, one name at a time for each destination.
#[derive(Clone, Debug)]
pub struct Lookup {
    turn: Arc<Semaphore>,
    lookups: Arc<AtomicUsize>,
}

/// Counts a lookup until it ends, also when nobody waits for it any more.
struct Underway(Arc<AtomicUsize>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name is not found: {}", .0.to_string().trim_start_matches("failed to lookup address information: "))]
pub struct NameFault(io::Error);

impl Lookup {
    pub fn new(web: &Web) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), lookups: Arc::clone(&web.lookups) }
    }

    /// # Errors
    /// When there are none.
    pub async fn addresses(&self, host: String, port: u16) -> Result<Vec<SocketAddr>, NameFault> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let turn = turn.map_err(|closed| NameFault(io::Error::other(closed)))?;
        self.lookups.fetch_add(1, Ordering::AcqRel);
        let underway = Underway(Arc::clone(&self.lookups));
        let look_up = move || {
            let _until_it_ends = (turn, underway);
            (host, port).to_socket_addrs().map(Iterator::collect)
        };
        aside(look_up).await.map_err(NameFault)
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
        Box::pin(async move {
            let addresses = lookup.addresses(name.as_str().to_owned(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// What went wrong at the bottom of it, without the address that reqwest puts on top.
fn in_words(error: &reqwest::Error) -> String {
    let mut words = "it failed".to_owned();
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(known) = known(cause) {
            return known;
        }
        words = cause.to_string();
        next = cause.source();
    }
    words
}

fn known(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(fault) = cause.downcast_ref::<NameFault>() {
        return Some(fault.to_string());
    }
    if let Some(fault) = tls::in_words(cause) {
        return Some(fault);
    }
    if let Some(fault) = cause.downcast_ref::<io::Error>() {
        let errno = fault.raw_os_error().map(|errno| Errno::from_raw(errno).desc().to_lowercase());
        // What it carries is not among its sources.
        return errno.or_else(|| fault.get_ref().and_then(|inner| known(inner)));
    }
    let fault = cause.downcast_ref::<hyper::Error>()?;
    // Beneath it may be the reason.
    if fault.source().is_some() {
        return None;
    }
    if fault.is_incomplete_message() || fault.is_canceled() {
        return Some("the connection was closed before the answer".into());
    }
    fault.is_parse().then(|| "what answers does not speak HTTP".into())
}

#[cfg(test)]
pub(crate) mod tests;
