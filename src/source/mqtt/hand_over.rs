//! What is taken of the messages that arrive.
//!
//! In: publishes in receive order. Out: a [`HandOver`] for the journal. Invariant: each publish is counted once: in the
//! batch, as redelivered, as of a foreign topic, or as lost for want of room. Not here: the network, acknowledging.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::intern::Interner;
use super::link::Link;
use super::redelivery::{self, Recognition, Seen};
use crate::arrival::ArrivalClock;
use crate::mqtt::wire::Message;
use crate::source::Arrived;
use crate::source::stats::{SourceStats, add};

/// What a message costs in memory beside topic and payload, about: the client's and our own records.
const MESSAGE_OVERHEAD: usize = 256;

/// What is collected for one hand-over.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    pub messages: Vec<Arrived>,
    /// Of all that must be acknowledged, in receive order: more than `messages` when some are not to be stored.
    pub packet_ids: Vec<u16>,
    pub bytes: usize,
}

/// Decides what becomes of a message.
#[derive(Debug)]
pub(super) struct Sorter {
    pub seen: Seen,
    pub interner: Interner,
    /// Payloads are stored as they come.
    pub keeps_bytes: bool,
    /// For messages without an acknowledgement; others are held back by the connection.
    pub unacked_bytes_max: usize,
    pub clock: ArrivalClock,
    pub stats: Arc<SourceStats>,
}

impl Sorter {
    /// Takes one publish into the batch.
    pub fn arrived(&mut self, publish: Message, link: &Link, batch: &mut HandOver) {
        add(&self.stats.received, 1);
        let packet_id = publish.packet_id;
        if publish.dup && (batch.packet_ids.contains(&packet_id) || link.holds(packet_id)) {
            // we have it and will acknowledge it, once
            add(&self.stats.redelivered, 1);
            return;
        }
        let known = self.interner.meta(&publish);
        let size = publish.payload.len() + publish.topic.len() + MESSAGE_OVERHEAD;
        let mut recognition = Recognition::New;
        if publish.qos == 0 {
            if self.stats.unacked_bytes.load(Relaxed) as usize + batch.bytes + size > self.unacked_bytes_max {
                add(&self.stats.lost_qos0, 1);
                return;
            }
        } else if known.is_wanted {
            let is_held = || batch.packet_ids.contains(&packet_id) || link.holds(packet_id);
            let (name, payload) = (&known.meta.name, &publish.payload);
            recognition = self.seen.judge(packet_id, publish.dup, name, payload, is_held);
        }
        if publish.qos != 0 && recognition != Recognition::Held {
            batch.packet_ids.push(packet_id);
        }
        if !known.is_wanted {
            add(&self.stats.unmatched, 1);
            return;
        }
        match recognition {
            Recognition::New => {}
            Recognition::Possible => add(&self.stats.redelivered_possible, 1),
            Recognition::Redelivered | Recognition::Held => {
                add(&self.stats.redelivered, 1);
                return;
            }
        }
        batch.bytes += size;
        let mark = match packet_id {
            0 => 0,
            id => redelivery::mark(id, &publish.payload, self.keeps_bytes),
        };
        batch.messages.push(Arrived {
            payload: publish.payload,
            message: known.meta,
            arrival: self.clock.now(),
            mark,
            is_repeat: publish.dup,
        });
    }

    /// Takes nothing: what comes by a connection that is deaf. The broker keeps what it wants acknowledged.
    pub fn passed_over(&self, publish: &Message) {
        if publish.qos == 0 {
            add(&self.stats.received, 1);
            add(&self.stats.lost_qos0, 1);
        }
    }
}
