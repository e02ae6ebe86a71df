use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::domain::monitor::Secret;
use crate::os::lane::{Disk, block_on};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let is_it = |line: &&str| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

pub(crate) enum Reply {
    /// These bytes; the connection stays.
    Say(String),
    /// These bytes, and the end.
    Last(String),
    /// These bytes, then nothing for so long, and the end.
    Hang(String, Duration),
}

/// A status, headers (each with its line's end) and a body.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Say(format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

/// Answers as it is told to, and remembers what it was asked. Its threads end with the process of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `reply` is given the number of the request and the request.
    pub(crate) fn new(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(None, reply)
    }

    fn with(tls: Option<Arc<ServerConfig>>, reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (all, reply) = (Arc::clone(&seen), Arc::new(reply));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (all, reply, tls) = (Arc::clone(&all), Arc::clone(&reply), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(connection, stream, &all, &*reply),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        serve(connection, StreamOwned::new(tls, stream), &all, &*reply);
                    }
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    connection: usize,
    mut stream: impl Read + Write,
    all: &Mutex<Vec<Seen>>,
    reply: &(impl Fn(usize, &Seen) -> Reply + ?Sized),
) {
    while let Some(seen) = request(connection, &mut stream) {
        let number = {
            let mut all = all.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        match reply(number, &seen) {
            Reply::Say(bytes) => {
                let _ = stream.write_all(bytes.as_bytes());
                let _ = stream.flush();
            }
            Reply::Last(bytes) => {
                let _ = stream.write_all(bytes.as_bytes());
                let _ = stream.flush();
                return;
            }
            Reply::Hang(bytes, span) => {
                let _ = stream.write_all(bytes.as_bytes());
                let _ = stream.flush();
                std::thread::sleep(span);
                return;
            }
        }
    }
}

fn request(connection: usize, stream: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let mut seen = Seen { connection, head: String::from_utf8(bytes).unwrap(), body: Vec::new() };
    seen.body = vec![0; seen.header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

fn transport() -> Transport {
    Transport { timeout: Span::from_secs(10), ..Transport::default() }
}

fn post(url: &str) -> Request<'_> {
    Request { method: "POST", url, headers: vec![("x-key", "1".into())], body: b"{}".to_vec() }
}

fn send(transport: &Transport, url: &str) -> Result<Answer, Fault> {
    block_on(Disk::Blocking, Connections::new(&Web::default(), transport, Again::Doubled).send(&post(url)))
}

#[test]
fn a_request_is_sent_as_given_on_either_runtime() {
    for disk in [Disk::Uring, Disk::Blocking] {
        let server = Server::new(|_, _| answer(202, "Retry-After: 7\r\n", "well"));
        let connections = Connections::new(&Web::default(), &transport(), Again::Known);
        let url = server.url("/hook//a%2Fb/T0?q=%20x+y&z#part");
        let got = block_on(disk, connections.send(&post(&url))).unwrap();
        let expected =
            Answer { status: 202, retry_after: Some(Span::from_secs(7)), body: b"well".to_vec(), ..Answer::default() };
        assert_eq!(got, expected);
        let [seen] = &server.seen()[..] else { panic!("one request") };
        assert!(seen.head.starts_with("POST /hook//a%2Fb/T0?q=%20x+y&z HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("user-agent"), Some(USER_AGENT));
        assert_eq!((seen.header("x-key"), seen.header("content-length")), (Some("1"), Some("2")));
    }
}

#[test]
fn what_would_be_another_address_is_refused() {
    for good in
        ["http://h", "http://h/", "https://h:8443?a=b", "http://h/a//b?x=../y", "http://h/é b", "HTTP://u:p@H/x"]
    {
        assert!(address(good).is_ok(), "{good}");
    }
    let others =
        ["http:///x", "http://h/a/../b", "http://h/a/%2e%2e/b", "http://h/./b", "http://h\\b", "http://h/a\\b"];
    for bad in ["", "h", "ftp://h/", "unix:/x"].into_iter().chain(others) {
        assert!(address(bad).is_err(), "{bad}");
    }
    let secret = send(&transport(), "http://127.0.0.1:1/a/../tellnobody").unwrap_err();
    assert!(matches!(&secret, Fault::Unusable(words) if !words.contains("tellnobody")), "{secret:?}");
    let mut request = post("http://127.0.0.1:1/");
    request.headers.push(("x-other", "a\r\nb".into()));
    let connections = Connections::new(&Web::default(), &transport(), Again::Known);
    let fault = block_on(Disk::Blocking, connections.send(&request)).unwrap_err();
    assert_eq!(fault, Fault::Unusable("the header \"x-other\" cannot be sent".into()));
}

#[test]
fn a_fault_says_whether_anything_has_left() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/T0/tellnobody");
    assert_eq!(send(&transport(), &url), Err(Fault::NotSent(format!("http://{closed}: connection refused"))));

    let server = Server::new(|_, _| Reply::Last(String::new()));
    let words = format!("http://{}: the connection was closed before the answer", server.address);
    assert_eq!(send(&transport(), &server.url("/tellnobody")), Err(Fault::Unanswered(words)));

    let server = Server::new(|_, _| Reply::Last("hello\r\n\r\n".into()));
    let fault = send(&transport(), &server.url("/tellnobody")).unwrap_err();
    assert!(matches!(&fault, Fault::Unanswered(words) if words.ends_with("does not speak HTTP")), "{fault:?}");

    let short = Transport { timeout: Span::from_millis(300), ..transport() };
    let server = Server::new(|_, _| Reply::Hang(String::new(), Duration::from_secs(5)));
    let words = format!("http://{}: no answer within 300 ms", server.address);
    assert_eq!(send(&short, &server.url("/tellnobody")), Err(Fault::Unanswered(words)));

    // No name has labels so long, so that nobody needs to be asked.
    let fault = send(&transport(), &format!("http://{}.example/tellnobody", "x".repeat(80))).unwrap_err();
    let words = "x.example: the name is not found: ";
    assert!(matches!(&fault, Fault::NotSent(said) if said.contains(words)), "{fault:?}");
}

#[test]
fn a_connection_that_went_stale_costs_one_more_request_only_where_a_second_one_is_known() {
    // Every connection answers one request, and closes at the second without a word.
    let stale = || {
        let known = Mutex::new(std::collections::BTreeSet::new());
        Server::new(move |_, seen| match known.lock().unwrap().insert(seen.connection) {
            true => answer(200, "", "ok"),
            false => Reply::Last(String::new()),
        })
    };
    let server = stale();
    let connections = Connections::new(&Web::default(), &transport(), Again::Known);
    block_on(Disk::Uring, async {
        for _ in 0..2 {
            let answer = connections.send(&post(&server.url("/"))).await;
            assert_eq!(answer.unwrap().status, 200);
        }
    });
    let on: Vec<usize> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(on, [0, 0, 1], "kept, and once more on a new one");

    let server = stale();
    let connections = Connections::new(&Web::default(), &transport(), Again::Doubled);
    block_on(Disk::Uring, async {
        for _ in 0..2 {
            connections.send(&post(&server.url("/"))).await.unwrap();
        }
    });
    let on: Vec<usize> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(on, [0, 1], "each on its own");

    // Nothing was kept before: it is not tried twice.
    let server = Server::new(|_, _| Reply::Last(String::new()));
    let connections = Connections::new(&Web::default(), &transport(), Again::Known);
    let fault = block_on(Disk::Uring, connections.send(&post(&server.url("/")))).unwrap_err();
    assert!(matches!(fault, Fault::Unanswered(_)) && server.seen().len() == 1, "{fault:?}");
}

#[test]
fn an_answer_is_bounded_and_its_end_is_noticed() {
    let server = Server::new(|_, _| answer(200, "", &"x".repeat(3 * WEB_BODY_MAX)));
    let got = send(&transport(), &server.url("/")).unwrap();
    assert_eq!((got.body.len(), got.is_cut), (WEB_BODY_MAX, false));
    let server = Server::new(|_, _| Reply::Last("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nok".into()));
    let got = send(&transport(), &server.url("/")).unwrap();
    assert_eq!((&*got.body, got.is_cut), (&b"ok"[..], true));
    let head = "HTTP/1.1 202 X\r\ncontent-length: 9\r\n\r\nok";
    let server = Server::new(move |_, _| Reply::Hang(head.into(), Duration::from_secs(5)));
    let short = Transport { timeout: Span::from_millis(300), ..transport() };
    let got = send(&short, &server.url("/")).unwrap();
    assert_eq!((got.status, &*got.body, got.is_cut), (202, &b"ok"[..], true), "the status has come");
}

#[test]
fn a_redirect_is_told_and_not_followed() {
    let server = Server::new(|_, _| answer(307, "Location: https://else.example/T0/tellnobody\r\n", ""));
    let got = send(&transport(), &server.url("/")).unwrap();
    assert_eq!((got.status, got.elsewhere.as_deref(), server.seen().len()), (307, Some("https://else.example"), 1));
}

#[test]
fn a_pause_is_seconds_or_a_date() {
    let now = Timestamp::from_micros(784_111_777_000_000);
    let cases = [
        ("120", Some(Span::from_secs(120))),
        (" 0 ", Some(Span::ZERO)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(Span::from_secs(60))),
        ("Sun, 06 Nov 1994 08:40:37 GMT", Some(Span::ZERO)),
        ("999999999", Some(RETRY_AFTER_MAX)),
        ("-1", None),
        ("soon", None),
    ];
    for (value, span) in cases {
        assert_eq!(retry_after(value, now), span, "{value}");
    }
}

#[test]
fn a_proxy_is_given_the_whole_address() {
    let proxy = Server::new(|_, _| answer(200, "", "ok"));
    let through = Transport { proxy: Some(Secret::new(format!("http://me:pw@{}", proxy.address))), ..transport() };
    let connections = Connections::new(&Web::default(), &through, Again::Known);
    let got = block_on(Disk::Blocking, connections.send(&post("http://hooks.example/T0?a"))).unwrap();
    let shown = format!("{connections:?}");
    assert!(got.body == b"ok" && !shown.contains("pw"), "{shown}");
    let seen = proxy.seen();
    assert!(seen[0].head.starts_with("POST http://hooks.example/T0?a HTTP/1.1\r\n"), "{}", seen[0].head);
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic bWU6cHc="));
    let broken = Transport { proxy: Some(Secret::new("http://me:tellnobody@[")), ..transport() };
    let fault = send(&broken, "http://hooks.example/").unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(words) if !words.contains("tellnobody")), "{fault:?}");
}

#[test]
fn a_name_that_nobody_answers_for_holds_up_its_own_destination_only() {
    let web = Web::default();
    let short = Transport { timeout: Span::from_millis(200), ..transport() };
    let stuck = Connections::new(&web, &short, Again::Known);
    let server = Server::new(|_, _| answer(200, "", "ok"));
    let url = format!("http://localhost:{}/", server.address.port());
    // As if a lookup went on.
    let turn = stuck.turn.try_acquire().unwrap();
    block_on(Disk::Uring, async {
        let fault = stuck.send(&post(&url)).await.unwrap_err();
        assert!(matches!(&fault, Fault::NotSent(words) if words.ends_with("no connection within 200 ms")), "{fault:?}");
        let other = Connections::new(&web, &transport(), Again::Known);
        assert_eq!(other.send(&post(&url)).await.unwrap().status, 200);
    });
    drop(turn);
    assert!(web.is_quiet());
}

/// The certificates of the fixtures hold until 2036.
#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/tls/fixtures");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(fixtures.join("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(fixtures.join("server.key")).unwrap(),
        )
        .unwrap();
    let server = Server::with(Some(Arc::new(config)), |_, _| answer(200, "", "ok"));
    let url = format!("https://{}/tellnobody", server.address);
    let trusting = Transport { ca_file: Some(fixtures.join("ca.pem")), ..transport() };
    assert_eq!(send(&trusting, &url).unwrap().status, 200);

    let fault = send(&transport(), &url).unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(words) if words.contains("certificate")), "{fault:?}");
    let wrong = format!("https://localhost:{}/", server.address.port());
    let fault = send(&trusting, &wrong).unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(words) if words.contains("certificate is for a.example")), "{fault:?}");
    let missing = Transport { ca_file: Some(fixtures.join("missing.pem")), ..transport() };
    let fault = send(&missing, &url).unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(words) if words.contains("missing.pem: cannot be read")), "{fault:?}");
}
