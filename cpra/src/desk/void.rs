//! Monitors that cannot be judged, and since when (VERDICTS row 28).
//!
//! A fault of our own condemns nobody, but it must not hide either: after [`VOID_PATIENCE`] a monitor is shown as
//! unknown, and people are told once, with the number of monitors, not once for each.

use std::collections::{BTreeMap, BTreeSet};

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
    Raised,
    /// An older process has raised it. It is too early to say whether that is over.
    TakenUp {
        until: Instant,
    },
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Obscure(MonitorId),
    Raise { count: usize, reason: Box<str> },
    Resolve,
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
            DaemonNotice::Raised if self.obscured.is_empty() => {
                self.notice = DaemonNotice::None;
                Some(Due::Resolve)
            }
            // What has been void for less than the patience is not known to be well.
            DaemonNotice::TakenUp { until } if *until <= now && self.since.is_empty() => {
                self.notice = DaemonNotice::None;
                Some(Due::Resolve)
            }
            DaemonNotice::TakenUp { until } if *until <= now && !self.obscured.is_empty() => {
                self.notice = DaemonNotice::Raised;
                None
            }
            DaemonNotice::None
            | DaemonNotice::Gathering { .. }
            | DaemonNotice::Raised
            | DaemonNotice::TakenUp { .. } => None,
        }
    }

    /// [`Due::Raise`] has been carried out.
    pub(super) fn raised(&mut self) {
        self.notice = DaemonNotice::Raised;
    }

    /// An older process has raised it and not resolved it: it stands until all has been looked at for long enough.
    pub(super) fn take_up(&mut self, now: Instant) {
        self.notice = DaemonNotice::TakenUp { until: now + VOID_PATIENCE + GATHER };
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let oldest = self.by_age.first().map(|(at, _)| *at + VOID_PATIENCE);
        let gathered = match &self.notice {
            DaemonNotice::Gathering { until, .. } => Some(*until),
            // After that, the end of a void is what is waited for.
            DaemonNotice::TakenUp { until } => Some(*until).filter(|_| self.since.is_empty()),
            DaemonNotice::None | DaemonNotice::Raised => None,
        };
        [oldest, gathered].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Span::from_secs(secs)
    }

    #[test]
    fn what_an_older_process_raised_stands_until_all_has_been_looked_at_for_long_enough() {
        let mut watch = VoidWatch::default();
        watch.take_up(at(0));
        assert_eq!((watch.due(at(600)), watch.next_deadline()), (None, Some(at(605))));
        assert_eq!((watch.due(at(605)), watch.due(at(605))), (Some(Due::Resolve), None));

        let monitor = MonitorId::new(0, 1);
        let mut watch = VoidWatch::default();
        watch.take_up(at(0));
        watch.began(monitor, at(300), "no ports");
        assert_eq!((watch.due(at(605)), watch.next_deadline()), (None, Some(at(900))));
        assert_eq!(watch.due(at(900)), Some(Due::Obscure(monitor)));
        assert_eq!(watch.due(at(900)), None, "it has been raised long since");
        watch.ended(monitor);
        assert_eq!((watch.due(at(901)), watch.due(at(901))), (Some(Due::Resolve), None));
    }
}
