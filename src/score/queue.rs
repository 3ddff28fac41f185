//! Rows that wait for a request, and the chunks they belong to.
//!
//! In: chunks of arguments by statement. Out: rows for the next batch, and chunks whose rows are all decided.
//! Invariant: a row waits at most once, and a chunk is given out when its last row is decided, in its own order. Of a
//! statement no more rows are given out than a crash may score again, until what came of them is durable. Not here:
//! what is sent when, how large a batch may be.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::value::Value;

use super::body::{Form, FormMisfit, RowText};
use super::{Failure, Outcome};

/// A row of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowRef {
    pub chunk: u64,
    pub row: usize,
}

#[derive(Debug)]
struct OpenChunk {
    statement: usize,
    args: Vec<Value>,
    outcomes: Vec<Option<Outcome>>,
    open: usize,
    waits: Waits,
}

/// How the rows of a chunk wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// However long the endpoint is away, and behind others.
    pub is_patient: bool,
    /// They were decided before.
    pub is_replay: bool,
}

/// Rows of a chunk that wait.
#[derive(Debug)]
struct Waiting {
    chunk: u64,
    next: usize,
    end: usize,
}

/// The rows of one statement.
#[derive(Debug, Default)]
struct StatementRows {
    /// They let those of others go first.
    is_patient: bool,
    waiting: VecDeque<Waiting>,
    /// Their rows.
    rows: usize,
    /// Rows of each chunk that were taken and are not durable yet.
    unstored: BTreeMap<u64, usize>,
    /// The sum of these.
    taken: usize,
}

impl StatementRows {
    /// How many rows may be taken now. The oldest chunk may go whole, however many rows it has.
    fn may_take(&self, unstored_max: usize) -> usize {
        let oldest = self.unstored.keys().next();
        let rest = self.waiting.front().filter(|w| oldest.is_none_or(|chunk| *chunk == w.chunk));
        let room = unstored_max.saturating_sub(self.taken);
        room.max(rest.map_or(0, |w| w.end - w.next)).min(self.rows)
    }
}

/// Rows taken for a batch.
#[derive(Debug, Default)]
pub struct Taken {
    pub rows: Vec<RowRef>,
    /// Their JSON, one each.
    pub encoded: Vec<RowText>,
    /// Rows that cannot be sent.
    pub bad: Vec<Unsendable>,
    bytes: usize,
    /// The next row would be too many bytes.
    is_full: bool,
}

/// A row that cannot be sent.
#[derive(Debug)]
pub struct Unsendable {
    pub row: RowRef,
    pub failure: Failure,
    /// Where its form does not fit.
    pub misfit: Option<FormMisfit>,
}

#[derive(Debug)]
pub struct RowQueue {
    chunks: HashMap<u64, OpenChunk>,
    statements: Vec<(usize, StatementRows)>,
    /// Most rows of a statement that were taken and are not durable yet.
    unstored_max: usize,
    /// Whose turn it is.
    turn: usize,
    waiting: usize,
    since: Option<Duration>,
    /// Chunks that are not patient.
    impatient: usize,
}

impl RowQueue {
    /// `unstored_max`: most rows of a statement that are taken before what came of the first is durable.
    pub fn new(unstored_max: usize) -> RowQueue {
        RowQueue {
            chunks: HashMap::new(),
            statements: Vec::new(),
            unstored_max,
            turn: 0,
            waiting: 0,
            since: None,
            impatient: 0,
        }
    }

    /// Takes in a chunk of at least one row. All of a statement are patient, or none.
    pub fn push(&mut self, now: Duration, chunk: u64, statement: usize, args: Vec<Value>, waits: Waits) {
        let rows = args.len();
        let outcomes = vec![None; rows];
        self.chunks.insert(chunk, OpenChunk { statement, args, outcomes, open: rows, waits });
        self.impatient += usize::from(!waits.is_patient);
        let lane = self.of(statement);
        lane.is_patient = waits.is_patient;
        lane.waiting.push_back(Waiting { chunk, next: 0, end: rows });
        lane.rows += rows;
        self.waiting += rows;
        self.since.get_or_insert(now);
    }

