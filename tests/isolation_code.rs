//! A provider that hangs is its own affair: other destinations get their notices, checks keep their times, and what the
//! hung one missed it gets when it takes again.
//!
//! The provider is a log on a file system whose server never answers, mounted over a folder that was in use: what a
//! dead disk, or a file server that has gone, looks like from here. It hangs for ten seconds, or for as many as
//! `CPRA_ISOLATION_SECONDS` says.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cpra::daemon::{self, Plan};
use cpra::domain::monitor::{CodeRule, Dispatch};
use cpra::domain::{Check, Codes, Color, Destination, Host, HttpCheck, Monitor, Policy, Target};
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

const INTERVAL: Span = Span::from_millis(250);
/// Destinations on the disk that will hang, with this many monitors each: together more notices than may be on their way.
const HUNG_FILES: usize = 8;
const MONITORS_PER_HUNG_FILE: usize = 20;
const CAPACITY: usize = 128;
const _: () = assert!(HUNG_FILES * MONITORS_PER_HUNG_FILE > CAPACITY);
/// Monitors whose notices go elsewhere, and those that never have any.
const GOOD_FILES: usize = 2;
const GOOD: usize = 10;
const STEADY: usize = 150;

fn codes(file: &Path) -> Codes {
    let log = Arc::new(Destination::log(Some(file.to_owned())));
    let mut codes = Codes::default();
    for color in [Color::Red, Color::Green] {
        codes.set(color, CodeRule { dispatch: Dispatch::On, notify: Box::new([log.clone()]) });
    }
    codes
}

fn monitor(name: String, port: u16, file: &Path) -> Monitor {
    let check = Check::Http(HttpCheck { keep_alive: true, ..HttpCheck::default() });
    let policy = Policy {
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        codes: codes(file),
        ..Policy::new(check, INTERVAL, Span::from_millis(1_000))
    };
    let host = Host::Literal(Ipv4Addr::LOCALHOST.into());
    Monitor { name: name.into(), enabled: true, target: Target { host, port, path: "/".into() }, policy }
}

/// Answers 200 while `well`, else 503, and keeps connections.
fn serve(well: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let well = Arc::clone(&well);
                tokio::task::spawn_local(async move { drop(answer(stream, &well).await) });
            }
        });
    });
    port
}

async fn answer(mut stream: tokio::net::TcpStream, well: &AtomicBool) -> std::io::Result<()> {
    loop {
        let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            request.extend_from_slice(&buffer[..count]);
        }
        let status = if well.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").as_bytes()).await?;
    }
}

/// A file system whose server never answers, over a folder of this thread's own mount namespace.
struct Dead {
    server: Option<File>,
    place: PathBuf,
}

impl Dead {
    fn over(place: &Path) -> Result<Self, String> {
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let server = server.map_err(|error| format!("needs /dev/fuse: {error}"))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("cpra-test"), place, Some("fuse"), MsFlags::empty(), Some(&*options))
            .map_err(|errno| format!("cannot mount a file system of its own: {errno}"))?;
        Ok(Self { server: Some(server), place: place.to_owned() })
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // What hangs fails now. By the time it is tried again, the folder below is there again.
        self.server = None;
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

struct Bench {
    /// First: the folder cannot be removed while it hangs.
    dead: Option<Dead>,
    folder: tempfile::TempDir,
    well: Arc<AtomicBool>,
    api: SocketAddr,
}

/// The metrics at one time.
struct Page(String);

impl Page {
    fn value(&self, sample: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }

