//! Makes full segments of small ones that lie side by side.
//!
//! In: sealed segments of one stream, in order. Out: the same records in as few segments as their bounds allow.
//! Invariant: every record keeps its offset, its arrival and all else; only events of one input, and rows of one set of
//! columns, share a segment. Not here: which segments are merged, and when (`checkpoint`, `compaction`).

use std::sync::Arc;

use super::segment::{
    Damage, Draft, EventBuilder, EventSegment, EventSlice, Head, Opener, RowSegment, SEGMENT_RAW_BYTES,
    SEGMENT_RECORDS_MAX, Sealed, Sealer, Segment, encode_rows,
};
use crate::batch::Rows;

/// A segment of this size is read as fast as a full one; merging it would only cost time.
const SMALL_BYTES: u32 = 64 << 10;

pub(super) fn is_small(head: &Head) -> bool {
    head.raw_bytes < SMALL_BYTES
}

/// Merges neighbours; the tools are the writer's.
pub(super) struct Merger<'a> {
    pub opener: &'a mut Opener,
    pub sealer: &'a mut Sealer,
}

impl Merger<'_> {
    /// Gives fewer segments with the same records. A segment that does not open goes on as it is: whoever reads it sets
    /// it aside.
    pub fn merge(&mut self, segments: Vec<Arc<Sealed>>) -> Vec<Arc<Sealed>> {
        let mut merged = Vec::new();
        let mut run: Vec<Arc<Sealed>> = Vec::new();
        for next in segments {
            if !run.last().is_some_and(|last| follows(last, &next)) || !fits(&run, &next) {
                self.close(&mut run, &mut merged);
            }
            run.push(next);
        }
        self.close(&mut run, &mut merged);
        merged
    }

    fn close(&mut self, run: &mut Vec<Arc<Sealed>>, merged: &mut Vec<Arc<Sealed>>) {
        let run = std::mem::take(run);
        match (run.len() > 1).then(|| self.join(&run)) {
            Some(Ok(joined)) => merged.extend(joined.into_iter().map(Arc::new)),
            Some(Err(_)) | None => merged.extend(run),
        }
    }

    fn join(&mut self, run: &[Arc<Sealed>]) -> Result<Vec<Sealed>, Damage> {
        let mut events = Vec::new();
        let mut rows: Vec<Arc<RowSegment>> = Vec::new();
        for sealed in run {
            match self.opener.open(&sealed.head, sealed.checksum, sealed.data.clone())? {
                Segment::Events(segment) => events.push(segment),
                Segment::Rows(segment) => rows.push(segment),
            }
        }
        let Some(head) = run.first().map(|first| first.head) else { return Ok(Vec::new()) };
        let arrival = run.iter().map(|sealed| sealed.head.arrival).max().unwrap_or_default();
        let mut seal = |first: i64, count: usize, raw: &[u8], is_rows: bool| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.sealer.seal(Draft { stream: head.stream, first, input: head.input, count, arrival, raw, is_rows })
        };
        if !events.is_empty() {
            let count = events.iter().map(|segment| segment.len()).sum();
            return Ok(vec![seal(head.first, count, &join_events(&events), false)]);
        }
        // rows that were given other columns begin a segment of their own
        let mut joined = Vec::new();
        for same in rows.chunk_by(|a, b| a.rows().columns == b.rows().columns) {
            let (Some(first), Some(all)) = (same.first(), join_rows(same)) else { continue };
            let raw = encode_rows(&all, 0..all.batch.len()).map_err(|_| Damage::Compression)?;
            joined.push(seal(first.first(), all.batch.len(), &raw, true));
        }
        Ok(joined)
    }
}

fn follows(last: &Sealed, next: &Sealed) -> bool {
    (last.head.stream, last.head.input, last.end()) == (next.head.stream, next.head.input, next.head.first)
}

fn fits(run: &[Arc<Sealed>], next: &Sealed) -> bool {
    let records: usize = run.iter().map(|sealed| sealed.head.count as usize).sum();
    let bytes: usize = run.iter().map(|sealed| sealed.head.raw_bytes as usize).sum();
    is_small(&next.head)
        && run.last().is_some_and(|last| is_small(&last.head))
        && records + next.head.count as usize <= SEGMENT_RECORDS_MAX
        && bytes + next.head.raw_bytes as usize <= SEGMENT_RAW_BYTES
}

fn join_events(segments: &[Arc<EventSegment>]) -> Vec<u8> {
    let mut builder = EventBuilder::default();
    for segment in segments {
        for event in EventSlice::new(segment.clone(), 0..segment.len()).events() {
            builder.push(&event, event.arrival);
        }
    }
    builder.finish()
}

