//! The files read again: what changes, what does not, and what is refused.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::daemon::{BINARY, Cpra, Setup, eventually};
use super::targets::{Closed, Targets, file, http, tcp};

const CADENCE: &str = "interval: 1s, timeout: 500ms, unhealthy_threshold: 1, healthy_threshold: 1";

/// `cpra reload`, of this daemon.
fn reload(cpra: &Cpra, flags: &[&str]) -> Output {
    let folder = cpra.path("");
    Command::new(BINARY)
        .arg("reload")
        .args(flags)
        .current_dir(&folder)
        .env("STATE_DIRECTORY", folder.join("state"))
        .env("RUNTIME_DIRECTORY", &folder)
        .output()
        .expect("the binary can be started")
}

/// What it prints, where it is done.
fn reloaded(cpra: &Cpra, flags: &[&str]) -> String {
    let output = reload(cpra, flags);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}{}", String::from_utf8_lossy(&output.stderr), cpra.said());
    text
}

/// What it says where it is refused.
fn refused(cpra: &Cpra, flags: &[&str]) -> String {
    let output = reload(cpra, flags);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(cpra: &Cpra, text: &str) {
    fs::write(cpra.path("monitors.yaml"), text).expect("a file in the test's own folder");
}

fn last(cpra: &Cpra) -> Value {
    let (status, body) = cpra.get("/api/v1/reload");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("it is JSON")
}

/// Monitors `m000` and so on, in this order.
fn fleet(targets: &Targets, numbers: impl Iterator<Item = usize>) -> String {
    let mut text = String::new();
    for n in numbers {
        let _ = write!(text, "{}", http(&format!("m{n:03}"), targets.addresses[n % targets.addresses.len()]));
    }
    text
}

#[test]
fn another_order_is_no_change_and_one_in_a_hundred_is_one() {
    let targets = Targets::start(1, std::time::Duration::ZERO);
    let cpra = Setup::new().monitors(&file(CADENCE, &fleet(&targets, 0..100))).run();
    eventually("all are up", || cpra.metrics().state("up") >= 100.0);
    let before = cpra.metrics();
    write(&cpra, &format!("# reordered\n\n{}", file(CADENCE, &fleet(&targets, (0..100).rev()))));
    assert_eq!(reloaded(&cpra, &[]), "reloaded: 100 unchanged\n");
    assert_eq!(last(&cpra)["last"]["result"], "unchanged");
    // Nobody became unknown in between: what is up stays up.
    let metrics = cpra.metrics();
    assert_eq!((metrics.state("up"), metrics.value("cpra_checks_missed_total")), (100.0, 0.0));
    let text = file(CADENCE, &fleet(&targets, (1..100).chain([100])));
    write(&cpra, &text);
    assert_eq!(
        reloaded(&cpra, &["--dry-run"]),
        "would be reloaded: 1 added, 1 removed, 99 unchanged\n  added      m100\n  removed    m000\n"
    );
    assert_eq!(cpra.get("/api/v1/monitors/m000").0, 200, "a dry run changes nothing");
    reloaded(&cpra, &[]);
    assert_eq!((cpra.get("/api/v1/monitors/m000").0, cpra.get("/api/v1/monitors/m100").0), (404, 200));
    eventually("the new one is checked", || cpra.metrics().state("up") >= 100.0);
    let after = cpra.metrics();
    assert_eq!(after.value("cpra_checks_missed_total"), before.value("cpra_checks_missed_total"));
    assert_eq!(after.value("cpra_monitors_lost"), 0.0);
    assert_eq!(after.value("cpra_reloads_total{result=\"applied\"}"), 1.0);
    assert_eq!(after.value("cpra_reloads_total{result=\"unchanged\"}"), 1.0);
    assert_eq!(after.value("cpra_config_last_reload_successful"), 1.0);
}

#[test]
fn what_is_wrong_or_cut_leaves_the_running_monitors() {
    let targets = Targets::start(1, std::time::Duration::ZERO);
    let whole = file(CADENCE, &fleet(&targets, 0..100));
    let cpra = Setup::new().monitors(&whole).run();
    eventually("all are up", || cpra.metrics().state("up") >= 100.0);
    // In the middle of a word.
    write(&cpra, &whole[..whole.len() / 2 - 7]);
    let said = refused(&cpra, &[]);
    assert!(said.contains("monitors"), "{said}");
    // Where it reads well.
    let half = whole.match_indices("  - name: m050").next().expect("it is there").0;
    write(&cpra, &whole[..half]);
    let said = refused(&cpra, &[]);
    assert!(said.contains("50 of 100 monitors (50 %) would be removed") && said.contains("--force"), "{said}");
    let metrics = cpra.metrics();
    assert_eq!(metrics.value("cpra_reloads_total{result=\"refused\"}"), 2.0);
    assert_eq!(metrics.value("cpra_config_last_reload_successful"), 0.0);
    assert_eq!(metrics.state("up"), 100.0);
    let last = last(&cpra);
    assert_eq!((&last["last"]["result"], &last["last_success"]), (&Value::from("refused"), &Value::Null));
    let (status, ready) = cpra.get("/readyz");
    assert!(status == 200 && ready.contains("the last reload"), "{ready}");
    // A place in the file.
    write(&cpra, &whole.replacen("interval: 1s", "interval: soon", 1));
    let said = refused(&cpra, &[]);
    assert!(said.contains("monitors.yaml:2:"), "{said}");
    // It may be meant so.
    write(&cpra, &whole[..half]);
    assert!(reloaded(&cpra, &["--force"]).starts_with("reloaded: 50 removed, 50 unchanged\n"));
    eventually("half of them are left", || cpra.metrics().state("up") == 50.0);
    write(&cpra, "monitors: []\n");
    assert!(refused(&cpra, &[]).contains("no monitor is left of 50"));
    assert!(cpra.stderr().contains("reload refused, the running monitors stay"), "{}", cpra.stderr());
}

#[test]
fn a_file_that_is_replaced_or_linked_elsewhere_is_seen() {
    let targets = Targets::start(1, std::time::Duration::ZERO);
    let setup = Setup::new();
    let of = |n: usize| file(CADENCE, &fleet(&targets, 0..n));
    for n in [2, 3] {
        fs::write(setup.folder().join(format!("v{n}.yaml")), of(n)).expect("a file");
    }
    symlink("v2.yaml", setup.folder().join("current.yaml")).expect("a link");
    let cpra = setup.argument("--yaml").argument("current.yaml").run();
    eventually("two are up", || cpra.metrics().state("up") >= 2.0);
    // As people switch versions: another link, renamed over the first.
    symlink("v3.yaml", cpra.path("next")).expect("a link");
    fs::rename(cpra.path("next"), cpra.path("current.yaml")).expect("it is replaced");
    assert!(reloaded(&cpra, &[]).starts_with("reloaded: 1 added, 2 unchanged"));
    // And as editors write files.
    fs::write(cpra.path("v3.new"), of(5)).expect("a file");
    fs::rename(cpra.path("v3.new"), cpra.path("v3.yaml")).expect("it is replaced");
    cpra.signal(Signal::SIGHUP);
    // Two at once are one or two, and neither ends the daemon.
    cpra.signal(Signal::SIGHUP);
    eventually("five are up", || cpra.metrics().state("up") >= 5.0);
    eventually("it is told", || cpra.stderr().contains("reloaded: 2 added, 3 unchanged"));
    assert_eq!(last(&cpra)["last"]["by"], "SIGHUP");
}

#[test]
fn an_open_red_ends_gray_when_its_monitor_goes_and_green_where_it_was_told() {
    let (targets, closed) = (Targets::start(1, std::time::Duration::ZERO), Closed::new());
    let down = |name: &str| tcp(name, closed.address());
    let rest = fleet(&targets, 0..1);
    let cpra = Setup::new().monitors(&file(CADENCE, &format!("{rest}{}{}", down("goes"), down("moves")))).run();
    let colors = |name: &str, log: &str| -> Vec<String> {
        let notices = cpra.notices(log);
        let of = notices.iter().filter(|notice| notice["monitor"] == name);
        of.map(|notice| notice["color"].as_str().expect("a color").to_owned()).collect()
    };
    // Without stored state, raises wait for a moment: at most an interval.
    eventually("both are red", || ["goes", "moves"].iter().all(|name| colors(name, "notices.jsonl") == ["red"]));
    // One is gone; the other one is told to another log from now on, and its target is well again.
    let text = file(CADENCE, &format!("{rest}{}", down("moves"))).replace("notices.jsonl", "other.jsonl");
    write(&cpra, &text);
    reloaded(&cpra, &[]);
    eventually("the one that is gone is gray", || colors("goes", "notices.jsonl") == ["red", "gray"]);
    assert_eq!(colors("moves", "notices.jsonl"), ["red"], "adjusted: its incident goes on");
    let well = text.replace(&down("moves"), &tcp("moves", targets.addresses[0]));
    write(&cpra, &well);
    assert!(reloaded(&cpra, &[]).contains("1 redefined"));
    eventually("its end is told where its beginning was", || colors("moves", "notices.jsonl") == ["red", "green"]);
    let keys: Vec<Value> = cpra
        .notices("notices.jsonl")
        .into_iter()
        .filter(|notice| notice["monitor"] == "moves")
        .map(|notice| notice["incident"].clone())
        .collect();
    assert_eq!(keys[0], keys[1], "one incident, by whatever definition");
}
