//! Segments: many records as one blob, one row of the file.
//!
//! In: events of one input or of several, or rows of one stream. Out: [`Sealed`] bytes with a checksum over bytes and
//! head, and the way back to [`Segment`]. Invariant: what is sealed opens to the same records, and no bytes, however
//! bad, make opening panic or allocate more than the head justifies. Not here: where segments are kept (`stream`,
//! `reader`).

mod events;
mod mixed;
mod rows;

use std::sync::Arc;

use bytes::Bytes;

use super::growth::Sizes;
use crate::batch::Rows;
use crate::time::Timestamp;
use crate::value::codec::Damaged;

pub(super) use events::EventBuilder;
pub use events::{EventRef, EventSegment, EventSlice};
pub(super) use mixed::put_inputs;
pub(super) use rows::encode_rows;
pub use rows::{RowSegment, RowSlice};

/// Records a segment holds at most: what a reader must decode to get at one of them.
pub(super) const SEGMENT_RECORDS_MAX: usize = 4096;
/// A segment is closed when its records have this many bytes (a single larger record is a segment of its own).
pub(super) const SEGMENT_RAW_BYTES: usize = 1 << 20;
/// No head may make us allocate more: above the largest MQTT packet (256 MiB) with its topic and properties.
pub(super) const RAW_BYTES_MAX: usize = 272 << 20;
/// One event; the rest of the segment is for what its message carried.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 << 20;
/// Shorter segments are stored as they are: a page is written whole, and a reader pays 3 µs for the tables of each.
const COMPRESS_FROM_BYTES: usize = 512;

/// A longer buffer for compressed bytes is not kept for the next segment.
const PACKED_BYTES_KEPT: usize = 2 << 20;

const EVENTS: u8 = 1;
const ROWS: u8 = 2;
const MIXED: u8 = 3;
/// In the head of a mixed segment; inputs are numbered from 1.
const NO_INPUT: u16 = 0;
/// Set in the codec byte when the data is compressed with zstd.
const ZSTD: u8 = 16;

/// Why the bytes of a segment cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("checksum differs")]
    Checksum,
    #[error("unknown codec {0}")]
    Codec(u8),
    #[error("does not decompress")]
    Compression,
    #[error(transparent)]
    Content(#[from] Damaged),
    #[error("holds {found} records instead of {expected}")]
    Count { expected: u32, found: u32 },
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentKind {
    /// Of one input.
    Events,
    /// Events of several inputs, in the order of their offsets.
    Mixed,
    Rows,
}

impl SegmentKind {
    fn codec(self) -> u8 {
        match self {
            SegmentKind::Events => EVENTS,
            SegmentKind::Mixed => MIXED,
            SegmentKind::Rows => ROWS,
        }
    }
}

/// What the file says about a segment beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub stream: u32,
    pub first: i64,
    /// 0 for rows, and for events of several inputs.
    pub input: u16,
    pub count: u32,
    pub arrival: i64,
    pub codec: u8,
    pub raw_bytes: u32,
}

impl Head {
    /// Offset behind the last record.
    pub fn end(&self) -> i64 {
        self.first + i64::from(self.count)
    }

    /// Whether it holds events of several inputs.
    pub fn is_mixed(&self) -> bool {
        Head::is_codec_of_mixed(self.codec)
    }

    /// As [`Head::is_mixed`], where only the codec was read.
    pub fn is_codec_of_mixed(codec: u8) -> bool {
        codec & !ZSTD == MIXED
    }

    /// Whether it may hold events of an input that is wanted; only its data tells for a mixed one, also where its codec
    /// is damaged.
    pub fn may_hold(&self, wants: &dyn Fn(u16) -> bool) -> bool {
        self.is_mixed() || self.input == NO_INPUT || wants(self.input)
    }

    /// Reads the columns `stream, first, input, count, arrival, codec, raw_bytes`, in this order.
    pub fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Head> {
        Ok(Head {
            stream: row.get(0)?,
            first: row.get(1)?,
            input: row.get(2)?,
            count: row.get(3)?,
            arrival: row.get(4)?,
            codec: row.get(5)?,
            raw_bytes: row.get(6)?,
        })
    }
}

/// A segment as it goes to the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sealed {
    pub head: Head,
    pub checksum: u32,
    pub data: Vec<u8>,
}

impl Sealed {
    /// Offset behind its last record.
    pub fn end(&self) -> i64 {
        self.head.end()
    }

    /// Before compression, and in the file.
    pub fn sizes(&self) -> Sizes {
        Sizes::of(u64::from(self.head.raw_bytes), self.data.len() as u64)
    }

