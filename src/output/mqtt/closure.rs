//! Messages at which a broker closes the connection without a word, as one of MQTT 3.1.1 has to.
//!
//! In: connections that the broker closed with one message under way, and the topics at which it confirmed one. Out:
//! whether that message is at fault. Invariant: a message is at fault only after the broker closed the connection at it
//! several times in a row, and the last time had kept it open for [`CALM`] before; of a topic at which nothing is
//! confirmed any more, [`SET_ASIDE_MAX`] rows at most are, and none of one that the broker refused by name. Not here: connecting, halving.

use std::collections::{BTreeMap, BTreeSet};
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
/// This number of rows in a row of one topic is no work of the rows.
const SET_ASIDE_MAX: u32 = 5;

/// What was seen at one broker.
#[derive(Debug, Default)]
pub struct Closures {
    suspect: Option<Suspect>,
    /// A message was found at fault before.
    is_known: bool,
    /// By topic: rows found at fault since a message to it was confirmed.
    set_aside: BTreeMap<Arc<str>, u32>,
    /// Topics at which the broker takes nothing.
    refused: BTreeSet<Arc<str>>,
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

/// What a closed connection says of the message that was under way.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    Open,
    /// It is at fault: why.
    AtFault(String),
    /// Its topic is: why.
    TopicRefused(String),
}

impl Closures {
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
        let Some(first) = message.rows.first().filter(|_| !self.is_refused(topic)) else {
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
            let before = self.set_aside.entry(topic.clone()).or_default();
            if *before >= SET_ASIDE_MAX {
                self.refused_at(topic);
                return self.topic_refused(topic, broker);
            }
            *before += 1;
        }
        self.is_known = true;
        Finding::AtFault(format!(
            "{broker} closed the connection {times} times when this was sent ({bytes} bytes, topic `{topic}`), and kept it \
             open while nothing was: see the broker's log, it may be over a limit or not allowed"
        ))
    }

    fn topic_refused(&self, topic: &str, broker: &impl fmt::Display) -> Finding {
        let letters = match self.set_aside.get(topic) {
            Some(rows) => format!(", {rows} of them are dead letters"),
            None => String::new(),
        };
        Finding::TopicRefused(format!(
            "{broker} closes the connection at each row to topic `{topic}`{letters}; the rest waits: allow the topic at the \
             broker or correct `topic`, else see the broker's log for a limit"
        ))
    }

    /// The broker takes nothing at this topic.
    pub fn refused_at(&mut self, topic: &Arc<str>) {
        self.suspect = None;
        self.refused.insert(topic.clone());
    }

    /// The broker confirmed a message to this topic.
    pub fn confirmed(&mut self, topic: &str) {
        self.set_aside.remove(topic);
        self.refused.remove(topic);
    }

    /// Whether the broker takes nothing at this topic: others go first.
    pub fn is_refused(&self, topic: &str) -> bool {
        self.refused.contains(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::tests::config;
    use crate::output::mqtt::{MessageLimits, Queue};
    use crate::output::progress::Progress;
    use crate::output::tests::{IDS, rows};

    /// A message of one row at topic `t/1`, by its number.
    fn message(place: usize) -> RowMessage {
        let rows = rows(std::iter::repeat_n(1, place + 1));
        let mut progress = Progress::default();
        progress.begin(&rows, IDS);
        let limits = MessageLimits { rows: 1, bytes: 1_000 };
        let mut queue = Queue::new(&config(), limits, &rows, IDS, &mut progress, &Closures::default());
        std::iter::from_fn(|| queue.next()).last().unwrap()
    }

    /// Connections until something is found.
    fn connections(closures: &mut Closures, message: &RowMessage) -> (u32, Finding) {
        for n in 1..20 {
            if closures.wants_calm() {
                closures.held(true);
            }
            let found = closures.closed_at(message, &"mqtt://h");
            if found != Finding::Open {
                return (n, found);
            }
        }
        panic!("nothing is found");
    }

    #[test]
    fn a_row_is_found_by_five_connections_and_the_next_by_two() {
        let mut closures = Closures::default();
        let (n, found) = connections(&mut closures, &message(0));
        assert_eq!(n, CLOSURES);
        assert!(
            matches!(&found, Finding::AtFault(why) if why.contains("5 times") && why.contains("`t/1`")),
            "{found:?}"
        );
        assert_eq!(connections(&mut closures, &message(1)).0, CLOSURES_KNOWN);
    }

    #[test]
    fn a_broker_that_closes_idle_connections_blames_no_row() {
        let mut closures = Closures::default();
        for _ in 0..50 {
            if closures.wants_calm() {
                closures.held(false);
            }
            assert_eq!(closures.closed_at(&message(0), &"h"), Finding::Open);
        }
        // nor one that closes at another message each time
        for n in 0..50 {
            assert_eq!(closures.closed_at(&message(n % 2), &"h"), Finding::Open);
        }
    }

    #[test]
    fn a_topic_at_which_nothing_is_confirmed_costs_five_rows_and_then_waits() {
        let mut closures = Closures::default();
        let is_found =
            |closures: &mut Closures, n: usize| matches!(connections(closures, &message(n)).1, Finding::AtFault(_));
        assert!((0..5).all(|n| is_found(&mut closures, n)));
        let (_, found) = connections(&mut closures, &message(5));
        assert!(
            matches!(&found, Finding::TopicRefused(why) if why.contains("`t/1`, 5 of them are dead letters")),
            "{found:?}"
        );
        assert!(closures.is_refused("t/1"));
        assert!(!is_found(&mut closures, 5) && !is_found(&mut closures, 5), "and as often as it is tried");
        closures.confirmed("t/2");
        assert!(!is_found(&mut closures, 5), "another topic says nothing of this one");
        closures.confirmed("t/1");
        assert!(!closures.is_refused("t/1"));
        assert!((6..11).all(|n| is_found(&mut closures, n)) && !is_found(&mut closures, 11));

        let mut closures = Closures::default();
        closures.refused_at(&message(0).topic_name);
        assert!(!is_found(&mut closures, 0), "the broker has said that it is the topic");
    }
}
