//! ICMP as someone who pings speaks it (RFC 792, RFC 4443): echo requests out; their replies, and the errors that
//! quote them, in.
//!
//! A raw socket sees every reply that comes to this host, and anyone may send it more. So what comes back is matched
//! by a *cookie* in the request's data, which the target returns and an error quotes: whose request it was, when it
//! left, and a keyed hash (SipHash-2-4) over that, the sequence number and the target's address. No table of pending
//! requests is kept, the identifier means nothing (an unprivileged socket's is the kernel's), and what others make up
//! does not pass.
//!
//! ```text
//!  0        1        2        4          6          8
//!  | type   | code   | sum    | ident    | sequence | tag (4) | slot (4) | generation (4) | sent (8) | hash (8) |
//! ```
//! Pure: key and time come in. Strict: a reply is exactly as long as its request, and a quote holds all of it. A router
//! that quotes no more than the eight bytes of RFC 792 says nothing that could not be made up; its word is not taken,
//! and the check ends as one without an answer.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::ring::Family;
use crate::units::{Generation, Instant, Slot};

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
const COOKIE: usize = 28;
/// The hash is the cookie's last part.
const HASH_AT: usize = 20;

/// A request, and so a reply, in bytes.
pub const MESSAGE: usize = HEADER + COOKIE;
/// Where the tag stands in a message.
pub const TAG_AT: usize = HEADER;

/// What makes our cookies ours. Drawn anew by each process for each of its sockets' owners.
#[derive(Clone)]
pub struct Key {
    hasher: SipHasher24,
    tag: u32,
    ident: u16,
}

impl Key {
    /// Random bytes this takes.
    pub const SEED: usize = 22;

    pub fn new(seed: &[u8; Self::SEED]) -> Self {
        let (first, rest) = split::<8>(seed);
        let (second, rest) = split::<8>(rest);
        let (tag, rest) = split::<4>(rest);
        let (ident, _) = split::<2>(rest);
        Self {
            hasher: SipHasher24::new_with_keys(u64::from_be_bytes(first), u64::from_be_bytes(second)),
            tag: u32::from_be_bytes(tag),
            ident: u16::from_be_bytes(ident),
        }
    }

    /// With this tag instead of a random one.
    #[must_use]
    pub fn tagged(self, tag: u32) -> Self {
        Self { tag, ..self }
    }

    /// What a packet filter can tell our messages by, at [`TAG_AT`]. Everyone whom we ask sees it: it is no secret.
    pub const fn tag(&self) -> u32 {
        self.tag
    }
}

/// The key is a secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(tag {:08x})", self.tag)
    }
}

/// Whose echo request it is, and when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub slot: Slot,
    pub generation: Generation,
    pub sent: Instant,
}

/// The request to `address`. The checksum of IPv6 covers addresses that only the kernel knows, and is left to it.
pub fn request(key: &Key, address: IpAddr, sequence: u16, cookie: &Cookie) -> [u8; MESSAGE] {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut message = [0; MESSAGE];
    message[0] = request_type(family);
    message[4..6].copy_from_slice(&key.ident.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..12].copy_from_slice(&key.tag.to_be_bytes());
    message[12..16].copy_from_slice(&cookie.slot.0.to_be_bytes());
    message[16..20].copy_from_slice(&cookie.generation.0.to_be_bytes());
    message[20..28].copy_from_slice(&cookie.sent.as_nanos().to_be_bytes());
    let hash = hash(key, address, sequence, &message[HEADER..HEADER + HASH_AT]);
    message[28..36].copy_from_slice(&hash.to_be_bytes());
    if family == Family::V4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What proves an answer to this request: its hash, in the order of its bytes.
pub const fn proof(request: &[u8; MESSAGE]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *request;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// An echo request of someone, as it came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoed<'a> {
    pub sequence: u16,
    cookie: &'a [u8; COOKIE],
}

impl Echoed<'_> {
    /// Whether it says that it is ours; [`Self::open`] knows better.
    pub fn has_tag_of(&self, key: &Key) -> bool {
        self.cookie[..4] == key.tag.to_be_bytes()
    }

    /// Ours, to `address`; `None` when it is not, or has been tampered with.
    pub fn open(&self, key: &Key, address: IpAddr) -> Option<Cookie> {
        let (tag, rest) = split::<4>(self.cookie);
        let (slot, rest) = split::<4>(rest);
        let (generation, rest) = split::<4>(rest);
        let (sent, rest) = split::<8>(rest);
        let (hashed, _) = split::<8>(rest);
        let known = hash(key, address, self.sequence, &self.cookie[..HASH_AT]);
        // A comparison in constant time would protect nothing: nobody can measure how long a packet that gets no
        // answer was looked at.
        if u32::from_be_bytes(tag) != key.tag || u64::from_be_bytes(hashed) != known {
            return None;
        }
        Some(Cookie {
            slot: Slot(u32::from_be_bytes(slot)),
            generation: Generation(u32::from_be_bytes(generation)),
            sent: Instant::from_nanos(u64::from_be_bytes(sent)),
        })
    }
}

