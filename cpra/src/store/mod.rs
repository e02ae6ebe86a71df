//! What makes a commit durable. The desk lets nothing leave before its commit is.
//!
//! [`open`] reads what an earlier process left ([`Stored`]), on the thread that starts the daemon; [`Opened::spawn`] starts
//! the thread that writes from then on. A person's questions about the past go to a [`Reader`].
//!
//! | what happens | what follows |
//! | --- | --- |
//! | no room, a disk that fails, a file system that turns read-only, another program that has it locked | nothing is answered; what waits is kept in memory, merged, and tried again; told once a minute, with the remedy |
//! | the file is damaged, at the start or later, or it was removed | put aside, with what can be read taken over into a new one; loud |
//! | a newer schema, another program's database, another daemon's store | refused at the start |
//! | it cannot be opened at all at the start | the daemon starts with a store in memory, and says so: one that does not start helps nobody |
//!
//! Bounds: the queue, [`STORE_TRANSACTION_RECORDS`](crate::units::limits::STORE_TRANSACTION_RECORDS) for one
//! transaction, what waits while the disk does not answer (see `backlog`), and the file by `[store] max_age`
//! and `max_size`.

mod backlog;
mod database;
mod fault;
mod mirror;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod thread;

use std::path::PathBuf;

pub use self::database::Database;
pub use self::fault::{Fault, FaultKind, OpenError};
pub use self::reader::{ClosedEpisode, Deliveries, DeliveryRow, Reader};
use self::schema::Unusable;
pub use self::thread::{StoreBoard, StoreStats, StoreThread, spawn};
use crate::desk::protocol::Stored;
use crate::units::Span;
use crate::units::limits::{STORE_AGE_DEFAULT, STORE_SIZE_DEFAULT};

/// Where what must survive is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// Nowhere: for those who run the daemon inside a process of their own (tests, benches).
    Memory,
    File(FileSettings),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    pub path: PathBuf,
    /// How long history is kept.
    pub max_age: Span,
    /// About how large the file may get, in bytes, before the oldest history is removed.
    pub max_size: u64,
}

impl FileSettings {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_age: STORE_AGE_DEFAULT, max_size: STORE_SIZE_DEFAULT }
    }
}

/// An open store, and what it held.
pub struct Opened {
    pub store: Store,
    pub stored: Stored,
}

pub enum Store {
    Memory,
    File(Box<Database>),
}

impl Store {
    /// Where people can read about the past, if anything is kept of it.
    pub fn reader(&self) -> Option<Reader> {
        match self {
            Self::Memory => None,
            Self::File(file) => Some(Reader::new(file.path().to_owned())),
        }
    }
}

/// Opens the store. One that cannot be had is replaced by memory, and [`Stored::trouble`] says so.
///
/// # Errors
/// When it must not be touched; see [`OpenError`].
pub fn open(settings: &Settings) -> Result<Opened, OpenError> {
    let file = match settings {
        Settings::Memory => {
            return Ok(Opened { store: Store::Memory, stored: Stored { is_new: true, ..Stored::default() } });
        }
        Settings::File(file) => file,
    };
    match Database::open(file) {
        Ok((database, stored)) => Ok(Opened { store: Store::File(Box::new(database)), stored }),
        Err(Unusable::Refused(refused)) => Err(refused),
        Err(Unusable::Fault(fault)) => {
            let trouble = format!(
                "the store {} cannot be opened ({fault}): nothing survives a restart; {}",
                file.path.display(),
                fault.remedy()
            );
            let stored = Stored { is_new: true, trouble: Some(trouble.into()), ..Stored::default() };
            Ok(Opened { store: Store::Memory, stored })
        }
    }
}
