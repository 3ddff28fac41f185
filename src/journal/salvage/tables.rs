//! Tables of a damaged pool, row by row, into those of a new one.
//!
//! In: pages, and a new pool without content. Out: every row that is whole, in the new pool; of each table, whether
//! anything of it cannot be read. Invariant: what is taken is what was stored, where a checksum tells, and what was in
//! use, where it does not. Not here: what follows from what is missing (`fill`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::cells::{TreeKind, TreePlace, Walker};
use super::pages::Pages;
use super::shapes::{self, NAMES, QUARANTINE, RowShape, SEGMENT, STATE};
use crate::journal::checkpoint::insert_segment;
use crate::journal::segment::Sealed;

/// The tables of the damaged pool.
pub(super) struct DamagedTables<'a> {
    walker: Walker<'a>,
    /// Where the trees of tables and indexes begin.
    roots: HashMap<String, u32>,
}

impl DamagedTables<'_> {
    /// `new`: a pool without content, whose trees begin where those of any pool do.
    pub fn of<'a>(pages: &'a Pages, new: &Connection) -> rusqlite::Result<DamagedTables<'a>> {
        let mut find = new.prepare("SELECT name, rootpage FROM sqlite_schema")?;
        let usual = find.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)))?;
        let mut walker = Walker { pages, reached: HashSet::new() };
        let (mut roots, mut is_whole) = (HashMap::new(), pages.first().is_some());
        if is_whole {
            walker.walk(1, TreeKind::Table, &mut |place| {
                let found = match place {
                    TreePlace::Row { values, .. } => root(&values),
                    TreePlace::Hole => None,
                };
                match found {
                    Some((name, at)) => drop(roots.insert(name, at)),
                    None => is_whole = false,
                }
                Ok::<_, rusqlite::Error>(())
            })?;
        }
        if !is_whole {
            for usual in usual {
                let (name, at) = usual?;
                roots.entry(name).or_insert(at);
            }
        }
        Ok(DamagedTables { walker, roots })
    }

    /// Gives each row of a table, and `None` for a hole.
    pub fn each(
        &mut self,
        shape: &RowShape,
        name: &str,
        each: &mut impl FnMut(Option<(i64, Vec<Value>)>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        // one that came later, and that the pool never had
        let Some(root) = self.roots.get(name).copied() else { return Ok(()) };
        let mut last = None;
        self.walker.walk(root, shape.tree, &mut |place| {
            each(match place {
                TreePlace::Row { number, values } => {
                    // a page in the place of another one has rows twice, and lacks those of that one
                    let is_next =
                        shape.tree == TreeKind::Index || last.replace(number).is_none_or(|last| last < number);
                    shape.row(number, values).filter(|_| is_next).map(|values| (number, values))
                }
                TreePlace::Hole => None,
            })
        })
    }

    /// Takes over what is whole of a table; gives at how many places one row or many cannot be read.
    pub fn copy(&mut self, shape: &RowShape, new: &Connection) -> rusqlite::Result<u64> {
        let mut insert = new.prepare(&shape.insert())?;
        let mut holes = 0;
        self.each(shape, shape.name, &mut |row| {
            match row {
                Some((_, values)) => drop(insert.execute(params_from_iter(values))?),
                None => holes += 1,
            }
            Ok(())
        })?;
        Ok(holes)
    }

    /// As [`DamagedTables::copy`]: a person has seen those up to the number of a row.
    pub fn copy_quarantine(&mut self, new: &Connection) -> rusqlite::Result<u64> {
        let sql = "INSERT OR REPLACE INTO quarantine (stream, first, past, input, codec, raw_bytes, checksum, reason, \
                   at, data, rowid) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let mut insert = new.prepare(sql)?;
        let mut holes = 0;
        self.each(&QUARANTINE, QUARANTINE.name, &mut |row| {
            match row {
                Some((number, mut values)) => {
                    values.push(Value::Integer(number));
                    insert.execute(params_from_iter(values))?;
                }
                None => holes += 1,
            }
            Ok(())
        })?;
        Ok(holes)
    }

    /// The names that a unique index has, by the number of the row; fewer than there were where it is damaged too.
    pub fn names(&mut self, index: &str) -> rusqlite::Result<BTreeMap<i64, String>> {
        let mut names = BTreeMap::new();
        self.each(&NAMES, index, &mut |row| {
            if let Some([Value::Text(name), Value::Integer(number)]) = row.as_ref().map(|(_, values)| values.as_slice())
            {
                names.insert(*number, name.clone());
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Takes over the state of those consumers of which all can be read; gives the others. Rows lie in the order of
    /// their consumers, so a hole may have been of those beside it or of any between.
    pub fn copy_state(&mut self, new: &Connection, consumers: &BTreeSet<u32>) -> rusqlite::Result<BTreeSet<u32>> {
        let mut insert = new.prepare(&STATE.insert())?;
        let (mut damaged, mut in_hole) = (BTreeSet::new(), false);
        let mut last: Option<(u32, u32, Vec<u8>)> = None;
        let lose = |damaged: &mut BTreeSet<u32>, from: u32, to: u32| {
            damaged.extend(consumers.iter().filter(|id| (from..=to).contains(*id)));
        };
        self.each(&STATE, STATE.name, &mut |row| {
            let whole = row.and_then(|(_, values)| Some((shapes::state_key(&values)?, values)));
            let Some((key, values)) = whole else {
                in_hole = true;
                return Ok(());
            };
            if last.as_ref().is_some_and(|last| *last >= key) {
                // a page lies in the place of another one, and nobody can tell of which
                lose(&mut damaged, 0, u32::MAX);
                return Ok(());
            }
            if std::mem::take(&mut in_hole) {
                lose(&mut damaged, last.as_ref().map_or(0, |(consumer, ..)| *consumer), key.0);
            }
            if consumers.contains(&key.0) {
                insert.execute(params_from_iter(values))?;
            }
            last = Some(key);
            Ok(())
        })?;
        if in_hole {
            lose(&mut damaged, last.map_or(0, |(consumer, ..)| consumer), u32::MAX);
        }
        for id in &damaged {
            new.execute("DELETE FROM state WHERE consumer = ?1", [id])?;
        }
        Ok(damaged)
    }

    /// Takes over all segments that are whole: those that are in use, then those that lie on pages which nothing leads
    /// to any more. What lies on a free page was deleted.
    pub fn copy_segments(&mut self, new: &Connection) -> rusqlite::Result<()> {
        self.each(&SEGMENT, SEGMENT.name, &mut |row| {
            let sealed = row.and_then(|(_, values)| shapes::segment(values));
            sealed.map_or(Ok(()), |sealed| put(new, &sealed))
        })?;
        let pages = self.walker.pages;
        let free = pages.free().unwrap_or_default();
        for at in 2..=pages.count() {
            if self.walker.reached.contains(&at) || free.contains(&at) {
                continue;
            }
            for (number, values) in pages.rows_of_leaf(at) {
                if let Some(sealed) = SEGMENT.row(number, values).and_then(shapes::segment) {
                    put(new, &sealed)?;
                }
            }
        }
        Ok(())
    }
}

/// Where the tree of a line of the schema begins.
fn root(values: &[Value]) -> Option<(String, u32)> {
    match values {
        [Value::Text(_), Value::Text(name), Value::Text(_), Value::Integer(at), _] => {
            Some((name.clone(), u32::try_from(*at).ok()?))
        }
        _ => None,
    }
}

/// Stores a segment, unless others have any of its offsets.
pub(super) fn put(new: &Connection, sealed: &Sealed) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM segment WHERE stream = ?1 AND first < ?3
               AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2)
               AND first + count > ?2";
    let (stream, first, end) = (sealed.head.stream, sealed.head.first, sealed.end());
    let others: i64 = new.prepare_cached(sql)?.query_row(rusqlite::params![stream, first, end], |row| row.get(0))?;
    if others == 0 { insert_segment(new, sealed) } else { Ok(()) }
}
