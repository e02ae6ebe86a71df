//! Rise and fall of one monitor, as its shard sees it.
//!
//! ```text
//!             ok                       fail, F > 1                fail × F
//!  Unknown ─────────▶ Up ─────────────────────────▶ Suspect n ───────────────▶ Failing
//!     │                ▲◀──────────── ok ─────────────┘                           │
//!     │  fail          └──────────────────────── H oks in a row ◀─────────────────┘
//!     └──────▶ Suspect 1 (or Failing, when F = 1)
//!
//!  Unproven ── H oks in a row ──▶ Up        an episode is open, and nothing is known of the monitor: restored under
//!     └────── fail ──▶ Suspect 1            another definition, say
//! ```
//! `Failing` covers all that the desk makes of a monitor past its threshold: waiting, running, verifying, down,
//! unreachable. The shard counts streaks; what people are told is the desk's business, which hears only the
//! [`TransitionKind`]s.
//!
//! *Void* outcomes leave every counter as it is. *Warn* counts as ok everywhere but in `Up`, where F of them in a
//! row degrade the monitor, and H clean oks end that.

use super::monitor::Policy;
use super::outcome::Verdict;
use crate::units::planted::{self, Bug};

/// What the desk hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitionKind {
    /// Unknown → Up: seen ok for the first time.
    FirstOk,
    /// The first failure, with more to come before the threshold.
    Fail1,
    /// The failure that reaches F.
    Threshold,
    /// Up again: from Suspect by one ok, from Failing and Unproven by H.
    Rise,
    /// F warns in a row while Up.
    Degraded,
    /// H clean oks after that.
    Clean,
    /// The first outcome that says nothing about the target.
    VoidBegan,
    /// The first one that does, after that.
    VoidEnded,
}

/// When the next check is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    Interval,
    /// After `retry_interval`: something is being looked at.
    Retry,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    #[default]
    Unknown,
    Up,
    Suspect,
    Failing,
    Disabled,
    /// People were told that it failed, and nothing is known of it since.
    Unproven,
}

/// What an older process, or an older definition, knew of a monitor with an open episode. Streaks are not kept over it: they
/// begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resumed {
    Suspect,
    Failing,
    /// Up, and warned of.
    Degraded,
    Unproven,
}

/// Eight bytes per monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    phase: Phase,
    /// Failures in a row, up to F.
    fails: u8,
    /// Oks in a row where they are counted: Failing, or degraded.
    oks: u8,
    /// Warns in a row while Up, up to F.
    warns: u8,
    degraded: bool,
    void: bool,
    /// Could not be judged for so long that it is shown as unknown.
    obscured: bool,
    /// Raised by each command of the desk that changes this record; a transition that carries an older one is stale.
    epoch: u8,
}

const _: () = assert!(size_of::<Health>() == 8);

/// What an outcome did. At most one of each: a check that is the first after void ones may end that and also be a
/// failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub cadence: Cadence,
    pub void: Option<TransitionKind>,
    pub transition: Option<TransitionKind>,
}

impl Health {
    pub const fn phase(self) -> Phase {
        self.phase
    }

    pub const fn fails(self) -> u8 {
        self.fails
    }

    pub const fn oks(self) -> u8 {
        self.oks
    }

    pub const fn is_disabled(self) -> bool {
        matches!(self.phase, Phase::Disabled)
    }

    pub const fn is_degraded(self) -> bool {
        self.degraded
    }

    pub const fn is_void(self) -> bool {
        self.void
    }

    pub const fn is_obscured(self) -> bool {
        self.obscured
    }

    pub const fn epoch(self) -> u8 {
        self.epoch
    }

    /// Neither Up nor on its first try: worth keeping evidence for.
    pub const fn is_troubled(self) -> bool {
        matches!(self.phase, Phase::Suspect | Phase::Failing | Phase::Unproven) || self.degraded || self.void
    }

