//! Compiled queries over odd events: nothing panics, counts add up, and a restart from what was taken goes on.

#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use forebay::batch::{MessageMeta, RawEvent, write_row_json};
use forebay::engine::{Executor, ExecutorOptions, OnError, TimePolicies};
use forebay::query::plan::Part;
use forebay::time::{TICKS_PER_SECOND, Timestamp};
use forebay::value::{Record, Value};
use forebay_fuzz::Choices;
use libfuzzer_sys::fuzz_target;

/// Every operator, and every built-in function over fields that hold anything.
const QUERIES: &[&str] = &[
    "SELECT *, v + w AS a, v - w AS b, v * w AS c, v / w AS d, v % w AS e, -v AS f, v & w AS g, v | w AS h, v ^ w AS i, ~v AS j FROM a",
    "SELECT ABS(v) AS a, CEILING(v) AS b, FLOOR(v) AS c, EXP(v) AS d, POWER(v, w) AS e, ROUND(v, w) AS f, SIGN(v) AS g, SQRT(v) AS h, SQUARE(v) AS i FROM a",
    "SELECT CHARINDEX(v, w, x) AS a, CONCAT(v, w) AS b, CONCAT_WS(v, w, x) AS c, LEFT(v, w) AS d, RIGHT(v, w) AS e, LEN(v) AS f, LOWER(v) AS g, UPPER(v) AS h FROM a",
    "SELECT LTRIM(v) AS a, NCHAR(v) AS b, PATINDEX(v, w) AS c, REGEXMATCH(v, w) AS d, REPLACE(v, w, x) AS e, REPLICATE(v, w) AS f, REVERSE(v) AS g, SPACE(v) AS h FROM a",
    "SELECT STUFF(v, w, x, k) AS a, SUBSTRING(v, w, x) AS b, TRANSLATE(v, w, x) AS c, UNICODE(v) AS d, JSON_PARSE(v) AS e, GetType(v) AS f, COALESCE(v, w) AS g, NULLIF(v, w) AS h FROM a",
    "SELECT DATEADD(month, v, t) AS a, DATEADD(microsecond, v, w) AS b, DATEDIFF(week, v, w) AS c, DATEDIFF(microsecond, t, w) AS d, DATENAME(weekday, v) AS e, DATEPART(dayofyear, v) AS f, DATETIMEFROMPARTS(v, w, x, k, v, w, x) AS g, DAY(v) AS h, YEAR(t) AS i FROM a",
    "SELECT CAST(v AS bigint) AS a, CAST(w AS float) AS b, CAST(x AS nvarchar(max)) AS c, CAST(k AS datetime) AS d, CAST(v AS bit) AS e, TRY_CAST(v AS record) AS f, TRY_CAST(w AS array) AS g FROM a",
    "SELECT GetArrayElement(v, w) AS a, GetArrayLength(v) AS b, GetRecordPropertyValue(v, w) AS c, v.x AS d, v.x.y AS e FROM a",
    "SELECT CreatePoint(v, w) AS a, ST_DISTANCE(CreatePoint(v, w), CreatePoint(x, k)) AS b, ST_WITHIN(v, w) AS c, ST_INTERSECTS(v, w) AS d, ST_OVERLAPS(v, w) AS e FROM a",
    "SELECT e.ArrayIndex AS i, e.ArrayValue AS v FROM a CROSS APPLY GetArrayElements(v) AS e",
    "SELECT a.k, p.PropertyName AS n, p.PropertyValue AS v FROM a OUTER APPLY GetRecordProperties(w) AS p",
    "SELECT v FROM a WHERE v LIKE w AND v BETWEEN w AND x OR v IN (w, x, 1) OR NOT v = w",
    "SELECT CASE WHEN v > w THEN v WHEN v = x THEN w ELSE x END AS c, CASE v WHEN w THEN 1 ELSE 2 END AS d FROM a TIMESTAMP BY t",
    "CREATE TABLE a (v bigint, w float, t datetime); SELECT v, w FROM a TIMESTAMP BY t",
    "SELECT k, COUNT(*) AS n, SUM(v) AS s, AVG(v) AS g, MIN(v) AS lo, MAX(w) AS hi FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 5)",
    "SELECT k, Collect(v) AS c, COUNT(DISTINCT v) AS d, TopOne(v) OVER (ORDER BY w DESC) AS o FROM a TIMESTAMP BY t GROUP BY k, HoppingWindow(second, 6, 4, 1)",
    "SELECT k, STDEV(v) AS s, VARP(v) AS p, PERCENTILE_CONT(0.3) OVER (ORDER BY v) AS q, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY k, SlidingWindow(second, 4) HAVING COUNT(*) > 1",
    "SELECT k, COUNT(*) AS n, CollectTop(2) OVER (ORDER BY v) AS c FROM a TIMESTAMP BY t GROUP BY k, SessionWindow(second, 2, 6) OVER (PARTITION BY k)",
    "SELECT System.Window().Id AS w, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY Windows(Window('x', TumblingWindow(second, 3)), Window('y', SlidingWindow(second, 2)), Window('z', SessionWindow(second, 1, 9)))",
    "SELECT v, System.Timestamp() AS s, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY v, System.Timestamp()",
    "SELECT v, LAG(v, 2, w) OVER (PARTITION BY k LIMIT DURATION(second, 6) WHEN v > 1) AS l, ISFIRST(second, 3) OVER (PARTITION BY k) AS f, SUM(v) OVER (PARTITION BY k LIMIT DURATION(second, 4)) AS s, LAST(v) OVER (LIMIT DURATION(hour, 1) WHEN w > 0) AS z FROM a TIMESTAMP BY t",
    "SELECT x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t JOIN b y TIMESTAMP BY t ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN -2 AND 3",
    "SELECT x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k = y.k AND x.v < y.v AND DATEDIFF(minute, x, y) BETWEEN 0 AND 1",
    "SELECT a.v, r.name, COUNT(*) AS n FROM a TIMESTAMP BY t JOIN r ON a.k = r.k GROUP BY a.v, r.name, TumblingWindow(second, 5)",
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, w FROM b TIMESTAMP BY t) SELECT k, v, LAG(v) OVER (LIMIT DURATION(second, 9)) AS l FROM u",
    "SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t OVER k GROUP BY k, TumblingWindow(second, 5)",
    "SELECT k, x, COUNT(*) AS n FROM a TIMESTAMP BY t OVER k, x GROUP BY k, x, SessionWindow(second, 2, 6)",
    "SELECT AVG(v) AS g FROM a TIMESTAMP BY DATEADD(second, v, t) GROUP BY TumblingWindow(day, 7)",
];

