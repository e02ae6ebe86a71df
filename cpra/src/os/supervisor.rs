//! What the service manager is told: the protocol of sd_notify(3), datagrams of `NAME=value` lines to the socket that
//! `NOTIFY_SOCKET` names.
//!
//! Nobody answers. A manager that does not read delays the sender for [`SUPERVISOR_PATIENCE`] at most; what it does not take
//! is lost, and told to the log once.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock::Clock;
use crate::units::Span;
use crate::units::limits::SUPERVISOR_PATIENCE;

/// A service manager that wants to know how this process is.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Span>,
    /// It did not take something, and that has been said.
    is_deaf: AtomicBool,
}

impl Supervisor {
    /// Of this process; `None` where nobody wants to know.
    ///
    /// # Errors
    /// When `NOTIFY_SOCKET` names something that no datagram can be sent to, in words that follow it.
    pub fn of_process() -> Result<Option<Self>, String> {
        Self::of(|name| std::env::var_os(name), std::process::id())
    }

    fn of(environment: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Option<Self>, String> {
        let Some(name) = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => return Err("is neither a path nor an abstract socket".to_owned()),
        };
        let address = address.map_err(|error| error.to_string())?;
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SUPERVISOR_PATIENCE.into()))?;
            Ok(socket)
        });
        let number = |name: &str| environment(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        // Children inherit both; only the one that is meant has to answer.
        let is_meant = number("WATCHDOG_PID").is_none_or(|meant| meant == u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && is_meant).map(Span::from_micros);
        let socket = socket.map_err(|error| error.to_string())?;
        Ok(Some(Self { socket, address, watchdog, is_deaf: AtomicBool::new(false) }))
    }

    /// How long it waits for [`Self::alive`] before it ends this process.
    pub const fn watchdog(&self) -> Option<Span> {
        self.watchdog
    }

    /// All of it runs; also after [`Self::reloading`].
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    pub fn reloading(&self) {
        let micros = Clock.now().as_nanos() / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: checks in flight and notices get a moment to end");
    }

    /// For people who ask the manager.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", line(status)));
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, lines: &str) {
        let sent: io::Result<usize> = self.socket.send_to_addr(lines.as_bytes(), &self.address);
        if let Err(error) = sent
            && !self.is_deaf.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the service manager does not take what it is told by NOTIFY_SOCKET");
        }
    }
}

/// A line break would begin another variable.
fn line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Supervisor>, String> {
        let variable = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted);
        Supervisor::of(|name| variable(name).map(|(_, value)| value.into()), 7)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let length = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("cpra-supervisor-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, name) in [(by_path, path.to_str().expect("text").to_owned()), (by_name, format!("@{name}"))] {
            let supervisor = of(&[("NOTIFY_SOCKET", &name)]).expect("it can be told").expect("it wants to know");
            supervisor.ready("3 monitors\nSTOPPING=1");
            assert_eq!(received(&socket), "READY=1\nSTATUS=3 monitors STOPPING=1");
            supervisor.alive();
            assert_eq!(received(&socket), "WATCHDOG=1");
            let before = Clock.now().as_nanos() / 1_000;
            supervisor.reloading();
            let told = received(&socket);
            let micros = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|micros| micros.parse().ok());
            assert!(micros.is_some_and(|micros: u64| micros >= before && micros - before < 10_000_000), "{told}");
        }
    }

    #[test]
    fn nobody_has_to_want_to_know() {
        assert!(of(&[]).is_ok_and(|none| none.is_none()));
        assert!(of(&[("NOTIFY_SOCKET", "")]).is_ok_and(|none| none.is_none()));
        assert!(of(&[("NOTIFY_SOCKET", "vsock:2:1234")]).is_err());
        assert!(of(&[("NOTIFY_SOCKET", &"/x".repeat(200))]).is_err());
        // Nobody reads it: that is said to the log, and nothing else happens.
        let gone = of(&[("NOTIFY_SOCKET", "/nowhere/at/all")]).expect("a path").expect("it is named");
        gone.alive();
        gone.alive();
    }

    #[test]
    fn the_watchdog_is_meant_for_one_process() {
        let watchdog = |variables: &[(&str, &str)]| {
            let all = [&[("NOTIFY_SOCKET", "/x")], variables].concat();
            of(&all).expect("a path").expect("it is named").watchdog()
        };
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000")]), Some(Span::from_secs(3)));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")]), Some(Span::from_secs(3)));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "soon")]), None);
    }
}
