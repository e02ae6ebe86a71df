//! Single values. Each reader answers with the value, or with what is wrong and what to write instead, as the rest
//! of a sentence that begins with the key.

use std::ops::RangeInclusive;

use super::diagnostic::{is_unprintable, quoted};
use super::duration;
use super::node::{Kind, Node};
use super::suggestion;
use crate::units::Span;

/// Any scalar but nothing, as written.
pub(super) fn text(node: &Node) -> Result<&str, String> {
    match &node.kind {
        Kind::Scalar { text, .. } if node.is_null() => match &**text {
            "" => Err("has no value: write one".to_owned()),
            nothing => Err(format!("{nothing} stands for no value: put it in quotes if it is a text")),
        },
        Kind::Scalar { text, .. } => Ok(text),
        _ => Err(format!("takes one value, this is {}", node.description())),
    }
}

/// A text of 1 to `max` bytes that fits on a line.
pub(super) fn line(max: usize) -> impl Fn(&Node) -> Result<&str, String> {
    move |node| {
        let text = text(node)?;
        if text.trim().is_empty() {
            return Err("is empty: write a text".to_owned());
        }
        if text.len() > max {
            return Err(format!("is {} bytes long: at most {max}", text.len()));
        }
        match text.chars().find(|&c| is_unprintable(c)) {
            Some(found) => Err(format!("contains the control character U+{:04X}: remove it", u32::from(found))),
            None => Ok(text),
        }
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    let written = text(node)?;
    match (written, &node.kind) {
        ("true" | "True" | "TRUE", Kind::Scalar { quoted: false, .. }) => return Ok(true),
        ("false" | "False" | "FALSE", Kind::Scalar { quoted: false, .. }) => return Ok(false),
        _ => {}
    }
    match (written.to_ascii_lowercase().as_str(), &node.kind) {
        // In some other mixture of cases.
        (lower @ ("true" | "false"), Kind::Scalar { quoted: false, .. }) => {
            Err(format!("{} is no boolean: write {lower}", quoted(written)))
        }
        ("true" | "false", _) => Err(format!("{} is a text: write it without quotes", quoted(written))),
        ("yes" | "on" | "y" | "1", _) => Err(format!("{} is no boolean: write true", quoted(written))),
        ("no" | "off" | "n" | "0", _) => Err(format!("{} is no boolean: write false", quoted(written))),
        _ => Err(format!("{} is no boolean: write true or false", quoted(written))),
    }
}

pub(super) fn integer(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, String> {
    move |node| {
        let (low, high) = (range.start(), range.end());
        let written = text(node)?;
        let digits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
        if digits && matches!(node.kind, Kind::Scalar { quoted: true, .. }) {
            return Err(format!("{} is a text: write the number without quotes", quoted(written)));
        }
        if digits && written.len() > 1 && written.starts_with('0') {
            return Err(format!(
                "{written} has a leading zero, which some readers take for octal: write {}",
                written.trim_start_matches('0')
            ));
        }
        match written.parse::<u64>() {
            Ok(number) if digits && range.contains(&number) => Ok(number),
            Ok(_) if digits => Err(format!("{written} is out of range: {low} to {high}")),
            _ => Err(format!("{} is no whole number: write one from {low} to {high}", quoted(written))),
        }
    }
}

pub(super) fn span(range: RangeInclusive<Span>) -> impl Fn(&Node) -> Result<Span, String> {
    move |node| {
        let span = duration::parse(text(node)?).map_err(|error| error.to_string())?;
        if range.contains(&span) {
            Ok(span)
        } else if span < *range.start() {
            Err(format!("{} is too short: at least {}", duration::written(span), duration::written(*range.start())))
        } else {
            Err(format!("{} is too long: at most {}", duration::written(span), duration::written(*range.end())))
        }
    }
}

/// One of `choices`, in any case.
pub(super) fn choice<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let written = text(node)?;
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(written)) {
            Some(&(_, value)) => Ok(value),
            None => Err(unknown(written, choices.iter().map(|&(name, _)| name))),
        }
    }
}

/// `"x" is unknown, did you mean "y"?`, or all the choices.
pub(super) fn unknown<'a>(written: &str, choices: impl Iterator<Item = &'a str> + Clone) -> String {
    let remedy = suggestion::did_you_mean(written, choices.clone())
        .unwrap_or_else(|| format!(": write {}", choices.collect::<Vec<_>>().join(" or ")));
    format!("{} is unknown{remedy}", quoted(written))
}

/// One value, or a list of them. A fault is reported by its text alone; the caller knows the place of the whole.
pub(super) fn items(node: &Node) -> Result<Vec<&Node>, String> {
    match &node.kind {
        Kind::Scalar { .. } => Ok(vec![node]),
        Kind::List(items) => Ok(items.iter().map(std::rc::Rc::as_ref).collect()),
        _ => Err(format!("takes one value or a list, this is {}", node.description())),
    }
}
