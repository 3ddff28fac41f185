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
use std::mem::discriminant;
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
    /// The key of its first row, and its rows.
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
        message.rows.iter().any(|row| row.key() == self.key.0)
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
        let key = (first.key().into_owned(), message.rows.len());
        // one kind of end proves nothing of the other
        let is_same = |suspect: &Suspect| suspect.key == key && discriminant(&suspect.how) == discriminant(&how);
        let before = self.suspect.take().filter(is_same);
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
mod tests;
