//! What the monitors of one load share: what they may refer to, and what was read for them before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use super::destinations::Templates;
use super::folders::Folders;
use super::node::Mark;
use super::secret::SecretFiles;
use crate::domain::Destination;
use crate::domain::monitor::Pattern;
use crate::units::limits::{DESTINATIONS_SHARED_MAX, PATTERNS_SHARED_MAX, RECEIVERS_TOLD_MAX};

pub(super) struct Scope<'a> {
    pub(super) folders: &'a Folders,
    pub(super) secrets: SecretFiles,
    pub(super) templates: Templates,
    patterns: HashMap<Box<str>, Pattern, FxBuildHasher>,
    /// Whose token is which. Two jobs with one token would be one.
    tokens: HashMap<Box<str>, Box<str>, FxBuildHasher>,
    /// `[providers.NAME]` of the daemon file.
    pub(super) providers: BTreeMap<Box<str>, Named>,
    /// Where a notice goes that nobody else can receive.
    pub(super) fallback: Arc<Destination>,
    destinations: HashSet<Arc<Destination>, FxBuildHasher>,
    /// Who is told of enabled monitors, by name and type; a bound of them, for people.
    pub(super) receivers: BTreeSet<(Box<str>, &'static str)>,
}

/// A provider of the daemon file.
pub(super) struct Named {
    /// None where it is faulty, or of a type that comes with a later version.
    pub(super) destinations: Vec<Arc<Destination>>,
    /// Its name in the daemon file.
    pub(super) at: Mark,
    /// A rule names it, or it is the fallback.
    pub(super) is_used: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(folders: &'a Folders) -> Self {
        Self {
            folders,
            secrets: SecretFiles::default(),
            templates: Templates::default(),
            patterns: HashMap::default(),
            tokens: HashMap::default(),
            providers: BTreeMap::new(),
            fallback: Arc::new(Destination::log(None)),
            destinations: HashSet::default(),
            receivers: BTreeSet::new(),
        }
    }

    /// One value for all that are alike (up to a bound: further ones stand alone).
    pub(super) fn destination(&mut self, destination: Destination) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(&destination) {
            return Arc::clone(known);
        }
        let destination = Arc::new(destination);
        if self.destinations.len() < DESTINATIONS_SHARED_MAX {
            self.destinations.insert(Arc::clone(&destination));
        }
        destination
    }

    /// Remembers who is told.
    pub(super) fn tell(&mut self, destination: &Destination) {
        let provider = destination.provider.as_str();
        let is_known = self.receivers.iter().any(|(name, known)| **name == *destination.name && *known == provider);
        if !is_known && self.receivers.len() < RECEIVERS_TOLD_MAX {
            self.receivers.insert((destination.name.clone(), provider));
        }
    }

    /// A regular expression, compiled once for all that spell it alike (up to a bound: further ones are compiled anew).
    ///
    /// # Errors
    /// In words that follow the key.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Pattern, String> {
        if let Some(known) = self.patterns.get(text) {
            return Ok(known.clone());
        }
        let pattern = Pattern::new(text).map_err(|error| {
            let shown = super::diagnostic::quoted(text);
            match &error {
                regex::Error::CompiledTooBig(_) => format!("{shown} is too large when compiled: make it simpler"),
                _ => {
                    // The library draws a picture of several lines; its last one says what is wrong.
                    let text = error.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    format!("{shown} is no regular expression: {why}")
                }
            }
        })?;
        if self.patterns.len() < PATTERNS_SHARED_MAX {
            self.patterns.insert(text.into(), pattern.clone());
        }
        Ok(pattern)
    }

    /// A monitor may be read twice, and keeps its token.
    ///
    /// # Errors
    /// The other monitor that has the token already.
    pub(super) fn take_token(&mut self, token: &str, monitor: &str) -> Result<(), Box<str>> {
        if let Some(owner) = self.tokens.get(token) {
            return if **owner == *monitor { Ok(()) } else { Err(owner.clone()) };
        }
        self.tokens.insert(token.into(), monitor.into());
        Ok(())
    }
}
