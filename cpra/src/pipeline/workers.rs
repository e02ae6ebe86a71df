//! The workers of a pipeline whose jobs wait for somebody else: notices at their destinations, later scripts that repair.
//!
//! ```text
//!  offer ──▶ ready ──a worker is free──▶ running ───────────────▶ ended
//!                                           │ overdue               ▲
//!                                           └──────▶ stuck ─────────┘
//! ```
//! A worker is no thread: it is the permission to have one more job under way. How many there are is the
//! [`Controller`]'s word. A job that takes far longer than its like is *stuck*: it gives its worker back, so that what
//! hangs does not stop those that do not.
//!
//! Nothing is dropped. Jobs wait in `ready` without a bound of their own: whoever offers them bounds them. When as many
//! are stuck as may be, those that become overdue keep their workers, so that never more than `stuck_max` and the
//! workers together are under way.
//!
//! Pure: time comes in as an argument, and nothing here knows what a job does.

use std::collections::{BTreeMap, VecDeque};

use crate::queueing::{Controller, Decision, Demand, Report, Setup};
use crate::units::limits::{UNREACHABLE_AFTER, WORKER_OVERDUE_MAX, WORKER_OVERDUE_MIN};
use crate::units::{Instant, Span};

/// A job is overdue after this many times the median of its like. Not of the mean, nor of a high percentile: those that
/// hang would raise the bound for the next ones, and so hold ever more workers.
const OVERDUE_MEDIANS: u64 = 8;
/// How often the number of workers is thought about while there is nothing to do but to have fewer, or to see that the
/// goal is met again.
const IDLE_EVERY: Span = Span::from_secs(1);

/// One job that was started. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
pub struct Workers<T> {
    class: &'static str,
    setup: Setup,
    stuck_max: usize,
    controller: Controller,
    tickets: u64,
    /// Since when each job waits for a worker.
    ready: VecDeque<(Instant, T)>,
    /// When each was started, which is in the order of the tickets.
    running: BTreeMap<Ticket, Instant>,
    stuck: BTreeMap<Ticket, Stuck>,
    /// Since when the goal is missed.
    missed_since: Option<Instant>,
}

/// A job that gave its worker back and goes on.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    started: Instant,
    /// How long it held its worker. As a service time this is all that counts: a worker is what the model counts.
    held: Span,
}

impl<T> Workers<T> {
    pub fn new(class: &'static str, setup: Setup, stuck_max: usize, now: Instant) -> Self {
        Self {
            class,
            setup,
            stuck_max,
            controller: Controller::new(setup, 0.0, now),
            tickets: 0,
            ready: VecDeque::new(),
            running: BTreeMap::new(),
            stuck: BTreeMap::new(),
            missed_since: None,
        }
    }

    /// A job that waits for a worker from now on.
    pub fn offer(&mut self, job: T, now: Instant) {
        self.controller.arrived(now);
        self.ready.push_back((now, job));
    }

    /// The job that waits longest, if there is a worker for it.
    pub fn start(&mut self, now: Instant) -> Option<(Ticket, T)> {
        if self.running.len() >= self.controller.workers() as usize {
            return None;
        }
        let (since, job) = self.ready.pop_front()?;
        self.controller.started(now.since(since));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.running.insert(ticket, now);
        Some((ticket, job))
    }

    /// A job is done. `asked` is when it was first asked for, by whoever waits for its result.
    pub fn ended(&mut self, ticket: Ticket, asked: Instant, now: Instant) {
        let running = self.running.remove(&ticket).map(|started| now.since(started));
        let Some(service) = running.or_else(|| self.stuck.remove(&ticket).map(|stuck| stuck.held)) else {
            return;
        };
        self.controller.ended(service, now.since(asked));
    }

    /// Takes their workers from jobs that are overdue, and thinks about how many there should be, if it is time to.
    pub fn adjust(&mut self, now: Instant) -> Option<Decision> {
        let patience = self.patience();
        while let Some((&ticket, &started)) = self.running.first_key_value()
            && now.since(started) >= patience
            && self.stuck.len() < self.stuck_max
        {
            self.running.remove(&ticket);
            self.stuck.insert(ticket, Stuck { started, held: now.since(started) });
        }
        let decision = self.controller.adjust(now, self.demand(now));
        self.missed_since = self.misses().then(|| self.missed_since.unwrap_or(now));
        decision
    }

