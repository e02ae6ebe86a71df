//! Signals: what programs in the kernel see of our requests and their answers (`cpra-ebpf`, loaded by aya).
//!
//! ```text
//!  Signals::start ─▶ Loaded ── shards ─▶ a ShardSignals for each shard: tickets, its ring of returns
//!                       └───── follow ─▶ thread cpra-ebpf: programs at the interfaces that come later
//! ```
//! A verdict never depends on a signal. What the programs do not take reaches the sockets as it does without them; a ring
//! that is full loses nothing, for the tickets tell; where an interface has none of our programs, [`ShardSignals::is_whole`]
//! says so, and what needs them is done otherwise.
//!
//! Nothing is pinned and no setting of the host is changed. The links of TCX and XDP end with the process, however it
//! ends. A clsact filter does not: what is left of an earlier process is removed when the programs are loaded,
//! unless another daemon with such filters lives in the same network namespace.
//!
//! This is the only place that names aya.

pub mod settings;

mod connects;
mod follow;
mod interfaces;
mod mapped;
mod shard;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use cpra_common::{Count, SHARDS_MAX, Settings as Shared, TAG_SHARD_BITS};
use thiserror::Error;

pub use self::connects::Connects;
pub use self::follow::Follower;
use self::follow::Holder;
use self::mapped::Mapped;
pub use self::settings::{Hook, Interfaces, Mode, Settings};
pub use self::shard::{Expected, Kind, ShardSignals};

/// The thread that follows the interfaces.
pub const THREAD: &str = "cpra-ebpf";

/// Room for some 21,000 returns of one shard, which it takes several times a millisecond when many come.
const RING_BYTES: u32 = 1 << 20;

/// Names of the programs in the object. The first two are also by what a filter of clsact is found again.
const EGRESS: &str = "cpra_out";
const INGRESS: &str = "cpra_in";
const INGRESS_XDP: &str = "cpra_in_xdp";

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../cpra-ebpf/object/cpra.bpf.o");

/// Why there are no signals.
#[derive(Debug, Error)]
pub enum SignalError {
    #[error("needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Forbidden,
    #[error("this kernel has no eBPF (it answers {0}): boot one that is built with CONFIG_BPF_SYSCALL")]
    NoEbpf(io::Error),
    #[error("the kernel does not take the eBPF programs: {0}; Linux 6.1 or later is needed")]
    Refused(String),
    #[error("cannot watch the network interfaces: {0}")]
    Interfaces(#[source] io::Error),
    #[error("cannot map the eBPF tables: {0}")]
    Tables(#[source] io::Error),
}

impl SignalError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            match inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                Some(nix::libc::EPERM | nix::libc::EACCES) => return Self::Forbidden,
                Some(errno @ nix::libc::ENOSYS) => return Self::NoEbpf(io::Error::from_raw_os_error(errno)),
                _ => words = format!("{words}: {inner}"),
            }
            cause = inner.source();
        }
        // The verifier's whole log is for those who write programs.
        let line = words.lines().next().unwrap_or_default();
        Self::Refused(line.chars().take(400).collect())
    }
}

impl From<EbpfError> for SignalError {
    fn from(error: EbpfError) -> Self {
        Self::of(&error)
    }
}

impl From<ProgramError> for SignalError {
    fn from(error: ProgramError) -> Self {
        Self::of(&error)
    }
}

/// What the programs are to serve.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    pub shards: u8,
    /// The most slots of one shard.
    pub slots: u32,
    /// The first source port of SYNs, and how many there are.
    pub ports: (u16, u16),
    /// Random, for the tag of echo requests.
    pub seed: u32,
}

/// Whether there are signals.
pub enum Signals {
    /// Nobody wants any.
    Off,
    /// There are none, and this is why.
    Without(SignalError),
    On(Box<Loaded>),
}

impl Signals {
    /// Loads the programs and attaches them to the interfaces that are there, as far as that is wanted.
    ///
    /// # Errors
    /// When the kernel does not let us or does not know how, and [`Mode::Require`] wants them.
    pub fn start(settings: &Settings, demand: Demand) -> Result<Self, SignalError> {
        match settings.mode {
            Mode::Off => Ok(Self::Off),
            Mode::Require => Ok(Self::On(Box::new(load(settings, demand)?))),
            Mode::Auto => Ok(load(settings, demand).map_or_else(Self::Without, |loaded| Self::On(Box::new(loaded)))),
        }
    }
}

impl std::fmt::Display for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Without(error) => write!(f, "off ({error})"),
            Self::On(loaded) => write!(f, "on ({loaded})"),
        }
    }
}

/// The programs, in the kernel and at the interfaces.
pub struct Loaded {
    holder: Holder,
    shards: Vec<ShardSignals>,
}

/// Where the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    tcx: bool,
    xdp: bool,
}

impl Places {
    fn of(hook: Hook) -> Self {
        let has_tcx = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
        let tcx = match hook {
            Hook::Auto | Hook::Xdp => has_tcx,
            Hook::Tcx => true,
            Hook::Clsact => false,
        };
        Self { tcx, xdp: hook == Hook::Xdp }
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.tcx, self.xdp) {
            (true, false) => "TCX",
            (false, false) => "clsact",
            (true, true) => "XDP and TCX",
            (false, true) => "XDP and clsact",
        })
    }
}

