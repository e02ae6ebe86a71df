//! The tables, and how older files become like them.
//!
//! `application_id` says that a file is ours, `user_version` which of the [`MIGRATIONS`] it has seen. They run in order, in
//! one transaction; a file that has seen more than there are is newer, and is left alone.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::{Fault, OpenError};

/// "CPRA" in ASCII.
const APPLICATION: i64 = 0x4350_5241;

/// What each version added. Never changed once it was released: an older file has to become the same.
const MIGRATIONS: [&str; 1] = [FIRST];

pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// `seen_ok` has no key, and the last row of a monitor counts: rows come in no order, and a tree by name would rewrite as many
/// pages as there are rows in a commit (docs/adr/0008).
const FIRST: &str = "
    CREATE TABLE destinations (
        id       INTEGER PRIMARY KEY,
        name     TEXT NOT NULL,
        provider TEXT NOT NULL,
        value    TEXT NOT NULL UNIQUE
    );
    CREATE TABLE seen_ok (
        monitor    TEXT NOT NULL,
        definition INTEGER NOT NULL
    );
    CREATE TABLE switches (
        monitor TEXT PRIMARY KEY,
        enabled INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE episodes (
        id         TEXT PRIMARY KEY,
        monitor    TEXT,
        definition INTEGER NOT NULL,
        state      TEXT NOT NULL,
        opened     INTEGER NOT NULL,
        cause      TEXT NOT NULL,
        yellow     INTEGER NOT NULL,
        red        INTEGER NOT NULL,
        reminders  INTEGER NOT NULL,
        told       TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE bundles (
        id          TEXT PRIMARY KEY,
        destination INTEGER NOT NULL,
        of_group    TEXT,
        opened      INTEGER NOT NULL,
        notices     INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        destination INTEGER NOT NULL,
        episode     TEXT NOT NULL,
        kind        TEXT NOT NULL,
        n           INTEGER NOT NULL,
        incident    TEXT NOT NULL,
        monitor     TEXT NOT NULL,
        color       TEXT NOT NULL,
        summary     TEXT NOT NULL,
        outcome     TEXT,
        at          INTEGER NOT NULL,
        lasted      INTEGER NOT NULL,
        rest        TEXT NOT NULL,
        attempts    INTEGER NOT NULL DEFAULT 0,
        dead        TEXT
    );
    CREATE TABLE closed_episodes (
        id        INTEGER PRIMARY KEY,
        at        INTEGER NOT NULL,
        episode   TEXT NOT NULL,
        monitor   TEXT,
        opened    INTEGER NOT NULL,
        cause     TEXT NOT NULL,
        yellow    INTEGER NOT NULL,
        red       INTEGER NOT NULL,
        reminders INTEGER NOT NULL
    );
    CREATE INDEX closed_by_monitor ON closed_episodes (monitor);
    CREATE TABLE deliveries (
        id          INTEGER PRIMARY KEY,
        at          INTEGER NOT NULL,
        notice      INTEGER NOT NULL,
        attempt     INTEGER NOT NULL,
        episode     TEXT NOT NULL,
        incident    TEXT NOT NULL,
        monitor     TEXT NOT NULL,
        destination TEXT NOT NULL,
        provider    TEXT NOT NULL,
        color       TEXT NOT NULL,
        kind        TEXT NOT NULL,
        n           INTEGER NOT NULL,
        summary     TEXT NOT NULL,
        result      TEXT NOT NULL,
        said        TEXT NOT NULL
    );
    CREATE INDEX deliveries_by_episode ON deliveries (episode);
    CREATE INDEX deliveries_by_monitor ON deliveries (monitor);
    CREATE TABLE audit (
        id    INTEGER PRIMARY KEY,
        at    INTEGER NOT NULL,
        who   TEXT NOT NULL,
        what  TEXT NOT NULL,
        about TEXT NOT NULL
    );
";

/// The tables that decide what the daemon does next: those that are read at the start. The others are history.
pub(super) const DECIDING: [&str; 6] = ["destinations", "seen_ok", "switches", "episodes", "bundles", "outbox"];

/// The tables that are cut by age and size. Their `id` counts up with their `at`.
pub(super) const HISTORIES: [&str; 3] = ["deliveries", "closed_episodes", "audit"];

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Refused(#[from] OpenError),
    #[error("{0}")]
    Fault(Fault),
}

impl<E: Into<Fault>> From<E> for Unusable {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Whose the file is, and which version of it. Answers the version; 0 is an empty one.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<i64, Unusable> {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let (application, found) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (application != 0 || tables > 0) {
        return Err(OpenError::Foreign { path: path.to_owned() }.into());
    }
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION }.into());
    }
    Ok(found)
}

/// Brings a file of an older version up to this one.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> Result<(), rusqlite::Error> {
    if found == VERSION {
        return Ok(());
    }
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"))?;
    transaction.commit()
}
