//! `cpra reload`: have the running daemon read its files again.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::Args as Flags;
use super::client::{Client, ClientError, printable};
use crate::units::limits::RELOAD_ANSWER_MAX;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Also when many monitors go
    #[arg(long)]
    pub force: bool,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn reload(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let path = format!("/api/v1/reload?dry_run={}&force={}", args.dry_run, args.force);
    let answer = Client::of(flags)?.patient(RELOAD_ANSWER_MAX).ask("POST", &path)?;
    let text = if args.json { format!("{answer}\n") } else { told(&answer) };
    // A closed pipe behind us changes nothing about what was done.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// The answer for people.
fn told(answer: &Value) -> String {
    let changes = answer["changes"].as_object();
    let counts = changes.into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
    let counts: Vec<String> = counts.map(|(kind, count)| format!("{count} {}", printable(kind))).collect();
    let counts = if counts.is_empty() { "no monitors".to_owned() } else { counts.join(", ") };
    let is_dry = answer["dry_run"].as_bool() == Some(true);
    let mut text = format!("{}: {counts}\n", if is_dry { "would be reloaded" } else { "reloaded" });
    for (kind, names) in answer["examples"].as_object().into_iter().flatten() {
        let count = changes.and_then(|changes| changes.get(kind)?.as_u64()).unwrap_or(0);
        let names: Vec<String> =
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(printable).collect();
        let more = if count > names.len() as u64 { ", ..." } else { "" };
        let _ = writeln!(text, "  {:<10} {}{more}", printable(kind), names.join(", "));
    }
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(text, "  note       {}", printable(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_with_their_first_names() {
        let answer = serde_json::json!({
            "dry_run": true,
            "changes": {"added": 2, "removed": 0, "unchanged": 98},
            "examples": {"added": ["shop/web", "shop/\u{1b}[2Jdb"]},
            "notes": ["api of the daemon file counts from the next start on: restart to apply"],
        });
        let text = told(&answer);
        assert!(text.starts_with("would be reloaded: 2 added, 98 unchanged\n  added      shop/web, shop/"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("\n  note       api of"), "{text}");
    }
}
