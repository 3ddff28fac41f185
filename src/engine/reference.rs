//! Operators that make several rows of one: reference joins and `APPLY`.
//!
//! In: rows. Out: a row for each match or element, with one column more. Invariant: time and order are those of the
//! input; nothing is kept. Not here: loading reference data.

use std::sync::Arc;

use super::env::Env;
use super::eval::{EvalError, Row};
use super::index::{Index, Table};
use super::key::put_key;
use super::op::{Flow, Op, Step};
use crate::batch::{Batch, RowMeta};
use crate::diagnostic::Span;
use crate::query::ast::ApplyFunction;
use crate::query::builtins::RowError;
use crate::query::plan::Expr;
use crate::time::Timestamp;
use crate::value::{Record, SmolStr, Value};

#[derive(Debug)]
pub(super) struct ApplyOp {
    pub input: Op,
    pub outer: bool,
    pub function: ApplyFunction,
    pub argument: Expr,
    pub span: Span,
}

impl ApplyOp {
    pub(super) fn step(&mut self, cx: &mut Step<'_>) -> Flow {
        let direct = self.input.is_direct();
        let flow = self.input.step(cx);
        let mut out = Batch::with_capacity(flow.batch.width() + 1, flow.batch.len());
        for (meta, values) in flow.batch.rows() {
            let row = Row { values, meta };
            let elements = match cx.env.eval(&self.argument, row).map(std::borrow::Cow::into_owned).and_then(|v| self.open(cx.env, v)) {
                Ok(elements) => elements,
                Err(error) => {
                    if cx.env.goes_on(&cx.origin, row, *error, direct) {
                        continue;
                    }
                    return Flow { batch: out, watermark: i64::MIN };
                }
            };
            cx.env.counts.evaluated += u64::from(direct);
            let none = elements.is_empty() && self.outer;
            for element in elements.into_iter().chain(none.then(|| self.pair(Value::Null, Value::Null))) {
                out.push(*meta, values.iter().cloned().chain([element]));
            }
        }
        Flow { batch: out, watermark: flow.watermark }
    }

    fn pair(&self, first: Value, second: Value) -> Value {
        let names = match self.function {
            ApplyFunction::GetArrayElements => ("ArrayIndex", "ArrayValue"),
            ApplyFunction::GetRecordProperties => ("PropertyName", "PropertyValue"),
        };
        let fields = vec![(SmolStr::new_static(names.0), first), (SmolStr::new_static(names.1), second)];
        Value::record(Record::from_unique(fields))
    }

    fn open(&self, env: &mut Env, value: Value) -> Result<Vec<Value>, Box<EvalError>> {
        let (name, wanted) = match (self.function, &value) {
            (_, Value::Null) => return Ok(Vec::new()),
            (ApplyFunction::GetArrayElements, Value::Array(items)) => {
                return Ok(items.iter().zip(0i64..).map(|(item, i)| self.pair(Value::BigInt(i), item.clone())).collect());
            }
            (ApplyFunction::GetRecordProperties, Value::Record(record)) => {
                return Ok(record.iter().map(|(name, value)| self.pair(Value::Text(name.clone()), value.clone())).collect());
            }
            (ApplyFunction::GetArrayElements, _) => ("GetArrayElements", "an array"),
            (ApplyFunction::GetRecordProperties, _) => ("GetRecordProperties", "a record"),
        };
        let kind = value.kind().map_or_else(|| "null".to_owned(), |k| k.to_string());
        let error = RowError { reason: "argument", message: format!("{name} needs {wanted}, but the value is of type {kind}") };
        env.or_null(error, self.span).map(|_| Vec::new())
    }
}

/// Joins rows with a table that is given as a whole.
#[derive(Debug)]
pub(super) struct ReferenceOp {
    pub input: Op,
    name: SmolStr,
    left_outer: bool,
    keys: Vec<(Expr, Expr)>,
    on: Option<Expr>,
    table: Table,
    /// Rows of the table by key, shared with whoever joins the same version by the same keys.
    index: Option<Arc<Index>>,
    /// The right sides of the keys as a text, which tells them from others.
    by: SmolStr,
}

