//! HTTP in full against real servers: what answers say, where redirects lead, what proxies make of it, how long it took.

mod counterparts;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cpra::domain::monitor::{Assertion, HeaderRule, JsonRule, MaxLatency, Pattern, Proxy, Secret};
use cpra::domain::{Code, Host, HttpCheck, Outcome, StatusSet, Verdict, VoidReason};
use cpra::shard::protocol::Resolution;
use cpra::units::Span;

use counterparts::engine::{Engine, Monitored};
use counterparts::haproxy::{Frontend, Haproxy};
use counterparts::raw::{RawServer, Script};
use counterparts::site::Site;
use counterparts::tinyproxy::Tinyproxy;
use counterparts::{free_port, loopback_v6};

#[track_caller]
fn assert_outcome(outcome: &Outcome, code: Code, verdict: Verdict, evidence: &str) {
    assert_eq!((outcome.code, outcome.verdict()), (code, verdict), "{:?}", outcome.evidence);
    let words = outcome.evidence.as_deref().unwrap_or("");
    if evidence.is_empty() {
        assert_eq!(words, "");
    } else {
        assert!(words.starts_with(evidence), "{words:?} should begin with {evidence:?}");
    }
}

/// One row of a table: ok without evidence, or a failure of layer 7.
#[track_caller]
fn assert_check(monitored: &Monitored, code: Code, evidence: &str) {
    let verdict = if code == Code::L7Ok { Verdict::Ok } else { Verdict::Fail };
    let mut engine = Engine::of(&[monitored]);
    assert_outcome(&engine.check(0), code, verdict, evidence);
    assert_eq!(engine.rest(), 0, "nothing is left behind");
}

fn contains(wanted: &str) -> Assertion {
    Assertion::Contains(wanted.into())
}

fn lacks(unwanted: &str) -> Assertion {
    Assertion::NotContains(unwanted.into())
}

fn matches(pattern: &str) -> Assertion {
    Assertion::Matches(Pattern::new(pattern).expect("a sound pattern"))
}

fn json(pointer: &str, rule: JsonRule) -> Assertion {
    Assertion::Json { pointer: pointer.into(), rule }
}

fn header(name: &str, rule: HeaderRule) -> Assertion {
    Assertion::Header { name: name.into(), rule }
}

fn asserting(check: &mut HttpCheck, assertion: &Assertion) {
    check.assertions = Box::new([assertion.clone()]);
}

