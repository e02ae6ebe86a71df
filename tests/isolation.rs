//! Who is in trouble delays nobody else: beside five hundred scripts that hang, two hundred targets that do not answer,
//! and an outage of most of them, the checks of the others start when they are due.
//!
//! What is compared is the 99th percentile of the wait of the class `http`, as the daemon reports it, before and in the
//! trouble of the same run.

mod live;
mod support;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cpra::domain::monitor::{CodeRule, Dispatch, ScriptCheck};
use cpra::domain::{Check, Code, Codes, Color, Destination, Monitor, Policy};
use cpra::os::clock::Clock;
use cpra::queueing::Setup;
use cpra::queueing::solver::Bounds;
use cpra::shard::ShardStats;
use cpra::shard::protocol::STATES;
use cpra::units::{Instant, Span};
use live::crowd::{Crowd, Manners};
use live::watch::{Log, Watch};
use live::{Running, alone, http, monitor, pass};

const TARGETS: usize = 2_000;
const INTERVAL: Span = Span::from_secs(2);
const TIMEOUT: Span = Span::from_secs(1);
const HTTP: &str = "http";
const SUSPECTS: &str = "suspects";

/// What is reported covers four seconds: those before do not belong to this stretch of time.
fn settled(time: &Range<Instant>) -> Range<Instant> {
    time.start + Span::from_secs(5)..time.end
}

/// A policy of which everything that is told goes into one file.
fn told(check: Check, interval: Span, timeout: Span, file: &Path) -> Policy {
    let log = Arc::new(Destination::log(Some(file.to_owned())));
    let mut codes = Codes::default();
    for color in Color::ALL {
        codes.set(color, CodeRule { dispatch: Dispatch::On, notify: Box::new([log.clone()]) });
    }
    Policy { codes, ..Policy::new(check, interval, timeout) }
}

fn web(index: usize) -> String {
    format!("web/{index}")
}

fn webs(crowd: &Crowd, policy: &Policy) -> Vec<Monitor> {
    (0..crowd.len()).map(|index| monitor(&web(index), true, crowd.address(index), "/", policy.clone())).collect()
}

fn state(stats: &ShardStats, state: &str) -> usize {
    let index = STATES.iter().position(|known| *known == state).expect("a state");
    stats.monitors[index] as usize
}

/// Checks with these outcomes, of all kinds.
fn outcomes(stats: &ShardStats, of: impl Fn(Code) -> bool) -> u64 {
    let of = &of;
    let counted = |codes: &[u64; Code::ALL.len()]| -> u64 {
        Code::ALL.iter().filter(|&&code| of(code)).map(|code| codes[code.index()]).sum()
    };
    stats.checks.iter().map(counted).sum()
}

/// Unchanged within noise: generously, since the machine is shared.
fn assert_unchanged(log: &Log, before: &Range<Instant>, during: &Range<Instant>) {
    let p99 = |time| log.wait_p99(&settled(time), HTTP).expect("http is sized");
    let (calm, troubled) = (p99(before), p99(during));
    let worst = log.worst_wait_p99(during, HTTP).expect("http is sized");
    println!("http waits, p99: {calm} before, {troubled} in the trouble, {worst} in the worst four seconds of it");
    let bound = calm.scaled(3, 1).max(Span::from_millis(20));
    assert!(troubled <= bound, "p99 of the wait was {calm}, and is {troubled}");
}

fn assert_sound(log: &Log) {
    let last = log.0.last().expect("it was looked at");
    assert_eq!(last.stats.lost, 0);
}

#[test]
fn hung_scripts_delay_no_http_check() {
    let _alone = alone();
    live::raise_open_files();
    let scripts = 500;
    let crowd = Crowd::start(TARGETS).expect("loopback has room");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notices.jsonl");
    let mut monitors = webs(&crowd, &told(http(false), INTERVAL, TIMEOUT, &file));
    let script = ScriptCheck { argv: Box::new(["/bin/sleep".into(), "63.5".into()]), env: Box::default(), cwd: None };
    let hanging = Policy::new(Check::Script(script), Span::from_secs(10), Span::from_secs(8));
    let hung = |index: usize| format!("hung/{index}");
    let nowhere = ([0, 0, 0, 0], 0).into();
    monitors.extend((0..scripts).map(|index| monitor(&hung(index), false, nowhere, "", hanging.clone())));
    let running = Running::start(monitors, Setup::default(), folder.path());
    support::eventually("all are up", || state(&running.source.shard_stats(), "up") == TARGETS);
    let watch = Watch::start(running.source.clone());
    let before = pass(9);
    running.switch(&running.ids((0..scripts).map(hung)), true);
    let during = pass(16);
    let most = running.source.shard_stats();
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");

    let busy = |class: &str| log.0.iter().filter_map(|sample| sample.class(class)).map(|class| class.demand.busy).max();
    println!("scripts at a time, at most: {:?} (as suspects: {:?})", busy("script"), busy(SUSPECTS));
    assert!(outcomes(&most, |code| code == Code::ProcTout) >= scripts as u64, "each has hung: {:?}", most.checks);
    assert_unchanged(&log, &before, &during);
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), "", "no http monitor has failed");
    assert_sound(&log);
}

