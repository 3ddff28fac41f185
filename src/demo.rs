//! Everything the demo embeds: a broker, a taxi fleet, a scoring endpoint, and clients that count on their own.

pub mod broker;
pub mod client;
pub mod endpoint;
pub mod fleet;
pub mod folder;
pub mod tally;
