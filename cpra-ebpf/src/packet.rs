//! Which packets are ours: IPv4 and IPv6, echo messages, SYNs and what answers them, ICMP errors that quote them.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes_relative, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use cpra_common::{Answer, fold, mapped, syn_cookie, syn_index};

use crate::tickets::{Claim, settings};

const ETHERNET_IPV4: u16 = 0x0800;
const ETHERNET_IPV6: u16 = 0x86DD;
const ETHERNET_VLAN: u16 = 0x8100;
const ETHERNET_QINQ: u16 = 0x88A8;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// An echo message of ours from its ICMP header on: header (8), tag (4), slot (4), generation (4), time (8), hash (8).
const MESSAGE: usize = 36;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A packet from its IP header on.
pub trait Packet {
    /// EtherType, which says what the packet is.
    fn protocol(&self) -> u16;

    /// `None` beyond its end.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

/// As the traffic control hooks see it: whatever the interface puts before the IP header is skipped by the kernel.
pub struct Segment<'a>(pub &'a TcContext);

impl Packet for Segment<'_> {
    #[inline(always)]
    fn protocol(&self) -> u16 {
        let skb: *mut __sk_buff = self.0.skb.skb;
        // SAFETY: the context is valid while the program runs.
        u16::from_be(unsafe { (*skb).protocol } as u16)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        const FROM_NETWORK_HEADER: u32 = 1;
        let mut bytes = [0; N];
        // SAFETY: the buffer is writable for its own length.
        let result = unsafe {
            let skb = self.0.as_ptr();
            bpf_skb_load_bytes_relative(skb, at, bytes.as_mut_ptr().cast(), N as u32, FROM_NETWORK_HEADER)
        };
        (result == 0).then_some(bytes)
    }
}

/// As XDP sees it: an Ethernet frame, perhaps with VLAN tags.
pub struct Frame<'a> {
    context: &'a XdpContext,
    protocol: u16,
    header: u32,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn of(context: &'a XdpContext) -> Option<Self> {
        let mut header = 14;
        let mut protocol = u16::from_be_bytes(load_frame(context, header - 2)?);
        for _ in 0..2 {
            if matches!(protocol, ETHERNET_VLAN | ETHERNET_QINQ) {
                header += 4;
                protocol = u16::from_be_bytes(load_frame(context, header - 2)?);
            }
        }
        Some(Self { context, protocol, header })
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn protocol(&self) -> u16 {
        self.protocol
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        load_frame(self.context, self.header + at)
    }
}

