//! The answer, read as it comes.

use std::borrow::Cow;
use std::mem::{self, MaybeUninit};

use httparse::{Header, ParserConfig, Status};

use super::chunks::Chunks;
use crate::units::limits::{RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX, RESPONSE_HEADERS_MAX, RESPONSE_INTERIM_MAX};

/// Up to this many bytes of a head in pieces are parsed again with every piece, so that a peer that speaks another
/// protocol (a greeting without a line end) is found out at once.
const EARLY: usize = 256;
/// What an error shows of an answer that is not HTTP.
const EXCERPT: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    NeedMore,
    Complete,
}

/// What the reader lends while it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The final head, once. The reason phrase is empty when there is none, or when it is not ASCII.
    Head { status: u16, reason: &'a str, fields: Fields<'a> },
    /// Content, without the framing.
    Body(&'a [u8]),
}

/// The fields of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The value of a field; of one that is there several times the values joined with `, ` (RFC 9110 §5.3). Folded
    /// lines are one, and what is not UTF-8 is replaced.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut lines =
            self.0.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| text(field.value));
        let first = lines.next()?;
        Some(lines.fold(first, |mut joined, line| {
            let all = joined.to_mut();
            all.push_str(", ");
            all.push_str(&line);
            joined
        }))
    }

    /// The first line of a field that must not be there twice.
    pub fn first(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| text(field.value))
    }
}

fn text(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value.trim_ascii());
    if text.contains('\n') {
        return Cow::Owned(text.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    }
    text
}

