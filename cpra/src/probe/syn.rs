//! A half-open TCP check: does anything answer a SYN?
//!
//! ```text
//!  start ──▶ SYN ── 1 s ──▶ SYN ── 2 s ──▶ SYN ── 4 s ──▶ … until the attempt's time is up: L4TOUT
//!              any time, for any of them: SYN-ACK ──▶ L4OK
//!                                         RST ──▶ L4CON, refused
//!                                         ICMP error ──▶ L4CON, unreachable
//! ```
//! It comes to the same as a connect, in the same words, for as long as the connection carries nothing: the SYNs leave when
//! the kernel's own would, and end where those would. An ICMP error ends a connect that is under way (RFC 5461 §4.1 says
//! why), but for one that speaks of the packet's size: a SYN is smaller than what every network must carry.
//!
//! Nothing here knows who answers the peer's SYN-ACK so that nothing is left half-open there: the driver does
//! (`os/syn.rs`). What comes back for an older attempt never gets here: it names another generation of the slot.

use super::errand::Echo;
use super::icmp::{Trouble, not_sent};
use super::{Judgement, Ops, Request, Then, connect};
use crate::domain::{Code, Latency, Outcome};
use crate::ring::{Errno, Family};
use crate::units::limits::{SYN_RETRIES_MAX, SYN_RETRY_AFTER};
use crate::units::{Instant, Span};
use crate::wire::icmp;

#[derive(Debug)]
pub struct SynProbe {
    started: Instant,
    /// SYNs that were asked for: the numbers below this.
    asked: u16,
}

impl SynProbe {
    pub fn start(now: Instant, ops: &mut Ops) -> Self {
        let mut probe = Self { started: now, asked: 0 };
        probe.ask(now, ops);
        probe
    }

    /// Asks for the next SYN, and to be woken for the one after it. Who was late does not hurry: the times in between are
    /// what the peer gets to answer. One that may not leave yet ([`Quota`](super::Quota)) is asked for later.
    fn ask(&mut self, now: Instant, ops: &mut Ops) {
        ops.syn = Some(self.asked);
        if self.asked < SYN_RETRIES_MAX {
            ops.wake = Some(now + SYN_RETRY_AFTER.scaled(1 << self.asked, 1));
        }
        self.asked += 1;
    }

    pub fn woken(&mut self, now: Instant, ops: &mut Ops) {
        if self.asked > SYN_RETRIES_MAX {
            return;
        }
        if ops.quota.left == 0 {
            ops.quota.is_short = true;
            ops.wake = Some(ops.quota.next);
            return;
        }
        self.ask(now, ops);
    }

    pub fn echoed(&mut self, request: &Request<'_>, number: u16, echo: Echo) -> Option<Judgement> {
        if number >= self.asked {
            return None;
        }
        let address = request.address;
        let outcome = match echo {
            Echo::Reply { rtt } => answered(Outcome::of(Code::L4Ok), rtt),
            Echo::Refused { rtt } => connect::failed(request, false, Errno::ECONNREFUSED, rtt),
            Echo::Error { kind, code, from } => {
                let family = Family::of(&address);
                if !ends_a_connect(family, kind, code) {
                    return None;
                }
                let words = Trouble { kind, code, from }.words(family);
                Outcome::of(Code::L4Con).with_evidence(&format!("{address} unreachable: {words}"))
            }
            Echo::Unsent(errno) => not_sent("SYN", &address, errno),
            Echo::NoSocket(errno) => Outcome::of(Code::of_local_error(errno))
                .with_evidence(&format!("no socket for half-open checks ({errno})")),
        };
        Some(Judgement { outcome, then: Then::Disconnect })
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        connect::expired(request, now.since(self.started))
    }
}

fn answered(outcome: Outcome, rtt: Span) -> Outcome {
    Outcome { latency: Latency { connect: rtt, ..Latency::default() }, ..outcome }
}

/// Whether the kernel would fail a connect for such an error: it says that there is no way, and is not about the packet's
/// size.
const fn ends_a_connect(family: Family, kind: u8, code: u8) -> bool {
    let too_big = matches!((family, kind, code), (Family::V4, 3, 4) | (Family::V6, 2, _));
    icmp::trouble(family, kind, code).is_some() && !too_big
}

#[cfg(test)]
mod tests;
