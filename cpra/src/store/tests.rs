//! The store against the fold that it has to agree with, and against everything that can happen to a file.

mod faults;
mod given;
mod process;
mod shapes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tempfile::TempDir;

use self::given::{batches, records};
use super::backlog::Backlog;
use super::*;
use crate::desk::protocol::{Batch, DeliveryResult, NoticeId, Record};
use crate::os::clock::Clock;
use crate::pipeline::Bell;
use crate::units::Timestamp;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cpra.db")
    }

    fn settings(&self) -> FileSettings {
        FileSettings::at(self.path())
    }

    fn open(&self) -> (Box<Database>, Stored) {
        let Opened { store, stored } = open(&Settings::File(self.settings())).expect("it may be used");
        let Store::File(file) = store else { panic!("not in memory: {:?}", stored.trouble) };
        (file, stored)
    }
}

/// What the records come to, by the fold.
fn folded<'a>(records: impl IntoIterator<Item = &'a Record>) -> Stored {
    let mut stored = Stored::new();
    for record in records {
        stored.apply(record);
    }
    Stored { is_new: false, ..stored }
}

fn known(stored: Stored) -> Stored {
    Stored { is_new: false, ..stored }
}

#[test]
fn what_is_read_is_what_the_fold_says() {
    for seed in 0..60 {
        let place = Place::new();
        let mut rng = Rng::with_seed(seed);
        let mut all: Vec<Record> = Vec::new();
        let mut sequence = 0;
        for _ in 0..rng.usize(1..4) {
            let (mut file, stored) = place.open();
            assert_eq!(known(stored), folded(&all), "seed {seed}");
            for _ in 0..rng.usize(0..6) {
                let some = batches(&mut rng, &mut sequence);
                file.commit(&some).expect("there is room");
                all.extend(some.into_iter().flat_map(|batch| batch.records));
            }
            if rng.bool() {
                file.finish().expect("there is room");
            }
        }
        assert_eq!(known(place.open().1), folded(&all), "seed {seed}");
    }
}

#[test]
fn a_new_store_says_so_and_an_old_one_does_not() {
    let place = Place::new();
    let (mut file, stored) = place.open();
    assert_eq!(stored, Stored::new());
    let records = vec![Record::SeenOk { monitor: "web".into(), definition: u64::MAX }];
    file.commit(&[Batch { sequence: 1, records }]).expect("there is room");
    drop(file);
    let (_file, stored) = place.open();
    assert_eq!((stored.is_new, stored.trouble), (false, None));
    assert_eq!(stored.seen_ok, [("web".into(), u64::MAX)]);
}

#[test]
fn nobody_else_may_read_what_is_kept() {
    let place = Place::new();
    let settings = FileSettings::at(place.folder.path().join("below/it/cpra.db"));
    let Opened { store: Store::File(mut file), .. } = open(&Settings::File(settings.clone())).expect("it may be used")
    else {
        panic!("in memory")
    };
    file.commit(&[Batch { sequence: 1, records: records(&mut Rng::with_seed(1), 20) }]).expect("there is room");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let found = fs::read_dir(settings.path.parent().expect("a folder")).expect("it is there");
    let found: Vec<_> = found.map(|entry| entry.expect("it is there").path()).collect();
    assert_eq!(found.len(), 4, "the file, its log, the log's index and the lock: {found:?}");
    for path in found {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(settings.path.parent().expect("a folder")), 0o700);
}

#[test]
fn a_backlog_that_was_merged_says_the_same_in_fewer_words() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let before = records(&mut rng, 30);
        let stored = folded(&before);
        let ids = |records: &[crate::desk::protocol::BundleRecord]| {
            records.iter().map(|bundle| bundle.id).collect::<Vec<_>>()
        };
        let mut backlog = Backlog::new(
            stored.episodes.iter().map(|episode| episode.id),
            ids(&stored.bundles),
            stored.outbox.iter().map(|notice| notice.id),
        );
        let mut sequence = 0;
        let mut all = before.clone();
        let mut last = 0;
        for _ in 0..rng.usize(1..5) {
            for batch in batches(&mut rng, &mut sequence) {
                last = batch.sequence;
                all.extend(batch.records.clone());
                backlog.push(batch);
            }
        }
        let long = backlog.len();
        backlog.merge();
        assert!(backlog.len() <= long);
        let merged: Vec<Record> = backlog.next().iter().flat_map(|batch| batch.records.clone()).collect();
        // How often was tried is not worth the room.
        let without_attempts = |mut stored: Stored| {
            stored.outbox.iter_mut().for_each(|notice| notice.attempts = 0);
            // Numbers of what came and went meanwhile were given, but no other side has seen them.
            Stored { next_notice: 0, ..stored }
        };
        let expected = without_attempts(folded(&all));
        assert_eq!(without_attempts(folded(before.iter().chain(&merged))), expected, "seed {seed}");
        assert_eq!((backlog.committed(1), backlog.len(), backlog.is_empty()), (last, 0, true));
    }
}

