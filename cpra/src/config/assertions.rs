//! The rules of what an answer must be: texts, patterns, values in JSON, header fields.
//!
//! ```yaml
//! contains: ok                                 # or a list
//! json: {/status: ok, /queue/depth: {below: 100}, items[0].id: {exists: true}}
//! expected_headers: {content-type: {contains: json}}
//! ```

use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Kind, Mark, Node};
use super::scope::Scope;
use super::section::{Field, Keys, Section};
use super::{http, value};
use crate::domain::monitor::{Assertion, HeaderRule, JsonRule, Pattern};
use crate::units::limits::{ASSERTION_TEXT_MAX, ASSERTIONS_MAX};

const POINTER_MAX: usize = 1024;

const JSON_RULES: Keys<'static> = Keys {
    known: &["equals", "not_equals", "above", "below", "at_least", "at_most", "exists", "matches"],
    without_effect: &[],
    refused: &[],
};
const JSON_ITEM: Keys<'static> = Keys {
    known: &["pointer", "path", "equals", "not_equals", "above", "below", "at_least", "at_most", "exists", "matches"],
    without_effect: &[],
    refused: &[],
};
const HEADER_RULES: Keys<'static> =
    Keys { known: &["equals", "contains", "matches", "exists"], without_effect: &[], refused: &[] };
const HEADER_ITEM: Keys<'static> =
    Keys { known: &["name", "equals", "contains", "matches", "exists"], without_effect: &[], refused: &[] };

/// Keys of http that assert something about the body.
pub(super) const OF_BODY: [&str; 5] = ["contains", "not_contains", "regex", "not_regex", "json"];

pub(super) fn assertions(config: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings) -> Vec<Assertion> {
    let mut all = Vec::new();
    let texts = config.list(findings, &["contains"], ASSERTIONS_MAX, wanted);
    all.extend(texts.into_iter().flatten().map(Assertion::Contains));
    let texts = config.list(findings, &["not_contains"], ASSERTIONS_MAX, wanted);
    all.extend(texts.into_iter().flatten().map(Assertion::NotContains));
    let patterns = config.list(findings, &["regex"], ASSERTIONS_MAX, |node| pattern(node, scope));
    all.extend(patterns.into_iter().flatten().map(Assertion::Matches));
    let patterns = config.list(findings, &["not_regex"], ASSERTIONS_MAX, |node| pattern(node, scope));
    all.extend(patterns.into_iter().flatten().map(Assertion::NotMatches));
    json(config, scope, findings, &mut all);
    headers(config, scope, findings, &mut all);
    if all.len() > ASSERTIONS_MAX {
        let message = format!("{} assertions about one answer: at most {ASSERTIONS_MAX}", all.len());
        findings.error(config.at, message);
    }
    all
}

fn wanted(node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    match text.len() {
        0 => Err("is empty, and every answer holds that: write a text".to_owned()),
        long if long > ASSERTION_TEXT_MAX => Err(format!("is {long} bytes long: at most {ASSERTION_TEXT_MAX}")),
        _ => Ok(text.into()),
    }
}

pub(super) fn pattern(node: &Node, scope: &mut Scope<'_>) -> Result<Pattern, String> {
    let text = value::text(node)?;
    match text.len() {
        0 => Err("is empty, and every answer matches that: write a pattern".to_owned()),
        long if long > ASSERTION_TEXT_MAX => Err(format!("is {long} bytes long: at most {ASSERTION_TEXT_MAX}")),
        _ => scope.pattern(text),
    }
}

/// What stands behind `json` or `expected_headers`: pairs of what is meant and its rules.
fn pairs<'a>(
    field: &Field<'a>,
    names: [&str; 2],
    keys: [Keys<'_>; 2],
    findings: &mut Findings,
) -> Vec<(Place<'a>, Section<'a>, Option<Field<'a>>)> {
    let mut refuse =
        |at, message: String| findings.0.push(field.finding(Severity::Error, at, format!("{} {message}", field.key)));
    match &field.value.kind {
        Kind::Broken => vec![],
        Kind::Map(_) => {
            let mut found = Vec::new();
            for entry in Section::of(field).fields() {
                let entry = Field { inherited: field.inherited, ..entry };
                let place = Place { text: entry.key, at: entry.at };
                let scalar = (!matches!(entry.value.kind, Kind::Map(_))).then_some(entry);
                let rules = Section::of(&entry);
                if scalar.is_none() {
                    rules.check_all_keys(findings, keys[0]);
                }
                found.push((place, rules, scalar));
            }
            found
        }
        Kind::List(items) => {
            let mut found = Vec::new();
            for item in items {
                if !matches!(item.kind, Kind::Map(_)) {
                    if !matches!(item.kind, Kind::Broken) {
                        refuse(item.at, format!("takes a list of maps, this is {}", item.description()));
                    }
                    continue;
                }
                let whole = Field { key: field.key, value: item, at: item.at, inherited: field.inherited };
                found.push(whole);
            }
            let mut located = Vec::new();
            for whole in found {
                let section = Section::of(&whole);
                section.check_all_keys(findings, keys[1]);
                let place = section.find(findings, &names).map(|field| (field, value::text(field.value)));
                match place {
                    Some((field, Ok(text))) => {
                        located.push((Place { text, at: field.value.at }, section, None));
                    }
                    Some((field, Err(message))) => {
                        let message = format!("{} {message}", field.key);
                        findings.0.push(whole.finding(Severity::Error, field.value.at, message));
                    }
                    None => section.missing(findings, names[0], "say which value is meant"),
                }
            }
            located
        }
        _ if field.value.is_null() => {
            refuse(field.at, "has no value: write a map, or remove the key".to_owned());
            vec![]
        }
        _ => {
            refuse(field.value.at, format!("takes a map or a list of maps, this is {}", field.value.description()));
            vec![]
        }
    }
}

