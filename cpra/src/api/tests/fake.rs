//! A daemon that is made up, the API in front of it, and a client that speaks exactly what it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::api::access::Token;
use crate::api::reload;
use crate::api::{AskError, Asked, Finding, Listeners, Pipeline, Readiness, Source, run};
use crate::desk::DeskStats;
use crate::desk::protocol::{
    Answer, Change, Delivered, DeliveryResult, EpisodeView, NoticeId, OutboxChange, OutboxState, OutboxView, Question,
    Selection, StoryKind,
};
use crate::domain::health::Phase;
use crate::domain::monitor::{About, CodeRule, Codes, Dispatch, PushCheck};
use crate::domain::{Check, Code, Color, Destination, Host, HttpCheck, Latency, Monitor, Policy, Target, TcpCheck};
use crate::os::histograms::{Dump, DumpError};
use crate::os::local::LocalSocket;
use crate::os::resolve::ResolverStats;
use crate::queueing::meter::Percentiles;
use crate::queueing::{Bounds, Demand, Load, Report, Service, Setup, solve};
use crate::shard::ShardStats;
use crate::shard::protocol::{Histogram, MonitorState};
use crate::store::{Reader, StoreStats};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::{Catalog, Counts};

pub(super) const DOWN: &str = "shop/web";
pub(super) const OFF: &str = "net/gateway";
/// A monitor of the group `net`, and the one that waits for calls.
pub(super) const JOB: &str = "batch/backup";
/// The job of [`JOB`] calls with it.
pub(super) const PUSH_TOKEN: &str = "t0ken+of/a job";
/// Names that a careless path or page would break on.
pub(super) const ODD: [&str; 10] = [
    "a/../b",
    "a b",
    "a%2Fb",
    "a?b=c",
    "a#b",
    "<script>alert(1)</script>",
    "päuschen ☕",
    "\"quoted\"",
    "a+b",
    "/lead/",
];

/// Shared by the test and the API's thread.
pub(super) struct Fake {
    catalog: Arc<Catalog>,
    pub(super) shards: Mutex<ShardStats>,
    pub(super) ready: AtomicBool,
    pub(super) alive: AtomicBool,
    /// Questions are taken and never answered.
    pub(super) silent: AtomicBool,
    /// Questions are not taken.
    pub(super) full: AtomicBool,
    pub(super) now_nanos: AtomicU64,
    /// What is kept of the past.
    pub(super) reader: Mutex<Option<Reader>>,
    kept: Mutex<Vec<oneshot::Sender<Answer>>>,
    done: Mutex<Vec<String>>,
}

/// A class of checks as it might be: `rate` a second, 20 ms each, with a p95 of 60 ms.
pub(super) fn class(class: &'static str, rate: f64, max: u32) -> Report {
    let setup = Setup { bounds: Bounds { min: 1, max, headroom: 0 }, ..Setup::default() };
    let service = Service::exponential(setup.service_time.as_secs_f64());
    let answer = solve(Load { rate, scv: 1.5 }, &service, &setup.slo, &setup.bounds);
    let times = |millis: u64| {
        let [p50, p95, p99, p999] = [14, 60, 92, 138].map(|time| Span::from_millis(time * millis / 60));
        Percentiles { p50, p95, p99, p999 }
    };
    Report {
        class,
        workers: answer.workers,
        demand: Demand { busy: 5, waiting: 2, longest_wait: Span::from_millis(4) },
        arrivals: answer.load,
        answer,
        service_times: times(60),
        waits: times(3),
        results: times(63),
        unreachable: !answer.is_met(),
    }
}

