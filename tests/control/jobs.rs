//! Jobs that call in.

use super::daemon::{Cpra, Setup, eventually};
use super::{json, post, raw};

const TOKEN: &str = "Zm9vYmFyYmF6cXV4";

fn monitors(rest: &str) -> String {
    format!(
        "- name: batch/backup\n  pulse: {{type: push, interval: 1s, timeout: 500ms, unhealthy_threshold: 1, \
         healthy_threshold: 1, config: {{token: {TOKEN}, grace: 500ms}}}}\n  \
         codes: {{red: {{notify: log, config: {{file: notices.jsonl}}}}}}\n{rest}"
    )
}

fn monitor(cpra: &Cpra, name: &str) -> serde_json::Value {
    let (status, body) = cpra.get(&format!("/api/v1/monitors/{name}"));
    assert_eq!(status, 200, "{body}");
    json(&body)
}

fn is(cpra: &Cpra, state: &str, outcome: &str) -> bool {
    let monitor = monitor(cpra, "batch/backup");
    monitor["state"] == state && monitor["last"]["outcome"] == outcome
}

#[test]
fn a_job_is_up_while_it_calls_and_down_when_it_does_not() {
    let cpra = Setup::new().monitors(&monitors("")).run();
    assert_eq!(monitor(&cpra, "batch/backup")["state"], "unknown", "nothing is known before the first call");
    let path = format!("/api/v1/push/{TOKEN}");
    let (status, body) = post(cpra.api, &path, "", "");
    assert_eq!((status, json(&body)["monitor"].as_str()), (200, Some("batch/backup")), "{body}");
    eventually("it is up", || is(&cpra, "up", "PUSHOK"));

    eventually("it is missed", || is(&cpra, "down", "PUSHTOUT"));
    let evidence = monitor(&cpra, "batch/backup")["last"]["evidence"].as_str().expect("a reason").to_owned();
    assert!(
        evidence.starts_with("no call for ") && evidence.ends_with("expected every 1 s with 500 ms grace"),
        "{evidence}"
    );
    eventually("somebody is told", || cpra.notices("notices.jsonl").len() == 1);
    // The misses that follow are counted, once per interval, and told to nobody.
    let counted = cpra.metrics().outcomes("PUSHTOUT");
    eventually("the next is missed too", || cpra.metrics().outcomes("PUSHTOUT") >= counted + 2.0);
    assert_eq!(cpra.notices("notices.jsonl").len(), 1);

    assert_eq!(post(cpra.api, &format!("{path}?msg=done"), "", "").0, 200);
    eventually("it is up again", || is(&cpra, "up", "PUSHOK"));
    eventually("that is told too", || cpra.notices("notices.jsonl").len() == 2);

    assert_eq!(post(cpra.api, &format!("{path}/fail"), "", "disk full\nat /backup").0, 200);
    eventually("the job's own word counts", || is(&cpra, "down", "PUSHERR"));
    assert_eq!(monitor(&cpra, "batch/backup")["last"]["evidence"], "disk full");
    let notices = cpra.notices("notices.jsonl");
    assert!(notices.iter().any(|notice| notice.to_string().contains("no call for")), "{notices:?}");
    let metrics = cpra.metrics();
    assert_eq!(metrics.value("cpra_monitors_lost"), 0.0);
    assert_eq!(metrics.outcomes("VOID:"), 0.0);
    // Neither the log nor the story nor a notice nor the API holds the secret.
    let all = format!("{}{}{}", cpra.said(), cpra.text("notices.jsonl"), monitor(&cpra, "batch/backup"));
    assert!(!all.contains(TOKEN), "{all}");
}

#[test]
fn calls_of_nobody_are_refused_and_written_about_once() {
    let cpra = Setup::new().monitors(&monitors("")).run();
    for _ in 0..20 {
        let (status, body) = post(cpra.api, "/api/v1/push/Zm9vYmFyYmF6cXVY", "", "");
        assert!(status == 404 && json(&body)["remedy"].is_string(), "{status} {body}");
    }
    let stderr = cpra.stderr();
    assert_eq!(stderr.matches("push token that no monitor has").count(), 1, "{stderr}");
    assert!(!stderr.contains("Zm9v"), "{stderr}");
    let path = format!("/api/v1/push/{TOKEN}");
    assert_eq!(raw(cpra.api, &format!("POST {path} HTTP/1.1\r\nConnection: close\r\n\r\n")).0, 400);
    let foreign = format!("POST {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(raw(cpra.api, &foreign).0, 421);
    assert_eq!(cpra.get(&path).0, 405);
    assert_eq!(monitor(&cpra, "batch/backup")["last"], serde_json::Value::Null, "none of these was a call");
}

#[test]
fn a_token_belongs_to_one_job() {
    let second = format!(
        "- name: batch/other\n  pulse: {{type: push, interval: 1s, timeout: 1s, config: {{token: {TOKEN}}}}}\n"
    );
    let mut cpra = Setup::new().monitors(&monitors(&second)).start();
    assert_eq!(cpra.ends_within(std::time::Duration::from_secs(15)).code(), Some(1));
    let stderr = cpra.stderr();
    assert!(stderr.contains("batch/backup") && stderr.contains("batch/other") && !stderr.contains(TOKEN), "{stderr}");
}
