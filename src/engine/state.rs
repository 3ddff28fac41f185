//! State rows: what a commit writes and a start loads.
//!
//! In: changed keys of operators. Out: [`StateUpdate`]s; and back. Invariant: a key is the substream (empty without
//! `TIMESTAMP BY … OVER`), a byte for the kind of row, then what the operator likes; only changed keys are written. Not
//! here: the table they lie in (`journal`).

use super::emitted::StateUpdate;
use crate::batch::RowMeta;
use crate::time::Timestamp;
use crate::value::Value;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_signed, put_value, put_varint};

/// Collects the changes of one operator.
pub(super) struct StateWriter<'a> {
    pub op: u32,
    pub substream: &'a [u8],
    pub out: &'a mut Vec<StateUpdate>,
}

impl StateWriter<'_> {
    /// Sets (`Some`) or removes (`None`) one row.
    pub(super) fn put(&mut self, kind: u8, rest: &[u8], value: Option<Vec<u8>>) {
        let mut key = Vec::with_capacity(self.substream.len() + rest.len() + 3);
        put_bytes(&mut key, self.substream);
        key.push(kind);
        key.extend_from_slice(rest);
        self.out.push(StateUpdate { op: self.op, key, value });
    }
}

/// A stored row on its way back: which substream and kind, and the rest of its key.
pub(super) struct Loaded<'a> {
    pub substream: &'a [u8],
    pub kind: u8,
    pub rest: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> Loaded<'a> {
    pub(super) fn parse(key: &'a [u8], value: &'a [u8]) -> Result<Loaded<'a>, Damaged> {
        let mut reader = ByteReader::new(key);
        let substream = reader.bytes()?;
        let kind = reader.byte()?;
        let mut length = Vec::new();
        put_varint(&mut length, substream.len() as u64);
        let rest = key.get(length.len() + substream.len() + 1..).unwrap_or_default();
        Ok(Loaded { substream, kind, rest, value })
    }
}

pub(super) fn put_meta(out: &mut Vec<u8>, meta: &RowMeta) {
    put_signed(out, meta.time.ticks());
    // arrival is close to event time, so the difference is short
    put_signed(out, meta.arrival.ticks() - meta.time.ticks());
    put_signed(out, meta.offset);
    put_varint(out, u64::from(meta.ordinal));
}

pub(super) fn read_meta(reader: &mut ByteReader<'_>) -> Result<RowMeta, Damaged> {
    let time = reader.signed()?;
    let arrival = time.saturating_add(reader.signed()?);
    let offset = reader.signed()?;
    let ordinal = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
    Ok(RowMeta::new(Timestamp::saturating_from_ticks(time), Timestamp::saturating_from_ticks(arrival), offset, ordinal))
}

pub(super) fn put_values(out: &mut Vec<u8>, values: &[Value]) {
    put_varint(out, values.len() as u64);
    values.iter().for_each(|v| put_value(out, v));
}

pub(super) fn read_values(reader: &mut ByteReader<'_>) -> Result<Vec<Value>, Damaged> {
    let n = reader.length()?;
    (0..n).map(|_| reader.value()).collect()
}
