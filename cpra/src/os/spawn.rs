//! Scripts, on the thread `cpra-spawn`, for shards and for the code lane ([`Runner`]): starts them, reads what they write, and sees to their end.
//!
//! ```text
//!  order ──▶ waiting ──▶ running ───────────────── ended ──────────────▶ returned
//!    │                      │ recalled                   ▲       ▲
//!    │                      ├────────▶ asked to end (TERM) ──────┤
//!    │                      │ wrote too much   │ SCRIPT_GRACE    │ SCRIPT_KILL_WAIT
//!    │                      └────────▶ killed (KILL) ────────────┴──────▶ returned; left behind until it ends
//!    └──▶ no room, not to be started ──────────────────────────────────▶ returned
//! ```
//! Every order to run is answered exactly once, whatever becomes of the script. It is over when the program itself has
//! ended: what it has started and left running in its process group is killed then, so that nothing piles up. Where it was
//! brought to its end, so is everything in its session: timeout(1) and shells with job control make groups of their own.
//! (After every script that would mean to look through all processes of the host, which costs more than the script.) Who has
//! left the session by setsid(2) is nobody's any more. Nobody waits for the end of the *pipes*, which a grandchild may hold
//! for as long as it likes.
//!
//! Of each output the first [`crate::units::limits::SCRIPT_OUTPUT_KEPT`] bytes are kept. The rest is read and dropped, so that the script does
//! not stand still in a write, up to [`SCRIPT_OUTPUT_MAX`]; then it is killed.
//!
//! Full: beyond [`Settings::running_max`] scripts an order is refused at once, which voids the check. It does not wait for
//! a place: a script that hangs would make others late that are well. Scripts that cannot be killed keep their places.
//! Those that take notices ([`Want::Tell`]) have [`SCRIPTS_OF_NOTICES_MAX`] places beyond that, and are started first.
//!
//! Ends are noticed by pidfds, without signals: the daemon has no handler of SIGCHLD, and other children of the process are
//! not collected by mistake.

mod launch;
mod run;
mod runner;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;

use self::launch::{Failure, Launched, Launcher};
use self::run::{Output, Phase, Place, Run, Runs, Source, Why, token};
pub use self::runner::{Ended, Mailbox, Runner};
use super::clock::Clock;
use super::privilege::{self, Capabilities};
use super::user::Identity;
use super::wake::WakeFd;
use crate::domain::monitor::ScriptCheck;
use crate::domain::{Check, Policy};
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::probe::errand::ErrandEnd;
use crate::ring::Errno;
use crate::units::limits::{
    FAULT_REPORT_EVERY, SCRIPT_GRACE, SCRIPT_KILL_WAIT, SCRIPT_OUTPUT_MAX, SCRIPTS_OF_NOTICES_MAX, SCRIPTS_RUNNING_MAX,
};
use crate::units::{Generation, Instant, Slot, Span};

/// How scripts are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[security] script_user`: whom scripts run as when this process is root or was, and has kept what it takes to
    /// become others ([`privilege`]). Else they run as this process does.
    pub user: Box<str>,
    /// Set-user-ID programs (sudo, ping and check_icmp on some systems) gain nothing when scripts run them.
    pub no_new_privileges: bool,
    /// Scripts at a time, over all shards.
    pub running_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { user: privilege::SCRIPT_USER.into(), no_new_privileges: true, running_max: SCRIPTS_RUNNING_MAX }
    }
}

/// From a shard, or another client.
#[derive(Debug)]
pub struct Order {
    pub slot: Slot,
    pub generation: Generation,
    pub want: Want,
}

#[derive(Debug)]
pub enum Want {
    /// The script of the policy's check.
    Run(Arc<Policy>),
    /// A script that is told something.
    Tell(Box<Told>),
    /// What runs for this slot is to end. No more than a hint: it may have ended already.
    Recall,
}

/// A script, and what it reads from its standard input.
pub struct Told {
    pub script: ScriptCheck,
    pub input: Vec<u8>,
}

impl fmt::Debug for Told {
    /// Its environment holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("argv", &self.script.argv).finish_non_exhaustive()
    }
}

/// What is to be run.
enum Work {
    Check(Arc<Policy>),
    Told(Box<Told>),
}

impl Work {
    fn script(&self) -> Option<&ScriptCheck> {
        match self {
            Self::Check(policy) => match &policy.check {
                Check::Script(script) => Some(script),
                _ => None,
            },
            Self::Told(told) => Some(&told.script),
        }
    }

