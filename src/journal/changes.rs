//! What one group commit changes, as the body of a record of the redo log.
//!
//! In: sealed segments, state, and the books before and after. Out: bytes, and from them the same again. Invariant:
//! numbers are written as they are afterwards, never as differences, and only where they changed. Not here: the file
//! (`redo`), what is done with it (`checkpoint`).

use smol_str::SmolStr;

use super::books::Books;
use super::ledger::{Counter, Edge};
use super::request::StateChange;
use super::segment::{Head, Sealed};
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, Damaged, put_bytes, put_signed, put_varint};

/// The form of a body.
const FORM: u8 = 1;

/// What a transaction adds to streams and states.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order of their offsets, by stream.
    pub sealed: Vec<Sealed>,
    /// With the consumer that each belongs to, in order.
    pub state: Vec<(u32, StateChange)>,
}

impl Changes {
    /// About how many bytes they are in a body and in memory.
    pub fn bytes(&self) -> usize {
        let segments: usize = self.sealed.iter().map(Sealed::bytes).sum();
        segments + self.state.iter().map(|(_, change)| state_bytes(change)).sum::<usize>()
    }

    pub fn encode(&self, before: &Books, after: &Books) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.bytes());
        out.push(FORM);
        put_varint(&mut out, self.sealed.len() as u64);
        self.sealed.iter().for_each(|sealed| put_sealed(&mut out, sealed));
        put_varint(&mut out, self.state.len() as u64);
        self.state.iter().for_each(|(consumer, change)| put_state(&mut out, *consumer, change));
        put_books(&mut out, before, after);
        out
    }

    /// Reads a body; the books become what they were after the commit.
    ///
    /// # Errors
    /// The bytes are no body: of another version, or damaged in spite of their checksum.
    pub fn decode(body: &[u8], books: &mut Books) -> Result<Changes, Damaged> {
        let mut reader = ByteReader::new(body);
        if reader.byte()? != FORM {
            return Err(Damaged { at: 0 });
        }
        let sealed = (0..reader.length()?).map(|_| sealed(&mut reader)).collect::<Result<_, _>>()?;
        let state = (0..reader.length()?).map(|_| state(&mut reader)).collect::<Result<_, _>>()?;
        take_books(&mut reader, books)?;
        if reader.is_done() { Ok(Changes { sealed, state }) } else { Err(Damaged { at: reader.position() }) }
    }
}

/// Whether a body says that nothing changed.
pub(super) fn is_nothing(body: &[u8]) -> bool {
    body == [FORM, 0, 0, 0, 0, 0]
}

pub(super) fn state_bytes(change: &StateChange) -> usize {
    32 + change.key.len() + change.value.as_ref().map_or(0, Vec::len)
}

fn put_sealed(out: &mut Vec<u8>, sealed: &Sealed) {
    let head = &sealed.head;
    put_varint(out, u64::from(head.stream));
    put_signed(out, head.first);
    put_varint(out, u64::from(head.input));
    put_varint(out, u64::from(head.count));
    put_signed(out, head.arrival);
    out.push(head.codec);
    put_varint(out, u64::from(head.raw_bytes));
    put_varint(out, u64::from(sealed.checksum));
    put_bytes(out, &sealed.data);
}

fn sealed(reader: &mut ByteReader<'_>) -> Result<Sealed, Damaged> {
    let head = Head {
        stream: number(reader)?,
        first: reader.signed()?,
        input: number(reader)?,
        count: number(reader)?,
        arrival: reader.signed()?,
        codec: reader.byte()?,
        raw_bytes: number(reader)?,
    };
    Ok(Sealed { head, checksum: number(reader)?, data: reader.bytes()?.to_vec() })
}

fn put_state(out: &mut Vec<u8>, consumer: u32, change: &StateChange) {
    put_varint(out, u64::from(consumer));
    put_varint(out, u64::from(change.op));
    put_bytes(out, &change.key);
    out.push(u8::from(change.value.is_some()));
    if let Some(value) = &change.value {
        put_bytes(out, value);
    }
}

fn state(reader: &mut ByteReader<'_>) -> Result<(u32, StateChange), Damaged> {
    let (consumer, op, key) = (number(reader)?, number(reader)?, reader.bytes()?.to_vec());
    let value = if reader.byte()? == 0 { None } else { Some(reader.bytes()?.to_vec()) };
    Ok((consumer, StateChange { op, key, value }))
}

