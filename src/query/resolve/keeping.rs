//! Functions that keep state: where a statement may call them.
//!
//! In: the parts of a statement. Out: a problem, if there is one. Invariant: past this check all calls of such a
//! function come from one operator, once a row, so what it remembers depends on the rows and not on how they came. Not
//! here: clauses in which it is never called row by row (`function`).

use rustc_hash::FxHashMap;

use crate::diagnostic::{Diagnostic, Span};
use crate::query::plan::Part;
use crate::query::plan::calls::{LocalCall, of_node};

const HELP: &str =
    "call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`";

/// The first call whose order is not defined.
pub(super) fn check(parts: &[Part]) -> Option<Diagnostic> {
    let tails = |part: &'_ Part| part.external.as_ref().map(|external| of_node(&external.tail));
    let operators: Vec<Vec<LocalCall>> =
        parts.iter().flat_map(|part| of_node(&part.root).into_iter().chain(tails(part).unwrap_or_default())).collect();
    let mut places: FxHashMap<usize, (usize, Vec<Span>)> = FxHashMap::default();
    for (place, calls) in operators.iter().enumerate() {
        for call in calls.iter().filter(|call| call.keeps_state) {
            let (first, spans) = places.entry(call.index).or_insert((place, Vec::new()));
            if *first != place {
                let problem = Diagnostic::error(
                    "a function that keeps state is called in two places of one statement",
                    call.span,
                );
                return Some(problem.label("which call comes first is not defined").help(HELP));
            }
            if spans.contains(&call.span) {
                let problem =
                    Diagnostic::error("a function that keeps state would be called more than once for this", call.span);
                return Some(problem.label("its value is needed several times a row").help(HELP));
            }
            spans.push(call.span);
        }
    }
    let call = operators.iter().flatten().find(|call| call.keeps_state)?;
    parts.iter().any(|part| part.root.scans().any(|scan| !scan.over.is_empty())).then(|| {
        Diagnostic::error("a function that keeps state in a query with TIMESTAMP BY … OVER", call.span)
            .label("rows of different substreams have no order among each other")
            .help("leave OVER out, or leave the grant `state` out")
    })
}
