//! Bytes in, bytes out.
pub mod http;
pub mod preamble;
pub mod tls;
