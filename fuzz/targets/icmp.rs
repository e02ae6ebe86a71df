//! Whatever a raw socket sees: ICMP messages, packets around them, errors that quote them.
//!
//! The first two bytes choose the direction and how much of one of our own requests stands in what is read; the rest is
//! the message, laid over it.

#![no_main]

use std::net::IpAddr;

use cpra::domain::monitor::IcmpCheck;
use cpra::domain::{Check, HostRef, TargetRef, Verdict};
use cpra::probe::errand::Echo;
use cpra::probe::{Ops, Probe, Request};
use cpra::ring::Family;
use cpra::units::{Generation, Instant, Slot, Span};
use cpra::wire::icmp::{self, Cookie, Key, MESSAGE};
use cpra::wire::tls::Unloaded;
use cpra_fuzz::{Feed, assert_fit, assert_sound, policy};
use libfuzzer_sys::fuzz_target;

const SEQUENCE: u16 = 1;
const COOKIE: Cookie = Cookie { slot: Slot(7), generation: Generation(3), sent: Instant::from_nanos(1_234_567_890) };

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed(bytes);
    let flavour = feed.byte();
    let family = if flavour & 1 == 0 { Family::V4 } else { Family::V6 };
    let address: IpAddr = match family {
        Family::V4 => [192, 0, 2, 1].into(),
        Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    let key = Key::new(b"what nobody can guess!");
    let asked = icmp::request(&key, address, SEQUENCE, &COOKIE);

    // What is read begins with nothing, a packet's header, or another error's, and then has our request in it, changed
    // where the input is not zero.
    let before = usize::from(feed.byte());
    let mut message = feed.take(before).to_vec();
    if flavour & 2 != 0 {
        let at = message.len();
        message.extend_from_slice(&asked);
        if flavour & 4 != 0 {
            message[at] = if family == Family::V4 { 0 } else { 129 };
        }
        let changes = feed.take(MESSAGE);
        for (byte, change) in message[at..].iter_mut().zip(changes) {
            *byte ^= change;
        }
        message.truncate(message.len() - usize::from(flavour >> 5).min(message.len()));
    }
    message.extend_from_slice(feed.0);

    let inner = if flavour & 8 != 0 { icmp::within_ipv4(&message) } else { Some(&message[..]) };
    let Some(inner) = inner else { return };
    assert!(inner.len() <= message.len());
    if flavour & 8 != 0 {
        assert!(inner.len() + 20 <= message.len(), "a header is at least 20 bytes");
    }
    let (found, wanted) = if flavour & 16 != 0 {
        (icmp::quoted(inner, family), if family == Family::V4 { 8 } else { 128 })
    } else {
        (icmp::reply(inner, family), if family == Family::V4 { 0 } else { 129 })
    };
    let opened = found.and_then(|echoed| echoed.open(&key, address).map(|cookie| (echoed.sequence, cookie)));
    if let Some(opened) = opened {
        // There is one request that was ever sent: what passes is that one, but for what the kernel writes.
        assert_eq!(opened, (SEQUENCE, COOKIE));
        assert_eq!((inner[0], inner[1]), (wanted, 0));
        assert_eq!(inner[6..MESSAGE], asked[6..MESSAGE]);
        assert!(flavour & 16 != 0 || inner.len() == MESSAGE, "a reply is as long as its request");
    }
    if let Some(echoed) = found {
        let other: IpAddr = [192, 0, 2, 2].into();
        assert_eq!(echoed.open(&key, other), None, "another address");
        assert_eq!(echoed.open(&Key::new(&[1; Key::SEED]), address), None, "another key");
    }
    judge(family, address, inner);
});

/// What the driver would have heard, as the probe judges it: the words of errors are chosen by whoever sends them.
fn judge(family: Family, address: IpAddr, heard: &[u8]) {
    let mut feed = Feed(heard);
    let count = feed.byte().clamp(1, 20);
    let check = IcmpCheck { count, max_loss: feed.byte().min(100), max_rtt: None };
    let policy = policy(Check::Icmp(check));
    let target = TargetRef { host: HostRef::Literal(address), port: 0, path: "" };
    let request = Request { policy: &policy, target, address: (address, 0).into(), hop: None, contexts: &Unloaded };
    let (mut ops, mut now) = (Ops::default(), Instant::ZERO);
    let mut probe = Probe::start(&request, now, &mut ops);
    let (mut asked, mut replies) = (ops.pings.len(), [false; 256]);
    let mut ended = None;
    while ended.is_none() && !feed.is_empty() {
        now += Span::from_millis(1);
        ops.clear();
        let sequence = u16::from(feed.byte());
        ended = match feed.byte() {
            kind @ 0..=200 => {
                let code = feed.byte();
                if let Some(words) = icmp::trouble(family, kind, code) {
                    assert_fit(words, 64);
                }
                let from = (code & 1 != 0).then_some(address);
                probe.echoed(&request, sequence, Echo::Error { kind, code, from }, now, &mut ops)
            }
            201..=240 => {
                // A reply to what was not asked is none.
                replies[usize::from(sequence)] |= usize::from(sequence) < asked;
                probe.echoed(&request, sequence, Echo::Reply { rtt: Span::from_micros(1) }, now, &mut ops)
            }
            _ => probe.woken(&request, now, &mut ops),
        };
        asked += ops.pings.len();
        assert!(asked <= usize::from(count), "no more requests than the check has");
    }
    let outcome = ended.map_or_else(|| probe.expire(&request, now), |judgement| judgement.outcome);
    assert_sound(&outcome);
    assert!(outcome.verdict() != Verdict::Ok || replies.contains(&true), "ok without a reply: {outcome:?}");
}
