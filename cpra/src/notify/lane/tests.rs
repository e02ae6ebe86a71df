use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::notify::line::tests::notice;

struct Bench {
    /// First, since what hangs would hang the removal of the folder, too.
    hung: Option<Hung>,
    folder: tempfile::TempDir,
    lane: CodeLane,
    door: WakeFd,
    bell: Bell,
    stderr: fs::File,
}

impl Bench {
    fn new(capacity: usize) -> Self {
        Self::with(None, tempfile::tempdir().unwrap(), capacity)
    }

    /// With a `disk` in its folder and so many files that hang; `None` where there can be none, which is said aloud.
    fn hung(name: &str, files: u32, capacity: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match Hung::mount(folder.path(), files) {
            Ok(hung) => Some(Self::with(Some(hung), folder, capacity)),
            Err(reason) => {
                assert!(std::env::var_os("CPRA_NO_SKIP").is_none(), "{name} must not be skipped: {reason}");
                println!("SKIPPED {name}: {reason}");
                None
            }
        }
    }

    fn with(hung: Option<Hung>, folder: tempfile::TempDir, capacity: usize) -> Self {
        let log_dirs = LogDirs::new([folder.path().to_owned()], folder.path().join("state"));
        let (stderr, writer) = nix::unistd::pipe().unwrap();
        let door = WakeFd::new().unwrap();
        let bell = door.bell();
        let recording = SharedRecording::of_notices();
        let settings = Settings { capacity, sizing: default_sizing(), log_dirs, scripts: None, recording };
        let lane = spawn_with(settings, bell.clone(), Stderr::with(writer)).unwrap();
        Self { hung, folder, lane, door, bell, stderr: stderr.into() }
    }

    fn send(&mut self, id: u32, file: Option<&str>) -> bool {
        let path = file.map(|file| self.folder.path().join(file));
        self.lane.jobs.send((NoticeId(id.into()), Box::new(notice(id, path.as_deref())))).is_ok()
    }

    /// Waits until so many results have come.
    fn results(&mut self, count: usize) -> Vec<Done> {
        let deadline = Clock.now() + Span::from_secs(30);
        let mut results = vec![];
        while results.len() < count {
            assert!(Clock.now() < deadline, "{} of {count} results", results.len());
            self.lane.results.drain_into(&mut results, count);
            let (queue, door) = (&self.lane.results, &self.door);
            self.bell.sleep(
                || queue.is_empty() && results.len() < count,
                || {
                    door.wait(Some(Span::from_secs(1)));
                },
            );
        }
        results
    }

    fn numbers(&self, file: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.folder.path().join(file)).unwrap();
        let number = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["delivery"].as_str().unwrap().rsplit_once('/').unwrap().1.parse().unwrap()
        };
        text.lines().map(number).collect()
    }
}

#[test]
fn a_slow_destination_delays_no_other_and_each_keeps_its_order() {
    let mut bench = Bench::new(4096);
    // A folder in the file's place: the retries take almost two seconds, so that all of the fast one's results come first.
    fs::create_dir(bench.folder.path().join("slow.log")).unwrap();
    for id in 0..1_000 {
        assert!(bench.send(id, Some(if id % 2 == 0 { "slow.log" } else { "fast.log" })));
    }
    let fast = bench.results(500);
    let odd: Vec<u64> = (0..500).map(|n| 2 * n + 1).collect();
    assert!(fast.iter().map(|(id, _)| id.0).eq(odd.iter().copied()));
    assert!(fast.iter().all(|(_, delivered)| delivered.result == DeliveryResult::Sent));
    assert_eq!(bench.numbers("fast.log"), odd);

    // Nobody reads the pipe: what it holds is in it, and the rest is answered for all the same.
    let slow = bench.results(500);
    assert!(slow.iter().map(|(id, _)| id.0).eq((0..500).map(|n| 2 * n)));
    assert_eq!(slow[0].1.result, DeliveryResult::Fallback);
    assert_eq!(slow[499].1.result, DeliveryResult::Failed);
}

