//! Names into addresses, and the questions of dns checks: the thread `cpra-resolve`, a tokio runtime of its own.
//!
//! What a name is looked up in, in this order: the hosts file, `localhost` by itself, the name servers of resolv.conf or
//! of the settings ([`lookup`]). Other sources of nsswitch.conf (mDNS, LDAP, `myhostname`) are not asked: they live in
//! libraries that block. Both files are read anew when they change.
//!
//! One question per name, over all shards: who asks for a name that is being looked up waits for the same answer. What
//! was answered is remembered for as long as it holds ([`memory`]). While the resolver fails, or takes longer than
//! [`STALE_PATIENCE`], an address that held before still serves: its monitors go on being checked, and it is counted.
//!
//! Every request is answered within [`RESOLVE_MAX`]: the lookup has its deadline, waiting for its turn included (at most
//! [`RESOLVE_CONCURRENT_MAX`] run at a time). A resolver that is dead thus voids checks whose names it never told, and
//! fails none. When a queue of answers is full they wait here, and no more requests of that shard are taken.
//!
//! An order to ask a server ([`Order`]) ends exactly once: with what came, or [`ErrandEnd::Recalled`]. Beyond
//! [`QUESTIONS_MAX`] they wait a part of their time for their turn, and are refused after it: our fault, not the
//! target's.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fastrand::Rng;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use self::lookup::{Finding, Source};
use self::memory::Memory;
use crate::domain::{Check, Policy};
use crate::os::clock::Clock;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::probe::errand::{DnsTrouble, ErrandEnd};
use crate::ring::{Errno, Family};
use crate::shard::protocol::{Histogram, Resolution};
use crate::units::limits::{
    QUESTIONS_MAX, QUESTIONS_WAITING_MAX, RESOLVE_CONCURRENT_MAX, RESOLVE_FILES_EVERY, RESOLVE_MAX,
    RESOLVE_SERVER_WAIT, STALE_PATIENCE,
};
use crate::units::{Generation, Instant, Slot, Span};

mod lookup;
mod memory;
mod questions;
#[cfg(test)]
mod tests;

/// How names are looked up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Asked in this order instead of those in resolv.conf; at most [`crate::units::limits::RESOLVE_SERVERS_MAX`].
    pub servers: Vec<SocketAddr>,
    /// Addresses of the other family are asked for only where there is none of this one.
    pub prefer: Family,
    /// How long one server has to answer.
    pub timeout: Span,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            prefer: Family::V4,
            timeout: RESOLVE_SERVER_WAIT,
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// What a shard wants asked, or not any more.
#[derive(Debug)]
pub enum Order {
    Ask { slot: Slot, generation: Generation, policy: Arc<Policy>, server: SocketAddr, name: Box<str> },
    Recall { slot: Slot, generation: Generation },
}

/// What came of an [`Order::Ask`].
#[derive(Debug)]
pub struct Return {
    pub slot: Slot,
    pub generation: Generation,
    pub end: Box<ErrandEnd>,
}

/// One shard's side of the resolver. Dropping it (all of them) ends the thread.
#[derive(Debug)]
pub struct Resolver {
    pub requests: Sender<Box<str>>,
    /// One for each request, within [`RESOLVE_MAX`], in any order.
    pub answers: Receiver<(Box<str>, Resolution)>,
    pub orders: Sender<Order>,
    /// One for each [`Order::Ask`], in any order.
    pub returns: Receiver<Return>,
}

/// What the resolver has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverStats {
    /// Lookups by the servers, by how they ended.
    pub found: u64,
    pub not_found: u64,
    pub failed: u64,
    /// Answers with addresses whose time was up.
    pub stale: u64,
    /// How long lookups took, waiting for their turn included.
    pub latency: Histogram,
}

/// What the rest of the daemon may read at any time.
#[derive(Debug, Default)]
pub struct ResolverBoard(Mutex<ResolverStats>);

