//! The file: how it is opened, written, kept small, and put aside when it is damaged.
//!
//! ```text
//!  open: lock ─▶ whose is it? ─▶ check ─▶ migrate ─▶ load ─▶ Stored
//!                 │ newer, foreign: refused   │ damaged: put aside, with what can be read taken over
//!  commit: BEGIN, records of all batches, COMMIT: the write-ahead log is written and synced
//!  idle:   checkpoint (log into file), history cut by age and size, a look whether the file is still there
//! ```
//! WAL and `synchronous=FULL`: a commit is one write to the log and one fsync. Checkpoints, which need two and write all
//! over the file, are never made by a commit, but between commits, when nothing waits, or when the log is very long.
//!
//! Pages that were freed are used again; a file does not shrink by itself. So `[store] max_size` bounds what is in use, and
//! the file stays near it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::FileSettings;
use super::fault::{Fault, FaultKind, OpenError};
use super::rows::{self, Rows};
use super::schema::{self, Unusable};
use crate::desk::protocol::{Batch, Record, Stored};
use crate::os::clock::Clock;
use crate::units::Timestamp;
use crate::units::limits::{
    STORE_ASIDE_MAX, STORE_BUSY_WAIT, STORE_CACHE_BYTES, STORE_CHECKED_WHOLE_MAX, STORE_PRUNED_AT_ONCE,
    STORE_STATEMENTS, STORE_WAL_BYTES_KEPT, STORE_WAL_PAGES, STORE_WAL_PAGES_MAX,
};

/// An open store. Nobody else has it open for writing.
pub struct Database {
    settings: FileSettings,
    connection: Connection,
    rows: Rows,
    /// Held as long as this lives.
    _lock: File,
    /// Device and inode of the file that is open.
    identity: (u64, u64),
}

/// What is there when a file has been opened.
pub(super) type Loaded = (Database, Stored);

impl Database {
    /// Opens the file, or makes it; one that is damaged is put aside, and [`Stored::trouble`] says so.
    pub(super) fn open(settings: &FileSettings) -> Result<Loaded, Unusable> {
        let path = &settings.path;
        make_folder(path)?;
        let lock = lock(path)?;
        let (connection, stored) = match connect(path).and_then(check_and_load) {
            Ok(opened) => opened,
            Err(Unusable::Refused(refused)) => return Err(refused.into()),
            Err(Unusable::Fault(fault)) if fault.is_corrupt() => {
                let rescued = Opening::bare(path).ok().and_then(|connection| rows::load(&connection).ok());
                replace(path, &fault, rescued)?
            }
            Err(fault) => return Err(fault),
        };
        let identity = identity(path)?;
        Ok((Self { settings: settings.clone(), connection, rows: Rows::default(), _lock: lock, identity }, stored))
    }

    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Makes all of it durable, or nothing.
    pub(super) fn commit(&mut self, batches: &[Batch]) -> Result<(), Fault> {
        let result = self.write(batches.iter().flat_map(|batch| &batch.records));
        if result.is_err() {
            self.rows.forget();
        }
        result
    }

