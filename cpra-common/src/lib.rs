//! What the programs in the kernel and the daemon share: the records in their maps, by layout.
//!
//! ```text
//!  daemon                                    kernel
//!  writes a ticket, sends the request ──▶    egress: finds the ticket by its number and cookie, stamps `sent`
//!                                            ingress: finds it again by what came back, stamps `returned`,
//!  reads the return, or the ticket    ◀──    puts a return into the shard's ring
//! ```
//! A **ticket** stands for the one request that a slot of a shard awaits an answer to. Its number is in every request
//! and so in every answer; what proves that an answer is to this very request is the cookie: whatever does not carry it
//! is left to the host. A ticket that is written anew makes every older request of its slot a stranger.
//!
//! Nothing here is trusted to arrive: a ring that is full loses a return, and then the ticket itself tells.

#![no_std]

/// The most shards whose returns have a ring of their own: each ring is a map with a name of its own in the object.
/// Shards beyond it use sockets.
pub const SHARDS_MAX: u8 = 16;

/// Bits of a ticket's number in a TCP sequence number; the others are the cookie's.
pub const INDEX_BITS: u32 = 20;

/// What a request of one slot is awaited by. All times are nanoseconds of the monotonic clock, 0 for never.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// What the answer must carry, in the order of its bytes on the wire; 0 for nothing awaited. Echo: the last eight
    /// bytes of the request. SYN: see [`syn_cookie`].
    pub cookie: u64,
    /// When the request passed the last hook on its way out.
    pub sent: u64,
    /// When the answer passed the first hook on its way in.
    pub returned: u64,
    /// Who was asked: [`fold`] of the address.
    pub peer: u32,
    /// How it was answered: [`Answer`], ICMP type and code, 0. Written after `returned`; all zero until then.
    pub answer: [u8; 4],
}

/// An answer, as it is put into a shard's ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Return {
    /// The ticket's number.
    pub index: u32,
    /// As in the ticket.
    pub answer: [u8; 4],
    /// Of the ticket, at that time.
    pub cookie: u64,
    /// From `sent` to `returned`, in nanoseconds; `u64::MAX` where the request passed no hook of ours.
    pub rtt: u64,
    /// Who said it, IPv4 addresses as IPv6 ones (`::ffff:a.b.c.d`).
    pub from: [u8; 16],
}

/// What came back.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An echo reply, a SYN-ACK.
    Reply = 1,
    /// An RST in answer to our SYN.
    Refused = 2,
    /// An ICMP error that quotes the request; its type and code follow.
    Error = 3,
}

/// What the programs know from the time when they are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The tag of all shards' echo requests, but for the last four bits, which are the shard's number; in the order of
    /// the bytes on the wire, read as a big-endian number.
    pub tag: u32,
    /// Tickets of one shard; the number of a slot's ticket is shard × this + slot.
    pub tickets: u32,
    /// The first source port of SYNs, and how many there are; none for no SYNs.
    pub port: u16,
    pub ports: u16,
}

impl Settings {
    /// As they lie in the memory of this host.
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let [t0, t1, t2, t3] = self.tag.to_ne_bytes();
        let [n0, n1, n2, n3] = self.tickets.to_ne_bytes();
        let ([p0, p1], [c0, c1]) = (self.port.to_ne_bytes(), self.ports.to_ne_bytes());
        [t0, t1, t2, t3, n0, n1, n2, n3, p0, p1, c0, c1]
    }
}

impl Return {
    /// Reads what a program put into a ring; `None` if it is not that long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk()?;
        let (answer, rest) = rest.split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (rtt, rest) = rest.split_first_chunk()?;
        Some(Self {
            index: u32::from_ne_bytes(*index),
            answer: *answer,
            cookie: u64::from_ne_bytes(*cookie),
            rtt: u64::from_ne_bytes(*rtt),
            from: *rest.first_chunk()?,
        })
    }
}

/// Bits of [`Settings::tag`] that name the shard.
pub const TAG_SHARD_BITS: u32 = 4;

