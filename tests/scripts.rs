//! Scripts, run by the driver that the daemon has and judged by a shard: what they say, how they end, and what is left of
//! them afterwards, which is nothing.
//!
//! As root they run as nobody; without root some of these tests have nothing to show, and skip.

mod counterparts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use cpra::domain::{Code, Outcome, Policy, Verdict, VoidReason};
use cpra::os::clock::Clock;
use cpra::os::spawn::{self, News, Order, Scripts, Settings, Want};
use cpra::pipeline::Bell;
use cpra::probe::errand::{ErrandEnd, Exit};
use cpra::ring::Errno;
use cpra::units::limits::{
    SCRIPT_GRACE, SCRIPT_OPEN_FILES_MAX, SCRIPT_OUTPUT_KEPT, SCRIPT_OUTPUT_MAX, SCRIPT_PROCESSES_MAX,
};
use cpra::units::{Generation, Instant, Slot, Span};

use counterparts::engine::{Engine, Monitored};
use counterparts::support::skip;

/// Tests that count what the process has run alone; where each test has a process of its own, they all do.
static COUNTED: RwLock<()> = RwLock::new(());

fn beside_others() -> RwLockReadGuard<'static, ()> {
    COUNTED.read().unwrap_or_else(PoisonError::into_inner)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn sh(text: &str) -> Monitored {
    Monitored::script(&["/bin/sh", "-c", text])
}

fn since(began: Instant) -> Duration {
    Clock.now().since(began).into()
}

#[track_caller]
fn check(monitored: &Monitored) -> Outcome {
    Engine::of(&[monitored]).check(0)
}

#[track_caller]
fn assert_says(outcome: &Outcome, code: Code, verdict: Verdict, evidence: &str) {
    assert_eq!((outcome.code, outcome.verdict()), (code, verdict), "{:?}", outcome.evidence);
    assert_eq!(outcome.evidence.as_deref().unwrap_or(""), evidence);
}

/// What `sh` says on its first line.
#[track_caller]
fn says(monitored: &Monitored) -> String {
    let outcome = check(monitored);
    assert_eq!(outcome.code, Code::ProcOk, "{:?}", outcome.evidence);
    outcome.evidence.unwrap_or_default().into()
}

const NO_EXEC: Code = Code::Void(VoidReason::NotRunnable);
const UNKNOWN: Code = Code::Void(VoidReason::Unknown);

