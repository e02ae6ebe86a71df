//! The code lane: the thread `cpra-code`, which takes notices to their destinations.
//!
//! A destination is given one batch at a time, so that its notices arrive in order; destinations run beside each other
//! ([`DESTINATIONS_BUSY_MAX`]), so that one that hangs delays no other. Notices in hand are bounded by the capacity of the
//! queue they came from: when that many wait, the lane takes no more, the queue fills, and the desk keeps the rest.
//!
//! The runtime below ([`crate::os::lane`]) cancels nothing when a future is dropped. So nothing here puts a time-out
//! around an operation; and when the last notices have not ended in [`DRAIN_NOTICES`], they are given up as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{LogDirs, Outlet, Stderr, Surroundings};
use crate::desk::protocol::{DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice};
use crate::os::lane::run;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::units::limits::{DESTINATIONS_BUSY_MAX, DESTINATIONS_IDLE_MAX, DRAIN_NOTICES, NOTICE_BATCH_MAX};

type Job = (NoticeId, Box<Notice>);
type Done = (NoticeId, DeliveryResult);

/// How soon results are offered again to a desk that had no room for them.
const RESULTS_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Settings {
    /// Of either queue: `queue_capacity`.
    pub capacity: usize,
    pub log_dirs: LogDirs,
}

/// The desk's side of the lane. Dropping `jobs` ends the lane, after at most [`DRAIN_NOTICES`]; `results` is finished
/// when it has ended.
#[derive(Debug)]
pub struct CodeLane {
    pub jobs: Sender<Job>,
    /// One per job, in the order of each destination; none for what hung so long that the lane gave it up at its end.
    pub results: Receiver<Done>,
    pub thread: thread::JoinHandle<()>,
}

/// Starts the lane. `results_bell` is that of the thread that will read the results.
///
/// # Errors
/// When a descriptor or the thread cannot be had.
pub fn spawn(settings: Settings, results_bell: Bell) -> io::Result<CodeLane> {
    spawn_with(settings, results_bell, Stderr::new()?)
}

pub(crate) fn spawn_with(settings: Settings, results_bell: Bell, stderr: Stderr) -> io::Result<CodeLane> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let (jobs, job_receiver) = bounded(settings.capacity, bell.clone());
    let (result_sender, results) = bounded(settings.capacity, results_bell);
    let thread = thread::Builder::new().name("cpra-code".into()).spawn(move || {
        let log_dirs = Arc::new(settings.log_dirs);
        let stderr = Rc::new(stderr);
        let start = |disk| {
            let surroundings = Surroundings { disk, log_dirs, stderr };
            Lane::new(job_receiver, result_sender, bell, surroundings).run(door)
        };
        run(start);
    })?;
    Ok(CodeLane { jobs, results, thread })
}

struct Lane {
    jobs: Receiver<Job>,
    results: Sender<Done>,
    bell: Bell,
    surroundings: Surroundings,
    /// Taken from the queue, and not yet answered.
    in_hand: usize,
    /// Destinations with something to do; each is in `ready` or running, never both.
    queues: BTreeMap<Arc<Destination>, VecDeque<Job>>,
    ready: VecDeque<Arc<Destination>>,
    running: JoinSet<Finished>,
    /// Kept open for the next notice, longest unused first.
    idle: VecDeque<(Arc<Destination>, Outlet)>,
    unsent: VecDeque<Done>,
}

struct Finished {
    destination: Arc<Destination>,
    outlet: Outlet,
    done: Vec<Done>,
}

impl Lane {
    fn new(jobs: Receiver<Job>, results: Sender<Done>, bell: Bell, surroundings: Surroundings) -> Self {
        Self {
            jobs,
            results,
            bell,
            surroundings,
            in_hand: 0,
            queues: BTreeMap::new(),
            ready: VecDeque::new(),
            running: JoinSet::new(),
            idle: VecDeque::new(),
            unsent: VecDeque::new(),
        }
    }

