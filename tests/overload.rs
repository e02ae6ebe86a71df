//! The whole engine where it has too little: of slots, of answers, of names, of luck with kept connections.
//!
//! What has to hold then: no failure and no notice that the targets did not earn, nothing lost, nothing leaked, and
//! counters that say what happened.

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cpra::daemon::{self, Daemon, Plan};
use cpra::domain::monitor::{CodeRule, Dispatch};
use cpra::domain::{Check, Codes, Color, Destination, Host, HttpCheck, Monitor, Policy, Target, TcpCheck};
use cpra::os::clock::Clock;
use cpra::queueing::Setup;
use cpra::units::{Instant, Span};
use cpra::world::Catalog;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Everything that is ever told goes into one file.
fn codes(folder: &Path) -> Codes {
    let log = Arc::new(Destination::log(Some(notices_of(folder))));
    let mut codes = Codes::default();
    for color in Color::ALL {
        codes.set(color, CodeRule { dispatch: Dispatch::On, notify: Box::new([log.clone()]) });
    }
    codes
}

fn notices_of(folder: &Path) -> PathBuf {
    folder.join("notices.jsonl")
}

fn policy(check: Check, interval: Span, timeout: Span, codes: Codes) -> Policy {
    Policy { unhealthy_threshold: 2, codes, ..Policy::new(check, interval, timeout) }
}

fn http(keep_alive: bool) -> Check {
    Check::Http(HttpCheck { keep_alive, ..HttpCheck::default() })
}

fn monitor(name: &str, host: Host, port: u16, path: &str, policy: Policy) -> Monitor {
    Monitor { name: name.into(), enabled: true, target: Target { host, port, path: path.into() }, policy }
}

fn literal(address: impl Into<IpAddr>) -> Host {
    Host::Literal(address.into())
}

struct Running {
    daemon: Option<Daemon>,
    api: SocketAddr,
    folder: tempfile::TempDir,
}

fn start(monitors: impl FnOnce(&Path) -> Vec<Monitor>, slots_max: u32) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = api.local_addr().expect("it is bound");
    let catalog = Catalog::build(monitors(folder.path()), 1).expect("the monitors are sound");
    let plan = Plan { pulse: Setup::fixed(slots_max), ..Plan::new(catalog, api, folder.path().to_owned()) };
    Running { daemon: Some(daemon::start(plan).expect("the daemon starts")), api: address, folder }
}

impl Running {
    /// The body of an answer.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.api).expect("the API listens");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        body.to_owned()
    }

    fn page(&self) -> Page {
        Page { text: self.get("/metrics"), at: Clock.now() }
    }

    fn notices(&self) -> String {
        std::fs::read_to_string(notices_of(self.folder.path())).unwrap_or_default()
    }

    fn stop(mut self) {
        let daemon = self.daemon.take().expect("it runs");
        assert!(daemon.stop(), "everything ends in time");
    }
}

/// The metrics at one time.
struct Page {
    text: String,
    at: Instant,
}

impl Page {
    /// The sum of the samples whose name and labels begin so.
    fn sum(&self, prefix: &str) -> f64 {
        let lines = self.text.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    fn since(&self, before: &Self, prefix: &str) -> f64 {
        self.sum(prefix) - before.sum(prefix)
    }

    fn checks(&self, before: &Self, kind: &str, outcome: &str) -> f64 {
        self.since(before, &format!("cpra_checks_total{{type=\"{kind}\",outcome=\"{outcome}"))
    }

    /// The bound, in seconds, under which this share of a histogram's values since `before` lies.
    fn quantile(&self, before: &Self, name: &str, share: f64) -> f64 {
        let prefix = format!("{name}_bucket{{le=\"");
        let bounds = self.text.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.split_once('"')?.0));
        let count = self.since(before, &format!("{name}_count"));
        for bound in bounds {
            if self.since(before, &format!("{prefix}{bound}\"}}")) >= share * count {
                return bound.parse().expect("a number or +Inf");
            }
        }
        f64::INFINITY
    }

    /// No counter says that something went wrong with the engine itself.
    fn assert_sound(&self) {
        assert_eq!(self.sum("cpra_monitors_lost "), 0.0, "{}", self.text);
    }
}

