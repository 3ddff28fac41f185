//! Joins of two streams within a bound of time.
//!
//! In: two inputs with their watermarks. Out: pairs, stamped with the later time; for a left join also the left rows that
//! found no match, stamped with their time plus the upper bound. Invariant: rows are worked off in (time, offset) order
//! over both sides, so the result does not depend on how they came; a row is held just as long as a match can come. Not
//! here: reference tables.

use std::collections::VecDeque;

use super::env::{Env, EvalError, Row};
use super::held::Held;
use super::history::History;
use super::key::{Key, put_key};
use super::operator::{Operator, Produced, Step, Tree};
use super::state::{Loaded, Writer};
use crate::batch::{Batch, RowMeta};
use crate::query::builtins::{dateadd, datediff};
use crate::query::plan::{Expr, JoinBound};
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::value::Value;
use crate::value::codec::Damaged;

/// Kinds of state rows: rows not worked off yet, rows that may still match.
const WAITING: [u8; 2] = [0, 1];
const HELD: [u8; 2] = [2, 3];

const LEFT: usize = 0;
const RIGHT: usize = 1;

#[derive(Debug)]
pub(super) struct JoinOp {
    inputs: [Tree; 2],
    id: u32,
    left_outer: bool,
    bound: JoinBound,
    keys: [Vec<Expr>; 2],
    on: Option<Expr>,
    waiting: [History; 2],
    held: [History; 2],
    /// Held rows in the order in which they go, which is the one in which they came: time and key.
    agenda: [VecDeque<(i64, Key)>; 2],
}

impl JoinOp {
    pub(super) fn new(inputs: [Tree; 2], id: u32, left_outer: bool, bound: JoinBound, keys: &[(Expr, Expr)], on: Option<&Expr>) -> JoinOp {
        // how long rows are held, roughly: the bound's distance in time
        let origin = Timestamp::saturating_from_ticks(Timestamp::MAX.ticks() / 2);
        let reach = |n: i64| dateadd(bound.unit, n, origin).map_or(TICKS_PER_SECOND, |t| (t.ticks() - origin.ticks()).abs());
        let span = reach(bound.low).max(reach(bound.high)).max(TICKS_PER_SECOND);
        JoinOp {
            inputs,
            id,
            left_outer,
            bound,
            keys: [keys.iter().map(|(l, _)| l.clone()).collect(), keys.iter().map(|(_, r)| r.clone()).collect()],
            on: on.cloned(),
            waiting: WAITING.map(|kind| History::new(kind, span)),
            held: HELD.map(|kind| History::new(kind, span)),
            agenda: [VecDeque::new(), VecDeque::new()],
        }
    }

    /// The side whose next row comes first, if it may be worked off.
    fn next_side(&self, watermark: i64) -> Option<usize> {
        let next = |(side, history): (usize, &History)| history.front(b"").map(|held| (held.time(), held.meta.offset, side));
        let (time, _, side) = self.waiting.iter().enumerate().filter_map(next).min()?;
        (time <= watermark).then_some(side)
    }

    /// Pairs a row with what the other side holds, and holds it for what is to come.
    fn work_off(&mut self, env: &mut Env, side: usize, held: Held, out: &mut Batch) -> Result<(), Refused> {
        let key = match self.key_of(env, side, &held) {
            Ok(key) => key,
            Err(error) => return Err((held.meta, held.values, error)),
        };
        let Some(key) = key else {
            // NULL matches nothing; a left join still gives the row when its time has come
            if side == LEFT && self.left_outer {
                self.hold(side, UNMATCHABLE, held);
            }
            return Ok(());
        };
        let before = out.len();
        match self.pair(env, side, &key, &held, out) {
            Ok(matched) => {
                let flag = !matched.is_empty();
                if side == RIGHT {
                    matched.into_iter().for_each(|i| self.held[LEFT].set_flag(&key, i));
                }
                self.hold(side, &key, Held { flag: side == LEFT && flag, ..held });
                Ok(())
            }
            Err(error) => {
                while out.len() > before {
                    out.pop();
                }
                Err((held.meta, held.values, error))
            }
        }
    }