/// Of rows with the same columns.
fn join_rows(segments: &[Arc<RowSegment>]) -> Option<Rows> {
    let mut segments = segments.iter().map(|segment| segment.rows().clone());
    let mut all = segments.next()?;
    segments.for_each(|mut rows| all.batch.append(&mut rows.batch));
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Column, MessageMeta, RawEvent, RowMeta};
    use crate::journal::segment::{EventRef, open};
    use crate::time::Timestamp;
    use crate::value::Value;

    fn at(ticks: i64) -> Timestamp {
        Timestamp::from_ticks(ticks).unwrap()
    }

    fn events(first: i64, input: u16, count: usize) -> Arc<Sealed> {
        let mut builder = EventBuilder::default();
        for i in 0..count as i64 {
            let message = MessageMeta { name: format!("t/{}", (first + i) % 3).into(), ..MessageMeta::default() };
            let payload = format!("{{\"n\":{}}}", first + i).into();
            let event = RawEvent { arrival: at(first + i), payload, message: Arc::new(message), mark: 7 };
            builder.push(&event, event.arrival);
        }
        let (count, arrival) = (builder.count(), builder.arrival().ticks());
        let raw = builder.finish();
        Arc::new(Sealer::new().seal(Draft { stream: 0, first, input, count, arrival, raw: &raw, is_rows: false }))
    }

    fn rows(first: i64, column: &str, count: usize) -> Arc<Sealed> {
        let mut batch = Batch::new(1);
        for i in 0..count as i64 {
            let meta = RowMeta::new(at(first + i), at(first + i), first + i, 1);
            batch.push(meta, [Value::BigInt(first + i)]);
        }
        let all = Rows { columns: [Column { name: column.into(), spread: false }].into(), batch };
        let raw = encode_rows(&all, 0..count).unwrap();
        let draft = Draft { stream: 4, first, input: 0, count: count as u32, arrival: first, raw: &raw, is_rows: true };
        Arc::new(Sealer::new().seal(draft))
    }

    fn merged(segments: Vec<Arc<Sealed>>) -> Vec<Arc<Sealed>> {
        Merger { opener: &mut Opener::default(), sealer: &mut Sealer::new() }.merge(segments)
    }

    fn spans(segments: &[Arc<Sealed>]) -> Vec<(i64, i64)> {
        segments.iter().map(|sealed| (sealed.head.first, sealed.end())).collect()
    }

    /// Everything that the records of event segments say.
    fn told(segments: &[Arc<Sealed>]) -> Vec<String> {
        let text = |e: EventRef<'_>| format!("{} {:?} {:?} {:?} {}", e.offset, e.arrival, e.payload, e.message, e.mark);
        let open = |sealed: &Arc<Sealed>| match open(&sealed.head, sealed.checksum, sealed.data.clone()).unwrap() {
            Segment::Events(segment) => (0..segment.len()).map(|i| text(segment.get(i).unwrap())).collect::<Vec<_>>(),
            Segment::Rows(segment) => segment.rows().batch.rows().map(|row| format!("{row:?}")).collect(),
        };
        segments.iter().flat_map(open).collect()
    }

    #[test]
    fn neighbours_of_one_input_become_one_segment_with_the_same_records() {
        let small: Vec<_> = (0..50).map(|i| events(i * 2, 1, 2)).collect();
        let one = merged(small.clone());
        assert_eq!(spans(&one), [(0, 100)]);
        assert_eq!(told(&one), told(&small));
        assert_eq!(one[0].head.arrival, 99, "of the newest record");

        let mixed = vec![events(0, 1, 2), events(2, 1, 1), events(3, 2, 1), events(4, 1, 1), events(9, 1, 1)];
        let kept = merged(mixed.clone());
        assert_eq!(spans(&kept), [(0, 3), (3, 4), (4, 5), (9, 10)], "another input, and a gap, lie between");
        assert_eq!(told(&kept), told(&mixed));
    }

    #[test]
    fn a_segment_has_at_most_its_records() {
        let small: Vec<_> = (0..SEGMENT_RECORDS_MAX as i64 / 1000 * 2).map(|i| events(i * 1000, 1, 1000)).collect();
        assert_eq!(spans(&merged(small)), [(0, 4000), (4000, 8000)]);
    }

    #[test]
    fn rows_of_other_columns_begin_a_segment() {
        let small = vec![rows(0, "a", 2), rows(2, "a", 1), rows(3, "b", 1), rows(4, "b", 2)];
        let kept = merged(small.clone());
        assert_eq!(spans(&kept), [(0, 3), (3, 6)]);
        assert_eq!(told(&kept), told(&small));
    }

    #[test]
    fn a_damaged_segment_and_its_neighbours_stay_as_they_are() {
        let mut small = vec![events(0, 1, 2), events(2, 1, 1)];
        let damaged = Sealed { checksum: 1, ..small[1].as_ref().clone() };
        small[1] = Arc::new(damaged);
        assert_eq!(merged(small.clone()), small);
    }
}
