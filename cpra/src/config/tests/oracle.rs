//! The library `serde_yaml` as the oracle of the streaming reader: what the reader takes without an error, the library
//! takes too, and reads alike. The other direction is not asked for: the reader may be stricter.
//!
//! A text is written from a tape of bytes (zeros give the plainest text, so that a failure shrinks to one), in every
//! style YAML has, and then changed in up to three places. What the library makes of it is a `Value`; the monitor is
//! taken out of that here, a second time, by rules of this file's own.

use std::io::Cursor;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_yaml::Value;

use super::*;
use crate::config::address;
use crate::config::monitors::{read_cut, read_from};
use crate::domain::{Check, StatusSet, Target};

type Justified = (&'static str, fn(&str) -> bool, &'static str);

/// The differences that are the library's, or of no meaning. Everything else is a defect of the reader.
///
/// - A byte order mark at the file's beginning: the library counts it as a column of the first line, and is given the
///   text without it.
/// - `<<`: the library leaves it to the caller, and its `apply_merge` leaves out what a merged map merges. Merges are
///   done in [`entries`].
/// - A number or a boolean where a text is wanted (`name: 1.10`): the text as written, see [`is_text`]. `Value` keeps
///   no spelling; to a field of type `String` the library gives the same text.
/// - YAML 1.1 booleans (`yes`, `on`) and octal or sexagesimal numbers: none, the library reads 1.2 in this as well.
/// - These rows: a part of the library's message, whether the text from the place it names on shows the case, and the
///   reason.
const JUSTIFIED: [Justified; 2] = [
    (
        "did not find expected ',' or",
        |from| from.starts_with(':'),
        "in brackets, the \":\" on the line behind its key: YAML 1.2 has it, the library knows 1.1, and it has one meaning",
    ),
    (
        "found unexpected ':'",
        |from| [":,", ":]", ":}"].iter().any(|end| from.starts_with(end)),
        "in brackets, a key with nothing behind its \":\": the same, where the key itself has a \":\" in it",
    ),
];

// ---- What the library says --------------------------------------------------------------------------------------

/// A map's entries with those that `<<` brings, which the map's own go before. The library's `apply_merge` leaves the
/// merges of a merged map undone, and is therefore not asked.
fn entries(map: &Value) -> Result<Vec<Entry<'_>>, String> {
    let map = match map {
        Value::Null => return Ok(Vec::new()),
        Value::Mapping(map) => map,
        other => return Err(format!("{other:?} is no map")),
    };
    let mut found = Vec::new();
    let mut merged = Vec::new();
    for (key, value) in map {
        match (key.as_str(), value) {
            (Some("<<"), Value::Sequence(sources)) => {
                for source in sources {
                    merged.extend(entries(source)?);
                }
            }
            (Some("<<"), Value::Null) => return Err("nothing is merged".to_owned()),
            (Some("<<"), source) => merged.extend(entries(source)?),
            _ => found.push(Entry { key, value, merged: false }),
        }
    }
    for entry in merged {
        if !found.iter().any(|known| known.key == entry.key) {
            found.push(Entry { merged: true, ..entry });
        }
    }
    Ok(found)
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    key: &'a Value,
    value: &'a Value,
    merged: bool,
}

/// A map and the defaults behind it.
#[derive(Default)]
struct Layers<'a> {
    own: Vec<Entry<'a>>,
    defaults: Vec<Entry<'a>>,
}

fn pick<'a>(entries: &[Entry<'a>], names: &[&str]) -> Option<&'a Value> {
    let mut named = entries.iter().filter(|entry| entry.key.as_str().is_some_and(|key| names.contains(&key)));
    let first = named.next()?;
    Some(if first.merged { named.find(|entry| !entry.merged).unwrap_or(first) } else { first }.value)
}

impl<'a> Layers<'a> {
    fn get(&self, names: &[&str]) -> Option<&'a Value> {
        pick(&self.own, names).or_else(|| pick(&self.defaults, names))
    }

    fn below(&self, names: &[&str]) -> Result<Self, String> {
        let layer = |of: &[Entry<'a>]| pick(of, names).map_or(Ok(Vec::new()), entries);
        Ok(Self { own: layer(&self.own)?, defaults: layer(&self.defaults)? })
    }

    fn required(&self, name: &str) -> Result<&'a Value, String> {
        self.get(&[name]).ok_or_else(|| format!("there is no {name}"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| format!("{name} {value:?} is no text"))
    }

    fn number(&self, names: &[&str], default: u64) -> Result<u64, String> {
        let Some(value) = self.get(names) else { return Ok(default) };
        value.as_u64().ok_or_else(|| format!("{} {value:?} is no whole number", names[0]))
    }

    fn boolean(&self, name: &str, default: bool) -> Result<bool, String> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| format!("{name} {value:?} is no boolean"))
    }
}