/// Reads an ICMP message as an echo reply to one of our requests, or one that looks like it.
pub fn reply(message: &[u8], family: Family) -> Option<Echoed<'_>> {
    let message: &[u8; MESSAGE] = message.try_into().ok()?;
    echoed(message, reply_type(family))
}

/// Reads what an ICMP error quotes, from the ICMP header of the quoted packet on, as one of our requests. More may
/// follow: IP options of the error, extensions (RFC 4884), padding.
pub fn quoted(quote: &[u8], family: Family) -> Option<Echoed<'_>> {
    echoed(quote.first_chunk()?, request_type(family))
}

fn echoed(message: &[u8; MESSAGE], wanted: u8) -> Option<Echoed<'_>> {
    let (header, cookie) = message.split_first_chunk::<HEADER>()?;
    let &[kind, code, _, _, _, _, high, low] = header;
    (kind == wanted && code == 0)
        .then_some(Echoed { sequence: u16::from_be_bytes([high, low]), cookie: cookie.first_chunk()? })
}

/// The ICMP message in an IPv4 packet that a raw socket received, header and all.
pub fn within_ipv4(packet: &[u8]) -> Option<&[u8]> {
    const PROTOCOL_ICMP: u8 = 1;
    let header: &[u8; 20] = packet.first_chunk()?;
    let length = usize::from(header[0] & 0xF) * 4;
    if header[0] >> 4 != 4 || length < header.len() || header[9] != PROTOCOL_ICMP {
        return None;
    }
    packet.get(length..)
}

/// What an ICMP error says, in the words of RFC 792, RFC 1812 §5.2.7.1 and RFC 4443; `None` where it has no name.
pub const fn trouble(family: Family, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (family, kind, code) {
        (Family::V4, 3, 0 | 6) | (Family::V6, 1, 0) => "network unreachable",
        (Family::V4, 3, 1 | 7 | 8) | (Family::V6, 1, 3) => "host unreachable",
        (Family::V4, 3, 2) => "protocol unreachable",
        (Family::V4, 3, 3) | (Family::V6, 1, 4) => "port unreachable",
        (Family::V4, 3, 4) | (Family::V6, 2, _) => "packet too big",
        (Family::V4, 3, 5) => "source route failed",
        (Family::V4, 3, 9 | 10 | 13 | 15) | (Family::V6, 1, 1 | 5) => "administratively prohibited",
        (Family::V4, 3, 11) => "network unreachable for this type of service",
        (Family::V4, 3, 12) => "host unreachable for this type of service",
        (Family::V4, 3, 14) => "precedence violation",
        (Family::V6, 1, 2) => "beyond the scope of the source address",
        (Family::V6, 1, 6) => "route rejected",
        (Family::V4, 3, _) | (Family::V6, 1, _) => "destination unreachable",
        (Family::V4, 11, 1) | (Family::V6, 3, 1) => "fragments not reassembled in time",
        (Family::V4, 11, _) | (Family::V6, 3, _) => "time to live exceeded (a routing loop?)",
        (Family::V4, 12, _) | (Family::V6, 4, _) => "parameter problem",
        _ => return None,
    })
}

