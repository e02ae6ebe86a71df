//! `cargo xtask bench store`: how long a commit takes beside a bare write and fdatasync(2) of as many bytes, and how fast a storm is
//! written.
//!
//! Hypothesis: a small commit costs one sync of the disk and less than a millisecond more. Both are measured in turn, on the
//! same file system, with pauses, since a disk that is kept busy answers otherwise.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cpra::desk::protocol::{Batch, EpisodeRecord, NoticeId, Record, Told};
use cpra::domain::episode::State;
use cpra::domain::monitor::About;
use cpra::domain::notice::EpisodeId;
use cpra::domain::{Color, DeliveryKey, Destination, Incident, Notice, Raise};
use cpra::os::wake::WakeFd;
use cpra::pipeline::Bell;
use cpra::store::{self, FileSettings, Settings, StoreThread};
use cpra::units::{Span, Timestamp};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A folder on the file system in question
    #[arg(long, default_value = "target")]
    path: PathBuf,
    /// Small commits
    #[arg(long, default_value_t = 400)]
    commits: u64,
    /// Episodes of the storm, each with a notice
    #[arg(long, default_value_t = 100_000)]
    episodes: u64,
    /// Monitors that are seen ok for the first time
    #[arg(long, default_value_t = 1_000_000)]
    monitors: u64,
}

/// Between two commits that are timed.
const PAUSE: Duration = Duration::from_millis(10);
/// What a small commit writes to the log: about three pages.
const BYTES: usize = 3 * 4_120;

struct Rig {
    store: StoreThread,
    door: WakeFd,
    bell: Bell,
    sequence: u64,
    durable: u64,
}

impl Rig {
    fn open(path: &Path) -> anyhow::Result<(Self, usize)> {
        let opened = store::open(&Settings::File(FileSettings::at(path)))?;
        if let Some(trouble) = &opened.stored.trouble {
            anyhow::bail!("{trouble}");
        }
        let door = WakeFd::new()?;
        let bell = door.bell();
        let (store, stored) = opened.spawn(16_384, bell.clone())?;
        Ok((Self { store, door, bell, sequence: 0, durable: 0 }, stored.seen_ok.len()))
    }

    fn send(&mut self, records: Vec<Record>) {
        self.sequence += 1;
        let mut batch = Batch { sequence: self.sequence, records };
        while let Err(back) = self.store.batches.send(batch) {
            batch = back;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait(&mut self) {
        while self.durable < self.sequence {
            while let Some(durable) = self.store.durable.recv() {
                self.durable = durable;
            }
            if self.durable < self.sequence {
                self.bell.sleep(
                    || self.store.durable.is_empty(),
                    || {
                        self.door.wait(Some(Span::from_millis(100)));
                    },
                );
            }
        }
    }

    fn end(self) {
        drop(self.store.batches);
        let _ = self.store.thread.join();
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let folder = options.path.join(format!("bench-store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let result = measure(options, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure(options: &Options, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("cpra.db");
    let (mut rig, _) = Rig::open(&path)?;
    let bare = File::create(folder.join("bare"))?;
    bare.write_all_at(&vec![1; BYTES * 400], 0)?;
    bare.sync_all()?;
    let (mut commits, mut syncs) = (Vec::new(), Vec::new());
    for n in 0..options.commits {
        thread::sleep(PAUSE);
        let began = Instant::now();
        rig.send(incident(n));
        rig.wait();
        commits.push(began.elapsed());
        thread::sleep(PAUSE);
        let began = Instant::now();
        bare.write_all_at(&vec![n as u8; BYTES], n % 400 * BYTES as u64)?;
        bare.sync_data()?;
        syncs.push(began.elapsed());
    }
    println!("{} commits of one episode with one notice, and as many bare writes of {BYTES} bytes:", options.commits);
    for (what, times) in [("commit", &mut commits), ("write and fdatasync", &mut syncs)] {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!("  {what:20} p50 {:7.2} ms   p95 {:7.2} ms   p99 {:7.2} ms", at(50), at(95), at(99));
    }

    let began = Instant::now();
    let first = options.commits;
    for n in 0..options.episodes / 100 {
        rig.send((0..100).flat_map(|k| incident(first + n * 100 + k)).collect());
    }
    rig.wait();
    let took = began.elapsed().as_secs_f64();
    let rows = options.episodes as f64 * 2.0;
    let stats = rig.store.board.stats();
    println!(
        "storm: {} episodes with a notice each in {took:.2} s: {:.0} rows/s, {} commits, {} MB",
        options.episodes,
        rows / took,
        stats.commits - options.commits,
        stats.bytes / 1_000_000
    );

    let began = Instant::now();
    for n in 0..options.monitors / 200 {
        // In no order, as they come.
        let monitor = |k: u64| (n * 200 + k).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let record =
            |k| Record::SeenOk { monitor: format!("host-{:016x}/http", monitor(k)).into(), definition: monitor(k) };
        rig.send((0..200).map(record).collect());
    }
    rig.wait();
    println!("first ok of {} monitors: written in {:.2} s", options.monitors, began.elapsed().as_secs_f64());
    rig.end();
    let began = Instant::now();
    let (rig, seen) = Rig::open(&path)?;
    println!("start with {seen} of them, and the storm's episodes and notices: {:.2} s", began.elapsed().as_secs_f64());
    rig.end();
    Ok(())
}

fn incident(n: u64) -> Vec<Record> {
    let id = EpisodeId(u128::from(n) + 1);
    let name: Box<str> = format!("host-{n:07}.example/http").into();
    let destination = Arc::new(Destination::log(None));
    let told = vec![Told { destination: Arc::clone(&destination), color: Color::Red, bundle: None }];
    let at = Timestamp::from_micros(1_795_000_000_000_000 + n as i64);
    let cause: Box<str> = "connection refused by 192.0.2.1:443 (3 of 3)".into();
    let episode = EpisodeRecord {
        id,
        monitor: Some(name.clone()),
        definition: n,
        state: State::Suspect,
        opened: at,
        cause: cause.clone(),
        yellow: false,
        red: true,
        reminders: 0,
        told,
    };
    let notice = Notice {
        key: DeliveryKey { episode: id, raise: Raise::Red, destination, n: 0 },
        incident: Incident::new("bench", &name, id),
        monitor: None,
        monitor_name: name,
        color: Color::Red,
        summary: cause,
        outcome: None,
        at,
        lasted: Span::from_secs(3),
        groups: Box::default(),
        about: About::default(),
        test: false,
    };
    vec![Record::Episode(Box::new(episode)), Record::NoticeQueued { id: NoticeId(n), notice: Box::new(notice) }]
}
