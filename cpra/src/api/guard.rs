//! What is checked before a route sees a request: the `Host`, the method, the body, and who may change something.
//!
//! The `Host` check stops DNS rebinding: a page on `evil.example` whose name suddenly resolves to 127.0.0.1 could
//! otherwise read all of this from a browser inside the network. Such a request always carries the *name* in its
//! `Host`, so names must be known; an IP literal cannot be rebound. The port does not matter: people forward ports.
//! No browser reaches the unix socket, so that its requests may name any host.
//!
//! What changes something is a POST to one of a few paths ([`Purpose`]); everything else only reads. A route that changes
//! something finds the [`Actor`](super::access::Actor) in the request's extensions, or is not reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{self, Strangers, Token};
use super::door::Peer;
use super::failure::Failure;
use crate::os::clock::Clock;

/// The names that a listener answers to.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: SocketAddr,
    names: Vec<String>,
}

impl Hosts {
    /// `names` beside the loopback names and the address itself: host names or addresses, without a port.
    pub fn new(listen: SocketAddr, names: impl IntoIterator<Item = String>) -> Self {
        Self { listen, names: names.into_iter().map(|name| folded(&name)).collect() }
    }

    /// Whether a `Host` header's value names this daemon.
    pub fn allow(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = folded(name);
        if self.names.contains(&name) || name == "localhost" || name.ends_with(".localhost") {
            return true;
        }
        let Ok(address) = name.parse::<IpAddr>() else { return false };
        let address = address.to_canonical();
        let listen = self.listen.ip().to_canonical();
        // On an unspecified address, any address may be this host's (behind a port mapping it is not even ours).
        address.is_loopback() || address == listen || listen.is_unspecified()
    }
}

fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// `name:80`, `name`, `[::1]:80`, `[::1]`.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let sound = !name.is_empty() && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    sound.then_some(name)
}

/// One listener's rules.
#[derive(Debug)]
pub struct Guard {
    /// `None`: any host may be named.
    pub hosts: Option<Hosts>,
    /// What has to be shown to change something over TCP.
    pub token: Option<Token>,
    pub strangers: Strangers,
}

/// What may be done at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Look.
    Reading,
    /// `/api/v1/push/...`: a job calls, with its own token.
    Calling,
    /// `/api/v1/monitors/{name}/check` and the like, `/api/v1/reload`.
    Changing,
    /// `/api/v1/histograms/dump`, `/api/v1/outbox/retry` and the like: the same, and there is nothing to look at.
    Ordering,
}

impl Purpose {
    fn of(path: &str) -> Self {
        if path.starts_with(super::push::PREFIX) {
            return Self::Calling;
        }
        if [super::histograms::DUMP, super::outbox::RETRY, super::outbox::DROP, super::notify::TEST].contains(&path) {
            return Self::Ordering;
        }
        if path == super::reload::PATH {
            return Self::Changing;
        }
        match super::change::split(path) {
            Some(_) => Self::Changing,
            None => Self::Reading,
        }
    }
}

