//! Makes one pool again of file and redo log.
//!
//! In: a file, the log beside it, and how far it was acknowledged. Out: for a start, one file with everything and an
//! empty log; for a look, both as of one moment. Invariant: what a log says is taken over once, in one transaction, and
//! only by the file that it belongs to; a pool that lacks what was acknowledged is never opened in silence, and never
//! gives out an offset twice. Not here: the bytes of the log (`redo`), repairs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction as SqlTransaction, TransactionBehavior, params};

use super::books::{Books, INPUTS};
use super::changes::Changes;
use super::checkpoint::{self, Keep};
use super::config::JournalConfig;
use super::error::{JournalError, invalid};
use super::high_water::{self, HighWater};
use super::ledger::{Counter, Edge, what};
use super::merge::Merger;
use super::pending::Pending;
use super::redo::{self, Age, Misfit, RedoLog};
use super::renewal;
use super::schema::{self, beside, redo_path};
use super::segment::{Opener, Sealer};
use super::state;
use super::trim::Retention;
use crate::kill_point::{self, KillPoint};
use crate::time::Timestamp;

/// Where the last alarm is kept in `meta`, as text.
const ALARM: &str = "alarm";

/// Where a backup has in `meta` when it was made, as text.
pub(super) const MADE_AT: &str = "backup_made_at";

/// Where a pool has in `meta` when it was salvaged, as text, until a job runs on it.
pub(super) const SALVAGED_AT: &str = "salvaged_at";

/// A pool that may be written to.
pub(super) struct Opened {
    pub db: Connection,
    pub books: Books,
    pub redo: RedoLog,
    pub high_water: HighWater,
    /// The pool lacks something that it once had.
    pub alarm: Option<String>,
}

/// Takes over what an earlier process left in the redo log; the file has everything then.
pub(super) fn open(config: &JournalConfig, db: Connection) -> Result<Opened, JournalError> {
    let path = &config.path;
    let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
    let incarnation = schema::incarnation(&db, path)?;
    let stored = Books::load(&db).map_err(unusable)?;
    let mut books = stored.clone();
    let found = read_log(path, &db, &mut books, true)?;
    let acknowledged = high_water::read(path, incarnation);
    // a pool of before had neither, and a new one has given nothing out
    let is_sure = found.age.is_none() || acknowledged == Some(books.inputs_end());
    let lost = lost(&books, acknowledged);
    let alarm = wording(found.misfit, lost);
    let log = redo_path(path);
    let io = |e: std::io::Error| JournalError::unusable(path, format!("{}: {e}", log.display()));
    if let Some(alarm) = &alarm {
        tracing::error!("{alarm}");
    }
    if matches!(found.misfit, Some(Misfit::Foreign | Misfit::Newer)) {
        // whoever mixed up the files may want it back
        fs::rename(&log, beside(path, "-redo-set-aside")).map_err(io)?;
    }
    let age = Age::closed();
    let take_over = || -> rusqlite::Result<()> {
        let sql = SqlTransaction::new_unchecked(&db, TransactionBehavior::Immediate)?;
        store(&sql, &mut books, found.changes, config.retention)?;
        sql.execute("DELETE FROM meta WHERE key = ?1", [SALVAGED_AT])?;
        if let Some(alarm) = &alarm {
            leave_gap(&sql, &mut books, lost.unwrap_or(0))?;
            keep_alarm(&sql, config, alarm)?;
        }
        if !is_sure || alarm.is_some() {
            // more may have been given out than anybody can tell
            renewal::renew(&sql, books.inputs_end())?;
        }
        books.save(&sql, &stored)?;
        age.save(&sql)?;
        sql.pragma_update(None, "user_version", schema::SCHEMA_VERSION)?;
        sql.commit()
    };
    take_over().map_err(unusable)?;
    kill_point::reached(KillPoint::TakenOver);
    // the log is there before the file says that it counts
    let redo = RedoLog::create(&log, age.next(), config.redo_bytes_max()).map_err(io)?;
    let high_water = HighWater::create(path, incarnation, books.inputs_end()).map_err(io)?;
    redo::sync_folder_of(path).map_err(io)?;
    redo.age().save(&db).map_err(unusable)?;
    Ok(Opened { db, books, redo, high_water, alarm })
}

