//! The story: what happens to the monitors, one line each, on standard output.
//!
//! ```text
//! 00:05  YELLOW  demo/flaky            503 Service Unavailable (1 of 3)
//! 00:11  GREEN   demo/flaky            up again after 6 s
//! ```
//! At most [`LINES_PER_SECOND`] lines a second are written; what is above is counted and told in one line at the second's
//! end: when a switch dies, a person wants to see that it died, not ten thousand lines. A reader that is slow costs lines,
//! which are counted in the same way, and one that left ends the story. The daemon goes on in any case.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::desk::protocol::{Story, StoryKind};
use crate::domain::Color;
use crate::os::stream;
use crate::units::{Instant, Span};

const LINES_PER_SECOND: u32 = 20;
const SECOND: Span = Span::from_secs(1);
/// Lines wait this long for room; a terminal that is merely busy takes less.
const PATIENCE: Span = Span::from_millis(5);
/// Longer names push their texts to the right rather than being cut: a name is there to be copied.
const NAME_WIDTH_MAX: usize = 40;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub color: bool,
    name_width: usize,
}

impl Look {
    /// Columns as wide as the longest of these names needs.
    pub fn new<'a>(color: bool, names: impl IntoIterator<Item = &'a str>) -> Self {
        let longest = names.into_iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Self { color, name_width: longest.clamp(20, NAME_WIDTH_MAX) }
    }

    /// One line, newline included. `since` is the time since the start; `name` the monitor's, or the daemon's.
    pub fn line(&self, since: Span, kind: StoryKind, name: &str, text: &str) -> String {
        let word = word(kind);
        let mut line = clock(since);
        line.push_str("  ");
        // Padded before it is painted: escapes have no width.
        let _ = match self.paint(kind) {
            Some(code) => write!(line, "\x1b[{code}m{word:<6}\x1b[0m  "),
            None => write!(line, "{word:<6}  "),
        };
        let name = plain(name);
        let _ = write!(line, "{name:<width$}  ", width = self.name_width);
        line.push_str(&plain(text));
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    fn paint(&self, kind: StoryKind) -> Option<&'static str> {
        self.color.then_some(match kind {
            StoryKind::Up => "32",
            StoryKind::Color(Color::Yellow) => "33",
            StoryKind::Color(Color::Red) => "1;31",
            StoryKind::Color(Color::Cyan) => "36",
            StoryKind::Color(Color::Green) => "1;32",
            StoryKind::Color(Color::Gray) => "90",
        })
    }
}

const fn word(kind: StoryKind) -> &'static str {
    match kind {
        StoryKind::Up => "UP",
        StoryKind::Color(Color::Yellow) => "YELLOW",
        StoryKind::Color(Color::Red) => "RED",
        StoryKind::Color(Color::Cyan) => "CYAN",
        StoryKind::Color(Color::Green) => "GREEN",
        StoryKind::Color(Color::Gray) => "GRAY",
    }
}

