//! Histograms from outside: the real binary writes them, and the HdrHistogram package of PyPI reads them, value by value.
//!
//! Without Python and that package (`cargo xtask packages` brings it) the comparison skips aloud.

#![allow(unreachable_pub, reason = "modules of one test crate")]
#![allow(dead_code, reason = "what this crate shares with others is used by them")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod counterparts;

#[path = "process/daemon.rs"]
mod daemon;
#[path = "process/targets.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use cpra::queueing::recording::{Distribution, Log, read};
use nix::sys::signal::Signal;

use self::counterparts::raw::{RawServer, Script};
use self::counterparts::support::skip;
use self::daemon::{BINARY, Cpra, Setup, eventually};
use self::targets::{Targets, file, http, tcp};

const CADENCE: &str = "interval: 100ms, timeout: 90ms, unhealthy_threshold: 3, healthy_threshold: 1";

/// Checks of two types, and one that always times out.
fn monitors(targets: &Targets, silent: &RawServer) -> String {
    let all =
        [http("shop/web", targets.addresses[0]), tcp("shop/db", targets.addresses[1]), http("hangs", silent.address())];
    file(CADENCE, &all.concat())
}

/// A daemon in a folder of its own, with its state there as well.
fn setup() -> Setup {
    let setup = Setup::new();
    let state = format!("STATE_DIRECTORY={}", setup.folder().join("state").display());
    setup.through(&["env", &state])
}

fn names(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    paths.sort();
    paths
}

/// The only log of a folder. While it is written to, its last line may be there in part.
fn log_of(folder: &Path) -> Option<(PathBuf, Log)> {
    let logs = names(folder, ".hlog");
    assert!(logs.len() < 2, "{logs:?}");
    let path = logs.into_iter().next()?;
    let log =
        read(&fs::read(&path).expect("it is there")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some((path, log))
}

fn intervals(folder: &Path) -> usize {
    log_of(folder).map_or(0, |(_, log)| log.intervals)
}

/// A POST to the unix socket, and the status and body of its answer.
fn dump(cpra: &Cpra) -> (u16, serde_json::Value) {
    let mut stream = UnixStream::connect(cpra.path("cpra.sock")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head =
        "POST /api/v1/histograms/dump HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a whole head").1;
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Runs a program, which must succeed, and answers with what it printed.
fn printed(command: &mut Command) -> String {
    let output = command.output().expect("it can be started");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn cpra_histogram(words: &[&str]) -> String {
    printed(Command::new(BINARY).arg("histogram").args(words))
}

/// Python with the package, from where `cargo xtask packages` puts it or from the system; else a skip.
fn python(name: &str) -> Option<Command> {
    let brought = Path::new(BINARY).ancestors().nth(2).expect("a target folder").join("python");
    for path in [Some(brought), None] {
        let mut python = Command::new("python3");
        if let Some(path) = path {
            python.env("PYTHONPATH", path);
        }
        let mut trial = Command::new("python3");
        trial.args(["-c", "import hdrh.log"]);
        trial.envs(python.get_envs().filter_map(|(key, value)| Some((key, value?))));
        if trial.output().is_ok_and(|output| output.status.success()) {
            return Some(python);
        }
    }
    skip(name, "needs python3 with the package hdrhistogram (cargo xtask packages)");
    None
}

/// Compares a log as the package reads it with how we do, and with what the command line says of it.
fn compare(mut python: Command, path: &Path, log: &Log) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/histograms/values.py");
    let environment: Vec<_> =
        python.get_envs().map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned))).collect();
    let theirs = printed(python.arg(&script).arg(path));
    let mut values: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut intervals = 0;
    for line in theirs.lines() {
        let number = |word: &str| word.parse::<u64>().expect("a number");
        match line.split(' ').collect::<Vec<_>>()[..] {
            [tag, "value", value, count] => assert!(values.insert((tag, number(value)), number(count)).is_none()),
            [_, "intervals", count] => intervals += number(count),
            _ => panic!("{line}"),
        }
    }
    let ours: BTreeMap<(&str, u64), u64> = log
        .series
        .iter()
        .flat_map(|(tag, times)| times.recorded().map(move |(value, count)| ((tag.as_str(), value), count)))
        .collect();
    assert_eq!(values, ours);
    assert_eq!(intervals, log.intervals as u64);
    println!("{} values of {} series in {intervals} intervals are the same", ours.len(), log.series.len());

    // The table of the command line, in milliseconds. Which of so many times is meant is counted here, exactly: the package
    // rounds to the nearest one, the reference implementation up.
    let table = cpra_histogram(&[path.to_str().expect("text")]);
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let of_tag = || values.iter().filter(|((tag, _), _)| *tag == cells[0]);
        let count: u64 = of_tag().map(|(_, count)| count).sum();
        let expected: Vec<String> = [5_000, 9_000, 9_500, 9_900, 9_990, 9_999, 10_000]
            .iter()
            .map(|share: &u64| {
                let mut left = (count * share).div_ceil(10_000);
                let found = of_tag().find(|(_, count)| {
                    left = left.saturating_sub(**count);
                    left == 0
                });
                format!("{:.3}", found.expect("it is among them").0.1 as f64 / 1e3)
            })
            .collect();
        assert_eq!(cells[1], count.to_string(), "{line}");
        assert_eq!(cells[3..], expected, "p50 to p99.99 and the maximum: {line}");
    }
    assert_eq!(table.lines().count(), 1 + log.series.len(), "{table}");

    // The texts. The package's steps are other ones than the reference implementation's, which ours are: so each step is held
    // against the values.
    for (tag, times) in &log.series {
        let mut again = Command::new("python3");
        again.envs(environment.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))));
        let theirs = printed(again.arg(&script).arg(path).args(["--text", tag]));
        let ours = times.text();
        let rows = ours.lines().skip(2).filter(|line| !line.starts_with('#'));
        for row in rows {
            let cells: Vec<f64> = row.split_whitespace().map(|cell| cell.parse().expect("a number")).collect();
            let up_to: u64 = values
                .iter()
                .filter(|((of, value), _)| of == tag && *value as f64 / 1e3 <= cells[0] + 1e-9)
                .map(|(_, count)| count)
                .sum();
            assert_eq!(up_to as f64, cells[2], "{tag}: {row}");
            assert!(up_to as f64 / times.count() as f64 >= cells[1] - 1e-9, "{tag}: {row}");
        }
        let mean =
            |text: &str| text.lines().find_map(|line| Some(line.split_once("#[Mean")?.1.split_once(',')?.0.to_owned()));
        let buckets = |text: &str| text.lines().rfind(|line| line.starts_with("#[Buckets")).map(str::to_owned);
        assert!(mean(&ours).is_some() && buckets(&ours).is_some(), "{ours}");
        assert_eq!((mean(&ours), buckets(&ours)), (mean(&theirs), buckets(&theirs)), "{tag}:\n{ours}\n{theirs}");
    }
}

