//! The compiled query: what `resolve` makes and the engine runs.
//!
//! In: nothing (plain data). Out: [`Plan`]. Invariant: every slot index is below the width of the node it reads, every
//! function exists and got a possible number of arguments, every constant is checked. Not here: names, clauses, text.
//!
//! Each statement is compiled by itself (its steps are inlined) and cut into [`Part`]s at external calls and behind
//! stateful operators whose rows an external call needs; a part is one consumer of the journal.

use std::collections::BTreeSet;
pub mod calls;
pub mod explain;

pub use explain::explain;

use std::sync::Arc;

use smol_str::SmolStr;

use super::ast::{ApplyFunction, BinaryOp, Span};
use super::builtins::Builtin;
use super::catalog::Offers;
use crate::batch::Column;
use crate::value::{Type, Value};

/// A compiled script.
#[derive(Clone, Debug)]
pub struct Plan {
    pub statements: Vec<Statement>,
    /// `CREATE TABLE` schemas by input name; rows that do not fit are dropped by the scan.
    pub tables: Vec<TableSchema>,
}

#[derive(Clone, Debug)]
pub struct TableSchema {
    pub input: SmolStr,
    pub columns: Vec<(SmolStr, Type)>,
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

/// One consumer: pulls from the inputs or from the stream of the part before it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its leaves are [`Node::Scan`] (first part) or one [`Node::Rows`] (later parts).
    pub root: Node,
    pub external: Option<External>,
    /// Columns of the rows this part emits (after `external`, when there is one).
    pub columns: Arc<[Column]>,
}

impl Part {
    /// Whether any operator keeps state, or calls a function that does: then its rows go through a stream of the journal.
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
    /// The function as the query writes it, for messages.
    pub span: Span,
    /// Runs on rows of `root`'s columns with the argument replaced by the answer; no operator of it keeps state, functions
    /// may. Its leaf is [`Node::Rows`].
    pub tail: Node,
}

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
        match self {
            Node::Scan(scan) => scan.timestamp_by.is_some(),
            Node::Rows { .. } => false,
            Node::Filter { input, .. } | Node::Project { input, .. } | Node::Apply { input, .. } | Node::ReferenceJoin { input, .. } => {
                input.is_stateful()
            }
            Node::Aggregate { .. } | Node::Analytic { .. } | Node::Match { .. } | Node::Join { .. } => true,
            Node::Union { inputs, .. } => inputs.iter().any(Node::is_stateful),
        }
    }

    /// Whether this operator or one below it calls a function that keeps state.
    pub fn calls_state(&self) -> bool {
        calls::of_node(self).into_iter().flatten().any(|call| call.keeps_state)
    }

    /// Names of the inputs that it and those below it read.
    pub fn inputs(&self) -> BTreeSet<SmolStr> {
        match self {
            Node::Scan(scan) => BTreeSet::from([scan.input.clone()]),
            Node::Rows { .. } => BTreeSet::new(),
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Apply { input, .. }
            | Node::Aggregate { input, .. }
            | Node::Analytic { input, .. }
            | Node::Match { input, .. }
            | Node::ReferenceJoin { input, .. } => input.inputs(),
            Node::Join { left, right, .. } => left.inputs().into_iter().chain(right.inputs()).collect(),
            Node::Union { inputs, .. } => inputs.iter().flat_map(Node::inputs).collect(),
        }
    }

    /// Names of the reference data that it and those below it join with.
    pub fn references(&self) -> BTreeSet<SmolStr> {
        match self {
            Node::Scan(_) | Node::Rows { .. } => BTreeSet::new(),
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Apply { input, .. }
            | Node::Aggregate { input, .. }
            | Node::Analytic { input, .. }
            | Node::Match { input, .. } => input.references(),
            Node::ReferenceJoin { input, reference, .. } => {
                let mut names = input.references();
                names.insert(reference.clone());
                names
            }
            Node::Join { left, right, .. } => left.references().into_iter().chain(right.references()).collect(),
            Node::Union { inputs, .. } => inputs.iter().flat_map(Node::references).collect(),
        }
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

/// A compiled expression over a row's slots.
#[derive(Clone, Debug)]
pub enum Expr {
    Const(Value),
    Slot(usize),
    /// `System.Timestamp()`: the row's event time
    Time,
    /// The row's arrival time: `GETUTCDATE()` and absent `EventEnqueuedUtcTime`
    Arrival,
    /// Fields below a value, by name; NULL on a missing part and on a value that is no record
    Path(Box<Expr>, Vec<SmolStr>),
    /// A record made of expressions: a step or input name used as a value, when its columns are known.
    Record(Vec<(SmolStr, Expr)>),
    /// A record made of columns of which some are spread records (clashes as in [`crate::batch::shown`]).
    Spread(Arc<[Column]>, Vec<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>, Span),
    BitNot(Box<Expr>, Span),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// Comparison, arithmetic or bit operator (never AND, OR).
    Binary(BinaryOp, Box<Expr>, Box<Expr>, Span),
    IsNull {
        negated: bool,
        operand: Box<Expr>,
    },
    Between {
        negated: bool,
        operand: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
    },
    In {
        negated: bool,
        operand: Box<Expr>,
        list: Vec<Expr>,
    },
    Like {
        negated: bool,
        operand: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
    },
    /// Searched CASE; the simple form is compiled to it.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Cast {
        is_try: bool,
        operand: Box<Expr>,
        ty: Type,
        span: Span,
    },
    /// `TryEvaluate(e)`: NULL where `e` fails, whatever the policy for failing rows.
    Try(Box<Expr>),
    Builtin {
        function: &'static Builtin,
        args: Vec<Expr>,
        span: Span,
    },
    /// A local user function; `index` and `keeps_state` are those of [`super::catalog::FunctionKind::Local`].
    Udf {
        index: usize,
        name: SmolStr,
        args: Vec<Expr>,
        span: Span,
        keeps_state: bool,
    },
}

