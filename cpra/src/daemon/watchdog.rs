//! The thread `cpra-watchdog`: it tells two others that the daemon does its work, so that they notice when it does not.
//!
//! The dead man's switch (`[watchdog] url`) is somebody elsewhere who raises the alarm when the pings stop: they come only
//! while the daemon is healthy ([`health()`]). The service manager (systemd's `WatchdogSec=`) ends and restarts a process
//! that it does not hear of: it is told only while every shard and the desk advance, and by a bound of its own, since a
//! restart helps against neither a full disk nor a destination that is down.
//!
//! A ping that fails is not sent again before its next time. One that takes long delays nothing: it ends within the interval.

pub(crate) mod health;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::health::{Inputs, Reason, health};
use crate::domain::destination::Transport;
use crate::domain::monitor::Secret;
use crate::os::clock::Clock;
use crate::os::supervisor::Supervisor;
use crate::os::web::{Again, Connections, Fault, Request, Web};
use crate::units::limits::{FAULT_REPORT_EVERY, WATCHDOG_EVERY, WATCHDOG_PING_MAX};
use crate::units::{Instant, Span};

pub(super) const THREAD: &str = "cpra-watchdog";

/// `[watchdog]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// It may hold a token.
    pub url: Option<Secret>,
    pub interval: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { url: None, interval: Span::from_secs(60) }
    }
}

/// What the rest of the daemon may read of the pings at any time.
#[derive(Debug, Default)]
pub struct WatchdogBoard {
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    /// Times at which there was none, because the daemon was not healthy.
    pub withheld: AtomicU64,
}

impl WatchdogBoard {
    /// In the order of [`crate::api::source::PINGS`].
    pub fn counts(&self) -> [u64; 3] {
        [&self.answered, &self.failed, &self.withheld].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Handle {
    _stop: oneshot::Sender<()>,
}

/// Starts the thread, where somebody wants to know.
///
/// # Errors
/// When the thread cannot be had.
pub(super) fn spawn(watch: Watch, url: Option<Secret>) -> io::Result<Option<Handle>> {
    if watch.supervisor.is_none() && url.is_none() {
        return Ok(None);
    }
    let (stop, stopped) = oneshot::channel();
    let body = move || {
        let elsewhere = url.map(|url| Rc::new(Elsewhere::new(url, watch.interval)));
        let ping = elsewhere.map(|elsewhere| move || Rc::clone(&elsewhere).ping());
        if let Err(error) = run(&watch, ping, stopped) {
            tracing::error!(%error, "nobody is told that the daemon does its work");
        }
    };
    thread::Builder::new().name(THREAD.into()).spawn(body)?;
    Ok(Some(Handle { _stop: stop }))
}

/// The dead man's switch, by HTTP.
struct Elsewhere {
    url: Secret,
    connections: Connections,
}

impl Elsewhere {
    fn new(url: Secret, interval: Span) -> Self {
        let transport = Transport { timeout: interval.min(WATCHDOG_PING_MAX), ..Transport::default() };
        // A connection of its own for each: that it can be made is part of what is shown.
        Self { url, connections: Connections::new(&Web::default(), &transport, Again::Doubled) }
    }

    async fn ping(self: Rc<Self>) -> Result<(), String> {
        let request = Request { method: "GET", url: self.url.expose(), headers: Vec::new(), body: Vec::new() };
        match self.connections.send(&request).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(Fault::Unusable(words) | Fault::NotSent(words) | Fault::Unanswered(words)) => Err(words),
        }
    }
}

/// What the log calls it: the host of its address, since the rest may be secret.
pub(super) fn host_of(url: &Secret) -> Box<str> {
    url::Url::parse(url.expose()).ok().and_then(|url| url.host_str().map(Box::from)).unwrap_or_default()
}

/// What is watched.
pub(super) trait Patient: Send + Sync {
    fn inputs(&self, now: Instant) -> Inputs;
    /// Whether every shard and the desk advance, or the daemon ends, which others watch over.
    fn advances(&self) -> bool;
    /// One line for people.
    fn status(&self) -> String;
}

pub(super) struct Watch {
    pub(super) patient: Arc<dyn Patient>,
    pub(super) supervisor: Option<Arc<Supervisor>>,
    pub(super) board: Arc<WatchdogBoard>,
    /// Between two pings.
    pub(super) interval: Span,
    /// Who is pinged, for the log: without what is secret in the address.
    pub(super) whom: Box<str>,
}

/// The body of the thread: until `stop` is sent or dropped. `ping` answers in words why it failed; `None`: nobody is pinged.
///
/// # Errors
/// When the runtime cannot be had.
pub(super) fn run<F>(watch: &Watch, ping: Option<impl Fn() -> F>, stop: oneshot::Receiver<()>) -> io::Result<()>
where
    F: Future<Output = Result<(), String>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, turn_until(watch, ping, stop));
    Ok(())
}

