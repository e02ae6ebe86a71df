//! The driver of the desk: thread `cpra-desk`.
//!
//! It sleeps on one eventfd, which every queue towards it rings: transitions of the shards, acknowledgements of the
//! store, results of the code lane, questions of the API.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::clock::Clock;
use super::histograms::SharedRecording;
use super::story::Teller;
use super::wake::WakeFd;
use crate::desk::protocol::{Answer, Batch, Delivered, NoticeId, OutboxChange, Question, Selection};
use crate::desk::{Desk, DeskStats, Effect, Event};
use crate::domain::{Color, Destination, Notice};
use crate::pipeline::{Bell, Receiver, Sender};
use crate::queueing::recording::Measure;
use crate::shard::protocol::{Command, Transition};
use crate::units::limits::QUEUE_TRANSITIONS;
use crate::units::{Instant, MonitorId, Span};
use crate::world::{Catalog, Changes};

/// Transitions taken in one step: a mass outage must not keep acknowledgements waiting.
const TRANSITIONS_PER_STEP: usize = 4096;
/// How often the wall clock is compared with the monotonic one.
const WALL_EVERY: Span = Span::from_secs(1);

/// What the rest of the daemon may read of the desk at any time.
#[derive(Debug, Default)]
pub struct DeskBoard {
    pub stats: Mutex<DeskStats>,
    /// When the loop last turned, in nanoseconds of the monotonic clock.
    pub turned: AtomicU64,
    /// Since when the store has had something to commit and has committed nothing, by the same clock; 0 when all is durable.
    pub uncommitted_since: AtomicU64,
    /// Set from outside: the shards have ended, let everything out.
    pub drain: AtomicBool,
    pub drained: AtomicBool,
    pub stop: AtomicBool,
    /// The catalog that the desk goes by.
    pub generation: AtomicU64,
}

/// Where an answer goes.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// What the API asks of the desk.
pub enum Ask {
    Question {
        question: Question,
        reply: Reply,
    },
    Disable(MonitorId),
    Enable(MonitorId),
    /// `who` changes something in the outbox.
    Outbox {
        change: OutboxChange,
        selection: Selection,
        who: Box<str>,
        reply: Reply,
    },
    /// `who` wants to see whether notices arrive there.
    Test {
        destination: Arc<Destination>,
        color: Color,
        who: Box<str>,
        reply: Reply,
    },
}

/// Another catalog, which the shards have taken already: what they said by the old one lies in the queues.
#[derive(Debug)]
pub struct Reload {
    pub catalog: Arc<Catalog>,
    pub changes: Arc<Changes>,
    pub fallback: Arc<Destination>,
    pub who: Box<str>,
}

/// The desk's ends of its queues.
pub struct Mailbox {
    pub transitions: Vec<Receiver<Box<Transition>>>,
    pub commands: Vec<Sender<Command>>,
    pub commits: Sender<Batch>,
    pub durable: Receiver<u64>,
    pub notices: Sender<(NoticeId, Box<Notice>)>,
    pub delivered: Receiver<(NoticeId, Delivered)>,
    pub asks: Receiver<Ask>,
    pub reloads: Receiver<Reload>,
}

impl Mailbox {
    fn is_quiet(&self) -> bool {
        self.transitions.iter().all(Receiver::is_empty)
            && self.durable.is_empty()
            && self.delivered.is_empty()
            && self.asks.is_empty()
            && self.reloads.is_empty()
    }
}

pub struct DeskLoop {
    desk: Desk,
    clock: Clock,
    mailbox: Mailbox,
    door: WakeFd,
    bell: Bell,
    board: Arc<DeskBoard>,
    story: Teller,
    catalog: Arc<Catalog>,
    /// In the turn of a reload the one before, for the names of those who go with it.
    before: Arc<Catalog>,
    /// For receivers that had no room.
    commands: Vec<VecDeque<Command>>,
    commits: VecDeque<Batch>,
    notices: VecDeque<(NoticeId, Box<Notice>)>,
    replies: VecDeque<(u64, Reply)>,
    next_token: u64,
    /// The last commit that was asked for.
    last_commit: u64,
    next_wall: Instant,
    drain_told: bool,
    /// Where it is noted how long notices take; when those without a result were handed over, and their class.
    recording: Option<SharedRecording>,
    handed: BTreeMap<NoticeId, (Instant, usize)>,
}

