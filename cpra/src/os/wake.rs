//! The door of a [`Bell`]: an eventfd, on which any kind of loop can wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pipeline::{Bell, Wake};
use crate::units::Span;

/// An eventfd, nonblocking and closed on exec. Clones share it.
#[derive(Clone, Debug)]
pub struct WakeFd(Arc<EventFd>);

impl WakeFd {
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// A bell that knocks at this door. Make one per receiving thread and clone it: two bells of one thread would
    /// each know only half of whether it sleeps.
    pub fn bell(&self) -> Bell {
        Bell::new(self.clone())
    }

    /// Readable while a knock has not been cleared.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets all knocks.
    pub fn clear(&self) {
        // EAGAIN says that there was none; nothing else can happen to an eventfd that is open.
        let _ = self.0.read();
    }

    /// Waits for a knock and clears it; `None` waits without a bound. Returns whether there was one: a signal ends
    /// the wait early, as the time does.
    pub fn wait(&self, timeout: Option<Span>) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        // The kernel takes nanoseconds: a wait never ends early by rounding and spins.
        let timeout = timeout.map(|span| TimeSpec::nanoseconds(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)));
        match ppoll(&mut fds, timeout, None) {
            Ok(0) | Err(Errno::EINTR) => false,
            Ok(_) => {
                self.clear();
                true
            }
            Err(errno) => panic!("poll of an eventfd that is open: {errno}"),
        }
    }
}

impl WakeFd {
    /// The door as a future's: to be called within a tokio runtime.
    ///
    /// # Errors
    /// When the runtime cannot poll it.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the `WakeFd` owns its eventfd, gives the same number each time, and moves into the `AsyncFd`.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(io::Error::from)
    }
}

impl Wake for WakeFd {
    fn wake(&self) {
        // EAGAIN means 2^64 − 2 knocks are waiting, which wakes just as well.
        let _ = self.0.write(1);
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::bounded;

    #[test]
    fn a_knock_before_the_wait_is_remembered_and_cleared() {
        let door = WakeFd::new().unwrap();
        door.wake();
        door.wake();
        assert!(door.wait(None));
        assert!(!door.wait(Some(Span::from_millis(1))));
    }

    #[test]
    fn a_queue_wakes_a_thread_that_waits_without_a_bound() {
        let door = WakeFd::new().unwrap();
        let bell = door.bell();
        let (mut sender, mut receiver) = bounded(1, bell.clone());
        let thread = std::thread::spawn(move || {
            let mut sum = 0_u64;
            while !receiver.is_finished() {
                while let Some(item) = receiver.recv() {
                    sum += item;
                }
                bell.sleep(
                    || receiver.is_empty() && !receiver.is_closed(),
                    || {
                        door.wait(None);
                    },
                );
            }
            sum
        });
        for item in 1..=1_000 {
            let mut item = item;
            while let Err(back) = sender.send(item) {
                item = back;
                std::thread::yield_now();
            }
        }
        drop(sender);
        assert_eq!(thread.join().unwrap(), 500_500);
    }
}
