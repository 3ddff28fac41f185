//! Payload bytes to events, and events to the fields that a query reads.
//!
//! In: payloads, then the stored events they were split into. Out: [`Payloads`] and [`split()`] give events of which
//! each is exactly one checked JSON object; [`Decoder`] fills the slots of a row with the fields asked for. Invariant:
//! what `split` let through, a `Decoder` reads. Not here: event time and its policies (`engine`), storing events
//! (`journal`).

mod fields;
mod format;
mod json;
mod payload;
mod schema;
mod split;

pub use fields::Decoder;
pub use format::{FORMATS, Format, delimiter, open_quote};
pub use payload::Payloads;
pub use schema::Schema;
pub use split::{BAD_PARTS_MAX, BadPayload, Split, split, split_up_to};

/// Why an event gives no row. An input error: the event is dropped and counted, the statement goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not one JSON object, or a number beyond 64 bits: `split` would have refused it.
    #[error("not a valid event: {0}")]
    Malformed(String),
    /// A field does not fit its column of `CREATE TABLE`.
    #[error("field `{field}` is {found}, but `CREATE TABLE` declares {declared}")]
    Schema { field: String, found: &'static str, declared: crate::value::Type },
}

impl DecodeError {
    /// The word for counters.
    pub fn reason(&self) -> crate::batch::Reason {
        match self {
            DecodeError::Malformed(_) => "undecodable",
            DecodeError::Schema { .. } => "schema",
        }
    }
}
