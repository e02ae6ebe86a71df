//! Whom the daemon becomes when it is started as root, and what is left of root's powers: asked of the kernel, for each of
//! its threads.
//!
//! All of it needs root, and skips aloud without.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::User;

use super::counterparts::support;
use super::daemon::{BINARY, Cpra, Setup, eventually};
use super::targets::Targets;

const NET_RAW: u64 = 1 << 13;
/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF.
const OF_CHECKS: u64 = 1 << 12 | NET_RAW | 1 << 38 | 1 << 39;
/// CAP_KILL, CAP_SETGID, CAP_SETUID.
const OF_OTHERS_SCRIPTS: u64 = 1 << 5 | 1 << 6 | 1 << 7;

/// A line of a file such as /proc/self/status.
fn line<'a>(status: &'a str, key: &str) -> &'a str {
    let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

fn set(status: &str, key: &str) -> u64 {
    u64::from_str_radix(line(status, key), 16).expect("a set of capabilities")
}

/// Of this test, which is root; some hosts keep capabilities from their root.
fn permitted_here() -> u64 {
    set(&fs::read_to_string("/proc/self/status").expect("its own"), "CapPrm")
}

/// The user and another one that is not root, or a skip.
fn users(name: &str) -> Option<[User; 2]> {
    if !nix::unistd::geteuid().is_root() {
        support::skip(name, "only root can become somebody else");
        return None;
    }
    let user = |name| User::from_name(name).expect("the users can be read");
    let both = [user("nobody"), user("daemon")];
    let [Some(nobody), Some(daemon)] = both else {
        support::skip(name, "this host has no users nobody and daemon");
        return None;
    };
    Some([nobody, daemon])
}

