//! Windows against a reading of their definitions: every window over all rows, quadratic and obvious.

use super::aggregates::{AGGREGATES, columns};
use super::stream::*;
use super::*;

/// A window; lengths in steps of the grid.
#[derive(Clone, Debug)]
enum Kind {
    Tumbling { size: i64, offset: i64 },
    Hopping { size: i64, hop: i64, offset: i64 },
    Sliding { size: i64 },
    Session { timeout: i64, max: i64, per_key: bool },
    Snapshot,
}

fn a_window() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1i64..13, -12i64..13).prop_map(|(size, offset)| Kind::Tumbling { size, offset: offset % size }),
        (1i64..17, 1i64..9, -8i64..9).prop_map(|(size, hop, offset)| Kind::Hopping { size, hop, offset: offset % hop }),
        (1i64..13).prop_map(|size| Kind::Sliding { size }),
        (1i64..9, 1i64..16, prop::bool::ANY).prop_map(|(timeout, max, per_key)| Kind::Session {
            timeout,
            max,
            per_key
        }),
        Just(Kind::Snapshot),
    ]
}

const STEP_MS: i64 = 500;

impl Kind {
    fn text(&self) -> String {
        let ms = |steps: &i64| steps * STEP_MS;
        match self {
            Kind::Tumbling { size, offset: 0 } => format!("TumblingWindow(millisecond, {})", ms(size)),
            Kind::Tumbling { size, offset } => {
                format!("TumblingWindow(Duration(millisecond, {}), Offset(millisecond, {}))", ms(size), ms(offset))
            }
            Kind::Hopping { size, hop, offset: 0 } => format!("HoppingWindow(millisecond, {}, {})", ms(size), ms(hop)),
            Kind::Hopping { size, hop, offset } => format!(
                "HoppingWindow(Duration(millisecond, {}), Hop(millisecond, {}), Offset(millisecond, {}))",
                ms(size),
                ms(hop),
                ms(offset)
            ),
            Kind::Sliding { size } => format!("SlidingWindow(millisecond, {})", ms(size)),
            Kind::Session { timeout, max, per_key } => {
                let over = if *per_key { " OVER (PARTITION BY k)" } else { "" };
                format!("SessionWindow(millisecond, {}, {}){over}", ms(timeout), ms(max))
            }
            Kind::Snapshot => "System.Timestamp()".to_owned(),
        }
    }

    /// Every window: its end, and its rows.
    fn windows<'r>(&self, rows: &[&'r Row]) -> Vec<(i64, Vec<&'r Row>)> {
        match self {
            Kind::Tumbling { size, offset } => fixed(rows, size * GRID, size * GRID, offset * GRID),
            Kind::Hopping { size, hop, offset } => fixed(rows, size * GRID, hop * GRID, offset * GRID),
            Kind::Snapshot => fixed(rows, 1, 1, 0),
            Kind::Sliding { size } => sliding(rows, size * GRID),
            Kind::Session { timeout, max, .. } => session(rows, timeout * GRID, max * GRID),
        }
    }

    /// Whether each key has windows of its own: sliding windows have their change points for each key, sessions when
    /// they say so.
    fn is_per_key(&self) -> bool {
        matches!(self, Kind::Sliding { .. } | Kind::Session { per_key: true, .. })
    }
}

/// The rows of each key, in the order in which the keys appear.
fn by_key<'r>(rows: &[&'r Row]) -> Vec<Vec<&'r Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|g| g[0].k.same(row.k)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

/// `(end - size, end]` for every end `k * hop + offset`.
fn fixed<'r>(rows: &[&'r Row], size: i64, hop: i64, offset: i64) -> Vec<(i64, Vec<&'r Row>)> {
    let mut ends: Vec<i64> = Vec::new();
    for row in rows {
        // the ends from the row on that its window can have
        let mut end = (row.time - offset).div_euclid(hop) * hop + offset;
        while end < row.time + size {
            if !ends.contains(&end) {
                ends.push(end);
            }
            end += hop;
        }
    }
    let inside = |end: i64| rows.iter().copied().filter(|r| end - size < r.time && r.time <= end).collect::<Vec<_>>();
    ends.into_iter().map(|end| (end, inside(end))).filter(|(_, rows)| !rows.is_empty()).collect()
}

/// A window at every moment at which its content changes: at each row, and `size` later.
fn sliding<'r>(rows: &[&'r Row], size: i64) -> Vec<(i64, Vec<&'r Row>)> {
    let mut ends: Vec<i64> = rows.iter().flat_map(|r| [r.time, r.time + size]).collect();
    ends.sort_unstable();
    ends.dedup();
    let inside = |end: i64| rows.iter().copied().filter(|r| end - size < r.time && r.time <= end).collect::<Vec<_>>();
    ends.into_iter().map(|end| (end, inside(end))).filter(|(_, rows)| !rows.is_empty()).collect()
}

