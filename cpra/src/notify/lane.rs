//! The code lane: the thread `cpra-code`, which takes notices to their destinations.
//!
//! A destination is given one batch at a time, so that its notices arrive in order; destinations run beside each other,
//! as many as the pipeline has [`Workers`]. One that hangs gives its worker back, and so delays no other. Notices in hand
//! are bounded by the capacity of the queue they came from: when that many wait, the lane takes no more, the queue fills,
//! and the desk keeps the rest. It is the desk, too, that leaves room for others when one destination takes nothing.
//! Nothing is dropped.
//!
//! What the workers are sized by: a destination arrives when it has something to be given and none of it is under way;
//! it waits until it gets a worker; its service is the delivery of the batch, and its result comes when the batch's
//! oldest notice, counted from when the lane took it, is answered for.
//!
//! The runtime below ([`crate::os::lane`]) cancels nothing when a future is dropped. So nothing here puts a time-out
//! around an operation; and when the last notices have not ended in [`DRAIN_NOTICES`], they are given up as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{LogDirs, Outlet, Stderr, Surroundings};
use crate::desk::protocol::{Delivered, DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice};
use crate::os::clock::Clock;
use crate::os::histograms::SharedRecording;
use crate::os::lane::run;
use crate::os::spawn::{Mailbox, Runner};
use crate::os::wake::WakeFd;
use crate::os::web::Web;
use crate::pipeline::{Bell, Receiver, Sender, Ticket, Workers, bounded};
use crate::queueing::recording::Measure;
use crate::queueing::{Bounds, Report, Setup};
use crate::units::limits::{
    CODE_WORKERS_MAX, CODE_WORKERS_MIN, DESTINATIONS_IDLE_MAX, DESTINATIONS_STUCK_MAX, DRAIN_NOTICES,
    FAULT_REPORT_EVERY, HEARTBEAT_EVERY, NOTICE_BATCH_MAX, UNREACHABLE_TOLD_EVERY, WORKER_OVERDUE_MAX,
};
use crate::units::{Instant, Span};

type Job = (NoticeId, Box<Notice>);
type Done = (NoticeId, Delivered);

/// What the pipeline is called.
const CODE: &str = "code";
/// How soon results are offered again to a desk that had no room for them.
const RESULTS_PAUSE: Span = Span::from_millis(10);

#[derive(Debug)]
pub struct Settings {
    /// Of either queue: `queue_capacity`.
    pub capacity: usize,
    /// How many destinations are served at the same time, and for what promise.
    pub sizing: Setup,
    pub log_dirs: LogDirs,
    /// Without it, notices for scripts are not delivered.
    pub scripts: Option<Mailbox>,
    /// Where it is noted how long deliveries take.
    pub recording: SharedRecording,
}

/// How the lane is sized unless the settings say otherwise.
pub fn default_sizing() -> Setup {
    let setup = Setup::default();
    Setup { bounds: Bounds { min: CODE_WORKERS_MIN, max: CODE_WORKERS_MAX, ..setup.bounds }, ..setup }
}

/// What the rest of the daemon may read of the lane at any time.
#[derive(Debug, Default)]
pub struct CodeBoard {
    /// When the lane last turned, in nanoseconds of the monotonic clock.
    pub turned: AtomicU64,
    seen: Mutex<Option<(Report, usize)>>,
}

impl CodeBoard {
    /// `None` until the lane has begun.
    pub fn report(&self) -> Option<Report> {
        self.seen.lock().ok()?.as_ref().map(|(report, _)| report.clone())
    }

    /// Destinations that hang: they have no worker, and are not part of the report's demand.
    pub fn stuck(&self) -> usize {
        self.seen.lock().ok().and_then(|seen| seen.as_ref().map(|(_, stuck)| *stuck)).unwrap_or(0)
    }
}

/// The desk's side of the lane. Dropping `jobs` ends the lane, after at most [`DRAIN_NOTICES`]; `results` is finished
/// when it has ended.
#[derive(Debug)]
pub struct CodeLane {
    pub jobs: Sender<Job>,
    /// One per job, in the order of each destination; none for what hung so long that the lane gave it up at its end.
    pub results: Receiver<Done>,
    pub board: Arc<CodeBoard>,
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
    let Settings { capacity, sizing, log_dirs, scripts, recording } = settings;
    let door = WakeFd::new()?;
    let bell = door.bell();
    let (jobs, job_receiver) = bounded(capacity, bell.clone());
    let (result_sender, results) = bounded(capacity, results_bell);
    let board = Arc::new(CodeBoard::default());
    // It may be asked about before its first turn.
    board.turned.store(Clock.now().as_nanos(), Ordering::Relaxed);
    let lane_board = Arc::clone(&board);
    let hands_max = DESTINATIONS_STUCK_MAX.saturating_add(sizing.bounds.max as usize);
    let thread = thread::Builder::new().name("cpra-code".into()).spawn(move || {
        let log_dirs = Arc::new(log_dirs);
        let stderr = Rc::new(stderr);
        let start = async move |disk| {
            let scripts = scripts.and_then(|mailbox| match Runner::start(mailbox) {
                Ok(runner) => Some(Rc::new(runner)),
                Err(error) => {
                    tracing::error!(%error, "notices for scripts are not delivered");
                    None
                }
            });
            let surroundings = Surroundings { disk, log_dirs, stderr, web: Web::default(), scripts: scripts.clone() };
            let workers = Workers::new(CODE, sizing, DESTINATIONS_STUCK_MAX, Clock.now());
            let lane = Lane::new(job_receiver, result_sender, bell, workers, recording, surroundings, lane_board);
            let done = lane.run(door).await;
            // The runtime may be left as it is, and what it holds with it.
            if let Some(scripts) = scripts {
                scripts.end();
            }
            done
        };
        run(hands_max, start);
    })?;
    Ok(CodeLane { jobs, results, board, thread })
}

