//! Names that a careless path, page or table would break on, and many of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use super::daemon::{BINARY, Setup, eventually};
use super::{cpra as word, json, say};

const ODD: [&str; 12] = [
    "a/b",
    "a?b=c",
    "a#b",
    "100%",
    "a%2Fb",
    "<script>alert(1)</script>",
    "two words",
    "\"quoted\" and 'so'",
    "coffee ☕",
    "a/../b/check",
    "-dash",
    "back\\slash",
];

fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut path, byte| {
        let _ = write!(path, "%{byte:02X}");
        path
    })
}

#[test]
fn odd_names_go_everywhere_and_come_back() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = closed.local_addr().expect("it is bound").port();
    drop(closed);
    let mut text = String::new();
    for name in ODD {
        let name = serde_json::Value::from(name);
        let _ = write!(
            text,
            "- name: {name}\n  pulse: {{type: tcp, interval: 500ms, timeout: 400ms, unhealthy_threshold: 1, groups: [{name}], \
             config: {{host: 127.0.0.1, port: {port}}}}}\n  codes: {{red: {{notify: log, config: {{file: notices.jsonl}}}}}}\n"
        );
    }
    let cpra = Setup::new().monitors(&text).run();
    let odd: BTreeSet<String> = ODD.into_iter().map(str::to_owned).collect();
    let names = |lines: &str| -> BTreeSet<String> {
        lines.lines().map(|line| json(line)["name"].as_str().expect("a name").to_owned()).collect()
    };
    // The log of notices ...
    eventually("all are down, and told", || cpra.notices("notices.jsonl").len() >= ODD.len());
    let told: BTreeSet<String> = cpra
        .notices("notices.jsonl")
        .iter()
        .map(|notice| notice["monitor"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(told, odd);
    // ... the list ...
    assert_eq!(names(&word(&cpra, &["monitors", "--json"]).stdout), odd);
    assert_eq!(names(&word(&cpra, &["monitors", "--state", "down", "--json"]).stdout), odd);
    for name in ODD {
        // ... the path and the query ...
        let (status, body) = cpra.get(&format!("/api/v1/monitors/{}", encoded(name)));
        assert_eq!((status, json(&body)["name"].as_str()), (200, Some(name)), "{body}");
        let (status, body) = cpra.get(&format!("/api/v1/monitors?group={0}&q={0}", encoded(name)));
        assert_eq!((status, json(&body)["monitors"][0]["name"].as_str()), (200, Some(name)), "{body}");
        // ... and the command line.
        let said = word(&cpra, &["disable", "--json", "--", name]);
        assert_eq!((said.code, json(&said.stdout)["monitor"].as_str()), (Some(0), Some(name)), "{said:?}");
        let said = say(&cpra.path(""), &[BINARY, "check", "--yaml", "monitors.yaml", "--json", "--", name]);
        assert_eq!((said.code, json(&said.stdout)["monitor"].as_str()), (Some(1), Some(name)), "{said:?}");
    }
    eventually("all are disabled", || {
        names(&word(&cpra, &["monitors", "--state", "disabled", "--json"]).stdout) == odd
    });
    // Labels of metrics hold no names, so that the page stays as it is whatever people call their monitors.
    let metrics = cpra.get("/metrics").1;
    assert!(!metrics.contains("<script") && !metrics.contains("a/b") && !metrics.contains('☕'), "{metrics}");
    let page = cpra.get("/").1;
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn a_name_of_two_lines_is_refused() {
    let text =
        "- name: \"a\\nb\"\n  pulse: {type: tcp, interval: 1s, timeout: 1s, config: {host: 127.0.0.1, port: 1}}\n";
    let mut cpra = Setup::new().monitors(text).start();
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1));
    assert!(cpra.stderr().contains("control character U+000A"), "{}", cpra.stderr());
}

#[test]
fn five_thousand_are_found_by_state_group_and_name() {
    let up = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = up.local_addr().expect("it is bound").port();
    let mut text = String::new();
    for number in 0..5_000 {
        let (enabled, group) = (number % 1_000 == 7, number % 10);
        let _ = writeln!(
            text,
            "- {{name: host-{number:04}, enabled: {enabled}, pulse: {{type: tcp, interval: 1s, timeout: 500ms, groups: [g{group}], \
             config: {{host: 127.0.0.1, port: {port}}}}}}}"
        );
    }
    let cpra = Setup::new().monitors(&text).run();
    eventually("five are up", || cpra.metrics().state("up") == 5.0);
    let count = |query: &str| {
        let (mut count, mut pages, mut cursor) = (0, 0, String::new());
        loop {
            let (status, body) = cpra.get(&format!("/api/v1/monitors?{query}&cursor={cursor}"));
            assert_eq!(status, 200, "{body}");
            let body = json(&body);
            assert_eq!(body["total"], 5_000);
            count += body["monitors"].as_array().map_or(0, Vec::len);
            pages += 1;
            let Some(next) = body["next_cursor"].as_str() else { break (count, pages) };
            next.clone_into(&mut cursor);
        }
    };
    assert_eq!(count("state=up"), (5, 1));
    assert_eq!(count("state=disabled&limit=1000"), (4_995, 5));
    assert_eq!(count("state=disabled&group=g7&limit=100"), (495, 5));
    assert_eq!(count("group=g7&limit=250"), (500, 2));
    assert_eq!(count("state=up&group=g8"), (0, 1));
    assert_eq!(count("state=up&group=g7&q=-2"), (1, 1));
    assert_eq!(count("q=host-49"), (100, 1));
    let said = word(&cpra, &["monitors", "--state", "disabled", "--group", "g7", "--json"]);
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 495));
    let said = word(&cpra, &["monitors", "--state", "up"]);
    assert_eq!(said.stdout.lines().count(), 6, "{said:?}");
}
