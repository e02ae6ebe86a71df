//! TLS between us and somebody who tampers with it: checks over TLS, with and without words in plain text before it,
//! against a server in memory whose every byte the input may change, drop, add to or hold back.
//!
//! The first two bytes choose the check, the server and what it is like; what follows are instructions of one byte each,
//! some with arguments (see [`Wire::obey`]). Once they have run out, what both sides still have to say is passed on as it
//! is, and the server ends the connection. There is no chance in it (the key exchange is none, and signatures are those
//! of Ed25519), so that an input's run is the same each time.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cpra::domain::monitor::{Proxy, StartTls, TlsPolicy};
use cpra::domain::{Check, Code, Host, HostRef, HttpCheck, Policy, TargetRef, TcpCheck};
use cpra::probe::{Judgement, Ops, Probe, Request, Then};
use cpra::ring::{Errno, OpKind};
use cpra::units::limits::{HANDSHAKE_UNREAD_MAX, TLS_REFUSAL_WAIT};
use cpra::units::{Instant, Span};
use cpra::wire::tls::{Context, Judge, Trust};
use cpra_fuzz::{Feed, assert_sound, done, is_ok, policy};
use libfuzzer_sys::fuzz_target;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ServerConfig, ServerConnection, ServerSessionMemoryCache};
use rustls::time_provider::TimeProvider;
use rustls::{NamedGroup, RootCertStore, SupportedProtocolVersion};

const CA: &[u8] = include_bytes!("../fixtures/ca.pem");
const SERVER: (&[u8], &[u8]) = (include_bytes!("../fixtures/server.pem"), include_bytes!("../fixtures/server.key"));
const STRANGER: (&[u8], &[u8]) =
    (include_bytes!("../fixtures/stranger.pem"), include_bytes!("../fixtures/stranger.key"));

/// Within the certificates' time: January 2030.
const NOW: u64 = 1_893_456_000;

/// What the checks that expect something do.
const EXPECTED: &[u8] = b"pong";

#[derive(Debug)]
struct Standing;

impl TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }
}

/// The same bytes each time.
#[derive(Debug)]
struct NoChance;

impl SecureRandom for NoChance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill(0x5A);
        Ok(())
    }
}

/// A key exchange in form only: everybody's secret is the same. Nobody here listens in; and it costs nothing.
#[derive(Debug)]
struct NoExchange;

impl SupportedKxGroup for NoExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for NoExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        if peer != self.pub_key() {
            return Err(rustls::PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&[7; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// What is made once.
struct Bench {
    /// Judges, and does not.
    contexts: [Context; 2],
    /// TLS 1.2 and 1.3, each of the server that is trusted and of a stranger.
    servers: [[ServerConfig; 2]; 2],
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![&NoExchange],
        secure_random: &NoChance,
        ..rustls::crypto::ring::default_provider()
    });
    let certificate = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(CA)).expect("a root");
    let judge = Judge::new(Arc::new(roots), Vec::new(), Arc::clone(&provider)).expect("there is a root");
    let clock: Arc<dyn TimeProvider> = Arc::new(Standing);
    let contexts =
        [Some(judge), None].map(|judge| Context::new(judge, None, &provider, &clock).expect("it fits together"));
    let server = |version: &'static SupportedProtocolVersion, (chain, key): (&[u8], &[u8])| {
        ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Standing))
            .with_protocol_versions(&[version])
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate(chain)], PrivateKeyDer::from_pem_slice(key).expect("a key"))
            .expect("a certificate and its key")
    };
    let servers = [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| [SERVER, STRANGER].map(|who| server(version, who)));
    Bench { contexts, servers }
});

/// The server in memory, with what it says before TLS.
struct Server {
    /// Said in answer to one message each.
    script: std::slice::Iter<'static, &'static [u8]>,
    tls: ServerConnection,
    broken: bool,
    /// Said, and not yet on its way.
    outgoing: Vec<u8>,
    /// Whatever it said under TLS.
    said: Vec<u8>,
}