/// `MATCH_RECOGNIZE`. Conditions and measures read the columns of a row and, behind them, one value a navigation.
#[derive(Clone, Debug)]
pub struct Match {
    /// `LIMIT DURATION`, ticks: rows of a match lie less than this behind its first.
    pub limit: i64,
    pub partition_by: Vec<Expr>,
    pub pattern: Pattern,
    /// Names of the variables, by their place.
    pub variables: Vec<SmolStr>,
    pub navigations: Vec<Navigation>,
    /// The condition of each variable; `None`: any row.
    pub define: Vec<Option<Expr>>,
    pub measures: Vec<Expr>,
    pub span: Span,
}

/// A look at the rows taken so far, or at those of a match.
#[derive(Clone, Debug)]
pub struct Navigation {
    pub navigate: Navigate,
    /// Only rows taken as this variable.
    pub variable: Option<usize>,
    /// Over the columns of a row; none for the names of the variables.
    pub argument: Option<Expr>,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Navigate {
    First,
    Last,
    Min,
    Max,
    /// The variable of each row, as an array of names.
    Classifier,
}

/// What stands in `PATTERN (…)`; variables by their place.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Variable(usize),
    /// `.`: any row, taken as no variable
    Any,
    Concat(Vec<Pattern>),
    Either(Vec<Pattern>),
    /// `?`, `*`, `+`; `greedy` unless a `?` follows
    Repeat {
        of: Box<Pattern>,
        at_least_once: bool,
        many: bool,
        greedy: bool,
    },
}

/// A window of a `GROUP BY`. All lengths are ticks of 100 ns; windows are `(start, end]`, aligned to year one plus offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Window {
    /// also a hopping window whose hop equals its size
    Tumbling {
        size: i64,
        offset: i64,
    },
    Hopping {
        size: i64,
        hop: i64,
        offset: i64,
    },
    Sliding {
        size: i64,
    },
    /// `per_key`: `OVER (PARTITION BY …)` was given, then those expressions
    Session {
        timeout: i64,
        max_duration: i64,
        partition_by: Vec<SessionKey>,
    },
    /// `GROUP BY System.Timestamp()`
    Snapshot,
}

/// Index of the grouping key that partitions a session window.
pub type SessionKey = usize;

#[derive(Clone, Debug, PartialEq)]
pub struct NamedWindow {
    /// `System.Window().Id`
    pub name: Option<SmolStr>,
    pub window: Window,
}

/// An aggregate of a group.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// `None`: the whole row counts (`COUNT(*)`); for `Collect()`, `TopOne()` and `CollectTop(n)` a record expression is given.
    pub argument: Option<Expr>,
    /// The arguments of a user aggregate, which has no `argument`.
    pub user_args: Vec<Expr>,
    pub distinct: bool,
    pub order_by: Vec<(Expr, bool)>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    /// `text`: the argument is explicitly cast to nvarchar(max); without it text is converted to float
    Min {
        text: bool,
    },
    Max {
        text: bool,
    },
    StDev,
    StDevP,
    Var,
    VarP,
    Collect,
    CollectTop {
        count: usize,
    },
    TopOne,
    PercentileCont {
        fraction: f64,
    },
    PercentileDisc {
        fraction: f64,
    },
    User(UserAggregate),
}

/// A user aggregate: a resource of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct UserAggregate {
    /// That of [`super::catalog::FunctionKind::Aggregate`].
    pub index: usize,
    /// As the query writes it, without the prefix.
    pub name: SmolStr,
    /// For each argument whether a row is left out when it is NULL.
    pub required: Vec<bool>,
    pub offers: Offers,
}

/// An analytic function over the rows seen so far.
#[derive(Clone, Debug)]
pub struct Analytic {
    pub function: AnalyticFunction,
    /// the value looked at; `LAG(*)` gives a record expression
    pub argument: Option<Expr>,
    pub default: Option<Expr>,
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<(Expr, bool)>,
    /// `LIMIT DURATION`, ticks
    pub limit: Option<i64>,
    pub when: Option<Expr>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AnalyticFunction {
    Lag {
        offset: usize,
    },
    Last,
    /// interval in ticks
    IsFirst {
        interval: i64,
    },
    Aggregate(AggregateFunction),
    SpikeAndDip {
        confidence: f64,
        history: usize,
        mode: SpikeMode,
    },
    ChangePoint {
        confidence: f64,
        history: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpikeMode {
    Spikes,
    Dips,
    SpikesAndDips,
}

/// `DATEDIFF(unit, left, right) BETWEEN low AND high`, counted in boundaries of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinBound {
    pub unit: DatePart,
    pub low: i64,
    pub high: i64,
}

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
