//! A plan as text, for `forebay check` and for tests.
//!
//! In: a plan. Out: lines in flow order: what is read, what each operator does, where the plan leaves the process.
//! Invariant: columns are shown by name, a computed one by its expression, so the text reads like the query. Not here:
//! how operators run.

use smol_str::SmolStr;

use super::aggregate::{Aggregate, AggregateFunction, NamedWindow, Window};
use super::analytic::{Analytic, AnalyticFunction, SpikeMode};
use super::expr::Expr;
use super::node::{JoinBound, Metadata, Node, Scan, ScanColumn};
use super::{Part, Plan, Statement};
use crate::query::ast::ApplyFunction;
use crate::time::{TICKS_PER_DAY, TICKS_PER_MILLISECOND, TICKS_PER_SECOND};
use crate::value::Value;

/// Text of a computed column past this many characters is cut: the query itself is at hand.
const EXPRESSION_MAX: usize = 120;

/// The whole plan, a paragraph a statement.
pub fn explain(plan: &Plan) -> String {
    let mut out = String::new();
    for (i, statement) in plan.statements.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        explain_statement(statement, &mut out);
    }
    out
}

fn explain_statement(statement: &Statement, out: &mut String) {
    out.push_str(&format!("into {}\n", statement.output));
    let mut stream: Vec<String> = Vec::new();
    for (i, part) in statement.parts.iter().enumerate() {
        let mut lines = Lines { out, depth: 1 };
        if statement.parts.len() > 1 {
            lines.add(&format!("part {}{}", i + 1, if part.is_stateful() { ", keeps state" } else { "" }));
            lines.depth += 1;
        }
        stream = explain_part(part, &stream, &mut lines);
    }
}

fn explain_part(part: &Part, stream: &[String], lines: &mut Lines<'_>) -> Vec<String> {
    let mut names = lines.node(&part.root, stream);
    if let Some(external) = &part.external {
        let argument = names.pop().unwrap_or_default();
        lines.add(&match external.called.and_then(|slot| names.get(slot)) {
            None => format!("call {}({argument})", external.function),
            Some(guard) => {
                let before = format!("CASE WHEN {guard} THEN ");
                let sent = argument.strip_prefix(&before).and_then(|text| text.strip_suffix(" ELSE NULL END"));
                format!("call {}({}) for rows with {guard}", external.function, sent.unwrap_or(&argument))
            }
        });
        names.push(format!("{}()", external.function));
        names = lines.node(&external.tail, &names);
    }
    let columns: Vec<String> =
        part.columns.iter().zip(&names).map(|(c, from)| column_text(&c.name, c.spread, from)).collect();
    lines.add(&format!("gives {}", columns.join(", ")));
    part.columns.iter().map(|c| c.name.to_string()).collect()
}

fn column_text(name: &SmolStr, spread: bool, from: &str) -> String {
    match spread {
        true => format!("{from}.*"),
        false if name == from => from.to_owned(),
        false => format!("{name} = {from}"),
    }
}

struct Lines<'a> {
    out: &'a mut String,
    depth: usize,
}