const GREETING: [&[u8]; 3] = [b"220 fuzz.example ESMTP\r\n", b"250-fuzz.example\r\n250 STARTTLS\r\n", b"220 go on\r\n"];
const IMAP: [&[u8]; 2] = [b"* OK ready\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n"];
const POSTGRES: [&[u8]; 1] = [b"S"];
const TUNNEL: [&[u8]; 1] = [b"HTTP/1.1 200 Connection established\r\nVia: 1.1 fuzz\r\n\r\n"];

impl Server {
    fn hear(&mut self, bytes: &[u8]) {
        if let Some(words) = self.script.next() {
            self.outgoing.extend_from_slice(words);
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() && !self.broken {
            self.broken = !matches!(self.tls.read_tls(&mut rest), Ok(1..)) || self.tls.process_new_packets().is_err();
            let mut heard = std::io::sink();
            // It never says what it was asked.
            let _ = std::io::copy(&mut self.tls.reader(), &mut heard);
        }
        self.speak();
    }

    fn say(&mut self, words: &[u8]) {
        use std::io::Write as _;
        if self.tls.is_handshaking() || self.broken {
            return;
        }
        self.said.extend_from_slice(words);
        self.tls.writer().write_all(words).expect("there is room");
        self.speak();
    }

    fn close(&mut self) {
        self.tls.send_close_notify();
        self.speak();
    }

    fn speak(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.outgoing).expect("into memory");
        }
    }
}

struct Wire<'a> {
    request: Request<'a>,
    probe: Probe,
    server: Server,
    now: Instant,
    /// What reaches the probe next.
    piece: Vec<u8>,
    /// What the probe has sent and not been told of.
    sending: Option<Vec<u8>>,
    receiving: bool,
    /// A redirect was followed: the rest of the attempt is another connection's.
    led: bool,
    /// No byte of the server was withheld, changed or made up so far.
    faithful: bool,
}

