//! The tick by which calls are timed.
//!
//! In: nothing. Out: the engine's epoch goes up every 10 ms while a call runs. Invariant: the thread ends with the last
//! clone of its engine, and sleeps without waking while no function is called: an idle gateway stays idle. Not here:
//! what a call's deadline is (`instance`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

use crate::time;

/// One tick. Shorter costs wake-ups, longer makes deadlines coarse.
pub const TICK: Duration = Duration::from_millis(10);

/// Some three centuries: wasmtime adds it to the ticks so far, which must not overflow.
const TICKS_MAX: u64 = 1 << 40;

#[derive(Debug)]
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// calls under way
    active: AtomicUsize,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Keeps the tick going while it lives.
#[derive(Debug)]
pub struct Ticking<'a>(&'a Shared);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let handle = std::thread::Builder::new().name("udf-ticker".into()).spawn(move || run(&theirs, &engine))?;
        Ok(Ticker { thread: handle.thread().clone(), shared })
    }

    /// Marks a call as under way.
    pub fn call(&self) -> Ticking<'_> {
        // both sides write their own flag first and read the other's second, so one of them sees the other
        self.shared.active.fetch_add(1, Ordering::SeqCst);
        // looked at first: writing it for every call costs more than the rest of this
        if self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(&self.shared)
    }

    /// Ticks to allow so that a call gets at least `timeout`: the one under way may be nearly over.
    pub fn ticks(timeout: Duration) -> u64 {
        let ticks = u64::try_from(timeout.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(TICKS_MAX);
        ticks.min(TICKS_MAX) + 1
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn run(shared: &Shared, engine: &EngineWeak) {
    while !shared.stop.load(Ordering::SeqCst) {
        time::pause(TICK);
        if shared.active.load(Ordering::SeqCst) > 0 {
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            continue;
        }
        shared.parked.store(true, Ordering::SeqCst);
        if shared.active.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
            // returns at once when `call` or `drop` came first; waking for nothing only costs a round
            std::thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_gets_at_least_its_time() {
        for (ms, ticks) in [(0, 1), (1, 2), (10, 2), (100, 11), (101, 12)] {
            assert_eq!(Ticker::ticks(Duration::from_millis(ms)), ticks, "{ms} ms");
        }
        assert_eq!(Ticker::ticks(Duration::MAX), TICKS_MAX + 1);
    }

    #[test]
    fn the_thread_wakes_for_a_call_and_ends_with_its_engine() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        for _ in 0..3 {
            while !ticker.shared.parked.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(ticker.call());
        }
        drop(ticker);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
