//! The driver of one shard: thread `cpra-shard-N`, its ring, its clock and its queues.
//!
//! One turn: read the clock, drain what has completed, let the shard step, carry out its effects, sleep in the ring
//! until something completes, a queue rings, or the shard's next deadline. The clock is read *before* the drain, and
//! when a deadline has passed the kernel is asked once more for completions first: a timeout must not be judged while
//! the answer lies in the kernel already.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::clock::Clock;
use super::host::HostCounters;
use super::resolve::{Order, Return};
use super::uring::UringRing;
use super::wait::WaitPolicy;
use super::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender};
use crate::probe::errand::{Echo, Errand, ErrandEnd};
use crate::ring::{Errno, Ring as _, Wait};
use crate::shard::protocol::{Command, MonitorState, Resolution, Transition};
use crate::shard::{Effect, Effects, Event, Shard, ShardStats};
use crate::units::limits::TRANSITIONS_BACKLOG_MAX;
use crate::units::{Instant, Span};

/// How often counters are copied out.
const PUBLISH_EVERY: Span = Span::from_millis(100);

/// What the rest of the daemon may read of a shard at any time.
#[derive(Debug, Default)]
pub struct ShardBoard {
    /// Counters, at most [`PUBLISH_EVERY`] and one sleep old.
    pub stats: Mutex<ShardStats>,
    /// When the loop last turned, in nanoseconds of the monotonic clock.
    pub turned: AtomicU64,
    /// Set from outside: start no more checks.
    pub drain: AtomicBool,
    /// Set by the loop once drained.
    pub drained: AtomicBool,
    /// Set from outside: return.
    pub stop: AtomicBool,
}

/// Where an answer goes.
pub type Reply = Box<dyn FnOnce(Vec<MonitorState>) + Send>;

/// A question of the API.
pub struct Ask {
    pub indices: Vec<u32>,
    pub reply: Reply,
}

/// A shard's ends of its queues.
pub struct Mailbox {
    pub commands: Receiver<Command>,
    pub asks: Receiver<Ask>,
    pub resolutions: Receiver<(Box<str>, Resolution)>,
    pub names: Sender<Box<str>>,
    /// Questions of dns checks.
    pub orders: Sender<Order>,
    pub returns: Receiver<Return>,
    pub transitions: Sender<Box<Transition>>,
}

impl Mailbox {
    fn is_quiet(&self) -> bool {
        self.commands.is_empty() && self.asks.is_empty() && self.resolutions.is_empty() && self.returns.is_empty()
    }
}

pub struct ShardLoop {
    shard: Shard,
    ring: UringRing,
    clock: Clock,
    host: HostCounters,
    mailbox: Mailbox,
    bell: Bell,
    board: Arc<ShardBoard>,
    wait: WaitPolicy,
    /// Judged, and not yet taken by the desk.
    backlog: VecDeque<Box<Transition>>,
    desk_full: bool,
    /// Names for which the resolver had no room.
    unasked: VecDeque<Box<str>>,
    replies: VecDeque<(u64, Reply)>,
    next_token: u64,
    next_publish: Instant,
    drain_told: bool,
}

impl ShardLoop {
    /// `door` is that of the mailbox's bell.
    ///
    /// # Errors
    /// If the door cannot be watched.
    pub fn new(
        shard: Shard,
        mut ring: UringRing,
        mailbox: Mailbox,
        door: &WakeFd,
        bell: Bell,
        board: Arc<ShardBoard>,
    ) -> io::Result<Self> {
        ring.watch(door.fd())?;
        let now = Clock.now();
        // The API may be asked before the first turn has ended.
        board.turned.store(now.as_nanos(), Ordering::Relaxed);
        Ok(Self {
            shard,
            ring,
            clock: Clock,
            host: HostCounters::new(Path::new("/proc")),
            mailbox,
            bell,
            board,
            wait: WaitPolicy::new(now),
            backlog: VecDeque::new(),
            desk_full: false,
            unasked: VecDeque::new(),
            replies: VecDeque::new(),
            next_token: 0,
            next_publish: now,
            drain_told: false,
        })
    }

