//! Assertions over head and body.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::domain::monitor::{Assertion, HeaderRule, JsonRule, Pattern, Secret};

fn asserting(assertions: &[Assertion]) -> Policy {
    policy(|check| check.assertions = assertions.into())
}

fn contains(wanted: &str) -> Assertion {
    Assertion::Contains(wanted.into())
}

fn lacks(unwanted: &str) -> Assertion {
    Assertion::NotContains(unwanted.into())
}

fn pattern(pattern: &str) -> Pattern {
    Pattern::new(pattern).expect("a sound pattern")
}

fn json(pointer: &str, rule: JsonRule) -> Assertion {
    Assertion::Json { pointer: pointer.into(), rule }
}

fn header(name: &str, rule: HeaderRule) -> Assertion {
    Assertion::Header { name: name.into(), rule }
}

fn answer(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

impl Attempt {
    fn take(&mut self, data: &[u8]) -> Option<Judgement> {
        self.complete(OpKind::Recv, Ok(u32::try_from(data.len()).expect("small")), true, data)
    }
}

/// The code and the evidence of an answer, read whole and byte by byte, which must agree.
#[track_caller]
fn judged(policy: &Policy, answer: &[u8]) -> (Code, String) {
    let whole = Attempt::asked(policy.clone()).take(answer).expect("judged").outcome;
    let mut slow = Attempt::asked(policy.clone());
    let bytewise = answer.chunks(1).find_map(|byte| slow.take(byte)).expect("judged").outcome;
    assert_eq!((whole.code, &whole.evidence), (bytewise.code, &bytewise.evidence));
    (whole.code, whole.evidence.map_or_else(String::new, String::from))
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("a vector takes every byte");
    encoder.finish().expect("a vector takes every byte")
}

#[test]
fn every_assertion_holds_or_says_why_not() {
    let body = br#"{"status":"degraded","queue":{"depth":120,"big":18446744073709551615,"ratio":0.5},"ok":null,"list":[1,2.0]}"#;
    let text = |text: &str| -> Box<str> { text.into() };
    let table: &[(Assertion, &str)] = &[
        (contains("degraded"), ""),
        (contains("\"ok\": true"), "body does not contain \"\"ok\": true\": {\"status\":\"degraded\",\"queue\""),
        (lacks("panic"), ""),
        (lacks("queue"), "body contains \"queue\": {\"status\":\"degraded\",\"queue\":{\"depth\":120"),
        (Assertion::Matches(pattern("\"depth\":[0-9]+")), ""),
        (Assertion::Matches(pattern("^ok$")), "body does not match \"^ok$\": {\"status\""),
        (Assertion::NotMatches(pattern("error|fatal")), ""),
        (Assertion::NotMatches(pattern("deg.aded")), "body matches \"deg.aded\": {\"status\""),
        (json("/status", JsonRule::Exists), ""),
        (json("/ok", JsonRule::Exists), ""),
        (json("/no", JsonRule::Exists), "/no is missing"),
        (json("/no", JsonRule::Absent), ""),
        (json("/queue", JsonRule::Absent), "/queue is an object of 3, expected none"),
        (json("/status", JsonRule::Equals(text("\"degraded\""))), ""),
        (json("/status", JsonRule::Equals(text("\"ok\""))), "/status is \"degraded\", expected \"ok\""),
        (json("/list", JsonRule::Equals(text("[1.0, 2]"))), ""),
        (json("/list", JsonRule::Equals(text("[2, 1]"))), "/list is a list of 2, expected [2, 1]"),
        (json("/no", JsonRule::Equals(text("1"))), "/no is missing, expected 1"),
        (json("/no", JsonRule::NotEquals(text("1"))), ""),
        (json("/ok", JsonRule::NotEquals(text("null"))), "/ok is null, expected anything but null"),
        (json("/queue/depth", JsonRule::Below(text("100"))), "/queue/depth is 120, expected below 100"),
        (json("/queue/depth", JsonRule::Below(text("120.5"))), ""),
        (json("/queue/depth", JsonRule::Above(text("120"))), "/queue/depth is 120, expected above 120"),
        (json("/queue/depth", JsonRule::AtLeast(text("120"))), ""),
        (json("/queue/depth", JsonRule::AtMost(text("119"))), "/queue/depth is 120, expected at most 119"),
        // 2^64 - 1 against 2^64 - 2: as floating-point numbers they are the same.
        (json("/queue/big", JsonRule::Above(text("18446744073709551614"))), ""),
        (json("/queue/big", JsonRule::Above(text("-1"))), ""),
        (json("/queue/ratio", JsonRule::AtLeast(text("0.6"))), "/queue/ratio is 0.5, expected at least 0.6"),
        (json("/status", JsonRule::Above(text("1"))), "/status is \"degraded\", expected a number above 1"),
        (json("/status", JsonRule::Matches(pattern("^deg"))), ""),
        (json("/status", JsonRule::Matches(pattern("^ok"))), "/status is \"degraded\", expected a match of ^ok"),
        (json("/list/1", JsonRule::Matches(pattern("2"))), "/list/1 is 2.0, expected text"),
        (json("", JsonRule::Exists), ""),
        (json("", JsonRule::Equals(text("1"))), "the document is an object of 4, expected 1"),
        (header("content-type", HeaderRule::Exists), ""),
        (header("content-type", HeaderRule::Equals(text("application/json"))), ""),
        (
            header("content-type", HeaderRule::Contains(text("xml"))),
            "header content-type is application/json, expected to contain xml",
        ),
        (
            header("content-type", HeaderRule::Equals(text("text/html"))),
            "header content-type is application/json, expected text/html",
        ),
        (
            header("content-type", HeaderRule::Matches(pattern("^text/"))),
            "header content-type is application/json, expected to match ^text/",
        ),
        (header("vary", HeaderRule::Equals(text("a, b"))), ""),
        (header("server", HeaderRule::Absent), ""),
        (header("vary", HeaderRule::Absent), "header vary is a, b, expected none"),
        (header("server", HeaderRule::Exists), "header server is missing"),
        (header("server", HeaderRule::Equals(text("x"))), "header server is missing, expected x"),
        (header("empty", HeaderRule::Equals(text("x"))), "header empty is empty, expected x"),
    ];
    let answer = answer("Content-Type: application/json\r\nVary: a\r\nEmpty:\r\nvary: b\r\n", body);
    for (assertion, why) in table {
        let (code, evidence) = judged(&asserting(std::slice::from_ref(assertion)), &answer);
        assert_eq!(code, if why.is_empty() { Code::L7Ok } else { Code::L7Rsp }, "{assertion:?}: {evidence}");
        assert!(evidence.starts_with(why) && (!why.is_empty() || evidence.is_empty()), "{assertion:?}: {evidence}");
    }
}

#[test]
fn the_first_that_does_not_hold_is_told() {
    let several = asserting(&[contains("fine"), json("/a", JsonRule::Exists), contains("never")]);
    let (_, evidence) = judged(&several, &answer("", b"{\"a\":\"fine\"}"));
    assert_eq!(evidence, "body does not contain \"never\": {\"a\":\"fine\"}");
    assert_eq!(judged(&several, &answer("", b"")).1, "body does not contain \"fine\": it is empty");
    let (_, evidence) = judged(&asserting(&[json("/a", JsonRule::Exists)]), &answer("", b"<html>\r\n"));
    assert_eq!(evidence, "body is not JSON: expected value at line 1 column 1: <html>");
    // The status comes before the content.
    let answer = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nfine";
    assert_eq!(judged(&asserting(&[contains("fine")]), answer), (Code::L7Sts, "500 No, expected 200-299: fine".into()));
}

#[test]
fn deep_and_odd_json_is_no_danger() {
    let policy = asserting(&[json("/a", JsonRule::Exists)]);
    let deep = "[".repeat(100_000);
    let (code, evidence) = judged(&policy, &answer("", deep.as_bytes()));
    assert_eq!(code, Code::L7Rsp);
    assert!(evidence.starts_with("body is not JSON: recursion limit exceeded"), "{evidence}");
    assert_eq!(judged(&policy, &answer("", b"{\"a\":\"\xff\"}")).0, Code::L7Rsp, "JSON is UTF-8");
}

#[test]
fn bytes_that_are_no_text_hide_nothing() {
    for body in [&b"\xff\xfeok"[..], b"\xc3ok", b"o\xffok\xff"] {
        assert_eq!(judged(&asserting(&[contains("ok")]), &answer("", body)).0, Code::L7Ok);
        assert_eq!(judged(&asserting(&[lacks("ok")]), &answer("", body)).0, Code::L7Rsp);
    }
    assert_eq!(judged(&asserting(&[contains("ok")]), &answer("", b"o\xffk")).0, Code::L7Rsp);
}

#[test]
fn what_only_has_to_be_contained_is_found_before_the_end() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let mut attempt = Attempt::asked(asserting(&[contains("found"), contains("first")]));
    assert!(attempt.take(head).is_none());
    assert!(attempt.take(b"first, then fou").is_none());
    assert_judged(attempt.take(b"nd, and so on"), Code::L7Ok, "", Then::AwaitFin);
    // Where more is asked, it takes the end.
    let mut attempt = Attempt::asked(asserting(&[contains("found"), lacks("panic")]));
    assert!(attempt.take(head).is_none() && attempt.take(b"found").is_none());
    assert!(attempt.take(b" pan").is_none() && attempt.take(b"ic").is_none());
    assert_judged(attempt.fin(), Code::L7Rsp, "body contains \"panic\": found panic", Then::Disconnect);
}