#[test]
fn nginx_is_judged_by_what_it_says() {
    let Some(site) = Site::start() else { return };
    let health = r#"{"status":"degraded","queue":{"depth":120}"#;
    let no_ok = format!(r#"body does not contain "all ok": {health}"#);
    let table = [
        ("/health", contains("degraded"), Code::L7Ok, ""),
        ("/health", contains("all ok"), Code::L7Rsp, no_ok.as_str()),
        ("/health", lacks("panic"), Code::L7Ok, ""),
        ("/health", lacks("degraded"), Code::L7Rsp, r#"body contains "degraded": {"status":"#),
        ("/health", matches(r#""depth":\d+\b"#), Code::L7Ok, ""),
        ("/health", matches("^OK$"), Code::L7Rsp, r#"body does not match "^OK$": {"status""#),
        ("/health", json("/nodes/0/up", JsonRule::Equals("true".into())), Code::L7Ok, ""),
        ("/health", json("/queue/depth", JsonRule::Below("121".into())), Code::L7Ok, ""),
        (
            "/health",
            json("/queue/depth", JsonRule::Below("100".into())),
            Code::L7Rsp,
            "/queue/depth is 120, expected below 100",
        ),
        (
            "/health",
            json("/status", JsonRule::Equals("\"ok\"".into())),
            Code::L7Rsp,
            r#"/status is "degraded", expected "ok""#,
        ),
        (
            "/health",
            json("/queue/age", JsonRule::AtMost("9".into())),
            Code::L7Rsp,
            "/queue/age is missing, expected at most 9",
        ),
        (
            "/page.html",
            json("/status", JsonRule::Exists),
            Code::L7Rsp,
            "body is not JSON: expected value at line 1 column 1: <p>all is fine</p>",
        ),
        ("/health", header("content-type", HeaderRule::Equals("application/json".into())), Code::L7Ok, ""),
        (
            "/health",
            header("x-version", HeaderRule::Equals("8".into())),
            Code::L7Rsp,
            "header x-version is 7, expected 8",
        ),
        (
            "/health",
            header("strict-transport-security", HeaderRule::Exists),
            Code::L7Rsp,
            "header strict-transport-security is missing",
        ),
        (
            "/page.html",
            header("content-type", HeaderRule::Contains("json".into())),
            Code::L7Rsp,
            "header content-type is text/html, expected to contain json",
        ),
        ("/no-such-page", contains("all is fine"), Code::L7Sts, "404 Not Found, expected 200-299: <html>"),
    ];
    for (path, assertion, code, evidence) in table {
        println!("{path} {assertion:?}");
        assert_check(&Monitored::get(site.address(), path).with(|check| asserting(check, &assertion)), code, evidence);
    }
}

#[test]
fn nginx_packs_what_is_looked_at() {
    let Some(site) = Site::start() else { return };
    let packed = header("content-encoding", HeaderRule::Equals("gzip".into()));
    let get = |path: &str, assertions: &[Assertion]| {
        Monitored::get(site.address(), path).with(|check| check.assertions = assertions.into())
    };
    assert_check(&get("/packed", &[packed.clone(), contains("all is fine"), lacks("panic")]), Code::L7Ok, "");
    assert_check(
        &get("/packed", &[packed.clone(), lacks("fine")]),
        Code::L7Rsp,
        r#"body contains "fine": <p>all is fine</p>"#,
    );
    // Nobody asked for it.
    assert_check(
        &get("/packed", std::slice::from_ref(&packed)),
        Code::L7Rsp,
        "header content-encoding is missing, expected gzip",
    );
    // Three megabytes that come as a few thousand bytes are still three megabytes.
    assert_check(
        &get("/huge.html", &[packed.clone(), lacks("panic")]),
        Code::L7Rsp,
        "body is larger than 1048576 bytes",
    );
    let larger = get("/huge.html", &[packed.clone(), lacks("panic")]).with(|check| check.body_max = 4 * 1024 * 1024);
    assert_check(&larger, Code::L7Ok, "");
    // The file's own word about what may come.
    let plain = get("/packed", &[contains("all is fine"), header("content-encoding", HeaderRule::Absent)])
        .with(|check| check.headers = Box::new([("Accept-Encoding".into(), "identity".into())]));
    assert_check(&plain, Code::L7Ok, "");
    // An end that is cut off.
    let broken = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48".to_vec();
    let server = RawServer::start(Script::Answer(broken));
    let check = Monitored::get(server.address(), "/").with(|check| asserting(check, &lacks("panic")));
    assert_check(&check, Code::L7Rsp, "body is not the gzip that its head announces: it is cut off or damaged");
    let brotli = b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\n\x0b".to_vec();
    let server = RawServer::start(Script::Answer(brotli));
    let check = Monitored::get(server.address(), "/").with(|check| asserting(check, &lacks("panic")));
    assert_check(&check, Code::L7Rsp, "body is encoded as br, which was not asked for and cannot be read");
}

#[test]
fn a_stream_that_never_ends_can_say_enough() {
    let server = RawServer::start(Script::AnswerFirst(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: ready\n\n".to_vec(),
        Box::new(Script::Stop),
    ));
    let get =
        |wanted: &str| Monitored::get(server.address(), "/events").with(|check| asserting(check, &contains(wanted)));
    assert_check(&get("event: ready"), Code::L7Ok, "");
    let waiting = get("event: done").within(Duration::from_millis(300));
    assert_check(&waiting, Code::L7Tout, "body: 14 bytes without an end in ");
}

#[test]
fn nginx_lets_in_who_knows_the_password() {
    let Some(site) = Site::start() else { return };
    let get = |authorization: Option<&str>| {
        Monitored::get(site.address(), "/login").with(|check| check.authorization = authorization.map(Secret::new))
    };
    assert_check(&get(Some("Basic cHJvYmU6cGFzcy1waHJhc2U=")), Code::L7Ok, "");
    assert_check(&get(Some("Basic cHJvYmU6d3Jvbmc=")), Code::L7Sts, "401 Unauthorized, expected 200-299");
    assert_check(&get(None), Code::L7Sts, "401 Unauthorized, expected 200-299");
    // What comes back of it is not shown.
    let echoed = Monitored::get(site.address(), "/echo").with(|check| {
        check.authorization = Some(Secret::new("Bearer s3cr3t-token"));
        asserting(check, &contains("never"));
    });
    let words = "body does not contain \"never\": GET /echo as 127.0.0.1: authorization=(secret) cookie= key=";
    assert_check(&echoed, Code::L7Rsp, words);
}

fn led(address: SocketAddr, path: &str) -> Monitored {
    Monitored::get(address, path).with(|check| {
        check.redirects = 5;
        check.assertions = Box::new([contains("/echo as ")]);
    })
}

#[test]
fn nginx_leads_to_other_pages() {
    let Some(site) = Site::start() else { return };
    for path in ["/moved", "/see", "/again", "/relative", "/one", "/away"] {
        println!("{path}");
        assert_check(&led(site.address(), path), Code::L7Ok, "");
    }
    let here = format!("http://{}", site.address());
    let lost = format!("{here}/no-such-page (after 1 redirect): 404 Not Found, expected 200-299: <html>");
    let circle = format!("redirect loop: {here}/circle -> /circle/2 -> /circle");
    let many = format!("more than 2 redirects: {here}/one -> /two -> /three -> /echo");
    let table = [
        ("/lost", 5, Code::L7Sts, lost.as_str()),
        ("/circle", 5, Code::L7Rsp, &circle),
        ("/one", 2, Code::L7Rsp, &many),
        ("/one", 0, Code::L7Sts, "302 Moved Temporarily to /two, expected 200-299"),
        ("/gone", 5, Code::L4Con, "http://127.0.0.1:1/ (after 1 redirect): connection refused 127.0.0.1:1"),
        (
            "/metadata",
            5,
            Code::L7Rsp,
            "redirect to http://169.254.169.254/latest/meta-data/: 169.254.169.254 is link-local",
        ),
        ("/file", 5, Code::L7Rsp, "redirect to file:///etc/passwd: file is not followed, only http and https are"),
    ];
    for (path, redirects, code, evidence) in table {
        println!("{path}");
        assert_check(&led(site.address(), path).with(|check| check.redirects = redirects), code, evidence);
    }
    // Each hop is a connection, which nginx is let close.
    let mut engine = Engine::of(&[&led(site.address(), "/one")]);
    assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    assert_eq!((engine.rest(), engine.fin_came, engine.connects, engine.requests), (0, true, 4, 4));
}

#[test]
fn methods_and_bodies_go_along_as_they_should() {
    let Some(site) = Site::start() else { return };
    let post = |path: &str, wanted: &str| {
        led(site.address(), path).with(|check| {
            check.method = "POST".into();
            check.body = b"12345".as_slice().into();
            check.assertions = Box::new([contains(wanted)]);
        })
    };
    assert_check(&post("/moved", "GET /echo as 127.0.0.1: authorization= cookie= key= length= via="), Code::L7Ok, "");
    assert_check(&post("/see", "GET /echo "), Code::L7Ok, "");
    assert_check(&post("/again", "POST /echo as 127.0.0.1: authorization= cookie= key= length=5 "), Code::L7Ok, "");
}

#[test]
fn credentials_stay_with_their_origin() {
    let Some(site) = Site::start() else { return };
    let secretive = |address, path: &str, wanted: &str| {
        led(address, path).with(|check| {
            check.authorization = Some(Secret::new("Bearer s3cr3t-token"));
            check.headers = Box::new([("Cookie".into(), "session=1".into()), ("X-Api-Key".into(), "key".into())]);
            check.assertions = Box::new([contains(wanted)]);
        })
    };
    let all = "authorization=Bearer s3cr3t-token cookie=session=1 key=key ";
    let nothing = "authorization= cookie= key= ";
    assert_check(&secretive(site.address(), "/moved", all), Code::L7Ok, "");
    assert_check(&secretive(site.address(), "/away", nothing), Code::L7Ok, "");
    assert_check(&secretive(site.other(), "/back", nothing), Code::L7Ok, "");
}

#[test]
fn a_hop_may_change_the_family() {
    let Some(site) = Site::start() else { return };
    if loopback_v6().is_none() {
        return;
    }
    let six = led(site.address(), "/six").with(|check| asserting(check, &contains("as [::1]: ")));
    let four = led(site.on(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)), "/away");
    let mut engine = Engine::of(&[&six, &four]);
    for index in [0, 1, 0, 0, 1] {
        assert_outcome(&engine.check(index), Code::L7Ok, Verdict::Ok, "");
    }
    assert_eq!((engine.rest(), engine.connects), (0, 10));
}

#[test]
fn names_that_redirects_lead_to_are_asked_for() {
    let Some(site) = Site::start() else { return };
    let named = led(site.address(), "/named").with(|check| asserting(check, &contains("as other.example: ")));
    let address = |text: &str| text.parse().expect("an address");
    let found = |text: &str| Resolution::Found { addresses: vec![address(text)], ttl: Span::from_secs(30) };
    let url = format!("http://other.example:{}/echo", site.other().port());
    let no_name = format!("redirect to {url}: other.example: no such name");
    let no_resolver = format!("redirect to {url}: other.example: the resolver failed: SERVFAIL");
    let link_local = format!("redirect to {url}: 169.254.169.254 is link-local, where clouds serve");
    let resolver = Code::Void(VoidReason::Resolver);
    let table = [
        (found("127.0.0.1"), Code::L7Ok, Verdict::Ok, ""),
        (Resolution::NotFound, Code::L4Dns, Verdict::Fail, no_name.as_str()),
        (Resolution::Failed("SERVFAIL".into()), resolver, Verdict::Void, &no_resolver),
        // A name that turns out to be where it should not be.
        (found("169.254.169.254"), Code::L7Rsp, Verdict::Fail, &link_local),
        (
            found("::ffff:169.254.169.254"),
            Code::L7Rsp,
            Verdict::Fail,
            &link_local.replace(": 169.254", ": ::ffff:169.254"),
        ),
    ];
    for (resolution, code, verdict, evidence) in table {
        let mut engine = Engine::of(&[&named]);
        engine.names.insert("other.example".into(), resolution);
        for _ in 0..2 {
            assert_outcome(&engine.check(0), code, verdict, evidence);
        }
        assert_eq!(engine.rest(), 0);
    }
}

#[test]
fn all_hops_together_have_the_time_of_one_attempt() {
    let slow = |location: &str| {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        RawServer::start(Script::AnswerSlowly(answer.into_bytes(), Duration::from_millis(4)))
    };
    let silent = RawServer::start(Script::Silence);
    let last = format!("http://{}/", silent.address());
    let (second, first) = {
        let second = slow(&last);
        let first = slow(&format!("http://{}/2", second.address()));
        (second, first)
    };
    let check = led(first.address(), "/1").within(Duration::from_millis(1_500));
    let mut engine = Engine::of(&[&check]);
    let outcome = engine.check(0);
    let words = format!("{last} (after 2 redirects): no answer after connecting to {} in ", silent.address());
    assert_outcome(&outcome, Code::L7Tout, Verdict::Fail, &words);
    let total = outcome.latency.total;
    assert!(total >= Span::from_millis(1_500) && total < Span::from_millis(1_900), "{total}");
    assert_eq!((engine.connects, engine.rest()), (3, 0));
    drop((first, second));
}

#[test]
fn a_hop_that_fails_is_tried_again_from_the_start() {
    let Some(site) = Site::start() else { return };
    let mut engine = Engine::of(&[&led(site.address(), "/gone").retried(2)]);
    let outcome = engine.check(0);
    assert_outcome(&outcome, Code::L4Con, Verdict::Fail, "http://127.0.0.1:1/ (after 1 redirect): connection refused");
    assert_eq!((outcome.attempts, engine.connects, engine.requests, engine.rest()), (3, 6, 3, 0));
}

#[test]
fn haproxy_is_followed_and_looked_at() {
    let Some(haproxy) = Haproxy::start() else { return };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let get = |frontend, assertions: &[Assertion]| {
        Monitored::get(haproxy.address(frontend, loopback), "/").with(|check| {
            check.redirects = 1;
            check.assertions = assertions.into();
        })
    };
    let up = json("/status", JsonRule::Equals("\"up\"".into()));
    assert_check(
        &get(Frontend::Moved, &[up, header("cache-control", HeaderRule::Equals("no-store".into()))]),
        Code::L7Ok,
        "",
    );
    let there = format!("http://{}/there (after 1 redirect): ", haproxy.address(Frontend::Moved, loopback));
    let down = json("/status", JsonRule::Equals("\"down\"".into()));
    assert_check(&get(Frontend::Moved, &[down]), Code::L7Rsp, &format!("{there}/status is \"up\", expected \"down\""));
    assert_check(
        &get(Frontend::Moved, &[]).with(|check| check.redirects = 0),
        Code::L7Sts,
        "307 Temporary Redirect to /there, expected 200-299",
    );
    assert_check(&get(Frontend::Ok, &[contains("fine")]), Code::L7Ok, "");
    assert_check(&get(Frontend::Ok, &[contains("better")]), Code::L7Rsp, "body does not contain \"better\": fine");
    assert_check(
        &get(Frontend::NoServer, &[contains("fine")]),
        Code::L7Sts,
        "503 Service Unavailable, expected 200-299: <html>",
    );
}

fn via(proxy: SocketAddr, authorization: Option<&str>) -> Proxy {
    Proxy { host: Host::Literal(proxy.ip()), port: proxy.port(), authorization: authorization.map(Secret::new) }
}

#[test]
fn a_proxy_is_dialled_in_the_place_of_the_target() {
    let (Some(site), Some(proxy)) = (Site::start(), Tinyproxy::start(None)) else { return };
    let get = |path: &str| led(site.address(), path).with(|check| check.proxy = Some(via(proxy.address(), None)));
    let through = |monitored: Monitored| {
        monitored.with(|check| {
            check.assertions = Box::new([Assertion::Matches(Pattern::new("via=.*tinyproxy").expect("sound"))]);
        })
    };
    // Also where redirects lead.
    for path in ["/echo", "/moved", "/away", "/one"] {
        println!("{path}");
        assert_check(&through(get(path)), Code::L7Ok, "");
    }
    assert_check(
        &get("/lost").with(|check| check.redirects = 0),
        Code::L7Sts,
        "302 Moved Temporarily to /no-such-page, expected 200-299",
    );
    assert_check(
        &get("/metadata"),
        Code::L7Rsp,
        "redirect to http://169.254.169.254/latest/meta-data/: 169.254.169.254 is link-local",
    );
    // A target that is not there is the proxy's to say.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dead = Monitored::get(nobody, "/").with(|check| check.proxy = Some(via(proxy.address(), None)));
    let outcome = Engine::of(&[&dead]).check(0);
    assert_eq!((outcome.code, outcome.verdict()), (Code::L7Sts, Verdict::Fail), "{outcome:?}");
    assert!(outcome.status.is_some_and(|status| status >= 500), "{outcome:?}");
    // The target's name is none of our business then: the proxy resolves it.
    let mut named = through(get("/echo"));
    named.host = Host::Name("localhost".into());
    let mut engine = Engine::of(&[&named]);
    engine.names.insert("localhost".into(), Resolution::Failed("nobody should ask".into()));
    assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    // A proxy by name.
    let mut by_name = through(get("/echo"));
    by_name = by_name.with(|check| {
        let port = proxy.address().port();
        check.proxy = Some(Proxy { host: Host::Name("proxy.example".into()), port, authorization: None });
    });
    let mut engine = Engine::of(&[&by_name]);
    let addresses = vec![proxy.address().ip()];
    engine.names.insert("proxy.example".into(), Resolution::Found { addresses, ttl: Span::from_secs(30) });
    assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    assert_eq!(engine.connects, 1);
}

#[test]
fn a_proxy_that_is_not_there_is_told_from_the_target() {
    let Some(site) = Site::start() else { return };
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let check = led(site.address(), "/echo").with(|check| check.proxy = Some(via(nobody, None)));
    assert_check(&check, Code::L4Con, &format!("by proxy {nobody}: connection refused {nobody}"));
}

#[test]
fn a_proxy_hears_its_own_credentials_and_the_target_does_not() {
    let (Some(site), Some(proxy)) = (Site::start(), Tinyproxy::start(Some(("probe", "pass-phrase")))) else { return };
    let get = |authorization: Option<&str>| {
        led(site.address(), "/away").with(|check| {
            check.authorization = Some(Secret::new("Bearer s3cr3t-token"));
            check.proxy = Some(via(proxy.address(), authorization));
            check.assertions = Box::new([contains("authorization= cookie= "), lacks("pass-phrase")]);
        })
    };
    assert_check(&get(Some("Basic cHJvYmU6cGFzcy1waHJhc2U=")), Code::L7Ok, "");
    // Of a wrong password this proxy says 401.
    assert_check(&get(Some("Basic cHJvYmU6d3Jvbmc=")), Code::L7Sts, "401 Unauthorized, expected 200-299");
    assert_check(&get(None), Code::L7Sts, "407 Proxy Authentication Required, expected 200-299");
}

#[test]
fn connections_of_a_proxy_and_to_it_are_not_mixed() {
    // Speaks to everyone alike, and keeps connections.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = RawServer::start(Script::AnswerFirst(
        answer.clone(),
        Box::new(Script::AnswerFirst(answer, Box::new(Script::Stop))),
    ));
    let direct = Monitored::get(server.address(), "/").kept();
    let proxied = Monitored::get(SocketAddr::from(([192, 0, 2, 1], 80)), "/")
        .kept()
        .with(|check| check.proxy = Some(via(server.address(), None)));
    let mut engine = Engine::of(&[&direct, &proxied]);
    for (index, connects) in [(0, 1), (1, 2), (0, 2), (1, 2)] {
        assert_outcome(&engine.check(index), Code::L7Ok, Verdict::Ok, "");
        assert_eq!(engine.connects, connects);
    }
    assert_eq!(engine.rest(), 2);
}

#[test]
fn slow_is_a_warning_or_a_failure() {
    let server = RawServer::start(Script::AnswerSlowly(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        Duration::from_millis(5),
    ));
    let within = |limit, fails| {
        let mut check = Monitored::get(server.address(), "/").within(Duration::from_secs(10));
        check.policy.max_latency = Some(MaxLatency { limit: Span::from_millis(limit), fails });
        Engine::of(&[&check]).check(0)
    };
    assert_outcome(&within(9_000, true), Code::L7Ok, Verdict::Ok, "");
    assert_outcome(&within(50, false), Code::L7Ok, Verdict::Warn, "took ");
    let failed = within(50, true);
    assert_outcome(&failed, Code::Slow, Verdict::Fail, "took ");
    assert!(failed.evidence.is_some_and(|words| words.ends_with(" ms, more than 50 ms")));
    // What failed otherwise failed otherwise.
    let mut check = Monitored::get(server.address(), "/").within(Duration::from_secs(10));
    check.policy.max_latency = Some(MaxLatency { limit: Span::from_millis(50), fails: true });
    let check = check.with(|check| check.expected = StatusSet::new(vec![(204, 204)]));
    assert_check(&check, Code::L7Sts, "200 OK, expected 204");
}

#[test]
fn slow_on_a_kept_connection_is_an_answer() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let slow = Script::AnswerSlowly(answer.clone(), Duration::from_millis(5));
    let server = RawServer::start(Script::AnswerFirst(answer, Box::new(slow)));
    let mut check = Monitored::get(server.address(), "/").kept().within(Duration::from_secs(10));
    check.policy.max_latency = Some(MaxLatency { limit: Span::from_millis(100), fails: true });
    let mut engine = Engine::of(&[&check]);
    assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    assert_outcome(&engine.check(0), Code::Slow, Verdict::Fail, "took ");
    assert_eq!((engine.connects, engine.requests), (1, 2), "not asked again");
}
