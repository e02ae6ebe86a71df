//! What goes into a shard and what comes out of it, as values.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use crate::domain::health::{Phase, Resumed};
use crate::domain::monitor::CheckKind;
use crate::domain::{Code, Latency, Outcome, TransitionKind};
use crate::probe::errand::{Echo, Errand, ErrandEnd};
use crate::queueing::Report;
use crate::ring::{Completion, Errno, Family, Op};
use crate::units::{Generation, Instant, MonitorId, Slot, Span};
use crate::wire::tls::Contexts;
use crate::world::{Catalog, Changes};

/// Everything that can happen to a shard.
#[derive(Debug)]
pub enum Event<'a> {
    Completed(Completion<'a>),
    /// [`Effect::Open`] could not be carried out. What was submitted on the slot completes with the same error.
    OpenFailed {
        slot: Slot,
        errno: Errno,
    },
    /// An [`Effect::Errand`] is under way since `at`. Need not come; where it does, it comes before the end.
    Begun {
        slot: Slot,
        generation: Generation,
        at: Instant,
    },
    /// The end of an [`Effect::Errand`]: comes exactly once for each, also after [`Effect::Recall`].
    Returned {
        slot: Slot,
        generation: Generation,
        end: Box<ErrandEnd>,
    },
    /// Something came back for an [`Effect::Ping`] or an [`Effect::Syn`], or it could not be sent. Need not come at all.
    Echoed {
        slot: Slot,
        generation: Generation,
        sequence: u16,
        echo: Echo,
    },
    /// Whether half-open checks can be had from now on: a driver that can says so. While they cannot, those who ask for
    /// them connect.
    HalfOpen(bool),
    /// The answer to [`Effect::Resolve`]. Always comes, within [`crate::units::limits::RESOLVE_MAX`].
    Resolved {
        name: Box<str>,
        result: Resolution,
    },
    /// The answer to [`Effect::SampleHost`].
    HostSampled(HostSample),
    /// The job of a monitor that waits for its calls has called.
    Pushed {
        index: u32,
        /// Whether the job did what it is there for.
        ok: bool,
        /// The job's own words; may be empty.
        message: Box<str>,
    },
    Command(Command),
    /// The files were read again. [`super::Shard::generation`] tells when all that has changed is done.
    Reloaded(Reload),
    /// A question about monitors, answered by [`Effect::Report`] in the same step.
    Read {
        token: u64,
        indices: Vec<u32>,
    },
    /// Whether the desk can take more transitions. While it cannot, no check starts.
    DeskFull(bool),
    /// Start no more checks; [`super::Shard::is_drained`] tells when the last one has ended.
    Drain,
}

/// Another catalog.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The successor of the one that the shard has.
    pub catalog: Arc<Catalog>,
    pub changes: Arc<Changes>,
    /// What TLS is made from: files that it needs may have changed.
    pub contexts: Arc<dyn Contexts>,
}

/// Everything that a shard can want done.
#[derive(Debug)]
pub enum Effect {
    /// Make the slot's socket.
    Open {
        slot: Slot,
        family: Family,
    },
    /// Give up the slot's socket; an `Open` of another family follows.
    Close {
        slot: Slot,
    },
    /// Submit; `bytes` is a range of [`Effects::bytes`].
    Submit {
        slot: Slot,
        generation: Generation,
        op: Op,
        bytes: Range<u32>,
    },
    /// Do this; answered by [`Event::Returned`].
    Errand {
        slot: Slot,
        generation: Generation,
        errand: Errand,
    },
    /// Bring the slot's errand to an end: its result is not wanted any more. It may be said twice.
    Recall {
        slot: Slot,
        generation: Generation,
    },
    /// Send an echo request; answered by [`Event::Echoed`], perhaps.
    Ping {
        slot: Slot,
        generation: Generation,
        address: IpAddr,
        sequence: u16,
    },
    /// Send a SYN, the `attempt`th of its check, and bring what it opens at the peer to an end; answered by
    /// [`Event::Echoed`] with `attempt` as the sequence number, perhaps.
    Syn {
        slot: Slot,
        generation: Generation,
        address: SocketAddr,
        attempt: u16,
    },
    Resolve {
        name: Box<str>,
    },
    /// Read the host's drop counters: timed-out checks wait for them.
    SampleHost,
    Transition(Box<Transition>),
    Report {
        token: u64,
        states: Vec<MonitorState>,
    },
}

