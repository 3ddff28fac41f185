//! What the writer does where the disk has no room.
//!
//! In: the commands of a transaction that found none. Out: those that are done all the same, and the others in their
//! lanes again. Invariant: nothing is stored by halves, a lane keeps its order, and a consumer that only moves on is
//! never held up: it lets go of what takes the room. Not here: when there is room again (`budget`).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{Failed, LaneCommand, MAINTENANCE_INTERVAL, Writer, answer, apply_all};
use crate::journal::command::Command;
use crate::journal::error::JournalError;
use crate::journal::queue::Lane;
use crate::time::Clock;

impl Writer {
    /// Nothing was stored and nothing is lost: the commands wait, and those that free room may go first.
    pub(super) fn on_disk_full(&mut self, entries: Vec<LaneCommand>, error: &rusqlite::Error) -> Result<(), Failed> {
        let (before, entries) = (entries.len(), self.log_moves(entries)?);
        let has_moved = entries.len() < before;
        // quick commits have not measured: without a number the last one counts
        let _ = self.budget.measure(&self.store.db);
        let again = !self.budget.found_disk_full();
        self.set_gate();
        if self.shared.queue.is_closing() && !has_moved {
            self.shared.queue.release(&entries);
            let path = self.config.path.display().to_string();
            let full = JournalError::NoRoom { path, reason: error.to_string() };
            // what waits behind these must not be stored without them
            let waiting = self.shared.queue.stop(full.clone());
            entries.into_iter().chain(waiting).for_each(|e| e.command.refuse(full.clone()));
            return Ok(());
        }
        self.shared.queue.give_back(entries);
        self.shared.queue.shrink();
        if again && !has_moved {
            tracing::debug!(%error, "no room on the disk even for small commits; trying again in a second");
            self.shared.queue.pause(MAINTENANCE_INTERVAL);
        }
        Ok(())
    }

    /// Makes the commands that only move consumers durable in the redo log, which has its room already: what waits
    /// there may not fit into the file, and a consumer that passes it lets go of it. Gives the others.
    fn log_moves(&mut self, entries: Vec<LaneCommand>) -> Result<Vec<LaneCommand>, Failed> {
        let mut held: BTreeSet<Lane> = BTreeSet::new();
        let (mut moves, mut others) = (Vec::new(), Vec::new());
        for entry in entries {
            match only_moves(&entry.command) && !held.contains(&entry.lane) {
                true => moves.push(entry),
                false => {
                    held.insert(entry.lane);
                    others.push(entry);
                }
            }
        }
        if moves.is_empty() {
            return Ok(others);
        }
        let mut refused = self.refused.clone();
        let Some(done) = self.store.log(|tx| apply_all(tx, &mut moves, &mut refused)).map_err(Failed)? else {
            // the log has no room either
            moves.append(&mut others);
            return Ok(moves);
        };
        self.refused = refused;
        self.wrote(done.written);
        let now = Clock::Real.monotonic();
        self.pace.committed(now);
        self.upkeep.worked(now);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        // what they passed may be enough
        self.seek_room = self.budget.is_full();
        self.publish(done.segments);
        self.shared.queue.release(&moves);
        for (entry, outcome) in moves.into_iter().zip(done.outcome) {
            answer(entry.command, outcome);
        }
        Ok(others)
    }
}

/// Whether a command does nothing but move a consumer.
fn only_moves(command: &Command) -> bool {
    command.is_quick() && matches!(command, Command::Commit(commit, _) if commit.emitted().next().is_none())
}
