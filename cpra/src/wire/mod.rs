//! Bytes in, bytes out.
pub mod dns;
pub mod http;
