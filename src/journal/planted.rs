//! Faults that a test plants in the journal and the parts, to see that the simulation of a whole job finds them. Only
//! the build of the tests has them.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Messages are acknowledged when they are handed over, and not when they are durable.
    AcknowledgeBeforeCommit,
    /// An output's position moves past rows that are delivered one delivery later.
    PositionBeforeDelivery,
    /// Segments go that a consumer has not read.
    TrimPastConsumer,
    /// Changes of state are stored with the next commit, and not with the position that they belong to.
    StateApartFromPosition,
    /// Time does not pass for windows of quiet devices.
    LostTick,
}
