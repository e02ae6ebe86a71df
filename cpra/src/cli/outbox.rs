//! `cpra outbox list|retry|drop`: the alerts that are still to be delivered, or could not be.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::client::{Client, ClientError, encoded, printable};
use super::status::span;
use super::{Args as Flags, plural};
use crate::units::limits::API_PAGE_MAX;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show them, the oldest first
    List(List),
    /// Try them again now, also those that were given up
    Retry(Retry),
    /// Give them up: nobody is told
    Drop(Drop),
}

#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// Only those that are not tried again by themselves
    #[arg(long)]
    pub dead: bool,

    /// Only those to this destination
    #[arg(long, value_name = "NAME", conflicts_with = "dead")]
    pub to: Option<String>,

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Retry {
    #[command(flatten)]
    pub which: Which,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Drop {
    #[command(flatten)]
    pub which: Which,

    /// Needed where the notices are not named one by one
    #[arg(long)]
    pub yes: bool,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which ones. One of these has to be said.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Numbers that `cpra outbox list` shows
    #[arg(value_name = "ID")]
    pub ids: Vec<u64>,

    /// All that are not tried again by themselves
    #[arg(long)]
    pub dead: bool,

    /// All to this destination
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,

    /// All
    #[arg(long)]
    pub all: bool,
}

impl Which {
    /// One query for each request.
    fn queries(&self) -> Vec<String> {
        match &self.to {
            Some(name) => vec![format!("to={}", encoded(name))],
            None if self.dead => vec!["dead=true".to_owned()],
            None if self.all => vec!["all=true".to_owned()],
            None => self.ids.iter().map(|id| format!("id={id}")).collect(),
        }
    }
}

pub(super) fn outbox(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let client = Client::of(flags)?;
    match &args.command {
        Command::List(args) => list(&client, args),
        Command::Retry(args) => change(&client, "retry", &args.which, args.json),
        Command::Drop(args) if args.which.ids.is_empty() && !args.yes => {
            for query in args.which.queries() {
                let answer = client.ask("GET", &format!("/api/v1/outbox?limit={API_PAGE_MAX}&{query}"))?;
                let count = answer["notices"].as_array().map_or(0, Vec::len);
                let more = if answer["more"].as_bool() == Some(true) { "more than " } else { "" };
                let notices = plural(count, "notice");
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "cpra: this drops {more}{notices}, and nobody is told what was in them; add --yes if you mean it"
                );
            }
            Ok(ExitCode::FAILURE)
        }
        Command::Drop(args) => change(&client, "drop", &args.which, args.json),
    }
}

fn change(client: &Client, action: &str, which: &Which, json: bool) -> Result<ExitCode, ClientError> {
    let mut changed = 0;
    for query in which.queries() {
        let answer = client.ask("POST", &format!("/api/v1/outbox/{action}?{query}"))?;
        changed += usize::try_from(answer["notices"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        if json {
            let _ = writeln!(std::io::stdout().lock(), "{answer}");
        }
    }
    if !json {
        let done = if action == "retry" { "tried again now" } else { "dropped" };
        let line = match changed {
            0 => "there is no such notice: nothing was changed".to_owned(),
            1 => format!("1 notice is {done}"),
            many => format!("{many} notices are {done}"),
        };
        // A closed pipe behind us changes nothing about what was done.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, args: &List) -> Result<ExitCode, ClientError> {
    let selection = match &args.to {
        Some(name) => format!("&to={}", encoded(name)),
        None if args.dead => "&dead=true".to_owned(),
        None => String::new(),
    };
    let answer = client.ask("GET", &format!("/api/v1/outbox?limit={API_PAGE_MAX}{selection}"))?;
    let rows = answer["notices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let more = answer["more"].as_bool() == Some(true);
    let text = if args.json { rows.iter().map(|row| format!("{row}\n")).collect() } else { table(rows) };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if more {
        let _ = writeln!(std::io::stderr().lock(), "these are the oldest {}; there are more", rows.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "nothing is undelivered\n".to_owned();
    }
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| printable(row[key].as_str().unwrap_or("-"));
            [
                row["id"].to_string(),
                text("state"),
                text("destination"),
                text("color"),
                text("monitor"),
                span(&row["age_seconds"]),
                last(row),
            ]
        })
        .collect();
    let head = ["ID", "STATE", "TO", "COLOR", "MONITOR", "AGE", "LAST"].map(str::to_owned);
    let mut widths = [0; 7];
    for row in cells.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in [&head].into_iter().chain(&cells) {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What came of it so far: `2 tries, failed: 503 try later`.
pub(super) fn last(row: &Value) -> String {
    let tries = match row["attempts"].as_u64() {
        None | Some(0) => return "not tried yet".to_owned(),
        Some(1) => "1 try".to_owned(),
        Some(many) => format!("{many} tries"),
    };
    let last = &row["last"];
    match (last["result"].as_str(), last["said"].as_str().filter(|said| !said.is_empty())) {
        (Some(result), Some(said)) => format!("{tries}, {}: {}", printable(result), printable(said)),
        (Some(result), None) => format!("{tries}, {}", printable(result)),
        (None, _) => tries,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let flags = Flags::try_parse_from(line.split_whitespace())?;
        match flags.command {
            Some(super::super::Command::Outbox(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn which_ones_has_to_be_said_once() {
        for wrong in [
            "cpra outbox",
            "cpra outbox drop",
            "cpra outbox retry",
            "cpra outbox drop --yes",
            "cpra outbox drop 1 --all",
            "cpra outbox retry --dead --to a",
            "cpra outbox drop x",
            "cpra outbox list 12",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let queries = |line: &str| match parse(line).expect(line).command {
            Command::Retry(retry) => retry.which.queries(),
            Command::Drop(drop) => drop.which.queries(),
            Command::List(_) => vec![],
        };
        assert_eq!(queries("cpra outbox retry 1 7"), ["id=1", "id=7"]);
        assert_eq!(queries("cpra outbox drop --dead --yes"), ["dead=true"]);
        assert_eq!(queries("cpra outbox retry --to a/b"), ["to=a%2Fb"]);
        assert_eq!(queries("cpra outbox drop --all"), ["all=true"]);
    }

    #[test]
    fn the_table_says_what_came_of_each() {
        let rows = [
            json!({"id": 7, "state": "pausing", "destination": "chat", "color": "red", "monitor": "shop/web",
                   "age_seconds": 90.0, "attempts": 2, "last": {"result": "failed", "said": "503 \u{1b}[31mlater"}}),
            json!({"id": 12, "state": "waiting", "destination": "pager", "color": "green", "monitor": "db",
                   "age_seconds": 1.0, "attempts": 0, "last": null}),
        ];
        assert_eq!(
            table(&rows),
            "ID  STATE    TO     COLOR  MONITOR   AGE       LAST\n\
             7   pausing  chat   red    shop/web  1 m 30 s  2 tries, failed: 503 [31mlater\n\
             12  waiting  pager  green  db        1 s       not tried yet\n"
        );
        assert_eq!(table(&[]), "nothing is undelivered\n");
        // An answer of another version is no panic.
        assert!(table(&[json!({})]).contains("null"));
    }
}
