//! Which transitions follow from which verdicts: written down a second time, from the table of verdicts.

use crate::domain::health::Phase;
use crate::domain::{Policy, TransitionKind, Verdict};
use crate::sim::coverage::{Coverage, Section};

/// Consecutive verdicts of one monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streak {
    pub(super) phase: Phase,
    pub(super) fails: u8,
    pub(super) oks: u8,
    pub(super) void: bool,
}

impl Streak {
    pub(super) const fn new(enabled: bool) -> Self {
        Self { phase: if enabled { Phase::Unknown } else { Phase::Disabled }, fails: 0, oks: 0, void: false }
    }

    /// What the desk has to hear of.
    pub(super) fn judge(&mut self, verdict: Verdict, policy: &Policy, coverage: &mut Coverage) -> Vec<TransitionKind> {
        let mut row = |row| coverage.hit(Section::Row, row);
        let mut heard = Vec::new();
        if verdict == Verdict::Void {
            row("28");
            if !self.void {
                self.void = true;
                heard.push(TransitionKind::VoidBegan);
            }
            return heard;
        }
        if self.void {
            self.void = false;
            heard.push(TransitionKind::VoidEnded);
        }
        let ok = verdict != Verdict::Fail;
        let (f, h) = (policy.unhealthy_threshold, policy.healthy_threshold);
        let transition = match (self.phase, ok) {
            (Phase::Disabled, _) | (Phase::Up, true) => None,
            (Phase::Unknown, true) => {
                row("1");
                self.phase = Phase::Up;
                Some(TransitionKind::FirstOk)
            }
            (Phase::Suspect, true) => {
                row("5");
                *self = Self { phase: Phase::Up, fails: 0, oks: 0, void: false };
                Some(TransitionKind::Rise)
            }
            (Phase::Failing, true) => {
                self.fails = 0;
                self.oks += 1;
                if self.oks == h {
                    row("24");
                    *self = Self { phase: Phase::Up, fails: 0, oks: 0, void: false };
                    Some(TransitionKind::Rise)
                } else {
                    row("23");
                    None
                }
            }
            (Phase::Unknown | Phase::Up, false) if f == 1 => {
                row("3");
                *self = Self { phase: Phase::Failing, fails: 1, oks: 0, void: false };
                Some(TransitionKind::Threshold)
            }
            (Phase::Unknown | Phase::Up, false) => {
                row("2");
                *self = Self { phase: Phase::Suspect, fails: 1, oks: 0, void: false };
                Some(TransitionKind::Fail1)
            }
            (Phase::Suspect, false) => {
                self.fails += 1;
                if self.fails == f {
                    row("6");
                    self.phase = Phase::Failing;
                    Some(TransitionKind::Threshold)
                } else {
                    row("4");
                    None
                }
            }
            (Phase::Failing, false) => {
                row("22");
                self.oks = 0;
                None
            }
        };
        heard.extend(transition);
        heard
    }
}
