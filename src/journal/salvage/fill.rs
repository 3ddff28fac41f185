//! The new pool: rows that can be read, and what follows from those that cannot.
//!
//! In: pages of a damaged pool, and a new one without content. Out: tables, marks and counters of the new one, and what
//! is missing. Invariant: positions, ends and counters are of one moment, and no offset that was given out is given out
//! again. Not here: how rows are found (`tables`).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::aside;
use super::balance::balance;
use super::found::{LostRange, Salvaged};
use super::pages::Pages;
use super::shapes::{self, RowShape};
use super::tables::{DamagedTables, put};

use crate::journal::books::{Books, INPUTS};
use crate::journal::books_sum;
use crate::journal::changes::Changes;
use crate::journal::config::JournalConfig;
use crate::journal::consumer;
use crate::journal::high_water;
use crate::journal::ledger::{Edge, what};
use crate::journal::quarantine::gaps;
use crate::journal::ranges::SEEN;
use crate::journal::recovery::{self, MADE_AT};
use crate::journal::redo::{self, Age};
use crate::journal::schema::redo_path;
use crate::journal::state;
use crate::time::Timestamp;

/// A new pool in the making.
struct NewPool<'a> {
    config: &'a JournalConfig,
    db: &'a Connection,
    notes: Vec<String>,
    /// Of the redo log, as the damaged file has it.
    age: Option<Age>,
    /// Of streams, inputs and consumers, as the damaged file has it.
    sum: Option<Vec<u8>>,
    /// Consumers whose state begins anew.
    without_state: BTreeSet<u32>,
    /// Streams of which only the name is known.
    only_named: BTreeSet<u32>,
}

/// Fills it.
pub(super) fn fill(config: &JournalConfig, pages: &Pages, db: &Connection) -> rusqlite::Result<Salvaged> {
    let mut tables = DamagedTables::of(pages, db)?;
    let (notes, without_state, only_named) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut pool = NewPool { config, db, notes, age: None, sum: None, without_state, only_named };
    if pages.first().is_none() {
        pool.notes
            .push("the first page of the file cannot be read: tables were looked for where a pool has them".into());
    }
    pool.take_meta(&mut tables)?;
    pool.take_names(&mut tables)?;
    pool.take_consumers(&mut tables)?;
    pool.compare_sum()?;
    pool.take_rest(&mut tables)?;
    tables.copy_segments(db)?;
    let stored = Books::load(db)?;
    let mut books = stored.clone();
    pool.take_log(&mut books)?;
    pool.name_the_nameless(&mut books)?;
    pool.set_ends(&mut books)?;
    books.quarantined = aside::cut(db)?;
    let lost = pool.leave_gaps(&mut books)?;
    let several = balance(&mut books);
    if several > 0 {
        let sums = if several == 1 { "1 equation".to_owned() } else { format!("{several} equations") };
        pool.notes.push(format!("{sums} of the ledger did not hold, so differences are counted as `salvage`"));
    }
    books.save(db, &stored)?;
    let (segments, records) = counts(db)?;
    let salvaged = Salvaged { segments, records, dead_letters: books.dead_letters.letters, lost, notes: pool.notes };
    let missing = salvaged.lost_records();
    recovery::keep_alarm(
        db,
        config,
        &format!("this pool was salvaged from a damaged one: {missing} records are lost"),
    )?;
    recovery::close_pool(db)?;
    Ok(salvaged)
}

/// Segments and records of all streams.
fn counts(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT count(*), coalesce(sum(count), 0) FROM segment";
    db.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs())))
}