    fn write<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), Fault> {
        let mut records = records.peekable();
        if records.peek().is_none() {
            return Ok(());
        }
        // At drop it is rolled back.
        let transaction = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        for record in records {
            self.rows.write(&transaction, record)?;
        }
        Ok(transaction.commit()?)
    }

    /// Opens the file anew, after a fault of the disk: descriptors may have gone bad with it.
    pub(super) fn reopen(&mut self) -> Result<(), Fault> {
        self.rows.forget();
        let opening = connect(&self.settings.path).map_err(fault_of)?;
        self.connection = opening.finish()?;
        self.identity = identity(&self.settings.path)?;
        Ok(())
    }

    /// Puts the file aside and begins a new one, with what can be read of it. Says in words what was done.
    pub(super) fn replace(&mut self, fault: &Fault) -> Result<Box<str>, Fault> {
        self.rows.forget();
        let rescued = rows::load(&self.connection).ok();
        // Closed before its file is moved: closing it later would remove the new one's log.
        let old = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        drop(old);
        let (connection, stored) = replace(&self.settings.path, fault, rescued).map_err(fault_of)?;
        self.connection = connection;
        self.identity = identity(&self.settings.path)?;
        Ok(stored.trouble.unwrap_or_default())
    }

    /// Whether the file is still where it was: one that somebody removed would take everything that is committed with it.
    pub(super) fn is_there(&self) -> bool {
        identity(&self.settings.path).is_ok_and(|found| found == self.identity)
    }

    /// The sizes of the file and its log.
    pub(super) fn bytes(&self) -> u64 {
        let path = &self.settings.path;
        [path.clone(), beside(path, "-wal")]
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    /// Moves the log into the file if it is long enough for that; `busy` with other things, only if it is very long.
    pub(super) fn checkpoint(&mut self, busy: bool) -> Result<(), Fault> {
        let least = if busy { STORE_WAL_PAGES_MAX } else { STORE_WAL_PAGES };
        let (_, pages, moved) = checkpoint(&self.connection, "NOOP")?;
        if pages.saturating_sub(moved) >= least {
            checkpoint(&self.connection, "PASSIVE")?;
        }
        Ok(())
    }

    /// At the end: nothing is left in the log.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        checkpoint(&self.connection, "TRUNCATE").map(drop)
    }

    /// Removes some of the history that is too old or too much. Answers whether there may be more of it.
    pub(super) fn prune(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let oldest_kept = now.as_micros().saturating_sub(self.settings.max_age.as_micros().cast_signed());
        let too_large = self.used()? > self.settings.max_size;
        let mut heads = Vec::new();
        for table in schema::HISTORIES {
            let sql = format!("SELECT id, at FROM {table} ORDER BY id LIMIT 1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            if let Some(row) = rows.next()? {
                heads.push((row.get::<_, i64>(1)?, row.get::<_, i64>(0)?, table));
            }
        }
        heads.sort_unstable();
        let Some(&(at, first, table)) = heads.first() else { return Ok(false) };
        if at >= oldest_kept && !too_large {
            return Ok(false);
        }
        let until = if too_large { i64::MAX } else { oldest_kept.saturating_sub(1) };
        let sql = format!("DELETE FROM {table} WHERE id < ?1 AND at <= ?2");
        self.connection.prepare_cached(&sql)?.execute(params![first.saturating_add(STORE_PRUNED_AT_ONCE), until])?;
        Ok(true)
    }

    /// Bytes of the file that hold something.
    fn used(&self) -> Result<u64, Fault> {
        let number = |pragma: &str| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        Ok((pages * number("PRAGMA page_size")?).cast_unsigned())
    }
}

/// A connection to a file that is ours, of this version or an older one.
struct Opening {
    connection: Connection,
    version: i64,
}

impl Opening {
    fn bare(path: &Path) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(STORE_BUSY_WAIT.into())?;
        Ok(connection)
    }

    fn finish(mut self) -> Result<Connection, Fault> {
        schema::migrate(&mut self.connection, self.version)?;
        self.connection.set_prepared_statement_cache_capacity(STORE_STATEMENTS);
        Ok(self.connection)
    }
}

fn connect(path: &Path) -> Result<Opening, Unusable> {
    make_file(path)?;
    let connection = Opening::bare(path)?;
    let version = schema::version(&connection, path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::new(FaultKind::ReadOnly, format!("its journal mode stays {mode}")).into());
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {STORE_WAL_BYTES_KEPT}; \
         PRAGMA cache_size = -{cache}; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; \
         PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = OFF;",
        cache = STORE_CACHE_BYTES / 1024,
    ))?;
    Ok(Opening { connection, version })
}

fn check_and_load(opening: Opening) -> Result<(Connection, Stored), Unusable> {
    check(&opening).map_err(damaged)?;
    let connection = opening.finish()?;
    let mut stored = rows::load(&connection).map_err(damaged)?;
    stored.is_new = is_empty(&connection, &stored).map_err(damaged)?;
    let tidy = Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)?;
    rows::tidy_seen_ok(&tidy, &stored.seen_ok)?;
    rows::drop_unused_destinations(&tidy)?;
    tidy.commit()?;
    Ok((connection, stored))
}

/// Whatever is wrong with what is read, it is not what was written, unless the disk says that it is to blame.
fn damaged(fault: Fault) -> Fault {
    if fault.kind == FaultKind::Other { Fault::corrupt(fault.to_string()) } else { fault }
}

