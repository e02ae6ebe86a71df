//! What people get to read: the story of the quickstart, and a log that is rotated.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::daemon::{Setup, eventually, whole_lines};
use super::targets::{Targets, file, http};

/// `00:05  YELLOW  demo/flaky            503 ...`: the word and the monitor of a line of the story.
fn of_the_story(line: &str) -> (&str, &str) {
    let shape = |at: usize, what: &dyn Fn(u8) -> bool| line.as_bytes().get(at).copied().is_some_and(what);
    let clock = (0..5).all(|at| shape(at, &|byte| if at == 2 { byte == b':' } else { byte.is_ascii_digit() }));
    assert!(clock && &line[5..7] == "  ", "no line of the story: {line}");
    let word = line[7..13].trim_end();
    assert!(["UP", "YELLOW", "RED", "GREEN"].contains(&word) && &line[13..15] == "  ", "{line}");
    let mut words = line[15..].split_whitespace();
    let name = words.next().expect("a monitor");
    // One column for all names, and something said.
    assert!(line.len() > 37 && line.as_bytes()[34] == b' ' && line.as_bytes()[37] != b' ', "not aligned: {line}");
    (word, name)
}

#[test]
fn the_quickstart_tells_its_story() {
    let setup = Setup::new();
    let quickstart = include_str!("../../configs/quickstart.yaml");
    let port = setup.api().port().to_string();
    assert!(quickstart.contains("9860"));
    let mut cpra = setup.monitors(&quickstart.replace("9860", &port)).run();
    let page = cpra.get("/").1;
    assert!(page.contains("demo/flaky") || page.contains("4"), "{page}");
    let has = |word: &str, name: &str| {
        cpra.stdout().lines().skip(6).any(|line| !line.is_empty() && of_the_story(line) == (word, name))
    };
    eventually("the whole story", || has("GREEN", "demo/flaky") && has("RED", "demo/down"));
    for (word, name) in [
        ("UP", "cpra/self"),
        ("UP", "demo/port"),
        ("UP", "demo/flaky"),
        ("YELLOW", "demo/flaky"),
        ("RED", "demo/flaky"),
        ("YELLOW", "demo/down"),
    ] {
        assert!(has(word, name), "no {word} {name}: {}", cpra.stdout());
    }
    cpra.signal(Signal::SIGINT);
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0));
    let story = cpra.stdout();
    println!("{story}");
    let banner: Vec<&str> = story.lines().take(6).collect();
    assert!(banner[0].starts_with("cpra ") && banner[0].contains("4 monitors from monitors.yaml"), "{story}");
    assert!(
        banner[1].contains("io_uring: on   eBPF: o") && banner[5].contains(&format!("http://127.0.0.1:{port}/")),
        "{story}"
    );
    let sizing = "  sizing    pulse: 64 workers for 95 % within 100 ms (";
    assert!(banner[2].starts_with(sizing) && banner[2].ends_with("erlangs)   code: 4 workers"), "{story}");
    assert!(banner[4].starts_with("  user      "), "{story}");
    // A monitor that never fails, or has not been up before it failed, is not green.
    assert!(!story.contains("\x1b"), "no colors in a file: {story:?}");
    let colors = |monitor: &str| -> Vec<String> {
        let notices = cpra.notices("quickstart-notices.jsonl");
        let of_monitor = notices.iter().filter(|notice| notice["monitor"] == monitor);
        of_monitor.map(|notice| notice["color"].as_str().expect("a color").to_owned()).collect()
    };
    assert_eq!(colors("demo/flaky")[..3], ["yellow", "red", "green"]);
    assert_eq!(colors("demo/down"), ["yellow", "red"], "told once, not every two seconds");
    assert!(colors("cpra/self").is_empty() && colors("demo/port").is_empty());
    assert!(!cpra.stderr().contains("ERROR") && !cpra.stderr().contains("WARN"), "{}", cpra.stderr());
}

#[test]
fn a_rotated_log_loses_and_tears_no_line() {
    const MONITORS: usize = 20;
    const ROTATIONS: usize = 5;
    let targets = Targets::start(2, Duration::ZERO);
    let mut monitors = String::new();
    for n in 0..MONITORS {
        let _ = monitors.write_str(&http(&format!("flaps/{n}"), targets.addresses[n % 2]));
    }
    let pulse = "interval: 100ms, timeout: 100ms, unhealthy_threshold: 1, healthy_threshold: 1";
    let mut cpra = Setup::new().monitors(&file(pulse, &monitors)).run();
    eventually("all are up", || cpra.metrics().state("up") == MONITORS as f64);
    let log = cpra.path("notices.jsonl");
    for n in 0..ROTATIONS {
        for well in [false, true, false, true] {
            targets.set_well(well);
            thread::sleep(Duration::from_millis(150));
        }
        eventually("there is a log", || log.exists());
        // As logrotate does it without `copytruncate`, and without telling anyone.
        fs::rename(&log, cpra.path(&format!("notices.jsonl.{n}"))).expect("it is there");
    }
    targets.set_well(true);
    eventually("all are up again", || cpra.metrics().state("up") == MONITORS as f64);
    targets.set_well(false);
    eventually("and all are down", || cpra.metrics().state("down") == MONITORS as f64);
    eventually("the new file is there", || log.exists());
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());

    let mut deliveries = HashSet::new();
    let mut flaps: std::collections::HashMap<String, Vec<String>> = Default::default();
    let mut files = 0;
    let mut lines = 0;
    let names = (0..ROTATIONS).map(|n| format!("notices.jsonl.{n}")).chain(["notices.jsonl".to_owned()]);
    for name in names {
        let notices = whole_lines(&cpra.text(&name));
        files += usize::from(!notices.is_empty());
        lines += notices.len();
        for notice in notices {
            assert!(deliveries.insert(notice["delivery"].to_string()), "twice: {notice}");
            let monitor = notice["monitor"].as_str().expect("a name").to_owned();
            flaps.entry(monitor).or_default().push(notice["color"].as_str().expect("a color").to_owned());
        }
    }
    println!("{lines} lines in {files} files");
    assert!(files > ROTATIONS / 2, "the log was written between the rotations");
    assert_eq!(flaps.len(), MONITORS);
    // Nothing lost: of every monitor each episode is there from its beginning to its end, in order.
    for (monitor, colors) in flaps {
        let story = colors.join(" ");
        // At a threshold of one there is no suspicion before the failure.
        assert_eq!(story.replace("red green ", ""), "red", "{monitor}: {story}");
    }
}
