//! The sockets on the loopback, where a reply is there before the request's call has returned.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

#[allow(clippy::duplicate_mod, reason = "the tests of more than one room want it")]
#[path = "../../../../tests/support/mod.rs"]
mod support;

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// With sockets for both families, or a skip.
fn pinger(test: &str) -> Option<Pinger> {
    let mut pinger = Pinger::new().expect("there are random bytes");
    if pinger.open() == [Means::Raw; 2] {
        return Some(pinger);
    }
    support::skip(test, "needs raw sockets of both families");
    None
}

fn ping(slot: u32, address: IpAddr, sequence: u16) -> Ping {
    Ping { slot: Slot(slot), generation: Generation(slot + 1), address, sequence }
}

/// Everything that comes within a moment, as slot, generation, sequence number and what it is.
fn heard(pinger: &mut Pinger, count: usize) -> Vec<(u32, u32, u16, Echo)> {
    let mut events = Vec::new();
    pinger.send(&mut None, &mut events);
    let until = Clock.now() + Span::from_secs(5);
    while events.len() < count && Clock.now() < until {
        pinger.receive(&mut events);
    }
    let echo = |event| match event {
        Event::Echoed { slot, generation, sequence, echo } => (slot.0, generation.0, sequence, echo),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(echo).collect()
}

#[test]
fn requests_come_back_to_whom_they_belong() {
    let Some(mut pinger) = pinger("requests_come_back_to_whom_they_belong") else { return };
    // More than two batches of each family, mixed.
    let pings: Vec<_> = (0..300_u16).map(|n| ping(u32::from(n), LOOPBACKS[usize::from(n % 2)], n * 7)).collect();
    pings.iter().for_each(|&ping| pinger.push(ping));
    let mut heard = heard(&mut pinger, pings.len());
    heard.sort_by_key(|echo| echo.0);
    assert_eq!(heard.len(), pings.len());
    for (ping, (slot, generation, sequence, echo)) in pings.iter().zip(heard) {
        assert_eq!((slot, generation, sequence), (ping.slot.0, ping.generation.0, ping.sequence));
        let Echo::Reply { rtt } = echo else { panic!("{echo:?}") };
        assert!(rtt > Span::ZERO && rtt < Span::from_secs(1), "{rtt}");
    }
    let stats = pinger.stats();
    assert_eq!((stats.sent, stats.received, stats.forged, pinger.dropped()), (300, 300, 0, 0));
}

#[test]
fn the_kernel_keeps_the_replies_of_others_out() {
    let Some(mut mine) = pinger("the_kernel_keeps_the_replies_of_others_out") else { return };
    let Some(mut other) = pinger("the_kernel_keeps_the_replies_of_others_out") else { return };
    for address in LOOPBACKS {
        (0..50).for_each(|n| other.push(ping(n, address, 0)));
    }
    assert_eq!(heard(&mut other, 100).len(), 100);
    for socket in mine.sockets() {
        // Not even to be thrown away: nothing was delivered.
        assert_eq!(batch::receive(socket, &mut Arrivals::default()), Err(Errno::EAGAIN));
    }
    assert!(heard(&mut mine, 0).is_empty());
    assert_eq!(mine.stats(), EchoStats::default());
}

#[test]
fn what_was_never_opened_says_so() {
    let mut pinger = Pinger::new().expect("there are random bytes");
    assert_eq!(pinger.sockets().count(), 0);
    pinger.push(ping(3, LOOPBACKS[0], 9));
    assert_eq!(heard(&mut pinger, 1), [(3, 4, 9, Echo::NoSocket(Errno::EINVAL))]);
}

#[test]
fn receive_times_are_put_on_the_other_clock() {
    let now = Instant::from_nanos(5_000_000_000);
    let clocks = Clocks { now, wall_nanos: 1_700_000_000_000_000_000 };
    let cases = [
        (Some(0), 0),
        (Some(-250_000), 250_000),
        (Some(-999_000_000), 999_000_000),
        // The wall clock was set meanwhile, forwards or back.
        (Some(-3_600_000_000_000), 0),
        (Some(3_600_000_000_000), 0),
        (None, 0),
    ];
    for (offset, age) in cases {
        let at = clocks.monotonic_of(offset.map(|offset: i64| clocks.wall_nanos + offset));
        assert_eq!(now.since(at).as_nanos(), age, "{offset:?}");
    }
    clocks.monotonic_of(Some(i64::MIN));
    clocks.monotonic_of(Some(i64::MAX));
}

#[test]
fn only_what_the_network_says_is_an_icmp_error() {
    let error = |origin| libc::sock_extended_err {
        ee_errno: 113,
        ee_origin: origin,
        ee_type: 3,
        ee_code: 1,
        ee_pad: 0,
        ee_info: 0,
        ee_data: 0,
    };
    let router = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([192, 0, 2, 254]) },
        sin_zero: [0; 8],
    };
    let nobody = libc::sockaddr_in { sin_family: libc::AF_UNSPEC as libc::sa_family_t, ..router };
    let cases = [
        (2, Some(router), Some((3, 1, Some(IpAddr::from([192, 0, 2, 254]))))),
        (2, Some(nobody), Some((3, 1, None))),
        (2, None, Some((3, 1, None))),
        // The host itself, a timestamp.
        (1, Some(router), None),
        (4, None, None),
    ];
    for (origin, from, expected) in cases {
        let control = ControlMessageOwned::Ipv4RecvErr(error(origin), from);
        assert_eq!(icmp_error(&control), expected, "origin {origin}");
    }
}
