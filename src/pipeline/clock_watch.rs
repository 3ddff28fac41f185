//! Looks at the job's clock, and keeps in the pool what becomes of arrival time.
//!
//! In: the clock, once a second. Out: eras in the journal, and then in the clock. Invariant: arrival time goes back
//! only after the pool says that an era begins. Not here: whether it should (`arrival`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::arrival::{ArrivalClock, Eras, WayBack};
use crate::journal::{Journal, JournalError};
use crate::query::plan::{Node, Part, Plan, Window};

/// How often it is looked: a jump is seen as soon while nothing comes.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the pool has to keep.
#[derive(Debug)]
pub enum ClockNews {
    /// Arrival time leapt ahead.
    Leapt(Eras),
    /// Arrival time is to be set back.
    Back(WayBack),
}

/// Looks until it is cancelled.
pub async fn watch(journal: Journal, arrival: ArrivalClock, ended: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_told = false;
    while ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(news) = look(&arrival) else { continue };
        let (journal, arrival) = (journal.clone(), arrival.clone());
        let kept = tokio::task::spawn_blocking(move || keep(&journal, &arrival, news)).await;
        let refusal = kept.ok().and_then(Result::err);
        // it is tried again each second, and told once
        if let Some(error) = refusal.as_ref().filter(|_| !is_told) {
            tracing::warn!(%error, "the pool cannot keep what becomes of arrival time; trying again each second");
        }
        is_told = refusal.is_some();
    }
}

/// What there is to keep; a way back knows of all leaps.
pub fn look(arrival: &ArrivalClock) -> Option<ClockNews> {
    match arrival.way_back() {
        Some(way) => Some(ClockNews::Back(way)),
        None => arrival.unsaved_eras().map(ClockNews::Leapt),
    }
}

/// Keeps it, and then sets arrival time back.
///
/// # Errors
/// The pool refuses; arrival time goes on as it is.
pub fn keep(journal: &Journal, arrival: &ArrivalClock, news: ClockNews) -> Result<(), JournalError> {
    match news {
        ClockNews::Leapt(eras) => {
            journal.keep_eras(eras.clone())?;
            arrival.saved(&eras);
            Ok(())
        }
        ClockNews::Back(way) => {
            let eras = journal.begin_era(way.clone())?;
            arrival.begin_era(&way, eras);
            Ok(())
        }
    }
}

/// How many ticks an event is away from the end of a window that it is in, at most: of the windows of a statement that
/// lie on top of each other, and with `late` for those that look at the event's own time.
pub fn margin(plan: &Plan, late: Option<i64>) -> i64 {
    let of_node = |node: &Node| match node {
        Node::Aggregate { windows, .. } => windows.iter().map(|named| length(&named.window)).max().unwrap_or(0),
        Node::Scan(scan) if scan.timestamp_by.is_some() => late.unwrap_or(0),
        _ => 0,
    };
    let of_statement = |parts: &[Part]| -> i64 { parts.iter().flat_map(|part| part.root.nodes()).map(of_node).sum() };
    plan.statements.iter().map(|statement| of_statement(&statement.parts)).max().unwrap_or(0)
}

fn length(window: &Window) -> i64 {
    match window {
        Window::Tumbling { size, .. } | Window::Hopping { size, .. } | Window::Sliding { size } => *size,
        Window::Session { timeout, max_duration, .. } => timeout.saturating_add(*max_duration),
        Window::Snapshot => 0,
    }
}
