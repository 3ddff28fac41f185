//! Joins and UNION against their definitions: all pairs, tested one by one.

use super::stream::*;
use super::*;

/// A unit of DATEDIFF, and how far times are stretched so that its bounds matter.
#[derive(Clone, Copy, Debug)]
struct Unit {
    name: &'static str,
    grain: i64,
}

const UNITS: &[Unit] = &[
    Unit { name: "millisecond", grain: 1 },
    Unit { name: "second", grain: 1 },
    Unit { name: "minute", grain: 31 },
    Unit { name: "hour", grain: 1900 },
    Unit { name: "day", grain: 50_000 },
    Unit { name: "week", grain: 300_000 },
];

impl Unit {
    /// Boundaries of the unit between the start of the calendar and a moment.
    fn number(self, ticks: i64) -> i64 {
        let day = 86_400 * SECOND;
        match self.name {
            "millisecond" => ticks / (SECOND / 1000),
            "second" => ticks / SECOND,
            "minute" => ticks / (60 * SECOND),
            "hour" => ticks / (3600 * SECOND),
            "day" => ticks / day,
            // 0001-01-01 is a Monday, and weeks begin on Sunday
            "week" => (ticks / day + 1) / 7,
            other => panic!("{other}"),
        }
    }

    fn difference(self, from: &Row, to: &Row) -> i64 {
        self.number(to.time) - self.number(from.time)
    }

    fn ticks(self) -> i64 {
        let seconds = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 7 * 86_400)];
        seconds.iter().find(|(name, _)| *name == self.name).map_or(SECOND / 1000, |(_, s)| s * SECOND)
    }
}

#[derive(Clone, Debug)]
struct Join {
    unit: Unit,
    low: i64,
    high: i64,
    left_outer: bool,
    /// Both sides read `a`.
    itself: bool,
    keyed: bool,
    /// `x.v < y.w`
    pair_condition: bool,
    /// `x.v > 0`
    left_condition: bool,
    /// The bound as two comparisons, and with the sources the other way round.
    turned: bool,
}

fn a_join() -> impl Strategy<Value = Join> {
    let unit = prop::sample::select(UNITS);
    let options = prop::array::uniform6(any::<bool>());
    (unit, -4i64..4, 0i64..5, options).prop_map(
        |(unit, low, span, [left_outer, itself, keyed, pair_condition, left_condition, turned])| {
            // at most seven days on each side
            let (low, high) = match unit.name {
                "week" => (low.clamp(-1, 0), (low + span).clamp(0, 1)),
                "millisecond" => (low * 700, (low + span) * 700),
                _ => (low, low + span),
            };
            Join { unit, low, high, left_outer, itself, keyed, pair_condition, left_condition, turned }
        },
    )
}

impl Join {
    fn query(&self) -> String {
        let (kind, right, unit) =
            (if self.left_outer { "LEFT JOIN" } else { "JOIN" }, if self.itself { "a" } else { "b" }, self.unit.name);
        let mut on = Vec::new();
        if self.keyed {
            on.push("x.k = y.k".to_owned());
        }
        if self.turned {
            on.push(format!("DATEDIFF({unit}, x, y) >= {} AND DATEDIFF({unit}, y, x) >= {}", self.low, -self.high));
        } else {
            on.push(format!("DATEDIFF({unit}, x, y) BETWEEN {} AND {}", self.low, self.high));
        }
        if self.pair_condition {
            on.push("x.v < y.w".to_owned());
        }
        if self.left_condition {
            on.push("x.v > 0".to_owned());
        }
        format!(
            "SELECT x.k AS k, x.v AS xv, y.v AS yv, y.w AS yw, y.k AS yk FROM a x TIMESTAMP BY t {kind} {right} y \
            TIMESTAMP BY t ON {}",
            on.join(" AND ")
        )
    }