fn put_books(out: &mut Vec<u8>, before: &Books, after: &Books) {
    let streams = after.streams.iter().filter(|(id, stream)| {
        before.streams.get(id).is_none_or(|b| (b.next, b.last_arrival) != (stream.next, stream.last_arrival))
    });
    put_list(out, streams, |out, (id, stream)| {
        put_varint(out, u64::from(*id));
        put_signed(out, stream.next);
        put_signed(out, stream.last_arrival.ticks());
    });
    let consumers = after
        .consumers
        .iter()
        .filter(|(id, consumer)| before.consumers.get(id).is_none_or(|b| b.position != consumer.position));
    put_list(out, consumers, |out, (id, consumer)| {
        put_varint(out, u64::from(*id));
        put_signed(out, consumer.position);
    });
    let counters = after.ledger.iter().filter(|(counter, value)| before.ledger.get(counter) != *value);
    put_list(out, counters, |out, (counter, value)| {
        put_bytes(out, counter.edge.as_str().as_bytes());
        put_bytes(out, counter.name.as_bytes());
        put_bytes(out, counter.what.as_bytes());
        put_bytes(out, counter.reason.as_bytes());
        put_varint(out, value);
    });
}

fn put_list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    let items: Vec<T> = items.collect();
    put_varint(out, items.len() as u64);
    items.into_iter().for_each(|item| put(out, item));
}

fn take_books(reader: &mut ByteReader<'_>, books: &mut Books) -> Result<(), Damaged> {
    for _ in 0..reader.length()? {
        let (id, next, arrival) = (number(reader)?, reader.signed()?, reader.signed()?);
        // one that is not in the file was removed later: nothing of it counts any more
        if let Some(stream) = books.streams.get_mut(&id) {
            (stream.next, stream.last_arrival) = (next, Timestamp::saturating_from_ticks(arrival));
        }
    }
    for _ in 0..reader.length()? {
        let (id, position) = (number(reader)?, reader.signed()?);
        if let Some(consumer) = books.consumers.get_mut(&id) {
            consumer.position = position;
        }
    }
    for _ in 0..reader.length()? {
        let edge = Edge::parse(reader.str()?);
        let mut text = || reader.str().map(SmolStr::new);
        let (name, what, reason) = (text()?, text()?, text()?);
        let value = reader.varint()?;
        // an edge of a newer program is not ours to interpret
        if let Some(edge) = edge {
            books.ledger.set(Counter { edge, name, what, reason }, value);
        }
    }
    Ok(())
}

fn number<T: TryFrom<u64>>(reader: &mut ByteReader<'_>) -> Result<T, Damaged> {
    let at = reader.position();
    T::try_from(reader.varint()?).map_err(|_| Damaged { at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::books::{ConsumerBook, StreamBook};
    use crate::journal::segment::{Draft, Sealer, SegmentKind};

    fn books(position: i64, next: i64, counted: u64) -> Books {
        let mut books = Books::default();
        let stream = |name: &str, next| StreamBook {
            name: name.into(),
            first: 0,
            next,
            last_arrival: Timestamp::saturating_from_ticks(next),
            trimmed_to: i64::MIN,
        };
        books.streams.insert(0, stream("inputs", next));
        books.streams.insert(1, stream("rows", 3));
        let consumer = ConsumerBook { name: "c".into(), position, ..ConsumerBook::default() };
        books.consumers.insert(2, consumer);
        books.ledger.add(Counter::new(Edge::Output, "o", "delivered"), counted);
        books.ledger.add(Counter::new(Edge::Input, "i", "dropped").because("empty"), 5);
        books
    }

    fn changes() -> Changes {
        let draft =
            Draft { stream: 0, first: -5, input: 3, count: 2, arrival: 7, raw: &[9; 700], kind: SegmentKind::Events };
        let change = |value: Option<&[u8]>| StateChange { op: 4, key: b"key".to_vec(), value: value.map(Vec::from) };
        Changes { sealed: vec![Sealer::new().seal(draft)], state: vec![(2, change(Some(b"value"))), (2, change(None))] }
    }

    #[test]
    fn what_was_changed_comes_back_and_what_was_not_stays() {
        let (before, after) = (books(10, 20, 1), books(11, 25, 4));
        let body = changes().encode(&before, &after);
        let mut read = before.clone();
        let decoded = Changes::decode(&body, &mut read).unwrap();
        assert_eq!((decoded.sealed, decoded.state), (changes().sealed, changes().state));
        assert_eq!((read.streams, read.consumers, read.ledger), (after.streams, after.consumers, after.ledger));

        let none = Changes::default().encode(&before, &before);
        assert!(is_nothing(&none) && !is_nothing(&body));
    }

    #[test]
    fn bytes_that_are_no_body_are_refused() {
        let (before, after) = (books(10, 20, 1), books(11, 25, 4));
        let body = changes().encode(&before, &after);
        for cut in 0..body.len() {
            assert!(Changes::decode(&body[..cut], &mut before.clone()).is_err(), "cut at {cut}");
        }
        let longer = [&body[..], &[0]].concat();
        assert!(Changes::decode(&longer, &mut before.clone()).is_err());
        let newer = [&[FORM + 1], &body[1..]].concat();
        assert_eq!(Changes::decode(&newer, &mut before.clone()).unwrap_err(), Damaged { at: 0 });
    }
}
