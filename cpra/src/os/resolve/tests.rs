use std::fs;

use tempfile::TempDir;

use super::*;

/// A resolver with files of its own, and nobody to ask.
struct Rig {
    folder: TempDir,
    resolver: Resolver,
    thread: thread::JoinHandle<()>,
}

impl Rig {
    fn start(hosts: &str, resolv_conf: &str) -> Self {
        let folder = TempDir::with_prefix("cpra-resolve-").unwrap();
        fs::write(folder.path().join("hosts"), hosts).unwrap();
        fs::write(folder.path().join("resolv.conf"), resolv_conf).unwrap();
        let settings = Settings {
            resolv_conf: folder.path().join("resolv.conf"),
            hosts: folder.path().join("hosts"),
            ..Settings::default()
        };
        let Started { mut resolvers, thread, .. } = spawn(settings, 8, vec![Bell::mute()]).unwrap();
        Self { folder, resolver: resolvers.pop().unwrap(), thread }
    }

    fn ask(&mut self, name: &str) -> Resolution {
        self.resolver.requests.send(name.into()).unwrap();
        let deadline = Clock.now() + RESOLVE_MAX;
        loop {
            if let Some((about, answer)) = self.resolver.answers.recv() {
                assert_eq!(&*about, name);
                return answer;
            }
            assert!(Clock.now() < deadline, "no answer about {name}");
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn end(self) {
        drop(self.resolver);
        self.thread.join().unwrap();
    }
}

fn local(addresses: &[&str]) -> Resolution {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Resolution::Found { addresses, ttl: crate::units::limits::NAME_TTL_HOSTS }
}

#[test]
fn this_host_is_known_without_a_server_and_the_rest_is_not_decided() {
    let hosts = "192.0.2.1 db DB.example # the old one\n192.0.2.2 db\n2001:db8::1 db six\nnonsense here\n";
    let mut rig = Rig::start(hosts, "search example\n");
    assert_eq!(rig.ask("localhost"), local(&["127.0.0.1"]));
    assert_eq!(rig.ask("www.localhost"), local(&["127.0.0.1"]));
    assert_eq!(rig.ask("db"), local(&["192.0.2.1", "192.0.2.2"]), "IPv4 is preferred");
    assert_eq!(rig.ask("db.example"), local(&["192.0.2.1"]));
    assert_eq!(rig.ask("six"), local(&["2001:db8::1"]));
    for nothing in ["nul\0byte", "two words.invalid", "", ".", "a..b"] {
        assert_eq!(rig.ask(nothing), Resolution::NotFound, "{nothing:?}");
    }
    let Resolution::Failed(why) = rig.ask("www.example") else { panic!("nobody knows") };
    assert!(why.contains("resolv.conf: ") && why.contains("no nameservers"), "{why}");
    rig.end();
}

#[test]
fn files_that_change_are_read_anew() {
    let mut rig = Rig::start("192.0.2.1 db\n", "");
    assert_eq!(rig.ask("db"), local(&["192.0.2.1"]));
    assert!(matches!(rig.ask("other.example"), Resolution::Failed(_)));
    fs::write(rig.folder.path().join("hosts"), "192.0.2.9 db\n192.0.2.8 other.example\n").unwrap();
    thread::sleep(std::time::Duration::from(RESOLVE_FILES_EVERY));
    assert_eq!(rig.ask("db"), local(&["192.0.2.9"]));
    assert_eq!(rig.ask("other.example"), local(&["192.0.2.8"]));
    rig.end();
}

#[test]
fn an_order_ends_once_and_a_wrong_one_at_once() {
    let mut rig = Rig::start("", "");
    // Nobody answers there, and nobody says so: the socket is bound and never read.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let policy = |timeout| {
        let check =
            crate::domain::monitor::DnsCheck { record: crate::domain::monitor::RecordType::A, expect: Box::default() };
        Arc::new(Policy {
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            about: crate::domain::monitor::About::default(),
            codes: crate::domain::Codes::default(),
            ..Policy::new(Check::Dns(check), timeout, timeout)
        })
    };
    let ask = |slot, name: &str, timeout| Order::Ask {
        slot: Slot(slot),
        generation: Generation(7),
        policy: policy(timeout),
        server: deaf.local_addr().unwrap(),
        name: name.into(),
    };
    let long = Span::from_secs(60);
    rig.resolver.orders.send(ask(1, "a.example", long)).unwrap();
    rig.resolver.orders.send(ask(2, "not..a name", long)).unwrap();
    rig.resolver.orders.send(ask(3, "b.example", Span::from_millis(10))).unwrap();
    for _ in 0..2 {
        rig.resolver.orders.send(Order::Recall { slot: Slot(1), generation: Generation(7) }).unwrap();
    }
    rig.resolver.orders.send(Order::Recall { slot: Slot(3), generation: Generation(6) }).unwrap();
    let mut ends = Vec::new();
    let deadline = Clock.now() + Span::from_secs(20);
    while ends.len() < 3 {
        ends.extend(rig.resolver.returns.recv().map(|back| (back.slot.0, back.generation.0, *back.end)));
        assert!(Clock.now() < deadline, "{ends:?}");
        thread::sleep(std::time::Duration::from_millis(1));
    }
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(rig.resolver.returns.is_empty());
    ends.sort_by_key(|(slot, ..)| *slot);
    let silent = ErrandEnd::Unanswered(DnsTrouble::Silent);
    let wanted = [ErrandEnd::Recalled, ErrandEnd::Refused(Errno::EINVAL), silent];
    assert_eq!(ends, wanted.into_iter().zip(1..).map(|(end, slot)| (slot, 7, end)).collect::<Vec<_>>());
    rig.end();
}
