//! The composition root: every thread of the process is started here.
//!
//! | thread | what it does | wakes on | ends |
//! | --- | --- | --- | --- |
//! | `main` | signals, the order of start and end | signalfd | last |
//! | `cpra-shard-N` | checks ([`crate::shard`] on io_uring) | completions, its bell, deadlines | when told, after its checks |
//! | `cpra-desk` | episodes, the commit gate, notices ([`crate::desk`]) | its bell, deadlines | when told, after its notices |
//! | `cpra-code` | delivers notices (tokio-uring); threads of its runtime wait for disks | its bell, deadlines | when the desk has gone |
//! | `cpra-store` | makes commits durable ([`crate::store`]) | its bell | when the desk has gone |
//! | `cpra-resolve` | names into addresses, questions of dns checks (tokio) | its bell, epoll | when the shards have gone |
//! | `cpra-spawn` | scripts ([`crate::os::spawn`]) | its bell, what they write, their ends | when the shards and the code lane have gone, after its scripts |
//! | `cpra-histogram` | writes histograms down ([`crate::os::histograms`]) | its queue, its interval | when told, after a last dump |
//! | `cpra-ebpf` | programs in the kernel, at interfaces that come and go ([`crate::os::ebpf`]) | netlink | when the shards have gone |
//! | `cpra-load` | reads the files again ([`reload`]) | wishes | with the process |
//! | `cpra-watchdog` | tells others that the daemon does its work ([`watchdog`]); only where somebody wants to know | its interval | when told |
//! | `cpra-control` | API on TCP and the unix socket, metrics, profiles (tokio) | epoll | when told |
//!
//! Between them are bounded queues of [`crate::pipeline`] and a few atomics; no thread waits for another one's lock
//! but to copy counters.
//!
//! A thread that panics takes the process with it ([`abort_on_panic`]).
//!
//! The end (SIGTERM, SIGINT): checks stop starting and those in flight end within a bound, then the desk lets its
//! notices out within another, then the process exits with 0. A second signal exits at once;
//! what follows the first within [`SIGNAL_ECHO`] is the same wish, sent twice. SIGUSR1 wants a dump of the histograms, SIGHUP
//! that the files are read again; they end nothing.

mod plan;
pub mod reload;
mod running;
mod shards;
pub mod watchdog;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

pub use self::plan::Plan;
use self::reload::{Ends, Loaded, Loader};
use self::running::Running;
use self::shards::{Machine, ShardHandle, start_shard};
use self::watchdog::Watch;
use crate::api;
use crate::desk::{self, Desk};
use crate::notify::{LogDirs, lane};
use crate::os::clock::Clock;
use crate::os::desk_loop::{self, DeskBoard, DeskLoop};
use crate::os::ebpf::{self, Signals as KernelSignals};
use crate::os::histograms::{self, SharedRecording};
use crate::os::privilege::{self, Privilege, PrivilegeError};
use crate::os::resolve;
use crate::os::shard_loop;
use crate::os::signals::{Signals, Wish};
use crate::os::spawn;
use crate::os::story::Teller;
use crate::os::supervisor::Supervisor;
use crate::os::syn::Ports;
use crate::os::uring;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, bounded};
use crate::shard;
use crate::store;
use crate::units::Span;
use crate::units::limits::{
    API_CONNECTION_GRACE, DRAIN_CHECKS, DRAIN_NOTICES, HISTOGRAM_DUMP_WAIT, QUEUE_ASKS, QUEUE_CALLS, QUEUE_COMMANDS,
    QUEUE_TRANSITIONS, SCRIPT_GRACE, SCRIPT_KILL_WAIT, SIGNAL_ECHO,
};

/// The API's thread.
const CONTROL: &str = "cpra-control";

/// When the process exits at once, its scripts get this long to be killed.
const SCRIPTS_END_AT_ONCE: Span = Span::from_millis(100);

