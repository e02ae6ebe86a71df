//! Monitors that cannot be judged, and since when (VERDICTS row 28).
//!
//! A fault of our own condemns nobody, but it must not hide either: after [`VOID_PATIENCE`] a monitor is shown as
//! unknown, and people are told once, with the number of monitors, not once for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::notice::EpisodeId;
use crate::units::limits::VOID_PATIENCE;
use crate::units::{Instant, MonitorId, Span};

/// So that the one notice counts all monitors that one fault has hit.
const GATHER: Span = Span::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct VoidWatch {
    since: BTreeMap<MonitorId, (Instant, Box<str>)>,
    by_age: BTreeSet<(Instant, MonitorId)>,
    obscured: BTreeSet<MonitorId>,
    notice: DaemonNotice,
}

/// The one notice about monitors that cannot be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum DaemonNotice {
    #[default]
    None,
    Gathering {
        until: Instant,
        reason: Box<str>,
    },
    Raised(EpisodeId),
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Obscure(MonitorId),
    Raise { count: usize, reason: Box<str> },
    Resolve(EpisodeId),
}

impl VoidWatch {
    pub(super) fn began(&mut self, monitor: MonitorId, at: Instant, reason: &str) {
        if self.since.insert(monitor, (at, reason.into())).is_none() {
            self.by_age.insert((at, monitor));
        }
    }

    /// It can be judged again, or is watched no more.
    pub(super) fn ended(&mut self, monitor: MonitorId) {
        if let Some((at, _)) = self.since.remove(&monitor) {
            self.by_age.remove(&(at, monitor));
        }
        self.obscured.remove(&monitor);
    }

    /// The next thing to do by `now`, if there is one.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if let Some(&(at, monitor)) = self.by_age.first()
            && now.since(at) >= VOID_PATIENCE
        {
            self.by_age.pop_first();
            self.obscured.insert(monitor);
            if self.notice == DaemonNotice::None {
                let reason = self.since.get(&monitor).map(|(_, reason)| reason.clone()).unwrap_or_default();
                self.notice = DaemonNotice::Gathering { until: now + GATHER, reason };
            }
            return Some(Due::Obscure(monitor));
        }
        match &self.notice {
            DaemonNotice::Gathering { .. } if self.obscured.is_empty() => {
                self.notice = DaemonNotice::None;
                None
            }
            DaemonNotice::Gathering { until, reason } if *until <= now => {
                Some(Due::Raise { count: self.obscured.len(), reason: reason.clone() })
            }
            DaemonNotice::Raised(episode) if self.obscured.is_empty() => {
                let episode = *episode;
                self.notice = DaemonNotice::None;
                Some(Due::Resolve(episode))
            }
            DaemonNotice::None | DaemonNotice::Gathering { .. } | DaemonNotice::Raised(_) => None,
        }
    }

    /// [`Due::Raise`] has been carried out under this key.
    pub(super) fn raised(&mut self, episode: EpisodeId) {
        self.notice = DaemonNotice::Raised(episode);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let oldest = self.by_age.first().map(|(at, _)| *at + VOID_PATIENCE);
        let gathered = match &self.notice {
            DaemonNotice::Gathering { until, .. } => Some(*until),
            DaemonNotice::None | DaemonNotice::Raised(_) => None,
        };
        [oldest, gathered].into_iter().flatten().min()
    }
}
