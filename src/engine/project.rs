//! New rows from expressions.
//!
//! In: rows. Out: a row of values for each. Invariant: event time and row meta stay; a row of which one expression
//! fails does not come out. Not here: which columns there are (`query::resolve`).

use super::env::{EvalError, Row};
use super::operator::{OperatorTree, Produced, Stateless, StepContext};
use crate::batch::Batch;
use crate::query::plan::Expr;

#[derive(Debug)]
pub(super) struct ProjectOp {
    pub input: OperatorTree,
    pub exprs: Vec<Expr>,
}

impl Stateless for ProjectOp {
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.exprs.len()
    }

    fn is_direct(&self) -> bool {
        self.input.is_direct()
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let direct = self.input.is_direct();
        let produced = self.input.step(cx);
        let mut out = Batch::with_capacity(self.exprs.len(), produced.batch.len());
        for (meta, values) in produced.batch.rows() {
            let row = Row { values, meta };
            let slots = out.push_blank(*meta);
            let result: Result<(), Box<EvalError>> = slots.iter_mut().zip(&self.exprs).try_for_each(|(slot, expr)| {
                *slot = cx.env.eval(expr, row)?.into_owned();
                Ok(())
            });
            if let Err(error) = result {
                out.pop();
                if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                    return Produced::stopped(out);
                }
            }
        }
        Produced { batch: out, watermark: produced.watermark }
    }
}
