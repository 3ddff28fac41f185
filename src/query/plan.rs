//! The compiled query: what `resolve` makes and the engine runs.
//!
//! In: nothing (plain data). Out: [`Plan`]. Invariant: every slot index is below the width of the node it reads, every
//! function exists and got a possible number of arguments, every constant is checked. Not here: names, clauses, text.
//!
//! Each statement is compiled by itself (its steps are inlined) and cut into [`Part`]s at external calls and behind
//! stateful operators whose rows an external call needs; a part is one consumer of the journal.

mod aggregate;
mod analytic;
pub mod calls;
mod explain;
mod expr;
pub mod fit;
mod node;
mod pattern;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

pub use aggregate::{Aggregate, AggregateFunction, NamedWindow, SessionKey, UserAggregateCall, Window};
pub use analytic::{Analytic, AnalyticFunction, SpikeMode};
pub use explain::explain;
pub use expr::Expr;
pub use node::{JoinBound, Metadata, Node, Scan, ScanColumn, TableSchema};
pub use pattern::{Match, Navigate, Navigation, Pattern};

use crate::batch::Column;
use crate::diagnostic::Span;

/// A compiled script.
#[derive(Clone, Debug)]
pub struct Plan {
    pub statements: Vec<Statement>,
    /// `CREATE TABLE` schemas by input name; rows that do not fit are dropped by the scan.
    pub tables: Vec<TableSchema>,
}

#[derive(Clone, Debug)]
pub struct Statement {
    /// Output name as the query writes it; `output` when `INTO` is absent.
    pub output: SmolStr,
    /// Its text and the text of the steps it uses, without comments and with blanks folded: equal text means that
    /// position and state are kept across restarts.
    pub fingerprint: String,
    pub span: Span,
    /// In flow order. All but the last write a stream that the next one reads.
    pub parts: Vec<Part>,
}

impl Statement {
    /// Whether any of its parts is; then its rows have to stay in order.
    pub fn is_stateful(&self) -> bool {
        self.parts.iter().any(Part::is_stateful)
    }
}

/// One consumer: pulls from the inputs or from the stream of the part before it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its leaves are [`Node::Scan`] (first part) or one [`Node::Rows`] (later parts).
    pub root: Node,
    pub external: Option<External>,
    /// The column of the rows read that tells their substream, where the first part reads `TIMESTAMP BY … OVER`: what
    /// is behind a call has an order of its own for each, too. `None` in a first part.
    pub substream: Option<usize>,
    /// Columns of the rows this part emits (after `external`, when there is one).
    pub columns: Arc<[Column]>,
}

impl Part {
    /// Whether any operator keeps state, or calls a function that does: then its rows go through a stream of the
    /// journal.
    pub fn is_stateful(&self) -> bool {
        let in_tail = || self.external.as_ref().is_some_and(|external| external.tail.calls_state());
        self.root.is_stateful() || self.root.calls_state() || in_tail()
    }

    /// Names of the reference data that it joins with, before or behind its external call.
    pub fn references(&self) -> BTreeSet<SmolStr> {
        let behind = self.external.as_ref().map(|external| external.tail.references());
        self.root.references().into_iter().chain(behind.into_iter().flatten()).collect()
    }
}

/// A call that leaves the process. `root` gives the columns that are needed later and, last, the argument.
#[derive(Clone, Debug)]
pub struct External {
    /// Name of the function in the job file.
    pub function: SmolStr,
    /// The column of `root` that tells whether a row is for the call; where it is not true the argument is NULL, and so
    /// is the answer. `None`: every row is.
    pub called: Option<usize>,
    /// The function as the query writes it, for messages.
    pub span: Span,
    /// Of the rows of `root`, for people: each has a name of its own, that of the last is `argument`
    /// unless a column has it.
    pub names: Arc<[SmolStr]>,
    /// Runs on rows of `root`'s columns with the argument replaced by the answer; no operator of it keeps state,
    /// functions may. Its leaf is [`Node::Rows`].
    pub tail: Node,
}
