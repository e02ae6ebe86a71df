//! Parser events into trees, and the way on after text that is not YAML.

use std::collections::BTreeSet;
use std::rc::Rc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use saphyr_parser::{BufferedInput, Event, Marker, Parser, ScalarStyle, ScanError};

use super::diagnostic::{Position, quoted};
use super::json::Json;
use super::node::{DEPTH_MAX, Entry, Findings, Kind, Mark, NODES_MAX, Node};
use super::source::{Characters, Source};
use super::variables::Variables;

/// The parser's events with places in the file, and the anchors seen so far.
pub(super) struct Events {
    source: Source,
    variables: Variables,
    parser: Language,
    /// Lines before the one at which the parser began.
    lines_before: u32,
    anchors: HashMap<usize, Rc<Node>, FxBuildHasher>,
    /// Values that the current item may still have.
    budget: usize,
    /// The line on which the last item began, or from which the text was taken up again.
    line: u32,
    /// The line on which the last event ended.
    read_to: u32,
    /// The `name` of the item that is being read, as far as it got.
    name: Option<Box<str>>,
    open: Vec<Open>,
    /// The list itself is still to begin, since the text was taken up again within it.
    resumed: bool,
}

/// Who reads the text.
enum Language {
    Yaml(Box<Parser<'static, BufferedInput<Characters>>>),
    Json(Box<Json>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Variables are not replaced in it.
    Key,
    Value,
}

/// A list or map that has not ended.
struct Open {
    start: Position,
    /// Behind the bracket, if it has one.
    end: Position,
    /// Once somebody asked: the text has to be looked at for it.
    is_bracket: Option<bool>,
}

/// The text is not YAML from here on.
#[derive(Debug)]
pub(super) struct SyntaxFault {
    pub(super) at: Mark,
    pub(super) message: String,
}

const TAB_INDENTED: &str = "a tab in the indentation: indent with spaces";

const UNKNOWN_ANCHOR: &str = "the alias names an anchor that is not defined before it";

impl SyntaxFault {
    pub(super) fn is_unknown_anchor(&self) -> bool {
        self.message == UNKNOWN_ANCHOR
    }
}

/// What an event begins.
pub(super) enum Begin {
    List,
    Map,
    Node(Rc<Node>),
    /// The end of the list or map around it.
    End,
    /// `---` or the begin of the stream, with whether this document is a further one.
    Document,
    /// The file is over.
    Over,
}

impl Events {
    pub(super) fn new(source: Source, variables: Variables) -> Self {
        let parser = Language::Yaml(Box::new(Parser::new(BufferedInput::new(source.characters()))));
        Self::with(source, variables, parser)
    }

    /// Of some items of a list, whose text begins on `line`.
    pub(super) fn items(source: Source, variables: Variables, line: u32) -> Self {
        Self { line, lines_before: line - 1, resumed: true, ..Self::new(source, variables) }
    }

    /// Of JSON, or of JSON Lines.
    pub(super) fn json(source: Source, variables: Variables, is_lines: bool) -> Self {
        source.is_json();
        let parser = Language::Json(Box::new(Json::new(source.characters(), is_lines)));
        Self::with(source, variables, parser)
    }

    fn with(source: Source, variables: Variables, parser: Language) -> Self {
        Self {
            source,
            variables,
            parser,
            lines_before: 0,
            anchors: HashMap::default(),
            budget: NODES_MAX,
            line: 0,
            read_to: 0,
            name: None,
            open: Vec::new(),
            resumed: false,
        }
    }

    /// Whether aliases may refer to something before this place.
    pub(super) fn has_anchors(&self) -> bool {
        !self.anchors.is_empty()
    }

    /// Begins anew at the next item after the one that broke, found by the list's marker at `indent`. Anchors are lost.
    pub(super) fn resume(&mut self, indent: usize) -> bool {
        let Some((line, characters)) = self.source.item_after(self.line, indent) else { return false };
        self.line = line;
        self.lines_before = line - 1;
        self.source.forget_tabs_before(Position { line, column: 1 });
        self.parser = Language::Yaml(Box::new(Parser::new(BufferedInput::new(characters))));
        self.anchors.clear();
        self.open.clear();
        self.resumed = true;
        true
    }

    /// A new item: its own budget, and no memory of the text before it.
    pub(super) fn begin_item(&mut self, at: Mark) {
        self.budget = NODES_MAX;
        self.source.release_before(at.position.line);
    }

    fn position(&self, marker: &Marker) -> Position {
        Position { line: marker.line() as u32 + self.lines_before, column: marker.col() as u32 + 1 }
    }

    /// Whether a text that broke cannot be taken up again.
    pub(super) const fn is_json(&self) -> bool {
        matches!(self.parser, Language::Json(_))
    }

    /// JSON Lines: on to the next line, if this is what is read.
    pub(super) fn next_line(&mut self) -> bool {
        let Language::Json(json) = &mut self.parser else { return false };
        let is_lines = json.is_lines();
        if is_lines {
            json.next_line();
            self.open.clear();
            self.budget = NODES_MAX;
        }
        is_lines
    }

    fn event(&mut self) -> Result<(Event<'static>, Mark), SyntaxFault> {
        let parser = match &mut self.parser {
            Language::Yaml(parser) => parser,
            Language::Json(json) => {
                let (event, position, end) = json.next()?;
                self.source.answered();
                self.read_to = end.line;
                let width = if position.line == end.line { end.column - position.column } else { 0 };
                return Ok((event, Mark { position, width }));
            }
        };
        match parser.next_event() {
            Some(Ok((event, span))) => {
                self.source.answered();
                let position = self.position(&span.start);
                self.read_to = span.end.line() as u32 + self.lines_before;
                self.check_indentation(&event, position.line, self.position(&span.end))?;
                match event {
                    Event::SequenceStart(..) | Event::MappingStart(..) => {
                        let end = self.position(&span.end);
                        self.open.push(Open { start: position, end, is_bracket: None });
                    }
                    Event::SequenceEnd | Event::MappingEnd => drop(self.open.pop()),
                    _ => {}
                }
                let width = if span.start.line() == span.end.line() { span.len() as u32 } else { 0 };
                Ok((event, Mark { position, width }))
            }
            Some(Err(error)) => Err(self.fault(&error)),
            None => Ok((Event::StreamEnd, Mark::default())),
        }
    }

    /// Refuses a tab in the indentation of any line but those within quotes and block texts, where it is text. The
    /// parser lets some pass (blank lines, comments, brackets) that other readers refuse.
    fn check_indentation(&self, event: &Event<'_>, line: u32, end: Position) -> Result<(), SyntaxFault> {
        let is_faulty_throughout = match event {
            Event::Scalar(_, ScalarStyle::Plain, ..) => true,
            // The first character tells how far a block text is indented.
            Event::Scalar(text, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                text.trim_start_matches('\n').starts_with('\t')
            }
            _ => false,
        };
        let faulty_to = if is_faulty_throughout { line.max(end.line) } else { line };
        if let Some(position) = self.source.tab_indented(faulty_to) {
            let at = Mark { position, width: 1 };
            return Err(SyntaxFault { at, message: TAB_INDENTED.to_owned() });
        }
        if matches!(event, Event::Scalar(..)) {
            self.source.forget_tabs_before(end);
        }
        Ok(())
    }

    /// Where the item that is being read began, or the one before if none did since.
    pub(super) const fn item_line(&self) -> u32 {
        self.line
    }

    /// The name of the item in which the text broke, if it was read before.
    pub(super) fn broken_name(&mut self) -> Option<Box<str>> {
        self.name.take()
    }

    fn fault(&self, error: &ScanError) -> SyntaxFault {
        let position = self.position(error.marker());
        // The parser blames the value before the line that a tab indents.
        if error.info().contains("found a tab")
            && let Some((line, column)) = self.source.tab_after(position.line)
        {
            let at = Mark { position: Position { line, column }, width: 1 };
            return SyntaxFault { at, message: in_words(error.info()) };
        }
        SyntaxFault { at: Mark { position: self.position(error.marker()), width: 1 }, message: in_words(error.info()) }
    }

    /// What comes next. Scalars, aliases and everything below a map or list (unless `open` leaves it to the caller)
    /// are read to their end.
    pub(super) fn begin(&mut self, findings: &mut Findings, open: bool) -> Result<(Begin, Mark), SyntaxFault> {
        self.begin_as(findings, open, Role::Value)
    }

    /// The same for a key.
    pub(super) fn begin_key(&mut self, findings: &mut Findings) -> Result<(Begin, Mark), SyntaxFault> {
        self.begin_as(findings, false, Role::Key)
    }

    fn begin_as(&mut self, findings: &mut Findings, open: bool, role: Role) -> Result<(Begin, Mark), SyntaxFault> {
        loop {
            let (event, at) = self.event()?;
            let begin = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
                Event::DocumentStart(_) if self.resumed => continue,
                Event::SequenceStart(..) if self.resumed => {
                    self.resumed = false;
                    continue;
                }
                Event::DocumentStart(_) => Begin::Document,
                Event::StreamEnd => Begin::Over,
                Event::SequenceEnd | Event::MappingEnd => Begin::End,
                Event::SequenceStart(0, None) if open => Begin::List,
                Event::MappingStart(0, None) if open => Begin::Map,
                other => {
                    self.line = at.position.line;
                    self.name = None;
                    let node = self.node(other, at, role, findings, 0)?;
                    self.name = None;
                    Begin::Node(node)
                }
            };
            return Ok((begin, at));
        }
    }

    fn node(
        &mut self,
        event: Event<'static>,
        at: Mark,
        role: Role,
        findings: &mut Findings,
        depth: usize,
    ) -> Result<Rc<Node>, SyntaxFault> {
        if let Event::Alias(anchor) = event {
            self.spend(at, findings);
            return Ok(self.anchors.get(&anchor).cloned().unwrap_or_else(|| {
                findings.error(at, "the alias stands inside of the value that it names: repeat the value instead");
                Rc::new(Node::new(at, Kind::Broken))
            }));
        }
        let kept = self.spend(at, findings);
        if depth == DEPTH_MAX && matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
            self.skip()?;
            return Ok(too_deep(at, findings));
        }
        let is_text_tagged = is_text_tagged(&event, at, findings);
        // Before what is below it: places are asked for in the order of the text.
        if self.source.has_odd_anchor(at.position) {
            findings.error(at, "an anchor's name is made of letters, digits, \"-\" and \"_\": rename it");
        }
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_text = is_text_tagged || style != ScalarStyle::Plain;
                if style == ScalarStyle::Plain
                    && matches!(self.parser, Language::Yaml(_))
                    && let Some(message) = self.plain_fault(&text)
                {
                    findings.error(at, message);
                }
                let kind = if role == Role::Value && text.contains("${") {
                    self.expanded(&text, is_text, at, findings)
                } else {
                    Kind::Scalar { text: text.into(), quoted: is_text }
                };
                (anchor, kind)
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(findings, depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(at, findings, depth)?),
            _ => (0, Kind::Broken),
        };
        // A block text begins, for the parser, at its first character: its place is good enough as it is.
        let mut node = Rc::new(Node::new(at, if kept { kind } else { Kind::Broken }));
        if node.height > DEPTH_MAX {
            node = too_deep(at, findings);
        }
        if anchor != 0 {
            self.source.pin(at.position.line..=self.read_to);
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// A value with its variables replaced. What comes of it is a text or a number, never nothing.
    fn expanded(&self, text: &str, is_text: bool, at: Mark, findings: &mut Findings) -> Kind {
        match self.variables.expand(text) {
            Ok(text) => {
                let is_nothing = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                Kind::Scalar { text: text.into(), quoted: is_text || is_nothing }
            }
            Err(message) => {
                findings.error(at, message);
                Kind::Broken
            }
        }
    }

    /// What is wrong with a text without quotes that the parser takes, and other readers take for something else.
    fn plain_fault(&mut self, text: &str) -> Option<String> {
        let first = text.chars().next()?;
        if matches!(first, '?' | '|' | '>' | '%' | '@' | '`' | '&' | '*' | '!' | '#')
            || first == ':' && self.is_in_brackets()
        {
            let first = quoted(first.encode_utf8(&mut [0; 4]));
            return Some(format!("a value cannot begin with {first}: put it in quotes"));
        }
        (text.contains(":?") && self.is_in_brackets())
            .then(|| "a \":?\" in brackets: put the value in quotes".to_owned())
    }

    fn is_in_brackets(&mut self) -> bool {
        let Self { open, source, .. } = self;
        open.iter_mut().rev().any(|open| {
            // Without brackets nothing stands for the beginning, but for an anchor or a list's first marker.
            let mut look = || open.start != open.end && source.is_bracket(open.start, open.end);
            *open.is_bracket.get_or_insert_with(&mut look)
        })
    }

    /// Over the rest of a list or map that has just begun, without recursion.
    fn skip(&mut self) -> Result<(), SyntaxFault> {
        let mut open = 1_usize;
        while open > 0 {
            match self.event()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => open += 1,
                Event::SequenceEnd | Event::MappingEnd => open -= 1,
                Event::StreamEnd => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    fn spend(&mut self, at: Mark, findings: &mut Findings) -> bool {
        self.budget = match self.budget {
            0 => return false,
            1 => {
                findings.error(at, format!("more than {NODES_MAX} keys and values in one place: split it"));
                0
            }
            more => more - 1,
        };
        self.budget > 0
    }

    fn list(&mut self, findings: &mut Findings, depth: usize) -> Result<Kind, SyntaxFault> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.event()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Kind::List(items));
            }
            let item = self.node(event, at, Role::Value, findings, depth + 1)?;
            if self.budget > 0 {
                items.push(item);
            }
        }
    }

    fn map(&mut self, at: Mark, findings: &mut Findings, depth: usize) -> Result<Kind, SyntaxFault> {
        let mut entries = Entries::default();
        let mut first_merge: Option<Mark> = None;
        loop {
            let (event, key_at) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Kind::Map(entries.finish()));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, key_at, Role::Key, findings, depth + 1)?;
            let (event, value_at) = self.event()?;
            let value = self.node(event, value_at, Role::Value, findings, depth + 1)?;
            if self.budget == 0 {
                continue;
            }
            match &key.kind {
                _ if is_merge => {
                    if let Some(first) = first_merge.replace(key_at) {
                        let line = first.position.line;
                        findings.error(key_at, format!("\"<<\" is there twice, first on line {line}: merge a list"));
                    }
                    self.merge(&mut entries, &value, key_at, findings);
                }
                Kind::Scalar { text, .. } if &**text == "<<" => {
                    findings.error(key_at, "\"<<\" in quotes or with a tag merges nothing: write it without");
                }
                Kind::Scalar { text, .. } => {
                    if let Some(message) = key_fault(&key) {
                        findings.error(key_at, message);
                        continue;
                    }
                    if depth == 0
                        && &**text == "name"
                        && let Kind::Scalar { text, .. } = &value.kind
                    {
                        self.name = Some(text.clone());
                    }
                    entries.add(Rc::from(&**text), key_at, value, findings);
                }
                Kind::Broken => {}
                _ => findings.error(
                    if key_at.width > 0 { key_at } else { at },
                    "a key is a single word here, not a list or a map",
                ),
            }
        }
    }

    /// `<<: *other` or `<<: [*one, *other]`: keys that the map does not have itself.
    fn merge(&mut self, entries: &mut Entries, value: &Node, at: Mark, findings: &mut Findings) {
        let sources = match &value.kind {
            Kind::List(items) => items.iter().map(Rc::as_ref).collect(),
            _ => vec![value],
        };
        for source in sources {
            match &source.kind {
                Kind::Map(merged) => {
                    for entry in merged {
                        if !self.spend(at, findings) {
                            return;
                        }
                        entries.merged.push(Entry { merged: true, ..entry.clone() });
                    }
                }
                Kind::Broken => {}
                _ => findings
                    .error(at, format!("\"<<\" merges a map, or a list of maps, this is {}", source.description())),
            }
        }
    }
}

