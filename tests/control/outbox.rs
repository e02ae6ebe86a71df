//! The outbox and those who are told, by the command line.

use std::net::TcpListener;

use super::daemon::{Cpra, Setup, eventually};
use super::{cpra as word, json};

const PULSE: &str = "type: tcp, interval: 500ms, timeout: 400ms, healthy_threshold: 1, unhealthy_threshold: 1";

/// One monitor that is refused, told to a log.
fn daemon() -> Cpra {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let monitors = format!(
        "- name: shop/db\n  pulse: {{{PULSE}, config: {{host: 127.0.0.1, port: {port}}}}}\n  codes: {{red: {{notify: log, \
         config: {{file: notices.jsonl}}}}}}\n"
    );
    Setup::new().monitors(&monitors).run()
}

#[test]
fn a_test_arrives_and_says_that_it_is_one() {
    let cpra = daemon();
    let said = word(&cpra, &["notify", "test"]);
    assert!(said.code == Some(3) && said.stdout.contains("log   log"), "{said:?}");
    let said = word(&cpra, &["notify", "test", "log", "--color", "yellow"]);
    assert!(said.code == Some(0) && said.stdout.starts_with("log (log) has it after "), "{said:?}");
    let notices = cpra.notices("notices.jsonl");
    let tests: Vec<_> = notices.iter().filter(|notice| notice["test"] == true).collect();
    assert_eq!((tests.len(), &tests[0]["color"]), (1, &"yellow".into()), "{notices:?}");
    let said = word(&cpra, &["notify", "test", "log", "--json"]);
    assert_eq!((said.code, &json(&said.stdout)["state"]), (Some(0), &"done".into()), "{said:?}");
    let said = word(&cpra, &["notify", "test", "lgo"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean \"log\""), "{said:?}");
    let said = word(&cpra, &["notify", "test", "log", "--color", "rde"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean red"), "{said:?}");
    let stderr = cpra.stderr();
    assert_eq!(
        stderr.lines().filter(|line| line.contains("audit") && line.contains("notify test")).count(),
        2,
        "{stderr}"
    );
}

#[test]
fn what_is_in_the_outbox_is_listed_and_nothing_is_dropped_by_accident() {
    let cpra = daemon();
    let said = word(&cpra, &["outbox", "list", "--dead"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "nothing is undelivered\n"), "{said:?}");
    let said = word(&cpra, &["outbox", "drop", "--all"]);
    assert!(said.code == Some(1) && said.stderr.contains("--yes"), "{said:?}");
    let said = word(&cpra, &["outbox", "drop", "--dead", "--yes"]);
    assert!(said.code == Some(0) && said.stdout.contains("nothing was changed"), "{said:?}");
    let said = word(&cpra, &["outbox", "retry", "4711"]);
    assert!(said.code == Some(1) && said.stderr.contains("there is no notice 4711"), "{said:?}");
    let said = word(&cpra, &["outbox", "retry"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(word(&cpra, &["status"]).stdout.contains("could not be delivered"));
}

#[test]
fn one_command_says_who_was_told_of_a_red() {
    let cpra = daemon();
    eventually("its red is told", || {
        let said = word(&cpra, &["incident", "shop/db"]);
        said.code == Some(0) && said.stdout.contains("red to log (log): sent")
    });
    let said = word(&cpra, &["incident", "shop/db"]);
    assert!(said.stdout.starts_with("shop/db is down: connection refused"), "{said:?}");
    assert!(said.stdout.contains("\nopen for ") && said.stdout.contains("  incident "), "{said:?}");
    let history = json(&word(&cpra, &["incident", "shop/db", "--json"]).stdout);
    assert_eq!((&history["is_kept"], &history["deliveries"][0]["result"]), (&true.into(), &"sent".into()), "{history}");
    let said = word(&cpra, &["incident", "shop/dc"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean \"shop/db\""), "{said:?}");
}
