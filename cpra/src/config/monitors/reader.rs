//! One file of a load: from its text to monitors and to findings with their places.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::rc::Rc;
use std::sync::Arc;

use super::super::batches::{Batch, name_position};
use super::super::diagnostic::{Diagnostic, Diagnostics, Excerpt, Position, Severity, quoted};
use super::super::library;
use super::super::monitor::{self, Defined};
use super::super::names::Place;
use super::super::node::{Finding, Findings, Kind, Mark, Node};
use super::super::refusal::{self, Origin, Vouched};
use super::super::section::Section;
use super::super::source::Source;
use super::super::suggestion;
use super::super::targets::{self, Shared};
use super::super::yaml::{self, Begin, Events, SyntaxFault};
use super::{KEYS_MAX, Load, RESUMES_MAX};
use crate::domain::{Check, Monitor, Policy};

pub(super) struct Reader<'l, 'a> {
    pub(super) load: &'l mut Load<'a>,
    file: Arc<str>,
    vouched: Vouched,
    source: Source,
    events: Events,
    /// The source of what stands before the batches.
    pub(super) head: Option<Source>,
    defaults: Option<Rc<Node>>,
    /// The key `monitors` was met.
    pub(super) has_list: bool,
    pub(super) found: Diagnostics,
    /// Items met, sound or not.
    items: usize,
    /// What `defaults` was already blamed for.
    blamed: Vec<Finding>,
    pub(super) resumes: usize,
    /// Anchors were lost when a broken text was taken up again.
    anchors_lost: bool,
    last_fault: Option<Position>,
}

impl<'l, 'a> Reader<'l, 'a> {
    pub(super) fn new(load: &'l mut Load<'a>, file: Arc<str>, source: Source, events: Events, origin: Origin) -> Self {
        Self {
            load,
            file,
            vouched: Vouched::new(origin),
            source,
            events,
            head: None,
            defaults: None,
            has_list: false,
            found: Diagnostics::default(),
            items: 0,
            blamed: Vec::new(),
            resumes: 0,
            anchors_lost: false,
            last_fault: None,
        }
    }

    pub(super) fn finish(mut self) {
        self.end_source();
        self.found.sort();
        self.load.report.diagnostics.append(self.found);
    }

    /// What the source itself has to say, and how long it was.
    fn end_source(&mut self) {
        for fault in self.source.take_faults() {
            let at = Mark { position: fault.position, width: 1 };
            self.push(None, Finding { severity: Severity::Error, at, message: fault.message, inherited: false });
        }
        self.load.report.bytes += self.source.bytes();
    }

    pub(super) fn batch(&mut self, batch: &Batch) {
        let items = library::items(&batch.text, &self.load.folders.variables);
        let Some(items) = items.filter(|items| items.len() == batch.items.len()) else {
            return self.again(&batch.text, batch.items.first().map_or(1, |&(_, line)| line));
        };
        for (index, (node, is_odd)) in items.into_iter().enumerate() {
            let (text, line) = batch.item(index);
            if !is_odd && self.quick_item(&node, text, line) {
                self.load.report.bytes += text.len() as u64;
            } else {
                self.again(text, line);
            }
        }
    }

    /// Reads some items again, with places.
    fn again(&mut self, text: &[u8], line: u32) {
        let source = Source::starting(Cursor::new(text.to_vec()), line);
        let events = Events::items(source.clone(), self.load.folders.variables.clone(), line);
        let source = std::mem::replace(&mut self.source, source);
        let events = std::mem::replace(&mut self.events, events);
        if let Err(fault) = self.list(None) {
            self.syntax(fault);
        }
        self.end_source();
        (self.source, self.events) = (source, events);
    }

    /// Takes an item without places, if nothing is to be said about it.
    fn quick_item(&mut self, node: &Rc<Node>, text: &[u8], line: u32) -> bool {
        if !matches!(node.kind, Kind::Map(_)) {
            return false;
        }
        let Some(position) = name_position(text, line) else { return false };
        let defaults = self.defaults.clone();
        let section = Section::new(node, defaults.as_deref(), Mark::default());
        let mut findings = Findings::default();
        // What is told by its place at the end of the load, or becomes many, is read with places.
        if section.find(&mut findings, &["targets"]).or_else(|| section.find(&mut findings, &["depends_on"])).is_some()
        {
            return false;
        }
        let Some((name, _)) = monitor::name(&section, &mut findings) else { return false };
        if self.load.names.find(name).is_some() {
            return false;
        }
        let Some(defined) = monitor::monitor(&section, Some(name), &mut self.load.scope, &mut findings) else {
            return false;
        };
        let is_refused =
            self.refusal(&section, &defined.monitor).is_some() || self.notify_refusal(&defined.monitor).is_some();
        if !findings.0.is_empty() || is_refused {
            return false;
        }
        let place = Place { file: self.file_number(), position };
        if self.load.names.add(name, place).is_err() {
            return false;
        }
        self.items += 1;
        self.accept(defined);
        true
    }