    /// About what it takes in memory and in the redo log.
    pub fn bytes(&self) -> usize {
        size_of::<Sealed>() + self.data.len()
    }
}

/// What a segment is made of before it is sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub stream: u32,
    pub first: i64,
    /// Of one input; it is not looked at for another kind.
    pub input: u16,
    pub count: u32,
    pub arrival: i64,
    pub raw: &'a [u8],
    pub kind: SegmentKind,
}

/// Compresses (level 1, and only where it helps) and signs segments.
pub(super) struct Sealer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// What was compressed last: as long as the longest segment may become, so a segment keeps a copy of its own bytes.
    packed: Vec<u8>,
}

impl Sealer {
    pub fn new() -> Sealer {
        // without a context segments are stored uncompressed: larger, not wrong
        Sealer { compressor: zstd::bulk::Compressor::new(1).ok(), packed: Vec::new() }
    }

    pub fn seal(&mut self, draft: Draft<'_>) -> Sealed {
        let is_packed = draft.raw.len() >= COMPRESS_FROM_BYTES && self.pack(draft.raw);
        let (flag, data) = match is_packed {
            true => (ZSTD, self.packed.as_slice().into()),
            false => (0, draft.raw.to_vec()),
        };
        let head = Head {
            stream: draft.stream,
            first: draft.first,
            input: if draft.kind == SegmentKind::Events { draft.input } else { NO_INPUT },
            count: draft.count,
            arrival: draft.arrival,
            codec: flag | draft.kind.codec(),
            raw_bytes: u32::try_from(draft.raw.len()).unwrap_or(u32::MAX),
        };
        if self.packed.capacity() > PACKED_BYTES_KEPT {
            self.packed = Vec::new();
        }
        Sealed { head, checksum: checksum(&head, &data), data }
    }

    /// Whether it became shorter.
    fn pack(&mut self, raw: &[u8]) -> bool {
        let Some(compressor) = &mut self.compressor else { return false };
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        compressor.compress_to_buffer(raw, &mut self.packed).is_ok() && self.packed.len() < raw.len()
    }
}

/// Covers the head as well, so that a wrong offset or input is as visible as a wrong byte.
pub(super) fn checksum(head: &Head, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head.stream.to_le_bytes());
    hasher.update(&head.first.to_le_bytes());
    hasher.update(&head.input.to_le_bytes());
    hasher.update(&head.count.to_le_bytes());
    hasher.update(&head.arrival.to_le_bytes());
    hasher.update(&[head.codec]);
    hasher.update(&head.raw_bytes.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// A decoded segment, shared by the memory tail and its readers.
#[derive(Clone, Debug)]
pub enum Segment {
    Events(Arc<EventSegment>),
    Rows(Arc<RowSegment>),
}

impl Segment {
    /// Offset of its first record.
    pub fn first(&self) -> i64 {
        match self {
            Segment::Events(s) => s.first(),
            Segment::Rows(s) => s.first(),
        }
    }

    /// Offset behind its last record.
    pub fn end(&self) -> i64 {
        match self {
            Segment::Events(s) => s.end(),
            Segment::Rows(s) => s.first() + s.len() as i64,
        }
    }

    /// The arrival of the first record from this offset on.
    pub(super) fn arrival_from(&self, offset: i64) -> Option<Timestamp> {
        match self {
            Segment::Events(s) => {
                let mut events = (0..s.len()).filter_map(|i| s.get(i));
                events.find(|event| event.offset >= offset).map(|event| event.arrival)
            }
            Segment::Rows(s) => {
                let row = usize::try_from(offset.saturating_sub(s.first())).unwrap_or(0);
                s.rows().batch.meta().get(row).map(|meta| meta.arrival)
            }
        }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Segment::Events(s) => s.bytes(),
            Segment::Rows(s) => s.bytes(),
        }
    }
}

/// What [`encode_rows`] wrote.
pub(super) fn rows_from_raw(raw: &[u8]) -> Result<Rows, Damaged> {
    RowSegment::decode(0, raw).map(RowSegment::into_rows)
}

