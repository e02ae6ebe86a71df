//! What one check found: a layered code (after HAProxy's), where the time went, and a little evidence.

use std::fmt;

use crate::ring::Errno;
use crate::units::Span;
use crate::units::limits::EVIDENCE_MAX;

/// How an outcome counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Ok,
    /// Works, but a person should look: never starts a repair or a red.
    Warn,
    Fail,
    /// Says nothing about the target: the fault was ours.
    Void,
}

/// Where a check ended, by layer: L3 is the network, L4 the transport, L6 TLS, L7 the application's answer; PROC is a
/// program of ours, PUSH a job that calls in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    L3Ok,
    /// A router or the host itself said that it cannot be reached.
    L3Con,
    L3Tout,
    /// Echoes came back, but too few or too late.
    L3Rsp,
    L4Ok,
    /// Refused, reset or unreachable before a connection stood.
    L4Con,
    L4Tout,
    /// The name does not exist.
    L4Dns,
    L6Ok,
    L6Tout,
    L6Rsp,
    L6Cert,
    L7Ok,
    /// An answer with a status that was not expected.
    L7Sts,
    /// No answer, a broken one, or one that was cut off.
    L7Rsp,
    L7Tout,
    /// All is well but for the time it took.
    Slow,
    ProcOk,
    /// The program said so, or was ended by a signal.
    ProcErr,
    ProcTout,
    PushOk,
    /// The job said that it failed.
    PushErr,
    /// The job did not call in time.
    PushTout,
    Void(VoidReason),
}

/// Why a check says nothing about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoidReason {
    /// EMFILE, ENFILE: this process or host is out of file descriptors.
    Descriptors,
    /// ENOBUFS, ENOMEM.
    Memory,
    /// EADDRNOTAVAIL: no free source port towards this target.
    Ports,
    /// EPERM, EACCES: a local firewall or security module forbade it.
    Forbidden,
    /// No route on this host, or its network is down.
    Route,
    /// The resolver did not answer; the name may well be alive.
    Resolver,
    /// The host dropped packets of its own (conntrack full) while the check timed out.
    HostDrops,
    /// This process stood still while the check ran.
    Stall,
    /// EINVAL and other numbers that a working target cannot cause.
    Internal,
    /// The script could not be started: missing, not executable, forbidden.
    NotRunnable,
    /// The script itself said that it does not know (Nagios exit code 3).
    Unknown,
}

