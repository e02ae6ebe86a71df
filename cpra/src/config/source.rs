//! Bytes into characters, a piece at a time, keeping the text that a diagnostic may have to show.
//!
//! The window holds the pieces from the current item's first one on; pieces that define an anchor stay, since a fault
//! in an anchored value is found where it is used. What is no text (bytes that are not UTF-8, control characters) is
//! reported here once per file and replaced by U+FFFD, so that the reading goes on and the remaining faults are found too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Read;
use std::rc::Rc;

use super::diagnostic::{Excerpt, Position};
use super::node::Mark;
use super::secret::leaves_secret_open;

/// Read at once; a piece is cut behind the last line that is complete.
const PIECE: usize = 64 * 1024;

/// Characters between two events of the parser. More is an open quote or bracket, or an attack on memory.
pub(super) const VALUE_MAX: usize = 4 * 1024 * 1024;

/// Lines above one that is to be shown, in which the key of a secret is looked for.
const SECRET_LINES_MAX: u32 = 16;

/// Something that is wrong with the bytes themselves.
#[derive(Debug)]
pub(super) struct TextFault {
    pub(super) position: Position,
    pub(super) message: String,
}

/// A reader's text. Clones share it.
#[derive(Clone)]
pub(super) struct Source(Rc<RefCell<Window>>);

struct Window {
    reader: Box<dyn Read>,
    /// Read but not yet decoded.
    pending: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// The number of `pieces[0]`.
    first: usize,
    /// Where the next piece will begin.
    end: Position,
    bytes: u64,
    started: bool,
    /// Tabs and anchors mean something.
    is_yaml: bool,
    exhausted: bool,
    faults: Vec<TextFault>,
    /// Tabs among the blanks that begin a line, until the parser is past them.
    tabs: VecDeque<Position>,
    /// What could be anchors with names that not every reader takes, until the parser is past them.
    odd_anchors: VecDeque<Position>,
    /// One report per kind and file is enough.
    reported: [bool; 2],
    /// Characters handed out since the parser's last event.
    unanswered: usize,
}

struct Piece {
    number: usize,
    text: Rc<str>,
    start: Position,
    /// Defines an anchor.
    pinned: bool,
}

/// The characters from a line on, as the parser takes them.
pub(super) struct Characters {
    source: Source,
    text: Rc<str>,
    at: usize,
    next: usize,
}

impl Source {
    pub(super) fn new(reader: impl Read + 'static) -> Self {
        Self::starting(reader, 1)
    }

    /// Of a part of a file that begins on `line`.
    pub(super) fn starting(reader: impl Read + 'static, line: u32) -> Self {
        Self(Rc::new(RefCell::new(Window {
            reader: Box::new(reader),
            pending: Vec::new(),
            pieces: VecDeque::new(),
            first: 0,
            end: Position { line, column: 1 },
            bytes: 0,
            started: false,
            is_yaml: true,
            exhausted: false,
            faults: Vec::new(),
            tabs: VecDeque::new(),
            odd_anchors: VecDeque::new(),
            reported: [false; 2],
            unanswered: 0,
        })))
    }

    /// The text is JSON, where tabs are blanks and `&` a character.
    pub(super) fn is_json(&self) {
        self.0.borrow_mut().is_yaml = false;
    }

