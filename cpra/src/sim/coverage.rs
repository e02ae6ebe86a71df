//! How often each thing that ought to happen did: a sweep that never reached something has not tested it.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::Fault;
use crate::domain::{Code, VoidReason};

/// What kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Fault,
    Behaviour,
    Transition,
    /// A row of the table of verdicts.
    Row,
    Code,
    Place,
    /// Anything else that is worth a test.
    Turn,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(Section, &'static str), u64>);

pub const TRANSITIONS: [&str; 8] =
    ["FirstOk", "Fail1", "Threshold", "Rise", "VoidBegan", "VoidEnded", "Degraded", "Clean"];

pub const ROWS: [&str; 18] = [
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "22",
    "23",
    "24",
    "27",
    "27 ends",
    "28",
    "39 with an episode",
    "39 without one",
    "40 suspect",
    "40 degraded",
    "40 down",
    "40 switched by a person",
];

pub const PLACES: [&str; 7] = ["nowhere", "wheel", "ready", "resolving", "flight", "pause", "judging"];

pub const BEHAVIOURS: [&str; 15] = [
    "up",
    "refused",
    "unreachable",
    "blackhole",
    "given up",
    "slams",
    "tarpit",
    "deaf",
    "trickle",
    "status",
    "garbage",
    "cut short",
    "reset midway",
    "pieces",
    "half alive",
];

pub const TURNS: [&str; 60] = [
    "a check waited for its packets",
    "a check was overdue",
    "a line was longer than its workers",
    "a read was cut short",
    "completions were reordered",
    "a completion was late",
    "a socket was refused",
    "a connect won against its disconnect",
    "a connect lost against its disconnect",
    "a packet was lost by this host",
    "a connection was reused",
    "a reused connection failed and a fresh one was tried",
    "an attempt was retried",
    "a timeout was judged",
    "a stall overlapped a check",
    "a monitor was obscured",
    "the daemon raised its own notice",
    "the desk was full",
    "a notice left before it was durable",
    "a notice was held after the start",
    "a notice went to the fallback",
    "a notice was taken by nobody and tried again",
    "a destination had several notices on their way",
    "a crash lost a commit",
    "a transition was stale",
    "a due time was missed",
    "a name took most of the time",
    "a server scolded for idleness",
    "a machine slept for minutes",
    "the open episodes were asked for",
    "an errand was sent again",
    "a script was not started in time",
    "an errand was recalled",
    "an echo came twice or late",
    "a job was late",
    "a job called while the desk was full",
    "a call was missed while the loop stood still",
    "a handshake was told of by the kernel",
    "a handshake was told of that cannot have been",
    "a SYN was sent again",
    "an answer to a SYN was not seen",
    "a half-open check was tried again by a connect",
    "a crash left a commit that nobody knew was durable",
    "an unsent notice outlived its process",
    "a notice arrived again after a crash",
    "a notice arrived again after a doubt",
    "nobody knew whether a notice had arrived",
    "a notice was refused",
    "a notice was given up",
    "a destination wanted nothing for a while",
    "a destination wanted nothing, and did not say for how long",
    "a burst was used",
    "a notice waited for its destination's pace",
    "a person brought back what was dead",
    "a person dropped a notice",
    "a notice arrived that a person had dropped",
    "a test arrived",
    "a raise was refreshed",
    "a resolve was repeated",
    "people were reminded",
];

impl Coverage {
    pub fn hit(&mut self, section: Section, what: &'static str) {
        self.add(section, what, 1);
    }

    pub fn add(&mut self, section: Section, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry((section, what)).or_default() += times;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (&(section, what), times) in &other.0 {
            self.add(section, what, *times);
        }
    }

    pub fn times(&self, section: Section, what: &'static str) -> u64 {
        self.0.get(&(section, what)).copied().unwrap_or_default()
    }

    /// What a sweep has to reach.
    pub fn required() -> Vec<(Section, &'static str)> {
        let mut all = Vec::new();
        let mut section = |section, names: &[&'static str]| all.extend(names.iter().map(|name| (section, *name)));
        section(Section::Fault, &Fault::KINDS);
        section(Section::Behaviour, &BEHAVIOURS);
        section(Section::Transition, &TRANSITIONS);
        section(Section::Row, &ROWS);
        section(Section::Place, &PLACES);
        section(Section::Turn, &TURNS);
        let codes: Vec<&'static str> =
            Code::ALL.iter().filter(|code| is_reachable(**code)).map(|code| code.as_str()).collect();
        section(Section::Code, &codes);
        all
    }

    /// What was never reached.
    pub fn missing(&self) -> Vec<(Section, &'static str)> {
        let mut required = Self::required();
        required.retain(|(section, what)| self.times(*section, what) == 0);
        required
    }
}

/// What the seeds plan so far can lead to.
const fn is_reachable(code: Code) -> bool {
    match code {
        Code::L6Ok | Code::L6Tout | Code::L6Rsp | Code::L6Cert => false,
        Code::L3Ok
        | Code::L3Con
        | Code::L3Tout
        | Code::L3Rsp
        | Code::ProcOk
        | Code::ProcErr
        | Code::ProcTout
        | Code::Slow
        | Code::PushOk
        | Code::PushErr
        | Code::PushTout
        | Code::L4Ok
        | Code::L4Con
        | Code::L4Tout
        | Code::L4Dns
        | Code::L7Ok
        | Code::L7Sts
        | Code::L7Rsp
        | Code::L7Tout
        | Code::Void(
            VoidReason::Descriptors
            | VoidReason::Memory
            | VoidReason::Ports
            | VoidReason::Forbidden
            | VoidReason::Route
            | VoidReason::Resolver
            | VoidReason::HostDrops
            | VoidReason::Stall
            | VoidReason::Internal
            | VoidReason::NotRunnable
            | VoidReason::Unknown,
        ) => true,
    }
}

/// A table: section, what, how often.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, what) in Self::required() {
            writeln!(f, "{:<12}{what:<56}{:>12}", format!("{section:?}"), self.times(section, what))?;
        }
        Ok(())
    }
}