/// Writes what a log held. `age`: how long records stay that everybody has read.
fn store(sql: &Connection, books: &mut Books, changes: Changes, age: Option<Duration>) -> rusqlite::Result<()> {
    let (mut opener, mut sealer) = (Opener::default(), Sealer::new());
    let mut pending = Pending::default();
    pending.extend(changes.sealed);
    // nobody knows yet who has read what
    let keep = Keep {
        retention: Retention { keep_from: None, now: Timestamp::MAX, age },
        recent: 0,
        untrimmed: &BTreeSet::new(),
    };
    for stream in pending.streams() {
        let segments = pending.of(stream).cloned().collect();
        let mut merger = Merger { opener: &mut opener, sealer: &mut sealer };
        checkpoint::store_segments(sql, books, segments, keep, &mut merger)?;
    }
    // a consumer that the file does not have was never part of a job that ran; its number is given to another one
    let states = changes.state.into_iter().filter(|(id, _)| books.consumers.contains_key(id));
    state::store(sql, &states.map(|(id, change)| ((id, change.op, change.key), change.value)).collect())
}

/// Offsets that were given out are not given out again, since rows are recognised by them: what is lost is a gap that
/// consumers pass and count.
pub(super) fn leave_gap(sql: &Connection, books: &mut Books, lost: u64) -> rusqlite::Result<()> {
    let Some(inputs) = books.streams.get_mut(&INPUTS).filter(|_| lost > 0) else { return Ok(()) };
    let (first, past) = (inputs.next, inputs.next.saturating_add_unsigned(lost));
    let at = inputs.last_arrival.ticks();
    inputs.next = past;
    sql.execute(
        "INSERT OR REPLACE INTO quarantine (stream, first, past, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![INPUTS, first, past, "lost: the pool had gone back", at],
    )?;
    books.quarantined += 1;
    books.ledger.add(Counter::new(Edge::Input, "", what::LOST), lost);
    Ok(())
}

/// How many acknowledged events the pool lacks; `None` when nobody can tell.
pub(super) fn lost(books: &Books, acknowledged: Option<i64>) -> Option<u64> {
    acknowledged.map(|end| u64::try_from(end.saturating_sub(books.inputs_end())).unwrap_or(0))
}

fn wording(misfit: Option<Misfit>, lost: Option<u64>) -> Option<String> {
    let why = match (misfit, lost) {
        (None, None | Some(0)) => return None,
        (Some(misfit), _) => misfit.to_string(),
        (None, Some(_)) => "the pool has gone back to an earlier state".to_owned(),
    };
    let what = match lost {
        None => {
            "what was committed since the last checkpoint is lost, and nobody can tell how much that was".to_owned()
        }
        Some(0) => "no event is lost; rows may be delivered again".to_owned(),
        Some(1) => "1 acknowledged event is lost".to_owned(),
        Some(n) => format!("{n} acknowledged events are lost"),
    };
    Some(format!("{why}: {what}"))
}

/// What the redo log of a file holds.
struct FoundLog {
    /// What the file says of it; `None`: it never had one.
    age: Option<Age>,
    changes: Changes,
    misfit: Option<Misfit>,
}

/// The books become what they were at the last record. `with_changes`: what else changed is given too.
fn read_log(path: &Path, db: &Connection, books: &mut Books, with_changes: bool) -> Result<FoundLog, JournalError> {
    let log = redo_path(path);
    let mut all = Changes::default();
    let Some(age) = Age::read(db).map_err(JournalError::read)? else {
        return Ok(FoundLog { age: None, changes: all, misfit: None });
    };
    let found = redo::read(&log, age).map_err(|e| JournalError::unusable(&log, e))?;
    for body in found.bodies {
        let changes = Changes::decode(&body, books).map_err(|e| {
            let reason = format!("a record is of another version of this program, or damaged ({e})");
            JournalError::Unusable { path: log.display().to_string(), reason }
        })?;
        if with_changes {
            all.sealed.extend(changes.sealed);
            all.state.extend(changes.state);
        }
    }
    Ok(FoundLog { age: Some(age), changes: all, misfit: found.misfit })
}

