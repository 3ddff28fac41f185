//! When records arrived, as is known by now.
//!
//! In: where in each stream arrival time was set back, and to what. Out: the moment that a record arrived at or before.
//! Invariant: what was stored before arrival time was set back arrived no later than the moment it was set back to,
//! however late the wrong clock said it was. Not here: whether that is long ago (`ages`), eras (`eras`).

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::meta::load_json;

/// Where the bounds are kept in `meta`, as JSON.
const BOUNDS: &str = "arrival_bounds";
/// Bounds kept of each stream; an older one is of use only while records of its time are there.
const BOUNDS_MAX: usize = 32;
/// Inputs that were stamped side by side may be stored in another order: no time was set back by so few ticks (1 min).
const DISORDER: i64 = 600_000_000;

/// By stream: records below this offset arrived no later than so many ticks of 100 ns since year one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ArrivalBounds(BTreeMap<u32, Vec<(i64, i64)>>);

impl ArrivalBounds {
    pub fn load(db: &Connection) -> rusqlite::Result<ArrivalBounds> {
        load_json(db, BOUNDS).map(ArrivalBounds)
    }

    pub fn save(&self, db: &Connection) -> rusqlite::Result<()> {
        let json = serde_json::to_vec(&self.0).unwrap_or_default();
        db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![BOUNDS, json]).map(drop)
    }

    /// What a stream has below `next` arrived before `to`; of what lies below `first` nothing is left.
    pub fn add(&mut self, stream: u32, first: i64, next: i64, to: i64) {
        let bounds = self.0.entry(stream).or_default();
        // one that is no earlier than a later one says nothing
        bounds.retain(|(past, until)| *past > first && *until < to);
        if next > first {
            bounds.push((next, to));
        }
        if bounds.len() > BOUNDS_MAX {
            bounds.remove(0);
        }
    }

    /// When the record of a stream at `offset` arrived at the latest, whose segment says `arrival`. A time that has
    /// passed by now is taken as it is: the clock that was wrong may be the one that arrival time was set back to.
    pub fn of(&self, stream: u32, offset: i64, arrival: i64, now: i64) -> i64 {
        if arrival <= now {
            return arrival;
        }
        let bounds = self.0.get(&stream).into_iter().flatten();
        bounds.filter(|(past, _)| offset < *past).fold(arrival, |least, (_, until)| least.min(*until))
    }
}

/// Whether arrival time was set back between two records that follow each other.
pub(super) fn is_set_back(since: i64, until: i64) -> bool {
    until < since.saturating_sub(DISORDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_a_step_back_arrived_before_it() {
        let mut bounds = ArrivalBounds::default();
        assert_eq!(bounds.of(0, 5, 900, 90), 900);
        bounds.add(0, 0, 10, 500);
        bounds.add(1, 0, 3, 500);
        bounds.add(2, 7, 7, 500);
        assert_eq!(
            [(0, 9), (0, 10), (1, 3), (2, 6)].map(|(stream, at)| bounds.of(stream, at, 900, 90)),
            [500, 900, 900, 900]
        );
        assert_eq!(bounds.of(0, 9, 400, 90), 400, "it was right");
        bounds.add(0, 0, 20, 800);
        assert_eq!([9, 10, 20].map(|at| bounds.of(0, at, 900, 90)), [500, 800, 900]);
        bounds.add(0, 0, 30, 300);
        assert_eq!([9, 20, 29, 30].map(|at| bounds.of(0, at, 900, 90)), [300, 300, 300, 900]);
        assert_eq!(bounds.of(0, 9, 900, 900), 900, "that time has come");
        bounds.add(0, 30, 30, 100);
        assert_eq!(bounds.of(0, 29, 900, 90), 900, "nothing is left of that");
    }

    #[test]
    fn bounds_are_read_back() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL)").unwrap();
        assert_eq!(ArrivalBounds::load(&db).unwrap(), ArrivalBounds::default());
        let mut bounds = ArrivalBounds::default();
        (0..40).for_each(|i| bounds.add(3, 0, i + 1, i));
        bounds.save(&db).unwrap();
        let again = ArrivalBounds::load(&db).unwrap();
        assert_eq!((again.0[&3].len(), &again), (BOUNDS_MAX, &bounds));
    }
}
