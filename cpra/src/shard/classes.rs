//! Who may start: each class of checks has its own line and its own workers.
//!
//! ```text
//!  due ──▶ line of its kind (tcp, http, ...) ──worker──▶ flight ── far beyond its kind's times ──▶ overdue ─┐
//!    └───▶ line of the suspects ─────────worker──────────────────────────────────────────────────────▶ suspects' flights
//! ```
//! A class is a failure domain: 500 scripts that hang hold the scripts' workers, and no other check waits for them.
//! Within a kind those that are out of order are set apart, twice. A monitor that is suspect or down is checked among
//! the *suspects*. And a check that takes far longer than its kind does (it will most likely time out) is *overdue*: from
//! then on it is one of the suspects, and its worker is free for the next one. If it was only slow, and ends well, its
//! kind learns from it.
//!
//! Workers are divided so: the kinds have what they need up to all but a quarter, the suspects the rest. So in a mass
//! outage the healthy keep their lag, and the suspects are spaced out: they wait in their line, first come, first
//! served, and the due times that pass meanwhile are counted as missed. Nobody is dropped.

use std::collections::VecDeque;

use super::names::Resolved;
use super::protocol::SUSPECTS;
use crate::domain::monitor::CheckKind;
use crate::queueing::controller::ADJUST_EVERY;
use crate::queueing::{Bounds, Controller, Decision, Demand, Report, Setup, Unreachable};
use crate::schedule::ReadyList;
use crate::units::limits::{OVERDUE_MIN, OVERDUE_UNKNOWN, TURN_MAX, UNREACHABLE_AFTER, UNREACHABLE_TOLD_EVERY};
use crate::units::{Instant, Slot, Span};

/// A kind of check, or the suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

/// One for each kind, and the suspects.
pub(super) const CLASSES: usize = CheckKind::ALL.len() + 1;

impl Class {
    pub(super) const SUSPECTS: Self = Self(CheckKind::ALL.len() as u8);

    pub(super) const fn of(kind: CheckKind) -> Self {
        Self(kind as u8)
    }

    /// All but the suspects.
    pub(super) fn kinds() -> impl Iterator<Item = Self> {
        CheckKind::ALL.into_iter().map(Self::of)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    fn name(self) -> &'static str {
        CheckKind::ALL.get(self.index()).map_or(SUSPECTS, |kind| kind.as_str())
    }
}

/// Flights by class.
pub(super) type Busy = [u32; CLASSES];

/// The waiting room and the workers of one class.
#[derive(Debug)]
struct Line {
    ready: ReadyList,
    /// Their address is known; they come before the ready list.
    resolved: VecDeque<Resolved>,
    controller: Controller,
    /// The most flights there may be: what the controller wants, as far as all of them together may have it.
    workers: u32,
    /// What the class needs, before anything is given to it beyond that.
    needed: u32,
    /// Flights in the order of their start; those that have ended are passed over when their time comes.
    flights: VecDeque<(Slot, Instant)>,
    /// A check that takes longer is overdue.
    overdue_after: Span,
    /// Whether there ever was anything to do.
    in_use: bool,
    /// As of the last adjustment.
    demand: Demand,
}

/// One more that may start, from the front of a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Resolved(Resolved),
    Ready(u32),
}

#[derive(Debug)]
pub(super) struct Classes {
    lines: Box<[Line]>,
    setup: Setup,
    next_adjustment: Instant,
    /// Which class comes first this time.
    turn: usize,
    /// Since when the goal is missed.
    missed_since: Option<Instant>,
    told_at: Option<Instant>,
}

impl Classes {
    /// `rates`: checks a second by kind, as the intervals say.
    pub(super) fn new(setup: Setup, rates: &[f64; CheckKind::ALL.len()], now: Instant) -> Self {
        let line = |index: usize| {
            let rate = rates.get(index).copied().unwrap_or(0.0);
            let bounds = Bounds { min: 1, ..setup.bounds };
            let controller = Controller::new(Setup { bounds, ..setup }, rate, now);
            Line {
                ready: ReadyList::default(),
                resolved: VecDeque::new(),
                workers: controller.workers(),
                needed: controller.workers(),
                controller,
                flights: VecDeque::new(),
                overdue_after: OVERDUE_UNKNOWN,
                in_use: rate > 0.0,
                demand: Demand::default(),
            }
        };
        let mut classes = Self {
            lines: (0..CLASSES).map(line).collect(),
            setup,
            next_adjustment: now + ADJUST_EVERY,
            turn: 0,
            missed_since: None,
            told_at: None,
        };
        classes.divide(&[0; CLASSES]);
        classes
    }

