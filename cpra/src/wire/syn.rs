//! SYNs as they stand on the wire, IP header and all (RFC 9293, RFC 791, RFC 8200), and how their answers are known again.
//!
//! Nothing but the SYN is ever sent: the host's own kernel, which knows of no such connection, resets what the peer opens.
//! Who answers names our ports and acknowledges our sequence number; so these are what proves an answer:
//!
//! ```text
//!  sequence number   | ticket's number (20 bits) | hash (12) |     source port   first + hash (4 bits)
//! ```
//! The hash is keyed (SipHash-2-4) and covers the ticket's number, the slot's generation and the address and port that are
//! asked; the answer's source must be these, too. Sixteen bits and an address to be spoofed are no lock against somebody
//! on the way, who can answer anything anyway; against the others they are about what a connection has whose source port
//! must be guessed. Every SYN of one attempt is the same packet, so that the answer to any of them is one to all.
//!
//! Not here: who awaits what (`os/ebpf.rs` has the tickets), and when a SYN is sent again ([`crate::probe::syn`]).

use std::net::{IpAddr, SocketAddr};

use cpra_common::{INDEX_BITS, syn_cookie, syn_sequence};
use siphasher::sip::SipHasher24;

use crate::units::Generation;

/// Tickets that a sequence number can name.
pub const TICKETS_MAX: u32 = 1 << INDEX_BITS;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// With one option: the largest segment that we would take, which some peers want to be told.
const TCP_HEADER: usize = 24;
/// The longer of the two kinds.
pub const PACKET_MAX: usize = IPV6_HEADER + TCP_HEADER;

const TCP: u8 = 6;
const SYN: u8 = 1 << 1;
const TTL: u8 = 64;
const DO_NOT_FRAGMENT: u16 = 1 << 14;

/// Of an Ethernet, and a window as Linux offers it there: whole segments of this size, at most 64 kB.
const fn segment_and_window(v4: bool) -> (u16, u16) {
    if v4 { (1_460, 44 * 1_460) } else { (1_440, 45 * 1_440) }
}

/// What makes our SYNs ours. Drawn anew by each process for each shard.
#[derive(Clone)]
pub struct Key(SipHasher24);

impl Key {
    /// Random bytes this takes.
    pub const SEED: usize = 16;

    pub fn new(seed: &[u8; Self::SEED]) -> Self {
        Self(SipHasher24::new_with_key(seed))
    }
}

/// The key is a secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// By what a SYN's answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub sequence: u32,
    /// Our source port.
    pub port: u16,
}

impl Mark {
    /// For the attempt that a ticket stands for: its number below [`TICKETS_MAX`], the slot's generation, and whom it
    /// asks. `ports`: the first source port, and how many there are, at least one.
    pub fn new(key: &Key, ticket: u32, generation: Generation, address: SocketAddr, ports: (u16, u16)) -> Self {
        let mut bytes = [0; 26];
        bytes[..4].copy_from_slice(&ticket.to_be_bytes());
        bytes[4..8].copy_from_slice(&generation.0.to_be_bytes());
        bytes[8..24].copy_from_slice(&octets(address.ip()));
        bytes[24..].copy_from_slice(&address.port().to_be_bytes());
        let hash = key.0.hash(&bytes);
        let (first, count) = ports;
        #[expect(clippy::cast_possible_truncation, reason = "each takes bits of its own")]
        let (low, high) = (hash as u32, (hash >> 32) as u16);
        Self { sequence: syn_sequence(ticket, low), port: first + high % count.max(1) }
    }

    /// As programs in the kernel look for it, for a SYN to this port.
    pub const fn cookie(&self, to: u16) -> u64 {
        syn_cookie(self.sequence.to_be_bytes(), self.port.to_be_bytes(), to.to_be_bytes())
    }
}

