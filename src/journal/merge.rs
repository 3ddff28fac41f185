//! Makes full segments of small ones that lie side by side.
//!
//! In: sealed segments of one stream, in order. Out: the same records in as few segments as their bounds allow.
//! Invariant: every record keeps its offset, its arrival, its input and all else; only rows of one set of columns share
//! a segment, and events of several inputs only in a mixed one. Not here: which segments are merged, and when
//! (`checkpoint`, `compaction`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arrived::is_set_back;
use super::segment::{
    Damage, Draft, EventBuilder, EventSegment, EventSlice, Head, Opener, RowSegment, SEGMENT_RAW_BYTES,
    SEGMENT_RECORDS_MAX, Sealed, Sealer, Segment, SegmentKind, encode_rows, put_inputs,
};
use crate::batch::Rows;

/// A segment of this size is read as fast as a full one; merging it would only cost time.
const SMALL_BYTES: u32 = 64 << 10;

pub(super) fn is_small(head: &Head) -> bool {
    head.raw_bytes < SMALL_BYTES
}

/// What may become one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Together {
    /// Events of several inputs.
    pub inputs: bool,
    /// Records that came within so many ticks; `None`: whenever they came.
    pub span: Option<i64>,
}

impl Together {
    /// Whether records that came up to then may be with those that came from then on. Those of two eras are apart:
    /// a segment has one arrival.
    pub fn reaches(self, since: i64, until: i64) -> bool {
        !is_set_back(since, until) && self.span.is_none_or(|span| until.saturating_sub(since) <= span)
    }
}

/// What became of some segments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Merged {
    pub sealed: Arc<Sealed>,
    /// Of one that took the place of others: how many events each input has in it.
    pub inputs: Option<BTreeMap<u16, usize>>,
}

/// Merges neighbours; the tools are the writer's.
pub(super) struct Merger<'a> {
    pub opener: &'a mut Opener,
    pub sealer: &'a mut Sealer,
}

/// Segments that follow each other and become one.
struct Neighbours {
    parts: Vec<Arc<Sealed>>,
    records: usize,
    raw_bytes: usize,
}

impl Neighbours {
    fn of(sealed: Arc<Sealed>) -> Neighbours {
        Neighbours {
            records: sealed.head.count as usize,
            raw_bytes: sealed.head.raw_bytes as usize,
            parts: vec![sealed],
        }
    }

    fn is_small(&self) -> bool {
        self.raw_bytes < SMALL_BYTES as usize
    }

    /// Whether it ends where that one begins, and one segment holds both.
    fn has_room_for(&self, next: &Neighbours, together: Together) -> bool {
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else { return false };
        let (Some(then), Some(until)) = (next.parts.first(), next.parts.last()) else { return false };
        (last.head.stream, last.end()) == (then.head.stream, then.head.first)
            && self.records + next.records <= SEGMENT_RECORDS_MAX
            && self.raw_bytes + next.raw_bytes <= SEGMENT_RAW_BYTES
            && together.reaches(first.head.arrival, until.head.arrival)
    }

    fn add(&mut self, next: Neighbours) {
        self.records += next.records;
        self.raw_bytes += next.raw_bytes;
        self.parts.extend(next.parts);
    }
}

