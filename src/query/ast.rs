//! The syntax tree of a query script.
//!
//! In: what the parser read. Out: plain data with a [`Span`] wherever an error may have to point. Invariant: a tree
//! says only what was written; nothing here is bound to an input, typed or checked. Not here: meaning (`resolve`).

use smol_str::SmolStr;

pub use crate::diagnostic::Span;
use crate::value::Type;

/// A name as written, without its quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Ident {
    pub name: SmolStr,
    pub span: Span,
    /// Written as `[name]` or `"name"`.
    pub quoted: bool,
}

/// A whole script: `CREATE TABLE` statements, at most one `WITH`, then one or more `SELECT` statements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    pub tables: Vec<CreateTable>,
    pub steps: Vec<Step>,
    pub statements: Vec<Select>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: Ident,
    pub columns: Vec<ColumnDef>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    pub name: Ident,
    pub ty: Type,
    pub span: Span,
}

/// One `name AS (select)` of a `WITH`.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: Ident,
    pub body: Select,
}

/// One or more `SELECT` cores joined by `UNION`; `INTO` belongs to the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    pub cores: Vec<SelectCore>,
    /// `INTO output`; it stands in the first core of a union.
    pub into: Option<Ident>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SelectCore {
    pub items: Vec<SelectItem>,
    pub from: From,
    pub where_: Option<Expr>,
    pub group_by: Vec<Expr>,
    pub having: Option<Expr>,
    /// `PARTITION BY key, … [INTO n]`: a hint.
    pub partition_by: Vec<Expr>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all items are expressions")]
pub enum SelectItem {
    /// `*`
    Star { span: Span },
    /// `alias.*`, `column.*`, `alias.column.*`
    PathStar { path: Vec<Ident>, span: Span },
    /// `expr [[AS] alias]` or `alias = expr`
    Expr { expr: Expr, alias: Option<Ident>, span: Span },
}

#[derive(Clone, Debug, PartialEq)]
pub struct From {
    pub first: FromSource,
    pub joins: Vec<Join>,
}

impl From {
    /// The inputs and steps, in the order of the text.
    pub fn sources(&self) -> impl Iterator<Item = &FromSource> {
        let joined = self.joins.iter().filter_map(|join| match join {
            Join::Table { source, .. } => Some(source),
            Join::Apply { .. } => None,
        });
        std::iter::once(&self.first).chain(joined)
    }
}

/// An input or a step in `FROM` or `JOIN`.
#[derive(Clone, Debug, PartialEq)]
pub struct FromSource {
    pub name: Ident,
    pub alias: Option<Ident>,
    pub timestamp_by: Option<Expr>,
    /// keys of `TIMESTAMP BY … OVER`
    pub over: Vec<Expr>,
    /// `PARTITION BY key, …` on the source
    pub partition_by: Vec<Expr>,
    pub matched: Option<Box<MatchRecognize>>,
    pub span: Span,
}

/// `MATCH_RECOGNIZE (…)` behind an input or a step.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchRecognize {
    pub limit: LimitDuration,
    pub partition_by: Vec<Expr>,
    pub measures: Vec<Measure>,
    pub pattern: RowPattern,
    pub define: Vec<Variable>,
    pub span: Span,
}

/// `expr AS name` in MEASURES
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub expr: Expr,
    pub name: Ident,
}

/// `name AS condition` in DEFINE
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub name: Ident,
    pub condition: Expr,
}

