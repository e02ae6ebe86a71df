use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::rc::Rc;
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::super::line::tests::notice;
use super::super::{LogDirs, Stderr};
use super::*;
use crate::os::lane::{Disk, block_on};
use crate::os::logging::{Format, tests::capture};
use crate::os::web::Web;

const DISKS: [Disk; 2] = [Disk::Uring, Disk::Blocking];

/// A folder that logs may be written to, with a pipe for standard error.
struct Bench {
    folder: tempfile::TempDir,
    surroundings: Surroundings,
    stderr: File,
}

impl Bench {
    fn new(disk: Disk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stderr, writer) = nix::unistd::pipe().unwrap();
        let log_dirs = Arc::new(LogDirs::new([folder.path().to_owned()], folder.path().join("state")));
        let surroundings =
            Surroundings { disk, log_dirs, stderr: Rc::new(Stderr::with(writer)), web: Web::default(), scripts: None };
        Self { folder, surroundings, stderr: stderr.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn outlet(&self, name: &str) -> LogOutlet {
        LogOutlet::new(Some(self.path(name)), self.surroundings.clone())
    }

    /// What standard error was given. Ends the bench.
    fn stderr(self) -> String {
        let Self { folder: _folder, surroundings, mut stderr } = self;
        drop(surroundings);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    }
}

async fn deliver(outlet: &mut LogOutlet, numbers: impl IntoIterator<Item = u32>) -> Vec<DeliveryResult> {
    let notices: Vec<Notice> = numbers.into_iter().map(|n| notice(n, None)).collect();
    let delivered = outlet.deliver(&notices.iter().collect::<Vec<_>>()).await;
    delivered.into_iter().map(|delivered| delivered.result).collect()
}

/// The numbers of the notices in a text. Every line must be whole.
fn numbers(text: &str) -> Vec<u32> {
    assert!(text.is_empty() || text.ends_with('\n'), "torn at the end: {:?}", &text[text.len().saturating_sub(60)..]);
    let number = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        value["delivery"].as_str().unwrap().rsplit_once('/').unwrap().1.parse().unwrap()
    };
    text.lines().map(number).collect()
}

fn read(path: &Path) -> Vec<u32> {
    numbers(&fs::read_to_string(path).unwrap())
}

use DeliveryResult::{Failed, Fallback, Sent};