    /// Rows that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Rows that wait and may be taken.
    pub fn ready(&self) -> usize {
        self.statements.iter().map(|(_, lane)| lane.may_take(self.unstored_max)).sum()
    }

    /// Since when rows have been waiting for the next batch.
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Whether every row was decided.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The argument of a row.
    pub fn value(&self, row: RowRef) -> Option<&Value> {
        self.chunks.get(&row.chunk)?.args.get(row.row)
    }

    /// All rows that wait, statement by statement.
    pub fn rows(&self) -> impl Iterator<Item = RowRef> {
        let waiting = self.statements.iter().flat_map(|(_, lane)| lane.waiting.iter());
        waiting.flat_map(|w| (w.next..w.end).map(|row| RowRef { chunk: w.chunk, row }))
    }

    /// Whether a row is patient.
    pub fn is_patient(&self, row: RowRef) -> bool {
        self.chunks.get(&row.chunk).is_some_and(|chunk| chunk.waits.is_patient)
    }

    /// Whether a row is not decided that is not patient.
    pub fn has_impatient(&self) -> bool {
        self.impatient > 0
    }

    /// Takes out all waiting rows that are not patient, to be decided.
    pub fn take_impatient(&mut self) -> Vec<RowRef> {
        let mut taken = Vec::new();
        for (_, lane) in self.statements.iter_mut().filter(|(_, lane)| !lane.is_patient) {
            let waiting = lane.waiting.drain(..);
            taken.extend(waiting.flat_map(|w| (w.next..w.end).map(move |row| RowRef { chunk: w.chunk, row })));
            lane.rows = 0;
        }
        self.waiting = self.statements.iter().map(|(_, lane)| lane.rows).sum();
        if self.waiting == 0 {
            self.since = None;
        }
        taken
    }

    /// Takes rows for a batch, at most `max_rows` rows and `max_bytes` bytes (one row may have more): those of one
    /// statement first, the statements take turns, and patient ones come last.
    pub fn take(&mut self, now: Duration, form: &Form, max_rows: usize, max_bytes: usize) -> Taken {
        let mut taken = Taken { bytes: form.frame_bytes(), ..Taken::default() };
        let (mut order, mut last): (Vec<usize>, Vec<usize>) =
            (0..self.statements.len()).partition(|i| self.statements.get(*i).is_some_and(|(_, lane)| !lane.is_patient));
        for lanes in [&mut order, &mut last] {
            let turn = self.turn.checked_rem(lanes.len()).unwrap_or(0);
            lanes.rotate_left(turn);
        }
        for lane in order.into_iter().chain(last) {
            let Some((_, lane)) = self.statements.get_mut(lane) else { break };
            let rows = (max_rows - taken.rows.len()).min(lane.may_take(self.unstored_max));
            fill(&mut taken, lane, &self.chunks, form, rows, max_bytes);
            if taken.is_full || taken.rows.len() >= max_rows {
                break;
            }
        }
        self.turn = self.turn.wrapping_add(1);
        self.waiting = self.statements.iter().map(|(_, lane)| lane.rows).sum();
        self.since = (self.waiting > 0).then_some(now);
        taken
    }

    /// Puts rows that were taken, in ascending order, back to the front.
    pub fn put_back(&mut self, now: Duration, rows: &[RowRef]) {
        for row in rows.iter().rev() {
            let Some(statement) = self.chunks.get(&row.chunk).map(|chunk| chunk.statement) else { continue };
            let lane = self.of(statement);
            match lane.waiting.front_mut() {
                Some(front) if front.chunk == row.chunk && front.next == row.row + 1 => front.next = row.row,
                _ => lane.waiting.push_front(Waiting { chunk: row.chunk, next: row.row, end: row.row + 1 }),
            }
            lane.rows += 1;
            if let Some(taken) = lane.unstored.get_mut(&row.chunk).filter(|taken| **taken > 0) {
                *taken -= 1;
                lane.taken -= 1;
            }
            self.waiting += 1;
        }
        if self.waiting > 0 {
            self.since.get_or_insert(now);
        }
    }

