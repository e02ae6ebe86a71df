//! Disks that are full, read-only or lie, and files that are damaged, foreign, newer, taken or gone.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::given::{queued, records};
use super::*;
use crate::desk::protocol::NoticeId;

#[allow(clippy::duplicate_mod, reason = "the tests of more than one room want it")]
#[path = "../../../../tests/support/mod.rs"]
mod support;

fn trouble(stored: &Stored) -> &str {
    stored.trouble.as_deref().unwrap_or_default()
}

/// The damaged files that were put aside.
fn aside(place: &Place) -> Vec<String> {
    let found = fs::read_dir(place.folder.path()).expect("it is there");
    let names = found.map(|entry| entry.expect("it is there").file_name().into_string().expect("plain"));
    names.filter(|name| name.contains(".corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")).collect()
}

#[test]
fn damaged_bytes_are_survived_wherever_they_are() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let given = records(&mut Rng::with_seed(3), 400);
    file.commit(&[Batch { sequence: 1, records: given.clone() }]).expect("there is room");
    file.finish().expect("there is room");
    drop(file);
    let whole = fs::read(place.path()).expect("it is there");
    let (mut refused, mut replaced) = (0, 0);
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let place = Place::new();
        let mut bytes = whole.clone();
        match seed % 4 {
            // A page that was never written, one that was written to the wrong place, an end that is missing.
            0 => bytes[rng.usize(..whole.len() / 4096) * 4096..][..4096].fill(0),
            1 => {
                let (from, to) = (rng.usize(..whole.len() / 4096) * 4096, rng.usize(..whole.len() / 4096) * 4096);
                bytes.copy_within(from..from + 4096, to);
            }
            2 => bytes.truncate(rng.usize(1..whole.len())),
            _ => (0..rng.usize(1..200)).for_each(|_| bytes[rng.usize(..whole.len())] = rng.u8(..)),
        }
        fs::write(place.path(), &bytes).expect("there is room");
        match open(&Settings::File(place.settings())) {
            // The bytes that say whose it is, and of which version.
            Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other}"),
            Ok(Opened { store: Store::Memory, stored }) => panic!("seed {seed}: {}", trouble(&stored)),
            Ok(Opened { store: Store::File(mut file), stored }) => {
                let is_replaced = stored.trouble.is_some();
                replaced += u32::from(is_replaced);
                assert_eq!(aside(&place).len(), usize::from(is_replaced), "seed {seed}");
                assert!(!is_replaced || trouble(&stored).contains("was damaged"), "{}", trouble(&stored));
                // Whatever is in it now can be written, and what was damaged unseen is found then.
                let more = vec![Batch { sequence: 1, records: records(&mut rng, 100) }];
                if let Err(fault) = file.commit(&more) {
                    assert!(fault.is_corrupt(), "seed {seed}: {fault}");
                    assert!(file.replace(&fault).expect("there is room").contains("was damaged"));
                    file.commit(&more).expect("it is a new one");
                }
                drop(file);
                let (_file, again) = place.open();
                assert!(!is_replaced || again.trouble.is_none(), "seed {seed}: {}", trouble(&again));
            }
        }
    }
    assert!(replaced > 40 && refused < 10, "{replaced} replaced, {refused} refused");
}

#[test]
fn what_is_no_database_is_put_aside() {
    for text in
        [&b"not a database at all, and longer than a header of SQLite is: 0123456789 0123456789 0123456789"[..], b"xy"]
    {
        let place = Place::new();
        fs::write(place.path(), text).expect("there is room");
        let (_file, stored) = place.open();
        let said = trouble(&stored);
        assert!(said.contains("was damaged") && said.contains("are forgotten"), "{said}");
        let [name] = &aside(&place)[..] else { panic!("one file") };
        assert_eq!(fs::read(place.folder.path().join(name)).expect("it is there"), text);
        assert!(!stored.is_new, "people should not be told that nothing was ever kept");
    }
}

#[test]
fn only_the_last_few_damaged_files_are_kept() {
    let place = Place::new();
    for _ in 0..8 {
        fs::write(place.path(), "no database").expect("there is room");
        place.open();
    }
    assert_eq!(aside(&place).len(), crate::units::limits::STORE_ASIDE_MAX);
}

