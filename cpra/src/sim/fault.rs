//! What goes wrong on this host, and when: everything but the targets' own failures.

use fastrand::Rng;

use super::lane::Mood;
use super::plan::DESTINATIONS;
use crate::ring::Errno;
use crate::units::limits::{STALL, VOID_PATIENCE};
use crate::units::{Instant, Span};

/// One fault. Those with a length end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connects fail with an error of this host's own, this many in 256.
    Connect(Errno, bool, u8),
    /// Transfers do.
    Transfer(Errno, u8),
    /// No sockets are made.
    Open(Errno),
    /// Completions take up to this long.
    Late(Span),
    /// The whole process stands still.
    Stop,
    /// One shard's thread does.
    ShardStop(u8),
    /// The desk's thread does.
    DeskStop,
    /// This host drops packets, this many in 256, and counts them.
    Drops(u8),
    /// The connection table is full: every other packet is lost.
    TableFull,
    /// Readings of the host's counters take up to this long.
    SlowReadings(Span),
    SlowResolver,
    DeadResolver,
    /// What sees the answers to half-open checks is gone.
    Blind,
    /// Nothing becomes durable.
    StoreStuck,
    /// Nothing can be written.
    StoreFull,
    /// The destination of this number, or all of them.
    Lane(Option<usize>, Mood),
    /// The wall clock is set, by this many seconds.
    WallStep(i32),
    /// The process dies and starts anew.
    Crash,
    /// It dies, and its store cannot be read any more.
    StoreDamaged,
    /// A person's word about the outbox: all of it, the dead, what goes to the destination of this number.
    Retry(Meant),
    Drop(Meant),
    /// A person wants to see whether notices arrive at the destination of this number.
    Test(usize),
    /// A person's word about the monitor of this number.
    Disable(usize),
    Enable(usize),
    CheckNow(usize),
}

/// Which notices a person means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    All,
    Dead,
    To(usize),
    /// The newest.
    One,
}

impl Fault {
    pub const KINDS: [&'static str; 25] = [
        "connect",
        "transfer",
        "open",
        "late",
        "stop",
        "shard-stop",
        "desk-stop",
        "drops",
        "table-full",
        "slow-readings",
        "slow-resolver",
        "dead-resolver",
        "store-stuck",
        "lane",
        "wall-step",
        "crash",
        "disable",
        "enable",
        "check-now",
        "blind",
        "store-full",
        "store-damaged",
        "outbox-retry",
        "outbox-drop",
        "test",
    ];

    pub const fn kind(self) -> usize {
        match self {
            Self::Connect(..) => 0,
            Self::Transfer(..) => 1,
            Self::Open(_) => 2,
            Self::Late(_) => 3,
            Self::Stop => 4,
            Self::ShardStop(_) => 5,
            Self::DeskStop => 6,
            Self::Drops(_) => 7,
            Self::TableFull => 8,
            Self::SlowReadings(_) => 9,
            Self::SlowResolver => 10,
            Self::DeadResolver => 11,
            Self::StoreStuck => 12,
            Self::Lane(..) => 13,
            Self::WallStep(_) => 14,
            Self::Crash => 15,
            Self::Disable(_) => 16,
            Self::Enable(_) => 17,
            Self::CheckNow(_) => 18,
            Self::Blind => 19,
            Self::StoreFull => 20,
            Self::StoreDamaged => 21,
            Self::Retry(_) => 22,
            Self::Drop(_) => 23,
            Self::Test(_) => 24,
        }
    }

