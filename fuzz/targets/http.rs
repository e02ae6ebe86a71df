//! An HTTP server that answers anything, to checks with and without a look at the body.

#![no_main]

use cpra::domain::monitor::{About, Assertion, HeaderRule, JsonRule, Pattern};
use cpra::domain::{Check, Codes, HttpCheck, Policy};
use cpra::units::Span;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (flavour, bytes) = input;
    let mut assertions = Vec::new();
    if flavour & 1 != 0 {
        assertions.push(Assertion::Contains("ok".into()));
    }
    if flavour & 2 != 0 {
        assertions.push(Assertion::NotMatches(Pattern::new("(?i)err(or)?").expect("a pattern")));
    }
    if flavour & 4 != 0 {
        assertions.push(Assertion::Json { pointer: "/a/0".into(), rule: JsonRule::AtMost("5".into()) });
    }
    if flavour & 8 != 0 {
        assertions.push(Assertion::Header { name: "x-a".into(), rule: HeaderRule::Contains("b".into()) });
    }
    let check = HttpCheck {
        method: if flavour & 16 != 0 { "HEAD" } else { "GET" }.into(),
        keep_alive: flavour & 32 != 0,
        redirects: if flavour & 64 != 0 { 3 } else { 0 },
        assertions: assertions.into(),
        body_max: 65_536,
        ..HttpCheck::default()
    };
    let policy = Policy {
        check: Check::Http(check),
        interval: Span::from_secs(10),
        timeout: Span::from_secs(1),
        retry_interval: Span::from_secs(10),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        retries: 0,
        max_latency: None,
        groups: Box::default(),
        about: About::default(),
        codes: Codes::default(),
    };
    let judgement = cpra_fuzz::attempt(&policy, bytes);
    let cause = judgement.outcome.cause();
    assert!(cause.len() <= cpra::units::limits::EVIDENCE_MAX && !cause.chars().any(char::is_control), "{cause:?}");
});