/// Whether `text` is what the library read. A number or a boolean where a text is wanted is the text as written (the
/// library gives the same to a field of type `String`): it has to be a spelling of that value.
fn is_text(text: &str, value: &Value) -> bool {
    match value {
        Value::String(read) => read == text,
        Value::Number(_) | Value::Bool(_) => serde_yaml::from_str::<Value>(text).is_ok_and(|read| read == *value),
        _ => false,
    }
}

/// One value, or a list of them.
fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Sequence(items) => items.iter().collect(),
        other => vec![other],
    }
}

/// `1m30s` in nanoseconds.
fn nanos(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = 0_u128;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_end = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
        let scale: u128 = match &behind[..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction = &fraction[..fraction.len().min(18)];
        let digits = format!("0{whole}{fraction}").parse::<u128>().ok()?;
        sum += digits * scale / 10_u128.pow(fraction.len() as u32);
        rest = &behind[unit_end..];
    }
    u64::try_from(sum).ok()
}

/// The monitors of a file and the defaults they stand on.
fn listed(file: &Value) -> Result<(Vec<&Value>, Vec<Entry<'_>>), String> {
    let none = Value::Null;
    let (list, defaults) = match file {
        Value::Mapping(map) => (map.get("monitors").unwrap_or(&Value::Null), map.get("defaults")),
        other => (other, None),
    };
    let list = match list {
        Value::Sequence(items) => items.iter().collect(),
        other if *other == none => Vec::new(),
        other => return Err(format!("{other:?} is no list")),
    };
    Ok((list, defaults.map_or(Ok(Vec::new()), entries)?))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, reader: T, library: T) -> Result<(), String> {
    let said = (reader, library);
    if said.0 == said.1 { Ok(()) } else { Err(format!("{what}: {:?}, and by the library {:?}", said.0, said.1)) }
}

