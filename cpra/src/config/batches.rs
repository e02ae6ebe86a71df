//! Plain files, cut into batches of list items for the library.
//!
//! Most large files are written by programs and are plain: comments, perhaps a map's keys, then one list in block style
//! to the end, every quote and bracket closed on its line. In such a file a line that begins with `- ` in the list's
//! column begins an item, since whatever an item holds is indented further; and the library, which wants a whole text at
//! once and gives no places, can be fed some items at a time. [`Shape::of`] looks at the whole file first, and where it
//! meets anything that is not plain (an anchor, a tab, a quote over two lines, a value that the library would give in
//! another spelling than the file's) the streaming reader reads the file instead. It errs on that side.
//!
//! What the batches give is taken only where nothing is to be said about it; everything else is read again by the
//! streaming reader, so that there is one way to word a fault and to place it.

use std::io::{BufRead, Read};

use super::diagnostic::Position;
use super::source::is_clean;

/// Text of one batch. The library holds all events of a text at once, at about twenty times its size.
const BATCH: usize = 64 * 1024;

/// A line of a plain file, and everything before its list.
const LINE_MAX: usize = 64 * 1024;
const HEAD_MAX: usize = 1024 * 1024;

/// A file that can be cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Everything before the list.
    pub(super) head: Vec<u8>,
    /// The head says more than comments: it ends in `monitors:`.
    pub(super) is_map: bool,
    /// The line of the first item.
    line: u32,
    /// The list's column.
    indent: usize,
}

/// Some items, whole lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) text: Vec<u8>,
    /// Where each item begins: the byte in `text`, and the line in the file.
    pub(super) items: Vec<(usize, u32)>,
}

impl Batch {
    /// The text of the item `index` and its line.
    pub(super) fn item(&self, index: usize) -> (&[u8], u32) {
        let (start, line) = self.items[index];
        let end = self.items.get(index + 1).map_or(self.text.len(), |&(end, _)| end);
        (&self.text[start..end], line)
    }
}

impl Shape {
    /// The file's shape, if it is plain. Reads it to its end.
    pub(super) fn of(mut reader: impl BufRead) -> Option<Self> {
        let mut shape = Self { head: Vec::new(), is_map: false, line: 0, indent: 0 };
        let (mut number, mut has_list, mut marker) = (0_u32, false, false);
        let mut keys_end = false;
        let mut line = Vec::new();
        while next_line(&mut reader, &mut line)? {
            number = number.checked_add(1)?;
            let text = trimmed(&line)?;
            if has_list {
                if !is_list_line(text, shape.indent) {
                    return None;
                }
                continue;
            }
            let content = text.trim_start_matches(' ');
            let is_blank = content.is_empty() || content.starts_with('#');
            if !is_blank && content.starts_with("- ") && (!shape.is_map || keys_end) {
                shape.indent = text.len() - content.len();
                shape.line = number;
                has_list = true;
                if !is_plain(text) {
                    return None;
                }
                continue;
            }
            match text {
                _ if is_blank => {}
                _ if keys_end => return None,
                "---" if !marker && !shape.is_map => marker = true,
                "monitors:" => (shape.is_map, keys_end) = (true, true),
                _ if content.starts_with(['{', '[', '%', '.', '-', '&', '!']) && !shape.is_map => return None,
                _ => shape.is_map = true,
            }
            shape.head.extend_from_slice(&line);
            if shape.head.len() > HEAD_MAX {
                return None;
            }
        }
        has_list.then_some(shape)
    }

    /// The list in batches, from a reader at the file's beginning.
    pub(super) fn batches<R: BufRead>(&self, mut reader: R) -> std::io::Result<Batches<R>> {
        std::io::copy(&mut reader.by_ref().take(self.head.len() as u64), &mut std::io::sink())?;
        Ok(Batches { reader, indent: self.indent, line: self.line, kept: Vec::new() })
    }
}

pub(super) struct Batches<R> {
    reader: R,
    indent: usize,
    /// Of the next line that is read (or kept).
    line: u32,
    /// The first line of the next batch, which ended the one before.
    kept: Vec<u8>,
}

/// The file is not what it was when it was looked at.
#[derive(Debug)]
pub(super) struct Changed;