#[test]
#[should_panic(expected = "without gaps")]
fn a_gap_is_a_defect() {
    let mut backlog = Backlog::new([], [], []);
    backlog.push(Batch { sequence: 1, records: vec![] });
    backlog.push(Batch { sequence: 3, records: vec![] });
}

#[test]
fn every_commit_is_acknowledged_even_through_a_narrow_queue() {
    let place = Place::new();
    for settings in [Settings::Memory, Settings::File(place.settings())] {
        let (mut store, _) = open(&settings).expect("it may be used").spawn(2, Bell::mute()).expect("a thread");
        let mut last = 0;
        for sequence in 1..=500 {
            let mut waiting = Batch { sequence, records: vec![] };
            if sequence % 50 == 0 {
                waiting.records = vec![Record::SeenOk { monitor: "web".into(), definition: sequence }];
            }
            while let Err(back) = store.batches.send(waiting) {
                waiting = back;
                std::thread::yield_now();
            }
            if sequence % 3 == 0 {
                while let Some(durable) = store.durable.recv() {
                    assert!(durable > last && durable <= sequence);
                    last = durable;
                }
            }
        }
        drop(store.batches);
        while !store.durable.is_finished() {
            last = store.durable.recv().unwrap_or(last);
            std::thread::yield_now();
        }
        store.thread.join().expect("it ends in order");
        let stats = store.board.stats();
        assert_eq!((last, stats.is_durable, stats.failures), (500, settings != Settings::Memory, 0));
        assert!(stats.commits > 0 && stats.waiting_since.is_none() && stats.keeps_up(Clock.now()));
    }
    let (_file, stored) = place.open();
    assert_eq!(stored.seen_ok, [("web".into(), 500)]);
}

#[test]
fn history_is_read_newest_first_and_in_bounds() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let mut all = Vec::new();
    for n in 0..40 {
        all.extend(given::story(n, Timestamp::from_micros(1_000 * n as i64)));
    }
    file.commit(&[Batch { sequence: 1, records: all }]).expect("there is room");
    let reader = Store::File(file).reader().expect("it is a file");
    let reader_path = place.path();
    assert!(reader_path.exists());

    let deliveries = reader.deliveries(&Deliveries::All, None, 10).expect("it can be read");
    assert!(deliveries.is_sorted_by(|a, b| a.number > b.number) && deliveries.len() == 10);
    let next = reader.deliveries(&Deliveries::All, Some(deliveries[9].number), 10).expect("it can be read");
    assert_eq!(next[0].number, deliveries[9].number - 1);
    let newest = &deliveries[0];
    assert_eq!((&*newest.monitor, &*newest.result, newest.attempt), ("web-3", DeliveryResult::Sent.as_str(), 2));

    let of_monitor = reader.deliveries(&Deliveries::OfMonitor("web-1".into()), None, 1_000).expect("it can be read");
    assert_eq!(of_monitor.len(), 20);
    let incident = of_monitor[0].incident.clone();
    let of_incident = reader.deliveries(&Deliveries::OfIncident(incident), None, 1_000).expect("it can be read");
    assert_eq!(of_incident, of_monitor[..2]);

    let closed = reader.closed_episodes(Some("web-0"), None, 4).expect("it can be read");
    assert_eq!(closed.len(), 4);
    assert!(closed.iter().all(|episode| episode.monitor.as_deref() == Some("web-0") && episode.red));
    assert!(closed[0].closed > closed[1].closed && closed[0].opened < closed[0].closed);
    let audit = reader.audit(usize::MAX).expect("it can be read");
    assert_eq!((audit.len(), &*audit[0].what), (40, "outbox drop"));
    assert_eq!(reader.closed_episodes(None, None, usize::MAX).expect("it can be read").len(), 40);
}

