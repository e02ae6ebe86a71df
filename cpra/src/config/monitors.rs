//! The monitors file: a list of monitors, or a map of `defaults`, `monitors` and `x-*`.
//!
//! Each monitor goes to the sink as soon as its item is read and sound, so that a million of them are never in memory
//! as text or trees. A monitor with an error is left out; whether one error stops the start is the caller's decision.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::dependencies::Dependencies;
use super::diagnostic::{Diagnostic, Diagnostics, Position, Severity, quoted};
use super::folders::Folders;
use super::monitor::{self, Defined};
use super::node::{Finding, Findings, Kind, Mark, Node};
use super::scope::Scope;
use super::section::Section;
use super::source::Source;
use super::suggestion;
use super::targets::{self, Shared};
use super::yaml::{self, Begin, Events, SyntaxFault};
use crate::domain::Monitor;

/// Places at which a broken text may be taken up again.
const RESUMES_MAX: usize = 100;

/// Keys of a file that is a map. They are remembered, to find one that is there twice.
const KEYS_MAX: usize = 10_000;

/// What came of a file.
#[derive(Debug)]
pub struct Report {
    pub diagnostics: Diagnostics,
    /// Given to the sink.
    pub monitors: usize,
    /// Of them, those that will be checked.
    pub enabled: usize,
    /// Of those, the ones whose red nobody who is named can receive: it goes to the fallback.
    pub reds_to_fallback: usize,
    /// Of those, the ones that do not judge a certificate.
    pub unverified: usize,
    pub bytes: u64,
    /// There was no file; it counts as an error, which the daemon may soften.
    pub missing: bool,
}

impl Report {
    pub const fn is_sound(&self) -> bool {
        self.diagnostics.errors() == 0
    }
}

