//! What a daemon is started with.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::reload::Files;
use super::watchdog;
use crate::api;
use crate::api::access::Token;
use crate::domain::Destination;
use crate::notify::lane;
use crate::os::ebpf::Signals as KernelSignals;
use crate::os::histograms;
use crate::os::local::LocalSocket;
use crate::os::privilege::Privilege;
use crate::os::resolve;
use crate::os::spawn;
use crate::os::supervisor::Supervisor;
use crate::os::syn::Ports;
use crate::queueing::Setup;
use crate::shard;
use crate::store;
use crate::units::Span;
use crate::wire::tls::{Contexts, Unloaded};
use crate::world::Catalog;

/// What the daemon runs with, once files and flags are settled.
pub struct Plan {
    pub instance: Box<str>,
    pub catalog: Catalog,
    /// Whether a monitors file was read; without one the daemon runs, and is not ready.
    pub loaded: bool,
    /// `[providers.NAME]`: those that people can ask for by name.
    pub providers: Vec<Arc<Destination>>,
    /// Who hears what nobody else can receive, and of the daemon itself.
    pub fallback: Arc<Destination>,
    /// How often people are reminded of what is still down; `None`: not at all.
    pub repeat_interval: Option<Span>,
    /// Whether many raises at one destination are told together where people read or are woken.
    pub merges: bool,
    /// Of the intervention and code queues.
    pub queue_capacity: usize,
    /// How many checks are in flight, over all shards, and for what promise.
    pub pulse: Setup,
    /// How many destinations are written to at the same time, and for what promise.
    pub code: Setup,
    /// Most operations handed to the kernel at a time.
    pub batch_size: usize,
    /// The most packets a second of checks that nothing else slows down, over all shards.
    pub rates: shard::Rates,
    pub log_dirs: Vec<PathBuf>,
    pub state_dir: PathBuf,
    pub store: store::Settings,
    pub resolver: resolve::Settings,
    pub api: TcpListener,
    pub profile: Option<TcpListener>,
    /// The command line's way in.
    pub local: Option<LocalSocket>,
    /// What changes over TCP are made with.
    pub token: Option<Token>,
    /// Host names to answer to, beside the loopback ones.
    pub names: Vec<String>,
    pub findings: Vec<api::Finding>,
    /// What the monitors come from, to be read again; `None` where there is no such thing.
    pub files: Option<Box<dyn Files>>,
    /// What TLS is made from, shared by the shards.
    pub contexts: Arc<dyn Contexts>,
    pub scripts: spawn::Settings,
    pub histograms: histograms::Settings,
    /// What programs in the kernel see.
    pub signals: KernelSignals,
    /// Those of which `signals` knows, for half-open checks; held for as long as the daemon runs.
    pub syn_ports: Option<Ports>,
    /// What the process keeps of the powers that it was started with.
    pub privilege: Privilege,
    /// Who is told that the daemon does its work.
    pub supervisor: Option<Arc<Supervisor>>,
    pub watchdog: watchdog::Settings,
}

impl Plan {
    /// With what is needed, and with a small measure of everything else: for those who run the daemon inside a process of
    /// their own (tests, benches).
    pub fn new(catalog: Catalog, api: TcpListener, folder: PathBuf) -> Self {
        Self {
            instance: "cpra".into(),
            catalog,
            loaded: true,
            providers: Vec::new(),
            fallback: Arc::new(Destination::log(None)),
            repeat_interval: None,
            merges: true,
            queue_capacity: 1024,
            pulse: Setup::fixed(1024),
            code: lane::default_sizing(),
            batch_size: 1024,
            rates: shard::Rates::default(),
            log_dirs: vec![folder.clone()],
            state_dir: folder,
            store: store::Settings::Memory,
            resolver: resolve::Settings::default(),
            api,
            profile: None,
            local: None,
            token: None,
            names: Vec::new(),
            findings: Vec::new(),
            files: None,
            contexts: Arc::new(Unloaded),
            scripts: spawn::Settings::default(),
            histograms: histograms::Settings::default(),
            signals: KernelSignals::Off,
            syn_ports: None,
            privilege: Privilege::default(),
            supervisor: None,
            watchdog: watchdog::Settings::default(),
        }
    }
}
