//! Jobs that call in: on time, late, with bad news, or not at all.
//!
//! What is late within this host is kept apart from what is late at the job: a call has *arrived* when it stands in a
//! listener's queue, and from then on it is this process that is to blame for its not being heard.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::errand::script_address;
use super::network::{Behaviour, Network, varied};
use super::plan::Plan;
use crate::domain::Check;
use crate::shard::Event;
use crate::units::limits::PUSH_SETTLE;
use crate::units::{Instant, MonitorId, Span};
use crate::world::Catalog;

#[derive(Debug)]
struct Job {
    planned: usize,
    monitor: MonitorId,
    interval: Span,
    grace: Span,
    next: Instant,
}

#[derive(Debug)]
struct Call {
    job: usize,
    ok: bool,
    message: String,
    arrived: Instant,
}

#[derive(Debug)]
pub(super) struct SimJobs {
    rng: Rng,
    network: Network,
    jobs: Vec<Job>,
    /// On their way to a shard.
    calls: BTreeMap<(Instant, u64), Call>,
    made: u64,
    stopped_from: Instant,
    stopped_until: Instant,
    pub(super) late: u64,
}

/// What a job says to be known by.
pub(super) fn says(planned: usize) -> String {
    format!("job {planned} says")
}

impl SimJobs {
    pub(super) fn new(plan: &Plan, catalog: &Catalog, network: Network, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut jobs = Vec::new();
        for (planned, monitor) in plan.monitors.iter().enumerate() {
            let Check::Push(check) = &monitor.policy.check else { continue };
            let interval = monitor.policy.interval;
            let id = catalog.find(&monitor.name).expect("it is in the catalog");
            let next = plan.start + interval.scaled(rng.u64(0..100), 100);
            jobs.push(Job { planned, monitor: id, interval, grace: check.grace, next });
        }
        Self {
            rng,
            network,
            jobs,
            calls: BTreeMap::new(),
            made: 0,
            stopped_from: Instant::ZERO,
            stopped_until: Instant::ZERO,
            late: 0,
        }
    }

    /// Nobody listens until then; the kernel keeps the calls.
    pub(super) fn stop(&mut self, now: Instant, until: Instant) {
        if self.stopped_until < now {
            self.stopped_from = now;
        }
        self.stopped_until = self.stopped_until.max(until);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let call = self.calls.first_key_value().map(|((at, _), _)| *at);
        self.jobs.iter().map(|job| job.next).chain(call).min()
    }

    /// Lets jobs call whose time has come.
    pub(super) fn work(&mut self, now: Instant) {
        for job in 0..self.jobs.len() {
            while self.jobs[job].next <= now {
                self.turn(job);
            }
        }
    }

    fn turn(&mut self, number: usize) {
        let Job { planned, interval, grace, next: at, .. } = self.jobs[number];
        let life = self.network.target(&script_address(planned)).map(|target| target.behaviour(at).clone());
        let usual = interval.scaled(self.rng.u64(70..=100), 100);
        let (calls, after) = match life {
            Some(Behaviour::Up) => (Some(true), usual),
            Some(Behaviour::Slams | Behaviour::Refused) => (Some(false), usual),
            Some(Behaviour::HalfAlive) => match self.rng.u8(0..4) {
                0 => (Some(true), usual),
                1 => (Some(false), usual),
                2 => (None, usual),
                _ => {
                    // Before the deadline, or after it.
                    self.late += 1;
                    (Some(true), interval + grace.scaled(self.rng.u64(0..150), 100))
                }
            },
            _ => (None, usual),
        };
        self.jobs[number].next = at + after.max(Span::from_millis(1));
        let Some(ok) = calls else { return };
        let message = match self.rng.u8(0..4) {
            0 => String::new(),
            _ => format!("{} {ok}", says(planned)),
        };
        let arrived = at + varied(Span::from_micros(400), &mut self.rng);
        let heard = if arrived < self.stopped_until {
            // As long as it was kept from reading, at most, and never longer than calls may lie unread.
            let longest = self.stopped_until.since(self.stopped_from).min(PUSH_SETTLE.scaled(9, 10));
            self.stopped_until + Span::from_micros(self.rng.u64(0..longest.as_micros().max(1)))
        } else {
            arrived
        };
        self.made += 1;
        self.calls.insert((heard, self.made), Call { job: number, ok, message, arrived });
    }

    /// The next call that a shard hears by `now`.
    pub(super) fn call(&mut self, now: Instant) -> Option<(u8, Event<'static>)> {
        let first = self.calls.first_entry().filter(|entry| entry.key().0 <= now)?;
        let Call { job, ok, message, .. } = first.remove();
        let monitor = self.jobs[job].monitor;
        Some((monitor.shard(), Event::Pushed { index: monitor.index(), ok, message: message.into() }))
    }

    /// Since when a call for this monitor lies unread.
    pub(super) fn unread(&self, planned: usize) -> Option<Instant> {
        let mine = self.calls.values().filter(|call| self.jobs[call.job].planned == planned);
        mine.map(|call| call.arrived).min()
    }

    /// The process dies; who has called, has called in vain. The one after it does not stand still.
    pub(super) fn crash(&mut self) {
        self.calls.clear();
        self.stopped_until = Instant::ZERO;
    }
}