/// Whether the reader's monitor is the one that the library's value describes.
fn compare(monitor: &Monitor, item: &Value, defaults: &[Entry<'_>]) -> Result<(), String> {
    let Value::Mapping(_) = item else { return Err(format!("{item:?} is no map")) };
    let top = Layers { own: entries(item)?, defaults: defaults.to_vec() };
    let alike = |what: &str, text: &str, value: &Value| {
        if is_text(text, value) { Ok(()) } else { Err(format!("{what}: {text:?}, and by the library {value:?}")) }
    };
    alike("name", &monitor.name, pick(&top.own, &["name"]).ok_or("there is no name")?)?;
    same("enabled", monitor.enabled, top.boolean("enabled", true)?)?;
    let pulse = top.below(&["pulse", "pulse_check"])?;
    let config = pulse.below(&["config"])?;
    let policy = &monitor.policy;

    let interval = nanos(pulse.text("interval")?).ok_or("interval is no duration")?;
    let timeout = nanos(pulse.text("timeout")?).ok_or("timeout is no duration")?;
    same("interval", policy.interval.as_nanos(), interval)?;
    same("timeout", policy.timeout.as_nanos(), timeout.min(interval))?;
    let retry = match pulse.get(&["retry_interval"]) {
        Some(value) => value.as_str().and_then(nanos).ok_or("retry_interval is no duration")?,
        None => interval,
    };
    same("retry_interval", policy.retry_interval.as_nanos(), retry)?;
    let unhealthy = pulse.number(&["unhealthy_threshold", "max_failures"], 3)?;
    same("unhealthy_threshold", u64::from(policy.unhealthy_threshold), unhealthy)?;
    same("healthy_threshold", u64::from(policy.healthy_threshold), pulse.number(&["healthy_threshold"], 2)?)?;
    same("retries", u64::from(policy.retries), config.number(&["retries"], 0)?)?;

    let mut groups: Vec<&Value> = Vec::new();
    for value in [&top, &pulse].into_iter().filter_map(|layers| layers.get(&["groups"])) {
        for group in items(value).into_iter().filter(|_| !value.is_null()) {
            groups.push(group);
        }
    }
    for group in &policy.groups {
        if !groups.iter().any(|value| is_text(group, value)) {
            return Err(format!("groups: {group:?} is not in {groups:?}"));
        }
    }
    for value in &groups {
        if !policy.groups.iter().any(|group| is_text(group, value)) {
            return Err(format!("groups: {value:?} is not in {:?}", policy.groups));
        }
    }

    let kind = pulse.text("type")?.to_ascii_lowercase();
    same("type", policy.check.kind().as_str(), &kind)?;
    let Check::Http(check) = &policy.check else {
        let port = config.number(&["port"], 0)?;
        same("port", u64::from(monitor.target.port), port)?;
        let host = match config.required("host")? {
            Value::String(host) => address::host(host)?,
            typed => {
                let read = monitor.target.host.clone();
                let crate::domain::Host::Name(name) = &read else { return Err(format!("host {typed:?}")) };
                alike("host", name, typed)?;
                read
            }
        };
        let target = Target { host, port: monitor.target.port, path: Box::default() };
        return same("target", &monitor.target, &target);
    };
    same("url", &monitor.target, &address::url(config.text("url")?)?.target)?;
    let method = config.get(&["method"]).map_or(Ok("GET"), |_| config.text("method"))?;
    same("method", &*check.method, &method.to_ascii_uppercase())?;
    same("keep_alive", check.keep_alive, config.boolean("keep_alive", false)?)?;
    match config.get(&["body"]) {
        Some(body) => alike("body", std::str::from_utf8(&check.body).map_err(|e| e.to_string())?, body)?,
        None => same("body", check.body.len(), 0)?,
    }
    let headers = config.below(&["headers"])?;
    let mut sent = check.headers.iter();
    for Entry { key, value, .. } in headers.own.iter().chain(&headers.defaults) {
        let is_sent = check.headers.iter().any(|(name, _)| key.as_str().is_some_and(|k| name.eq_ignore_ascii_case(k)));
        if headers.own.iter().any(|own| std::ptr::eq(own.value, *value)) || !is_sent {
            let Some((name, text)) = sent.next() else { return Err(format!("the header {key:?} is not sent")) };
            alike("a header's name", name, key)?;
            match value {
                Value::String(value) => same("a header", &**text, value.trim_matches([' ', '\t']))?,
                value => alike("a header", text, value)?,
            }
        } else if let Some(key) = key.as_str()
            && !headers.own.iter().any(|own| own.key.as_str().is_some_and(|own| own.eq_ignore_ascii_case(key)))
        {
            let Some((name, _)) = sent.next() else { return Err(format!("the header {key:?} is not sent")) };
            same("a header's name", &**name, key)?;
        }
    }
    same("headers", sent.next(), None)?;
    let expected = match config.get(&["expected_status"]) {
        None => StatusSet::success(),
        Some(value) => {
            let range = |item: &Value| match item {
                Value::Number(number) => number.as_u64().map(|status| (status as u16, status as u16)),
                Value::String(text) => {
                    let (low, high) = text.split_once('-').unwrap_or((text, text));
                    Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
                }
                _ => None,
            };
            StatusSet::new(items(value).into_iter().map(range).collect::<Option<_>>().ok_or("expected_status")?)
        }
    };
    same("expected_status", &check.expected, &expected)
}

/// What the reader and the library say of the same bytes; a difference is an error.
fn judge(bytes: &[u8]) -> Result<bool, String> {
    let mut monitors = Vec::new();
    let report = read_from("m.yaml", Cursor::new(bytes.to_vec()), &folders(), &mut |monitor| monitors.push(monitor));
    if !report.is_sound() {
        return Ok(false);
    }
    // The library counts a byte order mark as a column of the first line.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let file = match serde_yaml::from_slice::<Value>(bytes) {
        Ok(file) => file,
        Err(error) => {
            let from = error.location().and_then(|place| bytes.get(place.index()..)).unwrap_or_default();
            let from = String::from_utf8_lossy(from);
            let error = error.to_string();
            if JUSTIFIED.iter().any(|(part, is_shown, _)| error.contains(part) && is_shown(&from)) {
                return Ok(false);
            }
            return Err(format!("the library refuses it: {error}"));
        }
    };
    let (list, defaults) = listed(&file)?;
    same("monitors", monitors.len(), list.len())?;
    monitors.iter().zip(list).try_for_each(|(monitor, item)| compare(monitor, item, &defaults))?;
    Ok(true)
}

// ---- The texts --------------------------------------------------------------------------------------------------