#[inline(always)]
fn load_frame<const N: usize>(context: &XdpContext, at: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let context: *mut xdp_md = context.ctx;
    // SAFETY: the buffer is writable for its own length.
    let result = unsafe { bpf_xdp_load_bytes(context, at, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

/// An IP header: what follows it, and where; whose packet it is.
struct Header {
    next: u8,
    length: u32,
    /// Of header and all that follows.
    total: u32,
    source: [u32; 4],
    destination: [u32; 4],
}

#[inline(always)]
fn header<P: Packet>(packet: &P, at: u32, protocol: u16) -> Option<Header> {
    match protocol {
        ETHERNET_IPV4 => {
            let bytes: [u8; IPV4_HEADER as usize] = packet.load(at)?;
            let fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3FFF;
            if bytes[0] >> 4 != 4 || fragment != 0 {
                return None;
            }
            Some(Header {
                next: bytes[9],
                length: u32::from(bytes[0] & 0xF) * 4,
                total: u32::from(u16::from_be_bytes([bytes[2], bytes[3]])),
                source: mapped(word(&bytes, 12)),
                destination: mapped(word(&bytes, 16)),
            })
        }
        ETHERNET_IPV6 => {
            let bytes: [u8; IPV6_HEADER as usize] = packet.load(at)?;
            if bytes[0] >> 4 != 6 {
                return None;
            }
            Some(Header {
                next: bytes[6],
                length: IPV6_HEADER,
                total: IPV6_HEADER + u32::from(u16::from_be_bytes([bytes[4], bytes[5]])),
                source: [word(&bytes, 8), word(&bytes, 12), word(&bytes, 16), word(&bytes, 20)],
                destination: [word(&bytes, 24), word(&bytes, 28), word(&bytes, 32), word(&bytes, 36)],
            })
        }
        _ => None,
    }
}

/// In the order of the wire.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A packet leaves this host. `None`: it is none of ours.
#[inline(always)]
pub fn outgoing<P: Packet>(packet: &P) -> Option<()> {
    let protocol = packet.protocol();
    let header = header(packet, 0, protocol)?;
    request(packet, header.length, header.next, fold(header.destination))?.leaves()
}

/// A packet comes in. Whether it has been told, and nobody else wants it; `None`: it is none of ours.
#[inline(always)]
pub fn incoming<P: Packet>(packet: &P) -> Option<bool> {
    let protocol = packet.protocol();
    let header = header(packet, 0, protocol)?;
    match header.next {
        ICMP | ICMPV6 => message(packet, protocol, &header),
        TCP => segment(packet, &header),
        _ => None,
    }
}

#[inline(always)]
fn message<P: Packet>(packet: &P, protocol: u16, header: &Header) -> Option<bool> {
    let [kind, code]: [u8; 2] = packet.load(header.length)?;
    match (header.next, kind) {
        (ICMP, 0) | (ICMPV6, 129) if code == 0 => {
            if header.total != header.length + MESSAGE as u32 {
                return None;
            }
            let claim = echo(packet, header.length, fold(header.source))?;
            Some(claim.returns(Answer::Reply, 0, 0, header.source))
        }
        (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => {
            let quote = header.length + 8;
            let quoted = self::header(packet, quote, protocol)?;
            let claim = request(packet, quote + quoted.length, quoted.next, fold(quoted.destination))?;
            claim.returns(Answer::Error, kind, code, header.source);
            // The host has uses of its own for it, such as the size of packets on this way.
            Some(false)
        }
        _ => None,
    }
}

/// A request of ours, whole or quoted, which goes to `peer`.
#[inline(always)]
fn request<P: Packet>(packet: &P, at: u32, next: u8, peer: u32) -> Option<Claim> {
    match next {
        ICMP | ICMPV6 => {
            let [kind, code]: [u8; 2] = packet.load(at)?;
            if code != 0 || (next, kind) != (ICMP, 8) && (next, kind) != (ICMPV6, 128) {
                return None;
            }
            echo(packet, at, peer)
        }
        TCP => {
            if settings().ports == 0 {
                return None;
            }
            // A quote need not hold more than these.
            let bytes: [u8; 8] = packet.load(at)?;
            let [o0, o1, t0, t1, s0, s1, s2, s3] = bytes;
            if !is_ours([o0, o1]) {
                return None;
            }
            let sequence = [s0, s1, s2, s3];
            let cookie = syn_cookie(sequence, [o0, o1], [t0, t1]);
            Some(Claim { index: syn_index(u32::from_be_bytes(sequence)), cookie, peer })
        }
        _ => None,
    }
}

#[inline(always)]
fn echo<P: Packet>(packet: &P, at: u32, peer: u32) -> Option<Claim> {
    let bytes: [u8; MESSAGE] = packet.load(at)?;
    let number = |at: usize| u32::from_be(word(&bytes, at));
    let cookie =
        u64::from_ne_bytes([bytes[28], bytes[29], bytes[30], bytes[31], bytes[32], bytes[33], bytes[34], bytes[35]]);
    Claim::of_echo(number(8), number(12), cookie, peer)
}

/// What answers a SYN of ours. It is passed on whatever it is: the kernel knows of no such connection, and resets it.
#[inline(always)]
fn segment<P: Packet>(packet: &P, header: &Header) -> Option<bool> {
    if settings().ports == 0 {
        return None;
    }
    let bytes: [u8; 14] = packet.load(header.length)?;
    let [t0, t1, o0, o1, .., a0, a1, a2, a3, _, flags] = bytes;
    if !is_ours([o0, o1]) {
        return None;
    }
    let answer = match flags & (FIN | SYN | RST | ACK) {
        flags if flags == SYN | ACK => Answer::Reply,
        flags if flags == RST | ACK => Answer::Refused,
        _ => return None,
    };
    let sequence = u32::from_be_bytes([a0, a1, a2, a3]).wrapping_sub(1);
    let cookie = syn_cookie(sequence.to_be_bytes(), [o0, o1], [t0, t1]);
    let claim = Claim { index: syn_index(sequence), cookie, peer: fold(header.source) };
    claim.returns(answer, 0, 0, header.source);
    Some(false)
}

#[inline(always)]
fn is_ours(port: [u8; 2]) -> bool {
    let settings = settings();
    u16::from_be_bytes(port).wrapping_sub(settings.port) < settings.ports
}
