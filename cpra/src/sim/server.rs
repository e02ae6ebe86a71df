//! The simulated HTTP servers: well-behaved in many ways, and broken in many others.

use fastrand::Rng;

use super::network::{Behaviour, Fate, Wire};
use crate::units::Span;

/// How a server speaks while it is up.
#[derive(Clone, Debug)]
pub struct Server {
    pub framing: Framing,
    /// Whether it lets the client reuse a connection.
    pub keeps: Keeps,
    pub status: u16,
    pub body: usize,
    /// Sends a `100 Continue` nobody asked for before its answer.
    pub interim: bool,
}

/// How the end of an answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// By closing.
    Unframed,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Closes, and says so.
    Never,
    /// Closes without having said so.
    Rudely,
    /// Keeps it for this long, then closes.
    For(Span),
    /// As `For`, but forgets the connection by a reset.
    Forgets(Span),
    /// As `For`, but says 408 before it closes, as some do, whether or not anything was asked.
    Scolds(Span),
    /// Keeps it open, even when it was asked to close.
    Stubbornly,
}

impl Default for Server {
    fn default() -> Self {
        Self { framing: Framing::Length, keeps: Keeps::For(Span::from_secs(60)), status: 200, body: 12, interim: false }
    }
}

/// A request, as far as a server has to understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) is_head: bool,
    pub(super) close: bool,
    /// Bytes of head and body together.
    pub(super) length: usize,
}

/// The first whole request in what was received.
pub(super) fn request(inbound: &[u8]) -> Option<Request> {
    let end = inbound.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&inbound[..end]);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let method = words.next()?;
    let path = words.next()?.to_owned();
    let mut body = 0;
    let mut close = false;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("connection") {
            close |= value.trim().eq_ignore_ascii_case("close");
        }
    }
    (inbound.len() >= end + body).then(|| Request { path, is_head: method == "HEAD", close, length: end + body })
}

/// What goes back, and what that means to whoever asked.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) wires: Vec<(Span, Wire)>,
    pub(super) fate: Option<Fate>,
    /// Which of the wires decides the check.
    pub(super) decisive: Option<usize>,
    /// The server is through with this connection.
    pub(super) last: bool,
}

/// Answers one request, `after` being when the first byte is back.
pub(super) fn answer(server: &Server, behaviour: &Behaviour, request: &Request, after: Span, rng: &mut Rng) -> Answer {
    let status = match behaviour {
        Behaviour::Status(status) => *status,
        // An answer without a body cannot be cut short after its head.
        Behaviour::CutShort | Behaviour::ResetMidway | Behaviour::Trickle => 200,
        _ => server.status,
    };
    match behaviour {
        Behaviour::Up | Behaviour::Status(_) | Behaviour::HalfAlive => whole(server, status, request, &[after], rng),
        Behaviour::Pieces(gap) => {
            let times: Vec<Span> = (0..rng.u64(2..8)).map(|piece| after + gap.scaled(piece, 1)).collect();
            whole(server, status, request, &times, rng)
        }
        Behaviour::Garbage => {
            let noise: Vec<u8> = match rng.u8(0..4) {
                0 => b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(),
                1 => b"HTTP/1.1 banana\r\n\r\n".to_vec(),
                2 => std::iter::once(0).chain((0..rng.usize(16..80)).map(|_| rng.u8(128..))).collect(),
                _ => b"<html>\r\n\r\n</html>".to_vec(),
            };
            let wires = vec![(after, Wire::Bytes(noise)), (after + Span::from_micros(10), Wire::Fin)];
            Answer { wires, fate: Some(Fate::Broken(None)), decisive: Some(1), last: true }
        }
        Behaviour::CutShort | Behaviour::ResetMidway => cut(behaviour, status, request, after, rng),
        Behaviour::Trickle if !request.is_head => {
            let framed = Server { framing: Framing::Length, ..server.clone() };
            let mut wires = vec![(after, Wire::Bytes(head(&framed, status, Some(1_000_000), request)))];
            // Ten a minute for longer than any timeout.
            wires.extend((1..20).map(|piece| (after + Span::from_secs(6).scaled(piece, 1), Wire::Bytes(vec![b'x']))));
            Answer { wires, last: true, ..Answer::default() }
        }
        Behaviour::Tarpit | Behaviour::Trickle | Behaviour::Deaf | Behaviour::Blackhole | Behaviour::GivenUp(_) => {
            Answer { last: true, ..Answer::default() }
        }
        // The target went down, or changed its nature, while this connection stood.
        Behaviour::Refused
        | Behaviour::Unreachable
        | Behaviour::Slams
        | Behaviour::Banner(_)
        | Behaviour::BannerFin(_)
        | Behaviour::Half(_)
        | Behaviour::Replies(_)
        | Behaviour::Sum
        | Behaviour::Echo => {
            Answer { wires: vec![(after, Wire::Reset)], fate: Some(Fate::Closed), decisive: Some(0), last: true }
        }
    }
}

