//! Single checks without a daemon: the same shard, loop, ring, resolver and scripts' thread as in one, and nobody who is told.
//!
//! Its monitors are all disabled; a check enables one, asks for it at once, takes the outcome as the transition that the
//! first outcome of a monitor always is, and disables it again. Somebody looks on, so that a person sees more than a
//! verdict: which address was tried, what came back. What is encrypted is not seen.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use super::clock::Clock;
use super::resolve;
use super::shard_loop::{Mailbox, ShardBoard, ShardLoop, Sight};
use super::spawn;
use super::uring::{Options, UringRing};
use super::wake::WakeFd;
use crate::domain::{Code, Outcome, VoidReason};
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::queueing::Setup;
use crate::shard::protocol::{Command, CommandKind, Resolution, Transition};
use crate::shard::{Settings, Shard};
use crate::units::limits::{DRAIN_CHECKS, RESOLVE_MAX, RETRY_PAUSE, SOLO_RECEIVED_MAX, SOLO_SLOTS};
use crate::units::{MonitorId, Span};
use crate::wire::tls::Contexts;
use crate::world::Catalog;

/// Commands, questions and transitions that wait: more than one check ever has.
const QUEUE: usize = 64;

/// What was seen of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The name that was asked for, and what is known of it.
    pub resolved: Option<Resolved>,
    /// Addresses that were connected to, in order.
    pub tried: Vec<SocketAddr>,
    /// The first bytes that came back on the last of them.
    pub received: Vec<u8>,
}

/// A name, and its addresses, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub name: Box<str>,
    pub addresses: Result<Vec<IpAddr>, Box<str>>,
}

