//! Deliberate defects that prove the simulator finds what it is there to find.
//!
//! Each is one line in the shard, the desk or a rule of the domain: `if planted::is(Bug::LostGreen) { ... }`. Without
//! the feature `planted-bugs` the question is a constant `false` and the line is gone; with it, at most one defect at
//! a time is alive, for the thread that asked for it.

/// One defect. The names say what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// One of those who got a raise is not told of the recovery.
    LostGreen,
    /// Red is sent once more when an outage goes on.
    DoubledRed,
    /// A notice takes the place of the one that waits before it.
    OverwrittenNotice,
    /// Completions of an older connection are believed.
    StaleToken,
    /// A slot is used before its last operation has completed.
    SlotReusedEarly,
    /// A monitor is laid on the wheel where nobody will look.
    LostFromWheel,
    /// A check starts before its due time.
    EarlyFire,
    /// The timeout counts from the due time: waiting for a slot uses it up.
    TimeoutFromQueue,
    /// A notice leaves before its commit is durable.
    ActionWithoutCommit,
    /// An errno of this host's own condemns the target.
    FailureOfOursCountsAsTargets,
    /// A check that failed while this process stood still condemns the target.
    StallCountsAsFailure,
    /// A due time that passes in flight starts a second check.
    RetryMakesSecondCheck,
    /// A resolve leaves before the raise that it ends.
    ResolveBeforeRaise,
    /// A transition from before a disable counts after it.
    StaleEpochAccepted,
    /// An outcome is booked to another monitor.
    EvidenceOfOther,
    /// A timeout counts although this host dropped packets.
    ForgottenVoid,
    /// Down one failure too early.
    ThresholdOffByOne,
    /// A kept connection that the peer closed condemns the target.
    KeepAliveFailureIsVerdict,
    /// A disabled monitor is still checked once.
    DisabledIsChecked,
    /// The fault of a resolver counts as a name that does not exist.
    ResolverFailureIsVerdict,
    /// A check may start while the desk cannot hear of its outcome.
    FullDeskIgnored,
    /// A notice that nobody took is not tried again.
    FailedDeliveryForgotten,
    /// What waits for a destination's share is not sent when there is room again.
    ParkedNoticeForgotten,
    /// A slot is used again before its errand has returned.
    ErrandForgotten,
    /// An echo for an older check on the same slot is believed.
    LateEchoAccepted,
    /// A warning counts as a failure.
    WarningCountsAsFailure,
    /// The deadline of a job's call passes, and nobody is told.
    MissedCallForgotten,
    /// A call that was due while this process stood still is missed.
    MissWhileStoppedCounts,
    /// A name's address is used after its time.
    ExpiredAddressUsed,
    /// Nobody starts the checks of monitors that are not ok.
    SuspectsForgotten,
    /// The worker of a check that took too long is never free again.
    OverdueKeepsWorker,
    /// A half-open check goes out although nobody would see its answer.
    HalfOpenWithoutEyes,
    /// The silence that a half-open check met condemns the target, although its answer may have come unseen.
    HalfOpenSilenceIsVerdict,
    /// What an older process has raised is raised again.
    RestoredRaiseRepeated,
    /// A destination that wants nothing for a while is tried all the same.
    RetryAfterIgnored,
    /// A destination gets notices faster than it takes them.
    RateIgnored,
    /// A notice that is given up goes to nobody.
    DeadLetterForgotten,
    /// What has ended is refreshed as if it had not.
    RefreshAfterResolve,
    /// Who keeps an incident open by itself is reminded of it.
    ReminderToPager,
    /// What was open when an older process died is not known to the next one.
    EpisodesForgottenAtRestart,
    /// What an older process had not sent goes out under another key.
    SecondKeyAfterRestart,
    /// The end of an episode that an older process had not sent is never sent.
    ResolveLostAtCrash,
    /// A person's word does not outlive the process.
    SwitchForgottenAtRestart,
    /// What was seen ok long ago is written again after each restart.
    SeenOkRewritten,
    /// What may have arrived is sent again for ever.
    UnsureForEver,
    /// What a person has dropped is back after a restart.
    DroppedComesBack,
    /// Nobody hears that the store was put aside.
    DamageUntold,
    /// More notices are on their way to a destination than it takes at a time.
    ConcurrencyIgnored,
    /// The record of an episode does not say who was told.
    ToldNotRecorded,
}

impl Bug {
    pub const ALL: [Self; 49] = [
        Self::LostGreen,
        Self::DoubledRed,
        Self::OverwrittenNotice,
        Self::StaleToken,
        Self::SlotReusedEarly,
        Self::LostFromWheel,
        Self::EarlyFire,
        Self::TimeoutFromQueue,
        Self::ActionWithoutCommit,
        Self::FailureOfOursCountsAsTargets,
        Self::StallCountsAsFailure,
        Self::RetryMakesSecondCheck,
        Self::ResolveBeforeRaise,
        Self::StaleEpochAccepted,
        Self::EvidenceOfOther,
        Self::ForgottenVoid,
        Self::ThresholdOffByOne,
        Self::KeepAliveFailureIsVerdict,
        Self::DisabledIsChecked,
        Self::ResolverFailureIsVerdict,
        Self::FullDeskIgnored,
        Self::FailedDeliveryForgotten,
        Self::ParkedNoticeForgotten,
        Self::ErrandForgotten,
        Self::LateEchoAccepted,
        Self::WarningCountsAsFailure,
        Self::MissedCallForgotten,
        Self::MissWhileStoppedCounts,
        Self::ExpiredAddressUsed,
        Self::SuspectsForgotten,
        Self::OverdueKeepsWorker,
        Self::HalfOpenWithoutEyes,
        Self::HalfOpenSilenceIsVerdict,
        Self::RestoredRaiseRepeated,
        Self::RetryAfterIgnored,
        Self::RateIgnored,
        Self::DeadLetterForgotten,
        Self::RefreshAfterResolve,
        Self::ReminderToPager,
        Self::EpisodesForgottenAtRestart,
        Self::SecondKeyAfterRestart,
        Self::ResolveLostAtCrash,
        Self::SwitchForgottenAtRestart,
        Self::SeenOkRewritten,
        Self::UnsureForEver,
        Self::DroppedComesBack,
        Self::DamageUntold,
        Self::ConcurrencyIgnored,
        Self::ToldNotRecorded,
    ];
}

#[cfg(feature = "planted-bugs")]
mod alive {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ALIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this defect is alive in this thread.
    pub fn is(bug: Bug) -> bool {
        ALIVE.get() == Some(bug)
    }

    /// Lets one defect live, in this thread.
    pub fn plant(bug: Option<Bug>) {
        ALIVE.set(bug);
    }
}

#[cfg(feature = "planted-bugs")]
pub use alive::{is, plant};

/// No defect is alive: the feature is off.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is(_: Bug) -> bool {
    false
}