/// What stands in `PATTERN (…)`.
#[derive(Clone, Debug, PartialEq)]
pub enum RowPattern {
    Variable(Ident),
    /// `.`
    Any,
    Concat(Vec<RowPattern>),
    Either(Vec<RowPattern>),
    /// `?`, `*`, `+`; reluctant when a `?` follows
    Repeat {
        of: Box<RowPattern>,
        at_least_once: bool,
        many: bool,
        greedy: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a query has a handful of joins")]
pub enum Join {
    /// `[INNER] JOIN source ON …`, `LEFT [OUTER] JOIN source ON …`
    Table { left_outer: bool, source: FromSource, on: Expr, span: Span },
    /// `CROSS APPLY f(x) AS a`, `OUTER APPLY f(x) AS a`
    Apply { outer: bool, function: ApplyFunction, argument: Expr, alias: Ident, span: Span },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyFunction {
    GetArrayElements,
    GetRecordProperties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Literal(Literal),
    /// `a`, `a.b.c`, `[a].[b]`: the parser does not know which part is a source and which a field
    Path(Vec<Ident>),
    /// `System.Timestamp()`, `System.Timestamp`
    SystemTimestamp,
    /// `System.Window().Id`
    WindowId,
    Unary(UnaryOp, Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `x IS [NOT] NULL`
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
    /// `CASE [operand] WHEN … THEN … ELSE … END`; `ELSE` is mandatory in the language, the binder reports its absence
    Case {
        operand: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(e AS t)`, `TRY_CAST(e AS t)`
    Cast {
        is_try: bool,
        operand: Box<Expr>,
        ty: Type,
    },
    /// any call: scalar, aggregate, analytic, window, user function
    Call(Call),
    /// a field of a call's or a parenthesised expression's result: `f(x).y`
    Field(Box<Expr>, Ident),
}

/// `name(arguments) [OVER (…)]`. The name is a path: `COUNT`, `udf.score`, `uda.mean`, `System.Window`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: Vec<Ident>,
    pub args: Vec<Arg>,
    /// `DISTINCT` before the first argument
    pub distinct: bool,
    pub over: Option<Over>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Expr(Expr),
    /// `*`, as in `COUNT(*)` and `LAG(*)`
    Star(Span),
}

/// `OVER ([PARTITION BY …] [ORDER BY …] [LIMIT DURATION(unit, n)] [WHEN cond])`, the parts in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Over {
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<LimitDuration>,
    pub when: Option<Box<Expr>>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderItem {
    pub expr: Expr,
    pub descending: bool,
}

/// `LIMIT DURATION(unit, n)`
#[derive(Clone, Debug, PartialEq)]
pub struct LimitDuration {
    pub unit: Ident,
    pub count: Box<Expr>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    BigInt(i64),
    Float(f64),
    Text(SmolStr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    Not,
    Minus,
    Plus,
    /// `~`
    BitNot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
}

impl BinaryOp {
    /// As the query writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "OR",
            BinaryOp::And => "AND",
            BinaryOp::Eq => "=",
            BinaryOp::Ne => "<>",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::BitAnd => "&",
            BinaryOp::BitOr => "|",
            BinaryOp::BitXor => "^",
        }
    }
}

/// A copy of an expression with each operand replaced by what `f` gives for it.
pub fn map_operands(expr: &Expr, f: &mut dyn FnMut(&Expr) -> Expr) -> Expr {
    let mut boxed = |e: &Expr| Box::new(f(e));
    let kind = match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Path(_) | ExprKind::SystemTimestamp | ExprKind::WindowId => expr.kind.clone(),
        ExprKind::Unary(op, e) => ExprKind::Unary(*op, boxed(e)),
        ExprKind::Binary(op, a, b) => ExprKind::Binary(*op, boxed(a), boxed(b)),
        ExprKind::IsNull { negated, operand } => ExprKind::IsNull { negated: *negated, operand: boxed(operand) },
        ExprKind::Between { negated, operand, low, high } => {
            ExprKind::Between { negated: *negated, operand: boxed(operand), low: boxed(low), high: boxed(high) }
        }
        ExprKind::In { negated, operand, list } => {
            ExprKind::In { negated: *negated, operand: boxed(operand), list: list.iter().map(f).collect() }
        }
        ExprKind::Like { negated, operand, pattern, escape } => ExprKind::Like {
            negated: *negated,
            operand: boxed(operand),
            pattern: boxed(pattern),
            escape: escape.as_ref().map(|e| boxed(e)),
        },
        ExprKind::Case { operand, branches, otherwise } => ExprKind::Case {
            operand: operand.as_ref().map(|e| boxed(e)),
            branches: branches.iter().map(|(when, then)| (*boxed(when), *boxed(then))).collect(),
            otherwise: otherwise.as_ref().map(|e| boxed(e)),
        },
        ExprKind::Cast { is_try, operand, ty } => ExprKind::Cast { is_try: *is_try, operand: boxed(operand), ty: *ty },
        ExprKind::Call(call) => {
            let args = call.args.iter().map(|arg| match arg {
                Arg::Expr(e) => Arg::Expr(f(e)),
                Arg::Star(span) => Arg::Star(*span),
            });
            ExprKind::Call(Call { args: args.collect(), ..call.clone() })
        }
        ExprKind::Field(e, name) => ExprKind::Field(boxed(e), name.clone()),
    };
    Expr { kind, span: expr.span }
}