impl Seen {
    fn take(&mut self, sight: &Sight<'_>) {
        match sight {
            Sight::Resolved { name, result } => {
                let addresses = match result {
                    Resolution::Found { addresses, .. } => Ok(addresses.clone()),
                    Resolution::NotFound => Err("no such name".into()),
                    Resolution::Failed(why) => Err(why.clone()),
                };
                self.resolved = Some(Resolved { name: (*name).into(), addresses });
            }
            Sight::Connecting(address) => {
                if self.tried.len() < QUEUE {
                    self.tried.push(*address);
                }
                // Of several connections the last one's answer is the one that was judged.
                self.received.clear();
            }
            Sight::Received(bytes) => {
                let room = SOLO_RECEIVED_MAX - self.received.len();
                self.received.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
    }
}

/// A shard on a thread of its own.
pub struct Solo {
    catalog: Arc<Catalog>,
    commands: Sender<Command>,
    transitions: Receiver<Box<Transition>>,
    door: WakeFd,
    bell: Bell,
    shard_bell: Bell,
    board: Arc<ShardBoard>,
    seen: Arc<Mutex<Seen>>,
    epoch: u8,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Solo {
    /// For the monitors of `catalog`, which has one shard and has them all disabled.
    ///
    /// # Errors
    /// When a thread, a descriptor or the ring cannot be had.
    pub fn start(
        catalog: Arc<Catalog>,
        contexts: Arc<dyn Contexts>,
        resolver_settings: resolve::Settings,
        script_settings: spawn::Settings,
    ) -> io::Result<Self> {
        let (door, shard_door) = (WakeFd::new()?, WakeFd::new()?);
        let (bell, shard_bell) = (door.bell(), shard_door.bell());
        let mut resolving = resolve::spawn(resolver_settings, QUEUE, vec![shard_bell.clone()])?;
        let resolver = resolving.resolvers.pop().ok_or_else(|| io::Error::other("one bell gives one resolver"))?;
        let (mut scripts, _) = spawn::spawn(script_settings, QUEUE, vec![shard_bell.clone()])?;
        let scripts = scripts.pop().ok_or_else(|| io::Error::other("one bell gives one end of the queues"))?;
        let (commands, command_receiver) = bounded(QUEUE, shard_bell.clone());
        // Nobody asks and nobody calls.
        let (_, ask_receiver) = bounded(1, shard_bell.clone());
        let (_, call_receiver) = bounded(1, shard_bell.clone());
        let (_, reload_receiver) = bounded(1, shard_bell.clone());
        let (_, exchange_receiver) = bounded(1, shard_bell.clone());
        let (transition_sender, transitions) = bounded(QUEUE, bell.clone());
        let mailbox = Mailbox {
            commands: command_receiver,
            asks: ask_receiver,
            exchanges: exchange_receiver,
            calls: call_receiver,
            reloads: reload_receiver,
            resolutions: resolver.answers,
            names: resolver.requests,
            scripts,
            questions: resolver.orders,
            returns: resolver.returns,
            transitions: transition_sender,
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let board = Arc::new(ShardBoard::default());
        let onlooker = Arc::clone(&seen);
        let (own_catalog, own_board, own_bell) = (Arc::clone(&catalog), Arc::clone(&board), shard_bell.clone());
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name("cpra-shard-0".into()).spawn(move || {
            let begin = || -> io::Result<ShardLoop> {
                let options = Options { unit_slots: SOLO_SLOTS, ..Options::default() };
                let ring = UringRing::new(options).map_err(io::Error::other)?;
                let settings = Settings { shard: 0, sizing: Setup::fixed(SOLO_SLOTS), seed: Clock.now().as_nanos() };
                let shard = Shard::new(&settings, Arc::clone(&own_catalog), Clock.now()).secured_by(contexts);
                let mut driver = ShardLoop::new(shard, ring, mailbox, &shard_door, own_bell, own_board)?;
                driver.open_pinger(&own_catalog)?;
                Ok(driver)
            };
            match begin() {
                Ok(driver) => {
                    let _ = ready.send(Ok(()));
                    let look = move |sight: Sight<'_>| {
                        if let Ok(mut seen) = onlooker.lock() {
                            seen.take(&sight);
                        }
                    };
                    driver.watched_by(Box::new(look)).run()
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            }
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the shard ended while it started")))?;
        Ok(Self { catalog, commands, transitions, door, bell, shard_bell, board, seen, epoch: 0, thread: Some(thread) })
    }

    /// Checks a monitor now. Every check ends: what has no outcome within all its bounds is void.
    pub fn check(&mut self, monitor: MonitorId) -> (Outcome, Seen) {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Seen::default();
        }
        let epoch = self.next_epoch();
        self.tell(monitor, CommandKind::Enable { epoch });
        self.tell(monitor, CommandKind::CheckNow);
        let outcome = self.outcome(monitor, epoch);
        let epoch = self.next_epoch();
        self.tell(monitor, CommandKind::Disable { epoch });
        let seen = self.seen.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default();
        (outcome, seen)
    }

    /// Never 0, which is that of a monitor that nobody has switched.
    fn next_epoch(&mut self) -> u8 {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.epoch
    }

    fn tell(&mut self, monitor: MonitorId, kind: CommandKind) {
        // The queue has room for the few words of one check; a shard that has died will not answer either.
        let _ = self.commands.send(Command { monitor, kind });
    }

    fn outcome(&mut self, monitor: MonitorId, epoch: u8) -> Outcome {
        let policy = self.catalog.policy(monitor);
        let attempts = u64::from(policy.retries) + 1;
        let attempt = (policy.timeout + RETRY_PAUSE).as_nanos();
        let bound = RESOLVE_MAX + Span::from_nanos(attempt.saturating_mul(attempts)) + DRAIN_CHECKS;
        let until = Clock.now() + bound;
        loop {
            while let Some(transition) = self.transitions.recv() {
                if transition.monitor == monitor && transition.epoch == epoch {
                    return transition.outcome;
                }
            }
            let left = until.since(Clock.now());
            if left == Span::ZERO || self.transitions.is_closed() {
                let evidence = format!("no outcome within {bound}: this is a defect of cpra");
                return Outcome::of(Code::Void(VoidReason::Internal)).with_evidence(&evidence);
            }
            let (transitions, door) = (&self.transitions, &self.door);
            self.bell.sleep(
                || transitions.is_empty() && !transitions.is_closed(),
                || {
                    door.wait(Some(left));
                },
            );
        }
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Release);
        self.shard_bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
