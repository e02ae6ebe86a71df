//! The runtime of the lanes: one thread of futures on io_uring, and files through it. The only place that names
//! `tokio_uring`.
//!
//! tokio-uring cancels nothing when a future is dropped, and its runtime waits for what is pending when it is dropped.
//! So a lane that gives up what hangs has its runtime leaked instead of dropped: the process is about to end.
//!
//! A disk that hangs holds one thread for each operation on it: one of the kernel's for what goes through the ring, one
//! of ours for what the ring cannot do ([`aside`]). The kernel has a bound of its own for them, four for each core, so
//! that nine files on a dead disk would stop all others; [`run`] raises it. What remains is that the kernel writes files
//! in 64 lines, by their number: of those that hang in a *write*, each may delay a sixty-fourth of the others. Most hang
//! before that, when the path is looked at.
//!
//! Where io_uring is forbidden (containers commonly do that), the same code runs on tokio with blocking file operations.
//! Then a file system that hangs does delay the others.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The numbers of the errors that file operations meet.
pub use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use tokio::task::LocalSet;

/// Runs a lane until its future ends, which answers whether nothing is left pending. `operations_max` are those that
/// may hang at the same time without delaying others.
pub fn run<F: Future<Output = bool>>(operations_max: usize, lane: impl FnOnce(Disk) -> F) {
    // Of this thread, not of a ring: it holds for the runtime's ring, too.
    if let Err(error) = super::uring::raise_file_workers(operations_max) {
        tracing::debug!(%error, "the kernel keeps its own bound of threads for files");
    }
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => {
            if !runtime.block_on(lane(Disk::Uring)) {
                // To drop it would wait for the very operations that were given up.
                std::mem::forget(runtime);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "io_uring is not available; logs are written by blocking calls");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("an epoll descriptor for the lane");
            LocalSet::new().block_on(&runtime, lane(Disk::Blocking));
        }
    }
}

/// How files are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Uring,
    /// Where io_uring is not to be had.
    Blocking,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Symlink,
    Other,
}

