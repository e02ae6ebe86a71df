use proptest::prelude::*;

use super::*;

const FREE: Bounds = Bounds { min: 1, max: WORKERS_MAX, headroom: 0 };

fn millis(millis: u64) -> Span {
    Span::from_millis(millis)
}

fn waiting(wait: Span, percentile: u8) -> Slo {
    Slo { within: Span::ZERO, percentile, wait }
}

fn constant(mean: f64) -> Service {
    Service { mean, scv: 0.0, points: vec![(mean, 1.0)] }
}

fn poisson(offered: f64, service: &Service) -> Load {
    Load { rate: offered / service.mean, scv: 1.0 }
}

/// With so many workers, whatever is needed.
fn with(workers: u32, offered: f64, service: &Service, percentile: u8) -> Answer {
    let bounds = Bounds { min: workers, max: workers, headroom: 0 };
    solve(poisson(offered, service), service, &waiting(millis(10), percentile), &bounds)
}

/// M/M/c is exact: P(wait > t) = C · e^{-(c - a)t/S}.
#[test]
fn exponential_services_are_exact() {
    let service = Service::exponential(1.0);
    for (workers, offered, waits) in
        [(2, 1.0, 1.0 / 3.0), (10, 8.0, 0.409_18), (10, 9.0, 0.668_73), (25, 20.0, 0.209_10)]
    {
        let answer = with(workers, offered, &service, 95);
        let spare = f64::from(workers) - offered;
        let mean = waits / spare;
        assert!((answer.mean_wait / mean - 1.0).abs() < 1e-4, "{workers}: {} and not {mean}", answer.mean_wait);
        let wait = (waits / 0.05_f64).ln() / spare;
        assert!((answer.wait / wait - 1.0).abs() < 1e-4, "{workers}: {} and not {wait}", answer.wait);
    }
}

/// M/D/1 and M/G/1 by Pollaczek and Khinchin: ρ/(1 - ρ) · S · (1 + Cs²)/2.
#[test]
fn one_worker_waits_as_pollaczek_and_khinchin_say() {
    for (scv, used) in [(0.0, 0.5), (0.0, 0.9), (0.25, 0.8), (4.0, 0.3)] {
        let service = Service { mean: 0.2, scv, points: vec![(0.2, 1.0)] };
        let expected = used / (1.0 - used) * 0.2 * (1.0 + scv) / 2.0;
        let found = with(1, used, &service, 95).mean_wait;
        assert!((found / expected - 1.0).abs() < 1e-9, "{scv} at {used}: {found}, not {expected}");
    }
}

/// M/D/c exactly: C. D. Crommelin, *Delay probability formulae when the holding times are constant*, P.O. Electrical
/// Engineers' Journal 25 (1932) 41-50, in the form of G. J. Franx, Operations Research Letters 29 (2001) 221-229. The figures are
/// (servers, ρ, mean number that waits), from that equation; a tenth off is what the bent mean is held to.
#[test]
fn constant_services_wait_nearly_as_crommelin_says() {
    for (workers, used, waiting) in [
        (2, 0.5, 0.1767),
        (2, 0.8, 1.4453),
        (5, 0.5, 0.0766),
        (5, 0.8, 1.1562),
        (10, 0.5, 0.0237),
        (10, 0.8, 0.8786),
        (10, 0.9, 3.1012),
    ] {
        let service = constant(1.0);
        let offered = f64::from(workers) * used;
        let queue = Queue { load: poisson(offered, &service), service: &service, offered };
        let tail = queue.tail(ErlangB::new(offered).grown_to(workers));
        let (found, exact) = (tail.waits * tail.patience, waiting / offered);
        assert!((found / exact - 1.0).abs() < 0.1, "{workers} at {used}: {found}, not {exact}");
        // The base that is shown is Allen and Cunneen's: half of M/M/c.
        let plain = with(workers, offered, &service, 95).mean_wait;
        assert!((plain / (tail.waits / (f64::from(workers) - offered)) - 0.5).abs() < 1e-9);
    }
}

