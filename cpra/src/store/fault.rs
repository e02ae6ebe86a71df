//! What can be wrong with a file, in words and with a remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the daemon does not start: to go on would harm what is there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the store {} was written by a newer cpra (schema {found}; this one knows {known}): start that version again, or \
         name another file as [store] path",
        .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "the store {} is a database of another program: name another file as [store] path", .path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "the store {} is in use by another cpra ({holder}): stop that one, or name another file as [store] path",
        .path.display()
    )]
    InUse { path: PathBuf, holder: String },
}

/// What keeps the store from doing its work. Nothing of what was to be kept is in it: values can be secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// What is read cannot be what was written. Trying again does not help; another file does.
    Corrupt,
    Full,
    ReadOnly,
    Denied,
    /// The disk fails, or the file is gone.
    Io,
    /// Another process has it locked, by `sqlite3` for example.
    Busy,
    Other,
}

impl Fault {
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::new(FaultKind::Corrupt, text)
    }

    pub fn is_corrupt(&self) -> bool {
        self.kind == FaultKind::Corrupt
    }

    pub fn remedy(&self) -> &'static str {
        match self.kind {
            FaultKind::Corrupt => {
                "look at the disk; the file that was put aside can be read with `sqlite3 FILE .recover`"
            }
            FaultKind::Full => "make room on its file system, or lower [store] max_size",
            FaultKind::ReadOnly => "mount its file system for writing, or name another file as [store] path",
            FaultKind::Denied => {
                "let the daemon's user write the file and its folder, or name another file as [store] path"
            }
            FaultKind::Io => "look at the disk and its file system (dmesg)",
            FaultKind::Busy => "end the program that has it locked",
            FaultKind::Other => "look at the file and its folder, or name another file as [store] path",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => FaultKind::Corrupt,
                ErrorCode::DiskFull => FaultKind::Full,
                ErrorCode::ReadOnly => FaultKind::ReadOnly,
                ErrorCode::PermissionDenied | ErrorCode::CannotOpen => FaultKind::Denied,
                ErrorCode::SystemIoFailure => FaultKind::Io,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => FaultKind::Busy,
                _ => FaultKind::Other,
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows => FaultKind::Corrupt,
            _ => FaultKind::Other,
        };
        // SQLite's own words are about tables and files; they quote no values.
        Self { kind, text: error.to_string() }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FaultKind::Full,
            io::ErrorKind::ReadOnlyFilesystem => FaultKind::ReadOnly,
            io::ErrorKind::PermissionDenied => FaultKind::Denied,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FaultKind::Other,
            _ => FaultKind::Io,
        };
        Self { kind, text: error.to_string() }
    }
}
