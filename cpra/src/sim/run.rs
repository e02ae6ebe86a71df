//! One seed, one thread: shards, desk and the simulated world, step by step in virtual time.
//!
//! Shards and desk are actors with an inbox and a lateness of their own; nothing is shared but messages. The loop
//! always takes what happens next, moves the clock there, and lets those act who have cause to.

mod faults;

use std::collections::VecDeque;
use std::sync::Arc;

use fastrand::Rng;

use super::check::{Checker, Failure, Stepped};
use super::coverage::{Coverage, Section};
use super::errand::SimDriver;
use super::fault::Fault;
use super::host::SimHost;
use super::jobs::SimJobs;
use super::lane::{Happening, SimLane};
use super::network::Network;
use super::plan::Plan;
use super::resolver::SimResolver;
use super::ring::SimRing;
use super::store::SimStore;
use super::story::{note_desk_effect, note_desk_event, note_happening, note_shard_effect, note_shard_event};
use super::trace::Trace;
use crate::desk::protocol::{NoticeId, Question, Stored};
use crate::desk::{self, Desk};
use crate::domain::Notice;
use crate::ring::{Ring, Wait};
use crate::shard::{self, Effects, Shard};
use crate::units::{Instant, Span, Timestamp};
use crate::world::Catalog;

/// Beyond this a run is stuck in a loop without time.
const STEPS_MAX: u64 = 3_000_000;

/// A run is not over before so many events, even if everything has settled.
const EVENTS_MIN: u64 = 5_000;

/// How long destinations may take for what the storm has left them.
const BACKLOG: Span = Span::from_secs(900);

/// How a seed was run.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// Of everything that happened: the same for the same seed.
    pub hash: u64,
    /// Handed to shards and desk.
    pub events: u64,
    pub steps: u64,
    pub lasted: Span,
    pub coverage: Coverage,
    pub failure: Option<Failure>,
    /// The story in words, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed from beginning to end, or to the first failure.
pub(super) fn run(seed: u64, in_words: bool) -> Report {
    let plan = Arc::new(Plan::draw(seed));
    let catalog = Catalog::build(plan.catalog(), plan.shards).expect("names are numbered");
    let mut run = Run::new(plan, Arc::new(catalog), in_words);
    run.run_out();
    run.report()
}

/// One shard, its ring and its letters.
struct ShardActor {
    machine: Shard,
    ring: SimRing,
    inbox: VecDeque<(Instant, shard::Event<'static>)>,
    /// The desk's, which take a way of their own.
    commands: VecDeque<(Instant, shard::Event<'static>)>,
    effects: Effects,
    late: Span,
    stopped_until: Instant,
    last_step: Instant,
}

struct DeskActor {
    machine: Desk,
    inbox: VecDeque<(Instant, desk::Event)>,
    late: Span,
    stopped_until: Instant,
    full: bool,
}

struct Run {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    rng: Rng,
    now: Instant,
    network: Network,
    shards: Vec<ShardActor>,
    desk: DeskActor,
    store: SimStore,
    lane: SimLane,
    resolver: SimResolver,
    driver: SimDriver,
    jobs: SimJobs,
    host: SimHost,
    checker: Checker,
    trace: Trace,
    /// The next fault to begin, and those that go on.
    next_fault: usize,
    ongoing: Vec<(Instant, Fault)>,
    wall_ahead: i64,
    /// Dies as soon as there is a commit to lose.
    doomed: bool,
    /// And its store cannot be read any more.
    damaged: bool,
    process: u64,
    draining: bool,
    events: u64,
    steps: u64,
    failure: Option<Failure>,
}

impl Run {
    fn new(plan: Arc<Plan>, catalog: Arc<Catalog>, in_words: bool) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x5EED);
        let mut network = Network::new();
        for (addresses, target) in &plan.targets {
            network.add(addresses.iter().copied(), target.clone());
        }
        let mut store = SimStore::new(rng.u64(..));
        let stored = store.open();
        let checker = Checker::new(&plan, &catalog, &stored);
        let now = plan.start;
        let resolver = SimResolver::new(plan.names.clone(), rng.u64(..));
        let mut run = Self {
            now,
            shards: Vec::new(),
            desk: DeskActor {
                machine: new_desk(&plan, &catalog, stored.clone(), 0, now),
                inbox: VecDeque::new(),
                late: Span::ZERO,
                stopped_until: Instant::ZERO,
                full: false,
            },
            store,
            lane: SimLane::new(rng.u64(..)),
            resolver,
            driver: SimDriver::new(network.clone(), rng.u64(..)),
            jobs: SimJobs::new(&plan, &catalog, network.clone(), rng.u64(..)),
            host: SimHost::new(rng.u64(..)),
            trace: Trace::new(now, in_words),
            plan,
            catalog,
            rng,
            network,
            checker,
            next_fault: 0,
            ongoing: Vec::new(),
            wall_ahead: 1_790_000_000_000_000,
            process: 0,
            doomed: false,
            damaged: false,
            draining: false,
            events: 0,
            steps: 0,
            failure: None,
        };
        run.cover_plan();
        run.start(stored);
        run
    }