/// What an assertion is about, and where that stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    text: &'a str,
    at: Mark,
}

fn json(config: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings, all: &mut Vec<Assertion>) {
    let Some(field) = config.find(findings, &["json"]) else { return };
    for (place, rules, scalar) in pairs(&field, ["pointer", "path"], [JSON_RULES, JSON_ITEM], findings) {
        let pointer = match pointer(place.text) {
            Ok(pointer) => pointer,
            Err(message) => {
                findings.0.push(field.finding(Severity::Error, place.at, format!("json {message}")));
                continue;
            }
        };
        let mut found = Vec::new();
        if let Some(value) = scalar {
            match json_text(value.value) {
                Ok(text) => found.push(JsonRule::Equals(text)),
                Err(message) => {
                    let message = format!("json {} {message}", quoted(place.text));
                    findings.0.push(value.finding(Severity::Error, value.value.at, message));
                }
            }
        } else {
            let before = findings.0.len();
            json_rules(&rules, scope, findings, &mut found);
            if found.is_empty() && findings.0.len() == before {
                let message =
                    format!("json {} asserts nothing: write equals: ..., or exists: true", quoted(place.text));
                findings.0.push(field.finding(Severity::Error, place.at, message));
            }
        }
        all.extend(found.into_iter().map(|rule| Assertion::Json { pointer: pointer.clone(), rule }));
    }
}

fn json_rules(rules: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings, found: &mut Vec<JsonRule>) {
    // `null` is a value here, and not the lack of one: these two are read past the usual reader.
    for (key, make) in [("equals", JsonRule::Equals as fn(Box<str>) -> JsonRule), ("not_equals", JsonRule::NotEquals)] {
        let Some(field) = rules.find(findings, &[key]) else { continue };
        match json_text(field.value) {
            Ok(text) => found.push(make(text)),
            Err(_) if matches!(field.value.kind, Kind::Broken) => {}
            Err(message) => {
                findings.0.push(field.finding(Severity::Error, field.value.at, format!("{key} {message}")));
            }
        }
    }
    for (key, make) in [
        ("above", JsonRule::Above as fn(Box<str>) -> JsonRule),
        ("below", JsonRule::Below),
        ("at_least", JsonRule::AtLeast),
        ("at_most", JsonRule::AtMost),
    ] {
        found.extend(rules.value(findings, &[key], number).map(make));
    }
    if let Some(exists) = rules.value(findings, &["exists"], value::boolean) {
        found.push(if exists { JsonRule::Exists } else { JsonRule::Absent });
    }
    found.extend(rules.value(findings, &["matches"], |node| pattern(node, scope)).map(JsonRule::Matches));
}

fn headers(config: &Section<'_>, scope: &mut Scope<'_>, findings: &mut Findings, all: &mut Vec<Assertion>) {
    let Some(field) = config.find(findings, &["expected_headers"]) else { return };
    for (place, rules, scalar) in pairs(&field, ["name", "name"], [HEADER_RULES, HEADER_ITEM], findings) {
        if let Some(message) = http::token_fault(place.text) {
            findings.0.push(field.finding(Severity::Error, place.at, message));
            continue;
        }
        let name: Box<str> = place.text.to_ascii_lowercase().into();
        let mut found = Vec::new();
        if let Some(value) = scalar {
            match http::header_value(value.value) {
                Ok(text) => found.push(HeaderRule::Equals(text.into())),
                Err(_) if matches!(value.value.kind, Kind::Broken) => {}
                Err(message) => {
                    let message = format!("the header {} {message}", quoted(place.text));
                    findings.0.push(value.finding(Severity::Error, value.value.at, message));
                }
            }
        } else {
            let before = findings.0.len();
            let text = |node: &Node| http::header_value(node).map(Box::from);
            found.extend(rules.value(findings, &["equals"], text).map(HeaderRule::Equals));
            found.extend(rules.value(findings, &["contains"], wanted).map(HeaderRule::Contains));
            found.extend(rules.value(findings, &["matches"], |node| pattern(node, scope)).map(HeaderRule::Matches));
            if let Some(exists) = rules.value(findings, &["exists"], value::boolean) {
                found.push(if exists { HeaderRule::Exists } else { HeaderRule::Absent });
            }
            if found.is_empty() && findings.0.len() == before {
                let message =
                    format!("the header {} asserts nothing: write equals: ..., or exists: true", quoted(place.text));
                findings.0.push(field.finding(Severity::Error, place.at, message));
            }
        }
        all.extend(found.into_iter().map(|rule| Assertion::Header { name: name.clone(), rule }));
    }
}