impl Merger<'_> {
    /// Gives fewer segments with the same records. A segment that does not open goes on as it is: whoever reads it sets
    /// it aside.
    pub fn merge(&mut self, segments: Vec<Arc<Sealed>>, together: Together) -> Vec<Merged> {
        let mut merged = Vec::new();
        for group in groups(segments, together) {
            match (group.parts.len() > 1).then(|| self.join(&group.parts)) {
                Some(Ok(joined)) => merged.extend(joined),
                Some(Err(_)) | None => {
                    merged.extend(group.parts.into_iter().map(|sealed| Merged { sealed, inputs: None }));
                }
            }
        }
        merged
    }

    fn join(&mut self, parts: &[Arc<Sealed>]) -> Result<Vec<Merged>, Damage> {
        let mut events = Vec::new();
        let mut rows: Vec<Arc<RowSegment>> = Vec::new();
        for sealed in parts {
            match self.opener.open(&sealed.head, sealed.checksum, sealed.data.clone())? {
                Segment::Events(segment) => events.push(segment),
                Segment::Rows(segment) => rows.push(segment),
            }
        }
        let Some(head) = parts.first().map(|first| first.head) else { return Ok(Vec::new()) };
        let arrival = parts.iter().map(|sealed| sealed.head.arrival).max().unwrap_or_default();
        let mut seal = |first: i64, count: usize, raw: &[u8], inputs: BTreeMap<u16, usize>, kind: SegmentKind| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let input = inputs.first_key_value().map_or(0, |(input, _)| *input);
            let sealed = self.sealer.seal(Draft { stream: head.stream, first, input, count, arrival, raw, kind });
            Merged { sealed: Arc::new(sealed), inputs: Some(inputs) }
        };
        if !events.is_empty() {
            let mut inputs = BTreeMap::new();
            for (input, count) in events.iter().flat_map(|segment| segment.inputs()) {
                *inputs.entry(input).or_default() += count;
            }
            let kind = if inputs.len() > 1 { SegmentKind::Mixed } else { SegmentKind::Events };
            let count = events.iter().map(|segment| segment.len()).sum();
            return Ok(vec![seal(head.first, count, &join_events(&events, kind), inputs, kind)]);
        }
        // rows that were given other columns begin a segment of their own
        let mut joined = Vec::new();
        for same in rows.chunk_by(|a, b| a.rows().columns == b.rows().columns) {
            let (Some(first), Some(all)) = (same.first(), join_rows(same)) else { continue };
            let raw = encode_rows(&all, 0..all.batch.len()).map_err(|_| Damage::Compression)?;
            joined.push(seal(first.first(), all.batch.len(), &raw, BTreeMap::new(), SegmentKind::Rows));
        }
        Ok(joined)
    }
}

/// First those of one input, so that a reader of another one passes a long stretch of them by its head alone; then
/// those of several inputs, as far as each stretch is small.
fn groups(segments: Vec<Arc<Sealed>>, together: Together) -> Vec<Neighbours> {
    let mut alike: Vec<Neighbours> = Vec::new();
    for next in segments.into_iter().map(Neighbours::of) {
        let is_alike = |last: &&mut Neighbours| match (last.parts.last(), next.parts.first()) {
            (Some(last), Some(next)) => {
                last.head.input == next.head.input && is_small(&last.head) && is_small(&next.head)
            }
            _ => false,
        };
        match alike.last_mut().filter(is_alike).filter(|last| last.has_room_for(&next, together)) {
            Some(last) => last.add(next),
            None => alike.push(next),
        }
    }
    if !together.inputs {
        return alike;
    }
    let mut groups: Vec<Neighbours> = Vec::new();
    let mut last_is_small = false;
    for next in alike {
        let is_small = next.is_small();
        let takes = |last: &&mut Neighbours| last_is_small && is_small && last.has_room_for(&next, together);
        match groups.last_mut().filter(takes) {
            Some(last) => last.add(next),
            None => groups.push(next),
        }
        last_is_small = is_small;
    }
    groups
}

