//! The driver of one shard: thread `cpra-shard-N`, its ring, its clock and its queues.
//!
//! One turn: read the clock, drain what has completed, let the shard step, carry out its effects, sleep in the ring
//! until something completes, a queue rings, or the shard's next deadline. The clock is read *before* the drain, and
//! when a deadline has passed the kernel is asked once more for completions first: a timeout must not be judged while
//! the answer lies in the kernel already.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::clock::Clock;
use super::ebpf::{Kind, ShardSignals};
use super::host::HostCounters;
use super::ping::{Means, Ping, Pinger};
use super::resolve;
use super::spawn::{self, News, Scripts, Want};
use super::syn::{Knock, Knocker};
use super::uring::UringRing;
use super::wait::WaitPolicy;
use super::wake::WakeFd;
use crate::domain::Check;
use crate::pipeline::{Bell, Receiver, Sender};
use crate::probe::errand::{Echo, Errand, ErrandEnd};
use crate::queueing::recording::Recording;
use crate::ring::{Errno, Op, Ring as _, Wait};
use crate::shard::protocol::{Command, CommandKind, MonitorState, Reload, Resolution, SynStats, Transition};
use crate::shard::{Effect, Effects, Event, Shard, ShardStats};
use crate::units::limits::{CALLS_PER_TURN_MAX, TRANSITIONS_BACKLOG_MAX};
use crate::units::{Instant, MonitorId, Span};
use crate::world::Catalog;

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
    /// The catalog by which all of the shard's monitors go by now, and all that went by older ones has been handed over.
    pub generation: AtomicU64,
    /// What the last checks took: there once the loop has returned.
    pub last_recording: Mutex<Option<Recording>>,
}

/// Where an answer goes.
pub type Reply = Box<dyn FnOnce(Vec<MonitorState>) + Send>;

/// A question of the API.
pub struct Ask {
    pub indices: Vec<u32>,
    pub reply: Reply,
}

/// Give me what the checks took since the last time; go on with this empty one.
pub struct Exchange {
    pub empty: Recording,
    pub reply: Box<dyn FnOnce(Recording) + Send>,
}

/// What comes from outside for one monitor, and is not answered.
#[derive(Debug)]
pub enum Call {
    /// The job of a monitor that waits for its calls.
    Pushed { index: u32, ok: bool, message: Box<str> },
    /// A person: check now.
    CheckNow(MonitorId),
}

/// What passes by between a shard and the network, for somebody who looks on.
#[derive(Debug)]
pub enum Sight<'a> {
    Resolved { name: &'a str, result: &'a Resolution },
    Connecting(SocketAddr),
    Received(&'a [u8]),
}