/// Decides how a text is written. Behind its end everything is 0: the plainest there is.
struct Tape<'a> {
    bytes: &'a [u8],
    out: String,
    /// Labels of values that were given an anchor, with the key they stood behind.
    anchors: Vec<(&'static str, usize)>,
}

#[derive(Clone)]
enum Tree {
    Scalar(String),
    List(Vec<Tree>),
    Map(Vec<(&'static str, Tree)>),
}

impl Tape<'_> {
    fn below(&mut self, count: usize) -> usize {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(first) % count
    }

    /// Seldom: once in about `one_in`.
    fn odd(&mut self, one_in: usize) -> bool {
        let last = 256 / one_in;
        let Some((&first, rest)) = self.bytes.split_first() else { return false };
        self.bytes = rest;
        usize::from(first) >= 256 - last
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// The first in most cases.
    fn usual<T: Copy>(&mut self, one_in: usize, of: &[T]) -> T {
        if self.odd(one_in) { self.one(of) } else { of[0] }
    }

    // ---- What is said

    fn text(&mut self) -> Tree {
        let text = self.one(&[
            "x",
            "shop/web",
            "a b",
            "1.10",
            "0x1F",
            "007",
            "1e3",
            "true",
            "no",
            "Off",
            "null",
            "~",
            "é",
            "日本",
            "a: b",
            "a:b",
            "a #b",
            "a#b",
            "- a",
            "-a",
            "?a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">a",
            "'a",
            "\"a",
            "it's",
            "a\"b",
            "a\\b",
            "a,b",
            "[a]",
            "{a}",
            "a]",
            " a",
            "a ",
            "",
            "\u{85}",
            "a\u{2028}b",
            "a\u{a0}b",
            "\u{feff}a",
            "a\u{200b}",
            "😀",
            "\t",
            "a\tb",
            "one\ntwo",
            "one\n two\n\nthree\n",
            "\n",
            "  indented\nback\n",
            "end\n\n",
            "# no comment",
            "key: value",
            "<<",
            "=",
            ".5",
            "+1",
            "-0",
            ".inf",
            "1_000",
            "12:30:45",
            "2024-01-01",
            "0o17",
            "0b1",
            "---",
            "...",
            "- ",
            ": ",
            ":",
            "?",
            "-",
            "\u{7f}",
            "\u{9f}",
            "\u{fffe}",
        ]);
        Tree::Scalar(text.to_owned())
    }

    fn number(&mut self, usual: &[&str]) -> Tree {
        let pool = ["010", "1.0", "+1", "0x1", "1_0", "1e0", "", "~", "\"1\"", "-1", "0o7", "١", "1 ", "00", "0"];
        Tree::Scalar(if self.odd(20) { self.one(&pool) } else { self.one(usual) }.to_owned())
    }

    fn span(&mut self) -> Tree {
        Tree::Scalar(
            self.usual(
                4,
                &[
                    "10s", "1m30s", "250ms", "1.5h", "100us", ".5s", "5.s", "+2s", "0", "30", "1s1s", "1d", "1e3",
                    "1_0s", "1 s", "9µs",
                ],
            )
            .to_owned(),
        )
    }

    fn boolean(&mut self) -> Tree {
        let pool = [
            "true",
            "false",
            "True",
            "FALSE",
            "tRue",
            "yes",
            "no",
            "On",
            "off",
            "y",
            "1",
            "~",
            "\"true\"",
            "!!bool true",
        ];
        Tree::Scalar(self.usual(3, &pool).to_owned())
    }

    fn pulse(&mut self, whole: bool) -> Tree {
        let is_http = !self.odd(3);
        let mut config = Vec::new();
        if is_http {
            if whole || self.odd(2) {
                let url = self.usual(
                    2,
                    &[
                        "http://h/",
                        "http://h:81/a?b=c",
                        "HTTP://H.",
                        "http://[::1]/#x",
                        "http://10.0.0.1/{}",
                        "http://h/é",
                        "http://h/,a",
                        "http://h/*&!|>'\"",
                    ],
                );
                config.push(("url", Tree::Scalar(url.to_owned())));
            }
            if self.odd(4) {
                config.push(("body", self.text()));
            }
            if self.odd(4) {
                let headers = [("X-A", self.text()), ("X-B", self.text())];
                config.push(("headers", Tree::Map(headers.into())));
            }
            if self.odd(6) {
                let (one, other) = (self.number(&["200", "204"]), self.number(&["200-299", "300 - 399"]));
                config.push(("expected_status", if self.odd(2) { one } else { Tree::List(vec![one, other]) }));
            }
            if self.odd(6) {
                config.push(("method", Tree::Scalar(self.one(&["GET", "post", "~"]).to_owned())));
            }
            if self.odd(6) {
                config.push(("keep_alive", self.boolean()));
            }
        } else {
            config.push((
                "host",
                Tree::Scalar(
                    self.usual(2, &["h", "db.internal", "10.0.0.1", "10.0.0.1.", "::1", "1e3", "True", "x.1"])
                        .to_owned(),
                ),
            ));
            config.push(("port", self.number(&["1", "80", "65535"])));
        }
        if self.odd(6) {
            config.push(("retries", self.number(&["1", "0", "10"])));
        }
        let mut pulse = vec![(
            "type",
            Tree::Scalar(if is_http { self.usual(4, &["http", "HTTP", "Http"]) } else { "tcp" }.to_owned()),
        )];
        if whole || self.odd(2) {
            pulse.extend([("interval", self.span()), ("timeout", self.span())]);
        }
        for (key, one_in) in [("unhealthy_threshold", 6), ("max_failures", 8), ("healthy_threshold", 6)] {
            if self.odd(one_in) {
                pulse.push((key, self.number(&["1", "2", "3"])));
            }
        }
        if self.odd(8) {
            pulse.push(("retry_interval", self.span()));
        }
        pulse.push(("config", Tree::Map(config)));
        Tree::Map(pulse)
    }

    fn monitor(&mut self, number: usize, whole: bool) -> Tree {
        let name = if self.odd(4) { self.text() } else { Tree::Scalar(format!("m{number}")) };
        let mut monitor = vec![("name", name)];
        if self.odd(4) {
            monitor.push(("enabled", self.boolean()));
        }
        if self.odd(4) {
            let groups = [self.text(), self.text()];
            monitor.push(("groups", if self.odd(3) { self.text() } else { Tree::List(groups.into()) }));
        }
        monitor.push((self.usual(8, &["pulse", "pulse_check"]), self.pulse(whole)));
        Tree::Map(monitor)
    }

    // ---- How it is written

    fn indent(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    /// The end of a line, with what may stand behind it and between it and the next.
    fn end_line(&mut self) {
        if self.odd(32) {
            let end = self.one(&[" # a comment", " ", "\t", "\t# x", "#x", " #"]);
            self.out.push_str(end);
        }
        let end = if self.odd(64) { "\r\n" } else { "\n" };
        self.out.push_str(end);
        if self.odd(50) {
            let line = self.one(&[
                "\n",
                "  \n",
                "# a comment\n",
                "      # far in\n",
                "\t\n",
                "\r\n",
                "\t# x\n",
                "---\n",
                "...\n",
            ]);
            self.out.push_str(line);
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, flow: bool) {
        // Most texts that need quotes get some.
        let style = if self.odd(3) {
            self.usual(4, &[1, 2, 3, 4, 5, 6, 7, 0])
        } else if text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '+'))
            && !text.contains([' ', '\n', '\t'])
        {
            0
        } else {
            self.below(if flow { 4 } else { 6 })
        };
        let breaks = |out: &mut String| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent + 1));
        };
        match style {
            1 => self.out.push_str(&format!("'{}'", text.replace('\'', "''"))),
            2 => {
                let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
                self.out.push_str(&format!("\"{escaped}\""));
            }
            3 => {
                self.out.push('"');
                for character in text.chars() {
                    match self.below(24) {
                        0..12 if character != '"' && character != '\\' && character != '\n' => self.out.push(character),
                        12 => {
                            self.out.push_str("\\\n");
                            self.indent(indent + 1);
                            self.out.push_str(&format!("\\U{:08X}", u32::from(character)));
                        }
                        13..16 if u32::from(character) < 256 => {
                            self.out.push_str(&format!("\\x{:02x}", u32::from(character)));
                        }
                        16 => {
                            let escape = self
                                .one(&["\\\\", "\\\"", "\\/", "\\t", "\\e", "\\_", "\\N", "\\L", "\\ ", "\\0", "\\d"]);
                            self.out.push_str(escape);
                        }
                        _ if u32::from(character) > 0xffff => self.out.push(character),
                        _ => self.out.push_str(&format!("\\u{:04x}", u32::from(character))),
                    }
                }
                self.out.push('"');
            }
            4 | 5 if !flow => {
                self.out.push(if style == 4 { '|' } else { '>' });
                let head = self.one(&["", "-", "+", "2", "2-", "+1", "-9", "0", " # x", " x"]);
                self.out.push_str(head);
                let deeper = self.one(&[2, 1, 3, 0]);
                for line in text.split('\n') {
                    self.out.push('\n');
                    self.indent(indent + deeper);
                    self.out.push_str(line);
                }
            }
            6 => {
                // Over several lines.
                let quote = self.one(&["\"", "'", ""]);
                self.out.push_str(quote);
                for (at, word) in text.split([' ', '\n']).enumerate() {
                    if at > 0 || self.odd(8) {
                        breaks(&mut self.out);
                    }
                    self.out.push_str(word);
                }
                self.out.push_str(quote);
            }
            7 => {
                let tag = self.one(&[
                    "!!str ",
                    "!!int ",
                    "!x ",
                    "! ",
                    "!<tag:yaml.org,2002:str> ",
                    "!!null ",
                    "!!str",
                    "!e!x ",
                ]);
                self.out.push_str(tag);
                self.out.push_str(text);
            }
            _ => self.out.push_str(text),
        }
    }

    /// What stands behind a key or a `-`; `inline` says whether a map may begin on this line.
    fn value(&mut self, key: &'static str, tree: &Tree, indent: usize, inline: bool) {
        if self.odd(24)
            && let Some(&(_, label)) = self.anchors.iter().find(|(of, _)| *of == key)
        {
            self.out.push_str(&format!(" *a{label}"));
            return self.end_line();
        }
        let anchored = self.odd(24);
        if anchored {
            let label = self.anchors.len();
            self.out.push_str(&format!(" &a{label}"));
            self.anchors.push((key, label));
        }
        if self.odd(100) {
            let tag = self.one(&[" !!map", " !!seq", " !x", " !!str", " !"]);
            self.out.push_str(tag);
        }
        match tree {
            Tree::Scalar(text) => {
                let space = self.usual(50, &[" ", "  ", "\t", "", " \t", "\n  "]);
                self.out.push_str(space);
                self.scalar(text, indent, false);
                self.end_line();
            }
            _ if self.odd(5) => {
                self.out.push(' ');
                self.flow(tree, indent);
                self.end_line();
            }
            Tree::Map(map) => {
                let deeper = indent + self.usual(6, &[2, 1, 4, 3]);
                let inline = inline && !anchored && !self.odd(8);
                if inline {
                    self.indent(deeper - indent - 1);
                } else {
                    self.end_line();
                }
                self.map(map, deeper, inline, key);
            }
            Tree::List(list) => {
                let deeper = indent + self.usual(2, &[2, 0, 1]);
                self.end_line();
                for item in list {
                    self.item(item, deeper);
                }
            }
        }
    }

    fn item(&mut self, item: &Tree, indent: usize) {
        self.indent(indent);
        self.out.push('-');
        self.value("-", item, indent, true);
    }

    fn map(&mut self, map: &[(&'static str, Tree)], indent: usize, mut inline: bool, of: &'static str) {
        if self.odd(16)
            && let Some(&(_, label)) = self.anchors.iter().find(|(key, _)| *key == of)
        {
            if !std::mem::take(&mut inline) {
                self.indent(indent);
            }
            let merge = self.usual(4, &["<<: *", "<<: [*", "\"<<\": *", "<< : *"]);
            self.out.push_str(&format!("{merge}a{label}{}", if merge.contains('[') { "]" } else { "" }));
            self.end_line();
        }
        for (key, value) in map {
            let times = if self.odd(200) { 2 } else { 1 };
            for _ in 0..times {
                if self.odd(200) {
                    continue;
                }
                if !std::mem::take(&mut inline) {
                    self.indent(indent);
                }
                match self.usual(24, &[0, 1, 2, 3, 4, 5]) {
                    0 => self.out.push_str(&format!("{key}:")),
                    1 => self.out.push_str(&format!("\"{key}\":")),
                    2 => self.out.push_str(&format!("'{key}' :")),
                    3 => {
                        self.out.push_str(&format!("? {key}\n"));
                        self.indent(indent);
                        self.out.push(':');
                    }
                    4 => self.out.push_str(&format!("!!str {key}:")),
                    _ => self.out.push_str(&format!("{key}\t:")),
                }
                self.value(key, value, indent, false);
            }
        }
        if map.is_empty() {
            self.indent(indent);
            self.out.push_str("{}\n");
        }
    }

    fn flow(&mut self, tree: &Tree, indent: usize) {
        let gap = |tape: &mut Self| {
            let gap = tape.usual(12, &["", " ", "\n      ", "\n", "\t", " # c\n      ", "\r\n         "]);
            tape.out.push_str(gap);
        };
        match tree {
            Tree::Scalar(text) => self.scalar(text, indent, true),
            Tree::List(list) => {
                self.out.push('[');
                for (at, item) in list.iter().enumerate() {
                    self.out.push_str(if at > 0 { ", " } else { "" });
                    gap(self);
                    self.flow(item, indent);
                }
                gap(self);
                if self.odd(12) {
                    self.out.push(',');
                }
                self.out.push(']');
            }
            Tree::Map(map) => {
                self.out.push('{');
                for (at, (key, value)) in map.iter().enumerate() {
                    self.out.push_str(if at > 0 { "," } else { "" });
                    gap(self);
                    let written = match self.usual(12, &[0, 1, 2, 3]) {
                        0 => format!("{key}: "),
                        1 => format!("\"{key}\":"),
                        2 => format!("? {key} : "),
                        _ => format!("'{key}' :"),
                    };
                    self.out.push_str(&written);
                    gap(self);
                    self.flow(value, indent);
                }
                gap(self);
                if self.odd(12) {
                    self.out.push(',');
                }
                self.out.push('}');
            }
        }
    }

    fn file(&mut self) {
        if self.odd(12) {
            let head = self.one(&[
                "---\n",
                "%YAML 1.2\n---\n",
                "--- # x\n",
                "# x\n---\n",
                "\u{feff}",
                "%YAML 1.1\n---\n",
                "%TAG ! tag:a,2000:\n---\n",
                "\n\n",
                "--- ",
                "...\n",
                "%X\n---\n",
                "---\t",
            ]);
            self.out.push_str(head);
        }
        let count = self.usual(2, &[1, 2, 3, 0]);
        let with_map = self.odd(2);
        let with_defaults = with_map && self.odd(2);
        let monitors: Vec<Tree> = (0..count).map(|number| self.monitor(number, !with_defaults)).collect();
        if with_map {
            let mut map = Vec::new();
            if self.odd(4) {
                let more = if self.odd(2) { self.pulse(true) } else { self.text() };
                map.push(("x-more", more));
            }
            if with_defaults {
                let mut defaults = vec![("pulse", self.pulse(true))];
                if self.odd(4) {
                    defaults.push(("enabled", self.boolean()));
                }
                map.push(("defaults", Tree::Map(defaults)));
            }
            map.push(("monitors", Tree::List(monitors)));
            if self.odd(4) {
                map.push(("x-after", self.text()));
            }
            if self.odd(30) {
                map.push(("defaults", Tree::Map(Vec::new())));
            }
            if self.odd(8) {
                let map = Tree::Map(map);
                self.flow(&map, 0);
            } else {
                self.map(&map, 0, false, "");
            }
        } else if self.odd(8) {
            self.flow(&Tree::List(monitors), 0);
        } else {
            let indent = self.usual(8, &[0, 2, 1]);
            for monitor in monitors {
                self.item(&monitor, indent);
            }
        }
        if self.odd(16) {
            let foot = self.one(&[
                "...\n",
                "---\n",
                "# end",
                "...",
                "--- x\n",
                "... # x\n",
                "\t",
                "  ",
                "...\n# x\n",
                "...\n---\n",
                "...\nx",
                "\u{feff}",
                "]",
            ]);
            self.out.push_str(foot);
        }
    }
}

fn written(tape: &[u8]) -> Vec<u8> {
    let mut tape = Tape { bytes: tape, out: String::new(), anchors: Vec::new() };
    tape.file();
    let crlf = tape.odd(16);
    if crlf { tape.out.replace('\n', "\r\n").into_bytes() } else { tape.out.into_bytes() }
}

/// What a mutation writes: single bytes that mean something, and characters of two and three bytes.
const PIECES: [&str; 64] = [
    "", " ", "\n", "\t", "\r", ":", ": ", "- ", "-", "#", " #", "\"", "'", "\\", ",", "[", "]", "{", "}", "?", "? ",
    "|", ">", "!", "!!", "&", "&a ", "*", "*a", "%", "@", "`", "~", "<<", "0", "1", "x", "é", "\u{85}", "\u{a0}",
    "\u{2028}", "\u{2029}", "\u{feff}", "\u{7f}", "\0", "\x0b", "\x0c", "\u{80}", "\u{ffff}", "\r\n", "\n\n", "\n ",
    "\n-", "---", "...", ": |", "''", "\"\"", "\\n", "+", ".", "_", "=", "/",
];

/// Replaces, inserts or removes, up to three bytes.
fn mutate(bytes: &mut Vec<u8>, at: u16, what: u8) {
    let at = usize::from(at) % (bytes.len() + 1);
    let piece = PIECES[usize::from(what) % PIECES.len()].as_bytes();
    let end = match what / 64 {
        0 | 1 => (at + 1).min(bytes.len()),
        2 => at,
        _ => (at + piece.len()).min(bytes.len()),
    };
    bytes.splice(at..end, piece.iter().copied());
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    judge(bytes).map(drop).map_err(|difference| {
        TestCaseError::fail(format!(
            "{difference}\n{}\n{:?}",
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(bytes)
        ))
    })
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let mutation = (any::<u16>(), any::<u8>());
    let mutations = prop_oneof![Just(Vec::new()), prop::collection::vec(mutation, 1..4)];
    (prop::collection::vec(any::<u8>(), 0..120), mutations).prop_map(|(tape, mutations)| {
        let mut bytes = written(&tape);
        for (at, what) in mutations {
            mutate(&mut bytes, at, what);
        }
        bytes
    })
}

/// `PROPTEST_CASES` goes before.
fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: usual, ..config } }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn the_reader_takes_nothing_that_the_library_refuses_or_reads_differently(bytes in texts()) {
        check(&bytes)?;
    }
}