    /// A process begins: the shards know nothing, and the desk what the store held.
    fn start(&mut self, stored: Stored) {
        let now = self.now;
        self.process += 1;
        self.shards.clear();
        for shard in 0..self.plan.shards {
            let settings = shard::Settings { shard, sizing: self.plan.sizing(), seed: self.plan.seed ^ self.process };
            let mut ring = SimRing::new(self.network.clone(), self.rng.u64(..));
            ring.advance(now);
            self.shards.push(ShardActor {
                machine: Shard::new(&settings, Arc::clone(&self.catalog), now).bounded_by(self.plan.rates()),
                ring,
                inbox: VecDeque::from([(now, shard::Event::HalfOpen(!self.driver.is_blind()))]),
                commands: VecDeque::new(),
                effects: Effects::default(),
                late: Span::ZERO,
                stopped_until: Instant::ZERO,
                last_step: now,
            });
        }
        let machine = new_desk(&self.plan, &self.catalog, stored, self.process, now);
        let wall = desk::Event::Wall { at: now, shows: self.wall() };
        let inbox = VecDeque::from([(now, wall)]);
        self.desk = DeskActor { machine, inbox, late: Span::ZERO, stopped_until: Instant::ZERO, full: false };
        self.set_weather();
    }

    fn crash(&mut self) {
        let now = self.now;
        for (id, notice) in self.lane.crash() {
            self.arrives(id, &notice);
        }
        let left = self.store.crash(now);
        self.trace.note(now, (7_u8, left.kept, left.lost), || format!("CRASH   {left:?}"));
        self.checker.notices.crashed(left.kept);
        let coverage = &mut self.checker.coverage;
        coverage.add(Section::Turn, "a crash lost a commit", left.lost as u64);
        coverage.add(Section::Turn, "a crash left a commit that nobody knew was durable", left.untold as u64);
        self.resolver.crash();
        self.driver.crash();
        self.jobs.crash();
        self.host.crash();
        if std::mem::take(&mut self.damaged) {
            self.store.damage();
        }
        let stored = self.store.open();
        self.checker.start(&stored, now);
        self.start(stored);
        // What was restored is what the store held.
        self.checker.coverage.hit(Section::Turn, "the open episodes were asked for");
        self.desk.inbox.push_back((now, desk::Event::Read { token: 0, question: Question::Episodes(1_000) }));
    }

    fn arrives(&mut self, id: NoticeId, notice: &Notice) {
        let Checker { notices, coverage, .. } = &mut self.checker;
        let arrived = notices.arrivals.len();
        notices.arrives(id, notice, self.now, coverage);
        if notices.arrivals.len() > arrived {
            self.checker.arrived(self.now);
        }
    }

