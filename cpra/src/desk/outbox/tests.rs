//! The outbox by itself.

use super::*;
use crate::desk::protocol::Selection;
use crate::domain::destination::{Pace, Slack};
use crate::domain::monitor::About;
use crate::domain::monitor::Secret;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, DeliveryKey, Incident, Provider};
use crate::units::limits::{DELIVERY_PAUSE_MAX, PAUSE_MAX, PROBE_AFTER, THROTTLE_PAUSE_MIN};
use crate::units::{MonitorId, Timestamp};

const DURABLE: Durability = Durability { durable: u64::MAX, silent_since: None };

fn at(secs: u64) -> Instant {
    Instant::ZERO + Span::from_secs(secs)
}

fn notice(monitor: u32, episode: u128, raise: Raise) -> Box<Notice> {
    notice_for(None, monitor, episode, raise)
}

fn notice_for(file: Option<u32>, monitor: u32, episode: u128, raise: Raise) -> Box<Notice> {
    let episode = EpisodeId(episode);
    let destination = Arc::new(Destination::log(file.map(|file| file.to_string().into())));
    Box::new(Notice {
        key: DeliveryKey { episode, raise, destination, n: 0 },
        incident: Incident::new("test", "web", episode),
        monitor: Some(MonitorId::new(0, monitor)),
        monitor_name: format!("web{monitor}").into(),
        color: if raise == Raise::Resolve { Color::Green } else { Color::Red },
        summary: "".into(),
        outcome: None,
        at: Timestamp::default(),
        lasted: Span::ZERO,
        groups: Box::default(),
        about: About::default(),
        test: false,
    })
}

/// Whether it is done by that.
fn end(outbox: &mut Outbox, id: NoticeId, result: DeliveryResult, now: Instant) -> bool {
    matches!(outbox.finished(id, result.into(), now, &mut fastrand::Rng::with_seed(id.0)), Some(End::Done(_)))
}

fn underway(outbox: &Outbox) -> Vec<NoticeId> {
    outbox.entries.iter().filter(|(_, entry)| entry.place == Place::Outstanding).map(|(id, _)| *id).collect()
}

fn leaving(outbox: &mut Outbox, now: Instant) -> Vec<NoticeId> {
    std::iter::from_fn(|| outbox.depart(now, DURABLE, 100)).map(|departure| departure.id).collect()
}

#[test]
fn a_resolve_never_overtakes_the_raise_that_nobody_took() {
    let mut outbox = Outbox::default();
    let raise = outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
    assert_eq!(leaving(&mut outbox, at(0)), [raise]);
    let resolve = outbox.add(notice(0, 1, Raise::Resolve), 2, at(0), at(0));
    let other = outbox.add(notice(1, 2, Raise::Red), 2, at(0), at(0));
    assert_eq!(leaving(&mut outbox, at(0)), [other], "another monitor need not wait");
    assert!(!end(&mut outbox, raise, DeliveryResult::Failed, at(0)));
    assert_eq!((leaving(&mut outbox, at(0)), outbox.waiting()), (vec![], 2));
    assert_eq!(leaving(&mut outbox, at(2)), [raise]);
    assert!(!end(&mut outbox, raise, DeliveryResult::Failed, at(2)));
    // News ends the pause, but not the order: not even of another episode.
    let again = outbox.add(notice(0, 3, Raise::Red), 3, at(2), at(2));
    assert_eq!(leaving(&mut outbox, at(2)), [raise]);
    for (done, next) in [(raise, resolve), (resolve, again)] {
        assert!(end(&mut outbox, done, DeliveryResult::Sent, at(2)));
        assert_eq!(leaving(&mut outbox, at(2)), [next]);
    }
}

