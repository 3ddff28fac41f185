//! The one committing step of all parts: several commits under way, confirmed in order.
//!
//! In: commits, each with how far the part is in event time behind it. Out: the mark that the part behind reads.
//! Invariant: a mark is set only after everything up to it can be read; at most [`UNDER_WAY_MAX`] commits are
//! unconfirmed. Not here: when a commit is due (`due`), what it holds.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mark::{EraTime, Mark};
use crate::journal::{Commit, Journal, JournalError, Receipt};
use crate::score::Berth;

/// With one alone a part would go at the pace of the commit interval. A crash repeats as many deliveries at most; the
/// journal's queue bounds the bytes.
const UNDER_WAY_MAX: usize = 8;

/// What a part has done.
#[derive(Debug, Default)]
pub struct DueCommit {
    /// `None`: nothing has to be stored.
    pub commit: Option<Commit>,
    /// How far the part is in event time once that is stored.
    pub watermark: Option<EraTime>,
    /// Places of rows at an endpoint, which are given back once that is stored.
    pub places: Vec<Arc<Berth>>,
}

/// The commits of one part that the journal has not yet confirmed.
#[derive(Debug)]
pub struct Commits {
    journal: Journal,
    mark: Mark,
    under_way: VecDeque<(Receipt, Option<EraTime>)>,
}

impl Commits {
    /// `mark` tells the part behind.
    pub fn new(journal: Journal, mark: Mark) -> Commits {
        Commits { journal, mark, under_way: VecDeque::new() }
    }

    /// Hands a commit to the journal; waits for the oldest one when too many are under way.
    ///
    /// # Errors
    /// An earlier commit was refused.
    pub fn add(&mut self, step: DueCommit) -> Result<(), JournalError> {
        // rows wait for these places
        let is_awaited = step.places.iter().any(|place| place.is_scarce());
        match step.commit {
            Some(commit) => {
                let receipt = self.journal.commit_with(commit, step.places);
                self.under_way.push_back((receipt, step.watermark));
            }
            None => match self.under_way.back_mut() {
                Some((_, watermark)) => *watermark = step.watermark.max(*watermark),
                None => self.mark.set(step.watermark),
            },
        }
        if is_awaited {
            self.journal.flush();
        }
        while self.under_way.len() > UNDER_WAY_MAX {
            self.confirm_oldest()?;
        }
        Ok(())
    }

    /// Confirms what has been answered; waits for nothing.
    ///
    /// # Errors
    /// A commit was refused.
    pub fn settle(&mut self) -> Result<(), JournalError> {
        while let Some(answer) = self.under_way.front().and_then(|(receipt, _)| receipt.poll()) {
            let watermark = self.under_way.pop_front().and_then(|(_, watermark)| watermark);
            answer?;
            self.mark.set(watermark);
        }
        Ok(())
    }

    /// Waits for all that are under way.
    ///
    /// # Errors
    /// One was refused.
    pub fn drain(&mut self) -> Result<(), JournalError> {
        // nothing follows that could take them along
        self.journal.flush();
        while !self.under_way.is_empty() {
            self.confirm_oldest()?;
        }
        Ok(())
    }

    fn confirm_oldest(&mut self) -> Result<(), JournalError> {
        if let Some((receipt, watermark)) = self.under_way.pop_front() {
            receipt.wait()?;
            self.mark.set(watermark);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{ConsumerId, ConsumerSpec, JournalConfig, StreamId};
    use crate::pipeline::PipelineError;
    use crate::pipeline::cycle::{self, Cycle, Go, Looped};
    use crate::time::{TICKS_PER_SECOND, Timestamp};
    use std::time::Duration;

    /// A journal that commits nothing before it is asked to, and a consumer.
    fn slow(folder: &tempfile::TempDir) -> (Journal, ConsumerId) {
        let config = JournalConfig { commit_interval: Duration::from_secs(3_600), ..config(folder) };
        open(config)
    }

    fn config(folder: &tempfile::TempDir) -> JournalConfig {
        JournalConfig::new(folder.path().join("pool.db"))
    }

    fn open(config: JournalConfig) -> (Journal, ConsumerId) {
        let journal = Journal::open(config).unwrap();
        let spec = ConsumerSpec::new("part", StreamId::INPUTS);
        let consumer = journal.register_consumer(spec).unwrap().id;
        (journal, consumer)
    }

    fn at(second: i64) -> EraTime {
        let start = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
        EraTime { era: 0, time: start.saturating_add(second * TICKS_PER_SECOND) }
    }

    /// A commit behind which the part is at this second; `position` over what there is makes the journal refuse it.
    fn step(consumer: ConsumerId, position: i64, second: i64) -> DueCommit {
        DueCommit { commit: Some(Commit::at(consumer, position)), watermark: Some(at(second)), places: Vec::new() }
    }

    #[test]
    fn a_mark_waits_for_the_commits_before_it_and_draining_confirms_all() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, consumer) = slow(&folder);
        let mark = Mark::default();
        let mut commits = Commits::new(journal.clone(), mark.clone());
        commits.add(DueCommit { watermark: Some(at(1)), ..DueCommit::default() }).unwrap();
        assert_eq!(mark.get(), Some(at(1)), "nothing is under way before it");
        for second in 2..=UNDER_WAY_MAX as i64 + 1 {
            commits.add(step(consumer, 0, second)).unwrap();
        }
        commits.add(DueCommit { watermark: Some(at(100)), ..DueCommit::default() }).unwrap();
        commits.drain().unwrap();
        assert_eq!(mark.get(), Some(at(100)), "the last one came behind all commits");
        assert!(commits.under_way.is_empty());
        journal.close();
    }

