//! `${CPRA_VAR_NAME}` and `${CPRA_VAR_NAME:-default}` in the values of monitors files.
//!
//! Only variables of that prefix: a monitors file is often written by others than those who run the daemon, and what
//! else the environment holds (credentials, tokens) is not theirs to read. Any other `${` is an error and not left as it
//! stands, since a missing replacement looks right until 3 a.m.; `$${` is the text `${`. What is put in is a text within
//! the value: it never becomes further keys, an anchor, or a variable of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::quoted;

const PREFIX: &str = "CPRA_VAR_";

/// What one value may become; the environment is not ours, and a value may name a variable many times.
const EXPANDED_MAX: usize = 1024 * 1024;

/// The variables that a monitors file may read. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(Arc<BTreeMap<Box<str>, Box<str>>>);

impl Variables {
    /// Those of `all` that have the prefix; `None` for a value that is no text.
    pub fn of(all: impl Iterator<Item = (String, Option<String>)>) -> Self {
        let readable = all.filter(|(name, _)| name.starts_with(PREFIX));
        Self(Arc::new(readable.filter_map(|(name, value)| Some((name.into(), value?.into()))).collect()))
    }

    pub fn of_process() -> Self {
        Self::of(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()))),
        )
    }

    /// The value with its variables replaced.
    ///
    /// # Errors
    /// In words that stand by themselves.
    pub(super) fn expand<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, String> {
        if !text.contains("${") {
            return Ok(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let behind = &rest[at + 2..];
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = behind;
            } else {
                out.push_str(&rest[..at]);
                let Some(end) = behind.find('}') else {
                    return Err("a \"${\" without its \"}\": close it, or write \"$${\" for the text itself".to_owned());
                };
                out.push_str(self.value(&behind[..end])?);
                rest = &behind[end + 1..];
            }
            if out.len() > EXPANDED_MAX {
                return Err(format!("with its variables replaced, the value is longer than {EXPANDED_MAX} bytes"));
            }
        }
        out.push_str(rest);
        Ok(Cow::Owned(out))
    }

    /// What stands for `NAME` or `NAME:-default`.
    fn value<'a>(&'a self, inside: &'a str) -> Result<&'a str, String> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let shown = quoted(&format!("${{{inside}}}"));
        let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match self.0.get(name) {
            _ if !is_word => Err(format!(
                "{shown} names no variable: write \"${{CPRA_VAR_NAME}}\" or \"${{CPRA_VAR_NAME:-default}}\", or \"$${{\" for the text itself"
            )),
            _ if !name.starts_with(PREFIX) || name.len() == PREFIX.len() => Err(format!(
                "{shown} is not replaced, only variables called {PREFIX}... are: rename it, or write \"$${{\" for the text itself"
            )),
            // As a shell's `:-` does, which also takes an empty value for none.
            Some(value) if !value.is_empty() || default.is_none() => Ok(value),
            _ => default
                .ok_or_else(|| format!("the variable {name} is not set: set it, or write \"${{{name}:-default}}\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_everything_else_is_said() {
        let set =
            [("CPRA_VAR_HOST", "db"), ("CPRA_VAR_EMPTY", ""), ("HOME", "/root"), ("CPRA_VAR_LOOP", "${CPRA_VAR_HOST}")];
        let variables = Variables::of(set.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
        for (written, expected) in [
            ("plain $ { } $HOME", Ok("plain $ { } $HOME")),
            ("http://${CPRA_VAR_HOST}/${CPRA_VAR_HOST}", Ok("http://db/db")),
            ("${CPRA_VAR_NONE:-a: b}", Ok("a: b")),
            ("${CPRA_VAR_EMPTY:-x}${CPRA_VAR_EMPTY}", Ok("x")),
            ("${CPRA_VAR_LOOP}", Ok("${CPRA_VAR_HOST}")),
            ("$${HOME} $$${CPRA_VAR_HOST}", Ok("${HOME} $${CPRA_VAR_HOST}")),
            ("${HOME}", Err("is not replaced, only variables called CPRA_VAR_")),
            ("${CPRA_VAR_}", Err("is not replaced, only variables called CPRA_VAR_")),
            (
                "${CPRA_VAR_NONE}",
                Err("the variable CPRA_VAR_NONE is not set: set it, or write \"${CPRA_VAR_NONE:-default}\""),
            ),
            ("${}", Err("names no variable")),
            ("${CPRA_VAR_A-b}", Err("names no variable")),
            ("a ${CPRA_VAR_HOST", Err("a \"${\" without its \"}\"")),
        ] {
            match (variables.expand(written), expected) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{written}"),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{written}: {found}"),
                (found, _) => panic!("{written}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_value_does_not_grow_without_bound() {
        let variables = Variables::of(std::iter::once(("CPRA_VAR_A".to_owned(), Some("x".repeat(100_000)))));
        assert!(variables.expand(&"${CPRA_VAR_A}".repeat(100_000)).expect_err("too long").contains("longer than"));
    }
}
