//! `cpra monitors`: a table, page by page, as the daemon gives them.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::Args as Flags;
use super::client::{Client, ClientError, encoded, printable};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only those in this state: unknown, up, suspect, down, disabled, ...
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,

    /// Only those of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Only those with this text in their name
    #[arg(long = "q", value_name = "TEXT")]
    pub part: Option<String>,

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Columns are at least so wide, that pages of a table stand below each other.
const NAME_WIDTH: usize = 24;

pub(super) fn monitors(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let client = Client::of(flags)?;
    let mut query = String::from("limit=1000");
    for (key, value) in [("state", &args.state), ("group", &args.group), ("q", &args.part)] {
        if let Some(value) = value {
            query.push_str(&format!("&{key}={}", encoded(value)));
        }
    }
    let mut cursor = String::new();
    let mut headed = false;
    loop {
        let page = client.ask("GET", &format!("/api/v1/monitors?{query}&cursor={}", encoded(&cursor)))?;
        let rows = page["monitors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = if args.json {
            rows.iter().map(|row| format!("{row}\n")).collect()
        } else {
            let head = !headed;
            headed |= !rows.is_empty();
            table(rows, head)
        };
        if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
            // Whoever read this has had enough.
            return Ok(ExitCode::SUCCESS);
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn table(rows: &[Value], head: bool) -> String {
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| printable(row[key].as_str().unwrap_or("-"));
            let last = &row["last"];
            let found = last["evidence"].as_str().or_else(|| last["outcome"].as_str()).unwrap_or("-");
            [text("name"), text("state"), text("type"), text("target"), printable(found)]
        })
        .collect();
    let width = |column: usize, least: usize| {
        cells.iter().map(|row| row[column].chars().count()).chain([least]).max().unwrap_or(least)
    };
    let (name, state, kind, target) = (width(0, NAME_WIDTH), width(1, 11), width(2, 6), width(3, 24));
    let mut text = String::new();
    if head && !cells.is_empty() {
        text.push_str(&format!("{:name$}  {:state$}  {:kind$}  {:target$}  LAST\n", "NAME", "STATE", "TYPE", "TARGET"));
    }
    for [first, second, third, fourth, last] in &cells {
        text.push_str(&format!("{first:name$}  {second:state$}  {third:kind$}  {fourth:target$}  {last}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_safe_for_a_terminal() {
        let rows = [
            json!({"name": "shop/web", "state": "down", "type": "http", "target": "http://a/",
                   "last": {"outcome": "L4CON", "evidence": "refused \u{1b}[31m"}}),
            json!({"name": "ü☕", "state": null, "type": "tcp", "target": "b:1", "last": null}),
        ];
        let text = table(&rows, true);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("NAME ") && lines[0].ends_with("LAST"), "{text}");
        assert!(!text.contains('\u{1b}') && lines[1].ends_with("refused [31m"), "{text}");
        let column = |line: &str| line.char_indices().nth(NAME_WIDTH + 2).map(|(at, _)| line[at..].to_owned());
        assert!(column(lines[1]).is_some_and(|rest| rest.starts_with("down")), "{text}");
        assert!(column(lines[2]).is_some_and(|rest| rest.starts_with("-  ")), "{text}");
        assert_eq!(table(&[], true), "");
    }
}