    fn input(&self) -> Option<&[u8]> {
        match self {
            Self::Check(_) => None,
            Self::Told(told) => Some(&told.input),
        }
    }
}

/// To a shard.
#[derive(Debug)]
pub enum News {
    /// The script is about to be started. Comes at most once for an order to run, and before its end.
    Begun { slot: Slot, generation: Generation, at: Instant },
    /// Comes exactly once for each order to run.
    Returned { slot: Slot, generation: Generation, end: Box<ErrandEnd> },
}

/// One client's side. Once all of them are dropped, every script is brought to its end, and the thread ends.
#[derive(Debug)]
pub struct Scripts {
    pub orders: Sender<Order>,
    pub news: Receiver<News>,
}

/// The thread, for those who wait for its end.
#[derive(Debug)]
pub struct Handle {
    thread: JoinHandle<()>,
    hurry: Arc<AtomicBool>,
    bell: Bell,
}

impl Handle {
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Kills every script, without asking it to end first.
    pub fn kill(&self) {
        self.hurry.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Starts the thread for as many shards as there are bells: `bells[n]` is that of the thread that will read the news of
/// the `n`th.
///
/// # Errors
/// When a descriptor or the thread cannot be had.
pub fn spawn(settings: Settings, capacity: usize, bells: Vec<Bell>) -> io::Result<(Vec<Scripts>, Handle)> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let mut shards = vec![];
    let mut clients = vec![];
    for news_bell in bells {
        let (orders, receiver) = bounded(capacity, bell.clone());
        let (sender, news) = bounded(capacity, news_bell);
        shards.push(Scripts { orders, news });
        clients.push(Client { orders: receiver, news: sender, unsent: VecDeque::new() });
    }
    let hurry = Arc::new(AtomicBool::new(false));
    let driver = Driver::new(settings, clients, Arc::clone(&hurry), &door)?;
    let own_bell = bell.clone();
    let thread = thread::Builder::new().name("cpra-spawn".into()).spawn(move || driver.run(&own_bell, &door))?;
    Ok((shards, Handle { thread, hurry, bell }))
}

/// As much as a pipe holds.
const SCRATCH: usize = 64 * 1024;
/// Programs started before what runs is looked at again.
const LAUNCHES_PER_TURN: usize = 16;
const EVENTS_PER_TURN: usize = 256;
/// How soon news are offered again to a shard that had no room for them.
const NEWS_PAUSE: Span = Span::from_millis(10);

/// The door's token; those of scripts are made by [`token`], and smaller.
const DOOR: u64 = u64::MAX;

struct Client {
    orders: Receiver<Order>,
    news: Sender<News>,
    unsent: VecDeque<News>,
}

struct Driver {
    settings: Settings,
    epoll: Epoll,
    clients: Vec<Client>,
    waiting: VecDeque<(Place, Work)>,
    runs: Runs,
    /// Programs that have ended, and are to be collected.
    ended: Vec<usize>,
    /// Made for the first script: where there is none, nobody has to have a user for them.
    launcher: Option<Launcher>,
    /// Why no script can be run, and since when.
    barred: Option<(Box<str>, Instant)>,
    complained: Option<Instant>,
    scratch: Box<[u8]>,
    hurry: Arc<AtomicBool>,
    /// Nobody wants any script any more.
    stopping: bool,
}

impl Driver {
    fn new(settings: Settings, clients: Vec<Client>, hurry: Arc<AtomicBool>, door: &WakeFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(door, EpollEvent::new(EpollFlags::EPOLLIN, DOOR))?;
        Ok(Self {
            settings,
            epoll,
            clients,
            waiting: VecDeque::new(),
            runs: Runs::default(),
            ended: Vec::new(),
            launcher: None,
            barred: None,
            complained: None,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            hurry,
            stopping: false,
        })
    }