impl ReferenceOp {
    pub(super) fn new(input: Op, name: &SmolStr, left_outer: bool, keys: &[(Expr, Expr)], on: Option<&Expr>) -> ReferenceOp {
        let by = SmolStr::new(keys.iter().map(|(_, right)| format!("{right:?};")).collect::<String>());
        ReferenceOp { input, name: name.clone(), left_outer, keys: keys.to_vec(), on: on.cloned(), table: Arc::default(), index: None, by }
    }

    pub(super) fn step(&mut self, cx: &mut Step<'_>) -> Flow {
        self.refresh(cx.env);
        let direct = self.input.is_direct();
        let flow = self.input.step(cx);
        let width = flow.batch.width();
        let mut out = Batch::with_capacity(width + 1, flow.batch.len());
        let mut key = Vec::new();
        let mut joined: Vec<Value> = Vec::with_capacity(width + 1);
        for (meta, values) in flow.batch.rows() {
            let before = out.len();
            joined.clear();
            joined.extend_from_slice(values);
            joined.push(Value::Null);
            match self.matches(cx.env, meta, &mut joined, &mut key, &mut out) {
                Ok(()) => cx.env.counts.evaluated += u64::from(direct),
                Err(error) => {
                    while out.len() > before {
                        out.pop();
                    }
                    if !cx.env.goes_on(&cx.origin, Row { values, meta }, *error, direct) {
                        return Flow { batch: out, watermark: i64::MIN };
                    }
                    continue;
                }
            }
            if out.len() == before && self.left_outer {
                out.push(*meta, values.iter().cloned());
            }
        }
        Flow { batch: out, watermark: flow.watermark }
    }

    /// Appends a row to `out` for each row of the table that matches; `joined` is the row with room for the other side.
    fn matches(
        &self,
        env: &mut Env,
        meta: &RowMeta,
        joined: &mut [Value],
        key: &mut Vec<u8>,
        out: &mut Batch,
    ) -> Result<(), Box<EvalError>> {
        key.clear();
        for (left, _) in &self.keys {
            let value = env.eval(left, Row { values: joined, meta })?;
            if value.is_null() {
                return Ok(());
            }
            put_key(key, &value);
        }
        for i in self.index.iter().flat_map(|index| index.rows(key)) {
            let (Some(slot), Some(record)) = (joined.last_mut(), self.table.get(i)) else { continue };
            *slot = record.clone();
            let holds = match &self.on {
                Some(on) => env.holds(on, Row { values: joined, meta })?,
                None => true,
            };
            if holds {
                out.push(*meta, joined.iter().cloned());
            }
        }
        Ok(())
    }

    /// Takes the present version of the table. A row whose key has no value, or is NULL, matches nothing.
    fn refresh(&mut self, env: &mut Env) {
        let current = env.options.references.get(&self.name);
        let is_same = current.map_or(self.table.is_empty(), |current| Arc::ptr_eq(current, &self.table));
        if is_same && self.index.is_some() {
            return;
        }
        self.table = current.cloned().unwrap_or_default();
        // before the new one is made: two of a large table are more than needed
        self.index = None;
        let meta = RowMeta { time: Timestamp::MIN, arrival: Timestamp::MIN, offset: 0, ordinal: 0 };
        let indexes = env.options.indexes.clone();
        let mut key_of = |record: &Value, key: &mut Vec<u8>| {
            self.keys.iter().all(|(_, right)| match env.eval(right, Row { values: std::slice::from_ref(record), meta: &meta }) {
                Ok(value) if !value.is_null() => {
                    put_key(key, &value);
                    true
                }
                _ => false,
            })
        };
        self.index = Some(indexes.get(&self.table, &self.by, || Index::new(&self.table, &mut key_of)));
    }
}