/// Looks whether the file is in order: all of it, or where that would take long, the tables that decide something.
fn check(opening: &Opening) -> Result<(), Fault> {
    if opening.version == 0 {
        return Ok(());
    }
    let connection = &opening.connection;
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let size = number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?).cast_unsigned();
    let checks: Vec<String> = if size <= STORE_CHECKED_WHOLE_MAX {
        vec!["PRAGMA quick_check(1)".to_owned()]
    } else {
        schema::DECIDING.iter().map(|table| format!("PRAGMA quick_check('{table}')")).collect()
    };
    for sql in checks {
        let found: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Fault::corrupt(found.lines().last().unwrap_or_default()));
        }
    }
    Ok(())
}

fn is_empty(connection: &Connection, stored: &Stored) -> Result<bool, Fault> {
    let Stored { seen_ok, episodes, bundles, switched, outbox, next_notice, is_new: _, trouble: _ } = stored;
    let none =
        seen_ok.is_empty() && episodes.is_empty() && bundles.is_empty() && switched.is_empty() && outbox.is_empty();
    let mut history = 0;
    for table in schema::HISTORIES {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        history += connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?;
    }
    Ok(none && *next_notice == 0 && history == 0)
}

/// Puts a damaged file aside and begins a new one, with what could be read.
fn replace(path: &Path, fault: &Fault, rescued: Option<Stored>) -> Result<(Connection, Stored), Unusable> {
    let aside = put_aside(path)?;
    let (mut connection, fresh) = check_and_load(connect(path)?)?;
    let (stored, became) = match rescued {
        Some(rescued) => {
            let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
            let mut rows = Rows::default();
            for record in rows::records_of(&rescued) {
                rows.write(&transaction, &record)?;
            }
            // Numbers go on from there, whatever is in the outbox.
            let last = rescued.next_notice.saturating_sub(1).cast_signed();
            transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'", [])?;
            transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)", [last])?;
            transaction.commit()?;
            (rescued, "what could be read of it goes on, its history does not")
        }
        None => (fresh, "nothing of it could be read: open incidents and undelivered notices are forgotten"),
    };
    let (path, aside) = (path.display(), aside.display());
    let trouble = format!("the store {path} was damaged ({fault}) and is now {aside}; {became}");
    Ok((connection, Stored { is_new: false, trouble: Some(trouble.into()), ..stored }))
}

/// The file and its log go together, so that `sqlite3` finds them. Of the files that were put aside before, the last few are
/// kept.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(io::Error::other("it has no name that can be written"));
    };
    let prefix = format!("{name}.corrupt-");
    let folder = folder_of(path);
    let mut before: Vec<String> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    before.sort_unstable();
    let surplus = (before.len() + 1).saturating_sub(STORE_ASIDE_MAX);
    for old in before.iter().take(surplus) {
        for part in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.join(format!("{old}{part}")));
        }
    }
    // 2026-11-23T01:15:00.123456Z, without what file names should not have.
    let time = Clock.wall().to_string().replace([':', '-'], "");
    let aside = folder.join(format!("{prefix}{time}"));
    fs::rename(path, &aside)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    for part in ["-wal", "-shm"] {
        let _ = fs::rename(beside(path, part), beside(&aside, part));
    }
    Ok(aside)
}

/// Only one daemon writes a file. SQLite's own locks are held for the time of a transaction only.
fn lock(path: &Path) -> Result<File, Unusable> {
    let place = beside(path, ".lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(place)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(32).read_to_string(&mut holder);
            let holder = format!("process {}", if holder.is_empty() { "unknown" } else { holder.trim() });
            return Err(OpenError::InUse { path: path.to_owned(), holder }.into());
        }
    }
    // Only so that people can be told; a full disk is no reason not to go on.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// SQLite gives its other files the permissions of this one.
fn make_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // There are secrets in it. Where it is not ours to change, that was somebody's decision.
            let _ = fs::set_permissions(path, Permissions::from_mode(0o600));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn checkpoint(connection: &Connection, how: &str) -> Result<(i64, i64, i64), Fault> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    Ok(connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], row)?)
}

/// Of a file that was fine before.
fn fault_of(unusable: Unusable) -> Fault {
    match unusable {
        Unusable::Fault(fault) => fault,
        Unusable::Refused(refused) => Fault::new(FaultKind::Other, refused.to_string()),
    }
}
