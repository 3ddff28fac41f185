//! What an MQTT output is told of an MQTT input of its job.
//!
//! In: the input's settings. Out: which messages come back from the broker as events. Invariant: it tells nothing but
//! what the settings say. Not here: the connection itself (`line`).

use super::broker::BrokerConfig;
use super::topic;

/// An MQTT input, as its neighbours see it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub broker: BrokerConfig,
    pub topics: Vec<String>,
}

impl Shared {
    /// The filter by which it receives some of what is sent to the topics of `filter`. One that is wrong was told where
    /// it was read, and receives nothing.
    pub fn receives(&self, filter: &str) -> Option<&str> {
        let mut valid = self.topics.iter().map(String::as_str).filter(|own| topic::filter_problem(own).is_none());
        valid.find(|own| topic::overlap(own, filter))
    }
}
