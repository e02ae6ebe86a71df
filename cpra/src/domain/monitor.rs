//! What a monitor is once its file has been read and found sound.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::destination::Destination;
use super::notice::Color;
use super::outcome::{Code, Latency, Outcome, Verdict, VoidReason};
use crate::units::Span;
use crate::units::limits::{HEALTHY_THRESHOLD_DEFAULT, UNHEALTHY_THRESHOLD_DEFAULT};

/// One monitor as the loader hands it over. It is taken apart at once: the policy is interned, name and target go
/// into a byte arena (see `world::catalog`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Unique, 1 to 255 bytes, no control characters.
    pub name: Box<str>,
    pub enabled: bool,
    pub target: Target,
    pub policy: Policy,
}

/// Where the check goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub host: Host,
    pub port: u16,
    /// HTTP: path and query, beginning with `/`. DNS: the name in question. Push: the token. Else empty.
    pub path: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Literal(IpAddr),
    /// A name for the resolver, lower case, without a trailing dot.
    Name(Box<str>),
}

/// A target, borrowed from the catalog's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRef<'a> {
    pub host: HostRef<'a>,
    pub port: u16,
    pub path: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostRef<'a> {
    Literal(IpAddr),
    Name(&'a str),
}

/// Everything that many monitors share, and therefore is kept once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub check: Check,
    pub interval: Span,
    /// Per attempt, name resolution included; at most the interval.
    pub timeout: Span,
    /// Until the next check of a monitor that is suspect, down or could not be judged.
    pub retry_interval: Span,
    /// F: failures in a row that make a monitor down. At least 1.
    pub unhealthy_threshold: u8,
    /// H: oks in a row that make it up again. At least 1.
    pub healthy_threshold: u8,
    /// Attempts within one check after the first one.
    pub retries: u8,
    /// Slower than this is not as it should be, though it works.
    pub max_latency: Option<MaxLatency>,
    pub groups: Box<[Box<str>]>,
    pub about: About,
    pub codes: Codes,
}

impl Policy {
    /// As of a monitor whose file says no more than this.
    pub fn new(check: Check, interval: Span, timeout: Span) -> Self {
        Self {
            check,
            interval,
            timeout,
            retry_interval: interval,
            unhealthy_threshold: UNHEALTHY_THRESHOLD_DEFAULT,
            healthy_threshold: HEALTHY_THRESHOLD_DEFAULT,
            retries: 0,
            max_latency: None,
            groups: Box::default(),
            about: About::default(),
            codes: Codes::default(),
        }
    }
}

/// What people wrote about a monitor for those who are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct About {
    /// Names and values, sorted by name.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub description: Option<Box<str>>,
    /// An http(s) address.
    pub runbook: Option<Box<str>>,
}

/// The limit of an attempt's time from its start until judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaxLatency {
    pub limit: Span,
    /// Whether slower is a failure, and not only a warning.
    pub fails: bool,
}

