//! One question to a name server, and what comes back.
//!
//! The codec is hickory's; what is added is the judgement that a check needs and a resolver does not: whose answer a
//! message is, and its records as master files write them.
//!
//! A message answers a question when it carries its identifier and repeats it (RFC 5452 §9.1). One with the right
//! identifier that cannot be read is a broken answer. Everything else is somebody else's, and is not looked at.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CAA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType as Type};

use crate::domain::monitor::RecordType;
use crate::units::limits::DNS_UDP_OFFER;

/// A question in its form for the wire.
#[derive(Clone, Debug)]
pub struct Question {
    name: Name,
    record: Type,
    id: u16,
}

/// What a message is to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not the answer.
    Stray,
    /// The answer did not fit: it is to be asked for over TCP.
    Cut,
    /// The server does not know EDNS: the question is to be put without.
    Plainer,
    Answer(Answer),
    /// Ours by its identifier, and not to be understood; why.
    Malformed(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, ...
    pub rcode: Box<str>,
    /// The data of the records of the type in question, as master files write them: names in lower case, with the
    /// final dot.
    pub records: Vec<Box<str>>,
}

impl Question {
    /// `id` should be hard to guess. A PTR question about an address is one about its name in `arpa`.
    ///
    /// # Errors
    /// Why `name` is none.
    pub fn new(name: &str, record: RecordType, id: u16) -> Result<Self, Box<str>> {
        let mut name = match name.parse::<IpAddr>() {
            Ok(address) if record == RecordType::Ptr => Name::from(address),
            _ => Name::from_utf8(name).or_else(|_| Name::from_ascii(name)).map_err(|error| error.to_string())?,
        };
        name.set_fqdn(true);
        Ok(Self { name, record: wire_type(record), id })
    }

    /// The message, with an offer of EDNS or without.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn message(&self, edns: bool) -> Result<Vec<u8>, Box<str>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.record));
        if edns {
            let mut offer = Edns::new();
            offer.set_max_payload(DNS_UDP_OFFER);
            message.set_edns(offer);
        }
        message.to_vec().map_err(|error| error.to_string().into())
    }

    /// Reads what came back. `edns`: whether it was offered.
    pub fn read(&self, bytes: &[u8], edns: bool) -> Reading {
        if bytes.get(..2) != Some(&self.id.to_be_bytes()[..]) {
            return Reading::Stray;
        }
        let malformed = |why: &str| Reading::Malformed(why.into());
        if bytes.len() < HEADER {
            return Reading::Malformed(format!("the answer ends after {} bytes", bytes.len()).into());
        }
        if bytes[2] & RESPONSE == 0 {
            return malformed("the answer is a question itself");
        }
        let cut = bytes[2] & TRUNCATED != 0;
        let message = match Message::from_vec(bytes) {
            Ok(message) => message,
            // What was cut need not end where a record does.
            Err(_) if cut => return Reading::Cut,
            Err(error) => return Reading::Malformed(format!("the answer cannot be read: {error}").into()),
        };
        let code = message.metadata.response_code;
        let asked = |query: &Query| {
            query.name() == &self.name && query.query_type() == self.record && query.query_class() == DNSClass::IN
        };
        match &message.queries[..] {
            [query] if asked(query) => {}
            // A server that refuses need not have read the question.
            [] if code != ResponseCode::NoError => {}
            [] => return malformed("the answer does not say to which question"),
            [_, ..] => return Reading::Stray,
        }
        if edns && message.edns.is_none() && matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
            return Reading::Plainer;
        }
        if cut {
            return Reading::Cut;
        }
        let ours = message.answers.iter().filter(|record| record.record_type() == self.record);
        let records = ours.filter_map(|record| master_text(&record.data)).collect();
        Reading::Answer(Answer { rcode: mnemonic(code), records })
    }
}

const HEADER: usize = 12;
/// Bits of the third byte.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;

const fn wire_type(record: RecordType) -> Type {
    match record {
        RecordType::A => Type::A,
        RecordType::Aaaa => Type::AAAA,
        RecordType::Cname => Type::CNAME,
        RecordType::Mx => Type::MX,
        RecordType::Ns => Type::NS,
        RecordType::Ptr => Type::PTR,
        RecordType::Soa => Type::SOA,
        RecordType::Srv => Type::SRV,
        RecordType::Txt => Type::TXT,
        RecordType::Caa => Type::CAA,
    }
}

