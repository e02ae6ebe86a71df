//! Many servers in one thread, whose manners can be changed while they run.
//!
//! Each has an address of its own (127.1.0.1, 127.1.0.2, ...) and all have one port. A server answers each request with `ok`
//! after the crowd's delay, or says nothing, or does not even take connections. It keeps a connection whose request does not
//! ask for its end.
//!
//! One epoll and one heap of answers that are not due yet; it is to cost little beside the daemon that it is measured with.
//! Delays are rounded up to a millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use cpra::os::clock::Clock;
use cpra::units::{Instant, Span};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Backlog, listen};

/// What a server does when it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Answers, after the delay.
    Answers,
    /// Takes connections and requests, and never says a word.
    Silent,
    /// Takes no connections: the kernel drops what asks for one.
    Deaf,
}

impl Manners {
    const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Answers,
            1 => Self::Silent,
            _ => Self::Deaf,
        }
    }
}

/// The servers; they end with this value.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    delay_us: AtomicU64,
    manners: Box<[AtomicU8]>,
    /// Requests to each.
    asked: Box<[AtomicU64]>,
    stop: AtomicBool,
    /// Manners have changed, or it is to stop.
    bell: EventFd,
}

impl Crowd {
    /// Servers that answer at once.
    ///
    /// # Errors
    /// If sockets cannot be had.
    pub fn start(servers: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            delay_us: AtomicU64::new(0),
            manners: (0..servers).map(|_| AtomicU8::new(Manners::Answers as u8)).collect(),
            asked: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
            bell: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        });
        let (port, listeners) = listeners(servers)?;
        let mut serving = Serving::new(Arc::clone(&shared), listeners)?;
        let thread = thread::Builder::new().name("crowd".into()).spawn(move || serving.run().expect("epoll works"))?;
        Ok(Self { shared, port, thread: Some(thread) })
    }

    pub fn address(&self, server: usize) -> SocketAddr {
        (address_of(server), self.port).into()
    }

    pub fn len(&self) -> usize {
        self.shared.manners.len()
    }

    /// From a request to its answer, for those that come from now on.
    pub fn set_delay(&self, delay: Span) {
        self.shared.delay_us.store(delay.as_micros(), Ordering::Relaxed);
    }

    pub fn behave(&self, servers: Range<usize>, manners: Manners) {
        for server in &self.shared.manners[servers] {
            server.store(manners as u8, Ordering::Relaxed);
        }
        self.ring();
    }

    /// Requests that each server has got so far, answered or not.
    pub fn asked(&self) -> Vec<u64> {
        self.shared.asked.iter().map(|asked| asked.load(Ordering::Relaxed)).collect()
    }

    fn ring(&self) {
        // It fails only when it has been rung for longer than this process will live.
        let _ = self.shared.bell.write(1);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.ring();
        if let Some(thread) = self.thread.take() {
            // Its panic has been written already.
            let _ = thread.join();
        }
    }
}

fn address_of(server: usize) -> Ipv4Addr {
    let (high, low) = (server / 250, server % 250);
    Ipv4Addr::new(127, 1, high as u8, low as u8 + 1)
}

/// All on the first port that is free at each of the addresses.
fn listeners(servers: usize) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut attempts = 0;
    loop {
        let first = TcpListener::bind((address_of(0), 0))?;
        let port = first.local_addr()?.port();
        let others = (1..servers).map(|server| TcpListener::bind((address_of(server), port)));
        match std::iter::once(Ok(first)).chain(others).collect::<io::Result<Vec<_>>>() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < 16 => attempts += 1,
            all => return Ok((port, all?)),
        }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// More than come at once after a pause of this machine.
const BACKLOG: i32 = 4_096;

/// Accepts per wake-up and listener, so that one of them cannot starve the others.
const ACCEPTS_MAX: usize = 64;

/// Tokens: the bell, then listeners, then connections by descriptor.
const BELL: u64 = u64::MAX;
const CONNECTIONS: u64 = 1 << 32;

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    server: usize,
    /// Tells it from others that had its descriptor before.
    serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owed {
    due: Instant,
    place: usize,
    serial: u64,
    last: bool,
}

