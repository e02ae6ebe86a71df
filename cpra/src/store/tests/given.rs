//! Records as a desk writes them, and some that it should not.

use std::sync::Arc;

use fastrand::Rng;

use crate::desk::protocol::{
    Audit, Batch, BundleRecord, Delivered, DeliveryResult, EpisodeRecord, NoticeId, Record, Told,
};
use crate::domain::destination::{Provider, Slack};
use crate::domain::episode::{DownWhy, State};
use crate::domain::monitor::{About, Secret};
use crate::domain::notice::EpisodeId;
use crate::domain::{Code, Color, DeliveryKey, Destination, Incident, Notice, Raise};
use crate::units::{Span, Timestamp};

/// So few of everything that records meet.
const FEW: u64 = 6;

pub(super) fn batches(rng: &mut Rng, sequence: &mut u64) -> Vec<Batch> {
    let mut batches = Vec::new();
    for _ in 0..rng.usize(1..4) {
        *sequence += 1;
        let count = rng.usize(0..8);
        batches.push(Batch { sequence: *sequence, records: records(rng, count) });
    }
    batches
}

pub(super) fn records(rng: &mut Rng, count: usize) -> Vec<Record> {
    (0..count).map(|_| record(rng)).collect()
}

fn record(rng: &mut Rng) -> Record {
    let at = time(rng);
    let (id, episode) = (NoticeId(rng.u64(0..FEW)), EpisodeId(u128::from(rng.u64(0..FEW)) << 90));
    match rng.u8(0..13) {
        0 => Record::SeenOk { monitor: monitor(rng), definition: rng.u64(..) },
        1 | 2 => Record::Episode(Box::new(episode_record(rng, episode))),
        3 => Record::EpisodeClosed { episode, at },
        4 => Record::Bundle(Box::new(BundleRecord {
            id: episode,
            destination: destination(rng),
            group: rng.bool().then(|| "db".into()),
            opened: at,
            notices: rng.u32(..),
        })),
        5 => Record::BundleClosed { bundle: episode, at },
        6 | 7 => Record::NoticeQueued { id, notice: Box::new(notice(rng, episode)) },
        8 => {
            let result = DeliveryResult::ALL[rng.usize(..DeliveryResult::ALL.len())];
            Record::NoticeTried { id, at, delivered: Delivered::new(result, "202 it's \"done\"\0\u{1f600}") }
        }
        9 => Record::NoticeDone { id, at },
        10 => Record::NoticeDead { id, at, why: "403: no".into() },
        11 if rng.bool() => Record::Switched { monitor: monitor(rng), enabled: rng.bool() },
        11 => Record::SwitchForgotten { monitor: monitor(rng) },
        _ => Record::Audit(Audit { at, who: "uid 0".into(), what: "disable".into(), about: monitor(rng) }),
    }
}

fn episode_record(rng: &mut Rng, id: EpisodeId) -> EpisodeRecord {
    let states = [
        State::Degraded,
        State::Suspect,
        State::Waiting,
        State::Running,
        State::Verifying,
        State::Down(DownWhy::Exhausted),
        State::Down(DownWhy::Blocked),
        State::Unreachable,
        State::Unproven,
        State::Disabled,
        State::Unknown,
        State::Up,
    ];
    let told = (0..rng.usize(0..3)).map(|_| Told {
        destination: destination(rng),
        color: Color::ALL[rng.usize(..Color::ALL.len())],
        bundle: rng.bool().then(|| EpisodeId(rng.u128(..))),
    });
    let told = told.collect();
    EpisodeRecord {
        id,
        monitor: rng.bool().then(|| monitor(rng)),
        definition: rng.u64(..),
        state: states[rng.usize(..states.len())],
        opened: time(rng),
        cause: "connection refused, \"twice\"; ' -- \n".into(),
        yellow: rng.bool(),
        red: rng.bool(),
        reminders: rng.u32(..),
        told,
    }
}

fn notice(rng: &mut Rng, episode: EpisodeId) -> Notice {
    let name = monitor(rng);
    Notice {
        key: DeliveryKey {
            episode,
            raise: Raise::ALL[rng.usize(..Raise::ALL.len())],
            destination: destination(rng),
            n: rng.u32(..),
        },
        incident: Incident::new("här", &name, episode),
        monitor: None,
        monitor_name: name,
        color: Color::ALL[rng.usize(..Color::ALL.len())],
        summary: "503 in 0.4 ms".into(),
        outcome: rng.bool().then(|| Code::ALL[rng.usize(..Code::ALL.len())]),
        at: time(rng),
        lasted: if rng.bool() { Span::MAX } else { Span::from_nanos(rng.u64(..)) },
        groups: (0..rng.usize(0..3)).map(|n| format!("g{n}").into()).collect(),
        about: About {
            labels: (0..rng.usize(0..3)).map(|n| (format!("l{n}").into(), "v\u{0}".into())).collect(),
            description: rng.bool().then(|| "what it is".into()),
            runbook: rng.bool().then(|| "https://runbook.example/x".into()),
        },
        test: rng.bool(),
    }
}

fn destination(rng: &mut Rng) -> Arc<Destination> {
    let hook = Secret::new(format!("https://hooks.example/{}", rng.u8(0..3)));
    let slack = Slack { hook, channel: None, username: None };
    let destination =
        if rng.bool() { Destination::log(None) } else { Destination::new("chat", Provider::Slack(slack)) };
    Arc::new(destination)
}

fn monitor(rng: &mut Rng) -> Box<str> {
    ["web", "db/primary", "naïve \u{1f600}", "a'; DROP TABLE outbox; --", "", "zz"][rng.usize(..6)].into()
}

fn time(rng: &mut Rng) -> Timestamp {
    Timestamp::from_micros(rng.i64(..))
}

pub(super) fn queued(id: NoticeId) -> Record {
    Record::NoticeQueued { id, notice: Box::new(notice(&mut Rng::with_seed(5), EpisodeId(id.0.into()))) }
}

/// The whole of a short episode: one of `web-0` to `web-3`, told twice, closed, and its last notice dropped by a person.
pub(super) fn story(n: u64, at: Timestamp) -> Vec<Record> {
    let id = EpisodeId(u128::from(n) + 1);
    let name: Box<str> = format!("web-{}", n % 4).into();
    let destination = Arc::new(Destination::log(None));
    let mut rng = Rng::with_seed(n);
    let told = vec![Told { destination: Arc::clone(&destination), color: Color::Red, bundle: None }];
    let open =
        EpisodeRecord { monitor: Some(name.clone()), opened: at, red: true, told, ..episode_record(&mut rng, id) };
    let notice = Notice {
        key: DeliveryKey { episode: id, raise: Raise::Red, destination, n: 0 },
        incident: Incident::new("here", &name, id),
        monitor_name: name.clone(),
        ..notice(&mut rng, id)
    };
    let queued = NoticeId(1_000 + n);
    let later = Timestamp::from_micros(at.as_micros() + 500);
    let tried = |result| Record::NoticeTried { id: queued, at: later, delivered: Delivered::from(result) };
    vec![
        Record::Episode(Box::new(open)),
        Record::NoticeQueued { id: queued, notice: Box::new(notice) },
        tried(DeliveryResult::Failed),
        tried(DeliveryResult::Sent),
        Record::NoticeDone { id: queued, at: later },
        Record::EpisodeClosed { episode: id, at: later },
        Record::Audit(Audit { at: later, who: "uid 0".into(), what: "outbox drop".into(), about: name }),
    ]
}
