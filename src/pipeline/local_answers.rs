//! Answers of a function of the job, in place of an endpoint that is away.
//!
//! In: rows whose last column is the argument of the call. Out: the same rows with the function's answer there, and
//! those for which it has none. Invariant: rows keep their order, their times and their ids. Not here: when an endpoint
//! is away (`score`), what becomes of the answers (`scoring`).

use std::sync::Arc;

use smol_str::SmolStr;

use super::tables::Tables;
use crate::batch::{Batch, Column, Rows};
use crate::engine::{Emitted, EngineError, Executor, ExecutorOptions, Functions};
use crate::journal::StreamId;
use crate::query::plan::{Expr, External, Node, Part};

/// See the module. A failed call is treated as that of any function: by `on_error`.
#[derive(Debug)]
pub struct LocalAnswers {
    executor: Executor,
    /// What the function may look into.
    tables: Tables,
    /// Where rows are kept that the endpoint is to score once more.
    pub rescore: Option<Aside>,
    /// Counts rows: the executor's own offsets, which nobody else sees.
    rows: i64,
}

/// A stream for rows beside those that go on.
#[derive(Clone, Debug)]
pub struct Aside {
    pub stream: StreamId,
    pub columns: Arc<[Column]>,
}

impl LocalAnswers {
    /// `function`: its name, and its number among the functions of the executor. `width`: columns of a row.
    ///
    /// # Errors
    /// The engine cannot run the call.
    pub fn new(
        external: &External,
        (function, index): (&str, usize),
        width: usize,
        rescore: Option<Aside>,
        options: ExecutorOptions,
        functions: Option<Functions>,
        tables: Tables,
    ) -> Result<LocalAnswers, EngineError> {
        let argument = width.saturating_sub(1);
        let call = Expr::Udf {
            index,
            name: SmolStr::new(function),
            args: vec![Expr::Slot(argument)],
            span: external.span,
            keeps_state: false,
        };
        let exprs = (0..argument).map(Expr::Slot).chain([call]).collect();
        let root = Node::Project { input: Box::new(Node::Rows { width }), exprs };
        let columns = columns(width, "answer");
        let part = Part { root, external: None, substream: None, columns };
        Ok(LocalAnswers { executor: Executor::new(&part, options, functions)?, tables, rescore, rows: 0 })
    }

    /// Answers rows, those of one commit; those that it gives no answer for are missing, and among the failures.
    pub fn answer(&mut self, batch: Batch) -> Emitted {
        self.tables.take_over(&mut self.executor);
        let first = self.rows;
        self.rows += batch.len() as i64;
        let columns = columns(batch.width(), "argument");
        self.executor.push_rows(first, &Rows { columns, batch });
        self.executor.take()
    }
}

/// Columns of rows on their way to a call: nobody reads the names but to compare them.
pub fn columns(width: usize, last: &str) -> Arc<[Column]> {
    let carried = (0..width.saturating_sub(1)).map(|i| SmolStr::new(format!("c{i}")));
    carried.chain([SmolStr::new(last)]).map(|name| Column { name, spread: false }).collect()
}

/// The same, with the text of the statement: rows of another text mean something else.
pub fn columns_of(fingerprint: &str, width: usize) -> Arc<[Column]> {
    columns(width, &format!("argument of {}", super::prepare::version(fingerprint)))
}
