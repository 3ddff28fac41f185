//! What an MQTT source and an MQTT output share: a broker's settings, the way to it, topics.
//!
//! In: the keys of a section that say where a broker is and who we are to it. Out: a [`BrokerConfig`], and with a client
//! id a connector that makes the client's options and tells what is wrong with a connection. Invariant: no secret is
//! part of a message. Not here: receiving (`source::mqtt`), publishing (`output::mqtt`).

mod broker;
pub(crate) mod connection;
pub(crate) mod socket;
pub mod topic;

pub use broker::{BrokerConfig, MqttAddress, Qos};
pub(crate) use connection::{Connector, Trouble};
