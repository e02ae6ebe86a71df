//! Bytes in, bytes out.
pub mod dns;
pub mod http;
pub mod icmp;
pub mod preamble;
pub mod syn;
pub mod tls;
