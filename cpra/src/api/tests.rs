//! The routes through real sockets, against a daemon that is made up.

mod changing;
mod exposition;
mod fake;
mod guarding;
mod history;
mod outbox;
mod profiling;
mod routes;