    /// Appends the pairs of one row; gives the places of the partners.
    fn pair(&self, env: &mut Env, side: usize, key: &[u8], held: &Held, out: &mut Batch) -> Result<Vec<usize>, Box<EvalError>> {
        let mut matched = Vec::new();
        let others = if side == LEFT { &self.held[RIGHT] } else { &self.held[LEFT] };
        let Some(others) = others.get(key) else { return Ok(matched) };
        for (i, other) in others.iter().enumerate() {
            let (left, right) = if side == LEFT { (held, other) } else { (other, held) };
            let distance = datediff(self.bound.unit, left.meta.time, right.meta.time);
            if !(self.bound.low..=self.bound.high).contains(&distance) {
                continue;
            }
            let newest = if right.meta.offset > left.meta.offset { right.meta } else { left.meta };
            let meta = RowMeta { time: left.meta.time.max(right.meta.time), arrival: left.meta.arrival.max(right.meta.arrival), ..newest };
            out.push(meta, left.values.iter().chain(&right.values).cloned());
            if let Some(on) = &self.on
                && !env.holds(on, Row { values: out.row(out.len() - 1), meta: &meta })?
            {
                out.pop();
                continue;
            }
            matched.push(i);
        }
        Ok(matched)
    }

    /// The bytes of a row's join key; `None` when a part of it is NULL.
    fn key_of(&self, env: &mut Env, side: usize, held: &Held) -> Result<Option<Vec<u8>>, Box<EvalError>> {
        let mut key = Vec::new();
        for expr in self.keys.get(side).into_iter().flatten() {
            let value = env.eval(expr, Row { values: &held.values, meta: &held.meta })?;
            if value.is_null() {
                return Ok(None);
            }
            put_key(&mut key, &value);
        }
        Ok(Some(key))
    }

    fn hold(&mut self, side: usize, key: &[u8], held: Held) {
        let time = held.time();
        self.side(side, |s| {
            s.held.push(key, held);
            s.agenda.push_back((time, key.into()));
        });
    }

    /// Lets go of rows that nothing can match any more once only rows from `limit` on can come; left rows without a
    /// match come out.
    fn release(&mut self, limit: i64, out: &mut Batch) {
        let limit = Timestamp::saturating_from_ticks(limit);
        let ended = limit == Timestamp::MAX;
        let mut unmatched: Vec<Held> = Vec::new();
        while let Some((time, key)) = self.agenda[LEFT].front() {
            let time = Timestamp::saturating_from_ticks(*time);
            if !ended && datediff(self.bound.unit, time, limit) <= self.bound.high {
                break;
            }
            let key = key.clone();
            self.agenda[LEFT].pop_front();
            while self.held[LEFT].front(&key).is_some_and(|held| held.meta.time <= time) {
                unmatched.extend(self.held[LEFT].pop_front(&key).filter(|held| self.left_outer && !held.flag));
            }
        }
        unmatched.sort_by_key(|held| (held.meta.time, held.meta.offset));
        for held in unmatched {
            let time = self.unmatched_time(held.meta.time);
            out.push(RowMeta { time, ..held.meta }, held.values);
        }
        while let Some((time, key)) = self.agenda[RIGHT].front() {
            let time = Timestamp::saturating_from_ticks(*time);
            if !ended && datediff(self.bound.unit, limit, time) >= self.bound.low {
                break;
            }
            let key = key.clone();
            self.agenda[RIGHT].pop_front();
            self.held[RIGHT].expire(&key, time.ticks());
        }
        // room for a rush is given back after it
        self.agenda.iter_mut().filter(|agenda| agenda.is_empty()).for_each(|agenda| *agenda = VecDeque::new());
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
        match self.agenda[LEFT].front() {
            Some((time, _)) if self.left_outer => {
                let oldest = self.unmatched_time(Timestamp::saturating_from_ticks(*time)).ticks();
                watermark.min(oldest.saturating_sub(1))
            }
            _ => watermark,
        }
    }