/// Names that decide how wide the story's column is.
const STORY_NAMES: usize = 1000;

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start thread {thread}: {error}")]
    Thread { thread: &'static str, error: io::Error },
    #[error(transparent)]
    Ring(#[from] uring::RingError),
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error("cannot make a descriptor: {0}")]
    Descriptor(#[from] io::Error),
}

/// A running daemon.
pub struct Daemon {
    shards: Vec<ShardHandle>,
    scripts: spawn::Handle,
    ebpf: Option<ebpf::Follower>,
    _syn_ports: Option<Ports>,
    desk: JoinHandle<()>,
    desk_board: Arc<DeskBoard>,
    desk_bell: Bell,
    code: JoinHandle<()>,
    store: JoinHandle<()>,
    dumps: histograms::Writer,
    histograms: JoinHandle<()>,
    control: JoinHandle<io::Result<()>>,
    control_stop: oneshot::Sender<()>,
    supervisor: Option<Arc<Supervisor>>,
    /// Until the end of the end.
    _watchdog: Option<watchdog::Handle>,
    stopping: Arc<AtomicBool>,
    source: Arc<Running>,
}

/// How many shards to run on this machine: one up to two cores, else all cores but one.
pub fn shards_for(cores: usize) -> u8 {
    u8::try_from(if cores <= 2 { 1 } else { cores - 1 }).unwrap_or(u8::MAX)
}

/// Becomes who the daemon is to be, and starts every thread.
///
/// In this order: what takes powers that are not kept; then these are given up; then threads, which inherit what is left.
/// Where nothing is to be kept in the end ([`Privilege::give_up`]), the shards give theirs up when their sockets are open,
/// and what they need beforehand is started without any.
///
/// # Errors
/// When the process cannot become that user, or a thread, a descriptor or the ring cannot be had. Threads that were started
/// end with the process.
pub fn start(plan: Plan) -> Result<Daemon, StartError> {
    let now = Clock.now();
    let privilege = plan.privilege;
    privilege.assume()?;
    tell_of_folder(&privilege, &plan.state_dir);
    // Before there is anything to stop again: here it is said that another daemon has it.
    let opened = store::open(&plan.store)?;
    let mut findings = plan.findings;
    if let Some(trouble) = &opened.stored.trouble {
        tracing::error!("{trouble}");
        findings.push(api::Finding {
            subject: "[store] path".to_owned(),
            text: trouble.to_string(),
            remedy: "see docs/store.md".to_owned(),
        });
    }
    let reader = opened.store.reader();
    let catalog = Arc::new(plan.catalog);
    let shard_count = catalog.shards();
    let desk_door = WakeFd::new()?;
    let desk_bell = desk_door.bell();
    let doors = (0..shard_count).map(|_| WakeFd::new()).collect::<io::Result<Vec<_>>>()?;
    let bells: Vec<Bell> = doors.iter().map(WakeFd::bell).collect();
    let resolve::Started { resolvers, board: resolver_board, .. } =
        without_powers(&privilege, || resolve::spawn(plan.resolver, QUEUE_COMMANDS, bells.clone()))??;
    // The last one is for notices.
    let code_scripts_door = WakeFd::new()?;
    let code_scripts_bell = code_scripts_door.bell();
    let script_bells = bells.iter().chain([&code_scripts_bell]).cloned().collect();
    let (script_ends, scripts) =
        without_powers(&privilege, || spawn::spawn(plan.scripts, QUEUE_COMMANDS, script_bells))??;
    let mut script_ends = script_ends.into_iter();

    let (mut signals, ebpf) = match plan.signals {
        KernelSignals::Off | KernelSignals::Without(_) => (Vec::new(), None),
        KernelSignals::On(mut loaded) => {
            let signals = loaded.shards();
            (signals, Some(without_powers(&privilege, || loaded.follow())??))
        }
    };
    let mut signals = signals.drain(..);

    let mut shards = Vec::new();
    let mut shard_asks = Vec::new();
    let mut shard_calls = Vec::new();
    let mut exchanges = Vec::new();
    let mut shard_reloads = Vec::new();
    let mut transitions = Vec::new();
    let mut commands = Vec::new();
    let sizing = plan.pulse.shared_by(u32::from(shard_count));
    for ((index, (door, bell)), resolver) in (0..shard_count).zip(doors.into_iter().zip(bells)).zip(resolvers) {
        let (transition_sender, transition_receiver) = bounded(QUEUE_TRANSITIONS, desk_bell.clone());
        let (command_sender, command_receiver) = bounded(QUEUE_COMMANDS, bell.clone());
        let (ask_sender, ask_receiver) = bounded(QUEUE_ASKS, bell.clone());
        let (call_sender, call_receiver) = bounded(QUEUE_CALLS, bell.clone());
        let (exchange_sender, exchange_receiver) = bounded(1, bell.clone());
        let (reload_sender, reload_receiver) = bounded(1, bell.clone());
        shard_reloads.push(reload_sender);
        exchanges.push(exchange_sender);
        shard_calls.push(Mutex::new(call_sender));
        transitions.push(transition_receiver);
        commands.push(command_sender);
        shard_asks.push(Mutex::new(ask_sender));
        let mailbox = shard_loop::Mailbox {
            commands: command_receiver,
            asks: ask_receiver,
            calls: call_receiver,
            reloads: reload_receiver,
            exchanges: exchange_receiver,
            resolutions: resolver.answers,
            names: resolver.requests,
            scripts: script_ends.next().expect("one for each shard"),
            questions: resolver.orders,
            returns: resolver.returns,
            transitions: transition_sender,
        };
        let settings = shard::Settings { shard: index, sizing, seed: seed() };
        let batch = u32::try_from(plan.batch_size).unwrap_or(u32::MAX);
        let options = uring::Options { batch, ..uring::Options::default() };
        let machine = Machine {
            settings,
            catalog: Arc::clone(&catalog),
            contexts: Arc::clone(&plan.contexts),
            signals: signals.next(),
            privilege: privilege.clone(),
            rates: plan.rates.shared_by(u32::from(shard_count)),
        };
        shards.push(start_shard(machine, options, mailbox, door, bell)?);
    }
    privilege.give_up()?;

    let code_recording = SharedRecording::of_notices();
    let sources = exchanges.into_iter().zip(&shards);
    let sources =
        sources.map(|(exchanges, shard)| histograms::Source { exchanges, board: Arc::clone(&shard.board) }).collect();
    let folder = plan.histograms.folder(&plan.state_dir);
    let (dumps, histograms) =
        histograms::spawn(&plan.histograms, folder, &plan.instance, sources, code_recording.clone())
            .map_err(|error| StartError::Thread { thread: histograms::THREAD, error })?;
    let log_dirs = LogDirs::new(plan.log_dirs, plan.state_dir);
    let code_settings = lane::Settings {
        capacity: plan.queue_capacity,
        sizing: plan.code,
        log_dirs,
        scripts: script_ends.next().map(|scripts| spawn::Mailbox {
            scripts,
            door: code_scripts_door,
            bell: code_scripts_bell,
        }),
        recording: code_recording.clone(),
    };
    let code = lane::spawn(code_settings, desk_bell.clone())?;
    let (store, stored) = opened.spawn(QUEUE_COMMANDS, desk_bell.clone())?;
    let (ask_sender, asks) = bounded(QUEUE_ASKS, desk_bell.clone());
    let (desk_reloads, reload_receiver) = bounded(1, desk_bell.clone());
    let code_depth = code.jobs.gauge();
    let mailbox = desk_loop::Mailbox {
        transitions,
        commands,
        commits: store.batches,
        durable: store.durable,
        notices: code.jobs,
        delivered: code.results,
        asks,
        reloads: reload_receiver,
    };
    let settings = desk::Settings {
        instance: plan.instance.clone(),
        queue_capacity: plan.queue_capacity,
        fallback: plan.fallback,
        repeat_interval: plan.repeat_interval,
        merges: plan.merges,
        seed: seed(),
    };
    let desk_board = Arc::new(DeskBoard::default());
    let machine = Desk::new(settings, Arc::clone(&catalog), stored, now);
    let names = catalog.ids_after(None).take(STORY_NAMES).map(|id| catalog.name(id));
    let story = Teller::new(now, names)?;
    let board = Arc::clone(&desk_board);
    let driver = DeskLoop::new(machine, mailbox, desk_door, desk_bell.clone(), board, story, Arc::clone(&catalog))
        .recorded_by(code_recording);
    let desk = spawn("cpra-desk", move || driver.run())?;

    let stopping = Arc::new(AtomicBool::new(false));
    let loaded = Loaded::new(catalog, plan.providers, findings, [seed(), seed()]);
    let ends = Ends { shards: shard_reloads, desk: desk_reloads, desk_board: Arc::clone(&desk_board) };
    let (loader, reloads) = Loader::new(plan.files, loaded, ends, &shards, Arc::clone(&stopping));
    spawn("cpra-load", move || loader.run())?;
    let source = Arc::new(Running {
        instance: plan.instance,
        found: plan.loaded,
        reloads,
        started: now,
        pulse_setup: plan.pulse,
        code_setup: plan.code,
        queue_capacity: plan.queue_capacity,
        shards: shards.iter().map(|shard| Arc::clone(&shard.board)).collect(),
        shard_asks,
        shard_calls,
        desk: Arc::clone(&desk_board),
        resolver: resolver_board,
        desk_asks: Mutex::new(ask_sender),
        code_depth,
        code: code.board,
        store: store.board,
        history: reader,
        dumps: dumps.clone(),
        watchdog: Arc::default(),
        stopping: Arc::clone(&stopping),
    });
    let listeners = api::Listeners {
        api: plan.api,
        profile: plan.profile,
        names: plan.names,
        local: plan.local,
        token: plan.token,
    };
    let (control_stop, stop) = oneshot::channel();
    let asked = Arc::clone(&source);
    let control = spawn(CONTROL, move || api::run(listeners, asked, stop))?;
    let watch = Watch {
        patient: Arc::<Running>::clone(&source),
        supervisor: plan.supervisor.clone(),
        board: Arc::clone(&source.watchdog),
        interval: plan.watchdog.interval,
        whom: plan.watchdog.url.as_ref().map(watchdog::host_of).unwrap_or_default(),
    };
    let watchdog = watchdog::spawn(watch, plan.watchdog.url)
        .map_err(|error| StartError::Thread { thread: watchdog::THREAD, error })?;
    if let Some(supervisor) = &plan.supervisor {
        supervisor.ready("checks begin");
    }
    Ok(Daemon {
        shards,
        scripts,
        ebpf,
        _syn_ports: plan.syn_ports,
        desk,
        desk_board,
        desk_bell,
        code: code.thread,
        store: store.thread,
        dumps,
        histograms,
        control,
        control_stop,
        supervisor: plan.supervisor,
        _watchdog: watchdog,
        stopping,
        source,
    })
}

/// Starts a thread by one that has given up its powers, since a thread has what its maker had.
fn without_powers<T: Send>(privilege: &Privilege, start: impl FnOnce() -> T + Send) -> Result<T, PrivilegeError> {
    if !privilege.is_dropped() {
        return Ok(start());
    }
    let body = || privilege.give_up().map(|()| start());
    thread::scope(|scope| scope.spawn(body).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whose folder it is, is the administrator's to say; but nobody should find out by what is missing in it.
fn tell_of_folder(privilege: &Privilege, folder: &Path) {
    if let Some(user) = privilege.becomes().filter(|_| !privilege::may_write(folder)) {
        let (user, folder) = (&user.name, folder.display());
        tracing::warn!(
            "the state folder {folder} cannot be written by {user}: histograms are not kept there; `install -d -o {user} \
             {folder}`"
        );
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new().name(name.into()).spawn(body).map_err(|error| StartError::Thread { thread: name, error })
}

/// Ends the process when one of its threads panics. Without that thread the others would go on as if nothing had
/// happened: checks that alert nobody, or a desk that hears of no check; the supervisor starts a fresh process instead.
/// Not so the API's thread: a panic there ends one connection, and must not be a way to end the checks from outside.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let thread = thread::current();
        if thread.name().is_some_and(|name| name == "main" || name.starts_with("cpra-") && name != CONTROL) {
            std::process::abort();
        }
    }));
}

