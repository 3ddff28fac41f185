//! Joins of two streams within a bound of time.
//!
//! In: two inputs with their watermarks. Out: pairs, stamped with the later time; for a left join also the left rows
//! that found no match, stamped with their time plus the upper bound. Invariant: rows are worked off in (time, offset)
//! order over both sides, so the result does not depend on how they came; a row is held only while a match can still
//! come. Not here: reference tables.

use std::collections::VecDeque;

use super::env::{Env, EvalError, RefusedRow, Row};
use super::fault::{self, Fault, Unloadable};
use super::held::Held;
use super::history::History;
use super::key::{Key, put_key};
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::state::{Loaded, StateWriter};
use crate::batch::{Batch, RowMeta};
use crate::diagnostic::Span;
use crate::query::builtins::{dateadd, datediff};
use crate::query::plan::{Expr, JoinBound};
use crate::time::{TICKS_PER_SECOND, Timestamp};

/// Kinds of state rows, of the left side; those of the right side are one above.
const WAITING: u8 = 0;
const HELD: u8 = 2;

#[derive(Debug)]
pub(super) struct JoinOp {
    inputs: [OperatorTree; 2],
    id: u32,
    left_outer: bool,
    bound: JoinBound,
    on: Option<Expr>,
    left: Side,
    right: Side,
}

/// Which of the two inputs a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Left,
    Right,
}

/// What is kept of an input.
#[derive(Debug)]
struct Side {
    keys: Vec<Expr>,
    /// Rows not worked off yet, and rows that may still match.
    waiting: History,
    held: History,
    /// Held rows in the order in which they go, which is the one in which they came: time and key.
    agenda: VecDeque<(i64, Key)>,
}

impl Side {
    /// `number` tells the kinds of its state rows from those of the other side; `span` is about how long a row is held.
    fn new(keys: Vec<Expr>, number: u8, span: i64) -> Side {
        let (waiting, held) = (History::new(WAITING + number, span), History::new(HELD + number, span));
        Side { keys, waiting, held, agenda: VecDeque::new() }
    }

    /// Time and offset of the next row to be worked off.
    fn next(&self) -> Option<(i64, i64)> {
        self.waiting.front(b"").map(|held| (held.time(), held.meta.offset))
    }

    fn hold(&mut self, key: &[u8], held: Held) {
        self.agenda.push_back((held.time(), key.into()));
        self.held.push(key, held);
    }

    /// The bytes of a row's join key; `None` when a part of it is NULL.
    fn key_of(&self, env: &mut Env, held: &Held) -> Result<Option<Vec<u8>>, Box<EvalError>> {
        let mut key = Vec::new();
        for expr in &self.keys {
            let value = env.eval(expr, Row { values: &held.values, meta: &held.meta })?;
            if value.is_null() {
                return Ok(None);
            }
            put_key(&mut key, &value);
        }
        Ok(Some(key))
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        if loaded.kind < HELD { self.waiting.load(loaded) } else { self.held.load(loaded) }
    }

    /// Finds the agenda of loaded rows again.
    fn loaded(&mut self) {
        for key in self.held.keys() {
            let rows = self.held.get(key).into_iter().flatten();
            self.agenda.extend(rows.map(|row| (row.time(), Key::from(key))));
        }
        self.agenda.make_contiguous().sort_unstable();
    }

    fn bytes(&self) -> usize {
        self.waiting.bytes() + self.held.bytes() + self.agenda.capacity() * size_of::<(i64, Key)>()
    }

    fn is_empty(&self) -> bool {
        self.waiting.len() == 0 && self.held.len() == 0
    }
}

impl JoinOp {
    pub(super) fn new(
        inputs: [OperatorTree; 2],
        id: u32,
        left_outer: bool,
        bound: JoinBound,
        keys: &[(Expr, Expr)],
        on: Option<&Expr>,
    ) -> JoinOp {
        // how long rows are held, roughly: the bound's distance in time
        let origin = Timestamp::saturating_from_ticks(Timestamp::MAX.ticks() / 2);
        let ticks = |t: Timestamp| (t.ticks() - origin.ticks()).abs();
        let reach = |n: i64| dateadd(bound.unit, n, origin).map_or(TICKS_PER_SECOND, ticks);
        let span = reach(bound.low).max(reach(bound.high)).max(TICKS_PER_SECOND);
        let (lefts, rights) = keys.iter().cloned().unzip();
        let (left, right) = (Side::new(lefts, 0, span), Side::new(rights, 1, span));
        JoinOp { inputs, id, left_outer, bound, on: on.cloned(), left, right }
    }