/// What a server does with a connection once it has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Closes.
    Close,
    /// Keeps it open for this long, whatever it was asked for, and then closes without having said so.
    Idle(Duration),
    /// Closes at the next request instead of answering it.
    HangUp,
}

/// Answers 200 after a fixed delay, and notes when it was asked, by the number in the path.
#[derive(Clone)]
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Vec<Instant>>>>,
}

impl Server {
    /// On every address of this host, for as long as the process lives.
    fn start(paths: usize, delay: Duration, then: Then) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        // The standard library lets 128 connections wait; more than that come at once after a pause of this machine,
        // and the kernel would drop them as a dead host does.
        listen(&listener, Backlog::new(4_096).expect("the kernel's own limit")).expect("it listens already");
        let port = listener.local_addr().expect("it is bound").port();
        let server = Self { port, asked: Arc::new(Mutex::new(vec![Vec::new(); paths])) };
        let here = server.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let here = here.clone();
                    tokio::task::spawn_local(async move { drop(here.serve(stream, delay, then).await) });
                }
            });
        });
        server
    }

    async fn serve(&self, mut stream: tokio::net::TcpStream, delay: Duration, then: Then) -> std::io::Result<()> {
        let mut first = true;
        loop {
            let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer);
                let count = match then {
                    Then::Idle(patience) if !first => match tokio::time::timeout(patience, read).await {
                        Ok(count) => count?,
                        Err(_) => return Ok(()),
                    },
                    _ => read.await?,
                };
                if count == 0 {
                    return Ok(());
                }
                request.extend_from_slice(&buffer[..count]);
            }
            let text = String::from_utf8_lossy(&request);
            let path = text.split(' ').nth(1).and_then(|path| path.strip_prefix('/')?.parse::<usize>().ok());
            self.asked.lock().expect("no panic holds it")[path.expect("a number")].push(Clock.now());
            if then == Then::HangUp && !first {
                return Ok(());
            }
            tokio::time::sleep(delay).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
            if then == Then::Close {
                return Ok(());
            }
            first = false;
        }
    }

    /// How often each path was asked for within a stretch of time.
    fn counts(&self, from: Instant, until: Instant) -> Vec<usize> {
        let asked = self.asked.lock().expect("no panic holds it");
        asked.iter().map(|times| times.iter().filter(|&&at| from <= at && at < until).count()).collect()
    }

    /// The longest that any path was not asked for, within a stretch of time.
    fn longest_gap(&self, from: Instant, until: Instant) -> Span {
        let asked = self.asked.lock().expect("no panic holds it");
        let gaps = asked.iter().flat_map(|times| {
            let times: Vec<_> = times.iter().copied().filter(|&at| from <= at && at < until).collect();
            times.windows(2).map(|pair| pair[1].since(pair[0])).collect::<Vec<_>>()
        });
        gaps.max().unwrap_or_default()
    }
}

const MONITORS: usize = 200;
const INTERVAL: Span = Span::from_millis(200);