static PARTS: LazyLock<Vec<Part>> = LazyLock::new(|| {
    let compile = |query: &&str| {
        let plan = forebay::query::compile(query, "query.asaql", &forebay_fuzz::catalog()).unwrap_or_else(|e| panic!("{e}"));
        plan.statements[0].parts[0].clone()
    };
    QUERIES.iter().map(compile).collect()
});

/// Values as they stand in a payload.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "2",
    "3",
    "-1",
    "7",
    "9223372036854775807",
    "-9223372036854775808",
    "9007199254740993",
    "0.0",
    "-0.0",
    "0.5",
    "1.5",
    "-2.5",
    "1e308",
    "-1e308",
    "1e-320",
    "NaN",
    "Infinity",
    "-Infinity",
    "4611686018427387904",
    "100000",
    "\"\"",
    "\" \"",
    "\"a\"",
    "\"%a_[b-d]%\"",
    "\"(a+)+$\"",
    "\"\\ud83d\\ude00\\u0000\"",
    "\"ß İ\"",
    "\"12\"",
    "\"1e400\"",
    "\"NaN\"",
    "\"true\"",
    "\"2024-01-01T00:00:03Z\"",
    "\"0001-01-01\"",
    "\"9999-12-31T23:59:59.9999999Z\"",
    "\"2024-02-29T12:00:00+14:00\"",
    "\"POINT(1 2)\"",
    "\"POLYGON((0 0,1 0,1 1,0 0))\"",
    "[]",
    "[1,null,\"a\"]",
    "[[1],[2]]",
    "{}",
    "{\"x\":{\"y\":1}}",
    "{\"x\":1,\"X\":2}",
    "{\"type\":\"Point\",\"coordinates\":[1,2]}",
    "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[1,1],[0,0]]]}",
    "{\"type\":\"LineString\",\"coordinates\":[[0,0],[0,1e300]]}",
    "[1e308,-1e308,1e308]",
];

