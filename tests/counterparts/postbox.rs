//! A mail server that does what it is told to, and takes what keeps the rules of SMTP and of mails.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Issued;
use super::provider::{Duplex, server_config};

/// Where in the dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Hello,
    Auth,
    Mail,
    /// Of this recipient.
    Recipient(&'static str),
    Data,
    /// After the final dot.
    Message,
}

/// What happens there, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Says(&'static str),
    /// Closes. After the final dot the message has been taken.
    Drops,
    /// Says nothing more, and keeps the connection.
    Hangs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    StartTls,
    Tls,
}

/// A mail as it was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub at: Instant,
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
    pub is_encrypted: bool,
    pub user: Option<String>,
    /// The number of the connection that it came over.
    pub connection: usize,
}

impl Taken {
    /// The header's value, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split_once("\r\n\r\n")?.0.replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut lines = head.lines();
        lines.find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

#[derive(Default)]
struct State {
    next: VecDeque<(Stage, What)>,
    taken: Vec<Taken>,
    refused: Vec<String>,
    /// What clients said that must not be told: passwords as they came.
    hellos: Vec<String>,
    connections: usize,
}

pub struct Postbox {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What all of its connections have in common.
#[derive(Clone)]
struct Manner {
    security: Security,
    tls: Option<Arc<ServerConfig>>,
    credentials: Option<(&'static str, &'static str)>,
}

impl Postbox {
    /// With `credentials` nobody else may send.
    pub fn start(
        security: Security,
        issued: Option<&Issued>,
        credentials: Option<(&'static str, &'static str)>,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let manner = Manner { security, tls: issued.map(server_config), credentials };
        let (own, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (manner, state, stopped) = (manner.clone(), Arc::clone(&own), Arc::clone(&stopped));
                // A client that goes away ends it; the test sees what it saw.
                connections.push(thread::spawn(move || drop(Session::talk(stream, &manner, &state, &stopped))));
            }
            for connection in connections {
                connection.join().expect("a session does not panic");
            }
        });
        Self { address, state, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When the dialogue comes there next, this happens instead; in this order.
    pub fn next(&self, events: impl IntoIterator<Item = (Stage, What)>) {
        self.state().next.extend(events);
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state().taken.clone()
    }

    pub fn connections(&self) -> usize {
        self.state().connections
    }

    pub fn hellos(&self) -> Vec<String> {
        self.state().hellos.clone()
    }

    /// # Panics
    /// If something was refused for breaking a rule.
    pub fn assert_rules_kept(&self) {
        let state = self.state();
        assert!(state.refused.is_empty(), "{:?}", state.refused);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }
}

impl Drop for Postbox {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Session<'a> {
    stream: Option<Box<dyn Duplex>>,
    manner: &'a Manner,
    state: &'a Mutex<State>,
    stopped: &'a AtomicBool,
    number: usize,
    is_encrypted: bool,
    user: Option<String>,
}

impl<'a> Session<'a> {
    fn talk(stream: TcpStream, manner: &'a Manner, state: &'a Mutex<State>, stopped: &'a AtomicBool) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        stream.set_nodelay(true)?;
        let number = {
            let mut state = state.lock().expect("no thread panics with it");
            state.connections += 1;
            state.connections
        };
        let mut session =
            Self { stream: Some(Box::new(stream)), manner, state, stopped, number, is_encrypted: false, user: None };
        if manner.security == Security::Tls {
            session.encrypt()?;
        }
        session.dialogue()
    }

    fn encrypt(&mut self) -> io::Result<()> {
        let config = self.manner.tls.clone().expect("a server with TLS has a certificate");
        let tcp = self.stream.as_ref().expect("it is open").tcp().try_clone()?;
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        self.stream = Some(Box::new(StreamOwned::new(connection, tcp)));
        self.is_encrypted = true;
        Ok(())
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let stream = self.stream.as_mut().expect("it is open");
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        stream.flush()
    }

    /// A line without its end; `None` at the end of the connection, or of the server.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.stream.as_mut().expect("it is open").read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => line.push(byte[0]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.stopped.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
            if line.ends_with(b"\r\n") {
                line.truncate(line.len() - 2);
                return Ok(Some(line));
            }
        }
    }

