//! The questions of dns checks, as a resolver must not put them: to one server, once, with nothing remembered.
//!
//! Each has a socket of its own, connected to the server: its port is the kernel's random choice, other senders are kept
//! out, and an ICMP error comes back as an error. There is one datagram and no repetition; what gets lost is for the
//! check's `retries`. An answer that did not fit is asked for again over TCP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::domain::monitor::RecordType;
use crate::domain::{Code, VoidReason};
use crate::probe::errand::{DnsAnswer, DnsTrouble, ErrandEnd};
use crate::ring::Errno;
use crate::units::limits::{DNS_STRAYS_MAX, DNS_UDP_MAX};
use crate::wire::dns::{Question, Reading};

/// Asks, for as long as it takes: the bound is the caller's.
pub(super) async fn ask(server: SocketAddr, name: &str, record: RecordType, id: u16) -> ErrandEnd {
    let Ok(question) = Question::new(name, record, id) else { return ErrandEnd::Refused(Errno::EINVAL) };
    match over_udp(server, &question).await {
        Ok(end) | Err(end) => end,
    }
}

async fn over_udp(server: SocketAddr, question: &Question) -> Result<ErrandEnd, ErrandEnd> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| refused(&error))?;
    // Fails where this host has no route.
    socket.connect(server).await.map_err(|error| refused(&error))?;
    let mut answer = vec![0; DNS_UDP_MAX];
    let mut edns = true;
    let mut strays = 0;
    socket.send(&message(question, edns)?).await.map_err(|error| refused(&error))?;
    while strays < DNS_STRAYS_MAX {
        let length = socket.recv(&mut answer).await.map_err(|error| failed(&error))?;
        match question.read(&answer[..length], edns) {
            Reading::Stray => strays += 1,
            Reading::Plainer => {
                edns = false;
                socket.send(&message(question, edns)?).await.map_err(|error| failed(&error))?;
            }
            Reading::Cut => return over_tcp(server, question, edns).await,
            reading => return Ok(judged(reading)),
        }
    }
    Err(malformed("nothing but answers to other questions".into()))
}

async fn over_tcp(server: SocketAddr, question: &Question, edns: bool) -> Result<ErrandEnd, ErrandEnd> {
    let broken = |error: io::Error| {
        let errno = errno(&error);
        match Code::of_connect_error(errno, false) {
            Code::Void(VoidReason::Internal) => malformed(format!("the answer was cut, and over TCP: {error}")),
            Code::Void(_) => ErrandEnd::Refused(errno),
            _ => malformed(format!("the answer was cut, and over TCP: {errno}")),
        }
    };
    let mut stream = TcpStream::connect(server).await.map_err(broken)?;
    let message = message(question, edns)?;
    let length = u16::try_from(message.len()).map_err(|_| ErrandEnd::Refused(Errno::EINVAL))?;
    // In one piece: some servers take the length for all there is.
    let sent = [&length.to_be_bytes()[..], &message].concat();
    stream.write_all(&sent).await.map_err(broken)?;
    let length = stream.read_u16().await.map_err(broken)?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.map_err(broken)?;
    Ok(match question.read(&answer, edns) {
        Reading::Stray => malformed("over TCP the answer is to another question".into()),
        Reading::Cut => malformed("the answer is cut over TCP, too".into()),
        Reading::Plainer => malformed("over TCP the server does not know EDNS".into()),
        reading => judged(reading),
    })
}

fn message(question: &Question, edns: bool) -> Result<Vec<u8>, ErrandEnd> {
    question.message(edns).map_err(|_| ErrandEnd::Refused(Errno::EINVAL))
}

fn judged(reading: Reading) -> ErrandEnd {
    match reading {
        Reading::Answer(answer) => ErrandEnd::Answered(DnsAnswer { rcode: answer.rcode, records: answer.records }),
        Reading::Malformed(why) => ErrandEnd::Unanswered(DnsTrouble::Malformed(why)),
        Reading::Stray | Reading::Cut | Reading::Plainer => unreachable!("those are dealt with before"),
    }
}

fn malformed(why: String) -> ErrandEnd {
    ErrandEnd::Unanswered(DnsTrouble::Malformed(why.into()))
}

/// This host did not let the question out.
fn refused(error: &io::Error) -> ErrandEnd {
    ErrandEnd::Refused(errno(error))
}

/// The network brought an error back. What only this host can cause is its fault here, too.
fn failed(error: &io::Error) -> ErrandEnd {
    let errno = errno(error);
    match Code::of_connect_error(errno, false) {
        Code::Void(_) => ErrandEnd::Refused(errno),
        _ => ErrandEnd::Unanswered(DnsTrouble::Failed(errno)),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(Errno::EIO.0))
}
