//! `OVER (LIMIT DURATION …)`: functions of the rows seen so far.
//!
//! In: rows in time order. Out: each row with one value appended for each call. Invariant: a row whose age has reached
//! the limit is not looked at, and a row that fails changes nothing. Not here: `WHERE` (which comes after), windows.

use super::accumulate::Acc;
use super::anomaly::Detector;
use super::env::{Env, EvalError, Row};
use super::held::Held;
use super::history::History;
use super::key::Key;
use super::operator::{Operator, Produced, Step, Tree};
use super::options::EngineError;
use super::prepared::fill_args;
use super::recent::Keys;
use super::state::{Loaded, Writer};
use crate::batch::{Batch, RowMeta};
use crate::query::builtins;
use crate::query::plan::{Aggregate, Analytic, AnalyticFunction};
use crate::value::codec::{Damaged, Reader, put_varint};
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
    input: Tree,
    id: u32,
    calls: Vec<Call>,
    since_sweep: usize,
    /// The watermark at which a quiet input lets go of what is held.
    quiet_sweep: Option<i64>,
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
        keys: Keys,
        keep: usize,
    },
    Held(History),
    /// What the anomaly functions have learned of each key.
    Learned(Detector),
}

impl AnalyticOp {
    pub(super) fn new(input: Tree, id: u32, calls: &[Analytic]) -> Result<AnalyticOp, EngineError> {
        if calls.len() > CALLS_MAX {
            return Err(EngineError::TooManyCalls { max: CALLS_MAX });
        }
        let calls = calls.iter().enumerate().map(|(i, plan)| Call::new(i, plan)).collect();
        Ok(AnalyticOp { input, id, calls, since_sweep: 0, quiet_sweep: None })
    }

    /// Forgets keys of which nothing can be looked at any more: now and then among rows, and when time passes without any.
    fn sweep(&mut self, rows: usize, watermark: i64) {
        self.since_sweep += rows;
        let keys: usize = self.calls.iter().map(Call::keys).sum();
        let is_due = self.since_sweep >= SWEEP_ROWS.max(keys) || (rows == 0 && self.quiet_sweep.is_some_and(|due| watermark >= due));
        if rows > 0 || is_due {
            // by then all that is held now is over
            let limit = self.calls.iter().map(Call::limit).max().unwrap_or(0);
            self.quiet_sweep = (limit < i64::MAX && watermark > i64::MIN).then(|| watermark.saturating_add(limit));
        }
        if is_due {
            self.since_sweep = 0;
            self.calls.iter_mut().for_each(|call| call.forget(watermark));
        }
        if self.is_empty() {
            self.quiet_sweep = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.iter().all(|call| call.keys() == 0)
    }
}

impl Operator for AnalyticOp {
    fn inputs(&self) -> &[Tree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [Tree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.input.width() + self.calls.len()
    }

    fn is_direct(&self) -> bool {
        self.input.is_direct()
    }

    fn step(&mut self, cx: &mut Step<'_>) -> Produced {
        let direct = self.input.is_direct();
        let mut produced = self.input.step(cx);
        let width = produced.batch.width();
        let mut out = Batch::with_capacity(width + self.calls.len(), produced.batch.len());
        for i in 0..produced.batch.len() {
            let Some(meta) = produced.batch.meta().get(i).copied() else { break };
            let row = Row { values: produced.batch.row(i), meta: &meta };
            let result = self.calls.iter_mut().try_for_each(|call| call.evaluate(cx.env, row));
            let results = result.and_then(|()| self.calls.iter_mut().map(|call| call.apply(cx.env, &meta)).collect::<Result<Vec<_>, _>>());
            match results {
                Ok(results) => {
                    let values = produced.batch.row_mut(i).iter_mut().map(std::mem::take);
                    out.push(meta, values.chain(results));
                }
                Err(error) => {
                    if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                        return Produced::stopped(out);
                    }
                }
            }
        }
        self.sweep(produced.batch.len(), produced.watermark);
        Produced { batch: out, watermark: produced.watermark }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    /// When a quiet input could let go of what is held.
    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.quiet_sweep.filter(|time| *time <= held_back)
    }

    fn changes(&mut self, writer: &mut Writer<'_>) {
        for (i, call) in self.calls.iter_mut().enumerate() {
            call.changes(i, writer);
        }
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        if loaded.kind >= HELD {
            return match self.calls.get_mut(usize::from(loaded.kind - HELD)).map(|c| &mut c.state) {
                Some(State::Held(history)) => history.load(loaded),
                Some(State::Learned(detector)) => detector.load(loaded),
                _ => Ok(()),
            };
        }
        // one that was quiet before lets go at the next chance
        self.quiet_sweep = Some(i64::MIN);
        let Some((number, _)) = loaded.rest.split_first() else { return Ok(()) };
        let Some(State::Recent { keys, .. }) = self.calls.get_mut(usize::from(*number)).map(|c| &mut c.state) else { return Ok(()) };
        let mut reader = Reader::new(loaded.rest);
        reader.byte()?;
        let pack = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
        keys.load(pack, loaded.value)
    }

