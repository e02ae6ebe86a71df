//! Bytes in, bytes out.
pub mod http;
pub mod icmp;
pub mod preamble;
pub mod tls;
