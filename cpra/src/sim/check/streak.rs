//! Which transitions follow from which verdicts: written down a second time, from the table of verdicts.

use crate::domain::health::{Phase, Resumed};
use crate::domain::{Policy, TransitionKind, Verdict};
use crate::sim::coverage::{Coverage, Section};

/// Consecutive verdicts of one monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streak {
    pub(super) phase: Phase,
    pub(super) fails: u8,
    pub(super) oks: u8,
    pub(super) void: bool,
    /// Warns in a row while up.
    warns: u8,
    pub(super) degraded: bool,
}

impl Streak {
    pub(super) const fn new(enabled: bool) -> Self {
        Self::of(if enabled { Phase::Unknown } else { Phase::Disabled }, 0)
    }

    const fn of(phase: Phase, fails: u8) -> Self {
        Self { phase, fails, oks: 0, void: false, warns: 0, degraded: false }
    }

    /// An episode from before goes on.
    pub(super) const fn resumed(resumed: Resumed) -> Self {
        match resumed {
            Resumed::Suspect => Self::of(Phase::Suspect, 0),
            Resumed::Failing => Self::of(Phase::Failing, 0),
            Resumed::Degraded => Self { degraded: true, ..Self::of(Phase::Up, 0) },
            Resumed::Unproven => Self::of(Phase::Unproven, 0),
        }
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
            (Phase::Disabled, _) => None,
            (Phase::Up, true) if verdict == Verdict::Warn => {
                (self.oks, self.warns) = (0, (self.warns + 1).min(f));
                let begins = self.warns == f && !self.degraded;
                self.degraded |= begins;
                if begins {
                    row("27");
                }
                begins.then_some(TransitionKind::Degraded)
            }
            (Phase::Up, true) => {
                self.warns = 0;
                self.oks += u8::from(self.degraded);
                let ends = self.degraded && self.oks == h;
                if ends {
                    row("27 ends");
                    *self = Self::of(Phase::Up, 0);
                }
                ends.then_some(TransitionKind::Clean)
            }
            (Phase::Unknown, true) => {
                row("1");
                self.phase = Phase::Up;
                Some(TransitionKind::FirstOk)
            }
            (Phase::Suspect, true) => {
                row("5");
                *self = Self::of(Phase::Up, 0);
                Some(TransitionKind::Rise)
            }
            (Phase::Failing | Phase::Unproven, true) => {
                self.fails = 0;
                self.oks += 1;
                if self.oks == h {
                    row("24");
                    *self = Self::of(Phase::Up, 0);
                    Some(TransitionKind::Rise)
                } else {
                    row("23");
                    None
                }
            }
            (Phase::Unknown | Phase::Up | Phase::Unproven, false) if f == 1 => {
                row("3");
                *self = Self::of(Phase::Failing, 1);
                Some(TransitionKind::Threshold)
            }
            (Phase::Unknown | Phase::Up | Phase::Unproven, false) => {
                row("2");
                *self = Self::of(Phase::Suspect, 1);
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
