//! Aggregates for the tests: see the WIT.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI64, Ordering};

wit_bindgen::generate!({ path: "wit" });

use exports::forebay::trails::trails;

struct Component;

/// The values, in the order in which they came.
#[derive(Default)]
struct Values(RefCell<Vec<i64>>);

impl Values {
    fn enter(&self, x: i64) {
        self.0.borrow_mut().push(x);
    }

    /// Rows leave oldest first, so the first of the trail must be it.
    fn leave(&self, x: i64) {
        assert_eq!(self.0.borrow_mut().remove(0), x);
    }

    fn all(&self) -> Vec<i64> {
        self.0.borrow().clone()
    }

    fn append(&self, later: &Values) {
        self.0.borrow_mut().extend(later.all());
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.borrow().iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn read(state: &[u8]) -> Values {
        Values(RefCell::new(state.as_chunks::<8>().0.iter().map(|x| i64::from_le_bytes(*x)).collect()))
    }
}

#[derive(Default)]
struct Trail(Values);

impl trails::GuestTrail for Trail {
    fn new() -> Trail {
        Trail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }
}

#[derive(Default)]
struct SavingTrail(Values);

impl trails::GuestSavingTrail for SavingTrail {
    fn new() -> SavingTrail {
        SavingTrail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }

    fn save(&self) -> Vec<u8> {
        self.0.bytes()
    }

    fn restore(state: Vec<u8>) -> trails::SavingTrail {
        trails::SavingTrail::new(SavingTrail(Values::read(&state)))
    }
}

#[derive(Default)]
struct ReversingTrail(Values);

impl trails::GuestReversingTrail for ReversingTrail {
    fn new() -> ReversingTrail {
        ReversingTrail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn deaccumulate(&self, x: i64) {
        self.0.leave(x);
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }
}

#[derive(Default)]
struct MergingTrail(Values);

impl trails::GuestMergingTrail for MergingTrail {
    fn new() -> MergingTrail {
        MergingTrail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn merge(&self, other: trails::MergingTrailBorrow<'_>) {
        self.0.append(&other.get::<MergingTrail>().0);
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }
}

#[derive(Default)]
struct FullTrail(Values);

impl trails::GuestFullTrail for FullTrail {
    fn new() -> FullTrail {
        FullTrail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn deaccumulate(&self, x: i64) {
        self.0.leave(x);
    }

    fn merge(&self, other: trails::FullTrailBorrow<'_>) {
        self.0.append(&other.get::<FullTrail>().0);
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }

    fn save(&self) -> Vec<u8> {
        self.0.bytes()
    }

    fn restore(state: Vec<u8>) -> trails::FullTrail {
        trails::FullTrail::new(FullTrail(Values::read(&state)))
    }
}

#[derive(Default)]
struct StubbornTrail(Values);

impl trails::GuestStubbornTrail for StubbornTrail {
    fn new() -> StubbornTrail {
        StubbornTrail::default()
    }

    fn accumulate(&self, x: i64) {
        self.0.enter(x);
    }

    fn deaccumulate(&self, x: i64) -> Result<(), String> {
        assert!(x % 2 == 0);
        Err("not this one".to_owned())
    }

    fn compute(&self) -> Vec<i64> {
        self.0.all()
    }

    fn save(&self) -> Vec<u8> {
        panic!("there is no saving")
    }

    fn restore(_: Vec<u8>) -> trails::StubbornTrail {
        panic!("there is nothing to restore")
    }
}

/// Rows that this instance was given by fragile trails.
static ROWS: AtomicI64 = AtomicI64::new(0);

fn fragile(values: &Values, x: i64) -> Result<(), String> {
    match x {
        13 => panic!("thirteen"),
        // the value stays in: what an err leaves behind must not be seen
        14 => values.enter(x),
        15 => loop {
            std::hint::spin_loop();
        },
        _ => values.enter(x),
    }
    if x == 14 { Err("fourteen".to_owned()) } else { Ok(()) }
}

fn fragile_value(values: &Values) -> Result<Vec<i64>, String> {
    let all = values.all();
    assert!(!all.contains(&17));
    if all.contains(&16) { Err("sixteen".to_owned()) } else { Ok(all) }
}

#[derive(Default)]
struct FragileTrail(Values);

impl trails::GuestFragileTrail for FragileTrail {
    fn new() -> FragileTrail {
        FragileTrail::default()
    }

    fn accumulate(&self, x: i64) -> Result<(), String> {
        assert!(ROWS.fetch_add(1, Ordering::Relaxed) % 40 != 39);
        fragile(&self.0, x)
    }

    fn compute(&self) -> Result<Vec<i64>, String> {
        fragile_value(&self.0)
    }

    fn save(&self) -> Vec<u8> {
        self.0.bytes()
    }

    fn restore(state: Vec<u8>) -> trails::FragileTrail {
        trails::FragileTrail::new(FragileTrail(Values::read(&state)))
    }
}

#[derive(Default)]
struct BrittleTrail(Values);

impl trails::GuestBrittleTrail for BrittleTrail {
    fn new() -> BrittleTrail {
        BrittleTrail::default()
    }

    fn accumulate(&self, x: i64) -> Result<(), String> {
        fragile(&self.0, x)
    }

    fn compute(&self) -> Result<Vec<i64>, String> {
        fragile_value(&self.0)
    }
}

#[derive(Default)]
struct TimeSpan(Cell<Option<(i64, i64)>>);

impl trails::GuestTimeSpan for TimeSpan {
    fn new() -> TimeSpan {
        TimeSpan::default()
    }

    fn accumulate(&self, at: trails::Datetime) {
        let at = at.ticks_since_year_one;
        self.0.set(Some(self.0.get().map_or((at, at), |(first, _)| (first, at))));
    }

    fn compute(&self) -> Option<i64> {
        self.0.get().map(|(first, last)| last - first)
    }
}

#[derive(Default)]
struct AnyTrail(RefCell<Vec<String>>);

impl trails::GuestAnyTrail for AnyTrail {
    fn new() -> AnyTrail {
        AnyTrail::default()
    }

    fn accumulate(&self, x: Option<trails::Json>) {
        self.0.borrow_mut().push(x.map_or_else(|| "null".to_owned(), |x| x.json_text));
    }

    fn compute(&self) -> trails::Json {
        trails::Json { json_text: format!("[{}]", self.0.borrow().join(",")) }
    }
}

static CALLS: AtomicI64 = AtomicI64::new(0);

struct CallCount;

impl trails::GuestCallCount for CallCount {
    fn new() -> CallCount {
        CallCount
    }

    fn accumulate(&self, _: i64) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }

    fn deaccumulate(&self, _: i64) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }

    fn compute(&self) -> i64 {
        CALLS.load(Ordering::Relaxed)
    }
}

impl trails::Guest for Component {
    type Trail = Trail;
    type SavingTrail = SavingTrail;
    type ReversingTrail = ReversingTrail;
    type MergingTrail = MergingTrail;
    type FullTrail = FullTrail;
    type StubbornTrail = StubbornTrail;
    type FragileTrail = FragileTrail;
    type BrittleTrail = BrittleTrail;
    type TimeSpan = TimeSpan;
    type AnyTrail = AnyTrail;
    type CallCount = CallCount;
}

export!(Component);
