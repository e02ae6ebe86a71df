//! The programs at the interfaces: thread `cpra-ebpf`.
//!
//! An interface that comes gets them within milliseconds, before anything can answer by it as a rule; until then, and
//! where one does not take them, the signals are not whole. What is not our business stays: other programs, other
//! filters, the order that they have among themselves. Ours are the first, since another's word may be the last.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcAttachType, TcError};
use aya::programs::xdp::{XdpLinkId, XdpMode};
use aya::programs::{ProgramError, tc};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::interfaces::{Interface, Interfaces, Woken};
use super::{EGRESS, INGRESS, Places, SignalError, THREAD, classifier, xdp};
use crate::units::Span;

/// Where an interface did not take the programs, it is asked again after this.
const RETRY: Span = Span::from_secs(10);

/// The priority of clsact filters that are asked before all others.
const FIRST: u16 = 1;

/// Daemons with clsact filters in one network namespace that know of each other. One more is not seen.
const PRESENT_MAX: u8 = 16;

/// The thread; the programs leave their interfaces with it.
pub struct Follower {
    thread: JoinHandle<()>,
    stop: Arc<EventFd>,
}

impl Follower {
    pub(super) fn start(holder: Holder) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name(THREAD.into()).spawn(move || holder.run(&stopped))?;
        Ok(Self { thread, stop })
    }

    /// Takes the programs from the interfaces.
    pub fn stop(self) {
        // A full counter would have been written to already.
        let _ = self.stop.write(1);
        let _ = self.thread.join();
    }
}

/// The programs at their interfaces; they leave with it.
pub(super) struct Holder {
    ebpf: Ebpf,
    places: Places,
    wanted: super::settings::Interfaces,
    watch: Interfaces,
    whole: Arc<AtomicBool>,
    /// Says to those that start that the filters here are not all left behind.
    _presence: Option<UnixDatagram>,
    /// By the interface's index.
    held: BTreeMap<u32, Held>,
}

struct Held {
    name: String,
    links: Option<Links>,
    /// Why there are none.
    trouble: Option<SignalError>,
}

struct Links {
    egress: SchedClassifierLinkId,
    ingress: Ingress,
}

enum Ingress {
    Traffic(SchedClassifierLinkId),
    Xdp(XdpLinkId),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.held.values().filter(|held| held.links.is_some()).map(|held| &*held.name).collect();
        // A host of containers has hundreds.
        match names.len() {
            count @ 5.. => write!(f, "{} on {count} interfaces", self.places),
            _ => write!(f, "{} on {}", self.places, names.join(", ")),
        }
    }
}

impl Holder {
    /// Attaches the programs to the interfaces that are there.
    ///
    /// # Errors
    /// When the interfaces cannot be watched, or none of them takes the programs.
    pub(super) fn attached(
        ebpf: Ebpf,
        places: Places,
        wanted: super::settings::Interfaces,
        whole: Arc<AtomicBool>,
    ) -> Result<Self, SignalError> {
        let watch = Interfaces::new().map_err(SignalError::Interfaces)?;
        let (presence, is_alone) = presence();
        let presence = presence.filter(|_| !places.tcx);
        let mut holder = Self { ebpf, places, wanted, watch, whole, _presence: presence, held: BTreeMap::new() };
        if is_alone {
            holder.sweep().map_err(SignalError::Interfaces)?;
        }
        holder.reconcile().map_err(SignalError::Interfaces)?;
        let taken = holder.held.values().any(|held| held.links.is_some());
        match holder.held.values_mut().find_map(|held| held.trouble.take_if(|_| !taken)) {
            Some(trouble) => Err(trouble),
            None => Ok(holder),
        }
    }

