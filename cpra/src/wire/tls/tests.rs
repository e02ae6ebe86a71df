//! A client against a server of rustls, in memory, under a clock that stands where the test put it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ServerConfig, ServerConnection, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::{Blame, Context, Contexts, Failure, Judge, Session, Trust, ended, ends_within};
use crate::domain::HostRef;
use crate::domain::monitor::TlsPolicy;
use crate::units::Timestamp;
use crate::units::limits::{TLS_JUDGED_MAX, TLS_TICKETS_MAX, TLS_TICKETS_PER_PEER_MAX};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name))
    };
}

const CA: &[u8] = fixture!("ca.pem");
const INTERMEDIATE: &[u8] = fixture!("intermediate.pem");
const SERVER: (&[u8], &[u8]) = (fixture!("server.pem"), fixture!("server.key"));
const BELOW: (&[u8], &[u8]) = (fixture!("below.pem"), fixture!("below.key"));
const OWN: (&[u8], &[u8]) = (fixture!("self.pem"), fixture!("self.key"));
const CLIENT: (&[u8], &[u8]) = (fixture!("client.pem"), fixture!("client.key"));

const DAY: u64 = 24 * 3600;
const YEAR: u64 = 365 * DAY;

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("a certificate")
}

fn key(pem: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem).expect("a key")
}

/// When the server's certificate ends, in seconds.
fn server_end() -> u64 {
    let (_, end) = super::judge::validity(&certificate(SERVER.0)).expect("it is well-formed");
    end.as_micros().unsigned_abs() / 1_000_000
}

#[derive(Debug)]
struct Standing(AtomicU64);

impl TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

struct Bench {
    clock: Arc<Standing>,
    server: ServerConfig,
    policy: TlsPolicy,
    trust: Trust,
    name: &'static str,
}

impl Bench {
    fn new(chain: &[&[u8]], server_key: &[u8], name: &'static str) -> Self {
        Self::with(chain, server_key, name, rustls::ALL_VERSIONS, &[CA])
    }

    fn with(
        chain: &[&[u8]],
        server_key: &[u8],
        name: &'static str,
        versions: &[&'static SupportedProtocolVersion],
        trusted: &[&[u8]],
    ) -> Self {
        let clock = Arc::new(Standing(AtomicU64::new(server_end() - YEAR)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_details(Arc::clone(&provider), clock.clone())
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(chain.iter().map(|pem| certificate(pem)).collect(), key(server_key))
            .expect("a certificate and its key");
        let mut bench = Self { trust: Trust::new(clock.clone()), clock, server, policy: TlsPolicy::default(), name };
        bench.trust_in(trusted, None);
        bench
    }

    fn trust_in(&mut self, trusted: &[&[u8]], client: Option<(&[u8], &[u8])>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let named: Vec<_> = trusted.iter().map(|pem| certificate(pem)).collect();
        for certificate in &named {
            roots.add(certificate.clone()).expect("a root");
        }
        let judge = Judge::new(Arc::new(roots), named, Arc::clone(&provider)).expect("there is a root");
        let judge = (!self.policy.insecure_skip_verify).then_some(judge);
        let client = client.map(|(chain, secret)| (vec![certificate(chain)], key(secret)));
        let clock: Arc<dyn TimeProvider> = self.clock.clone();
        let context = Context::new(judge, client, &provider, &clock).expect("it fits together");
        self.trust.add(&self.policy, None, context);
    }

    fn at(&self, seconds: u64) -> &Self {
        self.clock.0.store(seconds, Ordering::Relaxed);
        self
    }

    fn begin(&self) -> (Box<dyn Session>, ServerConnection) {
        let name = self.name.parse().map_or(HostRef::Name(self.name), HostRef::Literal);
        let peer = "127.0.0.1:443".parse().expect("an address");
        let client = self.trust.begin(&self.policy, None, name, peer).expect("it was loaded");
        (client, ServerConnection::new(Arc::new(self.server.clone())).expect("a server"))
    }

    /// Talks until both have nothing to say.
    fn shake(&self) -> Result<(Box<dyn Session>, ServerConnection), Failure> {
        let (mut client, mut server) = self.begin();
        exchange(&mut *client, &mut server, &mut Vec::new())?;
        assert!(client.is_established());
        Ok((client, server))
    }

    #[track_caller]
    fn refuses(&self, blame: Blame, words: &str) {
        let failure = self.shake().expect_err("it must be refused");
        assert_eq!(failure.blame, blame, "{}", failure.words);
        assert!(failure.words.starts_with(words), "{:?} should begin with {words:?}", failure.words);
    }
}

/// Carries bytes to and fro until neither has any, in pieces.
fn exchange(client: &mut dyn Session, server: &mut ServerConnection, heard: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        let mut sent = Vec::new();
        client.drain(&mut sent);
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            // Its alert says what it was.
            let _ = server.process_new_packets();
        }
        let mut answered = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answered).expect("memory");
        }
        if sent.is_empty() && answered.is_empty() {
            return Ok(());
        }
        for piece in answered.chunks(100) {
            client.read(piece, heard)?;
        }
    }
}

