//! The resolver: late, wrong, or gone, but it always answers in the end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fastrand::Rng;

use crate::shard::protocol::Resolution;
use crate::units::limits::RESOLVE_MAX;
use crate::units::{Instant, Span};

/// How names are answered at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nameserver {
    #[default]
    Well,
    /// Up to [`RESOLVE_MAX`] late.
    Slow,
    /// Fails, fast or only at the very end.
    Dead,
}

/// What a name is.
#[derive(Clone, Debug)]
pub struct Name {
    pub addresses: Vec<IpAddr>,
    pub ttl: Span,
    /// How long those who ask can wait: a slow answer comes close to that, before or after.
    pub patience: Span,
    /// Stretches of time in which it does not exist.
    pub gone: Vec<(Instant, Instant)>,
}

impl Name {
    pub fn is_gone(&self, now: Instant) -> bool {
        self.gone.iter().any(|&(from, until)| (from..until).contains(&now))
    }
}

#[derive(Debug)]
pub struct SimResolver {
    rng: Rng,
    names: BTreeMap<Box<str>, Name>,
    server: Nameserver,
    answers: BTreeMap<(Instant, u64), (u8, Box<str>, Resolution)>,
    asked: u64,
}

impl SimResolver {
    pub fn new(names: BTreeMap<Box<str>, Name>, seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), names, server: Nameserver::default(), answers: BTreeMap::new(), asked: 0 }
    }

    pub fn set_server(&mut self, server: Nameserver) {
        self.server = server;
    }

    /// A shard wants to know.
    pub fn ask(&mut self, shard: u8, name: Box<str>, now: Instant) {
        let long = RESOLVE_MAX.as_micros();
        let (after, fails) = match self.server {
            Nameserver::Well => (Span::from_micros(self.rng.u64(100..20_000)), false),
            Nameserver::Slow if self.rng.bool() => {
                let patience = self.names.get(&name).map_or(RESOLVE_MAX, |known| known.patience);
                (patience.scaled(self.rng.u64(60..105), 100).min(RESOLVE_MAX), false)
            }
            Nameserver::Slow => (Span::from_micros(self.rng.u64(20_000..long)), self.rng.bool()),
            Nameserver::Dead if self.rng.bool() => (Span::from_micros(self.rng.u64(100..20_000)), true),
            Nameserver::Dead => (Span::from_micros(self.rng.u64(long / 2..long)), true),
        };
        let resolution = match self.names.get(&name) {
            _ if fails => Resolution::Failed("server failure".into()),
            Some(known) if !known.is_gone(now) => {
                Resolution::Found { addresses: known.addresses.clone(), ttl: known.ttl }
            }
            Some(_) | None => Resolution::NotFound,
        };
        self.asked += 1;
        self.answers.insert((now + after, self.asked), (shard, name, resolution));
    }

    pub fn next(&self) -> Option<Instant> {
        self.answers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next answer that is there by `now`: for which shard, about which name.
    pub fn answer(&mut self, now: Instant) -> Option<(u8, Box<str>, Resolution)> {
        let first = self.answers.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }

    /// The process dies: nobody waits any more.
    pub fn crash(&mut self) {
        self.answers.clear();
    }
}
