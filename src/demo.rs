//! Everything the demo embeds: a broker, a taxi fleet, a scoring endpoint, and clients that count on their own.

pub mod client;
pub mod fleet;
