//! The form of an event segment.
//!
//! In: raw events of one input. Out: a dictionary of what their messages carried, a small head an event (arrival as a
//! difference, message, mark, length), then all payloads; and [`EventSegment`], which reads them in place. Invariant:
//! arrival decreases only where an era begins. Not here: compression and checksum (the envelope above).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::batch::{MessageMeta, RawEvent};
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_signed, put_varint};

/// What is written.
const FORM: u8 = 2;
/// What version 0.1.0 wrote: quality of service and retain flag of MQTT as bytes of their own, before the properties.
const FORM_MQTT: u8 = 1;

/// Collects events until a segment is full.
#[derive(Debug, Default)]
pub struct EventBuilder {
    messages: FxHashMap<Arc<MessageMeta>, u64>,
    dictionary: Vec<u8>,
    heads: Vec<u8>,
    payloads: Vec<u8>,
    count: u32,
    /// of the event before: most events share their message's meta with it
    last_message: Option<(Arc<MessageMeta>, u64)>,
    last_arrival: Timestamp,
}

impl EventBuilder {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, before compression.
    pub fn bytes(&self) -> usize {
        self.dictionary.len() + self.heads.len() + self.payloads.len()
    }

    /// Arrival of the newest event.
    pub fn arrival(&self) -> Timestamp {
        self.last_arrival
    }

    /// Adds an event. Its arrival is below that of the event before only where an era begins.
    pub fn push(&mut self, event: &RawEvent, arrival: Timestamp) {
        let message = match &self.last_message {
            Some((last, index)) if Arc::ptr_eq(last, &event.message) => *index,
            _ => self.message(&event.message),
        };
        if self.count == 0 {
            put_signed(&mut self.heads, arrival.ticks());
        } else {
            // a difference below 0 is written as 64 bits of two's complement
            let difference = arrival.ticks().wrapping_sub(self.last_arrival.ticks());
            put_varint(&mut self.heads, difference.cast_unsigned());
        }
        self.last_arrival = arrival;
        put_varint(&mut self.heads, message);
        put_varint(&mut self.heads, event.mark);
        put_varint(&mut self.heads, event.payload.len() as u64);
        self.payloads.extend_from_slice(&event.payload);
        self.count += 1;
    }

    fn message(&mut self, meta: &Arc<MessageMeta>) -> u64 {
        let next = self.messages.len() as u64;
        let index = match self.messages.get(meta) {
            Some(index) => *index,
            None => {
                put_message(&mut self.dictionary, meta);
                self.messages.insert(meta.clone(), next);
                next
            }
        };
        self.last_message = Some((meta.clone(), index));
        index
    }

    /// The segment's bytes; the builder is empty again and keeps its buffers.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.bytes() + 16);
        raw.push(FORM);
        put_varint(&mut raw, self.messages.len() as u64);
        raw.append(&mut self.dictionary);
        put_varint(&mut raw, u64::from(self.count));
        raw.append(&mut self.heads);
        raw.append(&mut self.payloads);
        self.messages.clear();
        self.last_message = None;
        self.count = 0;
        raw
    }
}

