//! Tells a redelivered message from a new one.
//!
//! In: publishes in receive order, and at start the newest records of the journal. Out: [`Recognition`]. Invariant: a
//! message is called redelivered only when packet id, topic and payload equal those of the last stored message with
//! that packet id in this session. Not here: what is done about it. A broker that gives a packet id to the next message
//! at once, instead of counting on, defeats this across a crash when both messages are equal: MQTT gives no more to
//! tell them by.
//!
//! Two brokers send again in another way than MQTT says. mochi 2.7.9 sends what a resumed session owes with DUP, and
//! again without it when there are more messages than the receive maximum. Artemis 2.42 sends it first of all, with new
//! packet ids and without DUP. Neither can be told from a new message that is equal, so these are possible repeats.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::decode::{self, BAD_PARTS_MAX};
use crate::source::RecentRecord;

/// What a publish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Append it.
    New,
    /// It is stored already: acknowledge, do not append.
    Redelivered,
    /// It is received and not acknowledged yet: that will be done, once.
    Held,
    /// The broker sent it before, and whether it was stored then cannot be told: append it.
    Possible,
}

/// The last messages of the session.
#[derive(Debug)]
pub struct Seen {
    by_packet: FxHashMap<u16, Delivered>,
    /// Packet ids in the order of recording, with the stamp of the entry they stand for.
    order: VecDeque<(u16, u64)>,
    stamp: u64,
    capacity: usize,
    /// The broker resumed the session that the entries are of.
    resumed: bool,
    /// The entries reach back over everything the broker may send again.
    complete: bool,
    /// Counts connections.
    connection: u64,
    /// What was seen before the session was resumed, while nothing else has come: topic, and payload or its content.
    head: Option<FxHashSet<(u64, u64)>>,
}

#[derive(Debug)]
struct Delivered {
    stamp: u64,
    topic: u64,
    /// Of the payload as it came, when the mark has it; else 0.
    content: u64,
    last: Part,
    /// The last connection in which it came with DUP; 0 for none.
    repeated_in: u64,
    /// Parts before the last one, when the journal cut the message into records.
    earlier: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    len: usize,
    hash: u64,
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The mark of a message: its packet id, and above it what tells its payload from others. `keeps_bytes`: the payload is
/// stored as it came, so the packet id alone will do and takes fewer bytes.
pub fn mark(packet_id: u16, payload: &[u8], keeps_bytes: bool) -> u64 {
    let content = if keeps_bytes { 0 } else { content(payload) };
    content << 16 | u64::from(packet_id)
}

/// Packet id and content of a mark.
fn parts_of(mark: u64) -> (u16, u64) {
    ((mark & 0xffff) as u16, mark >> 16)
}

/// 48 bits of checksum and length, never 0. It lies in the journal, so it must not change from one version to the next.
fn content(payload: &[u8]) -> u64 {
    ((payload.len() as u64 & 0xffff) << 32 | u64::from(crc32fast::hash(payload))).max(1)
}

impl Part {
    fn of(bytes: &[u8]) -> Part {
        Part { len: bytes.len(), hash: hash(bytes) }
    }

    /// `bytes` without this part at its end.
    fn strip_from(self, bytes: &[u8]) -> Option<&[u8]> {
        let (head, tail) = bytes.split_at_checked(bytes.len().checked_sub(self.len)?)?;
        (hash(tail) == self.hash).then_some(head)
    }
}

impl Seen {
    /// Keeps the last `capacity` messages (at least one).
    pub fn new(capacity: usize) -> Seen {
        let capacity = capacity.max(1);
        Seen {
            by_packet: FxHashMap::default(),
            order: VecDeque::new(),
            stamp: 0,
            capacity,
            resumed: false,
            complete: false,
            connection: 0,
            head: None,
        }
    }

    /// Fills in what the journal holds, oldest first. Neighbours with one packet id and topic count as one message.
    pub fn seed<'a>(&mut self, records: impl IntoIterator<Item = RecentRecord<'a>>) {
        let mut before = 0;
        for record in records {
            let (packet_id, content) = parts_of(record.mark);
            // records without a packet id are skipped
            if packet_id != 0 {
                let topic = hash(record.name.as_bytes());
                let part = Part::of(record.payload);
                match self.by_packet.get_mut(&packet_id) {
                    Some(entry) if before == packet_id && entry.topic == topic => {
                        entry.earlier.push(std::mem::replace(&mut entry.last, part));
                    }
                    _ => {
                        let entry =
                            Delivered { stamp: 0, topic, content, last: part, repeated_in: 0, earlier: Vec::new() };
                        self.insert(packet_id, entry);
                    }
                }
                self.complete = true;
            }
            before = packet_id;
        }
    }

