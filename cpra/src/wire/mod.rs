//! Bytes in, bytes out.
pub mod http;
