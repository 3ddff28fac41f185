//! `WHERE`: the rows for which a condition holds.
//!
//! In: rows. Out: those that the condition lets through. Invariant: a row that is turned down is counted, and one that
//! fails does not come out. Not here: `ON` of joins.

use super::env::Row;
use super::operator::{OperatorTree, Produced, Stateless, StepContext};
use crate::query::plan::Expr;

#[derive(Debug)]
pub(super) struct FilterOp {
    pub input: OperatorTree,
    pub predicate: Expr,
}

impl Stateless for FilterOp {
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.input.width()
    }

    fn is_direct(&self) -> bool {
        self.input.is_direct()
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let direct = self.input.is_direct();
        let mut produced = self.input.step(cx);
        let mut stopped = false;
        let (env, origin) = (&mut *cx.env, &cx.origin);
        produced.batch.retain(|meta, values| {
            if stopped {
                return false;
            }
            let row = Row { values, meta };
            match env.holds(&self.predicate, row) {
                Ok(true) => true,
                Ok(false) => {
                    env.counts.filtered += u64::from(direct);
                    false
                }
                Err(error) => {
                    stopped = !env.goes_on(origin, row, *error, direct);
                    false
                }
            }
        });
        if stopped { Produced::stopped(produced.batch) } else { produced }
    }
}