#[test]
fn ten_thousand_notices_are_ten_thousand_lines_in_order() {
    for disk in DISKS {
        let bench = Bench::new(disk);
        block_on(disk, async {
            let mut outlet = bench.outlet("a.log");
            assert_eq!(deliver(&mut outlet, 0..10_000).await, [Sent; 10_000]);
            assert_eq!(deliver(&mut outlet, 10_000..10_001).await, [Sent]);
        });
        assert!(read(&bench.path("a.log")).into_iter().eq(0..10_001));
        let mode = fs::metadata(bench.path("a.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7737 & !0o040, 0o600, "nobody else may read or write: {mode:o}");
    }
}

#[test]
fn follows_a_rotation_by_name_and_one_by_truncation() {
    for disk in DISKS {
        let bench = Bench::new(disk);
        let (path, old) = (bench.path("a.log"), bench.path("a.log.1"));
        block_on(disk, async {
            let mut outlet = bench.outlet("a.log");
            deliver(&mut outlet, 0..3).await;
            fs::rename(&path, &old).unwrap();
            deliver(&mut outlet, 3..5).await;
            assert_eq!((read(&old), read(&path)), (vec![0, 1, 2], vec![3, 4]));

            fs::copy(&path, &old).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            deliver(&mut outlet, 5..6).await;
            assert_eq!((read(&old), read(&path)), (vec![3, 4], vec![5]));

            fs::remove_file(&path).unwrap();
            deliver(&mut outlet, 6..7).await;
            assert_eq!(read(&path), [6]);
        });
    }
}

#[test]
fn half_a_line_left_by_a_crash_spoils_no_other() {
    for disk in DISKS {
        let bench = Bench::new(disk);
        let path = bench.path("a.log");
        fs::write(&path, "{\"timest").unwrap();
        block_on(disk, async {
            let mut outlet = bench.outlet("a.log");
            deliver(&mut outlet, 0..1).await;
            // And by another writer, while the file is open.
            File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
            deliver(&mut outlet, 1..2).await;
        });
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (4, "{\"timest", "x"));
        assert_eq!(numbers(&format!("{}\n{}\n", lines[1], lines[3])), [0, 1]);
    }
}

#[test]
fn what_is_no_regular_file_or_not_allowed_is_refused_and_standard_error_has_the_notice() {
    for disk in DISKS {
        let bench = Bench::new(disk);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(bench.path("target"), "").unwrap();
        symlink(bench.path("target"), bench.path("link")).unwrap();
        symlink(bench.path("nowhere"), bench.path("dangling")).unwrap();
        symlink(elsewhere.path(), bench.path("way-out")).unwrap();
        nix::unistd::mkfifo(&bench.path("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(bench.path("folder")).unwrap();
        let outside = elsewhere.path().join("a.log");
        let names = ["link", "dangling", "fifo", "folder", "/dev/null", "missing/a.log", "way-out/a.log"];
        let names: Vec<&str> = names.into_iter().chain(outside.to_str()).collect();
        let count = names.len() as u32;
        block_on(disk, async {
            for (n, name) in (0..).zip(names) {
                let mut outlet = bench.outlet(name);
                // As after a first attempt: the retries are not what is to be seen here.
                outlet.trouble_until = Some(Instant::now() + Duration::from_secs(60));
                assert_eq!(deliver(&mut outlet, [n]).await, [Fallback], "{name}");
            }
        });
        assert_eq!(fs::read(bench.path("target")).unwrap(), b"");
        assert!(!bench.path("nowhere").exists() && !outside.exists());
        assert!(numbers(&bench.stderr()).into_iter().eq(0..count));
    }
}

#[test]
fn retries_before_it_falls_back_and_uses_the_file_once_it_can() {
    let bench = Bench::new(Disk::Uring);
    let path = bench.path("a.log");
    fs::create_dir(&path).unwrap();
    block_on(Disk::Uring, async {
        let mut outlet = bench.outlet("a.log");
        let begin = Instant::now();
        assert_eq!(deliver(&mut outlet, 0..2).await, [Fallback; 2]);
        let patience = begin.elapsed();
        assert!(patience >= Duration::from_millis(1_700) && patience < Duration::from_secs(10), "{patience:?}");
        let begin = Instant::now();
        assert_eq!(deliver(&mut outlet, 2..3).await, [Fallback]);
        assert!(begin.elapsed() < Duration::from_millis(1_700), "in trouble one attempt has to do");
        fs::remove_dir(&path).unwrap();
        assert_eq!(deliver(&mut outlet, 3..5).await, [Sent; 2]);
        assert_eq!(read(&path), [3, 4]);
    });
    assert_eq!(numbers(&bench.stderr()), [0, 1, 2]);
}

#[test]
fn without_a_file_the_lines_go_to_standard_error_and_fail_when_nobody_reads() {
    let bench = Bench::new(Disk::Blocking);
    let mut outlet = LogOutlet::new(None, bench.surroundings.clone());
    block_on(Disk::Blocking, async {
        assert_eq!(deliver(&mut outlet, 0..3).await, [Sent; 3]);
        let mut pipe = vec![0; 8 * 1024];
        let count = (&bench.stderr).read(&mut pipe).unwrap();
        assert_eq!(numbers(std::str::from_utf8(&pipe[..count]).unwrap()), [0, 1, 2]);

        // More than the pipe holds, and nobody reads: each notice is answered for, and soon.
        let begin = Instant::now();
        let results = deliver(&mut outlet, 0..1_000).await;
        assert!(results.contains(&Sent) && results.ends_with(&[Failed; 10]));
        assert!(begin.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_read_only_file_system_is_reported_once_with_its_remedy() {
    const NAME: &str = "a_read_only_file_system_is_reported_once_with_its_remedy";
    let bench = Bench::new(Disk::Uring);
    let Some(_mounted) = Mounted::new(NAME, bench.folder.path(), MsFlags::MS_RDONLY, "") else { return };
    let log = capture(Format::Text, || {
        block_on(Disk::Uring, async {
            let mut outlet = bench.outlet("a.log");
            for n in 0..3 {
                assert_eq!(deliver(&mut outlet, [n]).await, [Fallback]);
            }
        });
    });
    assert_eq!(log.lines().count(), 1, "{log}");
    for part in ["ERROR", "a.log", "Read-only file system", "mount its file system for writing", "notices=1"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(numbers(&bench.stderr()), [0, 1, 2]);
}

/// Skips are said aloud; where nothing may be skipped they fail.
fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CPRA_NO_SKIP").is_none(), "{name} must not be skipped: {reason}");
    println!("SKIPPED {name}: {reason}");
}

/// A tmpfs that only this thread sees, and the threads that it starts. Each test has a thread of its own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str, folder: &Path, flags: MsFlags, options: &str) -> Option<Self> {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            skip(name, &format!("needs CAP_SYS_ADMIN for a mount namespace: {errno}"));
            return None;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("cpra-test"), folder, Some("tmpfs"), flags, Some(options)).unwrap();
        Some(Self(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_tears_no_line_and_is_used_again_when_there_is_room() {
    const NAME: &str = "a_full_disk_tears_no_line_and_is_used_again_when_there_is_room";
    for disk in DISKS {
        let bench = Bench::new(disk);
        let Some(_mounted) = Mounted::new(NAME, bench.folder.path(), MsFlags::empty(), "size=64k") else { return };
        let path = bench.path("a.log");
        let in_file = block_on(disk, async {
            let mut outlet = bench.outlet("a.log");
            let results = deliver(&mut outlet, 0..230).await;
            let in_file = results.iter().filter(|&&result| result == Sent).count();
            assert!(in_file > 50 && in_file < 230, "{in_file}");
            assert!(results[..in_file].iter().all(|&result| result == Sent), "what follows a failure follows it");
            assert!(results[in_file..].iter().all(|&result| result == Fallback));
            let in_file = in_file as u32;
            assert!(read(&path).into_iter().eq(0..in_file));
            assert_eq!(deliver(&mut outlet, 300..330).await.last(), Some(&Fallback));

            // Room returns, as by copytruncate.
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            assert_eq!(deliver(&mut outlet, 400..410).await, [Sent; 10]);
            assert!(read(&path).into_iter().eq(400..410));
            in_file
        });
        let on_stderr = numbers(&bench.stderr());
        assert!(on_stderr.starts_with(&(in_file..230).collect::<Vec<_>>()));
        assert_eq!(on_stderr.last(), Some(&329));
    }
}
