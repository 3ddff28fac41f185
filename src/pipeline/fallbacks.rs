//! What is checked of functions that answer in place of an endpoint, before anything runs.
//!
//! In: the job, its functions and its plan. Out: problems at their place in the job file, or in the query. Invariant:
//! what passes can answer every call of its endpoint, and a correction reaches whatever the first answer reached. Not
//! here: the keys themselves (`score`), answering (`local_answers`).

use crate::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::job::{FunctionSettings, Job};
use crate::query::catalog::{Catalog, FunctionDef, FunctionKind};
use crate::query::plan::{Node, Part, Plan, Statement};
use crate::score::Fallback;
use crate::udf::FunctionBinding;
use crate::value::same_ignoring_case;

/// An endpoint with a fallback.
#[derive(Clone, Copy, Debug)]
struct Covered<'a> {
    function: &'a str,
    fallback: &'a Fallback,
}

/// The functions that a query is compiled with.
#[derive(Clone, Copy, Debug)]
pub struct Compiled<'a> {
    pub text: &'a str,
    pub file: &'a str,
    pub catalog: &'a Catalog,
    pub plan: &'a Plan,
}

/// The place among a job's local functions of the one that a fallback names.
pub fn place_of(bindings: &[FunctionBinding], catalog: &Catalog, fallback: &Fallback) -> Option<usize> {
    let name = &catalog.function(&fallback.function)?.name;
    bindings.iter().position(|binding| binding.name == *name)
}

/// Those of all fallbacks of a job.
pub fn places(job: &Job, bindings: &[FunctionBinding], catalog: &Catalog) -> Vec<usize> {
    covered(job).filter_map(|covered| place_of(bindings, catalog, covered.fallback)).collect()
}

/// Tells what is wrong with the fallbacks of a job: in the job file, and where calls do not fit them in the query.
pub fn check(job: &Job, query: Compiled<'_>, problems: &mut Diagnostics) -> Diagnostics {
    let mut of_query = Diagnostics::new(query.file, query.text);
    for covered in covered(job) {
        match stand_in(query.catalog, covered) {
            Err(problem) => problems.push(*problem),
            Ok(Some(kind)) => of_query.items.extend(misfits(query, covered, kind)),
            Ok(None) => {}
        }
        for statement in &query.plan.statements {
            problems.items.extend(uncorrectable(job, statement, covered));
        }
    }
    useless_columns(job, query.plan, problems);
    of_query
}

fn covered(job: &Job) -> impl Iterator<Item = Covered<'_>> {
    job.functions.iter().filter_map(|function| match &function.kind {
        FunctionSettings::Endpoint(endpoint) => {
            endpoint.fallback.as_ref().map(|fallback| Covered { function: &function.name, fallback })
        }
        FunctionSettings::Wasm(_) => None,
    })
}

fn covered_by<'a>(job: &'a Job, part: &Part) -> Option<Covered<'a>> {
    let called = &part.external.as_ref()?.function;
    covered(job).find(|covered| same_ignoring_case(covered.function, called))
}

