//! Groups: the rows of one key in one session, as accumulators.
//!
//! In: prepared arguments. Out: accumulators and the newest row. Invariant: what was written reads back equal. Not
//! here: where a window ends (`fixed`, `sliding`, `session`), result rows (`sink`).

use super::accumulate::{Acc, arity};
use super::fault::Fault;
use super::state::{put_meta, put_values, read_meta, read_values};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::Value;
use crate::value::codec::{ByteReader, Damaged};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Meta of the first row: the order of groups.
    pub first: RowMeta,
    /// Newest arrival and offset that contributed.
    pub newest: RowMeta,
    pub keys: Box<[Value]>,
    pub accs: Box<[Acc]>,
    /// Changed since the last commit; has a state row.
    pub dirty: bool,
    pub stored: bool,
    /// Its bytes as its owner last counted them.
    pub weight: usize,
}

impl Group {
    pub(super) fn new(aggregates: &[Aggregate], meta: RowMeta, keys: &[Value]) -> Group {
        let accs = aggregates.iter().map(Acc::new).collect();
        Group { first: meta, newest: meta, keys: keys.into(), accs, dirty: false, stored: false, weight: 0 }
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, args: &[Value]) -> Result<(), Fault> {
        self.newest = newer(self.newest, meta);
        let mut at = 0;
        for (acc, aggregate) in self.accs.iter_mut().zip(aggregates) {
            let n = arity(aggregate);
            acc.add(aggregate, args.get(at..at + n).unwrap_or_default())?;
            at += n;
        }
        Ok(())
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_meta(&mut out, &self.first);
        put_meta(&mut out, &self.newest);
        put_values(&mut out, &self.keys);
        self.accs.iter().for_each(|acc| acc.write(&mut out));
        out
    }

    pub(super) fn read(aggregates: &[Aggregate], bytes: &[u8]) -> Result<Group, Damaged> {
        let mut reader = ByteReader::new(bytes);
        let first = read_meta(&mut reader)?;
        let newest = read_meta(&mut reader)?;
        let keys = read_values(&mut reader)?.into();
        let accs = aggregates.iter().map(|a| Acc::read(a, &mut reader)).collect::<Result<_, _>>()?;
        Ok(Group { first, newest, keys, accs, dirty: false, stored: true, weight: 0 })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Group>()
            + self.keys.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>()
            + self.accs.iter().map(|acc| size_of::<Acc>() + acc.heap_bytes()).sum::<usize>()
    }
}

/// The newer of two rows by offset, with the later arrival.
pub(super) fn newer(a: RowMeta, b: &RowMeta) -> RowMeta {
    let mut newest = if b.offset >= a.offset { *b } else { a };
    newest.arrival = a.arrival.max(b.arrival);
    newest
}