    fn file_number(&self) -> u16 {
        u16::try_from(self.load.files.len() - 1).unwrap_or(u16::MAX)
    }

    fn refusal(&mut self, section: &Section<'_>, monitor: &Monitor) -> Option<(&'static str, String)> {
        let Load { folders, programs, .. } = &mut *self.load;
        self.vouched.refusal(section, monitor, folders, programs)
    }

    fn notify_refusal(&mut self, monitor: &Monitor) -> Option<String> {
        let Load { folders, programs, .. } = &mut *self.load;
        self.vouched.notify_refusal(monitor, folders, programs)
    }

    fn excerpt(&self, position: Position, width: u32) -> Option<Excerpt> {
        let head = || self.head.as_ref()?.excerpt(position, width);
        self.source.excerpt(position, width).or_else(head)
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
        let kept = self.found.has_room(finding.severity);
        let excerpt = position.filter(|_| kept).and_then(|position| self.excerpt(position, finding.at.width));
        self.found.push(Diagnostic {
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

    pub(super) fn error(&mut self, at: Mark, message: impl Into<String>) {
        self.push(None, Finding { severity: Severity::Error, at, message: message.into(), inherited: false });
    }

    fn syntax(&mut self, fault: SyntaxFault) {
        self.error(fault.at, fault.message);
    }

    /// The whole file.
    pub(super) fn file(&mut self) {
        if let Err(fault) = self.document() {
            self.syntax(fault);
            return;
        }
        if self.items == 0 && self.found.errors() == 0 {
            let message = "defines no monitors: nothing will be checked".into();
            self.found.push(Diagnostic {
                severity: Severity::Warning,
                file: self.file.clone(),
                position: None,
                subject: None,
                message,
                excerpt: None,
            });
        }
    }

    pub(super) fn document(&mut self) -> Result<(), SyntaxFault> {
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
            let (begin, at) = self.events.begin_key(&mut findings)?;
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
                    self.has_list = true;
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
                Err(fault) if self.events.is_json() => {
                    let subject = match self.events.broken_name() {
                        Some(name) => monitor::shown_name(&name),
                        None => format!("monitor {}", self.items + 1),
                    };
                    self.items += 1;
                    let SyntaxFault { at, message } = fault;
                    self.push(Some(&subject), Finding { severity: Severity::Error, at, message, inherited: false });
                    if !self.events.next_line() {
                        // Nothing tells where the next one begins.
                        self.resumes += 1;
                        return Ok(());
                    }
                }
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
            && let Err(first) =
                self.load.names.add(name, Place { file: self.file_number(), position: name_at.position })
        {
            let file = self.load.files.get(usize::from(first.file)).unwrap_or(&self.file);
            let place = first.position;
            findings.error(*name_at, format!("the name is taken by the monitor at {file}:{place}: names are unique"));
        }
        let name = named.map(|(name, _)| name);
        let mut defined = monitor::monitor(&section, name, &mut self.load.scope, findings);
        if let Some((key, message)) = defined.as_ref().and_then(|defined| self.refusal(&section, &defined.monitor)) {
            let at = section.find(&mut Findings::default(), &[key, "pulse_check"]).map_or(at, |field| field.at);
            findings.0.push(Finding { severity: Severity::Refusal, at, message, inherited: false });
            // The check of an intervention runs; without its script, nothing would be left of a check.
            defined = defined.filter(|defined| !matches!(defined.monitor.policy.check, Check::Script(_)));
        }
        if let Some(defined) = &mut defined
            && let Some(message) = self.notify_refusal(&defined.monitor)
        {
            let at = section.find(&mut Findings::default(), &["codes"]).map_or(at, |field| field.at);
            findings.0.push(Finding { severity: Severity::Refusal, at, message, inherited: false });
            let Policy { codes, .. } = &mut defined.monitor.policy;
            *codes = refusal::without_scripts(codes, &self.load.scope.fallback);
        }
        let shown = name.map_or_else(|| format!("monitor {}", self.items), monitor::shown_name);
        (shown, defined)
    }

    /// Gives a sound monitor out.
    fn accept(&mut self, defined: Defined<'_>) {
        let Defined { monitor, parents, red_to_fallback } = defined;
        let excerpt = |at: Mark| {
            let head = || self.head.as_ref()?.excerpt(at.position, at.width);
            self.source.excerpt(at.position, at.width).or_else(head)
        };
        let Load { dependencies, names, report, sink, .. } = &mut *self.load;
        dependencies.add(&self.file, &monitor.name, &parents, |name| names.find(name).is_some(), excerpt);
        report.monitors += 1;
        if monitor.enabled {
            report.enabled += 1;
            report.reds_to_fallback += usize::from(red_to_fallback);
            let is_unverified = monitor.policy.check.tls().is_some_and(|tls| tls.insecure_skip_verify);
            report.unverified += usize::from(is_unverified);
        }
        sink(monitor);
    }
}