impl MaxLatency {
    /// The outcome of an attempt, once its time has been held against the limit.
    ///
    /// What was slow is only the target's if it would have been slow without its name, too: a resolver of ours that
    /// takes its time fails nobody.
    #[must_use]
    pub fn judged(self, outcome: Outcome) -> Outcome {
        let Latency { total, resolve, .. } = outcome.latency;
        if total <= self.limit || !matches!(outcome.verdict(), Verdict::Ok | Verdict::Warn) {
            return outcome;
        }
        let limit = self.limit;
        let of_name = if resolve > Span::ZERO { format!(" ({resolve} for the name)") } else { String::new() };
        let slow = format!("took {total}{of_name}, more than {limit}");
        // A warning that is there already comes first.
        let text = outcome.evidence.as_ref().map_or_else(|| slow.clone(), |known| format!("{known}; {slow}"));
        let outcome = outcome.with_evidence(&text);
        match self.fails {
            false => Outcome { warn: true, ..outcome },
            true if total - resolve <= limit => {
                Outcome { code: Code::Void(VoidReason::Resolver), warn: false, ..outcome }
            }
            true => Outcome { code: Code::Slow, warn: false, ..outcome },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Tcp(TcpCheck),
    Http(HttpCheck),
    Icmp(IcmpCheck),
    Script(ScriptCheck),
    Dns(DnsCheck),
    Push(PushCheck),
}

impl Check {
    /// As files and metrics name it.
    pub const fn kind(&self) -> CheckKind {
        match self {
            Self::Tcp(_) => CheckKind::Tcp,
            Self::Http(_) => CheckKind::Http,
            Self::Icmp(_) => CheckKind::Icmp,
            Self::Script(_) => CheckKind::Script,
            Self::Dns(_) => CheckKind::Dns,
            Self::Push(_) => CheckKind::Push,
        }
    }

    /// Whether it asks for half a connection only.
    pub const fn is_half_open(&self) -> bool {
        matches!(self, Self::Tcp(TcpCheck { mode: TcpMode::Syn, .. }))
    }

    /// The TLS layer below the check's own protocol, if there is one.
    pub const fn tls(&self) -> Option<&TlsPolicy> {
        match self {
            Self::Tcp(check) => check.tls.as_ref(),
            Self::Http(check) => check.tls.as_ref(),
            Self::Icmp(_) | Self::Script(_) | Self::Dns(_) | Self::Push(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    Tcp = 0,
    Http = 1,
    Icmp = 2,
    Script = 3,
    Dns = 4,
    Push = 5,
}

impl CheckKind {
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Http, Self::Icmp, Self::Script, Self::Dns, Self::Push];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Icmp => "icmp",
            Self::Script => "script",
            Self::Dns => "dns",
            Self::Push => "push",
        }
    }
}

/// Connect; with TLS, the handshake; then perhaps say something and wait for something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpCheck {
    /// Only a connection can have what follows.
    pub mode: TcpMode,
    pub tls: Option<TlsPolicy>,
    /// Sent once the connection stands (after the handshake, where there is one).
    pub send: Box<[u8]>,
    /// Bytes that the answer must hold within the first [`crate::units::limits::EXPECT_WINDOW_MAX`].
    pub expect: Box<[u8]>,
}

/// How far a TCP check goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TcpMode {
    /// A connection is made.
    #[default]
    Connect,
    /// Half of one, where this host can: a SYN is sent and its answer looked at, and no socket has it.
    Syn,
}

/// How a TLS connection is made, and what its certificate must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// Whom the certificate must name; the default is the target's host.
    pub server_name: Option<Box<str>>,
    /// PEM, trusted beside the system's store.
    pub ca_file: Option<PathBuf>,
    pub client: Option<ClientCertificate>,
    /// The certificate is not judged at all.
    pub insecure_skip_verify: bool,
    /// Fewer days until the certificate ends are a warning.
    pub min_days_left: Option<u32>,
    /// Plain text that comes before the handshake.
    pub starttls: Option<StartTls>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartTls {
    Smtp,
    Imap,
    Postgres,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// `GET`, `HEAD`, `POST`, ...: a token, upper case.
    pub method: Box<str>,
    /// Names and values as sent, in order. Never `Host`, `Connection` or `Content-Length`, which the probe owns,
    /// but for a `Host` that overrides the target's.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    /// The value of `Authorization`.
    pub authorization: Option<Secret>,
    pub body: Box<[u8]>,
    pub expected: StatusSet,
    /// Keep the connection for the next check of the same origin.
    pub keep_alive: bool,
    /// Of https.
    pub tls: Option<TlsPolicy>,
    /// How many redirects are followed, at most [`crate::units::limits::REDIRECTS_MAX`]; 0: a 3xx is the answer.
    pub redirects: u8,
    pub assertions: Box<[Assertion]>,
    /// Bytes of the body that are read for the assertions (after decompression); more is a failure.
    pub body_max: u32,
    pub proxy: Option<Proxy>,
}

impl Default for HttpCheck {
    /// `GET`, and any status of success will do.
    fn default() -> Self {
        Self {
            method: "GET".into(),
            headers: Box::default(),
            authorization: None,
            body: Box::default(),
            expected: StatusSet::success(),
            keep_alive: false,
            tls: None,
            redirects: 0,
            assertions: Box::default(),
            body_max: crate::units::limits::RESPONSE_BODY_MAX as u32,
            proxy: None,
        }
    }
}

impl HttpCheck {
    /// Whether the body has to be read at all, but for the end of the answer.
    pub fn wants_body(&self) -> bool {
        self.assertions.iter().any(|assertion| !matches!(assertion, Assertion::Header { .. }))
    }

    /// What of it can never come true, with the remedy. The files are to say so; a check would only ever fail.
    pub fn contradiction(&self) -> Option<&'static str> {
        if &*self.method == "CONNECT" {
            return Some("\"CONNECT\" asks for a tunnel, which is no check: write GET");
        }
        if &*self.method == "HEAD" && self.wants_body() {
            return Some("an answer to HEAD has no body to look at: write GET, or remove the assertions over the body");
        }
        None
    }
}

