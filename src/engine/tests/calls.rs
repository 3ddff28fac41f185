//! Substreams behind a call: each goes on in its own order, as if there were no call.

use super::*;

/// Values by operator and key.
type Stored = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

/// The parts of a statement, one behind another; a call answers with its argument.
struct Chain {
    parts: Vec<Part>,
    executors: Vec<Executor>,
    /// Rows of each stream so far.
    offsets: Vec<i64>,
    /// State of each part, as it is stored.
    stored: Vec<Stored>,
    given: Vec<String>,
}

impl Chain {
    fn new(query: &str) -> Chain {
        let parts = parts(query);
        let n = parts.len();
        let executors = parts.iter().map(|part| Executor::new(part, patient(), None).unwrap()).collect();
        let stored = vec![Stored::new(); n];
        Chain { parts, executors, offsets: vec![0; n], stored, given: Vec::new() }
    }

    /// What the first part gave goes through all that follow, and what time it is with it.
    fn pass_on(&mut self, at_end: bool) {
        for i in 0..self.parts.len() {
            if at_end {
                self.executors[i].finish();
            }
            let emitted = self.executors[i].take();
            for change in emitted.state {
                let key = (change.op, change.key);
                match change.value {
                    Some(value) => self.stored[i].insert(key, value),
                    None => self.stored[i].remove(&key),
                };
            }
            assert!(emitted.failures.is_empty(), "{:?}", emitted.failures);
            let rows = match &self.parts[i].external {
                None => emitted.rows,
                Some(external) => {
                    let mut tail = Executor::for_tail(external, &self.parts[i].columns, patient(), None).unwrap();
                    tail.push_rows(0, &emitted.rows);
                    tail.take().rows
                }
            };
            let Some(next) = self.executors.get_mut(i + 1) else {
                self.given.extend(lines(&rows));
                return;
            };
            next.push_rows(self.offsets[i], &rows);
            self.offsets[i] += rows.batch.len() as i64;
            if let Some(watermark) = emitted.watermark {
                next.advance(watermark);
            }
        }
    }

    /// As after a crash: all parts go on from what they have stored.
    fn restart(&mut self) {
        for (i, part) in self.parts.iter().enumerate() {
            self.executors[i] = Executor::new(part, patient(), None).unwrap();
            let rows = self.stored[i].iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice()));
            self.executors[i].load_state(rows).unwrap();
        }
    }
}

fn patient() -> ExecutorOptions {
    let policies = TimePolicies { late_tolerance: Some(60 * SECOND), ..TimePolicies::default() };
    ExecutorOptions { policies, ..ExecutorOptions::default() }
}

/// Rows in some order: substreams have none among each other.
fn through(query: &str, cut: usize, restarts: bool) -> Vec<String> {
    // three devices whose clocks are 20 s apart, with gaps, over two minutes
    let device = |i: i64| (i * 7 / 3) % 3;
    let payload = |i: i64| format!(r#"{{"k":{},"v":{i},"t":"{}"}}"#, device(i), at(i - 20 * device(i)));
    let events: Vec<RawEvent> = (0..120).filter(|i| i % 11 < 8).map(|i| event(i, &payload(i))).collect();
    let mut chain = Chain::new(query);
    for (i, events) in events.chunks(cut).enumerate() {
        chain.executors[0].push_events("a", (i * cut) as i64, events);
        chain.pass_on(false);
        if restarts {
            chain.restart();
        }
    }
    chain.pass_on(true);
    chain.given.sort();
    chain.given
}

#[test]
fn a_call_changes_nothing_for_the_substreams_behind_it() {
    for query in [
        "WITH s AS (SELECT k, udf.score(v) AS p FROM a TIMESTAMP BY t OVER k)
         SELECT k, COUNT(*) AS n, SUM(p) AS s, System.Timestamp() AS at FROM s GROUP BY k, TumblingWindow(second, 3)",
        "WITH s AS (SELECT k, udf.score(v) AS p FROM a TIMESTAMP BY t OVER k)
         SELECT p, LAG(p) OVER (LIMIT DURATION(second, 5)) AS l FROM s",
        "WITH s AS (SELECT k, udf.score(v) AS p FROM a TIMESTAMP BY t OVER k),
         f AS (SELECT k AS d, p + 1 AS q FROM s WHERE p > 3)
         SELECT COUNT(*) AS n, MAX(q) AS m FROM f GROUP BY d, SessionWindow(second, 2, 30)",
        "WITH w AS (SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t OVER k GROUP BY k, TumblingWindow(second, 2)),
         s AS (SELECT k, udf.score(n) AS p FROM w),
         x AS (SELECT k, p, LAG(p) OVER (LIMIT DURATION(second, 9)) AS l FROM s),
         y AS (SELECT k, udf.score(p) AS p, l FROM x)
         SELECT k, p, l, SUM(p) OVER (LIMIT DURATION(second, 7)) AS m, System.Timestamp() AS at FROM y",
    ] {
        let without = through(&query.replace("udf.score", ""), 1, false);
        assert!(without.len() > 10, "{without:?}");
        assert!(parts(query).len() > 1, "{query}");
        for (cut, restarts) in [(1, false), (1, true), (4, true), (7, false), (1_000, false)] {
            assert_eq!(through(query, cut, restarts), without, "{cut} at once: {query}");
        }
    }
}

#[test]
fn a_device_that_falls_silent_is_forgotten_behind_a_call_too() {
    let query = "WITH s AS (SELECT udf.score(v) AS p FROM a TIMESTAMP BY t OVER k)
                 SELECT p, LAG(p) OVER (LIMIT DURATION(second, 5)) AS l FROM s";
    let mut chain = Chain::new(query);
    let payload = |k: i64, i: i64| format!(r#"{{"k":{k},"v":{i},"t":"{}"}}"#, at(i));
    for (i, k) in [(0, 1), (1, 2), (2, 1), (3, 1), (100, 2), (200, 2), (300, 2)] {
        chain.executors[0].push_events("a", i, &[event(i, &payload(k, i))]);
        chain.pass_on(false);
    }
    // the state of an operator begins with the substream, that of row ids does not
    let of_lanes = chain.stored.last().unwrap().keys().filter(|(op, _)| *op != u32::MAX);
    assert_eq!(of_lanes.count(), 1, "{:?}", chain.stored);
}
