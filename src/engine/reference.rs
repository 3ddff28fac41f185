//! Reference joins: a row for each row of a table that matches.
//!
//! In: rows. Out: the row with the record of the table behind it, for each match. Invariant: time and order are those
//! of the input; nothing is kept but the table's present version. Not here: loading reference data.

use std::sync::Arc;

use super::env::{Env, EvalError, Row};
use super::fault::Fault;
use super::index::{Index, Table};
use super::key::put_key;
use super::operator::{OperatorTree, Produced, Stateless, StepContext};
use crate::batch::{Batch, RowMeta};
use crate::diagnostic::Span;
use crate::query::plan::Expr;
use crate::time::Timestamp;
use crate::value::{SmolStr, Value};

/// Joins rows with a table that is given as a whole.
#[derive(Debug)]
pub(super) struct ReferenceOp {
    input: OperatorTree,
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
    pub(super) fn new(
        input: OperatorTree,
        name: &SmolStr,
        left_outer: bool,
        keys: &[(Expr, Expr)],
        on: Option<&Expr>,
    ) -> ReferenceOp {
        let by = SmolStr::new(keys.iter().map(|(_, right)| format!("{right:?};")).collect::<String>());
        ReferenceOp {
            input,
            name: name.clone(),
            left_outer,
            keys: keys.to_vec(),
            on: on.cloned(),
            table: Arc::default(),
            index: None,
            by,
        }
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
            let place = joined.last_mut().zip(self.table.get(i));
            let missing = Fault("the index of a reference table points past its rows");
            let (slot, record) = place.ok_or_else(|| env.fault(missing, Span::default()))?;
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
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 0, 0);
        let indexes = env.options.indexes.clone();
        let mut key_of = |record: &Value, key: &mut Vec<u8>| {
            self.keys.iter().all(|(_, right)| {
                match env.eval(right, Row { values: std::slice::from_ref(record), meta: &meta }) {
                    Ok(value) if !value.is_null() => {
                        put_key(key, &value);
                        true
                    }
                    _ => false,
                }
            })
        };
        self.index = Some(indexes.get(&self.table, &self.by, || Index::new(&self.table, &mut key_of)));
    }
}

impl Stateless for ReferenceOp {
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.input.width() + 1
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        self.refresh(cx.env);
        let direct = self.input.is_direct();
        let produced = self.input.step(cx);
        let width = produced.batch.width();
        let mut out = Batch::with_capacity(width + 1, produced.batch.len());
        let mut key = Vec::new();
        let mut joined: Vec<Value> = Vec::with_capacity(width + 1);
        for (meta, values) in produced.batch.rows() {
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
                        return Produced::stopped(out);
                    }
                    continue;
                }
            }
            if out.len() == before && self.left_outer {
                out.push(*meta, values.iter().cloned());
            }
        }
        Produced { batch: out, watermark: produced.watermark }
    }
}
