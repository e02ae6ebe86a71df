//! A monitors file of any content, be it YAML, JSON or a line of JSON per monitor: read to its end, with monitors or
//! faults, never a panic. What is said about it is fit for a terminal.

#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use cpra::config::{self, Folders};
use libfuzzer_sys::fuzz_target;

/// How the file's author would have named it.
fn name(text: &str) -> &'static str {
    let mut lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty());
    match (lines.next().map(|line| line.as_bytes()[0]), lines.next()) {
        (Some(b'{'), Some(second)) if second.starts_with('{') => "fuzz.jsonl",
        (Some(b'{' | b'['), _) => "fuzz.json",
        _ => "fuzz.yaml",
    }
}

fuzz_target!(|text: &str| {
    let folders = Folders::new(Path::new("/work"), Path::new("/var/lib/cpra"), Path::new("/tmp"));
    let (mut monitors, mut names) = (0, BTreeSet::new());
    let report = config::read_str(name(text), text, &folders, &mut |monitor| {
        monitors += 1;
        assert!((1..=255).contains(&monitor.name.len()), "{:?}", monitor.name);
        assert!(!monitor.name.chars().any(char::is_control), "{:?}", monitor.name);
        assert!(names.insert(monitor.name.clone()), "{:?} twice", monitor.name);
        let policy = &monitor.policy;
        assert!(policy.timeout <= policy.interval && policy.unhealthy_threshold > 0 && policy.healthy_threshold > 0);
    });
    assert_eq!(report.monitors, monitors);
    assert!(report.enabled <= monitors);
    // Whoever gets nothing is told why.
    assert!(monitors > 0 || report.diagnostics.errors() + report.diagnostics.warnings() > 0);
    for diagnostic in report.diagnostics.iter() {
        for line in diagnostic.to_string().lines() {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
});