    /// When the next check after the last judged one is due.
    pub const fn cadence(self) -> Cadence {
        match self.phase {
            _ if self.void => Cadence::Retry,
            Phase::Suspect | Phase::Failing | Phase::Unproven => Cadence::Retry,
            Phase::Unknown | Phase::Up | Phase::Disabled => Cadence::Interval,
        }
    }

    /// A check of this monitor was judged.
    pub fn judge(&mut self, verdict: Verdict, policy: &Policy) -> Judged {
        if verdict == Verdict::Void {
            let began = !std::mem::replace(&mut self.void, true);
            let void = began.then_some(TransitionKind::VoidBegan);
            return Judged { cadence: self.cadence(), void, transition: None };
        }
        self.obscured = false;
        let ended = std::mem::take(&mut self.void);
        let transition = match verdict {
            Verdict::Ok => self.ok(policy, true),
            Verdict::Warn => self.ok(policy, false),
            Verdict::Fail => self.fail(policy),
            Verdict::Void => unreachable!("handled above"),
        };
        Judged { cadence: self.cadence(), void: ended.then_some(TransitionKind::VoidEnded), transition }
    }

    fn ok(&mut self, policy: &Policy, clean: bool) -> Option<TransitionKind> {
        match self.phase {
            Phase::Unknown => {
                self.become_up();
                Some(TransitionKind::FirstOk)
            }
            Phase::Suspect => {
                self.become_up();
                Some(TransitionKind::Rise)
            }
            Phase::Failing | Phase::Unproven => {
                self.fails = 0;
                self.oks = self.oks.saturating_add(1);
                if self.oks < policy.healthy_threshold {
                    return None;
                }
                self.become_up();
                Some(TransitionKind::Rise)
            }
            Phase::Up if clean => {
                self.warns = 0;
                if !self.degraded {
                    return None;
                }
                self.oks = self.oks.saturating_add(1);
                if self.oks < policy.healthy_threshold {
                    return None;
                }
                self.oks = 0;
                self.degraded = false;
                Some(TransitionKind::Clean)
            }
            Phase::Up => {
                self.oks = 0;
                self.warns = self.warns.saturating_add(1).min(policy.unhealthy_threshold);
                if self.degraded || self.warns < policy.unhealthy_threshold {
                    return None;
                }
                self.degraded = true;
                Some(TransitionKind::Degraded)
            }
            Phase::Disabled => None,
        }
    }

    fn fail(&mut self, policy: &Policy) -> Option<TransitionKind> {
        self.oks = 0;
        match self.phase {
            Phase::Unknown | Phase::Up | Phase::Suspect | Phase::Unproven => {
                let first = self.phase != Phase::Suspect;
                // An episode that began as degraded goes on as one: the desk keeps its key.
                self.warns = 0;
                self.degraded = false;
                self.fails = if first { 1 } else { self.fails.saturating_add(1) };
                let early = u8::from(planted::is(Bug::ThresholdOffByOne));
                if self.fails + early >= policy.unhealthy_threshold {
                    self.phase = Phase::Failing;
                    return Some(TransitionKind::Threshold);
                }
                self.phase = Phase::Suspect;
                first.then_some(TransitionKind::Fail1)
            }
            Phase::Failing | Phase::Disabled => None,
        }
    }

    fn become_up(&mut self) {
        *self = Self { phase: Phase::Up, epoch: self.epoch, ..Self::default() };
    }

    /// Other thresholds. What was counted stays, as far as it does not reach them: the next outcome decides.
    pub fn adjust(&mut self, policy: &Policy) {
        if self.phase == Phase::Suspect {
            self.fails = self.fails.min(policy.unhealthy_threshold - 1);
        }
        if !self.degraded {
            self.warns = self.warns.min(policy.unhealthy_threshold - 1);
        }
        self.oks = self.oks.min(policy.healthy_threshold - 1);
    }

    /// The desk's word: nobody watches this monitor any more.
    pub fn disable(&mut self, epoch: u8) {
        *self = Self { phase: Phase::Disabled, epoch, ..Self::default() };
    }

