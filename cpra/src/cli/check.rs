//! `cpra check NAME --yaml FILE`: one check without a daemon, and all that is seen of it.
//!
//! It is made by the same machinery as in the daemon ([`crate::os::solo`]): what it finds is what the daemon would find.
//! Nobody is told, nothing is remembered, and a disabled monitor is checked all the same.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Args as Flags, NOT_DONE, plural, run, summary};
use crate::config::{self, nearest};
use crate::domain::outcome::bounded_text;
use crate::domain::{Check, HostRef, Monitor, Outcome, Verdict};
use crate::os::solo::{Resolved, Seen, Solo};
use crate::units::limits::SOLO_MONITORS_MAX;
use crate::units::{MonitorId, Span};
use crate::world::Catalog;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Monitors of the file, by name
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<String>,

    /// Every monitor of the file, one after the other
    #[arg(long)]
    pub all: bool,

    /// Print one JSON object per check
    #[arg(long)]
    pub json: bool,
}

/// Lines of an answer's head, and letters of its body, that are shown.
const HEAD_LINES_MAX: usize = 32;
const LINE_MAX: usize = 160;
const BODY_MAX: usize = 240;

pub(super) fn check(flags: &Flags, args: &Args) -> ExitCode {
    match try_check(flags, args) {
        Ok(worst) => ExitCode::from(worst.map_or(NOT_DONE, exit_code)),
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "cpra: {error:#}");
            ExitCode::from(NOT_DONE)
        }
    }
}

const fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Fail => 1,
        Verdict::Warn => 2,
        Verdict::Void => 3,
    }
}

const fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Warn => 1,
        Verdict::Void => 2,
        Verdict::Fail => 3,
    }
}

fn try_check(flags: &Flags, args: &Args) -> anyhow::Result<Option<Verdict>> {
    if flags.yaml.is_empty() {
        anyhow::bail!("name the monitors file with --yaml FILE");
    }
    let (settings, diagnostics) = flags.settings();
    if diagnostics.errors() > 0 {
        anyhow::bail!("the daemon file has {}:\n{diagnostics}", plural(diagnostics.errors(), "error"));
    }
    let mut picked: Vec<Monitor> = Vec::new();
    let mut near = Near::new(&args.names);
    let mut too_many = false;
    let report = config::read_all(&flags.yaml, &flags.folders(&settings), &mut |mut monitor| {
        near.consider(&monitor.name);
        if args.all || args.names.iter().any(|name| **name == *monitor.name) {
            too_many |= picked.len() == SOLO_MONITORS_MAX;
            if picked.len() < SOLO_MONITORS_MAX {
                // Nothing is checked but what is asked for.
                monitor.enabled = false;
                picked.push(monitor);
            }
        }
    });
    // Other monitors may be wrong: that is told, and no reason not to check the right ones.
    let _ = write!(std::io::stderr().lock(), "{}", report.diagnostics);
    if too_many {
        anyhow::bail!("more than {SOLO_MONITORS_MAX} monitors: name some of them");
    }
    let known = |name: &String| picked.iter().any(|monitor| *monitor.name == **name);
    if let Some(unknown) = args.names.iter().find(|name| !known(name)) {
        let meant = near.of(unknown).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
        let shown = bounded_text(unknown, 300);
        anyhow::bail!("there is no sound monitor \"{shown}\" in {}{meant}", summary::sources(&report, &flags.yaml));
    }
    let mut names: Vec<String> =
        if args.all { picked.iter().map(|monitor| monitor.name.to_string()).collect() } else { args.names.clone() };
    names.dedup();
    let catalog = Arc::new(Catalog::build(picked, 1)?);
    let contexts = run::secure(&catalog)?;
    let (resolver, scripts) = (run::resolver(&settings), run::scripts(&settings));
    let mut solo = Solo::start(Arc::clone(&catalog), contexts, resolver, scripts)?;
    let mut worst: Option<Verdict> = None;
    for (position, name) in names.iter().enumerate() {
        let Some(id) = catalog.find(name) else { continue };
        let text = match unasked(&catalog.policy(id).check) {
            Some(why) => {
                worst = graver(worst, Verdict::Void);
                if args.json {
                    format!("{}\n", json!({"monitor": name, "verdict": "void", "reason": why}))
                } else {
                    format!("verdict   VOID  {name}: {why}\n")
                }
            }
            None => {
                let (outcome, seen) = solo.check(id);
                worst = graver(worst, outcome.verdict());
                if args.json {
                    format!("{}\n", as_json(&catalog, id, &outcome, &seen))
                } else {
                    let mut text = if names.len() > 1 { format!("{name}\n") } else { String::new() };
                    tell(&mut text, &catalog, id, &outcome, &seen);
                    if names.len() > 1 && position + 1 < names.len() {
                        text.push('\n');
                    }
                    text
                }
            }
        };
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
    Ok(worst)
}

fn graver(before: Option<Verdict>, now: Verdict) -> Option<Verdict> {
    Some(before.filter(|before| gravity(*before) >= gravity(now)).unwrap_or(now))
}

/// Why a kind of check cannot be made from here.
const fn unasked(check: &Check) -> Option<&'static str> {
    match check {
        Check::Tcp(_) | Check::Http(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) => None,
        Check::Push(_) => Some("nobody is asked: the job calls in, at the daemon that waits for it"),
    }
}

