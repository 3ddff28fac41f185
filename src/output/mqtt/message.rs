//! Rows as messages, and their order.
//!
//! In: rows that are open. Out: [`RowMessage`]s, each of one topic, one after another. Invariant: where a message
//! carries several rows, the next one of its topic is given only when it is settled: its halves come before what
//! follows, so rows of a topic keep their order. Not here: sending, what a broker says.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::MqttOutputConfig;
use super::session::Session;
use super::suspects::Suspects;
use crate::batch::Rows;
use crate::mqtt::wire::Outgoing;
use crate::output::RowIds;
use crate::output::body::{Body, Encoded, Piece, pieces};
use crate::output::progress::Progress;

/// The user property that carries the row id: of the first row, where there are several.
pub const ROW_ID_PROPERTY: &str = "forebay-id";
/// The user property that names the function that scored all rows of the message, where one with a fallback did.
pub const SCORED_BY_PROPERTY: &str = "forebay-scored-by";
/// The user property of messages whose rows were given out before with other answers.
pub const REVISION_PROPERTY: &str = "forebay-revision";
/// The user property that says how many rows a message carries.
pub const ROWS_PROPERTY: &str = "forebay-rows";

/// What a message carries at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    pub rows: usize,
    pub bytes: usize,
}

impl MessageLimits {
    pub fn half(self) -> MessageLimits {
        MessageLimits { rows: self.rows.div_ceil(2), bytes: self.bytes / 2 }
    }
}

/// Rows that go together.
#[derive(Debug)]
pub struct RowMessage {
    /// Its place in the list of topics.
    topic: usize,
    pub topic_name: Arc<str>,
    pub rows: Piece,
}

impl RowMessage {
    /// Those to which it comes up.
    pub fn limits(&self) -> MessageLimits {
        MessageLimits { rows: self.rows.len(), bytes: self.rows.iter().map(Encoded::bytes).sum() }
    }

    /// As it is sent; an error says why the receiver will never take it.
    pub fn outgoing(&self, config: &MqttOutputConfig, session: &Session) -> Result<Outgoing<'_>, String> {
        let first = self.rows.first();
        let id = first.map(|row| (ROW_ID_PROPERTY.to_owned(), row.id.clone()));
        // rows of one body are alike in both
        let scored_by = first.and_then(|row| Some((SCORED_BY_PROPERTY.to_owned(), row.scored_by.clone()?)));
        let revision = first.filter(|row| row.revision > 0);
        let revision = revision.map(|row| (REVISION_PROPERTY.to_owned(), row.revision.to_string()));
        let count = (config.body != Body::Row).then(|| (ROWS_PROPERTY.to_owned(), self.rows.len().to_string()));
        let outgoing = Outgoing {
            topic: &self.topic_name,
            payload: Bytes::from(config.body.write(&self.rows)),
            qos: config.qos,
            // a newer row may be retained by now
            retain: config.retain && revision.is_none(),
            properties: id.into_iter().chain(count).chain(scored_by).chain(revision).collect(),
        };
        match session.client.packet_bytes(&outgoing).zip(session.packet_bytes_max) {
            Some((size, max)) if size > max as usize => {
                Err(format!("the message takes {size} bytes, over the broker's limit of {max} for a packet"))
            }
            _ => Ok(outgoing),
        }
    }
}

/// Messages that wait to be sent.
#[derive(Debug)]
pub struct Queue {
    /// Of each topic, whether a message of it is under way.
    topics: Vec<bool>,
    waiting: VecDeque<RowMessage>,
    /// Of a topic.
    is_one_at_a_time: bool,
}

