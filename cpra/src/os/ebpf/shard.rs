//! One shard's part of the signals: what it awaits, and what has come.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aya::maps::{MapData, RingBuf};
use cpra_common::{Answer, Count, Return, Settings, fold_bytes};

use super::connects::Connects;
use super::mapped::{Mapped, SharedTicket};
use crate::probe::errand::Echo;
use crate::shard::Event;
use crate::units::{Generation, Instant, Slot, Span};

/// What kind of request it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Echo,
    Syn,
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub kind: Kind,
    pub slot: Slot,
    pub generation: Generation,
    pub sequence: u16,
    pub address: IpAddr,
    /// See [`cpra_common::Ticket::cookie`]. Never 0.
    pub cookie: u64,
    /// By our own clock, for requests that pass no hook of ours.
    pub sent: Instant,
}

/// What is awaited on one slot; no cookie where nothing is.
#[derive(Clone, Copy, Default)]
struct Awaited {
    cookie: u64,
    sent: Instant,
    generation: Generation,
    sequence: u16,
    kind: Kind,
}

pub struct ShardSignals {
    shard: u8,
    settings: Settings,
    tickets: Arc<Mapped<SharedTicket>>,
    counts: Arc<Mapped<AtomicU64>>,
    /// By shard.
    heeded: Arc<Mapped<AtomicU64>>,
    ring: RingBuf<MapData>,
    /// Until the ring of the shard's sockets takes it.
    connects: Option<Connects>,
    whole: Arc<AtomicBool>,
    ledger: Ledger,
    /// The count when the tickets were last looked through.
    overflowed: u64,
}

impl ShardSignals {
    pub(super) fn new(
        shard: u8,
        settings: Settings,
        tickets: Arc<Mapped<SharedTicket>>,
        counts: Arc<Mapped<AtomicU64>>,
        heeded: Arc<Mapped<AtomicU64>>,
        ring: RingBuf<MapData>,
        whole: Arc<AtomicBool>,
    ) -> Self {
        Self {
            shard,
            settings,
            tickets,
            counts,
            heeded,
            ring,
            connects: None,
            whole,
            ledger: Ledger::default(),
            overflowed: 0,
        }
    }

    /// What this shard's echo requests are to be told by.
    pub const fn tag(&self) -> u32 {
        self.settings.tag | self.shard as u32
    }

    /// The first source port for SYNs, and how many there are.
    pub const fn ports(&self) -> (u16, u16) {
        (self.settings.port, self.settings.ports)
    }

    #[must_use]
    pub(super) fn with_connects(self, connects: Option<Connects>) -> Self {
        Self { connects, ..self }
    }

    /// What tells of the shard's connects, once.
    pub fn connects(&mut self) -> Option<Connects> {
        self.connects.take()
    }

    /// Whether every interface that requests may leave by has our programs.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Readable while returns wait.
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Whether a return may end the next sleeps. When many come, looking often is cheaper than to be woken by each; one that
    /// comes while this changes waits for the next look.
    pub fn heed(&self, heed: bool) {
        if let Some(heeded) = self.heeded.get(self.shard.into()) {
            heeded.store(heed.into(), Ordering::SeqCst);
        }
    }

    /// Answers of which the programs told us.
    pub const fn heard(&self, kind: Kind) -> u64 {
        self.ledger.heard[kind as usize]
    }

