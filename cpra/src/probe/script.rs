//! A script: a program of the operator's own says how things are, by its exit code (the convention of Nagios plugins).
//!
//! | end | outcome |
//! | --- | --- |
//! | exit 0 | ok |
//! | exit 1 | works, but a person should look |
//! | exit 2, and everything from 4 on | failure |
//! | exit 3 | void: the script says that it does not know |
//! | a signal, or more output than anybody reads | failure |
//! | no end in time | failure; the driver ends it, and whatever it has started |
//! | could not be started, or not in time | void: nothing was found out about the target |
//!
//! The evidence is the first line that it wrote, with its performance data behind it: `load is high (load1=7.5;4;8)`.
//!
//! The driver has its own queue, so that an attempt begins when the program does, and not when it was asked for: until then
//! nothing that happens can be the target's fault.

use std::sync::Arc;

use super::errand::{Errand, ErrandEnd, Exit};
use super::{Judgement, Ops, Request, Then};
use crate::domain::{Check, Code, Outcome, VoidReason};
use crate::ring::Errno;
use crate::units::limits::SCRIPT_OUTPUT_MAX;

#[derive(Debug)]
pub struct ScriptProbe {
    begun: bool,
}

impl ScriptProbe {
    pub fn start(request: &Request<'_>, ops: &mut Ops) -> Self {
        ops.errand = Some(Errand::Script(Arc::clone(request.policy)));
        Self { begun: false }
    }

    /// The program runs.
    pub fn begun(&mut self) {
        self.begun = true;
    }

    pub fn returned(&self, request: &Request<'_>, end: &ErrandEnd) -> Judgement {
        Judgement { outcome: judge(request, end), then: Then::Disconnect }
    }

    pub fn expire(&self, request: &Request<'_>) -> Outcome {
        let timeout = request.policy.timeout;
        if self.begun {
            return Outcome::of(Code::ProcTout).with_evidence(&format!("no end within {timeout}: killed"));
        }
        Outcome::of(Code::Void(VoidReason::Stall))
            .with_evidence(&format!("not started within {timeout}: too much of this host's time was taken"))
    }
}

fn judge(request: &Request<'_>, end: &ErrandEnd) -> Outcome {
    match end {
        ErrandEnd::Exited { status: Exit::Code(code), output } => exited(*code, output),
        ErrandEnd::Exited { status: Exit::Signal(signal), output } => {
            let name = signal_name(*signal).map_or_else(|| format!("signal {signal}"), ToOwned::to_owned);
            Outcome::of(Code::ProcErr).with_evidence(&followed(&format!("ended by {name}"), &said(output)))
        }
        ErrandEnd::Flooded { output } => {
            let what = format!("wrote more than {} MiB: killed", SCRIPT_OUTPUT_MAX / (1024 * 1024));
            Outcome::of(Code::ProcErr).with_evidence(&followed(&what, &said(output)))
        }
        ErrandEnd::NotStarted(errno) => {
            let text = format!("cannot start {}: {}", program(request), not_started(*errno));
            Outcome::of(Code::Void(VoidReason::NotRunnable)).with_evidence(&text)
        }
        ErrandEnd::Barred(why) => {
            let text = format!("cannot start {}: {why}", program(request));
            Outcome::of(Code::Void(VoidReason::NotRunnable)).with_evidence(&text)
        }
        ErrandEnd::Refused(errno) => {
            let why = match *errno {
                Errno::EAGAIN => "too many scripts run at this time".to_owned(),
                Errno::ENOMEM => "out of memory".to_owned(),
                other => other.to_string(),
            };
            Outcome::of(Code::of_local_error(*errno)).with_evidence(&format!("not started: {why}"))
        }
        // The shard recalls only what it has judged already; were it otherwise, nothing was found out.
        ErrandEnd::Recalled => Outcome::of(Code::Void(VoidReason::Internal)).with_evidence("ended before its time"),
        ErrandEnd::Answered(_) | ErrandEnd::Unanswered(_) => unreachable!("only questions are answered"),
    }
}

fn exited(code: u8, output: &str) -> Outcome {
    let said = said(output);
    let outcome = match code {
        0 | 1 => Outcome { warn: code == 1, ..Outcome::of(Code::ProcOk) },
        3 => Outcome::of(Code::Void(VoidReason::Unknown)),
        _ => Outcome::of(Code::ProcErr),
    };
    match code {
        0 if said.is_empty() => outcome,
        // The plugin's own words say what these mean.
        0..=3 if !said.is_empty() => outcome.with_evidence(&said),
        // 126 and 127 are a shell's word for what it could not run.
        _ => outcome.with_evidence(&followed(&format!("exit {code}"), &said)),
    }
}

