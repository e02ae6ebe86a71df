use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::fake::{Fake, Running, reply};
use crate::units::limits::API_CONNECTIONS_MAX;

#[test]
fn a_foreign_host_is_misdirected() {
    let running = Running::new(Fake::small());
    let ask = |host: &str| running.raw(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(ask("localhost").status, 200);
    assert_eq!(ask("cpra.example.com").status, 200);
    for path in ["/", "/healthz", "/metrics", "/api/v1/status", "/nothing"] {
        let reply = running.raw(&format!("GET {path} HTTP/1.1\r\nHost: evil.example:80\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.status, 421, "{path}");
        assert!(reply.text().contains("evil.example:80") && reply.text().contains("remedy"), "{}", reply.text());
    }
    let without = running.raw("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(without.status, 400);
    assert_eq!(running.raw("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    let twice = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(running.raw(twice).status, 400);
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(running.raw(absolute).status, 421);
    let profile = super::fake::exchange(running.profile, "GET /debug/pprof/ HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(profile.status, 421);
}

#[test]
fn only_reading_is_allowed() {
    let running = Running::new(Fake::small());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
        let path = if method == "CONNECT" { "localhost:80" } else { "/api/v1/status" };
        let reply = running.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("allow: get, head"), "{}", reply.head);
    }
    let head = running.raw("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let body = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(running.raw(body).status, 413);
    let chunked = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(running.raw(chunked).status, 413);
}

#[test]
fn an_endless_head_is_refused() {
    let running = Running::new(Fake::small());
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(17_000));
    let reply = running.raw(&long);
    assert_eq!(reply.status, 431);
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(running.raw(&many).status, 431);
    assert_eq!(running.raw("rubbish\r\n\r\n").status, 400);
    assert_eq!(running.get("/healthz").status, 200);
}

#[test]
fn connections_beyond_the_limit_are_told_and_the_others_go_on() {
    let running = Running::new(Fake::small());
    let mut held: Vec<TcpStream> =
        (0..API_CONNECTIONS_MAX).map(|_| TcpStream::connect(running.api).expect("it listens")).collect();
    let mut first = held.remove(0);
    first.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    // An answer on the last one of them: all have been accepted by then.
    let last = held.last_mut().expect("there is one");
    last.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut byte = [0];
    last.read_exact(&mut byte).expect("it answers");

    let refused = running.get("/healthz");
    assert_eq!(refused.status, 503);
    assert!(serde_json::from_slice::<serde_json::Value>(&refused.body).is_ok(), "{}", refused.text());
    assert!(refused.head.contains(&format!("content-length: {}", refused.body.len())), "{}", refused.head);

    first.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let status: serde_json::Value = serde_json::from_slice(&reply(&mut first).body).expect("JSON");
    assert_eq!(status["api"]["connections"], API_CONNECTIONS_MAX);
    assert_eq!(status["api"]["refused"], 1);

    drop(held);
    let freed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        running.get("/healthz").status == 200
    });
    assert!(freed, "closed connections make room");
}

#[tokio::test]
async fn silence_and_age_end_a_connection() {
    use std::sync::Arc;

    use axum::Router;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use crate::api::door::{Bounds, Door, Gate};
    use crate::units::Span;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let aged = |head_wait, life| {
        let bounds = Bounds { connections: 4, head_wait: Span::from_millis(head_wait), life, keep_alive: true };
        Arc::new(Door::new(bounds))
    };
    // The second one is closed for its age, long before its silence.
    for (door, silent) in [(aged(100, Span::from_secs(60)), true), (aged(60_000, Span::from_millis(100)), false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (serving, stopped) = (door.clone(), stopped.clone());
        tokio::spawn(async move { serving.serve(Gate::Tcp(listener), Router::new(), stopped).await });
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        if silent {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HT").await.expect("it reads");
        }
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection ends, silent: {silent}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(door.connections(), 0);
    }
    stop.send_replace(true);
}
