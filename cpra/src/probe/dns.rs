//! A dns check: does the server answer the question, and as it is expected to?
//!
//! The driver asks ([`Errand::Dns`]); here what it brings is judged:
//!
//! | what came | code |
//! | --- | --- |
//! | `NOERROR` with everything that is expected; with anything, where nothing is | `L7OK` |
//! | another response code: `NXDOMAIN`, `SERVFAIL`, `REFUSED`, ... | `L7STS` |
//! | `NOERROR`, and data is missing, or there is none at all | `L7RSP` |
//! | an answer that cannot be read | `L7RSP` |
//! | nothing, until the time is up | `L7TOUT` |
//! | an ICMP error: the port is closed, the host is not to be reached | `L4CON` |
//! | this host could not even ask | void |

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use super::errand::{DnsAnswer, DnsTrouble, Errand, ErrandEnd};
use super::{Judgement, Ops, Request, Then};
use crate::domain::monitor::DnsCheck;
use crate::domain::{Check, Code, Latency, Outcome, VoidReason};
use crate::units::Instant;
use crate::wire::dns::is_same;

#[derive(Debug)]
pub struct DnsProbe {
    started: Instant,
}

/// The port that need not be said.
const PORT: u16 = 53;

impl DnsProbe {
    pub fn start(request: &Request<'_>, now: Instant, ops: &mut Ops) -> Self {
        let policy = Arc::clone(request.policy);
        ops.errand = Some(Errand::Dns { policy, server: request.address, name: request.target.path.into() });
        Self { started: now }
    }

    pub fn returned(&self, request: &Request<'_>, end: &ErrandEnd, now: Instant) -> Judgement {
        let mut outcome = match end {
            ErrandEnd::Answered(answer) => judge(request, answer),
            ErrandEnd::Unanswered(DnsTrouble::Silent) => silent(request, Code::L7Tout),
            ErrandEnd::Unanswered(DnsTrouble::Failed(errno)) => {
                let server = server(request.address);
                Outcome::of(Code::of_connect_error(*errno, false)).with_evidence(&format!("{errno} {server}"))
            }
            ErrandEnd::Unanswered(DnsTrouble::Malformed(why)) => {
                let evidence = format!("{why} ({}, asked {})", question(request), server(request.address));
                Outcome::of(Code::L7Rsp).with_evidence(&evidence)
            }
            ErrandEnd::Refused(errno) => {
                let evidence = format!("could not ask {}: {errno}", server(request.address));
                Outcome::of(Code::of_local_error(*errno)).with_evidence(&evidence)
            }
            // A recalled errand has no attempt any more, and programs answer no questions.
            ErrandEnd::Recalled
            | ErrandEnd::Exited { .. }
            | ErrandEnd::Flooded { .. }
            | ErrandEnd::Barred(_)
            | ErrandEnd::NotStarted(_) => {
                Outcome::of(Code::Void(VoidReason::Internal)).with_evidence("the question was not asked")
            }
        };
        outcome.latency = Latency { first_byte: now.since(self.started), ..Latency::default() };
        Judgement { outcome, then: Then::Disconnect }
    }

    pub fn expire(&self, request: &Request<'_>, now: Instant) -> Outcome {
        let mut outcome = silent(request, Code::L7Tout);
        outcome.latency.first_byte = now.since(self.started);
        outcome
    }
}

fn judge(request: &Request<'_>, answer: &DnsAnswer) -> Outcome {
    let DnsAnswer { rcode, records } = answer;
    let asked = || format!("asked {}", server(request.address));
    if &**rcode != "NOERROR" {
        let evidence = format!("{rcode} for {}, {}", question(request), asked());
        return Outcome::of(Code::L7Sts).with_evidence(&evidence);
    }
    let Some(check) = check(request) else { return Outcome::of(Code::Void(VoidReason::Internal)) };
    if records.is_empty() {
        let evidence = format!("no answer to {}, {}{}", question(request), asked(), expectation(check));
        return Outcome::of(Code::L7Rsp).with_evidence(&evidence);
    }
    let is_there = |expected: &str| records.iter().any(|found| is_same(check.record, expected, found));
    if check.expect.iter().all(|expected| is_there(expected)) {
        return Outcome::of(Code::L7Ok);
    }
    let missing: Vec<&str> = check.expect.iter().filter(|expected| !is_there(expected)).map(AsRef::as_ref).collect();
    let evidence = format!("answers {}, expected {}", records.join(", "), missing.join(", "));
    Outcome::of(Code::L7Rsp).with_evidence(&evidence)
}

fn silent(request: &Request<'_>, code: Code) -> Outcome {
    let (server, question) = (server(request.address), question(request));
    Outcome::of(code).with_evidence(&format!("no answer from {server} to {question} in {}", request.policy.timeout))
}

fn check<'a>(request: &Request<'a>) -> Option<&'a DnsCheck> {
    match &request.policy.check {
        Check::Dns(check) => Some(check),
        _ => None,
    }
}

/// `www.example A`
fn question(request: &Request<'_>) -> String {
    format!("{} {}", request.target.path, check(request).map_or("", |check| check.record.as_str()))
}

fn expectation(check: &DnsCheck) -> String {
    if check.expect.is_empty() { String::new() } else { format!(", expected {}", check.expect.join(", ")) }
}

/// `10.0.0.53`, `10.0.0.53:5353`
fn server(address: SocketAddr) -> String {
    if address.port() == PORT { address.ip().to_string() } else { address.to_string() }
}