fn program<'a>(request: &Request<'a>) -> &'a str {
    match &request.policy.check {
        Check::Script(script) => script.argv.first().map_or("", |program| program),
        _ => "",
    }
}

/// As a person would look for the fault; [`Errno`]'s own words are about sockets.
fn not_started(errno: Errno) -> String {
    match errno {
        Errno::ENOENT => "there is no such file, or not the interpreter that its first line names".into(),
        Errno::EACCES => "it is not an executable file, or the user whom scripts run as may not reach it".into(),
        Errno::EPERM => "forbidden by this host".into(),
        Errno::ENOEXEC => "it is no program: neither a binary of this machine nor a text that begins with #!".into(),
        Errno::ENOTDIR => "a part of its path is no folder".into(),
        other => other.to_string(),
    }
}

fn followed(what: &str, said: &str) -> String {
    if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") }
}

/// The first line with something on it: `text`, or `text (performance data)`.
fn said(output: &str) -> String {
    let line = output.lines().map(bare).find(|line| !line.is_empty()).unwrap_or_default();
    let (text, data) = line.split_once('|').map_or((line, ""), |(text, data)| (bare(text), bare(data)));
    match (text, data) {
        (text, "") => text.to_owned(),
        ("", data) => format!("({data})"),
        (text, data) => format!("{text} ({data})"),
    }
}

/// Control characters are left out of the evidence: text of nothing else is none.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_control() || c.is_whitespace())
}

