//! Waiting for room.
//!
//! In: a batch that cannot be handed over, or too much that is not stored yet. Out: room, or why the connection ends.
//! Invariant: nothing is read from the network meanwhile, and acknowledgements leave; the broker hears from us in time,
//! or not at all any more. Not here: what happens then.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{End, HandOver, Link, Receiver};
use crate::source::Arrivals;
use crate::source::stats::add;

/// Where outputs use the connection it is not kept still for longer while nothing is stored, as what they wait for
/// comes by it too. A commit on a slow card takes a second or two.
const STILL_MAX: Duration = Duration::from_secs(3);

/// What a connection has read.
#[derive(Default)]
pub(super) struct TakenIn {
    /// Nothing that comes is taken.
    pub is_deaf: bool,
    /// Not handed over yet.
    pub batch: HandOver,
    /// Nothing more is read before.
    pub room: Option<AwaitedRoom>,
}

/// Waits until there is room, or the input stops; else gives how the connection ends.
pub(super) type AwaitedRoom = Pin<Box<dyn Future<Output = Option<End>> + Send>>;

impl Receiver {
    /// Reads nothing until half of the allowance is free, so that the network holds the broker back. The broker must
    /// still hear from us in time, so after half a keep-alive the connection is given up, unacknowledged. Where outputs
    /// use it, it is given up after [`STILL_MAX`] in which nothing was stored too.
    pub(super) fn room(
        &self,
        out: mpsc::Sender<Arrivals>,
        link: &Arc<Link>,
        arrivals: Option<Arrivals>,
    ) -> AwaitedRoom {
        add(&self.stats.stalls, 1);
        link.read_nothing();
        let (link, line, stop) = (link.clone(), self.line.clone(), self.stop.clone());
        let (bytes_max, still_max) = (self.config.unacked_bytes_max / 2, self.broker.config.keep_alive / 2);
        Box::pin(async move {
            let enough = async {
                if let Some(waiting) = arrivals {
                    match out.reserve().await {
                        Ok(permit) => permit.send(waiting),
                        Err(_) => return Some(End::Unwanted),
                    }
                }
                link.room(bytes_max).await;
                None
            };
            let nothing_is_stored = async {
                loop {
                    let before = link.bytes();
                    tokio::time::sleep(STILL_MAX).await;
                    if line.is_borrowed() && link.bytes() >= before {
                        return;
                    }
                }
            };
            tokio::select! {
                end = enough => end,
                () = tokio::time::sleep(still_max) => Some(End::Stalled),
                () = nothing_is_stored => Some(End::Stalled),
                () = stop.cancelled() => None,
            }
        })
    }
}

impl Receiver {
    /// The connection ended: what was read is still stored, if there is room in time.
    pub(super) async fn hand_over_last(&self, link: &Arc<Link>, reading: &mut TakenIn) {
        let mut room = reading.room.take();
        loop {
            let is_there = match room {
                Some(room) => room.await.is_none(),
                None => true,
            };
            room = self.hand_over(link, &mut reading.batch).ok().flatten().filter(|_| is_there);
            if room.is_none() {
                return;
            }
        }
    }
}

/// Waits for the room that is waited for; for ever where there is enough.
pub(super) async fn found(room: &mut Option<AwaitedRoom>) -> Option<End> {
    match room {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
