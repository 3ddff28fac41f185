//! How far a part is in event time, told to the part behind it.
//!
//! Invariant: a mark is set only after everything up to it can be read. Not here: watermarks inside a part (`engine`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::time::Timestamp;

/// A watermark that only rises.
#[derive(Clone, Debug)]
pub struct Mark(Arc<AtomicI64>);

/// Nothing is known yet.
const UNKNOWN: i64 = -1;

impl Default for Mark {
    fn default() -> Mark {
        Mark(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl Mark {
    pub fn set(&self, to: Option<Timestamp>) {
        if let Some(to) = to {
            self.0.fetch_max(to.ticks(), Ordering::AcqRel);
        }
    }

    pub fn get(&self) -> Option<Timestamp> {
        Timestamp::from_ticks(self.0.load(Ordering::Acquire))
    }
}
