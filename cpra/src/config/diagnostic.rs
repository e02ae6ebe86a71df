//! What is wrong with a file, in the form that people read: where, whose, what, the line itself, a caret.

use std::fmt;
use std::sync::Arc;

/// Of errors and of warnings each, this many are kept; the rest is counted. A generator's mistake repeats itself a
/// million times, and neither memory nor a reader wants them all.
pub const KEPT_MAX: usize = 1_000;

/// The part of a long line that is shown.
const EXCERPT_MAX: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The value is not taken: the monitor does not load.
    Error,
    /// What the file defines is not run, since others may write the file; everything else is.
    Refusal,
    /// The value is taken, perhaps changed, and somebody should know.
    Warning,
}

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One fault. `Display` gives `file:line:column: monitor: message`, the source line and a caret below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The file as it was named by the person who started the program.
    pub file: Arc<str>,
    /// `None` where no place in the file can be named: it is missing, or an environment variable is meant.
    pub position: Option<Position>,
    /// The monitor's name, `monitor 3` where it has none, `defaults`, or nothing.
    pub subject: Option<Box<str>>,
    /// What is wrong, and what to do about it.
    pub message: Box<str>,
    pub excerpt: Option<Excerpt>,
}

/// A source line, cut to a readable length around the place that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    text: Box<str>,
    /// Characters before the caret.
    indent: usize,
    carets: usize,
}

impl Excerpt {
    /// `line` without its end; `column` (from 0) and `width` in characters. What is secret in it is not shown.
    pub fn new(line: &str, column: usize, width: usize) -> Self {
        let (line, near) = super::secret::vicinity(line, column, EXCERPT_MAX * 32);
        let cut = column - near;
        let (line, column) = (super::secret::masked(&line), near);
        let is_cut = cut > 0;
        // Two thirds of the window stand before the caret: what leads to a fault says more than what follows it.
        let skipped = column.saturating_sub(EXCERPT_MAX * 2 / 3);
        let mut text = String::new();
        let is_cut = is_cut || skipped > 0;
        if is_cut {
            text.push('…');
        }
        let mut rest = line.chars().skip(skipped).map(shown);
        text.extend(rest.by_ref().take(EXCERPT_MAX));
        if rest.next().is_some() {
            text.push('…');
        }
        let trimmed = text.trim_end().len();
        text.truncate(trimmed);
        let indent = column - skipped + usize::from(is_cut);
        let carets = width.clamp(1, (text.chars().count().saturating_sub(indent)).max(1));
        Self { text: text.into_boxed_str(), indent, carets }
    }
}

/// Terminals obey control characters; a file must not speak to them. A tab would move the caret.
fn shown(character: char) -> char {
    match character {
        '\t' => ' ',
        other if is_unprintable(other) => '\u{fffd}',
        other => other,
    }
}

/// Control characters, and those that reorder or hide text on a screen.
pub(super) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text out of a file, fit to be put between quotes in a message.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let mut out = String::from("\"");
    let text = super::secret::without_userinfo(text);
    let mut rest = text.chars();
    for character in rest.by_ref().take(SHOWN_MAX) {
        match character {
            '"' => out.push_str("\\\""),
            other if is_unprintable(other) => out.extend(other.escape_default()),
            other => out.push(other),
        }
    }
    if rest.next().is_some() {
        out.push('…');
    }
    out.push('"');
    out
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        f.write_str(": ")?;
        match self.severity {
            Severity::Error => {}
            Severity::Refusal => f.write_str("refused: ")?,
            Severity::Warning => f.write_str("warning: ")?,
        }
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        f.write_str(&self.message)?;
        if let (Some(excerpt), Some(position)) = (&self.excerpt, self.position) {
            let line = position.line.to_string();
            let gutter = line.len();
            write!(f, "\n {line} | {}", excerpt.text)?;
            write!(
                f,
                "\n {:gutter$} | {:indent$}{:^<carets$}",
                "",
                "",
                "",
                indent = excerpt.indent,
                carets = excerpt.carets
            )?;
        }
        Ok(())
    }
}

/// All that was found, bounded.
#[derive(Debug, Default)]
pub struct Diagnostics {
    kept: Vec<Diagnostic>,
    errors: usize,
    refusals: usize,
    warnings: usize,
}

