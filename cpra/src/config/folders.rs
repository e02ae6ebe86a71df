//! What a monitors file may refer to outside of itself: folders that the program knows, the files below which a notice
//! may be appended, and the providers of the daemon file.

use std::path::{Component, Path, PathBuf};

use super::daemon::FALLBACK;
use super::providers::Declared;
use super::variables::Variables;

/// Where things are; values, so that the rules below are pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The working folder: relative paths begin here.
    pub working: PathBuf,
    /// What the daemon keeps.
    pub state: PathBuf,
    /// The unix socket of the command line.
    pub socket: PathBuf,
    /// Log files go below one of these.
    pub log_dirs: Vec<PathBuf>,
    /// Secrets and private keys are read from below these.
    pub secret_dirs: Vec<PathBuf>,
    /// `[providers.NAME]` of the daemon file.
    pub providers: Declared,
    /// `[code] fallback`: one of those, or the log.
    pub fallback: Box<str>,
    /// What `${...}` may stand for.
    pub variables: Variables,
    /// The daemon is root, and with it whoever may write what it executes.
    pub is_root: bool,
}

impl Folders {
    /// The working folder, and as log folders `/var/log`, the state folder, the temporary folder and the working
    /// folder. The root of the file system is never one: a service without a working folder runs in `/`. Secrets are
    /// in `/etc/cpra` and the state folder's `secrets`.
    pub fn new(working: &Path, state: &Path, temporary: &Path) -> Self {
        let mut log_dirs: Vec<PathBuf> = Vec::new();
        for folder in [Path::new("/var/log"), &working.join(state), &working.join(temporary), working] {
            if folder != Path::new("/") && folder.is_absolute() && !log_dirs.iter().any(|known| known == folder) {
                log_dirs.push(folder.to_owned());
            }
        }
        let state = working.join(state);
        let secret_dirs = vec![PathBuf::from("/etc/cpra"), state.join("secrets")];
        Self {
            working: working.to_owned(),
            socket: state.join(SOCKET),
            state,
            log_dirs,
            secret_dirs,
            providers: Declared::default(),
            fallback: FALLBACK.into(),
            variables: Variables::default(),
            is_root: false,
        }
    }

    /// As the environment says: `STATE_DIRECTORY` (its first entry), else `/var/lib/cpra` as root, else `./cpra-state`.
    /// The socket is in `RUNTIME_DIRECTORY`, else in `/run/cpra` as root, else in the state folder.
    pub fn of_process(is_root: bool) -> Self {
        let working = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let state = state_folder(std::env::var_os("STATE_DIRECTORY"), is_root);
        let mut folders = Self::new(&working, &state, &std::env::temp_dir());
        if let Some(folder) = runtime_folder(std::env::var_os("RUNTIME_DIRECTORY"), is_root) {
            folders.socket = working.join(folder).join(SOCKET);
        }
        Self { variables: Variables::of_process(), is_root, ..folders }
    }
}

/// The name of the unix socket in its folder.
const SOCKET: &str = "cpra.sock";

/// Where a process leaves what ends with it; `None` where that is the state folder.
pub fn runtime_folder(runtime_directory: Option<std::ffi::OsString>, is_root: bool) -> Option<PathBuf> {
    let given = runtime_directory.and_then(|folders| std::env::split_paths(&folders).next());
    let given = given.filter(|folder| !folder.as_os_str().is_empty());
    given.or_else(|| is_root.then(|| PathBuf::from("/run/cpra")))
}

/// The state folder, relative to the working folder where it is the default of an unprivileged run.
pub fn state_folder(state_directory: Option<std::ffi::OsString>, is_root: bool) -> PathBuf {
    let given = state_directory.and_then(|folders| std::env::split_paths(&folders).next());
    match given {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ if is_root => PathBuf::from("/var/lib/cpra"),
        _ => PathBuf::from("cpra-state"),
    }
}