impl Queue {
    /// The open rows; those that can never be sent are rejected. Those of topics at which the broker takes nothing come
    /// last. Of one that it did not refuse by name the smallest row goes first and alone: the others may be too large.
    pub fn new(
        config: &MqttOutputConfig,
        limits: MessageLimits,
        rows: &Rows,
        ids: RowIds<'_>,
        progress: &mut Progress,
        suspects: &Suspects,
    ) -> Queue {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut by_topic: Vec<(String, Vec<Encoded>)> = Vec::new();
        let mut from = 0;
        while let Some(row) = progress.next_open(from) {
            from = row + 1;
            let topic = config.topic.fill(rows, row);
            let encoded = topic.and_then(|topic| {
                let encoded = Encoded::new(rows, row, &config.told, ids, config.batch.bytes)?;
                Ok((topic, encoded))
            });
            match encoded {
                Err(reason) => progress.reject(row, reason),
                Ok((topic, encoded)) => match places.get(topic.as_ref()).and_then(|place| by_topic.get_mut(*place)) {
                    Some((_, rows)) => rows.push(encoded),
                    None => {
                        places.insert(topic.to_string(), by_topic.len());
                        by_topic.push((topic.into_owned(), vec![encoded]));
                    }
                },
            }
        }
        let (mut topics, mut messages, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        for (topic, (name, mut rows)) in by_topic.into_iter().enumerate() {
            let name: Arc<str> = name.into();
            topics.push(false);
            let of_topic = |rows| RowMessage { topic, topic_name: name.clone(), rows };
            let smallest = (0..rows.len()).filter(|_| suspects.may_be_size(&name));
            let smallest = smallest.min_by_key(|i| rows.get(*i).map(Encoded::bytes));
            probes.extend(smallest.map(|i| of_topic(vec![rows.remove(i)])));
            messages.extend(pieces(rows, limits.rows, limits.bytes).into_iter().map(of_topic));
        }
        let place =
            |message: &RowMessage| (suspects.turn(&message.topic_name), message.rows.first().map(|row| row.row));
        messages.sort_by_key(place);
        for probe in probes {
            let turn = suspects.turn(&probe.topic_name);
            messages.insert(messages.partition_point(|message| place(message).0 < turn), probe);
        }
        Queue { topics, waiting: messages.into(), is_one_at_a_time: config.body != Body::Row }
    }

    /// The next message that may be sent now.
    pub fn next(&mut self) -> Option<RowMessage> {
        if !self.is_one_at_a_time {
            return self.waiting.pop_front();
        }
        let is_free = |message: &RowMessage| self.topics.get(message.topic).is_some_and(|is_busy| !is_busy);
        let place = self.waiting.iter().position(is_free)?;
        let message = self.waiting.remove(place)?;
        self.set_busy(&message, true);
        Some(message)
    }

    /// A message is settled: the next one of its topic may go.
    pub fn settled(&mut self, message: &RowMessage) {
        self.set_busy(message, false);
    }

    /// Puts the halves of a message in its place.
    pub fn halve(&mut self, mut message: RowMessage) {
        self.settled(&message);
        let second = message.rows.split_off(message.rows.len().div_ceil(2));
        let second = RowMessage { topic: message.topic, topic_name: message.topic_name.clone(), rows: second };
        self.waiting.push_front(second);
        self.waiting.push_front(message);
    }

    fn set_busy(&mut self, message: &RowMessage, is_busy: bool) {
        if let Some(topic) = self.topics.get_mut(message.topic) {
            *topic = is_busy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::tests::{config, fixed};
    use crate::output::tests::{IDS, rows};

    /// Rows with these numbers, each at the topic of its number; a hundred rows a message where the body is an array.
    fn queue(body: Body, numbers: impl IntoIterator<Item = i64>) -> Queue {
        let config = MqttOutputConfig { body, ..config() };
        let rows = rows(numbers);
        let mut progress = Progress::default();
        progress.begin(&rows, IDS);
        let limits = MessageLimits { rows: if body == Body::Row { 1 } else { 100 }, bytes: 1_000 };
        Queue::new(&config, limits, &rows, IDS, &mut progress, &Suspects::default())
    }

    #[test]
    fn where_rows_may_be_too_large_the_smallest_goes_first() {
        let config = MqttOutputConfig { body: Body::Array, topic: fixed(), ..config() };
        let rows = rows([100, 200, 3, 400]);
        let mut progress = Progress::default();
        progress.begin(&rows, IDS);
        let limits = MessageLimits { rows: 100, bytes: 1_000 };
        let order = |suspects: &Suspects, progress: &mut Progress| {
            let mut queue = Queue::new(&config, limits, &rows, IDS, progress, suspects);
            let next = |queue: &mut Queue| queue.next().inspect(|message| queue.settled(message));
            std::iter::from_fn(|| next(&mut queue)).map(|message| places(&message)).collect::<Vec<_>>()
        };
        let mut suspects = Suspects::default();
        assert_eq!(order(&suspects, &mut progress), [[0, 1, 2, 3]]);
        suspects.refused_at(&"t".into());
        assert_eq!(order(&suspects, &mut progress), [[0, 1, 2, 3]], "the broker has said that it is the topic");
        suspects.conclude(&"t".into());
        assert_eq!(order(&suspects, &mut progress), [[0, 1, 2, 3]], "and that stays so");
        let mut suspects = Suspects::default();
        suspects.conclude(&"t".into());
        assert_eq!(order(&suspects, &mut progress), [vec![2], vec![0, 1, 3]]);
    }

    #[test]
    fn rows_of_a_topic_that_is_refused_come_last() {
        let mut suspects = Suspects::default();
        let refused = queue(Body::Row, [2]).next().unwrap();
        suspects.refused_at(&refused.topic_name);
        let rows = rows([1, 2, 1, 2, 3]);
        let mut progress = Progress::default();
        progress.begin(&rows, IDS);
        let limits = MessageLimits { rows: 1, bytes: 1_000 };
        let mut queue = Queue::new(&config(), limits, &rows, IDS, &mut progress, &suspects);
        let order: Vec<Vec<usize>> = std::iter::from_fn(|| queue.next()).map(|message| places(&message)).collect();
        assert_eq!(order, [[0], [2], [4], [1], [3]]);
    }

    fn places(message: &RowMessage) -> Vec<usize> {
        message.rows.iter().map(|row| row.row).collect()
    }

    #[test]
    fn single_rows_go_in_the_order_of_the_statement() {
        let mut queue = queue(Body::Row, [1, 2, 1, 3, 1]);
        let order: Vec<Vec<usize>> = std::iter::from_fn(|| queue.next()).map(|message| places(&message)).collect();
        assert_eq!(order, [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn a_message_holds_rows_of_one_topic() {
        let mut queue = queue(Body::Array, [1, 2, 1, 3, 1]);
        let order: Vec<Vec<usize>> = std::iter::from_fn(|| queue.next()).map(|message| places(&message)).collect();
        assert_eq!(order, [vec![0, 2, 4], vec![1], vec![3]]);
    }

    #[test]
    fn halves_come_before_what_follows_in_their_topic() {
        let mut queue = queue(Body::Array, (0..150).map(|_| 1).chain([2]));
        let first = queue.next().unwrap();
        assert_eq!((first.rows.len(), first.limits()), (100, MessageLimits { rows: 100, bytes: 900 }));
        let other = queue.next().unwrap();
        assert_eq!(places(&other), [150], "the next one of its topic waits, other topics go on");
        assert!(queue.next().is_none());
        queue.halve(first);
        let half = queue.next().unwrap();
        assert_eq!(places(&half), (0..50).collect::<Vec<_>>());
        assert!(queue.next().is_none());
        queue.settled(&half);
        let half = queue.next().unwrap();
        assert_eq!(places(&half), (50..100).collect::<Vec<_>>());
        queue.settled(&half);
        assert_eq!(places(&queue.next().unwrap()), (100..150).collect::<Vec<_>>());
    }

    #[test]
    fn limits_are_halved_to_one_row() {
        let halves = std::iter::successors(Some(MessageLimits { rows: 5, bytes: 45 }), |limits| {
            (limits.rows > 1).then(|| limits.half())
        });
        assert_eq!(
            halves.map(|limits| (limits.rows, limits.bytes)).collect::<Vec<_>>(),
            [(5, 45), (3, 22), (2, 11), (1, 5)]
        );
    }
}
