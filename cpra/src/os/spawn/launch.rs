//! One program into life: what posix_spawn(3) does, and the four things that it cannot do.
//!
//! Like posix_spawn, this makes a child that borrows our memory until it executes the program (`CLONE_VM | CLONE_VFORK`,
//! on a stack of its own, with every signal blocked), so that the size of the daemon does not matter: fork copies its page
//! tables, 8 ms for 200 MB. The child leads a session of its own, and so a process group, without a terminal; it has the
//! default signal dispositions, no signal blocked, and no descriptors but 0 (`/dev/null`, or what it is to read), 1 and 2
//! (pipes). Beyond that it
//!
//! - **becomes the user whom scripts run as**. posix_spawn cannot. Were the *thread* that user instead (credentials are a
//!   thread's own, below libc), its children would inherit that; but then every process of that user could send the thread
//!   signals, and so kill the daemon, and could lower the daemon's limits through it.
//! - **has its limits of resources before it runs**: with posix_spawn they come from outside, after the program has begun.
//! - **may gain no privileges** (`no_new_privs`): set-user-ID programs stay what they are.
//! - **is killed when this process dies** (`PDEATHSIG`), however that happens. Its own children are not; once their pipes
//!   are gone they meet SIGPIPE, and their limit of processor time.
//!
//! While the child is that user and shares our memory, no other process of the user may look into it: the change of user
//! makes the memory undumpable, which forbids ptrace(2) and /proc/PID/mem. What it was before is restored when the memory
//! is ours alone again.
//!
//! The thread stands still until the program is executed: on a dead NFS mount, for long. Other scripts then do not begin,
//! which voids their checks.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use nix::errno::Errno as NixErrno;
use nix::libc::{self, c_char, c_int, c_long, c_void};

use crate::domain::monitor::ScriptCheck;
use crate::os::user::Identity;
use crate::ring::Errno;
use crate::units::limits::{
    SCRIPT_CPU_SECONDS_MAX, SCRIPT_DATA_MAX, SCRIPT_FILE_SIZE_MAX, SCRIPT_OPEN_FILES_MAX, SCRIPT_PROCESSES_MAX,
};

/// What a script finds in its environment, beside what its monitor says: nothing of the daemon's own.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", "/"), ("LANG", "C"), ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];

/// The child's stack: a few system calls deep.
const STACK: usize = 64 * 1024;
/// Real-time signals end at 64 on every Linux but MIPS.
const LAST_SIGNAL: c_int = 64;

/// The kernel's `sigaction` of a signal that does what it does by default, on every machine: zeroes, and more than enough.
static DEFAULT: [u64; 8] = [0; 8];

const LIMITS: [(libc::__rlimit_resource_t, u64); 6] = [
    (libc::RLIMIT_NOFILE, SCRIPT_OPEN_FILES_MAX),
    (libc::RLIMIT_NPROC, SCRIPT_PROCESSES_MAX),
    (libc::RLIMIT_FSIZE, SCRIPT_FILE_SIZE_MAX),
    (libc::RLIMIT_DATA, SCRIPT_DATA_MAX),
    (libc::RLIMIT_CPU, SCRIPT_CPU_SECONDS_MAX),
    (libc::RLIMIT_CORE, 0),
];

/// What all scripts of a driver have in common.
pub(super) struct Launcher {
    identity: Option<Identity>,
    no_new_privileges: bool,
    limits: [(libc::__rlimit_resource_t, libc::rlimit); LIMITS.len()],
    null: OwnedFd,
    stack: Stack,
    /// `PR_GET_DUMPABLE` of this process.
    dumpable: c_int,
}

/// Memory for the child to stand on, with a page below it that nobody may touch.
struct Stack(ptr::NonNull<c_void>);

// SAFETY: memory that is mapped for the whole process, used by whoever has the value.
unsafe impl Send for Stack {}

impl Stack {
    const GUARD: usize = 4096;

    fn new() -> std::io::Result<Self> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK);
        // SAFETY: a new mapping, wherever there is room; then its lowest page, which nothing uses, is closed.
        unsafe {
            let base = libc::mmap(ptr::null_mut(), STACK, access, kind, -1, 0);
            if base == libc::MAP_FAILED || libc::mprotect(base, Self::GUARD, libc::PROT_NONE) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            ptr::NonNull::new(base).map(Self).ok_or_else(std::io::Error::last_os_error)
        }
    }

    /// Where it begins; it grows downwards.
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.0.as_ptr().byte_add(STACK) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: its own mapping, on which no child stands: each has gone when `clone` returns.
        unsafe { libc::munmap(self.0.as_ptr(), STACK) };
    }
}

/// A program that runs.
pub(super) struct Launched {
    pub(super) pid: libc::pid_t,
    /// Readable once it has ended, and until it is waited for.
    pub(super) pidfd: OwnedFd,
}

