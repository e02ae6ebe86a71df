//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use cpra::cli::{self, Args};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.check_config { cli::check_config(&args) } else { cli::run(&args) }
}