/// As `kill -l` has them; the numbers are those of Linux on every machine but MIPS, Alpha and SPARC.
const fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        16 => "SIGSTKFLT",
        24 => "SIGXCPU, more processor time than scripts may take",
        25 => "SIGXFSZ, a larger file than scripts may write",
        26 => "SIGVTALRM",
        27 => "SIGPROF",
        29 => "SIGIO",
        30 => "SIGPWR",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::domain::monitor::ScriptCheck;
    use crate::domain::{HostRef, Policy, TargetRef, Verdict};
    use crate::units::Span;

    fn policy() -> Arc<Policy> {
        Arc::new(Policy::new(
            Check::Script(ScriptCheck { argv: Box::new(["/opt/look".into()]), env: Box::default(), cwd: None }),
            Span::from_secs(10),
            Span::from_secs(5),
        ))
    }

    fn with_request<T>(take: impl FnOnce(&Request<'_>) -> T) -> T {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let target = TargetRef { host: HostRef::Literal(nowhere), port: 0, path: "" };
        take(&Request {
            policy: &policy(),
            target,
            address: SocketAddr::new(nowhere, 0),
            hop: None,
            contexts: &crate::wire::tls::Unloaded,
        })
    }

    fn judged(end: &ErrandEnd) -> Outcome {
        with_request(|request| {
            let mut ops = Ops::default();
            let mut probe = ScriptProbe::start(request, &mut ops);
            assert!(matches!(ops.errand, Some(Errand::Script(_))));
            probe.begun();
            probe.returned(request, end).outcome
        })
    }

    fn exit(code: u8, output: &str) -> Outcome {
        judged(&ErrandEnd::Exited { status: Exit::Code(code), output: output.into() })
    }

    #[test]
    fn an_exit_code_says_how_things_are() {
        let unknown = Code::Void(VoidReason::Unknown);
        let table = [
            (0, "", Code::ProcOk, Verdict::Ok, ""),
            (0, "all is well", Code::ProcOk, Verdict::Ok, "all is well"),
            (1, "", Code::ProcOk, Verdict::Warn, "exit 1"),
            (1, "high", Code::ProcOk, Verdict::Warn, "high"),
            (2, "", Code::ProcErr, Verdict::Fail, "exit 2"),
            (2, "gone", Code::ProcErr, Verdict::Fail, "gone"),
            (3, "", unknown, Verdict::Void, "exit 3"),
            (3, "what?", unknown, Verdict::Void, "what?"),
            (4, "", Code::ProcErr, Verdict::Fail, "exit 4"),
            (127, "sh: 1: nope: not found", Code::ProcErr, Verdict::Fail, "exit 127: sh: 1: nope: not found"),
            (255, "", Code::ProcErr, Verdict::Fail, "exit 255"),
        ];
        for (status, output, code, verdict, evidence) in table {
            let outcome = exit(status, output);
            assert_eq!((outcome.code, outcome.verdict()), (code, verdict), "exit {status} {output:?}");
            assert_eq!(outcome.evidence.as_deref().unwrap_or(""), evidence, "exit {status} {output:?}");
        }
    }

    #[test]
    fn what_it_said_is_one_line_with_its_performance_data() {
        let table = [
            ("LOAD OK - 0.5\n", "LOAD OK - 0.5"),
            ("LOAD OK - 0.5|load1=0.5;4;8;0; load5=0.4\nmore\n", "LOAD OK - 0.5 (load1=0.5;4;8;0; load5=0.4)"),
            ("\n  \n text | a=1 | b=2\n", "text (a=1 | b=2)"),
            ("|a=1", "(a=1)"),
            ("a |", "a"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
        ];
        for (output, evidence) in table {
            assert_eq!(exit(2, output).evidence.as_deref(), Some(evidence), "{output:?}");
        }
        let long = exit(2, &"x".repeat(4_000));
        assert!(long.evidence.is_some_and(|text| text.len() <= crate::units::limits::EVIDENCE_MAX));
    }

    #[test]
    fn output_that_cannot_be_shown_leaves_the_exit_code_as_the_reason() {
        for output in ["\u{e}", "\0\0\n", "\u{7}|", "|\u{7}"] {
            assert_eq!(exit(2, output).evidence.as_deref(), Some("exit 2"), "{output:?}");
        }
        assert_eq!(exit(1, "\u{1}\nDISK WARNING\n").evidence.as_deref(), Some("DISK WARNING"));
        let ended = ErrandEnd::Exited { status: Exit::Signal(9), output: "\0".into() };
        assert_eq!(judged(&ended).evidence.as_deref(), Some("ended by SIGKILL"));
    }

    #[test]
    fn signals_and_floods_are_failures() {
        let ended =
            |signal, output: &str| judged(&ErrandEnd::Exited { status: Exit::Signal(signal), output: output.into() });
        let outcome = ended(11, "");
        assert_eq!((outcome.code, outcome.verdict()), (Code::ProcErr, Verdict::Fail));
        assert_eq!(outcome.evidence.as_deref(), Some("ended by SIGSEGV"));
        assert_eq!(ended(6, "abort: no\n").evidence.as_deref(), Some("ended by SIGABRT: abort: no"));
        assert_eq!(ended(35, "").evidence.as_deref(), Some("ended by signal 35"));
        let flooded = judged(&ErrandEnd::Flooded { output: "y\ny\n".into() });
        assert_eq!(flooded.code, Code::ProcErr);
        assert_eq!(flooded.evidence.as_deref(), Some("wrote more than 64 MiB: killed: y"));
    }

    #[test]
    fn what_could_not_be_run_says_nothing_about_the_target() {
        let no_exec = Code::Void(VoidReason::NotRunnable);
        let table = [
            (ErrandEnd::NotStarted(Errno::ENOENT), no_exec, "cannot start /opt/look: there is no such file"),
            (ErrandEnd::NotStarted(Errno::EACCES), no_exec, "cannot start /opt/look: it is not an executable file"),
            (ErrandEnd::NotStarted(Errno::ENOEXEC), no_exec, "cannot start /opt/look: it is no program"),
            (ErrandEnd::NotStarted(Errno(26)), no_exec, "cannot start /opt/look: Text file busy"),
            (ErrandEnd::Barred("no user ada".into()), no_exec, "cannot start /opt/look: no user ada"),
            (ErrandEnd::Refused(Errno::EAGAIN), Code::Void(VoidReason::Memory), "not started: too many scripts"),
            (ErrandEnd::Refused(Errno::EMFILE), Code::Void(VoidReason::Descriptors), "not started: too many open"),
            (ErrandEnd::Recalled, Code::Void(VoidReason::Internal), "ended before its time"),
        ];
        for (end, code, evidence) in table {
            let outcome = judged(&end);
            assert_eq!((outcome.code, outcome.verdict()), (code, Verdict::Void), "{end:?}");
            assert!(outcome.cause().starts_with(evidence), "{:?} should begin with {evidence:?}", outcome.cause());
        }
    }

    #[test]
    fn a_program_that_ran_out_of_time_failed_and_one_that_never_began_did_not() {
        with_request(|request| {
            let mut probe = ScriptProbe::start(request, &mut Ops::default());
            let outcome = probe.expire(request);
            assert_eq!((outcome.code, outcome.verdict()), (Code::Void(VoidReason::Stall), Verdict::Void));
            probe.begun();
            let outcome = probe.expire(request);
            assert_eq!((outcome.code, outcome.verdict()), (Code::ProcTout, Verdict::Fail));
            assert_eq!(outcome.evidence.as_deref(), Some("no end within 5 s: killed"));
        });
    }
}
