//! A queue with several servers, customer by customer: what the solver is held to.
//!
//! Kiefer and Wolfowitz (1955): first come, first served by whoever is free first. All that it takes is when each server
//! will be free. The draws depend on the seed alone and belong to the customers in their order, so that one more server makes
//! nobody wait longer: where the goal is met with `c` servers, it is with `c + 1`, and bisection finds the least.

use std::collections::BTreeMap;
use std::fmt;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Box and Muller (1958).
    fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A distribution of times with a mean of 1, but for the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Times {
    Constant,
    /// The sum of that many exponential ones: a squared coefficient of variation of one over that.
    Erlang(u32),
    Exponential,
    /// Two exponential ones with balanced means, with this squared coefficient of variation.
    Hyper(f64),
    Lognormal(f64),
    /// 99 in 100 answer in about 1 ms (four exponential stages), 1 in 100 in 5 s: a timeout. In seconds.
    Timeouts,
}

impl Times {
    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Timeouts => 0.99 * 1e-3 + 0.01 * 5.0,
            _ => 1.0,
        }
    }

    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Erlang(stages) => (0..stages).map(|_| random.exponential()).sum::<f64>() / f64::from(stages),
            Self::Exponential => random.exponential(),
            Self::Hyper(scv) => {
                // Either branch brings half of the load (Whitt, 1982).
                let first = (1.0 + ((scv - 1.0) / (scv + 1.0)).sqrt()) / 2.0;
                let share = if random.unit() <= first { first } else { 1.0 - first };
                random.exponential() / (2.0 * share)
            }
            Self::Lognormal(scv) => {
                let variance = (1.0 + scv).ln();
                (variance.sqrt() * random.normal() - variance / 2.0).exp()
            }
            Self::Timeouts => {
                if random.unit() <= 0.01 {
                    5.0
                } else {
                    Self::Erlang(4).draw(random) * 1e-3
                }
            }
        }
    }

    /// The time that this share of them does not exceed, by a sample.
    pub(crate) fn percentile(self, percent: f64) -> f64 {
        let mut random = Random::new(77);
        let mut sample: Vec<f64> = (0..100_000).map(|_| self.draw(&mut random)).collect();
        sample.sort_unstable_by(f64::total_cmp);
        sample[(sample.len() as f64 * percent / 100.0) as usize]
    }
}

/// When each server is free again: a heap, the earliest on top.
struct Servers(Vec<f64>);

impl Servers {
    /// The earliest one, which gets a customer and is then free at `end(start)`.
    fn take(&mut self, arrival: f64, service: f64) -> f64 {
        let heap = &mut self.0[..];
        let start = heap[0].max(arrival);
        let end = start + service;
        let mut hole = 0;
        loop {
            let mut child = 2 * hole + 1;
            if child >= heap.len() {
                break;
            }
            if child + 1 < heap.len() && heap[child + 1] < heap[child] {
                child += 1;
            }
            if heap[child] >= end {
                break;
            }
            heap[hole] = heap[child];
            hole = child;
        }
        heap[hole] = end;
        start - arrival
    }
}

/// What must not take too long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Wait(f64),
    Result(f64),
}

/// The share of customers beyond a limit, and the standard error of that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) share: f64,
    pub(crate) error: f64,
}

/// One queue in front of any number of servers.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    services: Times,
    /// Customers per unit of time.
    rate: f64,
    customers: usize,
    limits: Vec<Limit>,
    /// By the number of servers, what was found for each limit.
    found: BTreeMap<u32, Vec<Share>>,
}

/// What the standard error is made from: parts of one run, long enough to have little to do with each other.
const BATCHES: usize = 25;

impl Queue {
    pub(crate) fn new(services: Times, offered: f64, customers: usize, limits: Vec<Limit>) -> Self {
        let rate = offered / services.mean();
        Self { services, rate, customers, limits, found: BTreeMap::new() }
    }

    /// For each limit, the share of the customers beyond it.
    pub(crate) fn with(&mut self, servers: u32) -> &[Share] {
        if !self.found.contains_key(&servers) {
            let shares = self.run(servers);
            self.found.insert(servers, shares);
        }
        &self.found[&servers]
    }

    fn run(&self, servers: u32) -> Vec<Share> {
        let mut arrivals = Random::new(1);
        let mut services = Random::new(2);
        let mut heap = Servers(vec![0.0; servers as usize]);
        let mut now = 0.0;
        let mut step = || {
            now += arrivals.exponential() / self.rate;
            let service = self.services.draw(&mut services);
            (heap.take(now, service), service)
        };
        // Nobody is there at first.
        for _ in 0..self.customers / 10 {
            step();
        }
        let length = self.customers / BATCHES;
        let mut batches = vec![[0_u32; BATCHES]; self.limits.len()];
        for batch in 0..BATCHES {
            for _ in 0..length {
                let (wait, service) = step();
                for (limit, counts) in self.limits.iter().zip(&mut batches) {
                    let beyond = match *limit {
                        Limit::Wait(most) => wait > most,
                        Limit::Result(most) => wait + service > most,
                    };
                    counts[batch] += u32::from(beyond);
                }
            }
        }
        let share = |counts: &[u32; BATCHES]| {
            let shares = counts.map(|count| f64::from(count) / length as f64);
            let mean = shares.iter().sum::<f64>() / BATCHES as f64;
            let squares: f64 = shares.iter().map(|share| (share - mean).powi(2)).sum();
            Share { share: mean, error: (squares / (BATCHES * (BATCHES - 1)) as f64).sqrt() }
        };
        batches.iter().map(share).collect()
    }

