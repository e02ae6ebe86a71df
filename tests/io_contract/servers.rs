//! Real targets on the loopback interface. Their threads end with the process.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use cpra::ring::Family;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket, sockopt,
};

use crate::rig::{Behaviour, HTTP_RESPONSE, pattern};

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// Makes a target.
pub(crate) fn start(family: Family, behaviour: Behaviour) -> io::Result<SocketAddr> {
    match behaviour {
        Behaviour::Blackhole => return blackhole(family),
        Behaviour::Refused => return refused(family),
        _ => {}
    }
    let listener = TcpListener::bind((loopback(family), 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Out of descriptors or reset before it was accepted: the next one, please.
            let Ok(stream) = stream else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            // A peer that is gone is no news here: the ring's side of it is what is looked at.
            thread::spawn(move || serve(stream, behaviour).ok());
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, behaviour: Behaviour) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    match behaviour {
        Behaviour::Echo | Behaviour::SlowEcho => loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if behaviour == Behaviour::SlowEcho {
                thread::sleep(Duration::from_millis(30));
            }
            stream.write_all(&buffer[..count])?;
        },
        Behaviour::Greet(byte) => {
            stream.write_all(&[byte])?;
            stream.read(&mut buffer).map(drop)
        }
        Behaviour::Sum => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            let (mut left, mut sum) = (u64::from_le_bytes(length), 0_u64);
            while left > 0 {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                left -= count as u64;
                sum = buffer[..count].iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
            }
            stream.write_all(&sum.to_le_bytes())?;
            stream.read(&mut buffer).map(drop)
        }
        Behaviour::Flood(length) => {
            let bytes: Vec<u8> = (0..length).map(pattern).collect();
            stream.write_all(&bytes)
        }
        Behaviour::Stuck => {
            thread::sleep(Duration::from_secs(3_600));
            Ok(())
        }
        Behaviour::Fin => Ok(()),
        Behaviour::Reset => reset(&stream),
        Behaviour::ResetMidBody => {
            stream.read_exact(&mut [0])?;
            stream.write_all(&HTTP_RESPONSE[..HTTP_RESPONSE.len() / 2])?;
            // Sent before the reset, but a reset may discard what the peer has not read yet.
            thread::sleep(Duration::from_millis(20));
            reset(&stream)
        }
        Behaviour::Http => {
            let mut request = Vec::new();
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                request.extend_from_slice(&buffer[..count]);
                while let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                    request.drain(..end + 4);
                    stream.write_all(HTTP_RESPONSE)?;
                }
            }
        }
        Behaviour::Refused | Behaviour::Blackhole => unreachable!("not served"),
    }
}

/// Has the following close send RST.
fn reset(stream: &TcpStream) -> io::Result<()> {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}

/// A port that is taken but not listened on.
fn refused(family: Family) -> io::Result<SocketAddr> {
    let (socket, address) = bound(family)?;
    std::mem::forget(socket);
    Ok(address)
}

/// A listener whose queue is full: the kernel drops further SYNs (unless `tcp_abort_on_overflow` is set).
fn blackhole(family: Family) -> io::Result<SocketAddr> {
    let (socket, address) = bound(family)?;
    listen(&socket, Backlog::new(0)?)?;
    std::mem::forget(socket);
    // A queue of length 0 holds one connection. A second one fills what a race may have left.
    for _ in 0..2 {
        if let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            std::mem::forget(stream);
        }
    }
    match TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(address),
        other => Err(io::Error::other(format!("a full listen queue does not swallow connects here: {other:?}"))),
    }
}

fn bound(family: Family) -> io::Result<(std::os::fd::OwnedFd, SocketAddr)> {
    let kind = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    use std::os::fd::AsRawFd;
    let socket = socket(kind, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((loopback(family), 0))))?;
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = match family {
        Family::V4 => name.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port),
        Family::V6 => name.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port),
    };
    Ok((socket, SocketAddr::from((loopback(family), port.expect("a port was given")))))
}
