//! Messages at which a broker closes the connection without a word, as one of MQTT 3.1.1 has to, or that it never
//! confirms.
//!
//! In: connections that ended with one message under way, and the messages that the broker confirmed. Out: whether that
//! message is at fault. Invariant: a broker that takes nothing for a while blames no row. One that closes connections
//! must confirm another message first, and then close the same connection at this one. One that is silent must confirm
//! another message that was sent behind this one: what came first over a connection has arrived first. Of a topic at
//! which nothing is confirmed any more [`SET_ASIDE_MAX`] rows at most are at fault, and none of one that the broker
//! refused. Not here: connecting, halving.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::message::RowMessage;

/// Connections closed in a row at one message that went first, and at one that went behind a witness.
const CLOSURES: (u32, u32) = (3, 2);
/// The same at a broker that was seen to close connections so.
const CLOSURES_KNOWN: (u32, u32) = (1, 1);
/// Where nothing was ever confirmed there is no witness: then this number of connections, over this time.
const CLOSURES_ALONE: u32 = 10;
/// Connections in a row over which the broker confirmed the witness behind a message, and not the message.
const SILENCES: u32 = 5;
const TIME_ALONE: Duration = Duration::from_secs(600);
/// This number of rows in a row is no work of the rows.
const SET_ASIDE_MAX: u32 = 5;
/// Topics with rows at fault that are remembered.
const TOPICS_MAX: usize = 1_000;
/// A longer message is no witness: it may be what a broker does not like.
const WITNESS_BYTES_MAX: usize = 64 << 10;

/// What was seen at one broker.
#[derive(Debug, Default)]
pub struct Suspects {
    suspect: Option<Suspect>,
    /// The last message of one row that was confirmed. It is sent again beside a suspect: a receiver sees it twice.
    witness: Option<RowMessage>,
    /// The witness was confirmed over the present connection.
    has_witness: bool,
    /// A message was found at which the broker closes the connection.
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
    /// Connections that ended with it, without a witness and with one that was confirmed.
    alone: u32,
    witnessed: u32,
    /// How the last of them ended.
    how: HowEnded,
    since: Instant,
}

impl Suspect {
    fn is_of(&self, message: &RowMessage) -> bool {
        message.rows.iter().any(|row| row.id == self.key.0)
    }
}

/// How a connection ended with one message under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowEnded {
    /// The broker closed it and gave no reason.
    Closed,
    /// The broker did not confirm the message for this time, and the connection was left.
    Silent(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    /// The number of its last try.
    turn: u64,
    /// The broker said so.
    by_name: bool,
}

/// What a connection that ended says of the message that was under way.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    Open,
    /// It is at fault: why. Without a proof the size may have nothing to do with it.
    AtFault { why: String, is_proven: bool },
    /// Its topic is, or the broker: why.
    TopicRefused(String),
}

impl Suspects {
    /// A connection begins.
    pub fn connected(&mut self) {
        self.has_witness = false;
    }

    /// What is to be sent before anything else, to see whether the broker takes messages at all.
    pub fn wanted_before(&self) -> Option<&RowMessage> {
        let suspect = self.suspect.as_ref().filter(|suspect| suspect.how == HowEnded::Closed)?;
        self.witness.as_ref().filter(|_| !self.has_witness && suspect.alone >= self.closures().0)
    }

    /// What is to be sent behind this message, to see whether the broker has received it.
    pub fn wanted_behind(&self, message: &RowMessage) -> Option<&RowMessage> {
        let suspect = self.suspect.as_ref().filter(|suspect| suspect.how != HowEnded::Closed)?;
        self.witness.as_ref().filter(|_| suspect.is_of(message))
    }

    /// The broker confirmed it.
    pub fn witness_confirmed(&mut self) {
        self.has_witness = true;
    }

    /// Whether the broker confirmed the witness over the present connection, or the last if there is none.
    pub fn has_witness(&self) -> bool {
        self.has_witness
    }

    /// Whether the next connections may tell soon: they are made without a word to anybody.
    pub fn is_early(&self) -> bool {
        let (alone, witnessed) = self.closures();
        self.suspect.as_ref().is_some_and(|suspect| {
            suspect.how == HowEnded::Closed && suspect.alone + suspect.witnessed < alone + witnessed
        })
    }

