//! Work of a check that the ring's sockets do not do: programs, questions to name servers, echo requests, SYNs.
//!
//! A driver does it and answers. An [`Errand`] is answered exactly once, also after it was recalled; until then its slot
//! is not free. An echo request ([`Ops::pings`](super::Ops)) and a SYN ([`Ops::syn`](super::Ops)) leave nothing pending: what
//! comes back late belongs to an older generation of the slot, and is dropped.
//!
//! A driver that lets errands wait says when one begins: an attempt's time counts from then.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::domain::Policy;
use crate::ring::Errno;
use crate::units::Span;

/// What a driver is asked to do.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Run the program of the policy's check.
    Script(Arc<Policy>),
    /// Ask `server` for `name` (the record is in the policy's check), over UDP, and over TCP where the answer was cut.
    Dns { policy: Arc<Policy>, server: SocketAddr, name: Box<str> },
}

/// What came of an errand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrandEnd {
    /// The program ended.
    Exited {
        status: Exit,
        /// The first bytes of what it wrote to stdout (to stderr where that was nothing), as text.
        output: Box<str>,
    },
    /// The program wrote more than [`crate::units::limits::SCRIPT_OUTPUT_MAX`], and was killed.
    Flooded { output: Box<str> },
    /// The program could not be started: it is missing, no program, or not to be executed.
    NotStarted(Errno),
    /// The driver does not start it, and why.
    Barred(Box<str>),
    /// The server's answer.
    Answered(DnsAnswer),
    /// No answer came in time, or none that could be read.
    Unanswered(DnsTrouble),
    /// It was recalled before it came to an end.
    Recalled,
    /// The driver had no room or no means (descriptors, memory): our own fault.
    Refused(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    Signal(i32),
}

/// An answer of a name server, already matched to the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// The response code by its mnemonic: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, ...
    pub rcode: Box<str>,
    /// The data of the records of the type in question, as master files write them.
    pub records: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsTrouble {
    Silent,
    /// The socket said so.
    Failed(Errno),
    /// The answer was not DNS, or not to this question.
    Malformed(Box<str>),
}

/// What came of one echo request, or of one SYN of a half-open check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Answered; `rtt` is from the packet's way out until its way in, by the best clock that the driver has.
    Reply { rtt: Span },
    /// A SYN was answered by a reset: nobody listens there.
    Refused { rtt: Span },
    /// An ICMP error that quotes the request: its type and code, and the router or host that sent it.
    Error { kind: u8, code: u8, from: Option<IpAddr> },
    /// It was not sent.
    Unsent(Errno),
    /// There is no socket that could send it, and this is why.
    NoSocket(Errno),
}