/// The packet from `source` to `target`, which are of one family; answers how long it is. The kernel fills in length,
/// identifier and checksum of an IPv4 header; the others have none of these that could be wrong.
pub fn packet(source: IpAddr, target: SocketAddr, mark: Mark) -> ([u8; PACKET_MAX], usize) {
    let mut packet = [0; PACKET_MAX];
    let at = match (source, target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            packet[0] = 4 << 4 | (IPV4_HEADER / 4) as u8;
            packet[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
            packet[8] = TTL;
            packet[9] = TCP;
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&target.octets());
            IPV4_HEADER
        }
        (source, target) => {
            packet[0] = 6 << 4;
            packet[4..6].copy_from_slice(&(TCP_HEADER as u16).to_be_bytes());
            packet[6] = TCP;
            packet[7] = TTL;
            packet[8..24].copy_from_slice(&octets(source));
            packet[24..40].copy_from_slice(&octets(target));
            IPV6_HEADER
        }
    };
    let (segment, window) = segment_and_window(at == IPV4_HEADER);
    let tcp = &mut packet[at..at + TCP_HEADER];
    tcp[0..2].copy_from_slice(&mark.port.to_be_bytes());
    tcp[2..4].copy_from_slice(&target.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&mark.sequence.to_be_bytes());
    tcp[12] = ((TCP_HEADER / 4) as u8) << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&window.to_be_bytes());
    // Maximum segment size: kind 2, length 4.
    tcp[20..22].copy_from_slice(&[2, 4]);
    tcp[22..24].copy_from_slice(&segment.to_be_bytes());
    let sum = checksum(&octets(source), &octets(target.ip()), tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    (packet, at + TCP_HEADER)
}

/// As on the wire; IPv4 as `::ffff:a.b.c.d`.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// RFC 9293 §3.1 and RFC 8200 §8.1: the sum over addresses, length, protocol and segment, whose own checksum is zero. Of a
/// mapped address both sides have the prefix ::ffff, which is minus zero in such a sum.
fn checksum(source: &[u8; 16], target: &[u8; 16], segment: &[u8]) -> u16 {
    let sum_of = |bytes: &[u8]| -> u32 {
        let (words, _) = bytes.as_chunks::<2>();
        words.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum()
    };
    let mut sum = sum_of(source) + sum_of(target) + u32::from(TCP) + segment.len() as u32 + sum_of(segment);
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let sum = sum as u16;
    !sum
}

#[cfg(test)]
mod tests {
    use cpra_common::syn_index;
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const KEY: [u8; Key::SEED] = [7; Key::SEED];
    const PORTS: (u16, u16) = (61_000, 16);

