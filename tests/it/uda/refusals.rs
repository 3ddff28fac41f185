//! What is refused before the first row: queries that use an aggregate wrongly, and resources of another form. No peer.

use expect_test::{Expect, expect};

use super::*;

fn drawn(query: &str, expected: &Expect) {
    let catalog = catalog(&bindings(&GUESTS));
    let drawn = forebay::query::compile(query, "mean.asaql", &catalog)
        .map_or_else(|e| e.to_string(), |_| "compiles".to_owned());
    expected.assert_eq(&drawn);
}

#[test]
fn mistakes_in_a_query_are_told_with_both_sides() {
    let grouped = |call: &str| format!("SELECT {call} AS m FROM a GROUP BY TumblingWindow(second, 5)");
    drawn(
        &grouped("uda.weightedMean(v)"),
        &expect![[r#"
        error: `uda.weightedMean` takes 2 arguments
          --> mean.asaql:1:8
           |
         1 | SELECT uda.weightedMean(v) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^^^^^^^^ 1 given
           = note: the call: uda.weightedMean(any)
           = note: the aggregate: resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
    "#]],
    );
    drawn(
        &grouped("uda.timeSpan(t, t)"),
        &expect![[r#"
        error: `uda.timeSpan` takes 0 to 1 argument
          --> mean.asaql:1:8
           |
         1 | SELECT uda.timeSpan(t, t) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^^^^^^^ 2 given
           = note: the call: uda.timeSpan(any, any)
           = note: the aggregate: resource time-span { accumulate: func(at: datetime); compute: func() -> option<s64> }
    "#]],
    );
    drawn(
        &grouped("uda.weightedMean(v, 'x')"),
        &expect![[r#"
        error: `weight` of `uda.weightedMean` cannot take this argument
          --> mean.asaql:1:28
           |
         1 | SELECT uda.weightedMean(v, 'x') AS m FROM a GROUP BY TumblingWindow(second, 5)
           |                            ^^^ an nvarchar(max) never becomes float
           = note: the call: uda.weightedMean(any, nvarchar(max))
           = note: the aggregate: resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
           = help: `weight` takes float
    "#]],
    );
    drawn(
        &grouped("udf.weightedMean(v, w)"),
        &expect![[r#"
        error: `weightedMean` is an aggregate
          --> mean.asaql:1:8
           |
         1 | SELECT udf.weightedMean(v, w) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^^^^^^^^^^^ it takes the rows of a window
           = help: write `uda.weightedMean(…)`, with a window in GROUP BY
    "#]],
    );
    drawn(
        &grouped("weightedMean(v, w)"),
        &expect![[r#"
            error: unknown function `weightedMean`
              --> mean.asaql:1:8
               |
             1 | SELECT weightedMean(v, w) AS m FROM a GROUP BY TumblingWindow(second, 5)
               |        ^^^^^^^^^^^^ no such function
               = help: user functions have a prefix: write `uda.weightedMean(…)`
        "#]],
    );
    drawn(
        &grouped("my.weightedMean(v, w)"),
        &expect![[r#"
            error: unknown function `my.weightedMean`
              --> mean.asaql:1:8
               |
             1 | SELECT my.weightedMean(v, w) AS m FROM a GROUP BY TumblingWindow(second, 5)
               |        ^^^^^^^^^^^^^^^ user aggregates have the prefix `uda`
               = help: write `uda.weightedMean(…)`
        "#]],
    );
    drawn(
        &grouped("uda.weightMean(v, w)"),
        &expect![[r#"
        error: unknown aggregate `uda.weightMean`
          --> mean.asaql:1:8
           |
         1 | SELECT uda.weightMean(v, w) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^^^^^^^^^ not an aggregate of this job
           = help: did you mean `weighted-mean`?
    "#]],
    );
    drawn(
        &grouped("uda.avg(v)"),
        &expect![[r#"
        error: unknown aggregate `uda.avg`
          --> mean.asaql:1:8
           |
         1 | SELECT uda.avg(v) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^ a function of the language takes no prefix
           = help: write `avg(…)`
    "#]],
    );
    drawn(
        &grouped("uda.trail(*)"),
        &expect![[r#"
        error: `uda.trail` takes no `*`
          --> mean.asaql:1:8
           |
         1 | SELECT uda.trail(*) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^ expected values
           = help: the name of the input stands for the whole event: `uda.name(input)`
    "#]],
    );
    drawn(
        &grouped("uda.trail(DISTINCT v)"),
        &expect![[r#"
        error: DISTINCT in `uda.trail`
          --> mean.asaql:1:8
           |
         1 | SELECT uda.trail(DISTINCT v) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^^^^^^^^^^^ DISTINCT stands in COUNT only
           = help: remove repeats in a step before: group by the columns and System.Timestamp()
    "#]],
    );
    drawn(
        &grouped("uda.trail(v) OVER (LIMIT DURATION(second, 5))"),
        &expect![[r#"
        error: `uda.trail` takes no OVER
          --> mean.asaql:1:21
           |
         1 | SELECT uda.trail(v) OVER (LIMIT DURATION(second, 5)) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a user aggregate has the rows of a window, and no other form
           = help: group with a window; `SlidingWindow(second, 10)` looks back from each row
    "#]],
    );
    drawn(
        &grouped("SUM(uda.weightedMean(v, w))"),
        &expect![[r#"
        error: the aggregate `uda.weightedMean` inside an aggregate
          --> mean.asaql:1:12
           |
         1 | SELECT SUM(uda.weightedMean(v, w)) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |            ^^^^^^^^^^^^^^^^^^^^^^ one value of many is no input for another
           = help: compute it in a step and use the column here
    "#]],
    );
    drawn(
        "SELECT uda.trail(v) AS m FROM a",
        &expect![[r#"
        error: the aggregate `uda.trail` needs a GROUP BY with a window
          --> mean.asaql:1:8
           |
         1 | SELECT uda.trail(v) AS m FROM a
           |        ^^^^^^^^^^^^ over which rows?
           = help: add `GROUP BY TumblingWindow(second, 10)`, or another window, and `uda.trail` has the rows of that window
    "#]],
    );
    drawn(
        "SELECT v FROM a WHERE uda.trail(v) IS NOT NULL",
        &expect![[r#"
        error: the aggregate `uda.trail` inside WHERE
          --> mean.asaql:1:23
           |
         1 | SELECT v FROM a WHERE uda.trail(v) IS NOT NULL
           |                       ^^^^^^^^^^^^ WHERE sees single rows, before they are grouped
           = help: put the condition in HAVING
    "#]],
    );
}

#[test]
fn a_function_is_no_aggregate() {
    let component = Arc::new(Component::load(&ENGINE, &component("echo"), Limits::default()).unwrap());
    let bindings = vec![FunctionBinding::new(component.clone(), component.find("echo-f64").unwrap(), "half")];
    let query = "SELECT uda.half(v) AS m FROM a GROUP BY TumblingWindow(second, 5)";
    let drawn = forebay::query::compile(query, "mean.asaql", &catalog(&bindings)).unwrap_err().to_string();
    expect![[r#"
        error: `half` is no aggregate
          --> mean.asaql:1:8
           |
         1 | SELECT uda.half(v) AS m FROM a GROUP BY TumblingWindow(second, 5)
           |        ^^^^^^^^^^^ a function of single rows
           = help: write `udf.half(…)`
    "#]]
    .assert_eq(&drawn);
}

/// Members of a resource `r`: name, type, and the core type that it is lifted from.
type Member = (&'static str, &'static str, &'static str);

const NEW: Member = ("[constructor]r", "(result (own $r))", "(result i32)");
const ACCUMULATE: Member =
    ("[method]r.accumulate", "(param \"self\" (borrow $r)) (param \"x\" float64)", "(param i32 f64)");
const COMPUTE: Member =
    ("[method]r.compute", "(param \"self\" (borrow $r)) (result float64)", "(param i32) (result f64)");
const SAVE: Member = ("[method]r.save", "(param \"self\" (borrow $r)) (result (list u8))", "(param i32) (result i32)");
const RESTORE: Member =
    ("[static]r.restore", "(param \"state\" (list u8)) (result (own $r))", "(param i32 i32) (result i32)");

/// Why a resource of these members is no aggregate; empty when it is one.
fn refused(members: &[Member]) -> String {
    of_members("", members).find("r").map_or_else(|e| e.to_string(), |_| String::new())
}

fn of_members(imports: &str, members: &[Member]) -> Component {
    let funcs: String =
        members.iter().map(|(name, _, core)| format!("(func (export \"{name}\") {core} unreachable)")).collect();
    let options = "(memory $i \"m\") (realloc (func $i \"realloc\"))";
    let lifts: String = members
        .iter()
        .map(|(name, ty, _)| {
            format!("(func (export \"{name}\") {ty} (canon lift (core func $i \"{name}\") {options}))")
        })
        .collect();
    let text = format!(
        "(component {imports} (type $r' (resource (rep i32))) (export $r \"r\" (type $r'))
            (core module $m (memory (export \"m\") 1)
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) unreachable) {funcs})
            (core instance $i (instantiate $m)) {lifts})"
    );
    Component::from_bytes(&ENGINE, Path::new("r.wasm"), &wat::parse_str(&text).unwrap(), Limits::default()).unwrap()
}

#[test]
fn an_aggregate_that_imports_is_refused_before_its_first_row() {
    let component = of_members("(import \"forebay:host/log@0.1.0\" (instance))", &[NEW, ACCUMULATE, COMPUTE]);
    let binding = FunctionBinding::new(Arc::new(component), 0, "r").granting(Grants { log: true, ..Grants::default() });
    assert_eq!(
        binding.check_grants().unwrap_err().to_string(),
        "r.wasm imports forebay:host/log@0.1.0, which no aggregate may call, for its rows may enter again at any time; \
         build `r` without, and hand what it needs over as an argument"
    );
}

#[test]
fn resources_of_another_form_are_refused_with_the_reason() {
    let method = |name, ty, core| -> Member { (name, ty, core) };
    let cases: [(&[Member], &str); 16] = [
        (&[NEW, ACCUMULATE, COMPUTE], ""),
        (&[NEW, ACCUMULATE, COMPUTE, SAVE, RESTORE], ""),
        (&[NEW, ACCUMULATE], "it is a resource, but no aggregate: it lacks `compute: func() -> T`"),
        (&[NEW, COMPUTE], "it is a resource, but no aggregate: it lacks `accumulate: func(…)`"),
        (&[ACCUMULATE, COMPUTE], "it is a resource, but no aggregate: it lacks `constructor()`"),
        (&[NEW, ACCUMULATE, COMPUTE, SAVE], "it has `save` but lacks `restore: static func(state: list<u8>) -> self`"),
        (&[NEW, ACCUMULATE, COMPUTE, RESTORE], "it has `restore` but lacks `save: func() -> list<u8>`"),
        (
            &[NEW, ACCUMULATE, COMPUTE, method("[method]r.deacumulate", ACCUMULATE.1, ACCUMULATE.2)],
            "its method `deacumulate` is none of an aggregate; those are accumulate, deaccumulate, merge, compute, \
            save, and static restore",
        ),
        (
            &[NEW, ACCUMULATE, COMPUTE, method("[static]r.open", RESTORE.1, RESTORE.2)],
            "its static function `open` is none of an aggregate; those are accumulate, deaccumulate, merge, compute, \
            save, and static restore",
        ),
        (
            &[
                method("[constructor]r", "(param \"n\" s32) (result (own $r))", "(param i32) (result i32)"),
                ACCUMULATE,
                COMPUTE,
            ],
            "its constructor has another form than `constructor()`",
        ),
        (
            &[
                NEW,
                method(ACCUMULATE.0, "(param \"self\" (borrow $r)) (result float64)", "(param i32) (result f64)"),
                COMPUTE,
            ],
            "its `accumulate` gives f64; it gives nothing, or a result to tell of an error",
        ),
        (
            &[
                NEW,
                method(ACCUMULATE.0, "(param \"self\" (borrow $r)) (param \"x\" (borrow $r))", "(param i32 i32)"),
                COMPUTE,
            ],
            "`x` of `accumulate`: a resource has no SQL value",
        ),
        (
            &[NEW, ACCUMULATE, method(COMPUTE.0, "(param \"self\" (borrow $r))", "(param i32)")],
            "its compute has another form than `compute: func() -> T`",
        ),
        (
            &[
                NEW,
                ACCUMULATE,
                COMPUTE,
                method("[method]r.deaccumulate", "(param \"self\" (borrow $r)) (param \"x\" s64)", "(param i32 i64)"),
            ],
            "its `deaccumulate` takes other values than `accumulate`",
        ),
        (
            &[NEW, ACCUMULATE, COMPUTE, method("[method]r.merge", ACCUMULATE.1, ACCUMULATE.2)],
            "its merge has another form than `merge: func(other: borrow<self>)`",
        ),
        (
            &[NEW, ACCUMULATE, COMPUTE, method(SAVE.0, COMPUTE.1, COMPUTE.2), RESTORE],
            "its save has another form than `save: func() -> list<u8>`",
        ),
    ];
    for (members, reason) in cases {
        let expected = if reason.is_empty() {
            String::new()
        } else {
            format!("r.wasm: `r` cannot be a function of a query: {reason}")
        };
        assert_eq!(refused(members), expected);
    }
}