    fn holds(&self, x: &Row, y: &Row) -> bool {
        let below = |a: Cell, b: Cell| matches!((a.number(), b.number()), (Some(a), Some(b)) if a < b);
        (self.low..=self.high).contains(&self.unit.difference(x, y))
            && (!self.keyed || !x.k.is_null() && x.k.same(y.k))
            && (!self.pair_condition || below(x.v, y.w))
            && (!self.left_condition || x.v.above(0.0))
    }

    fn expected(&self, left: &[Row], right: &[Row]) -> Vec<String> {
        let row = |time, x: &Row, y: Option<&Row>| {
            let of = |cell: fn(&Row) -> Cell| y.map_or(Value::Null, |y| cell(y).value());
            line(
                time,
                [
                    ("k", x.k.value()),
                    ("xv", x.v.value()),
                    ("yv", of(|y| y.v)),
                    ("yw", of(|y| y.w)),
                    ("yk", of(|y| y.k)),
                ],
            )
        };
        let mut out = Vec::new();
        for x in left {
            let partners: Vec<&Row> = right.iter().filter(|y| self.holds(x, y)).collect();
            if partners.is_empty() && self.left_outer {
                out.push(row(x.time + self.high.max(0) * self.unit.ticks(), x, None));
            }
            out.extend(partners.iter().map(|y| row(x.time.max(y.time), x, Some(y))));
        }
        out
    }
}

