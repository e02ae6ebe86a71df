//! Our workers beside the least that suffice in a simulation, over loads, services and SLOs.

use std::fmt;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant as Clock;

use cpra::queueing::{Bounds, Goal, Load, Meter, Service, Slo, solve};
use cpra::units::{Instant, Span};

use super::queue::{Limit, Queue, Random, Share, Times};

/// The share by which the two may differ, where that is more than one worker.
const TOLERANCE: f64 = 0.05;
/// Standard errors of the simulation within which its answer is not certain.
const CERTAIN: f64 = 2.0;

const SERVICES: [Times; 8] = [
    Times::Constant,
    Times::Erlang(4),
    Times::Erlang(2),
    Times::Exponential,
    Times::Hyper(2.0),
    Times::Hyper(4.0),
    Times::Lognormal(4.0),
    Times::Timeouts,
];
const PERCENTILES: [u8; 2] = [95, 99];

/// One SLO for one load: what we say, and what suffices.
#[derive(Clone, Debug)]
struct Cell {
    services: Times,
    scv: f64,
    servers: u32,
    used: f64,
    limit: Limit,
    percentile: u8,
    ours: u32,
    least: u32,
    /// Within these lies what suffices.
    certain: (u32, u32),
}

impl Cell {
    /// How many more than suffice.
    fn excess(&self) -> i64 {
        i64::from(self.ours) - i64::from(self.least)
    }

    fn is_near(&self) -> bool {
        near(self.ours, self.least)
    }

    /// Whether a longer simulation could decide otherwise.
    fn is_open(&self) -> bool {
        let (low, high) = self.certain;
        !self.is_near() && near(self.ours, self.ours.clamp(low, high))
    }
}

fn near(ours: u32, least: u32) -> bool {
    f64::from(ours.abs_diff(least)) <= (TOLERANCE * f64::from(least)).max(1.0)
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.services.mean();
        let (kind, most) = match self.limit {
            Limit::Wait(most) => ("wait", most / mean),
            Limit::Result(most) => ("result", most / mean),
        };
        let (low, high) = self.certain;
        write!(
            f,
            "{:<14} {:>6.2} {:>5} {:>5.2}  p{} {:<6} {:>6.2} {:>6} {:>6} {:>4} {:>4}  {}",
            self.services.to_string(),
            self.scv,
            self.servers,
            self.used,
            self.percentile,
            kind,
            most,
            self.ours,
            self.least,
            high - low,
            self.excess(),
            if self.is_near() { "ok" } else { "MISS" },
        )
    }
}

const HEAD: &str = "services          Cs²     c     ρ  SLO, in mean services   ours  least    ± diff";

/// The distribution as a pipeline would have measured it.
fn measured(times: Times) -> Service {
    let mut meter = Meter::new(Instant::ZERO);
    let mut random = Random::new(5);
    for _ in 0..2_000_000 {
        let time = Span::from_nanos((times.draw(&mut random) * 1e9) as u64);
        meter.ended(time, time);
    }
    meter.read(Instant::ZERO + Span::from_millis(500)).service.unwrap_or_default()
}

fn span(seconds: f64) -> Span {
    Span::from_nanos((seconds * 1e9) as u64)
}

/// All SLOs for one load, which is `used` of so many servers.
fn cells(services: Times, service: &Service, servers: u32, used: f64, customers: usize) -> Vec<Cell> {
    let mean = services.mean();
    let p95 = services.percentile(95.0);
    let mut limits = [0.01, 0.1, 1.0, 10.0].map(|most| Limit::Wait(most * mean)).to_vec();
    limits.extend([p95 + 0.1 * mean, 2.0 * p95, 10.0 * mean].map(Limit::Result));
    let offered = f64::from(servers) * used;
    let load = Load { rate: offered / mean, scv: 1.0 };
    // A timeout is so much longer than the mean that far more customers are needed to see as many of them.
    let customers = match services {
        Times::Timeouts => customers.max((1_500.0 * load.rate) as usize).min(customers * 50),
        _ => customers,
    };
    let mut queue = Queue::new(services, offered, customers, limits.clone());
    let mut cells = Vec::new();
    for percentile in PERCENTILES {
        for (index, &limit) in limits.iter().enumerate() {
            let slo = match limit {
                Limit::Wait(most) => Slo { within: Span::ZERO, percentile, wait: span(most) },
                Limit::Result(most) => Slo { within: span(most), percentile, wait: Span::ZERO },
            };
            let answer = solve(load, service, &slo, &Bounds { min: 1, max: u32::MAX, headroom: 0 });
            if matches!(limit, Limit::Result(_)) && matches!(answer.goal, Goal::Wait(_)) {
                // The service alone takes too long; that SLO is a wait.
                continue;
            }
            let ours = answer.needed;
            let mut least = |errors: f64| {
                let suffices = |shares: &[Share]| shares[index].share + errors * shares[index].error <= slo.late();
                queue.least(ours, suffices)
            };
            let (low, middle, high) = (least(-CERTAIN), least(0.0), least(CERTAIN));
            let certain = (low, high);
            cells.push(Cell {
                services,
                scv: service.scv,
                servers,
                used,
                limit,
                percentile,
                ours,
                least: middle,
                certain,
            });
        }
    }
    if customers < 10_000_000 && cells.iter().any(Cell::is_open) {
        return self::cells(services, service, servers, used, customers * 4);
    }
    cells
}

