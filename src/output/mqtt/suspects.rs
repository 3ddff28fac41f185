//! Messages at which a broker closes the connection without a word, as one of MQTT 3.1.1 has to.
//!
//! In: connections that the broker closed with one message under way, and the messages that it confirmed. Out: whether
//! that message is at fault. Invariant: a message is at fault only after the broker closed the connection at it several
//! times in a row, and the last time had kept it open for [`CALM`] before. Between two confirmations of a topic, and
//! between any two, [`SET_ASIDE_MAX`] rows at most are; none is of a topic that the broker refused. Not here:
//! connecting, halving.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::message::RowMessage;

/// How long a connection has to hold while nothing is sent, before a message is sent that is thought to end it.
pub const CALM: Duration = Duration::from_secs(1);
/// This number of connections closed in a row at one message is no accident.
const CLOSURES: u32 = 5;
/// The same at a broker that was seen to close connections so.
const CLOSURES_KNOWN: u32 = 2;
/// This number of rows in a row is no work of the rows.
const SET_ASIDE_MAX: u32 = 5;
/// Topics with rows at fault that are remembered.
const TOPICS_MAX: usize = 1_000;

/// What was seen at one broker.
#[derive(Debug, Default)]
pub struct Suspects {
    suspect: Option<Suspect>,
    /// A message was found at fault before.
    is_known: bool,
    /// By topic: rows found at fault since a message to it was confirmed.
    set_aside: BTreeMap<Arc<str>, u32>,
    /// Rows found at fault since any message was confirmed.
    in_a_row: u32,
    /// Topics at which the broker takes nothing.
    refused: BTreeMap<Arc<str>, Refused>,
    tries: u64,
}

/// The last message that was alone under way when the connection was closed.
#[derive(Debug)]
struct Suspect {
    /// Row id of its first row, and its rows.
    key: (String, usize),
    times: u32,
    /// The connection held while nothing was sent.
    was_calm: bool,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    /// The number of its last try.
    turn: u64,
    /// The broker said so.
    by_name: bool,
}

/// What a closed connection says of the message that was under way.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    Open,
    /// It is at fault: why.
    AtFault(String),
    /// Its topic is, or the broker: why.
    TopicRefused(String),
}

impl Suspects {
    /// Whether the next connection has to hold for [`CALM`] before anything is sent.
    pub fn wants_calm(&self) -> bool {
        self.suspect.as_ref().is_some_and(|suspect| suspect.times + 1 >= self.needed())
    }

    /// Such a connection held, or did not: then the connection is at fault, not the message.
    pub fn held(&mut self, is_calm: bool) {
        match &mut self.suspect {
            Some(suspect) if is_calm => suspect.was_calm = true,
            suspect => *suspect = None,
        }
    }

    fn needed(&self) -> u32 {
        if self.is_known { CLOSURES_KNOWN } else { CLOSURES }
    }

    /// The broker closed the connection with this message alone under way.
    pub fn closed_at(&mut self, message: &RowMessage, broker: &impl fmt::Display) -> Finding {
        let topic = &message.topic_name;
        let Some(first) = message.rows.first().filter(|_| self.turn(topic) == 0) else {
            return self.topic_refused(topic, broker);
        };
        let key = (first.id.clone(), message.rows.len());
        let needed = self.needed();
        let suspect = match self.suspect.take().filter(|suspect| suspect.key == key) {
            Some(suspect) => Suspect { times: suspect.times.saturating_add(1), ..suspect },
            None => Suspect { key, times: 1, was_calm: false },
        };
        if suspect.times < needed || !suspect.was_calm {
            self.suspect = Some(suspect);
            return Finding::Open;
        }
        let (times, bytes) = (suspect.times, message.limits().bytes);
        if message.rows.len() == 1 {
            let of_topic = self.set_aside.get(topic).copied().unwrap_or_default();
            if of_topic.max(self.in_a_row) >= SET_ASIDE_MAX {
                return self.topic_refused(topic, broker);
            }
            self.set_aside.insert(topic.clone(), of_topic + 1);
            self.in_a_row += 1;
        }
        self.is_known = true;
        Finding::AtFault(format!(
            "{broker} closed the connection {times} times when this was sent ({bytes} bytes, topic `{topic}`), and kept it \
             open while nothing was: see the broker's log, it may be over a limit or not allowed"
        ))
    }

