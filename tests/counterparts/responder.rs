//! A target that answers echo requests itself, and not always as it should.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::net::{Namespace, sysctl};

/// What becomes of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Silent,
    /// None, until it is to be another way: what has come meanwhile is answered so then.
    Held,
    /// So many copies of the reply, after a while.
    Replies {
        copies: u32,
        after: Duration,
    },
    /// So many copies of one reply, and silence from then on.
    Once {
        copies: u32,
    },
    /// With a byte of the data changed: that many bytes into it.
    Tampered(usize),
    /// With the identifier changed.
    OtherIdent,
    /// From another address of the target.
    FromElsewhere,
    /// Without its last byte.
    Truncated,
    /// With eight bytes more.
    Padded,
    /// Its own request, back: not a reply at all.
    Mirrored,
}

pub const HONEST: Manner = Manner::Replies { copies: 1, after: Duration::ZERO };

/// Answers instead of the target's kernel.
pub struct Responder {
    manner: Arc<Mutex<Manner>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Responder {
    pub fn start(target: &Namespace) -> Result<Self, String> {
        target.within(|| sysctl("ipv4/icmp_echo_ignore_all 1\nipv6/icmp/echo_ignore_all 1"))?;
        let (manner, stop) = (Arc::new(Mutex::new(HONEST)), Arc::new(AtomicBool::new(false)));
        let families = [(AddressFamily::Inet, SockProtocol::Icmp), (AddressFamily::Inet6, SockProtocol::IcmpV6)];
        let threads = families.map(|(family, protocol)| {
            let (entrance, manner, stop) = (target.entrance(), Arc::clone(&manner), Arc::clone(&stop));
            let (ready, made) = std::sync::mpsc::channel();
            let thread = thread::spawn(move || {
                setns(entrance, CloneFlags::CLONE_NEWNET).expect("root may enter");
                let socket = raw(family, protocol, 1);
                ready.send(()).expect("somebody waits");
                while !stop.load(Ordering::Relaxed) {
                    serve(&socket, family, protocol, &manner);
                }
            });
            made.recv().expect("it has its socket");
            thread
        });
        Ok(Self { manner, stop, threads: threads.into() })
    }

    pub fn set(&self, manner: Manner) {
        *self.manner.lock().expect("no thread panics with it") = manner;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// At one of the target's addresses: the first one is asked.
fn raw(family: AddressFamily, protocol: SockProtocol, host: u8) -> OwnedFd {
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("root may have it");
    let address: IpAddr = match family {
        AddressFamily::Inet => [10, 78, 0, host].into(),
        _ => [0xfd78, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
    };
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0))).expect("it is the target's");
    // A held request is one that waits there.
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("root may have as much");
    // So that it sees when it is to stop.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).expect("a time");
    socket
}

fn serve(socket: &OwnedFd, family: AddressFamily, protocol: SockProtocol, manner: &Mutex<Manner>) {
    let v4 = family == AddressFamily::Inet;
    let mut buffer = [0; 512];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let Ok(received) = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, None, MsgFlags::empty()) else {
        return;
    };
    let (length, from) = (received.bytes, received.address.expect("it has a sender"));
    let packet = &buffer[..length];
    let message = if v4 { &packet[usize::from(packet[0] & 0xF) * 4..] } else { packet };
    if message.first() != Some(if v4 { &8 } else { &128 }) {
        return;
    }
    while *manner.lock().expect("no thread panics with it") == Manner::Held {
        thread::sleep(Duration::from_millis(1));
    }
    let mut reply = message.to_vec();
    reply[0] = if v4 { 0 } else { 129 };
    let manner = {
        let mut set = manner.lock().expect("no thread panics with it");
        let manner = *set;
        if matches!(manner, Manner::Once { .. }) {
            *set = Manner::Silent;
        }
        manner
    };
    let (mut copies, mut elsewhere) = (1, None);
    match manner {
        Manner::Silent | Manner::Held => copies = 0,
        Manner::Replies { copies: wanted, after } => {
            copies = wanted;
            thread::sleep(after);
        }
        Manner::Once { copies: wanted } => copies = wanted,
        Manner::Tampered(at) => reply[8 + at] ^= 1,
        Manner::OtherIdent => reply[4] ^= 0xFF,
        Manner::FromElsewhere => {
            elsewhere = Some(raw(family, protocol, 9));
        }
        Manner::Truncated => drop(reply.pop()),
        Manner::Padded => reply.extend([0; 8]),
        Manner::Mirrored => reply[0] = message[0],
    }
    if v4 {
        let sum = checksum(&mut reply);
        reply[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let socket = elsewhere.as_ref().unwrap_or(socket);
    for _ in 0..copies {
        let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&reply)], &[], MsgFlags::empty(), Some(&from));
    }
}

fn checksum(message: &mut [u8]) -> u16 {
    message[2..4].fill(0);
    let words = message.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
