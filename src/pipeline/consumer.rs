//! A statement's part that keeps state or calls an endpoint: it reads, executes, and commits what came out.
//!
//! In: events of the inputs, or rows of the part before. Out: commits of position, state, rows and failures in one; or,
//! when the part ends in an external call, chunks for `scoring`, which commits them. Invariant: what is committed
//! together was caused together, so a restart from any commit gives the same rows. Not here: stateless statements
//! (`delivery`).

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::Notify;

use super::PipelineError;
use super::ahead::Ahead;
use super::called::CalledRows;
use super::commits::DueCommit;
use super::cycle::{Cycle, Go};
use super::due::{Done, SinceCommit};
use super::feed::Feed;
use super::flow::Flow;
use super::mark::{EraTime, Mark};
use super::reading::{Reading, Records, Stretch};
use super::scoring::SentChunk;
use super::state_budget::Share;
use crate::engine::{Emitted, Executor};
use crate::journal::{Commit, StreamId};
use crate::score::{self, Room, Scorer};
use crate::time::TICKS_PER_SECOND;

/// Longest wait for input: how late a stop is noticed and a tick is given.
const WAIT: Duration = Duration::from_millis(200);
/// A tick stays this far behind the clock: a message that was stamped before may still be on its way into the journal.
const TICK_LAG: i64 = TICKS_PER_SECOND / 2;

/// Where the rows go.
#[derive(Debug)]
pub enum Sink {
    /// A stream of the journal.
    Stream(StreamId),
    /// An endpoint; the answers are committed by another thread.
    Score(Box<ToScore>),
    /// The committing end of the scoring is gone: it failed, and its own error says why, or the job stops.
    Gone,
}

/// The way to an endpoint.
#[derive(Debug)]
pub struct ToScore {
    pub scorer: Scorer,
    pub room: Room,
    /// The other rows pass the endpoint by, in their place among these.
    pub called: CalledRows,
    /// Its rows wait however long the endpoint is away, and let others go first.
    pub is_patient: bool,
    /// Tells this statement's chunks from those of others that share the endpoint.
    pub lane: usize,
    pub chunks: Sender<SentChunk>,
    /// Told when a chunk was sent.
    pub came: Arc<Notify>,
    /// How far this part is in event time behind the chunks that it has sent.
    pub sent: Mark,
}

/// One part of a statement.
#[derive(Debug)]
pub struct Consumer {
    pub flow: Flow,
    pub reading: Reading,
    pub feed: Feed,
    pub sink: Sink,
    /// How far the part before is in event time; `None` for a part that reads inputs.
    pub upstream: Option<Mark>,
    /// Another part reads what this one gives: it has to learn how late it is while nothing comes.
    pub feeds_part: bool,
    /// Rows that wait inside the plan for earlier ones.
    pub held: u64,
    /// What this part may hold of the state of all.
    pub share: Share,
    /// What an earlier run did ahead of the position; `None` once that is passed.
    pub ahead: Option<Ahead>,
    /// Read while the budget of state was used up, so not pushed yet.
    pub unread: Option<Stretch>,
    /// Everything before this has been pushed: what a commit may say.
    pub position: i64,
    /// Records of other inputs that were passed since the last commit.
    pub others: u64,
    pub due: SinceCommit,
    /// Time alone has let go of state since the last commit.
    pub has_ticked: bool,
}

/// What was read, and how far the part before was in event time before that.
#[derive(Debug)]
pub struct FoundStretch {
    stretch: Stretch,
    upstream: Option<EraTime>,
    has_room: bool,
}

impl Cycle for Consumer {
    type Found = FoundStretch;

    fn read(&mut self) -> Result<Option<FoundStretch>, PipelineError> {
        if self.flow.stop.is_set() || matches!(self.sink, Sink::Gone) {
            return Ok(None);
        }
        // loaded before the read: when that finds nothing, all rows up to this mark have been read
        let upstream = self.upstream.as_ref().and_then(Mark::get);
        let has_room = self.share.tell(self.feed.executor.state_bytes());
        let found = match self.unread.take() {
            Some(stretch) => Some(stretch),
            None => self.reading.next(self.flow.patience(WAIT))?,
        };
        Ok(found.map(|stretch| FoundStretch { stretch, upstream, has_room }))
    }

    fn work(&mut self, found: FoundStretch) -> Result<Go, PipelineError> {
        let FoundStretch { stretch, upstream, has_room } = found;
        if stretch.len > 0 && !has_room {
            self.pass_time(upstream, Some(&stretch));
            self.unread = Some(stretch);
            self.flow.sleep(WAIT);
            return Ok(Go::On);
        }
        self.others += stretch.others;
        self.position = stretch.position;
        self.due.read(stretch.len);
        match stretch.len {
            // segments of other inputs were passed, and ours may follow: time must not overtake them
            0 if !stretch.is_at_end => {}
            0 => self.pass_time(upstream, None),
            _ => self.push(stretch.records),
        }
        Ok(Go::On)
    }

    fn due(&mut self, at_end: bool) -> Result<Option<DueCommit>, PipelineError> {
        let done =
            Done { position: self.position, has_output: self.feed.executor.has_output(), has_news: self.has_ticked };
        let now = self.flow.clock.monotonic();
        if self.due.is_due(done, now, at_end) {
            self.due.committed(self.position, now);
            self.has_ticked = false;
            return self.finish();
        }
        // all rows up to the watermark were taken before
        let watermark = self.feed.executor.watermark().filter(|_| self.feeds_part && !done.has_output);
        let watermark = watermark.map(|time| EraTime { era: self.feed.executor.era(), time });
        Ok(self.tell(watermark).then_some(DueCommit { watermark, ..DueCommit::default() }))
    }
}

