//! `GROUP BY`: rows into windows, results out when windows end.
//!
//! In: rows in time order and a watermark. Out: keys, aggregates, window id; a row's event time is the end of its window.
//! Invariant: a result of time E comes when the watermark is past E, once, and results come in the order of their ends.
//! Not here: how each kind of window keeps its rows.

use super::accumulate::grows;
use super::eval::Row;
use super::fixed::Fixed;
use super::group::{Prepared, Sink};
use super::op::{Flow, Op, Step};
use super::session::Sessions;
use super::sliding::{self, Sliding};
use super::state::{Loaded, Writer};
use super::user::Users;
use crate::batch::Batch;
use crate::query::plan::{Aggregate, Expr, NamedWindow, Window};
use crate::value::SmolStr;
use crate::value::codec::Damaged;

#[derive(Debug)]
pub(super) struct AggregateOp {
    pub input: Op,
    pub id: u32,
    keys: Vec<Expr>,
    aggregates: Vec<Aggregate>,
    windows: Vec<(Option<SmolStr>, State)>,
    row: Prepared,
    users: Users,
    /// What windows have been closed up to.
    limit: i64,
}

#[derive(Debug)]
pub(super) enum State {
    Fixed(Fixed),
    Sliding(Sliding),
    Session(Sessions),
}

impl AggregateOp {
    pub(super) fn new(input: Op, id: u32, keys: &[Expr], windows: &[NamedWindow], aggregates: &[Aggregate]) -> AggregateOp {
        let growing = aggregates.iter().any(grows);
        let state = |(i, named): (usize, &NamedWindow)| {
            let number = u8::try_from(i).unwrap_or(u8::MAX);
            let state = match &named.window {
                Window::Tumbling { size, offset } => State::Fixed(Fixed::new(*size, *size, *offset, growing, aggregates.len())),
                Window::Hopping { size, hop, offset } => State::Fixed(Fixed::new(*size, *hop, *offset, growing, aggregates.len())),
                Window::Snapshot => State::Fixed(Fixed::new(1, 1, 0, false, aggregates.len())),
                Window::Sliding { size } => State::Sliding(Sliding::new(*size, keys.len(), number)),
                Window::Session { timeout, max_duration, partition_by } => {
                    State::Session(Sessions::new(*timeout, *max_duration, partition_by.clone()))
                }
            };
            (named.name.clone(), state)
        };
        let windows: Vec<_> = windows.iter().enumerate().map(state).collect();
        let users = Users::new(aggregates, &windows);
        let (keys, aggregates) = (keys.to_vec(), aggregates.to_vec());
        AggregateOp { input, id, keys, aggregates, windows, row: Prepared::default(), users, limit: i64::MIN }
    }

    pub(super) fn step(&mut self, cx: &mut Step<'_>) -> Flow {
        let direct = self.input.is_direct();
        let flow = self.input.step(cx);
        let mut out = Batch::new(self.keys.len() + self.aggregates.len() + 1);
        for (meta, values) in flow.batch.rows() {
            self.advance(meta.time.ticks(), cx, &mut out);
            let row = Row { values, meta };
            let mut filled = self.row.fill(cx.env, &self.keys, &self.aggregates, row);
            if filled.is_ok() && !self.users.is_empty() {
                filled = self.users.enter(cx.env, &mut self.windows, meta, &mut self.row);
            }
            if let Err(error) = filled {
                if cx.env.goes_on(&cx.origin, row, *error, direct) {
                    continue;
                }
                return Flow { batch: out, watermark: i64::MIN };
            }
            cx.env.counts.evaluated += u64::from(direct);
            for (_, window) in &mut self.windows {
                match window {
                    State::Fixed(fixed) => fixed.add(&self.aggregates, meta, &self.row),
                    State::Sliding(sliding) => sliding.add(meta, &self.row),
                    State::Session(sessions) => sessions.add(&self.aggregates, meta, &self.row),
                }
            }
            if !self.users.is_empty() {
                self.users.added(cx.env, &mut self.windows, meta, &self.row);
            }
        }
        self.advance(flow.watermark, cx, &mut out);
        // a window that ends at the watermark is still open, so a row of that time may still come
        Flow { batch: out, watermark: flow.watermark.saturating_sub(1) }
    }

