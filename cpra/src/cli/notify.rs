//! `cpra notify test NAME`: a marked notice through the daemon's own outbox, and what the other side answered.

use std::io::Write as _;
use std::process::ExitCode;
use std::thread;

use serde_json::Value;

use super::Args as Flags;
use super::client::{Client, ClientError, encoded, printable};
use super::outbox::last;
use super::{NOT_DONE, plural};
use crate::os::clock::Clock;
use crate::units::limits::{NOTIFY_TEST_EVERY, NOTIFY_TEST_WAIT};
use crate::units::{Instant, Span};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Send one that is marked as a test, and wait for what becomes of it; 0 only when it was sent
    Test(Test),
}

#[derive(Clone, Debug, clap::Args)]
pub struct Test {
    /// The destination: a name of [providers.NAME], or the type where only one is used; without it they are listed
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// As which color: yellow, red, cyan, green or gray
    #[arg(long, value_name = "COLOR", default_value = "red")]
    pub color: String,

    /// Print what became of it as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn notify(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let Command::Test(test) = &args.command;
    let client = Client::of(flags)?;
    let Some(name) = &test.name else { return list(&client, test.json) };
    let query = format!("to={}&color={}", encoded(name), encoded(&test.color));
    let queued = client.ask("POST", &format!("/api/v1/notify/test?{query}"))?;
    let notices = queued["notices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let began = Clock.now();
    let mut all_sent = !notices.is_empty();
    for id in notices {
        let (notice, end) = outcome(&client, id.as_u64().unwrap_or(0), test.json, began)?;
        let text = if test.json { notice.to_string() } else { end.text(&notice, Clock.now().since(began)) };
        let _ = writeln!(std::io::stdout().lock(), "{text}");
        all_sent &= end == End::Sent;
    }
    Ok(if all_sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for what becomes of a notice.
fn outcome(client: &Client, id: u64, silently: bool, began: Instant) -> Result<(Value, End), ClientError> {
    let mut tries = 0;
    loop {
        let notice = client.ask("GET", &format!("/api/v1/notices/{id}"))?;
        if let Some(end) = End::of(&notice, Clock.now().since(began)) {
            return Ok((notice, end));
        }
        if !silently && notice["attempts"].as_u64() > Some(tries) {
            tries = notice["attempts"].as_u64().unwrap_or(0);
            let _ = writeln!(std::io::stderr().lock(), "{}; it is tried again", last(&notice));
        }
        thread::sleep(NOTIFY_TEST_EVERY.into());
    }
}

/// How the wait for a test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Sent,
    /// It is done, and did not get where it should: the fallback has it.
    Elsewhere,
    /// It is not tried again by itself.
    Dead,
    /// It goes on trying.
    Late,
}

impl End {
    /// `None`: wait on.
    fn of(notice: &Value, waited: Span) -> Option<Self> {
        match notice["state"].as_str() {
            Some("done") if notice["last"]["result"].as_str() == Some("sent") => Some(Self::Sent),
            Some("done") => Some(Self::Elsewhere),
            Some("dead") => Some(Self::Dead),
            _ => (waited >= NOTIFY_TEST_WAIT).then_some(Self::Late),
        }
    }

    fn text(self, notice: &Value, waited: Span) -> String {
        let word = |key: &str| printable(notice[key].as_str().unwrap_or("?"));
        let (name, kind, last) = (word("destination"), word("provider"), last(notice));
        let id = notice["id"].as_u64().unwrap_or(0);
        match self {
            Self::Sent => format!("{name} ({kind}) has it after {waited}: {last}"),
            Self::Elsewhere => format!("{name} ({kind}) was not told, the fallback was: {last}"),
            Self::Dead => {
                format!("{name} ({kind}) was not told, and it is not tried again: {last}; `cpra outbox drop {id}`")
            }
            Self::Late => format!(
                "{name} ({kind}) was not told within {NOTIFY_TEST_WAIT}: {last}; it goes on trying unless you \
                 `cpra outbox drop {id}`"
            ),
        }
    }
}

fn list(client: &Client, json: bool) -> Result<ExitCode, ClientError> {
    let answer = client.ask("GET", "/api/v1/destinations")?;
    let rows = answer["destinations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = if json { rows.iter().map(|row| format!("{row}\n")).collect() } else { table(rows) };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    // Nothing was sent, and a script whose variable is empty must not believe that something was.
    Ok(ExitCode::from(NOT_DONE))
}

fn table(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "no destination is configured: see docs/config.md\n".to_owned();
    }
    let name = |row: &Value| printable(row["name"].as_str().unwrap_or("?"));
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  TYPE\n", "NAME");
    for row in rows {
        let same = match row["same_name"].as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count > 1 && row["named"].as_bool() != Some(true) => {
                format!("  (stands for {}: give them names in [providers.NAME])", plural(count, "destination"))
            }
            _ => String::new(),
        };
        let kind = printable(row["provider"].as_str().unwrap_or("?"));
        text.push_str(&format!("{:width$}  {kind}{same}\n", name(row)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_sent_is_sent() {
        let notice = |state: &str, result: &str| json!({"state": state, "last": {"result": result, "said": "x"}});
        let long = NOTIFY_TEST_WAIT;
        for (state, result, early, late) in [
            ("done", "sent", Some(End::Sent), End::Sent),
            ("done", "fallback", Some(End::Elsewhere), End::Elsewhere),
            ("dead", "refused", Some(End::Dead), End::Dead),
            ("pausing", "failed", None, End::Late),
            ("outstanding", "unsure", None, End::Late),
            ("waiting", "", None, End::Late),
        ] {
            assert_eq!(End::of(&notice(state, result), Span::ZERO), early, "{state} {result}");
            assert_eq!(End::of(&notice(state, result), long), Some(late), "{state} {result}");
        }
        // An answer of another version.
        assert_eq!(End::of(&json!({}), Span::ZERO), None);
        assert_eq!(End::of(&json!({"state": "done"}), Span::ZERO), Some(End::Elsewhere));
    }

    #[test]
    fn the_answer_of_the_other_side_is_shown() {
        let notice = json!({"id": 7, "destination": "chat", "provider": "slack", "state": "done", "attempts": 1,
                            "last": {"result": "sent", "said": "200 ok"}});
        let text = End::Sent.text(&notice, Span::from_millis(300));
        assert_eq!(text, "chat (slack) has it after 300 ms: 1 try, sent: 200 ok");
        assert!(End::Dead.text(&notice, Span::ZERO).ends_with("`cpra outbox drop 7`"));
        let rows = [
            json!({"name": "chat", "provider": "slack", "same_name": 1}),
            json!({"name": "log", "provider": "log", "same_name": 2}),
        ];
        assert_eq!(
            table(&rows),
            "NAME  TYPE\nchat  slack\nlog   log  (stands for 2 destinations: give them names in [providers.NAME])\n"
        );
    }
}
