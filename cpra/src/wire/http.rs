//! HTTP/1.1 as a client speaks it (RFC 9110, RFC 9112): a request goes out as bytes, an answer comes in as bytes.
//!
//! Pure: no sockets, no clock. [`Request`] renders into a buffer that the caller reuses. [`ResponseReader`] eats an
//! answer in whatever pieces the network cut it into; the common answer, whose head comes in one piece, is read
//! without an allocation. Neither the reason phrase nor the body is kept here: they are lent to the caller once, who
//! keeps what it needs as evidence.
//!
//! Bounded: the head in bytes and in fields, the interim answers, the chunk-size lines, the trailers and the body.
//! Not here: following redirects, compression, `CONNECT`, HTTP/2.

mod chunks;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use request::{Carry, Form, Host, Request};
pub use response::{Fields, Part, Progress, ResponseError, ResponseReader, Stage};
