//! What moves between the stages: raw messages and batches of rows.
//!
//! Invariant: a batch is rectangular (`width` values a row) and its rows keep the order of their source. Not here: what
//! the columns mean (a plan knows), how rows are stored (the journal).

use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::time::Timestamp;
use crate::value::{Value, write_json_text};

/// How soon what came has to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// When the write budget allows.
    #[default]
    InBudget,
    /// The sender is about to stop until it is acknowledged: the budget does not count.
    Soon,
    /// The sender has stopped until it is acknowledged: nothing more can come before.
    AtOnce,
}

/// Where a row comes from and when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMeta {
    /// Event time: what `System.Timestamp()` gives.
    pub time: Timestamp,
    /// When the gateway accepted the newest record the row was made of.
    pub arrival: Timestamp,
    /// Offset of that record in the journal's input sequence.
    pub offset: i64,
    /// Counts the rows that one offset gave.
    pub ordinal: u32,
    /// No part of the row's id.
    pub provenance: Provenance,
}

impl RowMeta {
    /// Of a row of which nobody tells who scored it.
    pub fn new(time: Timestamp, arrival: Timestamp, offset: i64, ordinal: u32) -> RowMeta {
        RowMeta { time, arrival, offset, ordinal, provenance: Provenance::UNTOLD }
    }
}

/// Who scored a row, where a function with a fallback did, and whether it was given out before with another answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    pub scored_by: ScoredBy,
    /// Another answer to the row was given out before, with the same row id.
    pub is_correction: bool,
}

/// See [`Provenance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoredBy {
    /// No function with a fallback, or the row is made of several.
    #[default]
    Untold,
    Endpoint,
    /// The function that stands in for it.
    Fallback,
}

impl Provenance {
    pub const UNTOLD: Provenance = Provenance { scored_by: ScoredBy::Untold, is_correction: false };

    /// 0, and 1 for a correction.
    pub fn revision(self) -> u8 {
        u8::from(self.is_correction)
    }

    /// As it is stored.
    pub fn to_byte(self) -> u8 {
        let scored_by = match self.scored_by {
            ScoredBy::Untold => 0,
            ScoredBy::Endpoint => 1,
            ScoredBy::Fallback => 2,
        };
        scored_by | u8::from(self.is_correction) << 2
    }

    /// `None` for a byte that no provenance is stored as.
    pub fn from_byte(byte: u8) -> Option<Provenance> {
        let scored_by = match byte & 3 {
            0 => ScoredBy::Untold,
            1 => ScoredBy::Endpoint,
            2 => ScoredBy::Fallback,
            _ => return None,
        };
        (byte < 8).then_some(Provenance { scored_by, is_correction: byte & 4 != 0 })
    }
}

/// Rows of equal width in one allocation, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    width: usize,
    values: Vec<Value>,
    meta: Vec<RowMeta>,
}

impl Batch {
    pub fn new(width: usize) -> Batch {
        Batch { width, values: Vec::new(), meta: Vec::new() }
    }

    pub fn with_capacity(width: usize, rows: usize) -> Batch {
        Batch { width, values: Vec::with_capacity(width * rows), meta: Vec::with_capacity(rows) }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn len(&self) -> usize {
        self.meta.len()
    }

    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Appends a row; missing values are NULL, extra ones are cut off.
    pub fn push(&mut self, meta: RowMeta, row: impl IntoIterator<Item = Value>) {
        let end = self.values.len() + self.width;
        self.values.extend(row.into_iter().take(self.width));
        self.values.resize(end, Value::Null);
        self.meta.push(meta);
    }

    /// Appends a row of NULLs to be filled in place.
    pub fn push_blank(&mut self, meta: RowMeta) -> &mut [Value] {
        let start = self.values.len();
        self.values.resize(start + self.width, Value::Null);
        self.meta.push(meta);
        self.values.get_mut(start..).unwrap_or_default()
    }

    /// Takes the last row back.
    pub fn pop(&mut self) {
        if self.meta.pop().is_some() {
            self.values.truncate(self.meta.len() * self.width);
        }
    }

    /// Keeps the rows that `keep` says yes to; it may change them.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut RowMeta, &mut [Value]) -> bool) {
        let width = self.width;
        let mut kept = 0;
        for i in 0..self.meta.len() {
            let Some(meta) = self.meta.get_mut(i) else { break };
            let values = self.values.get_mut(i * width..(i + 1) * width).unwrap_or_default();
            if !keep(meta, values) {
                continue;
            }
            if kept < i {
                self.meta.swap(kept, i);
                for column in 0..width {
                    self.values.swap(kept * width + column, i * width + column);
                }
            }
            kept += 1;
        }
        self.meta.truncate(kept);
        self.values.truncate(kept * width);
    }

