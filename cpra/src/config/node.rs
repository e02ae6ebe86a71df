//! One item of a file as a tree in which every key and value knows its place.

use std::rc::Rc;

use super::diagnostic::{Position, Severity};

/// Keys and values of one item (aliases and merges counted).
pub(super) const NODES_MAX: usize = 65_536;
/// Lists and maps within each other.
pub(super) const DEPTH_MAX: usize = 64;

/// A place and how wide the text is that stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) position: Position,
    /// In characters, on the first line; 0 where the parser names a point only.
    pub(super) width: u32,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) kind: Kind,
    /// Levels below this one. Aliases nest without the text being nested, and dropping a tree recurses.
    pub(super) height: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar {
        text: Box<str>,
        /// In quotes, a block, or tagged `!!str`: never a number, a boolean or null.
        quoted: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
    /// Already reported: whoever meets it keeps silent.
    Broken,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Rc<str>,
    pub(super) at: Mark,
    pub(super) value: Rc<Node>,
    /// Came by `<<`: a key of the map itself goes before it.
    pub(super) merged: bool,
}

impl Node {
    pub(super) fn new(at: Mark, kind: Kind) -> Self {
        let height = match &kind {
            Kind::Scalar { .. } | Kind::Broken => 0,
            Kind::List(items) => 1 + items.iter().map(|item| item.height).max().unwrap_or(0),
            Kind::Map(entries) => 1 + entries.iter().map(|entry| entry.value.height).max().unwrap_or(0),
        };
        Self { at, kind, height }
    }

    pub(super) fn scalar(at: Mark, text: Box<str>, quoted: bool) -> Self {
        Self::new(at, Kind::Scalar { text, quoted })
    }

    /// `key:` with nothing behind it, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// In words, for "a list was expected, this is ...".
    pub(super) fn description(&self) -> String {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => super::diagnostic::quoted(text),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Broken => "unreadable".to_owned(),
        }
    }
}

/// A fault before it is known to which monitor it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) at: Mark,
    pub(super) message: String,
    /// The value stands in `defaults`: said once, not once per monitor.
    pub(super) inherited: bool,
}

/// What is wrong with one item.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn error(&mut self, at: Mark, message: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Error, at, message: message.into(), inherited: false });
    }

    pub(super) fn warning(&mut self, at: Mark, message: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Warning, at, message: message.into(), inherited: false });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }
}
