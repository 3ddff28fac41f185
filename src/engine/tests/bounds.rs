//! What is held goes when it can no longer matter, is bounded, and is what it would be if made anew.

use super::*;

#[test]
fn state_goes_when_it_can_no_longer_matter() {
    for (query, rows_left) in
        QUERIES.iter().zip([2, 3, 3, 2, 3, usize::MAX, 3, 3, usize::MAX, 4, 2, usize::MAX, 3, 2, 4, usize::MAX, 3, 4])
    {
        let part = &parts(query)[0];
        let sent: Vec<Sent> = (0..60).map(|i| (u8::from(i % 3 == 0), 1, i % 4, i % 2, i % 5)).collect();
        let (_, left) = feed(part, &ExecutorOptions::default(), &raw(&sent), &[(20, true), (20, true)]);
        assert!(left <= rows_left, "{left} state rows left by {query}");
    }
}

/// Queries over many keys, with whether their state is all gone once windows have closed and limits have passed: all of
/// it but a few rows that say how far things are.
const LETTING_GO: &[&str] = &[
    "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM a GROUP BY k, TumblingWindow(second, 10)",
    "SELECT k, Collect(v) AS n FROM a GROUP BY k, HoppingWindow(second, 60, 10)",
    "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM a GROUP BY k, SlidingWindow(second, 10)",
    "SELECT k, COUNT(*) AS n FROM a GROUP BY k, SessionWindow(second, 5, 60) OVER (PARTITION BY k)",
    "SELECT LAG(v, 2) OVER (PARTITION BY k LIMIT DURATION(second, 20)) AS l, ISFIRST(second, 10) OVER (PARTITION BY k) \
    AS f, LAST(v) OVER (PARTITION BY k LIMIT DURATION(second, 20)) AS t FROM a",
    "SELECT MAX(v) OVER (PARTITION BY k LIMIT DURATION(second, 10)) AS s FROM a",
    "SELECT x.k AS k, y.v AS v FROM a x LEFT JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 10",
    "SELECT x.k AS k, y.v AS v FROM a x JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 10",
    "SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t OVER k GROUP BY k, TumblingWindow(second, 10)",
    "SELECT v FROM a TIMESTAMP BY t OVER k WHERE v > 1",
    "SELECT LAG(v) OVER (PARTITION BY k LIMIT DURATION(second, 10)) AS l FROM a TIMESTAMP BY t OVER k",
    "SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, v FROM b TIMESTAMP BY t",
    "SELECT AnomalyDetection_SpikeAndDip(v, 80, 4, 'spikes') OVER (PARTITION BY k LIMIT DURATION(second, 30)) AS s \
    FROM a",
    "SELECT * FROM a MATCH_RECOGNIZE (LIMIT DURATION(second, 25) PARTITION BY k MEASURES Last(A.v) AS v AFTER MATCH \
    SKIP TO NEXT ROW PATTERN (A+ B) DEFINE A AS A.v > 3, B AS B.v <= 3) AS m",
    // what is below holds back: nothing above is due before it lets go
    "WITH j AS (SELECT x.k AS k, y.v AS v FROM a x LEFT JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND \
    10) SELECT LAG(v) OVER (PARTITION BY k LIMIT DURATION(second, 2)) AS l FROM j",
    "WITH p AS (SELECT n FROM a MATCH_RECOGNIZE (LIMIT DURATION(second, 9) PARTITION BY k MEASURES Last(A.v) AS n \
    AFTER MATCH SKIP TO NEXT ROW PATTERN (A+) DEFINE A AS A.v > 3) AS m) SELECT n, COUNT(*) AS c FROM p GROUP BY n, \
    TumblingWindow(second, 3)",
];

