//! The form of a row segment.
//!
//! In: [`Rows`] that a statement emitted. Out: column names, then a head a row (times, source offset and ordinal as
//! differences) and its values; and [`RowSegment`]. Invariant: rows describe themselves, so a stream may change its
//! columns from segment to segment; what a segment does not need costs it nothing. Not here: compression and checksum
//! (the envelope above).

use std::ops::Range;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::batch::{Batch, Column, Provenance, RowMeta, Rows};
use crate::time::Timestamp;
use crate::value::Value;
use crate::value::codec::{ByteReader, DEPTH_MAX, Damaged, put_bytes, put_signed, put_value, put_varint};

/// Of rows of which nobody tells who scored them.
const PLAIN: u8 = 1;
/// The same, and behind each ordinal a byte that tells.
const TELLING: u8 = 2;
/// What the value codec still reads back.
const STORED_DEPTH_MAX: usize = DEPTH_MAX + 16;

/// The bytes of rows `range`; an error text when a value could not be read back.
pub fn encode_rows(rows: &Rows, range: Range<usize>) -> Result<Vec<u8>, String> {
    let metas = rows.batch.meta().get(range.clone()).unwrap_or_default();
    let tells = metas.iter().any(|meta| meta.provenance != Provenance::UNTOLD);
    let mut raw = vec![if tells { TELLING } else { PLAIN }];
    put_varint(&mut raw, rows.columns.len() as u64);
    for column in rows.columns.iter() {
        raw.push(u8::from(column.spread));
        put_bytes(&mut raw, column.name.as_bytes());
    }
    let width = rows.batch.width();
    put_varint(&mut raw, width as u64);
    put_varint(&mut raw, range.len() as u64);
    let (mut time, mut arrival, mut offset) = (0i64, 0i64, 0i64);
    for (meta, values) in rows.batch.rows().skip(range.start).take(range.len()) {
        put_signed(&mut raw, meta.time.ticks().wrapping_sub(time));
        put_signed(&mut raw, meta.arrival.ticks().wrapping_sub(arrival));
        put_signed(&mut raw, meta.offset.wrapping_sub(offset));
        put_varint(&mut raw, u64::from(meta.ordinal));
        if tells {
            raw.push(meta.provenance.to_byte());
        }
        (time, arrival, offset) = (meta.time.ticks(), meta.arrival.ticks(), meta.offset);
        for value in values {
            if !fits(value, 0) {
                return Err(format!("a value is nested deeper than {STORED_DEPTH_MAX} levels"));
            }
            put_value(&mut raw, value);
        }
    }
    Ok(raw)
}

fn fits(value: &Value, depth: usize) -> bool {
    match value {
        _ if depth > STORED_DEPTH_MAX => false,
        Value::Record(record) => record.iter().all(|(_, v)| fits(v, depth + 1)),
        Value::Array(items) => items.iter().all(|v| fits(v, depth + 1)),
        _ => true,
    }
}

/// Rows of one stream, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSegment {
    first: i64,
    rows: Rows,
}

impl RowSegment {
    pub(in crate::journal) fn new(first: i64, rows: Rows) -> RowSegment {
        RowSegment { first, rows }
    }

    pub(super) fn decode(first: i64, raw: &[u8]) -> Result<RowSegment, Damaged> {
        let damaged = Damaged { at: 0 };
        let mut reader = ByteReader::new(raw);
        let tells = match reader.byte()? {
            PLAIN => false,
            TELLING => true,
            _ => return Err(damaged),
        };
        let mut columns = Vec::new();
        for _ in 0..reader.length()? {
            let spread = reader.byte()? != 0;
            columns.push(Column { name: SmolStr::new(reader.str()?), spread });
        }
        let width = usize::try_from(reader.varint()?).map_err(|_| damaged)?;
        // a row has at least four bytes
        let count = reader.length()?;
        let mut batch = Batch::new(width);
        let (mut time, mut arrival, mut offset) = (0i64, 0i64, 0i64);
        let mut values = Vec::new();
        for _ in 0..count {
            time = time.wrapping_add(reader.signed()?);
            arrival = arrival.wrapping_add(reader.signed()?);
            offset = offset.wrapping_add(reader.signed()?);
            let mut meta = RowMeta::new(
                Timestamp::from_ticks(time).ok_or(damaged)?,
                Timestamp::from_ticks(arrival).ok_or(damaged)?,
                offset,
                u32::try_from(reader.varint()?).map_err(|_| damaged)?,
            );
            if tells {
                meta.provenance = Provenance::from_byte(reader.byte()?).ok_or(damaged)?;
            }
            for _ in 0..width {
                values.push(reader.value()?);
            }
            batch.push(meta, values.drain(..));
        }
        if !reader.is_done() {
            return Err(damaged);
        }
        Ok(RowSegment { first, rows: Rows { columns: columns.into(), batch } })
    }

    /// Position of the first row in its stream.
    pub fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn into_rows(self) -> Rows {
        self.rows
    }

    pub(in crate::journal) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn len(&self) -> usize {
        self.rows.batch.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.batch.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.batch.bytes()
    }
}

/// Some of the rows of a segment, in order. Cheap to clone and to keep.
#[derive(Clone, Debug)]
pub struct RowSlice {
    segment: Arc<RowSegment>,
    range: Range<usize>,
}