impl<R: BufRead> Batches<R> {
    /// # Errors
    /// The file changed since its shape was found.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, Changed> {
        let mut batch = Batch::default();
        let mut line = std::mem::take(&mut self.kept);
        loop {
            if line.is_empty() && !next_line(&mut self.reader, &mut line).ok_or(Changed)? {
                break;
            }
            let text = trimmed(&line).ok_or(Changed)?;
            if !is_list_line(text, self.indent) {
                return Err(Changed);
            }
            let begins = text.as_bytes().get(self.indent) == Some(&b'-')
                && text.trim_start_matches(' ').len() + self.indent == text.len();
            if begins && batch.text.len() >= BATCH {
                self.kept = line;
                break;
            }
            if begins {
                batch.items.push((batch.text.len(), self.line));
            }
            batch.text.extend_from_slice(&line);
            self.line = self.line.checked_add(1).ok_or(Changed)?;
            line.clear();
        }
        Ok((!batch.items.is_empty()).then_some(batch))
    }
}

/// The next line with its end into `line`; whether there is one. `None` for a line too long, or a reader that fails.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Option<bool> {
    line.clear();
    let count = reader.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', line).ok()?;
    (count <= LINE_MAX).then_some(count > 0)
}

/// The line without its end, if it is text and has no tab or carriage return.
fn trimmed(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line)).ok()?;
    let is_odd = !is_clean(text) || text.bytes().any(|byte| matches!(byte, b'\t' | b'\r'));
    (!is_odd).then_some(text)
}

fn is_list_line(text: &str, indent: usize) -> bool {
    let content = text.trim_start_matches(' ');
    let column = text.len() - content.len();
    if content.is_empty() || content.starts_with('#') {
        return true;
    }
    (column > indent || column == indent && content.starts_with("- ")) && is_plain(text)
}

/// Words that the library gives in one spelling, whatever the file's.
const RESPELLED: [&str; 6] = ["True", "TRUE", "False", "FALSE", "Null", "NULL"];

/// Whether every quote and bracket of the line is closed on it, and no value begins in a way that readers differ about.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut depth = 0_usize;
    let mut begins = true;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        at += 1;
        if byte == b'#' && (at == 1 || bytes[at - 2] == b' ') {
            break;
        }
        if !begins {
            match byte {
                b':' if depth > 0 || matches!(next, None | Some(b' ')) => begins = true,
                b',' if depth > 0 => begins = true,
                b'[' | b'{' if depth > 0 => return false,
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    if !is_parted(next.as_ref()) {
                        return false;
                    }
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' => continue,
            // No text begins like this, says the one reader, and the other takes it for one.
            b'-' if matches!(next, Some(b',' | b'[' | b']' | b'{' | b'}')) => return false,
            b'-' if matches!(next, None | Some(b' ')) => {
                if depth > 0 {
                    return false;
                }
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                continue;
            }
            b',' if depth > 0 => continue,
            b']' | b'}' if depth > 0 && is_parted(next.as_ref()) => depth -= 1,
            b'"' | b'\'' => match closed(&bytes[at..], byte) {
                Some(length) => {
                    at += length;
                    if !is_parted(bytes.get(at)) {
                        return false;
                    }
                }
                None => return false,
            },
            // A block text: its lines follow, each looked at by itself.
            b'|' | b'>' if depth == 0 => return true,
            b'&' | b'*' | b'!' | b'%' | b'@' | b'`' | b'?' | b':' | b'+' | b'|' | b'>' | b'<' | b',' | b']' | b'}' => {
                return false;
            }
            b'0' if matches!(next, Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) => return false,
            b'T' | b'F' | b'N' if RESPELLED.iter().any(|word| text[at - 1..].starts_with(word)) => return false,
            _ => {}
        }
        begins = false;
    }
    depth == 0
}

/// Whether what closes a quote or a bracket is followed by what ends a value.
fn is_parted(next: Option<&u8>) -> bool {
    matches!(next, None | Some(b' ' | b',' | b':' | b']' | b'}'))
}

/// How long a quoted text is, the quote at its end included.
fn closed(behind: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        let byte = *behind.get(at)?;
        at += 1;
        match byte {
            b'\\' if quote == b'"' => at += 1,
            _ if byte == quote && quote == b'\'' && behind.get(at) == Some(&b'\'') => at += 1,
            _ if byte == quote => return Some(at),
            _ => {}
        }
    }
}

