//! The parts of a date.
//!
//! In: nothing (plain data). Out: [`DatePart`]. Invariant: one variant for each part, whatever its spellings. Not here:
//! names and arithmetic (`builtins::date`).

/// A part of a date, as DATEADD, DATEDIFF, DATENAME and DATEPART take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatePart {
    Year,
    Quarter,
    Month,
    DayOfYear,
    Day,
    Week,
    Weekday,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
}
