//! What must not matter: how input is cut, commits, restarts, ticks, and arrival order within the tolerance.

use super::stream::*;
use super::*;

/// Each operator with state in each of its forms, and on top of others.
const MORE: &[&str] = &[
    "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM a TIMESTAMP BY t GROUP BY k, HoppingWindow(Duration(second, 2), \
    Hop(second, 3), Offset(millisecond, -500))",
    "SELECT k, TopOne(v) OVER (ORDER BY w DESC) AS o, CollectTop(3, v) OVER (ORDER BY w) AS c, PERCENTILE_CONT(0.5) \
    OVER (ORDER BY v) AS p FROM a TIMESTAMP BY t GROUP BY k, HoppingWindow(second, 7, 2)",
    "SELECT k, STDEV(v) AS d, Collect(v) AS c FROM a TIMESTAMP BY t GROUP BY k, SlidingWindow(second, 3)",
    "SELECT k, COUNT(*) AS n, MIN(v) AS m FROM a TIMESTAMP BY t GROUP BY k, SessionWindow(second, 2, 5)",
    "SELECT k, COUNT(*) AS n, MIN(v) AS m FROM a TIMESTAMP BY t GROUP BY k, SessionWindow(second, 4, 2) OVER \
    (PARTITION BY k)",
    "SELECT v, k, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY v, k, System.Timestamp()",
    "SELECT System.Window().Id AS w, k, COUNT(*) AS n, Collect(v) AS c FROM a TIMESTAMP BY t GROUP BY k, \
    Windows(Window('t', TumblingWindow(second, 3)), Window('h', HoppingWindow(second, 4, 2)), Window('s', \
    SlidingWindow(second, 2)), Window('e', SessionWindow(second, 1, 4) OVER (PARTITION BY k)))",
    "SELECT k, LAG(v, 3, w) OVER (PARTITION BY k LIMIT DURATION(second, 8) WHEN v > 0) AS l, LAST(w) OVER (LIMIT \
    DURATION(second, 5) WHEN w > 1) AS z, ISFIRST(second, 4) OVER (PARTITION BY k WHEN v > 0) AS f FROM a TIMESTAMP BY \
    t WHERE NOT w = 2",
    "SELECT k, Collect(v) OVER (PARTITION BY k LIMIT DURATION(second, 6) WHEN w > 0) AS c, TopOne(v) OVER (ORDER BY w \
    LIMIT DURATION(second, 4)) AS o, AVG(v) OVER (LIMIT DURATION(second, 3)) AS g FROM a TIMESTAMP BY t",
    "SELECT x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t JOIN a y TIMESTAMP BY t ON x.k = y.k AND DATEDIFF(second, x, \
    y) BETWEEN 1 AND 4",
    "SELECT x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k = y.k AND x.v > 0 AND \
    DATEDIFF(second, x, y) BETWEEN -3 AND -1",
    "SELECT x.v AS xv, y.v AS yv, z.v AS zv FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k = y.k AND \
    DATEDIFF(second, x, y) BETWEEN 0 AND 2 JOIN a z TIMESTAMP BY t ON DATEDIFF(second, x, z) BETWEEN 0 AND 1",
    "WITH w AS (SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 2)) SELECT w.k AS k, \
    w.n AS n, y.v AS v FROM w LEFT JOIN b y TIMESTAMP BY t ON w.k = y.k AND DATEDIFF(second, w, y) BETWEEN 0 AND 2",
    LAG_OF_PAIRS,
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, w AS v FROM b TIMESTAMP BY t) SELECT k, COUNT(*) AS \
    n, SUM(v) AS s FROM u GROUP BY k, SessionWindow(second, 2, 6) OVER (PARTITION BY k)",
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, v FROM a TIMESTAMP BY t WHERE v > 0), h AS (SELECT \
    k, MAX(v) AS m FROM u GROUP BY k, HoppingWindow(second, 4, 1)) SELECT k, m, LAG(m) OVER (PARTITION BY k LIMIT \
    DURATION(second, 3)) AS l FROM h",
    "SELECT a.k AS k, r.name AS name, COUNT(*) AS n FROM a TIMESTAMP BY t LEFT JOIN r ON a.k = r.k GROUP BY a.k, \
    r.name, TumblingWindow(second, 3)",
];