impl Fake {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let monitors = names.into_iter().map(|name| monitor(&name));
        Self {
            catalog: Arc::new(Catalog::build(monitors, 3).expect("the names are distinct")),
            shards: Mutex::default(),
            ready: AtomicBool::new(true),
            alive: AtomicBool::new(true),
            silent: AtomicBool::new(false),
            full: AtomicBool::new(false),
            now_nanos: AtomicU64::new(Span::from_secs(1_000).as_nanos()),
            reader: Mutex::default(),
            kept: Mutex::default(),
            done: Mutex::default(),
        }
    }

    pub(super) fn small() -> Self {
        Self::new(ODD.iter().chain(&[DOWN, "shop/db", OFF, JOB]).map(ToString::to_string))
    }

    fn episode(&self) -> EpisodeView {
        let monitor = self.catalog.find(DOWN).expect("it is loaded");
        EpisodeView {
            monitor,
            incident: "mon-1/shop/web/01".into(),
            state: "open",
            opened: Timestamp::from_micros(0),
            lasted: Span::from_millis(1_500),
            cause: "connection refused".into(),
            raised: vec![(Color::Red, 2)],
        }
    }
}

fn report(refused: bool, dry_run: bool, who: Box<str>) -> reload::Report {
    let outcome = if refused && !dry_run { reload::Outcome::Refused } else { reload::Outcome::Applied };
    reload::Report {
        at: Timestamp::from_micros(1_500_000),
        who,
        dry_run,
        outcome,
        counts: Some(Counts { removed: 30, unchanged: 70, ..Counts::default() }),
        examples: vec![("removed", vec!["shop/<old>".to_owned()])],
        errors: if outcome == reload::Outcome::Refused { vec!["30 of 100 monitors go".to_owned()] } else { vec![] },
        remedy: "use force".to_owned(),
        notes: vec![],
        took: Span::from_millis(20),
    }
}

/// What waits, what has failed, and what could not be delivered: notices 11, 12 and 13.
fn outbox() -> Vec<OutboxView> {
    let notice = |id, destination: &str, state| OutboxView {
        id: NoticeId(id),
        destination: destination.into(),
        provider: "log",
        monitor: DOWN.into(),
        incident: "mon-1/shop/web/01".into(),
        color: Color::Red,
        summary: "refused <b>".into(),
        at: Timestamp::from_micros(900_000_000),
        state: Some(state),
        attempts: 0,
        last: None,
        next: None,
    };
    let delivered = |result, said: &str| Some(Delivered::new(result, said));
    vec![
        notice(11, "team-chat", OutboxState::Waiting),
        OutboxView {
            attempts: 2,
            last: delivered(DeliveryResult::Failed, "503 try later"),
            next: Some(Timestamp::from_micros(1_001_000_000)),
            ..notice(12, "team-chat", OutboxState::Pausing)
        },
        OutboxView {
            attempts: 1,
            last: delivered(DeliveryResult::Refused, "400 no such channel"),
            ..notice(13, "pager", OutboxState::Dead)
        },
    ]
}

fn is_selected(notice: &OutboxView, selection: &Selection) -> bool {
    match selection {
        Selection::All => true,
        Selection::Dead => notice.state == Some(OutboxState::Dead),
        Selection::One(id) => notice.id == *id,
        Selection::To(name) => notice.destination == *name,
    }
}

/// Two monitors write to different logs, both without a name of their own.
fn codes(name: &str) -> Codes {
    let mut codes = Codes::default();
    if matches!(name, OFF | JOB) {
        let log = Arc::new(Destination::log(Some(format!("/var/log/{name}").into())));
        codes.set(Color::Red, CodeRule { dispatch: Dispatch::On, notify: Box::new([log]) });
    }
    codes
}