#[test]
fn a_resolve_waits_for_a_raise_that_is_held() {
    let mut outbox = Outbox::default();
    let raise = outbox.add(notice(0, 1, Raise::Red), 1, at(10), at(1));
    // The hold is over, and nobody has looked since.
    let resolve = outbox.add(notice(0, 1, Raise::Resolve), 2, at(10), at(11));
    assert_eq!(leaving(&mut outbox, at(11)), [raise]);
    assert!(end(&mut outbox, raise, DeliveryResult::Sent, at(11)));
    assert_eq!(leaving(&mut outbox, at(11)), [resolve]);
    assert!(end(&mut outbox, resolve, DeliveryResult::Sent, at(11)));
    assert!(outbox.posts.iter().all(|post| post.lines.is_empty()), "what is done leaves nothing behind");
}

#[test]
fn a_silent_store_is_no_reason_to_wake_up_without_room() {
    let mut outbox = Outbox::default();
    let stuck = Durability { durable: 0, silent_since: Some(at(0)) };
    outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
    outbox.add(notice(1, 2, Raise::Red), 1, at(0), at(0));
    assert!(outbox.depart(at(0), stuck, 1).is_none());
    assert_eq!(outbox.next_deadline(stuck, 1), Some(at(0) + COMMIT_PATIENCE));
    assert!(outbox.depart(at(5), stuck, 1).is_some_and(|departure| !departure.durable));
    assert!(outbox.depart(at(5), stuck, 1).is_none());
    assert_eq!(outbox.next_deadline(stuck, 1), None);
}

/// Leaves with this capacity, by destination.
fn leaving_for(outbox: &mut Outbox, capacity: usize) -> BTreeMap<Arc<Destination>, Vec<NoticeId>> {
    let mut left: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(departure) = outbox.depart(at(0), DURABLE, capacity) {
        left.entry(Arc::clone(&departure.notice.key.destination)).or_default().push(departure.id);
    }
    left
}

#[test]
fn those_that_take_nothing_leave_room_for_the_others() {
    const CAPACITY: usize = 1_000;
    let mut outbox = Outbox::default();
    let mut monitor = 0;
    let mut add = |outbox: &mut Outbox, file: u32, count: usize| {
        for _ in 0..count {
            monitor += 1;
            outbox.add(notice_for(Some(file), monitor, 1, Raise::Red), 1, at(0), at(0));
        }
    };
    // Sixty hang, one after the other, each with more than there is room for altogether.
    for file in 0..60 {
        add(&mut outbox, file, 2_000);
        let left = leaving_for(&mut outbox, CAPACITY);
        assert_eq!(left.len(), 1, "each gets something");
        assert!(left.values().all(|ids| ids.len() <= CAPACITY / OUTSTANDING_SHARE));
    }
    let hung = outbox.outstanding();
    assert!(hung < CAPACITY, "{hung}");
    // Another one has all of its notices taken, in order, round by round, and nothing of the hung ones is looked at.
    add(&mut outbox, 99, 5_000);
    let mut taken = Vec::new();
    for _ in 0..5_000 {
        let left = leaving_for(&mut outbox, CAPACITY);
        for id in left.into_values().flatten() {
            taken.push(id);
            assert!(end(&mut outbox, id, DeliveryResult::Sent, at(0)));
        }
    }
    assert_eq!((taken.len(), outbox.outstanding()), (5_000, hung));
    assert!(taken.is_sorted());

    // They take again, in any order: each of them has its notices in order, and nothing remains.
    let mut seen: BTreeMap<Arc<Destination>, Vec<NoticeId>> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(4);
    while outbox.outstanding() > 0 {
        let ids: Vec<NoticeId> = underway(&outbox);
        for id in ids.into_iter().filter(|_| random.bool()) {
            seen.entry(Arc::clone(&outbox.entries[&id].notice.key.destination)).or_default().push(id);
            assert!(end(&mut outbox, id, DeliveryResult::Sent, at(0)));
        }
        leaving_for(&mut outbox, CAPACITY);
        assert!(outbox.outstanding() <= CAPACITY);
    }
    assert_eq!((seen.values().map(Vec::len).sum::<usize>(), outbox.waiting()), (60 * 2_000, 0));
    assert!(outbox.turns.is_empty() && outbox.posts.iter().all(|post| post.lines.is_empty() && post.outstanding == 0));
}