    fn side<T>(&mut self, side: usize, with: impl FnOnce(Side<'_>) -> T) -> Option<T> {
        let waiting = self.waiting.get_mut(side)?;
        let held = self.held.get_mut(side)?;
        let agenda = self.agenda.get_mut(side)?;
        Some(with(Side { waiting, held, agenda }))
    }

    /// When something is worked off or let go of next.
    fn next_release(&self) -> Option<i64> {
        let waiting = self.waiting.iter().filter_map(|w| w.front(b"").map(Held::time));
        // one unit past the bound is past every boundary that counts
        let past = |(time, _): &(i64, Key), reach: i64| {
            let past = dateadd(self.bound.unit, reach.max(0).saturating_add(1), Timestamp::saturating_from_ticks(*time));
            past.unwrap_or(Timestamp::MAX).ticks()
        };
        // inner joins have nothing to say then, but rows to let go of
        let left = self.agenda[LEFT].front().map(|entry| past(entry, self.bound.high));
        let right = self.agenda[RIGHT].front().map(|entry| past(entry, self.bound.low.saturating_neg()));
        waiting.chain(left).chain(right).min()
    }
}

impl Operator for JoinOp {
    fn inputs(&self) -> &[Tree] {
        &self.inputs
    }

    fn inputs_mut(&mut self) -> &mut [Tree] {
        &mut self.inputs
    }

    fn width(&self) -> usize {
        self.inputs.iter().map(Tree::width).sum()
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut Step<'_>) -> Produced {
        let [left, right] = &mut self.inputs;
        let direct = [left.is_direct(), right.is_direct()];
        let (left, right) = (left.step(cx), right.step(cx));
        let watermark = left.watermark.min(right.watermark);
        for (side, mut produced) in [left, right].into_iter().enumerate() {
            for i in 0..produced.batch.len() {
                let Some(meta) = produced.batch.meta().get(i).copied() else { break };
                let values = produced.batch.row_mut(i).iter_mut().map(std::mem::take).collect();
                self.side(side, |s| s.waiting.push(b"", Held { meta, flag: false, values }));
                cx.env.counts.evaluated += u64::from(direct.get(side).copied().unwrap_or(false));
            }
        }
        let mut out = Batch::new(self.width());
        while let Some(side) = self.next_side(watermark) {
            let Some(held) = self.side(side, |s| s.waiting.pop_front(b"")).flatten() else { break };
            self.release(held.time(), &mut out);
            if let Err((meta, values, error)) = self.work_off(cx.env, side, held, &mut out)
                && !cx.env.goes_on(&cx.origin, Row { values: &values, meta: &meta }, *error, false)
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

    fn changes(&mut self, writer: &mut Writer<'_>) {
        self.waiting.iter_mut().chain(&mut self.held).for_each(|history| history.changes(writer));
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        let [left_waiting, right_waiting] = &mut self.waiting;
        let [left_held, right_held] = &mut self.held;
        match loaded.kind {
            0 => left_waiting.load(loaded),
            1 => right_waiting.load(loaded),
            2 => left_held.load(loaded),
            _ => right_held.load(loaded),
        }
    }

    /// Finds the agenda of loaded rows again.
    fn loaded(&mut self) {
        for (agenda, held) in self.agenda.iter_mut().zip(&self.held) {
            for key in held.keys() {
                agenda.extend(held.get(key).into_iter().flatten().map(|row| (row.time(), Key::from(key))));
            }
            agenda.make_contiguous().sort_unstable();
        }
    }

    fn bytes(&self) -> usize {
        let agenda = self.agenda.iter().map(|agenda| agenda.capacity() * size_of::<(i64, Key)>()).sum::<usize>();
        self.waiting.iter().chain(&self.held).map(History::bytes).sum::<usize>() + agenda
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        self.waiting.iter().chain(&self.held).all(|history| history.len() == 0)
    }
    /// A row that was let go took its state row with it.
    fn retire(&mut self, _writer: &mut Writer<'_>) {}

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

/// A row that failed, and why.
type Refused = (RowMeta, Box<[Value]>, Box<EvalError>);

/// Left rows with a NULL key wait under this key; no key of values is like it (those start with a small tag).
const UNMATCHABLE: &[u8] = &[0xff];

struct Side<'a> {
    waiting: &'a mut History,
    held: &'a mut History,
    agenda: &'a mut VecDeque<(i64, Key)>,
}
