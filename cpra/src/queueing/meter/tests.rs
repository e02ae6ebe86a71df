use super::*;

const START: Instant = Instant::from_nanos(7_000_000_000_000);

fn at(seconds: f64) -> Instant {
    START + Span::from_nanos((seconds * 1e9) as u64)
}

fn span(seconds: f64) -> Span {
    Span::from_nanos((seconds * 1e9) as u64)
}

/// A meter that is read every 100 ms, as the controller does.
struct Fed {
    meter: Meter,
    now: f64,
    read: f64,
    reading: Reading,
    random: fastrand::Rng,
}

impl Fed {
    fn new() -> Self {
        let random = fastrand::Rng::with_seed(4);
        Self { meter: Meter::new(START), now: 0.0, read: 0.1, reading: Reading::default(), random }
    }

    /// Jobs of one length until `end`, with a random gap between them (or a batch of them), or a regular one.
    fn feed(&mut self, end: f64, rate: f64, service: f64, batch: u32, regular: bool) {
        while self.now < end {
            while self.read <= self.now {
                // Not on the dot: a step takes its time.
                self.reading = self.meter.read(at(self.read + 0.003));
                self.read += 0.1;
            }
            for _ in 0..batch {
                self.meter.arrived(at(self.now));
                self.meter.started(Span::ZERO);
                self.meter.ended(span(service), span(service));
            }
            let gap = if regular { 1.0 } else { -(1.0 - self.random.f64()).ln() };
            self.now += gap * f64::from(batch) / rate;
        }
    }

    fn fed(seconds: f64, rate: f64, service: f64, batch: u32, regular: bool) -> Reading {
        let mut fed = Self::new();
        fed.feed(seconds, rate, service, batch, regular);
        fed.reading
    }
}

fn is_near(found: f64, expected: f64, tolerance: f64) -> bool {
    (found / expected - 1.0).abs() <= tolerance
}

#[test]
fn what_arrives_at_random_has_a_dispersion_of_one() {
    for (rate, service) in [(2_000.0, 0.02), (500.0, 0.003), (20_000.0, 0.001)] {
        let scv = Fed::fed(6.0, rate, service, 1, false).load.scv;
        assert!(is_near(scv, 1.0, 0.3), "{rate}/s of {service} s: {scv}");
    }
}

#[test]
fn what_arrives_evenly_has_none() {
    let scv = Fed::fed(6.0, 2_000.0, 0.02, 1, true).load.scv;
    assert!(scv < 0.05, "{scv}");
}

#[test]
fn batches_have_a_dispersion_of_their_size() {
    let scv = Fed::fed(6.0, 2_000.0, 0.02, 8, false).load.scv;
    assert!(is_near(scv, 8.0, 0.4), "{scv}");
}

#[test]
fn the_rate_is_that_of_what_arrives() {
    for (rate, tolerance) in [(100.0, 0.01), (3_000.0, 0.005)] {
        let found = Fed::fed(9.03, rate, 0.01, 1, true).load.rate;
        assert!(is_near(found, rate, tolerance + 2.0 / rate), "{rate}/s looks like {found}/s");
    }
    let found = Fed::fed(9.03, 3_000.0, 0.01, 1, false).load.rate;
    assert!(is_near(found, 3_000.0, 0.03), "3,000/s look like {found}/s");
}

#[test]
fn more_shows_within_a_second_and_less_within_five() {
    let mut fed = Fed::new();
    fed.feed(10.0, 1_000.0, 0.001, 1, false);
    fed.feed(11.1, 20_000.0, 0.001, 1, false);
    assert!(fed.reading.load.rate > 18_000.0, "after a second: {}/s", fed.reading.load.rate);
    fed.feed(20.0, 20_000.0, 0.001, 1, false);
    fed.feed(25.0, 1_000.0, 0.001, 1, false);
    assert!(fed.reading.load.rate < 1_200.0, "after five seconds: {}/s", fed.reading.load.rate);

    let mean = |fed: &Fed| fed.reading.service.as_ref().expect("there were some").mean;
    fed.feed(30.0, 1_000.0, 0.001, 1, false);
    fed.feed(31.2, 1_000.0, 0.2, 1, false);
    assert!(mean(&fed) > 0.17, "after a second: {} s", mean(&fed));
    fed.feed(40.0, 1_000.0, 0.2, 1, false);
    fed.feed(45.0, 1_000.0, 0.001, 1, false);
    assert!(mean(&fed) < 0.0015, "after five seconds: {} s", mean(&fed));
}