/// Whether the value is tagged `!!str`. Any other tag is reported: it would give the value another meaning, or none.
fn is_text_tagged(event: &Event<'_>, at: Mark, findings: &mut Findings) -> bool {
    let (Event::Scalar(_, _, _, tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag)) = event else {
        return false;
    };
    let Some(tag) = tag else { return false };
    let is_text = matches!(event, Event::Scalar(..)) && tag.is_yaml_core_schema() && tag.suffix == "str";
    if !is_text {
        let shown = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
        findings.error(at, format!("the tag {} is unknown: write the value itself", quoted(&shown)));
    }
    is_text
}

/// What is wrong with a key, whatever the map. Keys are texts here; where another reader sees a number, a boolean or
/// nothing, two spellings may be one key.
pub(super) fn key_fault(key: &Node) -> Option<String> {
    let Kind::Scalar { text, quoted: is_text } = &key.kind else { return None };
    if key.at.width == 0 && !text.is_empty() {
        return Some("a key stands on one line: write it there, in quotes if need be".to_owned());
    }
    if *is_text {
        return None;
    }
    if key.is_null() {
        return Some("a key is missing before the \":\": write one, in quotes if need be".to_owned());
    }
    let unsigned = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    let is_number = !is_decimal
        && unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit())
        && (unsigned.parse::<f64>().is_ok()
            || ["0x", "0o", "0b", ".inf", ".nan"].iter().any(|prefix| unsigned.starts_with(prefix)));
    let is_boolean = matches!(&**text, "True" | "TRUE" | "False" | "FALSE");
    (is_number || is_boolean)
        .then(|| format!("the key {} is not a text to every reader: put it in quotes", quoted(text)))
}