/// Step by step over the grid, by the formula of the window's page: a session ends at `t` when `t - last > timeout`, or
/// at a multiple of the longest duration that lies at least that long behind its start.
fn session<'r>(rows: &[&'r Row], timeout: i64, max: i64) -> Vec<(i64, Vec<&'r Row>)> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Vec::new() };
    let mut out = Vec::new();
    // start, newest row, rows
    let mut open: Option<(i64, i64, Vec<&Row>)> = None;
    let mut t = first.time;
    while t <= last.time + timeout + max + GRID {
        if let Some((_, newest, content)) = &open
            && t - newest > timeout
        {
            out.push((newest + timeout, content.clone()));
            open = None;
        }
        for row in rows.iter().filter(|r| r.time == t) {
            let (_, newest, content) = open.get_or_insert((t, t, Vec::new()));
            *newest = t;
            content.push(row);
        }
        if let Some((start, _, content)) = &mut open
            && t % max == 0
            && t - *start >= max
        {
            out.push((t, std::mem::take(content)));
            *start = t;
        }
        t += GRID;
    }
    out.retain(|(_, rows)| !rows.is_empty());
    out
}

/// What the query of [`query_of`] gives.
fn expected(kinds: &[(Option<&str>, Kind)], rows: &[Row], having: bool) -> Vec<String> {
    let rows: Vec<&Row> = rows.iter().filter(|r| !r.w.same(Cell::Int(2))).collect();
    let mut out = Vec::new();
    for (id, kind) in kinds {
        let windows: Vec<(i64, Vec<&Row>)> = if kind.is_per_key() {
            by_key(&rows).iter().flat_map(|rows| kind.windows(rows)).collect()
        } else {
            kind.windows(&rows)
        };
        for (end, content) in windows {
            for group in by_key(&content).into_iter().filter(|g| !having || g.len() > 1) {
                let start = [("k", group[0].k.value()), ("id", id.map_or(Value::Null, Value::text))];
                let values = AGGREGATES.iter().map(|(name, _, compute)| (*name, compute(&group)));
                out.push(line(end, start.into_iter().chain(values)));
            }
        }
    }
    out
}

fn query_of(windows: &str, having: bool) -> String {
    let having = if having { "HAVING COUNT(*) > 1" } else { "" };
    format!(
        "SELECT k, System.Window().Id AS id, {} FROM a TIMESTAMP BY t WHERE NOT w = 2 GROUP BY k, {windows} {having}",
        columns(AGGREGATES)
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn a_window_is_what_its_definition_says(
        kind in a_window(),
        events in events(30),
        policies in policies(),
        having in any::<bool>(),
    ) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query = query_of(&kind.text(), having);
        let found = run_events(&query, &options, &events, 1);
        prop_assert!(in_time_order(&found), "{query}\n{found:#?}");
        prop_assert_eq!(
            sorted(found),
            sorted(expected(&[(None, kind)], &rows_of(&events, "a", &policies), having)),
            "{}",
            query
        );
    }

    #[test]
    fn several_windows_are_the_union_of_each(
        kinds in prop::collection::vec(a_window(), 1..4),
        events in events(24),
        policies in policies(),
        named in any::<bool>(),
    ) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let kinds: Vec<_> =
            ["x", "y", "z"].into_iter().zip(kinds).map(|(id, kind)| (named.then_some(id), kind)).collect();
        let member = |(id, kind): &(Option<&str>, Kind)| match id {
            Some(id) => format!("Window('{id}', {})", kind.text()),
            None => kind.text(),
        };
        let query = query_of(&format!("Windows({})", kinds.iter().map(member).collect::<Vec<_>>().join(", ")), false);
        let found = run_events(&query, &options, &events, 1);
        prop_assert!(in_time_order(&found), "{query}\n{found:#?}");
        prop_assert_eq!(sorted(found), sorted(expected(&kinds, &rows_of(&events, "a", &policies), false)), "{}", query);
    }

    /// One timeline and one watermark a key.
    #[test]
    fn substreams_have_windows_of_their_own(kind in a_window(), events in events(30), policies in policies()) {
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let query = query_of(&kind.text(), false).replace("TIMESTAMP BY t", "TIMESTAMP BY t OVER k");
        let lane =
            |e: &Event| (!e.k.is_null()).then(|| e.k.number().map_or_else(|| "text".to_owned(), |n| n.to_string()));
        let rows = accepted(&events, "a", &policies, 1, lane);
        // of an event without a key nothing is left but its count
        let keyed: Vec<Event> = events.iter().copied().filter(|e| !e.k.is_null()).collect();
        let found = run_events(&query, &options, &keyed, 1);
        let each: Vec<String> = by_key(&rows.iter().collect::<Vec<_>>())
            .iter()
            .flat_map(|rows| expected(&[(None, kind.clone())], &rows.iter().map(|r| **r).collect::<Vec<_>>(), false))
            .collect();
        prop_assert_eq!(sorted(found), sorted(each), "{}", query);
    }
}
