//! One analytic call: what it remembers, and its value for each row.
//!
//! In: rows in time order. Out: a value for each. Invariant: a row is evaluated for all calls before any of them
//! changes what it remembers. Not here: the rows that come out (`analytic`).

use crate::batch::RowMeta;
use crate::engine::accumulate::Acc;
use crate::engine::anomaly::Detector;
use crate::engine::env::{Env, EvalError, Row};
use crate::engine::fault::{Fault, Unloadable};
use crate::engine::held::Held;
use crate::engine::history::History;
use crate::engine::key::Key;
use crate::engine::prepared::fill_args;
use crate::engine::recent::Keys;
use crate::engine::state::{Loaded, StateWriter};
use crate::query::builtins;
use crate::query::plan::{Aggregate, Analytic, AnalyticFunction};
use crate::value::codec::{ByteReader, Damaged, put_varint};
use crate::value::{Type, Value};

/// State rows: values looked back at, first of an interval; held rows take kinds from `HELD` on, one a call.
pub(super) const RECENT: u8 = 0;
pub(super) const HELD: u8 = 16;

const NOT_EVALUATED: Fault = Fault("an analytic call has no value for a row");
const NO_TOTAL: Fault = Fault("an aggregate over the past has no total");

#[derive(Debug)]
pub(super) struct AnalyticCall {
    plan: Analytic,
    state: CallState,
    // what the present row gives, evaluated before any call changes its state
    key: Vec<u8>,
    matches: bool,
    values: Vec<Value>,
    default: Value,
}

#[derive(Debug)]
enum CallState {
    /// The last few matching rows of each key.
    Recent { keys: Keys, keep: usize },
    /// Rows, and the aggregate that the function takes of them.
    Held(History, Aggregate),
    /// What the anomaly functions have learned of each key.
    Learned(Detector),
}

impl AnalyticCall {
    pub(super) fn new(number: usize, plan: &Analytic) -> AnalyticCall {
        let recent = |keep| CallState::Recent { keys: Keys::default(), keep };
        let kind = u8::try_from(number).unwrap_or(u8::MAX).saturating_add(HELD);
        let limit = plan.limit.unwrap_or(1);
        let state = match &plan.function {
            AnalyticFunction::Lag { offset } => recent((*offset).max(1)),
            AnalyticFunction::Last | AnalyticFunction::IsFirst { .. } => recent(1),
            AnalyticFunction::Aggregate(function) => {
                let aggregate = Aggregate {
                    function: function.clone(),
                    argument: plan.argument.clone(),
                    user_args: Vec::new(),
                    distinct: false,
                    order_by: plan.order_by.clone(),
                    span: plan.span,
                };
                CallState::Held(History::new(kind, limit), aggregate)
            }
            AnalyticFunction::SpikeAndDip { confidence, history, mode } => {
                CallState::Learned(Detector::new(kind, Some(*mode), *confidence, *history, limit))
            }
            AnalyticFunction::ChangePoint { confidence, history } => {
                CallState::Learned(Detector::new(kind, None, *confidence, *history, limit))
            }
        };
        let (key, values) = (Vec::new(), Vec::new());
        AnalyticCall { plan: plan.clone(), state, key, matches: false, values, default: Value::Null }
    }

    pub(super) fn keys(&self) -> usize {
        match &self.state {
            CallState::Recent { keys, .. } => keys.len(),
            CallState::Held(history, _) => history.len(),
            CallState::Learned(detector) => detector.len(),
        }
    }

    pub(super) fn evaluate(&mut self, env: &mut Env, row: Row<'_>) -> Result<(), Box<EvalError>> {
        env.eval_key(&self.plan.partition_by, row, &mut self.key)?;
        self.matches = match &self.plan.when {
            Some(when) => env.holds(when, row)?,
            None => true,
        };
        self.values.clear();
        match (&self.state, &self.plan.argument) {
            (CallState::Held(_, aggregate), _) => fill_args(env, aggregate, row, &mut self.values)?,
            (_, Some(argument)) => {
                let value = env.eval(argument, row)?.into_owned();
                let is_number = matches!(value, Value::Null | Value::Float(_));
                let value = match self.state {
                    CallState::Learned(_) if !is_number => builtins::cast(&value, Type::Float),
                    _ => Ok(value),
                };
                self.values.push(value.or_else(|error| env.or_null(error, self.plan.span))?);
            }
            (_, None) => self.values.push(Value::Null),
        }
        self.default = match &self.plan.default {
            Some(default) => env.eval(default, row)?.into_owned(),
            None => Value::Null,
        };
        Ok(())
    }

