//! Processes that have ended, and signals for those that have not.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

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

/// Kills every process of these sessions, whose leaders have ended and are not collected. Rounds, because a process that is
/// not seen may start another before it is; a chain that grows faster is left to its limits.
pub(super) fn kill_sessions(proc: &Path, leaders: &[libc::pid_t]) {
    const ROUNDS: usize = 3;
    for _ in 0..ROUNDS {
        let Ok(entries) = std::fs::read_dir(proc) else { return };
        let mut found = false;
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok()) else {
                continue;
            };
            if leaders.contains(&pid) {
                continue;
            }
            let stat = entry.path().join("stat");
            let is_theirs = || {
                let text = std::fs::read_to_string(&stat).ok();
                text.and_then(|text| living_in(&text)).is_some_and(|session| leaders.contains(&session))
            };
            // Asked again once the process is held by a descriptor: the number may have become another's meanwhile.
            if is_theirs()
                && let Some(process) = pidfd_of(pid)
                && is_theirs()
            {
                found = true;
                let nothing = ptr::null::<libc::siginfo_t>();
                // SAFETY: touches no memory; without a siginfo the kernel makes one as kill(2) does.
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, nothing, 0) };
            }
        }
        if !found {
            return;
        }
    }
}

fn pidfd_of(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: asks for a descriptor, and touches no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|&descriptor| descriptor >= 0)?;
    // SAFETY: the kernel has just made it for us.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The session in a line of /proc/PID/stat, of a process that has not ended.
fn living_in(stat: &str) -> Option<libc::pid_t> {
    // The name is in parentheses and may hold any of them itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_read_behind_any_name() {
        assert_eq!(living_in("7 (a) b (c) S 1 70 77 0 -1"), Some(77));
        assert_eq!(living_in("7 (a) Z 1 70 77 0 -1"), None, "it has ended");
        assert_eq!(living_in("7 (a) S"), None);
        assert_eq!(living_in(""), None);
    }
}
