use super::*;

const START: Instant = Instant::from_nanos(50_000_000_000);

/// A pipeline with enough workers: whoever arrives is served at once.
struct Pipeline {
    controller: Controller,
    now: Instant,
    random: fastrand::Rng,
    /// Every change, with the second of it.
    decisions: Vec<(f64, Decision)>,
}

impl Pipeline {
    fn new(setup: Setup, rate: f64) -> Self {
        let controller = Controller::new(setup, rate, START);
        Self { controller, now: START, random: fastrand::Rng::with_seed(11), decisions: Vec::new() }
    }

    fn exponential(&mut self, mean: f64) -> Span {
        Span::from_nanos((-mean * (1.0 - self.random.f64()).ln() * 1e9) as u64)
    }

    /// So many seconds of arrivals and services at random.
    fn run(&mut self, seconds: u64, rate: f64, service: f64) {
        let end = self.now + Span::from_secs(seconds);
        while self.now < end {
            while self.controller.next_adjustment() <= self.now {
                let busy = (rate * service) as u32;
                let demand = Demand { busy: busy.min(self.controller.workers()), ..Demand::default() };
                self.adjust(self.controller.next_adjustment(), demand);
            }
            self.controller.arrived(self.now);
            self.controller.started(Span::ZERO);
            let time = self.exponential(service);
            self.controller.ended(time, time);
            let gap = self.exponential(1.0 / rate);
            self.now += gap;
        }
    }

    fn adjust(&mut self, now: Instant, demand: Demand) {
        let before = self.controller.workers();
        let decision = self.controller.adjust(now, demand);
        assert_eq!(decision.is_some(), before != self.controller.workers(), "a decision is a change, and a change one");
        if let Some(decision) = decision {
            assert_eq!((decision.before, decision.workers), (before, self.controller.workers()));
            self.decisions.push((now.since(START).as_secs_f64(), decision));
        }
    }

    fn workers(&self) -> u32 {
        self.controller.workers()
    }
}

fn setup(min: u32, max: u32) -> Setup {
    Setup { bounds: Bounds { min, max, headroom: 150 }, ..Setup::default() }
}

#[test]
fn the_first_number_comes_from_what_is_known() {
    let controller = Controller::new(setup(1, 50_000), 10_000.0, START);
    // 10,000/s of 20 ms are 200 erlangs; with headroom for 100 ms at 95 %.
    assert!((220..260).contains(&controller.workers()), "{}", controller.workers());
    assert_eq!(controller.workers(), controller.answer().workers);
    assert_eq!(Controller::new(setup(64, 50_000), 1.0, START).workers(), 64);
}

#[test]
fn workers_that_wait_for_us_are_added_to_those_that_serve() {
    let workers = |delay: Span| {
        let mut pipeline = Pipeline::new(setup(1, 50_000), 1.0);
        let served = Span::from_micros(50);
        for _ in 0..15 * 20_000 {
            while pipeline.controller.next_adjustment() <= pipeline.now {
                pipeline.adjust(pipeline.controller.next_adjustment(), Demand::default());
            }
            pipeline.controller.arrived(pipeline.now);
            pipeline.controller.started(Span::ZERO);
            pipeline.controller.ended(served, served + delay);
            pipeline.controller.delayed(delay);
            pipeline.now += served;
        }
        pipeline.workers()
    };
    let (served, held) = (workers(Span::ZERO), workers(Span::from_millis(1)));
    assert!(served <= 8, "one erlang: {served}");
    // 20,000 milliseconds a second.
    assert!((served + 20..=served + 26).contains(&held), "{held} after {served}");
}

#[test]
fn a_steady_load_leaves_the_workers_alone() {
    for (rate, service) in [(2_000.0, 0.02), (500.0, 0.1), (200.0, 0.05)] {
        let mut pipeline = Pipeline::new(setup(1, 50_000), rate);
        pipeline.run(60, rate, service);
        pipeline.decisions.clear();
        let settled = pipeline.workers();
        pipeline.run(240, rate, service);
        let changes = &pipeline.decisions;
        assert!(changes.len() <= 4, "{rate}/s of {service} s: {changes:?}");
        // What is measured of a load at random is random.
        let near = |workers: u32| workers.abs_diff(settled) <= (settled / 7).max(1);
        assert!(
            changes.iter().all(|(_, change)| near(change.workers)),
            "{rate}/s of {service} s, {settled}: {changes:?}"
        );
        let offered = rate * service;
        assert!(f64::from(pipeline.workers()) > offered && f64::from(pipeline.workers()) < 2.0 * offered + 5.0);
    }
}