/// Why a log file is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogPathError {
    #[error("has no file name: write a path like \"/var/log/cpra.jsonl\"")]
    NoName,
    #[error("climbs with \"..\": write the path without it")]
    Climbs,
    #[error("is outside of the allowed folders ({0}): choose one of them, or name its folder in [security] log_dirs")]
    Outside(String),
}

/// Where a log file `file` will be, if it may be there: below one of `log_dirs`, judged by the letters of the path.
/// A link below such a folder is the concern of whoever opens the file (`O_NOFOLLOW`).
///
/// # Errors
/// See [`LogPathError`].
pub fn log_path_allowed(file: &Path, folders: &Folders) -> Result<PathBuf, LogPathError> {
    if file.components().any(|part| part == Component::ParentDir) {
        return Err(LogPathError::Climbs);
    }
    if file.file_name().is_none() || file.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(LogPathError::NoName);
    }
    // Collecting the components drops `.` and doubled slashes, so that one file has one spelling.
    let path: PathBuf = folders.working.join(file).components().filter(|part| *part != Component::CurDir).collect();
    let inside = folders.log_dirs.iter().any(|folder| path != *folder && path.starts_with(folder));
    if inside {
        Ok(path)
    } else {
        let allowed: Vec<String> = folders.log_dirs.iter().map(|folder| folder.display().to_string()).collect();
        Err(LogPathError::Outside(allowed.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> Folders {
        Folders::new(Path::new("/home/me"), Path::new("/var/lib/cpra"), Path::new("/tmp"))
    }

    #[test]
    fn log_files_stay_below_the_allowed_folders() {
        for (file, expected) in [
            ("/var/log/cpra/red.jsonl", Some("/var/log/cpra/red.jsonl")),
            ("/var/log//./red.jsonl", Some("/var/log/red.jsonl")),
            ("notices.jsonl", Some("/home/me/notices.jsonl")),
            ("./a/b.jsonl", Some("/home/me/a/b.jsonl")),
            ("/tmp/x", Some("/tmp/x")),
            ("/var/lib/cpra/x", Some("/var/lib/cpra/x")),
            ("/var/logs/x", None),
            ("/etc/passwd", None),
            ("/home/other/x", None),
            ("/tmp", None),
        ] {
            assert_eq!(log_path_allowed(Path::new(file), &folders()).ok(), expected.map(PathBuf::from), "{file}");
        }
        assert_eq!(log_path_allowed(Path::new("/var/log/../../etc/passwd"), &folders()), Err(LogPathError::Climbs));
        for nameless in ["", "/", ".", "/var/log/", "a/"] {
            assert_eq!(log_path_allowed(Path::new(nameless), &folders()), Err(LogPathError::NoName), "{nameless}");
        }
    }

    #[test]
    fn a_working_folder_of_root_allows_nothing() {
        let folders = Folders::new(Path::new("/"), Path::new("/var/lib/cpra"), Path::new("/tmp"));
        assert_eq!(folders.log_dirs, [Path::new("/var/log"), Path::new("/var/lib/cpra"), Path::new("/tmp")]);
        assert!(log_path_allowed(Path::new("etc/cron.d/x"), &folders).is_err());
    }

    #[test]
    fn the_state_folder_is_the_services_else_by_user() {
        assert_eq!(state_folder(Some("/run/a:/run/b".into()), true), Path::new("/run/a"));
        assert_eq!(state_folder(None, true), Path::new("/var/lib/cpra"));
        assert_eq!(state_folder(Some("".into()), false), Path::new("cpra-state"));
        assert_eq!(runtime_folder(Some("/run/a:/run/b".into()), false).as_deref(), Some(Path::new("/run/a")));
        assert_eq!(runtime_folder(None, true).as_deref(), Some(Path::new("/run/cpra")));
        assert_eq!(runtime_folder(Some("".into()), false), None);
        assert_eq!(folders().socket, Path::new("/var/lib/cpra/cpra.sock"));
    }
}