/// The effects of one step, with the bytes that its sends refer to.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    pub bytes: Vec<u8>,
}

impl Effects {
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }
}

/// A change of health, for the desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub monitor: MonitorId,
    pub epoch: u8,
    pub kind: TransitionKind,
    /// When the check was judged.
    pub at: Instant,
    pub outcome: Outcome,
}

/// The desk's word to a shard about one monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    pub monitor: MonitorId,
    pub kind: CommandKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// Stop watching; a check in flight ends and counts for nothing.
    Disable { epoch: u8 },
    /// Watch again, from Unknown.
    Enable { epoch: u8 },
    /// Watch it, from there on: its episode is older than what this shard knows of it.
    Resume { epoch: u8, resumed: Resumed },
    /// Could not be judged for too long: show as unknown.
    Obscure,
    /// Check now instead of at the next due time.
    CheckNow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// At least one address, in the order of preference, and how long they hold.
    Found { addresses: Vec<IpAddr>, ttl: Span },
    /// The name does not exist: the target's fault.
    NotFound,
    /// The resolver did not answer or refused: nobody knows.
    Failed(Box<str>),
}

/// What this host itself did to packets, as counters that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSample {
    /// When the reading began.
    pub taken: Instant,
    /// conntrack `drop` + `early_drop` of all processors.
    pub drops: u64,
    /// The conntrack table is at least 99 % full.
    pub table_full: bool,
}

/// One monitor's state, for the API.
#[derive(Clone, Debug)]
pub struct MonitorState {
    pub monitor: MonitorId,
    pub phase: Phase,
    pub degraded: bool,
    pub obscured: bool,
    /// Failures in a row, of the threshold in the policy.
    pub fails: u8,
    pub oks: u8,
    /// The last outcome's code; `None` before the first check.
    pub last: Option<Code>,
    pub last_at: Option<Instant>,
    pub next_due: Option<Instant>,
    /// Kept for monitors that are not ok.
    pub evidence: Option<Box<str>>,
    pub status: Option<u16>,
    pub latency: Option<Latency>,
}

/// Upper bounds of the histograms' buckets, in microseconds. Chosen so that every aim (2, 10, 20, 50, 100 ms) is a
/// bound and can be read off exactly.
pub const BUCKETS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// A histogram with fixed buckets: the last one is everything above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    pub counts: [u64; BUCKETS_US.len() + 1],
    pub sum: Span,
}

impl Histogram {
    pub fn record(&mut self, span: Span) {
        let micros = span.as_nanos().div_ceil(1_000);
        self.counts[BUCKETS_US.partition_point(|&bound| bound < micros)] += 1;
        self.sum = self.sum + span;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum + other.sum;
    }
}

/// The class of checks whose monitors are not up, and of those that take too long. Nothing is promised to them.
pub const SUSPECTS: &str = "suspects";

/// The exclusive states of `cpra_monitors{state}`.
pub const STATES: [&str; 9] =
    ["unknown", "up", "suspect", "waiting", "running", "verifying", "down", "unreachable", "disabled"];

/// What a shard has counted since its start. Copied out by the driver a few times a second.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStats {
    /// Monitors by state, in the order of [`STATES`].
    pub monitors: [u64; STATES.len()],
    pub degraded: u64,
    /// What the last audit missed; anything but zero is a defect.
    pub lost: u64,
    /// Judged checks by kind and [`Code::index`].
    pub checks: [[u64; Code::ALL.len()]; CheckKind::ALL.len()],
    pub missed: u64,
    pub skipped_busy: u64,
    /// Checks that took so much longer than their kind that they became the suspects'.
    pub overdue: u64,
    /// Checks that waited because of a bound of packets, in the order of [`PACKETS`].
    pub held: [u64; PACKETS.len()],
    /// Leaving the ready list − due.
    pub lag: Histogram,
    /// Due → judged.
    pub latency: Histogram,
    /// The attempts themselves, by kind, as this process saw them.
    pub duration: [Histogram; CheckKind::ALL.len()],
    /// SYN → SYN-ACK by the kernel's clock, of the connects for which it is known.
    pub connect_rtt: Histogram,
    pub ready: u64,
    pub in_flight: u64,
    pub slots: u64,
    pub idle_connections: u64,
    pub evidence_dropped: u64,
    pub stalls: u64,
    /// How many workers each class has, and why.
    pub sizing: Vec<Report>,
    pub echoes: EchoStats,
    pub syns: SynStats,
}

