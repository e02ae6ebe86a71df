use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::units::limits::{
    CHUNK_LINE_MAX, RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX, RESPONSE_HEADERS_MAX, RESPONSE_INTERIM_MAX, TRAILERS_MAX,
};

/// All that can be seen of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    result: Result<Progress, ResponseError>,
    status: Option<u16>,
    reason: String,
    body: Vec<u8>,
    reusable: bool,
    clean: bool,
}

/// Feeds the pieces until the answer is complete or broken, then the end of the connection if it is to come.
fn read(method: &str, pieces: &[&[u8]], eof: bool) -> Reading {
    let mut reader = ResponseReader::of(method);
    let (mut reason, mut body) = (String::new(), Vec::new());
    let mut sink = |part: Part<'_>| match part {
        Part::Head { reason: phrase, .. } => reason.push_str(phrase),
        Part::Body(content) => body.extend_from_slice(content),
    };
    let mut result = Ok(Progress::NeedMore);
    for piece in pieces {
        result = reader.read(piece, &mut sink);
        if result.is_err() {
            break;
        }
    }
    if eof && result == Ok(Progress::NeedMore) {
        result = reader.eof(&mut sink).map(|()| Progress::Complete);
    }
    // What an error shows of another protocol is what had come of it by then.
    if let Err(ResponseError::NotHttp(excerpt)) = &mut result {
        *excerpt = "".into();
    }
    let (status, reusable, clean) = (reader.status(), reader.is_reusable(), reader.is_clean());
    Reading { result, status, reason, body, reusable, clean }
}

/// Reads it whole, byte by byte, and cut in two at every place: all must agree.
fn read_every_way(method: &str, wire: &[u8], eof: bool) -> Reading {
    let whole = read(method, &[wire], eof);
    let bytes: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(read(method, &bytes, eof), whole, "byte by byte: {}", wire.escape_ascii());
    for cut in 0..=wire.len() {
        let (left, right) = wire.split_at(cut);
        assert_eq!(read(method, &[left, right], eof), whole, "cut at {cut}: {}", wire.escape_ascii());
    }
    whole
}

const KEPT: bool = true;
const DROPPED: bool = false;

#[test]
fn answers_end_where_rfc_9112_says() {
    // Method, answer, whether the peer closes, then: status, body, whether the connection may be kept.
    let table: &[(&str, &str, bool, u16, &str, bool)] = &[
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", KEPT),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "", KEPT),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: foo, Close\r\n\r\nhello",
            false,
            200,
            "hello",
            DROPPED,
        ),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", DROPPED),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5, 5\r\n\r\nhello", false, 200, "hello", KEPT),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", false, 200, "hello", DROPPED),
        ("GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", false, 404, "", KEPT),
        ("GET", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false, 200, "hello", KEPT),
        ("GET", "\r\nHTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", false, 200, "hello", KEPT),
        ("GET", "HTTP/1.1 200 OK\r\nX: folded\r\n line\r\nContent-Length: 1\r\n\r\nx", false, 200, "x", KEPT),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, 200, "", KEPT),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, 200, "", KEPT),
        ("HEAD", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false, 200, "", DROPPED),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", KEPT),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, 304, "", KEPT),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, 101, "", DROPPED),
        (
            "POST",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx",
            false,
            201,
            "x",
            KEPT,
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nuntil close", true, 200, "until close", DROPPED),
        ("GET", "HTTP/1.1 200 OK\r\n\r\n", true, 200, "", DROPPED),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            200,
            "hello",
            KEPT,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n1;a=\"b\"\r\nx\r\n00A  \r\n0123456789\r\n0;last\r\nTrailer: 1\r\nSecond: 2\r\n\r\n",
            false,
            200,
            "x0123456789",
            KEPT,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", false, 200, "hello", KEPT),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            false,
            200,
            "x",
            DROPPED,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET",
            false,
            200,
            "x",
            DROPPED,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n1\r\nx", true, 200, "1\r\nx", DROPPED),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx",
            true,
            200,
            "1\r\nx",
            DROPPED,
        ),
    ];
    for &(method, wire, eof, status, body, reusable) in table {
        let reading = read_every_way(method, wire.as_bytes(), eof);
        assert_eq!(reading.result, Ok(Progress::Complete), "{wire}");
        assert_eq!(
            (reading.status, &*reading.body, reading.reusable),
            (Some(status), body.as_bytes(), reusable),
            "{wire}"
        );
    }
}

#[test]
fn the_reason_phrase_is_lent() {
    let reading = read_every_way("GET", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false);
    assert_eq!((reading.reason.as_str(), reading.clean), ("Service Unavailable", true));
}

