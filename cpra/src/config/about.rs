//! What people wrote about a monitor: `labels`, `description`, `runbook`.

use super::diagnostic::{Severity, is_unprintable, quoted};
use super::node::{Findings, Node};
use super::section::Section;
use super::{address, value};
use crate::domain::monitor::About;
use crate::units::limits::{DESCRIPTION_MAX, LABEL_MAX, LABELS_MAX, PATH_MAX};

const LABELS: [&str; 2] = ["labels", "metadata"];

pub(super) fn about(monitor: &Section<'_>, findings: &mut Findings) -> About {
    About {
        labels: labels(monitor, findings).into(),
        description: monitor.value(findings, &["description"], description),
        runbook: monitor.value(findings, &["runbook"], runbook),
    }
}

fn labels(monitor: &Section<'_>, findings: &mut Findings) -> Vec<(Box<str>, Box<str>)> {
    let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
    let Some(section) = monitor.section(findings, &LABELS) else { return labels };
    for field in section.fields() {
        let mut refuse = |at, message: String| findings.0.push(field.finding(Severity::Error, at, message));
        if labels.len() == LABELS_MAX {
            refuse(field.at, format!("there are more than {LABELS_MAX} labels: remove some"));
            break;
        }
        if field.key.trim().is_empty() || field.key.len() > LABEL_MAX || field.key.chars().any(is_unprintable) {
            refuse(field.at, format!("{} is no name of a label: write 1 to {LABEL_MAX} bytes", quoted(field.key)));
            continue;
        }
        // Of a map of texts in the original, nothing is the empty text.
        let text = if field.value.is_null() { Ok("") } else { printed(field.value, DESCRIPTION_MAX) };
        match text {
            Ok(text) => labels.push((field.key.into(), text.into())),
            Err(message) => refuse(field.value.at, format!("the label {} {message}", quoted(field.key))),
        }
    }
    labels.sort_unstable();
    labels
}

fn description(node: &Node) -> Result<Box<str>, String> {
    let text = printed(node, DESCRIPTION_MAX)?.trim();
    if text.is_empty() { Err("is empty: write a text, or remove the key".to_owned()) } else { Ok(text.into()) }
}

/// A text of any number of lines, without what a terminal would obey.
fn printed(node: &Node, max: usize) -> Result<&str, String> {
    let text = value::text(node)?;
    if text.len() > max {
        return Err(format!("is {} bytes long: at most {max}", text.len()));
    }
    match text.chars().find(|&c| is_unprintable(c) && !matches!(c, '\n' | '\t')) {
        Some(found) => Err(format!("contains the control character U+{:04X}: remove it", u32::from(found))),
        None => Ok(text),
    }
}

/// An address that people may click on; sent as written.
fn runbook(node: &Node) -> Result<Box<str>, String> {
    let text = value::line(PATH_MAX)(node)?;
    address::url(text)
        .map_err(|message| message.replace("move it to basic_auth: {username: ..., password: ...}", "remove it"))?;
    Ok(text.into())
}
