//! What the writer looks at again and again beside its work, and says to whoever is outside.
//!
//! In: how much is written, what SQLite's log and file are like, an error that a step met. Out: lines of the log, and
//! what `/readyz` tells. Not here: when it looks (`writer`).

use super::Writer;
use crate::journal::damage::{is_of_page, mend_index};
use crate::journal::growth::size;
use crate::journal::pace::ExcessNews;
use crate::time::Clock;

impl Writer {
    /// Says that more is written than the budget allows, where stretching commits is not enough.
    pub(super) fn look_for_excess(&mut self) {
        let Some(budget) = self.config.write_budget else { return };
        let now = Clock::Real.monotonic();
        let minute = self.shared.with_written(|written| written.whole_minute(now));
        let is_stretched = self.pace.is_stretched(now);
        let Some(news) = self.excess.look(minute, budget, is_stretched, now) else { return };
        let (a_day, budget_text) = (size(minute), size(budget));
        match news {
            ExcessNews::Over => tracing::warn!(
                "the pool writes {a_day} a day at this pace, and write_budget is {budget_text}, although commits wait \
                 for commit_interval: raise write_budget in [journal] if the card can take it, or lower the rate of \
                 events, or raise commit_interval"
            ),
            ExcessNews::Inside => {
                tracing::info!(
                    "the pool writes {a_day} a day at this pace: inside of write_budget ({budget_text}) again"
                );
            }
        }
    }

    /// Names a program that keeps the write-ahead log from being used anew: its length is not the budget's then.
    pub(super) fn look_for_pin(&mut self) -> rusqlite::Result<()> {
        let now = Clock::Real.monotonic();
        let found = self.upkeep.look(&self.store.db, now)?;
        self.tell_failing();
        let Some(found) = found else { return Ok(()) };
        let is_pinned = found.is_some();
        let was_pinned = self.shared.with_pin(|pin| {
            match (&*pin, &found) {
                (None, Some(found)) => tracing::warn!("{found}"),
                (Some(_), None) => tracing::info!("no other program pins the write-ahead log any more"),
                _ => {}
            }
            std::mem::replace(pin, found).is_some()
        });
        if is_pinned || was_pinned {
            self.budget.set_log_pinned(is_pinned);
            self.measure()?;
        }
        Ok(())
    }

    /// Tells outside whether the file can be written.
    pub(super) fn tell_failing(&self) {
        let failing = self.upkeep.failing().map(str::to_owned);
        self.shared.with_failing(|told| *told = failing);
    }

    /// Whether a step that met a damaged page may be tried again: with what can be made anew made so, and from then on
    /// without what need not be done there.
    pub(super) fn goes_on(&mut self, error: &rusqlite::Error) -> bool {
        if !is_of_page(error) {
            return false;
        }
        tracing::error!(
            "a page of the pool's file is damaged: {error}. What can be done without it goes on; check the disk, and \
             see `forebay journal verify`"
        );
        let is_mended = mend_index(&self.store.db);
        self.store.expect_damage() || is_mended
    }
}
