//! The routes through real sockets, against a daemon that is made up.

mod exposition;
mod fake;
mod guarding;
mod profiling;
mod routes;
