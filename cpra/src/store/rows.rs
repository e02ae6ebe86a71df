//! Records into rows, and rows into what was [`Stored`].

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use rustc_hash::FxBuildHasher;

use super::fault::Fault;
use super::mirror::{self, Rest};
use crate::desk::protocol::{BundleRecord, Delivered, EpisodeRecord, NoticeId, Record, Stored, StoredNotice, Told};
use crate::domain::episode::{DownWhy, State};
use crate::domain::notice::{DeliveryKey, EpisodeId, Incident, Raise};
use crate::domain::{Code, Color, Destination, Notice};
use crate::units::limits::STORE_DESTINATIONS_KNOWN_MAX;
use crate::units::{Span, Timestamp};

/// Which row a destination has, so that a storm does not write its address 100,000 times.
#[derive(Debug, Default)]
pub(super) struct Rows {
    destinations: HashMap<Arc<Destination>, i64, FxBuildHasher>,
}

impl Rows {
    /// What was written may have been taken back.
    pub(super) fn forget(&mut self) {
        self.destinations.clear();
    }

    /// Writes one record, within a transaction of the caller's.
    pub(super) fn write(&mut self, to: &Connection, record: &Record) -> Result<(), Fault> {
        match record {
            Record::SeenOk { monitor, definition } => {
                let sql = "INSERT INTO seen_ok (monitor, definition) VALUES (?1, ?2)";
                to.prepare_cached(sql)?.execute(params![monitor, definition.cast_signed()])?;
            }
            Record::Episode(episode) => self.write_episode(to, episode)?,
            Record::EpisodeClosed { episode, at } => close_episode(to, *episode, *at)?,
            Record::Bundle(bundle) => self.write_bundle(to, bundle)?,
            Record::BundleClosed { bundle, at: _ } => {
                to.prepare_cached("DELETE FROM bundles WHERE id = ?1")?.execute([bundle.to_string()])?;
            }
            Record::NoticeQueued { id, notice } => self.write_notice(to, *id, notice)?,
            Record::NoticeTried { id, at, delivered } => note_attempt(to, *id, *at, delivered)?,
            Record::NoticeDone { id, at: _ } => {
                to.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id.0.cast_signed()])?;
            }
            Record::NoticeDead { id, at: _, why } => {
                let sql = "UPDATE outbox SET dead = ?2 WHERE id = ?1";
                to.prepare_cached(sql)?.execute(params![id.0.cast_signed(), why])?;
            }
            Record::Switched { monitor, enabled } => {
                let sql = "INSERT OR REPLACE INTO switches (monitor, enabled) VALUES (?1, ?2)";
                to.prepare_cached(sql)?.execute(params![monitor, enabled])?;
            }
            Record::SwitchForgotten { monitor } => {
                to.prepare_cached("DELETE FROM switches WHERE monitor = ?1")?.execute([monitor])?;
            }
            Record::Audit(audit) => {
                let sql = "INSERT INTO audit (at, who, what, about) VALUES (?1, ?2, ?3, ?4)";
                to.prepare_cached(sql)?.execute(params![audit.at.as_micros(), audit.who, audit.what, audit.about])?;
            }
        }
        Ok(())
    }

    fn write_episode(&mut self, to: &Connection, episode: &EpisodeRecord) -> Result<(), Fault> {
        let EpisodeRecord { id, monitor, definition, state, opened, cause, yellow, red, reminders, told } = episode;
        let mut rows = Vec::with_capacity(told.len());
        for Told { destination, color, bundle } in told {
            rows.push((self.row_of(to, destination)?, color.as_str(), bundle.map(|bundle| bundle.to_string())));
        }
        let told = serde_json::to_string(&rows).map_err(|error| unwritable(&error))?;
        let sql = "INSERT OR REPLACE INTO episodes \
                   (id, monitor, definition, state, opened, cause, yellow, red, reminders, told) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        to.prepare_cached(sql)?.execute(params![
            id.to_string(),
            monitor,
            definition.cast_signed(),
            state_name(*state),
            opened.as_micros(),
            cause,
            yellow,
            red,
            reminders,
            told
        ])?;
        Ok(())
    }

    fn write_bundle(&mut self, to: &Connection, bundle: &BundleRecord) -> Result<(), Fault> {
        let BundleRecord { id, destination, group, opened, notices } = bundle;
        let destination = self.row_of(to, destination)?;
        let sql =
            "INSERT OR REPLACE INTO bundles (id, destination, of_group, opened, notices) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![id.to_string(), destination, group, opened.as_micros(), notices];
        to.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn write_notice(&mut self, to: &Connection, id: NoticeId, notice: &Notice) -> Result<(), Fault> {
        let DeliveryKey { episode, raise, destination, n } = &notice.key;
        let destination = self.row_of(to, destination)?;
        let rest = serde_json::to_string(&Rest::of(notice)).map_err(|error| unwritable(&error))?;
        let sql = "INSERT OR REPLACE INTO outbox \
                   (id, destination, episode, kind, n, incident, monitor, color, summary, outcome, at, lasted, rest) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        to.prepare_cached(sql)?.execute(params![
            id.0.cast_signed(),
            destination,
            episode.to_string(),
            raise.as_str(),
            n,
            notice.incident.0,
            notice.monitor_name,
            notice.color.as_str(),
            notice.summary,
            notice.outcome.map(Code::as_str),
            notice.at.as_micros(),
            notice.lasted.as_nanos().cast_signed(),
            rest
        ])?;
        Ok(())
    }

    fn row_of(&mut self, to: &Connection, destination: &Arc<Destination>) -> Result<i64, Fault> {
        if let Some(row) = self.destinations.get(destination) {
            return Ok(*row);
        }
        let value = mirror::written(destination).map_err(|error| unwritable(&error))?;
        let known = to
            .prepare_cached("SELECT id FROM destinations WHERE value = ?1")?
            .query_row([&value], |row| row.get(0))
            .optional()?;
        let row = match known {
            Some(row) => row,
            None => {
                let sql = "INSERT INTO destinations (name, provider, value) VALUES (?1, ?2, ?3)";
                to.prepare_cached(sql)?.insert(params![destination.name, destination.provider.as_str(), value])?
            }
        };
        if self.destinations.len() >= STORE_DESTINATIONS_KNOWN_MAX {
            self.destinations.clear();
        }
        self.destinations.insert(Arc::clone(destination), row);
        Ok(row)
    }
}

