//! `cpra incident NAME`: what is wrong with a monitor, since when, who was told, whether it arrived; and the times before.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::Args as Flags;
use super::client::{Client, ClientError, encoded, printable};
use super::outbox::last;
use super::status::span;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The monitor's name
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Attempts to tell somebody, and incidents that are over: at most so many of each
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn incident(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let client = Client::of(flags)?;
    let path = format!("/api/v1/monitors/{}", encoded(&args.name));
    let history = client.ask("GET", &format!("{path}/history?limit={}", args.limit))?;
    let text = if args.json {
        format!("{history}\n")
    } else if history["is_loaded"].as_bool() == Some(true) {
        told(&client.ask("GET", &path)?, &history)
    } else {
        told(&Value::Null, &history)
    };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// In words, newest first. `monitor` is `null` where there is no such monitor any more.
fn told(monitor: &Value, history: &Value) -> String {
    let mut text = String::new();
    let name = word(&history["monitor"]);
    let state = match monitor["state"].as_str() {
        Some(state) => format!("is {}", printable(state)),
        None if monitor.is_null() => "is not watched any more".to_owned(),
        None => "is in no known state".to_owned(),
    };
    let found = &monitor["last"];
    let evidence = found["evidence"].as_str().or_else(|| found["outcome"].as_str());
    let evidence = evidence.map_or_else(String::new, |evidence| format!(": {}", printable(evidence)));
    let _ = writeln!(text, "{name} {state}{evidence}");
    let deliveries = rows(&history["deliveries"]);
    let open = &history["open"];
    let mut shown = Vec::new();
    if open.is_object() {
        let _ = writeln!(
            text,
            "\nopen for {}, since {}: {}\n  incident {}",
            span(&open["lasted_seconds"]),
            word(&open["opened"]),
            word(&open["cause"]),
            word(&open["incident"]),
        );
        for raised in rows(&open["raised"]) {
            let _ = writeln!(text, "  {} was raised to {}", word(&raised["color"]), raised["destinations"]);
        }
        tell(&mut text, &mut shown, deliveries, &open["incident"]);
    }
    let undelivered = rows(&history["undelivered"]);
    if !undelivered.is_empty() {
        let _ = writeln!(text, "\nstill to be delivered");
        for notice in undelivered {
            let next =
                notice["next"].as_str().map_or_else(String::new, |next| format!("; again at {}", printable(next)));
            let (what, state) = (addressed(notice), word(&notice["state"]));
            let _ = writeln!(text, "  {what}: {state}, {}{next} (notice {})", last(notice), notice["id"]);
        }
    }
    for closed in rows(&history["closed"]) {
        let red = if closed["red"].as_bool() == Some(true) { "red" } else { "no red" };
        let _ = writeln!(
            text,
            "\nfrom {} until {} ({}), {red}: {}\n  incident {}",
            word(&closed["opened"]),
            word(&closed["closed"]),
            span(&closed["lasted_seconds"]),
            word(&closed["cause"]),
            word(&closed["incident"]),
        );
        tell(&mut text, &mut shown, deliveries, &closed["incident"]);
    }
    // Those of incidents that are older than the ones above, and tests.
    let mut others = deliveries.iter().enumerate().filter(|(at, _)| !shown.contains(at)).peekable();
    if others.peek().is_some() {
        let _ = writeln!(text, "\nalso told");
        for (_, delivery) in others {
            line(&mut text, delivery);
        }
    }
    let is_kept = history["is_kept"].as_bool() == Some(true);
    if !is_kept && rows(&history["faults"]).is_empty() {
        let _ = writeln!(text, "\nthe past is not kept: this daemon has no store");
    } else if text.lines().count() == 1 {
        let _ = writeln!(text, "nothing has happened to it as far as is remembered");
    }
    for fault in rows(&history["faults"]) {
        let _ = writeln!(text, "\nincomplete: {}", word(fault));
    }
    text
}

/// The attempts of one incident, each of which is then among the `shown`.
fn tell(text: &mut String, shown: &mut Vec<usize>, deliveries: &[Value], incident: &Value) {
    let before = shown.len();
    for (at, delivery) in deliveries.iter().enumerate().filter(|(_, delivery)| delivery["incident"] == *incident) {
        shown.push(at);
        line(text, delivery);
    }
    if shown.len() == before {
        let _ = writeln!(text, "  nobody has been told of it so far as is remembered");
    }
}

fn line(text: &mut String, delivery: &Value) {
    let said = delivery["said"].as_str().filter(|said| !said.is_empty());
    let said = said.map_or_else(String::new, |said| format!(": {}", printable(said)));
    let attempt = match delivery["attempt"].as_u64() {
        None | Some(0 | 1) => String::new(),
        Some(attempt) => format!(" (try {attempt})"),
    };
    let (at, what, result) = (word(&delivery["at"]), addressed(delivery), word(&delivery["result"]));
    let _ = writeln!(text, "  {at}  {what}: {result}{said}{attempt}");
}

/// `red to team-chat (slack)`.
fn addressed(notice: &Value) -> String {
    format!("{} to {} ({})", word(&notice["color"]), word(&notice["destination"]), word(&notice["provider"]))
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    printable(value.as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn from_a_red_one_command_tells_the_story() {
        let delivery = |at: &str, incident: &str, color: &str, attempt: u64, result: &str, said: &str| {
            json!({"at": at, "incident": incident, "color": color, "destination": "chat", "provider": "slack",
                   "attempt": attempt, "result": result, "said": said})
        };
        let monitor = json!({"state": "down", "last": {"evidence": "connection refused", "outcome": "L4CON"}});
        let history = json!({
            "monitor": "shop/web", "is_loaded": true, "is_kept": true, "faults": [],
            "open": {"incident": "m/shop/web/02", "opened": "T3", "lasted_seconds": 90.0, "cause": "refused \u{1b}[31m",
                     "raised": [{"color": "red", "destinations": 2}]},
            "undelivered": [{"id": 7, "state": "pausing", "color": "red", "destination": "pager",
                             "provider": "pagerduty", "attempts": 2, "next": "T9",
                             "last": {"result": "failed", "said": "503"}}],
            "closed": [{"incident": "m/shop/web/01", "opened": "T1", "closed": "T2", "lasted_seconds": 1.0,
                        "cause": "timed out", "red": false}],
            "deliveries": [
                delivery("T5", "m/shop/web/02", "red", 2, "sent", "200 ok"),
                delivery("T4", "m/shop/web/02", "red", 1, "failed", "timed out"),
                delivery("T0", "m/shop/web/00", "green", 1, "sent", ""),
            ],
        });
        assert_eq!(
            told(&monitor, &history),
            "shop/web is down: connection refused\n\
             \n\
             open for 1 m 30 s, since T3: refused [31m\n  \
               incident m/shop/web/02\n  \
               red was raised to 2\n  \
               T5  red to chat (slack): sent: 200 ok (try 2)\n  \
               T4  red to chat (slack): failed: timed out\n\
             \n\
             still to be delivered\n  \
               red to pager (pagerduty): pausing, 2 tries, failed: 503; again at T9 (notice 7)\n\
             \n\
             from T1 until T2 (1 s), no red: timed out\n  \
               incident m/shop/web/01\n  \
               nobody has been told of it so far as is remembered\n\
             \n\
             also told\n  \
               T0  green to chat (slack): sent\n"
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let quiet = json!({"monitor": "a", "is_loaded": true, "is_kept": true});
        let up = json!({"state": "up", "last": {"outcome": "L4OK"}});
        assert_eq!(told(&up, &quiet), "a is up: L4OK\nnothing has happened to it as far as is remembered\n");
        let unkept = json!({"monitor": "a", "is_loaded": true, "is_kept": false});
        assert!(told(&up, &unkept).ends_with("the past is not kept: this daemon has no store\n"));
        let broken = json!({"monitor": "a", "is_kept": false, "faults": ["the store cannot be read"]});
        let text = told(&Value::Null, &broken);
        assert!(text.starts_with("a is not watched any more\n") && text.contains("incomplete: the store"), "{text}");
        // An answer of another version is no panic.
        assert!(told(&json!({}), &json!({})).starts_with("? is in no known state"));
    }
}
