//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use cpra::cli::{self, Args};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.check_config {
        return cli::check_config(&args);
    }
    run(&args)
}

/// Stands where the daemon will be started.
fn run(_args: &Args) -> ExitCode {
    eprintln!("cpra: this build only checks files; add --check-config");
    ExitCode::FAILURE
}