    #[test]
    fn one_more_than_may_be_under_way_waits_for_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, consumer) = open(JournalConfig { commit_interval: Duration::ZERO, ..config(&folder) });
        let mark = Mark::default();
        let mut commits = Commits::new(journal.clone(), mark.clone());
        for second in 1..=50 {
            commits.add(step(consumer, 0, second)).unwrap();
            assert!(commits.under_way.len() <= UNDER_WAY_MAX);
            let oldest = second - UNDER_WAY_MAX as i64;
            assert!(oldest < 1 || mark.get() >= Some(at(oldest)), "those before it are confirmed");
        }
        journal.close();
    }

    #[test]
    fn a_commit_that_is_refused_ends_the_part_and_no_mark_passes_it() {
        for how in ["add", "settle", "drain"] {
            let folder = tempfile::tempdir().unwrap();
            let (journal, consumer) = open(config(&folder));
            let mark = Mark::default();
            let mut commits = Commits::new(journal.clone(), mark.clone());
            commits.add(step(consumer, 0, 1)).unwrap();
            commits.add(step(consumer, 99, 2)).unwrap();
            commits.add(step(consumer, 0, 3)).unwrap();
            journal.flush();
            let error = match how {
                "add" => (4..100).find_map(|second| commits.add(step(consumer, 0, second)).err()),
                "settle" => std::iter::repeat_with(|| commits.settle().err()).find_map(|error| error),
                _ => commits.drain().err(),
            };
            assert!(matches!(error, Some(JournalError::Position { position: 99, .. })), "{how}: {error:?}");
            assert_eq!(mark.get(), Some(at(1)), "{how}");
            journal.close();
        }
    }

    /// A part that does what is written down, and writes down what it was asked.
    struct Script {
        consumer: ConsumerId,
        /// What it reads, and whether it goes on behind it.
        reads: VecDeque<Go>,
        fails_at: Option<&'static str>,
        asked: Vec<&'static str>,
    }

    impl Script {
        fn ask(&mut self, what: &'static str) -> Result<(), PipelineError> {
            self.asked.push(what);
            match self.fails_at == Some(what) {
                true => Err(JournalError::Closed.into()),
                false => Ok(()),
            }
        }
    }

    impl Cycle for &mut Script {
        type Found = Go;

        fn read(&mut self) -> Result<Option<Go>, PipelineError> {
            self.ask("read")?;
            Ok(self.reads.pop_front())
        }

        fn work(&mut self, found: Go) -> Result<Go, PipelineError> {
            self.ask("work")?;
            Ok(found)
        }

        fn due(&mut self, at_end: bool) -> Result<Option<DueCommit>, PipelineError> {
            self.ask(if at_end { "due at the end" } else { "due" })?;
            Ok(Some(step(self.consumer, 0, self.asked.len() as i64)))
        }
    }

    #[test]
    fn a_part_reads_works_and_commits_until_it_ends_and_all_is_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, consumer) = slow(&folder);
        let round = ["read", "work", "due"];
        for (reads, fails_at, asked) in [
            (vec![Go::On, Go::On], None, [&round[..], &round, &["read", "due at the end"]].concat()),
            // what was read behind it is not asked for
            (vec![Go::On, Go::Stop, Go::On], None, [&round[..], &["read", "work", "due at the end"]].concat()),
            (vec![], None, vec!["read", "due at the end"]),
            (vec![Go::On], Some("work"), vec!["read", "work"]),
            (vec![Go::On], Some("due"), round.to_vec()),
            (vec![Go::On], Some("due at the end"), [&round[..], &["read", "due at the end"]].concat()),
        ] {
            let mark = Mark::default();
            let mut part = Script { consumer, reads: reads.into(), fails_at, asked: Vec::new() };
            let commits = Commits::new(journal.clone(), mark.clone());
            let ended = cycle::run(&mut Looped { part: &mut part, commits });
            assert_eq!(part.asked, asked);
            assert_eq!(ended.is_ok(), fails_at.is_none());
            if ended.is_ok() {
                assert_eq!(mark.get(), Some(at(asked.len() as i64)), "the last commit is confirmed");
            }
        }
        journal.close();
    }
}