/// A seed that differs between processes: for jitter and the random part of identifiers, not for secrets.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match std::fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes)) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => Clock.now().as_nanos() ^ u64::from(std::process::id()) << 32,
    }
}

impl Daemon {
    /// What the API sees of the daemon, and how it changes something: for those who run it inside a process of their own.
    pub fn source(&self) -> Arc<dyn api::Source> {
        Arc::<Running>::clone(&self.source)
    }

    /// Runs until a signal comes, then ends in order. Answers whether the end was in order.
    pub fn run(self, signals: &Signals) -> bool {
        loop {
            match signals.wait(None) {
                Some(Wish::End) => break,
                Some(Wish::Dump) => self.dumps.dump_and_tell(),
                Some(Wish::Reload) => self.source.reload_by("SIGHUP"),
                None => {}
            }
        }
        let began = Clock.now();
        tracing::info!("stopping: no more checks start; a second signal exits at once");
        let dumps = self.dumps.clone();
        self.end(|pause| match signals.wait(Some(pause)) {
            Some(Wish::End) => Clock.now().since(began) >= SIGNAL_ECHO,
            Some(Wish::Dump) => {
                dumps.dump_and_tell();
                false
            }
            // There is nothing to read for any more.
            Some(Wish::Reload) | None => false,
        })
    }