fn join_events(segments: &[Arc<EventSegment>], kind: SegmentKind) -> Vec<u8> {
    let (mut builder, mut inputs) = (EventBuilder::default(), Vec::new());
    for slice in segments.iter().map(EventSlice::all) {
        inputs.extend(slice.iter().map(|event| event.input));
        slice.events().for_each(|event| builder.push(&event, event.arrival));
    }
    match kind {
        SegmentKind::Mixed => [put_inputs(&inputs), builder.finish()].concat(),
        SegmentKind::Events | SegmentKind::Rows => builder.finish(),
    }
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
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{Batch, Column, MessageMeta, RawEvent, RowMeta};
    use crate::journal::segment::EventRef;
    use crate::time::Timestamp;
    use crate::value::Value;

    fn at(ticks: i64) -> Timestamp {
        Timestamp::from_ticks(ticks).unwrap()
    }

    fn events(first: i64, input: u16, count: usize) -> Arc<Sealed> {
        let mut builder = EventBuilder::default();
        for i in 0..count as i64 {
            let message = MessageMeta { name: format!("t/{}", (first + i) % 3).into(), ..MessageMeta::default() };
            let payload = format!("{{\"n\":{},\"is\":\"a rather long text\"}}", first + i).into();
            let event = RawEvent { arrival: at(first + i), payload, message: Arc::new(message), mark: 7 };
            builder.push(&event, event.arrival);
        }
        let (count, arrival) = (builder.count(), builder.arrival().ticks());
        let raw = builder.finish();
        Arc::new(Sealer::new().seal(Draft {
            stream: 0,
            first,
            input,
            count,
            arrival,
            raw: &raw,
            kind: SegmentKind::Events,
        }))
    }

    fn rows(first: i64, column: &str, count: usize) -> Arc<Sealed> {
        let mut batch = Batch::new(1);
        for i in 0..count as i64 {
            let meta = RowMeta::new(at(first + i), at(first + i), first + i, 1);
            batch.push(meta, [Value::BigInt(first + i)]);
        }
        let all = Rows { columns: [Column { name: column.into(), spread: false }].into(), batch };
        let raw = encode_rows(&all, 0..count).unwrap();
        let (count, kind) = (count as u32, SegmentKind::Rows);
        let draft = Draft { stream: 4, first, input: 0, count, arrival: first, raw: &raw, kind };
        Arc::new(Sealer::new().seal(draft))
    }

    const ALL: Together = Together { inputs: true, span: None };

    fn merged_as(segments: &[Arc<Sealed>], together: Together) -> Vec<Merged> {
        Merger { opener: &mut Opener::default(), sealer: &mut Sealer::new() }.merge(segments.to_vec(), together)
    }

    fn merged(segments: Vec<Arc<Sealed>>) -> Vec<Arc<Sealed>> {
        merged_as(&segments, ALL).into_iter().map(|merged| merged.sealed).collect()
    }

    fn spans(segments: &[Arc<Sealed>]) -> Vec<(i64, i64)> {
        segments.iter().map(|sealed| (sealed.head.first, sealed.end())).collect()
    }

    /// Everything that the records of event segments say.
    fn told(segments: &[Arc<Sealed>]) -> Vec<String> {
        told_to(segments, &|_| true)
    }

    /// As `told`, to a reader of some inputs.
    fn told_to(segments: &[Arc<Sealed>], wants: &dyn Fn(u16) -> bool) -> Vec<String> {
        let text = |e: EventRef<'_>| {
            format!("{} {} {:?} {:?} {:?} {}", e.offset, e.input, e.arrival, e.payload, e.message, e.mark)
        };
        let mut opener = Opener::default();
        let open = |sealed: &Arc<Sealed>| match opener
            .open_for(&sealed.head, sealed.checksum, sealed.data.clone(), wants)
            .unwrap()
        {
            Segment::Events(segment) => {
                assert_eq!(Segment::Events(segment.clone()).end(), sealed.end());
                let events = (0..segment.len()).map(|i| segment.get(i).unwrap());
                events.filter(|event| wants(event.input)).map(text).collect::<Vec<_>>()
            }
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

        let gap = vec![events(0, 1, 2), events(2, 1, 1), events(9, 1, 1)];
        let kept = merged(gap.clone());
        assert_eq!(spans(&kept), [(0, 3), (9, 10)], "a gap lies between");
        assert_eq!(told(&kept), told(&gap));
    }

    #[test]
    fn inputs_that_come_by_turns_become_one_mixed_segment() {
        let turns: Vec<_> = (0..60).map(|i| events(i, 1 + (i % 3) as u16, 1)).collect();
        let found = merged_as(&turns, ALL);
        assert_eq!(found.len(), 1);
        let mixed = &found[0].sealed;
        assert!(mixed.head.is_mixed() && mixed.head.input == 0, "{:?}", mixed.head);
        assert_eq!(found[0].inputs, Some(BTreeMap::from([(1, 20), (2, 20), (3, 20)])));
        assert_eq!(told(std::slice::from_ref(mixed)), told(&turns));
        let own = |input| told_to(std::slice::from_ref(mixed), &move |of| of == input);
        assert_eq!((own(2), own(4)), (told_to(&turns, &|of| of == 2), Vec::new()));
        assert!(own(2)[1].starts_with("4 2 "), "each keeps its offset: {}", own(2)[1]);

        let apart = merged_as(&turns, Together { inputs: false, ..ALL });
        assert!(apart.iter().all(|merged| merged.inputs.is_none()), "nothing is joined");
        // and what is mixed goes on with what comes behind it, of one input or of several
        let more = [vec![mixed.clone()], (60..70).map(|i| events(i, 1, 1)).collect(), vec![events(70, 2, 1)]].concat();
        let all = merged(more.clone());
        assert_eq!(spans(&all), [(0, 71)]);
        assert_eq!(told(&all), told(&more));
    }

    #[test]
    fn a_long_stretch_of_one_input_is_passed_by_its_head() {
        let of = |input: u16, range: std::ops::Range<i64>| range.map(move |i| events(i * 10, input, 10));
        let segments: Vec<_> = of(1, 0..3).chain(of(2, 3..300)).chain(of(1, 300..302)).chain(of(3, 302..304)).collect();
        let found = merged_as(&segments, ALL);
        let heads: Vec<_> = found.iter().map(|merged| (merged.sealed.head.first, merged.sealed.head.input)).collect();
        assert_eq!(heads, [(0, 1), (30, 2), (3_000, 0)]);
    }

    #[test]
    fn records_that_came_too_far_apart_are_not_joined() {
        let segments: Vec<_> = (0..40).map(|i| events(i, 1 + (i % 2) as u16, 1)).collect();
        let found = merged_as(&segments, Together { span: Some(9), ..ALL });
        assert!(found.iter().all(|merged| merged.sealed.head.count == 10), "a tick a record: {found:?}");
        assert_eq!(found.len(), 4);
    }

    proptest! {
        #[test]
        fn whoever_asks_is_told_the_same_of_merged_segments(
            runs in prop::collection::vec((1u16..5, 1usize..40), 1..60),
            cuts in prop::collection::vec(1usize..20, 1..6),
            wanted in prop::collection::vec(any::<bool>(), 5),
        ) {
            let mut next = 0;
            let single: Vec<_> = runs.iter().map(|(input, count)| {
                next += *count as i64;
                events(next - *count as i64, *input, *count)
            }).collect();
            let wants = |input: u16| wanted[usize::from(input)];
            // in stretches, as checkpoints do, and then these again
            let (mut once, mut rest, mut at) = (Vec::new(), &single[..], 0);
            while !rest.is_empty() {
                let (some, behind) = rest.split_at(cuts[at % cuts.len()].min(rest.len()));
                once.extend(merged(some.to_vec()));
                (rest, at) = (behind, at + 1);
            }
            let twice = merged(once.clone());
            for segments in [&once, &twice] {
                prop_assert_eq!(told_to(segments, &wants), told_to(&single, &wants));
                prop_assert!(spans(segments).windows(2).all(|pair| pair[0].1 == pair[1].0));
            }
            let again = merged_as(&twice, ALL);
            prop_assert!(again.len() == twice.len() || next > SEGMENT_RECORDS_MAX as i64 || again.len() < twice.len());
        }
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
