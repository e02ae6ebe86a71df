//! The repository's own commands: `cargo xtask check` before every merge, `cargo xtask bench pulse` for figures.
//!
//! One file per command. Nothing here ships with the daemon.

// The bans on std's clocks and hash maps keep the library replayable; this crate measures real time on purpose.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod bench;
mod build_ebpf;
mod check;
mod fuzz;
mod packages;
mod sim;
mod steps;
mod tidy;

/// What `bench steps` shares with the tests.
#[path = "../../tests/live/mod.rs"]
mod live;

/// Compiled here as well, so that its own tests run.
#[cfg(test)]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "Commands for those who work on cpra")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a merge; stops at the first failure and says how to repeat it
    Check(check::Options),
    /// The house rules that no compiler knows
    Tidy,
    /// Runs shards and desk in a simulated world, a story per seed
    Sim(sim::Options),
    /// Makes the object that the daemon loads into the kernel
    BuildEbpf(build_ebpf::Options),
    /// Figures, and the loops that they are compared with
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Throws bytes at what reads bytes: builds the fuzz targets and runs them
    Fuzz(fuzz::Options),
    /// Installs the programs that tests run against (Debian-like systems, as root); elsewhere names them
    Packages,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by `Debug`: a backtrace of this program helps nobody whose test failed.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // Every path below is relative to the repository, wherever the command was started.
    std::env::set_current_dir(repository())?;
    match Arguments::parse().command {
        Command::Check(options) => check::run(&options),
        Command::Tidy => tidy::run(),
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::Bench(bench) => bench::run(&bench),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Packages => packages::run(),
        Command::Sim(options) => sim::run(&options),
    }
}

/// Where cargo builds: this program lies in the folder of its profile there.
fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    program.ancestors().nth(2).map(Path::to_path_buf).context("this program lies in no target folder")
}

/// The root of the repository: the parent of this crate when it was built.
fn repository() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