    /// Ends in order, within the bounds of [`DRAIN_CHECKS`] and [`DRAIN_NOTICES`].
    pub fn stop(self) -> bool {
        self.end(|pause| {
            thread::sleep(pause.into());
            false
        })
    }

    /// `hurry` sleeps, and answers whether someone wants the end at once: then nothing is waited for any more, and what
    /// still runs ends with the process.
    fn end(self, hurry: impl Fn(Span) -> bool) -> bool {
        let began = Clock.now();
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(supervisor) = &self.supervisor {
            supervisor.stopping();
        }
        for shard in &self.shards {
            shard.board.drain.store(true, Ordering::Release);
            shard.bell.ring();
        }
        let drained = || self.shards.iter().all(|shard| shard.board.drained.load(Ordering::Acquire));
        match wait_until(&hurry, DRAIN_CHECKS, drained) {
            Waited::Done => {}
            Waited::Late => {
                tracing::warn!("checks in flight did not end within {DRAIN_CHECKS}: they count for nothing");
            }
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        for shard in &self.shards {
            shard.board.stop.store(true, Ordering::Release);
            shard.bell.ring();
        }
        match wait_until(&hurry, DRAIN_CHECKS, || self.shards.iter().all(|shard| shard.thread.is_finished())) {
            Waited::Done => {}
            Waited::Late => tracing::error!("a shard hangs and is left behind: its last findings are not told"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        self.desk_board.drain.store(true, Ordering::Release);
        self.desk_bell.ring();
        let flushed = match wait_until(&hurry, DRAIN_NOTICES, || self.desk_board.drained.load(Ordering::Acquire)) {
            Waited::Done => true,
            Waited::Late => {
                tracing::error!("notices are left undelivered: they did not leave within {DRAIN_NOTICES}");
                false
            }
            Waited::Hurried => return exit_at_once(&self.scripts),
        };
        self.desk_board.stop.store(true, Ordering::Release);
        self.desk_bell.ring();
        let ended = || self.desk.is_finished() && (!flushed || self.code.is_finished());
        match wait_until(&hurry, DRAIN_NOTICES, ended) {
            Waited::Done => {}
            Waited::Late => tracing::error!("the desk or the code lane hangs and is left behind"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        // What is committed is durable already; this is its log.
        match wait_until(&hurry, DRAIN_NOTICES, || !self.desk.is_finished() || self.store.is_finished()) {
            Waited::Done => {}
            Waited::Late => tracing::error!("the store hangs and is left behind"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        // Those of checks have been ending since the last shard ended, those of notices since the lane did.
        if !flushed {
            self.scripts.kill();
        }
        match wait_until(&hurry, SCRIPT_GRACE + SCRIPT_KILL_WAIT, || self.scripts.is_finished()) {
            Waited::Done => {}
            Waited::Late => tracing::error!("the thread that runs scripts hangs and is left behind"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        if let Some(ebpf) = self.ebpf {
            ebpf.stop();
        }
        self.dumps.end();
        match wait_until(&hurry, HISTOGRAM_DUMP_WAIT, || self.histograms.is_finished()) {
            Waited::Done => {}
            Waited::Late => tracing::error!("the disk for histograms hangs: the last ones are not written"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        let _ = self.control_stop.send(());
        // Connections get a moment to end; the bound is the API's own, and a little for a busy machine.
        match wait_until(&hurry, API_CONNECTION_GRACE + Span::from_secs(1), || self.control.is_finished()) {
            Waited::Done => {
                if let Ok(Err(error)) = self.control.join() {
                    tracing::warn!(%error, "the API ended with an error");
                }
            }
            Waited::Late => tracing::warn!("the API did not end in time"),
            Waited::Hurried => return exit_at_once(&self.scripts),
        }
        tracing::info!(took = %Clock.now().since(began), "stopped");
        flushed
    }
}

fn exit_at_once(scripts: &spawn::Handle) -> bool {
    // What has begun to run does not end with this process by itself, but for the scripts' first processes.
    scripts.kill();
    let _ = wait_until(
        &|pause| {
            thread::sleep(pause.into());
            false
        },
        SCRIPTS_END_AT_ONCE,
        || scripts.is_finished(),
    );
    tracing::error!("a second signal: exiting at once; checks in flight and notices not yet delivered are left behind");
    false
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Done,
    Late,
    Hurried,
}

/// Waits until `done` comes true, at most for `bound`, and not if there is a hurry.
fn wait_until(hurry: &impl Fn(Span) -> bool, bound: Span, done: impl Fn() -> bool) -> Waited {
    let deadline = Clock.now() + bound;
    while !done() {
        if Clock.now() >= deadline {
            return Waited::Late;
        }
        if hurry(Span::from_millis(5)) {
            return Waited::Hurried;
        }
    }
    Waited::Done
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// The test runs itself again, as the process that is to end.
    #[test]
    fn a_panic_ends_the_process_but_for_the_apis() {
        const THREAD: &str = "CPRA_TEST_PANICKING_THREAD";
        if let Ok(name) = std::env::var(THREAD) {
            abort_on_panic();
            let thread = thread::Builder::new().name(name).spawn(|| panic!("on purpose")).unwrap();
            assert!(thread.join().is_err());
            return;
        }
        for (name, aborts) in
            [("cpra-desk", true), ("cpra-shard-0", true), (CONTROL, false), ("tokio-rt-worker", false)]
        {
            let test = "daemon::tests::a_panic_ends_the_process_but_for_the_apis";
            let mut again = Command::new(std::env::current_exe().unwrap());
            let output = again.args([test, "--exact"]).env(THREAD, name).output().unwrap();
            assert_eq!(output.status.signal(), aborts.then_some(nix::libc::SIGABRT), "{name}");
            assert!(aborts || output.status.success(), "{name}");
        }
    }
}