const LAG_OF_PAIRS: &str = "WITH j AS (SELECT x.k AS k, y.v AS v FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t \
    ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 2) SELECT k, v, LAG(v) OVER (PARTITION BY k LIMIT \
    DURATION(second, 9)) AS l FROM j";

/// The same inside substreams, where order between keys is free.
const SUBSTREAMS: &[&str] = &[
    "SELECT k, COUNT(*) AS n, Collect(v) AS c FROM a TIMESTAMP BY t OVER k GROUP BY k, TumblingWindow(second, 3)",
    "SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t OVER k GROUP BY k, HoppingWindow(second, 5, 2)",
    "SELECT k, SUM(v) AS s FROM a TIMESTAMP BY t OVER k GROUP BY k, SlidingWindow(second, 3)",
    "SELECT k, SUM(v) AS s FROM a TIMESTAMP BY t OVER k GROUP BY k, SessionWindow(second, 2, 4)",
    "SELECT k, LAG(v) OVER (LIMIT DURATION(second, 4)) AS l, ISFIRST(second, 3) AS f, SUM(v) OVER (LIMIT \
    DURATION(second, 3)) AS s FROM a TIMESTAMP BY t OVER k",
    "SELECT x.k AS k, x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t OVER k LEFT JOIN b y TIMESTAMP BY t OVER k ON x.k = \
    y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 3",
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t OVER k UNION SELECT k, v FROM b TIMESTAMP BY t OVER k) SELECT k, \
    COUNT(*) AS n FROM u GROUP BY k, TumblingWindow(second, 4)",
];

fn every_query() -> impl Strategy<Value = (&'static str, bool)> {
    let ordered = QUERIES.iter().chain(MORE).map(|query| (*query, true));
    let free = SUBSTREAMS.iter().map(|query| (*query, false));
    prop::sample::select(ordered.chain(free).collect::<Vec<_>>())
}

/// Queries that look at the order of rows of one moment that they made themselves, which is the order of arrival.
fn looks_at_ties(query: &str) -> bool {
    query == LAG_OF_PAIRS
        || query.contains("COUNT(*) AS v FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 2)), u AS")
}

/// What may happen between two records without changing anything.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    /// A tick at the arrival of the next record.
    Tick,
    Commit,
    /// A commit, some records more, and the end of the process.
    Crash,
}

/// Calls of these lengths, and what comes behind each.
fn cuts() -> impl Strategy<Value = Vec<(usize, Between)>> {
    let between = prop::sample::select(vec![Between::Nothing, Between::Tick, Between::Commit, Between::Crash]);
    prop::collection::vec((1usize..6, between), 0..16)
}

fn options_with(policies: TimePolicies) -> ExecutorOptions {
    let mut options = ExecutorOptions { policies, ..ExecutorOptions::default() };
    let row = |k: i64, name: &str| {
        Value::record(crate::value::Record::from_unique(vec![
            ("k".into(), Value::BigInt(k)),
            ("name".into(), Value::text(name)),
        ]))
    };
    options.references.insert("r".into(), Arc::new(vec![row(1, "one"), row(2, "two"), row(2, "zwei")]));
    options
}

struct Run<'a> {
    part: &'a Part,
    options: &'a ExecutorOptions,
    events: &'a [Event],
    executor: Executor,
    stored: BTreeMap<(u32, Vec<u8>), Vec<u8>>,
    out: Vec<String>,
}

