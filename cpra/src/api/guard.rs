//! What is checked before a route sees a request: the `Host`, the method, the body.
//!
//! The `Host` check stops DNS rebinding: a page on `evil.example` whose name suddenly resolves to 127.0.0.1 could
//! otherwise read all of this from a browser inside the network. Such a request always carries the *name* in its
//! `Host`, so names must be known; an IP literal cannot be rebound. The port does not matter: people forward ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;

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

/// The middleware around every route.
pub async fn check(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&hosts, &request) {
        Some(failure) => {
            let mut response = failure.into_response();
            if response.status() == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            // What is left of the request is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        None => next.run(request).await,
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

fn refusal(hosts: &Hosts, request: &Request) -> Option<Failure> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => Some(host.to_str().unwrap_or("")),
        (None, _) => None,
        (Some(_), Some(_)) => {
            return Some(Failure::bad_request("the request has more than one Host header", "send one"));
        }
    };
    // An absolute request target overrides the header (RFC 9112, section 3.2.2): both must be ours.
    let target = request.uri().authority().map(Authority::as_str);
    if host.is_none() && target.is_none() && request.version() != Version::HTTP_10 {
        // Browsers always send one; HTTP/1.0 probes of load balancers do not.
        return Some(Failure::bad_request("the request has no Host header", "send one"));
    }
    if let Some(foreign) = host.into_iter().chain(target).find(|name| !hosts.allow(name)) {
        return Some(Failure::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("\"{}\" is not a name of this daemon", shortened(foreign)),
            format!("use {}, or this host's address instead of a name", super::url_of(hosts.listen)),
        ));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} is not allowed: this interface is read-only", shortened(request.method().as_str())),
            "use GET or HEAD",
        ));
    }
    if request.body().size_hint().exact() != Some(0) {
        return Some(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request has a body, and nothing here reads one",
            "send it without a body",
        ));
    }
    None
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
