//! How it ends: in order when asked once, at once when asked twice.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::counterparts::raw::{RawServer, Script};
use super::daemon::{Cpra, Setup, eventually, get};
use super::targets::{Closed, file, http, tcp};

/// Down at the first failure; the interval is long, so that raises are held back long after the start.
const CADENCE: &str = "interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1";
const FAILING: usize = 200;

/// A daemon with raises that wait, and one check that hangs until `timeout`.
fn with_a_hanging_check(timeout: &str) -> (Cpra, RawServer, Closed) {
    let (silent, closed) = (RawServer::start(Script::Silence), Closed::new());
    let mut monitors = http("hangs", silent.address());
    for n in 0..FAILING {
        let _ = monitors.write_str(&tcp(&format!("down/{n:03}"), closed.address()));
    }
    let cpra = Setup::new().monitors(&file(&format!("{CADENCE}, timeout: {timeout}"), &monitors)).run();
    (cpra, silent, closed)
}

fn ends_in_order(signal: Signal) {
    // Without a bound of its own the hanging check would outlast the ones that fail at once.
    let (mut cpra, _silent, _closed) = with_a_hanging_check("4s");
    eventually("the dead port's monitors are down", || cpra.metrics().state("down") >= FAILING as f64);
    eventually("a check hangs", || cpra.metrics().value("cpra_inflight{pipeline=\"pulse\"}") >= 1.0);
    let told = cpra.notices("notices.jsonl").len();
    let began = Instant::now();
    cpra.signal(signal);
    // What `timeout`, shells and some supervisors do: the same wish, sent to the process and to its group.
    cpra.signal(signal);
    let mut was_unready = false;
    while began.elapsed() < Duration::from_secs(1) && !was_unready {
        was_unready = get(cpra.api, "/readyz")
            .is_some_and(|(status, body)| status == 503 && String::from_utf8_lossy(&body).contains("stopping"));
    }
    let status = cpra.ends_within(Duration::from_secs(15));
    println!("{signal}: {told} told before, ended after {:?}, unready: {was_unready}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{}", cpra.said());
    // Whole lines, all of them, each once: those that were held back, too.
    let notices = cpra.notices("notices.jsonl");
    let mut deliveries: Vec<_> = notices.iter().map(|notice| notice["delivery"].to_string()).collect();
    deliveries.sort();
    deliveries.dedup();
    assert_eq!(deliveries.len(), notices.len());
    let reds = notices.iter().filter(|notice| notice["color"] == "red");
    let down = reds.filter(|notice| notice["monitor"].as_str().is_some_and(|name| name.starts_with("down/"))).count();
    assert_eq!(down, FAILING, "{}", cpra.stderr());
    assert!(cpra.stderr().contains("stopped"), "{}", cpra.stderr());
}

#[test]
fn sigterm_lets_checks_end_and_notices_out() {
    ends_in_order(Signal::SIGTERM);
}

#[test]
fn sigint_lets_checks_end_and_notices_out() {
    ends_in_order(Signal::SIGINT);
}

#[test]
fn a_second_signal_exits_at_once() {
    let (mut cpra, _silent, _closed) = with_a_hanging_check("30s");
    eventually("a check hangs", || {
        let metrics = cpra.metrics();
        metrics.state("down") >= FAILING as f64 && metrics.value("cpra_inflight{pipeline=\"pulse\"}") >= 1.0
    });
    cpra.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(1_000));
    assert!(cpra.is_running(), "it waits for the check that hangs: {}", cpra.said());
    let began = Instant::now();
    cpra.signal(Signal::SIGINT);
    let status = cpra.ends_within(Duration::from_secs(2));
    println!("ended {:?} after the second signal", began.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(cpra.stderr().contains("second signal: exiting at once"), "{}", cpra.stderr());
    // What was written is whole.
    cpra.notices("notices.jsonl");
}

#[test]
fn a_check_that_hangs_for_long_does_not_keep_it_for_long() {
    let (mut cpra, _silent, _closed) = with_a_hanging_check("30s");
    eventually("a check hangs", || cpra.metrics().value("cpra_inflight{pipeline=\"pulse\"}") >= 1.0);
    eventually("the others are down", || cpra.metrics().state("down") >= FAILING as f64);
    cpra.signal(Signal::SIGTERM);
    let status = cpra.ends_within(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    let notices = cpra.notices("notices.jsonl");
    assert_eq!(notices.iter().filter(|notice| notice["color"] == "red").count(), FAILING, "{}", cpra.stderr());
}