    pub(super) fn characters(&self) -> Characters {
        Characters { source: self.clone(), text: Rc::from(""), at: 0, next: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    pub(super) fn take_faults(&self) -> Vec<TextFault> {
        std::mem::take(&mut self.0.borrow_mut().faults)
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.0.borrow().faults.is_empty()
    }

    /// The parser produced an event: what it holds is no longer growing.
    pub(super) fn answered(&self) {
        self.0.borrow_mut().unanswered = 0;
    }

    /// Nothing before `line` will be shown any more, but for anchors.
    pub(super) fn release_before(&self, line: u32) {
        let mut window = self.0.borrow_mut();
        while window.pieces.len() > 1 && window.pieces[1].start.line <= line && !window.pieces[0].pinned {
            window.pieces.pop_front();
        }
        // Behind a pinned piece the others go too; that costs a shift, and pinned pieces are few.
        if window.pieces.front().is_some_and(|piece| piece.pinned) && window.pieces.len() > 8 {
            let keep_from = window.pieces.partition_point(|piece| piece.start.line <= line).saturating_sub(1);
            let mut index = 0;
            window.pieces.retain(|piece| {
                index += 1;
                index > keep_from || piece.pinned
            });
        }
        window.first = window.pieces.front().map_or(window.first, |piece| piece.number);
    }

    /// Keeps the text of these lines for good.
    pub(super) fn pin(&self, lines: std::ops::RangeInclusive<u32>) {
        let mut window = self.0.borrow_mut();
        let first = window.pieces.partition_point(|piece| piece.start.line <= *lines.start()).saturating_sub(1);
        for piece in window.pieces.iter_mut().skip(first).take_while(|piece| piece.start.line <= *lines.end()) {
            piece.pinned = true;
        }
    }

    /// The line at `position` with a caret of `width`, while it is still held.
    pub(super) fn excerpt(&self, position: Position, width: u32) -> Option<Excerpt> {
        let window = self.0.borrow();
        let (line, first_column) = window.line(position.line)?;
        let column = position.column.checked_sub(first_column)?;
        if window.continues_secret(position.line, &line) {
            let hidden: String = line.chars().map(|c| if c.is_whitespace() { c } else { '*' }).collect();
            return Some(Excerpt::new(&hidden, column as usize, width as usize));
        }
        Some(Excerpt::new(&line, column as usize, width as usize))
    }

    /// The spaces before a line's `- `, if it begins with one.
    pub(super) fn item_indent(&self, line: u32) -> Option<usize> {
        let (text, column) = self.0.borrow().line(line)?;
        let indent = text.len() - text.trim_start_matches(' ').len();
        (column == 1 && begins_item(&text, indent)).then_some(indent)
    }

    /// The spaces before a line that is neither an item, a comment nor blank.
    pub(super) fn key_indent(&self, line: u32) -> Option<usize> {
        let (text, column) = self.0.borrow().line(line)?;
        let rest = text.trim_start_matches(' ');
        let is_key = column == 1 && !rest.is_empty() && !rest.starts_with(['-', '#', '\t']);
        is_key.then(|| text.len() - rest.len())
    }

    /// The first line behind `line`, blank ones left out, if a tab indents it; with the tab's column.
    pub(super) fn tab_after(&self, line: u32) -> Option<(u32, u32)> {
        let window = self.0.borrow();
        let (number, text) = (line + 1..=line + 8).find_map(|number| {
            let (text, _) = window.line(number)?;
            (!text.trim().is_empty()).then_some((number, text))
        })?;
        let spaces = text.len() - text.trim_start_matches(' ').len();
        text[spaces..].starts_with('\t').then_some((number, spaces as u32 + 1))
    }

    /// The first line up to `line` that a tab indents and that nobody has forgotten.
    pub(super) fn tab_indented(&self, line: u32) -> Option<Position> {
        self.0.borrow().tabs.front().copied().filter(|tab| tab.line <= line)
    }

    pub(super) fn forget_tabs_before(&self, place: Position) {
        let mut window = self.0.borrow_mut();
        while window.tabs.front().is_some_and(|tab| *tab < place) {
            window.tabs.pop_front();
        }
    }

    /// Whether an anchor that YAML 1.1 does not know begins at `position`. Asked in the order of the text.
    pub(super) fn has_odd_anchor(&self, position: Position) -> bool {
        let mut window = self.0.borrow_mut();
        while window.odd_anchors.front().is_some_and(|anchor| *anchor < position) {
            window.odd_anchors.pop_front();
        }
        window.odd_anchors.front() == Some(&position)
    }

    /// Whether a list or map is in brackets, by its beginning from `start` (at its anchor, if it has one) to `end`.
    pub(super) fn is_bracket(&self, start: Position, end: Position) -> bool {
        let window = self.0.borrow();
        let around = |place: Position| {
            let (text, first_column) = window.line(place.line)?;
            let at = place.column.checked_sub(first_column)? as usize;
            Some((text.chars().take(at).collect::<String>(), text.chars().skip(at).collect::<String>()))
        };
        let begins = around(start).is_some_and(|(_, behind)| {
            let rest =
                behind.strip_prefix('&').map_or(&*behind, |named| named.trim_start_matches(|c| c != ' ' && c != '\t'));
            rest.trim_start().starts_with(['[', '{'])
        });
        begins || around(end).is_some_and(|(before, _)| before.trim_end().ends_with(['[', '{']))
    }

    /// What other readers refuse before a document that begins on `line`: its end, and directives.
    pub(super) fn fault_before_document(&self, line: u32) -> Option<(Mark, &'static str)> {
        let window = self.0.borrow();
        for piece in &window.pieces {
            let starts = piece.text.match_indices(['\n', '\r']).map(|(at, _)| at + 1);
            for at in (piece.start.column == 1).then_some(0).into_iter().chain(starts) {
                let rest = &piece.text[at..];
                if !rest.starts_with(['%', '.']) {
                    continue;
                }
                let number = piece.start.line + breaks(&piece.text[..at]);
                if number >= line {
                    return None;
                }
                let text = line_of(rest, 0).unwrap_or_default().trim_end();
                let message = match text {
                    "%YAML 1.1" | "%YAML 1.2" => continue,
                    _ if text.starts_with('%') => "a directive has no use here: remove the line",
                    _ => "the text ends here before it begins: remove the line",
                };
                let width = text.chars().count() as u32;
                return Some((Mark { position: Position { line: number, column: 1 }, width }, message));
            }
        }
        None
    }

    /// The first line after `line` that begins with `indent` spaces and `- `, with the characters from there on.
    pub(super) fn item_after(&self, line: u32, indent: usize) -> Option<(u32, Characters)> {
        let mut number = {
            let window = self.0.borrow();
            let after = window.pieces.partition_point(|piece| piece.start.line <= line);
            window.pieces.get(after.checked_sub(1)?)?.number
        };
        loop {
            let (text, start) = self.0.borrow_mut().piece(number)?;
            let mut current = start.line;
            let mut at = 0;
            for whole in text.split_inclusive('\n') {
                let complete = at > 0 || start.column == 1;
                if complete && current > line && begins_item(whole, indent) {
                    let source = self.clone();
                    self.0.borrow_mut().unanswered = 0;
                    return Some((current, Characters { source, text, at, next: number + 1 }));
                }
                at += whole.len();
                current += breaks(whole);
            }
            // Nothing before it will be shown any more: a line without an end must not be kept whole.
            self.release_before(start.line);
            self.0.borrow_mut().release_long_line(number);
            number += 1;
        }
    }
}

/// Whether the `&` at `at` may begin an anchor whose name has characters beside those that every reader allows.
fn is_odd_anchor(line: &str, at: usize) -> bool {
    let (before, name) = (&line.as_bytes()[..at], &line.as_bytes()[at + 1..]);
    if before.last().is_some_and(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'&' | b'=')) {
        return false;
    }
    let end = name.iter().find(|&&byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    end.is_some_and(|end| !matches!(end, b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}'))
}

/// How many bytes of a line come before its text: spaces, and the markers of lists and of keys on a line of their own.
fn indentation(line: &str) -> usize {
    let mut indent = 0;
    loop {
        indent += line[indent..].bytes().take_while(|&byte| byte == b' ').count();
        match line.as_bytes()[indent..] {
            [b'-' | b'?' | b':', b' ' | b'\t', ..] => indent += 1,
            _ => return indent,
        }
    }
}

/// How deep a line stands; one that a tab indents, which is a fault, stands below everything.
fn indentation_of(line: &str) -> usize {
    let rest = line.trim_start_matches(' ');
    if rest.starts_with('\t') { usize::MAX } else { line.len() - rest.len() }
}

fn begins_item(line: &str, indent: usize) -> bool {
    let Some(rest) = line.get(indent..) else { return false };
    line.as_bytes()[..indent].iter().all(|&byte| byte == b' ')
        && rest.strip_prefix('-').is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\n', '\r']))
}

/// Line breaks as YAML counts them: LF, CR LF, or CR alone.
fn breaks(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let line_feeds = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let mut lone = 0;
    if bytes.contains(&b'\r') {
        lone =
            bytes.iter().enumerate().filter(|&(at, &byte)| byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')).count();
    }
    (line_feeds + lone) as u32
}

/// What follows the last line break.
fn last_line(text: &str) -> &str {
    text.rfind(['\n', '\r']).map_or(text, |at| &text[at + 1..])
}

impl Window {
    /// Drops the pieces before `number`, of a line that is longer than they are.
    fn release_long_line(&mut self, number: usize) {
        while self.pieces.front().is_some_and(|piece| piece.number < number && !piece.pinned) {
            self.pieces.pop_front();
        }
        self.first = self.pieces.front().map_or(self.first, |piece| piece.number);
    }

    /// A piece by its number, read if that is where the reader stands.
    fn piece(&mut self, number: usize) -> Option<(Rc<str>, Position)> {
        loop {
            match self.pieces.back() {
                Some(last) if last.number >= number => {
                    let at = self.pieces.partition_point(|piece| piece.number < number);
                    return self.pieces.get(at).map(|piece| (piece.text.clone(), piece.start));
                }
                _ => self.read()?,
            }
        }
    }

    fn read(&mut self) -> Option<()> {
        if self.exhausted && self.pending.is_empty() {
            return None;
        }
        while !self.exhausted && self.pending.len() < PIECE {
            let filled = self.pending.len();
            self.pending.resize(PIECE, 0);
            let result = self.reader.read(&mut self.pending[filled..]);
            self.pending.truncate(filled + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => self.exhausted = true,
                Ok(count) => self.bytes += count as u64,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.faults.push(TextFault {
                        position: self.end,
                        message: format!("the file cannot be read on: {error}"),
                    });
                    self.exhausted = true;
                }
            }
            if filled > 0 && self.pending[filled..].contains(&b'\n') {
                break;
            }
        }
        if !std::mem::replace(&mut self.started, true) {
            self.skip_byte_order_mark();
        }
        let cut = self.cut();
        let text: Rc<str> = match std::str::from_utf8(&self.pending[..cut]) {
            Ok(text) if is_clean(text) => Rc::from(text),
            _ => self.repaired(cut),
        };
        self.pending.drain(..cut);
        let number = self.pieces.back().map_or(self.first, |piece| piece.number + 1);
        let start = self.end;
        self.note(&text, start);
        self.end.line += breaks(&text);
        let behind = last_line(&text);
        self.end.column = if behind.len() == text.len() { start.column } else { 1 } + behind.chars().count() as u32;
        self.pieces.push_back(Piece { number, text, start, pinned: false });
        Some(())
    }

    /// Notes what only the text shows, since the parser's events leave it out.
    fn note(&mut self, text: &str, start: Position) {
        if !self.is_yaml || !text.bytes().any(|byte| matches!(byte, b'\t' | b'&')) {
            return;
        }
        let mut at = start;
        let mut ends_in_return = false;
        for part in text.split_inclusive(['\n', '\r']) {
            // The second half of CR LF.
            if !(ends_in_return && part == "\n") {
                let indent = indentation(part);
                if at.column == 1 && part[indent..].starts_with('\t') {
                    self.tabs.push_back(Position { column: indent as u32 + 1, ..at });
                }
                let (mut column, mut counted) = (at.column, 0);
                for (before, _) in part.match_indices('&').filter(|&(before, _)| is_odd_anchor(part, before)) {
                    column += part[counted..before].chars().count() as u32;
                    counted = before;
                    self.odd_anchors.push_back(Position { column, ..at });
                }
                at = Position { line: at.line + 1, column: 1 };
            }
            ends_in_return = part.ends_with('\r');
        }
    }

    fn skip_byte_order_mark(&mut self) {
        if self.pending.starts_with(b"\xef\xbb\xbf") {
            self.pending.drain(..3);
        } else if self.pending.starts_with(b"\xff\xfe") || self.pending.starts_with(b"\xfe\xff") {
            self.faults
                .push(TextFault { position: self.end, message: "the file is UTF-16: save it as UTF-8".to_owned() });
            self.pending.clear();
            self.exhausted = true;
        }
    }

    /// Where the piece ends: behind the last complete line, else (a line longer than a piece) between two characters.
    fn cut(&self) -> usize {
        if self.exhausted {
            return self.pending.len();
        }
        if let Some(at) = self.pending.iter().rposition(|&byte| byte == b'\n') {
            return at + 1;
        }
        let mut cut = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        if cut > 1 && self.pending[cut - 1] == b'\r' {
            cut -= 1;
        }
        cut
    }

    /// The first `cut` bytes with what is no text replaced, and reported once.
    fn repaired(&mut self, cut: usize) -> Rc<str> {
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::with_capacity(cut);
        for chunk in bytes[..cut].utf8_chunks() {
            for character in chunk.valid().chars() {
                if is_foreign(character) {
                    self.report(0, &text, || {
                        let what = match character {
                            '\u{85}' | '\u{2028}' | '\u{2029}' => "a line break to some readers, U+",
                            '\u{feff}' => "a byte order mark within the text, U+",
                            _ => "control character U+",
                        };
                        let name = u32::from(character);
                        format!("{what}{name:04X}: remove it, or write it as an escape in double quotes")
                    });
                    text.push('\u{fffd}');
                } else {
                    text.push(character);
                }
            }
            if let Some(byte) = chunk.invalid().first() {
                self.report(1, &text, || format!("the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"));
                text.push('\u{fffd}');
            }
        }
        self.pending = bytes;
        Rc::from(text)
    }

    fn report(&mut self, kind: usize, before: &str, message: impl FnOnce() -> String) {
        if std::mem::replace(&mut self.reported[kind], true) {
            return;
        }
        let behind = last_line(before);
        let column = if behind.len() == before.len() { self.end.column } else { 1 } + behind.chars().count() as u32;
        let position = Position { line: self.end.line + breaks(before), column };
        self.faults.push(TextFault { position, message: message() });
    }

    /// Whether the line belongs to a value that began under a secret key on a line before it.
    fn continues_secret(&self, line: u32, text: &str) -> bool {
        // What is longer is not written below a key of its own; and it is looked at for every fault in it.
        const LONG: usize = 8 * 1024;
        let mut indent = indentation_of(text);
        if text.len() > LONG || indent == 0 {
            return false;
        }
        for number in (line.saturating_sub(SECRET_LINES_MAX)..line).rev() {
            let Some((before, 1)) = self.line(number) else { return false };
            if before.len() > LONG {
                return false;
            }
            if before.trim().is_empty() || indentation_of(&before) >= indent {
                continue;
            }
            if leaves_secret_open(&before) {
                return true;
            }
            indent = indentation_of(&before);
            if indent == 0 {
                return false;
            }
        }
        false
    }

    /// A line's text (without its end) and the column at which the held part of it begins.
    fn line(&self, line: u32) -> Option<(String, u32)> {
        // The last piece that begins on an earlier line holds the line's beginning, if it is held at all.
        let mut index = self.pieces.partition_point(|piece| piece.start.line < line).saturating_sub(1);
        let (mut found, mut column) = (None, 1);
        while let Some(piece) = self.pieces.get(index).filter(|piece| piece.start.line <= line) {
            index += 1;
            let Some(part) = line_of(&piece.text, line - piece.start.line) else { continue };
            if found.is_none() {
                column = if piece.start.line == line { piece.start.column } else { 1 };
            }
            let text: &mut String = found.get_or_insert_default();
            text.push_str(part.trim_end_matches(['\n', '\r']));
            if text.len() > VALUE_MAX {
                break;
            }
        }
        found.map(|text| (text, column))
    }
}

/// The `number`th line (from 0) of a text.
fn line_of(text: &str, number: u32) -> Option<&str> {
    let mut rest = text;
    for _ in 0..number {
        let end = rest.find(['\n', '\r'])?;
        rest = &rest[end..];
        rest = rest.strip_prefix("\r\n").unwrap_or_else(|| &rest[1..]);
    }
    (!rest.is_empty()).then(|| &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())])
}

/// C0 without tab, LF and CR, and DEL.
const fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127)
}

