//! `APPLY`: a row for each element of an array or property of a record.
//!
//! In: rows. Out: the row with one column more, for each element. Invariant: time and order are those of the input;
//! nothing is kept. Not here: where the names of the column's fields are known (`query::resolve`).

use super::env::{Env, EvalError, Row};
use super::operator::{OperatorTree, Produced, Stateless, StepContext};
use crate::batch::Batch;
use crate::diagnostic::Span;
use crate::query::ast::ApplyFunction;
use crate::query::builtins::RowError;
use crate::query::plan::Expr;
use crate::value::{Record, SmolStr, Value};

#[derive(Debug)]
pub(super) struct ApplyOp {
    pub input: OperatorTree,
    pub outer: bool,
    pub function: ApplyFunction,
    pub argument: Expr,
    pub span: Span,
}

impl ApplyOp {
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
                return Ok(items
                    .iter()
                    .zip(0i64..)
                    .map(|(item, i)| self.pair(Value::BigInt(i), item.clone()))
                    .collect());
            }
            (ApplyFunction::GetRecordProperties, Value::Record(record)) => {
                return Ok(record
                    .iter()
                    .map(|(name, value)| self.pair(Value::Text(name.clone()), value.clone()))
                    .collect());
            }
            (ApplyFunction::GetArrayElements, _) => ("GetArrayElements", "an array"),
            (ApplyFunction::GetRecordProperties, _) => ("GetRecordProperties", "a record"),
        };
        let kind = value.kind().map_or_else(|| "null".to_owned(), |k| k.to_string());
        let error =
            RowError { reason: "argument", message: format!("{name} needs {wanted}, but the value is of type {kind}") };
        env.or_null(error, self.span).map(|_| Vec::new())
    }
}

impl Stateless for ApplyOp {
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
        let direct = self.input.is_direct();
        let produced = self.input.step(cx);
        let mut out = Batch::with_capacity(produced.batch.width() + 1, produced.batch.len());
        for (meta, values) in produced.batch.rows() {
            let row = Row { values, meta };
            let elements = match cx
                .env
                .eval(&self.argument, row)
                .map(std::borrow::Cow::into_owned)
                .and_then(|v| self.open(cx.env, v))
            {
                Ok(elements) => elements,
                Err(error) => {
                    if cx.env.goes_on(&cx.origin, row, *error, direct) {
                        continue;
                    }
                    return Produced::stopped(out);
                }
            };
            cx.env.counts.evaluated += u64::from(direct);
            let none = elements.is_empty() && self.outer;
            for element in elements.into_iter().chain(none.then(|| self.pair(Value::Null, Value::Null))) {
                out.push(*meta, values.iter().cloned().chain([element]));
            }
        }
        Produced { batch: out, watermark: produced.watermark }
    }
}