/// What an answer must be beside its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Assertion {
    Contains(Box<str>),
    NotContains(Box<str>),
    Matches(Pattern),
    NotMatches(Pattern),
    /// The value at an RFC 6901 pointer.
    Json {
        pointer: Box<str>,
        rule: JsonRule,
    },
    /// A field of the head, by its lower-case name; a field that is there several times is joined with `, `.
    Header {
        name: Box<str>,
        rule: HeaderRule,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JsonRule {
    Exists,
    Absent,
    /// The value as JSON text.
    Equals(Box<str>),
    NotEquals(Box<str>),
    /// Compared as numbers; the number as JSON text.
    Above(Box<str>),
    Below(Box<str>),
    AtLeast(Box<str>),
    AtMost(Box<str>),
    /// Of a string.
    Matches(Pattern),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderRule {
    Exists,
    Absent,
    Equals(Box<str>),
    Contains(Box<str>),
    Matches(Pattern),
}

/// A regular expression, equal to another one when it is spelled alike.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with it, or that it compiles to more than [`crate::units::limits::PATTERN_SIZE_MAX`].
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        let limit = crate::units::limits::PATTERN_SIZE_MAX;
        regex::RegexBuilder::new(pattern).size_limit(limit).dfa_size_limit(limit).build().map(Self)
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// An HTTP proxy. Plain requests are sent to it in absolute form, TLS goes through its CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub host: Host,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<Secret>,
}

/// Text that must not be shown: neither by a log nor by an answer nor by a panic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// For the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpCheck {
    /// Requests of one attempt, spread evenly over a part of the timeout. At least 1.
    pub count: u8,
    /// Per cent of them that may get lost.
    pub max_loss: u8,
    /// Mean round trips above this fail.
    pub max_rtt: Option<Span>,
}

/// A program, run as `[security] script_user` when the daemon is root, with a cleared environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptCheck {
    /// The program (an absolute path) and its arguments. Never a shell unless it is named here.
    pub argv: Box<[Box<str>]>,
    /// Added to the cleared environment, sorted by name.
    pub env: Box<[(Box<str>, Box<str>)]>,
    /// The default is `/`.
    pub cwd: Option<PathBuf>,
}

/// A question to a name server. The server is the target; the name in question is the target's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsCheck {
    pub record: RecordType,
    /// Each of these must be among the answers (as master files write them, names lower case with the final dot);
    /// none: any answer will do.
    pub expect: Box<[Box<str>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
    Caa,
}

impl RecordType {
    pub const ALL: [(&'static str, Self); 10] = [
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
        ("CAA", Self::Caa),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, record)| *record == self).map_or("", |(name, _)| name)
    }
}

/// Nobody is asked: the job itself calls in within interval + grace, or it has failed. The token that it calls with is
/// the target's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PushCheck {
    pub grace: Span,
}

/// Which HTTP statuses count as ok: inclusive ranges, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Box<[(u16, u16)]>);

impl StatusSet {
    /// # Panics
    /// If a range is reversed; the configuration refuses that first.
    pub fn new(mut ranges: Vec<(u16, u16)>) -> Self {
        assert!(ranges.iter().all(|(low, high)| low <= high), "a status range runs upwards");
        ranges.sort_unstable();
        Self(ranges.into_boxed_slice())
    }

    /// 200 to 299.
    pub fn success() -> Self {
        Self::new(vec![(200, 299)])
    }

    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }

    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

/// `200`, `200-299`, `200, 204, 300-399`.
impl std::fmt::Display for StatusSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (low, high)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

/// Who is told, by color.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codes([Option<CodeRule>; Color::ALL.len()]);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CodeRule {
    pub dispatch: Dispatch,
    pub notify: Box<[Arc<Destination>]>,
}

/// `dispatch: false | true (failure) | always`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dispatch {
    Off,
    On,
    /// Already at the first failure, once per episode.
    Always,
}

impl Codes {
    /// A destination that is named twice is told once.
    pub fn set(&mut self, color: Color, rule: CodeRule) {
        let CodeRule { dispatch, notify } = rule;
        let mut once: Vec<Arc<Destination>> = Vec::with_capacity(notify.len());
        for destination in notify {
            if !once.contains(&destination) {
                once.push(destination);
            }
        }
        self.0[color as usize] = Some(CodeRule { dispatch, notify: once.into_boxed_slice() });
    }