    fn run(mut self, bell: &Bell, door: &WakeFd) {
        keep_children();
        let mut events = vec![EpollEvent::empty(); EVENTS_PER_TURN];
        loop {
            let now = Clock.now();
            self.take_orders(now);
            self.launch_some();
            if self.is_abandoned() && !self.stopping {
                self.end_all(now);
            }
            self.keep_deadlines(now);
            for client in &mut self.clients {
                client.news.send_all(&mut client.unsent);
                if client.news.is_closed() {
                    client.unsent.clear();
                }
            }
            if self.stopping && self.runs.iter().all(|run| matches!(run.phase, Phase::LeftBehind)) {
                return;
            }
            let timeout = self.timeout();
            let mut count = 0;
            bell.sleep(
                || true,
                || {
                    let timeout = if self.is_idle() { timeout } else { EpollTimeout::ZERO };
                    count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
                },
            );
            for event in &events[..count] {
                match event.data() {
                    DOOR => door.clear(),
                    token => self.happened(token),
                }
            }
            self.collect_ended();
        }
    }

    /// Nothing to do but to wait. Looked at after the bell was told that we sleep.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.clients.iter().all(|client| client.orders.is_empty() || !client.has_room())
            && (self.stopping || !self.is_abandoned())
    }

    fn is_abandoned(&self) -> bool {
        self.hurry.load(Ordering::Acquire) || self.clients.iter().all(|client| client.orders.is_finished())
    }

    fn timeout(&self) -> EpollTimeout {
        let now = Clock.now();
        let ending = (self.runs.ending > 0).then(|| self.runs.iter().filter_map(Run::until).min()).flatten();
        let blocked = self.clients.iter().any(|client| !client.unsent.is_empty()).then(|| now + NEWS_PAUSE);
        match [ending, blocked].into_iter().flatten().min() {
            // Rounded up, so that the deadline has passed afterwards.
            Some(deadline) => {
                let millis = deadline.since(now).as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
            }
            None => EpollTimeout::NONE,
        }
    }

    fn take_orders(&mut self, now: Instant) {
        for client in 0..self.clients.len() {
            while self.clients[client].has_room()
                && let Some(Order { slot, generation, want }) = self.clients[client].orders.recv()
            {
                let place = Place { client, slot, generation };
                let (work, running_max) = match want {
                    Want::Run(policy) => (Work::Check(policy), self.settings.running_max),
                    Want::Tell(told) => (Work::Told(told), self.settings.running_max + SCRIPTS_OF_NOTICES_MAX),
                    Want::Recall => {
                        self.recall(place, now);
                        continue;
                    }
                };
                if self.stopping {
                    self.answer(place, ErrandEnd::Recalled);
                } else if self.runs.len + self.waiting.len() >= running_max {
                    self.answer(place, ErrandEnd::Refused(Errno::EAGAIN));
                } else if matches!(work, Work::Told(_)) {
                    self.waiting.push_front((place, work));
                } else {
                    self.waiting.push_back((place, work));
                }
            }
        }
    }

    fn recall(&mut self, place: Place, now: Instant) {
        if let Some(position) = self.waiting.iter().position(|(waiting, _)| *waiting == place) {
            self.waiting.remove(position);
            self.answer(place, ErrandEnd::Recalled);
        } else if let Some(index) = self.runs.find(place) {
            self.ask_to_end(index, now);
        }
    }

    fn ask_to_end(&mut self, index: usize, now: Instant) {
        if let Some(run) = self.runs.get_mut(index)
            && matches!(run.phase, Phase::Running)
        {
            wait::signal_group(run.pid, libc::SIGTERM);
            // One that was stopped hears of it only when it goes on.
            wait::signal_group(run.pid, libc::SIGCONT);
            self.runs.set_phase(index, Phase::Asked { until: now + SCRIPT_GRACE });
        }
    }

    fn kill(&mut self, index: usize, why: Why, now: Instant) {
        if let Some(run) = self.runs.get_mut(index) {
            wait::signal_group(run.pid, libc::SIGKILL);
            self.runs.set_phase(index, Phase::Killed { why, until: now + SCRIPT_KILL_WAIT });
        }
    }

    fn end_all(&mut self, now: Instant) {
        self.stopping = true;
        while let Some((place, _)) = self.waiting.pop_front() {
            self.answer(place, ErrandEnd::Recalled);
        }
        for index in 0..self.runs.places.len() {
            self.ask_to_end(index, now);
        }
    }

