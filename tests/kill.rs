//! Killed at random points, again and again, nothing is lost and nothing comes twice under another key.
//!
//! The daemon watches targets that fail and recover, and tells a webhook; every other moment it gets SIGKILL and is
//! started again on the same state. Neither its store nor its own word is asked what should have happened: the targets
//! write down what they answered to whom, and that decides.
//!
//! - **No outage without its red**: where one process got as many failing answers in a row as the threshold asks for, and
//!   lived on for a while, there is an incident over that time.
//! - **No red without a cause**: just before it, the target had failed.
//! - **No red without its end**: when all is well and quiet, every incident is resolved.
//! - **No second key**: incidents of a monitor do not overlap, and between two of them it was up; each notice of an
//!   incident has one `webhook-id`, and what comes twice under it says the same.
//!
//! Thirty times; `CPRA_KILLS=300` for as many. A part of the notices is taken without an answer, so that they have to
//! come again.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BINARY: &str = env!("CARGO_BIN_EXE_cpra");
const TARGETS: usize = 20;
/// Failures in a row that make a monitor down, and oks that make it up.
const FALL: usize = 2;
const RISE: usize = 2;
/// From an answer until what follows from it has left, on a busy machine.
const SLACK: f64 = 3.0;
/// How long a notice takes to be told of by its time, after the answer that caused it.
const JUDGED: f64 = 1.5;
const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds since 1970, as notices have them.
fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// One that answers with 200 or 503, and remembers when it did.
struct Target {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<(f64, bool)>>>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (well, answers) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let (state, log) = (Arc::clone(&well), Arc::clone(&answers));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A daemon that is killed leaves half a request.
                let Some(mut stream) = read_request(stream).map(|(stream, ..)| stream) else { continue };
                // What was noted is what is sent: both under the lock.
                let mut log = log.lock().expect("nobody panics with it");
                let well = state.load(Ordering::SeqCst);
                let status = if well { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                if stream.write_all(answer.as_bytes()).is_ok() {
                    log.push((wall(), well));
                }
            }
        });
        Self { address, well, answers }
    }
}

/// The stream, the head and the body of a request.
fn read_request(stream: TcpStream) -> Option<(TcpStream, String, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((reader.into_inner(), head, body))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A notice as it arrived.
#[derive(Clone, Debug)]
struct Arrival {
    id: String,
    body: serde_json::Value,
}

impl Arrival {
    fn text(&self, key: &str) -> &str {
        self.body["data"][key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.body))
    }

    /// When what it tells of happened.
    fn at(&self) -> f64 {
        let text = self.body["data"]["timestamp"].as_str().expect("a time");
        let time: jiff::Timestamp = text.parse().expect("RFC 3339");
        time.as_microsecond() as f64 / 1e6
    }
}

/// A webhook's other side, which at times takes a notice and says nothing.
fn receiver() -> (SocketAddr, Arc<Mutex<Vec<Arrival>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&arrivals);
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(7);
        for stream in listener.incoming().flatten() {
            let mute = random.u8(..) < 25;
            let taken = Arc::clone(&taken);
            thread::spawn(move || {
                let Some((mut stream, head, body)) = read_request(stream) else { return };
                let id = header(&head, "webhook-id").expect("an id").to_owned();
                let body = serde_json::from_slice(&body).expect("JSON");
                taken.lock().expect("nobody panics with it").push(Arrival { id, body });
                if !mute {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                }
            });
        }
    });
    (address, arrivals)
}

fn write_files(folder: &Path, targets: &[Target], webhook: SocketAddr) {
    let settings = format!(
        "[ebpf]\nmode = \"off\"\n[store]\npath = \"{}\"\n[providers.hook]\ntype = \"webhook\"\nurl_file = \"{}\"\n\
         [security]\nsecret_dirs = [\"{}\"]\n",
        folder.join("state/cpra.db").display(),
        folder.join("url").display(),
        folder.display()
    );
    fs::write(folder.join("url"), format!("http://{webhook}/notices")).expect("a file of the test");
    fs::write(folder.join("cpra.toml"), settings).expect("a file of the test");
    let mut text = format!(
        "defaults:\n  pulse: {{interval: 200ms, timeout: 200ms, unhealthy_threshold: {FALL}, healthy_threshold: {RISE}}}\n  \
         codes: {{red: {{notify: hook}}, green: {{notify: hook}}}}\nmonitors:\n"
    );
    for (number, target) in targets.iter().enumerate() {
        let address = target.address;
        writeln!(text, "  - {{name: t{number}, pulse: {{type: http, config: {{url: \"http://{address}/\"}}}}}}")
            .expect("into memory");
    }
    fs::write(folder.join("monitors.yaml"), text).expect("a file of the test");
}