#[test]
fn a_body_beyond_its_bound_cannot_be_judged() {
    let bounded = |assertions: &[Assertion]| {
        let mut policy = asserting(assertions);
        let Check::Http(check) = &mut policy.check else { unreachable!("it is one of HTTP") };
        check.body_max = 1_000;
        policy
    };
    let fits = answer("", &[b'x'; 1_000]);
    let larger = answer("", &[b'x'; 1_001]);
    let lacking = bounded(&[lacks("panic")]);
    assert_eq!(judged(&lacking, &fits).0, Code::L7Ok);
    assert_eq!(judged(&lacking, &larger), (Code::L7Rsp, "body is larger than 1000 bytes".into()));
    // What was found within it was found.
    let found = answer("", &[&b"ok"[..], &[b'x'; 5_000]].concat());
    assert_eq!(judged(&bounded(&[contains("ok")]), &found).0, Code::L7Ok);
    // Beyond what is read at all, which must be no less.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n", &vec![b'x'; 2 * RESPONSE_BODY_MAX as usize][..]].concat();
    let judgement = Attempt::asked(lacking).take(&endless);
    assert_judged(judgement, Code::L7Rsp, "body is larger than 1000 bytes", Then::Disconnect);
    // Without assertions its size does not matter.
    assert_eq!(judged(&policy(|check| check.body_max = 10), &larger).0, Code::L7Ok);
}

