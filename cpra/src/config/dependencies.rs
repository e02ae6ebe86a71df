//! `depends_on`: who stands behind whom. Names and circles are judged once everything has been read, since a monitor may
//! name one that is defined later, or in another file.
//!
//! Nothing follows from it in this version: every monitor is judged on its own, and one warning per load says so.

use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::diagnostic::{Diagnostic, Excerpt, Position, Severity, quoted};
use super::node::{Findings, Kind, Mark};
use super::section::Section;
use super::{monitor, suggestion, value};
use crate::units::limits::{MONITOR_NAME_MAX, PARENT_EXCERPTS_MAX, PARENTS_MAX};

/// Names compared for one "did you mean", and misses for which it is asked.
const NEAR_SCAN_MAX: usize = 100_000;
const NEAR_ASKED_MAX: usize = 20;
/// Monitors of a circle that are named.
const CIRCLE_SHOWN_MAX: usize = 8;

/// A monitor that another one depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent<'a> {
    pub(super) name: &'a str,
    pub(super) at: Mark,
    inherited: bool,
}

pub(super) fn parents<'a>(section: &Section<'a>, findings: &mut Findings) -> Vec<Parent<'a>> {
    let Some(field) = section.find(findings, &["depends_on"]) else { return vec![] };
    if matches!(&field.value.kind, Kind::List(items) if items.is_empty()) {
        return vec![];
    }
    let line = value::line(MONITOR_NAME_MAX);
    let parents = section.list(findings, &["depends_on"], PARENTS_MAX, |node| {
        line(node)?;
        Ok(Parent { name: value::text(node)?, at: node.at, inherited: field.inherited })
    });
    parents.unwrap_or_default()
}

#[derive(Debug)]
struct Edge {
    child: u32,
    parent: u32,
    file: Arc<str>,
    at: Position,
}

/// Who depends on whom, over everything that is read.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32, FxBuildHasher>,
    edges: Vec<Edge>,
    /// The lines of edges, by their index: only of parents that were not known yet. Every missing parent is one of
    /// them, and so is at least one in every circle.
    excerpts: HashMap<u32, Excerpt, FxBuildHasher>,
    children: usize,
}

impl Dependencies {
    fn id(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.names.len() as u32;
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        id
    }

    /// The parents of `child`. `excerpt` shows the line of a parent that `is_known` does not know yet.
    pub(super) fn add(
        &mut self,
        file: &Arc<str>,
        child: &str,
        parents: &[Parent<'_>],
        is_known: impl Fn(&str) -> bool,
        excerpt: impl Fn(Mark) -> Option<Excerpt>,
    ) {
        if parents.is_empty() {
            return;
        }
        self.children += 1;
        let child_id = self.id(child);
        for parent in parents {
            // A default that everybody depends on names itself among them.
            if parent.inherited && parent.name == child {
                continue;
            }
            if (parent.name == child || !is_known(parent.name))
                && self.excerpts.len() < PARENT_EXCERPTS_MAX
                && let Some(excerpt) = excerpt(parent.at)
            {
                self.excerpts.insert(self.edges.len() as u32, excerpt);
            }
            let parent_id = self.id(parent.name);
            self.edges.push(Edge { child: child_id, parent: parent_id, file: file.clone(), at: parent.at.position });
        }
    }

    /// What is wrong, once all names are known: `is_known` for one of them, `names` for all of them.
    pub(super) fn judge<'a, I: Iterator<Item = &'a str>>(
        &self,
        is_known: impl Fn(&str) -> bool,
        names: impl Fn() -> I,
    ) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let mut asked = 0;
        for (index, edge) in self.edges.iter().enumerate() {
            let parent = &*self.names[edge.parent as usize];
            if is_known(parent) {
                continue;
            }
            asked += 1;
            let near = (asked <= NEAR_ASKED_MAX)
                .then(|| suggestion::did_you_mean(parent, names().take(NEAR_SCAN_MAX)))
                .flatten()
                .unwrap_or_else(|| ": write the name of one, as it is in a monitors file".to_owned());
            let message = format!("depends_on names {}, which is no monitor{near}", quoted(parent));
            found.push(self.diagnostic(index, Severity::Error, message));
        }
        found.extend(self.circles());
        if let Some(first) = self.edges.first() {
            let monitors =
                if self.children == 1 { "1 monitor".to_owned() } else { format!("{} monitors", self.children) };
            let message =
                format!("depends_on (of {monitors}) has no effect in this version: each is judged on its own");
            let position = Some(first.at);
            let excerpt = self.excerpts.get(&0).cloned();
            let file = first.file.clone();
            found.push(Diagnostic {
                severity: Severity::Warning,
                file,
                position,
                subject: None,
                message: message.into(),
                excerpt,
            });
        }
        found
    }