fn put_message(out: &mut Vec<u8>, meta: &MessageMeta) {
    put_bytes(out, meta.name.as_bytes());
    put_pairs(out, &meta.facts);
    put_pairs(out, &meta.properties);
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[(SmolStr, SmolStr)]) {
    put_varint(out, pairs.len() as u64);
    for (name, value) in pairs {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn message(reader: &mut ByteReader<'_>, form: u8) -> Result<MessageMeta, Damaged> {
    let name = SmolStr::new(reader.str()?);
    let facts = match form {
        FORM_MQTT => mqtt_facts(reader.byte()?, reader.byte()? != 0),
        _ => pairs(reader)?,
    };
    Ok(MessageMeta { name, facts, properties: pairs(reader)? })
}

fn pairs(reader: &mut ByteReader<'_>) -> Result<Vec<(SmolStr, SmolStr)>, Damaged> {
    let mut pairs = Vec::new();
    for _ in 0..reader.length()? {
        pairs.push((SmolStr::new(reader.str()?), SmolStr::new(reader.str()?)));
    }
    Ok(pairs)
}

/// The facts that the first form has as bytes, where they are not zero, as a source gives them now.
fn mqtt_facts(qos: u8, retain: bool) -> Vec<(SmolStr, SmolStr)> {
    let qos = (qos > 0).then(|| (SmolStr::new_static("qos"), smol_str::format_smolstr!("{qos}")));
    qos.into_iter().chain(retain.then(|| (SmolStr::new_static("retain"), SmolStr::new_static("true")))).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct EventPlace {
    arrival: Timestamp,
    /// where the payload starts in the segment's bytes
    start: u32,
    length: u32,
    message: u32,
    mark: u64,
}

/// Events of one input, in order; payloads stay in the segment's one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSegment {
    first: i64,
    input: u16,
    entries: Vec<EventPlace>,
    messages: Vec<Arc<MessageMeta>>,
    raw: Bytes,
}

/// One event of a segment.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    pub offset: i64,
    pub arrival: Timestamp,
    pub payload: &'a [u8],
    pub message: &'a Arc<MessageMeta>,
    /// 0 for none
    pub mark: u64,
}

impl EventSegment {
    /// From what a builder gave.
    pub(in crate::journal) fn from_raw(first: i64, input: u16, raw: Vec<u8>) -> Result<EventSegment, Damaged> {
        EventSegment::decode(first, input, Bytes::from(raw))
    }

    pub(super) fn decode(first: i64, input: u16, raw: Bytes) -> Result<EventSegment, Damaged> {
        let damaged = Damaged { at: 0 };
        let mut reader = ByteReader::new(&raw);
        let form = reader.byte()?;
        if !matches!(form, FORM | FORM_MQTT) {
            return Err(damaged);
        }
        let mut messages = Vec::new();
        for _ in 0..reader.length()? {
            messages.push(Arc::new(message(&mut reader, form)?));
        }
        let count = reader.length()?;
        // an event has at least four bytes of head
        let mut entries = Vec::with_capacity(count.min(raw.len() / 4));
        let mut ticks = if count > 0 { reader.signed()? } else { 0 };
        let mut total = 0usize;
        for i in 0..count {
            if i > 0 {
                ticks = ticks.checked_add(reader.varint()?.cast_signed()).ok_or(damaged)?;
            }
            let arrival = Timestamp::from_ticks(ticks).ok_or(damaged)?;
            let message = u32::try_from(reader.varint()?).map_err(|_| damaged)?;
            let mark = reader.varint()?;
            let length = u32::try_from(reader.varint()?).map_err(|_| damaged)?;
            if message as usize >= messages.len() {
                return Err(damaged);
            }
            let start = u32::try_from(total).map_err(|_| damaged)?;
            total = total.checked_add(length as usize).ok_or(damaged)?;
            entries.push(EventPlace { arrival, start, length, message, mark });
        }
        let payloads = raw.len().checked_sub(total).ok_or(damaged)?;
        reader.take(total)?;
        if !reader.is_done() {
            return Err(Damaged { at: payloads });
        }
        let base = u32::try_from(payloads).map_err(|_| damaged)?;
        for entry in &mut entries {
            entry.start = entry.start.checked_add(base).ok_or(damaged)?;
        }
        Ok(EventSegment { first, input, entries, messages, raw })
    }

    /// Offset of the first event.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Which input it came from.
    pub fn input(&self) -> u16 {
        self.input
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.raw.len() + self.entries.len() * size_of::<EventPlace>() + self.messages.len() * size_of::<MessageMeta>()
    }

    /// Event `i` of the segment.
    pub fn get(&self, i: usize) -> Option<EventRef<'_>> {
        let entry = self.entries.get(i)?;
        let start = entry.start as usize;
        Some(EventRef {
            offset: self.first + i as i64,
            arrival: entry.arrival,
            payload: self.raw.get(start..start + entry.length as usize)?,
            message: self.messages.get(entry.message as usize)?,
            mark: entry.mark,
        })
    }
}

/// Some of the events of a segment, in order. Cheap to clone and to keep.
#[derive(Clone, Debug)]
pub struct EventSlice {
    segment: Arc<EventSegment>,
    range: Range<usize>,
}

impl EventSlice {
    pub(in crate::journal) fn new(segment: Arc<EventSegment>, range: Range<usize>) -> EventSlice {
        EventSlice { segment, range }
    }

    /// Which input the events came from.
    pub fn input(&self) -> u16 {
        self.segment.input
    }

    /// Offset of the first event.
    pub fn first(&self) -> i64 {
        self.segment.first + self.range.start as i64
    }

    /// Offset behind the last event: the position to commit once all of them are done.
    pub fn end(&self) -> i64 {
        self.segment.first + self.range.end as i64
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = EventRef<'_>> {
        self.range.clone().filter_map(|i| self.segment.get(i))
    }

    /// The events as they were appended; payloads share the segment's memory.
    pub fn events(&self) -> impl Iterator<Item = RawEvent> {
        self.iter().map(|event| RawEvent {
            arrival: event.arrival,
            payload: self.segment.raw.slice_ref(event.payload),
            message: event.message.clone(),
            mark: event.mark,
        })
    }

    /// About how many bytes the events take.
    pub fn bytes(&self) -> usize {
        share(self.segment.bytes(), self.range.len(), self.segment.len())
    }

    /// The payload of event `i` of the slice, sharing the segment's memory.
    pub fn payload(&self, i: usize) -> Option<Bytes> {
        let index = self.range.start.checked_add(i).filter(|i| *i < self.range.end)?;
        self.segment.get(index).map(|event| self.segment.raw.slice_ref(event.payload))
    }
}

