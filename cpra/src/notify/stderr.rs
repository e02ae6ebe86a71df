//! The last resort: standard error, one whole line per notice.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::os::stream;
use crate::units::limits::STDERR_PATIENCE;

/// How often a full pipe is asked again.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Stderr {
    fd: OwnedFd,
    /// One line at a time, since a long one goes out in pieces. The instant says until when nobody waits for room,
    /// because someone just did in vain.
    turn: Mutex<Option<Instant>>,
}

impl Stderr {
    /// # Errors
    /// When there is no standard error, or no descriptor left to keep it by.
    pub fn new() -> io::Result<Self> {
        Ok(Self::with(io::stderr().as_fd().try_clone_to_owned()?))
    }

    pub fn with(fd: OwnedFd) -> Self {
        Self { fd, turn: Mutex::new(None) }
    }

    /// Writes a line, newline included.
    ///
    /// # Errors
    /// `WouldBlock` if there was no room for [`STDERR_PATIENCE`], or what write(2) said.
    pub async fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut hung_until = self.turn.lock().await;
        let now = Instant::now();
        let deadline = match *hung_until {
            Some(until) if now < until => now,
            _ => now + Duration::from(STDERR_PATIENCE),
        };
        let mut rest = line;
        while !rest.is_empty() {
            match stream::write_some(self.fd.as_fd(), rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        *hung_until = Some(Instant::now() + Duration::from(STDERR_PATIENCE));
                    }
                    return Err(error);
                }
            }
        }
        *hung_until = None;
        Ok(())
    }
}