/// The function that a fallback names; `None`: it did not load, which is told elsewhere.
fn stand_in(catalog: &Catalog, covered: Covered<'_>) -> Result<Option<FunctionKind>, Box<Diagnostic>> {
    let Covered { function, fallback } = covered;
    let wrong = |title: String, label: &str, help: String| {
        Err(Box::new(Diagnostic::error(title, fallback.span).label(label).help(help)))
    };
    let (name, shown) = (&fallback.function, fallback.shown());
    let Some(FunctionDef { kind, .. }) = catalog.function(name) else {
        let local = |def: &&FunctionDef| matches!(def.kind, FunctionKind::Local { .. });
        let known: Vec<&str> = catalog.functions.iter().filter(local).map(|def| def.name.as_str()).collect();
        let help = match suggest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean \"udf.{meant}\"?"),
            None => format!("add a section [functions.{name}] with `type = \"wasm\"`"),
        };
        return wrong(format!("the job has no function `{shown}`"), "not found", help);
    };
    let other = "name a function of `type = \"wasm\"` that takes the same argument";
    match kind {
        FunctionKind::External => {
            wrong(format!("`{shown}` calls an endpoint itself"), "it may be away as well", other.to_owned())
        }
        FunctionKind::Aggregate { .. } => {
            wrong(format!("`{shown}` is an aggregate"), "it answers for groups, not for rows", other.to_owned())
        }
        FunctionKind::Local { keeps_state: true, .. } => wrong(
            format!("`{shown}` keeps state"),
            "it would see only the rows of outages",
            "name one without `state` among its `imports`".to_owned(),
        ),
        FunctionKind::Local { signature, .. }
            if signature.params.len() != 1 && !(signature.params.is_empty() && signature.rest.is_some()) =>
        {
            let takes = crate::diagnostic::counted(signature.params.len(), "argument");
            wrong(
                format!("`{shown}` takes {takes}, and a call of `udf.{function}` gives one"),
                "it cannot be called in its place",
                format!("it is `{}`; name one that takes what the query gives to `udf.{function}`", signature.text),
            )
        }
        FunctionKind::Local { .. } => Ok(Some(kind.clone())),
        FunctionKind::Unknown => Ok(None),
    }
}

/// Compiles the query as if the fallback were called: what never fits is found as for any function.
fn misfits(query: Compiled<'_>, covered: Covered<'_>, kind: FunctionKind) -> Vec<Diagnostic> {
    let mut catalog = query.catalog.clone();
    for def in catalog.functions.iter_mut().filter(|def| def.name == covered.function) {
        def.kind = kind.clone();
    }
    let Err(found) = crate::query::compile(query.text, query.file, &catalog) else { return Vec::new() };
    let Covered { function, fallback } = covered;
    let note = format!("`{}` is called here as the fallback of `udf.{function}`", fallback.shown());
    found.items.into_iter().filter(|item| !item.is_warning).map(|item| item.note(note.clone())).collect()
}

/// Why corrections cannot reach what the first answers of a statement's call reached.
fn uncorrectable(job: &Job, statement: &Statement, covered: Covered<'_>) -> Vec<Diagnostic> {
    let Covered { function, fallback } = covered;
    let calls = |part: &Part| covered_by(job, part).is_some_and(|other| other.function == function);
    let Some(at) = statement.parts.iter().position(calls).filter(|_| fallback.rescore) else { return Vec::new() };
    let span = fallback.rescore_span.unwrap_or(fallback.span);
    let behind = || statement.parts.iter().skip(at + 1);
    let tails = || statement.parts.iter().skip(at).filter_map(|part| part.external.as_ref());
    let nodes = || behind().map(|part| &part.root).chain(tails().map(|external| &external.tail));
    let output = &statement.output;
    let wrong = |title: String, label: &str, help: &str| {
        Diagnostic::error(title, span).label(label.to_owned()).help(help.to_owned())
    };
    let mut found = Vec::new();
    if behind().any(Part::is_stateful) || tails().any(|external| external.tail.calls_state()) {
        found.push(wrong(
            format!("the statement INTO {output} keeps what it was answered first"),
            "a correction would be counted beside it",
            "leave `rescore` out, or move windows, LAG, joins, patterns and functions with state to a statement of \
             their own that reads rows behind the output",
        ));
    } else if nodes().any(Node::expands) {
        found.push(wrong(
            format!("the statement INTO {output} makes several rows of one answer"),
            "corrections could not have the ids of the rows that they correct",
            "leave `rescore` out, or write CROSS APPLY and joins with reference data before the call",
        ));
    }
    let another = behind().filter_map(|part| covered_by(job, part)).find(|other| other.fallback.rescore);
    if let Some(other) = another {
        found.push(wrong(
            format!(
                "the statement INTO {output} calls `udf.{}` as well, whose rows are scored again too",
                other.function
            ),
            "a row could be corrected twice, in any order",
            "leave `rescore` out for one of them",
        ));
    }
    if found.is_empty() && nodes().flat_map(Node::nodes).any(|node| matches!(node, Node::Filter { .. })) {
        let title = format!("the statement INTO {output} leaves rows out by the answer");
        let warning = Diagnostic::warning(title, span).label("a correction that WHERE leaves out is not sent");
        found
            .push(warning.help("a receiver then keeps the first answer; select the column instead, and let it decide"));
    }
    found
}

