//! Scalar functions, operators and conversions of the query language.

use crate::value::Value;

/// A scalar function of the language.
#[derive(Debug)]
pub struct Builtin {
    /// Name as the documents spell it.
    pub name: &'static str,
    /// Fewest and most arguments.
    pub args: (usize, usize),
    pub call: fn(&[Value]) -> Result<Value, RowError>,
}

/// Why an expression has no value for a row.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RowError {
    /// A fixed word for counters: `conversion`, `argument`, `overflow`, `divide_by_zero`, `udf_trap`, …
    pub reason: crate::batch::Reason,
    pub message: String,
}

/// The function of this name, in any letter case.
pub fn lookup(_name: &str) -> Option<&'static Builtin> {
    None
}