async fn turn_until<F>(watch: &Watch, ping: Option<impl Fn() -> F>, mut stop: oneshot::Receiver<()>)
where
    F: Future<Output = Result<(), String>> + 'static,
{
    let began = Clock.now();
    let mut switch = ping.is_some().then(|| Switch::new(watch.interval, began));
    let mut pulse = watch.supervisor.as_ref().and_then(|supervisor| supervisor.watchdog()).map(Pulse::new);
    let mut status = String::new();
    let mut failures = Failures::default();
    let mut under_way = None;
    let mut turns = interval(pulse.as_ref().map_or(WATCHDOG_EVERY, Pulse::turns).into());
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stop => return,
            ended = async { under_way.as_mut().expect("it is one").await }, if under_way.is_some() => {
                under_way = None;
                let result: Result<Result<(), String>, _> = ended;
                failures.count(watch, result.unwrap_or_else(|_| Err("it was given up".to_owned())), Clock.now());
            }
            _ = turns.tick() => {
                let now = Clock.now();
                if let (Some(pulse), Some(supervisor)) = (&mut pulse, &watch.supervisor)
                    && pulse.is_due(now, watch.patient.advances())
                {
                    supervisor.alive();
                }
                if let Some(supervisor) = &watch.supervisor {
                    let shown = watch.patient.status();
                    if shown != status {
                        supervisor.status(&shown);
                        status = shown;
                    }
                }
                let (Some(switch), Some(ping)) = (&mut switch, &ping) else { continue };
                // One at a time: what ends in this moment is counted first.
                if under_way.is_some() {
                    continue;
                }
                let found = health(&watch.patient.inputs(now));
                if act(watch, switch, found, now) {
                    let (ping, bound) = (ping(), watch.interval.min(WATCHDOG_PING_MAX));
                    under_way = Some(spawn_local(async move {
                        let late = |_| Err(format!("no answer within {bound}"));
                        timeout(bound.into(), ping).await.unwrap_or_else(late)
                    }));
                }
            }
        }
    }
}

/// Says and counts what has to be; answers whether to ping.
fn act(watch: &Watch, switch: &mut Switch, found: Result<(), Vec<Reason>>, now: Instant) -> bool {
    let whom = &*watch.whom;
    match switch.turn(now, found.is_ok()) {
        Act::Nothing => false,
        Act::Ping { withheld: None } => true,
        Act::Ping { withheld: Some(length) } => {
            tracing::info!(whom, withheld = %length, "the dead man's switch is pinged again: the daemon is healthy");
            true
        }
        Act::Withhold { tell } => {
            watch.board.withheld.fetch_add(1, Ordering::Relaxed);
            if tell {
                let reasons: Vec<String> = found.err().into_iter().flatten().map(|reason| reason.to_string()).collect();
                tracing::warn!(
                    whom,
                    reasons = reasons.join("; "),
                    "the dead man's switch is not pinged: the daemon is not healthy"
                );
            }
            false
        }
    }
}

/// When to ping.
#[derive(Debug)]
struct Switch {
    interval: Span,
    next: Instant,
    /// Since when pings are withheld, and when people were told last.
    withheld: Option<Instant>,
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// After pings were withheld for so long.
    Ping {
        withheld: Option<Span>,
    },
    Withhold {
        tell: bool,
    },
}

impl Switch {
    fn new(interval: Span, now: Instant) -> Self {
        Self { interval, next: now, withheld: None, told: None }
    }

    fn turn(&mut self, now: Instant, healthy: bool) -> Act {
        let is_due = now >= self.next;
        if is_due {
            // Turns come a little late: that must not add up. After a longer gap the count begins anew.
            let regular = self.next + self.interval;
            self.next = if regular > now { regular } else { now + self.interval };
        }
        match (healthy, self.withheld) {
            (true, Some(since)) => {
                (self.withheld, self.told, self.next) = (None, None, now + self.interval);
                Act::Ping { withheld: Some(now.since(since)) }
            }
            (true, None) if is_due => Act::Ping { withheld: None },
            (false, _) if is_due => {
                self.withheld.get_or_insert(now);
                let tell = self.told.is_none_or(|told| now.since(told) >= FAULT_REPORT_EVERY);
                if tell {
                    self.told = Some(now);
                }
                Act::Withhold { tell }
            }
            _ => Act::Nothing,
        }
    }
}

/// Pings that failed: counted, and told once a minute.
#[derive(Debug, Default)]
struct Failures {
    untold: u64,
    told: Option<Instant>,
}

impl Failures {
    fn count(&mut self, watch: &Watch, result: Result<(), String>, now: Instant) {
        let Err(error) = result else {
            watch.board.answered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        watch.board.failed.fetch_add(1, Ordering::Relaxed);
        self.untold += 1;
        if self.told.is_none_or(|told| now.since(told) >= FAULT_REPORT_EVERY) {
            self.told = Some(now);
            let failed = std::mem::take(&mut self.untold);
            tracing::warn!(
                whom = &*watch.whom,
                error,
                failed,
                "the dead man's switch was not reached; it raises the alarm if that goes on"
            );
        }
    }
}

/// When to tell the service manager.
#[derive(Debug)]
struct Pulse {
    /// Half of what it waits for.
    every: Span,
    last: Option<Instant>,
}

impl Pulse {
    fn new(patience: Span) -> Self {
        Self { every: patience.scaled(1, 2), last: None }
    }

    /// How often to look: a pulse that had to be left out comes as soon as it may.
    fn turns(&self) -> Span {
        self.every.scaled(1, 2).clamp(Span::from_millis(10), WATCHDOG_EVERY)
    }

    fn is_due(&mut self, now: Instant, advances: bool) -> bool {
        // A turn that comes a little early is meant all the same; the next one would be late by much more.
        let almost = self.every.scaled(9, 10);
        let is_due = advances && self.last.is_none_or(|last| now.since(last) >= almost);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests;