    /// What is to happen at this stage instead of what would. `false`: the session is over.
    fn meet(&mut self, stage: &Stage, otherwise: &str) -> io::Result<Option<bool>> {
        let what = {
            let mut state = self.state.lock().expect("no thread panics with it");
            match state.next.front() {
                Some((next, _)) if next == stage => state.next.pop_front().map(|(_, what)| what),
                _ => None,
            }
        };
        match what {
            None => {
                self.say(otherwise)?;
                Ok(Some(true))
            }
            Some(What::Says(text)) => {
                self.say(text)?;
                Ok(Some(text.starts_with(['2', '3'])))
            }
            Some(What::Drops) => Ok(None),
            Some(What::Hangs) => {
                while !self.stopped.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, text: &str) -> io::Result<()> {
        self.state.lock().expect("no thread panics with it").refused.push(text.to_owned());
        self.say(text)
    }

    fn dialogue(&mut self) -> io::Result<()> {
        if self.meet(&Stage::Greeting, "220 postbox.example ESMTP")? != Some(true) {
            return Ok(());
        }
        let (mut from, mut to): (Option<String>, Vec<String>) = (None, Vec::new());
        let mut greeted = false;
        while let Some(line) = self.line()? {
            let line = String::from_utf8_lossy(&line).into_owned();
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let words = line.get(verb.len()..).unwrap_or_default().trim();
            match &*verb {
                "EHLO" => {
                    greeted = true;
                    self.state.lock().expect("no thread panics with it").hellos.push(words.to_owned());
                    let mut reply = vec!["postbox.example", "PIPELINING"];
                    if self.manner.security == Security::StartTls && !self.is_encrypted && self.manner.tls.is_some() {
                        reply.push("STARTTLS");
                    }
                    if self.manner.credentials.is_some() {
                        reply.push("AUTH PLAIN LOGIN");
                    }
                    reply.push("SIZE 1000000");
                    let last = reply.len() - 1;
                    let lines = reply.iter().enumerate();
                    let lines: Vec<String> =
                        lines.map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' })).collect();
                    if self.meet(&Stage::Hello, &lines.join("\r\n"))?.is_none() {
                        return Ok(());
                    }
                }
                "STARTTLS" => {
                    self.say("220 go ahead")?;
                    self.encrypt()?;
                    greeted = false;
                }
                "AUTH" => {
                    if self.manner.security != Security::Plain && !self.is_encrypted {
                        self.refuse("538 5.7.11 encryption required")?;
                        continue;
                    }
                    let Some((user, password)) = self.manner.credentials else {
                        self.refuse("502 5.5.1 no such thing here")?;
                        continue;
                    };
                    let right = format!("PLAIN {}", BASE64_STANDARD.encode(format!("\0{user}\0{password}")));
                    if words != right {
                        // Some servers repeat what they were sent.
                        let said = format!("535 5.7.8 {words} is not right, nor is {password}");
                        self.refuse(&said)?;
                        continue;
                    }
                    match self.meet(&Stage::Auth, "235 2.7.0 welcome")? {
                        None => return Ok(()),
                        Some(true) => self.user = Some(user.to_owned()),
                        Some(false) => {}
                    }
                }
                "MAIL" if !greeted => self.refuse("503 5.5.1 EHLO first")?,
                "MAIL" if self.manner.security != Security::Plain && !self.is_encrypted => {
                    self.refuse("530 5.7.0 STARTTLS first")?;
                }
                "MAIL" if self.manner.credentials.is_some() && self.user.is_none() => {
                    self.refuse("530 5.7.0 authentication required")?;
                }
                "MAIL" => match self.meet(&Stage::Mail, "250 2.1.0 ok")? {
                    None => return Ok(()),
                    Some(true) => (from, to) = (address(words), Vec::new()),
                    Some(false) => {}
                },
                "RCPT" if from.is_none() => self.refuse("503 5.5.1 MAIL first")?,
                "RCPT" => {
                    let Some(address) = address(words) else {
                        self.refuse("501 5.1.3 no address")?;
                        continue;
                    };
                    let stage = {
                        let state = self.state.lock().expect("no thread panics with it");
                        match state.next.front() {
                            Some((Stage::Recipient(next), _)) if *next == address => Stage::Recipient(next),
                            _ => Stage::Recipient("nobody"),
                        }
                    };
                    match self.meet(&stage, "250 2.1.5 ok")? {
                        None => return Ok(()),
                        Some(true) => to.push(address),
                        Some(false) => {}
                    }
                }
                "DATA" if to.is_empty() => self.refuse("503 5.5.1 RCPT first")?,
                "DATA" => match self.meet(&Stage::Data, "354 end with a dot")? {
                    None => return Ok(()),
                    Some(false) => {}
                    Some(true) => {
                        let Some(text) = self.message()? else { return Ok(()) };
                        let sender = from.take().unwrap_or_default();
                        if let Some(why) = breaks(&text) {
                            self.refuse(&format!("554 5.6.0 {why}"))?;
                            continue;
                        }
                        let taken = Taken {
                            at: Instant::now(),
                            from: sender,
                            to: std::mem::take(&mut to),
                            text: String::from_utf8_lossy(&text).into_owned(),
                            is_encrypted: self.is_encrypted,
                            user: self.user.clone(),
                            connection: self.number,
                        };
                        let refuses = {
                            let state = self.state.lock().expect("no thread panics with it");
                            matches!(state.next.front(), Some((Stage::Message, What::Says(text))) if !text.starts_with('2'))
                        };
                        if !refuses {
                            self.state.lock().expect("no thread panics with it").taken.push(taken);
                        }
                        if self.meet(&Stage::Message, "250 2.0.0 queued as 1")?.is_none() {
                            return Ok(());
                        }
                    }
                },
                "RSET" => {
                    (from, to) = (None, Vec::new());
                    self.say("250 2.0.0 forgotten")?;
                }
                "NOOP" => self.say("250 2.0.0 ok")?,
                "QUIT" => return self.say("221 2.0.0 bye"),
                _ => self.refuse("500 5.5.2 what?")?,
            }
        }
        Ok(())
    }

    /// Up to the dot, without it and what was doubled for it.
    fn message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        while let Some(line) = self.line()? {
            if line == b"." {
                return Ok(Some(text));
            }
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            text.extend_from_slice(b"\r\n");
        }
        Ok(None)
    }
}

/// `FROM:<it@shop.example> BODY=8BITMIME`
fn address(words: &str) -> Option<String> {
    let address = words.split_once('<')?.1.split_once('>')?.0;
    let is_one = address.split('@').count() == 2 && !address.contains(char::is_whitespace);
    is_one.then(|| address.to_owned())
}

/// Which rule of RFC 5321, 5322 or 3834 it breaks.
pub fn breaks(text: &[u8]) -> Option<String> {
    if !text.is_ascii() {
        return Some("bytes beyond ASCII without 8BITMIME".into());
    }
    let text = String::from_utf8_lossy(text);
    if text.replace("\r\n", "").contains(['\r', '\n']) {
        return Some("a bare CR or LF".into());
    }
    if text.lines().any(|line| line.len() > 998) {
        return Some("a line of more than 998 bytes".into());
    }
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Some("no body".into()) };
    let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let values = |name: &str| -> Vec<String> {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    };
    for name in ["Date", "From", "Message-ID", "Subject", "To", "Auto-Submitted", "MIME-Version"] {
        if values(name).len() != 1 {
            return Some(format!("{} times {name}", values(name).len()));
        }
    }
    let is_id = |id: &str| id.starts_with('<') && id.ends_with('>') && id.split('@').count() == 2 && !id.contains(' ');
    if !is_id(&values("Message-ID")[0]) {
        return Some(format!("no Message-ID: {}", values("Message-ID")[0]));
    }
    let named = values("References").into_iter().chain(values("In-Reply-To"));
    if let Some(bad) = named.flat_map(|ids| ids.split(' ').map(str::to_owned).collect::<Vec<_>>()).find(|id| !is_id(id))
    {
        return Some(format!("no Message-ID among the references: {bad}"));
    }
    (values("Auto-Submitted")[0] != "auto-generated").then(|| "a mail that no person wrote says so".into())
}
