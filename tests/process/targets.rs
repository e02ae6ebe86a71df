//! Targets in this process: many, cheap, and as well or unwell as a test wants them.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// A server on one thread: it accepts what comes on any of its listeners and answers whatever asks for something
/// with 200 (or 503 when it is unwell), at once or after a pause.
pub struct Targets {
    pub addresses: Vec<SocketAddr>,
    well: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Targets {
    /// As many listeners; the answers come after `pause`.
    pub fn start(listeners: usize, pause: Duration) -> Self {
        let listeners: Vec<TcpListener> =
            (0..listeners).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a flag of a socket");
            // A burst after a pause is what these are for: the standard library's 128 would drop it.
            let backlog = nix::sys::socket::Backlog::new(4_096).expect("a length");
            nix::sys::socket::listen(listener, backlog).expect("a listener can listen again");
        }
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("it is bound")).collect();
        let (well, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (is_well, stopped) = (Arc::clone(&well), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(&listeners, pause, &is_well, &stopped).expect("epoll works"));
        Self { addresses, well, stop, thread: Some(thread) }
    }

    pub fn set_well(&self, well: bool) {
        self.well.store(well, Ordering::Relaxed);
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Peer {
    stream: TcpStream,
    asked: usize,
}

fn serve(listeners: &[TcpListener], pause: Duration, well: &AtomicBool, stop: &AtomicBool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, listener) in listeners.iter().enumerate() {
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let first_peer = listeners.len() as u64;
    let mut peers: HashMap<u64, Peer> = HashMap::new();
    let mut late: std::collections::VecDeque<(Instant, TcpStream)> = Default::default();
    let mut events = vec![EpollEvent::empty(); 1_024];
    while !stop.load(Ordering::Relaxed) {
        let count = epoll.wait(&mut events, EpollTimeout::from(20_u8))?;
        for event in &events[..count] {
            let token = event.data();
            if token < first_peer {
                accept(&listeners[usize::try_from(token).expect("an index")], &epoll, first_peer, &mut peers)?;
                continue;
            }
            let Some(peer) = peers.get_mut(&token) else { continue };
            if asked(peer) {
                continue;
            }
            if let Some(peer) = peers.remove(&token) {
                let _ = epoll.delete(peer.stream.as_fd());
                if peer.asked > 0 {
                    late.push_back((Instant::now() + pause, peer.stream));
                }
            }
        }
        while late.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, mut stream)) = late.pop_front() {
                let status = if well.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                // The peer may have gone; a short answer fits any socket's buffer.
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").as_bytes());
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, epoll: &Epoll, first: u64, peers: &mut HashMap<u64, Peer>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        let token = first + u64::try_from(stream.as_raw_fd()).expect("a descriptor");
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        peers.insert(token, Peer { stream, asked: 0 });
    }
    Ok(())
}

/// Whether more is to be expected: not after an empty line, nor after the end.
fn asked(peer: &mut Peer) -> bool {
    let mut buffer = [0; 2_048];
    match peer.stream.read(&mut buffer) {
        Ok(count @ 1..) => {
            peer.asked += count;
            // Requests of a check without a body come in one piece.
            !buffer[..count].ends_with(b"\r\n\r\n")
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Ok(_) | Err(_) => {
            peer.asked = 0;
            false
        }
    }
}

/// A port on which nobody listens, and will not while this lives: it is bound.
pub struct Closed(std::os::fd::OwnedFd);

impl Closed {
    pub fn new() -> Self {
        use nix::sys::socket;
        let flags = socket::SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(socket::AddressFamily::Inet, socket::SockType::Stream, flags, None);
        let socket = socket.expect("a socket");
        socket::bind(socket.as_raw_fd(), &socket::SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        let bound: nix::sys::socket::SockaddrIn =
            nix::sys::socket::getsockname(self.0.as_raw_fd()).expect("it is bound");
        SocketAddr::from((bound.ip(), bound.port()))
    }
}

/// One monitor as a line of a monitors file. `codes` tells it to a file.
pub fn http(name: &str, address: SocketAddr) -> String {
    format!("  - name: {name}\n    pulse: {{type: http, config: {{url: \"http://{address}/\"}}}}\n")
}

pub fn tcp(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("  - name: {name}\n    pulse: {{type: tcp, config: {{host: {ip}, port: {port}}}}}\n")
}

/// A monitors file: the cadence, everyone told to `notices.jsonl`, then the monitors.
pub fn file(pulse: &str, monitors: &str) -> String {
    let told = "{notify: log, config: {file: notices.jsonl}}";
    let codes: String =
        ["yellow", "red", "green", "gray"].iter().map(|color| format!("    {color}: {told}\n")).collect();
    format!("defaults:\n  pulse: {{{pulse}}}\n  codes:\n{codes}monitors:\n{monitors}")
}
