//! The daemon from outside, where something is changed: jobs that call, people at the unix socket and over TCP, and single
//! checks without a daemon. The real binary, over raw sockets and by its own command line.
//!
//! What needs root skips aloud.

#![allow(unreachable_pub, reason = "modules of one test crate")]
#![allow(dead_code, reason = "what this crate shares with others is used by them")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "another process lives in real time")]

mod counterparts;

#[path = "process/daemon.rs"]
mod daemon;

#[path = "control/checks.rs"]
mod checks;
#[path = "control/jobs.rs"]
mod jobs;
#[path = "control/names.rs"]
mod names;
#[path = "control/outbox.rs"]
mod outbox;
#[path = "control/people.rs"]
mod people;

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What the command line said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the command line in a folder, whose socket it finds there; `words` begins with the program.
pub fn say(folder: &Path, words: &[impl AsRef<OsStr>]) -> Said {
    let output = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env("RUNTIME_DIRECTORY", folder)
        .env_remove("RUST_LOG")
        .env_remove("CPRA_API_SOCKET")
        .output()
        .expect("the binary can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// `cpra WORDS...` in a daemon's folder.
pub fn cpra(daemon: &daemon::Cpra, words: &[&str]) -> Said {
    let all: Vec<&str> = [daemon::BINARY].into_iter().chain(words.iter().copied()).collect();
    say(&daemon.path(""), &all)
}

/// A POST, and the status and body of its answer.
pub fn post(address: SocketAddr, path: &str, head: &str, body: &str) -> (u16, String) {
    raw(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

pub fn raw(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a whole head").1.to_owned())
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
