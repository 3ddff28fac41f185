//! MATCH_RECOGNIZE over rows: attempts at a pattern, from each row on.
//!
//! In: rows in time order. Out: one row a match, stamped with the time of its last row. Invariant: attempts of a key are
//! decided in the order of their first rows, and what decides one (rows within the limit, or the limit passed) does not
//! depend on how rows came. Rows are held while an attempt from them, or from one before, is undecided. Not here: the
//! pattern itself (`pattern`).

use std::collections::BTreeSet;

use super::env::{Env, EvalError, Row};
use super::held::Held;
use super::history::History;
use super::operator::{Operator, Produced, Step, Tree};
use super::options::OnError;
use super::pattern::{Outcome, Program, STEPS_MAX};
use super::state::{Loaded, Writer};
use crate::batch::{Batch, RowMeta};
use crate::query::builtins::RowError;
use crate::query::plan::{Expr, Match, Navigate, Navigation};
use crate::value::Value;
use crate::value::codec::Damaged;

/// Kind of its state rows.
const HELD: u8 = 0;
/// Rows of a key that one attempt may look at; with more, what is there decides.
const ROWS_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct MatchOp {
    input: Tree,
    id: u32,
    plan: Match,
    program: Program,
    held: History,
    /// The moment at which the first attempt of each key is decided whatever comes.
    agenda: BTreeSet<(i64, Box<[u8]>)>,
    key: Vec<u8>,
}

type Refused = (RowMeta, Box<[Value]>, Box<EvalError>);

impl MatchOp {
    pub(super) fn new(input: Tree, id: u32, plan: &Match) -> MatchOp {
        let program = Program::new(&plan.pattern);
        let held = History::new(HELD, plan.limit);
        MatchOp { input, id, plan: plan.clone(), program, held, agenda: BTreeSet::new(), key: Vec::new() }
    }

    /// A match still to come is stamped no earlier than the oldest row held.
    fn out_watermark(&self, watermark: i64) -> i64 {
        let oldest = self.agenda.first().map_or(i64::MAX, |(end, _)| end.saturating_sub(self.plan.limit).saturating_sub(1));
        watermark.min(oldest)
    }

    /// Decides the attempts whose time is over when no row before `now` can come; false: stopped.
    fn expire(&mut self, cx: &mut Step<'_>, now: i64, out: &mut Batch) -> bool {
        while let Some((end, key)) = self.agenda.first() {
            if *end > now {
                break;
            }
            let (end, key) = (*end, key.clone());
            if !self.advance(cx, &key, end, out) {
                return false;
            }
        }
        true
    }

    /// Decides the attempts of a key, oldest first, as far as they can be; false: stopped.
    fn advance(&mut self, cx: &mut Step<'_>, key: &[u8], now: i64, out: &mut Batch) -> bool {
        while let Some(first) = self.held.front(key) {
            let end = first.time().saturating_add(self.plan.limit);
            let failed = match self.attempt(cx.env, key, end, now >= end, out) {
                Ok(false) => return true,
                Ok(true) => None,
                Err(refused) => Some(refused),
            };
            self.held.pop_front(key);
            self.agenda.remove(&(end, key.into()));
            if let Some(next) = self.held.front(key) {
                self.agenda.insert((next.time().saturating_add(self.plan.limit), key.into()));
            }
            if let Some((meta, values, error)) = failed
                && !cx.env.goes_on(&cx.origin, Row { values: &values, meta: &meta }, *error, false)
            {
                return false;
            }
        }
        true
    }

    /// The attempt from the oldest row of a key; whether it is decided.
    fn attempt(&self, env: &mut Env, key: &[u8], end: i64, over: bool, out: &mut Batch) -> Result<bool, Refused> {
        let Some(rows) = self.held.get(key) else { return Ok(true) };
        let inside = rows.iter().take(ROWS_MAX).take_while(|held| held.time() < end).count();
        let ended = over || inside >= ROWS_MAX;
        let refused = |i: usize, error| match rows.get(i) {
            Some(held) => (held.meta, held.values.clone(), error),
            None => (
                RowMeta { time: crate::time::Timestamp::MIN, arrival: crate::time::Timestamp::MIN, offset: 0, ordinal: 0 },
                Box::default(),
                error,
            ),
        };
        let mut holds = |variable: usize, i: usize, before: &[Option<usize>]| -> Result<bool, Refused> {
            let Some(Some(condition)) = self.plan.define.get(variable) else { return Ok(true) };
            let mut taken = before.to_vec();
            taken.push(Some(variable));
            self.holds(env, condition, rows, i, &taken).map_err(|error| refused(i, error))
        };
        let taken = match self.program.run(inside, ended, &mut holds)? {
            Outcome::Open => return Ok(false),
            Outcome::None => return Ok(true),
            Outcome::TooComplex => {
                let message = format!("an attempt at the pattern took more than {STEPS_MAX} steps; make its quantifiers tell rows apart");
                let error = RowError { reason: "too_complex", message };
                let policy = match env.options.on_error {
                    OnError::Null => OnError::DeadLetter,
                    other => other,
                };
                return Err(refused(0, Box::new(EvalError { error, span: self.plan.span, policy })));
            }
            Outcome::Match(taken) => taken,
        };
        let last = taken.len().saturating_sub(1);
        let (Some(held), true) = (rows.get(last), !taken.is_empty()) else { return Ok(true) };
        let measured = self.look(env, rows, last, &taken).and_then(|values| {
            let row = Row { values: &values, meta: &held.meta };
            self.plan.measures.iter().map(|e| Ok(env.eval(e, row)?.into_owned())).collect::<Result<Vec<_>, _>>()
        });
        out.push(held.meta, measured.map_err(|error| refused(last, error))?);
        Ok(true)
    }

