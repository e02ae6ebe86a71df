//! Bytes in, bytes out.
pub mod http;
pub mod icmp;
