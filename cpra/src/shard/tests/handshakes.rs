//! Many handshakes at once: a step makes some of them, and the wait of the others is nobody's fault but ours.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{BEGIN, HostSample, monitor};
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::domain::{Check, Host, HostRef, TcpCheck};
use crate::queueing::Setup;
use crate::ring::{Completion, Op, OpKind};
use crate::shard::protocol::{Command, CommandKind};
use crate::shard::{Effect, Effects, Event, Settings, Shard};
use crate::units::limits::HANDSHAKES_PER_STEP_MAX;
use crate::units::{Generation, Instant, Slot, Span, Timestamp};
use crate::wire::tls::{Contexts, Failure, Session};
use crate::world::Catalog;

const CHECKS: usize = 3 * HANDSHAKES_PER_STEP_MAX + 1;
const TIMEOUT: Span = Span::from_millis(100);

/// Says hello, and never anything else.
#[derive(Debug)]
struct Greeting;

impl Contexts for Greeting {
    fn begin(
        &self,
        _: &TlsPolicy,
        _: Option<&ClientCertificate>,
        _: HostRef<'_>,
        _: SocketAddr,
    ) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(Hello(false)))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }
}

#[derive(Debug)]
struct Hello(bool);

impl Session for Hello {
    fn read(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn close(&mut self) {}

    fn drain(&mut self, ciphertext: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.0, true) {
            ciphertext.extend_from_slice(b"hello");
        }
    }

    fn is_established(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn may_be_refused(&self) -> bool {
        false
    }

    fn certificate_end(&self) -> Option<Timestamp> {
        None
    }

    fn judged_at(&self) -> Timestamp {
        Timestamp::default()
    }
}

struct Bench {
    shard: Shard,
    effects: Effects,
}

impl Bench {
    /// With every check's connect under way.
    fn new() -> (Self, Vec<(Slot, Generation)>) {
        let check = Check::Tcp(TcpCheck { tls: Some(TlsPolicy::default()), ..TcpCheck::default() });
        let host = Host::Literal("10.0.0.1".parse().expect("an address"));
        let monitors = (0..CHECKS).map(|index| {
            let mut monitor = monitor(&format!("monitor-{index}"), check.clone(), host.clone());
            monitor.policy.timeout = TIMEOUT;
            monitor
        });
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        let settings = Settings { shard: 0, sizing: Setup::fixed(CHECKS as u32), seed: 1 };
        let shard = Shard::new(&settings, Arc::clone(&catalog), BEGIN).secured_by(Arc::new(Greeting));
        let mut bench = Self { shard, effects: Effects::default() };
        let base = HostSample { taken: BEGIN, drops: 0, table_full: false };
        let mut events = vec![Event::HostSampled(base)];
        for monitor in (0..CHECKS).filter_map(|index| catalog.find(&format!("monitor-{index}"))) {
            for kind in [CommandKind::Enable { epoch: 1 }, CommandKind::CheckNow] {
                events.push(Event::Command(Command { monitor, kind }));
            }
        }
        bench.shard.step(BEGIN, &events, &mut bench.effects);
        let mut connects = Vec::new();
        for now in [BEGIN, BEGIN + Span::from_millis(1)] {
            bench.shard.step(now, &[], &mut bench.effects);
        }
        for effect in bench.effects.list.drain(..) {
            if let Effect::Submit { slot, generation, op: Op::Connect(_), .. } = effect {
                connects.push((slot, generation));
            }
        }
        assert_eq!(connects.len(), CHECKS);
        (bench, connects)
    }

    /// How many hellos a step has sent, and how many checks have been judged or given up.
    fn step(&mut self, now: Instant, events: &[Event<'_>]) -> (usize, usize) {
        self.effects.clear();
        self.shard.step(now, events, &mut self.effects);
        let ops = self.effects.list.iter().filter_map(|effect| match effect {
            Effect::Submit { op, .. } => Some(op.kind()),
            _ => None,
        });
        let ops: Vec<_> = ops.collect();
        let count = |kind| ops.iter().filter(|&&op| op == kind).count();
        (count(OpKind::Send), count(OpKind::Disconnect))
    }
}

fn connected<'a>(slots: &[(Slot, Generation)]) -> Vec<Event<'a>> {
    let connected = slots.iter().map(|&(slot, generation)| {
        let (kind, result, data) = (OpKind::Connect, Ok(0), &[][..]);
        Event::Completed(Completion {
            slot,
            generation,
            kind,
            result,
            more: false,
            local: false,
            data,
            handshake: None,
        })
    });
    connected.collect()
}

#[test]
fn a_step_makes_a_bounded_number_and_the_next_one_goes_on() {
    let (mut bench, slots) = Bench::new();
    let mut now = BEGIN + Span::from_millis(10);
    assert_eq!(bench.step(now, &connected(&slots)), (HANDSHAKES_PER_STEP_MAX, 0));
    let mut sent = HANDSHAKES_PER_STEP_MAX;
    while sent < CHECKS {
        assert!(bench.shard.next_deadline().is_some_and(|deadline| deadline <= now), "it does not sleep over them");
        now += Span::from_millis(5);
        let (more, given_up) = bench.step(now, &[]);
        assert_eq!((more, given_up), (HANDSHAKES_PER_STEP_MAX.min(CHECKS - sent), 0));
        sent += more;
    }
}

#[test]
fn what_lay_with_us_when_time_was_up_is_no_timeout() {
    let (mut bench, slots) = Bench::new();
    let now = BEGIN + Span::from_millis(10);
    assert_eq!(bench.step(now, &connected(&slots)).0, HANDSHAKES_PER_STEP_MAX);
    // Everyone's time is up: of those who were let wait, nobody is judged; of the others, all are.
    let now = BEGIN + TIMEOUT + Span::from_millis(50);
    assert_eq!(bench.step(now, &[]), (CHECKS - HANDSHAKES_PER_STEP_MAX, HANDSHAKES_PER_STEP_MAX));
    // They have as much time again as they were held up, and then the target is to blame.
    assert_eq!(bench.step(now + Span::from_millis(80), &[]), (0, 0));
    assert_eq!(bench.step(now + Span::from_millis(200), &[]), (0, CHECKS - HANDSHAKES_PER_STEP_MAX));
}