fn monitor(name: &str) -> Monitor {
    let http = HttpCheck { keep_alive: true, ..HttpCheck::default() };
    let (check, path) = match name {
        DOWN => (Check::Http(http), "/health?token=secret"),
        JOB => (Check::Push(PushCheck { grace: Span::from_secs(60) }), PUSH_TOKEN),
        _ => (Check::Tcp(TcpCheck::default()), ""),
    };
    Monitor {
        name: name.into(),
        enabled: true,
        target: Target { host: Host::Name("shop.internal".into()), port: 80, path: path.into() },
        policy: Policy {
            codes: codes(name),
            retry_interval: Span::from_secs(5),
            about: About {
                labels: [("team".into(), "<shop>".into())].into(),
                description: Some("front door".into()),
                runbook: Some("https://wiki.example.com/shop".into()),
            },
            groups: Box::new([if name.starts_with("shop") { "shop".into() } else { "rest".into() }]),
            ..Policy::new(check, Span::from_secs(30), Span::from_millis(2_500))
        },
    }
}

impl Source for Fake {
    fn instance(&self) -> &str {
        "mon<1>"
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    fn shard_stats(&self) -> ShardStats {
        self.shards.lock().expect("no test panics with it").clone()
    }

    fn desk_stats(&self) -> DeskStats {
        let mut stats = DeskStats { nondurable: 4, episodes_open: 1, outstanding: 2, ..DeskStats::default() };
        stats.outbox = [1, 0, 1, 1];
        stats.oldest_notice = Some(self.started().before(Span::from_secs(30)));
        stats.notices[Color::Red as usize][0][0] = 7;
        stats
    }

    fn resolver_stats(&self) -> ResolverStats {
        let mut latency = Histogram::default();
        latency.record(Span::from_secs(60));
        ResolverStats { found: 5, not_found: 2, failed: 1, stale: 9, latency }
    }

    fn pipelines(&self) -> Vec<Pipeline> {
        let ShardStats { in_flight, sizing, .. } = self.shard_stats();
        let pulse = Pipeline {
            name: "pulse",
            setup: Setup::default(),
            in_flight,
            waiting: 3,
            capacity: self.catalog.len(),
            classes: sizing,
        };
        let bounds = Bounds { min: 4, max: 64, headroom: 150 };
        let setup = Setup { bounds, ..Setup::default() };
        let code = Pipeline { name: "code", setup, in_flight: 2, waiting: 1, capacity: 1_024, classes: vec![] };
        vec![pulse, code]
    }

    fn alive(&self) -> Result<(), String> {
        if self.alive.load(Ordering::Relaxed) { Ok(()) } else { Err("shard 1 has stood still for 3 s".to_owned()) }
    }

    fn readiness(&self) -> Readiness {
        let ready = self.ready.load(Ordering::Relaxed);
        let reasons = if ready { vec![] } else { vec!["the store does not answer".to_owned()] };
        let finding = Finding {
            subject: "RLIMIT_NOFILE".to_owned(),
            text: "1024 files".to_owned(),
            remedy: "raise LimitNOFILE".to_owned(),
        };
        Readiness { ready, reasons, findings: vec![finding] }
    }

    fn started(&self) -> Instant {
        Instant::from_nanos(Span::from_secs(1_000).as_nanos())
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_nanos.load(Ordering::Relaxed))
    }

    fn wall_of(&self, instant: Instant) -> Timestamp {
        Timestamp::from_micros((instant.as_nanos() / 1_000) as i64)
    }

    fn states(&self, shard: u8, indices: Vec<u32>) -> Asked<Vec<MonitorState>> {
        assert!(indices.len() <= crate::units::limits::REPORT_SLICE_MAX);
        if self.full.load(Ordering::Relaxed) {
            return Err(AskError::Full);
        }
        let down = self.catalog.find(DOWN);
        let states = indices.into_iter().map(|index| {
            let monitor = MonitorId::new(shard, index);
            let failing = Some(monitor) == down;
            MonitorState {
                monitor,
                phase: match self.catalog.name(monitor) {
                    _ if failing => Phase::Failing,
                    OFF => Phase::Disabled,
                    _ => Phase::Up,
                },
                degraded: false,
                obscured: false,
                fails: if failing { 3 } else { 0 },
                oks: 0,
                last: Some(if failing { Code::L4Con } else { Code::L4Ok }),
                last_at: Some(self.started()),
                next_due: Some(self.now()),
                evidence: failing.then(|| "connection refused <b>".into()),
                status: None,
                latency: Some(Latency::default()),
            }
        });
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(states.collect());
        Ok(receiver)
    }