/// The whole grid, on all cores; fails where the two differ by too much.
pub(super) fn compare(quick: bool) -> anyhow::Result<()> {
    let (servers, used): (&[u32], &[f64]) = if quick {
        (&[1, 5, 20, 100], &[0.5, 0.9])
    } else {
        (&[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000], &[0.3, 0.5, 0.7, 0.9, 0.95])
    };
    let mut work = Vec::new();
    for services in SERVICES {
        for &servers in servers {
            work.extend(used.iter().map(|&used| (services, servers, used)));
        }
    }
    let measured = SERVICES.map(measured);
    println!("{HEAD}");
    // Handed out from the end: large ones first.
    let work = Mutex::new(work.into_iter().enumerate().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((order, (services, servers, used))) = take(&work) {
                    let service = &measured[SERVICES.iter().position(|other| *other == services).unwrap_or_default()];
                    let cells = cells(services, service, servers, used, 400_000);
                    // At once: the whole takes long, and a part of it is worth having.
                    for cell in &cells {
                        println!("{cell}");
                    }
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((order, cells));
                }
            });
        }
    });
    let mut done = done.into_inner()?;
    done.sort_by_key(|(order, _)| *order);
    let cells: Vec<Cell> = done.into_iter().flat_map(|(_, cells)| cells).collect();
    summarise(&cells)
}

fn take<T>(work: &Mutex<Vec<T>>) -> Option<T> {
    work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
}

fn summarise(cells: &[Cell]) -> anyhow::Result<()> {
    println!(
        "\n| services | Cs² | cells | equal | one off | more, within 5 % | missed | most too few | most too many |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for services in SERVICES {
        let these: Vec<&Cell> = cells.iter().filter(|cell| cell.services == services).collect();
        let count = |which: fn(&Cell) -> bool| these.iter().filter(|cell| which(cell)).count();
        let part = |cell: &Cell| cell.excess() as f64 / f64::from(cell.least);
        // In parts of what suffices, where one worker is less than a twentieth.
        let large = these.iter().filter(|cell| cell.least >= 20).map(|cell| part(cell));
        println!(
            "| {services} | {:.2} | {} | {} | {} | {} | {} | {:+.1} % | {:+.1} % |",
            these.first().map_or(0.0, |cell| cell.scv),
            these.len(),
            count(|cell| cell.excess() == 0),
            count(|cell| cell.excess().abs() == 1),
            count(|cell| cell.excess().abs() > 1 && cell.is_near()),
            count(|cell| !cell.is_near()),
            100.0 * large.clone().fold(0.0, f64::min),
            100.0 * large.fold(0.0, f64::max),
        );
    }
    let missed: Vec<&Cell> = cells.iter().filter(|cell| !cell.is_near()).collect();
    for cell in &missed {
        println!("{cell}");
    }
    anyhow::ensure!(missed.is_empty(), "{} of {} beyond one worker and 5 %", missed.len(), cells.len());
    println!("\n{} cells, all within one worker or 5 %", cells.len());
    Ok(())
}

/// How long one answer takes.
pub(super) fn time() {
    let service = measured(Times::Lognormal(4.0));
    println!("solve, {} points of a lognormal distribution:", service.points.len());
    let mean = service.mean;
    for (goal, slo) in [
        ("p95 of waits", Slo { within: Span::ZERO, percentile: 95, wait: span(0.1 * mean) }),
        ("p95 of results", Slo { within: span(10.0 * mean), percentile: 95, wait: Span::ZERO }),
    ] {
        for offered in [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6] {
            let load = Load { rate: offered / mean, scv: 1.0 };
            let bounds = Bounds { min: 1, max: u32::MAX, headroom: 150 };
            let rounds = 200;
            let before = Clock::now();
            let mut needed = 0;
            for _ in 0..rounds {
                needed = black_box(solve(black_box(load), &service, &slo, &bounds)).needed;
            }
            let took = before.elapsed() / rounds;
            println!("  {goal:<14} a = {offered:>9}: {needed:>8} workers, {:>6.1} µs", took.as_secs_f64() * 1e6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bench covers far more; this is what fits a test.
    #[test]
    fn the_solver_is_near_what_suffices_in_a_simulated_queue() {
        for services in SERVICES {
            let service = measured(services);
            for (servers, used) in [(1, 0.5), (4, 0.9), (12, 0.7), (30, 0.95)] {
                let cells = cells(services, &service, servers, used, 60_000);
                assert!(cells.len() > 8, "{services} has SLOs to compare");
                let missed: Vec<String> = cells.iter().filter(|cell| !cell.is_near()).map(Cell::to_string).collect();
                assert!(missed.is_empty(), "{HEAD}\n{}", missed.join("\n"));
            }
        }
    }

    #[test]
    fn one_more_worker_counts_only_up_to_twenty() {
        assert!(near(3, 2) && near(19, 20) && near(42, 40));
        assert!(!near(4, 2) && !near(21, 19) && !near(37, 40));
    }
}