impl Code {
    /// As people, metrics and notices see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L3Ok => "L3OK",
            Self::L3Con => "L3CON",
            Self::L3Tout => "L3TOUT",
            Self::L3Rsp => "L3RSP",
            Self::L4Ok => "L4OK",
            Self::L4Con => "L4CON",
            Self::L4Tout => "L4TOUT",
            Self::L4Dns => "L4DNS",
            Self::L6Ok => "L6OK",
            Self::L6Tout => "L6TOUT",
            Self::L6Rsp => "L6RSP",
            Self::L6Cert => "L6CERT",
            Self::L7Ok => "L7OK",
            Self::L7Sts => "L7STS",
            Self::L7Rsp => "L7RSP",
            Self::L7Tout => "L7TOUT",
            Self::Slow => "SLOW",
            Self::ProcOk => "PROCOK",
            Self::ProcErr => "PROCERR",
            Self::ProcTout => "PROCTOUT",
            Self::PushOk => "PUSHOK",
            Self::PushErr => "PUSHERR",
            Self::PushTout => "PUSHTOUT",
            Self::Void(VoidReason::Descriptors) => "VOID:EMFILE",
            Self::Void(VoidReason::Memory) => "VOID:ENOBUFS",
            Self::Void(VoidReason::Ports) => "VOID:EADDRNOTAVAIL",
            Self::Void(VoidReason::Forbidden) => "VOID:EPERM",
            Self::Void(VoidReason::Route) => "VOID:ENETUNREACH",
            Self::Void(VoidReason::Resolver) => "VOID:RESOLVER",
            Self::Void(VoidReason::HostDrops) => "VOID:CONNTRACK",
            Self::Void(VoidReason::Stall) => "VOID:STALL",
            Self::Void(VoidReason::Internal) => "VOID:INTERNAL",
            Self::Void(VoidReason::NotRunnable) => "VOID:NOEXEC",
            Self::Void(VoidReason::Unknown) => "VOID:UNKNOWN",
        }
    }

    /// Every code, in the order of [`Code::index`].
    pub const ALL: [Self; 34] = [
        Self::L3Ok,
        Self::L3Con,
        Self::L3Tout,
        Self::L3Rsp,
        Self::L4Ok,
        Self::L4Con,
        Self::L4Tout,
        Self::L4Dns,
        Self::L6Ok,
        Self::L6Tout,
        Self::L6Rsp,
        Self::L6Cert,
        Self::L7Ok,
        Self::L7Sts,
        Self::L7Rsp,
        Self::L7Tout,
        Self::Slow,
        Self::ProcOk,
        Self::ProcErr,
        Self::ProcTout,
        Self::PushOk,
        Self::PushErr,
        Self::PushTout,
        Self::Void(VoidReason::Descriptors),
        Self::Void(VoidReason::Memory),
        Self::Void(VoidReason::Ports),
        Self::Void(VoidReason::Forbidden),
        Self::Void(VoidReason::Route),
        Self::Void(VoidReason::Resolver),
        Self::Void(VoidReason::HostDrops),
        Self::Void(VoidReason::Stall),
        Self::Void(VoidReason::Internal),
        Self::Void(VoidReason::NotRunnable),
        Self::Void(VoidReason::Unknown),
    ];

    /// A dense number for tables of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::L3Ok => 0,
            Self::L3Con => 1,
            Self::L3Tout => 2,
            Self::L3Rsp => 3,
            Self::L4Ok => 4,
            Self::L4Con => 5,
            Self::L4Tout => 6,
            Self::L4Dns => 7,
            Self::L6Ok => 8,
            Self::L6Tout => 9,
            Self::L6Rsp => 10,
            Self::L6Cert => 11,
            Self::L7Ok => 12,
            Self::L7Sts => 13,
            Self::L7Rsp => 14,
            Self::L7Tout => 15,
            Self::Slow => 16,
            Self::ProcOk => 17,
            Self::ProcErr => 18,
            Self::ProcTout => 19,
            Self::PushOk => 20,
            Self::PushErr => 21,
            Self::PushTout => 22,
            Self::Void(reason) => 23 + reason as usize,
        }
    }

    /// Whether something was waited for in vain, so that packets which this host dropped itself may be the reason. Lost
    /// echoes are counted as such.
    pub const fn is_timeout(self) -> bool {
        matches!(self, Self::L3Tout | Self::L3Rsp | Self::L4Tout | Self::L6Tout | Self::L7Tout)
    }

    /// What an error of connecting says about the target. `local` is [`crate::ring::Completion::local`].
    ///
    /// Our own fault is never the target's: a full table, an exhausted port range or a missing route on this
    /// host is void. With TCP_SYNCNT left alone, the kernel's own ETIMEDOUT comes from the target's silence.
    pub const fn of_connect_error(errno: Errno, local: bool) -> Self {
        match errno {
            Errno::ETIMEDOUT => Self::L4Tout,
            Errno::EHOSTUNREACH | Errno::ENETUNREACH if local => Self::Void(VoidReason::Route),
            Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::ECONNABORTED
            | Errno::EPIPE
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH => Self::L4Con,
            Errno::ENETDOWN | Errno::EAFNOSUPPORT => Self::Void(VoidReason::Route),
            other => Self::of_local_error(other),
        }
    }

    /// What an error after the connection stood says about the target.
    pub const fn of_transfer_error(errno: Errno) -> Self {
        match errno {
            Errno::ETIMEDOUT => Self::L7Tout,
            Errno::ECONNRESET
            | Errno::ECONNREFUSED
            | Errno::ECONNABORTED
            | Errno::EPIPE
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH => Self::L7Rsp,
            other => Self::of_local_error(other),
        }
    }

    /// An error that only this host can cause.
    pub const fn of_local_error(errno: Errno) -> Self {
        Self::Void(match errno {
            Errno::EMFILE | Errno::ENFILE => VoidReason::Descriptors,
            Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN => VoidReason::Memory,
            Errno::EADDRNOTAVAIL => VoidReason::Ports,
            Errno::EPERM | Errno::EACCES => VoidReason::Forbidden,
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EAFNOSUPPORT => VoidReason::Route,
            _ => VoidReason::Internal,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the time of an attempt went. A phase that was not reached is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub resolve: Span,
    /// Start of the connect until it stood; where the kernel tells, from its SYN until the answer was there.
    pub connect: Span,
    /// The TLS handshake, with what plain text came before it.
    pub tls: Span,
    /// Request sent until the first byte of the answer; of echo requests, the mean round trip.
    pub first_byte: Span,
    /// Start of the attempt (name resolution included) until judged, our own delays included: verdicts depend on it, and
    /// none may depend on what the kernel happens to tell.
    pub total: Span,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: Code,
    /// Works, but see the evidence. Only ever set beside an OK code.
    pub warn: bool,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    pub latency: Latency,
    /// Attempts made within this check, the first one included.
    pub attempts: u8,
    /// In words, bounded and free of control characters: `connection refused 127.0.0.1:9871`.
    pub evidence: Option<Box<str>>,
}

impl Outcome {
    pub const fn of(code: Code) -> Self {
        let latency = Latency {
            resolve: Span::ZERO,
            connect: Span::ZERO,
            tls: Span::ZERO,
            first_byte: Span::ZERO,
            total: Span::ZERO,
        };
        Self { code, warn: false, status: None, latency, attempts: 1, evidence: None }
    }

    #[must_use]
    pub fn with_evidence(mut self, text: &str) -> Self {
        self.evidence = Some(bounded_text(text, EVIDENCE_MAX));
        self
    }

    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub const fn verdict(&self) -> Verdict {
        match self.code {
            Code::Void(_) => Verdict::Void,
            Code::L3Ok | Code::L4Ok | Code::L6Ok | Code::L7Ok | Code::ProcOk | Code::PushOk if self.warn => {
                Verdict::Warn
            }
            Code::L3Ok | Code::L4Ok | Code::L6Ok | Code::L7Ok | Code::ProcOk | Code::PushOk => Verdict::Ok,
            Code::L3Con
            | Code::L3Tout
            | Code::L3Rsp
            | Code::L4Con
            | Code::L4Tout
            | Code::L4Dns
            | Code::L6Tout
            | Code::L6Rsp
            | Code::L6Cert
            | Code::L7Sts
            | Code::L7Rsp
            | Code::L7Tout
            | Code::Slow
            | Code::ProcErr
            | Code::ProcTout
            | Code::PushErr
            | Code::PushTout => Verdict::Fail,
        }
    }

    /// One line for people: the evidence where there is some, else the code.
    pub fn cause(&self) -> &str {
        self.evidence.as_deref().unwrap_or(self.code.as_str())
    }
}

/// Text from outside, made fit to keep: control characters become spaces, runs of spaces one, the length at most
/// `max` bytes with an ellipsis where something was cut.
pub fn bounded_text(text: &str, max: usize) -> Box<str> {
    let mut kept = String::with_capacity(text.len().min(max));
    let mut space = false;
    for character in text.chars() {
        if character.is_control() || character.is_whitespace() {
            space = !kept.is_empty();
            continue;
        }
        let wanted = character.len_utf8() + usize::from(space);
        if kept.len() + wanted + '…'.len_utf8() > max {
            kept.push('…');
            return kept.into_boxed_str();
        }
        if std::mem::take(&mut space) {
            kept.push(' ');
        }
        kept.push(character);
    }
    kept.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_index_and_name() {
        let mut names = std::collections::BTreeSet::new();
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), index, "{code}");
            assert!(names.insert(code.as_str()), "{code} twice");
        }
    }

    #[test]
    fn our_own_faults_are_void_and_the_targets_are_not() {
        for errno in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::EADDRNOTAVAIL,
            Errno::EPERM,
            Errno::EACCES,
            Errno::ENETDOWN,
            Errno::EINVAL,
        ] {
            let code = Code::of_connect_error(errno, false);
            assert_eq!(Outcome::of(code).verdict(), Verdict::Void, "{errno:?}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::EHOSTUNREACH, Errno::ENETUNREACH] {
            assert_eq!(Code::of_connect_error(errno, false), Code::L4Con, "{errno:?}");
        }
        assert_eq!(Code::of_connect_error(Errno::ENETUNREACH, true), Code::Void(VoidReason::Route));
        assert_eq!(Code::of_connect_error(Errno::ETIMEDOUT, false), Code::L4Tout);
    }

    #[test]
    fn hostile_text_is_bounded_and_stripped() {
        assert_eq!(&*bounded_text("a\u{1b}[31m\r\n  b\0", 64), "a [31m b");
        let long = bounded_text(&"ä".repeat(1_000), 64);
        assert!(long.len() <= 64 && long.ends_with('…'));
    }
}
