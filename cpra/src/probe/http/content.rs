//! What an answer has to be beside its status: the assertions over head and body.
//!
//! The body is kept only where an assertion (or the evidence of a failure) needs it, decompressed as it comes, and
//! never beyond its bound: at most that much is kept and at most that much is decompressed, however much a few bytes
//! of gzip promise to become. It is read as UTF-8; what is not is replaced.

use std::borrow::Cow;
use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use serde_json::{Number, Value};

use crate::domain::monitor::{Assertion, HeaderRule, JsonRule};
use crate::domain::outcome::bounded_text;
use crate::wire::http::Fields;

/// What a reason shows of a value, and of a body.
const SHOWN: usize = 64;
const SHOWN_BODY: usize = 120;

/// The start of a body, at most so much of it, without its compression.
#[derive(Debug)]
pub(super) struct Body {
    plain: Bounded,
    coding: Coding,
    /// There was content.
    begun: bool,
    fault: Option<BodyFault>,
}

#[derive(Debug)]
enum Coding {
    Identity,
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

/// Why a body cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("body is not the gzip that its head announces: {0}")]
    Gzip(Box<str>),
    #[error("body is encoded as {0}, which was not asked for and cannot be read")]
    Coding(Box<str>),
}

impl Body {
    /// At most `max` bytes of the body of an answer with these fields.
    pub(super) fn of(fields: &Fields<'_>, max: usize) -> Self {
        let coding = fields.get("content-encoding");
        let codings = coding.as_deref().unwrap_or_default().split(',').map(str::trim);
        let mut codings: Vec<&str> = codings.filter(|coding| !is(coding, &["", "identity"])).collect();
        let mut body = Self { plain: Bounded::new(max), coding: Coding::Identity, begun: false, fault: None };
        match codings.pop() {
            None => {}
            Some(last) if is(last, &["gzip", "x-gzip"]) && codings.is_empty() => {
                body.coding = Coding::Gzip(Box::new(MultiGzDecoder::new(Bounded::new(max))));
            }
            Some(_) => body.fault = Some(BodyFault::Coding(bounded_text(coding.as_deref().unwrap_or(""), SHOWN))),
        }
        body
    }

    /// Takes the next piece. After a fault, or when it is full, it takes no more.
    pub(super) fn push(&mut self, content: &[u8]) {
        if self.fault.is_some() || self.is_over() {
            return;
        }
        self.begun = true;
        match &mut self.coding {
            // What did not fit is noted.
            Coding::Identity => drop(self.plain.write_all(content)),
            Coding::Gzip(decoder) => {
                if let Err(error) = decoder.write_all(content)
                    && !decoder.get_ref().over
                {
                    self.fault = Some(BodyFault::Gzip(error.to_string().into()));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.kept().over
    }

    fn kept(&self) -> &Bounded {
        match &self.coding {
            Coding::Identity => &self.plain,
            Coding::Gzip(decoder) => decoder.get_ref(),
        }
    }

    /// Whether nothing is wrong with it so far.
    pub(super) fn is_sound(&self) -> bool {
        self.fault.is_none()
    }

    /// What there is so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.kept().bytes
    }

    /// All of it.
    ///
    /// # Errors
    /// If it is not all there.
    pub(super) fn finish(&mut self) -> Result<&[u8], BodyFault> {
        if let Coding::Gzip(decoder) = &mut self.coding
            && self.fault.is_none()
            && !decoder.get_ref().over
        {
            // An answer without content has no gzip in it either.
            if self.begun && decoder.try_finish().is_err() && !decoder.get_ref().over {
                self.fault = Some(BodyFault::Gzip("it is cut off or damaged".into()));
            }
        }
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let kept = self.kept();
        if kept.over {
            return Err(BodyFault::TooLarge(kept.max));
        }
        Ok(&kept.bytes)
    }
}

fn is(word: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Keeps what fits, and refuses the rest.
#[derive(Debug)]
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    over: bool,
}

impl Bounded {
    const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, over: false }
    }
}

