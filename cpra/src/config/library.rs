//! A batch of items through `serde_yaml` into trees, without places.
//!
//! The library gives values, and the rules want texts: a number comes back as its decimal digits, `true` as `true`, and
//! what could have been spelled otherwise (a fraction, a number below zero) makes the item *odd*, as does everything that
//! the streaming reader has an opinion about: keys that are no texts, doubled ones, `<<`, too many values, too many
//! levels. Of an odd item nothing is used.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::node::{DEPTH_MAX, Entry, Kind, Mark, NODES_MAX, Node};
use super::variables::Variables;

/// Keys of one map that are compared one by one; maps with more are odd.
const KEYS_MAX: usize = 128;

/// The items of a list, each with whether it is odd; `None` if the library refuses the text.
pub(super) fn items(text: &[u8], variables: &Variables) -> Option<Vec<(Rc<Node>, bool)>> {
    let text = std::str::from_utf8(text).ok()?;
    Items(variables).deserialize(serde_yaml::Deserializer::from_str(text)).ok()
}

struct Items<'a>(&'a Variables);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<(Rc<Node>, bool)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<(Rc<Node>, bool)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let state = State { variables: self.0, is_odd: Cell::new(false), budget: Cell::new(NODES_MAX) };
            match sequence.next_element_seed(Value { state: &state, depth: 0 })? {
                Some(node) => items.push((node, state.is_odd.get())),
                None => return Ok(items),
            }
        }
    }
}

/// Of one item.
struct State<'a> {
    variables: &'a Variables,
    is_odd: Cell<bool>,
    budget: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Value<'a> {
    state: &'a State<'a>,
    depth: usize,
}

impl Value<'_> {
    fn scalar(self, text: &str, quoted: bool) -> Rc<Node> {
        Rc::new(Node::scalar(Mark::default(), text.into(), quoted))
    }

    fn odd(self) -> Rc<Node> {
        self.state.is_odd.set(true);
        Rc::new(Node::new(Mark::default(), Kind::Broken))
    }

    /// Whether there is room for one more key or value.
    fn spend(self) -> bool {
        let left = self.state.budget.get().saturating_sub(1);
        self.state.budget.set(left);
        left > 0
    }

    fn below(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Rc<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rc<Node>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Rc<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Rc<Node>, E> {
        Ok(self.scalar(if value { "true" } else { "false" }, false))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Rc<Node>, E> {
        Ok(self.scalar(&value.to_string(), false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Rc<Node>, E> {
        Ok(self.odd())
    }

    fn visit_u128<E>(self, _: u128) -> Result<Rc<Node>, E> {
        Ok(self.odd())
    }

    fn visit_i128<E>(self, _: i128) -> Result<Rc<Node>, E> {
        Ok(self.odd())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Rc<Node>, E> {
        Ok(self.odd())
    }

    fn visit_unit<E>(self) -> Result<Rc<Node>, E> {
        Ok(self.scalar("", false))
    }

    fn visit_str<E>(self, text: &str) -> Result<Rc<Node>, E> {
        if text.contains("${") {
            return Ok(match self.state.variables.expand(text) {
                // Typed or not depends on quotes, which do not show any more.
                Ok(text) if text.parse::<f64>().is_err() && !is_word(&text) => self.scalar(&text, false),
                _ => self.odd(),
            });
        }
        // A text that looks like a number was in quotes, or is one that readers differ about (`007`).
        if text.as_bytes().first().is_some_and(|byte| !byte.is_ascii_alphabetic()) && text.parse::<f64>().is_ok() {
            let is_quoted =
                text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
            return Ok(if is_quoted { self.scalar(text, true) } else { self.odd() });
        }
        Ok(self.scalar(text, is_word(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Rc<Node>, A::Error> {
        let mut items = Vec::new();
        if self.depth + 1 >= DEPTH_MAX {
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(self.odd());
        }
        while let Some(item) = sequence.next_element_seed(self.below())? {
            if !self.spend() {
                self.state.is_odd.set(true);
                continue;
            }
            items.push(item);
        }
        Ok(Rc::new(Node::new(Mark::default(), Kind::List(items))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rc<Node>, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        if self.depth + 1 >= DEPTH_MAX {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(self.odd());
        }
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(self.below())?;
            match key {
                Some(key)
                    if &*key != "<<"
                        && self.spend()
                        && self.spend()
                        && entries.len() < KEYS_MAX
                        && !entries.iter().any(|entry| entry.key == key) =>
                {
                    entries.push(Entry { key, at: Mark::default(), value, merged: false });
                }
                _ => self.state.is_odd.set(true),
            }
        }
        Ok(Rc::new(Node::new(Mark::default(), Kind::Map(entries))))
    }
}

/// What the library gives as a text only if it stood in quotes.
fn is_word(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL" | "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// A key, if it is a text that every reader takes for one.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<Rc<str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Option<Rc<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        let is_sure =
            text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !is_word(text) && text.parse::<f64>().is_err();
        Ok(is_sure.then(|| text.into()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
