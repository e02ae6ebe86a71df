//! The unix socket of the command line: a file that says who is at the other end.
//!
//! Binding one is more than `bind(2)`: the file of a process that died lies there and must go, that of one that lives
//! must stay. Whoever connects is told by the kernel (`SO_PEERCRED`), so that no password is needed; the file's mode
//! (0600) keeps the others out beforehand.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat, geteuid};

use super::user::Identity;

/// `sun_path` has 108 bytes, with the zero at its end.
const PATH_MAX: usize = 107;
/// `/etc/passwd` is read up to here.
const USERS_MAX: u64 = 1024 * 1024;

/// A listening unix socket. Dropping it removes its file, if that is still its own.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
    /// The folder of the file, if it was made for it.
    made: Option<(PathBuf, (u64, u64))>,
}

/// Why there is no socket. The texts end with what to do, but for the flag that names another path.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{}: process {pid} ({command}) listens there: stop it, or choose another path", path.display())]
    Taken { path: PathBuf, pid: i32, command: String },
    #[error("{}: something that is no socket is there: move it away, or choose another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("{}: the path has {length} bytes, a socket's has at most {PATH_MAX}: choose a shorter one", path.display())]
    Long { path: PathBuf, length: usize },
    #[error("{}: {error}: choose a path that this user may create", path.display())]
    Other { path: PathBuf, error: io::Error },
}

impl LocalSocket {
    /// Listens at `path`, for this user and root only. A missing folder is made, a dead process's file removed.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub fn bind(path: &Path) -> Result<Self, LocalError> {
        let length = path.as_os_str().len();
        if length > PATH_MAX {
            return Err(LocalError::Long { path: path.to_owned(), length });
        }
        let other = |error| LocalError::Other { path: path.to_owned(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut made = None;
        if let Some(folder) = folder.filter(|folder| !folder.exists()) {
            fs::create_dir_all(folder).map_err(other)?;
            made = Some((folder.to_owned(), identity(folder).map_err(other)?));
        }
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                UnixListener::bind(path).map_err(other)?
            }
            bound => bound.map_err(other)?,
        };
        // Until here the umask decided. Whoever came in meanwhile is asked for its credentials all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(other)?;
        let file = identity(path).map_err(other)?;
        Ok(Self { listener, path: path.to_owned(), file, made })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it another user's, and the folder that was made for it: root binds it, and the user that the daemon becomes
    /// is the one who may connect, and who removes the file in the end.
    ///
    /// # Errors
    /// As the system's.
    pub fn give_to(&self, user: &Identity) -> io::Result<()> {
        give(&self.path, self.file, user)?;
        self.made.as_ref().map_or(Ok(()), |(folder, file)| give(folder, *file, user))
    }

    /// Another handle of the listening socket.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Another process may have taken the path over; its file is not ours to remove.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the very file that was seen at `path` another user's: whoever may write to its folder could have put something
/// else there meanwhile.
fn give(path: &Path, seen: (u64, u64), user: &Identity) -> io::Result<()> {
    let file = fs::File::from(open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?);
    let found = file.metadata()?;
    if (found.dev(), found.ino()) != seen {
        return Err(io::Error::other("it was replaced by something else"));
    }
    let (user, group) = (Uid::from_raw(user.user), Gid::from_raw(user.group));
    Ok(fchownat(&file, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes the socket of a process that is gone.
fn remove_dead(path: &Path) -> Result<(), LocalError> {
    let other = |error| LocalError::Other { path: path.to_owned(), error };
    let file = fs::symlink_metadata(path).map_err(other)?;
    if !file.file_type().is_socket() {
        return Err(LocalError::NoSocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = getsockopt(&stream, PeerCredentials).map_or(0, |credentials| credentials.pid());
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Err(LocalError::Taken { path: path.to_owned(), pid, command: command.trim().to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // It is still the file that refused: a daemon that starts at the same time may have been quicker.
            if identity(path).is_ok_and(|now| now == (file.dev(), file.ino())) {
                fs::remove_file(path).map_err(other)?;
            }
            Ok(())
        }
        Err(error) => Err(other(error)),
    }
}

/// Who this process is to the kernel.
pub fn own_uid() -> u32 {
    geteuid().as_raw()
}

/// The user's name by `/etc/passwd`. Not by the name service, which may be a directory server that hangs.
pub fn user_name(uid: u32) -> Option<Box<str>> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open("/etc/passwd").ok()?.take(USERS_MAX).read_to_string(&mut text).ok()?;
    let mut users = text.lines().map(|line| line.split(':'));
    users.find_map(|mut user| {
        let (name, id) = (user.next()?, user.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_and_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/cpra.sock");
        let socket = LocalSocket::bind(&path).expect("it binds");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        let error = LocalSocket::bind(&path).expect_err("it is taken").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_the_dead_is_removed_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cpra.sock");
        // The descriptor is closed, the file stays: as after kill -9.
        drop(UnixListener::bind(&path).expect("it binds"));
        let socket = LocalSocket::bind(&path).expect("nobody listens there");
        // Whoever replaced the file keeps it.
        fs::remove_file(&path).expect("it is there");
        let successor = UnixListener::bind(&path).expect("it binds");
        drop(socket);
        assert!(path.exists());
        drop(successor);

        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(LocalSocket::bind(&path), Err(LocalError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(matches!(LocalSocket::bind(&link), Err(LocalError::NoSocket { .. })));
    }

    #[test]
    fn a_path_that_is_too_long_says_so() {
        let error = LocalSocket::bind(Path::new(&format!("/tmp/{}", "x".repeat(120)))).expect_err("too long");
        assert!(error.to_string().contains("at most 107"), "{error}");
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(4_000_000_001), None);
    }
}