    fn topic_refused(&mut self, topic: &Arc<str>, broker: &impl fmt::Display) -> Finding {
        self.conclude(topic);
        let letters = match self.set_aside.get(topic) {
            Some(rows) => format!(", {rows} of them are dead letters"),
            None => String::new(),
        };
        Finding::TopicRefused(format!(
            "{broker} closes the connection at each row to topic `{topic}`{letters}; the rest waits: allow the topic at the \
             broker or correct `topic`, else see the broker's log for a limit"
        ))
    }

    /// The broker said that it takes nothing at this topic.
    pub fn refused_at(&mut self, topic: &Arc<str>) {
        self.refuse(topic, true);
    }

    /// It is taken to be so.
    pub fn conclude(&mut self, topic: &Arc<str>) {
        let by_name = self.refused.get(topic).is_some_and(|refused| refused.by_name);
        self.refuse(topic, by_name);
    }

    fn refuse(&mut self, topic: &Arc<str>, by_name: bool) {
        self.suspect = None;
        self.tries += 1;
        self.refused.insert(topic.clone(), Refused { turn: self.tries, by_name });
    }

    /// The broker confirmed a message.
    pub fn confirmed(&mut self, message: &RowMessage) {
        self.in_a_row = 0;
        self.set_aside.remove(&message.topic_name);
        self.refused.remove(&message.topic_name);
        if self.set_aside.len() > TOPICS_MAX {
            self.set_aside.clear();
        }
        let is_suspect = |suspect: &Suspect| message.rows.iter().any(|row| row.id == suspect.key.0);
        if self.suspect.as_ref().is_some_and(is_suspect) {
            // so it was the connection: what was learned from others may have been, too
            self.suspect = None;
            self.is_known = false;
        }
    }

    /// When a topic has its turn: 0, or later the later it was tried and refused.
    pub fn turn(&self, topic: &str) -> u64 {
        self.refused.get(topic).map_or(0, |refused| refused.turn)
    }

