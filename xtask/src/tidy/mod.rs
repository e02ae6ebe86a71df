//! `cargo xtask tidy`: the house rules that no compiler knows, checked mechanically.
//!
//! Each rule is a function from files to findings with a test on a small fixture. A finding reads
//! `file:line: rule: remedy`. The rules look at words and paths (see [`source`]); they do not understand macros, and
//! need not.

mod floors;
mod rules;
mod source;
mod text;

use std::process::Command;

use anyhow::{Context, bail};
use source::Source;

/// A rule that does not hold.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) remedy: String,
}

pub(crate) fn finding(source: &Source, offset: usize, rule: &'static str, remedy: String) -> Finding {
    Finding { path: source.path.clone(), line: source.line(offset), rule, remedy }
}

pub(crate) fn run() -> anyhow::Result<()> {
    println!("tidy: {}", check()?);
    Ok(())
}

/// Checks every file that git knows or would add.
pub(crate) fn check() -> anyhow::Result<String> {
    let sources = sources()?;
    let mut findings = Vec::new();
    floors::check(&sources, &mut findings);
    rules::check(&sources, &mut findings);
    text::check(&sources, &mut findings);
    findings.sort();
    findings.dedup();
    for Finding { path, line, rule, remedy } in &findings {
        println!("{path}:{line}: {rule}: {remedy}");
    }
    if !findings.is_empty() {
        bail!("{} findings in {} files", findings.len(), sources.len());
    }
    Ok(format!("{} files", sources.len()))
}

fn sources() -> anyhow::Result<Vec<Source>> {
    // The checkout may belong to someone else, such as a build user: only reading names, that is no danger.
    let listing = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("tidy takes its list of files from git")?;
    if !listing.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listing.stderr).trim());
    }
    let mut sources = Vec::new();
    for path in String::from_utf8(listing.stdout)?.split_terminator('\0') {
        // Deleted but not yet committed, a link to a folder, or not text: nothing to read.
        if let Ok(text) = std::fs::read_to_string(path) {
            sources.push(Source::new(path, text));
        }
    }
    Ok(sources)
}
