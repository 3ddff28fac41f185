//! `OVER (LIMIT DURATION …)`: functions of the rows seen so far.
//!
//! In: rows in time order. Out: each row with one value appended for each call. Invariant: a row whose age has reached
//! the limit is not looked at, and a row that fails changes nothing. Not here: `WHERE` (which comes after), windows.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::accumulate::Acc;
use super::anomaly::Detector;
use super::eval::{EvalError, Row};
use super::group::fill_args;
use super::history::{Held, History};
use super::op::{Flow, Op, Step};
use super::state::{Loaded, Writer};
use super::{EngineError, env::Env};
use crate::batch::{Batch, RowMeta};
use crate::query::builtins;
use crate::query::plan::{Aggregate, Analytic, AnalyticFunction};
use crate::value::codec::{Damaged, Reader, put_signed, put_value, put_varint};
use crate::value::{Type, Value};

/// State rows: values looked back at, first of an interval; held rows take kinds from `HELD` on, one a call.
const RECENT: u8 = 0;
const HELD: u8 = 16;
/// More calls than this in one `SELECT` have no kinds left.
const CALLS_MAX: usize = 200;
/// Keys that can no longer matter are looked for after about this many rows, and at least as many as there are keys.
const SWEEP_ROWS: usize = 4096;

#[derive(Debug)]
pub(super) struct AnalyticOp {
    pub input: Op,
    pub id: u32,
    calls: Vec<Call>,
    since_sweep: usize,
}

#[derive(Debug)]
struct Call {
    plan: Analytic,
    /// The function over the held rows, when it is an aggregate.
    aggregate: Option<Aggregate>,
    state: State,
    // what the present row gives, evaluated before any call changes its state
    key: Vec<u8>,
    matches: bool,
    values: Vec<Value>,
    default: Value,
}

#[derive(Debug)]
enum State {
    /// The last few matching rows of each key.
    Recent {
        keys: FxHashMap<Box<[u8]>, Recent>,
        changed: Vec<Box<[u8]>>,
        keep: usize,
    },
    Held(History),
    /// What the anomaly functions have learned of each key.
    Learned(Detector),
}

#[derive(Debug, Default)]
struct Recent {
    items: VecDeque<(i64, Value)>,
    dirty: bool,
    stored: bool,
}

impl AnalyticOp {
    pub(super) fn new(input: Op, id: u32, calls: &[Analytic]) -> Result<AnalyticOp, EngineError> {
        if calls.len() > CALLS_MAX {
            return Err(EngineError::TooManyCalls { max: CALLS_MAX });
        }
        let calls = calls.iter().enumerate().map(|(i, plan)| Call::new(i, plan)).collect();
        Ok(AnalyticOp { input, id, calls, since_sweep: 0 })
    }

    pub(super) fn width(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn step(&mut self, cx: &mut Step<'_>, direct: bool) -> Flow {
        let mut flow = self.input.step(cx);
        let width = flow.batch.width();
        let mut out = Batch::with_capacity(width + self.calls.len(), flow.batch.len());
        for i in 0..flow.batch.len() {
            let Some(meta) = flow.batch.meta().get(i).copied() else { break };
            let row = Row { values: flow.batch.row(i), meta: &meta };
            let result = self.calls.iter_mut().try_for_each(|call| call.evaluate(cx.env, row));
            let results = result.and_then(|()| self.calls.iter_mut().map(|call| call.apply(cx.env, &meta)).collect::<Result<Vec<_>, _>>());
            match results {
                Ok(results) => {
                    let values = flow.batch.row_mut(i).iter_mut().map(std::mem::take);
                    out.push(meta, values.chain(results));
                }
                Err(error) => {
                    if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                        return Flow { batch: out, watermark: i64::MIN };
                    }
                }
            }
        }
        self.sweep(flow.batch.len(), flow.watermark);
        Flow { batch: out, watermark: flow.watermark }
    }

    /// Forgets keys of which nothing can be looked at any more.
    fn sweep(&mut self, rows: usize, watermark: i64) {
        self.since_sweep += rows;
        let keys: usize = self.calls.iter().map(Call::keys).sum();
        if self.since_sweep >= SWEEP_ROWS.max(keys) {
            self.since_sweep = 0;
            self.calls.iter_mut().for_each(|call| call.forget(watermark));
        }
    }

