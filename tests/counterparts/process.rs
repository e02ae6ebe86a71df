//! A server as a child process in the foreground.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::find_program;

/// Killed, by its own pid, when dropped.
#[derive(Debug)]
pub struct ServerProcess(Child);

impl ServerProcess {
    /// Starts `program` and waits until it listens on every address. `None` if it ended instead, which it does when
    /// another process took one of its ports in the meantime.
    pub fn start(program: &Path, arguments: &[&str], listens: &[SocketAddr], log: &Path) -> Option<Self> {
        let output = File::create(log).expect("a log file in the test's own directory");
        let mut command = match find_program("setpriv") {
            // If the test is killed, nothing is dropped; the kernel ends the server then.
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let errors = output.try_clone().expect("a second handle of the log");
        let child = command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let mut server = Self(child.expect("the program can be started"));
        for _ in 0..1_000 {
            if server.0.try_wait().expect("a child can be waited for").is_some() {
                return None;
            }
            if listens.iter().all(|address| TcpStream::connect(address).is_ok()) {
                return Some(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not listen: {}", program.display(), std::fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is only its status to collect.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries again with other ports as long as they are taken in between.
///
/// # Panics
/// If the server does not start even so.
pub fn with_free_ports<T>(name: &str, mut start: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..5 {
        match start() {
            Ok(server) => return server,
            Err(log) => last = log,
        }
    }
    panic!("{name} did not start: {last}");
}
