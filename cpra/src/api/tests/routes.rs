use std::sync::atomic::Ordering;

use super::fake::{DOWN, Fake, ODD, Running, class};
use crate::domain::Code;
use crate::queueing::meter::Percentiles;
use crate::units::Span;

/// Every byte that is not a letter or a digit.
pub(super) fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[test]
fn health_and_readiness_say_why() {
    let running = Running::new(Fake::small());
    let reply = running.get("/healthz");
    assert_eq!((reply.status, reply.text()), (200, "ok\n"));
    running.fake.alive.store(false, Ordering::Relaxed);
    let reply = running.get("/healthz");
    assert_eq!((reply.status, reply.text()), (503, "shard 1 has stood still for 3 s\n"));

    let (status, body) = running.json("/readyz");
    assert_eq!((status, &body["ready"]), (200, &true.into()));
    assert_eq!(body["findings"][0]["remedy"], "raise LimitNOFILE");
    running.fake.ready.store(false, Ordering::Relaxed);
    let (status, body) = running.json("/readyz");
    assert_eq!((status, &body["reasons"][0]), (503, &"the store does not answer".into()));
}

#[test]
fn the_status_holds_everything_at_a_glance() {
    let running = Running::new(Fake::small());
    {
        let mut shards = running.fake.shards.lock().expect("no test panics with it");
        shards.monitors[1] = 12;
        shards.monitors[6] = 1;
        shards.checks[0][Code::L4Ok.index()] = 5;
        shards.lag.record(Span::from_micros(70));
    }
    running.fake.now_nanos.fetch_add(Span::from_millis(2_500).as_nanos(), Ordering::Relaxed);
    let (status, body) = running.json("/api/v1/status");
    assert_eq!(status, 200);
    assert_eq!(body["uptime_seconds"], 2.5);
    assert_eq!(body["started"], "1970-01-01T00:16:40.000000Z");
    assert_eq!(body["monitors"]["total"], 13);
    assert_eq!(body["monitors"]["states"]["down"], 1);
    assert_eq!(body["checks"]["total"], 5);
    assert!(body["lag_seconds"]["p99"].as_f64().is_some_and(|p99| p99 <= 0.000_1));
    assert!(body["latency_seconds"]["p50"].is_null());
    assert_eq!(body["queues"]["code"], 1);
    assert_eq!(body["notices"]["results"]["sent"], 7);
    assert_eq!(body["episodes"][0]["monitor"], DOWN);
    assert_eq!(body["episodes"][0]["raised"][0]["color"], "red");
    assert_eq!(body["changes"].as_array().map(Vec::len), Some(10));
    assert_eq!(body["changes"][0]["monitor"], "?", "an id of another catalog is no panic");
    assert_eq!(body["api"]["connections"], 1);
}