impl Lines<'_> {
    fn add(&mut self, line: &str) {
        self.out.push_str(&"  ".repeat(self.depth));
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Writes a node and what feeds it; gives the names of its columns. `stream` names the columns of its `Rows`.
    fn node(&mut self, node: &Node, stream: &[String]) -> Vec<String> {
        match node {
            Node::Scan(scan) => self.scan(scan),
            Node::Rows { .. } => stream.to_vec(),
            Node::Filter { input, predicate } => {
                let names = self.node(input, stream);
                self.add(&format!("where {}", text(predicate, &names)));
                names
            }
            Node::Project { input, exprs } => {
                let names = self.node(input, stream);
                exprs.iter().map(|e| text(e, &names)).collect()
            }
            Node::Apply { input, outer, function, argument, .. } => {
                let mut names = self.node(input, stream);
                let function = match function {
                    ApplyFunction::GetArrayElements => "GetArrayElements",
                    ApplyFunction::GetRecordProperties => "GetRecordProperties",
                };
                let call = format!("{function}({})", text(argument, &names));
                self.add(&format!("{} apply {call}", if *outer { "outer" } else { "cross" }));
                names.push(call);
                names
            }
            Node::Aggregate { input, keys, windows, aggregates, .. } => {
                let names = self.node(input, stream);
                let keys = keys.iter().map(|e| text(e, &names)).collect::<Vec<_>>();
                let values = aggregates.iter().map(|a| aggregate(a, &names)).collect::<Vec<_>>();
                let windows = windows.iter().map(window).collect::<Vec<_>>().join(" and ");
                let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
                self.add(&format!(
                    "group{by} in {windows}: {}",
                    if values.is_empty() { "no aggregates".to_owned() } else { values.join(", ") }
                ));
                keys.into_iter().chain(values).chain(["window id".to_owned()]).collect()
            }
            Node::Analytic { input, calls, .. } => {
                let mut names = self.node(input, stream);
                let calls = calls.iter().map(|c| analytic(c, &names)).collect::<Vec<_>>();
                self.add(&format!("look back: {}", calls.join(", ")));
                names.extend(calls);
                names
            }
            Node::Match { input, plan, .. } => {
                let mut names = self.node(input, stream);
                names.extend(
                    plan.navigations
                        .iter()
                        .map(|n| {
                            let variable = n.variable.and_then(|v| plan.variables.get(v)).map_or("", |v| v.as_str());
                            let of = n
                                .argument
                                .as_ref()
                                .map(|e| format!("{variable}.{}", text(e, &names)))
                                .unwrap_or_default();
                            format!("{:?}({of})", n.navigate)
                        })
                        .collect::<Vec<_>>(),
                );
                let measures: Vec<String> = plan.measures.iter().map(|e| text(e, &names)).collect();
                self.add(&format!("match rows: {}", measures.join(", ")));
                measures
            }
            Node::Join { left, right, left_outer, bound, keys, on, .. } => {
                self.join(left, right, *left_outer, *bound, keys, on.as_ref(), stream)
            }
            Node::ReferenceJoin { input, reference, left_outer, keys, on } => {
                let mut names = self.node(input, stream);
                let record = [reference.to_string()];
                let mut conditions: Vec<String> =
                    keys.iter().map(|(a, b)| format!("{} = {}", text(a, &names), text(b, &record))).collect();
                names.push(reference.to_string());
                conditions.extend(on.as_ref().map(|e| text(e, &names)));
                self.add(&format!(
                    "{}join reference {reference} on {}",
                    outer_word(*left_outer),
                    conditions.join(" AND ")
                ));
                names
            }
            Node::Union { inputs, .. } => {
                self.add("union of");
                let mut names = Vec::new();
                for (i, input) in inputs.iter().enumerate() {
                    let branch = self.indented(input, stream);
                    if i == 0 {
                        names = branch;
                    }
                }
                names
            }
        }
    }

    fn indented(&mut self, node: &Node, stream: &[String]) -> Vec<String> {
        self.depth += 1;
        let names = self.node(node, stream);
        self.depth -= 1;
        names
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one variant")]
    fn join(
        &mut self,
        left: &Node,
        right: &Node,
        left_outer: bool,
        bound: JoinBound,
        keys: &[(Expr, Expr)],
        on: Option<&Expr>,
        stream: &[String],
    ) -> Vec<String> {
        self.add(&format!(
            "{}join within {} to {} {}",
            outer_word(left_outer),
            bound.low,
            bound.high,
            bound.unit.name()
        ));
        let mut names = self.indented(left, stream);
        let right = self.indented(right, stream);
        let mut conditions: Vec<String> =
            keys.iter().map(|(a, b)| format!("{} = {}", text(a, &names), text(b, &right))).collect();
        names.extend(right);
        conditions.extend(on.map(|e| text(e, &names)));
        if !conditions.is_empty() {
            self.add(&format!("on {}", conditions.join(" AND ")));
        }
        names
    }

    fn scan(&mut self, scan: &Scan) -> Vec<String> {
        let names: Vec<String> = scan
            .columns
            .iter()
            .map(|column| match column {
                ScanColumn::Field(name) => name.to_string(),
                ScanColumn::Whole => scan.input.to_string(),
                ScanColumn::Metadata(metadata) => metadata_text(metadata),
            })
            .collect();
        let mut line = format!("read {}", scan.input);
        let fields: Vec<String> = scan
            .columns
            .iter()
            .zip(&names)
            .map(|(c, n)| if *c == ScanColumn::Whole { "whole events".to_owned() } else { n.clone() })
            .collect();
        line.push_str(&format!(": {}", if fields.is_empty() { "no fields".to_owned() } else { fields.join(", ") }));
        if let Some(by) = &scan.timestamp_by {
            line.push_str(&format!(" timestamp by {}", text(by, &names)));
        }
        if !scan.over.is_empty() {
            line.push_str(&format!(" over {}", list(&scan.over, &names)));
        }
        if scan.schema.is_some() {
            line.push_str(" checked against its schema");
        }
        self.add(&line);
        names
    }
}

fn outer_word(left_outer: bool) -> &'static str {
    if left_outer { "left " } else { "" }
}

