//! The operators of a plan and what feeds them.
//!
//! In: nothing (plain data). Out: [`Node`]. Invariant: every slot index is below the width of the node it reads, and
//! ids of stateful operators are unique in a part. Not here: the walk over nodes (`walk`), running them (`engine`).

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::aggregate::{Aggregate, NamedWindow};
use super::analytic::Analytic;
use super::expr::Expr;
use super::pattern::Match;
use crate::diagnostic::Span;
use crate::query::ast::ApplyFunction;
use crate::query::date_part::DatePart;
use crate::value::Type;

/// An operator and what feeds it. `id` numbers the stateful operators of a part from 0; state rows carry it.
#[derive(Clone, Debug)]
pub enum Node {
    Scan(Scan),
    /// Rows given from outside: a stream of the journal, or answers of an external call.
    Rows {
        width: usize,
    },
    Filter {
        input: Box<Node>,
        predicate: Expr,
    },
    /// New rows from expressions; event time and row meta stay.
    Project {
        input: Box<Node>,
        exprs: Vec<Expr>,
    },
    /// Appends one column to each row: the record of `GetArrayElements` or `GetRecordProperties`.
    Apply {
        input: Box<Node>,
        outer: bool,
        function: ApplyFunction,
        argument: Expr,
        span: Span,
    },
    /// Groups by keys and windows. Gives the keys, then the aggregates, then the window id (text or NULL).
    /// Event time of a row is the window's end.
    Aggregate {
        input: Box<Node>,
        id: u32,
        keys: Vec<Expr>,
        windows: Vec<NamedWindow>,
        aggregates: Vec<Aggregate>,
    },
    /// Appends one column for each call; evaluated over every row that comes in.
    Analytic {
        input: Box<Node>,
        id: u32,
        calls: Vec<Analytic>,
    },
    /// Columns of the left, then of the right. Pairs whose `DATEDIFF(unit, left, right)` lies in `bound`.
    Join {
        left: Box<Node>,
        right: Box<Node>,
        id: u32,
        left_outer: bool,
        bound: JoinBound,
        keys: Vec<(Expr, Expr)>,
        on: Option<Expr>,
    },
    /// Columns of the left, then of the reference row (one column, the whole record).
    ReferenceJoin {
        input: Box<Node>,
        reference: SmolStr,
        left_outer: bool,
        keys: Vec<(Expr, Expr)>,
        on: Option<Expr>,
    },
    /// Rows that follow a pattern: one row a match, its measures. Event time is that of the last row.
    Match {
        input: Box<Node>,
        id: u32,
        plan: Box<Match>,
    },
    /// Rows of all inputs merged by (event time, offset); equal widths.
    Union {
        inputs: Vec<Node>,
        id: u32,
    },
}

impl Node {
    /// Whether this operator or one below it keeps state.
    pub fn is_stateful(&self) -> bool {
        self.nodes().any(|node| match node {
            Node::Scan(scan) => scan.timestamp_by.is_some(),
            Node::Aggregate { .. } | Node::Analytic { .. } | Node::Match { .. } | Node::Join { .. } => true,
            Node::Rows { .. }
            | Node::Filter { .. }
            | Node::Project { .. }
            | Node::Apply { .. }
            | Node::ReferenceJoin { .. }
            | Node::Union { .. } => false,
        })
    }

    /// Whether one row may become several.
    pub fn expands(&self) -> bool {
        self.nodes().any(|node| match node {
            Node::Apply { .. }
            | Node::ReferenceJoin { .. }
            | Node::Match { .. }
            | Node::Join { .. }
            | Node::Union { .. } => true,
            Node::Scan(_)
            | Node::Rows { .. }
            | Node::Filter { .. }
            | Node::Project { .. }
            | Node::Aggregate { .. }
            | Node::Analytic { .. } => false,
        })
    }

    /// Whether this operator or one below it calls a function that keeps state.
    pub fn calls_state(&self) -> bool {
        let keeps = |expr: &Expr| matches!(expr, Expr::Udf { keeps_state: true, .. });
        self.nodes().flat_map(Node::exprs).any(|expr| expr.any(&keeps))
    }

    /// Scans of the tree, from the left.
    pub fn scans(&self) -> impl Iterator<Item = &Scan> {
        self.nodes().filter_map(|node| match node {
            Node::Scan(scan) => Some(scan),
            _ => None,
        })
    }

    /// Names of the inputs that it and those below it read.
    pub fn inputs(&self) -> BTreeSet<SmolStr> {
        self.scans().map(|scan| scan.input.clone()).collect()
    }

    /// Names of the reference data that it and those below it join with.
    pub fn references(&self) -> BTreeSet<SmolStr> {
        let names = self.nodes().filter_map(|node| match node {
            Node::ReferenceJoin { reference, .. } => Some(reference.clone()),
            _ => None,
        });
        names.collect()
    }

    /// Number of columns of the rows it gives.
    pub fn width(&self) -> usize {
        match self {
            Node::Scan(scan) => scan.columns.len(),
            Node::Rows { width } => *width,
            Node::Filter { input, .. } => input.width(),
            Node::Project { exprs, .. } => exprs.len(),
            Node::Apply { input, .. } | Node::ReferenceJoin { input, .. } => input.width() + 1,
            Node::Aggregate { keys, aggregates, .. } => keys.len() + aggregates.len() + 1,
            Node::Analytic { input, calls, .. } => input.width() + calls.len(),
            Node::Match { plan, .. } => plan.measures.len(),
            Node::Join { left, right, .. } => left.width() + right.width(),
            Node::Union { inputs, .. } => inputs.first().map_or(0, Node::width),
        }
    }
}

/// Reads one input of the job: decodes just these columns.
#[derive(Clone, Debug)]
pub struct Scan {
    pub input: SmolStr,
    pub columns: Vec<ScanColumn>,
    /// Evaluated over `columns`. Without it event time is arrival time and no time policy applies.
    pub timestamp_by: Option<Expr>,
    /// Keys of `TIMESTAMP BY … OVER`, evaluated over `columns`.
    pub over: Vec<Expr>,
    /// Numbers the ingress state of the part's scans (shares the id space of the operators).
    pub id: u32,
    /// Schema from `CREATE TABLE`: rows that do not fit are dropped and counted.
    pub schema: Option<TableSchema>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ScanColumn {
    /// A top-level field, matched exactly, else uniquely ignoring case, else NULL.
    Field(SmolStr),
    /// The whole event as a record.
    Whole,
    /// Something about the event that its payload does not hold.
    Metadata(Metadata),
}

/// What `GetMetadataPropertyValue(input, 'Name')` can name.
#[derive(Clone, Debug, PartialEq)]
pub enum Metadata {
    /// Arrival time (`EventEnqueuedUtcTime`, `EnqueuedTime`, `EnqueueTime`, `EventProcessedUtcTime`).
    Arrival,
    /// A stable id of the event: `EventId`.
    EventId,
    /// `Mqtt` group: record of topic, qos, retain
    Mqtt,
    Topic,
    Qos,
    Retain,
    /// `[User]`: all user properties as a record
    UserProperties,
    /// `[User].[name]`
    UserProperty(SmolStr),
}

#[derive(Clone, Debug)]
pub struct TableSchema {
    pub input: SmolStr,
    pub columns: Vec<(SmolStr, Type)>,
}

/// `DATEDIFF(unit, left, right) BETWEEN low AND high`, counted in boundaries of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinBound {
    pub unit: DatePart,
    pub low: i64,
    pub high: i64,
}
