//! Names into addresses, by getaddrinfo(3), on the thread `cpra-resolve` with a few threads of its own.
//!
//! getaddrinfo blocks, for as long as resolv.conf allows, and cannot be interrupted. So `cpra-resolve` never calls it: it
//! hands names to [`LOOKUPS`] threads (`cpra-lookup-N`) and keeps the promise of an answer within [`RESOLVE_MAX`] by its own
//! watch. A name whose time is up, in a lookup or still waiting for one, is answered with `Failed`; the lookup's late
//! result is dropped. A dead resolver thus costs every name its full time and no more, and void checks, not failures.
//!
//! This will be replaced by a resolver that knows time-to-lives and does not block; the two queues are the seam.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::thread;

use crate::os::clock::Clock;
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender, bounded};
use crate::shard::protocol::Resolution;
use crate::units::limits::RESOLVE_MAX;
use crate::units::{Instant, Span};

mod lookup;

/// Names looked up at the same time.
const LOOKUPS: usize = 4;
/// getaddrinfo does not tell the time-to-live.
const TTL: Span = Span::from_secs(30);
/// How soon an answer is offered again to a shard that had no room for it.
const ANSWER_PAUSE: Span = Span::from_millis(10);

/// One shard's side of the resolver. Dropping it (all of them) ends the threads, but for lookups that hang: those end with
/// the process.
#[derive(Debug)]
pub struct Resolver {
    pub requests: Sender<Box<str>>,
    /// One for each request, within [`RESOLVE_MAX`], in any order.
    pub answers: Receiver<(Box<str>, Resolution)>,
}

/// Starts the threads for as many shards as there are bells: `bells[n]` is that of the thread that will read the
/// answers of the resolver `n`.
///
/// # Errors
/// When a descriptor or a thread cannot be had.
pub fn spawn(capacity: usize, bells: Vec<Bell>) -> io::Result<(Vec<Resolver>, thread::JoinHandle<()>)> {
    spawn_with(capacity, bells, RESOLVE_MAX, lookup::look_up)
}

fn spawn_with(
    capacity: usize,
    bells: Vec<Bell>,
    patience: Span,
    look_up: fn(&str) -> Resolution,
) -> io::Result<(Vec<Resolver>, thread::JoinHandle<()>)> {
    let door = WakeFd::new()?;
    let bell = door.bell();
    let mut resolvers = vec![];
    let mut clients = vec![];
    for answer_bell in bells {
        let (requests, receiver) = bounded(capacity, bell.clone());
        let (sender, answers) = bounded(capacity, answer_bell);
        resolvers.push(Resolver { requests, answers });
        clients.push(Client { requests: receiver, answers: sender, unsent: VecDeque::new(), pending: 0 });
    }
    let lookups = (0..LOOKUPS).map(|n| Lookup::spawn(n, bell.clone(), look_up)).collect::<io::Result<Vec<_>>>()?;
    let front = Front { clients, lookups, waiting: VecDeque::new(), patience };
    let thread = thread::Builder::new().name("cpra-resolve".into()).spawn(move || front.run(&bell, &door))?;
    Ok((resolvers, thread))
}

struct Client {
    requests: Receiver<Box<str>>,
    answers: Sender<(Box<str>, Resolution)>,
    unsent: VecDeque<(Box<str>, Resolution)>,
    /// Names taken and not yet answered, `unsent` included. At most the queue's capacity.
    pending: usize,
}

struct Question {
    client: usize,
    name: Box<str>,
    deadline: Instant,
}

/// A lookup thread, seen from the front.
struct Lookup {
    names: Sender<Box<str>>,
    results: Receiver<Resolution>,
    busy: bool,
    /// `None` while busy: the question's time is up, and the result will be dropped.
    question: Option<Question>,
}

