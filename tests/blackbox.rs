//! Beside Prometheus' blackbox exporter: the same targets, judged by it and by `cpra check`, with the settings that
//! docs/blackbox.md says are the same.
//!
//! Every row of the tables says what is expected of both, and for what reason: two probers that fail because a test is
//! wrong agree, too. Where they differ on purpose, the row names a heading of docs/blackbox.md that says why.

mod counterparts;

#[path = "blackbox/dns.rs"]
mod dns;
#[path = "blackbox/echo.rs"]
mod echo;
#[path = "blackbox/http.rs"]
mod http;
#[path = "blackbox/tcp.rs"]
mod tcp;
#[path = "blackbox/tls.rs"]
mod tls;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use counterparts::exporter::{Exporter, Probed, judge};

const BINARY: &str = env!("CARGO_BIN_EXE_cpra");
const DOCUMENT: &str = include_str!("../docs/blackbox.md");

/// Long enough on however busy a machine, and short where it is what ends the check.
const PATIENT: &str = "9s";
const SOON: &str = "1s";

/// One target, and how either is told to look at it.
struct Row {
    name: &'static str,
    /// Ours, and the exporter's.
    timeouts: [&'static str; 2],
    /// The exporter's target and, without its braces and `timeout`, its module.
    target: String,
    module: String,
    /// Our pulse, without its braces, `interval` and `timeout`.
    pulse: String,
    expected: Expected,
}

enum Expected {
    Up,
    /// Our code, and a word of the exporter's log.
    Down(&'static str, &'static str),
    Differs(Difference),
}

/// Our verdict and code, what the exporter has against the target (a word of its log), and the heading that says why.
struct Difference {
    ours: (&'static str, &'static str),
    theirs: Result<(), &'static str>,
    heading: &'static str,
}

impl Row {
    /// Both are expected to find it well, until something else is said.
    fn new(name: &'static str, target: impl Into<String>, module: impl Into<String>, pulse: impl Into<String>) -> Self {
        let (target, module, pulse) = (target.into(), module.into(), pulse.into());
        Self { name, timeouts: [PATIENT; 2], target, module, pulse, expected: Expected::Up }
    }

    /// An http target by its url; `module` and `settings` begin with a comma where they are not empty.
    fn http(name: &'static str, url: &str, module: &str, settings: &str) -> Self {
        let module = format!("prober: http, http: {{preferred_ip_protocol: ip4{module}}}");
        Self::new(name, url, module, format!("type: http, config: {{url: \"{url}\"{settings}}}"))
    }

    /// It is time that ends it.
    fn soon(self) -> Self {
        Self { timeouts: [SOON; 2], ..self }
    }

    /// Only the exporter waits to no end; we need not be in a hurry.
    fn soon_for_the_exporter(self) -> Self {
        Self { timeouts: [PATIENT, SOON], ..self }
    }

    fn down(self, code: &'static str, word: &'static str) -> Self {
        Self { expected: Expected::Down(code, word), ..self }
    }

    fn differs(
        self,
        ours: (&'static str, &'static str),
        theirs: Result<(), &'static str>,
        heading: &'static str,
    ) -> Self {
        Self { expected: Expected::Differs(Difference { ours, theirs, heading }), ..self }
    }

    /// What is not as expected.
    fn compare(&self, ours: &Ours, theirs: &Probed) -> Option<String> {
        let (verdict, code) = (ours.verdict.as_str(), ours.code.as_str());
        let as_expected = match &self.expected {
            Expected::Up => theirs.success && verdict == "ok",
            Expected::Down(expected, word) => {
                !theirs.success && theirs.told.contains(word) && (verdict, code) == ("fail", *expected)
            }
            Expected::Differs(difference) => {
                let is_theirs = match difference.theirs {
                    Ok(()) => theirs.success,
                    Err(word) => !theirs.success && theirs.told.contains(word),
                };
                is_theirs
                    && (verdict, code) == difference.ours
                    && DOCUMENT.lines().any(|line| line.strip_prefix("### ") == Some(difference.heading))
            }
        };
        let log: Vec<&str> = theirs.told.lines().filter(|line| line.contains("level=")).collect();
        let log = log.join("\n    ");
        let Probed { success, .. } = theirs;
        (!as_expected).then(|| format!("{}: {ours:?}\n  exporter: {success}\n    {log}", self.name))
    }
}

/// What `cpra check --json` said.
#[derive(Debug)]
struct Ours {
    verdict: String,
    code: String,
    #[allow(dead_code, reason = "for the message of a test that fails")]
    reason: Value,
}

/// A folder for the files of both.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = TempDir::with_prefix("cpra-blackbox-").expect("a temporary directory");
        let trusted = folder.path().join("trusted");
        fs::create_dir(&trusted).expect("a folder");
        let settings = format!("[security]\nsecret_dirs = [{:?}]\n", trusted.display().to_string());
        fs::write(folder.path().join("cpra.toml"), settings).expect("a file in the test's own folder");
        Self { folder }
    }

    /// A copy where monitors may refer to it.
    fn trusted(&self, file: &Path) -> PathBuf {
        let copy = self.folder.path().join("trusted").join(file.file_name().expect("a file"));
        fs::copy(file, &copy).expect("it can be copied");
        copy
    }

    /// Has every row judged by both. Skips without the exporter.
    fn compare(&self, rows: &[Row]) {
        let (mut modules, mut monitors) = ("modules:\n".to_owned(), String::new());
        for Row { name, timeouts: [ours, theirs], module, pulse, .. } in rows {
            writeln!(modules, "  {name}: {{timeout: {theirs}, {module}}}").expect("a string takes every line");
            writeln!(monitors, "- name: {name}\n  pulse: {{interval: 30s, timeout: {ours}, {pulse}}}")
                .expect("a string takes every line");
        }
        let Some(exporter) = Exporter::start(&modules) else { return };
        fs::write(self.folder.path().join("monitors.yaml"), monitors).expect("a file in the test's own folder");
        let unlike: Vec<String> = rows
            .iter()
            .filter_map(|row| row.compare(&self.check(row.name), &exporter.probe(row.name, &row.target)))
            .collect();
        assert!(unlike.is_empty(), "{} of {} rows:\n{}", unlike.len(), rows.len(), unlike.join("\n"));
    }

    fn check(&self, name: &str) -> Ours {
        let output = Command::new(BINARY)
            .args(["check", name, "--yaml", "monitors.yaml", "--config", "cpra.toml", "--json"])
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .output()
            .expect("the binary can be started");
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", String::from_utf8_lossy(&output.stderr)));
        let text = |key: &str| said[key].as_str().unwrap_or_else(|| panic!("no {key} in {said}")).to_owned();
        let ours = Ours { verdict: text("verdict"), code: text("outcome"), reason: said["reason"].clone() };
        let by_exit = output.status.code().and_then(|code| ["ok", "fail", "warn", "void"].get(code as usize).copied());
        assert_eq!(by_exit, Some(ours.verdict.as_str()), "{name}: {:?}", output.status);
        ours
    }
}

#[test]
fn the_modules_of_the_document_are_sound() {
    let folder = TempDir::new().expect("a temporary directory");
    let mut count = 0;
    for block in DOCUMENT.split("```yml\n").skip(1) {
        let file = folder.path().join("blackbox.yml");
        fs::write(&file, block.split("```").next().unwrap_or_default()).expect("a file");
        match judge(&file) {
            Some(judged) => assert_eq!(judged, Ok(())),
            None => return,
        }
        count += 1;
    }
    assert!(count > 0, "the document shows no module");
}