    /// The bound, in seconds, under which this share of the lags since `before` lies.
    fn lag(&self, before: &Self, share: f64) -> f64 {
        let since = |sample: &str| self.value(sample) - before.value(sample);
        let count = since("cpra_schedule_lag_seconds_count");
        let prefix = "cpra_schedule_lag_seconds_bucket{le=\"";
        let bounds = self.0.lines().filter_map(|line| Some(line.strip_prefix(prefix)?.split_once('"')?.0));
        for bound in bounds {
            if since(&format!("{prefix}{bound}\"}}")) >= share * count {
                return bound.parse().expect("a number or +Inf");
            }
        }
        f64::INFINITY
    }
}

impl Bench {
    fn page(&self) -> Page {
        let mut stream = TcpStream::connect(self.api).expect("the API listens");
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        Page(answer)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The lines of the files that never hang.
    fn good_lines(&self) -> usize {
        (0..GOOD_FILES)
            .map(|n| std::fs::read_to_string(self.file(&format!("good-{n}.jsonl"))).unwrap_or_default())
            .map(|text| text.lines().count())
            .sum()
    }

    /// All who can change their state do so; answers how long it took until everyone who is told elsewhere was told.
    fn turn(&self) -> Duration {
        let before = self.good_lines();
        self.well.fetch_xor(true, Ordering::Relaxed);
        let turned = Instant::now();
        while self.good_lines() < before + GOOD {
            assert!(turned.elapsed() < Duration::from_secs(30), "notices to others do not arrive");
            thread::sleep(Duration::from_millis(5));
        }
        turned.elapsed()
    }

    /// Turns about once a second for this long.
    fn phase(&self, name: &str, length: Duration) -> Phase {
        let began = Instant::now();
        let mut phase = Phase { turns: 0, longest: Duration::ZERO, lags: Vec::new() };
        while began.elapsed() < length {
            let before = self.page();
            for _ in 0..TURNS_PER_LAG {
                phase.longest = phase.longest.max(self.turn());
                phase.turns += 1;
                thread::sleep(Duration::from_millis(800));
            }
            phase.lags.push(self.page().lag(&before, 0.99));
        }
        println!("{name}: {} turns, notices within {:?}, lag p99 {:?} s", phase.turns, phase.longest, phase.lags);
        phase.lags.sort_by(f64::total_cmp);
        phase
    }
}

const TURNS_PER_LAG: usize = 2;

struct Phase {
    turns: usize,
    /// How long the others waited for their notices at most.
    longest: Duration,
    /// The 99th percentile in seconds, of every two turns.
    lags: Vec<f64>,
}

impl Phase {
    /// Of half of the stretches of time: whatever else this machine does comes and goes, a hung disk stays.
    fn lag(&self) -> f64 {
        self.lags[self.lags.len() / 2]
    }
}

#[test]
fn a_provider_that_hangs_delays_neither_others_nor_checks_and_misses_nothing() {
    const NAME: &str = "a_provider_that_hangs_delays_neither_others_nor_checks_and_misses_nothing";
    let seconds = std::env::var("CPRA_ISOLATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
        return support::skip(NAME, &format!("needs CAP_SYS_ADMIN for a mount namespace: {errno}"));
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("root may");

    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let well = Arc::new(AtomicBool::new(true));
    let (turning, steady) = (serve(Arc::clone(&well)), serve(Arc::new(AtomicBool::new(true))));
    let mut monitors = Vec::new();
    for file in 0..HUNG_FILES {
        let path = disk.join(format!("{file}.jsonl"));
        monitors.extend((0..MONITORS_PER_HUNG_FILE).map(|n| monitor(format!("disk/{file}/{n}"), turning, &path)));
    }
    let good = |n: usize| folder.path().join(format!("good-{}.jsonl", n % GOOD_FILES));
    monitors.extend((0..GOOD).map(|n| monitor(format!("good/{n}"), turning, &good(n))));
    monitors.extend((0..STEADY).map(|n| monitor(format!("steady/{n}"), steady, &good(n))));
    let all = monitors.len() as f64;

    let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = api.local_addr().expect("it is bound");
    let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
    let plan = Plan {
        pulse: Setup::fixed(512),
        queue_capacity: CAPACITY,
        ..Plan::new(catalog, api, folder.path().to_owned())
    };
    let daemon = daemon::start(plan).expect("the daemon starts");
    let mut bench = Bench { dead: None, folder, well, api: address };
    support::eventually("all are up", || bench.page().value("cpra_monitors{state=\"up\"}") == all);

    // What opens files and connections for the first time is not compared.
    let warmth = 2;
    for _ in 0..warmth {
        bench.turn();
        thread::sleep(Duration::from_millis(500));
    }
    let before = bench.phase("before", Duration::from_secs(6));
    match Dead::over(&disk) {
        Ok(dead) => bench.dead = Some(dead),
        Err(reason) => {
            daemon.stop();
            return support::skip(NAME, &reason);
        }
    }
    let hung = bench.phase("hung", Duration::from_secs(seconds));
    let waiting = bench.page().value("cpra_queue_depth{pipeline=\"code\"}");
    assert!(waiting >= (MONITORS_PER_HUNG_FILE * HUNG_FILES) as f64, "{waiting} wait: nothing hung?");
    bench.dead = None;
    let after = bench.phase("after", Duration::from_secs(6));
    // A second, and what it takes until the change is seen at all.
    assert!(hung.longest < Duration::from_secs(1) + Duration::from(INTERVAL), "{:?}", hung.longest);
    // Within noise, in buckets that are twice as wide as the ones below them.
    let usual = before.lag().max(after.lag());
    assert!(hung.lag() <= (4.0 * usual).max(0.020), "p99 of the lag is {} s where it is {usual} s", hung.lag());

    let turns = warmth + before.turns + hung.turns + after.turns;
    let lines = |file: usize| {
        let text = std::fs::read_to_string(disk.join(format!("{file}.jsonl"))).unwrap_or_default();
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("whole lines of JSON");
        text.lines().map(parse).collect::<Vec<_>>()
    };
    support::eventually("what waited has arrived", || {
        (0..HUNG_FILES).all(|file| lines(file).len() >= turns * MONITORS_PER_HUNG_FILE)
    });
    for file in 0..HUNG_FILES {
        let lines = lines(file);
        for n in 0..MONITORS_PER_HUNG_FILE {
            let name = format!("disk/{file}/{n}");
            let told: Vec<_> = lines.iter().filter(|line| line["monitor"] == name).map(|line| &line["color"]).collect();
            let expected: Vec<_> = ["red", "green"].into_iter().cycle().take(turns).collect();
            assert_eq!(told, expected, "{name}: each once, and in order");
        }
    }
    assert!(daemon.stop(), "everything ends in time");
}