const fn request_type(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 128,
    }
}

const fn reply_type(family: Family) -> u8 {
    match family {
        Family::V4 => 0,
        Family::V6 => 129,
    }
}

/// What has no place of its own in the cookie (address and sequence number) goes in front of what has.
fn hash(key: &Key, address: IpAddr, sequence: u16, cookie: &[u8]) -> u64 {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut bytes = [0; 18 + HASH_AT];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..18].copy_from_slice(&sequence.to_be_bytes());
    bytes[18..].copy_from_slice(cookie);
    key.hasher.hash(&bytes)
}

/// RFC 1071, of a message of even length whose own checksum is zero.
fn checksum(message: &[u8; MESSAGE]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let sum = sum as u16;
    !sum
}

/// The first `N` bytes and the rest, of what is known to be long enough.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = bytes.split_first_chunk::<N>().expect("the caller knows the length");
    (*head, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> Key {
        Key::new(&[seed; Key::SEED])
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    const COOKIE: Cookie =
        Cookie { slot: Slot(7), generation: Generation(3), sent: Instant::from_nanos(1_234_567_890) };

    /// As a target answers it.
    fn replied(mut message: [u8; MESSAGE], family: Family) -> [u8; MESSAGE] {
        message[0] = reply_type(family);
        message
    }

    #[test]
    fn a_request_is_what_the_rfc_says() {
        let message = request(&key(1), address("192.0.2.1"), 0x0203, &COOKIE);
        assert_eq!((message[0], message[1], &message[6..8]), (8, 0, &[2, 3][..]));
        // The sum over everything with its checksum is all ones (RFC 1071 §1).
        let (words, _) = message.as_chunks::<2>();
        let sum = words.iter().fold(0_u32, |sum, &word| {
            let sum = sum + u32::from(u16::from_be_bytes(word));
            (sum & 0xFFFF) + (sum >> 16)
        });
        assert_eq!(sum, 0xFFFF);
        let message = request(&key(1), address("2001:db8::1"), 1, &COOKIE);
        assert_eq!((message[0], message[1], message[2], message[3]), (128, 0, 0, 0), "the kernel sums up IPv6");
    }

    #[test]
    fn the_cookie_survives_the_trip_and_nothing_else_does() {
        for (to, family) in [(address("192.0.2.1"), Family::V4), (address("2001:db8::1"), Family::V6)] {
            let (key, other) = (key(1), key(2));
            let asked = request(&key, to, 5, &COOKIE);
            let answer = replied(asked, family);
            let echoed = reply(&answer, family).expect("a reply");
            assert_eq!((echoed.sequence, echoed.open(&key, to)), (5, Some(COOKIE)));
            assert_eq!(echoed.open(&other, to), None, "another key");
            assert_eq!(echoed.open(&key, address("192.0.2.2")), None, "another address");
            assert_eq!(reply(&asked, family), None, "a request is no reply (on the loopback both are seen)");
            assert_eq!(quoted(&asked, family).and_then(|quoted| quoted.open(&key, to)), Some(COOKIE));
            assert_eq!(quoted(&answer, family), None, "an error about a reply is none of ours");
            for at in 0..MESSAGE {
                for bit in 0..8 {
                    let mut forged = answer;
                    forged[at] ^= 1 << bit;
                    let opened = reply(&forged, family).and_then(|echoed| echoed.open(&key, to));
                    // Checksum and identifier are the kernel's business.
                    assert_eq!(opened.is_some(), (2..6).contains(&at), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn lengths_are_exact_for_replies_and_at_least_for_quotes() {
        let (key, to) = (key(1), address("192.0.2.1"));
        let asked = request(&key, to, 1, &COOKIE);
        let answer = replied(asked, Family::V4);
        for length in 0..MESSAGE {
            assert_eq!(reply(&answer[..length], Family::V4), None, "{length}");
            assert_eq!(quoted(&asked[..length], Family::V4), None, "{length}");
        }
        let longer = [&answer[..], &[0; 5]].concat();
        assert_eq!(reply(&longer, Family::V4), None);
        let longer = [&asked[..], &[0xFF; 92]].concat();
        assert_eq!(quoted(&longer, Family::V4).and_then(|quoted| quoted.open(&key, to)), Some(COOKIE));
    }

    #[test]
    fn an_ipv4_header_is_measured_before_it_is_taken_off() {
        let mut packet = vec![0_u8; 60];
        packet[9] = 1;
        for (first, length, left) in [
            (0x45, 60, Some(40)),
            (0x4F, 60, Some(0)),
            (0x4F, 59, None),
            (0x44, 60, None),
            (0x40, 60, None),
            (0x65, 60, None),
            (0x45, 20, Some(0)),
            (0x45, 19, None),
            (0x45, 0, None),
        ] {
            packet[0] = first;
            let found = within_ipv4(&packet[..length]).map(<[u8]>::len);
            assert_eq!(found, left, "{first:#x}, {length} bytes");
        }
        packet[0] = 0x45;
        packet[9] = 17;
        assert_eq!(within_ipv4(&packet), None, "not ICMP");
    }

    #[test]
    fn errors_have_words() {
        let cases = [
            (Family::V4, 3, 0, Some("network unreachable")),
            (Family::V4, 3, 1, Some("host unreachable")),
            (Family::V4, 3, 3, Some("port unreachable")),
            (Family::V4, 3, 4, Some("packet too big")),
            (Family::V4, 3, 9, Some("administratively prohibited")),
            (Family::V4, 3, 13, Some("administratively prohibited")),
            (Family::V4, 3, 99, Some("destination unreachable")),
            (Family::V4, 11, 0, Some("time to live exceeded (a routing loop?)")),
            (Family::V4, 11, 1, Some("fragments not reassembled in time")),
            (Family::V4, 12, 0, Some("parameter problem")),
            (Family::V4, 5, 0, None),
            (Family::V6, 1, 0, Some("network unreachable")),
            (Family::V6, 1, 1, Some("administratively prohibited")),
            (Family::V6, 1, 3, Some("host unreachable")),
            (Family::V6, 1, 6, Some("route rejected")),
            (Family::V6, 2, 0, Some("packet too big")),
            (Family::V6, 3, 0, Some("time to live exceeded (a routing loop?)")),
            (Family::V6, 4, 1, Some("parameter problem")),
            (Family::V6, 128, 0, None),
        ];
        for (family, kind, code, words) in cases {
            assert_eq!(trouble(family, kind, code), words, "{family:?} {kind}/{code}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..160), kind in 0_u8..130) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            for (family, to) in [(Family::V4, address("192.0.2.1")), (Family::V6, address("2001:db8::1"))] {
                let found = [reply(&bytes, family), quoted(&bytes, family)];
                for echoed in found.into_iter().flatten() {
                    prop_assert_eq!(echoed.open(&key(1), to), None);
                }
            }
            if let Some(inner) = within_ipv4(&bytes) {
                prop_assert!(inner.len() + 20 <= bytes.len());
            }
        }

        #[test]
        fn every_cookie_comes_back(
            slot: u32, generation in 0_u32..1 << Generation::BITS, sent: u64, sequence: u16, to: [u8; 16], v4: bool,
            seed: u8,
        ) {
            let (to, family) = if v4 {
                (IpAddr::from([to[0], to[1], to[2], to[3]]), Family::V4)
            } else {
                (IpAddr::from(to), Family::V6)
            };
            let cookie =
                Cookie { slot: Slot(slot), generation: Generation(generation), sent: Instant::from_nanos(sent) };
            let answer = replied(request(&key(seed), to, sequence, &cookie), family);
            let echoed = reply(&answer, family).expect("a reply");
            prop_assert_eq!((echoed.sequence, echoed.open(&key(seed), to)), (sequence, Some(cookie)));
        }
    }
}