/// The part of `bytes` that `n` of `all` records take.
pub(super) fn share(bytes: usize, n: usize, all: usize) -> usize {
    if n == all { bytes } else { (bytes as u64 * n as u64 / all.max(1) as u64) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metas() -> impl Strategy<Value = MessageMeta> {
        let pairs = || prop::collection::vec((".{0,5}", ".{0,5}").prop_map(|(n, v)| (n.into(), v.into())), 0..3);
        (".{0,30}", pairs(), pairs()).prop_map(|(name, properties, facts)| MessageMeta {
            name: name.into(),
            properties,
            facts,
        })
    }

    /// Arrival step, payload, which meta, mark.
    type Given = (i64, Vec<u8>, prop::sample::Index, u64);

    fn events() -> impl Strategy<Value = (Vec<MessageMeta>, Vec<Given>)> {
        let event =
            (0i64..1 << 40, prop::collection::vec(any::<u8>(), 0..40), any::<prop::sample::Index>(), any::<u64>());
        (prop::collection::vec(metas(), 1..4), prop::collection::vec(event, 0..40))
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes((metas, events) in events(), first in 0..i64::MAX / 2) {
            let shared: Vec<Arc<MessageMeta>> = metas.into_iter().map(Arc::new).collect();
            let mut builder = EventBuilder::default();
            let mut arrival = Timestamp::MIN;
            let mut given = Vec::new();
            for (step, payload, meta, mark) in events {
                arrival = arrival.saturating_add(step);
                let message = meta.get(&shared).clone();
                let event = RawEvent { arrival, payload: Bytes::from(payload), message, mark };
                builder.push(&event, arrival);
                given.push(event);
            }
            let segment = EventSegment::decode(first, 7, Bytes::from(builder.finish())).unwrap();
            prop_assert!(builder.is_empty());
            prop_assert_eq!(segment.len(), given.len());
            for (i, event) in given.iter().enumerate() {
                let read = segment.get(i).unwrap();
                prop_assert_eq!(read.offset, first + i as i64);
                prop_assert_eq!(read.arrival, event.arrival);
                prop_assert_eq!(read.payload, &event.payload[..]);
                prop_assert_eq!(read.message, &event.message);
                prop_assert_eq!(read.mark, event.mark);
            }
        }

        #[test]
        fn a_changed_byte_never_panics(
            (metas, events) in events(),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut builder = EventBuilder::default();
            for (_, payload, meta, mark) in events {
                let message = Arc::new(meta.get(&metas).clone());
                builder.push(
                    &RawEvent { arrival: Timestamp::MIN, payload: Bytes::from(payload), message, mark },
                    Timestamp::MIN,
                );
            }
            let mut raw = builder.finish();
            let at = at.index(raw.len());
            raw[at] = to;
            if let Ok(segment) = EventSegment::decode(0, 1, Bytes::from(raw)) {
                prop_assert!((0..segment.len()).all(|i| segment.get(i).is_some()));
            }
        }
    }

    #[test]
    fn equal_messages_are_stored_once() {
        let mut builder = EventBuilder::default();
        for _ in 0..100 {
            let message = Arc::new(MessageMeta { name: "plant/line/7/temperature".into(), ..MessageMeta::default() });
            builder
                .push(&RawEvent { arrival: Timestamp::MIN, payload: Bytes::new(), message, mark: 0 }, Timestamp::MIN);
        }
        assert!(builder.finish().len() < 500);
    }

    #[test]
    fn the_first_form_is_still_read() {
        let mut raw = vec![FORM_MQTT, 2];
        for (topic, qos, retain, property) in [("a/1", 1, 0, None), ("a/2", 0, 1, Some(("site", "north")))] {
            put_bytes(&mut raw, topic.as_bytes());
            raw.extend([qos, retain]);
            put_varint(&mut raw, property.iter().count() as u64);
            if let Some((name, value)) = property {
                put_bytes(&mut raw, name.as_bytes());
                put_bytes(&mut raw, value.as_bytes());
            }
        }
        raw.push(2);
        put_signed(&mut raw, 1_000);
        // message, packet id, length; then the difference of arrivals and the same again
        raw.extend([0, 7, 1, 5, 1, 0, 2]);
        raw.extend(b"xyz");
        let segment = EventSegment::decode(40, 3, Bytes::from(raw)).unwrap();
        let pair = |name: &str, value: &str| vec![(SmolStr::new(name), SmolStr::new(value))];
        let read: Vec<_> =
            (0..2).filter_map(|i| segment.get(i)).map(|e| (e.offset, e.arrival.ticks(), e.mark, e.payload)).collect();
        assert_eq!(read, [(40, 1_000, 7, &b"x"[..]), (41, 1_005, 0, b"yz")]);
        let first = MessageMeta { name: "a/1".into(), facts: pair("qos", "1"), ..MessageMeta::default() };
        let second =
            MessageMeta { name: "a/2".into(), facts: pair("retain", "true"), properties: pair("site", "north") };
        assert_eq!([&**segment.get(0).unwrap().message, segment.get(1).unwrap().message], [&first, &second]);
    }
}