#[test]
fn the_service_is_measured_with_its_moments_and_its_tail() {
    let mut meter = Meter::new(START);
    let mut random = fastrand::Rng::with_seed(9);
    let mut times: Vec<f64> = (0..50_000).map(|_| -0.02 * (1.0 - random.f64()).ln()).collect();
    for &time in &times {
        meter.ended(span(time), span(2.0 * time));
    }
    let reading = meter.read(at(0.5));
    let service = reading.service.expect("there were some");
    assert!(is_near(service.mean, 0.02, 0.02) && is_near(service.scv, 1.0, 0.05), "{} {}", service.mean, service.scv);
    assert!(service.points.len() < 150, "{} points", service.points.len());
    assert!(service.points.is_sorted_by(|one, next| one.0 < next.0));
    let sum: f64 = service.points.iter().map(|(_, weight)| weight).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    times.sort_unstable_by(f64::total_cmp);
    for percent in [50, 90, 95, 99] {
        let exact = times[times.len() / 100 * percent];
        let late = 1.0 - percent as f64 / 100.0;
        let beyond = service.beyond(exact);
        assert!(is_near(beyond, late, 0.12), "{beyond} beyond the percentile {percent}");
    }
    assert!(is_near(reading.service_times.p95.as_secs_f64(), 0.02 * 20.0_f64.ln(), 0.04));
    assert!(is_near(reading.results.p99.as_secs_f64(), 0.04 * 100.0_f64.ln(), 0.06));
}

#[test]
fn what_comes_seldom_is_remembered_for_a_minute() {
    let mut fed = Fed::new();
    fed.feed(90.0, 2.0, 0.3, 1, true);
    let service = fed.reading.service.clone().expect("there were some");
    assert!(is_near(service.mean, 0.3, 0.01) && is_near(fed.reading.load.rate, 2.0, 0.1), "{:?}", fed.reading.load);
    // And for no more than two.
    let mut now = 90.0;
    while now < 220.0 {
        fed.reading = fed.meter.read(at(now));
        now += 0.1;
    }
    assert_eq!(fed.reading.service, None);
    assert!(fed.reading.load.rate <= 2.0, "{:?}", fed.reading.load);
}

#[test]
fn what_begins_and_does_not_end_is_counted() {
    let mut meter = Meter::new(START);
    let mut reading = Reading::default();
    for tick in 0..40_000 {
        meter.arrived(at(f64::from(tick) / 1_000.0));
        if tick % 100 == 0 {
            reading = meter.read(at(f64::from(tick) / 1_000.0));
        }
        // One of them ends.
        if tick == 20_000 {
            assert!(reading.service.is_none() && is_near(reading.load.rate, 1_000.0, 0.01), "{:?}", reading.load);
            meter.ended(span(20.0), span(20.0));
        }
    }
    assert!(reading.service.is_some() && is_near(reading.load.rate, 1_000.0, 0.01), "{:?}", reading.load);
}

#[test]
fn nothing_is_known_at_first() {
    let mut meter = Meter::new(START);
    assert_eq!(meter.read(START).service, None);
    meter.arrived(START);
    let reading = meter.read(at(0.1));
    assert_eq!((reading.service, reading.load.scv, reading.waited), (None, 1.0, 0));
    assert!(reading.load.rate > 0.0);
    assert_eq!(reading.waits, Percentiles::default());
}

#[test]
fn a_pause_of_the_clock_forgets_and_nothing_else() {
    let mut fed = Fed::new();
    fed.feed(10.0, 1_000.0, 0.01, 1, false);
    let after = fed.meter.read(at(3_600.0));
    assert!(after.load.rate < 10.0, "{:?}", after.load);
    let back = fed.meter.read(at(1.0));
    assert!(back.load.rate.is_finite());
}