#[test]
fn what_is_no_answer_says_why() {
    // The answer, then the peer closes, then the words.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let table: &[(String, &str)] = &[
        (String::new(), "closed without an answer"),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), "closed without an answer"),
        ("HTTP/1.1 200 OK\r\nContent-".into(), "cut off in the head after 25 bytes"),
        ("HTT".into(), "cut off in the head after 3 bytes"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nabc".into(), "cut off in the body after 3 of 500 bytes"),
        (format!("{chunked}5\r\nhel"), "cut off in the body after 6 bytes"),
        (format!("{chunked}5\r\nhello\r\n0\r\n"), "cut off in the body after 13 bytes"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not an HTTP/1 answer: begins with \"\""),
        ("<html>HTTP/0.9</html>".into(), "not an HTTP/1 answer: begins with \"\""),
        ("HTTP/2 200\r\n\r\n".into(), "not an HTTP/1 answer: begins with \"\""),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}P".into(), "not an HTTP/1 answer: begins with \"\""),
        ("HTTP/1.1 2x0 OK\r\n\r\n".into(), "malformed head: bad status line"),
        ("HTTP/1.1 099 Odd\r\n\r\n".into(), "malformed head: bad status"),
        ("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n".into(), "malformed head: bad field value"),
        ("HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n".into(), "malformed head: bad field name"),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\n".into(), "malformed head: bad field name"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n".into(), "conflicting Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n".into(), "conflicting Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n".into(), "malformed Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n".into(), "malformed Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n".into(), "malformed Content-Length"),
        (format!("{chunked}x\r\n"), "malformed body: malformed chunk size"),
        (format!("{chunked}\r\n"), "malformed body: malformed chunk size"),
        (format!("{chunked};a\r\n"), "malformed body: malformed chunk size"),
        (format!("{chunked}5\rhello"), "malformed body: malformed chunk size"),
        (format!("{chunked}5\r\nhello!\r\n"), "malformed body: chunk longer than its size"),
        (format!("{chunked}10000000000000000\r\n"), "malformed body: chunk size too large"),
        (format!("{chunked}5;{}", "x".repeat(CHUNK_LINE_MAX)), "malformed body: chunk-size line too long"),
    ];
    for (wire, words) in table {
        let reading = read_every_way("GET", wire.as_bytes(), true);
        let error = reading.result.expect_err(wire);
        assert_eq!(error.to_string(), *words, "{wire}");
        assert!(!reading.reusable, "{wire}");
    }
}

#[test]
fn another_protocol_shows_its_first_bytes_even_without_a_line_end() {
    let mut reader = ResponseReader::of("GET");
    let error = reader.read(b"J\0\0\0\x0a8.0.36\0", &mut |_| {}).expect_err("a database's greeting");
    assert_eq!(error.to_string(), r#"not an HTTP/1 answer: begins with "J\x00\x00\x00\n8.0.36\x00""#);
}

#[test]
fn every_bound_holds_in_whatever_pieces() {
    let start = "HTTP/1.1 200 OK\r\n";
    let filled = |length: usize| {
        // Many fields, each well within what the parser takes, and one that fills up to `length`.
        let mut head = format!("{start}A: ");
        head.extend(std::iter::repeat_n('a', length - head.len() - 4));
        head + "\r\n\r\n"
    };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let table: &[(String, Option<ResponseError>)] = &[
        (filled(RESPONSE_HEAD_MAX), None),
        (filled(RESPONSE_HEAD_MAX + 1), Some(ResponseError::HeadTooLarge)),
        (format!("{start}{}\r\n", "A: b\r\n".repeat(RESPONSE_HEADERS_MAX)), None),
        (format!("{start}{}\r\n", "A: b\r\n".repeat(RESPONSE_HEADERS_MAX + 1)), Some(ResponseError::TooManyHeaders)),
        (interim.repeat(RESPONSE_INTERIM_MAX.into()) + start + "\r\n", None),
        (interim.repeat(RESPONSE_INTERIM_MAX as usize + 1), Some(ResponseError::TooManyInterim)),
        (format!("{chunked}0\r\n{}\r\n", "T: 1\r\n".repeat((TRAILERS_MAX - 2) / 6)), None),
        (
            format!("{chunked}0\r\n{}", "T: 1\r\n".repeat(TRAILERS_MAX / 6 + 1)),
            Some(ResponseError::Chunk("trailers too long")),
        ),
    ];
    for (wire, error) in table {
        for size in [1, 7, 4096, usize::MAX] {
            let pieces: Vec<&[u8]> = wire.as_bytes().chunks(size.min(wire.len())).collect();
            let reading = read("GET", &pieces, true);
            assert_eq!(reading.result.as_ref().err(), error.as_ref(), "pieces of {size}: {:.60}", wire);
        }
    }
}

#[test]
fn a_body_beyond_the_bound_is_judged_by_its_head() {
    let content = vec![b'x'; RESPONSE_BODY_MAX as usize + 1];
    for head in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()),
        "HTTP/1.1 200 OK\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n".into(),
    ] {
        for size in [16 * 1024, content.len()] {
            let mut pieces = vec![head.as_bytes()];
            pieces.extend(content.chunks(size));
            let reading = read("GET", &pieces, false);
            assert_eq!(reading.result, Ok(Progress::Complete), "{head}");
            assert_eq!((reading.status, reading.reusable, reading.clean), (Some(200), false, false), "{head}");
            assert!(reading.body.len() as u64 <= RESPONSE_BODY_MAX);
        }
    }
    let exact = &content[1..];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", exact.len());
    let reading = read("GET", &[head.as_bytes(), exact], false);
    assert!(reading.reusable && reading.body == exact);
}

