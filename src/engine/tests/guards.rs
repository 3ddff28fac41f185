//! Which rows reach a call: an endpoint is asked for exactly those for which a function would be called.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::*;
use crate::batch::Batch;

/// A row, the function, and the argument as JSON.
type Asked = BTreeSet<(Timestamp, String, String)>;

/// Two functions that answer with their argument and refuse 7; the calls are noted.
#[derive(Clone, Default)]
struct Echo {
    asked: Arc<Mutex<Vec<(Timestamp, String, String)>>>,
}

const NAMES: [&str; 2] = ["score", "rate"];

impl Echo {
    fn note(&self, at: Timestamp, name: &str, argument: &Value) {
        self.asked.lock().unwrap().push((at, name.to_owned(), argument.to_json()));
    }

    fn asked(&self) -> Asked {
        self.asked.lock().unwrap().iter().cloned().collect()
    }
}

impl UserFunctions for Echo {
    fn call(&mut self, index: usize, args: &[Value], at: Timestamp) -> Result<Value, RowError> {
        self.note(at, NAMES[index], &args[0]);
        match &args[0] {
            Value::BigInt(7) => Err(RowError { reason: "udf_error", message: "seven".to_owned() }),
            value => Ok(value.clone()),
        }
    }
}

fn catalog_of(is_external: bool) -> Catalog {
    let params = vec![Param { name: "x".to_owned(), shape: Shape::Any }];
    let signature = Signature { params, rest: None, result: Shape::Any, text: String::new() };
    let kind = |index| match is_external {
        true => FunctionKind::External,
        false => FunctionKind::Local { index, signature: signature.clone(), keeps_state: false },
    };
    let functions =
        NAMES.iter().enumerate().map(|(i, name)| FunctionDef { name: (*name).to_owned(), kind: kind(i) }).collect();
    let inputs = vec![InputDef { name: "a".to_owned(), kind: InputKind::Stream }];
    Catalog { inputs, outputs: None, functions }
}

/// What a run comes to.
#[derive(Debug, Default, PartialEq)]
struct Came {
    rows: Vec<String>,
    failed: BTreeSet<Timestamp>,
    asked: Asked,
    /// Calls, each as often as it was made.
    calls: usize,
}

/// Runs the parts of a query; `None` where the plan is refused because two calls decide about each other, or there are
/// too many.
fn run_of(query: &str, events: &[RawEvent], is_external: bool) -> Option<Came> {
    let compiled = crate::query::compile(query, "q", &catalog_of(is_external));
    let plan = match compiled {
        Err(problems) if problems.to_string().contains("decide about each other") => return None,
        Err(problems) if problems.to_string().contains("too many external calls") => return None,
        other => other.unwrap_or_else(|e| panic!("{query}\n{e}")),
    };
    let echo = Echo::default();
    let functions = || -> Option<Functions> { Some(Box::new(echo.clone())) };
    let mut came = Came::default();
    let mut rows: Option<Rows> = None;
    for part in &plan.statements[0].parts {
        assert_eq!(crate::query::plan::fit::misfit(part), None, "{query}");
        let mut executor = Executor::new(part, options(OnError::DeadLetter), functions()).unwrap();
        match &rows {
            None => executor.push_events("a", 0, events),
            Some(rows) => executor.push_rows(0, rows),
        }
        executor.finish();
        let Emitted { rows: mut given, failures, .. } = executor.take();
        came.failed.extend(failures.iter().map(|f| f.meta.time));
        if let Some(external) = &part.external {
            let mut answered = Batch::new(given.batch.width());
            for (meta, row) in given.batch.rows() {
                let argument = row.last().unwrap();
                let is_called = external.called.is_none_or(|slot| row[slot] == Value::Bit(true));
                if !is_called {
                    assert_eq!(*argument, Value::Null, "what is not sent is not evaluated: {query}");
                } else if echo
                    .clone()
                    .call(index_of(&external.function), std::slice::from_ref(argument), meta.time)
                    .is_err()
                {
                    came.failed.insert(meta.time);
                    continue;
                }
                answered.push(*meta, row.iter().cloned());
            }
            given.batch = answered;
            let mut tail =
                Executor::for_tail(external, &part.columns, options(OnError::DeadLetter), functions()).unwrap();
            tail.push_rows(0, &given);
            let Emitted { rows, failures, .. } = tail.take();
            came.failed.extend(failures.iter().map(|f| f.meta.time));
            given = rows;
        }
        rows = Some(given);
    }
    came.rows = lines(&rows.unwrap());
    came.asked = echo.asked();
    came.calls = echo.asked.lock().unwrap().len();
    Some(came)
}

fn index_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}

