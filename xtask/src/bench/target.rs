//! The server that is checked: as little as possible, one thread, one epoll.
//!
//! On every destination it either accepts and closes, or answers each request with `ok`. It counts; a line on its
//! standard input asks for the counts (`snapshot`), or for the gaps on each listener (between accepts, for HTTP between
//! requests) to be counted from now (`reset`). The end of its input ends it.

use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, accept4, bind, listen, setsockopt, socket, sockopt,
};
use serde_json::json;

use super::{Destinations, child, pace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Read requests and answer them, instead of closing at once
    #[arg(long)]
    http: bool,
    #[command(flatten)]
    destinations: Destinations,
}

const ANSWER_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const ANSWER_KEEP: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Accepts per wake-up and listener, so that one of them cannot starve the others.
const ACCEPTS_MAX: usize = 64;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let mut target = Target::listen(options)?;
    println!("ready");
    target.serve()
}

struct Listener {
    socket: OwnedFd,
    /// When it last served something, or was reset.
    last: Instant,
    gap_ns_max: u128,
}

impl Listener {
    fn serve(&mut self, now: Instant) {
        self.gap_ns_max = self.gap_ns_max.max((now - self.last).as_nanos());
        self.last = now;
    }
}

struct Target {
    epoll: Epoll,
    http: bool,
    listeners: Vec<Listener>,
    /// By descriptor, each with the index of its listener.
    connections: Vec<Option<(OwnedFd, usize)>>,
    accepted: u64,
    requests: u64,
}

/// Tokens: standard input, then listeners, then connections by descriptor.
const INPUT: u64 = u64::MAX;
const CONNECTIONS: u64 = 1 << 32;

impl Target {
    fn listen(options: &Options) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut listeners = Vec::with_capacity(options.destinations.len());
        for address in options.destinations.all() {
            let socket = listener(address).with_context(|| format!("cannot listen on {address}"))?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, listeners.len() as u64))?;
            listeners.push(Listener { socket, last: Instant::now(), gap_ns_max: 0 });
        }
        epoll.add(std::io::stdin().as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, INPUT))?;
        Ok(Self { epoll, http: options.http, listeners, connections: Vec::new(), accepted: 0, requests: 0 })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            let now = Instant::now();
            for event in &events[..count] {
                match event.data() {
                    INPUT => {
                        if !self.obey(now)? {
                            return Ok(());
                        }
                    }
                    token if token >= CONNECTIONS => self.answer((token - CONNECTIONS) as usize, now),
                    token => self.accept(token as usize, now)?,
                }
            }
        }
    }

    fn accept(&mut self, index: usize, now: Instant) -> anyhow::Result<()> {
        let listener = &mut self.listeners[index];
        let mut accepted = 0;
        while accepted < ACCEPTS_MAX {
            let descriptor = match accept4(listener.socket.as_raw_fd(), SockFlag::SOCK_NONBLOCK) {
                Ok(descriptor) => descriptor,
                Err(Errno::EAGAIN) => break,
                Err(Errno::ECONNABORTED | Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("accept"),
            };
            // SAFETY: accept4 has just made this descriptor, and nothing else knows it.
            let connection = unsafe { OwnedFd::from_raw_fd(descriptor) };
            accepted += 1;
            if !self.http {
                continue;
            }
            let place = descriptor as usize;
            self.epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, CONNECTIONS + place as u64))?;
            if self.connections.len() <= place {
                self.connections.resize_with(place + 1, || None);
            }
            self.connections[place] = Some((connection, index));
        }
        self.accepted += accepted as u64;
        if accepted > 0 && !self.http {
            listener.serve(now);
        }
        Ok(())
    }

    /// Requests are short and come in one piece; whatever is not one ends the connection.
    fn answer(&mut self, place: usize, now: Instant) {
        let Some((connection, listener)) = &self.connections[place] else { return };
        let mut request = [0; 1024];
        let keep = match nix::unistd::read(connection, &mut request) {
            Err(Errno::EAGAIN) => true,
            Ok(length) if request[..length].ends_with(b"\r\n\r\n") => {
                self.requests += 1;
                self.listeners[*listener].serve(now);
                let close = request[..length].windows(17).any(|window| window == b"Connection: close");
                let answer = if close { ANSWER_CLOSE } else { ANSWER_KEEP };
                nix::unistd::write(connection, answer) == Ok(answer.len()) && !close
            }
            _ => false,
        };
        if !keep {
            // Closing takes it out of the epoll as well.
            self.connections[place] = None;
        }
    }

    /// Takes what came on standard input; `false` at its end.
    fn obey(&mut self, now: Instant) -> anyhow::Result<bool> {
        let mut input = [0; 256];
        let length = std::io::stdin().read(&mut input)?;
        for line in input[..length].split(|&byte| byte == b'\n') {
            match line {
                b"reset" => {
                    for listener in &mut self.listeners {
                        listener.last = now;
                        listener.gap_ns_max = 0;
                    }
                }
                b"snapshot" => {
                    // A gap that is still open counts as well.
                    let gap = |listener: &Listener| listener.gap_ns_max.max((now - listener.last).as_nanos());
                    let gap_ns_max = self.listeners.iter().map(gap).max().unwrap_or(0);
                    let mut output = std::io::stdout().lock();
                    writeln!(
                        output,
                        "{}",
                        json!({
                            "accepted": self.accepted,
                            "requests": self.requests,
                            "gap_ms_max": gap_ns_max as f64 / 1e6,
                            "cpu_us": pace::cpu().as_micros() as u64,
                        })
                    )?;
                }
                _ => {}
            }
        }
        Ok(length > 0)
    }
}

fn listener(address: SocketAddrV4) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}
