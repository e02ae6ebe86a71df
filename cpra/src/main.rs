//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use cpra::cli::{self, Args};

fn main() -> ExitCode {
    cli::obey(&Args::parse())
}