#[test]
fn the_first_of_several_running_services() {
    // Of constant ones, what is left is uniform; of exponential ones, it is exponential.
    assert!((constant(3.0).first_of(5.0) - 0.5).abs() < 1e-12);
    assert!((Service::exponential(3.0).first_of(6.0) / 0.5 - 1.0).abs() < 0.02);
    assert!(Service::default().first_of(3.0) <= 0.0);
    // One in a hundred takes 5 s: nearly always all that run are of those.
    let mixed = Service { mean: 0.050_99, scv: 95.2, points: vec![(0.001, 0.99), (5.0, 0.01)] };
    let (first, uniform) = (mixed.first_of(3.0), 5.0 / 4.0);
    assert!(first > 0.9 * uniform && first < uniform, "{first}");
}

#[test]
fn nothing_bends_where_services_are_exponential() {
    let service = Service::exponential(1.0);
    let queue = Queue { load: poisson(8.0, &service), service: &service, offered: 8.0 };
    assert!((queue.bend(10) - 1.0).abs() < 0.02, "{}", queue.bend(10));
    assert!((queue.bend(1) - 1.0).abs() < 1e-12);
}

#[test]
fn the_least_is_the_least() {
    let slo = waiting(millis(10), 95);
    for service in [Service::exponential(0.02), constant(0.02), Service { scv: 4.0, ..Service::exponential(0.02) }] {
        for offered in [0.01, 0.9, 1.0, 7.3, 100.0, 4_567.8, 1e6] {
            let needed = solve(poisson(offered, &service), &service, &slo, &FREE).needed;
            let wait = |workers| with(workers, offered, &service, 95).wait;
            assert!(wait(needed) <= 0.010 + 1e-9, "{needed} suffice for {offered}");
            let enough_work = f64::from(needed - 1) > offered;
            assert!(!enough_work || wait(needed - 1) > 0.010, "{} suffice for {offered}", needed - 1);
        }
    }
}

#[test]
fn the_goal_is_the_result_while_the_service_leaves_room_for_it() {
    let slo = Slo { within: millis(100), percentile: 95, wait: millis(10) };
    let goal = |service: &Service| solve(poisson(10.0, service), service, &slo, &FREE).goal;
    assert_eq!(goal(&Service::exponential(0.02)), Goal::Result(millis(100)));
    assert_eq!(goal(&constant(0.1)), Goal::Result(millis(100)));
    assert_eq!(goal(&constant(0.101)), Goal::Wait(millis(10)));
    // One in a hundred is late anyway, one in ten is too many.
    let mixed = |share| Service { mean: 0.01 + share, scv: 10.0, points: vec![(0.01, 1.0 - share), (1.0, share)] };
    assert_eq!(goal(&mixed(0.01)), Goal::Result(millis(100)));
    assert_eq!(goal(&mixed(0.1)), Goal::Wait(millis(10)));
}

#[test]
fn the_predicted_result_is_what_the_goal_was_held_to() {
    for service in [Service::exponential(0.02), constant(0.05), Service { scv: 3.0, ..Service::exponential(0.03) }] {
        for percentile in [50, 90, 95, 99] {
            let slo = Slo { within: millis(150), percentile, wait: millis(10) };
            let answer = solve(poisson(30.0, &service), &service, &slo, &FREE);
            assert!(answer.result <= 0.150 + 1e-9, "{} within the SLO", answer.result);
            let queue = Queue { load: answer.load, service: &service, offered: answer.offered };
            let tail = queue.tail(ErlangB::new(30.0).grown_to(answer.workers));
            let beyond = |seconds: f64| tail.takes_beyond(&service, seconds);
            assert!(beyond(answer.result + 1e-6) <= slo.late() + 1e-6, "no more than {percentile} % beyond it");
            assert!(beyond(answer.result - 1e-3) > slo.late() - 1e-9, "and it is the least such time");
        }
    }
}