fn metadata_text(metadata: &Metadata) -> String {
    match metadata {
        Metadata::Arrival => "arrival".to_owned(),
        Metadata::EventId => "EventId".to_owned(),
        Metadata::Mqtt => "Mqtt".to_owned(),
        Metadata::Topic => "Mqtt.Topic".to_owned(),
        Metadata::Qos => "Mqtt.Qos".to_owned(),
        Metadata::Retain => "Mqtt.Retain".to_owned(),
        Metadata::UserProperties => "User".to_owned(),
        Metadata::UserProperty(name) => format!("User.{name}"),
    }
}

fn window(named: &NamedWindow) -> String {
    let with_offset =
        |text: String, offset: i64| if offset == 0 { text } else { format!("{text} offset {}", length(offset)) };
    let text = match &named.window {
        Window::Tumbling { size, offset } => with_offset(format!("tumbling {}", length(*size)), *offset),
        Window::Hopping { size, hop, offset } => {
            with_offset(format!("hopping {} every {}", length(*size), length(*hop)), *offset)
        }
        Window::Sliding { size } => format!("sliding {}", length(*size)),
        Window::Session { timeout, max_duration, partition_by } => {
            let keys = if partition_by.is_empty() { "" } else { " for each key" };
            format!("session {} at most {}{keys}", length(*timeout), length(*max_duration))
        }
        Window::Snapshot => "snapshot".to_owned(),
    };
    match &named.name {
        Some(name) => format!("'{name}' {text}"),
        None => text,
    }
}

/// Ticks in the largest unit that divides them.
fn length(ticks: i64) -> String {
    let units = [
        (TICKS_PER_DAY, "d"),
        (3600 * TICKS_PER_SECOND, "h"),
        (60 * TICKS_PER_SECOND, "min"),
        (TICKS_PER_SECOND, "s"),
        (TICKS_PER_MILLISECOND, "ms"),
    ];
    let unit = units.iter().find(|(unit, _)| ticks % unit == 0);
    unit.map_or_else(|| format!("{} µs", ticks / 10), |(unit, name)| format!("{} {name}", ticks / unit))
}

fn aggregate(aggregate: &Aggregate, names: &[String]) -> String {
    let argument = match (&aggregate.function, &aggregate.argument) {
        (AggregateFunction::User(_), _) => {
            aggregate.user_args.iter().map(|e| text(e, names)).collect::<Vec<_>>().join(", ")
        }
        (_, Some(e)) => text(e, names),
        (_, None) => "*".to_owned(),
    };
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    format!("{}({distinct}{argument}){}", aggregate_name(&aggregate.function), order(&aggregate.order_by, names))
}

fn aggregate_name(function: &AggregateFunction) -> String {
    match function {
        AggregateFunction::Count => "COUNT".to_owned(),
        AggregateFunction::Sum => "SUM".to_owned(),
        AggregateFunction::Avg => "AVG".to_owned(),
        AggregateFunction::Min { text } => format!("MIN{}", if *text { " text" } else { "" }),
        AggregateFunction::Max { text } => format!("MAX{}", if *text { " text" } else { "" }),
        AggregateFunction::StDev => "STDEV".to_owned(),
        AggregateFunction::StDevP => "STDEVP".to_owned(),
        AggregateFunction::Var => "VAR".to_owned(),
        AggregateFunction::VarP => "VARP".to_owned(),
        AggregateFunction::Collect => "Collect".to_owned(),
        AggregateFunction::CollectTop { count } => format!("CollectTop {count} "),
        AggregateFunction::TopOne => "TopOne".to_owned(),
        AggregateFunction::PercentileCont { fraction } => format!("PERCENTILE_CONT {fraction} "),
        AggregateFunction::PercentileDisc { fraction } => format!("PERCENTILE_DISC {fraction} "),
        AggregateFunction::User(user) => format!("uda.{}", user.name),
    }
}

fn order(items: &[(Expr, bool)], names: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items
        .iter()
        .map(|(e, descending)| format!("{}{}", text(e, names), if *descending { " desc" } else { "" }))
        .collect();
    format!(" order by {}", items.join(", "))
}

