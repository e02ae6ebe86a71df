//! Bytes that nobody would write on purpose, and those that somebody would: an answer, never a panic, bounded memory.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::config::monitors::{read, read_from};

fn load_bytes(bytes: &[u8]) -> Report {
    read_from("m.yaml", Cursor::new(bytes.to_vec()), &folders(), &mut |_| {})
}

const GOOD: &str = "- {name: a, pulse: {type: tcp, interval: 1s, timeout: 1s, config: {host: h, port: 1}}}\n";

#[test]
fn files_that_are_no_text_say_so() {
    let cases: [(&[u8], &[&str]); 7] = [
        (b"", &["the file is empty: write a list of monitors, or [] for none"]),
        (b"# only a comment\n", &["the file is empty: write a list of monitors, or [] for none"]),
        (
            b"\xff\xfe-\x00 \x00",
            &[
                "1:1: the file is UTF-16: save it as UTF-8",
                "the file is empty: write a list of monitors, or [] for none",
            ],
        ),
        (b"- name: \x00\n", &["1:9: control character U+0000: remove it"]),
        (b"---\n", &["2:1: the file is empty: write a list of monitors, or [] for none"]),
        (b"hello\n", &["1:1: a list of monitors is expected, this is \"hello\": begin with \"- name: ...\""]),
        (b"[]\n", &["warning: defines no monitors: nothing will be checked"]),
    ];
    for (bytes, expected) in cases {
        let found = headlines(&load_bytes(bytes));
        for line in expected {
            assert!(found.iter().any(|have| have.starts_with(line)), "{bytes:?}\n{found:#?}");
        }
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_read_over() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    let report = load_bytes(text.as_bytes());
    assert_eq!((report.monitors, report.diagnostics.errors(), report.bytes), (1, 0, text.len() as u64));
}

#[test]
fn what_is_no_file_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("none.yaml");
    for (path, is_missing, message) in [
        (missing.as_path(), true, "there is no such file: check the path given with --yaml"),
        (
            folder.path(),
            false,
            "warning: the folder holds no *.yaml, *.yml, *.json or *.jsonl: nothing of it will be checked",
        ),
    ] {
        let report = read(path, &folders(), &mut |_| {});
        assert_eq!(report.missing, is_missing);
        assert_eq!(report.diagnostics.to_string(), format!("{}: {message}\n", path.display()));
    }
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = String::from("x-0: &a0 [l, l, l, l, l, l, l, l, l]\n");
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("x-{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", ")));
    }
    laughs.push_str("monitors: *a29\n");
    let merges: String =
        (1..200).map(|n| format!("x-{n}: &b{n}\n  <<: [*b{0}, *b{0}, *b{0}]\n  k{n}: 1\n", n - 1)).collect();
    let inputs = [
        laughs,
        format!("x-0: &b0 {{a: 1}}\n{merges}monitors: []\n"),
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "? ".repeat(100_000),
        (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        format!("- name: {}\n", "x".repeat(5_000_000)),
        format!("- name: \"{}", "x\n  ".repeat(2_000_000)),
        format!("- {{name: a, groups: [{}]}}\n", "x,".repeat(200_000)),
        format!("- {{{}}}\n", (0..100_000).map(|n| format!("k{n}: 1,")).collect::<String>()),
        "- &a [*a, *a]\n".to_owned(),
        "- &a {name: *a}\n".to_owned(),
        "- \"\n".repeat(1_000),
        format!("- {}\n", "&".repeat(1_000_000)),
        format!("- name: x{}\n", " &!".repeat(1_000_000)),
        "[ :a, ".repeat(60_000),
        format!("- [{}]\n", "::1, ".repeat(60_000)),
        format!("- x:{}\n", "\n  - ::1".repeat(60_000)),
        "\t\n".repeat(1_000_000),
    ];
    for input in inputs {
        let report = load_bytes(input.as_bytes());
        assert!(report.diagnostics.errors() + report.diagnostics.warnings() > 0, "{}", &input[..input.len().min(60)]);
        assert!(report.diagnostics.to_string().len() < 4_000_000);
    }
}

#[test]
fn one_broken_monitor_costs_only_itself() {
    let good = |name: &str| GOOD.replace("name: a", &format!("name: {name}"));
    for broken in [
        "- name: \"x\n",
        "- {name: x\n",
        "- name: x\n   pulse: y\n  z: 1\n",
        "- @\n",
        "- name: x\n\tpulse: y\n",
        "- [a, b\n",
        "- a: 'b' c\n",
        "- *none\n",
    ] {
        let (monitors, report) = load(&format!("{}{broken}{}{}", good("a"), good("b"), good("c")));
        let names: Vec<&str> = monitors.iter().map(|monitor| &*monitor.name).collect();
        assert!(
            names.ends_with(&["b", "c"]) && report.diagnostics.errors() > 0,
            "{broken:?}: {names:?}\n{}",
            report.diagnostics
        );
    }
    let twice = format!("monitors:\n  - name: c\n     x: 1\n  - name: d\n\tx: 1\n  {}", good("e"));
    let (monitors, report) = load(&twice);
    assert_eq!((monitors.len(), headlines(&report).len()), (1, 2), "{}", report.diagnostics);
    let indented = format!("monitors:\n  {}  - name: \"x\n  {}x-more: 1\n", good("a"), good("b"));
    let (monitors, report) = load(&indented);
    assert_eq!((monitors.len(), headlines(&report).len()), (2, 1), "{}", report.diagnostics);
}

#[test]
fn a_key_that_is_there_twice_is_found_behind_many_others() {
    let keys = |count| (0..count).map(|n| format!("x-{n}: 1\n")).collect::<String>();
    let (_, report) = load(&format!("monitors: []\n{}monitors: []\n", keys(2_000)));
    assert_eq!(headlines(&report), ["2002:1: the key \"monitors\" is there twice: remove one of them"]);
    let (_, report) = load(&format!("{}monitors: []\n", keys(10_000)));
    assert_eq!(
        headlines(&report),
        ["10001:1: more than 10000 keys beside the list: the file is not read on from here"]
    );
}

#[test]
fn errors_beyond_the_bound_are_counted() {
    let text = "- name: x\n".repeat(3_000);
    let (monitors, report) = load(&text);
    assert!(monitors.is_empty());
    assert_eq!(report.diagnostics.errors(), 3_000 + 2_999);
    assert_eq!(report.diagnostics.omitted(), 4_999);
}

#[test]
fn a_list_longer_than_the_window_keeps_its_lines() {
    let mut text = String::new();
    for number in 0..20_000 {
        text.push_str(&GOOD.replace("name: a", &format!("name: a{number}")));
    }
    text.push_str(&GOOD.replace("name: a", "name: a0").replace("1s,", "1,"));
    let (monitors, report) = load(&text);
    assert_eq!(monitors.len(), 20_000);
    let shown = report.diagnostics.to_string();
    assert!(shown.starts_with("m.yaml:20001:10: a0: the name is taken by the monitor at m.yaml:1:10: names are unique\n 20001 | - {name: a0, "), "{shown}");
}

fn fragment() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "- ",
        "\n",
        "  ",
        "name: a",
        "name",
        ": ",
        "pulse:",
        "pulse_check: {",
        "type: tcp",
        "interval: 1s",
        "timeout: 5",
        ",",
        "}",
        "[",
        "]",
        "config: {host: h, port: 1}",
        "codes:",
        "red: {notify: log}",
        "&a ",
        "*a",
        "<<: *a",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "---\n",
        "...\n",
        "\t",
        "\r",
        "é",
        "!t ",
        "? ",
        "monitors:\n",
        "defaults:\n",
        "x-a: ",
        "%YAML 1.2\n",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
    ]);
    prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = load_bytes(&bytes).diagnostics.to_string();
    }

    #[test]
    fn no_yaml_panics_and_what_is_given_out_is_sound(text in fragment()) {
        let mut monitors = Vec::new();
        let report = read_str("m.yaml", &text, &folders(), &mut |monitor| monitors.push(monitor));
        let _ = report.diagnostics.to_string();
        for monitor in monitors {
            prop_assert!(!monitor.name.is_empty() && monitor.policy.timeout <= monitor.policy.interval);
        }
    }

    #[test]
    fn a_good_file_with_one_byte_changed_never_panics(at in 0usize..4_000, byte: u8) {
        let mut bytes = include_str!("../../../../configs/quickstart.yaml").as_bytes()[600..].to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = load_bytes(&bytes).diagnostics.to_string();
    }
}