#[test]
fn what_was_parked_passes_the_gate_again() {
    let mut outbox = Outbox::default();
    let stuck = Durability { durable: 0, silent_since: Some(at(0)) };
    for monitor in 0..3 {
        outbox.add(notice(monitor, 1, Raise::Red), 1 + u64::from(monitor), at(0), at(0));
    }
    // One at a time with so little room; the other two are parked while the store is silent.
    let first = outbox.depart(at(5), stuck, 4).map(|departure| departure.id);
    assert!(first.is_some() && outbox.depart(at(5), stuck, 4).is_none());
    assert_eq!(outbox.waiting(), 2);
    assert!(end(&mut outbox, first.unwrap(), DeliveryResult::Sent, at(5)));
    // The store speaks again, and is behind: nothing leaves that is not durable.
    let behind = Durability { durable: 1, silent_since: Some(at(5)) };
    assert!(outbox.depart(at(6), behind, 4).is_none());
    assert_eq!(outbox.next_deadline(behind, 4), Some(at(5) + COMMIT_PATIENCE), "it is waited for");
    let caught_up = Durability { durable: 2, silent_since: None };
    assert!(outbox.depart(at(6), caught_up, 4).is_some_and(|departure| departure.durable));
}

/// To a chat that takes one at a time, one a second, three at once after a pause.
fn chat(monitor: u32, raise: Raise) -> Box<Notice> {
    let slack = Slack { hook: Secret::new("https://hooks.example/x"), channel: None, username: None };
    let mut notice = notice(monitor, 1, raise);
    notice.key.destination = Arc::new(Destination::new("chat", Provider::Slack(slack)));
    notice
}

#[test]
fn who_must_wait_holds_up_nobody_and_is_woken_exactly_when_it_may_go_on() {
    let mut outbox = Outbox::default();
    for monitor in 0..5 {
        outbox.add(chat(monitor, Raise::Red), 1, at(0), at(0));
    }
    let mut now = at(0);
    let mut left = Vec::new();
    for _ in 0..20 {
        for id in leaving(&mut outbox, now) {
            left.push(now);
            assert!(end(&mut outbox, id, DeliveryResult::Sent, now));
        }
        // With one at a time, the end of one is what the next one waits for.
        if left.len() == 5 {
            break;
        }
        if let Some(next) = outbox.next_deadline(DURABLE, 100).filter(|_| outbox.turns.is_empty()) {
            assert!(next > now, "it would spin");
            now = next;
        }
    }
    assert_eq!(left, [at(0), at(0), at(0), at(1), at(2)]);
    outbox.add(chat(7, Raise::Red), 1, at(2), at(2));
    let log = outbox.add(notice(8, 1, Raise::Red), 1, at(2), at(2));
    assert_eq!(leaving(&mut outbox, at(2)), [log], "another destination has its own pace");
    assert_eq!(outbox.next_deadline(DURABLE, 100), Some(at(3)));
}

#[test]
fn a_destination_that_asks_for_a_pause_gets_it_whole() {
    let mut outbox = Outbox::default();
    let mut random = fastrand::Rng::with_seed(1);
    let first = outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
    assert_eq!(leaving(&mut outbox, at(0)), [first]);
    let after = Span::from_secs(17);
    let throttled = Delivered { after: Some(after), ..DeliveryResult::Failed.into() };
    assert!(matches!(outbox.finished(first, throttled, at(0), &mut random), Some(End::Again)));
    let second = outbox.add(notice(1, 1, Raise::Red), 1, at(1), at(1));
    assert_eq!((leaving(&mut outbox, at(16)), outbox.next_deadline(DURABLE, 100)), (vec![], Some(at(17))));
    assert_eq!(leaving(&mut outbox, at(17)), [first, second], "the one that had its turn goes first");
    assert!(after < PAUSE_MAX && after < THROTTLE_PAUSE_MIN);
}