impl ResolverBoard {
    pub fn stats(&self) -> ResolverStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, count: impl FnOnce(&mut ResolverStats)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A running resolver.
#[derive(Debug)]
pub struct Started {
    pub resolvers: Vec<Resolver>,
    pub board: Arc<ResolverBoard>,
    pub thread: thread::JoinHandle<()>,
}

/// Starts the thread for as many shards as there are bells: `bells[n]` is that of the thread that will read the answers
/// of the resolver `n`.
///
/// # Errors
/// When a descriptor or a thread cannot be had.
pub fn spawn(settings: Settings, capacity: usize, bells: Vec<Bell>) -> io::Result<Started> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let mut resolvers = vec![];
    let mut clients = vec![];
    for answer_bell in bells {
        let (requests, request_receiver) = bounded(capacity, bell.clone());
        let (answer_sender, answers) = bounded(capacity, answer_bell.clone());
        let (orders, order_receiver) = bounded(capacity, bell.clone());
        let (return_sender, returns) = bounded(capacity, answer_bell);
        resolvers.push(Resolver { requests, answers, orders, returns });
        clients.push(Client {
            requests: request_receiver,
            answers: answer_sender,
            unsent: VecDeque::new(),
            pending: 0,
            orders: order_receiver,
            returns: return_sender,
            unreturned: VecDeque::new(),
        });
    }
    let board = Arc::new(ResolverBoard::default());
    let front_board = Arc::clone(&board);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seed = io::Read::bytes(std::fs::File::open("/dev/urandom")?).take(8).collect::<io::Result<Vec<u8>>>()?;
    let seed = seed.iter().fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    let thread = thread::Builder::new().name("cpra-resolve".into()).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let door = door.into_async().expect("the runtime has just been made to poll descriptors");
            Front::new(settings, clients, front_board, seed).run(&bell, &door).await;
        });
    })?;
    Ok(Started { resolvers, board, thread })
}

struct Client {
    requests: Receiver<Box<str>>,
    answers: Sender<(Box<str>, Resolution)>,
    unsent: VecDeque<(Box<str>, Resolution)>,
    /// Names taken and not yet answered, `unsent` included. At most the queue's capacity.
    pending: usize,
    orders: Receiver<Order>,
    returns: Sender<Return>,
    unreturned: VecDeque<Return>,
}

impl Client {
    fn has_room(&self) -> bool {
        self.pending < self.requests.capacity()
    }

    fn has_work(&self) -> bool {
        self.has_room() && !self.requests.is_empty() || !self.orders.is_empty()
    }

    fn is_gone(&self) -> bool {
        self.requests.is_finished() || self.answers.is_closed()
    }
}

/// Which order it was: the client, and what the shard calls it.
type Errand = (usize, Slot, Generation);

/// What a task of the thread came to.
enum Done {
    Name { name: Box<str>, began: Instant, finding: Finding },
    Errand { errand: Errand, end: ErrandEnd },
}

struct Front {
    settings: Settings,
    clients: Vec<Client>,
    board: Arc<ResolverBoard>,
    source: Rc<Source>,
    /// When the files are looked at the next time.
    next_look: Instant,
    memory: Memory,
    /// Names that are being looked up, and the clients that wait for it.
    asked: HashMap<Box<str>, Vec<usize>, FxBuildHasher>,
    /// Of those, the ones with an address to fall back to, and until when a better one is waited for; in this order.
    patience: VecDeque<(Instant, Box<str>)>,
    lookups: Rc<Semaphore>,
    errands: HashMap<Errand, AbortHandle, FxBuildHasher>,
    questions: Rc<Semaphore>,
    tasks: JoinSet<Done>,
    rng: Rng,
}

/// How soon an answer is offered again to a shard that had no room for it.
const ANSWER_PAUSE: Span = Span::from_millis(10);
/// A lookup ends this much before its answer is due.
const ANSWER_MARGIN: Span = Span::from_secs(1);
/// An errand whose shard does not recall it ends this long after its time.
const ERRAND_MARGIN: Span = Span::from_secs(1);
/// The part of its time that an errand may wait for its turn.
const TURN_PART: u64 = 4;

impl Front {
    fn new(settings: Settings, clients: Vec<Client>, board: Arc<ResolverBoard>, seed: u64) -> Self {
        Self {
            source: Rc::new(Source::load(&settings)),
            next_look: Clock.now() + RESOLVE_FILES_EVERY,
            settings,
            clients,
            board,
            memory: Memory::new(),
            asked: HashMap::with_hasher(FxBuildHasher),
            patience: VecDeque::new(),
            lookups: Rc::new(Semaphore::new(RESOLVE_CONCURRENT_MAX)),
            errands: HashMap::with_hasher(FxBuildHasher),
            questions: Rc::new(Semaphore::new(QUESTIONS_MAX)),
            tasks: JoinSet::new(),
            rng: Rng::with_seed(seed),
        }
    }