impl DeskLoop {
    pub fn new(
        desk: Desk,
        mailbox: Mailbox,
        door: WakeFd,
        bell: Bell,
        board: Arc<DeskBoard>,
        story: Teller,
        catalog: Arc<Catalog>,
    ) -> Self {
        let shards = mailbox.commands.len();
        // The API may be asked before the first turn.
        board.turned.store(Clock.now().as_nanos(), Ordering::Relaxed);
        Self {
            desk,
            clock: Clock,
            mailbox,
            door,
            bell,
            board,
            story,
            before: Arc::clone(&catalog),
            catalog,
            commands: (0..shards).map(|_| VecDeque::new()).collect(),
            commits: VecDeque::new(),
            notices: VecDeque::new(),
            replies: VecDeque::new(),
            next_token: 0,
            last_commit: 0,
            next_wall: Instant::ZERO,
            drain_told: false,
            recording: None,
            handed: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn recorded_by(mut self, recording: SharedRecording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Turns until it is told to stop.
    pub fn run(mut self) {
        let mut effects = Vec::new();
        while !self.board.stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.board.turned.store(now.as_nanos(), Ordering::Relaxed);
            let events = self.read_mail(now);
            self.desk.step(now, events, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(effect, now);
            }
            if !Arc::ptr_eq(&self.before, &self.catalog) {
                self.before = Arc::clone(&self.catalog);
            }
            self.story.tick(now);
            self.send_out();
            self.publish();
            self.sleep();
        }
        self.story.finish(self.clock.now());
    }

    fn read_mail(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if now >= self.next_wall {
            self.next_wall = now + WALL_EVERY;
            events.push(Event::Wall { at: now, shows: self.clock.wall() });
        }
        let mail = &mut self.mailbox;
        while let Some(sequence) = mail.durable.recv() {
            // Whatever is left has a store that works, and its time begins anew.
            let since = if sequence < self.last_commit { now.as_nanos() } else { 0 };
            self.board.uncommitted_since.store(since, Ordering::Relaxed);
            events.push(Event::Durable(sequence));
        }
        while let Some((notice, delivered)) = mail.delivered.recv() {
            if let (Some(recording), Some((since, class))) = (&self.recording, self.handed.remove(&notice)) {
                recording.record(class, Measure::Result, now.since(since));
            }
            events.push(Event::Delivered { notice, delivered });
        }
        let (replies, last) = (&mut self.replies, &mut self.next_token);
        let mut token_of = |reply| {
            *last += 1;
            replies.push_back((*last, reply));
            *last
        };
        while let Some(ask) = mail.asks.recv() {
            events.push(match ask {
                Ask::Disable(monitor) => Event::Disable(monitor),
                Ask::Enable(monitor) => Event::Enable(monitor),
                Ask::Question { question, reply } => Event::Read { token: token_of(reply), question },
                Ask::Outbox { change, selection, who, reply } => {
                    Event::Outbox { token: token_of(reply), change, selection, who }
                }
                Ask::Test { destination, color, who, reply } => {
                    Event::Test { token: token_of(reply), destination, color, who }
                }
            });
        }
        // All that was said by the old catalog comes before the new one.
        let reload = mail.reloads.recv();
        let most = if reload.is_some() { QUEUE_TRANSITIONS } else { TRANSITIONS_PER_STEP };
        for transitions in &mut mail.transitions {
            for _ in 0..most {
                let Some(transition) = transitions.recv() else { break };
                events.push(Event::Transition(transition));
            }
        }
        if let Some(Reload { catalog, changes, fallback, who }) = reload {
            self.before = std::mem::replace(&mut self.catalog, Arc::clone(&catalog));
            events.push(Event::Reloaded { catalog, changes, fallback, who });
        }
        // Last: what the shards said before they ended is taken first.
        if !self.drain_told
            && self.board.drain.load(Ordering::Acquire)
            && mail.transitions.iter().all(Receiver::is_empty)
        {
            self.drain_told = true;
            events.push(Event::Drain);
        }
        events
    }

    fn carry_out(&mut self, effect: Effect, now: Instant) {
        match effect {
            Effect::Commit(batch) => {
                self.last_commit = batch.sequence;
                let since = &self.board.uncommitted_since;
                let _ = since.compare_exchange(0, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
                self.commits.push_back(batch);
            }
            Effect::Deliver { id, notice } => {
                self.handed.insert(id, (now, notice.key.destination.provider.index()));
                self.notices.push_back((id, notice));
            }
            Effect::Command(command) => self.commands[usize::from(command.monitor.shard())].push_back(command),
            Effect::Story(story) => {
                let known = |monitor| [&self.catalog, &self.before].into_iter().find(|catalog| catalog.knows(monitor));
                let name = story.monitor.map_or("cpra", |monitor| known(monitor).map_or("?", |of| of.name(monitor)));
                self.story.tell(now, &story, name);
            }
            Effect::Report { token, answer } => {
                if let Some(position) = self.replies.iter().position(|(asked, _)| *asked == token)
                    && let Some((_, reply)) = self.replies.remove(position)
                {
                    reply(answer);
                }
            }
        }
    }

    fn send_out(&mut self) {
        self.mailbox.commits.send_all(&mut self.commits);
        self.mailbox.notices.send_all(&mut self.notices);
        for (queue, waiting) in self.mailbox.commands.iter_mut().zip(&mut self.commands) {
            queue.send_all(waiting);
        }
    }

    fn is_blocked(&self) -> bool {
        !self.commits.is_empty() || !self.notices.is_empty() || self.commands.iter().any(|waiting| !waiting.is_empty())
    }

    fn publish(&self) {
        // What the new catalog makes of the shards has been handed over to them.
        if self.commands.iter().all(VecDeque::is_empty) {
            self.board.generation.store(self.catalog.generation(), Ordering::Release);
        }
        if let Ok(mut stats) = self.board.stats.lock() {
            stats.clone_from(self.desk.stats());
        }
        if self.drain_told {
            self.board.drained.store(self.desk.is_drained() && !self.is_blocked(), Ordering::Release);
        }
    }

    fn sleep(&mut self) {
        let now = self.clock.now();
        let deadlines = [self.desk.next_deadline(), self.story.next_deadline()];
        let deadline = deadlines.into_iter().flatten().min().unwrap_or(now + WALL_EVERY).since(now).min(WALL_EVERY);
        // A full queue has no bell for the sender: look again soon.
        let timeout = if self.is_blocked() { deadline.min(Span::from_millis(2)) } else { deadline };
        let (mailbox, board, door) = (&self.mailbox, &self.board, &self.door);
        let told = self.drain_told;
        self.bell.sleep(
            || {
                mailbox.is_quiet()
                    && !board.stop.load(Ordering::Relaxed)
                    && (told || !board.drain.load(Ordering::Relaxed))
            },
            || {
                door.wait(Some(timeout));
            },
        );
    }
}