impl Kind {
    fn of(mode: libc::mode_t) -> Self {
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::Regular,
            SFlag::S_IFLNK => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// Without O_NONBLOCK the open of a FIFO would wait for a reader; O_NOCTTY for what may be a terminal.
const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
const OPEN_MODE: u32 = 0o640;

impl Disk {
    /// What the path itself names, links not followed; `None` if nothing.
    ///
    /// # Errors
    /// When the path cannot be looked up.
    pub async fn identity(self, path: &Path) -> io::Result<Option<(Identity, Kind)>> {
        let found = match self {
            Self::Uring => match tokio_uring::fs::StatxBuilder::new().flags(libc::AT_SYMLINK_NOFOLLOW).pathname(path) {
                Ok(query) => query.statx().await.map(|stat| {
                    let Status { identity, kind, .. } = Status::of(&stat);
                    (identity, kind)
                }),
                Err(error) => Err(error),
            },
            Self::Blocking => nix::sys::stat::lstat(path).map(|stat| identity(&stat)).map_err(io::Error::from),
        };
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens for appending, and makes the file if it does not exist; links are not followed. What was opened may be
    /// anything: look at it first, then call [`OpenFile::wait_for_disk`].
    ///
    /// # Errors
    /// As open(2) says.
    pub async fn open_append(self, path: &Path) -> io::Result<OpenFile> {
        // To read, too: the last byte tells whether a line was left unfinished.
        Ok(match self {
            Self::Uring => {
                let mut options = tokio_uring::fs::OpenOptions::new();
                options.read(true).append(true).create(true).mode(OPEN_MODE).custom_flags(OPEN_FLAGS);
                OpenFile::Uring(options.open(path).await?)
            }
            Self::Blocking => {
                let mut options = fs::OpenOptions::new();
                options.read(true).append(true).create(true).mode(OPEN_MODE).custom_flags(OPEN_FLAGS);
                OpenFile::Blocking(options.open(path)?)
            }
        })
    }
}

/// Does what can only be done by a call that may block, on a thread of its own.
///
/// # Errors
/// What `work` answers; or that the runtime ends.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What a file is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub identity: Identity,
    pub kind: Kind,
    pub size: u64,
}

impl Status {
    fn of(stat: &libc::statx) -> Self {
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let identity = Identity { device, inode: stat.stx_ino };
        Self { identity, kind: Kind::of(stat.stx_mode.into()), size: stat.stx_size }
    }
}

fn identity(stat: &libc::stat) -> (Identity, Kind) {
    let device = (libc::major(stat.st_dev), libc::minor(stat.st_dev));
    (Identity { device, inode: stat.st_ino }, Kind::of(stat.st_mode))
}

/// A file that is open for appending.
pub enum OpenFile {
    Uring(tokio_uring::fs::File),
    Blocking(fs::File),
}

impl OpenFile {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: the file keeps its descriptor open for as long as it lives, and the borrow ends before that.
            Self::Uring(file) => unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) },
            Self::Blocking(file) => file.as_fd(),
        }
    }

    /// # Errors
    /// As fstat(2) says.
    pub async fn status(&self) -> io::Result<Status> {
        match self {
            Self::Uring(file) => Ok(Status::of(&file.statx().await?)),
            Self::Blocking(_) => {
                let stat = fstat(self.fd())?;
                let (identity, kind) = identity(&stat);
                Ok(Status { identity, kind, size: u64::try_from(stat.st_size).unwrap_or(0) })
            }
        }
    }

    /// Where the file is by now, as the kernel sees it.
    ///
    /// # Errors
    /// Without /proc.
    pub fn path(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.fd().as_raw_fd()))
    }

    /// Clears O_NONBLOCK: with it io_uring would answer EAGAIN where a disk has to be waited for.
    ///
    /// # Errors
    /// As fcntl(2) says.
    pub fn wait_for_disk(&self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self.fd(), FcntlArg::F_GETFL)?);
        fcntl(self.fd(), FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// One write of `bytes[from..]` at the file's end, wherever that is by then.
    pub async fn append(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(file) => {
                // The offset is ignored, because of O_APPEND.
                let (result, slice) =
                    file.write_at(tokio_uring::buf::BoundedBuf::slice(bytes, from..), 0).submit().await;
                (result, slice.into_inner())
            }
            Self::Blocking(file) => (io::Write::write(&mut &*file, &bytes[from..]), bytes),
        }
    }

    /// The last byte of a file of this size; `None` of an empty one.
    ///
    /// # Errors
    /// As pread(2) says.
    pub async fn last_byte(&self, size: u64) -> io::Result<Option<u8>> {
        let Some(at) = size.checked_sub(1) else { return Ok(None) };
        let mut byte = vec![0];
        let count = match self {
            Self::Uring(file) => {
                let result;
                (result, byte) = file.read_at(byte, at).await;
                result?
            }
            Self::Blocking(file) => file.read_at(&mut byte, at)?,
        };
        // Truncated meanwhile: then it is empty, or what is left ends where a line did.
        Ok((count == 1).then(|| byte[0]))
    }

    /// # Errors
    /// As ftruncate(2) says.
    pub async fn truncate(&self, size: u64) -> io::Result<()> {
        let size = i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let fd = self.fd().try_clone_to_owned()?;
        aside(move || Ok(nix::unistd::ftruncate(fd, size)?)).await
    }

    /// Closes it without keeping the thread: a file system may write back first.
    pub async fn close(self) {
        match self {
            // What could not be written back is known too late to be of use to anyone.
            Self::Uring(file) => drop(file.close().await),
            Self::Blocking(file) => drop(file),
        }
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({})", self.fd().as_raw_fd())
    }
}

/// Runs a test's future as the lane would.
#[cfg(test)]
pub(crate) fn block_on<F: Future>(disk: Disk, future: F) -> F::Output {
    match disk {
        Disk::Uring => tokio_uring::start(future),
        Disk::Blocking => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, future)
        }
    }
}
