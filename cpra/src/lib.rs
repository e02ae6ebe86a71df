//! cpra: Concurrent Pulse-Remediation-Alerting. `ARCHITECTURE.md` at the root of the repository is the map; the
//! modules below are its rooms, ground floor first. Imports point down only.

pub mod units;

pub mod ring;

pub mod domain;
pub mod queueing;
pub mod schedule;
pub mod wire;
pub mod wording;

pub mod config;
pub mod probe;

pub mod world;

pub mod desk;
pub mod shard;

pub mod pipeline;

pub mod notify;
pub mod os;
pub mod sim;
pub mod store;

pub mod api;

pub mod daemon;

pub mod cli;