    /// The row that comes first, if it may be worked off.
    fn pop_next(&mut self, watermark: i64) -> Option<(Of, Held)> {
        let left = self.left.next().map(|next| (next, Of::Left));
        let right = self.right.next().map(|next| (next, Of::Right));
        let ((time, _), of) = left.into_iter().chain(right).min()?;
        if time > watermark {
            return None;
        }
        let side = match of {
            Of::Left => &mut self.left,
            Of::Right => &mut self.right,
        };
        side.waiting.pop_front(b"").map(|held| (of, held))
    }

    /// Pairs a row with what the other side holds, and holds it for what is to come.
    fn work_off(&mut self, env: &mut Env, of: Of, held: Held, out: &mut Batch) -> Result<(), RefusedRow> {
        let (own, other) = match of {
            Of::Left => (&mut self.left, &mut self.right),
            Of::Right => (&mut self.right, &mut self.left),
        };
        let key = match own.key_of(env, &held) {
            Ok(key) => key,
            Err(error) => return Err(RefusedRow::of(&held, error)),
        };
        let Some(key) = key else {
            // NULL matches nothing; a left join still gives the row when its time has come
            if of == Of::Left && self.left_outer {
                own.hold(UNMATCHABLE, held);
            }
            return Ok(());
        };
        let before = out.len();
        let pairs = Pairs { bound: self.bound, on: self.on.as_ref(), of };
        let matched = pairs.append(env, &held, other.held.get(&key).into_iter().flatten(), out);
        let flagged = matched.and_then(|matched| {
            let flag = of == Of::Left && !matched.is_empty();
            if of == Of::Right {
                let flagged = fault::all(matched.into_iter().map(|i| other.held.set_flag(&key, i)));
                flagged.map_err(|fault| env.fault(fault, Span::default()))?;
            }
            Ok(flag)
        });
        match flagged {
            Ok(flag) => {
                own.hold(&key, Held { flag, ..held });
                Ok(())
            }
            Err(error) => {
                while out.len() > before {
                    out.pop();
                }
                Err(RefusedRow::of(&held, error))
            }
        }
    }

    /// Lets go of rows that nothing can match any more once only rows from `limit` on can come; left rows without a
    /// match come out.
    fn release(&mut self, limit: i64, out: &mut Batch) {
        let limit = Timestamp::saturating_from_ticks(limit);
        let ended = limit == Timestamp::MAX;
        let mut unmatched: Vec<Held> = Vec::new();
        while let Some((time, key)) = self.left.agenda.front() {
            let time = Timestamp::saturating_from_ticks(*time);
            if !ended && datediff(self.bound.unit, time, limit) <= self.bound.high {
                break;
            }
            let key = key.clone();
            self.left.agenda.pop_front();
            while self.left.held.front(&key).is_some_and(|held| held.meta.time <= time) {
                let gone = self.left.held.pop_front(&key);
                unmatched.extend(gone.filter(|held| self.left_outer && !held.flag));
            }
        }
        unmatched.sort_by_key(|held| (held.meta.time, held.meta.offset));
        for held in unmatched {
            let time = self.unmatched_time(held.meta.time);
            out.push(RowMeta { time, ..held.meta }, held.values);
        }
        while let Some((time, key)) = self.right.agenda.front() {
            let time = Timestamp::saturating_from_ticks(*time);
            if !ended && datediff(self.bound.unit, limit, time) >= self.bound.low {
                break;
            }
            let key = key.clone();
            self.right.agenda.pop_front();
            self.right.held.expire(&key, time.ticks());
        }
        // room for a rush is given back after it
        for agenda in [&mut self.left.agenda, &mut self.right.agenda] {
            if agenda.is_empty() {
                *agenda = VecDeque::new();
            }
        }
    }

    /// The latest moment at which a match could have come, in whole units.
    fn unmatched_time(&self, time: Timestamp) -> Timestamp {
        if self.bound.high <= 0 {
            return time;
        }
        dateadd(self.bound.unit, self.bound.high, time).unwrap_or(Timestamp::MAX)
    }

    /// Unmatched rows may still come out with the time of the oldest left row.
    fn out_watermark(&self, watermark: i64) -> i64 {
        match self.left.agenda.front() {
            Some((time, _)) if self.left_outer => {
                let oldest = self.unmatched_time(Timestamp::saturating_from_ticks(*time)).ticks();
                watermark.min(oldest.saturating_sub(1))
            }
            _ => watermark,
        }
    }