    fn desk(&self, question: Question) -> Asked<Answer> {
        let (sender, receiver) = oneshot::channel();
        if self.silent.load(Ordering::Relaxed) {
            self.kept.lock().expect("no test panics with it").push(sender);
            return Ok(receiver);
        }
        let episode = self.episode();
        let answer = match question {
            Question::Monitor(id) => Answer::Monitor((id == episode.monitor).then_some(episode)),
            Question::Episodes(_) => Answer::Episodes(vec![episode]),
            Question::Outbox(selection, most) => Answer::Outbox(
                outbox().into_iter().filter(|notice| is_selected(notice, &selection)).take(most).collect(),
            ),
            Question::Notice(id) => Answer::Notice(outbox().into_iter().find(|notice| notice.id == id)),
            Question::Recent(most) => Answer::Recent(vec![
                Change {
                    at: Timestamp::from_micros(1),
                    // Of a catalog that the API has not seen yet.
                    monitor: Some(MonitorId::new(9, 9)),
                    what: StoryKind::Color(Color::Red),
                    text: "refused".into(),
                };
                most
            ]),
        };
        let _ = sender.send(answer);
        Ok(receiver)
    }

    fn change_outbox(&self, change: OutboxChange, selection: Selection, who: &str) -> Asked<Answer> {
        self.note(format!("{change:?} {selection:?} by {who}"))?;
        let (sender, receiver) = oneshot::channel();
        let changed = outbox().iter().filter(|notice| is_selected(notice, &selection)).count();
        let _ = sender.send(Answer::Changed(changed as u64));
        Ok(receiver)
    }

    fn test(&self, destination: Arc<Destination>, color: Color, who: &str) -> Asked<Answer> {
        self.note(format!("test {} {color} by {who}", destination.name))?;
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(Answer::Queued(NoticeId(12)));
        Ok(receiver)
    }

    fn pings(&self) -> [u64; 3] {
        [21, 22, 23]
    }

    fn providers(&self) -> Vec<Arc<Destination>> {
        let named =
            |name: &str, file: &str| Arc::new(Destination { name: name.into(), ..Destination::log(Some(file.into())) });
        vec![named("team-chat", "/a"), named("pager", "/b"), named("both", "/c"), named("both", "/d")]
    }

    fn store_stats(&self) -> StoreStats {
        let last_commit = Some(self.started().before(Span::from_secs(3)));
        let trouble = (!self.alive.load(Ordering::Relaxed)).then(|| "the disk <is> full".into());
        let mut commit = Histogram::default();
        commit.record(Span::from_secs(60));
        StoreStats {
            commits: 7,
            commit,
            failures: 1,
            is_durable: trouble.is_none(),
            bytes: 4_096,
            last_commit,
            waiting: 2,
            queued: 1,
            trouble,
            ..StoreStats::default()
        }
    }

    fn history(&self) -> Option<Reader> {
        self.reader.lock().expect("no test panics with it").clone()
    }

    fn dump_histograms(&self) -> Asked<Result<Dump, DumpError>> {
        self.note("dump".to_owned())?;
        let (sender, receiver) = oneshot::channel();
        let dump = if self.alive.load(Ordering::Relaxed) {
            Ok(Dump {
                file: Some("/var/lib/cpra/histograms/cpra-20261122T181323Z.hlog".into()),
                texts: vec!["/x.hgrm".into()],
                from: Timestamp::from_micros(0),
                length: Span::from_millis(1_500),
                series: vec![("pulse-tcp-result".to_owned(), 42)],
                silent: vec![2],
            })
        } else {
            Err(DumpError { folder: "/full".into(), error: std::io::ErrorKind::StorageFull.into() })
        };
        let _ = sender.send(dump);
        Ok(receiver)
    }