    pub fn count(&self, what: Count) -> u64 {
        self.counts.get(what as u32).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Answers that were strange, and those that overflowed. They are counted for all shards together, so that only the
    /// first tells.
    pub fn troubles(&self) -> (u64, u64) {
        if self.shard == 0 { (self.count(Count::Strange), self.count(Count::Overflowed)) } else { (0, 0) }
    }

    /// The number of a slot's ticket; `None` for slots that have none.
    pub const fn number(&self, slot: Slot) -> Option<u32> {
        if slot.0 < self.settings.tickets { Some(self.shard as u32 * self.settings.tickets + slot.0) } else { None }
    }

    /// The number after this shard's last one.
    pub const fn numbers_end(&self) -> u32 {
        (self.shard as u32 + 1).saturating_mul(self.settings.tickets)
    }

    fn ticket(&self, slot: Slot) -> Option<&SharedTicket> {
        self.tickets.get(self.number(slot)?)
    }

    /// Writes a request's ticket; to be called before it is sent. What was awaited on this slot no longer is. Answers
    /// whether the slot has a ticket.
    pub fn expect(&mut self, expected: &Expected) -> bool {
        let Some(ticket) = self.ticket(expected.slot) else { return false };
        // Nothing is awaited while the ticket is of two requests.
        ticket.cookie.store(0, Ordering::SeqCst);
        ticket.sent.store(0, Ordering::Relaxed);
        ticket.returned.store(0, Ordering::Relaxed);
        ticket.answer.store(0, Ordering::Relaxed);
        ticket.peer.store(fold_bytes(octets(expected.address)), Ordering::Relaxed);
        ticket.cookie.store(expected.cookie, Ordering::Release);
        let index = expected.slot.index();
        let awaited = &mut self.ledger.awaited;
        if awaited.len() <= index {
            awaited.resize(index + 1, Awaited::default());
        }
        let Expected { kind, generation, sequence, cookie, sent, .. } = *expected;
        awaited[index] = Awaited { cookie, sent, generation, sequence, kind };
        true
    }

    /// Takes what has come.
    pub fn hear(&mut self, heard: &mut Vec<Event<'static>>) {
        let first = u32::from(self.shard) * self.settings.tickets;
        while let Some(item) = self.ring.next() {
            let Some(back) = Return::from_bytes(&item) else { continue };
            let Some(slot) = back.index.checked_sub(first).map(Slot) else { continue };
            let returned = || self.tickets.get(back.index).map_or(0, |ticket| ticket.returned.load(Ordering::Relaxed));
            self.ledger.settle(slot, &back, Some(address(back.from)), returned, heard);
        }
        let overflowed = self.count(Count::Overflowed);
        if overflowed != self.overflowed {
            self.overflowed = overflowed;
            self.look_through(heard);
        }
    }

    /// The ring had no room for some: the tickets know what has become of them.
    fn look_through(&mut self, heard: &mut Vec<Event<'static>>) {
        for slot in (0..self.ledger.awaited.len() as u32).map(Slot) {
            let Some(index) = self.number(slot) else { return };
            let Some(ticket) = self.tickets.get(index) else { return };
            let answer = ticket.answer.load(Ordering::Acquire).to_ne_bytes();
            let (sent, returned) = (ticket.sent.load(Ordering::Relaxed), ticket.returned.load(Ordering::Relaxed));
            if returned == 0 {
                continue;
            }
            let rtt = if sent == 0 { u64::MAX } else { returned.saturating_sub(sent) };
            let cookie = self.ledger.awaited[slot.index()].cookie;
            let back = Return { index, answer, cookie, rtt, ..Return::default() };
            self.ledger.settle(slot, &back, None, || returned, heard);
        }
    }
}

/// What a shard awaits, by slot as far as slots were used, and how many answers it has heard of, by [`Kind`].
#[derive(Default)]
struct Ledger {
    awaited: Vec<Awaited>,
    heard: [u64; 2],
}

impl Ledger {
    /// Tells of an answer that `from` gave, if it is awaited. `returned` is by the ticket, where the request passed no hook.
    fn settle(
        &mut self,
        slot: Slot,
        back: &Return,
        from: Option<IpAddr>,
        returned: impl FnOnce() -> u64,
        heard: &mut Vec<Event<'static>>,
    ) {
        let Some(request) = self.awaited.get_mut(slot.index()) else { return };
        let [what, kind, code, _] = back.answer;
        let Some(answer) = Answer::of(what).filter(|_| back.cookie != 0 && back.cookie == request.cookie) else {
            return;
        };
        request.cookie = 0;
        let rtt = match back.rtt {
            u64::MAX => Instant::from_nanos(returned()).since(request.sent),
            rtt => Span::from_nanos(rtt),
        };
        let echo = match answer {
            Answer::Reply => Echo::Reply { rtt },
            Answer::Refused if request.kind == Kind::Syn => Echo::Refused { rtt },
            Answer::Refused => return,
            Answer::Error => Echo::Error { kind, code, from },
        };
        self.heard[request.kind as usize] += 1;
        heard.push(Event::Echoed { slot, generation: request.generation, sequence: request.sequence, echo });
    }
}

/// As on the wire; IPv4 as `::ffff:a.b.c.d`.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(octets);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}
