//! What rows of each table look like, so that nothing else is taken for one.
//!
//! In: the values of a record. Out: the same as a row of its table, or nothing. Not here: where records lie (`cells`).

use rusqlite::types::Value;

use super::cells::TreeKind;
use crate::journal::segment::{Head, Sealed, checksum};

/// No pool has given out more offsets; a number beyond is damage.
const COUNT_MAX: i64 = 1 << 53;

/// A table, and what its columns hold.
#[derive(Debug)]
pub(super) struct RowShape {
    pub name: &'static str,
    pub tree: TreeKind,
    /// The first column is the number of the row, and the record does not have it.
    is_numbered: bool,
    /// `i` integer, `o` an offset or a count, `n` one of 32 bits, `u` one of 16, `t` text, `b` blob; a capital may be
    /// NULL as well.
    columns: &'static str,
    /// The number of columns of a record that was written before the others were added.
    needed: usize,
}

const fn shape(
    name: &'static str,
    tree: TreeKind,
    is_numbered: bool,
    columns: &'static str,
    needed: usize,
) -> RowShape {
    RowShape { name, tree, is_numbered, columns, needed }
}

pub(super) const META: RowShape = shape("meta", TreeKind::Index, false, "tb", 2);
pub(super) const INPUT: RowShape = shape("input", TreeKind::Table, true, "ut", 2);
pub(super) const STREAM: RowShape = shape("stream", TreeKind::Table, true, "ntooi", 5);
pub(super) const CONSUMER: RowShape = shape("consumer", TreeKind::Table, true, "nttnooi", 7);
pub(super) const STATE: RowShape = shape("state", TreeKind::Index, false, "nnbbI", 4);
pub(super) const LEDGER: RowShape = shape("ledger", TreeKind::Index, false, "tttto", 5);
pub(super) const DEAD_LETTER: RowShape = shape("dead_letter", TreeKind::Table, true, "oitttTInbBBtnoB", 14);
pub(super) const QUARANTINE: RowShape = shape("quarantine", TreeKind::Table, false, "nooIIIItiB", 10);
pub(super) const REFERENCE: RowShape = shape("reference", TreeKind::Table, false, "tttoioob", 8);
pub(super) const REFERENCE_ERROR: RowShape = shape("reference_error", TreeKind::Table, false, "tit", 3);
pub(super) const ASIDE: RowShape = shape("aside", TreeKind::Index, false, "to", 2);
pub(super) const SEGMENT: RowShape = shape("segment", TreeKind::Table, true, "iiiiiiiiib", 10);
/// Of a unique name with the number of its row.
pub(super) const NAMES: RowShape = shape("", TreeKind::Index, false, "to", 2);

impl RowShape {
    /// All columns of a row, if these are values of one.
    pub fn row(&self, number: i64, mut values: Vec<Value>) -> Option<Vec<Value>> {
        if self.is_numbered {
            let first = values.first_mut()?;
            if *first != Value::Null {
                return None;
            }
            *first = Value::Integer(number);
        }
        if !(self.needed..=self.columns.len()).contains(&values.len()) {
            return None;
        }
        values.resize(self.columns.len(), Value::Null);
        let fits = |(kind, value): (u8, &Value)| match (kind, value) {
            (b'i' | b'I', Value::Integer(_)) | (b't' | b'T', Value::Text(_)) | (b'b' | b'B', Value::Blob(_)) => true,
            (b'o', Value::Integer(count)) => (0..=COUNT_MAX).contains(count),
            (b'n', Value::Integer(number)) => u32::try_from(*number).is_ok(),
            (b'u', Value::Integer(number)) => u16::try_from(*number).is_ok(),
            (kind, Value::Null) => kind.is_ascii_uppercase(),
            _ => false,
        };
        self.columns.bytes().zip(&values).all(fits).then_some(values)
    }

    /// `INSERT` of such a row; what is there already under its key goes.
    pub fn insert(&self) -> String {
        let marks: Vec<String> = (1..=self.columns.len()).map(|n| format!("?{n}")).collect();
        format!("INSERT OR REPLACE INTO {} VALUES ({})", self.name, marks.join(", "))
    }
}

/// The segment of a row, if it is the one that was stored.
pub(super) fn segment(mut values: Vec<Value>) -> Option<Sealed> {
    let Some(Value::Blob(data)) = values.pop() else { return None };
    let mut numbers = values.into_iter().skip(1).map(|value| match value {
        Value::Integer(number) => Some(number),
        _ => None,
    });
    let mut next = || numbers.next().flatten();
    let head = Head {
        stream: u32::try_from(next()?).ok()?,
        first: next()?,
        input: u16::try_from(next()?).ok()?,
        count: u32::try_from(next()?).ok()?,
        arrival: next()?,
        codec: u8::try_from(next()?).ok()?,
        raw_bytes: u32::try_from(next()?).ok()?,
    };
    let stored = u32::try_from(next()?).ok()?;
    let is_in_range = head.count > 0 && (0..=COUNT_MAX).contains(&head.first);
    (is_in_range && checksum(&head, &data) == stored).then_some(Sealed { head, checksum: stored, data })
}

/// Consumer, operator and key of a state row, if it is the one that was stored; one of before there were checksums is
/// taken as it is.
pub(super) fn state_key(values: &[Value]) -> Option<(u32, u32, Vec<u8>)> {
    let [Value::Integer(consumer), Value::Integer(op), Value::Blob(key), Value::Blob(value), stored] = values else {
        return None;
    };
    let (consumer, op) = (u32::try_from(*consumer).ok()?, u32::try_from(*op).ok()?);
    let found = i64::from(crate::journal::state::checksum(consumer, op, key, value));
    let is_whole = match stored {
        Value::Integer(stored) => *stored == found,
        _ => true,
    };
    is_whole.then(|| (consumer, op, key.clone()))
}