impl Lookup {
    fn spawn(n: usize, bell: Bell, look_up: fn(&str) -> Resolution) -> io::Result<Self> {
        let door = WakeFd::new()?;
        let own_bell = door.bell();
        let (names, mut receiver) = bounded::<Box<str>>(1, own_bell.clone());
        let (mut sender, results) = bounded(1, bell);
        thread::Builder::new().name(format!("cpra-lookup-{n}")).spawn(move || {
            while !receiver.is_finished() {
                while let Some(name) = receiver.recv() {
                    sender.send(look_up(&name)).expect("one name at a time");
                }
                own_bell.sleep(
                    || receiver.is_empty() && !receiver.is_closed(),
                    || {
                        door.wait(None);
                    },
                );
            }
        })?;
        Ok(Self { names, results, busy: false, question: None })
    }
}

struct Front {
    clients: Vec<Client>,
    lookups: Vec<Lookup>,
    /// In the order in which they came, and so in that of their deadlines.
    waiting: VecDeque<Question>,
    patience: Span,
}

impl Front {
    fn run(mut self, bell: &Bell, door: &WakeFd) {
        loop {
            let now = Clock.now();
            self.collect();
            self.take(now);
            self.expire(now);
            self.hand_out();
            for client in &mut self.clients {
                client.pending -= client.answers.send_all(&mut client.unsent);
            }
            if self.clients.iter().all(|client| client.requests.is_finished() || client.answers.is_closed()) {
                return;
            }
            let timeout = self.next_deadline().map(|deadline| deadline.since(now));
            bell.sleep(
                || !self.has_work(),
                || {
                    door.wait(timeout);
                },
            );
        }
    }

    fn has_work(&self) -> bool {
        self.lookups.iter().any(|lookup| !lookup.results.is_empty())
            || self.clients.iter().any(|client| client.has_room() && !client.requests.is_empty())
            || self.clients.iter().all(|client| client.requests.is_finished() || client.answers.is_closed())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let blocked = self.clients.iter().any(|client| !client.unsent.is_empty());
        let looking = self.lookups.iter().filter_map(|lookup| lookup.question.as_ref());
        let deadlines = looking.chain(self.waiting.front()).map(|question| question.deadline);
        deadlines.chain(blocked.then(|| Clock.now() + ANSWER_PAUSE)).min()
    }

    fn collect(&mut self) {
        for lookup in &mut self.lookups {
            if let Some(result) = lookup.results.recv() {
                lookup.busy = false;
                if let Some(question) = lookup.question.take() {
                    self.clients[question.client].unsent.push_back((question.name, result));
                }
            }
        }
    }

    fn take(&mut self, now: Instant) {
        for (n, client) in self.clients.iter_mut().enumerate() {
            while client.has_room()
                && let Some(name) = client.requests.recv()
            {
                client.pending += 1;
                self.waiting.push_back(Question { client: n, name, deadline: now + self.patience });
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let late = |question: &mut Question| question.deadline <= now;
        let looking = self.lookups.iter_mut().filter_map(|lookup| lookup.question.take_if(late));
        let waiting = std::iter::from_fn(|| self.waiting.pop_front_if(late));
        for question in looking.chain(waiting) {
            let failed = Resolution::Failed(format!("no answer from the resolver within {}", self.patience).into());
            self.clients[question.client].unsent.push_back((question.name, failed));
        }
    }

    fn hand_out(&mut self) {
        for lookup in self.lookups.iter_mut().filter(|lookup| !lookup.busy) {
            let Some(question) = self.waiting.pop_front() else { return };
            lookup.names.send(question.name.clone()).expect("one name at a time");
            lookup.busy = true;
            lookup.question = Some(question);
        }
    }
}

impl Client {
    fn has_room(&self) -> bool {
        self.pending < self.requests.capacity()
    }
}

/// At least one address: IPv4 first, else as the resolver ordered them, each once.
fn found(mut addresses: Vec<IpAddr>) -> Resolution {
    addresses.sort_by_key(IpAddr::is_ipv6);
    let mut seen = vec![];
    addresses.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    Resolution::Found { addresses, ttl: TTL }
}

#[cfg(test)]
mod tests;
