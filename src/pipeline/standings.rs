//! Where each consumer of a running job stands, and whether something keeps it from going on.
//!
//! In: the stages, as they are now. Out: a [`ConsumerStanding`] for each consumer. Invariant: what keeps a consumer is
//! something that `/readyz` tells. Not here: for how long (`stalls`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::report::WatchedStages;
use super::stalls::{ConsumerNeed, ConsumerStanding};
use crate::score::State;
use crate::time::Clock;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks until it is cancelled.
pub async fn watch(stages: Arc<WatchedStages>, clock: Clock, ended: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while ended.run_until_cancelled(ticks.tick()).await.is_some() {
        stages.stalls.look(clock.monotonic(), standings(&stages));
    }
}

/// Of all consumers.
fn standings(watched: &WatchedStages) -> Vec<ConsumerStanding> {
    let (journal, health) = (&watched.journal, &watched.health);
    let stopped = health.stopped_parts();
    // a statement ends whole: the parts of one that stopped have their own reason
    let statement = |name: &str| name.split(' ').nth(1).and_then(|name| name.split('/').next()).map(str::to_owned);
    let is_stopped = |consumer: &str| stopped.iter().any(|who| statement(who) == statement(consumer));
    // while the pool is full, rows wait for a stream whose reader has still something to read
    let all_wait = journal.is_full() || health.state.alarm().is_some();
    let consumers = watched.catch_ups().places(journal);
    watched.with(|stages| {
        let waits_for_table = stages.references.iter().any(|reference| reference.status().version.is_none());
        let any_is_away = stages.outputs.iter().any(|output| output.trouble().is_some());
        // a call that takes long is work
        let calls = stages.functions.iter().fold(0_u64, |calls, (_, stats)| calls.wrapping_add(stats.calls()));
        let standing = |(name, position, pending): (String, i64, u64)| {
            let of = ConsumerStanding::new(&name, pending, position.unsigned_abs()).moves_with(calls);
            let of = of.excused(all_wait || waits_for_table || is_stopped(&name));
            match watched.stalls.need_of(&name) {
                ConsumerNeed::Nothing => of,
                ConsumerNeed::Leftovers => of.excused(true),
                ConsumerNeed::Endpoint(function, patience) => {
                    match stages.scorers.iter().find(|scorer| *scorer.name() == *function) {
                        None => of.excused(true),
                        Some(scorer) => {
                            let status = scorer.status();
                            of.excused(status.state() != State::Ready || status.away_since().is_some())
                                .moves_with(status.requests.load(Ordering::Relaxed))
                                .patient(patience)
                        }
                    }
                }
                ConsumerNeed::Output { name, patience, is_shared } => {
                    match stages.outputs.iter().find(|o| *o.name() == name) {
                        None => of.excused(true),
                        Some(handle) => of
                            .excused(handle.trouble().is_some() || (is_shared && any_is_away))
                            .moves_with(handle.stats().settled.load(Ordering::Relaxed))
                            .patient(patience),
                    }
                }
            }
        };
        consumers.into_iter().map(standing).collect()
    })
}