    /// Turns until it is told to stop.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn run(mut self) -> io::Result<()> {
        let mut effects = Effects::default();
        let mut spare: Vec<Event<'static>> = Vec::new();
        // The answers to effects of the last turn.
        let mut answers: Vec<Event<'static>> = Vec::new();
        while !self.board.stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            if self.shard.expires_by(now) {
                self.ring.enter(Wait::NONE)?;
            }
            let mut events = lend(mem::take(&mut spare));
            let mut completions = 0;
            self.ring.reap(&mut |completion| {
                completions += 1;
                events.push(Event::Completed(completion));
            });
            events.append(&mut lend(mem::take(&mut answers)));
            Self::read_mail(&mut self.mailbox, &mut self.replies, &mut self.next_token, &mut events);
            let full = self.backlog.len() >= TRANSITIONS_BACKLOG_MAX;
            if mem::replace(&mut self.desk_full, full) != full {
                events.push(Event::DeskFull(full));
            }
            if !self.drain_told && self.board.drain.load(Ordering::Relaxed) {
                self.drain_told = true;
                events.push(Event::Drain);
            }
            self.shard.step(now, &events, &mut effects);
            spare = recycle(events);
            self.carry_out(&mut effects, &mut answers);
            self.wait.observe(now, completions);
            self.publish(now);
            self.sleep(!answers.is_empty())?;
        }
        Ok(())
    }

    fn read_mail<'a>(
        mailbox: &mut Mailbox,
        replies: &mut VecDeque<(u64, Reply)>,
        next_token: &mut u64,
        events: &mut Vec<Event<'a>>,
    ) {
        while let Some(command) = mailbox.commands.recv() {
            events.push(Event::Command(command));
        }
        while let Some((name, result)) = mailbox.resolutions.recv() {
            events.push(Event::Resolved { name, result });
        }
        while let Some(Return { slot, generation, end }) = mailbox.returns.recv() {
            events.push(Event::Returned { slot, generation, end });
        }
        // One question a turn: each is a bounded slice, and the checks come first.
        if let Some(ask) = mailbox.asks.recv() {
            *next_token += 1;
            replies.push_back((*next_token, ask.reply));
            events.push(Event::Read { token: *next_token, indices: ask.indices });
        }
    }

    fn carry_out(&mut self, effects: &mut Effects, answers: &mut Vec<Event<'static>>) {
        let Effects { list, bytes } = effects;
        for effect in list.drain(..) {
            match effect {
                Effect::Open { slot, family } => {
                    if let Err(errno) = self.ring.open(slot, family) {
                        answers.push(Event::OpenFailed { slot, errno });
                    }
                }
                Effect::Close { slot } => self.ring.close(slot),
                Effect::Submit { slot, generation, op, bytes: range } => {
                    self.ring.submit(slot, generation, &op, &bytes[range.start as usize..range.end as usize]);
                }
                Effect::Errand { slot, generation, errand: Errand::Dns { policy, server, name } } => {
                    let order = Order::Ask { slot, generation, policy, server, name };
                    if self.mailbox.orders.send(order).is_err() {
                        let end = Box::new(ErrandEnd::Refused(Errno::EAGAIN));
                        answers.push(Event::Returned { slot, generation, end });
                    }
                }
                Effect::Errand { slot, generation, errand: Errand::Script(_) } => {
                    let end = Box::new(ErrandEnd::Refused(Errno::EINVAL));
                    answers.push(Event::Returned { slot, generation, end });
                }
                Effect::Recall { slot, generation } => {
                    // Without room it ends by its own time a little later.
                    let _ = self.mailbox.orders.send(Order::Recall { slot, generation });
                }
                Effect::Ping { slot, generation, sequence, .. } => {
                    answers.push(Event::Echoed { slot, generation, sequence, echo: Echo::Unsent(Errno::EINVAL) });
                }
                Effect::Resolve { name } => self.unasked.push_back(name),
                Effect::SampleHost => answers.push(Event::HostSampled(self.host.sample(self.clock.now()))),
                Effect::Transition(transition) => self.backlog.push_back(transition),
                Effect::Report { token, states } => {
                    if let Some(position) = self.replies.iter().position(|(asked, _)| *asked == token)
                        && let Some((_, reply)) = self.replies.remove(position)
                    {
                        reply(states);
                    }
                }
            }
        }
        bytes.clear();
        self.mailbox.transitions.send_all(&mut self.backlog);
        self.mailbox.names.send_all(&mut self.unasked);
    }

    fn publish(&mut self, now: Instant) {
        self.board.turned.store(now.as_nanos(), Ordering::Relaxed);
        if self.drain_told {
            let drained = self.shard.is_drained() && self.backlog.is_empty();
            self.board.drained.store(drained, Ordering::Release);
        }
        if now < self.next_publish {
            return;
        }
        self.next_publish = now + PUBLISH_EVERY;
        if let Ok(mut stats) = self.board.stats.lock() {
            stats.clone_from(self.shard.stats());
        }
    }

    fn sleep(&mut self, answered: bool) -> io::Result<()> {
        if answered {
            return self.ring.enter(Wait::NONE);
        }
        let now = self.clock.now();
        let deadline = self.shard.next_deadline();
        // A full queue has no bell for the sender: look again soon. Also when the backlog has just gone: the shard has
        // yet to hear of it, and starts no check before.
        let blocked = !self.backlog.is_empty() || !self.unasked.is_empty() || self.desk_full;
        let soon = blocked.then(|| now + Span::from_millis(2));
        let deadline = [deadline, soon].into_iter().flatten().min();
        let wait = self.wait.wait(now, self.ring.in_flight(), deadline);
        self.bell.declare_sleep();
        let stop =
            self.board.stop.load(Ordering::Relaxed) || (self.board.drain.load(Ordering::Relaxed) && !self.drain_told);
        let wait = if self.mailbox.is_quiet() && !stop { wait } else { Wait::NONE };
        let entered = self.ring.enter(wait);
        self.bell.declare_awake();
        // Only its having ended the sleep matters.
        let _ = self.ring.take_woken();
        entered
    }
}

/// An empty vector for events of any lifetime, with the memory of one for another: no allocation per turn.
fn recycle<'a>(mut events: Vec<Event<'_>>) -> Vec<Event<'a>> {
    events.clear();
    events.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

/// Events that lend nothing may stand beside those that do.
fn lend<'a>(events: Vec<Event<'static>>) -> Vec<Event<'a>> {
    events
}