/// Every mixture of NULL, numbers, and a text that is no number.
fn every_event() -> Vec<RawEvent> {
    let values = ["null", "0", "1", "2"];
    let mut events = Vec::new();
    for x in values {
        for y in values {
            for t in ["\"1\"", "\"no\"", "null"] {
                let i = events.len() as i64;
                events.push(event(i, &format!(r#"{{"n":{i},"x":{x},"y":{y},"t":{t}}}"#)));
            }
        }
    }
    events
}

/// Values, some of which call or fail.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => prop::sample::select(vec!["x", "y", "NULL", "1", "2", "7"]).prop_map(str::to_owned),
        1 => Just("CAST(t AS bigint)".to_owned()),
        2 => prop::sample::select(vec!["udf.score(x)", "udf.score(y)", "udf.rate(x)", "udf.rate(7)"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let v = inner.clone();
        let condition = prop_oneof![
            (v.clone(), v.clone()).prop_map(|(a, b)| format!("({a}) = ({b})")),
            (v.clone(), v.clone()).prop_map(|(a, b)| format!("({a}) > ({b})")),
            v.clone().prop_map(|a| format!("({a}) IS NULL")),
            v.clone().prop_map(|a| format!("NOT (({a}) IS NULL)")),
            v.clone().prop_map(|a| format!("({a}) BETWEEN 1 AND 2")),
            (v.clone(), v.clone()).prop_map(|(a, b)| format!("(({a}) > 0 AND ({b}) > 0)")),
            (v.clone(), v.clone()).prop_map(|(a, b)| format!("(({a}) IS NULL OR ({b}) > 1)")),
            (v.clone(), v.clone()).prop_map(|(a, b)| format!("NOT (({a}) > 0 AND NOT ({b}) IN (1, 2))")),
        ];
        prop_oneof![
            3 => (condition.clone(), v.clone(), v.clone())
                .prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
            2 => (condition.clone(), v.clone(), condition, v.clone(), v.clone())
                .prop_map(|(c, a, d, b, e)| format!("CASE WHEN {c} THEN {a} WHEN {d} THEN {b} ELSE {e} END")),
            1 => (v.clone(), v.clone(), v.clone(), v.clone())
                .prop_map(|(a, b, c, d)| format!("CASE {a} WHEN 1 THEN {b} WHEN 2 THEN {c} ELSE {d} END")),
            2 => (v.clone(), v.clone(), v.clone()).prop_map(|(a, b, c)| format!("COALESCE({a}, {b}, {c})")),
            1 => (v.clone(), v.clone()).prop_map(|(a, b)| format!("({a}) + ({b})")),
            1 => (v.clone(), v.clone()).prop_map(|(a, b)| format!("NULLIF({a}, {b})")),
            1 => v.prop_map(|a| format!("udf.score({a})")),
        ]
    })
}

/// An endpoint is asked what a function would be asked, and the rows are the same.
fn agree(query: &str) -> bool {
    let events = every_event();
    let wanted = run_of(query, &events, false).unwrap();
    let Some(came) = run_of(query, &events, true) else { return false };
    assert_eq!(came.rows, wanted.rows, "{query}");
    assert_eq!(came.failed, wanted.failed, "{query}");
    // a row that fails may fail before a call or behind it
    let of_good =
        |came: &Came| -> Asked { came.asked.iter().filter(|(at, ..)| !came.failed.contains(at)).cloned().collect() };
    assert_eq!(of_good(&came), of_good(&wanted), "{query}");
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_endpoint_is_asked_what_a_function_would_be_asked(a in value(), b in value(), c in value()) {
        agree(&format!("SELECT n, {a} AS a INTO o FROM a"));
        agree(&format!("SELECT n, {a} AS a, {b} AS b INTO o FROM a WHERE NOT (({c}) > 0)"));
        agree(&format!("WITH s AS (SELECT n, x, y, t, {a} AS v FROM a) \
            SELECT n, CASE WHEN v IS NULL THEN {b} ELSE v END AS b INTO o FROM s"));
    }
}

/// The rows that were sent, by their numbers.
fn sent(query: &str) -> Vec<usize> {
    assert!(agree(query), "{query}");
    let came = run_of(query, &every_event(), true).unwrap();
    assert_eq!(came.calls, came.asked.len(), "no row is sent twice: {query}");
    numbers(&came)
}

fn numbers(came: &Came) -> Vec<usize> {
    came.asked.iter().map(|(time, ..)| ((time.ticks() - at(0).ticks()) / SECOND) as usize).collect()
}

/// The numbers of the events for which it holds; x, y and t are the codes of their values in [`every_event`].
fn rows(holds: impl Fn(usize, usize, usize) -> bool) -> Vec<usize> {
    (0..48).filter(|n| holds(n / 12, n / 3 % 4, n % 3)).collect()
}

/// The code of NULL for `x` and `y`; the number `i` has `i + 1`.
const NULL: usize = 0;

#[test]
fn rows_that_do_not_reach_a_call_are_not_sent() {
    let table: &[(&str, Vec<usize>)] = &[
        ("CASE WHEN x IS NULL THEN -1 ELSE udf.score(x) END", rows(|x, _, _| x != NULL)),
        ("CASE x WHEN 1 THEN udf.score(y) ELSE 0 END", rows(|x, _, _| x == 2)),
        ("CASE WHEN x = 1 THEN 1 WHEN y = 1 THEN udf.score(x) ELSE 2 END", rows(|x, y, _| x != 2 && y == 2)),
        ("COALESCE(x, y, udf.score(n))", rows(|x, y, _| x == NULL && y == NULL)),
        ("COALESCE(TryEvaluate(CAST(t AS bigint)), udf.score(n))", rows(|_, _, t| t > 0)),
        ("CASE WHEN x > 0 AND udf.score(y) > 0 THEN 1 ELSE 0 END", rows(|x, _, _| x > 1)),
        ("CASE WHEN x IS NULL OR udf.score(y) > 0 THEN 1 ELSE 0 END", rows(|x, _, _| x != NULL)),
        // NULL is not true: whatever the other side is, AND is false and OR is the other side
        ("CASE WHEN x > 0 OR udf.score(y) > 0 THEN 1 ELSE 0 END", rows(|x, _, _| x < 2)),
        // the argument fails for the rows of the other branch
        ("CASE WHEN t = '1' THEN udf.score(CAST(t AS bigint)) ELSE 0 END", rows(|_, _, t| t == 0)),
        // in each other
        (
            "CASE WHEN x IS NULL THEN COALESCE(y, udf.score(n)) ELSE CASE WHEN y = 2 THEN udf.score(n) ELSE 0 END END",
            rows(|x, y, _| if x == NULL { y == NULL } else { y == 3 }),
        ),
        ("CASE WHEN NOT (x BETWEEN 1 AND 2) THEN 0 ELSE udf.score(x) END", rows(|x, _, _| x > 1)),
        // one call under two guards is made once
        (
            "CASE WHEN x = 1 THEN udf.score(n) ELSE 0 END AS a, CASE WHEN y = 1 THEN udf.score(n) ELSE 0 END",
            rows(|x, y, _| x == 2 || y == 2),
        ),
        (
            "CASE WHEN x = 1 AND udf.score(n) > 24 THEN 1 WHEN y = 1 AND udf.score(n) > 3 THEN 2 ELSE 0 END",
            rows(|x, y, _| x == 2 || y == 2),
        ),
        // one without a guard is made for all
        ("udf.score(n) AS a, CASE WHEN y = 1 THEN udf.score(n) ELSE 0 END", rows(|_, _, _| true)),
    ];
    for (item, wanted) in table {
        let query = format!("SELECT n, {item} AS b INTO o FROM a");
        assert_eq!(sent(&query), *wanted, "{query}");
    }
}

#[test]
fn a_call_in_where_is_made_for_rows_that_reach_it_and_again_only_for_others() {
    let of_where = "SELECT n, udf.score(n) AS s INTO o FROM a WHERE x = 1 OR udf.score(n) > 40";
    assert_eq!(sent(of_where), rows(|_, _, _| true), "those with x = 1 pass, and SELECT needs the answer");
    let kept = "SELECT n, CASE WHEN y = 1 THEN udf.score(n) ELSE 0 END AS s INTO o FROM a WHERE x = 1 OR udf.score(n) \
        > 40";
    assert_eq!(sent(kept), rows(|x, y, _| x != 2 || y == 2));
    let early = "SELECT n, udf.score(n) AS s INTO o FROM a WHERE udf.score(n) > 40 AND x = 1";
    let came = run_of(early, &every_event(), true).unwrap();
    assert_eq!(numbers(&came), rows(|x, _, _| x == 2), "a condition without a call goes first");
}

#[test]
fn one_call_under_many_conditions_is_made_once() {
    let branch = |i: usize| format!("WHEN n % 16 = {i} AND udf.score(n) > {} THEN {i}", 2 * i);
    let branches: Vec<String> = (1..15).map(branch).collect();
    let query = format!("SELECT n, CASE {} ELSE 0 END AS b INTO o FROM a", branches.join(" "));
    let wanted: Vec<usize> = (0..48).filter(|n| n % 16 != 0 && n % 16 != 15).collect();
    assert_eq!(sent(&query), wanted);
}