/// `00:05`; from an hour on `1:00:05`.
fn clock(since: Span) -> String {
    let seconds = since.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 { format!("{minutes:02}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

/// Texts come from targets. Nothing in them may move the cursor, paint, break the line or turn its direction.
fn plain(text: &str) -> String {
    let tame = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(' '),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        _ if c.is_control() => None,
        _ => Some(c),
    };
    text.chars().filter_map(tame).collect()
}

/// Tells the story to a stream.
#[derive(Debug)]
pub struct Teller {
    /// `None` when the reader has left.
    stream: Option<OwnedFd>,
    look: Look,
    /// When the daemon started; the story's times count from it.
    start: Instant,
    /// The second that is counted, from its first line.
    second: Instant,
    lines: u32,
    untold: u64,
}

impl Teller {
    /// On standard output; in color if that is a terminal and `NO_COLOR` is not set.
    ///
    /// # Errors
    /// When there is no standard output, or no descriptor left to keep it by.
    pub fn new<'a>(start: Instant, names: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let stdout = io::stdout();
        let color = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self::with(stdout.as_fd().try_clone_to_owned()?, Look::new(color, names), start))
    }

    pub fn with(stream: OwnedFd, look: Look, start: Instant) -> Self {
        Self { stream: Some(stream), look, start, second: start, lines: 0, untold: 0 }
    }

    /// Tells a line, or counts it. `name` is that of the story's monitor.
    pub fn tell(&mut self, now: Instant, story: &Story, name: &str) {
        self.tick(now);
        if self.lines >= LINES_PER_SECOND {
            self.untold += 1;
            return;
        }
        self.lines += 1;
        let line = self.look.line(story.at.since(self.start), story.what, name, &story.text);
        if !self.write(&line) {
            self.untold += 1;
        }
    }

    /// Ends the second if it is over, and tells what was left out of it.
    pub fn tick(&mut self, now: Instant) {
        if now.since(self.second) < SECOND {
            return;
        }
        self.second = now;
        self.lines = 0;
        self.tell_untold(now);
    }

    /// When [`Self::tick`] should be called, were no line to come before.
    pub fn next_deadline(&self) -> Option<Instant> {
        (self.untold > 0 && self.stream.is_some()).then(|| self.second + SECOND)
    }

    /// Tells what was left out. To be called once, at the end.
    pub fn finish(&mut self, now: Instant) {
        self.tell_untold(now);
    }

    fn tell_untold(&mut self, now: Instant) {
        if self.untold == 0 {
            return;
        }
        let (count, more) = (self.untold, if self.untold == 1 { "change" } else { "changes" });
        let line = format!("{}  … and {count} more {more}\n", clock(now.since(self.start)));
        if self.write(&line) {
            self.untold = 0;
        }
    }

    /// Whether the line was written; with nobody left to read, it counts as written.
    fn write(&mut self, line: &str) -> bool {
        let Some(stream) = &self.stream else { return true };
        match stream::write_whole(stream.as_fd(), line.as_bytes(), PATIENCE) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                // `cpra | head` is no fault; a full disk behind a redirection is.
                if error.kind() != io::ErrorKind::BrokenPipe {
                    tracing::warn!(%error, "the story ends here: standard output cannot be written");
                }
                self.stream = None;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    const YELLOW: StoryKind = StoryKind::Color(Color::Yellow);

    fn story(at: Instant) -> Story {
        Story { monitor: None, at, what: YELLOW, text: "503 Service Unavailable (1 of 3)".into() }
    }

    fn teller() -> (Teller, File, Instant) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let start = Instant::from_nanos(1_000_000_000);
        (Teller::with(writer, Look::new(false, []), start), reader.into(), start)
    }

    #[test]
    fn lines_are_aligned_and_painted_only_when_asked() {
        let look = Look::new(false, ["demo/flaky", "demo/unrepairable/x"]);
        let lines = [
            look.line(Span::from_millis(5_900), YELLOW, "demo/flaky", "503 Service Unavailable (1 of 3)"),
            look.line(Span::from_secs(61), StoryKind::Up, "cpra/self", "200 in 0.4 ms"),
            look.line(Span::from_secs(3_661), StoryKind::Color(Color::Red), "n".repeat(45).as_str(), ""),
        ];
        assert_eq!(
            lines.concat(),
            format!(
                "00:05  YELLOW  demo/flaky            503 Service Unavailable (1 of 3)\n\
                 01:01  UP      cpra/self             200 in 0.4 ms\n\
                 1:01:01  RED     {}\n",
                "n".repeat(45)
            )
        );
        let look = Look { color: true, ..look };
        let line = look.line(Span::ZERO, StoryKind::Color(Color::Red), "a", "b");
        assert!(line.starts_with("00:00  \x1b[1;31mRED   \x1b[0m  a "), "{line:?}");
    }

    #[test]
    fn texts_cannot_paint_or_break_the_line() {
        let look = Look::new(false, []);
        let line = look.line(Span::ZERO, YELLOW, "a\x1b]0;x\x07", "one\r\ntwo\x1b[2J\u{9b}31m\u{202e}end\u{2028}");
        assert_eq!(line, "00:00  YELLOW  a]0;x                 one  two[2J31mend\n");
    }

    #[test]
    fn a_storm_is_told_in_twenty_lines_and_a_sum() {
        let (mut teller, mut reader, start) = teller();
        for n in 0..234 {
            let now = start + Span::from_millis(n);
            teller.tell(now, &story(now), "demo/flaky");
        }
        assert_eq!(teller.next_deadline(), Some(start + SECOND));
        teller.tick(start + SECOND);
        assert_eq!(teller.next_deadline(), None);
        let now = start + Span::from_millis(1_500);
        teller.tell(now, &story(now), "demo/flaky");
        drop(teller);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 22);
        assert_eq!(lines[20], "00:01  … and 214 more changes");
        assert!(lines[21].starts_with("00:01  YELLOW"));
    }

    #[test]
    fn a_reader_that_left_or_sleeps_does_not_stop_the_teller() {
        let (mut gone, reader, start) = teller();
        drop(reader);
        gone.tell(start, &story(start), "a");
        gone.tell(start, &story(start), "a");
        assert!(gone.stream.is_none() && gone.next_deadline().is_none());

        let (mut slow, mut reader, start) = teller();
        let mut now = start;
        while slow.untold == 0 {
            now += Span::from_millis(100);
            slow.tell(now, &story(now), "a");
        }
        // What was left out is told once there is room.
        reader.read_exact(&mut [0; 60_000]).unwrap();
        slow.tick(now + SECOND);
        assert_eq!(slow.untold, 0);
    }
}
