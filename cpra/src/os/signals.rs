//! The signals that end the process, the one that wants the files read again, and the one that wants something written.

use std::io;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::units::Span;

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP: read the files again.
    Reload,
    /// SIGUSR1: write the histograms now.
    Dump,
}

/// The daemon's signals, as a descriptor. To be made before any thread, which inherits the blocked signals.
pub struct Signals(SignalFd);

impl Signals {
    /// # Errors
    /// When there is no descriptor left.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        // Also when the terminal closes: the daemon goes on without it.
        set.add(Signal::SIGHUP);
        set.add(Signal::SIGUSR1);
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for one; `None` waits for ever. Answers with what it wants, if one came.
    pub fn wait(&self, timeout: Option<Span>) -> Option<Wish> {
        let timeout = timeout
            .map_or(PollTimeout::NONE, |span| PollTimeout::try_from(span.as_millis()).unwrap_or(PollTimeout::MAX));
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout);
        let signal = self.0.read_signal().ok().flatten()?;
        Some(match signal.ssi_signo {
            number if number == Signal::SIGUSR1 as u32 => Wish::Dump,
            number if number == Signal::SIGHUP as u32 => Wish::Reload,
            _ => Wish::End,
        })
    }
}
