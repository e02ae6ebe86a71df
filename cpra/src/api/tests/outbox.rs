//! The outbox, and messages that show whether somebody can be told.

use std::sync::atomic::Ordering;

use super::fake::{Fake, Running};
use crate::api::access::Token;

#[test]
fn the_outbox_is_shown_as_it_was_asked_for() {
    let running = Running::new(Fake::small());
    let ids = |path: &str| -> Vec<u64> {
        let (status, body) = running.json(path);
        assert_eq!(status, 200, "{body}");
        body["notices"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|notice| notice["id"].as_u64().expect("a number"))
            .collect()
    };
    assert_eq!(ids("/api/v1/outbox"), [11, 12, 13]);
    assert_eq!(ids("/api/v1/outbox?dead=true"), [13]);
    assert_eq!(ids("/api/v1/outbox?dead=false"), [11, 12, 13]);
    assert_eq!(ids("/api/v1/outbox?to=team-chat"), [11, 12]);
    assert_eq!(ids("/api/v1/outbox?id=12"), [12]);
    assert_eq!(ids("/api/v1/outbox?limit=2"), [11, 12]);
    let (_, body) = running.json("/api/v1/outbox?limit=2");
    assert_eq!(
        (&body["more"], &body["outbox"]["undelivered"], &body["outbox"]["states"]["dead"]),
        (&true.into(), &2.into(), &1.into())
    );
    assert_eq!(body["outbox"]["oldest_seconds"], 30.0);
    let failed = &body["notices"][1];
    assert_eq!(
        (&failed["state"], &failed["attempts"], &failed["last"]["said"]),
        (&"pausing".into(), &2.into(), &"503 try later".into())
    );
    assert_eq!(
        (&failed["age_seconds"], &failed["next"]),
        (&100.0.into(), &"1970-01-01T00:16:41.000000Z".into()),
        "{failed}"
    );
    assert_eq!(running.json("/api/v1/outbox?limit=3").1["more"], false);
    for wrong in ["?limit=0", "?limit=1001", "?id=x", "?dead=yes", "?id=1&dead=true"] {
        let (status, body) = running.json(&format!("/api/v1/outbox{wrong}"));
        assert!(status == 400 && body["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{wrong}: {body}");
    }
    let (status, body) = running.json("/api/v1/notices/13");
    assert_eq!((status, &body["last"]["result"], &body["color"]), (200, &"refused".into(), &"red".into()));
    assert_eq!((running.json("/api/v1/notices/99").0, running.json("/api/v1/notices/x").0), (404, 400));
    let (_, status) = running.json("/api/v1/status");
    assert_eq!((&status["outbox"]["undelivered"], &status["outbox"]["states"]["pausing"]), (&2.into(), &1.into()));
    let page = running.get("/");
    assert!(page.text().contains("2 undelivered, the oldest for 30 s"), "{}", page.text());
    assert!(page.text().contains("1 could not be delivered"), "{}", page.text());
    assert!(page.text().contains("store: last commit 3 s ago</p>"), "{}", page.text());
    running.fake.alive.store(false, Ordering::Relaxed);
    let page = running.get("/");
    assert!(page.text().contains("does not survive a restart") && page.text().contains("disk &lt;is&gt; full"));
    assert_eq!(running.json("/api/v1/status").1["store"]["durable"], false);
    running.fake.silent.store(true, Ordering::Relaxed);
    assert_eq!(running.json("/api/v1/outbox").0, 503);
}

#[test]
fn notices_are_retried_and_dropped_by_those_who_may() {
    let running = Running::with(Fake::small(), Token::of(b"a-token-of-some-length").ok());
    for path in ["/api/v1/outbox/retry?all=true", "/api/v1/outbox/drop?all=true", "/api/v1/notify/test?to=pager"] {
        let ask = |method: &str| {
            running.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        };
        assert_eq!(ask("POST").status, 401, "{path}");
        assert!(ask("GET").status == 405 && ask("GET").head.contains("allow: post"), "{path}");
    }
    assert!(running.fake.done().is_empty());
    for (path, notices, done) in [
        ("retry?id=12", 1, "Retry One(NoticeId(12)) by "),
        ("retry?dead=true", 1, "Retry Dead by "),
        ("drop?to=team-chat", 2, "Drop To(\"team-chat\") by "),
        ("drop?to=nobody", 0, "Drop To(\"nobody\") by "),
        ("drop?all=true", 3, "Drop All by "),
    ] {
        let (status, body) = running.locally("POST", &format!("/api/v1/outbox/{path}"));
        assert_eq!((status, &body["notices"]), (200, &notices.into()), "{path}: {body}");
        let was_done = running.fake.done();
        assert!(was_done.len() == 1 && was_done[0].starts_with(done) && was_done[0].contains("uid"), "{was_done:?}");
    }
    let (status, body) = running.locally("POST", "/api/v1/outbox/drop?id=99");
    assert!(status == 404 && body["remedy"].as_str().is_some_and(|text| text.contains("outbox list")), "{body}");
    running.fake.done();
    for unclear in ["", "?limit=3", "?dead=false", "?id=12&all=true", "?to="] {
        let (status, body) = running.locally("POST", &format!("/api/v1/outbox/drop{unclear}"));
        assert_eq!(status, 400, "{unclear}: {body}");
    }
    assert!(running.fake.done().is_empty(), "without a clear word nothing is dropped");
    running.fake.full.store(true, Ordering::Relaxed);
    assert_eq!(running.locally("POST", "/api/v1/outbox/retry?id=12").0, 503);
}

#[test]
fn a_test_goes_to_the_one_destination_that_is_meant() {
    let running = Running::new(Fake::small());
    let (status, body) = running.json("/api/v1/destinations");
    let names: Vec<_> = body["destinations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect();
    assert_eq!((status, names), (200, vec!["both", "log", "pager", "team-chat"]), "{body}");
    assert_eq!((&body["destinations"][1]["same_name"], &body["destinations"][2]["named"]), (&2.into(), &true.into()));
    let test = |query: &str| running.locally("POST", &format!("/api/v1/notify/test{query}"));
    let (status, body) = test("?to=pager&color=yellow");
    assert_eq!((status, &body["notices"], &body["provider"]), (200, &serde_json::json!([12]), &"log".into()), "{body}");
    assert_eq!(test("?to=team-chat").0, 200);
    assert_eq!(test("?to=both").1["notices"], serde_json::json!([12, 12]));
    let done = running.fake.done();
    assert_eq!(done.len(), 4, "{done:?}");
    assert!(done[0].starts_with("test pager yellow by ") && done[1].starts_with("test team-chat red by "), "{done:?}");
    for (query, status, remedy) in [
        ("", 400, "use one of both, log, pager, team-chat"),
        ("?to=pagr", 404, "did you mean \"pager\"?"),
        ("?to=nobody-at-all", 404, "use one of both, log, pager, team-chat"),
        ("?to=log", 409, "[providers.NAME]"),
        ("?to=pager&color=rde", 400, "use one of yellow, red, cyan, green, gray"),
    ] {
        let (answered, body) = test(query);
        assert_eq!(answered, status, "{query}: {body}");
        assert!(body["remedy"].as_str().is_some_and(|text| text.contains(remedy)), "{query}: {body}");
    }
    assert!(test("?to=pager&color=rde").1["error"].as_str().is_some_and(|text| text.contains("did you mean red")));
    assert!(running.fake.done().is_empty());
}
