//! A server that misbehaves to order.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, sockopt};

/// What the server does with a connection.
#[derive(Clone, Debug)]
pub enum Script {
    /// Reads the request, sends this, and closes.
    Answer(Vec<u8>),
    /// The same, in pieces of one byte, with a pause before each.
    AnswerSlowly(Vec<u8>, Duration),
    /// The same, but ends with a reset.
    AnswerThenReset(Vec<u8>),
    /// Answers first, reads nothing, and closes: the kernel resets the connection because of what it did not read.
    AnswerEarly(Vec<u8>),
    /// Reads the request, answers, and closes a moment later, without having said that it would.
    AnswerOnce(Vec<u8>),
    /// Answers the first request of a connection; the second one meets the other script.
    AnswerFirst(Vec<u8>, Box<Self>),
    /// Reads the request and keeps the connection in silence.
    Silence,
    /// Accepts and does not even read.
    Stop,
}

/// A 200 with a body that only the close ends.
pub fn unframed() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end".to_vec()
}

/// A sound head but for its 20 kB.
pub fn oversized_head() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nX-Filling: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(20 * 1024)).into_bytes()
}

/// An answer of the given length that ends after `sent` bytes.
pub fn cut_off(length: usize, sent: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(sent)).into_bytes()
}

#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawServer {
    pub fn start(script: Script) -> Self {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), script)
    }

    pub fn start_on(loopback: IpAddr, script: Script) -> Self {
        let listener = TcpListener::bind((loopback, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (script, stopped) = (script.clone(), stopped.clone());
                // A client that has gone away ends a script early; the test sees what it saw.
                connections.push(thread::spawn(move || drop(play(&script, stream, &stopped))));
            }
            for connection in connections {
                connection.join().expect("a script does not panic");
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn play(script: &Script, mut stream: TcpStream, stopped: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    match script {
        Script::Answer(answer) => {
            read_request(&mut stream, stopped)?;
            stream.write_all(answer)
        }
        Script::AnswerSlowly(answer, pause) => {
            stream.set_nodelay(true)?;
            read_request(&mut stream, stopped)?;
            for byte in answer {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                stream.write_all(&[*byte])?;
                thread::sleep(*pause);
            }
            Ok(())
        }
        Script::AnswerThenReset(answer) => {
            read_request(&mut stream, stopped)?;
            stream.write_all(answer)?;
            // Without the pause the reset can overtake the answer on its way to the reader.
            thread::sleep(Duration::from_millis(50));
            // Closing a socket that lingers for no time at all sends a reset.
            socket::setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
            Ok(())
        }
        Script::AnswerEarly(answer) => stream.write_all(answer),
        Script::AnswerOnce(answer) => {
            read_request(&mut stream, stopped)?;
            stream.write_all(answer)?;
            thread::sleep(Duration::from_millis(100));
            Ok(())
        }
        Script::AnswerFirst(answer, second) => {
            read_request(&mut stream, stopped)?;
            stream.write_all(answer)?;
            play(second, stream, stopped)
        }
        Script::Silence => {
            read_request(&mut stream, stopped)?;
            hold(stopped);
            Ok(())
        }
        Script::Stop => {
            hold(stopped);
            Ok(())
        }
    }
}

fn hold(stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Up to the empty line; these scripts are not asked with bodies.
fn read_request(stream: &mut TcpStream, stopped: &AtomicBool) -> io::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => request.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stopped.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A listener whose queue is full: the kernel drops further connects without an answer, as a dead host would.
#[derive(Debug)]
pub struct FullBacklog {
    _listener: OwnedFd,
    _queued: Vec<TcpStream>,
    address: SocketAddr,
}

impl FullBacklog {
    pub fn start() -> Self {
        let listener = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let listener = listener.expect("a socket");
        socket::bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a loopback port");
        socket::listen(&listener, Backlog::new(0).expect("none is a length, too")).expect("a bound socket listens");
        let bound: SockaddrIn = socket::getsockname(listener.as_raw_fd()).expect("a bound socket has an address");
        let address = SocketAddr::from((bound.ip(), bound.port()));
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 16, "the queue has an end");
        }
        Self { _listener: listener, _queued: queued, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
