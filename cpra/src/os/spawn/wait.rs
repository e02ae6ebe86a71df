//! Processes that have ended, and signals for those that have not.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;

use crate::probe::errand::Exit;
use crate::ring::Errno;

/// Takes the end of a child, if it has come: there is no zombie afterwards.
///
/// # Errors
/// If it is no child of this process, which is a defect.
pub(super) fn try_collect(pidfd: &OwnedFd) -> Result<Option<Exit>, Errno> {
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).expect("descriptors are not negative");
    // SAFETY: `info` is a whole siginfo_t that the call writes to.
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG) };
    if result != 0 {
        return Err(Errno(nix::errno::Errno::last_raw()));
    }
    // SAFETY: zero, or filled by waitid, where these fields are the ones that count.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match info.si_code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some(Exit::Code((status & 0xff) as u8)),
        _ => Some(Exit::Signal(status)),
    })
}

/// Takes the end of a child that has come to it, or is about to.
pub(super) fn collect(pidfd: &OwnedFd) {
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).expect("descriptors are not negative");
    // SAFETY: as above. EINTR cannot be: this thread handles no signals.
    unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) };
}

/// Signals a whole process group. Its leader must not have been collected: until then no other group can have its number.
pub(super) fn signal_group(leader: libc::pid_t, signal: libc::c_int) {
    // SAFETY: touches no memory. ESRCH and EPERM are of no use: nothing is left, or nothing that we may end.
    unsafe { libc::kill(-leader, signal) };
}