    /// Whether a smaller row may get through at this topic.
    pub fn may_be_size(&self, topic: &str) -> bool {
        self.refused.get(topic).is_some_and(|refused| !refused.by_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::tests::config;
    use crate::output::mqtt::{MessageLimits, Queue};
    use crate::output::progress::Progress;
    use crate::output::tests::{IDS, rows};

    /// A message of one row at topic `t/1`, by its place.
    fn message(place: usize) -> RowMessage {
        message_at(1, place)
    }

    /// The same at topic `t/N`.
    fn message_at(topic: i64, place: usize) -> RowMessage {
        let rows = rows([topic]);
        let mut progress = Progress::default();
        progress.begin(&rows, IDS);
        let limits = MessageLimits { rows: 1, bytes: 1_000 };
        let mut queue = Queue::new(&config(), limits, &rows, IDS, &mut progress, &Suspects::default());
        let mut message = queue.next().unwrap();
        message.rows[0].id = format!("{topic}-{place}");
        message
    }

    /// Connections until something is found.
    fn connections(suspects: &mut Suspects, message: &RowMessage) -> (u32, Finding) {
        for n in 1..20 {
            if suspects.wants_calm() {
                suspects.held(true);
            }
            let found = suspects.closed_at(message, &"mqtt://h");
            if found != Finding::Open {
                return (n, found);
            }
        }
        panic!("nothing is found");
    }

    #[test]
    fn a_row_is_found_by_five_connections_and_the_next_by_two() {
        let mut suspects = Suspects::default();
        let (n, found) = connections(&mut suspects, &message(0));
        assert_eq!(n, CLOSURES);
        assert!(
            matches!(&found, Finding::AtFault(why) if why.contains("5 times") && why.contains("`t/1`")),
            "{found:?}"
        );
        assert_eq!(connections(&mut suspects, &message(1)).0, CLOSURES_KNOWN);
    }

    #[test]
    fn a_broker_that_closes_idle_connections_blames_no_row() {
        let mut suspects = Suspects::default();
        for _ in 0..50 {
            if suspects.wants_calm() {
                suspects.held(false);
            }
            assert_eq!(suspects.closed_at(&message(0), &"h"), Finding::Open);
        }
        // nor one that closes at another message each time
        for n in 0..50 {
            assert_eq!(suspects.closed_at(&message(n % 2), &"h"), Finding::Open);
        }
    }

    #[test]
    fn a_topic_at_which_nothing_is_confirmed_costs_five_rows_and_then_waits() {
        let mut suspects = Suspects::default();
        let is_found =
            |suspects: &mut Suspects, n: usize| matches!(connections(suspects, &message(n)).1, Finding::AtFault(_));
        assert!((0..5).all(|n| is_found(&mut suspects, n)));
        let (_, found) = connections(&mut suspects, &message(5));
        assert!(
            matches!(&found, Finding::TopicRefused(why) if why.contains("`t/1`, 5 of them are dead letters")),
            "{found:?}"
        );
        assert_eq!((suspects.turn("t/1"), suspects.turn("t/2")), (1, 0));
        assert!(!is_found(&mut suspects, 5) && !is_found(&mut suspects, 5), "and as often as it is tried");
        suspects.confirmed(&message_at(2, 0));
        assert!(!is_found(&mut suspects, 5), "another topic says nothing of this one");
        suspects.confirmed(&message(7));
        assert_eq!(suspects.turn("t/1"), 0);
        assert!((6..11).all(|n| is_found(&mut suspects, n)) && !is_found(&mut suspects, 11));

        let mut suspects = Suspects::default();
        suspects.refused_at(&message(0).topic_name);
        assert!(!is_found(&mut suspects, 0), "the broker has said that it is the topic");
    }

    #[test]
    fn a_topic_for_each_row_costs_no_more_rows() {
        let mut suspects = Suspects::default();
        let found = (0..20).map(|n| connections(&mut suspects, &message_at(n, 0)).1);
        let at_fault = found.filter(|found| matches!(found, Finding::AtFault(_))).count();
        assert_eq!(at_fault, 5);
        suspects.confirmed(&message_at(50, 0));
        assert!(matches!(connections(&mut suspects, &message_at(51, 0)).1, Finding::AtFault(_)));
    }

    #[test]
    fn a_row_that_is_confirmed_after_all_is_no_suspect_and_clears_what_was_known() {
        let mut suspects = Suspects::default();
        connections(&mut suspects, &message(0));
        assert_eq!(suspects.closed_at(&message(1), &"h"), Finding::Open);
        assert!(suspects.wants_calm());
        suspects.confirmed(&message(2));
        assert!(suspects.wants_calm(), "another row says nothing of it");
        suspects.confirmed(&message(1));
        assert!(!suspects.wants_calm());
        assert_eq!(connections(&mut suspects, &message(3)).0, CLOSURES);
    }

    #[test]
    fn of_refused_topics_the_one_that_was_tried_last_comes_last() {
        let mut suspects = Suspects::default();
        let (one, two) = (message_at(1, 0), message_at(2, 0));
        suspects.refused_at(&one.topic_name);
        suspects.refused_at(&two.topic_name);
        assert!(suspects.turn("t/1") < suspects.turn("t/2"));
        assert!(matches!(suspects.closed_at(&one, &"h"), Finding::TopicRefused(_)));
        assert!(suspects.turn("t/1") > suspects.turn("t/2"));
    }
}
