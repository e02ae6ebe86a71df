//! The code lane: the thread `cpra-code`, which takes notices to their destinations. The only place that names
//! `tokio_uring`.
//!
//! A destination is given one batch at a time, so that its notices arrive in order; destinations run beside each other
//! ([`DESTINATIONS_BUSY_MAX`]), so that one that hangs delays no other. Notices in hand are bounded by the capacity of the
//! queue they came from: when that many wait, the lane takes no more, the queue fills, and the desk keeps the rest.
//!
//! tokio-uring cancels nothing when a future is dropped, and its runtime waits for what is pending when it is dropped.
//! So nothing here puts a time-out around an operation; and when the last notices have not ended in
//! [`DRAIN_NOTICES`], the runtime is leaked instead of dropped: the process is about to end.
//!
//! Where io_uring is forbidden (containers commonly do that), the same code runs on tokio with blocking file operations.
//! Then a file system that hangs does delay the others.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::wake::WakeFd;
use crate::desk::protocol::{DeliveryResult, NoticeId};
use crate::domain::{Destination, Notice};
use crate::notify::{LogDirs, Outlet, Stderr, Surroundings};
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
        match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => {
                if !runtime.block_on(start(Disk::Uring)) {
                    // To drop it would wait for the very operations that were given up.
                    std::mem::forget(runtime);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "io_uring is not available; logs are written by blocking calls");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("an epoll descriptor for the code lane");
                LocalSet::new().block_on(&runtime, start(Disk::Blocking));
            }
        }
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
        // SAFETY: the `WakeFd` owns its eventfd, gives the same number each time, and moves into the `AsyncFd`.
        let door = unsafe { AsyncFd::register_with_interest(door, Interest::READABLE) };
        let door = door.unwrap_or_else(|error| panic!("an eventfd can be polled: {error:?}"));
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

/// How files are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Uring,
    /// Where io_uring is not to be had.
    Blocking,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Symlink,
    Other,
}

impl Kind {
    fn of(mode: libc::mode_t) -> Self {
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::Regular,
            SFlag::S_IFLNK => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// Without O_NONBLOCK the open of a FIFO would wait for a reader; O_NOCTTY for what may be a terminal.
const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
const OPEN_MODE: u32 = 0o640;

impl Disk {
    /// What the path itself names, links not followed; `None` if nothing.
    ///
    /// # Errors
    /// When the path cannot be looked up.
    pub async fn identity(self, path: &Path) -> io::Result<Option<(Identity, Kind)>> {
        let found = match self {
            Self::Uring => match tokio_uring::fs::StatxBuilder::new().flags(libc::AT_SYMLINK_NOFOLLOW).pathname(path) {
                Ok(query) => query.statx().await.map(|stat| {
                    let device = (stat.stx_dev_major, stat.stx_dev_minor);
                    (Identity { device, inode: stat.stx_ino }, Kind::of(stat.stx_mode.into()))
                }),
                Err(error) => Err(error),
            },
            Self::Blocking => nix::sys::stat::lstat(path).map(|stat| identity(&stat)).map_err(io::Error::from),
        };
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens for appending, and makes the file if it does not exist; links are not followed. What was opened may be
    /// anything: look at it first, then call [`OpenFile::wait_for_disk`].
    ///
    /// # Errors
    /// As open(2) says.
    pub async fn open_append(self, path: &Path) -> io::Result<OpenFile> {
        // To read, too: the last byte tells whether a line was left unfinished.
        Ok(match self {
            Self::Uring => {
                let mut options = tokio_uring::fs::OpenOptions::new();
                options.read(true).append(true).create(true).mode(OPEN_MODE).custom_flags(OPEN_FLAGS);
                OpenFile::Uring(options.open(path).await?)
            }
            Self::Blocking => {
                let mut options = fs::OpenOptions::new();
                options.read(true).append(true).create(true).mode(OPEN_MODE).custom_flags(OPEN_FLAGS);
                OpenFile::Blocking(options.open(path)?)
            }
        })
    }
}

fn identity(stat: &libc::stat) -> (Identity, Kind) {
    let device = (libc::major(stat.st_dev), libc::minor(stat.st_dev));
    (Identity { device, inode: stat.st_ino }, Kind::of(stat.st_mode))
}

/// A file that is open for appending.
pub enum OpenFile {
    Uring(tokio_uring::fs::File),
    Blocking(fs::File),
}

impl OpenFile {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: the file keeps its descriptor open for as long as it lives, and the borrow ends before that.
            Self::Uring(file) => unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) },
            Self::Blocking(file) => file.as_fd(),
        }
    }

    /// # Errors
    /// As fstat(2) says.
    pub fn identity(&self) -> io::Result<(Identity, Kind)> {
        Ok(identity(&fstat(self.fd())?))
    }

    /// # Errors
    /// As fstat(2) says.
    pub fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(fstat(self.fd())?.st_size).unwrap_or(0))
    }

    /// Where the file is by now, as the kernel sees it.
    ///
    /// # Errors
    /// Without /proc.
    pub fn path(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.fd().as_raw_fd()))
    }

    /// Clears O_NONBLOCK: with it io_uring would answer EAGAIN where a disk has to be waited for.
    ///
    /// # Errors
    /// As fcntl(2) says.
    pub fn wait_for_disk(&self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self.fd(), FcntlArg::F_GETFL)?);
        fcntl(self.fd(), FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// One write of `bytes[from..]` at the file's end, wherever that is by then.
    pub async fn append(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(file) => {
                // The offset is ignored, because of O_APPEND.
                let (result, slice) =
                    file.write_at(tokio_uring::buf::BoundedBuf::slice(bytes, from..), 0).submit().await;
                (result, slice.into_inner())
            }
            Self::Blocking(file) => (io::Write::write(&mut &*file, &bytes[from..]), bytes),
        }
    }

    /// The last byte of a file of this size; `None` of an empty one.
    ///
    /// # Errors
    /// As pread(2) says.
    pub async fn last_byte(&self, size: u64) -> io::Result<Option<u8>> {
        let Some(at) = size.checked_sub(1) else { return Ok(None) };
        let mut byte = vec![0];
        let count = match self {
            Self::Uring(file) => {
                let result;
                (result, byte) = file.read_at(byte, at).await;
                result?
            }
            Self::Blocking(file) => file.read_at(&mut byte, at)?,
        };
        // Truncated meanwhile: then it is empty, or what is left ends where a line did.
        Ok((count == 1).then(|| byte[0]))
    }

    /// # Errors
    /// As ftruncate(2) says.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        let size = i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Ok(nix::unistd::ftruncate(self.fd(), size)?)
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({})", self.fd().as_raw_fd())
    }
}

/// Runs a test's future as the lane would.
#[cfg(test)]
pub(crate) fn block_on<F: Future>(disk: Disk, future: F) -> F::Output {
    match disk {
        Disk::Uring => tokio_uring::start(future),
        Disk::Blocking => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, future)
        }
    }
}

#[cfg(test)]
mod tests;
