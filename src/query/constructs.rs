//! Which constructs of the language a script uses.
//!
//! In: a script. Out: names out of [`all`], for tables of what is tested. Invariant: every name that [`used`] answers
//! is one of [`all`]. Not here: whether a script compiles.

use std::collections::BTreeSet;

use super::ast::{
    ApplyFunction, Arg, Call, Expr, ExprKind, FromSource, Join, Literal, Script, SelectCore, SelectItem, UnaryOp,
};
use super::builtins;
use super::resolve::{AGGREGATES, ANALYTICS};
use crate::value::Type;

/// Constructs that are no functions, by group, in the order of a reader.
const SYNTAX: &[(&str, &[&str])] = &[
    (
        "statements",
        &[
            "CREATE TABLE",
            "WITH",
            "INTO",
            "no INTO",
            "several statements",
            "UNION",
            "PARTITION BY",
            "SELECT *",
            "name.*",
            "expression AS name",
            "name = expression",
            "WHERE",
            "GROUP BY",
            "HAVING",
            "HAVING without GROUP BY",
        ],
    ),
    (
        "sources",
        &[
            "TIMESTAMP BY",
            "TIMESTAMP BY … OVER",
            "CROSS APPLY",
            "OUTER APPLY",
            "GetArrayElements",
            "GetRecordProperties",
        ],
    ),
    ("joins", &["JOIN", "LEFT JOIN", "self join", "three sources", "JOIN reference data", "LEFT JOIN reference data"]),
    (
        "operators",
        &[
            "+",
            "-",
            "*",
            "/",
            "%",
            "&",
            "|",
            "^",
            "~",
            "unary -",
            "=",
            "<>",
            "<",
            "<=",
            ">",
            ">=",
            "AND",
            "OR",
            "NOT",
            "IS NULL",
            "IS NOT NULL",
            "IN",
            "NOT IN",
            "BETWEEN",
            "NOT BETWEEN",
            "LIKE",
            "NOT LIKE",
            "LIKE … ESCAPE",
            "CASE x WHEN",
            "CASE WHEN",
        ],
    ),
    (
        "values",
        &[
            "a.b",
            "f(x).y",
            "NULL",
            "'text'",
            "whole number",
            "number with point",
            "CAST to bigint",
            "CAST to float",
            "CAST to nvarchar(max)",
            "CAST to datetime",
            "CAST to bit",
            "CAST to record",
            "CAST to array",
            "TRY_CAST",
            "System.Timestamp()",
            "System.Window().Id",
        ],
    ),
    (
        "windows",
        &[
            "TumblingWindow",
            "HoppingWindow",
            "SlidingWindow",
            "SessionWindow",
            "SessionWindow OVER (PARTITION BY)",
            "snapshot",
            "Windows",
            "Window offset",
            "Duration(…) form",
        ],
    ),
    (
        "analytic clauses",
        &[
            "LIMIT DURATION",
            "OVER (PARTITION BY)",
            "OVER (ORDER BY)",
            "WHEN",
            "aggregate OVER LIMIT DURATION",
            "COUNT(DISTINCT)",
        ],
    ),
    ("patterns", &["MATCH_RECOGNIZE"]),
];

/// Functions that the binder knows by itself.
const SPECIAL: &[&str] = &["GetMetadataPropertyValue", "GETUTCDATE", "TryEvaluate"];

/// Every construct: its group and its name.
pub fn all() -> Vec<(&'static str, &'static str)> {
    let syntax = SYNTAX.iter().flat_map(|(group, names)| names.iter().map(|name| (*group, *name)));
    let aggregates = AGGREGATES.iter().map(|name| ("aggregates", *name));
    let analytic = ANALYTICS.iter().map(|name| ("analytic functions", *name));
    let scalar = builtins::names().chain(SPECIAL.iter().copied()).map(|name| ("scalar functions", name));
    let user = [("user functions", "udf.name"), ("user functions", "uda.name")];
    syntax.chain(aggregates).chain(analytic).chain(scalar).chain(user).collect()
}

/// The constructs of a script; `is_reference` says which inputs are reference data.
pub fn used(script: &Script, is_reference: &dyn Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let mut uses =
        Uses { names: all().into_iter().map(|(_, name)| name).collect(), found: BTreeSet::new(), is_reference };
    uses.script(script);
    uses.found
}

struct Uses<'a> {
    names: Vec<&'static str>,
    found: BTreeSet<&'static str>,
    is_reference: &'a dyn Fn(&str) -> bool,
}