/// Reads the monitors file at `path`. Pipes are fine.
pub fn read(path: &Path, folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Report {
    let name = path.to_string_lossy();
    let opened = std::fs::File::open(path).and_then(|file| {
        if file.metadata()?.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    match opened {
        Ok(file) => read_from(&name, file, folders, sink),
        Err(error) => {
            let mut report = Reader::new(&name, std::io::empty(), folders, sink).report;
            report.missing = error.kind() == std::io::ErrorKind::NotFound;
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file: check the path given with --yaml".to_owned(),
                std::io::ErrorKind::IsADirectory => "this is a directory: name the file in it".to_owned(),
                std::io::ErrorKind::PermissionDenied => {
                    "permission denied: let the user that runs cpra read it".to_owned()
                }
                _ => format!("cannot be opened: {error}"),
            };
            report.diagnostics.push(Diagnostic {
                severity: Severity::Error,
                file: name.into(),
                position: None,
                subject: None,
                message: message.into(),
                excerpt: None,
            });
            report
        }
    }
}

/// Reads `text` as if it were a file called `name`.
pub fn read_str(name: &str, text: &str, folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Report {
    read_from(name, std::io::Cursor::new(text.as_bytes().to_vec()), folders, sink)
}

pub(super) fn read_from(
    name: &str,
    reader: impl Read + 'static,
    folders: &Folders,
    sink: &mut dyn FnMut(Monitor),
) -> Report {
    let mut reader = Reader::new(name, reader, folders, sink);
    reader.file();
    reader.finish()
}

struct Reader<'a> {
    file: Arc<str>,
    scope: Scope<'a>,
    dependencies: Dependencies,
    sink: &'a mut dyn FnMut(Monitor),
    source: Source,
    events: Events,
    defaults: Option<Rc<Node>>,
    names: Names,
    report: Report,
    /// Items met, sound or not.
    items: usize,
    /// What `defaults` was already blamed for.
    blamed: Vec<Finding>,
    resumes: usize,
    /// Anchors were lost when a broken text was taken up again.
    anchors_lost: bool,
    last_fault: Option<Position>,
}

impl<'a> Reader<'a> {
    fn new(name: &str, reader: impl Read + 'static, folders: &'a Folders, sink: &'a mut dyn FnMut(Monitor)) -> Self {
        let source = Source::new(reader);
        Self {
            file: name.into(),
            scope: Scope::new(folders),
            dependencies: Dependencies::default(),
            sink,
            events: Events::new(source.clone()),
            source,
            defaults: None,
            names: Names::default(),
            report: Report {
                diagnostics: Diagnostics::default(),
                monitors: 0,
                enabled: 0,
                reds_to_fallback: 0,
                unverified: 0,
                bytes: 0,
                missing: false,
            },
            items: 0,
            blamed: Vec::new(),
            resumes: 0,
            anchors_lost: false,
            last_fault: None,
        }
    }

    fn finish(mut self) -> Report {
        for fault in self.source.take_faults() {
            let at = Mark { position: fault.position, width: 1 };
            self.push(None, Finding { severity: Severity::Error, at, message: fault.message, inherited: false });
        }
        let names = &self.names;
        for diagnostic in self.dependencies.judge(|name| names.contains(name), || names.iter()) {
            self.report.diagnostics.push(diagnostic);
        }
        self.report.bytes = self.source.bytes();
        self.report.diagnostics.sort();
        self.report
    }

    fn push(&mut self, subject: Option<&str>, finding: Finding) {
        let subject = if finding.inherited {
            if self.blamed.contains(&finding) {
                return;
            }
            Some("defaults")
        } else {
            subject
        };
        let position = Some(finding.at.position).filter(|position| position.line > 0);
        let kept = self.report.diagnostics.has_room(finding.severity);
        let excerpt = position.filter(|_| kept).and_then(|position| self.source.excerpt(position, finding.at.width));
        self.report.diagnostics.push(Diagnostic {
            severity: finding.severity,
            file: self.file.clone(),
            position,
            subject: subject.map(Into::into),
            message: finding.message.as_str().into(),
            excerpt,
        });
        if finding.inherited && self.blamed.len() < 1_000 {
            self.blamed.push(finding);
        }
    }

    fn push_all(&mut self, subject: Option<&str>, findings: Findings) {
        for finding in findings.0 {
            self.push(subject, finding);
        }
    }

    fn error(&mut self, at: Mark, message: impl Into<String>) {
        self.push(None, Finding { severity: Severity::Error, at, message: message.into(), inherited: false });
    }

    fn syntax(&mut self, fault: SyntaxFault) {
        self.error(fault.at, fault.message);
    }

    /// The whole file.
    fn file(&mut self) {
        if let Err(fault) = self.document() {
            self.syntax(fault);
            return;
        }
        if self.items == 0 && self.report.diagnostics.errors() == 0 {
            let message = "defines no monitors: nothing will be checked".into();
            self.report.diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                file: self.file.clone(),
                position: None,
                subject: None,
                message,
                excerpt: None,
            });
        }
    }

    fn document(&mut self) -> Result<(), SyntaxFault> {
        let mut findings = Findings::default();
        let mut documents = 0;
        loop {
            let (begin, at) = self.events.begin(&mut findings, documents == 1)?;
            match begin {
                Begin::Document => {
                    documents += 1;
                    if documents > 1 {
                        self.error(
                            at,
                            "a second document begins here: a file is one list, join them and remove \"---\"",
                        );
                        return Ok(());
                    }
                    if let Some((at, message)) = self.source.fault_before_document(at.position.line) {
                        self.error(at, message);
                    }
                }
                Begin::Over => {
                    if documents == 0 {
                        self.error(Mark::default(), "the file is empty: write a list of monitors, or [] for none");
                    }
                    return Ok(());
                }
                Begin::List => {
                    self.list(None)?;
                    if self.resumes > 0 {
                        return Ok(());
                    }
                }
                Begin::Map => {
                    self.map()?;
                    if self.resumes > 0 {
                        return Ok(());
                    }
                }
                Begin::Node(node) if matches!(node.kind, Kind::List(_) | Kind::Map(_)) => {
                    self.error(node.at, "an anchor or a tag on the whole file has no use: remove it");
                    return Ok(());
                }
                Begin::Node(node) => {
                    self.push_all(None, std::mem::take(&mut findings));
                    let message = if node.is_null() {
                        "the file is empty: write a list of monitors, or [] for none".to_owned()
                    } else {
                        format!(
                            "a list of monitors is expected, this is {}: begin with \"- name: ...\"",
                            node.description()
                        )
                    };
                    self.error(node.at, message);
                    return Ok(());
                }
                Begin::End => return Ok(()),
            }
        }
    }

    /// `defaults:`, `monitors:` and `x-*:`.
    fn map(&mut self) -> Result<(), SyntaxFault> {
        let mut seen: BTreeSet<Box<str>> = BTreeSet::new();
        loop {
            let mut findings = Findings::default();
            let (begin, at) = self.events.begin(&mut findings, false)?;
            let key: Box<str> = match begin {
                Begin::End | Begin::Over | Begin::Document => return Ok(()),
                Begin::Node(node) => match &node.kind {
                    Kind::Scalar { text, .. } => {
                        if let Some(message) = yaml::key_fault(&node) {
                            findings.error(at, message);
                        }
                        text.clone()
                    }
                    _ => Box::default(),
                },
                Begin::List | Begin::Map => Box::default(),
            };
            if seen.len() == KEYS_MAX {
                let message = format!("more than {KEYS_MAX} keys beside the list: the file is not read on from here");
                return Err(SyntaxFault { at, message });
            }
            let is_new = seen.insert(key.clone());
            if !is_new {
                self.error(at, format!("the key {} is there twice: remove one of them", quoted(&key)));
            }
            match &*key {
                "monitors" if is_new => {
                    self.monitors(at)?;
                    if self.resumes > 0 {
                        return Ok(());
                    }
                }
                "defaults" if is_new => {
                    if self.items > 0 {
                        self.error(at, "\"defaults\" stands behind \"monitors\": move it before them");
                    }
                    let defaults = self.node(&mut findings)?;
                    if let Some(defaults) = &defaults {
                        monitor::check_defaults(defaults, at, &mut findings);
                    }
                    self.defaults = defaults;
                    self.push_all(Some("defaults"), findings);
                    continue;
                }
                _ => {
                    if is_new && !key.starts_with("x-") {
                        let remedy = suggestion::did_you_mean(&key, ["monitors", "defaults"])
                            .unwrap_or_else(|| ": the keys here are monitors, defaults and x-...".to_owned());
                        self.error(at, format!("unknown key {}{remedy}", quoted(&key)));
                    }
                    self.node(&mut findings)?;
                }
            }
            self.push_all(None, findings);
        }
    }

    fn node(&mut self, findings: &mut Findings) -> Result<Option<Rc<Node>>, SyntaxFault> {
        let (begin, at) = self.events.begin(findings, false)?;
        self.events.begin_item(at);
        Ok(match begin {
            Begin::Node(node) => Some(node),
            _ => None,
        })
    }

    /// What stands behind `monitors:`.
    fn monitors(&mut self, key: Mark) -> Result<(), SyntaxFault> {
        let mut findings = Findings::default();
        let (begin, at) = self.events.begin(&mut findings, true)?;
        match begin {
            Begin::List => return self.list(Some(key.position.column as usize - 1)),
            Begin::Node(node) => match &node.kind {
                Kind::List(items) => {
                    for item in items {
                        self.item(item, item.at, Findings::default());
                    }
                }
                _ if node.is_null() => {}
                _ => findings.error(node.at, format!("monitors takes a list, this is {}", node.description())),
            },
            Begin::Map => {
                findings.error(key, "monitors takes a list, this is a map: begin each monitor with \"- name: ...\"");
                self.push_all(None, findings);
                return Err(SyntaxFault { at, message: "the file is not read on from here".to_owned() });
            }
            _ => {}
        }
        self.push_all(None, findings);
        Ok(())
    }

    /// The items of the list that has just begun; below a key, `outer` is that key's indentation.
    fn list(&mut self, outer: Option<usize>) -> Result<(), SyntaxFault> {
        let mut indent = None;
        loop {
            let mut findings = Findings::default();
            match self.events.begin(&mut findings, false) {
                Ok((Begin::Node(node), at)) => {
                    indent = indent.or_else(|| self.source.item_indent(at.position.line));
                    self.item(&node, at, findings);
                }
                Ok(_) => return Ok(()),
                Err(fault) => {
                    indent = indent
                        .or_else(|| self.source.item_indent(self.events.item_line()))
                        .or_else(|| self.source.item_indent(fault.at.position.line));
                    match indent {
                        Some(indent) if self.recover(indent, &fault, outer) => {}
                        Some(_) => return Ok(()),
                        None => return Err(fault),
                    }
                }
            }
        }
    }

    /// Reports text that is not YAML and goes on with the next item, which the list's own marker shows. Answers
    /// whether there is one.
    fn recover(&mut self, indent: usize, fault: &SyntaxFault, outer: Option<usize>) -> bool {
        let position = fault.at.position;
        // Taken up again, a list under `monitors:` is a text of its own, in which the map's next key is a stranger.
        if self.resumes > 0 && outer.is_some() && self.source.key_indent(position.line) == outer {
            return false;
        }
        // Lost by an earlier resumption; what this one loses was still known where the parser stopped.
        let is_lost_anchor = self.anchors_lost && fault.is_unknown_anchor();
        self.anchors_lost |= self.events.has_anchors();
        // The same place is met twice when it broke the item before it.
        if self.last_fault != Some(position) && !is_lost_anchor {
            let subject = match self.events.broken_name() {
                Some(name) => monitor::shown_name(&name),
                None => format!("monitor {}", self.items + 1),
            };
            let message = fault.message.clone();
            self.push(Some(&subject), Finding { severity: Severity::Error, at: fault.at, message, inherited: false });
        }
        self.last_fault = Some(position);
        self.resumes += 1;
        if self.resumes > RESUMES_MAX {
            self.error(
                fault.at,
                format!("the text is broken in more than {RESUMES_MAX} places: the file is not read on"),
            );
            return false;
        }
        self.items += 1;
        self.events.resume(indent)
    }

    fn item(&mut self, node: &Rc<Node>, at: Mark, mut findings: Findings) {
        self.items += 1;
        self.events.begin_item(at);
        let defaults = self.defaults.clone();
        let own = match &node.kind {
            Kind::Map(_) => node,
            Kind::Broken => return self.push_all(Some(&format!("monitor {}", self.items)), findings),
            _ => {
                findings.error(
                    node.at,
                    format!("a monitor is a map of keys, this is {}: begin with \"- name: ...\"", node.description()),
                );
                return self.push_all(Some(&format!("monitor {}", self.items)), findings);
            }
        };
        if let Some(targets) = targets::expand(own, defaults.as_deref(), at, &mut findings) {
            return self.expanded(own, defaults.as_deref(), &targets, findings);
        }
        let (shown, defined) = self.defined(own, defaults.as_deref(), at, &mut findings);
        let sound = !findings.has_errors();
        self.push_all(Some(&shown), findings);
        if let Some(defined) = defined.filter(|_| sound) {
            self.accept(defined);
        }
    }

    /// Every monitor of a definition with `targets`. An error in one of them, or in all, costs only those that have it.
    fn expanded(&mut self, own: &Node, defaults: Option<&Node>, targets: &[targets::Target], findings: Findings) {
        let section = Section::new(own, None, own.at);
        let definition =
            targets::definition_name(&section).map_or_else(|| format!("monitor {}", self.items), monitor::shown_name);
        let is_broken = findings.has_errors();
        self.push_all(Some(&definition), findings);
        let mut shared = Shared::default();
        for target in targets {
            let mut findings = Findings::default();
            let (shown, defined) = self.defined(&target.node, defaults, target.at, &mut findings);
            let sound = !findings.has_errors() && !is_broken;
            shared.add(&shown, findings);
            if let Some(defined) = defined.filter(|_| sound) {
                self.accept(defined);
            }
        }
        for (name, finding) in shared.into_findings() {
            self.push(Some(name.as_deref().unwrap_or(&definition)), finding);
        }
    }

    /// A monitor by its map, and how messages call it.
    fn defined<'n>(
        &mut self,
        own: &'n Node,
        defaults: Option<&'n Node>,
        at: Mark,
        findings: &mut Findings,
    ) -> (String, Option<Defined<'n>>) {
        let section = Section::new(own, defaults, at);
        let named = monitor::name(&section, findings);
        if let Some((name, name_at)) = &named
            && let Err(first) = self.names.add(name, name_at.position)
        {
            findings.error(
                *name_at,
                format!("the name is taken by the monitor at {}:{first}: names are unique", self.file),
            );
        }
        let name = named.map(|(name, _)| name);
        let defined = monitor::monitor(&section, name, &mut self.scope, findings);
        let shown = name.map_or_else(|| format!("monitor {}", self.items), monitor::shown_name);
        (shown, defined)
    }

    fn accept(&mut self, defined: Defined<'_>) {
        let Defined { monitor, parents, red_to_fallback } = defined;
        let (names, source) = (&self.names, &self.source);
        self.dependencies.add(
            &self.file,
            &monitor.name,
            &parents,
            |name| names.contains(name),
            |at| source.excerpt(at.position, at.width),
        );
        self.report.monitors += 1;
        if monitor.enabled {
            self.report.enabled += 1;
            self.report.reds_to_fallback += usize::from(red_to_fallback);
            let is_unverified = monitor.policy.check.tls().is_some_and(|tls| tls.insecure_skip_verify);
            self.report.unverified += usize::from(is_unverified);
        }
        (self.sink)(monitor);
    }
}