/// A folder that root owns and all may enter, and in it one for each user to write to.
fn setup(user: &User, others: &User) -> Setup {
    let setup = Setup::new();
    fs::set_permissions(setup.folder(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (folder, owner) in [("state", user), ("scripts", others)] {
        let path = setup.folder().join(folder);
        fs::create_dir(&path).expect("room for a folder");
        chown(&path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).expect("it is ours");
    }
    let state = format!("STATE_DIRECTORY={}", setup.folder().join("state").display());
    setup.through(&["env", &state])
}

const QUICK: &str = "interval: 500ms, timeout: 500ms, unhealthy_threshold: 1, healthy_threshold: 1";

/// One monitor of each kind that needs something of the host, and one that is down and tells so.
fn monitors(folder: &Path, web: &str) -> String {
    // Moved into its place, so that whoever reads it finds all of it.
    let (script, status) = (folder.join("tell"), folder.join("scripts/status"));
    let status = status.to_str().expect("text");
    fs::write(&script, format!("#!/bin/sh\ncat /proc/self/status > {status}.new && mv {status}.new {status}\n"))
        .expect("room for a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let script = script.to_str().expect("text");
    let notify = folder.join("state/notices.jsonl");
    let notify = notify.to_str().expect("text");
    format!(
        "monitors:\n\
         - {{name: web, pulse: {{type: http, {QUICK}, config: {{url: \"http://{web}/\"}}}}}}\n\
         - {{name: echo, pulse: {{type: icmp, {QUICK}, config: {{host: 127.0.0.1}}}}}}\n\
         - name: script\n  pulse: {{type: script, {QUICK}, config: {{command: [{script}]}}}}\n\
         - name: down\n  pulse: {{type: tcp, {QUICK}, config: {{host: 127.0.0.1, port: 1}}}}\n  \
         codes: {{red: {{notify: log, config: {{file: {notify}}}}}}}\n"
    )
}

const THREADS: [&str; 8] =
    ["cpra", "cpra-shard-0", "cpra-desk", "cpra-code", "cpra-store", "cpra-resolve", "cpra-spawn", "cpra-control"];

/// The status of each thread. One may end while the list is read.
fn threads(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok()).collect()
}

/// Every thread is that user and has those capabilities, and nothing else of root's.
#[track_caller]
fn assert_is(cpra: &mut Cpra, user: &User, capabilities: u64) {
    let pid = cpra.child().id();
    // A thread names itself, a moment after it was started.
    eventually("every thread has its name", || {
        let names: BTreeSet<String> = threads(pid).iter().map(|status| line(status, "Name").to_owned()).collect();
        THREADS.iter().all(|name| names.contains(*name))
    });
    for status in threads(pid) {
        let name = line(&status, "Name");
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        assert_eq!(line(&status, "Uid").split_whitespace().collect::<Vec<_>>(), [&uid; 4], "{name}");
        assert_eq!(line(&status, "Gid").split_whitespace().collect::<Vec<_>>(), [&gid; 4], "{name}");
        assert!(line(&status, "Groups").split_whitespace().all(|group| group != "0"), "{name}: {status}");
        let sets = ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"].map(|key| set(&status, key));
        assert_eq!(sets, [capabilities, capabilities, 0, 0, 0], "{name}: {sets:x?}");
        assert_eq!(line(&status, "NoNewPrivs"), "1", "{name}");
    }
}

/// What runs, runs: checks of every kind, notices, files, the unix socket, an end in order.
#[track_caller]
fn assert_works(mut cpra: Cpra, user: &User, scripts: &User) {
    eventually("all are up but one", || {
        let metrics = cpra.metrics();
        metrics.state("up") == 3.0 && metrics.state("down") == 1.0
    });
    eventually("the notice is there", || !cpra.notices("state/notices.jsonl").is_empty());
    assert_eq!(cpra.metrics().outcomes("VOID:"), 0.0, "{}", cpra.said());
    let owner = |name: &str| fs::metadata(cpra.path(name)).expect("it is there").uid();
    assert_eq!(owner("state/notices.jsonl"), user.uid.as_raw());
    assert_eq!(owner("cpra.sock"), user.uid.as_raw());
    assert_eq!(owner("scripts/status"), scripts.uid.as_raw());
    let status = cpra.text("scripts/status");
    assert_eq!(line(&status, "Uid").split_whitespace().next(), Some(&*scripts.uid.to_string()));
    let sets = ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"].map(|key| set(&status, key));
    assert_eq!((sets, line(&status, "NoNewPrivs")), ([0; 5], "1"), "of a script: {sets:x?}");
    // By the kernel's word: the daemon's own user may change something, and so may root.
    let as_user = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
    let binary = cpra.path("cpra");
    fs::copy(BINARY, &binary).expect("room for a copy");
    let ask = |words: &[&str]| {
        let socket = cpra.path("cpra.sock");
        let output = Command::new("setpriv")
            .args(&as_user)
            .arg("--clear-groups")
            .arg("--")
            .arg(&binary)
            .arg("--api.socket")
            .arg(socket)
            .args(words)
            .output();
        output.expect("setpriv is there")
    };
    let output = ask(&["disable", "web"]);
    assert!(output.status.success(), "{output:?}");
    eventually("it is disabled", || cpra.metrics().state("disabled") == 1.0);
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
    assert!(!cpra.stderr().contains("ERROR"), "{}", cpra.stderr());
}

#[test]
fn root_becomes_an_ordinary_user_that_keeps_what_checks_need() {
    let Some([nobody, _]) = users("root_becomes_an_ordinary_user_that_keeps_what_checks_need") else { return };
    let targets = Targets::start(1, Duration::ZERO);
    let setup = setup(&nobody, &nobody);
    let text = monitors(setup.folder(), &targets.addresses[0].to_string());
    let mut cpra = setup.monitors(&text).settings("[security]\nuser = \"nobody\"\n").run();
    assert_is(&mut cpra, &nobody, OF_CHECKS & permitted_here());
    assert!(cpra.stdout().contains("\n  user      nobody, with CAP_NET_RAW"), "{}", cpra.stdout());
    assert!(cpra.stderr().contains("raw socket"), "{}", cpra.stderr());
    assert_works(cpra, &nobody, &nobody);
}

#[test]
fn scripts_of_another_user_keep_the_powers_that_it_takes_and_say_so() {
    let name = "scripts_of_another_user_keep_the_powers_that_it_takes_and_say_so";
    let Some([nobody, daemon]) = users(name) else { return };
    let targets = Targets::start(1, Duration::ZERO);
    let setup = setup(&daemon, &nobody);
    let text = monitors(setup.folder(), &targets.addresses[0].to_string());
    // One that must be ended by us, although it is not ours.
    let text = text
        + "- name: hang\n  pulse: {type: script, interval: 1s, timeout: 300ms, config: {command: [/bin/sleep, 1000]}}\n";
    let mut cpra = setup.monitors(&text).settings("[security]\nuser = \"daemon\"\n").run();
    assert_is(&mut cpra, &daemon, (OF_CHECKS | OF_OTHERS_SCRIPTS) & permitted_here());
    let said = "CAP_SETUID, CAP_SETGID, CAP_KILL are kept, since scripts run as nobody";
    assert!(cpra.stderr().contains(said), "{}", cpra.stderr());
    eventually("the one that hangs is killed", || cpra.metrics().outcomes("PROCTOUT") >= 2.0);
    assert!(cpra.metrics().state("unknown") == 0.0 && !cpra.stderr().contains("cannot be killed"), "{}", cpra.said());
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
    drop(cpra);

    let setup = self::setup(&daemon, &nobody);
    let text = monitors(setup.folder(), &targets.addresses[0].to_string());
    let cpra = setup.monitors(&text).settings("[security]\nuser = \"daemon\"\n").run();
    assert_works(cpra, &daemon, &nobody);
}

#[test]
fn nothing_is_left_where_nothing_is_to_be_kept() {
    let Some([nobody, _]) = users("nothing_is_left_where_nothing_is_to_be_kept") else { return };
    let targets = Targets::start(1, Duration::ZERO);
    let setup = setup(&nobody, &nobody);
    let text = monitors(setup.folder(), &targets.addresses[0].to_string());
    let settings = "[security]\nuser = \"nobody\"\ndrop_capabilities = true\n";
    let mut cpra = setup.monitors(&text).settings(settings).run();
    assert_is(&mut cpra, &nobody, 0);
    assert!(
        cpra.stdout().contains("\n  user      nobody, and no capability once it has started\n"),
        "{}",
        cpra.stdout()
    );
    assert!(cpra.stderr().contains("interfaces that appear from now on get no program"), "{}", cpra.stderr());
    // Its sockets were opened while there was a right to.
    assert!(cpra.stderr().contains("raw socket"), "{}", cpra.stderr());
    assert_works(cpra, &nobody, &nobody);
}

/// As a service manager starts it: `User=`, `AmbientCapabilities=CAP_NET_RAW`.
#[test]
fn an_ordinary_user_uses_what_it_was_given_and_hands_nothing_on() {
    let Some([nobody, _]) = users("an_ordinary_user_uses_what_it_was_given_and_hands_nothing_on") else { return };
    let targets = Targets::start(1, Duration::ZERO);
    let setup = setup(&nobody, &nobody);
    let binary = setup.folder().join("cpra");
    fs::copy(BINARY, &binary).expect("room for a copy");
    let (uid, gid) = (format!("--reuid={}", nobody.uid), format!("--regid={}", nobody.gid));
    let given = ["--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"];
    let words = ["setpriv", &uid, &gid, "--clear-groups", given[0], given[1], given[2], "--"];
    let runtime = format!("RUNTIME_DIRECTORY={}", setup.folder().join("state").display());
    let text = monitors(setup.folder(), &targets.addresses[0].to_string());
    let mut cpra = setup.binary(&binary).monitors(&text).through(&["env", &runtime]).through(&words).run();
    let status = fs::read_to_string(format!("/proc/{}/status", cpra.child().id())).expect("it runs");
    let sets = ["CapPrm", "CapEff", "CapInh", "CapAmb"].map(|key| set(&status, key));
    assert_eq!(sets, [NET_RAW, NET_RAW, 0, 0], "{sets:x?}");
    assert!(cpra.stderr().contains("raw socket"), "{}", cpra.stderr());
    eventually("a script has told", || cpra.path("scripts/status").exists());
    let script = cpra.text("scripts/status");
    let sets = ["CapPrm", "CapEff", "CapInh", "CapAmb"].map(|key| set(&script, key));
    assert_eq!(sets, [0; 4], "of a script: {sets:x?}");
    assert!(cpra.is_running());
}

#[test]
fn who_cannot_be_become_is_told_before_anything_starts() {
    let Some([nobody, _]) = users("who_cannot_be_become_is_told_before_anything_starts") else { return };
    let refused = |settings: &str, argument: &[&str], said: &str| {
        let mut setup = setup(&nobody, &nobody).monitors("monitors: []\n").settings(settings);
        for word in argument {
            setup = setup.argument(word);
        }
        let mut cpra = setup.start();
        assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1), "{}", cpra.said());
        assert!(cpra.stderr().contains(said), "{}", cpra.said());
        assert!(!cpra.stdout().contains("open "), "{}", cpra.stdout());
    };
    for check in [&[][..], &["--check-config"]] {
        refused("[security]\nuser = \"no-such-user\"\n", check, "there is no user no-such-user: name another one");
        refused("[security]\ndrop_capabilities = true\n", check, "root owns this host's files even so");
    }

    // Somebody else's wish, and its own.
    let (uid, gid) = (format!("--reuid={}", nobody.uid), format!("--regid={}", nobody.gid));
    let as_nobody = ["setpriv", &uid, &gid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"];
    let of_nobody = |user: &str| {
        let setup = setup(&nobody, &nobody);
        let binary = setup.folder().join("cpra");
        fs::copy(BINARY, &binary).expect("room for a copy");
        let runtime = format!("RUNTIME_DIRECTORY={}", setup.folder().join("state").display());
        let settings = format!("[security]\nuser = \"{user}\"\n");
        setup
            .binary(&binary)
            .monitors("monitors: []\n")
            .settings(&settings)
            .through(&["env", &runtime])
            .through(&as_nobody)
    };
    let mut cpra = of_nobody("daemon").start();
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1), "{}", cpra.said());
    let said = format!("this process is uid {}, and only root can become somebody else", nobody.uid);
    assert!(cpra.stderr().contains(&said), "{}", cpra.said());
    let checked = of_nobody("daemon").argument("--check-config");
    let mut cpra = checked.start();
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
    assert!(cpra.stderr().contains("warning: [security] user = \"daemon\""), "{}", cpra.said());
    assert_eq!(of_nobody("nobody").run().get("/healthz").0, 200);
}

#[test]
fn a_state_folder_that_the_user_cannot_write_is_told() {
    let Some([nobody, _]) = users("a_state_folder_that_the_user_cannot_write_is_told") else { return };
    let setup = setup(&nobody, &nobody);
    chown(setup.folder().join("state"), Some(0), Some(0)).expect("it is ours");
    let cpra = setup.settings("[security]\nuser = \"nobody\"\n").run();
    assert!(cpra.stderr().contains("cannot be written by nobody"), "{}", cpra.stderr());
}