#[test]
fn dumps_open_with_the_standard_package_value_by_value() {
    const NAME: &str = "dumps_open_with_the_standard_package_value_by_value";
    let (targets, silent) = (Targets::start(2, Duration::from_millis(1)), RawServer::start(Script::Silence));
    let settings = "[histograms]\ndir = \"histograms\"\ninterval = \"1s\"\n";
    let mut cpra = setup().monitors(&monitors(&targets, &silent)).settings(settings).run();
    let folder = cpra.path("histograms");
    eventually("two intervals are written by themselves", || intervals(&folder) >= 8);

    // Twice at once is one wish or two, and ends nothing. An interval has just ended: something is to be in this one.
    thread::sleep(Duration::from_millis(400));
    cpra.signal(Signal::SIGUSR1);
    cpra.signal(Signal::SIGUSR1);
    eventually("texts are written", || names(&folder, ".hgrm").len() >= 4);
    assert!(cpra.is_running() && cpra.stderr().contains("histograms are written"), "{}", cpra.said());

    thread::sleep(Duration::from_millis(300));
    let (status, body) = dump(&cpra);
    assert_eq!((status, body["file"].as_str()), (200, log_of(&folder).expect("a log").0.to_str()), "{body}");
    let tags: Vec<_> =
        body["series"].as_array().expect("series").iter().filter_map(|one| one["tag"].as_str()).collect();
    assert_eq!(tags, ["pulse-http-service", "pulse-http-result", "pulse-tcp-service", "pulse-tcp-result"], "{body}");
    let text = body["texts"][0].as_str().expect("a text");
    assert!(fs::read_to_string(text).expect("it is there").starts_with("       Value     Percentile"), "{text}");
    let audit = cpra.stderr();
    assert!(audit.lines().any(|line| line.contains("audit") && line.contains("dump histograms")), "{audit}");

    let counted = cpra.metrics();
    let judged = counted.sum("cpra_checks_total{", "");
    assert!(counted.value("cpra_histogram_dumps_total{result=\"written\"}") >= 4.0);
    cpra.signal(Signal::SIGTERM);
    // While it ends, a wish for a dump is no second wish to end.
    for _ in 0..5 {
        cpra.signal(Signal::SIGUSR1);
    }
    assert_eq!(cpra.ends_within(Duration::from_secs(20)).code(), Some(0), "{}", cpra.said());
    assert!(cpra.stderr().contains("stopped"), "{}", cpra.stderr());

    let (path, log) = log_of(&folder).expect("a log");
    assert_eq!(log.torn, None);
    let count = |tag: &str| log.series.get(tag).map_or(0, Distribution::count);
    for kind in ["http", "tcp"] {
        assert_eq!(count(&format!("pulse-{kind}-service")), count(&format!("pulse-{kind}-result")));
    }
    let all = count("pulse-http-result") + count("pulse-tcp-result");
    assert!(all as f64 >= judged, "{all} of at least {judged}: what was recorded last is written at the end");
    assert!(count("code-log-result") >= 1, "somebody was told that one hangs");
    let (fast, slow) = (log.series["pulse-tcp-service"].percentile(50.0), log.series["pulse-http-service"].max());
    assert!(fast < 50.0 && (85.0..2_000.0).contains(&slow), "{fast} ms, {slow} ms");
    if let Some(python) = python(NAME) {
        compare(python, &path, &log);
    }
}

