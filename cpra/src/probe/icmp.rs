//! An ICMP check: do echo requests come back, enough of them and soon enough?
//!
//! ```text
//!  start ──▶ request 0 ── gap ──▶ request 1 ── gap ──▶ … request n−1 ──▶ wait
//!                 any time: replies, errors, duplicates (which count once)
//! ```
//! The requests leave evenly over at most half of the timeout, so that the last one has as long as the first half for
//! its way. The attempt ends as soon as its verdict is certain: every request is answered or has met an error; or
//! enough are answered and no mean is asked for; or so many have met errors that too few can be answered. Else it ends
//! with its time, and what has not come back by then is lost.
//!
//! An error is a loss with a reason. Only where nothing was answered it is the verdict (L3CON): one router on one of
//! several ways may be the only one that complains.
//!
//! A request whose time has come waits for its [`Quota`](super::Quota). Where that keeps one back until the attempt's time is
//! up, the check is void unless it is ok all the same.
//!
//! What comes back for an older attempt never gets here: it names another generation of the slot.

use std::net::IpAddr;

use super::errand::Echo;
use super::{Judgement, Ops, Request, Then};
use crate::domain::monitor::IcmpCheck;
use crate::domain::{Check, Code, Latency, Outcome, Verdict, VoidReason};
use crate::ring::{Errno, Family};
use crate::units::limits::ECHO_GAP_MAX;
use crate::units::{Instant, Span};
use crate::wire::icmp;

#[derive(Debug)]
pub struct IcmpProbe {
    started: Instant,
    /// Requests that were asked for: the sequence numbers below this.
    asked: u8,
    /// The next one's time has come, and it may not leave yet.
    kept_back: bool,
    /// A bit per request that was answered or met an error.
    settled: [u64; 4],
    replies: u8,
    /// Requests that met an error.
    refused: u8,
    round_trips: Span,
    /// The first error's words, and who said them.
    trouble: Option<Trouble>,
}

/// What an ICMP error says, and who sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) from: Option<IpAddr>,
}