    fn closures(&self) -> (u32, u32) {
        if self.is_known { CLOSURES_KNOWN } else { CLOSURES }
    }

    /// The connection ended with this message alone under way.
    pub fn ended_at(
        &mut self,
        message: &RowMessage,
        how: HowEnded,
        broker: &impl fmt::Display,
        now: Instant,
    ) -> Finding {
        let topic = &message.topic_name;
        let Some(first) = message.rows.first().filter(|_| self.turn(topic) == 0) else {
            return self.topic_refused(topic, how, broker);
        };
        let key = (first.id.clone(), message.rows.len());
        let before = self.suspect.take().filter(|suspect| suspect.key == key);
        let mut suspect = before.unwrap_or(Suspect { key, alone: 0, witnessed: 0, how, since: now });
        suspect.how = how;
        match self.has_witness {
            true => suspect.witnessed = suspect.witnessed.saturating_add(1),
            false => suspect.alone = suspect.alone.saturating_add(1),
        }
        let (alone, witnessed) = self.closures();
        let is_proven = match how {
            HowEnded::Closed => suspect.alone >= alone && suspect.witnessed >= witnessed,
            HowEnded::Silent(_) => suspect.witnessed >= SILENCES,
        };
        // halving costs no row
        let is_likely = message.rows.len() > 1 && suspect.alone >= alone;
        let is_old = suspect.alone >= CLOSURES_ALONE && now.duration_since(suspect.since) >= TIME_ALONE;
        let has_no_witness = self.witness.is_none() && how == HowEnded::Closed;
        if !(is_proven || (is_likely || is_old) && has_no_witness) {
            self.suspect = Some(suspect);
            return Finding::Open;
        }
        let (times, bytes) = (suspect.alone + suspect.witnessed, message.limits().bytes);
        if message.rows.len() == 1 {
            let of_topic = self.set_aside.get(topic).copied().unwrap_or_default();
            if of_topic.max(self.in_a_row) >= SET_ASIDE_MAX {
                return self.topic_refused(topic, how, broker);
            }
            self.set_aside.insert(topic.clone(), of_topic + 1);
            self.in_a_row += 1;
        }
        let what = match how {
            HowEnded::Closed => {
                self.is_known = is_proven;
                format!("closed the connection {times} times when this was sent")
            }
            HowEnded::Silent(patience) => {
                let seconds = patience.as_secs_f64();
                format!("did not confirm this within {seconds} s, {times} times, and confirmed what came behind it")
            }
        };
        let why = format!(
            "{broker} {what} ({bytes} bytes, topic `{topic}`): see the broker's log, it may be over a limit or not \
            allowed"
        );
        Finding::AtFault { why, is_proven }
    }