fn resumed(server: &ServerConnection) -> bool {
    server.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

#[test]
fn bytes_go_through_and_come_back() {
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        for name in ["a.example", "x.b.example", "127.0.0.1"] {
            let bench = Bench::with(&[SERVER.0], SERVER.1, name, versions, &[CA]);
            let (mut client, mut server) = bench.shake().expect("all is well");
            assert_eq!(client.may_be_refused(), versions == [&rustls::version::TLS13]);
            client.write(&[7; 10_000]).expect("it is open");
            exchange(&mut *client, &mut server, &mut Vec::new()).expect("nothing is wrong");
            let mut said = vec![0; 20_000];
            let len = std::io::Read::read(&mut server.reader(), &mut said).expect("it was said");
            assert!(len > 0 && said[..len].iter().all(|&byte| byte == 7));
            std::io::Write::write_all(&mut server.writer(), b"an answer").expect("memory");
            server.send_close_notify();
            let mut heard = Vec::new();
            exchange(&mut *client, &mut server, &mut heard).expect("nothing is wrong");
            assert_eq!((heard.as_slice(), client.is_closed()), (&b"an answer"[..], true));
        }
    }
}

#[test]
fn a_certificate_is_refused_with_the_exact_reason() {
    use Blame::Certificate;
    let good = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    good.at(server_end() + 3 * DAY + 1).refuses(Certificate, "certificate expired on ");
    assert!(good.shake().expect_err("still").words.ends_with(" (3 days ago)"));
    good.at(server_end() + 60).refuses(Certificate, "certificate expired on ");
    good.at(YEAR).refuses(Certificate, "certificate is not yet valid until ");
    Bench::new(&[SERVER.0], SERVER.1, "c.example")
        .refuses(Certificate, "certificate is for a.example, *.b.example, 127.0.0.1, not c.example");
    Bench::new(&[SERVER.0], SERVER.1, "127.0.0.2").refuses(Certificate, "certificate is for a.example");
    Bench::new(&[OWN.0], OWN.1, "self.example").refuses(Certificate, "self-signed certificate (CN=self.example)");
    Bench::new(&[BELOW.0], BELOW.1, "below.example").refuses(
        Certificate,
        "signed by an unknown authority: CN=Test Intermediate, and no intermediate certificate was sent",
    );
    assert!(Bench::new(&[BELOW.0, INTERMEDIATE], BELOW.1, "below.example").shake().is_ok());
    let stranger = |chain: &[&[u8]]| Bench::with(chain, SERVER.1, "a.example", rustls::ALL_VERSIONS, &[OWN.0]);
    stranger(&[SERVER.0, CA]).refuses(Certificate, "signed by an unknown authority: CN=Test Root");
    stranger(&[SERVER.0]).refuses(Certificate, "signed by an unknown authority: CN=Test Root, and no intermediate");
    Bench::new(&[CLIENT.0], CLIENT.1, "a.example").refuses(Certificate, "certificate is ");
}

#[test]
fn a_certificate_that_was_named_by_itself_is_trusted_for_its_name_and_time() {
    let named = |name| Bench::with(&[OWN.0], OWN.1, name, rustls::ALL_VERSIONS, &[OWN.0]);
    assert!(named("self.example").shake().is_ok());
    named("a.example").refuses(Blame::Certificate, "certificate is for self.example, not a.example");
    let late = named("self.example");
    late.at(server_end() + 60 * YEAR).refuses(Blame::Certificate, "certificate expired on ");
}

#[test]
fn who_does_not_care_takes_anything() {
    let mut bench = Bench::new(&[OWN.0], OWN.1, "nobody.example");
    bench.policy.insecure_skip_verify = true;
    bench.trust_in(&[CA], None);
    let (client, _) = bench.at(YEAR).shake().expect("whatever");
    assert_eq!(client.certificate_end(), None);
}

#[test]
fn the_protocols_faults_are_told_in_words() {
    let bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    let table: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "server speaks no TLS (first bytes: \"HTTP/1.1 400 Bad Request\\r\\n\")"),
        (b"SSH-2.0-OpenSSH\r\n", "server speaks no TLS (first bytes: \"SSH-2.0"),
        (&[0x15, 3, 1, 0, 2, 2, 70], "server refused: protocol version alert (70): it takes neither TLS 1.2"),
        (&[0x15, 3, 3, 0, 2, 2, 40], "server refused: handshake failure alert (40): no common cipher"),
        (&[0x15, 3, 3, 0, 2, 2, 112], "server refused: unrecognised name alert (112): it does not know"),
        (&[0x16, 3, 3, 0, 4, 2, 0, 0, 0], "broken TLS message from the server"),
    ];
    for (bytes, words) in table {
        let (mut client, _) = bench.begin();
        let failure = client.read(bytes, &mut Vec::new()).expect_err("no handshake");
        assert_eq!(failure.blame, Blame::Protocol, "{}", failure.words);
        assert!(failure.words.starts_with(words), "{:?} should begin with {words:?}", failure.words);
    }
}

