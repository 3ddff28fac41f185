//! How far a part is in event time, told to the part behind it.
//!
//! Invariant: a mark is set only after everything up to it can be read. Not here: watermarks inside a part (`engine`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Timestamp;

/// A watermark, in the era of arrival time that it belongs to: a later era is further, whatever its times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EraTime {
    pub era: u32,
    pub time: Timestamp,
}

/// A watermark that only rises; `None` before anything is known.
#[derive(Clone, Debug, Default)]
pub struct Mark(Arc<Mutex<Option<EraTime>>>);

impl Mark {
    pub fn set(&self, to: Option<EraTime>) {
        let mut reached = self.lock();
        *reached = to.max(*reached);
    }

    pub fn get(&self) -> Option<EraTime> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<EraTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
