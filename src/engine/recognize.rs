//! MATCH_RECOGNIZE over rows: attempts at a pattern, from each row on.
//!
//! In: rows in time order. Out: one row a match, stamped with the time of its last row. Invariant: attempts of a key
//! are decided in the order of their first rows, and what decides one (rows within the limit, or the limit passed) does
//! not depend on how rows came. Rows are held while an attempt from them, or from one before, is undecided. Not here:
//! the pattern itself (`pattern`).

use std::collections::{BTreeSet, VecDeque};

use super::env::{Env, EvalError, RefusedRow, Row};
use super::fault::{Fault, Unloadable};
use super::held::Held;
use super::history::History;
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::options::OnError;
use super::pattern::{MatchAttempt, Program, STEPS_MAX};
use super::state::{Loaded, StateWriter};
use crate::batch::{Batch, RowMeta};
use crate::query::builtins::RowError;
use crate::query::plan::{Match, Navigate, Navigation};
use crate::value::Value;

/// Kind of its state rows.
const HELD: u8 = 0;
/// Rows of a key that one attempt may look at; with more, what is there decides.
const ROWS_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct MatchOp {
    input: OperatorTree,
    id: u32,
    plan: Match,
    program: Program,
    held: History,
    /// The moment at which the first attempt of each key is decided whatever comes.
    agenda: BTreeSet<(i64, Box<[u8]>)>,
    key: Vec<u8>,
}

impl MatchOp {
    pub(super) fn new(input: OperatorTree, id: u32, plan: &Match) -> MatchOp {
        let program = Program::new(&plan.pattern);
        let held = History::new(HELD, plan.limit);
        MatchOp { input, id, plan: plan.clone(), program, held, agenda: BTreeSet::new(), key: Vec::new() }
    }

    /// A match still to come is stamped no earlier than the oldest row held.
    fn out_watermark(&self, watermark: i64) -> i64 {
        let oldest =
            self.agenda.first().map_or(i64::MAX, |(end, _)| end.saturating_sub(self.plan.limit).saturating_sub(1));
        watermark.min(oldest)
    }

