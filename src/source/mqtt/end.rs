//! How a connection of an input ended.
//!
//! In: what the receiver saw. Out: [`End`], and what it says to outputs that used the connection. Invariant: an output
//! blames a row only for what the broker did. Not here: what follows from it.

use crate::mqtt::Trouble;

/// How a connection ended.
pub(super) enum End {
    Stopped,
    /// Nobody takes messages any more.
    Unwanted,
    /// Reading stood still for too long because too little was stored.
    Stalled,
    /// It was deaf, and the next one may hear.
    Settled,
    Lost(Trouble),
}

impl End {
    /// What outputs are told that use the connection.
    pub fn trouble(&self) -> Trouble {
        let text = match self {
            End::Stopped | End::Unwanted => "the input ended",
            End::Stalled => "the input connects again: what it received is not being stored",
            End::Settled => "the input connects again to receive",
            End::Lost(trouble) => return trouble.clone(),
        };
        Trouble { is_ours: true, ..Trouble::new(text.to_owned()) }
    }
}
