//! What goes into the desk and what comes out of it, as values.

use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Notice};
use crate::shard::protocol::{Command, Transition};
use crate::units::{Instant, MonitorId, Span, Timestamp};

#[derive(Debug)]
pub enum Event {
    Transition(Box<Transition>),
    /// Everything up to and including this commit is durable.
    Durable(u64),
    /// The code lane has finished with a notice.
    Delivered {
        notice: NoticeId,
        result: DeliveryResult,
    },
    /// A person's or the reload's word.
    Disable(MonitorId),
    Enable(MonitorId),
    /// What the wall clock showed at an instant. Comes before anything else, and when the clock was stepped.
    Wall {
        at: Instant,
        shows: Timestamp,
    },
    /// The daemon ends: what is held back leaves now, as soon as it is durable.
    Drain,
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

/// A notice's number in this process; what is durable is its [`crate::domain::DeliveryKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub u64);

/// One commit: all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    pub records: Vec<Record>,
}

/// What the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    SeenOk(MonitorId),
    EpisodeOpened {
        episode: EpisodeId,
        monitor: MonitorId,
        at: Timestamp,
    },
    EpisodeClosed {
        episode: EpisodeId,
        at: Timestamp,
    },
    /// The episode's state as of now, by name.
    StateChanged {
        episode: EpisodeId,
        state: &'static str,
    },
    NoticeQueued {
        id: NoticeId,
        notice: Box<Notice>,
    },
    NoticeDone {
        id: NoticeId,
        result: DeliveryResult,
    },
    Disabled(MonitorId),
    Enabled(MonitorId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryResult {
    Sent,
    /// The destination refused for good or for too long; the fallback has it.
    Fallback,
    /// Neither the destination nor the fallback took it.
    Failed,
}

impl DeliveryResult {
    pub const ALL: [Self; 3] = [Self::Sent, Self::Fallback, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Fallback => "fallback",
            Self::Failed => "failed",
        }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Monitor(MonitorId),
    /// Open episodes, oldest first, at most this many.
    Episodes(usize),
    /// The last changes, newest first, at most this many.
    Recent(usize),
}

#[derive(Clone, Debug)]
pub enum Answer {
    Monitor(Option<EpisodeView>),
    Episodes(Vec<EpisodeView>),
    Recent(Vec<Change>),
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
    /// By [`Color`] and [`DeliveryResult`].
    pub notices: [[u64; DeliveryResult::ALL.len()]; Color::ALL.len()],
    /// Notices that left before they were durable, because the store did not answer.
    pub nondurable: u64,
    pub episodes_open: u64,
    /// Notices handed to the code lane and not finished.
    pub outstanding: u64,
    /// Notices waiting for the store, the hold after the start, or room in the code queue.
    pub waiting: u64,
    pub stale_transitions: u64,
    /// Transitions taken since the start.
    pub transitions: u64,
    pub commits: u64,
}