#[test]
fn pipelines_say_how_many_workers_and_why() {
    let running = Running::new(Fake::small());
    running.fake.shards.lock().expect("no test panics with it").sizing =
        vec![class("tcp", 1.0, 10), class("http", 500.0, 1_000), class("suspects", 100.0, 1)];
    {
        let mut shards = running.fake.shards.lock().expect("no test panics with it");
        shards.sizing[0].results.p95 = Span::from_millis(20);
        shards.sizing[0].waits = Percentiles::default();
    }
    let (status, body) = running.json("/api/v1/pipelines");
    assert_eq!(status, 200);
    let [pulse, code] = &body["pipelines"].as_array().expect("a list")[..] else { panic!("{body}") };
    assert_eq!((&pulse["pipeline"], &code["pipeline"]), (&"pulse".into(), &"code".into()));
    assert_eq!(
        (&pulse["slo"]["within_seconds"], &pulse["slo"]["percentile"], &pulse["slo"]["wait_seconds"]),
        (&0.1.into(), &95.into(), &0.01.into())
    );
    assert_eq!(
        (&pulse["workers_min"], &pulse["workers_max"], &pulse["queue_capacity"]),
        (&64.into(), &50_000.into(), &14.into())
    );
    assert_eq!((&pulse["busy"], &pulse["waiting"], &pulse["unreachable"]), (&15.into(), &3.into(), &true.into()));
    let (http, suspects) = (&pulse["classes"][1], &pulse["classes"][2]);
    assert_eq!(
        (&http["class"], &http["arrival_rate"], &http["offered_load"]),
        (&"http".into(), &500.0.into(), &10.0.into())
    );
    assert_eq!((&http["service_seconds"]["mean"], &http["service_seconds"]["p999"]), (&0.02.into(), &0.138.into()));
    assert_eq!((&http["goal"]["of"], &http["goal"]["seconds"]), (&"result".into(), &0.1.into()));
    assert!(http["goal"]["predicted_result_seconds"].as_f64().is_some_and(|result| result <= 0.1), "{http}");
    assert_eq!((&http["workers"], &http["met"]), (&http["workers_needed"], &true.into()));
    assert!(pulse["classes"][0]["wait_seconds"]["p95"].is_null(), "nobody has measured it");
    assert!(suspects["goal"]["predicted_wait_seconds"].is_null(), "{suspects}");
    assert_eq!((&suspects["met"], &suspects["unreachable"]), (&false.into(), &true.into()));
    assert_eq!((&code["classes"], &code["tightest"]), (&serde_json::json!([]), &serde_json::Value::Null));

    let (_, body) = running.json("/api/v1/status");
    let brief = &body["pipelines"][0];
    assert_eq!(brief["tightest"]["class"], "http", "nothing is promised to suspects");
    assert_eq!(brief["tightest"]["percentile"], "p95");
    assert_eq!(
        (&brief["tightest"]["measured_seconds"], &brief["tightest"]["goal_seconds"]),
        (&0.063.into(), &0.1.into())
    );
    assert!(brief["classes"].is_null(), "the rest is behind its own route");
    let page = running.get("/");
    assert!(page.text().contains("pulse: 15 of "), "{}", page.text());
    assert!(page.text().contains("more than its workers can keep"), "{}", page.text());
}

#[test]
fn a_desk_that_does_not_answer_is_said_to() {
    let running = Running::new(Fake::small());
    running.fake.silent.store(true, Ordering::Relaxed);
    let (status, body) = running.json("/api/v1/status");
    assert_eq!((status, body["episodes"].is_null(), body["episodes_open"].as_u64()), (200, true, Some(1)));
    assert_eq!(body["faults"][0], "the desk did not answer within 2 s");
    let (status, body) = running.json(&format!("/api/v1/monitors/{DOWN}"));
    assert_eq!((status, &body["error"]), (503, &"the desk did not answer within 2 s".into()));
    running.fake.full.store(true, Ordering::Relaxed);
    let (status, body) = running.json("/api/v1/monitors");
    assert_eq!((status, &body["error"]), (503, &"too many questions are waiting for an answer".into()));
}

#[test]
fn odd_names_are_found_by_their_path() {
    let running = Running::new(Fake::small());
    for name in ODD {
        let (status, body) = running.json(&format!("/api/v1/monitors/{}", encoded(name)));
        assert_eq!((status, &body["name"]), (200, &name.into()));
        assert_eq!(body["state"], "up");
        assert!(body["episode"].is_null());
    }
    let (status, body) = running.json("/api/v1/monitors/shop/web");
    assert_eq!((status, &body["state"], &body["type"]), (200, &"down".into(), &"http".into()));
    assert_eq!(body["target"], "http://shop.internal:80/health?…", "a query may hold secrets");
    assert_eq!(body["last"]["outcome"], "L4CON");
    assert_eq!(body["last"]["evidence"], "connection refused <b>");
    assert_eq!(body["timeout_seconds"], 2.5);
    assert_eq!((&body["labels"]["team"], &body["description"]), (&"<shop>".into(), &"front door".into()));
    assert_eq!(body["runbook"], "https://wiki.example.com/shop");
    assert_eq!(body["episode"]["lasted_seconds"], 1.5);
}