impl Consumer {
    fn push(&mut self, records: Records) {
        let Some(ahead) = &self.ahead else { return self.feed.push(&records) };
        ahead.left_of(records).iter().for_each(|records| self.feed.push(records));
        self.ahead.take_if(|ahead| ahead.end() <= self.position);
    }

    /// Lets time pass for windows of quiet devices: up to the clock when everything stored has been read, else up to
    /// the first record that is not: time must not overtake data.
    fn pass_time(&mut self, upstream: Option<EraTime>, next: Option<&Stretch>) {
        let arrived = next.and_then(Stretch::first_arrival);
        self.feed.between_commits();
        self.has_ticked |= match upstream {
            None if self.upstream.is_none() => self.feed.begin_eras(self.position),
            // all rows up to it have been read, where none waits
            Some(EraTime { era, .. }) if next.is_none() && era > self.feed.executor.era() => {
                self.feed.executor.begin_era(era);
                true
            }
            _ => false,
        };
        let executor = &mut self.feed.executor;
        let happened = next.and_then(Stretch::first_time).zip(arrived);
        let happened = happened.map(|(time, arrived)| executor.earliest_behind(time, arrived));
        // what is told of another era says nothing of this one
        let watermark = upstream.filter(|reached| reached.era == executor.era()).map(|reached| reached.time);
        if let Some(watermark) = watermark.into_iter().chain(happened).min().filter(|_| upstream.is_some()) {
            executor.advance(watermark);
        }
        let stamp = self.flow.arrival.now();
        let now = (stamp.era == executor.era()).then(|| stamp.at.saturating_add(-TICK_LAG));
        let Some(now) = now.into_iter().chain(arrived).min() else { return };
        let is_due = |executor: &Executor, now| executor.next_tick().is_some_and(|due| due <= now);
        if !self.feeds_part && !is_due(executor, now) {
            return;
        }
        // an event may be on its way into the pool for longer, where the disk is slow
        let now = self.feed.journal.let_pass(executor.era(), now);
        // and what was stored since the read is read first
        if next.is_none() && self.reading.behind(self.position) > 0 {
            return;
        }
        let is_due = is_due(executor, now);
        #[cfg(test)]
        if self.feed.journal.has_planted(crate::journal::planted::Planted::LostTick) {
            return;
        }
        if self.feeds_part || is_due {
            executor.tick(now);
        }
        self.has_ticked |= is_due;
    }

    /// Tells how far this part is in event time; whether that is for a commit to tell.
    fn tell(&self, watermark: Option<EraTime>) -> bool {
        match &self.sink {
            Sink::Stream(_) => true,
            Sink::Score(to) => {
                to.sent.set(watermark);
                false
            }
            Sink::Gone => false,
        }
    }

    /// What came out since the last time, to be committed or handed on to be scored.
    fn finish(&mut self) -> Result<Option<DueCommit>, PipelineError> {
        let emitted = self.feed.take();
        let Emitted { rows, failures, counts, untimely, waiting, state, watermark, now, begun_in, era, stopped } =
            emitted;
        let watermark = watermark.map(|time| EraTime { era, time });
        if let Some(failure) = stopped {
            return Err(self.flow.stopped(&failure));
        }
        self.flow.tell_untimely(untimely.as_ref());
        let mut ledger = self.flow.counts(&counts, &mut self.held, waiting);
        ledger.extend(self.feed.given(&self.flow, counts.read, std::mem::take(&mut self.others)));
        let mut commit = Commit {
            state: state.into_iter().map(super::feed::state_change).collect(),
            dead_letters: self.flow.letters(failures),
            ledger,
            reached: now,
            era,
            ..Commit::at(self.flow.consumer, self.position)
        };
        let to = match &self.sink {
            Sink::Gone => return Ok(None),
            Sink::Stream(stream) => {
                // a crash reads the same again, and nobody waits to learn how late it is
                commit.can_wait = rows.batch.is_empty() && commit.dead_letters.is_empty() && !self.feeds_part;
                if !rows.batch.is_empty() {
                    commit.emit = Some((*stream, rows));
                }
                return Ok(Some(DueCommit { commit: Some(commit), watermark, places: Vec::new() }));
            }
            Sink::Score(to) => to,
        };
        let batch = rows.batch;
        // the rows keep the argument too: a dead letter shows what was asked
        let args = to.called.arguments(&batch);
        let bytes = batch.bytes() + commit.bytes();
        let chunk = score::Chunk { is_patient: to.is_patient, ..score::Chunk::new(to.lane, args) };
        let ticket = to.scorer.submit_blocking(chunk, bytes, &to.room);
        let is_sent = match ticket {
            Ok(ticket) => {
                let is_sent = to.chunks.send(SentChunk { commit, batch, ticket, era: begun_in }).is_ok();
                to.came.notify_one();
                is_sent
            }
            // what was read and not scored is read again at the next start
            Err(_) if self.flow.stop.is_set() => false,
            Err(ended) => return Err(self.flow.ended(&ended.why)),
        };
        to.sent.set(watermark.filter(|_| is_sent));
        if !is_sent {
            self.sink = Sink::Gone;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