#[test]
fn hundreds_are_not_tried_where_nothing_arrives_and_all_are_when_it_does() {
    const COUNT: u32 = 300;
    let mut outbox = Outbox::default();
    for monitor in 0..COUNT {
        outbox.add(notice(monitor, 1, Raise::Red), 1, at(0), at(0));
    }
    let mut now = at(0);
    let mut attempts = 0;
    while now < at(3_600) {
        // As many as are out before the first has failed.
        for id in std::iter::from_fn(|| outbox.depart(now, DURABLE, 64)).map(|left| left.id).collect::<Vec<_>>() {
            attempts += 1;
            assert!(!end(&mut outbox, id, DeliveryResult::Failed, now));
        }
        match outbox.next_deadline(DURABLE, 64) {
            Some(next) => now = now.max(next),
            None => panic!("nobody would try again"),
        }
    }
    assert!((10..40).contains(&attempts), "{attempts} attempts in an hour");
    let mut probe = Vec::new();
    while probe.is_empty() {
        now = now.max(outbox.next_deadline(DURABLE, 10_000).unwrap_or(now));
        probe.extend(std::iter::from_fn(|| outbox.depart(now, DURABLE, 10_000)).map(|left| left.id));
    }
    assert_eq!(probe.len(), 1);
    assert!(end(&mut outbox, probe[0], DeliveryResult::Sent, now));
    let mut rest = 0;
    while let Some(left) = outbox.depart(now, DURABLE, 10_000) {
        rest += 1;
        assert!(end(&mut outbox, left.id, DeliveryResult::Sent, now));
    }
    assert_eq!((rest, outbox.waiting(), outbox.pausing), (COUNT - 1, 0, 0), "none waits out its own pause");
    const { assert!(PROBE_AFTER < 10) };
}

#[test]
fn a_notice_pauses_longer_each_time_and_news_ends_its_pause() {
    let mut outbox = Outbox::default();
    let mut random = fastrand::Rng::with_seed(1);
    let id = outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
    assert_eq!(leaving(&mut outbox, at(0)), [id]);
    let (mut now, mut pause) = (at(0), Span::from_secs(1));
    for _ in 0..12 {
        assert!(matches!(outbox.finished(id, DeliveryResult::Failed.into(), now, &mut random), Some(End::Again)));
        let failed = now;
        while leaving(&mut outbox, now).is_empty() {
            now = outbox.next_deadline(DURABLE, 100).expect("it comes again");
        }
        let paused = now.since(failed);
        assert!(paused >= pause && paused <= pause.scaled(5, 4), "{paused} instead of {pause}");
        pause = pause.scaled(2, 1).min(DELIVERY_PAUSE_MAX);
    }
    assert!(matches!(outbox.finished(id, DeliveryResult::Failed.into(), now, &mut random), Some(End::Again)));
    let news = outbox.add(notice(0, 1, Raise::Resolve), 1, now, now);
    while leaving(&mut outbox, now).is_empty() {
        now = outbox.next_deadline(DURABLE, 100).expect("both are tried at once");
    }
    assert_eq!(underway(&outbox), [id]);
    assert!(end(&mut outbox, id, DeliveryResult::Sent, now));
    assert_eq!(leaving(&mut outbox, now), [news]);
}