    fn keep_deadlines(&mut self, now: Instant) {
        let hurry = self.hurry.load(Ordering::Acquire);
        if self.runs.ending == 0 {
            return;
        }
        for index in 0..self.runs.places.len() {
            let Some(run) = self.runs.get_mut(index) else { continue };
            match run.phase {
                Phase::Asked { until } if until <= now || hurry => self.kill(index, Why::Recalled, now),
                Phase::Killed { why, until } if until <= now => {
                    let (place, said, pid) = (run.place, run.said(), run.pid);
                    for output in &mut run.outputs {
                        output.pipe = None;
                    }
                    tracing::warn!(
                        pid,
                        "a script cannot be killed: it waits for a device, and keeps its place until it ends"
                    );
                    self.runs.set_phase(index, Phase::LeftBehind);
                    self.answer(place, ended_by_us(why, said));
                }
                Phase::Running | Phase::Asked { .. } | Phase::Killed { .. } | Phase::LeftBehind => {}
            }
        }
    }

    fn launch_some(&mut self) {
        for _ in 0..LAUNCHES_PER_TURN {
            let Some((place, work)) = self.waiting.pop_front() else { return };
            let at = Clock.now();
            if let Err(end) = self.launch(place, &work, at) {
                self.answer(place, end);
            }
        }
    }