/// Somebody who looks on.
pub type Onlooker = Box<dyn FnMut(Sight<'_>) + Send>;

/// A shard's ends of its queues.
pub struct Mailbox {
    pub commands: Receiver<Command>,
    pub asks: Receiver<Ask>,
    pub exchanges: Receiver<Exchange>,
    pub calls: Receiver<Call>,
    pub reloads: Receiver<Reload>,
    pub resolutions: Receiver<(Box<str>, Resolution)>,
    pub names: Sender<Box<str>>,
    pub scripts: Scripts,
    /// Of dns checks.
    pub questions: Sender<resolve::Order>,
    pub returns: Receiver<resolve::Return>,
    pub transitions: Sender<Box<Transition>>,
}

impl Mailbox {
    fn is_quiet(&self, desk_full: bool) -> bool {
        let calls = desk_full || self.calls.is_empty();
        calls
            && self.commands.is_empty()
            && self.asks.is_empty()
            && self.exchanges.is_empty()
            && self.reloads.is_empty()
            && self.resolutions.is_empty()
            && self.scripts.news.is_empty()
            && self.returns.is_empty()
    }
}

pub struct ShardLoop {
    shard: Shard,
    ring: UringRing,
    clock: Clock,
    host: HostCounters,
    pinger: Pinger,
    pinger_opened: bool,
    /// What programs in the kernel see.
    signals: Option<ShardSignals>,
    /// Where there are half-open checks.
    knocker: Option<Knocker>,
    /// Whether those can be had, as the shard has heard.
    half_open: bool,
    /// How often echoes come.
    echo_wait: WaitPolicy,
    mailbox: Mailbox,
    bell: Bell,
    board: Arc<ShardBoard>,
    wait: WaitPolicy,
    /// Judged, and not yet taken by the desk.
    backlog: VecDeque<Box<Transition>>,
    desk_full: bool,
    /// Names for which the resolver had no room.
    unasked: VecDeque<Box<str>>,
    /// For scripts, for which their thread had no room.
    unordered: VecDeque<spawn::Order>,
    replies: VecDeque<(u64, Reply)>,
    next_token: u64,
    next_publish: Instant,
    drain_told: bool,
    /// Nobody, in the daemon.
    onlooker: Option<Onlooker>,
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
            pinger: Pinger::new()?,
            pinger_opened: false,
            signals: None,
            knocker: None,
            half_open: false,
            echo_wait: WaitPolicy::new(now),
            mailbox,
            bell,
            board,
            wait: WaitPolicy::new(now),
            backlog: VecDeque::new(),
            desk_full: false,
            unasked: VecDeque::new(),
            unordered: VecDeque::new(),
            replies: VecDeque::new(),
            next_token: 0,
            next_publish: now,
            drain_told: false,
            onlooker: None,
        })
    }

    #[must_use]
    pub fn watched_by(mut self, onlooker: Onlooker) -> Self {
        self.onlooker = Some(onlooker);
        self
    }

    /// Lets programs in the kernel tell of answers. Before [`Self::open_pinger`].
    ///
    /// # Errors
    /// If their ring cannot be watched.
    pub fn signalled(mut self, mut signals: Option<ShardSignals>) -> io::Result<Self> {
        if let Some(signals) = &mut signals {
            self.ring.time_connects(signals.connects());
            self.ring.watch_socket(signals.ring())?;
            self.pinger.tag(signals.tag());
        }
        self.signals = signals;
        Ok(self)
    }

    /// Makes the sockets for echo requests, where the catalog has checks that send some, and answers by what means those
    /// leave by IPv4 and by IPv6. A check for which there are none says so each time.
    ///
    /// # Errors
    /// If a socket cannot be watched.
    pub fn open_pinger(&mut self, catalog: &Catalog) -> io::Result<Option<[Means; 2]>> {
        if self.pinger_opened || !catalog.policies().iter().any(|policy| matches!(policy.check, Check::Icmp(_))) {
            return Ok(None);
        }
        self.pinger_opened = true;
        let means = self.pinger.open();
        self.pinger.sockets().try_for_each(|socket| self.ring.watch_socket(socket))?;
        Ok(Some(means))
    }

    /// Makes the sockets for SYNs, where the catalog has half-open checks and there is somebody who sees the answers.
    /// Without them such checks connect.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn open_knocker(&mut self, catalog: &Catalog) -> io::Result<()> {
        if self.knocker.is_none()
            && self.signals.is_some()
            && catalog.policies().iter().any(|policy| policy.check.is_half_open())
        {
            self.knocker = Some(Knocker::open()?);
        }
        Ok(())
    }

    /// Sockets that a new catalog needs, and the old one did not. What takes powers that were given up at the start cannot be
    /// had any more; checks that need it say so, as they do where it never could be had.
    fn prepare_for(&mut self, catalog: &Catalog) {
        let opened = self.open_knocker(catalog).and_then(|()| self.open_pinger(catalog));
        match opened {
            Ok(None) => {}
            Ok(Some([v4, v6])) => tracing::info!(ipv4 = %v4, ipv6 = %v6, "how echo requests leave"),
            Err(error) => tracing::warn!(%error, "sockets of new checks cannot be had: restart the daemon"),
        }
    }

    /// Whether half-open checks can be had now, if that has changed.
    fn half_open_changed(&mut self) -> Option<bool> {
        let (knocker, signals) = (self.knocker.as_ref()?, self.signals.as_ref()?);
        let can = knocker.can_knock(signals);
        if mem::replace(&mut self.half_open, can) == can {
            return None;
        }
        if can {
            tracing::info!("half-open checks send SYNs");
        } else {
            tracing::warn!("half-open checks make connections: an interface has no eBPF programs");
        }
        Some(can)
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
            // What echo requests came to is there before a deadline is judged, as completions are.
            if let Some(signals) = &mut self.signals {
                signals.hear(&mut answers);
            }
            // After what was seen so far: that is as good as ever.
            let half_open = self.half_open_changed();
            let reload = self.mailbox.reloads.recv();
            if let Some(reload) = &reload {
                self.prepare_for(&reload.catalog);
            }
            self.pinger.receive(&mut answers);
            // Some came while the last ones were sent. What else is among the answers is rare.
            self.echo_wait.observe(now, answers.len());
            let mut events = lend(mem::take(&mut spare));
            let mut completions = 0;
            self.ring.reap(&mut |completion| {
                completions += 1;
                if let Some(onlooker) = &mut self.onlooker
                    && !completion.data.is_empty()
                {
                    onlooker(Sight::Received(completion.data));
                }
                events.push(Event::Completed(completion));
            });
            events.append(&mut lend(mem::take(&mut answers)));
            let full = self.backlog.len() >= TRANSITIONS_BACKLOG_MAX;
            Self::read_mail(&mut self.mailbox, &mut self.replies, &mut self.next_token, full, &mut events);
            // After the desk's commands: those are about monitors as they were.
            events.extend(reload.map(Event::Reloaded));
            if let Some(onlooker) = &mut self.onlooker {
                for event in &events {
                    if let Event::Resolved { name, result } = event {
                        onlooker(Sight::Resolved { name, result });
                    }
                }
            }
            events.extend(half_open.map(Event::HalfOpen));
            if mem::replace(&mut self.desk_full, full) != full {
                events.push(Event::DeskFull(full));
            }
            if !self.drain_told && self.board.drain.load(Ordering::Relaxed) {
                self.drain_told = true;
                events.push(Event::Drain);
            }
            self.shard.step(now, &events, &mut effects);
            spare = recycle(events);
            while let Some(Exchange { empty, reply }) = self.mailbox.exchanges.recv() {
                reply(self.shard.exchange_recording(empty));
            }
            self.carry_out(&mut effects, &mut answers);
            self.wait.observe(now, completions);
            self.publish(now);
            self.sleep(!answers.is_empty())?;
        }
        if let Ok(mut last) = self.board.last_recording.lock() {
            *last = Some(self.shard.exchange_recording(Shard::empty_recording()));
        }
        Ok(())
    }

    fn read_mail<'a>(
        mailbox: &mut Mailbox,
        replies: &mut VecDeque<(u64, Reply)>,
        next_token: &mut u64,
        desk_full: bool,
        events: &mut Vec<Event<'a>>,
    ) {
        while let Some(command) = mailbox.commands.recv() {
            events.push(Event::Command(command));
        }
        while let Some((name, result)) = mailbox.resolutions.recv() {
            events.push(Event::Resolved { name, result });
        }
        while let Some(news) = mailbox.scripts.news.recv() {
            events.push(match news {
                News::Begun { slot, generation, at } => Event::Begun { slot, generation, at },
                News::Returned { slot, generation, end } => Event::Returned { slot, generation, end },
            });
        }
        while let Some(resolve::Return { slot, generation, end }) = mailbox.returns.recv() {
            events.push(Event::Returned { slot, generation, end });
        }
        // Each call may be a transition: with a desk that is behind they wait in their queue, and its end refuses more.
        for _ in 0..if desk_full { 0 } else { CALLS_PER_TURN_MAX } {
            let Some(call) = mailbox.calls.recv() else { break };
            events.push(match call {
                Call::Pushed { index, ok, message } => Event::Pushed { index, ok, message },
                Call::CheckNow(monitor) => Event::Command(Command { monitor, kind: CommandKind::CheckNow }),
            });
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
                    if let (Some(onlooker), Op::Connect(address)) = (&mut self.onlooker, &op) {
                        onlooker(Sight::Connecting(*address));
                    }
                    self.ring.submit(slot, generation, &op, &bytes[range.start as usize..range.end as usize]);
                }
                Effect::Errand { slot, generation, errand: Errand::Script(policy) } => {
                    self.unordered.push_back(spawn::Order { slot, generation, want: Want::Run(policy) });
                }
                Effect::Errand { slot, generation, errand: Errand::Dns { policy, server, name } } => {
                    let order = resolve::Order::Ask { slot, generation, policy, server, name };
                    if self.mailbox.questions.send(order).is_ok() {
                        continue;
                    }
                    // Full: our own fault.
                    let end = Box::new(ErrandEnd::Refused(Errno::EAGAIN));
                    answers.push(Event::Returned { slot, generation, end });
                }
                Effect::Recall { slot, generation } => {
                    // Who has it brings it to an end, the other does not know it. A question for whose recall there is
                    // no room ends by its own time a little later.
                    self.unordered.push_back(spawn::Order { slot, generation, want: Want::Recall });
                    let _ = self.mailbox.questions.send(resolve::Order::Recall { slot, generation });
                }
                Effect::Ping { slot, generation, address, sequence } => {
                    self.pinger.push(Ping { slot, generation, address, sequence });
                }
                Effect::Syn { slot, generation, address, attempt } => match &mut self.knocker {
                    Some(knocker) => {
                        if let Some(onlooker) = &mut self.onlooker {
                            onlooker(Sight::Connecting(address));
                        }
                        knocker.push(Knock { slot, generation, address, attempt });
                    }
                    // It was never said that there are half-open checks: our own mistake.
                    None => {
                        let echo = Echo::NoSocket(Errno::EINVAL);
                        answers.push(Event::Echoed { slot, generation, sequence: attempt, echo });
                    }
                },
                Effect::Resolve { name } => self.unasked.push_back(name),
                Effect::SampleHost => {
                    let mut sample = self.host.sample(self.clock.now());
                    // Replies that our own sockets had no room for are lost by this host as well.
                    sample.drops += self.pinger.dropped();
                    answers.push(Event::HostSampled(sample));
                }
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
        self.pinger.send(&mut self.signals, answers);
        if let Some(signals) = &mut self.signals {
            if let Some(knocker) = &mut self.knocker {
                knocker.send(signals, answers);
            }
            // On the loopback the answers to the last of them are there.
            signals.hear(answers);
        }
        self.mailbox.transitions.send_all(&mut self.backlog);
        self.mailbox.names.send_all(&mut self.unasked);
        self.mailbox.scripts.orders.send_all(&mut self.unordered);
    }

    fn publish(&mut self, now: Instant) {
        self.board.turned.store(now.as_nanos(), Ordering::Relaxed);
        // Whoever waits for this may forget the old catalog: nothing that goes by it comes from here any more.
        if self.backlog.is_empty() {
            self.board.generation.store(self.shard.generation(), Ordering::Release);
        }
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
            stats.echoes = self.pinger.stats();
            if let Some(signals) = &self.signals {
                stats.echoes.signalled = signals.heard(Kind::Echo);
                stats.echoes.received += stats.echoes.signalled;
                (stats.echoes.strange, stats.echoes.overflowed) = signals.troubles();
                stats.syns = SynStats {
                    sent: self.knocker.as_ref().map_or(0, Knocker::sent),
                    answered: signals.heard(Kind::Syn),
                };
            }
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
        let unsent = !self.unasked.is_empty() || !self.unordered.is_empty();
        let blocked = !self.backlog.is_empty() || unsent || self.desk_full;
        let soon = blocked.then(|| now + Span::from_millis(2));
        let deadline = [deadline, soon].into_iter().flatten().min();
        let mut wait = self.wait.wait(now, self.ring.in_flight(), deadline);
        // Echoes in quick succession are fetched once in a while instead of one by one.
        let echoes = self.echo_wait.wait(now, usize::MAX, deadline);
        self.ring.heed_sockets(echoes.batch < 2);
        if let Some(signals) = &self.signals {
            signals.heed(echoes.batch < 2);
        }
        if echoes.batch > 1 {
            wait.bound = wait.bound.min(echoes.bound);
        }
        self.bell.declare_sleep();
        let stop =
            self.board.stop.load(Ordering::Relaxed) || (self.board.drain.load(Ordering::Relaxed) && !self.drain_told);
        let wait = if self.mailbox.is_quiet(self.desk_full) && !stop { wait } else { Wait::NONE };
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
