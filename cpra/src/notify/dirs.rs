//! Where `notify: log` may write. A monitors file is often edited by people who must not write elsewhere.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

/// The allowed folders; files anywhere below them are allowed.
#[derive(Clone, Debug)]
pub struct LogDirs {
    allowed: Vec<PathBuf>,
    state: PathBuf,
}

/// Why a file is not written to. None of these goes away by itself but by what a person does to the folders.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("it names no file")]
    NoName,
    #[error("its folder {0:?} is not below an allowed one")]
    Outside(PathBuf),
    #[error("it is a symbolic link")]
    Symlink,
    #[error("it is not a regular file")]
    NotRegular,
}

impl Refusal {
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoName | Self::NotRegular => "name a regular file",
            Self::Outside(_) => "add the folder to [security] log_dirs, or name a file below one of those",
            Self::Symlink => "name the file itself",
        }
    }
}

impl LogDirs {
    /// `state` is allowed too, and the only one below which missing folders are made.
    pub fn new(allowed: impl IntoIterator<Item = PathBuf>, state: PathBuf) -> Self {
        Self { allowed: allowed.into_iter().collect(), state }
    }

    /// The path with its folder resolved, so that only its last component remains to be guarded (by O_NOFOLLOW).
    /// Folders are resolved anew each time: they may be made, or moved, while the daemon runs.
    ///
    /// # Errors
    /// A [`Refusal`], or why the folder cannot be found or made.
    pub fn place(&self, path: &Path) -> io::Result<Result<PathBuf, Refusal>> {
        // `file_name` sees through a trailing slash or dot, which the kernel would take for a folder.
        let ends_in_name = matches!(path.components().next_back(), Some(Component::Normal(_)));
        let Some(name) =
            path.file_name().filter(|_| ends_in_name && !path.as_os_str().as_encoded_bytes().ends_with(b"/"))
        else {
            return Ok(Err(Refusal::NoName));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = match fs::canonicalize(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(parent, error)?,
            found => found?,
        };
        Ok(if self.contains(&folder) { Ok(folder.join(name)) } else { Err(Refusal::Outside(folder)) })
    }

    /// Whether a resolved folder is an allowed one or below it.
    ///
    /// Those that contain it as they are written need no look at the disk: one of the others may be on a disk that hangs.
    pub fn contains(&self, folder: &Path) -> bool {
        let dirs = || self.allowed.iter().chain([&self.state]);
        // A resolved folder has no link in it, so that neither has what it begins with.
        dirs().any(|dir| dir.is_absolute() && is_plain(dir) && folder.starts_with(dir))
            || dirs().filter_map(|dir| fs::canonicalize(dir).ok()).any(|dir| folder.starts_with(dir))
    }

    /// Makes a missing folder below the state folder. Elsewhere a missing folder is more likely a mistyped one.
    fn make(&self, folder: &Path, missing: io::Error) -> io::Result<PathBuf> {
        let mut found = folder;
        let base = loop {
            found = match found.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                Some(_) if found.is_relative() => Path::new("."),
                _ => return Err(missing),
            };
            match fs::canonicalize(found) {
                Ok(base) => break base,
                Err(error) if error.kind() == io::ErrorKind::NotFound && found != Path::new(".") => {}
                Err(error) => return Err(error),
            }
        };
        let rest = folder.strip_prefix(found).unwrap_or(folder);
        if !is_plain(rest) || !fs::canonicalize(&self.state).is_ok_and(|state| base.starts_with(state)) {
            return Err(missing);
        }
        let folder = base.join(rest);
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&folder)?;
        fs::canonicalize(folder)
    }
}

/// Whether no part of the path leads back or stays.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_below_allowed_folders_whatever_the_path_looks_like() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().canonicalize().unwrap();
        for dir in ["log", "log-not", "state", "other"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        symlink(root.join("other"), root.join("log/way-out")).unwrap();
        symlink(root.join("log"), root.join("way-in")).unwrap();
        let dirs = LogDirs::new([root.join("log")], root.join("state"));
        let place = |path: &str| dirs.place(&root.join(path));

        assert_eq!(place("log/a").unwrap().unwrap(), root.join("log/a"));
        assert_eq!(place("way-in/a").unwrap().unwrap(), root.join("log/a"));
        assert_eq!(place("state/a").unwrap().unwrap(), root.join("state/a"));
        for outside in ["other/a", "log-not/a", "log/../other/a", "log/way-out/a", "a"] {
            assert!(matches!(place(outside), Ok(Err(Refusal::Outside(_)))), "{outside}");
        }
        for nameless in ["log/..", "log/a/", "log/"] {
            assert!(matches!(place(nameless), Ok(Err(Refusal::NoName))), "{nameless}");
        }
    }

    #[test]
    fn missing_folders_are_made_below_the_state_folder_only() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().canonicalize().unwrap();
        for dir in ["log", "state"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        let dirs = LogDirs::new([root.join("log")], root.join("state"));
        assert_eq!(dirs.place(&root.join("state/x/y/a")).unwrap().unwrap(), root.join("state/x/y/a"));
        assert_eq!(fs::metadata(root.join("state/x")).unwrap().permissions().mode() & 0o027, 0);
        assert_eq!(dirs.place(&root.join("log/x/a")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(dirs.place(&root.join("state/z/../../log/y/a")).is_err());
        assert!(!root.join("log/x").exists() && !root.join("log/y").exists());
    }
}
