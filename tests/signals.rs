//! Programs in the kernel beside everything else that a network and a host have: what they take, what they leave, where
//! they are attached and that they go again. What is judged, and by which way it was told, is in `icmp.rs`, for sockets and
//! programs alike.

#![allow(unreachable_pub, reason = "modules of one test crate")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod counterparts;

use std::net::IpAddr;
use std::time::Duration;

use cpra::domain::Outcome;
use cpra::os::ebpf::Hook;
use cpra_common::Count;

use counterparts::engine::{Backend, Engine, Monitored};

#[path = "signals/answers.rs"]
mod answers;
#[allow(dead_code, reason = "of another test, which uses all of it")]
#[path = "process/daemon.rs"]
mod daemon;
#[path = "signals/interfaces.rs"]
mod interfaces;
#[path = "signals/others.rs"]
mod others;
#[path = "signals/traces.rs"]
mod traces;

const SOON: Duration = Duration::from_millis(300);

fn ping(to: &str) -> Monitored {
    Monitored::ping(to.parse::<IpAddr>().expect("an address"))
}

/// With programs at this hook, and requests to these.
fn engine(hook: Hook, targets: &[&str]) -> Engine {
    let monitored: Vec<Monitored> = targets.iter().map(|to| ping(to).within(SOON)).collect();
    Engine::by(Backend::Signals(hook), &monitored.iter().collect::<Vec<_>>(), 8)
}

fn count(engine: &Engine, what: Count) -> u64 {
    engine.signals.as_ref().expect("it has programs").count(what)
}

#[track_caller]
fn assert_code(outcome: &Outcome, code: &str) {
    assert_eq!(outcome.code.as_str(), code, "{:?}", outcome.evidence);
}

/// They are fine, and programs told so of each.
#[track_caller]
fn assert_heard(engine: &mut Engine) {
    let (answers, heard) = (engine.answers(), engine.heard());
    let outcomes = engine.check_all();
    for outcome in &outcomes {
        assert_code(outcome, "L3OK");
    }
    let (answers, heard) = (engine.answers() - answers, engine.heard() - heard);
    assert_eq!((answers, heard), (outcomes.len() as u64, outcomes.len() as u64), "answers, and by programs");
}

/// Until they are fine: a link is up a moment after it is said to be.
#[track_caller]
fn await_targets(engine: &mut Engine) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !engine.check_all().iter().all(|outcome| outcome.code.as_str() == "L3OK") {
        assert!(std::time::Instant::now() < until, "they never answer");
    }
}