#[test]
fn gzip_is_asked_for_only_where_the_body_matters_and_read_wherever_it_comes() {
    let sent = |policy| {
        let mut attempt = Attempt::start(policy);
        attempt.on(OpKind::Connect, Ok(0));
        String::from_utf8(attempt.ops.bytes.clone()).expect("text")
    };
    assert!(sent(asserting(&[contains("x")])).contains("\r\nAccept-Encoding: gzip\r\n"));
    assert!(!sent(asserting(&[header("x", HeaderRule::Exists)])).contains("Accept-Encoding"));
    assert!(!sent(policy(|_| {})).contains("Accept-Encoding"));

    let policy = asserting(&[contains("fine"), lacks("panic")]);
    let content = [&b"all is fine "[..], &vec![b'.'; 100_000]].concat();
    let packed = gzipped(&content);
    let two = [gzipped(b"all is "), gzipped(b"fine")].concat();
    let fields = "Content-Encoding: gzip\r\n";
    for body in [&packed, &two] {
        for fields in [fields, "content-encoding: x-gzip\r\n", "Content-Encoding: identity, GZIP\r\n"] {
            assert_eq!(judged(&policy, &answer(fields, body)), (Code::L7Ok, String::new()));
        }
    }
    // A body that is not there is not packed either.
    assert_eq!(judged(&asserting(&[lacks("panic")]), &answer(fields, b"")).0, Code::L7Ok);
    // An error page comes packed, too.
    let failing = [
        b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\nContent-Length: ",
        packed.len().to_string().as_bytes(),
        b"\r\n\r\n",
        &packed,
    ]
    .concat();
    let (code, evidence) = judged(&policy, &failing);
    assert_eq!(code, Code::L7Sts);
    assert!(evidence.starts_with("503 No, expected 200-299: all is fine ...."), "{evidence}");
}

