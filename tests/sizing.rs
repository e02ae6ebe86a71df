//! Pulse gives itself the workers that its promise takes, alive on the real ring: when ten times more is due, when
//! answers take two hundred times longer, and when both have passed.
//!
//! What is asserted are shares of the checks that the daemon counted from five seconds after a step until the next one.
//! `cargo xtask bench steps` does the same with more load, and draws it.

mod live;

use std::ops::Range;

use cpra::domain::{Monitor, Policy};
use cpra::os::clock::Clock;
use cpra::queueing::solver::Bounds;
use cpra::queueing::{Goal, Setup};
use cpra::units::{Instant, Span};
use live::crowd::Crowd;
use live::watch::{Log, Promise, Watch};
use live::{Running, alone, http, monitor, pass};

const SERVERS: usize = 64;
const SECOND: Span = Span::from_secs(1);
/// The promise holds again within this long.
const RECOVERY: Span = Span::from_secs(5);
const SHARE: f64 = 0.95;

/// As many workers as it takes, and no ground to stand on.
fn free() -> Setup {
    let setup = Setup::default();
    Setup { bounds: Bounds { min: 4, ..setup.bounds }, ..setup }
}

fn monitors(crowd: &Crowd, count: usize, enabled: usize) -> Vec<Monitor> {
    let policy = Policy::new(http(true), SECOND, SECOND);
    let one =
        |index: usize| monitor(&name(index), index < enabled, crowd.address(index % crowd.len()), "/", policy.clone());
    (0..count).map(one).collect()
}

fn name(index: usize) -> String {
    format!("web/{index}")
}

/// A stretch of time without the recovery at its beginning.
fn recovered(time: &Range<Instant>) -> Range<Instant> {
    time.start + RECOVERY..time.end
}

/// Its last seconds.
fn last(time: &Range<Instant>, seconds: u64) -> Range<Instant> {
    time.end.before(Span::from_secs(seconds))..time.end
}

/// What was promised at the end of a stretch of time, and the share that was kept since its recovery.
fn kept(log: &Log, what: &str, time: &Range<Instant>) -> (Promise, f64) {
    let answer = log.answer(time, "http").expect("http is sized");
    let promise = Promise::from(answer.goal);
    let counted = log.counted(&recovered(time));
    let share = counted.share(promise).expect("enough was counted");
    println!(
        "{what}: {:.0}/s, {:.4} kept {promise:?} since {RECOVERY} after the step (in every half second since {}); \
         workers {:?}, in the last 2 s {:?}; {answer:?}",
        counted.rate(),
        share,
        log.held_after(time, promise, SHARE),
        log.workers(&recovered(time)),
        log.workers(&last(time, 2)),
    );
    (promise, share)
}

/// Nobody fiddles with the number while nothing changes: what was too much goes, and nothing comes back.
fn assert_settled(log: &Log, what: &str, time: &Range<Instant>) {
    let workers = log.workers(&recovered(time));
    // A pause of the machine is answered with more workers, and rightly so.
    assert!(workers.rises <= 2, "{what}: the workers did not settle: {workers:?}");
}

#[test]
fn ten_times_the_rate_and_back() {
    let _alone = alone();
    live::raise_open_files();
    let (few, many) = (500, 5_000);
    let crowd = Crowd::start(SERVERS).expect("loopback has room");
    crowd.set_delay(Span::from_millis(1));
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(monitors(&crowd, many, few), free(), folder.path());
    let others = running.ids((few..many).map(name));
    let watch = Watch::start(running.source.clone());
    let calm = pass(7);
    let up = Clock.now();
    running.switch(&others, true);
    let busy = up..pass(10).end;
    let down = Clock.now();
    running.switch(&others, false);
    let calm_again = down..pass(16).end;
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");

    for (what, time) in [("500/s", &calm), ("5,000/s", &busy), ("500/s again", &calm_again)] {
        let (promise, share) = kept(&log, what, time);
        assert_eq!(promise, Promise::Result(Span::from_millis(100)), "{what}");
        assert!(share >= SHARE, "{what}: {share}");
        assert_settled(&log, what, time);
    }
    let rate = log.counted(&recovered(&busy)).rate();
    assert!(rate > 0.9 * many as f64, "the step happened: {rate}/s");
    let (peak, rest) = (log.workers(&recovered(&busy)).most, log.workers(&last(&calm_again, 2)).most);
    assert!(rest < peak, "what is not needed is given back: {rest} of {peak}");
}

const CHECKS: usize = 500;
const SLOW: Span = Span::from_millis(200);

#[test]
fn two_hundred_times_the_service_time_and_back() {
    let _alone = alone();
    live::raise_open_files();
    let crowd = Crowd::start(SERVERS).expect("loopback has room");
    crowd.set_delay(Span::from_millis(1));
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(monitors(&crowd, CHECKS, CHECKS), free(), folder.path());
    let watch = Watch::start(running.source.clone());
    let fast = pass(7);
    crowd.set_delay(SLOW);
    let slow = pass(12);
    crowd.set_delay(Span::from_millis(1));
    let fast_again = pass(17);
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");

    let within = Promise::Result(Span::from_millis(100));
    let soon = Promise::Wait(Span::from_millis(10));
    for (what, time, promise) in [("1 ms", &fast, within), ("200 ms", &slow, soon), ("1 ms again", &fast_again, within)]
    {
        let (promised, share) = kept(&log, what, time);
        assert_eq!(promised, promise, "{what}");
        assert!(share >= SHARE, "{what}: {share}");
        assert_settled(&log, what, time);
    }
    let answer = log.answer(&slow, "http").expect("http is sized");
    assert!(answer.offered > 90.0 && answer.needed > 100, "500/s of 200 ms are 100 erlangs: {answer:?}");
    let (peak, rest) = (log.workers(&slow).most, log.workers(&last(&fast_again, 2)).least);
    assert!(rest < peak / 2, "what is not needed is given back: {rest} of {peak}");

    half_as_many(&crowd, answer.workers / 2);
}

/// The same promise is not kept by half the workers: what is asserted above is not true of itself.
fn half_as_many(crowd: &Crowd, workers: u32) {
    crowd.set_delay(SLOW);
    let folder = tempfile::tempdir().expect("a folder");
    let setup = free();
    let setup = Setup { bounds: Bounds { max: workers, ..setup.bounds }, ..setup };
    let running = Running::start(monitors(crowd, CHECKS, CHECKS), setup, folder.path());
    let watch = Watch::start(running.source.clone());
    let time = pass(10);
    let log = watch.end();
    assert!(running.stop(), "everything ends in time");
    let (promise, share) = kept(&log, "200 ms with half the workers", &time);
    assert_eq!(promise, Promise::Wait(Span::from_millis(10)));
    assert!(share < SHARE, "half the workers must not suffice: {share}");
    let report = log.0.last().and_then(|sample| sample.class("http")).expect("http is sized").clone();
    assert!(report.unreachable, "and it is said: {report:?}");
    assert!(matches!(report.answer.goal, Goal::Wait(_)) && !report.answer.is_met(), "{report:?}");
}