    fn launch(&mut self, place: Place, work: &Work, at: Instant) -> Result<(), ErrandEnd> {
        let Some(script) = work.script() else { return Err(ErrandEnd::Refused(Errno::EINVAL)) };
        self.prepare(at).map_err(ErrandEnd::Barred)?;
        let launcher = self.launcher.as_mut().expect("it was prepared");
        let refused = |errno: nix::errno::Errno| ErrandEnd::Refused(Errno(errno as i32));
        let (out, out_end) = output().map_err(refused)?;
        let (err, err_end) = output().map_err(refused)?;
        let input = work.input().map(input).transpose().map_err(refused)?;
        let launched = launcher.launch(script, input.as_ref().map(AsFd::as_fd), out_end.as_fd(), err_end.as_fd());
        drop((input, out_end, err_end));
        let Launched { pid, pidfd } = match launched {
            Ok(launched) => launched,
            Err(Failure::Refused(errno)) => return Err(ErrandEnd::Refused(errno)),
            Err(Failure::Program(errno)) => return Err(ErrandEnd::NotStarted(errno)),
            Err(Failure::Way(why)) => {
                self.complain(&why, at);
                return Err(ErrandEnd::Barred(why.into()));
            }
        };
        let outputs = [out, err].map(|pipe| Output { pipe: Some(pipe), kept: Vec::new() });
        let index =
            self.runs.insert(|serial| Run { place, serial, pid, pidfd, outputs, written: 0, phase: Phase::Running });
        self.clients[place.client].unsent.push_back(News::Begun { slot: place.slot, generation: place.generation, at });
        let run = self.runs.get_mut(index).expect("it has just been put there");
        let serial = run.serial;
        let watch = |fd: &OwnedFd, source| {
            self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token(serial, index, source)))
        };
        let [Some(out), Some(err)] = [&run.outputs[0].pipe, &run.outputs[1].pipe] else { return Ok(()) };
        let watched = watch(&run.pidfd, Source::End)
            .and_then(|()| watch(out, Source::Out))
            .and_then(|()| watch(err, Source::Err));
        if let Err(errno) = watched {
            // Without watching there is no way to hear of its end: it must not have begun.
            wait::signal_group(pid, libc::SIGKILL);
            wait::collect(&run.pidfd);
            self.runs.remove(index);
            return Err(refused(errno));
        }
        Ok(())
    }

    /// Finds out whom scripts run as, for the first of them; what keeps them from running is asked again from time to time.
    fn prepare(&mut self, now: Instant) -> Result<(), Box<str>> {
        if self.launcher.is_some() {
            return Ok(());
        }
        if let Some((why, since)) = &self.barred
            && now.since(*since) < FAULT_REPORT_EVERY
        {
            return Err(why.clone());
        }
        let made = self.identity().and_then(|identity| {
            Launcher::new(identity, self.settings.no_new_privileges).map_err(|error| format!("/dev/null: {error}"))
        });
        match made {
            Ok(launcher) => {
                self.launcher = Some(launcher);
                Ok(())
            }
            Err(why) => {
                self.complain(&why, now);
                self.barred = Some((why.clone().into(), now));
                Err(why.into())
            }
        }
    }

    fn identity(&self) -> Result<Option<Identity>, String> {
        // Root that has lost that power must not run them as root by accident: then they do not run at all.
        let may_become_others = Capabilities::of_this_thread().has(Capabilities::OF_OTHERS_SCRIPTS);
        if !launch::is_root() && !may_become_others {
            return Ok(None);
        }
        let identity = Identity::find(&self.settings.user, "script_user")?;
        if identity.is_root() {
            tracing::warn!("scripts run as root: whoever may write one of them owns this host");
            return Ok(None);
        }
        Ok(Some(identity))
    }

    fn complain(&mut self, why: &str, now: Instant) {
        if self.complained.is_none_or(|last| now.since(last) >= FAULT_REPORT_EVERY) {
            self.complained = Some(now);
            tracing::error!("a script is not run: {why}");
        }
    }

    /// An event of a script: something to read, or its end.
    fn happened(&mut self, token: u64) {
        let (serial, index) = ((token >> 32) as u32, (token as u32 >> 2) as usize);
        let Some(run) = self.runs.get_mut(index).filter(|run| run.serial == serial) else { return };
        let source = match token & 3 {
            0 => Source::Out,
            1 => Source::Err,
            _ => return self.ended.push(index),
        };
        run.read_once(source, &mut self.scratch);
        if run.written > SCRIPT_OUTPUT_MAX {
            let why = if matches!(run.phase, Phase::Running) { Why::Flooded } else { Why::Recalled };
            // Nobody reads any more, so that it cannot go on writing either.
            for output in &mut run.outputs {
                output.pipe = None;
            }
            if matches!(run.phase, Phase::Running | Phase::Asked { .. }) {
                self.kill(index, why, Clock.now());
            }
        }
    }

    /// What they have left running goes with them. Before their ends are collected: until then the numbers of group and
    /// session are theirs. One look at all processes does for all that ended at this time.
    fn collect_ended(&mut self) {
        let ended = mem::take(&mut self.ended);
        let mut sessions = vec![];
        for run in ended.iter().filter_map(|&index| self.runs.places.get(index)?.as_ref()) {
            wait::signal_group(run.pid, libc::SIGKILL);
            if !matches!(run.phase, Phase::Running) {
                sessions.push(run.pid);
            }
        }
        if !sessions.is_empty() {
            wait::kill_sessions(Path::new("/proc"), &sessions);
        }
        for &index in &ended {
            self.collect(index);
        }
        self.ended = ended;
        self.ended.clear();
    }

    fn collect(&mut self, index: usize) {
        let Some(run) = self.runs.get_mut(index) else { return };
        let exit = match wait::try_collect(&run.pidfd) {
            Ok(None) => return,
            Ok(Some(exit)) => Ok(exit),
            Err(errno) => Err(errno),
        };
        run.read_rest(&mut self.scratch);
        let Some(run) = self.runs.remove(index) else { return };
        let end = match (run.phase, exit) {
            (Phase::LeftBehind, _) => return,
            (Phase::Asked { .. }, _) => ErrandEnd::Recalled,
            (Phase::Killed { why, .. }, _) => ended_by_us(why, run.said()),
            (Phase::Running, Ok(status)) => ErrandEnd::Exited { status, output: run.said() },
            (Phase::Running, Err(errno)) => ErrandEnd::Refused(errno),
        };
        self.answer(run.place, end);
    }

    fn answer(&mut self, place: Place, end: ErrandEnd) {
        let Place { client, slot, generation } = place;
        self.clients[client].unsent.push_back(News::Returned { slot, generation, end: Box::new(end) });
    }
}

impl Client {
    /// Answers are bounded by orders: no order is taken while that many answers wait.
    fn has_room(&self) -> bool {
        self.unsent.len() < self.orders.capacity()
    }
}

fn ended_by_us(why: Why, output: Box<str>) -> ErrandEnd {
    match why {
        Why::Recalled => ErrandEnd::Recalled,
        Why::Flooded => ErrandEnd::Flooded { output },
    }
}

/// A pipe: our end, which never blocks, and the script's, which does.
fn output() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, its) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, its))
}

/// What a script is to read, as a file in memory: nobody has to wait until it reads.
fn input(bytes: &[u8]) -> nix::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"notice", MFdFlags::MFD_CLOEXEC)?);
    let io = |error: io::Error| error.raw_os_error().map_or(nix::errno::Errno::EIO, nix::errno::Errno::from_raw);
    file.write_all(bytes).map_err(io)?;
    file.rewind().map_err(io)?;
    Ok(file.into())
}

/// A parent that ignored SIGCHLD has left us so: the kernel would then collect our children itself, and how they ended, and
/// whose their numbers are, nobody could tell.
fn keep_children() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}
