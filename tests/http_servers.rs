//! HTTP checks against real servers, good and bad: the engine itself, on io_uring, judges what they really send.

mod counterparts;

use std::net::SocketAddr;
use std::time::Duration;

use cpra::domain::{Code, Host, Outcome, StatusSet, Verdict};

use counterparts::engine::{Engine, Monitored};
use counterparts::haproxy::{Frontend, Haproxy};
use counterparts::nginx::Nginx;
use counterparts::raw::{self, FullBacklog, RawServer, Script};
use counterparts::{free_port, loopback_v6, loopbacks};

/// Status 0: none.
#[track_caller]
fn assert_outcome(outcome: &Outcome, code: Code, status: u16, evidence: &str) {
    let found = (outcome.code, outcome.status.unwrap_or(0));
    assert_eq!(found, (code, status), "{:?}", outcome.evidence);
    let verdict = if code == Code::L7Ok { Verdict::Ok } else { Verdict::Fail };
    assert_eq!(outcome.verdict(), verdict);
    let words = outcome.evidence.as_deref().unwrap_or("");
    if evidence.is_empty() {
        assert_eq!(words, "");
    } else {
        assert!(words.starts_with(evidence), "{words:?} should begin with {evidence:?}");
    }
}

#[track_caller]
fn assert_check(monitored: &Monitored, code: Code, status: u16, evidence: &str) {
    assert_outcome(&Engine::of(&[monitored]).check(0), code, status, evidence);
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn nginx_is_judged_by_its_answers() {
    let Some(nginx) = Nginx::start() else { return };
    let table = [
        ("/ok", Code::L7Ok, 200, ""),
        ("/empty", Code::L7Ok, 204, ""),
        ("/chunked", Code::L7Ok, 200, ""),
        ("/unframed", Code::L7Ok, 200, ""),
        ("/large", Code::L7Ok, 200, ""),
        ("/redirect", Code::L7Sts, 301, "301 Moved Permanently to http://"),
        ("/status/404", Code::L7Sts, 404, "404 Not Found, expected 200-299: nothing here"),
        ("/status/500", Code::L7Sts, 500, "500 Internal Server Error, expected 200-299: broken"),
        ("/status/503", Code::L7Sts, 503, "503 Service Temporarily Unavailable, expected 200-299: <html>"),
        ("/post", Code::L7Sts, 405, "405 Not Allowed, expected 200-299"),
        ("/no-such-file", Code::L7Sts, 404, "404 Not Found, expected 200-299"),
    ];
    for loopback in loopbacks() {
        for (path, code, status, evidence) in table {
            println!("{loopback} {path}");
            assert_check(&Monitored::get(nginx.address(loopback), path), code, status, evidence);
        }
    }
}

#[test]
fn nginx_takes_other_methods_and_hosts() {
    let Some(nginx) = Nginx::start() else { return };
    let address = nginx.address(loopbacks()[0]);
    let get = |path| Monitored::get(address, path);
    for path in ["/ok", "/chunked", "/large"] {
        assert_check(&get(path).with(|check| check.method = "HEAD".into()), Code::L7Ok, 200, "");
    }
    // Without the length of nothing, nginx answers 411.
    assert_check(&get("/post").with(|check| check.method = "POST".into()), Code::L7Ok, 200, "");
    let posting = get("/post").with(|check| {
        check.method = "POST".into();
        check.body = vec![b'x'; 32 * 1024].into();
    });
    assert_check(&posting, Code::L7Ok, 200, "");
    let redirect = get("/redirect").with(|check| check.expected = StatusSet::new(vec![(301, 302)]));
    assert_check(&redirect, Code::L7Ok, 301, "");
    let named = Monitored { host: Host::Name("localhost".into()), ..get("/ok") };
    assert_check(&named, Code::L7Ok, 200, "");
    let odd = get("/ok").with(|check| check.headers = Box::new([("Host".into(), "no such/host".into())]));
    assert_check(&odd, Code::L7Sts, 400, "400 Bad Request, expected 200-299");
}

#[test]
fn nginx_closes_gracefully_when_asked_to() {
    let Some(nginx) = Nginx::start() else { return };
    let paths = ["/ok", "/chunked", "/status/500"];
    let monitored = paths.map(|path| Monitored::get(nginx.address(loopbacks()[0]), path));
    let mut engine = Engine::of(&monitored.each_ref());
    for (index, path) in paths.into_iter().enumerate() {
        engine.check(index);
        assert_eq!((engine.rest(), engine.fin_came), (0, true), "{path}");
    }
}

#[test]
fn a_large_body_is_not_read_to_its_end() {
    let Some(nginx) = Nginx::start() else { return };
    let mut engine = Engine::of(&[&Monitored::get(nginx.address(loopbacks()[0]), "/large").kept()]);
    assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
    assert_eq!((engine.rest(), engine.fin_came), (0, false), "neither kept nor read until nginx closes");
}

#[test]
fn a_slow_body_is_a_timeout_that_says_how_far_it_came() {
    let Some(nginx) = Nginx::start() else { return };
    let slow = Monitored::get(nginx.address(loopbacks()[0]), "/slow").within(SOON);
    let outcome = Engine::of(&[&slow]).check(0);
    assert_outcome(&outcome, Code::L7Tout, 200, "body: ");
    assert!(outcome.latency.total >= slow.policy.timeout, "{:?}", outcome.latency);
    assert!(outcome.evidence.expect("some").contains(" of 8192 bytes in "));
}

#[test]
fn kept_connections_are_used_again_until_nginx_ends_them() {
    let Some(nginx) = Nginx::start() else { return };
    let paths = ["/ok", "/chunked", "/empty", "/status/404", "/ok"];
    let keeping = paths.map(|path| Monitored::get(nginx.address(loopbacks()[0]), path).kept());
    let mut engine = Engine::of(&keeping.each_ref());
    for (index, path) in paths.into_iter().enumerate() {
        engine.check(index);
        assert_eq!(engine.rest(), 1, "{path} keeps its connection");
    }
    assert_eq!((engine.connects, engine.requests), (1, 5));
    // The second answer on one connection says that it is the last.
    let keeping = Monitored::get(nginx.address(loopbacks()[0]), "/keepalive").kept();
    let mut engine = Engine::of(&[&keeping]);
    assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
    assert_eq!(engine.rest(), 1);
    assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
    assert_eq!((engine.rest(), engine.fin_came, engine.connects), (0, true, 1));
}

const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_kept_connection_that_was_closed_between_checks_is_no_verdict() {
    let Some(nginx) = Nginx::start() else { return };
    let keeping = Monitored::get(nginx.address(loopbacks()[0]), "/keepalive").kept();
    let raw = RawServer::start(Script::AnswerOnce(KEPT.to_vec()));
    let raw_keeping = Monitored::get(raw.address(), "/").kept();
    for (monitored, idle) in [(keeping, 2_000), (raw_keeping, 300)] {
        let mut engine = Engine::of(&[&monitored]);
        assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
        assert_eq!(engine.rest(), 1);
        engine.idle(Duration::from_millis(idle));
        assert_eq!((engine.rest(), engine.fin_came), (0, true), "its end was noticed when it came");
        assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
        assert_eq!((engine.connects, engine.requests), (2, 2));
    }
}

#[test]
fn a_kept_connection_that_ends_under_a_request_is_no_verdict() {
    let ends = [
        Script::Answer(Vec::new()),
        Script::Answer(b"HTTP/1.1 200 OK\r\nServ".to_vec()),
        Script::AnswerThenReset(Vec::new()),
        Script::Silence,
    ];
    for end in ends {
        println!("{end:?}");
        let server = RawServer::start(Script::AnswerFirst(KEPT.to_vec(), Box::new(end)));
        let mut engine = Engine::of(&[&Monitored::get(server.address(), "/").kept().within(SOON)]);
        for _ in 0..3 {
            assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
        }
        assert_eq!((engine.rest(), engine.connects, engine.requests), (1, 3, 5), "asked again on a fresh connection");
    }
}

#[test]
fn an_unexpected_status_on_a_kept_connection_is_a_verdict() {
    let teapot = b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n".to_vec();
    let script = Script::AnswerFirst(KEPT.to_vec(), Box::new(Script::Answer(teapot)));
    let server = RawServer::start(script);
    let mut engine = Engine::of(&[&Monitored::get(server.address(), "/").kept()]);
    assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
    assert_outcome(&engine.check(0), Code::L7Sts, 418, "418 Teapot, expected 200-299");
    assert_eq!((engine.connects, engine.requests), (1, 2));
}

#[test]
fn a_failed_attempt_is_tried_again_as_often_as_was_asked_for() {
    let server = RawServer::start(Script::Answer(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()));
    let mut engine = Engine::of(&[&Monitored::get(server.address(), "/").retried(2)]);
    let outcome = engine.check(0);
    assert_outcome(&outcome, Code::L7Rsp, 0, "not an HTTP/1 answer");
    assert_eq!((outcome.attempts, engine.connects, engine.rest()), (3, 3, 0));
}

#[test]
fn haproxy_is_judged_by_its_answers() {
    let Some(haproxy) = Haproxy::start() else { return };
    let words = "503 Service Unavailable, expected 200-299: <html><body><h1>503 Service Unavailable</h1>";
    for loopback in loopbacks() {
        let get = |frontend| Monitored::get(haproxy.address(frontend, loopback), "/");
        assert_check(&get(Frontend::Ok), Code::L7Ok, 200, "");
        assert_check(&get(Frontend::Ok).with(|check| check.method = "HEAD".into()), Code::L7Ok, 200, "");
        assert_check(&get(Frontend::NoServer), Code::L7Sts, 503, words);
        assert_check(&get(Frontend::Reject), Code::L7Rsp, 0, "closed without an answer");
        // Its reset races with the connect: either the connect tells, or the first thing after it.
        let rejected = Engine::of(&[&get(Frontend::RejectConnection)]).check(0);
        assert!(matches!(rejected.code, Code::L4Con | Code::L7Rsp), "{rejected:?}");
        assert_check(&get(Frontend::Tarpit).within(SOON), Code::L7Tout, 0, "no answer after connecting to ");
        assert_check(&get(Frontend::Tarpit), Code::L7Sts, 500, "500 Internal Server Error, expected 200-299");
    }
}

#[test]
fn haproxy_keeps_connections() {
    let Some(haproxy) = Haproxy::start() else { return };
    let address = haproxy.address(Frontend::Ok, loopbacks()[0]);
    let mut engine = Engine::of(&[&Monitored::get(address, "/").kept()]);
    for _ in 0..3 {
        assert_outcome(&engine.check(0), Code::L7Ok, 200, "");
    }
    assert_eq!((engine.rest(), engine.connects, engine.requests), (1, 1, 3));
}

#[test]
fn bad_servers_are_told_apart() {
    let answer = |bytes: &[u8]| Script::Answer(bytes.to_vec());
    let slow = |bytes: &[u8]| Script::AnswerSlowly(bytes.to_vec(), Duration::from_millis(50));
    let small = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let teapot = b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort";
    let greeting = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    let table = [
        (answer(&raw::unframed()), Code::L7Ok, 200, ""),
        (answer(b"HTTP/1.0 200 OK\r\n\r\n"), Code::L7Ok, 200, ""),
        (answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n"), Code::L7Ok, 204, ""),
        (slow(small), Code::L7Tout, 0, "head incomplete after "),
        (slow(teapot), Code::L7Tout, 0, "head incomplete after "),
        (answer(&raw::oversized_head()), Code::L7Rsp, 0, "head larger than 16384 bytes"),
        (answer(greeting), Code::L7Rsp, 0, "not an HTTP/1 answer: begins with \"SSH-2.0-OpenSSH_9.2p1\\r\\n\""),
        (answer(b"\x15\x03\x01\0\x02\x02\x50"), Code::L7Rsp, 0, "not an HTTP/1 answer: begins with \"\\x15"),
        (answer(b"hello, this is HTTP/0.9\n"), Code::L7Rsp, 0, "not an HTTP/1 answer: begins with \"hello, this"),
        (answer(b""), Code::L7Rsp, 0, "closed without an answer"),
        (answer(b"HTTP/1.1 200 OK\r\nServ"), Code::L7Rsp, 0, "cut off in the head after 21 bytes"),
        (answer(&raw::cut_off(500, 120)), Code::L7Rsp, 200, "cut off in the body after 120 of 500 bytes"),
        (Script::AnswerThenReset(raw::cut_off(500, 120)), Code::L7Rsp, 200, "connection reset after 120 of 500 bytes"),
        (Script::AnswerThenReset(Vec::new()), Code::L7Rsp, 0, "connection reset before an answer"),
        (Script::AnswerEarly(teapot.to_vec()), Code::L7Sts, 418, "418 Teapot, expected 200-299: short"),
        (Script::Silence, Code::L7Tout, 0, "no answer after connecting to 127.0.0.1:"),
        (Script::Stop, Code::L7Tout, 0, "no answer after connecting to 127.0.0.1:"),
    ];
    for (script, code, status, evidence) in table {
        println!("{script:.80?}");
        let server = RawServer::start(script);
        assert_check(&Monitored::get(server.address(), "/").within(SOON), code, status, evidence);
    }
}

#[test]
fn a_slow_head_is_an_answer_when_there_is_time() {
    let server = RawServer::start(Script::AnswerSlowly(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
        Duration::from_millis(50),
    ));
    assert_check(&Monitored::get(server.address(), "/").within(Duration::from_secs(10)), Code::L7Ok, 200, "");
}

#[test]
fn an_answer_to_a_request_that_was_not_read_counts() {
    // More than the socket buffers of both sides take: the rest meets a reset.
    let large = |address| {
        Monitored::get(address, "/").with(|check| {
            check.method = "POST".into();
            check.body = vec![b'x'; 16 * 1024 * 1024].into();
        })
    };
    let refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let server = RawServer::start(Script::AnswerEarly(refused));
    assert_check(&large(server.address()), Code::L7Sts, 413, "413 Too Large, expected 200-299");
    let server = RawServer::start(Script::Stop);
    let words = format!("request not taken by {} in ", server.address());
    assert_check(&large(server.address()).within(SOON), Code::L7Tout, 0, &words);
}

#[test]
fn a_raw_server_on_ipv6_is_reached_too() {
    let Some(loopback) = loopback_v6() else { return };
    let server = RawServer::start_on(loopback, Script::Answer(raw::unframed()));
    assert_check(&Monitored::get(server.address(), "/"), Code::L7Ok, 200, "");
}

#[test]
fn without_a_connection_it_is_a_matter_of_layer_4() {
    for loopback in loopbacks() {
        let nobody = SocketAddr::new(loopback, free_port());
        assert_check(&Monitored::get(nobody, "/"), Code::L4Con, 0, &format!("connection refused {nobody}"));
    }
    let full = FullBacklog::start();
    let words = format!("no answer from {} in ", full.address());
    assert_check(&Monitored::get(full.address(), "/").within(SOON), Code::L4Tout, 0, &words);
}