struct Serving {
    shared: Arc<Shared>,
    epoll: Epoll,
    listeners: Vec<(TcpListener, Manners)>,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    serial: u64,
    owed: BinaryHeap<Reverse<Owed>>,
}

impl Serving {
    fn new(shared: Arc<Shared>, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&shared.bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        for (server, listener) in listeners.iter().enumerate() {
            listener.set_nonblocking(true)?;
            listen(listener, Backlog::new(BACKLOG)?)?;
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, server as u64))?;
        }
        let listeners = listeners.into_iter().map(|listener| (listener, Manners::Answers)).collect();
        Ok(Self { shared, epoll, listeners, connections: Vec::new(), serial: 0, owed: BinaryHeap::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            let count = match self.epoll.wait(&mut events, self.patience()) {
                Err(nix::errno::Errno::EINTR) => continue,
                count => count?,
            };
            let now = Clock.now();
            for event in &events[..count] {
                match event.data() {
                    BELL => {
                        if self.shared.stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        self.heed()?;
                    }
                    token if token >= CONNECTIONS => self.read((token - CONNECTIONS) as usize, now),
                    token => self.accept(token as usize)?,
                }
            }
            self.pay(Clock.now());
        }
    }

    fn patience(&self) -> EpollTimeout {
        let Some(Reverse(next)) = self.owed.peek() else { return EpollTimeout::NONE };
        let millis = next.due.since(Clock.now()).as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::NONE)
    }

    /// Takes notice of changed manners.
    fn heed(&mut self) -> io::Result<()> {
        let _ = self.shared.bell.read();
        for (server, (listener, manners)) in self.listeners.iter_mut().enumerate() {
            let wanted = Manners::from_u8(self.shared.manners[server].load(Ordering::Relaxed));
            match (*manners == Manners::Deaf, wanted == Manners::Deaf) {
                (false, true) => {
                    // One connection fills it, and stays there.
                    listen(&*listener, Backlog::new(0)?)?;
                    self.epoll.delete(listener.as_fd())?;
                }
                (true, false) => {
                    listen(&*listener, Backlog::new(BACKLOG)?)?;
                    self.epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, server as u64))?;
                }
                _ => {}
            }
            *manners = wanted;
        }
        Ok(())
    }

    fn accept(&mut self, server: usize) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let stream = match self.listeners[server].0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            let place = stream.as_raw_fd() as usize;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, CONNECTIONS + place as u64))?;
            if self.connections.len() <= place {
                self.connections.resize_with(place + 1, || None);
            }
            self.serial += 1;
            self.connections[place] = Some(Connection { stream, server, serial: self.serial });
        }
        Ok(())
    }

    /// Requests are short and come in one piece; whatever is not one ends the connection.
    fn read(&mut self, place: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return };
        let mut request = [0; 1024];
        match connection.stream.read(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(length) if request[..length].ends_with(b"\r\n\r\n") => {
                self.shared.asked[connection.server].fetch_add(1, Ordering::Relaxed);
                if self.listeners[connection.server].1 == Manners::Silent {
                    return;
                }
                let last =
                    request[..length].windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
                let delay = Span::from_micros(self.shared.delay_us.load(Ordering::Relaxed));
                let owed = Owed { due: now + delay, place, serial: connection.serial, last };
                if delay == Span::ZERO {
                    self.answer(owed);
                } else {
                    self.owed.push(Reverse(owed));
                }
            }
            // Closing takes it out of the epoll as well.
            _ => self.connections[place] = None,
        }
    }

    /// Gives the answers that are due.
    fn pay(&mut self, now: Instant) {
        while let Some(&Reverse(owed)) = self.owed.peek() {
            if owed.due > now {
                return;
            }
            self.owed.pop();
            self.answer(owed);
        }
    }

    fn answer(&mut self, owed: Owed) {
        let Some(connection) = self.connections[owed.place].as_mut() else { return };
        if connection.serial != owed.serial {
            return;
        }
        let answer = if owed.last { LAST_ANSWER } else { ANSWER };
        let written = connection.stream.write(answer);
        if owed.last || !written.is_ok_and(|length| length == answer.len()) {
            self.connections[owed.place] = None;
        }
    }
}