    /// A connection is up; `resumed` is the broker's session-present flag.
    pub fn connected(&mut self, resumed: bool) {
        self.resumed = resumed;
        self.connection += 1;
        if !resumed {
            // packet ids start over, so what was seen before says nothing any more, and from here on all is seen
            self.by_packet.clear();
            self.order.clear();
            self.complete = true;
        }
        let whole = self.by_packet.values().filter(|entry| entry.earlier.is_empty());
        self.head = Some(whole.map(|entry| (entry.topic, entry.key())).collect());
    }

    /// Judges a publish with a packet id and, unless it was stored or is held, remembers it. `is_held`: a message with
    /// this packet id is received and not acknowledged; asked only where it matters.
    pub fn judge(
        &mut self,
        packet_id: u16,
        dup: bool,
        topic: &str,
        payload: &[u8],
        is_held: impl FnOnce() -> bool,
    ) -> Recognition {
        let topic_hash = hash(topic.as_bytes());
        let connection = self.connection;
        let known = self.by_packet.get_mut(&packet_id);
        let known = known.filter(|entry| (dup || entry.repeated_in == connection) && entry.is(topic_hash, payload));
        let mut is_second = false;
        match known {
            Some(entry) if dup && self.resumed => {
                entry.repeated_in = connection;
                return Recognition::Redelivered;
            }
            // until it is acknowledged the packet id cannot be that of another message
            Some(_) if !dup && is_held() => return Recognition::Held,
            Some(_) => is_second = !dup,
            None => {}
        }
        let is_in_head = !dup && self.is_in_head(topic_hash, payload);
        let entry = Delivered {
            stamp: 0,
            topic: topic_hash,
            content: 0,
            last: Part::of(payload),
            repeated_in: if dup { connection } else { 0 },
            earlier: Vec::new(),
        };
        self.insert(packet_id, entry);
        let is_possible = is_second || is_in_head || (dup && !(self.resumed && self.complete));
        if is_possible { Recognition::Possible } else { Recognition::New }
    }

    /// Whether it equals a message of before, as all have that came so far.
    fn is_in_head(&mut self, topic: u64, payload: &[u8]) -> bool {
        let Some(head) = &mut self.head else { return false };
        let is_in = head.remove(&(topic, hash(payload))) || head.remove(&(topic, content(payload)));
        if !is_in {
            self.head = None;
        }
        is_in
    }

    /// The message with this packet id was not stored after all.
    pub fn forget(&mut self, packet_id: u16) {
        self.by_packet.remove(&packet_id);
    }

    fn insert(&mut self, packet_id: u16, entry: Delivered) {
        self.stamp += 1;
        self.by_packet.insert(packet_id, Delivered { stamp: self.stamp, ..entry });
        self.order.push_back((packet_id, self.stamp));
        if self.order.len() > self.capacity
            && let Some((oldest, stamp)) = self.order.pop_front()
            && self.by_packet.get(&oldest).is_some_and(|e| e.stamp == stamp)
        {
            self.by_packet.remove(&oldest);
        }
    }
}

impl Delivered {
    /// What tells its payload from others.
    fn key(&self) -> u64 {
        if self.content != 0 { self.content } else { self.last.hash }
    }

    /// Whether the payload has the content of the mark, or is what the parts were cut from: the last parts in order,
    /// with nothing around them but the separators of a JSON array or of lines, zero bytes behind them, and what is no
    /// event.
    fn is(&self, topic: u64, payload: &[u8]) -> bool {
        if self.topic != topic {
            return false;
        }
        if self.content != 0 {
            return self.content == content(payload);
        }
        if self.last == Part::of(payload) {
            return true;
        }
        let mut rest = payload;
        for part in self.backwards() {
            match part.strip_from(without_separators(rest)) {
                Some(head) => rest = head,
                None => return self.is_salvaged_from(payload),
            }
            if without_separators(rest).is_empty() {
                return true;
            }
        }
        self.is_salvaged_from(payload)
    }