/// What the redo log of a pool held at one moment, apart from its file.
pub(super) struct LogOf {
    /// Of the file then; `None`: it never had a log.
    pub age: Option<Age>,
    bodies: Vec<Vec<u8>>,
}

/// Reads the log of a pool that lacks nothing.
pub(super) fn log_of(path: &Path) -> Result<LogOf, JournalError> {
    let db = schema::open_reader(path)?;
    let look = look(&db, path, false)?;
    if let Some(reason) = look.alarm {
        return Err(JournalError::NotCopied { path: path.display().to_string(), reason });
    }
    let log = redo_path(path);
    let age = Age::read(&db).map_err(JournalError::read)?;
    let bodies = match age {
        Some(age) => redo::read(&log, age).map_err(|e| JournalError::unusable(&log, e))?.bodies,
        None => Vec::new(),
    };
    Ok(LogOf { age, bodies })
}

impl LogOf {
    /// Writes what it holds to a file of its age; the books become what they were at the last record.
    pub fn take_over(&self, sql: &Connection, books: &mut Books, retention: Option<Duration>) -> rusqlite::Result<()> {
        let mut all = Changes::default();
        for body in &self.bodies {
            let changes = Changes::decode(body, books).map_err(|e| invalid(e.to_string()))?;
            all.sealed.extend(changes.sealed);
            all.state.extend(changes.state);
        }
        store(sql, books, all, retention)
    }
}

/// From the commit on the file is whole without a redo log.
pub(super) fn close_pool(sql: &Connection) -> rusqlite::Result<()> {
    Age::closed().save(sql)?;
    sql.pragma_update(None, "user_version", schema::SCHEMA_VERSION)
}

/// Keeps an alarm for whoever looks, and logs it.
pub(super) fn tell(opened: &mut Opened, config: &JournalConfig, alarm: String) -> rusqlite::Result<()> {
    tracing::error!("{alarm}");
    keep_alarm(&opened.db, config, &alarm)?;
    opened.alarm = Some(alarm);
    Ok(())
}

/// Keeps an alarm for whoever looks.
pub(super) fn keep_alarm(db: &Connection, config: &JournalConfig, alarm: &str) -> rusqlite::Result<()> {
    let text = format!("{}: {alarm}", config.clock.now());
    db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![ALARM, text.into_bytes()]).map(drop)
}

/// A pool as it is at one moment.
pub(super) struct Look<'a> {
    /// Holds the file as it was; it is never committed and wrote nothing.
    _snapshot: SqlTransaction<'a>,
    /// Of file and redo log together.
    pub books: Books,
    /// What the redo log has beside them, where that was asked for.
    pub changes: Changes,
    /// What is wrong with the pool now.
    pub alarm: Option<String>,
}

/// How often a look is repeated that a checkpoint overtook.
const LOOKS_MAX: usize = 5;

/// File and redo log as they are at one moment, for whoever only looks, in this process or another. `with_changes`: not
/// the books alone, which need less memory.
pub(super) fn look<'a>(db: &'a Connection, path: &Path, with_changes: bool) -> Result<Look<'a>, JournalError> {
    let incarnation = schema::incarnation(db, path)?;
    let mut looks = 0;
    loop {
        looks += 1;
        // before all else: what is acknowledged meanwhile is not missing
        let acknowledged = high_water::read(path, incarnation);
        let snapshot = db.unchecked_transaction().map_err(JournalError::read)?;
        let mut books = Books::load(db).map_err(JournalError::read)?;
        let FoundLog { changes, misfit, .. } = read_log(path, db, &mut books, with_changes)?;
        let alarm = wording(misfit, lost(&books, acknowledged));
        if alarm.is_none() || looks >= LOOKS_MAX {
            return Ok(Look { _snapshot: snapshot, books, changes, alarm });
        }
    }
}

/// What a start found missing last, with the time.
pub(super) fn last_alarm(db: &Connection) -> rusqlite::Result<Option<String>> {
    let found: Option<Vec<u8>> =
        db.query_row("SELECT value FROM meta WHERE key = ?1", [ALARM], |row| row.get(0)).optional()?;
    Ok(found.map(|text| String::from_utf8_lossy(&text).into_owned()))
}
