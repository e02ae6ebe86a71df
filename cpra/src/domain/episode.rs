//! The life of an episode: from leaving Up until Up again.
//!
//! ```text
//!            Fail1            Threshold
//!  Unknown ─────────▶ Suspect ─────────▶ Down ◀────────────── Waiting, Running, Verifying, Unreachable
//!  or Up    yellow      │        red      │                    (with the interventions and parents)
//!    ▲ │                │ Rise            │ Rise
//!    │ └─ Degraded ─────┴─── resolve ─────┘
//!    └──────────────────────────┘
//! ```
//! [`step`] is a pure table over states and events; the desk turns its [`Act`]s into commits, notices and commands.
//! The rows it implements are those of `docs/verdicts.md`, by number; the table is also its unit test.
//!
//! The streaks are not here: the shard's [`Health`](super::Health) counts, and reports only the steps that matter.

/// What an episode, or its absence, is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No episode; never judged since it is watched.
    Unknown,
    /// No episode.
    Up,
    /// Up, but warned F times in a row.
    Degraded,
    /// Failed at least once, fewer than F times in a row.
    Suspect,
    /// A repair is claimed and waits for the rails.
    Waiting,
    /// A repair runs.
    Running,
    /// A repair has run; is it any better?
    Verifying,
    Down(DownWhy),
    /// A parent is down: this one's failure is counted there.
    Unreachable,
    /// Nobody watches it.
    Disabled,
    /// An episode is open, and nothing is known of the monitor since: it is another one now, by its definition.
    Unproven,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownWhy {
    /// Nothing is left to try, or there never was anything.
    Exhausted,
    /// A repair is withheld by a rail or waits for a person.
    Blocked,
}

impl State {
    /// As people and metrics see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown | Self::Unproven => "unknown",
            Self::Up | Self::Degraded => "up",
            Self::Suspect => "suspect",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::Down(_) => "down",
            Self::Unreachable => "unreachable",
            Self::Disabled => "disabled",
        }
    }

    /// Whether an episode is open.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Unknown | Self::Up | Self::Disabled => false,
            Self::Degraded
            | Self::Suspect
            | Self::Waiting
            | Self::Running
            | Self::Verifying
            | Self::Down(_)
            | Self::Unreachable
            | Self::Unproven => true,
        }
    }
}

/// What an episode hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first ok of a monitor nothing was known of.
    FirstOk,
    /// The first failure, F > 1.
    Fail1,
    /// The failure that reaches F.
    Threshold,
    /// Up again, by the rules of the state it was in.
    Rise,
    /// F warns in a row.
    Warned,
    /// H clean oks after that.
    Clean,
    /// A check that says nothing.
    Void,
    /// A person's word, or it is no longer in the files.
    Disabled,
    Enabled,
    /// It checks something else from now on.
    Redefined,
    // With the interventions:
    ActionStarted,
    ActionOk,
    ActionFailed {
        attempts_left: bool,
    },
    ActionUnknown,
    VerifyDeadline {
        attempts_left: bool,
    },
    RedOverdue,
    Approved,
    // With the parents:
    ParentDown,
    ParentUp,
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Open,
    /// To the destinations of yellow, once per episode.
    Yellow,
    /// To the destinations of red, once per episode.
    Red,
    /// To those of red that want to hear of the first failure already (`dispatch: always`), once per episode.
    RedIfAlways,
    /// To everyone who got a raise, and to the destinations of green.
    Resolve,
    /// "No longer watched": to the destinations of gray, and to everyone who got a raise.
    Gray,
    Close,
    SeenOk,
}

