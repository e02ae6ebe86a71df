//! What changes something: jobs' calls, people, and who may.

use std::sync::atomic::Ordering;

use super::fake::{DOWN, Fake, JOB, ODD, OFF, PUSH_TOKEN, Running};
use super::routes::encoded;
use crate::api::access::Token;
use crate::units::limits::{API_PUSH_BODY_MAX, API_STATES_SCAN_MAX};

const TOKEN: &str = "a-token-of-some-length";

fn post(running: &Running, path: &str, head: &str, body: &str) -> (u16, String, serde_json::Value) {
    let length = body.len();
    let reply = running.raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    ));
    (reply.status, reply.head.clone(), serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[test]
fn a_jobs_call_reaches_its_monitor() {
    let running = Running::new(Fake::small());
    let path = format!("/api/v1/push/{}", encoded(PUSH_TOKEN));
    let call = |rest: &str, body: &str| post(&running, &format!("{path}{rest}"), "", body);
    let (status, _, body) = call("", "");
    assert_eq!((status, &body["monitor"], &body["taken"]), (200, &JOB.into(), &"ok".into()));
    for (rest, body, done) in [
        ("", "", "push batch/backup true "),
        ("", "\r\n 42 files\nmore\n", "push batch/backup true 42 files"),
        ("/fail", "disk full", "push batch/backup false disk full"),
        ("?status=fail&msg=no%20space", "body", "push batch/backup false no space"),
        ("?status=ok", "", "push batch/backup true "),
        ("/fail?status=fail", "", "push batch/backup false "),
        ("?msg=a%0Ab%1b", "", "push batch/backup true a b"),
    ] {
        running.fake.done();
        let (status, _, answer) = call(rest, body);
        assert_eq!(status, 200, "{rest}: {answer}");
        assert_eq!(running.fake.done(), [done], "{rest}");
    }
    let (status, _, body) = call("?status=fial", "");
    assert!(status == 400 && body["error"].as_str().is_some_and(|error| error.contains("did you mean fail")), "{body}");
    assert_eq!(call("/fail?status=ok", "").0, 400);
    assert_eq!(call("", &"x".repeat(API_PUSH_BODY_MAX + 1)).0, 413);
    assert_eq!(call("", &"x".repeat(API_PUSH_BODY_MAX)).0, 200);
    running.fake.done();
    running.fake.full.store(true, Ordering::Relaxed);
    assert_eq!(call("", "").0, 503, "what is not taken is not said to be");
}

#[test]
fn looking_at_a_jobs_address_is_no_call() {
    let running = Running::new(Fake::small());
    let path = format!("/api/v1/push/{}", encoded(PUSH_TOKEN));
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let reply = running.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("allow: post"), "{}", reply.head);
    }
    let foreign = format!("POST {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(running.raw(&foreign).status, 421);
    let hostless = format!("POST {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(running.raw(&hostless).status, 400);
    assert!(running.fake.done().is_empty());
    for wrong in ["t0ken", "t0ken%2Bof%2Fa%20jo", "%FF", "", "x/fail", "/fail", "fail"] {
        let (status, _, body) = post(&running, &format!("/api/v1/push/{wrong}"), "", "");
        assert_eq!(status, 404, "{wrong}");
        assert!(wrong.is_empty() || !body.to_string().contains("t0ken"), "{body}");
    }
    assert!(running.fake.done().is_empty());
}

#[test]
fn over_tcp_a_change_needs_the_token() {
    let path = format!("/api/v1/monitors/{DOWN}/check");
    let without = Running::new(Fake::small());
    let (status, _, body) = post(&without, &path, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!(
        (status, body["remedy"].as_str().is_some_and(|text| text.contains("token_file"))),
        (403, true),
        "{body}"
    );
    assert!(without.fake.done().is_empty());

    let running = Running::with(Fake::small(), Token::of(TOKEN.as_bytes()).ok());
    for head in ["", "Authorization: Bearer wrong-token-of-length\r\n", "Authorization: Basic YTpi\r\n"] {
        let (status, answer, _) = post(&running, &path, head, "");
        assert_eq!((status, answer.contains("www-authenticate: bearer")), (401, true), "{head}");
    }
    assert!(running.fake.done().is_empty());
    let (status, _, body) = post(&running, &path, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!((status, &body["done"], &body["monitor"]), (200, &"check".into(), &DOWN.into()));
    assert_eq!(running.fake.done(), ["check shop/web"]);
    let (status, ..) = post(&running, &path, &format!("Authorization: Bearer {TOKEN}\r\n"), "body");
    assert_eq!(status, 413);
    // The host is checked first, whoever asks.
    let foreign = format!(
        "POST {path} HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(running.raw(&foreign).status, 421);
    let wrong = format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let reply = running.raw(&wrong);
    assert!(reply.status == 405 && reply.head.contains("allow: get, head, post"), "{}", reply.head);
}

#[test]
fn histograms_are_dumped_for_those_who_may_change_something() {
    let path = "/api/v1/histograms/dump";
    let running = Running::with(Fake::small(), Token::of(TOKEN.as_bytes()).ok());
    assert_eq!(post(&running, path, "", "").0, 401);
    for method in ["GET", "HEAD", "PUT"] {
        let reply = running.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert!(reply.status == 405 && reply.head.contains("allow: post"), "{method}: {}", reply.head);
    }
    assert!(running.fake.done().is_empty());
    let (status, _, body) = post(&running, path, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!((status, &body["file"]), (200, &"/var/lib/cpra/histograms/cpra-20261122T181323Z.hlog".into()));
    assert_eq!(body["series"], serde_json::json!([{"tag": "pulse-tcp-result", "count": 42}]));
    assert_eq!((&body["seconds"], &body["silent_shards"]), (&1.5.into(), &serde_json::json!([2])));
    assert_eq!(running.locally("POST", path).0, 200);
    assert_eq!(running.fake.done(), ["dump", "dump"]);
    running.fake.alive.store(false, Ordering::Relaxed);
    let (status, body) = running.locally("POST", path);
    assert!(status == 503 && body["error"].as_str().is_some_and(|text| text.contains("/full")), "{body}");
    assert!(body["remedy"].as_str().is_some_and(|text| text.contains("[histograms] dir")), "{body}");
    running.fake.full.store(true, Ordering::Relaxed);
    assert_eq!(running.locally("POST", path).0, 503);
}

#[test]
fn on_the_unix_socket_the_user_is_the_token() {
    let running = Running::new(Fake::small());
    for (action, done) in
        [("check", "check shop/web"), ("disable", "switch shop/web false"), ("enable", "switch shop/web true")]
    {
        let (status, body) = running.locally("POST", &format!("/api/v1/monitors/{DOWN}/{action}"));
        assert_eq!((status, &body["done"]), (200, &action.into()), "{body}");
        assert_eq!(running.fake.done(), [done]);
    }
    let (status, body) = running.locally("GET", "/api/v1/status");
    assert_eq!((status, &body["instance"]), (200, &"mon<1>".into()));
    let (status, body) = running.locally("POST", "/api/v1/monitors/shop/wbe/disable");
    assert_eq!((status, body["remedy"].as_str().is_some_and(|text| text.contains(DOWN))), (404, true), "{body}");
    let (status, body) = running.locally("POST", &format!("/api/v1/monitors/{OFF}/check"));
    assert_eq!((status, &body["error"]), (409, &"\"net/gateway\" is disabled".into()));
    let (status, body) = running.locally("POST", &format!("/api/v1/monitors/{JOB}/check"));
    assert_eq!((status, body["error"].as_str().is_some_and(|text| text.contains("calls in"))), (409, true), "{body}");
    assert_eq!(running.locally("POST", "/api/v1/monitors/%FF/check").0, 400);
    assert!(running.fake.done().is_empty());
    running.fake.silent.store(true, Ordering::Relaxed);
    assert_eq!(running.locally("POST", &format!("/api/v1/monitors/{DOWN}/disable")).0, 503);
}

#[test]
fn odd_names_can_be_changed() {
    let running =
        Running::new(Fake::new(ODD.iter().map(ToString::to_string).chain(["a/check".to_owned(), DOWN.to_owned()])));
    for name in ODD.into_iter().chain(["a/check"]) {
        let (status, body) = running.locally("POST", &format!("/api/v1/monitors/{}/disable", encoded(name)));
        assert_eq!((status, &body["monitor"]), (200, &name.into()), "{name}");
        assert_eq!(running.fake.done(), [format!("switch {name} false")]);
    }
    let (status, body) = running.json("/api/v1/monitors/a/check");
    assert_eq!((status, &body["name"]), (200, &"a/check".into()), "a name may end like an action");
}

#[test]
fn pages_can_be_asked_for_by_state_and_group() {
    let running = Running::new(Fake::small());
    let names = |path: &str| -> Vec<String> {
        let (status, body) = running.json(path);
        assert_eq!(status, 200, "{body}");
        let page = body["monitors"].as_array().expect("a page");
        page.iter().map(|monitor| monitor["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names("/api/v1/monitors?state=down"), [DOWN]);
    assert_eq!(names("/api/v1/monitors?state=disabled"), [OFF]);
    assert_eq!(names("/api/v1/monitors?state=suspect"), [""; 0]);
    assert_eq!(names("/api/v1/monitors?group=shop"), ["shop/db", DOWN]);
    assert_eq!(names("/api/v1/monitors?group=shop&state=up"), ["shop/db"]);
    assert_eq!(names("/api/v1/monitors?group=shop&q=web&state=down&limit=1"), [DOWN]);
    assert_eq!(names("/api/v1/monitors?group=nobody"), [""; 0]);
    assert_eq!(names("/api/v1/monitors?state=&group=").len(), 14);
    let (status, body) = running.json("/api/v1/monitors?state=dwon");
    assert_eq!((status, &body["error"]), (400, &"state=dwon is unknown, did you mean down?".into()));
    assert!(body["remedy"].as_str().is_some_and(|text| text.contains("unreachable")), "{body}");
    assert_eq!(running.json("/api/v1/monitors?state=Down").0, 400);
}

#[test]
fn a_filter_over_many_ends_in_time_and_goes_on() {
    let count = API_STATES_SCAN_MAX + 3_000;
    let names = (0..count).map(|number| format!("host-{number:06}"));
    let running = Running::new(Fake::new(names.chain([DOWN.to_owned()])));
    // Only the last one of all is down.
    let (status, body) = running.json("/api/v1/monitors?state=down");
    assert_eq!(
        (status, body["monitors"].as_array().map(Vec::len)),
        (200, Some(0)),
        "an empty page is not the last one"
    );
    assert_eq!(body["scanned"], API_STATES_SCAN_MAX);
    let cursor = body["next_cursor"].as_str().expect("there is more").to_owned();
    let (status, body) = running.json(&format!("/api/v1/monitors?state=down&cursor={cursor}"));
    assert_eq!(
        (status, &body["monitors"][0]["name"], &body["next_cursor"]),
        (200, &DOWN.into(), &serde_json::Value::Null)
    );
    assert_eq!(body["scanned"], 3_001);

    // Pages of a state follow each other without gaps.
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let (status, body) = running.json(&format!("/api/v1/monitors?state=up&limit=999&cursor={cursor}"));
        assert_eq!(status, 200);
        seen += body["monitors"].as_array().map_or(0, Vec::len);
        let Some(next) = body["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    assert_eq!(seen, count);
}
