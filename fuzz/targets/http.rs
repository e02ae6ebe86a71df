//! An HTTP server that answers anything: to checks with and without a look at the body, on kept connections, and where
//! redirects lead.
//!
//! The first two bytes choose the check and the way; the rest is what the server says, as it is or as the body of a
//! compressed answer.

#![no_main]

use std::io::Write as _;
use std::net::IpAddr;

use cpra::domain::monitor::{Assertion, HeaderRule, JsonRule, Pattern};
use cpra::domain::{Check, Code, HostRef, HttpCheck};
use cpra::probe::{Hop, Then};
use cpra_fuzz::{End, Feed, assert_fit, assert_sound, attempt, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;

const BODY_MAX: usize = 65_536;
/// A compressed body is its content this often, at most: what is small on the way may be large.
const REPEATS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed(bytes);
    let (flavour, way) = (feed.byte(), feed.byte());
    let mut assertions = Vec::new();
    if flavour & 1 != 0 {
        assertions.push(Assertion::Contains("ok".into()));
    }
    if flavour & 2 != 0 {
        assertions.push(Assertion::NotMatches(Pattern::new("(?i)err(or)?").expect("a pattern")));
    }
    if flavour & 4 != 0 {
        assertions.push(Assertion::Json { pointer: "/a/0".into(), rule: JsonRule::AtMost("5".into()) });
    }
    if flavour & 8 != 0 {
        assertions.push(Assertion::Header { name: "x-a".into(), rule: HeaderRule::Contains("b".into()) });
    }
    let check = HttpCheck {
        method: if flavour & 16 != 0 { "HEAD" } else { "GET" }.into(),
        keep_alive: flavour & 32 != 0,
        redirects: if flavour & 64 != 0 { 3 } else { 0 },
        assertions: assertions.into(),
        body_max: BODY_MAX as u32,
        ..HttpCheck::default()
    };
    let reset = flavour & 128 != 0;
    if way & 1 == 0 {
        return talk(check, reset, feed);
    }
    // A compressed body. One that nobody tampered with says what its content says.
    let content = feed.0.repeat((usize::from(way >> 4) << 2).clamp(1, REPEATS));
    let tampers = way & 2 != 0;
    let answer = compressed(&content, way & 4 != 0, way & 8 != 0, tampers.then(|| &feed.0[..feed.0.len().min(3)]));
    let only_contains = flavour & 31 == 1;
    let code = match attempt(&policy(Check::Http(check)), None, false, reset, &mut Feed(&answer)) {
        End::Judged(judgement) => {
            assert_sound(&judgement.outcome);
            judgement.outcome.code
        }
        End::Led(hop) => panic!("nothing leads to {}", hop.url()),
    };
    if only_contains && !tampers {
        let seen = &content[..content.len().min(BODY_MAX)];
        let contains = seen.windows(2).any(|two| two == b"ok");
        assert_eq!(code, if contains { Code::L7Ok } else { Code::L7Rsp }, "{} bytes of content", content.len());
    }
});

/// What the server says, to one check after the other as long as the connection is kept, and to one request after the
/// other as long as it leads elsewhere.
fn talk(check: HttpCheck, reset: bool, mut feed: Feed<'_>) {
    let (keeps, redirects) = (check.keep_alive, check.redirects);
    let policy = policy(Check::Http(check));
    let (mut hop, mut hops, mut resumes): (Option<Box<Hop>>, _, _) = (None, 0, false);
    loop {
        match attempt(&policy, hop.as_deref(), resumes, reset, &mut feed) {
            End::Judged(judgement) => {
                assert_sound(&judgement.outcome);
                if judgement.then != Then::Keep {
                    return;
                }
                assert!(keeps && hop.is_none(), "kept without having been asked to");
                resumes = true;
            }
            End::Led(next) => {
                hops += 1;
                assert!(hops <= redirects, "{hops} redirects, at most {redirects}");
                assert_fit(&next.url(), 1_024);
                assert!(!next.target().path.chars().any(|c| c.is_control() || c == ' '), "{:?}", next.target());
                match next.target().host {
                    HostRef::Literal(address) => assert!(!is_link_local(address), "led to {address}"),
                    HostRef::Name(name) => assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}"),
                }
                (hop, resumes) = (Some(next), false);
            }
        }
    }
}

/// By RFC 3927 and RFC 4291, and as IPv6 spells the former.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// An answer with `content` compressed, in chunks or as a whole, perhaps as two members one behind the other; the bytes
/// of `tampering` change it at places that they name.
fn compressed(content: &[u8], chunked: bool, two: bool, tampering: Option<&[u8]>) -> Vec<u8> {
    let (first, second) = content.split_at(if two { content.len() / 2 } else { content.len() });
    let mut body = Vec::new();
    for (index, member) in [first, second].into_iter().enumerate() {
        if index == 0 || two {
            let mut encoder = GzEncoder::new(&mut body, Compression::fast());
            encoder.write_all(member).expect("into memory");
            encoder.finish().expect("into memory");
        }
    }
    for &place in tampering.unwrap_or_default() {
        let at = usize::from(place) * body.len() / 256;
        body[at] ^= place | 1;
    }
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-A: b\r\n".to_vec();
    if chunked {
        answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(97) {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
    } else {
        answer.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        answer.extend_from_slice(&body);
    }
    answer
}
