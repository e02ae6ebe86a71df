use super::*;
use crate::sim::network::{Behaviour, Target};

const GOOD: &str = "10.0.0.1:80";
const OTHER: &str = "10.0.0.2:80";
const DEAD: &str = "10.0.0.3:80";
const SHUT: &str = "10.0.0.4:80";
const WEB: &str = "10.0.0.5:80";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ring(seed: u64) -> SimRing {
    let mut network = Network::new();
    for (at, behaviour) in [
        (GOOD, Behaviour::Banner(b"good")),
        (OTHER, Behaviour::Banner(b"other")),
        (DEAD, Behaviour::Blackhole),
        (SHUT, Behaviour::Refused),
        (WEB, Behaviour::Up),
    ] {
        network.add([address(at)], Target::always(behaviour));
    }
    let mut ring = SimRing::new(network, seed);
    for slot in 0..2 {
        ring.open(Slot(slot), Family::V4).expect("there are descriptors");
    }
    ring
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    generation: u32,
    kind: OpKind,
    result: Result<u32, Errno>,
    more: bool,
    data: Vec<u8>,
}

/// Hands over what was submitted, waits a tenth of a second and takes what has completed.
fn run(ring: &mut SimRing) -> Vec<Seen> {
    ring.enter(Wait { batch: u32::MAX, bound: Span::from_millis(100) }).expect("the ring is whole");
    let mut seen = Vec::new();
    ring.reap(&mut |completion| {
        seen.push(Seen {
            generation: completion.generation.0,
            kind: completion.kind,
            result: completion.result,
            more: completion.more,
            data: completion.data.to_vec(),
        });
    });
    seen
}

fn connect(ring: &mut SimRing, slot: u32, generation: u32, to: &str) {
    ring.submit(Slot(slot), Generation(generation), &Op::Connect(address(to)), &[]);
}

fn submit(ring: &mut SimRing, slot: u32, generation: u32, op: &Op) {
    ring.submit(Slot(slot), Generation(generation), op, b"");
}

fn connected(ring: &mut SimRing, to: &str) {
    connect(ring, 0, 1, to);
    let seen = run(ring);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].kind, seen[0].result), (OpKind::Connect, Ok(0)));
}

fn received(seen: &[Seen], generation: u32) -> Vec<u8> {
    seen.iter()
        .filter(|seen| seen.kind == OpKind::Recv && seen.generation == generation)
        .flat_map(|seen| seen.data.iter().copied())
        .collect()
}

#[test]
fn an_early_reuse_gives_the_old_receive_the_new_bytes() {
    let mut ring = ring(1);
    connected(&mut ring, GOOD);
    submit(&mut ring, 0, 1, &Op::Recv);
    assert_eq!(received(&run(&mut ring), 1), b"good");
    submit(&mut ring, 0, 1, &Op::Disconnect);
    connect(&mut ring, 0, 2, OTHER);
    let seen = run(&mut ring);
    assert_eq!(received(&seen, 1), b"other", "{seen:?}");
    assert!(ring.violations()[0].contains("not quiet"), "{:?}", ring.violations());
}

#[test]
fn an_early_reuse_makes_a_dead_target_look_alive() {
    let mut ring = ring(2);
    connect(&mut ring, 0, 1, DEAD);
    assert!(run(&mut ring).is_empty());
    submit(&mut ring, 0, 1, &Op::Disconnect);
    connect(&mut ring, 0, 2, GOOD);
    let seen = run(&mut ring);
    let dead = seen.iter().find(|seen| seen.kind == OpKind::Connect && seen.generation == 1).expect("it completed");
    assert_eq!(dead.result, Ok(0), "the measured kernel says so too");
    assert!(ring.violations()[0].contains("one of its kind is pending"), "{:?}", ring.violations());
}

