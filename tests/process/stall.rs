//! A daemon that stands still (SIGSTOP, a VM pause) blames nobody for it.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::daemon::{Setup, eventually};
use super::targets::{Targets, file, http, tcp};

const MONITORS: usize = 10_000;
/// Checks whose answer takes a while, so that hundreds are in flight at any moment.
const SLOW_SHARE: usize = 10;

#[test]
fn ten_thousand_healthy_monitors_survive_ten_seconds_of_standing_still() {
    let quick = Targets::start(48, Duration::ZERO);
    let slow = Targets::start(16, Duration::from_millis(400));
    let mut monitors = String::new();
    for n in 0..MONITORS {
        let name = format!("m/{n:05}");
        let text = match n % SLOW_SHARE {
            0 => http(&name, slow.addresses[n % slow.addresses.len()]),
            1..=4 => http(&name, quick.addresses[n % quick.addresses.len()]),
            _ => tcp(&name, quick.addresses[n % quick.addresses.len()]),
        };
        let _ = monitors.write_str(&text);
    }
    // At 5,000 checks a second a debug build is not half busy.
    let pulse = "interval: 2s, timeout: 2s, unhealthy_threshold: 1, healthy_threshold: 1";
    let began = Instant::now();
    let cpra = Setup::new().monitors(&file(pulse, &monitors)).run();
    eventually("all are up", || cpra.metrics().state("up") == MONITORS as f64);
    println!("all up after {:?}", began.elapsed());
    thread::sleep(Duration::from_secs(3));
    let before = cpra.metrics();
    let in_flight = before.value("cpra_inflight{pipeline=\"pulse\"}");
    assert!(in_flight > 50.0, "the point of this test is to stop it with checks in flight: {in_flight}");

    cpra.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(10));
    cpra.signal(Signal::SIGCONT);
    thread::sleep(Duration::from_secs(5));

    let after = cpra.metrics();
    let checked = after.sum("cpra_checks_total{", "") - before.sum("cpra_checks_total{", "");
    println!(
        "in flight {in_flight}, stalls {}, void {}, judged since {checked}, missed {}, busy {}",
        after.value("cpra_stalls_total"),
        after.outcomes("VOID:"),
        after.value("cpra_checks_missed_total"),
        after.sum("cpra_checks_skipped_total{", ""),
    );
    assert_eq!(after.failures(), [], "{}", cpra.said());
    assert_eq!(after.notices(), 0.0);
    assert_eq!(after.value("cpra_monitors_lost"), 0.0);
    assert!(checked > MONITORS as f64, "every one was checked again: {checked}");
    assert!(after.value("cpra_stalls_total") > before.value("cpra_stalls_total"), "it noticed");
    eventually("all are up again", || cpra.metrics().state("up") == MONITORS as f64);
    assert_eq!(cpra.metrics().failures(), []);
    assert!(!cpra.path("notices.jsonl").exists(), "{}", cpra.text("notices.jsonl"));
    let story = cpra.stdout();
    assert!(!story.contains("RED") && !story.contains("YELLOW"), "{story}");
}