    /// What a receiver computes, bit by bit after RFC 1071: 0 for a packet that is whole. Independent of the above: the
    /// pseudo headers are written out, and the carry is taken at once.
    fn residue(packet: &[u8]) -> u16 {
        let mut covered = Vec::new();
        let segment = if packet[0] >> 4 == 4 {
            covered.extend_from_slice(&packet[12..20]);
            covered.extend_from_slice(&[0, 6]);
            covered.extend_from_slice(&u16::try_from(packet.len() - 20).expect("short").to_be_bytes());
            &packet[20..]
        } else {
            covered.extend_from_slice(&packet[8..40]);
            covered.extend_from_slice(&u32::try_from(packet.len() - 40).expect("short").to_be_bytes());
            covered.extend_from_slice(&[0, 0, 0, 6]);
            &packet[40..]
        };
        covered.extend_from_slice(segment);
        let mut sum = 0_u16;
        for pair in covered.chunks(2) {
            let (added, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
            sum = added + u16::from(carry);
        }
        !sum
    }

    /// Captured: what a Linux host answers to a SYN for a closed port, which it sums up itself over IPv4 whatever the
    /// interface can. (That IPv6 is right shows in `tests/syn.rs`: a kernel that finds another sum does not answer.)
    const RESET: &str = "450000280000400040063cce7f0000017f0000010050835800000000d63997ba50140000c0310000";

    #[test]
    fn the_residue_is_the_kernels() {
        let (digits, _) = RESET.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
        let mut packet: Vec<u8> = digits.iter().map(|pair| byte(pair).expect("hexadecimal")).collect();
        assert_eq!(residue(&packet), 0);
        // Ours is the same over the same.
        let address = |at: usize| octets(IpAddr::from(*packet[at..].first_chunk::<4>().expect("long enough")));
        let (source, target, theirs) = (address(12), address(16), [packet[36], packet[37]]);
        packet[36..38].fill(0);
        assert_eq!(checksum(&source, &target, &packet[20..]).to_be_bytes(), theirs);
    }

    #[test]
    fn a_packet_is_what_the_rfcs_say() {
        let mark = Mark { sequence: 0x0102_0304, port: 61_005 };
        let (packet, length) = packet(IpAddr::from([192, 0, 2, 1]), address("198.51.100.7:443"), mark);
        let packet = &packet[..length];
        let expected = [
            // Version and length; length, identifier and sum are the kernel's; do not fragment, 64 hops, TCP.
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7,
            // Ports, sequence number, nothing acknowledged.
            0xEE, 0x4D, 0x01, 0xBB, 1, 2, 3, 4, 0, 0, 0, 0,
            // Six words, SYN, the window; the sum is looked at below; nothing urgent, segments of 1460 bytes.
            0x60, 0x02, 0xFA, 0xF0, packet[36], packet[37], 0, 0, 2, 4, 0x05, 0xB4,
        ];
        assert_eq!(packet, expected);
        assert_eq!(residue(packet), 0);
        let (packet, length) = super::packet(address("[2001:db8::1]:0").ip(), address("[2001:db8::2]:80"), mark);
        let packet = &packet[..length];
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 24, 6, 64]);
        assert_eq!((&packet[54..56], &packet[62..]), (&[0xFD, 0x20][..], &[0x05, 0xA0][..]));
        assert_eq!((packet.len(), residue(packet)), (64, 0));
    }

    #[test]
    fn another_attempt_has_another_mark() {
        let key = Key::new(&KEY);
        let to = address("192.0.2.1:80");
        let mark = |ticket, generation, to| Mark::new(&key, ticket, Generation(generation), to, PORTS);
        let first = mark(7, 1, to);
        assert_eq!(first, mark(7, 1, to), "every SYN of an attempt is the same");
        assert_eq!(syn_index(first.sequence), 7);
        let others = [
            mark(8, 1, to),
            mark(7, 2, to),
            mark(7, 1, address("192.0.2.2:80")),
            mark(7, 1, address("192.0.2.1:81")),
            Mark::new(&Key::new(&[8; Key::SEED]), 7, Generation(1), to, PORTS),
        ];
        for other in others {
            assert_ne!(first, other);
        }
        assert_eq!(first.cookie(80).to_ne_bytes()[..4], first.sequence.to_be_bytes());
        assert_ne!(first.cookie(80), first.cookie(81));
    }

    #[test]
    fn hash_and_ports_are_used_to_the_last_bit() {
        let key = Key::new(&KEY);
        let marks = (0..100_000_u32).map(|generation| {
            let mark = Mark::new(&key, 0, Generation(generation), address("192.0.2.1:80"), PORTS);
            (mark.sequence, mark.port)
        });
        let mut seen: Vec<_> = marks.collect();
        seen.sort_unstable();
        seen.dedup();
        // 65,536 marks for one ticket; 100,000 draws leave some 14,000 of them out.
        assert!((48_000..55_000).contains(&seen.len()), "{}", seen.len());
    }

    proptest! {
        #[test]
        fn every_packet_is_whole(
            source: [u8; 16], target: [u8; 16], v4: bool, port: u16, ticket in 0..TICKETS_MAX, generation: u32,
            seed: [u8; 16], first in 1_024_u16..65_000,
        ) {
            let address = |bytes: [u8; 16]| {
                if v4 { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { IpAddr::from(bytes) }
            };
            let to = SocketAddr::new(address(target), port);
            let mark = Mark::new(&Key::new(&seed), ticket, Generation(generation), to, (first, 16));
            prop_assert!((first..first + 16).contains(&mark.port));
            prop_assert_eq!(syn_index(mark.sequence), ticket);
            let (packet, length) = packet(address(source), to, mark);
            prop_assert_eq!(length, if v4 { 44 } else { 64 });
            prop_assert_eq!(residue(&packet[..length]), 0);
        }
    }
}
