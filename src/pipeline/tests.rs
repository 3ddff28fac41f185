//! The job as a whole, in virtual time.

mod simulation;