/// A process of the daemon, and when it lived.
fn start(folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    Command::new(BINARY)
        .args(["--config", "cpra.toml", "--yaml", "monitors.yaml", "--api.listen", "127.0.0.1:0"])
        .current_dir(folder)
        .env("STATE_DIRECTORY", folder.join("state"))
        .env("RUNTIME_DIRECTORY", folder.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the daemon starts")
}

/// One incident as it was told.
#[derive(Debug)]
struct Incident {
    key: String,
    red: f64,
    resolve: Option<f64>,
}

/// By monitor, in the order of their reds; what contradicts itself is a failure.
fn incidents(arrivals: &[Arrival]) -> BTreeMap<String, Vec<Incident>> {
    let mut by_id: BTreeMap<&str, &Arrival> = BTreeMap::new();
    let mut ids: BTreeMap<(String, String), &str> = BTreeMap::new();
    let mut told: BTreeMap<String, BTreeMap<String, Incident>> = BTreeMap::new();
    for arrival in arrivals {
        let known = by_id.entry(&arrival.id).or_insert(arrival);
        assert_eq!(known.body["data"], arrival.body["data"], "{} came twice, and says something else", arrival.id);
        let (incident, color) = (arrival.text("incident").to_owned(), arrival.text("color").to_owned());
        let first = ids.entry((incident.clone(), color.clone())).or_insert(&arrival.id);
        assert_eq!(*first, arrival.id, "the {color} of {incident} came under two keys");
        let of_monitor = told.entry(arrival.text("monitor").to_owned()).or_default();
        match &*color {
            "red" => {
                let new = Incident { key: incident.clone(), red: arrival.at(), resolve: None };
                of_monitor.entry(incident).or_insert(new);
            }
            "green" => {
                let open = of_monitor.get_mut(&incident);
                let open = open.unwrap_or_else(|| panic!("the end of {incident} came before its red"));
                open.resolve = Some(arrival.at());
            }
            other => panic!("nobody asked for {other}"),
        }
    }
    let sorted = |incidents: BTreeMap<String, Incident>| {
        let mut incidents: Vec<Incident> = incidents.into_values().collect();
        incidents.sort_by(|a, b| a.red.total_cmp(&b.red));
        incidents
    };
    told.into_iter().map(|(monitor, incidents)| (monitor, sorted(incidents))).collect()
}

/// Ends of runs of failing answers, within the life of one process, that it had the time to tell of.
fn sure_outages(answers: &[(f64, bool)], lives: &[(f64, f64)]) -> Vec<f64> {
    let mut sure = Vec::new();
    for &(born, died) in lives {
        let mut failed = 0;
        for &(at, well) in answers.iter().filter(|(at, _)| (born..died).contains(at)) {
            failed = if well { 0 } else { failed + 1 };
            if failed == FALL && at + SLACK < died {
                sure.push(at);
            }
        }
    }
    sure
}

fn judge(monitor: &str, answers: &[(f64, bool)], lives: &[(f64, f64)], incidents: &[Incident]) -> usize {
    for incident in incidents {
        let Incident { key, red, resolve } = incident;
        assert!(resolve.is_some(), "{key} has no end, and {monitor} is up");
        let cause = answers.iter().any(|&(at, well)| !well && (red - JUDGED..red + 0.1).contains(&at));
        assert!(cause, "{key} is red at {red}, and {monitor} had not failed");
    }
    for pair in incidents.windows(2) {
        let (end, next) = (pair[0].resolve.expect("it has an end"), pair[1].red);
        assert!(end <= next, "{monitor} has two incidents at a time: {pair:?}");
        let up = answers.iter().filter(|&&(at, well)| well && (pair[0].red..next).contains(&at)).count();
        assert!(up >= RISE, "{monitor} has two incidents, and was not up between them: {pair:?}");
    }
    let outages = sure_outages(answers, lives);
    for at in &outages {
        let covers = |incident: &Incident| {
            incident.red <= at + JUDGED && incident.resolve.is_none_or(|resolve| resolve + 0.1 >= *at)
        };
        assert!(incidents.iter().any(covers), "{monitor} was down at {at}, and nobody was told: {incidents:?}");
    }
    outages.len()
}

#[test]
fn nothing_is_lost_and_nothing_comes_under_a_second_key() {
    let kills: usize = std::env::var("CPRA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(30);
    let seed = std::env::var("CPRA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{kills} kills, CPRA_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::Builder::new().prefix("cpra-kill-").tempdir().expect("a folder");
    let targets: Vec<Target> = (0..TARGETS).map(|_| Target::start()).collect();
    let (webhook, arrivals) = receiver();
    write_files(folder.path(), &targets, webhook);

    let flapping = Arc::new(AtomicBool::new(true));
    let switches: Vec<Arc<AtomicBool>> = targets.iter().map(|target| Arc::clone(&target.well)).collect();
    let flapper = {
        let (flapping, mut random) = (Arc::clone(&flapping), fastrand::Rng::with_seed(seed ^ 1));
        thread::spawn(move || {
            let mut next: Vec<Instant> = switches.iter().map(|_| Instant::now()).collect();
            while flapping.load(Ordering::SeqCst) {
                for (well, next) in switches.iter().zip(&mut next) {
                    if *next <= Instant::now() {
                        well.fetch_not(Ordering::SeqCst);
                        *next = Instant::now() + Duration::from_millis(random.u64(800..8_000));
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            switches.iter().for_each(|well| well.store(true, Ordering::SeqCst));
        })
    };

    let mut lives = Vec::new();
    for _ in 0..kills {
        let born = wall();
        let mut daemon = start(folder.path());
        // Mostly long enough for something to be going on, sometimes in the middle of the start.
        let life = if random.u8(..) < 50 { random.u64(10..800) } else { random.u64(800..6_000) };
        thread::sleep(Duration::from_millis(life));
        let ended = daemon.try_wait().expect("it can be waited for");
        assert!(
            ended.is_none(),
            "it ended by itself: {}",
            fs::read_to_string(folder.path().join("log")).unwrap_or_default()
        );
        daemon.kill().expect("it is a child");
        daemon.wait().expect("it is a child");
        lives.push((born, wall()));
    }

    flapping.store(false, Ordering::SeqCst);
    flapper.join().expect("it ends");
    let born = wall();
    let mut daemon = start(folder.path());
    let told = || incidents(&arrivals.lock().expect("nobody panics with it"));
    let is_open = |incident: &Incident| incident.resolve.is_none();
    let began = Instant::now();
    // Long enough for whatever is still to be sent, then as long as something is open.
    thread::sleep(Duration::from_secs(5));
    while told().values().flatten().any(is_open) && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(200));
    }
    lives.push((born, wall()));
    daemon.kill().expect("it is a child");
    daemon.wait().expect("it is a child");

    let told = told();
    let mut outages = 0;
    for (number, target) in targets.iter().enumerate() {
        let monitor = format!("t{number}");
        let answers = target.answers.lock().expect("nobody panics with it");
        let incidents = told.get(&monitor).map_or(&[][..], Vec::as_slice);
        outages += judge(&monitor, &answers, &lives, incidents);
    }
    let arrived = arrivals.lock().expect("nobody panics with it");
    let ids: std::collections::BTreeSet<&str> = arrived.iter().map(|arrival| &*arrival.id).collect();
    let incidents = told.values().map(Vec::len).sum::<usize>();
    println!(
        "{kills} kills, {outages} outages that had to be told, {incidents} incidents, {} notices, {} of them came again",
        ids.len(),
        arrived.len() - ids.len()
    );
    assert!(outages >= kills / 2, "only {outages} outages: this proves little");
}