    /// The desk's word: it is watched again, and nothing is known of it.
    pub fn enable(&mut self, epoch: u8) {
        *self = Self { phase: Phase::Unknown, epoch, ..Self::default() };
    }

    /// The desk's word: its episode is older than this record.
    pub fn resume(&mut self, epoch: u8, resumed: Resumed) {
        let (phase, degraded) = match resumed {
            Resumed::Suspect => (Phase::Suspect, false),
            Resumed::Failing => (Phase::Failing, false),
            Resumed::Degraded => (Phase::Up, true),
            Resumed::Unproven => (Phase::Unproven, false),
        };
        *self = Self { phase, degraded, epoch, ..Self::default() };
    }

    /// The desk's word: it could not be judged for too long.
    pub fn obscure(&mut self) {
        self.obscured = self.void;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Check, TcpCheck};
    use crate::units::Span;

    fn policy(unhealthy_threshold: u8, healthy_threshold: u8) -> Policy {
        let policy = Policy::new(Check::Tcp(TcpCheck::default()), Span::from_secs(10), Span::from_secs(1));
        Policy { unhealthy_threshold, healthy_threshold, ..policy }
    }

    fn told(resumed: Resumed, policy: &Policy, verdicts: &[Verdict]) -> (Vec<TransitionKind>, Health) {
        let mut health = Health::default();
        health.resume(1, resumed);
        let told = verdicts.iter().filter_map(|&verdict| health.judge(verdict, policy).transition).collect();
        (told, health)
    }

    #[test]
    fn what_is_resumed_begins_its_streaks_anew_and_keeps_what_it_was() {
        use TransitionKind::{Clean, Fail1, Rise, Threshold};
        use Verdict::{Fail, Ok, Void, Warn};
        let usual = policy(3, 2);
        let rows: &[(Resumed, &[Verdict], &[TransitionKind], Phase)] = &[
            (Resumed::Suspect, &[Fail, Fail], &[], Phase::Suspect),
            (Resumed::Suspect, &[Fail, Fail, Fail], &[Threshold], Phase::Failing),
            (Resumed::Suspect, &[Ok], &[Rise], Phase::Up),
            (Resumed::Failing, &[Fail, Ok, Fail, Ok], &[], Phase::Failing),
            (Resumed::Failing, &[Ok, Ok], &[Rise], Phase::Up),
            (Resumed::Degraded, &[Ok, Ok], &[Clean], Phase::Up),
            (Resumed::Degraded, &[Fail], &[Fail1], Phase::Suspect),
            (Resumed::Unproven, &[Ok, Void], &[], Phase::Unproven),
            (Resumed::Unproven, &[Ok, Warn], &[Rise], Phase::Up),
            (Resumed::Unproven, &[Ok, Fail, Fail], &[Fail1], Phase::Suspect),
            (Resumed::Unproven, &[Fail, Fail, Fail], &[Fail1, Threshold], Phase::Failing),
        ];
        for (resumed, verdicts, transitions, phase) in rows {
            let (heard, health) = told(*resumed, &usual, verdicts);
            assert_eq!(
                (&heard[..], health.phase(), health.epoch()),
                (*transitions, *phase, 1),
                "{resumed:?} {verdicts:?}"
            );
        }
        assert_eq!(told(Resumed::Unproven, &policy(1, 1), &[Fail]).0, [Threshold]);
        assert_eq!(told(Resumed::Unproven, &policy(1, 1), &[Ok]).0, [Rise]);
    }

    #[test]
    fn what_is_resumed_is_looked_at_again_soon_unless_it_is_up() {
        let cadence = |resumed| told(resumed, &policy(3, 2), &[]).1.cadence();
        assert_eq!([Resumed::Suspect, Resumed::Failing, Resumed::Unproven].map(cadence), [Cadence::Retry; 3]);
        assert_eq!(cadence(Resumed::Degraded), Cadence::Interval);
    }
}