fn close_episode(to: &Connection, episode: EpisodeId, at: Timestamp) -> Result<(), Fault> {
    let episode = episode.to_string();
    let sql = "INSERT INTO closed_episodes (at, episode, monitor, opened, cause, yellow, red, reminders) \
               SELECT ?2, id, monitor, opened, cause, yellow, red, reminders FROM episodes WHERE id = ?1";
    to.prepare_cached(sql)?.execute(params![episode, at.as_micros()])?;
    to.prepare_cached("DELETE FROM episodes WHERE id = ?1")?.execute([episode])?;
    Ok(())
}

fn note_attempt(to: &Connection, id: NoticeId, at: Timestamp, delivered: &Delivered) -> Result<(), Fault> {
    let id = id.0.cast_signed();
    to.prepare_cached("UPDATE outbox SET attempts = attempts + 1 WHERE id = ?1")?.execute([id])?;
    let sql = "INSERT INTO deliveries (at, notice, attempt, episode, incident, monitor, destination, provider, color, kind, \
               n, summary, result, said) \
               SELECT ?2, outbox.id, attempts, episode, incident, monitor, name, provider, color, kind, n, summary, ?3, ?4 \
               FROM outbox JOIN destinations ON destinations.id = destination WHERE outbox.id = ?1";
    to.prepare_cached(sql)?.execute(params![id, at.as_micros(), delivered.result.as_str(), delivered.said])?;
    Ok(())
}

fn unwritable(error: &serde_json::Error) -> Fault {
    Fault::new(super::FaultKind::Other, error.to_string())
}