/// What a driver has sent and seen for half-open checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynStats {
    pub sent: u64,
    /// SYN-ACKs, resets, and errors that quote a SYN.
    pub answered: u64,
}

/// The packets that are bounded, by name.
pub const PACKETS: [&str; 2] = ["echo", "syn"];

/// What a driver's sockets for echo requests have seen; the shard itself hears of what is its own only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EchoStats {
    pub sent: u64,
    /// Replies, and errors that quote a request.
    pub received: u64,
    /// Came with our tag, and without a cookie of ours: made up, or tampered with.
    pub forged: u64,
    /// Replies for which the sockets had no room.
    pub dropped: u64,
    /// Of those received, what programs in the kernel told us of.
    pub signalled: u64,
    /// What named a request of ours and did not answer it; see `cpra_common::Count`. Of all shards, told by the first.
    pub strange: u64,
    /// Returns for which a ring had no room; likewise.
    pub overflowed: u64,
}

impl ShardStats {
    /// Adds another shard's counts to this one's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.monitors.iter_mut().zip(&other.monitors) {
            *mine += theirs;
        }
        for (mine, theirs) in self.checks.iter_mut().flatten().zip(other.checks.iter().flatten()) {
            *mine += theirs;
        }
        for (mine, theirs) in self.duration.iter_mut().zip(&other.duration) {
            mine.merge(theirs);
        }
        self.lag.merge(&other.lag);
        self.latency.merge(&other.latency);
        self.connect_rtt.merge(&other.connect_rtt);
        self.degraded += other.degraded;
        self.lost += other.lost;
        self.missed += other.missed;
        self.skipped_busy += other.skipped_busy;
        self.overdue += other.overdue;
        for (mine, theirs) in self.held.iter_mut().zip(other.held) {
            *mine += theirs;
        }
        self.ready += other.ready;
        self.in_flight += other.in_flight;
        self.slots += other.slots;
        self.idle_connections += other.idle_connections;
        self.evidence_dropped += other.evidence_dropped;
        self.stalls += other.stalls;
        self.echoes.sent += other.echoes.sent;
        self.echoes.received += other.echoes.received;
        self.echoes.forged += other.echoes.forged;
        self.echoes.dropped += other.echoes.dropped;
        self.echoes.signalled += other.echoes.signalled;
        self.echoes.strange += other.echoes.strange;
        self.echoes.overflowed += other.echoes.overflowed;
        self.syns.sent += other.syns.sent;
        self.syns.answered += other.syns.answered;
        Report::merge_all(&mut self.sizing, &other.sizing);
    }
}

impl Default for ShardStats {
    fn default() -> Self {
        Self {
            monitors: [0; STATES.len()],
            degraded: 0,
            lost: 0,
            checks: [[0; Code::ALL.len()]; CheckKind::ALL.len()],
            missed: 0,
            skipped_busy: 0,
            overdue: 0,
            held: [0; PACKETS.len()],
            lag: Histogram::default(),
            latency: Histogram::default(),
            duration: Default::default(),
            connect_rtt: Histogram::default(),
            ready: 0,
            in_flight: 0,
            slots: 0,
            idle_connections: 0,
            evidence_dropped: 0,
            stalls: 0,
            sizing: Vec::new(),
            echoes: EchoStats::default(),
            syns: SynStats::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(Span::from_micros(50));
        histogram.record(Span::from_nanos(50_001));
        histogram.record(Span::from_secs(3_600));
        assert_eq!((histogram.counts[0], histogram.counts[1]), (1, 1));
        assert_eq!(histogram.counts[BUCKETS_US.len()], 1);
        assert_eq!(histogram.count(), 3);
    }
}