/// Where the programs count, in the map `COUNTS`: numbers that only grow, of all shards.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Requests that passed the way out.
    Sent = 0,
    /// Answers that were taken.
    Returned = 1,
    /// Answers that name one of our tickets and not its cookie: late, double, or made up. They are left to the host.
    Strange = 2,
    /// Answers for which a ring had no room. The ticket knows of them.
    Overflowed = 3,
    /// Handshakes that were measured.
    Connected = 4,
}

impl Answer {
    /// By the first byte of a ticket's `answer`.
    pub const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Reply,
            2 => Self::Refused,
            3 => Self::Error,
            _ => return None,
        })
    }
}

impl Count {
    pub const ALL: [Self; 5] = [Self::Sent, Self::Returned, Self::Strange, Self::Overflowed, Self::Connected];
}

/// An address in four bytes: the exclusive or of its words, an IPv4 address as the last of four beside `::ffff`. It is
/// no proof, the cookie is: it keeps the answer of another host that was told the cookie from being taken.
#[inline(always)]
pub const fn fold(words: [u32; 4]) -> u32 {
    words[0] ^ words[1] ^ words[2] ^ words[3]
}

/// The same of an IPv6 address, or of an IPv4 one as `::ffff:a.b.c.d`.
pub const fn fold_bytes(bytes: [u8; 16]) -> u32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    fold([
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ])
}

/// The words of `::ffff:a.b.c.d` in the order of the wire.
#[inline(always)]
pub const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xFFFF_u32.to_be(), address]
}

/// The sequence number of the SYN that a ticket stands for: its number above, and as much of a keyed hash below as there
/// is room for.
#[inline(always)]
pub const fn syn_sequence(index: u32, hash: u32) -> u32 {
    index << (32 - INDEX_BITS) | hash & ((1 << (32 - INDEX_BITS)) - 1)
}

/// The number of the ticket that a SYN's sequence number names.
#[inline(always)]
pub const fn syn_index(sequence: u32) -> u32 {
    sequence >> (32 - INDEX_BITS)
}

/// The cookie of a SYN: its sequence number, and the ports on our side and the other, each in the order of the wire.
#[inline(always)]
pub const fn syn_cookie(sequence: [u8; 4], ours: [u8; 2], theirs: [u8; 2]) -> u64 {
    u64::from_ne_bytes([sequence[0], sequence[1], sequence[2], sequence[3], ours[0], ours[1], theirs[0], theirs[1]])
}

const _: () = assert!(size_of::<Ticket>() == 32 && align_of::<Ticket>() == 8);
const _: () = assert!(size_of::<Return>() == 40 && align_of::<Return>() == 8);
const _: () = assert!(size_of::<Settings>() == 12 && align_of::<Settings>() == 4);
const _: () = assert!(SHARDS_MAX as u32 == 1 << TAG_SHARD_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_sequence_number_are_kept_apart() {
        for index in [0, 1, 65_536, (1 << INDEX_BITS) - 1] {
            for hash in [0, 1, u32::MAX] {
                assert_eq!(syn_index(syn_sequence(index, hash)), index);
            }
        }
        assert_ne!(syn_sequence(7, 1), syn_sequence(7, 2));
    }

    #[test]
    fn records_are_read_field_by_field() {
        let mut bytes = [0; size_of::<Return>()];
        bytes[..4].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&[3, 11, 0, 0]);
        bytes[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&55_u64.to_ne_bytes());
        bytes[24..].copy_from_slice(&[9; 16]);
        let cookie = 0x0102_0304_0506_0708;
        assert_eq!(
            Return::from_bytes(&bytes),
            Some(Return { index: 7, answer: [3, 11, 0, 0], cookie, rtt: 55, from: [9; 16] })
        );
        assert_eq!(Return::from_bytes(&bytes[..39]), None);
        assert_eq!(Answer::of(bytes[4]), Some(Answer::Error));
    }

    #[test]
    fn an_address_is_folded_alike_on_both_sides() {
        let v4 = mapped(u32::from_ne_bytes([192, 0, 2, 1]));
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1_u8];
        assert_eq!(fold(v4), fold_bytes(bytes));
        assert_ne!(fold(v4), fold(mapped(u32::from_ne_bytes([192, 0, 2, 2]))));
    }
}