#[test]
fn without_a_folder_only_who_asks_gets_one() {
    let (targets, silent) = (Targets::start(2, Duration::ZERO), RawServer::start(Script::Silence));
    let mut cpra = setup().monitors(&monitors(&targets, &silent)).run();
    let folder = cpra.path("state/histograms");
    eventually("checks are judged", || cpra.metrics().sum("cpra_checks_total{", "") > 10.0);
    assert!(!folder.exists());
    cpra.signal(Signal::SIGUSR1);
    eventually("a dump is written", || !names(&folder, ".hgrm").is_empty() && intervals(&folder) >= 4);
    let (path, first) = log_of(&folder).expect("a log");

    let (status, body) = dump(&cpra);
    assert_eq!((status, body["file"].as_str()), (200, path.to_str()), "{body}");
    let svg = cpra.path("picture.svg");
    let words = [path.to_str().expect("text"), "--tag", "pulse-http-result", "--svg", svg.to_str().expect("text")];
    let said = cpra_histogram(&words);
    assert!(said.lines().count() == 2 && said.contains("pulse-http-result"), "{said}");
    let picture = fs::read_to_string(svg).expect("it is drawn");
    assert!(
        picture.starts_with("<svg") && picture.contains("pulse-http-result") && picture.contains("90%"),
        "{picture}"
    );
    assert!(cpra_histogram(&[path.to_str().expect("text"), "--hgrm"]).contains("1/(1-Percentile)"));
    let both = cpra_histogram(&[path.to_str().expect("text"), path.to_str().expect("text")]);
    let ratio = both.lines().find(|line| line.starts_with("  ratio")).expect("a comparison");
    assert!(ratio.split_whitespace().skip(1).all(|cell| cell == "1.00x"), "{both}");

    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(20)).code(), Some(0), "{}", cpra.said());
    let (_, last) = log_of(&folder).expect("a log");
    assert!(last.intervals <= first.intervals + 5, "nobody asked for one at the end");

    let torn = cpra.path("torn.hlog");
    let text = fs::read(&path).expect("it is there");
    fs::write(&torn, &text[..text.len() - 40]).expect("written");
    let output = Command::new(BINARY).arg("histogram").arg(&torn).output().expect("it can be started");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("torn"), "{output:?}");
    fs::write(&torn, "hello\nworld\n").expect("written");
    let output = Command::new(BINARY).arg("histogram").arg(&torn).output().expect("it can be started");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("torn.hlog:1: this is no interval"), "{output:?}");
}

#[test]
fn a_folder_that_cannot_be_written_to_costs_dumps_only() {
    let (targets, silent) = (Targets::start(2, Duration::ZERO), RawServer::start(Script::Silence));
    let settings = "[histograms]\ndir = \"monitors.yaml\"\ninterval = \"1s\"\n";
    let mut cpra = setup().monitors(&monitors(&targets, &silent)).settings(settings).run();
    let failed = || cpra.metrics().value("cpra_histogram_dumps_total{result=\"failed\"}");
    eventually("dumps fail", || failed() >= 3.0);
    let (status, body) = dump(&cpra);
    assert!(status == 503 && body["error"].as_str().is_some_and(|text| text.contains("monitors.yaml")), "{body}");
    let stderr = cpra.stderr();
    let told: Vec<_> = stderr.lines().filter(|line| line.contains("histograms cannot be written")).collect();
    assert!(told.len() == 1 && told[0].contains("[histograms] dir"), "once a minute: {stderr}");
    let before = cpra.metrics().sum("cpra_checks_total{", "");
    eventually("checks go on", || cpra.metrics().sum("cpra_checks_total{", "") > before + 10.0);
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(20)).code(), Some(0), "{}", cpra.said());
}