fn too_deep(at: Mark, findings: &mut Findings) -> Rc<Node> {
    findings.error(at, format!("nested more than {DEPTH_MAX} levels deep: flatten it"));
    Rc::new(Node::new(at, Kind::Broken))
}

/// A map under construction.
#[derive(Default)]
struct Entries {
    own: Vec<Entry>,
    merged: Vec<Entry>,
    /// Filled once a scan over `own` would be slow.
    seen: BTreeSet<Rc<str>>,
}

const SCANNED_MAX: usize = 32;

impl Entries {
    fn add(&mut self, key: Rc<str>, at: Mark, value: Rc<Node>, findings: &mut Findings) {
        if self.own.len() == SCANNED_MAX {
            self.seen.extend(self.own.iter().map(|entry| entry.key.clone()));
        }
        let known = match self.own.len() {
            0..SCANNED_MAX => self.own.iter().any(|entry| entry.key == key),
            _ => !self.seen.insert(key.clone()),
        };
        if known {
            let first =
                self.own.iter().find(|entry| entry.key == key).map(|entry| entry.at.position.line).unwrap_or_default();
            findings.error(
                at,
                format!("the key {} is there twice, first on line {first}: remove one of them", quoted(&key)),
            );
        } else {
            self.own.push(Entry { key, at, value, merged: false });
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        let mut present: BTreeSet<Rc<str>> = BTreeSet::new();
        if !self.merged.is_empty() {
            present.extend(self.own.iter().map(|entry| entry.key.clone()));
        }
        for entry in self.merged {
            if present.insert(entry.key.clone()) {
                self.own.push(entry);
            }
        }
        self.own
    }
}

/// The parser's messages, as a person who wrote the file needs them.
fn in_words(info: &str) -> String {
    let words = match info {
        "while parsing node, found unknown anchor" => UNKNOWN_ANCHOR,
        "invalid indentation in quoted scalar"
        | "while scanning a quoted scalar, found unexpected end of stream"
        | "while scanning a quoted scalar, found unexpected document indicator" => {
            "the quote that is opened here is not closed"
        }
        "invalid trailing content after double-quoted scalar" => {
            "text after the closing quote: put all of it between the quotes"
        }
        "while parsing a block collection, did not find expected '-' indicator"
        | "while parsing a block mapping, did not find expected key"
        | "did not find expected <document start>"
        | "invalid indentation"
        | "simple key expect ':'"
        | "simple key expected" => {
            "the line does not fit in: keys of one map begin in one column and end with \": \", items of a list begin with \"- \""
        }
        "mapping values are not allowed in this context" => {
            "a \": \" where no key can stand: put the value in quotes, or check the indentation of the line"
        }
        "while scanning a plain scalar, found a tab" => TAB_INDENTED,
        "recursion limit exceeded" => "nested too deeply: flatten it",
        "while parsing a flow sequence, expected ',' or ']'" => "the list is not closed: \"]\" or \",\" is missing",
        "while parsing a flow mapping, did not find expected ',' or '}'" => {
            "the map is not closed: \"}\" or \",\" is missing"
        }
        "while parsing a node, did not find expected node content" => "a value is missing here",
        "while parsing a quoted scalar, found unknown escape character" => {
            "an unknown escape in double quotes: write \"\\\\\" for a backslash, or use single quotes"
        }
        other => {
            return match other.strip_prefix("unexpected character: `").and_then(|rest| rest.strip_suffix('\'')) {
                Some(character) => format!("a value cannot begin with {}: put it in quotes", quoted(character)),
                None if other.contains("tab") => format!("not YAML ({other}): indent with spaces, not tabs"),
                None => format!("not YAML: {other}"),
            };
        }
    };
    words.to_owned()
}
