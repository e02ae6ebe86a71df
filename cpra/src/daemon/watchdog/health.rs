//! Whether the daemon does what people rely on it for: checks are made, what they find is kept, and people are told.
//!
//! A pure judgement of what was measured. What is *not* looked at: whether targets are up, and notices that a destination
//! has refused for good (`cpra_outbox{state="dead"}`), since silence would not help those who are to be told.

use std::fmt;

use crate::units::Span;
use crate::units::limits::{HEARTBEAT_MAX, WATCHDOG_COMMIT_MAX, WATCHDOG_LAG_MAX, WATCHDOG_NOTICE_MAX};

/// What the judgement is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// How long ago each thread that must advance last turned.
    pub(crate) heartbeats: Vec<(String, Span)>,
    /// How long the check that waits longest for a worker has been due; suspects do not count.
    pub(crate) lag: Span,
    /// How long the store has had something to commit, and has committed nothing; `None` when all is durable.
    pub(crate) uncommitted: Option<Span>,
    /// How long the oldest notice that is not dead has been to be delivered.
    pub(crate) oldest_notice: Option<Span>,
}

/// Why the daemon cannot be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Still { who: String, idle: Span },
    Late(Span),
    Uncommitted(Span),
    Undelivered(Span),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Still { who, idle } => write!(f, "{who} has stood still for {idle}"),
            Self::Late(lag) => write!(f, "a check has been due for {lag} and has no worker"),
            Self::Uncommitted(age) => write!(f, "the store has committed nothing for {age}"),
            Self::Undelivered(age) => write!(f, "a notice has been undelivered for {age}"),
        }
    }
}

/// # Errors
/// All that is wrong, the gravest first.
pub(crate) fn health(inputs: &Inputs) -> Result<(), Vec<Reason>> {
    let Inputs { heartbeats, lag, uncommitted, oldest_notice } = inputs;
    let still = heartbeats.iter().filter(|(_, idle)| *idle > HEARTBEAT_MAX);
    let mut reasons: Vec<Reason> = still.map(|(who, idle)| Reason::Still { who: who.clone(), idle: *idle }).collect();
    reasons.extend(uncommitted.filter(|age| *age > WATCHDOG_COMMIT_MAX).map(Reason::Uncommitted));
    reasons.extend(oldest_notice.filter(|age| *age > WATCHDOG_NOTICE_MAX).map(Reason::Undelivered));
    reasons.extend(Some(*lag).filter(|lag| *lag > WATCHDOG_LAG_MAX).map(Reason::Late));
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_held_alone_and_together() {
        let second = Span::from_secs(1);
        let sound = Inputs {
            heartbeats: vec![("shard 0".to_owned(), HEARTBEAT_MAX), ("the desk".to_owned(), Span::ZERO)],
            lag: WATCHDOG_LAG_MAX,
            uncommitted: Some(WATCHDOG_COMMIT_MAX),
            oldest_notice: Some(WATCHDOG_NOTICE_MAX),
        };
        assert_eq!(health(&Inputs::default()), Ok(()), "nothing to do is no reason");
        assert_eq!(health(&sound), Ok(()), "at the bounds all is well");
        let still = |who: &str| (who.to_owned(), HEARTBEAT_MAX + second);
        type Change = fn(&mut Inputs, (String, Span));
        let late = Reason::Late(WATCHDOG_LAG_MAX + second);
        let uncommitted = Reason::Uncommitted(WATCHDOG_COMMIT_MAX + second);
        let undelivered = Reason::Undelivered(WATCHDOG_NOTICE_MAX + second);
        let stands = |who: &str| Reason::Still { who: who.to_owned(), idle: HEARTBEAT_MAX + second };
        let table: [(Change, Reason, &str); 5] = [
            (|inputs, still| inputs.heartbeats[0] = still, stands("shard 0"), "shard 0 has stood still for 6 s"),
            (|inputs, still| inputs.heartbeats.push(still), stands("shard 0"), "shard 0 has stood still for 6 s"),
            (
                |inputs, _| inputs.uncommitted = Some(WATCHDOG_COMMIT_MAX + Span::from_secs(1)),
                uncommitted.clone(),
                "the store has committed nothing for 16 s",
            ),
            (
                |inputs, _| inputs.oldest_notice = Some(WATCHDOG_NOTICE_MAX + Span::from_secs(1)),
                undelivered.clone(),
                "a notice has been undelivered for 10 m 1 s",
            ),
            (
                |inputs, _| inputs.lag = WATCHDOG_LAG_MAX + Span::from_secs(1),
                late.clone(),
                "a check has been due for 11 s and has no worker",
            ),
        ];
        let mut all = sound.clone();
        for (change, reason, text) in table {
            let mut inputs = sound.clone();
            change(&mut inputs, still("shard 0"));
            assert_eq!(health(&inputs), Err(vec![reason.clone()]));
            assert_eq!(reason.to_string(), text);
            change(&mut all, still("the code lane"));
        }
        let gravest_first = vec![stands("the code lane"), stands("the code lane"), uncommitted, undelivered, late];
        assert_eq!(health(&all), Err(gravest_first));
    }
}
