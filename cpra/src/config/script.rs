//! The rules of a script check, and of the command of a script that repairs: a program and its arguments, no shell.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path, PathBuf};

use super::check::{Sound, retries};
use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Kind, Node};
use super::section::{Field, Keys, Section};
use super::value;
use crate::domain::monitor::ScriptCheck;
use crate::domain::{Check, Host, Target};
use crate::units::limits::{SCRIPT_ARGUMENTS_MAX, SCRIPT_TEXT_MAX};

pub(super) const KEYS: Keys<'static> = Keys {
    known: &["command", "path", "script", "args", "env", "cwd", "retries", "max_latency"],
    without_effect: &[],
    refused: &[],
};

/// The names of the program; `command` may hold its arguments as well.
const PROGRAM: [&str; 3] = ["command", "path", "script"];

/// What a shell would act on.
const SHELL: [char; 18] = ['$', '`', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', ']', '{', '}', '~', '#', '\n'];

pub(super) fn script(config: &Section<'_>, findings: &mut Findings) -> Option<Sound> {
    config.check_keys(findings, KEYS);
    let argv = argv(config, findings);
    let env = env(config, findings);
    let cwd = config.value(findings, &["cwd"], absolute);
    let retries = retries(config, findings);
    let check = Check::Script(ScriptCheck { argv: argv?.into(), env: env.into(), cwd });
    // Nothing is dialled: an address, so that no name is looked up.
    let host = Host::Literal(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(Sound { check, target: Target { host, port: 0, path: Box::default() }, retries })
}

/// The program and its arguments.
pub(super) fn argv(config: &Section<'_>, findings: &mut Findings) -> Option<Vec<Box<str>>> {
    let before = findings.0.len();
    let Some(field) = config.find(findings, &PROGRAM) else {
        config.missing(findings, "command", "add \"command: [/path/to/program, argument]\" to config");
        return None;
    };
    let mut argv: Vec<Box<str>> = if matches!(field.value.kind, Kind::List(_)) {
        config.list(findings, &[field.key], SCRIPT_ARGUMENTS_MAX, argument)?
    } else if field.key == "command" {
        config.value(findings, &["command"], |node| words(value::text(node)?))?
    } else {
        // In the original a path; it may hold spaces.
        vec![config.value(findings, &[field.key], |node| value::line(4096)(node).map(Box::from))?]
    };
    if let Some(args) = config.find(findings, &["args"])
        && !is_empty_list(&args)
        && let Some(more) = config.list(findings, &["args"], SCRIPT_ARGUMENTS_MAX, argument)
    {
        argv.extend(more);
    }
    let mut refuse = |message: String| findings.0.push(field.finding(Severity::Error, field.value.at, message));
    match argv.first().map(|program| is_absolute(program)) {
        Some(Err(message)) => refuse(format!("{} {message}", field.key)),
        None => return None,
        Some(Ok(())) => {}
    }
    if argv.len() > SCRIPT_ARGUMENTS_MAX || argv.iter().map(|word| word.len() + 1).sum::<usize>() > SCRIPT_TEXT_MAX {
        refuse(format!(
            "{} is too long: at most {SCRIPT_ARGUMENTS_MAX} arguments of {SCRIPT_TEXT_MAX} bytes together",
            field.key
        ));
    }
    (findings.0[before..].iter().all(|finding| finding.severity != Severity::Error)).then_some(argv)
}

fn is_empty_list(field: &Field<'_>) -> bool {
    matches!(&field.value.kind, Kind::List(items) if items.is_empty()) || field.value.is_null()
}

/// One argument: any text but a NUL, which would end it.
pub(super) fn argument(node: &Node) -> Result<Box<str>, String> {
    if let Kind::Scalar { text, .. } = &node.kind
        && text.is_empty()
        && !node.is_null()
    {
        return Ok(Box::default());
    }
    let text = value::text(node)?;
    if text.contains('\0') { Err("contains a NUL character: remove it".to_owned()) } else { Ok(text.into()) }
}

/// A command line taken apart as a shell does it, as long as a shell would do nothing else.
fn words(text: &str) -> Result<Vec<Box<str>>, String> {
    let refused = |found: char| {
        let found = if found == '\n' { "a line break".to_owned() } else { quoted(&found.to_string()) };
        format!(
            "contains {found}, which only a shell understands, and none is started: write command: [/bin/sh, -c, \"...\"]"
        )
    };
    let mut words: Vec<Box<str>> = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(found) = rest.next() {
        match found {
            ' ' | '\t' => words.extend(word.take().map(String::into_boxed_str)),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(other) => word.push(other),
                        None => return Err("has a quote (') that does not end: add the second one".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("ends with a backslash: remove it".to_owned()),
                        },
                        Some(shell @ ('$' | '`')) => return Err(refused(shell)),
                        Some(other) => word.push(other),
                        None => return Err("has a quote (\") that does not end: add the second one".to_owned()),
                    }
                }
            }
            '\\' => match rest.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("ends with a backslash: remove it".to_owned()),
            },
            '\0' => return Err("contains a NUL character: remove it".to_owned()),
            // Within a word these are text to a shell, too.
            '~' | '#' if word.is_some() => word.get_or_insert_default().push(found),
            shell if SHELL.contains(&shell) => return Err(refused(shell)),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word.map(String::into_boxed_str));
    if words.is_empty() { Err("is empty: write a program".to_owned()) } else { Ok(words) }
}