    /// Decides the attempts whose time is over when no row before `now` can come; false: stopped.
    fn expire(&mut self, cx: &mut StepContext<'_>, now: i64, out: &mut Batch) -> bool {
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
    fn advance(&mut self, cx: &mut StepContext<'_>, key: &[u8], now: i64, out: &mut Batch) -> bool {
        while let Some(rows) = self.held.get(key)
            && let Some(first) = rows.front()
        {
            let end = first.time().saturating_add(self.plan.limit);
            let failed = match self.attempt(cx.env, rows, end, now >= end, out) {
                Ok(false) => return true,
                Ok(true) => None,
                Err((at, error)) => Some(RefusedRow::of(rows.get(at).unwrap_or(first), error)),
            };
            self.held.pop_front(key);
            self.agenda.remove(&(end, key.into()));
            if let Some(next) = self.held.front(key) {
                self.agenda.insert((next.time().saturating_add(self.plan.limit), key.into()));
            }
            if failed.is_some_and(|refused| !cx.env.goes_on_without(&cx.origin, refused)) {
                return false;
            }
        }
        true
    }

    /// The attempt from the oldest of the rows: whether it is decided, or at which row it failed.
    fn attempt(
        &self,
        env: &mut Env,
        rows: &VecDeque<Held>,
        end: i64,
        over: bool,
        out: &mut Batch,
    ) -> Result<bool, (usize, Box<EvalError>)> {
        let inside = rows.iter().take(ROWS_MAX).take_while(|held| held.time() < end).count();
        let ended = over || inside >= ROWS_MAX;
        let mut holds = |variable: usize, i: usize, before: &[Option<usize>]| {
            let mut taken = before.to_vec();
            taken.push(Some(variable));
            self.takes(env, variable, rows, i, &taken).map_err(|error| (i, error))
        };
        let taken = match self.program.run(inside, ended, &mut holds)? {
            MatchAttempt::Open => return Ok(false),
            MatchAttempt::Failed => return Ok(true),
            MatchAttempt::TooComplex => return Err((0, self.too_complex(env))),
            MatchAttempt::Lost => return Err((0, self.fault(env, "a pattern leads to a step that it does not have"))),
            MatchAttempt::Match(taken) => taken,
        };
        // a match of no rows gives none
        let Some(last) = taken.len().checked_sub(1) else { return Ok(true) };
        let (meta, measured) = self.measured(env, rows, last, &taken).map_err(|error| (last, error))?;
        out.push(meta, measured);
        Ok(true)
    }

    fn too_complex(&self, env: &Env) -> Box<EvalError> {
        let message =
            format!("an attempt at the pattern took more than {STEPS_MAX} steps; make its quantifiers tell rows apart");
        let policy = match env.options.on_error {
            OnError::Null => OnError::DeadLetter,
            other => other,
        };
        Box::new(EvalError { error: RowError { reason: "too_complex", message }, span: self.plan.span, policy })
    }

    /// Whether a row can be taken as a variable; `taken` ends with it.
    fn takes(
        &self,
        env: &mut Env,
        variable: usize,
        rows: &VecDeque<Held>,
        i: usize,
        taken: &[Option<usize>],
    ) -> Result<bool, Box<EvalError>> {
        let condition = self.plan.define.get(variable);
        let condition = condition.ok_or_else(|| self.fault(env, "a variable of a pattern has no place"))?;
        let Some(condition) = condition else { return Ok(true) };
        let (meta, values) = self.look(env, rows, i, taken)?;
        env.holds(condition, Row { values: &values, meta: &meta })
    }

    fn measured(
        &self,
        env: &mut Env,
        rows: &VecDeque<Held>,
        last: usize,
        taken: &[Option<usize>],
    ) -> Result<(RowMeta, Vec<Value>), Box<EvalError>> {
        let (meta, values) = self.look(env, rows, last, taken)?;
        let row = Row { values: &values, meta: &meta };
        let measures = self.plan.measures.iter().map(|e| Ok(env.eval(e, row)?.into_owned()));
        Ok((meta, measures.collect::<Result<_, Box<EvalError>>>()?))
    }

    #[cold]
    fn fault(&self, env: &Env, what: &'static str) -> Box<EvalError> {
        env.fault(Fault(what), self.plan.span)
    }

    /// The row with what is looked at in the rows taken behind it.
    fn look(
        &self,
        env: &mut Env,
        rows: &VecDeque<Held>,
        i: usize,
        taken: &[Option<usize>],
    ) -> Result<(RowMeta, Vec<Value>), Box<EvalError>> {
        let held =
            rows.get(i).ok_or_else(|| self.fault(env, "an attempt at a pattern looks at a row that is not held"))?;
        if held.values.len() != self.input.width() {
            return Err(self.fault(env, "a row held for a pattern has another width than the rows that come"));
        }
        let mut values = held.values.to_vec();
        for navigation in &self.plan.navigations {
            values.push(self.navigate(env, navigation, rows, taken)?);
        }
        Ok((held.meta, values))
    }

    fn navigate(
        &self,
        env: &mut Env,
        navigation: &Navigation,
        rows: &VecDeque<Held>,
        taken: &[Option<usize>],
    ) -> Result<Value, Box<EvalError>> {
        let Some(argument) = &navigation.argument else {
            let nameless = || self.fault(env, "a variable of a pattern has no name");
            let name = |v: &Option<usize>| match v {
                Some(v) => self.plan.variables.get(*v).map(Value::text).ok_or_else(nameless),
                // `.` takes a row as no variable
                None => Ok(Value::Null),
            };
            return Ok(Value::array(taken.iter().map(name).collect::<Result<_, _>>()?));
        };
        let mut of_variable = rows.iter().zip(taken).filter(|(_, v)| **v == navigation.variable).map(|(held, _)| held);
        let value = |env: &mut Env, held: &Held| {
            Ok(env.eval(argument, Row { values: &held.values, meta: &held.meta })?.into_owned())
        };
        let only = match navigation.navigate {
            Navigate::First => of_variable.next(),
            Navigate::Last => of_variable.next_back(),
            least => {
                let mut best = Value::Null;
                let better =
                    if least == Navigate::Min { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
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
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.plan.measures.len()
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let direct = self.input.is_direct();
        let mut produced = self.input.step(cx);
        let mut out = Batch::new(self.width());
        for (meta, values) in produced.batch.rows_mut() {
            let row = Row { values, meta };
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
            let went_on = self.expire(cx, now, &mut out) && {
                let is_first = self.held.front(&key).is_none();
                self.held.push(&key, Held::taken(meta, values));
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

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        self.held.changes(writer)
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
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
    fn retire(&mut self, _writer: &mut StateWriter<'_>) {}

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
