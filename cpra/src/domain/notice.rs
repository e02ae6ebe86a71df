//! What people are told, and under which keys.

use std::fmt;
use std::sync::Arc;

use super::destination::Destination;
use super::monitor::About;
use super::outcome::Code;
use crate::units::{MonitorId, Span, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Color {
    Yellow = 0,
    Red = 1,
    Cyan = 2,
    Green = 3,
    Gray = 4,
}

impl Color {
    pub const ALL: [Self; 5] = [Self::Yellow, Self::Red, Self::Cyan, Self::Green, Self::Gray];

    /// As files, metrics and notices spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yellow => "yellow",
            Self::Red => "red",
            Self::Cyan => "cyan",
            Self::Green => "green",
            Self::Gray => "gray",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Yellow => "DEGRADED ALERT",
            Self::Red => "CRITICAL ALERT",
            Self::Cyan => "INTERVENTION SUCCESS",
            Self::Green => "RECOVERY NOTICE",
            Self::Gray => "MAINTENANCE MODE",
        }
    }

    pub const fn status(self) -> &'static str {
        match self {
            Self::Yellow => "DEGRADED",
            Self::Red => "FAILED",
            Self::Cyan => "RESTORED",
            Self::Green => "RECOVERED",
            Self::Gray => "MAINTENANCE",
        }
    }

    pub const fn severity(self) -> &'static str {
        match self {
            Self::Yellow => "warning",
            Self::Red => "critical",
            Self::Cyan | Self::Green | Self::Gray => "info",
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An episode's identity: a ULID, never a counter, since a lost store would reuse numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpisodeId(pub u128);

impl fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ulid::Ulid::from(self.0))
    }
}

/// The key of an incident as people and providers see it: `instance/monitor/ULID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incident(pub Box<str>);

impl Incident {
    pub fn new(instance: &str, monitor: &str, episode: EpisodeId) -> Self {
        Self(format!("{instance}/{monitor}/{episode}").into_boxed_str())
    }
}

/// Which message of an episode this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Raise {
    Yellow,
    Red,
    /// The close of everything this destination was told.
    Resolve,
    Cyan,
    Gray,
}

impl Raise {
    pub const ALL: [Self; 5] = [Self::Yellow, Self::Red, Self::Resolve, Self::Cyan, Self::Gray];

    /// As keys spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yellow => "yellow",
            Self::Red => "red",
            Self::Resolve => "resolve",
            Self::Cyan => "cyan",
            Self::Gray => "gray",
        }
    }
}

/// Constant over every re-send of one notice: `webhook-id`, Message-ID, idempotency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    pub episode: EpisodeId,
    pub raise: Raise,
    pub destination: Arc<Destination>,
    /// 0, or the number of a reminder.
    pub n: u32,
}

/// One message to one destination, complete: nothing has to be looked up to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub key: DeliveryKey,
    pub incident: Incident,
    /// `None` in notices about the daemon itself.
    pub monitor: Option<MonitorId>,
    pub monitor_name: Box<str>,
    pub color: Color,
    /// One line: what happened, in words.
    pub summary: Box<str>,
    /// The outcome that caused it.
    pub outcome: Option<Code>,
    /// When it happened; not when it is sent.
    pub at: Timestamp,
    /// How long the episode had lasted.
    pub lasted: Span,
    pub groups: Box<[Box<str>]>,
    /// What people wrote about the monitor; nothing in notices about the daemon itself.
    pub about: About,
    /// Nothing has happened: somebody wants to see whether it arrives.
    pub test: bool,
}

impl Notice {
    /// Whose it is: the incident is `instance/monitor/ULID`, and a monitor's name may hold slashes, so what is known is
    /// cut off.
    pub fn instance(&self) -> Option<&str> {
        let rest = self.incident.0.strip_suffix(&format!("/{}", self.key.episode))?;
        let instance = rest.strip_suffix(&*self.monitor_name)?.strip_suffix('/')?;
        (!instance.is_empty()).then_some(instance)
    }
}