    fn run_out(&mut self) {
        let ends = if self.plan.abrupt {
            let storm = self.plan.storm_ends.since(self.plan.start);
            self.plan.start + storm.scaled(3, 4)
        } else {
            self.plan.ends
        };
        self.go_on_until(ends, |_| false);
        self.go_on_until(ends + Span::from_secs(7_200), |run| run.events >= EVENTS_MIN);
        let ends = self.now;
        // A slow destination may have a queue.
        let is_told = |run: &Self| run.desk.machine.stats().waiting + run.desk.machine.stats().outstanding == 0;
        self.go_on_until(ends + BACKLOG, is_told);
        if self.failure.is_none() && !self.plan.abrupt {
            self.checker.settled(self.now);
            self.look_for_failures();
        }
        self.drain();
    }

    /// No more checks, then no more notices.
    fn drain(&mut self) {
        self.draining = true;
        // Who stands still cannot be told.
        let stopped = self.shards.iter().map(|shard| shard.stopped_until).chain([self.desk.stopped_until]);
        let awake = stopped.fold(self.now, Instant::max);
        self.go_on_until(awake, |_| false);
        let now = self.now;
        for shard in &mut self.shards {
            shard.inbox.push_back((now, shard::Event::Drain));
        }
        let longest = self.plan.monitors.iter().map(|monitor| {
            let attempts = u64::from(monitor.policy.retries) + 2;
            (monitor.policy.timeout + Span::from_millis(100)).scaled(attempts, 1)
        });
        let patience = longest.max().unwrap_or_default() + Span::from_secs(20);
        self.go_on_until(now + patience, |run| run.shards.iter().all(|shard| shard.machine.is_drained()));
        if self.failure.is_none() && !self.shards.iter().all(|shard| shard.machine.is_drained()) {
            self.fail("drain", format!("a shard is not drained after {patience}"));
        }
        self.desk.inbox.push_back((self.now, desk::Event::Drain));
        let patience = Span::from_secs(if self.plan.abrupt { 1_200 } else { 30 });
        self.go_on_until(self.now + patience, |run| run.desk.machine.is_drained() && run.desk.inbox.is_empty());
        if self.failure.is_none() {
            if !self.desk.machine.is_drained() {
                self.fail("drain", format!("the desk is not drained after {patience}"));
            }
            self.checker.notices.settled(self.now);
            self.look_for_failures();
        }
    }

    fn fail(&mut self, checker: &'static str, text: String) {
        let at = self.now;
        self.failure.get_or_insert(Failure { checker, at, text });
    }

    fn look_for_failures(&mut self) {
        if self.failure.is_none() {
            self.failure = self.checker.failure();
        }
    }