impl Uses<'_> {
    fn note(&mut self, name: &str) {
        if let Some(known) = self.names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            self.found.insert(known);
        }
    }

    fn note_if(&mut self, is: bool, name: &str) {
        if is {
            self.note(name);
        }
    }

    fn script(&mut self, script: &Script) {
        self.note_if(!script.tables.is_empty(), "CREATE TABLE");
        self.note_if(!script.steps.is_empty(), "WITH");
        self.note_if(script.statements.len() > 1, "several statements");
        for select in &script.statements {
            self.note(if select.into.is_some() { "INTO" } else { "no INTO" });
        }
        for select in script.steps.iter().map(|step| &step.body).chain(&script.statements) {
            self.note_if(select.cores.len() > 1, "UNION");
            select.cores.iter().for_each(|core| self.core(core));
        }
    }

    fn core(&mut self, core: &SelectCore) {
        self.note_if(!core.partition_by.is_empty(), "PARTITION BY");
        for item in &core.items {
            match item {
                SelectItem::Star { .. } => self.note("SELECT *"),
                SelectItem::PathStar { .. } => self.note("name.*"),
                SelectItem::Expr { expr, alias, .. } => {
                    if let Some(alias) = alias {
                        self.note(if alias.span.start < expr.span.start {
                            "name = expression"
                        } else {
                            "expression AS name"
                        });
                    }
                    self.expr(expr);
                }
            }
        }
        self.source(&core.from.first);
        let tables = core.from.joins.iter().filter(|join| matches!(join, Join::Table { .. })).count();
        self.note_if(tables > 1, "three sources");
        for join in &core.from.joins {
            self.join(join, &core.from.first);
        }
        self.note_if(core.where_.is_some(), "WHERE");
        self.note_if(!core.group_by.is_empty(), "GROUP BY");
        self.note_if(core.having.is_some(), "HAVING");
        self.note_if(core.having.is_some() && core.group_by.is_empty(), "HAVING without GROUP BY");
        let windows = core.group_by.iter().any(|key| matches!(&key.kind, ExprKind::Call(call) if is_window(call)));
        self.note_if(
            !windows && core.group_by.iter().any(|key| matches!(key.kind, ExprKind::SystemTimestamp)),
            "snapshot",
        );
        self.all(core.where_.iter().chain(&core.group_by).chain(&core.having).chain(&core.partition_by));
    }

    fn source(&mut self, source: &FromSource) {
        self.note_if(source.timestamp_by.is_some(), "TIMESTAMP BY");
        self.note_if(!source.over.is_empty(), "TIMESTAMP BY … OVER");
        self.note_if(source.matched.is_some(), "MATCH_RECOGNIZE");
        self.note_if(!source.partition_by.is_empty(), "PARTITION BY");
        self.all(source.timestamp_by.iter().chain(&source.over).chain(&source.partition_by));
    }

    fn join(&mut self, join: &Join, first: &FromSource) {
        match join {
            Join::Table { left_outer, source, on, .. } => {
                let name = match ((self.is_reference)(&source.name.name), *left_outer) {
                    (true, true) => "LEFT JOIN reference data",
                    (true, false) => "JOIN reference data",
                    (false, true) => "LEFT JOIN",
                    (false, false) => "JOIN",
                };
                self.note(name);
                self.note_if(source.name.name.eq_ignore_ascii_case(&first.name.name), "self join");
                self.source(source);
                self.expr(on);
            }
            Join::Apply { outer, function, argument, .. } => {
                self.note(if *outer { "OUTER APPLY" } else { "CROSS APPLY" });
                self.note(match function {
                    ApplyFunction::GetArrayElements => "GetArrayElements",
                    ApplyFunction::GetRecordProperties => "GetRecordProperties",
                });
                self.expr(argument);
            }
        }
    }

    fn all<'e>(&mut self, list: impl IntoIterator<Item = &'e Expr>) {
        list.into_iter().for_each(|expr| self.expr(expr));
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Literal(literal) => self.note(match literal {
                Literal::Null => "NULL",
                Literal::BigInt(_) => "whole number",
                Literal::Float(_) => "number with point",
                Literal::Text(_) => "'text'",
            }),
            ExprKind::Path(path) => self.note_if(path.len() > 1, "a.b"),
            ExprKind::SystemTimestamp => self.note("System.Timestamp()"),
            ExprKind::WindowId => self.note("System.Window().Id"),
            ExprKind::Unary(op, operand) => {
                self.note(match op {
                    UnaryOp::Not => "NOT",
                    UnaryOp::Minus => "unary -",
                    UnaryOp::Plus => "+",
                    UnaryOp::BitNot => "~",
                });
                self.expr(operand);
            }
            ExprKind::Binary(op, a, b) => {
                self.note(op.symbol());
                self.all([a.as_ref(), b.as_ref()]);
            }
            ExprKind::IsNull { negated, operand } => {
                self.note(if *negated { "IS NOT NULL" } else { "IS NULL" });
                self.expr(operand);
            }
            ExprKind::Between { negated, operand, low, high } => {
                self.note(if *negated { "NOT BETWEEN" } else { "BETWEEN" });
                self.all([operand.as_ref(), low, high]);
            }
            ExprKind::In { negated, operand, list } => {
                self.note(if *negated { "NOT IN" } else { "IN" });
                self.expr(operand);
                self.all(list);
            }
            ExprKind::Like { negated, operand, pattern, escape } => {
                self.note(if *negated { "NOT LIKE" } else { "LIKE" });
                self.note_if(escape.is_some(), "LIKE … ESCAPE");
                self.all([operand.as_ref(), pattern].into_iter().chain(escape.as_deref()));
            }
            ExprKind::Case { operand, branches, otherwise } => {
                self.note(if operand.is_some() { "CASE x WHEN" } else { "CASE WHEN" });
                self.all(operand.as_deref().into_iter().chain(otherwise.as_deref()));
                self.all(branches.iter().flat_map(|(when, then)| [when, then]));
            }
            ExprKind::Cast { is_try, operand, ty } => {
                self.note(cast(*ty));
                self.note_if(*is_try, "TRY_CAST");
                self.expr(operand);
            }
            ExprKind::Call(call) => self.call(call),
            ExprKind::Field(base, _) => {
                self.note("f(x).y");
                self.expr(base);
            }
        }
    }

    fn call(&mut self, call: &Call) {
        let written: Vec<&str> = call.name.iter().map(|part| part.name.as_str()).collect();
        match written.as_slice() {
            [prefix, _] if prefix.eq_ignore_ascii_case("udf") => self.note("udf.name"),
            [prefix, _] if prefix.eq_ignore_ascii_case("uda") => self.note("uda.name"),
            [name] => self.named(name, call),
            _ => {}
        }
        for arg in &call.args {
            if let Arg::Expr(expr) = arg {
                self.expr(expr);
            }
        }
        let Some(over) = &call.over else { return };
        let aggregate =
            written.first().is_some_and(|name| AGGREGATES.iter().any(|known| known.eq_ignore_ascii_case(name)));
        self.note_if(over.limit.is_some(), "LIMIT DURATION");
        self.note_if(over.limit.is_some() && aggregate, "aggregate OVER LIMIT DURATION");
        self.note_if(!over.partition_by.is_empty(), "OVER (PARTITION BY)");
        self.note_if(!over.order_by.is_empty(), "OVER (ORDER BY)");
        self.note_if(over.when.is_some(), "WHEN");
        self.all(
            over.partition_by.iter().chain(over.order_by.iter().map(|item| &item.expr)).chain(over.when.as_deref()),
        );
    }

    fn named(&mut self, name: &str, call: &Call) {
        self.note_if(call.distinct, "COUNT(DISTINCT)");
        let Some(window) = window(name) else { return self.note(name) };
        self.note(window);
        let long = call.args.iter().filter_map(|arg| match arg {
            Arg::Expr(Expr { kind: ExprKind::Call(inner), .. }) => {
                inner.name.first().map(|part| part.name.to_ascii_lowercase())
            }
            _ => None,
        });
        let long: Vec<String> = long.collect();
        self.note_if(long.iter().any(|n| n == "duration" || n == "timeout"), "Duration(…) form");
        let fixed = match window {
            "TumblingWindow" => Some(3),
            "HoppingWindow" => Some(4),
            _ => None,
        };
        self.note_if(long.iter().any(|n| n == "offset") || fixed == Some(call.args.len()), "Window offset");
        self.note_if(window == "SessionWindow" && call.over.is_some(), "SessionWindow OVER (PARTITION BY)");
    }
}

