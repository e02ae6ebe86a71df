//! Names and dns checks against real name servers and bad ones: NSD says what is right, a server made for the test lies,
//! is silent, and counts what it is asked.

mod counterparts;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use cpra::daemon::{self, Daemon, Plan};
use cpra::domain::monitor::{DnsCheck, RecordType};
use cpra::domain::{Check, Code, Host, Monitor, Outcome, Target, TcpCheck, Verdict, VoidReason};
use cpra::os::clock::Clock;
use cpra::os::resolve::{self, Resolver, ResolverBoard, Settings};
use cpra::pipeline::Bell;
use cpra::ring::Family;
use cpra::shard::protocol::Resolution;
use cpra::units::Span;
use cpra::world::Catalog;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::{A, AAAA};
use tempfile::TempDir;

use counterparts::dns::{RawDns, answer, bytes};
use counterparts::engine::{Engine, Monitored};
use counterparts::nsd::Nsd;
use counterparts::{free_port, loopbacks};

const SOON: Duration = Duration::from_millis(400);

fn dns(server: SocketAddr, name: &str, record: RecordType, expect: &[&str]) -> Monitored {
    let mut monitored = Monitored::get(server, name);
    let expect = expect.iter().map(|&text| text.into()).collect();
    monitored.policy.check = Check::Dns(DnsCheck { record, expect });
    monitored
}

/// Files that name nobody and nothing, unless told so.
struct Files(TempDir);

impl Files {
    fn new(hosts: &str, resolv_conf: &str) -> Self {
        let folder = TempDir::with_prefix("cpra-names-").expect("a temporary directory");
        fs::write(folder.path().join("hosts"), hosts).expect("a file");
        fs::write(folder.path().join("resolv.conf"), resolv_conf).expect("a file");
        Self(folder)
    }

    fn settings(&self, servers: &[SocketAddr]) -> Settings {
        Settings {
            servers: servers.to_vec(),
            resolv_conf: self.0.path().join("resolv.conf"),
            hosts: self.0.path().join("hosts"),
            ..Settings::default()
        }
    }
}

#[track_caller]
fn check(monitored: &Monitored) -> Outcome {
    let files = Files::new("", "");
    Engine::of(&[monitored]).resolving(files.settings(&[])).check(0)
}

#[track_caller]
fn assert_check(monitored: &Monitored, code: Code, evidence: &str) {
    let outcome = check(monitored);
    let words = outcome.evidence.as_deref().unwrap_or("");
    assert_eq!((outcome.code, words), (code, evidence));
    let verdict = match code {
        Code::L7Ok => Verdict::Ok,
        Code::Void(_) => Verdict::Void,
        _ => Verdict::Fail,
    };
    assert_eq!(outcome.verdict(), verdict);
}

