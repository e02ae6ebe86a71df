//! The plain prober: tokio on epoll, one thread, written as one would without thinking of cost. It bounds the figures
//! from above, and the reference loop must beat it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use cpra::units::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::pace::{Meter, Pace, Stopwatch};
use super::{Kind, Load, REQUEST_CLOSE, REQUEST_KEEP, child};

const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn run(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, probe(*load))
}

struct Shared {
    kind: Kind,
    destinations: Vec<SocketAddr>,
    next: Cell<usize>,
    idle: RefCell<Vec<TcpStream>>,
    in_flight: Cell<u32>,
    meter: RefCell<Meter>,
}

async fn probe(load: Load) -> anyhow::Result<()> {
    let destinations: Vec<SocketAddr> = load.destinations.all().map(Into::into).collect();
    let mut idle = Vec::new();
    if load.kind == Kind::KeepAlive {
        for index in 0..load.concurrency as usize {
            let address = destinations[index % destinations.len()];
            let stream = timeout(TIMEOUT, TcpStream::connect(address)).await?;
            idle.push(stream.with_context(|| format!("cannot connect to {address}"))?);
        }
    }
    let watch = Stopwatch::start();
    let start = watch.now();
    let shared = Rc::new(Shared {
        kind: load.kind,
        destinations,
        next: Cell::new(0),
        idle: RefCell::new(idle),
        in_flight: Cell::new(0),
        meter: RefCell::new(Meter::new(&load, start)),
    });
    if load.rate.is_some() {
        paced(&load, &watch, &shared).await;
    } else {
        saturated(&load, &watch, &shared).await;
    }
    // What is in flight ends within its timeout.
    while shared.in_flight.get() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let shared = Rc::into_inner(shared).context("a check is still there")?;
    shared.meter.into_inner().print(watch.now().since(start));
    Ok(())
}

async fn paced(load: &Load, watch: &Stopwatch, shared: &Rc<Shared>) {
    let mut pace = Pace::new(watch.now(), load.rate);
    loop {
        let now = watch.now();
        if !shared.meter.borrow_mut().turn(now) {
            return;
        }
        while shared.in_flight.get() < load.concurrency {
            let Some(due) = pace.take(now) else { break };
            shared.meter.borrow_mut().started(now, due);
            shared.in_flight.set(shared.in_flight.get() + 1);
            let shared = shared.clone();
            tokio::task::spawn_local(async move {
                check_counted(&shared).await;
                shared.in_flight.set(shared.in_flight.get() - 1);
            });
        }
        let closes = shared.meter.borrow().closes();
        let next = pace.next().unwrap_or(now).max(now + Span::from_millis(1)).min(closes);
        tokio::time::sleep(next.since(now).into()).await;
    }
}

async fn saturated(load: &Load, watch: &Stopwatch, shared: &Rc<Shared>) {
    let is_over = Rc::new(Cell::new(false));
    for _ in 0..load.concurrency {
        let (shared, is_over) = (shared.clone(), is_over.clone());
        shared.in_flight.set(shared.in_flight.get() + 1);
        tokio::task::spawn_local(async move {
            while !is_over.get() {
                check_counted(&shared).await;
            }
            shared.in_flight.set(shared.in_flight.get() - 1);
        });
    }
    while shared.meter.borrow_mut().turn(watch.now()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_over.set(true);
}

async fn check_counted(shared: &Shared) {
    let is_ok = timeout(TIMEOUT, check(shared)).await.is_ok_and(|result| result.is_ok());
    let mut meter = shared.meter.borrow_mut();
    meter.completed += 1;
    meter.failed += u64::from(!is_ok);
}

async fn check(shared: &Shared) -> std::io::Result<()> {
    let next = shared.next.replace(shared.next.get() + 1);
    let address = shared.destinations[next % shared.destinations.len()];
    match shared.kind {
        Kind::Tcp => TcpStream::connect(address).await.map(drop),
        Kind::Http => {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(REQUEST_CLOSE).await?;
            let mut answer = [0; 512];
            let mut length = 0;
            loop {
                match stream.read(&mut answer[length..]).await? {
                    0 => return verdict(&answer[..length]),
                    more => length += more,
                }
            }
        }
        Kind::KeepAlive => {
            let taken = shared.idle.borrow_mut().pop();
            let Some(mut stream) = taken else { return Err(std::io::ErrorKind::NotConnected.into()) };
            stream.write_all(REQUEST_KEEP).await?;
            let mut answer = [0; 512];
            let length = stream.read(&mut answer).await?;
            verdict(&answer[..length])?;
            shared.idle.borrow_mut().push(stream);
            Ok(())
        }
    }
}

fn verdict(answer: &[u8]) -> std::io::Result<()> {
    let is_ok = answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\r\n\r\nok");
    is_ok.then_some(()).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
