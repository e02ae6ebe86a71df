//! Imports between the rooms of `cpra/src` point down.
//!
//! Sideways, between rooms of one floor, is allowed as long as it stays one way: a cycle of rooms is refused. The
//! rejected alternative, no sideways imports at all, would give every protocol between two neighbours a floor of its
//! own. Test code may look sideways both ways, never up: what needs a higher room to be tested belongs there or into
//! `tests/`.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_word, word_at, words};
use super::{Finding, finding};

/// The table of ARCHITECTURE.md.
const FLOORS: [(&str, u8); 21] = [
    ("units", 0),
    ("ring", 1),
    ("domain", 1),
    ("queueing", 1),
    ("schedule", 1),
    ("wire", 1),
    ("wording", 1),
    ("probe", 2),
    ("config", 2),
    ("world", 3),
    ("shard", 4),
    ("desk", 4),
    ("pipeline", 5),
    ("os", 6),
    ("store", 6),
    ("action", 6),
    ("notify", 6),
    ("sim", 6),
    ("api", 7),
    ("daemon", 8),
    ("cli", 9),
];

pub(crate) fn floor_of(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The room of a file, given its path below `cpra/src/`.
pub(crate) fn room_of(path: &str) -> Option<&str> {
    let room = path.split('/').next()?.trim_end_matches(".rs");
    // The crate's root only names the rooms, and the binary stands above them all.
    (room != "lib" && room != "main").then_some(room)
}

/// An import of `to` by `from`, in production code.
type Sideways<'a> = BTreeMap<(&'a str, String), Finding>;

pub(crate) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    let mut sideways = Sideways::new();
    for source in sources {
        let Some(room) = source.in_library().and_then(room_of) else { continue };
        let Some(floor) = floor_of(room) else {
            findings.push(finding(
                source,
                0,
                "floors",
                format!("give room `{room}` a floor here and in ARCHITECTURE.md"),
            ));
            continue;
        };
        for (at, other) in imports(source) {
            match floor_of(&other) {
                Some(above) if above > floor => findings.push(finding(
                    source,
                    at,
                    "floors",
                    format!("`{room}` (floor {floor}) imports `{other}` (floor {above}): turn it round, or pass it in"),
                )),
                Some(same) if same == floor && other != room && !source.is_test(at) => {
                    let remedy = format!("`{room}` and `{other}` import each other: move what both need down");
                    sideways.entry((room, other)).or_insert_with(|| finding(source, at, "floors", remedy));
                }
                _ => {}
            }
        }
    }
    let edges: BTreeSet<(String, String)> =
        sideways.keys().map(|(from, to)| ((*from).to_owned(), to.clone())).collect();
    for ((from, to), found) in sideways {
        if reaches(&edges, &to, from, &mut BTreeSet::new()) {
            findings.push(found);
        }
    }
}

fn reaches(edges: &BTreeSet<(String, String)>, from: &str, to: &str, seen: &mut BTreeSet<String>) -> bool {
    from == to
        || (seen.insert(from.to_owned())
            && edges.iter().any(|(start, end)| start == from && reaches(edges, end, to, seen)))
}

/// Every `crate::room`, `crate::{room, ...}` and `super::...::room` that leaves the room, with its place.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let after = at + "crate".len();
        if code[after..].starts_with("::") {
            heads(code, after + 2, &mut found);
        }
    }
    let depth = source.in_library().map_or(0, module_depth);
    for at in words(code, "super") {
        // Only the first of a chain.
        if code[..at].ends_with("::") {
            continue;
        }
        let (mut count, mut next) = (0, at);
        while code[next..].starts_with("super::") {
            count += 1;
            next += "super::".len();
        }
        // Test modules stand one deeper than their file.
        if count == depth + usize::from(source.is_test(at)) {
            heads(code, next, &mut found);
        }
    }
    // What stands at the crate's root but is no room (a macro, a re-export) has no floor.
    found.retain(|(_, name)| floor_of(name).is_some());
    found
}

fn module_depth(path: &str) -> usize {
    path.split('/').filter(|part| *part != "mod.rs").count()
}

/// The first words of what follows `crate::`: one, or each of a group.
fn heads(code: &str, at: usize, found: &mut Vec<(usize, String)>) {
    if !code[at..].starts_with('{') {
        found.push((at, word_at(code, at).to_owned()));
        return;
    }
    let mut depth = 0_usize;
    let mut is_head = false;
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'{' => {
                depth += 1;
                is_head = depth == 1;
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            b',' => is_head = depth == 1,
            _ if is_word(byte) && is_head => {
                found.push((index, word_at(code, index).to_owned()));
                is_head = false;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, (*text).to_owned())).collect();
        let mut findings = Vec::new();
        check(&sources, &mut findings);
        findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
    }

    #[test]
    fn imports_point_down() {
        assert_eq!(faults(&[("cpra/src/shard/mod.rs", "use crate::{units::Span, world::{self, Catalog}};")]), [""; 0]);
        assert_eq!(
            faults(&[("cpra/src/wire/http.rs", "\nuse crate::{units::Span, os::{uring}};")]),
            ["cpra/src/wire/http.rs:2"]
        );
        assert_eq!(faults(&[("cpra/src/ring.rs", "fn a() { crate::shard::step() }")]), ["cpra/src/ring.rs:1"]);
        assert_eq!(faults(&[("cpra/src/ring.rs", "// crate::shard::step()")]), [""; 0]);
    }

    #[test]
    fn a_chain_of_supers_is_an_import_too() {
        assert_eq!(faults(&[("cpra/src/wire/http.rs", "use super::super::os::clock;")]), ["cpra/src/wire/http.rs:1"]);
        assert_eq!(faults(&[("cpra/src/wire/http.rs", "use super::os;")]), [""; 0], "wire::os is no room");
        let in_tests = "#[cfg(test)]\nmod tests { use super::super::sim::Net; }";
        assert_eq!(faults(&[("cpra/src/wire/mod.rs", in_tests)]), ["cpra/src/wire/mod.rs:2"]);
    }

    #[test]
    fn sideways_is_one_way() {
        let desk = ("cpra/src/desk/mod.rs", "use crate::shard::protocol::Command;");
        assert_eq!(faults(&[desk, ("cpra/src/shard/mod.rs", "use crate::units::Span;")]), [""; 0]);
        assert_eq!(
            faults(&[desk, ("cpra/src/shard/mod.rs", "use crate::desk::Event;")]),
            ["cpra/src/desk/mod.rs:1", "cpra/src/shard/mod.rs:1"]
        );
        let only_tests = "#[cfg(test)]\nmod tests { use crate::desk::Event; }";
        assert_eq!(faults(&[desk, ("cpra/src/shard/mod.rs", only_tests)]), [""; 0]);
    }

    #[test]
    fn tests_do_not_look_up() {
        let up = "#[cfg(test)]\nmod tests { use crate::sim::Net; }";
        assert_eq!(faults(&[("cpra/src/shard/mod.rs", up)]), ["cpra/src/shard/mod.rs:2"]);
    }

    #[test]
    fn a_new_room_wants_a_floor() {
        assert_eq!(faults(&[("cpra/src/cellar/mod.rs", "")]), ["cpra/src/cellar/mod.rs:1"]);
    }
}
