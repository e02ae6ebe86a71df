use std::str::FromStr as _;

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, SRV};
use proptest::prelude::*;

use super::*;

fn question(name: &str, record: RecordType) -> Question {
    Question::new(name, record, 0x1234).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn reply(question: &Question, code: ResponseCode, answers: Vec<RData>) -> Message {
    let mut message = Message::response(question.id, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(Query::query(question.name.clone(), question.record));
    message.add_answers(answers.into_iter().map(|data| Record::from_rdata(question.name.clone(), 60, data)));
    message
}

fn read(question: &Question, message: &Message) -> Reading {
    question.read(&message.to_vec().unwrap(), false)
}

#[test]
fn a_question_is_asked_as_it_stands() {
    let bytes = question("Www.Example.", RecordType::Aaaa).message(true).unwrap();
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!((message.metadata.id, message.metadata.recursion_desired), (0x1234, true));
    assert_eq!(message.max_payload(), DNS_UDP_OFFER);
    assert_eq!(message.queries, [Query::query(name("www.example."), Type::AAAA)]);
    let plain = Message::from_vec(&question("x", RecordType::A).message(false).unwrap()).unwrap();
    assert!(plain.edns.is_none());
    assert!(plain.queries[0].name().is_fqdn(), "nothing is appended");
    for (address, asked) in [("192.0.2.7", "7.2.0.192.in-addr.arpa."), ("a.example", "a.example.")] {
        assert_eq!(question(address, RecordType::Ptr).name, name(asked));
    }
    for bad in ["two words", "a..b", &"x".repeat(64), &"long.".repeat(60)] {
        assert!(Question::new(bad, RecordType::A, 1).is_err(), "{bad}");
    }
}

#[test]
fn records_are_written_as_master_files_write_them() {
    let texts = vec![b"say \"hi\"".as_slice(), b"back\\slash", b"\x00\xff"];
    let caa = CAA::new_issue(true, Some(name("ca.example.")), vec![]);
    let soa = SOA::new(name("NS1.Example."), name("host\\.master.example."), 7, 3_600, 600, 86_400, 60);
    let table = [
        (RecordType::A, RData::A(A::new(10, 0, 0, 1)), "10.0.0.1"),
        (RecordType::Aaaa, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), "2001:db8::1"),
        (RecordType::Cname, RData::CNAME(CNAME(name("WWW.Example."))), "www.example."),
        (RecordType::Mx, RData::MX(MX::new(10, name("Mail.example."))), "10 mail.example."),
        (RecordType::Mx, RData::MX(MX::new(0, Name::root())), "0 ."),
        (RecordType::Srv, RData::SRV(SRV::new(1, 2, 443, name("h.example."))), "1 2 443 h.example."),
        (RecordType::Soa, RData::SOA(soa), "ns1.example. host\\.master.example. 7 3600 600 86400 60"),
        (RecordType::Txt, RData::TXT(TXT::from_bytes(texts)), r#""say \"hi\"" "back\\slash" "\000\255""#),
        (RecordType::Caa, RData::CAA(caa), r#"128 issue "ca.example.""#),
    ];
    for (record, data, text) in table {
        let question = question("q.example", record);
        let other = RData::NS(hickory_proto::rr::rdata::NS(name("other.example.")));
        let reading = read(&question, &reply(&question, ResponseCode::NoError, vec![other, data]));
        let wanted = Answer { rcode: "NOERROR".into(), records: vec![text.into()] };
        assert_eq!(reading, Reading::Answer(wanted), "{record:?}");
    }
}

#[test]
fn only_an_answer_to_the_question_is_one() {
    let asked = question("q.example", RecordType::A);
    let answer = reply(&asked, ResponseCode::NXDomain, vec![]);
    let nothing = Answer { rcode: "NXDOMAIN".into(), records: vec![] };
    assert_eq!(read(&asked, &answer), Reading::Answer(nothing));

    let mut other_id = answer.clone();
    other_id.metadata.id = 0x4321;
    assert_eq!(read(&asked, &other_id), Reading::Stray);
    for other in [question("p.example", RecordType::A), question("q.example", RecordType::Mx)] {
        assert_eq!(read(&asked, &reply(&other, ResponseCode::NoError, vec![])), Reading::Stray);
    }
    let mut unsaid = answer.clone();
    unsaid.queries.clear();
    assert!(matches!(read(&asked, &unsaid), Reading::Answer(_)), "who refuses need not repeat it");
    unsaid.metadata.response_code = ResponseCode::NoError;
    assert!(matches!(read(&asked, &unsaid), Reading::Malformed(_)));

    let echo = asked.message(true).unwrap();
    assert_eq!(asked.read(&echo, true), Reading::Malformed("the answer is a question itself".into()));
    let bytes = answer.to_vec().unwrap();
    assert_eq!(asked.read(&bytes[..1], true), Reading::Stray);
    assert_eq!(asked.read(&bytes[..7], true), Reading::Malformed("the answer ends after 7 bytes".into()));
    let Reading::Malformed(why) = asked.read(&bytes[..20], true) else { panic!("it was cut within the question") };
    assert!(why.starts_with("the answer cannot be read: "), "{why}");
}

#[test]
fn a_cut_answer_and_one_without_edns_are_to_be_asked_for_otherwise() {
    let asked = question("q.example", RecordType::A);
    let mut cut = reply(&asked, ResponseCode::NoError, vec![RData::A(A::new(10, 0, 0, 1))]);
    cut.metadata.truncation = true;
    assert_eq!(read(&asked, &cut), Reading::Cut);
    let bytes = cut.to_vec().unwrap();
    assert_eq!(asked.read(&bytes[..bytes.len() - 2], true), Reading::Cut, "in the middle of a record");

    let old = reply(&asked, ResponseCode::FormErr, vec![]).to_vec().unwrap();
    assert_eq!(asked.read(&old, true), Reading::Plainer);
    assert!(matches!(asked.read(&old, false), Reading::Answer(_)), "it was not offered");
}

#[test]
fn what_people_write_is_what_servers_send() {
    let same = [
        (RecordType::A, "10.0.0.1", "10.0.0.1"),
        (RecordType::Aaaa, "2001:DB8:0::1", "2001:db8::1"),
        (RecordType::Cname, "WWW.example", "www.example."),
        (RecordType::Mx, "10  mail.example", "10 mail.example."),
        (RecordType::Mx, "0 .", "0 ."),
        (RecordType::Txt, "v=spf1 -all", r#""v=spf1 -all""#),
        (RecordType::Txt, r#""v=spf1" " -all""#, r#""v=spf1 -all""#),
        (RecordType::Txt, r#"say "hi""#, r#""say \"hi\"""#),
        (RecordType::Txt, "ü", r#""\195\188""#),
        (RecordType::Caa, "0 ISSUE letsencrypt.org", r#"0 issue "letsencrypt.org""#),
    ];
    for (record, expected, found) in same {
        assert!(is_same(record, expected, found), "{expected} {found}");
    }
    let different = [
        (RecordType::A, "10.0.0.1", "10.0.0.10"),
        (RecordType::A, "not an address", "10.0.0.1"),
        (RecordType::Mx, "20 mail.example.", "10 mail.example."),
        (RecordType::Mx, "mail.example.", "10 mail.example."),
        (RecordType::Txt, "V=SPF1", r#""v=spf1""#),
        (RecordType::Caa, "0 issue ca", r#"0 issue "CA""#),
        (RecordType::Ns, "", "ns.example."),
    ];
    for (record, expected, found) in different {
        assert!(!is_same(record, expected, found), "{expected} {found}");
    }
}

proptest! {
    #[test]
    fn no_bytes_and_no_expectation_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        ours in any::<bool>(),
        text in ".{0,40}",
        kind in 0..RecordType::ALL.len(),
    ) {
        let record = RecordType::ALL[kind].1;
        let asked = question("q.example", record);
        if ours && bytes.len() > 2 {
            bytes[..2].copy_from_slice(&0x1234_u16.to_be_bytes());
            bytes[2] |= RESPONSE;
        }
        if let Reading::Answer(Answer { records, .. }) = asked.read(&bytes, true) {
            for found in records {
                prop_assert!(is_same(record, &found, &found));
            }
        }
        is_same(record, &text, &text);
    }
}