    /// The call's value for the evaluated row, which then becomes history.
    pub(super) fn apply(&mut self, env: &mut Env, meta: &RowMeta) -> Result<Value, Box<EvalError>> {
        let now = meta.time.ticks();
        let limit = self.plan.limit.unwrap_or(i64::MAX);
        match &mut self.state {
            CallState::Held(history, aggregate) => {
                let values = std::mem::take(&mut self.values).into();
                if self.matches {
                    history.push(&self.key, Held { meta: *meta, flag: false, values });
                }
                history.expire(&self.key, now.saturating_sub(limit));
                let total = history.total(&self.key, std::slice::from_ref(aggregate), 0, now, limit);
                let total = total.map_err(|fault| env.fault(fault, aggregate.span))?;
                let acc = match total {
                    None => Acc::new(aggregate),
                    Some(mut total) => total.accs.pop().ok_or_else(|| env.fault(NO_TOTAL, aggregate.span))?,
                };
                acc.finish(aggregate).or_else(|error| env.or_null(error, aggregate.span))
            }
            CallState::Learned(detector) => {
                let value = match self.values.pop() {
                    Some(Value::Float(value)) => Some(value),
                    Some(Value::Null) => None,
                    _ => return Err(env.fault(NOT_EVALUATED, self.plan.span)),
                };
                Ok(detector.observe(&self.key, now, value, self.matches))
            }
            CallState::Recent { keys, keep } => {
                let value = self.values.pop().ok_or_else(|| env.fault(NOT_EVALUATED, self.plan.span))?;
                let seen =
                    SeenRow { now, limit, value, default: std::mem::take(&mut self.default), matches: self.matches };
                seen.look_back(&self.plan.function, &self.key, keys, *keep)
                    .map_err(|fault| env.fault(fault, self.plan.span))
            }
        }
    }

    /// How long a row matters: an interval is over when its end is past, other rows when they reach the limit.
    pub(super) fn limit(&self) -> i64 {
        match self.plan.function {
            AnalyticFunction::IsFirst { interval } => interval.saturating_add(1),
            _ => self.plan.limit.unwrap_or(i64::MAX),
        }
    }

    pub(super) fn forget(&mut self, watermark: i64) {
        match &mut self.state {
            CallState::Recent { keys, .. } => {
                // of an interval its end is kept
                let limit = match self.plan.function {
                    AnalyticFunction::IsFirst { .. } => 1,
                    _ => self.plan.limit.unwrap_or(i64::MAX),
                };
                keys.forget(|recent| recent.newest().is_none_or(|(time, _)| watermark.saturating_sub(*time) >= limit));
            }
            CallState::Learned(detector) => detector.forget(watermark),
            CallState::Held(history, _) => {
                let until = watermark.saturating_sub(self.plan.limit.unwrap_or(i64::MAX));
                let stale = |key: &&[u8]| history.front(key).is_some_and(|held| held.time() <= until);
                let keys: Vec<Key> = history.keys().filter(stale).map(Key::from).collect();
                keys.iter().for_each(|key| history.expire(key, until));
            }
        }
    }

    pub(super) fn changes(&mut self, number: usize, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        match &mut self.state {
            CallState::Held(history, _) => history.changes(writer),
            CallState::Learned(detector) => detector.changes(writer),
            CallState::Recent { keys, .. } => keys.changes(|pack, value| {
                let mut rest = vec![u8::try_from(number).unwrap_or(u8::MAX)];
                put_varint(&mut rest, u64::from(pack));
                writer.put(RECENT, &rest, value);
            }),
        }
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        match &mut self.state {
            CallState::Held(history, _) if loaded.kind >= HELD => history.load(loaded),
            CallState::Learned(detector) if loaded.kind >= HELD => detector.load(loaded),
            CallState::Recent { keys, .. } if loaded.kind == RECENT => {
                let mut reader = ByteReader::new(loaded.rest);
                reader.byte()?;
                let pack = u32::try_from(reader.varint()?).map_err(|_| Damaged { at: 0 })?;
                keys.load(pack, loaded.value)
            }
            _ => Err(Damaged { at: 0 }.into()),
        }
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        if let CallState::Learned(detector) = &mut self.state {
            detector.loaded();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.state {
            CallState::Recent { keys, .. } => keys.bytes(),
            CallState::Held(history, _) => history.bytes(),
            CallState::Learned(detector) => detector.bytes(),
        }
    }
}

/// A row as a look at the last rows of its key sees it.
struct SeenRow {
    now: i64,
    limit: i64,
    value: Value,
    default: Value,
    matches: bool,
}

impl SeenRow {
    /// The value of `LAG`, `LAST` or `ISFIRST`; the row is remembered if it matches.
    fn look_back(self, function: &AnalyticFunction, key: &[u8], keys: &mut Keys, keep: usize) -> Result<Value, Fault> {
        let SeenRow { now, limit, value, default, matches } = self;
        let is_first = matches!(function, AnalyticFunction::IsFirst { .. });
        let Some((slot, recent)) = keys.find(key, matches) else {
            // no row of the key has matched so far
            return Ok(if is_first { Value::BigInt(0) } else { default });
        };
        let young = |item: Option<&(i64, Value)>| match item {
            Some((time, value)) if now.saturating_sub(*time) < limit => value.clone(),
            _ => default.clone(),
        };
        let (result, entry) = match function {
            AnalyticFunction::Lag { .. } => (young(recent.back(keep)), (now, value)),
            AnalyticFunction::IsFirst { interval } => {
                let end = interval_end(now, *interval);
                let first = matches && recent.newest().is_none_or(|(known, _)| *known != end);
                if !first {
                    return Ok(Value::BigInt(0));
                }
                (Value::BigInt(1), (end, Value::Null))
            }
            _ if matches => (value.clone(), (now, value)),
            _ => return Ok(young(recent.newest())),
        };
        if matches {
            keys.push(slot, entry, keep)?;
        }
        Ok(result)
    }
}

/// The end of the interval that a moment lies in, aligned as tumbling windows are.
fn interval_end(time: i64, interval: i64) -> i64 {
    let interval = interval.max(1);
    (time.div_euclid(interval) + i64::from(time.rem_euclid(interval) > 0)).saturating_mul(interval)
}