    /// Notes what became of a row; gives the chunk's outcomes when it was the last.
    pub fn decide(&mut self, row: RowRef, outcome: Outcome) -> Option<Vec<Outcome>> {
        let chunk = self.chunks.get_mut(&row.chunk)?;
        let slot = chunk.outcomes.get_mut(row.row).filter(|slot| slot.is_none())?;
        *slot = Some(outcome);
        chunk.open -= 1;
        if chunk.open > 0 {
            return None;
        }
        self.remove(row.chunk).map(|chunk| chunk.outcomes.into_iter().flatten().collect())
    }

    /// Drops a chunk that nobody waits for; rows of it that were taken are decided in vain.
    pub fn forget(&mut self, chunk: u64) {
        self.remove(chunk);
        for (_, lane) in &mut self.statements {
            lane.waiting.retain(|w| w.chunk != chunk);
            lane.rows = lane.waiting.iter().map(|w| w.end - w.next).sum();
        }
        self.waiting = self.statements.iter().map(|(_, lane)| lane.rows).sum();
        self.stored(chunk);
    }

    /// What came of a chunk is durable: others may follow.
    pub fn stored(&mut self, chunk: u64) {
        for (_, lane) in &mut self.statements {
            lane.taken -= lane.unstored.remove(&chunk).unwrap_or(0);
        }
    }

    fn remove(&mut self, chunk: u64) -> Option<OpenChunk> {
        let chunk = self.chunks.remove(&chunk)?;
        self.impatient -= usize::from(!chunk.waits.is_patient);
        Some(chunk)
    }

    fn of(&mut self, statement: usize) -> &mut StatementRows {
        let at = match self.statements.iter().position(|(s, _)| *s == statement) {
            Some(at) => at,
            None => {
                self.statements.push((statement, StatementRows::default()));
                self.statements.len() - 1
            }
        };
        // just found or pushed
        #[allow(clippy::indexing_slicing)]
        &mut self.statements[at].1
    }
}

/// Moves up to `rows` rows of a statement into a batch.
fn fill(
    taken: &mut Taken,
    lane: &mut StatementRows,
    chunks: &HashMap<u64, OpenChunk>,
    form: &Form,
    mut rows: usize,
    max_bytes: usize,
) {
    while let Some(waiting) = lane.waiting.front_mut() {
        if waiting.next >= waiting.end {
            lane.waiting.pop_front();
            continue;
        }
        if rows == 0 {
            return;
        }
        let row = RowRef { chunk: waiting.chunk, row: waiting.next };
        let chunk = chunks.get(&row.chunk);
        let value = chunk.and_then(|chunk| chunk.args.get(row.row));
        match value.map(|value| (form.encode(value), value)) {
            Some((Ok(text), _)) => {
                if !taken.rows.is_empty() && taken.bytes + text.bytes() > max_bytes {
                    taken.is_full = true;
                    return;
                }
                taken.bytes += text.bytes();
                taken.encoded.push(text);
                taken.rows.push(row);
                rows -= 1;
            }
            Some((Err(mut bad), value)) => {
                let misfit = bad.misfit.take().filter(|_| chunk.is_some_and(|chunk| !chunk.waits.is_replay));
                taken.bad.push(Unsendable { row, failure: Failure::before_sending(bad, &value.to_json()), misfit });
            }
            None => {}
        }
        waiting.next += 1;
        lane.rows -= 1;
        *lane.unstored.entry(row.chunk).or_default() += 1;
        lane.taken += 1;
    }
}
