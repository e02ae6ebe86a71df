//! What a shard makes of times that the kernel tells: our own delay is no part of a service, and what cannot be is left
//! alone.

use super::*;
use crate::domain::monitor::IcmpCheck;
use crate::probe::errand::Echo;
use crate::queueing::recording::Gathered;
use crate::ring::Handshake;

/// Microseconds after the beginning.
fn at(micros: u64) -> Instant {
    BEGIN + Span::from_micros(micros)
}

fn stamped(sent: u64, stood: u64) -> Option<Handshake> {
    Some(Handshake { sent: at(sent), stood: at(stood) })
}

impl Bench {
    fn connected(&mut self, handshake: Option<Handshake>) {
        let (slot, generation, kind, result) = (Slot(0), self.generation, OpKind::Connect, Ok(0));
        let done = Completion { slot, generation, kind, result, more: false, local: false, data: &[], handshake };
        self.step(vec![Event::Completed(done)]);
    }

    /// How long the one service took that has ended, in milliseconds, rounded.
    fn service(&mut self) -> f64 {
        let mut recording = self.shard.exchange_recording(Shard::empty_recording());
        let mut gathered = Gathered::default();
        gathered.take(&mut recording);
        let services: Vec<_> = gathered
            .series()
            .filter(|(tag, _)| tag.to_string().ends_with("service"))
            .map(|(_, times)| (times.count(), times.max()))
            .collect();
        let [(1, service)] = services[..] else { panic!("one service, not {services:?}") };
        service.round()
    }
}

#[test]
fn a_service_is_without_the_time_that_its_connect_lay_with_us() {
    // A connect that was handed over after 1 ms, stood after 3 ms, and was looked at after 50 ms.
    for (handshake, service, counted) in [(None, 50.0, 0), (stamped(1_000, 3_000), 2.0, 1)] {
        let mut bench = Bench::new(vec![tcp("db")]);
        bench.check("db");
        bench.pass(Span::from_millis(50));
        bench.connected(handshake);
        assert_eq!(bench.outcome("db"), Some(Code::L4Ok));
        assert_eq!((bench.service(), bench.shard.stats().connect_rtt.count()), (service, counted));
        // What depends on it: nothing. The attempt took as long as ever.
        assert_eq!(bench.shard.stats().duration[CheckKind::Tcp as usize].sum, Span::from_millis(50));
    }
}

#[test]
fn what_the_server_does_afterwards_is_service() {
    let mut bench = Bench::new(vec![http("web", false)]);
    bench.check("web");
    bench.pass(Span::from_millis(50));
    bench.connected(stamped(0, 3_000));
    bench.pass(Span::from_millis(20));
    bench.answer(&[(OpKind::Send, Ok(1), b""), (OpKind::Recv, Ok(ANSWER.len() as u32), ANSWER)]);
    assert_eq!(bench.outcome("web"), Some(Code::L7Ok));
    assert_eq!(bench.service(), 23.0);
    assert_eq!(bench.shard.stats().connect_rtt.sum, Span::from_millis(3));
}

#[test]
fn times_that_cannot_be_are_left_alone() {
    let hour = 3_600_000_000;
    // In the future, backwards.
    for handshake in [stamped(1_000, hour), stamped(hour, hour), stamped(3_000, 1_000)] {
        let mut bench = Bench::new(vec![tcp("db")]);
        bench.check("db");
        bench.pass(Span::from_millis(50));
        bench.connected(handshake);
        assert_eq!(bench.outcome("db"), Some(Code::L4Ok));
        assert_eq!((bench.service(), bench.shard.stats().connect_rtt.count()), (50.0, 0), "{handshake:?}");
    }
    // Of an older connect of the same slot; and of one that has failed.
    let mut bench = Bench::new(vec![tcp("db")]);
    bench.pass(Span::from_millis(50));
    bench.check("db");
    bench.pass(Span::from_millis(50));
    bench.connected(stamped(49_999, 60_000));
    assert_eq!((bench.service(), bench.shard.stats().connect_rtt.count()), (50.0, 0));
    bench.check("db");
    bench.pass(Span::from_millis(50));
    let (slot, generation, kind) = (Slot(0), bench.generation, OpKind::Connect);
    let (result, handshake) = (Err(Errno::ECONNREFUSED), stamped(110_000, 120_000));
    let done = Completion { slot, generation, kind, result, more: false, local: false, data: &[], handshake };
    bench.step(vec![Event::Completed(done)]);
    assert_eq!(bench.outcome("db"), Some(Code::L4Con));
    assert_eq!((bench.service(), bench.shard.stats().connect_rtt.count()), (50.0, 0));
}

#[test]
fn one_echo_takes_its_round_trip_and_several_the_gaps_between_them_too() {
    for (count, service) in [(1, 2.0), (2, 250.0)] {
        let check = IcmpCheck { count, max_loss: 0, max_rtt: None };
        let host = Host::Literal("10.0.0.3".parse().expect("an address"));
        let mut bench = Bench::new(vec![monitor("host", Check::Icmp(check), host)]);
        bench.check("host");
        bench.pass(Span::from_millis(250));
        let (slot, generation, echo) = (Slot(0), Generation(1), Echo::Reply { rtt: Span::from_millis(2) });
        let replies = (0..u16::from(count)).map(|sequence| Event::Echoed { slot, generation, sequence, echo });
        bench.step(replies.collect());
        assert_eq!((bench.outcome("host"), bench.service()), (Some(Code::L3Ok), service));
    }
}
