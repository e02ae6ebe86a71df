//! What a script writes, and how it ends.

#![no_main]

use cpra::domain::monitor::ScriptCheck;
use cpra::domain::{Check, HostRef, TargetRef, Verdict};
use cpra::probe::errand::{ErrandEnd, Exit};
use cpra::probe::{Ops, Probe, Request, Then};
use cpra::ring::Errno;
use cpra::units::{Instant, Span};
use cpra::wire::tls::Unloaded;
use cpra_fuzz::{Feed, assert_sound, policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed(bytes);
    let (way, number) = (feed.byte(), feed.byte());
    // As the driver hands it over.
    let output: Box<str> = String::from_utf8_lossy(feed.0).into();
    let end = match way % 6 {
        0 | 1 => ErrandEnd::Exited { status: Exit::Code(number), output },
        2 => ErrandEnd::Exited { status: Exit::Signal(i32::from(number)), output },
        3 => ErrandEnd::Flooded { output },
        4 => ErrandEnd::NotStarted(Errno(i32::from(number))),
        _ => ErrandEnd::Barred(output),
    };
    let check = ScriptCheck { argv: Box::new(["/opt/look".into()]), env: Box::default(), cwd: None };
    let policy = policy(Check::Script(check));
    let nowhere = std::net::IpAddr::from([0, 0, 0, 0]);
    let target = TargetRef { host: HostRef::Literal(nowhere), port: 0, path: "" };
    let request = Request { policy: &policy, target, address: (nowhere, 0).into(), hop: None, contexts: &Unloaded };
    let mut probe = Probe::start(&request, Instant::ZERO, &mut Ops::default());
    probe.begun();
    let judgement = probe.returned(&request, &end, Instant::ZERO + Span::from_millis(1));
    assert_eq!(judgement.then, Then::Disconnect);
    assert_sound(&judgement.outcome);
    // The exit code alone says how things are: no output makes one of them another.
    let wanted = match end {
        ErrandEnd::Exited { status: Exit::Code(0), .. } => Verdict::Ok,
        ErrandEnd::Exited { status: Exit::Code(1), .. } => Verdict::Warn,
        ErrandEnd::Exited { status: Exit::Code(3), .. } | ErrandEnd::NotStarted(_) | ErrandEnd::Barred(_) => {
            Verdict::Void
        }
        _ => Verdict::Fail,
    };
    assert_eq!(judgement.outcome.verdict(), wanted, "{:?}", judgement.outcome);
});