    /// Returns whether everything in hand came to its end.
    async fn run(mut self, door: WakeFd) -> bool {
        let door = door.into_async().unwrap_or_else(|error| panic!("an eventfd can be polled: {error}"));
        let mut deadline = None;
        loop {
            self.take();
            self.start();
            self.answer();
            if deadline.is_none() && self.jobs.is_finished() {
                deadline = Some(Instant::now() + Duration::from(DRAIN_NOTICES));
            }
            if deadline.is_some() && self.in_hand == 0 {
                return true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.give_up();
                return false;
            }
            self.bell.declare_sleep();
            // At the bound nothing is taken, so that what waits in the queue is no reason to stay awake. Nor is that the
            // queue is finished, once that is known.
            let has_work = self.has_room() && !self.jobs.is_empty() || deadline.is_none() && self.jobs.is_finished();
            if !has_work {
                tokio::select! {
                    guard = door.readable() => {
                        guard.expect("an eventfd can be polled").clear_ready();
                        door.get_ref().clear();
                    }
                    Some(finished) = self.running.join_next() => match finished {
                        Ok(finished) => self.finish(finished),
                        // A provider that panics is a defect like any other panic.
                        Err(error) => std::panic::resume_unwind(error.into_panic()),
                    },
                    () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                    () = sleep(RESULTS_PAUSE), if !self.unsent.is_empty() => {}
                }
            }
            self.bell.declare_awake();
        }
    }

    fn has_room(&self) -> bool {
        self.in_hand < self.jobs.capacity()
    }

    fn take(&mut self) {
        while self.has_room()
            && let Some(job) = self.jobs.recv()
        {
            self.in_hand += 1;
            let destination = &job.1.key.destination;
            if let Some(queue) = self.queues.get_mut(destination) {
                queue.push_back(job);
            } else {
                let destination = Arc::clone(destination);
                self.ready.push_back(Arc::clone(&destination));
                self.queues.insert(destination, VecDeque::from([job]));
            }
        }
    }

    fn start(&mut self) {
        while self.running.len() < DESTINATIONS_BUSY_MAX
            && let Some(destination) = self.ready.pop_front()
        {
            let queue = self.queues.get_mut(&destination).expect("a ready destination has a queue");
            let batch: Vec<Job> = queue.drain(..queue.len().min(NOTICE_BATCH_MAX)).collect();
            let kept = self.idle.iter().position(|(other, _)| *other == destination);
            let mut outlet = match kept.and_then(|at| self.idle.remove(at)) {
                Some((_, outlet)) => outlet,
                None => Outlet::new(&destination, &self.surroundings),
            };
            self.running.spawn_local(async move {
                let notices: Vec<&Notice> = batch.iter().map(|(_, notice)| &**notice).collect();
                let results = outlet.deliver(&notices).await;
                assert_eq!(results.len(), batch.len(), "a provider answers for each notice");
                let done = batch.iter().map(|&(id, _)| id).zip(results).collect();
                Finished { destination, outlet, done }
            });
        }
    }

    fn finish(&mut self, Finished { destination, outlet, done }: Finished) {
        self.unsent.extend(done);
        if self.queues[&destination].is_empty() {
            self.queues.remove(&destination);
        } else {
            self.ready.push_back(Arc::clone(&destination));
        }
        // Also when there is more to do: `start` looks here. Its turn comes before this bound can evict it, or it is
        // opened again, which costs little.
        self.idle.push_back((destination, outlet));
        if self.idle.len() > DESTINATIONS_IDLE_MAX {
            self.idle.pop_front();
        }
    }

    fn answer(&mut self) {
        if self.results.is_closed() {
            // Nobody is left who would want to know.
            self.in_hand -= self.unsent.len();
            self.unsent.clear();
        }
        self.in_hand -= self.results.send_all(&mut self.unsent);
    }

    /// Answers for all that has not come to its end.
    fn give_up(&mut self) {
        let unfinished = self.in_hand - self.unsent.len();
        tracing::error!(notices = unfinished, "the time to stop is up; these notices were not delivered");
        let waiting = std::mem::take(&mut self.queues).into_values().flatten();
        self.unsent.extend(waiting.map(|(id, _)| (id, DeliveryResult::Failed)));
        self.answer();
    }
}

#[cfg(test)]
mod tests;
