//! How much state the statements of a job may hold together.
//!
//! In: what each part holds, told after every step. Out: whether intake and consumption have to wait, and the words for
//! it. Invariant: at seven eighths of the budget intake stops, so that messages stay with the broker; at the whole of
//! it, or [`RESERVE`] beyond the seven eighths if that is more, consumers stop reading. What lies between is for what
//! was stored already: once it has been read, time passes for the windows, which close and let go. Intake goes on below
//! three quarters. Not here: counting (`engine`).

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use smol_str::SmolStr;

/// At least so much is left for what was stored when intake stopped: some thousand records, each a group of its own.
/// Were they never read, time could not pass them, and no window would close.
const RESERVE: u64 = 4 << 20;

/// What the parts of a job hold, against the budget.
#[derive(Debug)]
pub struct StateBudget {
    max: u64,
    held: Mutex<Holdings>,
    /// Intake may go on.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Holdings {
    parts: Vec<(SmolStr, u64)>,
    used: u64,
    tight: bool,
    /// The job stops: what was received is stored whatever is held.
    released: bool,
}

/// One part's place in the budget: given back when the part ends, however it ends.
#[derive(Debug)]
pub struct Share {
    budget: Arc<StateBudget>,
    place: usize,
}

impl Share {
    /// The part holds this many bytes now; answers whether it may read on.
    pub fn tell(&self, bytes: usize) -> bool {
        self.budget.tell(self.place, bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.tell(self.place, 0);
    }
}

impl StateBudget {
    pub fn new(max: u64) -> StateBudget {
        StateBudget { max, held: Mutex::default(), room: Condvar::new() }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Holdings> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a part, by the name it has in messages and metrics.
    pub fn share(self: &Arc<Self>, name: SmolStr) -> Share {
        let mut held = self.held();
        held.parts.push((name, 0));
        Share { budget: self.clone(), place: held.parts.len() - 1 }
    }

    fn tell(&self, place: usize, bytes: usize) -> bool {
        let mut held = self.held();
        let Some((_, known)) = held.parts.get_mut(place) else { return true };
        let before = std::mem::replace(known, bytes as u64);
        held.used = (held.used + bytes as u64).saturating_sub(before);
        let used = held.used;
        if !held.tight && used >= self.max / 8 * 7 {
            held.tight = true;
            tracing::warn!("{}", self.words(&held));
        } else if held.tight && used < self.max / 4 * 3 {
            held.tight = false;
            tracing::info!(state_bytes = used, "state has shrunk: intake goes on");
            self.room.notify_all();
        }
        used < self.max.max(self.max / 8 * 7 + RESERVE)
    }

    /// Whether state is small enough to take more in, or nobody waits for that any more.
    pub fn has_room(&self) -> bool {
        let held = self.held();
        !held.tight || held.released
    }

    /// Waits while state is too large to take more in.
    pub fn wait_for_room(&self) {
        let mut held = self.held();
        while held.tight && !held.released {
            held = self.room.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The job stops: nobody waits any more.
    pub fn release(&self) {
        self.held().released = true;
        self.room.notify_all();
    }

    /// What is wrong, while intake waits.
    pub fn alarm(&self) -> Option<String> {
        let held = self.held();
        held.tight.then(|| self.words(&held))
    }

    fn words(&self, held: &Holdings) -> String {
        let largest = held.parts.iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(name, _)| name.as_str());
        format!(
            "statements hold {} of the {} KiB of state they may, most of it {largest}: intake waits until windows \
            close; raise state_bytes_max in [job], or let windows be shorter and keys fewer",
            held.used >> 10,
            self.max >> 10
        )
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// What each part holds.
    pub fn parts(&self) -> Vec<(SmolStr, u64)> {
        self.held().parts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intake_waits_before_consumption_does_and_goes_on_later() {
        const MIB: usize = 1 << 20;
        let budget = Arc::new(StateBudget::new(80 << 20));
        let (a, b) = (budget.share("a".into()), budget.share("b".into()));
        assert!(a.tell(50 * MIB) && budget.alarm().is_none());
        assert!(b.tell(20 * MIB), "stored events are still read");
        let alarm = budget.alarm().unwrap();
        assert!(
            alarm.starts_with("statements hold 71680 of the 81920 KiB of state they may, most of it a: intake waits"),
            "{alarm}"
        );
        assert!(!b.tell(30 * MIB));
        assert!(b.tell(15 * MIB) && budget.alarm().is_some(), "not before it is below three quarters");
        assert!(a.tell(40 * MIB) && budget.alarm().is_none());
        budget.wait_for_room();
        assert_eq!(budget.parts(), [("a".into(), 40 << 20), ("b".into(), 15 << 20)]);
        a.tell(90 * MIB);
        budget.release();
        budget.wait_for_room();
    }

    #[test]
    fn a_part_that_has_ended_holds_nothing() {
        let budget = Arc::new(StateBudget::new(80 << 20));
        let share = budget.share("a".into());
        share.tell(100 << 20);
        assert!(budget.alarm().is_some());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _share = share;
            panic!("a fault in the part");
        }));
        assert!(panicked.is_err() && budget.alarm().is_none());
        assert_eq!(budget.parts(), [("a".into(), 0)]);
        budget.wait_for_room();
    }
}
