//! What brings messages in.
//!
//! In: a broker's topics. Out: [`Arrivals`], small batches of raw messages with arrival time, and one [`AckToken`] a
//! batch. Invariant: a message with QoS 1 is acknowledged after its token was told [`AckToken::stored`], in receive
//! order, and in no other case; what is held in memory until then is bounded. Not here: decoding, storing, user code.

pub mod acks;
pub mod backoff;
pub mod connection;
mod intern;
mod link;
pub mod mqtt;
mod poison;
pub mod redelivery;
mod session;
pub(crate) mod socket;
mod stats;
pub mod topic;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::batch::MessageMeta;
use crate::time::Timestamp;

pub use connection::{BrokerConfig, ConfigError, Endpoint};
pub use link::AckToken;
pub use mqtt::MqttSource;
pub use redelivery::RecentRecord;
pub use stats::SourceStats;

/// An MQTT input, as the job describes it.
#[derive(Clone, Debug)]
pub struct MqttSourceConfig {
    pub broker: BrokerConfig,
    /// Topic filters, wildcards allowed; at least one.
    pub topics: Vec<String>,
    /// 0 or 1. With 0 a message that finds no room is lost and counted.
    pub qos: u8,
    /// Largest payload, bytes; told to the broker with some room for topic and properties.
    pub payload_bytes_max: u32,
    /// How many messages the broker may have in flight to us; at least 1.
    pub receive_maximum: u16,
    /// Bytes of messages that are received and not stored, at which we stop reading.
    pub unacked_bytes_max: usize,
    /// How long the broker keeps the session while we are away.
    pub session_expiry: Duration,
    /// The broker may know us already (the client id was in the journal): then a lost session is worth a count.
    pub session_expected: bool,
}

impl MqttSourceConfig {
    /// Larger messages are an exception that the operator should decide on.
    pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
    /// Enough for 50,000 messages a second at 40 ms from receipt to commit, twice over.
    pub const RECEIVE_MAXIMUM: u16 = 4_096;
    pub const UNACKED_BYTES_MAX: usize = 16 << 20;
    /// A long weekend without the gateway loses nothing.
    pub const SESSION_EXPIRY: Duration = Duration::from_secs(7 * 86_400);

    /// With the defaults: QoS 1, 1 MiB payloads, 16 MiB unacknowledged, a session of 7 days.
    pub fn new(broker: BrokerConfig, topics: Vec<String>) -> MqttSourceConfig {
        MqttSourceConfig {
            broker,
            topics,
            qos: 1,
            payload_bytes_max: Self::PAYLOAD_BYTES_MAX,
            receive_maximum: Self::RECEIVE_MAXIMUM,
            unacked_bytes_max: Self::UNACKED_BYTES_MAX,
            session_expiry: Self::SESSION_EXPIRY,
            session_expected: false,
        }
    }

    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.topics.is_empty() {
            return Err(ConfigError::NoTopics);
        }
        for filter in &self.topics {
            if let Some(problem) = topic::filter_problem(filter) {
                return Err(ConfigError::Topic { topic: filter.clone(), problem });
            }
        }
        if self.qos > 1 {
            return Err(ConfigError::Qos(self.qos));
        }
        let range = |name, value: u64, ok: bool, expected| if ok { Ok(()) } else { Err(ConfigError::Range { name, value, expected }) };
        let payload = self.payload_bytes_max;
        range("payload_bytes_max", payload.into(), (1..=256 << 20).contains(&payload), "1 byte to 256 MiB")?;
        range("receive_maximum", self.receive_maximum.into(), self.receive_maximum > 0, "1 to 65535 messages")?;
        let unacked = self.unacked_bytes_max;
        range("unacked_bytes_max", unacked as u64, unacked >= payload as usize, "at least payload_bytes_max")?;
        connection::CheckedBroker::new(self.broker.clone()).map(|_| ())
    }
}

/// One message as it was received.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub payload: Bytes,
    /// Shared by messages of one topic with equal properties.
    pub message: Arc<MessageMeta>,
    /// When it was received, by the clock the source was given; not yet made to never decrease.
    pub arrival: Timestamp,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// The broker marked it as sent before.
    pub dup: bool,
}

/// A batch of messages and the one token that acknowledges them.
#[derive(Debug)]
#[must_use = "dropping it acknowledges nothing and makes the source connect again"]
pub struct Arrivals {
    /// In receive order; never empty.
    pub messages: Vec<Arrived>,
    pub ack: AckToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MqttSourceConfig {
        MqttSourceConfig::new(BrokerConfig::new("mqtt://127.0.0.1:1", "c"), vec!["a/#".into()])
    }

    #[test]
    fn settings_are_checked() {
        assert!(config().check().is_ok());
        let with = |change: fn(&mut MqttSourceConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert_eq!(with(|c| c.topics.clear()), ConfigError::NoTopics);
        assert!(matches!(with(|c| c.topics = vec!["a#".into()]), ConfigError::Topic { .. }));
        assert_eq!(with(|c| c.qos = 2), ConfigError::Qos(2));
        assert!(matches!(with(|c| c.receive_maximum = 0), ConfigError::Range { name: "receive_maximum", .. }));
        assert!(matches!(with(|c| c.unacked_bytes_max = 10), ConfigError::Range { name: "unacked_bytes_max", .. }));
    }
}