/// Events over many keys, then silence: bytes and state rows stay level while events come and go when time has passed.
#[test]
fn what_is_held_is_bounded_and_goes_in_silence() {
    const EVENTS: usize = 30_000;
    const KEYS: usize = 2_000;
    for query in LETTING_GO {
        let mut executor = executor(query, ExecutorOptions::default());
        let mut table: BTreeMap<(u32, Vec<u8>), usize> = BTreeMap::new();
        let mut keep = |executor: &mut Executor| {
            for change in executor.take().state {
                match change.value {
                    Some(value) => drop(table.insert((change.op, change.key), value.len())),
                    None => assert!(
                        table.remove(&(change.op, change.key)).is_some(),
                        "{query}: a removed state row was there"
                    ),
                }
            }
            (executor.state_bytes(), table.values().sum::<usize>(), table.len())
        };
        let (mut early, mut late) = ((0, 0, 0), (0, 0, 0));
        let mut now = at(0);
        for i in 0..EVENTS / 100 {
            // 100 events a second; a key comes every 20 s, in another order each time
            let key = |n: usize| (n * 7919 + n / KEYS) % KEYS;
            now = at(i as i64);
            let events: Vec<RawEvent> = (i * 100..i * 100 + 100)
                .map(|n| event(i as i64, &format!("{{\"k\":\"device-{}\",\"v\":{},\"t\":\"{now}\"}}", key(n), n % 17)))
                .collect();
            executor.push_events(if i % 2 == 1 { "b" } else { "a" }, (i * 100) as i64, &events);
            let held = if i % 5 == 4 { keep(&mut executor) } else { continue };
            let worst = if i < EVENTS / 200 { &mut early } else { &mut late };
            *worst = (worst.0.max(held.0), worst.1.max(held.1), worst.2.max(held.2));
        }
        let level = |early: usize, late: usize| late <= early + early / 4 + 4096;
        assert!(
            level(early.0, late.0) && level(early.1, late.1) && late.2 <= early.2 + early.2 / 4 + 20,
            "{query}: {early:?}, later {late:?}"
        );
        let mut left = keep(&mut executor);
        let mut ticks = 0;
        while let Some(due) = executor.next_tick() {
            ticks += 1;
            assert!(ticks < 10_000 && due < now.saturating_add(600 * SECOND), "{query}: ticks until {due}");
            executor.tick(due);
            left = keep(&mut executor);
        }
        assert!(left.0 < 4096 && left.1 < 200 && left.2 <= 4, "{query}: {left:?} left after {ticks} ticks");
    }
}

/// What a sliding window and `OVER` give is what counting anew gives.
#[test]
fn aggregates_over_moving_rows_equal_those_made_anew() {
    let query = "SELECT v, COUNT(v) OVER (LIMIT DURATION(second, 7)) AS n, SUM(v) OVER (LIMIT DURATION(second, 7)) AS \
        s, MIN(v) OVER (LIMIT DURATION(second, 7)) AS l, MAX(v) OVER (LIMIT DURATION(second, 7)) AS h FROM a";
    let sliding = "SELECT COUNT(v) AS n, SUM(v) AS s, MIN(v) AS l, MAX(v) AS h, System.Timestamp() AS t FROM a GROUP \
        BY SlidingWindow(second, 7)";
    let mut rng = fastrand::Rng::with_seed(11);
    let mut time = 0;
    let sent: Vec<(i64, i64)> = (0..400)
        .map(|_| {
            time += [0, 0, 0, 1, 1, 2, 9][rng.usize(0..7)];
            (time, rng.i64(-50..50))
        })
        .collect();
    let of = |rows: &[i64]| {
        let (n, sum) = (rows.len(), rows.iter().sum::<i64>());
        format!("\"n\":{n},\"s\":{sum},\"l\":{},\"h\":{}", rows.iter().min().unwrap(), rows.iter().max().unwrap())
    };
    let events: Vec<_> = sent.iter().map(|(t, v)| (*t, "a", format!("{{\"v\":{v}}}"))).collect();
    let expected = sent.iter().enumerate().map(|(i, (now, v))| {
        let rows: Vec<i64> = sent[..=i].iter().filter(|(t, _)| now - t < 7).map(|(_, v)| *v).collect();
        format!("{{\"v\":{v},{}}}", of(&rows))
    });
    assert_eq!(lines(&run(query, ExecutorOptions::default(), &events).rows), expected.collect::<Vec<_>>());

    let points: std::collections::BTreeSet<i64> = sent.iter().flat_map(|(t, _)| [*t, *t + 7]).collect();
    let expected = points.into_iter().filter_map(|end| {
        let rows: Vec<i64> = sent.iter().filter(|(t, _)| *t <= end && end - t < 7).map(|(_, v)| *v).collect();
        (!rows.is_empty()).then(|| format!("{{{},\"t\":\"{}\"}}", of(&rows), at(end)))
    });
    assert_eq!(lines(&run(sliding, ExecutorOptions::default(), &events).rows), expected.collect::<Vec<_>>());
}
