//! Why a row has no value, and the bound on what functions build.
//!
//! In: a reason and a message. Out: [`RowError`]. Invariant: a reason is a fixed word, so counters by reason are few.
//! Not here: what becomes of the row (`engine`).

use crate::batch::Reason;
use crate::value::Value;

/// The longest text that a function builds. Intake takes no payload near it, so only a runaway repetition reaches it.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// What a function gives for a row.
pub type Out = Result<Value, RowError>;

/// Why an expression has no value for a row.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RowError {
    /// A fixed word for counters: `conversion`, `argument`, `overflow`, `divide_by_zero`, `too_long`, `too_complex`,
    /// `udf_trap`, …
    pub reason: Reason,
    pub message: String,
}

impl RowError {
    pub fn new(reason: Reason, message: impl Into<String>) -> RowError {
        RowError { reason, message: message.into() }
    }
}