/// What YAML does not allow unescaped in a text, and what ends a line in YAML 1.1 and not in 1.2.
const fn is_foreign(character: char) -> bool {
    matches!(character,
        '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

pub(super) fn is_clean(text: &str) -> bool {
    // The first bytes of the foreign characters that are not ASCII.
    !text.bytes().any(|byte| is_control(byte) || matches!(byte, 0xc2 | 0xe2 | 0xef)) || !text.chars().any(is_foreign)
}

impl Iterator for Characters {
    type Item = char;

    #[inline]
    fn next(&mut self) -> Option<char> {
        loop {
            if let Some(&byte) = self.text.as_bytes().get(self.at) {
                if byte.is_ascii() {
                    self.at += 1;
                    return Some(char::from(byte));
                }
                let character = self.text[self.at..].chars().next()?;
                self.at += character.len_utf8();
                return Some(character);
            }
            self.turn()?;
        }
    }
}

impl Characters {
    /// On to the next piece.
    fn turn(&mut self) -> Option<()> {
        let mut window = self.source.0.borrow_mut();
        if window.unanswered > VALUE_MAX {
            return None;
        }
        let (text, start) = window.piece(self.next)?;
        window.unanswered += text.len();
        if window.unanswered > VALUE_MAX {
            let mib = VALUE_MAX / 1024 / 1024;
            let message = format!("a value longer than {mib} MiB: is a quote or a bracket not closed?");
            window.faults.push(TextFault { position: start, message });
        }
        drop(window);
        self.text = text;
        self.at = 0;
        self.next += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Hands out one byte at a time.
    struct Drip(Cursor<Vec<u8>>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    #[test]
    fn text_comes_through_whole_and_lines_are_found() {
        let text = "first\r\nzwei é\n\n- last\r- old mac\nend";
        for drip in [false, true] {
            let bytes = Cursor::new(text.as_bytes().to_vec());
            let source = if drip { Source::new(Drip(bytes)) } else { Source::new(bytes) };
            assert_eq!(source.characters().collect::<String>(), text);
            let window = source.0.borrow();
            for (line, expected) in [(1, "first"), (2, "zwei é"), (4, "- last"), (5, "- old mac"), (6, "end")] {
                assert_eq!(window.line(line), Some((expected.to_owned(), 1)), "{line}");
            }
            assert_eq!(window.line(7), None);
        }
    }

    #[test]
    fn what_is_no_text_is_reported_once_with_its_place() {
        let source = Source::new(Cursor::new(b"a\nb\xff\xfec\x07\x00\n".to_vec()));
        assert_eq!(source.characters().collect::<String>(), "a\nb\u{fffd}\u{fffd}c\u{fffd}\u{fffd}\n");
        let faults: Vec<_> =
            source.take_faults().into_iter().map(|f| format!("{}: {}", f.position, f.message)).collect();
        assert_eq!(
            faults,
            [
                "2:2: the byte 0xff is not UTF-8: save the file as UTF-8",
                "2:5: control character U+0007: remove it, or write it as an escape in double quotes",
            ]
        );
    }

    #[test]
    fn a_line_longer_than_a_piece_keeps_its_columns() {
        let mut text = "é".repeat(PIECE);
        text.push_str("X\nnext");
        let source = Source::new(Cursor::new(text.clone().into_bytes()));
        assert_eq!(source.characters().collect::<String>(), text);
        let excerpt = source.excerpt(Position { line: 1, column: PIECE as u32 + 1 }, 1).expect("held");
        assert!(format!("{excerpt:?}").contains("éX"), "{excerpt:?}");
        assert_eq!(source.0.borrow().line(2), Some(("next".to_owned(), 1)));
    }
}