    /// Whether it is over as soon as it has happened.
    pub const fn is_momentary(self) -> bool {
        matches!(
            self,
            Self::WallStep(_)
                | Self::Crash
                | Self::StoreDamaged
                | Self::Retry(_)
                | Self::Drop(_)
                | Self::Test(_)
                | Self::Disable(_)
                | Self::Enable(_)
                | Self::CheckNow(_)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub at: Instant,
    pub until: Instant,
    pub fault: Fault,
}

/// What faults are drawn for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    pub(super) from: Instant,
    pub(super) until: Instant,
    pub(super) monitors: usize,
    /// How late completions may be and still serve the shortest timeout.
    pub(super) late: Span,
}

impl Ground {
    /// At least five faults of at least three kinds, by their beginning.
    pub(super) fn draw(self, rng: &mut Rng, patient: bool) -> Vec<Scheduled> {
        let Self { from: start, until: end, monitors, late } = self;
        let storm = end.since(start);
        let mut faults = Vec::new();
        let mut add = |rng: &mut Rng, fault: Fault, longest: Span| {
            let at = start + Span::from_micros(rng.u64(0..storm.as_micros()));
            // A pause that is shorter than a stall would be the target's fault, by decision: none is drawn.
            let least = if matches!(fault, Fault::Stop | Fault::ShardStop(_)) {
                STALL + Span::from_millis(10)
            } else {
                Span::from_millis(10)
            };
            let longest = longest.min(storm).max(least + least);
            let length = Span::from_micros(rng.u64(least.as_micros()..longest.as_micros()));
            // A machine that sleeps: longer than a turn of any wheel.
            if fault == Fault::Stop && rng.u8(0..16) == 0 {
                faults.push(Scheduled { at, until: at + Span::from_secs(rng.u64(40..400)), fault });
                return;
            }
            let until = if fault.is_momentary() { at } else { (at + length).min(end.max(at + least)) };
            faults.push(Scheduled { at, until, fault });
        };
        let mut kinds = Vec::new();
        for _ in 0..rng.usize(6..16) {
            let (fault, longest) = any(rng, monitors, late);
            if !kinds.contains(&fault.kind()) {
                kinds.push(fault.kind());
            }
            add(rng, fault, longest);
        }
        while kinds.len() < 3 {
            let (fault, longest) = any(rng, monitors, late);
            if !kinds.contains(&fault.kind()) {
                kinds.push(fault.kind());
                add(rng, fault, longest);
            }
        }
        for _ in 0..rng.usize(0..8) {
            let monitor = rng.usize(0..monitors);
            add(rng, Fault::Disable(monitor), Span::ZERO);
            if rng.u8(0..4) > 0 {
                add(rng, Fault::Enable(monitor), Span::ZERO);
            }
            let other = rng.usize(0..monitors);
            add(rng, Fault::CheckNow(other), Span::ZERO);
        }
        for _ in 0..rng.usize(0..4) {
            let who = rng.usize(0..DESTINATIONS);
            let meant = [Meant::All, Meant::Dead, Meant::To(who), Meant::One][rng.usize(0..4)];
            let wish = [Fault::Retry(meant), Fault::Drop(meant), Fault::Test(who)][rng.usize(0..3)];
            add(rng, wish, Span::ZERO);
        }
        if rng.u8(0..3) == 0 {
            // Again and again: what one process has not finished the next one may not, either.
            for _ in 0..rng.usize(1..6) {
                add(rng, Fault::Crash, Span::ZERO);
            }
        }
        for _ in 0..rng.usize(0..8) {
            // Off and on again, before the shard has heard of the one or the other.
            let monitor = rng.usize(0..monitors);
            let at = start + Span::from_micros(rng.u64(0..storm.as_micros()));
            let then = at + Span::from_micros(rng.u64(0..20_000));
            faults.push(Scheduled { at, until: at, fault: Fault::Disable(monitor) });
            faults.push(Scheduled { at: then, until: then, fault: Fault::Enable(monitor) });
        }
        if rng.u8(0..8) == 0 {
            // Before the first socket is made.
            let until = start + Span::from_millis(rng.u64(50..3_000));
            faults.push(Scheduled { at: start, until, fault: Fault::Open(descriptors(rng)) });
        }
        if patient {
            let at = start + Span::from_secs(rng.u64(5..20));
            let until = at + VOID_PATIENCE + Span::from_secs(rng.u64(20..60));
            let fault = if rng.bool() { Fault::DeadResolver } else { Fault::Connect(local(rng), true, 255) };
            let is_kept = |fault| !matches!(fault, Fault::Crash | Fault::StoreDamaged | Fault::Connect(..));
            faults.retain(|scheduled| is_kept(scheduled.fault));
            faults.push(Scheduled { at, until, fault });
        }
        faults.sort_by_key(|scheduled| (scheduled.at, scheduled.until, scheduled.fault.kind()));
        faults
    }
}

fn any(rng: &mut Rng, monitors: usize, late: Span) -> (Fault, Span) {
    let secs = Span::from_secs;
    match rng.u8(0..42) {
        0..3 => {
            let errno = local(rng);
            (Fault::Connect(errno, true, if rng.bool() { 255 } else { rng.u8(30..200) }), secs(6))
        }
        3 | 4 => (Fault::Transfer(if rng.bool() { Errno::ENOBUFS } else { Errno::ENOMEM }, rng.u8(30..250)), secs(6)),
        5 => (Fault::Open(descriptors(rng)), secs(4)),
        6..9 => (Fault::Late(Span::from_micros(rng.u64(1_000..late.as_micros().max(1_001)))), secs(8)),
        9..12 => (Fault::Stop, secs(5)),
        12 | 13 => (Fault::ShardStop(rng.u8(0..2)), secs(2)),
        14 | 15 => (Fault::DeskStop, secs(8)),
        16..19 => (Fault::Drops(rng.u8(20..200)), secs(6)),
        19 | 20 => (Fault::TableFull, secs(5)),
        21 => (Fault::SlowReadings(Span::from_millis(rng.u64(5..1_500))), secs(10)),
        22 | 23 => (Fault::SlowResolver, secs(15)),
        24 | 25 => (Fault::DeadResolver, secs(15)),
        26 | 27 => (Fault::StoreStuck, secs(14)),
        28..31 => (Fault::Lane(None, mood(rng)), secs(6)),
        31 => (Fault::WallStep(rng.i32(-7_200..7_200)), secs(0)),
        32 => (Fault::Crash, secs(0)),
        33..38 => (Fault::Blind, secs(6)),
        38 => (Fault::Lane(Some(rng.usize(0..DESTINATIONS)), mood(rng)), secs(12)),
        // Nothing of the kind ever gets an answer.
        39 => (Fault::Lane(Some(rng.usize(0..DESTINATIONS)), Mood { unsure: 255, ..mood(rng) }), secs(20)),
        40 => (if rng.bool() { Fault::StoreFull } else { Fault::StoreDamaged }, secs(14)),
        _ => (Fault::CheckNow(rng.usize(0..monitors)), secs(0)),
    }
}

fn mood(rng: &mut Rng) -> Mood {
    let slow = if rng.bool() { Span::from_millis(rng.u64(1..300)) } else { Span::ZERO };
    let fallback = if rng.bool() { rng.u8(50..200) } else { 0 };
    let failed = if rng.bool() { rng.u8(20..150) } else { 0 };
    let share = |rng: &mut Rng| if rng.u8(0..3) == 0 { rng.u8(20..120) } else { 0 };
    let (unsure, unheard, refused, throttled) = (share(rng), share(rng), share(rng), share(rng));
    let after = if rng.u8(0..8) == 0 { Span::ZERO } else { Span::from_millis(rng.u64(100..8_000)) };
    Mood { slow, fallback, failed, unsure, unheard, refused, throttled, after }
}

fn descriptors(rng: &mut Rng) -> Errno {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM][rng.usize(0..4)]
}

/// What only this host can cause; the last three look like the network's answers but for the mark.
fn local(rng: &mut Rng) -> Errno {
    const LOCAL: [Errno; 9] = [
        Errno::ENOBUFS,
        Errno::EADDRNOTAVAIL,
        Errno::EMFILE,
        Errno::EPERM,
        Errno::EACCES,
        Errno::EINVAL,
        Errno::ENETDOWN,
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
    ];
    LOCAL[rng.usize(0..LOCAL.len())]
}