#[test]
fn more_is_granted_at_once_and_taken_back_slowly() {
    let mut pipeline = Pipeline::new(setup(1, 50_000), 1_000.0);
    pipeline.run(30, 1_000.0, 0.02);
    let few = pipeline.workers();
    pipeline.run(2, 10_000.0, 0.02);
    let many = pipeline.workers();
    assert!(many > 200 && few < 60, "{few} before, {many} a second after");
    pipeline.run(10, 10_000.0, 0.02);
    let most = pipeline.workers();
    pipeline.run(HOLD.as_secs(), 1_000.0, 0.02);
    assert_eq!(pipeline.workers(), most, "nobody is sent away while the peak is in memory");
    pipeline.decisions.clear();
    pipeline.run(60, 1_000.0, 0.02);
    for (second, decision) in &pipeline.decisions {
        let (before, after) = (decision.before, decision.workers);
        assert!(after >= before / 2, "{before} to {after} in one step, at {second} s");
    }
    let apart = pipeline.decisions.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(apart.clone().count() > 3 && apart.fold(f64::MAX, f64::min) > 0.85, "one step a second");
    assert!(pipeline.workers() <= few + few / 4, "{} after a minute, {few} before", pipeline.workers());
}

#[test]
fn a_slow_service_shows_within_a_second() {
    let mut pipeline = Pipeline::new(setup(1, 50_000), 1_000.0);
    pipeline.run(20, 1_000.0, 0.001);
    pipeline.run(2, 1_000.0, 0.2);
    assert!(pipeline.workers() > 200, "{} for 200 erlangs", pipeline.workers());
}

#[test]
fn what_waits_is_to_be_gone_within_a_second() {
    let mut pipeline = Pipeline::new(setup(1, 50_000), 1_000.0);
    pipeline.run(20, 1_000.0, 0.02);
    let before = pipeline.workers();
    let next = pipeline.controller.next_adjustment();
    pipeline.adjust(next, Demand { busy: before - 1, waiting: 5_000, longest_wait: Span::from_millis(1) });
    // 5,000 more a second of 20 ms: 100 erlangs.
    assert!(pipeline.workers() >= before + 100, "{before} and then {}", pipeline.workers());
}

#[test]
fn the_model_is_overruled_where_somebody_waits_far_too_long() {
    let mut pipeline = Pipeline::new(setup(1, 100), 100.0);
    pipeline.run(20, 100.0, 0.02);
    let before = pipeline.workers();
    let late = Span::from_millis(401);
    let demand = |busy, longest_wait| Demand { busy, waiting: 1, longest_wait };
    // Not while there are workers left, nor for a wait that may happen.
    for demand in [demand(before - 1, late), demand(before, Span::from_millis(400))] {
        pipeline.adjust(pipeline.controller.next_adjustment(), demand);
        assert!(pipeline.workers() <= before + 1, "{demand:?}");
    }
    let before = pipeline.workers();
    pipeline.adjust(pipeline.controller.next_adjustment(), demand(before, late));
    assert_eq!(pipeline.workers(), before + before / 2);
    assert!(pipeline.decisions.last().is_some_and(|(_, decision)| decision.overruled));
    for _ in 0..20 {
        let busy = pipeline.workers();
        pipeline.adjust(pipeline.controller.next_adjustment(), demand(busy, late));
    }
    assert_eq!(pipeline.workers(), 100, "never beyond the bound");
}

#[test]
fn a_fixed_number_stays() {
    let mut pipeline = Pipeline::new(Setup::fixed(7), 1_000_000.0);
    assert_eq!(pipeline.workers(), 7);
    pipeline.run(15, 2_000.0, 0.1);
    let waiting = Demand { busy: 7, waiting: 10_000, longest_wait: Span::from_secs(60) };
    pipeline.adjust(pipeline.controller.next_adjustment(), waiting);
    pipeline.run(15, 100.0, 0.001);
    assert_eq!((pipeline.workers(), pipeline.decisions.len()), (7, 0));
}

#[test]
fn it_is_not_thought_about_before_it_is_time() {
    let mut controller = Controller::new(setup(1, 50), 1.0, START);
    let much = Demand { busy: 50, waiting: 1_000_000, longest_wait: Span::from_secs(9) };
    assert_eq!(controller.adjust(START + Span::from_millis(99), much), None);
    assert!(controller.adjust(START + ADJUST_EVERY, much).is_some());
    assert_eq!(controller.next_adjustment(), START + ADJUST_EVERY + ADJUST_EVERY);
}

#[test]
fn queues_that_share_bounds_stay_within_them() {
    for (min, max, queues) in [(64, 50_000, 4), (1, 1, 3), (10, 7, 2), (0, 5, 9)] {
        let part = setup(min, max).shared_by(queues).bounds;
        assert!(part.min <= part.max && part.max >= 1, "{part:?}");
        assert!(part.max * queues <= max.max(queues), "{part:?}");
    }
}