#[test]
fn a_name_that_does_not_exist_gets_the_close_ones() {
    let running = Running::new(Fake::small());
    let (status, body) = running.json("/api/v1/monitors/shop/wbe");
    assert_eq!((status, &body["error"]), (404, &"there is no monitor \"shop/wbe\"".into()));
    assert!(body["remedy"].as_str().is_some_and(|text| text.starts_with("did you mean \"shop/web\"")), "{body}");
    let (status, body) = running.json("/api/v1/monitors/SHOP/DB");
    assert_eq!((status, &body["remedy"]), (404, &"did you mean \"shop/db\"?".into()));
    assert_eq!(running.json("/api/v1/monitors/zzzzzzzzzzzz").0, 404);
    assert_eq!(running.json("/api/v1/monitors/%FF").0, 400);
    assert_eq!(running.json("/api/v1/monitors/").0, 404);
    assert_eq!(running.json(&format!("/api/v1/monitors/{}", "x".repeat(5_000))).0, 404);
}

#[test]
fn pages_follow_each_other_without_gaps() {
    let names: Vec<String> = (0..2_500).map(|number| format!("host {number:04}/ü")).collect();
    let running = Running::new(Fake::new(names.iter().cloned().chain([DOWN.to_owned()])));
    let mut seen = Vec::new();
    let mut path = "/api/v1/monitors?limit=1000".to_owned();
    loop {
        let (status, body) = running.json(&path);
        assert_eq!((status, &body["total"]), (200, &2_501.into()));
        let page = body["monitors"].as_array().expect("a page");
        assert!(page.iter().all(|monitor| monitor["state"].is_string()));
        seen.extend(page.iter().map(|monitor| monitor["name"].as_str().expect("a name").to_owned()));
        let Some(cursor) = body["next_cursor"].as_str() else { break };
        path = format!("/api/v1/monitors?limit=1000&cursor={}", encoded(cursor));
    }
    assert_eq!(seen.len(), 2_501);
    assert_eq!(&seen[..2_500], names);

    let (_, body) = running.json("/api/v1/monitors");
    assert_eq!(body["monitors"].as_array().map(Vec::len), Some(100));
    let (_, body) = running.json("/api/v1/monitors?q=99/");
    assert_eq!(body["monitors"].as_array().map(Vec::len), Some(25));
    assert!(body["next_cursor"].is_null());
    for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=99999999999999999999"] {
        let (status, body) = running.json(&format!("/api/v1/monitors?{wrong}"));
        assert!(status == 400 && body["remedy"].is_string(), "{wrong}");
    }
}

#[test]
fn the_flaky_demo_is_up_and_down_by_the_clock() {
    let running = Running::new(Fake::small());
    let at = |millis: u64| {
        let nanos = Span::from_secs(1_000) + Span::from_millis(millis);
        running.fake.now_nanos.store(nanos.as_nanos(), Ordering::Relaxed);
        let reply = running.get("/demo/flaky?up=15s&down=12s");
        (reply.status, reply.text().to_owned())
    };
    assert_eq!(at(0), (200, "up for another 15 s\n".to_owned()));
    assert_eq!(at(14_999).0, 200);
    assert_eq!(at(15_000), (503, "down for another 12 s\n".to_owned()));
    assert_eq!(at(26_999).0, 503);
    assert_eq!(at(27_000).0, 200);
    assert_eq!(running.get("/demo/flaky").status, 200);
    for wrong in ["up=0s", "up=1ms", "down=2h", "up=1000000m", "up=%3Cb%3E", "up="] {
        assert_eq!(running.json(&format!("/demo/flaky?{wrong}")).0, 400, "{wrong}");
    }
}

#[test]
fn the_front_page_links_and_escapes() {
    let running = Running::new(Fake::small());
    running.fake.shards.lock().expect("no test panics with it").monitors[1] = 13;
    let reply = running.get("/");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("text/html") && reply.head.contains("content-security-policy"));
    let page = reply.text();
    assert!(page.contains("13 of 13 up, 0 down") && page.contains("href=\"/metrics\""), "{page}");
    assert!(page.contains("mon&lt;1&gt;") && !page.contains("mon<1>"), "{page}");
    let (status, body) = running.json("/nothing%3Chere%3E");
    assert_eq!((status, &body["remedy"]), (404, &"see /".into()));
}