    fn topic_refused(&mut self, topic: &Arc<str>, how: HowEnded, broker: &impl fmt::Display) -> Finding {
        self.conclude(topic);
        let letters = match self.set_aside.get(topic) {
            Some(rows) => format!(", {rows} of them are dead letters"),
            None => String::new(),
        };
        let what = match how {
            HowEnded::Closed => "closes the connection at each row",
            HowEnded::Silent(_) => "confirms no row",
        };
        Finding::TopicRefused(format!(
            "{broker} {what} to topic `{topic}`{letters}; the rest waits: allow the topic at the broker or correct \
             `topic`, else see the broker's log for a limit"
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
    pub fn confirmed(&mut self, mut message: RowMessage) {
        self.in_a_row = 0;
        self.set_aside.remove(&message.topic_name);
        self.refused.remove(&message.topic_name);
        if self.set_aside.len() > TOPICS_MAX {
            self.set_aside.clear();
        }
        if self.suspect.take_if(|suspect| suspect.is_of(&message)).is_some() {
            // so it was the connection: what was learned from others may have been, too
            self.is_known = false;
        }
        message.rows.truncate(1);
        if message.limits().bytes <= WITNESS_BYTES_MAX {
            self.witness = Some(message);
        }
    }

    /// What became of a message is clear without us.
    pub fn settled(&mut self, message: &RowMessage) {
        self.suspect.take_if(|suspect| suspect.is_of(message));
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
    use crate::time::task_now;

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

    /// A broker at which a message of another topic has come through.
    fn seen() -> Suspects {
        let mut suspects = Suspects::default();
        confirm(&mut suspects, &message_at(9, 0));
        suspects
    }

    fn confirm(suspects: &mut Suspects, message: &RowMessage) {
        let RowMessage { topic_name, rows, .. } = message;
        let row = rows[0].id.clone();
        let mut copy = message_at(topic_name.strip_prefix("t/").unwrap().parse().unwrap(), 0);
        copy.rows[0].id = row;
        suspects.confirmed(copy);
    }

    /// The broker closes a connection at this message; whether it confirms a witness before.
    fn close(suspects: &mut Suspects, message: &RowMessage, confirms: bool, now: Instant) -> Finding {
        suspects.connected();
        if suspects.wanted_before().is_some() {
            if !confirms {
                // closed at the witness: the suspect was not sent
                return Finding::Open;
            }
            suspects.witness_confirmed();
        }
        suspects.ended_at(message, HowEnded::Closed, &"mqtt://h", now)
    }

    /// Connections until something is found.
    fn connections(suspects: &mut Suspects, message: &RowMessage) -> (u32, Finding) {
        let now = task_now();
        for n in 1..50 {
            let found = close(suspects, message, true, now);
            if found != Finding::Open {
                return (n, found);
            }
        }
        panic!("nothing is found");
    }

    fn is_found(suspects: &mut Suspects, message: &RowMessage) -> bool {
        matches!(connections(suspects, message).1, Finding::AtFault { .. })
    }

    #[test]
    fn a_row_is_found_by_five_connections_and_the_next_by_two() {
        let mut suspects = seen();
        let (n, found) = connections(&mut suspects, &message(0));
        assert_eq!(n, 5);
        assert!(
            matches!(&found, Finding::AtFault { why, is_proven: true }
                if why.contains("5 times") && why.contains("`t/1`")),
            "{found:?}"
        );
        assert_eq!(connections(&mut suspects, &message(1)).0, 2);
    }

    #[test]
    fn a_broker_that_takes_nothing_blames_no_row() {
        for mut suspects in [seen(), Suspects::default()] {
            let now = task_now();
            for n in 0..1_000 {
                assert_eq!(close(&mut suspects, &message(0), false, now), Finding::Open);
                // nor one that closes at another message each time
                if n % 3 == 0 {
                    assert_eq!(close(&mut suspects, &message(n), false, now), Finding::Open);
                }
            }
        }
    }

    #[test]
    fn where_nothing_was_ever_confirmed_a_row_is_found_after_ten_minutes() {
        let mut suspects = Suspects::default();
        let begin = task_now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..60 {
            assert_eq!(close(&mut suspects, &message(0), false, at(second * 10)), Finding::Open);
        }
        assert!(matches!(close(&mut suspects, &message(0), false, at(600)), Finding::AtFault { is_proven: false, .. }));
        assert_eq!(close(&mut suspects, &message(1), false, at(601)), Finding::Open);
    }

    #[test]
    fn a_topic_at_which_nothing_is_confirmed_costs_five_rows_and_then_waits() {
        let mut suspects = seen();
        let other = message_at(9, 1);
        for n in 0..5 {
            assert!(is_found(&mut suspects, &message(n)));
            confirm(&mut suspects, &other);
        }
        let (_, found) = connections(&mut suspects, &message(5));
        assert!(
            matches!(&found, Finding::TopicRefused(why) if why.contains("`t/1`, 5 of them are dead letters")),
            "{found:?}"
        );
        assert_eq!((suspects.turn("t/1"), suspects.turn("t/2")), (1, 0));
        assert!(
            !is_found(&mut suspects, &message(5)) && !is_found(&mut suspects, &message(5)),
            "as often as it is tried"
        );
        confirm(&mut suspects, &other);
        assert!(!is_found(&mut suspects, &message(5)), "another topic says nothing of this one");
        confirm(&mut suspects, &message(7));
        assert_eq!(suspects.turn("t/1"), 0);
        assert!(is_found(&mut suspects, &message(8)));

        let mut suspects = seen();
        suspects.refused_at(&message(0).topic_name);
        assert!(!is_found(&mut suspects, &message(0)), "the broker has said that it is the topic");
    }

    /// The broker does not confirm this message; whether it confirms what is sent behind it.
    fn keep_silent(suspects: &mut Suspects, message: &RowMessage, confirms: bool, now: Instant) -> Finding {
        suspects.connected();
        assert!(suspects.wanted_before().is_none());
        if suspects.wanted_behind(message).is_some() && confirms {
            suspects.witness_confirmed();
        }
        suspects.ended_at(message, HowEnded::Silent(Duration::from_secs(30)), &"mqtt://h", now)
    }

    #[test]
    fn a_row_that_is_never_confirmed_is_found_by_six_connections_each_time() {
        let (mut suspects, now) = (seen(), task_now());
        for place in 0..2 {
            for _ in 0..5 {
                assert_eq!(keep_silent(&mut suspects, &message(place), true, now), Finding::Open);
                assert!(!suspects.is_early(), "half a minute passes before each: it is told");
                assert!(suspects.wanted_behind(&message(7)).is_none(), "it is no suspect");
            }
            let found = keep_silent(&mut suspects, &message(place), true, now);
            let Finding::AtFault { why, is_proven: true } = found else { panic!("not found") };
            assert!(why.contains("did not confirm this within 30 s, 6 times, and confirmed what came behind"), "{why}");
        }
        assert_eq!(connections(&mut suspects, &message(2)).0, 5, "it is not known to close connections");
    }

    #[test]
    fn a_broker_that_confirms_nothing_blames_no_row_by_its_silence() {
        let begin = task_now();
        for mut suspects in [seen(), Suspects::default()] {
            for minute in 0..1_000 {
                let now = begin + Duration::from_secs(minute * 60);
                assert_eq!(keep_silent(&mut suspects, &message(0), false, now), Finding::Open);
            }
        }
    }

    #[test]
    fn a_row_that_is_rejected_is_no_suspect_any_more() {
        let (mut suspects, now) = (seen(), task_now());
        for _ in 0..3 {
            close(&mut suspects, &message(0), true, now);
        }
        assert!(suspects.wanted_before().is_some());
        suspects.settled(&message(1));
        assert!(suspects.wanted_before().is_some());
        suspects.settled(&message(0));
        assert!(suspects.wanted_before().is_none());
    }

    #[test]
    fn a_topic_for_each_row_costs_no_more_rows_while_nothing_is_confirmed() {
        let mut suspects = seen();
        let at_fault = (0..20).filter(|n| is_found(&mut suspects, &message_at(*n, 0))).count();
        assert_eq!(at_fault, 5);
        confirm(&mut suspects, &message_at(50, 0));
        assert!(is_found(&mut suspects, &message_at(51, 0)));
    }

    #[test]
    fn a_row_that_is_confirmed_after_all_is_no_suspect_and_clears_what_was_known() {
        let mut suspects = seen();
        connections(&mut suspects, &message(0));
        let now = task_now();
        assert_eq!(close(&mut suspects, &message(1), true, now), Finding::Open);
        assert!(suspects.wanted_before().is_some());
        confirm(&mut suspects, &message(2));
        assert!(suspects.wanted_before().is_some(), "another row says nothing of it");
        confirm(&mut suspects, &message(1));
        assert!(suspects.wanted_before().is_none());
        assert_eq!(connections(&mut suspects, &message(3)).0, 5);
    }

    #[test]
    fn of_refused_topics_the_one_that_was_tried_last_comes_last() {
        let mut suspects = seen();
        let (one, two) = (message_at(1, 0), message_at(2, 0));
        suspects.refused_at(&one.topic_name);
        suspects.refused_at(&two.topic_name);
        assert!(suspects.turn("t/1") < suspects.turn("t/2"));
        assert!(matches!(suspects.ended_at(&one, HowEnded::Closed, &"h", task_now()), Finding::TopicRefused(_)));
        assert!(suspects.turn("t/1") > suspects.turn("t/2"));
    }
}