    /// The least servers with which `suffices` holds, which it does from some number on; the search begins at `guess`.
    pub(crate) fn least(&mut self, guess: u32, mut suffices: impl FnMut(&[Share]) -> bool) -> u32 {
        let floor = (self.rate * self.services.mean()).floor() as u32 + 1;
        let mut high = guess.max(floor);
        let mut step = (high / 50).max(1);
        let mut low = floor - 1;
        if suffices(self.with(high)) {
            while high > floor {
                let next = high.saturating_sub(step).max(floor);
                if !suffices(self.with(next)) {
                    low = next;
                    break;
                }
                high = next;
                step *= 2;
            }
        } else {
            loop {
                low = high;
                high += step;
                step *= 2;
                if suffices(self.with(high)) {
                    break;
                }
            }
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if suffices(self.with(middle)) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.pad("constant"),
            Self::Erlang(stages) => write!(f, "Erlang-{stages}"),
            Self::Exponential => f.pad("exponential"),
            Self::Hyper(scv) => write!(f, "hyperexp. {scv}"),
            Self::Lognormal(scv) => write!(f, "lognormal {scv}"),
            Self::Timeouts => f.pad("1 % timeouts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpra::queueing::erlang::ErlangB;

    fn moments(times: Times) -> (f64, f64) {
        let mut random = Random::new(3);
        let count = 400_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..count {
            let time = times.draw(&mut random);
            sum += time;
            squares += time * time;
        }
        let mean = sum / f64::from(count);
        (mean, squares / f64::from(count) / (mean * mean) - 1.0)
    }

    #[test]
    fn the_draws_have_the_moments_that_they_claim() {
        let all = [
            (Times::Constant, 0.0),
            (Times::Erlang(4), 0.25),
            (Times::Exponential, 1.0),
            (Times::Hyper(4.0), 4.0),
            (Times::Lognormal(2.0), 2.0),
            (Times::Timeouts, 95.0),
        ];
        for (times, expected) in all {
            let (mean, scv) = moments(times);
            assert!((mean / times.mean() - 1.0).abs() < 0.03, "{times}: mean {mean}");
            assert!((scv - expected).abs() <= 0.05 * expected.max(0.01), "{times}: Cs² {scv}, not {expected}");
        }
    }

    /// What is known exactly: M/M/c.
    #[test]
    fn exponential_services_wait_as_erlang_says() {
        for (servers, used) in [(1, 0.7), (10, 0.8), (100, 0.95)] {
            let offered = f64::from(servers) * used;
            let spare = f64::from(servers) - offered;
            let mut queue =
                Queue::new(Times::Exponential, offered, 1_000_000, vec![Limit::Wait(0.0), Limit::Wait(1.0 / spare)]);
            let found = queue.with(servers).to_vec();
            let waits = ErlangB::new(offered).grown_to(servers).waits();
            for (found, exact) in found.iter().zip([waits, waits * (-1.0_f64).exp()]) {
                assert!((found.share - exact).abs() < 4.0 * found.error + 0.002, "{servers}: {found:?}, not {exact}");
            }
        }
    }

    /// P(wait > 0) of M/D/c by Crommelin's exact solution: H. C. Tijms, *A First Course in Stochastic Models* (2003), §9.6.
    #[test]
    fn constant_services_wait_as_crommelin_says() {
        for (servers, used, exact) in [(1, 0.5, 0.5), (2, 0.5, 0.3233), (5, 0.8, 0.5336), (10, 0.5, 0.0331)] {
            let mut queue = Queue::new(Times::Constant, f64::from(servers) * used, 1_000_000, vec![Limit::Wait(0.0)]);
            let found = queue.with(servers)[0];
            assert!((found.share - exact).abs() < 4.0 * found.error + 0.0005, "{servers}: {found:?}, not {exact}");
        }
    }

    #[test]
    fn more_servers_make_nobody_wait_longer_and_the_least_is_found() {
        let mut queue = Queue::new(Times::Hyper(4.0), 6.3, 20_000, vec![Limit::Wait(0.1)]);
        let shares: Vec<f64> = (7..30).map(|servers| queue.with(servers)[0].share).collect();
        assert!(shares.is_sorted_by(|few, more| few >= more), "{shares:?}");
        let expected = 7 + shares.iter().position(|share| *share <= 0.05).expect("some suffice") as u32;
        for guess in [1, 7, expected, 29, 300] {
            assert_eq!(queue.least(guess, |found| found[0].share <= 0.05), expected, "from {guess}");
        }
    }
}