    fn dump_stats(&self) -> [u64; 2] {
        [3, 1]
    }

    fn push_target(&self, token: &str) -> Option<MonitorId> {
        (token == PUSH_TOKEN).then(|| self.catalog.find(JOB)).flatten()
    }

    fn push(&self, monitor: MonitorId, ok: bool, message: Box<str>) -> Result<(), AskError> {
        self.note(format!("push {} {ok} {message}", self.catalog.name(monitor)))
    }

    fn check_now(&self, monitor: MonitorId) -> Result<(), AskError> {
        self.note(format!("check {}", self.catalog.name(monitor)))
    }

    fn reload(&self, wish: reload::Wish) -> Asked<reload::Report> {
        let reload::Wish { dry_run, force, who } = wish;
        self.note(format!("reload dry_run={dry_run} force={force}"))?;
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(report(!force, dry_run, who));
        Ok(receiver)
    }

    fn reloads(&self) -> reload::Board {
        let mut board = reload::Board::default();
        board.note(&report(false, false, "SIGHUP".into()));
        board.note(&report(true, false, "SIGHUP".into()));
        board
    }

    fn switch(&self, monitor: MonitorId, enabled: bool) -> Result<(), AskError> {
        self.note(format!("switch {} {enabled}", self.catalog.name(monitor)))
    }
}

impl Fake {
    fn note(&self, what: String) -> Result<(), AskError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(AskError::Full);
        }
        self.done.lock().expect("no test panics with it").push(what);
        Ok(())
    }

    /// What was done since it was asked last.
    pub(super) fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.done.lock().expect("no test panics with it"))
    }
}

/// A running API; dropping it stops it.
pub(super) struct Running {
    pub(super) api: SocketAddr,
    pub(super) profile: SocketAddr,
    /// The unix socket.
    pub(super) local: PathBuf,
    #[expect(dead_code, reason = "it goes with this")]
    folder: tempfile::TempDir,
    pub(super) fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Running {
    pub(super) fn new(fake: Fake) -> Self {
        Self::with(fake, None)
    }

    /// With a token for changes over TCP.
    pub(super) fn with(fake: Fake, token: Option<Token>) -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let (api, profile) = (listener(), listener());
        let (api_address, profile_address) = (address(&api), address(&profile));
        let fake = Arc::new(fake);
        let source: Arc<dyn Source> = fake.clone();
        let (stop, stopped) = oneshot::channel();
        let folder = tempfile::tempdir().expect("a folder");
        let local = folder.path().join("cpra.sock");
        let listeners = Listeners {
            api,
            profile: Some(profile),
            names: vec!["cpra.example.com".to_owned()],
            local: Some(LocalSocket::bind(&local).expect("it is a new folder")),
            token,
        };
        let thread = thread::spawn(move || run(listeners, source, stopped).expect("it runs"));
        Self { api: api_address, profile: profile_address, local, folder, fake, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.api))
    }

    pub(super) fn json(&self, path: &str) -> (u16, serde_json::Value) {
        let reply = self.get(path);
        assert!(reply.head.contains("application/json"), "{path}: {}", reply.head);
        (reply.status, serde_json::from_slice(&reply.body).expect("JSON"))
    }

    /// A request to the unix socket.
    pub(super) fn locally(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let mut stream = UnixStream::connect(&self.local).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let reply = reply(&mut stream);
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
    }

    pub(super) fn raw(&self, request: &str) -> Reply {
        exchange(self.api, request)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Reply {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

pub(super) fn exchange(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).expect("it reads");
    reply(&mut stream)
}

/// Reads until the other side closes.
pub(super) fn reply(stream: &mut impl Read) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer and an end");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is ASCII").to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, head, body: bytes.split_off(end + 4) }
}