impl RowSlice {
    /// Up to `max` rows from a position on. `None`: the segment has no more.
    pub(in crate::journal) fn of(segment: &Arc<RowSegment>, from: i64, max: usize) -> Option<RowSlice> {
        let start = usize::try_from(from - segment.first).ok()?;
        let end = start.saturating_add(max).min(segment.len());
        (start < end).then(|| RowSlice { segment: segment.clone(), range: start..end })
    }

    /// Position of the first row in its stream.
    pub fn first(&self) -> i64 {
        self.segment.first + self.range.start as i64
    }

    /// Position behind the last row: what to commit once all of them are done.
    pub fn end(&self) -> i64 {
        self.segment.first + self.range.end as i64
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    pub fn columns(&self) -> &Arc<[Column]> {
        &self.segment.rows.columns
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RowMeta, &[Value])> {
        self.segment.rows.batch.rows().skip(self.range.start).take(self.range.len())
    }

    /// About how many bytes the rows take.
    pub fn bytes(&self) -> usize {
        super::events::share(self.segment.bytes(), self.range.len(), self.segment.len())
    }

    /// The rows as a batch of their own; values are cloned, which is cheap.
    pub fn to_rows(&self) -> Rows {
        let mut batch = Batch::with_capacity(self.segment.rows.batch.width(), self.range.len());
        for (meta, row) in self.iter() {
            batch.push(*meta, row.iter().cloned());
        }
        Rows { columns: self.columns().clone(), batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows() -> impl Strategy<Value = Rows> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bit),
            any::<i64>().prop_map(Value::BigInt),
            any::<i32>().prop_map(|n| Value::Float(f64::from(n) / 8.0)),
            ".{0,30}".prop_map(Value::text),
            prop::collection::vec(any::<i64>().prop_map(Value::BigInt), 0..4).prop_map(Value::array),
        ];
        let ticks = 0..=Timestamp::MAX.ticks();
        let provenance = prop_oneof![9 => Just(0), 1 => 0..3u8, 1 => 4..7u8];
        let row = (ticks.clone(), ticks, any::<i64>(), any::<u32>(), provenance, prop::collection::vec(value, 3));
        let columns = prop::collection::vec((".{0,8}", any::<bool>()), 3);
        (columns, prop::collection::vec(row, 0..20)).prop_map(|(columns, rows)| {
            let mut batch = Batch::new(3);
            for (time, arrival, offset, ordinal, provenance, values) in rows {
                let mut meta = RowMeta::new(
                    Timestamp::saturating_from_ticks(time),
                    Timestamp::saturating_from_ticks(arrival),
                    offset,
                    ordinal,
                );
                meta.provenance = Provenance::from_byte(provenance).unwrap();
                batch.push(meta, values);
            }
            Rows {
                columns: columns.into_iter().map(|(name, spread)| Column { name: name.into(), spread }).collect(),
                batch,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(rows in rows()) {
            let raw = encode_rows(&rows, 0..rows.batch.len()).unwrap();
            prop_assert_eq!(RowSegment::decode(3, &raw).unwrap(), RowSegment::new(3, rows));
        }

        #[test]
        fn parts_add_up_to_the_whole(rows in rows(), at in any::<prop::sample::Index>()) {
            let cut = at.index(rows.batch.len() + 1);
            let mut whole = Batch::new(3);
            for range in [0..cut, cut..rows.batch.len()] {
                let mut part = RowSegment::decode(0, &encode_rows(&rows, range).unwrap()).unwrap().rows.batch;
                whole.append(&mut part);
            }
            prop_assert_eq!(whole, rows.batch);
        }

        #[test]
        fn a_changed_byte_never_panics(rows in rows(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut raw = encode_rows(&rows, 0..rows.batch.len()).unwrap();
            let at = at.index(raw.len());
            raw[at] = to;
            let _ = RowSegment::decode(0, &raw);
        }
    }

    #[test]
    fn who_scored_rows_costs_only_the_segments_that_tell_it() {
        let mut batch = Batch::new(1);
        (0..4).for_each(|n| batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, n, 0), [Value::BigInt(n)]));
        let mut rows = Rows { columns: [Column { name: "a".into(), spread: false }].into(), batch };
        let plain = encode_rows(&rows, 0..4).unwrap();
        assert_eq!(plain[0], PLAIN, "as a former version reads it");
        rows.batch.meta_mut()[3].provenance = Provenance::from_byte(6).unwrap();
        let telling = encode_rows(&rows, 0..4).unwrap();
        assert_eq!((telling[0], telling.len()), (TELLING, plain.len() + 4));
        assert_eq!(encode_rows(&rows, 0..3).unwrap()[0], PLAIN);
        assert_eq!(RowSegment::decode(0, &telling).unwrap().rows, rows);
    }

    #[test]
    fn rows_that_could_not_be_read_back_are_refused() {
        let nested = |levels| (0..levels).fold(Value::Null, |inner, _| Value::array(vec![inner]));
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 0, 0);
        for (levels, fits) in [(STORED_DEPTH_MAX, true), (STORED_DEPTH_MAX + 1, false)] {
            let mut batch = Batch::new(1);
            batch.push(meta, [nested(levels)]);
            let rows = Rows { columns: [Column { name: "a".into(), spread: false }].into(), batch };
            let encoded = encode_rows(&rows, 0..1);
            assert_eq!(encoded.is_ok(), fits);
            if let Ok(raw) = encoded {
                assert!(RowSegment::decode(0, &raw).is_ok());
            }
        }
    }
}
