//! How long a connect took, and what one that did not stand says: the same for every kind of check.

use super::Request;
use crate::domain::{Code, Latency, Outcome};
use crate::ring::{Completion, Errno, Handshake};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, Span};

/// How long a connect took that was asked for at `asked`, until it stood: by the kernel's own clock where that is known.
pub(super) fn took(completion: &Completion<'_>, asked: Instant, now: Instant) -> Span {
    completion.handshake.map_or_else(|| now.since(asked), Handshake::took)
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Check, HostRef, HttpCheck, Policy, TargetRef, TcpCheck};
    use crate::probe::{Ops, Probe};
    use crate::ring::OpKind;
    use crate::units::{Generation, Slot};
    use crate::wire::tls::Unloaded;

    /// Where the time went of a check that was begun at 0 ms, whose connect was taken at 60 ms, and which then received
    /// `answer` at 90 ms.
    fn latency(check: Check, handshake: Option<Handshake>, answer: &[u8]) -> Latency {
        let second = Span::from_secs(1);
        let policy = Arc::new(Policy::new(check, second, second));
        let address = ([192, 0, 2, 1], 80).into();
        let target = TargetRef { host: HostRef::Literal(std::net::IpAddr::from([192, 0, 2, 1])), port: 80, path: "/" };
        let request = Request { policy: &policy, target, address, hop: None, contexts: &Unloaded };
        let mut ops = Ops::default();
        let mut probe = Probe::start(&request, at(0), &mut ops);
        let mut on = |kind, more, data: &[u8], handshake, now| {
            let (slot, generation, result) = (Slot(0), Generation(0), Ok(data.len() as u32));
            let completion = Completion { slot, generation, kind, result, more, local: false, data, handshake };
            probe.on(&request, &completion, now, &mut ops)
        };
        let judgement = on(OpKind::Connect, false, &[], handshake, at(60));
        let judgement = judgement.or_else(|| on(OpKind::Recv, true, answer, None, at(90)));
        judgement.expect("it is judged by now").outcome.latency
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000) + Span::from_millis(millis)
    }

    #[test]
    fn a_connect_took_what_the_kernel_says() {
        let handshake = Some(Handshake { sent: at(5), stood: at(7) });
        let banner = || TcpCheck { expect: b"220".as_slice().into(), ..TcpCheck::default() };
        let dialogue = || TcpCheck { send: b"hello".as_slice().into(), ..banner() };
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (check, answer, known, unknown) in [
            (Check::Tcp(TcpCheck::default()), &b""[..], (2, 0), (60, 0)),
            // Who speaks first may do so as soon as the connection stands.
            (Check::Tcp(banner()), b"220 ready", (2, 83), (60, 30)),
            // Who answers hears of us when we have seen that it stands.
            (Check::Tcp(dialogue()), b"220 ready", (2, 30), (60, 30)),
            (Check::Http(HttpCheck::default()), answer, (2, 30), (60, 30)),
        ] {
            for (handshake, (connect, first_byte)) in [(handshake, known), (None, unknown)] {
                let found = latency(check.clone(), handshake, answer);
                let wanted = Latency {
                    connect: Span::from_millis(connect),
                    first_byte: Span::from_millis(first_byte),
                    ..Latency::default()
                };
                assert_eq!(found, wanted, "{check:?} {handshake:?}");
            }
        }
    }
}