#[test]
fn the_stage_tells_how_far_it_came() {
    let mut reader = ResponseReader::of("GET");
    let mut feed = |bytes: &[u8]| {
        reader.read(bytes, &mut |_| {}).expect("sound");
        reader.stage()
    };
    assert_eq!(feed(b""), Stage::Silent);
    assert_eq!(feed(b"HTTP/1.1 200 OK\r\n"), Stage::Head { bytes: 17 });
    assert_eq!(feed(b"Content-Length: 5\r\n\r\nab"), Stage::Body { bytes: 2, of: Some(5) });
    assert_eq!(feed(b"cde"), Stage::Complete);
}

fn field(name: &str, value: &str) -> (Box<str>, Box<str>) {
    (name.into(), value.into())
}

fn rendered(request: &Request<'_>) -> String {
    let mut out = Vec::new();
    request.render(&mut out);
    String::from_utf8(out).expect("text in, text out")
}

#[test]
fn requests_are_rendered_as_rfc_9112_wants_them() {
    let plain = Request {
        method: "GET",
        host: Host::Name("example.org"),
        port: 80,
        secure: false,
        path: "/health?full=1",
        form: Form::Origin,
        host_field: None,
        headers: &[],
        carry: Carry::default(),
        authorization: None,
        gzip: false,
        body: &[],
        keep_alive: false,
    };
    let agent = concat!("User-Agent: cpra/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert_eq!(
        rendered(&plain),
        format!("GET /health?full=1 HTTP/1.1\r\nHost: example.org\r\n{agent}Accept: */*\r\nConnection: close\r\n\r\n")
    );
    let literals = [
        ("127.0.0.1", 8080, "Host: 127.0.0.1:8080\r\n"),
        ("::1", 80, "Host: [::1]\r\n"),
        ("2001:db8::1", 8080, "Host: [2001:db8::1]:8080\r\n"),
    ];
    for (address, port, line) in literals {
        let host = Host::Literal(address.parse::<IpAddr>().expect("an address"));
        assert!(rendered(&Request { host, port, ..plain }).contains(line), "{line}");
    }
    let headers =
        [field("X-Token", "1"), field("accept", "text/html"), field("HOST", "inner"), field("user-agent", "u")];
    let host_field = Some("inner");
    let post =
        Request { method: "POST", host_field, headers: &headers, body: b"{}", keep_alive: true, port: 8080, ..plain };
    assert_eq!(
        rendered(&post),
        "POST /health?full=1 HTTP/1.1\r\nHost: inner\r\nX-Token: 1\r\naccept: text/html\r\nuser-agent: u\r\n\
         Connection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"
    );
    for (method, says_zero) in [("PUT", true), ("PATCH", true), ("DELETE", false), ("HEAD", false)] {
        let text = rendered(&Request { method, ..plain });
        assert_eq!(text.contains("Content-Length: 0\r\n"), says_zero, "{method}");
    }
}

#[test]
fn a_proxy_gets_the_whole_address_and_its_own_credentials() {
    let headers = [field("Proxy-Authorization", "typed"), field("Authorization", "typed"), field("X", "1")];
    let proxied = Request {
        method: "GET",
        host: Host::Name("example.org"),
        port: 8080,
        secure: false,
        path: "/a?b",
        form: Form::Absolute { authorization: Some("Basic cDpx") },
        host_field: None,
        headers: &headers,
        carry: Carry::default(),
        authorization: Some("Bearer t"),
        gzip: true,
        body: &[],
        keep_alive: false,
    };
    let agent = concat!("User-Agent: cpra/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert_eq!(
        rendered(&proxied),
        format!(
            "GET http://example.org:8080/a?b HTTP/1.1\r\nHost: example.org:8080\r\n{agent}Accept: */*\r\n\
             Accept-Encoding: gzip\r\nAuthorization: Bearer t\r\nProxy-Authorization: Basic cDpx\r\nX: 1\r\n\
             Connection: close\r\n\r\n"
        )
    );
    let secure = Request { secure: true, port: 443, form: Form::Origin, ..proxied };
    assert!(rendered(&secure).starts_with("GET /a?b HTTP/1.1\r\nHost: example.org\r\n"));
    let odd = Request { port: 80, ..secure };
    assert!(rendered(&odd).contains("\r\nHost: example.org:80\r\n"));
    let own = [field("accept-encoding", "br")];
    let text = rendered(&Request { headers: &own, ..proxied });
    assert!(text.contains("\r\naccept-encoding: br\r\n") && !text.contains("gzip"), "{text}");
}

