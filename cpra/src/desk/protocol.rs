//! What goes into the desk and what comes out of it, as values.

use std::sync::Arc;

use crate::domain::episode::State;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Notice, Provider};
use crate::shard::protocol::{Command, Transition};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::{Catalog, Changes};

#[derive(Debug)]
pub enum Event {
    Transition(Box<Transition>),
    /// Everything up to and including this commit is durable.
    Durable(u64),
    /// The code lane has tried to deliver a notice.
    Delivered {
        notice: NoticeId,
        delivered: Delivered,
    },
    /// A person's or the reload's word.
    Disable(MonitorId),
    Enable(MonitorId),
    /// The files were read again. Every transition that the shards said by the old catalog has come before this, and they go
    /// by the new one.
    Reloaded {
        catalog: Arc<Catalog>,
        changes: Arc<Changes>,
        /// Who hears of the daemon itself from now on.
        fallback: Arc<Destination>,
        who: Box<str>,
    },
    /// What the wall clock showed at an instant. Comes before anything else, and when the clock was stepped.
    Wall {
        at: Instant,
        shows: Timestamp,
    },
    /// The daemon ends: what is held back leaves now, as soon as it is durable.
    Drain,
    /// A person's word about what is in the outbox; answered by [`Answer::Changed`].
    Outbox {
        token: u64,
        change: OutboxChange,
        selection: Selection,
        who: Box<str>,
    },
    /// Somebody wants to see whether notices arrive there: a marked one goes through the outbox like any other. Answered
    /// by [`Answer::Queued`].
    Test {
        token: u64,
        destination: Arc<Destination>,
        color: Color,
        who: Box<str>,
    },
    /// A question, answered by [`Effect::Report`] in the same step.
    Read {
        token: u64,
        question: Question,
    },
}

#[derive(Debug)]
pub enum Effect {
    /// Make this durable; the numbers count up from 1 without gaps.
    Commit(Batch),
    /// Send; emitted only for notices whose commit is durable. At most `queue_capacity` are outstanding, of which no
    /// destination has more than its share.
    Deliver {
        id: NoticeId,
        notice: Box<Notice>,
    },
    Command(Command),
    /// A line of the story for the terminal.
    Story(Story),
    Report {
        token: u64,
        answer: Answer,
    },
}

/// A notice's number, counted on over restarts as long as the store lasts; what the other side sees is its
/// [`crate::domain::DeliveryKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub u64);

/// One commit: all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    pub records: Vec<Record>,
}

/// What the store keeps. Monitors go by their names: numbers are another process's, or another file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Seen ok since it is defined like this ([`crate::world::Catalog::definition`]).
    SeenOk {
        monitor: Box<str>,
        definition: u64,
    },
    /// An episode as it is from now on, whole.
    Episode(Box<EpisodeRecord>),
    EpisodeClosed {
        episode: EpisodeId,
        at: Timestamp,
    },
    /// A bundle as it is from now on, whole.
    Bundle(Box<BundleRecord>),
    /// Its last member is up again.
    BundleClosed {
        bundle: EpisodeId,
        at: Timestamp,
    },
    /// From now on it is to be delivered, until it is done or dropped.
    NoticeQueued {
        id: NoticeId,
        notice: Box<Notice>,
    },
    /// An attempt, and what came of it.
    NoticeTried {
        id: NoticeId,
        at: Timestamp,
        delivered: Delivered,
    },
    /// Nothing is left to do for it.
    NoticeDone {
        id: NoticeId,
        at: Timestamp,
    },
    /// It is not tried again by itself; people see it until they retry or drop it.
    NoticeDead {
        id: NoticeId,
        at: Timestamp,
        why: Box<str>,
    },
    /// A person's word, which beats the file's.
    Switched {
        monitor: Box<str>,
        enabled: bool,
    },
    /// The word is taken back, or the monitor is gone.
    SwitchForgotten {
        monitor: Box<str>,
    },
    Audit(Audit),
}

/// An episode as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeRecord {
    pub id: EpisodeId,
    /// `None`: about the daemon itself.
    pub monitor: Option<Box<str>>,
    /// What the monitor was when it was last looked at.
    pub definition: u64,
    pub state: State,
    pub opened: Timestamp,
    pub cause: Box<str>,
    pub yellow: bool,
    pub red: bool,
    /// The number of the last reminder.
    pub reminders: u32,
    /// Who got a raise, in order.
    pub told: Vec<Told>,
}

/// Somebody was told of an episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub destination: Arc<Destination>,
    pub color: Color,
    /// Not by a notice of its own, but as a member of this bundle.
    pub bundle: Option<EpisodeId>,
}

/// One incident at one destination that stands for many episodes, its members: a digest for those who read, a group's
/// incident for those who are woken. The members are those whose [`Told`] names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRecord {
    /// A ULID of its own.
    pub id: EpisodeId,
    pub destination: Arc<Destination>,
    /// Of a group's incident: the group.
    pub group: Option<Box<str>>,
    pub opened: Timestamp,
    /// How many notices it has sent.
    pub notices: u32,
}

/// Who did what, for those who ask later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub at: Timestamp,
    pub who: Box<str>,
    /// `disable`, `outbox drop`, `reload`.
    pub what: Box<str>,
    pub about: Box<str>,
}

/// What a store held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// It held nothing: it is new.
    pub is_new: bool,
    /// What people have to be told about the store itself: it was damaged, say, and has been put aside.
    pub trouble: Option<Box<str>>,
    pub seen_ok: Vec<(Box<str>, u64)>,
    /// The open ones.
    pub episodes: Vec<EpisodeRecord>,
    /// The open ones.
    pub bundles: Vec<BundleRecord>,
    pub switched: Vec<(Box<str>, bool)>,
    /// In the order of their numbers.
    pub outbox: Vec<StoredNotice>,
    /// Greater than every number that was ever given.
    pub next_notice: u64,
}

