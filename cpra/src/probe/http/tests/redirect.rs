//! Where redirects lead, and where they do not.

use super::*;
use crate::domain::Host;
use crate::domain::monitor::{Proxy, Secret, TlsPolicy};
use crate::probe::http::redirect::is_link_local;

fn led(change: impl FnOnce(&mut HttpCheck)) -> Policy {
    policy(|check| {
        check.redirects = 3;
        change(check);
    })
}

fn moved(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// What the next request is, or why there is none. The monitor's own is `GET http://192.0.2.1:8080/health`.
struct Led {
    attempt: Attempt,
    hop: Option<Box<Hop>>,
}

impl Led {
    fn new(policy: Policy) -> Self {
        Self { attempt: Attempt::asked(policy), hop: None }
    }

    fn with<T>(&mut self, take: impl FnOnce(&mut HttpProbe, &Request<'_>, &mut Ops) -> T) -> T {
        let Attempt { policy, address, ops, probe, .. } = &mut self.attempt;
        ops.clear();
        let request = Request { hop: self.hop.as_deref(), ..request(policy, *address) };
        take(probe, &request, ops)
    }

    /// Takes a redirect; answers the request that follows.
    fn follow(&mut self, status: u16, location: &str) -> Result<String, String> {
        let answer = moved(status, location);
        let judgement = self.receive(&answer);
        if let Some(Judgement { outcome, then }) = judgement {
            assert_eq!((outcome.code, then), (Code::L7Rsp, Then::Disconnect), "{outcome:?}");
            return Err(outcome.evidence.expect("it says why").into_string());
        }
        self.hop = self.attempt.ops.hop.take();
        assert!(self.hop.is_some(), "not judged, and led nowhere");
        let address = self.attempt.address;
        self.attempt.probe = self.with(|_, request, ops| HttpProbe::start(request, Instant::ZERO, ops));
        assert_eq!(self.attempt.ops.list, [Op::Connect(address)]);
        assert!(self.complete(OpKind::Connect, b"").is_none());
        let text = String::from_utf8(self.attempt.ops.bytes.clone()).expect("text");
        assert!(self.complete(OpKind::Send, b"").is_none());
        Ok(text)
    }

    fn receive(&mut self, data: &str) -> Option<Judgement> {
        self.complete(OpKind::Recv, data.as_bytes())
    }

    fn complete(&mut self, kind: OpKind, data: &[u8]) -> Option<Judgement> {
        let (slot, generation, result) = (Slot(0), Generation(0), Ok(data.len() as u32));
        let completion = Completion { slot, generation, kind, result, more: true, local: false, data, handshake: None };
        self.with(|probe, request, ops| probe.on(request, &completion, Instant::ZERO, ops))
    }
}

/// Start line and host of what follows one redirect.
fn asked(status: u16, location: &str) -> Result<String, String> {
    let text = Led::new(led(|_| {})).follow(status, location)?;
    let mut lines = text.lines();
    let (Some(start), Some(host)) = (lines.next(), lines.next()) else { panic!("two lines at least: {text}") };
    Ok(format!("{} {}", start.trim_end_matches(" HTTP/1.1"), host.trim_start_matches("Host: ")))
}

#[test]
fn locations_are_joined_as_rfc_3986_says() {
    let table = [
        ("/next", "GET /next 192.0.2.1:8080"),
        ("next?a=1#part", "GET /next?a=1 192.0.2.1:8080"),
        ("?a=1", "GET /health?a=1 192.0.2.1:8080"),
        ("../../up", "GET /up 192.0.2.1:8080"),
        ("//other.example/x", "GET /x other.example"),
        ("http://Other.Example.:81", "GET / other.example:81"),
        ("http://user:password@other.example/x", "GET /x other.example"),
        ("http://[2001:db8::1]:8080/x", "GET /x [2001:db8::1]:8080"),
        ("http://0x7f.1/x", "GET /x 127.0.0.1"),
        ("https://other.example/x", "GET /x other.example"),
        ("https://other.example:80/x", "GET /x other.example:80"),
        ("http://bücher.example/ä b", "GET /%C3%A4%20b xn--bcher-kva.example"),
        ("HTTP://192.0.2.1:8080/\\x", "GET //x 192.0.2.1:8080"),
    ];
    for (location, wanted) in table {
        assert_eq!(asked(302, location).as_deref(), Ok(wanted), "{location}");
    }
}

#[test]
fn locations_that_lead_nowhere_say_why() {
    let table = [
        ("ftp://other.example/x", "redirect to ftp://other.example/x: ftp is not followed, only http and https are"),
        ("javascript:alert(1)", "redirect to javascript:alert(1): javascript is not followed"),
        ("http://[::1/x", "redirect to http://[::1/x: invalid IPv6 address"),
        ("http://", "redirect to http://: empty host"),
        ("http://other.example:0/", "redirect to http://other.example:0/: port 0"),
        ("http://other.example:99999/", "redirect to http://other.example:99999/: invalid port number"),
        ("http://.../x", "redirect to http://.../x: "),
    ];
    for (location, wanted) in table {
        let why = asked(302, location).expect_err(location);
        assert!(why.starts_with(wanted), "{location}: {why}");
    }
    let why = asked(302, &format!("/{}", "x".repeat(9_000))).expect_err("too long");
    assert!(why.ends_with("longer than 8192 bytes"), "{why}");
    let why = asked(302, "/x?token=s3cr3t#s3cr3t").expect("followed");
    assert!(why.contains("s3cr3t"), "it is asked for");
}

#[test]
fn the_metadata_of_clouds_is_not_asked_for() {
    let spellings = [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/latest/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.169.254.:80/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[fe80::1]/",
        "http://[febf::1]/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://METADATA.google.internal./",
    ];
    for location in spellings {
        let why = asked(302, location).expect_err(location);
        assert!(why.contains("is link-local, where clouds serve") || why.contains("metadata service"), "{why}");
    }
    for address in ["169.253.0.1", "127.0.0.1", "10.0.0.1", "::1", "fd00:ec2::253", "fec0::1", "2001:db8::a9fe:a9fe"] {
        assert!(!is_link_local(address.parse().expect("an address")), "{address}");
    }
    // Also through a proxy.
    let proxy = Proxy { host: Host::Literal([192, 0, 2, 9].into()), port: 3128, authorization: None };
    let why = Led::new(led(|check| check.proxy = Some(proxy))).follow(302, spellings[0]).expect_err("refused");
    assert!(why.contains("is link-local"), "{why}");
}

#[test]
fn methods_change_as_rfc_9110_says() {
    let table = [
        ("GET", 301, "GET", true),
        ("POST", 301, "GET", false),
        ("POST", 302, "GET", false),
        ("POST", 303, "GET", false),
        ("POST", 307, "POST", true),
        ("POST", 308, "POST", true),
        ("PUT", 302, "PUT", true),
        ("PUT", 303, "GET", false),
        ("DELETE", 307, "DELETE", true),
        ("HEAD", 303, "HEAD", true),
        ("HEAD", 302, "HEAD", true),
    ];
    for (method, status, then, with_body) in table {
        let policy = led(|check| {
            check.method = method.into();
            check.body = b"content".as_slice().into();
            check.headers = Box::new([("Content-Type".into(), "text/plain".into()), ("X-Mine".into(), "1".into())]);
        });
        let text = Led::new(policy).follow(status, "/next").expect("followed");
        assert!(text.starts_with(&format!("{then} /next HTTP/1.1\r\n")), "{method} {status}: {text}");
        let found = (text.ends_with("content"), text.contains("Content-Type"), text.contains("Content-Length: 7"));
        assert_eq!(found, (with_body, with_body, with_body), "{method} {status}: {text}");
        assert!(text.contains("\r\nX-Mine: 1\r\n"), "it is the same origin: {text}");
    }
}

#[test]
fn only_the_monitors_own_origin_hears_its_credentials() {
    let policy = led(|check| {
        check.authorization = Some(Secret::new("Bearer s3cr3t"));
        check.headers = Box::new([
            ("Cookie".into(), "session=s3cr3t".into()),
            ("X-Api-Key".into(), "s3cr3t".into()),
            ("Proxy-Authorization".into(), "s3cr3t".into()),
            ("Accept".into(), "text/plain".into()),
        ]);
    });
    let own = Led::new(policy.clone()).follow(302, "/next").expect("followed");
    assert_eq!(own.matches("s3cr3t").count(), 4, "{own}");
    for elsewhere in ["http://192.0.2.1/next", "http://192.0.2.2:8080/next", "http://other.example:8080/next"] {
        let mut led = Led::new(policy.clone());
        let text = led.follow(302, elsewhere).expect("followed");
        assert!(!text.contains("s3cr3t"), "{elsewhere}: {text}");
        assert!(text.contains("\r\nAccept: text/plain\r\n"), "{text}");
        // What was dropped is not picked up again.
        let text = led.follow(302, "http://192.0.2.1:8080/back").expect("followed");
        assert!(text.starts_with("GET /back ") && !text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn a_body_is_not_sent_to_another_host() {
    let policy = led(|check| {
        check.method = "POST".into();
        check.body = b"password=s3cr3t".as_slice().into();
    });
    let why = Led::new(policy.clone()).follow(307, "http://other.example/login").expect_err("refused");
    assert_eq!(why, "redirect to http://other.example/login: the request's body is not sent to another host");
    let text = Led::new(policy.clone()).follow(302, "http://other.example/login").expect("followed");
    assert!(text.starts_with("GET /login ") && !text.contains("s3cr3t"), "{text}");
    let text = Led::new(policy).follow(307, "http://192.0.2.1:8081/login").expect("the same host");
    assert!(text.ends_with("password=s3cr3t"), "{text}");
}

#[test]
fn loops_and_long_ways_end() {
    let mut there_and_back = Led::new(led(|_| {}));
    there_and_back.follow(302, "/a?x=1").expect("followed");
    let why = there_and_back.follow(302, "/health").expect_err("a loop");
    assert_eq!(why, "redirect loop: http://192.0.2.1:8080/health -> /a?… -> /health");
    let why = Led::new(led(|_| {})).follow(302, "http://192.0.2.1:8080/health#again").expect_err("a loop");
    assert_eq!(why, "redirect loop: http://192.0.2.1:8080/health -> /health");
    let mut long = Led::new(led(|_| {}));
    for path in ["/1", "/2", "/3"] {
        long.follow(302, path).expect("followed");
    }
    let why = long.follow(302, "http://other.example/4").expect_err("too many");
    let words = "more than 3 redirects: http://192.0.2.1:8080/health -> /1 -> /2 -> /3 -> http://other.example/4";
    assert_eq!(why, words);
    // Another method is another request.
    let mut posted = Led::new(led(|check| check.method = "POST".into()));
    assert!(posted.follow(303, "/health").expect("followed").starts_with("GET /health "));
}

#[test]
fn the_last_answer_is_judged_and_its_address_told() {
    let mut led_there = Led::new(led(|_| {}));
    led_there.follow(302, "http://other.example/gone?token=1").expect("followed");
    let judgement = led_there.receive("HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\ngone");
    let words = "http://other.example/gone?… (after 1 redirect): 404 No, expected 200-299: gone";
    assert_judged(judgement, Code::L7Sts, words, Then::AwaitFin);
    // An expected redirect is followed all the same: the last answer counts.
    let mut counted = Led::new(led(|check| check.expected = StatusSet::new(vec![(302, 302)])));
    counted.follow(302, "/x").expect("followed");
    let words = "http://192.0.2.1:8080/x (after 1 redirect): 200 OK, expected 302: hi";
    assert_judged(counted.receive(OK), Code::L7Sts, words, Then::AwaitFin);
    // Without a location there is nowhere to go.
    let plain = Attempt::asked(led(|_| {})).receive("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
    assert_judged(plain, Code::L7Sts, "302 Found, expected 200-299", Then::AwaitFin);
    for status in [300, 304, 305] {
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
        let judgement = Attempt::asked(led(|_| {})).receive(&answer).expect("not followed");
        assert_eq!(judgement.outcome.code, Code::L7Sts);
    }
}

#[test]
fn a_redirect_that_is_not_followed_says_where_it_leads() {
    let refused = Attempt::plain().receive(&moved(301, "https://u:p@other.example/x?token=1"));
    assert_judged(refused, Code::L7Sts, "301 Moved to https://other.example/x?…, expected 200-299", Then::AwaitFin);
}

#[test]
fn an_overridden_host_is_at_home_where_the_monitor_says() {
    let policy = led(|check| check.headers = Box::new([("host".into(), "shop.example".into())]));
    let mut shop = Led::new(policy);
    for location in ["/a", "http://shop.example/b"] {
        let text = shop.follow(302, location).expect("followed");
        assert!(text.contains("\r\nHost: shop.example\r\n"), "{text}");
        let target = shop.hop.as_ref().expect("led").target();
        assert_eq!((target.host, target.port), (HostRef::Literal([192, 0, 2, 1].into()), 8080), "{location}");
    }
    let text = shop.follow(302, "http://other.example/c").expect("followed");
    assert!(text.contains("\r\nHost: other.example\r\n"), "{text}");
}

#[test]
fn a_kept_connection_ends_where_a_redirect_leads_away() {
    let mut kept = Led::new(led(|check| check.keep_alive = true));
    let text = kept.follow(302, "/next").expect("followed");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_judged(kept.receive(OK), Code::L7Ok, "", Then::AwaitFin);
}

#[test]
fn a_proxy_is_asked_for_the_whole_address() {
    let proxy = Proxy {
        host: Host::Literal([192, 0, 2, 9].into()),
        port: 3128,
        authorization: Some(Secret::new("Basic cHJveHk6czNjcjN0")),
    };
    let policy = led(|check| check.proxy = Some(proxy));
    let mut attempt = Attempt::start(policy.clone());
    attempt.on(OpKind::Connect, Ok(0));
    let text = String::from_utf8(attempt.ops.bytes.clone()).expect("text");
    assert!(text.starts_with("GET http://192.0.2.1:8080/health HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n"), "{text}");
    assert!(text.contains("\r\nProxy-Authorization: Basic cHJveHk6czNjcjN0\r\n"), "{text}");
    let text = Led::new(policy.clone()).follow(302, "http://other.example/x").expect("followed");
    assert!(text.starts_with("GET http://other.example/x HTTP/1.1\r\nHost: other.example\r\n"), "{text}");
    assert!(text.contains("\r\nProxy-Authorization: "), "the proxy is the same: {text}");
    let refused = Attempt::start(policy).on(OpKind::Connect, Err(Errno::ECONNREFUSED));
    let words = "by proxy 192.0.2.1:8080: connection refused 192.0.2.1:8080";
    assert_judged(refused, Code::L4Con, words, Then::Disconnect);
}

#[test]
fn from_https_it_goes_to_https_only() {
    let secure =
        || led(|check| check.tls = Some(TlsPolicy { server_name: Some("shop".into()), ..TlsPolicy::default() }));
    let why = Led::new(secure()).follow(302, "http://192.0.2.1:8080/x").expect_err("refused");
    assert_eq!(why, "redirect to http://192.0.2.1:8080/x: from https to http is not followed");
    let name = |led: &mut Led| {
        led.with(|_, request, _| match request.tls().expect("secured").server_name() {
            HostRef::Name(name) => name.to_owned(),
            HostRef::Literal(address) => address.to_string(),
        })
    };
    let mut own = Led::new(secure());
    own.follow(302, "/x").expect("followed");
    assert_eq!(name(&mut own), "shop");
    let mut foreign = Led::new(secure());
    foreign.follow(302, "https://other.example/x").expect("followed");
    assert_eq!(name(&mut foreign), "other.example", "the name was the monitor's own target's");
    // Towards https it goes, as to another origin.
    let mut upgraded = Led::new(led(|check| check.authorization = Some(Secret::new("Bearer s3cr3t"))));
    let text = upgraded.follow(301, "https://192.0.2.1/x").expect("followed");
    assert!(!text.contains("s3cr3t") && upgraded.with(|_, request, _| request.tls().is_some()), "{text}");
}