fn is_absolute(path: &str) -> Result<(), String> {
    let shown = || quoted(path);
    let written = Path::new(path);
    if !written.is_absolute() {
        let remedy = match path.rsplit('/').next() {
            Some(name @ ("sh" | "bash" | "env")) => format!("write /bin/{name}"),
            _ => "write the whole path, like /usr/lib/nagios/plugins/check_disk".to_owned(),
        };
        return Err(format!("{} is not absolute: {remedy}", shown()));
    }
    if written.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{} climbs with \"..\": write the path without it", shown()));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(format!("{} is no file: write the path of a program", shown()));
    }
    Ok(())
}

fn absolute(node: &Node) -> Result<PathBuf, String> {
    let text = value::line(4096)(node)?;
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{} is not absolute: write the whole path, without \"..\"", quoted(text)));
    }
    Ok(path.to_owned())
}

/// Variables, sorted by name. Their values are not shown in messages: that is where people put passwords.
pub(super) fn env(config: &Section<'_>, findings: &mut Findings) -> Vec<(Box<str>, Box<str>)> {
    let mut env: Vec<(Box<str>, Box<str>)> = Vec::new();
    let Some(section) = config.section(findings, &["env"]) else { return env };
    let mut size = 0;
    for field in section.fields() {
        let mut refuse = |at, message: String| findings.0.push(field.finding(Severity::Error, at, message));
        if let Some(message) = variable_fault(field.key) {
            refuse(field.at, message);
            continue;
        }
        match argument(field.value) {
            Ok(value) => {
                size += field.key.len() + value.len() + 2;
                env.push((field.key.into(), value));
            }
            Err(message) => refuse(field.value.at, format!("the variable {} {message}", field.key)),
        }
        if env.len() > SCRIPT_ARGUMENTS_MAX || size > SCRIPT_TEXT_MAX {
            let message = format!(
                "env is too long: at most {SCRIPT_ARGUMENTS_MAX} variables of {SCRIPT_TEXT_MAX} bytes together"
            );
            findings.0.push(field.finding(Severity::Error, field.at, message));
            break;
        }
    }
    env.sort_unstable();
    env
}

pub(super) fn variable_fault(name: &str) -> Option<String> {
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (!is_name).then(|| format!("{} is no name of a variable: use letters, digits and \"_\"", quoted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn command_lines_come_apart_without_a_shell() {
        for (text, expected) in [
            ("/bin/true", Ok(vec!["/bin/true"])),
            ("/bin/a  -w 80% \t-c 'x y'", Ok(vec!["/bin/a", "-w", "80%", "-c", "x y"])),
            (r#"/bin/a "b \"c\" \d" '' e\ f"#, Ok(vec!["/bin/a", "b \"c\" \\d", "", "e f"])),
            ("/bin/a 'it is $5; really | yes'", Ok(vec!["/bin/a", "it is $5; really | yes"])),
            ("/bin/a a#b x~", Ok(vec!["/bin/a", "a#b", "x~"])),
            ("/bin/a | grep b", Err("contains \"|\", which only a shell understands")),
            ("/bin/a \"$HOME\"", Err("contains \"$\", which only a shell understands")),
            ("/bin/a > /tmp/x", Err("contains \">\"")),
            ("/bin/a *.log", Err("contains \"*\"")),
            ("~/a", Err("contains \"~\"")),
            ("/bin/a # comment", Err("contains \"#\"")),
            ("/bin/a\n/bin/b", Err("contains a line break")),
            ("/bin/a 'b", Err("has a quote (') that does not end")),
            ("/bin/a \"b", Err("has a quote (\") that does not end")),
            ("/bin/a \\", Err("ends with a backslash")),
            ("  ", Err("is empty")),
        ] {
            match (words(text), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.iter().map(|w| &**w).collect::<Vec<_>>(), expected, "{text}");
                }
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_command_line_is_answered(text in "[\\PC\\s'\"\\\\]{0,60}") {
            if let Ok(words) = words(&text) {
                prop_assert!(!words.is_empty());
            }
        }
    }
}