impl Wire<'_> {
    fn drive(
        &mut self,
        take: impl FnOnce(&mut Probe, &Request<'_>, Instant, &mut Ops) -> Option<Judgement>,
    ) -> Option<Judgement> {
        let mut ops = Ops::default();
        self.now += Span::from_micros(10);
        let judgement = take(&mut self.probe, &self.request, self.now, &mut ops);
        for op in &ops.list {
            match op.kind() {
                OpKind::Send => {
                    assert!(self.sending.is_none() && !ops.bytes.is_empty(), "one send at a time");
                    self.sending = Some(std::mem::take(&mut ops.bytes));
                }
                OpKind::Recv => {
                    assert!(!self.receiving, "one receive at a time");
                    self.receiving = true;
                }
                OpKind::Connect | OpKind::Disconnect => panic!("{op:?} is not the probe's to ask for by now"),
            }
        }
        self.led |= ops.hop.is_some();
        if judgement.is_none() {
            assert_sound(&self.probe.expire(&self.request, self.now));
        }
        judgement
    }

    /// The bytes that are on their way arrive. As in a shard: what costs much may be put off, and waits with what follows.
    fn deliver(&mut self, puts_off: bool) -> Option<Judgement> {
        if self.piece.is_empty() || !self.receiving {
            return None;
        }
        let piece = std::mem::take(&mut self.piece);
        let completion = done(OpKind::Recv, Ok(piece.len() as u32), true, &piece);
        if self.probe.behind_since().is_some() || puts_off && self.probe.is_costly(&completion) {
            if self.probe.put_off(&completion, self.now) {
                return None;
            }
            assert!(piece.len() > HANDSHAKE_UNREAD_MAX || self.probe.behind_since().is_some(), "there was room");
            if let Some(judgement) = self.catch_up() {
                return Some(judgement);
            }
        }
        self.drive(|probe, request, now, ops| probe.on(request, &completion, now, ops))
    }

    fn catch_up(&mut self) -> Option<Judgement> {
        self.drive(|probe, request, now, ops| probe.catch_up(request, now, Span::from_micros(5), ops))
    }

    fn sent(&mut self) -> Option<Judgement> {
        let bytes = self.sending.take()?;
        self.server.hear(&bytes);
        let completion = done(OpKind::Send, Ok(bytes.len() as u32), false, &[]);
        self.drive(|probe, request, now, ops| probe.on(request, &completion, now, ops))
    }

    /// The connection ends: in order, or by a reset.
    fn end(&mut self, result: Result<u32, Errno>) -> Option<Judgement> {
        if let Some(judgement) = self.deliver(false).or_else(|| self.catch_up()) {
            return Some(judgement);
        }
        if !self.receiving {
            return None;
        }
        self.receiving = false;
        let completion = done(OpKind::Recv, result, false, &[]);
        self.drive(|probe, request, now, ops| probe.on(request, &completion, now, ops))
    }

    /// One instruction.
    fn obey(&mut self, feed: &mut Feed<'_>) -> Option<Judgement> {
        let instruction = feed.byte();
        let count = usize::from(instruction >> 4);
        match instruction & 15 {
            // The server's next bytes, as they are: 1 to 31, or up to four thousand.
            0 => self.pass(2 * count + 1),
            1 => self.pass(256 * (count + 1)),
            2 => {
                let changed = self.server.outgoing.len().min(1);
                for mut byte in self.server.outgoing.drain(..changed) {
                    byte ^= feed.byte();
                    self.piece.push(byte);
                    self.faithful = false;
                }
            }
            3 => {
                let dropped = (count + 1).min(self.server.outgoing.len());
                self.server.outgoing.drain(..dropped);
                self.faithful &= dropped == 0;
            }
            4 => {
                let added = feed.take(count + 1);
                self.piece.extend_from_slice(added);
                self.faithful &= added.is_empty();
            }
            5 => {
                let length = usize::from(feed.byte()) << count;
                let added = feed.take(length);
                self.piece.extend_from_slice(added);
                self.faithful &= added.is_empty();
            }
            6 => return self.deliver(false),
            7 => return self.deliver(true),
            8 => return self.catch_up(),
            9 => return self.sent(),
            10 => {
                self.now += TLS_REFUSAL_WAIT;
                return self.drive(Probe::woken);
            }
            11 => self.server.say(feed.take(count + 1)),
            12 => self.server.say(EXPECTED),
            13 => self.server.close(),
            14 => return self.end(if count & 1 == 0 { Ok(0) } else { Err(Errno::ECONNRESET) }),
            // The client's bytes reach the server changed.
            _ => {
                let at = usize::from(feed.byte());
                let change = feed.byte();
                if let Some(byte) = self.sending.as_mut().and_then(|bytes| bytes.get_mut(at)) {
                    *byte ^= change;
                    self.faithful &= change == 0;
                }
            }
        }
        None
    }

    fn pass(&mut self, count: usize) {
        let count = count.min(self.server.outgoing.len());
        self.piece.extend(self.server.outgoing.drain(..count));
    }

    /// The rest of the way without anybody in between.
    fn conclude(&mut self) -> Option<Judgement> {
        // Each turn of the longest conversation (SMTP, a handshake of TLS 1.2, an answer) brings something new.
        for _ in 0..16 {
            self.pass(usize::MAX);
            let judged = self.catch_up().or_else(|| self.sent()).or_else(|| self.deliver(false));
            if judged.is_some() || self.led {
                return judged;
            }
        }
        self.server.close();
        self.pass(usize::MAX);
        self.deliver(false).or_else(|| self.end(Ok(0))).or_else(|| self.sent())
    }
}

fn check(flavour: u8, tls: TlsPolicy, proxy: Option<Proxy>) -> Check {
    let tcp = |send: &[u8], expect: &[u8]| {
        Check::Tcp(TcpCheck {
            tls: Some(tls.clone()),
            send: send.into(),
            expect: expect.into(),
            ..TcpCheck::default()
        })
    };
    match flavour & 3 {
        _ if proxy.is_some() => Check::Http(HttpCheck { tls: Some(tls), proxy, ..HttpCheck::default() }),
        0 => tcp(b"", b""),
        1 => tcp(b"ping", b""),
        2 => tcp(b"ping", EXPECTED),
        _ => Check::Http(HttpCheck { tls: Some(tls), keep_alive: true, redirects: 1, ..HttpCheck::default() }),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed(bytes);
    let (flavour, way) = (feed.byte(), feed.byte());
    let insecure = flavour & 4 != 0;
    let stranger = flavour & 8 != 0;
    let config = &BENCH.servers[usize::from(flavour >> 4 & 1)][usize::from(stranger)];
    let (starttls, proxy, script): (_, _, &'static [&'static [u8]]) = match way % 6 {
        1 => (Some(StartTls::Smtp), None, &GREETING),
        2 => (Some(StartTls::Imap), None, &IMAP),
        3 => (Some(StartTls::Postgres), None, &POSTGRES),
        4 => {
            let proxy = Proxy { host: Host::Name("proxy.example".into()), port: 3128, authorization: None };
            (None, Some(proxy), &TUNNEL)
        }
        _ => (None, None, &[]),
    };
    let tls = TlsPolicy {
        insecure_skip_verify: insecure,
        min_days_left: (flavour & 32 != 0).then_some(100_000),
        starttls,
        ..TlsPolicy::default()
    };
    let policy = policy(check(flavour, tls.clone(), proxy));
    let mut trust = Trust::new(Arc::new(Standing));
    trust.add(&tls, None, BENCH.contexts[usize::from(insecure)].clone());
    // Nothing of one run is left to the next.
    let mut config = config.clone();
    config.session_storage = ServerSessionMemoryCache::new(4);
    run(&policy, &trust, config, script, &mut feed, stranger && !insecure, flavour & 64 != 0);
});

