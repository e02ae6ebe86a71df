//! What a name server, or somebody in its place, answers to our question.
//!
//! The first byte chooses the record, the second whether the answer carries our identifier, whether EDNS was offered, and
//! whether what follows is a whole message or what stands behind the question of a well-formed one.

#![no_main]

use cpra::domain::monitor::{DnsCheck, RecordType};
use cpra::domain::{Check, HostRef, TargetRef, Verdict};
use cpra::probe::errand::{DnsAnswer, DnsTrouble, ErrandEnd};
use cpra::probe::{Ops, Probe, Request};
use cpra::units::{Instant, Span};
use cpra::wire::dns::{Question, Reading, is_same};
use cpra::wire::tls::Unloaded;
use cpra_fuzz::{Feed, assert_sound, policy};
use libfuzzer_sys::fuzz_target;

const ID: u16 = 0x1234;
const NAME: &str = "www.fuzz.example";

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed(bytes);
    let (_, record) = RecordType::ALL[usize::from(feed.byte()) % RecordType::ALL.len()];
    let flavour = feed.byte();
    let question = Question::new(NAME, record, ID).expect("a name");
    let edns = flavour & 1 != 0;

    let mut answer = Vec::new();
    if flavour & 2 != 0 {
        // Header and question as they should be, so that the input is records from the first byte on.
        answer = question.message(false).expect("a question can be written");
        answer[2] |= 0x80;
        answer[3] = flavour >> 4;
        for (count, byte) in answer[6..12].chunks_exact_mut(2).zip(feed.take(3)) {
            count[1] = *byte & 0x1F;
        }
    } else if flavour & 4 != 0 {
        answer.extend_from_slice(&ID.to_be_bytes());
    }
    answer.extend_from_slice(feed.0);

    let reading = question.read(&answer, edns);
    let is_ours = answer.get(..2) == Some(&ID.to_be_bytes()[..]);
    assert!(is_ours || reading == Reading::Stray, "somebody else's: {reading:?}");
    let says_so = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    assert!(
        says_so || matches!(reading, Reading::Stray | Reading::Malformed(_)),
        "a question is no answer: {reading:?}"
    );
    assert!(edns || reading != Reading::Plainer, "nothing was offered that could be refused");
    let end = match reading {
        Reading::Stray | Reading::Cut | Reading::Plainer => return,
        Reading::Malformed(why) => ErrandEnd::Unanswered(DnsTrouble::Malformed(why)),
        Reading::Answer(answer) => {
            for found in &answer.records {
                assert!(!found.chars().any(char::is_control), "a control character in {found:?}");
                assert!(is_same(record, found, found), "{found:?} is not itself");
            }
            // A record takes ten bytes at least, and none of its own is written with more than four characters.
            let written: usize = answer.records.iter().map(|found| found.len()).sum();
            assert!(answer.records.len() <= bytes.len() && written <= 65_536 * 64, "{written} characters");
            ErrandEnd::Answered(DnsAnswer { rcode: answer.rcode, records: answer.records })
        }
    };
    for expect in ["", "10.0.0.1", "nobody.fuzz.example."] {
        let expect: Box<[Box<str>]> = if expect.is_empty() { Box::default() } else { Box::new([expect.into()]) };
        let policy = policy(Check::Dns(DnsCheck { record, expect: expect.clone() }));
        let address = "127.0.0.1:53".parse().expect("an address");
        let target = TargetRef { host: HostRef::Literal(std::net::Ipv4Addr::LOCALHOST.into()), port: 53, path: NAME };
        let request = Request { policy: &policy, target, address, hop: None, contexts: &Unloaded };
        let mut probe = Probe::start(&request, Instant::ZERO, &mut Ops::default());
        let outcome = probe.returned(&request, &end, Instant::ZERO + Span::from_millis(1)).outcome;
        assert_sound(&outcome);
        if outcome.verdict() == Verdict::Ok {
            let ErrandEnd::Answered(DnsAnswer { rcode, records }) = &end else { panic!("ok without an answer") };
            assert!(&**rcode == "NOERROR" && !records.is_empty());
            assert!(expect.iter().all(|wanted| records.iter().any(|found| is_same(record, wanted, found))));
        }
    }
});
