//! What people read of the past: deliveries, closed episodes, who changed what. Straight from the file, on a connection of
//! its own that cannot write, so that no question waits for a commit, and no commit for a question.
//!
//! A question opens the file and closes it again, some tenths of a millisecond: what is open would keep the log from being
//! used again, and a file that was put aside from being let go. Answers are bounded; so is what a question looks at, by the
//! indices of the tables.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags, Row, ToSql, params};

use super::fault::Fault;
use crate::desk::protocol::Audit;
use crate::units::Timestamp;
use crate::units::limits::{STORE_ANSWER_MAX, STORE_BUSY_WAIT};

/// The past, for those who ask.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
}

/// An attempt to deliver a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// They count up in the order of the attempts.
    pub number: i64,
    pub at: Timestamp,
    pub notice: u64,
    /// The first one is 1.
    pub attempt: u32,
    pub incident: Box<str>,
    pub monitor: Box<str>,
    pub destination: Box<str>,
    pub provider: Box<str>,
    pub color: Box<str>,
    /// Which message of the incident: `red`, `resolve`.
    pub raise: Box<str>,
    pub reminder: u32,
    pub summary: Box<str>,
    /// As [`crate::desk::protocol::DeliveryResult`] is spelt.
    pub result: Box<str>,
    pub said: Box<str>,
}

/// An episode that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedEpisode {
    /// They count up in the order in which they were closed.
    pub number: i64,
    /// A ULID: the end of the incident's key.
    pub episode: Box<str>,
    /// `None`: about the daemon itself.
    pub monitor: Option<Box<str>>,
    pub opened: Timestamp,
    pub closed: Timestamp,
    pub cause: Box<str>,
    pub yellow: bool,
    pub red: bool,
    pub reminders: u32,
}

/// Which deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deliveries {
    All,
    /// `instance/monitor/ULID`.
    OfIncident(Box<str>),
    OfMonitor(Box<str>),
}

impl Reader {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Newest first, at most so many; `before` goes on where an earlier answer ended ([`DeliveryRow::number`]).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn deliveries(&self, which: &Deliveries, before: Option<i64>, most: usize) -> Result<Vec<DeliveryRow>, Fault> {
        const COLUMNS: &str = "SELECT id, at, notice, attempt, incident, monitor, destination, provider, color, kind, n, \
                               summary, result, said FROM deliveries";
        let row = |row: &Row<'_>| {
            Ok(DeliveryRow {
                number: row.get(0)?,
                at: Timestamp::from_micros(row.get(1)?),
                notice: row.get::<_, i64>(2)?.cast_unsigned(),
                attempt: row.get(3)?,
                incident: row.get(4)?,
                monitor: row.get(5)?,
                destination: row.get(6)?,
                provider: row.get(7)?,
                color: row.get(8)?,
                raise: row.get(9)?,
                reminder: row.get(10)?,
                summary: row.get(11)?,
                result: row.get(12)?,
                said: row.get(13)?,
            })
        };
        let (before, most) = (before.unwrap_or(i64::MAX), bounded(most));
        let tail = "id < ?1 ORDER BY id DESC LIMIT ?2";
        match which {
            Deliveries::All => self.rows(&format!("{COLUMNS} WHERE {tail}"), params![before, most], row),
            Deliveries::OfMonitor(monitor) => {
                self.rows(&format!("{COLUMNS} WHERE monitor = ?3 AND {tail}"), params![before, most, monitor], row)
            }
            Deliveries::OfIncident(incident) => {
                let episode = incident.rsplit('/').next().unwrap_or_default();
                let sql = format!("{COLUMNS} WHERE episode = ?3 AND incident = ?4 AND {tail}");
                self.rows(&sql, params![before, most, episode, incident], row)
            }
        }
    }

    /// Those of a monitor, or of all; newest first, at most so many, `before` as above.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn closed_episodes(
        &self,
        monitor: Option<&str>,
        before: Option<i64>,
        most: usize,
    ) -> Result<Vec<ClosedEpisode>, Fault> {
        const COLUMNS: &str =
            "SELECT id, episode, monitor, opened, at, cause, yellow, red, reminders FROM closed_episodes";
        let row = |row: &Row<'_>| {
            Ok(ClosedEpisode {
                number: row.get(0)?,
                episode: row.get(1)?,
                monitor: row.get(2)?,
                opened: Timestamp::from_micros(row.get(3)?),
                closed: Timestamp::from_micros(row.get(4)?),
                cause: row.get(5)?,
                yellow: row.get(6)?,
                red: row.get(7)?,
                reminders: row.get(8)?,
            })
        };
        let (before, most) = (before.unwrap_or(i64::MAX), bounded(most));
        let tail = "id < ?1 ORDER BY id DESC LIMIT ?2";
        match monitor {
            None => self.rows(&format!("{COLUMNS} WHERE {tail}"), params![before, most], row),
            Some(monitor) => {
                self.rows(&format!("{COLUMNS} WHERE monitor = ?3 AND {tail}"), params![before, most, monitor], row)
            }
        }
    }

    /// Who did what; newest first, at most so many.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn audit(&self, most: usize) -> Result<Vec<Audit>, Fault> {
        let row = |row: &Row<'_>| {
            let at = Timestamp::from_micros(row.get(0)?);
            Ok(Audit { at, who: row.get(1)?, what: row.get(2)?, about: row.get(3)? })
        };
        self.rows("SELECT at, who, what, about FROM audit ORDER BY id DESC LIMIT ?1", params![bounded(most)], row)
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(STORE_BUSY_WAIT.into())?;
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map(values, row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn bounded(most: usize) -> i64 {
    most.min(STORE_ANSWER_MAX) as i64
}