/// For each wanted name the nearest one that the file has.
struct Near<'a>(Vec<(&'a str, Option<String>)>);

impl<'a> Near<'a> {
    fn new(names: &'a [String]) -> Self {
        Self(names.iter().map(|name| (name.as_str(), None)).collect())
    }

    fn consider(&mut self, candidate: &str) {
        for (wanted, best) in &mut self.0 {
            // The new one last: of two equally near ones the first stays.
            let both = best.as_deref().into_iter().chain([candidate]);
            if let Some(nearer) = nearest(wanted, both).filter(|nearer| best.as_deref() != Some(*nearer)) {
                *best = Some(nearer.to_owned());
            }
        }
    }

    fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(wanted, _)| *wanted == name).and_then(|(_, best)| best.as_deref())
    }
}

const fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
        Verdict::Void => "VOID",
    }
}

fn tell(text: &mut String, catalog: &Catalog, id: MonitorId, outcome: &Outcome, seen: &Seen) {
    let latency = outcome.latency;
    match &seen.resolved {
        Some(Resolved { name, addresses: Ok(addresses) }) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "resolve   {name} -> {} ({})", addresses.join(", "), latency.resolve);
        }
        Some(Resolved { name, addresses: Err(why) }) => {
            let _ = writeln!(text, "resolve   {name}: {} ({})", bounded_text(why, LINE_MAX), latency.resolve);
        }
        None => {}
    }
    if let Some(address) = seen.tried.last() {
        let stood = if latency.connect > Span::ZERO { format!("in {}", latency.connect) } else { "not yet".to_owned() };
        let again = if seen.tried.len() > 1 { format!(" ({} connections)", seen.tried.len()) } else { String::new() };
        let _ = writeln!(text, "connect   {address} {stood}{again}");
    }
    if latency.tls > Span::ZERO {
        let _ = writeln!(text, "tls       in {}", latency.tls);
    }
    if let Some(status) = outcome.status {
        let _ = writeln!(text, "answer    {status} in {} (first byte {})", latency.total, latency.first_byte);
    } else if !seen.received.is_empty() {
        let _ = writeln!(text, "answer    {} in {}", plural(seen.received.len(), "byte"), latency.total);
    } else if seen.tried.is_empty() && latency.total > Span::ZERO {
        // Echoes, programs and questions to name servers use no connection.
        let _ = writeln!(text, "took      {}", latency.total);
    }
    let (head, body) = parts(&catalog.policy(id).check, &seen.received);
    for (position, line) in head.iter().enumerate() {
        let _ = writeln!(text, "{}{line}", if position == 0 { "headers   " } else { "          " });
    }
    if !body.is_empty() {
        let _ = writeln!(text, "body      {body}");
    }
    if outcome.attempts > 1 {
        let _ = writeln!(text, "attempts  {}", outcome.attempts);
    }
    let _ = write!(text, "verdict   {}  {}", verdict_text(outcome.verdict()), outcome.code);
    if let Some(evidence) = &outcome.evidence {
        let _ = write!(text, "  {evidence}");
    }
    text.push('\n');
}

