//! A provider of alerts, and how each of them can fail: one HTTP server that speaks as PagerDuty, Slack, Twilio,
//! Alertmanager and receivers of Standard Webhooks do ([`super::vendors`]), and refuses what breaks their rules.
//!
//! It keeps every request with its time and what it thought of it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{self, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Issued;
use super::vendors::{Answer, Vendors};

/// What becomes of a request that keeps the rules. One that breaks them is refused in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// 429, with this `Retry-After` or none. Not processed.
    Throttled(Option<&'static str>),
    /// Not processed.
    Status(u16),
    /// Processed, and closed without a word: nobody can tell whether it was.
    Dropped,
    /// Processed, and answered after so long.
    Slow(Duration),
    /// Processed; the answer ends in its middle with a reset.
    Reset,
    /// 200, and a body that is none of this provider's: what proxies and captive portals say. Not processed.
    WrongBody,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub method: String,
    pub path: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What it was answered with; 0 if with nothing.
    pub status: u16,
    /// Which rule it breaks, in the vendor's words.
    pub refused: Option<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Of `application/x-www-form-urlencoded`, in order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[derive(Default)]
struct State {
    modes: VecDeque<Mode>,
    vendors: Vendors,
    requests: Vec<Request>,
}

pub struct Provider {
    address: SocketAddr,
    is_tls: bool,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn start_tls(issued: &Issued) -> Self {
        Self::with(Some(server_config(issued)))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let is_tls = tls.is_some();
        let (own, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (tls, state, stopped) = (tls.clone(), Arc::clone(&own), Arc::clone(&stopped));
                // A client that goes away ends it; the test sees what it saw.
                connections.push(thread::spawn(move || drop(connection(stream, tls, &state, &stopped))));
            }
            for connection in connections {
                connection.join().expect("a connection does not panic");
            }
        });
        Self { address, is_tls, state, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:1234` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// How the next requests fare, one after the other; then all goes well.
    pub fn next(&self, modes: impl IntoIterator<Item = Mode>) {
        self.state().modes.extend(modes);
    }

    /// What the vendors are to expect: secrets, credentials.
    pub fn vendors<R>(&self, change: impl FnOnce(&mut Vendors) -> R) -> R {
        change(&mut self.state().vendors)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Those that were processed.
    pub fn taken(&self) -> Vec<Request> {
        self.state().vendors.taken.clone()
    }

    /// # Panics
    /// If a request broke a rule.
    pub fn assert_rules_kept(&self) {
        let state = self.state();
        let broken: Vec<_> = state.requests.iter().filter_map(|request| request.refused.as_ref()).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn server_config(issued: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&issued.chain).expect("it was made").map(|it| it.expect("PEM"));
    let key = PrivateKeyDer::from_pem_file(&issued.key).expect("it was made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key)
        .expect("a certificate and its key");
    Arc::new(config)
}

/// Either kind of connection.
pub trait Duplex: Read + Write + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Duplex for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Duplex for StreamOwned<ServerConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

fn connection(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    state: &Mutex<State>,
    stopped: &AtomicBool,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, stream))
        }
    };
    let mut buffer = Vec::new();
    while let Some(mut request) = read_request(&mut *stream, &mut buffer, stopped)? {
        let (mode, answer) = {
            let mut state = state.lock().expect("no thread panics with it");
            // What people do by hand, and clients before they are sure, takes no mode away.
            let (mode, answer) = match state.vendors.look(&request) {
                Err(answer) => (Mode::Well, answer),
                Ok(()) => {
                    let mode = state.modes.pop_front().unwrap_or(Mode::Well);
                    let answer = match &mode {
                        Mode::Throttled(after) => {
                            let mut answer = state.vendors.failure(&request, 429);
                            answer.headers.extend(after.map(|after| ("Retry-After", after.to_owned())));
                            answer
                        }
                        Mode::Status(status) => state.vendors.failure(&request, *status),
                        Mode::WrongBody => Answer::new(200, "text/html", "<html>Please sign in</html>"),
                        Mode::Well | Mode::Dropped | Mode::Slow(_) | Mode::Reset => state.vendors.process(&request),
                    };
                    (mode, answer)
                }
            };
            request.status = if mode == Mode::Dropped { 0 } else { answer.status };
            request.refused.clone_from(&answer.breaks);
            state.requests.push(request);
            (mode, answer)
        };
        let bytes = answer.bytes();
        match mode {
            Mode::Dropped => return Ok(()),
            Mode::Reset => {
                stream.write_all(&bytes[..bytes.len() - answer.body.len().div_ceil(2).max(1)])?;
                stream.flush()?;
                // Without the pause the reset can overtake the answer on its way to the reader.
                thread::sleep(Duration::from_millis(50));
                socket::setsockopt(stream.tcp(), sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
                return Ok(());
            }
            Mode::Slow(pause) => {
                let until = Instant::now() + pause;
                while Instant::now() < until && !stopped.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                stream.write_all(&bytes)?;
            }
            Mode::Well | Mode::Throttled(_) | Mode::Status(_) | Mode::WrongBody => stream.write_all(&bytes)?,
        }
        stream.flush()?;
    }
    Ok(())
}

/// `None` at the end of the connection, or of the server.
fn read_request(stream: &mut dyn Duplex, buffer: &mut Vec<u8>, stopped: &AtomicBool) -> io::Result<Option<Request>> {
    let mut piece = [0; 16 * 1024];
    let mut told_to_continue = false;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = parsed.parse(buffer).map_err(io::Error::other)? {
            let headers: Vec<(String, String)> = parsed
                .headers
                .iter()
                .map(|header| (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
                .collect();
            let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
            let length: usize = find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if find("expect").is_some() && !told_to_continue {
                told_to_continue = true;
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if buffer.len() >= head + length {
                let (method, path) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
                let (method, path) = (method.to_owned(), path.to_owned());
                let rest = buffer.split_off(head + length);
                let body = std::mem::replace(buffer, rest).split_off(head);
                let (at, refused) = (Instant::now(), None);
                return Ok(Some(Request { at, method, path, headers, body, status: 0, refused }));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A request by hand: the status and the body of its answer.
///
/// # Panics
/// If there is none.
pub fn post(provider: &Provider, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(provider.address()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.write_all(body).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a whole head").1.to_owned())
}
