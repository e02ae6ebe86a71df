//! The standard streams, written without waiting for whoever reads them.
//!
//! Standard output and standard error may be pipes that nobody empties, or a terminal that someone has paused. They are
//! shared with other processes, so they cannot be made nonblocking: the flag belongs to the open file, not to us.
//! Instead each write first asks whether there is room, and writes no more than a pipe promises to take then.
//! What remains is a race with another writer of the same pipe, who may take the room in between; that write waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::unistd::write;

use crate::units::Span;

/// A pipe that polls writable takes this much without waiting, and as one piece (pipe(7), `PIPE_BUF`).
const PIECE: usize = 4096;

/// Writes what can be written now; a regular file takes it all.
///
/// # Errors
/// `WouldBlock` when there is no room; otherwise what write(2) said.
pub fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    write_when_ready(fd, bytes, Span::ZERO)
}

/// Writes all of it, waiting at most `patience` for room before each piece.
///
/// # Errors
/// As [`write_some`]. On `WouldBlock` a part may have been written, unless it was one piece.
pub fn write_whole(fd: BorrowedFd<'_>, mut bytes: &[u8], patience: Span) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_when_ready(fd, bytes, patience) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_when_ready(fd: BorrowedFd<'_>, bytes: &[u8], patience: Span) -> io::Result<usize> {
    let regular = fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
    if regular {
        return Ok(write(fd, bytes)?);
    }
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let patience = TimeSpec::nanoseconds(i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX));
    // Errors and hang-ups also end the poll: the write then says what they are.
    if ppoll(&mut fds, Some(patience), None)? == 0 {
        return Err(Errno::EAGAIN.into());
    }
    Ok(write(fd, &bytes[..bytes.len().min(PIECE)])?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_not_waited_for_and_takes_more_once_read() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let line = [b'x'; PIECE];
        let mut taken = 0;
        loop {
            match write_some(writer.as_fd(), &line) {
                Ok(count) => taken += count,
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(taken >= PIECE);
        let mut reader = File::from(reader);
        reader.read_exact(&mut vec![0; taken]).unwrap();
        write_whole(writer.as_fd(), &line, Span::ZERO).unwrap();
    }

    #[test]
    fn a_reader_that_left_is_an_error() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let error = write_some(writer.as_fd(), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