/// A row's right-hand side.
pub type Step = (State, &'static [Act]);

/// One step of the table.
pub const fn step(state: State, event: Event) -> Step {
    use State::{Degraded, Disabled, Down, Running, Suspect, Unknown, Unproven, Unreachable, Up, Verifying, Waiting};

    const DOWN: State = Down(DownWhy::Exhausted);
    match (state, event) {
        // Rows 1 and 5, 24, 9, 17: up. The shard has counted the oks that the state asks for.
        (Unknown, Event::FirstOk | Event::Rise) => (Up, &[Act::SeenOk]),
        // Row 1b is the same: an episode is open, and H oks end it.
        (Suspect | Down(_) | Waiting | Verifying | Unreachable | Unproven, Event::Rise) => {
            (Up, &[Act::SeenOk, Act::Resolve, Act::Close])
        }
        (Degraded, Event::Clean | Event::Rise) => (Up, &[Act::SeenOk, Act::Resolve, Act::Close]),

        // Row 1b: the episode goes on under its key; no second yellow.
        (Unproven, Event::Fail1) => (Suspect, &[]),

        // Row 2. A degraded monitor's episode goes on; its yellow is not repeated.
        (Unknown | Up, Event::Fail1) => (Suspect, &[Act::Open, Act::Yellow, Act::RedIfAlways]),
        (Degraded, Event::Fail1) => (Suspect, &[Act::Yellow, Act::RedIfAlways]),
        // Row 3, F = 1: no yellow.
        (Unknown | Up, Event::Threshold) => (DOWN, &[Act::Open, Act::Red]),
        // Row 6; a monitor without an intervention has nothing else to wait for.
        (Suspect | Degraded | Unproven, Event::Threshold) => (DOWN, &[Act::Red]),
        // Row 27: never red.
        (Unknown | Up, Event::Warned) => (Degraded, &[Act::Open, Act::Yellow]),

        // Row 39, and its way back.
        (Disabled, Event::Disabled) => (Disabled, &[]),
        (Unknown | Up, Event::Disabled) => (Disabled, &[Act::Gray]),
        (Degraded | Suspect | Waiting | Running | Verifying | Down(_) | Unreachable | Unproven, Event::Disabled) => {
            (Disabled, &[Act::Gray, Act::Close])
        }
        (Disabled, Event::Enabled) => (Unknown, &[]),
        // What it was seen to be says nothing about what it is now, and an open episode is kept until that is known.
        (Unknown | Up, Event::Redefined) => (Unknown, &[]),
        (Degraded | Suspect | Waiting | Running | Verifying | Down(_) | Unreachable | Unproven, Event::Redefined) => {
            (Unproven, &[])
        }

        // Row 28: void changes nothing, anywhere; the desk keeps its own account of how long it lasts.
        (_, Event::Void) => (state, &[]),

        // Rows 4, 10, 11, 16, 18, 22, 23: counted by the shard, and never heard of here. What is left cannot come
        // from a shard whose epoch is current, or belongs to rows of capabilities that are not in this version.
        (
            Unknown | Up | Degraded | Suspect | Waiting | Running | Verifying | Down(_) | Unreachable | Unproven
            | Disabled,
            Event::FirstOk
            | Event::Fail1
            | Event::Threshold
            | Event::Rise
            | Event::Warned
            | Event::Clean
            | Event::Enabled
            | Event::Redefined
            | Event::ActionStarted
            | Event::ActionOk
            | Event::ActionFailed { .. }
            | Event::ActionUnknown
            | Event::VerifyDeadline { .. }
            | Event::RedOverdue
            | Event::Approved
            | Event::ParentDown
            | Event::ParentUp,
        ) => (state, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: State = State::Down(DownWhy::Exhausted);

    #[test]
    fn the_table() {
        let rows: &[(&str, State, Event, State, &[Act])] = &[
            ("1", State::Unknown, Event::FirstOk, State::Up, &[Act::SeenOk]),
            ("1b", State::Unproven, Event::Rise, State::Up, &[Act::SeenOk, Act::Resolve, Act::Close]),
            ("1b", State::Unproven, Event::Fail1, State::Suspect, &[]),
            ("1b", State::Unproven, Event::Threshold, DOWN, &[Act::Red]),
            ("2", State::Unknown, Event::Fail1, State::Suspect, &[Act::Open, Act::Yellow, Act::RedIfAlways]),
            ("2", State::Up, Event::Fail1, State::Suspect, &[Act::Open, Act::Yellow, Act::RedIfAlways]),
            ("3", State::Up, Event::Threshold, DOWN, &[Act::Open, Act::Red]),
            ("3", State::Unknown, Event::Threshold, DOWN, &[Act::Open, Act::Red]),
            ("5", State::Suspect, Event::Rise, State::Up, &[Act::SeenOk, Act::Resolve, Act::Close]),
            ("6", State::Suspect, Event::Threshold, DOWN, &[Act::Red]),
            ("24", DOWN, Event::Rise, State::Up, &[Act::SeenOk, Act::Resolve, Act::Close]),
            ("27", State::Up, Event::Warned, State::Degraded, &[Act::Open, Act::Yellow]),
            ("27", State::Degraded, Event::Clean, State::Up, &[Act::SeenOk, Act::Resolve, Act::Close]),
            ("28", State::Suspect, Event::Void, State::Suspect, &[]),
            ("28", DOWN, Event::Void, DOWN, &[]),
            ("39", State::Up, Event::Disabled, State::Disabled, &[Act::Gray]),
            ("39", DOWN, Event::Disabled, State::Disabled, &[Act::Gray, Act::Close]),
            ("39", State::Unproven, Event::Disabled, State::Disabled, &[Act::Gray, Act::Close]),
            ("39", State::Disabled, Event::Enabled, State::Unknown, &[]),
            ("39", State::Up, Event::Redefined, State::Unknown, &[]),
            ("39", State::Suspect, Event::Redefined, State::Unproven, &[]),
            ("39", DOWN, Event::Redefined, State::Unproven, &[]),
            ("39", State::Degraded, Event::Redefined, State::Unproven, &[]),
            ("39", State::Disabled, Event::Redefined, State::Disabled, &[]),
        ];
        for &(row, state, event, next, acts) in rows {
            assert_eq!(step(state, event), (next, acts), "row {row}: {state:?} on {event:?}");
        }
    }

    #[test]
    fn an_episode_is_opened_and_closed_exactly_where_it_begins_and_ends() {
        let states = [
            State::Unknown,
            State::Up,
            State::Degraded,
            State::Suspect,
            State::Waiting,
            State::Running,
            State::Verifying,
            DOWN,
            State::Down(DownWhy::Blocked),
            State::Unreachable,
            State::Disabled,
            State::Unproven,
        ];
        let events = [
            Event::FirstOk,
            Event::Fail1,
            Event::Threshold,
            Event::Rise,
            Event::Warned,
            Event::Clean,
            Event::Void,
            Event::Disabled,
            Event::Enabled,
            Event::Redefined,
        ];
        for state in states {
            for event in events {
                let (next, acts) = step(state, event);
                let context = format!("{state:?} on {event:?}");
                assert_eq!(acts.contains(&Act::Open), !state.is_open() && next.is_open(), "{context}");
                assert_eq!(acts.contains(&Act::Close), state.is_open() && !next.is_open(), "{context}");
                let ends = acts.contains(&Act::Resolve) || acts.contains(&Act::Gray);
                assert!(!acts.contains(&Act::Close) || ends, "{context}: nobody hears of the end");
            }
        }
    }
}