/// What came back, fit for a terminal: the lines of a head, and the beginning of a body. Nothing where it is encrypted.
fn parts(check: &Check, received: &[u8]) -> (Vec<Box<str>>, Box<str>) {
    if check.tls().is_some() {
        return (Vec::new(), Box::default());
    }
    let (head, body) = match check {
        Check::Http(_) => match received.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => (&received[..end], &received[end + 4..]),
            None => (received, [].as_slice()),
        },
        Check::Tcp(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => ([].as_slice(), received),
    };
    let head = String::from_utf8_lossy(head);
    let lines = head.lines().filter(|line| !line.is_empty()).take(HEAD_LINES_MAX);
    let body = String::from_utf8_lossy(&body[..body.len().min(4 * BODY_MAX)]);
    (lines.map(|line| bounded_text(line, LINE_MAX)).collect(), bounded_text(&body, BODY_MAX))
}

fn as_json(catalog: &Catalog, id: MonitorId, outcome: &Outcome, seen: &Seen) -> Value {
    let latency = outcome.latency;
    let policy = catalog.policy(id);
    let (head, body) = parts(&policy.check, &seen.received);
    let target = catalog.target(id);
    let host = match target.host {
        HostRef::Literal(address) => address.to_string(),
        HostRef::Name(name) => name.to_owned(),
    };
    json!({
        "monitor": catalog.name(id),
        "type": policy.check.kind().as_str(),
        "host": host,
        "verdict": verdict_text(outcome.verdict()).to_lowercase(),
        "outcome": outcome.code.as_str(),
        "reason": outcome.evidence.as_deref(),
        "http_status": outcome.status,
        "attempts": outcome.attempts,
        "resolved": seen.resolved.as_ref().map(|Resolved { name, addresses }| json!({
            "name": name,
            "addresses": addresses.as_ref().ok().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "error": addresses.as_ref().err(),
        })),
        "addresses_tried": seen.tried.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "head": head,
        "body": body,
        "latency_seconds": {
            "resolve": latency.resolve.as_secs_f64(),
            "connect": latency.connect.as_secs_f64(),
            "tls": latency.tls.as_secs_f64(),
            "first_byte": latency.first_byte.as_secs_f64(),
            "total": latency.total.as_secs_f64(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HttpCheck;

    #[test]
    fn the_gravest_of_several_verdicts_counts() {
        use Verdict::{Fail, Ok, Void, Warn};
        for (all, worst) in [
            (vec![Ok], Some(Ok)),
            (vec![Ok, Warn, Ok], Some(Warn)),
            (vec![Warn, Void, Warn], Some(Void)),
            (vec![Fail, Void], Some(Fail)),
            (vec![], None),
        ] {
            assert_eq!(all.into_iter().fold(None, graver), worst);
        }
        assert_eq!([Ok, Fail, Warn, Void].map(exit_code), [0, 1, 2, 3]);
    }

    #[test]
    fn an_answer_is_told_in_parts_and_cannot_speak_to_the_terminal() {
        let http = Check::Http(HttpCheck::default());
        let (head, body) = parts(&http, b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\n\r\nhello\nworld\x07");
        assert_eq!(head.iter().map(|line| &**line).collect::<Vec<_>>(), ["HTTP/1.1 200 OK", "X: [2J"]);
        assert_eq!(&*body, "hello world");
        let tls =
            Check::Http(HttpCheck { tls: Some(crate::domain::monitor::TlsPolicy::default()), ..HttpCheck::default() });
        assert!(parts(&tls, b"\x16\x03\x03secret").1.is_empty());
        let long = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 10_000]].concat();
        assert!(parts(&http, &long).1.len() <= BODY_MAX);
    }

    #[test]
    fn the_nearest_name_of_a_file_is_found() {
        let wanted = ["shop/wbe".to_owned(), "zzz".to_owned()];
        let mut near = Near::new(&wanted);
        for name in ["shop/db", "shop/web", "net/gateway"] {
            near.consider(name);
        }
        assert_eq!((near.of("shop/wbe"), near.of("zzz")), (Some("shop/web"), None));
    }
}