    fn run(mut self, stop: &EventFd) {
        let mut gone = Vec::new();
        loop {
            let patience = self.held.values().any(|held| held.trouble.is_some()).then_some(RETRY);
            match self.watch.wait(stop.as_fd(), patience, &mut gone) {
                Ok(Woken::Stopped) => return,
                Ok(Woken::Changed | Woken::Late) => {}
                Err(error) => tracing::warn!(%error, "the network interfaces are not followed just now"),
            }
            gone.drain(..).for_each(|index| self.forget(index));
            if let Err(error) = self.reconcile() {
                self.whole.store(false, Ordering::Relaxed);
                tracing::warn!(%error, "the network interfaces cannot be listed");
                thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }

    /// Removes the filters that a process has left which was killed.
    fn sweep(&mut self) -> io::Result<()> {
        for Interface { name, .. } in self.watch.list()? {
            for (kind, program) in [(TcAttachType::Ingress, INGRESS), (TcAttachType::Egress, EGRESS)] {
                // As a rule there is none.
                let _ = tc::qdisc_detach_program(&name, kind, program);
            }
        }
        Ok(())
    }

    /// Gives the programs to the interfaces that should have them and do not, and forgets those that are gone.
    fn reconcile(&mut self) -> io::Result<()> {
        let found = self.watch.list()?;
        let is_wanted = |interface: &Interface| self.wanted.wants(&interface.name, interface.is_port);
        // By one that is not to have them requests may leave as well.
        let mut whole = found.iter().all(|interface| interface.is_port || is_wanted(interface));
        let found: Vec<Interface> = found.into_iter().filter(is_wanted).collect();
        let gone: Vec<u32> =
            self.held.keys().copied().filter(|index| found.iter().all(|interface| interface.index != *index)).collect();
        for index in gone {
            self.forget(index);
        }
        for interface in found {
            if self.held.get(&interface.index).is_some_and(|held| held.links.is_some()) {
                continue;
            }
            match self.attach(&interface) {
                Ok(links) => {
                    tracing::debug!(interface = interface.name, "eBPF programs attached");
                    let held = Held { name: interface.name, links: Some(links), trouble: None };
                    self.held.insert(interface.index, held);
                }
                Err(error) => {
                    whole = false;
                    self.note(&interface, SignalError::of(&error));
                }
            }
        }
        self.whole.store(whole, Ordering::Relaxed);
        Ok(())
    }

    /// Says once why an interface has none.
    fn note(&mut self, interface: &Interface, trouble: SignalError) {
        let known = self.held.get(&interface.index).and_then(|held| held.trouble.as_ref());
        if known.map(ToString::to_string) != Some(trouble.to_string()) {
            tracing::warn!(
                interface = interface.name,
                %trouble,
                "no eBPF programs at this interface; sockets do the work"
            );
        }
        let held = Held { name: interface.name.clone(), links: None, trouble: Some(trouble) };
        self.held.insert(interface.index, held);
    }

    fn attach(&mut self, interface: &Interface) -> Result<Links, ProgramError> {
        let name = &*interface.name;
        if !self.places.tcx {
            match tc::qdisc_add_clsact(name) {
                Err(TcError::AlreadyAttached) | Ok(()) => {}
                // It is there already as a rule; attaching will tell.
                Err(error) => tracing::trace!(%error, interface = name, "no clsact added"),
            }
        }
        let egress = self.attach_classifier(name, EGRESS, TcAttachType::Egress)?;
        match self.attach_ingress(interface) {
            Ok(ingress) => Ok(Links { egress, ingress }),
            Err(error) => {
                // Half of it would stamp what nobody takes.
                if let Some(program) = classifier(&mut self.ebpf, EGRESS) {
                    let _ = program.detach(egress);
                }
                Err(error)
            }
        }
    }

    /// At the hook that is wanted, as far as the interface has one: XDP sees an Ethernet header or nothing, and has room for
    /// one program. The way in that the other interfaces have is as good.
    fn attach_ingress(&mut self, interface: &Interface) -> Result<Ingress, ProgramError> {
        if self.places.xdp && interface.is_framed {
            let program = xdp(&mut self.ebpf).ok_or(ProgramError::NotLoaded)?;
            match program.attach(&interface.name, XdpMode::default()) {
                Ok(link) => return Ok(Ingress::Xdp(link)),
                Err(error) => {
                    let reason = SignalError::of(&error);
                    tracing::info!(interface = interface.name, %reason, "no XDP at this interface");
                }
            }
        }
        self.attach_classifier(&interface.name, INGRESS, TcAttachType::Ingress).map(Ingress::Traffic)
    }

    fn attach_classifier(
        &mut self,
        interface: &str,
        program: &str,
        kind: TcAttachType,
    ) -> Result<SchedClassifierLinkId, ProgramError> {
        let is_tcx = self.places.tcx;
        let program = classifier(&mut self.ebpf, program).ok_or(ProgramError::NotLoaded)?;
        if is_tcx {
            return program.attach_with_options(interface, kind, TcAttachOptions::TcxOrder(LinkOrder::first()));
        }
        // Left to itself the kernel puts a filter behind all others, whose word may be the last. A priority is for filters
        // of one kind: where somebody has another kind at the first, we stand behind.
        let first = TcAttachOptions::Netlink(NlOptions { priority: FIRST, ..NlOptions::default() });
        let behind = || TcAttachOptions::Netlink(NlOptions::default());
        program
            .attach_with_options(interface, kind, first)
            .or_else(|_| program.attach_with_options(interface, kind, behind()))
    }

    fn forget(&mut self, index: u32) {
        if let Some(Held { links: Some(links), .. }) = self.held.remove(&index) {
            self.detach(links);
        }
    }

    /// The interface may be gone, and the links with it.
    fn detach(&mut self, links: Links) {
        if let Some(program) = classifier(&mut self.ebpf, EGRESS) {
            let _ = program.detach(links.egress);
        }
        match links.ingress {
            Ingress::Traffic(link) => {
                if let Some(program) = classifier(&mut self.ebpf, INGRESS) {
                    let _ = program.detach(link);
                }
            }
            Ingress::Xdp(link) => {
                if let Some(program) = xdp(&mut self.ebpf) {
                    let _ = program.detach(link);
                }
            }
        }
    }
}

/// A name that is ours while we live, and whether nobody else has one. A filter does not tell whether its owner lives, and a
/// file would outlast a process; an abstract socket ends with it, and belongs to the network namespace as filters do.
fn presence() -> (Option<UnixDatagram>, bool) {
    let sockets = (0..PRESENT_MAX).map(|number| {
        let address = SocketAddr::from_abstract_name(format!("cpra-clsact-{number}"))?;
        UnixDatagram::bind_addr(&address)
    });
    let (mut presence, mut is_alone) = (None, true);
    for socket in sockets {
        match socket {
            Ok(socket) => presence = presence.or(Some(socket)),
            Err(_) => is_alone = false,
        }
    }
    (presence, is_alone)
}
