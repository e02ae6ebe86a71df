//! What the monitors of one load share: what they may refer to, and what was read for them before.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::folders::Folders;
use super::secret::SecretFiles;
use crate::domain::monitor::Pattern;
use crate::units::limits::PATTERNS_SHARED_MAX;

pub(super) struct Scope<'a> {
    pub(super) folders: &'a Folders,
    pub(super) secrets: SecretFiles,
    patterns: HashMap<Box<str>, Pattern, FxBuildHasher>,
    /// Whose token is which. Two jobs with one token would be one.
    tokens: HashMap<Box<str>, Box<str>, FxBuildHasher>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(folders: &'a Folders) -> Self {
        Self { folders, secrets: SecretFiles::default(), patterns: HashMap::default(), tokens: HashMap::default() }
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