/// Checks, decompresses and decodes segments. A context for decompression is 150 KB, and making one takes longer than
/// opening a segment of one record: whoever opens many keeps this.
#[derive(Default)]
pub(super) struct Opener(Option<zstd::bulk::Decompressor<'static>>);

impl Opener {
    pub fn open(&mut self, head: &Head, stored_checksum: u32, data: Vec<u8>) -> Result<Segment, Damage> {
        self.open_for(head, stored_checksum, data, &|_| true)
    }

    /// As [`Opener::open`]; of a mixed segment only the events of the inputs that are wanted.
    pub fn open_for(
        &mut self,
        head: &Head,
        stored_checksum: u32,
        data: Vec<u8>,
        wants: &dyn Fn(u16) -> bool,
    ) -> Result<Segment, Damage> {
        if checksum(head, &data) != stored_checksum {
            return Err(Damage::Checksum);
        }
        let raw_bytes = head.raw_bytes as usize;
        let raw = if head.codec & ZSTD == 0 {
            data
        } else {
            if raw_bytes > RAW_BYTES_MAX {
                return Err(Damage::Compression);
            }
            self.decompress(&data, raw_bytes)?
        };
        if raw.len() != raw_bytes {
            return Err(Damage::Compression);
        }
        let segment = match head.codec & !ZSTD {
            EVENTS => Segment::Events(Arc::new(EventSegment::decode(head.first, head.input, Bytes::from(raw))?)),
            MIXED => Segment::Events(Arc::new(EventSegment::decode_mixed(head.first, Bytes::from(raw), wants)?)),
            ROWS => Segment::Rows(Arc::new(RowSegment::decode(head.first, &raw)?)),
            other => return Err(Damage::Codec(other)),
        };
        let found = u32::try_from(segment.end() - segment.first()).unwrap_or(u32::MAX);
        if found != head.count {
            return Err(Damage::Count { expected: head.count, found });
        }
        Ok(segment)
    }

    fn decompress(&mut self, data: &[u8], raw_bytes: usize) -> Result<Vec<u8>, Damage> {
        let context = match self.0.take() {
            Some(context) => context,
            None => zstd::bulk::Decompressor::new().map_err(|_| Damage::Compression)?,
        };
        self.0.insert(context).decompress(data, raw_bytes).map_err(|_| Damage::Compression)
    }
}

/// Opens one segment.
pub(super) fn open(head: &Head, stored_checksum: u32, data: Vec<u8>) -> Result<Segment, Damage> {
    Opener::default().open(head, stored_checksum, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(raw: &[u8], kind: SegmentKind) -> Draft<'_> {
        Draft { stream: 0, first: 5, input: 1, count: 1, arrival: 9, raw, kind }
    }

    #[test]
    fn only_data_that_shrinks_is_compressed() {
        let mut sealer = Sealer::new();
        assert_eq!(sealer.seal(draft(&[0; 1000], SegmentKind::Rows)).head.codec, ROWS | ZSTD);
        assert_eq!(sealer.seal(draft(&[0; 50], SegmentKind::Rows)).head.codec, ROWS);
        let noise: Vec<u8> = (0..1000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let sealed = sealer.seal(draft(&noise, SegmentKind::Events));
        assert!(sealed.data.len() <= noise.len());
    }

    #[test]
    fn a_head_that_was_changed_does_not_open() {
        let sealed = Sealer::new().seal(draft(b"anything", SegmentKind::Events));
        for change in 0..6 {
            let mut head = sealed.head;
            match change {
                0 => head.first += 1,
                1 => head.input += 1,
                2 => head.count += 1,
                3 => head.codec |= ZSTD,
                4 => head.raw_bytes = u32::MAX,
                _ => head.stream += 1,
            }
            assert_eq!(open(&head, sealed.checksum, sealed.data.clone()).unwrap_err(), Damage::Checksum);
        }
    }

    #[test]
    fn no_reader_passes_a_mixed_segment_by_its_head() {
        let head = |codec, input| Head { stream: 0, first: 0, input, count: 1, arrival: 0, codec, raw_bytes: 1 };
        let wants = |input| input == 2;
        for (codec, input, may) in [(MIXED, 0, true), (MIXED | ZSTD, 0, true), (EVENTS, 2, true), (EVENTS, 1, false)] {
            assert_eq!(head(codec, input).may_hold(&wants), may, "{codec} {input}");
        }
        assert!(head(EVENTS, 0).may_hold(&wants), "its codec is damaged, and opening it tells");
        assert_eq!(Sealer::new().seal(draft(b"any", SegmentKind::Mixed)).head.input, 0);
    }

    proptest! {
        #[test]
        fn bad_bytes_never_panic(
            data in prop::collection::vec(any::<u8>(), 0..300),
            codec in any::<u8>(),
            raw_bytes in any::<u32>(),
            count in any::<u32>(),
        ) {
            let head = Head { stream: 0, first: 0, input: 1, count, arrival: 0, codec, raw_bytes };
            let _ = open(&head, checksum(&head, &data), data.clone());
            // past the length check, into the decoders
            for codec in [EVENTS, ROWS, MIXED] {
                let head = Head { codec, raw_bytes: data.len() as u32, ..head };
                let _ = open(&head, checksum(&head, &data), data.clone());
            }
        }
    }
}
