//! Waiting for room.
//!
//! In: a batch that cannot be handed over, or too much that is not stored yet. Out: room, or why the connection ends.
//! Invariant: the broker hears from us in time, or not at all any more. Not here: what happens then.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{End, Link, Receiver};
use crate::mqtt::Trouble;
use crate::source::Arrivals;
use crate::source::stats::add;

/// Where outputs use the connection it is not kept still for longer while nothing is stored, as what they wait for
/// comes by it too. A commit on a slow card takes a second or two.
const STILL_MAX: Duration = Duration::from_secs(3);

impl Receiver {
    /// Reads nothing until half of the allowance is free, so that the network holds the broker back. The broker must
    /// still hear from us in time, so after half a keep-alive the connection is given up, unacknowledged. Where outputs
    /// use it, it is given up after [`STILL_MAX`] in which nothing was stored too, and when one of them wants it.
    pub(super) async fn wait_for_room(
        &self,
        out: &mpsc::Sender<Arrivals>,
        link: &Link,
        arrivals: &mut Option<Arrivals>,
    ) -> Option<End> {
        add(&self.stats.stalls, 1);
        let enough = async {
            if let Some(waiting) = arrivals.take() {
                match out.reserve().await {
                    Ok(permit) => permit.send(waiting),
                    Err(_) => return Some(End::Unwanted),
                }
            }
            link.room(self.config.unacked_bytes_max / 2).await;
            None
        };
        let nothing_is_stored = async {
            loop {
                let before = link.bytes();
                tokio::time::sleep(STILL_MAX).await;
                if self.line.is_borrowed() && link.bytes() >= before {
                    return;
                }
            }
        };
        tokio::select! {
            end = enough => end,
            () = tokio::time::sleep(self.broker.config.keep_alive / 2) => Some(End::Stalled),
            () = nothing_is_stored => Some(End::Stalled),
            why = self.line.unwanted(), if self.line.is_borrowed() => {
                Some(End::Lost(Trouble { is_ours: true, ..Trouble::new(why) }))
            }
            () = self.stop.cancelled() => None,
        }
    }
}