#[test]
fn noise_is_an_error_and_no_panic() {
    let bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let (mut client, mut server) = bench.begin();
        let mut sent = Vec::new();
        client.drain(&mut sent);
        server.read_tls(&mut sent.as_slice()).expect("memory");
        server.process_new_packets().expect("a sound hello");
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).expect("memory");
        }
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..answer.len());
            answer[at] ^= random.u8(1..);
        }
        let mut plaintext = Vec::new();
        let read = client.read(&answer, &mut plaintext);
        assert!(read.is_err() || !client.is_established() || !plaintext.is_empty() || answer.len() > 1);
    }
}

#[test]
fn a_refusal_of_our_certificate_comes_after_the_handshake_in_tls_1_3() {
    let mut bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(CA)).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().expect("sound");
    bench.server = ServerConfig::builder_with_details(provider, bench.clock.clone())
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate(SERVER.0)], key(SERVER.1))
        .expect("a certificate and its key");
    let (mut client, mut server) = bench.begin();
    let failure = exchange(&mut *client, &mut server, &mut Vec::new()).expect_err("it wants a certificate");
    assert!(client.is_established() && client.may_be_refused());
    assert_eq!(failure.words, "server refused: certificate required alert (116): it wants a client certificate");
    bench.trust_in(&[CA], Some(CLIENT));
    bench.shake().expect("it has one now");
    bench.trust_in(&[CA], Some(OWN));
    let failure = bench.shake().expect_err("not this one");
    assert!(failure.words.ends_with("it does not take our certificate"), "{}", failure.words);
}

#[test]
fn sessions_are_resumed_for_an_hour_after_the_last_judgement() {
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let bench = Bench::with(&[SERVER.0], SERVER.1, "a.example", versions, &[CA]);
        let hour = TLS_JUDGED_MAX.as_secs();
        let begin = server_end() - YEAR;
        let (client, server) = bench.at(begin).shake().expect("all is well");
        assert!(!resumed(&server) && bench.trust.tickets() > 0);
        let judged = client.judged_at();
        // However often it is resumed in between.
        for minutes in [1, 20, 40, 59] {
            let (client, server) = bench.at(begin + minutes * 60).shake().expect("all is well");
            assert!(resumed(&server), "after {minutes} minutes");
            assert_eq!(client.judged_at(), judged, "the judgement is as old as it was");
            assert!(client.certificate_end().is_some(), "its end is known all the same");
        }
        let (client, server) = bench.at(begin + hour).shake().expect("all is well");
        assert!(!resumed(&server), "an hour has passed");
        assert!(client.judged_at() > judged);
    }
}

#[test]
fn a_certificate_that_ends_is_noticed_on_a_resumed_session() {
    let bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    bench.at(server_end() - 60).shake().expect("it has a minute left");
    bench.at(server_end() + 60).refuses(Blame::Certificate, "certificate expired on ");
}

#[test]
fn tickets_are_bounded_in_sum_and_per_server() {
    let bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    for _ in 0..TLS_TICKETS_PER_PEER_MAX {
        // Begun before any of them has laid in its tickets.
        bench.shake().expect("all is well");
    }
    let sessions: Vec<_> = (0..TLS_TICKETS_PER_PEER_MAX).map(|_| bench.begin()).collect();
    for (mut client, mut server) in sessions {
        exchange(&mut *client, &mut server, &mut Vec::new()).expect("all is well");
    }
    assert!(bench.trust.tickets() <= TLS_TICKETS_PER_PEER_MAX, "{}", bench.trust.tickets());
    const { assert!(TLS_TICKETS_PER_PEER_MAX < TLS_TICKETS_MAX) };
}

#[test]
fn what_was_not_loaded_and_what_is_no_name_are_our_own_faults() {
    let bench = Bench::new(&[SERVER.0], SERVER.1, "a.example");
    let peer = "127.0.0.1:443".parse().expect("an address");
    let other = TlsPolicy { insecure_skip_verify: true, ..TlsPolicy::default() };
    for (policy, name) in [(&other, "a.example"), (&bench.policy, "no name")] {
        let failure = bench.trust.begin(policy, None, HostRef::Name(name), peer).expect_err("it cannot begin");
        assert_eq!(failure.blame, Blame::Ours, "{}", failure.words);
    }
}

#[test]
fn the_days_until_an_end_are_counted() {
    let at = |days: i64| Timestamp::from_micros(days * DAY.cast_signed() * 1_000_000);
    assert_eq!(ends_within(14, at(23), at(9)), None);
    assert_eq!(ends_within(14, at(22), at(9)).as_deref(), Some("certificate ends in 13 days, on 1970-01-23"));
    assert_eq!(ends_within(14, at(10), at(9)).as_deref(), Some("certificate ends in 1 day, on 1970-01-11"));
    assert_eq!(ends_within(1, at(9), at(9)).as_deref(), Some("certificate ends in less than a day, on 1970-01-10"));
    assert_eq!(ended(at(9), at(9)), None);
    assert_eq!(ended(at(9), at(12)).as_deref(), Some("certificate expired on 1970-01-10 (3 days ago)"));
}
