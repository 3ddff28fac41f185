//! What tells the threads of a job to stop, and naps that end with it.
//!
//! Invariant: once set it stays set, and every nap ends at once. Not here: what has to be finished before stopping.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::time::Clock;

/// Shared by all threads of a running job.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Asks everybody to stop.
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, but not past the word to stop; answers whether it was given.
    pub fn sleep(&self, pause: Duration) -> bool {
        let end = Clock::Real.monotonic() + pause;
        let mut set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            let left = end.saturating_duration_since(Clock::Real.monotonic());
            if left.is_zero() {
                return false;
            }
            set = self.0.1.wait_timeout(set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
