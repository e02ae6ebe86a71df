//! Limits of this process that stand in the way of many sockets.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The open files that this process may have.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    pub soft: u64,
    pub hard: u64,
}

/// Raises the soft limit to the hard one.
pub fn raise_open_files() -> OpenFiles {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return OpenFiles { soft: 1024, hard: 1024 } };
    let soft = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    OpenFiles { soft, hard }
}
