use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::domain::Provider;
use crate::domain::monitor::Secret;
use crate::notify::line::tests::notice;
use crate::os::lane::{Disk, block_on};
use crate::os::spawn::{self, Mailbox};
use crate::os::wake::WakeFd;

/// A program of the test's own, and what came of telling it so many notices.
struct Bench {
    folder: tempfile::TempDir,
    delivered: Vec<Delivered>,
    took: Span,
}

impl Bench {
    fn run(disk: Disk, text: &str, notices: u32, timeout: Span) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whom scripts run as must be able to come here and to write.
        for path in [folder.path().to_owned(), folder.path().join("out")] {
            let _ = fs::create_dir(&path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let program = folder.path().join("program");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let out = folder.path().join("out");
        let (delivered, took) = deliver(disk, &program, &out, notices, timeout);
        Self { folder, delivered, took }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("out").join(name)).unwrap()
    }
}

fn deliver(disk: Disk, program: &Path, out: &Path, notices: u32, timeout: Span) -> (Vec<Delivered>, Span) {
    let script = Script {
        argv: [program.to_str().unwrap().into(), out.to_str().unwrap().into()].into(),
        env: [("CPRA_COLOR".into(), Secret::new("beige")), ("TOKEN".into(), Secret::new("s3cret"))].into(),
    };
    let mut destination = Destination::new("script", Provider::Script(script.clone()));
    destination.transport.timeout = timeout;
    let door = WakeFd::new().unwrap();
    let bell = door.bell();
    let (mut ends, handle) = spawn::spawn(spawn::Settings::default(), 16, vec![bell.clone()]).unwrap();
    let mailbox = Mailbox { scripts: ends.pop().unwrap(), door, bell };
    let result = block_on(disk, async move {
        let runner = Rc::new(Runner::start(mailbox).unwrap());
        let mut outlet = ScriptOutlet::new(&script, &destination, Some(Rc::clone(&runner)));
        let notices: Vec<Notice> = (0..notices).map(|n| notice(n, None)).collect();
        let began = crate::os::clock::Clock.now();
        let delivered = outlet.deliver(&notices.iter().collect::<Vec<_>>()).await;
        let took = crate::os::clock::Clock.now().since(began);
        runner.end();
        (delivered, took)
    });
    for _ in 0..1_000 {
        if handle.is_finished() {
            return result;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("nobody wants scripts any more, and their thread goes on");
}

const TIME: Span = Span::from_secs(30);

#[test]
fn a_program_is_given_the_line_and_its_names_and_nothing_else() {
    for disk in [Disk::Uring, Disk::Blocking] {
        let text = "#!/bin/sh\ncat > $1/$CPRA_DELIVERY_FILE$$.json\nenv | sort > $1/$$.env\necho told; echo more\n";
        let bench = Bench::run(disk, text, 2, TIME);
        let sent = Delivered::new(DeliveryResult::Sent, "exit 0: told");
        assert_eq!(bench.delivered, [sent.clone(), sent]);
        let mut lines: Vec<String> = Vec::new();
        for entry in fs::read_dir(bench.folder.path().join("out")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let text = bench.read(&name);
            if name.ends_with(".json") {
                lines.push(text);
            } else {
                let names: Vec<&str> =
                    text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
                // The shell adds PWD and the like.
                let known = ["HOME", "LANG", "PATH", "TOKEN", "CPRA_COLOR", "CPRA_DELIVERY", "CPRA_INCIDENT"];
                assert!(known.iter().all(|name| names.contains(name)), "{names:?}");
                assert!(names.iter().all(|name| !name.starts_with("CARGO")), "{names:?}");
                assert!(text.contains("CPRA_COLOR=red\n") && text.contains("TOKEN=s3cret\n"), "{text}");
                assert!(text.contains("CPRA_MONITOR=shop/web\n"), "{text}");
            }
        }
        lines.sort();
        let mut expected = [0, 1].map(|n| {
            let mut line = Vec::new();
            line::encode(&notice(n, None), &mut line);
            String::from_utf8(line).unwrap()
        });
        expected.sort();
        assert_eq!(lines, expected);
    }
}

#[test]
fn exit_codes_are_those_of_sysexits() {
    use DeliveryResult::{Failed, Refused, Sent};
    for (code, result) in
        [(0, Sent), (1, Failed), (64, Refused), (69, Failed), (75, Failed), (78, Refused), (255, Failed)]
    {
        let bench = Bench::run(Disk::Blocking, &format!("#!/bin/sh\necho why >&2\nexit {code}\n"), 1, TIME);
        assert_eq!(bench.delivered, [Delivered::new(result, format!("exit {code}: why"))]);
    }
    let killed = Bench::run(Disk::Blocking, "#!/bin/sh\nkill -SEGV $$\n", 1, TIME);
    assert_eq!(killed.delivered, [Delivered::new(Failed, "ended by signal 11")]);
}

#[test]
fn what_takes_too_long_is_killed_as_a_whole() {
    let text = "#!/bin/sh\nsleep 1000 & echo $! > $1/child\ntrap '' TERM\nwait\nsleep 1000\n";
    let bench = Bench::run(Disk::Uring, text, 1, Span::from_secs(1));
    assert_eq!(bench.delivered, [Delivered::new(DeliveryResult::Unsure, "killed: not done within 1 s")]);
    assert!(bench.took >= Span::from_secs(1), "{}", bench.took);
    let child = Pid::from_raw(bench.read("child").trim().parse().unwrap());
    let gone = || kill(child, None::<Signal>).is_err();
    for _ in 0..500 {
        if gone() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("what it had started goes on");
}

#[test]
fn what_cannot_run_is_refused_and_many_run_beside_each_other() {
    let out = tempfile::tempdir().unwrap();
    let (delivered, _) = deliver(Disk::Blocking, &out.path().join("nothing"), out.path(), 1, TIME);
    assert_eq!(delivered[0].result, DeliveryResult::Refused);
    assert!(delivered[0].said.starts_with("not started: "), "{}", delivered[0].said);

    // Each waits for the other: one after the other they would never end.
    let text = "#!/bin/sh\ntouch $1/$$\nwhile [ $(ls $1 | wc -l) -lt 2 ]; do sleep 0.05; done\n";
    let both = Bench::run(Disk::Uring, text, 2, TIME);
    assert!(both.delivered.iter().all(|one| one.result == DeliveryResult::Sent), "{:?}", both.delivered);
}

#[test]
fn without_anybody_who_runs_scripts_notices_come_again() {
    let script = Script { argv: ["/bin/true".into()].into(), env: [].into() };
    let destination = Destination::new("script", Provider::Script(script.clone()));
    let mut outlet = ScriptOutlet::new(&script, &destination, None);
    let delivered = block_on(Disk::Blocking, async move { outlet.deliver(&[&notice(0, None)]).await });
    assert_eq!(delivered[0].result, DeliveryResult::Failed);
}