/// Where the value of `name` stands in an item's text, in the two forms in which that shows: in a line of its own, and
/// first in brackets. `line` is the item's.
pub(super) fn name_position(text: &[u8], line: u32) -> Option<Position> {
    let text = std::str::from_utf8(text).ok()?;
    let first = text.lines().next()?;
    let indent = first.len() - first.trim_start_matches(' ').len();
    let behind = first[indent..].strip_prefix("- ")?;
    let spaces = behind.len() - behind.trim_start_matches(' ').len();
    let value = |number: u32, line: &str, at: usize| {
        let rest = line.get(at..)?.strip_prefix("name: ")?;
        let blanks = rest.len() - rest.trim_start_matches(' ').len();
        let before = line[..at].chars().count() + "name: ".len() + blanks;
        let is_there = !rest.trim().is_empty() && !rest.trim_start().starts_with('#');
        is_there.then_some(Position { line: number, column: before as u32 + 1 })
    };
    let keys = indent + 2 + spaces;
    if first[keys..].starts_with('{') {
        return value(line, first, keys + 1);
    }
    // Below it, at the same column, where no other key of the item can be.
    value(line, first, keys).or_else(|| {
        text.lines().zip(line..).skip(1).find_map(|(text, number)| {
            let column = text.len() - text.trim_start_matches(' ').len();
            if column == keys { value(number, text, keys) } else { None }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_told_from_others() {
        for plain in [
            "- name: a",
            "  url: http://h/x?a=1&b=*2 # say \"it's",
            "  x: {a: [1, \"b]\", 'it''s'], \"c\": \"\\\"\"}",
            "  body: |",
            "  say: don't [worry",
            "  - - x",
            "",
            "# [",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for odd in [
            "- &a x",
            "- *a",
            "x: \"open",
            "x: 'open",
            "x: [a",
            "x: {a: 1",
            "- ! x",
            "x: +5",
            "x: 0x10",
            "x: {y: -}",
            "x: {y: - }",
            "x: [-, a]",
            "x: True",
            "<<: {}",
            "x: [::1]",
            "x: [a:?b]",
            "- ? x",
            "x: [|]",
            "x: ]",
            "x: NULL",
            "x: 'a'#b",
            "x: [a]#b",
            "x: @a",
            "- [*a]",
            "- {a: &b 1}",
        ] {
            assert!(!is_plain(odd), "{odd}");
        }
    }

    #[test]
    fn only_plain_files_have_a_shape() {
        for (text, expected) in [
            ("- a: 1\n- b: 2\n", Some((false, 1, 0))),
            ("# x\n---\n\n  - a: 1\n  # y\n  - b: 2\n", Some((false, 4, 2))),
            ("defaults: {x: &a 1}\nx-a:\n  - 1\nmonitors:\n# z\n  - a: 1\n", Some((true, 6, 2))),
            ("monitors:\n- a: 1\nx-b: 1\n", None),
            ("monitors: [a]\n", None),
            ("- a: 1\n---\n- b: 1\n", None),
            ("- a: 1\n b: 1\n", Some((false, 1, 0))),
            ("- a: \"x\n  y\"\n", None),
            ("- a: 1\r\n", None),
            ("\t- a: 1\n", None),
            ("[a]\n", None),
            ("", None),
            ("- a\n-\tb\n", None),
        ] {
            let shape = Shape::of(text.as_bytes()).map(|shape| (shape.is_map, shape.line, shape.indent));
            assert_eq!(shape, expected, "{text:?}");
        }
    }

    #[test]
    fn batches_hold_every_item_with_its_line() {
        let mut text = String::from("# head\nmonitors:\n");
        for number in 0..5_000 {
            text.push_str(&format!("  - name: a{number}\n    # comment\n    x: 1\n\n"));
        }
        let shape = Shape::of(text.as_bytes()).expect("plain");
        let mut batches = shape.batches(text.as_bytes()).expect("bytes");
        let (mut count, mut joined) = (0, shape.head.clone());
        while let Some(batch) = batches.next().expect("unchanged") {
            for index in 0..batch.items.len() {
                let (item, line) = batch.item(index);
                assert!(item.starts_with(format!("  - name: a{count}\n").as_bytes()));
                assert_eq!(line, 3 + 4 * count);
                count += 1;
            }
            joined.extend_from_slice(&batch.text);
        }
        assert_eq!((count, joined), (5_000, text.into_bytes()));
    }
}
