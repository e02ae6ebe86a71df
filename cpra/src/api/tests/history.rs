//! A monitor's past, out of a real store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::fake::{DOWN, Fake, Running};
use crate::desk::protocol::{Batch, Delivered, DeliveryResult, EpisodeRecord, NoticeId, Record};
use crate::domain::episode::State;
use crate::domain::monitor::About;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, DeliveryKey, Destination, Incident, Notice, Raise};
use crate::pipeline::Bell;
use crate::store::{self, FileSettings, Reader};
use crate::units::{Span, Timestamp};

const GONE: &str = "shop/gone";

fn at(secs: i64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

fn notice(monitor: &str, episode: EpisodeId) -> Notice {
    let destination = Arc::new(Destination::log(None));
    Notice {
        key: DeliveryKey { episode, raise: Raise::Red, destination, n: 0 },
        incident: Incident::new("mon<1>", monitor, episode),
        monitor: None,
        monitor_name: monitor.into(),
        color: Color::Red,
        summary: "it is down".into(),
        outcome: None,
        at: at(100),
        lasted: Span::ZERO,
        groups: Box::default(),
        about: About::default(),
        test: false,
    }
}

/// An incident of each of two monitors, told at the second attempt.
fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for (monitor, number) in [(DOWN, 1), (GONE, 2)] {
        let (episode, id) = (EpisodeId(number), NoticeId(number as u64));
        let delivered = |result, said: &str| Delivered::new(result, said);
        records.extend([
            Record::Episode(Box::new(EpisodeRecord {
                id: episode,
                monitor: Some(monitor.into()),
                definition: 0,
                state: State::Suspect,
                opened: at(100),
                cause: "refused".into(),
                yellow: true,
                red: true,
                reminders: 0,
                told: Vec::new(),
            })),
            Record::NoticeQueued { id, notice: Box::new(notice(monitor, episode)) },
            Record::NoticeTried { id, at: at(101), delivered: delivered(DeliveryResult::Failed, "503") },
            Record::NoticeTried { id, at: at(102), delivered: delivered(DeliveryResult::Sent, "200 ok") },
            Record::NoticeDone { id, at: at(102) },
            Record::EpisodeClosed { episode, at: at(160) },
        ]);
    }
    records
}

fn kept(folder: &tempfile::TempDir) -> Reader {
    // What is told of happened in 1970, and is to be kept.
    let max_age = Span::from_secs(200 * 365 * 24 * 3_600);
    let settings = FileSettings { max_age, ..FileSettings::at(folder.path().join("cpra.db")) };
    let opened = store::open(&store::Settings::File(settings)).expect("it is new");
    let reader = opened.store.reader().expect("a file has a past");
    let (mut store, _) = opened.spawn(16, Bell::mute()).expect("a thread");
    store.batches.send(Batch { sequence: 1, records: records() }).expect("there is room");
    while store.durable.recv() != Some(1) {
        thread::sleep(Duration::from_millis(5));
    }
    drop(store.batches);
    store.thread.join().expect("it ends");
    reader
}

#[test]
fn what_was_told_of_a_monitor_and_what_came_back_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::new(Fake::small());
    let ask = |path: &str| running.json(&format!("/api/v1/monitors/{path}"));
    let (status, body) = ask("shop/web/history");
    assert_eq!((status, &body["is_kept"], &body["is_loaded"]), (200, &false.into(), &true.into()), "{body}");
    assert_eq!((&body["open"]["incident"], &body["undelivered"][0]["id"]), (&"mon-1/shop/web/01".into(), &11.into()));
    assert_eq!(ask("shop/gone/history").0, 404);

    *running.fake.reader.lock().expect("it is free") = Some(kept(&folder));
    let (status, body) = ask("shop/web/history");
    assert_eq!((status, &body["is_kept"], &body["faults"]), (200, &true.into(), &serde_json::json!([])), "{body}");
    let told: Vec<_> = body["deliveries"].as_array().expect("a list").iter().map(|row| &row["said"]).collect();
    assert_eq!(told, ["200 ok", "503"], "the newest first");
    assert_eq!((&body["deliveries"][0]["attempt"], &body["closed"][0]["lasted_seconds"]), (&2.into(), &60.0.into()));
    let incident = format!("mon<1>/shop/web/{}", EpisodeId(1));
    assert_eq!(
        (&body["closed"][0]["incident"], &body["deliveries"][0]["incident"]),
        (&incident.clone().into(), &incident.into())
    );
    assert_eq!(ask("shop/web/history?limit=1").1["deliveries"].as_array().map(Vec::len), Some(1));
    assert_eq!((ask("shop/web/history?limit=0").0, ask("shop/web/history?limit=x").0), (400, 400));

    // One that is not watched any more has its past; one that never was is unknown.
    let (status, body) = ask("shop/gone/history");
    assert_eq!((status, &body["is_loaded"], &body["closed"][0]["cause"]), (200, &false.into(), &"refused".into()));
    let (status, body) = ask("shop/wbe/history");
    assert!(status == 404 && body["remedy"].as_str().is_some_and(|text| text.contains(DOWN)), "{body}");

    // What is known is told without the desk, and without the store.
    running.fake.silent.store(true, Ordering::Relaxed);
    let (status, body) = ask("shop/web/history");
    assert_eq!((status, body["deliveries"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
    assert!(body["faults"][0].as_str().is_some_and(|fault| fault.contains("the desk")), "{body}");
    running.fake.silent.store(false, Ordering::Relaxed);
    *running.fake.reader.lock().expect("it is free") = Some(Reader::new(folder.path().join("nothing")));
    let (status, body) = ask("shop/web/history");
    assert_eq!((status, &body["is_kept"]), (200, &false.into()));
    assert!(body["faults"][0].as_str().is_some_and(|fault| fault.contains("the store cannot be read")), "{body}");
}

#[test]
fn a_name_that_ends_like_a_history_is_a_name_where_nothing_else_is_meant() {
    let running = Running::new(Fake::new([DOWN, "a", "a/history", "b/history"].map(str::to_owned)));
    let ask = |path: &str| running.json(&format!("/api/v1/monitors/{path}")).1;
    assert_eq!(ask("b/history")["name"], "b/history");
    assert_eq!(ask("a/history")["monitor"], "a");
    assert_eq!(ask("a%2Fhistory")["name"], "a/history");
    assert_eq!(ask("a/history/history")["monitor"], "a/history");
}
