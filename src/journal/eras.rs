//! The eras of arrival time, as the pool keeps them.
//!
//! In: that arrival time leapt or is set back. Out: the [`Eras`] of the file, and where in the inputs one begins.
//! Invariant: an era begins between two events, in one transaction with the arrival time that it begins with. Not here:
//! when that happens (`arrival`).

use std::sync::Arc;

use rusqlite::params;

use super::arrived::ArrivalBounds;
use super::books::{ERAS, INPUTS};
use super::error::StepError;
use super::transaction::Transaction;
use crate::arrival::{Eras, WayBack};

/// Keeps them.
pub(super) fn keep(tx: &mut Transaction<'_>, eras: Eras) -> Result<(), StepError> {
    let json = serde_json::to_vec(&eras).unwrap_or_default();
    tx.db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![ERAS, json])?;
    tx.books.eras = Arc::new(eras);
    Ok(())
}

/// Begins an era behind all events that are stored.
pub(super) fn begin(tx: &mut Transaction<'_>, way: &WayBack) -> Result<Eras, StepError> {
    let mut eras = way.eras.clone();
    if let Some(inputs) = tx.books.streams.get_mut(&INPUTS) {
        eras.begin(inputs.next, way.to, way.from.max(inputs.last_arrival));
        inputs.last_arrival = way.to;
    }
    let mut arrived = ArrivalBounds::clone(&tx.books.arrived);
    for (id, stream) in &tx.books.streams {
        arrived.add(*id, stream.first, stream.next, way.to.ticks());
    }
    arrived.save(tx.db)?;
    tx.books.arrived = Arc::new(arrived);
    keep(tx, eras.clone())?;
    Ok(eras)
}
