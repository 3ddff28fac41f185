//! LAG, LAST, ISFIRST and aggregates with OVER against their definitions, looking at all rows before each row.

use super::aggregates::{AGGREGATES, Compute};
use super::stream::*;
use super::*;

/// `OVER (PARTITION BY k LIMIT DURATION(…) WHEN v > 0)` and its parts; lengths in steps of the grid.
#[derive(Clone, Debug)]
struct Over {
    per_key: bool,
    limit: i64,
    when: bool,
}

fn an_over() -> impl Strategy<Value = Over> {
    (any::<bool>(), 1i64..20, any::<bool>()).prop_map(|(per_key, limit, when)| Over { per_key, limit, when })
}

const STEP_MS: i64 = 500;

impl Over {
    fn text(&self, order: &str, limited: bool) -> String {
        let mut parts = Vec::new();
        if self.per_key {
            parts.push("PARTITION BY k".to_owned());
        }
        if !order.is_empty() {
            parts.push(format!("ORDER BY {order}"));
        }
        if limited {
            parts.push(format!("LIMIT DURATION(millisecond, {})", self.limit * STEP_MS));
        }
        if self.when {
            parts.push("WHEN v > 0".to_owned());
        }
        if parts.is_empty() { String::new() } else { format!("OVER ({})", parts.join(" ")) }
    }

    fn looks_at(&self, row: &Row) -> bool {
        !self.when || row.v.above(0.0)
    }

    /// The rows up to and including `rows[i]` that a call there looks at, newest last, whatever their age.
    fn seen<'r>(&self, rows: &'r [Row], i: usize) -> Vec<&'r Row> {
        rows[..=i].iter().filter(|r| self.looks_at(r) && (!self.per_key || r.k.same(rows[i].k))).collect()
    }

    fn is_young(&self, row: &Row, now: &Row) -> bool {
        now.time - row.time < self.limit * GRID
    }
}

fn lag(over: &Over, rows: &[Row], i: usize, offset: usize, default: Value) -> Value {
    let earlier: Vec<&Row> = over.seen(rows, i).into_iter().filter(|r| r.offset != rows[i].offset).collect();
    match earlier.iter().rev().nth(offset - 1) {
        Some(row) if over.is_young(row, &rows[i]) => row.w.value(),
        _ => default,
    }
}

fn last(over: &Over, rows: &[Row], i: usize, default: Value) -> Value {
    match over.seen(rows, i).last() {
        Some(row) if over.is_young(row, &rows[i]) => row.w.value(),
        _ => default,
    }
}

/// Whether the row is the first of its key that counts in an interval `(end - length, end]`.
fn is_first(over: &Over, rows: &[Row], i: usize, length: i64) -> Value {
    let interval = |row: &Row| -(-row.time).div_euclid(length * GRID);
    let seen = over.seen(rows, i);
    let first = over.looks_at(&rows[i]) && seen.iter().filter(|r| interval(r) == interval(&rows[i])).count() == 1;
    Value::BigInt(i64::from(first))
}

fn aggregate(name: &str) -> Compute {
    AGGREGATES.iter().find(|(known, ..)| *known == name).unwrap().2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn values_looked_back_at_are_those_of_the_definition(
        overs in prop::collection::vec(an_over(), 4),
        offset in 1usize..4,
        length in 1i64..16,
        events in events(30),
        policies in policies(),
    ) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query =
            format!(
            "SELECT v, LAG(w, {offset}) {} AS l, LAG(w, {offset}, v) {} AS ld, LAST(w) {} AS z, LAST(w, v) {} AS zd, \
            ISFIRST(millisecond, {}) {} AS f
             FROM a TIMESTAMP BY t WHERE NOT w = 2",
            overs[0].text("", true), overs[1].text("", true), overs[2].text("", true), overs[3].text("", true),
            length * STEP_MS, overs[0].text("", false),
        );
        let rows = rows_of(&events, "a", &policies);
        let one = |i: usize| {
            let v = rows[i].v.value();
            let columns = [
                ("v", v.clone()),
                ("l", lag(&overs[0], &rows, i, offset, Value::Null)),
                ("ld", lag(&overs[1], &rows, i, offset, v.clone())),
                ("z", last(&overs[2], &rows, i, Value::Null)),
                ("zd", last(&overs[3], &rows, i, v)),
                ("f", is_first(&overs[0], &rows, i, length)),
            ];
            line(rows[i].time, columns)
        };
        let expected: Vec<String> = (0..rows.len()).filter(|i| !rows[*i].w.same(Cell::Int(2))).map(one).collect();
        prop_assert_eq!(run_events(&query, &options, &events, 1), expected, "{}", query);
    }

    #[test]
    fn aggregates_over_the_past_are_those_of_its_rows(
        overs in prop::collection::vec(an_over(), 3),
        events in events(30),
        policies in policies(),
    ) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        // name, call, what it is ordered by, which OVER
        let calls = [
            ("n", "COUNT(*)", "", 0),
            ("c", "COUNT(v)", "", 1),
            ("s", "SUM(v)", "", 0),
            ("a", "AVG(v)", "", 1),
            ("lo", "MIN(v)", "", 2),
            ("hi", "MAX(v)", "", 0),
            ("col", "Collect(v)", "", 1),
            ("top", "TopOne(v)", "w DESC", 2),
            ("two", "CollectTop(2, v)", "w", 0),
        ];
        let columns: Vec<String> = calls
            .iter()
            .map(|(name, call, order, over)| format!("{call} {} AS {name}", overs[*over].text(order, true)))
            .collect();
        let query = format!("SELECT {} FROM a TIMESTAMP BY t", columns.join(", "));
        let rows = rows_of(&events, "a", &policies);
        let one = |i: usize| {
            let value = |(name, _, _, over): &(&'static str, &str, &str, usize)| {
                let over = &overs[*over];
                let seen: Vec<&Row> = over.seen(&rows, i).into_iter().filter(|r| over.is_young(r, &rows[i])).collect();
                (*name, aggregate(name)(&seen))
            };
            line(rows[i].time, calls.iter().map(value))
        };
        let expected: Vec<String> = (0..rows.len()).map(one).collect();
        prop_assert_eq!(run_events(&query, &options, &events, 1), expected, "{}", query);
    }

    /// Each substream has a past of its own.
    #[test]
    fn the_past_of_a_substream_is_its_own(over in an_over(), events in events(30), policies in policies()) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query = format!(
            "SELECT k, LAG(w) {} AS l, LAST(w) {} AS z FROM a TIMESTAMP BY t OVER k",
            over.text("", true),
            over.text("", true)
        );
        let lane =
            |e: &Event| (!e.k.is_null()).then(|| e.k.number().map_or_else(|| "text".to_owned(), |n| n.to_string()));
        let keyed: Vec<Event> = events.iter().copied().filter(|e| !e.k.is_null()).collect();
        let all = accepted(&keyed, "a", &policies, 1, lane);
        let mut expected = Vec::new();
        for row in &all {
            let own: Vec<Row> = all.iter().filter(|r| r.k.same(row.k)).copied().collect();
            let i = own.iter().position(|r| r.offset == row.offset).unwrap();
            expected.push(line(
                row.time,
                [
                    ("k", row.k.value()),
                    ("l", lag(&over, &own, i, 1, Value::Null)),
                    ("z", last(&over, &own, i, Value::Null)),
                ],
            ));
        }
        prop_assert_eq!(sorted(run_events(&query, &options, &keyed, 1)), sorted(expected), "{}", query);
    }
}
