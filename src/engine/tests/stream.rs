//! Random streams, and what the time policies leave of them, written from the rules of the language alone.
//!
//! In: choices of proptest. Out: events to push, and the rows that temporal operators see of them. Invariant: nothing
//! here calls the engine's own code but to run a query. Not here: what a query gives (one file a kind of operator).

use super::*;

/// All times lie on this grid, so that rows fall on the ends of windows often.
pub(super) const GRID: i64 = SECOND / 2;

/// A field as it stands in the payload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell {
    Missing,
    Null,
    Int(i64),
    Float(f64),
    Text(&'static str),
}

impl Cell {
    pub(super) fn is_null(self) -> bool {
        matches!(self, Cell::Missing | Cell::Null)
    }

    pub(super) fn number(self) -> Option<f64> {
        match self {
            Cell::Int(n) => Some(n as f64),
            Cell::Float(f) => Some(f),
            _ => None,
        }
    }

    /// Equal as a key: NULL is one key, numbers count by value.
    pub(super) fn same(self, other: Cell) -> bool {
        match (self, other) {
            (Cell::Text(a), Cell::Text(b)) => a == b,
            _ => self.is_null() && other.is_null() || self.number().is_some() && self.number() == other.number(),
        }
    }

    /// Whether `self > n` holds; with NULL no comparison does.
    pub(super) fn above(self, n: f64) -> bool {
        self.number().is_some_and(|x| x > n)
    }

    pub(super) fn value(self) -> Value {
        match self {
            Cell::Missing | Cell::Null => Value::Null,
            Cell::Int(n) => Value::BigInt(n),
            Cell::Float(f) => Value::Float(f),
            Cell::Text(t) => Value::text(t),
        }
    }

    fn json(self, name: &str) -> String {
        match self {
            Cell::Missing => String::new(),
            Cell::Null => format!(",\"{name}\":null"),
            Cell::Int(n) => format!(",\"{name}\":{n}"),
            Cell::Float(f) => format!(",\"{name}\":{f:?}"),
            Cell::Text(t) => format!(",\"{name}\":\"{t}\""),
        }
    }
}

/// Keys that meet: 1 and 1.0 are one, the text is another, NULL is a third.
pub(super) fn a_key() -> impl Strategy<Value = Cell> {
    prop_oneof![
        4 => (0i64..3).prop_map(Cell::Int),
        1 => Just(Cell::Float(1.0)),
        1 => Just(Cell::Text("1")),
        1 => Just(Cell::Null),
        1 => Just(Cell::Missing),
    ]
}

pub(super) fn a_number() -> impl Strategy<Value = Cell> {
    prop_oneof![
        5 => (-3i64..5).prop_map(Cell::Int),
        2 => prop::sample::select(vec![-2.5, -0.0, 0.5, 1.0, 2.0, 3.75]).prop_map(Cell::Float),
        1 => Just(Cell::Null),
        1 => Just(Cell::Missing),
    ]
}

/// An event as it is sent. Times are counted in steps of the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub input: &'static str,
    pub arrival: i64,
    pub time: i64,
    pub k: Cell,
    pub v: Cell,
    pub w: Cell,
}

/// Streams on two inputs with pauses, ties, late and early ones.
pub(super) fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let pause = prop_oneof![6 => 0i64..4, 1 => 8i64..30];
    let age = prop_oneof![8 => 0i64..3, 4 => 0i64..14, 1 => Just(-3), 1 => prop::sample::select(vec![-600, -601])];
    let one = (prop::bool::ANY, pause, age, a_key(), a_number(), a_number());
    prop::collection::vec(one, 0..most).prop_map(|sent| {
        let mut arrival = 200;
        let each = |(first, pause, age, k, v, w): (bool, i64, i64, Cell, Cell, Cell)| {
            arrival += pause;
            Event { input: if first { "a" } else { "b" }, arrival, time: arrival - age, k, v, w }
        };
        sent.into_iter().map(each).collect()
    })
}

/// `policies` in steps of the grid.
pub(super) fn policies() -> impl Strategy<Value = TimePolicies> {
    let late = prop_oneof![Just(None), Just(Some(0)), Just(Some(4)), Just(Some(10))];
    (late, prop::sample::select(vec![0i64, 1, 3, 6]), prop::bool::ANY).prop_map(|(late, out_of_order, adjust)| {
        TimePolicies {
            late_tolerance: late.map(|l: i64| l * GRID),
            out_of_order: out_of_order * GRID,
            adjust,
            ..TimePolicies::default()
        }
    })
}

/// What a temporal operator sees of an event. The time is in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub time: i64,
    pub offset: usize,
    pub k: Cell,
    pub v: Cell,
    pub w: Cell,
}

