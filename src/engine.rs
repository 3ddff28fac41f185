//! Runs one part of a plan: events or rows in, result rows out.
//!
//! In: checked events (or rows of a stream) in journal order, ticks that say how late it is, stored state. Out:
//! [`Emitted`]: rows, failures, counts, changed state. Invariant: what comes out depends on what went in and not on how
//! it was cut into calls, nor on a restart from the state of any [`Executor::take`]. Not here: I/O, clocks, threads;
//! who may name what (`query`), what becomes of rows (`pipeline`).
//!
//! Time inside is in ticks of 100 ns as plain numbers, because a watermark may lie beyond the calendar: the end of the
//! input is the greatest number.

mod accumulate;
mod aggregate;
mod analytic;
mod anomaly;
mod apply;
mod build;
mod emitted;
mod env;
mod eval;
mod executor;
mod fault;
mod filter;
mod fixed;
mod group;
mod held;
mod history;
mod index;
mod ingress;
mod join;
mod key;
mod merge;
mod operator;
mod options;
mod pack;
mod pane;
mod pattern;
mod prepared;
mod project;
mod recent;
mod recognize;
mod reference;
mod rows;
mod running;
mod scan;
mod session;
mod share;
mod sink;
mod sliding;
mod state;
mod users;
mod window;

#[cfg(test)]
mod tests;

pub use emitted::{Counts, Emitted, FailedBody, FailedRow, StateUpdate, UntimelyEvent};
pub use executor::Executor;
pub use index::Indexes;
pub use options::{EngineError, ExecutorOptions, Functions, OnError, TimePolicies};
