use super::*;
use crate::domain::monitor::RecordType;
use crate::domain::{HostRef, Policy, TargetRef, Verdict};
use crate::ring::Errno;
use crate::units::Span;

fn policy(record: RecordType, expect: &[&str]) -> Arc<Policy> {
    let expect = expect.iter().map(|&text| text.into()).collect();
    Arc::new(Policy::new(Check::Dns(DnsCheck { record, expect }), Span::from_secs(10), Span::from_secs(5)))
}

fn judged(policy: &Arc<Policy>, address: &str, end: &ErrandEnd) -> Outcome {
    let address: SocketAddr = address.parse().unwrap();
    let target = TargetRef { host: HostRef::Literal(address.ip()), port: address.port(), path: "x.example" };
    let request = Request { policy, target, address, hop: None, contexts: &crate::wire::tls::Unloaded };
    let mut ops = Ops::default();
    let probe = DnsProbe::start(&request, Instant::ZERO, &mut ops);
    let Some(Errand::Dns { server, name, policy: own }) = ops.errand else { panic!("it asks") };
    assert_eq!((server, &*name, Arc::ptr_eq(&own, policy)), (address, "x.example", true));
    let later = Instant::ZERO + Span::from_millis(3);
    let Judgement { outcome, then } = probe.returned(&request, end, later);
    assert_eq!((then, outcome.latency.first_byte), (Then::Disconnect, Span::from_millis(3)));
    outcome
}

fn answered(rcode: &str, records: &[&str]) -> ErrandEnd {
    let records = records.iter().map(|&text| text.into()).collect();
    ErrandEnd::Answered(DnsAnswer { rcode: rcode.into(), records })
}

#[test]
fn every_end_has_its_code_and_words() {
    let any = policy(RecordType::A, &[]);
    let two = policy(RecordType::A, &["10.0.0.2", "10.0.0.1"]);
    let failed = |errno| ErrandEnd::Unanswered(DnsTrouble::Failed(errno));
    let malformed = ErrandEnd::Unanswered(DnsTrouble::Malformed("the answer ends after 7 bytes".into()));
    let silent = ErrandEnd::Unanswered(DnsTrouble::Silent);
    let table = [
        (&any, answered("NOERROR", &["10.0.0.9"]), Code::L7Ok, ""),
        (&two, answered("NOERROR", &["10.0.0.1", "10.0.0.3", "10.0.0.2"]), Code::L7Ok, ""),
        (&any, answered("NXDOMAIN", &[]), Code::L7Sts, "NXDOMAIN for x.example A, asked 10.0.0.53"),
        (&two, answered("SERVFAIL", &["10.0.0.1"]), Code::L7Sts, "SERVFAIL for x.example A, asked 10.0.0.53"),
        (
            &two,
            answered("NOERROR", &["10.0.0.1", "10.0.0.3"]),
            Code::L7Rsp,
            "answers 10.0.0.1, 10.0.0.3, expected 10.0.0.2",
        ),
        (&any, answered("NOERROR", &[]), Code::L7Rsp, "no answer to x.example A, asked 10.0.0.53"),
        (
            &two,
            answered("NOERROR", &[]),
            Code::L7Rsp,
            "no answer to x.example A, asked 10.0.0.53, expected 10.0.0.2, 10.0.0.1",
        ),
        (&any, malformed, Code::L7Rsp, "the answer ends after 7 bytes (x.example A, asked 10.0.0.53)"),
        (&any, silent, Code::L7Tout, "no answer from 10.0.0.53 to x.example A in 5 s"),
        (&any, failed(Errno::ECONNREFUSED), Code::L4Con, "connection refused 10.0.0.53"),
        (&any, failed(Errno::EHOSTUNREACH), Code::L4Con, "host unreachable 10.0.0.53"),
        (
            &any,
            ErrandEnd::Refused(Errno::EMFILE),
            Code::Void(VoidReason::Descriptors),
            "could not ask 10.0.0.53: too many open files",
        ),
        (
            &any,
            ErrandEnd::Refused(Errno::ENETUNREACH),
            Code::Void(VoidReason::Route),
            "could not ask 10.0.0.53: network unreachable",
        ),
        (
            &any,
            ErrandEnd::Refused(Errno::EPERM),
            Code::Void(VoidReason::Forbidden),
            "could not ask 10.0.0.53: forbidden by this host",
        ),
        (&any, ErrandEnd::Recalled, Code::Void(VoidReason::Internal), "the question was not asked"),
    ];
    for (policy, end, code, evidence) in table {
        let outcome = judged(policy, "10.0.0.53:53", &end);
        assert_eq!((outcome.code, outcome.evidence.as_deref().unwrap_or("")), (code, evidence), "{end:?}");
    }
    let elsewhere = judged(&any, "[::1]:5353", &answered("REFUSED", &[]));
    assert_eq!(elsewhere.cause(), "REFUSED for x.example A, asked [::1]:5353");
    assert_eq!(elsewhere.verdict(), Verdict::Fail);
}