    pub const fn rule(&self, color: Color) -> Option<&CodeRule> {
        self.0[color as usize].as_ref()
    }

    /// The destinations of a color that is configured and not switched off.
    pub fn destinations(&self, color: Color) -> &[Arc<Destination>] {
        match self.rule(color) {
            Some(rule) if rule.dispatch != Dispatch::Off => &rule.notify,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_sets_hold_single_values_and_ranges() {
        let set = StatusSet::new(vec![(301, 302), (200, 200)]);
        assert!(set.contains(200) && set.contains(302) && !set.contains(201) && !set.contains(303));
        assert_eq!(set.to_string(), "200, 301-302");
    }

    #[test]
    fn slow_is_a_warning_or_a_failure_but_a_slow_resolver_is_neither() {
        let limit = Span::from_millis(500);
        let took = |total, resolve, code| {
            let (total, resolve) = (Span::from_millis(total), Span::from_millis(resolve));
            Outcome { latency: Latency { total, resolve, ..Latency::default() }, ..Outcome::of(code) }
        };
        let table = [
            (false, took(500, 0, Code::L7Ok), Code::L7Ok, Verdict::Ok, ""),
            (false, took(812, 0, Code::L7Ok), Code::L7Ok, Verdict::Warn, "took 812 ms, more than 500 ms"),
            (true, took(812, 0, Code::L4Ok), Code::Slow, Verdict::Fail, "took 812 ms, more than 500 ms"),
            (
                true,
                took(812, 20, Code::L4Ok),
                Code::Slow,
                Verdict::Fail,
                "took 812 ms (20 ms for the name), more than 500 ms",
            ),
            (
                true,
                took(812, 400, Code::L4Ok),
                Code::Void(VoidReason::Resolver),
                Verdict::Void,
                "took 812 ms (400 ms for the name), more than 500 ms",
            ),
            (true, took(812, 0, Code::L7Sts), Code::L7Sts, Verdict::Fail, ""),
        ];
        for (fails, outcome, code, verdict, evidence) in table {
            let judged = MaxLatency { limit, fails }.judged(outcome);
            let found = (judged.code, judged.verdict(), judged.evidence.as_deref().unwrap_or(""));
            assert_eq!(found, (code, verdict, evidence));
        }
        let warned = Outcome { warn: true, ..took(812, 0, Code::L6Ok).with_evidence("certificate ends in 3 days") };
        let judged = MaxLatency { limit, fails: false }.judged(warned);
        assert_eq!(judged.evidence.as_deref(), Some("certificate ends in 3 days; took 812 ms, more than 500 ms"));
    }

    #[test]
    fn what_can_never_come_true_is_told() {
        let check = |method: &str, assertions: &[Assertion]| HttpCheck {
            method: method.into(),
            assertions: assertions.into(),
            ..HttpCheck::default()
        };
        let header = Assertion::Header { name: "server".into(), rule: HeaderRule::Exists };
        let body = Assertion::Contains("ok".into());
        assert_eq!(check("HEAD", std::slice::from_ref(&header)).contradiction(), None);
        assert_eq!(check("GET", &[header.clone(), body.clone()]).contradiction(), None);
        assert!(check("HEAD", &[header, body]).contradiction().is_some());
        assert!(check("CONNECT", &[]).contradiction().is_some());
    }

    #[test]
    fn a_destination_named_twice_is_there_once() {
        let (log, file) = (Destination::log(None), Destination::log(Some("/log/a".into())));
        let notify = [&log, &file, &log].map(|destination| Arc::new(destination.clone()));
        let mut codes = Codes::default();
        codes.set(Color::Red, CodeRule { dispatch: Dispatch::On, notify: Box::new(notify) });
        assert_eq!(codes.destinations(Color::Red), [Arc::new(log), Arc::new(file)]);
    }

    #[test]
    fn a_color_switched_off_has_no_destinations() {
        let log = Arc::new(Destination::log(None));
        let mut codes = Codes::default();
        codes.set(Color::Red, CodeRule { dispatch: Dispatch::Off, notify: Box::new([log.clone()]) });
        codes.set(Color::Yellow, CodeRule { dispatch: Dispatch::On, notify: Box::new([log]) });
        assert!(codes.destinations(Color::Red).is_empty());
        assert_eq!(codes.destinations(Color::Yellow).len(), 1);
        assert!(codes.destinations(Color::Gray).is_empty());
    }
}
