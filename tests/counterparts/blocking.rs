//! The plainest driver that can run a probe: one check at a time, on blocking sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use cpra::domain::{Check, Code, Codes, Host, HostRef, HttpCheck, Outcome, Policy, StatusSet, TargetRef};
use cpra::probe::{Judgement, Ops, Probe, Request, Then};
use cpra::ring::{Completion, Errno, Op, OpKind};
use cpra::units::limits::FIN_WAIT;
use cpra::units::{Generation, Instant, Slot, Span};
use nix::time::{ClockId, clock_gettime};

/// One check, as a monitor would have it.
#[derive(Clone, Debug)]
pub struct Monitored {
    pub address: SocketAddr,
    pub host: Host,
    pub path: Box<str>,
    pub policy: Policy,
}

/// Whatever can carry out a check: the blocking sockets below, or the whole engine.
pub trait Engine {
    fn check(&mut self, monitored: &Monitored) -> Outcome;
}

impl Monitored {
    /// `GET path`, expecting 200 to 299 within two seconds.
    pub fn get(address: SocketAddr, path: &str) -> Self {
        let check = HttpCheck {
            method: "GET".into(),
            headers: Box::new([]),
            body: Box::new([]),
            expected: StatusSet::success(),
            keep_alive: false,
        };
        let policy = Policy {
            check: Check::Http(check),
            interval: Span::from_secs(10),
            timeout: Span::from_secs(2),
            retry_interval: Span::from_secs(10),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            retries: 0,
            groups: Box::new([]),
            codes: Codes::default(),
        };
        Self { address, host: Host::Literal(address.ip()), path: path.into(), policy }
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut HttpCheck)) -> Self {
        if let Check::Http(check) = &mut self.policy.check {
            change(check);
        }
        self
    }

    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.policy.timeout = Span::from_nanos(u64::try_from(timeout.as_nanos()).expect("a short time"));
        self
    }

    fn request(&self) -> Request<'_> {
        let host = match &self.host {
            Host::Literal(address) => HostRef::Literal(IpAddr::clone(address)),
            Host::Name(name) => HostRef::Name(name),
        };
        let target = TargetRef { host, port: self.address.port(), path: &self.path };
        Request { policy: &self.policy, target, address: self.address }
    }
}

/// Keeps at most one connection, and asks again on a fresh one when a kept one gives no answer.
#[derive(Debug, Default)]
pub struct BlockingEngine {
    kept: Option<(SocketAddr, TcpStream)>,
    /// What the last attempt wanted done with its connection.
    pub then: Option<Then>,
    /// Whether the peer's FIN came where it was waited for.
    pub fin_came: bool,
    pub connects: u32,
    pub resumed: u32,
}

impl Engine for BlockingEngine {
    fn check(&mut self, monitored: &Monitored) -> Outcome {
        if let Some((_, stream)) = self.kept.take_if(|(address, _)| *address == monitored.address) {
            self.resumed += 1;
            let outcome = self.attempt(monitored, Some(stream));
            // A complete answer is a verdict on whatever connection it came.
            if matches!(outcome.code, Code::L7Ok | Code::L7Sts) {
                return outcome;
            }
        }
        self.attempt(monitored, None)
    }
}

fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    Instant::from_nanos(u64::try_from(Duration::from(time).as_nanos()).expect("centuries from now"))
}

/// `None` is the attempt's timeout.
fn errno_of(error: &std::io::Error) -> Option<Errno> {
    match error.kind() {
        ErrorKind::WouldBlock => None,
        // The standard library's own timeout of a connect has no error number.
        _ => error.raw_os_error().map(Errno),
    }
}

impl BlockingEngine {
    fn attempt(&mut self, monitored: &Monitored, kept: Option<TcpStream>) -> Outcome {
        let request = monitored.request();
        let deadline = now() + monitored.policy.timeout;
        let (mut ops, mut stream) = (Ops::default(), kept);
        let mut receiving = stream.is_some();
        let mut probe = match stream {
            Some(_) => Probe::resume(&request, now(), &mut ops),
            None => Probe::start(&request, now(), &mut ops),
        };
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let (list, bytes) = (std::mem::take(&mut ops.list), std::mem::take(&mut ops.bytes));
            let work = if list.is_empty() && receiving { vec![Op::Recv] } else { list };
            assert!(!work.is_empty(), "a probe that is not judged waits for something");
            for op in work {
                // A peer that sends byte after byte is not given more time by each of them.
                let left = Duration::from(deadline.since(now()));
                if left.is_zero() {
                    return probe.expire(&request, now());
                }
                let (kind, mut data) = (op.kind(), &[][..]);
                let result = match op {
                    Op::Connect(address) => {
                        self.connects += 1;
                        TcpStream::connect_timeout(&address, left).map(|connected| {
                            stream = Some(connected);
                            0
                        })
                    }
                    Op::Send => {
                        let stream = stream.as_mut().expect("connected");
                        stream.set_write_timeout(Some(left)).expect("a timeout above zero");
                        stream.write_all(&bytes).map(|()| bytes.len())
                    }
                    Op::Recv => {
                        let stream = stream.as_mut().expect("connected");
                        stream.set_read_timeout(Some(left)).expect("a timeout above zero");
                        stream.read(&mut buffer).inspect(|&length| data = &buffer[..length])
                    }
                    Op::Disconnect => unreachable!("the engine disconnects, not the probe"),
                };
                let result = match result {
                    Ok(length) => Ok(u32::try_from(length).expect("a buffer's length")),
                    Err(error) => match errno_of(&error) {
                        Some(errno) => Err(errno),
                        None => return probe.expire(&request, now()),
                    },
                };
                if kind == OpKind::Recv {
                    receiving = result.is_ok_and(|length| length > 0);
                }
                let more = kind == OpKind::Recv && receiving;
                let completion =
                    Completion { slot: Slot(0), generation: Generation(0), kind, result, more, local: false, data };
                if let Some(judgement) = probe.on(&request, &completion, now(), &mut ops) {
                    return self.finish(judgement, stream, monitored.address);
                }
            }
        }
    }

    fn finish(&mut self, judgement: Judgement, stream: Option<TcpStream>, address: SocketAddr) -> Outcome {
        self.then = Some(judgement.then);
        match (judgement.then, stream) {
            (Then::Keep, Some(stream)) => self.kept = Some((address, stream)),
            (Then::AwaitFin, Some(mut stream)) => {
                stream.set_read_timeout(Some(FIN_WAIT.into())).expect("a timeout above zero");
                self.fin_came = matches!(stream.read(&mut [0; 16]), Ok(0));
            }
            _ => {}
        }
        judgement.outcome
    }
}