/// A step of the grid in ticks; `grain` stretches time where a query counts in larger units.
pub(super) fn ticks(steps: i64, grain: i64) -> i64 {
    at(0).ticks() + steps * GRID * grain
}

/// The rows of one input after the rules for early, late and out-of-order events, in the order of their times. `lane`
/// tells which timeline of a substream an event belongs to; `None` drops it.
pub(super) fn accepted<L: PartialEq>(
    events: &[Event],
    input: &str,
    policies: &TimePolicies,
    grain: i64,
    lane: impl Fn(&Event) -> Option<L>,
) -> Vec<Row> {
    let mut newest: Vec<(L, i64)> = Vec::new();
    let mut rows = Vec::new();
    for (offset, event) in events.iter().enumerate().filter(|(_, e)| e.input == input) {
        let arrival = ticks(event.arrival, grain);
        let mut time = ticks(event.time, grain);
        if policies.early_limit.is_some_and(|limit| time - arrival > limit) {
            continue;
        }
        if let Some(late) = policies.late_tolerance
            && arrival - time > late
        {
            if !policies.adjust {
                continue;
            }
            time = arrival - late;
        }
        let Some(key) = lane(event) else { continue };
        let place = match newest.iter().position(|(known, _)| *known == key) {
            Some(place) => place,
            None => {
                newest.push((key, i64::MIN));
                newest.len() - 1
            }
        };
        let mark = newest[place].1.saturating_sub(policies.out_of_order);
        if time < mark {
            if !policies.adjust {
                continue;
            }
            time = mark;
        }
        newest[place].1 = newest[place].1.max(time);
        rows.push(Row { time, offset, k: event.k, v: event.v, w: event.w });
    }
    rows.sort_by_key(|row| (row.time, row.offset));
    rows
}

/// One timeline for the whole input.
pub(super) fn rows_of(events: &[Event], input: &str, policies: &TimePolicies) -> Vec<Row> {
    accepted(events, input, policies, 1, |_| Some(()))
}

pub(super) fn raw_event(event: &Event, grain: i64) -> RawEvent {
    let moment = |steps| Timestamp::from_ticks(ticks(steps, grain)).unwrap();
    let fields = [("k", event.k), ("v", event.v), ("w", event.w)].map(|(name, cell)| cell.json(name)).concat();
    let payload = format!("{{\"t\":\"{}\"{fields}}}", moment(event.time));
    RawEvent { arrival: moment(event.arrival), payload: payload.into(), message: Arc::default(), mark: 0 }
}

/// Runs a query over the events. Each row as `time name=value …`, in the order of the output.
pub(super) fn run_events(query: &str, options: &ExecutorOptions, events: &[Event], grain: i64) -> Vec<String> {
    let part = &parts(query)[0];
    let mut executor = Executor::new(part, options.clone(), Some(half())).unwrap();
    for (offset, event) in (0..).zip(events) {
        executor.push_events(event.input, offset, &[raw_event(event, grain)]);
    }
    executor.finish();
    let emitted = executor.take();
    assert!(emitted.failures.is_empty() && emitted.stopped.is_none(), "{:?}", emitted.failures);
    let names: Vec<&str> = emitted.rows.columns.iter().map(|c| c.name.as_str()).collect();
    emitted
        .rows
        .batch
        .rows()
        .map(|(meta, row)| line(meta.time.ticks(), names.iter().copied().zip(row.iter().cloned())))
        .collect()
}

/// A row as text in which numbers of nearly equal value look equal.
pub(super) fn line<'a>(time: i64, columns: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let columns: Vec<String> = columns.into_iter().map(|(name, value)| format!("{name}={}", shown(&value))).collect();
    format!("{} {}", Timestamp::saturating_from_ticks(time), columns.join(" "))
}

fn shown(value: &Value) -> String {
    // moved off the numbers that lie just between two texts, such as 0.921875: halves of whole numbers give many of
    // them
    let number = |f: f64| format!("{:.5}", f + 3.7e-7);
    match value {
        Value::BigInt(n) => number(*n as f64),
        Value::Float(f) => number(*f),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Record(record) => {
            format!(
                "{{{}}}",
                record.iter().map(|(name, value)| format!("{name}:{}", shown(value))).collect::<Vec<_>>().join(",")
            )
        }
        other => other.to_json(),
    }
}

/// The same lines, in an order of their own: rows of one moment may come in any.
pub(super) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Whether rows come in the order of their times (each line begins with it).
pub(super) fn in_time_order(lines: &[String]) -> bool {
    lines.is_sorted_by_key(|line| line.split(' ').next().map(str::to_owned))
}