    /// Whether the goal is missed: by the workers that there may be, by what was measured, or because too many hang.
    fn misses(&self) -> bool {
        self.controller.workers() < self.controller.answer().needed
            || self.controller.is_late()
            || self.stuck.len() >= self.stuck_max
    }

    /// Whether that has been so for a while.
    pub fn is_unreachable(&self, now: Instant) -> bool {
        self.missed_since.is_some_and(|since| now.since(since) >= UNREACHABLE_AFTER)
    }

    /// How long a job may have its worker while it may be stuck instead.
    fn patience(&self) -> Span {
        let median = self.controller.reading().service_times.p50;
        median.scaled(OVERDUE_MEDIANS, 1).clamp(WORKER_OVERDUE_MIN, WORKER_OVERDUE_MAX)
    }

    fn demand(&self, now: Instant) -> Demand {
        Demand {
            busy: count(self.running.len()),
            waiting: count(self.ready.len()),
            longest_wait: self.ready.front().map_or(Span::ZERO, |(since, _)| now.since(*since)),
        }
    }

    /// When [`Self::adjust`] has something to do, were nothing to happen before. `None` while there is nothing to do and
    /// there are no workers too many, and the goal is met.
    pub fn next_deadline(&self) -> Option<Instant> {
        let patience = self.patience();
        let first = self.running.values().next().filter(|_| self.stuck.len() < self.stuck_max);
        let overdue = first.map(|started| *started + patience);
        let workers = self.controller.workers();
        let next = self.controller.next_adjustment();
        let adjustment = if !self.ready.is_empty() || !self.running.is_empty() {
            Some(next)
        } else {
            // The controller leaves a difference of a tenth alone, and so would never come closer.
            let too_many = workers - workers / 10 > self.setup.bounds.min;
            (too_many || self.missed_since.is_some()).then(|| next + IDLE_EVERY)
        };
        [overdue, adjustment].into_iter().flatten().min()
    }

    /// Jobs that hang, and which of them hangs longest since when.
    pub fn stuck(&self) -> (usize, Option<(Ticket, Instant)>) {
        (self.stuck.len(), self.stuck.first_key_value().map(|(ticket, stuck)| (*ticket, stuck.started)))
    }

    /// The most workers that there may be.
    pub const fn workers_max(&self) -> u32 {
        self.setup.bounds.max
    }

    pub fn report(&self, now: Instant) -> Report {
        let reading = self.controller.reading();
        Report {
            class: self.class,
            workers: self.controller.workers(),
            demand: self.demand(now),
            answer: *self.controller.answer(),
            arrivals: reading.load,
            service_times: reading.service_times,
            waits: reading.waits,
            results: reading.results,
            unreachable: self.is_unreachable(now),
        }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queueing::Bounds;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Span::from_secs(1_000) + Span::from_millis(millis)
    }

    fn workers(min: u32, max: u32, stuck_max: usize) -> Workers<u32> {
        let setup = Setup { bounds: Bounds { min, max, headroom: 0 }, ..Setup::default() };
        Workers::new("code", setup, stuck_max, at(0))
    }

    /// Whatever can start at this time, started.
    fn started(workers: &mut Workers<u32>, now: Instant) -> Vec<(Ticket, u32)> {
        std::iter::from_fn(|| workers.start(now)).collect()
    }

    #[test]
    fn as_many_run_as_there_are_workers_first_come_first_served() {
        let mut workers = workers(2, 2, 8);
        for job in 0..5 {
            workers.offer(job, at(0));
        }
        let first = started(&mut workers, at(10));
        assert_eq!(first.iter().map(|(_, job)| *job).collect::<Vec<_>>(), [0, 1]);
        workers.ended(first[1].0, at(0), at(20));
        let next = started(&mut workers, at(20));
        assert_eq!(next.iter().map(|(_, job)| *job).collect::<Vec<_>>(), [2]);
        let demand = workers.report(at(30)).demand;
        assert_eq!((demand.busy, demand.waiting, demand.longest_wait), (2, 2, Span::from_millis(30)));
    }

