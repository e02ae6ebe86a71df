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

/// Where a check ended, by layer: L4 is the transport, L6 is TLS, L7 is the application's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
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
}

impl Code {
    /// As people, metrics and notices see it.
    pub const fn as_str(self) -> &'static str {
        match self {
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
            Self::Void(VoidReason::Descriptors) => "VOID:EMFILE",
            Self::Void(VoidReason::Memory) => "VOID:ENOBUFS",
            Self::Void(VoidReason::Ports) => "VOID:EADDRNOTAVAIL",
            Self::Void(VoidReason::Forbidden) => "VOID:EPERM",
            Self::Void(VoidReason::Route) => "VOID:ENETUNREACH",
            Self::Void(VoidReason::Resolver) => "VOID:RESOLVER",
            Self::Void(VoidReason::HostDrops) => "VOID:CONNTRACK",
            Self::Void(VoidReason::Stall) => "VOID:STALL",
            Self::Void(VoidReason::Internal) => "VOID:INTERNAL",
        }
    }

    /// Every code, in the order of [`Code::index`].
    pub const ALL: [Self; 21] = [
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
        Self::Void(VoidReason::Descriptors),
        Self::Void(VoidReason::Memory),
        Self::Void(VoidReason::Ports),
        Self::Void(VoidReason::Forbidden),
        Self::Void(VoidReason::Route),
        Self::Void(VoidReason::Resolver),
        Self::Void(VoidReason::HostDrops),
        Self::Void(VoidReason::Stall),
        Self::Void(VoidReason::Internal),
    ];

    /// A dense number for tables of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::L4Ok => 0,
            Self::L4Con => 1,
            Self::L4Tout => 2,
            Self::L4Dns => 3,
            Self::L6Ok => 4,
            Self::L6Tout => 5,
            Self::L6Rsp => 6,
            Self::L6Cert => 7,
            Self::L7Ok => 8,
            Self::L7Sts => 9,
            Self::L7Rsp => 10,
            Self::L7Tout => 11,
            Self::Void(reason) => 12 + reason as usize,
        }
    }

    pub const fn is_timeout(self) -> bool {
        matches!(self, Self::L4Tout | Self::L6Tout | Self::L7Tout)
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
    /// Start of the connect until it stood.
    pub connect: Span,
    /// Request sent until the first byte of the answer.
    pub first_byte: Span,
    /// Start of the attempt (name resolution included) until judged.
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
        let latency = Latency { resolve: Span::ZERO, connect: Span::ZERO, first_byte: Span::ZERO, total: Span::ZERO };
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
            Code::L4Ok | Code::L6Ok | Code::L7Ok if self.warn => Verdict::Warn,
            Code::L4Ok | Code::L6Ok | Code::L7Ok => Verdict::Ok,
            Code::L4Con
            | Code::L4Tout
            | Code::L4Dns
            | Code::L6Tout
            | Code::L6Rsp
            | Code::L6Cert
            | Code::L7Sts
            | Code::L7Rsp
            | Code::L7Tout => Verdict::Fail,
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
