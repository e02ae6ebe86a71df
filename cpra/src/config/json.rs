//! JSON and JSON Lines as the events of the YAML parser, so that trees, doubled keys, bounds and places come from one
//! code for all of them.
//!
//! (Rejected: to read JSON as YAML, of which it is nearly a part. The rest is escapes of surrogate pairs, tabs between
//! values, keys longer than 1024 characters; and `'single'`, `# comment` and `[1, ]` would be taken.)
//!
//! In JSON Lines every line holds one value, and the events are those of one list around them; a line that is broken
//! costs only itself. A JSON file is not read on behind what is broken: nothing tells where the next monitor begins.
//!
//! When full: [`NESTED_MAX`] open lists and maps are an error; a text's length is bounded by the source.

use saphyr_parser::{Event, ScalarStyle};

use super::diagnostic::{Position, quoted};
use super::node::Mark;
use super::source::Characters;
use super::yaml::SyntaxFault;

/// Open lists and maps; trees end earlier (`node::DEPTH_MAX`), and this bounds what is read over.
const NESTED_MAX: usize = 10_000;

/// An event, where it begins, and where it ends.
pub(super) type Placed = (Event<'static>, Position, Position);

pub(super) struct Json {
    characters: Characters,
    peeked: Option<char>,
    /// Of the next character.
    at: Position,
    open: Vec<Open>,
    expected: Expected,
    /// One value per line, within a list that is not written.
    is_lines: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The file's begin.
    Document,
    /// The list around the lines.
    Lines,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Separator,
    /// Between two lines.
    Line,
    Over,
}

impl Json {
    pub(super) fn new(mut characters: Characters, is_lines: bool) -> Self {
        let peeked = characters.next();
        let at = Position { line: 1, column: 1 };
        Self { characters, peeked, at, open: Vec::new(), expected: Expected::Document, is_lines }
    }

    pub(super) const fn is_lines(&self) -> bool {
        self.is_lines
    }

    /// Gives up the current line, and begins with the next one.
    pub(super) fn next_line(&mut self) {
        // A fault at a line's end leaves the end itself unread.
        while let Some(character) = self.peeked {
            if matches!(character, '\n' | '\r') {
                break;
            }
            self.take();
        }
        self.open.clear();
        self.expected = Expected::Line;
    }

    fn take(&mut self) -> Option<char> {
        let taken = self.peeked?;
        self.peeked = self.characters.next();
        let ends_line = taken == '\n' || taken == '\r' && self.peeked != Some('\n');
        if ends_line {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(taken)
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, SyntaxFault> {
        Err(SyntaxFault { at: Mark { position: self.at, width: 1 }, message: message.into() })
    }

    fn skip_blanks(&mut self) {
        let in_line = self.is_lines && !matches!(self.expected, Expected::Line | Expected::Document | Expected::Lines);
        while let Some(' ' | '\t' | '\n' | '\r') = self.peeked {
            if in_line && matches!(self.peeked, Some('\n' | '\r')) {
                return;
            }
            self.take();
        }
    }

    /// # Errors
    /// The text is not JSON from here on.
    pub(super) fn next(&mut self) -> Result<Placed, SyntaxFault> {
        loop {
            self.skip_blanks();
            let start = self.at;
            let here = |event| Ok((event, start, start));
            match self.expected {
                Expected::Document if self.peeked.is_none() && !self.is_lines => {
                    self.expected = Expected::Over;
                }
                Expected::Document => {
                    self.expected = if self.is_lines { Expected::Lines } else { Expected::Value };
                    return here(Event::DocumentStart(false));
                }
                Expected::Lines => {
                    self.expected = Expected::Line;
                    return here(Event::SequenceStart(0, None));
                }
                Expected::Line => match self.peeked {
                    None => {
                        self.expected = Expected::Over;
                        return here(Event::SequenceEnd);
                    }
                    Some(_) => self.expected = Expected::Value,
                },
                Expected::Over if self.is_lines => return here(Event::StreamEnd),
                Expected::Over => match self.peeked {
                    None => return here(Event::StreamEnd),
                    Some(_) => {
                        self.at = start;
                        return self.fault("text behind the end: a JSON file is one list or map, and JSON Lines are in a file called .jsonl");
                    }
                },
                Expected::Separator => match (self.open.last(), self.peeked) {
                    (None, _) if !self.is_lines => self.expected = Expected::Over,
                    (None, None | Some('\n' | '\r')) => self.expected = Expected::Line,
                    (None, Some(',')) => {
                        return self.fault("a \",\" behind the object: in JSON Lines, each stands alone on its line");
                    }
                    (None, Some(_)) => {
                        return self.fault("more than one value on the line: give each a line of its own");
                    }
                    (Some(open), Some(',')) => {
                        self.expected = if *open == Open::List { Expected::Value } else { Expected::Key };
                        self.take();
                        self.skip_blanks();
                        if matches!(self.peeked, Some(']' | '}')) {
                            self.at = start;
                            return self.fault("a \",\" behind the last value: remove it");
                        }
                    }
                    (Some(Open::List), Some(']')) => return Ok(self.close(Event::SequenceEnd)),
                    (Some(Open::Map), Some('}')) => return Ok(self.close(Event::MappingEnd)),
                    (Some(Open::List), _) => return self.unclosed("the list", "\",\" or \"]\""),
                    (Some(Open::Map), _) => return self.unclosed("the map", "\",\" or \"}\""),
                },
                Expected::ValueOrEnd if self.peeked == Some(']') => return Ok(self.close(Event::SequenceEnd)),
                Expected::KeyOrEnd if self.peeked == Some('}') => return Ok(self.close(Event::MappingEnd)),
                Expected::Value | Expected::ValueOrEnd => return self.value(),
                Expected::Key | Expected::KeyOrEnd => return self.key(),
            }
        }
    }

    /// What stands where a list or map should go on or end.
    fn unclosed<T>(&self, what: &str, wanted: &str) -> Result<T, SyntaxFault> {
        match self.peeked {
            None => self.fault(format!("{what} is not closed: the text ends where {wanted} is expected")),
            Some('\n' | '\r') => {
                self.fault(format!("{what} is not closed on its line: in JSON Lines, one line is one monitor"))
            }
            Some('#' | '/') => self.fault("JSON has no comments: remove it, or write YAML"),
            Some(':') => self.fault(format!("a \":\" where {wanted} is expected: a key is a text in double quotes")),
            Some(found) => {
                let found = quoted(found.encode_utf8(&mut [0; 4]));
                self.fault(format!("{found} where {wanted} is expected"))
            }
        }
    }

    fn open(&mut self, open: Open) -> Result<Placed, SyntaxFault> {
        let start = self.at;
        if self.open.len() == NESTED_MAX {
            return self.fault("nested too deeply: flatten it");
        }
        self.open.push(open);
        self.take();
        let (event, expected) = match open {
            Open::List => (Event::SequenceStart(0, None), Expected::ValueOrEnd),
            Open::Map => (Event::MappingStart(0, None), Expected::KeyOrEnd),
        };
        self.expected = expected;
        Ok((event, start, self.at))
    }

    fn close(&mut self, event: Event<'static>) -> Placed {
        let start = self.at;
        self.take();
        self.open.pop();
        self.expected = Expected::Separator;
        (event, start, self.at)
    }

    fn value(&mut self) -> Result<Placed, SyntaxFault> {
        let start = self.at;
        let (text, style) = match self.peeked {
            Some('[') => return self.open(Open::List),
            Some('{') => return self.open(Open::Map),
            Some('"') => (self.text()?, ScalarStyle::DoubleQuoted),
            Some('-' | '0'..='9') => (self.number()?, ScalarStyle::Plain),
            Some(character) if character.is_ascii_alphabetic() => (self.word()?, ScalarStyle::Plain),
            None => return self.fault("the text ends where a value is expected"),
            Some('\n' | '\r') => {
                return self.fault("the line ends where a value is expected: in JSON Lines, one line is one monitor");
            }
            Some(']' | '}' | ',' | ':') => return self.fault("a value is missing here"),
            Some('\'') => return self.fault("a text in single quotes: JSON has double quotes only"),
            Some('#' | '/') => return self.fault("JSON has no comments: remove it, or write YAML"),
            Some(found) => {
                let found = quoted(found.encode_utf8(&mut [0; 4]));
                return self.fault(format!("a value cannot begin with {found}: put it in double quotes"));
            }
        };
        self.expected = Expected::Separator;
        Ok((Event::Scalar(text.into(), style, 0, None), start, self.at))
    }

    /// A key and the `:` behind it.
    fn key(&mut self) -> Result<Placed, SyntaxFault> {
        let start = self.at;
        match self.peeked {
            Some('"') => {}
            None | Some('\n' | '\r' | '#' | '/') => return self.unclosed("the map", "a key or \"}\""),
            Some(_) => return self.fault("a key is a text in double quotes here"),
        }
        let text = self.text()?;
        let end = self.at;
        self.skip_blanks();
        if self.peeked != Some(':') {
            return self.fault("the \":\" behind the key is missing");
        }
        self.take();
        self.expected = Expected::Value;
        Ok((Event::Scalar(text.into(), ScalarStyle::DoubleQuoted, 0, None), start, end))
    }

    fn text(&mut self) -> Result<String, SyntaxFault> {
        let start = self.at;
        let mut text = String::new();
        self.take();
        loop {
            match self.peeked {
                Some('"') => {
                    self.take();
                    return Ok(text);
                }
                Some('\\') => text.push(self.escape()?),
                None | Some('\n' | '\r') => {
                    let at = Mark { position: start, width: 1 };
                    let message =
                        "the quote that is opened here is not closed on its line: write \"\\n\" for a line break";
                    return Err(SyntaxFault { at, message: message.to_owned() });
                }
                Some('\t') => return self.fault("a tab within a text: write \"\\t\""),
                Some(character) => {
                    text.push(character);
                    self.take();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxFault> {
        let start = self.at;
        self.take();
        let escaped = match self.peeked {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(same @ ('"' | '\\' | '/')) => same,
            Some('u') => {
                self.take();
                return self.unicode(start);
            }
            _ => {
                self.at = start;
                return self.fault("an unknown escape: write \"\\\\\" for a backslash");
            }
        };
        self.take();
        Ok(escaped)
    }

    /// `XXXX` behind `\u`, and the second half of a pair.
    fn unicode(&mut self, start: Position) -> Result<char, SyntaxFault> {
        let first = self.four_digits(start)?;
        let lone = |start| {
            let message = "half of a surrogate pair: write both halves, or the character itself".to_owned();
            SyntaxFault { at: Mark { position: start, width: 6 }, message }
        };
        let code = match first {
            0xd800..=0xdbff => {
                for wanted in ['\\', 'u'] {
                    if self.peeked != Some(wanted) {
                        return Err(lone(start));
                    }
                    self.take();
                }
                let second = self.four_digits(start)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(lone(start));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| lone(start))
    }

    fn four_digits(&mut self, start: Position) -> Result<u32, SyntaxFault> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peeked.and_then(|digit| digit.to_digit(16)) else {
                let message = "\"\\u\" takes four hexadecimal digits".to_owned();
                return Err(SyntaxFault { at: Mark { position: start, width: 2 }, message });
            };
            code = code * 16 + digit;
            self.take();
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<String, SyntaxFault> {
        let start = self.at;
        let mut text = String::new();
        while let Some(part @ ('0'..='9' | '+' | '-' | '.' | 'e' | 'E' | 'x' | '_' | 'a'..='d' | 'f')) = self.peeked {
            text.push(part);
            self.take();
        }
        if is_number(&text) {
            return Ok(text);
        }
        let at = Mark { position: start, width: text.chars().count() as u32 };
        Err(SyntaxFault {
            at,
            message: format!("{} is no number of JSON: put it in double quotes if it is a text", quoted(&text)),
        })
    }

    fn word(&mut self) -> Result<String, SyntaxFault> {
        let start = self.at;
        let mut text = String::new();
        while let Some(part) = self.peeked.filter(|part| part.is_alphanumeric() || matches!(part, '_' | '-' | '.')) {
            text.push(part);
            self.take();
        }
        if matches!(&*text, "true" | "false" | "null") {
            return Ok(text);
        }
        let at = Mark { position: start, width: text.chars().count() as u32 };
        let remedy = match &*text.to_ascii_lowercase() {
            lower @ ("true" | "false" | "null") => format!("write {lower}"),
            _ => "put it in double quotes".to_owned(),
        };
        Err(SyntaxFault { at, message: format!("the text {} stands without quotes: {remedy}", quoted(&text)) })
    }
}

/// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}
