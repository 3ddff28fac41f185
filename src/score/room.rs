//! Room for rows that are on their way through an endpoint.
//!
//! In: how many rows and bytes somebody wants to hand in. Out: a place for them, when there is one. Invariant: what is
//! under way, answered or not, stays within what the settings allow and within a bound of bytes; whoever wants more
//! than there is waits until nobody else holds any. Not here: what is sent when (`desk`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes of rows under way for one function, unless its settings need more: what a gateway can spare while the endpoint
/// is away for hours.
const BYTES_MIN: usize = 8 << 20;
/// The most that they can ask for.
pub const BYTES_MAX: usize = 64 << 20;
/// What a row counts at least: its value, its text, its place in a batch and in its chunk.
pub const ROW_BYTES_MIN: usize = 256;
/// Bytes a permit stands for, so that the count of permits stays within 32 bits.
const PERMIT_BYTES: usize = 64;
/// Rows that may be under way for each row that may be in a request: one request is out while the next one fills.
const ROWS_PER_ROW: usize = 2;

/// The most rows that requests may hold together: more would not fit into [`BYTES_MAX`].
pub const ROWS_MAX: usize = BYTES_MAX / ROW_BYTES_MIN / ROWS_PER_ROW;

#[derive(Clone, Debug)]
pub struct Room {
    rows: Arc<Semaphore>,
    rows_max: usize,
    bytes: Arc<Semaphore>,
    permits_max: usize,
    left: Arc<Leaving>,
}

/// A place for some rows, given back when it is dropped.
#[derive(Debug)]
pub struct Berth {
    rows: OwnedSemaphorePermit,
    rows_max: usize,
    bytes: OwnedSemaphorePermit,
    permits_max: usize,
    left: Arc<Leaving>,
}

impl Berth {
    /// Whether more than half of all places are taken.
    pub fn is_scarce(&self) -> bool {
        let is_short = |left: &OwnedSemaphorePermit, max: usize| left.semaphore().available_permits() < max / 2;
        is_short(&self.rows, self.rows_max) || is_short(&self.bytes, self.permits_max)
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        // the count of holders was lowered before: whoever looks at it behind its wish sees that, or we see the wish
        fence(Ordering::SeqCst);
        if self.left.is_awaited.swap(false, Ordering::AcqRel) {
            self.left.notify.notify_one();
        }
    }
}

/// Tells that places are given back, to who waits for that.
#[derive(Debug, Default)]
pub struct Leaving {
    is_awaited: AtomicBool,
    notify: Notify,
}

impl Leaving {
    /// From now on [`Leaving::next`] ends when a place is given back.
    pub fn begin_to_wait(&self) {
        self.is_awaited.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    pub async fn next(&self) {
        self.notify.notified().await;
    }
}

impl Room {
    /// Room for `parallel` requests of `batch` rows, and as many rows that wait.
    pub fn new(batch: usize, parallel: usize) -> Room {
        let rows_max =
            batch.saturating_mul(parallel).saturating_mul(ROWS_PER_ROW).clamp(ROWS_PER_ROW, ROWS_MAX * ROWS_PER_ROW);
        let bytes_max = (rows_max * ROW_BYTES_MIN).clamp(BYTES_MIN, BYTES_MAX);
        let permits_max = bytes_max / PERMIT_BYTES;
        Room {
            rows: Arc::new(Semaphore::new(rows_max)),
            rows_max,
            bytes: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            left: Arc::default(),
        }
    }

    /// As large, and empty.
    pub fn another(&self) -> Room {
        Room {
            rows: Arc::new(Semaphore::new(self.rows_max)),
            rows_max: self.rows_max,
            bytes: Arc::new(Semaphore::new(self.permits_max)),
            permits_max: self.permits_max,
            left: self.left.clone(),
        }
    }

    /// Tells of places given back here and in all that were made from this.
    pub fn left(&self) -> Arc<Leaving> {
        self.left.clone()
    }

    /// Waits for a place; `None` when the room was closed.
    pub async fn hold(&self, rows: usize, bytes: usize) -> Option<Berth> {
        let permits = |wanted: usize, max: usize| u32::try_from(wanted.clamp(1, max)).unwrap_or(u32::MAX);
        let bytes = bytes.max(rows * ROW_BYTES_MIN) / PERMIT_BYTES;
        let rows = self.rows.clone().acquire_many_owned(permits(rows, self.rows_max)).await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(permits(bytes, self.permits_max)).await.ok()?;
        Some(Berth { rows, rows_max: self.rows_max, bytes, permits_max: self.permits_max, left: self.left.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn free(room: &Room) -> (usize, usize) {
        (room.rows.available_permits(), room.bytes.available_permits() * PERMIT_BYTES)
    }

    #[tokio::test]
    async fn two_rows_for_each_that_may_be_in_a_request_and_8_mib_or_what_they_need() {
        let room = Room::new(1000, 20);
        assert_eq!(free(&room), (40_000, 40_000 * 256));
        let held = room.hold(1000, 10).await.unwrap();
        assert_eq!(free(&room), (39_000, 39_000 * 256));
        drop(held);
        assert_eq!(free(&room), (40_000, 40_000 * 256));
        assert_eq!(free(&Room::new(10_000, 13)), (260_000, 260_000 * 256), "the settings need more");
        assert_eq!(free(&Room::new(10_000, 256)), (262_144, 64 << 20), "but never more than this");
    }

    #[tokio::test]
    async fn who_wants_more_than_all_waits_until_it_is_alone() {
        let room = Room::new(2, 1);
        let first = room.hold(1, 100).await.unwrap();
        let mut all = Box::pin(room.hold(1_000, 1 << 30));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(all.as_mut().poll(&mut cx).is_pending());
        drop(first);
        let all = all.await.unwrap();
        assert_eq!(free(&room), (0, 0));
        drop(all);
        assert_eq!(free(&room), (4, 8 << 20));
    }
}