    /// Closes every window that ends before `limit`, in the order of their ends.
    fn advance(&mut self, limit: i64, cx: &mut Step<'_>, out: &mut Batch) {
        self.limit = self.limit.max(limit);
        while let Some((end, i)) = self.next() {
            if end >= limit || cx.env.stopped.is_some() {
                return;
            }
            let Some((name, state)) = self.windows.get_mut(i) else { return };
            let (window, users) = (name.clone(), &mut self.users);
            let mut sink =
                Sink { env: cx.env, origin: cx.origin, aggregates: &self.aggregates, out, window, number: i, users, row: Vec::new() };
            match state {
                State::Fixed(fixed) => fixed.close(end, &mut sink),
                State::Sliding(sliding) => sliding.close(end, &mut sink),
                State::Session(sessions) => sessions.close(end, &mut sink),
            }
        }
    }

    /// The next end and the window it belongs to.
    fn next(&self) -> Option<(i64, usize)> {
        let end = |(i, (_, window)): (usize, &(Option<SmolStr>, State))| {
            let end = match window {
                State::Fixed(fixed) => fixed.next_end(),
                State::Sliding(sliding) => sliding.next_end(),
                State::Session(sessions) => sessions.next_end(),
            };
            end.map(|end| (end, i))
        };
        match self.windows.as_slice() {
            [only] => end((0, only)),
            windows => windows.iter().enumerate().filter_map(end).min(),
        }
    }

    pub(super) fn deadline(&self) -> Option<i64> {
        self.next().map(|(end, _)| end)
    }

    pub(super) fn changes(&mut self, writer: &mut Writer<'_>) {
        self.users.forget(self.limit);
        for (i, (_, window)) in self.windows.iter_mut().enumerate() {
            let number = u8::try_from(i).unwrap_or(u8::MAX);
            match window {
                State::Fixed(fixed) => fixed.changes(number, writer),
                State::Sliding(sliding) => sliding.changes(number, writer),
                State::Session(sessions) => sessions.changes(number, writer),
            }
        }
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        for (i, (_, window)) in self.windows.iter_mut().enumerate() {
            let number = u8::try_from(i).unwrap_or(u8::MAX);
            if let State::Sliding(sliding) = window
                && sliding::owns(loaded.kind, number)
            {
                return sliding.load(loaded);
            }
        }
        let Some((number, rest)) = loaded.rest.split_first() else { return Ok(()) };
        match self.windows.get_mut(usize::from(*number)) {
            Some((_, State::Fixed(fixed))) => fixed.load(&self.aggregates, loaded, rest),
            Some((_, State::Sliding(sliding))) => sliding.load(loaded),
            Some((_, State::Session(sessions))) => sessions.load(&self.aggregates, loaded, rest),
            None => Ok(()),
        }
    }

    /// All state rows are in.
    pub(super) fn loaded(&mut self) {
        for (_, window) in &mut self.windows {
            match window {
                State::Fixed(_) => {}
                State::Sliding(sliding) => sliding.loaded(),
                State::Session(sessions) => sessions.loaded(),
            }
        }
        self.users.loaded(&self.windows);
    }

    pub(super) fn width(&self) -> usize {
        self.keys.len() + self.aggregates.len() + 1
    }

    /// Removes the state rows that say up to where windows are out.
    pub(super) fn retire(&mut self, writer: &mut Writer<'_>) {
        for (i, (_, window)) in self.windows.iter_mut().enumerate() {
            let number = u8::try_from(i).unwrap_or(u8::MAX);
            match window {
                State::Fixed(fixed) => fixed.retire(number, writer),
                State::Sliding(sliding) => sliding.retire(number, writer),
                State::Session(_) => {}
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let bytes = |(_, window): &(Option<SmolStr>, State)| match window {
            State::Fixed(fixed) => fixed.bytes(),
            State::Sliding(sliding) => sliding.bytes(),
            State::Session(sessions) => sessions.bytes(),
        };
        self.windows.iter().map(bytes).sum::<usize>() + self.users.bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.iter().all(|(_, window)| match window {
            State::Fixed(fixed) => fixed.is_empty(),
            State::Sliding(sliding) => sliding.is_empty(),
            State::Session(sessions) => sessions.is_empty(),
        })
    }
}