#[test]
fn history_is_cut_by_age_and_by_size_and_nothing_else_is() {
    let place = Place::new();
    let day = Span::from_secs(24 * 3_600);
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    let long_ago = Timestamp::from_micros(now.as_micros() - 40 * day.as_micros() as i64);
    let (mut file, _) = place.open();
    let old: Vec<Record> = (0..600).flat_map(|n| given::story(n, long_ago)).collect();
    let young: Vec<Record> = (600..700).flat_map(|n| given::story(n, now)).collect();
    let others: Vec<Record> = records(&mut Rng::with_seed(7), 60);
    let expected = folded(old.iter().chain(&young).chain(&others));
    for (sequence, records) in (1..).zip([old, young, others]) {
        file.commit(&[Batch { sequence, records }]).expect("there is room");
    }
    let prune = |file: &mut Database| {
        let mut rounds = 0;
        while file.prune(now).expect("there is room") {
            rounds += 1;
            assert!(rounds < 10_000, "it must come to an end");
        }
        rounds
    };
    assert!(prune(&mut file) > 3 * 2, "in small pieces");
    let reader = Reader::new(place.path());
    let closed = reader.closed_episodes(None, None, usize::MAX).expect("it can be read");
    assert!(
        closed.iter().filter(|episode| episode.monitor.as_deref().is_some_and(|name| name.starts_with("web-"))).count()
            >= 100
    );
    assert!(closed.iter().all(|episode| episode.closed > long_ago || episode.number > 600));
    drop(file);

    let small = FileSettings { max_size: 1, ..place.settings() };
    let Opened { store: Store::File(mut file), stored } = open(&Settings::File(small)).expect("it may be used") else {
        panic!("in memory")
    };
    assert_eq!(known(stored), expected);
    prune(&mut file);
    assert_eq!(reader.audit(10).expect("it can be read"), []);
    assert_eq!(reader.deliveries(&Deliveries::All, None, 10).expect("it can be read"), []);
    drop(file);
    assert_eq!(known(place.open().1), expected, "what decides something stays, however small the file should be");
}

#[test]
fn rows_that_were_overtaken_are_tidied_up() {
    let place = Place::new();
    let (mut file, _) = place.open();
    for sequence in 1..=30 {
        let records =
            (0..100).map(|n| Record::SeenOk { monitor: format!("m{n}").into(), definition: sequence }).collect();
        file.commit(&[Batch { sequence, records }]).expect("there is room");
    }
    drop(file);
    let rows = || {
        let connection = rusqlite::Connection::open(place.path()).expect("it is there");
        connection.query_row("SELECT count(*) FROM seen_ok", [], |row| row.get::<_, i64>(0)).expect("it can be read")
    };
    assert_eq!(rows(), 3_000);
    let (file, stored) = place.open();
    drop(file);
    assert_eq!((rows(), stored.seen_ok.len()), (100, 100));
    assert!(stored.seen_ok.iter().all(|(_, definition)| *definition == 30));
    assert_eq!(place.open().1.seen_ok.len(), 100);
}

#[test]
fn a_destination_is_written_once_and_forgotten_with_its_last_user() {
    let place = Place::new();
    let (mut file, _) = place.open();
    let queued: Vec<Record> = (0..50).map(|n| given::queued(NoticeId(n))).collect();
    file.commit(&[Batch { sequence: 1, records: queued }]).expect("there is room");
    let count = || {
        let connection = rusqlite::Connection::open(place.path()).expect("it is there");
        connection
            .query_row("SELECT count(*) FROM destinations", [], |row| row.get::<_, i64>(0))
            .expect("it can be read")
    };
    assert_eq!(count(), 1);
    let done = (0..50).map(|n| Record::NoticeDone { id: NoticeId(n), at: Timestamp::default() }).collect();
    file.commit(&[Batch { sequence: 2, records: done }]).expect("there is room");
    drop(file);
    let (_file, stored) = place.open();
    assert_eq!((count(), stored.next_notice), (0, 50));
}
