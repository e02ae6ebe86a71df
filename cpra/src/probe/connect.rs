//! What a connect that did not stand says: the same words for every kind of check.

use super::Request;
use crate::domain::{Code, Latency, Outcome};
use crate::ring::Errno;
use crate::units::Span;
use crate::units::planted::{self, Bug};

/// The connect failed after `waited`; `local` is [`crate::ring::Completion::local`].
pub(super) fn failed(request: &Request<'_>, local: bool, errno: Errno, waited: Span) -> Outcome {
    let mut code = Code::of_connect_error(errno, local);
    if planted::is(Bug::FailureOfOursCountsAsTargets) && errno == Errno::EADDRNOTAVAIL {
        code = Code::L4Con;
    }
    let mut outcome = Outcome::of(code).with_evidence(&format!("{errno} {}", request.address));
    outcome.latency = Latency { connect: waited, ..Latency::default() };
    outcome
}

/// Time was up before the connect had an answer.
pub(super) fn expired(request: &Request<'_>, waited: Span) -> Outcome {
    Outcome::of(Code::L4Tout).with_evidence(&format!("no answer from {} in {waited}", request.address))
}