    fn loaded(&mut self) {
        for call in &mut self.calls {
            if let State::Learned(detector) = &mut call.state {
                detector.loaded();
            }
        }
    }

    fn bytes(&self) -> usize {
        let bytes = |call: &Call| match &call.state {
            State::Recent { keys, .. } => keys.bytes(),
            State::Held(history) => history.bytes(),
            State::Learned(detector) => detector.bytes(),
        };
        self.calls.iter().map(bytes).sum()
    }

    fn is_idle(&mut self, floor: i64) -> bool {
        self.calls.iter_mut().for_each(|call| call.forget(floor));
        self.is_empty()
    }

    /// What was forgotten took its state rows with it.
    fn retire(&mut self, _writer: &mut Writer<'_>) {}
}

impl Call {
    fn new(number: usize, plan: &Analytic) -> Call {
        let recent = |keep| State::Recent { keys: Keys::default(), keep };
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
                history.expire(&self.key, now.saturating_sub(limit));
                let total = history.total(&self.key, std::slice::from_ref(aggregate), 0, now, limit);
                let acc = total.and_then(|mut total| total.accs.pop()).unwrap_or_else(|| Acc::new(aggregate));
                acc.finish(aggregate).or_else(|error| env.or_null(error, aggregate.span))
            }
            (State::Learned(detector), _) => {
                let value = match self.values.pop() {
                    Some(Value::Float(value)) => Some(value),
                    _ => None,
                };
                Ok(detector.observe(&self.key, now, value, self.matches))
            }
            (State::Recent { keys, keep }, function) => {
                let value = self.values.pop().unwrap_or_default();
                let default = std::mem::take(&mut self.default);
                let (slot, recent) = match keys.find(&self.key, self.matches) {
                    Some(found) => found,
                    None => return Ok(if let AnalyticFunction::IsFirst { .. } = function { Value::BigInt(0) } else { default }),
                };
                let young = |item: Option<&(i64, Value)>| match item {
                    Some((time, value)) if now.saturating_sub(*time) < limit => value.clone(),
                    _ => default.clone(),
                };
                let (result, entry) = match function {
                    AnalyticFunction::Lag { .. } => (young(recent.back(*keep)), (now, value)),
                    AnalyticFunction::IsFirst { interval } => {
                        let end = interval_end(now, *interval);
                        let first = self.matches && recent.newest().is_none_or(|(known, _)| *known != end);
                        if !first {
                            return Ok(Value::BigInt(0));
                        }
                        (Value::BigInt(1), (end, Value::Null))
                    }
                    _ if self.matches => (value.clone(), (now, value)),
                    _ => return Ok(young(recent.newest())),
                };
                if self.matches {
                    keys.push(slot, entry, *keep);
                }
                Ok(result)
            }
        }
    }

    /// How long a row matters: an interval is over when its end is past, other rows when they reach the limit.
    fn limit(&self) -> i64 {
        match self.plan.function {
            AnalyticFunction::IsFirst { interval } => interval.saturating_add(1),
            _ => self.plan.limit.unwrap_or(i64::MAX),
        }
    }

    fn forget(&mut self, watermark: i64) {
        match &mut self.state {
            State::Recent { keys, .. } => {
                // of an interval its end is kept
                let limit = match self.plan.function {
                    AnalyticFunction::IsFirst { .. } => 1,
                    _ => self.plan.limit.unwrap_or(i64::MAX),
                };
                keys.forget(|recent| recent.newest().is_none_or(|(time, _)| watermark.saturating_sub(*time) >= limit));
            }
            State::Learned(detector) => detector.forget(watermark),
            State::Held(history) => {
                let until = watermark.saturating_sub(self.plan.limit.unwrap_or(i64::MAX));
                let stale = |key: &&[u8]| history.front(key).is_some_and(|held| held.time() <= until);
                let keys: Vec<Key> = history.keys().filter(stale).map(Key::from).collect();
                keys.iter().for_each(|key| history.expire(key, until));
            }
        }
    }

    fn changes(&mut self, number: usize, writer: &mut Writer<'_>) {
        match &mut self.state {
            State::Held(history) => history.changes(writer),
            State::Learned(detector) => detector.changes(writer),
            State::Recent { keys, .. } => keys.changes(|pack, value| {
                let mut rest = vec![u8::try_from(number).unwrap_or(u8::MAX)];
                put_varint(&mut rest, u64::from(pack));
                writer.put(RECENT, &rest, value);
            }),
        }
    }
}

/// The end of the interval that a moment lies in, aligned as tumbling windows are.
fn interval_end(time: i64, interval: i64) -> i64 {
    let interval = interval.max(1);
    (time.div_euclid(interval) + i64::from(time.rem_euclid(interval) > 0)).saturating_mul(interval)
}