/// A folder that everybody may use, as scripts run as somebody else.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::TempDir::with_prefix("cpra-scripts-").expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        path.to_str().expect("a plain path").to_owned()
    }

    /// The number that a script left there.
    fn pid(&self, name: &str) -> i32 {
        for _ in 0..400 {
            if let Ok(text) = fs::read_to_string(self.path(name))
                && let Ok(pid) = text.trim().parse()
            {
                return pid;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no {name}");
    }
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[track_caller]
fn assert_dies(pid: i32) {
    for _ in 0..500 {
        if !is_alive(pid) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    panic!("{pid} lives on");
}

#[test]
fn exit_codes_are_verdicts() {
    let _guard = beside_others();
    let table = [
        ("exit 0", Code::ProcOk, Verdict::Ok, ""),
        ("exit 1", Code::ProcOk, Verdict::Warn, "exit 1"),
        ("exit 2", Code::ProcErr, Verdict::Fail, "exit 2"),
        ("exit 3", UNKNOWN, Verdict::Void, "exit 3"),
        ("exit 4", Code::ProcErr, Verdict::Fail, "exit 4"),
        ("exit 255", Code::ProcErr, Verdict::Fail, "exit 255"),
        ("echo fine; exit 0", Code::ProcOk, Verdict::Ok, "fine"),
        ("echo slow; exit 1", Code::ProcOk, Verdict::Warn, "slow"),
        ("echo gone; exit 2", Code::ProcErr, Verdict::Fail, "gone"),
        ("echo what; exit 3", UNKNOWN, Verdict::Void, "what"),
        ("echo odd; exit 77", Code::ProcErr, Verdict::Fail, "exit 77: odd"),
        ("nope-nope", Code::ProcErr, Verdict::Fail, "exit 127: /bin/sh: 1: nope-nope: not found"),
        ("kill -SEGV $$", Code::ProcErr, Verdict::Fail, "ended by SIGSEGV"),
        ("echo last words; kill -9 $$", Code::ProcErr, Verdict::Fail, "ended by SIGKILL: last words"),
        ("kill -40 $$", Code::ProcErr, Verdict::Fail, "ended by signal 40"),
        ("echo 'OK - 1 of 2 | a=1;2;3 b=4%'; echo more", Code::ProcOk, Verdict::Ok, "OK - 1 of 2 (a=1;2;3 b=4%)"),
        ("echo error >&2; exit 2", Code::ProcErr, Verdict::Fail, "error"),
        ("echo error >&2; echo out; exit 2", Code::ProcErr, Verdict::Fail, "out"),
        ("printf '\\033[31mred\\a\\377 \\n'; exit 2", Code::ProcErr, Verdict::Fail, "[31mred \u{fffd}"),
    ];
    let monitored: Vec<Monitored> = table.iter().map(|(text, ..)| sh(text)).collect();
    let mut engine = Engine::of(&monitored.iter().collect::<Vec<_>>());
    for (index, (text, code, verdict, evidence)) in table.into_iter().enumerate() {
        println!("{text}");
        assert_says(&engine.check(index), code, verdict, evidence);
    }
}

#[test]
fn arguments_are_no_shells() {
    let _guard = beside_others();
    assert_eq!(says(&Monitored::script(&["/bin/echo", "$HOME", "a  b", "*", ";", "`id`"])), "$HOME a b * ; `id`");
}

#[test]
fn what_cannot_be_started_is_void() {
    let _guard = beside_others();
    let folder = Folder::new();
    let plain = folder.file("plain", "#!/bin/sh\n", 0o644);
    let text = folder.file("text", "just words\n", 0o755);
    let empty = folder.file("empty", "", 0o755);
    let lost = folder.file("lost", "#!/no/such/interpreter\n", 0o755);
    let missing = folder.path("missing");
    let directory = folder.0.path().to_str().expect("a plain path");
    let table = [
        (missing.to_str().expect("a plain path"), "there is no such file"),
        (&*lost, "there is no such file, or not the interpreter"),
        (&*plain, "it is not an executable file"),
        (directory, "it is not an executable file"),
        (&*text, "it is no program"),
        (&*empty, "it is no program"),
        ("/etc/passwd/x", "a part of its path is no folder"),
    ];
    for (program, why) in table {
        let outcome = check(&Monitored::script(&[program]));
        assert_eq!((outcome.code, outcome.verdict()), (NO_EXEC, Verdict::Void), "{program}: {:?}", outcome.evidence);
        let words = format!("cannot start {program}: {why}");
        assert!(outcome.cause().starts_with(&words), "{:?} should begin with {words:?}", outcome.cause());
    }
    let lost = sh("exit 0").script_with(|script| script.cwd = Some("/no/such/folder".into()));
    let outcome = check(&lost);
    assert_eq!(outcome.code, NO_EXEC);
    assert!(outcome.cause().contains("cannot enter /no/such/folder"), "{}", outcome.cause());
}

#[test]
fn a_lot_of_output_is_read_and_forgotten() {
    let _guard = beside_others();
    let outcome = check(&sh("echo first; head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 0"));
    assert_says(&outcome, Code::ProcOk, Verdict::Ok, "first");
    let before = resident_kb();
    let began = Clock.now();
    let outcome = check(&sh("echo first; exec head -c 1000000000 /dev/zero").within(Duration::from_secs(20)));
    assert_eq!(SCRIPT_OUTPUT_MAX, 64 * 1024 * 1024);
    assert_says(&outcome, Code::ProcErr, Verdict::Fail, "wrote more than 64 MiB: killed: first");
    assert!(since(began) < Duration::from_secs(15), "{:?}", since(began));
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} kB more than before");
}

fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn slow_and_silent_writers_are_waited_for() {
    let _guard = beside_others();
    let slow = check(&sh("for word in one two three; do printf \"$word \"; sleep 0.1; done; exit 2"));
    assert_says(&slow, Code::ProcErr, Verdict::Fail, "one two three");
    let silent = check(&sh("echo bye; exec >&- 2>&-; sleep 0.2; exit 2"));
    assert_says(&silent, Code::ProcErr, Verdict::Fail, "bye");
    assert!(silent.latency.total >= Span::from_millis(200), "{:?}", silent.latency);
}

#[test]
fn no_end_in_time_is_a_failure_and_the_end() {
    let _guard = beside_others();
    let folder = Folder::new();
    let note = |name: &str| folder.path(name).display().to_string();
    let polite =
        sh(&format!("echo $$ > {}; trap 'echo yes > {}; exit 0' TERM; sleep 60 & wait", note("a"), note("asked")));
    let deaf = sh(&format!("trap '' TERM; echo $$ > {}; while :; do sleep 60; done", note("b")));
    let stopped = sh(&format!("echo $$ > {}; kill -STOP $$; sleep 60", note("c")));
    let family = sh(&format!("sh -c \"trap '' TERM; echo \\$\\$ > {}; sleep 60\" & sleep 60", note("d")));
    // timeout(1) makes a process group of its own.
    let grouped = sh(&format!("timeout 60 sh -c 'echo $$ > {}; trap \"\" TERM; sleep 60; sleep 60'; :", note("e")));
    for (monitored, name) in [(polite, "a"), (deaf, "b"), (stopped, "c"), (family, "d"), (grouped, "e")] {
        println!("{name}");
        let mut engine = Engine::of(&[&monitored.within(Duration::from_millis(400))]);
        let began = Clock.now();
        let outcome = engine.check(0);
        assert_says(&outcome, Code::ProcTout, Verdict::Fail, "no end within 400 ms: killed");
        assert!(since(began) < Duration::from_millis(400 + 900), "judged at once: {:?}", since(began));
        // Its slot is free again once it has ended, which the shard's next step sees to.
        engine.idle(Duration::from(SCRIPT_GRACE) + Duration::from_millis(500));
        assert_dies(folder.pid(name));
    }
    assert_eq!(fs::read_to_string(folder.path("asked")).expect("it was asked first").trim(), "yes");
}

#[test]
fn what_it_leaves_running_is_killed_and_not_waited_for() {
    let _guard = beside_others();
    let folder = Folder::new();
    let note = folder.path("pid").display().to_string();
    let began = Clock.now();
    let outcome =
        check(&sh(&format!("sh -c 'echo $$ > {note}; exec sleep 60' & while ! [ -s {note} ]; do :; done; echo ok")));
    assert_says(&outcome, Code::ProcOk, Verdict::Ok, "ok");
    assert!(since(began) < Duration::from_secs(2), "{:?}", since(began));
    assert_dies(folder.pid("pid"));
}

/// Documented: who leaves the session is nobody's any more. Nothing waits for it either.
#[test]
fn who_leaves_the_session_outlives_the_script() {
    let _guard = beside_others();
    let folder = Folder::new();
    let note = folder.path("pid").display().to_string();
    let text = format!("setsid sh -c 'echo $$ > {note}; exec sleep 60' & while ! [ -s {note} ]; do :; done; echo ok");
    let outcome = check(&sh(&text));
    assert_says(&outcome, Code::ProcOk, Verdict::Ok, "ok");
    let pid = folder.pid("pid");
    thread::sleep(Duration::from_millis(50));
    assert!(is_alive(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).expect("it is the test's");
}

#[test]
fn a_script_finds_nothing_of_the_daemons() {
    let _guard = beside_others();
    // Descriptors that somebody has left open to children, and a signal that this process ignores (as Rust does SIGPIPE).
    let leaked =
        nix::fcntl::fcntl(fs::File::open("/etc/passwd").expect("it is there"), nix::fcntl::FcntlArg::F_DUPFD(500));
    assert_eq!(says(&sh("ls -m /proc/$$/fd; exit 0")), "0, 1, 2");
    let _ = nix::unistd::close(leaked.expect("a descriptor"));
    assert_eq!(says(&sh("readlink /proc/$$/fd/0; exit 0")), "/dev/null");
    let status = "grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\n'";
    assert_eq!(says(&sh(status)), "SigBlk: 0000000000000000SigIgn: 0000000000000000");
    let group =
        "read pid name state parent group session rest < /proc/$$/stat; echo $((group == $$)) $((session == $$))";
    assert_eq!(says(&sh(group)), "1 1");
    assert_eq!(says(&sh("grep NoNewPrivs /proc/self/status")), "NoNewPrivs: 1");
    assert_eq!(says(&sh("pwd; exit 0")), "/");
    let sorted = "env -u PWD | grep -v ^_= | sort | tr '\\n' ' '";
    assert_eq!(says(&sh(sorted)), "HOME=/ LANG=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
}

#[test]
fn its_environment_and_folder_are_the_monitors() {
    let _guard = beside_others();
    let monitored = sh("echo $WHO $LANG; exit 0").script_with(|script| {
        script.env = Box::new([("LANG".into(), "de_DE.UTF-8".into()), ("WHO".into(), "a b=c".into())]);
    });
    assert_eq!(says(&monitored), "a b=c de_DE.UTF-8");
    let there = sh("pwd; exit 0").script_with(|script| script.cwd = Some("/usr/lib".into()));
    assert_eq!(says(&there), "/usr/lib");
}

#[test]
fn its_resources_are_bounded_from_its_first_instruction() {
    let _guard = beside_others();
    let limit = |name: &str| says(&sh(&format!("grep '^Max {name} ' /proc/self/limits | tr -s ' '")));
    let bounded = |name: &str, most: u64| {
        let text = limit(name);
        let words: Vec<&str> = text.split(' ').rev().skip(1).take(2).collect();
        assert_eq!(words[0], words[1], "soft and hard: {text}");
        let value: u64 = words[0].parse().unwrap_or_else(|_| panic!("a number: {text}"));
        assert!(value <= most, "{text}");
    };
    bounded("open files", SCRIPT_OPEN_FILES_MAX);
    bounded("processes", SCRIPT_PROCESSES_MAX);
    bounded("core file size", 0);
    bounded("file size", 1 << 30);
    bounded("data size", 4 << 30);
    // No unit at the end of its line.
    assert!(limit("cpu time").contains(" 3600 3600 seconds"), "{}", limit("cpu time"));
    let folder = Folder::new();
    let file = folder.path("large").display().to_string();
    let outcome = check(&sh(&format!("exec truncate -s 2G {file}")));
    assert_eq!(outcome.code, Code::ProcErr);
    assert!(outcome.cause().contains("SIGXFSZ") || outcome.cause().contains("File too large"), "{}", outcome.cause());
}

#[test]
fn scripts_run_as_nobody_and_as_root_only_when_that_is_said() {
    let _guard = beside_others();
    if !is_root() {
        return skip("scripts_run_as_nobody_and_as_root_only_when_that_is_said", "needs root to become another user");
    }
    let id = sh("echo $(id -u) $(id -ru) $(id -g) $(id -G) $(grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status); exit 0");
    let none = "CapPrm: 0000000000000000 CapEff: 0000000000000000 CapAmb: 0000000000000000";
    assert_eq!(says(&id), format!("65534 65534 65534 65534 {none}"));
    let as_user = |user: &str| Settings { user: user.into(), ..Settings::default() };
    let outcome = Engine::of(&[&id]).with_scripts(as_user("root")).check(0);
    assert!(outcome.cause().starts_with("0 0 0 0"), "{}", outcome.cause());
    let outcome = Engine::of(&[&id]).with_scripts(as_user("no-such-user")).check(0);
    assert_eq!(outcome.code, NO_EXEC);
    assert!(outcome.cause().contains("there is no user no-such-user"), "{}", outcome.cause());
    // Another user's file: the daemon could read it, the script must not.
    let folder = Folder::new();
    let secret = folder.file("secret", "#!/bin/sh\n", 0o700);
    assert_eq!(check(&Monitored::script(&[&secret])).code, NO_EXEC);
    let outcome = check(&sh(&format!("cat {secret}")));
    assert_eq!((outcome.code, outcome.verdict()), (Code::ProcOk, Verdict::Warn));
    assert!(outcome.cause().contains("Permission denied"), "{}", outcome.cause());
}

/// It runs as a user whom others may run processes as: those must not reach the daemon through the start of a script.
#[test]
fn no_thread_of_ours_is_ever_the_scripts_user() {
    let _guard = beside_others();
    if !is_root() {
        return skip("no_thread_of_ours_is_ever_the_scripts_user", "needs root to become another user");
    }
    let mut engine = Engine::of(&[&sh("exit 0")]);
    for _ in 0..20 {
        assert_eq!(engine.check(0).code, Code::ProcOk);
        for task in fs::read_dir("/proc/self/task").expect("proc") {
            let status = fs::read_to_string(task.expect("an entry").path().join("status")).unwrap_or_default();
            let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or("Uid:\t0\t0\t0\t0");
            assert_eq!(uid, "Uid:\t0\t0\t0\t0");
        }
    }
    let dumpable = fs::metadata("/proc/self/environ").map(|entry| std::os::unix::fs::MetadataExt::uid(&entry));
    assert_eq!(dumpable.expect("proc"), 0);
    // SAFETY: asks, and touches no memory.
    assert_eq!(unsafe { nix::libc::prctl(nix::libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 1, "as it was before");
}

#[test]
fn set_user_id_programs_gain_nothing_unless_that_is_said() {
    let _guard = beside_others();
    if !is_root() {
        return skip("set_user_id_programs_gain_nothing_unless_that_is_said", "needs root to make such a program");
    }
    let folder = Folder::new();
    let copy = folder.path("id");
    fs::copy("/usr/bin/id", &copy).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("it is ours");
    let path = copy.to_str().expect("a plain path");
    let id = Monitored::script(&[path, "-u"]);
    assert_eq!(says(&id), "65534");
    if says(&Monitored::script(&["/bin/sh", "-c", &format!("findmnt -no OPTIONS -T {path} || :")])).contains("nosuid") {
        return skip("set_user_id_programs_gain_nothing_unless_that_is_said", "the temporary folder is mounted nosuid");
    }
    let settings = Settings { no_new_privileges: false, ..Settings::default() };
    let outcome = Engine::of(&[&id]).with_scripts(settings).check(0);
    assert_says(&outcome, Code::ProcOk, Verdict::Ok, "0");
}

#[test]
fn real_plugins_say_all_four_things() {
    let _guard = beside_others();
    let plugins = Path::new("/usr/lib/nagios/plugins");
    if !plugins.join("check_dummy").exists() {
        return skip("real_plugins_say_all_four_things", "no monitoring-plugins-basic");
    }
    let folder = Folder::new();
    let old = folder.file("old", "12345", 0o644);
    let fresh = folder.file("fresh", "", 0o644);
    let touched = Command::new("touch").args(["-d", "2 days ago", &old]).status().expect("touch");
    assert!(touched.success());
    let port = counterparts::free_port().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let open = listener.local_addr().expect("it is bound").port().to_string();
    // Plugin and arguments, then what its words begin with, and what they must hold (performance data).
    type Row<'a> = (&'a [&'a str], Code, Verdict, &'a str, &'a str);
    let table: [Row<'_>; 14] = [
        (&["check_dummy", "0", "hi"], Code::ProcOk, Verdict::Ok, "OK: hi", ""),
        (&["check_dummy", "1", "hm"], Code::ProcOk, Verdict::Warn, "WARNING: hm", ""),
        (&["check_dummy", "2", "oh"], Code::ProcErr, Verdict::Fail, "CRITICAL: oh", ""),
        (&["check_dummy", "3", "eh"], UNKNOWN, Verdict::Void, "UNKNOWN: eh", ""),
        (&["check_load", "-w", "1000,1000,1000", "-c", "2000,2000,2000"], Code::ProcOk, Verdict::Ok, "", "(load1="),
        (&["check_load", "-w", "0,0,0", "-c", "0,0,0"], Code::ProcErr, Verdict::Fail, "", "(load1="),
        (
            &["check_file_age", "-w", "3600", "-c", "864000", "-C", "0", "-W", "0", &old],
            Code::ProcOk,
            Verdict::Warn,
            "FILE_AGE WARNING",
            "(age=",
        ),
        (
            &["check_file_age", "-w", "3600", "-c", "7200", &old],
            Code::ProcErr,
            Verdict::Fail,
            "FILE_AGE CRITICAL",
            "(age=",
        ),
        (&["check_file_age", "-w", "3600", "-c", "7200", &fresh], Code::ProcOk, Verdict::Ok, "FILE_AGE OK", "size=0B"),
        (&["check_disk", "-w", "0%", "-c", "0%", "-p", "/"], Code::ProcOk, Verdict::Ok, "DISK OK", "(/="),
        (&["check_tcp", "-H", "127.0.0.1", "-p", &open], Code::ProcOk, Verdict::Ok, "TCP OK", "(time="),
        (
            &["check_tcp", "-H", "127.0.0.1", "-p", &port],
            Code::ProcErr,
            Verdict::Fail,
            "connect to address 127.0.0.1",
            "",
        ),
        (&["check_procs", "-c", "1:100000"], Code::ProcOk, Verdict::Ok, "PROCS OK", "(procs="),
        (&["check_tcp", "--no-such-option"], UNKNOWN, Verdict::Void, "", ""),
    ];
    for (words, code, verdict, begin, hold) in table {
        let program = plugins.join(words[0]);
        let argv: Vec<&str> =
            [program.to_str().expect("a plain path")].into_iter().chain(words[1..].iter().copied()).collect();
        let outcome = check(&Monitored::script(&argv).within(Duration::from_secs(20)));
        println!("{words:?}: {} {}", outcome.code, outcome.cause());
        assert_eq!((outcome.code, outcome.verdict()), (code, verdict), "{words:?}: {:?}", outcome.evidence);
        assert!(outcome.cause().starts_with(begin) && outcome.cause().contains(hold), "{words:?}: {}", outcome.cause());
    }
}

/// The driver with orders by hand.
struct Bench {
    scripts: Option<Scripts>,
    handle: spawn::Handle,
    next: u32,
    begun: BTreeMap<u32, u32>,
    ends: BTreeMap<u32, Vec<ErrandEnd>>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let (mut scripts, handle) = spawn::spawn(settings, 4096, vec![Bell::mute()]).expect("a thread can be had");
        Self { scripts: scripts.pop(), handle, next: 0, begun: BTreeMap::new(), ends: BTreeMap::new() }
    }

    fn send(&mut self, slot: u32, want: Want) {
        let order = Order { slot: Slot(slot), generation: Generation(slot), want };
        self.scripts.as_mut().expect("still there").orders.send(order).expect("there is room");
    }

    fn run(&mut self, policy: &Arc<Policy>) -> u32 {
        self.next += 1;
        let slot = self.next;
        self.send(slot, Want::Run(Arc::clone(policy)));
        slot
    }

    fn listen(&mut self) {
        let scripts = self.scripts.as_mut().expect("still there");
        while let Some(news) = scripts.news.recv() {
            match news {
                News::Begun { slot, generation, .. } => {
                    assert_eq!(
                        (slot.0, self.ends.contains_key(&slot.0)),
                        (generation.0, false),
                        "begun before its end"
                    );
                    *self.begun.entry(slot.0).or_default() += 1;
                }
                News::Returned { slot, generation, end } => {
                    assert_eq!(slot.0, generation.0);
                    self.ends.entry(slot.0).or_default().push(*end);
                }
            }
        }
    }

    /// Until as many have returned as were run, but for so many.
    fn settle(&mut self, open: usize) {
        let patience = Clock.now() + Span::from_secs(60);
        while self.ends.len() + open < self.next as usize {
            assert!(Clock.now() < patience, "{} of {} returned", self.ends.len(), self.next);
            thread::sleep(Duration::from_micros(200));
            self.listen();
        }
    }

    fn end(&self, slot: u32) -> &ErrandEnd {
        let ends = self.ends.get(&slot).expect("it returned");
        assert_eq!(ends.len(), 1, "exactly once");
        &ends[0]
    }

    /// Lets go of the driver, which ends everything.
    fn leave(mut self) {
        drop(self.scripts.take());
        let patience = Clock.now() + Span::from_secs(5);
        while !self.handle.is_finished() {
            assert!(Clock.now() < patience, "the driver does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn policy(argv: &[&str]) -> Arc<Policy> {
    Arc::new(Monitored::script(argv).policy)
}

fn shell(text: &str) -> Arc<Policy> {
    policy(&["/bin/sh", "-c", text])
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// Children of this process, zombies among them.
fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("proc");
    let lists =
        tasks.map(|task| fs::read_to_string(task.expect("an entry").path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn three_thousand_runs_leave_nothing_behind() {
    let _guard = COUNTED.write().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::new(Settings::default());
    let kinds = [
        (policy(&["/bin/true"]), Some(ErrandEnd::Exited { status: Exit::Code(0), output: "".into() })),
        (policy(&["/bin/false"]), Some(ErrandEnd::Exited { status: Exit::Code(1), output: "".into() })),
        (shell("echo hi; exit 2"), Some(ErrandEnd::Exited { status: Exit::Code(2), output: "hi\n".into() })),
        (shell("kill -9 $$"), Some(ErrandEnd::Exited { status: Exit::Signal(9), output: "".into() })),
        (shell("sleep 60 & exit 0"), Some(ErrandEnd::Exited { status: Exit::Code(0), output: "".into() })),
        (policy(&["/no/such/program"]), Some(ErrandEnd::NotStarted(Errno::ENOENT))),
    ];
    // What is made once is made.
    bench.run(&kinds[0].0);
    bench.settle(0);
    let (files, before) = (descriptors(), children());
    let began = Clock.now();
    let mut expected = vec![];
    for round in 0..3_000_usize {
        let (policy, end) = &kinds[round % kinds.len()];
        expected.push((bench.run(policy), end));
        bench.settle(32);
    }
    bench.settle(0);
    let took = since(began);
    println!("3,000 in {took:?}");
    // Seconds, where the machine has nothing else to do; the benchmark says how many.
    assert!(took < Duration::from_secs(240), "{took:?}");
    for (slot, end) in expected {
        if let Some(end) = end {
            assert_eq!(bench.end(slot), end);
        }
    }
    assert_eq!(descriptors(), files, "no descriptor is left");
    assert_eq!(children(), before, "no child, dead or alive");
    bench.leave();
}

#[test]
fn a_recall_at_any_moment_is_answered_once() {
    let _guard = COUNTED.write().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::new(Settings::default());
    bench.run(&policy(&["/bin/true"]));
    bench.settle(0);
    let (files, before) = (descriptors(), children());
    let kinds = [shell("exit 0"), shell("sleep 60"), shell("echo x; sleep 0.003"), policy(&["/no/such/program"])];
    let mut random = fastrand::Rng::with_seed(11);
    let mut recalled = 0;
    for round in 0..400_u64 {
        let slot = bench.run(&kinds[round as usize % kinds.len()]);
        // From before it was taken until long after it has ended.
        match random.u8(..4) {
            0 => {}
            1 => thread::sleep(Duration::from_micros(random.u64(..400))),
            _ => thread::sleep(Duration::from_micros(random.u64(..6_000))),
        }
        bench.send(slot, Want::Recall);
        if random.bool() {
            bench.send(slot, Want::Recall);
        }
        bench.listen();
    }
    bench.settle(0);
    for slot in 2..=bench.next {
        recalled += u32::from(*bench.end(slot) == ErrandEnd::Recalled);
        assert!(bench.begun.get(&slot).copied().unwrap_or(0) <= 1);
    }
    println!("{recalled} of 400 recalled before their ends");
    assert!(recalled >= 100, "those that sleep are recalled, all of them: {recalled}");
    assert_eq!(descriptors(), files);
    assert_eq!(children(), before);
    bench.leave();
}

#[test]
fn beyond_the_bound_a_script_is_refused_and_not_made_to_wait() {
    let _guard = beside_others();
    let mut bench = Bench::new(Settings { running_max: 2, ..Settings::default() });
    let long = shell("sleep 60");
    let (first, second, third) = (bench.run(&long), bench.run(&long), bench.run(&long));
    bench.settle(2);
    assert_eq!(*bench.end(third), ErrandEnd::Refused(Errno::EAGAIN));
    bench.send(first, Want::Recall);
    bench.settle(1);
    assert_eq!(*bench.end(first), ErrandEnd::Recalled);
    let fourth = bench.run(&policy(&["/bin/true"]));
    bench.settle(1);
    assert!(matches!(bench.end(fourth), ErrandEnd::Exited { status: Exit::Code(0), .. }), "there is room again");
    bench.send(second, Want::Recall);
    bench.settle(0);
    bench.leave();
}

#[test]
fn kept_output_is_bounded() {
    let _guard = beside_others();
    let mut bench = Bench::new(Settings::default());
    let slot = bench.run(&shell("head -c 100000 /dev/zero | tr '\\0' x; exit 2"));
    bench.settle(0);
    let ErrandEnd::Exited { status: Exit::Code(2), output } = bench.end(slot) else { panic!("{:?}", bench.end(slot)) };
    assert_eq!(output.len(), SCRIPT_OUTPUT_KEPT);
    bench.leave();
}

#[test]
fn the_end_of_the_daemon_is_the_end_of_its_scripts() {
    let _guard = beside_others();
    let folder = Folder::new();
    let note = |name: &str| folder.path(name).display().to_string();
    for (name, hurry) in [("calm", false), ("hurried", true)] {
        let mut bench = Bench::new(Settings::default());
        bench.run(&shell(&format!("trap '' TERM; echo $$ > {}; while :; do sleep 60; done", note(name))));
        let pid = folder.pid(name);
        let began = Clock.now();
        if hurry {
            bench.handle.kill();
            while !bench.handle.is_finished() {
                assert!(since(began) < Duration::from_millis(500), "killed at once");
                thread::sleep(Duration::from_millis(1));
            }
        } else {
            bench.leave();
            assert!(since(began) >= Duration::from(SCRIPT_GRACE), "asked first, and given time");
        }
        assert_dies(pid);
    }
}

/// The test runs itself again, as the daemon that is killed.
#[test]
fn a_daemon_that_is_killed_takes_its_scripts_with_it() {
    const NOTE: &str = "CPRA_TEST_SCRIPT_NOTE";
    if let Some(note) = std::env::var_os(NOTE) {
        let mut bench = Bench::new(Settings::default());
        bench.run(&shell(&format!("echo $$ > {}; exec sleep 60", Path::new(&note).display())));
        thread::sleep(Duration::from_secs(60));
        return;
    }
    let _guard = beside_others();
    let folder = Folder::new();
    let test = "a_daemon_that_is_killed_takes_its_scripts_with_it";
    let mut again = Command::new(std::env::current_exe().expect("it runs"));
    let mut daemon = again.args([test, "--exact"]).env(NOTE, folder.path("pid")).spawn().expect("it can be started");
    let pid = folder.pid("pid");
    assert!(is_alive(pid));
    daemon.kill().expect("it is ours");
    assert_eq!(daemon.wait().expect("it is ours").signal(), Some(9));
    assert_dies(pid);
}

/// What a script may do to its driver's pipes must not reach the daemon: nothing here may end with a signal or a panic.
#[test]
fn many_at_a_time_are_all_heard() {
    let _guard = beside_others();
    let mut bench = Bench::new(Settings::default());
    let mut slots = vec![];
    for number in 0..200 {
        slots.push((bench.run(&shell(&format!("sleep 0.05; echo {number}; exit {}", number % 4))), number));
    }
    bench.settle(0);
    for (slot, number) in slots {
        let expected = ErrandEnd::Exited { status: Exit::Code(number % 4), output: format!("{number}\n").into() };
        assert_eq!(*bench.end(slot), expected);
    }
    bench.leave();
}