#[test]
fn what_is_in_hand_is_finished_before_the_lane_ends() {
    let mut bench = Bench::new(20_000);
    for id in 0..10_000 {
        assert!(bench.send(id, Some(["a.log", "b.log", "c.log"][id as usize % 3])));
    }
    let Bench { folder, lane: CodeLane { jobs, mut results, thread, .. }, .. } = bench;
    drop(jobs);
    thread.join().unwrap();
    assert!(results.is_closed());
    let mut all = vec![];
    results.drain_into(&mut all, usize::MAX);
    assert_eq!(all.len(), 10_000);
    assert!(all.iter().all(|(_, delivered)| delivered.result == DeliveryResult::Sent));
    let lines = ["a.log", "b.log", "c.log"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
    assert_eq!(lines.iter().map(|text| text.lines().count()).sum::<usize>(), 10_000);
}

#[test]
fn what_is_in_hand_is_bounded_and_full_comes_back_to_the_sender() {
    let mut bench = Bench::new(8);
    // Nobody takes results: at most 8 in hand or answered, 8 in the results' queue counted as such, 8 in the queue.
    let mut sent = 0;
    let deadline = Clock.now() + Span::from_millis(500);
    while Clock.now() < deadline {
        if bench.send(sent, Some("a.log")) {
            sent += 1;
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(sent <= 24, "{sent}");
    let ids: Vec<u64> = bench.results(sent as usize).iter().map(|(id, _)| id.0).collect();
    assert!(ids.into_iter().eq(0..u64::from(sent)));
}

#[test]
fn more_destinations_than_may_be_open_at_once() {
    let mut bench = Bench::new(4096);
    let names: Vec<String> = (0..3 * CODE_WORKERS_MAX).map(|n| format!("{n}.log")).collect();
    for round in 0..3 {
        for (id, name) in (0..).zip(&names) {
            assert!(bench.send(1000 * round + id, Some(name)));
        }
    }
    bench.results(3 * names.len());
    let report = bench.lane.board.report().unwrap();
    assert!(report.workers <= CODE_WORKERS_MAX && report.class == "code", "{report:?}");
    for (id, name) in (0..).zip(&names) {
        assert_eq!(bench.numbers(name), [id, 1000 + id, 2000 + id]);
    }
}

#[test]
fn without_a_file_standard_error_has_the_line() {
    let mut bench = Bench::new(8);
    assert!(bench.send(7, None));
    assert_eq!(bench.results(1), [(NoticeId(7), DeliveryResult::Sent.into())]);
    let mut text = vec![0; 4096];
    let count = bench.stderr.read(&mut text).unwrap();
    assert!(text[..count].starts_with(b"{\"timestamp\"") && text[..count].ends_with(b"}\n"));
}

/// File systems whose server never answers: what touches them hangs until this is dropped, and then fails. Only this
/// thread sees them, and the threads that it starts.
struct Hung {
    servers: Vec<fs::File>,
    places: Vec<PathBuf>,
}

impl Hung {
    /// The folder `disk`, where a thread of our own hangs, looking for what is in it; and files `0.hung` and so on,
    /// where one of the kernel's does.
    fn mount(folder: &Path, files: u32) -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| format!("needs CAP_SYS_ADMIN for a mount namespace: {errno}"))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let mut hung = Self { servers: Vec::new(), places: Vec::new() };
        fs::create_dir(folder.join("disk")).unwrap();
        hung.add(folder.join("disk"), "40000")?;
        for file in 0..files {
            let place = folder.join(format!("{file}.hung"));
            fs::write(&place, "").unwrap();
            hung.add(place, "100644")?;
        }
        Ok(hung)
    }

    fn add(&mut self, place: PathBuf, mode: &str) -> Result<(), String> {
        let server = fs::File::options().read(true).write(true).open("/dev/fuse");
        let server = server.map_err(|error| format!("needs /dev/fuse: {error}"))?;
        let options = format!("fd={},rootmode={mode},user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("cpra-test"), &place, Some("fuse"), MsFlags::empty(), Some(&*options))
            .map_err(|errno| format!("cannot mount a file system of its own: {errno}"))?;
        self.servers.push(server);
        self.places.push(place);
        Ok(())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.servers.clear();
        for place in &self.places {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

#[test]
fn a_disk_that_hangs_delays_no_other_and_loses_nothing() {
    const NAME: &str = "a_disk_that_hangs_delays_no_other_and_loses_nothing";
    // More than there are workers, and files more than the kernel has threads for by itself on any machine that this
    // is likely to run on.
    const HUNG: u32 = 200;
    const FILES: u32 = 100;
    let Some(mut bench) = Bench::hung(NAME, FILES, 4096) else { return };
    for id in 0..HUNG {
        let file = if id < FILES { format!("{id}.hung") } else { format!("disk/{id}.log") };
        assert!(bench.send(id, Some(&file)));
    }
    let began = Clock.now();
    while bench.lane.board.stuck() < HUNG as usize {
        assert!(Clock.now().since(began) < Span::from_secs(10), "{} hang", bench.lane.board.stuck());
        thread::sleep(Duration::from_millis(10));
    }
    println!("{HUNG} hang after {:?}", Clock.now().since(began));
    for round in 0..20 {
        let sent = Clock.now();
        for other in 0..10 {
            assert!(bench.send(1_000 + 10 * round + other, Some(&format!("{other}.log"))));
        }
        let results = bench.results(10);
        assert!(results.iter().all(|(_, delivered)| delivered.result == DeliveryResult::Sent));
        assert!(Clock.now().since(sent) < Span::from_millis(500), "{:?}", Clock.now().since(sent));
    }
    let report = bench.lane.board.report().unwrap();
    assert!(!report.unreachable && report.demand.busy <= 1, "{report:?}");
    // It answers again, if only with errors: standard error has the lines, and each has its result.
    bench.hung = None;
    let mut ids: Vec<u64> = bench.results(HUNG as usize).iter().map(|(id, _)| id.0).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..u64::from(HUNG)));
}

#[test]
fn what_hangs_at_the_end_is_left_behind_within_its_bound() {
    const NAME: &str = "what_hangs_at_the_end_is_left_behind_within_its_bound";
    let Some(mut bench) = Bench::hung(NAME, 1, 64) else { return };
    assert!(bench.send(0, Some("disk/a.log")) && bench.send(1, Some("0.hung")) && bench.send(2, Some("b.log")));
    assert_eq!(bench.results(1), [(NoticeId(2), DeliveryResult::Sent.into())]);
    let Bench { hung, lane: CodeLane { jobs, mut results, thread, .. }, .. } = bench;
    let began = Clock.now();
    drop(jobs);
    // Not joined: for the kernel it ends when its operations have.
    while !thread.is_finished() {
        assert!(Clock.now().since(began) < DRAIN_NOTICES + Span::from_secs(2), "{:?}", Clock.now().since(began));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(results.is_closed() && results.recv().is_none(), "what hangs has no result");
    drop(hung);
}
