//! Those who notice that the daemon does not do its work: the service manager, and a dead man's switch.
//!
//! One thread is made to stand still as a debugger does it, so that the others go on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::counterparts::support::skip;
use super::daemon::{Cpra, Setup, eventually};
use super::targets::{Targets, file, http};

/// The other end of `NOTIFY_SOCKET`.
struct Systemd(UnixDatagram);

impl Systemd {
    /// With a daemon that is to say twice in `patience` that it is alive.
    fn with(setup: Setup, patience: Duration) -> (Self, Setup) {
        let path = setup.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in the test's own folder");
        let micros = patience.as_micros().to_string();
        (Self(socket), setup.environment("NOTIFY_SOCKET", path).environment("WATCHDOG_USEC", micros))
    }

    /// Everything that is said within this time.
    fn hears(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let mut said = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let mut bytes = [0; 4096];
            self.0.set_read_timeout(Some(left)).expect("a timeout");
            if let Ok(length) = self.0.recv(&mut bytes) {
                said.push(String::from_utf8(bytes[..length].to_vec()).expect("text"));
            }
        }
        said
    }

    fn waits_for(&self, line: &str) {
        eventually(line, || self.hears(Duration::from_millis(100)).iter().any(|said| said.lines().any(|l| l == line)));
    }

    fn pulses(&self, time: Duration) -> usize {
        self.hears(time).iter().filter(|said| *said == "WATCHDOG=1").count()
    }
}

/// A thread of the daemon that stands still while this lives. Only the thread that made it can let go of it.
struct Frozen(Pid);

impl Frozen {
    fn thread(cpra: &Cpra, name: &str) -> Result<Self, String> {
        let tasks = format!("/proc/{}/task", cpra.pid());
        let mut tasks = fs::read_dir(tasks).expect("it runs").flatten().map(|task| task.path());
        let task = tasks
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
            .unwrap_or_else(|| panic!("no thread is called {name}"));
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
        let id = Pid::from_raw(id);
        ptrace::seize(id, ptrace::Options::empty()).map_err(|error| format!("no thread can be held: {error}"))?;
        ptrace::interrupt(id).expect("it is ours");
        waitpid(id, Some(WaitPidFlag::__WALL)).expect("it stops");
        Ok(Self(id))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

const CADENCE: &str = "interval: 500ms, timeout: 400ms, unhealthy_threshold: 1, healthy_threshold: 1";

fn one_target(targets: &Targets) -> String {
    file(CADENCE, &http("up", targets.addresses[0]))
}

#[test]
fn the_service_manager_hears_of_the_start_the_life_and_the_end() {
    let targets = Targets::start(1, Duration::ZERO);
    let (manager, setup) = Systemd::with(Setup::new().monitors(&one_target(&targets)), Duration::from_secs(1));
    let mut cpra = setup.run();
    manager.waits_for("READY=1");
    // It is said when it changes.
    manager.waits_for("STATUS=1 of 1 monitors up, 0 down; 0 alerts undelivered");
    manager.waits_for("WATCHDOG=1");
    let pulses = manager.pulses(Duration::from_secs(3));
    assert!((4..=9).contains(&pulses), "two in a second: {pulses}");

    cpra.signal(Signal::SIGSTOP);
    manager.hears(Duration::from_millis(200));
    assert_eq!(manager.pulses(Duration::from_secs(2)), 0, "a process that stands still is silent");
    cpra.signal(Signal::SIGCONT);
    manager.waits_for("WATCHDOG=1");

    cpra.signal(Signal::SIGTERM);
    manager.waits_for("STOPPING=1");
    assert!(cpra.ends_within(Duration::from_secs(20)).success());
}

#[test]
fn no_pulse_comes_while_a_shard_or_the_desk_stands_still() {
    let targets = Targets::start(1, Duration::ZERO);
    let (manager, setup) = Systemd::with(Setup::new().monitors(&one_target(&targets)), Duration::from_secs(1));
    let cpra = setup.run();
    for name in ["cpra-shard-0", "cpra-desk"] {
        manager.waits_for("WATCHDOG=1");
        let frozen = match Frozen::thread(&cpra, name) {
            Ok(frozen) => frozen,
            Err(why) => return skip("no_pulse_comes_while_a_shard_or_the_desk_stands_still", &why),
        };
        // It counts as standing still after five seconds.
        manager.hears(Duration::from_secs(7));
        assert_eq!(manager.pulses(Duration::from_secs(3)), 0, "{name}");
        drop(frozen);
        manager.waits_for("WATCHDOG=1");
    }
}

/// Somebody elsewhere who counts pings, and answers as it is told to.
struct Switch {
    url: String,
    pings: Arc<AtomicUsize>,
    status: Arc<AtomicUsize>,
}

impl Switch {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/ping/s3cret", listener.local_addr().expect("it is bound"));
        let (pings, status) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(200)));
        let (count, answer) = (pings.clone(), status.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                assert!(head.is_empty() || head.starts_with(b"GET /ping/s3cret HTTP/1.1\r\n"), "{head:?}");
                if !head.is_empty() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let status = answer.load(Ordering::Relaxed);
                let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { url, pings, status }
    }

    fn count(&self) -> usize {
        self.pings.load(Ordering::Relaxed)
    }
}

#[test]
fn pings_stop_while_the_store_commits_nothing_and_come_again() {
    let switch = Switch::start();
    let targets = Targets::start(1, Duration::ZERO);
    let settings = format!("[watchdog]\nurl = \"{}\"\ninterval = \"1s\"\n", switch.url);
    let cpra = Setup::new().monitors(&one_target(&targets)).settings(&settings).run();
    eventually("pings come", || switch.count() >= 3);
    let pings = |result: &str| cpra.metrics().value(&format!("cpra_watchdog_pings_total{{result=\"{result}\"}}"));
    eventually("they are counted", || pings("answered") >= 3.0);

    switch.status.store(503, Ordering::Relaxed);
    eventually("refusals are counted", || pings("failed") >= 2.0);
    switch.status.store(200, Ordering::Relaxed);

    let frozen = match Frozen::thread(&cpra, "cpra-store") {
        Ok(frozen) => frozen,
        Err(why) => return skip("pings_stop_while_the_store_commits_nothing_and_come_again", &why),
    };
    // Something has to be kept.
    targets.set_well(false);
    eventually("pings are withheld", || pings("withheld") >= 1.0);
    let count = switch.count();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(switch.count(), count);
    drop(frozen);
    eventually("they come again", || switch.count() > count);
    let stderr = cpra.stderr();
    let told = |words: &str| stderr.lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("the store has committed nothing for"), 1, "{stderr}");
    assert_eq!((told("is pinged again"), told("was not reached")), (1, 1), "{stderr}");
    assert!(!cpra.said().contains("s3cret"), "an address may hold a token: {}", cpra.said());
}