fn window(name: &str) -> Option<&'static str> {
    let names = ["TumblingWindow", "HoppingWindow", "SlidingWindow", "SessionWindow"];
    let long = names.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    let short = || {
        names
            .into_iter()
            .find(|known| known.strip_suffix("Window").is_some_and(|short| short.eq_ignore_ascii_case(name)))
    };
    long.or_else(short).or_else(|| name.eq_ignore_ascii_case("Windows").then_some("Windows"))
}

fn is_window(call: &Call) -> bool {
    matches!(call.name.as_slice(), [name] if window(&name.name).is_some())
}

fn cast(ty: Type) -> &'static str {
    match ty {
        Type::BigInt => "CAST to bigint",
        Type::Float => "CAST to float",
        Type::Text => "CAST to nvarchar(max)",
        Type::DateTime => "CAST to datetime",
        Type::Bit => "CAST to bit",
        Type::Record => "CAST to record",
        Type::Array => "CAST to array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parser::parse;

    #[test]
    fn names_are_unique_and_found_in_a_script() {
        let names: Vec<&str> = all().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let script = parse(
            "SELECT x = 1, ABS(-v) a, TRY_CAST(b.c AS bit), sum(v) INTO o FROM g LEFT JOIN r ON g.k = r.k GROUP BY k, \
            Hopping(Duration(second, 10), Hop(second, 5))",
            "q",
        )
        .unwrap();
        let found: Vec<&str> = used(&script, &|name| name == "r").into_iter().collect();
        assert_eq!(
            found,
            [
                "=",
                "ABS",
                "CAST to bit",
                "Duration(…) form",
                "GROUP BY",
                "HoppingWindow",
                "INTO",
                "LEFT JOIN reference data",
                "SUM",
                "TRY_CAST",
                "a.b",
                "expression AS name",
                "name = expression",
                "unary -",
                "whole number",
            ]
        );
    }
}