    async fn run(mut self, bell: &Bell, door: &AsyncFd<WakeFd>) {
        loop {
            let now = Clock.now();
            while let Some(done) = self.tasks.try_join_next() {
                self.done(done.ok(), now);
            }
            for client in 0..self.clients.len() {
                self.take(client, now);
            }
            self.lose_patience(now);
            for client in &mut self.clients {
                client.pending -= client.answers.send_all(&mut client.unsent);
                client.returns.send_all(&mut client.unreturned);
            }
            if self.clients.iter().all(Client::is_gone) {
                return;
            }
            bell.declare_sleep();
            if !self.clients.iter().any(Client::has_work) && !self.clients.iter().all(Client::is_gone) {
                let pause = self.next_deadline(now).map_or(Span::from_secs(3_600), |deadline| deadline.since(now));
                tokio::select! {
                    done = self.tasks.join_next(), if !self.tasks.is_empty() => {
                        self.done(done.and_then(Result::ok), Clock.now());
                    }
                    knock = door.readable() => {
                        if let Ok(mut knock) = knock {
                            door.get_ref().clear();
                            knock.clear_ready();
                        }
                    }
                    () = sleep(pause.into()) => {}
                }
            }
            bell.declare_awake();
            // The tasks get their turn also when requests never end.
            tokio::task::yield_now().await;
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let blocked = self.clients.iter().any(|client| !client.unsent.is_empty() || !client.unreturned.is_empty());
        let patience = self.patience.front().map(|(until, _)| *until);
        patience.into_iter().chain(blocked.then(|| now + ANSWER_PAUSE)).min()
    }

    fn take(&mut self, client: usize, now: Instant) {
        while self.clients[client].has_room()
            && let Some(name) = self.clients[client].requests.recv()
        {
            self.clients[client].pending += 1;
            self.request(client, name, now);
        }
        while let Some(order) = self.clients[client].orders.recv() {
            match order {
                Order::Ask { slot, generation, policy, server, name } => {
                    self.ask((client, slot, generation), &policy, server, name);
                }
                Order::Recall { slot, generation } => {
                    let errand = (client, slot, generation);
                    if let Some(task) = self.errands.remove(&errand) {
                        task.abort();
                        self.give_back(errand, ErrandEnd::Recalled);
                    }
                }
            }
        }
    }

    fn request(&mut self, client: usize, name: Box<str>, now: Instant) {
        self.look_at_files(now);
        if let Some(finding) = self.source.local(&name) {
            self.answer(&[client], &name, &resolution(&finding));
            return;
        }
        match self.memory.answer(&name, now) {
            Some(failed @ Resolution::Failed(_)) => {
                let answer = self.stale(&name, now, 1).unwrap_or(failed);
                self.answer(&[client], &name, &answer);
                return;
            }
            Some(answer) => {
                self.answer(&[client], &name, &answer);
                return;
            }
            None => {}
        }
        let failing = self.memory.is_failing(&name);
        let is_asked = self.asked.contains_key(&name);
        let known = self.memory.stale(&name, now).is_some();
        let waiting = self.asked.entry_ref(&name).or_default();
        if known && failing {
            // It fails already: whoever comes next need not wait to see it fail again.
            if let Some(answer) = self.stale(&name, now, 1) {
                self.answer(&[client], &name, &answer);
            }
        } else {
            waiting.push(client);
            if known {
                self.patience.push_back((now + STALE_PATIENCE, name.clone()));
            }
        }
        if !is_asked {
            self.look_up(name, now);
        }
    }

    fn look_up(&mut self, name: Box<str>, began: Instant) {
        let (source, lookups) = (Rc::clone(&self.source), Rc::clone(&self.lookups));
        let bound = Span::from_nanos(RESOLVE_MAX.as_nanos() - ANSWER_MARGIN.as_nanos());
        self.tasks.spawn_local(async move {
            let lookup = async {
                let _turn = lookups.acquire().await;
                source.look_up(&name).await
            };
            let finding = timeout(bound.into(), lookup).await;
            let finding = finding
                .unwrap_or_else(|_| Finding::Failed(format!("no answer from the name servers within {bound}").into()));
            Done::Name { name, began, finding }
        });
    }

    fn ask(&mut self, errand: Errand, policy: &Policy, server: SocketAddr, name: Box<str>) {
        let Check::Dns(check) = &policy.check else {
            return self.give_back(errand, ErrandEnd::Refused(Errno::EINVAL));
        };
        if self.errands.len() >= QUESTIONS_WAITING_MAX {
            return self.give_back(errand, ErrandEnd::Refused(Errno::EAGAIN));
        }
        let (record, time, questions) = (check.record, policy.timeout, Rc::clone(&self.questions));
        let id = self.rng.u16(..);
        let task = self.tasks.spawn_local(async move {
            let end = match timeout(time.scaled(1, TURN_PART).into(), questions.acquire()).await {
                Err(_) => ErrandEnd::Refused(Errno::EAGAIN),
                Ok(_turn) => {
                    let asking = questions::ask(server, &name, record, id);
                    let end = timeout((time + ERRAND_MARGIN).into(), asking).await;
                    end.unwrap_or(ErrandEnd::Unanswered(DnsTrouble::Silent))
                }
            };
            Done::Errand { errand, end }
        });
        self.errands.insert(errand, task);
    }

    /// `None`: a task that was recalled.
    fn done(&mut self, done: Option<Done>, now: Instant) {
        match done {
            Some(Done::Name { name, began, finding }) => {
                self.memory.note(&name, &finding, now);
                self.board.count(|stats| {
                    match finding {
                        Finding::Found { .. } => stats.found += 1,
                        Finding::NotFound { .. } => stats.not_found += 1,
                        Finding::Failed(_) => stats.failed += 1,
                    }
                    stats.latency.record(now.since(began));
                });
                let waiting = self.asked.remove(&name).unwrap_or_default();
                let answer = match resolution(&finding) {
                    failed @ Resolution::Failed(_) => self.stale(&name, now, waiting.len()).unwrap_or(failed),
                    answer => answer,
                };
                self.answer(&waiting, &name, &answer);
            }
            Some(Done::Errand { errand, end }) => {
                // One that was recalled after it had ended has been answered then.
                let open = self.errands.remove(&errand);
                if let Some(_task) = open {
                    self.give_back(errand, end);
                }
            }
            None => {}
        }
    }

    /// Those who have an address to fall back to have waited long enough.
    fn lose_patience(&mut self, now: Instant) {
        while let Some((_, name)) = self.patience.pop_front_if(|(until, _)| *until <= now) {
            let Some(waiting) = self.asked.get_mut(&name).map(std::mem::take).filter(|waiting| !waiting.is_empty())
            else {
                continue;
            };
            match self.stale(&name, now, waiting.len()) {
                Some(answer) => self.answer(&waiting, &name, &answer),
                // Its time has come to an end, too: then with the others.
                None => drop(self.asked.insert(name, waiting)),
            }
        }
    }

    /// An address whose time is up, for as many as will use it.
    fn stale(&self, name: &str, now: Instant, uses: usize) -> Option<Resolution> {
        let answer = self.memory.stale(name, now)?;
        self.board.count(|stats| stats.stale += uses as u64);
        Some(answer)
    }

    fn answer(&mut self, waiting: &[usize], name: &str, answer: &Resolution) {
        for &client in waiting {
            self.clients[client].unsent.push_back((name.into(), answer.clone()));
        }
    }

    fn give_back(&mut self, (client, slot, generation): Errand, end: ErrandEnd) {
        self.clients[client].unreturned.push_back(Return { slot, generation, end: Box::new(end) });
    }

    fn look_at_files(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + RESOLVE_FILES_EVERY;
        if self.source.is_outdated(&self.settings) {
            tracing::info!("resolv.conf or hosts has changed: names are looked up anew");
            self.source = Rc::new(Source::load(&self.settings));
            self.memory.expire(now);
        }
    }
}

fn resolution(finding: &Finding) -> Resolution {
    match finding {
        Finding::Found { addresses, ttl } => Resolution::Found { addresses: addresses.clone(), ttl: *ttl },
        Finding::NotFound { .. } => Resolution::NotFound,
        Finding::Failed(why) => Resolution::Failed(why.clone()),
    }
}
