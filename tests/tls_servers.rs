//! TLS checks against real servers: what each of them is, from the transport up to the certificate, is told apart.

mod counterparts;

use std::path::PathBuf;
use std::time::Duration;

use cpra::domain::monitor::{ClientCertificate, Proxy, Secret, StartTls, TlsPolicy};
use cpra::domain::{Code, Host, Outcome, TcpCheck, Verdict};
use cpra::wire::preamble::basic;

use counterparts::authority::{Authority, DAY, Issued, Signer, Wish, date};
use counterparts::engine::{Engine, Monitored};
use counterparts::nginx::Nginx;
use counterparts::raw::{FullBacklog, RawServer, Script};
use counterparts::secured::{End, Ending, Secured};
use counterparts::{free_port, loopbacks};

const SOON: Duration = Duration::from_millis(400);
const PATIENT: Duration = Duration::from_secs(9);

#[track_caller]
fn assert_outcome(outcome: &Outcome, code: Code, verdict: Verdict, evidence: &str) {
    let words = outcome.evidence.as_deref().unwrap_or("");
    assert_eq!((outcome.code, outcome.verdict()), (code, verdict), "{words:?}");
    if evidence.is_empty() {
        assert_eq!(words, "");
    } else {
        assert!(words.starts_with(evidence), "{words:?} should begin with {evidence:?}");
    }
}

#[track_caller]
fn assert_ok(monitored: &Monitored, code: Code) {
    assert_outcome(&Engine::of(&[monitored]).check(0), code, Verdict::Ok, "");
}

#[track_caller]
fn assert_fails(monitored: &Monitored, code: Code, evidence: &str) {
    assert_outcome(&Engine::of(&[monitored]).check(0), code, Verdict::Fail, evidence);
}

/// Trusts the authority, and expects `good.example`.
fn policy(authority: &Authority) -> TlsPolicy {
    TlsPolicy { server_name: Some("good.example".into()), ca_file: Some(authority.root()), ..TlsPolicy::default() }
}

fn good(authority: &Authority) -> Issued {
    authority.issue("good", Wish::of("DNS:good.example"))
}

fn client(issued: &Issued) -> Option<ClientCertificate> {
    Some(ClientCertificate { cert_file: issued.cert.clone(), key_file: issued.key.clone() })
}

