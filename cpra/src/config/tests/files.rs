//! Files as they lie on a disk: many of them, in every language, by anybody, and broken in every way.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::config::monitors::read_all;
use crate::config::{Severity, Variables};

/// A folder of files, and what reading it gave.
struct Disk(tempfile::TempDir);

struct Outcome {
    names: Vec<String>,
    report: Report,
}

impl Disk {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cpra-files-").tempdir().expect("a temporary folder"))
    }

    fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, given: &[&str]) -> Outcome {
        self.read_as(given, &folders())
    }

    fn read_as(&self, given: &[&str], folders: &Folders) -> Outcome {
        let given: Vec<PathBuf> = given.iter().map(|name| self.path(name)).collect();
        let mut names = Vec::new();
        let report = read_all(&given, folders, &mut |monitor| names.push(monitor.name.into_string()));
        assert_eq!(report.monitors, names.len());
        Outcome { names, report }
    }

    /// What was said, with the folder's own name left out.
    fn said(&self, outcome: &Outcome) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let first = |text: String| text.replace(&folder, "").lines().next().unwrap_or_default().to_owned();
        outcome.report.diagnostics.iter().map(|diagnostic| first(diagnostic.to_string())).collect()
    }
}

const BODY: &str = "pulse: {type: tcp, interval: 1s, timeout: 1s, config: {host: h, port: 1}}";

fn yaml(name: &str) -> String {
    format!("- name: {name}\n  {BODY}\n")
}

fn json(name: &str) -> String {
    format!(
        r#"{{"name": "{name}", "pulse": {{"type": "tcp", "interval": "1s", "timeout": "1s", "config": {{"host": "h", "port": 1}}}}}}"#
    )
}

