//! The doors to the operating system: everything that reads a clock, opens a socket or asks the kernel something.
//!
//! `uring` is the network driver of the shards, `wait` says how long a shard may sleep in it, `clock` is the only
//! reader of clocks, `host` counts what this machine itself does to packets, `limits` and `preflight` say before the
//! start what the machine can bear. `unsafe` lives here and nowhere above.

pub mod clock;
pub mod host;
pub mod limits;
pub mod preflight;
pub mod uring;
pub mod wait;
