//! The limit of open files. It also caps the table of direct sockets of each io_uring instance, so it is raised as
//! far as this process may.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum LimitError {
    #[error("the limit of open files could not be read")]
    Read { source: nix::Error },
    #[error("the limit of open files could not be raised from {soft} to {hard}")]
    Raise { soft: u64, hard: u64, source: nix::Error },
}

/// What became of `RLIMIT_NOFILE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NofileLimit {
    /// The soft limit before and now.
    pub before: u64,
    pub soft: u64,
    /// The hard limit now.
    pub hard: u64,
    /// What the kernel would allow (`fs.nr_open`) to a process with CAP_SYS_RESOURCE.
    pub ceiling: u64,
}

impl NofileLimit {
    /// Raises the hard limit to `fs.nr_open` where that is allowed, and the soft one to the hard one.
    ///
    /// # Errors
    /// If the limit cannot be read or the soft one not be raised, which every process may.
    pub fn raise() -> Result<Self, LimitError> {
        let (before, mut hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|source| LimitError::Read { source })?;
        let ceiling = ceiling(Path::new("/proc")).unwrap_or(hard);
        // Needs CAP_SYS_RESOURCE; without it we go on with less.
        if ceiling > hard && setrlimit(Resource::RLIMIT_NOFILE, ceiling, ceiling).is_ok() {
            hard = ceiling;
        } else if before < hard {
            let soft = before;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|source| LimitError::Raise {
                soft,
                hard,
                source,
            })?;
        }
        Ok(Self { before, soft: hard, hard, ceiling })
    }
}

fn ceiling(root: &Path) -> Option<u64> {
    fs::read_to_string(root.join("sys/fs/nr_open")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = NofileLimit::raise().expect("every process may");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("read"), (limit.soft, limit.hard));
        assert!(limit.soft == limit.hard && limit.before <= limit.soft);
        // Again: nothing to raise any more.
        let again = NofileLimit::raise().expect("every process may");
        assert_eq!((again.before, again.soft), (limit.soft, limit.soft));
    }
}