    #[test]
    fn what_hangs_gives_its_worker_back_once() {
        let mut workers = workers(1, 1, 8);
        workers.offer(0, at(0));
        workers.offer(1, at(0));
        let hung = started(&mut workers, at(0));
        assert_eq!(hung.len(), 1);
        workers.adjust(at(499));
        assert!(started(&mut workers, at(499)).is_empty());
        workers.adjust(at(500));
        let other = started(&mut workers, at(500));
        assert_eq!(other[0].1, 1);
        assert_eq!(workers.stuck(), (1, Some((hung[0].0, at(0)))));
        // Its end is no second worker.
        workers.offer(2, at(600));
        workers.ended(hung[0].0, at(0), at(900));
        assert_eq!(workers.stuck(), (0, None));
        assert!(started(&mut workers, at(900)).is_empty());
        workers.ended(other[0].0, at(0), at(901));
        assert_eq!(started(&mut workers, at(901))[0].1, 2);
        // The hung one counts as what it cost, which is its worker for half a second; its result came after 900 ms.
        workers.adjust(at(1_000));
        let report = workers.report(at(1_000));
        assert!(report.service_times.p999 < Span::from_millis(510), "{report:?}");
        assert!(report.results.p999 >= Span::from_millis(900), "{report:?}");
    }

    #[test]
    fn no_more_are_under_way_than_the_stuck_that_may_be_and_the_workers() {
        let mut workers = workers(3, 3, 5);
        for job in 0..100 {
            workers.offer(job, at(0));
        }
        let mut tickets = Vec::new();
        for step in 0..200 {
            let now = at(step * 100);
            workers.adjust(now);
            tickets.extend(started(&mut workers, now).into_iter().map(|(ticket, _)| ticket));
        }
        assert_eq!((tickets.len(), workers.stuck().0), (8, 5));
        assert!(workers.report(at(20_000)).unreachable);
        // There is nothing to wake up for but the number of workers, which somebody waits for.
        assert_eq!(workers.next_deadline(), Some(at(20_000)));
        workers.ended(tickets[0], at(0), at(20_000));
        workers.adjust(at(20_000));
        assert_eq!(started(&mut workers, at(20_000)).len(), 1, "the next overdue one made room");
    }

    #[test]
    fn what_is_slow_as_a_rule_is_not_stuck() {
        let mut workers = workers(64, 64, 8);
        // A second each, ten a second; every one hangs until the rule is known.
        let mut under_way = VecDeque::new();
        let mut stuck_late = 0;
        for step in 0..300_u64 {
            let now = at(step * 100);
            workers.offer(0, now);
            under_way.extend(started(&mut workers, now).into_iter().map(|(ticket, _)| (now, ticket)));
            while let Some(&(began, ticket)) = under_way.front()
                && now.since(began) >= Span::from_secs(1)
            {
                workers.ended(ticket, began, now);
                under_way.pop_front();
            }
            workers.adjust(now);
            stuck_late += if step > 100 { workers.stuck().0 } else { 0 };
        }
        assert_eq!(stuck_late, 0);
    }

    #[test]
    fn a_burst_gets_more_workers_and_idleness_sleeps_in_the_end() {
        let mut workers = workers(4, 64, 8);
        assert_eq!(workers.next_deadline(), None, "nothing to do");
        for job in 0..1_000 {
            workers.offer(job, at(0));
        }
        let mut now = at(0);
        let mut running = VecDeque::new();
        let mut most = 0;
        for _ in 0..2_000 {
            now += Span::from_millis(5);
            while let Some((began, ticket)) = running.front().copied()
                && now.since(began) >= Span::from_millis(20)
            {
                workers.ended(ticket, at(0), now);
                running.pop_front();
            }
            workers.adjust(now);
            running.extend(started(&mut workers, now).into_iter().map(|(ticket, _)| (now, ticket)));
            most = most.max(running.len());
        }
        assert!((20..=64).contains(&most), "{most}");
        assert!(workers.report(now).demand == Demand::default());
        let mut wake_ups = 0;
        while let Some(next) = workers.next_deadline() {
            now = now.max(next);
            workers.adjust(now);
            wake_ups += 1;
            assert!(wake_ups < 300, "still {} workers", workers.report(now).workers);
        }
        assert_eq!(workers.report(now).workers, 4);
    }
}