#[test]
fn a_disconnect_alone_ends_what_is_pending() {
    for seed in 0..20 {
        let mut ring = ring(seed);
        connect(&mut ring, 0, 1, DEAD);
        connect(&mut ring, 1, 1, GOOD);
        run(&mut ring);
        submit(&mut ring, 1, 1, &Op::Recv);
        run(&mut ring);
        submit(&mut ring, 0, 1, &Op::Disconnect);
        submit(&mut ring, 1, 1, &Op::Disconnect);
        let seen = run(&mut ring);
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert!(seen.iter().all(|seen| !seen.more && (seen.kind == OpKind::Disconnect || seen.result != Ok(1))));
        assert_eq!(ring.outstanding(), 0);
        connect(&mut ring, 0, 2, SHUT);
        connect(&mut ring, 1, 2, OTHER);
        let mut results: Vec<_> = run(&mut ring).into_iter().map(|seen| seen.result).collect();
        results.sort_by_key(Result::is_err);
        assert_eq!(results, [Ok(0), Err(Errno::ECONNREFUSED)]);
        assert!(ring.violations().is_empty(), "{:?}", ring.violations());
    }
}

#[test]
fn an_answer_arrives_whole_however_it_is_cut() {
    for seed in 0..50 {
        let mut ring = ring(seed);
        connected(&mut ring, WEB);
        submit(&mut ring, 0, 1, &Op::Recv);
        ring.submit(Slot(0), Generation(1), &Op::Send, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let seen = run(&mut ring);
        let bytes = received(&seen, 1);
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n\r\nabcdefghijkl"));
        let last = seen.iter().rfind(|seen| seen.kind == OpKind::Recv).expect("it received");
        assert_eq!((last.result, last.more), (Ok(0), false));
        let attempt = &ring.attempts()[0];
        assert_eq!(attempt.fate, Fate::Answered(200));
        assert!(attempt.settled_seen && attempt.connected_seen && attempt.path.as_deref() == Some("/"));
        assert!(ring.violations().is_empty(), "{:?}", ring.violations());
    }
}

#[test]
fn breaches_are_written_down() {
    let mut ring = ring(3);
    submit(&mut ring, 5, 1, &Op::Disconnect);
    submit(&mut ring, 0, 1, &Op::Send);
    connect(&mut ring, 1, 1, GOOD);
    run(&mut ring);
    submit(&mut ring, 1, 1, &Op::Disconnect);
    run(&mut ring);
    connect(&mut ring, 1, 1, GOOD);
    let text = ring.violations().join("\n");
    for breach in ["not opened", "not connected", "generation before"] {
        assert!(text.contains(breach), "{breach}: {text}");
    }
}

#[test]
fn a_refused_open_completes_what_is_submitted_with_its_error() {
    let mut ring = ring(4);
    ring.set_weather(Weather { open: Some(Errno::EMFILE), ..Weather::default() });
    assert_eq!(ring.open(Slot(7), Family::V4), Err(Errno::EMFILE));
    connect(&mut ring, 7, 1, GOOD);
    let seen = run(&mut ring);
    assert_eq!(seen[0].result, Err(Errno::EMFILE));
    ring.set_weather(Weather::default());
    ring.open(Slot(7), Family::V4).expect("there are descriptors again");
    connect(&mut ring, 7, 2, GOOD);
    assert_eq!(run(&mut ring)[0].result, Ok(0));
    assert!(ring.violations().is_empty(), "{:?}", ring.violations());
}

#[test]
fn one_seed_is_one_story() {
    let story = |seed| {
        let mut ring = ring(seed);
        connect(&mut ring, 0, 1, GOOD);
        connect(&mut ring, 1, 1, WEB);
        let mut seen = run(&mut ring);
        submit(&mut ring, 0, 1, &Op::Recv);
        submit(&mut ring, 1, 1, &Op::Recv);
        seen.extend(run(&mut ring));
        seen
    };
    assert_eq!(story(9), story(9));
    assert!((0..50).any(|seed| story(seed) != story(9)), "another seed may be another story");
}