#[test]
fn a_broken_or_unknown_coding_is_no_answer() {
    let policy = asserting(&[lacks("panic")]);
    let packed = gzipped(b"all is fine");
    let mut wrong_sum = packed.clone();
    let sum = wrong_sum.len() - 6;
    wrong_sum[sum] ^= 1;
    let gzip = "Content-Encoding: gzip\r\n";
    let cut_off = "body is not the gzip that its head announces: it is cut off or damaged";
    let table: &[(&str, &[u8], &str)] = &[
        (gzip, &packed[..packed.len() - 4], cut_off),
        (gzip, &packed[..5], cut_off),
        (gzip, &wrong_sum, cut_off),
        (gzip, b"<html>plain</html>", "body is not the gzip that its head announces: "),
        (gzip, &[&packed[..], b"garbage after it"].concat(), "body is not the gzip that its head announces: "),
        ("Content-Encoding: br\r\n", b"\x0b", "body is encoded as br, which was not asked for and cannot be read"),
        ("Content-Encoding: gzip, br\r\n", b"\x0b", "body is encoded as gzip, br, which was not asked for"),
        ("Content-Encoding: deflate\r\n", b"\x0b", "body is encoded as deflate, which was not asked for"),
    ];
    for (fields, body, why) in table {
        let (code, evidence) = judged(&policy, &answer(fields, body));
        assert_eq!(code, Code::L7Rsp, "{evidence}");
        assert!(evidence.starts_with(why), "{evidence:?} should begin with {why:?}");
    }
    // What does not look at the body does not mind.
    assert_eq!(judged(&super::policy(|_| {}), &answer("Content-Encoding: br\r\n", b"\x0b")).0, Code::L7Ok);
}

#[test]
fn a_bomb_is_put_out_at_the_bound() {
    let packed = gzipped(&vec![0; 64 * 1024 * 1024]);
    assert!(packed.len() < 100_000, "it is one: {}", packed.len());
    let mut attempt = Attempt::asked(asserting(&[lacks("panic")]));
    let judgement = attempt.take(&answer("Content-Encoding: gzip\r\n", &packed));
    assert_judged(judgement, Code::L7Rsp, "body is larger than 1048576 bytes", Then::AwaitFin);
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let policy = |value: &str| {
        policy(|check| {
            check.authorization = Some(Secret::new(value));
            check.headers = Box::new([("authorization".into(), "typed".into())]);
            check.assertions = Box::new([contains("nothing of it")]);
        })
    };
    let bearer = policy("Bearer s3cr3t-token");
    assert!(!format!("{bearer:?}").contains("s3cr3t"), "{bearer:?}");
    let mut attempt = Attempt::start(bearer.clone());
    attempt.on(OpKind::Connect, Ok(0));
    let text = String::from_utf8(attempt.ops.bytes.clone()).expect("text");
    assert_eq!(text.matches("uthorization: ").count(), 1, "{text}");
    assert!(text.contains("\r\nAuthorization: Bearer s3cr3t-token\r\n"), "{text}");
    // A server that sends back what it got, and one whose answer is cut in the middle of it.
    let (_, evidence) = judged(&bearer, &answer("", b"you said: Bearer s3cr3t-token"));
    assert_eq!(evidence, "body does not contain \"nothing of it\": you said: (secret)");
    let echoing =
        format!("HTTP/1.1 401 No\r\nContent-Length: 900\r\n\r\n{}s3cr3t-token{}", "x".repeat(200), "y".repeat(688));
    let (_, evidence) = judged(&bearer, echoing.as_bytes());
    assert!(!evidence.contains("s3cr") && evidence.contains("(secret)"), "{evidence}");
    // user:pass-phrase
    let (_, evidence) =
        judged(&policy("Basic dXNlcjpwYXNzLXBocmFzZQ=="), &answer("", b"hello user, pass-phrase it is"));
    assert_eq!(evidence, "body does not contain \"nothing of it\": hello user, (secret) it is");
}

proptest! {
    #[test]
    fn no_content_is_a_danger(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        gzip in any::<bool>(),
        sizes in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        let policy = asserting(&[contains("a"), lacks("b"), json("/0", JsonRule::Exists), Assertion::Matches(pattern("c|^$"))]);
        let answer = answer(if gzip { "Content-Encoding: gzip\r\n" } else { "" }, &body);
        let whole = Attempt::asked(policy.clone()).take(&answer).expect("judged").outcome;
        let mut rest = &answer[..];
        let mut attempt = Attempt::asked(policy);
        let mut found = None;
        for &size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            found = attempt.take(piece);
            rest = after;
            if found.is_some() || rest.is_empty() {
                break;
            }
        }
        let found = found.expect("judged").outcome;
        prop_assert_eq!((whole.code, whole.evidence), (found.code, found.evidence));
    }
}
