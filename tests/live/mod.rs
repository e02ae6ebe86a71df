//! The daemon alive on the real ring, beside servers whose manners change, and looked at ten times a second.
//!
//! What is judged comes from the daemon's own counters, differences of histograms over stretches of time: a test that is
//! itself late on a busy machine changes no figure.

#![allow(dead_code, reason = "each program that includes this uses its own part of it")]
#![allow(unreachable_pub, reason = "a module of several crates")]

pub mod crowd;
pub mod watch;

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use cpra::api::{AskError, Source};
use cpra::daemon::{self, Daemon, Plan};
use cpra::domain::{Check, Host, HttpCheck, Monitor, Policy, Target};
use cpra::os::clock::Clock;
use cpra::queueing::Setup;
use cpra::units::{Instant, MonitorId};
use cpra::world::Catalog;

/// One test at a time, where several are in one process: each wants the machine for itself.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // What another one's panic left behind is nothing.
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lets time pass, and answers which.
pub fn pass(seconds: u64) -> Range<Instant> {
    let from = Clock.now();
    thread::sleep(Duration::from_secs(seconds));
    from..Clock.now()
}

/// A request, and 2xx for an answer.
pub fn http(keep_alive: bool) -> Check {
    Check::Http(HttpCheck { keep_alive, ..HttpCheck::default() })
}

pub fn monitor(name: &str, enabled: bool, address: SocketAddr, path: &str, policy: Policy) -> Monitor {
    let target = Target { host: Host::Literal(address.ip()), port: address.port(), path: path.into() };
    Monitor { name: name.into(), enabled, target, policy }
}

/// A daemon within this process, one shard.
pub struct Running {
    daemon: Daemon,
    pub source: Arc<dyn Source>,
}

impl Running {
    /// # Panics
    /// If it does not start.
    pub fn start(monitors: Vec<Monitor>, pulse: Setup, folder: &Path) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
        let plan = Plan { pulse, ..Plan::new(catalog, api, folder.to_owned()) };
        let daemon = daemon::start(plan).expect("the daemon starts");
        let source = daemon.source();
        Self { daemon, source }
    }

    /// # Panics
    /// If a name is not known.
    pub fn ids(&self, names: impl IntoIterator<Item = String>) -> Vec<MonitorId> {
        let catalog = self.source.catalog();
        names.into_iter().map(|name| catalog.find(&name).expect("a monitor of this name")).collect()
    }

    /// Watches these monitors from now on, or watches them no more.
    ///
    /// # Panics
    /// If the daemon is stopping.
    pub fn switch(&self, monitors: &[MonitorId], enabled: bool) {
        for &monitor in monitors {
            while let Err(error) = self.source.switch(monitor, enabled) {
                assert_eq!(error, AskError::Full, "the daemon runs");
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Whether everything ended in time.
    pub fn stop(self) -> bool {
        drop(self.source);
        self.daemon.stop()
    }
}

/// Every server's connections and scripts' pipes are files of this process.
///
/// # Panics
/// If the limit is not ours to raise.
pub fn raise_open_files() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)
        .expect("up to the hard limit");
}