#[test]
fn openssl_is_judged_by_its_certificate() {
    let Some(authority) = Authority::start() else { return };
    let wish = Wish::of("DNS:good.example");
    let expired = format!("certificate expired on {} (3 days ago)", date(-3 * DAY - 1));
    let early = format!("certificate is not yet valid until {} (in 2 days)", date(2 * DAY + 1));
    let end = format!("certificate ends in 9 days, on {}", date(9 * DAY + 1));
    let near = Wish { ends: 9 * DAY + 1, ..wish };
    let strict = |days| TlsPolicy { min_days_left: Some(days), ..policy(&authority) };
    let below = TlsPolicy { server_name: Some("below.good.example".into()), ..policy(&authority) };
    let by_address = TlsPolicy { server_name: None, ..policy(&authority) };
    let careless = TlsPolicy { insecure_skip_verify: true, min_days_left: Some(900), ..policy(&authority) };
    let table: [(&str, Wish<'_>, TlsPolicy, Code, Verdict, &str); 17] = [
        ("valid", wish, policy(&authority), Code::L6Ok, Verdict::Ok, ""),
        ("several", Wish::of("DNS:a.example,DNS:good.example"), policy(&authority), Code::L6Ok, Verdict::Ok, ""),
        ("wildcard", Wish::of("DNS:*.good.example"), below, Code::L6Ok, Verdict::Ok, ""),
        ("address", Wish::of("IP:127.0.0.1"), by_address.clone(), Code::L6Ok, Verdict::Ok, ""),
        ("below", Wish { by: Signer::Intermediate, ..wish }, policy(&authority), Code::L6Ok, Verdict::Ok, ""),
        (
            "expired",
            Wish { begins: -30 * DAY, ends: -3 * DAY - 1, ..wish },
            policy(&authority),
            Code::L6Cert,
            Verdict::Fail,
            &expired,
        ),
        ("early", Wish { begins: 2 * DAY + 1, ..wish }, policy(&authority), Code::L6Cert, Verdict::Fail, &early),
        (
            "stranger",
            Wish::of("DNS:other.example"),
            policy(&authority),
            Code::L6Cert,
            Verdict::Fail,
            "certificate is for other.example, not good.example",
        ),
        ("no-address", wish, by_address, Code::L6Cert, Verdict::Fail, "certificate is for good.example, not 127.0.0.1"),
        (
            "own",
            Wish { by: Signer::Itself, ..wish },
            policy(&authority),
            Code::L6Cert,
            Verdict::Fail,
            "self-signed certificate (CN=good.example)",
        ),
        (
            "untrusted",
            wish,
            TlsPolicy { ca_file: None, ..policy(&authority) },
            Code::L6Cert,
            Verdict::Fail,
            "signed by an unknown authority: CN=Test Root, and no intermediate certificate was sent",
        ),
        (
            "old-middle",
            Wish { by: Signer::Expired, ..wish },
            policy(&authority),
            Code::L6Cert,
            Verdict::Fail,
            "intermediate certificate CN=Test expired-middle expired on ",
        ),
        ("near", near, strict(14), Code::L6Ok, Verdict::Warn, &end),
        ("near-enough", near, strict(9), Code::L6Ok, Verdict::Ok, ""),
        ("near-expired", Wish { ends: -1, ..near }, strict(14), Code::L6Cert, Verdict::Fail, "certificate expired on "),
        ("careless", Wish { begins: -30 * DAY, ends: -DAY, ..wish }, careless.clone(), Code::L6Ok, Verdict::Ok, ""),
        ("careless-own", Wish { by: Signer::Itself, ..wish }, careless, Code::L6Ok, Verdict::Ok, ""),
    ];
    for (name, wish, tls, code, verdict, evidence) in table {
        println!("{name}");
        let issued = authority.issue(name, wish);
        let Some(server) = Secured::openssl(&issued, &[]) else { return };
        let outcome = Engine::of(&[&Monitored::tls(server.address(), tls)]).check(0);
        assert_outcome(&outcome, code, verdict, evidence);
        if code == Code::L6Ok {
            let latency = outcome.latency;
            assert!(latency.tls > cpra::units::Span::ZERO && latency.total >= latency.connect + latency.tls);
        }
    }
}

#[test]
fn a_missing_intermediate_is_told_as_such() {
    let Some(authority) = Authority::start() else { return };
    let mut issued = authority.issue("below", Wish { by: Signer::Intermediate, ..Wish::of("DNS:good.example") });
    issued.chain.clone_from(&issued.cert);
    let Some(server) = Secured::openssl(&issued, &[]) else { return };
    let words = "signed by an unknown authority: CN=Test intermediate, and no intermediate certificate was sent";
    assert_fails(&Monitored::tls(server.address(), policy(&authority)), Code::L6Cert, words);
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_when_it_is_named() {
    let Some(authority) = Authority::start() else { return };
    let issued = authority.issue("own", Wish { by: Signer::Itself, ..Wish::of("DNS:good.example") });
    let Some(server) = Secured::openssl(&issued, &[]) else { return };
    let named = TlsPolicy { ca_file: Some(issued.cert.clone()), ..policy(&authority) };
    assert_ok(&Monitored::tls(server.address(), named.clone()), Code::L6Ok);
    let other = TlsPolicy { server_name: Some("other.example".into()), ..named };
    assert_fails(&Monitored::tls(server.address(), other), Code::L6Cert, "certificate is for good.example, not other");
}

#[test]
fn openssl_is_judged_by_its_protocol() {
    let Some(authority) = Authority::start() else { return };
    let issued = good(&authority);
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let table: [(&[&str], Code, &str); 6] = [
        (&["-tls1_2"], Code::L6Ok, ""),
        (&["-tls1_3"], Code::L6Ok, ""),
        (&["-groups", "P-384"], Code::L6Ok, ""),
        (&old, Code::L6Rsp, "server refused: protocol version alert (70): it takes neither TLS 1.2 nor TLS 1.3"),
        (
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
            Code::L6Rsp,
            "server refused: handshake failure alert (40): no common cipher",
        ),
        (&["-groups", "P-521"], Code::L6Rsp, "server refused: handshake failure alert (40): no common cipher"),
    ];
    for (arguments, code, evidence) in table {
        println!("{arguments:?}");
        let Some(server) = Secured::openssl(&issued, arguments) else { return };
        let verdict = if code == Code::L6Ok { Verdict::Ok } else { Verdict::Fail };
        let outcome = Engine::of(&[&Monitored::tls(server.address(), policy(&authority))]).check(0);
        assert_outcome(&outcome, code, verdict, evidence);
    }
}

#[test]
fn a_client_certificate_is_shown_when_it_is_asked_for() {
    let Some(authority) = Authority::start() else { return };
    let issued = good(&authority);
    let ours = authority.issue("client", Wish::of("DNS:client.example"));
    let stranger = authority.issue("stranger", Wish { by: Signer::Itself, ..Wish::of("DNS:stranger.example") });
    let root = authority.root();
    let verify = ["-Verify", "2", "-verify_return_error", "-CAfile", root.to_str().expect("a plain path")];
    let refused = "server refused: certificate required alert (116): it wants a client certificate";
    let unknown = "server refused: unknown CA alert (48): it does not take our certificate";
    for (version, without) in [
        ("-tls1_3", refused),
        ("-tls1_2", "server refused: handshake failure alert (40): no common cipher, or it wants a client certificate"),
    ] {
        println!("{version}");
        let Some(server) = Secured::openssl(&issued, &[&verify[..], &[version]].concat()) else { return };
        let check = |client| Monitored::tls(server.address(), TlsPolicy { client, ..policy(&authority) });
        assert_fails(&check(None), Code::L6Rsp, without);
        assert_ok(&check(client(&ours)), Code::L6Ok);
        assert_fails(&check(client(&stranger)), Code::L6Rsp, unknown);
    }
}

#[test]
fn what_does_not_speak_tls_is_told_apart() {
    let Some(authority) = Authority::start() else { return };
    let check = |address| Monitored::tls(address, policy(&authority)).within(SOON);
    if let Some(nginx) = Nginx::start() {
        let words = "server speaks no TLS (first bytes: \"HTTP/1.1 400 Bad Request";
        assert_fails(&check(nginx.address(loopbacks()[0])), Code::L6Rsp, words);
    }
    let table = [
        (Script::AnswerEarly(b"SSH-2.0-x\r\n".to_vec()), Code::L6Rsp, "server speaks no TLS (first bytes: \"SSH-2.0"),
        (Script::Silence, Code::L6Tout, "no TLS answer from 127.0.0.1:"),
        (Script::Stop, Code::L6Tout, "no TLS answer from 127.0.0.1:"),
    ];
    for (script, code, evidence) in table {
        println!("{script:.80?}");
        let server = RawServer::start(script);
        assert_fails(&check(server.address()), code, evidence);
    }
    let nobody = std::net::SocketAddr::new(loopbacks()[0], free_port());
    assert_fails(&check(nobody), Code::L4Con, &format!("connection refused {nobody}"));
    let full = FullBacklog::start();
    assert_fails(&check(full.address()), Code::L4Tout, &format!("no answer from {} in ", full.address()));
}

#[test]
fn a_connection_that_ends_in_the_handshake_is_no_tls() {
    let Some(authority) = Authority::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for answer in [&b""[..], &[0x16, 3, 3, 0, 100, 2, 0]] {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
        // Never answers: half a record, then nothing.
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.write_all(&[0x16, 3, 3, 0, 100, 2, 0]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let check = Monitored::tls(address, policy(&authority)).within(SOON);
    assert_fails(&check, Code::L6Rsp, "closed without a word of TLS");
    assert_fails(&check, Code::L6Rsp, "closed in the middle of the TLS handshake");
    assert_fails(&check, Code::L6Tout, &format!("TLS handshake with {address} not finished in "));
    server.join().expect("it does not panic");
}

fn https(server: &Secured, path: &str, authority: &Authority) -> Monitored {
    let tls = policy(authority);
    Monitored::get(server.address(), path).with(|check| check.tls = Some(tls))
}

#[test]
fn nginx_is_asked_over_tls() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&good(&authority)) else { return };
    let get = |path| https(&nginx, path, &authority);
    for path in ["/ok", "/chunked", "/unframed"] {
        println!("{path}");
        let mut engine = Engine::of(&[&get(path)]);
        let outcome = engine.check(0);
        assert_outcome(&outcome, Code::L7Ok, Verdict::Ok, "");
        assert_eq!(outcome.status, Some(200));
        assert!(outcome.latency.tls > outcome.latency.connect);
        assert_eq!((engine.rest(), engine.connects), (0, 1));
    }
    assert_fails(&get("/missing"), Code::L7Sts, "404 Not Found, expected 200-299: nothing here");
    let large = get("/ok").with(|check| {
        check.method = "POST".into();
        check.body = vec![b'x'; 200 * 1024].into();
    });
    assert_ok(&large, Code::L7Ok);
    let other = TlsPolicy { server_name: Some("other.example".into()), ..policy(&authority) };
    let wrong = get("/ok").with(|check| check.tls = Some(other));
    assert_fails(&wrong, Code::L6Cert, "certificate is for good.example, not other.example");
    let soon = TlsPolicy { min_days_left: Some(400), ..policy(&authority) };
    let outcome = Engine::of(&[&get("/ok").with(|check| check.tls = Some(soon))]).check(0);
    assert_outcome(&outcome, Code::L7Ok, Verdict::Warn, "certificate ends in 36");
}

/// Sends whoever asks to another place.
fn moved(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

#[test]
fn redirects_lead_from_one_tls_server_to_another() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&good(&authority)) else { return };
    let led = |monitored: Monitored| monitored.with(|check| check.redirects = 3);
    // The same origin: the monitor's own server name holds.
    let mut engine = Engine::of(&[&led(https(&nginx, "/moved", &authority))]);
    assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    assert_eq!((engine.rest(), engine.connects), (0, 2));
    assert_fails(&https(&nginx, "/moved", &authority), Code::L7Sts, "302 Moved Temporarily to https://127.0.0.1:");
    let words = "redirect to http://127.0.0.1:1/: from https to http is not followed";
    assert_fails(&led(https(&nginx, "/down", &authority)), Code::L7Rsp, words);

    // Another origin has to be called what its address says, whatever the monitor's own is called.
    let there = format!("https://{}/ok", nginx.address());
    let from = |location: &str| {
        let answer: &'static [u8] = Box::leak(moved(location).into_boxed_slice());
        Ending::start(&good(&authority), answer, End::Notified)
    };
    let tls = policy(&authority);
    let get = |address| led(Monitored::get(address, "/")).with(|check| check.tls = Some(tls.clone()));
    let first = from(&there);
    let words = format!("{there} (after 1 redirect): certificate is for good.example, not 127.0.0.1");
    assert_fails(&get(first.address()), Code::L6Cert, &words);
    let Some(named) = Secured::nginx(&authority.issue("address", Wish::of("IP:127.0.0.1"))) else { return };
    let first = from(&format!("https://{}/ok", named.address()));
    assert_ok(&get(first.address()), Code::L7Ok);
    let first = from(&format!("https://{}/missing", named.address()));
    let words = format!("https://{}/missing (after 1 redirect): 404 Not Found, expected 200-299", named.address());
    assert_fails(&get(first.address()), Code::L7Sts, &words);
    let nobody = format!("127.0.0.1:{}", free_port());
    let first = from(&format!("https://{nobody}/"));
    let words = format!("https://{nobody}/ (after 1 redirect): connection refused {nobody}");
    assert_fails(&get(first.address()), Code::L4Con, &words);
}

#[test]
fn redirects_lead_from_http_to_https() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&authority.issue("address", Wish::of("IP:127.0.0.1"))) else { return };
    let there = format!("https://{}/ok", nginx.address());
    let server = RawServer::start(Script::Answer(moved(&there)));
    // Only the system's store is trusted there.
    let get = Monitored::get(server.address(), "/").with(|check| check.redirects = 1);
    assert_fails(&get, Code::L6Cert, &format!("{there} (after 1 redirect): "));
    let silent = RawServer::start(Script::Silence);
    let there = format!("https://{}/", silent.address());
    let server = RawServer::start(Script::Answer(moved(&there)));
    let get = Monitored::get(server.address(), "/").with(|check| check.redirects = 1).within(SOON);
    let words = format!("{there} (after 1 redirect): no TLS answer from {} in ", silent.address());
    assert_fails(&get, Code::L6Tout, &words);
}