/// The names seen so far with their places: bytes in one arena, found by hash.
#[derive(Default)]
struct Names {
    arena: String,
    table: HashTable<Name>,
    hasher: FxBuildHasher,
}

#[derive(Clone, Copy)]
struct Name {
    /// Into the arena; 4 GiB of names are more than any list that fits in memory.
    offset: u32,
    length: u8,
    position: Position,
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |entry| self.text(entry) == name).is_some()
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.table.iter().map(|entry| self.text(entry))
    }

    fn text(&self, entry: &Name) -> &str {
        &self.arena[entry.offset as usize..entry.offset as usize + usize::from(entry.length)]
    }

    /// # Errors
    /// The place at which the name was defined before.
    fn add(&mut self, name: &str, position: Position) -> Result<(), Position> {
        let (arena, hasher) = (&self.arena, self.hasher);
        let text = |entry: &Name| &arena[entry.offset as usize..entry.offset as usize + usize::from(entry.length)];
        let hash = hasher.hash_one(name);
        if let Some(first) = self.table.find(hash, |entry| text(entry) == name) {
            return Err(first.position);
        }
        let (Ok(offset), Ok(length)) = (u32::try_from(arena.len()), u8::try_from(name.len())) else { return Ok(()) };
        self.table.insert_unique(hash, Name { offset, length, position }, |entry| hasher.hash_one(text(entry)));
        self.arena.push_str(name);
        Ok(())
    }
}