fn run(
    policy: &Arc<Policy>,
    trust: &Trust,
    config: ServerConfig,
    script: &'static [&'static [u8]],
    feed: &mut Feed<'_>,
    is_impostor: bool,
    puts_off: bool,
) {
    let target = TargetRef { host: HostRef::Name("fuzz.example"), port: 443, path: "/" };
    let address = "127.0.0.1:443".parse().expect("an address");
    let request = Request { policy, target, address, hop: None, contexts: trust };
    let mut server = Server {
        script: script.iter(),
        tls: ServerConnection::new(Arc::new(config)).expect("a server"),
        broken: false,
        outgoing: Vec::new(),
        said: Vec::new(),
    };
    // Of SMTP and IMAP the server says the first word.
    if matches!(policy.check.tls().and_then(|tls| tls.starttls), Some(StartTls::Smtp | StartTls::Imap)) {
        server.hear(&[]);
    }
    let mut now = Instant::ZERO;
    let probe = Probe::start(&request, now, &mut Ops::default());
    now += Span::from_millis(1);
    let mut wire = Wire {
        request,
        probe,
        server,
        now,
        piece: Vec::new(),
        sending: None,
        receiving: false,
        led: false,
        faithful: true,
    };
    let connected = done(OpKind::Connect, Ok(0), false, &[]);
    let mut judgement = if puts_off && wire.probe.put_off(&connected, now) {
        wire.catch_up()
    } else {
        wire.drive(|probe, request, now, ops| probe.on(request, &connected, now, ops))
    };
    while judgement.is_none() && !wire.led && !feed.is_empty() {
        judgement = wire.obey(feed);
    }
    if judgement.is_none() && !wire.led {
        judgement = wire.conclude();
    }
    if judgement.is_none() && wire.led {
        return;
    }
    let outcome = match &judgement {
        Some(judgement) => judgement.outcome.clone(),
        // Nobody says anything any more: its time will be up.
        None => wire.probe.expire(&wire.request, wire.now),
    };
    assert_sound(&outcome);
    if is_ok(outcome.code) {
        assert!(!is_impostor, "a stranger passed: {outcome:?}");
        assert!(wire.server.script.as_slice().is_empty() || !wire.faithful, "without its STARTTLS: {outcome:?}");
    }
    if outcome.code == Code::L7Ok && matches!(policy.check, Check::Tcp(_)) {
        let heard = wire.server.said.windows(EXPECTED.len()).any(|window| window == EXPECTED);
        assert!(heard, "nobody said what was expected: {outcome:?}");
    }
    let Some(Judgement { then: Then::Keep, .. }) = judgement else { return };
    // What comes while nobody uses the connection: tickets at the most, or it is given up.
    if let Some(mut kept) = wire.probe.into_kept() {
        wire.server.say(feed.take(3));
        let heard = std::mem::take(&mut wire.server.outgoing);
        let completion = done(OpKind::Recv, Ok(heard.len() as u32), true, &heard);
        let is_of_use = kept.hears(&completion);
        assert!(!is_of_use || !heard.is_empty(), "an end keeps nothing");
    }
}
