//! Notices on their way: each rule of those who take them, each way in which they can fail, their own clients, and two of
//! them for real.
//!
//! The fakes refuse what breaks a rule, which `rules` shows with requests that do. Everything of ours goes through the
//! lane that the daemon has. Vendors' clients are packages of PyPI (`cargo xtask packages` brings them), Alertmanager and
//! exim4 are of Debian; where they are missing, their tests skip aloud.

#![allow(unreachable_pub, reason = "modules of one test crate")]
#![allow(dead_code, reason = "what this crate shares with others is used by them")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "other processes live in real time")]

mod counterparts;

#[path = "providers/alertmanager.rs"]
mod alertmanager;
#[path = "providers/clients.rs"]
mod clients;
#[path = "providers/daemon.rs"]
mod daemon;
#[path = "providers/lane.rs"]
mod lane;
#[path = "providers/mail.rs"]
mod mail;
#[path = "providers/modes.rs"]
mod modes;
#[path = "process/daemon.rs"]
mod process;
#[path = "providers/rules.rs"]
mod rules;
#[path = "process/targets.rs"]
mod targets;
#[path = "providers/web.rs"]
mod web;