/// 200 monitors want 1,000 checks a second of 50 ms each; 17 slots can do a third of that.
fn three_times_too_much(then: Then) {
    let server = Server::start(MONITORS, Duration::from_millis(50), then);
    let running = start(
        |folder| {
            let policy = policy(http(false), INTERVAL, INTERVAL, codes(folder));
            (0..MONITORS)
                .map(|index| {
                    let (name, path) = (format!("web/{index}"), format!("/{index}"));
                    monitor(&name, literal(Ipv4Addr::LOCALHOST), server.port, &path, policy.clone())
                })
                .collect()
        },
        17,
    );
    // Warm: every path has been asked for, and the waiting room is as full as it gets.
    support::eventually("all have been checked", || {
        server.counts(Instant::ZERO, Clock.now()).iter().all(|&count| count > 2)
    });
    let before = running.page();
    thread::sleep(Duration::from_secs(6));
    let after = running.page();

    let time = after.at.since(before.at);
    let counts = server.counts(before.at, after.at);
    let (least, most) = (*counts.iter().min().expect("some"), *counts.iter().max().expect("some"));
    let done = after.since(&before, "cpra_checks_total");
    let missed = after.since(&before, "cpra_checks_missed_total");
    let skipped = after.since(&before, "cpra_checks_skipped_total");
    let due = time.as_secs_f64() / INTERVAL.as_secs_f64() * MONITORS as f64;
    println!(
        "in {time} of {due:.0} due: {done} checks, {missed} missed, {skipped} skipped; per monitor {least} to {most}, \
         longest gap {}; lag p50 <= {} s, p99 <= {} s",
        server.longest_gap(before.at, after.at),
        after.quantile(&before, "cpra_schedule_lag_seconds", 0.5),
        after.quantile(&before, "cpra_schedule_lag_seconds", 0.99),
    );
    let voids = after.checks(&before, "http", "VOID");
    assert_eq!(after.checks(&before, "http", "L7OK") + voids, done, "no failure: {}", after.text);
    assert_eq!(running.notices(), "");
    assert_eq!(after.sum("cpra_monitors{state=\"up\"}"), MONITORS as f64);
    after.assert_sound();
    let fair = (time.as_millis() / (4 * INTERVAL.as_millis())) as usize;
    assert!(least >= fair && most <= 2 * least, "every monitor at least {fair} times: {counts:?}");
    // Lag p50 of two intervals is what a third of the capacity comes to.
    assert!(after.quantile(&before, "cpra_schedule_lag_seconds", 0.5) >= INTERVAL.as_secs_f64());
    // Every due time is a check, missed, or skipped; what is under way at both ends belongs to neither.
    let accounted = done + missed + skipped;
    assert!((accounted - due).abs() <= 0.1 * due, "{accounted} of {due} due times are accounted for");
    assert!(missed > 0.5 * due, "two thirds should be missed");
    running.stop();
}

#[test]
fn three_times_too_much_is_late_and_fair_and_no_failure() {
    three_times_too_much(Then::Close);
}

#[test]
fn a_server_that_does_not_close_takes_no_slots_from_due_checks() {
    three_times_too_much(Then::Idle(Duration::from_secs(30)));
}

#[test]
fn kept_connections_that_peers_end_are_no_failures() {
    let servers = [
        Server::start(1, Duration::ZERO, Then::Idle(Duration::from_millis(30))),
        // As often before the next request as under it.
        Server::start(1, Duration::ZERO, Then::Idle(Duration::from_millis(100))),
        Server::start(1, Duration::ZERO, Then::HangUp),
    ];
    let running = start(
        |folder| {
            let interval = Span::from_millis(100);
            let policy = policy(http(true), interval, interval, codes(folder));
            let ports = servers.iter().map(|server| server.port);
            ports
                .map(|port| monitor(&format!("kept/{port}"), literal(Ipv4Addr::LOCALHOST), port, "/0", policy.clone()))
                .collect()
        },
        64,
    );
    support::eventually("many checks", || {
        running.page().sum("cpra_checks_total{type=\"http\",outcome=\"L7OK\"}") > 90.0
    });
    let page = running.page();
    let failures: Vec<_> = ["L4", "L7STS", "L7RSP", "L7TOUT"]
        .into_iter()
        .filter(|code| page.sum(&format!("cpra_checks_total{{type=\"http\",outcome=\"{code}")) > 0.0)
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(running.notices(), "");
    page.assert_sound();
    running.stop();
}