impl Run<'_> {
    fn push(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let input = self.events[at].input;
            let end = (at..to).find(|i| self.events[*i].input != input).unwrap_or(to);
            let same: Vec<RawEvent> = self.events[at..end].iter().map(|e| raw_event(e, 1)).collect();
            self.executor.push_events(input, at as i64, &same);
            at = end;
        }
    }

    fn commit(&mut self) {
        let emitted = self.executor.take();
        let times = emitted.rows.batch.meta().iter().map(|m| m.time.to_string());
        self.out.extend(lines(&emitted.rows).into_iter().zip(times).map(|(line, time)| format!("{time} {line}")));
        for change in emitted.state {
            match change.value {
                Some(value) => drop(self.stored.insert((change.op, change.key), value)),
                None => drop(self.stored.remove(&(change.op, change.key)).expect("a removed state row was there")),
            }
        }
    }

    fn restart(&mut self) {
        self.executor = Executor::new(self.part, self.options.clone(), Some(half())).unwrap();
        let stored = self.stored.iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice()));
        self.executor.load_state(stored).unwrap();
    }
}

/// The rows that come out, in their order.
fn rows_with(part: &Part, options: &ExecutorOptions, events: &[Event], cuts: &[(usize, Between)]) -> Vec<String> {
    let executor = Executor::new(part, options.clone(), Some(half())).unwrap();
    let mut run = Run { part, options, events, executor, stored: BTreeMap::new(), out: Vec::new() };
    let mut position = 0;
    for (length, between) in cuts {
        let end = (position + length).min(events.len());
        run.push(position, end);
        position = end;
        match (between, events.get(position)) {
            (Between::Nothing, _) | (Between::Tick, None) => {}
            (Between::Tick, Some(next)) => run.executor.tick(Timestamp::from_ticks(ticks(next.arrival, 1)).unwrap()),
            (Between::Commit, _) => run.commit(),
            (Between::Crash, _) => {
                run.commit();
                run.push(position, (position + 3).min(events.len()));
                run.restart();
            }
        }
    }
    run.push(position, events.len());
    run.executor.finish();
    run.commit();
    run.out
}

/// Events of distinct times, each with how much later than its turn it arrives.
fn distinct() -> impl Strategy<Value = Vec<(Event, i64)>> {
    let one = (any::<bool>(), 1i64..5, a_key(), a_number(), a_number(), 0i64..100);
    prop::collection::vec(one, 0..40).prop_map(|sent| {
        let mut time = 200;
        let each = |(first, pause, k, v, w, late): (bool, i64, Cell, Cell, Cell, i64)| {
            time += pause;
            (Event { input: if first { "a" } else { "b" }, arrival: 0, time, k, v, w }, late)
        };
        sent.into_iter().map(each).collect()
    })
}

/// The events in the order given; they arrive behind all their times, one after another.
fn arriving(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.into_iter().zip(400..).map(|(event, arrival)| Event { arrival, ..event }).collect()
}