impl Diagnostics {
    /// Whether another one of this severity would still be kept: what is only counted needs no excerpt.
    pub(super) const fn has_room(&self, severity: Severity) -> bool {
        match severity {
            Severity::Error => self.errors < KEPT_MAX,
            Severity::Refusal => self.refusals < KEPT_MAX,
            Severity::Warning => self.warnings < KEPT_MAX,
        }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        let room = self.has_room(diagnostic.severity);
        match diagnostic.severity {
            Severity::Error => self.errors += 1,
            Severity::Refusal => self.refusals += 1,
            Severity::Warning => self.warnings += 1,
        }
        if room {
            self.kept.push(diagnostic);
        }
    }

    pub fn append(&mut self, other: Self) {
        let dropped = [other.errors, other.refusals, other.warnings];
        let before = [self.errors, self.refusals, self.warnings];
        for diagnostic in other.kept {
            self.push(diagnostic);
        }
        self.errors = before[0] + dropped[0];
        self.refusals = before[1] + dropped[1];
        self.warnings = before[2] + dropped[2];
    }

    pub const fn errors(&self) -> usize {
        self.errors
    }

    /// Scripts and interventions that are not run.
    pub const fn refusals(&self) -> usize {
        self.refusals
    }

    pub const fn warnings(&self) -> usize {
        self.warnings
    }

    pub const fn is_empty(&self) -> bool {
        self.errors + self.refusals + self.warnings == 0
    }

    /// Found, but not kept.
    pub fn omitted(&self) -> usize {
        self.errors + self.refusals + self.warnings - self.kept.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.kept.iter()
    }

    /// In the order of the file, not of the discovery.
    pub(super) fn sort(&mut self) {
        self.kept.sort_by_key(|diagnostic| diagnostic.position);
    }

    /// The same over several files, which stand in the order of `files`; what belongs to none comes first.
    pub(super) fn sort_by_files(&mut self, files: &[Arc<str>]) {
        let number = |file: &Arc<str>| files.iter().position(|known| known == file);
        self.kept.sort_by_cached_key(|diagnostic| (number(&diagnostic.file), diagnostic.position));
    }
}

/// One per paragraph, then how many were left out.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.kept {
            writeln!(f, "{diagnostic}")?;
        }
        match self.omitted() {
            0 => Ok(()),
            more => writeln!(f, "... and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(severity: Severity, excerpt: Excerpt) -> Diagnostic {
        Diagnostic {
            severity,
            file: "monitors.yaml".into(),
            position: Some(Position { line: 4, column: 5 }),
            subject: Some("shop/web".into()),
            message: "unknown key \"intervall\", did you mean \"interval\"?".into(),
            excerpt: Some(excerpt),
        }
    }

    #[test]
    fn a_diagnostic_names_place_monitor_fault_and_shows_the_line() {
        let shown = diagnostic(Severity::Error, Excerpt::new("    intervall: 30s", 4, 9)).to_string();
        let expected = "monitors.yaml:4:5: shop/web: unknown key \"intervall\", did you mean \"interval\"?\n \
                        4 |     intervall: 30s\n   |     ^^^^^^^^^";
        assert_eq!(shown, expected);
    }

    #[test]
    fn long_lines_are_cut_around_the_caret_and_controls_do_not_reach_the_terminal() {
        let line = format!("{}\u{1b}[31mX{}", "é".repeat(500), "y".repeat(500));
        let shown = diagnostic(Severity::Warning, Excerpt::new(&line, 505, 1)).to_string();
        assert!(!shown.contains('\u{1b}') && shown.contains("…é"), "{shown}");
        let lines: Vec<_> = shown.lines().collect();
        let caret = lines[2].chars().position(|c| c == '^').expect("a caret");
        assert_eq!(lines[1].chars().nth(caret), Some('X'));
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut all = Diagnostics::default();
        for _ in 0..KEPT_MAX + 5 {
            all.push(diagnostic(Severity::Error, Excerpt::new("", 0, 1)));
        }
        all.push(diagnostic(Severity::Warning, Excerpt::new("", 0, 1)));
        assert_eq!((all.errors(), all.warnings(), all.omitted()), (KEPT_MAX + 5, 1, 5));
        assert!(all.to_string().ends_with("... and 5 more\n"));
    }
}
