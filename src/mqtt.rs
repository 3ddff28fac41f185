//! What an MQTT source and an MQTT output share: a broker's settings, the way to it, topics.
//!
//! In: the keys of a section that say where a broker is and who we are to it. Out: a [`BrokerConfig`], and with a
//! client id a connector, from which `wire` makes a client of either version and `choice` chooses the version.
//! Invariant: no secret is part of a message. Not here: receiving (`source::mqtt`), publishing (`output::mqtt`).

mod broker;
mod choice;
mod closings;
mod connection;
pub(crate) mod line;
mod shared;
pub(crate) mod socket;
pub(crate) mod status;
pub mod topic;
pub(crate) mod wire;

pub use broker::{BrokerConfig, MqttAddress, Protocol, Qos};
pub(crate) use choice::Choice;
pub(crate) use closings::Closings;
pub(crate) use connection::{Connector, Trouble};
pub(crate) use shared::Shared;
pub use status::StatusTopic;