#[test]
fn connections_are_kept_over_tls_for_those_who_are_secured_alike() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&good(&authority)) else { return };
    let kept = https(&nginx, "/ok", &authority).kept();
    let unnamed = kept.clone().with(|check| {
        check.tls = Some(TlsPolicy { insecure_skip_verify: true, ..TlsPolicy::default() });
    });
    let mut engine = Engine::of(&[&kept, &unnamed]);
    for _ in 0..3 {
        assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
        assert_eq!(engine.rest(), 1, "the tickets that come after the handshake do not end it");
        engine.idle(Duration::from_millis(50));
    }
    assert_eq!(engine.connects, 1);
    assert_outcome(&engine.check(1), Code::L7Ok, Verdict::Ok, "");
    assert_eq!((engine.rest(), engine.connects), (2, 2), "nobody uses a connection that was judged otherwise");
}

#[test]
fn sessions_are_resumed() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&good(&authority)) else { return };
    let mut engine = Engine::of(&[&https(&nginx, "/reused", &authority)]);
    let statuses: Vec<_> = (0..4).map(|_| engine.check(0).status).collect();
    assert_eq!(statuses, [Some(200), Some(299), Some(299), Some(299)]);
}

#[test]
fn an_answer_that_only_its_end_completes_needs_an_end_that_is_said() {
    let Some(authority) = Authority::start() else { return };
    let issued = good(&authority);
    let unframed = b"HTTP/1.1 200 OK\r\n\r\nuntil the end";
    let framed = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf";
    let cut = "the answer may be cut off: its end is a FIN without TLS's close_notify";
    let table: [(&'static [u8], End, Code, &str); 6] = [
        (unframed, End::Notified, Code::L7Ok, ""),
        (unframed, End::Cut, Code::L7Rsp, cut),
        (framed, End::Notified, Code::L7Ok, ""),
        (framed, End::Cut, Code::L7Ok, ""),
        (short, End::Notified, Code::L7Rsp, "cut off in the body after 4 of 50 bytes"),
        (short, End::Cut, Code::L7Rsp, "cut off in the body after 4 of 50 bytes"),
    ];
    for (answer, end, code, evidence) in table {
        println!("{} {end:?}", answer.escape_ascii());
        let server = Ending::start(&issued, answer, end);
        let tls = policy(&authority);
        let get = Monitored::get(server.address(), "/").with(|check| check.tls = Some(tls));
        let verdict = if code == Code::L7Ok { Verdict::Ok } else { Verdict::Fail };
        assert_outcome(&Engine::of(&[&get]).check(0), code, verdict, evidence);
    }
}

fn talk(send: &str, expect: &str) -> TcpCheck {
    TcpCheck { send: send.as_bytes().into(), expect: expect.as_bytes().into(), ..TcpCheck::default() }
}

#[test]
fn what_is_said_and_heard_on_a_connection_is_judged() {
    let answer = |words: &str| Script::Answer(words.as_bytes().to_vec());
    let long = "x".repeat(70 * 1024);
    let ask = "PING\r\n\r\n";
    let table = [
        (Script::AnswerEarly(b"220 ready\r\n".to_vec()), "", "220 ", Code::L7Ok, ""),
        (answer("+PONG\r\n"), ask, "+PONG", Code::L7Ok, ""),
        (Script::AnswerSlowly(b"+PONG".to_vec(), Duration::from_millis(5)), ask, "+PONG", Code::L7Ok, ""),
        (answer("x+PONG"), ask, "", Code::L4Ok, ""),
        (answer("-ERR\x1b[31m\r\n"), ask, "+PONG", Code::L7Rsp, "closed after 11 bytes without \"+PONG\": \"-ERR\\x1b"),
        (answer(""), ask, "+PONG", Code::L7Rsp, "closed without an answer"),
        (answer(&long), ask, "+PONG", Code::L7Rsp, "65536 bytes without \"+PONG\""),
        (Script::AnswerThenReset(Vec::new()), ask, "+PONG", Code::L7Rsp, "connection reset before an answer"),
        (Script::Silence, ask, "+PONG", Code::L7Tout, "no answer after connecting to 127.0.0.1:"),
    ];
    for (script, send, expect, code, evidence) in table {
        println!("{script:.80?}");
        let server = RawServer::start(script);
        let outcome = Engine::of(&[&Monitored::tcp(server.address(), talk(send, expect)).within(SOON)]).check(0);
        let verdict = if matches!(code, Code::L7Ok | Code::L4Ok) { Verdict::Ok } else { Verdict::Fail };
        assert_outcome(&outcome, code, verdict, evidence);
    }
}

#[test]
fn what_is_said_and_heard_may_be_secured() {
    let Some(authority) = Authority::start() else { return };
    let Some(server) = Secured::openssl(&good(&authority), &["-rev"]) else { return };
    let tls = Some(policy(&authority));
    let check = |send, expect| {
        let check = TcpCheck { tls: tls.clone(), ..talk(send, expect) };
        Monitored::tcp(server.address(), check).within(SOON)
    };
    assert_ok(&check("olleh\n", "hello"), Code::L7Ok);
    assert_fails(&check("olleh\n", "goodbye"), Code::L7Tout, "6 bytes from 127.0.0.1:");
    assert_ok(&check("unanswered", ""), Code::L6Ok);
}

fn starttls(authority: &Authority, protocol: StartTls) -> TlsPolicy {
    TlsPolicy { starttls: Some(protocol), ..policy(authority) }
}

#[test]
fn smtp_servers_start_tls() {
    let Some(authority) = Authority::start() else { return };
    let Some(exim) = Secured::exim(Some(&good(&authority))) else { return };
    let smtp = starttls(&authority, StartTls::Smtp);
    // It becomes another program for each connection, which takes its time on a busy machine.
    let check = |server: &Secured, tls: &TlsPolicy| Monitored::tls(server.address(), tls.clone()).within(PATIENT);
    assert_ok(&check(&exim, &smtp), Code::L6Ok);
    let talks = TcpCheck { tls: Some(smtp.clone()), ..talk("EHLO checks.example\r\n", "250-SIZE") };
    assert_ok(&Monitored::tcp(exim.address(), talks).within(PATIENT), Code::L7Ok);
    let other = TlsPolicy { server_name: Some("other.example".into()), ..smtp.clone() };
    assert_fails(&check(&exim, &other), Code::L6Cert, "certificate is for good.example, not other");
    let imap = starttls(&authority, StartTls::Imap);
    assert_fails(&check(&exim, &imap), Code::L6Rsp, "server speaks no IMAP: \"220 mail.example");
    let at_once = policy(&authority);
    assert_fails(&check(&exim, &at_once), Code::L6Rsp, "server speaks no TLS (first bytes: \"220 mail.example");
    let Some(plain) = Secured::exim(None) else { return };
    assert_fails(&check(&plain, &smtp), Code::L6Rsp, "server offers no STARTTLS");
    let silent = RawServer::start(Script::Silence);
    let words = "no SMTP greeting from 127.0.0.1:";
    assert_fails(&Monitored::tls(silent.address(), smtp).within(SOON), Code::L6Tout, words);
}

#[test]
fn imap_servers_start_tls() {
    let Some(authority) = Authority::start() else { return };
    let Some(dovecot) = Secured::dovecot(&good(&authority)) else { return };
    let imap = starttls(&authority, StartTls::Imap);
    assert_ok(&Monitored::tls(dovecot.address(), imap.clone()), Code::L6Ok);
    let talks = TcpCheck { tls: Some(imap), ..talk("a2 CAPABILITY\r\n", "a2 OK") };
    assert_ok(&Monitored::tcp(dovecot.address(), talks), Code::L7Ok);
    let smtp = starttls(&authority, StartTls::Smtp);
    assert_fails(&Monitored::tls(dovecot.address(), smtp), Code::L6Rsp, "server speaks no SMTP: \"* OK ");
}

#[test]
fn databases_start_tls() {
    let Some(authority) = Authority::start() else { return };
    let Some(secured) = Secured::postgres(Some(&good(&authority))) else { return };
    let Some(plain) = Secured::postgres(None) else { return };
    let tls = starttls(&authority, StartTls::Postgres);
    assert_ok(&Monitored::tls(secured.address(), tls.clone()), Code::L6Ok);
    let refuses = "server offers no TLS (it answered N to SSLRequest)";
    assert_fails(&Monitored::tls(plain.address(), tls.clone()), Code::L6Rsp, refuses);
    let web = RawServer::start(Script::AnswerEarly(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    assert_fails(&Monitored::tls(web.address(), tls), Code::L6Rsp, "server speaks no PostgreSQL: \"HTTP/1.1 400");
}

fn through(monitored: Monitored, proxy: std::net::SocketAddr, authorization: Option<Secret>) -> Monitored {
    let (host, port) = (Host::Literal(proxy.ip()), proxy.port());
    monitored.with(|check| check.proxy = Some(Proxy { host, port, authorization }))
}

#[test]
fn proxies_make_tunnels() {
    let Some(authority) = Authority::start() else { return };
    let Some(nginx) = Secured::nginx(&good(&authority)) else { return };
    let Some(proxy) = Secured::tinyproxy(nginx.address().port(), None) else { return };
    let get = https(&nginx, "/ok", &authority);
    assert_ok(&through(get.clone(), proxy.address(), None), Code::L7Ok);
    let mut engine = Engine::of(&[&through(get.clone().kept(), proxy.address(), None)]);
    for _ in 0..3 {
        assert_outcome(&engine.check(0), Code::L7Ok, Verdict::Ok, "");
    }
    assert_eq!((engine.rest(), engine.connects), (1, 1));
    let forbidden = Monitored { address: std::net::SocketAddr::new(loopbacks()[0], free_port()), ..get.clone() };
    assert_fails(&through(forbidden, proxy.address(), None), Code::L4Con, "proxy made no tunnel: \"403 ");
    // Nobody listens on the port of discard.
    let refused = Monitored { address: std::net::SocketAddr::new(loopbacks()[0], 9), ..get.clone() };
    assert_fails(&through(refused, proxy.address(), None), Code::L4Con, "proxy made no tunnel: \"50");
    let nobody = std::net::SocketAddr::new(loopbacks()[0], free_port());
    assert_fails(
        &through(get.clone(), nobody, None),
        Code::L4Con,
        &format!("by proxy {nobody}: connection refused {nobody}"),
    );
    let silent = RawServer::start(Script::Silence);
    let waits = through(get.clone(), silent.address(), None).within(SOON);
    assert_fails(&waits, Code::L4Tout, "no answer to CONNECT from 127.0.0.1:");
    let web = RawServer::start(Script::Answer(b"SSH-2.0-x\r\n".to_vec()));
    assert_fails(&through(get.clone(), web.address(), None), Code::L4Con, "proxy speaks no HTTP: \"SSH-2.0-x\"");

    let Some(guarded) = Secured::tinyproxy(nginx.address().port(), Some("someone secret")) else { return };
    let refused = "proxy made no tunnel: \"407 Proxy Authentication Required\"";
    assert_fails(&through(get.clone(), guarded.address(), None), Code::L4Con, refused);
    let secret = |password| Some(Secret::new(basic("someone", password)));
    assert_fails(&through(get.clone(), guarded.address(), secret("guess")), Code::L4Con, "proxy made no tunnel: \"40");
    assert_ok(&through(get, guarded.address(), secret("secret")), Code::L7Ok);
}

#[test]
fn a_file_that_is_missing_is_no_failure_of_the_target() {
    let tls = TlsPolicy { ca_file: Some(PathBuf::from("/nonexistent/ca.pem")), ..TlsPolicy::default() };
    let faults = cpra::os::tls::check(&tls).expect_err("it is not there");
    assert!(faults[0].to_string().starts_with("/nonexistent/ca.pem: cannot be read: "), "{faults:?}");
}