/// Why no program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// This host has no room or no means.
    Refused(Errno),
    /// The program itself.
    Program(Errno),
    /// Something on the way to it.
    Way(String),
}

/// How far the child has come; what it says when it comes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    Session = 1,
    Limits,
    Descriptors,
    User,
    Privileges,
    Folder,
    Execute,
}

/// What the child reads and writes; it lives in the parent's frame, which stands still meanwhile.
struct Plan<'a> {
    launcher: &'a Launcher,
    parent: libc::pid_t,
    input: c_int,
    out: c_int,
    err: c_int,
    folder: *const c_char,
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    step: Step,
    errno: c_int,
}

impl Launcher {
    /// # Errors
    /// Without `/dev/null`.
    pub(super) fn new(identity: Option<Identity>, no_new_privileges: bool) -> std::io::Result<Self> {
        let null = std::fs::File::options().read(true).open("/dev/null")?;
        let mut limits = [(0, libc::rlimit { rlim_cur: 0, rlim_max: 0 }); LIMITS.len()];
        for (limit, (resource, most)) in limits.iter_mut().zip(LIMITS) {
            let mut own = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: `own` is a whole rlimit that the call writes to.
            if unsafe { libc::getrlimit(resource, &raw mut own) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let most = own.rlim_max.min(most);
            *limit = (resource, libc::rlimit { rlim_cur: most, rlim_max: most });
        }
        // SAFETY: asks, and touches no memory.
        let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        Ok(Self { identity, no_new_privileges, limits, null: null.into(), stack: Stack::new()?, dumpable })
    }

    /// Starts a script that reads nothing or `input`, and whose outputs go to these ends of pipes.
    pub(super) fn launch(
        &mut self,
        script: &ScriptCheck,
        input: Option<BorrowedFd<'_>>,
        out: BorrowedFd<'_>,
        err: BorrowedFd<'_>,
    ) -> Result<Launched, Failure> {
        let text = |text: &[u8]| CString::new(text).map_err(|_| Failure::Way("a zero byte in its words".into()));
        let arguments =
            script.argv.iter().map(|argument| text(argument.as_bytes())).collect::<Result<Vec<_>, Failure>>()?;
        let program = arguments.first().ok_or_else(|| Failure::Way("no program is named".into()))?;
        let defaults = ENVIRONMENT.iter().filter(|(name, _)| script.env.iter().all(|(own, _)| **own != **name));
        let own = script.env.iter().map(|(name, value)| (&**name, &**value));
        let environment = defaults
            .copied()
            .chain(own)
            .map(|(name, value)| text(format!("{name}={value}").as_bytes()))
            .collect::<Result<Vec<_>, Failure>>()?;
        let folder = script.cwd.as_deref().unwrap_or_else(|| Path::new("/"));
        let folder_text = text(folder.as_os_str().as_bytes())?;
        // The child puts its own descriptors at 0, 1 and 2, and must not lose one of these over it. They are above unless
        // this process was started without those, and std sees to that.
        let input = input.map_or(self.null.as_raw_fd(), |input| input.as_raw_fd());
        if out.as_raw_fd() < 3 || err.as_raw_fd() < 3 || input < 3 {
            return Err(Failure::Refused(Errno(libc::EBADF)));
        }
        let argument_list = pointers(&arguments);
        let environment_list = pointers(&environment);
        let top = self.stack.top();
        let mut plan = Plan {
            launcher: self,
            parent: nix::unistd::getpid().as_raw(),
            input,
            out: out.as_raw_fd(),
            err: err.as_raw_fd(),
            folder: folder_text.as_ptr(),
            program: program.as_ptr(),
            arguments: argument_list.as_ptr(),
            environment: environment_list.as_ptr(),
            step: Step::Session,
            errno: 0,
        };
        let (pid, pidfd) = clone(&mut plan, top).map_err(Failure::Refused)?;
        let (step, errno) = (plan.step, plan.errno);
        if self.identity.is_some() {
            // SAFETY: changes a flag of this process, and touches no memory.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, self.dumpable, 0, 0, 0) };
        }
        if errno == 0 {
            return Ok(Launched { pid, pidfd });
        }
        // It has exited already: this only collects it.
        super::wait::collect(&pidfd);
        Err(failure(step, Errno(errno), self.identity.as_ref(), folder))
    }
}

fn failure(step: Step, errno: Errno, identity: Option<&Identity>, folder: &Path) -> Failure {
    let error = std::io::Error::from_raw_os_error(errno.0);
    let user = identity.map_or("its user", |identity| &*identity.name);
    match step {
        // The limits that bear on executing: processes of the user, memory, open files of the system.
        Step::Execute | Step::Descriptors if matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::ENFILE) => {
            Failure::Refused(errno)
        }
        Step::Execute => Failure::Program(errno),
        Step::Folder => Failure::Way(format!("{user} cannot enter {}: {error}", folder.display())),
        Step::User => Failure::Way(format!("this process cannot become {user}: {error}")),
        Step::Session => Failure::Way(format!("no session for it: {error}")),
        Step::Limits => Failure::Way(format!("its limits of resources cannot be set: {error}")),
        Step::Descriptors => Failure::Way(format!("its descriptors cannot be set: {error}")),
        Step::Privileges => Failure::Way(format!("it cannot be kept from new privileges: {error}")),
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Runs [`child`] on that stack, and comes back when it has executed its program or ended.
fn clone(plan: &mut Plan<'_>, top: *mut c_void) -> Result<(libc::pid_t, OwnedFd), Errno> {
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: all zeroes is a valid sigset_t, which the calls then fill.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: the sets live in this frame. The child shares our memory and runs alone on `top`, the end of a stack that
    // nothing else uses, while this thread stands still (CLONE_VFORK); it is done with `plan` when the call returns. No
    // handler of a signal can run in it: all are blocked here, and it forgets the handlers before it unblocks any.
    // With CLONE_PIDFD the kernel writes a descriptor to the first extra argument.
    let pid = unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        let argument = ptr::from_mut(plan).cast::<c_void>();
        let pid = libc::clone(child, top, flags, argument, &raw mut pidfd);
        let errno = NixErrno::last_raw();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if pid < 0 {
            return Err(Errno(errno));
        }
        pid
    };
    // SAFETY: the kernel has just made it for us.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The child, until it is another program. Only system calls: whatever libc keeps in memory is the parent's.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` passes its exclusive borrow of the plan, and waits.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    // SAFETY: it runs in the child alone, which it changes and nothing else.
    let failed = unsafe { become_program(plan) };
    plan.errno = match failed {
        Err(errno) if errno != 0 => errno,
        Err(_) | Ok(()) => libc::EINVAL,
    };
    127
}

/// Returns only if a step fails.
///
/// # Safety
/// In a child made by [`clone`].
unsafe fn become_program(plan: &mut Plan<'_>) -> Result<(), c_int> {
    let launcher = plan.launcher;
    // SAFETY: system calls on the child's own process, with pointers to texts and lists that the parent keeps until the
    // child is gone. Credentials are changed by the bare calls: libc's would change all threads, and these are not ours.
    unsafe {
        plan.step = Step::Session;
        done(libc::setsid().into())?;
        plan.step = Step::Limits;
        for (resource, limit) in &launcher.limits {
            done(libc::setrlimit(*resource, limit).into())?;
        }
        plan.step = Step::Descriptors;
        done(libc::dup2(plan.input, 0).into())?;
        done(libc::dup2(plan.out, 1).into())?;
        done(libc::dup2(plan.err, 2).into())?;
        done(libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32))?;
        plan.step = Step::User;
        if let Some(identity) = &launcher.identity {
            done(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()))?;
            done(libc::syscall(libc::SYS_setresgid, identity.group, identity.group, identity.group))?;
            done(libc::syscall(libc::SYS_setresuid, identity.user, identity.user, identity.user))?;
            // So it is already, but where fs.suid_dumpable is 1.
            done(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
        }
        plan.step = Step::Privileges;
        // What a service manager gives to an ordinary user goes on to all that it executes, but for this.
        done(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).into())?;
        if launcher.no_new_privileges {
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        }
        // After the change of user, which clears it; and it means nothing if the parent has gone before.
        done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0).into())?;
        if libc::getppid() != plan.parent {
            return Err(libc::ESRCH);
        }
        plan.step = Step::Folder;
        done(libc::chdir(plan.folder).into())?;
        plan.step = Step::Execute;
        for signal in 1..=LAST_SIGNAL {
            // By the bare call: libc keeps two of them to itself. KILL and STOP have no disposition to change.
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), ptr::null::<c_void>(), size_of::<u64>());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        done(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()).into())?;
        done(libc::execve(plan.program, plan.arguments, plan.environment).into())
    }
}

fn done(result: c_long) -> Result<(), c_int> {
    if result < 0 { Err(NixErrno::last_raw()) } else { Ok(()) }
}

/// Whether this process may change to another user at all.
pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn failures_say_where() {
        let folder = Path::new("/nope");
        let missing = failure(Step::Folder, Errno::ENOENT, None, folder);
        assert_eq!(missing, Failure::Way("its user cannot enter /nope: No such file or directory (os error 2)".into()));
        assert_eq!(failure(Step::Execute, Errno::ENOENT, None, folder), Failure::Program(Errno::ENOENT));
        assert_eq!(failure(Step::Execute, Errno::EAGAIN, None, folder), Failure::Refused(Errno::EAGAIN));
    }

    #[test]
    fn a_list_ends_with_null() {
        let texts = [c"a".to_owned(), c"b".to_owned()];
        let list = pointers(&texts);
        assert_eq!(list.len(), 3);
        assert!(list[2].is_null());
        // SAFETY: the texts live on.
        assert_eq!(unsafe { CStr::from_ptr(list[1]) }, c"b");
    }
}