    /// When something is worked off or let go of next.
    fn next_release(&self) -> Option<i64> {
        let waiting = [&self.left, &self.right].into_iter().filter_map(Side::next).map(|(time, _)| time);
        // one unit past the bound is past every boundary that counts
        let past = |(time, _): &(i64, Key), reach: i64| {
            let time = Timestamp::saturating_from_ticks(*time);
            dateadd(self.bound.unit, reach.max(0).saturating_add(1), time).unwrap_or(Timestamp::MAX).ticks()
        };
        // inner joins have nothing to say then, but rows to let go of
        let left = self.left.agenda.front().map(|entry| past(entry, self.bound.high));
        let right = self.right.agenda.front().map(|entry| past(entry, self.bound.low.saturating_neg()));
        waiting.chain(left).chain(right).min()
    }
}

/// What decides whether two rows make a pair.
struct Pairs<'a> {
    bound: JoinBound,
    on: Option<&'a Expr>,
    of: Of,
}

impl Pairs<'_> {
    /// Appends the pairs of one row; gives the places of its partners among the others.
    fn append<'h>(
        &self,
        env: &mut Env,
        held: &'h Held,
        others: impl Iterator<Item = &'h Held>,
        out: &mut Batch,
    ) -> Result<Vec<usize>, Box<EvalError>> {
        let mut matched = Vec::new();
        for (i, other) in others.enumerate() {
            let (left, right) = if self.of == Of::Left { (held, other) } else { (other, held) };
            let distance = datediff(self.bound.unit, left.meta.time, right.meta.time);
            if !(self.bound.low..=self.bound.high).contains(&distance) {
                continue;
            }
            let newest = if right.meta.offset > left.meta.offset { right.meta } else { left.meta };
            let time = left.meta.time.max(right.meta.time);
            let meta = RowMeta { time, arrival: left.meta.arrival.max(right.meta.arrival), ..newest };
            if left.values.len() + right.values.len() != out.width() {
                return Err(env
                    .fault(Fault("a row held for a join has another width than the rows that come"), Span::default()));
            }
            out.push(meta, left.values.iter().chain(&right.values).cloned());
            if let Some(on) = self.on
                && !env.holds(on, Row { values: out.row(out.len() - 1), meta: &meta })?
            {
                out.pop();
                continue;
            }
            matched.push(i);
        }
        Ok(matched)
    }
}

impl Operator for JoinOp {
    fn inputs(&self) -> &[OperatorTree] {
        &self.inputs
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        &mut self.inputs
    }

    fn width(&self) -> usize {
        self.inputs.iter().map(OperatorTree::width).sum()
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let [left, right] = &mut self.inputs;
        let direct = [left.is_direct(), right.is_direct()];
        let (left, right) = (left.step(cx), right.step(cx));
        let watermark = left.watermark.min(right.watermark);
        for (side, direct, mut produced) in [(&mut self.left, direct[0], left), (&mut self.right, direct[1], right)] {
            cx.env.counts.evaluated += if direct { produced.batch.len() as u64 } else { 0 };
            produced.batch.rows_mut().for_each(|(meta, values)| side.waiting.push(b"", Held::taken(meta, values)));
        }
        let mut out = Batch::new(self.width());
        while let Some((of, held)) = self.pop_next(watermark) {
            self.release(held.time(), &mut out);
            if let Err(refused) = self.work_off(cx.env, of, held, &mut out)
                && !cx.env.goes_on_without(&cx.origin, refused)
            {
                return Produced::stopped(out);
            }
        }
        self.release(watermark, &mut out);
        Produced { batch: out, watermark: self.out_watermark(watermark) }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let (left, right) = (&mut self.left, &mut self.right);
        let histories = [&mut left.waiting, &mut right.waiting, &mut left.held, &mut right.held];
        fault::all(histories.into_iter().map(|history| history.changes(writer)))
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        let side = if loaded.kind.is_multiple_of(2) { &mut self.left } else { &mut self.right };
        side.load(loaded)
    }

    fn loaded(&mut self) {
        self.left.loaded();
        self.right.loaded();
    }

    fn bytes(&self) -> usize {
        self.left.bytes() + self.right.bytes()
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        self.left.is_empty() && self.right.is_empty()
    }

    /// A row that was let go took its state row with it.
    fn retire(&mut self, _writer: &mut StateWriter<'_>) {}

    /// Unmatched rows of a left join are stamped with a time that may have passed when they are known to be unmatched.
    fn is_unordered(&self) -> bool {
        self.left_outer
    }

    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.next_release().filter(|time| *time <= held_back)
    }

    /// Rows of a left join that wait for a match hold back what is above.
    fn held_back(&self, below: i64) -> i64 {
        self.out_watermark(below)
    }
}

/// Left rows with a NULL key wait under this key; no key of values is like it (those start with a small tag).
const UNMATCHABLE: &[u8] = &[0xff];