#[test]
fn a_dead_one_lets_the_next_one_pass_and_comes_back_when_a_person_says_so() {
    let mut outbox = Outbox::default();
    let mut random = fastrand::Rng::with_seed(1);
    let raise = outbox.add(notice(0, 1, Raise::Red), 1, at(0), at(0));
    let resolve = outbox.add(notice(0, 1, Raise::Resolve), 1, at(0), at(0));
    assert_eq!(leaving(&mut outbox, at(0)), [raise]);
    let refused = Delivered::new(DeliveryResult::Refused, "no_service");
    let dead = outbox.finished(raise, refused, at(0), &mut random);
    assert!(matches!(dead, Some(End::Dead { why, .. }) if &*why == "no_service"));
    assert_eq!(leaving(&mut outbox, at(0)), [resolve]);
    assert_eq!((outbox.counts(), outbox.selected(&Selection::Dead).count()), ([0, 1, 0, 1], 1));
    assert!(outbox.retry(raise, 9, at(5)).is_some());
    assert_eq!(leaving(&mut outbox, at(5)), [], "in its line like any other");
    assert!(end(&mut outbox, resolve, DeliveryResult::Sent, at(5)));
    assert_eq!(leaving(&mut outbox, at(5)), [raise]);
    assert!(end(&mut outbox, raise, DeliveryResult::Sent, at(5)));
    assert!(matches!(outbox.find(raise), Some((entry, None)) if entry.attempts == 2));
}

#[test]
fn what_may_have_arrived_is_tried_twice_more_and_what_fails_for_a_day_is_dead() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut outbox = Outbox::default();
    let mut deaths = Vec::new();
    for result in [DeliveryResult::Unsure, DeliveryResult::Failed] {
        let id = outbox.add(notice(result as u32, 1, Raise::Red), 1, at(0), at(0));
        let (mut now, mut attempts) = (at(0), 0);
        loop {
            if leaving(&mut outbox, now) == [id] {
                attempts += 1;
                if let Some(End::Dead { .. }) = outbox.finished(id, result.into(), now, &mut random) {
                    break;
                }
            }
            now = now.max(outbox.next_deadline(DURABLE, 100).expect("it comes again"));
        }
        deaths.push((attempts, now.since(at(0)).as_secs() / 3_600));
        outbox = Outbox::default();
    }
    assert_eq!(deaths[0], (3, 0));
    assert!(deaths[1].0 > 200 && deaths[1].1 == 24, "{deaths:?}");
}

#[test]
fn what_a_person_drops_is_gone_and_what_is_on_its_way_is_not_tried_again() {
    let mut outbox = Outbox::default();
    let ids: Vec<_> = [Raise::Yellow, Raise::Red, Raise::Resolve]
        .map(|raise| outbox.add(notice(0, 1, raise), 1, at(0), at(0)))
        .into();
    assert_eq!(leaving(&mut outbox, at(0)), [ids[0]]);
    assert!(outbox.drop_one(ids[1], at(0)) && outbox.drop_one(ids[0], at(0)));
    assert!(!outbox.drop_one(ids[0], at(0)) && !outbox.drop_one(NoticeId(99), at(0)));
    assert!(end(&mut outbox, ids[0], DeliveryResult::Failed, at(0)), "as far as anyone cares");
    assert_eq!(leaving(&mut outbox, at(0)), [ids[2]]);
    assert!(end(&mut outbox, ids[2], DeliveryResult::Sent, at(0)));
    assert_eq!((outbox.waiting(), outbox.outstanding(), outbox.oldest()), (0, 0, None));
}

#[test]
fn pace_of_one_destination_is_its_own() {
    let mut slow = Destination::log(None);
    slow.pace = Pace { concurrency: 2, every: Span::ZERO, burst: 1, ..slow.pace };
    let mut outbox = Outbox::default();
    for monitor in 0..5 {
        let mut notice = notice(monitor, 1, Raise::Red);
        notice.key.destination = Arc::new(slow.clone());
        outbox.add(notice, 1, at(0), at(0));
    }
    assert_eq!(leaving(&mut outbox, at(0)).len(), 2);
    let first = underway(&outbox)[0];
    assert!(end(&mut outbox, first, DeliveryResult::Sent, at(0)));
    assert_eq!((leaving(&mut outbox, at(0)).len(), outbox.next_deadline(DURABLE, 100)), (1, None));
}
