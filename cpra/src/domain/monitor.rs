//! What a monitor is once its file has been read and found sound.

use std::net::IpAddr;
use std::sync::Arc;

use super::notice::{Color, Destination};
use crate::units::Span;

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
    /// HTTP: path and query, beginning with `/`. TCP: empty.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub groups: Box<[Box<str>]>,
    pub codes: Codes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Tcp,
    Http(HttpCheck),
}

impl Check {
    /// As files and metrics name it.
    pub const fn kind(&self) -> CheckKind {
        match self {
            Self::Tcp => CheckKind::Tcp,
            Self::Http(_) => CheckKind::Http,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    Tcp = 0,
    Http = 1,
}

impl CheckKind {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Http];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// `GET`, `HEAD`, `POST`, ...: a token, upper case.
    pub method: Box<str>,
    /// Names and values as sent, in order. Never `Host`, `Connection` or `Content-Length`, which the probe owns,
    /// but for a `Host` that overrides the target's.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    pub body: Box<[u8]>,
    pub expected: StatusSet,
    /// Keep the connection for the next check of the same origin.
    pub keep_alive: bool,
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
    fn a_destination_named_twice_is_there_once() {
        let (log, file) = (Destination::Log { file: None }, Destination::Log { file: Some("/log/a".into()) });
        let notify = [&log, &file, &log].map(|destination| Arc::new(destination.clone()));
        let mut codes = Codes::default();
        codes.set(Color::Red, CodeRule { dispatch: Dispatch::On, notify: Box::new(notify) });
        assert_eq!(codes.destinations(Color::Red), [Arc::new(log), Arc::new(file)]);
    }

    #[test]
    fn a_color_switched_off_has_no_destinations() {
        let log = Arc::new(Destination::Log { file: None });
        let mut codes = Codes::default();
        codes.set(Color::Red, CodeRule { dispatch: Dispatch::Off, notify: Box::new([log.clone()]) });
        codes.set(Color::Yellow, CodeRule { dispatch: Dispatch::On, notify: Box::new([log]) });
        assert!(codes.destinations(Color::Red).is_empty());
        assert_eq!(codes.destinations(Color::Yellow).len(), 1);
        assert!(codes.destinations(Color::Gray).is_empty());
    }
}