/// The middleware around every route.
pub async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let mut response = match guard.admit(&mut request) {
        Err(refusal) => {
            let (failure, allow) = *refusal;
            let mut response = failure.into_response();
            match response.status() {
                StatusCode::METHOD_NOT_ALLOWED => {
                    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
                }
                StatusCode::UNAUTHORIZED => {
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                _ => {}
            }
            // What is left of the request is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// A failure, and what `Allow` says where the method was the fault.
type Refusal = Box<(Failure, &'static str)>;

impl Guard {
    fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        let refused = |failure| Box::new((failure, "GET, HEAD"));
        if let Some(hosts) = &self.hosts {
            hosts.check(request).map_err(refused)?;
        }
        let purpose = Purpose::of(request.uri().path());
        let method = request.method();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let not_allowed = |error: String, remedy: &str, allow| {
            Err(Box::new((Failure::new(StatusCode::METHOD_NOT_ALLOWED, error, remedy), allow)))
        };
        let named = shortened(method.as_str());
        match purpose {
            Purpose::Calling if *method == Method::POST => return Ok(()),
            Purpose::Calling => {
                // Link previews and scanners follow links: a call must not come about by looking.
                return not_allowed(
                    format!("{named} is not a call: a call changes something"),
                    "use POST: curl -d '' URL",
                    "POST",
                );
            }
            Purpose::Changing | Purpose::Ordering if *method == Method::POST => {
                let Some(&peer) = request.extensions().get::<Peer>() else {
                    return Err(refused(Failure::unavailable("it is not known who asks", "report this as a defect")));
                };
                let actor = access::actor(peer, request.headers(), self.token.as_ref()).map_err(|failure| {
                    if failure.status == StatusCode::UNAUTHORIZED
                        && let Some(count) = self.strangers.count(Clock.now())
                    {
                        tracing::warn!(count, last = %peer, "changes without the token were refused");
                    }
                    refused(failure)
                })?;
                request.extensions_mut().insert(actor);
            }
            // A monitor's name may end like one of those paths: looking is always allowed.
            Purpose::Changing | Purpose::Reading if reads => {}
            Purpose::Ordering => {
                return not_allowed(format!("{named} is not allowed here: this does something"), "use POST", "POST");
            }
            Purpose::Changing => {
                return not_allowed(
                    format!("{named} is not allowed here"),
                    "use POST to change, GET to look",
                    "GET, HEAD, POST",
                );
            }
            Purpose::Reading => {
                return not_allowed(
                    format!("{named} is not allowed: there is only something to look at here"),
                    "use GET or HEAD",
                    "GET, HEAD",
                );
            }
        }
        if request.body().size_hint().exact() != Some(0) {
            return Err(refused(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request has a body, and nothing here reads one",
                "send it without a body",
            )));
        }
        Ok(())
    }
}

impl Hosts {
    fn check(&self, request: &Request) -> Result<(), Failure> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => Some(host.to_str().unwrap_or("")),
            (None, _) => None,
            (Some(_), Some(_)) => {
                return Err(Failure::bad_request("the request has more than one Host header", "send one"));
            }
        };
        // An absolute request target overrides the header (RFC 9112, section 3.2.2): both must be ours.
        let target = request.uri().authority().map(Authority::as_str);
        if host.is_none() && target.is_none() && request.version() != Version::HTTP_10 {
            // Browsers always send one; HTTP/1.0 probes of load balancers do not.
            return Err(Failure::bad_request("the request has no Host header", "send one"));
        }
        if let Some(foreign) = host.into_iter().chain(target).find(|name| !self.allow(name)) {
            return Err(Failure::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!("\"{}\" is not a name of this daemon", shortened(foreign)),
                format!("use {}, or this host's address instead of a name", super::url_of(self.listen)),
            ));
        }
        Ok(())
    }
}

/// Text from outside, for an error message.
pub fn shortened(text: &str) -> Box<str> {
    crate::domain::outcome::bounded_text(text, 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str) -> Hosts {
        Hosts::new(listen.parse().expect("an address"), ["Cpra.Example.com".to_owned()])
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let loopback = hosts("127.0.0.1:9860");
        for ours in [
            "127.0.0.1:9860",
            "127.0.0.1",
            "127.8.8.8",
            "localhost:8080",
            "LOCALHOST.",
            "a.localhost",
            "[::1]:9860",
            "[::ffff:127.0.0.1]",
            "cpra.example.com:443",
        ] {
            assert!(loopback.allow(ours), "{ours}");
        }
        for foreign in [
            "",
            ":9860",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:127",
            "10.0.0.1",
            "localhost:9860:1",
            "localhost@evil.example",
            "[::1",
            "[::1]x",
            "[::2]:1",
            "notlocalhost",
        ] {
            assert!(!loopback.allow(foreign), "{foreign}");
        }
        assert!(hosts("10.0.0.1:80").allow("10.0.0.1:80") && !hosts("10.0.0.1:80").allow("10.0.0.2:80"));
        assert!(hosts("0.0.0.0:80").allow("192.0.2.7:80") && !hosts("0.0.0.0:80").allow("evil.example"));
    }
}