struct Lane {
    jobs: Receiver<Job>,
    results: Sender<Done>,
    bell: Bell,
    surroundings: Surroundings,
    board: Arc<CodeBoard>,
    /// Taken from the queue, and not yet answered.
    in_hand: usize,
    /// Destinations with something to do, and when each notice was taken. Each of them is among the `workers`, waiting or
    /// under way.
    queues: BTreeMap<Arc<Destination>, VecDeque<(Instant, Job)>>,
    workers: Workers<Arc<Destination>>,
    recording: SharedRecording,
    deliveries: JoinSet<Finished>,
    /// Who is under way.
    served: BTreeMap<Ticket, Arc<Destination>>,
    /// Kept open for the next notice, longest unused first.
    idle: VecDeque<(Arc<Destination>, Outlet)>,
    /// Those that are no longer kept: to close a file can hang as well as to write it.
    closing: JoinSet<()>,
    unsent: VecDeque<Done>,
    /// When people were last told that the SLO is missed, and that a destination hangs.
    slow_told: Option<Instant>,
    stuck_told: Option<Instant>,
}

struct Finished {
    ticket: Ticket,
    destination: Arc<Destination>,
    outlet: Outlet,
    /// When the oldest of the batch was taken.
    oldest: Instant,
    /// When its delivery began.
    began: Instant,
    done: Vec<Done>,
}

impl Lane {
    fn new(
        jobs: Receiver<Job>,
        results: Sender<Done>,
        bell: Bell,
        workers: Workers<Arc<Destination>>,
        recording: SharedRecording,
        surroundings: Surroundings,
        board: Arc<CodeBoard>,
    ) -> Self {
        Self {
            jobs,
            results,
            bell,
            surroundings,
            board,
            in_hand: 0,
            queues: BTreeMap::new(),
            workers,
            recording,
            deliveries: JoinSet::new(),
            served: BTreeMap::new(),
            idle: VecDeque::new(),
            closing: JoinSet::new(),
            unsent: VecDeque::new(),
            slow_told: None,
            stuck_told: None,
        }
    }

    /// Returns whether everything in hand came to its end.
    async fn run(mut self, door: WakeFd) -> bool {
        let door = door.into_async().unwrap_or_else(|error| panic!("an eventfd can be polled: {error}"));
        let mut deadline = None;
        loop {
            let now = Clock.now();
            self.board.turned.store(now.as_nanos(), Ordering::Relaxed);
            self.take(now);
            self.adjust(now);
            self.start(now);
            self.answer();
            self.publish(now);
            if deadline.is_none() && self.jobs.is_finished() {
                deadline = Some(now + DRAIN_NOTICES);
            }
            if deadline.is_some() && self.in_hand == 0 {
                self.close_idle();
                if self.closing.is_empty() {
                    return self.surroundings.web.is_quiet();
                }
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.give_up();
                return false;
            }
            self.bell.declare_sleep();
            // At the bound nothing is taken, so that what waits in the queue is no reason to stay awake. Nor is that the
            // queue is finished, once that is known.
            let has_work = self.has_room() && !self.jobs.is_empty() || deadline.is_none() && self.jobs.is_finished();
            if !has_work {
                let again = (!self.unsent.is_empty()).then(|| now + RESULTS_PAUSE);
                let heartbeat = Some(now + HEARTBEAT_EVERY);
                let alarm = [deadline, self.workers.next_deadline(), again, heartbeat].into_iter().flatten().min();
                tokio::select! {
                    guard = door.readable() => {
                        guard.expect("an eventfd can be polled").clear_ready();
                        door.get_ref().clear();
                    }
                    // A provider that panics is a defect like any other panic.
                    Some(finished) = self.deliveries.join_next() => match finished {
                        Ok(finished) => self.finish(finished),
                        Err(error) => std::panic::resume_unwind(error.into_panic()),
                    },
                    Some(closed) = self.closing.join_next() => if let Err(error) = closed {
                        std::panic::resume_unwind(error.into_panic());
                    },
                    () = sleep(alarm.unwrap_or(now).since(now).into()), if alarm.is_some() => {}
                }
            }
            self.bell.declare_awake();
        }
    }