/// A notice that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNotice {
    pub id: NoticeId,
    /// Its `monitor` is `None`: whoever restores finds it by the name.
    pub notice: Box<Notice>,
    pub attempts: u32,
    /// Why it is not tried again by itself.
    pub dead: Option<Box<str>>,
}

/// What came of an attempt to deliver a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub result: DeliveryResult,
    /// In the other side's words, or in ours: `202 Event processed`, `connection refused`. Bounded, without secrets.
    pub said: Box<str>,
    /// Nothing at all is wanted there for so long. Zero: it was too much at once, and nobody said for how long.
    pub after: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryResult {
    Sent,
    /// The log could not be written; standard error has it.
    Fallback,
    /// Not this time; it comes again.
    Failed,
    /// The same, and it may have arrived where nobody can tell a second one from the first.
    Unsure,
    /// What was wrong would be wrong again: it goes to the fallback, and people see that it does.
    Refused,
}

impl DeliveryResult {
    pub const ALL: [Self; 5] = [Self::Sent, Self::Fallback, Self::Failed, Self::Unsure, Self::Refused];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Fallback => "fallback",
            Self::Failed => "failed",
            Self::Unsure => "unsure",
            Self::Refused => "refused",
        }
    }
}

impl From<DeliveryResult> for Delivered {
    fn from(result: DeliveryResult) -> Self {
        Self { result, said: Box::default(), after: None }
    }
}

impl Delivered {
    pub fn new(result: DeliveryResult, said: impl Into<Box<str>>) -> Self {
        Self { result, said: said.into(), after: None }
    }
}

/// One line for the person at the terminal. Colors are raised whether or not anyone is configured to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    pub monitor: Option<MonitorId>,
    pub at: Instant,
    pub what: StoryKind,
    /// In words: `200 in 0.4 ms`, `connection refused 127.0.0.1:9871 (1 of 3)`.
    pub text: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoryKind {
    Up,
    Color(Color),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Monitor(MonitorId),
    /// Open episodes, oldest first, at most this many.
    Episodes(usize),
    /// The last changes, newest first, at most this many.
    Recent(usize),
    /// What is to be delivered, oldest first, at most this many.
    Outbox(Selection, usize),
    /// What has become of one notice.
    Notice(NoticeId),
}

/// Which notices of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Those that are not tried again by themselves.
    Dead,
    One(NoticeId),
    /// Of this destination, by its name.
    To(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxChange {
    /// Now, whatever pause there is; also the dead ones.
    Retry,
    /// Never, and nobody is told: what has left cannot be called back.
    Drop,
}

/// Where a notice of the outbox is. Each is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboxState {
    /// For the store, for room, for its turn behind another one, for the hold after the start, or for its digest.
    Waiting,
    /// At the code lane.
    Outstanding,
    /// It has failed, and waits until it is tried again.
    Pausing,
    Dead,
}

impl OutboxState {
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Outstanding, Self::Pausing, Self::Dead];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Outstanding => "outstanding",
            Self::Pausing => "pausing",
            Self::Dead => "dead",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Answer {
    Monitor(Option<EpisodeView>),
    Episodes(Vec<EpisodeView>),
    Recent(Vec<Change>),
    Outbox(Vec<OutboxView>),
    /// `None`: it is not known, or was done so long ago that it is remembered by the store alone.
    Notice(Option<OutboxView>),
    /// So many notices.
    Changed(u64),
    Queued(NoticeId),
}

/// A notice of the outbox, for the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxView {
    pub id: NoticeId,
    pub destination: Box<str>,
    pub provider: &'static str,
    pub monitor: Box<str>,
    pub incident: Box<str>,
    pub color: Color,
    pub summary: Box<str>,
    /// When what it tells of happened.
    pub at: Timestamp,
    /// `None`: it is done.
    pub state: Option<OutboxState>,
    pub attempts: u32,
    /// What came of the last attempt, if there was one in this process.
    pub last: Option<Delivered>,
    /// When it is tried again, where that is known.
    pub next: Option<Timestamp>,
}

/// An open episode, for the API.
#[derive(Clone, Debug)]
pub struct EpisodeView {
    pub monitor: MonitorId,
    pub incident: Box<str>,
    pub state: &'static str,
    pub opened: Timestamp,
    pub lasted: Span,
    pub cause: Box<str>,
    /// What was raised, to how many destinations.
    pub raised: Vec<(Color, usize)>,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub at: Timestamp,
    /// `None`: about the daemon itself.
    pub monitor: Option<MonitorId>,
    pub what: StoryKind,
    pub text: Box<str>,
}

/// What the desk has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeskStats {
    /// Attempts by [`Color`], [`Provider`] and [`DeliveryResult`].
    pub notices: [[[u64; DeliveryResult::ALL.len()]; Provider::COUNT]; Color::ALL.len()],
    /// Notices that left before they were durable, because the store did not answer.
    pub nondurable: u64,
    pub episodes_open: u64,
    /// What is in the outbox, by [`OutboxState`].
    pub outbox: [u64; OutboxState::ALL.len()],
    /// Since when the oldest notice that is not dead is to be delivered.
    pub oldest_notice: Option<Instant>,
    /// Notices handed to the code lane and not finished.
    pub outstanding: u64,
    /// Notices waiting for the store, the hold after the start, or room in the code queue.
    pub waiting: u64,
    pub stale_transitions: u64,
    /// Transitions taken since the start.
    pub transitions: u64,
    pub commits: u64,
}