#[test]
fn a_left_join_that_holds_rows_back_is_waited_for_without_asking_again_and_again() {
    let part = &parts(LAG_OF_PAIRS)[0];
    let mut executor = Executor::new(part, ExecutorOptions::default(), None).unwrap();
    let sent = |input, time| Event { input, arrival: time, time, k: Cell::Int(1), v: Cell::Int(2), w: Cell::Null };
    for (offset, event) in (0..).zip([sent("a", 200), sent("b", 205)]) {
        executor.push_events(event.input, offset, &[raw_event(&event, 1)]);
    }
    // the pair of the second 102.5 waits until no match of the left row can come, which is past the second 102
    let (mut ticks, mut came) = (0, None);
    while let Some(due) = executor.next_tick() {
        ticks += 1;
        assert!(ticks <= 5, "asked for again and again: {due}");
        executor.tick(due);
        if executor.has_output() {
            assert_eq!(lines(&executor.take().rows), [r#"{"k":1,"v":2,"l":null}"#]);
            came = Some(due);
        }
    }
    assert!(came.is_some_and(|due| due > at(103 + 5) && due < at(104 + 5)), "the late tolerance later: {came:?}");
    executor.take();
    assert!(executor.state_bytes() < 4096, "what was looked back at is gone: {}", executor.state_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn cuts_commits_crashes_and_ticks_change_nothing(
        (query, ordered) in every_query(),
        events in events(40),
        cuts in cuts(),
        policies in policies(),
    ) {
        let part = &parts(query)[0];
        let options = options_with(policies);
        let free = |rows| if ordered { rows } else { sorted(rows) };
        prop_assert_eq!(
            free(rows_with(part, &options, &events, &[])),
            free(rows_with(part, &options, &events, &cuts)),
            "{}",
            query
        );
    }

    /// Inside the out-of-order tolerance the order of arrival does not matter, and that between inputs never does (but
    /// for the order among rows of one moment, which also decides whether 1 or 1.0 names the group of both).
    #[test]
    fn arrival_order_within_the_tolerance_changes_nothing(
        (query, _) in every_query().prop_filter("looks at ties", |(query, _)| !looks_at_ties(query)),
        events in distinct(),
        tolerance in 0i64..12,
        behind in (0i64..40, 0i64..40),
        adjust in any::<bool>(),
        forever in any::<bool>(),
        cuts in cuts(),
    ) {
        let late_tolerance = (!forever).then_some(1000 * GRID);
        let policies =
            TimePolicies { late_tolerance, out_of_order: tolerance * GRID, adjust, ..TimePolicies::default() };
        let mut permuted: Vec<(i64, Event)> = events
            .iter()
            .map(|(e, late)| (e.time + late % (tolerance + 1) + if e.input == "a" { behind.0 } else { behind.1 }, *e))
            .collect();
        permuted.sort_by_key(|(turn, _)| *turn);
        let part = &parts(query)[0];
        let options = options_with(policies);
        let in_order = rows_with(part, &options, &arriving(events.iter().map(|(e, _)| *e)), &[]);
        let permuted = rows_with(part, &options, &arriving(permuted.into_iter().map(|(_, e)| e)), &cuts);
        let named_alike =
            |rows: Vec<String>| sorted(rows.iter().map(|row| row.replace("\"k\":1.0", "\"k\":1")).collect());
        prop_assert_eq!(named_alike(in_order), named_alike(permuted), "{}", query);
    }

    /// Ticking when the executor asks for it, and then only, brings out what the end of the input would.
    #[test]
    fn ticks_asked_for_bring_everything_out(
        (query, ordered) in every_query(),
        events in events(30),
        late in 0i64..8,
        out_of_order in 0i64..6,
        adjust in any::<bool>(),
    ) {
        let policies = TimePolicies {
            late_tolerance: Some(late * GRID),
            out_of_order: out_of_order * GRID,
            adjust,
            early_limit: Some(300 * SECOND),
        };
        let part = &parts(query)[0];
        let options = options_with(policies);
        let executor = Executor::new(part, options.clone(), Some(half())).unwrap();
        let mut run =
            Run { part, options: &options, events: &events, executor, stored: BTreeMap::new(), out: Vec::new() };
        run.push(0, events.len());
        run.commit();
        let mut asked = Vec::new();
        while let Some(due) = run.executor.next_tick() {
            asked.push(due);
            // as many moments as rows can come out at, and a watermark that each operator may hold back
            prop_assert!(
                asked.len() < 2000 && asked.is_sorted(),
                "asked for {:?} …: {query}",
                &asked[asked.len() - 20.min(asked.len())..]
            );
            run.executor.tick(due);
            run.commit();
        }
        prop_assert_eq!(run.executor.waiting(), 0);
        let free = |rows| if ordered { rows } else { sorted(rows) };
        prop_assert_eq!(free(run.out), free(rows_with(part, &options, &events, &[])), "{}", query);
    }
}