    /// The values of row `i`; empty past the end.
    pub fn row(&self, i: usize) -> &[Value] {
        self.values.get(i * self.width..(i + 1) * self.width).unwrap_or_default()
    }

    pub fn row_mut(&mut self, i: usize) -> &mut [Value] {
        self.values.get_mut(i * self.width..(i + 1) * self.width).unwrap_or_default()
    }

    pub fn meta(&self) -> &[RowMeta] {
        &self.meta
    }

    pub fn meta_mut(&mut self) -> &mut [RowMeta] {
        &mut self.meta
    }

    pub fn rows(&self) -> impl Iterator<Item = (&RowMeta, &[Value])> {
        self.meta.iter().enumerate().map(|(i, meta)| (meta, self.row(i)))
    }

    /// The rows, to be changed or emptied where they lie.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = (&RowMeta, &mut [Value])> {
        let width = self.width;
        let mut rest = self.values.as_mut_slice();
        self.meta.iter().map(move |meta| {
            let (row, behind) = std::mem::take(&mut rest).split_at_mut_checked(width).unwrap_or_default();
            rest = behind;
            (meta, row)
        })
    }

    /// Appends all rows of another batch of the same width.
    pub fn append(&mut self, other: &mut Batch) {
        self.values.append(&mut other.values);
        self.meta.append(&mut other.meta);
    }

    pub fn clear(&mut self) {
        self.values.clear();
        self.meta.clear();
    }

    /// About how many bytes the rows hold: what byte budgets count.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>() + self.meta.len() * size_of::<RowMeta>()
    }
}

/// A column of rows that leave a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: SmolStr,
    /// The value is a record whose fields are columns themselves (what `*` gives); the name is not shown. A field whose
    /// name an explicit column has, or an earlier spread gave, is skipped.
    pub spread: bool,
}

/// Rows that leave a statement or wait in a stream of the journal: they describe themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub columns: Arc<[Column]>,
    pub batch: Batch,
}

/// The columns of one row as they are shown: spread records opened, clashes resolved, in order.
pub fn shown<'a>(columns: &'a [Column], row: &'a [Value]) -> Vec<(&'a SmolStr, &'a Value)> {
    let mut fields: Vec<(&SmolStr, &Value)> = Vec::with_capacity(columns.len());
    for (i, (column, value)) in columns.iter().zip(row).enumerate() {
        if !column.spread {
            fields.push((&column.name, value));
            continue;
        }
        let Value::Record(record) = value else { continue };
        for (name, value) in record.iter() {
            let taken = columns.iter().any(|c| !c.spread && c.name == *name)
                || columns
                    .iter()
                    .zip(row)
                    .take(i)
                    .any(|(c, v)| c.spread && matches!(v, Value::Record(r) if r.get(name).is_some()));
            if !taken {
                fields.push((name, value));
            }
        }
    }
    fields
}

/// Writes one row as a JSON object.
pub fn write_row_json(columns: &[Column], row: &[Value], out: &mut String) {
    if columns.iter().any(|c| c.spread) {
        crate::value::write_json_object(shown(columns, row).into_iter(), out);
        return;
    }
    out.push('{');
    for (i, (column, value)) in columns.iter().zip(row).enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_json_text(&column.name, out);
        out.push(':');
        value.write_json(out);
    }
    out.push('}');
}