impl Write for Bounded {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let fits = content.len().min(self.max - self.bytes.len());
        self.bytes.extend_from_slice(&content[..fits]);
        if fits < content.len() {
            self.over = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the search for what the body must contain has come to. It may end before the body does, if nothing else is
/// asked of it.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Assertions before this one hold.
    assertion: usize,
    /// Where in the body the next look begins.
    from: usize,
}

impl Search {
    /// Whether all that is asked of the body is that it contains something, and it does.
    pub(super) fn is_done(&mut self, assertions: &[Assertion], body: &[u8]) -> bool {
        let only = |assertion: &Assertion| matches!(assertion, Assertion::Contains(_) | Assertion::Header { .. });
        if self.assertion == 0 && self.from == 0 && !assertions.iter().all(only) {
            self.assertion = usize::MAX;
        }
        if self.assertion == usize::MAX {
            return false;
        }
        while let Some(assertion) = assertions.get(self.assertion) {
            if let Assertion::Contains(wanted) = assertion
                && !contains(&body[self.from.min(body.len())..], wanted)
            {
                self.from = body.len().saturating_sub(wanted.len().saturating_sub(1));
                return false;
            }
            (self.assertion, self.from) = (self.assertion + 1, 0);
        }
        true
    }
}

/// Text can only stand in what is text; the search is linear.
fn contains(bytes: &[u8], wanted: &str) -> bool {
    wanted.is_empty() || bytes.utf8_chunks().any(|chunk| chunk.valid().contains(wanted))
}

/// Why the head is not as it should be.
pub(super) fn head_fault(assertions: &[Assertion], fields: &Fields<'_>) -> Option<String> {
    assertions.iter().find_map(|assertion| match assertion {
        Assertion::Header { name, rule } => header_fault(name, rule, fields.get(name).as_deref()),
        Assertion::Contains(_)
        | Assertion::NotContains(_)
        | Assertion::Matches(_)
        | Assertion::NotMatches(_)
        | Assertion::Json { .. } => None,
    })
}

fn header_fault(name: &str, rule: &HeaderRule, found: Option<&str>) -> Option<String> {
    let expected = match rule {
        HeaderRule::Exists => "",
        HeaderRule::Absent => "none",
        HeaderRule::Equals(wanted) | HeaderRule::Contains(wanted) => wanted,
        HeaderRule::Matches(pattern) => pattern.as_str(),
    };
    let expected = bounded_text(expected, SHOWN);
    let how = match rule {
        HeaderRule::Exists | HeaderRule::Absent => "expected none",
        HeaderRule::Equals(_) => "expected",
        HeaderRule::Contains(_) => "expected to contain",
        HeaderRule::Matches(_) => "expected to match",
    };
    match (rule, found) {
        (HeaderRule::Absent, None) => None,
        (HeaderRule::Exists, None) => Some(format!("header {name} is missing")),
        (HeaderRule::Exists, Some(_)) => None,
        (HeaderRule::Absent, Some(found)) => Some(format!("header {name} is {}, {how}", shown(found))),
        (HeaderRule::Equals(_) | HeaderRule::Contains(_) | HeaderRule::Matches(_), None) => {
            Some(format!("header {name} is missing, {how} {expected}"))
        }
        (HeaderRule::Equals(wanted), Some(found)) if *found == **wanted => None,
        (HeaderRule::Contains(wanted), Some(found)) if found.contains(&**wanted) => None,
        (HeaderRule::Matches(pattern), Some(found)) if pattern.is_match(found) => None,
        (_, Some(found)) => Some(format!("header {name} is {}, {how} {expected}", shown(found))),
    }
}

fn shown(text: &str) -> Box<str> {
    if text.is_empty() { "empty".into() } else { bounded_text(text, SHOWN) }
}

/// Why a complete body is not as it should be.
pub(super) fn body_fault(assertions: &[Assertion], body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let mut document = None;
    assertions.iter().find_map(|assertion| match assertion {
        Assertion::Contains(wanted) if !text.contains(&**wanted) => {
            Some(format!("body does not contain {}: {}", quoted(wanted), excerpt(&text)))
        }
        Assertion::NotContains(unwanted) => {
            let at = text.find(&**unwanted)?;
            Some(format!("body contains {}: {}", quoted(unwanted), around(&text, at)))
        }
        Assertion::Matches(pattern) if !pattern.is_match(&text) => {
            Some(format!("body does not match {}: {}", quoted(pattern.as_str()), excerpt(&text)))
        }
        Assertion::NotMatches(pattern) if pattern.is_match(&text) => {
            Some(format!("body matches {}: {}", quoted(pattern.as_str()), excerpt(&text)))
        }
        Assertion::Json { pointer, rule } => {
            let document = document.get_or_insert_with(|| serde_json::from_slice::<Value>(body));
            match document {
                Ok(document) => json_fault(pointer, rule, document.pointer(pointer)),
                Err(error) => Some(format!("body is not JSON: {error}: {}", excerpt(&text))),
            }
        }
        Assertion::Contains(_) | Assertion::Matches(_) | Assertion::NotMatches(_) | Assertion::Header { .. } => None,
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", bounded_text(text, SHOWN))
}

fn excerpt(text: &str) -> Cow<'static, str> {
    // Looked at no further than can be shown: whitespace and control characters go.
    let start: String = text.chars().take(4 * SHOWN_BODY).collect();
    let start = bounded_text(&start, SHOWN_BODY);
    if start.is_empty() { "it is empty".into() } else { start.into_string().into() }
}

/// What stands around a place of the text.
fn around(text: &str, at: usize) -> Cow<'static, str> {
    let from = text[..at].char_indices().rev().nth(SHOWN_BODY / 4).map_or(0, |(index, _)| index);
    excerpt(&text[from..])
}

fn json_fault(pointer: &str, rule: &JsonRule, found: Option<&Value>) -> Option<String> {
    let place = if pointer.is_empty() {
        Cow::Borrowed("the document")
    } else {
        bounded_text(pointer, SHOWN).into_string().into()
    };
    let (how, wanted) = match rule {
        JsonRule::Exists => return found.is_none().then(|| format!("{place} is missing")),
        JsonRule::Absent => return found.map(|found| format!("{place} is {}, expected none", value(found))),
        JsonRule::Equals(wanted) => ("", &**wanted),
        JsonRule::NotEquals(wanted) => ("anything but ", &**wanted),
        JsonRule::Above(wanted) => ("above ", &**wanted),
        JsonRule::Below(wanted) => ("below ", &**wanted),
        JsonRule::AtLeast(wanted) => ("at least ", &**wanted),
        JsonRule::AtMost(wanted) => ("at most ", &**wanted),
        JsonRule::Matches(pattern) => ("a match of ", pattern.as_str()),
    };
    let expected = bounded_text(wanted, SHOWN);
    let Some(found) = found else {
        // What is not there equals nothing.
        let holds = matches!(rule, JsonRule::NotEquals(_));
        return (!holds).then(|| format!("{place} is missing, expected {how}{expected}"));
    };
    let holds = match rule {
        JsonRule::Exists | JsonRule::Absent => true,
        JsonRule::Equals(wanted) => same(found, &json_of(wanted)),
        JsonRule::NotEquals(wanted) => !same(found, &json_of(wanted)),
        JsonRule::Matches(pattern) => match found {
            Value::String(text) => pattern.is_match(text),
            _ => return Some(format!("{place} is {}, expected text", value(found))),
        },
        JsonRule::Above(wanted) | JsonRule::Below(wanted) | JsonRule::AtLeast(wanted) | JsonRule::AtMost(wanted) => {
            let (Value::Number(found), Value::Number(wanted)) = (found, &json_of(wanted)) else {
                return Some(format!("{place} is {}, expected a number {how}{expected}", value(found)));
            };
            let order = compare(found, wanted);
            match rule {
                JsonRule::Above(_) => order.is_some_and(std::cmp::Ordering::is_gt),
                JsonRule::Below(_) => order.is_some_and(std::cmp::Ordering::is_lt),
                JsonRule::AtLeast(_) => order.is_some_and(std::cmp::Ordering::is_ge),
                _ => order.is_some_and(std::cmp::Ordering::is_le),
            }
        }
    };
    (!holds).then(|| format!("{place} is {}, expected {how}{expected}", value(found)))
}

/// What the configuration says, which is JSON text; plain words stand for themselves.
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A value as a person reads it; of a large one the start.
fn value(value: &Value) -> Box<str> {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()).into(),
        Value::Object(members) => format!("an object of {}", members.len()).into(),
        Value::String(text) => format!("\"{}\"", bounded_text(text, SHOWN)).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string().into(),
    }
}

/// Equal as people count: 1 is 1.0, and the order of members says nothing.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right).is_some_and(std::cmp::Ordering::is_eq),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let within = |(name, left): (&String, &Value)| right.get(name).is_some_and(|right| same(left, right));
            left.len() == right.len() && left.iter().all(within)
        }
        (left, right) => left == right,
    }
}

/// Integers exactly, whatever their size; else as floating-point numbers.
fn compare(left: &Number, right: &Number) -> Option<std::cmp::Ordering> {
    let integer = |number: &Number| {
        let signed = number.as_i64().map(i128::from);
        signed.or_else(|| number.as_u64().map(i128::from))
    };
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}