/// A whole answer, its bytes spread over `times`.
fn whole(server: &Server, status: u16, request: &Request, times: &[Span], rng: &mut Rng) -> Answer {
    let bodiless = request.is_head || matches!(status, 204 | 304);
    let body: Vec<u8> = if bodiless { Vec::new() } else { (0..server.body).map(|at| b'a' + (at % 26) as u8).collect() };
    let mut bytes = Vec::new();
    if server.interim {
        bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    bytes.extend(head(server, status, (!bodiless).then_some(body.len()), request));
    if !bodiless && server.framing == Framing::Chunked {
        for chunk in body.chunks(rng.usize(1..400)) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(&body);
    }
    let mut wires = Vec::with_capacity(times.len() + 1);
    let mut rest = &bytes[..];
    for (position, &time) in times.iter().enumerate() {
        let cut = if position + 1 == times.len() { rest.len() } else { rng.usize(0..=rest.len()) };
        let (piece, after) = rest.split_at(cut);
        rest = after;
        if !piece.is_empty() {
            wires.push((time, Wire::Bytes(piece.to_vec())));
        }
    }
    let end = times.last().copied().unwrap_or_default();
    let unframed = !bodiless && server.framing == Framing::Unframed;
    let decisive = if unframed { wires.len() } else { wires.len() - 1 };
    let moment = Span::from_micros(rng.u64(5..300));
    let last = match server.keeps {
        _ if unframed => {
            wires.push((end + moment, Wire::Fin));
            true
        }
        Keeps::Never | Keeps::Rudely => {
            wires.push((end + moment, Wire::Fin));
            true
        }
        Keeps::For(_) | Keeps::Forgets(_) | Keeps::Scolds(_) if request.close => {
            wires.push((end + moment, Wire::Fin));
            true
        }
        // Idle closing is decided when the next request has not come: see `idle`.
        Keeps::For(_) | Keeps::Forgets(_) | Keeps::Scolds(_) | Keeps::Stubbornly => false,
    };
    Answer { wires, fate: Some(Fate::Answered(status)), decisive: Some(decisive), last }
}

/// When and how a server gives up a connection on which nothing happens after an answer.
pub(super) fn idle(server: &Server) -> Option<(Span, Vec<Wire>)> {
    const SCOLDING: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    match server.keeps {
        Keeps::For(span) => Some((span, vec![Wire::Fin])),
        Keeps::Forgets(span) => Some((span, vec![Wire::Reset])),
        Keeps::Scolds(span) => Some((span, vec![Wire::Bytes(SCOLDING.to_vec()), Wire::Fin])),
        Keeps::Never | Keeps::Rudely | Keeps::Stubbornly => None,
    }
}

/// An answer that ends too early, anywhere: in the status line, in the head, in the body.
fn cut(behaviour: &Behaviour, status: u16, request: &Request, after: Span, rng: &mut Rng) -> Answer {
    let framed = Server { framing: Framing::Length, keeps: Keeps::For(Span::from_secs(60)), ..Server::default() };
    let head = head(&framed, status, Some(64), request);
    let headed = !request.is_head && rng.bool();
    let kept = if headed { head.len() + rng.usize(0..64) } else { rng.usize(0..head.len()) };
    let mut bytes = head;
    bytes.resize(bytes.len().max(kept), b'y');
    bytes.truncate(kept);
    let end = if *behaviour == Behaviour::CutShort { Wire::Fin } else { Wire::Reset };
    let mut wires = Vec::new();
    if !bytes.is_empty() {
        wires.push((after, Wire::Bytes(bytes)));
    }
    wires.push((after + Span::from_micros(rng.u64(1..500)), end));
    let fate = if kept == 0 { Fate::Closed } else { Fate::Broken(headed.then_some(status)) };
    let decisive = wires.len() - 1;
    Answer { wires, fate: Some(fate), decisive: Some(decisive), last: true }
}

fn head(server: &Server, status: u16, body: Option<usize>, request: &Request) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Whatever\r\nServer: sim\r\n");
    match (server.framing, body) {
        (Framing::Length, Some(length)) => text.push_str(&format!("Content-Length: {length}\r\n")),
        (Framing::Chunked, Some(_)) => text.push_str("Transfer-Encoding: chunked\r\n"),
        (_, None) | (Framing::Unframed, Some(_)) => {}
    }
    if server.keeps == Keeps::Never || request.close && server.keeps != Keeps::Stubbornly {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let head = b"POST /x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        assert_eq!(request(head), None);
        let whole = [&head[..], b"abcGET"].concat();
        let request = request(&whole).expect("it is whole");
        assert_eq!((request.path.as_str(), request.close, request.length), ("/x?y=1", true, head.len() + 3));
    }

    #[test]
    fn pieces_add_up_to_the_whole_answer() {
        let request = Request { path: "/".into(), is_head: false, close: true, length: 0 };
        let server = Server { framing: Framing::Chunked, body: 300, ..Server::default() };
        for seed in 0..50 {
            let mut rng = Rng::with_seed(seed);
            let answer = answer(&server, &Behaviour::Pieces(Span::from_millis(5)), &request, Span::ZERO, &mut rng);
            let bytes: Vec<u8> = answer
                .wires
                .iter()
                .flat_map(|(_, wire)| if let Wire::Bytes(bytes) = wire { bytes.clone() } else { Vec::new() })
                .collect();
            assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n0\r\n\r\n"));
            assert_eq!(answer.wires.last().map(|(_, wire)| wire), Some(&Wire::Fin));
            assert_eq!(answer.fate, Some(Fate::Answered(200)));
        }
    }
}