#[test]
fn a_newer_file_and_a_foreign_one_are_left_alone() {
    let place = Place::new();
    place.open();
    let set = |sql: &str| {
        let connection = rusqlite::Connection::open(place.path()).expect("it is there");
        connection.execute_batch(sql).expect("there is room");
    };
    let refusal = || match open(&Settings::File(place.settings())) {
        Err(refused) => refused.to_string(),
        Ok(Opened { stored, .. }) => panic!("{stored:?}"),
    };
    set("PRAGMA user_version = 99; CREATE TABLE of_the_future (x)");
    let said = refusal();
    assert!(said.contains("newer cpra (schema 99; this one knows 1)") && said.contains("[store] path"), "{said}");
    set("PRAGMA user_version = 1; PRAGMA application_id = 7");
    assert!(refusal().contains("a database of another program"));
    set("PRAGMA application_id = 0");
    assert!(refusal().contains("a database of another program"));
    assert_eq!(aside(&place).len(), 0);
}

#[test]
fn two_daemons_do_not_share_a_file() {
    let place = Place::new();
    let (file, _) = place.open();
    match open(&Settings::File(place.settings())) {
        Err(error @ OpenError::InUse { .. }) => {
            assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        }
        other => panic!("{:?}", other.map(|opened| opened.stored)),
    }
    drop(file);
    place.open();
}

#[test]
fn a_file_that_is_removed_is_written_again() {
    let place = Place::new();
    let given = vec![queued(NoticeId(3))];
    let (mut file, _) = place.open();
    file.commit(&[Batch { sequence: 1, records: given.clone() }]).expect("there is room");
    let opened = Opened { store: Store::File(file), stored: Stored::new() };
    let (mut store, _) = opened.spawn(16, Bell::mute()).expect("a thread");
    thread::sleep(Duration::from_millis(50));
    assert!(store.board.stats().trouble.is_none());
    for part in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{part}", place.path().display())).expect("it is there");
    }
    support::eventually("it is noticed", || store.board.stats().trouble.is_some());
    let later = vec![queued(NoticeId(4))];
    store.batches.send(Batch { sequence: 1, records: later.clone() }).expect("there is room");
    drop(store.batches);
    store.thread.join().expect("it ends in order");
    let (_file, stored) = place.open();
    assert_eq!(known(stored), folded(given.iter().chain(&later)));
}

#[test]
fn a_place_that_cannot_be_written_is_told_and_does_not_keep_the_daemon_from_starting() {
    let place = Place::new();
    fs::write(place.folder.path().join("file"), "x").expect("there is room");
    for path in ["file/cpra.db", "cpra.db/"] {
        let settings = Settings::File(FileSettings::at(place.folder.path().join(path)));
        let Opened { store, stored } = open(&settings).expect("the daemon starts");
        assert!(matches!(store, Store::Memory) && store.reader().is_none());
        assert!(trouble(&stored).contains("cannot be opened") && stored.is_new, "{path}: {}", trouble(&stored));
    }
}