/// Both ways to read a file, by what they give out and what they say; whether the text could be cut.
fn cut_and_whole(bytes: &[u8]) -> Result<bool, String> {
    let (mut cut, mut whole) = (Vec::new(), Vec::new());
    let Some(by_cut) = read_cut("m.yaml", bytes, &folders(), &mut |monitor| cut.push(monitor)) else {
        return Ok(false);
    };
    let report = read_from("m.yaml", Cursor::new(bytes.to_vec()), &folders(), &mut |monitor| whole.push(monitor));
    let [by_cut_said, said] =
        [&by_cut, &report].map(|report| report.diagnostics.iter().map(ToString::to_string).collect());
    let (by_cut_said, said): (Vec<String>, Vec<String>) = (by_cut_said, said);
    // Behind text that is broken, a cut finds the next item where the stream may have lost it: so it says more, and may
    // count the item that a fault is in.
    let place = |one: &str| one.splitn(4, ':').take(3).collect::<Vec<_>>().join(":");
    let places: Vec<String> = by_cut_said.iter().map(|one| place(one)).collect();
    if let Some(unsaid) = said.iter().find(|one| !places.contains(&place(one))) {
        return Err(format!("not said of the text that was cut: {unsaid}\n{by_cut_said:?}"));
    }
    same("soundness", by_cut.is_sound(), report.is_sound())?;
    if report.is_sound() {
        same("said", by_cut_said, said)?;
        same("bytes", by_cut.bytes, report.bytes)?;
        same("monitors", cut, whole)?;
    }
    Ok(true)
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn a_file_that_is_cut_is_read_as_if_it_were_not(bytes in texts()) {
        cut_and_whole(&bytes).map_err(|difference| {
            TestCaseError::fail(format!("{difference}\n{}\n{:?}", String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&bytes)))
        })?;
    }
}

#[test]
fn many_of_the_texts_can_be_cut() {
    let mut runner = TestRunner::deterministic();
    let texts: Vec<_> = (0..1_000).map(|_| texts().new_tree(&mut runner).expect("a text").current()).collect();
    let cut = texts.iter().filter(|bytes| cut_and_whole(bytes) == Ok(true)).count();
    assert!(cut > 100, "{cut} of {} texts can be cut", texts.len());
}

/// A text that the reader refuses proves nothing: enough of them have to be sound.
#[test]
fn many_of_the_texts_are_sound() {
    let mut runner = TestRunner::deterministic();
    let texts: Vec<_> = (0..1_000).map(|_| texts().new_tree(&mut runner).expect("a text").current()).collect();
    let sound = texts.iter().filter(|bytes| judge(bytes) == Ok(true)).count();
    assert!(sound > 100, "{sound} of {} texts are sound", texts.len());
}