    fn backwards(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.last).chain(self.earlier.iter().rev())
    }

    /// Whether the last parts are the events of a payload of which not all are good.
    fn is_salvaged_from(&self, payload: &[u8]) -> bool {
        let end = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let parts = self.earlier.len() + 1;
        let payload = Bytes::copy_from_slice(payload.get(..end).unwrap_or_default());
        let split = decode::split_up_to(&payload, parts + BAD_PARTS_MAX);
        let events = &split.events;
        let is_salvaged = !split.bad.is_empty() && !events.is_empty() && events.len() <= parts;
        is_salvaged && events.iter().rev().zip(self.backwards()).all(|(event, part)| Part::of(event) == *part)
    }
}

fn without_separators(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'[' | b']' | b',' | b'\0'))
        .map_or(0, |i| i + 1);
    bytes.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Recognition::{Held, New, Possible, Redelivered};

    fn record<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> RecentRecord<'a> {
        RecentRecord { mark: packet_id.into(), name: topic, payload: payload.as_bytes() }
    }

    #[test]
    fn what_is_stored_in_another_form_is_recognised_by_its_mark() {
        let stored = mark(2, b"21.5", false);
        assert_eq!(mark(2, b"21.5", true), 2);
        let mut seen = Seen::new(10);
        let record = |payload: &'static str| RecentRecord { mark: stored, name: "t", payload: payload.as_bytes() };
        seen.seed([record("{\"payload\":\"21.5\"}"), record("{\"more\":1}")]);
        seen.connected(true);
        assert_eq!(seen.judge(2, true, "t", b"21.5", || false), Redelivered);
        assert_eq!(seen.judge(2, true, "u", b"21.5", || false), New, "other topic");
        seen.seed([record("{}")]);
        assert_eq!(seen.judge(2, true, "t", b"21.6", || false), New, "other payload");
        seen.seed([record("{}")]);
        assert_eq!(seen.judge(3, true, "t", b"21.5", || false), New, "other packet id");
    }

    #[test]
    fn after_a_resumed_session_only_equal_messages_are_redeliveries() {
        let mut seen = Seen::new(10);
        seen.connected(false);
        assert_eq!(seen.judge(1, false, "t", b"{}", || false), New);
        assert_eq!(seen.judge(2, false, "t", b"{\"a\":1}", || false), New);
        seen.connected(true);
        assert_eq!(seen.judge(1, true, "t", b"{}", || false), Redelivered);
        assert_eq!(seen.judge(2, true, "u", b"{\"a\":1}", || false), New, "other topic");
        assert_eq!(seen.judge(3, true, "t", b"{}", || false), New, "other packet id");
        assert_eq!(
            seen.judge(1, false, "t", b"{}", || false),
            Possible,
            "not marked as a duplicate: the id may be in use again"
        );
    }

    #[test]
    fn what_was_not_stored_is_not_recognised() {
        let mut seen = Seen::new(10);
        seen.connected(false);
        seen.judge(1, false, "t", b"x", || false);
        seen.forget(1);
        seen.connected(true);
        assert_eq!(seen.judge(1, true, "t", b"x", || false), New);
    }

    #[test]
    fn without_the_session_a_duplicate_is_only_possible() {
        let mut seen = Seen::new(10);
        seen.connected(false);
        seen.judge(1, false, "t", b"x", || false);
        seen.connected(false);
        assert_eq!(seen.judge(1, true, "t", b"x", || false), Possible);

        let mut fresh = Seen::new(10);
        fresh.connected(true);
        assert_eq!(fresh.judge(1, true, "t", b"x", || false), Possible, "the journal had nothing to compare with");
    }

    #[test]
    fn records_of_the_journal_recognise_the_message_they_were_cut_from() {
        let seeded = || {
            let mut seen = Seen::new(10);
            seen.seed([
                record(7, "t", r#"{"old":1}"#),
                record(8, "t", r#"{"a":1}"#),
                record(8, "t", r#"{"a":2}"#),
                record(0, "t", "{}"),
                record(9, "u", "{}"),
            ]);
            seen.connected(true);
            seen
        };
        assert_eq!(seeded().judge(8, true, "t", b" [{\"a\":1},\n {\"a\":2} ]\n", || false), Redelivered);
        assert_eq!(seeded().judge(8, true, "t", b"{\"a\":1}\n{\"a\":2}\n", || false), Redelivered);
        assert_eq!(seeded().judge(8, true, "t", b"[{\"a\":2}]", || false), Redelivered, "two messages reused the id");
        assert_eq!(seeded().judge(8, true, "t", b"[{\"a\":0},{\"a\":1},{\"a\":2}]", || false), New);
        assert_eq!(seeded().judge(8, true, "t", b"[{\"a\":1}]", || false), New);
        assert_eq!(seeded().judge(7, true, "t", b"{\"old\":1}", || false), Redelivered);
        assert_eq!(seeded().judge(9, true, "u", b"{}", || false), Redelivered);
        assert_eq!(seeded().judge(9, true, "u", b"", || false), New);
    }

    #[test]
    fn a_message_that_comes_with_dup_and_then_without_is_a_possible_repeat() {
        let mut seen = Seen::new(10);
        seen.connected(false);
        seen.connected(true);
        assert_eq!(seen.judge(1, true, "t", b"x", || false), New, "it was not seen before");
        assert_eq!(seen.judge(1, false, "t", b"x", || true), Held);
        assert_eq!(seen.judge(1, false, "t", b"y", || true), New, "another payload");
        assert_eq!(seen.judge(2, true, "t", b"x", || false), New);
        assert_eq!(seen.judge(2, false, "t", b"x", || false), Possible, "acknowledged: the id may be in use again");
        assert_eq!(seen.judge(2, false, "t", b"x", || false), New, "it came without DUP last");
        seen.judge(3, true, "t", b"x", || false);
        seen.connected(true);
        assert_eq!(seen.judge(4, false, "t", b"z", || false), New);
        assert_eq!(seen.judge(3, false, "t", b"x", || true), New, "another connection");
    }

    #[test]
    fn what_begins_a_resumed_session_and_is_stored_is_a_possible_repeat() {
        let resumed = || {
            let mut seen = Seen::new(10);
            seen.seed([record(7, "t", "a"), record(8, "t", "b"), record(9, "u", "b")]);
            seen.connected(true);
            seen
        };
        let mut seen = resumed();
        assert_eq!(seen.judge(101, false, "t", b"a", || false), Possible);
        assert_eq!(seen.judge(102, false, "t", b"a", || false), New, "there was one such message");
        assert_eq!(seen.judge(103, false, "t", b"b", || false), New, "behind a new one all are new");
        let mut seen = resumed();
        assert_eq!(seen.judge(9, true, "u", b"b", || false), Redelivered);
        assert_eq!(seen.judge(101, false, "t", b"b", || false), Possible);
        seen.connected(false);
        assert_eq!(seen.judge(1, false, "t", b"b", || false), New, "another session");
        // stored in another form
        let mut seen = Seen::new(10);
        seen.seed([RecentRecord { mark: mark(2, b"21.5", false), name: "t", payload: b"{}" }]);
        seen.connected(true);
        assert_eq!(seen.judge(50, false, "t", b"21.5", || false), Possible);
    }

    #[test]
    fn a_message_of_which_not_all_was_an_event_is_recognised() {
        let seeded = || {
            let mut seen = Seen::new(10);
            seen.seed([record(8, "t", r#"{"a":1}"#), record(8, "t", r#"{"a":3}"#)]);
            seen.connected(true);
            seen
        };
        for payload in [
            &br#"{"a":1}{"a":}{"a":3}"#[..],
            br#"[{"a":1},7,{"a":3},oops]"#,
            b"noise\n{\"a\":1}\n{\"a\":3}\n{\"a\":\0\0",
        ] {
            assert_eq!(seeded().judge(8, true, "t", payload, || false), Redelivered, "{}", payload.escape_ascii());
        }
        for payload in [&br#"{"a":1}{"a":}{"a":4}"#[..], br#"{"a":0}{"a":1}{"a":}{"a":3}"#, br#"{"a":}"#, b""] {
            assert_eq!(seeded().judge(8, true, "t", payload, || false), New, "{}", payload.escape_ascii());
        }
    }

    #[test]
    fn the_window_is_bounded() {
        let mut seen = Seen::new(3);
        seen.connected(false);
        for id in 1..=5 {
            seen.judge(id, false, "t", b"x", || false);
        }
        assert_eq!((seen.by_packet.len(), seen.order.len()), (3, 3));
        seen.connected(true);
        assert_eq!(seen.judge(5, true, "t", b"x", || false), Redelivered);
        assert_eq!(seen.judge(1, true, "t", b"x", || false), New);
    }
}