/// Policies whose lengths stretch with the times.
fn stretched(policies: &TimePolicies, grain: i64) -> TimePolicies {
    TimePolicies {
        late_tolerance: policies.late_tolerance.map(|l| l * grain),
        out_of_order: policies.out_of_order * grain,
        adjust: policies.adjust,
        early_limit: policies.early_limit,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pairs_are_all_that_the_condition_holds_for(join in a_join(), events in events(30), policies in policies()) {
        let grain = join.unit.grain;
        let policies = stretched(&policies, grain);
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let rows = |input| accepted(&events, input, &policies, grain, |_| Some(()));
        let expected = join.expected(&rows("a"), &rows(if join.itself { "a" } else { "b" }));
        prop_assert_eq!(
            sorted(run_events(&join.query(), &options, &events, grain)),
            sorted(expected),
            "{}",
            join.query()
        );
    }

    /// In substreams the policies look at one key at a time, and so does the join.
    #[test]
    fn substreams_join_key_by_key(join in a_join(), events in events(30), policies in policies()) {
        let join = Join { keyed: true, ..join };
        let grain = join.unit.grain;
        let policies = stretched(&policies, grain);
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query = join.query().replace("TIMESTAMP BY t", "TIMESTAMP BY t OVER k");
        let keyed: Vec<Event> = events.iter().copied().filter(|e| !e.k.is_null()).collect();
        let lane = |e: &Event| Some(e.k.number().map_or_else(|| "text".to_owned(), |n| n.to_string()));
        let rows = |input| accepted(&keyed, input, &policies, grain, lane);
        let expected = join.expected(&rows("a"), &rows(if join.itself { "a" } else { "b" }));
        prop_assert_eq!(sorted(run_events(&query, &options, &keyed, grain)), sorted(expected), "{}", query);
    }

    /// A third source is bound to either of the first two.
    #[test]
    fn three_streams_join_as_all_triples(
        low in -3i64..2,
        span in 0i64..4,
        to_first in any::<bool>(),
        events in events(20),
        policies in policies(),
    ) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let high = low + span;
        let other = if to_first { "x" } else { "y" };
        let query = format!(
            "SELECT x.v AS xv, y.v AS yv, z.v AS zv FROM a x TIMESTAMP BY t
             JOIN b y TIMESTAMP BY t ON DATEDIFF(second, x, y) BETWEEN -2 AND 2 AND x.k = y.k
             JOIN a z TIMESTAMP BY t ON DATEDIFF(second, {other}, z) BETWEEN {low} AND {high}"
        );
        let (a, b) = (rows_of(&events, "a", &policies), rows_of(&events, "b", &policies));
        let seconds = UNITS[1];
        let mut expected = Vec::new();
        for x in &a {
            for y in
                b.iter().filter(|y| (-2..=2).contains(&seconds.difference(x, y)) && !x.k.is_null() && x.k.same(y.k))
            {
                for z in &a {
                    if (low..=high).contains(&seconds.difference(if to_first { x } else { y }, z)) {
                        let columns = [("xv", x.v.value()), ("yv", y.v.value()), ("zv", z.v.value())];
                        expected.push(line(x.time.max(y.time).max(z.time), columns));
                    }
                }
            }
        }
        match crate::query::compile(&query, "q", &catalog()) {
            Ok(_) => prop_assert_eq!(sorted(run_events(&query, &options, &events, 1)), sorted(expected), "{}", query),
            Err(errors) => prop_assert!(false, "{errors}"),
        }
    }

    /// Each row of the table that matches gives a row, with the time of the stream.
    #[test]
    fn a_reference_table_gives_every_match(
        table in prop::collection::vec((a_key(), a_number()), 0..6),
        left_outer in any::<bool>(),
        inequality in any::<bool>(),
        events in events(24),
        policies in policies(),
    ) {
        let record = |(k, v): &(Cell, Cell)| {
            Value::record(crate::value::Record::from_unique(vec![("k".into(), k.value()), ("v".into(), v.value())]))
        };
        let mut options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        options.references.insert("r".into(), Arc::new(table.iter().map(record).collect()));
        let kind = if left_outer { "LEFT JOIN" } else { "JOIN" };
        let on = if inequality { "r.k = a.k AND a.v > r.v" } else { "a.k = r.k" };
        let query = format!("SELECT a.k AS k, a.v AS v, r.k AS rk, r.v AS rv FROM a TIMESTAMP BY t {kind} r ON {on}");
        let mut expected = Vec::new();
        for row in rows_of(&events, "a", &policies) {
            let matches = |(k, v): &&(Cell, Cell)| {
                !k.is_null() && k.same(row.k) && (!inequality || v.number().is_some_and(|v| row.v.above(v)))
            };
            let partners: Vec<&(Cell, Cell)> = table.iter().filter(matches).collect();
            let mut push = |k: Value, v: Value| {
                expected.push(line(row.time, [("k", row.k.value()), ("v", row.v.value()), ("rk", k), ("rv", v)]));
            };
            if partners.is_empty() && left_outer {
                push(Value::Null, Value::Null);
            }
            partners.iter().for_each(|(k, v)| push(k.value(), v.value()));
        }
        let found = run_events(&query, &options, &events, 1);
        prop_assert!(in_time_order(&found));
        prop_assert_eq!(sorted(found), sorted(expected));
    }

    /// Duplicates stay, times stay, rows of both inputs come in the order of their times, and of arrival among equals.
    #[test]
    fn a_union_is_both_in_the_order_of_time(events in events(30), policies in policies()) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query = "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t WHERE v > 0 UNION SELECT k, w AS v FROM b TIMESTAMP \
            BY t UNION SELECT k, v FROM a TIMESTAMP BY t)
             SELECT k, v, LAG(v) OVER (LIMIT DURATION(day, 1)) AS l FROM u";
        let branch = |input: &str, number: usize, value: fn(&Row) -> Cell| {
            rows_of(&events, input, &policies)
                .into_iter()
                .map(move |row| (row.time, row.offset, number, row.k, value(&row)))
                .collect::<Vec<_>>()
        };
        let positive = branch("a", 0, |r| r.v).into_iter().filter(|(.., v)| v.above(0.0));
        let mut all: Vec<_> = positive.chain(branch("b", 1, |r| r.w)).chain(branch("a", 2, |r| r.v)).collect();
        all.sort_by_key(|(time, offset, number, ..)| (*time, *offset, *number));
        let mut before = Value::Null;
        let each = |(time, _, _, k, v): &(i64, usize, usize, Cell, Cell)| {
            let lag = std::mem::replace(&mut before, v.value());
            line(*time, [("k", k.value()), ("v", v.value()), ("l", lag)])
        };
        let expected: Vec<String> = all.iter().map(each).collect();
        prop_assert_eq!(run_events(query, &options, &events, 1), expected);
    }
}