/// Runs in a network of its own, where nothing but the loopback interface is, with packet filter rules of its own.
fn in_a_network_of_its_own(test: &str, body: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        return support::skip(test, "needs root for a network namespace");
    }
    thread::scope(|scope| {
        // Threads inherit the namespace from the thread that starts them.
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may have a network namespace");
            if !run("ip", &["link", "set", "lo", "up"], "") {
                return support::skip(test, "needs the program ip (package iproute2)");
            }
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Whether the program is there.
fn run(program: &str, arguments: &[&str], input: &str) -> bool {
    let Ok(mut child) = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn() else { return false };
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{program} {arguments:?}");
    true
}

#[test]
fn names_come_from_the_hosts_file_and_a_dead_resolver_is_nobodys_fault() {
    in_a_network_of_its_own("names_come_from_the_hosts_file_and_a_dead_resolver_is_nobodys_fault", || {
        let server = Server::start(1, Duration::ZERO, Then::Close);
        let running = start(
            |folder| {
                let policy = policy(http(false), Span::from_millis(500), Span::from_millis(500), codes(folder));
                let named =
                    |name: &str, host: &str| monitor(name, Host::Name(host.into()), server.port, "/0", policy.clone());
                vec![named("local", "localhost"), named("nowhere", "does-not-exist.example")]
            },
            16,
        );
        support::eventually("one is up, and the other was tried several times", || {
            let page = running.page();
            page.sum("cpra_monitors{state=\"up\"}") == 1.0
                && page.sum("cpra_checks_total{type=\"http\",outcome=\"VOID:RESOLVER\"}") >= 3.0
        });
        let state = running.get("/api/v1/monitors/local");
        assert!(state.contains("\"up\"") && state.contains("L7OK"), "{state}");
        let state = running.get("/api/v1/monitors/nowhere");
        assert!(
            state.contains("\"unknown\"") && state.contains("does-not-exist.example: the resolver failed"),
            "{state}"
        );
        assert_eq!(running.notices(), "");
        running.page().assert_sound();
        running.stop();
    });
}

/// How much silence.
struct Flood {
    /// Targets from which no packet comes back.
    silent: u32,
    timeout: Span,
    interval: Span,
    /// The soft limit of open files when the rings are made, and with it the slots of one ring.
    open_files: u64,
    measured: Duration,
}

/// Beside so many that answer, once a second each.
const HEALTHY: usize = 1_000;

#[test]
fn silence_from_thousands_delays_nobody_else() {
    let test = "silence_from_thousands_delays_nobody_else";
    // CPRA_FLOOD=full is 50,000 silent targets at 8,300 starts a second with timeouts of 5 s.
    let full = std::env::var_os("CPRA_FLOOD").is_some_and(|size| size == "full");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let flood = if full {
        let (timeout, interval) = (Span::from_secs(5), Span::from_secs(6));
        Flood { silent: 50_000, timeout, interval, open_files: hard, measured: Duration::from_secs(30) }
    } else {
        let (timeout, interval) = (Span::from_secs(2), Span::from_millis(2_500));
        Flood { silent: 5_000, timeout, interval, open_files: 1_500, measured: Duration::from_secs(6) }
    };
    in_a_network_of_its_own(test, || {
        let rules = "table ip silence {
            chain input { type filter hook input priority 0; policy accept; ip daddr 127.64.0.0/10 drop; }
        }";
        if !run("nft", &["-f", "-"], rules) {
            return support::skip(test, "needs the program nft (package nftables)");
        }
        weather(&flood);
    });
}

fn weather(flood: &Flood) {
    let server = Server::start(1, Duration::ZERO, Then::Close);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let slots_max = flood.silent + 2_000;
    setrlimit(Resource::RLIMIT_NOFILE, flood.open_files, hard).expect("the soft limit is ours to choose");
    let running = start(
        |folder| {
            let silent = policy(Check::Tcp(TcpCheck::default()), flood.interval, flood.timeout, Codes::default());
            let second = Span::from_secs(1);
            let healthy = policy(http(false), second, second, codes(folder));
            let silent = (0..flood.silent).map(|index| {
                let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() + index);
                monitor(&format!("silent/{index}"), literal(address), 9, "", silent.clone())
            });
            let healthy = (0..HEALTHY).map(|index| {
                let address = Ipv4Addr::new(127, 0, 0, 1 + (index % 8) as u8);
                monitor(&format!("healthy/{index}"), literal(address), server.port, "/0", healthy.clone())
            });
            silent.chain(healthy).collect()
        },
        slots_max,
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    support::eventually("the silent ones are down, the others up", || {
        let page = running.page();
        page.sum("cpra_monitors{state=\"up\"}") == HEALTHY as f64
            && page.sum("cpra_monitors{state=\"down\"}") == f64::from(flood.silent)
    });
    let cpu = |page: &Page| page.sum("process_cpu_seconds_total");
    let before = running.page();
    thread::sleep(flood.measured);
    let late = lateness(&running, flood);
    let after = running.page();

    let seconds = after.at.since(before.at).as_secs_f64();
    let (files, rings) = open_files();
    let in_flight = after.sum("cpra_inflight{pipeline=\"pulse\"}");
    let (p50, p99, worst) = (late[late.len() / 2], late[late.len() * 99 / 100], late[late.len() - 1]);
    let mut report = String::new();
    let [lag_p50, lag_p99, lag_p999] =
        [0.5, 0.99, 0.999].map(|share| after.quantile(&before, "cpra_schedule_lag_seconds", share));
    write!(
        report,
        "{} silent targets, timeout {}: {:.0} timeouts/s, {in_flight} in flight on {rings} rings, {files} open files, \
         {:.2} processors with the server\n\
         timeouts late by p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms ({} of them)\n\
         {} healthy: {:.0} checks/s; all: lag p50 <= {lag_p50} s, p99 <= {lag_p99} s, p99.9 <= {lag_p999} s, \
         {} missed, {} skipped, {} stalls ({} since the start), {} void",
        flood.silent,
        flood.timeout,
        after.checks(&before, "tcp", "L4TOUT") / seconds,
        (cpu(&after) - cpu(&before)) / seconds,
        p50 * 1e3,
        p99 * 1e3,
        worst * 1e3,
        late.len(),
        HEALTHY,
        after.checks(&before, "http", "L7OK") / seconds,
        after.since(&before, "cpra_checks_missed_total"),
        after.since(&before, "cpra_checks_skipped_total"),
        after.since(&before, "cpra_stalls_total"),
        after.sum("cpra_stalls_total"),
        after.checks(&before, "tcp", "VOID") + after.checks(&before, "http", "VOID"),
    )
    .expect("a string takes every line");
    println!("{report}");

    assert!(rings > 1, "one ring does not hold so many sockets");
    // The files of the server's connections are this process's, too.
    assert!(files < 1_000, "{files} open files");
    assert!(in_flight <= f64::from(slots_max), "{in_flight} in flight");
    assert!(p99 < 0.250, "timeouts must not be that late, however busy the machine is");
    assert_eq!(after.checks(&before, "http", "L4") + after.checks(&before, "http", "L7RSP"), 0.0, "{}", after.text);
    assert_eq!(after.checks(&before, "http", "L7TOUT"), 0.0, "{}", after.text);
    assert_eq!(running.notices(), "");
    after.assert_sound();

    // The silence ends: what was in flight comes back, refused now, and no slot stays behind.
    assert!(run("nft", &["flush", "ruleset"], ""));
    support::eventually("few are in flight", || running.page().sum("cpra_inflight{pipeline=\"pulse\"}") < 500.0);
    let before = running.page();
    thread::sleep(flood.interval.into());
    let after = running.page();
    assert!(after.checks(&before, "tcp", "L4CON") >= 0.8 * f64::from(flood.silent), "{}", after.text);
    after.assert_sound();
    running.stop();
}

/// By how many seconds the last timeout of each silent target was late, sorted.
fn lateness(running: &Running, flood: &Flood) -> Vec<f64> {
    let mut late = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = running.get(&format!("/api/v1/monitors?limit=1000&q=silent/&cursor={cursor}"));
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        for monitor in page["monitors"].as_array().expect("a list") {
            let last = &monitor["last"];
            if last["outcome"] == "L4TOUT" {
                let total = last["latency_seconds"]["total"].as_f64().expect("kept for what is down");
                late.push(total - flood.timeout.as_secs_f64());
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.replace('/', "%2F"),
            None => break,
        }
    }
    // A pause of the whole machine makes void what was in flight.
    assert!(late.len() as f64 > 0.25 * f64::from(flood.silent), "{} timeouts of {}", late.len(), flood.silent);
    assert!(late.iter().all(|&late| late >= 0.0), "no timeout comes early");
    late.sort_by(f64::total_cmp);
    late
}

/// Open files of this process, and how many of them are rings.
fn open_files() -> (usize, usize) {
    let files: Vec<_> = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten().collect();
    let names = files.iter().filter_map(|file| std::fs::read_link(file.path()).ok());
    (files.len(), names.filter(|name| name.to_string_lossy().contains("io_uring")).count())
}
