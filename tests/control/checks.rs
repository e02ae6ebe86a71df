//! `cpra check`: one check without a daemon.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use super::counterparts::raw::{RawServer, Script};
use super::daemon::BINARY;
use super::{Said, json, say};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(monitors: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("m.yaml"), monitors).expect("written");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn check(&self, words: &[&str]) -> Said {
        let all: Vec<&str> = [BINARY, "check", "--yaml", "m.yaml"].into_iter().chain(words.iter().copied()).collect();
        say(self.path(), &all)
    }
}

fn http(name: &str, address: SocketAddr, timeout: &str) -> String {
    format!(
        "- name: {name}\n  pulse: {{type: http, interval: 30s, timeout: {timeout}, config: {{url: \"http://{address}/health\"}}}}\n"
    )
}

fn tcp(name: &str, port: u16) -> String {
    format!(
        "- name: {name}\n  pulse: {{type: tcp, interval: 30s, timeout: 1s, config: {{host: localhost, port: {port}}}}}\n"
    )
}

fn answer(status: &str) -> Script {
    Script::Answer(
        format!("HTTP/1.1 {status}\r\nX-Words: a  b\r\nContent-Length: 17\r\n\r\nhello\n\x1b[31mworld!").into_bytes(),
    )
}

#[test]
fn a_check_shows_what_it_sees() {
    let (well, unwell, silent) =
        (RawServer::start(answer("200 OK")), RawServer::start(answer("503 Busy")), RawServer::start(Script::Silence));
    let open = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = open.local_addr().expect("it is bound").port();
    let text = [
        http("web/well", well.address(), "2s"),
        http("web/unwell", unwell.address(), "2s"),
        http("web/silent", silent.address(), "300ms"),
        tcp("db/open", port),
        tcp("db/refused", 1),
        "- name: job\n  pulse: {type: push, interval: 1s, timeout: 1s, config: {token: abcdefghijklmnop}}\n".to_owned(),
    ]
    .concat();
    let folder = Folder::new(&text);

    let said = folder.check(&["web/well"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("connect   {} in ", well.address())), "{said:?}");
    assert!(lines[1].starts_with("answer    200 in ") && lines[1].contains("(first byte "), "{said:?}");
    assert_eq!(
        lines[2..],
        [
            "headers   HTTP/1.1 200 OK",
            "          X-Words: a b",
            "          Content-Length: 17",
            "body      hello [31mworld!",
            "verdict   OK  L7OK",
        ]
    );

    let said = folder.check(&["web/unwell"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("verdict   FAIL  L7STS  503"), "{said:?}");

    let began = Instant::now();
    let said = folder.check(&["web/silent"]);
    assert!(said.code == Some(1) && said.stdout.contains("verdict   FAIL  L7TOUT"), "{said:?}");
    assert!(began.elapsed() > Duration::from_millis(300));

    let said = folder.check(&["db/open"]);
    assert!(said.code == Some(0) && said.stdout.contains("verdict   OK  L4OK"), "{said:?}");
    assert!(said.stdout.starts_with("resolve   localhost -> 127.0.0.1"), "{said:?}");
    let said = folder.check(&["db/refused"]);
    assert!(
        said.code == Some(1) && said.stdout.contains("verdict   FAIL  L4CON  connection refused 127.0.0.1:1"),
        "{said:?}"
    );
    let said = folder.check(&["job"]);
    assert!(said.code == Some(3) && said.stdout.contains("the job calls in"), "{said:?}");

    // Several: the gravest verdict is the answer.
    let said = folder.check(&["web/well", "db/open"]);
    assert!(
        said.code == Some(0) && said.stdout.starts_with("web/well\n") && said.stdout.contains("\n\ndb/open\n"),
        "{said:?}"
    );
    let said = folder.check(&["--all", "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let outcomes: Vec<(String, String)> = said
        .stdout
        .lines()
        .map(json)
        .map(|line| {
            (line["monitor"].as_str().expect("a name").to_owned(), line["verdict"].as_str().expect("one").to_owned())
        })
        .collect();
    let expected = [
        ("web/well", "ok"),
        ("web/unwell", "fail"),
        ("web/silent", "fail"),
        ("db/open", "ok"),
        ("db/refused", "fail"),
        ("job", "void"),
    ];
    assert_eq!(outcomes, expected.map(|(name, verdict)| (name.to_owned(), verdict.to_owned())));
    let first = json(said.stdout.lines().next().expect("a line"));
    assert_eq!((first["http_status"].as_u64(), first["body"].as_str()), (Some(200), Some("hello [31mworld!")));
    assert!(first["latency_seconds"]["total"].as_f64().is_some_and(|total| total > 0.0));
}

#[test]
fn a_check_that_cannot_be_made_is_no_verdict() {
    let folder = Folder::new(&tcp("shop/db", 1));
    for (words, hint) in [
        (vec!["shop/bd"], "did you mean \"shop/db\"?"),
        (vec!["zzz"], "there is no sound monitor \"zzz\""),
        (vec![], "<NAME>"),
        (vec!["shop/db", "--all"], "cannot be used with"),
        (vec!["shop/db", "--nonsense"], "--nonsense"),
    ] {
        let said = folder.check(&words);
        assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""), "{said:?}");
        assert!(said.stderr.contains(hint), "{said:?}");
    }
    let said = say(folder.path(), &[BINARY, "check", "shop/db"]);
    assert!(said.code == Some(3) && said.stderr.contains("--yaml FILE"), "{said:?}");
    let said = say(folder.path(), &[BINARY, "check", "shop/db", "--yaml", "nowhere.yaml"]);
    assert!(said.code == Some(3) && said.stderr.contains("nowhere.yaml"), "{said:?}");

    // A wrong neighbour is told, and keeps nobody from checking the right one.
    let broken = format!("{}- name: wrong\n  pulse: {{type: tcp, intervall: 1s}}\n", tcp("shop/db", 1));
    let folder = Folder::new(&broken);
    let said = folder.check(&["shop/db"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean \"interval\""), "{said:?}");
    let said = folder.check(&["wrong"]);
    assert!(said.code == Some(3) && said.stderr.contains("no sound monitor \"wrong\""), "{said:?}");
}

#[test]
fn a_disabled_monitor_is_checked_all_the_same() {
    let folder = Folder::new(&tcp("shop/db", 1).replace("- name", "- enabled: false\n  name"));
    assert_eq!(folder.check(&["shop/db"]).code, Some(1));
}