/// A tmpfs that only this thread sees, and the threads that it starts. Each test has a thread of its own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str, folder: &Path, options: &str) -> Option<Self> {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            support::skip(name, &format!("needs CAP_SYS_ADMIN for a mount namespace: {errno}"));
            return None;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
        mount(Some("cpra-test"), folder, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("a tmpfs");
        Some(Self(folder.to_owned()))
    }

    fn set_read_only(&self, is_read_only: bool) {
        let flags = MsFlags::MS_REMOUNT | if is_read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).expect("nothing is open");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    const NAME: &str = "a_full_disk_is_waited_for_and_nothing_is_lost";
    let place = Place::new();
    let Some(_mounted) = Mounted::new(NAME, place.folder.path(), "size=24m") else { return };
    let ballast = place.folder.path().join("ballast");
    fs::write(&ballast, vec![0; 22 << 20]).expect("there is room");
    let (file, stored) = place.open();
    let opened = Opened { store: Store::File(file), stored };
    let (mut store, _) = opened.spawn(1_024, Bell::mute()).expect("a thread");
    let mut all = Vec::new();
    let mut sequence = 0;
    let mut send = |store: &mut StoreThread| {
        sequence += 1;
        let records: Vec<Record> = (0..50).map(|n| queued(NoticeId(sequence * 50 + n))).collect();
        all.extend(records.clone());
        store.batches.send(Batch { sequence, records }).expect("there is room in the queue");
        thread::sleep(Duration::from_millis(2));
        sequence
    };
    while store.board.stats().failures == 0 {
        assert!(send(&mut store) < 500, "2 MiB are never full");
    }
    let mut last = 0;
    for _ in 0..20 {
        last = send(&mut store);
    }
    let durable = std::iter::from_fn(|| store.durable.recv()).last().unwrap_or(0);
    let stats = store.board.stats();
    assert!(durable < last && !stats.is_durable && stats.waiting > 0 && stats.waiting_since.is_some(), "{stats:?}");

    fs::remove_file(ballast).expect("it is there");
    support::eventually("it is written again", || store.board.stats().is_durable);
    drop(store.batches);
    store.thread.join().expect("it ends in order");
    assert_eq!(std::iter::from_fn(|| store.durable.recv()).last(), Some(last));
    let (_file, stored) = place.open();
    assert_eq!(known(stored), folded(&all));
}

#[test]
fn a_file_system_that_cannot_be_written_at_the_start_means_memory() {
    const NAME: &str = "a_file_system_that_cannot_be_written_at_the_start_means_memory";
    let place = Place::new();
    let Some(mounted) = Mounted::new(NAME, place.folder.path(), "size=1m") else { return };
    let settings = Settings::File(place.settings());
    mounted.set_read_only(true);
    let Opened { store, stored } = open(&settings).expect("the daemon starts");
    assert!(matches!(store, Store::Memory));
    assert!(trouble(&stored).contains("mount its file system for writing"), "{}", trouble(&stored));
    mounted.set_read_only(false);
    let _ = fs::write(place.folder.path().join("ballast"), vec![0; 2 << 20]);
    let Opened { store, stored } = open(&settings).expect("the daemon starts");
    assert!(matches!(store, Store::Memory));
    assert!(trouble(&stored).contains("make room"), "{}", trouble(&stored));
}

#[test]
fn damage_that_is_found_later_is_mended_with_what_can_be_read() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let given = records(&mut Rng::with_seed(11), 300);
    let history: Vec<Record> = (0..2_000).flat_map(|n| given::story(n, Timestamp::from_micros(n as i64))).collect();
    file.commit(&[Batch { sequence: 1, records: given.clone() }]).expect("there is room");
    file.commit(&[Batch { sequence: 2, records: history.clone() }]).expect("there is room");
    file.finish().expect("there is room");
    drop(file);
    let (mut file, _) = place.open();
    // The last pages hold history only; a fresh connection has not read them yet.
    file.reopen().expect("it is there");
    let disk = fs::File::options().write(true).open(place.path()).expect("it is there");
    let size = disk.metadata().expect("it is there").len();
    disk.write_all_at(&vec![0xA5; 400 << 10], size - (400 << 10)).expect("there is room");
    let opened = Opened { store: Store::File(file), stored: Stored::new() };
    let (mut store, _) = opened.spawn(16, Bell::mute()).expect("a thread");
    let more: Vec<Record> = (3_000..3_300).flat_map(|n| given::story(n, Timestamp::from_micros(n as i64))).collect();
    store.batches.send(Batch { sequence: 1, records: more.clone() }).expect("there is room");
    drop(store.batches);
    store.thread.join().expect("it ends in order");
    assert_eq!(store.durable.recv(), Some(1));
    let said = store.board.stats().trouble.expect("it was found");
    assert!(said.contains("what can be read") || said.contains("what could be read"), "{said}");
    let (_file, stored) = place.open();
    let expected = folded(given.iter().chain(&history).chain(&more));
    assert_eq!(
        (stored.episodes, stored.seen_ok, stored.next_notice),
        (expected.episodes, expected.seen_ok, expected.next_notice)
    );
}