/// What a message carried beside its payload. Shared by the events of one message, and by equal messages of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageMeta {
    /// Under which it came: a topic.
    pub name: SmolStr,
    /// What its sender wrote beside it, in the sender's order; a name may repeat.
    pub properties: Vec<(SmolStr, SmolStr)>,
    /// What its transport says of it, by the transport's own words, each once: `qos`, `retain`. Of one that came while
    /// the machine's clock was not trusted, also `clock`.
    pub facts: Vec<(SmolStr, SmolStr)>,
}

impl MessageMeta {
    /// The same of a message that came while the machine's clock was not trusted.
    #[must_use]
    pub fn untimed(&self) -> MessageMeta {
        let mut untimed = self.clone();
        untimed.facts.push((SmolStr::new_static("clock"), SmolStr::new_static("untrusted")));
        untimed
    }

    /// Whether the clock that gave its arrival was trusted.
    pub fn is_timed(&self) -> bool {
        self.fact("clock").is_none()
    }

    /// What the transport says under a word.
    pub fn fact(&self, word: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == word).map(|(_, value)| value.as_str())
    }
}

/// One event as it is stored: exactly one JSON object, checked to be one.
#[derive(Clone, Debug, PartialEq)]
pub struct RawEvent {
    pub arrival: Timestamp,
    pub payload: Bytes,
    pub message: Arc<MessageMeta>,
    /// By which its source recognises it when it comes again; 0 for none.
    pub mark: u64,
}

/// A reason that a row, event or message did not go on: a short fixed word for counters (`undecodable`,
/// `conversion`, `udf_trap`, …).
pub type Reason = &'static str;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Record;

    fn column(name: &str, spread: bool) -> Column {
        Column { name: name.into(), spread }
    }

    #[test]
    fn spread_columns_open_and_explicit_names_win() {
        let record = |pairs: &[(&str, i64)]| {
            Value::record(Record::from_unique(
                pairs.iter().map(|(n, v)| (SmolStr::new(n), Value::BigInt(*v))).collect(),
            ))
        };
        let columns = [column("a", false), column("", true), column("", true), column("c", false)];
        let row = [
            Value::BigInt(0),
            record(&[("a", 1), ("b", 2), ("c", 3)]),
            record(&[("b", 4), ("d", 5)]),
            Value::BigInt(9),
        ];
        let mut out = String::new();
        write_row_json(&columns, &row, &mut out);
        assert_eq!(out, r#"{"a":0,"b":2,"d":5,"c":9}"#);
    }

    #[test]
    fn a_stored_provenance_is_read_back_and_makes_no_row_larger() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|byte| Provenance::from_byte(*byte).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 4, 5, 6]);
        for byte in known {
            assert_eq!(Provenance::from_byte(byte).unwrap().to_byte(), byte);
        }
        assert_eq!((Provenance::UNTOLD.to_byte(), size_of::<RowMeta>()), (0, 32));
    }

    #[test]
    fn rows_stay_rectangular() {
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 0, 0);
        let mut batch = Batch::new(2);
        batch.push(meta, [Value::BigInt(1)]);
        batch.push(meta, [Value::BigInt(1), Value::BigInt(2), Value::BigInt(3)]);
        batch.push_blank(meta);
        batch.pop();
        assert_eq!(batch.row(0), [Value::BigInt(1), Value::Null]);
        assert_eq!(batch.row(1), [Value::BigInt(1), Value::BigInt(2)]);
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn retained_rows_keep_their_order_and_meta() {
        let mut batch = Batch::new(2);
        for i in 0..6 {
            let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, i, 0);
            batch.push(meta, [Value::BigInt(i), Value::BigInt(i * 10)]);
        }
        batch.retain(|meta, row| {
            row[1] = Value::BigInt(meta.offset * 100);
            meta.offset % 3 != 0
        });
        let rows: Vec<(i64, &[Value])> = batch.rows().map(|(m, r)| (m.offset, r)).collect();
        let row = |i: i64| [Value::BigInt(i), Value::BigInt(i * 100)];
        assert_eq!(rows, [(1, &row(1)[..]), (2, &row(2)), (4, &row(4)), (5, &row(5))]);
    }
}