    /// Lets things happen until `end`, a failure, or what is waited for.
    fn go_on_until(&mut self, end: Instant, mut is_enough: impl FnMut(&Self) -> bool) {
        while self.failure.is_none() && !is_enough(self) {
            let next = self.next();
            if next.is_none_or(|next| next > end) {
                self.now = self.now.max(end);
                return;
            }
            let now = self.now.max(next.unwrap_or(end));
            self.now = now;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.fail("progress", format!("{STEPS_MAX} steps, and time has come no further"));
            }
            for shard in &mut self.shards {
                shard.ring.advance(now);
            }
            self.turn_faults();
            self.collect();
            for shard in 0..self.shards.len() {
                if self.shard_wakes(shard).is_some_and(|at| at <= now) {
                    self.step_shard(shard);
                }
            }
            if self.desk_wakes().is_some_and(|at| at <= now) {
                self.step_desk();
            }
            if self.doomed && self.store.next().is_some() {
                self.doomed = false;
                self.crash();
            }
            self.look_for_failures();
        }
    }

    /// When anything happens next.
    fn next(&self) -> Option<Instant> {
        let fault = self.plan.faults.get(self.next_fault).map(|scheduled| scheduled.at);
        let calm = self.ongoing.iter().map(|(until, _)| *until).min();
        let shards = (0..self.shards.len())
            .flat_map(|shard| [self.shards[shard].ring.next_happening(), self.shard_wakes(shard)]);
        [
            fault,
            calm,
            self.store.next(),
            self.lane.next(),
            self.resolver.next(),
            self.driver.next(),
            self.jobs.next(),
            self.host.next(),
            self.desk_wakes(),
        ]
        .into_iter()
        .chain(shards)
        .flatten()
        .min()
    }

    fn shard_wakes(&self, shard: usize) -> Option<Instant> {
        let actor = &self.shards[shard];
        let letter = actor.inbox.front().map(|(at, _)| *at);
        let command = actor.commands.front().map(|(at, _)| *at);
        let causes = [letter, command, actor.ring.next_ready(), actor.machine.next_deadline()];
        let cause = causes.into_iter().flatten().min()?;
        // A step that is due at once is still another step: time passes in between.
        let cause = cause.max(actor.last_step + Span::from_nanos(500));
        Some((cause + actor.late).max(actor.stopped_until))
    }

    fn desk_wakes(&self) -> Option<Instant> {
        let letter = self.desk.inbox.front().map(|(at, _)| *at);
        let cause = [letter, self.desk.machine.next_deadline()].into_iter().flatten().min()?;
        Some((cause + self.desk.late).max(self.desk.stopped_until))
    }

    /// How late an actor wakes: mostly microseconds, sometimes a scheduler's slice.
    fn lateness(&mut self) -> Span {
        Span::from_nanos(match self.rng.u8(..) {
            0..180 => self.rng.u64(1_000..50_000),
            180..250 => self.rng.u64(50_000..1_000_000),
            _ => self.rng.u64(1_000_000..5_000_000),
        })
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_micros(self.wall_ahead + self.now.as_nanos().cast_signed() / 1_000)
    }

    /// Answers that are there go into the inboxes.
    fn collect(&mut self) {
        let now = self.now;
        if let Some(sequence) = self.store.durable(now) {
            self.desk.inbox.push_back((now, desk::Event::Durable(sequence)));
        }
        while let Some(happening) = self.lane.happened(now) {
            note_happening(&mut self.trace, now, &happening);
            match happening {
                Happening::Arrived { id, notice } => self.arrives(id, &notice),
                Happening::Ended { id, delivered, .. } => {
                    let Checker { notices, coverage, .. } = &mut self.checker;
                    notices.ended(id, &delivered, coverage);
                    self.desk.inbox.push_back((now, desk::Event::Delivered { notice: id, delivered }));
                }
            }
        }
        while let Some((shard, name, result)) = self.resolver.answer(now) {
            let event = shard::Event::Resolved { name, result };
            self.shards[usize::from(shard)].inbox.push_back((now, event));
        }
        while let Some((shard, event)) = self.driver.letter(now) {
            self.shards[usize::from(shard)].inbox.push_back((now, event));
        }
        self.jobs.work(now);
        while let Some((shard, event)) = self.jobs.call(now) {
            self.shards[usize::from(shard)].inbox.push_back((now, event));
        }
        while let Some((shard, sample)) = self.host.reading(now) {
            self.shards[usize::from(shard)].inbox.push_back((now, shard::Event::HostSampled(sample)));
        }
    }

    fn step_shard(&mut self, number: usize) {
        let now = self.now;
        let late = self.lateness();
        let letters_first = self.rng.bool();
        let actor = &mut self.shards[number];
        actor.late = late;
        actor.last_step = now;
        let shard = number as u8;
        let mut letters = Vec::new();
        while actor.inbox.front().is_some_and(|(at, _)| *at <= now) {
            letters.extend(actor.inbox.pop_front().map(|(_, event)| event));
        }
        while actor.commands.front().is_some_and(|(at, _)| *at <= now) {
            letters.extend(actor.commands.pop_front().map(|(_, event)| event));
        }
        let mut effects = std::mem::take(&mut actor.effects);
        {
            let mut events: Vec<shard::Event<'_>> = Vec::with_capacity(letters.len() + 8);
            if letters_first {
                events.append(&mut letters);
            }
            if actor.machine.expires_by(now) {
                actor.ring.enter(Wait::NONE).expect("a simulated ring is never broken");
            }
            actor.ring.reap(&mut |completion| events.push(shard::Event::Completed(completion)));
            events.append(&mut letters);
            for event in &events {
                note_shard_event(&mut self.trace, now, shard, event);
                self.checker.shard_hears(shard, event, now);
                if let shard::Event::HalfOpen(can) = event {
                    self.driver.told(shard, *can, now);
                }
            }
            self.events += events.len() as u64;
            actor.machine.step(now, &events, &mut effects);
        }
        self.checker.stepped(&Stepped {
            shard,
            now,
            machine: &actor.machine,
            effects: &effects.list,
            ring: &actor.ring,
            host: &self.host,
            driver: &self.driver,
            jobs: &self.jobs,
        });
        self.carry_out(number, &mut effects);
        effects.clear();
        let actor = &mut self.shards[number];
        actor.effects = effects;
        let observed = actor.ring.observed();
        for event in &observed {
            if let super::ring::Observed::Lost(_) = event {
                self.host.drop_packet(now);
            }
        }
        self.checker.wire(shard, &observed, &actor.ring, now);
        let begun = self.driver.begun();
        self.checker.sent_off(&begun, &self.driver, now);
        self.checker.remember_void(now);
    }

    fn carry_out(&mut self, number: usize, effects: &mut Effects) {
        let now = self.now;
        let shard = number as u8;
        let Effects { list, bytes } = effects;
        for effect in list.drain(..) {
            note_shard_effect(&mut self.trace, now, shard, &effect);
            let actor = &mut self.shards[number];
            match effect {
                shard::Effect::Open { slot, family } => {
                    if let Err(errno) = actor.ring.open(slot, family) {
                        actor.inbox.push_back((now, shard::Event::OpenFailed { slot, errno }));
                        self.checker.coverage.hit(Section::Turn, "a socket was refused");
                    }
                }
                shard::Effect::Close { slot } => actor.ring.close(slot),
                shard::Effect::Submit { slot, generation, op, bytes: range } => {
                    self.driver.socket_used(shard, slot);
                    let sent = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
                    actor.ring.submit(slot, generation, &op, sent);
                    // A full submission queue is handed over in the middle.
                    if self.rng.u8(..) < 8 {
                        actor.ring.enter(Wait::NONE).expect("a simulated ring is never broken");
                    }
                }
                shard::Effect::Errand { slot, generation, errand } => {
                    self.driver.send(shard, slot, generation, &errand, now);
                }
                shard::Effect::Recall { slot, generation } => self.driver.recall(shard, slot, generation, now),
                shard::Effect::Ping { slot, generation, address, sequence } => {
                    self.checker.packet_left(shard, 0, now);
                    self.driver.ping(shard, slot, generation, address, sequence, now);
                }
                shard::Effect::Syn { slot, generation, address, attempt } => {
                    self.checker.packet_left(shard, 1, now);
                    self.driver.syn(shard, slot, generation, address, attempt, now);
                }
                shard::Effect::Resolve { name } => self.resolver.ask(shard, name, now),
                shard::Effect::SampleHost => self.host.ask(shard, now),
                shard::Effect::Transition(transition) => {
                    let passes = Span::from_nanos(self.rng.u64(200..100_000));
                    let after = self.desk.inbox.back().map_or(now, |(at, _)| *at);
                    self.desk.inbox.push_back(((now + passes).max(after), desk::Event::Transition(transition)));
                }
                shard::Effect::Report { states, .. } => self.checker.reported(shard, &states, now),
            }
        }
        self.shards[number].ring.enter(Wait::NONE).expect("a simulated ring is never broken");
        self.tell_room();
    }

    /// The shards hear whether the desk's inbox has room.
    fn tell_room(&mut self) {
        let full = self.desk.inbox.len() > self.plan.desk_room;
        if full != self.desk.full {
            self.desk.full = full;
            for shard in &mut self.shards {
                shard.inbox.push_back((self.now, shard::Event::DeskFull(full)));
            }
        }
    }

    fn step_desk(&mut self) {
        let now = self.now;
        self.desk.late = self.lateness();
        let mut events = Vec::new();
        while self.desk.inbox.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, event)) = self.desk.inbox.pop_front() else { break };
            note_desk_event(&mut self.trace, now, &event);
            let Checker { notices, coverage, .. } = &mut self.checker;
            match &event {
                desk::Event::Transition(transition) => notices.hears(transition, now, coverage),
                desk::Event::Durable(sequence) => notices.durable(*sequence),
                desk::Event::Disable(monitor) => notices.switched(*monitor, false, coverage),
                desk::Event::Enable(monitor) => notices.switched(*monitor, true, coverage),
                desk::Event::Drain => notices.drains(),
                desk::Event::Delivered { notice, .. } => notices.heard_back(*notice, now, coverage),
                desk::Event::Outbox { change, selection, .. } => notices.outbox_changes(*change, selection, coverage),
                desk::Event::Test { destination, color, .. } => notices.tests(destination, *color),
                desk::Event::Read { .. } => notices.asked(),
                desk::Event::Reloaded { .. } | desk::Event::Wall { .. } => {}
            }
            events.push(event);
        }
        self.events += events.len() as u64;
        let mut effects = Vec::new();
        self.desk.machine.step(now, events, &mut effects);
        for effect in effects {
            note_desk_effect(&mut self.trace, now, &effect);
            let Checker { notices, coverage, .. } = &mut self.checker;
            match effect {
                desk::Effect::Commit(batch) => {
                    notices.committed(&batch, now, coverage);
                    if let Err(text) = self.store.commit(batch, now) {
                        self.fail("durability", text);
                    }
                }
                desk::Effect::Deliver { id, notice } => {
                    notices.delivers(id, &notice, now, coverage);
                    self.lane.deliver(id, notice, now);
                }
                desk::Effect::Command(command) => {
                    notices.commanded(command, now);
                    // Long enough, at times, for what the shard says meanwhile to be stale.
                    let longest = if self.rng.u8(0..4) == 0 { 80_000_000 } else { 200_000 };
                    let passes = Span::from_nanos(self.rng.u64(200..longest));
                    let commands = &mut self.shards[usize::from(command.monitor.shard())].commands;
                    let after = commands.back().map_or(now, |(at, _)| *at);
                    commands.push_back(((now + passes).max(after), shard::Event::Command(command)));
                }
                desk::Effect::Report { answer, .. } => notices.answered(&answer, now),
                desk::Effect::Story(_) => {}
            }
        }
        self.checker.notices.counted(self.desk.machine.stats(), now);
        self.tell_room();
    }

    fn report(mut self) -> Report {
        let coverage = &mut self.checker.coverage;
        coverage.add(Section::Turn, "an errand was recalled", self.driver.recalled);
        coverage.add(Section::Turn, "an echo came twice or late", self.driver.echoed_late);
        coverage.add(Section::Turn, "a SYN was sent again", self.driver.syns_again);
        coverage.add(Section::Turn, "an answer to a SYN was not seen", self.driver.unseen);
        coverage.add(Section::Turn, "a job was late", self.jobs.late);
        for shard in &self.shards {
            let counts = shard.ring.counts();
            coverage.add(Section::Turn, "a read was cut short", counts.short_reads);
            coverage.add(Section::Turn, "completions were reordered", counts.reordered);
            coverage.add(Section::Turn, "a completion was late", counts.late);
            coverage.add(Section::Turn, "a server scolded for idleness", counts.scolded);
            coverage.add(Section::Turn, "a connect won against its disconnect", counts.connect_won);
            coverage.add(Section::Turn, "a connect lost against its disconnect", counts.connect_lost);
            coverage.add(Section::Turn, "a handshake was told of by the kernel", counts.stamped);
            coverage.add(Section::Turn, "a handshake was told of that cannot have been", counts.misstamped);
        }
        Report {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            events: self.events,
            steps: self.steps,
            lasted: self.now.since(self.plan.start),
            coverage: std::mem::take(coverage),
            failure: self.failure,
            lines: self.trace.into_lines(),
        }
    }
}

fn new_desk(plan: &Plan, catalog: &Arc<Catalog>, stored: Stored, process: u64, now: Instant) -> Desk {
    let settings = desk::Settings {
        instance: "sim".into(),
        queue_capacity: plan.queue_capacity,
        fallback: plan.fallback(),
        repeat_interval: plan.repeat_interval,
        merges: false,
        seed: plan.seed ^ process << 32,
    };
    Desk::new(settings, Arc::clone(catalog), stored, now)
}
