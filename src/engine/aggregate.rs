//! `GROUP BY`: rows into windows, results out when windows end.
//!
//! In: rows in time order and a watermark. Out: keys, aggregates, window id; a row's event time is the end of its
//! window. Invariant: a result of time E comes when the watermark is past E, once, and results come in the order of
//! their ends. Not here: how each kind of window keeps its rows.

use super::env::{Env, EvalError, Row};
use super::fault::{self, Fault, Unloadable};
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::prepared::PreparedRow;
use super::sink::WindowSink;
use super::state::{Loaded, StateWriter};
use super::users::Users;
use super::window::WindowState;
use crate::batch::Batch;
use crate::diagnostic::Span;
use crate::query::plan::{Aggregate, Expr, NamedWindow};
use crate::value::SmolStr;
use crate::value::codec::Damaged;

#[derive(Debug)]
pub(super) struct AggregateOp {
    input: OperatorTree,
    id: u32,
    keys: Vec<Expr>,
    aggregates: Vec<Aggregate>,
    windows: Vec<(Option<SmolStr>, WindowState)>,
    row: PreparedRow,
    users: Users,
    /// What windows have been closed up to.
    limit: i64,
}

impl AggregateOp {
    pub(super) fn new(
        input: OperatorTree,
        id: u32,
        keys: &[Expr],
        windows: &[NamedWindow],
        aggregates: &[Aggregate],
    ) -> AggregateOp {
        let state = |(number, named): (u8, &NamedWindow)| {
            (named.name.clone(), WindowState::new(&named.window, keys.len(), aggregates, number))
        };
        let windows: Vec<_> = numbers().zip(windows).map(state).collect();
        let users = Users::new(aggregates, &windows);
        let (keys, aggregates) = (keys.to_vec(), aggregates.to_vec());
        AggregateOp { input, id, keys, aggregates, windows, row: PreparedRow::default(), users, limit: i64::MIN }
    }

    /// Closes every window that ends before `limit`, in the order of their ends.
    fn advance(&mut self, limit: i64, cx: &mut StepContext<'_>, out: &mut Batch) {
        self.limit = self.limit.max(limit);
        while let Some((end, i)) = self.next() {
            if end >= limit || cx.env.stopped.is_some() {
                return;
            }
            let Some((name, window)) = self.windows.get_mut(i) else {
                return cx.env.report(&cx.origin, Fault("a window ends that the statement does not have"));
            };
            let mut sink = WindowSink {
                env: cx.env,
                origin: cx.origin,
                aggregates: &self.aggregates,
                out,
                window: name.clone(),
                end,
                number: i,
                users: &mut self.users,
                row: Vec::new(),
            };
            let closed = window.close(end, &self.aggregates, |newest, keys, accs| sink.result(newest, keys, accs));
            if let Err(fault) = closed {
                cx.env.report(&cx.origin, fault);
            }
        }
    }

    /// Puts a row into every window.
    fn enter(&mut self, env: &mut Env, row: Row<'_>) -> Result<(), Box<EvalError>> {
        self.row.fill(env, &self.keys, &self.aggregates, row)?;
        if !self.users.is_empty() {
            self.users.enter(env, &mut self.windows, row.meta, &mut self.row)?;
        }
        for (_, window) in &mut self.windows {
            window.add(&self.aggregates, row.meta, &self.row).map_err(|fault| env.fault(fault, Span::default()))?;
        }
        if !self.users.is_empty() {
            let added = self.users.added(env, &mut self.windows, row.meta, &self.row);
            added.map_err(|fault| env.fault(fault, Span::default()))?;
        }
        Ok(())
    }

    /// The next end and the window it belongs to.
    fn next(&self) -> Option<(i64, usize)> {
        let end = |(i, (_, window)): (usize, &(Option<SmolStr>, WindowState))| window.next_end().map(|end| (end, i));
        match self.windows.as_slice() {
            [only] => end((0, only)),
            windows => windows.iter().enumerate().filter_map(end).min(),
        }
    }
}

impl Operator for AggregateOp {
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.keys.len() + self.aggregates.len() + 1
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let direct = self.input.is_direct();
        let produced = self.input.step(cx);
        let mut out = Batch::new(self.width());
        for (meta, values) in produced.batch.rows() {
            self.advance(meta.time.ticks(), cx, &mut out);
            let row = Row { values, meta };
            match self.enter(cx.env, row) {
                Ok(()) => cx.env.counts.evaluated += u64::from(direct),
                Err(error) => {
                    if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                        return Produced::stopped(out);
                    }
                }
            }
        }
        self.advance(produced.watermark, cx, &mut out);
        // a window that ends at the watermark is still open, so a row of that time may still come
        Produced { batch: out, watermark: produced.watermark.saturating_sub(1) }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    /// A window that ends at the watermark is still open.
    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.next().map(|(end, _)| end).filter(|end| *end < held_back)
    }

    fn held_back(&self, below: i64) -> i64 {
        below.saturating_sub(1)
    }

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        self.users.forget(self.limit);
        let windows = numbers().zip(&mut self.windows);
        fault::all(windows.map(|(number, (_, window))| window.changes(number, writer)))
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        let mut numbered = numbers().zip(&mut self.windows);
        if let Some((_, (_, window))) = numbered.find(|(number, (_, window))| window.owns(loaded, *number)) {
            return window.load(&self.aggregates, loaded, &[]);
        }
        let (number, rest) = loaded.rest.split_first().ok_or(Damaged { at: 0 })?;
        // the state of a statement is that of its own text, so a window that it does not have is damage
        let (_, window) = self.windows.get_mut(usize::from(*number)).ok_or(Damaged { at: 0 })?;
        window.load(&self.aggregates, loaded, rest)
    }

    fn loaded(&mut self) {
        self.windows.iter_mut().for_each(|(_, window)| window.loaded());
        self.users.loaded(&self.windows);
    }

    /// Removes the state rows that say up to where windows are out.
    fn retire(&mut self, writer: &mut StateWriter<'_>) {
        for (number, (_, window)) in numbers().zip(&mut self.windows) {
            window.retire(number, writer);
        }
    }

    fn bytes(&self) -> usize {
        self.windows.iter().map(|(_, window)| window.bytes()).sum::<usize>() + self.users.bytes()
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        self.windows.iter().all(|(_, window)| window.is_empty())
    }
}

/// The numbers of windows in state rows; past 255 they are all that.
fn numbers() -> impl Iterator<Item = u8> {
    (0..u8::MAX).chain(std::iter::repeat(u8::MAX))
}