#[test]
fn what_goes_along_to_another_origin_says_nothing_about_who_asks() {
    let foreign = Carry { foreign: true, bodiless: false };
    for name in ["Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "Referer", "Content-Type"] {
        assert!(!foreign.takes(name), "{name}");
    }
    assert!(foreign.takes("Accept") && foreign.takes("user-agent"));
    let bodiless = Carry { foreign: false, bodiless: true };
    for (name, takes) in [("Content-Type", false), ("content-encoding", false), ("Cookie", true), ("Content", true)] {
        assert_eq!(bodiless.takes(name), takes, "{name}");
    }
}

#[test]
fn fields_are_found_whatever_their_lines() {
    let mut reader = ResponseReader::of("GET");
    let head = b"HTTP/1.1 200 OK\r\nVary: a\r\nX: one\r\n  two \r\nVARY:b \r\nOdd: \xff\r\nContent-Length: 0\r\n\r\n";
    let mut seen = 0;
    let mut sink = |part: Part<'_>| {
        if let Part::Head { fields, .. } = part {
            seen += 1;
            assert_eq!(fields.get("vary").as_deref(), Some("a, b"));
            assert_eq!(fields.first("Vary").as_deref(), Some("a"));
            assert_eq!(fields.get("x").as_deref(), Some("one two"));
            assert_eq!(fields.get("odd").as_deref(), Some("\u{fffd}"));
            assert_eq!(fields.get("none"), None);
        }
    };
    assert_eq!(reader.read(head, &mut sink), Ok(Progress::Complete));
    assert_eq!(seen, 1);
}

/// An answer as a sound server would frame it, and its content.
fn framed() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let content = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8);
    (content, any::<bool>(), 200_u16..600, 0_usize..5).prop_map(|(chunks, chunked, status, filling)| {
        let status = if matches!(status, 204 | 304) { 200 } else { status };
        let mut wire = format!("HTTP/1.1 {status} Words\r\n{}", "Field: value\r\n".repeat(filling)).into_bytes();
        let content = chunks.concat();
        if chunked {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x};ext\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", content.len()).as_bytes());
            wire.extend_from_slice(&content);
        }
        (wire, content)
    })
}

/// Bytes that get past the first check of the parser often enough.
fn almost_http() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.0 500 No\r\n".to_vec()),
        Just(b"HTTP/1.1 100 C\r\n\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Connection: close\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(word, 0..14).prop_map(|words| words.concat())
}

/// Cuts at the given places, which wrap around.
fn cut<'a>(wire: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (wire, Vec::new());
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

proptest! {
    #[test]
    fn a_framed_answer_is_read_to_the_byte((wire, content) in framed(), sizes in proptest::collection::vec(1_usize..60, 1..6)) {
        let reading = read("GET", &cut(&wire, &sizes), false);
        prop_assert_eq!(&reading.result, &Ok(Progress::Complete));
        prop_assert_eq!(&reading.body, &content);
        prop_assert!(reading.reusable);
        let short = read("GET", &cut(&wire[..wire.len() - 1], &sizes), false);
        prop_assert_eq!(short.result, Ok(Progress::NeedMore));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_their_pieces_agree(
        wire in prop_oneof![almost_http(), proptest::collection::vec(any::<u8>(), 0..600)],
        sizes in proptest::collection::vec(1_usize..60, 1..6),
    ) {
        let whole = read("GET", &[&wire], true);
        prop_assert_eq!(read("GET", &cut(&wire, &sizes), true), whole);
    }

    #[test]
    fn memory_is_bounded(wire in almost_http(), filling in "[a-z:\r\n ]{1,40}") {
        let mut reader = ResponseReader::of("GET");
        for _ in 0..2_000 {
            for piece in [&wire[..], filling.as_bytes()] {
                let _ = reader.read(piece, &mut |_| {});
                if let Stage::Head { bytes } = reader.stage() {
                    prop_assert!(bytes <= RESPONSE_HEAD_MAX);
                }
            }
        }
    }
}