impl NewPool<'_> {
    fn take_meta(&mut self, tables: &mut DamagedTables<'_>) -> rusqlite::Result<()> {
        let (mut found, mut age, mut holes) = (BTreeSet::new(), None, 0);
        let mut insert = self.db.prepare(&shapes::META.insert())?;
        tables.each(&shapes::META, shapes::META.name, &mut |row| {
            match row.as_ref().map(|(_, values)| values.as_slice()) {
                Some([Value::Text(key), Value::Blob(value)]) if key == redo::META => age = Age::from_bytes(value),
                Some([Value::Text(key), Value::Blob(value)]) if key == books_sum::SUM => self.sum = Some(value.clone()),
                Some([Value::Text(key), Value::Blob(value)]) if key != MADE_AT && may_be(key, value) => {
                    insert.execute(params![key, value])?;
                    found.insert(key.clone());
                }
                Some([Value::Text(key), _]) if key == MADE_AT => {}
                _ => holes += 1,
            }
            Ok(())
        })?;
        self.age = age;
        if holes == 0 {
            return Ok(());
        }
        let mut note = "notes of the pool cannot be read".to_owned();
        if !found.contains("incarnation") {
            match high_water::read_any(&self.config.path) {
                Some((incarnation, _)) => drop(insert.execute(params!["incarnation", incarnation])?),
                None => note.push_str("; ids of rows are all new, so receivers do not recognise repeats"),
            }
        }
        if !found.contains("client_id_suffix") {
            note.push_str("; brokers know the job by new client ids, so what they kept for it stays with them");
        }
        self.notes.push(note);
        Ok(())
    }

    /// Takes over inputs and streams; a name that the table has no more is in its index.
    fn take_names(&mut self, tables: &mut DamagedTables<'_>) -> rusqlite::Result<()> {
        if tables.copy(&shapes::INPUT, self.db)? > 0 {
            for (number, name) in tables.names("sqlite_autoindex_input_1")? {
                self.db.execute("INSERT OR IGNORE INTO input VALUES (?1, ?2)", params![number, name])?;
            }
        }
        self.db.execute("DELETE FROM stream", [])?;
        if tables.copy(&shapes::STREAM, self.db)? > 0 {
            let mut names = tables.names("sqlite_autoindex_stream_1")?;
            names.entry(i64::from(INPUTS)).or_insert_with(|| "inputs".to_owned());
            for (number, name) in names {
                let sql = "INSERT OR IGNORE INTO stream VALUES (?1, ?2, 0, 0, 0)";
                if self.db.execute(sql, params![number, name])? > 0 {
                    self.only_named.extend(u32::try_from(number));
                }
            }
            self.notes.push("where streams begin and end cannot be read: that is taken from what they hold".into());
        }
        Ok(())
    }

    fn take_consumers(&mut self, tables: &mut DamagedTables<'_>) -> rusqlite::Result<()> {
        if tables.copy(&shapes::CONSUMER, self.db)? > 0 {
            let named = tables.names("sqlite_autoindex_consumer_1")?;
            let known = self.consumers()?;
            let lost: Vec<String> = named.into_values().filter(|name| !known.values().any(|of| of == name)).collect();
            let who = if lost.is_empty() { "of some consumers".to_owned() } else { format!("of {}", lost.join(", ")) };
            self.notes.push(format!(
                "the positions {who} cannot be read: they begin anew with the oldest record of the pool, and rows may \
                 be delivered again"
            ));
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?1, x'01')", [consumer::LOST])?;
        }
        let known = self.consumers()?;
        self.without_state = tables.copy_state(self.db, &known.keys().copied().collect())?;
        for name in self.without_state.iter().filter_map(|id| known.get(id)) {
            self.notes.push(format!(
                "the state of {name} cannot be read whole and begins anew: windows that were open, joins, LAG, what \
                 functions remember"
            ));
        }
        Ok(())
    }

    fn consumers(&self) -> rusqlite::Result<BTreeMap<u32, String>> {
        let mut find = self.db.prepare("SELECT id, name FROM consumer")?;
        let found = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        found.collect()
    }

    /// What can be read and is not what was written is in one of these tables, and nobody knows in which row.
    fn compare_sum(&mut self) -> rusqlite::Result<()> {
        if self.sum.is_some() && self.sum != Some(books_sum::of(self.db)?) {
            self.notes.push(
                "where streams end and consumers stand is not what was written last: records may be passed over, or \
                 delivered again"
                    .into(),
            );
        }
        Ok(())
    }

    /// Takes over the tables of which a part is as good as any.
    fn take_rest(&mut self, tables: &mut DamagedTables<'_>) -> rusqlite::Result<()> {
        let mut tell = |of: &str, places: u64| {
            if places > 0 {
                let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
                self.notes.push(format!("{of} cannot be read in {places}"));
            }
        };
        let aside = tables.copy_quarantine(self.db)?;
        tell("the table of what was set aside before", aside);
        if aside > 0 {
            // numbers of ranges may be given out again
            self.db.execute("DELETE FROM meta WHERE key = ?1", [SEEN])?;
        }
        let rest: [(&RowShape, &str); 5] = [
            (&shapes::LEDGER, "the ledger"),
            (&shapes::DEAD_LETTER, "the table of dead letters"),
            (&shapes::REFERENCE, "reference data"),
            (&shapes::REFERENCE_ERROR, "errors of reference data"),
            (&shapes::ASIDE, "the table of records that statements leave out"),
        ];
        for (shape, of) in rest {
            tell(of, tables.copy(shape, self.db)?);
        }
        Ok(())
    }

    /// Takes over what the file lacks and the redo log has.
    fn take_log(&mut self, books: &mut Books) -> rusqlite::Result<()> {
        let log = redo_path(&self.config.path);
        let is_known = self.age.is_some();
        let Some(age) = self.age.or_else(|| Age::of_log(&log)) else { return Ok(()) };
        let found = match redo::read(&log, age) {
            Ok(found) => found,
            Err(error) => {
                self.notes.push(format!("the redo log cannot be read: {error}"));
                return Ok(());
            }
        };
        if let Some(misfit) = found.misfit {
            self.notes.push(format!("{misfit}: what was committed since the last checkpoint may be missing"));
        }
        let (mut ahead, mut all) = (books.clone(), Changes::default());
        for body in found.bodies {
            let Ok(changes) = Changes::decode(&body, &mut ahead) else {
                self.notes.push("a record of the redo log is of another version of this program, or damaged".into());
                break;
            };
            all.sealed.extend(changes.sealed);
            all.state.extend(changes.state);
        }
        // where the file does not tell, one that says nothing new was taken over already
        if !is_known && !is_ahead(&ahead, books, &all) {
            return Ok(());
        }
        *books = ahead;
        for sealed in &all.sealed {
            put(self.db, sealed)?;
        }
        let state = all
            .state
            .into_iter()
            .filter(|(id, _)| books.consumers.contains_key(id) && !self.without_state.contains(id));
        state::store(self.db, &state.map(|(id, change)| ((id, change.op, change.key), change.value)).collect())
    }

    /// Records of inputs and streams whose names are lost stay in the pool, under names that nobody reads.
    fn name_the_nameless(&mut self, books: &mut Books) -> rusqlite::Result<()> {
        for (of, sql) in [
            (
                "input",
                "SELECT DISTINCT input FROM segment
                 WHERE stream = 0 AND input > 0 AND input NOT IN (SELECT id FROM input)",
            ),
            ("stream", "SELECT DISTINCT stream FROM segment WHERE stream NOT IN (SELECT id FROM stream)"),
        ] {
            let mut find = self.db.prepare(sql)?;
            let numbers = find.query_map([], |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
            for number in numbers {
                let name = format!("unknown {number}");
                let sql = match of {
                    "input" => "INSERT INTO input VALUES (?1, ?2)",
                    _ => "INSERT INTO stream VALUES (?1, ?2, 0, 0, 0)",
                };
                self.db.execute(sql, params![number, name])?;
                self.notes.push(format!(
                    "the name of {of} {number} cannot be read: its records are kept as those of `{name}`"
                ));
                if of == "stream" {
                    self.only_named.extend(u32::try_from(number));
                }
            }
        }
        let stored = Books::load(self.db)?;
        books.inputs = stored.inputs;
        for (id, stream) in stored.streams {
            books.streams.entry(id).or_insert(stream);
        }
        Ok(())
    }

    /// Streams reach at least as far as anybody knows of them.
    fn set_ends(&mut self, books: &mut Books) -> rusqlite::Result<()> {
        let ledger = &books.ledger;
        let stored: u64 =
            ledger.names(Edge::Input).iter().map(|name| ledger.sum(Edge::Input, name, what::STORED)).sum();
        let counted = i64::try_from(stored + ledger.sum(Edge::Input, "", what::LOST)).unwrap_or(0);
        let sql = "SELECT min(first), max(first + count), max(arrival) FROM segment WHERE stream = ?1";
        for (id, stream) in &mut books.streams {
            let (first, end, arrival): (Option<i64>, Option<i64>, Option<i64>) =
                self.db.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let positions = || books.consumers.values().filter(|consumer| consumer.stream == *id).map(|c| c.position);
            let known = [end, positions().max(), (*id == INPUTS).then_some(counted)];
            stream.next = known.into_iter().flatten().fold(stream.next, i64::max);
            stream.first = stream.first.min(stream.next);
            if self.only_named.contains(id) {
                let from = positions().min().or(first).unwrap_or(stream.next).min(stream.next);
                stream.first = self.reaches_back_to(*id, from)?;
                if positions().next().is_none() {
                    let name = if *id == INPUTS { "inputs" } else { stream.name.as_str() };
                    self.notes.push(format!(
                        "nobody can tell what was not read of {name} before offset {}, and is missing",
                        stream.first
                    ));
                }
                let arrival = arrival.map_or(Timestamp::MIN, Timestamp::saturating_from_ticks);
                stream.last_arrival = stream.last_arrival.max(arrival);
            }
        }
        Ok(())
    }

    /// Where the segments begin that lie before this offset without a gap.
    fn reaches_back_to(&self, stream: u32, mut offset: i64) -> rusqlite::Result<i64> {
        let sql = "SELECT max(first) FROM segment WHERE stream = ?1 AND first < ?2 AND first + count >= ?2";
        let mut find = self.db.prepare(sql)?;
        while let Some(before) = find.query_row(params![stream, offset], |row| row.get(0))? {
            offset = before;
        }
        Ok(offset)
    }

    /// Sets aside what the streams do not have.
    fn leave_gaps(&mut self, books: &mut Books) -> rusqlite::Result<Vec<LostRange>> {
        let sql = "SELECT value FROM meta WHERE key = 'incarnation'";
        let incarnation: Option<Vec<u8>> = self.db.query_row(sql, [], |row| row.get(0)).optional()?;
        let incarnation = incarnation.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let (had, acknowledged) = (books.inputs_end(), high_water::read(&self.config.path, incarnation));
        let gone = recovery::lost(books, acknowledged).unwrap_or(0);
        recovery::leave_gap(self.db, books, gone)?;
        let mut lost = Vec::new();
        for (id, stream) in &books.streams {
            let name = if *id == INPUTS { "inputs" } else { stream.name.as_str() };
            for (first, end) in gaps(self.db, *id, stream.first, stream.next)? {
                lost.push(LostRange { stream: name.to_owned(), first, end });
                let sql =
                    "INSERT OR REPLACE INTO quarantine (stream, first, past, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)";
                let reason = "damaged: it could not be read when the pool was salvaged";
                self.db.execute(sql, params![id, first, end, reason, stream.last_arrival.ticks()])?;
                books.quarantined += 1;
            }
            if *id == INPUTS && had < stream.next {
                lost.push(LostRange { stream: name.to_owned(), first: had, end: stream.next });
            }
        }
        Ok(lost)
    }
}

/// Whether this can be a value of the table `meta`; what does not read as what it is counts as none where it is used.
fn may_be(key: &str, value: &[u8]) -> bool {
    match key {
        "incarnation" => value.len() == 16,
        "client_id_suffix" => value.len() == 8 && value.is_ascii(),
        _ => true,
    }
}

/// Whether a log has something that the file does not have.
fn is_ahead(log: &Books, file: &Books, changes: &Changes) -> bool {
    let has_more = |id: &u32, next: i64| file.streams.get(id).is_none_or(|stream| stream.next < next);
    let has_moved =
        |id: &u32, position: i64| file.consumers.get(id).is_none_or(|consumer| consumer.position < position);
    log.streams.iter().any(|(id, stream)| has_more(id, stream.next))
        || log.consumers.iter().any(|(id, consumer)| has_moved(id, consumer.position))
        || changes.sealed.iter().any(|sealed| has_more(&sealed.head.stream, sealed.end()))
}
