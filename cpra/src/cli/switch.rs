//! `cpra disable NAME`, `cpra enable NAME`: until the daemon ends, or is told otherwise.

use std::io::Write as _;
use std::process::ExitCode;

use super::Args as Flags;
use super::client::{Client, ClientError, encoded, printable};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The monitor's name
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn switch(flags: &Flags, args: &Args, action: &str) -> Result<ExitCode, ClientError> {
    let client = Client::of(flags)?;
    let answer = client.ask("POST", &format!("/api/v1/monitors/{}/{action}", encoded(&args.name)))?;
    let line = if args.json {
        answer.to_string()
    } else {
        format!("{} is {action}d", printable(answer["monitor"].as_str().unwrap_or(&args.name)))
    };
    // A closed pipe behind us changes nothing about what was done.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    Ok(ExitCode::SUCCESS)
}