/// Columns of outputs that would always be the same.
fn useless_columns(job: &Job, plan: &Plan, problems: &mut Diagnostics) {
    for output in &job.outputs {
        let into = |statement: &&Statement| same_ignoring_case(&statement.output, &output.name);
        let parts = || plan.statements.iter().filter(into).flat_map(|statement| &statement.parts);
        let told = output.settings.told();
        let mut useless = |column: &Option<crate::settings::Text>, key: &str, always: &str, needs: &str| {
            let Some(column) = column else { return };
            let title =
                format!("`{key}` tells nothing: no statement INTO {} calls a function with {needs}", output.name);
            let warning = Diagnostic::warning(title, column.span).label(format!("always {always}"));
            problems.push(warning.help(format!("leave it out, or give the function of an endpoint {needs}")));
        };
        if !parts().any(|part| covered_by(job, part).is_some()) {
            useless(&told.scored_by, "scored_by", "NULL", "`fallback`");
        }
        if !parts().any(|part| covered_by(job, part).is_some_and(|covered| covered.fallback.rescore)) {
            useless(&told.revision, "revision", "0", "`rescore`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use crate::query::catalog::{Offers, Param, Shape, Signature};
    use std::time::Duration;

    fn signature(params: usize, rest: Option<Shape>) -> Signature {
        let param = |i| Param { name: format!("p{i}"), shape: Shape::Float };
        let params = (0..params).map(param).collect();
        Signature { params, rest, result: Shape::Float, text: "f: func()".to_owned() }
    }

    fn local(params: usize, rest: Option<Shape>, keeps_state: bool) -> FunctionKind {
        FunctionKind::Local { index: 0, signature: signature(params, rest), keeps_state }
    }

    #[test]
    fn who_may_answer_in_place_of_an_endpoint() {
        let aggregate = FunctionKind::Aggregate { index: 0, signature: signature(1, None), offers: Offers::default() };
        let table = [
            (local(1, None, false), None),
            (local(0, Some(Shape::Float), false), None),
            (FunctionKind::Unknown, None),
            (local(0, None, false), Some("`udf.f` takes 0 arguments")),
            (local(2, None, false), Some("`udf.f` takes 2 arguments")),
            (local(1, None, true), Some("`udf.f` keeps state")),
            (aggregate, Some("`udf.f` is an aggregate")),
            (FunctionKind::External, Some("`udf.f` calls an endpoint itself")),
        ];
        for (kind, wrong) in table {
            let functions = vec![FunctionDef { name: "f".to_owned(), kind: kind.clone() }];
            let catalog = Catalog { functions, ..Catalog::default() };
            let fallback = Fallback {
                function: "F".to_owned(),
                span: Span::default(),
                after: Duration::ZERO,
                rescore: false,
                rescore_span: None,
            };
            let found = stand_in(&catalog, Covered { function: "score", fallback: &fallback });
            let title = found.err().map(|problem| problem.title.replace("udf.F", "udf.f"));
            assert_eq!(title.is_some(), wrong.is_some(), "{kind:?}: {title:?}");
            assert!(wrong.is_none_or(|wrong| title.is_some_and(|title| title.starts_with(wrong))), "{kind:?}");
        }
    }
}