    fn line(&mut self, class: Class) -> &mut Line {
        &mut self.lines[class.index()]
    }

    /// A monitor is due, and waits in its class's line from now on.
    pub(super) fn arrived(&mut self, class: Class, index: u32, due: Instant) {
        let line = self.line(class);
        line.in_use = true;
        line.controller.arrived(due);
        line.ready.push(index);
    }

    /// A check waits with its address. It has been counted as arrived.
    pub(super) fn resolved(&mut self, class: Class, resolved: Resolved) {
        self.line(class).resolved.push_back(resolved);
    }

    pub(super) fn ready(&self) -> usize {
        self.lines.iter().map(|line| line.ready.len()).sum()
    }

    pub(super) fn resolved_waiting(&self) -> usize {
        self.lines.iter().map(|line| line.resolved.len()).sum()
    }

    /// The classes in the order in which they may start now. They take turns, the suspects among them: were they always
    /// the last, and slots so short that each is taken at once, nobody would ever look at them again.
    pub(super) fn in_turn(&mut self) -> impl Iterator<Item = Class> + use<> {
        self.turn = (self.turn + 1) % CLASSES;
        let first = self.turn;
        (0..CLASSES).map(move |offset| Class(((first + offset) % CLASSES) as u8))
    }

    /// The first of a line, if its class has a worker for it.
    pub(super) fn next(&mut self, class: Class, busy: &Busy) -> Option<Next> {
        let line = self.line(class);
        if busy[class.index()] >= line.workers {
            return None;
        }
        if let Some(resolved) = line.resolved.pop_front() {
            return Some(Next::Resolved(resolved));
        }
        line.ready.pop().map(Next::Ready)
    }