    pub(super) fn changes(&mut self, writer: &mut Writer<'_>) {
        for (i, call) in self.calls.iter_mut().enumerate() {
            call.changes(i, writer);
        }
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        if loaded.kind >= HELD {
            return match self.calls.get_mut(usize::from(loaded.kind - HELD)).map(|c| &mut c.state) {
                Some(State::Held(history)) => history.load(loaded),
                Some(State::Learned(detector)) => detector.load(loaded),
                _ => Ok(()),
            };
        }
        let Some((number, key)) = loaded.rest.split_first() else { return Ok(()) };
        let Some(State::Recent { keys, .. }) = self.calls.get_mut(usize::from(*number)).map(|c| &mut c.state) else { return Ok(()) };
        let mut reader = Reader::new(loaded.value);
        let n = reader.length()?;
        let items = (0..n).map(|_| Ok((reader.signed()?, reader.value()?))).collect::<Result<_, Damaged>>()?;
        keys.insert(key.into(), Recent { items, dirty: false, stored: true });
        Ok(())
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        for call in &mut self.calls {
            if let State::Learned(detector) = &mut call.state {
                detector.loaded();
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let recent = |r: &Recent| 64 + r.items.iter().map(|(_, v)| 32 + v.heap_bytes()).sum::<usize>();
        let bytes = |call: &Call| match &call.state {
            State::Recent { keys, .. } => keys.iter().map(|(k, r)| k.len() + recent(r)).sum(),
            State::Held(history) => history.bytes(),
            State::Learned(detector) => detector.bytes(),
        };
        self.calls.iter().map(bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.iter().all(|call| call.keys() == 0)
    }

    /// Forgets what cannot matter at this watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        self.calls.iter_mut().for_each(|call| call.forget(watermark));
    }
}

impl Call {
    fn new(number: usize, plan: &Analytic) -> Call {
        let recent = |keep| State::Recent { keys: FxHashMap::default(), changed: Vec::new(), keep };
        let kind = u8::try_from(number).unwrap_or(u8::MAX).saturating_add(HELD);
        let limit = plan.limit.unwrap_or(1);
        let mut aggregate = None;
        let state = match &plan.function {
            AnalyticFunction::Lag { offset } => recent((*offset).max(1)),
            AnalyticFunction::Last | AnalyticFunction::IsFirst { .. } => recent(1),
            AnalyticFunction::Aggregate(function) => {
                aggregate = Some(Aggregate {
                    function: function.clone(),
                    argument: plan.argument.clone(),
                    user_args: Vec::new(),
                    distinct: false,
                    order_by: plan.order_by.clone(),
                    span: plan.span,
                });
                State::Held(History::new(kind, limit))
            }
            AnalyticFunction::SpikeAndDip { confidence, history, mode } => {
                State::Learned(Detector::new(kind, Some(*mode), *confidence, *history, limit))
            }
            AnalyticFunction::ChangePoint { confidence, history } => {
                State::Learned(Detector::new(kind, None, *confidence, *history, limit))
            }
        };
        let (key, values) = (Vec::new(), Vec::new());
        Call { plan: plan.clone(), aggregate, state, key, matches: false, values, default: Value::Null }
    }

    fn keys(&self) -> usize {
        match &self.state {
            State::Recent { keys, .. } => keys.len(),
            State::Held(history) => history.len(),
            State::Learned(detector) => detector.len(),
        }
    }

    fn evaluate(&mut self, env: &mut Env, row: Row<'_>) -> Result<(), Box<EvalError>> {
        env.eval_key(&self.plan.partition_by, row, &mut self.key)?;
        self.matches = match &self.plan.when {
            Some(when) => env.holds(when, row)?,
            None => true,
        };
        self.values.clear();
        match (&self.aggregate, &self.plan.argument) {
            (Some(aggregate), _) => fill_args(env, aggregate, row, &mut self.values)?,
            (None, Some(argument)) => {
                let value = env.eval(argument, row)?.into_owned();
                let is_number = !matches!(self.state, State::Learned(_)) || matches!(value, Value::Null | Value::Float(_));
                let value = if is_number { Ok(value) } else { builtins::cast(&value, Type::Float) };
                self.values.push(value.or_else(|error| env.or_null(error, self.plan.span))?);
            }
            (None, None) => self.values.push(Value::Null),
        }
        self.default = match &self.plan.default {
            Some(default) => env.eval(default, row)?.into_owned(),
            None => Value::Null,
        };
        Ok(())
    }

    /// The call's value for the evaluated row, which then becomes history.
    fn apply(&mut self, env: &mut Env, meta: &RowMeta) -> Result<Value, Box<EvalError>> {
        let now = meta.time.ticks();
        let limit = self.plan.limit.unwrap_or(i64::MAX);
        match (&mut self.state, &self.plan.function) {
            (State::Held(history), _) => {
                let values = std::mem::take(&mut self.values).into();
                let Some(aggregate) = &self.aggregate else { return Ok(Value::Null) };
                if self.matches {
                    history.push(&self.key, Held { meta: *meta, flag: false, values });
                }
                while history.front(&self.key).is_some_and(|held| now.saturating_sub(held.time()) >= limit) {
                    history.pop_front(&self.key);
                }
                let mut acc = Acc::new(aggregate);
                for held in history.get(&self.key).into_iter().flatten() {
                    acc.add(aggregate, &held.values);
                }
                acc.finish(aggregate).or_else(|error| env.or_null(error, aggregate.span))
            }
            (State::Learned(detector), _) => {
                let value = match self.values.pop() {
                    Some(Value::Float(value)) => Some(value),
                    _ => None,
                };
                Ok(detector.observe(&self.key, now, value, self.matches))
            }
            (State::Recent { keys, changed, keep }, function) => {
                let value = self.values.pop().unwrap_or_default();
                let default = std::mem::take(&mut self.default);
                let recent = match keys.get_mut(self.key.as_slice()) {
                    Some(recent) => recent,
                    None if !self.matches => {
                        return Ok(if let AnalyticFunction::IsFirst { .. } = function { Value::BigInt(0) } else { default });
                    }
                    None => keys.entry(self.key.as_slice().into()).or_default(),
                };
                let young = |item: Option<&(i64, Value)>| match item {
                    Some((time, value)) if now.saturating_sub(*time) < limit => value.clone(),
                    _ => default.clone(),
                };
                let (result, entry) = match function {
                    AnalyticFunction::Lag { .. } => {
                        let back = recent.items.len().checked_sub(*keep).and_then(|i| recent.items.get(i));
                        (young(back), (now, value))
                    }
                    AnalyticFunction::IsFirst { interval } => {
                        let end = interval_end(now, *interval);
                        let first = self.matches && recent.items.back().is_none_or(|(known, _)| *known != end);
                        if !first {
                            return Ok(Value::BigInt(0));
                        }
                        (Value::BigInt(1), (end, Value::Null))
                    }
                    _ if self.matches => (value.clone(), (now, value)),
                    _ => return Ok(young(recent.items.back())),
                };
                if self.matches {
                    recent.items.push_back(entry);
                    while recent.items.len() > *keep {
                        recent.items.pop_front();
                    }
                    if !recent.dirty {
                        recent.dirty = true;
                        changed.push(self.key.as_slice().into());
                    }
                }
                Ok(result)
            }
        }
    }

    fn forget(&mut self, watermark: i64) {
        // an interval is over when its end is past, other rows when they reach the limit
        let limit = match self.plan.function {
            AnalyticFunction::IsFirst { .. } => 1,
            _ => self.plan.limit.unwrap_or(i64::MAX),
        };
        let over = |time: i64| watermark.saturating_sub(time) >= limit;
        match &mut self.state {
            State::Recent { keys, changed, .. } => {
                for (key, recent) in keys.iter_mut() {
                    if recent.items.back().is_some_and(|(time, _)| over(*time)) {
                        recent.items.clear();
                        if !recent.dirty {
                            recent.dirty = true;
                            changed.push(key.clone());
                        }
                    }
                }
            }
            State::Learned(detector) => detector.forget(watermark),
            State::Held(history) => {
                let stale = |key: &&[u8]| history.front(key).is_some_and(|held| over(held.time()));
                let keys: Vec<Box<[u8]>> = history.keys().filter(stale).map(Box::from).collect();
                for key in keys {
                    while history.front(&key).is_some_and(|held| over(held.time())) {
                        history.pop_front(&key);
                    }
                }
            }
        }
    }

    fn changes(&mut self, number: usize, writer: &mut Writer<'_>) {
        match &mut self.state {
            State::Held(history) => history.changes(writer),
            State::Learned(detector) => detector.changes(writer),
            State::Recent { keys, changed, .. } => {
                for key in changed.drain(..) {
                    let Some(recent) = keys.get_mut(&key) else { continue };
                    recent.dirty = false;
                    let mut rest = vec![u8::try_from(number).unwrap_or(u8::MAX)];
                    rest.extend_from_slice(&key);
                    if recent.items.is_empty() {
                        if recent.stored {
                            writer.put(RECENT, &rest, None);
                        }
                        keys.remove(&key);
                        continue;
                    }
                    recent.stored = true;
                    let mut value = Vec::new();
                    put_varint(&mut value, recent.items.len() as u64);
                    for (time, item) in &recent.items {
                        put_signed(&mut value, *time);
                        put_value(&mut value, item);
                    }
                    writer.put(RECENT, &rest, Some(value));
                }
            }
        }
    }
}

/// The end of the interval that a moment lies in, aligned as tumbling windows are.
fn interval_end(time: i64, interval: i64) -> i64 {
    let interval = interval.max(1);
    (time.div_euclid(interval) + i64::from(time.rem_euclid(interval) > 0)).saturating_mul(interval)
}