#[test]
fn files_and_folders_are_read_in_order_and_names_are_unique_over_all() {
    let disk = Disk::new()
        .with("one.yaml", yaml("a"))
        .with("d/20.yml", yaml("c"))
        .with("d/10.json", format!("[{}]", json("b")))
        .with("d/30.jsonl", format!("{}\n\n{}\n", json("d"), json("e")))
        .with("d/.hidden.yaml", "[")
        .with("d/10.json~", "[")
        .with("d/#10.yaml", "[")
        .with("d/10.yaml.bak", "[")
        .with("d/README.md", "[")
        .with("d/sub/x.yaml", yaml("x"))
        .with("two.ndjson", format!("{}\n{}\n", json("f"), json("a")));
    let outcome = disk.read(&["one.yaml", "d", "two.ndjson"]);
    assert_eq!(outcome.names, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(outcome.report.files, 5);
    let said = disk.said(&outcome);
    assert_eq!(said, ["two.ndjson:2:10: a: the name is taken by the monitor at one.yaml:1:9: names are unique"]);
}

#[test]
fn defaults_hold_for_their_own_file() {
    let defaults = "defaults:\n  pulse: {interval: 1s, timeout: 1s, type: tcp}\nmonitors:\n  - {name: a, pulse: {config: {host: h, port: 1}}}\n";
    let disk = Disk::new()
        .with("d/defaults.yaml", defaults)
        .with("d/other.yaml", "- {name: b, pulse: {config: {host: h, port: 1}}}\n");
    let outcome = disk.read(&["d"]);
    assert_eq!((outcome.names, outcome.report.diagnostics.errors()), (vec!["a".to_owned()], 3));
}

#[test]
fn all_faults_of_all_files_come_at_once_sorted_within_their_file() {
    let disk = Disk::new()
        .with("b.yaml", format!("{}- name: x\n", yaml("ok")))
        .with("a.json", format!("[{}, {{\"name\": \"y\"}}, {{\"nam\": 1}}]", json("ok2")))
        .with("c.yaml", "- pulse: 1\n  name: z\n  naem: q\n");
    let outcome = disk.read(&["b.yaml", "a.json", "none.yaml", "c.yaml"]);
    assert_eq!(outcome.names, ["ok", "ok2"]);
    assert!(!outcome.report.missing, "others are there");
    let files: Vec<String> =
        disk.said(&outcome).iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
    let mut runs = files.clone();
    runs.dedup();
    // What could not be opened is known before anything is read.
    assert_eq!(runs, ["none.yaml", "b.yaml", "a.json", "c.yaml"], "{files:?}");
    assert!(files.len() >= 6, "{files:?}");
}

type Row = (&'static str, Vec<u8>, &'static [&'static str], &'static str);

/// A file's name, its bytes, the monitors that are loaded all the same, and the beginning of what is said first.
fn malformed() -> Vec<Row> {
    let good = yaml("good");
    let line = |text: &str| text.as_bytes().to_vec();
    let jsonl = |middle: &str| format!("{}\n{middle}\n{}\n", json("a"), json("b")).into_bytes();
    let utf16: Vec<u8> = "\u{feff}- name: a\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ("empty.yaml", Vec::new(), &[], "empty.yaml: the file is empty: write a list of monitors, or [] for none"),
        ("empty.json", Vec::new(), &[], "empty.json: the file is empty: write a list of monitors, or [] for none"),
        ("empty.jsonl", Vec::new(), &[], "empty.jsonl: warning: defines no monitors: nothing will be checked"),
        ("utf16.yaml", utf16, &[], "utf16.yaml: the file is empty"),
        ("bom.yaml", format!("\u{feff}{good}").into_bytes(), &["good"], ""),
        ("bom.json", format!("\u{feff}[{}]", json("a")).into_bytes(), &["a"], ""),
        ("crlf.yaml", good.replace('\n', "\r\n").into_bytes(), &["good"], ""),
        ("crlf.jsonl", format!("{}\r\n{}\r\n", json("a"), json("b")).into_bytes(), &["a", "b"], ""),
        ("nul.yaml", format!("{good}- name: a\0\n").into_bytes(), &["good"], "nul.yaml:3:3: "),
        ("latin1.yaml", b"- name: caf\xe9\n".to_vec(), &[], "latin1.yaml:1:3: "),
        ("latin1.json", b"[{\"name\": \"caf\xe9\"}]".to_vec(), &[], "latin1.json:1:2: "),
        (
            "tab.yaml",
            format!("{good}- name: a\n\tpulse: 1\n").into_bytes(),
            &["good"],
            "tab.yaml:4:1: monitor 2: a tab in the indentation: indent with spaces",
        ),
        ("tab.json", format!("[\n\t{}\t]\n", json("a")).into_bytes(), &["a"], ""),
        (
            "documents.yaml",
            format!("{good}---\n{good}").into_bytes(),
            &["good"],
            "documents.yaml:3:1: a second document begins here",
        ),
        (
            "truncated.json",
            format!("[{}, {{\"name\": \"b", json("a")).into_bytes(),
            &["a"],
            "truncated.json:1:123: monitor 2: the quote that is opened here is not closed",
        ),
        (
            "open.json",
            format!("[{}", json("a")).into_bytes(),
            &["a"],
            "open.json:1:112: monitor 2: the list is not closed: the text ends where \",\" or \"]\" is expected",
        ),
        (
            "comma.json",
            format!("[{},]", json("a")).into_bytes(),
            &["a"],
            "comma.json:1:112: monitor 2: a \",\" behind the last value: remove it",
        ),
        (
            "comment.json",
            format!("[{} // x\n]", json("a")).into_bytes(),
            &["a"],
            "comment.json:1:113: monitor 2: JSON has no comments",
        ),
        (
            "single.json",
            line("[{'name': 'a'}]"),
            &[],
            "single.json:1:3: monitor 1: a key is a text in double quotes here",
        ),
        ("two.json", format!("{}\n{}", json("a"), json("b")).into_bytes(), &[], "two.json:1:2: unknown key \"name\""),
        ("key.json", line("[{\"name\": \"a\", \"name\": \"b\"}]"), &[], "key.json:1:2: a: pulse is missing"),
        ("escape.json", line("[{\"name\": \"\\x41\"}]"), &[], "escape.json:1:12: monitor 1: an unknown escape"),
        ("half.json", line("[{\"name\": \"\\ud800\"}]"), &[], "half.json:1:12: monitor 1: half of a surrogate pair"),
        ("number.json", line("[{\"name\": 01}]"), &[], "number.json:1:11: monitor 1: \"01\" is no number of JSON"),
        (
            "word.json",
            line("[{\"enabled\": True}]"),
            &[],
            "word.json:1:14: monitor 1: the text \"True\" stands without quotes: write true",
        ),
        ("behind.json", format!("[{}] x", json("a")).into_bytes(), &["a"], "behind.json:1:114: text behind the end"),
        ("deep.json", line(&"[".repeat(200_000)), &[], "deep.json:1:10001: monitor 1: nested too deeply: flatten it"),
        (
            "deep.jsonl",
            jsonl(&"[".repeat(200_000)),
            &["a", "b"],
            "deep.jsonl:2:10001: monitor 2: nested too deeply: flatten it",
        ),
        ("deep.yaml", line(&"- ".repeat(100_000)), &[], "deep.yaml:1:"),
        (
            "broken.jsonl",
            jsonl("{\"name\": \"x\", "),
            &["a", "b"],
            "broken.jsonl:2:15: x: the map is not closed on its line",
        ),
        (
            "quote.jsonl",
            jsonl("{\"name\": \"x}"),
            &["a", "b"],
            "quote.jsonl:2:10: monitor 2: the quote that is opened here is not closed on its line",
        ),
        (
            "array.jsonl",
            jsonl("[1]"),
            &["a", "b"],
            "array.jsonl:2:1: monitor 2: a monitor is a map of keys, this is a list",
        ),
        (
            "comma.jsonl",
            jsonl(&format!("{},", json("c"))),
            &["a", "c", "b"],
            "comma.jsonl:2:111: monitor 3: a \",\" behind the object",
        ),
        (
            "pretty.jsonl",
            line("{\n  \"name\": \"a\"\n}\n"),
            &[],
            "pretty.jsonl:1:2: monitor 1: the map is not closed on its line",
        ),
        (
            "text.jsonl",
            jsonl("hello"),
            &["a", "b"],
            "text.jsonl:2:1: monitor 2: the text \"hello\" stands without quotes",
        ),
        ("html.yaml", line("<!DOCTYPE html>\n<html></html>\n"), &[], "html.yaml:1:1: a list of monitors is expected"),
    ]
}

#[test]
fn malformed_files_say_what_is_wrong_and_cost_only_themselves() {
    let rows = malformed();
    assert!(rows.len() >= 30);
    let mut wrong = Vec::new();
    for (name, bytes, expected, beginning) in rows {
        let disk = Disk::new().with(name, bytes);
        let outcome = disk.read(&[name]);
        let said = disk.said(&outcome);
        let first = said.first().map_or("", String::as_str);
        let is_right = first.starts_with(beginning) && said.is_empty() == beginning.is_empty();
        if !is_right || outcome.names != expected {
            wrong.push(format!("{name}: {:?}, {said:#?}", outcome.names));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_no_file_never_hangs_and_says_so() {
    let disk = Disk::new().with("d/empty/x.txt", "x").with("locked/a.yaml", yaml("a"));
    symlink("/nonexistent/x.yaml", disk.path("dangling.yaml")).expect("a link");
    symlink("round.yaml", disk.path("round.yaml")).expect("a link");
    nix::unistd::mkfifo(&disk.path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
    let rows: [(&[&str], &str); 7] = [
        (
            &["dangling.yaml"],
            "dangling.yaml: this is a link to \"/nonexistent/x.yaml\", which is not there: point it at a file, or remove it",
        ),
        (&["round.yaml"], "round.yaml: cannot be opened: Too many levels of symbolic links"),
        (&["pipe.yaml"], "pipe.yaml: this is a named pipe: cpra does not wait for a writer, send the text to --yaml -"),
        (&["none.yaml"], "none.yaml: there is no such file: check the path given with --yaml"),
        (&["d/empty"], "d/empty: warning: the folder holds no *.yaml, *.yml, *.json or *.jsonl"),
        (
            &["locked/a.yaml", "locked/../locked/a.yaml"],
            "locked/../locked/a.yaml: the file is named twice: remove one of them",
        ),
        (&["locked", "locked/a.yaml"], "locked/a.yaml: the file is named twice: remove one of them"),
    ];
    for (given, expected) in rows {
        let outcome = disk.read(given);
        let said = disk.said(&outcome);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{given:?}: {said:#?}");
        assert_eq!(outcome.report.missing, given == ["none.yaml"], "{given:?}");
    }
}

#[test]
fn a_line_without_an_end_is_refused_by_a_bound() {
    // YAML is read on, in search of the next item; what was read is not kept.
    for (name, begin, length) in [("long.yaml", "- name: \"", 12 << 20), ("long.json", "[{\"name\": \"", 100 << 20)] {
        let mut text = begin.as_bytes().to_vec();
        text.resize(length, b'x');
        let disk = Disk::new().with(name, &text);
        let outcome = disk.read(&[name]);
        let said = disk.said(&outcome);
        assert!(said.iter().any(|line| line.contains("a value longer than 4 MiB")), "{said:#?}");
        assert!(name == "long.yaml" || outcome.report.bytes < 8 << 20, "read on to {} bytes", outcome.report.bytes);
    }
}

#[test]
fn variables_are_replaced_in_values_only() {
    let set = [("CPRA_VAR_HOST", "db"), ("CPRA_VAR_PORT", "5432"), ("CPRA_VAR_NOTHING", "null"), ("SECRET", "s")];
    let folders = Folders {
        variables: Variables::of(set.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned())))),
        ..folders()
    };
    let text = |host: &str, port: &str| {
        format!(
            "- name: a\n  pulse:\n    type: tcp\n    interval: 1s\n    timeout: 1s\n    config:\n      host: {host}\n      port: {port}\n"
        )
    };
    let load = |text: &str| {
        let disk = Disk::new().with("m.yaml", text);
        let mut monitors = Vec::new();
        let report = read_all(&[disk.path("m.yaml")], &folders, &mut |monitor| monitors.push(monitor));
        let said = disk.said(&Outcome { names: Vec::new(), report });
        (monitors, said)
    };
    for (host, port) in
        [("\"x.${CPRA_VAR_HOST}\"", "${CPRA_VAR_PORT}"), ("x.${CPRA_VAR_HOST}", "${CPRA_VAR_NONE:-5432}")]
    {
        let (monitors, said) = load(&text(host, port));
        assert!(said.is_empty() && monitors[0].target.port == 5432, "{said:?}");
        assert_eq!(monitors[0].target.host, crate::domain::Host::Name("x.db".into()));
    }
    for (host, port, expected) in [
        ("${SECRET}", "1", "m.yaml:7:13: a: \"${SECRET}\" is not replaced, only variables called CPRA_VAR_... are"),
        ("h", "${CPRA_VAR_NONE}", "m.yaml:8:13: a: the variable CPRA_VAR_NONE is not set: set it, or write"),
        // A text stays a text.
        ("h", "${CPRA_VAR_NOTHING}", "m.yaml:8:13: a: port \"null\" is no whole number"),
        ("h", "'${CPRA_VAR_PORT}'", "m.yaml:8:13: a: port \"5432\" is a text: write the number without quotes"),
        ("h", "1\n      ${CPRA_VAR_HOST}: 1", "m.yaml:9:7: a: unknown key \"${CPRA_VAR_HOST}\""),
    ] {
        let (_, said) = load(&text(host, port));
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
}

#[test]
fn an_untrusted_file_has_its_interventions_refused_and_its_checks_run() {
    let text = format!(
        "{}{}  intervention: {{action: docker, config: {{container: x, action: restart}}}}\n",
        yaml("plain"),
        yaml("repaired")
    );
    let disk = Disk::new().with("m.yaml", text);
    fs::set_permissions(disk.0.path(), fs::Permissions::from_mode(0o755)).expect("our folder");
    let refusals = |mode: u32, is_root: bool| {
        fs::set_permissions(disk.path("m.yaml"), fs::Permissions::from_mode(mode)).expect("our file");
        let outcome = disk.read_as(&["m.yaml"], &Folders { is_root, ..folders() });
        assert_eq!(outcome.names, ["plain", "repaired"]);
        assert_eq!(outcome.report.diagnostics.errors(), 0);
        let refused = |diagnostic: &&crate::config::Diagnostic| diagnostic.severity == Severity::Refusal;
        outcome.report.diagnostics.iter().filter(refused).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(refusals(0o644, false).is_empty());
    let found = refusals(0o666, false);
    assert!(found.len() == 1, "{found:?}");
    assert!(found[0].contains("m.yaml:5:3: refused: repaired: the intervention is not run: the file "), "{found:?}");
    assert!(found[0].contains("(mode 0666): \"chmod o-w\" it"), "{found:?}");
    let is_root = fs::metadata("/proc/self").is_ok_and(|entry| std::os::unix::fs::MetadataExt::uid(&entry) == 0);
    assert_eq!(refusals(0o644, true).is_empty(), is_root, "the file is root's own only if the test is root's");
    assert_eq!(refusals(0o664, true).len(), 1);
}

#[test]
fn json_is_read_as_serde_json_reads_it() {
    use proptest::prelude::*;
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\"a\"",
        "\"name\"",
        "1",
        "-0.5e3",
        "01",
        "true",
        "null",
        "nul",
        "\\",
        "\\n",
        "\\u0041",
        "\\ud83d\\ude00",
        "\\ud83d",
        "\\u00",
        " ",
        "\n",
        "\t",
        "\r\n",
        "é",
        "😀",
        "'",
        "/",
        "#",
        "+",
        ".",
        "e",
        "\"\\u2028\"",
        "[]",
        "{}",
        "\"k\": ",
        "\"\\/\"",
    ]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(piece, 0..14), |pieces| {
            let text = pieces.concat();
            let library = serde_json::from_str::<serde_json::Value>(&text);
            let report = read_str("m.json", &text, &folders(), &mut |_| {});
            let is_syntax = |message: &str| {
                // What the rules say about the shape; everything else is about the language.
                let rules = [
                    "expected, this is",
                    "unknown key",
                    "defines no",
                    "is missing: add",
                    "a map of keys",
                    "takes a list",
                    "takes a map",
                    "there twice",
                    "file is empty",
                    "nested more",
                ];
                !rules.iter().any(|rule| message.contains(rule))
            };
            let refused = report.diagnostics.iter().any(|one| is_syntax(&one.message));
            // Of a value that is no list the rest is not looked at.
            let is_other = |message: &str| {
                message.starts_with("a list of monitors is") || message.starts_with("the file is empty")
            };
            if report.diagnostics.iter().any(|one| is_other(&one.message)) {
                return Ok(());
            }
            let is_empty = text.trim().is_empty();
            prop_assert_eq!(
                refused,
                library.is_err() && !is_empty,
                "{:?}: {:?}\n{}",
                text,
                library,
                report.diagnostics
            );
            Ok(())
        })
        .expect("both read alike");
}

#[test]
fn texts_of_json_come_out_as_serde_json_gives_them() {
    for written in [r#""\ud83d\ude00 \u00e9\/\"\\""#, r#""a\u0041b""#, "\"😀 é\"", r#""<< & * ! tab""#] {
        let expected: String = serde_json::from_str(written).expect("JSON");
        let text = json("x").replace("\"x\"", written);
        let disk = Disk::new().with("m.json", format!("[{text}]")).with("m.jsonl", format!("{text}\n"));
        for name in ["m.json", "m.jsonl"] {
            let outcome = disk.read(&[name]);
            assert_eq!(outcome.names, [expected.as_str()], "{name}: {}", outcome.report.diagnostics);
        }
    }
}

#[test]
fn the_standard_input_has_no_name_of_its_own() {
    let given = [OsString::from("-"), OsString::from("-")].map(PathBuf::from);
    // It is the test's own, and empty or at its end; what counts is that it is read once.
    let report = read_all(&given, &folders(), &mut |_| {});
    let text = report.diagnostics.to_string();
    assert!(text.contains("-: the standard input is named twice: it can be read once"), "{text}");
}