    fn holds(
        &self,
        env: &mut Env,
        condition: &Expr,
        rows: &std::collections::VecDeque<Held>,
        i: usize,
        taken: &[Option<usize>],
    ) -> Result<bool, Box<EvalError>> {
        let Some(held) = rows.get(i) else { return Ok(false) };
        let values = self.look(env, rows, i, taken)?;
        env.holds(condition, Row { values: &values, meta: &held.meta })
    }

    /// The row with what is looked at in the rows taken behind it.
    fn look(
        &self,
        env: &mut Env,
        rows: &std::collections::VecDeque<Held>,
        i: usize,
        taken: &[Option<usize>],
    ) -> Result<Vec<Value>, Box<EvalError>> {
        let mut values: Vec<Value> = rows.get(i).map(|held| held.values.to_vec()).unwrap_or_default();
        values.resize(self.input.width(), Value::Null);
        for navigation in &self.plan.navigations {
            values.push(self.navigate(env, navigation, rows, taken)?);
        }
        Ok(values)
    }

    fn navigate(
        &self,
        env: &mut Env,
        navigation: &Navigation,
        rows: &std::collections::VecDeque<Held>,
        taken: &[Option<usize>],
    ) -> Result<Value, Box<EvalError>> {
        let Some(argument) = &navigation.argument else {
            let name = |v: &Option<usize>| v.and_then(|v| self.plan.variables.get(v)).map_or(Value::Null, Value::text);
            return Ok(Value::array(taken.iter().map(name).collect()));
        };
        let mut of_variable = rows.iter().zip(taken).filter(|(_, v)| **v == navigation.variable).map(|(held, _)| held);
        let value = |env: &mut Env, held: &Held| Ok(env.eval(argument, Row { values: &held.values, meta: &held.meta })?.into_owned());
        let only = match navigation.navigate {
            Navigate::First => of_variable.next(),
            Navigate::Last => of_variable.next_back(),
            least => {
                let mut best = Value::Null;
                let better = if least == Navigate::Min { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
                for held in of_variable {
                    let next: Value = value(env, held)?;
                    if !next.is_null() && (best.is_null() || next.compare(&best) == Some(better)) {
                        best = next;
                    }
                }
                return Ok(best);
            }
        };
        only.map_or(Ok(Value::Null), |held| value(env, held))
    }
}

impl Operator for MatchOp {
    fn inputs(&self) -> &[Tree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [Tree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.plan.measures.len()
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut Step<'_>) -> Produced {
        let direct = self.input.is_direct();
        let mut produced = self.input.step(cx);
        let mut out = Batch::new(self.width());
        for i in 0..produced.batch.len() {
            let Some(meta) = produced.batch.meta().get(i).copied() else { break };
            let row = Row { values: produced.batch.row(i), meta: &meta };
            let mut key = std::mem::take(&mut self.key);
            if let Err(error) = cx.env.eval_key(&self.plan.partition_by, row, &mut key) {
                if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                    return Produced::stopped(out);
                }
                self.key = key;
                continue;
            }
            cx.env.counts.evaluated += u64::from(direct);
            let now = meta.time.ticks();
            let values = produced.batch.row_mut(i).iter_mut().map(std::mem::take).collect();
            let went_on = self.expire(cx, now, &mut out) && {
                let is_first = self.held.front(&key).is_none();
                self.held.push(&key, Held { meta, flag: false, values });
                if is_first {
                    self.agenda.insert((now.saturating_add(self.plan.limit), key.as_slice().into()));
                }
                self.advance(cx, &key, now, &mut out)
            };
            self.key = key;
            if !went_on {
                return Produced::stopped(out);
            }
        }
        if !self.expire(cx, produced.watermark, &mut out) {
            return Produced::stopped(out);
        }
        Produced { batch: out, watermark: self.out_watermark(produced.watermark) }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    fn changes(&mut self, writer: &mut Writer<'_>) {
        self.held.changes(writer);
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        self.held.load(loaded)
    }

    /// Finds the agenda of loaded rows again.
    fn loaded(&mut self) {
        let keys: Vec<Box<[u8]>> = self.held.keys().map(Box::from).collect();
        for key in keys {
            if let Some(first) = self.held.front(&key) {
                self.agenda.insert((first.time().saturating_add(self.plan.limit), key));
            }
        }
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        self.held.len() == 0
    }

    fn bytes(&self) -> usize {
        self.held.bytes()
    }
    /// A row that was let go took its state row with it.
    fn retire(&mut self, _writer: &mut Writer<'_>) {}

    /// A match is known only when a later row ends it.
    fn is_unordered(&self) -> bool {
        true
    }

    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.agenda.first().map(|(end, _)| *end).filter(|time| *time <= held_back)
    }

    /// Attempts at the pattern hold back what is above.
    fn held_back(&self, below: i64) -> i64 {
        self.out_watermark(below)
    }
}
