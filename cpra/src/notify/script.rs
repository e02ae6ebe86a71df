//! Notices for programs: each run of it is given one, as a line of JSON on its standard input ([`line`]), and the most
//! important of it in its environment: `CPRA_COLOR`, `CPRA_MONITOR`, `CPRA_INCIDENT`, `CPRA_DELIVERY`.
//!
//! It runs as scripts of checks do ([`crate::os::spawn`]): as their user, without privileges, in a session of its own, with a
//! cleared environment and limits; what it leaves running is killed. What it prints is part of the delivery's record.
//!
//! Its exit code decides, as sysexits.h has it:
//!
//! | it | | |
//! | --- | --- | --- |
//! | exits with 0 | sent | |
//! | exits with 64 to 68, 77 or 78 | refused | usage, data, no input, no user, no host, no permission, configuration: the same notice would meet the same answer |
//! | exits with anything else (75 says so by its name), or is ended by a signal | failed | comes again |
//! | does not end in time | unsure | killed; it may have told somebody before |
//! | cannot be executed (missing, no program, forbidden) | refused | people should know soon |
//! | has no room on this host | failed | comes again |
//!
//! A program that can tell nothing better than 1 is not given up for it: to be told twice is less than not to be told.
//! `CPRA_DELIVERY` is the same at every attempt.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::line;
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::Script;
use crate::domain::monitor::ScriptCheck;
use crate::domain::{Destination, Notice};
use crate::os::spawn::{Ended, Runner, Told};
use crate::probe::errand::{ErrandEnd, Exit};
use crate::ring::Errno;
use crate::units::Span;
use crate::units::limits::EVIDENCE_MAX;

#[derive(Debug)]
pub struct ScriptOutlet {
    script: Script,
    timeout: Span,
    /// `None`: nobody here runs scripts.
    runner: Option<Rc<Runner>>,
}

impl ScriptOutlet {
    pub fn new(script: &Script, destination: &Destination, runner: Option<Rc<Runner>>) -> Self {
        Self { script: script.clone(), timeout: destination.transport.timeout, runner }
    }

    /// Beside each other: how many at a time is the desk's to say.
    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        let stopped = Delivered::new(DeliveryResult::Failed, "no scripts are run any more");
        let mut delivered = vec![stopped; notices.len()];
        let Some(runner) = &self.runner else { return delivered };
        let mut runs = JoinSet::new();
        for (index, notice) in notices.iter().enumerate() {
            let (runner, told, timeout) = (Rc::clone(runner), told(&self.script, notice), self.timeout);
            runs.spawn_local(async move { (index, judged(runner.run(told, timeout).await, timeout)) });
        }
        while let Some(run) = runs.join_next().await {
            match run {
                Ok((index, result)) => delivered[index] = result,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        delivered
    }
}

/// What the program is run with. Its own settings do not hide what it is told.
fn told(script: &Script, notice: &Notice) -> Told {
    let told = [
        ("CPRA_COLOR", notice.color.as_str().to_owned()),
        ("CPRA_DELIVERY", line::delivery(&notice.key)),
        ("CPRA_INCIDENT", notice.incident.0.to_string()),
        ("CPRA_MONITOR", notice.monitor_name.to_string()),
    ];
    let own = script.env.iter().filter(|(name, _)| told.iter().all(|(other, _)| **name != **other));
    let mut env: Vec<(Box<str>, Box<str>)> =
        own.map(|(name, value)| (name.clone(), Box::from(value.expose()))).collect();
    env.extend(told.iter().map(|(name, value)| (Box::from(*name), Box::from(&**value))));
    let mut input = Vec::new();
    line::encode(notice, &mut input);
    Told { script: ScriptCheck { argv: script.argv.clone(), env: env.into(), cwd: None }, input }
}

fn judged(ended: Ended, limit: Span) -> Delivered {
    use DeliveryResult::{Failed, Refused, Sent, Unsure};
    let end = match ended {
        Ended::End(end) => end,
        Ended::Overdue => return Delivered::new(Unsure, format!("killed: not done within {limit}")),
        Ended::Stopped => return Delivered::new(Failed, "no scripts are run any more"),
    };
    match end {
        ErrandEnd::Exited { status: Exit::Code(0), output } => Delivered::new(Sent, said("exit 0", &output)),
        ErrandEnd::Exited { status: Exit::Code(code), output } => {
            let result = if matches!(code, 64..=68 | 77 | 78) { Refused } else { Failed };
            Delivered::new(result, said(&format!("exit {code}"), &output))
        }
        ErrandEnd::Exited { status: Exit::Signal(signal), output } => {
            Delivered::new(Failed, said(&format!("ended by signal {signal}"), &output))
        }
        ErrandEnd::Flooded { output } => Delivered::new(Failed, said("killed: it wrote too much", &output)),
        ErrandEnd::NotStarted(errno) => {
            let result = if matches!(errno, Errno::EACCES | Errno::ENOENT | Errno::ENOEXEC) { Refused } else { Failed };
            Delivered::new(result, format!("not started: {errno}"))
        }
        ErrandEnd::Barred(why) => Delivered::new(Refused, said("not started", &why)),
        ErrandEnd::Refused(errno) => Delivered::new(Failed, format!("no room for it: {errno}")),
        ErrandEnd::Recalled | ErrandEnd::Answered(_) | ErrandEnd::Unanswered(_) => {
            Delivered::new(Failed, "no scripts are run any more")
        }
    }
}

/// With the first line of what it printed.
fn said(what: &str, output: &str) -> String {
    let first = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut text = if first.is_empty() { what.to_owned() } else { format!("{what}: {first}") };
    text = text.replace(char::is_control, " ");
    text.truncate(text.floor_char_boundary(EVIDENCE_MAX));
    text
}

#[cfg(test)]
mod tests;
