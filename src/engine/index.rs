//! The rows of a reference table by their keys.
//!
//! In: a table, and what gives a row's key. Out: an index, made once for each version of a table and each list of key
//! expressions, however many executors and substreams read it. Invariant: rows come in the order of the table; a row
//! without a key is in no index. Not here: evaluating keys, joining (`reference`).

use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::{FxHashMap, FxHasher};

use crate::value::{SmolStr, Value};

/// Rows of a table.
pub(super) type Table = Arc<Vec<Value>>;

/// Ends a chain of rows with keys of one hash.
const END: u32 = u32::MAX;

/// Rows by key. The bytes of all keys lie one after another: a table of small rows would otherwise cost more in its
/// index than in itself.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: Vec<u8>,
    entries: Vec<ChainedRow>,
    /// By hash, the first entry of its chain.
    heads: FxHashMap<u64, u32>,
}

#[derive(Debug)]
struct ChainedRow {
    start: usize,
    end: usize,
    row: u32,
    next: u32,
}

impl Index {
    /// `key` appends the key of a row, or answers that it has none.
    pub fn new(table: &[Value], mut key: impl FnMut(&Value, &mut Vec<u8>) -> bool) -> Index {
        let mut index =
            Index { keys: Vec::new(), entries: Vec::with_capacity(table.len()), heads: FxHashMap::default() };
        let mut bytes = Vec::new();
        // from the last to the first, each put before those of its hash
        for (row, record) in table.iter().enumerate().rev() {
            bytes.clear();
            // tables of four thousand million rows fit no gateway
            let Ok(row) = u32::try_from(row) else { continue };
            if !key(record, &mut bytes) {
                continue;
            }
            let start = index.keys.len();
            index.keys.extend_from_slice(&bytes);
            let at = u32::try_from(index.entries.len()).unwrap_or(END);
            let next = index.heads.insert(hash(&bytes), at).unwrap_or(END);
            index.entries.push(ChainedRow { start, end: index.keys.len(), row, next });
        }
        index
    }

    /// Places of the rows with this key, in order.
    pub fn rows<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let mut at = self.heads.get(&hash(key)).copied().unwrap_or(END);
        std::iter::from_fn(move || {
            loop {
                let entry = self.entries.get(at as usize)?;
                at = entry.next;
                if self.keys.get(entry.start..entry.end) == Some(key) {
                    return Some(entry.row as usize);
                }
            }
        })
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

/// The indexes in use, shared by all executors whose options are clones of one another.
#[derive(Clone, Debug, Default)]
pub struct Indexes(Arc<Mutex<Vec<KnownRows>>>);

#[derive(Debug)]
struct KnownRows {
    /// Weak: a version that nobody reads any more goes, and no other can have its address meanwhile.
    table: Weak<Vec<Value>>,
    keys: SmolStr,
    index: Weak<Index>,
}

impl Indexes {
    /// The index of a table by key expressions of this text; made by `make` if there is none. Executors that ask at the
    /// same time wait for the one that makes it.
    pub(super) fn get(&self, table: &Table, keys: &SmolStr, make: impl FnOnce() -> Index) -> Arc<Index> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.index.strong_count() > 0 && known.table.strong_count() > 0);
        let found =
            known.iter().find(|known| std::ptr::eq(known.table.as_ptr(), Arc::as_ptr(table)) && known.keys == *keys);
        if let Some(index) = found.and_then(|known| known.index.upgrade()) {
            return index;
        }
        let index = Arc::new(make());
        known.push(KnownRows { table: Arc::downgrade(table), keys: keys.clone(), index: Arc::downgrade(&index) });
        index
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|known| known.index.strong_count() > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_value(value: &Value, key: &mut Vec<u8>) -> bool {
        super::super::key::put_key(key, value);
        !value.is_null()
    }

    proptest! {
        #[test]
        fn an_index_gives_what_a_scan_gives(keys in prop::collection::vec(prop::option::of(0i64..8), 0..50)) {
            let table: Vec<Value> = keys.iter().map(|k| k.map_or(Value::Null, Value::BigInt)).collect();
            let index = Index::new(&table, by_value);
            for wanted in 0..9 {
                let mut key = Vec::new();
                by_value(&Value::BigInt(wanted), &mut key);
                let scanned: Vec<usize> = (0..keys.len()).filter(|i| keys[*i] == Some(wanted)).collect();
                prop_assert_eq!(index.rows(&key).collect::<Vec<_>>(), scanned);
            }
        }
    }

    #[test]
    fn without_keys_every_row_is_given() {
        let table = vec![Value::BigInt(1), Value::Null, Value::BigInt(1)];
        let index = Index::new(&table, |_, _| true);
        assert_eq!(index.rows(&[]).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_index_is_made_once_for_a_version_and_goes_with_it() {
        let (indexes, table) = (Indexes::default(), Arc::new(vec![Value::BigInt(1)]));
        let keys = SmolStr::new("k");
        let first = indexes.get(&table, &keys, || Index::new(&table, by_value));
        let again = indexes.clone().get(&table, &keys, || panic!("made twice"));
        assert!(Arc::ptr_eq(&first, &again));
        let next: Table = Arc::new(vec![Value::BigInt(1)]);
        let other = indexes.get(&next, &keys, || Index::new(&next, by_value));
        assert!(!Arc::ptr_eq(&first, &other), "another version has an index of its own");
        drop((first, again));
        assert_eq!(indexes.count(), 1, "nobody reads the old one");
    }
}