#[test]
fn nsd_is_judged_by_its_answers() {
    use RecordType::{A, Aaaa, Caa, Cname, Mx, Ns, Ptr, Soa, Srv, Txt};
    let Some(nsd) = Nsd::start() else { return };
    let soa = "ns1.example.test. host\\.master.example.test. 2026010101 3600 600 86400 60";
    for loopback in loopbacks() {
        let server = nsd.address(loopback);
        let table: &[(&str, RecordType, &[&str], Code, String)] = &[
            ("www.example.test", A, &["192.0.2.2", "192.0.2.1"], Code::L7Ok, String::new()),
            ("WWW.Example.test", A, &[], Code::L7Ok, String::new()),
            ("www.example.test", Aaaa, &["2001:DB8:0::1"], Code::L7Ok, String::new()),
            ("alias.example.test", A, &["192.0.2.1"], Code::L7Ok, String::new()),
            ("alias.example.test", Cname, &["other.example.test."], Code::L7Ok, String::new()),
            ("any.wild.example.test", A, &["192.0.2.77"], Code::L7Ok, String::new()),
            ("example.test", Mx, &["10 mail.example.test.", "20 mail.backup.test"], Code::L7Ok, String::new()),
            ("example.test", Txt, &["v=spf1 -all", r#""one" "two \"quoted\"""#], Code::L7Ok, String::new()),
            ("example.test", Ns, &["ns1.example.test.", "ns2.example.test."], Code::L7Ok, String::new()),
            ("example.test", Soa, &[soa], Code::L7Ok, String::new()),
            ("_sip._tcp.example.test", Srv, &["10 60 5060 sip.example.test."], Code::L7Ok, String::new()),
            ("example.test", Caa, &[r#"0 issue "letsencrypt.org""#], Code::L7Ok, String::new()),
            ("1.2.0.192.in-addr.arpa", Ptr, &["www.example.test."], Code::L7Ok, String::new()),
            ("192.0.2.1", Ptr, &["www.example.test."], Code::L7Ok, String::new()),
            ("no.example.test", A, &[], Code::L7Sts, format!("NXDOMAIN for no.example.test A, asked {server}")),
            ("a.broken.test", A, &[], Code::L7Sts, format!("SERVFAIL for a.broken.test A, asked {server}")),
            ("elsewhere.test", A, &[], Code::L7Sts, format!("REFUSED for elsewhere.test A, asked {server}")),
            ("www.example.test", Mx, &[], Code::L7Rsp, format!("no answer to www.example.test MX, asked {server}")),
            ("here.example.test", A, &["127.0.0.2"], Code::L7Rsp, "answers 127.0.0.1, expected 127.0.0.2".into()),
            (
                "here.example.test",
                A,
                &["127.0.0.3", "127.0.0.1", "127.0.0.2"],
                Code::L7Rsp,
                "answers 127.0.0.1, expected 127.0.0.3, 127.0.0.2".into(),
            ),
            (
                "ns2.example.test",
                A,
                &["127.0.0.1"],
                Code::L7Rsp,
                format!("no answer to ns2.example.test A, asked {server}, expected 127.0.0.1"),
            ),
        ];
        for (name, record, expect, code, evidence) in table {
            println!("{server} {name} {record:?}");
            assert_check(&dns(server, name, *record, expect), *code, evidence);
        }
    }
}

#[test]
fn an_answer_that_is_cut_is_asked_for_over_tcp() {
    let Some(nsd) = Nsd::start() else { return };
    let server = nsd.address(loopbacks()[0]);
    let last = format!("059 {}", "x".repeat(180));
    assert_check(&dns(server, "big.example.test", RecordType::Txt, &[&last]), Code::L7Ok, "");
    let outcome = check(&dns(server, "big.example.test", RecordType::Txt, &["not there"]));
    assert_eq!(outcome.code, Code::L7Rsp);
    let words = outcome.evidence.expect("some");
    assert!(words.starts_with("answers \"") && words.len() <= 256, "{words}");

    // Over UDP only: the answer is cut, and nobody listens on TCP.
    let raw = RawDns::start(|question| {
        let mut cut = answer(question, ResponseCode::NoError, 60, &[]);
        cut.metadata.truncation = true;
        vec![bytes(&cut)]
    });
    let evidence =
        format!("the answer was cut, and over TCP: connection refused (x.example A, asked {})", raw.address());
    assert_check(&dns(raw.address(), "x.example", RecordType::A, &[]), Code::L7Rsp, &evidence);
}

fn one(question: &Message, last: u8) -> Message {
    answer(question, ResponseCode::NoError, 60, &[RData::A(A::new(192, 0, 2, last))])
}

#[test]
fn nonsense_is_malformed_and_what_belongs_to_others_is_not_looked_at() {
    type Make = fn(&Message) -> Vec<Vec<u8>>;
    let table: [(&str, Make, Code, &str); 9] = [
        (
            "cut in the middle",
            |question| vec![bytes(&one(question, 1))[..20].to_vec()],
            Code::L7Rsp,
            "the answer cannot be read: ",
        ),
        (
            "seven bytes",
            |question| vec![bytes(&one(question, 1))[..7].to_vec()],
            Code::L7Rsp,
            "the answer ends after 7 bytes (x.example A, asked ",
        ),
        (
            "garbage behind the identifier",
            |question| {
                let mut garbage = vec![0xff; 300];
                garbage[..2].copy_from_slice(&question.metadata.id.to_be_bytes());
                // A response that is not cut.
                garbage[2] = 0x80;
                vec![garbage]
            },
            Code::L7Rsp,
            "the answer cannot be read: ",
        ),
        ("an echo", |question| vec![bytes(question)], Code::L7Rsp, "the answer is a question itself"),
        (
            "wrong identifiers, then the answer",
            |question| {
                let mut wrong = one(question, 66);
                wrong.metadata.id ^= 1;
                vec![bytes(&wrong), vec![], b"!".to_vec(), bytes(&one(question, 1))]
            },
            Code::L7Ok,
            "",
        ),
        (
            "another question's, then the answer",
            |question| {
                let mut other = question.clone();
                other.queries[0].set_name("y.example.".parse().expect("a name"));
                vec![bytes(&one(&other, 66)), bytes(&one(question, 1))]
            },
            Code::L7Ok,
            "",
        ),
        (
            "only wrong identifiers",
            |question| {
                let mut wrong = one(question, 1);
                wrong.metadata.id ^= 0x100;
                vec![bytes(&wrong)]
            },
            Code::L7Tout,
            "no answer from ",
        ),
        (
            "a flood of them",
            |question| {
                let mut wrong = one(question, 1);
                wrong.metadata.id ^= 0x100;
                vec![bytes(&wrong); 64]
            },
            Code::L7Rsp,
            "nothing but answers to other questions",
        ),
        ("nothing", |_| vec![], Code::L7Tout, "no answer from "),
    ];
    for (what, make, code, evidence) in table {
        let raw = RawDns::start(make);
        let monitored = dns(raw.address(), "x.example", RecordType::A, &["192.0.2.1"]).within(SOON);
        let outcome = check(&monitored);
        assert_eq!(outcome.code, code, "{what}: {:?}", outcome.evidence);
        let words = outcome.evidence.as_deref().unwrap_or("");
        assert!(words.starts_with(evidence), "{what}: {words}");
        assert_eq!(raw.asked(), ["x.example. A"], "{what}");
    }
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    let raw = RawDns::start(|question| match question.edns {
        Some(_) => vec![bytes(&answer(question, ResponseCode::FormErr, 0, &[]))],
        None => vec![bytes(&one(question, 1))],
    });
    assert_check(&dns(raw.address(), "x.example", RecordType::A, &["192.0.2.1"]), Code::L7Ok, "");
    assert_eq!(raw.asked().len(), 2);
}

#[test]
fn a_closed_port_is_a_refused_connection() {
    let server = SocketAddr::new(loopbacks()[0], free_port());
    let evidence = format!("connection refused {server}");
    assert_check(&dns(server, "x.example", RecordType::A, &[]), Code::L4Con, &evidence);
}

#[test]
fn what_this_host_cannot_send_is_void() {
    // A broadcast address: a socket must be told that it may.
    let server: SocketAddr = "127.255.255.255:53".parse().expect("an address");
    let evidence = "could not ask 127.255.255.255: forbidden by this host";
    assert_check(&dns(server, "x.example", RecordType::A, &[]), Code::Void(VoidReason::Forbidden), evidence);
}

#[test]
fn a_slot_is_free_again_after_a_question_that_nobody_answered() {
    let deaf = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = deaf.local_addr().expect("it is bound");
    let monitored = dns(address, "x.example", RecordType::A, &[]).within(Duration::from_millis(100)).retried(2);
    let files = Files::new("", "");
    let mut engine = Engine::of(&[&monitored]).resolving(files.settings(&[]));
    // More often than there are slots.
    for _ in 0..10 {
        let outcome = engine.check(0);
        assert_eq!((outcome.code, outcome.attempts), (Code::L7Tout, 3));
        let evidence = format!("no answer from {address} to x.example A in 100 ms");
        assert_eq!(outcome.evidence.as_deref(), Some(&*evidence));
    }
}

#[test]
fn a_server_may_be_named() {
    let Some(nsd) = Nsd::start() else { return };
    let server = nsd.address(loopbacks()[0]);
    let files = Files::new("", "");
    let named = |host: &str| {
        let monitored = dns(server, "www.example.test", RecordType::A, &["192.0.2.1"]);
        Monitored { host: Host::Name(host.into()), ..monitored }
    };
    let asked = |host: &str| Engine::of(&[&named(host)]).resolving(files.settings(&[server])).check(0);
    assert_eq!(asked("here.example.test").code, Code::L7Ok);
    let gone = asked("no.example.test");
    assert_eq!((gone.code, gone.evidence.as_deref()), (Code::L4Dns, Some("no.example.test: no such name")));
    let unknown = asked("a.broken.test");
    assert_eq!(unknown.code, Code::Void(VoidReason::Resolver));
    let evidence = format!("a.broken.test: the resolver failed: {server} answered SERVFAIL");
    assert_eq!(unknown.evidence.as_deref(), Some(&*evidence));
}

/// The daemon's resolver alone.
struct Asking {
    resolver: Resolver,
    board: Arc<ResolverBoard>,
}

impl Asking {
    fn start(settings: Settings) -> Self {
        let started = resolve::spawn(settings, 64, vec![Bell::mute()]).expect("a thread can be made");
        Self { resolver: started.resolvers.into_iter().next().expect("one"), board: started.board }
    }

    fn ask(&mut self, name: &str) -> Resolution {
        self.resolver.requests.send(name.into()).expect("there is room");
        self.answer().1
    }

    fn answer(&mut self) -> (Box<str>, Resolution) {
        let until = Clock.now() + Span::from_secs(15);
        loop {
            if let Some(answer) = self.resolver.answers.recv() {
                return answer;
            }
            assert!(Clock.now() < until, "an answer always comes");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[track_caller]
fn assert_found(resolution: &Resolution, addresses: &[&str]) -> Span {
    let Resolution::Found { addresses: found, ttl } = resolution else { panic!("{resolution:?}") };
    let mut found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
    found.sort();
    assert_eq!(found, addresses);
    *ttl
}

#[track_caller]
fn assert_failed(resolution: &Resolution, why: &str) {
    let Resolution::Failed(words) = resolution else { panic!("{resolution:?}") };
    assert_eq!(&**words, why);
}

#[test]
fn names_are_looked_up_at_nsd() {
    let Some(nsd) = Nsd::start() else { return };
    let server = nsd.address(loopbacks()[0]);
    let files = Files::new("198.51.100.7 www.example.test pinned\n", "search nowhere.test example.test\n");
    let mut asking = Asking::start(files.settings(&[server]));
    let www = ["192.0.2.1", "192.0.2.2"];
    let ttl = assert_found(&asking.ask("other.example.test"), &www);
    assert_eq!(ttl, Span::from_secs(300));
    assert_found(&asking.ask("alias.example.test"), &www);
    assert_found(&asking.ask("ns2.example.test"), &["::1"]);
    assert_found(&asking.ask("www.example.test"), &["198.51.100.7"]);
    assert_found(&asking.ask("pinned"), &["198.51.100.7"]);
    // `nowhere.test` is refused: nobody knows, unless it is found further on. With a dot it is not looked for elsewhere.
    assert_found(&asking.ask("here"), &["127.0.0.1"]);
    assert_failed(&asking.ask("no"), &format!("{server} answered REFUSED"));
    assert_failed(&asking.ask("here.nowhere"), &format!("{server} answered REFUSED"));
    assert_eq!(asking.ask("no.example.test"), Resolution::NotFound);
    assert_eq!(asking.ask("dangling.example.test"), Resolution::NotFound);
    // It exists, but has neither A nor AAAA records.
    assert_eq!(asking.ask("_sip._tcp.example.test"), Resolution::NotFound);
    assert_failed(&asking.ask("a.broken.test"), &format!("{server} answered SERVFAIL"));
    // More than fit into a datagram, and more than are looked at.
    let Resolution::Found { addresses, .. } = asking.ask("many.example.test") else { panic!("they are there") };
    assert_eq!(addresses.len(), 64);
    let stats = asking.board.stats();
    assert_eq!((stats.found, stats.not_found, stats.failed, stats.stale), (5, 3, 3, 0));
    assert_eq!(stats.latency.count(), 11);

    let files = Files::new("", "search example.test\n");
    let mut asking = Asking::start(Settings { prefer: Family::V6, ..files.settings(&[server]) });
    assert_found(&asking.ask("www"), &["2001:db8::1"]);
    assert_found(&asking.ask("ns1"), &["127.0.0.1"]);
}

#[test]
fn one_server_after_the_other_is_asked_and_the_good_one_first() {
    let dead = SocketAddr::new(loopbacks()[0], free_port());
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().map(|address| (silent, address)).expect("it is bound");
    let raw = RawDns::start(|question| vec![bytes(&one(question, 1))]);
    let files = Files::new("", "");
    let patient = |servers: &[SocketAddr]| Settings { timeout: Span::from_millis(300), ..files.settings(servers) };
    let mut asking = Asking::start(patient(&[dead, silent.1, raw.address()]));
    let begin = Clock.now();
    assert_found(&asking.ask("a.example"), &["192.0.2.1"]);
    assert!(Clock.now().since(begin) >= Span::from_millis(300), "the silent one had its time");
    let begin = Clock.now();
    assert_found(&asking.ask("b.example"), &["192.0.2.1"]);
    assert!(Clock.now().since(begin) < Span::from_millis(250), "{}", Clock.now().since(begin));

    let mut asking = Asking::start(patient(&[silent.1]));
    assert_failed(&asking.ask("a.example"), &format!("{} did not answer in time", silent.1));
    let mut asking = Asking::start(patient(&[dead, silent.1]));
    let why = format!("{dead} did not answer in time; {} did not answer in time", silent.1);
    assert_failed(&asking.ask("a.example"), &why);
}

#[test]
fn what_was_answered_is_not_asked_again_before_its_time() {
    let raw = RawDns::start(|question| {
        let name = question.queries[0].name().to_string();
        let code = if name.starts_with("no") { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let ttl = if name.starts_with("short") { 2 } else { 600 };
        let data = if name.starts_with("no") { vec![] } else { vec![RData::A(A::new(192, 0, 2, 1))] };
        vec![bytes(&answer(question, code, ttl, &data))]
    });
    let files = Files::new("", "");
    let mut asking = Asking::start(files.settings(&[raw.address()]));
    for _ in 0..5 {
        assert_found(&asking.ask("long.example"), &["192.0.2.1"]);
        assert_found(&asking.ask("short.example"), &["192.0.2.1"]);
        assert_eq!(asking.ask("no.example"), Resolution::NotFound);
    }
    assert_eq!(raw.asked(), ["long.example. A", "short.example. A", "no.example. A"]);
    thread::sleep(Duration::from_millis(2_100));
    assert_found(&asking.ask("long.example"), &["192.0.2.1"]);
    assert_found(&asking.ask("short.example"), &["192.0.2.1"]);
    assert_eq!(asking.ask("no.example"), Resolution::NotFound);
    assert_eq!(raw.asked()[3..], ["short.example. A", "no.example. A"]);
}

#[test]
fn many_who_ask_at_once_are_answered_by_one_question() {
    let raw = RawDns::start(|question| {
        thread::sleep(Duration::from_millis(100));
        vec![bytes(&one(question, 1))]
    });
    let files = Files::new("", "");
    let started = resolve::spawn(files.settings(&[raw.address()]), 64, vec![Bell::mute(); 8]).expect("a thread");
    let mut resolvers = started.resolvers;
    for resolver in &mut resolvers {
        resolver.requests.send("a.example".into()).expect("there is room");
    }
    let board = started.board;
    for resolver in resolvers {
        let (name, answer) = Asking { resolver, board: Arc::clone(&board) }.answer();
        assert_eq!(&*name, "a.example");
        assert_found(&answer, &["192.0.2.1"]);
    }
    assert_eq!(raw.asked(), ["a.example. A"]);
    assert_eq!(board.stats().found, 1);
}

#[test]
fn every_name_is_answered_in_time_by_a_server_that_is_silent() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let files = Files::new("", "");
    let settings = files.settings(&[silent.local_addr().expect("it is bound")]);
    let started = resolve::spawn(settings, 1_024, vec![Bell::mute()]).expect("a thread");
    let mut resolver = started.resolvers.into_iter().next().expect("one");
    // Eight times as many as are looked up at the same time.
    for number in 0..1_000 {
        resolver.requests.send(format!("n{number}.example").into()).expect("there is room");
    }
    let begin = Clock.now();
    let mut asking = Asking { resolver, board: started.board };
    for _ in 0..1_000 {
        let (_, answer) = asking.answer();
        let Resolution::Failed(_) = answer else { panic!("{answer:?}") };
    }
    assert!(Clock.now().since(begin) < Span::from_secs(10), "{}", Clock.now().since(begin));
}

#[test]
fn resolv_conf_is_read_anew_when_it_changes() {
    let Some(old) = RawDns::at_port_53(1, |question| vec![bytes(&one(question, 1))]) else { return };
    let Some(new) = RawDns::at_port_53(2, |question| vec![bytes(&one(question, 2))]) else { return };
    let naming = |server: &RawDns| format!("# by hand\nnameserver {}\n", server.address().ip());
    let files = Files::new("", &naming(&old));
    let mut asking = Asking::start(files.settings(&[]));
    assert_found(&asking.ask("a.example"), &["192.0.2.1"]);
    fs::write(files.0.path().join("resolv.conf"), naming(&new)).expect("a file");
    thread::sleep(Duration::from_millis(2_100));
    // What the old one said is not believed any more.
    assert_found(&asking.ask("a.example"), &["192.0.2.2"]);
    assert_found(&asking.ask("b.example"), &["192.0.2.2"]);
    assert_eq!((old.asked().len(), new.asked().len()), (1, 2));
    fs::remove_file(files.0.path().join("resolv.conf")).expect("it is there");
    thread::sleep(Duration::from_millis(2_100));
    assert_found(&asking.ask("a.example"), &["192.0.2.2"]);
    let Resolution::Failed(why) = asking.ask("c.example") else { panic!("nobody is there to ask") };
    assert!(why.contains("resolv.conf: "), "{why}");
    assert_eq!(asking.board.stats().stale, 1);
}

/// Checks of ten names by a whole daemon, as often as twice a second.
struct Running {
    daemon: Option<Daemon>,
    api: SocketAddr,
    _folder: TempDir,
}

impl Running {
    fn start(settings: Settings, monitors: u32, port: u16, name: impl Fn(u32) -> String) -> Self {
        let template = Monitored::get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), "");
        let mut policy = template.policy;
        policy.check = Check::Tcp(TcpCheck::default());
        policy.interval = Span::from_millis(500);
        policy.timeout = Span::from_millis(450);
        policy.retry_interval = policy.interval;
        let monitors = (0..monitors).map(|index| Monitor {
            name: format!("monitor-{index}").into(),
            enabled: true,
            target: Target { host: Host::Name(name(index).into()), port, path: "".into() },
            policy: policy.clone(),
        });
        Self::watching(settings, monitors)
    }

    fn watching(settings: Settings, monitors: impl Iterator<Item = Monitor>) -> Self {
        let folder = TempDir::with_prefix("cpra-names-").expect("a temporary directory");
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = api.local_addr().expect("it is bound");
        let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
        let plan = Plan { resolver: settings, ..Plan::new(catalog, api, folder.path().to_owned()) };
        Self { daemon: Some(daemon::start(plan).expect("the daemon starts")), api: address, _folder: folder }
    }

    fn metric(&self, sample: &str) -> u64 {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.api).expect("the API listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("it takes requests");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse().expect("a whole number"))
    }

    fn wait_for(&self, sample: &str, least: u64) {
        let until = Clock.now() + Span::from_secs(30);
        while self.metric(sample) < least {
            assert!(Clock.now() < until, "{sample} is {} and not {least}", self.metric(sample));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

const GOOD: &str = r#"cpra_checks_total{type="tcp",outcome="L4OK"}"#;
const VOID: &str = r#"cpra_checks_total{type="tcp",outcome="VOID:RESOLVER"}"#;
const NO_NAME: &str = r#"cpra_checks_total{type="tcp",outcome="L4DNS"}"#;
const REFUSED: &str = r#"cpra_checks_total{type="tcp",outcome="L4CON"}"#;

fn here(question: &Message, ttl: u32) -> Vec<Vec<u8>> {
    vec![bytes(&answer(question, ResponseCode::NoError, ttl, &[RData::A(A::new(127, 0, 0, 1))]))]
}

#[test]
fn a_thousand_monitors_of_ten_names_ask_ten_times() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = target.local_addr().expect("it is bound").port();
    let raw = RawDns::start(|question| here(question, 300));
    let files = Files::new("", "");
    let running =
        Running::start(files.settings(&[raw.address()]), 1_000, port, |index| format!("n{}.test", index % 10));
    thread::spawn(move || target.incoming().for_each(drop));
    running.wait_for(GOOD, 3_000);
    let mut asked = raw.asked();
    asked.sort();
    assert_eq!(asked, (0..10).map(|number| format!("n{number}.test. A")).collect::<Vec<_>>());
    assert_eq!(running.metric(r#"cpra_resolver_queries_total{result="found"}"#), 10);
    assert_eq!((running.metric(VOID), running.metric(NO_NAME)), (0, 0));
    assert_eq!(running.metric("cpra_monitors_lost"), 0);
}

#[test]
fn checks_go_on_with_stale_addresses_while_the_servers_are_down() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = target.local_addr().expect("it is bound").port();
    thread::spawn(move || target.incoming().for_each(drop));
    for failure in [None, Some(ResponseCode::ServFail)] {
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        let raw = RawDns::start(move |question| match failure {
            _ if !is_down.load(Ordering::Relaxed) => here(question, 1),
            None => vec![],
            Some(code) => vec![bytes(&answer(question, code, 0, &[]))],
        });
        let files = Files::new("", "");
        let running = Running::start(files.settings(&[raw.address()]), 20, port, |_| "n.test".into());
        running.wait_for(GOOD, 40);
        assert_eq!(running.metric("cpra_resolver_stale_total"), 0);
        down.store(true, Ordering::Relaxed);
        running.wait_for(r#"cpra_resolver_queries_total{result="failed"}"#, 1);
        let before = running.metric(GOOD);
        running.wait_for(GOOD, before + 200);
        assert!(running.metric("cpra_resolver_stale_total") > 0);
        // A check that begins while the first question is in vain waits for it, and the question longer than its time.
        assert!(running.metric(VOID) <= 20, "{failure:?}: {} were void", running.metric(VOID));
        let void = running.metric(VOID);
        let before = running.metric(GOOD);
        running.wait_for(GOOD, before + 100);
        assert_eq!(running.metric(VOID), void, "{failure:?}");
    }
}

#[test]
fn an_address_that_changes_is_noticed_when_its_time_is_up() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = target.local_addr().expect("it is bound").port();
    thread::spawn(move || target.incoming().for_each(drop));
    let last = Arc::new(AtomicU32::new(1));
    let now = Arc::clone(&last);
    // Only 127.0.0.1 listens.
    let raw = RawDns::start(move |question| {
        let data = match now.load(Ordering::Relaxed) {
            0 => return vec![bytes(&answer(question, ResponseCode::NXDomain, 0, &[]))],
            last => RData::A(A::new(127, 0, 0, last.try_into().expect("a byte"))),
        };
        vec![bytes(&answer(question, ResponseCode::NoError, 1, &[data]))]
    });
    let files = Files::new("", "");
    let running = Running::start(files.settings(&[raw.address()]), 5, port, |_| "n.test".into());
    running.wait_for(GOOD, 10);
    last.store(2, Ordering::Relaxed);
    running.wait_for(REFUSED, 10);
    last.store(0, Ordering::Relaxed);
    running.wait_for(NO_NAME, 10);
    last.store(1, Ordering::Relaxed);
    let before = running.metric(GOOD);
    running.wait_for(GOOD, before + 10);
    assert_eq!(running.metric(VOID), 0);
}

#[test]
fn another_attempt_takes_another_address() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = target.local_addr().expect("it is bound");
    let raw = RawDns::start(|question| {
        let addresses = [3, 2, 1].map(|last| RData::A(A::new(127, 0, 0, last)));
        let both = [&addresses[..], &[RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))]].concat();
        vec![bytes(&answer(question, ResponseCode::NoError, 60, &both))]
    });
    let files = Files::new("", "");
    let tried = |retries| {
        let mut monitored = Monitored::get(address, "").retried(retries);
        monitored.policy.check = Check::Tcp(TcpCheck::default());
        monitored.host = Host::Name("n.test".into());
        Engine::of(&[&monitored]).resolving(files.settings(&[raw.address()])).check(0)
    };
    let outcome = tried(0);
    let first = format!("connection refused 127.0.0.3:{}", address.port());
    assert_eq!((outcome.code, outcome.evidence.as_deref()), (Code::L4Con, Some(&*first)));
    let outcome = tried(1);
    let second = format!("connection refused 127.0.0.2:{}", address.port());
    assert_eq!((outcome.attempts, outcome.evidence.as_deref()), (2, Some(&*second)));
    let outcome = tried(2);
    assert_eq!((outcome.code, outcome.attempts), (Code::L4Ok, 3));
}

#[test]
fn the_daemon_asks_many_servers_and_the_silent_ones_delay_nobody() {
    let deaf = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let raw = RawDns::start(|question| vec![bytes(&one(question, 1))]);
    let monitors = |count: u32, kind: &'static str, server: SocketAddr, expect: &'static str| {
        (0..count).map(move |index| {
            let asked = dns(server, "x.example", RecordType::A, &[expect]);
            let mut policy = asked.policy;
            policy.interval = Span::from_secs(1);
            policy.retry_interval = policy.interval;
            policy.timeout = Span::from_millis(800);
            let target = Target { host: asked.host, port: server.port(), path: asked.path };
            Monitor { name: format!("{kind}-{index}").into(), enabled: true, target, policy }
        })
    };
    let silent = monitors(100, "silent", deaf.local_addr().expect("it is bound"), "192.0.2.1");
    let good = monitors(50, "good", raw.address(), "192.0.2.1");
    let bad = monitors(5, "bad", raw.address(), "192.0.2.2");
    let files = Files::new("", "");
    let running = Running::watching(files.settings(&[]), silent.chain(good).chain(bad));
    let code = |code: &str| format!(r#"cpra_checks_total{{type="dns",outcome="{code}"}}"#);
    running.wait_for(&code("L7TOUT"), 300);
    let (ok, bad) = (running.metric(&code("L7OK")), running.metric(&code("L7RSP")));
    assert!(ok >= 100 && bad >= 10, "{ok} {bad}");
    let void = Code::ALL.into_iter().filter(|code| matches!(code, Code::Void(_)));
    let void: Vec<_> = void.filter(|void| running.metric(&code(void.as_str())) > 0).collect();
    assert!(void.is_empty(), "{void:?}");
    assert_eq!(running.metric("cpra_monitors_lost"), 0);
    assert_eq!(running.metric(r#"cpra_resolver_queries_total{result="found"}"#), 0, "no name was looked up");
}