#[test]
fn hung_targets_delay_no_others_and_recover() {
    let _alone = alone();
    live::raise_open_files();
    let hung = 200;
    let crowd = Crowd::start(TARGETS).expect("loopback has room");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notices.jsonl");
    let (quiet, loud) = (Policy::new(http(false), INTERVAL, TIMEOUT), told(http(false), INTERVAL, TIMEOUT, &file));
    let mut monitors = webs(&crowd, &loud);
    for monitor in &mut monitors[..hung] {
        monitor.policy = quiet.clone();
    }
    let running = Running::start(monitors, Setup::default(), folder.path());
    let stats = || running.source.shard_stats();
    support::eventually("all are up", || state(&stats(), "up") == TARGETS);
    let watch = Watch::start(running.source.clone());
    let before = pass(9);
    // Half of them take requests and say nothing, the others take no connection.
    crowd.behave(0..hung / 2, Manners::Silent);
    crowd.behave(hung / 2..hung, Manners::Deaf);
    let during = pass(14);
    support::eventually("the hung ones are down", || state(&stats(), "down") == hung);
    let calm = stats();
    crowd.behave(0..hung, Manners::Answers);
    support::eventually("all are up again", || state(&stats(), "up") == TARGETS);
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");

    assert_unchanged(&log, &before, &during);
    let report = log.last_of(&during, SUSPECTS).expect("suspects are a class of their own");
    println!("suspects: {report:?}");
    assert!(report.workers >= report.demand.busy && report.service_times.p50 >= TIMEOUT.scaled(9, 10), "{report:?}");
    assert!(outcomes(&calm, |code| code == Code::L7Tout) > 0 && outcomes(&calm, |code| code == Code::L4Tout) > 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), "", "none of the others has failed");
    assert_sound(&log);
}

#[test]
fn most_of_all_targets_hang_and_the_others_do_not_notice() {
    let _alone = alone();
    live::raise_open_files();
    // 800 suspects that take half a second each, every second, would take 400 workers; there are 120 in all.
    let (targets, hung, workers) = (1_000, 800, 120);
    let (interval, timeout) = (Span::from_secs(1), Span::from_millis(500));
    let crowd = Crowd::start(targets).expect("loopback has room");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notices.jsonl");
    let mut monitors = webs(&crowd, &told(http(false), interval, timeout, &file));
    for monitor in &mut monitors[..hung] {
        monitor.policy = Policy::new(http(false), interval, timeout);
    }
    let setup = Setup::default();
    let setup = Setup { bounds: Bounds { min: 8, max: workers, ..setup.bounds }, ..setup };
    let running = Running::start(monitors, setup, folder.path());
    let stats = || running.source.shard_stats();
    support::eventually("all are up", || state(&stats(), "up") == targets);
    let watch = Watch::start(running.source.clone());
    let before = pass(9);
    crowd.behave(0..hung, Manners::Silent);
    let during = pass(14);
    support::eventually("the hung ones are down", || state(&stats(), "down") == hung);
    // Down for long: they are asked again and again, each of them, if not as often as they are due.
    let (asked, missed) = (crowd.asked(), stats().missed);
    thread::sleep(Duration::from_secs(14));
    let (asked_since, missed) = (crowd.asked(), stats().missed - missed);
    let since: Vec<u64> = asked_since.iter().zip(&asked).map(|(after, before)| after - before).collect();
    let (least, most) = (since[..hung].iter().min(), since[..hung].iter().max());
    let healthy = since[hung..].iter().min();
    println!(
        "in 14 s each suspect was asked {least:?} to {most:?} times, each healthy one at least {healthy:?}; {missed} missed"
    );
    let recovering = Clock.now();
    crowd.behave(0..hung, Manners::Answers);
    support::eventually("all are up again", || state(&stats(), "up") == targets);
    let recovered = Clock.now().since(recovering);
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");

    println!("suspects: {:?}", log.last_of(&during, SUSPECTS));
    let found = log.0.iter().find(|sample| state(&sample.stats, "down") == hung).map(|sample| sample.at);
    println!("all found down after {:?}, all up {recovered} after its end", found.map(|at| at.since(during.start)));
    assert_unchanged(&log, &before, &during);
    let overfull = log.0.iter().find(|sample| sample.stats.in_flight > u64::from(workers));
    assert!(overfull.is_none(), "{workers} workers in all: {overfull:?}");
    assert!(least >= Some(&2), "every suspect is asked again: {since:?}");
    assert!(most <= least.map(|&least| 3 * least).as_ref(), "and in turn: {since:?}");
    assert!(healthy >= Some(&12), "the others as often as they are due: {since:?}");
    assert!(missed > 0, "what is not done is counted");
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), "", "none of the others has failed");
    assert_sound(&log);
}