fn load(settings: &Settings, demand: Demand) -> Result<Loaded, SignalError> {
    let places = Places::of(settings.hook);
    let with_rings = demand.shards.min(SHARDS_MAX);
    let tickets = demand.slots.max(1).saturating_mul(u32::from(with_rings.max(1)));
    let shared = Shared {
        tag: demand.seed & !((1 << TAG_SHARD_BITS) - 1),
        tickets: demand.slots.max(1),
        port: demand.ports.0,
        ports: demand.ports.1,
    };
    let bytes = shared.to_bytes();
    let rings: Vec<String> = (0..SHARDS_MAX).map(|shard| format!("RETURNS_{shard}")).collect();
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", &bytes[..], true).map_max_entries("TICKETS", tickets);
    loader.map_max_entries(connects::SOCKETS, tickets);
    for (shard, name) in (0..).zip(&rings) {
        // The others have their smallest size, a page.
        if shard < with_rings {
            loader.map_max_entries(name, RING_BYTES);
        }
    }
    let mut ebpf = loader.load(OBJECT)?;
    for name in [EGRESS, INGRESS].into_iter().chain(places.xdp.then_some(INGRESS_XDP)) {
        match ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => program.load()?,
            Some(Program::Xdp(program)) => program.load()?,
            _ => return Err(SignalError::Refused(format!("program {name} is not in the object"))),
        }
    }
    // Programs are loaded with the descriptors of their maps: all of them before the first map is taken.
    let sockets = sockets(&mut ebpf);
    let counts = Arc::new(Mapped::new(array(&mut ebpf, "COUNTS")?, Count::ALL.len()).map_err(SignalError::Tables)?);
    let heeded = Mapped::new(array(&mut ebpf, "HEEDED")?, SHARDS_MAX.into()).map_err(SignalError::Tables)?;
    let heeded = Arc::new(heeded);
    let table = Mapped::new(array(&mut ebpf, "TICKETS")?, tickets as usize).map_err(SignalError::Tables)?;
    let table = Arc::new(table);
    let whole = Arc::new(AtomicBool::new(false));
    let mut shards = Vec::new();
    for (shard, name) in (0..with_rings).zip(&rings) {
        let ring = ebpf.take_map(name).ok_or_else(|| SignalError::Refused(format!("no map {name}")))?;
        let ring = RingBuf::try_from(ring).map_err(|error| SignalError::of(&error))?;
        let connects = match &sockets {
            Some(sockets) => Some(Connects::new(sockets, Arc::clone(&table), shard, shared.tickets)?),
            None => None,
        };
        let (counts, heeded, whole) = (Arc::clone(&counts), Arc::clone(&heeded), Arc::clone(&whole));
        let signals = ShardSignals::new(shard, shared, Arc::clone(&table), counts, heeded, ring, whole);
        shards.push(signals.with_connects(connects));
    }
    let holder = Holder::attached(ebpf, places, settings.interfaces.clone(), whole)?;
    Ok(Loaded { holder, shards })
}

/// Has the handshakes of the pool's sockets stamped, and answers where those are put down. Without it all else works: we
/// time connects ourselves.
fn sockets(ebpf: &mut Ebpf) -> Option<MapData> {
    if let Err(error) = connects::attach(ebpf) {
        tracing::info!("handshakes are not timed by the kernel: {error}");
        return None;
    }
    match ebpf.take_map(connects::SOCKETS) {
        Some(Map::HashMap(sockets)) => Some(sockets),
        _ => None,
    }
}

fn array(ebpf: &mut Ebpf, name: &str) -> Result<std::os::fd::OwnedFd, SignalError> {
    let Some(Map::Array(map)) = ebpf.take_map(name) else {
        return Err(SignalError::Refused(format!("no map {name}")));
    };
    fd(&map).map_err(SignalError::Tables)
}

/// The memory outlives the map's own descriptor; the programs hold the map itself.
fn fd(map: &MapData) -> io::Result<std::os::fd::OwnedFd> {
    map.fd().as_fd().try_clone_to_owned()
}

impl Loaded {
    /// Each shard's part, once; those beyond [`SHARDS_MAX`] have none.
    pub fn shards(&mut self) -> Vec<ShardSignals> {
        std::mem::take(&mut self.shards)
    }

    /// Starts to follow the interfaces that come and go.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn follow(self) -> io::Result<Follower> {
        Follower::start(self.holder)
    }
}

impl std::fmt::Display for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.holder.fmt(f)
    }
}

/// A program of ours, by the kind that it is known to be.
fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Option<&'a mut SchedClassifier> {
    match ebpf.program_mut(name)? {
        Program::SchedClassifier(program) => Some(program),
        _ => None,
    }
}

fn xdp(ebpf: &mut Ebpf) -> Option<&mut Xdp> {
    match ebpf.program_mut(INGRESS_XDP)? {
        Program::Xdp(program) => Some(program),
        _ => None,
    }
}