impl IcmpProbe {
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        let mut probe = Self {
            started: now,
            asked: 0,
            kept_back: false,
            settled: [0; 4],
            replies: 0,
            refused: 0,
            round_trips: Span::ZERO,
            trouble: None,
        };
        probe.ask(request, now, ops);
        probe
    }

    /// Asks for every request whose time has come, and to be woken for the next one.
    fn ask(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) {
        let check = check(request);
        let gap = gap(check, request.policy.timeout);
        while self.asked < check.count {
            let leaves = self.started + gap.scaled(u64::from(self.asked), 1);
            if leaves > now {
                ops.wake = Some(leaves);
                return;
            }
            self.kept_back = ops.pings.len() >= ops.quota.left as usize;
            if self.kept_back {
                ops.wake = Some(ops.quota.next);
                ops.quota.is_short = true;
                return;
            }
            ops.pings.push(u16::from(self.asked));
            self.asked += 1;
        }
    }

    pub fn woken(&mut self, request: &Request<'_>, now: Instant, ops: &mut Ops) -> Option<Judgement> {
        self.ask(request, now, ops);
        // An error that came before the last request had left may have decided already.
        self.certain(request).then(|| judgement(self.judged(request, now)))
    }

    pub fn echoed(&mut self, request: &Request<'_>, sequence: u16, echo: Echo, now: Instant) -> Option<Judgement> {
        match echo {
            Echo::Unsent(errno) => return Some(judgement(unsent(request, errno))),
            Echo::NoSocket(errno) => return Some(judgement(no_socket(errno))),
            // Nothing refuses an echo request but by an error.
            Echo::Refused { .. } => return None,
            Echo::Reply { .. } | Echo::Error { .. } if !self.settle(sequence) => return None,
            Echo::Reply { rtt } => {
                self.replies += 1;
                self.round_trips = self.round_trips + rtt;
            }
            Echo::Error { kind, code, from } => {
                self.refused += 1;
                self.trouble.get_or_insert(Trouble { kind, code, from });
            }
        }
        self.certain(request).then(|| judgement(self.judged(request, now)))
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let outcome = self.judged(request, now);
        let count = check(request).count;
        if self.kept_back && outcome.verdict() == Verdict::Fail {
            // What did not leave in time was not lost.
            let text = format!("{} of {count} echo requests left in time: [pulse] max_echo_rate", self.asked);
            return Outcome::of(Code::Void(VoidReason::Memory)).with_evidence(&text);
        }
        outcome
    }

    /// Whether this is the first that is heard of a request.
    fn settle(&mut self, sequence: u16) -> bool {
        if sequence >= u16::from(self.asked) {
            return false;
        }
        let word = &mut self.settled[usize::from(sequence / 64)];
        let bit = 1 << (sequence % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn certain(&self, request: &Request<'_>) -> bool {
        let check = check(request);
        let open = check.count - self.replies - self.refused;
        let needed = needed(check);
        let enough = self.replies >= needed && check.max_rtt.is_none();
        let hopeless = self.asked == check.count && self.replies + open < needed;
        open == 0 || enough || hopeless
    }

    fn judged(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let check = check(request);
        let address = request.address.ip();
        let trouble = self.trouble.map(|trouble| trouble.words(Family::of(&request.address)));
        if self.replies == 0 {
            return match trouble {
                Some(words) => Outcome::of(Code::L3Con).with_evidence(&format!("{address} unreachable: {words}")),
                None => {
                    let requests = if self.asked == 1 { "1 echo request" } else { "echo requests" };
                    let count = if self.asked == 1 { String::new() } else { format!("{} ", self.asked) };
                    let waited = now.since(self.started);
                    Outcome::of(Code::L3Tout)
                        .with_evidence(&format!("no answer from {address} to {count}{requests} in {waited}"))
                }
            };
        }
        let mean = self.round_trips.scaled(1, u64::from(self.replies));
        let lost = self.asked - self.replies;
        let outcome = if self.replies < needed(check) {
            let reason = trouble.map_or(String::new(), |words| format!(" ({words})"));
            Outcome::of(Code::L3Rsp)
                .with_evidence(&format!("{lost} of {} lost, at most {} %{reason}", self.asked, check.max_loss))
        } else if let Some(limit) = check.max_rtt.filter(|&limit| mean > limit) {
            Outcome::of(Code::L3Rsp).with_evidence(&format!("mean round trip {mean}, at most {limit}"))
        } else {
            Outcome::of(Code::L3Ok)
        };
        Outcome { latency: Latency { first_byte: mean, ..Latency::default() }, ..outcome }
    }
}

impl Trouble {
    pub(super) fn words(self, family: Family) -> String {
        let words = match icmp::trouble(family, self.kind, self.code) {
            Some(words) => words.to_owned(),
            None => format!("ICMP type {} code {}", self.kind, self.code),
        };
        match self.from {
            Some(router) => format!("{words}, says {router}"),
            None => words,
        }
    }
}

fn check<'a>(request: &Request<'a>) -> &'a IcmpCheck {
    let Check::Icmp(check) = &request.policy.check else { unreachable!("only icmp checks get here") };
    check
}

/// Replies without which the check fails: as many as may not get lost, and never none.
fn needed(check: &IcmpCheck) -> u8 {
    let may_be_lost = u16::from(check.count) * u16::from(check.max_loss.min(100)) / 100;
    #[expect(clippy::cast_possible_truncation, reason = "at most the count")]
    let needed = check.count - may_be_lost as u8;
    needed.max(1)
}

/// Between two requests.
fn gap(check: &IcmpCheck, timeout: Span) -> Span {
    timeout.scaled(1, 2 * u64::from(check.count.max(1))).min(ECHO_GAP_MAX)
}

fn judgement(outcome: Outcome) -> Judgement {
    Judgement { outcome, then: Then::Disconnect }
}

/// This host did not let it out: no route, a full queue, a packet filter.
fn unsent(request: &Request<'_>, errno: Errno) -> Outcome {
    not_sent("echo request", &request.address.ip(), errno)
}

/// What it is that this host sends none of to whom.
pub(super) fn not_sent(what: &str, to: &impl std::fmt::Display, errno: Errno) -> Outcome {
    let why = match errno {
        Errno::EAGAIN | Errno::ENOBUFS => "its queues are full".to_owned(),
        Errno::EINVAL => "it takes the address for invalid (a blackhole route?)".to_owned(),
        errno => errno.to_string(),
    };
    Outcome::of(Code::of_local_error(errno)).with_evidence(&format!("this host sends no {what} to {to}: {why}"))
}

fn no_socket(errno: Errno) -> Outcome {
    let code = Code::of_local_error(errno);
    let remedy = if code == Code::Void(VoidReason::Forbidden) {
        ": give the daemon CAP_NET_RAW, or its group a place in net.ipv4.ping_group_range"
    } else {
        ""
    };
    Outcome::of(code).with_evidence(&format!("no socket for echo requests ({errno}){remedy}"))
}

#[cfg(test)]
mod tests;