#[test]
fn headroom_and_bounds() {
    let service = Service::exponential(0.02);
    let slo = waiting(millis(10), 95);
    let load = poisson(100.0, &service);
    let needed = solve(load, &service, &slo, &FREE).needed;
    let workers = |min, max, headroom| solve(load, &service, &slo, &Bounds { min, max, headroom });
    assert_eq!(workers(1, 50_000, 150).workers, (f64::from(needed) * 1.15).ceil() as u32);
    assert_eq!(workers(1, 50_000, 1).workers, needed + 1, "rounded up");
    assert_eq!(workers(500, 50_000, 150).workers, 500);
    let short = workers(1, needed - 1, 150);
    assert_eq!((short.workers, short.is_met()), (needed - 1, false));
    assert!(workers(1, needed, 150).is_met(), "without headroom it still suffices");
    assert_eq!(workers(64, 10, 0).workers, 10, "what there may be at most is the stronger word");
    assert_eq!(workers(0, 0, 0).workers, 1);
    let hopeless = workers(1, 99, 0);
    assert!(hopeless.mean_wait.is_infinite() && hopeless.wait.is_infinite() && hopeless.result.is_infinite());
}

#[test]
fn nothing_to_do_needs_one() {
    let service = Service::exponential(0.02);
    for (load, service) in [
        (Load::default(), service.clone()),
        (Load { rate: 1e-12, scv: 1.0 }, service.clone()),
        (Load { rate: 100.0, scv: 1.0 }, Service::default()),
        (Load { rate: 100.0, scv: 1.0 }, constant(0.0)),
    ] {
        let answer = solve(load, &service, &waiting(millis(1), 99), &FREE);
        assert_eq!(answer.needed, 1, "{load:?}");
        assert!(answer.mean_wait < 1e-6 && answer.wait <= 0.0, "{answer:?}");
    }
}

#[test]
fn regular_arrivals_and_constant_services_wait_for_nobody() {
    let service = constant(0.02);
    let answer = solve(Load { rate: 500.0, scv: 0.0 }, &service, &waiting(Span::ZERO, 99), &FREE);
    assert_eq!((answer.needed, answer.mean_wait, answer.wait), (11, 0.0, 0.0));
    assert!((answer.result - 0.02).abs() < 1e-12);
}

#[test]
fn a_million_erlangs_are_answered() {
    let service = Service::exponential(0.1);
    let answer = solve(poisson(1e6, &service), &service, &waiting(millis(10), 95), &FREE);
    // Three in a thousand more than the load: the square root of it, times less than two.
    assert!((1_000_001..1_003_000).contains(&answer.needed), "{}", answer.needed);
}

proptest! {
    #[test]
    fn more_load_never_needs_fewer(
        offered in 0.01..3_000.0_f64, more in 1.0..2.0_f64, scv in 0.0..6.0_f64, bursts in 0.0..4.0_f64,
        wait in 0..200_u64, percentile in 1..100_u8,
    ) {
        let service = Service { scv, ..Service::exponential(0.02) };
        let slo = Slo { within: millis(100), percentile, wait: millis(wait) };
        let needed = |offered: f64| {
            solve(Load { rate: offered / service.mean, scv: bursts }, &service, &slo, &FREE).needed
        };
        prop_assert!(needed(offered) <= needed(offered * more));
        prop_assert!(f64::from(needed(offered)) > offered);
    }

    #[test]
    fn whatever_is_asked_is_answered(
        rate in any::<f64>(), arrivals in any::<f64>(), mean in any::<f64>(), scv in any::<f64>(),
        within in any::<u64>(), wait in any::<u64>(), percentile in any::<u8>(),
        min in any::<u32>(), max in any::<u32>(), headroom in any::<u16>(),
    ) {
        let service = Service { mean, scv, points: vec![(mean / 2.0, 0.5), (mean * 1.5, 0.5)] };
        let slo = Slo { within: Span::from_nanos(within), percentile, wait: Span::from_nanos(wait) };
        let answer = solve(Load { rate, scv: arrivals }, &service, &slo, &Bounds { min, max, headroom });
        prop_assert!((1..=max.max(1)).contains(&answer.workers));
        prop_assert!((1..=WORKERS_MAX).contains(&answer.needed));
        prop_assert!(!answer.mean_wait.is_nan() && !answer.wait.is_nan());
    }
}
