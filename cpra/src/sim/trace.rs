//! One run's story: a hash of everything that happened, and, when somebody reads, the story in words.

use std::fmt;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::units::Instant;

#[derive(Default)]
pub struct Trace {
    hasher: FxHasher,
    /// `None`: nobody reads.
    lines: Option<Vec<String>>,
    start: Instant,
}

impl Trace {
    pub fn new(start: Instant, in_words: bool) -> Self {
        Self { hasher: FxHasher::default(), lines: in_words.then(Vec::new), start }
    }

    /// Something happened. `value` is what distinguishes it from anything else that could have.
    pub fn note(&mut self, at: Instant, value: impl Hash, words: impl FnOnce() -> String) {
        at.hash(&mut self.hasher);
        value.hash(&mut self.hasher);
        let after = at.since(self.start);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6}  {}", after.as_secs_f64(), words()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("hash", &self.hash()).finish_non_exhaustive()
    }
}