/// How far an answer has come: what a person wants to know when it came no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not one byte of a final answer.
    Silent,
    Head {
        bytes: usize,
    },
    /// Bytes after the head (a chunked body's framing included), and how many were promised.
    Body {
        bytes: u64,
        of: Option<u64>,
    },
    Complete,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    #[error("not an HTTP/1 answer: begins with \"{0}\"")]
    NotHttp(Box<str>),
    #[error("malformed head: {0}")]
    Head(&'static str),
    #[error("head larger than {RESPONSE_HEAD_MAX} bytes")]
    HeadTooLarge,
    #[error("more than {RESPONSE_HEADERS_MAX} header fields")]
    TooManyHeaders,
    #[error("more than {RESPONSE_INTERIM_MAX} interim answers")]
    TooManyInterim,
    #[error("malformed Content-Length")]
    Length,
    #[error("conflicting Content-Length")]
    LengthConflict,
    #[error("malformed body: {0}")]
    Chunk(&'static str),
    #[error("closed without an answer")]
    Silent,
    #[error("cut off in the head after {0} bytes")]
    CutInHead(usize),
    #[error("cut off in the body after {0} bytes")]
    CutInChunks(u64),
    #[error("cut off in the body after {0} of {1} bytes")]
    CutInBody(u64, u64),
}

/// Reads one answer. After an error it has nothing more to say and is dropped.
#[derive(Debug)]
pub struct ResponseReader {
    framing: Framing,
    /// Bytes after the head.
    taken: u64,
    /// A head that did not come in one piece, at most [`RESPONSE_HEAD_MAX`].
    pieces: Vec<u8>,
    /// Bytes after the head that are read at most.
    bound: u32,
    /// 0 until the final head is there.
    status: u16,
    interim: u8,
    /// The request was `HEAD`: whatever the head announces, no body follows.
    bodiless: bool,
    persistent: bool,
    leftover: bool,
    over: bool,
}

const _: () = assert!(RESPONSE_BODY_MAX <= u32::MAX as u64);

/// Where the answer ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug)]
enum Framing {
    /// The head says.
    Unknown,
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// It has ended.
    Done,
}

impl ResponseReader {
    /// A reader of the answer to a request of this method.
    pub fn of(method: &str) -> Self {
        Self::bounded(method, RESPONSE_BODY_MAX as u32)
    }

    /// The same with another bound on what is read after the head.
    pub fn bounded(method: &str, bound: u32) -> Self {
        Self {
            bound,
            framing: Framing::Unknown,
            taken: 0,
            pieces: Vec::new(),
            status: 0,
            interim: 0,
            bodiless: method == "HEAD",
            persistent: false,
            leftover: false,
            over: false,
        }
    }

    /// Takes the next bytes of the connection. What follows a complete answer is noted and not read.
    ///
    /// # Errors
    /// When the bytes cannot be the answer of an HTTP/1 server, or exceed a bound other than the body's.
    pub fn read(&mut self, mut data: &[u8], sink: &mut dyn FnMut(Part<'_>)) -> Result<Progress, ResponseError> {
        while matches!(self.framing, Framing::Unknown) {
            if data.is_empty() {
                return Ok(Progress::NeedMore);
            }
            match self.read_head(data, sink)? {
                Some(used) => data = &data[used..],
                None => return Ok(Progress::NeedMore),
            }
        }
        self.read_body(data, sink)
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// When the answer was not complete.
    pub fn eof(&mut self, sink: &mut dyn FnMut(Part<'_>)) -> Result<(), ResponseError> {
        match self.framing {
            Framing::Unknown if self.pieces.is_empty() => Err(ResponseError::Silent),
            Framing::Unknown => {
                // Parsing may have been put off until the next line end; an error is the better evidence.
                let pieces = mem::take(&mut self.pieces);
                self.parse_head(&pieces, sink)?;
                Err(ResponseError::CutInHead(pieces.len()))
            }
            Framing::Length(total) => Err(ResponseError::CutInBody(self.taken, total)),
            Framing::Chunked(_) => Err(ResponseError::CutInChunks(self.taken)),
            Framing::UntilClose => {
                self.framing = Framing::Done;
                Ok(())
            }
            Framing::Done => Ok(()),
        }
    }

    /// The final status, as soon as its head is there.
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }

    /// Whether the next request may use the connection (RFC 9112 §9.3): HTTP/1.1, no `Connection: close`, an end that
    /// the framing tells, and not a byte after it.
    pub fn is_reusable(&self) -> bool {
        matches!(self.framing, Framing::Done) && self.persistent && self.is_clean()
    }

    /// Whether the peer will close the connection by itself, now that it has answered.
    pub fn will_close(&self) -> bool {
        !self.persistent && self.status != 101
    }

    /// Whether the body went on beyond the bound.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the answer was read to its end with nothing behind it.
    pub fn is_clean(&self) -> bool {
        !self.leftover && !self.over
    }

    pub fn stage(&self) -> Stage {
        match self.framing {
            Framing::Unknown if self.pieces.is_empty() => Stage::Silent,
            Framing::Unknown => Stage::Head { bytes: self.pieces.len() },
            Framing::Length(total) => Stage::Body { bytes: self.taken, of: Some(total) },
            Framing::Chunked(_) | Framing::UntilClose => Stage::Body { bytes: self.taken, of: None },
            Framing::Done => Stage::Complete,
        }
    }

    /// How much of `data` was head; `None` when all of it was and more is missing.
    fn read_head(&mut self, data: &[u8], sink: &mut dyn FnMut(Part<'_>)) -> Result<Option<usize>, ResponseError> {
        let before = self.pieces.len();
        let fresh = &data[..data.len().min(RESPONSE_HEAD_MAX - before)];
        if before == 0 {
            if let Some(used) = self.parse_head(fresh, sink)? {
                return Ok(Some(used));
            }
            self.pieces.extend_from_slice(fresh);
        } else {
            self.pieces.extend_from_slice(fresh);
            let full = self.pieces.len() == RESPONSE_HEAD_MAX;
            // A head ends in a line end, so that only a piece with one can complete it. Without this rule a peer
            // that sends single bytes would make us parse the head as often as it has bytes.
            if self.pieces.len() <= EARLY || full || fresh.contains(&b'\n') {
                let pieces = mem::take(&mut self.pieces);
                if let Some(used) = self.parse_head(&pieces, sink)? {
                    return Ok(Some(used.saturating_sub(before)));
                }
                self.pieces = pieces;
            }
        }
        if self.pieces.len() == RESPONSE_HEAD_MAX { Err(ResponseError::HeadTooLarge) } else { Ok(None) }
    }

    /// The length of the head that `bytes` begin with, if it is all there. An interim one changes nothing but the
    /// count.
    fn parse_head(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Part<'_>)) -> Result<Option<usize>, ResponseError> {
        let mut fields = [const { MaybeUninit::uninit() }; RESPONSE_HEADERS_MAX];
        let mut head = httparse::Response::new(&mut []);
        // What a user agent must bear: folded lines (RFC 9112 §5.2), and a space before the colon, which §5.1 has
        // proxies remove and so lets clients ignore.
        let parsed = ParserConfig::default()
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .parse_response_with_uninit_headers(&mut head, bytes, &mut fields);
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(malformed(error, bytes)),
        };
        let status = head.code.unwrap_or(0);
        match status {
            0..100 => return Err(ResponseError::Head("bad status")),
            // RFC 9110 §15.2; 101 hands the connection over to another protocol, which makes it final.
            100 | 102..200 => {
                if self.interim == RESPONSE_INTERIM_MAX {
                    return Err(ResponseError::TooManyInterim);
                }
                self.interim += 1;
                return Ok(Some(length));
            }
            _ => {}
        }
        let close = tokens(head.headers, "connection").any(|token| token.eq_ignore_ascii_case(b"close"));
        self.persistent = head.version == Some(1) && !close && status != 101;
        self.framing = if self.bodiless || matches!(status, 101 | 204 | 304) {
            Framing::Done
        } else {
            self.framing_of(head.version, head.headers)?
        };
        self.status = status;
        sink(Part::Head { status, reason: head.reason.unwrap_or_default(), fields: Fields(head.headers) });
        Ok(Some(length))
    }

    /// RFC 9112 §6.3, from its third rule on.
    fn framing_of(&mut self, version: Option<u8>, headers: &[Header<'_>]) -> Result<Framing, ResponseError> {
        if let Some(coding) = tokens(headers, "transfer-encoding").last() {
            // Beside a Content-Length the transfer coding overrides it (§6.3 rule 3). That "ought to be handled as an
            // error", but browsers show such a page, and an alarm about a site that works would be false; the danger
            // is a connection whose messages are cut in the wrong places, so this one is not used again.
            self.persistent &= !headers.iter().any(|field| field.name.eq_ignore_ascii_case("content-length"));
            // An HTTP/1.0 message with a transfer coding has faulty framing (§6.1): nothing but its close ends it.
            if version == Some(1) && coding.eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked(Chunks::new()));
            }
            self.persistent = false;
            return Ok(Framing::UntilClose);
        }
        match content_length(headers)? {
            Some(0) => Ok(Framing::Done),
            Some(length) => Ok(Framing::Length(length)),
            None => {
                self.persistent = false;
                Ok(Framing::UntilClose)
            }
        }
    }

    fn read_body(&mut self, data: &[u8], sink: &mut dyn FnMut(Part<'_>)) -> Result<Progress, ResponseError> {
        // The bound counts a chunked body's framing, too: one byte per chunk must not buy a thousand times as much.
        let room = usize::try_from(u64::from(self.bound).saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let window = &data[..data.len().min(room)];
        let used = match &mut self.framing {
            Framing::Length(total) => {
                let used = usize::try_from(*total - self.taken).unwrap_or(usize::MAX).min(window.len());
                lend(&window[..used], sink);
                if self.taken + used as u64 == *total {
                    self.framing = Framing::Done;
                }
                used
            }
            Framing::Chunked(chunks) => {
                let used = chunks.read(window, &mut |content| lend(content, sink))?;
                if chunks.is_done() {
                    self.framing = Framing::Done;
                }
                used
            }
            Framing::UntilClose => {
                lend(window, sink);
                window.len()
            }
            Framing::Unknown | Framing::Done => 0,
        };
        self.taken += used as u64;
        let beyond = used < data.len();
        if matches!(self.framing, Framing::Done) {
            self.leftover |= beyond && !self.over;
            Ok(Progress::Complete)
        } else if beyond {
            self.over = true;
            self.framing = Framing::Done;
            Ok(Progress::Complete)
        } else {
            Ok(Progress::NeedMore)
        }
    }
}

fn lend(content: &[u8], sink: &mut dyn FnMut(Part<'_>)) {
    if !content.is_empty() {
        sink(Part::Body(content));
    }
}

/// The members of a comma-separated list field, of all its lines (RFC 9110 §5.6.1).
fn tokens<'a>(headers: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    lines.flat_map(|field| field.value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// Repeated equal lengths count as one, different ones as none (RFC 9112 §6.3 rule 5).
fn content_length(headers: &[Header<'_>]) -> Result<Option<u64>, ResponseError> {
    let mut found = None;
    for field in headers.iter().filter(|field| field.name.eq_ignore_ascii_case("content-length")) {
        for member in field.value.split(|&byte| byte == b',') {
            let length = decimal(member.trim_ascii()).ok_or(ResponseError::Length)?;
            if found.is_some_and(|other| other != length) {
                return Err(ResponseError::LengthConflict);
            }
            found = Some(length);
        }
    }
    Ok(found)
}

/// Digits only: `str::parse` would take a plus sign.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

fn malformed(error: httparse::Error, bytes: &[u8]) -> ResponseError {
    match error {
        httparse::Error::Version => {
            let start = &bytes[..bytes.len().min(EXCERPT)];
            ResponseError::NotHttp(start.escape_ascii().to_string().into_boxed_str())
        }
        httparse::Error::TooManyHeaders => ResponseError::TooManyHeaders,
        httparse::Error::Status => ResponseError::Head("bad status line"),
        httparse::Error::HeaderName => ResponseError::Head("bad field name"),
        httparse::Error::HeaderValue => ResponseError::Head("bad field value"),
        httparse::Error::NewLine => ResponseError::Head("bad line end"),
        httparse::Error::Token => ResponseError::Head("bad token"),
    }
}
