//! The form of an event segment.
//!
//! In: raw events of one input. Out: a dictionary of what their messages carried, a small head an event (arrival as a
//! difference, message, packet id, length), then all payloads; and [`EventSegment`], which reads them in place.
//! Invariant: arrival never decreases inside a segment. Not here: compression and checksum (the envelope above).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::batch::{MessageMeta, RawEvent};
use crate::time::Timestamp;
use crate::value::codec::{Damaged, Reader, put_bytes, put_signed, put_varint};

const FORM: u8 = 1;

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

    /// Adds an event; `arrival` must not be below that of the event before.
    pub fn push(&mut self, event: &RawEvent, arrival: Timestamp) {
        let message = match &self.last_message {
            Some((last, index)) if Arc::ptr_eq(last, &event.message) => *index,
            _ => self.message(&event.message),
        };
        if self.count == 0 {
            put_signed(&mut self.heads, arrival.ticks());
        } else {
            put_varint(&mut self.heads, arrival.ticks().abs_diff(self.last_arrival.ticks()));
        }
        self.last_arrival = arrival;
        put_varint(&mut self.heads, message);
        put_varint(&mut self.heads, u64::from(event.packet_id));
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
    put_bytes(out, meta.topic.as_bytes());
    out.push(meta.qos);
    out.push(u8::from(meta.retain));
    put_varint(out, meta.user_properties.len() as u64);
    for (name, value) in &meta.user_properties {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn message(reader: &mut Reader<'_>) -> Result<MessageMeta, Damaged> {
    let topic = SmolStr::new(reader.str()?);
    let (qos, retain) = (reader.byte()?, reader.byte()? != 0);
    let properties = reader.length()?;
    let mut user_properties = Vec::new();
    for _ in 0..properties {
        user_properties.push((SmolStr::new(reader.str()?), SmolStr::new(reader.str()?)));
    }
    Ok(MessageMeta { topic, qos, retain, user_properties })
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    arrival: Timestamp,
    /// where the payload starts in the segment's bytes
    start: u32,
    length: u32,
    message: u32,
    packet_id: u16,
}

/// Events of one input, in order; payloads stay in the segment's one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSegment {
    first: i64,
    input: u16,
    entries: Vec<Entry>,
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
    pub packet_id: u16,
}

impl EventSegment {
    /// From what a builder gave.
    pub(in crate::journal) fn from_raw(first: i64, input: u16, raw: Vec<u8>) -> Result<EventSegment, Damaged> {
        EventSegment::decode(first, input, Bytes::from(raw))
    }

    pub(super) fn decode(first: i64, input: u16, raw: Bytes) -> Result<EventSegment, Damaged> {
        let damaged = Damaged { at: 0 };
        let mut reader = Reader::new(&raw);
        if reader.byte()? != FORM {
            return Err(damaged);
        }
        let mut messages = Vec::new();
        for _ in 0..reader.length()? {
            messages.push(Arc::new(message(&mut reader)?));
        }
        let count = reader.length()?;
        // an event has at least four bytes of head
        let mut entries = Vec::with_capacity(count.min(raw.len() / 4));
        let mut ticks = if count > 0 { reader.signed()? } else { 0 };
        let mut total = 0usize;
        for i in 0..count {
            if i > 0 {
                ticks = i64::try_from(reader.varint()?).ok().and_then(|d| ticks.checked_add(d)).ok_or(damaged)?;
            }
            let arrival = Timestamp::from_ticks(ticks).ok_or(damaged)?;
            let message = u32::try_from(reader.varint()?).map_err(|_| damaged)?;
            let packet_id = u16::try_from(reader.varint()?).map_err(|_| damaged)?;
            let length = u32::try_from(reader.varint()?).map_err(|_| damaged)?;
            if message as usize >= messages.len() {
                return Err(damaged);
            }
            let start = u32::try_from(total).map_err(|_| damaged)?;
            total = total.checked_add(length as usize).ok_or(damaged)?;
            entries.push(Entry { arrival, start, length, message, packet_id });
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
        self.raw.len() + self.entries.len() * size_of::<Entry>() + self.messages.len() * size_of::<MessageMeta>()
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
            packet_id: entry.packet_id,
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
            packet_id: event.packet_id,
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
        (".{0,30}", 0u8..3, any::<bool>(), prop::collection::vec((".{0,5}", ".{0,5}"), 0..3)).prop_map(
            |(topic, qos, retain, properties)| {
                let user_properties = properties.into_iter().map(|(n, v)| (SmolStr::new(n), SmolStr::new(v))).collect();
                MessageMeta { topic: topic.into(), qos, retain, user_properties }
            },
        )
    }

    /// Arrival step, payload, which meta, packet id.
    type Given = (i64, Vec<u8>, prop::sample::Index, u16);

    fn events() -> impl Strategy<Value = (Vec<MessageMeta>, Vec<Given>)> {
        let event = (0i64..1 << 40, prop::collection::vec(any::<u8>(), 0..40), any::<prop::sample::Index>(), any::<u16>());
        (prop::collection::vec(metas(), 1..4), prop::collection::vec(event, 0..40))
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes((metas, events) in events(), first in 0..i64::MAX / 2) {
            let shared: Vec<Arc<MessageMeta>> = metas.into_iter().map(Arc::new).collect();
            let mut builder = EventBuilder::default();
            let mut arrival = Timestamp::MIN;
            let mut given = Vec::new();
            for (step, payload, meta, packet_id) in events {
                arrival = arrival.saturating_add(step);
                let message = meta.get(&shared).clone();
                let event = RawEvent { arrival, payload: Bytes::from(payload), message, packet_id };
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
                prop_assert_eq!(read.packet_id, event.packet_id);
            }
        }

        #[test]
        fn a_changed_byte_never_panics((metas, events) in events(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut builder = EventBuilder::default();
            for (_, payload, meta, packet_id) in events {
                let message = Arc::new(meta.get(&metas).clone());
                builder.push(&RawEvent { arrival: Timestamp::MIN, payload: Bytes::from(payload), message, packet_id }, Timestamp::MIN);
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
            let message = Arc::new(MessageMeta { topic: "plant/line/7/temperature".into(), ..MessageMeta::default() });
            builder.push(&RawEvent { arrival: Timestamp::MIN, payload: Bytes::new(), message, packet_id: 0 }, Timestamp::MIN);
        }
        assert!(builder.finish().len() < 500);
    }
}
