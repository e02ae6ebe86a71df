//! A monitors file of any content: read to its end, with monitors or faults, never a panic.

#![no_main]

use std::path::Path;

use cpra::config::{self, Folders};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let folders = Folders::new(Path::new("/work"), Path::new("/var/lib/cpra"), Path::new("/tmp"));
    let mut monitors = 0;
    let report = config::read_str("fuzz.yaml", text, &folders, &mut |_monitor| monitors += 1);
    assert_eq!(report.monitors, monitors);
    // Whoever gets nothing is told why.
    assert!(monitors > 0 || report.diagnostics.errors() + report.diagnostics.warnings() > 0);
});