    /// Who will come out of the ready list next, if nothing else does.
    pub(super) fn ahead(&self, class: Class) -> impl Iterator<Item = u32> + '_ {
        self.lines[class.index()].ready.iter()
    }

    /// It could not start after all: there is no slot.
    pub(super) fn put_back(&mut self, class: Class, next: Next) {
        let line = self.line(class);
        match next {
            Next::Resolved(resolved) => line.resolved.push_front(resolved),
            Next::Ready(index) => line.ready.push_front(index),
        }
    }

    /// Whether one of the class could start now, if there is a slot.
    pub(super) fn may_start(&self, class: Class, busy: &Busy) -> bool {
        let line = &self.lines[class.index()];
        busy[class.index()] < line.workers && !(line.ready.is_empty() && line.resolved.is_empty())
    }

    pub(super) fn may_any_start(&self, busy: &Busy) -> bool {
        (0..CLASSES).any(|index| self.may_start(Class(index as u8), busy))
    }

    /// These monitors are watched no more.
    pub(super) fn forget_ready(&mut self, leaves: impl Fn(u32) -> bool) {
        for line in &mut *self.lines {
            line.ready.forget(&leaves);
        }
    }

    pub(super) fn forget_resolved(&mut self, leaves: impl Fn(u32) -> bool) {
        for line in &mut *self.lines {
            line.resolved.retain(|resolved| !leaves(resolved.waiting.monitor));
        }
    }

    /// Other intervals: what is to be expected of a kind, as far as it is not measured.
    pub(super) fn expect(&mut self, rates: &[f64; CheckKind::ALL.len()]) {
        for (line, rate) in self.lines.iter_mut().zip(rates) {
            line.in_use |= *rate > 0.0;
            line.controller.expect(*rate);
        }
    }

    /// A check got its worker, or was judged without one.
    pub(super) fn started(&mut self, class: Class, wait: Span) {
        self.line(class).controller.started(wait);
    }

    /// A check got its slot.
    pub(super) fn seated(&mut self, class: Class, slot: Slot, now: Instant) {
        if class != Class::SUSPECTS {
            self.line(class).flights.push_back((slot, now));
        }
    }

    /// A check has ended, and its worker was busy with it for `service`.
    pub(super) fn ended(&mut self, class: Class, service: Span, result: Span) {
        self.line(class).controller.ended(service, result);
    }

    /// A worker was held this long because we had not yet sent, or not yet looked.
    pub(super) fn delayed(&mut self, class: Class, delay: Span) {
        self.line(class).controller.delayed(delay.min(TURN_MAX));
    }

    /// A check held a worker of this class for so long before it was taken from it.
    pub(super) fn held(&mut self, class: Class, service: Span) {
        self.line(class).controller.held(service);
    }

    /// A check of a kind has become one of the suspects'.
    pub(super) fn became_suspect(&mut self, now: Instant) {
        let line = self.line(Class::SUSPECTS);
        line.in_use = true;
        line.controller.arrived(now);
    }

    /// The next flight of a kind whose time is up. The suspects must have room for it: if they do not, the kind's own
    /// workers are what is left to hold it. `flies` tells whether a flight has not ended yet.
    pub(super) fn next_overdue(
        &mut self,
        class: Class,
        busy: &Busy,
        now: Instant,
        flies: impl Fn(Slot, Instant) -> bool,
    ) -> Option<(Slot, Instant)> {
        let has_room = self.has_room_for_suspects(busy);
        let line = self.line(class);
        // Those that ended behind a long one must not pile up.
        if line.flights.len() > 2 * busy[class.index()] as usize + FLIGHTS_ENDED_MAX {
            line.flights.retain(|&(slot, since)| flies(slot, since));
        }
        while let Some(&(slot, since)) = line.flights.front() {
            if flies(slot, since) {
                let is_overdue = since + line.overdue_after <= now;
                return if is_overdue && has_room { line.flights.pop_front() } else { None };
            }
            line.flights.pop_front();
        }
        None
    }

    fn has_room_for_suspects(&self, busy: &Busy) -> bool {
        busy[Class::SUSPECTS.index()] < self.suspects_max()
    }

    /// A kind that is full, and could have a worker back when its oldest flight is overdue.
    pub(super) fn next_deadline(&self, busy: &Busy) -> Option<Instant> {
        let has_room = self.has_room_for_suspects(busy);
        let blocked = self
            .lines
            .iter()
            .zip(busy)
            .filter(|(line, busy)| **busy >= line.workers && !(line.ready.is_empty() && line.resolved.is_empty()));
        blocked
            .flat_map(|(line, _)| {
                let first = line.flights.front().filter(|_| has_room);
                let overdue = first.map(|&(_, since)| since + line.overdue_after);
                overdue.into_iter().chain([self.next_adjustment])
            })
            .min()
    }

    /// Thinks about how many workers each class has, if it is time to. `waited` tells how long the first of a line has
    /// waited, which is in one of the two parts of it.
    pub(super) fn adjust(
        &mut self,
        now: Instant,
        busy: &Busy,
        waited: impl Fn(Option<&Resolved>, Option<u32>) -> Span,
    ) -> bool {
        if now < self.next_adjustment {
            return false;
        }
        self.next_adjustment = now + ADJUST_EVERY;
        for (index, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| line.in_use) {
            line.demand = Demand {
                busy: busy[index],
                waiting: u32::try_from(line.ready.len() + line.resolved.len()).unwrap_or(u32::MAX),
                longest_wait: waited(line.resolved.front(), line.ready.first()),
            };
            if let Some(decision) = line.controller.adjust(now, line.demand) {
                log(Class(index as u8), &decision);
            }
            line.needed = line.controller.workers();
            // What nobody has ended lately takes as long as it took before.
            let longest = line.controller.reading().service_times.p999;
            if longest > Span::ZERO {
                line.overdue_after = longest.scaled(OVERDUE_FACTOR, 1).max(OVERDUE_MIN);
            }
        }
        self.divide(busy);
        self.watch_goal(now);
        true
    }

    /// What the kinds may have together while there are suspects: all but a quarter.
    fn kinds_max(&self, busy: &Busy) -> u32 {
        let suspects = &self.lines[Class::SUSPECTS.index()];
        let wanted = if suspects.in_use { suspects.needed.max(busy[Class::SUSPECTS.index()]) } else { 0 };
        self.setup.bounds.max.saturating_sub(wanted.min(self.quarter())).max(1)
    }

    /// What the suspects may have in any case: a quarter, and one at least where there are several.
    fn quarter(&self) -> u32 {
        let max = self.setup.bounds.max;
        max.div_ceil(4).min(max.saturating_sub(1))
    }

    /// What the suspects may have: all that the kinds do not need at this moment, and a quarter in any case.
    fn suspects_max(&self) -> u32 {
        let max = self.setup.bounds.max;
        let needed: u64 = self.kinds().map(|line| u64::from(line.controller.answer().workers)).sum();
        let left = u64::from(max).saturating_sub(needed) as u32;
        left.max(self.quarter()).max(1)
    }

    fn kinds(&self) -> impl Iterator<Item = &Line> {
        self.lines[..CheckKind::ALL.len()].iter().filter(|line| line.in_use)
    }

    /// Gives each class its workers.
    fn divide(&mut self, busy: &Busy) {
        let (max, min) = (self.kinds_max(busy), self.setup.bounds.min);
        let suspects_max = self.suspects_max();
        let needed: u64 = self.kinds().map(|line| u64::from(line.needed)).sum::<u64>().max(1);
        // Beyond what they need the kinds get what is left up to `min_workers`, and less than they need where there is
        // not enough: both in proportion to their needs.
        let target = needed.clamp(u64::from(min.min(max)), u64::from(max));
        for line in &mut self.lines[..CheckKind::ALL.len()] {
            let share = (u64::from(line.needed) * target).div_ceil(needed);
            line.workers = u32::try_from(share).unwrap_or(u32::MAX).clamp(1, max);
        }
        let suspects = self.line(Class::SUSPECTS);
        suspects.workers = suspects.needed.clamp(1, suspects_max);
    }

    /// Whether the kinds keep what was promised, and a word about it if they do not.
    fn watch_goal(&mut self, now: Instant) {
        let Some((class, line)) = (0..CheckKind::ALL.len())
            .map(|index| (Class(index as u8), &self.lines[index]))
            .find(|(_, line)| line.in_use && line.misses())
        else {
            self.missed_since = None;
            return;
        };
        let since = *self.missed_since.get_or_insert(now);
        let told = self.told_at.is_some_and(|told| now.since(told) < UNREACHABLE_TOLD_EVERY);
        if now.since(since) < UNREACHABLE_AFTER || told {
            return;
        }
        let (class, answer, reading) = (class.name(), line.controller.answer(), line.controller.reading());
        if line.workers < answer.needed {
            let (slo, workers) = (self.setup.slo, line.workers);
            let unreachable = Unreachable { pipeline: "pulse", slo, answer, workers };
            tracing::warn!(class, wait_p95 = %reading.waits.p95, "the pulse pipeline does not keep its SLO: {unreachable}");
        } else {
            tracing::warn!(
                class,
                workers = line.workers,
                rate = reading.load.rate,
                service_seconds = answer.service,
                wait_p95 = %reading.waits.p95,
                "the pulse pipeline does not keep its SLO, and more workers would not help: this host is too slow for \
                 these checks"
            );
        }
        self.told_at = Some(now);
    }

    /// What people read about each class.
    pub(super) fn reports(&self, now: Instant, reports: &mut Vec<Report>) {
        reports.clear();
        let unreachable = self.missed_since.is_some_and(|since| now.since(since) >= UNREACHABLE_AFTER);
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| line.in_use) {
            let class = Class(index as u8);
            reports.push(Report {
                class: class.name(),
                workers: line.workers,
                demand: line.demand,
                arrivals: line.controller.reading().load,
                answer: *line.controller.answer(),
                service_times: line.controller.reading().service_times,
                waits: line.controller.reading().waits,
                results: line.controller.reading().results,
                unreachable: unreachable && class != Class::SUSPECTS && line.misses(),
            });
        }
    }
}

impl Line {
    /// The goal is missed: by the workers that there may be, or by what was measured.
    fn misses(&self) -> bool {
        self.workers < self.controller.answer().needed || self.controller.is_late()
    }
}

/// Flights that have ended, and are still in the list of those that might be overdue: as many as there are busy workers,
/// and these.
const FLIGHTS_ENDED_MAX: usize = 1024;

/// So many times the longest of a thousand checks of a kind are out of all proportion.
const OVERDUE_FACTOR: u64 = 4;

fn log(class: Class, decision: &Decision) {
    tracing::debug!(class = class.name(), "sizing: {decision}");
}