fn start() -> Timestamp {
    Timestamp::parse("2024-01-01").expect("a date")
}

fn options(choices: &mut Choices<'_>) -> ExecutorOptions {
    let second = |n: usize| n as i64 * TICKS_PER_SECOND;
    let policies = TimePolicies {
        late_tolerance: [None, Some(0), Some(second(3)), Some(second(100))][choices.below(4)],
        out_of_order: second(choices.below(4)),
        adjust: choices.below(2) == 0,
        early_limit: [None, Some(second(300))][choices.below(2)],
    };
    let fields = vec![("k".into(), Value::Float(1.0)), ("name".into(), Value::text("one"))];
    let table = Arc::new(vec![Value::record(Record::from_unique(fields)), Value::Null]);
    ExecutorOptions {
        on_error: *choices.of(&[OnError::DeadLetter, OnError::Null, OnError::Stop]),
        policies,
        references: [("r".into(), table)].into_iter().collect(),
        ..ExecutorOptions::default()
    }
}

fn payload(choices: &mut Choices<'_>, arrival: Timestamp) -> String {
    let time = match choices.below(8) {
        0 => (*choices.of(VALUES)).to_owned(),
        half_seconds => format!("\"{}\"", arrival.saturating_add(-(half_seconds as i64 - 2) * TICKS_PER_SECOND / 2)),
    };
    let mut text = format!("{{\"t\":{time}");
    for name in ["k", "v", "w", "x"] {
        match choices.byte() {
            byte @ ..=191 => text.push_str(&format!(",\"{name}\":{}", VALUES[usize::from(byte) % VALUES.len()])),
            // mostly small numbers, so that keys and values meet
            byte @ ..=247 => text.push_str(&format!(",\"{name}\":{}", byte % 3)),
            _ => {}
        }
    }
    text.push('}');
    text
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices::new(bytes);
    let part = &PARTS[choices.below(PARTS.len())];
    let options = options(&mut choices);
    let fresh = || Executor::new(part, options.clone(), None).expect("the part can be run");
    let mut executor = fresh();
    let mut state: BTreeMap<(u32, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut arrival = start();
    let mut offset = 0;
    let (mut rows, mut done) = (0, 0);
    let mut take = |executor: &mut Executor, state: &mut BTreeMap<(u32, Vec<u8>), Vec<u8>>| {
        let emitted = executor.take();
        let mut line = String::new();
        for (_, row) in emitted.rows.batch.rows() {
            write_row_json(&emitted.rows.columns, row, &mut line);
        }
        for change in emitted.state {
            match change.value {
                Some(value) => drop(state.insert((change.op, change.key), value)),
                None => drop(state.remove(&(change.op, change.key)).expect("a removed state row was there")),
            }
        }
        let counts = emitted.counts;
        rows += counts.rows;
        done += counts.filtered + counts.evaluated + counts.failed.values().sum::<u64>() + counts.dropped.values().sum::<u64>();
        if emitted.stopped.is_none() {
            assert_eq!(rows, done + emitted.waiting, "every row is counted once");
        }
        emitted.stopped.is_none()
    };
    for _ in 0..64 {
        if choices.is_empty() {
            break;
        }
        let step = choices.byte();
        arrival = arrival.saturating_add(i64::from(step % 8) * TICKS_PER_SECOND / 2);
        match step / 8 {
            0..=1 => {
                if !take(&mut executor, &mut state) {
                    return;
                }
                executor = fresh();
                let stored = state.iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice()));
                executor.load_state(stored).expect("stored state loads");
            }
            2 => executor.tick(arrival),
            3 => {
                if !take(&mut executor, &mut state) {
                    return;
                }
            }
            4 => executor.set_reference("r".into(), Arc::new(vec![Value::Null, Value::array(Vec::new())])),
            kind => {
                let input = if kind % 3 == 0 { "b" } else { "a" };
                let event = |payload: Bytes| RawEvent { arrival, payload, message: Arc::<MessageMeta>::default(), mark: 0 };
                let n = 1 + choices.below(3);
                let events: Vec<RawEvent> = (0..n).map(|_| event(Bytes::from(payload(&mut choices, arrival)))).collect();
                executor.push_events(input, offset, &events);
                offset += n as i64;
            }
        }
    }
    executor.finish();
    take(&mut executor, &mut state);
});
