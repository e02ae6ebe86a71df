//! `cargo xtask check`: everything that must hold before a merge, cheapest first.
//!
//! Stops at the first failure and prints the command that repeats that step alone. Tests that could not run say
//! `SKIPPED name: reason`; they are listed at the end, and with `CPRA_NO_SKIP=1` they fail unless
//! `tests/allowed-skips.txt` names them.

use std::path::Path;

use anyhow::Context;

use crate::steps::{Steps, cargo, execute, has_subcommand, shell_line};
use crate::{build_ebpf, packages, target_folder, tidy};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only formatting, clippy, tidy and unit tests
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    if !options.quick {
        steps.step("packages", "cargo xtask packages", packages::bring)?;
    }
    steps.command("format", cargo().args(["fmt", "--all", "--check"]))?;
    steps.command("clippy", cargo().args(clippy(None)))?;
    if !options.quick {
        steps.command("clippy with planted bugs", cargo().args(clippy(Some("cpra/planted-bugs"))))?;
    }
    steps.step("tidy", "cargo xtask tidy", tidy::check)?;
    if !options.quick {
        let kernel = |arguments: &[&str]| {
            let mut command = cargo();
            command.current_dir("cpra-ebpf").env("CARGO_TARGET_DIR", "../target/ebpf").args(arguments);
            command
        };
        steps.command("format of cpra-ebpf", &mut kernel(&["fmt", "--check"]))?;
        steps.command(
            "clippy of cpra-ebpf",
            &mut kernel(&["clippy", "--release", "--locked", "--", "-D", "warnings"]),
        )?;
        steps.step("eBPF object", "cargo xtask build-ebpf --check", build_ebpf::check)?;
    }
    tests(&mut steps, options.quick)?;
    if !options.quick {
        steps.command("simulation", cargo().args(["xtask", "sim", "--seeds", "500"]))?;
        steps.command("planted bugs", cargo().args(["xtask", "sim", "--planted"]))?;
        deny(&mut steps)?;
    }
    steps.summary();
    println!("\nall good");
    Ok(())
}

fn clippy(features: Option<&'static str>) -> Vec<&'static str> {
    let mut arguments = vec!["clippy", "--workspace", "--all-targets", "--locked"];
    arguments.extend(features.iter().flat_map(|features| ["--features", features]));
    arguments.extend(["--", "-D", "warnings"]);
    arguments
}

fn tests(steps: &mut Steps, quick: bool) -> anyhow::Result<()> {
    // Runners show only the output of failed tests: a test that skips therefore also appends to this file.
    let skips = target_folder()?.join("skipped-tests.txt");
    std::fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    let mut command = cargo();
    if has_subcommand("nextest") {
        command.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
        command.args(["--status-level", "slow", "--final-status-level", "slow", "--show-progress", "none"]);
    } else {
        command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    }
    let selection: &[&str] = if quick { &["--lib", "--bins"] } else { &["--lib", "--bins", "--tests"] };
    command.args(selection);
    let repeat = shell_line(&command);
    command.env("CPRA_SKIP_LOG", &skips);
    let name = if quick { "unit tests" } else { "tests" };
    steps.step(name, &repeat, || {
        execute(&mut command)?;
        report_skips(&skips)
    })?;
    if !quick {
        steps.command("doc tests", cargo().args(["test", "--workspace", "--locked", "--doc", "--quiet"]))?;
    }
    Ok(())
}

fn report_skips(log: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(log)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    for line in &lines {
        println!("{line}");
    }
    Ok(if lines.is_empty() { "none skipped".into() } else { format!("{} SKIPPED, see above", lines.len()) })
}

fn deny(steps: &mut Steps) -> anyhow::Result<()> {
    // The advisory database needs the network; licences, bans and sources do not.
    if has_subcommand("deny") {
        steps.command("deny", cargo().args(["deny", "--all-features", "check", "licenses", "bans", "sources"]))
    } else {
        steps.skipped("deny", "cargo-deny is not installed (cargo install cargo-deny --locked)");
        Ok(())
    }
}