    fn has_room(&self) -> bool {
        self.in_hand < self.jobs.capacity()
    }

    fn take(&mut self, now: Instant) {
        while self.has_room()
            && let Some(job) = self.jobs.recv()
        {
            self.in_hand += 1;
            let destination = &job.1.key.destination;
            if let Some(queue) = self.queues.get_mut(destination) {
                queue.push_back((now, job));
            } else {
                let destination = Arc::clone(destination);
                self.workers.offer(Arc::clone(&destination), now);
                self.queues.insert(destination, VecDeque::from([(now, job)]));
            }
        }
    }

    fn adjust(&mut self, now: Instant) {
        if let Some(decision) = self.workers.adjust(now) {
            tracing::debug!(pipeline = CODE, "sizing: {decision}");
        }
        let (stuck, longest) = self.workers.stuck();
        if self.workers.is_unreachable(now)
            && self.slow_told.is_none_or(|told| now.since(told) >= UNREACHABLE_TOLD_EVERY)
        {
            self.slow_told = Some(now);
            let report = self.workers.report(now);
            tracing::warn!(
                class = CODE,
                needed = report.answer.needed,
                workers = report.workers,
                max_workers = self.workers.workers_max(),
                rate = report.answer.load.rate,
                service_seconds = report.answer.service,
                wait_p95 = %report.waits.p95,
                result_p95 = %report.results.p95,
                stuck,
                stuck_max = DESTINATIONS_STUCK_MAX,
                "the code pipeline does not keep its SLO; where workers are short raise [code] max_workers, else the \
                 destinations are slow"
            );
        }
        if let Some((ticket, since)) = longest
            && now.since(since) >= WORKER_OVERDUE_MAX
            && self.stuck_told.is_none_or(|told| now.since(told) >= FAULT_REPORT_EVERY)
        {
            self.stuck_told = Some(now);
            tracing::warn!(
                destination = ?self.served.get(&ticket),
                hangs = %now.since(since),
                stuck,
                "a destination takes nothing; its notices wait"
            );
        }
    }

    fn start(&mut self, now: Instant) {
        while let Some((ticket, destination)) = self.workers.start(now) {
            let queue = self.queues.get_mut(&destination).expect("a destination that waits has a queue");
            let oldest = queue.front().map_or(now, |(taken, _)| *taken);
            let batch: Vec<Job> = queue.drain(..queue.len().min(NOTICE_BATCH_MAX)).map(|(_, job)| job).collect();
            let kept = self.idle.iter().position(|(other, _)| *other == destination);
            let mut outlet = match kept.and_then(|at| self.idle.remove(at)) {
                Some((_, outlet)) => outlet,
                None => Outlet::new(&destination, &self.surroundings),
            };
            self.served.insert(ticket, Arc::clone(&destination));
            self.deliveries.spawn_local(async move {
                let notices: Vec<&Notice> = batch.iter().map(|(_, notice)| &**notice).collect();
                let results = outlet.deliver(&notices).await;
                assert_eq!(results.len(), batch.len(), "a provider answers for each notice");
                let done = batch.iter().map(|&(id, _)| id).zip(results).collect();
                Finished { ticket, destination, outlet, oldest, began: now, done }
            });
        }
    }

    fn finish(&mut self, Finished { ticket, destination, outlet, oldest, began, done }: Finished) {
        let now = Clock.now();
        self.workers.ended(ticket, oldest, now);
        self.recording.record(destination.provider.index(), Measure::Service, now.since(began));
        self.served.remove(&ticket);
        self.unsent.extend(done);
        if self.queues[&destination].is_empty() {
            self.queues.remove(&destination);
        } else {
            self.workers.offer(Arc::clone(&destination), now);
        }
        // Also when there is more to do: `start` looks here. Its turn comes before this bound can evict it, or it is
        // opened again, which costs little.
        self.idle.push_back((destination, outlet));
        if self.idle.len() > DESTINATIONS_IDLE_MAX
            && let Some((_, outlet)) = self.idle.pop_front()
        {
            self.closing.spawn_local(outlet.close());
        }
    }

    fn close_idle(&mut self) {
        for (_, outlet) in self.idle.drain(..) {
            self.closing.spawn_local(outlet.close());
        }
    }

    fn publish(&self, now: Instant) {
        if let Ok(mut seen) = self.board.seen.lock() {
            *seen = Some((self.workers.report(now), self.workers.stuck().0));
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
        if unfinished > 0 {
            tracing::error!(notices = unfinished, "the time to stop is up; these notices were not delivered");
        }
        let waiting = std::mem::take(&mut self.queues).into_values().flatten();
        self.unsent
            .extend(waiting.map(|(_, (id, _))| (id, Delivered::new(DeliveryResult::Failed, "the daemon ended"))));
        self.answer();
    }
}

#[cfg(test)]
mod tests;
