//! The form of an event segment.
//!
//! In: raw events. Out: a dictionary of what their messages carried, a small head an event (arrival as a difference,
//! message, mark, length), then all payloads; and [`EventSegment`], which reads them in place. Invariant: arrival
//! decreases only where an era begins, and each event keeps its offset, also where those around it are left out. Not
//! here: compression and checksum (the envelope above), which input an event of a mixed segment came from (`mixed`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::NO_INPUT;
use super::mixed::InputRuns;
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
    /// from the first offset of the segment
    at: u16,
    input: u16,
}

/// Events in the order of their offsets; payloads stay in the segment's one allocation. Of a mixed segment those of the
/// inputs that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSegment {
    first: i64,
    end: i64,
    entries: Vec<EventPlace>,
    messages: Vec<Arc<MessageMeta>>,
    raw: Bytes,
}

/// One event of a segment.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    pub offset: i64,
    /// Which input it came from.
    pub input: u16,
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

    /// Events of one input.
    pub(super) fn decode(first: i64, input: u16, raw: Bytes) -> Result<EventSegment, Damaged> {
        let (mut entries, messages) = body(&mut ByteReader::new(&raw), raw.len())?;
        entries.iter_mut().for_each(|entry| entry.input = input);
        let end = first.checked_add(entries.len() as i64).ok_or(Damaged { at: 0 })?;
        Ok(EventSegment { first, end, entries, messages, raw })
    }

    /// Of a mixed segment the events of the inputs that are wanted; the payloads of others are let go.
    pub(super) fn decode_mixed(first: i64, raw: Bytes, wants: &dyn Fn(u16) -> bool) -> Result<EventSegment, Damaged> {
        let damaged = Damaged { at: 0 };
        let mut reader = ByteReader::new(&raw);
        let inputs = InputRuns::read(&mut reader)?;
        let (mut entries, messages) = body(&mut reader, raw.len())?;
        inputs.give(entries.iter_mut().map(|entry| &mut entry.input))?;
        let end = first.checked_add(entries.len() as i64).ok_or(damaged)?;
        let all = entries.len();
        entries.retain(|entry| wants(entry.input));
        if entries.len() == all {
            return Ok(EventSegment { first, end, entries, messages, raw });
        }
        let mut own = Vec::with_capacity(entries.iter().map(|entry| entry.length as usize).sum());
        for entry in &mut entries {
            let start = entry.start as usize;
            entry.start = u32::try_from(own.len()).map_err(|_| damaged)?;
            own.extend_from_slice(raw.get(start..start + entry.length as usize).ok_or(damaged)?);
        }
        Ok(EventSegment { first, end, entries, messages, raw: Bytes::from(own) })
    }

    /// Offset behind the last event, also of those that are left out.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// How many events each input has.
    pub(in crate::journal) fn inputs(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        self.entries.iter().for_each(|entry| *counts.entry(entry.input).or_default() += 1);
        counts
    }

    /// Offset of the first event.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// How many events there are.
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
            offset: self.offset(entry),
            input: entry.input,
            arrival: entry.arrival,
            payload: self.raw.get(start..start + entry.length as usize)?,
            message: self.messages.get(entry.message as usize)?,
            mark: entry.mark,
        })
    }

    fn offset(&self, entry: &EventPlace) -> i64 {
        self.first + i64::from(entry.at)
    }
}

/// Where the events lie, and what their messages carried: what a builder gave, up to the end of the bytes.
fn body(reader: &mut ByteReader<'_>, all: usize) -> Result<(Vec<EventPlace>, Vec<Arc<MessageMeta>>), Damaged> {
    let damaged = Damaged { at: 0 };
    let form = reader.byte()?;
    if !matches!(form, FORM | FORM_MQTT) {
        return Err(damaged);
    }
    let mut messages = Vec::new();
    for _ in 0..reader.length()? {
        messages.push(Arc::new(message(reader, form)?));
    }
    let count = reader.length()?;
    // an event has at least four bytes of head
    let mut entries = Vec::with_capacity(count.min(all / 4));
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
        let at = u16::try_from(i).map_err(|_| damaged)?;
        entries.push(EventPlace { arrival, start, length, message, mark, at, input: NO_INPUT });
    }
    let payloads = all.checked_sub(total).ok_or(damaged)?;
    reader.take(total)?;
    if !reader.is_done() {
        return Err(Damaged { at: payloads });
    }
    let base = u32::try_from(payloads).map_err(|_| damaged)?;
    for entry in &mut entries {
        entry.start = entry.start.checked_add(base).ok_or(damaged)?;
    }
    Ok((entries, messages))
}

/// Some of the events of a segment, in the order of their offsets. Cheap to clone and to keep.
#[derive(Clone, Debug)]
pub struct EventSlice {
    segment: Arc<EventSegment>,
    range: Range<usize>,
}

impl EventSlice {
    /// All events of a segment, of whichever inputs they are.
    pub(in crate::journal) fn all(segment: &Arc<EventSegment>) -> EventSlice {
        EventSlice { segment: segment.clone(), range: 0..segment.len() }
    }

    /// Events of one input, up to `max` of them, from an offset on. `None`: the segment has no more.
    pub(in crate::journal) fn of_one_input(segment: &Arc<EventSegment>, from: i64, max: usize) -> Option<EventSlice> {
        let start = segment.entries.partition_point(|entry| segment.offset(entry) < from);
        let left = segment.entries.get(start..)?;
        let input = left.first()?.input;
        let len = left.iter().take(max).take_while(|entry| entry.input == input).count();
        Some(EventSlice { segment: segment.clone(), range: start..start + len })
    }

    /// Which input the events came from.
    pub fn input(&self) -> u16 {
        self.segment.entries.get(self.range.start).map_or(NO_INPUT, |entry| entry.input)
    }

    /// Offset of the first event.
    pub fn first(&self) -> i64 {
        self.offset_at(self.range.start)
    }

    /// Offset of the next event that was asked for, or behind the segment: the position to commit once all of these
    /// are done.
    pub fn end(&self) -> i64 {
        self.offset_at(self.range.end)
    }

    fn offset_at(&self, i: usize) -> i64 {
        self.segment.entries.get(i).map_or(self.segment.end, |entry| self.segment.offset(entry))
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
mod tests;
