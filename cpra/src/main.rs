//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use cpra::cli;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(args) => cli::obey(&args),
        Err(code) => code,
    }
}
