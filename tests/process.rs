//! The daemon as a process: the real binary, with files, signals and sockets, as people and supervisors meet it.
//!
//! Every test runs its own daemon in its own folder on its own ports, and kills it by its pid. What needs root or a
//! package says so and skips aloud.

#![allow(unreachable_pub, reason = "modules of one test crate")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod counterparts;

#[path = "process/conntrack.rs"]
mod conntrack;
#[path = "process/daemon.rs"]
mod daemon;
#[path = "process/handshakes.rs"]
mod handshakes;
#[path = "process/manners.rs"]
mod manners;
#[path = "process/notices.rs"]
mod notices;
#[path = "process/privilege.rs"]
mod privilege;
#[path = "process/reload.rs"]
mod reload;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/sources.rs"]
mod sources;
#[path = "process/stall.rs"]
mod stall;
#[path = "process/supervision.rs"]
mod supervision;
#[path = "process/targets.rs"]
mod targets;