fn analytic(call: &Analytic, names: &[String]) -> String {
    let argument = call.argument.as_ref().map_or_else(|| "*".to_owned(), |e| text(e, names));
    let mut out = match &call.function {
        AnalyticFunction::Lag { offset } => format!("LAG({argument}, {offset})"),
        AnalyticFunction::Last => format!("LAST({argument})"),
        AnalyticFunction::IsFirst { interval } => format!("ISFIRST({})", length(*interval)),
        AnalyticFunction::Aggregate(function) => format!("{}({argument})", aggregate_name(function)),
        AnalyticFunction::SpikeAndDip { confidence, history, mode } => {
            let mode = match mode {
                SpikeMode::Spikes => "spikes",
                SpikeMode::Dips => "dips",
                SpikeMode::SpikesAndDips => "spikes and dips",
            };
            format!("{mode} of {argument}, {confidence} % over {history}")
        }
        AnalyticFunction::ChangePoint { confidence, history } => {
            format!("change of {argument}, {confidence} % over {history}")
        }
    };
    if let Some(default) = &call.default {
        out.push_str(&format!(" else {}", text(default, names)));
    }
    if !call.partition_by.is_empty() {
        out.push_str(&format!(" by {}", list(&call.partition_by, names)));
    }
    out.push_str(&order(&call.order_by, names));
    if let Some(limit) = call.limit {
        out.push_str(&format!(" within {}", length(limit)));
    }
    if let Some(when) = &call.when {
        out.push_str(&format!(" when {}", text(when, names)));
    }
    out
}

fn list(exprs: &[Expr], names: &[String]) -> String {
    exprs.iter().map(|e| text(e, names)).collect::<Vec<_>>().join(", ")
}

/// An expression over columns of these names, cut to a length that a line bears.
fn text(expr: &Expr, names: &[String]) -> String {
    let full = full_text(expr, names);
    match full.char_indices().nth(EXPRESSION_MAX) {
        Some((end, _)) => format!("{}…", full.get(..end).unwrap_or_default()),
        None => full,
    }
}

fn full_text(expr: &Expr, names: &[String]) -> String {
    let part = |e: &Expr| text(e, names);
    let not = |negated: bool| if negated { "NOT " } else { "" };
    match expr {
        Expr::Const(Value::Text(t)) => format!("'{t}'"),
        Expr::Const(Value::Null) => "NULL".to_owned(),
        Expr::Const(value) => value.to_json(),
        Expr::Slot(slot) => names.get(*slot).cloned().unwrap_or_else(|| format!("#{slot}")),
        Expr::Time => "System.Timestamp()".to_owned(),
        Expr::Arrival => "arrival".to_owned(),
        Expr::Substream => "substream".to_owned(),
        Expr::Path(base, path) => format!("{}.{}", part(base), path.join(".")),
        Expr::Record(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, e)| format!("{name}: {}", part(e))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Expr::Spread(columns, values) => {
            let fields: Vec<String> = columns
                .iter()
                .zip(values)
                .map(|(c, e)| if c.spread { format!("{}.*", part(e)) } else { format!("{}: {}", c.name, part(e)) })
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Expr::Not(e) => format!("NOT {}", part(e)),
        Expr::Try(e) => format!("TryEvaluate({})", part(e)),
        Expr::Negate(e, _) => format!("-{}", part(e)),
        Expr::BitNot(e, _) => format!("~{}", part(e)),
        Expr::And(a, b) => format!("({} AND {})", part(a), part(b)),
        Expr::Or(a, b) => format!("({} OR {})", part(a), part(b)),
        Expr::Binary(op, a, b, _) => format!("({} {} {})", part(a), op.symbol(), part(b)),
        Expr::IsNull { negated, operand } => format!("{} IS {}NULL", part(operand), not(*negated)),
        Expr::Between { negated, operand, low, high } => {
            format!("{} {}BETWEEN {} AND {}", part(operand), not(*negated), part(low), part(high))
        }
        Expr::In { negated, operand, list: items } => {
            format!("{} {}IN ({})", part(operand), not(*negated), list(items, names))
        }
        Expr::Like { negated, operand, pattern, .. } => {
            format!("{} {}LIKE {}", part(operand), not(*negated), part(pattern))
        }
        Expr::Case { branches, otherwise } => {
            let branches: Vec<String> =
                branches.iter().map(|(when, then)| format!("WHEN {} THEN {}", part(when), part(then))).collect();
            format!("CASE {} ELSE {} END", branches.join(" "), part(otherwise))
        }
        Expr::Cast { is_try, operand, ty, .. } => {
            format!("{}CAST({} AS {ty})", if *is_try { "TRY_" } else { "" }, part(operand))
        }
        Expr::Builtin { function, args, .. } => format!("{}({})", function.name, list(args, names)),
        Expr::Udf { name, args, .. } => format!("udf.{name}({})", list(args, names)),
    }
}
