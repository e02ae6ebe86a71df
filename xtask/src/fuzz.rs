//! `cargo xtask fuzz`: builds a fuzz target with coverage instrumentation and runs it for a while.
//!
//! The stable toolchain does it: the instrumentation is a pass of LLVM, and without a sanitizer nothing has to be built
//! anew but what is fuzzed. (Rejected: cargo-fuzz, which is one more tool to install and does the same with these flags.)
//! What a run finds of interest stays in `target/fuzz/corpus`, what breaks in `target/fuzz/artifacts`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::steps::cargo;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                               -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                               -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
                               -Ccodegen-units=1 --cfg fuzzing";

#[derive(Args)]
pub(crate) struct Options {
    /// The targets (see fuzz/targets); all of them by default
    targets: Vec<String>,
    /// How long each of them runs
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let known = targets()?;
    for target in &options.targets {
        if !known.contains(target) {
            bail!("there is no fuzz target {target}: there are {}", known.join(", "));
        }
    }
    let targets = if options.targets.is_empty() { &known } else { &options.targets };
    let folder = std::env::current_dir()?.join("target/fuzz");
    for target in targets {
        let program = build(target, &folder)?;
        let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts").join(target));
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&artifacts)?;
        seed(target, &corpus)?;
        println!("fuzzing {target} for {} s", options.seconds);
        let status = Command::new(program)
            .arg(&corpus)
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-max_len=65536", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"])
            .status()?;
        if !status.success() {
            bail!("{target} broke ({status}): the input is in {}", artifacts.display());
        }
    }
    Ok(())
}

/// The names of the targets, in order.
fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/targets").context("fuzz/targets cannot be read")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn build(target: &str, folder: &std::path::Path) -> anyhow::Result<PathBuf> {
    let status = cargo()
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--bin", target, "--target", TRIPLE])
        .arg("--target-dir")
        .arg(folder)
        .env("RUSTFLAGS", INSTRUMENTATION)
        .status()?;
    if !status.success() {
        bail!("{target} cannot be built: {status}");
    }
    Ok(folder.join(TRIPLE).join("release").join(target))
}

/// What the repository has of the kind is where a first run begins.
fn seed(target: &str, corpus: &std::path::Path) -> anyhow::Result<()> {
    let from = PathBuf::from("fuzz/seeds").join(target);
    if !from.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), corpus.join(entry.file_name()))?;
    }
    Ok(())
}