/// An RFC 6901 pointer, as it is or from a path like `$.queue.depth` or `items[0].id`.
fn pointer(text: &str) -> Result<Box<str>, String> {
    if text.len() > POINTER_MAX {
        return Err(format!("has a pointer of {} bytes: at most {POINTER_MAX}", text.len()));
    }
    if text.is_empty() || text.starts_with('/') {
        let escapes = text.match_indices('~').all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')));
        return if escapes {
            Ok(text.into())
        } else {
            Err(format!("{} has a \"~\" that is no escape: write ~0 for a tilde, ~1 for a slash", quoted(text)))
        };
    }
    let wrong = || format!("{} is no path: write it like \"/queue/depth\" or \"items[0].id\"", quoted(text));
    let path = text.strip_prefix('$').unwrap_or(text);
    let mut pointer = String::new();
    for part in path.strip_prefix('.').unwrap_or(path).split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() && indices.is_empty() && path.is_empty() {
            continue;
        }
        if name.is_empty() && (indices.is_empty() || !pointer.is_empty()) {
            return Err(wrong());
        }
        if !name.is_empty() {
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        let mut rest = indices;
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(wrong)?;
            if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong());
            }
            pointer.push('/');
            pointer.push_str(index);
            rest = after;
        }
    }
    Ok(pointer.into())
}

/// Whether a text is a number as JSON writes it.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

fn number(node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    match &node.kind {
        Kind::Scalar { quoted: true, .. } if is_json_number(text) => {
            Err(format!("{} is a text: write the number without quotes", quoted(text)))
        }
        _ if is_json_number(text) => Ok(text.into()),
        _ => Err(format!("{} is no number: write one like 100 or 0.5", quoted(text))),
    }
}

/// A value as JSON.
fn json_text(node: &Node) -> Result<Box<str>, String> {
    let mut out = String::new();
    write_json(node, &mut out)?;
    if out.len() > ASSERTION_TEXT_MAX {
        return Err(format!("is {} bytes long: at most {ASSERTION_TEXT_MAX}", out.len()));
    }
    Ok(out.into())
}

fn write_json(node: &Node, out: &mut String) -> Result<(), String> {
    if out.len() > ASSERTION_TEXT_MAX {
        return Ok(());
    }
    match &node.kind {
        Kind::Broken => return Err(String::new()),
        Kind::Scalar { text, quoted: true } => out.push_str(&json_string(text)),
        Kind::Scalar { text, .. } => match &**text {
            "" => return Err("has no value: write null for JSON's null, or \"\" for an empty text".to_owned()),
            _ if node.is_null() => out.push_str("null"),
            "true" | "True" | "TRUE" => out.push_str("true"),
            "false" | "False" | "FALSE" => out.push_str("false"),
            text if is_json_number(text) => out.push_str(text),
            text if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
                && text.parse::<f64>().is_ok() =>
            {
                let shown = quoted(text);
                return Err(format!("{shown} is no number of JSON: write it like 0.5, or in quotes if it is a text"));
            }
            text => out.push_str(&json_string(text)),
        },
        Kind::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_json(item, out)?;
            }
            out.push(']');
        }
        Kind::Map(entries) => {
            out.push('{');
            for (at, entry) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&json_string(&entry.key));
                out.push(':');
                write_json(&entry.value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_pointers() {
        for (text, expected) in [
            ("", Ok("")),
            ("/", Ok("/")),
            ("/a/b~1c", Ok("/a/b~1c")),
            ("status", Ok("/status")),
            ("$.queue.depth", Ok("/queue/depth")),
            ("$", Ok("")),
            ("items[0].id", Ok("/items/0/id")),
            ("[1][2]", Ok("/1/2")),
            ("a~b.c/d", Ok("/a~0b/c~1d")),
            ("/a~2", Err("\"/a~2\" has a \"~\"")),
            ("a..b", Err("\"a..b\" is no path")),
            ("a.", Err("\"a.\" is no path")),
            ("a[x]", Err("\"a[x]\" is no path")),
            ("a[1", Err("\"a[1\" is no path")),
            ("a.[1]", Err("\"a.[1]\" is no path")),
        ] {
            match (pointer(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(&*found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