/// Reads what decides what the daemon does next.
pub(super) fn load(from: &Connection) -> Result<Stored, Fault> {
    let mut destinations: HashMap<i64, Arc<Destination>, FxBuildHasher> = HashMap::default();
    each(from, "SELECT id, value FROM destinations", |row| {
        let value = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        destinations.insert(row.get(0)?, Arc::new(mirror::read(value).map_err(Fault::corrupt)?));
        Ok(())
    })?;
    let destination =
        |id: i64| destinations.get(&id).cloned().ok_or_else(|| Fault::corrupt("a destination is missing"));
    let mut stored = Stored { seen_ok: seen_ok(from)?, ..Stored::default() };
    each(from, "SELECT monitor, enabled FROM switches ORDER BY monitor", |row| {
        stored.switched.push((row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    let sql =
        "SELECT id, monitor, definition, state, opened, cause, yellow, red, reminders, told FROM episodes ORDER BY id";
    each(from, sql, |row| {
        let told: Vec<(i64, Box<str>, Option<Box<str>>)> =
            serde_json::from_str(row.get_ref(9)?.as_str().map_err(rusqlite::Error::from)?)
                .map_err(|error| Fault::corrupt(error.to_string()))?;
        let told = told.into_iter().map(|(id, color, bundle)| {
            let bundle = bundle.map(|bundle| episode_id(&bundle)).transpose()?;
            Ok(Told { destination: destination(id)?, color: color_of(&color)?, bundle })
        });
        stored.episodes.push(EpisodeRecord {
            id: episode_id(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?,
            monitor: row.get(1)?,
            definition: row.get::<_, i64>(2)?.cast_unsigned(),
            state: state_of(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
            opened: Timestamp::from_micros(row.get(4)?),
            cause: row.get(5)?,
            yellow: row.get(6)?,
            red: row.get(7)?,
            reminders: row.get(8)?,
            told: told.collect::<Result<_, Fault>>()?,
        });
        Ok(())
    })?;
    each(from, "SELECT id, destination, of_group, opened, notices FROM bundles ORDER BY id", |row| {
        stored.bundles.push(BundleRecord {
            id: episode_id(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?,
            destination: destination(row.get(1)?)?,
            group: row.get(2)?,
            opened: Timestamp::from_micros(row.get(3)?),
            notices: row.get(4)?,
        });
        Ok(())
    })?;
    let sql = "SELECT id, destination, episode, kind, n, incident, monitor, color, summary, outcome, at, lasted, rest, \
               attempts, dead FROM outbox ORDER BY id";
    each(from, sql, |row| {
        stored.outbox.push(notice_of(row, &destination)?);
        Ok(())
    })?;
    // It remembers the greatest number that ever was in the outbox.
    let last = from
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'", [], |row| row.get::<_, i64>(0))
        .optional()?;
    stored.next_notice = last.map_or(0, |last| last.cast_unsigned().saturating_add(1));
    Ok(stored)
}

fn notice_of(
    row: &Row<'_>,
    destination: &impl Fn(i64) -> Result<Arc<Destination>, Fault>,
) -> Result<StoredNotice, Fault> {
    let text = |column: usize| row.get::<_, Box<str>>(column);
    let rest: Rest = serde_json::from_str(&text(12)?).map_err(|error| Fault::corrupt(error.to_string()))?;
    let (groups, about, test) = rest.restored();
    let outcome = row.get::<_, Option<Box<str>>>(9)?;
    let outcome = outcome.map(|name| code_of(&name)).transpose()?;
    let notice = Notice {
        key: DeliveryKey {
            episode: episode_id(&text(2)?)?,
            raise: raise_of(&text(3)?)?,
            destination: destination(row.get(1)?)?,
            n: row.get(4)?,
        },
        incident: Incident(text(5)?),
        monitor: None,
        monitor_name: text(6)?,
        color: color_of(&text(7)?)?,
        summary: text(8)?,
        outcome,
        at: Timestamp::from_micros(row.get(10)?),
        lasted: Span::from_nanos(row.get::<_, i64>(11)?.cast_unsigned()),
        groups,
        about,
        test,
    };
    let id = NoticeId(row.get::<_, i64>(0)?.cast_unsigned());
    Ok(StoredNotice { id, notice: Box::new(notice), attempts: row.get(13)?, dead: row.get(14)? })
}

/// The last word about each monitor.
fn seen_ok(from: &Connection) -> Result<Vec<(Box<str>, u64)>, Fault> {
    let mut seen: HashMap<Box<str>, u64, FxBuildHasher> = HashMap::default();
    each(from, "SELECT monitor, definition FROM seen_ok ORDER BY rowid", |row| {
        seen.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
        Ok(())
    })?;
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_unstable();
    Ok(seen)
}

/// Writes what was read as rows of their own, where most rows have been overtaken by later ones.
pub(super) fn tidy_seen_ok(to: &Connection, seen: &[(Box<str>, u64)]) -> Result<(), Fault> {
    let rows: i64 = to.query_row("SELECT count(*) FROM seen_ok", [], |row| row.get(0))?;
    if usize::try_from(rows).unwrap_or(0) <= 2 * seen.len() + 1_024 {
        return Ok(());
    }
    to.execute_batch("DELETE FROM seen_ok")?;
    let mut insert = to.prepare("INSERT INTO seen_ok (monitor, definition) VALUES (?1, ?2)")?;
    for (monitor, definition) in seen {
        insert.execute(params![monitor, definition.cast_signed()])?;
    }
    Ok(())
}

/// Drops the destinations that nothing names any more: there are secrets in them.
pub(super) fn drop_unused_destinations(to: &Connection) -> Result<(), Fault> {
    to.execute_batch(
        "DELETE FROM destinations WHERE id NOT IN (SELECT destination FROM outbox UNION ALL SELECT destination FROM bundles \
         UNION ALL SELECT told.value ->> 0 FROM episodes, json_each(episodes.told) AS told)",
    )?;
    Ok(())
}

/// What it takes to write it all again, into another file.
pub(super) fn records_of(stored: &Stored) -> impl Iterator<Item = Record> + '_ {
    let seen = stored.seen_ok.iter();
    let seen = seen.map(|(monitor, definition)| Record::SeenOk { monitor: monitor.clone(), definition: *definition });
    let switched = stored.switched.iter();
    let switched = switched.map(|(monitor, enabled)| Record::Switched { monitor: monitor.clone(), enabled: *enabled });
    let episodes = stored.episodes.iter().map(|episode| Record::Episode(Box::new(episode.clone())));
    let bundles = stored.bundles.iter().map(|bundle| Record::Bundle(Box::new(bundle.clone())));
    let outbox = stored.outbox.iter().flat_map(|StoredNotice { id, notice, attempts: _, dead }| {
        let dead = dead.clone().map(|why| Record::NoticeDead { id: *id, at: Timestamp::default(), why });
        [Record::NoticeQueued { id: *id, notice: notice.clone() }].into_iter().chain(dead)
    });
    seen.chain(switched).chain(episodes).chain(bundles).chain(outbox)
}

fn each(from: &Connection, sql: &str, mut take: impl FnMut(&Row<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut statement = from.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

const fn state_name(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Up => "up",
        State::Degraded => "degraded",
        State::Suspect => "suspect",
        State::Waiting => "waiting",
        State::Running => "running",
        State::Verifying => "verifying",
        State::Down(DownWhy::Exhausted) => "down",
        State::Down(DownWhy::Blocked) => "blocked",
        State::Unreachable => "unreachable",
        State::Disabled => "disabled",
        State::Unproven => "unproven",
    }
}

fn state_of(name: &str) -> Result<State, Fault> {
    const ALL: [State; 12] = [
        State::Unknown,
        State::Up,
        State::Degraded,
        State::Suspect,
        State::Waiting,
        State::Running,
        State::Verifying,
        State::Down(DownWhy::Exhausted),
        State::Down(DownWhy::Blocked),
        State::Unreachable,
        State::Disabled,
        State::Unproven,
    ];
    ALL.into_iter().find(|state| state_name(*state) == name).ok_or_else(|| unknown("state", name))
}

fn color_of(name: &str) -> Result<Color, Fault> {
    mirror::named_color(name).map_err(Fault::corrupt)
}

fn raise_of(name: &str) -> Result<Raise, Fault> {
    Raise::ALL.into_iter().find(|raise| raise.as_str() == name).ok_or_else(|| unknown("raise", name))
}

fn code_of(name: &str) -> Result<Code, Fault> {
    Code::ALL.into_iter().find(|code| code.as_str() == name).ok_or_else(|| unknown("outcome", name))
}

fn episode_id(text: &str) -> Result<EpisodeId, Fault> {
    match ulid::Ulid::from_string(text) {
        Ok(ulid) => Ok(EpisodeId(ulid.0)),
        Err(error) => Err(Fault::corrupt(format!("{text:?} is no ULID: {error}"))),
    }
}

fn unknown(what: &str, name: &str) -> Fault {
    Fault::corrupt(format!("no {what} is called {name:?}"))
}
