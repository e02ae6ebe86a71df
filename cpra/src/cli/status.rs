//! `cpra status`: the daemon at a glance.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::Args as Flags;
use super::client::{Client, ClientError, printable};
use crate::units::Span;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn status(flags: &Flags, args: &Args) -> Result<ExitCode, ClientError> {
    let status = Client::of(flags)?.ask("GET", "/api/v1/status")?;
    let text = if args.json { format!("{status}\n") } else { table(&status) };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let ready = status["readiness"]["ready"].as_bool() == Some(true);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let word = |value: &Value| printable(value.as_str().unwrap_or("?"));
    let _ = writeln!(
        text,
        "cpra {} on {}, running for {}",
        word(&status["version"]),
        word(&status["instance"]),
        span(&status["uptime_seconds"])
    );
    let reasons = list(&status["readiness"]["reasons"], word);
    let ready = status["readiness"]["ready"].as_bool() == Some(true);
    let _ =
        writeln!(text, "ready     {}", if ready { "yes".to_owned() } else { format!("no: {}", reasons.join("; ")) });
    let states = status["monitors"]["states"].as_object().into_iter().flatten();
    let states: Vec<String> = states
        .filter(|(_, count)| number(count) > 0)
        .map(|(state, count)| format!("{} {}", printable(state), number(count)))
        .collect();
    let _ = writeln!(text, "monitors  {} in all: {}", number(&status["monitors"]["total"]), states.join(", "));
    let checks = &status["checks"];
    let _ = writeln!(
        text,
        "checks    {} made, {} in flight; lag p99 {}",
        number(&checks["total"]),
        number(&checks["in_flight"]),
        span(&status["lag_seconds"]["p99"]),
    );
    for pipeline in status["pipelines"].as_array().into_iter().flatten() {
        let _ = write!(
            text,
            "{:<9} {} of {} workers busy, {} waiting",
            word(&pipeline["pipeline"]),
            number(&pipeline["busy"]),
            number(&pipeline["workers"]),
            number(&pipeline["waiting"]),
        );
        let tightest = &pipeline["tightest"];
        if tightest.is_object() {
            let what = if tightest["of"].as_str() == Some("wait") { "waiting " } else { "" };
            let _ = write!(
                text,
                "; {} {what}{} {}, promised {}",
                word(&tightest["class"]),
                word(&tightest["percentile"]),
                span(&tightest["measured_seconds"]),
                span(&tightest["goal_seconds"]),
            );
        }
        let unreachable = pipeline["unreachable"].as_bool() == Some(true);
        let allowed = number(&pipeline["workers_max"]);
        let remedy = format!("; the promise is out of reach with {allowed} workers: raise max_workers");
        let _ = writeln!(text, "{}", if unreachable { remedy.as_str() } else { "" });
    }
    let results = &status["notices"]["results"];
    let _ = writeln!(
        text,
        "notices   {} sent, {} to the fallback, {} failed, {} waiting",
        number(&results["sent"]),
        number(&results["fallback"]),
        number(&results["failed"]),
        number(&status["notices"]["waiting"]),
    );
    let outbox = &status["outbox"];
    let (undelivered, dead) = (number(&outbox["undelivered"]), number(&outbox["states"]["dead"]));
    let oldest =
        if undelivered > 0 { format!(", the oldest for {}", span(&outbox["oldest_seconds"])) } else { String::new() };
    let given_up = if dead > 0 { "; see `cpra outbox list --dead`" } else { "" };
    let _ = writeln!(text, "outbox    {undelivered} undelivered{oldest}; {dead} could not be delivered{given_up}");
    let open = list(&status["episodes"], |episode| {
        format!("{} for {}: {}", word(&episode["monitor"]), span(&episode["lasted_seconds"]), word(&episode["cause"]))
    });
    let _ = writeln!(text, "incidents {} open", number(&status["episodes_open"]));
    for line in open.iter().chain(&list(&status["faults"], word)) {
        let _ = writeln!(text, "          {line}");
    }
    text
}

fn list(values: &Value, text: impl Fn(&Value) -> String) -> Vec<String> {
    values.as_array().into_iter().flatten().map(text).collect()
}

/// Seconds, as people say them.
pub(super) fn span(seconds: &Value) -> String {
    match seconds.as_f64() {
        Some(seconds) if seconds >= 0.0 => Span::from_micros((seconds * 1e6) as u64).to_string(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_a_few_lines() {
        let status = json!({
            "version": "0.1.0", "instance": "mon-1", "uptime_seconds": 90.0,
            "readiness": {"ready": false, "reasons": ["no monitors are loaded"]},
            "monitors": {"total": 3, "states": {"up": 2, "down": 1, "suspect": 0}},
            "checks": {"total": 12, "in_flight": 1}, "lag_seconds": {"p99": 0.0004},
            "pipelines": [
                {"pipeline": "pulse", "workers": 64, "workers_max": 2000, "busy": 12, "waiting": 3, "unreachable": false,
                 "tightest": {"class": "http", "of": "result", "percentile": "p95", "measured_seconds": 0.041,
                              "goal_seconds": 0.1}},
                {"pipeline": "code", "workers": 64, "workers_max": 64, "busy": 64, "waiting": 9, "unreachable": true,
                 "tightest": null}
            ],
            "notices": {"results": {"sent": 1, "fallback": 0, "failed": 0}, "waiting": 2},
            "outbox": {"states": {"dead": 2}, "undelivered": 3, "oldest_seconds": 90.0},
            "episodes_open": 1,
            "episodes": [{"monitor": "shop/web", "lasted_seconds": 12.0, "cause": "refused\u{7}"}],
            "faults": []
        });
        let text = table(&status);
        assert!(
            text.starts_with("cpra 0.1.0 on mon-1, running for 1 m 30 s\nready     no: no monitors are loaded\n"),
            "{text}"
        );
        assert!(text.contains("monitors  3 in all: down 1, up 2\n") && text.contains("lag p99 0.4 ms\n"), "{text}");
        assert!(
            text.contains(
                "pulse     12 of 64 workers busy, 3 waiting; http p95 41 ms, promised 100 ms\n\
                 code      64 of 64 workers busy, 9 waiting; the promise is out of reach with 64 workers: raise \
                 max_workers\n"
            ),
            "{text}"
        );
        let outbox = "outbox    3 undelivered, the oldest for 1 m 30 s; 2 could not be delivered; see `cpra outbox list --dead`\n";
        assert!(text.contains(outbox), "{text}");
        assert!(text.ends_with("incidents 1 open\n          shop/web for 12 s: refused\n"), "{text}");
        // An answer of another version is no panic.
        assert!(table(&json!({})).contains("unknown"));
    }
}
