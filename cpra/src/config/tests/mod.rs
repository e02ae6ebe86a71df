//! Whole files in, monitors and diagnostics out.

mod documentation;
mod faults;
mod files;
mod grammar;
mod hostile;
mod keys;
mod oracle;
mod providers;
mod secrets;
mod settings;

use std::path::Path;

use super::{Folders, Report, read_str};
use crate::domain::Monitor;

fn folders() -> Folders {
    Folders::new(Path::new("/home/me"), Path::new("/var/lib/cpra"), Path::new("/tmp"))
}

fn load(text: &str) -> (Vec<Monitor>, Report) {
    let mut monitors = Vec::new();
    let report = read_str("m.yaml", text, &folders(), &mut |monitor| monitors.push(monitor));
    assert_eq!(report.monitors, monitors.len());
    (monitors, report)
}

/// The first line of every diagnostic, without the file's name.
fn headlines(report: &Report) -> Vec<String> {
    let first =
        |text: String| text.lines().next().unwrap_or_default().trim_start_matches("m.yaml:").trim_start().to_owned();
    report.diagnostics.iter().map(|diagnostic| first(diagnostic.to_string())).collect()
}