    fn diagnostic(&self, index: usize, severity: Severity, message: String) -> Diagnostic {
        let edge = &self.edges[index];
        Diagnostic {
            severity,
            file: edge.file.clone(),
            position: Some(edge.at),
            subject: Some(monitor::shown_name(&self.names[edge.child as usize]).into()),
            message: message.into(),
            excerpt: self.excerpts.get(&(index as u32)).cloned(),
        }
    }

    /// Every circle is found by the edge that closes it; without recursion, since a chain may be a million long.
    fn circles(&self) -> Vec<Diagnostic> {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut by_child: Vec<u32> = (0..self.edges.len() as u32).collect();
        by_child.sort_by_key(|&index| self.edges[index as usize].child);
        let first = |child: u32| by_child.partition_point(|&index| self.edges[index as usize].child < child);
        let mut marks = vec![Mark::New; self.names.len()];
        let mut found = Vec::new();
        for start in 0..self.names.len() as u32 {
            if marks[start as usize] != Mark::New {
                continue;
            }
            marks[start as usize] = Mark::Open;
            // Each step: a monitor, the next of its edges to follow, and the edge that led to it.
            let mut path: Vec<(u32, usize, Option<u32>)> = vec![(start, first(start), None)];
            while let Some(&mut (child, ref mut next, _)) = path.last_mut() {
                let Some(&index) = by_child.get(*next).filter(|&&index| self.edges[index as usize].child == child)
                else {
                    marks[child as usize] = Mark::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                let parent = self.edges[index as usize].parent;
                match marks[parent as usize] {
                    Mark::New => {
                        marks[parent as usize] = Mark::Open;
                        path.push((parent, first(parent), Some(index)));
                    }
                    Mark::Open => {
                        let begin = path.iter().position(|step| step.0 == parent).unwrap_or(0);
                        let edges: Vec<u32> =
                            path[begin + 1..].iter().filter_map(|step| step.2).chain([index]).collect();
                        found.push(self.circle(&edges));
                    }
                    Mark::Done => {}
                }
            }
        }
        found
    }

    fn circle(&self, edges: &[u32]) -> Diagnostic {
        let shown_at = edges.iter().position(|index| self.excerpts.contains_key(index)).unwrap_or(0);
        let index = edges[shown_at] as usize;
        if let [_] = edges {
            return self.diagnostic(index, Severity::Error, "depends on itself: remove it from depends_on".to_owned());
        }
        // From the edge that is shown, all around.
        let (before, behind) = edges.split_at(shown_at);
        let names: Vec<&str> = behind
            .iter()
            .chain(before)
            .take(CIRCLE_SHOWN_MAX)
            .map(|&index| &*self.names[self.edges[index as usize].parent as usize])
            .collect();
        let more = if edges.len() > CIRCLE_SHOWN_MAX { " → ..." } else { "" };
        let child = &self.names[self.edges[index].child as usize];
        let circle = format!("{child} → {}{more}", names.join(" → "));
        let message = format!("depends_on closes a circle ({}): remove one of its parts", plain(&circle));
        self.diagnostic(index, Severity::Error, message)
    }
}

/// Names hold no control characters, but perhaps what hides text.
fn plain(text: &str) -> String {
    let shown = quoted(text);
    shown[1..shown.len() - 1].to_owned()
}