fn mnemonic(code: ResponseCode) -> Box<str> {
    match code {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::YXDomain => "YXDOMAIN".into(),
        ResponseCode::YXRRSet => "YXRRSET".into(),
        ResponseCode::NXRRSet => "NXRRSET".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        ResponseCode::NotZone => "NOTZONE".into(),
        ResponseCode::BADVERS => "BADVERS".into(),
        other => format!("RCODE{}", u16::from(other)).into(),
    }
}

/// The data of one record, as a master file (RFC 1035 §5) has it.
fn master_text(data: &RData) -> Option<Box<str>> {
    Some(match data {
        RData::A(address) => address.to_string().into(),
        RData::AAAA(address) => address.to_string().into(),
        RData::CNAME(name) => name_text(name).into(),
        RData::NS(name) => name_text(name).into(),
        RData::PTR(name) => name_text(name).into(),
        RData::MX(mx) => format!("{} {}", mx.preference, name_text(&mx.exchange)).into(),
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, name_text(&srv.target)).into(),
        RData::SOA(soa) => {
            let (zone, person) = (name_text(&soa.mname), name_text(&soa.rname));
            let times = [soa.refresh.to_string(), soa.retry.to_string(), soa.expire.to_string()].join(" ");
            format!("{zone} {person} {} {times} {}", soa.serial, soa.minimum).into()
        }
        RData::TXT(TXT { txt_data, .. }) => {
            txt_data.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ").into()
        }
        RData::CAA(caa) => {
            let CAA { tag, value, .. } = caa;
            format!("{} {} {}", caa.flags(), tag.to_ascii_lowercase(), quoted(value)).into()
        }
        _ => return None,
    })
}

/// In lower case, with the final dot.
fn name_text(name: &Name) -> String {
    if name.is_root() {
        return ".".into();
    }
    let mut text = String::new();
    for label in name.iter() {
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                    text.extend(['\\', char::from(byte)]);
                }
                0x21..=0x7e => text.push(char::from(byte.to_ascii_lowercase())),
                // A string takes every line.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
        text.push('.');
    }
    text
}

fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => drop(write!(text, "\\{byte:03}")),
        }
    }
    text.push('"');
    text
}

/// Whether `found`, as [`Question::read`] renders it, is what people meant by `expected`. They may leave out a final dot
/// or the quotes of a text, write names and addresses in another case or form, and cut a long text elsewhere.
pub fn is_same(record: RecordType, expected: &str, found: &str) -> bool {
    match record {
        RecordType::A | RecordType::Aaaa => match (expected.trim().parse::<IpAddr>(), found.parse::<IpAddr>()) {
            (Ok(expected), Ok(found)) => expected == found,
            _ => false,
        },
        RecordType::Txt => {
            let expected = expected.trim();
            let whole = if expected.starts_with('"') { words(expected).concat() } else { expected.as_bytes().to_vec() };
            whole == words(found).concat()
        }
        RecordType::Caa => {
            let (expected, found) = (words(expected), words(found));
            expected.len() == found.len()
                && expected.iter().zip(&found).enumerate().all(|(position, (expected, found))| match position {
                    0 | 1 => expected.eq_ignore_ascii_case(found),
                    _ => expected == found,
                })
        }
        RecordType::Cname | RecordType::Mx | RecordType::Ns | RecordType::Ptr | RecordType::Soa | RecordType::Srv => {
            let plain = |word: &str| match word.strip_suffix('.') {
                Some("") | None => word.to_ascii_lowercase(),
                Some(rest) => rest.to_ascii_lowercase(),
            };
            expected.split_whitespace().map(plain).eq(found.split_whitespace().map(plain))
        }
    }
}

/// The character-strings of a line, their quotes and escapes taken off.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut within = false;
    let mut bytes = line.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => {
                if within {
                    words.extend(word.take());
                } else {
                    words.extend(word.replace(Vec::new()));
                }
                within = !within;
            }
            b' ' | b'\t' if !within => words.extend(word.take()),
            b'\\' => {
                let rest = bytes.as_slice();
                let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
                let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u8>().ok());
                if number.is_some() {
                    bytes.nth(2);
                }
                let escaped = number.or_else(|| bytes.next().copied());
                word.get_or_insert_default().extend(escaped);
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}
