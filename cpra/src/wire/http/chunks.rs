//! The chunked transfer coding (RFC 9112 §7.1), decoded as it comes.
//!
//! ```text
//!         hex digits        ; space            data read
//! Size ───────────▶ Size ──────────▶ Extension     ┌──▶ DataEnd ─CR─▶ DataLf ─LF─▶ Size
//!   └───CR──▶ SizeLf ◀──CR───────────────┘         │
//!               └─LF─▶ size > 0: Data ─────────────┘
//!                      size = 0: TrailerStart ─▶ Trailer ... ─▶ empty line: Done
//! ```
//! A line may end in a bare LF, as in the head. Trailers are skipped unread.

use super::response::ResponseError;
use crate::units::limits::{CHUNK_LINE_MAX, TRAILERS_MAX};

#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of the current size line or of the trailers so far.
    line: u16,
    /// The size being read, then what is left of the chunk.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataEnd,
    DataLf,
    TrailerStart,
    Trailer,
    LastLf,
    Done,
}

const _: () = assert!(CHUNK_LINE_MAX < u16::MAX as usize);
const _: () = assert!(TRAILERS_MAX < u16::MAX as usize);

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { state: State::Size, line: 0, left: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Eats up to the end of the last chunk; gives back how much that was. `sink` gets the content.
    pub(super) fn read(&mut self, data: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, ResponseError> {
        let mut at = 0;
        while at < data.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len() - at);
                sink(&data[at..at + here]);
                at += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            self.state = self.step(data[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, ResponseError> {
        const MALFORMED: ResponseError = ResponseError::Chunk("malformed chunk size");
        self.line = self.line.saturating_add(1);
        match (self.state, byte) {
            (State::Size | State::Extension, _) if usize::from(self.line) > CHUNK_LINE_MAX => {
                Err(ResponseError::Chunk("chunk-size line too long"))
            }
            (State::TrailerStart | State::Trailer, _) if usize::from(self.line) > TRAILERS_MAX => {
                Err(ResponseError::Chunk("trailers too long"))
            }
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                // A size beyond 64 bits must not wrap around to a small one.
                let shifted = self.left.checked_mul(16).ok_or(ResponseError::Chunk("chunk size too large"))?;
                self.left = shifted | digit;
                Ok(State::Size)
            }
            // At least one digit stands before anything else.
            (State::Size, _) if self.line == 1 => Err(MALFORMED),
            // Old servers pad the size with spaces.
            (State::Size, b';' | b' ' | b'\t') => Ok(State::Extension),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::Extension | State::SizeLf, b'\n') => {
                self.line = 0;
                Ok(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            (State::Size | State::SizeLf, _) | (State::Extension, 0) => Err(MALFORMED),
            (State::Extension, _) => Ok(State::Extension),

            (State::DataEnd, b'\r') => Ok(State::DataLf),
            (State::DataEnd | State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size)
            }
            (State::DataEnd | State::DataLf, _) => Err(ResponseError::Chunk("chunk longer than its size")),

            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::TrailerStart | State::LastLf, b'\n') => Ok(State::Done),
            (State::LastLf, _) => Err(ResponseError::Chunk("malformed trailers")),
            (State::Trailer, b'\n') => Ok(State::TrailerStart),
            (State::TrailerStart | State::Trailer, _) => Ok(State::Trailer),

            // `read` does not come here with these.
            (State::Data | State::Done, _) => Ok(self.state),
        }
    }
}
