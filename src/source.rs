//! What brings messages in.
//!
//! In: a section of the job file. Out: a [`Source`] that runs, and [`Arrivals`]: small batches of raw messages with
//! arrival time, and one [`Acknowledge`] a batch. Invariant: a message is acknowledged after its batch was told
//! [`Acknowledge::stored`], and in no other case; what is held in memory until then is bounded. Not here: decoding,
//! storing, user code.

pub mod mqtt;
mod stats;

use std::any::Any;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::arrival::{ArrivalClock, ArrivalTime};
use crate::batch::{MessageMeta, Urgency};
use crate::connections::Connections;
use crate::settings::{Problems, Secret, Section};

pub use mqtt::{MqttSource, MqttSourceConfig};
pub use stats::SourceStats;

/// Reads the section of one kind of source.
pub type ReadSource = fn(&mut Section) -> Option<Arc<dyn SourceSettings>>;

/// The kinds of sources, by the word that `type` has in the job file.
pub const SOURCES: &[(&str, ReadSource)] = &[("mqtt", mqtt::read)];

/// What a section says of a source, checked.
pub trait SourceSettings: Debug + Send + Sync {
    /// Every secret that it names.
    fn secrets(&self) -> Vec<&Secret> {
        Vec::new()
    }

    /// How many of the newest stored records it wants to see when it starts.
    fn recent_records(&self) -> usize {
        0
    }

    /// What no other part of the job may use besides: a file, a name at a broker.
    fn exclusive(&self) -> Vec<String> {
        Vec::new()
    }

    /// What outputs of the job may want to know of it, in the words of its transport.
    fn offer(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// Tells what does not go together with the inputs of the job, this one among them.
    fn check_beside(&self, inputs: &[Neighbour<'_>], problems: &Problems) {
        let _ = (inputs, problems);
    }

    /// How long what comes while the gateway is away waits for it.
    fn keeps(&self) -> Keeps {
        Keeps::Nothing
    }

    /// What a person should know before the job runs.
    fn note(&self) -> Option<&'static str> {
        None
    }

    /// Starts to receive. Needs a tokio runtime.
    ///
    /// # Errors
    /// Why it cannot start.
    fn start(&self, site: Site<'_>) -> Result<Started, String>;
}

/// How long the other end keeps what it has for a gateway that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    Nothing,
    For(Duration),
    Forever,
}

/// Tells for how long what is received now waits for the next commit, whatever the source does.
pub type StoredIn = Arc<dyn Fn() -> Duration + Send + Sync>;

/// An input of the job, as its other parts see it.
#[derive(Debug)]
pub struct Neighbour<'a> {
    pub name: &'a str,
    /// What it tells of itself, in the words of its transport.
    pub offer: Option<Box<dyn Any>>,
}

#[allow(missing_debug_implementations, reason = "it lives for one call and holds a function")]
/// What a source is given where it starts.
pub struct Site<'a> {
    /// Of the job.
    pub job: &'a str,
    /// Of the input.
    pub name: &'a str,
    /// What parts of the job offer each other.
    pub connections: &'a Connections,
    /// Gives the name by which the other end is to know us: the one that the job file writes, else one that is made
    /// once.
    pub identify: &'a dyn Fn(Option<&str>) -> Result<Identity, String>,
    /// The newest records of this input in the journal, oldest first.
    pub recent: Vec<RecentRecord<'a>>,
    /// What is stored is the payload as it came, or pieces of it; else a message is recognised by its mark alone.
    pub keeps_bytes: bool,
    pub stored_in: StoredIn,
    pub clock: ArrivalClock,
}

/// A stored record as the journal gives it back at start. A message may have given several records.
#[derive(Clone, Debug)]
pub struct RecentRecord<'a> {
    /// As its source gave it; 0 for none.
    pub mark: u64,
    /// Of its message.
    pub name: &'a str,
    pub payload: &'a [u8],
}

/// The name by which the other end knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    /// It was used at an earlier start, so the other end may have something of ours.
    pub is_known: bool,
}

/// A source that was started, and where its messages come out. The channel ends when the source was stopped.
#[derive(Debug)]
pub struct Started {
    pub source: Box<dyn Source>,
    pub arrivals: mpsc::Receiver<Arrivals>,
}

/// A running source. Dropping it ends it without a goodbye.
pub trait Source: Debug + Send {
    fn stats(&self) -> &Arc<SourceStats>;

    /// Takes no further messages, waits a few seconds until those handed over are stored and acknowledged, and says
    /// goodbye. The receiving end of the channel must still be served meanwhile.
    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Acknowledges one batch. Dropped without being told, it acknowledges nothing: the source gives the connection up,
/// since nothing behind the batch could be acknowledged either, and the other end sends it all again.
pub trait Acknowledge: Debug + Send {
    /// The batch is durable: acknowledges it, unless its connection is gone. Never blocks.
    fn stored(self: Box<Self>);
}

/// Was told before, by a fault that a test planted.
#[cfg(test)]
#[derive(Debug)]
pub struct ToldBefore;

#[cfg(test)]
impl Acknowledge for ToldBefore {
    fn stored(self: Box<Self>) {}
}

/// One message as it was received.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub payload: Bytes,
    /// Shared by messages of one name with equal properties.
    pub message: Arc<MessageMeta>,
    /// When it was received, by the clock the source was given. Two sources may hand over in another order.
    pub arrival: ArrivalTime,
    /// By which the source recognises it when it comes again; 0 for none.
    pub mark: u64,
    /// The other end says that it sent it before.
    pub is_repeat: bool,
}

/// A batch of messages and what acknowledges them.
#[derive(Debug)]
#[must_use = "dropping it acknowledges nothing and makes the source connect again"]
pub struct Arrivals {
    /// In receive order; never empty.
    pub messages: Vec<Arrived>,
    pub ack: Box<dyn Acknowledge>,
    pub urgency: Urgency,
}
